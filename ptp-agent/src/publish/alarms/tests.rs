//! The alarms in invented time.

use proptest::prelude::*;

use super::{hysteresis::Patience, *};

fn at(seconds: i64) -> Time<Mono> {
    Time::ZERO + Duration::from_secs(seconds)
}

fn identity(number: u8) -> ClockIdentity {
    ClockIdentity([number; 8])
}

/// A second of good time-keeping at 16 Sync/s.
fn good_second(facts: &mut Facts) {
    let totals = &mut facts.totals;
    totals.syncs += 16;
    totals.delays += 16;
    totals.rx_stamps += 16;
    totals.tx_stamps += 16;
}

fn good() -> Facts {
    Facts {
        ports_up: 1,
        grandmaster: Some(identity(1)),
        interval: Some(Duration::from_nanos(62_500_000)),
        offset: Some(Duration::from_nanos(150)),
        servo: Some(ServoState::Locked),
        ..Facts::default()
    }
}

fn alarms() -> Alarms {
    Alarms::new(Role::Receiver, Limits::default(), at(0))
}

/// Runs seconds `from..to`, each changed by `second`; returns the changes with their time.
fn run(
    alarms: &mut Alarms,
    facts: &mut Facts,
    (from, to): (i64, i64),
    second: impl Fn(&mut Facts),
) -> Vec<(i64, Alarm, bool)> {
    let mut changes = Vec::new();
    for now in from..to {
        second(facts);
        for change in alarms.update(at(now), facts) {
            changes.push((now, change.alarm, change.is_raised));
        }
    }
    changes
}

#[test]
fn good_time_keeping_raises_nothing() {
    let (mut alarms, mut facts) = (alarms(), good());
    assert_eq!(run(&mut alarms, &mut facts, (0, 1000), good_second), []);
}

#[test]
fn start_without_anything_raises_no_announce_alone() {
    let mut facts = Facts { ports_up: 1, servo: Some(ServoState::Unlocked), ..Facts::default() };
    let changes = run(&mut alarms(), &mut facts, (0, 600), |_| {});
    assert_eq!(changes, [(10, Alarm::NoAnnounce, true)]);
}

#[test]
fn each_loss_raises_its_own_alarm_and_recovery_clears_it() {
    type Second = fn(&mut Facts);
    let cases: [(Alarm, Second); 5] = [
        (Alarm::NoSync, |facts| facts.totals.delays += 16),
        (Alarm::NoFollowUp, |facts| {
            facts.totals.follow_ups_missing += 16;
            facts.totals.rx_stamps += 16;
            facts.totals.delays += 16;
        }),
        (Alarm::NoRxStamp, |facts| {
            facts.totals.rx_stamps_missing += 16;
            facts.totals.delays += 16;
        }),
        (Alarm::NoTxStamp, |facts| {
            facts.totals.tx_stamps_missing += 16;
            facts.totals.rx_stamps += 16;
            facts.totals.syncs += 16;
        }),
        (Alarm::NoDelayResp, |facts| {
            facts.totals.delays_unanswered += 16;
            facts.totals.rx_stamps += 16;
            facts.totals.tx_stamps += 16;
            facts.totals.syncs += 16;
        }),
    ];
    for (alarm, bad_second) in cases {
        let (mut alarms, mut facts) = (alarms(), good());
        run(&mut alarms, &mut facts, (0, 20), good_second);
        let raised = run(&mut alarms, &mut facts, (20, 40), bad_second);
        assert_eq!(raised.len(), 1, "{alarm:?}: {raised:?}");
        assert_eq!((raised[0].1, raised[0].2), (alarm, true));
        let cleared = run(&mut alarms, &mut facts, (40, 80), good_second);
        assert_eq!(cleared.len(), 1, "{alarm:?}: {cleared:?}");
        assert_eq!((cleared[0].1, cleared[0].2), (alarm, false));
    }
}

#[test]
fn slow_messages_are_given_their_time() {
    let (mut alarms, mut facts) = (alarms(), good());
    facts.interval = Some(Duration::from_secs(16));
    let changes = run(&mut alarms, &mut facts, (0, 600), |_| {});
    // Nothing at all for 8 intervals, and not before.
    assert_eq!(changes, [(128, Alarm::NoSync, true)]);
}

#[test]
fn single_losses_raise_nothing() {
    let (mut alarms, mut facts) = (alarms(), good());
    let changes = run(&mut alarms, &mut facts, (0, 300), |facts| {
        good_second(facts);
        facts.totals.rx_stamps_missing += 1;
        facts.totals.tx_stamps_missing += 1;
        facts.totals.delays_unanswered += 2;
        facts.totals.follow_ups_missing += 3;
        facts.totals.fallbacks += 1;
    });
    assert_eq!(changes, []);
}

#[test]
fn share_at_its_limit_raises_its_alarm_once() {
    type Bad = fn(&mut Totals);
    let kinds: [(Alarm, Bad); 4] = [
        (Alarm::NoDelayResp, |totals| totals.delays_unanswered += 1),
        (Alarm::NoFollowUp, |totals| totals.follow_ups_missing += 1),
        (Alarm::StampsInterrupted, |totals| totals.tx_interrupted += 1),
        (Alarm::SpoofingSuspected, |totals| totals.replayed += 1),
    ];
    for (alarm, one) in kinds {
        let (mut alarms, mut facts) = (alarms(), good());
        let n = std::cell::Cell::new(0_u64);
        // As much as is used, a little more for half a minute, a little less for the next.
        let changes = run(&mut alarms, &mut facts, (0, 900), |facts| {
            let before = facts.totals;
            good_second(facts);
            let used = match alarm {
                Alarm::NoDelayResp => facts.totals.delays - before.delays,
                Alarm::NoFollowUp => facts.totals.syncs - before.syncs,
                Alarm::StampsInterrupted => (facts.totals.tx_stamps - before.tx_stamps) / 9,
                _ => 1,
            };
            n.set(n.get() + 1);
            let more = (n.get() / 30).is_multiple_of(2);
            let bad = if more { 5 * used / 4 + 1 } else { (3 * used / 4).max(1) };
            (0..bad).for_each(|_| one(&mut facts.totals));
        });
        let of_it: Vec<_> = changes.iter().filter(|change| change.1 == alarm).collect();
        assert!(matches!(of_it[..], [(_, _, true)]), "{alarm:?}: {changes:?}");
    }
}

#[test]
fn offset_is_judged_with_a_band() {
    let (mut alarms, mut facts) = (alarms(), good());
    let offset = |nanos| {
        move |facts: &mut Facts| {
            good_second(facts);
            facts.offset = Some(Duration::from_nanos(nanos));
        }
    };
    assert_eq!(run(&mut alarms, &mut facts, (0, 20), offset(-99_000)), []);
    let raised = run(&mut alarms, &mut facts, (20, 40), offset(-101_000));
    assert_eq!(raised, [(25, Alarm::OffsetAboveThreshold, true)]);
    assert_eq!(run(&mut alarms, &mut facts, (40, 100), offset(60_000)), []);
    let cleared = run(&mut alarms, &mut facts, (100, 120), offset(49_000));
    assert_eq!(cleared, [(110, Alarm::OffsetAboveThreshold, false)]);
}

#[test]
fn offset_of_tai_minus_utc_is_a_confusion_of_time_scales() {
    for seconds in [37, -37] {
        let (mut alarms, mut facts) = (alarms(), good());
        facts.offset = Some(Duration::from_secs(seconds) + Duration::from_nanos(4_000_000));
        facts.servo = Some(ServoState::Unlocked);
        let changes = run(&mut alarms, &mut facts, (0, 30), good_second);
        assert_eq!(changes, [(5, Alarm::TimeScaleMismatch, true)]);
    }
}

#[test]
fn another_grandmaster_is_told_once_and_named() {
    let (mut alarms, mut facts) = (alarms(), good());
    run(&mut alarms, &mut facts, (0, 20), good_second);
    facts.grandmaster = None;
    run(&mut alarms, &mut facts, (20, 24), good_second);
    facts.grandmaster = Some(identity(2));
    let changes = alarms.update(at(24), &facts);
    assert_eq!(changes.len(), 1);
    assert_eq!((changes[0].alarm, changes[0].is_raised), (Alarm::GrandmasterChanged, true));
    assert!(changes[0].detail.contains("0101") && changes[0].detail.contains("0202"));
    let cleared = run(&mut alarms, &mut facts, (25, 400), good_second);
    assert_eq!(cleared, [(325, Alarm::GrandmasterChanged, false)]);
}

#[test]
fn first_step_of_the_clock_is_no_alarm() {
    let (mut alarms, mut facts) = (alarms(), good());
    facts.servo = Some(ServoState::Unlocked);
    run(&mut alarms, &mut facts, (0, 10), good_second);
    facts.totals.clock_steps = 1;
    facts.servo = Some(ServoState::Jump);
    run(&mut alarms, &mut facts, (10, 11), good_second);
    facts.servo = Some(ServoState::Locked);
    // The step is not recent any more when the next one comes.
    assert_eq!(run(&mut alarms, &mut facts, (11, 12), good_second), []);
    assert_eq!(run(&mut alarms, &mut facts, (20, 40), good_second), []);
    facts.totals.clock_steps = 2;
    let changes = run(&mut alarms, &mut facts, (40, 42), good_second);
    assert_eq!(changes, [(40, Alarm::ClockStepped, true)]);
}

/// As it was seen: the first look after the step finds the servo locked already, and the step within
/// the window.
#[test]
fn first_step_is_no_alarm_when_the_lock_follows_at_once() {
    for looks_at_the_jump in [false, true] {
        let (mut alarms, mut facts) = (alarms(), good());
        facts.servo = Some(ServoState::Unlocked);
        run(&mut alarms, &mut facts, (0, 10), good_second);
        facts.totals.clock_steps = 1;
        if looks_at_the_jump {
            facts.servo = Some(ServoState::Jump);
            run(&mut alarms, &mut facts, (10, 11), good_second);
        }
        facts.servo = Some(ServoState::Locked);
        assert_eq!(run(&mut alarms, &mut facts, (11, 400), good_second), []);
        // Also one that comes soon after the first is an alarm.
        facts.totals.clock_steps = 2;
        let changes = run(&mut alarms, &mut facts, (400, 402), good_second);
        assert_eq!(changes, [(400, Alarm::ClockStepped, true)]);
    }
}

#[test]
fn a_software_clock_that_was_begun_in_utc_is_no_confusion_until_it_has_locked() {
    let (mut alarms, mut facts) = (alarms(), good());
    facts.is_software = true;
    facts.offset = Some(Duration::from_secs(-37));
    facts.servo = Some(ServoState::Unlocked);
    assert_eq!(run(&mut alarms, &mut facts, (0, 50), good_second), []);
    facts.servo = Some(ServoState::Locked);
    facts.offset = Some(Duration::from_nanos(100));
    assert_eq!(run(&mut alarms, &mut facts, (50, 100), good_second), []);
    facts.offset = Some(Duration::from_secs(37));
    let changes = run(&mut alarms, &mut facts, (100, 106), good_second);
    assert!(changes.contains(&(105, Alarm::TimeScaleMismatch, true)), "{changes:?}");
}

#[test]
fn an_estimate_outside_what_is_possible_is_an_alarm_while_it_is_clipped() {
    let (mut alarms, mut facts) = (alarms(), good());
    facts.is_clipped = true;
    let raised = run(&mut alarms, &mut facts, (0, 10), good_second);
    assert_eq!(raised, [(2, Alarm::EstimateClipped, true)]);
    facts.is_clipped = false;
    let cleared = run(&mut alarms, &mut facts, (10, 60), good_second);
    assert_eq!(cleared, [(40, Alarm::EstimateClipped, false)]);
}

#[test]
fn stamps_that_contradict_each_other_are_a_doubt_when_they_are_many_or_it_lasts() {
    let contradicting = |every: u64| {
        move |facts: &mut Facts| {
            good_second(facts);
            facts.totals.contradictions = facts.totals.syncs / every;
        }
    };
    for (every, is_doubtful) in [(4, true), (16, false), (1_000, false)] {
        let (mut alarms, mut facts) = (alarms(), good());
        let changes = run(&mut alarms, &mut facts, (0, 60), contradicting(every));
        assert_eq!(!changes.is_empty(), is_doubtful, "1 of {every}: {changes:?}");
        assert!(changes.iter().all(|(_, alarm, _)| *alarm == Alarm::TimeInDoubt));
    }
    // One that the next honest one has not refuted yet.
    let (mut alarms, mut facts) = (alarms(), good());
    let doubt = |facts: &mut Facts| {
        good_second(facts);
        facts.is_in_doubt = true;
    };
    let raised = run(&mut alarms, &mut facts, (0, 10), doubt);
    assert_eq!(raised, [(3, Alarm::TimeInDoubt, true)]);
}

#[test]
fn time_that_is_withheld_says_why() {
    let (mut alarms, mut facts) = (alarms(), good());
    facts.withheld = Some("absurd".to_owned());
    run(&mut alarms, &mut facts, (0, 5), good_second);
    let changes = alarms.update(at(5), &facts);
    assert_eq!((changes[0].alarm, &*changes[0].detail), (Alarm::TimeWithheld, "absurd"));
}

#[test]
fn roles_raise_only_what_applies_to_them() {
    let names = |role| -> Vec<&str> {
        Alarms::new(role, Limits::default(), at(0)).all().map(|(alarm, _)| alarm.name()).collect()
    };
    // Nobody asks a time receiver, and it forwards nothing.
    let forwards = ["corrections_missing", "double_correction", "hardware_forwarding"];
    let all = Alarm::ALL
        .iter()
        .map(|alarm| alarm.name())
        .filter(|name| !["request_flood", "no_kernel_answers"].contains(name))
        .filter(|name| !forwards.contains(name));
    let both = ["link_down", "endpoint_unavailable"];
    assert_eq!(names(Role::Transparent), [&both[..], &forwards].concat());
    assert_eq!(names(Role::Receiver), all.collect::<Vec<_>>());
    assert!(!names(Role::Transmitter).contains(&"no_sync"));
    assert!(!names(Role::Observer).contains(&"holdover"));
}

#[test]
fn names_are_labels_and_explanations_say_what_to_do() {
    for alarm in Alarm::ALL {
        assert!(alarm.name().chars().all(|c| c.is_ascii_lowercase() || c == '_'));
        assert!(alarm.explanation().lines().count() >= 2, "{}", alarm.name());
        assert!(alarm.summary().len() < 60, "{}", alarm.name());
    }
    let names: std::collections::BTreeSet<_> = Alarm::ALL.iter().map(|it| it.name()).collect();
    assert_eq!(names.len(), Alarm::ALL.len());
}

#[test]
fn documentation_has_every_alarm_and_every_metric() {
    let page = include_str!("../../../../docs/operation.md");
    let alarms = Alarm::ALL.iter().map(|alarm| alarm.name());
    for name in alarms.chain(crate::publish::metrics::FAMILIES.iter().map(|it| it.name)) {
        assert!(page.contains(&format!("`{name}`")), "{name}");
    }
}

#[test]
fn what_nobody_sends_by_himself_raises_spoofing_suspected_and_says_what_it_is() {
    type Second = fn(&mut Totals);
    let kinds: [(&str, Second); 5] = [
        ("replayed", |totals| totals.replayed += 1),
        ("duplicate", |totals| totals.duplicate += 1),
        ("self_sent", |totals| totals.self_sent += 1),
        ("unmatched", |totals| totals.unmatched += 1),
        ("unconfirmed", |totals| totals.unconfirmed += 1),
    ];
    for (name, one) in kinds {
        let (mut alarms, mut facts) = (alarms(), good());
        let changes = run(&mut alarms, &mut facts, (0, 100), |facts| {
            good_second(facts);
            one(&mut facts.totals);
        });
        let [(at, Alarm::SpoofingSuspected, true)] = changes[..] else { panic!("{changes:?}") };
        assert!((10..30).contains(&at), "{at}");
        assert!(alarms.detail(Alarm::SpoofingSuspected).starts_with(name));
        let changes = run(&mut alarms, &mut facts, (100, 200), good_second);
        assert_eq!(changes.len(), 1, "{changes:?}");
        assert_eq!(alarms.detail(Alarm::SpoofingSuspected), "");
    }
}

#[test]
fn honest_change_of_grandmaster_is_no_spoofing() {
    let (mut alarms, mut facts) = (alarms(), good());
    run(&mut alarms, &mut facts, (0, 20), good_second);
    facts.totals.unconfirmed += 2;
    facts.totals.replayed += 2;
    assert_eq!(run(&mut alarms, &mut facts, (20, 100), good_second), []);
}

#[test]
fn full_table_and_changed_round_trip_raise_their_own_alarm() {
    let trend = |has_changed| RoundTripTrend {
        usual: Duration::from_micros(40),
        present: Duration::from_micros(490),
        has_changed,
    };
    let (mut alarms, mut facts) = (alarms(), good());
    let changes = run(&mut alarms, &mut facts, (0, 60), |facts| {
        good_second(facts);
        facts.totals.table_full += 100;
        facts.round_trip = Some(trend(facts.totals.syncs > 16 * 30));
    });
    let raised: Vec<_> = changes.iter().map(|(_, alarm, raised)| (*alarm, *raised)).collect();
    assert_eq!(raised, [(Alarm::TablePressure, true), (Alarm::DelayAttackSuspected, true)]);
    let detail = alarms.detail(Alarm::DelayAttackSuspected);
    assert!(detail.contains("490") && detail.contains("40"), "{detail}");
}

#[test]
fn flood_of_requests_is_told_as_a_flood() {
    let mut alarms = Alarms::new(Role::Transmitter, Limits::default(), at(0));
    let mut facts = Facts { ports_up: 1, ..Facts::default() };
    let changes = run(&mut alarms, &mut facts, (0, 60), |facts| {
        facts.totals.rx_stamps += 1_000;
        facts.totals.rx_stamps_missing += 20_000;
        facts.totals.tx_stamps += 1;
        facts.totals.refused += 10_000;
    });
    let raised: Vec<_> = changes.iter().map(|(_, alarm, raised)| (*alarm, *raised)).collect();
    assert_eq!(raised, [(Alarm::RequestFlood, true)]);
}

#[test]
fn flood_that_is_held_back_in_front_of_the_socket_is_told_as_long_as_it_lasts() {
    for (role, alarm) in
        [(Role::Transmitter, Alarm::RequestFlood), (Role::Receiver, Alarm::RingLoss)]
    {
        let mut alarms = Alarms::new(role, Limits::default(), at(0));
        let mut facts = good();
        let changes = run(&mut alarms, &mut facts, (0, 120), |facts| {
            good_second(facts);
            facts.totals.rx_stamps_missing += 40;
            facts.totals.overflowed += 40_000;
        });
        let raised: Vec<_> = changes.iter().map(|(_, alarm, raised)| (*alarm, *raised)).collect();
        assert_eq!(raised, [(alarm, true)]);
        assert!(alarms.detail(alarm).contains("4800000"), "{}", alarms.detail(alarm));
        // A wrong checksum now and then, which the kernel counts with them, is none.
        let changes = run(&mut alarms, &mut facts, (120, 300), |facts| {
            good_second(facts);
            facts.totals.overflowed += 8;
        });
        let cleared: Vec<_> = changes.iter().map(|(_, alarm, raised)| (*alarm, *raised)).collect();
        assert_eq!(cleared, [(alarm, false)]);
    }
}

#[test]
fn third_of_the_messages_without_usable_stamps_is_an_alarm_of_its_own() {
    let mut alarms = Alarms::new(Role::Transmitter, Limits::default(), at(0));
    let mut facts = Facts { ports_up: 1, ..Facts::default() };
    let changes = run(&mut alarms, &mut facts, (0, 60), |facts| {
        facts.totals.tx_stamps += 2;
        facts.totals.tx_interrupted += 1;
    });
    let raised: Vec<_> = changes.iter().map(|(_, alarm, raised)| (*alarm, *raised)).collect();
    assert_eq!(raised, [(Alarm::StampsInterrupted, true)]);
    assert_eq!(alarms.detail(Alarm::StampsInterrupted), "5 of 15 messages");
}

#[test]
fn no_announce_says_what_is_heard_instead() {
    let (mut alarms, mut facts) = (alarms(), Facts { ports_up: 1, ..Facts::default() });
    facts.hints = vec!["a time transmitter in domain 24".into()];
    run(&mut alarms, &mut facts, (0, 60), |facts| facts.totals.rx_orphaned += 2);
    let detail = alarms.detail(Alarm::NoAnnounce);
    assert!(detail.starts_with("a time transmitter in domain 24; "), "{detail}");
    assert!(detail.contains("rp_filter"), "{detail}");
}

fn arbitrary_facts() -> impl Strategy<Value = Facts> {
    let totals = prop::array::uniform25(prop_oneof![0u64..100, any::<u64>()]);
    let more = (
        0usize..3,
        0usize..3,
        prop::option::of(0u8..3),
        prop::option::of(any::<i64>()),
        prop::option::of(any::<i64>()),
        prop::option::of(0usize..4),
        prop::option::of(any::<i64>()),
        any::<[bool; 6]>(),
    );
    (totals, more).prop_map(|(t, (up, down, grandmaster, interval, offset, servo, utc, is))| {
        Facts {
            totals: Totals {
                syncs: t[0],
                follow_ups_missing: t[1],
                delays: t[2],
                delays_unanswered: t[3],
                rx_stamps: t[4],
                rx_stamps_missing: t[5],
                tx_stamps: t[6],
                tx_stamps_missing: t[7],
                fallbacks: t[8],
                ring_lost: t[9],
                clock_errors: t[10],
                clock_steps: t[11],
                contradictions: t[12],
                replayed: t[13],
                duplicate: t[14],
                self_sent: t[15],
                unmatched: t[16],
                unconfirmed: t[17],
                table_full: t[18],
                implausible: t[19],
                refused: t[20],
                rx_orphaned: t[21],
                tx_interrupted: t[22],
                unauthentic: t[23],
                other_address: t[24],
                other_sender: t[24],
                overflowed: t[20],
            },
            ports_up: up,
            ports_down: down,
            grandmaster: grandmaster.map(identity),
            interval: interval.map(Duration::from_nanos),
            offset: offset.map(Duration::from_nanos),
            servo: servo.map(|at| ServoState::ALL[at]),
            utc_offset: utc,
            is_steered_elsewhere: is[0],
            is_unserved: is[1],
            is_software: is[2],
            is_clipped: is[3],
            is_in_doubt: is[4],
            is_displaced: is[5],
            withheld: is[0].then(|| "why".to_owned()),
            round_trip: None,
            refused: None,
            raw_apart: None,
            hints: Vec::new(),
            ..Facts::default()
        }
    })
}

proptest! {
    /// Whatever the facts and however time runs: no panic, bounded memory, and what is told of
    /// changes is the state.
    #[test]
    fn changes_add_up_to_the_state(
        steps in prop::collection::vec((-10_000i64..100_000_000_000, arbitrary_facts()), 1..100),
    ) {
        let mut alarms = alarms();
        let mut told = std::collections::BTreeSet::new();
        let mut now = at(0);
        for (apart, facts) in steps {
            now += Duration::from_nanos(apart);
            for change in alarms.update(now, &facts) {
                let is_new = if change.is_raised { told.insert(change.alarm) } else { told.remove(&change.alarm) };
                prop_assert!(is_new, "{:?} told twice", change.alarm);
            }
            let raised: std::collections::BTreeSet<_> = alarms.raised().map(|(it, _)| it).collect();
            prop_assert_eq!(&raised, &told);
            prop_assert!(alarms.window.looks() <= 70);
        }
    }

    /// An alarm is raised exactly when its condition has held for so long, and never flaps faster
    /// than its patience.
    #[test]
    fn state_changes_only_after_patience(
        conditions in prop::collection::vec(any::<bool>(), 1..200),
        raise in 0i64..6,
        clear in 0i64..6,
    ) {
        let patience =
            Patience { raise: Duration::from_secs(raise), clear: Duration::from_secs(clear) };
        let mut state = Hysteresis::new(at(0));
        let mut held = 0;
        for (now, condition) in conditions.iter().enumerate() {
            let before = state.is_raised();
            held = if *condition == before { 0 } else { held + 1 };
            let needed = if *condition { raise } else { clear };
            let is_due = held > needed;
            let changed = state.update(at(now as i64), *condition, patience).is_some();
            prop_assert_eq!(changed, is_due);
            prop_assert_eq!(state.is_raised(), if is_due { *condition } else { before });
            if changed { held = 0; }
        }
    }
}
