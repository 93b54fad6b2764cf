//! NTP as it is asked by other ways than by UDP port 123 over IPv4: with NTS (chronyd of the distribution gives the keys), by
//! messages of PTP, over IPv6, and by a name that leads elsewhere after a while. All namespaces share one clock, so the
//! truth is an offset of zero. Needs root.

use std::{
    fs,
    net::IpAddr,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use bpf_tests::{
    agent::{self, Agent},
    alone,
    authority::Authority,
    children::Running,
    chrony::Chronyd,
    in_company,
    links::{Wire, ip},
    need, newer, program,
};
use ptp_agent::publish::local::read_status;
use serde_json::Value;

/// How long the agent and chronyd may take.
const PATIENCE: Duration = Duration::from_secs(40);

fn follow<'a>(server: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let run = ["run", "-i", "ptp0", "--follow", "ntp", "--clock", "virtual", "--ntp-poll", "-3"];
    [&run[..], &["--ntp", server], more].concat()
}

fn locked(agent: &Agent, mark: usize) -> Value {
    let sample =
        agent.wait_for_sample(mark, PATIENCE, "locked", |sample| sample["state"] == "locked");
    let offset = sample["offset_ns"].as_f64().unwrap_or(f64::NAN);
    assert!(offset.abs() < 1e6, "{sample}");
    sample
}

/// How many of its exchanges are interleaved, and that all have stamps of the kernel programs.
fn interleaved(agent: &Agent) -> usize {
    let exchanges = agent.events(0, "ntp");
    let is_ours = |line: &Value| line["tx_source"] != "driver_software";
    assert!(exchanges.iter().all(is_ours), "{exchanges:?}");
    exchanges.iter().filter(|line| line["kind"] == "interleaved").count()
}

fn wait_for_exchanges(agent: &Agent, mark: usize, count: usize) {
    let mut seen = 0;
    agent.wait_for(mark, PATIENCE, "exchanges", |line| {
        seen += usize::from(line.text.starts_with("{\"event\":\"ntp\""));
        (seen >= count).then_some(())
    });
}

/// What the status says of the server, once that is as it should be: it is written each second.
fn status_of(socket: &Path, wanted: impl Fn(&Value) -> bool) -> Value {
    let start = Instant::now();
    loop {
        let said = read_status(socket).expect("its status")["ntp"][0].clone();
        if wanted(&said) {
            return said;
        }
        assert!(start.elapsed() < PATIENCE, "{said}");
        // Nobody says when it is written.
        thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn keys_and_time_come_from_chronyd_and_again_when_it_has_forgotten_its_keys() {
    let _machine = alone();
    let wire = need!(Wire::new());
    let authority = Authority::new();
    let files = authority.certify("192.0.2.1");
    let mut server = need!(Chronyd::nts_server(&wire.grandmaster, &files));
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("status");
    let (ca, path) = (authority.file(), socket.display().to_string());
    let options = ["--ntp-nts-ca", &ca, "--status-socket", &path];
    let mut client = Agent::start_only(&wire.client, &follow("nts:192.0.2.1", &options));
    locked(&client, 0);
    let asked = status_of(&socket, |it| it["nts"]["state"] == "protected");
    assert_eq!((&asked["name"], &asked["nts"]["problem"]), (&"nts:192.0.2.1".into(), &Value::Null));
    let answered = asked["nts"]["authentic"].as_u64();
    assert!(answered >= asked["exchanges"].as_u64() && answered > Some(0), "{asked}");
    assert!(interleaved(&client) > 0);
    // Its keys are in its memory alone.
    server.running().stop();
    let mark = client.mark();
    let mut server = need!(Chronyd::nts_server(&wire.grandmaster, &files));
    client.wait_for_text(mark, PATIENCE, "NTS: keys");
    let mark = client.mark();
    locked(&client, mark);
    status_of(&socket, |it| {
        it["nts"]["state"] == "protected" && it["nts"]["key_exchanges"].as_u64() >= Some(2)
    });
    client.finish();
    server.running().stop();
}

#[test]
fn a_server_whose_certificate_is_of_somebody_else_is_not_asked_for_time() {
    let _machine = in_company();
    let wire = need!(Wire::new());
    let authority = Authority::new();
    let mut server = need!(Chronyd::nts_server(&wire.grandmaster, &authority.certify("192.0.2.9")));
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("status");
    let (ca, path) = (authority.file(), socket.display().to_string());
    let options = ["--ntp-nts-ca", &ca, "--status-socket", &path];
    let mut client = Agent::start_only(&wire.client, &follow("nts:192.0.2.1", &options));
    let said = client.wait_for_text(0, PATIENCE, "NTS: no keys");
    assert!(said.text.contains("certificate"), "{}", said.text);
    let asked = status_of(&socket, |it| it["nts"]["state"] == "failed");
    assert_eq!(asked["exchanges"], 0);
    let mut shown = wire.client.command(agent::binary());
    let (_, text, _) = agent::run_to_end({
        shown.args(["status", "--status-socket", &path]);
        shown
    });
    assert!(text.contains("NTS: no keys"), "{text}");
    client.finish();
    assert!(client.events(0, "ntp").is_empty());
    server.running().stop();
}

#[test]
fn messages_of_ptp_carry_ntp_beside_ptp_on_the_same_port_and_without() {
    let _machine = alone();
    let wire = need!(Wire::new());
    let serve = ["serve", "-i", "gm0", "--ntp", "--ntp-stratum", "1", "--clock", "system"];
    let rates = ["--log-sync-interval", "-3", "--log-announce-interval", "-2"];
    let mut server = Agent::start(&wire.grandmaster, &[&serve[..], &rates[..]].concat());
    server.wait_for_text(0, PATIENCE, "serving NTP");
    let mut client = Agent::start_only(&wire.client, &follow("ptp:192.0.2.1", &[]));
    locked(&client, 0);
    client.finish();
    assert!(interleaved(&client) > 0);
    let run = ["run", "-i", "ptp0", "--clock", "virtual", "--ntp", "ptp:192.0.2.1"];
    let mut client = Agent::start(&wire.client, &[&run[..], &["--ntp-poll", "-3"]].concat());
    let sample = locked(&client, 0);
    assert_eq!(sample["source"], "ptp");
    wait_for_exchanges(&client, 0, 8);
    assert!(interleaved(&client) > 0);
    client.finish();
    server.finish();
}

#[test]
fn chronyd_4_9_answers_what_messages_of_ptp_carry() {
    let _machine = alone();
    let wire = need!(Wire::new());
    let mut server = need!(Chronyd::ptp_server(&wire.grandmaster));
    let mut client = Agent::start_only(&wire.client, &follow("ptp:192.0.2.1", &[]));
    locked(&client, 0);
    client.finish();
    assert!(interleaved(&client) > 0);
    server.running().stop();
}

/// Without a source it never touches the host's clock, and without CAP_SYS_TIME it could not.
#[test]
fn time_and_keys_come_from_ntpd_rs() {
    let _machine = alone();
    let wire = need!(Wire::new());
    let daemon = need!(newer("ntpd-rs", "bin/ntp-daemon"));
    let setpriv = need!(program("setpriv"));
    let authority = Authority::new();
    let [key, certificate] = authority.certify("192.0.2.1");
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ntp.toml");
    let plain = "[synchronization]\nlocal-stratum = 1\n[[server]]\nlisten = \"192.0.2.1:123\"\n";
    let nts = format!(
        "[[nts-ke-server]]\nlisten = \"192.0.2.1:4460\"\ncertificate-chain-path = \"{certificate}\"\nprivate-key-path = \"{key}\"\n"
    );
    fs::write(&file, format!("{plain}{nts}")).unwrap();
    let mut command = wire.grandmaster.command(setpriv);
    command.args(["--bounding-set", "-sys_time", "--inh-caps", "-sys_time", "--"]);
    command.args(daemon).arg("--config").arg(file);
    let mut server = Running::start("ntp-daemon", &mut command);
    let mut client = Agent::start_only(&wire.client, &follow("192.0.2.1", &[]));
    locked(&client, 0);
    client.finish();
    let ca = authority.file();
    let mut client =
        Agent::start_only(&wire.client, &follow("nts:192.0.2.1", &["--ntp-nts-ca", &ca]));
    locked(&client, 0);
    client.finish();
    server.stop();
}

#[test]
fn servers_are_asked_and_serve_over_ipv6() {
    let _machine = alone();
    let wire = need!(Wire::new());
    let address = |text: &str| text.parse::<IpAddr>().unwrap();
    wire.grandmaster.add_address("gm0", address("2001:db8::1"), 64).unwrap();
    wire.client.add_address("ptp0", address("2001:db8::2"), 64).unwrap();
    let serve = ["serve", "-i", "gm0", "--ntp", "--ntp-stratum", "1", "--clock", "system"];
    let mut server = Agent::start(&wire.grandmaster, &serve);
    server.wait_for_text(0, PATIENCE, "serving NTP");
    let mut client = Agent::start_only(&wire.client, &follow("2001:db8::1", &[]));
    locked(&client, 0);
    let mut other =
        need!(Chronyd::client(&wire.client, "2001:db8::1", "minpoll -4 maxpoll -4 xleave"));
    let start = Instant::now();
    while other.measurements().iter().filter(|it| it.mode == "4I").count() < 4 {
        assert!(start.elapsed() < PATIENCE, "{:?}", other.measurements());
        // It writes a log, and nobody can wait for a line in it.
        thread::sleep(Duration::from_millis(100));
    }
    other.running().stop();
    client.finish();
    assert!(interleaved(&client) > 0);
    server.finish();
}

#[test]
fn a_name_that_leads_elsewhere_is_followed_when_nobody_answers_any_more() {
    let _machine = in_company();
    let wire = need!(Wire::new());
    let unshare = need!(program("unshare"));
    let mut server = need!(Chronyd::server(&wire.grandmaster));
    let directory = tempfile::tempdir().unwrap();
    let hosts = directory.path().join("hosts");
    fs::write(&hosts, "192.0.2.1 time.test\n").unwrap();
    // The agent alone sees these names.
    let mut command = wire.client.command(unshare);
    let script = "mount --bind \"$1\" /etc/hosts && shift && exec \"$@\"";
    command.args(["--mount", "sh", "-c", script, "sh"]).arg(&hosts).arg(agent::binary());
    command.arg("--json").args(follow("time.test", &[]));
    let mut client = Agent::from_running(Running::start("agent run", &mut command));
    locked(&client, 0);
    // The second address of a network goes with the first.
    ip(&wire.grandmaster, "address del 192.0.2.1/24 dev gm0");
    ip(&wire.grandmaster, "address add 192.0.2.3/24 dev gm0");
    fs::write(&hosts, "192.0.2.3 time.test\n").unwrap();
    let mark = client.mark();
    client.wait_for_text(mark, PATIENCE, "to=192.0.2.3:123");
    let mark = client.mark();
    wait_for_exchanges(&client, mark, 1);
    client.finish();
    server.running().stop();
}
