//! `compare` as its user runs it: beside ptp4l, whose packets it sees, with probes of its own, with
//! XDP, on the port of a bridge, and in its laboratory. Needs root.

use std::{fs, os::unix::process::CommandExt, process::Command, time::Duration};

use bpf_tests::{
    agent::{Agent, START, binary, run_to_end},
    alone,
    children::Stream,
    in_company,
    links::Wire,
    need,
    ptp4l::{CLIENT, Ptp4l, TRANSPORTS},
};
use ptp_agent::lab::netns::Namespace;
use serde_json::Value;

/// The kernel's own stamps, as the JSON lines name them.
const KERNEL: &str = "so_timestamping_software";
/// Long enough for anything that ends by itself here.
const PATIENCE: Duration = Duration::from_secs(60);

/// JSON lines of a `compare` that ends by itself.
struct Lines(Vec<Value>);

impl Lines {
    fn of(mut compare: Agent) -> Self {
        let status = compare.wait(PATIENCE);
        assert!(status.success(), "{status}\n{}", compare.last_words());
        let lines = compare.lines();
        let output = lines.iter().filter(|line| line.stream == Stream::Output);
        let lines = Self(output.map(|line| serde_json::from_str(&line.text).unwrap()).collect());
        lines.end_with_summaries();
        lines
    }

    fn events(&self, event: &str) -> Vec<&Value> {
        self.0.iter().filter(|line| line["event"] == event).collect()
    }

    fn end_with_summaries(&self) {
        let first = self.0.iter().position(|line| line["event"] == "summary");
        let first = first.unwrap_or_else(|| panic!("no summary in {:?}", self.0));
        for line in &self.0[first..] {
            assert_eq!(line["event"], "summary");
            assert!(["rx", "tx"].contains(&line["direction"].as_str().unwrap()), "{line}");
            for field in ["mean", "sd", "p50", "p99"] {
                assert!(line["difference_ns"][field].is_f64(), "{line}");
            }
        }
    }

    /// The summary of a comparison; `primed` null for packets of other daemons.
    fn row(&self, direction: &str, source: &str, reference: &str, primed: Option<bool>) -> &Value {
        self.find(direction, source, reference, primed)
            .unwrap_or_else(|| panic!("no {direction} {source} - {reference} in {:#?}", self.0))
    }

    fn find(
        &self,
        direction: &str,
        source: &str,
        reference: &str,
        primed: Option<bool>,
    ) -> Option<&Value> {
        let primed = primed.map_or(Value::Null, Value::Bool);
        self.events("summary").into_iter().find(|line| {
            line["direction"] == direction
                && line["source"] == source
                && line["reference"] == reference
                && line["primed"] == primed
        })
    }
}

fn n(row: &Value) -> u64 {
    row["n"].as_u64().unwrap()
}

fn difference(row: &Value, figure: &str) -> f64 {
    row["difference_ns"][figure].as_f64().unwrap()
}

/// Starts `compare` on `ptp0` and waits until it compares.
fn compare(namespace: &Namespace, arguments: &[&str]) -> Agent {
    let arguments: Vec<&str> = ["compare"].iter().chain(arguments).copied().collect();
    let compare = Agent::start_only(namespace, &arguments);
    compare.wait_for_text(0, START, "comparing");
    compare
}

fn ptp4l_is_compared(transport: usize) {
    let _machine = in_company();
    let wire = need!(Wire::new());
    let (_, network_transport) = TRANSPORTS[transport];
    let option = format!("network_transport {network_transport}");
    let _grandmaster = need!(Ptp4l::grandmaster(&wire.grandmaster, &["gm0"], &[&option]));
    let client = need!(Ptp4l::start(&wire.client, &["ptp0"], &[CLIENT, &option]));
    client.wait_for_text(0, Duration::from_secs(20), "master offset");
    let mark = client.mark();
    let lines = Lines::of(compare(&wire.client, &["-i", "ptp0", "--count", "48"]));

    // Stack and socket show one and the same stamp.
    let stack = lines.row("rx", "stack", KERNEL, None);
    assert!(n(stack) >= 48, "{stack}");
    assert_eq!(difference(stack, "max"), 0.0);
    assert_eq!(difference(stack, "min"), 0.0);
    let tc = lines.row("rx", "tc_ingress", KERNEL, None);
    assert!(n(tc) >= 48 && difference(tc, "min") > 0.0, "{tc}");

    // In the order in which a packet passes; nobody but ptp4l gets the driver's stamps.
    let egress = lines.row("tx", "tc_egress", "outgoing_copy", None);
    assert!(n(egress) >= 24 && difference(egress, "max") < 0.0, "{egress}");
    let start = lines.row("tx", "start_xmit", "outgoing_copy", None);
    assert!(difference(start, "min") > 0.0, "{start}");
    let done = lines.row("tx", "xmit_done", "start_xmit", None);
    assert!(n(done) >= 24 && difference(done, "min") > 0.0, "{done}");
    assert!(lines.find("tx", "xmit_done", KERNEL, None).is_none());

    let measurement = lines.events("measurement")[0];
    assert_eq!(measurement["lost"]["ring"], 0, "{measurement}");
    // The daemon has not noticed.
    client.wait_for_text(mark, Duration::from_secs(5), "master offset");
    let log = client.last_words();
    assert!(!log.contains("FAULT") && !log.contains("timed out"), "{log}");
}

#[test]
fn ptp4l_is_compared_over_ipv4() {
    ptp4l_is_compared(0);
}

#[test]
fn ptp4l_is_compared_over_ipv6() {
    ptp4l_is_compared(1);
}

#[test]
fn ptp4l_is_compared_over_ethernet() {
    ptp4l_is_compared(2);
}

fn probes_have_the_drivers_stamps(transport: usize) {
    let _machine = in_company();
    let wire = need!(Wire::new());
    let (name, network_transport) = TRANSPORTS[transport];
    let option = format!("network_transport {network_transport}");
    let _grandmaster = need!(Ptp4l::grandmaster(&wire.grandmaster, &["gm0"], &[&option]));
    let arguments = ["-i", "ptp0", "--probe", "--transport", name, "--prime", "both"];
    let more = ["--duration", "6", "--no-copies", "--packets"];
    let lines =
        Lines::of(compare(&wire.client, &arguments.into_iter().chain(more).collect::<Vec<_>>()));
    for primed in [false, true] {
        // One per second, until the grandmaster says that it wants 16.
        let start = lines.row("tx", "start_xmit", KERNEL, Some(primed));
        assert!(n(start) >= 12, "{start}");
        // The driver stamps between being called and returning: every stamp has found its packet.
        assert!(difference(start, "max") <= 0.0, "{start}");
        let done = lines.row("tx", "xmit_done", KERNEL, Some(primed));
        assert_eq!(n(done), n(start));
        assert!(difference(done, "min") >= 0.0, "{done}");
    }
    let packets = lines.events("packet");
    assert!(packets.iter().any(|line| line["rx_ns"]["stack"].is_i64()));
    assert!(packets.iter().any(|line| line["tx_ns"][KERNEL].is_i64() && line["primed"] == true));
    assert!(lines.find("tx", "start_xmit", "outgoing_copy", Some(false)).is_none());
    // The grandmaster's Sync, which no daemon here listens to but the probe.
    assert!(n(lines.row("rx", "stack", KERNEL, None)) >= 48);
    let measurement = lines.events("measurement")[0];
    assert_eq!(measurement["lost"]["send_error"], 0, "{measurement}");
}

#[test]
fn probes_have_the_drivers_stamps_over_ipv4() {
    probes_have_the_drivers_stamps(0);
}

#[test]
fn probes_have_the_drivers_stamps_over_ipv6() {
    probes_have_the_drivers_stamps(1);
}

#[test]
fn probes_have_the_drivers_stamps_over_ethernet() {
    probes_have_the_drivers_stamps(2);
}

#[test]
fn xdp_stamps_are_compared() {
    let _machine = in_company();
    let wire = need!(Wire::new());
    let _grandmaster = need!(Ptp4l::grandmaster(&wire.grandmaster, &["gm0"], &[]));
    // Nobody has joined the multicast groups on this side; the probe does.
    for (mode, source) in [("native", "xdp_native"), ("generic", "xdp_generic")] {
        let arguments = ["-i", "ptp0", "--xdp", mode, "--probe", "--duration", "3"];
        let lines = Lines::of(compare(&wire.client, &arguments));
        let row = lines.row("rx", "tc_ingress", source, None);
        assert!(n(row) >= 16 && difference(row, "min") > 0.0, "{row}");
        assert!(n(lines.row("rx", source, KERNEL, None)) >= 16);
    }
}

#[test]
fn port_of_a_bridge_has_receive_stamps_of_the_kernel_too() {
    let _machine = in_company();
    let wire = need!(Wire::new());
    wire.client.bridge("br0", &["ptp0"]).unwrap();
    let _grandmaster = need!(Ptp4l::grandmaster(&wire.grandmaster, &["gm0"], &[]));
    let lines = Lines::of(compare(&wire.client, &["-i", "ptp0", "--duration", "4"]));
    let stack = lines.row("rx", "stack", KERNEL, None);
    assert!(n(stack) >= 16, "{stack}");
    assert_eq!(difference(stack, "max"), 0.0);
    assert_eq!(lines.events("measurement")[0]["copies_before_tc_ingress"], true);
}

#[test]
fn laboratory_tells_residuals_exchanges_and_ratios() {
    let _machine = alone();
    let directory = tempfile::tempdir().unwrap();
    let page = directory.path().join("page.html");
    let mut command = Command::new(binary());
    command
        .args(["compare", "--lab", "--json", "--load", "0", "--count", "40", "--html"])
        .arg(&page);
    let (status, output, log) = run_to_end(command);
    if status.code() == Some(3) {
        bpf_tests::skipped(&log);
        return;
    }
    assert!(status.success(), "{log}");
    let lines = Lines(output.lines().map(|line| serde_json::from_str(line).unwrap()).collect());
    lines.end_with_summaries();
    for link in ["veth", "bridge"] {
        for primed in [false, true] {
            let is_here = |line: &&&Value| line["link"] == link && line["primed"] == primed;
            let residuals = lines.events("residual");
            for tx in ["start_xmit", "xmit_done", "tc_egress"] {
                let row = residuals
                    .iter()
                    .filter(is_here)
                    .find(|line| line["tx_source"] == tx && line["rx_source"] == KERNEL)
                    .unwrap_or_else(|| panic!("no {tx} on {link}"));
                // Both directions of every exchange.
                assert_eq!(row["n"], 80, "{row}");
                assert_eq!(row["disturbance"], "idle");
            }
            // The stack's stamp *is* the kernel's.
            let ratios = lines.events("ratio");
            let mut stack = ratios.iter().filter(is_here).filter(|line| line["source"] == "stack");
            assert!(stack.all(|line| line["sd_ratio"] == 1.0));
            // A witness that all this is about time on one clock: microseconds, not offsets.
            let exchanges = lines.events("exchange");
            let best = exchanges
                .iter()
                .filter(is_here)
                .find(|line| line["tx_source"] == "xmit_done" && line["rx_source"] == "stack")
                .unwrap();
            assert_eq!(best["n"], 40, "{best}");
            assert!(best["offset_ns"]["p50"].as_f64().unwrap().abs() < 20_000.0, "{best}");
        }
    }
    let on_bridge = |line: &&&Value| line["link"] == "bridge" && line["reference_link"] == "veth";
    assert!(lines.events("ratio").iter().filter(on_bridge).count() >= 6);
    let html = fs::read_to_string(&page).unwrap();
    assert!(html.matches("<svg").count() >= 8 && html.ends_with("</html>"));
    assert!(!html.contains("src=") && !html.contains("<script"));
}

#[test]
fn text_says_what_it_cannot_compare() {
    let _machine = in_company();
    let wire = need!(Wire::new());
    let _grandmaster = need!(Ptp4l::grandmaster(&wire.grandmaster, &["gm0"], &[]));
    let mut command = wire.grandmaster.command(binary());
    command.args(["compare", "-i", "gm0", "--duration", "2"]);
    let (status, output, log) = run_to_end(command);
    assert!(status.success(), "{log}");
    assert!(output.contains("outgoing_copy"), "{output}");
    assert!(output.contains("No transmit stamps of the driver"), "{output}");
}

#[test]
fn what_cannot_be_done_is_refused_with_the_right_exit_code() {
    let run = |arguments: &[&str]| {
        let mut command = Command::new(binary());
        command.arg("compare").args(arguments);
        run_to_end(command)
    };
    for arguments in [&[][..], &["--lab", "--probe"], &["-i", "lo", "--lab"], &["--flood"]] {
        let (status, _, log) = run(arguments);
        assert_eq!(status.code(), Some(2), "{arguments:?}: {log}");
    }
    let (status, _, log) = run(&["-i", "nothing0"]);
    assert_eq!(status.code(), Some(3), "{log}");
    assert!(log.contains("nothing0"), "{log}");
}

#[test]
fn missing_privileges_and_hardware_are_named() {
    let wire = need!(Wire::new());
    let mut command = wire.client.command(binary());
    command.args(["compare", "-i", "ptp0", "--hardware"]);
    let (status, _, log) = run_to_end(command);
    assert_eq!(status.code(), Some(3), "{log}");
    assert!(log.contains("hardware timestamps of ptp0"), "{log}");

    let copy = tempfile::Builder::new().prefix("agent").tempdir().unwrap();
    let file = copy.path().join("ptp-agent");
    // Where the build is may be nobody's business.
    fs::copy(binary(), &file).unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(copy.path(), open).unwrap();
    let mut command = Command::new(&file);
    command.args(["compare", "-i", "lo"]).uid(65_534).gid(65_534);
    let (status, _, log) = run_to_end(command);
    assert_eq!(status.code(), Some(3), "{log}");
    assert!(log.contains("CAP_BPF"), "{log}");
}
