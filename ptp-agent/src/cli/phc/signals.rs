//! What a hardware clock does with signals: edges that it stamps, and those that it makes.

use std::{path::Path, time::Duration as StdDuration};

use anyhow::Context as _;
use ptp_common::time::Duration;
use serde_json::{Value, json};

use crate::{
    agent::AgentError,
    clock::phc::{Access, Device},
    sys::pins::{self, Edges, Function, Signal},
};

type Tell<'a> = &'a dyn Fn(&Value) -> Result<(), AgentError>;

/// A signal begins so long after it was asked for, seconds: the next but one.
const AHEAD_S: i64 = 2;

/// Which channel, and at which pin.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub(super) channel: u32,
    pub(super) pin: Option<u32>,
}

impl Wanted {
    /// Whether there is such a channel; and says what the pin is for.
    fn prepare(self, device: &Device, path: &Path, function: Function) -> anyhow::Result<()> {
        let capabilities = device.capabilities();
        let (has, what) = match function {
            Function::Perout => (capabilities.n_per_out, "makes periodic signals"),
            _ => (capabilities.n_ext_ts, "stamps edges"),
        };
        anyhow::ensure!(
            i64::from(self.channel) < i64::from(has),
            "{} {what} on {has} channels, and {} is none of them",
            path.display(),
            self.channel
        );
        if let Some(pin) = self.pin {
            let path = path.display();
            pins::set_pin(device.file(), pin, function, self.channel).with_context(|| {
                format!("pin {pin} of {path} cannot be for {} {}", function.name(), self.channel)
            })?;
        }
        Ok(())
    }
}

/// What each pin is called and for.
pub(super) fn pins(path: &Path, tell: Tell<'_>) -> anyhow::Result<()> {
    let device = Device::open(path, Access::Read)?;
    let capabilities = device.capabilities();
    tell(&json!({
        "event": "phc_signals",
        "device": path.display().to_string(),
        "inputs": capabilities.n_ext_ts,
        "outputs": capabilities.n_per_out,
        "pins": capabilities.n_pins,
        "pps": capabilities.pps != 0,
    }))?;
    for index in 0..u32::try_from(capabilities.n_pins).unwrap_or(0) {
        let pin = pins::pin(device.file(), index)
            .with_context(|| format!("{} does not tell of its pins", path.display()))?;
        tell(&json!({
            "event": "phc_pin",
            "pin": pin.index,
            "name": pin.name,
            "function": pin.function.name(),
            "channel": pin.channel,
        }))?;
    }
    Ok(())
}

/// Makes a signal, or ends it.
pub(super) fn perout(
    path: &Path,
    wanted: Wanted,
    period_s: f64,
    width_s: Option<f64>,
    tell: Tell<'_>,
) -> anyhow::Result<()> {
    anyhow::ensure!((0.0..=4e9).contains(&period_s), "a period of {period_s} s is out of range");
    let is_width = width_s.is_none_or(|width| width > 0.0 && width < period_s);
    anyhow::ensure!(is_width, "a signal cannot be high for longer than its period");
    let device = Device::open(path, Access::Set)?;
    let (period, function) = match period_s {
        0.0 => (Duration::ZERO, Function::None),
        period_s => (Duration::from_nanos_f64(period_s * 1e9), Function::Perout),
    };
    if function == Function::Perout {
        wanted.prepare(&device, path, function)?;
    }
    // At a whole second of the clock, as a pulse per second has to be.
    let now = device.cross_reading()?.device;
    let second = now.as_nanos().div_euclid(1_000_000_000) + AHEAD_S;
    let start = ptp_common::time::Time::from_epoch(Duration::from_secs(second));
    let width = width_s.map(|width| Duration::from_nanos_f64(width * 1e9));
    pins::set_perout(device.file(), wanted.channel, Signal { start, period, width })
        .with_context(|| format!("{} cannot make such a signal", path.display()))?;
    tell(&json!({
        "event": "phc_perout",
        "device": path.display().to_string(),
        "channel": wanted.channel,
        "pin": wanted.pin,
        "period_ns": period.as_nanos(),
        "start_ns": if period == Duration::ZERO { None } else { Some(start.as_nanos()) },
    }))?;
    Ok(())
}

/// Prints edges.
pub(super) fn extts(
    path: &Path,
    wanted: Wanted,
    count: u32,
    patience: StdDuration,
    tell: Tell<'_>,
) -> anyhow::Result<()> {
    let device = Device::open(path, Access::Set)?;
    wanted.prepare(&device, path, Function::Extts)?;
    pins::set_extts(device.file(), wanted.channel, Edges::Rising)
        .with_context(|| format!("{} does not stamp edges", path.display()))?;
    let printed = edges(&device, path, wanted.channel, (count, patience), tell);
    // Switched off again, whatever has happened.
    let off = pins::set_extts(device.file(), wanted.channel, Edges::Off);
    printed?;
    off.with_context(|| format!("{} goes on stamping edges", path.display()))
}

fn edges(
    device: &Device,
    path: &Path,
    channel: u32,
    (count, patience): (u32, StdDuration),
    tell: Tell<'_>,
) -> anyhow::Result<()> {
    let mut seen = 0;
    while seen < count {
        let edge = pins::next_edge(device.file(), patience)
            .with_context(|| format!("cannot read {}", path.display()))?;
        let Some(edge) = edge else {
            anyhow::bail!("no edge for {:.1} s", patience.as_secs_f64());
        };
        if edge.channel != channel {
            continue;
        }
        seen += 1;
        tell(&json!({
            "event": "phc_edge",
            "device": path.display().to_string(),
            "channel": edge.channel,
            "time_ns": edge.time.as_nanos(),
        }))?;
    }
    Ok(())
}
