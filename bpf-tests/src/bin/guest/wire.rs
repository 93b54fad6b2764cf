//! Two guests on a virtual wire: one serves, the other follows. Time passes in them as it does on the
//! host, so what they measure is noisy; that they find each other and stay together is the claim.

use std::{process::Command, time::Duration};

use bpf_tests::{
    agent::{Agent, START, binary, field},
    children::Running,
    links::output,
    median,
};
use libtest_mimic::Trial;
use serde_json::json;

use crate::{report::figure, trial};

/// The first card that a kernel finds.
const CARD: &str = "eth0";
/// Both guests share the host's processors with others.
const PATIENCE: Duration = Duration::from_secs(120);
const SAMPLES: usize = 64;

pub(crate) fn server() -> Vec<Trial> {
    vec![trial("wire::agent_serves_until_the_other_guest_is_satisfied", serve)]
}

pub(crate) fn client() -> Vec<Trial> {
    vec![trial("wire::agent_follows_the_agent_in_another_guest", follow)]
}

fn bring_up(address: &str) {
    output(Command::new("ip").args(["address", "add", address, "dev", CARD]));
    output(Command::new("ip").args(["link", "set", CARD, "up"]));
}

fn start(arguments: &[&str]) -> Agent {
    let mut command = Command::new(binary());
    command.arg("--json").args(arguments);
    Agent::from_running(Running::start(format!("agent {}", arguments[0]), &mut command))
}

/// Serves until the host ends the guest, which it does when the other one has ended.
fn serve() {
    bring_up("192.0.2.1/24");
    let often = ["--log-sync-interval=-3", "--log-min-delay-req-interval=-3"];
    let mut agent = start(&["serve", "-i", CARD, often[0], often[1]]);
    let status = agent.wait(10 * PATIENCE);
    panic!("the agent ended: {status}\n{}", agent.last_words());
}

fn follow() {
    bring_up("192.0.2.2/24");
    let mut agent = start(&["run", "-i", CARD, "--clock", "virtual"]);
    agent.wait_for_state(0, 3 * START, "time_receiver");
    let samples = agent.wait_for_samples(0, PATIENCE, SAMPLES);
    let summary = agent.finish();
    let last = &samples[SAMPLES / 2..];
    let offsets = field(last, "raw_offset_ns");
    let delay = median(field(last, "delay_ns"));
    let deviation = median(offsets.iter().map(|offset| offset.abs()).collect());
    figure(
        "two_guests",
        json!({"samples": samples.len(), "median_abs_offset_ns": deviation,
            "median_delay_ns": delay, "lost": summary["lost"], "sources": summary["sources"]}),
    );
    assert!(delay > 0, "{delay}");
    assert!(deviation < 20_000_000, "{deviation} ns away from the grandmaster");
}
