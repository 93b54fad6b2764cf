//! The laboratory's closing words: the summary as text, and the HTML page.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::{
    Args,
    observation::{LabSummary, Observation, seconds_since},
    sync_rate,
    truth::{CONVERGED_BELOW_NS, SETTLING_NS, Truth},
};
use crate::publish::{
    plot::{self, Ink, Mark, PlotError, Series, Unit},
    report::{Page, kernel},
    text::nanos,
};

/// The summary for a terminal.
pub(super) fn text(summary: &LabSummary) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "{name:<22}{value}");
    };
    line("ran for", format!("{:.1} s, {} samples", summary.duration_s, summary.samples));
    line("converged after", seconds(summary.converged_s, "not converged"));
    line("statistics from", seconds(summary.statistics_from_s, "-"));
    line("below 1 µs for good", seconds(summary.below_1us_for_good_s, "not within this run"));
    if let Some(error) = summary.true_error_ns {
        let figures = [
            ("true error, mean", error.mean),
            ("            sd", error.sd),
            ("            rms", error.rms),
            ("  magnitude p50", error.p50),
            ("            p99", error.p99),
            ("            max", error.max),
        ];
        for (name, value) in figures {
            line(name, nanos(value));
        }
    }
    if let Some(delay) = summary.delay_ns {
        line("path delay, p50", format!("{} (p99 {})", nanos(delay.p50), nanos(delay.p99)));
    }
    let promises = summary.promises;
    if let (Some(inside), Some(bound)) = (promises.inside_bound, promises.bound_ns) {
        line("inside its bound", format!("{:.3} % (mean {})", inside * 100.0, nanos(bound)));
    }
    if let (Some(inside), Some(half)) = (promises.inside_interval, promises.half_width_ns) {
        line("inside its interval", format!("{:.3} % (mean +-{})", inside * 100.0, nanos(half)));
    }
    if let Some(strategy) = &summary.strategy {
        line("strategy", strategy.clone());
    }
    if let Some(ptp4l) = &summary.ptp4l {
        let error = ptp4l.offset_error_ns;
        line(
            "ptp4l's offset error",
            format!("rms {} (p99 {}), n = {}", nanos(error.rms), nanos(error.p99), ptp4l.samples),
        );
    }
    if let Some(ratio) = summary.ratio_to_ptp4l {
        line("rms over ptp4l's", format!("{ratio:.3} (largest 5 % left out of both)"));
    }
    let source = |source: &Option<String>| source.clone().unwrap_or_else(|| "none".into());
    line(
        "RX / TX stamps",
        format!("{} / {}", source(&summary.rx_source), source(&summary.tx_source)),
    );
    let lost: Vec<String> = summary
        .lost
        .iter()
        .filter(|(_, count)| **count > 0)
        .map(|(cause, count)| format!("{cause} {count}"))
        .collect();
    line("lost", if lost.is_empty() { "nothing".into() } else { lost.join(", ") });
    text
}

fn seconds(value: Option<f64>, otherwise: &str) -> String {
    value.map_or_else(|| otherwise.into(), |seconds| format!("{seconds:.2} s"))
}

/// The HTML page.
///
/// # Errors
/// When a plot cannot be drawn.
pub(super) fn page(
    args: &Args,
    observation: &Observation,
    truth: &Truth,
    summary: &LabSummary,
) -> Result<Page, PlotError> {
    let mut page = Page::new(
        "Laboratory: an agent follows a drifting grandmaster",
        format!(
            "Two virtual clocks on one host, {:.0} s. Both are known exactly at every instant, so \
             the error shown here is the truth and not the agent's own estimate.",
            summary.duration_s
        ),
    );
    headline(&mut page, summary);

    page.heading("True error");
    let marks: Vec<Mark<'_>> =
        truth.converged_s.map(|at_s| Mark { at_s, name: "converged" }).into_iter().collect();
    page.plot(
        &plot::magnitude_over_time("|true error|", &truth.errors, &marks)?,
        "The whole run: magnitude of agent clock minus grandmaster clock, logarithmic.",
    );
    let after: Vec<(f64, f64)> = truth.judged_errors().collect();
    if after.is_empty() {
        page.paragraph(&format!(
            "The agent did not converge: there were never two seconds in a row with |true error| \
             below {}.",
            nanos(CONVERGED_BELOW_NS)
        ));
    } else {
        let values: Vec<f64> = after.iter().map(|(_, error)| *error).collect();
        let unit = Unit::of_nanos(largest(&values));
        let series = Series { name: "true error", points: &after, ink: Ink::First, dots: false };
        page.plot(
            &plot::time_series("true error", unit, &[series], &[])?,
            "After convergence. Above zero the agent's clock is ahead of the grandmaster's.",
        );
        page.plot(
            &plot::histogram("true error", unit, &values)?,
            &format!(
                "Its distribution at {} instants, 10 ms apart and at each sample.",
                values.len()
            ),
        );
    }

    page.heading("What the agent saw");
    over_time(&mut page, observation, truth)?;

    page.heading("Figures");
    figures(&mut page, summary);

    page.heading("Stamps and messages");
    stamps(&mut page, observation, summary);

    page.heading("How this was run");
    page.table("", &[], &parameters(args));
    page.paragraph(&format!(
        "Converged means: the start of the first two seconds in which |true error| stayed below {}. \
         Statistics begin {} s later (in short runs after a third of what is left), so that they tell \
         how the clock is followed and not how it is approached, and include all later excursions.",
        nanos(CONVERGED_BELOW_NS),
        SETTLING_NS / 1_000_000_000
    ));
    Ok(page)
}

fn headline(page: &mut Page, summary: &LabSummary) {
    let error = |read: fn(&crate::publish::statistics::ErrorStatistics) -> f64| {
        summary.true_error_ns.as_ref().map_or_else(|| "-".into(), |error| nanos(read(error)))
    };
    page.figures(&[
        ("mean error", error(|error| error.mean)),
        ("its deviation, sd", error(|error| error.sd)),
        ("99 % within", error(|error| error.p99)),
        ("largest", error(|error| error.max)),
        ("converged after", seconds(summary.converged_s, "never")),
        ("samples", summary.samples.to_string()),
    ]);
}

fn over_time(page: &mut Page, observation: &Observation, truth: &Truth) -> Result<(), PlotError> {
    let at = |mono_ns: i64| seconds_since(truth.start_ns, mono_ns);
    let from = truth.judged_from_s.unwrap_or(0.0);
    let points = || observation.points.iter().filter(|point| at(point.mono_ns) >= from);
    let raw: Vec<(f64, f64)> =
        points().map(|point| (at(point.mono_ns), point.raw_offset_ns as f64)).collect();
    let filtered: Vec<(f64, f64)> =
        points().map(|point| (at(point.mono_ns), point.offset_ns as f64)).collect();
    let unit = Unit::of_nanos(largest_of(&raw));
    page.plot(
        &plot::time_series(
            "offset",
            unit,
            &[
                Series { name: "one exchange", points: &raw, ink: Ink::Second, dots: true },
                Series { name: "servo", points: &filtered, ink: Ink::First, dots: false },
            ],
            &[],
        )?,
        "Offset from the grandmaster as measured, after convergence: each exchange by itself, and \
         what the servo made of them.",
    );
    let delays: Vec<(f64, f64)> =
        points().filter_map(|point| Some((at(point.mono_ns), point.delay_ns? as f64))).collect();
    let series = Series { name: "delay", points: &delays, ink: Ink::First, dots: false };
    page.plot(
        &plot::time_series("mean path delay", Unit::of_nanos(largest_of(&delays)), &[series], &[])?,
        "Mean path delay, after convergence.",
    );
    let frequencies: Vec<(f64, f64)> =
        observation.points.iter().map(|point| (at(point.mono_ns), point.frequency_ppb)).collect();
    let unit = Unit::of_ppb(largest_of(&frequencies));
    let series = Series { name: "frequency", points: &frequencies, ink: Ink::First, dots: false };
    page.plot(
        &plot::time_series("frequency", unit, &[series], &[])?,
        "Correction of the agent clock's frequency, after convergence. It has to find the \
         grandmaster's drift.",
    );
    Ok(())
}

fn largest(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |largest: f64, value| largest.max(value.abs()))
}

fn largest_of(points: &[(f64, f64)]) -> f64 {
    points.iter().fold(0.0, |largest: f64, point| largest.max(point.1.abs()))
}

fn figures(page: &mut Page, summary: &LabSummary) {
    let mut rows = vec![
        vec!["duration".into(), format!("{:.1} s", summary.duration_s)],
        vec!["converged after".into(), seconds(summary.converged_s, "never")],
        vec!["below 1 µs for good after".into(), seconds(summary.below_1us_for_good_s, "never")],
    ];
    if let Some(error) = summary.true_error_ns {
        rows.extend([
            vec!["true error, mean".into(), nanos(error.mean)],
            vec!["true error, standard deviation".into(), nanos(error.sd)],
            vec!["true error, rms".into(), nanos(error.rms)],
            vec!["|true error|, median".into(), nanos(error.p50)],
            vec!["|true error|, 99th percentile".into(), nanos(error.p99)],
            vec!["|true error|, largest".into(), nanos(error.max)],
        ]);
    }
    if let Some(delay) = summary.delay_ns {
        rows.extend([
            vec!["mean path delay, median".into(), nanos(delay.p50)],
            vec!["mean path delay, smallest".into(), nanos(delay.min)],
            vec!["mean path delay, 99th percentile".into(), nanos(delay.p99)],
        ]);
    }
    if let Some(ptp4l) = &summary.ptp4l {
        let error = ptp4l.offset_error_ns;
        rows.extend([
            vec!["error of ptp4l's offset, rms".into(), nanos(error.rms)],
            vec!["error of ptp4l's offset, 99th percentile".into(), nanos(error.p99)],
            vec!["offsets of ptp4l".into(), ptp4l.samples.to_string()],
        ]);
    }
    page.table("Statistics are taken after convergence and a settling time.", &[], &rows);
}

fn stamps(page: &mut Page, observation: &Observation, summary: &LabSummary) {
    let rows: Vec<Vec<String>> = observation
        .sources
        .iter()
        .map(|((rx, tx), count)| vec![rx.clone(), tx.clone(), count.to_string()])
        .collect();
    page.table(
        "Samples by where their stamps were taken.",
        &["receive", "transmit", "samples"],
        &rows,
    );
    let peers = [
        ("agent", &summary.lost, &summary.agent),
        ("grandmaster", &summary.grandmaster_lost, &summary.grandmaster),
    ];
    let rows: Vec<Vec<String>> =
        peers.iter().flat_map(|(name, _, more)| stamp_rows(name, more)).collect();
    if !rows.is_empty() {
        let mut header = vec!["by", "direction", "source"];
        header.extend(OUTCOMES);
        page.table("Stamps by what became of them.", &header, &rows);
    }
    for (name, lost, _) in peers {
        let rows: Vec<Vec<String>> = lost
            .iter()
            .filter(|(_, count)| **count > 0)
            .map(|(cause, count)| vec![cause.replace('_', " "), count.to_string()])
            .collect();
        if rows.is_empty() {
            page.paragraph(&format!("The {name} lost nothing."));
        } else {
            page.table(&format!("What the {name} lost or dropped, by cause."), &[], &rows);
        }
    }
}

/// What can become of a stamp, as the children's summaries name it.
const OUTCOMES: [&str; 5] = ["matched", "orphaned", "duplicate", "late", "missing"];

/// A row for each direction and source of a child's `timestamps`, which is direction, then source,
/// then outcome.
fn stamp_rows(name: &str, more: &Map<String, Value>) -> Vec<Vec<String>> {
    let object = |value: &Value| value.as_object().cloned().unwrap_or_default();
    let directions = more.get("timestamps").map(object).unwrap_or_default();
    let mut rows = Vec::new();
    for (direction, sources) in &directions {
        for (source, outcomes) in &object(sources) {
            let mut row = vec![name.to_owned(), direction.to_uppercase(), source.clone()];
            let count = |outcome| outcomes.get(outcome).and_then(Value::as_u64);
            row.extend(OUTCOMES.map(|outcome| count(outcome).unwrap_or(0).to_string()));
            rows.push(row);
        }
    }
    rows
}

fn parameters(args: &Args) -> Vec<Vec<String>> {
    let processors =
        std::thread::available_parallelism().map_or("unknown".into(), |count| count.to_string());
    [
        ("grandmaster's offset", format!("{} s", args.offset)),
        ("grandmaster's drift", format!("{} ppm", args.drift)),
        ("Sync messages per second", sync_rate(args).to_string()),
        ("transport", args.transport.clone()),
        ("servo", args.servo.clone().unwrap_or_else(|| "default".into())),
        ("RX stamps", args.rx_source.clone().unwrap_or_else(|| "default".into())),
        ("TX stamps", args.tx_source.clone().unwrap_or_else(|| "default".into())),
        ("grandmaster", args.grandmaster.name().into()),
        ("agent's clock", args.clock.clone()),
        ("strategy", args.strategy.clone().unwrap_or_else(|| "default".into())),
        ("ptp4l beside it", if args.wants_ptp4l() { "where installed" } else { "no" }.into()),
        ("busy loops beside it", args.load.to_string()),
        ("link", link(args)),
        ("kernel", kernel()),
        ("processors", processors),
    ]
    .into_iter()
    .map(|(name, value)| vec![name.into(), value])
    .collect()
}

/// What lies between, in words.
fn link(args: &Args) -> String {
    match &args.cards {
        Some(cards) => format!("{}, joined", cards.join(" and ")),
        None => args.link.name().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        lab::{observation::tests::observation, peers::Role},
        publish::json::{Event, Summary},
    };
    use clap::Parser;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        args: Args,
    }

    fn html(observation: &Observation) -> String {
        let truth = observation.truth();
        let args = Command::parse_from(["lab"]).args;
        page(&args, observation, &truth, &observation.summary(&truth)).unwrap().finish()
    }

    #[test]
    fn page_has_its_plots_and_the_stamps_of_both_sides() {
        let mut observation = observation(250);
        let more = r#"{"timestamps":{"rx":{"stack":{"matched":321,"late":7}},"tx":{}}}"#;
        let more = serde_json::from_str(more).unwrap();
        observation.note(Role::Agent, Event::Summary(Summary { more, ..Summary::default() }));
        let html = html(&observation);
        assert_eq!(html.matches("<svg").count(), 6);
        for text in ["converged", ">321<", ">250 ns<", "The grandmaster lost nothing."] {
            assert!(html.contains(text), "{text}");
        }
    }

    #[test]
    fn run_without_convergence_or_samples_has_a_page_that_says_so() {
        for observation in [observation(50_000), Observation::default()] {
            assert!(html(&observation).contains("did not converge"));
        }
    }

    #[test]
    fn text_tells_what_was_lost() {
        let mut observation = observation(-250);
        let lost = [("truncated".to_owned(), 3), ("replayed".to_owned(), 0)].into();
        observation.note(Role::Agent, Event::Summary(Summary { lost, ..Summary::default() }));
        let text = text(&observation.summary(&observation.truth()));
        assert!(text.contains("true error, mean      -250 ns\n"), "{text}");
        assert!(text.contains("lost                  truncated 3\n"), "{text}");
    }
}
