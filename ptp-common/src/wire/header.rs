//! The common message header (IEEE 1588-2019 13.3).

use super::{PortIdentity, TimeInterval, WireError};
use core::ops;

/// Length of the common header, bytes.
pub const HEADER_LENGTH: usize = 34;

/// `messageType` (table 36).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum MessageType {
    /// Sync, event.
    Sync = 0x0,
    /// Delay_Req, event.
    DelayReq = 0x1,
    /// Pdelay_Req, event.
    PdelayReq = 0x2,
    /// Pdelay_Resp, event.
    PdelayResp = 0x3,
    /// Follow_Up.
    FollowUp = 0x8,
    /// Delay_Resp.
    DelayResp = 0x9,
    /// Pdelay_Resp_Follow_Up.
    PdelayRespFollowUp = 0xa,
    /// Announce.
    Announce = 0xb,
    /// Signaling.
    Signaling = 0xc,
    /// Management.
    Management = 0xd,
}

impl MessageType {
    /// All ten, in the standard's order.
    pub const ALL: [Self; 10] = [
        Self::Sync,
        Self::DelayReq,
        Self::PdelayReq,
        Self::PdelayResp,
        Self::FollowUp,
        Self::DelayResp,
        Self::PdelayRespFollowUp,
        Self::Announce,
        Self::Signaling,
        Self::Management,
    ];

    /// Whether it is an event message, whose time on the wire matters (7.3.3.1).
    pub const fn is_event(self) -> bool {
        (self as u8) < 8
    }

    /// Length of header and fixed body, bytes.
    pub const fn fixed_length(self) -> usize {
        match self {
            Self::Sync | Self::DelayReq | Self::FollowUp | Self::Signaling => 44,
            Self::PdelayReq | Self::PdelayResp | Self::DelayResp | Self::PdelayRespFollowUp => 54,
            Self::Announce => 64,
            Self::Management => 48,
        }
    }

    /// The standard's name in lower case with underscores, for logs and metric labels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sync => "sync",
            Self::DelayReq => "delay_req",
            Self::PdelayReq => "pdelay_req",
            Self::PdelayResp => "pdelay_resp",
            Self::FollowUp => "follow_up",
            Self::DelayResp => "delay_resp",
            Self::PdelayRespFollowUp => "pdelay_resp_follow_up",
            Self::Announce => "announce",
            Self::Signaling => "signaling",
            Self::Management => "management",
        }
    }

    /// `controlField`, which version 2 keeps for version 1 hardware (table 42).
    const fn control(self) -> u8 {
        match self {
            Self::Sync => 0,
            Self::DelayReq => 1,
            Self::FollowUp => 2,
            Self::DelayResp => 3,
            Self::Management => 4,
            _ => 5,
        }
    }
}

impl TryFrom<u8> for MessageType {
    type Error = WireError;
    fn try_from(code: u8) -> Result<Self, WireError> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == code).ok_or(WireError::MessageType(code))
    }
}

/// `flagField` (table 37), kept whole: bits without a name here survive a round trip.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flags(pub u16);

impl Flags {
    /// alternateMasterFlag.
    pub const ALTERNATE_MASTER: Self = Self(0x0100);
    /// twoStepFlag.
    pub const TWO_STEP: Self = Self(0x0200);
    /// unicastFlag.
    pub const UNICAST: Self = Self(0x0400);
    /// leap61: the last minute of the day has 61 seconds.
    pub const LEAP61: Self = Self(0x0001);
    /// leap59: the last minute of the day has 59 seconds.
    pub const LEAP59: Self = Self(0x0002);
    /// currentUtcOffsetValid.
    pub const UTC_OFFSET_VALID: Self = Self(0x0004);
    /// ptpTimescale: the time is TAI.
    pub const PTP_TIMESCALE: Self = Self(0x0008);
    /// timeTraceable.
    pub const TIME_TRACEABLE: Self = Self(0x0010);
    /// frequencyTraceable.
    pub const FREQUENCY_TRACEABLE: Self = Self(0x0020);
    /// synchronizationUncertain.
    pub const SYNCHRONIZATION_UNCERTAIN: Self = Self(0x0040);

    /// These flags with the bits of `other` set where `on`, else cleared.
    #[must_use]
    pub const fn with(self, other: Self, on: bool) -> Self {
        if on { Self(self.0 | other.0) } else { Self(self.0 & !other.0) }
    }

    /// Whether all bits of `other` are set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl ops::BitOr for Flags {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}
impl ops::BitOrAssign for Flags {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

/// What tells one message from all others on a link for as long as its `sequenceId` is not used
/// again: 65 536 messages of its type (7.3.7). Joins the stamp that a kernel program took with the
/// message that came through a socket.
///
/// A Pdelay_Resp repeats the `sequenceId` of its request, so on a link with more than two ports
/// (which the peer delay mechanism does not allow, 11.4) two of them can share a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageKey {
    /// `domainNumber`.
    pub domain_number: u8,
    /// `majorSdoId` and `minorSdoId`, 12 bits.
    pub sdo_id: u16,
    /// `messageType`.
    pub message_type: MessageType,
    /// `sourcePortIdentity`.
    pub source_port_identity: PortIdentity,
    /// `sequenceId`.
    pub sequence_id: u16,
}

impl MessageKey {
    /// Reads the key of a message of which `bytes` are the beginning, [`HEADER_LENGTH`] or more; the
    /// rest may be cut off, as it is in a ring record. Nothing behind the header is looked at.
    ///
    /// # Errors
    /// [`WireError::Truncated`] for less than a header, [`WireError::Version`],
    /// [`WireError::MessageType`].
    pub fn from_prefix(bytes: &[u8]) -> Result<Self, WireError> {
        let message_type = check_header(bytes)?;
        Ok(Header::read(bytes).key(message_type))
    }
}

/// Checks that `bytes` begin with a whole header of version 2 and returns the message type.
pub(super) fn check_header(bytes: &[u8]) -> Result<MessageType, WireError> {
    let have = bytes.len();
    if have < HEADER_LENGTH {
        return Err(WireError::Truncated { have, need: HEADER_LENGTH });
    }
    let version = bytes[1] & 0x0f;
    if version != 2 {
        return Err(WireError::Version(version));
    }
    MessageType::try_from(bytes[0] & 0x0f)
}

/// The common header. `messageType`, `messageLength` and `controlField` follow from the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// `majorSdoId` (upper 4 bits) and `minorSdoId` (lower 8), 12 bits in all; more are not sent.
    pub sdo_id: u16,
    /// `minorVersionPTP`: 0 for IEEE 1588-2008, 1 for 2019; 4 bits, more are not sent.
    pub minor_version: u8,
    /// `domainNumber`.
    pub domain_number: u8,
    /// `flagField`.
    pub flags: Flags,
    /// `correctionField`.
    pub correction: TimeInterval,
    /// `messageTypeSpecific`, new in 2.1.
    pub message_type_specific: [u8; 4],
    /// `sourcePortIdentity`.
    pub source_port_identity: PortIdentity,
    /// `sequenceId`.
    pub sequence_id: u16,
    /// `logMessageInterval`; 0x7f where the message has none.
    pub log_message_interval: i8,
}

impl Header {
    /// A header with everything that is not given at its default.
    pub const fn new(source_port_identity: PortIdentity, sequence_id: u16) -> Self {
        Self {
            sdo_id: 0,
            minor_version: 1,
            domain_number: 0,
            flags: Flags(0),
            correction: TimeInterval(0),
            message_type_specific: [0; 4],
            source_port_identity,
            sequence_id,
            log_message_interval: 0x7f,
        }
    }

    /// The key of the message of type `message_type` that has this header.
    pub const fn key(&self, message_type: MessageType) -> MessageKey {
        MessageKey {
            domain_number: self.domain_number,
            sdo_id: self.sdo_id & 0x0fff,
            message_type,
            source_port_identity: self.source_port_identity,
            sequence_id: self.sequence_id,
        }
    }

    /// Reads the header; the caller has checked that there are [`HEADER_LENGTH`] bytes.
    pub(super) fn read(bytes: &[u8]) -> Self {
        let mut correction = [0; 8];
        correction.copy_from_slice(&bytes[8..16]);
        let mut specific = [0; 4];
        specific.copy_from_slice(&bytes[16..20]);
        Self {
            sdo_id: u16::from(bytes[0] & 0xf0) << 4 | u16::from(bytes[5]),
            minor_version: bytes[1] >> 4,
            domain_number: bytes[4],
            flags: Flags(u16::from_be_bytes([bytes[6], bytes[7]])),
            correction: TimeInterval(i64::from_be_bytes(correction)),
            message_type_specific: specific,
            source_port_identity: PortIdentity::read(bytes, 20),
            sequence_id: u16::from_be_bytes([bytes[30], bytes[31]]),
            log_message_interval: bytes[33] as i8,
        }
    }

    /// Writes the header; the caller has checked that there is room.
    pub(super) fn write(&self, kind: MessageType, length: u16, bytes: &mut [u8]) {
        bytes[0] = ((self.sdo_id >> 4) as u8 & 0xf0) | kind as u8;
        bytes[1] = self.minor_version << 4 | 2;
        bytes[2..4].copy_from_slice(&length.to_be_bytes());
        bytes[4] = self.domain_number;
        bytes[5] = self.sdo_id as u8;
        bytes[6..8].copy_from_slice(&self.flags.0.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.correction.0.to_be_bytes());
        bytes[16..20].copy_from_slice(&self.message_type_specific);
        self.source_port_identity.write(bytes, 20);
        bytes[30..32].copy_from_slice(&self.sequence_id.to_be_bytes());
        bytes[32] = kind.control();
        bytes[33] = self.log_message_interval as u8;
    }
}
