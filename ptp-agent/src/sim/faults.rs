//! Random faults and attacks in virtual time: each schedule is half a minute of peace, a time in which anything of
//! the network, the hosts, the grandmasters and an attacker goes wrong as its seed says, and a minute of
//! peace. The bound must hold at every instant at which it can be known, and half a minute after the last fault
//! the clock must be locked. Whether its error is small by then is told beside, and fails nothing.

use std::{fs, path::Path, sync::Mutex};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use super::{
    Scenario, parallel,
    world::{Act, Course, Trick, Truth, World},
};
use crate::servo::{self, ServoState};

/// Peace before, trouble, and peace after, seconds.
const BEFORE_S: f64 = 30.0;
const TROUBLE_S: f64 = 60.0;
const AFTER_S: f64 = 60.0;
/// Of one schedule.
pub const SCHEDULE_S: f64 = BEFORE_S + TROUBLE_S + AFTER_S;
/// After the last fault everything must be well within so much, seconds.
const RECOVERY_S: f64 = 30.0;
/// True is an error below this, ns.
const TRUE_NS: f64 = 20_000.0;
/// Where a grandmaster's time was set, nobody can know that before messages of both directions that were sent
/// since have said so; and then not before some of them could be compared: Sync intervals, and at least so many seconds.
const COMPARED: f64 = 4.0;
const COMPARED_S: f64 = 1.0;
/// Who is locked and true for so long has recovered, seconds: where packets are lost, three Announces in a row are so
/// now and then.
const LASTING_S: f64 = 10.0;

/// One schedule.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// What it was made of.
    pub seed: u64,
    /// What is simulated.
    pub scenario: Scenario,
    /// The same as a file.
    pub text: String,
    /// What somebody does beside.
    acts: Vec<Act>,
    /// When the time of a grandmaster was set, seconds.
    set_s: Vec<f64>,
    /// When the last fault was over, seconds.
    ended_s: f64,
    /// Between Sync, seconds.
    interval_s: f64,
    /// The faults in words.
    pub faults: Vec<String>,
}

impl Schedule {
    /// The schedule of a seed.
    pub fn new(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let log = rng.random_range(-4..=0);
        let base = rng.random_range(5_000..200_000);
        let jitter = rng.random_range(100..5_000);
        let frequency = rng.random_range(-50_000..50_000);
        let mut faults: Vec<String> = Vec::new();
        let (mut set_s, mut ended_s) = (Vec::new(), BEFORE_S);
        let [mut outages, mut restarts, mut steps, mut routes, mut stalls] =
            [const { String::new() }; 5];
        let mut acts = Vec::new();
        for _ in 0..rng.random_range(1..6) {
            let from_s = BEFORE_S + rng.random_range(0.0..TROUBLE_S * 0.8);
            let length_s = rng.random_range(0.5..TROUBLE_S * 0.2);
            let to_s = from_s + length_s;
            let sign = if rng.random() { 1.0 } else { -1.0 };
            let by_ns = sign * 10_f64.powf(rng.random_range(3.0..9.3));
            match rng.random_range(0..10) {
                0 => {
                    let kinds = ["all", "sync", "follow-up", "announce", "delay-resp"];
                    let kind = kinds[rng.random_range(0..kinds.len())];
                    outages +=
                        &format!("{{ from-s = {from_s}, to-s = {to_s}, silences = \"{kind}\" }}, ");
                    faults.push(format!("no {kind} {from_s:.1} to {to_s:.1} s"));
                    ended_s = to_s.max(ended_s);
                }
                1 => {
                    let silent_s = length_s.min(5.0);
                    restarts +=
                        &format!("{{ at-s = {from_s}, silent-s = {silent_s}, by-ns = {by_ns} }}, ");
                    faults.push(format!("restart at {from_s:.1} s by {by_ns:.0} ns"));
                    set_s.push(from_s + silent_s);
                    ended_s = (from_s + silent_s).max(ended_s);
                }
                2 => {
                    steps += &format!("{{ at-s = {from_s}, by-ns = {by_ns} }}, ");
                    faults.push(format!("time set at {from_s:.1} s by {by_ns:.0} ns"));
                    set_s.push(from_s);
                    ended_s = from_s.max(ended_s);
                }
                3 => {
                    let other = rng.random_range(5_000..300_000);
                    routes += &format!("{{ at-s = {from_s}, base-delay-ns = {other} }}, ");
                    routes += &format!("{{ at-s = {to_s}, base-delay-ns = {base} }}, ");
                    faults.push(format!("route of {other} ns {from_s:.1} to {to_s:.1} s"));
                    ended_s = to_s.max(ended_s);
                }
                4 => {
                    let length_s = length_s.min(8.0);
                    stalls += &format!("{{ at-s = {from_s}, length-s = {length_s} }}, ");
                    faults.push(format!("stall at {from_s:.1} s for {length_s:.1} s"));
                    ended_s = (from_s + length_s).max(ended_s);
                }
                _ => {
                    let trick = Trick::ALL[rng.random_range(0..Trick::ALL.len())];
                    let by_ns = match trick {
                        Trick::HoldSyncSlowly => rng.random_range(1_000.0..20_000.0),
                        _ => 10_f64.powf(rng.random_range(4.0..7.0)),
                    };
                    acts.push(Act { trick, from_s, to_s, by_ns });
                    faults.push(format!("{trick:?} {from_s:.1} to {to_s:.1} s by {by_ns:.0} ns"));
                    ended_s = to_s.max(ended_s);
                }
            }
        }
        routes = sorted(&routes);
        let (loss, duplication, reordering) = match rng.random_range(0..3) {
            0 => (0.05, 0.02, 0.01),
            1 => (0.01, 0.0, 0.0),
            _ => (0.0, 0.0, 0.0),
        };
        let text = format!(
            "title = \"faults {seed}\"\nseed = {seed}\nduration-s = {SCHEDULE_S}\nwarm-up-s = {BEFORE_S}\n\
             sample-interval-s = 0.25\n\
             [time-receiver]\noscillator = {{ offset-ns = 1.5e9, frequency-ppb = {frequency}, random-walk-ppb = 0.3 }}\n\
             host.stalls = [{stalls}]\n\
             [[grandmaster]]\nlog-sync-interval = {log}\nlog-min-delay-req-interval = {log}\nlog-announce-interval = 0\n\
             outages = [{outages}]\nrestarts = [{restarts}]\ntime-steps = [{steps}]\n\
             [grandmaster.link.forward]\nbase-delay-ns = {base}\njitter.exponential.mean-ns = {jitter}\n\
             loss = {loss}\nduplication = {duplication}\nreordering = {reordering}\nroute-changes = [{routes}]\n\
             [grandmaster.link.backward]\nbase-delay-ns = {base}\njitter.exponential.mean-ns = {jitter}\n\
             loss = {loss}\n"
        );
        let scenario = Scenario::parse("faults", &text, Path::new("."))
            .expect("what is made of numbers in their ranges can be used");
        let interval_s = 2_f64.powi(log);
        Self { seed, scenario, text, acts, set_s, ended_s, interval_s, faults }
    }
}

/// Entries of a list in the order of their times.
fn sorted(list: &str) -> String {
    let mut entries: Vec<(f64, &str)> = list
        .split_inclusive("}, ")
        .filter_map(|entry| {
            let at = entry.split("at-s = ").nth(1)?.split(',').next()?.parse().ok()?;
            Some((at, entry))
        })
        .collect();
    entries.sort_by(|one, other| one.0.total_cmp(&other.0));
    entries.into_iter().map(|(_, entry)| entry).collect()
}

/// How a schedule ended.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Outcome {
    /// Its seed.
    pub seed: u64,
    /// Instants at which the bound was looked at.
    pub looks: u64,
    /// At which it was false.
    pub violations: u64,
    /// The first of them: when, seconds; error and bound, ns.
    pub first: Option<(f64, f64, f64)>,
    /// Seconds after the last fault until it was locked and stayed so for a while; `None` where it never was.
    pub recovered_s: Option<f64>,
    /// The same until the error was below 20 us as well.
    pub true_s: Option<f64>,
    /// The faults in words.
    pub faults: Vec<String>,
}

impl Outcome {
    /// Whether the bound held, and it was locked in time.
    pub fn is_fine(&self) -> bool {
        self.violations == 0 && self.recovered_s.is_some_and(|after| after <= RECOVERY_S)
    }

    /// Whether the error was small in time, too.
    pub fn is_true(&self) -> bool {
        self.true_s.is_some_and(|after| after <= RECOVERY_S)
    }
}

/// What becomes of the clock in one schedule.
pub fn truth(schedule: &Schedule) -> Vec<Truth> {
    course(schedule).truth
}

fn course(schedule: &Schedule) -> Course {
    let scenario = &schedule.scenario;
    let servo = servo::build(&scenario.servo, &scenario.servo_settings.options());
    let world = World::new(scenario, servo).assaulted(&schedule.acts, schedule.seed);
    world.run(scenario)
}

/// Runs one schedule.
pub fn run(schedule: &Schedule) -> Outcome {
    let course = course(schedule);
    let mut outcome =
        Outcome { seed: schedule.seed, faults: schedule.faults.clone(), ..Outcome::default() };
    let compared_s = (COMPARED * schedule.interval_s).max(COMPARED_S);
    let unknowable: Vec<[f64; 2]> =
        schedule.set_s.iter().map(|set_s| [*set_s, told_s(&course, *set_s) + compared_s]).collect();
    for truth in &course.truth {
        let is_knowable = !unknowable.iter().any(|[from, to]| (*from..*to).contains(&truth.at_s));
        if let Some(is_within) = truth.is_within_bound().filter(|_| is_knowable) {
            outcome.looks += 1;
            outcome.violations += u64::from(!is_within);
            if !is_within {
                let bound_ns = truth.bound_ns().unwrap_or_default();
                outcome.first.get_or_insert((truth.at_s, truth.error_ns, bound_ns));
            }
        }
    }
    let is_locked = |truth: &Truth| truth.state == ServoState::Locked;
    let is_true = |truth: &Truth| is_locked(truth) && truth.error_ns.abs() < TRUE_NS;
    outcome.recovered_s = recovered_s(&course.truth, schedule.ended_s, is_locked);
    outcome.true_s = recovered_s(&course.truth, schedule.ended_s, is_true);
    outcome
}

/// When messages of both directions have come that were sent at `set_s` or later, seconds.
fn told_s(course: &Course, set_s: f64) -> f64 {
    let first = |wanted: bool| {
        let later =
            course.measured.iter().find(|(at_s, is_sync)| *at_s > set_s && *is_sync == wanted);
        later.map_or(f64::INFINITY, |(at_s, _)| *at_s)
    };
    first(true).max(first(false))
}

/// Seconds from `ended_s` until all is well for some time; `None` where it never is.
fn recovered_s(course: &[Truth], ended_s: f64, is_well: impl Fn(&Truth) -> bool) -> Option<f64> {
    let mut since_s = None;
    for truth in course.iter().filter(|truth| truth.at_s >= ended_s) {
        if !is_well(truth) {
            since_s = None;
            continue;
        }
        let since_s = *since_s.get_or_insert(truth.at_s);
        if truth.at_s - since_s >= LASTING_S {
            return Some(since_s - ended_s);
        }
    }
    None
}

/// All together.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Totals {
    /// Schedules.
    pub schedules: u64,
    /// Virtual time, hours.
    pub hours: f64,
    /// Faults and attacks.
    pub faults: u64,
    /// Instants at which the bound was looked at, and was false.
    pub looks: u64,
    /// See above.
    pub violations: u64,
    /// Schedules that had not recovered in time.
    pub unrecovered: u64,
    /// Schedules in which the error was not below 20 us by then.
    pub untrue: u64,
    /// The longest recovery, seconds.
    pub slowest_s: f64,
    /// Resident memory after a tenth of the schedules and at the end, KiB.
    pub memory_kib: [u64; 2],
}

/// Runs the schedules of so many seeds from `first` on, on all processors. What is not fine, or not true, comes with the
/// totals.
pub fn many(first: u64, count: u64) -> (Totals, Vec<Outcome>) {
    let seeds: Vec<u64> = (first..first + count).collect();
    let early = Mutex::new(0);
    let outcomes = parallel::map(
        &seeds,
        |seed| run(&Schedule::new(*seed)),
        |done, _| {
            if done as u64 == count.div_ceil(10)
                && let Ok(mut early) = early.lock()
            {
                *early = resident_kib();
            }
        },
    );
    let mut totals = Totals {
        schedules: count,
        hours: count as f64 * SCHEDULE_S / 3_600.0,
        memory_kib: [early.into_inner().unwrap_or_default(), resident_kib()],
        ..Totals::default()
    };
    for outcome in &outcomes {
        totals.faults += outcome.faults.len() as u64;
        totals.looks += outcome.looks;
        totals.violations += outcome.violations;
        let is_late = outcome.recovered_s.is_none_or(|after| after > RECOVERY_S);
        totals.unrecovered += u64::from(is_late);
        totals.untrue += u64::from(outcome.true_s.is_none_or(|after| after > RECOVERY_S));
        totals.slowest_s = totals.slowest_s.max(outcome.recovered_s.unwrap_or(AFTER_S));
    }
    (totals, outcomes.into_iter().filter(|it| !it.is_fine() || !it.is_true()).collect())
}

/// Of this process; zero where nobody says.
fn resident_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_are_what_their_seed_says_and_can_be_simulated() {
        for seed in 0..200 {
            let schedule = Schedule::new(seed);
            assert!(!schedule.faults.is_empty());
            assert!(schedule.ended_s <= BEFORE_S + TROUBLE_S, "{seed}");
            assert_eq!(Schedule::new(seed).faults, schedule.faults);
        }
    }

    /// A grandmaster restarts with another time in the first minute at one Sync a second: by less than the round trip, which
    /// causality allows.
    #[test]
    fn step_that_is_shorter_than_the_round_trip_is_judged_in_half_a_minute() {
        let schedule = Schedule::new(800);
        assert!(schedule.faults[0].starts_with("restart at 45.5 s by 144960 ns"));
        let outcome = run(&schedule);
        assert!(outcome.is_fine(), "{outcome:?}");
        assert!(outcome.true_s.is_some_and(|after| after <= 40.0), "{outcome:?}");
        // Nor does a longer row before it hide the one that a step is judged by.
        let outcome = run(&Schedule::new(1_170));
        assert!(outcome.is_fine() && outcome.is_true(), "{outcome:?}");
    }

    /// Time was set, the host slept before it had heard enough of that, and a forged Sync was the first that it heard then.
    #[test]
    fn step_that_is_half_known_leaves_the_round_trip_of_before_in_the_bound() {
        let schedule = Schedule::new(672);
        assert!(schedule.faults[0].starts_with("time set at 33.9 s by -265691 ns"));
        let outcome = run(&schedule);
        assert!(outcome.is_fine(), "{outcome:?}");
    }

    /// Too slowly for anybody to see: 50 ns a second more on one way, for half an hour.
    #[test]
    fn delay_that_grows_by_fifty_nanoseconds_a_second_stays_within_the_bound() {
        for trick in
            [Trick::HoldSync, Trick::HoldRequests, Trick::LieInCorrection, Trick::LieInAnswers]
        {
            let (from_s, to_s) = (60.0, 1_860.0);
            let acts: Vec<Act> = (0..60)
                .map(|n| {
                    let [from_s, to_s] =
                        [n, n + 1].map(|n| from_s + (to_s - from_s) * f64::from(n) / 60.0);
                    Act { trick, from_s, to_s, by_ns: 1_500.0 * f64::from(n) }
                })
                .collect();
            let text = "title = \"slow\"\nseed = 5\nduration-s = 1900\nwarm-up-s = 60\n\
                sample-interval-s = 1\n\
                [time-receiver]\noscillator = { offset-ns = 1e6, frequency-ppb = 3000, random-walk-ppb = 0.3 }\n\
                [[grandmaster]]\nlog-sync-interval = 0\nlog-min-delay-req-interval = 0\n\
                [grandmaster.link]\nforward = { base-delay-ns = 20000, jitter.exponential.mean-ns = 1000 }\n\
                backward = { base-delay-ns = 20000, jitter.exponential.mean-ns = 1000 }\n";
            let scenario = Scenario::parse("slow", text, Path::new(".")).unwrap();
            let servo = servo::build(&scenario.servo, &scenario.servo_settings.options());
            let course = World::new(&scenario, servo).assaulted(&acts, 5).run(&scenario);
            let worst = course.truth.iter().map(|truth| truth.error_ns.abs()).fold(0.0, f64::max);
            let known = course.truth.iter().filter(|it| it.at_s > 60.0);
            let outside = known.filter(|it| it.is_within_bound() == Some(false)).count();
            assert_eq!(outside, 0, "{trick:?}: {worst} ns");
            let last = course.truth.last().unwrap();
            assert_eq!(last.state, ServoState::Locked, "{trick:?}");
        }
    }

    #[test]
    fn bound_holds_and_the_clock_recovers_after_random_faults_and_attacks() {
        let (totals, bad) = many(1, 8);
        assert!(totals.looks > 1_000, "{totals:?}");
        assert!(bad.is_empty(), "{bad:#?}");
    }
}
