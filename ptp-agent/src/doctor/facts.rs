//! What the doctor looked at, as plain values: everything that [`judge`](super::judge) knows, and
//! nothing that can be read only on a real host. `None` always means that it could not be read.

use aya::util::KernelVersion;
use ptp_common::data_set::TimeProperties;
use serde::Deserialize as _;

use crate::{
    capture::{InterruptReport, ProbeReport},
    engine::bmca::DataSet,
    publish::snapshot::{DpllStatus, EsmcStatus, Snapshot},
    sys::{
        clock::KernelClock,
        ethtool::{Driver, Moderation, Timestamping},
        pps::Edge,
    },
    transparent::flowtables::Flows,
    transport::TransportKind,
};

/// Everything.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    /// Processors.
    pub cpu: Cpu,
    /// Kernel.
    pub kernel: Kernel,
    /// Capabilities.
    pub privileges: Privileges,
    /// Clocks and who steers them.
    pub clock: Clock,
    /// Who has the PTP ports in this network namespace.
    pub ports: Option<Vec<PortOwner>>,
    /// Who is on the port of NTP; `None` where that cannot be told.
    pub ntp_port: Option<Vec<PortOwner>>,
    /// The packet filter of this network namespace.
    pub firewall: Firewall,
    /// Agents that run in this network namespace and tell of themselves.
    pub agents: Vec<Agent>,
    /// Sources of pulses per second.
    pub pulses: Vec<Pulse>,
    /// The interfaces that were asked about.
    pub interfaces: Vec<Interface>,
    /// The bridge that was to be watched.
    pub bridge: Option<Watched>,
    /// The kernel's DPLLs, or why they are not known; `None` where nobody asked.
    pub dplls: Option<Result<Vec<DpllStatus>, String>>,
}

/// A source of pulses.
#[derive(Clone, Debug)]
pub(super) struct Pulse {
    /// As /dev/pps0.
    pub device: String,
    /// What the kernel calls the source.
    pub source: String,
    /// Whether it pulses, or why that is not known.
    pub seen: Result<PulseSeen, String>,
}

/// What was seen of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PulseSeen {
    /// An edge came.
    pub came: bool,
    /// The edge that it stamps.
    pub edge: Edge,
}

/// The packet filter.
#[derive(Clone, Debug)]
pub(super) enum Firewall {
    /// It could not be read, for this reason.
    Unknown(String),
    /// Its rules, each set as `nft -j list ruleset` says it.
    Rules(Vec<serde_json::Value>),
}

impl Default for Firewall {
    fn default() -> Self {
        Self::Unknown("the packet filter was not looked at".to_owned())
    }
}

/// A running agent.
#[derive(Clone, Debug, Default)]
pub(super) struct Agent {
    /// Its process.
    pub process: u64,
    /// What it says of itself; nothing where that is not understood.
    pub status: Snapshot,
    /// Why it is not understood.
    pub problem: Option<String>,
}

impl Agent {
    /// Of what it has answered.
    pub(super) fn new(process: u64, answer: &serde_json::Value) -> Self {
        match Snapshot::deserialize(answer) {
            Ok(status) => Self { process, status, problem: None },
            Err(error) => Self { process, problem: Some(error.to_string()), ..Self::default() },
        }
    }
}

/// What is known of multicast on an interface.
#[derive(Clone, Debug, Default)]
pub(super) struct Multicast {
    /// Whether the interface takes part at all.
    pub is_on: bool,
    /// The groups of PTP that somebody here has joined on it.
    pub groups: Vec<&'static str>,
    /// The bridge that it is, or is a port of.
    pub bridge: Option<Bridge>,
}

/// A bridge.
#[derive(Clone, Debug)]
pub(super) struct Bridge {
    /// Its name.
    pub name: String,
    /// Whether it forwards groups only where somebody has asked for them.
    pub snooping: bool,
    /// Whether it asks who wants which groups.
    pub querier: bool,
}

/// The processors, their energy saving, and what runs where.
#[derive(Clone, Debug, Default)]
pub(super) struct Cpu {
    /// Whether a hypervisor says that it is there.
    pub virtual_machine: bool,
    /// CPUs that run.
    pub online: Vec<u32>,
    /// Whether two threads share a core anywhere.
    pub smt_active: Option<bool>,
    /// Driver of the idle states; `None` where there is none.
    pub idle_driver: Option<String>,
    /// Idle states of all CPUs, one of each name.
    pub idle_states: Vec<IdleState>,
    /// Longest wake-up that some program tolerates at the moment (PM QoS), microseconds.
    pub latency_limit_us: Option<u32>,
    /// Frequency scaling, one of each kind.
    pub frequency: Vec<FrequencyPolicy>,
    /// Whether CPUs may exceed their nominal frequency; `None` where there is no switch.
    pub turbo: Option<bool>,
    /// CPUs that the scheduler leaves alone (`isolcpus`).
    pub isolated: Vec<u32>,
    /// CPUs without a timer tick (`nohz_full`).
    pub tickless: Vec<u32>,
    /// CPUs on which this process may run; an agent started in the same way inherits that.
    pub own: Vec<u32>,
    /// Running agents: process number, and the CPUs on which each may run.
    pub agents: Vec<(u32, Vec<u32>)>,
    /// Whether irqbalance moves interrupts about.
    pub irqbalance: bool,
}

/// A way in which a CPU can sleep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct IdleState {
    /// Its name.
    pub name: String,
    /// Time to wake up, microseconds.
    pub exit_latency_us: u32,
    /// Whether somebody has switched it off on all CPUs.
    pub disabled: bool,
}

/// How the frequency of some CPUs is chosen.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FrequencyPolicy {
    /// Driver.
    pub driver: String,
    /// Governor.
    pub governor: String,
    /// Whether the governor has a choice: its lower limit is below its upper one.
    pub variable: bool,
}

/// What the kernel is and has.
#[derive(Clone, Debug)]
pub(super) struct Kernel {
    /// Full name of the release.
    pub release: String,
    /// The same as numbers.
    pub version: KernelVersion,
    /// Whether nearly everything can be preempted (PREEMPT_RT).
    pub realtime: bool,
    /// Type information, without which no program loads.
    pub btf: bool,
    /// Whether eBPF becomes machine code.
    pub jit: Option<bool>,
    /// Ring buffer maps.
    pub ring_buffer: Option<bool>,
    /// `bpf_ktime_get_tai_ns`.
    pub tai_helper: Option<bool>,
    /// `bpf_xdp_load_bytes`.
    pub xdp_load_bytes: Option<bool>,
}

impl Default for Kernel {
    fn default() -> Self {
        Self {
            release: String::new(),
            version: KernelVersion::new(0, 0, 0),
            realtime: false,
            btf: false,
            jit: None,
            ring_buffer: None,
            tai_helper: None,
            xdp_load_bytes: None,
        }
    }
}

/// Capabilities that this process lacks, by what needs them.
#[derive(Clone, Debug, Default)]
pub(super) struct Privileges {
    /// For stamps: `observe`, and the others as well.
    pub missing_for_stamps: Vec<String>,
    /// Further ones for PTP ports: `run` and `serve`.
    pub missing_for_ports: Vec<String>,
}

/// The clocks.
#[derive(Clone, Debug, Default)]
pub(super) struct Clock {
    /// The counter in use.
    pub source: Option<String>,
    /// The counters that could be used.
    pub sources: Vec<String>,
    /// What the kernel keeps about its clock.
    pub kernel: Option<KernelClock>,
    /// Programs known to steer clocks: name and process number.
    pub daemons: Vec<(String, u32)>,
    /// Offset of CLOCK_MONOTONIC in this time namespace, nanoseconds; 0 outside of any.
    pub namespace_offset_ns: i128,
}

/// A socket on a port of PTP or NTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PortOwner {
    /// The port: 319 or 320, or 123.
    pub port: u16,
    /// Name and number of the process; `None` where we may not see it.
    pub process: Option<(String, u32)>,
}

/// An interface.
#[derive(Clone, Debug)]
pub(super) struct Interface {
    /// Its name.
    pub name: String,
    /// The rest; `None` where there is no such interface.
    pub link: Option<Link>,
}

/// An interface that exists.
#[derive(Clone, Debug)]
pub(super) struct Link {
    /// Administratively up.
    pub up: bool,
    /// Something is plugged in.
    pub carrier: bool,
    /// Packets begin with an Ethernet header.
    pub ethernet: bool,
    /// Largest packet, bytes.
    pub mtu: Option<u32>,
    /// Hardware address.
    pub mac: Option<[u8; 6]>,
    /// Driver.
    pub driver: Option<Driver>,
    /// Stamps that the driver offers.
    pub timestamping: Option<Timestamping>,
    /// Interrupts.
    pub interrupts: Interrupts,
    /// How they are held back; `None` where the driver does not tell.
    pub moderation: Option<Moderation>,
    /// What was seen of them; `None` where nobody was to look.
    pub seen: Option<Result<InterruptReport, String>>,
    /// Features of XDP: bit 0 is XDP in the driver. `None` before Linux 6.3.
    pub xdp_features: Option<u64>,
    /// Whether some XDP program is attached already.
    pub xdp_busy: bool,
    /// Its number.
    pub xdp_program: Option<u32>,
    /// Multicast.
    pub multicast: Multicast,
    /// What became of our own programs.
    pub capture: Capture,
    /// The grandmasters that were heard; `None` where nobody listened.
    pub heard: Option<Heard>,
}

/// What listening has brought on an interface.
#[derive(Clone, Debug)]
pub(super) struct Heard {
    /// For how long, seconds.
    pub seconds: u16,
    /// The best of each domain and transport.
    pub best: Vec<Heralded>,
    /// Transports on which nobody could listen, and why.
    pub deaf: Vec<String>,
    /// What passes the hook and `run` would not follow, in words.
    pub unheard: Vec<String>,
    /// What ESMC of synchronous Ethernet says, if there is any; or why that is not known.
    pub esmc: Result<Option<EsmcStatus>, String>,
}

impl Default for Heard {
    fn default() -> Self {
        Self { seconds: 0, best: Vec::new(), deaf: Vec::new(), unheard: Vec::new(), esmc: Ok(None) }
    }
}

/// An announced grandmaster.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heralded {
    /// By which transport.
    pub transport: TransportKind,
    /// In which domain.
    pub domain: u8,
    /// In which profile: `sdoId`, 12 bits.
    pub sdo_id: u16,
    /// Itself, and the port that told of it.
    pub data_set: DataSet,
    /// Its time scale.
    pub time: TimeProperties,
}

/// The interrupts of an interface.
#[derive(Clone, Debug)]
pub(super) enum Interrupts {
    /// It has no device, so none.
    None,
    /// They could not be found, for this reason.
    Unknown(&'static str),
    /// These.
    Of(Vec<Interrupt>),
}

/// One interrupt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Interrupt {
    /// Number.
    pub number: u32,
    /// CPUs that may serve it.
    pub cpus: Vec<u32>,
}

/// Our programs on an interface.
#[derive(Clone, Debug)]
pub(super) struct Capture {
    /// At TC.
    pub tc: Trial,
    /// On the tracepoints around the driver.
    pub xmit: Trial,
    /// XDP in the driver.
    pub xdp_native: Trial,
    /// XDP behind the driver.
    pub xdp_generic: Trial,
    /// How TC was attached, where it was.
    pub tcx: bool,
    /// What became of packets that were sent through.
    pub probe: Probe,
}

/// Whether packets were sent through the programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Probe {
    /// They were not, for this reason.
    NotSent(String),
    /// At these points they were stamped.
    Sent(ProbeReport),
}

/// What became of one program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trial {
    /// Loaded, attached and detached again.
    Attached,
    /// Loaded; attaching was not tried, for this reason.
    Loaded(&'static str),
    /// Refused, for this reason.
    Refused(String),
    /// This process may not load programs.
    Unprivileged,
}

/// What was seen of a bridge that was watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Watched {
    /// Its name.
    pub(super) name: String,
    /// For how long.
    pub(super) seconds: u16,
    /// Its ports, or why it could not be watched.
    pub(super) ports: Result<Vec<BridgePort>, String>,
}

/// A port of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct BridgePort {
    /// Its name.
    pub(super) name: String,
    /// Whether it belongs to a switch in hardware.
    pub(super) is_switched: bool,
    /// What forwards its packets past the usual way.
    pub(super) flows: Flows,
    /// Event messages from a time transmitter that left by it.
    pub(super) downstream: Option<Inside>,
    /// And to one.
    pub(super) upstream: Option<Inside>,
    /// Whether a program of this host sends in the name of others.
    pub(super) is_relayed: bool,
}

/// How long messages were inside, nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Inside {
    /// How many.
    pub(super) n: u64,
    /// Median.
    pub(super) p50_ns: u64,
    /// 99 of 100 less than this.
    pub(super) p99_ns: u64,
    /// All less than this.
    pub(super) max_ns: u64,
}
