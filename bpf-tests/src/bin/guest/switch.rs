//! Three guests: two that know nothing of the agent, ptp4l as grandmaster in one and as client in the other, and
//! between them one that forwards by a bridge, where the port to the client is shaped and loaded. Without a
//! transparent clock there, then with one. The guests have one counter of the host for their clocks, so that they
//! run alike and differ by a constant, which an idle bridge shows before and afterwards.

use std::{
    net::{Ipv4Addr, UdpSocket},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use bpf_tests::{
    agent::{Agent, START, binary},
    children::Running,
    forge::port,
    links::output,
    load::Load,
    median,
    ptp4l::{CLIENT, Ptp4l},
    transparent::{correction_ns, delay_req, follow_up, sync},
};
use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use ptp_agent::lab::netns::{Namespace, veth};
use ptp_common::classify::{PORT_EVENT, PORT_GENERAL};
use serde_json::{Value, json};

use crate::{report::figure, trial};

const GRANDMASTER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const CLIENT_AT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const SWITCH: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 3);
const LOADER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 4);
/// Where switch and client tell each other how far they are.
const TELL: u16 = 9_000;
/// The queue is slow enough that an emulated processor, which is now and then not there for a millisecond, does
/// not matter beside it: bit/s, and the load on it.
const SHAPER: &str = "tbf rate 2mbit burst 2k limit 100k";
const LOAD: f64 = 1.4e6;
/// Of each kind, so long.
const IDLE: Duration = Duration::from_secs(10);
const LOADED: Duration = Duration::from_secs(30);
/// What was sent before does not count any more after so long.
const SETTLED: Duration = Duration::from_secs(2);
/// All guests share the host's processors with others.
const PATIENCE: Duration = Duration::from_secs(120);
/// Of a test of what forwards.
const MESSAGES: u16 = 20;
/// How much smaller the client's error must be at least. It is far more where the host has time.
const SMALLER: i64 = 10;

pub(crate) fn grandmaster() -> Vec<Trial> {
    vec![trial("switch::ptp4l_serves_until_the_others_are_satisfied", serve)]
}

pub(crate) fn switch() -> Vec<Trial> {
    vec![
        trial("switch::bridge_forwards_and_corrects_between_two_guests", forward),
        trial("switch::flowtable_is_told_and_corrected", route),
    ]
}

pub(crate) fn client() -> Vec<Trial> {
    vec![trial("switch::ptp4l_in_a_guest_profits_and_knows_nothing_of_it", follow)]
}

/// The only card in a namespace of its own, with an address.
fn host(address: Ipv4Addr) -> Namespace {
    let namespace = Namespace::new().expect("a guest has namespaces");
    namespace.adopt("eth0").expect("a guest's first card");
    namespace.set_up("eth0").expect("a card");
    namespace.add_address("eth0", address.into(), 24).expect("an address");
    namespace
}

fn serve() {
    let host = host(GRANDMASTER);
    let mut grandmaster = Ptp4l::grandmaster(&host, &["eth0"], &[]).expect("ptp4l");
    let status = grandmaster.wait(10 * PATIENCE);
    panic!("ptp4l ended: {status}\n{}", grandmaster.last_words());
}

/// What happens on the bridge, in the words in which the client is told. What it hears of nothing is between two
/// of them.
const PHASES: [&str; 7] = ["idle", "-", "queue", "-", "corrected", "-", "idle again"];

fn forward() {
    let switch = Namespace::new().expect("a guest has namespaces");
    for card in ["eth0", "eth1"] {
        switch.adopt(card).expect("a guest's card");
        switch.set_up(card).expect("a card");
    }
    let loader = Namespace::new().expect("a guest has namespaces");
    veth(&loader, "eth0", &switch, "load").expect("a pair");
    loader.add_address("eth0", LOADER.into(), 24).expect("an address");
    switch.bridge("br0", &["eth0", "eth1", "load"]).expect("a bridge");
    switch.add_address("br0", SWITCH.into(), 24).expect("an address");
    let socket = switch.run(|| UdpSocket::bind((SWITCH, TELL))).expect("a namespace");
    let socket = socket.expect("a socket");
    socket.set_read_timeout(Some(PATIENCE)).expect("a time");
    let tell = |phase: &str| {
        let _ = socket.send_to(phase.as_bytes(), (CLIENT_AT, TELL));
    };
    // The client is ready.
    socket.recv(&mut [0; 16]).expect("the client says that it follows");
    tell(PHASES[0]);
    thread::sleep(IDLE);
    tell("-");
    let arguments = format!("qdisc replace dev eth1 root {SHAPER}");
    output(switch.command("tc").args(arguments.split_whitespace()));
    let load = Load::start(&loader, CLIENT_AT, LOAD).expect("a way to the client");
    let mut clock = None;
    for phase in ["queue", "corrected"] {
        if phase == "corrected" {
            let mut command: Command = switch.command(binary());
            command.args(["--json", "transparent", "--bridge", "br0", "--follow", "none"]);
            let agent = Agent::from_running(Running::start("agent transparent", &mut command));
            agent.wait_for_text(0, 3 * START, ": transparent ports=");
            clock = Some(agent);
        }
        thread::sleep(SETTLED);
        tell(phase);
        thread::sleep(LOADED);
        tell("-");
    }
    drop(load);
    output(switch.command("tc").args(["qdisc", "del", "dev", "eth1", "root"]));
    let mut agent = clock.expect("it was started");
    agent.signal(Signal::SIGTERM);
    let summary = agent.finish();
    thread::sleep(SETTLED);
    tell(PHASES[6]);
    thread::sleep(IDLE);
    tell("end");
    figure("guests_behind_a_switch_ports", summary["ports"].clone());
    // The card is this guest's as long as it runs.
    thread::sleep(SETTLED);
}

fn follow() {
    let host = host(CLIENT_AT);
    let socket = host.run(|| UdpSocket::bind((CLIENT_AT, TELL))).expect("a namespace");
    let socket = socket.expect("a socket");
    let client = Ptp4l::start(&host, &["eth0"], &[CLIENT]).expect("ptp4l");
    client
        .wait_for(0, PATIENCE, "offset", |line| line.text.contains("master offset").then_some(()));
    socket.set_read_timeout(Some(Duration::from_millis(500))).expect("a time");
    let (mut phase, mut begun) = ("-".to_owned(), client.offsets().len());
    let mut seen: Vec<(String, Vec<i64>)> = Vec::new();
    let deadline = Instant::now() + PATIENCE + 2 * IDLE + 2 * LOADED;
    while phase != "end" {
        assert!(Instant::now() < deadline, "the switch says nothing more; {seen:?}");
        let mut word = [0; 32];
        let Ok(length) = socket.recv(&mut word) else {
            if seen.is_empty() && phase == "-" {
                let _ = socket.send_to(b"ready", (SWITCH, TELL));
            }
            continue;
        };
        let offsets = client.offsets();
        seen.push((phase, offsets[begun..].to_vec()));
        (phase, begun) = (String::from_utf8_lossy(&word[..length]).into_owned(), offsets.len());
    }
    let of = |phase: &str| {
        let found = seen.iter().find(|(name, _)| name == phase);
        found.map(|(_, offsets)| offsets.clone()).unwrap_or_default()
    };
    // The clocks' difference, as an idle bridge shows it.
    let idle = ["idle", "idle again"].map(|phase| median(of(phase)));
    let constant = idle[0].midpoint(idle[1]);
    let figures = ["idle", "queue", "corrected", "idle again"].map(|phase| {
        let mut errors: Vec<i64> = of(phase).iter().map(|at| (at - constant).abs()).collect();
        errors.sort_unstable();
        let at = |share: usize| errors.get(errors.len() * share / 100).copied().unwrap_or(0);
        let most = errors.last().copied().unwrap_or(0);
        (at(50), json!({"n": errors.len(), "p50_ns": at(50), "p99_ns": at(99), "max_ns": most}))
    });
    let [_, queue, corrected, _] = &figures;
    let all = figures.iter().map(|(_, figure)| figure.clone()).collect::<Vec<Value>>();
    figure(
        "guests_behind_a_switch",
        json!({"idle": all[0], "queue": all[1], "corrected": all[2], "idle_again": all[3],
            "drifted_ns": idle[1] - idle[0]}),
    );
    assert!(queue.0 > 0 && corrected.0 > 0, "{all:?}");
    assert!(corrected.0 * SMALLER <= queue.0, "{all:?}");
}

/// A flowtable of netfilter: from the third message on, a connection passes neither routing nor the firewall. The
/// kernel of a developer's machine may have none, so this is a guest's test.
fn route() {
    const FLOWS: &str = "table inet f {
        flowtable ft { hook ingress priority 0; devices = { port1, port2 }; }
        chain forward { type filter hook forward priority 0; udp dport { 319, 320 } counter flow add @ft; }
    }";
    let switch = Namespace::new().expect("a guest has namespaces");
    let ends = [1_u8, 2].map(|number| {
        let end = Namespace::new().expect("a guest has namespaces");
        veth(&end, "eth0", &switch, &format!("port{number}")).expect("a pair");
        end.add_address("eth0", Ipv4Addr::new(10, 0, number, 2).into(), 24).expect("an address");
        let gateway = Ipv4Addr::new(10, 0, number, 1);
        switch.add_address(&format!("port{number}"), gateway.into(), 24).expect("an address");
        output(end.command("ip").args(["route", "add", "default", "via", &gateway.to_string()]));
        let open = |port| {
            let socket = UdpSocket::bind(("0.0.0.0", port)).expect("a port");
            let there = Ipv4Addr::new(10, 0, 3 - number, 2);
            socket.connect((there, port)).expect("a route");
            socket.set_read_timeout(Some(START)).expect("a time");
            socket
        };
        end.run(|| (open(PORT_EVENT), open(PORT_GENERAL))).expect("a namespace")
    });
    switch
        .run(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "1"))
        .expect("a namespace")
        .expect("it forwards");
    output(switch.command("nft").arg(FLOWS));
    let mut command: Command = switch.command(binary());
    command.args(["--json", "transparent", "-i", "port1", "port2", "--follow", "none"]);
    command.args(["--status-socket", "none"]);
    let mut agent = Agent::from_running(Running::start("agent transparent", &mut command));
    agent.wait_for_text(0, 3 * START, ": transparent ports=");
    agent.wait_for_text(0, START, "a flowtable of netfilter forwards from here");
    let [(event, general), (far_event, far_general)] = &ends;
    for number in 0..MESSAGES {
        let (sync, after) = (sync(port(1), number), follow_up(port(1), number, 0));
        let mut heard = [0; 128];
        event.send(&sync).expect("a way");
        let length = far_event.recv(&mut heard).expect("the Sync arrives");
        assert_eq!(heard[..length], sync);
        general.send(&after).expect("a way");
        let length = far_general.recv(&mut heard).expect("the Follow_Up arrives");
        assert!(correction_ns(&heard[..length]) > 0, "{number}");
        // A flow is one that is answered.
        far_event.send(&delay_req(port(2), number)).expect("a way");
        event.recv(&mut heard).expect("the request arrives");
        far_general.send(&delay_req(port(2), number)).expect("a way");
        general.recv(&mut heard).expect("a message");
    }
    let listed = output(switch.command("nft").args(["list", "chain", "inet", "f", "forward"]));
    let passed = listed.split("packets ").nth(1).and_then(|rest| rest.split(' ').next());
    let passed: u16 = passed.and_then(|it| it.parse().ok()).unwrap_or(u16::MAX);
    assert!(passed < 2 * MESSAGES, "nothing has passed by the flowtable: {listed}");
    agent.signal(Signal::SIGTERM);
    let summary = agent.finish();
    figure(
        "flowtable",
        json!({"through_the_firewall": passed, "of": 4 * MESSAGES,
        "ports": summary["ports"]}),
    );
}
