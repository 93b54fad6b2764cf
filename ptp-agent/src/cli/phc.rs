//! `ptp-agent phc`: reads, sets and compares hardware clocks and the system clock. The system clock
//! itself is only read here; `run --clock system` steers it, with its policy.

mod signals;

use std::{fs, path::PathBuf, thread, time::Duration as StdDuration};

use anyhow::Context as _;
use clap::Subcommand;
use ptp_common::time::{Duration, Ptp, Time};
use serde_json::{Value, json};

use crate::publish::Format;
use crate::{
    agent::{AgentError, print, run::ClockChoice},
    clock::{
        frequency::KernelFrequency,
        phc::{Access, Device, PhcError},
    },
    sys::{
        adjust::{AdjustableClock, nominal_tick},
        clock::{monotonic, realtime, tai_offset_seconds},
        ethtool, hwtstamp,
    },
};

/// What is done.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// The clock devices of this host.
    List,
    /// Time, frequency and abilities of a device, or of the system clock with all that the kernel
    /// keeps about it.
    Get {
        /// A device such as /dev/ptp0, or `system`.
        clock: PathBuf,
    },
    /// Set a device: to the system clock's time, as TAI where the kernel knows the offset, or to
    /// another.
    Set {
        /// The device.
        device: PathBuf,
        /// Seconds since 1970 instead.
        #[arg(long, value_name = "S", allow_negative_numbers = true)]
        to: Option<f64>,
    },
    /// Adjust a device: its time, its frequency or both.
    Adj {
        /// The device.
        device: PathBuf,
        /// Seconds to be added to its time.
        #[arg(
            long,
            value_name = "S",
            allow_negative_numbers = true,
            required_unless_present = "frequency"
        )]
        step: Option<f64>,
        /// The frequency adjustment, parts per billion; positive is faster.
        #[arg(long, value_name = "PPB", allow_negative_numbers = true)]
        frequency: Option<f64>,
    },
    /// What a network card can stamp by itself and what it is set to; sets it where a value is given, as hwstamp_ctl
    /// does, and leaves it so (needs CAP_NET_ADMIN). One switch for the whole host: a daemon that uses it may break.
    Nic {
        /// The interface.
        interface: String,
        /// What is stamped of the packets sent.
        #[arg(long, value_name = "TYPE", value_parser = hwtstamp::TX_TYPES)]
        tx: Option<String>,
        /// What is stamped of the packets received.
        #[arg(long, value_name = "FILTER", value_parser = hwtstamp::RX_FILTERS)]
        rx: Option<String>,
    },
    /// The pins of a device: what they are called, and what each is for.
    Pins {
        /// The device.
        device: PathBuf,
    },
    /// Make a periodic signal, such as a pulse per second, at an output of a device, or end it. It goes on when the
    /// command has ended.
    Perout {
        /// The device.
        device: PathBuf,
        /// The channel.
        #[arg(long, value_name = "N", default_value_t = 0)]
        channel: u32,
        /// The pin, where it can be chosen.
        #[arg(long, value_name = "N")]
        pin: Option<u32>,
        /// From one rise to the next, seconds; 0 ends it.
        #[arg(long, value_name = "S", default_value_t = 1.0)]
        period: f64,
        /// How long it is high, seconds (default: as the driver has it).
        #[arg(long, value_name = "S")]
        width: Option<f64>,
    },
    /// Print the edges that a device stamps at an input.
    Extts {
        /// The device.
        device: PathBuf,
        /// The channel.
        #[arg(long, value_name = "N", default_value_t = 0)]
        channel: u32,
        /// The pin, where it can be chosen.
        #[arg(long, value_name = "N")]
        pin: Option<u32>,
        /// Ends after so many.
        #[arg(long, value_name = "N", default_value_t = 10)]
        count: u32,
        /// Or when none has come for so long, seconds.
        #[arg(long, value_name = "S", default_value = "3", value_parser = super::args::seconds)]
        patience: StdDuration,
    },
    /// Compare a device with the system clock: device minus CLOCK_REALTIME, and how the two drift.
    Cmp {
        /// The device.
        device: PathBuf,
        /// How often.
        #[arg(long, value_name = "N", default_value_t = 1)]
        count: u32,
        /// Seconds in between.
        #[arg(long, value_name = "S", default_value = "1", value_parser = super::args::seconds)]
        interval: StdDuration,
    },
}

/// Does it.
pub(super) fn run(args: &Args, format: Format) -> anyhow::Result<()> {
    let say = |text: &str| print(text).map_err(AgentError::from);
    let tell = |line: &Value| {
        if format.is_json() {
            return say(&line.to_string());
        }
        let fields = line.as_object().into_iter().flatten().filter(|(key, _)| *key != "event");
        let fields: Vec<String> = fields
            .map(|(key, value)| match value {
                Value::String(text) => format!("{key} {text}"),
                value => format!("{key} {value}"),
            })
            .collect();
        say(&fields.join("  "))
    };
    match &args.action {
        Action::List => {
            let devices = list();
            if devices.is_empty() && !format.is_json() {
                say("no clock devices (/sys/class/ptp is empty)")?;
            }
            devices.iter().try_for_each(tell)?;
        }
        Action::Get { clock } if clock.as_os_str() == "system" => tell(&system()?)?,
        Action::Get { clock } => tell(&state(&Device::open(clock, Access::Read)?, clock)?)?,
        Action::Set { device: path, to } => {
            let device = Device::open(path, Access::Set)?;
            free_of_others(path)?;
            let _lock = device.lock()?;
            let begun = realtime();
            let target: Time<Ptp> = match to {
                Some(seconds) => seconds_after_1970(*seconds)?,
                None => {
                    let tai = Duration::from_secs(i64::from(tai_offset_seconds()?));
                    begun.at_offset(tai)
                }
            };
            // A step is added to whatever time it is by then, so that the reading alone decides how
            // exact it is. Some drivers take time to make it: the second one removes that.
            for _ in 0..2 {
                let reading = device.cross_reading()?;
                device.step(target + (reading.real - begun) - reading.device)?;
            }
            tell(&state(&device, path)?)?;
        }
        Action::Adj { device: path, step, frequency } => {
            let device = Device::open(path, Access::Set)?;
            free_of_others(path)?;
            let _lock = device.lock()?;
            if let Some(ppb) = frequency {
                let limit = f64::from(device.capabilities().max_adj);
                anyhow::ensure!(
                    ppb.abs() <= limit,
                    "{} adjusts its frequency by {limit} ppb at the most",
                    path.display()
                );
                device.set_frequency(*ppb)?;
            }
            if let Some(seconds) = step {
                anyhow::ensure!(seconds.abs() < 4e9, "a step of {seconds} s is out of range");
                device.step(Duration::from_nanos_f64(seconds * 1e9))?;
            }
            tell(&state(&device, path)?)?;
        }
        Action::Nic { interface, tx, rx } => {
            let before = hwtstamp::configuration(interface).ok();
            if tx.is_some() || rx.is_some() {
                let now = before.unwrap_or_default();
                let tx = tx.as_deref().unwrap_or_else(|| now.tx());
                let rx = rx.as_deref().unwrap_or_else(|| now.rx());
                let wanted = hwtstamp::Config::named(tx, rx).with_context(|| {
                    format!("{interface} is set to something without a name; give --tx and --rx")
                })?;
                hwtstamp::configure(interface, wanted).with_context(|| {
                    let offered = ethtool::timestamping(interface).unwrap_or_default();
                    format!(
                        "{interface} cannot be told to stamp tx {tx}, rx {rx}; it offers tx {}, rx {}",
                        listed(&offered.tx_names()),
                        listed(&offered.rx_names())
                    )
                })?;
            }
            tell(&nic(interface, before)?)?;
        }
        Action::Pins { device } => signals::pins(device, &tell)?,
        Action::Perout { device, channel, pin, period, width } => {
            let signal = signals::Wanted { channel: *channel, pin: *pin };
            signals::perout(device, signal, *period, *width, &tell)?;
        }
        Action::Extts { device, channel, pin, count, patience } => {
            let signal = signals::Wanted { channel: *channel, pin: *pin };
            signals::extts(device, signal, *count, *patience, &tell)?;
        }
        Action::Cmp { device: path, count, interval } => {
            let device = Device::open(path, Access::Read)?;
            let mut before = None;
            for n in 0..*count {
                if n > 0 {
                    thread::sleep(*interval);
                }
                let reading = device.cross_reading()?;
                let offset = reading.device.ahead_of(reading.real);
                let drift_ppb = before.map(|(real, was): (Time<_>, Duration)| {
                    (offset - was).as_nanos_f64() / (reading.real - real).as_secs_f64()
                });
                before = Some((reading.real, offset));
                tell(&json!({
                    "event": "phc_compare",
                    "device": path.display().to_string(),
                    "realtime_ns": reading.real.as_nanos(),
                    "offset_ns": offset.as_nanos(),
                    "width_ns": reading.width.as_nanos(),
                    "method": reading.method.name(),
                    "drift_ppb": drift_ppb,
                }))?;
            }
        }
    }
    Ok(())
}

/// Names in a message, where there may be none.
fn listed(names: &[&str]) -> String {
    if names.is_empty() { "nothing".to_owned() } else { names.join(" ") }
}

/// What `ethtool -T` says, and what the card is set to, before and now.
fn nic(interface: &str, before: Option<hwtstamp::Config>) -> anyhow::Result<Value> {
    let offered = ethtool::timestamping(interface)
        .with_context(|| format!("{interface} cannot be asked for its timestamps"))?;
    let driver = ethtool::driver(interface).map(|driver| driver.name).ok();
    let told = |config: Option<hwtstamp::Config>| {
        config.map(|config| json!({ "tx": config.tx(), "rx": config.rx() }))
    };
    let (now, way) = hwtstamp::told(interface).ok().unzip();
    let clock = match way {
        Some(hwtstamp::Way::Netlink(clock)) => clock,
        _ => None,
    };
    Ok(json!({
        "event": "nic",
        "interface": interface,
        "driver": driver,
        "device": offered.phc.map(|number| format!("/dev/ptp{number}")),
        "tx_software": offered.tx_software,
        "rx_software": offered.rx_software,
        "tx_hardware": offered.tx_hardware,
        "rx_hardware": offered.rx_hardware,
        "tx_types": offered.tx_names(),
        "rx_filters": offered.rx_names(),
        "before": told(before),
        "now": told(now),
        "asked_by": way.map(|way| way.name()),
        "stamped_by": clock.map(|clock| {
            json!({ "device": format!("/dev/ptp{}", clock.index), "qualifier": clock.qualifier })
        }),
    }))
}

fn seconds_after_1970(seconds: f64) -> anyhow::Result<Time<Ptp>> {
    // What a PTP timestamp of a device can be, and an `i64` of nanoseconds.
    anyhow::ensure!((0.0..9e9).contains(&seconds), "{seconds} s since 1970 is out of range");
    Ok(Time::from_epoch(Duration::from_nanos_f64(seconds * 1e9)))
}

/// Whether the clock that is to follow is free, asked before privileges are dropped: which files another
/// program has open is not for everybody.
pub(super) fn free_to_follow(clock: &ClockChoice) -> Result<(), PhcError> {
    match clock {
        ClockChoice::Phc(device, _) => free_of_others(device),
        _ => Ok(()),
    }
}

fn free_of_others(path: &std::path::Path) -> Result<(), PhcError> {
    match crate::clock::rivals::users_of(path).into_iter().next() {
        Some(by) => Err(PhcError::InUse { path: path.to_owned(), by }),
        None => Ok(()),
    }
}

fn list() -> Vec<Value> {
    let Ok(entries) = fs::read_dir("/sys/class/ptp") else {
        return Vec::new();
    };
    let mut names: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    names.sort();
    names
        .iter()
        .map(|path| {
            let of = |name: &str| {
                fs::read_to_string(path.join(name)).map(|text| text.trim().to_owned()).ok()
            };
            let interfaces = fs::read_dir(path.join("device/net")).into_iter().flatten();
            let interfaces: Vec<_> = interfaces
                .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
                .collect();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            json!({
                "event": "phc",
                "device": format!("/dev/{name}"),
                "name": of("clock_name"),
                "max_frequency_ppb": of("max_adjustment").and_then(|ppb| ppb.parse::<i64>().ok()),
                "interfaces": interfaces,
            })
        })
        .collect()
}

fn state(device: &Device, path: &std::path::Path) -> Result<Value, PhcError> {
    let capabilities = device.capabilities();
    let reading = device.cross_reading()?;
    Ok(json!({
        "event": "phc_state",
        "device": path.display().to_string(),
        "time_ns": reading.device.as_nanos(),
        "realtime_ns": reading.real.as_nanos(),
        "offset_ns": (reading.device.ahead_of(reading.real)).as_nanos(),
        "width_ns": reading.width.as_nanos(),
        "method": reading.method.name(),
        // A driver need not tell.
        "frequency_ppb": device.frequency_ppb().ok(),
        "max_frequency_ppb": capabilities.max_adj,
        "cross_timestamping": capabilities.cross_timestamping != 0,
        "pps": capabilities.pps != 0,
    }))
}

fn system() -> anyhow::Result<Value> {
    let state = AdjustableClock::SYSTEM.state()?;
    let frequency = KernelFrequency { tick: state.tick, fine: state.frequency };
    let real = realtime();
    Ok(json!({
        "event": "system_clock",
        "realtime_ns": real.as_nanos(),
        "monotonic_ns": monotonic().as_nanos(),
        "frequency_ppb": frequency.ppb(nominal_tick()),
        "tick_us": state.tick,
        "synchronised": state.status & libc::STA_UNSYNC == 0,
        "status": state.status,
        "max_error_us": state.max_error_us,
        "est_error_us": state.est_error_us,
        "tai_offset_s": state.tai_offset_seconds,
        "leap": if state.status & libc::STA_INS != 0 {
            1
        } else if state.status & libc::STA_DEL != 0 {
            -1
        } else {
            0
        },
        "leap_state": match state.leap_state {
            libc::TIME_OK => "ok",
            libc::TIME_INS => "insert",
            libc::TIME_DEL => "delete",
            libc::TIME_OOP => "in_progress",
            libc::TIME_WAIT => "occurred",
            _ => "unsynchronised",
        },
    }))
}
