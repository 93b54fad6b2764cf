//! Whatever passes a hook: it is bounded, and bad bytes are counted.

use super::*;
use crate::prelude::*;

#[test]
fn a_flood_of_invented_ports_is_counted_and_pushes_nobody_out() {
    let mut world = World::new();
    world.announce(Direction::Ingress, GRANDMASTER, Flags(0));
    world.sync(0, 1_000);
    let body = Body::Sync { origin_timestamp: Timestamp::ZERO };
    for n in 0..5_000u32 {
        let mut identity = GRANDMASTER;
        identity.clock_identity.0[..4].copy_from_slice(&n.to_be_bytes());
        world.at(i64::from(n) * 1_000);
        world.see(Direction::Ingress, header(identity, 0), body);
    }
    assert_eq!(world.observer.ports().count(), MAX_PORTS);
    assert_eq!(world.observer.refusals().table_full, 5_000 - (MAX_PORTS as u64 - 1));
    assert!(world.sync(1, 1_000).is_some());
    // When the flood is over, whoever is real finds a place.
    world.at(20 * SECOND).sync(2, 1_000);
    world.delay(0, 1_000);
    assert_eq!(world.port(CLIENT).sent(MessageType::DelayReq), 1);
    assert_eq!(world.observer.ports().count(), MAX_PORTS);
}

#[test]
fn bad_bytes_are_refused_by_cause() {
    let mut world = World::new();
    let body = Body::Sync { origin_timestamp: world.timestamp() };
    let good = bytes(header(GRANDMASTER, 0), body);
    let with = |at: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[at] = value;
        bytes
    };
    for bytes in [&good[..0], &good[..33], &good[..43], &with(3, 43)] {
        world.packet(Direction::Ingress, bytes, true);
    }
    world.packet(Direction::Ingress, &with(1, 1), true);
    world.packet(Direction::Ingress, &with(0, 4), true);
    world.packet(Direction::Ingress, &with(40, 0xff), true);
    let correction = TimeInterval(i64::MAX);
    let too_large = bytes(Header { correction, ..header(GRANDMASTER, 0) }, body);
    world.packet(Direction::Ingress, &too_large, true);
    assert_eq!(
        *world.observer.refusals(),
        Refusals { truncated: 4, wrong_version: 1, malformed: 2, correction: 1, table_full: 0 }
    );
    assert_eq!(world.observer.ports().count(), 0);
}

#[test]
fn a_message_longer_than_its_record_is_followed() {
    let mut world = World::new();
    let announce = long_announce();
    world.packet(Direction::Ingress, &announce[..128], false);
    let port = world.port(GRANDMASTER);
    assert_eq!(port.announced.expect("body is there").announce.current_utc_offset, 37);
}

/// An Announce that has passed more boundary clocks than fit into a ring record.
fn long_announce() -> Vec<u8> {
    let mut world = World::new();
    world.announce(Direction::Ingress, GRANDMASTER, Flags(0));
    let announce = world.port(GRANDMASTER).announced.expect("just seen").announce;
    let mut tlv = vec![0x00, 0x08, 0x00, 160];
    tlv.extend([0xaa; 160]);
    let tlvs = Tlvs::new(&tlv).expect("even");
    let message = Message { header: header(GRANDMASTER, 0), body: Body::Announce(announce), tlvs };
    let mut bytes = vec![0; message.wire_length()];
    message.emit(&mut bytes).expect("sized for it");
    bytes
}

/// A message of any type between few ports, with few sequence numbers, so that things collide.
fn collision() -> impl Strategy<Value = Vec<u8>> {
    let ports = || (0..4u16).prop_map(port);
    let extreme = prop_oneof![Just(i64::MIN), Just(i64::MAX), any::<i64>(), -100_000..100_000i64];
    let seconds = prop_oneof![Just(0u64), Just((1 << 48) - 1), 1_800_000_000..1_800_000_100u64];
    let stamp = (seconds, 0..1_000_000_000u32)
        .prop_map(|(seconds, nanos)| Timestamp::new(seconds, nanos).expect("in range"));
    let kind = prop::sample::select(&MessageType::ALL[..]);
    let log = any::<i8>();
    (kind, ports(), ports(), 0..24u16, stamp, extreme, any::<u16>(), log, 0..2u8).prop_map(
        |(kind, source, target, sequence_id, stamp, correction, flags, log, domain_number)| {
            let body = match kind {
                MessageType::Sync => Body::Sync { origin_timestamp: stamp },
                MessageType::DelayReq => Body::DelayReq { origin_timestamp: stamp },
                MessageType::PdelayReq => Body::PdelayReq { origin_timestamp: stamp },
                MessageType::PdelayResp => Body::PdelayResp {
                    request_receipt_timestamp: stamp,
                    requesting_port_identity: target,
                },
                MessageType::FollowUp => Body::FollowUp { precise_origin_timestamp: stamp },
                MessageType::DelayResp => {
                    Body::DelayResp { receive_timestamp: stamp, requesting_port_identity: target }
                }
                MessageType::PdelayRespFollowUp => Body::PdelayRespFollowUp {
                    response_origin_timestamp: stamp,
                    requesting_port_identity: target,
                },
                MessageType::Announce => Body::Announce(Announce {
                    origin_timestamp: stamp,
                    current_utc_offset: correction as i16,
                    grandmaster_priority1: 0,
                    grandmaster_clock_quality: ClockQuality {
                        clock_class: 6,
                        clock_accuracy: ClockAccuracy::UNKNOWN,
                        offset_scaled_log_variance: 0,
                    },
                    grandmaster_priority2: 0,
                    grandmaster_identity: source.clock_identity,
                    steps_removed: 0,
                    time_source: TimeSource::PTP,
                }),
                MessageType::Signaling | MessageType::Management => {
                    Body::Signaling { target_port_identity: target }
                }
            };
            let header = Header {
                correction: TimeInterval(correction),
                flags: Flags(flags),
                log_message_interval: log,
                domain_number,
                ..Header::new(source, sequence_id)
            };
            bytes(header, body)
        },
    )
}

const HOSTS: [Address; 2] = [Address::Mac([2; 6]), Address::Mac([3; 6])];

proptest! {
    #[test]
    fn nothing_that_arrives_makes_it_panic_or_grow(
        packets in vec(
            (
                collision(),
                any::<bool>(),
                prop_oneof![3 => 0..1_000_000_000i64, 1 => any::<i64>()],
                any::<Option<(i64, i64)>>(),
                any::<Option<(prop::sample::Index, u8)>>(),
            ),
            0..100,
        ),
    ) {
        let mut observer = Observer::new();
        let mut now = 0i64;
        for (mut bytes, egress, step, stamp, damage) in packets {
            now = now.saturating_add(step);
            if let Some((at, value)) = damage {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            let packet = ObservedPacket {
                interface: 1,
                direction: if egress { Direction::Egress } else { Direction::Ingress },
                vlan: None,
                between: Some(if egress { (HOSTS[0], HOSTS[1]) } else { (HOSTS[1], HOSTS[0]) }),
                bytes: &bytes,
                stamp: stamp.map(|(mono, _)| Stamp::new(Time::from_nanos(mono), StampSource::TcIngress)),
                real: Time::from_nanos(stamp.map_or(0, |(_, real)| real)),
            };
            observer.packet(Time::from_nanos(now), &packet);
            prop_assert!(observer.asked.len() <= 1_024);
            for (_, port) in observer.ports.iter() {
                prop_assert!(port.syncs.is_bounded());
                prop_assert!(port.requests.is_bounded());
                prop_assert!(port.peer_requests.is_bounded());
            }
        }
        observer.advance(Time::from_nanos(now));
        for port in observer.ports() {
            let figures = [port.offset, port.delay, port.sync_claim, port.delay_claim];
            prop_assert!(figures.iter().all(|figure| figure.mean.is_finite()));
        }
    }

    #[test]
    fn what_was_sent_is_exchanged_or_lost(
        fates in vec((0..8u8, 0..8u8, any::<bool>()), 1..200),
    ) {
        let mut world = World::new();
        world.announce(Direction::Ingress, GRANDMASTER, Flags(0));
        let (mut both, mut only_sync, mut only_follow_up) = (0, 0, 0);
        let (mut answered, mut unanswered) = (0, 0);
        for (n, (sync_fate, delay_fate, swapped)) in fates.into_iter().enumerate() {
            let n = n as u16;
            world.at(i64::from(n) * 125 * MS);
            let mut sync = header(GRANDMASTER, n);
            sync.flags = Flags::TWO_STEP;
            let sync = (sync, Body::Sync { origin_timestamp: Timestamp::ZERO });
            let stamp = world.timestamp();
            let follow_up = (
                header(GRANDMASTER, n),
                Body::FollowUp { precise_origin_timestamp: stamp },
            );
            let mut messages = match sync_fate {
                0 => { only_sync += 1; vec![sync] }
                1 => { only_follow_up += 1; vec![follow_up] }
                2 => vec![],
                _ => { both += 1; vec![sync, follow_up] }
            };
            if swapped {
                messages.reverse();
            }
            for (header, body) in messages {
                world.see(Direction::Ingress, header, body);
            }
            let request = Body::DelayReq { origin_timestamp: Timestamp::ZERO };
            match delay_fate {
                0 => {
                    unanswered += 1;
                    world.see(Direction::Egress, header(CLIENT, n), request);
                }
                1 => {}
                _ => {
                    answered += 1;
                    world.delay(n, 1_000);
                }
            }
        }
        world.settle();
        let port = |identity| {
            let found = world.observer.ports().find(|port| port.key.port_identity == identity);
            found.map(|port| (port.exchanges, port.losses)).unwrap_or_default()
        };
        let (exchanges, losses) = port(GRANDMASTER);
        prop_assert_eq!(exchanges.sync, both);
        prop_assert_eq!(losses.sync_without_follow_up, only_sync);
        prop_assert_eq!(losses.follow_up_without_sync, only_follow_up);
        prop_assert_eq!(exchanges.delay_answered, answered);
        let (exchanges, losses) = port(CLIENT);
        prop_assert_eq!(exchanges.delay, answered);
        prop_assert_eq!(losses.delay_req_without_resp, unanswered);
    }
}
