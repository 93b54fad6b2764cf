//! `ptp-agent bench`: what the stamps cost on this host. [`clocks`] measures one clock call inside a
//! kernel program, the figure that Table 2 of Kobori, Lee and Hirotsu (doi 10.1002/cpe.7957) gives;
//! [`hooks`] measures what each hook adds to a PTP packet and to any other packet, against a program
//! that does nothing, and [`tracepoints`] does the same for the tracepoints, which every packet of the
//! host passes; [`throughput`] measures what a flow of other packets loses. The packets never leave the
//! host. [`servo`] is another benchmark: how near the servos come to the truth.

mod clocks;
mod hooks;
pub mod servo;
mod suite;
mod throughput;
mod tracepoints;

use std::{
    fmt::{self, Write as _},
    io::{self, Write as _},
};

use anyhow::Context as _;
use aya::{Ebpf, EbpfLoader};
use serde::Serialize;

use crate::capture::{CaptureError, Features};
use crate::publish::Format;

/// The programs of `ptp-ebpf/src/bench.rs` as compiled by `cargo xtask ebpf build`.
pub static OBJECT: &[u8] = kernel_programs!("ptp-bench");

/// Arguments of the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::Args)]
pub struct BenchArgs {
    /// Runs per row of the hook table; each gives one mean, and the row shows their spread.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub runs: u32,
    /// Packets per run. PTP packets are a tenth of it, in portions that the ring has room for.
    #[arg(long, default_value_t = 500_000, value_parser = clap::value_parser!(u32).range(10_000..=100_000_000))]
    pub packets: u32,
    /// Calls measured per clock.
    #[arg(long, default_value_t = 500_000, value_parser = clap::value_parser!(u32).range(1000..=100_000_000))]
    pub clock_calls: u32,
}

/// Distribution of a cost, nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Cost {
    /// The smallest.
    pub min: f64,
    /// The mean.
    pub mean: f64,
    /// The standard deviation.
    pub sd: f64,
    /// The largest.
    pub max: f64,
}

impl Cost {
    /// Of values that were all kept. Zeros where there are none.
    fn of(values: &[f64]) -> Self {
        let count = values.len().max(1) as f64;
        let mean = values.iter().sum::<f64>() / count;
        let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count;
        let smallest = values.iter().copied().reduce(f64::min);
        let largest = values.iter().copied().reduce(f64::max);
        Self {
            min: smallest.unwrap_or(0.0),
            mean,
            sd: variance.sqrt(),
            max: largest.unwrap_or(0.0),
        }
    }
}

/// Throughput with something in the way over that without, of pairs measured one after the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Ratio {
    /// The median, which a disturbance of some pairs leaves alone.
    pub median: f64,
    /// The first and the third quartile.
    pub quartiles: [f64; 2],
    /// How many.
    pub pairs: usize,
}

impl Ratio {
    /// Zeros where there are none.
    fn of(pairs: impl Iterator<Item = f64>) -> Self {
        let mut ratios: Vec<f64> = pairs.collect();
        ratios.sort_by(f64::total_cmp);
        let at = |quarter: usize| ratios.get(quarter * ratios.len() / 4).copied().unwrap_or(0.0);
        Self { median: at(2), quartiles: [at(1), at(3)], pairs: ratios.len() }
    }
}

/// One result; a line of `bench --json`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(tag = "event", rename = "bench")]
pub struct Row {
    /// What was measured.
    pub name: &'static str,
    /// Its cost: of a clock, over the calls; of a hook, over the means of the runs.
    pub ns: Cost,
    /// What is in `ns` that is not the thing itself: the mean of an empty program in the same runs.
    /// 0 for the clocks, whose method leaves nothing to subtract.
    pub baseline_ns: f64,
    /// For a flow of packets, whose cost is per packet and whose baseline is without any program.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub throughput: Option<Ratio>,
}

/// Measures everything and gives each row to `each` as soon as it is there: first the clocks, then
/// hook after hook.
///
/// # Errors
/// [`CaptureError`] where programs cannot be loaded; otherwise what the kernel said.
pub fn measure(args: &BenchArgs, mut each: impl FnMut(&Row)) -> anyhow::Result<()> {
    clocks::measure(args.clock_calls, &mut each)?;
    hooks::measure(args.runs, args.packets, &mut each)?;
    // Sending a packet costs a hundred times what running a program does.
    tracepoints::measure(args.runs, args.packets / 50, &mut each)?;
    // Flows of 15 ms.
    throughput::measure(args.runs * 4, args.packets / 100, &mut each)
}

/// The command: measures, and prints rows as JSON lines or the whole as text tables.
///
/// # Errors
/// As [`measure`], or what writing to standard output says.
pub fn run(args: &BenchArgs, format: Format) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    let mut failure = Ok(());
    measure(args, |row| {
        rows.push(*row);
        if format.is_json() && failure.is_ok() {
            failure = print_line(row);
        }
    })?;
    failure.context("cannot write to standard output")?;
    if !format.is_json() {
        write!(io::stdout().lock(), "{}", Report { args, rows: &rows })
            .context("cannot write to standard output")?;
    }
    Ok(())
}

fn print_line(row: &Row) -> io::Result<()> {
    let mut line = serde_json::to_string(row)?;
    line.push('\n');
    io::stdout().lock().write_all(line.as_bytes())
}

const NO_PROGRAM: &str = "the object lacks one of its programs";

/// Loads the object of this module.
fn load() -> Result<(Ebpf, Features), CaptureError> {
    let features = Features::probe();
    let has_tai = u8::from(features.tai);
    let ebpf = EbpfLoader::new()
        .override_global("HAS_TAI", &has_tai, true)
        .load(OBJECT)
        .map_err(CaptureError::load)?;
    Ok((ebpf, features))
}

/// Rows as text.
struct Report<'a> {
    args: &'a BenchArgs,
    rows: &'a [Row],
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "One clock call inside eBPF, ns, {} calls each; in brackets Kobori et al., Table 2",
            self.args.clock_calls
        )?;
        writeln!(f, "{:26}{:>16}{:>16}{:>16}{:>18}", "", "min", "mean", "sd", "max")?;
        for clock in clocks::CLOCKS {
            let Some(row) = self.rows.iter().find(|row| row.name == clock.name) else {
                writeln!(f, "{:26}{:>16}", clock.title, "no such helper before Linux 6.1")?;
                continue;
            };
            write!(f, "{:26}", clock.title)?;
            for (value, paper, width) in [
                (row.ns.min, clock.paper.min, 16),
                (row.ns.mean, clock.paper.mean, 16),
                (row.ns.sd, clock.paper.sd, 16),
                (row.ns.max, clock.paper.max, 18),
            ] {
                let mut cell = String::new();
                write!(cell, "{value:.1} ({paper:.0})")?;
                write!(f, "{cell:>width$}")?;
            }
            writeln!(f)?;
        }
        writeln!(
            f,
            "\nOne packet on one hook, ns, {} runs; last column: mean over the empty program's\n\
             (in the last rows, xmit, the kernel's own clock reads are in every figure)",
            self.args.runs
        )?;
        writeln!(
            f,
            "{:26}{:>10}{:>10}{:>10}{:>10}{:>12}",
            "", "min", "mean", "sd", "max", "added"
        )?;
        let is_hook = |row: &&Row| {
            row.throughput.is_none() && clocks::CLOCKS.iter().all(|it| it.name != row.name)
        };
        for row in self.rows.iter().filter(is_hook) {
            let Cost { min, mean, sd, max } = row.ns;
            let added = mean - row.baseline_ns;
            let name = row.name;
            writeln!(f, "{name:26}{min:>10.1}{mean:>10.1}{sd:>10.1}{max:>10.1}{added:>12.1}")?;
        }
        for row in self.rows {
            let Some(Ratio { median, quartiles: [first, third], pairs }) = row.throughput else {
                continue;
            };
            if row.name == throughput::NAMES[0] {
                writeln!(
                    f,
                    "\nThroughput of small datagrams over a veth pair with programs on both ends and\n\
                     around the driver, over that without ({:.0} ns per packet); median of {pairs} pairs\n\
                     {:26}{:>10}{:>22}",
                    row.baseline_ns, "", "median", "quartiles"
                )?;
            }
            let quartiles = format!("{first:.3} .. {third:.3}");
            writeln!(f, "{:26}{median:>10.3}{quartiles:>22}", row.name)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARGS: BenchArgs = BenchArgs { runs: 2, packets: 10_000, clock_calls: 1000 };

    #[test]
    fn row_has_exactly_the_fields_of_the_contract() {
        let ns = Cost { min: 20.0, mean: 21.5, sd: 0.5, max: 900.0 };
        let row = Row { name: "clock_mono", ns, baseline_ns: 0.0, throughput: None };
        assert_eq!(
            serde_json::to_string(&row).unwrap(),
            r#"{"event":"bench","name":"clock_mono","ns":{"min":20.0,"mean":21.5,"sd":0.5,"max":900.0},"baseline_ns":0.0}"#
        );
    }

    #[test]
    fn cost_of_no_values_is_zero_and_not_infinite() {
        assert_eq!(Cost::of(&[]), Cost { min: 0.0, mean: 0.0, sd: 0.0, max: 0.0 });
    }

    #[test]
    fn cost_is_the_distribution_of_the_values() {
        assert_eq!(Cost::of(&[1.0, 3.0]), Cost { min: 1.0, mean: 2.0, sd: 1.0, max: 3.0 });
    }

    #[test]
    fn text_shows_the_papers_figures_beside_ours() {
        let ns = Cost { min: 20.0, mean: 21.5, sd: 0.5, max: 900.0 };
        let rows = [
            Row { name: "clock_mono", ns, baseline_ns: 0.0, throughput: None },
            Row { name: "tc_ingress_ptp", ns, baseline_ns: 8.0, throughput: None },
        ];
        let text = Report { args: &ARGS, rows: &rows }.to_string();
        for part in
            ["20.0 (25)", "21.5 (27)", "0.5 (81)", "900.0 (17840)", "before Linux 6.1", "13.5"]
        {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
