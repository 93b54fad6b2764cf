//! NTP between the agent and chronyd of the distribution, which is told not to steer (`-x`) and cannot: the agent follows
//! it, is followed by it, and finds by it that a grandmaster lies. All namespaces share one clock, so the truth is an
//! offset of zero. Needs root.

use std::{
    net::UdpSocket,
    process::Command,
    time::{Duration, Instant},
};

use bpf_tests::{
    agent::{self, Agent},
    alone,
    chrony::Chronyd,
    links::Wire,
    need,
};
use ptp_common::ntp::{Mode, NtpPacket, NtpTimestamp};
use serde_json::Value;

/// How long the agent and chronyd may take.
const PATIENCE: Duration = Duration::from_secs(40);

fn offset_ns(line: &Value) -> f64 {
    line["offset_ns"].as_f64().unwrap_or(f64::NAN)
}

#[test]
fn the_agent_follows_chronyd_in_interleaved_mode_and_a_replay_gives_the_same_numbers() {
    let _machine = alone();
    let wire = need!(Wire::new());
    let mut server = need!(Chronyd::server(&wire.grandmaster));
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("recording.pcapng").display().to_string();
    let follow =
        ["run", "-i", "ptp0", "--follow", "ntp", "--ntp", "192.0.2.1", "--clock", "virtual"];
    let more = ["--ntp-poll", "-3", "--record", &file];
    let mut client = Agent::start_only(&wire.client, &[&follow[..], &more[..]].concat());
    client.wait_for_sample(0, PATIENCE, "locked", |sample| sample["state"] == "locked");
    let mark = client.mark();
    client.wait_for_sample(mark, PATIENCE, "another", |_| true);
    client.finish();
    server.running().stop();
    let samples = client.samples(0);
    let last = samples.last().unwrap();
    assert_eq!((&last["source"], &last["interface"]), (&"ntp".into(), &"ptp0".into()));
    assert!(offset_ns(last).abs() < 1e6, "{last}");
    let bound = last["error_bound_ns"].as_f64().expect("known while locked");
    assert!((0.0..1e7).contains(&bound), "{last}");
    let exchanges = client.events(0, "ntp");
    let interleaved = exchanges.iter().filter(|line| line["kind"] == "interleaved").count();
    assert!(interleaved * 2 > exchanges.len(), "{interleaved} of {}", exchanges.len());
    assert!(exchanges.iter().all(|line| line["tx_source"] != "driver_software"), "{exchanges:?}");
    let replay = Command::new(agent::binary()).args(["--json", "replay", &file]).output().unwrap();
    let text = String::from_utf8_lossy(&replay.stdout);
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let again: Vec<Value> = lines.filter(|line| line["event"] == "sample").collect();
    assert_eq!(again, samples, "{}", String::from_utf8_lossy(&replay.stderr));
}

#[test]
fn chronyd_takes_interleaved_time_from_the_agent_and_nobody_is_answered_without_a_clock_that_is_kept()
 {
    let _machine = alone();
    let wire = need!(Wire::new());
    let serve = ["serve", "-i", "gm0", "--ntp", "--metrics-address", "127.0.0.1:0"];
    let mut server = Agent::start(&wire.grandmaster, &serve);
    server.wait_for_text(0, PATIENCE, "NTP is not answered");
    let ask = |request: NtpPacket, padding: usize| {
        let socket = wire.client.run(|| UdpSocket::bind("192.0.2.2:0")).unwrap().unwrap();
        socket.connect("192.0.2.1:123").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let mut bytes = request.to_bytes().to_vec();
        bytes.resize(bytes.len() + padding, 0);
        socket.send(&bytes).unwrap();
        let mut answer = [0; 512];
        socket.recv(&mut answer).ok().map(|length| answer[..length].to_vec())
    };
    let request = NtpPacket::request(NtpTimestamp(77), 0);
    assert_eq!(ask(request, 0), None, "the host's clock is kept by nobody");
    server.finish();
    let serve = ["serve", "-i", "gm0", "--ntp", "--ntp-stratum", "3", "--clock", "system"];
    let mut server = Agent::start(&wire.grandmaster, &serve);
    server.wait_for_text(0, PATIENCE, "serving NTP");
    let answer = ask(request, 0).expect("an answer");
    let (packet, trailer) = NtpPacket::parse(&answer).unwrap();
    assert!(trailer.is_empty(), "no more bytes than were asked with");
    assert_eq!((packet.mode, packet.stratum, packet.origin), (Mode::Server, 3, request.transmit));
    // Private and control messages are what amplification lives on; and a digest that nobody can check.
    for mode in [6, 7] {
        assert_eq!(ask(NtpPacket { mode: Mode::Other(mode), ..request }, 0), None);
    }
    assert_eq!(ask(request, 20), None);
    let mut client =
        need!(Chronyd::client(&wire.client, "192.0.2.1", "minpoll -4 maxpoll -4 xleave"));
    let start = Instant::now();
    let interleaved = loop {
        let all = client.measurements();
        let of_wire = all.iter().filter(|it| it.mode == "4I").cloned().collect::<Vec<_>>();
        if of_wire.len() >= 16 {
            break of_wire;
        }
        assert!(start.elapsed() < PATIENCE, "{all:?}");
        // It writes a log, and nobody can wait for a line in it.
        std::thread::sleep(Duration::from_millis(100));
    };
    client.running().stop();
    server.finish();
    let far = interleaved.iter().filter(|it| it.offset_s.abs() > 1e-3).count();
    assert!(far * 4 < interleaved.len(), "{interleaved:?}");
}

#[test]
fn one_server_of_ntp_is_enough_to_find_a_grandmaster_that_is_a_day_off_and_is_missed_when_it_is_gone()
 {
    let _machine = alone();
    let wire = need!(Wire::new());
    let mut witness = need!(Chronyd::server(&wire.grandmaster));
    let serve = ["serve", "-i", "gm0", "--offset", "86400", "--log-sync-interval", "-3"];
    let more = ["--log-announce-interval", "-2", "--log-min-delay-req-interval", "-3"];
    let mut grandmaster = Agent::start(&wire.grandmaster, &[&serve[..], &more[..]].concat());
    let run = ["run", "-i", "ptp0", "--ntp", "192.0.2.1", "--ntp-poll", "-1"];
    let more = ["--clock", "virtual", "--on-disagreement", "holdover"];
    let mut client = Agent::start(&wire.client, &[&run[..], &more[..]].concat());
    client.wait_for_text(0, PATIENCE, "sources of time from=\"agreed\" to=\"open\"");
    client.wait_for_text(0, PATIENCE, "alarm=\"grandmaster_contradicted\"");
    // Its answers are taken also where the agent sleeps until the next Sync.
    for _ in 0..3 {
        client.wait_for_text(client.mark(), PATIENCE, "\"event\":\"ntp\"");
    }
    // A witness that is gone is missed, too.
    let mark = client.mark();
    witness.running().stop();
    client.wait_for_text(mark, PATIENCE, "alarm raised alarm=\"witness_silent\"");
    client.finish();
    grandmaster.finish();
    // Nobody followed it: it would have been a step of a day.
    assert!(
        !client
            .events(0, "sample")
            .iter()
            .any(|it| it["state"] == "locked" && it["source"] == "ptp")
    );
}
