//! `cargo xtask bench faults [SCHEDULES [FIRST SEED]]`: random faults and attacks in virtual time, two and a half
//! minutes each. One line of JSON for each schedule that was not fine, and one for all.

use std::{env, process::ExitCode};

use ptp_agent::sim::faults;

fn main() -> ExitCode {
    let numbers: Vec<u64> = env::args().skip(1).filter_map(|text| text.parse().ok()).collect();
    let count = numbers.first().copied().unwrap_or(2_000);
    let (totals, bad) = faults::many(numbers.get(1).copied().unwrap_or(1), count);
    for outcome in &bad {
        println!("{}", serde_json::to_string(outcome).unwrap_or_default());
    }
    println!("{}", serde_json::to_string(&totals).unwrap_or_default());
    if bad.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
