//! Which servers of NTP are asked, how and what for.

use core::net::SocketAddr;

use ptp_common::time::{Real, Time};
use serde::{Deserialize, Serialize};

use crate::prelude::*;

/// The interval between requests, as a power of two of seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Poll {
    /// The shortest.
    pub min: i8,
    /// The longest.
    pub max: i8,
}

impl Poll {
    /// The widest there is: a sixteenth of a second, and 36 hours (MAXPOLL of RFC 5905).
    pub const LIMITS: Self = Self { min: -4, max: 17 };

    /// Within what is sensible, the shorter one first.
    pub fn new(min: i8, max: i8) -> Self {
        let clamp = |log: i8| log.clamp(Self::LIMITS.min, Self::LIMITS.max);
        Self { min: clamp(min), max: clamp(max).max(clamp(min)) }
    }
}

/// 64 s to 1024 s, as everywhere.
impl Default for Poll {
    fn default() -> Self {
        Self { min: 6, max: 10 }
    }
}

/// Whose transmit stamp an exchange has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExchangeKind {
    /// That of the server's intention, inside the answer itself.
    #[default]
    Basic,
    /// That of the wire, in the answer after it (RFC 9769).
    Interleaved,
}

/// Whether an exchange is one of two that follow each other at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Turn {
    /// It is not.
    #[default]
    Alone,
    /// The server has been woken by it, and is asked again: it bounds the time, and tells nothing else.
    First,
    /// Both ends were warm.
    Second,
}

/// What to ask a server for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AssociationConfig {
    /// Where it is.
    pub address: SocketAddr,
    /// How often.
    pub poll: Poll,
    /// Interleaved where the server can.
    pub kind: ExchangeKind,
    /// Whether a server nearby that answers in basic mode is asked a second time at once, so that its answer leaves on a
    /// path that is warm.
    pub repeats: bool,
}

/// What servers of NTP are for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NtpPart {
    /// The grandmaster of PTP is held against them.
    #[default]
    Witness,
    /// The clock follows them.
    Source,
}

/// Which servers are asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NtpConfig {
    /// As many as a port's number can count. Each is a port behind those of PTP.
    pub servers: Vec<AssociationConfig>,
    /// What for.
    pub part: NtpPart,
    /// UTC at the start, to some decades.
    pub utc: Time<Real>,
}
