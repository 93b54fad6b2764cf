//! Pulses as they should be, and as they should not: each fault in virtual time.

use super::*;
use proptest::prelude::*;
use std::vec::Vec;

const S: i64 = 1_000_000_000;
/// UTC when the free-running scale is zero.
const EPOCH: i64 = 1_800_000_000;

fn free(ns: i64) -> Time<Free> {
    Time::from_nanos(ns)
}

/// Sources that agree, to within `half_width_ns`, on a time that is `ahead_s` seconds ahead of UTC.
fn hint(ahead_s: i64, half_width_ns: i64, others: usize) -> Hint {
    let middle = Duration::from_secs(-EPOCH - ahead_s);
    let half = Duration::from_nanos(half_width_ns);
    Hint::Within(Interval { lo: middle - half, hi: middle + half }, others)
}

fn right() -> Hint {
    hint(0, 50_000, 1)
}

fn train() -> Train {
    Train::new(Config::default())
}

/// A train that has been given `seconds` good pulses, the last at second `seconds`.
fn locked(seconds: i64) -> Train {
    let mut train = train();
    for n in 1..=seconds {
        let _ = train.edge(free(n * S + 3_000), right());
    }
    assert_eq!(train.state(free(seconds * S + 4_000)), State::Numbered);
    train
}

fn refused(train: &Train) -> Vec<(&'static str, u64)> {
    let all = Refusal::ALL.into_iter().map(|why| (why.name(), train.counters().refused(why)));
    all.filter(|(_, count)| *count > 0).collect()
}

#[test]
fn pulses_are_numbered_by_others_and_count_themselves_from_then_on() {
    let mut train = train();
    let mut given = Vec::new();
    for n in 1..=20 {
        let said = if n <= 8 { right() } else { Hint::Nothing };
        given.push(train.edge(free(n * S + 2_000), said));
    }
    assert_eq!(given[..2], [Err(Refusal::Searching); 2]);
    assert_eq!(given[2..4], [Err(Refusal::Unnumbered); 2]);
    let numbers: Vec<i64> = given[4..].iter().map(|it| it.unwrap()).collect();
    assert_eq!(numbers, (5..=20).map(|n| EPOCH + n).collect::<Vec<_>>());
    assert_eq!((train.counters().used, train.refused()), (16, None));
}

#[test]
fn a_pulse_that_nobody_numbers_is_not_used() {
    let mut train = train();
    for n in 1..=30 {
        assert!(train.edge(free(n * S), Hint::Nothing).is_err());
    }
    assert_eq!(train.state(free(30 * S)), State::Unnumbered);
    assert_eq!(refused(&train), [("searching", 2), ("unnumbered", 28)]);
}

#[test]
fn a_pulse_that_stops_is_silent_and_goes_on_where_it_was() {
    let mut train = locked(20);
    assert_eq!(train.state(free(23 * S)), State::Numbered);
    assert_eq!(train.state(free(25 * S)), State::Silent);
    assert_eq!(train.edge(free(60 * S + 3_000), Hint::Nothing), Ok(EPOCH + 60));
    assert_eq!(train.counters().missed, 39);
    // Longer than anybody can count: all anew.
    assert_eq!(train.edge(free(400 * S), Hint::Nothing), Err(Refusal::Searching));
    assert_eq!(train.state(free(400 * S)), State::Searching);
}

#[test]
fn a_doubled_pulse_is_refused_and_the_true_one_is_used() {
    let mut train = locked(20);
    for n in 21..=60 {
        assert_eq!(train.edge(free(n * S + 3_000), right()), Ok(EPOCH + n));
        assert_eq!(train.edge(free(n * S + 200_000_000), right()), Err(Refusal::Doubled));
        assert_eq!(train.edge(free(n * S + 700_000_000), right()), Err(Refusal::Misplaced));
    }
    assert_eq!((train.counters().used, train.counters().moved), (56, 0));
    assert!(train.wrong_lately() > 0.5);
}

#[test]
fn a_pulse_that_jitters_is_refused_while_it_does() {
    let mut train = locked(20);
    for n in 21..=40 {
        let late = if n % 4 == 0 { 5_000_000 } else { 3_000 };
        let given = train.edge(free(n * S + late), right());
        assert_eq!(given, if n % 4 == 0 { Err(Refusal::Jitter) } else { Ok(EPOCH + n) });
    }
    assert_eq!(train.counters().refused(Refusal::Jitter), 5);
}

#[test]
fn a_pulse_that_comes_half_a_second_off_is_refused_whether_it_was_right_before_or_not() {
    let mut once_right = locked(20);
    for n in 21..=80 {
        let given = once_right.edge(free(n * S + S / 2), right());
        assert!(given.is_err(), "{n}: {given:?}");
    }
    assert_eq!(once_right.counters().moved, 1, "it is followed, and not believed");
    assert!(once_right.counters().refused(Refusal::NoSecond) > 40);
    let mut never_right = train();
    for n in 1..=40 {
        assert!(never_right.edge(free(n * S + S / 2), right()).is_err());
    }
    assert_eq!(refused(&never_right), [("searching", 2), ("no_second", 38)]);
}

#[test]
fn a_source_that_is_a_second_off_renumbers_nothing() {
    let mut train = locked(20);
    for n in 21..=100 {
        assert_eq!(train.edge(free(n * S + 3_000), hint(1, 50_000, 1)), Ok(EPOCH + n));
    }
    assert!(train.is_wrong_second());
    assert_eq!((train.counters().wrong_second, train.counters().renumbered), (80, 0));
    assert_eq!(train.edge(free(101 * S + 3_000), right()), Ok(EPOCH + 101));
    assert!(!train.is_wrong_second());
}

#[test]
fn two_that_agree_renumber_what_was_numbered_wrongly() {
    let mut train = train();
    for n in 1..=10 {
        let _ = train.edge(free(n * S), hint(1, 50_000, 1));
    }
    assert_eq!(train.edge(free(11 * S), hint(1, 50_000, 1)), Ok(EPOCH + 12));
    let given: Vec<_> = (12..=30).map(|n| train.edge(free(n * S), hint(0, 50_000, 2))).collect();
    assert_eq!(given[6], Ok(EPOCH + 12 + 6 + 1), "not at once");
    assert_eq!(given[18], Ok(EPOCH + 30));
    assert_eq!(train.counters().renumbered, 1);
}

#[test]
fn who_does_not_know_the_second_does_not_number_it() {
    let mut train = train();
    for n in 1..=20 {
        let wide = hint(0, 1_100_000_000, 3);
        assert!(train.edge(free(n * S), wide).is_err());
        assert!(train.edge(free(n * S + 1), Hint::Disputed).is_err());
    }
    assert_eq!(train.counters().used, 0);
}

#[test]
fn a_receivers_sentences_which_follow_the_pulse_number_it() {
    // Each sentence comes between 0 and 1 s after its second: 100 to 400 ms here, so that what they have in common
    // is 700 ms wide.
    let interval = Interval { lo: Duration::from_millis(-600), hi: Duration::from_millis(100) };
    let epoch = Duration::from_secs(-EPOCH);
    let said = Hint::Within(Interval { lo: interval.lo + epoch, hi: interval.hi + epoch }, 1);
    let mut train = train();
    for n in 1..=10 {
        let given = train.edge(free(n * S), said);
        assert_eq!(given.is_ok(), n > 4);
        assert!(given.is_err() || given == Ok(EPOCH + n));
    }
}

#[test]
fn around_a_leap_second_numbers_are_given_up_and_found_anew() {
    let mut train = locked(20);
    for n in 21..=50 {
        assert_eq!(train.edge(free(n * S + 3_000), Hint::Leap), Err(Refusal::Leap));
    }
    // The second that was put in makes UTC smaller by one.
    let given: Vec<_> =
        (51..=60).map(|n| train.edge(free(n * S + 3_000), hint(-1, 50_000, 1))).collect();
    assert_eq!(given[2..], (53..=60).map(|n| Ok(EPOCH + n - 1)).collect::<Vec<_>>()[..]);
}

#[test]
fn an_oscillator_that_is_100_ppm_off_loses_no_pulse() {
    for ppm in [-100, 100] {
        let mut train = train();
        let at = |n: i64| n * S + n * 1_000 * ppm;
        for n in 1..=120 {
            let middle = Duration::from_nanos(at(n)) - Duration::from_secs(EPOCH + n);
            let half = Duration::from_micros(100);
            let said = Hint::Within(Interval { lo: middle - half, hi: middle + half }, 1);
            let given = train.edge(free(at(n)), said);
            assert!(n <= 4 || given == Ok(EPOCH + n), "{n}: {given:?}");
        }
        let rate = train.rate_ppb().unwrap();
        assert!((rate - f64::from(ppm as i32) * 1e3).abs() < 1.0, "{rate}");
    }
}

proptest! {
    /// Whatever edges come, a second that is given is the one that begins there by those who were right all the time.
    #[test]
    fn no_edge_is_given_a_wrong_second(
        edges in prop::collection::vec((0_i64..3, prop_oneof![Just(0_i64), -400_000_i64..400_000, 0..S]), 1..200),
    ) {
        let mut train = train();
        let mut at = S;
        for (seconds, off) in edges {
            at = (at / S + seconds) * S + off.max(0);
            if let Ok(second) = train.edge(free(at), right()) {
                let error = at - (second - EPOCH) * S;
                prop_assert!(error.abs() <= 120_000_000, "{error}");
            }
        }
    }
}
