//! Time with its scale in the type, so that a TAI stamp cannot be subtracted from a monotonic one,
//! and durations that saturate instead of wrapping.
//!
//! Everything counts *scaled nanoseconds*, 2^-16 ns, the unit of the wire's correction field
//! (IEEE 1588-2019 5.3.2), in an `i128`: no conversion ever loses a bit, and the whole 48-bit second
//! range of a PTP timestamp fits.
//!
//! ```
//! use ptp_common::time::{Duration, Mono, Time};
//! let a = Time::<Mono>::from_nanos(1_000);
//! let b = a + Duration::from_nanos(500);
//! assert_eq!((b - a).as_nanos(), 500);
//! ```
//!
//! ```compile_fail
//! use ptp_common::time::{Mono, Ptp, Time};
//! let a = Time::<Mono>::from_nanos(1_000);
//! let b = Time::<Ptp>::from_nanos(1_000);
//! let _ = b - a; // two time scales: does not compile
//! ```

use core::{cmp::Ordering, fmt, hash, marker::PhantomData, ops};

/// Scaled nanoseconds in a nanosecond (IEEE 1588-2019 5.3.2).
const SCALE: i128 = 1 << 16;
/// Nanoseconds in a second.
pub const NANOS_PER_SEC: i64 = 1_000_000_000;

mod sealed {
    pub trait Sealed {}
}

/// A time scale. Implemented by [`Mono`], [`Free`], [`Real`] and [`Ptp`] only.
pub trait Scale: sealed::Sealed {
    /// Short name for messages.
    const NAME: &'static str;
}

macro_rules! scale {
    ($(#[$doc:meta])* $name:ident, $text:literal) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub enum $name {}
        impl sealed::Sealed for $name {}
        impl Scale for $name {
            const NAME: &'static str = $text;
        }
    };
}

scale!(
    /// The host's CLOCK_MONOTONIC, which is what `bpf_ktime_get_ns` reads. Since boot.
    Mono,
    "monotonic"
);
scale!(
    /// The host's monotonic time as it would be had nobody steered it: what servos measure by. Where the
    /// monotonic clock is not the one that is steered, it is the same.
    Free,
    "free-running"
);
scale!(
    /// The host's CLOCK_REALTIME: in effect UTC, since 1970.
    Real,
    "realtime"
);
scale!(
    /// The time scale of the PTP domain: TAI where the grandmaster sets `ptpTimescale`, else
    /// arbitrary (IEEE 1588-2019 7.2.1).
    Ptp,
    "ptp"
);

/// An instant on time scale `S`, in scaled nanoseconds (2^-16 ns) since the scale's epoch.
pub struct Time<S> {
    scaled: i128,
    scale: PhantomData<fn() -> S>,
}

impl<S> Time<S> {
    /// The epoch of the scale.
    pub const ZERO: Self = Self::from_scaled(0);

    const fn from_scaled(scaled: i128) -> Self {
        Self { scaled, scale: PhantomData }
    }

    /// `nanos` nanoseconds after the epoch.
    pub const fn from_nanos(nanos: i64) -> Self {
        Self::from_scaled(nanos as i128 * SCALE)
    }

    /// `seconds` and `nanos` after the epoch.
    pub const fn from_seconds_nanos(seconds: u64, nanos: u32) -> Self {
        Self::from_scaled((seconds as i128 * NANOS_PER_SEC as i128 + nanos as i128) * SCALE)
    }

    /// Nanoseconds since the epoch, rounded down, saturating (an `i64` reaches the year 2262).
    pub fn as_nanos(self) -> i64 {
        saturate(self.scaled.div_euclid(SCALE))
    }

    /// Time since the epoch.
    pub const fn since_epoch(self) -> Duration {
        Duration { scaled: self.scaled }
    }

    /// The same instant on a scale that is `offset` ahead of this one. With [`Self::ahead_of`] the only way
    /// from one scale to another: whoever changes the scale says by how much.
    pub const fn at_offset<T>(self, offset: Duration) -> Time<T> {
        Time::from_scaled(self.scaled.saturating_add(offset.scaled))
    }

    /// How far this scale is ahead of another that showed `other` at the same instant.
    pub const fn ahead_of<T>(self, other: Time<T>) -> Duration {
        Duration { scaled: self.scaled.saturating_sub(other.scaled) }
    }

    /// The instant `since_epoch` after the epoch.
    pub const fn from_epoch(since_epoch: Duration) -> Self {
        Self::from_scaled(since_epoch.scaled)
    }
}

impl<S> Clone for Time<S> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<S> Copy for Time<S> {}
impl<S> PartialEq for Time<S> {
    fn eq(&self, other: &Self) -> bool {
        self.scaled == other.scaled
    }
}
impl<S> Eq for Time<S> {}
impl<S> PartialOrd for Time<S> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl<S> Ord for Time<S> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.scaled.cmp(&other.scaled)
    }
}
impl<S> hash::Hash for Time<S> {
    fn hash<H: hash::Hasher>(&self, state: &mut H) {
        self.scaled.hash(state);
    }
}
impl<S: Scale> fmt::Debug for Time<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{:?}", S::NAME, self.since_epoch())
    }
}

impl<S> ops::Sub for Time<S> {
    type Output = Duration;
    fn sub(self, other: Self) -> Duration {
        Duration { scaled: self.scaled.saturating_sub(other.scaled) }
    }
}
impl<S> ops::Add<Duration> for Time<S> {
    type Output = Self;
    fn add(self, by: Duration) -> Self {
        Self::from_scaled(self.scaled.saturating_add(by.scaled))
    }
}
impl<S> ops::Sub<Duration> for Time<S> {
    type Output = Self;
    fn sub(self, by: Duration) -> Self {
        Self::from_scaled(self.scaled.saturating_sub(by.scaled))
    }
}
impl<S> ops::AddAssign<Duration> for Time<S> {
    fn add_assign(&mut self, by: Duration) {
        *self = *self + by;
    }
}

/// A signed span of time in scaled nanoseconds (2^-16 ns). Arithmetic saturates.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Duration {
    scaled: i128,
}

impl Duration {
    /// No time at all.
    pub const ZERO: Self = Self { scaled: 0 };

    /// From scaled nanoseconds (2^-16 ns), the unit of a correction field.
    pub const fn from_scaled_nanos(scaled: i128) -> Self {
        Self { scaled }
    }

    /// From nanoseconds.
    pub const fn from_nanos(nanos: i64) -> Self {
        Self { scaled: nanos as i128 * SCALE }
    }

    /// From microseconds.
    pub const fn from_micros(micros: i64) -> Self {
        Self { scaled: micros as i128 * 1_000 * SCALE }
    }

    /// From milliseconds.
    pub const fn from_millis(millis: i64) -> Self {
        Self { scaled: millis as i128 * 1_000_000 * SCALE }
    }

    /// From seconds.
    pub const fn from_secs(seconds: i64) -> Self {
        Self { scaled: seconds as i128 * NANOS_PER_SEC as i128 * SCALE }
    }

    /// From a fractional count of nanoseconds, rounded to the nearest 2^-16 ns; NaN gives zero,
    /// infinities saturate. For what estimators return.
    pub fn from_nanos_f64(nanos: f64) -> Self {
        let scaled = nanos * SCALE as f64;
        let half = if scaled < 0.0 { -0.5 } else { 0.5 };
        Self { scaled: (scaled + half) as i128 }
    }

    /// The mean interval of a logarithmic message rate: 2^`log_interval` s, for -16..=22; outside
    /// this range the nearest end of it.
    pub const fn from_log_interval(log_interval: i8) -> Self {
        let second = NANOS_PER_SEC as i128 * SCALE;
        let log = if log_interval < -16 {
            -16
        } else if log_interval > 22 {
            22
        } else {
            log_interval
        };
        if log < 0 {
            Self { scaled: second >> (-log) as u32 }
        } else {
            Self { scaled: second << log as u32 }
        }
    }

    /// In scaled nanoseconds (2^-16 ns).
    pub const fn as_scaled_nanos(self) -> i128 {
        self.scaled
    }

    /// In nanoseconds, rounded to the nearest (halves upwards), saturating at the ends of `i64`.
    pub fn as_nanos(self) -> i64 {
        saturate(self.scaled.saturating_add(SCALE / 2).div_euclid(SCALE))
    }

    /// In nanoseconds, as a floating-point number; for estimators only.
    pub fn as_nanos_f64(self) -> f64 {
        // Up to 39 hours either way; the processor cannot convert more in one instruction.
        let scaled = match i64::try_from(self.scaled) {
            Ok(scaled) => scaled as f64,
            Err(_) => wide_as_f64(self.scaled),
        };
        scaled / SCALE as f64
    }

    /// In seconds, as a floating-point number; for estimators and metrics only.
    pub fn as_secs_f64(self) -> f64 {
        self.as_nanos_f64() / NANOS_PER_SEC as f64
    }

    /// The absolute value.
    pub const fn abs(self) -> Self {
        Self { scaled: self.scaled.saturating_abs() }
    }

    /// Half of it, rounded towards negative infinity.
    pub const fn half(self) -> Self {
        Self { scaled: self.scaled >> 1 }
    }

    /// Whether it is less than zero.
    pub const fn is_negative(self) -> bool {
        self.scaled < 0
    }
}

/// A function of its own, because the optimiser would otherwise see that it is right for all values and take
/// it for all.
#[cold]
#[inline(never)]
fn wide_as_f64(value: i128) -> f64 {
    value as f64
}

fn saturate(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

impl fmt::Debug for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}ns", self.as_nanos())
    }
}
impl ops::Add for Duration {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self { scaled: self.scaled.saturating_add(other.scaled) }
    }
}
impl ops::Sub for Duration {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self { scaled: self.scaled.saturating_sub(other.scaled) }
    }
}
impl ops::AddAssign for Duration {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}
impl ops::SubAssign for Duration {
    fn sub_assign(&mut self, other: Self) {
        *self = *self - other;
    }
}
impl ops::Neg for Duration {
    type Output = Self;
    fn neg(self) -> Self {
        Self { scaled: self.scaled.saturating_neg() }
    }
}
impl ops::Mul<i32> for Duration {
    type Output = Self;
    fn mul(self, by: i32) -> Self {
        Self { scaled: self.scaled.saturating_mul(by as i128) }
    }
}
