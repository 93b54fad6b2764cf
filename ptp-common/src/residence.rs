//! What a transparent clock (IEEE 1588-2019 10.2) must know of a message and how it corrects it: which
//! event messages are timed, which message carries the correction of which event, the arithmetic of
//! `correctionField`, and the UDP checksum that goes with it. One source for the kernel programs and for
//! the agent, which corrects what the programs have held back; the layouts of what the two share are here
//! too, as plain numbers.

use crate::wire::MessageType;

/// Bytes of a message that are looked at first: the common header and what every message has behind it.
pub const HEAD: usize = 44;
/// Where a requestingPortIdentity is, in the messages that have one (13.8, 13.10, 13.11).
pub const REQUESTER: usize = HEAD;
/// Length of a portIdentity, bytes.
pub const PORT_IDENTITY: usize = 10;
/// Where `correctionField` is in a message.
pub const CORRECTION: usize = 8;
/// What was longer inside is no residence: some stamp is another message's. Nanoseconds.
pub const MAX_RESIDENCE_NS: u64 = 4_000_000_000;
/// One part of a rate, as [`scaled`] takes it.
pub const RATE_BITS: u32 = 40;
/// A clock that is further off than a thousandth is no clock.
pub const MAX_RATE: i64 = 1 << (RATE_BITS - 10);
/// Ports of a transparent clock at the most; they are numbered from 1.
pub const MAX_PORTS: u32 = 255;
/// The group that bridges keep: for peer delay (annex E), and for everything in IEEE 802.1AS.
pub const LINK_LOCAL: [u8; 6] = [0x01, 0x80, 0xc2, 0x00, 0x00, 0x0e];
/// Interfaces between which that can be relayed, at the most.
pub const RELAYS: u32 = 64;
/// `tlvType` of AUTHENTICATION (14.4.2).
const AUTHENTICATION: u16 = 0x8009;
/// The same in the experimental Annex K of IEEE 1588-2008.
const AUTHENTICATION_2008: u16 = 0x2000;
/// `twoStepFlag` in the first octet of flagField.
const TWO_STEP: u8 = 0x02;

/// What a message is to a transparent clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An event message, which is timed.
    Event,
    /// A general message, which carries the correction of one or two events.
    General,
}

/// The messages that a transparent clock knows, numbered for counters.
pub const TYPES: [&str; 7] = [
    "sync",
    "delay_req",
    "pdelay_req",
    "pdelay_resp",
    "follow_up",
    "delay_resp",
    "pdelay_resp_follow_up",
];

/// What became of a message, numbered for counters; the names are labels of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Outcome {
    /// The residence was added on the way.
    Corrected = 0,
    /// It came before its event had left, and was taken out until then.
    Held = 1,
    /// The residence was added after that.
    CorrectedLate = 2,
    /// An event message was timed.
    Timed = 3,
    /// Nobody saw the event message arrive.
    NoArrival = 4,
    /// Nobody knows how long the event message was inside.
    NoResidence = 5,
    /// No request of that identity went the other way.
    Unrequested = 6,
    /// The event message was dropped by a queue.
    EventLost = 7,
    /// It has an AUTHENTICATION TLV, which a correction would break.
    Authenticated = 8,
    /// Another version of the protocol.
    Version = 9,
    /// Lengths that contradict each other, or TLVs that cannot be followed.
    Malformed = 10,
    /// A part of an IP packet.
    Fragment = 11,
    /// `correctionField` has no room for more.
    Overflow = 12,
    /// A one-step message in front of a queue.
    Queue = 13,
    /// The time transmitter's Sync cannot be corrected, so neither is what it answers.
    OneWay = 14,
    /// More event messages than a port is allowed per second.
    Flood = 15,
    /// No room to hold it.
    TableFull = 16,
    /// It was held as long as allowed, and its event was never seen to leave.
    Expired = 17,
    /// A peer delay message that a peer-to-peer transparent clock does not let through.
    Terminated = 18,
    /// Sent by a program of this host in the name of a clock that was heard on a port.
    Relayed = 19,
    /// An event message whose driver was interrupted: its residence may be too short by that.
    Interrupted = 20,
    /// An event message that left without being seen: another packet has its socket buffer.
    Unseen = 21,
    /// A general message whose event left nobody knows when: not let through, because who gets it would
    /// take the queue for a part of the delay. One exchange is lost instead.
    Withheld = 22,
}

impl Outcome {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 23] = [
        Self::Corrected,
        Self::Held,
        Self::CorrectedLate,
        Self::Timed,
        Self::NoArrival,
        Self::NoResidence,
        Self::Unrequested,
        Self::EventLost,
        Self::Authenticated,
        Self::Version,
        Self::Malformed,
        Self::Fragment,
        Self::Overflow,
        Self::Queue,
        Self::OneWay,
        Self::Flood,
        Self::TableFull,
        Self::Expired,
        Self::Terminated,
        Self::Relayed,
        Self::Interrupted,
        Self::Unseen,
        Self::Withheld,
    ];

    /// The name in metrics and status.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Corrected => "corrected",
            Self::Held => "held",
            Self::CorrectedLate => "corrected_late",
            Self::Timed => "timed",
            Self::NoArrival => "no_arrival",
            Self::NoResidence => "no_residence",
            Self::Unrequested => "unrequested",
            Self::EventLost => "event_lost",
            Self::Authenticated => "authenticated",
            Self::Version => "version",
            Self::Malformed => "malformed",
            Self::Fragment => "fragment",
            Self::Overflow => "overflow",
            Self::Queue => "queue",
            Self::OneWay => "one_way",
            Self::Flood => "flood",
            Self::TableFull => "table_full",
            Self::Expired => "expired",
            Self::Terminated => "terminated",
            Self::Relayed => "relayed",
            Self::Interrupted => "interrupted",
            Self::Unseen => "unseen",
            Self::Withheld => "withheld",
        }
    }

    /// Whether the message left without the correction that it should have had.
    pub const fn is_missed(self) -> bool {
        matches!(self, Self::NoResidence | Self::TableFull | Self::Expired | Self::NoArrival)
    }
}

/// Place of a count: 32 outcomes for each of 8 types for each port.
#[inline(always)]
pub const fn count_index(port: u32, kind: u32, outcome: u32) -> u32 {
    (port & 0xff) << 8 | (kind & 7) << 5 | (outcome & 31)
}

/// Counts in all.
pub const COUNTS: usize = 1 << 16;
/// Buckets of a histogram of residence times; the last place has the sum.
pub const BUCKETS: u32 = 64;
/// Places of all histograms.
pub const HISTOGRAMS: usize = 256 * 2 * BUCKETS as usize;

/// Place of a bucket: by port and way (0: from the time transmitter, 1: to it).
#[inline(always)]
pub const fn histogram_index(port: u32, way: u32, bucket: u32) -> u32 {
    (port & 0xff) << 7 | (way & 1) << 6 | (bucket & 63)
}

/// The bucket of a time: two per doubling.
#[inline(always)]
pub const fn bucket(nanos: u64) -> u32 {
    let mut value = if nanos > 0x3fff_ffff { 0x3fff_ffff } else { nanos as u32 };
    if value < 2 {
        return value;
    }
    let mut log = 0;
    if value >= 1 << 16 {
        value >>= 16;
        log += 16;
    }
    if value >= 1 << 8 {
        value >>= 8;
        log += 8;
    }
    if value >= 1 << 4 {
        value >>= 4;
        log += 4;
    }
    if value >= 1 << 2 {
        value >>= 2;
        log += 2;
    }
    if value >= 2 {
        log += 1;
    }
    // The bit behind the leading one.
    let clipped = if nanos > 0x3fff_ffff { 0x3fff_ffff } else { nanos as u32 };
    log * 2 + ((clipped >> (log - 1)) & 1)
}

/// Where a bucket ends: the first time, nanoseconds, that is no longer in it.
pub const fn bucket_end_ns(bucket: u32) -> u64 {
    if bucket < 2 {
        return bucket as u64 + 1;
    }
    let log = bucket / 2;
    if bucket.is_multiple_of(2) { (1 << log) + (1 << (log - 1)) } else { 1 << (log + 1) }
}

/// Which of [`TYPES`] a `messageType` is and what that means; `None` for all others.
#[inline(always)]
pub const fn kind_of(message_type: u8) -> Option<(u32, Kind)> {
    Some(match message_type {
        SYNC => (0, Kind::Event),
        DELAY_REQ => (1, Kind::Event),
        PDELAY_REQ => (2, Kind::Event),
        PDELAY_RESP => (3, Kind::Event),
        FOLLOW_UP => (4, Kind::General),
        DELAY_RESP => (5, Kind::General),
        PDELAY_RESP_FOLLOW_UP => (6, Kind::General),
        _ => return None,
    })
}

/// The first bytes of a message.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a>(&'a [u8; HEAD]);

impl<'a> Head<'a> {
    /// Looks at the first bytes of a message.
    #[inline(always)]
    pub const fn new(bytes: &'a [u8; HEAD]) -> Self {
        Self(bytes)
    }

    /// [`kind_of`] its type.
    #[inline(always)]
    pub const fn kind(&self) -> Option<(u32, Kind)> {
        kind_of(self.message_type())
    }

    /// `messageType`.
    #[inline(always)]
    pub const fn message_type(&self) -> u8 {
        self.0[0] & 0x0f
    }

    /// Whether `versionPTP` is 2, whatever the minor version.
    #[inline(always)]
    pub const fn is_version_2(&self) -> bool {
        self.0[1] & 0x0f == 2
    }

    /// `messageLength`, bytes.
    #[inline(always)]
    pub const fn length(&self) -> u16 {
        u16::from_be_bytes([self.0[2], self.0[3]])
    }

    /// The shortest that such a message may be, bytes; TLVs begin behind it.
    #[inline(always)]
    pub const fn fixed_length(&self) -> u16 {
        match self.message_type() {
            SYNC | DELAY_REQ | FOLLOW_UP => 44,
            _ => 54,
        }
    }

    /// `twoStepFlag`.
    #[inline(always)]
    pub const fn is_two_step(&self) -> bool {
        self.0[6] & TWO_STEP != 0
    }

    /// `correctionField`, in 2^-16 ns.
    #[inline(always)]
    pub const fn correction(&self) -> i64 {
        i64::from_be_bytes([
            self.0[8], self.0[9], self.0[10], self.0[11], self.0[12], self.0[13], self.0[14],
            self.0[15],
        ])
    }

    /// `sourcePortIdentity` as it is in the message.
    #[inline(always)]
    pub const fn source(&self) -> [u8; PORT_IDENTITY] {
        let b = self.0;
        [b[20], b[21], b[22], b[23], b[24], b[25], b[26], b[27], b[28], b[29]]
    }

    /// What names an event message of type `event` (a `messageType`) that this message is or belongs to,
    /// sent by `port`: type, domain, sdoId, sender and `sequenceId`, and the ports by which it came and
    /// went (0 where that does not matter).
    #[inline(always)]
    pub const fn key(&self, event: u8, port: &[u8; PORT_IDENTITY], came: u32, went: u32) -> Key {
        let clock = u64::from_be_bytes([
            port[0], port[1], port[2], port[3], port[4], port[5], port[6], port[7],
        ]);
        let number = u16::from_be_bytes([port[8], port[9]]) as u64;
        let sequence = u16::from_be_bytes([self.0[30], self.0[31]]) as u64;
        let domain = self.0[4] as u64;
        let sdo_and_type = (self.0[0] & 0xf0 | event) as u64;
        let ports = ((came & 0xff) << 8 | went & 0xff) as u64;
        [clock, number << 48 | sequence << 32 | domain << 24 | sdo_and_type << 16 | ports]
    }
}

/// Names an event message; see [`Head::key`].
pub type Key = [u64; 2];

/// `messageType` of Sync.
pub const SYNC: u8 = MessageType::Sync as u8;
/// `messageType` of Delay_Req.
pub const DELAY_REQ: u8 = MessageType::DelayReq as u8;
/// `messageType` of Pdelay_Req.
pub const PDELAY_REQ: u8 = MessageType::PdelayReq as u8;
/// `messageType` of Pdelay_Resp.
pub const PDELAY_RESP: u8 = MessageType::PdelayResp as u8;
/// `messageType` of Follow_Up.
pub const FOLLOW_UP: u8 = MessageType::FollowUp as u8;
/// `messageType` of Delay_Resp.
pub const DELAY_RESP: u8 = MessageType::DelayResp as u8;
/// `messageType` of Pdelay_Resp_Follow_Up.
pub const PDELAY_RESP_FOLLOW_UP: u8 = MessageType::PdelayRespFollowUp as u8;

/// Whether a `tlvType` says that the message must not be changed.
#[inline(always)]
pub const fn is_authentication(tlv_type: u16) -> bool {
    tlv_type == AUTHENTICATION || tlv_type == AUTHENTICATION_2008
}

/// A residence time as a correction, in 2^-16 ns. `rate` is by how much the time transmitter's clock is
/// faster than this host's monotonic one, in 2^-40. `None` for what is no residence time, or no rate.
#[inline(always)]
pub const fn scaled(residence_ns: u64, rate: i64) -> Option<i64> {
    if residence_ns > MAX_RESIDENCE_NS || rate > MAX_RATE || rate < -MAX_RATE {
        return None;
    }
    let residence = residence_ns as i64;
    // Below 2^32 times 2^30.
    Some((residence << 16) + ((residence * rate) >> (RATE_BITS - 16)))
}

/// `correctionField` with a correction added to it. `None` where the field says that it is too large
/// already (13.3.2.9), or has no room for more.
#[inline(always)]
pub const fn added(field: i64, correction: i64) -> Option<i64> {
    if field == i64::MAX {
        return None;
    }
    match field.checked_add(correction) {
        Some(i64::MAX) | None => None,
        sum => sum,
    }
}

/// A UDP checksum after eight bytes at an even place of the datagram have become others (RFC 1624). What
/// was 0, "none", stays so.
pub fn checksum(before: u16, old: [u8; 8], new: [u8; 8]) -> u16 {
    if before == 0 {
        return 0;
    }
    let words = |bytes: [u8; 8]| {
        [0, 2, 4, 6].map(|at| u32::from(u16::from_be_bytes([bytes[at], bytes[at + 1]])))
    };
    let mut sum = u32::from(!before);
    for word in words(old) {
        sum += 0xffff - word;
    }
    for word in words(new) {
        sum += word;
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    match !(sum as u16) {
        // 0 would say that there is none.
        0 => 0xffff,
        checksum => checksum,
    }
}

/// Numbers that the agent gives to the programs: places in the only entry of map `CONFIG`.
pub mod config {
    /// CLOCK_MONOTONIC until which messages are timed, ns.
    pub const TIME_UNTIL: usize = 0;
    /// Until which they are corrected, ns.
    pub const ALTER_UNTIL: usize = 1;
    /// Until which they are held back, ns.
    pub const HOLD_UNTIL: usize = 2;
    /// Rate as [`super::scaled`] takes it.
    pub const RATE: usize = 3;
    /// CLOCK_TAI minus CLOCK_REALTIME, ns.
    pub const TAI_OFFSET: usize = 4;
    /// CLOCK_REALTIME minus CLOCK_MONOTONIC, ns, where the kernel cannot tell TAI.
    pub const REAL_MINUS_MONO: usize = 5;
    /// Event messages that a port is allowed per second.
    pub const EVENTS_PER_SECOND: usize = 6;
    /// 1: peer to peer.
    pub const IS_P2P: usize = 7;
    /// 1: withhold a general message whose event left nobody knows when.
    pub const WITHHOLDS: usize = 8;
    /// 1: relay what comes to [`super::LINK_LOCAL`].
    pub const RELAYS: usize = 9;
    /// How many numbers.
    pub const LENGTH: usize = 10;
}

/// What a port of map `PORTS` is: its number, and this where no queue is in front of its driver.
pub const NO_QUEUE: u32 = 1 << 8;

/// A message that was taken out: what is in front of its frame in the ring.
pub mod held {
    /// Bytes of a frame that can be held.
    pub const FRAME: usize = 512;
    /// Numbers in front of it: the events' keys (the second may be 0), then the rest.
    pub const WORDS: usize = 8;
    /// Key of the event.
    pub const KEY: usize = 0;
    /// Key of a second event, whose residence is known.
    pub const SECOND: usize = 2;
    /// Interface by which the message was to leave.
    pub const IFINDEX: usize = 4;
    /// Length of the frame, bytes, and where the message begins in it in the upper half.
    pub const LENGTH: usize = 5;
    /// The VLAN tag that is not in the frame: EtherType above tag control information; 0 for none.
    pub const VLAN: usize = 6;
    /// Place of the message's count: [`super::count_index`] without an outcome.
    pub const COUNT: usize = 7;
    /// Of the whole record.
    pub const BYTES: usize = WORDS * 8 + FRAME;
}

/// The departure of an event message that was dropped; 0 stands for one that has not left yet.
pub const LOST: u64 = 1;
/// The departure of an event message that left nobody knows when.
pub const UNCERTAIN: u64 = 2;

/// What may be withheld of the general messages of a port: what is corrected earns it, so that a host on which
/// nothing can be timed lets everything through.
pub mod credit {
    /// What a message costs that is withheld; one that is corrected earns 1. So one in seventeen may be.
    pub const PRICE: u64 = 16;
    /// What can be saved.
    pub const MOST: u64 = 8 * PRICE;
}
