//! Links: when they are `asCapable`, who shares them, and what IEEE 802.1AS has otherwise.

use super::*;
use crate::{
    Context, Engine, Input, Monotonic,
    config::{AsCapable, LinkDelayService, Rules},
    instance::Instance,
    node::{Node, PortCommand},
    outcome::LinkTold,
    prelude::*,
    seam::Commands,
};
use ptp_common::wire::{
    TlvBuilder,
    gptp::{self, AskedInterval, FollowUpInformation, IntervalRequest},
};

const THRESHOLD: Duration = Duration::from_micros(60);
const SDO_ID: u16 = 0x100;

/// A port of an end station.
fn gptp() -> ReceiverConfig {
    let port = PortConfig {
        delay_mechanism: DelayMechanism::P2p,
        rules: Rules::Ieee8021As,
        as_capable: Some(AsCapable {
            neighbor_prop_delay_threshold: THRESHOLD,
            allowed_lost_responses: 3,
        }),
        ..PortConfig::default()
    };
    ReceiverConfig { ports: vec![port], sdo_id: SDO_ID, ..config() }
}

/// The same message of IEEE 802.1AS.
fn of_gptp(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes[0] |= 0x10;
    bytes
}

fn with_tlv(header: Header, body: Body, value: &[u8]) -> Vec<u8> {
    let (mut bytes, mut buffer) = (vec![0; 128], [0; 64]);
    let mut tlvs = TlvBuilder::new(&mut buffer);
    tlvs.push(gptp::tlv(value)).unwrap();
    let length = Message { header, body, tlvs: tlvs.finish() }.emit(&mut bytes).unwrap();
    bytes.truncate(length);
    bytes
}

/// Answers the requests of so many seconds, over a link of so many microseconds.
fn answered(bench: &mut Bench, from_ms: i64, seconds: i64, link_us: i64) -> i64 {
    let mut now = from_ms;
    for _ in 0..seconds {
        let (sent, token, request) = bench.request(now);
        bench.receiver.handle_tx_stamp(at(sent), token, stamp(at(sent)));
        let sequence_id = request.sequence_id;
        let seconds = 500 + sent as u64 / 1_000;
        let receipt = time(seconds, (sent % 1_000) as u32 * 1_000_000);
        let response = of_gptp(pdelay_resp(GM, sequence_id, receipt));
        let t4 = at(sent) + Duration::from_micros(2 * link_us);
        bench.receiver.handle_message(t4, PORT, &response, stamp(t4));
        bench.put(sent + 1, &of_gptp(pdelay_follow_up(GM, sequence_id, receipt)));
        now = sent + 1;
    }
    now
}

fn is_capable(bench: &Bench) -> bool {
    bench.receiver.link(PORT).unwrap().is_capable().unwrap()
}

#[test]
fn a_link_is_capable_with_a_rate_and_below_the_threshold_and_does_not_go_to_and_fro_at_it() {
    let mut bench = Bench::new(gptp());
    let now = answered(&mut bench, 0, 1, 50);
    assert!(!is_capable(&bench), "nothing is known of the rate");
    let now = answered(&mut bench, now, 1, 50);
    assert!(is_capable(&bench));
    // Longer than the threshold, by less than half of it; then longer, as long as the shortest of late is not.
    let now = answered(&mut bench, now, 20, 80);
    assert!(is_capable(&bench));
    let now = answered(&mut bench, now, 4, 500);
    assert!(is_capable(&bench));
    let now = answered(&mut bench, now, 8, 500);
    assert!(!is_capable(&bench));
    answered(&mut bench, now, 1, 50);
    assert!(is_capable(&bench));
}

#[test]
fn a_neighbour_that_does_not_answer_is_not_capable_after_the_allowed_requests_and_nobody_there_is_heard()
 {
    let mut bench = Bench::new(gptp());
    bench.put(0, &of_gptp(announce(GM, 1)));
    assert_eq!(bench.dropped(Drop::NotCapable), 1);
    let mut now = answered(&mut bench, 0, 3, 50);
    bench.put(now, &of_gptp(announce(GM, 2)));
    // It counts at once.
    assert_eq!(bench.receiver.port_state(PORT), PortState::Uncalibrated);
    for unanswered in 0..5 {
        assert_eq!(is_capable(&bench), unanswered < 5, "{unanswered}");
        let (sent, token, _) = bench.request(now);
        bench.receiver.handle_tx_stamp(at(sent), token, stamp(at(sent)));
        now = sent + 1;
    }
    assert!(!is_capable(&bench));
    bench.put(now, &of_gptp(announce(GM, 3)));
    assert_eq!(bench.dropped(Drop::NotCapable), 2);
}

#[test]
fn a_follow_up_without_the_information_tlv_is_of_no_use() {
    let mut bench = Bench::new(gptp());
    let now = answered(&mut bench, 0, 3, 50);
    bench.put(now, &of_gptp(announce(GM, 2)));
    bench.actions.clear();
    bench.put(now + 1, &of_gptp(sync(7, 0)));
    bench.put(now + 2, &of_gptp(follow_up(7, time(100, 5), 0)));
    assert!(bench.observations().is_empty());
    assert_eq!(bench.dropped(Drop::MissingInformation), 1);
    let mut header = sync_header(7);
    header.sdo_id = SDO_ID;
    let body = Body::FollowUp { precise_origin_timestamp: time(100, 5) };
    let information = FollowUpInformation::default().value();
    bench.put(now + 3, &with_tlv(header, body, &information));
    assert!(matches!(bench.observations()[..], [Observation::Sync(_)]));
}

#[test]
fn the_fraction_in_pdelay_resp_has_the_other_sign() {
    let delay = |config: ReceiverConfig, sdo_id: u16| {
        let mut bench = Bench::new(config);
        let (now, token, request) = bench.request(0);
        bench.receiver.handle_tx_stamp(at(now), token, stamp(at(now)));
        let mut header = Header::new(GM, request.sequence_id);
        header.sdo_id = sdo_id;
        header.flags = Flags::TWO_STEP;
        header.correction = TimeInterval(0x8000);
        let t4 = at(now) + Duration::from_micros(100);
        let body = Body::PdelayResp {
            request_receipt_timestamp: time(500, 0),
            requesting_port_identity: OWN_PORT,
        };
        bench.receiver.handle_message(t4, PORT, &wire(header, body), stamp(t4));
        (header.flags, header.correction) = (Flags::default(), TimeInterval(0));
        let body = Body::PdelayRespFollowUp {
            response_origin_timestamp: time(500, 0),
            requesting_port_identity: OWN_PORT,
        };
        bench.put(now + 1, &wire(header, body));
        bench.receiver.link(PORT).unwrap().mean_link_delay().unwrap()
    };
    let half = Duration::from_scaled_nanos(0x4000);
    assert_eq!(delay(p2p(), 0), Duration::from_micros(50) - half);
    assert_eq!(delay(gptp(), SDO_ID), Duration::from_micros(50) + half);
}

#[test]
fn a_neighbour_may_ask_for_other_intervals_and_cannot_stop_the_time() {
    let mut bench = Bench::new(gptp());
    let (first, ..) = bench.request(0);
    let ask = |bench: &mut Bench, now: i64, link_delay: AskedInterval| {
        let mut header = Header::new(GM, 1);
        header.sdo_id = SDO_ID;
        let all = PortIdentity { clock_identity: ClockIdentity([0xff; 8]), port_number: 0xffff };
        let (time_sync, announce) = (AskedInterval::Stop, AskedInterval::Keep);
        let value = IntervalRequest { link_delay, time_sync, announce, flags: 0 }.value();
        bench.put(now, &with_tlv(header, Body::Signaling { target_port_identity: all }, &value));
    };
    ask(&mut bench, first + 1, AskedInterval::Log(-3));
    let (second, ..) = bench.request(first + 1);
    assert!(second - first <= 126, "{first} {second}");
    assert_eq!(bench.dropped(Drop::IntervalClamped), 1);
    ask(&mut bench, second, AskedInterval::Initial);
    let (third, ..) = bench.request(second + 1);
    let (fourth, ..) = bench.request(third + 1);
    assert_eq!(fourth - third, 1_000);
}

#[test]
fn all_messages_of_an_end_station_go_to_the_group_that_bridges_do_not_forward() {
    let mut commands = Commands::default();
    let mut cx = Context { now: at(0), clock: &Monotonic::default(), out: &mut commands };
    let contention = crate::contention::Contention::new(TransmitterConfig::new(OWN));
    let mut config = gptp();
    config.ports[0].as_capable = None;
    let mut node = Node::either(config, contention, &mut cx);
    for millis in 0..20_000 {
        cx.now = at(millis);
        node.handle_timeout(&mut cx);
    }
    let mut follow_up = None;
    let mut take = |cx: &mut Context<'_, NoEvent>, node: &mut Node| {
        while let Some(command) = cx.out.pop() {
            let Command::Send(Transmit { to, message, token, .. }) = command else { continue };
            assert_eq!(to, Destination::Multicast(Group::Peer));
            let parsed = Message::parse(&message).unwrap();
            if let Body::FollowUp { .. } = parsed.body {
                follow_up = FollowUpInformation::find(&parsed.tlvs);
            }
            if let Some(token) = token {
                node.handle(cx, Input::Sent { token, stamp: stamp(cx.now) });
            }
        }
    };
    take(&mut cx, &mut node);
    for kind in [MessageType::Announce, MessageType::Sync, MessageType::PdelayReq] {
        assert!(node.counters(PORT).sent(kind) > 0, "{kind:?}");
    }
    assert_eq!(follow_up, Some(FollowUpInformation::default()));
}

/// An end station whose links are measured in the name of the common service.
fn cmlds() -> ReceiverConfig {
    let mut config = gptp();
    config.ports[0].link_delay = LinkDelayService::Common;
    config
}

/// The same message with another `sdoId`.
fn of_service(mut bytes: Vec<u8>, sdo_id: u16) -> Vec<u8> {
    bytes[0] = bytes[0] & 0x0f | (sdo_id >> 8 << 4) as u8;
    bytes
}

#[test]
fn the_common_service_asks_by_its_own_sdo_id_and_takes_whichever_the_answer_has() {
    let mut bench = Bench::new(cmlds());
    let mut now = 0;
    // As linuxptp has them: the answer with that of the request, its Follow_Up with that of the answering port.
    for follow_up in [0x200, 0x000, SDO_ID] {
        let (sent, token, request) = bench.request(now);
        assert_eq!((request.sdo_id, request.domain_number), (LinkDelayService::SDO_ID, 0));
        bench.receiver.handle_tx_stamp(at(sent), token, stamp(at(sent)));
        let sequence_id = request.sequence_id;
        let receipt = time(500 + sent as u64 / 1_000, (sent % 1_000) as u32 * 1_000_000);
        let t4 = at(sent) + Duration::from_micros(40);
        let response = of_service(pdelay_resp(GM, sequence_id, receipt), 0x200);
        bench.receiver.handle_message(t4, PORT, &response, stamp(t4));
        let message = of_service(pdelay_follow_up(GM, sequence_id, receipt), follow_up);
        bench.put(sent + 1, &message);
        now = sent + 1;
    }
    let link = bench.receiver.link(PORT).unwrap();
    assert_eq!(link.mean_link_delay(), Some(Duration::from_micros(20)));
    assert!(is_capable(&bench));
    assert_eq!(bench.counters().peer_delay_exchanges, 3);
}

/// What a link says after so many milliseconds.
fn tell(bench: &mut Bench, millis: i64, mean_link_delay: Duration, is_capable: bool) {
    let told = PortCommand::Told(LinkTold { at: at(millis), mean_link_delay, is_capable });
    bench.receiver.with(|node, out| {
        let clock = &Monotonic::default();
        node.manage_port(&mut Context { now: at(millis), clock, out }, PORT, told);
    });
}

#[test]
fn a_link_that_another_program_measures_is_left_to_it() {
    let mut config = gptp();
    config.ports[0].link_delay = LinkDelayService::Told;
    let mut bench = Bench::new(config);
    bench.poll(1_000);
    let request = Body::PdelayReq { origin_timestamp: Timestamp::ZERO };
    bench.put(1_500, &of_service(wire(Header::new(GM, 1), request), SDO_ID));
    let is_sent = bench.actions.iter().any(|action| matches!(action, Command::Send(_)));
    assert!(!is_sent, "{:?}", bench.actions);
    assert_eq!(bench.dropped(Drop::NotForRole), 1);
    let delay = Duration::from_micros(3);
    for (millis, told, is_capable) in
        [(2_000, delay, true), (3_000, Duration::from_secs(9), true), (4_000, delay, false)]
    {
        tell(&mut bench, millis, told, is_capable);
        let link = bench.receiver.link(PORT).unwrap();
        assert_eq!(link.mean_link_delay(), Some(delay), "{millis}");
        assert_eq!(link.is_capable(), Some(is_capable), "{millis}");
    }
    // Who measures himself takes nobody's word for it.
    let mut bench = Bench::new(gptp());
    tell(&mut bench, 2_000, delay, true);
    assert_eq!(bench.receiver.link(PORT).unwrap().mean_link_delay(), None);
}

#[test]
fn the_common_service_answers_in_its_name_and_in_the_instances_by_how_it_is_asked() {
    let mut bench = Bench::new(cmlds());
    for sdo_id in [0x200, SDO_ID] {
        bench.actions.clear();
        let request = Body::PdelayReq { origin_timestamp: Timestamp::ZERO };
        bench.put(10, &of_service(wire(Header::new(GM, sdo_id), request), sdo_id));
        let answer = bench.actions.iter().find_map(|action| match action {
            Command::Send(Transmit { message, token: Some(token), .. }) => Some((message, *token)),
            _ => None,
        });
        let (message, token) = answer.unwrap();
        assert_eq!(Message::parse(message).unwrap().header.sdo_id, sdo_id);
        bench.actions.clear();
        bench.receiver.handle_tx_stamp(at(11), token, stamp(at(11)));
        bench.collect();
        let Some(Command::Send(Transmit { message, .. })) = bench.actions.first() else {
            panic!("{:?}", bench.actions)
        };
        assert_eq!(Message::parse(message).unwrap().header.sdo_id, sdo_id);
    }
    // Nothing else of the service is for an instance, and without it nothing is.
    bench.put(20, &of_service(announce(GM, 1), 0x200));
    bench.put(20, &of_service(sync(1, 0), 0x200));
    assert_eq!(bench.dropped(Drop::WrongSdoId), 2);
    let mut bench = Bench::new(gptp());
    let request = Body::PdelayReq { origin_timestamp: Timestamp::ZERO };
    bench.put(10, &of_service(wire(Header::new(GM, 1), request), 0x200));
    assert_eq!(bench.dropped(Drop::WrongSdoId), 1);
}

#[test]
fn changes_of_a_capable_link_are_counted() {
    let mut bench = Bench::new(gptp());
    let changes = |bench: &Bench| bench.receiver.link(PORT).unwrap().capability_changes();
    let now = answered(&mut bench, 0, 3, 50);
    assert_eq!(changes(&bench), 1);
    answered(&mut bench, now, 12, 500);
    assert_eq!(changes(&bench), 2);
}

#[test]
fn the_neighbour_that_measures_peer_to_peer_is_measured_so_too() {
    let port = PortConfig { delay_mechanism: DelayMechanism::Auto, ..PortConfig::default() };
    let mut bench = Bench::following(ReceiverConfig { ports: vec![port], ..config() });
    bench.put(1_100, &sync(1, 0));
    let (now, _, request) = bench.request(1_100);
    assert_eq!(bench.counters().sent(MessageType::DelayReq), 1);
    bench
        .put(now, &wire(Header::new(GM, 1), Body::PdelayReq { origin_timestamp: Timestamp::ZERO }));
    assert_eq!(bench.counters().sent(MessageType::PdelayResp), 1);
    bench.put(now + 1, &delay_resp(request.sequence_id, time(100, 0), OWN_PORT, 0));
    assert_eq!(bench.dropped(Drop::UnmatchedDelayResp), 1);
    for at in now..now + 3_000 {
        bench.poll(at);
    }
    assert_eq!(bench.counters().sent(MessageType::DelayReq), 1, "and no more");
    assert!(bench.counters().sent(MessageType::PdelayReq) >= 3);
}

#[test]
fn what_a_link_measures_all_instances_there_learn() {
    let mut commands = Commands::default();
    let mut cx = Context { now: at(0), clock: &Monotonic::default(), out: &mut commands };
    let first = Instance::client_only(p2p(), &mut cx);
    let second = ReceiverConfig { domain_number: 1, ..p2p() };
    let second = Instance::client_only(second, &mut cx);
    let mut node = Node::new(first).with(second);
    let put = |cx: &mut Context<'_, NoEvent>, node: &mut Node, millis: i64, bytes: &[u8]| {
        cx.now = at(millis);
        let rx = if bytes[0] & 0x0f < 8 { stamp(at(millis)) } else { None };
        node.handle(cx, Input::Message { on: PORT, from: None, bytes, stamp: rx });
    };
    for sequence_id in 0..2 {
        for domain in 0..2 {
            let mut bytes = announce(GM, sequence_id);
            bytes[4] = domain;
            put(&mut cx, &mut node, i64::from(sequence_id) * 500, &bytes);
        }
    }
    node.handle_timeout(&mut cx);
    let mut requests = Vec::new();
    while let Some(command) = cx.out.pop() {
        if let Command::Send(Transmit { token: Some(token), message, .. }) = command {
            requests.push((token, Message::parse(&message).unwrap().header.sequence_id));
        }
    }
    let [(token, sequence_id)] = requests[..] else { panic!("asked once: {requests:?}") };
    node.handle(&mut cx, Input::Sent { token, stamp: stamp(at(500)) });
    put(&mut cx, &mut node, 502, &pdelay_resp(GM, sequence_id, time(5, 0)));
    put(&mut cx, &mut node, 503, &pdelay_follow_up(GM, sequence_id, time(5, 0)));
    let mut measured = 0;
    while let Some(command) = cx.out.pop() {
        measured += usize::from(matches!(command, Command::Measured(_)));
    }
    assert_eq!(measured, 2);
    assert_eq!(node.link(PORT).unwrap().mean_link_delay(), Some(Duration::from_millis(1)));
}
