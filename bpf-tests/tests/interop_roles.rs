//! Clocks that take either role beside linuxptp: a boundary clock between its grandmaster and its client, four in a
//! chain, and who takes over from whom. All clocks of one machine are one clock, so that the true offset of the
//! last client is zero. Needs root.

use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use bpf_tests::{
    agent::Agent,
    alone,
    links::{Star, Wire},
    median, need,
    ptp4l::Ptp4l,
};
use ptp_agent::lab::netns::{Namespace, veth};

const PATIENCE: Duration = Duration::from_secs(20);
/// How far the median of |offset| may be from the truth on a busy machine.
const TRUE: i64 = 100_000;
/// Four Announce and eight Sync a second, so that nothing takes long.
const RATES: &str = "logAnnounceInterval -2\nlogSyncInterval -3\nlogMinDelayReqInterval -3\n";
const OWN_RATES: [&str; 3] =
    ["--log-announce-interval=-2", "--log-sync-interval=-3", "--log-min-delay-req-interval=-3"];

fn auto<'a>(interfaces: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = vec!["run", "--role", "auto", "-i"];
    arguments.extend(interfaces);
    arguments.extend(OWN_RATES);
    arguments.extend(more);
    arguments
}

/// Waits until the last client has measured, and returns the median of its |offset|.
fn measured(client: &Ptp4l) -> i64 {
    let mark = client.mark();
    let mut count = 0;
    client.wait_for(mark, PATIENCE, "3 measurements", |line| {
        count += usize::from(line.text.contains("master offset"));
        (count >= 3).then_some(())
    });
    let offsets = client.offsets();
    median(offsets[offsets.len() - 3..].iter().map(|offset| offset.abs()).collect())
}

/// `count` boundary clocks between a grandmaster and a client, each with a wire to the next: `down1` of the first,
/// `up1` of the second, and so on.
fn chain(count: u8) -> Result<Vec<Namespace>, String> {
    let needed = |error: ptp_agent::lab::netns::NetnsError| error.to_string();
    let mut nodes = Vec::new();
    for _ in 0..count + 2 {
        nodes.push(Namespace::new().map_err(needed)?);
    }
    for (n, pair) in (1..).zip(nodes.windows(2)) {
        let (down, up) = (format!("down{n}"), format!("up{n}"));
        veth(&pair[0], &down, &pair[1], &up).map_err(needed)?;
        for (node, interface, host) in [(&pair[0], down, 1), (&pair[1], up, 2)] {
            let address = Ipv4Addr::new(10, 77, n, host);
            node.add_address(&interface, address.into(), 24).map_err(needed)?;
        }
    }
    Ok(nodes)
}

/// ptp4l's client behind so many boundary clocks of ours.
fn client_follows_through(count: u8) {
    let _machine = alone();
    let nodes = need!(chain(count));
    let (first, last) = (&nodes[0], nodes.last().unwrap());
    let options = [RATES, "clockClass 6\n"];
    let _grandmaster = need!(Ptp4l::grandmaster(first, &["down1"], &options));
    let clocks: Vec<Agent> = (1..=count)
        .map(|n| {
            let (up, down) = (format!("up{n}"), format!("down{}", n + 1));
            Agent::start_only(&nodes[usize::from(n)], &auto(&[&up, &down], &[]))
        })
        .collect();
    let client = ["slaveOnly 1\nsummary_interval -4\nfreq_est_interval 0\n", RATES];
    let up = format!("up{}", count + 1);
    let client = need!(Ptp4l::start(last, &[up.as_str()], &client));
    for clock in &clocks {
        clock.wait_for(0, PATIENCE, "following on one port", |line| {
            (line.text.contains("interface=\"up") && line.text.contains("to=\"time_receiver\""))
                .then_some(())
        });
    }
    let error = measured(&client);
    println!("behind {count} boundary clocks: median |offset| {error} ns");
    assert!(error < TRUE, "{error} ns");
}

#[test]
fn a_client_follows_through_a_boundary_clock() {
    client_follows_through(1);
}

#[test]
fn a_client_follows_through_a_chain_of_four() {
    client_follows_through(4);
}

#[test]
fn an_agent_takes_over_from_a_killed_grandmaster_without_a_step_and_gives_way_to_a_better_one() {
    let _machine = alone();
    let star = need!(Star::new(3));
    let [first, second, third] = &star.leaves[..] else { unreachable!() };
    let mut grandmaster = need!(Ptp4l::grandmaster(first, &["eth0"], &[RATES]));
    let agent = Agent::start_only(second, &auto(&["eth0"], &["--priority1", "120"]));
    agent.wait_for_state(0, PATIENCE, "time_receiver");
    let client = ["slaveOnly 1\nsummary_interval -4\nfreq_est_interval 0\n", RATES];
    let client = need!(Ptp4l::start(third, &["eth0"], &client));
    client.wait_for_text(0, PATIENCE, "UNCALIBRATED");
    let (mark, killed) = (agent.mark(), Instant::now());
    grandmaster.kill();
    agent.wait_for_state(mark, PATIENCE, "time_transmitter");
    println!("serves after {:.2?}", killed.elapsed());
    let mark = client.mark();
    client.wait_for_text(mark.saturating_sub(3), PATIENCE, "selected best master clock");
    let error = measured(&client);
    assert!(error < TRUE, "{error} ns behind the agent");
    let mark = agent.mark();
    let _back = need!(Ptp4l::grandmaster(first, &["eth0"], &[RATES]));
    agent.wait_for_state(mark, PATIENCE, "time_receiver");
    assert!(
        !agent
            .lines()
            .iter()
            .any(|line| line.text.contains("clock stepped") && line.text.contains("by_ns=-")),
        "{}",
        agent.last_words()
    );
}

#[test]
fn a_server_that_contends_is_silent_beside_a_better_one() {
    let _machine = alone();
    let wire = need!(Wire::new());
    let arguments = [
        "serve",
        "--contend",
        "-i",
        "ptp0",
        "--log-announce-interval=-2",
        "--log-sync-interval=-3",
    ];
    let agent = Agent::start(&wire.client, &arguments);
    agent.wait_for_state(0, PATIENCE, "time_transmitter");
    let mark = agent.mark();
    let mut better = need!(Ptp4l::grandmaster(&wire.grandmaster, &["gm0"], &[RATES]));
    agent.wait_for_state(mark, PATIENCE, "passive");
    let mark = agent.mark();
    better.kill();
    agent.wait_for_state(mark, PATIENCE, "time_transmitter");
}
