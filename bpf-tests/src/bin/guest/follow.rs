//! The agent as its user runs it follows ptp4l in another namespace of the guest, over each transport.
//! Both ends read one clock, so the true offset is zero.

use std::time::Duration;

use bpf_tests::{
    agent::{Agent, field},
    links::Wire,
    median,
    ptp4l::{Ptp4l, TRANSPORTS},
};
use libtest_mimic::Trial;
use nix::{
    sys::time::TimeSpec,
    time::{ClockId, clock_settime},
};
use serde_json::json;

use crate::{
    cards::LATER_S,
    report::{fact, figure},
    trial,
};

const PATIENCE: Duration = Duration::from_secs(60);
/// Samples that are looked at after the first ones.
const SAMPLES: usize = 200;

pub(crate) fn trials() -> Vec<Trial> {
    TRANSPORTS
        .into_iter()
        .map(|(agent, ptp4l)| {
            trial(format!("follow::agent_follows_ptp4l_over_{agent}"), move || {
                follow(agent, ptp4l);
            })
        })
        .collect()
}

fn follow(transport: &str, in_ptp4l: &str) {
    // The guest's clock starts before the agent was built, which is no time to follow.
    clock_settime(ClockId::CLOCK_REALTIME, TimeSpec::new(LATER_S, 0)).expect("a guest's clock");
    let wire = Wire::new().expect("a guest has namespaces and veth");
    let network = format!("network_transport {in_ptp4l}");
    let _grandmaster = Ptp4l::grandmaster(&wire.grandmaster, &["gm0"], &[&network])
        .expect("ptp4l is in the image");
    let arguments = ["run", "-i", "ptp0", "--clock", "virtual", "--transport", transport];
    let mut agent = Agent::start(&wire.client, &arguments);
    let samples = agent.wait_for_samples(0, PATIENCE, SAMPLES);
    let summary = agent.finish();
    let last = &samples[SAMPLES / 2..];
    let offset = median(field(last, "raw_offset_ns").iter().map(|value| value.abs()).collect());
    let delay = median(field(last, "delay_ns"));
    let name = |key: &str| last[last.len() - 1][key].as_str().unwrap_or("none").to_owned();
    let (rx, tx) = (name("rx_source"), name("tx_source"));
    figure(
        &format!("follow_{transport}"),
        json!({"samples": samples.len(), "median_abs_offset_ns": offset, "median_delay_ns": delay,
            "rx_source": rx, "tx_source": tx, "summary": summary}),
    );
    fact(&format!("follows_{transport}"), "yes");
    assert!(offset < 1_000_000, "{offset} ns away from a clock that is the same");
}
