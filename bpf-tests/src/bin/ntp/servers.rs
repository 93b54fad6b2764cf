//! chronyd as a client of the agent, and another chronyd as a client of a chronyd, on a veth pair each and at the same time, so that both
//! have the same load around them; and the same with ntpd-rs as clients.

use std::{thread, time::Duration};

use bpf_tests::{agent::Agent, chrony::Chronyd, links::Wire, ntpd_rs::NtpdRs};
use serde_json::{Value, json};

use super::{POLL, Result, SETTLING, figures, ratio};

/// What a client has measured.
struct Measured {
    offsets: Value,
    delays: Value,
    /// Of its clock against the truth.
    errors: Value,
}

/// The agent and a chronyd, on a veth pair each.
fn both() -> Result<([Wire; 2], Agent, Chronyd)> {
    let wires = [Wire::new()?, Wire::new()?];
    let serve = ["serve", "-i", "gm0", "--ntp", "--ntp-stratum", "1", "--clock", "system"];
    let agent = Agent::start(&wires[0].grandmaster, &serve);
    agent.wait_for_text(0, Duration::from_secs(20), "serving NTP");
    let other = Chronyd::server(&wires[1].grandmaster)?;
    Ok((wires, agent, other))
}

/// See the module's paragraph.
pub(crate) fn servers(seconds: u64) -> Result<()> {
    of_chronyd(seconds)?;
    of_ntpd_rs(seconds)
}

/// A second is the shortest interval at which ntpd-rs asks.
const NTPD_RS_POLL: i8 = 0;

fn of_ntpd_rs(seconds: u64) -> Result<()> {
    let (wires, mut agent, mut other) = both()?;
    let client = |wire: &Wire| NtpdRs::client(&wire.client, "192.0.2.1", NTPD_RS_POLL);
    let mut clients = [client(&wires[0])?, client(&wires[1])?];
    // It asks less often, and needs eight answers to begin.
    let span = Duration::from_secs(seconds);
    let [of_agent, of_chronyd] = thread::scope(|scope| {
        let watches = clients
            .each_ref()
            .map(|client| scope.spawn(move || client.observe(span, 2.0 * SETTLING)));
        watches.map(|watch| watch.join().unwrap_or_default())
    });
    for client in &mut clients {
        client.running().stop();
    }
    agent.finish();
    other.running().stop();
    let both = [of_agent, of_chronyd];
    let [agent_offset, other_offset] =
        both.each_ref().map(|it| figures(it.iter().map(|it| it.offset_ns).collect()));
    let [agent_delay, other_delay] =
        both.each_ref().map(|it| figures(it.iter().map(|it| it.delay_ns).collect()));
    println!(
        "{}",
        json!({
            "event": "bench", "name": "ntp servers", "client": "ntpd-rs", "mode": "basic",
            "clock_behind_agent_ns": agent_offset, "clock_behind_chronyd_ns": other_offset,
            "clock_rms_ratio": ratio(&agent_offset, &other_offset, "rms"),
            "clock_median_ratio": ratio(&agent_offset, &other_offset, "median"),
            "delay_of_agent_ns": agent_delay, "delay_of_chronyd_ns": other_delay,
        })
    );
    Ok(())
}

fn of_chronyd(seconds: u64) -> Result<()> {
    for xleave in ["", " xleave"] {
        let (wires, mut agent, mut other) = both()?;
        let options = format!("minpoll {POLL} maxpoll {POLL}{xleave}");
        let client = |wire: &Wire| Chronyd::client(&wire.client, "192.0.2.1", &options);
        let mut clients = [client(&wires[0])?, client(&wires[1])?];
        let span = Duration::from_secs(seconds);
        let errors = thread::scope(|scope| {
            let watches =
                clients.each_ref().map(|client| scope.spawn(move || client.errors(span, SETTLING)));
            watches.map(|watch| watch.join().unwrap_or_default())
        });
        let [of_agent, of_chronyd] = [0, 1].map(|at| {
            let measured = clients[at].measurements();
            let used = || measured.iter().skip((SETTLING * 4.0) as usize);
            // What it measures is against its own clock, which has the error that all exchanges have in common.
            let errors = &errors[at];
            let own = errors.iter().sum::<f64>() / errors.len().max(1) as f64;
            Measured {
                offsets: figures(used().map(|it| it.offset_s * 1e9 + own).collect()),
                delays: figures(used().map(|it| it.delay_s * 1e9).collect()),
                errors: figures(errors.clone()),
            }
        });
        for client in &mut clients {
            client.running().stop();
        }
        agent.finish();
        other.running().stop();
        let both = |name: &str| ratio(&of_agent.offsets, &of_chronyd.offsets, name);
        println!(
            "{}",
            json!({
                "event": "bench", "name": "ntp servers", "client": "chronyd",
                "mode": if xleave.is_empty() { "basic" } else { "interleaved" },
                "exchange_with_agent_ns": of_agent.offsets, "exchange_with_chronyd_ns": of_chronyd.offsets,
                "exchange_rms_ratio": both("rms"), "exchange_sd_ratio": both("sd"), "exchange_median_ratio": both("median"),
                "clock_behind_agent_ns": of_agent.errors, "clock_behind_chronyd_ns": of_chronyd.errors,
                "clock_rms_ratio": ratio(&of_agent.errors, &of_chronyd.errors, "rms"),
                "clock_median_ratio": ratio(&of_agent.errors, &of_chronyd.errors, "median"),
                "delay_of_agent_ns": of_agent.delays, "delay_of_chronyd_ns": of_chronyd.delays,
            })
        );
    }
    Ok(())
}
