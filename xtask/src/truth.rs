//! `cargo xtask bench truth`: how true the agent is against anybody's grandmaster. Runs the laboratory over a
//! grid of grandmasters, transports, loads and rates, with ptp4l's client beside the agent in each run,
//! and writes the tables of `docs/truth.md`. What is not installed has a line that says so.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::{self, ExitCode},
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::process::{cargo, is_root, mortal, target_directory, workspace};

/// The tables are between these lines of the page.
const BEGIN: &str = "<!-- begin: cargo xtask bench truth -->";
const END: &str = "<!-- end: cargo xtask bench truth -->";
/// Exit code of a laboratory for which the host lacks something.
const HOST_LACKS: i32 = 3;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Few cells, one short run each, and the page is left as it is
    #[arg(long)]
    quick: bool,
    /// Runs of each cell; the one in the middle is told
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// How long each run is, seconds
    #[arg(long, value_name = "S", default_value_t = 60)]
    duration: u32,
    /// Only these grandmasters: serve, exact, ptp4l, ptpd, statime
    #[arg(long, value_name = "NAME")]
    grandmaster: Vec<String>,
    /// Where a grandmaster's program is: NAME=FILE
    #[arg(long, value_name = "NAME=FILE")]
    program: Vec<String>,
    /// The agent's strategy, instead of its own choice
    #[arg(long)]
    strategy: Option<String>,
    /// Leave the page as it is
    #[arg(long)]
    no_page: bool,
}

/// One cell of the grid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cell {
    grandmaster: &'static str,
    transport: &'static str,
    load: u16,
    clock: &'static str,
    /// Log2 s of Sync, and of Delay_Req where it is not the grandmaster's own.
    log_sync: i8,
    log_delay_req: Option<i8>,
}

impl Cell {
    const fn new(grandmaster: &'static str, transport: &'static str, load: u16) -> Self {
        let (clock, log_sync, log_delay_req) = ("virtual", -4, None);
        Self { grandmaster, transport, load, clock, log_sync, log_delay_req }
    }

    fn grid(is_quick: bool) -> Vec<Self> {
        if is_quick {
            return [("ptp4l", "l2"), ("ptp4l", "udp4"), ("serve", "l2")]
                .map(|(grandmaster, transport)| Self::new(grandmaster, transport, 0))
                .to_vec();
        }
        let mut cells = Vec::new();
        for (grandmaster, transports) in [
            ("ptp4l", ["l2", "udp4", "udp6"].as_slice()),
            ("ptpd", &["l2", "udp4"]),
            ("statime", &["l2", "udp4"]),
            ("serve", &["l2", "udp4"]),
            ("exact", &["l2", "udp4"]),
        ] {
            for transport in transports {
                cells.extend([0, 4].map(|load| Self::new(grandmaster, transport, load)));
            }
        }
        for transport in ["l2", "udp4"] {
            let cell = Self::new("ptp4l", transport, 0);
            cells.push(Self { clock: "none", ..cell });
            cells.push(Self { log_sync: 0, ..cell });
            cells.push(Self { log_sync: 0, load: 4, ..cell });
            cells.push(Self { log_delay_req: Some(3), ..cell });
        }
        cells
    }

    fn arguments(&self) -> Vec<String> {
        let mut arguments: Vec<String> = [
            ["--grandmaster", self.grandmaster],
            ["--transport", self.transport],
            ["--clock", self.clock],
        ]
        .concat()
        .into_iter()
        .map(str::to_owned)
        .collect();
        // ptp4l beside the agent does not follow: a drift would be an error that it cannot help.
        arguments.extend(["--drift=0".into(), "--offset=0".into(), "--beside-ptp4l".into()]);
        arguments.push(format!("--load={}", self.load));
        arguments.push(format!("--log-sync-interval={}", self.log_sync));
        if let Some(log) = self.log_delay_req {
            arguments.push(format!("--log-min-delay-req-interval={log}"));
        }
        arguments
    }

    fn name(&self) -> String {
        let mut name = format!("{} {}", self.grandmaster, self.transport);
        if self.load > 0 {
            let _ = write!(name, ", {} busy loops", self.load);
        }
        if self.clock != "virtual" {
            let _ = write!(name, ", --clock {}", self.clock);
        }
        if self.log_sync != -4 {
            let _ = write!(name, ", {} Sync/s", 2f64.powi(-i32::from(self.log_sync)));
        }
        if let Some(log) = self.log_delay_req {
            let _ = write!(name, ", a request per {} s", 2f64.powi(log.into()));
        }
        name
    }
}

/// What a laboratory said in the end.
struct Outcome(Value);

impl Outcome {
    fn number(&self, path: &[&str]) -> Option<f64> {
        path.iter().try_fold(&self.0, |value, key| value.get(key))?.as_f64()
    }

    fn rms(&self) -> f64 {
        self.number(&["trimmed_rms_ns"]).unwrap_or(f64::INFINITY)
    }

    /// A line of the table.
    fn row(&self, cell: &Cell) -> String {
        let whole = |path: &[&str]| {
            self.number(path).map_or_else(|| "-".to_owned(), |value| format!("{value:.0}"))
        };
        let error = |name| whole(&["true_error_ns", name]);
        let share = |path: &[&str]| {
            let share = self.number(path).map(|share| share * 100.0);
            share.map_or_else(|| "-".to_owned(), |share| format!("{share:.2}"))
        };
        let ratio = self.number(&["ratio_to_ptp4l"]);
        format!(
            "| {} | {} / {} / {} | {} | {} | {} | {} | {} | {} | {} |",
            cell.name(),
            error("mean"),
            error("sd"),
            error("rms"),
            error("p99"),
            whole(&["ptp4l", "trimmed_rms_ns"]),
            ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.3}")),
            share(&["promises", "inside_bound"]),
            whole(&["promises", "half_width_ns"]),
            self.0["strategy"].as_str().unwrap_or("-"),
            whole(&["samples"]),
        )
    }
}

const HEADER: &str = "| grandmaster | true error, mean / sd / rms, ns | p99 | ptp4l's rms, ns | ratio \
                      | inside the bound, % | interval, +- ns | strategy | samples |\n\
                      |---|---|---|---|---|---|---|---|---|\n";

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    if !is_root() {
        bail!("network namespaces and BPF programs need root: run this as root");
    }
    let build = cargo(["build", "--release", "--package", "ptp-agent", "--bin", "ptp-agent"]);
    if !build.stream(|_| ())?.success() {
        bail!("the release binary could not be built");
    }
    let agent = target_directory().join("release/ptp-agent");
    let (runs, seconds) =
        if arguments.quick { (1, 30) } else { (arguments.runs, arguments.duration) };
    let mut table = HEADER.to_owned();
    print!("{table}");
    for cell in Cell::grid(arguments.quick) {
        let is_wanted = arguments.grandmaster.is_empty()
            || arguments.grandmaster.iter().any(|name| name == cell.grandmaster);
        if !is_wanted {
            continue;
        }
        let line = measure(arguments, &agent, &cell, runs, seconds)?;
        println!("{line}");
        table.push_str(&line);
        table.push('\n');
    }
    if !arguments.quick && !arguments.no_page && arguments.grandmaster.is_empty() {
        let host =
            format!("{runs} runs of {seconds} s each, the one in the middle; {}.\n\n", host());
        write_page(&workspace().join("docs/truth.md"), &format!("{host}{table}"))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn measure(
    arguments: &Arguments,
    agent: &Path,
    cell: &Cell,
    runs: u32,
    seconds: u32,
) -> Result<String> {
    let mut outcomes = Vec::new();
    for _ in 0..runs {
        match laboratory(arguments, agent, cell, seconds)? {
            Ok(outcome) => outcomes.push(outcome),
            Err(reason) => return Ok(format!("| {} | {reason} | | | | | | | |", cell.name())),
        }
    }
    outcomes.sort_by(|a, b| a.rms().total_cmp(&b.rms()));
    let middle = outcomes.get(outcomes.len() / 2).context("no run")?;
    Ok(middle.row(cell))
}

/// One run, or what the host lacks for it.
fn laboratory(
    arguments: &Arguments,
    agent: &Path,
    cell: &Cell,
    seconds: u32,
) -> Result<Result<Outcome, String>> {
    let mut command = mortal(agent);
    command.args(["lab", "--json", "--no-html", "--no-tui", "--duration", &seconds.to_string()]);
    command.args(cell.arguments());
    if let Some(strategy) = &arguments.strategy {
        command.args(["--strategy", strategy]);
    }
    let program = arguments.program.iter().filter_map(|program| program.split_once('='));
    if let Some((_, file)) = program.into_iter().find(|(name, _)| *name == cell.grandmaster) {
        command.args(["--grandmaster-program", file]);
    }
    let output = command.stdin(process::Stdio::null()).output().context("cannot start the lab")?;
    let log = String::from_utf8_lossy(&output.stderr);
    let last_words = log.lines().last().unwrap_or_default();
    if output.status.code() == Some(HOST_LACKS) {
        let reason = last_words.trim_start_matches("ptp-agent lab: ").to_owned();
        return Ok(Err(reason));
    }
    let last = output.stdout.rsplit(|byte| *byte == b'\n').find(|line| !line.is_empty());
    let summary = serde_json::from_slice(last.unwrap_or_default());
    summary.map(|summary| Ok(Outcome(summary))).with_context(|| {
        format!("{}: the laboratory ended with {}: {last_words}", cell.name(), output.status)
    })
}

/// On what it was measured.
fn host() -> String {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    format!("Linux {}, {processors} processors", kernel.trim())
}

/// Replaces the tables of the page.
fn write_page(page: &PathBuf, tables: &str) -> Result<()> {
    let text =
        fs::read_to_string(page).with_context(|| format!("cannot read {}", page.display()))?;
    fs::write(page, with_tables(&text, tables)?)
        .with_context(|| format!("cannot write {}", page.display()))
}

fn with_tables(text: &str, tables: &str) -> Result<String> {
    let parts =
        text.split_once(BEGIN).and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
    let (before, after) = parts.context("the page has no place for the tables")?;
    Ok(format!("{before}{BEGIN}\n{}\n{END}{after}", tables.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_take_the_place_of_those_before_and_the_text_stays() {
        let page = format!("# Truth\n{BEGIN}\nold\n{END}\nmore\n");
        assert_eq!(
            with_tables(&page, "new\n").unwrap(),
            format!("# Truth\n{BEGIN}\nnew\n{END}\nmore\n")
        );
        with_tables("# Truth\n", "new").unwrap_err();
    }

    #[test]
    fn page_has_a_place_for_the_tables() {
        let text = fs::read_to_string(workspace().join("docs/truth.md")).unwrap();
        with_tables(&text, "new").unwrap();
    }

    #[test]
    fn row_has_a_cell_for_each_heading_whatever_is_missing() {
        let columns = |line: &str| line.matches('|').count();
        let header = HEADER.lines().next().unwrap();
        let cell = Cell::new("ptp4l", "l2", 4);
        assert_eq!(columns(&Outcome(Value::Null).row(&cell)), columns(header));
        assert_eq!(cell.name(), "ptp4l l2, 4 busy loops");
    }
}
