//! What stands behind Announce and on the packets: local times of time zones, ours to others and linuxptp's to us, the power
//! profile's inaccuracies, and marks (DSCP, TTL, scope, identity, intervals) as a third host captures them. Needs root.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use bpf_tests::{
    agent::{Agent, http_get},
    children::Running,
    forge::{Party, announce, port},
    in_company,
    links::{Wire, output},
    need,
    ptp4l::{GRANDMASTER, Ptp4l, authenticating},
    raw::FrameListener,
};
use ptp_agent::lab::netns::Namespace;
use ptp_common::{
    data_set::TimeProperties,
    wire::{
        AlternateTimeOffset, Body, Header, Message, MessageType, MessageView, Tlv, TlvBuilder,
        TlvType,
    },
};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(20);
const METRICS: &str = "127.0.0.1:9319";

/// The status of an agent when `wanted` makes something of it.
fn status<T>(namespace: &Namespace, what: &str, wanted: impl Fn(&Value) -> Option<T>) -> T {
    let address: SocketAddr = METRICS.parse().unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let status: Value = serde_json::from_str(&http_get(namespace, address, "/status")).unwrap();
        if let Some(found) = wanted(&status) {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}: {status}");
        thread::sleep(Duration::from_millis(100));
    }
}

fn times(of: &Value) -> Option<Vec<(String, String)>> {
    let times = of["alternate_times"].as_array()?;
    let text = |time: &Value, field: &str| time[field].as_str().unwrap_or_default().to_owned();
    Some(times.iter().map(|time| (text(time, "name"), text(time, "text"))).collect())
}

/// The local times of an Announce whose first one is as `wanted`, and how far the time is ahead of UTC that it
/// announces, seconds.
fn heard(
    listener: &FrameListener,
    wanted: impl Fn(&AlternateTimeOffset) -> bool,
) -> (Vec<AlternateTimeOffset>, i64) {
    let (announced, properties) = listener
        .hear(PATIENCE, |frame| {
            let message = MessageView::from_prefix(frame.get(42..)?).ok()?;
            let Ok(Body::Announce(announce)) = message.body() else { return None };
            let tlvs = message.tlvs().ok()?;
            let all: Vec<_> = AlternateTimeOffset::all(&tlvs).collect();
            all.first()
                .is_some_and(&wanted)
                .then(|| (all, TimeProperties::new(message.header().flags, &announce)))
        })
        .expect("an Announce with local times");
    let ahead = properties.utc_offset().best().as_nanos() / 1_000_000_000;
    (announced, ahead)
}

/// Whether there are time zones, and what is to be said if not.
fn has_zones() -> bool {
    let has = Path::new("/usr/share/zoneinfo/Asia/Tokyo").exists();
    if !has {
        bpf_tests::skipped("no time zone database (package tzdata)");
    }
    has
}

#[test]
fn local_times_of_serve_are_on_the_wire_and_shown_by_who_follows_and_who_watches() {
    let _machine = in_company();
    let wire = need!(Wire::new());
    if !has_zones() {
        return;
    }
    let listener = wire.client.run(|| FrameListener::open("ptp0")).unwrap().unwrap();
    let zones = "Asia/Tokyo,America/New_York";
    let serve = ["serve", "-i", "gm0", "--log-announce-interval", "-2", "--time-zone", zones];
    let _server = Agent::start(&wire.grandmaster, &serve);
    let (announced, ahead) = heard(&listener, |_| true);
    assert_eq!(announced[0].name.to_string(), "JST");
    assert_eq!(i64::from(announced[0].current_offset_s), 9 * 3_600 - ahead);
    assert_eq!((announced[0].jump_s, announced[0].next_jump_s), (0, 0), "no daylight saving there");
    assert_eq!(announced[1].jump_s.abs(), 3_600, "New York changes twice a year");
    let run = ["run", "-i", "ptp0", "--clock", "virtual", "--metrics-address", METRICS];
    let mut agent = Agent::start(&wire.client, &run);
    let told = status(&wire.client, "local times", |it| times(it).filter(|it| it.len() == 2));
    assert_eq!(told[0], ("JST".to_owned(), "JST UTC+09:00".to_owned()));
    assert!(told[1].1.contains("3600 s at 20"), "the next jump: {told:?}");
    // Shown, and not applied: nine hours are not in any offset.
    for sample in agent.wait_for_samples(0, PATIENCE, 4) {
        let offset = sample["offset_ns"].as_i64().unwrap();
        assert!(offset.abs() < 1_000_000_000, "{sample}");
    }
    agent.stop();
    let watch = ["observe", "-i", "ptp0", "--metrics-address", METRICS];
    let _watching = Agent::start(&wire.client, &watch);
    let seen = status(&wire.client, "local times of a port", |it| {
        let ports = it["ports"].as_array()?.iter();
        ports.filter_map(times).find(|it| it.len() == 2)
    });
    assert_eq!(seen, told);
}

#[test]
fn who_takes_either_role_announces_local_times_while_it_is_the_grandmaster() {
    let _machine = in_company();
    let wire = need!(Wire::new());
    if !has_zones() {
        return;
    }
    let listener = wire.client.run(|| FrameListener::open("ptp0")).unwrap().unwrap();
    let auto = ["run", "-i", "gm0", "--role", "auto", "--log-announce-interval", "-2"];
    let arguments = [&auto[..], &["--time-zone", "Asia/Tokyo", "--metrics-address", METRICS]];
    let _clock = Agent::start(&wire.grandmaster, &arguments.concat());
    let (announced, ahead) = heard(&listener, |_| true);
    assert_eq!(announced[0].name.to_string(), "JST");
    assert_eq!(i64::from(announced[0].current_offset_s), 9 * 3_600 - ahead);
    let told = status(&wire.grandmaster, "its own", |it| times(it).filter(|it| !it.is_empty()));
    assert_eq!(told[0].0, "JST");
}

/// tz2alt sets, by management messages to ptp4l, what `serve` finds out by itself. Of a zone without summer time: of one with
/// it tz2alt 4.4 takes summer for an hour less, and sees no jump.
#[test]
fn serve_announces_what_tz2alt_makes_ptp4l_announce() {
    let _machine = in_company();
    let wire = need!(Wire::new());
    let zone = "Asia/Tokyo";
    let database = Path::new("/usr/share/zoneinfo");
    let leap_seconds = database.join("leap-seconds.list");
    if !database.join(zone).exists() || !leap_seconds.exists() {
        bpf_tests::skipped("no time zone database (package tzdata)");
        return;
    }
    let mut tz2alt = need!(authenticating(&wire.grandmaster, "tz2alt"));
    let listener = wire.client.run(|| FrameListener::open("ptp0")).unwrap().unwrap();
    let (ours, our_ahead) = {
        let serve = ["serve", "-i", "gm0", "--log-announce-interval", "-2", "--time-zone", zone];
        let _server = Agent::start(&wire.grandmaster, &serve);
        heard(&listener, |_| true)
    };
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("ptp4l");
    let options = [GRANDMASTER, &format!("uds_address {}\n", socket.display())];
    let _ptp4l = need!(Ptp4l::start_authenticating(&wire.grandmaster, &["gm0"], &options));
    tz2alt.args(["-z", zone, "-p", "1", "--uds_address"]).arg(&socket);
    tz2alt.arg("--leapfile").arg(&leap_seconds);
    let _tz2alt = Running::start("tz2alt", &mut tz2alt);
    // It has the zone for a name, cut at ten symbols, and we what clocks there call their time.
    let theirs = heard(&listener, |time| time.name.to_string() == zone).0;
    println!("tz2alt: {theirs:?}; serve: {ours:?}, {our_ahead} s");
    assert_eq!(ours[0].name.to_string(), "JST");
    // It counts from TAI, whatever ptp4l announces.
    let offset = |it: &AlternateTimeOffset, ahead: i64| i64::from(it.current_offset_s) + ahead;
    assert_eq!(offset(&ours[0], our_ahead), offset(&theirs[0], 37));
    let jump = |it: &AlternateTimeOffset| (it.jump_s, it.next_jump_s);
    assert_eq!(jump(&ours[0]), jump(&theirs[0]));
}

#[test]
fn local_time_that_linuxptp_announces_is_shown() {
    let _machine = in_company();
    let wire = need!(Wire::new());
    need!(authenticating(&wire.grandmaster, "pmc"));
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("ptp4l");
    let options = [GRANDMASTER, &format!("uds_address {}\n", socket.display())];
    let _grandmaster = need!(Ptp4l::start_authenticating(&wire.grandmaster, &["gm0"], &options));
    let run = ["run", "-i", "ptp0", "--clock", "virtual", "--metrics-address", METRICS];
    let agent = Agent::start(&wire.client, &run);
    agent.wait_for_samples(0, PATIENCE, 1);
    // As tz2alt does it.
    for set in [
        "SET ALTERNATE_TIME_OFFSET_NAME keyField 0 displayName CET",
        "SET ALTERNATE_TIME_OFFSET_PROPERTIES keyField 0 currentOffset 3563 jumpSeconds 3600 timeOfNextJump 1806195637",
        "SET ALTERNATE_TIME_OFFSET_ENABLE keyField 0 enable 1",
    ] {
        let mut pmc = need!(authenticating(&wire.grandmaster, "pmc"));
        pmc.args(["-u", "-b", "0", "-s", socket.to_str().unwrap(), set]);
        println!("{}", output(&mut pmc));
    }
    let told = status(&wire.client, "CET", |it| times(it).filter(|it| !it.is_empty()));
    assert_eq!(told[0].0, "CET");
    assert!(told[0].1.contains("+3600 s at"), "{told:?}");
}

#[test]
fn a_zone_that_is_not_there_ends_serve_before_it_sends_anything() {
    let _machine = in_company();
    let wire = need!(Wire::new());
    let mut command = wire.grandmaster.command(bpf_tests::agent::binary());
    command.args(["serve", "-i", "gm0", "--time-zone", "Europe/Atlantis"]);
    let (status, _, log) = bpf_tests::agent::run_to_end(command);
    assert_eq!(status.code(), Some(3), "{log}");
    assert!(log.contains("Europe/Atlantis") || log.contains("tzdata"), "{log}");
}

#[test]
fn inaccuracies_of_the_power_profile_are_shown_by_who_watches() {
    let _machine = in_company();
    let wire = need!(Wire::new());
    let watch = ["observe", "-i", "ptp0", "--metrics-address", METRICS];
    let _watching = Agent::start(&wire.client, &watch);
    let party = Party::new(&wire.grandmaster, Ipv4Addr::new(192, 0, 2, 1));
    let value = [0x1c, 0x12, 0x9d, 0, 0, 2, 0, 7, 0, 0, 0, 0, 0, 0, 0x03, 0xe8, 0, 0];
    let mut buffer = [0; 32];
    let mut tlvs = TlvBuilder::new(&mut buffer);
    tlvs.push(Tlv { kind: TlvType::ORGANIZATION_EXTENSION, value: &value }).unwrap();
    let sender = port(7);
    let mut bytes = [0; 128];
    let body = announce(sender.clock_identity, 128);
    let message = Message { header: Header::new(sender, 1), body, tlvs: tlvs.finish() };
    let length = message.emit(&mut bytes).unwrap();
    party.general(&bytes[..length]);
    let power = status(&wire.client, "the power profile", |it| {
        let port = it["ports"].as_array()?.first()?.clone();
        port["power_profile"].is_object().then(|| port["power_profile"].clone())
    });
    assert_eq!((&power["version"], &power["total_inaccuracy_ns"]), (&2017.into(), &1_000.into()));
    assert_eq!(power["grandmaster_id"], 7);
}

/// What a captured message was sent with.
#[derive(Debug, PartialEq)]
struct Sent {
    kind: MessageType,
    class: u8,
    hops: u8,
    to: IpAddr,
    identity: String,
    log_interval: i8,
}

/// The next message of each of these types on the wire.
fn captured(listener: &FrameListener, kinds: &[MessageType]) -> Vec<Sent> {
    let next = |kind: &MessageType| {
        listener.hear(PATIENCE, |frame| sent(frame).filter(|it| it.kind == *kind))
    };
    kinds.iter().map(|kind| next(kind).unwrap_or_else(|| panic!("no {kind:?}"))).collect()
}

fn sent(frame: &[u8]) -> Option<Sent> {
    let packet = frame.get(14..)?;
    let (class, hops, to, message): (_, _, IpAddr, _) = match frame[12..14] {
        [0x08, 0x00] => {
            let to: [u8; 4] = packet[16..20].try_into().ok()?;
            (packet[1] >> 2, packet[8], to.into(), packet.get(28..)?)
        }
        [0x86, 0xdd] => {
            let class = (packet[0] << 4 | packet[1] >> 4) >> 2;
            let to: [u8; 16] = packet.get(24..40)?.try_into().ok()?;
            (class, packet[7], Ipv6Addr::from(to).into(), packet.get(48..)?)
        }
        _ => return None,
    };
    let message = MessageView::from_prefix(message).ok()?;
    let header = message.header();
    let identity = header.source_port_identity.clock_identity.to_string();
    let (kind, log_interval) = (message.message_type(), header.log_message_interval);
    Some(Sent { kind, class, hops, to, identity, log_interval })
}

#[test]
fn messages_are_marked_as_it_is_said_over_either_ip() {
    let _machine = in_company();
    for transport in ["udp4", "udp6"] {
        let wire = need!(Wire::new());
        let listener = wire.client.run(|| FrameListener::open("ptp0")).unwrap().unwrap();
        let serve = [
            "serve",
            "-i",
            "gm0",
            "--transport",
            transport,
            "--dscp-event",
            "46",
            "--dscp-general",
            "34",
            "--udp-ttl",
            "5",
            "--udp6-scope",
            "5",
            "--clock-identity",
            "001b19.fffe.0a0b0c",
            // The ends of AES67's ranges.
            "--log-sync-interval",
            "-4",
            "--log-announce-interval",
            "0",
        ];
        let _server = Agent::start(&wire.grandmaster, &serve);
        let [sync, follow_up, announce] = &captured(
            &listener,
            &[MessageType::Sync, MessageType::FollowUp, MessageType::Announce],
        )[..] else {
            unreachable!()
        };
        for (message, class, log) in [(sync, 46, -4), (follow_up, 34, -4), (announce, 34, 0)] {
            assert_eq!(
                (message.class, message.hops, message.log_interval),
                (class, 5, log),
                "{message:?}"
            );
            assert_eq!(message.identity, "001b19.fffe.0a0b0c");
            if transport == "udp6" {
                assert_eq!(message.to, "ff05::181".parse::<IpAddr>().unwrap());
            }
        }
    }
}

#[test]
fn audio_profile_has_its_intervals_and_marks_and_refuses_others() {
    let _machine = in_company();
    let wire = need!(Wire::new());
    let listener = wire.client.run(|| FrameListener::open("ptp0")).unwrap().unwrap();
    let run = ["run", "-i", "gm0", "--profile", "aes67", "--role", "auto"];
    let _clock = Agent::start(&wire.grandmaster, &run);
    let [announce, sync] = &captured(&listener, &[MessageType::Announce, MessageType::Sync])[..]
    else {
        unreachable!()
    };
    assert_eq!((announce.class, announce.log_interval), (46, 1), "{announce:?}");
    assert_eq!((sync.class, sync.log_interval), (46, -3), "{sync:?}");
    let mut command = wire.grandmaster.command(bpf_tests::agent::binary());
    command.args(run).args(["--log-sync-interval", "-5"]);
    let (status, _, log) = bpf_tests::agent::run_to_end(command);
    assert_eq!(status.code(), Some(2), "{log}");
    assert!(log.contains("aes67") && log.contains("Sync"), "{log}");
}
