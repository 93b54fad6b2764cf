//! Who is told from whom, and the peer delay mechanism as it is seen from beside.

use super::*;
use ptp_common::wire::{
    Deviation, Tlv, TlvBuilder,
    gptp::{self, AskedInterval, FollowUpInformation, IntervalRequest},
};

#[test]
fn interfaces_vlans_and_profiles_are_kept_apart() {
    let mut world = World::new();
    world.sync(0, 1_000);
    world.interface += 1;
    world.sync(0, 1_000);
    world.interface -= 1;
    let gptp = Header { sdo_id: 0x100, ..header(GRANDMASTER, 0) };
    let body = Body::Sync { origin_timestamp: Timestamp::ZERO };
    world.see(Direction::Ingress, gptp, body);
    let sync = bytes(header(GRANDMASTER, 1), body);
    let packet = ObservedPacket {
        interface: INTERFACE,
        direction: Direction::Ingress,
        vlan: Some(5),
        between: None,
        bytes: &sync,
        stamp: None,
        real: Time::ZERO,
    };
    let now = world.mono();
    world.observer.packet(now, &packet);
    assert_eq!(world.observer.ports().count(), 4);
    // A priority tag is no VLAN.
    world.observer.packet(now, &ObservedPacket { vlan: Some(0), ..packet });
    assert_eq!(world.observer.ports().count(), 4);
}

#[test]
fn a_packet_from_outside_does_not_touch_the_local_port_that_it_pretends_to_be() {
    let mut world = World::new();
    world.announce(Direction::Egress, GRANDMASTER, Flags(0));
    let two_step = |n| Header { flags: Flags::TWO_STEP, ..header(GRANDMASTER, n) };
    let body = Body::Sync { origin_timestamp: Timestamp::ZERO };
    world.see(Direction::Egress, two_step(0), body);
    let before = world.port(GRANDMASTER).clone();
    world.see(Direction::Ingress, two_step(0), body);
    world.sync(9, 1_000);
    let local = world.observer.ports().find(|port| port.is_local()).expect("still there");
    assert_eq!(*local, before);
}

#[test]
fn peer_delay_is_measured_for_the_local_initiator() {
    for two_step in [true, false] {
        let mut world = World::new();
        world.announce(Direction::Ingress, GRANDMASTER, Flags(0));
        for n in 0..4 {
            world.at(i64::from(n) * SECOND);
            let body = Body::PdelayReq { origin_timestamp: Timestamp::ZERO };
            assert_eq!(world.see(Direction::Egress, header(CLIENT, n), body), None);
            world.now += 1_000;
            let t2 = world.timestamp();
            world.now += 50_000;
            let t3 = world.timestamp();
            world.now += 1_000;
            let mut resp = header(GRANDMASTER, n);
            let observation = if two_step {
                resp.flags = Flags::TWO_STEP;
                let body = Body::PdelayResp {
                    request_receipt_timestamp: t2,
                    requesting_port_identity: CLIENT,
                };
                assert_eq!(world.see(Direction::Ingress, resp, body), None);
                let body = Body::PdelayRespFollowUp {
                    response_origin_timestamp: t3,
                    requesting_port_identity: CLIENT,
                };
                world.see(Direction::Ingress, header(GRANDMASTER, n), body)
            } else {
                resp.correction = TimeInterval::from(Duration::from_nanos(50_000));
                let body = Body::PdelayResp {
                    request_receipt_timestamp: Timestamp::ZERO,
                    requesting_port_identity: CLIENT,
                };
                world.see(Direction::Ingress, resp, body)
            };
            let Some(Observation::PeerDelay(sample)) = observation else {
                panic!("{observation:?}")
            };
            assert_eq!(sample.delay, Some(Duration::from_nanos(1_000)));
        }
        // A second responder does not change the delay of the link.
        world.now = 3 * SECOND + 100_000;
        let body = Body::PdelayResp {
            request_receipt_timestamp: Timestamp::ZERO,
            requesting_port_identity: CLIENT,
        };
        assert_eq!(world.see(Direction::Ingress, header(OTHER, 3), body), None);
        let sample = offset_of(world.at(4 * SECOND).sync(0, 1_000));
        assert_eq!(sample.delay, Some(Duration::from_nanos(1_000)));
        assert_eq!(sample.offset, Duration::ZERO);
        let client = world.port(CLIENT);
        assert_eq!((client.exchanges.peer_delay, client.losses.pdelay_resp_refused), (5, 1));
    }
}

#[test]
fn peer_delay_exchange_of_others_is_complete_and_nobodys_loss() {
    let mut world = World::new();
    for n in 0..4 {
        world.at(i64::from(n) * SECOND);
        let body = Body::PdelayReq { origin_timestamp: Timestamp::ZERO };
        world.see(Direction::Ingress, header(OTHER, n), body);
        let resp = Header { flags: Flags::TWO_STEP, ..header(GRANDMASTER, n) };
        let (request_receipt_timestamp, requesting_port_identity) = (world.timestamp(), OTHER);
        let body = Body::PdelayResp { request_receipt_timestamp, requesting_port_identity };
        world.see(Direction::Ingress, resp, body);
        let response_origin_timestamp = world.timestamp();
        let body = Body::PdelayRespFollowUp { response_origin_timestamp, requesting_port_identity };
        assert_eq!(world.see(Direction::Ingress, header(GRANDMASTER, n), body), None);
    }
    world.settle();
    assert_eq!(world.port(OTHER).exchanges.foreign_peer_delay, 4);
    for port in [OTHER, GRANDMASTER] {
        assert_eq!(world.port(port).losses, Losses::default());
    }
}

#[test]
fn peer_delay_losses_are_counted() {
    let mut world = World::new();
    let request = Body::PdelayReq { origin_timestamp: Timestamp::ZERO };
    let response = Body::PdelayResp {
        request_receipt_timestamp: Timestamp::ZERO,
        requesting_port_identity: CLIENT,
    };
    let two_step = |n| Header { flags: Flags::TWO_STEP, ..header(GRANDMASTER, n) };
    world.see(Direction::Egress, header(CLIENT, 0), request);
    world.see(Direction::Egress, header(CLIENT, 1), request);
    world.see(Direction::Ingress, two_step(1), response);
    world.see(Direction::Ingress, two_step(1), response);
    world.see(Direction::Ingress, two_step(2), response);
    world.settle();
    assert_eq!(
        world.port(CLIENT).losses,
        Losses {
            pdelay_req_without_resp: 1,
            pdelay_resp_without_follow_up: 1,
            pdelay_resp_refused: 1,
            duplicate: 1,
            ..Losses::default()
        }
    );
}

#[test]
fn what_stands_behind_follow_up_and_signaling_of_gptp_is_kept_of_its_port() {
    let mut world = World::new();
    let information = FollowUpInformation {
        cumulative_scaled_rate_offset: 77,
        gm_time_base_indicator: 2,
        ..FollowUpInformation::default()
    };
    let deviation = Deviation { behind_ns: 5, ahead_ns: 6 };
    let keep = AskedInterval::Keep;
    let asked = IntervalRequest {
        link_delay: keep,
        time_sync: AskedInterval::Log(0),
        announce: keep,
        flags: 0,
    };
    let whole = |body: Body, tlvs: &[Tlv<'_>]| {
        let mut buffer = [0; 96];
        let mut builder = TlvBuilder::new(&mut buffer);
        tlvs.iter().for_each(|tlv| builder.push(*tlv).unwrap());
        let header = Header { sdo_id: 0x100, ..header(GRANDMASTER, 0) };
        let message = Message { header, body, tlvs: builder.finish() };
        let mut bytes = vec![0; message.wire_length()];
        message.emit(&mut bytes).unwrap();
        bytes
    };
    let follow_up = Body::FollowUp { precise_origin_timestamp: world.timestamp() };
    let (value, other) = (information.value(), deviation.value());
    let with_both = whole(follow_up, &[gptp::tlv(&value), Deviation::tlv(&other)]);
    let signaling = Body::Signaling { target_port_identity: PortIdentity::ALL };
    let value = asked.value();
    for bytes in [with_both, whole(signaling, &[gptp::tlv(&value)])] {
        world.packet(Direction::Ingress, &bytes, false);
    }
    let told =
        Told { information: Some(information), asked: Some(asked), deviation: Some(deviation) };
    assert_eq!(world.port(GRANDMASTER).told, told);
    // Without it nobody knows how far that one is off any more.
    let bytes = whole(follow_up, &[]);
    world.packet(Direction::Ingress, &bytes, false);
    assert_eq!(world.port(GRANDMASTER).told, Told { deviation: None, ..told });
}
