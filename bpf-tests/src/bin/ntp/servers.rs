//! chronyd as a client of the agent, and another chronyd as a client of a chronyd, on a veth pair each and at the same time, so that both
//! have the same load around them.

use std::{thread, time::Duration};

use bpf_tests::{agent::Agent, chrony::Chronyd, links::Wire};
use serde_json::{Value, json};

use super::{POLL, Result, SETTLING, figures, ratio};

/// What a client has measured.
struct Measured {
    offsets: Value,
    delays: Value,
    /// Of its clock against the truth.
    errors: Value,
}

/// See the module's paragraph.
pub(crate) fn servers(seconds: u64) -> Result<()> {
    for xleave in ["", " xleave"] {
        let wires = [Wire::new()?, Wire::new()?];
        let serve = ["serve", "-i", "gm0", "--ntp", "--ntp-stratum", "1", "--clock", "system"];
        let mut agent = Agent::start(&wires[0].grandmaster, &serve);
        agent.wait_for_text(0, Duration::from_secs(20), "serving NTP");
        let mut other = Chronyd::server(&wires[1].grandmaster)?;
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
            Measured {
                offsets: figures(used().map(|it| it.offset_s * 1e9).collect()),
                delays: figures(used().map(|it| it.delay_s * 1e9).collect()),
                errors: figures(errors[at].clone()),
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
                "event": "bench", "name": "ntp servers",
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
