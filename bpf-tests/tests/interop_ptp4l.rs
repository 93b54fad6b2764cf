//! The agent against ptp4l of the distribution, in namespaces: each as grandmaster and as client of
//! the other, over all transports, on plain, tagged and bridged interfaces. All namespaces share one
//! clock, so the true offset between any two of them is zero. Needs root.

use std::{
    io::Write,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use bpf_tests::{
    agent::{Agent, binary, field, http_get, run_to_end, series},
    alone,
    children::Running,
    forge::OneStep,
    in_company,
    links::{Fork, Star, Wire, ip, tagged},
    median, need, program,
    ptp4l::{CLIENT, Ptp4l, TRANSPORTS},
};
use ptp_agent::lab::netns::Namespace;
use serde_json::Value;

/// How long a grandmaster may be there until the agent follows it.
const FOLLOWING: Duration = Duration::from_secs(10);
/// How far the median of |offset| may be from the truth, nanoseconds.
const TRUE: i64 = 20_000;

fn magnitudes(samples: &[Value]) -> Vec<i64> {
    field(samples, "offset_ns").into_iter().map(i64::abs).collect()
}

fn is_locked(sample: &Value) -> bool {
    sample["state"] == "locked"
}

/// Waits until an agent is locked, then for a few seconds of samples, and returns the time it took
/// and the median of |offset|.
fn follow(agent: &Agent) -> (Duration, i64) {
    agent.wait_for_state(0, FOLLOWING + Duration::from_secs(5), "time_receiver");
    agent.wait_for_sample(0, FOLLOWING, "locked sample", is_locked);
    let following = agent.since.elapsed();
    let mark = agent.mark();
    let samples = agent.wait_for_samples(mark, Duration::from_secs(20), 48);
    (following, median(magnitudes(&samples)))
}

fn agent_follows_ptp4l(transport: usize) {
    let _machine = alone();
    let fork = need!(Fork::new());
    let (transport, network_transport) = TRANSPORTS[transport];
    let option = format!("network_transport {network_transport}");
    let mut ptp4l =
        need!(Ptp4l::grandmaster(&fork.grandmaster, &["gm0", "gm1"], &[option.as_str()]));
    let mut agents = ["none", "virtual"].into_iter().zip(&fork.clients).map(|(clock, client)| {
        let arguments = ["run", "-i", "ptp0", "--transport", transport, "--clock", clock];
        (clock, Agent::start_only(client, &arguments))
    });
    let agents: [_; 2] = [agents.next().unwrap(), agents.next().unwrap()];
    for (clock, mut agent) in agents {
        let (following, offset) = follow(&agent);
        let summary = agent.finish();
        println!(
            "{transport}, --clock {clock}: following after {following:.1?}, median |offset| {offset} ns, lost {}",
            summary["lost"]
        );
        assert!(following < FOLLOWING, "{following:?}");
        assert!(offset < TRUE, "{offset} ns");
    }
    ptp4l.stop();
}

#[test]
fn agent_follows_ptp4l_over_ipv4() {
    agent_follows_ptp4l(0);
}

#[test]
fn agent_follows_ptp4l_over_ipv6() {
    agent_follows_ptp4l(1);
}

#[test]
fn agent_follows_ptp4l_over_ethernet() {
    agent_follows_ptp4l(2);
}

/// ptp4l forgets its outstanding Pdelay_Req when its port changes state, and goes to FAULTY, without time
/// for a while, when the answer comes in the same instant. That is chance, likelier on a busy machine, and
/// says nothing of the answer: whoever reads it asks again.
const FORGOTTEN: &str = "rogue peer delay response";

/// Runs `serve` with half a second of offset against a ptp4l that measures, and returns the log of
/// both and the measured offsets.
fn ptp4l_follows(serve: &[&str], client: &[&str]) -> Result<(Vec<i64>, String), String> {
    let wire = Wire::new()?;
    let options: Vec<&str> = [CLIENT].iter().chain(client).copied().collect();
    let common = ["serve", "-i", "gm0", "--offset", "0.5", "--log-sync-interval", "-4"];
    let more = ["--log-announce-interval", "0", "--log-min-delay-req-interval", "-4"];
    let arguments: Vec<&str> = common.iter().chain(&more).chain(serve).copied().collect();
    let mut agent = Agent::start(&wire.grandmaster, &arguments);
    let mut ptp4l = Ptp4l::start(&wire.client, &["ptp0"], &options)?;
    ptp4l.wait_for_text(0, Duration::from_secs(15), "LISTENING to UNCALIBRATED");
    let mut count = 0;
    ptp4l.wait_for(0, Duration::from_secs(25), "6 measurements", |line| {
        count += usize::from(line.text.contains("master offset"));
        (count >= 6 || line.text.contains(FORGOTTEN)).then_some(())
    });
    ptp4l.stop();
    let summary = agent.finish();
    println!("serve {serve:?}: {summary}");
    let log: String = ptp4l.lines().iter().map(|line| format!("{}\n", line.text)).collect();
    Ok((ptp4l.offsets(), log))
}

fn assert_is_half_a_second_behind(offsets: &[i64], log: &str) {
    // Without a delay measurement the first offsets contain the delay; the median does not care.
    let error = median(offsets.iter().map(|offset| (offset + 500_000_000).abs()).collect());
    println!("ptp4l, {} measurements: median |error| {error} ns", offsets.len());
    assert!(error < 100_000, "{error} ns\n{log}");
    for complaint in ["timed out", "FAULT", "rogue", "bad message", "ignor"] {
        assert!(!log.contains(complaint), "{log}");
    }
}

fn ptp4l_follows_the_agent(transport: usize) {
    let _machine = in_company();
    let (transport, network_transport) = TRANSPORTS[transport];
    let option = format!("network_transport {network_transport}");
    let (offsets, log) = need!(ptp4l_follows(&["--transport", transport], &[option.as_str()]));
    assert_is_half_a_second_behind(&offsets, &log);
}

#[test]
fn ptp4l_follows_the_agent_over_ipv4() {
    ptp4l_follows_the_agent(0);
}

#[test]
fn ptp4l_follows_the_agent_over_ipv6() {
    ptp4l_follows_the_agent(1);
}

#[test]
fn ptp4l_follows_the_agent_over_ethernet() {
    ptp4l_follows_the_agent(2);
}

#[test]
fn ptp4l_with_peer_delay_follows_the_agent() {
    let _machine = in_company();
    const ATTEMPTS: usize = 6;
    let options = ["delay_mechanism P2P", "fault_reset_interval ASAP"];
    for attempt in 1..=ATTEMPTS {
        let (offsets, log) = need!(ptp4l_follows(&[], &options));
        if attempt == ATTEMPTS || !log.contains(FORGOTTEN) {
            return assert_is_half_a_second_behind(&offsets, &log);
        }
    }
}

#[test]
fn agent_with_peer_delay_follows_ptp4l_in_another_domain() {
    let _machine = in_company();
    let wire = need!(Wire::new());
    let options = ["delay_mechanism P2P", "domainNumber 24"];
    let _ptp4l = need!(Ptp4l::grandmaster(&wire.grandmaster, &["gm0"], &options));
    let arguments = ["run", "-i", "ptp0", "--delay", "p2p", "--domain", "24"];
    let mut agent = Agent::start(&wire.client, &arguments);
    let (_, offset) = follow(&agent);
    let samples = agent.samples(0);
    assert!(samples.iter().all(|sample| sample["domain"] == 24));
    let delays = field(&samples, "delay_ns");
    let summary = agent.finish();
    println!("p2p: median |offset| {offset} ns, delay {} ns: {summary}", median(delays.clone()));
    assert!(offset < 5 * TRUE, "{offset} ns");
    assert!(median(delays) > 0, "{summary}");
}

#[test]
fn agent_in_another_domain_hears_nothing_and_counts_what_it_does_not_want() {
    let _machine = in_company();
    let wire = need!(Wire::new());
    let _ptp4l = need!(Ptp4l::grandmaster(&wire.grandmaster, &["gm0"], &[]));
    let mut agent = Agent::start(&wire.client, &["run", "-i", "ptp0", "--domain", "1"]);
    thread::sleep(Duration::from_secs(3));
    let summary = agent.finish();
    assert_eq!(summary["samples"], 0);
    assert!(summary["lost"]["wrong_domain"].as_u64() > Some(32), "{summary}");
    let log = agent.lines();
    assert!(!log.iter().any(|line| line.text.contains("uncalibrated")), "{}", agent.last_words());
}

#[test]
fn agent_follows_a_one_step_grandmaster() {
    let _machine = in_company();
    let wire = need!(Wire::new());
    let _grandmaster = OneStep::start(&wire.grandmaster, [192, 0, 2, 1].into());
    let mut agent = Agent::start(&wire.client, &["run", "-i", "ptp0"]);
    let (_, offset) = follow(&agent);
    let summary = agent.finish();
    println!("one-step: median |offset| {offset} ns");
    // The stamps of the other side are a user-space program's.
    assert!(offset < 1_000_000, "{offset} ns");
    assert!(summary["lost"]["sync_without_follow_up"].is_null(), "{summary}");
}

#[test]
fn agent_follows_on_a_tagged_interface_and_the_observer_below_sees_the_tag() {
    let _machine = in_company();
    let wire = need!(Wire::new());
    need!(tagged(&wire.grandmaster, "gm0", 5, "203.0.113.1/24"));
    need!(tagged(&wire.client, "ptp0", 5, "203.0.113.2/24"));
    let _ptp4l = need!(Ptp4l::grandmaster(&wire.grandmaster, &["gm0.5"], &[]));
    let mut observer = Agent::start(&wire.client, &["observe", "-i", "ptp0"]);
    let mut agent = Agent::start(&wire.client, &["run", "-i", "ptp0.5"]);
    let (_, offset) = follow(&agent);
    agent.finish();
    let seen = observer.finish();
    println!("VLAN: median |offset| {offset} ns");
    assert!(offset < 5 * TRUE, "{offset} ns");
    let ports = seen["ports"].as_array().unwrap();
    assert!(ports.iter().any(|port| port["role"] == "time_transmitter" && port["vlan"] == 5));
    let receiver = ports.iter().find(|port| port["role"] == "time_receiver").expect("a receiver");
    assert_eq!((&receiver["vlan"], &receiver["direction"]), (&Value::from(5), &"tx".into()));
    assert!(receiver["exchanges"]["delay"].as_u64() > Some(0), "{receiver}");
}

#[test]
fn agent_works_on_a_bridge_where_ptp4l_does_not() {
    let _machine = in_company();
    let wire = need!(Wire::new());
    wire.client.bridge("br0", &["ptp0"]).unwrap();
    wire.client.add_address("br0", [192, 0, 2, 3].into(), 24).unwrap();

    let mut refused = need!(Ptp4l::start(&wire.client, &["br0"], &[CLIENT]));
    let status = refused.wait(Duration::from_secs(10));
    let log = refused.last_words();
    assert!(!status.success(), "{log}");
    assert!(log.contains("does not support requested timestamping mode"), "{log}");

    let _ptp4l = need!(Ptp4l::grandmaster(&wire.grandmaster, &["gm0"], &[]));
    let mut agent = Agent::start(&wire.client, &["run", "-i", "br0"]);
    let (following, offset) = follow(&agent);
    agent.finish();
    println!("bridge: following after {following:.1?}, median |offset| {offset} ns");
    assert!(offset < 5 * TRUE, "{offset} ns");
}

/// What tshark counted: messages by direction (whether `local` sent them) and type.
fn count(captured: &str, local: &str, kind: u8) -> [u64; 2] {
    let mut counts = [0; 2];
    for line in captured.lines() {
        let mut fields = line.split_whitespace();
        let (Some(source), Some(number)) = (fields.next(), fields.next()) else { continue };
        let number = number.trim_start_matches("0x");
        if u8::from_str_radix(number, 16) == Ok(kind) {
            counts[usize::from(source == local)] += 1;
        }
    }
    counts
}

#[test]
fn observer_on_either_side_reports_the_exchanges_of_a_ptp4l_pair() {
    let _machine = alone();
    let wire = need!(Wire::new());
    let tshark = need!(program("tshark"));
    let sides = [(&wire.grandmaster, "gm0", "192.0.2.1"), (&wire.client, "ptp0", "192.0.2.2")];
    let mut watchers: Vec<(Agent, Running)> = sides
        .iter()
        .map(|(namespace, interface, _)| {
            let mut command = namespace.command(&tshark);
            command.args(["-l", "-n", "-i", interface, "-f", "udp portrange 319-320"]);
            command.args(["-T", "fields", "-e", "ip.src", "-e", "ptp.v2.messagetype"]);
            let capture = Running::start("tshark", &mut command);
            let agent = Agent::start(namespace, &["observe", "-i", interface]);
            capture.wait_for_text(0, Duration::from_secs(20), "Capturing on");
            (agent, capture)
        })
        .collect();
    // "Capturing" comes a little before the first packet is.
    thread::sleep(Duration::from_secs(1));
    let mut client = need!(Ptp4l::start(&wire.client, &["ptp0"], &[CLIENT]));
    let mut grandmaster = need!(Ptp4l::grandmaster(&wire.grandmaster, &["gm0"], &[]));
    let mut measured = 0;
    client.wait_for(0, Duration::from_secs(25), "8 measurements", |line| {
        measured += usize::from(line.text.contains("master offset"));
        (measured == 8).then_some(())
    });
    client.stop();
    grandmaster.stop();
    thread::sleep(Duration::from_secs(1));

    for ((agent, capture), (_, interface, address)) in watchers.iter_mut().zip(sides) {
        let summary = agent.finish();
        capture.stop();
        let captured: String =
            capture.lines().iter().map(|line| format!("{}\n", line.text)).collect();
        let find = |role: &str| {
            let ports = summary["ports"].as_array().unwrap();
            ports.iter().find(|port| port["role"] == role).unwrap_or_else(|| panic!("{summary}"))
        };
        let (transmitter, receiver) = (find("time_transmitter"), find("time_receiver"));
        for (port, name, kind) in [
            (transmitter, "sync", 0),
            (transmitter, "follow_up", 8),
            (transmitter, "delay_resp", 9),
            (transmitter, "announce", 0xb),
            (receiver, "delay_req", 1),
        ] {
            let seen = port["messages"][name].as_u64().unwrap_or(0);
            let truth = count(&captured, address, kind)[usize::from(port["direction"] == "tx")];
            println!("{interface}: {name}: observed {seen}, captured {truth}");
            assert!(truth > 2, "{captured}");
            assert!(seen.abs_diff(truth) * 100 <= truth, "{name}: {seen} of {truth}");
        }
        // The exchanges, not only the messages.
        let complete = |port: &Value, name: &str| port["exchanges"][name].as_u64().unwrap_or(0);
        let sent = |port: &Value, name: &str| port["messages"][name].as_u64().unwrap_or(0);
        for (complete, sent) in [
            (complete(transmitter, "sync"), sent(transmitter, "sync")),
            (complete(receiver, "delay"), sent(receiver, "delay_req")),
            (complete(transmitter, "delay_answered"), sent(transmitter, "delay_resp")),
        ] {
            assert!(sent.abs_diff(complete) * 100 <= sent.max(100), "{complete} of {sent}");
        }
        println!("{interface}: {summary}");
    }

    // The client's side measures the offset as the client does; on the grandmaster's side its claims
    // are those of an honest clock.
    let samples = watchers[1].0.samples(0);
    let offset = median(magnitudes(&samples));
    let theirs = median(client.offsets().into_iter().map(i64::abs).collect());
    println!("median |offset|: observer {offset} ns, ptp4l itself {theirs} ns");
    assert!(samples.len() > 100 && offset < TRUE, "{} samples, {offset} ns", samples.len());
    let claims = field(&watchers[0].0.events(0, "claim"), "difference_ns");
    assert!(claims.len() > 200 && median(claims.iter().map(|c| c.abs()).collect()) < TRUE);
}

#[test]
fn observer_measures_the_link_of_a_pair_with_peer_delay() {
    let _machine = in_company();
    let wire = need!(Wire::new());
    let option = "delay_mechanism P2P";
    let mut observer = Agent::start(&wire.client, &["observe", "-i", "ptp0"]);
    let _grandmaster = need!(Ptp4l::grandmaster(&wire.grandmaster, &["gm0"], &[option]));
    let client = need!(Ptp4l::start(&wire.client, &["ptp0"], &[CLIENT, option]));
    client.wait_for_text(0, Duration::from_secs(25), "master offset");
    observer.wait_for_sample(0, Duration::from_secs(10), "delay", |s| !s["delay_ns"].is_null());
    let summary = observer.finish();
    let ports = summary["ports"].as_array().unwrap();
    let exchanges = ports.iter().filter_map(|port| port["exchanges"]["peer_delay"].as_u64()).max();
    assert!(exchanges > Some(8), "{summary}");
}

#[test]
fn promtool_finds_nothing_wrong_with_the_metrics_of_any_command() {
    let _machine = in_company();
    let promtool = need!(program("promtool"));
    let wire = need!(Wire::new());
    let address = |port| std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let metrics = |port| ["--metrics-address".to_owned(), address(port).to_string()];
    let start = |namespace: &Namespace, command: &str, port| {
        let arguments: Vec<String> =
            command.split_whitespace().map(str::to_owned).chain(metrics(port)).collect();
        Agent::start(namespace, &arguments)
    };
    let serve = "serve -i gm0 --log-sync-interval -4 --log-announce-interval -2";
    let commands = [
        (&wire.grandmaster, start(&wire.grandmaster, serve, 9319), 9319),
        (&wire.client, start(&wire.client, "run -i ptp0", 9319), 9319),
        (&wire.client, start(&wire.client, "observe -i ptp0", 9320), 9320),
    ];
    for (_, agent, _) in &commands[1..] {
        agent.wait_for_samples(0, Duration::from_secs(20), 32);
    }
    // Who only watches is healthy once he knows the time.
    commands[1].1.wait_for_sample(0, Duration::from_secs(30), "lock", |s| s["state"] == "locked");
    // Counters are brought up to date once a second.
    thread::sleep(Duration::from_millis(1200));
    for (namespace, agent, port) in &commands {
        let text = http_get(namespace, address(*port), "/metrics");
        let mut check = Command::new(&promtool)
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        check.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let output = check.wait_with_output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert!(output.status.success() && said.trim().is_empty(), "{said}\n{text}");
        let direction =
            if *port == 9319 && agent.pid() == commands[0].1.pid() { "tx" } else { "rx" };
        let interface = if direction == "tx" { "gm0" } else { "ptp0" };
        let series = |name: &str| series(&text, name).unwrap_or_else(|| panic!("{name}: {text}"));
        let labels = format!("interface=\"{interface}\",domain=\"0\"");
        let syncs =
            format!("ptp_messages_total{{{labels},direction=\"{direction}\",type=\"sync\"}}");
        assert!(series(&syncs) > 16.0, "{text}");
        assert_eq!(series("ptp_ring_lost_total"), 0.0);
        if direction == "rx" {
            assert!(series(&format!("ptp_offset_from_master_seconds{{{labels}}}")).abs() < 1e-3);
            assert!(series(&format!("ptp_last_sample_timestamp_seconds{{{labels}}}")) > 1e9);
        }
        let status: Value =
            serde_json::from_str(&http_get(namespace, address(*port), "/status")).unwrap();
        assert!(status["command"].is_string(), "{status}");
        http_get(namespace, address(*port), "/healthz");
    }
}

#[test]
fn better_grandmaster_wins_and_the_other_takes_over() {
    let _machine = in_company();
    let star = need!(Star::new(3));
    let [good, better, client] = &star.leaves[..] else { unreachable!() };
    let quick = "logAnnounceInterval -1";
    let start =
        |namespace, priority: &str| Ptp4l::grandmaster(namespace, &["eth0"], &[quick, priority]);
    let identity = |namespace: &Namespace| {
        let address = ip(namespace, "-brief link show eth0");
        let mac = address.split_whitespace().nth(2).unwrap().replace(':', "");
        format!("following grandmaster={}.fffe.{}", &mac[..6], &mac[6..])
    };
    let (good_one, better_one) = (identity(good), identity(better));
    let mut first = need!(start(good, "priority1 110"));
    let mut agent = Agent::start(client, &["run", "-i", "eth0", "--clock", "virtual"]);
    agent.wait_for_text(0, FOLLOWING, &good_one);
    agent.wait_for_state(0, FOLLOWING, "time_receiver");

    // The better one comes, and wins.
    let mark = agent.mark();
    let mut second = need!(start(better, "priority1 100"));
    agent.wait_for_text(mark, FOLLOWING, &better_one);
    agent.wait_for_state(mark, FOLLOWING, "time_receiver");

    // It goes without a word; after the announce receipt timeout (1.5 s) the other takes over.
    let mark = agent.mark();
    second.kill();
    let killed = Instant::now();
    agent.wait_for_text(mark, FOLLOWING, &good_one);
    let takeover = killed.elapsed();
    println!("takeover after {takeover:.1?}");
    assert!(takeover < Duration::from_secs(4), "{takeover:?}");
    agent.wait_for_state(mark, FOLLOWING, "time_receiver");

    // Nobody is left.
    let mark = agent.mark();
    first.kill();
    agent.wait_for_text(mark, FOLLOWING, "no grandmaster");
    agent.wait_for_state(mark, FOLLOWING, "listening");
    let quiet = agent.mark();
    thread::sleep(Duration::from_secs(1));
    assert!(agent.samples(quiet).is_empty());

    // And one comes back.
    let mark = agent.mark();
    let _again = need!(start(better, "priority1 100"));
    agent.wait_for_text(mark, FOLLOWING, &better_one);
    agent.wait_for_state(mark, FOLLOWING, "time_receiver");
    let after = agent.wait_for_samples(agent.mark(), FOLLOWING, 32);
    let offset = median(magnitudes(&after));
    assert!(offset < 5 * TRUE, "{offset} ns");
    agent.finish();
}

#[test]
fn agent_with_two_ports_follows_the_better_side_and_changes_over() {
    let _machine = in_company();
    let fork = need!(Fork::new());
    let start = |namespace, priority: &str| {
        Ptp4l::grandmaster(namespace, &["ptp0"], &["logAnnounceInterval -1", priority])
    };
    let _good = need!(start(&fork.clients[0], "priority1 110"));
    let mut better = need!(start(&fork.clients[1], "priority1 100"));
    let arguments = ["run", "-i", "gm0", "gm1", "--clock", "virtual"];
    let mut agent = Agent::start(&fork.grandmaster, &arguments);
    let of = |interface: &'static str| move |sample: &Value| sample["interface"] == interface;
    agent.wait_for_sample(0, FOLLOWING, "sample of gm1", of("gm1"));
    let samples = agent.wait_for_samples(agent.mark(), FOLLOWING, 16);
    assert!(samples.iter().all(of("gm1")), "{samples:?}");

    let mark = agent.mark();
    better.kill();
    agent.wait_for_sample(mark, FOLLOWING, "sample of gm0", of("gm0"));
    agent.wait_for_sample(mark, FOLLOWING, "locked sample of gm0", |sample| {
        of("gm0")(sample) && is_locked(sample)
    });
    let samples = agent.wait_for_samples(agent.mark(), FOLLOWING, 32);
    let offset = median(magnitudes(&samples));
    println!("two ports: median |offset| {offset} ns after the change");
    assert!(samples.iter().all(of("gm0")) && offset < 5 * TRUE, "{samples:?}");
    agent.finish();
}

#[test]
fn help_names_every_command_and_bad_usage_is_exit_code_two() {
    let mut help = Command::new(binary());
    help.arg("--help");
    let (status, text, _) = run_to_end(help);
    assert!(status.success());
    for command in ["run", "serve", "observe", "lab"] {
        assert!(text.contains(&format!("  {command} ")), "{text}");
    }
    let mut unknown = Command::new(binary());
    unknown.args(["run", "--interfaze", "x"]);
    assert_eq!(run_to_end(unknown).0.code(), Some(2));
}
