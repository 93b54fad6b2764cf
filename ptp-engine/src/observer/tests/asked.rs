//! Exchanges that begin with the client, as they are seen from beside.

use super::*;
use crate::{csptp::Protocol, instance::asking::announce_of};
use ptp_common::wire::{
    CsptpRequest, CsptpResponse, CsptpStatus, TimeInterval, Tlv, TlvBuilder, TlvType, csptp,
};

fn host(last: u8) -> Address {
    Address::Socket(([192, 0, 2, last], 0).into())
}

fn with_tlvs(header: Header, body: Body, tlvs: &[(TlvType, &[u8])]) -> Vec<u8> {
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

fn csptp_header(sequence_id: u16, flags: Flags) -> Header {
    Header {
        sdo_id: csptp::SDO_ID,
        domain_number: csptp::DEFAULT_DOMAIN,
        flags: flags | Flags::UNICAST,
        ..Header::new(PortIdentity::default(), sequence_id)
    }
}

/// An exchange of CSPTP of the client `client` with the server `server`, each way taking so long. What its
/// messages complete; `asks` is the way of its request.
fn csptp_exchange(
    world: &mut World,
    asks: Direction,
    (client, server): (u8, u8),
    sequence_id: u16,
    [there, back]: [i64; 2],
) -> [Option<Observation>; 3] {
    let zero = Body::Sync { origin_timestamp: Timestamp::ZERO };
    let value = CsptpRequest { status: true, alternate_time: false }.value();
    let padding = [0; 32];
    let tlvs: [(TlvType, &[u8]); 2] = [(TlvType::CSPTP_REQUEST, &value), (TlvType::PAD, &padding)];
    let request = with_tlvs(csptp_header(sequence_id, Flags(0)), zero, &tlvs);
    world.between = Some((host(client), host(server)));
    // Stamps of this host are taken at its end of the way.
    let (to_us, from_us) = match asks {
        Direction::Egress => ([0, there], [0, back]),
        Direction::Ingress => ([there, 0], [back, 0]),
    };
    world.now += to_us[0];
    let first = world.packet(asks, &request, true);
    world.now += to_us[1];
    let ingress = world.timestamp();
    let status = CsptpStatus {
        priority1: 1,
        quality: ClockQuality {
            clock_class: 6,
            clock_accuracy: ClockAccuracy::UNKNOWN,
            offset_scaled_log_variance: 0xffff,
        },
        priority2: 2,
        steps_removed: 0,
        current_utc_offset: 37,
        grandmaster_identity: ClockIdentity([7; 8]),
    };
    let response = CsptpResponse { ingress, correction: TimeInterval(0) }.value();
    let status = status.value();
    let tlvs: [(TlvType, &[u8]); 2] =
        [(TlvType::CSPTP_RESPONSE, &response), (TlvType::CSPTP_STATUS, &status)];
    let scale = Flags::PTP_TIMESCALE | Flags::TWO_STEP | Flags::UTC_OFFSET_VALID;
    let answer = with_tlvs(csptp_header(sequence_id, scale), zero, &tlvs);
    world.now += 5_000;
    let precise_origin_timestamp = world.timestamp();
    world.between = Some((host(server), host(client)));
    world.now += from_us[1];
    let second = world.packet(opposite(asks), &answer, true);
    world.now += from_us[0];
    let body = Body::FollowUp { precise_origin_timestamp };
    let follow_up = with_tlvs(csptp_header(sequence_id, Flags(0)), body, &[]);
    [first, second, world.packet(opposite(asks), &follow_up, false)]
}

#[test]
fn offset_and_delay_of_a_client_of_csptp_are_told_from_each_exchange() {
    let mut world = World::new();
    (world.offset, world.scale) = (12_345, 37 * SECOND);
    for n in 0..8 {
        world.at(i64::from(n) * SECOND);
        let told = csptp_exchange(&mut world, Direction::Egress, (9, 1), 40_000 - n, [900, 1_100]);
        let [None, None, Some(Observation::Offset(sample))] = told else { panic!("{told:?}") };
        assert_eq!(sample.protocol, Some(Protocol::Csptp));
        assert_eq!(sample.delay.unwrap().as_nanos(), 1_000);
        // Half of what the ways differ by.
        assert_eq!(sample.raw_offset.as_nanos(), 12_345 + 100);
    }
    let ports: Vec<_> = world.observer.ports().collect();
    assert_eq!(ports.len(), 2);
    let server = ports.iter().find(|port| !port.is_local()).unwrap();
    assert_eq!((server.exchanges.sync, server.exchanges.delay_answered), (8, 8));
    assert_eq!(server.announced.unwrap().announce.grandmaster_priority1, 1);
    assert!(ports.iter().all(|port| port.losses == Losses::default()), "{ports:?}");
}

#[test]
fn two_servers_without_identities_are_told_apart_by_their_addresses() {
    let mut world = World::new();
    (world.offset, world.scale) = (500, 37 * SECOND);
    for n in 0..4 {
        for server in [1, 2] {
            world.at(i64::from(n) * SECOND);
            // The second one is wrong by 70 us, and has the same numbers.
            world.scale = 37 * SECOND + if server == 2 { 70_000 } else { 0 };
            let told =
                csptp_exchange(&mut world, Direction::Egress, (9, server), n, [1_000, 1_000]);
            let [.., Some(Observation::Offset(sample))] = told else { panic!("{told:?}") };
            let expected = if server == 2 { 500 - 70_000 } else { 500 };
            assert_eq!(sample.raw_offset.as_nanos(), expected);
        }
    }
    assert_eq!(world.observer.ports().filter(|port| !port.is_local()).count(), 2);
}

#[test]
fn what_a_server_on_this_host_claims_is_held_against_its_stamps() {
    let mut world = World::new();
    world.scale = 37 * SECOND;
    for n in 0..4 {
        world.at(i64::from(n) * SECOND);
        let told = csptp_exchange(&mut world, Direction::Ingress, (9, 1), n, [1_000, 1_000]);
        let [None, None, Some(Observation::SyncClaim(claim))] = told else { panic!("{told:?}") };
        assert_eq!(claim.difference, Duration::ZERO);
        assert!(claim.requester.is_some());
    }
    let server = world.observer.ports().find(|port| port.is_local()).unwrap();
    assert_eq!((server.sync_claim.count, server.delay_claim.count), (4, 4));
}

#[test]
fn exchange_of_sptp_is_one_and_no_sync_that_has_lost_its_follow_up() {
    let mut world = World::new();
    world.offset = -900;
    for n in 0..4 {
        world.at(i64::from(n) * SECOND);
        world.between = Some((host(9), host(1)));
        let flags = Flags::UNICAST | Flags::PROFILE_SPECIFIC_1;
        let asks = Header { flags, ..header(CLIENT, n) };
        let body = Body::DelayReq { origin_timestamp: Timestamp::ZERO };
        assert_eq!(world.see(Direction::Egress, asks, body), None);
        world.now += 1_000;
        let origin_timestamp = world.timestamp();
        world.now += 20_000;
        let departure = world.timestamp();
        world.now += 1_000;
        world.between = Some((host(1), host(9)));
        let answers = Header { flags: Flags::UNICAST | Flags::TWO_STEP, ..header(GRANDMASTER, n) };
        assert_eq!(world.see(Direction::Ingress, answers, Body::Sync { origin_timestamp }), None);
        let announce = Announce {
            origin_timestamp: departure,
            ..announce_of(None, GRANDMASTER.clock_identity, Flags(0))
        };
        let tells = Header { flags: Flags::UNICAST, ..header(GRANDMASTER, n) };
        let told = world.see(Direction::Ingress, tells, Body::Announce(announce));
        let Some(Observation::Offset(sample)) = told else { panic!("{told:?}") };
        assert_eq!(sample.protocol, Some(Protocol::Sptp));
        assert_eq!((sample.raw_offset.as_nanos(), sample.delay.unwrap().as_nanos()), (-900, 1_000));
    }
    world.at(60 * SECOND);
    let now = world.mono();
    world.observer.advance(now);
    assert!(world.observer.ports().all(|port| port.losses == Losses::default()));
}

#[test]
fn requests_that_nobody_answers_are_counted_and_bounded() {
    let mut world = World::new();
    let value = CsptpRequest::default().value();
    for n in 0..5_000_u16 {
        world.now += 1_000;
        world.between = Some((host(n as u8), host(1)));
        let body = Body::Sync { origin_timestamp: Timestamp::ZERO };
        let request =
            with_tlvs(csptp_header(n, Flags(0)), body, &[(TlvType::CSPTP_REQUEST, &value)]);
        assert_eq!(world.packet(Direction::Ingress, &request, true), None);
        assert!(world.observer.asked.len() <= 1_024);
    }
    world.at(60 * SECOND);
    let now = world.mono();
    world.observer.advance(now);
    assert_eq!(world.observer.asked.len(), 0);
    let lost: u64 = world.observer.ports().map(|it| it.losses.delay_req_without_resp).sum();
    assert_eq!(lost, 5_000);
}
