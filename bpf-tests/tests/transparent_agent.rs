//! Claims about `ptp-agent transparent` as its user runs it: bridges whose ports come and go, messages that
//! are held back and sent again, other daemons that know nothing of it, and what is left when it ends.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use bpf_tests::{
    agent::{Agent, START, http_get, run_to_end},
    forge::{Party, port},
    hooks,
    links::{Star, ip, output},
    need,
    objects::kernel_programs,
    ptp4l::{CLIENT, Ptp4l},
    transparent::{Carrier, PATIENCE, Side, correction_ns, follow_up, sync, udp_sum},
};
use nix::sys::signal::Signal;
use ptp_agent::lab::netns::{Namespace, veth};
use serde_json::Value;

const BRIDGE: [&str; 6] =
    ["transparent", "--bridge", "switch", "--follow", "none", "--status-socket"];

fn transparent(switch: &Namespace) -> Agent {
    let agent = Agent::start_only(switch, &[&BRIDGE[..], &["none"]].concat());
    agent.wait_for_text(0, START, ": transparent ports=");
    agent
}

fn star(count: u8) -> Result<Star, String> {
    kernel_programs()?;
    Star::new(count)
}

/// What the summary says of a port's messages.
fn messages<'a>(summary: &'a Value, interface: &str) -> &'a Value {
    let ports = summary["ports"].as_array().unwrap();
    let port = ports.iter().find(|port| port["interface"] == interface);
    &port.unwrap_or_else(|| panic!("{summary}"))["messages"]
}

fn shape(switch: &Namespace, port: &str, how: &str) {
    let shaper = format!("qdisc replace dev {port} root tbf {how} burst 1540 limit 64k");
    output(switch.command("tc").args(shaper.split_whitespace()));
}

/// Waits until no program hangs on an interface.
fn await_none(switch: &Namespace, interface: &str) {
    let deadline = Instant::now() + PATIENCE;
    // A kernel without TCX has none there.
    while let Ok(names) = hooks::tcx(switch, interface)
        && !names.is_empty()
    {
        assert!(Instant::now() < deadline, "{interface}: {names:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(hooks::clsact(switch, interface).filters, 0);
}

#[test]
fn follow_up_that_was_held_comes_corrected_and_whole() {
    let star = need!(star(2));
    shape(&star.switch, "port2", "rate 80kbit");
    let mut agent = transparent(&star.switch);
    let [a, b] = [0, 1].map(|at| Side::of(&star.leaves[at]));
    for (number, carrier) in (1..).zip(Carrier::ALL) {
        let (event, general) = (sync(port(1), number), follow_up(port(1), number, 0));
        a.send(&[&[0xff; 6], &[2, 0, 0, 0, 0, 9, 0x88, 0xb5][..], &[0; 1_000]].concat());
        a.send(&[&[0xff; 6], &[2, 0, 0, 0, 0, 9, 0x88, 0xb5][..], &[0; 1_000]].concat());
        a.send(&carrier.frame(&event));
        a.send(&carrier.frame(&general));
        assert_eq!(b.hear(&event).0, event, "{carrier:?}");
        let (heard, frame) = b.hear(&general);
        assert!(correction_ns(&heard) > 30_000_000, "{carrier:?}: {}", correction_ns(&heard));
        assert_eq!(heard[16..], general[16..], "{carrier:?}");
        assert!(udp_sum(&frame).is_none_or(|sum| sum == 0xffff), "{carrier:?}");
    }
    let summary = agent.finish();
    assert_eq!(messages(&summary, "port2")["follow_up"]["corrected_late"], 4, "{summary}");
}

#[test]
fn follow_up_that_was_held_waits_in_no_queue_again() {
    let star = need!(star(2));
    shape(&star.switch, "port2", "rate 80kbit");
    let _agent = transparent(&star.switch);
    let [a, b] = [0, 1].map(|at| Side::of(&star.leaves[at]));
    let stuffing = [&[0xff; 6], &[2, 0, 0, 0, 0, 9, 0x88, 0xb5][..], &[0; 1_000]].concat();
    let (event, general) = (sync(port(1), 1), follow_up(port(1), 1, 0));
    a.send(&stuffing);
    a.send(&stuffing);
    a.send(&Carrier::Ethernet.frame(&event));
    a.send(&Carrier::Ethernet.frame(&general));
    // All of this is in front of it, and the next Sync is behind that.
    a.send(&stuffing);
    a.send(&stuffing);
    let next = sync(port(1), 2);
    a.send(&Carrier::Ethernet.frame(&next));
    b.hear(&event);
    // The first bytes of a message that is corrected are as they were.
    let (heard, _) = b.hear_type_of([&general, &next]);
    assert_eq!(heard[0] & 0x0f, general[0] & 0x0f, "the Follow_Up comes before the next Sync");
    assert!(correction_ns(&heard) > 30_000_000);
}

#[test]
fn checksums_that_were_left_to_the_hardware_are_right_in_the_end() {
    let star = need!(star(2));
    let mut agent = transparent(&star.switch);
    let [a, b] = [1, 2].map(|number| {
        Party::new(&star.leaves[usize::from(number) - 1], [192, 0, 2, number].into())
    });
    // Sockets check what they receive. Without a queue, then held behind one.
    for number in 1..3 {
        let (event, general) = (sync(port(1), number), follow_up(port(1), number, 0));
        if number == 2 {
            shape(&star.switch, "port2", "rate 80kbit");
            let side = Side::of(&star.leaves[0]);
            side.send(&[&[0xff; 6], &[2, 0, 0, 0, 0, 9, 0x88, 0xb5][..], &[0; 1_400]].concat());
            side.send(&[&[0xff; 6], &[2, 0, 0, 0, 0, 9, 0x88, 0xb5][..], &[0; 1_400]].concat());
        }
        a.event(&event);
        if number == 1 {
            b.hear_event(PATIENCE).expect("the Sync arrives");
        }
        a.general(&general);
        let heard = b.hear_general(PATIENCE).expect("the Follow_Up arrives");
        assert!(correction_ns(&heard) > if number == 1 { 0 } else { 30_000_000 });
    }
    let summary = agent.finish();
    assert_eq!(messages(&summary, "port2")["follow_up"]["corrected_late"], 1, "{summary}");
}

#[test]
fn port_that_joins_the_bridge_later_is_one_and_one_that_leaves_is_none() {
    let star = need!(star(2));
    let late = Namespace::new().unwrap();
    veth(&late, "eth0", &star.switch, "late").unwrap();
    let agent = transparent(&star.switch);
    let mark = agent.mark();
    ip(&star.switch, "link set late master switch");
    agent.wait_for(mark, PATIENCE, "the port", |line| {
        (line.text.contains("correcting") && line.text.contains("port=\"late\"")).then_some(())
    });
    let [a, c] = [&star.leaves[0], &late].map(Side::of);
    let (event, general) = (sync(port(1), 1), follow_up(port(1), 1, 0));
    a.send(&Carrier::Ethernet.frame(&event));
    c.hear(&event);
    a.send(&Carrier::Ethernet.frame(&general));
    assert!(correction_ns(&c.hear(&general).0) > 0);
    let mark = agent.mark();
    ip(&star.switch, "link set late nomaster");
    agent.wait_for_text(mark, PATIENCE, "is no port any more");
    await_none(&star.switch, "late");
}

#[test]
fn nothing_is_left_however_it_ends() {
    let star = need!(star(2));
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let mut agent = transparent(&star.switch);
        agent.signal(signal);
        agent.wait(PATIENCE);
        for port in ["port1", "port2"] {
            await_none(&star.switch, port);
        }
        let [a, b] = [0, 1].map(|at| Side::of(&star.leaves[at]));
        let (event, general) = (sync(port(1), 1), follow_up(port(1), 1, 0));
        a.send(&Carrier::Ethernet.frame(&event));
        b.hear(&event);
        a.send(&Carrier::Ethernet.frame(&general));
        assert_eq!(b.hear(&general).0, general, "{signal:?}");
    }
}

#[test]
fn second_one_on_the_same_ports_is_refused() {
    let star = need!(star(2));
    let _first = transparent(&star.switch);
    let second = |arguments: &[&str]| {
        let mut command: Command = star.switch.command(bpf_tests::agent::binary());
        command.args(arguments);
        let (status, _, log) = run_to_end(command);
        (status.code(), log)
    };
    let (code, log) = second(&[&BRIDGE[..], &["none"]].concat());
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("is a port of another ptp-agent transparent already"), "{log}");
    let (code, log) = second(&["transparent", "--bridge", "nothing0"]);
    assert_eq!(code, Some(3), "{log}");
    assert!(log.contains("interface nothing0 does not exist"), "{log}");
    let (code, log) = second(&["transparent", "-i", "port1"]);
    assert_eq!(code, Some(2), "{log}");
    assert!(log.contains("two ports or more"), "{log}");
}

#[test]
fn client_and_grandmaster_that_know_nothing_of_it_profit_and_metrics_tell() {
    let star = need!(star(2));
    let address = "127.0.0.1:9319";
    let arguments = [&BRIDGE[..], &["none", "--metrics-address", address]].concat();
    let mut agent = Agent::start_only(&star.switch, &arguments);
    agent.wait_for_text(0, START, ": transparent ports=");
    let l2 = "network_transport L2";
    let _grandmaster = need!(Ptp4l::grandmaster(&star.leaves[0], &["eth0"], &[l2]));
    let client = need!(Ptp4l::start(&star.leaves[1], &["eth0"], &[CLIENT, l2]));
    client.wait_for(0, Duration::from_secs(30), "offset", |line| {
        line.text.contains("master offset").then_some(())
    });
    // The figures are fetched once a second.
    let deadline = Instant::now() + PATIENCE;
    let text = loop {
        let text = http_get(&star.switch, address.parse().unwrap(), "/metrics");
        let is_there = [
            r#"ptp_corrected_total{interface="port2",type="follow_up",outcome="corrected"}"#,
            r#"ptp_corrected_total{interface="port2",type="delay_resp",outcome="corrected"}"#,
            r#"ptp_residence_seconds_count{interface="port2",direction="downstream"}"#,
            r#"ptp_residence_seconds_count{interface="port1",direction="upstream"}"#,
        ];
        if is_there.iter().all(|series| text.contains(series)) {
            break text;
        }
        assert!(Instant::now() < deadline, "{text}");
        std::thread::sleep(Duration::from_millis(200));
    };
    assert!(text.contains(r#"ptp_alarm{alarm="double_correction"} 0"#), "{text}");
    let summary = agent.finish();
    assert!(messages(&summary, "port2")["sync"]["timed"].as_u64() > Some(0), "{summary}");
}

#[test]
fn peer_to_peer_with_an_agent_that_measures_the_links() {
    peer_to_peer(&[], &[]);
}

#[test]
fn peer_to_peer_where_everything_is_link_local_as_in_802_1as() {
    peer_to_peer(&["--link-local", "relay"], &["ptp_dst_mac 01:80:C2:00:00:0E"]);
}

/// ptp4l at both ends with more lines of configuration, and a clock with more arguments in between.
fn peer_to_peer(more: &[&str], lines: &[&str]) {
    let star = need!(star(2));
    let sockets = tempfile::tempdir().unwrap();
    let socket = sockets.path().join("links").display().to_string();
    let measure = [
        "run",
        "-i",
        "port1",
        "port2",
        "--transport",
        "l2",
        "--delay",
        "p2p",
        "--clock",
        "none",
        "--status-socket",
        &socket,
    ];
    let _links = Agent::start(&star.switch, &measure);
    let address = "127.0.0.1:9320";
    let usual = [
        "transparent",
        "--bridge",
        "switch",
        "--delay",
        "p2p",
        "--follow",
        &socket,
        "--status-socket",
        "none",
        "--metrics-address",
        address,
    ];
    let mut agent = Agent::start_only(&star.switch, &[&usual[..], more].concat());
    agent.wait_for_text(0, START, ": transparent ports=");
    let options = [&["network_transport L2", "delay_mechanism P2P"], lines].concat();
    let _grandmaster = need!(Ptp4l::grandmaster(&star.leaves[0], &["eth0"], &options));
    let options = [&[CLIENT], &options[..]].concat();
    let client = need!(Ptp4l::start(&star.leaves[1], &["eth0"], &options));
    // It follows only once its own requests are answered.
    client.wait_for(0, Duration::from_secs(30), "offset", |line| {
        line.text.contains("master offset").then_some(())
    });
    let deadline = Instant::now() + PATIENCE;
    loop {
        let status: Value =
            serde_json::from_str(&http_get(&star.switch, address.parse().unwrap(), "/status"))
                .unwrap();
        let ports = status["ports"].as_array().unwrap();
        if ports.len() == 2 && ports.iter().all(|port| port["link_delay_ns"].is_u64()) {
            break;
        }
        assert!(Instant::now() < deadline, "{status}");
        std::thread::sleep(Duration::from_millis(200));
    }
    let summary = agent.finish();
    let corrected = &messages(&summary, "port2")["follow_up"]["corrected"];
    assert!(corrected.as_u64() > Some(0), "{summary}");
}

#[test]
fn bridge_that_forwards_peer_delay_is_told_with_what_to_do() {
    let star = need!(star(2));
    let agent = Agent::start_only(
        &star.switch,
        &[&BRIDGE[..], &["none", "--delay", "p2p", "--link-local", "relay"]].concat(),
    );
    agent.wait_for_text(0, START, ": transparent ports=");
    let mark = agent.mark();
    ip(&star.switch, "link set switch type bridge group_fwd_mask 0x4000");
    agent.wait_for_text(mark, PATIENCE, "group_fwd_mask 0");
}

#[test]
fn doctor_tells_what_a_transparent_clock_would_gain_and_changes_nothing() {
    let star = need!(star(2));
    let [a, b] = [0, 1].map(|at| Side::of(&star.leaves[at]));
    let mut command = star.switch.command(bpf_tests::agent::binary());
    command.args(["doctor", "--bridge", "switch", "--measure", "2", "--json"]);
    let doctor = std::thread::spawn(move || run_to_end(command));
    let mut number = 0;
    while !doctor.is_finished() {
        number += 1;
        let (event, general) = (sync(port(1), number), follow_up(port(1), number, 0));
        a.send(&Carrier::Ethernet.frame(&event));
        a.send(&Carrier::Ethernet.frame(&general));
        assert_eq!(b.hear(&general).0, general, "nothing is altered");
        std::thread::sleep(Duration::from_millis(20));
    }
    let (_, out, log) = doctor.join().unwrap();
    let mut lines = out.lines().filter(|line| line.contains("transparent_gain"));
    let gain = lines.find(|line| line.contains("\"port2\""));
    let gain = gain.unwrap_or_else(|| panic!("{out}\n{log}"));
    assert!(gain.contains("downstream"), "{gain}");
}
