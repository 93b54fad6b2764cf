//! `lab --trace`: three hosts whose clocks are off by known amounts, an agent on each, and a request that
//! passes through them many times. What `trace` says of the spans is compared with the truth, which one
//! kernel clock knows, and with what the hosts' own clocks show.

mod hosts;
mod service;

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, bail};
use serde::Serialize;

use self::{
    hosts::{Fleet, HOSTS},
    service::Pass,
};
use super::{args::Args, netns::NetnsError};
use crate::publish::Format;
use crate::trace;

/// How long agents may take until their bounds are known.
const PATIENCE: Duration = Duration::from_secs(60);

/// What `trace` said of the spans of one run.
#[derive(Clone, Debug, Serialize)]
struct Told {
    pairs: u64,
    right: u64,
    wrong: u64,
    not_told: u64,
    /// Gaps that can be told, ns: the median over the pairs of hosts, and the worst pair.
    bound_ns: i64,
    bound_max_ns: i64,
}

/// One offset of the hosts' clocks.
#[derive(Clone, Debug, Serialize)]
struct Row {
    event: &'static str,
    /// Hosts' clocks are off by 0, this, and its negative, ns.
    offset_ns: i64,
    requests: u64,
    /// Time between the starts of two spans that follow each other, ns.
    hop_ns: HopNs,
    /// Pairs that the hosts' own clocks show the effect before the cause.
    uncorrected_wrong: u64,
    uncorrected_wrong_share: f64,
    /// With what the agents have printed of the hosts' clocks.
    by_host: Told,
    not_told_share: f64,
    /// With what services stamped themselves, from the agents' pages.
    at_source: Told,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct HopNs {
    min: i64,
    p50: i64,
    p99: i64,
}

/// Runs it.
///
/// # Errors
/// When an agent cannot be started or knows no bound in time.
pub(super) fn run(args: &Args, format: Format) -> anyhow::Result<ExitCode> {
    let fleet = match Fleet::new() {
        Ok(fleet) => fleet,
        Err(error) => return lacking(error),
    };
    let directory = Directory::new(args.trace_directory.as_deref())?;
    let mut is_right = true;
    if !format.is_json() {
        println!(
            "three hosts, {} requests through all of them, hops of {} µs; of each pair of spans",
            args.requests, args.hop
        );
        println!(
            "{:>14} {:>10} {:>12} {:>8} {:>7} {:>9}  gap that can be told (median, worst)",
            "clocks off by", "pairs", "uncorrected", "right", "wrong", "not told"
        );
    }
    for offset_ns in &args.trace_offset {
        let row = one_offset(args, &fleet, &directory.path, *offset_ns)?;
        is_right &= row.by_host.wrong == 0 && row.at_source.wrong == 0;
        let mut out = io::stdout().lock();
        let written = if format.is_json() {
            serde_json::to_string(&row).map(|line| writeln!(out, "{line}"))?
        } else {
            print(&row, &mut out)
        };
        match written {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => break,
            written => written?,
        }
    }
    if directory.is_kept {
        eprintln!("the spans and what the agents printed are in {}", directory.path.display());
    }
    Ok(if is_right { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn lacking(error: NetnsError) -> anyhow::Result<ExitCode> {
    if error.is_missing_on_host() {
        eprintln!("ptp-agent lab: {error}");
        return Ok(ExitCode::from(3));
    }
    Err(error.into())
}

fn print(row: &Row, out: &mut impl io::Write) -> io::Result<()> {
    for (name, told) in [("by host", &row.by_host), ("at source", &row.at_source)] {
        writeln!(
            out,
            "{:>11} µs {:>10} {:>10.2} % {:>8} {:>7} {:>9}  {:.2} µs, {:.2} µs  {name}",
            row.offset_ns as f64 / 1e3,
            told.pairs,
            100.0 * row.uncorrected_wrong_share,
            told.right,
            told.wrong,
            told.not_told,
            told.bound_ns as f64 / 1e3,
            told.bound_max_ns as f64 / 1e3,
        )?;
    }
    Ok(())
}

fn one_offset(args: &Args, fleet: &Fleet, directory: &Path, offset_ns: i64) -> anyhow::Result<Row> {
    let offsets = [0, offset_ns, -offset_ns];
    let mut agents = fleet.start(args, directory, offsets)?;
    agents.wait_for_bounds(args.bound_below, PATIENCE)?;
    let pass = Pass {
        requests: args.requests,
        hop: Duration::from_micros(args.hop),
        pause: Duration::from_micros(args.pause),
        offsets_ns: offsets,
        pages: agents.pages().clone(),
    };
    let passed = service::pass(fleet, &pass);
    // Whatever became of the requests, the agents end in order; and the last readings come first.
    if passed.is_ok() {
        agents.wait_for_another()?;
    }
    agents.stop()?;
    let mut hops = passed?.write(directory)?;
    hops.sort_unstable();
    let Some(last) = hops.len().checked_sub(1) else { bail!("no request came through") };
    let by_host = told(directory, "spans", &agents.readings())?;
    let at_source = told(directory, "source", &["/dev/null".to_owned()])?;
    let pairs = by_host.0.pairs.max(1);
    Ok(Row {
        event: "traces",
        offset_ns,
        requests: args.requests,
        hop_ns: HopNs { min: hops[0], p50: hops[last / 2], p99: hops[last * 99 / 100] },
        uncorrected_wrong: by_host.1,
        uncorrected_wrong_share: by_host.1 as f64 / pairs as f64,
        not_told_share: by_host.0.not_told as f64 / pairs as f64,
        by_host: by_host.0,
        at_source: at_source.0,
    })
}

/// What `trace` says, and how many pairs the hosts' own clocks show the wrong way round. Every first span
/// of a pair was first in truth: the second is of a message that the first has sent.
fn told(directory: &Path, kind: &str, readings: &[String]) -> anyhow::Result<(Told, u64)> {
    let files = HOSTS.iter().map(|host| directory.join(format!("{kind}-{host}.json")));
    let args = trace::Args::of(files.collect(), readings.to_vec());
    let results = trace::judge(&args, Format::Text)?;
    let totals = &results.totals;
    for file in &results.files {
        if let Some(error) = &file.error {
            bail!("{}: {error}", file.name);
        }
    }
    let bounds: Vec<[i64; 2]> =
        results.host_pairs.values().filter_map(trace::HostPair::bound_ns).collect();
    let of = |n: usize| bounds.iter().map(move |bound| bound[n]).max().unwrap_or(i64::MAX);
    // Nothing is certain of the other way round but what is wrong.
    let wrong = totals.impossible + totals.certain_otherwise;
    let told = Told {
        pairs: totals.pairs,
        right: totals.certain - totals.certain_otherwise,
        wrong,
        not_told: totals.untold(),
        bound_ns: of(0),
        bound_max_ns: of(1),
    };
    Ok((told, totals.raw_backwards))
}

/// Where files are written: what the user named, or a directory that goes when this does.
struct Directory {
    path: PathBuf,
    is_kept: bool,
}

impl Directory {
    fn new(named: Option<&Path>) -> anyhow::Result<Self> {
        let path = match named {
            Some(path) => path.to_owned(),
            None => std::env::temp_dir().join(format!("ptp-lab-traces-{}", std::process::id())),
        };
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self { path, is_kept: named.is_some() })
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if !self.is_kept {
            // Nothing more can be done about one that stays.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}
