//! What each command takes on the command line.

use std::{net::SocketAddr, path::PathBuf, time::Duration as StdDuration};

use clap::{
    Args, Parser, Subcommand, ValueEnum,
    builder::{PossibleValue, PossibleValuesParser, TypedValueParser},
};

use super::{
    clock::{ExportArgs, RunClock},
    documents,
    knowledge::KnowledgeArgs,
    log::LogFormat,
    management::{FollowedArgs, MonitoringArgs},
    marking::MarkingArgs,
    ntp::{NtpArgs, NtpServeArgs},
    phc, pps,
    profile::ProfileName,
    pulse::PulseArgs,
    roles::RoleArgs,
    security::SecurityArgs,
    servers::ServerArgs,
    transparent,
    unicast::{ServeUnicast, UnicastArgs},
};
use crate::{
    agent::{answer_for::AnswerFor, prime::PrimeMode},
    answers, bench,
    capture::{Choice as PointChoice, Latency},
    compare, doctor,
    engine::{DelayMechanism, discipline::Policy, strategy},
    lab,
    publish::local::StatusSocket,
    servo::choice::Choice,
    status, trace,
    transport::{TransportKind, wire::FarEnd},
    zones::ZoneName,
};

/// Portable PTP agent: eBPF timestamps on any interface, no help needed from NIC or driver.
#[derive(Debug, Parser)]
#[command(name = "ptp-agent", version, about, max_term_width = 100)]
pub(super) struct Cli {
    /// JSON lines on standard output, logs on standard error.
    #[arg(long, global = true)]
    pub(super) json: bool,
    /// Configuration file (TOML); options on the command line win over it.
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// More detail in the log: -v for debug, -vv for trace, -vvv for what the kernel programs say of each
    /// packet too.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(super) verbose: u8,
    /// How log lines look: human (default) or json.
    #[arg(
        long,
        global = true,
        value_name = "FORMAT",
        default_value = "human",
        hide_default_value = true,
        hide_possible_values = true
    )]
    pub(super) log_format: LogFormat,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
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
    /// A transparent clock for what this host forwards: bridge, macvlan, routing, a guest's tap.
    ///
    /// Adds to PTP messages how long they were inside, queues included, so that clients behind this host do
    /// not see them. Has no clock of its own and changes no other packet. Needs CAP_BPF, CAP_NET_ADMIN,
    /// CAP_PERFMON and CAP_NET_RAW.
    Transparent(transparent::TransparentArgs),
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
    /// Hold a clock against a pulse per second: how far apart they are, as figures, histogram and plot.
    ///
    /// Steers nothing. Needs read access to the device, and write access to a hardware clock whose input it is.
    Pps(pps::Args),
    /// Is this host fit for precise time, and if not, what to do?
    ///
    /// Changes nothing, and steers no clock. Ends with exit code 3 when something that the agent
    /// needs is missing. Needs no privileges, but says more with those of `run`.
    Doctor(doctor::Args),
    /// What a running agent says of itself; with --watch, a view of the terminal.
    ///
    /// Needs no privileges.
    Status(status::Args),
    /// What traces of several hosts are worth: corrected times, bounds, and which orders are certain.
    ///
    /// Reads spans, and from Prometheus or from what agents have printed how far the hosts' clocks were.
    /// Needs no privileges.
    Trace(trace::Args),
    /// The configuration file: what is in it, and whether it can be used.
    ///
    /// Needs no privileges.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// For packages: manual pages and what shells complete.
    #[command(subcommand, hide = true)]
    Generate(documents::Generate),
}

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
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
        /// Print what a profile means instead.
        #[arg(long, value_name = "NAME", conflicts_with_all = ["file", "default"])]
        profile: Option<ProfileName>,
    },
    /// Translate a configuration of linuxptp's ptp4l: the result on standard output, what has no
    /// counterpart there as comments and on standard error.
    ///
    /// Ends with exit code 2, and prints no result, when the file has values that ptp4l would not take
    /// either.
    Import {
        /// The file, for instance /etc/linuxptp/ptp4l.conf.
        file: PathBuf,
    },
}

/// What is measured.
#[derive(Debug, Args)]
pub(super) struct BenchCommand {
    #[command(flatten)]
    pub(super) stamps: bench::BenchArgs,
    #[command(subcommand)]
    pub(super) other: Option<BenchOther>,
}

#[derive(Debug, Subcommand)]
pub(super) enum BenchOther {
    /// What the servos reach where the truth is known, beside the figures that they are to reach:
    /// on simulated links, in the laboratory beside linuxptp's ptp4l, and what an exchange costs.
    ///
    /// Needs what `lab` needs, or nothing with --no-lab. Ends with exit code 1 when a figure is not
    /// reached.
    Servo(bench::servo::Args),
}

/// Which interfaces, and how packets are stamped there.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct TapArgs {
    /// Interface; several are allowed.
    #[arg(short, long, value_name = "IFACE", num_args = 1..)]
    pub(super) interface: Vec<String>,
    /// Receive stamp: auto (default; measures which is best), stack, tc_ingress, xdp_native,
    /// xdp_generic, xdp for native where the driver can and generic elsewhere, or hardware for the card's own
    /// (`run` and `serve`; switched on while they run).
    #[arg(long, value_name = "SOURCE", value_parser = PointChoice::of_receive)]
    pub(super) rx_source: Option<PointChoice>,
    /// Transmit stamp: auto (default; measures which is best), xmit_done, start_xmit, tc_egress,
    /// driver_software or hardware for the card's own (both not for `observe`).
    #[arg(long, value_name = "SOURCE", value_parser = PointChoice::of_transmit)]
    pub(super) tx_source: Option<PointChoice>,
    /// Size of the ring buffer, KiB: a power of two.
    #[arg(long, value_name = "KIB", value_parser = ring_kib)]
    pub(super) ring_kib: Option<u32>,
    /// End by itself after this many seconds.
    #[arg(long, value_name = "S", value_parser = seconds)]
    pub(super) duration: Option<StdDuration>,
    /// Serve Prometheus metrics, /healthz and /status here; off unless given.
    #[arg(long, value_name = "ADDR:PORT")]
    pub(super) metrics_address: Option<SocketAddr>,
    /// Tell `status` about this agent here, or nowhere (none); default: in /run/ptp-agent.
    #[arg(long, value_name = "PATH")]
    pub(super) status_socket: Option<StatusSocket>,
    #[command(flatten)]
    pub(super) security: SecurityArgs,
    /// Give up system calls and files that are not needed (seccomp, Landlock), where the kernel can take them:
    /// true (default) or false.
    #[arg(long, value_name = "BOOL")]
    pub(super) confine: Option<bool>,
    /// Magnitude of the offset that raises an alarm, ns (default 100000).
    #[arg(long, value_name = "NS", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) offset_threshold: Option<u32>,
}

/// Which ports, one on each interface.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct PortArgs {
    #[command(flatten)]
    pub(super) tap: TapArgs,
    /// What carries the messages: udp4 (default), udp6 or l2.
    #[arg(long)]
    pub(super) transport: Option<TransportKind>,
    /// PTP domain number.
    #[arg(long, value_name = "N")]
    pub(super) domain: Option<u8>,
    /// Answer management messages of linuxptp's pmc here; off unless given. Nothing can be changed
    /// this way unless --management-set permits it.
    #[arg(long, value_name = "PATH")]
    pub(super) management_socket: Option<PathBuf>,
    #[command(flatten)]
    pub(super) monitoring: MonitoringArgs,
    /// Prime event messages with a throwaway frame: auto (default; where it helps) or off.
    #[arg(long)]
    pub(super) prime: Option<PrimeMode>,
    /// Between the wire and the receive stamp, ns: is subtracted. SOURCE=NS for one capture point.
    #[arg(long, value_name = "[SOURCE=]NS", allow_hyphen_values = true)]
    pub(super) ingress_latency: Vec<Latency>,
    /// Between the transmit stamp and the wire, ns: is added. SOURCE=NS for one capture point.
    #[arg(long, value_name = "[SOURCE=]NS", allow_hyphen_values = true)]
    pub(super) egress_latency: Vec<Latency>,
    #[command(flatten)]
    pub(super) marking: MarkingArgs,
    /// Seed for the randomised message intervals, for repeatable runs.
    #[arg(long, value_name = "N")]
    pub(super) seed: Option<u64>,
}

#[derive(Debug, Args)]
pub(super) struct RunArgs {
    #[command(flatten)]
    pub(super) follow: FollowArgs,
    /// Record everything that the engine is given, for `replay` and Wireshark; a file that is there
    /// is overwritten.
    #[arg(long, value_name = "FILE")]
    pub(super) record: Option<PathBuf>,
}

/// What follows, and how.
#[derive(Clone, Debug, Args)]
pub(super) struct FollowArgs {
    #[command(flatten)]
    pub(super) port: PortArgs,
    /// The clock that follows: none (watch only, default), virtual (a software clock; the host's
    /// clocks are not touched), system (CLOCK_REALTIME) or phc:/dev/ptpN (a hardware clock).
    #[arg(long)]
    pub(super) clock: Option<RunClock>,
    /// How the path delay is measured.
    #[arg(long)]
    pub(super) delay: Option<Delay>,
    /// How requests are sent and what is made of Sync messages: auto (default; whatever is truest for the
    /// grandmaster), remote (requests shortly before a Sync, which then leaves sooner, and what a Sync took
    /// more than the fastest round trip is taken off), primed, cold, or plain (prime where it helps, and
    /// take each message as it is).
    #[arg(long, value_parser = strategies())]
    pub(super) strategy: Option<strategy::Choice>,
    /// What steers the clock: adaptive (default), pi, linreg or rfc5905, and how pi and linreg
    /// filter, as in pi:raw-weight:median:10.
    #[arg(long, value_name = "SERVO")]
    pub(super) servo: Option<Choice>,
    /// Domains whose time transmitters are asked as well, to hold the one that is followed against them; at
    /// most four.
    #[arg(long, value_name = "N,...", value_delimiter = ',')]
    pub(super) witness_domains: Vec<u8>,
    /// What to do where sources of time contradict each other: alarm (default; follow the best one all the
    /// same), holdover (unless most agree with it, run on with what was learnt) or follow-majority.
    #[arg(long, value_name = "POLICY")]
    pub(super) on_disagreement: Option<Policy>,
    /// Print lines as ptp4l does (master offset ... s2 freq ... path delay ...), one per sample, to
    /// standard output or with --json to standard error.
    #[arg(long)]
    pub(super) log_ptp4l: bool,
    /// In a laboratory: take the host's clock to be so far ahead of what it is, ns.
    #[arg(long, hide = true, value_name = "NS", default_value_t = 0, allow_negative_numbers = true,
          value_parser = clap::value_parser!(i64).range(-1_000_000_000_000..=1_000_000_000_000))]
    pub(super) host_clock_offset: i64,
    /// How much slower the path from the time transmitter is than the mean of both ways, ns.
    #[arg(long, value_name = "NS", allow_negative_numbers = true)]
    pub(super) delay_asymmetry: Option<i64>,
    #[command(flatten)]
    pub(super) knowledge: KnowledgeArgs,
    #[command(flatten)]
    pub(super) ntp: NtpArgs,
    #[command(flatten)]
    pub(super) pulse: PulseArgs,
    #[command(flatten)]
    pub(super) roles: RoleArgs,
    #[command(flatten)]
    pub(super) unicast: UnicastArgs,
    #[command(flatten)]
    pub(super) servers: ServerArgs,
    #[command(flatten)]
    pub(super) management: FollowedArgs,
    #[command(flatten)]
    pub(super) export: ExportArgs,
}

#[derive(Debug, Args)]
pub(super) struct RecordArgs {
    #[command(flatten)]
    pub(super) run: FollowArgs,
    /// The file; one that is there is overwritten.
    #[arg(short, long, value_name = "FILE")]
    pub(super) write: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct ReplayArgs {
    /// The recording.
    #[arg(value_name = "FILE")]
    pub(super) file: PathBuf,
    /// What steers instead of the recorded servo, always a software clock: adaptive or pi, and how
    /// the path delay is filtered, for instance pi:raw-weight:mean:20.
    #[arg(long, value_name = "SERVO")]
    pub(super) servo: Option<Choice>,
    /// Replay also a recording that is cut short or has holes, as far as it goes.
    #[arg(long)]
    pub(super) partial: bool,
}

#[derive(Clone, Debug, Args)]
pub(super) struct ObserveArgs {
    #[command(flatten)]
    pub(super) tap: TapArgs,
    /// Show what time receivers of this host tell at the local datagram socket here, which is made for it: ptp4l with
    /// slave_event_monitor, or `run` with --slave-event-monitor.
    #[arg(long, value_name = "PATH")]
    pub(super) slave_event_monitor: Option<PathBuf>,
    /// Show exchanges of NTP (UDP port 123) too, of chronyd, ntpd-rs and the like: of a client the offset of its
    /// clock, of a server what it claims against when packets really came and left.
    #[arg(long)]
    pub(super) ntp: bool,
}

#[derive(Clone, Debug, Args)]
pub(super) struct ServeArgs {
    #[command(flatten)]
    pub(super) port: PortArgs,
    /// The time that is served: system (default) or virtual (the host's time with an offset and a
    /// drift, for tests and laboratories).
    #[arg(long)]
    pub(super) clock: Option<ServeClock>,
    /// Of the virtual clock: ahead of the host's time at the start, seconds.
    #[arg(long, value_name = "S", allow_negative_numbers = true)]
    pub(super) offset: Option<f64>,
    /// Of the virtual clock: faster than the host's clock, ppm.
    #[arg(long, value_name = "PPM", allow_negative_numbers = true)]
    pub(super) drift: Option<f64>,
    /// Interval of Sync, log2 s: -4 is 16 per second.
    #[arg(long, value_name = "LOG2", allow_negative_numbers = true, value_parser = log_interval)]
    pub(super) log_sync_interval: Option<i8>,
    /// Interval of Announce, log2 s.
    #[arg(long, value_name = "LOG2", allow_negative_numbers = true, value_parser = log_interval)]
    pub(super) log_announce_interval: Option<i8>,
    /// Smallest mean interval of Delay_Req that clients adopt, log2 s.
    #[arg(long, value_name = "LOG2", allow_negative_numbers = true, value_parser = log_interval)]
    pub(super) log_min_delay_req_interval: Option<i8>,
    /// priority1 of the data set comparison; smaller wins.
    #[arg(long)]
    pub(super) priority1: Option<u8>,
    /// priority2 of the data set comparison; smaller wins.
    #[arg(long)]
    pub(super) priority2: Option<u8>,
    /// clockClass of the data set comparison: 248 is a clock without reference.
    #[arg(long)]
    pub(super) clock_class: Option<u8>,
    /// Tell clients, in a TLV behind Follow_Up and Delay_Resp, between which instants the stamped one is; other
    /// programs skip it. For those that do not: false.
    #[arg(long, value_name = "BOOL")]
    pub(super) stamp_brackets: Option<bool>,
    /// Who answers Delay_Req: a program in the kernel at TC, which takes a flood of requests off the agent
    /// and cannot be kept waiting (auto: where it can and was seen to; tc: or nothing starts), one in the driver in
    /// front of it (xdp: faster; where it does not do, tc), or the agent itself (off).
    #[arg(long, value_enum, value_name = "WHO")]
    pub(super) kernel_answers: Option<answers::Mode>,
    /// Serve nobody, but let the kernel answer Delay_Req in the name of another time transmitter of this host, with its
    /// identity and the host's clock, while it sends Sync by these interfaces: linuxptp's ptp4l with software time
    /// stamping.
    #[arg(long, value_enum, value_name = "WHOM", conflicts_with_all = ["ntp", "unicast", "csptp", "sptp", "contend"])]
    pub(super) answer_for: Option<AnswerFor>,
    /// Answer only who is in these prefixes (192.0.2.0/24); all others' requests are dropped in the kernel.
    #[arg(long, value_name = "PREFIX", value_delimiter = ',')]
    pub(super) serve_to: Vec<answers::Prefix>,
    /// Answers per second and processor that the kernel gives in all.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) answers_per_second: Option<u32>,
    /// Answers per second that it gives to one client.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) answers_per_client: Option<u32>,
    /// Announce local time of these zones, as in Europe/Berlin, with its next jump (16.3); at most four. Clients show it,
    /// and follow it with no clock. From the system's database, which is read again at SIGHUP.
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    pub(super) time_zone: Vec<ZoneName>,
    /// Fall silent where a better grandmaster serves, until it is gone: true or false (default).
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub(super) contend: Option<bool>,
    #[command(flatten)]
    pub(super) ntp: NtpServeArgs,
    /// Serve those who ask for unicast messages (16.1), within the interfaces' networks or --serve-to: also (beside
    /// multicast), only, or off (default).
    #[arg(long, value_enum, num_args = 0..=1, default_missing_value = "also", value_name = "HOW")]
    pub(super) unicast: Option<ServeUnicast>,
    /// Answer CSPTP (IEEE 1588.1) beside: true or false (default). Only who is in the interface's own networks
    /// or in --serve-to is answered, unless its requests are as long as the answers.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub(super) csptp: Option<bool>,
    /// Answer SPTP beside, as ptp4u does: true or false (default).
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub(super) sptp: Option<bool>,
    /// In a laboratory: the other ends of the interfaces' wires, where what was sent is stamped.
    #[arg(long, hide = true, value_name = "NAMESPACE=IFACE")]
    pub(super) wire: Vec<FarEnd>,
    /// Let pmc change what can be changed through the management socket, which is then for this user alone.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub(super) management_set: Option<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum ServeClock {
    System,
    Virtual,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Delay {
    /// End to end: Delay_Req and Delay_Resp.
    E2e,
    /// Peer to peer: Pdelay_Req and Pdelay_Resp.
    P2p,
    /// End to end, and peer to peer once the neighbour asks so.
    Auto,
}

impl Delay {
    /// The same for the engine.
    pub(super) const fn mechanism(self) -> DelayMechanism {
        match self {
            Self::E2e => DelayMechanism::E2e,
            Self::P2p => DelayMechanism::P2p,
            Self::Auto => DelayMechanism::Auto,
        }
    }
}

/// `--strategy` by name; its values and what they are for stand in the help.
fn strategies() -> impl TypedValueParser<Value = strategy::Choice> {
    let values = strategy::Choice::ALL.map(|choice| {
        PossibleValue::new(choice.name()).help(match choice {
            strategy::Choice::Auto => "Whatever is truest for the grandmaster that is followed",
            strategy::Choice::Plain => {
                "Prime where it makes the own path faster, and learn from each message"
            }
            strategy::Choice::Primed => "Prime each request",
            strategy::Choice::Cold => {
                "Prime no request, as a software grandmaster primes no Sync"
            }
            strategy::Choice::Remote => {
                "Send requests shortly before a Sync is due, and learn from the Sync messages that were fast"
            }
        })
    });
    PossibleValuesParser::new(values).map(|name| {
        let choice = strategy::Choice::ALL.into_iter().find(|choice| choice.name() == name);
        choice.unwrap_or_default()
    })
}

pub(super) fn seconds(text: &str) -> Result<StdDuration, String> {
    let seconds: f64 = text.parse().map_err(|_| "expected a number of seconds".to_owned())?;
    StdDuration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

pub(super) fn log_interval(text: &str) -> Result<i8, String> {
    match text.parse() {
        Ok(log @ -10..=10) => Ok(log),
        _ => Err("expected a whole number from -10 to 10".to_owned()),
    }
}

pub(super) fn ring_kib(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(kib @ 4..=1_048_576) if u32::is_power_of_two(kib) => Ok(kib),
        _ => Err("expected a power of two from 4 to 1048576".to_owned()),
    }
}
