//! What came out of a simulation: figures against known truth as text, JSON and an HTML page.

use std::fmt::Write as _;

use serde::Serialize;

use super::{
    scenario::Scenario,
    stability::{Stability, stability},
    world::{Course, Truth},
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
        let Course { truth, start, steps, samples, changes } = course;
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
            bound: bound(&judged, true_error_ns.p99),
            true_error_ns,
            steps,
            samples,
            grandmaster_changes: changes,
            holdover_s: held as f64 * interval_s,
            stability: stability(&errors, interval_s),
        };
        Self { summary, truth }
    }

    /// For people.
    pub fn text(&self) -> String {
        let Summary { true_error_ns: error, bound, .. } = &self.summary;
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
        let _ = writeln!(
            text,
            "{:<22}held {:.3} %, mean {}, {:.1} times p99",
            "error bound",
            bound.coverage * 100.0,
            nanos(bound.mean_ns),
            bound.over_p99
        );
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
        let late = |point: &&(f64, f64)| point.0 >= self.summary.from_s;
        let points: Vec<(f64, f64)> = points.iter().filter(late).copied().collect();
        let bounds: Vec<(f64, f64)> = self
            .truth
            .iter()
            .filter(|truth| truth.at_s >= self.summary.from_s)
            .filter_map(|truth| Some((truth.at_s, truth.bound_ns?)))
            .collect();
        let unit = Unit::of_nanos(error.max);
        let mut series =
            vec![Series { name: "true error", points: &points, ink: Ink::First, dots: false }];
        if !bounds.is_empty() {
            series.push(Series { name: "bound", points: &bounds, ink: Ink::Second, dots: false });
        }
        page.plot(
            &plot::time_series("true error", unit, &series, &[])?,
            "From the start of the statistics on, with the bound that the servo gave.",
        );
        let values: Vec<f64> = points.iter().map(|point| point.1).collect();
        page.plot(&plot::histogram("true error", unit, &values)?, "Its distribution.");
        page.heading("Stability");
        let header = ["tau, s", "MTIE", "TDEV", "Allan deviation"];
        page.table("As ITU-T G.810 defines them", &header, &self.stability_rows());
        page.heading("Figures");
        let mut rows: Vec<Vec<String>> =
            self.figures().into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect();
        rows.push(vec!["mean error".into(), nanos(error.mean)]);
        rows.push(vec!["standard deviation".into(), nanos(error.sd)]);
        rows.push(vec!["mean bound".into(), nanos(bound.mean_ns)]);
        rows.push(vec!["mean bound over p99".into(), format!("{:.1}", bound.over_p99)]);
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

fn bound(judged: &[Truth], p99: f64) -> Bound {
    let with: Vec<(f64, f64)> =
        judged.iter().filter_map(|truth| Some((truth.error_ns, truth.bound_ns?))).collect();
    let count = with.len().max(1) as f64;
    let held = with.iter().filter(|(error, bound)| error.abs() <= *bound).count();
    let mean_ns = with.iter().map(|(_, bound)| bound).sum::<f64>() / count;
    Bound {
        coverage: held as f64 / count,
        known: with.len() as f64 / judged.len().max(1) as f64,
        mean_ns,
        over_p99: if p99 > 0.0 { mean_ns / p99 } else { 0.0 },
    }
}
