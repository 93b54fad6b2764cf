//! The NTP packet (RFC 5905 section 7.3): its header, its two time formats, and where what follows the header
//! begins and ends (RFC 7822). Written by hand because the crates that have it bring a whole daemon along or
//! promise no stable interface. Authentication is not done here: what follows the header is only found.

pub mod nts;

use core::fmt;

use crate::time::{Duration, NANOS_PER_SEC, Real, Time};

/// UDP port of NTP.
pub const PORT: u16 = 123;
/// Length of the header, bytes: of a packet without extension fields and authentication.
pub const HEADER_LENGTH: usize = 48;
/// 1970-01-01 on the scale of NTP, which begins in 1900, seconds.
const UNIX_EPOCH: i64 = 2_208_988_800;
/// An era of NTP, seconds.
const ERA: i64 = 1 << 32;

/// Why bytes are no NTP packet that this implementation understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NtpError {
    /// Shorter than the header.
    #[error("truncated: {0} bytes, needs {HEADER_LENGTH}")]
    Truncated(usize),
    /// A version other than 3 and 4.
    #[error("unsupported NTP version {0}")]
    Version(u8),
    /// An extension field that is shorter than its own head, no multiple of four, or longer than the packet.
    #[error("malformed extension field at byte {0}")]
    Extension(usize),
}

/// `leap`: what the last minute of the month will be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Leap {
    /// As usual.
    #[default]
    None = 0,
    /// 61 seconds.
    Positive = 1,
    /// 59 seconds.
    Negative = 2,
    /// The clock is not synchronised.
    Unknown = 3,
}

/// `mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// 3: a request.
    Client,
    /// 4: an answer.
    Server,
    /// Any other: symmetric, broadcast, control, private.
    Other(u8),
}

impl Mode {
    const fn number(self) -> u8 {
        match self {
            Self::Client => 3,
            Self::Server => 4,
            Self::Other(mode) => mode & 7,
        }
    }
}

/// 32 bits of seconds since 1900, modulo 2^32, and 32 bits of fraction. Zero means that there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NtpTimestamp(pub u64);

impl NtpTimestamp {
    /// No time.
    pub const NONE: Self = Self(0);

    /// Whether it says anything.
    pub const fn is_some(self) -> bool {
        self.0 != 0
    }

    /// Of an instant of UTC, rounded down to 2^-32 s; the era is lost.
    pub fn of(time: Time<Real>) -> Self {
        let second = i128::from(NANOS_PER_SEC) << 16;
        let scaled = time.since_epoch().as_scaled_nanos();
        let (seconds, rest) = (scaled.div_euclid(second), scaled.rem_euclid(second));
        let seconds = (seconds + i128::from(UNIX_EPOCH)).rem_euclid(i128::from(ERA));
        Self((seconds as u64) << 32 | ((rest << 32) / second) as u64)
    }

    /// The instant of UTC that is nearest to `pivot`: good for 68 years on either side of it, whatever the
    /// era (RFC 5905 section 6).
    pub fn near(self, pivot: Time<Real>) -> Time<Real> {
        let second = i128::from(NANOS_PER_SEC) << 16;
        // Rounded up, so that the way there and back ends where it began.
        let fraction = (i128::from(self.0 as u32) * second + (1 << 32) - 1) >> 32;
        let seconds = i128::from(self.0 >> 32) - i128::from(UNIX_EPOCH);
        let first = seconds * second + fraction;
        let era = i128::from(ERA) * second;
        let away = pivot.since_epoch().as_scaled_nanos() - first;
        let eras = (away + era / 2).div_euclid(era);
        Time::from_epoch(Duration::from_scaled_nanos(first + eras * era))
    }
}

/// 16 bits of seconds and 16 of fraction: `rootdelay` and `rootdisp`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct NtpShort(pub u32);

impl NtpShort {
    /// Of a span, rounded up, so that what it bounds stays bounded; saturating, zero for what is negative.
    pub fn of(span: Duration) -> Self {
        let second = i128::from(NANOS_PER_SEC) << 16;
        let scaled = span.as_scaled_nanos().clamp(0, second << 16);
        let units = ((scaled << 16) + second - 1) / second;
        Self(u32::try_from(units).unwrap_or(u32::MAX))
    }

    /// The span.
    pub fn span(self) -> Duration {
        let second = i128::from(NANOS_PER_SEC) << 16;
        Duration::from_scaled_nanos((i128::from(self.0) * second + (1 << 16) - 1) >> 16)
    }
}

/// `refid`: of stratum 1 four letters that name the source, of stratum 0 those of the kiss code, else the
/// address of the server, or of a longer one four bytes of a digest.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct ReferenceId(pub [u8; 4]);

impl ReferenceId {
    /// A kiss code that asks for a lower rate.
    pub const RATE: Self = Self(*b"RATE");
    /// A kiss code that forbids access.
    pub const DENY: Self = Self(*b"DENY");
    /// Another one.
    pub const RSTR: Self = Self(*b"RSTR");
    /// A server whose time comes from a PTP domain.
    pub const PTP: Self = Self(*b"PTP\0");
}

/// As letters where it consists of such, else in hexadecimal.
impl fmt::Display for ReferenceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let length = self.0.iter().rposition(|&byte| byte != 0).map_or(0, |at| at + 1);
        let text = &self.0[..length];
        match core::str::from_utf8(text) {
            Ok(text) if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic()) => {
                f.write_str(text)
            }
            _ => write!(f, "{:08x}", u32::from_be_bytes(self.0)),
        }
    }
}

impl fmt::Debug for ReferenceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReferenceId({self})")
    }
}

/// The header of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NtpPacket {
    /// `leap`.
    pub leap: Leap,
    /// `version`, 3 or 4.
    pub version: u8,
    /// `mode`.
    pub mode: Mode,
    /// `stratum`: 0 in a kiss, 1 of a server with a clock of its own, 16 of one without time.
    pub stratum: u8,
    /// `poll`: the interval between requests is 2^`poll` s.
    pub poll: i8,
    /// `precision` of the clock: 2^`precision` s.
    pub precision: i8,
    /// `rootdelay`: round trip to the source of the time.
    pub root_delay: NtpShort,
    /// `rootdisp`: error that has gathered from there.
    pub root_dispersion: NtpShort,
    /// `refid`.
    pub reference_id: ReferenceId,
    /// `reftime`: when the clock was last set.
    pub reference: NtpTimestamp,
    /// `org`: of an answer what identifies the request.
    pub origin: NtpTimestamp,
    /// `rec`: of an answer when the request came.
    pub receive: NtpTimestamp,
    /// `xmt`: of an answer when it left.
    pub transmit: NtpTimestamp,
}

impl NtpPacket {
    /// A request in which nothing is told but what has to be: `transmit` is what its answer is known by
    /// (draft-ietf-ntp-data-minimization).
    pub const fn request(transmit: NtpTimestamp, poll: i8) -> Self {
        Self {
            leap: Leap::None,
            version: 4,
            mode: Mode::Client,
            stratum: 0,
            poll,
            precision: 32,
            root_delay: NtpShort(0),
            root_dispersion: NtpShort(0),
            reference_id: ReferenceId([0; 4]),
            reference: NtpTimestamp::NONE,
            origin: NtpTimestamp::NONE,
            receive: NtpTimestamp::NONE,
            transmit,
        }
    }

    /// Reads the header; what follows it comes back as it is.
    ///
    /// # Errors
    /// [`NtpError::Truncated`] and [`NtpError::Version`].
    pub fn parse(bytes: &[u8]) -> Result<(Self, Trailer<'_>), NtpError> {
        let Some((header, rest)) = bytes.split_first_chunk::<HEADER_LENGTH>() else {
            return Err(NtpError::Truncated(bytes.len()));
        };
        let version = header[0] >> 3 & 7;
        if !matches!(version, 3 | 4) {
            return Err(NtpError::Version(version));
        }
        let short = |at: usize| u32::from_be_bytes([0, 1, 2, 3].map(|n| header[at + n]));
        let long = |at: usize| NtpTimestamp(u64::from(short(at)) << 32 | u64::from(short(at + 4)));
        let packet = Self {
            leap: match header[0] >> 6 {
                0 => Leap::None,
                1 => Leap::Positive,
                2 => Leap::Negative,
                _ => Leap::Unknown,
            },
            version,
            mode: match header[0] & 7 {
                3 => Mode::Client,
                4 => Mode::Server,
                other => Mode::Other(other),
            },
            stratum: header[1],
            poll: header[2] as i8,
            precision: header[3] as i8,
            root_delay: NtpShort(short(4)),
            root_dispersion: NtpShort(short(8)),
            reference_id: ReferenceId(short(12).to_be_bytes()),
            reference: long(16),
            origin: long(24),
            receive: long(32),
            transmit: long(40),
        };
        Ok((packet, Trailer { bytes: rest }))
    }

    /// The header's bytes.
    pub fn to_bytes(&self) -> [u8; HEADER_LENGTH] {
        let mut bytes = [0; HEADER_LENGTH];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        let first = (self.leap as u8) << 6 | (self.version & 7) << 3 | self.mode.number();
        put(0, &[first, self.stratum, self.poll as u8, self.precision as u8]);
        put(4, &self.root_delay.0.to_be_bytes());
        put(8, &self.root_dispersion.0.to_be_bytes());
        put(12, &self.reference_id.0);
        put(16, &self.reference.0.to_be_bytes());
        put(24, &self.origin.0.to_be_bytes());
        put(32, &self.receive.0.to_be_bytes());
        put(40, &self.transmit.0.to_be_bytes());
        bytes
    }
}

/// What follows the header: extension fields, then perhaps a key's number and a digest.
#[derive(Clone, Copy, Debug)]
pub struct Trailer<'a> {
    bytes: &'a [u8],
}

/// An extension field (RFC 7822).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extension<'a> {
    /// Its type.
    pub kind: u16,
    /// What is in it, padding included.
    pub value: &'a [u8],
}

impl<'a> Trailer<'a> {
    /// Whether there is nothing.
    pub const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Calls `each` with the extension fields and returns what is left behind them: a digest with the number of its
    /// key (20 or 24 bytes, more with newer ones), four zero bytes (a server's refusal), or nothing.
    ///
    /// # Errors
    /// [`NtpError::Extension`].
    pub fn extensions(&self, mut each: impl FnMut(Extension<'a>)) -> Result<&'a [u8], NtpError> {
        let mut rest = self.bytes;
        // An extension field that is the last one has 28 bytes at least (RFC 7822 section 3): what is
        // shorter is a digest.
        while rest.len() >= 28 {
            let at = HEADER_LENGTH + self.bytes.len() - rest.len();
            let length = usize::from(u16::from_be_bytes([rest[2], rest[3]]));
            if length < 16 || !length.is_multiple_of(4) || length > rest.len() {
                return Err(NtpError::Extension(at));
            }
            let (field, behind) = rest.split_at(length);
            each(Extension { kind: u16::from_be_bytes([rest[0], rest[1]]), value: &field[4..] });
            rest = behind;
        }
        Ok(rest)
    }
}

/// NTP inside of PTP (draft-ietf-ntp-over-ptp): an event message of a domain of its own, so that hardware stamps what it
/// would not stamp on port 123.
pub mod over_ptp {
    use super::HEADER_LENGTH;
    use crate::wire;

    /// `domainNumber`.
    pub const DOMAIN: u8 = 123;
    /// Where the packet of NTP begins: behind a Delay_Req, the head of a TLV, and what says what is in it.
    pub const OFFSET: usize = 56;
    /// `flagField`: unicast, and no other.
    const FLAGS: [u8; 2] = [0x04, 0x00];
    /// ORGANIZATION_EXTENSION, and the type that the draft had before.
    const TLV_TYPES: [[u8; 2]; 2] = [[0x00, 0x03], [0x80, 0x00]];
    /// Of IANA, NTP.
    const ORGANIZATION: [u8; 8] = [0x00, 0x00, 0x5e, 0x00, 0x00, 0x01, 0x00, 0x00];
    /// Delay_Req, and Sync.
    const MESSAGE_TYPES: [u8; 2] = [0x1, 0x0];

    /// The packet of NTP in a message of PTP; `None` where there is none.
    pub fn unwrap(message: &[u8]) -> Option<&[u8]> {
        let header = message.get(..wire::HEADER_LENGTH)?;
        let is_ours = MESSAGE_TYPES.contains(&(header[0] & 0x0f))
            && header[1] & 0x0f == 2
            && header[4] == DOMAIN
            && header[6..8] == FLAGS;
        let tlv = message.get(44..OFFSET)?;
        let is_ntp = TLV_TYPES.iter().any(|kind| tlv[..2] == *kind) && tlv[4..] == ORGANIZATION;
        let length = usize::from(u16::from_be_bytes([tlv[2], tlv[3]])).checked_sub(8)?;
        let packet = message.get(OFFSET..OFFSET + length)?;
        (is_ours && is_ntp && length >= HEADER_LENGTH).then_some(packet)
    }

    /// A message with a packet of [`HEADER_LENGTH`] bytes in it.
    pub fn wrap(packet: &[u8; HEADER_LENGTH]) -> [u8; OFFSET + HEADER_LENGTH] {
        let mut message = [0; OFFSET + HEADER_LENGTH];
        let mut put =
            |at: usize, bytes: &[u8]| message[at..at + bytes.len()].copy_from_slice(bytes);
        let length = (OFFSET + HEADER_LENGTH) as u16;
        put(0, &[MESSAGE_TYPES[0], 2]);
        put(2, &length.to_be_bytes());
        put(4, &[DOMAIN]);
        put(6, &FLAGS);
        // `controlField` of a Delay_Req, and a logMessageInterval that says nothing.
        put(32, &[1, 0x7f]);
        put(44, &TLV_TYPES[0]);
        put(46, &(8 + HEADER_LENGTH as u16).to_be_bytes());
        put(48, &ORGANIZATION);
        put(OFFSET, packet);
        message
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;

    fn at(seconds: i64, nanos: i64) -> Time<Real> {
        Time::from_epoch(Duration::from_secs(seconds) + Duration::from_nanos(nanos))
    }

    #[test]
    fn times_go_there_and_back_within_a_quarter_of_a_nanosecond() {
        for (seconds, nanos) in [(0, 0), (1, 1), (1_795_000_000, 123_456_789), (-1, 999_999_999)] {
            let time = at(seconds, nanos);
            let back = NtpTimestamp::of(time).near(time);
            assert!(
                (back - time).abs() <= Duration::from_scaled_nanos(1 << 14),
                "{time:?} {back:?}"
            );
            assert_eq!(NtpTimestamp::of(back), NtpTimestamp::of(time));
        }
    }

    #[test]
    fn the_era_that_begins_in_2036_is_told_by_the_pivot() {
        // 2036-02-07T06:28:16Z, where the seconds begin anew.
        let turn = ERA - UNIX_EPOCH;
        assert_eq!(NtpTimestamp::of(at(turn, 0)), NtpTimestamp::NONE);
        for offset in [-100_000_000, -1, 1, 100_000_000] {
            let time = at(turn + offset, 0);
            for pivot in [at(turn - 1_000, 0), at(turn + 1_000, 0)] {
                assert_eq!(NtpTimestamp::of(time).near(pivot), time);
            }
        }
    }

    #[test]
    fn a_bound_is_never_rounded_down() {
        for span in [0, 1, 15_258, 15_259, 1_000_000_000].map(Duration::from_nanos) {
            assert!(NtpShort::of(span).span() >= span);
        }
        assert_eq!(NtpShort::of(Duration::from_secs(-1)), NtpShort(0));
        assert_eq!(NtpShort::of(Duration::from_secs(70_000)), NtpShort(u32::MAX));
        assert_eq!(NtpShort(1 << 16).span(), Duration::from_secs(1));
    }

    #[test]
    fn a_packet_goes_there_and_back() {
        let mut packet = NtpPacket::request(NtpTimestamp(0x0123_4567_89ab_cdef), -6);
        packet.leap = Leap::Negative;
        packet.reference_id = ReferenceId::RATE;
        packet.root_delay = NtpShort(77);
        packet.receive = NtpTimestamp(1);
        let bytes = packet.to_bytes();
        let (read, trailer) = NtpPacket::parse(&bytes).unwrap();
        assert_eq!((read, trailer.is_empty()), (packet, true));
        assert_eq!(NtpPacket::parse(&bytes[..47]).unwrap_err(), NtpError::Truncated(47));
    }

    #[test]
    fn extension_fields_and_what_is_behind_them_are_told_apart() {
        let mut bytes = [0_u8; 48 + 28 + 16 + 20];
        bytes[0] = 0x23;
        bytes[48..52].copy_from_slice(&[1, 4, 0, 28]);
        bytes[76..80].copy_from_slice(&[2, 4, 0, 16]);
        let (_, trailer) = NtpPacket::parse(&bytes).unwrap();
        let mut kinds = [0; 2];
        let mut n = 0;
        let rest = trailer.extensions(|field| {
            kinds[n] = field.kind;
            n += 1;
        });
        assert_eq!((kinds, rest.map(<[u8]>::len)), ([0x104, 0x204], Ok(20)));
        bytes[79] = 15;
        let (_, trailer) = NtpPacket::parse(&bytes).unwrap();
        assert_eq!(trailer.extensions(|_| ()), Err(NtpError::Extension(76)));
    }

    #[test]
    fn a_packet_inside_of_ptp_goes_there_and_back_and_nothing_else_is_taken_for_one() {
        let packet = NtpPacket::request(NtpTimestamp(0x0123_4567_89ab_cdef), 4).to_bytes();
        let message = over_ptp::wrap(&packet);
        assert_eq!(over_ptp::unwrap(&message), Some(&packet[..]));
        for at in [0, 1, 4, 6, 44, 47, 48, 53] {
            let mut other = message;
            other[at] ^= 0x0e;
            assert_eq!(over_ptp::unwrap(&other), None, "byte {at}");
        }
        for length in 0..message.len() {
            assert_eq!(over_ptp::unwrap(&message[..length]), None);
        }
    }

    #[test]
    fn codes_are_shown_as_letters_and_addresses_as_numbers() {
        let shown = |id: ReferenceId| std::format!("{id}");
        assert_eq!(shown(ReferenceId::PTP), "PTP");
        assert_eq!(shown(ReferenceId([10, 1, 0, 1])), "0a010001");
        assert_eq!(shown(ReferenceId::default()), "00000000");
    }
}
