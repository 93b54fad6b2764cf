//! The protocol engine, sans I/O: it is given `now`, messages and stamps, and returns actions. It
//! never touches a socket, a clock or a runtime, so one and the same code runs under the agent, the
//! simulator and `replay`. This file holds what the parts share: port and token numbers, the bytes
//! of a message to send, and port states.

#[cfg(test)]
mod attacks;
pub mod bmca;
pub mod client;
pub mod counters;
mod fair;
pub mod observer;
pub mod origin;
mod pdelay;
pub mod receiver;
mod sequence;
pub mod strategy;
#[cfg(test)]
mod tests;
pub mod transmitter;

use core::{fmt, ops};
use ptp_common::{
    time::Duration,
    wire::{Body, Bracket, Header, Message, TlvBuilder, Tlvs},
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

/// The bytes of a message to send. No message that the agent sends is longer than Delay_Resp with a bracket.
#[derive(Clone, Copy)]
pub struct Datagram {
    bytes: [u8; Self::CAPACITY],
    length: u8,
}

impl Datagram {
    const CAPACITY: usize = 72;

    /// A message without TLVs.
    pub(crate) fn new(header: Header, body: Body) -> Self {
        Self::with(header, body, Tlvs::NONE)
    }

    /// A message that tells the bracket of its timestamp, where there is one.
    pub(crate) fn bracketed(header: Header, body: Body, bracket: Option<Bracket>) -> Self {
        let Some(bracket) = bracket else { return Self::new(header, body) };
        let (value, mut buffer) = (bracket.value(), [0; Bracket::LENGTH + 4]);
        let mut tlvs = TlvBuilder::new(&mut buffer);
        match tlvs.push(Bracket::tlv(&value)) {
            Ok(()) => Self::with(header, body, tlvs.finish()),
            // Cannot be: there is room for it.
            Err(_) => Self::new(header, body),
        }
    }

    fn with(header: Header, body: Body, tlvs: Tlvs<'_>) -> Self {
        let mut bytes = [0; Self::CAPACITY];
        let message = Message { header, body, tlvs };
        // Cannot fail: the longest message has 72 bytes, but an empty datagram beats a panic.
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
