//! What the agent takes of a host, beside ptp4l in the same run: size, time to the first sample,
//! memory and processor time at 16 and 128 Sync per second, and the cost of a scrape. Both follow the same
//! grandmaster, each over a wire of its own; neither touches the host's clock. `footprint [SECONDS]`;
//! the agent is the one of `PTP_AGENT_BINARY`. Needs root and linuxptp.

use std::{
    env, fs,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use bpf_tests::{
    agent::{Agent, binary, http_get},
    children::Running,
    clocks::processor_ns,
    links::{Fork, Wire},
    prometheus::AGENT,
    ptp4l::Ptp4l,
};
use serde_json::json;

/// Before anything is measured: locked, capture points compared.
const WARM_UP: Duration = Duration::from_secs(20);
const PATIENCE: Duration = Duration::from_secs(30);
/// How often the agent is started for the time to its first sample.
const STARTS: usize = 5;
/// How often it is scraped.
const SCRAPES: usize = 50;

/// A grandmaster of 16 Sync and 4 Announce per second, and who follows it.
const SERVE: [&str; 11] = [
    "serve",
    "-i",
    "gm0",
    "--log-sync-interval",
    "-4",
    "--log-announce-interval",
    "-2",
    "--log-min-delay-req-interval",
    "-4",
    "--status-socket",
    "none",
];
const RUN: [&str; 7] = ["run", "-i", "ptp0", "--clock", "virtual", "--status-socket", "none"];

fn main() -> ExitCode {
    let seconds = env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(40);
    match measure(Duration::from_secs(seconds)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("footprint: {reason}");
            ExitCode::FAILURE
        }
    }
}

/// A figure as a line of JSON.
fn tell(name: &str, unit: &str, value: f64, more: serde_json::Value) {
    println!(
        "{}",
        json!({"event": "bench", "name": name, "unit": unit, "value": value, "with": more})
    );
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn measure(span: Duration) -> Result<(), String> {
    let size = fs::metadata(binary()).map_err(|error| error.to_string())?.len();
    tell("binary_size", "B", size as f64, json!({}));
    first_sample()?;
    sync_to_sample()?;
    for log_interval in [-4, -7] {
        beside_ptp4l(log_interval, span)?;
    }
    Ok(())
}

fn first_sample() -> Result<(), String> {
    let wire = Wire::new()?;
    let _grandmaster = Agent::start(&wire.grandmaster, &SERVE);
    let mut times = Vec::new();
    let mut listening = Vec::new();
    for _ in 0..STARTS {
        let agent = Agent::start(&wire.client, &RUN);
        let ready = agent.wait_for_text(0, PATIENCE, "listening").at;
        listening.push((ready - agent.since).as_secs_f64());
        let sample = agent.wait_for_text(0, PATIENCE, "\"event\":\"sample\"").at;
        times.push((sample - agent.since).as_secs_f64());
    }
    let with = json!({"n": STARTS, "sync_per_s": 16, "announce_per_s": 4});
    tell("start_to_listening", "s", median(listening), with.clone());
    tell("start_to_first_sample", "s", median(times), with);
    Ok(())
}

/// From the arrival of a Sync at the interface to the line of its sample at a reader: the Follow_Up, pairing, engine, servo,
/// JSON and a pipe. In front of it lies what nobody can shorten, the time that the Follow_Up takes to come.
fn sync_to_sample() -> Result<(), String> {
    let wire = Wire::new()?;
    let _grandmaster = Agent::start(&wire.grandmaster, &SERVE);
    let agent = Agent::start(&wire.client, &RUN);
    agent.wait_for_text(0, PATIENCE, "\"state\":\"locked\"");
    let mark = agent.mark();
    let zero = Instant::now() - Duration::from_nanos(monotonic_ns());
    thread::sleep(Duration::from_secs(20));
    let times: Vec<f64> = agent.lines()[mark..]
        .iter()
        .filter_map(|line| {
            let value: serde_json::Value = serde_json::from_str(&line.text).ok()?;
            let arrived = zero + Duration::from_nanos(value["mono_ns"].as_u64()?);
            (value["event"] == "sample").then(|| (line.at - arrived).as_secs_f64() * 1e6)
        })
        .collect();
    let with = json!({"n": times.len(), "sync_per_s": 16});
    tell("sync_to_sample", "us", median(times), with);
    Ok(())
}

/// CLOCK_MONOTONIC, nanoseconds.
fn monotonic_ns() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC);
    now.map_or(0, |now| std::time::Duration::from(now).as_nanos() as u64)
}

fn beside_ptp4l(log_interval: i8, span: Duration) -> Result<(), String> {
    let fork = Fork::new()?;
    let rates = format!("logSyncInterval {log_interval}\nlogMinDelayReqInterval {log_interval}\n");
    let _grandmaster = Ptp4l::grandmaster(&fork.grandmaster, &["gm0", "gm1"], &[&rates])?;
    let [ours, theirs] = &fork.clients;
    let mut command = ours.command(binary());
    command.args(["run", "-i", "ptp0", "--clock", "virtual", "--status-socket", "none"]);
    command.arg("--metrics-address").arg(AGENT.to_string());
    let agent = Running::start("agent run", &mut command);
    let options = format!("slaveOnly 1\nsummary_interval -4\nfreq_est_interval 0\n{rates}");
    let ptp4l = Ptp4l::start(theirs, &["ptp0"], &[&options])?;
    agent.wait_for_text(0, PATIENCE, "locked");
    // With a summary or without.
    ptp4l.wait_for_text(0, PATIENCE, " delay ");
    thread::sleep(WARM_UP);

    let begin = Instant::now();
    let processes = [("agent", agent.pid()), ("ptp4l", ptp4l.pid())];
    let before = processes.map(|(_, pid)| processor_ns(pid));
    thread::sleep(span);
    let wall = begin.elapsed().as_secs_f64();
    let used: Vec<f64> = processes
        .iter()
        .zip(before)
        .map(|((_, pid), before)| (processor_ns(*pid).saturating_sub(before)) as f64 / 1e9 / wall)
        .collect();
    let with = json!({"sync_per_s": 1 << -log_interval, "s": span.as_secs()});
    for ((name, pid), used) in processes.iter().zip(&used) {
        tell(&format!("{name}_cpu"), "%", used * 100.0, with.clone());
        tell(&format!("{name}_resident"), "MB", memory(*pid, "VmRSS"), with.clone());
        tell(&format!("{name}_resident_anonymous"), "MB", memory(*pid, "RssAnon"), with.clone());
    }
    tell("cpu_ratio_to_ptp4l", "1", used[0] / used[1], with.clone());

    let mut text = String::new();
    let times = (0..SCRAPES).map(|_| {
        let begin = Instant::now();
        text = http_get(ours, AGENT, "/metrics");
        begin.elapsed().as_secs_f64() * 1e3
    });
    tell("scrape", "ms", median(times.collect()), with.clone());
    tell("scrape_size", "B", text.len() as f64, with.clone());
    let series = text.lines().filter(|line| !line.starts_with('#')).count();
    tell("series", "1", series as f64, with);
    Ok(())
}

/// A figure of /proc/PID/status, which is in kB, in MB.
fn memory(pid: u32, field: &str) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let kib: Option<f64> = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    kib.map_or(f64::NAN, |kib| kib * 1024.0 / 1e6)
}
