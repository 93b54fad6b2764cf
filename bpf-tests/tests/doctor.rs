//! `ptp-agent doctor` on real interfaces of each kind, in namespaces. Needs root.

use std::{
    collections::BTreeMap,
    process::ExitStatus,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use bpf_tests::{
    agent::{Agent, binary, run_to_end},
    forge::{announce, message, port},
    frames::{Payload, Recipe},
    in_company,
    links::{Wire, ip, output},
    need,
    neighbour::{Act, Neighbour},
    program,
    ptp4l::{CLIENT, Ptp4l},
    raw::FrameSocket,
};
use ptp_agent::{
    capture::{Features, Options, Programs, XdpHook},
    lab::netns::Namespace,
};
use ptp_common::{
    classify::{ETHERTYPE_CTAG, ETHERTYPE_PROBE, classify},
    wire::Header,
};
use serde_json::Value;
use socket2::{Domain, Socket, Type};

struct Report {
    status: ExitStatus,
    /// By name; the last one where several interfaces have the same.
    checks: BTreeMap<String, Value>,
    summary: Value,
}

impl Report {
    fn status(&self, name: &str) -> &str {
        let check = self.checks.get(name).unwrap_or_else(|| panic!("no check {name}"));
        check["status"].as_str().expect("a status")
    }

    fn reason(&self, name: &str) -> &str {
        self.checks[name]["reason"].as_str().expect("a reason")
    }
}

fn doctor(namespace: &Namespace, arguments: &[&str]) -> Report {
    let mut command = namespace.command(binary());
    command.args(["--json", "doctor"]).args(arguments);
    let (status, output, log) = run_to_end(command);
    let mut lines: Vec<Value> = output
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}\n{log}")))
        .collect();
    let summary = lines.pop().unwrap_or_else(|| panic!("no output\n{log}"));
    assert_eq!(summary["event"], "summary");
    for check in &lines {
        assert_eq!(check["event"], "check");
        for text in ["name", "status", "reason"] {
            assert!(check[text].as_str().is_some_and(|text| !text.is_empty()), "{check}");
        }
        assert!(check["advice"].is_null() || check["advice"].is_string(), "{check}");
    }
    let checks = lines.into_iter().map(|check| (check["name"].as_str().unwrap().to_owned(), check));
    Report { status, checks: checks.collect(), summary }
}

/// What of an interface could be left changed: its state, queueing disciplines, filters, programs.
fn state(namespace: &Namespace, interface: &str) -> String {
    let mut state = ip(namespace, &format!("link show dev {interface}"));
    for arguments in
        [&["qdisc", "show"][..], &["filter", "show", "ingress"], &["filter", "show", "egress"]]
    {
        let output = namespace.command("tc").args(arguments).args(["dev", interface]).output();
        state += &String::from_utf8_lossy(&output.expect("tc is part of iproute2").stdout);
    }
    state
}

const POINTS: [&str; 5] = [
    "capture_stack",
    "capture_tc_ingress",
    "capture_tc_egress",
    "capture_start_xmit",
    "capture_xmit_done",
];

#[test]
fn veth_bridge_and_loopback_have_working_capture_points_and_are_left_as_they_were() {
    let _machine = in_company();
    let wire = need!(Wire::new());
    wire.client.bridge("br0", &["ptp0"]).unwrap();
    for (namespace, interface) in
        [(&wire.grandmaster, "gm0"), (&wire.client, "br0"), (&wire.client, "lo")]
    {
        let before = state(namespace, interface);
        let report = doctor(namespace, &["-i", interface]);
        assert_eq!(state(namespace, interface), before);
        println!("{interface}: {}", report.summary);
        assert_eq!(report.status.code(), Some(0), "{:#?}", report.checks);
        assert_eq!(report.summary["fail"], 0);
        for point in POINTS {
            assert_eq!(report.status(point), "OK", "{interface} {:#}", report.checks[point]);
            assert!(report.reason(point).contains("a packet sent through it was stamped"));
        }
        for fine in ["interface", "link_type", "mtu", "ptp_ports", "ring_buffer", "btf"] {
            assert_eq!(report.status(fine), "OK", "{interface} {:#}", report.checks[fine]);
        }
        assert_eq!(report.checks["interface"]["interface"], interface);
        assert_eq!(report.status("irq_pinning"), "SKIP");
        let mac = if interface == "lo" { "WARN" } else { "OK" };
        assert_eq!(report.status("mac"), mac);
    }
}

#[test]
fn point_that_packets_do_not_reach_is_found_by_sending_one() {
    let _machine = in_company();
    let wire = need!(Wire::new());
    if !Features::probe().tcx {
        return bpf_tests::skipped("TCX, by which the test drops packets, came with Linux 6.6");
    }
    let attach = |act| wire.client.run(|| Neighbour::attach("ptp0", act)).unwrap().unwrap();
    let accepts = attach(Act::Accept);
    let report = doctor(&wire.client, &["-i", "ptp0"]);
    assert!(POINTS.iter().all(|point| report.status(point) == "OK"), "{:#?}", report.checks);
    drop(accepts);
    let _drops = attach(Act::Drop);
    let report = doctor(&wire.client, &["-i", "ptp0"]);
    for (point, status) in POINTS.into_iter().zip(["OK", "OK", "OK", "WARN", "WARN"]) {
        assert_eq!(report.status(point), status, "{:#}", report.checks[point]);
    }
    assert_eq!(report.status.code(), Some(0));
}

#[test]
fn xdp_program_of_others_is_told_with_its_number() {
    let _machine = in_company();
    let wire = need!(Wire::new());
    let options = Options { xdp: Some(XdpHook::Native), ..Options::default() };
    let mut other = Programs::load(options).unwrap();
    wire.client.run(|| other.attach("ptp0")).unwrap().unwrap();
    let report = doctor(&wire.client, &["-i", "ptp0"]);
    assert_eq!(report.status("xdp_mode"), "WARN");
    let reason = report.reason("xdp_mode");
    assert!(reason.contains("another program (program "), "{reason}");
    assert!(reason.contains("redirects or drops"), "{reason}");
    wire.client.run(|| drop(other)).unwrap();
}

#[test]
fn nobody_can_take_the_packets_of_the_doctor_for_ptp() {
    let _machine = in_company();
    let wire = need!(Wire::new());
    let party = wire.grandmaster.run(|| packet_tap("gm0")).unwrap().unwrap();
    doctor(&wire.client, &["-i", "ptp0"]);
    let mut frame = [0; 2048];
    let (mut experimental, mut buffer) = (0, [std::mem::MaybeUninit::uninit(); 2048]);
    while let Ok(length) = party.recv(&mut buffer) {
        for (to, from) in frame.iter_mut().zip(&buffer[..length]) {
            // SAFETY: the kernel has written the first `length` bytes.
            *to = unsafe { from.assume_init() };
        }
        assert!(classify(&frame[..length]).is_err(), "{:02x?}", &frame[..length]);
        let is_probe = frame[12..14] == ETHERTYPE_PROBE.to_be_bytes();
        // Goes to its own sender: a switch has no port for it.
        assert!(!is_probe || frame[..6] == frame[6..12], "{:02x?}", &frame[..length]);
        experimental += u32::from(is_probe);
    }
    assert_eq!(experimental, 1, "the one that goes out");
}

/// Every frame that comes in, with its header; what is there already is read without waiting.
fn packet_tap(interface: &str) -> std::io::Result<Socket> {
    const ALL: u16 = libc::ETH_P_ALL as u16;
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(i32::from(ALL.to_be()).into()))?;
    socket.bind_device(Some(interface.as_bytes()))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[test]
fn bridge_that_ptp4l_refuses_is_said_to_have_capture_points() {
    let _machine = in_company();
    let wire = need!(Wire::new());
    wire.client.bridge("br0", &["ptp0"]).unwrap();
    let mut refused = need!(Ptp4l::start(&wire.client, &["br0"], &[CLIENT]));
    let status = refused.wait(Duration::from_secs(10));
    assert!(!status.success(), "{}", refused.last_words());

    let report = doctor(&wire.client, &["-i", "br0"]);
    assert_eq!(report.status.code(), Some(0), "{:#?}", report.checks);
    assert!(report.reason("timestamping").contains("ptp4l -S refuses"), "{:#?}", report.checks);
    assert!(report.reason("driver").contains("bridge"));
    assert!(POINTS.iter().all(|point| report.status(point) == "OK"), "{:#?}", report.checks);
    // The other end has what ptp4l wants.
    let veth = doctor(&wire.grandmaster, &["-i", "gm0"]);
    assert!(veth.reason("timestamping").contains("software stamps both ways"));
}

#[test]
fn xdp_is_attached_only_when_asked_and_found_where_the_driver_has_it() {
    let _machine = in_company();
    let wire = need!(Wire::new());
    wire.client.bridge("br0", &["ptp0"]).unwrap();
    let careful = doctor(&wire.grandmaster, &["-i", "gm0"]);
    assert!(careful.reason("capture_xdp_native").contains("not attached"));
    for (namespace, interface, mode, native) in
        [(&wire.grandmaster, "gm0", "native", "OK"), (&wire.client, "br0", "generic only", "SKIP")]
    {
        let before = state(namespace, interface);
        let report = doctor(namespace, &["-i", interface, "--try"]);
        assert_eq!(state(namespace, interface), before);
        assert!(report.reason("xdp_mode").starts_with(mode), "{:#?}", report.checks);
        assert_eq!(report.status("capture_xdp_native"), native);
        assert!(report.reason("capture_xdp_generic").contains("accepts the program"));
        assert_eq!(report.status.code(), Some(0));
    }
}

#[test]
fn running_ptp4l_is_named_as_owner_of_the_ports_and_as_possible_steerer() {
    let _machine = in_company();
    let wire = need!(Wire::new());
    let ptp4l = need!(Ptp4l::grandmaster(&wire.grandmaster, &["gm0"], &[]));
    let who = format!("ptp4l ({})", ptp4l.pid());
    let report = doctor(&wire.grandmaster, &["-i", "gm0"]);
    for name in ["ptp_ports", "clock_daemons"] {
        assert_eq!(report.status(name), "WARN");
        assert!(report.reason(name).contains(&who), "{:#?}", report.checks[name]);
    }
    assert_eq!(report.status.code(), Some(0));
    // The ports of another network namespace are free, the clock is the same.
    let other = doctor(&wire.client, &["-i", "ptp0"]);
    assert_eq!(other.status("ptp_ports"), "OK");
    assert!(other.reason("clock_daemons").contains(&who));
}

#[test]
fn missing_interface_is_exit_code_3() {
    let _machine = in_company();
    let wire = need!(Wire::new());
    let report = doctor(&wire.client, &["-i", "nothing0"]);
    assert_eq!(report.status.code(), Some(3));
    assert_eq!(report.status("interface"), "FAIL");
    assert_eq!(report.summary["fail"], 1);
}

#[test]
fn without_privileges_the_missing_ones_are_named_and_the_rest_is_still_read() {
    let _machine = in_company();
    let wire = need!(Wire::new());
    let setpriv = need!(bpf_tests::program("setpriv"));
    let mut command = wire.client.command(setpriv);
    command.args(["--bounding-set", "-all", "--inh-caps", "-all"]).arg(binary());
    command.args(["doctor", "-i", "ptp0"]);
    let (status, table, log) = run_to_end(command);
    assert_eq!(status.code(), Some(3), "{table}{log}");
    for line in [
        "FAIL  privileges_stamps     this process lacks CAP_BPF",
        "FAIL  privileges_ports      this process lacks CAP_NET_RAW",
        "SKIP  capture_stack         this process may not load",
        "OK    mtu                   1500 bytes",
    ] {
        assert!(table.contains(line), "{line}\n{table}{log}");
    }
}

#[test]
fn packet_filter_that_drops_ptp_is_a_failure_that_names_the_rule() {
    let _machine = in_company();
    let nft = need!(program("nft"));
    let wire = need!(Wire::new());
    let run = |rules: &str| output(wire.client.command(&nft).arg(rules));
    let firewall = || doctor(&wire.client, &["-i", "ptp0"]);
    assert_eq!(firewall().status("firewall"), "OK");
    run("table inet t { chain c { type filter hook input priority 0; policy accept; }; }");
    assert_eq!(firewall().status("firewall"), "OK");
    // Another interface and another protocol are no harm.
    run("add rule inet t c iifname other0 udp dport 319 drop");
    run("add rule inet t c tcp dport 319-320 drop");
    assert_eq!(firewall().status("firewall"), "OK");
    run("add rule inet t c udp dport { 53, 319 } counter drop");
    let report = firewall();
    assert_eq!(report.status("firewall"), "FAIL", "{:#?}", report.checks["firewall"]);
    assert!(report.reason("firewall").contains("319 coming in is dropped by rule"));
    assert!(report.reason("firewall").contains("of chain inet t c"));
    assert_eq!(report.status.code(), Some(3));
    // What is let pass before that is not dropped.
    run("insert rule inet t c iifname \"ptp*\" udp dport 319-320 accept");
    assert_eq!(firewall().status("firewall"), "OK");
    // What depends on the sender cannot be told.
    run("insert rule inet t c ip saddr 192.0.2.66 drop");
    assert_eq!(firewall().status("firewall"), "WARN");
    // On the way out too, and by policy.
    run("flush ruleset");
    run("table ip o { chain c { type filter hook output priority 0; policy drop; }; }");
    run("add rule ip o c udp dport 319 accept");
    let report = firewall();
    assert_eq!(report.status("firewall"), "FAIL");
    assert!(report.reason("firewall").contains("320 going out is dropped by the policy"));
}

#[test]
fn bridge_that_snoops_without_asking_is_told_of_itself_and_of_its_ports() {
    let _machine = in_company();
    let wire = need!(Wire::new());
    assert_eq!(doctor(&wire.client, &["-i", "ptp0"]).status("multicast_snooping"), "OK");
    wire.client.bridge("br0", &["ptp0"]).unwrap();
    for (snooping, querier, expected) in [(1, 0, "WARN"), (1, 1, "OK"), (0, 0, "OK")] {
        let switches = format!("mcast_snooping {snooping} mcast_querier {querier}");
        ip(&wire.client, &format!("link set br0 type bridge {switches}"));
        for interface in ["br0", "ptp0"] {
            let report = doctor(&wire.client, &["-i", interface]);
            let check = &report.checks["multicast_snooping"];
            assert_eq!(report.status("multicast_snooping"), expected, "{switches}: {check:#}");
            assert!(report.reason("multicast_snooping").contains("br0"));
        }
    }
    ip(&wire.client, "link set br0 multicast off");
    assert_eq!(doctor(&wire.client, &["-i", "br0"]).status("multicast_membership"), "WARN");
}

#[test]
fn running_agents_tell_of_grandmaster_alarms_losses_and_groups() {
    const PATIENCE: Duration = Duration::from_secs(20);
    let _machine = in_company();
    let wire = need!(Wire::new());
    let names = ["grandmaster", "time_scale", "agent_alarms", "agent_losses"];
    let report = doctor(&wire.client, &["-i", "ptp0"]);
    assert!(names.iter().all(|name| report.status(name) == "SKIP"), "{:#?}", report.checks);

    let mut agent = Agent::start(&wire.client, &["run", "-i", "ptp0", "--clock", "virtual"]);
    agent.wait_for_text(0, PATIENCE, "alarm raised alarm=\"no_announce\"");
    let report = doctor(&wire.client, &["-i", "ptp0"]);
    assert_eq!(report.status("grandmaster"), "WARN");
    assert!(report.reason("grandmaster").contains("hears no grandmaster"));
    assert!(report.reason("agent_alarms").contains("no_announce"), "{:#?}", report.checks);
    assert!(report.reason("multicast_membership").contains("224.0.1.129"));

    let serve = ["serve", "-i", "gm0", "--clock-class", "6", "--log-sync-interval", "-4"];
    let mut server = Agent::start(&wire.grandmaster, &serve);
    agent.wait_for_text(0, PATIENCE, "alarm cleared alarm=\"no_announce\"");
    agent.wait_for_samples(0, PATIENCE, 4);
    agent.wait_for(agent.mark(), PATIENCE, "the next second", |line| {
        line.text.contains("sample").then_some(())
    });
    std::thread::sleep(Duration::from_millis(1200));
    let report = doctor(&wire.client, &["-i", "ptp0"]);
    assert_eq!(report.status("grandmaster"), "OK", "{:#}", report.checks["grandmaster"]);
    assert!(report.reason("grandmaster").contains("clockClass 6, directly"));
    assert!(["OK", "WARN"].contains(&report.status("time_scale")));
    assert_ne!(report.status("agent_losses"), "SKIP");
    // The agents of another network namespace are not of this one.
    let other = doctor(&wire.grandmaster, &["-i", "gm0"]);
    assert_eq!(other.status("grandmaster"), "SKIP", "{:#?}", other.checks["grandmaster"]);
    agent.finish();
    server.finish();
}

#[test]
fn grandmaster_that_run_would_drop_is_not_ok() {
    let _machine = in_company();
    let wire = need!(Wire::new());
    let options = ["network_transport L2", "transportSpecific 0x1", "logAnnounceInterval -1"];
    let _gptp = need!(Ptp4l::grandmaster(&wire.grandmaster, &["gm0"], &options));
    let report = doctor(&wire.client, &["-i", "ptp0", "--listen", "3"]);
    let reason = report.reason("announces");
    assert_eq!(report.status("announces"), "WARN", "{reason}");
    assert!(reason.contains("sdoId 0x100 (gPTP)"), "{reason}");
}

#[test]
fn announce_in_another_vlan_and_dropped_by_the_kernel_are_told() {
    let _machine = in_company();
    let wire = need!(Wire::new());
    let filter = "/proc/sys/net/ipv4/conf/ptp0/rp_filter";
    wire.client.run(|| std::fs::write(filter, "1")).unwrap().unwrap();
    let socket = wire.grandmaster.run(|| FrameSocket::open("gm0")).unwrap().unwrap();
    let announce = message(Header::new(port(7), 1), announce(port(7).clock_identity, 1));
    let tags = vec![(ETHERTYPE_CTAG, 100)];
    let tagged = Recipe { tags, message: announce.clone(), ..Recipe::sync_on_ethernet() }.frame();
    let mut strange = Recipe { message: announce, ..Recipe::sync_on_udp4() };
    if let Payload::Ipv4 { addresses, ports, .. } = &mut strange.payload {
        // Nobody here knows a way to it.
        *addresses = [[203, 0, 113, 9], addresses[1]];
        *ports = [320, 320];
    }
    let (strange, end) = (strange.frame(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !end.load(Ordering::Relaxed) {
                socket.send(&tagged).unwrap();
                socket.send(&strange).unwrap();
                std::thread::sleep(Duration::from_millis(200));
            }
        });
        let report = doctor(&wire.client, &["-i", "ptp0", "--listen", "2"]);
        let reason = report.reason("announces");
        assert_eq!(report.status("announces"), "WARN", "{reason}");
        assert!(reason.contains("Announce in VLAN 100 over l2"), "{reason}");
        assert!(reason.contains("from 203.0.113.9 pass the hook"), "{reason}");
        // A running agent says the same with its alarm.
        let mut agent = Agent::start(&wire.client, &["run", "-i", "ptp0", "--clock", "virtual"]);
        let alarm = agent.wait_for_text(0, Duration::from_secs(30), "alarm=\"no_announce\"");
        for words in ["ipv4.conf.ptp0.rp_filter", "in VLAN 100"] {
            assert!(alarm.text.contains(words), "{}", alarm.text);
        }
        agent.finish();
        end.store(true, Ordering::Relaxed);
    });
}

#[test]
fn interface_without_ethernet_headers_is_refused_by_every_command() {
    let _machine = in_company();
    let wire = need!(Wire::new());
    ip(&wire.client, "tuntap add dev tun0 mode tun");
    ip(&wire.client, "link set tun0 up");
    ip(&wire.client, "address add 198.51.100.9/24 dev tun0");
    assert_eq!(doctor(&wire.client, &["-i", "tun0"]).status("link_type"), "FAIL");
    for command in ["run --clock virtual", "serve", "observe"] {
        let mut process = wire.client.command(binary());
        process.args(command.split(' ')).args(["-i", "tun0", "--duration", "1"]);
        let (status, output, log) = run_to_end(process);
        assert_eq!(status.code(), Some(3), "{command}: {output}{log}");
        assert!(log.contains("packets of tun0 have no Ethernet header"), "{command}: {log}");
    }
}

#[test]
fn listening_finds_the_grandmaster_before_any_agent_runs() {
    let _machine = in_company();
    let wire = need!(Wire::new());
    let serve = "serve -i gm0 --domain 5 --transport l2 --clock-class 6 --log-announce-interval -2";
    let mut server = Agent::start(&wire.grandmaster, &serve.split(' ').collect::<Vec<_>>());
    let report = doctor(&wire.client, &["-i", "ptp0", "--listen", "2"]);
    let reason = report.reason("announces");
    assert!(reason.contains("domain 5 over l2") && reason.contains("clockClass 6"), "{reason}");
    assert_eq!(report.status("announces"), "OK", "{reason}");
    server.finish();
    let report = doctor(&wire.client, &["-i", "ptp0", "--listen", "1"]);
    assert_eq!(report.status("announces"), "WARN", "{}", report.reason("announces"));
    // One who has the ports is to be asked instead.
    let _agent = Agent::start(&wire.client, &["run", "-i", "ptp0", "--clock", "virtual"]);
    let report = doctor(&wire.client, &["-i", "ptp0", "--listen", "1"]);
    assert_eq!(report.status("announces"), "SKIP");
    assert!(report.reason("announces").contains("319"), "{}", report.reason("announces"));
}
