//! What is shown of one port in one domain: plain figures that whoever runs the port sets, and the
//! closed sets from which their labels come.

use std::collections::{BTreeMap, BTreeSet};

use ptp_common::wire::{ClockIdentity, MessageType, PortIdentity};

use super::{LinkMetrics, histogram::Histogram};
use crate::{
    engine::{PortState, strategy::Strategy},
    servo::ServoState,
    stamp::StampSource,
};

/// Values of the `state` label of `ptp_port_state`: the roles of IEEE 1588g in the order of IEEE 1588-2019 table
/// 20, in lower case.
pub const PORT_STATES: [&str; 9] = [
    "initializing",
    "faulty",
    "disabled",
    "listening",
    "pre_time_transmitter",
    "time_transmitter",
    "passive",
    "uncalibrated",
    "time_receiver",
];

/// Values of the `state` label of `ptp_servo_state`.
pub const SERVO_STATES: [&str; 4] = ["unlocked", "jump", "locked", "holdover"];

/// Values of the `strategy` label of `ptp_strategy`.
pub const STRATEGIES: [&str; 5] = ["plain", "trial", "primed", "cold", "remote"];

/// Parents of one port that have labels of their own.
pub const MAX_PARENTS: usize = 64;

/// Which way a message or a stamped packet went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// Received.
    Rx,
    /// Transmitted.
    Tx,
}

impl Direction {
    /// The value of the `direction` label.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rx => "rx",
            Self::Tx => "tx",
        }
    }
}

/// What became of a timestamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StampOutcome {
    /// Paired with its message.
    Matched,
    /// No message came for it.
    Orphaned,
    /// A second one for the same packet and source.
    Duplicate,
    /// Came when its message had been given up.
    Late,
    /// Not used, because something came between it and the packet.
    Interrupted,
}

impl StampOutcome {
    /// The value of the `outcome` label.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Matched => "matched",
            Self::Orphaned => "orphaned",
            Self::Duplicate => "duplicate",
            Self::Late => "late",
            Self::Interrupted => "interrupted",
        }
    }
}

/// Everything shown of one port in one domain. A figure that is `None` or absent has no series, so
/// that zero and unknown differ. Totals only grow.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PortFigures {
    /// Local clock minus grandmaster clock, seconds.
    pub offset_from_master_seconds: Option<f64>,
    /// Mean path delay, seconds.
    pub mean_path_delay_seconds: Option<f64>,
    /// Correction applied to the clock's frequency, as a ratio (1e-6 is 1 ppm).
    pub clock_frequency_adjustment_ratio: Option<f64>,
    /// Bound on |local clock - time transmitter|, seconds.
    pub clock_error_bound_seconds: Option<f64>,
    /// To within what the clock repeats, seconds.
    pub clock_precision_seconds: Option<f64>,
    /// Lowest and highest of local clock minus time transmitter, seconds.
    pub causal_interval_seconds: Option<[f64; 2]>,
    /// How far the host's own clock is from the grandmaster.
    pub host_clock: Option<HostClock>,
    /// Grandmaster and parent.
    pub parent: Option<Parent>,
    /// All that were shown, so that there are no more than [`MAX_PARENTS`].
    pub parents: BTreeSet<(ClockIdentity, PortIdentity)>,
    /// Requests by where they were answered and what became of them.
    pub answers: BTreeMap<(&'static str, &'static str), u64>,
    /// Unicast negotiation.
    pub unicast: UnicastFigures,
    /// The link.
    pub link: LinkMetrics,
    /// When the last sample was taken, seconds since 1970.
    pub last_sample_timestamp_seconds: Option<f64>,
    /// `portState`.
    pub port_state: Option<PortState>,
    /// Of the servo, if there is one.
    pub servo_state: Option<ServoState>,
    /// How the paths are made alike.
    pub strategy: Option<Strategy>,
    /// Messages received and sent.
    pub messages: BTreeMap<(Direction, MessageType), u64>,
    /// Timestamps, by what became of them.
    pub timestamps: BTreeMap<(Direction, StampSource, StampOutcome), u64>,
    /// Capture points that are compared.
    pub capture_points: BTreeMap<(Direction, StampSource), CapturePoint>,
    /// Whether event messages are primed.
    pub priming: Option<bool>,
    /// Exchanges, completed or given up, by the engine's name for it.
    pub exchanges: BTreeMap<&'static str, u64>,
    /// Steps of the clock.
    pub clock_steps: u64,
    /// Stamps of the kernel programs minus the kernel's own of the same packets, seconds, by the
    /// point where the former were taken.
    pub timestamp_differences: BTreeMap<(Direction, StampSource), Histogram>,
}

/// Unicast negotiation, on both sides.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UnicastFigures {
    /// Clients that have grants.
    pub clients: Option<usize>,
    /// Servers that are asked, by how they stand.
    pub servers: BTreeMap<&'static str, u32>,
    /// Grants that hold, by whether they are given (tx) or taken (rx), and by type.
    pub grants: BTreeMap<(Direction, &'static str), u32>,
    /// What became of requests and grants.
    pub requests: BTreeMap<&'static str, u64>,
    /// Messages that were sent as granted.
    pub messages: BTreeMap<&'static str, u64>,
}

/// How far CLOCK_REALTIME was from the grandmaster, whatever clock the agent follows with.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct HostClock {
    /// CLOCK_REALTIME minus the grandmaster's time as UTC, seconds.
    pub offset_seconds: f64,
    /// The truth is no farther from that, seconds.
    pub bound_seconds: f64,
    /// What CLOCK_REALTIME showed then, seconds since 1970.
    pub read_at_seconds: f64,
}

/// A capture point among those that are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CapturePoint {
    /// Its stamps are the ones in use.
    pub is_chosen: bool,
    /// Mean deviation of its one-way residuals, seconds, once there was a comparison.
    pub noise_seconds: Option<f64>,
}

/// Labels of `ptp_parent_info`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parent {
    /// `grandmasterIdentity`.
    pub grandmaster: String,
    /// `parentPortIdentity`.
    pub port: String,
}

impl PortFigures {
    /// Sets grandmaster and parent. Identities come from the wire, so that the labels of those beyond
    /// the first [`MAX_PARENTS`] are one and the same.
    pub fn set_parent(&mut self, grandmaster: ClockIdentity, port: PortIdentity) {
        if self.parents.len() < MAX_PARENTS {
            self.parents.insert((grandmaster, port));
        }
        let is_shown = self.parents.contains(&(grandmaster, port));
        let label = |identity: String| if is_shown { identity } else { "other".to_owned() };
        self.parent = Some(Parent {
            grandmaster: label(grandmaster.to_string()),
            port: label(port.to_string()),
        });
    }

    /// Sets the total of messages of one type and direction.
    pub fn set_messages(&mut self, direction: Direction, kind: MessageType, total: u64) {
        self.messages.insert((direction, kind), total);
    }

    /// Sets the total of timestamps of one direction, source and outcome.
    pub fn set_timestamps(
        &mut self,
        direction: Direction,
        source: StampSource,
        outcome: StampOutcome,
        total: u64,
    ) {
        self.timestamps.insert((direction, source, outcome), total);
    }

    /// Sets the total of exchanges with one outcome.
    pub fn set_exchanges(&mut self, outcome: &'static str, total: u64) {
        self.exchanges.insert(outcome, total);
    }
}

/// The value of the `type` label.
pub const fn message_type_name(kind: MessageType) -> &'static str {
    match kind {
        MessageType::Sync => "sync",
        MessageType::DelayReq => "delay_req",
        MessageType::PdelayReq => "pdelay_req",
        MessageType::PdelayResp => "pdelay_resp",
        MessageType::FollowUp => "follow_up",
        MessageType::DelayResp => "delay_resp",
        MessageType::PdelayRespFollowUp => "pdelay_resp_follow_up",
        MessageType::Announce => "announce",
        MessageType::Signaling => "signaling",
        MessageType::Management => "management",
    }
}
