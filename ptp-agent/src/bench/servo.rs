//! `ptp-agent bench servo`: how near the servos come to the truth, beside the figures that they are to
//! reach. Simulated links first, all processors at once; then what an exchange costs; then the
//! laboratory, alone on the machine, with ptp4l beside the agent. Scenarios and events are in `suite`.

use std::{
    fmt::Write as _,
    io::{self, IsTerminal, Write as _},
    path::PathBuf,
    process::{Command, ExitCode, Stdio},
    time::Instant,
};

use anyhow::Context;
use ptp_common::time::{Duration, Free, Time};
use serde::Serialize;
use serde_json::Value;

use super::suite;
use crate::publish::Format;
use crate::{
    servo::{Choice, DelayInput, LocalTime, Options, Servo, SyncInput, build},
    sim::{
        bench::{Extent, Row, Target, table},
        suite::SERVOS,
    },
    stamp::StampSource,
    sys::{child, clock},
};

/// The running binary, even if its file has been replaced meanwhile.
const OWN_BINARY: &str = "/proc/self/exe";
/// Exit code of a laboratory whose host lacks something.
const HOST_LACKS: i32 = 3;
/// Exchanges per batch; a batch gives one mean.
const BATCH: u32 = 20_000;
/// Batches.
const BATCHES: usize = 15;
/// An exchange may cost so much, nanoseconds.
const COST_LIMIT_NS: f64 = 3_000.0;
/// The agent's rms over ptp4l's, in the same run.
const LAB_RATIO: f64 = 0.1;
/// 99th percentile of the true error on an idle machine, nanoseconds.
const LAB_P99_NS: f64 = 150.0;

/// Arguments of the command.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// One seed and 30 s of laboratory instead of three and 120 s.
    #[arg(long, conflicts_with = "full")]
    pub quick: bool,
    /// Every rate from 1/8 to 128 Sync/s with every jitter from 100 ns to 1 ms.
    #[arg(long)]
    pub full: bool,
    /// Leave out the laboratory.
    #[arg(long)]
    pub no_lab: bool,
    /// Leave out the simulated links.
    #[arg(long)]
    pub no_simulator: bool,
    /// Instead of all that, run the scenarios of this directory with all servos: whether the error bound
    /// holds, whether the first servo is as good as the best of the others, whether the clock is
    /// stepped where no time steps.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["quick", "full", "no_lab", "no_simulator"])]
    pub scenarios: Option<PathBuf>,
    /// Instead of all that, let one thing happen on a quiet link: how long it takes until the error is
    /// small again, and whether the bound held.
    #[arg(long, conflicts_with_all = ["quick", "full", "no_lab", "no_simulator", "scenarios"])]
    pub events: bool,
    /// Seeds of each scenario (default 3) or event (default 20).
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub seeds: Option<u64>,
    /// Servos to run, as --servo takes them, the first of which is judged (default: all for scenarios,
    /// adaptive for events).
    #[arg(long, value_name = "SERVO,...", value_delimiter = ',')]
    pub servos: Vec<Choice>,
}

impl Args {
    fn servos_or(&self, defaults: &[&str]) -> Vec<Choice> {
        if self.servos.is_empty() {
            defaults.iter().filter_map(|servo| servo.parse().ok()).collect()
        } else {
            self.servos.clone()
        }
    }
}

/// A line of the table that was no simulation.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Measured {
    case: String,
    figure: &'static str,
    value: Option<f64>,
    target: Option<Target>,
    met: bool,
    /// What the figure is made of, or why there is none.
    note: String,
}

/// A line of `--json`.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Line<'a> {
    Simulated(&'a Row),
    Measured(&'a Measured),
    Summary { lines: usize, missed: usize, skipped: usize },
}

/// The command: the table, or the scenarios or events that are asked for. The exit code is 0 when everything that was measured is what it is to be, else 1.
///
/// # Errors
/// When a laboratory cannot be started, or standard output cannot be written to.
pub fn run(args: &Args, format: Format) -> anyhow::Result<ExitCode> {
    if let Some(directory) = &args.scenarios {
        let servos = args.servos_or(&SERVOS);
        return suite::scenarios(directory, args.seeds.unwrap_or(3), &servos, format);
    }
    if args.events {
        let servos = args.servos_or(&SERVOS[..1]);
        return suite::events(args.seeds.unwrap_or(20), &servos, format);
    }
    if args.seeds.is_some() || !args.servos.is_empty() {
        eprintln!("ptp-agent bench servo: --seeds and --servos are for --scenarios and --events");
        return Ok(ExitCode::from(2));
    }
    let mut teller = Teller { format, lines: 0, missed: 0, skipped: 0 };
    if !args.no_simulator {
        let extent = match (args.quick, args.full) {
            (true, _) => Extent::Quick,
            (_, true) => Extent::Full,
            _ => Extent::Normal,
        };
        let progress = Progress::new();
        let rows = table(extent, |done, all, what| progress.tell(done, all, what));
        progress.end();
        teller.heading("Simulated links, clock minus grandmaster; a value for each seed")?;
        for row in &rows {
            teller.simulated(row)?;
        }
    }
    teller.heading("Cost")?;
    for servo in ["adaptive", "pi", "linreg", "rfc5905"] {
        teller.measured(&cost(servo))?;
    }
    if !args.no_lab {
        let seconds = if args.quick { 30 } else { 120 };
        teller.heading(
            "Laboratory: veth, 16 Sync/s, ptp4l beside the agent on the same grandmaster",
        )?;
        for load in [0, 4] {
            for line in lab(seconds, load)? {
                teller.measured(&line)?;
            }
        }
    }
    teller.end()
}

/// Says how far the simulations are, on standard error.
pub(super) struct Progress {
    terminal: bool,
    begun: Instant,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self { terminal: io::stderr().is_terminal(), begun: Instant::now() }
    }

    pub(super) fn tell(&self, done: usize, all: usize, what: &str) {
        let seconds = self.begun.elapsed().as_secs();
        if self.terminal {
            // Over the last one, to the end of the line.
            eprint!("\r{done}/{all} simulations, {seconds} s: {what}\x1b[K");
        } else {
            eprintln!("{done}/{all} simulations, {seconds} s: {what}");
        }
    }

    pub(super) fn end(&self) {
        if self.terminal {
            eprint!("\r\x1b[K");
        }
    }
}

pub(super) fn print(text: &str) -> anyhow::Result<()> {
    io::stdout().lock().write_all(text.as_bytes()).context("cannot write to standard output")
}

/// Prints the lines.
struct Teller {
    format: Format,
    lines: usize,
    missed: usize,
    skipped: usize,
}

impl Teller {
    fn emit(&self, line: &Line<'_>) -> anyhow::Result<()> {
        print(&(serde_json::to_string(line)? + "\n"))
    }

    fn heading(&self, text: &str) -> anyhow::Result<()> {
        if self.format.is_json() { Ok(()) } else { print(&format!("\n{text}\n")) }
    }

    fn simulated(&mut self, row: &Row) -> anyhow::Result<()> {
        self.lines += 1;
        self.missed += usize::from(!row.met);
        if self.format.is_json() {
            return self.emit(&Line::Simulated(row));
        }
        print(&format!(
            "{:<38}{:<15}{:<22}{:>24}  {:<18}{}\n",
            row.case,
            row.servo,
            row.figure.title(),
            values(&row.values, row.target),
            row.target.to_string(),
            verdict(row.met),
        ))
    }

    fn measured(&mut self, line: &Measured) -> anyhow::Result<()> {
        self.lines += 1;
        self.skipped += usize::from(line.value.is_none());
        self.missed += usize::from(!line.met && line.value.is_some());
        if self.format.is_json() {
            return self.emit(&Line::Measured(line));
        }
        let value = line.value.map_or_else(|| "skipped".into(), number);
        let target = line.target.map(|target| target.to_string()).unwrap_or_default();
        let verdict = if line.value.is_some() { verdict(line.met) } else { "" };
        let note = &line.note;
        print(&format!(
            "{:<38}{:<37}{value:>24}  {target:<18}{verdict:<8}{note}\n",
            line.case, line.figure
        ))
    }

    fn end(self) -> anyhow::Result<ExitCode> {
        let Self { lines, missed, skipped, .. } = self;
        if self.format.is_json() {
            self.emit(&Line::Summary { lines, missed, skipped })?;
        } else {
            print(&format!("\n{lines} figures, {missed} missed, {skipped} skipped\n"))?;
        }
        Ok(if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

const fn verdict(met: bool) -> &'static str {
    if met { "met" } else { "MISSED" }
}

/// Up to three values, or the worst of more.
fn values(values: &[f64], target: Target) -> String {
    if values.len() <= 3 {
        return values.iter().map(|value| number(*value)).collect::<Vec<_>>().join(" ");
    }
    let worst = match target {
        Target::AtLeast(_) => values.iter().copied().reduce(f64::min),
        _ => values.iter().copied().reduce(f64::max),
    };
    let mut text = String::new();
    let _ = write!(text, "worst of {}: {}", values.len(), number(worst.unwrap_or(f64::NAN)));
    text
}

fn number(value: f64) -> String {
    match value.abs() {
        magnitude if magnitude >= 100.0 => format!("{value:.0}"),
        magnitude if magnitude >= 1.5 => format!("{value:.1}"),
        _ => format!("{value:.4}"),
    }
}

/// Cost of an exchange (one Sync and one Delay_Req) in the servo, in time of the processor: the median of the
/// batches' means, because a virtual processor that is taken away goes on to count.
fn cost(servo: &'static str) -> Measured {
    let choice: Choice = servo.parse().unwrap_or_default();
    let mut exchanges = Exchanges::new(build(&choice, &Options::default()));
    let mut means = [0.0; BATCHES];
    for mean in &mut means {
        let begun = clock::thread_cpu_time();
        for _ in 0..BATCH {
            exchanges.next();
        }
        *mean = (clock::thread_cpu_time() - begun).as_nanos_f64() / f64::from(BATCH);
    }
    means.sort_unstable_by(f64::total_cmp);
    let (median, worst) = (means[BATCHES / 2], means[BATCHES - 1]);
    let target = Target::AtMost(COST_LIMIT_NS);
    Measured {
        case: servo.to_owned(),
        figure: "per exchange in the servo, ns",
        value: Some(median),
        target: Some(target),
        met: target.is_met(median),
        note: format!("median, slowest of {BATCHES} batches of {BATCH}: {worst:.0} ns"),
    }
}

/// A stream of exchanges with noise, 16 per second, and a servo that takes them.
pub struct Exchanges {
    servo: Box<dyn Servo>,
    count: i64,
    seed: u64,
}

impl Exchanges {
    /// From the beginning.
    pub const fn new(servo: Box<dyn Servo>) -> Self {
        Self { servo, count: 0, seed: 1 }
    }

    /// Exponential, a microsecond in the mean, from a generator that costs nothing beside a servo.
    fn delay_ns(&mut self) -> i64 {
        // Knuth's MMIX generator.
        self.seed = self
            .seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let zeros = (self.seed >> 8).leading_zeros().saturating_sub(8);
        10_000 + i64::from(zeros) * 693 + (self.seed >> 33 & 511) as i64
    }

    /// One Sync and one Delay_Req.
    pub fn next(&mut self) {
        self.count += 1;
        let sent_ns = 1_000_000_000 + self.count * 62_500_000;
        let local = |ns: i64| LocalTime {
            mono: Time::<Free>::from_nanos(ns),
            clock: Time::from_nanos(ns),
            source: StampSource::Simulated,
            doubt: Duration::ZERO,
            told_within: None,
        };
        let t2 = sent_ns + self.delay_ns();
        let sequence_id = self.count as u16;
        let output = self.servo.sync(SyncInput {
            t1: Time::from_nanos(sent_ns),
            t2: local(t2),
            sequence_id,
            log_interval: Some(-4),
            correction: Duration::ZERO,
        });
        if let Some(output) = output {
            let stepped = output.step.map(|_| Duration::ZERO);
            self.servo.adjusted(Time::from_nanos(t2), output.frequency_ppb, stepped);
        }
        let t3 = sent_ns + 30_000_000;
        let t4 = Time::from_nanos(t3 + self.delay_ns());
        self.servo.delay(DelayInput { t3: local(t3), t4, sequence_id, correction: Duration::ZERO });
    }
}

/// One run of the laboratory.
fn lab(seconds: u32, load: u16) -> anyhow::Result<Vec<Measured>> {
    let case = if load == 0 { "idle".to_owned() } else { format!("{load} busy loops") };
    eprintln!("laboratory, {case}: {seconds} s");
    let mut command = Command::new(OWN_BINARY);
    command
        .args([
            "lab",
            "--json",
            "--no-html",
            "--no-tui",
            "--beside-ptp4l",
            "--log-sync-interval=-4",
        ])
        // ptp4l does not follow, so a drift would be an error that it cannot help.
        .args(["--drift=0", "--duration", &seconds.to_string(), "--load", &load.to_string()])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit());
    child::die_with_parent(&mut command);
    let output = command.stdout(Stdio::piped()).output().context("cannot start the laboratory")?;
    let skipped = |figure, note: &str| Measured {
        case: case.clone(),
        figure,
        value: None,
        target: None,
        met: false,
        note: note.to_owned(),
    };
    const RATIO: &str = "rms of true error over ptp4l's";
    const P99: &str = "p99 of true error, ns";
    if output.status.code() == Some(HOST_LACKS) {
        return Ok(vec![skipped(RATIO, "the host lacks something, see above")]);
    }
    let last = output.stdout.rsplit(|byte| *byte == b'\n').find(|line| !line.is_empty());
    let summary: Value =
        serde_json::from_slice(last.unwrap_or_default()).context("the laboratory said nothing")?;
    let own = |name: &str| summary["true_error_ns"][name].as_f64();
    let other = |name: &str| summary["ptp4l"]["offset_error_ns"][name].as_f64();
    let (Some(rms), Some(p99)) = (own("rms"), own("p99")) else {
        anyhow::bail!("the agent did not converge in the laboratory");
    };
    let mut lines = Vec::new();
    let line = |figure, value: f64, target: Option<Target>, note| Measured {
        case: case.clone(),
        figure,
        value: Some(value),
        target,
        met: target.is_none_or(|target| target.is_met(value)),
        note,
    };
    let from_s = summary["statistics_from_s"].as_f64().unwrap_or(0.0);
    match other("rms").filter(|_| summary["ptp4l"]["samples"] != 0) {
        Some(theirs) => lines.push(line(
            RATIO,
            rms / theirs,
            Some(Target::AtMost(LAB_RATIO)),
            format!(
                "{rms:.0} ns; ptp4l {theirs:.0} ns, of it mean {:.0}, sd {:.0}, n = {}; from {from_s:.0} s on",
                other("mean").unwrap_or(f64::NAN),
                other("sd").unwrap_or(f64::NAN),
                summary["ptp4l"]["samples"]
            ),
        )),
        None => lines.push(skipped(RATIO, "ptp4l printed no offset")),
    }
    let mean = own("mean").unwrap_or(f64::NAN);
    let sd = own("sd").unwrap_or(f64::NAN);
    let limit = (load == 0).then_some(Target::AtMost(LAB_P99_NS));
    lines.push(line(P99, p99, limit, format!("mean {mean:.0} ns, sd {sd:.0} ns")));
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_values_are_shown_by_their_worst() {
        assert_eq!(values(&[54.2, 55.0, 150.4], Target::AtMost(60.0)), "54.2 55.0 150");
        let many = [0.9991, 1.0, 1.0, 1.0];
        assert_eq!(values(&many, Target::AtLeast(0.999)), "worst of 4: 0.9991");
        assert_eq!(values(&many, Target::AtMost(2.0)), "worst of 4: 1.0000");
    }

    #[test]
    fn the_stream_of_exchanges_locks_the_default_servo() {
        let mut exchanges = Exchanges::new(build(&Choice::default(), &Options::default()));
        for _ in 0..200 {
            exchanges.next();
        }
        assert_eq!(exchanges.servo.state(), crate::servo::ServoState::Locked);
    }
}
