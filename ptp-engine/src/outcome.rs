//! What an instance has measured, whom it follows, and why a port changed its state. Values only.

use crate::{PortIndex, stamp::Stamp};
use ptp_common::{
    data_set::{ParentDataSet, TimeProperties},
    time::{Duration, Mono, Ptp, Time},
    wire::PortIdentity,
};
use serde::Serialize;

/// Why a port changed its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StateReason {
    /// The engine has started.
    Started,
    /// The link came up.
    LinkUp,
    /// The link went down.
    LinkDown,
    /// The port hears the best time transmitter.
    BestTransmitter,
    /// Another port hears a better one.
    BetterElsewhere,
    /// Announce messages stopped.
    AnnounceTimeout,
    /// The servo has locked.
    Synchronized,
    /// The servo has lost its lock.
    SynchronizationLost,
    /// This clock is better than all that it hears: M1 or M2 of figure 33.
    BestClock,
    /// Another port follows the best time transmitter, whose time is passed on here: M3.
    PassesOn,
    /// The port has waited long enough for a better one (9.2.6.11).
    Qualified,
    /// Somebody else serves here, or the time that is followed reaches this port too: P1 or P2.
    ServedAlready,
    /// Another port of this clock has the same network.
    OwnNetwork,
    /// The parent announces itself and sends no Sync.
    SyncTimeout,
    /// A time transmitter does not grant its messages any more, or sends none of those that it has granted.
    GrantLost,
    /// Management has disabled the port.
    Disabled,
    /// Management has enabled it again.
    Enabled,
}

impl StateReason {
    /// Words for a log line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::LinkUp => "link up",
            Self::LinkDown => "link down",
            Self::BestTransmitter => "best time transmitter",
            Self::BetterElsewhere => "better time transmitter elsewhere",
            Self::AnnounceTimeout => "announce receipt timeout",
            Self::Synchronized => "synchronized",
            Self::SynchronizationLost => "synchronization lost",
            Self::BestClock => "best clock",
            Self::PassesOn => "passes on",
            Self::Qualified => "qualification timeout",
            Self::ServedAlready => "served already",
            Self::OwnNetwork => "own network",
            Self::SyncTimeout => "sync receipt timeout",
            Self::GrantLost => "grant lost",
            Self::Disabled => "disabled by management",
            Self::Enabled => "enabled by management",
        }
    }
}

/// One observation of the path between parent and port.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measurement {
    /// The port that made it.
    pub port: PortIndex,
    /// Changes whenever times before and after it must not be compared: see
    /// [`Parent::epoch`].
    pub epoch: u64,
    /// The time transmitter.
    pub parent: PortIdentity,
    /// What was seen.
    pub observation: Observation,
}

/// One-way observations, because estimators filter each direction by itself.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Observation {
    /// From the time transmitter: a Sync, with its Follow_Up if it is two-step.
    Sync(SyncObservation),
    /// To the time transmitter: a Delay_Req, with its Delay_Resp.
    Delay(DelayObservation),
    /// The link to the neighbour.
    PeerDelay(PeerDelay),
    /// The same, measured by another program.
    LinkTold(LinkTold),
}

/// One Sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SyncObservation {
    /// When it left the grandmaster, all corrections and `delayAsymmetry` added: `t2 - t1` is path
    /// delay plus offset, free of residence times.
    pub t1: Time<Ptp>,
    /// When it arrived here.
    pub t2: Stamp,
    /// `sequenceId`.
    pub sequence_id: u16,
    /// `logMessageInterval`, where it can be believed.
    pub log_interval: Option<i8>,
    /// Whether there was a Follow_Up.
    pub two_step: bool,
    /// The correction fields of both messages: what transparent clocks have added.
    pub correction: Duration,
}

/// One Delay_Req.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DelayObservation {
    /// When it left here.
    pub t3: Stamp,
    /// When it arrived at the time transmitter, corrections subtracted and `delayAsymmetry` added:
    /// `t4 - t3` is path delay minus offset.
    pub t4: Time<Ptp>,
    /// `sequenceId`.
    pub sequence_id: u16,
    /// The correction field: what transparent clocks have added.
    pub correction: Duration,
}

/// Who is followed: `parentDS` and what goes with it, and where it came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parent {
    /// The port that hears it.
    pub port: PortIndex,
    /// `parentDS`.
    pub set: ParentDataSet,
    /// `stepsRemoved` as announced; `currentDS.stepsRemoved` is one more.
    pub steps_removed: u16,
    /// Counts changes of port, parent, grandmaster and time scale since the start.
    pub epoch: u64,
    /// `timePropertiesDS`.
    pub time_properties: TimeProperties,
}

/// What another program says of a link. Its `neighborRateRatio` is that of a clock of its own, and of no use here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkTold {
    /// When it was said.
    pub at: Time<Mono>,
    /// `meanLinkDelay`.
    pub mean_link_delay: Duration,
    /// Whether the neighbour answers as it should.
    pub is_capable: bool,
}

/// One finished measurement of the link.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PeerDelay {
    /// The port at the other end.
    pub responder: PortIdentity,
    /// Pdelay_Req left.
    pub t1: Stamp,
    /// Pdelay_Resp arrived.
    pub t4: Stamp,
    /// How long the responder held it, on the responder's clock, corrections included.
    pub turnaround: Duration,
    /// `meanLinkDelay` of this exchange alone, on the local monotonic scale.
    pub mean_link_delay: Duration,
    /// `neighborRateRatio`: the peer's clock rate over the local monotonic one; `None` before the
    /// second exchange or where the peer tells no times (one-step).
    pub neighbor_rate_ratio: Option<f64>,
    /// `sequenceId` of the exchange.
    pub sequence_id: u16,
}
