//! Authenticated messages with linuxptp's, in both directions and with every algorithm; keys that change
//! while time is kept; and those who have no key. Needs root, and for the peers a ptp4l that authenticates.

use std::{
    fs,
    net::Ipv4Addr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use bpf_tests::{
    agent::{Agent, SERVE},
    forge::{Party, announce, message, port},
    in_company,
    links::{Star, Wire, output},
    need,
    ptp4l::{CLIENT, GRANDMASTER, Ptp4l, authenticating},
};
use nix::sys::signal::Signal;
use ptp_common::wire::Header;
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(30);
const ATTACKER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 3);
/// One association with a key of every algorithm, as linuxptp has it.
const KEYS: &str = "[security_association]\nspp 1\n\
    1 AES128 HEX:FAF48EBA01E7C5966A76CB787AED4E7B\n\
    2 AES256 B64:PKTF9VQz94qPaoAzW4eE3JtFoQ8Ov1OTQSojalWyMbs=\n\
    3 SHA256-128 HEX:F8ADC6B8B8E9AA709106BA42481EC9E29607334DE2C3C737A11A12931DB27F8C\n\
    4 SHA256 26 abcdefghijklmnopqrstuvwxyz\n";
/// A key file with this content.
fn key_file(directory: &TempDir, name: &str, content: &str) -> PathBuf {
    let path = directory.path().join(name);
    fs::write(&path, content).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path
}

/// `arguments` with keys in `file`, which are required.
fn with_keys(arguments: &[&str], file: &Path, key: &str) -> Vec<String> {
    let mut all: Vec<String> = arguments.iter().map(|each| (*each).to_owned()).collect();
    let file = file.to_str().unwrap();
    all.extend(["--security", file, "--security-require", "--security-key", key].map(String::from));
    all
}

fn ptp4l_keys(file: &Path, key: &str) -> String {
    format!("sa_file {}\nspp 1\nactive_key_id {key}\n", file.display())
}

#[test]
fn ptp4l_that_authenticates_is_followed_and_follows_with_every_algorithm() {
    let _machine = in_company();
    let directory = tempfile::tempdir().unwrap();
    let keys = &key_file(&directory, "keys", KEYS);
    let wires: Vec<Wire> = need!((0..5).map(|_| Wire::new()).collect());
    need!(authenticating(&wires[0].client, "ptp4l"));
    thread::scope(|scope| {
        for (wire, key) in wires.iter().zip(["1", "2", "3", "4"]) {
            scope.spawn(move || {
                let options = [GRANDMASTER, &ptp4l_keys(keys, key)];
                let _grandmaster =
                    Ptp4l::start_authenticating(&wire.grandmaster, &["gm0"], &options).unwrap();
                let run = with_keys(&["run", "-i", "ptp0", "--clock", "virtual"], keys, key);
                let mut agent = Agent::start(&wire.client, &run);
                agent.wait_for_state(0, PATIENCE, "time_receiver");
                let samples = agent.wait_for_samples(0, PATIENCE, 20);
                let summary = agent.finish();
                println!("key {key}: {}\n{summary}", samples.len());
                assert!(summary["authentication"]["verified"].as_u64() > Some(100));
                assert_eq!(summary["authentication"]["refused"], serde_json::json!({}));
                assert!(summary["lost"]["unanswered_delay_req"].as_u64().unwrap_or(0) < 3);
            });
        }
        let wire = &wires[4];
        scope.spawn(move || {
            let mut serve = SERVE;
            serve[2] = "gm0";
            let mut agent = Agent::start(&wire.grandmaster, &with_keys(&serve, keys, "4"));
            let options = [CLIENT, &ptp4l_keys(keys, "1")];
            let client = Ptp4l::start_authenticating(&wire.client, &["ptp0"], &options).unwrap();
            client.wait_for(0, PATIENCE, "offset with a delay", |line| {
                (line.text.contains("master offset") && !line.text.contains("delay         0"))
                    .then_some(())
            });
            println!("serve: {}", agent.finish());
        });
    });
}

#[test]
fn who_has_another_key_or_none_is_refused_counted_and_an_alarm_without_a_line_for_each() {
    let _machine = in_company();
    let directory = tempfile::tempdir().unwrap();
    let keys = key_file(&directory, "keys", KEYS);
    let others = key_file(&directory, "others", &KEYS.replace("FAF4", "0000"));
    let star = need!(Star::new(3));
    let [grandmaster, client, attacker] = &star.leaves[..] else { unreachable!() };
    let mut server = Agent::start(grandmaster, &with_keys(&SERVE, &others, "1"));
    let mut agent =
        Agent::start(client, &with_keys(&["run", "-i", "eth0", "--clock", "virtual"], &keys, "1"));
    let party = Party::new(attacker, ATTACKER);
    let begun = Instant::now();
    let mut sequence_id = 0;
    let is_raised = |agent: &Agent| {
        let lines = agent.lines();
        let alarm = |line: &&str| line.contains("authentication_failed");
        lines.iter().map(|line| line.text.as_str()).any(|line| alarm(&line))
    };
    while !is_raised(&agent) {
        assert!(begun.elapsed() < PATIENCE, "{}", agent.last_words());
        let best = port(0x11);
        let header = Header::new(best, sequence_id);
        party.general(&message(header, announce(best.clock_identity, 1)));
        sequence_id += 1;
        thread::sleep(Duration::from_millis(20));
    }
    println!("alarm after {:.1} s", begun.elapsed().as_secs_f64());
    let lines = agent.lines().len();
    assert!(lines < 30, "{lines} lines");
    let summary = agent.finish();
    println!("run: {summary}\nserve: {}", server.finish());
    assert!(summary["lost"]["auth_missing"].as_u64() > Some(10), "{summary}");
    assert!(summary["lost"]["auth_failed"].as_u64() > Some(10), "{summary}");
    assert_eq!(summary["samples"], 0, "{summary}");
}

#[test]
fn keys_change_at_sighup_on_both_sides_without_losing_lock() {
    let _machine = in_company();
    let directory = tempfile::tempdir().unwrap();
    let line = |at: usize| KEYS.lines().nth(at).unwrap();
    let only = |at: usize| format!("[security_association]\nspp 1\n{}\n", line(at));
    let server_keys = key_file(&directory, "server", &only(2));
    let client_keys = key_file(&directory, "client", &only(2));
    let wire = need!(Wire::new());
    let with = |arguments: &[&str], file: &Path| {
        let mut all = with_keys(arguments, file, "1");
        all.truncate(all.len() - 2);
        all
    };
    let mut serve = SERVE;
    serve[2] = "gm0";
    let mut server = Agent::start(&wire.grandmaster, &with(&serve, &server_keys));
    let run = with(&["run", "-i", "ptp0", "--clock", "virtual"], &client_keys);
    let mut agent = Agent::start(&wire.client, &run);
    agent.wait_for_state(0, PATIENCE, "time_receiver");
    let mark = agent.mark();
    // The new key everywhere, then first in the list and so the one that signs, then alone.
    let both = format!("{}{}\n", only(2), line(3));
    let other = format!("{}{}\n", only(3), line(2));
    for content in [both, other, only(3)] {
        for (party, file) in [(&agent, &client_keys), (&server, &server_keys)] {
            let mark = party.mark();
            fs::write(file, &content).unwrap();
            party.signal(Signal::SIGHUP);
            party.wait_for_text(mark, PATIENCE, "authentication keys=");
        }
        agent.wait_for_samples(agent.mark(), PATIENCE, 8);
    }
    // A file that cannot be used changes nothing.
    fs::write(&client_keys, "[security_association]\nspp 1\n1 AES128 short\n").unwrap();
    let broken = agent.mark();
    agent.signal(Signal::SIGHUP);
    agent.wait_for_text(broken, PATIENCE, "the old settings stay");
    agent.wait_for_samples(agent.mark(), PATIENCE, 8);
    for line in &agent.lines()[mark..] {
        assert!(!line.text.contains("port state"), "{}", line.text);
    }
    let summary = agent.finish();
    println!("run: {summary}\nserve: {}", server.finish());
    assert_eq!(summary["authentication"]["key"], 2);
}

#[test]
fn observer_with_the_keys_checks_what_passes_and_pmc_signs_what_it_asks() {
    let _machine = in_company();
    let directory = tempfile::tempdir().unwrap();
    let keys = key_file(&directory, "keys", KEYS);
    let wire = need!(Wire::new());
    let mut pmc = need!(authenticating(&wire.grandmaster, "pmc"));
    let socket = directory.path().join("management");
    let mut serve = SERVE.to_vec();
    serve[2] = "gm0";
    serve.extend(["--management-socket", socket.to_str().unwrap()]);
    let mut server = Agent::start(&wire.grandmaster, &with_keys(&serve, &keys, "3"));
    let run = with_keys(&["run", "-i", "ptp0", "--clock", "virtual"], &keys, "2");
    let mut agent = Agent::start(&wire.client, &run);
    let observe = with_keys(&["observe", "-i", "ptp0"], &keys, "1");
    let mut observer = Agent::start(&wire.client, &observe);
    agent.wait_for_state(0, PATIENCE, "time_receiver");
    observer.wait_for_samples(0, PATIENCE, 5);

    let file = keys.to_str().unwrap();
    pmc.args(["-u", "-b", "0", "-s", socket.to_str().unwrap()]);
    pmc.args(["--spp", "1", "--active_key_id", "4", "--sa_file", file, "GET PRIORITY1"]);
    let answer = output(&mut pmc);
    println!("pmc: {answer}");
    assert!(answer.contains("priority1 128"), "{answer}");
    let mut unsigned = wire.grandmaster.command(need!(bpf_tests::program("pmc")));
    unsigned.args(["-u", "-b", "0", "-t", "0", "-s", socket.to_str().unwrap(), "GET PRIORITY1"]);
    let answer = output(&mut unsigned);
    assert!(!answer.contains("RESPONSE"), "{answer}");

    let observed = observer.finish();
    println!("observe: {observed}\nrun: {}\nserve: {}", agent.finish(), server.finish());
    for cause in ["auth_missing", "auth_failed", "auth_replayed"] {
        assert_eq!(observed["lost"].get(cause), None, "{observed}");
    }
}
