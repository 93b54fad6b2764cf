//! What came out of a simulation: figures against known truth as text, JSON and an HTML page.

use std::{fmt::Write as _, io};

use serde::Serialize;

use super::{
    scenario::Scenario,
    stability::{Stability, stability},
    world::{Course, Trusted, Truth},
};
use crate::{
    publish::{
        plot::{self, Ink, Mark, PlotError, Series, Unit},
        report::Page,
        statistics::ErrorStatistics,
        text::nanos,
    },
    servo::ServoState,
};

/// The figures: what `--json` prints.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// `summary`.
    pub event: &'static str,
    /// The scenario's title.
    pub title: String,
    /// The servo.
    pub servo: String,
    /// The seed.
    pub seed: u64,
    /// True time that was simulated, seconds.
    pub duration_s: f64,
    /// Start of the statistics, seconds.
    pub from_s: f64,
    /// From when on the error stayed below the scenario's limit, seconds; `null` for never.
    pub converged_s: Option<f64>,
    /// Clock minus grandmaster from `from_s` on.
    pub true_error_ns: ErrorStatistics,
    /// The error bound from `from_s` on.
    pub bound: Bound,
    /// The spread that the servo gave, from `from_s` on.
    pub precision: Precision,
    /// Where the error can be by causality, from `from_s` on.
    pub interval: CausalInterval,
    /// Steps of the clock: when, seconds, and by how much, nanoseconds.
    pub steps: Vec<(f64, f64)>,
    /// Sync messages that were used.
    pub samples: u64,
    /// Changes of grandmaster, the first one included.
    pub grandmaster_changes: u64,
    /// Time in holdover, seconds.
    pub holdover_s: f64,
    /// MTIE, TDEV and Allan deviation of the error from `from_s` on.
    pub stability: Vec<Stability>,
}

/// How good the error bound was.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Bound {
    /// Share of the instants with a bound at which the error was within it.
    pub coverage: f64,
    /// Share of the instants that had a bound.
    pub known: f64,
    /// Mean bound, nanoseconds.
    pub mean_ns: f64,
    /// Mean bound over the 99th percentile of the error.
    pub over_p99: f64,
    /// Mean bound over the mean half width of the causal interval.
    pub over_half_width: f64,
    /// For how long the error was beyond it altogether, seconds.
    pub violated_s: f64,
    /// How often that began.
    pub violations: u64,
    /// The longest of them, seconds.
    pub longest_violation_s: f64,
}

/// How good the precision was, against the true error: a path with an asymmetry makes it look false.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Precision {
    /// Mean, nanoseconds.
    pub mean_ns: f64,
    /// Mean over the 99th percentile of the error.
    pub over_p99: f64,
    /// Share of the instants at which the error was within it.
    pub coverage: f64,
}

/// How good the causal interval was.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct CausalInterval {
    /// Mean half of its width, nanoseconds.
    pub half_width_ns: f64,
    /// Share of the instants at which the truth was inside.
    pub coverage: f64,
    /// Share of the instants at which the estimate had left it and was set to its end.
    pub clipped: f64,
}

/// A line of `--json` before the summary: one instant.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Sample {
    /// `sample`.
    pub event: &'static str,
    /// True time since the start, seconds.
    pub at_s: f64,
    /// Clock minus grandmaster, nanoseconds.
    pub error_ns: f64,
    /// What the servo took it for at the last Sync.
    pub offset_ns: Option<f64>,
    /// Bound on |error|; `null` while there is none.
    pub error_bound_ns: Option<f64>,
    /// The spread alone.
    pub precision_ns: Option<f64>,
    /// Where the error can be by causality.
    pub interval_ns: Option<[f64; 2]>,
    /// State of the servo.
    pub state: ServoState,
    /// The estimate had left the interval.
    pub is_clipped: bool,
}

impl From<&Truth> for Sample {
    fn from(truth: &Truth) -> Self {
        // A thousandth of a nanosecond is more than anything here can tell.
        let short = |ns: f64| (ns * 1e3).round() / 1e3;
        let trust = truth.trust;
        Self {
            event: "sample",
            at_s: (truth.at_s * 1e9).round() / 1e9,
            error_ns: short(truth.error_ns),
            offset_ns: truth.offset_ns.map(short),
            error_bound_ns: trust.map(|trust| short(trust.bound_ns)),
            precision_ns: trust.map(|trust| short(trust.precision_ns)),
            interval_ns: trust.map(|trust| trust.interval_ns.map(short)),
            state: truth.state,
            is_clipped: trust.is_some_and(|trust| trust.is_clipped),
        }
    }
}

/// The result of a simulation.
#[derive(Clone, Debug)]
pub struct Report {
    /// The figures.
    pub summary: Summary,
    /// The truth at the scenario's interval.
    pub truth: Vec<Truth>,
}

impl Report {
    pub(super) fn new(scenario: &Scenario, course: Course) -> Self {
        let Course { truth, start, steps, samples, changes, .. } = course;
        let limit = scenario.converged_below_ns.get();
        let converged_s = converged(&truth, &start, limit);
        let from_s = match scenario.warm_up_s.get() {
            0.0 => converged_s.unwrap_or(0.0),
            warm_up_s => warm_up_s,
        };
        let judged: Vec<Truth> =
            truth.iter().copied().filter(|truth| truth.at_s >= from_s).collect();
        let errors: Vec<f64> = judged.iter().map(|truth| truth.error_ns).collect();
        let interval_s = scenario.sample_interval_s.get();
        let true_error_ns = ErrorStatistics::of(&errors);
        let held = truth.iter().filter(|truth| truth.state == ServoState::Holdover).count();
        let summary = Summary {
            event: "summary",
            title: scenario.title.clone(),
            servo: scenario.servo.to_string(),
            seed: scenario.seed,
            duration_s: scenario.duration_s.get(),
            from_s,
            converged_s,
            bound: bound(&judged, true_error_ns.p99, interval_s),
            precision: precision(&judged, true_error_ns.p99),
            interval: interval(&judged),
            true_error_ns,
            steps,
            samples,
            grandmaster_changes: changes,
            holdover_s: held as f64 * interval_s,
            stability: stability(&errors, interval_s),
        };
        Self { summary, truth }
    }

    /// JSON lines: a [`Sample`] for each instant, then the summary.
    ///
    /// # Errors
    /// What `out` says.
    pub fn write_json(&self, out: &mut impl io::Write) -> io::Result<()> {
        for truth in &self.truth {
            serde_json::to_writer(&mut *out, &Sample::from(truth))?;
            out.write_all(b"\n")?;
        }
        serde_json::to_writer(&mut *out, &self.summary)?;
        out.write_all(b"\n")?;
        out.flush()
    }

    /// For people.
    pub fn text(&self) -> String {
        let error = &self.summary.true_error_ns;
        let mut text = String::new();
        if !self.summary.title.is_empty() {
            let _ = writeln!(text, "{}", self.summary.title);
        }
        for (name, value) in self.figures() {
            let _ = writeln!(text, "{name:<22}{value}");
        }
        let _ = writeln!(
            text,
            "{:<22}mean {}, sd {}, rms {}, p99 {}, max {}",
            "true error",
            nanos(error.mean),
            nanos(error.sd),
            nanos(error.rms),
            nanos(error.p99),
            nanos(error.max)
        );
        for (name, value) in self.trust_figures() {
            let _ = writeln!(text, "{name:<22}{value}");
        }
        let _ = writeln!(text, "\n{:>12} {:>12} {:>12} {:>12}", "tau, s", "MTIE", "TDEV", "ADEV");
        for row in self.stability_rows() {
            let _ = writeln!(text, "{:>12} {:>12} {:>12} {:>12}", row[0], row[1], row[2], row[3]);
        }
        text
    }

    fn figures(&self) -> Vec<(&'static str, String)> {
        let Summary { servo, seed, duration_s, from_s, converged_s, .. } = &self.summary;
        vec![
            ("servo", servo.clone()),
            ("seed", seed.to_string()),
            ("simulated", format!("{duration_s:.0} s")),
            ("converged", converged_s.map_or_else(|| "never".into(), |s| format!("{s:.1} s"))),
            ("statistics from", format!("{from_s:.0} s on")),
            ("steps of the clock", self.summary.steps.len().to_string()),
            ("Sync messages used", self.summary.samples.to_string()),
            ("in holdover", format!("{:.0} s", self.summary.holdover_s)),
        ]
    }

    fn trust_figures(&self) -> [(&'static str, String); 4] {
        let Summary { bound, precision, interval, .. } = &self.summary;
        [
            (
                "error bound",
                format!(
                    "held {:.3} %, mean {}, {:.2} times the interval's half width",
                    bound.coverage * 100.0,
                    nanos(bound.mean_ns),
                    bound.over_half_width
                ),
            ),
            (
                "exceeded",
                format!(
                    "{} times, {:.1} s altogether, {:.1} s at the longest",
                    bound.violations, bound.violated_s, bound.longest_violation_s
                ),
            ),
            (
                "precision",
                format!(
                    "mean {}, {:.1} times p99, held {:.3} %",
                    nanos(precision.mean_ns),
                    precision.over_p99,
                    precision.coverage * 100.0
                ),
            ),
            (
                "causal interval",
                format!(
                    "truth inside {:.3} %, half width {}, estimate clipped {:.3} %",
                    interval.coverage * 100.0,
                    nanos(interval.half_width_ns),
                    interval.clipped * 100.0
                ),
            ),
        ]
    }

    fn stability_rows(&self) -> Vec<Vec<String>> {
        let or_dash = |value: Option<String>| value.unwrap_or_else(|| "-".into());
        let rows = self.summary.stability.iter().map(|row| {
            vec![
                format!("{}", row.tau_s),
                nanos(row.mtie_ns),
                or_dash(row.tdev_ns.map(|ns| format!("{ns:.2} ns"))),
                or_dash(row.adev.map(|adev| format!("{adev:.2e}"))),
            ]
        });
        rows.collect()
    }

    /// The HTML page.
    ///
    /// # Errors
    /// When a plot cannot be drawn.
    pub fn page(&self) -> Result<Page, PlotError> {
        let Summary { true_error_ns: error, bound, title, .. } = &self.summary;
        let title = if title.is_empty() { "Simulation" } else { title };
        let lead = "The real engine and servo in virtual time; the true error is known exactly.";
        let mut page = Page::new(title, lead);
        page.figures(&[
            ("rms error", nanos(error.rms)),
            ("99 % within", nanos(error.p99)),
            ("largest", nanos(error.max)),
            ("bound held", format!("{:.3} %", bound.coverage * 100.0)),
        ]);
        page.heading("True error");
        let points: Vec<(f64, f64)> =
            self.truth.iter().map(|truth| (truth.at_s, truth.error_ns)).collect();
        let marks: Vec<Mark<'_>> = self
            .summary
            .converged_s
            .map(|at_s| Mark { at_s, name: "converged" })
            .into_iter()
            .collect();
        page.plot(
            &plot::magnitude_over_time("|true error|", &points, &marks)?,
            "The whole run: magnitude of clock minus grandmaster, logarithmic.",
        );
        let judged = || self.truth.iter().filter(|truth| truth.at_s >= self.summary.from_s);
        let points: Vec<(f64, f64)> = judged().map(|truth| (truth.at_s, truth.error_ns)).collect();
        let unit = Unit::of_nanos(error.max);
        let line = |name, points, ink| Series { name, points, ink, dots: false };
        page.plot(
            &plot::time_series(
                "true error",
                unit,
                &[line("true error", &points, Ink::First)],
                &[],
            )?,
            "From the start of the statistics on.",
        );
        let values: Vec<f64> = points.iter().map(|point| point.1).collect();
        page.plot(&plot::histogram("true error", unit, &values)?, "Its distribution.");
        page.heading("How far the clock could be trusted");
        let said = |read: fn(&Trusted) -> f64| -> Vec<(f64, f64)> {
            judged().filter_map(|truth| Some((truth.at_s, read(&truth.trust?)))).collect()
        };
        let (bounds, spread) = (said(|trust| trust.bound_ns), said(|trust| trust.precision_ns));
        let (least, most) =
            (said(|trust| trust.interval_ns[0]), said(|trust| trust.interval_ns[1]));
        if bounds.is_empty() {
            page.paragraph("The servo promised nothing.");
        } else {
            let largest = bounds.iter().fold(error.max, |largest, point| largest.max(point.1));
            page.plot(
                &plot::time_series(
                    "true error",
                    Unit::of_nanos(largest),
                    &[
                        line("least by causality", &least, Ink::Mark),
                        line("most by causality", &most, Ink::Mark),
                        line("bound", &bounds, Ink::Second),
                        line("true error", &points, Ink::First),
                    ],
                    &[],
                )?,
                "The true error, the interval that causality allows, and the bound on its magnitude.",
            );
            page.plot(
                &plot::time_series(
                    "true error",
                    unit,
                    &[
                        line("precision", &spread, Ink::Second),
                        line("true error", &points, Ink::First),
                    ],
                    &[],
                )?,
                "The true error and the precision that the servo gave: repeatability, no claim about \
                 asymmetry.",
            );
        }
        page.heading("Stability");
        let header = ["tau, s", "MTIE", "TDEV", "Allan deviation"];
        page.table("As ITU-T G.810 defines them", &header, &self.stability_rows());
        page.heading("Figures");
        let mut rows: Vec<Vec<String>> =
            self.figures().into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect();
        rows.push(vec!["mean error".into(), nanos(error.mean)]);
        rows.push(vec!["standard deviation".into(), nanos(error.sd)]);
        rows.extend(self.trust_figures().map(|(name, value)| vec![name.to_owned(), value]));
        page.table("", &[], &rows);
        Ok(page)
    }
}

/// The first instant from which on the error stays below `limit`.
fn converged(truth: &[Truth], start: &[Truth], limit: f64) -> Option<f64> {
    let last_bad = truth
        .iter()
        .chain(start)
        .filter(|truth| truth.error_ns.abs() >= limit)
        .map(|truth| truth.at_s)
        .fold(f64::NEG_INFINITY, f64::max);
    truth
        .iter()
        .chain(start)
        .map(|truth| truth.at_s)
        .filter(|at_s| *at_s > last_bad)
        .reduce(f64::min)
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0.0), |(sum, count), value| (sum + value, count + 1.0));
    if count > 0.0 { sum / count } else { 0.0 }
}

fn ratio(value: f64, over: f64) -> f64 {
    if over > 0.0 { value / over } else { 0.0 }
}

fn trusted(judged: &[Truth]) -> impl Iterator<Item = (f64, Trusted)> {
    judged.iter().filter_map(|truth| Some((truth.error_ns, truth.trust?)))
}

fn bound(judged: &[Truth], p99: f64, interval_s: f64) -> Bound {
    let count = trusted(judged).count() as f64;
    let mean_ns = mean(trusted(judged).map(|(_, trust)| trust.bound_ns));
    let (mut violated, mut violations, mut longest, mut running) = (0_u64, 0, 0, 0);
    for truth in judged {
        if truth.is_within_bound() == Some(false) {
            violated += 1;
            violations += u64::from(running == 0);
            running += 1;
            longest = longest.max(running);
        } else {
            running = 0;
        }
    }
    Bound {
        coverage: (count - violated as f64) / count.max(1.0),
        known: count / judged.len().max(1) as f64,
        mean_ns,
        over_p99: ratio(mean_ns, p99),
        over_half_width: ratio(mean_ns, interval(judged).half_width_ns),
        violated_s: violated as f64 * interval_s,
        violations,
        longest_violation_s: f64::from(longest) * interval_s,
    }
}

fn precision(judged: &[Truth], p99: f64) -> Precision {
    let mean_ns = mean(trusted(judged).map(|(_, trust)| trust.precision_ns));
    let within = trusted(judged).map(|(error, trust)| error.abs() <= trust.precision_ns);
    Precision { mean_ns, over_p99: ratio(mean_ns, p99), coverage: share(within) }
}

fn interval(judged: &[Truth]) -> CausalInterval {
    let inside = |(error, trust): (f64, Trusted)| {
        trust.interval_ns[0] <= error && error <= trust.interval_ns[1]
    };
    CausalInterval {
        half_width_ns: mean(trusted(judged).map(|(_, trust)| trust.half_width_ns())),
        coverage: share(trusted(judged).map(inside)),
        clipped: share(trusted(judged).map(|(_, trust)| trust.is_clipped)),
    }
}

fn share(hits: impl Iterator<Item = bool>) -> f64 {
    mean(hits.map(f64::from))
}
