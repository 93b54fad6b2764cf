//! What a port hears and cannot follow: the reasons that somebody who waits for a time transmitter would
//! like to know. One of each kind is remembered, for a minute.

use crate::prelude::*;
use core::{fmt, mem};
use ptp_common::{
    time::{Duration, Mono, Time},
    wire::PortIdentity,
};

/// How long it is worth telling.
const FRESH: Duration = Duration::from_secs(60);

/// Why something that was heard is not followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hint {
    /// A time transmitter in another domain.
    OtherDomain {
        /// `domainNumber`.
        domain_number: u8,
        /// The time transmitter.
        source: PortIdentity,
    },
    /// A time transmitter with another `sdoId`.
    OtherSdoId {
        /// `sdoId`, 12 bits.
        sdo_id: u16,
        /// The time transmitter.
        source: PortIdentity,
    },
    /// Messages of IEEE 1588-2002, as Dante's first generation sends.
    Version1,
    /// Somebody else has this clock's identity.
    Twin {
        /// Who says so.
        source: PortIdentity,
    },
    /// A time transmitter announces itself more seldom than it says.
    SlowAnnounce {
        /// The time transmitter.
        source: PortIdentity,
        /// The interval between two of its Announce messages.
        kept: Duration,
    },
    /// A time transmitter that is not among those that may be followed.
    NotAcceptable {
        /// The time transmitter.
        source: PortIdentity,
    },
}

impl Hint {
    /// Whether somebody speaks who does not speak to this port: what the hooks on the way in see as well, of
    /// all transports and VLANs.
    pub const fn is_of_other_channel(&self) -> bool {
        matches!(self, Self::OtherDomain { .. } | Self::OtherSdoId { .. } | Self::Version1)
    }
}

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherDomain { domain_number, source } => {
                write!(f, "{source} announces itself in domain {domain_number}")
            }
            Self::OtherSdoId { sdo_id: 0x100, source } => {
                write!(f, "{source} announces itself with sdoId 0x100, which is gPTP")
            }
            Self::OtherSdoId { sdo_id, source } => {
                write!(f, "{source} announces itself with sdoId {sdo_id:#05x}, another profile")
            }
            Self::Version1 => f.write_str("PTP version 1 is heard, which is another protocol"),
            Self::Twin { source } => write!(
                f,
                "{source} has this clock's identity: a cloned machine, or two PTP programs on one \
                 interface"
            ),
            Self::SlowAnnounce { source, kept } => write!(
                f,
                "{source} announces itself every {:.1} s, more seldom than it says",
                kept.as_secs_f64()
            ),
            Self::NotAcceptable { source } => {
                write!(
                    f,
                    "{source} announces what may not be followed: not among the acceptable masters, or too high a class"
                )
            }
        }
    }
}

/// See the module's paragraph.
#[derive(Debug, Default)]
pub(super) struct Overheard(Vec<(Time<Mono>, Hint)>);

impl Overheard {
    pub(super) fn hear(&mut self, now: Time<Mono>, hint: Hint) {
        let kind = mem::discriminant(&hint);
        match self.0.iter_mut().find(|(_, known)| mem::discriminant(known) == kind) {
            Some(known) => *known = (now, hint),
            None => self.0.push((now, hint)),
        }
    }

    pub(super) fn fresh(&self, now: Time<Mono>) -> impl Iterator<Item = Hint> {
        self.0.iter().filter(move |(at, _)| now - *at <= FRESH).map(|(_, hint)| *hint)
    }
}
