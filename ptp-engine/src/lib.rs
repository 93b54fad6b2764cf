//! The protocol engine, the servos and the clocks that are only numbers, sans I/O: they are given `now`,
//! messages and stamps, and return actions. Nothing in here touches a socket, a clock of the host or a
//! runtime, and `no_std` keeps it so; one and the same code runs under the agent, the simulator and
//! `replay`. All stamps are on one CLOCK_MONOTONIC, so that several ports need no clock each. This file
//! holds what the parts share: port and token numbers, the bytes of a message to send, and port states.
#![no_std]
#![forbid(unsafe_code)]

#[macro_use]
extern crate alloc;
// For its floating point, see `math`, and for tests; that nothing else of it is used shows on a target
// without an operating system.
#[cfg(not(target_os = "none"))]
extern crate std;

pub mod address;
#[cfg(test)]
mod attacks;
pub mod bmca;
pub mod client;
pub mod clock;
pub mod counters;
mod fair;
pub mod limits;
#[cfg(any(test, target_os = "none"))]
mod math;
pub mod observer;
pub mod origin;
mod pdelay;
mod prelude;
pub mod receiver;
mod sequence;
pub mod servo;
pub mod stamp;
pub mod strategy;
#[cfg(test)]
mod tests;
pub mod transmitter;

use core::{fmt, ops};
use ptp_common::{
    time::Duration,
    wire::{Body, Header, Message, Tlvs},
};
use serde::{Deserialize, Serialize};

/// Which of the clock's own ports, counted from 0. `portNumber` on the wire is one more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct PortIndex(pub u16);

impl PortIndex {
    /// `portNumber` of the wire (7.5.2.3), from 1.
    pub const fn number(self) -> u16 {
        self.0.saturating_add(1)
    }
}

/// Names one event message on its way out, so that its transmit stamp can be handed back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TxToken(pub u64);

/// `delayMechanism` (8.2.15.4.4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DelayMechanism {
    /// Delay request-response.
    #[default]
    E2e,
    /// Peer-to-peer.
    P2p,
}

/// `portState` (table 20). The states of a time transmitter and FAULTY do not occur here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PortState {
    /// Before the first input.
    Initializing,
    /// The link is down, or the interface is gone.
    Disabled,
    /// Waits for a time transmitter, or another port has the best one.
    Listening,
    /// Follows a time transmitter, not locked yet.
    Uncalibrated,
    /// Follows a time transmitter and is locked: SLAVE in the standard's table.
    TimeReceiver,
}

impl PortState {
    /// All of them, for metrics.
    pub const ALL: [Self; 5] = [
        Self::Initializing,
        Self::Disabled,
        Self::Listening,
        Self::Uncalibrated,
        Self::TimeReceiver,
    ];

    /// The name in JSON and in metric labels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Initializing => "initializing",
            Self::Disabled => "disabled",
            Self::Listening => "listening",
            Self::Uncalibrated => "uncalibrated",
            Self::TimeReceiver => "time_receiver",
        }
    }
}

/// The bytes of a message to send. No message that the agent sends is longer than Announce.
#[derive(Clone, Copy)]
pub struct Datagram {
    bytes: [u8; Self::CAPACITY],
    length: u8,
}

impl Datagram {
    const CAPACITY: usize = 64;

    /// A message without TLVs.
    pub fn new(header: Header, body: Body) -> Self {
        let mut bytes = [0; Self::CAPACITY];
        let message = Message { header, body, tlvs: Tlvs::NONE };
        // Cannot fail: the longest fixed part has 64 bytes, but an empty datagram beats a panic.
        let length = message.emit(&mut bytes).unwrap_or(0) as u8;
        Self { bytes, length }
    }
}

impl ops::Deref for Datagram {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}
impl PartialEq for Datagram {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}
impl Eq for Datagram {}
impl fmt::Debug for Datagram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Datagram(")?;
        for byte in self.iter() {
            write!(f, "{byte:02x}")?;
        }
        f.write_str(")")
    }
}

/// How many whole intervals there are in a span; never negative.
pub(crate) fn intervals_in(span: Duration, interval: Duration) -> u64 {
    let interval = interval.as_scaled_nanos().max(1);
    u64::try_from((span.as_scaled_nanos() / interval).max(0)).unwrap_or(u64::MAX)
}
