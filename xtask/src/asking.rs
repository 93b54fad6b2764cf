//! `cargo xtask bench asking`: how true the time is that is asked for (CSPTP, SPTP), beside end to end by multicast. The
//! laboratory runs once in each way, one after the other, again and again, so that what else the host does meets
//! all of them alike; one line of JSON for each run, and a table of the medians with their ratio to end to end.

use std::{
    path::{Path, PathBuf},
    process::{ExitCode, Stdio},
};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::{
    package,
    process::{is_root, mortal},
};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Runs in each way
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// How long each is, seconds; twice as long at one exchange a second
    #[arg(long, value_name = "S", default_value_t = 20)]
    duration: u32,
    /// Exchanges per second, log2
    #[arg(long, value_name = "LOG", value_delimiter = ',', allow_negative_numbers = true, default_values_t = [-7, -4, 0])]
    rate: Vec<i8>,
    /// Only these ways: e2e, csptp, csptp-agent, sptp, sptp-agent
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    only: Vec<String>,
    /// This agent, instead of one that is built first
    #[arg(long, value_name = "FILE")]
    agent: Option<PathBuf>,
}

/// A way, and what the laboratory is told for it. The first is what the others are held against. `-agent`: the agent
/// answers instead of the kernel.
const WAYS: [(&str, &[&str]); 5] = [
    ("e2e", &[]),
    ("csptp", &["--ask", "csptp"]),
    ("csptp-agent", &["--ask", "csptp", "--kernel-answers", "off"]),
    ("sptp", &["--ask", "sptp"]),
    ("sptp-agent", &["--ask", "sptp", "--kernel-answers", "off"]),
];

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    if !is_root() {
        bail!("network namespaces and BPF programs need root: run this as root");
    }
    let agent = arguments.agent.clone().map_or_else(package::binary, Ok)?;
    let is_wanted = |name: &str| {
        arguments.only.is_empty() || name == WAYS[0].0 || arguments.only.iter().any(|it| it == name)
    };
    let ways: Vec<_> = WAYS.into_iter().filter(|(name, _)| is_wanted(name)).collect();
    let mut table = String::from("| exchanges per second |");
    for (name, _) in &ways {
        table.push_str(&format!(" {name} |"));
    }
    table.push_str(&format!("\n|---|{}\n", "---|".repeat(ways.len())));
    for rate in &arguments.rate {
        let mut errors = vec![Vec::new(); ways.len()];
        for run in 0..arguments.runs {
            for (at, (name, options)) in ways.iter().enumerate() {
                let seconds = arguments.duration * if *rate >= 0 { 2 } else { 1 };
                let error = one(&agent, *rate, seconds, options)?;
                println!("{}", json!({"rate": rate, "run": run, "way": name, "rms_ns": error}));
                errors[at].extend(error);
            }
        }
        let middles: Vec<Option<f64>> = errors.into_iter().map(median).collect();
        table.push_str(&format!("| {} |", 2_f64.powi(-i32::from(*rate))));
        for (middle, (name, _)) in middles.iter().zip(&ways) {
            let cell = match (middle, middles[0]) {
                (Some(middle), Some(_)) if *name == WAYS[0].0 => format!("{middle:.0}"),
                (Some(middle), Some(e2e)) => format!("{middle:.0} ({:.2})", middle / e2e),
                _ => "-".to_owned(),
            };
            table.push_str(&format!(" {cell} |"));
        }
        table.push('\n');
    }
    print!("{table}");
    Ok(ExitCode::SUCCESS)
}

/// The root of the mean square of the true error without the outermost, ns; `None` where there was none.
fn one(agent: &Path, rate: i8, seconds: u32, options: &[&str]) -> Result<Option<f64>> {
    let mut command = mortal(agent);
    command.args(["lab", "--json", "--no-html", "--no-tui", "--duration", &seconds.to_string()]);
    command.args([&format!("--log-sync-interval={rate}"), "--drift=0", "--offset=0"]);
    command.args(options);
    let output = command.stdin(Stdio::null()).output().context("cannot start the lab")?;
    let last = output.stdout.rsplit(|byte| *byte == b'\n').find(|line| !line.is_empty());
    let summary: Value = serde_json::from_slice(last.unwrap_or_default()).with_context(|| {
        let log = String::from_utf8_lossy(&output.stderr);
        format!("the laboratory ended: {}", log.lines().last().unwrap_or_default())
    })?;
    Ok(summary["trimmed_rms_ns"].as_f64())
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}
