//! The servo benchmark: what each servo reaches on simulated links, beside the figures that are to be
//! reached. The simulated part of what `cargo xtask bench servo` prints.

use std::{
    fmt,
    path::Path,
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
};

use serde::Serialize;

use super::{Report, Scenario, run};

/// What is read off a simulation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Figure {
    /// True error, root mean square, nanoseconds.
    RmsNs,
    /// The same over that of [`PLAIN`] with the same seed.
    RmsRatio,
    /// From when on the error was below 1 us for good, seconds; infinite for never.
    ConvergedS,
    /// Steps of the clock.
    Steps,
    /// Share of the instants at which the error was within its bound.
    BoundCoverage,
    /// Mean bound over the mean half width of the causal interval.
    BoundOverHalfWidth,
    /// Share of the instants at which the error was within the precision.
    PrecisionCoverage,
    /// Mean precision over the 99th percentile of the error.
    PrecisionOverP99,
}

impl Figure {
    /// For tables.
    pub const fn title(self) -> &'static str {
        match self {
            Self::RmsNs => "rms, ns",
            Self::RmsRatio => "rms over undisturbed",
            Self::ConvergedS => "below 1 us after, s",
            Self::Steps => "steps of the clock",
            Self::BoundCoverage => "within its bound",
            Self::BoundOverHalfWidth => "bound over half width",
            Self::PrecisionCoverage => "within its precision",
            Self::PrecisionOverP99 => "precision over p99",
        }
    }

    fn read(self, report: &Report, plain_rms_ns: Option<f64>) -> f64 {
        let summary = &report.summary;
        match self {
            Self::RmsNs => summary.true_error_ns.rms,
            Self::RmsRatio => summary.true_error_ns.rms / plain_rms_ns.unwrap_or(f64::NAN),
            Self::ConvergedS => summary.converged_s.unwrap_or(f64::INFINITY),
            Self::Steps => summary.steps.len() as f64,
            Self::BoundCoverage => summary.bound.coverage * summary.bound.known,
            Self::BoundOverHalfWidth => summary.bound.over_half_width,
            Self::PrecisionCoverage => summary.precision.coverage * summary.bound.known,
            Self::PrecisionOverP99 => summary.precision.over_p99,
        }
    }
}

/// What a figure is to be.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// Not more.
    AtMost(f64),
    /// Not less.
    AtLeast(f64),
    /// Within a quarter: the figure that linuxptp reaches, which its method is to reproduce here.
    Near(f64),
    /// Nothing in particular: what linuxptp reaches, for scale.
    Beside(f64),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(value) => write!(f, "<= {value}"),
            Self::AtLeast(value) => write!(f, ">= {value}"),
            Self::Near(value) => write!(f, "{value} +-25 %"),
            Self::Beside(value) => write!(f, "(linuxptp {value})"),
        }
    }
}

impl Target {
    /// Whether a value is what it is to be.
    pub fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtMost(limit) => value <= limit,
            Self::AtLeast(limit) => value >= limit,
            Self::Near(figure) => (value / figure - 1.0).abs() <= 0.25,
            Self::Beside(_) => value.is_finite(),
        }
    }
}

/// A figure of one case with all of its seeds; a line of the table.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// What was simulated.
    pub case: String,
    /// The servo, as `--servo` takes it.
    pub servo: String,
    /// The figure.
    pub figure: Figure,
    /// Its value with each seed, or in each of several scenarios.
    pub values: Vec<f64>,
    /// What it is to be.
    pub target: Target,
    /// Whether all values are.
    pub met: bool,
}

/// How much is simulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// One seed.
    Quick,
    /// Three seeds.
    Normal,
    /// Three seeds, and every rate with every jitter.
    Full,
}

/// One line, and the scenarios behind it.
struct Case {
    name: String,
    servo: &'static str,
    scenarios: Vec<Scenario>,
    targets: Vec<(Figure, Target)>,
}

/// Servos with the rms that each is to reach, nanoseconds.
type Servos = &'static [(&'static str, Target)];

/// The case that disturbances are compared with.
const PLAIN: &str = "J=1 us, W=1";

/// Runs everything on all processors, `each` is told of each simulation that is done: how many are,
/// how many there are, and what it was.
pub fn table(extent: Extent, mut each: impl FnMut(usize, usize, &str)) -> Vec<Row> {
    let cases = cases(extent);
    let tasks: Vec<(usize, &Scenario)> = cases
        .iter()
        .enumerate()
        .flat_map(|(at, case)| case.scenarios.iter().map(move |scenario| (at, scenario)))
        .collect();
    let next = AtomicUsize::new(0);
    let (sender, done) = mpsc::channel();
    let workers = thread::available_parallelism().map_or(1, usize::from);
    let mut reports: Vec<Option<Report>> = tasks.iter().map(|_| None).collect();
    thread::scope(|scope| {
        for _ in 0..workers {
            let (sender, next, tasks, cases) = (sender.clone(), &next, &tasks, &cases);
            scope.spawn(move || {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some((case, scenario)) = tasks.get(at) else { return };
                    let mut scenario = (*scenario).clone();
                    if let Ok(servo) = cases[*case].servo.parse() {
                        scenario.servo = servo;
                    }
                    if sender.send((at, run(&scenario))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        for (count, (at, report)) in done.iter().enumerate() {
            let case = &cases[tasks[at].0];
            each(count + 1, tasks.len(), &format!("{}, {}", case.name, case.servo));
            reports[at] = Some(report);
        }
    });
    let reports: Vec<(usize, Report)> = tasks
        .iter()
        .zip(reports)
        .filter_map(|((case, _), report)| Some((*case, report?)))
        .collect();
    rows(&cases, &reports)
}

fn rows(cases: &[Case], reports: &[(usize, Report)]) -> Vec<Row> {
    let plain = |seed: u64| {
        reports
            .iter()
            .filter(|(case, _)| cases[*case].name == PLAIN && cases[*case].servo == "adaptive")
            .find(|(_, report)| report.summary.seed == seed)
            .map(|(_, report)| report.summary.true_error_ns.rms)
    };
    let mut rows = Vec::new();
    for (at, case) in cases.iter().enumerate() {
        let own = || reports.iter().filter(|(of, _)| *of == at).map(|(_, report)| report);
        for &(figure, target) in &case.targets {
            let values: Vec<f64> =
                own().map(|report| figure.read(report, plain(report.summary.seed))).collect();
            rows.push(Row {
                case: case.name.clone(),
                servo: case.servo.to_owned(),
                figure,
                met: !values.is_empty() && values.iter().all(|value| target.is_met(*value)),
                values,
                target,
            });
        }
    }
    rows
}

fn cases(extent: Extent) -> Vec<Case> {
    use Figure::{
        BoundCoverage, BoundOverHalfWidth, ConvergedS, PrecisionCoverage, PrecisionOverP99, RmsNs,
        RmsRatio, Steps,
    };
    use Target::{AtLeast, AtMost, Beside, Near};
    let seeds: &[u64] = if extent == Extent::Quick { &[1] } else { &[1, 2, 3] };
    let trust = [
        (BoundCoverage, AtLeast(0.999)),
        (PrecisionCoverage, AtLeast(0.999)),
        (PrecisionOverP99, AtMost(10.0)),
    ];
    let mut cases = Vec::new();

    let plain: [(f64, f64, Servos); 4] = [
        (
            1.0,
            1.0,
            &[("adaptive", AtMost(60.0)), ("pi:raw-weight", Near(190.0)), ("pi", Near(290.0))],
        ),
        (
            10.0,
            1.0,
            &[("adaptive", AtMost(240.0)), ("pi:raw-weight", Near(1.6e3)), ("pi", Near(2.9e3))],
        ),
        (
            100.0,
            1.0,
            &[("adaptive", AtMost(1e3)), ("pi:raw-weight", Near(13e3)), ("pi", Near(28e3))],
        ),
        (
            1.0,
            10.0,
            &[
                ("adaptive", AtMost(150.0)),
                ("linreg", Beside(450.0)),
                ("pi:raw-weight", Beside(600.0)),
            ],
        ),
    ];
    for (jitter_us, wander, servos) in plain {
        for &(servo, target) in servos {
            let mut targets = vec![(RmsNs, target)];
            if servo == "adaptive" {
                targets.extend(trust);
                if jitter_us <= 1.0 {
                    targets.push((BoundOverHalfWidth, AtMost(1.3)));
                }
            }
            let scenarios = seeds
                .iter()
                .map(|seed| Scenario::two_nodes(jitter_us * 1e3, wander, 0, *seed))
                .collect();
            let name = format!("J={jitter_us} us, W={wander}");
            cases.push(Case { name, servo, scenarios, targets });
        }
    }

    let read = |text: &str| -> Vec<Scenario> {
        let texts = seeds.iter().map(|seed| format!("seed = {seed}\n{text}"));
        texts.filter_map(|text| Scenario::parse("bench", &text, Path::new(".")).ok()).collect()
    };
    let adaptive = |name: &str, scenarios, targets| Case {
        name: name.to_owned(),
        servo: "adaptive",
        scenarios,
        targets,
    };
    for (name, text) in
        [("J=1 us on one way only", ONE_WAY), ("J=1 us, 1 % lost, 1 % late by 10 ms", DISTURBED)]
    {
        cases.push(adaptive(name, read(text), vec![(RmsRatio, AtMost(2.0))]));
    }
    for (rate, log, within_s) in [("16/s", -4, 10.0), ("1/s", 0, 60.0)] {
        let name = format!("from 1.5 s and 50 ppm, {rate}");
        let targets = vec![(ConvergedS, AtMost(within_s)), (Steps, AtMost(1.0))];
        cases.push(adaptive(&name, read(&first_lock(log)), targets));
    }
    let targets = vec![(Steps, AtMost(1.0)), (BoundCoverage, AtLeast(0.999))];
    cases.push(adaptive("holdover 300 s, failover, return", read(HOLDOVER), targets));

    let (rates, jitters): (Vec<i8>, &[f64]) = match extent {
        Extent::Quick => (vec![3, 0, -7], &[100.0, 1e6]),
        Extent::Normal => (vec![3, 1, 0, -2, -4, -7], &[100.0, 1e4, 1e6]),
        Extent::Full => ((-7..=3).rev().collect(), &[100.0, 1e3, 1e4, 1e5, 1e6]),
    };
    for log in rates {
        let scenarios = jitters.iter().flat_map(|jitter_ns| read(&any_rate(log, *jitter_ns)));
        let rate = if log > 0 { format!("1/{}", 1 << log) } else { (1 << -log).to_string() };
        let most_us = jitters.last().copied().unwrap_or(0.0) / 1e3;
        let name = format!("{rate} Sync/s, J=0.1..{most_us} us, {} sizes", jitters.len());
        cases.push(adaptive(&name, scenarios.collect(), trust.to_vec()));
    }
    cases
}

/// Jitter towards the time receiver, none on the way back.
const ONE_WAY: &str = "
duration-s = 5000
warm-up-s = 1000
sample-interval-s = 0.25
time-receiver.oscillator.random-walk-ppb = 1
[[grandmaster]]
link.forward = { base-delay-ns = 50000, jitter.exponential.mean-ns = 1000 }
link.backward = { base-delay-ns = 50000 }
";

/// Loss and outliers on both ways.
const DISTURBED: &str = "
duration-s = 5000
warm-up-s = 1000
sample-interval-s = 0.25
time-receiver.oscillator.random-walk-ppb = 1
[[grandmaster]]
[grandmaster.link.forward]
base-delay-ns = 50000
jitter.exponential.mean-ns = 1000
loss = 0.01
outliers = { probability = 0.01, delay.constant.ns = 10000000 }
";

/// The grandmaster goes, comes back, is replaced by one that differs from it by 200 ns, and returns.
const HOLDOVER: &str = "
duration-s = 4000
warm-up-s = 300
sample-interval-s = 0.25
time-receiver.oscillator = { offset-ns = -2e8, frequency-ppb = 12000, random-walk-ppb = 0.1 }
[[grandmaster]]
priority1 = 100
log-sync-interval = -3
log-min-delay-req-interval = -3
log-announce-interval = 0
link.forward = { base-delay-ns = 20000, jitter.exponential.mean-ns = 2000 }
outages = [{ from-s = 1000, to-s = 1300 }, { from-s = 2000, to-s = 3000 }]
[[grandmaster]]
priority1 = 120
log-sync-interval = -3
log-min-delay-req-interval = -3
log-announce-interval = 0
oscillator.offset-ns = 200
link.forward = { base-delay-ns = 35000, jitter.exponential.mean-ns = 4000 }
outages = [{ from-s = 0, to-s = 2200 }]
";

/// 1.5 s and 50 ppm off.
fn first_lock(log_interval: i8) -> String {
    format!(
        "duration-s = 200\n\
         time-receiver.oscillator = {{ offset-ns = -1.5e9, frequency-ppb = -50000 }}\n\
         [[grandmaster]]\n\
         log-sync-interval = {log_interval}\nlog-min-delay-req-interval = {log_interval}\n\
         link.forward = {{ base-delay-ns = 10000, jitter.exponential.mean-ns = 1500 }}\n"
    )
}

/// 3000 exchanges at any rate with any jitter, judged after 500.
fn any_rate(log_interval: i8, jitter_ns: f64) -> String {
    let interval_s = f64::from(log_interval).exp2();
    // The servo needs time as well as packets: seconds for the frequency.
    let warm_up_s = (500.0 * interval_s).max(100.0);
    format!(
        "duration-s = {:?}\nwarm-up-s = {warm_up_s:?}\nsample-interval-s = {:?}\n\
         time-receiver.oscillator = {{ frequency-ppb = 20000, random-walk-ppb = 1 }}\n\
         [[grandmaster]]\n\
         log-sync-interval = {log_interval}\nlog-min-delay-req-interval = {log_interval}\n\
         link.forward = {{ base-delay-ns = 50000, jitter.exponential.mean-ns = {jitter_ns:?} }}\n",
        // The error wanders slowly: of a shorter time its 99th percentile would be luck.
        warm_up_s + (4_800.0 * interval_s).max(600.0),
        interval_s / 4.0,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_has_its_scenarios() {
        for (extent, seeds) in [(Extent::Quick, 1), (Extent::Normal, 3), (Extent::Full, 3)] {
            for case in cases(extent) {
                assert!(case.scenarios.len() >= seeds, "{}", case.name);
                assert!(case.servo.parse::<crate::servo::Choice>().is_ok(), "{}", case.servo);
            }
        }
    }

    #[test]
    fn targets_are_limits_or_figures_to_reproduce() {
        assert!(Target::AtMost(60.0).is_met(60.0) && !Target::AtMost(60.0).is_met(60.1));
        assert!(Target::AtLeast(0.999).is_met(1.0) && !Target::AtLeast(0.999).is_met(0.99));
        assert!(Target::Near(100.0).is_met(76.0) && !Target::Near(100.0).is_met(74.0));
        // Never converged, or nothing to compare with.
        assert!(!Target::AtMost(10.0).is_met(f64::INFINITY));
        assert!(!Target::AtMost(2.0).is_met(f64::NAN));
    }
}
