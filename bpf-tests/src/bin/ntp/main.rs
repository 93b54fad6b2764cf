//! What NTP by the agent's stamps is worth, beside chronyd in the same run. All namespaces share one clock, so every
//! nanosecond of offset is error. `ntp [WHAT [SECONDS]]`, where WHAT is
//! `clients` (the agent and chronyd ask the same chronyd, on a veth pair and on a bridge, basic and interleaved),
//! `servers` (chronyd asks the agent, and another chronyd asks a chronyd beside it),
//! `witness` (how long it takes until two servers of NTP find a grandmaster that goes wrong, and false alarms),
//! `rate` (requests answered on one processor) or `picture` (where the time goes: user space, TC, driver, wire).
//! One line of JSON for each. Needs root and chronyd.

mod clients;
mod picture;
mod rate;
mod servers;
mod witness;

use std::{env, process::ExitCode};

use serde_json::{Value, json};

/// What was settling, s.
const SETTLING: f64 = 8.0;
/// Between the asking of both clients: 4 a second.
const POLL: &str = "-2";

type Result<T> = std::result::Result<T, String>;

/// Mean, spread, rms, median of the magnitude, and how many.
fn figures(mut values: Vec<f64>) -> Value {
    let n = values.len().max(1) as f64;
    let mean = values.iter().sum::<f64>() / n;
    let rms = (values.iter().map(|it| it * it).sum::<f64>() / n).sqrt();
    let sd = (rms * rms - mean * mean).max(0.0).sqrt();
    values.sort_unstable_by(|a, b| a.abs().total_cmp(&b.abs()));
    let at = |share: f64| {
        let place = (values.len() as f64 * share) as usize;
        values.get(place.min(values.len().saturating_sub(1))).copied().unwrap_or(f64::NAN).abs()
    };
    let [median, p90, p99] = [0.5, 0.9, 0.99].map(|share| at(share).round());
    json!({
        "n": values.len(), "mean": mean.round(), "sd": sd.round(), "rms": rms.round(),
        "median": median, "p90": p90, "p99": p99,
    })
}

/// One figure of two, over each other.
fn ratio(this: &Value, other: &Value, name: &str) -> f64 {
    let value = |of: &Value| of[name].as_f64().unwrap_or(f64::NAN);
    (value(this) / value(other) * 100.0).round() / 100.0
}

fn main() -> ExitCode {
    let mut arguments = env::args().skip(1);
    let what = arguments.next();
    let seconds = arguments.next().and_then(|it| it.parse::<u64>().ok());
    type Part = (&'static str, fn(u64) -> Result<()>, u64);
    let parts: [Part; 5] = [
        ("clients", clients::clients, 60),
        ("servers", servers::servers, 60),
        ("witness", witness::witness, 60),
        ("rate", rate::rate, 3),
        ("picture", picture::picture, 30),
    ];
    for (name, measure, usual) in parts {
        if what.as_deref().is_some_and(|what| what != name) {
            continue;
        }
        if let Err(reason) = measure(seconds.unwrap_or(usual)) {
            eprintln!("cannot measure {name}: {reason}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
