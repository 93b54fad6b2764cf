//! What a transparent clock in software is worth: clients behind bridges whose ports are shaped and loaded,
//! without it and with it in the same run, and what it costs. `transparent [--runs N] [--duration S] [NAME...]`
//! prints a line of JSON per figure; the agent is the one of `PTP_AGENT_BINARY`. All traffic is in namespaces
//! of its own, and no clock is steered. Every clock is the host's, so every offset is an error. Needs root,
//! linuxptp and iproute2.

mod cost;
mod flood;
mod network;
mod queues;

use std::{env, process::ExitCode, time::Duration};

use serde_json::{Value, json};

/// What is asked for.
struct Asked {
    runs: usize,
    duration: Duration,
    names: Vec<String>,
}

impl Asked {
    fn parse() -> Result<Self, String> {
        let mut asked = Self { runs: 3, duration: Duration::from_secs(20), names: Vec::new() };
        let mut arguments = env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let mut number = || {
                let value = arguments.next().and_then(|text| text.parse::<u64>().ok());
                value.filter(|value| *value > 0).ok_or(format!("{argument} needs a number"))
            };
            match argument.as_str() {
                "--runs" => asked.runs = usize::try_from(number()?).unwrap_or(1),
                "--duration" => asked.duration = Duration::from_secs(number()?),
                name if !name.starts_with('-') => asked.names.push(name.to_owned()),
                _ => return Err(format!("unknown option {argument}")),
            }
        }
        Ok(asked)
    }

    fn wants(&self, name: &str) -> bool {
        self.names.is_empty() || self.names.iter().any(|wanted| name.starts_with(wanted.as_str()))
    }
}

fn main() -> ExitCode {
    match Asked::parse().and_then(|asked| measure(&asked)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("transparent: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn measure(asked: &Asked) -> Result<(), String> {
    for setting in queues::SETTINGS {
        if asked.wants(setting.name) {
            queues::measure(setting, asked.runs, asked.duration)?;
        }
    }
    if asked.wants("chain") {
        queues::chain(asked.runs, asked.duration)?;
    }
    if asked.wants("flood") {
        flood::measure(asked.runs)?;
    }
    if asked.wants("cost") {
        cost::per_message()?;
        cost::forwarding(asked.runs)?;
    }
    Ok(())
}

/// A line of JSON.
fn tell(name: &str, more: Value) {
    let mut line = json!({"event": "bench", "name": name});
    if let (Some(line), Value::Object(more)) = (line.as_object_mut(), more) {
        line.extend(more);
    }
    println!("{line}");
}

/// Magnitudes of offsets, nanoseconds.
#[derive(Clone, Debug, PartialEq)]
struct Errors {
    n: usize,
    p50: i64,
    p90: i64,
    p99: i64,
    max: i64,
}

impl Errors {
    fn of(offsets: &[i64]) -> Self {
        let mut sizes: Vec<i64> = offsets.iter().map(|offset| offset.abs()).collect();
        sizes.sort_unstable();
        let at = |share: usize| {
            let at = (sizes.len() * share / 100).min(sizes.len().saturating_sub(1));
            sizes.get(at).copied().unwrap_or(0)
        };
        Self { n: sizes.len(), p50: at(50), p90: at(90), p99: at(99), max: at(100) }
    }

    /// The middle of several runs, of each figure for itself; samples in all.
    fn middle(runs: &[Self]) -> Self {
        let middle =
            |figure: fn(&Self) -> i64| bpf_tests::median(runs.iter().map(figure).collect());
        Self {
            n: runs.iter().map(|run| run.n).sum(),
            p50: middle(|run| run.p50),
            p90: middle(|run| run.p90),
            p99: middle(|run| run.p99),
            max: runs.iter().map(|run| run.max).max().unwrap_or(0),
        }
    }

    fn json(&self) -> Value {
        json!({
            "n": self.n, "p50_ns": self.p50, "p90_ns": self.p90, "p99_ns": self.p99,
            "max_ns": self.max,
        })
    }
}
