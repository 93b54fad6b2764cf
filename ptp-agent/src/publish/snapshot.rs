//! What an agent says of itself, once a second, as one value: its status, as `/status` and the status socket have it,
//! the states that metrics show, and the data sets that management requests are answered with. `status` and `doctor`
//! read it again by the same types, so that nobody compares words.
//!
//! A command has some of the figures and not others; a figure that it has may be unknown, which is `null`. What belongs
//! to some commands alone is therefore a group, which is left out as a whole. A reader takes whatever is missing for
//! unknown: the agent may be older or newer than the command that asks it.

use std::{borrow::Cow, collections::BTreeMap, fmt};

use serde::{Deserialize, Deserializer, Serialize};

pub use extras::{AlternateTime, AnnouncedExtras, PowerStatus, ZoneDatabase};
pub use gptp::{FollowUpStatus, IntervalRequestStatus, ObservedTold};
pub use link::{Gptp, LinkStatus};
pub use management::ManagementStatus;
pub use pulse::{NmeaLine, PhcRelation, Pulse};
pub use sources::{NtpServed, NtpServer, NtsStatus, ServerStatus, SourceStatus, SourcesStatus};
pub use synce::{DpllPin, DpllStatus, EsmcStatus};

use super::management::DataSets;
use crate::{
    capture::PointReport,
    engine::{
        PortState,
        origin::BoundReference,
        strategy::{Findings, Strategy},
    },
    servo::{Basis, ServoState},
    stamp::StampSource,
};

/// A value of a closed set, or its name where it is none that this version knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Named<T> {
    /// One of them.
    Known(T),
    /// Another version's.
    Other(Cow<'static, str>),
}

impl<T> Default for Named<T> {
    fn default() -> Self {
        Self::Other("-".into())
    }
}

impl<T> From<T> for Named<T> {
    fn from(value: T) -> Self {
        Self::Known(value)
    }
}

impl From<&'static str> for Named<ServoState> {
    fn from(name: &'static str) -> Self {
        let known = ServoState::ALL.into_iter().find(|state| state.name() == name);
        known.map_or(Self::Other(name.into()), Self::Known)
    }
}

impl<T: PartialEq> PartialEq<T> for Named<T> {
    fn eq(&self, other: &T) -> bool {
        matches!(self, Self::Known(value) if value == other)
    }
}

impl<T: Copy> Named<T> {
    /// The value, where it is known.
    pub const fn known(&self) -> Option<T> {
        match self {
            Self::Known(value) => Some(*value),
            Self::Other(_) => None,
        }
    }
}

impl Named<StampSource> {
    /// Its name, or a question mark.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Known(point) => point.name(),
            Self::Other(_) => "?",
        }
    }
}

/// Its name.
impl<T: Serialize> fmt::Display for Named<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known(value) => value.serialize(f),
            Self::Other(name) => f.write_str(name),
        }
    }
}

/// Which command it is that tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Command {
    /// `run`.
    Run,
    /// `serve`.
    Serve,
    /// `observe`.
    Observe,
    /// `transparent`.
    Transparent,
}

/// See the module's paragraph.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Snapshot {
    /// Who tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<Named<Command>>,
    /// Of the program. This and the process are added by the socket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Since the start, seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uptime_s: Option<f64>,
    /// `clockIdentity`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clock_identity: Option<String>,
    /// `domainNumber`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<u8>,
    /// Samples so far.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub samples: Option<u64>,
    /// What is followed, and how.
    #[serde(flatten, skip_serializing_if = "is_absent")]
    pub following: Following,
    /// Of an instance that may take either role.
    #[serde(flatten, skip_serializing_if = "is_absent")]
    pub roles: EitherRole,
    /// The sources of time beside each other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sources: Option<SourcesStatus>,
    /// The servers of NTP that are asked.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ntp: Vec<NtpServer>,
    /// A pulse per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pps: Option<Pulse>,
    /// What became of management messages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub management: Option<ManagementStatus>,
    /// How NTP is served.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ntp_served: Option<NtpServed>,
    /// Servers that are asked.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub servers: Vec<ServerStatus>,
    /// What is observed.
    #[serde(flatten, skip_serializing_if = "is_absent")]
    pub observing: Observing,
    /// What else is announced: by the grandmaster that is followed, or by this one.
    #[serde(flatten, skip_serializing_if = "is_absent")]
    pub extras: AnnouncedExtras,
    /// With IEEE 802.1AS: what is known of the grandmaster's time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gptp: Option<Gptp>,
    /// Where alternate times are from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_zone_database: Option<ZoneDatabase>,
    /// What ESMC of synchronous Ethernet says, by interface.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub synce: Vec<EsmcStatus>,
    /// The kernel's DPLLs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dplls: Vec<DpllStatus>,
    /// The ports.
    pub ports: Vec<Port>,
    /// Everything that was lost, by cause.
    pub lost: BTreeMap<String, u64>,
    /// The raised ones.
    pub alarms: Vec<Alarm>,
    /// Seconds since the agent's start, offset and delay in ns; added by the socket.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<(f64, i64, Option<i64>)>,
    /// What management requests are answered with; told on a socket of its own.
    #[serde(skip)]
    pub data_sets: Option<DataSets>,
}

impl Snapshot {
    /// Whether it is of this command.
    pub fn is_from(&self, command: Command) -> bool {
        self.command.as_ref().is_some_and(|it| *it == command)
    }
}

fn is_absent<T: Default + PartialEq>(group: &T) -> bool {
    *group == T::default()
}

/// What a time receiver follows, and how.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Following {
    /// Which clock follows: `none`, `virtual`, `system`, `phc:` with the device.
    pub clock: Option<String>,
    /// What steers it.
    pub servo: Option<String>,
    /// Its state.
    pub servo_state: Option<Named<ServoState>>,
    /// `grandmasterIdentity`.
    pub grandmaster: Option<String>,
    /// Its `clockClass`.
    pub grandmaster_class: Option<u8>,
    /// `parentPortIdentity`.
    pub parent_port: Option<String>,
    /// `stepsRemoved`.
    pub steps_removed: Option<u16>,
    /// In words.
    pub time_scale: Option<String>,
    /// Of the last sample, seconds.
    pub sample_age_s: Option<f64>,
    /// Of the last sample: local clock minus grandmaster.
    pub offset_ns: Option<i64>,
    /// Of the last sample: mean path delay.
    pub delay_ns: Option<i64>,
    /// Correction in effect, parts per billion.
    pub frequency_ppb: Option<f64>,
    /// How the paths are made alike.
    pub strategy: Option<StrategyStatus>,
    /// Bound on |clock - reference|.
    pub error_bound_ns: Option<i64>,
    /// The spread alone.
    pub precision_ns: Option<i64>,
    /// Lowest and highest of clock minus grandmaster, by causality.
    pub interval_ns: Option<[i64; 2]>,
    /// Which of the reasons for a bound speaks.
    pub bound_basis: Option<Named<Basis>>,
    /// What the bound is against.
    pub bound_reference: Option<Named<BoundReference>>,
    /// Whether the estimate has left the interval.
    pub clipped: Option<bool>,
    /// The bound against UTC.
    pub utc: Option<Utc>,
    /// Why time is not passed on.
    pub withheld: Option<String>,
}

/// The strategy and what it goes by.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct StrategyStatus {
    /// Which.
    pub name: Named<Strategy>,
    /// Why.
    pub findings: Findings,
}

/// The bound as one against UTC, or what it is against where nobody knows that.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Utc {
    /// The grandmaster's own error in it where that is known.
    pub bound_ns: Option<i64>,
    /// What that is against.
    pub reference: Option<Named<BoundReference>>,
    /// What the grandmaster says of itself, or an operator of it.
    pub grandmaster_accuracy_ns: Option<i64>,
    /// `currentUtcOffset` in use.
    pub offset_s: Option<i64>,
}

/// Which role an instance has that may take either.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InstanceRole {
    /// Nobody is followed.
    Grandmaster,
    /// As its ports say.
    Auto,
}

/// Of an instance that may take either role: which it has, and over which way its time has come.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EitherRole {
    /// Its role.
    pub role: Option<Named<InstanceRole>>,
    /// The clocks between, as path trace names them.
    pub path: Vec<String>,
    /// Whether what is passed on says so.
    pub synchronization_uncertain: bool,
}

/// Who answers requests on a port of a server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Answering {
    /// `kernel`, `agent`, or `other` for the one in whose name the kernel is to answer.
    pub by: Cow<'static, str>,
    /// Of the kernel: `tc` or `xdp`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hook: Option<Cow<'static, str>>,
    /// Why not the kernel.
    pub reason: Option<String>,
    /// Why not by XDP, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_xdp: Option<String>,
    /// In whose name, where it is another's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answers_for: Option<String>,
    /// Capture point of what is answered.
    pub receive_stamp: Named<StampSource>,
    /// By type and outcome.
    pub requests: BTreeMap<String, BTreeMap<String, u64>>,
}

/// What an observer looks at.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Observing {
    /// Where.
    pub interfaces: Vec<Observed>,
    /// `null` without keys.
    pub authentication: Option<Authentication>,
}

/// An observed interface.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Observed {
    /// Its name.
    pub interface: String,
    /// Whether it is.
    pub up: bool,
    /// Capture point of what comes in.
    pub rx_source: Named<StampSource>,
    /// Capture point of what goes out.
    pub tx_source: Named<StampSource>,
}

/// What authentication does.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Authentication {
    /// Whether unsigned messages are dropped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub required: Option<bool>,
    /// Parameters that are signed by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spp: Option<u8>,
    /// Key that is signed by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<u32>,
    /// How many there are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keys: Option<usize>,
    /// Messages that a key vouched for.
    pub verified: u64,
    /// Messages that passed all the same.
    pub unverified: u64,
    /// Messages dropped, by cause.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<BTreeMap<String, u64>>,
}

/// A raised alarm.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Alarm {
    /// Its name.
    pub alarm: Cow<'static, str>,
    /// For how long, seconds.
    pub for_s: f64,
    /// In a line.
    pub meaning: Cow<'static, str>,
    /// The figures behind it; may be empty.
    pub detail: String,
    /// What to do.
    pub explanation: Cow<'static, str>,
    /// Path of the page about it.
    pub runbook: Option<Cow<'static, str>>,
}

/// Totals by direction, source and outcome.
pub type Timestamps =
    BTreeMap<Cow<'static, str>, BTreeMap<Cow<'static, str>, BTreeMap<Cow<'static, str>, u64>>>;

/// A port of the agent; or one of those that it observes, which have a role and no state.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Port {
    /// Where.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// `portState`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<Named<PortState>>,
    /// The delay of the link, of a port that may measure it: `null` where it does not.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub link_delay_ns: Option<Option<i64>>,
    /// `asCapable`, where anybody asks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub as_capable: Option<bool>,
    /// What else is known of the link.
    #[serde(flatten, skip_serializing_if = "is_absent")]
    pub link: LinkStatus,
    /// Who answers, of a server: `null` where nobody but the agent could.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub answers: Option<Option<Answering>>,
    /// Unicast, where there is any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unicast: Option<unicast::Unicast>,
    /// What is stamped.
    #[serde(flatten, skip_serializing_if = "is_absent")]
    pub stamped: Stamped,
    /// What is seen of somebody else's port.
    #[serde(flatten, skip_serializing_if = "is_absent")]
    pub observed: ObservedPort,
    /// Messages: of an observed port by type, of a transparent clock by type and outcome.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub messages: Option<Messages>,
    /// Of a transparent clock: how long event messages were inside, by direction.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub residence: BTreeMap<String, Residence>,
}

fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// The stamps of a port.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Stamped {
    /// Where they are taken.
    pub sources: Option<Sources>,
    /// `null` without keys.
    pub authentication: Option<Authentication>,
    /// What became of them.
    pub timestamps: Timestamps,
}

/// What a port's stamps come from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sources {
    /// The receive point in use.
    pub rx: Named<StampSource>,
    /// The transmit point in use.
    pub tx: Named<StampSource>,
    /// What was measured of the receive points.
    pub rx_points: Vec<PointReport>,
    /// What was measured of the transmit points.
    pub tx_points: Vec<PointReport>,
    /// Whether event messages are primed now.
    pub primed: bool,
    /// Messages that were stamped by another point than the chosen one.
    pub fallbacks: u64,
    /// Messages whose transmit stamps were not used, because something came between them.
    pub interrupted: u64,
    /// Directions in which packets do not reach the kernel programs, so that only the kernel's own stamps
    /// are left.
    pub displaced: Vec<Cow<'static, str>>,
    /// How often the kernel programs were attached again because of others.
    pub attached_again: u64,
    /// How the card's clock lies to the host's, where its stamps are wanted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hardware: Option<PhcRelation>,
    /// How often the card had to be told to stamp once more.
    pub told_again: u64,
}

/// Which way the messages of an observed port go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// In: it is somebody else's.
    Rx,
    /// Out: it is on this side of the interface.
    Tx,
}

/// What a port does, as far as its messages tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ObservedRole {
    /// It sends Sync.
    TimeTransmitter,
    /// It asks for the delay.
    TimeReceiver,
    /// It does neither.
    Other,
}

/// What an observer has seen of a port.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ObservedPort {
    /// VLAN identifier; `null` without a tag.
    pub vlan: Option<u16>,
    /// `domainNumber`.
    pub domain: Option<u8>,
    /// `sdoId`.
    pub sdo_id: Option<u16>,
    /// `portIdentity`.
    pub port: Option<String>,
    /// On which side it is.
    pub direction: Option<Named<Way>>,
    /// What it does.
    pub role: Option<Named<ObservedRole>>,
    /// Whom it announces.
    pub grandmaster: Option<String>,
    /// What else.
    #[serde(flatten, skip_serializing_if = "is_absent")]
    pub extras: AnnouncedExtras,
    /// Behind its Follow_Up and Signaling.
    #[serde(flatten)]
    pub told: ObservedTold,
    /// Complete exchanges, by kind.
    pub exchanges: BTreeMap<String, u64>,
    /// Incomplete ones, by cause.
    pub lost: BTreeMap<String, u64>,
    /// Of this host's clock from it.
    pub offset_ns: Option<i64>,
    /// Unfiltered ones.
    pub raw_offset_ns: Option<Figures>,
    /// Unfiltered delays.
    pub delay_ns: Option<Figures>,
    /// Claimed minus stamped transmission of Sync.
    pub sync_claim_ns: Option<Figures>,
    /// Claimed minus stamped receipt of Delay_Req.
    pub delay_req_claim_ns: Option<Figures>,
}

/// A distribution in a few figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Figures {
    /// How many values.
    pub n: u64,
    /// Arithmetic mean.
    pub mean: f64,
    /// Standard deviation.
    pub sd: f64,
    /// Smallest.
    pub min: f64,
    /// Largest.
    pub max: f64,
}

/// Totals of messages.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Messages {
    /// By type.
    ByType(BTreeMap<String, u64>),
    /// By type, and by what became of them.
    ByOutcome(BTreeMap<String, BTreeMap<String, u64>>),
}

/// How long event messages were inside.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Residence {
    /// How many.
    pub n: u64,
    /// Median.
    pub p50_ns: Option<i64>,
    /// 99th percentile.
    pub p99_ns: Option<i64>,
    /// The longest.
    pub max_ns: Option<i64>,
}

mod extras;
mod gptp;
mod link;
mod management;
mod pulse;
mod sources;
mod synce;
#[cfg(test)]
mod tests;
pub mod unicast;
