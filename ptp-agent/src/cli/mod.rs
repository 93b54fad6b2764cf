//! The command line: what each command takes, how it goes together with the configuration file, and
//! what the exit codes mean.

mod clock;
mod config;
mod log;
mod phc;
pub(crate) mod privileges;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    str::FromStr,
    time::Duration as StdDuration,
};

use clap::{Args, Parser, Subcommand, ValueEnum};
use ptp_common::time::Duration;

use crate::{
    agent::{
        AgentError, Common,
        io::IoConfig,
        observe::{self, ObserveConfig},
        prime::PrimeMode,
        replay::{self, Recording, ReplayConfig},
        run::{self, ClockChoice, RunConfig},
        serve::{self, ServeConfig, ServedClock},
        services::Serving,
        tap::TapConfig,
    },
    bench,
    capture::{CaptureError, Latencies, Latency, RxSource, TxSource},
    clock::phc::PhcError,
    compare::{self, CompareError},
    doctor,
    engine::DelayMechanism,
    lab,
    publish::{
        alarms::{DEFAULT_OFFSET_LIMIT, Limits},
        local::StatusSocket,
    },
    recording::{FollowedClock, RecordError, RecordingFile, Start},
    servo::{
        Servo,
        choice::{self, Choice},
        watch::WatchServo,
    },
    status,
    transport::TransportKind,
};
use clock::{ExportArgs, RunClock};
use config::{Config, ConfigError, keys};
use log::LogFormat;

/// Exit code: the command failed.
const FAILED: u8 = 1;
/// Exit code: bad usage or configuration.
const BAD_USAGE: u8 = 2;
/// Exit code: the host lacks something that is needed.
const HOST_LACKS: u8 = 3;

/// Portable PTP agent: eBPF timestamps on any interface, no help needed from NIC or driver.
#[derive(Debug, Parser)]
#[command(name = "ptp-agent", version, about, max_term_width = 100)]
struct Cli {
    /// JSON lines on standard output, logs on standard error.
    #[arg(long, global = true)]
    json: bool,
    /// Configuration file (TOML); options on the command line win over it.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// More detail in the log: -v for debug, -vv for trace.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    /// How log lines look: human (default) or json.
    #[arg(
        long,
        global = true,
        value_name = "FORMAT",
        default_value = "human",
        hide_default_value = true,
        hide_possible_values = true
    )]
    log_format: LogFormat,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Follow the best grandmaster, with a clock of its own or watching the host's.
    ///
    /// Needs CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON, CAP_NET_RAW and CAP_NET_BIND_SERVICE.
    Run(RunArgs),
    /// Serve time as a grandmaster in software.
    ///
    /// Needs CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON, CAP_NET_RAW and CAP_NET_BIND_SERVICE.
    Serve(ServeArgs),
    /// Watch other daemons: stamp and pair the exchanges that pass by, and never transmit.
    ///
    /// Opens no PTP port, so it runs beside any daemon. Needs CAP_BPF, CAP_NET_ADMIN and
    /// CAP_PERFMON.
    Observe(ObserveArgs),
    /// Compare eBPF stamps of each PTP packet with the kernel's own (SO_TIMESTAMPING).
    ///
    /// Opens no PTP port, so it runs beside any daemon and compares that daemon's packets. Needs
    /// CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON and CAP_NET_RAW; with --lab, which makes its own network
    /// namespaces, also CAP_SYS_ADMIN.
    Compare(compare::Args),
    /// Follow as `run` does, and record everything that the engine is given.
    ///
    /// The file is pcapng: it opens in Wireshark, and `replay` makes the same numbers of it again.
    Record(RecordArgs),
    /// Give a recording to engine, servo and clock once more; needs no privilege.
    ///
    /// Prints what `run` printed, bit for bit, or with --servo what another servo would have made of
    /// the same packets.
    Replay(ReplayArgs),
    /// Watch an agent follow a drifting grandmaster, with the true error known exactly.
    ///
    /// Makes two network namespaces and a veth pair by itself, which vanish when it ends, and touches
    /// no clock of the host. Needs CAP_SYS_ADMIN and what `run` needs.
    Lab(lab::Args),
    /// What the stamps cost on this host: the clock calls inside eBPF (the paper's Table 2), what
    /// each hook adds to PTP packets and to others, and what a flow of other packets loses.
    ///
    /// Packets stay in network namespaces of its own. Needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON;
    /// for tracepoints and throughput CAP_SYS_ADMIN and CAP_NET_BIND_SERVICE too.
    #[command(args_conflicts_with_subcommands = true)]
    Bench(BenchCommand),
    /// Read, set and compare hardware clocks (/dev/ptpN) and the system clock.
    ///
    /// Reading needs read access to the device, setting write access.
    Phc(phc::Args),
    /// Is this host fit for precise time, and if not, what to do?
    ///
    /// Changes nothing, and steers no clock. Ends with exit code 3 when something that the agent
    /// needs is missing. Needs no privileges, but says more with those of `run`.
    Doctor(doctor::Args),
    /// What a running agent says of itself; with --watch, a view of the terminal.
    ///
    /// Needs no privileges.
    Status(status::Args),
    /// The configuration file: what is in it, and whether it can be used.
    ///
    /// Needs no privileges.
    #[command(subcommand)]
    Config(ConfigCommand),
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Say whether the file can be used: exit code 2 with line, column and a suggestion if not.
    Check {
        /// The file; default: that of --config.
        file: Option<PathBuf>,
    },
    /// Print the file with every key explained; what is not set as a comment with its default.
    Show {
        /// The file; default: that of --config.
        file: Option<PathBuf>,
        /// Print it as if nothing were set.
        #[arg(long, conflicts_with = "file")]
        default: bool,
    },
}

/// What is measured.
#[derive(Debug, Args)]
struct BenchCommand {
    #[command(flatten)]
    stamps: bench::BenchArgs,
    #[command(subcommand)]
    other: Option<BenchOther>,
}

#[derive(Debug, Subcommand)]
enum BenchOther {
    /// What the servos reach where the truth is known, beside the figures that they are to reach:
    /// on simulated links, in the laboratory beside linuxptp's ptp4l, and what an exchange costs.
    ///
    /// Needs what `lab` needs, or nothing with --no-lab. Ends with exit code 1 when a figure is not
    /// reached.
    Servo(bench::servo::Args),
}

/// Which interfaces, and how packets are stamped there.
#[derive(Debug, Default, Args)]
struct TapArgs {
    /// Interface; several are allowed.
    #[arg(short, long, value_name = "IFACE", num_args = 1..)]
    interface: Vec<String>,
    /// Receive stamp: auto (default; measures which is best), stack, tc_ingress, xdp_native,
    /// xdp_generic, or xdp for native where the driver can and generic elsewhere.
    #[arg(long, value_name = "SOURCE")]
    rx_source: Option<OrAuto<RxSource>>,
    /// Transmit stamp: auto (default; measures which is best), xmit_done, start_xmit, tc_egress or
    /// driver_software (not for `observe`).
    #[arg(long, value_name = "SOURCE")]
    tx_source: Option<OrAuto<TxSource>>,
    /// Size of the ring buffer, KiB: a power of two.
    #[arg(long, value_name = "KIB", value_parser = ring_kib)]
    ring_kib: Option<u32>,
    /// End by itself after this many seconds.
    #[arg(long, value_name = "S", value_parser = seconds)]
    duration: Option<StdDuration>,
    /// Serve Prometheus metrics, /healthz and /status here; off unless given.
    #[arg(long, value_name = "ADDR:PORT")]
    metrics_address: Option<SocketAddr>,
    /// Tell `status` about this agent here, or nowhere (none); default: in /run/ptp-agent.
    #[arg(long, value_name = "PATH")]
    status_socket: Option<StatusSocket>,
    /// Magnitude of the offset that raises an alarm, ns (default 100000).
    #[arg(long, value_name = "NS", value_parser = clap::value_parser!(u32).range(1..))]
    offset_threshold: Option<u32>,
}

/// Which ports, one on each interface.
#[derive(Debug, Default, Args)]
struct PortArgs {
    #[command(flatten)]
    tap: TapArgs,
    /// What carries the messages: udp4 (default), udp6 or l2.
    #[arg(long)]
    transport: Option<TransportKind>,
    /// PTP domain number.
    #[arg(long, value_name = "N")]
    domain: Option<u8>,
    /// Answer management messages of linuxptp's pmc here; off unless given. Nothing can be changed
    /// this way.
    #[arg(long, value_name = "PATH")]
    management_socket: Option<PathBuf>,
    /// Prime event messages with a throwaway frame: auto (default; where it helps) or off.
    #[arg(long)]
    prime: Option<PrimeMode>,
    /// Between the wire and the receive stamp, ns: is subtracted. SOURCE=NS for one capture point.
    #[arg(long, value_name = "[SOURCE=]NS", allow_hyphen_values = true)]
    ingress_latency: Vec<Latency>,
    /// Between the transmit stamp and the wire, ns: is added. SOURCE=NS for one capture point.
    #[arg(long, value_name = "[SOURCE=]NS", allow_hyphen_values = true)]
    egress_latency: Vec<Latency>,
    /// Seed for the randomised message intervals, for repeatable runs.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

/// A capture point, or the order to find the best one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct OrAuto<T>(Option<T>);

impl<T: FromStr<Err = String>> FromStr for OrAuto<T> {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self(None)),
            _ => match text.parse() {
                Ok(point) => Ok(Self(Some(point))),
                Err(problem) => Err(format!("{problem}, or auto")),
            },
        }
    }
}

#[derive(Debug, Args)]
struct RunArgs {
    #[command(flatten)]
    follow: FollowArgs,
    /// Record everything that the engine is given, for `replay` and Wireshark; a file that is there
    /// is overwritten.
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
}

/// What follows, and how.
#[derive(Debug, Args)]
struct FollowArgs {
    #[command(flatten)]
    port: PortArgs,
    /// The clock that follows: none (watch only, default), virtual (a software clock; the host's
    /// clocks are not touched), system (CLOCK_REALTIME) or phc:/dev/ptpN (a hardware clock).
    #[arg(long)]
    clock: Option<RunClock>,
    /// How the path delay is measured.
    #[arg(long)]
    delay: Option<Delay>,
    /// What steers the clock: adaptive (default), pi, linreg or rfc5905, and how pi and linreg
    /// filter, as in pi:raw-weight:median:10.
    #[arg(long, value_name = "SERVO")]
    servo: Option<Choice>,
    /// Print lines as ptp4l does (master offset ... s2 freq ... path delay ...), one per sample, to
    /// standard output or with --json to standard error.
    #[arg(long)]
    log_ptp4l: bool,
    /// How much slower the path from the time transmitter is than the mean of both ways, ns.
    #[arg(long, value_name = "NS", allow_negative_numbers = true)]
    delay_asymmetry: Option<i64>,
    #[command(flatten)]
    export: ExportArgs,
}

#[derive(Debug, Args)]
struct RecordArgs {
    #[command(flatten)]
    run: FollowArgs,
    /// The file; one that is there is overwritten.
    #[arg(short, long, value_name = "FILE")]
    write: PathBuf,
}

#[derive(Debug, Args)]
struct ReplayArgs {
    /// The recording.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// What steers instead of the recorded servo, always a software clock: adaptive or pi, and how
    /// the path delay is filtered, for instance pi:raw-weight:mean:20.
    #[arg(long, value_name = "SERVO")]
    servo: Option<Choice>,
    /// Replay also a recording that is cut short or has holes, as far as it goes.
    #[arg(long)]
    partial: bool,
}

#[derive(Debug, Args)]
struct ObserveArgs {
    #[command(flatten)]
    tap: TapArgs,
}

#[derive(Debug, Args)]
struct ServeArgs {
    #[command(flatten)]
    port: PortArgs,
    /// The time that is served: system (default) or virtual (the host's time with an offset and a
    /// drift, for tests and laboratories).
    #[arg(long)]
    clock: Option<ServeClock>,
    /// Of the virtual clock: ahead of the host's time at the start, seconds.
    #[arg(long, value_name = "S", allow_negative_numbers = true)]
    offset: Option<f64>,
    /// Of the virtual clock: faster than the host's clock, ppm.
    #[arg(long, value_name = "PPM", allow_negative_numbers = true)]
    drift: Option<f64>,
    /// Interval of Sync, log2 s: -4 is 16 per second.
    #[arg(long, value_name = "LOG2", allow_negative_numbers = true, value_parser = log_interval)]
    log_sync_interval: Option<i8>,
    /// Interval of Announce, log2 s.
    #[arg(long, value_name = "LOG2", allow_negative_numbers = true, value_parser = log_interval)]
    log_announce_interval: Option<i8>,
    /// Smallest mean interval of Delay_Req that clients adopt, log2 s.
    #[arg(long, value_name = "LOG2", allow_negative_numbers = true, value_parser = log_interval)]
    log_min_delay_req_interval: Option<i8>,
    /// priority1 of the data set comparison; smaller wins.
    #[arg(long)]
    priority1: Option<u8>,
    /// priority2 of the data set comparison; smaller wins.
    #[arg(long)]
    priority2: Option<u8>,
    /// clockClass of the data set comparison: 248 is a clock without reference.
    #[arg(long)]
    clock_class: Option<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
enum ServeClock {
    System,
    Virtual,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Delay {
    /// End to end: Delay_Req and Delay_Resp.
    E2e,
    /// Peer to peer: Pdelay_Req and Pdelay_Resp.
    P2p,
}

fn seconds(text: &str) -> Result<StdDuration, String> {
    let seconds: f64 = text.parse().map_err(|_| "expected a number of seconds".to_owned())?;
    StdDuration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

fn log_interval(text: &str) -> Result<i8, String> {
    match text.parse() {
        Ok(log @ -10..=10) => Ok(log),
        _ => Err("expected a whole number from -10 to 10".to_owned()),
    }
}

fn ring_kib(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(kib @ 4..=1_048_576) if u32::is_power_of_two(kib) => Ok(kib),
        _ => Err("expected a power of two from 4 to 1048576".to_owned()),
    }
}

/// What stands between the command line and a working command.
#[derive(Debug, thiserror::Error)]
enum UsageError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("no interface: name one with --interface, or in the configuration file")]
    NoInterface,
    #[error("no configuration file: name one, or use --config")]
    NoConfig,
    #[error("interface {0} is named twice")]
    TwiceTheSame(String),
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error(
        "the recording was made with servo {0:?}, which this program does not have; choose one with --servo"
    )]
    UnknownServo(String),
    #[error(
        "only the sender of a packet gets the driver's transmit stamp: choose another --tx-source for observe"
    )]
    DriverStampOfOthers,
    #[error(
        "cannot record while a clock of the host is steered: record with --clock virtual or none"
    )]
    NotRecordable,
    #[error("{0}")]
    Export(&'static str),
    #[error("{0} is out of range: {1}")]
    OutOfRange(&'static str, String),
}

/// Runs the program; the whole of `main`.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    log::start(cli.verbose, cli.log_format);
    match run_command(cli) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("ptp-agent: {error:#}");
            ExitCode::from(exit_code(&error))
        }
    }
}

fn exit_code(error: &anyhow::Error) -> u8 {
    if error.is::<UsageError>() {
        return BAD_USAGE;
    }
    if let Some(error) = error.downcast_ref::<CompareError>() {
        return match error {
            error if error.is_bad_usage() => BAD_USAGE,
            error if error.is_missing_on_host() => HOST_LACKS,
            _ => FAILED,
        };
    }
    if error.chain().any(|cause| {
        cause.downcast_ref::<CaptureError>().is_some_and(CaptureError::is_missing_on_host)
    }) {
        return HOST_LACKS;
    }
    if let Some(PhcError::Missing(_) | PhcError::ReadOnly(_)) = error.downcast_ref::<PhcError>() {
        return HOST_LACKS;
    }
    match error.downcast_ref::<AgentError>() {
        // The reader had enough: not our failure.
        Some(AgentError::Output(crate::publish::json::OutputError::Closed)) => 0,
        // What was named on the command line cannot be used.
        Some(
            AgentError::NoRecording { .. }
            | AgentError::Recording { .. }
            | AgentError::Holes { .. },
        ) => BAD_USAGE,
        Some(error) if error.is_missing_on_host() => HOST_LACKS,
        _ => FAILED,
    }
}

/// The reader of standard output has gone.
fn is_closed(error: &anyhow::Error) -> bool {
    matches!(
        error.downcast_ref(),
        Some(CompareError::Output(crate::publish::json::OutputError::Closed))
    )
}

fn run_command(cli: Cli) -> anyhow::Result<ExitCode> {
    let Cli { json, config, verbose: _, log_format: _, command } = cli;
    // It says for itself what is wrong with the file.
    if let Command::Config(args) = command {
        return run_config_command(args, config.as_deref());
    }
    let config = match &config {
        Some(path) => Config::read(path).map_err(UsageError::from)?,
        None => Config::default(),
    };
    match command {
        Command::Run(RunArgs { follow, record }) => {
            let config = run_config(follow, config, record.as_deref(), json)?;
            phc::free_to_follow(&config.clock)?;
            privileges::keep_only(&privileges::following(&config.clock));
            block_on(run::run(config))?
        }
        Command::Record(RecordArgs { run, write }) => {
            let config = run_config(run, config, Some(&write), json)?;
            phc::free_to_follow(&config.clock)?;
            privileges::keep_only(&privileges::following(&config.clock));
            block_on(run::run(config))?
        }
        Command::Replay(args) => return run_replay(args, json),
        Command::Serve(args) => {
            let config = serve_config(args, config, json)?;
            privileges::keep_only(privileges::PORTS);
            block_on(serve::serve(config))?
        }
        Command::Observe(args) => {
            let config = observe_config(args, &config, json)?;
            privileges::keep_only(privileges::CAPTURE);
            block_on(observe::observe(config))?
        }
        Command::Compare(args) => {
            let args = compare_args(args, &config)?;
            if !args.lab {
                privileges::keep_only(privileges::COMPARE);
            }
            match block_on(compare::compare(args, json)) {
                // The reader had enough: not our failure.
                Err(error) if is_closed(&error) => {}
                result => result?,
            }
        }
        Command::Lab(args) => return lab::run(&args, json),
        Command::Bench(BenchCommand { other: Some(BenchOther::Servo(args)), .. }) => {
            return bench::servo::run(&args, json);
        }
        Command::Bench(BenchCommand { stamps, other: None }) => {
            privileges::keep_only(privileges::BENCH);
            bench::run(&stamps, json)?;
        }
        Command::Phc(args) => {
            phc::run(&args, json)?;
        }
        Command::Doctor(mut args) => {
            if args.interface.is_empty() {
                args.interface = config.interface.unwrap_or_default();
            }
            return doctor::run(&args, json, ExitCode::from(HOST_LACKS));
        }
        // Has been done already.
        Command::Config(_) => {}
        Command::Status(args) => match status::run(&args, json) {
            // The reader had enough: not our failure.
            Err(error) if error.is_closed() => {}
            result => result?,
        },
    }
    Ok(ExitCode::SUCCESS)
}

fn block_on<E>(work: impl Future<Output = Result<(), E>>) -> anyhow::Result<()>
where
    E: std::error::Error + Send + Sync + 'static,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(work)?)
}

fn interfaces(args: &TapArgs, config: &Config) -> Result<Vec<String>, UsageError> {
    let interfaces = if args.interface.is_empty() {
        config.interface.clone().unwrap_or_default()
    } else {
        args.interface.clone()
    };
    if interfaces.is_empty() {
        return Err(UsageError::NoInterface);
    }
    if let Some(twice) =
        interfaces.iter().enumerate().find(|(at, name)| interfaces[..*at].contains(name))
    {
        return Err(UsageError::TwiceTheSame(twice.1.clone()));
    }
    Ok(interfaces)
}

fn sources(
    args: &TapArgs,
    config: &Config,
) -> Result<(Option<RxSource>, Option<TxSource>), UsageError> {
    let rx = args.rx_source.or(config.rx_source()?);
    let tx = args.tx_source.or(config.tx_source()?);
    Ok((rx.and_then(|rx| rx.0), tx.and_then(|tx| tx.0)))
}

fn serving(args: &TapArgs, config: &Config) -> Serving {
    let file = config.status_socket.as_ref();
    // What a path is parsed of is never refused.
    let file = || file.and_then(|text| text.parse().ok());
    Serving {
        metrics_address: args.metrics_address.or(config.metrics_address),
        status_socket: args.status_socket.clone().or_else(file).unwrap_or_default(),
        management_socket: None,
    }
}

fn limits(args: &TapArgs, config: &Config) -> Limits {
    let offset = args.offset_threshold.or(config.offset_threshold);
    Limits {
        offset: offset.map_or(DEFAULT_OFFSET_LIMIT, |nanos| Duration::from_nanos(nanos.into())),
    }
}

fn ring_bytes(args: &TapArgs, config: &Config) -> Option<u32> {
    args.ring_kib.or(config.ring_kib).map(|kib| kib * 1024)
}

/// `observe` knows no round trip of its own to compare points with, and others do not prime what they
/// send. It takes the point before the driver: a stamp that is never later than the wire has noise in
/// one direction only, which minimum filtering removes.
fn tap(args: &TapArgs, config: &Config) -> Result<TapConfig, UsageError> {
    let (rx_source, tx_source) = sources(args, config)?;
    if tx_source == Some(TxSource::DriverSoftware) {
        return Err(UsageError::DriverStampOfOthers);
    }
    Ok(TapConfig {
        interfaces: interfaces(args, config)?,
        rx_source: rx_source.unwrap_or(RxSource::Stack),
        tx_source: tx_source.unwrap_or(TxSource::StartXmit),
        ring_bytes: ring_bytes(args, config),
    })
}

fn common(args: &PortArgs, config: &Config, json: bool) -> Result<Common, UsageError> {
    let (rx_source, tx_source) = sources(&args.tap, config)?;
    let latencies = |given: &[Latency], file: &Option<Latencies>| {
        let given: Latencies = given.iter().copied().collect();
        file.as_ref().map_or_else(|| given.clone(), |file| given.clone().or(file))
    };
    Ok(Common {
        io: IoConfig {
            interfaces: interfaces(&args.tap, config)?,
            transport: args.transport.or(config.transport).unwrap_or_default(),
            rx_source,
            tx_source,
            prime: args.prime.or(config.prime).unwrap_or_default(),
            ingress_latency: latencies(&args.ingress_latency, &config.ingress_latency),
            egress_latency: latencies(&args.egress_latency, &config.egress_latency),
            ring_bytes: ring_bytes(&args.tap, config),
        },
        domain: args.domain.or(config.domain).unwrap_or(0),
        duration: args.tap.duration,
        serving: Serving {
            management_socket: args
                .management_socket
                .clone()
                .or_else(|| config.management_socket.clone()),
            ..serving(&args.tap, config)
        },
        limits: limits(&args.tap, config),
        json,
        seed: args.seed,
    })
}

/// The interface may come from the configuration file.
fn compare_args(mut args: compare::Args, config: &Config) -> Result<compare::Args, UsageError> {
    if !args.lab && args.interface.is_none() {
        let interfaces = config.interface.clone().unwrap_or_default();
        args.interface = Some(interfaces.into_iter().next().ok_or(UsageError::NoInterface)?);
    }
    Ok(args)
}

fn observe_config(
    args: ObserveArgs,
    config: &Config,
    json: bool,
) -> Result<ObserveConfig, UsageError> {
    Ok(ObserveConfig {
        tap: tap(&args.tap, config)?,
        duration: args.tap.duration,
        serving: serving(&args.tap, config),
        limits: limits(&args.tap, config),
        json,
    })
}

fn run_config(
    args: FollowArgs,
    config: Config,
    record: Option<&Path>,
    json: bool,
) -> Result<RunConfig, UsageError> {
    let common = common(&args.port, &config, json)?;
    let section = config.run;
    let clock = args.clock.or(section.clock).unwrap_or(RunClock::None);
    let exporting = args.export.exporting(config.export, &clock).map_err(UsageError::Export)?;
    let (clock, options) = match clock {
        RunClock::None => (ClockChoice::None, None),
        RunClock::Virtual => (ClockChoice::Virtual, Some(choice::Options::default())),
        RunClock::System => {
            let (steering, options) = config.clock.steering()?;
            (ClockChoice::System(steering), Some(options))
        }
        RunClock::Phc(device) => {
            let (steering, options) = config.clock.phc_steering()?;
            (ClockChoice::Phc(device, steering), Some(options))
        }
    };
    if record.is_some() && matches!(clock, ClockChoice::System(_) | ClockChoice::Phc(..)) {
        return Err(UsageError::NotRecordable);
    }
    let (servo, servo_name) = match options {
        None => (watching_servo(), WATCH.to_owned()),
        Some(options) => {
            let choice = args.servo.or(section.servo).unwrap_or_default();
            (choice::build(&choice, &options), choice.to_string())
        }
    };
    Ok(RunConfig {
        common,
        log_ptp4l: args.log_ptp4l,
        delay_mechanism: match args.delay.or(section.delay).unwrap_or(Delay::E2e) {
            Delay::E2e => DelayMechanism::E2e,
            Delay::P2p => DelayMechanism::P2p,
        },
        clock,
        servo,
        servo_name,
        record: record.map(RecordingFile::open).transpose()?,
        delay_asymmetry: Duration::from_nanos(
            args.delay_asymmetry.or(section.delay_asymmetry).unwrap_or(0),
        ),
        exporting,
    })
}

fn run_config_command(args: ConfigCommand, config: Option<&Path>) -> anyhow::Result<ExitCode> {
    let (file, is_check) = match args {
        ConfigCommand::Show { default: true, .. } => {
            print!("{}", keys::default_file());
            return Ok(ExitCode::SUCCESS);
        }
        ConfigCommand::Check { file } => (file, true),
        ConfigCommand::Show { file, .. } => (file, false),
    };
    let file = file.or(config.map(Path::to_owned)).ok_or(UsageError::NoConfig)?;
    Config::read(&file).map_err(UsageError::from)?;
    if is_check {
        println!("{}: can be used", file.display());
    } else {
        let text = config::text(&file).map_err(UsageError::from)?;
        // What was parsed as a configuration is a table.
        print!("{}", keys::file(&text.parse().unwrap_or_default()));
    }
    Ok(ExitCode::SUCCESS)
}

/// What a recording says of the servo where the clock is only watched.
const WATCH: &str = "watch";

fn watching_servo() -> Box<dyn Servo> {
    Box::new(WatchServo::new())
}

fn run_replay(args: ReplayArgs, json: bool) -> anyhow::Result<ExitCode> {
    let config = ReplayConfig { file: args.file, partial: args.partial, json };
    let recording = Recording::open(&config)?;
    let servo = match args.servo {
        Some(choice) => choice::build(&choice, &choice::Options::default()),
        None => recorded_servo(recording.start())?,
    };
    replay::replay(&config, recording, servo, args.servo.is_some())?;
    Ok(ExitCode::SUCCESS)
}

fn recorded_servo(start: &Start) -> Result<Box<dyn Servo>, UsageError> {
    if start.clock == FollowedClock::None {
        return Ok(watching_servo());
    }
    match start.servo.parse() {
        Ok(choice) => Ok(choice::build(&choice, &choice::Options::default())),
        Err(_) => Err(UsageError::UnknownServo(start.servo.clone())),
    }
}

fn serve_config(args: ServeArgs, config: Config, json: bool) -> Result<ServeConfig, UsageError> {
    let common = common(&args.port, &config, json)?;
    let section = config.serve;
    let offset = args.offset.or(section.offset);
    let drift = args.drift.or(section.drift).unwrap_or(0.0);
    let default =
        if offset.is_some() || drift != 0.0 { ServeClock::Virtual } else { ServeClock::System };
    let clock = match args.clock.or(section.clock).unwrap_or(default) {
        ServeClock::System => ServedClock::System,
        ServeClock::Virtual => {
            let offset = offset.unwrap_or(0.0);
            if !(-4e9..4e9).contains(&offset) {
                return Err(UsageError::OutOfRange("--offset", format!("{offset} s")));
            }
            if !(-500.0..=500.0).contains(&drift) {
                return Err(UsageError::OutOfRange("--drift", format!("{drift} ppm, at most 500")));
            }
            ServedClock::Virtual {
                offset: Duration::from_nanos_f64(offset * 1e9),
                drift_ppb: drift * 1e3,
            }
        }
    };
    Ok(ServeConfig {
        common,
        clock,
        log_sync_interval: args.log_sync_interval.or(section.log_sync_interval).unwrap_or(0),
        log_announce_interval: args
            .log_announce_interval
            .or(section.log_announce_interval)
            .unwrap_or(1),
        log_min_delay_req_interval: args
            .log_min_delay_req_interval
            .or(section.log_min_delay_req_interval)
            .unwrap_or(0),
        priority1: args.priority1.or(section.priority1).unwrap_or(128),
        priority2: args.priority2.or(section.priority2).unwrap_or(128),
        clock_class: args.clock_class.or(section.clock_class).unwrap_or(248),
    })
}
