//! What an agent has to put up with: messages that no honest peer sends, interfaces that come and
//! go, missing privileges, ports that others have, a ring that is full, and its own violent end.
//! The grandmaster in these tests is ptp4l where it can stand what happens, else our own. Needs root.

#[path = "interop_faults/start_and_end.rs"]
mod start_and_end;

use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use aya::programs::{SchedClassifier, TcAttachType};
use bpf_tests::{
    agent::{Agent, SERVE, START, binary, field, http_get, run_to_end, series},
    children::Running,
    forge::{Party, announce, message, now, port},
    in_company,
    links::{Star, Wire, ip, output},
    median, need, program,
    ptp4l::Ptp4l,
};
use nix::sys::signal::Signal;
use ptp_agent::lab::netns::Namespace;
use ptp_common::wire::{Body, Flags, Header, MessageType, MessageView, PortIdentity, Timestamp};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(15);
/// How far the median of |offset| may be from the truth (zero: one clock) with other tests beside.
const TRUE: i64 = 100_000;
const METRICS: &str = "127.0.0.1:9319";

fn median_offset(samples: &[Value]) -> i64 {
    median(field(samples, "offset_ns").into_iter().map(i64::abs).collect())
}

/// Waits until an agent is a time receiver, and its samples come and are right. The very first path delay
/// may be one that the machine has held up, and is all that there is until the second.
fn assert_follows(agent: &Agent, mark: usize) {
    agent.wait_for_state(mark, PATIENCE, "time_receiver");
    let deadline = Instant::now() + PATIENCE;
    loop {
        let samples = agent.wait_for_samples(agent.mark(), PATIENCE, 16);
        if median_offset(&samples) < TRUE {
            return;
        }
        assert!(Instant::now() < deadline, "{samples:?}");
    }
}

fn outcomes(namespace: &Namespace) -> String {
    http_get(namespace, METRICS.parse().unwrap(), "/metrics")
}

fn outcome(metrics: &str, interface: &str, name: &str) -> f64 {
    let labels = format!("interface=\"{interface}\",domain=\"0\",outcome=\"{name}\"");
    series(metrics, &format!("ptp_exchanges_total{{{labels}}}")).unwrap_or(0.0)
}

/// The next message of one of these types that somebody sends.
fn overhear(party: &Party, general: bool, kind: MessageType) -> Vec<u8> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < deadline, "no {kind:?}");
        let second = Duration::from_secs(1);
        let heard = if general { party.hear_general(second) } else { party.hear_event(second) };
        if let Some(bytes) = heard
            && MessageView::new(&bytes).is_ok_and(|view| view.message_type() == kind)
        {
            return bytes;
        }
    }
}

#[test]
fn hostile_messages_are_counted_by_cause_and_change_nothing() {
    let _machine = in_company();
    let star = need!(Star::new(3));
    let [grandmaster, client, attacker] = &star.leaves[..] else { unreachable!() };
    // ptp4l as a grandmaster would go to FAULTY at once.
    let mut server = Agent::start(grandmaster, &SERVE);
    // Otherwise what comes in the parent's name from another address is dropped before anything looks at it.
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("agent.toml");
    std::fs::write(&config, "[run]\npin-parent = false\n").unwrap();
    let config = config.to_str().unwrap();
    let arguments = ["run", "-i", "eth0", "--metrics-address", METRICS, "--config", config];
    let mut agent = Agent::start(client, &arguments);
    assert_follows(&agent, 0);
    let party = Party::new(attacker, Ipv4Addr::new(192, 0, 2, 3));

    let sync = overhear(&party, false, MessageType::Sync);
    let follow_up = overhear(&party, true, MessageType::FollowUp);
    let request = overhear(&party, false, MessageType::DelayReq);
    let parent = MessageView::new(&sync).unwrap().header().source_port_identity;
    let own = MessageView::new(&request).unwrap().header().source_port_identity;
    let changed = |bytes: &[u8], at: usize, value: u8| {
        let mut bytes = bytes.to_vec();
        bytes[at] = value;
        bytes
    };
    let from_parent = |body| message(Header::new(parent, 7), body);
    let wrong_time = Timestamp::new(1, 0).unwrap();

    let before = outcomes(client);
    let mark = agent.mark();
    let each = 20;
    for _ in 0..each {
        // Truncated: in the header, in the body, and by its own length.
        party.event(&sync[..20]);
        party.event(&sync[..40]);
        party.event(&changed(&sync, 3, 200));
        // More than any network carries in one piece, and more than PTP has.
        party.event(&vec![0; 3000]);
        party.general(&vec![0xff; 2500]);
        // Other versions.
        party.event(&changed(&sync, 1, 0x01));
        party.event(&changed(&sync, 1, 0x13));
        // A reserved type, and a timestamp with too many nanoseconds.
        party.event(&changed(&sync, 0, 0x05));
        party.general(&changed(&follow_up, 40, 0x7f));
        // Other domains, and another profile.
        party.event(&changed(&sync, 4, 123));
        party.general(&changed(&follow_up, 4, 1));
        party.event(&changed(&sync, 0, 0x10));
        // Our own, come back.
        party.event(&request);
        // Old ones of the parent, again.
        party.event(&sync);
        party.general(&follow_up);
        // From somebody who is not the parent.
        let header = Header { flags: Flags::TWO_STEP, ..Header::new(port(0x66), 9) };
        party.event(&message(header, Body::Sync { origin_timestamp: wrong_time }));
        let body = Body::FollowUp { precise_origin_timestamp: wrong_time };
        party.general(&message(Header::new(port(0x66), 9), body));
        // Answers that were not asked for.
        let receive_timestamp = wrong_time;
        for requesting_port_identity in [own, port(0x77), PortIdentity::ALL] {
            party.general(&from_parent(Body::DelayResp {
                receive_timestamp,
                requesting_port_identity,
            }));
            let request_receipt_timestamp = wrong_time;
            party.peer_event(&from_parent(Body::PdelayResp {
                request_receipt_timestamp,
                requesting_port_identity,
            }));
            let response_origin_timestamp = wrong_time;
            party.peer_general(&from_parent(Body::PdelayRespFollowUp {
                response_origin_timestamp,
                requesting_port_identity,
            }));
        }
        // A better grandmaster, but without a second Announce in time; and ourselves.
        let header = Header::new(own, 3);
        party.general(&message(header, announce(own.clock_identity, 1)));
        // Unicast to nobody, and nothing at all.
        party.event(&[]);
        party.general(&[]);
        thread::sleep(Duration::from_millis(50));
    }
    party.general(&message(Header::new(port(0x66), 1), announce(port(0x66).clock_identity, 1)));

    // Counters are published once a second.
    thread::sleep(Duration::from_millis(1500));
    let after = outcomes(client);
    for (name, least) in [
        ("truncated", 3 * each),
        ("wrong_version", 2 * each),
        ("malformed", 2 * each),
        ("wrong_domain", 2 * each),
        ("wrong_sdo_id", each),
        ("self_sent", 2 * each),
        ("replayed", each),
        ("not_parent", 2 * each),
        ("unmatched_delay_resp", each),
        ("oversized", 2 * each),
    ] {
        let new = outcome(&after, "eth0", name) - outcome(&before, "eth0", name);
        println!("{name}: {new}");
        assert!(new >= f64::from(least), "{name}: {new} of {least}\n{after}");
    }
    let during = agent.samples(mark);
    let seconds = 20.0 * 0.05 + 1.5;
    println!("{} samples meanwhile, median |offset| {} ns", during.len(), median_offset(&during));
    assert!(during.len() as f64 > 12.0 * seconds, "{} samples", during.len());
    assert!(median_offset(&during) < TRUE, "{during:?}");
    for line in &agent.lines()[mark..] {
        for word in ["port state", "following", "servo state", "no grandmaster", "stepped"] {
            assert!(!line.text.contains(word), "{}", line.text);
        }
    }
    println!("run: {}\nserve: {}", agent.finish(), server.finish());
}

#[test]
fn echo_of_everything_and_a_flood_of_noise_leave_a_follower_following() {
    let _machine = in_company();
    let star = need!(Star::new(3));
    let [grandmaster, client, attacker] = &star.leaves[..] else { unreachable!() };
    // ptp4l as a grandmaster would not survive this.
    let mut server = Agent::start(grandmaster, &SERVE);
    let mut agent = Agent::start(client, &["run", "-i", "eth0"]);
    assert_follows(&agent, 0);
    let party = Party::new(attacker, Ipv4Addr::new(192, 0, 2, 3));

    // Everything twice, at once.
    let mark = agent.mark();
    let end = Instant::now() + Duration::from_secs(3);
    while Instant::now() < end {
        if let Some(bytes) = party.hear_event(Duration::from_millis(2)) {
            party.event(&bytes);
        }
        if let Some(bytes) = party.hear_general(Duration::from_millis(2)) {
            party.general(&bytes);
        }
    }
    let echoed = agent.samples(mark);
    println!("echo: {} samples, median |offset| {} ns", echoed.len(), median_offset(&echoed));
    assert!(echoed.len() > 30 && median_offset(&echoed) < TRUE, "{echoed:?}");

    // Noise, as fast as it goes: the first bytes look like PTP, so that it gets far.
    let resident = resident_kib(agent.pid());
    let mut state = 1_u32;
    let end = Instant::now() + Duration::from_secs(2);
    let mut sent = 0;
    while Instant::now() < end {
        let noise: Vec<u8> = (0..state % 160)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            })
            .collect();
        state = state.wrapping_add(1);
        let mut noise = noise;
        if noise.len() > 4 {
            (noise[1], noise[4]) = (0x12, 0);
        }
        party.event(&noise);
        party.general(&noise);
        sent += 2;
    }
    let after = resident_kib(agent.pid());
    println!("{sent} messages of noise; resident {resident} KiB before, {after} KiB after");
    assert!(after < resident + 8 * 1024, "{resident} KiB, then {after} KiB");
    let calm = agent.wait_for_samples(agent.mark(), PATIENCE, 16);
    assert!(median_offset(&calm) < TRUE, "{calm:?}");
    println!("run: {}\nserve: {}", agent.finish(), server.finish());
}

#[test]
fn stamp_of_a_message_is_not_taken_by_its_first_bytes() {
    let _machine = in_company();
    let star = need!(Star::new(3));
    let [grandmaster, client, attacker] = &star.leaves[..] else { unreachable!() };
    let _server = Agent::start(grandmaster, &SERVE);
    let mut agent = Agent::start(client, &["run", "-i", "eth0"]);
    assert_follows(&agent, 0);
    let party = Party::new(attacker, Ipv4Addr::new(192, 0, 2, 3));
    let mark = agent.mark();
    let end = Instant::now() + Duration::from_secs(2);
    while Instant::now() < end {
        // The beginning of every Sync, of every message of version 2, of all.
        for bytes in [&[0x00][..], &[0x00, 0x12], &[0x00, 0x02, 0x00, 0x2c]] {
            party.event(bytes);
        }
        thread::sleep(Duration::from_micros(300));
    }
    let samples = agent.samples(mark);
    let summary = agent.finish();
    println!("{} samples; {summary}", samples.len());
    assert!(samples.len() > 24, "{} samples: {summary}", samples.len());
    assert!(summary["lost"]["missing_rx_stamp"].is_null(), "{summary}");
}

#[test]
fn every_capture_point_can_be_chosen() {
    let _machine = in_company();
    let wire = need!(Wire::new());
    let _ptp4l = need!(Ptp4l::grandmaster(&wire.grandmaster, &["gm0"], &[]));
    for (rx, tx) in [
        ("tc_ingress", "tc_egress"),
        ("xdp_native", "start_xmit"),
        ("xdp_generic", "xmit_done"),
        ("stack", "start_xmit"),
    ] {
        let arguments = ["run", "-i", "ptp0", "--rx-source", rx, "--tx-source", tx];
        let mut agent = Agent::start(&wire.client, &arguments);
        assert_follows(&agent, 0);
        for sample in agent.samples(0) {
            assert_eq!((&sample["rx_source"], &sample["tx_source"]), (&rx.into(), &tx.into()));
        }
        agent.finish();
        let arguments = ["observe", "-i", "ptp0", "--rx-source", rx, "--tx-source", tx];
        let mut observer = Agent::start(&wire.client, &arguments);
        let sample = observer.wait_for_samples(0, PATIENCE, 1).remove(0);
        assert_eq!(sample["rx_source"], rx);
        observer.finish();
    }
}

#[test]
fn drivers_stamp_is_a_transmit_source_over_every_transport_and_not_for_observers() {
    let _machine = in_company();
    let wire = need!(Wire::new());
    for transport in ["udp4", "udp6", "l2"] {
        let mut server =
            Agent::start(&wire.grandmaster, &server_arguments("gm0", &["--transport", transport]));
        let arguments = ["run", "-i", "ptp0", "--transport", transport];
        let arguments = [&arguments[..], &["--tx-source", "driver_software"]].concat();
        let mut agent =
            Agent::start(&wire.client, &[&arguments[..], &["--metrics-address", METRICS]].concat());
        agent.wait_for_state(0, PATIENCE, "time_receiver");
        let samples = agent.wait_for_samples(0, PATIENCE, 16);
        for sample in samples {
            assert_eq!(sample["tx_source"], "driver_software", "{transport}");
        }
        let metrics = outcomes(&wire.client);
        let chosen = metrics.lines().find(|line| {
            line.starts_with("ptp_timestamp_source{") && line.contains("driver_software")
        });
        assert!(chosen.is_some_and(|line| line.ends_with(" 1")), "{metrics}");
        let differences = metrics.lines().any(|line| {
            line.starts_with("ptp_timestamp_difference_seconds_count")
                && line.contains("xmit_done")
                && !line.ends_with(" 0")
        });
        assert!(differences, "{metrics}");
        agent.finish();
        server.finish();
    }
    refused(&wire.client, &["observe", "-i", "ptp0", "--tx-source", "driver_software"], 2);
}

fn server_arguments<'a>(interface: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = SERVE.to_vec();
    arguments[2] = interface;
    arguments.extend(more);
    arguments
}

fn resident_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn second_responder_does_not_change_the_measured_link() {
    let _machine = in_company();
    let star = need!(Star::new(3));
    let [grandmaster, client, attacker] = &star.leaves[..] else { unreachable!() };
    // ptp4l as a grandmaster would go to FAULTY at the first answer to somebody else's request.
    let _server = Agent::start(grandmaster, &SERVE);
    let mut agent = Agent::start(client, &["run", "-i", "eth0", "--delay", "p2p"]);
    assert_follows(&agent, 0);

    let party = Party::new(attacker, Ipv4Addr::new(192, 0, 2, 3));
    let mark = agent.mark();
    let end = Instant::now() + Duration::from_secs(4);
    let mut answered = 0;
    while Instant::now() < end {
        let Some(bytes) = party.hear_event(Duration::from_millis(200)) else { continue };
        let Ok(view) = MessageView::new(&bytes) else { continue };
        let asked = view.header();
        if view.message_type() != MessageType::PdelayReq {
            continue;
        }
        // Both of one step and of two, from a port of its own: a second of delay.
        for (flags, byte) in [(Flags(0), 0x66), (Flags::TWO_STEP, 0x67)] {
            let header = Header { flags, ..Header::new(port(byte), asked.sequence_id) };
            let requesting_port_identity = asked.source_port_identity;
            let request_receipt_timestamp = now();
            party.peer_event(&message(
                header,
                Body::PdelayResp { request_receipt_timestamp, requesting_port_identity },
            ));
            let response_origin_timestamp = Timestamp::new(1, 0).unwrap();
            party.peer_general(&message(
                header,
                Body::PdelayRespFollowUp { response_origin_timestamp, requesting_port_identity },
            ));
        }
        answered += 1;
    }
    let samples = agent.samples(mark);
    let delay = field(&samples, "delay_ns").into_iter().max().unwrap_or(0);
    println!("{answered} forged answers; largest delay {delay} ns");
    assert!(answered > 2);
    assert!(samples.len() > 40 && median_offset(&samples) < TRUE, "{} samples", samples.len());
    assert!(delay < 1_000_000, "{delay} ns");
    let summary = agent.finish();
    println!("{summary}");
    let lost = &summary["lost"];
    let refused: u64 = ["multiple_responders", "unmatched_pdelay_resp"]
        .iter()
        .filter_map(|cause| lost[cause].as_u64())
        .sum();
    assert!(refused >= answered, "{summary}");
}

/// Runs the agent in a namespace, expects an exit code, and returns what it said.
fn refused(namespace: &Namespace, arguments: &[&str], code: i32) -> String {
    let mut command = namespace.command(binary());
    command.args(arguments);
    let (status, _, log) = run_to_end(command);
    assert_eq!(status.code(), Some(code), "{arguments:?}: {log}");
    assert!(log.contains("ptp-agent: "), "{log}");
    // One message, not a chain of them, and no panic.
    assert!(!log.contains("panicked") && log.matches("ptp-agent: ").count() == 1, "{log}");
    log
}
