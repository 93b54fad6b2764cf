//! The peer delay mechanism, both sides of it.

use super::*;
use crate::prelude::*;

const PEERS: Destination = Destination::Multicast(Group::Peer);

/// One exchange over a link of 50 us with a peer that answers after 1 ms.
fn exchange(bench: &mut Bench, millis: i64, peer: PortIdentity) -> (i64, Header) {
    let (now, token, request) = bench.request(millis);
    bench.actions.clear();
    let sequence_id = request.sequence_id;
    bench.receiver.handle_tx_stamp(at(now), token, stamp(at(now)));
    let t4 = at(now) + Duration::from_micros(1_100);
    let response = pdelay_resp(peer, sequence_id, time(500, 0));
    bench.receiver.handle_message(t4, PORT, &response, stamp(t4));
    bench.put(now + 2, &pdelay_follow_up(peer, sequence_id, time(500, 1_000_000)));
    (now, request)
}

#[test]
fn the_link_delay_is_half_the_round_trip_less_the_turnaround() {
    let mut bench = Bench::following(p2p());
    exchange(&mut bench, 1_000, GM);
    let [Observation::PeerDelay(peer)] = bench.observations()[..] else { panic!() };
    assert_eq!(peer.mean_link_delay, Duration::from_micros(50));
    assert_eq!(peer.turnaround, Duration::from_millis(1));
}

#[test]
fn a_one_step_pdelay_responder_is_understood() {
    let mut bench = Bench::following(p2p());
    let (now, token, request) = bench.request(1_000);
    bench.actions.clear();
    bench.receiver.handle_tx_stamp(at(now), token, stamp(at(now)));
    let mut header = Header::new(GM, request.sequence_id);
    header.correction = Duration::from_micros(900).into();
    let body = Body::PdelayResp {
        request_receipt_timestamp: Timestamp::ZERO,
        requesting_port_identity: OWN_PORT,
    };
    bench.put(now + 1, &wire(header, body));
    let [Observation::PeerDelay(peer)] = bench.observations()[..] else { panic!() };
    assert_eq!(peer.mean_link_delay, Duration::from_micros(50));
    assert_eq!(peer.neighbor_rate_ratio, None);
}

#[test]
fn spoofed_pdelay_resps_are_counted_and_stop_nothing() {
    let mut bench = Bench::following(p2p());
    let peer = PortIdentity { clock_identity: ClockIdentity([0x77; 8]), port_number: 3 };
    let mut now = 1_000;
    let mut measured = 0;
    let mut announced = 2;
    for round in 0..20 {
        let (sent, request) = exchange(&mut bench, now, peer);
        if round > 0 {
            for spoofer in 1..=10 {
                let clock_identity = ClockIdentity([spoofer; 8]);
                let from = PortIdentity { clock_identity, port_number: 9 };
                bench.put(sent + 3, &pdelay_resp(from, request.sequence_id, time(1, 0)));
                bench.put(sent + 3, &pdelay_follow_up(from, request.sequence_id, time(9, 0)));
                bench.put(sent + 3, &pdelay_resp(from, request.sequence_id + 77, time(9, 0)));
            }
        }
        measured += bench.observations().len();
        for observation in bench.observations() {
            let Observation::PeerDelay(done) = observation else { panic!() };
            assert_eq!(done.responder, peer);
        }
        announced += 1;
        bench.put(sent + 4, &announce(GM, announced));
        now = sent + 5;
    }
    assert_eq!(measured, 20);
    assert!(bench.dropped(Drop::MultipleResponders) >= 19);
    assert!(bench.dropped(Drop::UnmatchedPdelayResp) >= 19);
    assert_eq!(bench.receiver.port_state(PORT), PortState::Uncalibrated);
    assert!(bench.receiver.stored() < 40);
}

#[test]
fn a_crowd_that_answers_before_the_peer_does_not_keep_it_out() {
    let mut bench = Bench::following(p2p());
    let peer = PortIdentity { clock_identity: ClockIdentity([0x77; 8]), port_number: 3 };
    let (now, _) = exchange(&mut bench, 1_000, peer);
    bench.put(now + 3, &announce(GM, 3));
    let (now, token, request) = bench.request(now + 4);
    for spoofer in 1..=10 {
        let from = PortIdentity { clock_identity: ClockIdentity([spoofer; 8]), port_number: 9 };
        bench.put(now, &pdelay_resp(from, request.sequence_id, time(1, 0)));
        bench.put(now, &pdelay_follow_up(from, request.sequence_id, time(9, 0)));
    }
    bench.actions.clear();
    bench.receiver.handle_tx_stamp(at(now), token, stamp(at(now)));
    bench.put(now + 1, &pdelay_resp(peer, request.sequence_id, time(500, 0)));
    bench.put(now + 2, &pdelay_follow_up(peer, request.sequence_id, time(500, 500_000)));
    let [Observation::PeerDelay(done)] = bench.observations()[..] else { panic!() };
    assert_eq!(done.responder, peer);
}

#[test]
fn a_replaced_neighbour_is_believed_after_a_few_requests() {
    let mut bench = Bench::following(p2p());
    let first = PortIdentity { clock_identity: ClockIdentity([0x77; 8]), port_number: 3 };
    let second = PortIdentity { clock_identity: ClockIdentity([0x78; 8]), port_number: 3 };
    let mut now = 1_000;
    let mut believed = Vec::new();
    for round in 0..20_u16 {
        let (sent, _) = exchange(&mut bench, now, if round < 5 { first } else { second });
        believed.extend(bench.observations());
        bench.put(sent + 4, &announce(GM, 3 + round));
        now = sent + 5;
    }
    let Some(Observation::PeerDelay(last)) = believed.last() else { panic!() };
    assert_eq!(last.responder, second);
    assert!(believed.len() >= 12, "{}", believed.len());
}

#[test]
fn a_pdelay_req_whose_stamp_comes_behind_those_of_later_ones_is_not_answered() {
    let mut bench = Bench::new(p2p());
    bench.poll(0);
    let mut answers = |port: PortIdentity, number: u16, received: i64| {
        bench.actions.clear();
        let body = Body::PdelayReq { origin_timestamp: Timestamp::ZERO };
        let request = wire(Header::new(port, number), body);
        bench.receiver.handle_message(at(200), PORT, &request, stamp(at(received)));
        bench.collect();
        bench.actions.len()
    };
    let other = PortIdentity { clock_identity: ClockIdentity([0x77; 8]), port_number: 3 };
    assert_eq!(answers(GM, 2, 110), 1);
    assert_eq!(answers(GM, 1, 50), 0, "nobody waits for that any more");
    assert_eq!(answers(other, 9, 60), 1, "whoever else asks has asked once");
    assert_eq!(answers(GM, 3, 170), 1);
}

#[test]
fn a_pdelay_req_is_answered_in_two_steps() {
    let mut bench = Bench::new(p2p());
    bench.poll(0);
    bench.actions.clear();
    let mut header = Header::new(GM, 4_711);
    header.correction = TimeInterval(5);
    let body = Body::PdelayReq { origin_timestamp: Timestamp::ZERO };
    bench.put(10, &wire(header, body));
    let [Command::Send(Transmit { token: Some(token), to: PEERS, message, .. })] =
        bench.actions[..]
    else {
        panic!("{:?}", bench.actions)
    };
    let response = Message::parse(&message).unwrap();
    assert_eq!(response.header.sequence_id, 4_711);
    assert!(response.header.flags.contains(Flags::TWO_STEP));
    let Body::PdelayResp { request_receipt_timestamp, requesting_port_identity } = response.body
    else {
        panic!()
    };
    assert_eq!(requesting_port_identity, GM);
    bench.actions.clear();
    bench.receiver.handle_tx_stamp(at(12), token, stamp(at(11)));
    bench.collect();
    let [Command::Send(Transmit { token: None, to: PEERS, message, .. })] = &bench.actions[..]
    else {
        panic!()
    };
    let follow_up = Message::parse(message).unwrap();
    let Body::PdelayRespFollowUp { response_origin_timestamp, .. } = follow_up.body else {
        panic!()
    };
    let turnaround =
        Time::<Ptp>::from(response_origin_timestamp) - Time::from(request_receipt_timestamp);
    assert_eq!(turnaround, Duration::from_millis(1));
    assert_eq!(follow_up.header.correction, TimeInterval(5));
}
