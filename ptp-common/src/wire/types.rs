//! The primitive and derived data types of IEEE 1588-2019 clause 5.3 and the enumerations of 7.6.

use super::WireError;
use crate::time::{Duration, Ptp, Time};
use core::fmt;

/// An 8-byte EUI-64 or other unique identity of a clock (7.5.2.2).
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClockIdentity(pub [u8; 8]);

impl ClockIdentity {
    /// The identity made from a MAC address by inserting FF-FE, as clocks have done since
    /// version 2.0 of the standard (7.5.2.2.2.2 of IEEE 1588-2008).
    pub const fn from_mac(mac: [u8; 6]) -> Self {
        Self([mac[0], mac[1], mac[2], 0xff, 0xfe, mac[3], mac[4], mac[5]])
    }
}

impl fmt::Display for ClockIdentity {
    /// linuxptp's notation: `aabbcc.fffe.ddeeff`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g, h, i] = self.0;
        write!(f, "{a:02x}{b:02x}{c:02x}.{d:02x}{e:02x}.{g:02x}{h:02x}{i:02x}")
    }
}
impl fmt::Debug for ClockIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A port of a clock (7.5.2.3).
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortIdentity {
    /// The clock.
    pub clock_identity: ClockIdentity,
    /// The port's number, from 1; 0xffff addresses all ports.
    pub port_number: u16,
}

impl PortIdentity {
    /// Addresses every port of every clock (13.12.1).
    pub const ALL: Self = Self { clock_identity: ClockIdentity([0xff; 8]), port_number: 0xffff };
    /// Length on the wire, bytes.
    pub const LENGTH: usize = 10;

    pub(super) fn read(bytes: &[u8], at: usize) -> Self {
        let mut clock = [0; 8];
        clock.copy_from_slice(&bytes[at..at + 8]);
        Self {
            clock_identity: ClockIdentity(clock),
            port_number: u16::from_be_bytes([bytes[at + 8], bytes[at + 9]]),
        }
    }

    pub(super) fn write(self, bytes: &mut [u8], at: usize) {
        bytes[at..at + 8].copy_from_slice(&self.clock_identity.0);
        bytes[at + 8..at + 10].copy_from_slice(&self.port_number.to_be_bytes());
    }
}

impl fmt::Display for PortIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.clock_identity, self.port_number)
    }
}
impl fmt::Debug for PortIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A correction in scaled nanoseconds, 2^-16 ns (5.3.2). `i64::MAX` means "too large to represent".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimeInterval(pub i64);

impl From<TimeInterval> for Duration {
    fn from(interval: TimeInterval) -> Self {
        Self::from_scaled_nanos(i128::from(interval.0))
    }
}

impl From<Duration> for TimeInterval {
    /// Saturates.
    fn from(duration: Duration) -> Self {
        let scaled = duration.as_scaled_nanos();
        Self(i64::try_from(scaled).unwrap_or(if scaled < 0 { i64::MIN } else { i64::MAX }))
    }
}

/// A timestamp of the wire: 48 bits of seconds, nanoseconds below 10^9 (5.3.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    seconds: u64,
    nanoseconds: u32,
}

impl Timestamp {
    /// The epoch; what a two-step Sync may carry.
    pub const ZERO: Self = Self { seconds: 0, nanoseconds: 0 };
    /// Length on the wire, bytes.
    pub const LENGTH: usize = 10;
    const MAX_SECONDS: u64 = (1 << 48) - 1;

    /// `None` where `seconds` needs more than 48 bits or `nanoseconds` is not below 10^9.
    pub const fn new(seconds: u64, nanoseconds: u32) -> Option<Self> {
        if seconds > Self::MAX_SECONDS || nanoseconds >= 1_000_000_000 {
            return None;
        }
        Some(Self { seconds, nanoseconds })
    }

    /// Whole seconds since the epoch.
    pub const fn seconds(self) -> u64 {
        self.seconds
    }

    /// Nanoseconds of the second.
    pub const fn nanoseconds(self) -> u32 {
        self.nanoseconds
    }

    /// Splits a time into what a timestamp can carry (clamped to its range, rounded down to whole
    /// nanoseconds) and the rest below a nanosecond, which belongs into the correction field.
    pub fn from_time(time: Time<Ptp>) -> (Self, TimeInterval) {
        let scaled = time.since_epoch().as_scaled_nanos();
        let limit = ((Self::MAX_SECONDS as i128 + 1) * 1_000_000_000) << 16;
        let scaled = scaled.clamp(0, limit - 1);
        let nanos = scaled >> 16;
        let timestamp = Self {
            seconds: (nanos / 1_000_000_000) as u64,
            nanoseconds: (nanos % 1_000_000_000) as u32,
        };
        (timestamp, TimeInterval((scaled & 0xffff) as i64))
    }

    pub(super) fn read(bytes: &[u8], at: usize) -> Result<Self, WireError> {
        let mut seconds = [0; 8];
        seconds[2..].copy_from_slice(&bytes[at..at + 6]);
        let mut nanoseconds = [0; 4];
        nanoseconds.copy_from_slice(&bytes[at + 6..at + 10]);
        let nanoseconds = u32::from_be_bytes(nanoseconds);
        Self::new(u64::from_be_bytes(seconds), nanoseconds)
            .ok_or(WireError::Nanoseconds(nanoseconds))
    }

    pub(super) fn write(self, bytes: &mut [u8], at: usize) {
        bytes[at..at + 6].copy_from_slice(&self.seconds.to_be_bytes()[2..]);
        bytes[at + 6..at + 10].copy_from_slice(&self.nanoseconds.to_be_bytes());
    }
}

impl From<Timestamp> for Time<Ptp> {
    fn from(timestamp: Timestamp) -> Self {
        Self::from_seconds_nanos(timestamp.seconds, timestamp.nanoseconds)
    }
}

/// How good a clock claims to be (7.6.2.5 and following).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClockQuality {
    /// `clockClass`, table 4; 6 is locked to a primary reference, 248 the default, 255 client only.
    pub clock_class: u8,
    /// `clockAccuracy`, table 5.
    pub clock_accuracy: ClockAccuracy,
    /// `offsetScaledLogVariance`, 7.6.3.
    pub offset_scaled_log_variance: u16,
}

/// `clockAccuracy` as it is on the wire (table 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClockAccuracy(pub u8);

impl ClockAccuracy {
    /// The clock does not know.
    pub const UNKNOWN: Self = Self(0xfe);

    /// The bound that the code stands for, picoseconds: the upper edge of its row; `None` where it gives
    /// none, be it more than 10 s, unknown, reserved or of a profile.
    pub const fn bound_ps(self) -> Option<u64> {
        Some(match self.0 {
            0x17 => 1,
            // Half a picosecond has to go up.
            0x18 => 3,
            0x19 => 10,
            0x1a => 25,
            0x1b => 100,
            0x1c => 250,
            0x1d => 1_000,
            0x1e => 2_500,
            0x1f => 10_000,
            0x20 => 25_000,
            0x21 => 100_000,
            0x22 => 250_000,
            0x23 => 1_000_000,
            0x24 => 2_500_000,
            0x25 => 10_000_000,
            0x26 => 25_000_000,
            0x27 => 100_000_000,
            0x28 => 250_000_000,
            0x29 => 1_000_000_000,
            0x2a => 2_500_000_000,
            0x2b => 10_000_000_000,
            0x2c => 25_000_000_000,
            0x2d => 100_000_000_000,
            0x2e => 250_000_000_000,
            0x2f => 1_000_000_000_000,
            0x30 => 10_000_000_000_000,
            _ => return None,
        })
    }

    /// The same in nanoseconds, rounded up.
    pub const fn bound_ns(self) -> Option<u64> {
        match self.bound_ps() {
            Some(ps) => Some(ps.div_ceil(1_000)),
            None => None,
        }
    }

    /// The same as a span, rounded up to 2^-16 ns.
    pub fn bound(self) -> Option<Duration> {
        let scaled = (u128::from(self.bound_ps()?) << 16).div_ceil(1_000);
        i128::try_from(scaled).ok().map(Duration::from_scaled_nanos)
    }
}

impl fmt::Display for ClockAccuracy {
    /// The row of the table: `25 ns`, `more than 10 s`, `unknown`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, row) = match self.0 {
            // Six rows of each unit.
            code @ 0x17..=0x1c => ("ps", code - 0x17),
            code @ 0x1d..=0x22 => ("ns", code - 0x1d),
            code @ 0x23..=0x28 => ("\u{b5}s", code - 0x23),
            code @ 0x29..=0x2e => ("ms", code - 0x29),
            0x2f => ("s", 0),
            0x30 => ("s", 2),
            0x31 => return f.write_str("more than 10 s"),
            0xfe => return f.write_str("unknown"),
            code => return write!(f, "reserved ({code:#04x})"),
        };
        let value = ["1", "2.5", "10", "25", "100", "250"][usize::from(row)];
        write!(f, "{value} {unit}")
    }
}

/// `timeSource` as it is on the wire (table 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TimeSource(pub u8);

impl TimeSource {
    /// An atomic clock.
    pub const ATOMIC_CLOCK: Self = Self(0x10);
    /// A satellite navigation system.
    pub const GNSS: Self = Self(0x20);
    /// A radio time signal.
    pub const TERRESTRIAL_RADIO: Self = Self(0x30);
    /// A serial time code such as IRIG-B.
    pub const SERIAL_TIME_CODE: Self = Self(0x39);
    /// Another PTP domain.
    pub const PTP: Self = Self(0x40);
    /// NTP.
    pub const NTP: Self = Self(0x50);
    /// Set by hand.
    pub const HAND_SET: Self = Self(0x60);
    /// Something else.
    pub const OTHER: Self = Self(0x90);
    /// A free-running oscillator.
    pub const INTERNAL_OSCILLATOR: Self = Self(0xa0);
}
