//! What was known before another time was believed. Where a clock that was locked is stepped, or follows somebody
//! whose time cannot be reconciled with what was known of it, one of two stories is false, and nobody here can tell which: a
//! time transmitter whose time was set says the same as a man in the middle who moves all of its times. For a while, and for
//! as long as sources contradict each other, the bound contains both.

use crate::servo::{Interval, Trust};
use ptp_common::time::{Duration, Mono, Time};

/// For so long the bound contains both stories.
const PROBATION: Duration = Duration::from_secs(60);
/// An interval that is so many times as wide as what was known says that it is in doubt.
const DOUBTFUL: i32 = 2;

/// Where a clock was against a source, and what has been done to it since.
#[derive(Clone, Copy, Debug)]
struct Story {
    /// Clock minus source.
    interval: Interval,
    /// When that was known, and by how much either end may be farther out each second since.
    known_at: Time<Mono>,
    growth: Duration,
    /// The frequency adjustment with which it would have kept its distance, and that of now, ppb.
    frequencies_ppb: [f64; 2],
    /// What the clock was moved by since: steps, and other frequencies until `moved_at`.
    moved: Duration,
    moved_at: Time<Mono>,
}

impl Story {
    fn new(now: Time<Mono>, trust: &Trust, frequencies_ppb: [f64; 2]) -> Self {
        let Trust { interval, growth, .. } = *trust;
        let (known_at, moved_at) = (now, now);
        // What it is slewed by is known, and counted as it goes.
        let [level, at_present] = frequencies_ppb;
        let slewed = Duration::from_nanos_f64((at_present - level).abs());
        let growth = (growth.abs() - slewed).max(Duration::ZERO);
        Self { interval, known_at, growth, frequencies_ppb, moved: Duration::ZERO, moved_at }
    }

    /// How far another frequency has moved the clock from `moved_at` to `now`.
    fn run(&self, now: Time<Mono>) -> Duration {
        let [then, at_present] = self.frequencies_ppb;
        let passed = (now - self.moved_at).max(Duration::ZERO);
        Duration::from_nanos_f64((at_present - then) * 1e-9 * passed.as_nanos_f64())
    }

    fn adjusted(&mut self, now: Time<Mono>, frequency_ppb: f64, stepped: Duration) {
        self.moved = self.moved + self.run(now) + stepped;
        self.moved_at = now;
        self.frequencies_ppb[1] = frequency_ppb;
    }

    fn interval_at(&self, now: Time<Mono>) -> Interval {
        let moved = self.moved + self.run(now);
        let Interval { lo, hi } = self.interval;
        let passed_s = (now - self.known_at).max(Duration::ZERO).as_nanos_f64() * 1e-9;
        let grown = Duration::from_nanos_f64(self.growth.abs().as_nanos_f64() * passed_s);
        Interval { lo: lo + moved, hi: hi + moved }.widened(grown)
    }
}

/// Whether two intervals cannot both be true.
fn are_apart(one: Interval, other: Interval) -> bool {
    one.hi < other.lo || other.hi < one.lo
}

/// See the module's paragraph.
#[derive(Debug, Default)]
pub(super) struct Former {
    /// Of whom is followed.
    present: Option<Story>,
    /// What was known before, and until when it counts.
    before: Option<(Story, Time<Mono>)>,
}

impl Former {
    /// What is known of whom is followed, of a clock that is locked, the frequency adjustment with which it would keep its
    /// distance, and the one that it has, ppb.
    pub(super) fn learn(&mut self, now: Time<Mono>, trust: &Trust, frequencies_ppb: [f64; 2]) {
        self.before = self.before.filter(|(_, until)| now < *until);
        if let Some(known) = self.present.map(|story| story.interval_at(now)) {
            if are_apart(known, trust.interval) {
                self.replaced(now);
            } else if trust.interval.half_width() > known.half_width() * DOUBTFUL {
                // It is in doubt, or nothing has come for a while: what was known says more.
                return;
            }
        }
        self.present = Some(Story::new(now, trust, frequencies_ppb));
    }

    /// Somebody else is followed from now on. What was known first counts until its time is over.
    pub(super) fn replaced(&mut self, now: Time<Mono>) {
        self.before = self.before.filter(|(_, until)| now < *until);
        if let Some(story) = self.present.take()
            && self.before.is_none()
        {
            self.before = Some((story, now + PROBATION));
        }
    }

    /// The clock was adjusted.
    pub(super) fn adjusted(
        &mut self,
        now: Time<Mono>,
        frequency_ppb: f64,
        stepped: Option<Duration>,
    ) {
        if stepped.is_some() {
            self.replaced(now);
            self.before = self.before.map(|(story, _)| (story, now + PROBATION));
        }
        let stepped = stepped.unwrap_or(Duration::ZERO);
        let stories = self.present.iter_mut().chain(self.before.iter_mut().map(|(it, _)| it));
        stories.for_each(|it| it.adjusted(now, frequency_ppb, stepped));
    }

    /// Sources contradict each other: what was known before counts until they have agreed for as long.
    pub(super) fn contradicted(&mut self, now: Time<Mono>) {
        if let Some((_, until)) = self.before.as_mut().filter(|(_, until)| now < *until) {
            *until = now + PROBATION;
        }
    }

    /// With what was known before in it, where that cannot be true as well.
    pub(super) fn widen(&self, now: Time<Mono>, trust: Trust) -> Trust {
        let Some((story, _)) = self.before.filter(|(_, until)| now < *until) else { return trust };
        let before = story.interval_at(now);
        if !are_apart(before, trust.interval) {
            return trust;
        }
        let bound = trust.bound.max(before.farther_end());
        Trust { bound, interval: trust.interval.hull(before), ..trust }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::servo::Basis;

    fn at(seconds: i64) -> Time<Mono> {
        Time::ZERO + Duration::from_secs(seconds)
    }

    fn trust(lo: i64, hi: i64, growth: i64) -> Trust {
        let [lo, hi, growth] = [lo, hi, growth].map(Duration::from_nanos);
        let interval = Interval { lo, hi };
        let bound = interval.farther_end();
        let (precision, basis) = (Duration::ZERO, Basis::Causality);
        Trust { bound, precision, interval, basis, is_clipped: false, growth }
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn step_of_a_locked_clock_leaves_both_times_in_the_bound_for_a_minute() {
        let mut former = Former::default();
        let ours = trust(-5_000, 5_000, 100);
        former.learn(at(0), &ours, [0.0; 2]);
        former.adjusted(at(1), 0.0, Some(SECOND));
        former.learn(at(1), &ours, [0.0; 2]);
        let seen = former.widen(at(11), ours);
        assert_eq!(seen.interval, trust(-5_000, 1_000_006_100, 0).interval);
        assert_eq!(seen.bound, Duration::from_nanos(1_000_006_100));
        assert_eq!(former.widen(at(61), ours), ours);
    }

    #[test]
    fn doubt_and_the_new_time_before_the_step_do_not_make_it_forget_the_old_one() {
        let mut former = Former::default();
        former.learn(at(0), &trust(-5_000, 5_000, 0), [0.0; 2]);
        former.learn(at(1), &trust(-5_000, 1_000_005_000, 0), [0.0; 2]);
        let new = trust(999_995_000, 1_000_005_000, 0);
        former.learn(at(2), &new, [0.0; 2]);
        assert_eq!(former.widen(at(2), new).interval.lo, Duration::from_nanos(-5_000));
        former.adjusted(at(3), 0.0, Some(-SECOND));
        let ours = trust(-5_000, 5_000, 0);
        former.learn(at(3), &ours, [0.0; 2]);
        assert_eq!(former.widen(at(60), ours).interval.lo, Duration::from_nanos(-1_000_005_000));
        assert_eq!(former.widen(at(63), ours), ours);
    }

    #[test]
    fn first_step_and_a_step_that_was_within_what_was_known_widen_nothing() {
        let mut former = Former::default();
        former.adjusted(at(0), 0.0, Some(SECOND));
        let ours = trust(-5_000, 5_000, 0);
        former.learn(at(0), &ours, [0.0; 2]);
        assert_eq!(former.widen(at(1), ours), ours);
        let mut former = Former::default();
        former.learn(at(1), &trust(-90_000, 90_000, 0), [0.0; 2]);
        former.adjusted(at(2), 0.0, Some(Duration::from_nanos(50_000)));
        assert_eq!(former.widen(at(3), ours), ours);
    }

    #[test]
    fn who_comes_back_to_what_was_known_first_is_trusted_at_once() {
        let mut former = Former::default();
        let ours = trust(-5_000, 5_000, 0);
        former.learn(at(0), &ours, [0.0; 2]);
        former.replaced(at(1));
        former.adjusted(at(10), 0.0, Some(SECOND));
        former.learn(at(11), &ours, [0.0; 2]);
        assert!(former.widen(at(12), ours).bound >= SECOND);
        former.replaced(at(20));
        former.adjusted(at(25), 0.0, Some(-SECOND));
        former.learn(at(26), &ours, [0.0; 2]);
        assert_eq!(former.widen(at(27), ours), ours);
    }

    #[test]
    fn contradiction_keeps_it_for_as_long_as_it_lasts() {
        let mut former = Former::default();
        let ours = trust(-5_000, 5_000, 0);
        former.learn(at(0), &ours, [0.0; 2]);
        former.adjusted(at(1), 0.0, Some(SECOND));
        for second in 2..600 {
            former.learn(at(second), &ours, [0.0; 2]);
            former.contradicted(at(second));
            assert!(former.widen(at(second), ours).bound >= SECOND, "{second}");
        }
        assert_eq!(former.widen(at(660), ours), ours);
    }

    #[test]
    fn slew_towards_another_time_is_accounted_for() {
        let mut former = Former::default();
        let ours = trust(-1_000, 1_000, 0);
        former.learn(at(0), &ours, [1_000.0; 2]);
        former.replaced(at(0));
        former.adjusted(at(0), 101_000.0, None);
        former.adjusted(at(10), 1_000.0, None);
        // 100 ppm for ten seconds.
        assert_eq!(former.widen(at(20), ours).bound, Duration::from_nanos(1_001_000));
    }

    #[test]
    fn what_was_known_while_the_clock_was_slewed_does_not_go_on_to_be_slewed() {
        let mut former = Former::default();
        // Slewed by 160 ppm, which the growth has in it, with 1 ppm of doubt.
        former.learn(at(0), &trust(-1_000, 1_000, 161_000), [0.0, 160_000.0]);
        former.adjusted(at(1), 0.0, None);
        former.replaced(at(1));
        let apart = trust(900_000, 901_000, 0);
        assert_eq!(former.widen(at(11), apart).interval.lo, Duration::from_nanos(159_000 - 11_000));
        assert_eq!(former.widen(at(11), apart).interval.hi, Duration::from_nanos(901_000));
    }
}
