//! A directory of scenarios as a test of servos: each scenario with several seeds and with each servo, the
//! first of which is judged by what the scenario expects and by the others.

use std::{fmt, io, path::Path};

use serde::Serialize;

use super::{Scenario, ScenarioError, Truth, course, parallel, world::Course};
use crate::{publish::statistics::ErrorStatistics, servo::Choice};

/// The servos that are run unless others are asked for; the first one is judged.
pub const SERVOS: [&str; 4] = ["adaptive", "pi", "linreg", "rfc5905"];
/// From one seed of a scenario to the next: 101, 202, 303 and so on.
const SEED_STEP: u64 = 101;
/// So much more than the best of the others is nobody's loss, nanoseconds.
const NEGLIGIBLE_NS: f64 = 5.0;
/// A bound is to be known for at least this share of the time.
const KNOWN: f64 = 0.9;

/// A scenario and the name of its file.
#[derive(Clone, Debug)]
pub struct Named {
    /// Without directory and extension.
    pub name: String,
    /// What is in it.
    pub scenario: Scenario,
}

/// All scenarios of a directory, by name.
///
/// # Errors
/// [`ScenarioError`]: of the directory, or of the first file that is none.
pub fn read_directory(directory: &Path) -> Result<Vec<Named>, ScenarioError> {
    let failed = |source: io::Error| ScenarioError::Read { path: directory.to_owned(), source };
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            paths.push(path);
        }
    }
    paths.sort();
    let named = paths.iter().map(|path| {
        let name = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
        Ok(Named { name: name.unwrap_or_default(), scenario: Scenario::read(path)? })
    });
    named.collect()
}

/// What a servo made of a scenario.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figures {
    /// The servo, as `--servo` takes it.
    pub servo: String,
    /// Root mean square of the true error, nanoseconds.
    pub rms_ns: f64,
    /// Its largest magnitude.
    pub max_ns: f64,
    /// Share of the time with a bound in which the error was within it.
    pub within_bound: f64,
    /// Share of the time that had a bound.
    pub known: f64,
    /// For how long the error was beyond its bound, seconds.
    pub violated_s: f64,
    /// Mean bound, nanoseconds.
    pub bound_ns: f64,
    /// Mean precision, nanoseconds.
    pub precision_ns: f64,
    /// Mean half width of the causal interval, nanoseconds.
    pub half_width_ns: f64,
    /// Share of the time in which the truth was inside the causal interval.
    pub within_interval: f64,
    /// Steps of the clock.
    pub steps: usize,
}

impl Figures {
    /// Of the time after warm-up that is not excused.
    fn new(scenario: &Scenario, course: &Course) -> Self {
        let from_s = scenario.warm_up_s.get();
        let excused = |truth: &&Truth| {
            scenario
                .expect
                .excused
                .iter()
                .any(|window| (window.from_s.get()..window.to_s.get()).contains(&truth.at_s))
        };
        let judged: Vec<&Truth> =
            course.truth.iter().filter(|truth| truth.at_s >= from_s && !excused(truth)).collect();
        let errors: Vec<f64> = judged.iter().map(|truth| truth.error_ns).collect();
        let error = ErrorStatistics::of(&errors);
        let trusted: Vec<_> =
            judged.iter().filter_map(|truth| Some((truth.error_ns, truth.trust?))).collect();
        let count = trusted.len().max(1) as f64;
        let mean = |read: fn(&super::Trusted) -> f64| {
            trusted.iter().map(|(_, trust)| read(trust)).sum::<f64>() / count
        };
        let beyond = judged.iter().filter(|truth| truth.is_within_bound() == Some(false)).count();
        let inside = trusted
            .iter()
            .filter(|(error, trust)| (trust.interval_ns[0]..=trust.interval_ns[1]).contains(error));
        Self {
            servo: scenario.servo.to_string(),
            rms_ns: error.rms,
            max_ns: error.max,
            within_bound: 1.0 - beyond as f64 / count,
            known: trusted.len() as f64 / judged.len().max(1) as f64,
            violated_s: beyond as f64 * scenario.sample_interval_s.get(),
            bound_ns: mean(|trust| trust.bound_ns),
            precision_ns: mean(|trust| trust.precision_ns),
            half_width_ns: mean(super::Trusted::half_width_ns),
            within_interval: inside.count() as f64 / count,
            steps: course.steps.len(),
        }
    }
}

/// What was not as it is to be.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "failure")]
pub enum Failure {
    /// The error was beyond its bound for too long.
    Bound {
        /// Share of the time in which it was not.
        within: f64,
        /// What it is to be.
        expected: f64,
        /// For how long it was, seconds.
        violated_s: f64,
    },
    /// There was none for too long.
    Unknown {
        /// Share of the time in which there was one.
        known: f64,
    },
    /// Another servo was better.
    Worse {
        /// Root mean square, nanoseconds.
        rms_ns: f64,
        /// The same of the best of the others.
        best_ns: f64,
        /// What their ratio may be.
        allowed: f64,
    },
    /// The clock was stepped although time did not step.
    Stepped {
        /// How often altogether.
        steps: usize,
        /// How often it may, the first one included.
        allowed: usize,
    },
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bound { within, expected, violated_s } => write!(
                f,
                "within its bound {:.3} % of the time, expected {:.3} % ({violated_s:.1} s beyond)",
                within * 100.0,
                expected * 100.0
            ),
            Self::Unknown { known } => write!(f, "a bound for {:.1} % of the time", known * 100.0),
            Self::Worse { rms_ns, best_ns, allowed } => write!(
                f,
                "rms {rms_ns:.0} ns, {:.2} times the best of the others ({allowed} allowed)",
                rms_ns / best_ns
            ),
            Self::Stepped { steps, allowed } => {
                write!(f, "{steps} steps of the clock, {allowed} allowed")
            }
        }
    }
}

/// A scenario with one seed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Case {
    /// The scenario's name.
    pub scenario: String,
    /// The seed.
    pub seed: u64,
    /// Of each servo; the first one is judged.
    pub servos: Vec<Figures>,
    /// What it is judged for. Empty: all is well.
    pub failures: Vec<Failure>,
}

impl Case {
    fn new(named: &Named, seed: u64, servos: Vec<Figures>) -> Self {
        let failures = match servos.split_first() {
            Some((judged, others)) => failures(&named.scenario, judged, others),
            None => Vec::new(),
        };
        Self { scenario: named.name.clone(), seed, servos, failures }
    }

    /// Root mean square of the best servo beside the judged one.
    pub fn best_ns(&self) -> Option<f64> {
        best_ns(self.servos.get(1..)?)
    }
}

fn best_ns(others: &[Figures]) -> Option<f64> {
    others.iter().map(|figures| figures.rms_ns).reduce(f64::min)
}

fn failures(scenario: &Scenario, judged: &Figures, others: &[Figures]) -> Vec<Failure> {
    let expect = &scenario.expect;
    let expected = expect.within_bound.get();
    let allowed_steps = 1 + expect.steps_allowed as usize;
    let allowed = expect.rms_over_best.get();
    let mut failures = Vec::new();
    if judged.within_bound < expected {
        let Figures { within_bound: within, violated_s, .. } = *judged;
        failures.push(Failure::Bound { within, expected, violated_s });
    }
    if judged.known < KNOWN {
        failures.push(Failure::Unknown { known: judged.known });
    }
    if let Some(best_ns) = best_ns(others)
        && judged.rms_ns > (best_ns * allowed).max(best_ns + NEGLIGIBLE_NS)
    {
        failures.push(Failure::Worse { rms_ns: judged.rms_ns, best_ns, allowed });
    }
    if judged.steps > allowed_steps {
        failures.push(Failure::Stepped { steps: judged.steps, allowed: allowed_steps });
    }
    failures
}

/// Runs all on all processors. `each` is told of each simulation that is done: how many are, how many
/// there are, and what it was.
pub fn judge(
    scenarios: &[Named],
    seeds: u64,
    servos: &[Choice],
    mut each: impl FnMut(usize, usize, &str),
) -> Vec<Case> {
    let seeds = |scenario: &Scenario| {
        let first = scenario.seed;
        (0..seeds).map(move |n| first.wrapping_add(n * SEED_STEP))
    };
    let cases: Vec<(&Named, u64)> = scenarios
        .iter()
        .flat_map(|named| seeds(&named.scenario).map(move |seed| (named, seed)))
        .collect();
    let tasks: Vec<(&Named, u64, Choice)> = cases
        .iter()
        .flat_map(|(named, seed)| servos.iter().map(|servo| (*named, *seed, *servo)))
        .collect();
    let work = |(named, seed, servo): &(&Named, u64, Choice)| {
        let scenario = Scenario { seed: *seed, servo: *servo, ..named.scenario.clone() };
        Figures::new(&scenario, &course(&scenario))
    };
    let mut figures = parallel::map(&tasks, work, |done, (named, seed, servo)| {
        each(done, tasks.len(), &format!("{}, {seed}, {servo}", named.name));
    })
    .into_iter();
    cases
        .iter()
        .map(|(named, seed)| Case::new(named, *seed, figures.by_ref().take(servos.len()).collect()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(rms_ns: f64) -> Figures {
        Figures {
            servo: String::new(),
            rms_ns,
            max_ns: 0.0,
            within_bound: 1.0,
            known: 1.0,
            violated_s: 0.0,
            bound_ns: 0.0,
            precision_ns: 0.0,
            half_width_ns: 0.0,
            within_interval: 1.0,
            steps: 1,
        }
    }

    fn scenario(expect: &str) -> Scenario {
        let text = format!("duration-s = 100\nwarm-up-s = 50\n{expect}\n[[grandmaster]]\n");
        Scenario::parse("test", &text, Path::new(".")).unwrap()
    }

    #[test]
    fn a_servo_is_judged_by_the_best_of_the_others() {
        let judge =
            |rms_ns| failures(&scenario(""), &figures(rms_ns), &[400.0, 100.0].map(figures));
        assert_eq!(judge(119.0), []);
        assert_eq!(judge(121.0), [Failure::Worse { rms_ns: 121.0, best_ns: 100.0, allowed: 1.2 }]);
        // Nanoseconds are nobody's loss.
        assert_eq!(failures(&scenario(""), &figures(5.0), &[figures(1.0)]), []);
        assert_eq!(failures(&scenario(""), &figures(5e9), &[]), []);
    }

    #[test]
    fn bound_and_steps_are_judged_by_what_the_scenario_expects() {
        let judged = Figures { within_bound: 0.99, known: 0.5, steps: 3, ..figures(1.0) };
        assert_eq!(failures(&scenario(""), &judged, &[]).len(), 3);
        let judged = Figures { known: 1.0, ..judged };
        let lenient = scenario("expect = { within-bound = 0.98, steps-allowed = 2 }");
        assert_eq!(failures(&lenient, &judged, &[]), []);
    }

    #[test]
    fn what_is_excused_does_not_count() {
        let run_with = |expect: &str| {
            let text = format!(
                "duration-s = 300\nwarm-up-s = 100\n{expect}\n[[grandmaster]]\n\
                 time-steps = [{{ at-s = 200, by-ns = 1000000 }}]\n\
                 link.forward.base-delay-ns = 1000\n"
            );
            let scenario = Scenario::parse("test", &text, Path::new(".")).unwrap();
            Figures::new(&scenario, &course(&scenario))
        };
        let plain = run_with("");
        assert!(plain.max_ns > 9e5 && plain.violated_s > 0.0, "{plain:?}");
        let excused = run_with("expect.excused = [{ from-s = 200, to-s = 300.5 }]");
        assert!(excused.max_ns < 1_000.0 && excused.violated_s == 0.0, "{excused:?}");
    }

    #[test]
    fn every_scenario_is_run_with_every_seed_and_servo() {
        let named = ["a", "b"].map(|name| Named {
            name: name.to_owned(),
            scenario: Scenario { seed: 7, ..scenario("") },
        });
        let servos = ["pi", "linreg"].map(|servo| servo.parse().unwrap());
        let mut told = 0;
        let cases = judge(&named, 2, &servos, |_, all, _| {
            told += 1;
            assert_eq!(all, 8);
        });
        let found: Vec<(&str, u64)> =
            cases.iter().map(|case| (case.scenario.as_str(), case.seed)).collect();
        assert_eq!(found, [("a", 7), ("a", 108), ("b", 7), ("b", 108)]);
        assert!(cases.iter().all(|case| case.servos[0].servo == "pi" && case.servos.len() == 2));
        assert_eq!(told, 8);
    }

    #[test]
    fn a_directory_without_scenarios_has_none_and_one_that_is_not_there_is_named() {
        assert!(read_directory(Path::new("/proc/self/fd")).unwrap().is_empty());
        let error = read_directory(Path::new("/nonexistent")).unwrap_err();
        assert!(error.to_string().contains("/nonexistent"));
    }
}
