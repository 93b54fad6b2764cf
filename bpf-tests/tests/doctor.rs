//! `ptp-agent doctor` on real interfaces of each kind, in namespaces. Needs root.

use std::{collections::BTreeMap, process::ExitStatus, time::Duration};

use bpf_tests::{
    agent::{binary, run_to_end},
    in_company,
    links::{Wire, ip},
    need,
    ptp4l::{CLIENT, Ptp4l},
};
use ptp_agent::lab::netns::Namespace;
use serde_json::Value;

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
        "FAIL  privileges_stamps    this process lacks CAP_BPF",
        "FAIL  privileges_ports     this process lacks CAP_NET_RAW",
        "SKIP  capture_stack        this process may not load",
        "OK    mtu                  1500 bytes",
    ] {
        assert!(table.contains(line), "{line}\n{table}{log}");
    }
}
