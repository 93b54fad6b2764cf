//! Claims about what is chosen for which grandmaster, on paths that are made up here.

use super::*;
use crate::prelude::*;
use crate::{servo::LocalTime, stamp::StampSource};
use ptp_common::time::Ptp;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// How much faster the grandmaster's clock runs.
const RATE: f64 = 20e-6;

/// A grandmaster with 16 Sync and a request per second.
struct Link {
    strategist: Strategist,
    rng: ChaCha8Rng,
    second: i64,
    /// Of a Sync, and of one that follows a request, ns at the least.
    sync_ns: [f64; 2],
    /// How much later a Sync may be, as a share of that.
    scatter: f64,
    /// What the wire takes, each way, ns.
    wire_ns: f64,
    /// What a primed request takes, ns.
    primed_ns: f64,
    /// What the servo was given of the last second: time that a Sync took, ns.
    given: Vec<f64>,
    changes: Vec<Strategy>,
    begun_anew: u32,
}

impl Link {
    fn new(choice: Choice, sync_ns: [f64; 2], scatter: f64) -> Self {
        Self {
            strategist: Strategist::new(choice),
            rng: ChaCha8Rng::seed_from_u64(7),
            second: 1_000,
            sync_ns,
            scatter,
            wire_ns: 0.0,
            primed_ns: 200.0,
            given: Vec::new(),
            changes: Vec::new(),
            begun_anew: 0,
        }
    }

    fn there(ns: f64) -> Time<Ptp> {
        Time::from_epoch(Duration::from_nanos_f64(1e9 + ns * (1.0 + RATE)))
    }

    fn here(ns: f64) -> LocalTime {
        let mono = Time::from_epoch(Duration::from_nanos_f64(ns));
        let source = StampSource::Simulated;
        LocalTime { mono, clock: Time::ZERO, source, doubt: Duration::ZERO, told_within: None }
    }

    fn sync(&mut self, sent: f64, is_warm: bool) {
        let floor = self.sync_ns[usize::from(is_warm)];
        let late = self.wire_ns + floor * (1.0 + self.rng.random::<f64>() * self.scatter);
        let t2 = Self::here(sent + late);
        let (sequence_id, log_interval, correction) = (0, Some(-4), Duration::ZERO);
        let input = SyncInput { t1: Self::there(sent), t2, sequence_id, log_interval, correction };
        let given = self.strategist.sync(input);
        // As it was, it still bounds the time.
        let bound = given.t2.mono + given.t2.doubt;
        assert!((bound - t2.mono).abs() <= Duration::from_nanos(1));
        self.given.push(late + (given.t2.mono - t2.mono).as_nanos_f64());
    }

    fn request(&mut self, sent: f64) {
        let manner = match self.strategist.sending() {
            Sending::Free => Manner::Plain,
            Sending::Told(manner) => manner,
        };
        let floor = if manner == Manner::Primed { self.primed_ns } else { 2_200.0 };
        let late = self.wire_ns + floor * (1.0 + self.rng.random::<f64>() * 0.2);
        let (t3, t4) = (Self::here(sent), Self::there(sent + late));
        let input = DelayInput { t3, t4, sequence_id: 0, correction: Duration::ZERO };
        self.strategist.delay(input, manner);
        self.changes.extend(self.strategist.take_change().map(|change| change.to));
        self.begun_anew += u32::from(self.strategist.take_history().is_some());
    }

    /// The request is 150 us before the ninth Sync of a second where it is aimed, else between two.
    fn run(&mut self, seconds: i64) -> &mut Self {
        for _ in 0..seconds {
            self.second += 1;
            self.given.clear();
            for n in 0..16 {
                let due = self.second as f64 * 1e9 + f64::from(n) * 62.5e6;
                let is_asked = n == 8;
                let is_aimed = self.strategist.is_aiming();
                if is_asked {
                    self.request(due - if is_aimed { 150e3 } else { 31e6 });
                }
                self.sync(due, is_asked && is_aimed);
            }
        }
        self
    }

    fn strategy(&self) -> Strategy {
        self.strategist.strategy()
    }

    /// How far what the servo was given in the last second is from `ns` at the most.
    fn farthest_from(&self, ns: f64) -> f64 {
        self.given.iter().map(|given| (given - ns).abs()).fold(0.0, f64::max)
    }
}

#[test]
fn grandmaster_that_a_request_warms_is_followed_as_if_each_sync_were_warm() {
    let mut link = Link::new(Choice::Auto, [2_000.0, 210.0], 0.3);
    link.run(10);
    assert_eq!(link.strategy(), Strategy::Remote, "{:?}", link.strategist.findings());
    link.run(40);
    let findings = link.strategist.findings();
    assert_eq!(findings.is_primeable, Some(true));
    assert!(findings.remote_priming_ns.is_some_and(|ns| (1_500.0..2_500.0).contains(&ns)));
    assert!(link.strategist.is_aiming());
    // Within what the requests scatter.
    assert!(link.farthest_from(210.0) < 60.0, "{:?}", link.given);
    assert!((1..10).contains(&link.begun_anew), "{}", link.begun_anew);
}

#[test]
fn grandmaster_that_stamps_in_hardware_is_asked_at_any_time_and_heard_as_it_is() {
    let mut link = Link::new(Choice::Auto, [300.0, 300.0], 0.3);
    link.run(60);
    assert_eq!((link.strategy(), link.changes.len()), (Strategy::Primed, 1));
    assert!(!link.strategist.is_aiming(), "{:?}", link.strategist.findings());
    let mean = link.given.iter().sum::<f64>() / link.given.len() as f64;
    assert!((310.0..380.0).contains(&mean), "{mean}");
}

#[test]
fn one_sync_in_hundreds_that_is_fast_is_enough() {
    let mut link = Link::new(Choice::Remote, [2_000.0, 2_000.0], 0.3);
    link.run(20);
    link.sync_ns[1] = 220.0;
    link.run(1);
    link.sync_ns[1] = 2_000.0;
    link.run(60);
    assert!(link.farthest_from(220.0) < 60.0, "{:?}", link.given);
}

#[test]
fn path_that_has_become_longer_is_met_anew() {
    let mut link = Link::new(Choice::Auto, [2_000.0, 210.0], 0.3);
    link.run(40);
    link.wire_ns = 10_000.0;
    link.run(30);
    assert!(link.farthest_from(10_210.0) < 60.0, "{:?}", link.given);
    link.wire_ns = 0.0;
    link.run(30);
    assert!(link.farthest_from(210.0) < 60.0, "{:?}", link.given);
}

#[test]
fn nothing_changes_where_it_is_not_wanted() {
    let mut link = Link::new(Choice::Plain, [2_000.0, 210.0], 0.3);
    link.run(40);
    assert_eq!((link.strategy(), link.begun_anew), (Strategy::Plain, 0));
    assert!(link.farthest_from(1_300.0) < 1_400.0 && link.farthest_from(210.0) > 1_000.0);
    assert!(!link.strategist.is_aiming());
}

#[test]
fn strategy_that_was_ordered_stays() {
    for (choice, strategy) in [(Choice::Cold, Strategy::Cold), (Choice::Primed, Strategy::Primed)] {
        let mut link = Link::new(choice, [2_000.0, 210.0], 0.3);
        link.run(40);
        assert_eq!((link.strategy(), link.changes.len()), (strategy, 0));
    }
}

#[test]
fn grandmaster_that_changes_its_kind_is_met_anew() {
    let mut link = Link::new(Choice::Auto, [2_000.0, 210.0], 0.3);
    link.run(40);
    assert_eq!(link.strategy(), Strategy::Remote);
    link.sync_ns = [215.0, 215.0];
    link.run(120);
    assert_eq!(link.strategy(), Strategy::Primed, "{:?}", link.changes);
    link.strategist.clear();
    assert_eq!(link.strategy(), Strategy::Trial);
}

#[test]
fn priming_that_makes_requests_late_is_given_up_and_what_it_taught_with_it() {
    let mut link = Link::new(Choice::Auto, [2_000.0, 2_000.0], 0.2);
    link.primed_ns = 100_000.0;
    link.run(90);
    assert_eq!(link.strategist.findings().is_priming_late, Some(true));
    assert_eq!(link.strategist.sending(), Sending::Told(Manner::Plain));
    assert!(link.strategist.findings().round_trip_ns.is_some_and(|ns| ns < 10_000.0));
    // And is kept where it helps, once that is known.
    let mut link = Link::new(Choice::Auto, [2_000.0, 2_000.0], 0.2);
    link.run(90);
    assert_eq!(link.strategist.findings().is_priming_late, Some(false));
    assert_eq!(link.strategist.sending(), Sending::Told(Manner::Primed));
}

#[test]
fn memory_is_bounded() {
    let mut link = Link::new(Choice::Auto, [2_000.0, 210.0], 0.3);
    link.run(600);
    assert!(link.strategist.syncs.len() <= SYNCS && link.strategist.requests.len() <= REQUESTS);
}
