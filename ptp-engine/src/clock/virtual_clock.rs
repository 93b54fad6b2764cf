//! A software clock over CLOCK_MONOTONIC: piecewise linear, steered by nobody but its owner, and
//! exact. Rates are integers and the fraction that does not fit into a time is carried along, so
//! that no number of adjustments adds up to an error.

use super::{Clock, ClockError};
#[cfg(target_os = "none")]
use crate::math::Float as _;
use alloc::collections::VecDeque;
use ptp_common::time::{Duration, Mono, Ptp, Time};

/// Adjustments that [`Clock::at`] can look back over. At 128 adjustments per second half a second,
/// which no stamp takes to arrive.
const SEGMENTS: usize = 64;
/// Fraction bits of a rate, and of the carried position: 2^-48 is 3.6e-15. A span of 100 years
/// (2^78 scaled ns) times the largest rate (2^47) still fits into an `i128`.
const FRACTION_BITS: u32 = 48;
const ONE: i128 = 1 << FRACTION_BITS;
/// Largest rate adjustment that the arithmetic is laid out for, parts per billion.
const RATE_LIMIT_PPB: f64 = 0.49e9;

/// From `start` on the clock shows `base`, plus what has passed since times the rate.
#[derive(Clone, Copy, Debug)]
struct Segment {
    start: Time<Mono>,
    base: Time<Ptp>,
    /// What `base` leaves out, in units of 2^-48 scaled ns, below 2^48.
    carry: i128,
    /// Rate minus one, in units of 2^-48.
    rate: i64,
}

impl Segment {
    fn at(&self, mono: Time<Mono>) -> (Time<Ptp>, i128) {
        let passed = mono - self.start;
        let gained = passed
            .as_scaled_nanos()
            .saturating_mul(i128::from(self.rate))
            .saturating_add(self.carry);
        let whole = Duration::from_scaled_nanos(gained >> FRACTION_BITS);
        (self.base + passed + whole, gained & (ONE - 1))
    }
}

/// The clock. Cloning it copies the whole course, for readers elsewhere.
#[derive(Clone, Debug)]
pub struct VirtualClock {
    /// Never empty, ascending by start.
    segments: VecDeque<Segment>,
    max_frequency_ppb: f64,
}

impl VirtualClock {
    /// A clock that reads `time` at `now` and runs at the rate of the monotonic clock.
    /// `max_frequency_ppb` limits every later adjustment.
    pub fn new(now: Time<Mono>, time: Time<Ptp>, max_frequency_ppb: f64) -> Self {
        let segment = Segment { start: now, base: time, carry: 0, rate: 0 };
        Self {
            segments: VecDeque::from([segment]),
            max_frequency_ppb: max_frequency_ppb.abs().min(RATE_LIMIT_PPB),
        }
    }

    /// The monotonic instant at which the clock, as it runs now, shows `time`; to within 2^-16 ns.
    pub fn when(&self, time: Time<Ptp>) -> Time<Mono> {
        let last = self.last();
        let wanted = time - last.base;
        let scaled = wanted.as_scaled_nanos().saturating_mul(ONE) - last.carry;
        let passed = scaled / (ONE + i128::from(last.rate));
        last.start + Duration::from_scaled_nanos(passed)
    }

    /// How much faster than the monotonic clock it runs, in units of 2^-48.
    pub fn rate(&self) -> i64 {
        self.last().rate
    }

    fn last(&self) -> &Segment {
        &self.segments[self.segments.len() - 1]
    }

    /// Begins a new segment where the last one is at `now`, or at its start if `now` is before it.
    fn extend(&mut self, now: Time<Mono>, by: Duration, rate: Option<i64>) {
        let last = *self.last();
        let start = now.max(last.start);
        let (base, carry) = last.at(start);
        let segment = Segment { start, base: base + by, carry, rate: rate.unwrap_or(last.rate) };
        if start == last.start {
            self.segments.pop_back();
        } else if self.segments.len() >= SEGMENTS {
            self.segments.pop_front();
        }
        self.segments.push_back(segment);
    }
}

impl Clock for VirtualClock {
    fn name(&self) -> &str {
        "virtual"
    }

    /// Exact over the last 64 adjustments; before that the oldest rate is assumed.
    fn at(&self, mono: Time<Mono>) -> Time<Ptp> {
        let segment = self.segments.iter().rev().find(|segment| segment.start <= mono);
        segment.unwrap_or(&self.segments[0]).at(mono).0
    }

    fn frequency_ppb(&self) -> f64 {
        self.last().rate as f64 * 1e9 / ONE as f64
    }

    fn max_frequency_ppb(&self) -> f64 {
        self.max_frequency_ppb
    }

    fn set_frequency(&mut self, now: Time<Mono>, ppb: f64) -> Result<f64, ClockError> {
        let ppb = if ppb.is_finite() { ppb } else { self.frequency_ppb() };
        let ppb = ppb.clamp(-self.max_frequency_ppb, self.max_frequency_ppb);
        let rate = (ppb * 1e-9 * ONE as f64).round() as i64;
        self.extend(now, Duration::ZERO, Some(rate));
        Ok(self.frequency_ppb())
    }

    fn step(&mut self, now: Time<Mono>, by: Duration) -> Result<(), ClockError> {
        self.extend(now, by, None);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prelude::*;

    fn mono(nanos: i64) -> Time<Mono> {
        Time::from_nanos(nanos)
    }

    #[test]
    fn a_day_of_adjustments_at_16_per_second_loses_not_one_scaled_nanosecond() {
        let mut clock = VirtualClock::new(mono(0), Time::from_nanos(0), 900_000.0);
        // The exact position, kept in 2^-48 scaled ns beside the clock.
        let mut exact: i128 = 0;
        let interval = 62_500_000_i64;
        for n in 0..86_400 * 16_i64 {
            let ppb = ((n * 7_919) % 200_001 - 100_000) as f64 + 0.123;
            clock.set_frequency(mono(n * interval), ppb).unwrap();
            let rate = (ppb * 1e-9 * ONE as f64).round() as i128;
            exact += (i128::from(interval) << 16) * (ONE + rate);
        }
        let end = clock.at(mono(86_400 * 16 * interval)).since_epoch().as_scaled_nanos();
        assert_eq!(end, exact >> FRACTION_BITS);
    }

    #[test]
    fn stamps_older_than_the_last_adjustments_read_as_the_clock_was() {
        let mut clock = VirtualClock::new(mono(0), Time::from_nanos(0), 1e6);
        let before: Vec<_> = (0..60).map(|n| clock_after(&mut clock, n)).collect();
        for (n, time) in before.into_iter().enumerate() {
            assert_eq!(clock.at(mono(n as i64 * 1_000 + 500)), time);
        }
    }

    fn clock_after(clock: &mut VirtualClock, n: i64) -> Time<Ptp> {
        clock.set_frequency(mono(n * 1_000), n as f64 * 1_000.0).unwrap();
        if n % 7 == 0 {
            clock.step(mono(n * 1_000), Duration::from_nanos(n)).unwrap();
        }
        clock.at(mono(n * 1_000 + 500))
    }

    #[test]
    fn the_number_of_segments_is_bounded() {
        let mut clock = VirtualClock::new(mono(0), Time::ZERO, 1e6);
        for n in 0..10_000 {
            clock.set_frequency(mono(n), 1.0).unwrap();
        }
        assert_eq!(clock.segments.len(), SEGMENTS);
    }

    #[test]
    fn frequency_is_clamped_and_nonsense_changes_nothing() {
        let mut clock = VirtualClock::new(mono(0), Time::ZERO, 900_000.0);
        assert!((clock.set_frequency(mono(1), 5e6).unwrap() - 900_000.0).abs() < 1e-5);
        assert!((clock.set_frequency(mono(2), f64::NAN).unwrap() - 900_000.0).abs() < 1e-5);
        assert!((clock.set_frequency(mono(3), -f64::INFINITY).unwrap() - 900_000.0).abs() < 1e-5);
    }

    #[test]
    fn when_is_the_inverse_of_at() {
        let mut clock = VirtualClock::new(mono(5), Time::from_nanos(1_000_000_000_000), 1e6);
        clock.set_frequency(mono(77), -37_123.4).unwrap();
        for at in [100, 1_000_003, 86_400_000_000_001] {
            let back = clock.when(clock.at(mono(at)));
            assert!((back - mono(at)).as_scaled_nanos().abs() <= 2);
        }
    }

    #[test]
    fn a_century_does_not_overflow() {
        let mut clock = VirtualClock::new(mono(0), Time::ZERO, 4e8);
        clock.set_frequency(mono(0), 4e8).unwrap();
        let century = mono(3_155_760_000 * 1_000_000_000);
        let shown = clock.at(century).since_epoch().as_secs_f64();
        assert!((shown / (3_155_760_000.0 * 1.4) - 1.0).abs() < 1e-9);
    }
}
