//! What the observer is given and what it tells: packets, ports, samples, and the summary of a port.

use super::{
    figures::{Exchanges, Losses},
    told::Told,
};
use crate::spread::Spread;
use crate::stamp::StampSource;
use crate::{csptp::Protocol, extras::Extras};
use ptp_common::{
    data_set::TimeProperties,
    record::Direction,
    time::{Duration, Mono, Time},
    wire::{Announce, Flags, MessageType, PortIdentity},
};
use serde::Serialize;

/// A domain as seen on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct DomainKey {
    /// Interface index.
    pub interface: u32,
    /// VLAN identifier, if the packets are tagged.
    pub vlan: Option<u16>,
    /// `domainNumber`.
    pub domain_number: u8,
    /// `sdoId`, 12 bits.
    pub sdo_id: u16,
}

/// A port of a domain as seen on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PortKey {
    /// The domain.
    pub domain: DomainKey,
    /// Which way its messages go: [`Direction::Egress`] for a port on this side of the interface.
    pub direction: Direction,
    /// `sourcePortIdentity`.
    pub port_identity: PortIdentity,
}

/// The offset of the host's real-time clock, from one Sync.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OffsetSample {
    /// Domain and interface.
    pub domain: DomainKey,
    /// The time transmitter.
    pub source: PortIdentity,
    /// `sequenceId` of the Sync.
    pub sequence_id: u16,
    /// When the Sync was stamped, t2.
    pub at: Time<Mono>,
    /// `offsetFromMaster` of the host's CLOCK_REALTIME, filtered: from the fastest Sync of the last
    /// seconds. Before the first measurement of the delay it contains that delay.
    pub offset: Duration,
    /// The same with this Sync alone: t2 minus t1 minus the filtered delay.
    pub raw_offset: Duration,
    /// `meanPathDelay` (or `meanLinkDelay`) of the fastest of the last exchanges; `None` before the
    /// first one.
    pub delay: Option<Duration>,
    /// How much faster the host's clock runs than the transmitter's, parts per billion; `None`
    /// during the first seconds.
    pub frequency_ppb: Option<f64>,
    /// Where Sync was stamped.
    pub rx_source: StampSource,
    /// Where the request of the latest delay exchange was stamped.
    pub tx_source: Option<StampSource>,
    /// By which exchange, where it was asked for; `None` of a Sync that came by itself.
    pub protocol: Option<Protocol>,
}

/// The delay of the path to a time transmitter, from one exchange.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DelaySample {
    /// Domain and interface.
    pub domain: DomainKey,
    /// The time transmitter, or the peer.
    pub source: PortIdentity,
    /// The port that asked.
    pub requester: PortIdentity,
    /// `sequenceId` of the request.
    pub sequence_id: u16,
    /// When the request was stamped.
    pub at: Time<Mono>,
    /// Unfiltered. `meanPathDelay` with the Sync next to the request, or `meanLinkDelay`; `None`
    /// before the first Sync.
    pub delay: Option<Duration>,
}

/// A time that a local time transmitter claims, against the stamp that this host took.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClaimSample {
    /// Domain and interface.
    pub domain: DomainKey,
    /// The time transmitter.
    pub source: PortIdentity,
    /// The time receiver, where the claim is the receipt of its Delay_Req (t4); `None` where it is
    /// the transmission of Sync (t1).
    pub requester: Option<PortIdentity>,
    /// `sequenceId` of the exchange.
    pub sequence_id: u16,
    /// When this host took its stamp.
    pub at: Time<Mono>,
    /// Claimed time minus stamp on CLOCK_REALTIME.
    pub difference: Duration,
}

/// What a packet completed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Observation {
    /// A Sync from outside.
    Offset(OffsetSample),
    /// A Delay_Req of a local time receiver.
    Delay(DelaySample),
    /// A Pdelay_Req of a local port.
    PeerDelay(DelaySample),
    /// A Sync of a local time transmitter.
    SyncClaim(ClaimSample),
    /// A Delay_Req to a local time transmitter.
    DelayClaim(ClaimSample),
}

/// What a port announces.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Announced {
    /// `flagField`.
    pub flags: Flags,
    /// The body.
    pub announce: Announce,
}

impl Announced {
    /// What is to be added to UTC to get the time of the domain, as well as it can be told.
    pub(super) fn utc_offset(&self) -> Duration {
        TimeProperties::new(self.flags, &self.announce).utc_offset().best()
    }
}

/// Everything about one port, for the closing summary.
#[derive(Clone, Debug, PartialEq)]
pub struct PortSnapshot {
    /// Which port.
    pub key: PortKey,
    /// First message of the port.
    pub first_seen: Time<Mono>,
    /// Last message of the port.
    pub last_seen: Time<Mono>,
    /// Messages that the port sent, in the order of [`MessageType::ALL`].
    pub messages: [u64; MessageType::ALL.len()],
    /// What it announced last.
    pub announced: Option<Announced>,
    /// What stood behind that.
    pub extras: Extras,
    /// What stood behind its Follow_Up and its Signaling.
    pub told: Told,
    /// Complete exchanges.
    pub exchanges: Exchanges,
    /// What was lost.
    pub losses: Losses,
    /// The last offset of this host's clock from this port.
    pub sample: Option<OffsetSample>,
    /// Raw offsets of this host's clock from this port.
    pub offset: Spread,
    /// Unfiltered delays of the path to this port, or of the link for a port that sends Pdelay_Req.
    pub delay: Spread,
    /// Claimed minus stamped transmission of Sync, for a local time transmitter.
    pub sync_claim: Spread,
    /// Claimed minus stamped receipt of Delay_Req, for a local time transmitter.
    pub delay_claim: Spread,
}

impl PortSnapshot {
    /// Of a port that has just been heard for the first time.
    pub(super) fn new(key: PortKey, now: Time<Mono>) -> Self {
        Self {
            key,
            first_seen: now,
            last_seen: now,
            messages: [0; _],
            announced: None,
            extras: Extras::default(),
            told: Told::default(),
            exchanges: Exchanges::default(),
            losses: Losses::default(),
            sample: None,
            offset: Spread::default(),
            delay: Spread::default(),
            sync_claim: Spread::default(),
            delay_claim: Spread::default(),
        }
    }

    /// How many messages of this type the port sent.
    pub fn sent(&self, kind: MessageType) -> u64 {
        self.messages[slot(kind)]
    }

    /// Whether the port is on this side of the interface.
    pub fn is_local(&self) -> bool {
        self.key.direction == Direction::Egress
    }

    /// Whether the port is a time transmitter.
    pub fn is_time_transmitter(&self) -> bool {
        self.sent(MessageType::Sync) > 0
    }

    /// Whether the port is a time receiver that measures its delay end to end.
    pub fn is_time_receiver(&self) -> bool {
        self.sent(MessageType::DelayReq) > 0
    }
}

pub(super) fn slot(kind: MessageType) -> usize {
    MessageType::ALL.iter().position(|each| *each == kind).unwrap_or(0)
}
