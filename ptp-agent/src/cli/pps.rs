//! `ptp-agent pps`: a pulse per second as judge of a clock. Of each edge the clock's reading is taken, and what it shows
//! beside the whole second is its error, or the pulse's. Nothing is steered, and no privilege is needed but to read the
//! device.

use std::{
    path::PathBuf,
    time::{Duration as StdDuration, Instant},
};

use anyhow::{Context as _, bail};
use ptp_clock_reader::PtpClock;
use ptp_common::time::{Duration, Free, Mono, Time};
use serde_json::{Value, json};

use super::pulse::{EdgeOption, SourceOption};
use crate::{
    agent::{
        AgentError,
        io::pulse::{PulseIo, PulseIoConfig, PulseSource, open},
        print,
    },
    engine::{
        Input,
        pulse::{Config, Hint, Refusal, State, Train},
    },
    publish::{
        Format,
        plot::{self, Ink, Series, Unit},
        report::Page,
        statistics::{Statistics, percentile},
        text::nanos,
    },
    servo::Interval,
    sys::{
        clock::{monotonic, realtime_minus_monotonic},
        pps::Edge,
    },
};

const SECOND_NS: i64 = 1_000_000_000;
/// A clock this near to a whole second is meant to show that one. The rest is half a second off.
const NEAR: Duration = Duration::from_millis(450);
/// Between two looks for an edge.
const LOOK: StdDuration = StdDuration::from_millis(20);
/// Bars of the histogram that is printed.
const BARS: usize = 16;
const WIDEST_BAR: usize = 48;

/// What is compared.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The pulse: /dev/ppsN, or an input of a hardware clock as phc:/dev/ptpN or phc:/dev/ptpN:PIN.
    source: SourceOption,
    /// The page of a running agent (`run --page`): its clock is compared rather than CLOCK_REALTIME.
    #[arg(long, value_name = "FILE")]
    page: Option<PathBuf>,
    /// How long, seconds.
    #[arg(long, value_name = "S", default_value = "60", value_parser = super::args::seconds)]
    duration: StdDuration,
    /// Which edge is the second: assert or clear.
    #[arg(long, value_name = "EDGE", default_value = "assert", hide_possible_values = true)]
    edge: EdgeOption,
    /// From the second to its stamp: cable, receiver, interrupt, ns. Taken off.
    #[arg(long, value_name = "NS", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..500_000_000))]
    delay: u32,
    /// A page with plots.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// The clock that is judged.
enum Judged {
    System,
    Page(PtpClock),
}

impl Judged {
    const fn name(&self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Page(_) => "page",
        }
    }

    /// What it showed at `mono`, ns; `None` where it is not to be believed.
    fn at(&self, mono: Time<Mono>) -> Option<i64> {
        match self {
            Self::System => Some((mono.since_epoch() + realtime_minus_monotonic()).as_nanos()),
            Self::Page(page) => page.course().ok().map(|course| course.at(mono.as_nanos()).ptp_ns),
        }
    }
}

/// Nearest whole second, and the time beside it, ns.
const fn beside_second(ns: i64) -> (i64, i64) {
    let second = (ns + SECOND_NS / 2).div_euclid(SECOND_NS);
    (second, ns - second * SECOND_NS)
}

/// Compares.
pub(super) fn run(args: &Args, format: Format) -> anyhow::Result<()> {
    let SourceOption(source) = &args.source;
    let edge: Edge = args.edge.edge();
    let config = PulseIoConfig { source: source.clone(), edge, nmea: None };
    let judged = match &args.page {
        None => Judged::System,
        Some(path) => {
            let page = PtpClock::open(path);
            Judged::Page(page.with_context(|| format!("cannot read the page {}", path.display()))?)
        }
    };
    let mut io = PulseIo::start(open(config)?)?;
    let mut judge = Judge::new(Duration::from_nanos(args.delay.into()), judged);
    let begun = Instant::now();
    let start = monotonic();
    while begun.elapsed() < args.duration {
        while let Some(delivery) = io.next_delivery() {
            let Input::Pulse(stamp) = delivery.input() else { continue };
            let line = judge.edge(stamp.time, start);
            match (&line, format.is_json()) {
                (Some(line), true) => print(&line.to_string()).map_err(AgentError::from)?,
                (Some(line), false) => print(&text(line)).map_err(AgentError::from)?,
                (None, _) => {}
            }
        }
        std::thread::sleep(LOOK);
    }
    if judge.points.is_empty() {
        bail!("no pulse came from {source} in {:.0} s", args.duration.as_secs_f64());
    }
    let summary = judge.summary(source, &io);
    if format.is_json() {
        print(&summary.to_string()).map_err(AgentError::from)?;
    } else {
        for line in judge.text(&summary) {
            print(&line).map_err(AgentError::from)?;
        }
    }
    if let Some(path) = &args.html {
        let page = judge.page(source, &summary)?;
        page.write(path).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

fn text(line: &Value) -> String {
    let offset = line["offset_ns"].as_f64().map_or_else(|| "?".to_owned(), nanos);
    format!("{}  {} - pulse {offset}  {}", line["second"], line["clock"], line["outcome"])
        .replace('"', "")
}

/// See the module's paragraph.
struct Judge {
    judged: Judged,
    train: Train,
    /// When, s since the start, and by how much the clock was ahead of the second, ns.
    points: Vec<(f64, f64)>,
    refused: u64,
    unknown: u64,
}

impl Judge {
    fn new(delay: Duration, judged: Judged) -> Self {
        let train = Train::new(Config { delay, lateness: Duration::ZERO, ..Config::default() });
        Self { judged, train, points: Vec::new(), refused: 0, unknown: 0 }
    }

    /// An edge, as a line.
    fn edge(&mut self, at: Time<Mono>, start: Time<Mono>) -> Option<Value> {
        let delay = self.train.config().delay;
        let Some(shown) = self.judged.at(at - delay) else {
            self.unknown += 1;
            return None;
        };
        // The clock numbers the pulses itself: only what it shows beside a whole second is judged.
        let free: Time<Free> = Time::from_epoch(at.since_epoch());
        let middle = free.since_epoch() - Duration::from_nanos(shown) - delay;
        let hint = Hint::Within(Interval { lo: middle - NEAR, hi: middle + NEAR }, 1);
        let outcome = self.train.edge(free, hint);
        let (second, offset_ns) = beside_second(shown);
        let outcome = match outcome {
            // To the judge they are good: they have their place, and are compared.
            Ok(_) | Err(Refusal::Unnumbered) => "used",
            Err(Refusal::Searching) => "searching",
            Err(why) => {
                self.refused += 1;
                why.name()
            }
        };
        if outcome == "used" {
            self.points.push(((at - start).as_secs_f64(), offset_ns as f64));
        }
        Some(json!({
            "event": "pulse",
            "clock": self.judged.name(),
            "second": second,
            "offset_ns": offset_ns,
            "outcome": outcome,
        }))
    }

    fn values(&self) -> Vec<f64> {
        self.points.iter().map(|(_, offset)| *offset).collect()
    }

    fn summary(&self, source: &PulseSource, io: &PulseIo) -> Value {
        let mut values = self.values();
        let it = Statistics::of(&mut values);
        let counters = self.train.counters();
        let refused = Refusal::ALL
            .into_iter()
            .filter(|why| why.is_of_pulse() && counters.refused(*why) > 0)
            .map(|why| (why.name().to_owned(), json!(counters.refused(why))));
        let refused: serde_json::Map<String, Value> = refused.collect();
        let now = Time::from_epoch(monotonic().since_epoch());
        let relation = io.relation().map(|it| {
            json!({ "rate_ppb": it.rate_ppb, "noise_ns": it.noise_ns, "bound_ns": it.bound_ns, "method": it.method.name() })
        });
        json!({
            "event": "summary",
            "source": source.to_string(),
            "clock": self.judged.name(),
            "n": values.len(),
            "offset_ns": {
                "mean": it.mean, "sd": it.sd, "min": it.min, "p1": percentile(&values, 0.01),
                "p50": it.p50, "p99": it.p99, "max": it.max,
            },
            "interval_error_ppb": self.train.rate_ppb(),
            "jitter_ns": self.train.jitter().as_nanos(),
            "missed": counters.missed,
            "refused": refused,
            "unknown": self.unknown,
            "silent": self.train.state(now) == State::Silent,
            "histogram": histogram(&values).iter().map(|(from, count)| json!([from, count])).collect::<Vec<_>>(),
            "phc": relation,
        })
    }

    fn text(&self, summary: &Value) -> Vec<String> {
        let of = |name: &str| summary["offset_ns"][name].as_f64().map_or_else(String::new, nanos);
        let mut lines = vec![format!(
            "{} pulses: clock ahead by {} on average, sd {}, median {}, from {} to {}; {} missed, {} refused",
            summary["n"],
            of("mean"),
            of("sd"),
            of("p50"),
            of("min"),
            of("max"),
            summary["missed"],
            self.refused
        )];
        let mut values = self.values();
        values.sort_unstable_by(f64::total_cmp);
        let bars = histogram(&values);
        let largest = bars.iter().map(|(_, count)| *count).max().unwrap_or(1).max(1);
        lines.extend(bars.iter().map(|(from, count)| {
            let width = (count * WIDEST_BAR).div_ceil(largest);
            format!("{:>12}  {:<WIDEST_BAR$}  {count}", nanos(*from), "#".repeat(width))
        }));
        lines
    }

    fn page(&self, source: &PulseSource, summary: &Value) -> anyhow::Result<Page> {
        let values = self.values();
        let largest = values.iter().fold(0.0, |largest: f64, value| largest.max(value.abs()));
        let unit = Unit::of_nanos(largest);
        let of = |name: &str| summary["offset_ns"][name].as_f64().map_or_else(String::new, nanos);
        let mut page = Page::new(
            "A clock beside a pulse per second",
            "What the clock showed beside the whole second at each edge of the pulse. Which second it was is \
             not judged: a pulse does not say.",
        );
        page.figures(&[
            ("mean", of("mean")),
            ("standard deviation", of("sd")),
            ("median", of("p50")),
            ("99 % below", of("p99")),
            ("pulses", summary["n"].to_string()),
            ("missed", summary["missed"].to_string()),
            ("refused", self.refused.to_string()),
        ]);
        let name = "clock minus pulse";
        let series = Series { name, points: &self.points, ink: Ink::First, dots: true };
        page.plot(&plot::time_series(name, unit, &[series], &[])?, "Each dot is one pulse.");
        page.plot(&plot::histogram(name, unit, &values)?, "The same as a distribution.");
        page.heading("How this was run");
        page.table(
            "",
            &[],
            &[
                vec!["source".into(), source.to_string()],
                vec!["clock".into(), self.judged.name().into()],
            ],
        );
        Ok(page)
    }
}

/// Where each bar begins, ns, and how many values are in it; `sorted` must be.
fn histogram(sorted: &[f64]) -> Vec<(f64, usize)> {
    let (Some(first), Some(last)) = (sorted.first(), sorted.last()) else { return Vec::new() };
    let width = ((last - first) / BARS as f64).max(1.0);
    let mut bars: Vec<(f64, usize)> = (0..BARS).map(|n| (first + n as f64 * width, 0)).collect();
    for value in sorted {
        bars[(((value - first) / width) as usize).min(BARS - 1)].1 += 1;
    }
    bars
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_beside_the_second_is_signed() {
        assert_eq!(beside_second(5 * SECOND_NS + 3), (5, 3));
        assert_eq!(beside_second(5 * SECOND_NS - 3), (5, -3));
        assert_eq!(beside_second(-1), (0, -1));
    }

    #[test]
    fn every_value_is_in_one_bar() {
        let values: Vec<f64> = (0..1_000).map(f64::from).collect();
        let bars = histogram(&values);
        assert_eq!(bars.iter().map(|(_, count)| count).sum::<usize>(), 1_000);
        assert_eq!((bars.len(), bars[0].0), (BARS, 0.0));
        assert_eq!(histogram(&[7.0, 7.0])[0], (7.0, 2));
        assert!(histogram(&[]).is_empty());
    }

    /// The system's clock against edges made of it, each late by some nanoseconds.
    #[test]
    fn a_pulse_that_is_late_shows_a_clock_that_is_ahead() {
        let mut judge = Judge::new(Duration::ZERO, Judged::System);
        let offset = realtime_minus_monotonic();
        let start = monotonic();
        let first = (start.since_epoch() + offset).as_nanos() / SECOND_NS + 1;
        for n in 0..40 {
            let late = Duration::from_nanos(1_000 + n % 5 * 100);
            let real = Duration::from_secs(first + n) + late;
            let line = judge.edge(Time::from_epoch(real - offset), start).unwrap();
            assert_eq!(line["offset_ns"], late.as_nanos());
        }
        // One in the middle between two is no second.
        let wrong = Duration::from_secs(first + 40) + Duration::from_millis(500) - offset;
        let line = judge.edge(Time::from_epoch(wrong), start).unwrap();
        assert_eq!(line["outcome"], "misplaced");
        assert_eq!((judge.points.len(), judge.refused), (38, 1));
        let mut values = judge.values();
        let it = Statistics::of(&mut values);
        assert!((it.mean - 1_200.0).abs() < 20.0 && it.sd < 150.0, "{it:?}");
    }
}
