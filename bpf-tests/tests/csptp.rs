//! Claims about CSPTP and SPTP on real interfaces: that the kernel's answers are right to the last octet while the agent
//! does not run, whom they go to, that a client follows whoever answers over IPv4 and IPv6, and that it follows another
//! when a server is killed. All ends share one clock, so the true offset is zero. Needs root.

use std::time::Duration;

use bpf_tests::{
    agent::{Agent, field},
    alone,
    forge::{now, port},
    links::{Needed, Star, Wire, ip, mac},
    median, need,
    objects::kernel_programs,
    raw::{FrameListener, FrameSocket},
    transparent::{Carrier, PATIENCE, ptp, sum_header, udp_sum},
};
use nix::sys::signal::Signal;
use ptp_common::{
    time::{Duration as Span, Ptp, Time},
    wire::{
        Body, CsptpRequest, CsptpResponse, CsptpStatus, Flags, Header, Message, PortIdentity,
        TimeInterval, Timestamp, Tlv, TlvBuilder, TlvType, csptp,
    },
};

const SERVER: [u8; 4] = [192, 0, 2, 1];
const CLIENT: [u8; 4] = [192, 0, 2, 2];
/// Long enough for an answer that is given on the way in.
const SOON: Duration = Duration::from_millis(200);
/// How far the median of |offset| may be from the truth on a busy machine, ns.
const TRUE: i64 = 100_000;

/// A message with TLVs.
fn message(header: Header, body: Body, tlvs: &[(TlvType, &[u8])]) -> Vec<u8> {
    let mut buffer = [0; 256];
    let mut builder = TlvBuilder::new(&mut buffer);
    for (kind, value) in tlvs {
        builder.push(Tlv { kind: *kind, value }).unwrap();
    }
    let mut bytes = vec![0; 256];
    let length = Message { header, body, tlvs: builder.finish() }.emit(&mut bytes).unwrap();
    bytes.truncate(length);
    bytes
}

fn csptp_request(sequence_id: u16, status: bool, padding: usize) -> Vec<u8> {
    let mut header = Header::new(PortIdentity::default(), sequence_id);
    (header.sdo_id, header.domain_number) = (csptp::SDO_ID, 200);
    header.flags = Flags::UNICAST;
    header.correction = TimeInterval(5 << 16);
    let body = Body::Sync { origin_timestamp: Timestamp::ZERO };
    let value = CsptpRequest { status, alternate_time: false }.value();
    let pad = vec![0; padding];
    let tlvs: [(TlvType, &[u8]); 2] = [(TlvType::CSPTP_REQUEST, &value), (TlvType::PAD, &pad)];
    message(header, body, if padding > 0 { &tlvs } else { &tlvs[..1] })
}

fn sptp_request(sequence_id: u16, has_tlv: bool) -> Vec<u8> {
    let mut header = Header::new(port(3), sequence_id);
    header.flags = Flags::UNICAST | Flags::PROFILE_SPECIFIC_1;
    header.correction = TimeInterval(5 << 16);
    let body = Body::DelayReq { origin_timestamp: Timestamp::ZERO };
    let tlv: [(TlvType, &[u8]); 1] = [(TlvType::ALTERNATE_RESPONSE_PORT, &[0, 3])];
    message(header, body, if has_tlv { &tlv } else { &[] })
}

struct Asking {
    agent: Agent,
    send: FrameSocket,
    listen: FrameListener,
    server_mac: [u8; 6],
    _wire: Wire,
}

impl Asking {
    /// A server whose answers the kernel gives, and a client with raw frames.
    fn start(arguments: &[&str]) -> Needed<Self> {
        kernel_programs()?;
        let wire = Wire::new()?;
        let mut all = vec!["serve", "-i", "gm0", "--csptp", "--sptp", "--clock", "system"];
        all.extend(["--kernel-answers", "tc"]);
        all.extend(arguments);
        let agent = Agent::start_only(&wire.grandmaster, &all);
        agent.wait_for_text(0, PATIENCE, "answered in the kernel");
        let open = || (FrameSocket::open("ptp0").unwrap(), FrameListener::open("ptp0").unwrap());
        let (send, listen) = wire.client.run(open).unwrap();
        let server_mac = mac(&wire.grandmaster, "gm0");
        Ok(Self { agent, send, listen, server_mac, _wire: wire })
    }

    /// A frame from one address to the server, its checksum right, with octets behind the message.
    fn frame(&self, source: [u8; 4], message: &[u8], behind: usize) -> Vec<u8> {
        let mut padded = message.to_vec();
        padded.resize(message.len() + behind, 0);
        let mut frame = Carrier::Udp4.frame(&padded);
        frame[..6].copy_from_slice(&self.server_mac);
        frame[26..30].copy_from_slice(&source);
        frame[30..34].copy_from_slice(&SERVER);
        sum_header(&mut frame);
        frame[40..42].fill(0);
        let sum = !udp_sum(&frame).unwrap_or_default();
        frame[40..42].copy_from_slice(&sum.to_be_bytes());
        frame
    }

    /// Sends a request; the messages of both parts of the kernel's answer.
    fn ask(&self, frame: &[u8], patience: Duration) -> Option<[Vec<u8>; 2]> {
        self.answer(frame, patience, Some(0xffff))
    }

    /// The same, where a sum is given with checksums that make it. What a socket on this host has sent is summed by
    /// nobody.
    fn answer(&self, frame: &[u8], patience: Duration, sum: Option<u16>) -> Option<[Vec<u8>; 2]> {
        let request = ptp(frame).unwrap().to_vec();
        self.send.send(frame).unwrap();
        let part = || {
            self.listen.hear(patience, |frame| {
                let message = ptp(frame)?;
                let is_it = message[30..32] == request[30..32]
                    && frame[26..30] == SERVER
                    && frame[6..12] == self.server_mac;
                is_it.then(|| {
                    assert!(sum.is_none() || udp_sum(frame) == sum, "its checksum");
                    let ports = [&frame[34..36], &frame[36..38]];
                    (message.to_vec(), ports.map(|it| u16::from_be_bytes([it[0], it[1]])))
                })
            })
        };
        let (sync, ports) = part()?;
        assert_eq!(ports, [319, 319]);
        let (second, ports) = part()?;
        assert_eq!(ports, [320, 320]);
        Some([sync, second])
    }
}

/// CLOCK_REALTIME, or TAI where the host knows that.
fn is_now(time: Time<Ptp>, begin: Time<Ptp>) -> bool {
    let offset = f64::from(ptp_agent::sys::clock::tai_offset_seconds().unwrap_or(0));
    let late = (time - begin).as_secs_f64() - offset;
    (-0.001..PATIENCE.as_secs_f64()).contains(&late)
}

#[test]
fn both_messages_are_right_and_the_agent_need_not_run() {
    let asking = need!(Asking::start(&[]));
    asking.agent.signal(Signal::SIGSTOP);
    let begin: Time<Ptp> = now().into();
    for (n, (status, padding)) in (1..).zip([(false, 0), (true, 0), (true, 32), (false, 32)]) {
        let frame = asking.frame(CLIENT, &csptp_request(n, status, padding), 0);
        let [sync, follow_up] = asking.ask(&frame, PATIENCE).expect("an answer");
        assert_eq!(sync.len(), if status { 88 } else { 66 });
        let Message { header, tlvs, .. } = Message::parse(&sync).unwrap();
        assert_eq!((header.sdo_id, header.domain_number), (csptp::SDO_ID, 200));
        assert!(header.flags.contains(Flags::TWO_STEP) && header.flags.contains(Flags::UNICAST));
        assert_eq!(header.source_port_identity, PortIdentity::default());
        let response = CsptpResponse::find(&tlvs).unwrap();
        assert_eq!(response.correction, TimeInterval(5 << 16));
        assert_eq!(CsptpStatus::find(&tlvs).is_some(), status);
        let Message { header, body, .. } = Message::parse(&follow_up).unwrap();
        assert_eq!((header.sdo_id, header.domain_number), (csptp::SDO_ID, 200));
        let Body::FollowUp { precise_origin_timestamp } = body else { panic!("{body:?}") };
        is_between(response.ingress, precise_origin_timestamp, begin);
    }
    for (n, (has_tlv, behind)) in (10..).zip([(false, 0), (true, 2), (true, 0)]) {
        let frame = asking.frame(CLIENT, &sptp_request(n, has_tlv), behind);
        let [sync, announce] = asking.ask(&frame, PATIENCE).expect("an answer");
        let Message { header, body, .. } = Message::parse(&sync).unwrap();
        assert!(header.flags.contains(Flags::TWO_STEP) && header.flags.contains(Flags::UNICAST));
        let Body::Sync { origin_timestamp: arrived } = body else { panic!("{body:?}") };
        let Message { header, body, .. } = Message::parse(&announce).unwrap();
        assert_eq!(header.correction, TimeInterval(5 << 16));
        let Body::Announce(announce) = body else { panic!("{body:?}") };
        assert_eq!(announce.grandmaster_identity, header.source_port_identity.clock_identity);
        is_between(arrived, announce.origin_timestamp, begin);
    }
    asking.agent.signal(Signal::SIGCONT);
}

/// An arrival and a departure behind it, both now.
fn is_between(arrived: Timestamp, left: Timestamp, begin: Time<Ptp>) {
    let (arrived, left): (Time<Ptp>, Time<Ptp>) = (arrived.into(), left.into());
    assert!(is_now(arrived, begin) && is_now(left, begin), "{arrived:?} {left:?}");
    assert!(left > arrived && left - arrived < Span::from_millis(20), "{:?}", left - arrived);
}

#[test]
fn what_is_not_plain_is_left_to_the_agent_and_strangers_get_nothing() {
    let asking = need!(Asking::start(&["--serve-to", "192.0.2.0/25,203.0.113.0/24"]));
    asking.agent.signal(Signal::SIGSTOP);
    let plain = |n| csptp_request(n, true, 0);
    assert!(asking.ask(&asking.frame([203, 0, 113, 9], &plain(1), 0), PATIENCE).is_some());
    for (n, source) in (2..).zip([[198, 51, 100, 1], [192, 0, 2, 200], SERVER, [255; 4]]) {
        let frame = asking.frame(source, &plain(n), 0);
        assert!(asking.ask(&frame, SOON).is_none(), "{source:?}");
    }
    // Of a length that is no plain request's, in no domain of CSPTP, and not to one address.
    let odd = csptp_request(20, true, 10);
    assert!(asking.ask(&asking.frame(CLIENT, &odd, 0), SOON).is_none());
    let mut elsewhere = plain(21);
    elsewhere[4] = 127;
    assert!(asking.ask(&asking.frame(CLIENT, &elsewhere, 0), SOON).is_none());
    let mut to_all = plain(22);
    to_all[6] = 0;
    assert!(asking.ask(&asking.frame(CLIENT, &to_all, 0), SOON).is_none());
    // The agent has them all in its socket, and answers what it knows.
    asking.agent.signal(Signal::SIGCONT);
    let odd = csptp_request(30, true, 10);
    assert!(asking.answer(&asking.frame(CLIENT, &odd, 0), PATIENCE, None).is_some());
}

#[test]
fn a_client_follows_whoever_answers_and_whatever_carries_it() {
    let _machine = alone();
    for (option, transport, answers) in [
        ("--csptp", "udp4", "tc"),
        ("--sptp", "udp6", "tc"),
        ("--csptp", "udp6", "off"),
        ("--sptp", "udp4", "off"),
    ] {
        let wire = need!(Wire::new());
        let mut arguments = vec!["serve", "-i", "gm0", option, "--transport", transport];
        arguments.extend(["--kernel-answers", answers, "--clock", "virtual", "--offset", "0.25"]);
        let mut server = Agent::start(&wire.grandmaster, &arguments);
        let address = match transport {
            "udp4" => "192.0.2.1".to_owned(),
            _ => link_local(&wire),
        };
        let mut arguments = vec!["run", "-i", "ptp0", "--transport", transport, option, &address];
        arguments.extend(["--log-request-interval=-4", "--clock", "virtual"]);
        let mut client = Agent::start(&wire.client, &arguments);
        client.wait_for_state(0, PATIENCE, "time_receiver");
        let samples = client.wait_for_samples(client.mark(), PATIENCE, 20);
        let source = &option[2..];
        assert!(samples.iter().all(|sample| sample["source"] == source), "{option} {transport}");
        let offsets = field(&samples, "offset_ns").iter().map(|ns| ns.abs()).collect();
        assert!(median(offsets) < TRUE, "{option} {transport}");
        client.finish();
        // As it was told, and not by the agent in the kernel's place.
        let is_left = server.lines().iter().any(|line| line.text.contains("SPTP are answered by"));
        assert!(!is_left, "{option} {transport} {answers}");
        let summary = server.finish();
        let lost = summary["lost"]["would_amplify"].as_u64();
        assert_eq!(lost, None, "{summary}");
    }
}

/// The server's address on the link, for the client.
fn link_local(wire: &Wire) -> String {
    let shown = ip(&wire.grandmaster, "-6 -o address show dev gm0 scope link");
    let address = shown.split("inet6 ").nth(1).and_then(|rest| rest.split('/').next());
    format!("{}%ptp0", address.expect("an address on the link"))
}

#[test]
fn another_server_is_followed_when_the_first_is_killed() {
    let _machine = alone();
    let star = need!(Star::new(3));
    let [first, second, client] = &star.leaves[..] else { unreachable!() };
    let serve = |leaf, priority: &str| {
        Agent::start(leaf, &["serve", "-i", "eth0", "--csptp", "--priority1", priority])
    };
    let (mut best, _second) = (serve(first, "100"), serve(second, "128"));
    let servers = "192.0.2.1,192.0.2.2";
    let arguments = ["run", "-i", "eth0", "--csptp", servers, "--log-request-interval=-4"];
    let client = Agent::start(client, &[&arguments[..], &["--clock", "virtual"]].concat());
    client.wait_for_state(0, PATIENCE, "time_receiver");
    let before = client.samples(0).pop().expect("a sample")["grandmaster"].clone();
    let mark = client.mark();
    best.signal(Signal::SIGKILL);
    let after = client.wait_for_sample(mark, PATIENCE, "another grandmaster", |sample| {
        sample["grandmaster"] != before && sample["state"] == "locked"
    });
    assert!(after["offset_ns"].as_i64().is_some_and(|ns| ns.abs() < TRUE), "{after}");
    best.stop();
}
