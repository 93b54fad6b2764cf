//! How the round trip to the time transmitter changes: its floor over the last minutes. A delay that
//! somebody adds in one direction, or takes off by a false correction, moves the clock, and only the round
//! trip shows it. It is measured without any clock that is steered: the time that passes here between Sync
//! and Delay_Req, on the monotonic clock, is taken off the time that passes there.

use crate::limits;
use crate::prelude::*;
use alloc::collections::VecDeque;
use ptp_common::time::{Duration, Mono, Ptp, Time};

/// A floor is that of so much time,
const BUCKET: Duration = Duration::from_secs(10);
/// and of so many exchanges.
const EXCHANGES: u32 = 4;
/// Floors that are remembered: ten minutes.
const BUCKETS: usize = 60;
/// So many of them are the present, and so many of the past are needed to judge it by.
const PRESENT: usize = 3;
const PAST: usize = 4;
/// From so long ago the rate between the clocks is taken; short enough to follow the temperature.
const RATE_BASE: Duration = Duration::from_secs(16);
/// A change below this is none.
const LEAST: Duration = Duration::from_micros(20);
/// As many times the spread of the floors is none either.
const SPREADS: i32 = 4;
/// A change that was too slow to be told from the floors of the last minutes is told for so long, when it has become as
/// large as one that is told at once.
const TOLD: Duration = Duration::from_secs(600);

/// The round trip as it used to be, and as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoundTripTrend {
    /// Median of the floors of the last minutes.
    pub usual: Duration,
    /// Of the present floors the one that is nearest to that.
    pub present: Duration,
    /// Whether the difference is more than noise.
    pub has_changed: bool,
}

/// See the module's paragraph.
#[derive(Debug, Default)]
pub(crate) struct RoundTrip {
    sync: Option<(Time<Ptp>, Time<Mono>)>,
    anchor: Option<(Time<Ptp>, Time<Mono>)>,
    /// How much faster the time transmitter's clock runs than the monotonic one.
    rate: f64,
    /// The floors, the latest last.
    floors: VecDeque<Duration>,
    since: Option<Time<Mono>>,
    floor: Duration,
    exchanges: u32,
    /// What was usual when it was last looked at for slow changes, and since when it is another now.
    before: Option<Duration>,
    drifted: Option<Time<Mono>>,
}

impl RoundTrip {
    /// A Sync that left at `t1` arrived at `t2`.
    pub(crate) fn sync(&mut self, t1: Time<Ptp>, t2: Time<Mono>) {
        self.sync = Some((t1, t2));
        let Some((first, arrived)) = self.anchor else {
            self.anchor = Some((t1, t2));
            return;
        };
        let passed = t2 - arrived;
        if passed >= RATE_BASE || passed < Duration::ZERO {
            let rate = (t1 - first).as_nanos_f64() / passed.as_nanos_f64() - 1.0;
            // No oscillator is so far off: one of the clocks was set.
            self.rate = if rate.abs() < 1e-3 { rate } else { 0.0 };
            self.anchor = Some((t1, t2));
        }
    }

    /// A Delay_Req left at `t3` and arrived at `t4`. Whether that can be true.
    pub(crate) fn delay(&mut self, t3: Time<Mono>, t4: Time<Ptp>) -> bool {
        let Some((t1, t2)) = self.sync else { return true };
        let here = t3 - t2;
        let drift = Duration::from_nanos_f64(here.as_nanos_f64() * self.rate);
        let round_trip = (t4 - t1) - (here + drift);
        self.measured(t3, round_trip)
    }

    /// The shortest of late; `None` as long as there is none.
    pub(crate) fn floor(&self) -> Option<Duration> {
        let present = (self.exchanges > 0).then_some(self.floor);
        self.floors.back().copied().into_iter().chain(present).min()
    }

    /// The round trip of a peer delay exchange. Whether that can be true.
    pub(crate) fn measured(&mut self, now: Time<Mono>, round_trip: Duration) -> bool {
        if !limits::is_round_trip(round_trip) {
            return false;
        }
        let since = *self.since.get_or_insert(now);
        if self.exchanges >= EXCHANGES && now - since >= BUCKET {
            if self.floors.len() == BUCKETS {
                self.floors.pop_front();
            }
            self.floors.push_back(self.floor);
            self.since = Some(now);
            self.exchanges = 0;
            self.look_for_drift(now);
        }
        self.floor = if self.exchanges == 0 { round_trip } else { self.floor.min(round_trip) };
        self.exchanges += 1;
        true
    }

    /// The time transmitter, or the grandmaster, is another one.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Who adds a little every minute makes it the usual one, and its spread a large one: so what was usual is kept until
    /// it is another by more than the noise from one floor to the next.
    fn look_for_drift(&mut self, now: Time<Mono>) {
        if self.floors.len() < BUCKETS / 2 {
            return;
        }
        let mut known: Vec<Duration> = self.floors.iter().copied().collect();
        known.sort_unstable();
        let usual = known[known.len() / 2];
        let before = *self.before.get_or_insert(usual);
        let pairs = self.floors.iter().zip(self.floors.iter().skip(1));
        let mut steps: Vec<Duration> = pairs.map(|(one, next)| (*next - *one).abs()).collect();
        steps.sort_unstable();
        let steps = steps[steps.len() * 9 / 10] * SPREADS;
        match self.drifted {
            None if (usual - before).abs() > noise(before, usual).max(steps) => {
                self.drifted = Some(now);
            }
            // From now on it is the usual one.
            Some(since) if now - since >= TOLD => (self.before, self.drifted) = (Some(usual), None),
            _ => {}
        }
    }

    /// What has become of the floor; `None` while too little is known.
    pub(crate) fn trend(&self) -> Option<RoundTripTrend> {
        let past = self.floors.len().checked_sub(PRESENT).filter(|past| *past >= PAST)?;
        let mut known: Vec<Duration> = self.floors.iter().take(past).copied().collect();
        known.sort_unstable();
        let of = |tenth: usize| known[(known.len() - 1) * tenth / 10];
        let usual = of(5);
        let present = self.floors.iter().skip(past).copied();
        let present = present.min_by_key(|floor| (*floor - usual).abs())?;
        if let Some(before) = self.before.filter(|_| self.drifted.is_some()) {
            return Some(RoundTripTrend { usual: before, present: usual, has_changed: true });
        }
        let noise = noise(usual, present).max((of(9) - of(1)) * SPREADS);
        Some(RoundTripTrend { usual, present, has_changed: (present - usual).abs() > noise })
    }
}

/// By how much the round trip may be another without a reason: it can double, and it can fall by half.
fn noise(usual: Duration, present: Duration) -> Duration {
    LEAST.max(if present < usual { usual.half().abs() } else { usual.abs() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    /// Four exchanges a second over a path of 20 us each way with up to 30 us of queues, between clocks
    /// that differ by 50 ppm; `held` is what somebody adds to Sync, `corrected` what somebody takes off
    /// by its correction, ns at that second. The second in which the change is told.
    fn told(held: impl Fn(f64) -> f64, corrected: impl Fn(f64) -> f64) -> Option<i64> {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let mut trip = RoundTrip::default();
        let there = |mono: f64| Time::<Ptp>::from_nanos((mono * 1.000_05) as i64);
        let here = |mono: f64| Time::<Mono>::from_nanos(mono as i64);
        let mut first = None;
        for n in 0..4 * 3_600 {
            let second = f64::from(n) / 4.0;
            let sent = 1e12 + second * 1e9;
            let mut path = || 20_000.0 + 30_000.0 * rng.random::<f64>().powi(2);
            let arrived = sent + path() + held(second);
            trip.sync(there(sent + corrected(second)), here(arrived));
            let asked = sent + 1e8 + 1.2e8 * f64::from(n % 3);
            assert!(trip.delay(here(asked), there(asked + path())));
            if trip.trend().is_some_and(|trend| trend.has_changed) {
                first.get_or_insert(second as i64);
            }
        }
        first
    }

    #[test]
    fn steady_path_is_left_alone() {
        assert_eq!(told(|_| 0.0, |_| 0.0), None);
    }

    #[test]
    fn sync_that_is_held_longer_every_second_is_told() {
        let ramp = |second: f64| 5_000.0 * (second - 200.0).clamp(0.0, 90.0);
        let at = told(ramp, |_| 0.0);
        assert!(at.is_some_and(|at| (200..260).contains(&at)), "{at:?}");
    }

    #[test]
    fn correction_that_grows_every_second_is_told() {
        let ramp = |second: f64| 3_000.0 * (second - 200.0).clamp(0.0, 90.0);
        let at = told(|_| 0.0, ramp);
        assert!(at.is_some_and(|at| (200..270).contains(&at)), "{at:?}");
    }

    #[test]
    fn delay_that_grows_too_slowly_to_be_seen_at_once_is_told_when_it_has_grown() {
        // A tenth of a microsecond a second: after an hour the clock would be 160 us off.
        for sign in [1.0, -0.5] {
            let ramp = |second: f64| sign * 100.0 * (second - 400.0).max(0.0);
            let at = told(|second| ramp(second).max(0.0), |second| -ramp(second).min(0.0));
            assert!(at.is_some_and(|at| (400..1_900).contains(&at)), "{sign}: {at:?}");
        }
    }

    #[test]
    fn queues_that_grow_and_shrink_in_the_course_of_an_hour_are_left_alone() {
        let tide = |second: f64| 15_000.0 * (second / 3_600.0 * core::f64::consts::TAU).sin();
        assert_eq!(told(|second| 15_000.0 + tide(second), |_| 0.0), None);
    }

    #[test]
    fn few_seconds_of_congestion_are_left_alone() {
        let burst = |second: f64| if (300.0..315.0).contains(&second) { 400_000.0 } else { 0.0 };
        assert_eq!(told(burst, |_| 0.0), None);
    }

    #[test]
    fn round_trip_of_years_is_refused() {
        let mut trip = RoundTrip::default();
        trip.sync(Time::ZERO, Time::from_nanos(1_000));
        assert!(!trip.delay(Time::from_nanos(2_000), Time::from_seconds_nanos(1_700_000_000, 0)));
        assert_eq!(trip.trend(), None);
    }
}
