//! `cargo xtask bench truth`: how true the agent is against anybody's grandmaster. Runs the laboratory over a
//! grid of grandmasters, transports, loads and rates, with ptp4l's client beside the agent in each run,
//! and writes the tables of `docs/truth.md`. What is not installed has a line that says so.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::{ExitCode, Stdio},
    sync::{Mutex, PoisonError},
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{
    kernels,
    process::{self, cargo, is_root, mortal, target_directory, workspace},
};

/// The tables are between these lines of the page.
const TABLE: [&str; 2] =
    ["<!-- begin: cargo xtask bench truth -->", "<!-- end: cargo xtask bench truth -->"];
const GUESTS: [&str; 2] = [
    "<!-- begin: cargo xtask bench truth --guests -->",
    "<!-- end: cargo xtask bench truth --guests -->",
];
/// What a run takes beyond its duration, seconds.
const STARTING_S: u32 = 3;
/// Version of statime's program for Linux.
const STATIME: &str = "0.4.0";
/// Exit code of a laboratory for which the host lacks something.
const HOST_LACKS: i32 = 3;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// One row of each kind, two runs each: twelve minutes; the page is left as it is
    #[arg(long)]
    quick: bool,
    /// Runs of each row; the one in the middle is told [default: 3, with --quick 2]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    runs: Option<u32>,
    /// How long each run is at the least, seconds; the whole table takes 45 minutes
    #[arg(long, value_name = "S", default_value_t = 25)]
    duration: u32,
    /// Write the page although not all rows are measured
    #[arg(long)]
    page: bool,
    /// Instead: two emulated cards of each model, joined in one guest
    #[arg(long, conflicts_with_all = ["quick", "grandmaster"])]
    guests: bool,
    /// Get ptpd (a Debian package) and statime (from the crate registry) into the target directory where they
    /// are not installed
    #[arg(long)]
    get_peers: bool,
    /// Only these grandmasters: serve, exact, ptp4l, ptpd, statime
    #[arg(long, value_name = "NAME")]
    grandmaster: Vec<String>,
    /// Only this row, by the name that it has in the table; again for more. With --page it takes the place of the
    /// row of that name
    #[arg(long, value_name = "NAME", conflicts_with_all = ["quick", "grandmaster", "guests"])]
    row: Vec<String>,
    /// Where a grandmaster's program is: NAME=FILE
    #[arg(long, value_name = "NAME=FILE")]
    program: Vec<String>,
    /// This agent, instead of one that is built first
    #[arg(long, value_name = "FILE")]
    agent: Option<PathBuf>,
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
    link: &'static str,
    load: u16,
    clock: &'static str,
    /// Log2 s of Sync, and of Delay_Req where it is not the grandmaster's own.
    log_sync: i8,
    log_delay_req: Option<i8>,
}

impl Cell {
    const fn new(grandmaster: &'static str, transport: &'static str, load: u16) -> Self {
        let (link, clock, log_sync, log_delay_req) = ("veth", "virtual", -4, None);
        Self { grandmaster, transport, link, load, clock, log_sync, log_delay_req }
    }

    fn grid(is_quick: bool) -> Vec<Self> {
        let mut cells = vec![
            Self::new("ptp4l", "l2", 0),
            Self::new("ptp4l", "l2", 4),
            Self::new("ptp4l", "udp4", 0),
            Self::new("ptp4l", "udp4", 4),
            Self::new("ptp4l", "udp6", 0),
        ];
        let ptp4l = Self::new("ptp4l", "l2", 0);
        cells.push(Self { link: "bridge", ..ptp4l });
        cells.push(Self { clock: "none", ..ptp4l });
        cells.push(Self { log_sync: 0, ..ptp4l });
        cells.push(Self { log_sync: 0, load: 4, ..ptp4l });
        cells.push(Self { log_delay_req: Some(3), ..ptp4l });
        for grandmaster in ["ptpd", "statime", "serve"] {
            cells.push(Self::new(grandmaster, "l2", 0));
            cells.push(Self::new(grandmaster, "l2", 4));
            cells.push(Self::new(grandmaster, "udp4", 0));
        }
        cells.extend([0, 4].map(|load| Self::new("exact", "l2", load)));
        cells.retain(|cell| !is_quick || cell.is_key());
        cells
    }

    /// Whether it is one of those that stand for the others.
    fn is_key(&self) -> bool {
        let is_plain = self.log_delay_req.is_none() && self.load == 0;
        match self.grandmaster {
            "ptp4l" => {
                self.transport != "udp6" && (is_plain || (self.load > 0 && self.log_sync < 0))
            }
            "serve" => is_plain && self.transport == "udp4",
            _ => is_plain && self.transport == "l2",
        }
    }

    /// So long are its runs at the least, seconds. Seldom asked, it takes time to know the way back; at one Sync
    /// per second a first estimate takes ten seconds; ptpd begins late, and whole microseconds are to be found out;
    /// on a bridge few round trips are fast.
    fn least_duration(&self) -> u32 {
        match self {
            Self { log_delay_req: Some(_), .. } => 90,
            Self { log_sync: 0.., .. } => 75,
            Self { grandmaster: "ptpd" | "statime", .. } | Self { link: "bridge", .. } => 40,
            _ => 0,
        }
    }

    fn arguments(&self) -> Vec<String> {
        let mut arguments: Vec<String> = [
            ["--grandmaster", self.grandmaster],
            ["--transport", self.transport],
            ["--clock", self.clock],
            ["--link", self.link],
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
        if self.link != "veth" {
            let _ = write!(name, ", {}", self.link);
        }
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
    fn row(&self, name: &str) -> String {
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
            name,
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
    if arguments.guests {
        return guests(arguments);
    }
    if !is_root() {
        bail!("network namespaces and BPF programs need root: run this as root");
    }
    let agent = match &arguments.agent {
        Some(agent) => agent.clone(),
        None => {
            let build =
                cargo(["build", "--release", "--package", "ptp-agent", "--bin", "ptp-agent"]);
            if !build.stream(|_| ())?.success() {
                bail!("the release binary could not be built");
            }
            target_directory().join("release/ptp-agent")
        }
    };
    let runs = arguments.runs.unwrap_or(if arguments.quick { 2 } else { 3 });
    let seconds = arguments.duration;
    let peers = peers(arguments)?;
    let is_wanted = |cell: &Cell| {
        arguments.grandmaster.is_empty()
            || arguments.grandmaster.iter().any(|name| name == cell.grandmaster)
    };
    let mut cells: Vec<Cell> = Cell::grid(arguments.quick).into_iter().filter(is_wanted).collect();
    if !arguments.row.is_empty() {
        let names: Vec<String> = cells.iter().map(Cell::name).collect();
        if let Some(row) = arguments.row.iter().find(|row| !names.contains(row)) {
            bail!("no row is named {row:?}; there are: {}", names.join("; "));
        }
        cells.retain(|cell| arguments.row.contains(&cell.name()));
    }
    let takes = |cells: &[Cell]| {
        let seconds = |cell: &Cell| runs * (seconds.max(cell.least_duration()) + STARTING_S);
        cells.iter().map(seconds).sum::<u32>().div_ceil(60)
    };
    let mut table = HEADER.to_owned();
    print!("{table}");
    for (number, cell) in cells.iter().enumerate() {
        let left = takes(&cells[number..]);
        eprintln!("{} of {}, {left} min left: {}", number + 1, cells.len(), cell.name());
        let laboratory = Laboratory { arguments, agent: &agent, peers: &peers };
        let line = laboratory.measure(cell, runs, seconds.max(cell.least_duration()))?;
        println!("{line}");
        table.push_str(&line);
        table.push('\n');
    }
    if !arguments.row.is_empty() {
        if arguments.page {
            write_rows(&table)?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let is_whole = !arguments.quick && arguments.grandmaster.is_empty();
    if (is_whole || arguments.page) && !arguments.no_page {
        let how = if runs == 1 { "One run" } else { "runs, the one in the middle told," };
        let number = if runs == 1 { String::new() } else { format!("{runs} ") };
        let host = format!("{number}{how} of {seconds} s or more for each row; {}.\n\n", host());
        write_page(&format!("{host}{table}"), TABLE)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Real drivers in a guest, where time is the number of instructions done.
fn guests(arguments: &Arguments) -> Result<ExitCode> {
    let ready = kernels::prepare()?;
    let rows = Mutex::new(BTreeMap::new());
    kernels::run(&ready, &[kernels::CARDS.into()], false, |line| {
        let Ok(line) = serde_json::from_str::<Value>(line) else { return };
        let Some(driver) = line["name"].as_str().and_then(|name| name.strip_prefix("cards "))
        else {
            return;
        };
        let row = Outcome(line["values"].clone()).row(&format!("ptp4l l2, {driver}"));
        println!("{row}");
        rows.lock().unwrap_or_else(PoisonError::into_inner).insert(driver.to_owned(), row);
    })?;
    let rows = rows.into_inner().unwrap_or_else(PoisonError::into_inner);
    if rows.is_empty() {
        bail!("no guest told anything");
    }
    let rows: Vec<String> = rows.into_values().collect();
    if !arguments.no_page {
        write_page(&format!("{HEADER}{}", rows.join("\n")), GUESTS)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Where the programs of other grandmasters are that are not installed.
fn peers(arguments: &Arguments) -> Result<BTreeMap<String, PathBuf>> {
    let directory = target_directory().join("peers");
    let places =
        [("ptpd", directory.join("usr/sbin/ptpd")), ("statime", directory.join("bin/statime"))];
    let mut peers = BTreeMap::new();
    for (name, place) in places {
        if arguments.get_peers && !place.exists() && process::find(name).is_none() {
            fs::create_dir_all(&directory).context("cannot make a directory for peers")?;
            get_peer(name, &directory).with_context(|| format!("cannot get {name}"))?;
        }
        if place.exists() {
            peers.insert(name.to_owned(), place);
        }
    }
    let named = arguments.program.iter().filter_map(|program| program.split_once('='));
    peers.extend(named.map(|(name, file)| (name.to_owned(), file.into())));
    Ok(peers)
}

/// Unpacks it, and installs nothing: as a package of the system it would be a service.
pub(crate) fn get_peer(name: &str, directory: &Path) -> Result<()> {
    let root = directory.display().to_string();
    if name == "statime" {
        let version = ["--version", STATIME];
        let install = [&["install", "--locked", "statime-linux", "--root", &root], &version[..]];
        return cargo(install.concat()).quietly("installation of statime");
    }
    process::command_in(directory, "apt-get", ["download", name]).output().context("apt-get")?;
    for entry in fs::read_dir(directory).context("the directory for peers")? {
        let file = entry?.path();
        if file.extension().is_some_and(|extension| extension == "deb") {
            let file = file.display().to_string();
            process::command("dpkg-deb", ["-x", &file, &root]).output().context("dpkg-deb")?;
        }
    }
    Ok(())
}

/// What all runs have in common.
struct Laboratory<'a> {
    arguments: &'a Arguments,
    agent: &'a Path,
    /// Programs that are not on the path.
    peers: &'a BTreeMap<String, PathBuf>,
}

impl Laboratory<'_> {
    fn measure(&self, cell: &Cell, runs: u32, seconds: u32) -> Result<String> {
        let mut outcomes = Vec::new();
        for _ in 0..runs {
            match self.run(cell, seconds)? {
                Ok(outcome) => outcomes.push(outcome),
                Err(reason) => return Ok(format!("| {} | {reason} | | | | | | | |", cell.name())),
            }
        }
        outcomes.sort_by(|a, b| a.rms().total_cmp(&b.rms()));
        let middle = outcomes.get(outcomes.len() / 2).context("no run")?;
        Ok(middle.row(&cell.name()))
    }

    /// One run, or what the host lacks for it.
    fn run(&self, cell: &Cell, seconds: u32) -> Result<Result<Outcome, String>> {
        let mut command = mortal(self.agent);
        command.args([
            "lab",
            "--json",
            "--no-html",
            "--no-tui",
            "--duration",
            &seconds.to_string(),
        ]);
        command.args(cell.arguments());
        if let Some(strategy) = &self.arguments.strategy {
            command.args(["--strategy", strategy]);
        }
        if let Some(file) = self.peers.get(cell.grandmaster) {
            command.arg("--grandmaster-program").arg(file);
        }
        let output = command.stdin(Stdio::null()).output().context("cannot start the lab")?;
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
}

/// On what it was measured.
fn host() -> String {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    format!("Linux {}, {processors} processors", kernel.trim())
}

/// Replaces the tables of the page.
fn write_page(tables: &str, place: [&str; 2]) -> Result<()> {
    rewrite_page(|text| with_tables(text, tables, place))
}

/// Rows that were measured alone.
fn write_rows(table: &str) -> Result<()> {
    rewrite_page(|text| {
        let [begin, end] = TABLE;
        let old = text.split_once(begin).and_then(|(_, rest)| rest.split_once(end));
        let (old, _) = old.context("the page has no table")?;
        with_tables(text, &with_rows(old.trim(), table), TABLE)
    })
}

fn rewrite_page(rewrite: impl FnOnce(&str) -> Result<String>) -> Result<()> {
    let page = workspace().join("docs/truth.md");
    let text =
        fs::read_to_string(&page).with_context(|| format!("cannot read {}", page.display()))?;
    fs::write(&page, rewrite(&text)?).with_context(|| format!("cannot write {}", page.display()))
}

/// `old` with the rows of `new`, each in the place of the one of its name, or at the end.
fn with_rows(old: &str, new: &str) -> String {
    let name = |line: &str| {
        line.strip_prefix("| ").and_then(|line| Some(line.split_once(" |")?.0.to_owned()))
    };
    let mut lines: Vec<String> = old.lines().map(str::to_owned).collect();
    for row in new.lines().filter(|line| name(line).is_some() && !HEADER.contains(line)) {
        match lines.iter_mut().find(|line| name(line) == name(row)) {
            Some(line) => row.clone_into(line),
            None => lines.push(row.to_owned()),
        }
    }
    lines.join("\n")
}

fn with_tables(text: &str, tables: &str, [begin, end]: [&str; 2]) -> Result<String> {
    let parts =
        text.split_once(begin).and_then(|(before, rest)| Some((before, rest.split_once(end)?.1)));
    let (before, after) = parts.context("the page has no place for the tables")?;
    Ok(format!("{before}{begin}\n{}\n{end}{after}", tables.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_take_the_place_of_those_before_and_the_text_stays() {
        let [begin, end] = TABLE;
        let page = format!("# Truth\n{begin}\nold\n{end}\nmore\n");
        assert_eq!(
            with_tables(&page, "new\n", TABLE).unwrap(),
            format!("# Truth\n{begin}\nnew\n{end}\nmore\n")
        );
        with_tables("# Truth\n", "new", TABLE).unwrap_err();
    }

    #[test]
    fn row_that_was_measured_alone_takes_the_place_of_its_name() {
        let old = format!("3 runs.\n\n{HEADER}| serve l2 | 1 |\n| exact l2 | 2 |");
        let new = with_rows(&old, &format!("{HEADER}| exact l2 | 3 |\n| ptpd l2 | 4 |"));
        assert_eq!(
            new,
            format!("3 runs.\n\n{HEADER}| serve l2 | 1 |\n| exact l2 | 3 |\n| ptpd l2 | 4 |")
        );
    }

    #[test]
    fn quick_table_has_a_row_of_each_kind_and_ends_within_a_quarter_of_an_hour() {
        let cells = Cell::grid(true);
        let names: Vec<String> = cells.iter().map(Cell::name).collect();
        for name in [
            "ptp4l l2",
            "ptp4l l2, 4 busy loops",
            "ptp4l udp4",
            "ptp4l udp4, 4 busy loops",
            "ptp4l l2, --clock none",
            "ptp4l l2, 1 Sync/s",
            "ptp4l l2, bridge",
            "ptpd l2",
            "statime l2",
            "serve udp4",
            "exact l2",
        ] {
            assert!(names.iter().any(|it| it == name), "{name} in {names:?}");
        }
        let seconds = cells.iter().map(|cell| 2 * (cell.least_duration().max(25) + STARTING_S));
        assert!(seconds.sum::<u32>() < 15 * 60);
        assert!(Cell::grid(false).len() > names.len());
    }

    #[test]
    fn page_has_a_place_for_the_tables() {
        let text = fs::read_to_string(workspace().join("docs/truth.md")).unwrap();
        for place in [TABLE, GUESTS] {
            with_tables(&text, "new", place).unwrap();
        }
    }

    #[test]
    fn row_has_a_cell_for_each_heading_whatever_is_missing() {
        let columns = |line: &str| line.matches('|').count();
        let header = HEADER.lines().next().unwrap();
        let cell = Cell::new("ptp4l", "l2", 4);
        assert_eq!(columns(&Outcome(Value::Null).row(&cell.name())), columns(header));
        assert_eq!(cell.name(), "ptp4l l2, 4 busy loops");
    }
}
