//! `cargo xtask bench faults [SCHEDULES [FIRST SEED]]`: random faults and attacks in virtual time, two and a half
//! minutes each. One line of JSON for each schedule that was not fine or not true, and one for all. `show SEED` instead: the course
//! of one schedule, a line for each look: second, state, error, bound (ns), frequency (ppb).

use std::{env, process::ExitCode};

use ptp_agent::sim::faults;

fn main() -> ExitCode {
    if let [show, seed] = &env::args().skip(1).collect::<Vec<_>>()[..]
        && show == "show"
    {
        tracing_subscriber::fmt()
            .with_max_level(tracing::Level::DEBUG)
            .with_writer(std::io::stderr)
            .init();
        let schedule = faults::Schedule::new(seed.parse().unwrap_or(1));
        println!("{:?}\n{}", schedule.faults, schedule.text);
        for truth in faults::truth(&schedule) {
            println!("{truth:?}");
        }
        return ExitCode::SUCCESS;
    }
    let numbers: Vec<u64> = env::args().skip(1).filter_map(|text| text.parse().ok()).collect();
    let count = numbers.first().copied().unwrap_or(2_000);
    let (totals, bad) = faults::many(numbers.get(1).copied().unwrap_or(1), count);
    for outcome in &bad {
        println!("{}", serde_json::to_string(outcome).unwrap_or_default());
    }
    println!("{}", serde_json::to_string(&totals).unwrap_or_default());
    if bad.iter().all(faults::Outcome::is_fine) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
