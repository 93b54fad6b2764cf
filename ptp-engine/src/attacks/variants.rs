//! The same attacks, as somebody tries them who has read what is done against the plain ones: other fields, other
//! moments, several at once.

use super::*;
use crate::instance::Synchronization;

/// The grandmaster at its own pace, as slow as the port expects it, and a rival who is a little worse.
fn peace(bench: &mut Bench, seconds: i64, other: impl Fn(&mut Bench, u16)) {
    let (mut good, rival) = (Says::good(GM), Says::good(sender(0x88)).priority1(129));
    good.log = 1;
    for n in 0..seconds / 2 {
        bench.go(n * 2_000);
        bench.put(&good.bytes(n as u16));
        bench.put(&rival.bytes(n as u16));
        other(bench, n as u16);
    }
}

#[test]
fn intervals_that_are_none_hold_nobody() {
    for log in [i8::MIN, -11, 23, i8::MAX] {
        let mut bench = Bench::new(config());
        let mut captor = Says::good(sender(0x01)).priority1(1);
        captor.log = log;
        bench.announced((0, 5), |_, _| {});
        bench.announced((5, 7), |bench, n| bench.put(&captor.bytes(n)));
        assert_eq!(bench.parent(), Some(captor.from), "{log}");
        bench.announced((7, 20), |_, _| {});
        assert_eq!(bench.parent(), Some(GM), "{log}");
    }
}

#[test]
fn captors_that_take_turns_are_left_when_they_are_silent() {
    let mut bench = Bench::new(config());
    bench.announced((0, 30), |bench, n| {
        let mut captor = Says::good(sender(1 + (n % 4) as u8)).priority1(1);
        captor.log = 22;
        bench.put(&captor.bytes(n));
    });
    bench.announced((30, 60), |_, _| {});
    assert_eq!(bench.parent(), Some(GM));
}

#[test]
fn captor_that_is_too_far_away_or_an_alternate_is_never_followed() {
    let base = Says::good(sender(0x01)).priority1(1);
    let far = Says { body: Announce { steps_removed: 255, ..base.body }, ..base };
    let alternate = Says { flags: base.flags | Flags::ALTERNATE_MASTER, ..base };
    for captor in [far, alternate] {
        let mut bench = Bench::new(config());
        bench.announced((0, 20), |bench, n| bench.put(&captor.bytes(n)));
        assert_eq!(bench.parent(), Some(GM));
        assert_eq!(bench.epochs, 1);
    }
}

#[test]
fn ports_without_number_of_one_clock_lock_out_nobody() {
    let mut bench = Bench::new(config());
    bench.announced((0, 30), |bench, n| {
        for port in 0..200 {
            for again in 0..2 {
                let mut says = Says::good(invented(1)).priority1(255);
                says.from.port_number = 1 + n * 200 + port;
                bench.put(&says.bytes(again));
            }
        }
    });
    assert_eq!(bench.parent(), Some(GM));
    assert!(bench.receiver.stored() < 64);
}

#[test]
fn sixteen_equals_that_fall_silent_are_forgotten() {
    let mut bench = Bench::new(config());
    for second in 0..5 {
        bench.go(second * 1_000);
        for other in 1..=16 {
            // As good as the true one and before it by identity.
            let mut says = Says::good(sender(other));
            says.log = 22;
            bench.put(&says.bytes(second as u16));
        }
    }
    bench.announced((5, 40), |_, _| {});
    assert_eq!(bench.parent(), Some(GM));
}

#[test]
fn many_false_announces_between_two_true_ones_confirm_nothing() {
    let base = Says::good(GM);
    let other = |body: Announce| Says { body, ..base };
    let flips = [
        base.priority1(255),
        base.class(255),
        other(Announce { steps_removed: 200, ..base.body }),
        other(Announce { grandmaster_priority2: 255, ..base.body }),
        Says { flags: Flags::UTC_OFFSET_VALID, ..base },
        other(Announce { current_utc_offset: 38, ..base.body }),
        Says { flags: base.flags | Flags::LEAP59, ..base },
    ];
    for (which, flip) in flips.into_iter().enumerate() {
        // His interval is as short as he can make it, and he begins when he has made it so.
        for log in [-10, 0, 1] {
            for late in [100, 1_000, 1_990] {
                let mut bench = Bench::new(config());
                let (mut copy, mut flip) = (base, flip);
                (copy.log, flip.log) = (log, log);
                peace(&mut bench, 120, |bench, n| {
                    if n < 5 {
                        return;
                    }
                    bench.go(i64::from(n) * 2_000 + late - 90);
                    for ahead in 1..4 {
                        let wrong = if n % 8 < 4 { copy } else { flip };
                        bench.put(&wrong.bytes(n + ahead));
                        bench.go(bench.now + 20);
                    }
                });
                let parent = bench.receiver.parent().unwrap();
                let what = format!("{which}, interval {log}, {late} ms");
                assert_eq!(bench.epochs, 1, "{what}");
                assert_eq!(parent.set.parent_port_identity, GM, "{what}");
                assert_eq!(parent.set.grandmaster_priority1, 128, "{what}");
                assert_eq!(parent.steps_removed, 0, "{what}");
                let properties = parent.time_properties;
                assert!(properties.ptp_timescale && !properties.leap59, "{what}");
                assert_eq!(properties.current_utc_offset, 37, "{what}");
            }
        }
    }
}

#[test]
fn two_stories_in_turns_do_not_confirm_each_other() {
    let base = Says::good(GM);
    let (one, two) = (
        Says { flags: Flags::UTC_OFFSET_VALID, ..base },
        Says { body: Announce { current_utc_offset: 40, ..base.body }, ..base },
    );
    let mut bench = Bench::new(config());
    bench.announced((0, 5), |_, _| {});
    bench.announced((5, 60), |bench, n| {
        for (ahead, story) in [(1, one), (2, two), (3, one), (4, two)] {
            bench.go(i64::from(n) * 1_000 + 200 * i64::from(ahead));
            bench.put(&story.bytes(n + ahead));
        }
    });
    assert_eq!(bench.epochs, 1);
    assert!(bench.receiver.parent().unwrap().time_properties.ptp_timescale);
}

#[test]
fn numbers_that_run_ahead_do_not_make_the_true_ones_old() {
    let mut bench = Bench::new(config());
    bench.announced((0, 60), |bench, n| {
        // Each is as far ahead as is believed without any time having passed.
        for part in 1..5 {
            bench.go(i64::from(n) * 1_000 + i64::from(part) * 200);
            bench.put(&Says::good(GM).bytes(n.wrapping_mul(64).wrapping_add(part * 16)));
        }
    });
    assert_eq!((bench.parent(), bench.epochs), (Some(GM), 1));
    // He ceases, with numbers that are thousands ahead.
    bench.announced((60, 80), |_, _| {});
    assert_eq!((bench.parent(), bench.epochs), (Some(GM), 1));
}

/// How many requests are answered in the minute after somebody has answered each in half a minute before the
/// parent does, asking for `log`; and how many there were in that half minute.
fn requests(log: i8) -> [i32; 2] {
    let mut bench = Bench::new(config());
    bench.announced((0, 3), |_, _| {});
    bench.sync(1, timestamp(2_000), Flags(0));
    let mut answered = [0; 2];
    for millis in 3_000..93_000 {
        bench.go(millis);
        if millis % 1_000 == 0 {
            bench.put(&Says::good(GM).bytes((millis / 1_000) as u16));
        }
        let is_attack = millis < 33_000;
        for (_, token, sequence_id) in core::mem::take(&mut bench.requests) {
            let stamp = Stamp::new(at(millis), StampSource::Simulated);
            bench.receiver.handle_tx_stamp(at(millis), token, Some(stamp));
            if is_attack {
                bench.delay_resp(sequence_id, timestamp(millis), log);
            }
            bench.delay_resp(sequence_id, timestamp(millis), 0);
            answered[usize::from(!is_attack)] += 1;
        }
    }
    answered
}

#[test]
fn answers_that_always_win_neither_stop_requests_nor_make_a_flood_of_them() {
    for log in [i8::MIN, -11, -10, 5, 22, 23, 0x7f] {
        let [during, after] = requests(log);
        // 128 in a second are the limit.
        assert!((1..31 * 128).contains(&during), "{log}: {during}");
        assert!((25..150).contains(&after), "{log}: {after} requests in a minute");
    }
}

/// Both ways of somebody who knows the time as well as the grandmaster does, and says it a little false: what is
/// measured of a path of 30 ms each way while he answers each request `by` ms off before, or after, the parent does.
fn answered_twice(by: i64, is_first: bool) -> Vec<i64> {
    let mut bench = Bench::new(config());
    bench.announced((0, 3), |_, _| {});
    bench.sync(1, timestamp(2_000), Flags(0));
    for millis in 3_000..63_000 {
        bench.go(millis);
        if millis % 1_000 == 0 {
            bench.put(&Says::good(GM).bytes((millis / 1_000) as u16));
        }
        for (_, token, sequence_id) in core::mem::take(&mut bench.requests) {
            let stamp = Stamp::new(at(millis), StampSource::Simulated);
            bench.receiver.handle_tx_stamp(at(millis), token, Some(stamp));
            let (own, other) = (timestamp(millis + 30), timestamp(millis + 30 + by));
            let both = if is_first { [other, own] } else { [own, other] };
            both.into_iter().for_each(|receive| bench.delay_resp(sequence_id, receive, 0));
        }
    }
    let base = timestamp(0);
    let measured = bench.observations.iter().filter_map(|each| match each {
        Observation::Delay(delay) => {
            Some(((delay.t4 - Time::<Ptp>::from(base)) - (delay.t3.time - at(0))).as_nanos())
        }
        _ => None,
    });
    measured.map(|ns| ns / 1_000_000).collect()
}

#[test]
fn of_two_answers_that_contradict_each_other_neither_is_used() {
    for by in [-25, -2, 2, 400] {
        for is_first in [true, false] {
            let measured = answered_twice(by, is_first);
            // Before the second pair it may have been an accident.
            assert!(measured.len() <= 2, "{by} {is_first}: {measured:?}");
        }
    }
    let agreeing = answered_twice(0, true);
    assert!(agreeing.len() > 30 && agreeing.iter().all(|ms| *ms == 30), "{agreeing:?}");
}

#[test]
fn follow_up_that_lies_in_its_correction_alone_is_contradicted_too() {
    let mut bench = Bench::new(config());
    bench.announced((0, 3), |_, _| {});
    for n in 1..60_u16 {
        bench.go(3_000 + i64::from(n) * 100);
        bench.sync(n, Timestamp::ZERO, Flags::TWO_STEP);
        let mut header = Header::new(GM, n);
        header.correction = TimeInterval::from(Duration::from_micros(-20));
        let precise_origin_timestamp = timestamp(3_000 + i64::from(n) * 100);
        bench.put(&wire(header, Body::FollowUp { precise_origin_timestamp }));
        bench.follow_up(n, precise_origin_timestamp);
    }
    assert!(bench.observations.len() <= 2, "{}", bench.observations.len());
}

#[test]
fn clock_that_has_lost_its_time_asks_as_soon_as_sync_is_back_whatever_interval_was_forged() {
    for seed in 0..50 {
        let mut bench = Bench::new(ReceiverConfig { seed, ..config() });
        bench.announced((0, 3), |_, _| {});
        let (mut first_after, mut is_held) = (None, false);
        for millis in 3_000..200_000 {
            bench.go(millis);
            if millis % 1_000 == 0 {
                bench.put(&Says::good(GM).bytes((millis / 1_000) as u16));
            }
            // Two minutes of answers with an interval of weeks, twelve seconds without Sync, and peace.
            let is_silent = (120_000..132_000).contains(&millis);
            if millis % 500 == 0 && !is_silent {
                bench.sync((millis / 500) as u16, timestamp(millis), Flags(0));
            }
            if millis == 20_000 {
                bench.receiver.synchronize(Synchronization::Locked);
            }
            if millis == 124_000 {
                bench.receiver.synchronize(Synchronization::Unlocked);
                is_held = true;
            }
            for (_, token, sequence_id) in core::mem::take(&mut bench.requests) {
                if is_held && !is_silent {
                    first_after.get_or_insert(millis);
                }
                let stamp = Stamp::new(at(millis), StampSource::Simulated);
                bench.receiver.handle_tx_stamp(at(millis), token, Some(stamp));
                let log = if millis < 120_000 { 22 } else { 0 };
                bench.delay_resp(sequence_id, timestamp(millis), log);
            }
        }
        // At the configured mean of a second it is two seconds at the most.
        let first_after = first_after.unwrap_or(i64::MAX);
        assert!(first_after <= 134_500, "{seed}: {first_after}");
    }
}
