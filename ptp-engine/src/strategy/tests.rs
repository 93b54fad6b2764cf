//! Claims about what is chosen for which grandmaster, on paths that are made up here.

use super::*;
use crate::prelude::*;
use crate::{servo::LocalTime, stamp::StampSource};
use ptp_common::time::Ptp;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// A grandmaster with 16 Sync and a request per second, whose clock runs 20 ppm fast.
struct Link {
    strategist: Strategist,
    rng: ChaCha8Rng,
    second: i64,
    last_primed: bool,
    /// Of a Sync, and of one that follows a request, ns at the least.
    sync_ns: [f64; 2],
    /// How much later a Sync may be, ns.
    scatter_ns: f64,
    learnt: [u32; 2],
    changes: Vec<Strategy>,
}

const RATE: f64 = 20e-6;

impl Link {
    fn new(choice: Choice, sync_ns: [f64; 2], scatter_ns: f64) -> Self {
        Self {
            strategist: Strategist::new(choice),
            rng: ChaCha8Rng::seed_from_u64(7),
            second: 1_000,
            last_primed: false,
            sync_ns,
            scatter_ns,
            learnt: [0; 2],
            changes: Vec::new(),
        }
    }

    fn there(ns: f64) -> Time<Ptp> {
        let ns = 1e9 + ns * (1.0 + RATE);
        Time::from_epoch(Duration::from_nanos_f64(ns))
    }

    fn here(ns: f64) -> LocalTime {
        let mono = Time::from_epoch(Duration::from_nanos_f64(ns));
        let source = StampSource::Simulated;
        LocalTime { mono, clock: Time::ZERO, source, doubt: Duration::ZERO }
    }

    fn sync(&mut self, sent: f64, is_warm: bool) {
        let floor = self.sync_ns[usize::from(is_warm)];
        let late = floor + self.rng.random::<f64>() * self.scatter_ns * floor / self.sync_ns[0];
        let used = self.strategist.sync(SyncInput {
            t1: Self::there(sent),
            t2: Self::here(sent + late),
            sequence_id: 0,
            log_interval: Some(-4),
            correction: Duration::ZERO,
        });
        self.learnt[0] += u32::from(used == Use::Learn);
    }

    fn request(&mut self, sent: f64) {
        let primed = match self.strategist.priming() {
            Priming::Alternate => !self.last_primed,
            Priming::Always => true,
            Priming::Free | Priming::Never => false,
        };
        self.last_primed = primed;
        let floor = if primed { 200.0 } else { 2_200.0 };
        let late = floor + self.rng.random::<f64>() * 0.2 * floor;
        let input = DelayInput {
            t3: Self::here(sent),
            t4: Self::there(sent + late),
            sequence_id: 0,
            correction: Duration::ZERO,
        };
        let used = self.strategist.delay(input, primed);
        self.learnt[1] += u32::from(used == Use::Learn);
        self.changes.extend(self.strategist.take_change().map(|change| change.to));
    }

    /// One second; the request is 150 us before the ninth Sync where it is aimed, else between two.
    fn run(&mut self, seconds: i64) -> &mut Self {
        self.learnt = [0; 2];
        for _ in 0..seconds {
            self.second += 1;
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
}

#[test]
fn grandmaster_that_a_request_warms_is_followed_by_its_warm_sync_messages() {
    let mut link = Link::new(Choice::Auto, [2_000.0, 210.0], 600.0);
    link.run(40);
    assert_eq!(link.strategy(), Strategy::Remote, "{:?}", link.strategist.findings());
    assert_eq!(link.strategist.findings().is_primeable, Some(true));
    assert!(link.strategist.is_aiming());
    link.run(20);
    assert_eq!(link.learnt, [20, 20]);
    let history = link.strategist.history();
    assert!(history.len() >= 2 * ENOUGH && history.is_sorted_by_key(Observed::at));
}

#[test]
fn grandmaster_that_stamps_in_hardware_is_asked_at_any_time_and_heard_always() {
    let mut link = Link::new(Choice::Auto, [300.0, 300.0], 100.0);
    link.run(60);
    assert_eq!(link.strategy(), Strategy::Primed);
    assert!(!link.strategist.is_aiming(), "{:?}", link.strategist.findings());
    link.run(10);
    assert_eq!(link.learnt, [160, 10]);
}

#[test]
fn grandmaster_that_stays_cold_is_asked_coldly() {
    let mut link = Link::new(Choice::Auto, [2_000.0, 2_000.0], 600.0);
    // Nothing that is fast: the slowest half of the scatter only.
    link.run(60);
    let findings = link.strategist.findings();
    assert!(matches!(link.strategy(), Strategy::Cold | Strategy::Primed), "{findings:?}");
    assert!(findings.own_priming_ns.is_some_and(|ns| (1_500.0..2_500.0).contains(&ns)));
}

#[test]
fn nothing_changes_where_it_is_not_wanted() {
    let mut link = Link::new(Choice::Plain, [2_000.0, 210.0], 600.0);
    link.run(40);
    assert_eq!((link.strategy(), link.learnt), (Strategy::Plain, [640, 40]));
    assert!(link.changes.is_empty() && !link.strategist.is_aiming());
}

#[test]
fn strategy_that_was_ordered_stays() {
    for (choice, strategy) in [(Choice::Cold, Strategy::Cold), (Choice::Primed, Strategy::Primed)] {
        let mut link = Link::new(choice, [2_000.0, 210.0], 600.0);
        link.run(40);
        assert_eq!(link.strategy(), strategy);
        assert!(link.changes.is_empty());
    }
}

#[test]
fn grandmaster_that_changes_its_kind_is_met_anew() {
    let mut link = Link::new(Choice::Auto, [2_000.0, 210.0], 600.0);
    link.run(40);
    assert_eq!(link.strategy(), Strategy::Remote);
    link.sync_ns = [300.0, 300.0];
    link.scatter_ns = 100.0;
    link.run(120);
    assert_eq!(link.strategy(), Strategy::Primed, "{:?}", link.changes);
    link.strategist.clear();
    assert_eq!(link.strategy(), Strategy::Trial);
}

#[test]
fn memory_is_bounded() {
    let mut link = Link::new(Choice::Auto, [2_000.0, 210.0], 600.0);
    link.run(600);
    assert!(link.strategist.syncs.len() <= SYNCS && link.strategist.requests.len() <= REQUESTS);
}
