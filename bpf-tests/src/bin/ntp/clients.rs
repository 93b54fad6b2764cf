//! The agent and chronyd ask the same chronyd, on a veth pair and on a bridge, in basic and in interleaved mode.

use std::time::Duration;

use bpf_tests::{
    agent::Agent,
    chrony::Chronyd,
    links::{Wire, ip},
};
use ptp_agent::sys::clock::{monotonic, realtime_minus_monotonic};
use serde_json::{Value, json};

use super::{POLL, Result, SETTLING, figures, ratio};

/// What an exchange alone says, ns: its error.
fn raw(line: &Value, real_minus_mono: i64) -> Option<f64> {
    let at = |name: &str| line[name].as_i64();
    let (t1, t4) = (at("t1_mono_ns")? + real_minus_mono, at("t4_mono_ns")? + real_minus_mono);
    let (there, back) = (at("t2_ns")? - t1, at("t3_ns")? - t4);
    Some((there + back) as f64 / 2.0)
}

/// Ways and times of an exchange, ns: there, back, how long before the request's stamp the clock was read, and how long the server took.
fn ways(line: &Value, real_minus_mono: i64) -> Option<[f64; 4]> {
    let at = |name: &str| line[name].as_i64();
    let (t1, t4) = (at("t1_mono_ns")? + real_minus_mono, at("t4_mono_ns")? + real_minus_mono);
    let (t2, t3) = (at("t2_ns")?, at("t3_ns")?);
    Some([t2 - t1, t4 - t3, at("handed_ns")?, t3 - t2].map(|it| it as f64))
}

/// The error of the agent's clock at each of its samples, ns.
fn clock_errors(agent: &Agent, since_mono_ns: i64, real_minus_mono: i64) -> Vec<f64> {
    let lines = agent.events(0, "clock");
    let samples = agent.samples(0).into_iter();
    let locked = samples
        .filter(|it| it["state"] == "locked" && it["mono_ns"].as_i64() >= Some(since_mono_ns));
    locked
        .filter_map(|sample| {
            let mono = sample["mono_ns"].as_i64()?;
            let line = lines.iter().rev().find(|line| line["mono_ns"].as_i64() <= Some(mono))?;
            let since = (mono - line["mono_ns"].as_i64()?) as f64;
            let gained = since * line["frequency_ppb"].as_f64()? * 1e-9;
            let shown =
                (line["clock_ns"].as_i64()? - line["mono_ns"].as_i64()? - real_minus_mono) as f64;
            Some(shown + gained)
        })
        .collect()
}

/// The least, quartiles and the most.
fn spread(mut values: Vec<f64>) -> Value {
    values.sort_unstable_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    let at = |quarter: usize| values.get(last * quarter / 4).map(|it| it.round());
    json!([at(0), at(1), at(2), at(3), at(4)])
}

/// See the module's paragraph.
pub(crate) fn clients(seconds: u64) -> Result<()> {
    for (link, interface) in [("veth", "ptp0"), ("bridge", "br0")] {
        for mode in ["basic", "interleaved"] {
            let wire = Wire::new()?;
            if link == "bridge" {
                for command in [
                    "link add br0 type bridge",
                    "address del 192.0.2.2/24 dev ptp0",
                    "link set ptp0 master br0",
                    "address add 192.0.2.2/24 dev br0",
                    "link set br0 up",
                ] {
                    ip(&wire.client, command);
                }
            }
            let mut server = Chronyd::server(&wire.grandmaster)?;
            let xleave = if mode == "interleaved" { " xleave" } else { "" };
            let options = format!("minpoll {POLL} maxpoll {POLL}{xleave}");
            let mut chronyd = Chronyd::client(&wire.client, "192.0.2.1", &options)?;
            let real_minus_mono = realtime_minus_monotonic().as_nanos();
            let begin = monotonic().as_nanos();
            let run = ["run", "-i", interface, "--follow", "ntp", "--ntp", "192.0.2.1"];
            let more = ["--ntp-poll", POLL, "--ntp-mode", mode, "--clock", "virtual"];
            let mut agent = Agent::start_only(&wire.client, &[&run[..], &more[..]].concat());
            // Of its own clock, which nothing else can read, it tells how far that is from the host's, which is the truth.
            let found = chronyd.errors(Duration::from_secs(seconds), SETTLING);
            agent.finish();
            let measured = chronyd.measurements();
            chronyd.running().stop();
            server.running().stop();
            let since = begin + (SETTLING * 1e9) as i64;
            // Of two that follow each other at once the first tells nothing.
            let all = agent.events(0, "ntp").into_iter();
            let lines: Vec<_> = all.filter(|line| line["turn"] != "first").collect();
            let used = lines.iter().filter(|line| line["t4_mono_ns"].as_i64() >= Some(since));
            let ways: Vec<_> = used.filter_map(|line| ways(line, real_minus_mono)).collect();
            let [there, back, handed, taken] =
                [0, 1, 2, 3].map(|at| spread(ways.iter().map(|it| it[at]).collect()));
            let exchanges = lines.into_iter();
            let ours = exchanges
                .filter(|line| line["t4_mono_ns"].as_i64() >= Some(since))
                .filter_map(|line| raw(&line, real_minus_mono))
                .collect();
            let skip = (SETTLING * 4.0) as usize;
            // What it measures is against its own clock, which has the error that all exchanges have in common.
            let own = found.iter().sum::<f64>() / found.len().max(1) as f64;
            let theirs = measured.iter().skip(skip).map(|it| it.offset_s * 1e9 + own).collect();
            let clock = figures(clock_errors(&agent, since, real_minus_mono));
            let (ours, theirs, found) = (figures(ours), figures(theirs), figures(found));
            let stamps = measured.last().map(|it| it.stamps.join(""));
            println!(
                "{}",
                json!({
                    "event": "bench", "name": "ntp clients", "link": link, "mode": mode,
                    "agent_exchange_ns": ours, "chronyd_exchange_ns": theirs,
                    "exchange_rms_ratio": ratio(&ours, &theirs, "rms"),
                    "exchange_median_ratio": ratio(&ours, &theirs, "median"),
                    "agent_clock_ns": clock, "chronyd_clock_ns": found,
                    "clock_rms_ratio": ratio(&clock, &found, "rms"),
                    "clock_median_ratio": ratio(&clock, &found, "median"),
                    "clock_to_exchange_ratio": ratio(&clock, &theirs, "rms"),
                    "chronyd_stamps": stamps,
                    "there_ns": there, "back_ns": back, "handed_before_ns": handed, "server_took_ns": taken,
                })
            );
        }
    }
    Ok(())
}
