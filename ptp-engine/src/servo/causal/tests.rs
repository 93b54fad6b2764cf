//! Claims about the causal interval, on a link whose truth is known.

use super::*;
use crate::{servo::LocalTime, stamp::StampSource};
use ptp_common::time::Ptp;

const PACE: Pace = Pace { rate_ppb: 0.0, error_ppb: 1_000.0, least_error_ppb: 1_000.0 };

/// A link whose truth is known: the local scale is `offset` ahead.
struct Bench {
    causal: Causal,
    now: i64,
    offset: i64,
}

impl Bench {
    fn new() -> Self {
        let causal = Causal::new(&Options::default());
        Self { causal, now: 1_000_000_000_000, offset: 5_000_000_000 }
    }

    fn local(&self) -> LocalTime {
        let mono = Time::from_nanos(self.now);
        let source = StampSource::Simulated;
        LocalTime { mono, clock: Time::ZERO, source, doubt: Duration::ZERO, told_within: None }
    }

    fn truth(&self) -> Time<Ptp> {
        Time::from_nanos(self.now - self.offset)
    }

    fn sync(&mut self, delay: i64) {
        self.corrected(delay, 0);
    }

    /// A Sync that was held on its way for so long, which its correction says.
    fn corrected(&mut self, delay: i64, correction: i64) {
        self.now += 100_000_000;
        let (t1, t2) = (self.truth() - Duration::from_nanos(delay), self.local());
        let (sequence_id, log_interval) = (0, None);
        let correction = Duration::from_nanos(correction);
        let input = SyncInput { t1, t2, sequence_id, log_interval, correction };
        self.causal.sync(&input, PACE);
    }

    fn delay(&mut self, delay: i64) {
        self.now += 100_000_000;
        let (t4, t3) = (self.truth() + Duration::from_nanos(delay), self.local());
        let input = DelayInput { t3, t4, sequence_id: 0, correction: Duration::ZERO };
        self.causal.delay(&input, PACE);
    }

    fn interval(&self) -> Interval {
        self.causal.interval(Time::from_nanos(self.now), PACE, None).unwrap()
    }

    fn holds(&self) -> bool {
        self.interval().contains(Duration::from_nanos(self.offset))
    }
}

#[test]
fn width_is_the_fastest_packet_of_either_way() {
    let mut bench = Bench::new();
    for (forward, backward) in [(30_000, 50_000), (10_000, 70_000), (40_000, 20_000)] {
        bench.sync(forward);
        bench.delay(backward);
    }
    let Interval { lo, hi } = bench.interval();
    assert!(bench.holds());
    let width = (hi - lo).as_nanos();
    assert!((30_000..31_000).contains(&width), "{width}");
}

#[test]
fn ways_that_are_corrected_by_a_stamps_grain_too_much_do_not_contradict_each_other() {
    let mut bench = Bench::new();
    // Transparent clocks say 500 ns of each way that takes 490: what is left is less than nothing.
    let correction = Duration::from_nanos(500);
    for _ in 0..20 {
        bench.now += 100_000_000;
        let (t1, t2) = (bench.truth() + Duration::from_nanos(10), bench.local());
        let input = SyncInput { t1, t2, sequence_id: 0, log_interval: None, correction };
        bench.causal.sync(&input, PACE);
        let (t4, t3) = (bench.truth() - Duration::from_nanos(10), bench.local());
        bench.causal.delay(&DelayInput { t3, t4, sequence_id: 0, correction }, PACE);
    }
    assert_eq!(bench.causal.contradictions(), 0);
    assert!(bench.holds());
    // Nobody can be wrong by more than what was said.
    assert_eq!(doubt_of(Duration::ZERO), 0.0);
    assert!(doubt_of(Duration::from_nanos(1)) < 1.001);
}

#[test]
fn nothing_is_said_before_both_ways_are_known() {
    let mut bench = Bench::new();
    bench.sync(10_000);
    assert_eq!(bench.causal.interval(Time::from_nanos(bench.now), PACE, None), None);
}

#[test]
fn interval_widens_with_age_on_both_sides() {
    let mut bench = Bench::new();
    bench.sync(10_000);
    bench.delay(10_000);
    let width = |bench: &Bench| (bench.interval().half_width()).as_nanos();
    let before = width(&bench);
    bench.now += 10_000_000_000;
    assert_eq!(width(&bench) - before, 10_000);
}

#[test]
fn a_lying_stamp_is_counted_and_forgotten_with_the_next_honest_one() {
    let mut bench = Bench::new();
    for _ in 0..4 {
        bench.sync(10_000);
        bench.delay(10_000);
    }
    bench.sync(-1_000_000_000);
    assert!(bench.holds() && bench.causal.is_contradicted());
    assert!(bench.interval().half_width() > Duration::from_millis(400));
    bench.sync(10_000);
    assert!(bench.holds() && !bench.causal.is_contradicted());
    assert!(bench.interval().half_width() < Duration::from_micros(11));
    assert_eq!(bench.causal.contradictions(), 1);
}

#[test]
fn a_step_of_any_size_beyond_the_path_is_inside_at_once_and_then_the_rule() {
    for by in [25_000, 1_000_000, -1_000_000, 1_000_000_000, -100_000_000_000] {
        let mut bench = Bench::new();
        for _ in 0..100 {
            bench.sync(10_000);
            bench.delay(10_000);
        }
        bench.offset += by;
        for n in 0..24 {
            bench.sync(10_000);
            bench.delay(10_000);
            assert!(bench.holds(), "{by}, {n}: {:?}", bench.interval());
        }
        assert!(bench.interval().half_width() < Duration::from_micros(20), "{by}");
    }
}

#[test]
fn a_link_delay_stands_for_the_way_back() {
    let mut bench = Bench::new();
    for _ in 0..4 {
        bench.sync(12_000);
    }
    link(&mut bench, 11_000);
    assert!(bench.holds());
    assert!((11_000..11_500).contains(&bench.interval().half_width().as_nanos()));
}

#[test]
fn a_delay_that_others_have_measured_leaves_a_sync_as_much_longer_as_that_is_doubted() {
    let mut bench = Bench::new();
    for _ in 0..4 {
        bench.sync(12_000);
    }
    let doubt = Duration::from_nanos(20_000);
    bench.causal.peer_delay(&PeerDelayInput { doubt, ..measured(&bench, 1_000) });
    assert!(bench.holds());
    assert!((11_000..11_500).contains(&bench.interval().half_width().as_nanos()));
}

fn measured(bench: &Bench, delay: i64) -> PeerDelayInput {
    PeerDelayInput {
        mono: Time::from_nanos(bench.now),
        mean_link_delay: Duration::from_nanos(delay),
        neighbor_rate_ratio: None,
        doubt: Duration::ZERO,
    }
}

fn link(bench: &mut Bench, delay: i64) {
    bench.causal.peer_delay(&measured(bench, delay));
}

#[test]
fn with_a_link_delay_what_a_correction_may_be_wrong_by_does_not_lift_the_lower_bound() {
    let mut bench = Bench::new();
    link(&mut bench, 1_000);
    for n in 0..200 {
        // From the first second on it is held for up to two milliseconds more than was usual.
        bench
            .corrected(1_000 + n % 7 * 100, 30_000 + (n / 10).min(1) * (n * 7_919 % 2_000) * 1_000);
        link(&mut bench, 1_000);
        assert!(bench.holds(), "{n}: {:?}", bench.interval());
    }
    assert_eq!(bench.causal.contradictions(), 0);
}

#[test]
fn with_a_link_delay_a_step_of_time_is_believed_though_only_sync_tells_of_it() {
    for by in [-300_000, 300_000] {
        let mut bench = Bench::new();
        for _ in 0..32 {
            bench.sync(1_000);
            link(&mut bench, 1_000);
        }
        bench.offset += by;
        for n in 0..80 {
            bench.sync(1_000);
            link(&mut bench, 1_000);
            if by < 0 {
                assert!(bench.holds(), "{n}: {:?}", bench.interval());
            }
        }
        assert!(bench.holds(), "{by}");
        assert!(bench.interval().half_width() < Duration::from_micros(20), "{by}");
    }
}

#[test]
fn a_promise_of_symmetry_tightens_the_bound_and_is_named() {
    let interval = Interval { lo: Duration::from_nanos(-5_000), hi: Duration::from_nanos(5_000) };
    let (error, precision) = (Duration::from_nanos(10), Duration::from_nanos(50));
    let mut options = Options::default();
    let plain = trust(interval, error, precision, false, &options);
    assert_eq!((plain.bound.as_nanos(), plain.basis), (5_000, Basis::Causality));
    options.asymmetry_limit = Some(Duration::from_nanos(300));
    let promised = trust(interval, error, precision, false, &options);
    assert_eq!((promised.bound.as_nanos(), promised.basis), (350, Basis::AsymmetryLimit));
    // An estimate that causality has refuted promises nothing.
    let refuted = trust(interval, error, precision, true, &options);
    assert_eq!(refuted.basis, Basis::Causality);
    options.asymmetry_limit = Some(Duration::from_millis(1));
    assert_eq!(trust(interval, error, precision, false, &options).basis, Basis::Causality);
}

/// The local scale is where it is, and the time transmitter is set by so much; what has been seen since, as the
/// estimate says that it is from then on.
fn stepped(bench: &mut Bench, by: i64) -> i64 {
    for _ in 0..100 {
        bench.sync(10_000);
        bench.delay(10_000);
    }
    let width = bench.interval().hi - bench.interval().lo;
    bench.causal.is_calm(width);
    bench.offset += by;
    bench.now + 1
}

impl Bench {
    fn holds_if(&self, doubted: &[i64]) -> bool {
        let doubted = doubted.iter().map(|at| Time::from_nanos(*at));
        let interval = self.causal.interval(Time::from_nanos(self.now), PACE, doubted).unwrap();
        interval.contains(Duration::from_nanos(self.offset))
    }
}

#[test]
fn a_step_within_the_round_trip_is_possible_as_soon_as_one_way_is_doubted() {
    for by in [-16_000, -12_000, 12_000, 16_000] {
        let mut bench = Bench::new();
        let since = stepped(&mut bench, by);
        for n in 0..8 {
            // What the first packet tells alone is less than a round trip.
            if by < 0 {
                bench.sync(10_000)
            } else {
                bench.delay(10_000)
            }
            assert!(!bench.holds() && !bench.causal.is_contradicted(), "{by}, {n}");
            assert!(bench.holds_if(&[since]), "{by}, {n}");
        }
    }
}

#[test]
fn of_two_doubts_either_is_possible() {
    let mut bench = Bench::new();
    let first = stepped(&mut bench, 1_000);
    for _ in 0..8 {
        bench.sync(10_000);
        bench.delay(10_000);
    }
    bench.offset += 17_000;
    let second = bench.now + 1;
    for n in 0..20 {
        bench.delay(10_000);
        bench.sync(10_000);
        assert!(!bench.holds_if(&[first]) && bench.holds_if(&[first, second]), "{n}");
    }
}

#[test]
fn what_has_been_seen_since_a_step_stays_possible_whatever_the_step_is_taken_for() {
    for by in [1_000_000, -1_000_000, 60_000] {
        let mut bench = Bench::new();
        let before = bench.offset;
        let since = Time::from_nanos(stepped(&mut bench, by));
        for n in 0..24 {
            bench.sync(10_000);
            bench.delay(10_000);
            if n == 2 {
                // Judged to be a step of a microsecond.
                let (offset, now) =
                    (Duration::from_nanos(before + 1_000), Time::from_nanos(bench.now));
                bench.causal.forget_contradicting(offset, since, now, PACE);
            }
            assert!(bench.holds(), "{by}, {n}: {:?}", bench.interval());
        }
        assert!(bench.interval().half_width() < Duration::from_micros(20), "{by}");
    }
}
