//! The protocol engine, the servos and the clocks that are only numbers, sans I/O: they are given `now`,
//! messages and stamps, and return actions. Nothing in here touches a socket, a clock of the host or a
//! runtime, and `no_std` keeps it so; one and the same code runs under the agent, the simulator and
//! `replay`. All stamps are on one CLOCK_MONOTONIC, so that several ports need no clock each. This file
//! holds what the parts share: port numbers and port states.
#![no_std]
#![forbid(unsafe_code)]

#[macro_use]
extern crate alloc;
// For its floating point, see `math`, and for tests (`testing`); that nothing else of it is used shows on a target
// without an operating system.
#[cfg(not(target_os = "none"))]
extern crate std;

pub mod address;
#[cfg(test)]
mod attacks;
pub mod bmca;
pub mod clock;
pub mod config;
pub mod counters;
pub mod csptp;
mod datagram;
pub mod discipline;
pub mod esmc;
pub mod extras;
mod fair;
pub mod instance;
pub mod limits;
pub mod link;
mod math;
pub mod nmea;
pub mod node;
pub mod ntp;
pub mod observer;
pub mod origin;
pub mod outcome;
pub mod prefix;
mod prelude;
pub mod pulse;
pub mod receiver;
mod round_trip;
mod seam;
mod sent;
mod sequence;
pub mod servers;
pub mod servo;
pub mod sources;
pub mod spread;
pub mod stamp;
pub mod strategy;
#[cfg(not(target_os = "none"))]
#[doc(hidden)]
pub mod testing;
#[cfg(test)]
mod tests;
pub mod timers;
pub mod transmitter;
pub mod unicast;

use ptp_common::time::Duration;
use serde::{Deserialize, Serialize};

pub use config::contention;
pub use datagram::Datagram;
use instance::port;
pub use seam::{
    Change, Command, Commands, Context, Destination, Driven, Engine, Group, Input, LinkState,
    Monotonic, NoEvent, Pushed, ReadClock, Transmit, Witnessed,
};
pub use sent::SentToken;

/// Which of the clock's own ports, counted from 0. `portNumber` on the wire is one more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PortIndex(pub u16);

impl PortIndex {
    /// `portNumber` of the wire (7.5.2.3), from 1.
    pub const fn number(self) -> u16 {
        self.0.saturating_add(1)
    }
}

/// `delayMechanism` (8.2.15.4.4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DelayMechanism {
    /// Delay request-response.
    #[default]
    E2e,
    /// Peer-to-peer.
    P2p,
    /// Delay request-response, until the neighbour sends a Pdelay_Req: then peer-to-peer, for good.
    Auto,
}

impl DelayMechanism {
    /// Whether Delay_Req is sent and answered.
    pub(crate) const fn is_e2e(self) -> bool {
        matches!(self, Self::E2e | Self::Auto)
    }
}

/// `portState` (table 20). FAULTY does not occur here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PortState {
    /// Before the first input.
    Initializing,
    /// The link is down, or the interface is gone.
    Disabled,
    /// Waits for a time transmitter, or another port has the best one.
    Listening,
    /// Will send its time soon: PRE_MASTER in the standard's table.
    PreTimeTransmitter,
    /// Sends its time: MASTER.
    TimeTransmitter,
    /// Neither, because another port of this clock or of another one serves here.
    Passive,
    /// Follows a time transmitter, not locked yet.
    Uncalibrated,
    /// Follows a time transmitter and is locked: SLAVE in the standard's table.
    TimeReceiver,
}

impl PortState {
    /// All of them, for metrics.
    pub const ALL: [Self; 8] = [
        Self::Initializing,
        Self::Disabled,
        Self::Listening,
        Self::PreTimeTransmitter,
        Self::TimeTransmitter,
        Self::Passive,
        Self::Uncalibrated,
        Self::TimeReceiver,
    ];

    /// The name in JSON and in metric labels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Initializing => "initializing",
            Self::Disabled => "disabled",
            Self::Listening => "listening",
            Self::PreTimeTransmitter => "pre_time_transmitter",
            Self::TimeTransmitter => "time_transmitter",
            Self::Passive => "passive",
            Self::Uncalibrated => "uncalibrated",
            Self::TimeReceiver => "time_receiver",
        }
    }

    /// Its number on the wire (table 20).
    pub const fn number(self) -> u8 {
        match self {
            Self::Initializing => 1,
            Self::Disabled => 3,
            Self::Listening => 4,
            Self::PreTimeTransmitter => 5,
            Self::TimeTransmitter => 6,
            Self::Passive => 7,
            Self::Uncalibrated => 8,
            Self::TimeReceiver => 9,
        }
    }

    /// Whether a port may go from one state to the other (figure 30), to which a server-only port goes from the
    /// start on.
    pub const fn may_become(self, new: Self) -> bool {
        match (self, new) {
            (_, Self::Disabled) => true,
            (Self::Initializing, Self::Initializing) => true,
            (_, Self::Initializing) => false,
            (Self::Initializing | Self::Disabled, Self::Listening | Self::TimeTransmitter) => true,
            (Self::Initializing | Self::Disabled, _) => false,
            (Self::Uncalibrated | Self::TimeReceiver, Self::TimeReceiver) => true,
            (_, Self::TimeReceiver) => false,
            _ => true,
        }
    }
}

/// How many whole intervals there are in a span; never negative.
pub(crate) fn intervals_in(span: Duration, interval: Duration) -> u64 {
    let interval = interval.as_scaled_nanos().max(1);
    u64::try_from((span.as_scaled_nanos() / interval).max(0)).unwrap_or(u64::MAX)
}
