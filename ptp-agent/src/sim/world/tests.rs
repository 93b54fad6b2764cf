//! What the scenario language says is what the servo is shown: a servo that only listens, on oscillators
//! that are right, so that every nanosecond between two stamps is the scenario's.

use std::path::Path;

use super::*;
use crate::{engine::testing::Listening, servo::Observed};
use ptp_common::time::Free;

/// One exchange: when it was stamped first and second, nanoseconds since the start, and what transparent
/// clocks have said.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Way {
    sent_ns: f64,
    received_ns: f64,
    correction_ns: f64,
    sequence_id: u16,
}

impl Way {
    fn took_ns(&self) -> f64 {
        self.received_ns - self.sent_ns
    }
}

#[derive(Default)]
struct Heard {
    forward: Vec<Way>,
    backward: Vec<Way>,
}

fn local_ns(time: Time<Free>) -> f64 {
    time.ahead_of(START).as_nanos_f64()
}

fn served_ns(time: Time<Ptp>) -> f64 {
    (time - EPOCH).as_nanos_f64()
}

impl Heard {
    fn new(all: &[Observed]) -> Self {
        let mut heard = Self::default();
        for observed in all {
            match observed {
                Observed::Sync(input) => {
                    let correction_ns = input.correction.as_nanos_f64();
                    heard.forward.push(Way {
                        // Back to what the stamp said.
                        sent_ns: served_ns(input.t1) - correction_ns,
                        received_ns: local_ns(input.t2.mono),
                        correction_ns,
                        sequence_id: input.sequence_id,
                    });
                }
                Observed::Delay(input) => {
                    let correction_ns = input.correction.as_nanos_f64();
                    heard.backward.push(Way {
                        sent_ns: local_ns(input.t3.mono),
                        received_ns: served_ns(input.t4) + correction_ns,
                        correction_ns,
                        sequence_id: input.sequence_id,
                    });
                }
            }
        }
        heard
    }
}

/// Runs a scenario of 100 s with one grandmaster, four exchanges a second, 10 us each way.
fn hear(receiver: &str, grandmaster: &str) -> (Heard, World) {
    hear_at([-2, -2], receiver, grandmaster)
}

fn hear_at([sync, delay]: [i8; 2], receiver: &str, grandmaster: &str) -> (Heard, World) {
    let text = format!(
        "duration-s = 100\nseed = 5\n[time-receiver]\n{receiver}\n[[grandmaster]]\n\
         log-sync-interval = {sync}\nlog-min-delay-req-interval = {delay}\n\
         link.forward.base-delay-ns = 10000\n{grandmaster}\n"
    );
    let scenario = Scenario::parse("test", &text, Path::new(".")).unwrap();
    let servo = Listening::default();
    let mut world = World::new(&scenario, Box::new(servo.clone()));
    world.proceed(&scenario);
    let heard = Heard::new(&servo.heard());
    assert!(heard.forward.len() > 50 && heard.backward.len() > 50, "{text}");
    (heard, world)
}

fn all(ways: &[Way], took_ns: f64) -> bool {
    ways.iter().all(|way| (way.took_ns() - took_ns).abs() < 0.01)
}

fn share(ways: &[Way], is: impl Fn(&Way) -> bool) -> f64 {
    ways.iter().filter(|way| is(way)).count() as f64 / ways.len() as f64
}

#[test]
fn without_noise_a_packet_takes_what_the_link_takes() {
    let (Heard { forward, backward, .. }, _) = hear("", "");
    assert!(all(&forward, 10_000.0) && all(&backward, 10_000.0));
}

#[test]
fn stamps_may_be_on_the_wrong_side_of_the_wire() {
    let (Heard { forward, backward, .. }, _) = hear(
        "host.receive.constant.ns = -300\nhost.transmit.constant.ns = -4000",
        "host.receive.constant.ns = -20\nhost.transmit.constant.ns = -700",
    );
    assert!(all(&forward, 10_000.0 - 300.0 - 700.0), "{:?}", forward[0]);
    assert!(all(&backward, 10_000.0 - 4_000.0 - 20.0), "{:?}", backward[0]);
    // And on their own side they make the way longer.
    let (Heard { forward, backward, .. }, _) = hear(
        "host.receive.constant.ns = 300\nhost.transmit.constant.ns = 4000",
        "host.receive.constant.ns = 20\nhost.transmit.constant.ns = 700",
    );
    assert!(all(&forward, 11_000.0) && all(&backward, 14_020.0));
}

#[test]
fn what_the_agent_is_told_about_its_stamps_comes_with_them() {
    let scenario = "duration-s = 10\n[time-receiver.host]\nreceive-doubt-ns = 30\n\
                    transmit-doubt-ns = 500\n[[grandmaster]]\n";
    let scenario = Scenario::parse("test", scenario, Path::new(".")).unwrap();
    let world = World::new(&scenario, Box::new(Listening::default()));
    assert_eq!(world.host.receive_doubt, Duration::from_nanos(30));
    assert_eq!(world.host.transmit_doubt, Duration::from_nanos(500));
}

#[test]
fn packets_between_two_ticks_have_the_same_stamp() {
    let (Heard { forward, backward, .. }, _) = hear(
        "oscillator.frequency-ppb = 17300\nhost.receive-grid-ns = 50000\nhost.transmit-grid-ns = 1000",
        "link.forward.duplication = 0.5\nlink.forward.reordering = 0.0",
    );
    for way in &forward {
        let over = way.received_ns.rem_euclid(50_000.0);
        assert!(over.min(50_000.0 - over) < 0.01, "{way:?}");
    }
    for way in &backward {
        let over = way.sent_ns.rem_euclid(1_000.0);
        assert!(over.min(1_000.0 - over) < 0.01, "{way:?}");
    }
    // The rate error is 1.7 ms in 100 s, which is 35 ticks: all phases of the grid.
    let drift_ns = |way: &Way| 17_300e-9 * way.received_ns;
    let waits: Vec<f64> =
        forward.iter().map(|way| way.took_ns() - drift_ns(way) - 10_000.0).collect();
    assert!(waits.iter().all(|wait| (-2.0..50_002.0).contains(wait)), "{waits:?}");
    let mean = waits.iter().sum::<f64>() / waits.len() as f64;
    assert!((mean - 25_000.0).abs() < 2_000.0, "{mean}");
}

#[test]
fn bad_stamps_are_as_frequent_and_as_wrong_as_they_are_said_to_be() {
    let (Heard { forward, backward, .. }, _) = hear(
        "host.bad-stamps = { probability = 0.25, off-by-ns = 134217728, sign = \"ahead\", of = \"receive\" }",
        "host.bad-stamps = { probability = 0.25, of = \"receive\" }",
    );
    let wrong = |way: &Way| way.took_ns() - 10_000.0;
    assert!(forward.iter().all(|way| wrong(way) == 0.0 || wrong(way) == 134_217_728.0));
    assert!((share(&forward, |way| wrong(way) != 0.0) - 0.25).abs() < 0.08);
    for error_ns in [1e9, -1e9] {
        let found = share(&backward, |way| (wrong(way) - error_ns).abs() < 0.01);
        assert!((found - 0.125).abs() < 0.06, "{found}");
    }
}

#[test]
fn a_host_that_stands_still_is_late_with_everything_at_once() {
    let (Heard { forward, backward, .. }, _) =
        hear("host.stalls = [{ at-s = 20, length-s = 0.6, every-s = 30 }]", "");
    for from_ns in [20e9, 50e9, 80e9] {
        let still = from_ns..from_ns + 0.6e9;
        // The Sync messages of the time have arrived when it was over.
        let late: Vec<&Way> = forward.iter().filter(|way| still.contains(&way.sent_ns)).collect();
        assert!((2..=3).contains(&late.len()), "{late:?}");
        assert!(late.iter().all(|way| way.received_ns == still.end), "{late:?}");
        assert!(!backward.iter().any(|way| still.contains(&way.sent_ns)));
    }
    assert!(share(&forward, |way| way.took_ns() != 10_000.0) < 0.03);
}

#[test]
fn random_stalls_delay_what_comes_meanwhile() {
    let (Heard { forward, .. }, _) =
        hear("host.stall = { every-s = 2, length.constant.ns = 300000000 }", "");
    let late = share(&forward, |way| way.took_ns() > 10_000.0);
    assert!((late - 0.3 / 2.3).abs() < 0.06, "{late}");
    assert!(forward.iter().all(|way| way.took_ns() <= 300_010_000.0));
}

#[test]
fn a_grandmaster_that_stands_still_sends_late_and_stamps_late_together() {
    let (Heard { forward, backward, .. }, _) =
        hear("", "host.stall = { every-s = 2, length.constant.ns = 300000000 }");
    // Its own stamp is of the time when it runs again.
    assert!(share(&forward, |way| way.took_ns() == 10_000.0) > 0.99);
    let late = share(&backward, |way| way.took_ns() > 10_000.0);
    assert!((late - 0.3 / 2.3).abs() < 0.06, "{late}");
}

#[test]
fn a_cold_path_is_warmed_by_what_was_sent_or_received_before() {
    let cold = "host.transmit.cold = { cold-ns = 2000, warm-ns = 600, within-ms = 5 }";
    let (Heard { forward, backward, .. }, _) = hear(cold, cold);
    for (ways, warm_share) in [(&forward, 0.1..0.3), (&backward, 0.0..0.1)] {
        assert!(ways.iter().all(|way| [12_000.0, 10_600.0].contains(&way.took_ns())));
        // An Announce goes before every eighth Sync, and now and then a request has just come.
        let warm = share(ways, |way| way.took_ns() < 11_000.0);
        assert!(warm_share.contains(&warm), "{warm}");
    }
}

#[test]
fn a_one_step_sync_carries_its_own_stamp() {
    let noise = "host.transmit.uniform = { low-ns = 0, high-ns = 900 }";
    let (two_step, _) = hear("", noise);
    let (one_step, _) = hear("", &format!("one-step = true\n{noise}"));
    assert_eq!(two_step.forward, one_step.forward);
}

#[test]
fn some_sync_messages_have_no_follow_up() {
    let (plain, _) = hear("", "");
    let (some, _) = hear("", "follow-up-loss = 0.5");
    let left = some.forward.len() as f64 / plain.forward.len() as f64;
    assert!((left - 0.5).abs() < 0.1, "{left}");
}

#[test]
fn transparent_clocks_are_in_the_correction_field_of_both_ways() {
    let (Heard { forward, backward, .. }, _) = hear(
        "",
        "[[grandmaster.link.forward.transparent-clocks]]\n\
         residence.uniform = { low-ns = 1000, high-ns = 90000 }\nrate-error-ppb = 100000",
    );
    for way in forward.iter().chain(&backward) {
        let residence_ns = way.took_ns() - 10_000.0;
        assert!((1_000.0..90_001.0).contains(&residence_ns), "{way:?}");
        assert!((way.correction_ns - residence_ns * 1.0001).abs() < 0.01, "{way:?}");
    }
}

#[test]
fn what_grandmaster_and_boundary_clocks_are_is_announced() {
    let (_, world) = hear(
        "",
        "clock-class = 6\nclock-accuracy = 0x21\nsteps-removed = 2\n\
         boundary-clocks = [{ offset-ns = 40 }, { wander-ns = 100, time-constant-s = 30 }]",
    );
    let parent = world.client.receiver().parent().unwrap();
    assert_eq!(parent.steps_removed, 4);
    assert_eq!(parent.set.grandmaster_clock_quality.clock_class, 6);
    assert_eq!(parent.set.grandmaster_clock_quality.clock_accuracy.0, 0x21);
    assert_ne!(parent.set.grandmaster_identity, parent.set.parent_port_identity.clock_identity);
    assert_eq!(world.followed, 0);
}

#[test]
fn boundary_clocks_serve_another_time_than_the_grandmaster() {
    let (Heard { forward, .. }, _) = hear("", "boundary-clocks = [{ offset-ns = 40 }]");
    assert!(all(&forward, 9_960.0));
    let wander = "boundary-clocks = [{ wander-ns = 500, time-constant-s = 2 }]";
    let (Heard { forward, .. }, _) = hear("", wander);
    let square = forward.iter().map(|way| (way.took_ns() - 10_000.0).powi(2)).sum::<f64>();
    let sd = (square / forward.len() as f64).sqrt();
    assert!((sd - 500.0).abs() < 150.0, "{sd}");
    // It wanders: from one Sync to the next it is nearly the same.
    let steps = forward.windows(2).map(|pair| (pair[0].took_ns() - pair[1].took_ns()).powi(2));
    assert!((steps.sum::<f64>() / square).sqrt() < 0.7);
}

#[test]
fn the_error_is_counted_against_whom_the_bound_is() {
    for (settings, expected_ns) in
        [("", 0.0), ("servo-settings.boundary-clock-error-ns = 50", 40.0)]
    {
        let text = format!(
            "duration-s = 200\nwarm-up-s = 100\n{settings}\n[[grandmaster]]\n\
             boundary-clocks = [{{ offset-ns = 40 }}]\nlink.forward.base-delay-ns = 10000\n"
        );
        let scenario = Scenario::parse("test", &text, Path::new(".")).unwrap();
        let error = crate::sim::run(&scenario).summary.true_error_ns;
        assert!((error.mean - expected_ns).abs() < 1.0, "{settings}: {error:?}");
    }
}

#[test]
fn an_outage_silences_what_it_says() {
    let within =
        |ways: &[Way]| ways.iter().filter(|way| (40e9..70e9).contains(&way.sent_ns)).count();
    let outage = |of: &str| {
        hear("", &format!("outages = [{{ from-s = 40, to-s = 70, silences = \"{of}\" }}]")).0
    };
    for (of, sync, delay) in
        [("all", 0, 0), ("sync", 0, 1), ("follow-up", 0, 1), ("delay-resp", 1, 0)]
    {
        let heard = outage(of);
        assert_eq!(within(&heard.forward).min(1), sync, "{of}");
        // What was asked before it is answered within it.
        assert_eq!(within(&heard.backward[1..]).saturating_sub(1).min(1), delay, "{of}");
    }
    // No Announce ends the parent after a while, with it Sync is ignored.
    let heard = outage("announce");
    assert!((8..30).contains(&within(&heard.forward)), "{}", within(&heard.forward));
}

#[test]
fn a_grandmaster_that_restarts_has_another_time_and_new_numbers() {
    let (Heard { forward, backward, .. }, _) =
        hear("", "restarts = [{ at-s = 40, silent-s = 3, by-ns = -1e11 }]");
    let (before, after): (Vec<Way>, Vec<Way>) =
        forward.iter().partition(|way| way.received_ns < 40e9);
    assert!(all(&before, 10_000.0) && all(&after, 1e11 + 10_000.0));
    assert!(after[0].received_ns >= 43e9 && after[0].sequence_id < 40, "{:?}", after[0]);
    assert!(before.last().unwrap().sequence_id > 150);
    // Its timers go on: as many as there is time for.
    assert!(after.len() > 150, "{}", after.len());
    assert!(backward.iter().any(|way| way.took_ns() == -1e11 + 10_000.0));
}

#[test]
fn a_time_that_is_set_again_and_again_adds_up() {
    let (Heard { forward, .. }, _) =
        hear("", "time-steps = [{ at-s = 20, by-ns = 5e10, every-s = 20, count = 3 }]");
    for (from_ns, set_ns) in [(21e9, 5e10), (41e9, 1e11), (61e9, 1.5e11), (90e9, 1.5e11)] {
        let way = forward.iter().find(|way| way.received_ns > from_ns).unwrap();
        assert_eq!(way.took_ns(), 10_000.0 - set_ns);
    }
}

#[test]
fn a_host_that_sleeps_hears_nothing_and_its_clock_stands_or_jumps() {
    for (clock, jump_ns, behind_ns) in
        [("stands", 0.0, 20e9), ("goes-on", 0.0, 0.0), ("goes-on", -3e9, 3e9)]
    {
        let (Heard { forward, .. }, world) = hear(
            &format!(
                "suspends = [{{ at-s = 40, length-s = 20, clock = \"{clock}\", jump-ns = {jump_ns:?} }}]"
            ),
            "",
        );
        let asleep = |way: &Way| (40e9..60e9).contains(&way.sent_ns);
        assert_eq!(share(&forward, asleep), 0.0);
        let last = forward.last().unwrap();
        assert!(last.sent_ns > 99e9);
        assert!((last.took_ns() - 10_000.0 + behind_ns).abs() < 1.0, "{clock}: {last:?}");
        let truth = &world.course.truth;
        assert!(!truth.iter().any(|truth| (40.0..60.0).contains(&truth.at_s)));
        assert!(truth.iter().any(|truth| truth.at_s > 60.0));
    }
}

#[test]
fn requests_may_be_rarer_than_sync() {
    let (Heard { forward, backward, .. }, _) = hear_at([-4, 0], "", "");
    assert!((10.0..22.0).contains(&(forward.len() as f64 / backward.len() as f64)));
}
