//! What holds of every servo whatever it is told: nothing panics, nothing asks for what no clock can do, and
//! where stamps are honest the truth is inside the interval.

use super::*;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Told {
    Sync { late_ns: i64, doubt_ns: i64, correction_ns: i64, log_interval: Option<i8> },
    Delay { late_ns: i64, doubt_ns: i64 },
    PeerDelay(i64),
    ParentChanged,
    Holdover,
}

/// Mostly what a network does, and now and then anything at all.
fn nanos() -> impl Strategy<Value = i64> {
    prop_oneof![
        8 => 0i64..100_000,
        1 => prop::sample::select(vec![-1_000_000_000, 1_000_000_000, 1 << 27, -(1 << 27)]),
        1 => any::<i64>(),
    ]
}

fn told() -> impl Strategy<Value = Told> {
    let log_interval = prop::option::of(any::<i8>());
    let doubt = || prop_oneof![4 => Just(0i64), 1 => 0i64..1_000_000, 1 => any::<i64>()];
    let sync = (nanos(), doubt(), nanos(), log_interval);
    prop_oneof![
        8 => sync.prop_map(|(late_ns, doubt_ns, correction_ns, log_interval)| {
            Told::Sync { late_ns, doubt_ns, correction_ns, log_interval }
        }),
        8 => (nanos(), doubt()).prop_map(|(late_ns, doubt_ns)| Told::Delay { late_ns, doubt_ns }),
        1 => nanos().prop_map(Told::PeerDelay),
        1 => Just(Told::ParentChanged),
        1 => Just(Told::Holdover),
    ]
}

fn local(now: Time<Free>, doubt_ns: i64) -> LocalTime {
    let clock = Time::from_nanos(now.as_nanos());
    let doubt = Duration::from_nanos(doubt_ns);
    LocalTime { mono: now, clock, source: StampSource::Simulated, doubt }
}

fn ptp(now: Time<Free>, by_ns: i64) -> Time<Ptp> {
    Time::from_nanos(now.as_nanos()) + Duration::from_nanos(by_ns)
}

fn servos() -> impl Iterator<Item = Box<dyn Servo>> {
    [Purpose::Steer, Purpose::Watch].into_iter().flat_map(|purpose| {
        let options = Options { purpose, ..Options::default() };
        Method::ALL.map(|method| build(&Choice { method, ..Choice::default() }, &options))
    })
}

#[test]
fn a_clock_that_is_off_by_a_tenth_is_found_at_once() {
    for tenth in [1.0 / 0.91 - 1.0, 1.0 / 1.09 - 1.0] {
        let mut servo = build(&Choice::default(), &Options::default());
        let mut told = None;
        for second in 0..20i64 {
            let at = |nanos: i64| -> Time<Free> {
                Time::from_nanos(((second * 1_000_000_000 + nanos) as f64 * (1.0 + tenth)) as i64)
            };
            let (t1, sequence_id) = (Time::from_nanos(second * 1_000_000_000), second as u16);
            let correction = Duration::ZERO;
            let t2 = local(at(100 + second * 37 % 50), 0);
            let sync = SyncInput { t1, t2, sequence_id, log_interval: Some(0), correction };
            told = servo.sync(sync).or(told);
            let sent = (second * 271 % 900 + 50) * 1_000_000;
            let t4 = Time::from_nanos(second * 1_000_000_000 + sent + 100 + second * 41 % 50);
            servo.delay(DelayInput { t3: local(at(sent), 0), t4, sequence_id, correction });
        }
        let told = told.expect("twenty exchanges");
        assert_ne!(told.state, ServoState::Unlocked);
        let slow = -tenth * 1e9;
        assert!((told.frequency_ppb - slow).abs() < 1e8 * 1.01, "{told:?}");
        assert!((told.delay.as_nanos() - 125).abs() < 100, "{told:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn whatever_is_told_nothing_asks_for_what_no_clock_can_do(
        course in prop::collection::vec((told(), 0u32..45), 1..200),
    ) {
        for mut servo in servos() {
            servo.limit_frequency(500_000.0);
            let mut now: Time<Free> = Time::from_nanos(1_000_000_000);
            for (sequence_id, (told, step)) in (0u16..).zip(&course) {
                // From the same instant again to five hours later, and clocks that stand.
                now += Duration::from_nanos((1i64 << step) - 1);
                let correction = Duration::ZERO;
                let output = match *told {
                    Told::Sync { late_ns, doubt_ns, correction_ns, log_interval } => {
                        let correction = Duration::from_nanos(correction_ns);
                        let (t1, t2) = (ptp(now, late_ns.saturating_neg()), local(now, doubt_ns));
                        servo.sync(SyncInput { t1, t2, sequence_id, log_interval, correction })
                    }
                    Told::Delay { late_ns, doubt_ns } => {
                        let (t3, t4) = (local(now, doubt_ns), ptp(now, late_ns));
                        servo.delay(DelayInput { t3, t4, sequence_id, correction });
                        None
                    }
                    Told::PeerDelay(nanos) => {
                        let mean_link_delay = Duration::from_nanos(nanos);
                        let neighbor_rate_ratio = None;
                        let mono = now;
                        servo.peer_delay(PeerDelayInput { mono, mean_link_delay, neighbor_rate_ratio });
                        None
                    }
                    Told::ParentChanged => {
                        servo.parent_changed();
                        None
                    }
                    Told::Holdover => {
                        let ppb = servo.holdover(now);
                        prop_assert!(ppb.is_none_or(|ppb| ppb.abs() <= 500_000.0), "{ppb:?}");
                        None
                    }
                };
                if let Some(output) = output {
                    prop_assert!(output.frequency_ppb.abs() <= 500_000.0, "{output:?}");
                    servo.adjusted(now, output.frequency_ppb, output.step);
                }
                if let Some(trust) = servo.trust(now, Duration::ZERO) {
                    prop_assert!(trust.interval.lo <= trust.interval.hi, "{trust:?}");
                    prop_assert!(trust.bound >= Duration::ZERO, "{trust:?}");
                }
            }
        }
    }

    #[test]
    fn where_stamps_are_honest_the_truth_is_inside_the_interval(
        seed in any::<u64>(),
        offset_ns in -1_000_000_000i64..1_000_000_000,
        ppb in -100_000i64..100_000,
        scale_ns in prop::sample::select(vec![100u64, 1_000, 30_000, 1_000_000]),
        floors_ns in (0i64..200_000, 0i64..200_000),
        step_ms in prop::sample::select(vec![8i64, 62, 500, 2_000]),
    ) {
        let options = Options { purpose: Purpose::Watch, ..Options::default() };
        let mut servo = build(&Choice::default(), &options);
        let mut random = seed | 1;
        // Most are fast, a few are slow: any distribution will do.
        let mut beyond_ns = || {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let zeros = u64::from((random >> 8).leading_zeros().saturating_sub(8));
            (zeros * scale_ns + (random >> 33) % scale_ns.max(1)) as i64
        };
        let begin: Time<Free> = Time::from_nanos(1_000_000_000_000);
        let truth = |now: Time<Free>| {
            let age_s = (now - begin).as_secs_f64();
            Duration::from_nanos(offset_ns) + Duration::from_nanos_f64(ppb as f64 * age_s)
        };
        let mut known = 0;
        for n in 0..600u16 {
            let now = begin + Duration::from_nanos(i64::from(n) * step_ms * 1_000_000);
            // The clock shows monotonic time, which is `truth` ahead of the time transmitter.
            let sent = Time::from_nanos(now.as_nanos()) - truth(now);
            let delay = Duration::from_nanos(floors_ns.0 + beyond_ns());
            let sync = SyncInput {
                t1: sent - delay,
                t2: local(now, 0),
                sequence_id: n,
                log_interval: None,
                correction: Duration::ZERO,
            };
            let trust = servo.sync(sync).and_then(|output| output.trust);
            if let Some(trust) = trust {
                known += 1;
                prop_assert!(trust.interval.contains(truth(now)), "{n}: {trust:?} {:?}", truth(now));
                prop_assert!(truth(now).abs() <= trust.bound, "{n}: {trust:?} {:?}", truth(now));
            }
            let at = now + Duration::from_nanos(step_ms * 500_000);
            let arrived = Time::from_nanos(at.as_nanos()) - truth(at);
            let delay = Duration::from_nanos(floors_ns.1 + beyond_ns());
            let (t3, t4) = (local(at, 0), arrived + delay);
            servo.delay(DelayInput { t3, t4, sequence_id: n, correction: Duration::ZERO });
        }
        prop_assert!(known > 0);
    }
}
