//! `bench servo --scenarios` and `bench servo --events`: the tables of [`sim::suite`](crate::sim::suite) and
//! [`sim::events`](crate::sim::events) as text or JSON lines.

use std::{fmt::Write as _, path::Path, process::ExitCode};

use serde::Serialize;

use super::servo::{Progress, print};
use crate::publish::Format;
use crate::{
    publish::text::nanos,
    servo::Choice,
    sim::{
        events::{self, Row},
        suite::{self, Case},
    },
};

/// A line of `--json`.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Line<'a> {
    /// A scenario with one seed.
    Scenario(&'a Case),
    /// An event with all of its seeds.
    Course(&'a Row),
    /// The last one.
    Summary { lines: usize, failed: usize },
}

/// All scenarios of a directory. The exit code is 0 when all is well, 1 when not, 2 when a scenario cannot
/// be used (said on standard error).
///
/// # Errors
/// When standard output cannot be written to.
pub(super) fn scenarios(
    directory: &Path,
    seeds: u64,
    servos: &[Choice],
    format: Format,
) -> anyhow::Result<ExitCode> {
    let scenarios = match suite::read_directory(directory) {
        Ok(scenarios) => scenarios,
        Err(error) => {
            eprintln!("ptp-agent bench servo: {:#}", anyhow::Error::from(error));
            return Ok(ExitCode::from(2));
        }
    };
    let progress = Progress::new();
    let cases =
        suite::judge(&scenarios, seeds, servos, |done, all, what| progress.tell(done, all, what));
    progress.end();
    let failed = cases.iter().filter(|case| !case.failures.is_empty()).count();
    let lines: Vec<Line<'_>> = cases.iter().map(Line::Scenario).collect();
    finish(format, &lines, failed, || scenario_table(&cases, servos))
}

/// All events.
///
/// # Errors
/// As [`scenarios`].
pub(super) fn events(seeds: u64, servos: &[Choice], format: Format) -> anyhow::Result<ExitCode> {
    let progress = Progress::new();
    let rows = events::table(seeds, servos, |done, all, what| progress.tell(done, all, what));
    progress.end();
    // The others are for scale.
    let judged = servos.first().map(Choice::to_string).unwrap_or_default();
    let failed = rows.iter().filter(|row| row.servo == judged && !row.met).count();
    let lines: Vec<Line<'_>> = rows.iter().map(Line::Course).collect();
    finish(format, &lines, failed, || event_table(&rows))
}

fn finish(
    format: Format,
    lines: &[Line<'_>],
    failed: usize,
    table: impl FnOnce() -> String,
) -> anyhow::Result<ExitCode> {
    let text = if format.is_json() {
        let summary = Line::Summary { lines: lines.len(), failed };
        let mut text = String::new();
        for line in lines.iter().chain([&summary]) {
            text += &serde_json::to_string(line)?;
            text.push('\n');
        }
        text
    } else {
        table()
    };
    print(&text)?;
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A line for each scenario, of its worst seed in each column, and what failed below.
fn scenario_table(cases: &[Case], servos: &[Choice]) -> String {
    let judged = servos.first().map(Choice::to_string).unwrap_or_default();
    let mut text = String::new();
    let _ = writeln!(
        text,
        "Scenarios: {judged}, judged by its bound, its steps and the best of the others; each figure of its \
         worst seed\n\n\
         {:<34}{:>10}{:>12}{:>7}{:>10}{:>11}{:>11}{:>11}{:>7}",
        "scenario",
        "rms",
        "best other",
        "ratio",
        "in bound",
        "bound",
        "half width",
        "precision",
        "steps"
    );
    let mut rest = cases;
    let (mut failed, mut count) = (0, 0);
    while let Some(first) = rest.first() {
        let own = rest.iter().take_while(|case| case.scenario == first.scenario).count();
        let (seeds, others) = rest.split_at(own);
        rest = others;
        count += 1;
        let bad: Vec<&Case> = seeds.iter().filter(|case| !case.failures.is_empty()).collect();
        failed += usize::from(!bad.is_empty());
        let judged = || seeds.iter().filter_map(|case| case.servos.first());
        let largest = |values: &mut dyn Iterator<Item = f64>| values.fold(0.0, f64::max);
        let ratio = seeds
            .iter()
            .filter_map(|case| Some((case.servos.first()?.rms_ns, case.best_ns()?)))
            .max_by(|a, b| (a.0 / a.1).total_cmp(&(b.0 / b.1)));
        let (rms, best) = ratio
            .map_or((largest(&mut judged().map(|figures| figures.rms_ns)), None), |(rms, best)| {
                (rms, Some(best))
            });
        let dash = || "-".to_owned();
        let _ = writeln!(
            text,
            "{:<34}{:>10}{:>12}{:>7}{:>8.2} %{:>11}{:>11}{:>11}{:>7}  {}",
            first.scenario,
            nanos(rms),
            best.map_or_else(dash, nanos),
            best.map_or_else(dash, |best| format!("{:.2}", rms / best)),
            100.0 * judged().map(|figures| figures.within_bound).fold(1.0, f64::min),
            nanos(largest(&mut judged().map(|figures| figures.bound_ns))),
            nanos(largest(&mut judged().map(|figures| figures.half_width_ns))),
            nanos(largest(&mut judged().map(|figures| figures.precision_ns))),
            judged().map(|figures| figures.steps).max().unwrap_or(0),
            if bad.is_empty() {
                "met".to_owned()
            } else {
                format!("MISSED {} of {own}", bad.len())
            },
        );
        for case in bad {
            for failure in &case.failures {
                let _ = writeln!(text, "    seed {}: {failure}", case.seed);
            }
        }
    }
    let _ = writeln!(text, "\n{count} scenarios, {failed} missed");
    text
}

fn event_table(rows: &[Row]) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "One event: seconds until the error is below twice J for good, and rms 300 to 600 s later\n\n\
         {:<62}{:<24}{:>16}{:>8}{:>7}{:>20}{:>8}{:>10}",
        "event", "servo", "median, worst", "limit", "late", "rms median, worst", "wrong", "bound"
    );
    for row in rows {
        let _ = writeln!(
            text,
            "{:<62}{:<24}{:>16}{:>8}{:>7}{:>20}{:>8}{:>10}  {}",
            row.name,
            row.servo,
            format!("{:.1} {:.1} s", row.settled_median_s, row.settled_worst_s),
            format!("{} s", row.limit_s),
            format!("{}/{}", row.late, row.seeds),
            format!("{} {}", nanos(row.later_rms_median_ns), nanos(row.later_rms_worst_ns)),
            format!("{}/{}", row.wrong, row.seeds),
            format!("{}/{}", row.violated, row.seeds),
            if row.met { "met" } else { "MISSED" },
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::suite::{Failure, Figures};

    fn case(seed: u64, rms_ns: f64) -> Case {
        let figures = |servo: &str, rms_ns| Figures {
            servo: servo.to_owned(),
            rms_ns,
            max_ns: 0.0,
            within_bound: 1.0,
            known: 1.0,
            violated_s: 0.0,
            bound_ns: 50_000.0,
            precision_ns: 300.0,
            half_width_ns: 48_000.0,
            within_interval: 1.0,
            steps: 1,
        };
        let worse = Failure::Worse { rms_ns, best_ns: 100.0, allowed: 1.2 };
        Case {
            scenario: "flap".into(),
            seed,
            servos: vec![figures("adaptive", rms_ns), figures("pi", 100.0)],
            failures: if rms_ns > 120.0 { vec![worse] } else { Vec::new() },
        }
    }

    #[test]
    fn a_scenario_is_a_line_of_its_worst_seed_and_each_failure_has_its_own() {
        let servos = ["adaptive", "pi"].map(|servo| servo.parse().unwrap());
        let text = scenario_table(&[case(101, 90.0), case(202, 250.0)], &servos);
        let line = text.lines().find(|line| line.starts_with("flap")).unwrap();
        assert!(line.contains("250 ns") && line.contains("2.50"), "{line}");
        assert!(line.ends_with("MISSED 1 of 2"), "{line}");
        assert!(text.contains("seed 202: rms 250 ns") && text.contains("1 scenarios, 1 missed"));
    }

    #[test]
    fn a_line_of_json_says_what_failed() {
        let case = case(202, 250.0);
        let line = serde_json::to_value(Line::Scenario(&case)).unwrap();
        assert_eq!((&line["event"], &line["scenario"]), (&"scenario".into(), &"flap".into()));
        assert_eq!(line["failures"][0]["failure"], "worse");
        assert_eq!(line["servos"][1]["servo"], "pi");
    }
}
