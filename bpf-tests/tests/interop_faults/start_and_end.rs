//! What keeps the agent from starting, what it needs, and what it leaves behind: one message, the right exit
//! code, nothing left.

use super::*;

#[test]
fn interface_that_does_not_exist_is_one_message_and_exit_code_three() {
    let _machine = in_company();
    let wire = need!(Wire::new());
    for command in ["run", "serve", "observe"] {
        let log = refused(&wire.client, &[command, "-i", "nope0"], 3);
        assert!(log.contains("interface nope0 does not exist"), "{log}");
        let log = refused(&wire.client, &[command, "-i", "ptp0", "nope0"], 3);
        assert!(log.contains("interface nope0 does not exist"), "{log}");
        refused(&wire.client, &[command], 2);
        refused(&wire.client, &[command, "-i", "ptp0", "ptp0"], 2);
    }
}

#[test]
fn port_in_use_is_one_message_and_exit_code_three() {
    let _machine = in_company();
    let wire = need!(Wire::new());
    let _ptp4l = need!(Ptp4l::grandmaster(&wire.client, &["ptp0"], &[]));
    for command in ["run", "serve"] {
        let log = refused(&wire.client, &[command, "-i", "ptp0"], 3);
        assert!(log.contains("319") && log.contains("in use"), "{log}");
    }
    // The observer needs none.
    Agent::start(&wire.client, &["observe", "-i", "ptp0"]).finish();
    // Beside ourselves it is no different.
    let _serve = Agent::start(&wire.grandmaster, &["serve", "-i", "gm0"]);
    let log = refused(&wire.grandmaster, &["run", "-i", "gm0"], 3);
    assert!(log.contains("in use"), "{log}");
}

#[test]
fn metrics_address_in_use_is_one_line_and_an_alarm_until_it_is_free() {
    let _machine = in_company();
    let wire = need!(Wire::new());
    let _server = Agent::start(&wire.grandmaster, &server_arguments("gm0", &[]));
    let taken = wire.client.run(|| TcpListener::bind(METRICS).unwrap()).unwrap();
    let start = |command: &str| {
        let agent =
            Agent::start(&wire.client, &[command, "-i", "ptp0", "--metrics-address", METRICS]);
        agent.wait_for_text(0, PATIENCE, "alarm raised alarm=\"endpoint_unavailable\"");
        let lines = agent.lines();
        let said: Vec<_> = lines.iter().filter(|line| line.text.contains(METRICS)).collect();
        assert!(said.len() == 1 && said[0].text.contains("in use"), "{}", agent.last_words());
        agent
    };
    for command in ["serve", "observe"] {
        start(command).finish();
    }
    let mut agent = start("run");
    assert_follows(&agent, 0);
    let mark = agent.mark();
    drop(taken);
    agent.wait_for_text(mark, PATIENCE, &format!("metrics on http://{METRICS}"));
    agent.wait_for_text(mark, PATIENCE, "alarm cleared alarm=\"endpoint_unavailable\"");
    assert!(outcomes(&wire.client).contains("ptp_alarm{alarm=\"endpoint_unavailable\"} 0"));
    agent.finish();
}

#[test]
fn status_socket_of_a_killed_agent_is_cleared_away_by_the_next_one() {
    let _machine = in_company();
    let wire = need!(Wire::new());
    let mut killed = Agent::start(&wire.client, &["observe", "-i", "ptp0"]);
    let path = PathBuf::from(format!("/run/ptp-agent/{}.sock", killed.pid()));
    let is_new = || {
        let made = fs::symlink_metadata(&path).and_then(|file| file.modified()).unwrap();
        made.elapsed().is_ok_and(|age| age < Duration::from_secs(1))
    };
    // What has just been made may not listen yet, so it is left alone.
    while is_new() {
        thread::sleep(Duration::from_millis(50));
    }
    killed.kill();
    let mut next = Agent::start(&wire.client, &["observe", "-i", "ptp0"]);
    assert!(!path.exists(), "{}", path.display());
    next.finish();
}

#[test]
fn configuration_that_cannot_be_used_is_exit_code_two() {
    let _machine = in_company();
    let wire = need!(Wire::new());
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("agent.toml");
    let path = file.to_str().unwrap();
    for (text, words) in [
        ("interface = [\"ptp0\"]\n\n[run]\n  clok = \"none\"\n", ["line 4, column 3", "clok"]),
        ("domain = 256\n", ["line 1, column 10", "256"]),
        ("interface = \n", ["line 1", "column 13"]),
        ("ring-kib = 5\n", ["ring-kib", "power of two"]),
        ("rx-source = \"moon\"\n", ["rx-source", "moon"]),
    ] {
        fs::write(&file, text).unwrap();
        let log = refused(&wire.client, &["run", "-i", "ptp0", "--config", path], 2);
        assert!(words.iter().all(|word| log.contains(word)), "{log}");
    }
    let log = refused(&wire.client, &["run", "--config", "/nowhere/agent.toml"], 2);
    assert!(log.contains("/nowhere/agent.toml"), "{log}");
    // A good one works, and the command line wins.
    fs::write(&file, "interface = [\"nope0\"]\ndomain = 7\n").unwrap();
    let mut agent = Agent::start(&wire.client, &["run", "-i", "ptp0", "--config", path]);
    agent.wait_for_text(0, START, "domain=7");
    agent.finish();
}

/// The TC programs on an interface; Debian's bpftool is too old to show TCX.
fn attached(namespace: &Namespace, interface: &str) -> Vec<String> {
    let query = |kind| match SchedClassifier::query_tcx(interface, kind) {
        Ok((_, programs)) => {
            programs.iter().map(|program| program.name_as_str().unwrap_or("?").to_owned()).collect()
        }
        // Before Linux 6.6 there is no TCX; what is there then hangs on clsact.
        Err(_) => Vec::new(),
    };
    namespace
        .run(|| [query(TcAttachType::Ingress), query(TcAttachType::Egress)].concat())
        .expect("the namespace exists")
}

/// What there is of an agent on an interface.
fn hooks(namespace: &Namespace, interface: &str) -> Vec<String> {
    let mut found = attached(namespace, interface);
    let link = ip(namespace, &format!("-details link show dev {interface}"));
    if link.contains("xdp") {
        found.push("XDP".to_owned());
    }
    if output(namespace.command("tc").args(["qdisc", "show", "dev", interface])).contains("clsact")
    {
        found.push("clsact".to_owned());
    }
    found
}

#[test]
fn nothing_is_left_behind_however_the_agent_ends() {
    let _machine = in_company();
    let wire = need!(Wire::new());
    let commands: [&[&str]; 4] = [
        &["run", "-i", "ptp0"],
        &["run", "-i", "ptp0", "--transport", "l2", "--rx-source", "xdp_generic"],
        &["serve", "-i", "ptp0"],
        &["observe", "-i", "ptp0", "--rx-source", "xdp_native"],
    ];
    for arguments in commands {
        for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGKILL] {
            let mut agent = Agent::start(&wire.client, arguments);
            let attached = hooks(&wire.client, "ptp0");
            assert!(attached.len() >= 2 || attached == ["clsact"], "{attached:?}");
            assert_eq!(
                attached.contains(&"XDP".to_owned()),
                arguments.contains(&"--rx-source"),
                "{attached:?}"
            );
            agent.signal(signal);
            let status = agent.wait(PATIENCE);
            assert_eq!(status.success(), signal != Signal::SIGKILL, "{status}");
            // The kernel tidies up after a killed process a moment later.
            let deadline = Instant::now() + PATIENCE;
            loop {
                let left = hooks(&wire.client, "ptp0");
                // Before Linux 6.6 a killed agent leaves the empty queueing discipline.
                if left.is_empty() || left == ["clsact"] && signal == Signal::SIGKILL {
                    break;
                }
                assert!(Instant::now() < deadline, "{arguments:?}, {signal}: {left:?}");
                thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

#[test]
fn duration_ends_each_command_with_success() {
    let _machine = in_company();
    let wire = need!(Wire::new());
    for command in ["run", "serve", "observe"] {
        let mut child = wire.client.command(binary());
        child.args([command, "-i", "ptp0", "--duration", "1.5"]);
        let (status, text, log) = run_to_end(child);
        assert!(status.success() && text.contains("lost: nothing"), "{command}: {text}{log}");
    }
}

fn interface_goes_and_comes_back(transport: &str, network_transport: &str) {
    let _machine = in_company();
    let wire = need!(Wire::new());
    let option = format!("network_transport {network_transport}");
    let start = || Ptp4l::grandmaster(&wire.grandmaster, &["gm0"], &[option.as_str()]);
    let ptp4l = need!(start());
    let arguments = ["run", "-i", "ptp0", "--transport", transport];
    let mut agent = Agent::start(&wire.client, &arguments);
    let mut observer = Agent::start(&wire.client, &["observe", "-i", "ptp0"]);
    assert_follows(&agent, 0);

    // Down, and up again.
    let (mark, seen) = (agent.mark(), observer.mark());
    wire.client.set_down("ptp0").unwrap();
    agent.wait_for_state(mark, PATIENCE, "disabled");
    observer.wait_for_text(seen, PATIENCE, "state=\"down\"");
    let mark = agent.mark();
    wire.client.set_up("ptp0").unwrap();
    wire.client.await_link_local("ptp0").unwrap();
    assert_follows(&agent, mark);
    observer.wait_for_samples(observer.mark(), PATIENCE, 4);

    // The other end down: no carrier.
    let mark = agent.mark();
    drop(ptp4l);
    wire.grandmaster.set_down("gm0").unwrap();
    agent.wait_for_state(mark, PATIENCE, "disabled");

    // Gone, and made again: another interface of the same name.
    let seen = observer.mark();
    wire.client.delete("ptp0").unwrap();
    observer.wait_for(seen, PATIENCE, "news", |line| line.text.contains("state=\"").then_some(()));
    thread::sleep(Duration::from_millis(300));
    let mark = agent.mark();
    need!(wire.connect());
    let _ptp4l = need!(start());
    assert_follows(&agent, mark);
    observer.wait_for_samples(observer.mark(), PATIENCE, 4);
    println!("{transport}: {}", agent.finish());
    observer.finish();
}

#[test]
fn agent_recovers_when_its_interface_comes_back_udp4() {
    interface_goes_and_comes_back("udp4", "UDPv4");
}

#[test]
fn agent_recovers_when_its_interface_comes_back_udp6() {
    interface_goes_and_comes_back("udp6", "UDPv6");
}

#[test]
fn agent_recovers_when_its_interface_comes_back_l2() {
    interface_goes_and_comes_back("l2", "L2");
}

#[test]
fn grandmaster_serves_again_when_its_interface_comes_back() {
    let _machine = in_company();
    let wire = need!(Wire::new());
    let serve = "serve -i gm0 --log-sync-interval -4 --log-announce-interval -2";
    let arguments: Vec<&str> = serve.split(' ').collect();
    let mut grandmaster = Agent::start(&wire.grandmaster, &arguments);
    let mut agent = Agent::start(&wire.client, &["run", "-i", "ptp0"]);
    assert_follows(&agent, 0);
    let (mark, theirs) = (agent.mark(), grandmaster.mark());
    wire.client.delete("ptp0").unwrap();
    grandmaster.wait_for_state(theirs, PATIENCE, "disabled");
    agent.wait_for_state(mark, PATIENCE, "disabled");
    let (mark, theirs) = (agent.mark(), grandmaster.mark());
    need!(wire.connect());
    grandmaster.wait_for_state(theirs, PATIENCE, "time_transmitter");
    assert_follows(&agent, mark);
    agent.finish();
    grandmaster.finish();
}

/// A copy of the agent that every user may run.
fn copy_for_all() -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let copy = directory.path().join("ptp-agent");
    fs::copy(binary(), &copy).unwrap();
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).unwrap();
    let path = copy.to_str().unwrap().to_owned();
    (directory, path)
}

const CAPABILITIES: [(&str, u64); 5] =
    [("bpf", 39), ("net_admin", 12), ("perfmon", 38), ("net_raw", 13), ("net_bind_service", 10)];

/// A command of an unprivileged user with some capabilities.
fn unprivileged(
    namespace: &Namespace,
    agent: &str,
    capabilities: &[&str],
) -> Result<Command, String> {
    let list: String = capabilities.iter().map(|name| format!(",+{name}")).collect();
    let mut command = namespace.command(program("setpriv")?);
    // The wish to die with the parent does not survive the change of user; hence a new one.
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--pdeathsig=KILL"]);
    command.arg(format!("--inh-caps=-all{list}")).arg(format!("--ambient-caps=-all{list}"));
    command.arg(agent);
    Ok(command)
}

#[test]
fn too_few_open_files_are_named_and_exit_code_three() {
    let _machine = in_company();
    let wire = need!(Wire::new());
    for most in [10, 16, 20, 24, 28, 32] {
        let mut command = wire.client.command("prlimit");
        command.arg(format!("--nofile={most}")).arg(binary()).args(["observe", "-i", "ptp0"]);
        let (status, _, log) = run_to_end(command);
        assert_eq!(status.code(), Some(3), "{most}: {log}");
        assert!(log.contains(&format!("may have {most} files open")), "{log}");
    }
}

#[test]
fn missing_privileges_are_named_and_exit_code_three() {
    let _machine = in_company();
    let wire = need!(Wire::new());
    let (_directory, agent) = copy_for_all();
    let all: Vec<&str> = CAPABILITIES.iter().map(|(name, _)| *name).collect();
    let without =
        |name: &str| -> Vec<&str> { all.iter().copied().filter(|other| *other != name).collect() };
    let cases: [(&[&str], Vec<&str>, &str); 8] = [
        (&["run", "-i", "ptp0"], vec![], "CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON"),
        (&["serve", "-i", "ptp0"], vec![], "CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON"),
        (&["observe", "-i", "ptp0"], vec![], "CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON"),
        (&["run", "-i", "ptp0"], without("bpf"), "CAP_BPF"),
        (&["run", "-i", "ptp0"], without("net_admin"), "CAP_NET_ADMIN"),
        (&["run", "-i", "ptp0"], without("perfmon"), "CAP_PERFMON"),
        (&["run", "-i", "ptp0"], without("net_bind_service"), "CAP_NET_BIND_SERVICE"),
        (&["run", "-i", "ptp0", "--transport", "l2"], without("net_raw"), "CAP_NET_RAW"),
    ];
    for (arguments, capabilities, named) in cases {
        let mut command = need!(unprivileged(&wire.client, &agent, &capabilities));
        command.args(arguments);
        let (status, _, log) = run_to_end(command);
        assert_eq!(status.code(), Some(3), "{arguments:?} with {capabilities:?}: {log}");
        assert!(log.contains(named), "{arguments:?} with {capabilities:?}: {log}");
    }
}

#[test]
fn five_capabilities_are_enough_and_no_others_are_kept() {
    let _machine = in_company();
    let wire = need!(Wire::new());
    let (_directory, agent) = copy_for_all();
    let _ptp4l = need!(Ptp4l::grandmaster(&wire.grandmaster, &["gm0"], &[]));
    let held = |pid: u32, set: &str| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(set)).unwrap();
        u64::from_str_radix(line.trim_start_matches(':').trim(), 16).unwrap()
    };
    let bits = |names: &[&str]| -> u64 {
        CAPABILITIES.iter().filter(|(name, _)| names.contains(name)).map(|(_, n)| 1 << n).sum()
    };
    let ports = ["bpf", "net_admin", "perfmon", "net_raw", "net_bind_service"];
    let capture = &ports[..3];
    let cases: [(&[&str], &[&str]); 3] = [
        (&["run", "-i", "ptp0"], &ports),
        (&["run", "-i", "ptp0", "--transport", "l2"], &ports),
        (&["observe", "-i", "ptp0"], capture),
    ];
    for (arguments, needed) in cases {
        let mut command = need!(unprivileged(&wire.client, &agent, needed));
        command.arg("--json").args(arguments);
        let mut agent = Agent::from_running(Running::start("agent", &mut command));
        agent.wait_for(0, START, "start", |line| {
            (line.text.contains("listening") || line.text.contains("observing")).then_some(())
        });
        for set in ["CapPrm", "CapEff"] {
            assert_eq!(held(agent.pid(), set), bits(needed), "{set}");
        }
        for set in ["CapInh", "CapAmb"] {
            assert_eq!(held(agent.pid(), set), 0, "{set}");
        }
        if !arguments.contains(&"l2") {
            agent.wait_for_samples(0, PATIENCE, 8);
        }
        agent.finish();
    }

    // Root gives up the rest, in every thread.
    let metrics = ["run", "-i", "ptp0", "--metrics-address", METRICS];
    let agent = Agent::start(&wire.client, &metrics);
    let threads: Vec<u32> = fs::read_dir(format!("/proc/{}/task", agent.pid()))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap())
        .collect();
    assert!(threads.len() > 1, "{threads:?}");
    for thread in threads {
        assert_eq!(held(thread, "CapPrm"), bits(&ports));
    }
}

#[test]
fn full_ring_loses_records_counts_them_and_recovers() {
    let _machine = in_company();
    let star = need!(Star::new(3));
    let [grandmaster, client, attacker] = &star.leaves[..] else { unreachable!() };
    let _ptp4l = need!(Ptp4l::grandmaster(grandmaster, &["eth0"], &[]));
    let arguments = ["run", "-i", "eth0", "--ring-kib", "4", "--metrics-address", METRICS];
    let mut agent = Agent::start(client, &arguments);
    let mut observer = Agent::start(client, &["observe", "-i", "eth0", "--ring-kib", "4"]);
    assert_follows(&agent, 0);

    let party = Party::new(attacker, Ipv4Addr::new(192, 0, 2, 3));
    let header = Header { domain_number: 99, ..Header::new(port(0x66), 0) };
    for child in [&agent, &observer] {
        child.signal(Signal::SIGSTOP);
    }
    for sequence_id in 0..500 {
        let header = Header { sequence_id, ..header };
        party.event(&message(header, Body::Sync { origin_timestamp: now() }));
    }
    for child in [&agent, &observer] {
        child.signal(Signal::SIGCONT);
    }
    let samples = agent.wait_for_samples(agent.mark(), PATIENCE, 32);
    assert!(median_offset(&samples) < TRUE, "{samples:?}");
    observer.wait_for_samples(observer.mark(), PATIENCE, 16);

    thread::sleep(Duration::from_millis(1200));
    let metric = series(&outcomes(client), "ptp_ring_lost_total");
    let (summary, observed) = (agent.finish(), observer.finish());
    println!("run: {}\nobserve: {}", summary["lost"], observed["lost"]);
    assert!(metric > Some(400.0), "{metric:?}");
    assert!(summary["lost"]["ring"].as_u64() > Some(400), "{summary}");
    assert!(observed["lost"]["ring"].as_u64() > Some(400), "{observed}");
}
