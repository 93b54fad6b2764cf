//! Claims about the observer, in virtual time: a world with a grandmaster, a network and a host
//! whose clock is known to be wrong, of which the observer sees only packets and stamps.

use super::*;
use crate::prelude::*;
use proptest::{collection::vec, prelude::*};
use ptp_common::wire::{
    Announce, ClockAccuracy, ClockIdentity, ClockQuality, Message, TimeSource, Timestamp, Tlvs,
};

const GRANDMASTER: PortIdentity = port(1);
const CLIENT: PortIdentity = port(2);
const OTHER: PortIdentity = port(3);
const INTERFACE: u32 = 7;
/// True time at the start: neither clock's epoch.
const START: i64 = 1_800_000_000_000_000_000;
const MS: i64 = 1_000_000;
const SECOND: i64 = 1_000 * MS;

const fn port(number: u16) -> PortIdentity {
    PortIdentity { clock_identity: ClockIdentity([number as u8; 8]), port_number: number }
}

fn bytes(header: Header, body: Body) -> Vec<u8> {
    let message = Message { header, body, tlvs: Tlvs::NONE };
    let mut bytes = vec![0; message.wire_length()];
    message.emit(&mut bytes).expect("sized for it");
    bytes
}

fn header(source: PortIdentity, sequence_id: u16) -> Header {
    Header { log_message_interval: -4, ..Header::new(source, sequence_id) }
}

/// A host whose monotonic clock drifts, whose real-time clock is off, and whose stamps are perfect.
struct World {
    observer: Observer,
    /// True time since [`START`], ns.
    now: i64,
    drift: f64,
    /// CLOCK_REALTIME minus true UTC at the start, ns.
    offset: i64,
    /// What the grandmaster's time is ahead of UTC, ns.
    scale: i64,
    interface: u32,
    domain: u8,
}

impl World {
    fn new() -> Self {
        Self {
            observer: Observer::new(),
            now: 0,
            drift: 0.0,
            offset: 0,
            scale: 0,
            interface: INTERFACE,
            domain: 0,
        }
    }

    fn at(&mut self, ns: i64) -> &mut Self {
        self.now = ns;
        self
    }

    fn mono(&self) -> Time<Mono> {
        Time::from_nanos(50 * SECOND + self.now + (self.now as f64 * self.drift) as i64)
    }

    fn true_offset(&self) -> i64 {
        self.offset + (self.now as f64 * self.drift) as i64
    }

    fn timestamp(&self) -> Timestamp {
        let time = START + self.now + self.scale;
        Timestamp::new((time / SECOND) as u64, (time % SECOND) as u32).expect("in range")
    }

    fn packet(&mut self, direction: Direction, bytes: &[u8], stamp: bool) -> Option<Observation> {
        let source = match direction {
            Direction::Ingress => StampSource::TcIngress,
            Direction::Egress => StampSource::StartXmit,
        };
        let stamp = stamp.then_some(Stamp::new(self.mono(), source));
        let real = Time::from_nanos(START + self.now + self.true_offset());
        let packet =
            ObservedPacket { interface: self.interface, direction, vlan: None, bytes, stamp, real };
        self.observer.handle(self.mono(), &packet)
    }

    fn see(&mut self, direction: Direction, mut header: Header, body: Body) -> Option<Observation> {
        header.domain_number = self.domain;
        let bytes = bytes(header, body);
        self.packet(direction, &bytes, body.message_type().is_event())
    }

    fn announce(&mut self, direction: Direction, source: PortIdentity, flags: Flags) {
        let announce = Announce {
            origin_timestamp: Timestamp::ZERO,
            current_utc_offset: 37,
            grandmaster_priority1: 128,
            grandmaster_clock_quality: ClockQuality {
                clock_class: 248,
                clock_accuracy: ClockAccuracy::UNKNOWN,
                offset_scaled_log_variance: 0xffff,
            },
            grandmaster_priority2: 128,
            grandmaster_identity: source.clock_identity,
            steps_removed: 0,
            time_source: TimeSource::INTERNAL_OSCILLATOR,
        };
        let header = Header { flags, ..header(source, 0) };
        assert_eq!(self.see(direction, header, Body::Announce(announce)), None);
    }

    /// A Sync that left the grandmaster `delay` ago comes in, and then its Follow_Up.
    fn sync(&mut self, sequence_id: u16, delay: i64) -> Option<Observation> {
        self.now -= delay;
        let sent = self.timestamp();
        self.now += delay;
        let mut sync = header(GRANDMASTER, sequence_id);
        sync.flags = Flags::TWO_STEP;
        let body = Body::Sync { origin_timestamp: Timestamp::ZERO };
        assert_eq!(self.see(Direction::Ingress, sync, body), None);
        let body = Body::FollowUp { precise_origin_timestamp: sent };
        self.see(Direction::Ingress, header(GRANDMASTER, sequence_id), body)
    }

    /// A Delay_Req goes out, reaches the grandmaster after `delay`, and the answer comes.
    fn delay(&mut self, sequence_id: u16, delay: i64) -> Option<Observation> {
        let body = Body::DelayReq { origin_timestamp: Timestamp::ZERO };
        assert_eq!(self.see(Direction::Egress, header(CLIENT, sequence_id), body), None);
        self.now += delay;
        let body = Body::DelayResp {
            receive_timestamp: self.timestamp(),
            requesting_port_identity: CLIENT,
        };
        let answer = self.see(Direction::Ingress, header(GRANDMASTER, sequence_id), body);
        self.now -= delay;
        answer
    }

    fn port(&self, identity: PortIdentity) -> &PortSnapshot {
        self.observer.ports().find(|port| port.key.port_identity == identity).expect("seen")
    }

    /// Lets so much time pass that nothing is waited for any more.
    fn settle(&mut self) {
        self.now += 10 * SECOND;
        let now = self.mono();
        self.observer.advance(now);
    }
}

fn offset_of(observation: Option<Observation>) -> OffsetSample {
    match observation {
        Some(Observation::Offset(sample)) => sample,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_time_receiver_beside_its_grandmaster_is_measured_and_counted() {
    let mut world = World { drift: 37e-6, offset: 1_500 * MS, ..World::new() };
    world.announce(Direction::Ingress, GRANDMASTER, Flags(0));
    let mut worst = 0;
    for n in 0..320u16 {
        // 16 Sync/s, one-sided noise up to 20 us either way, base delay 2 us.
        world.at(i64::from(n) * 62_500_000);
        let noise = i64::from(n) * 7_919 % 20_000;
        let sample = offset_of(world.sync(n, 2_000 + noise));
        if n > 64 {
            let error = sample.offset.as_nanos() - world.true_offset();
            worst = worst.max(error.abs());
            let raw = sample.raw_offset.as_nanos() - world.true_offset();
            assert!((-2_000..22_000).contains(&raw), "{raw}");
            let delay = sample.delay.expect("measured").as_nanos();
            assert!((1_000..6_000).contains(&delay), "{delay}");
            let frequency = sample.frequency_ppb.expect("measured");
            assert!((frequency - 37_000.0).abs() < 1_500.0, "{frequency}");
        }
        if n % 4 == 0 {
            world.at(i64::from(n) * 62_500_000 + 20 * MS);
            world.delay(n / 4, 2_000 + i64::from(n) * 104_729 % 20_000);
        }
    }
    assert!(worst < 3_000, "{worst} ns");
    let transmitter = world.port(GRANDMASTER);
    assert!(transmitter.is_time_transmitter() && !transmitter.is_local());
    assert_eq!(transmitter.exchanges.sync, 320);
    assert_eq!(transmitter.exchanges.delay_answered, 80);
    assert_eq!(transmitter.offset.count, 320);
    let receiver = world.port(CLIENT);
    assert!(receiver.is_time_receiver() && receiver.is_local());
    assert_eq!(receiver.exchanges.delay, 80);
    world.settle();
    for port in world.observer.ports() {
        assert_eq!(port.losses, Losses::default(), "{:?}", port.key);
    }
}

#[test]
fn the_utc_offset_counts_only_on_the_ptp_time_scale() {
    for (flags, scale) in [
        (Flags::PTP_TIMESCALE | Flags::UTC_OFFSET_VALID, 37 * SECOND),
        (Flags::PTP_TIMESCALE, 37 * SECOND),
        (Flags::UTC_OFFSET_VALID, 0),
        (Flags(0), 0),
    ] {
        let mut world = World { offset: 5_000, scale, ..World::new() };
        world.announce(Direction::Ingress, GRANDMASTER, flags);
        world.sync(0, 1_000);
        world.delay(0, 1_000);
        let sample = offset_of(world.at(SECOND).sync(1, 1_000));
        assert_eq!(sample.offset.as_nanos(), 5_000, "{flags:?}");
        assert_eq!(sample.delay, Some(Duration::from_nanos(1_000)));
        assert_eq!(sample.rx_source, StampSource::TcIngress);
        assert_eq!(sample.tx_source, Some(StampSource::StartXmit));
    }
}

#[test]
fn without_an_announce_exchanges_are_counted_and_not_measured() {
    let mut world = World::new();
    assert_eq!(world.sync(0, 1_000), None);
    assert_eq!(world.port(GRANDMASTER).exchanges.sync, 1);
}

#[test]
fn before_the_first_delay_exchange_the_offset_contains_the_delay() {
    let mut world = World { offset: 5_000, ..World::new() };
    world.announce(Direction::Ingress, GRANDMASTER, Flags(0));
    let sample = offset_of(world.sync(0, 1_000));
    assert_eq!((sample.delay, sample.offset.as_nanos()), (None, 6_000));
    assert_eq!((sample.frequency_ppb, sample.tx_source), (None, None));
}

#[test]
fn follow_up_before_sync_is_accepted() {
    let mut world = World::new();
    world.announce(Direction::Ingress, GRANDMASTER, Flags(0));
    let body = Body::FollowUp { precise_origin_timestamp: world.timestamp() };
    assert_eq!(world.see(Direction::Ingress, header(GRANDMASTER, 5), body), None);
    world.at(1_000);
    let sync = Header { flags: Flags::TWO_STEP, ..header(GRANDMASTER, 5) };
    let body = Body::Sync { origin_timestamp: Timestamp::ZERO };
    let sample = offset_of(world.see(Direction::Ingress, sync, body));
    assert_eq!(sample.raw_offset.as_nanos(), 1_000);
}

#[test]
fn one_step_sync_needs_no_follow_up_and_corrections_count() {
    let mut world = World::new();
    world.announce(Direction::Ingress, GRANDMASTER, Flags(0));
    let origin_timestamp = world.timestamp();
    world.at(1_000);
    // A transparent clock says that it held the message for 400 ns.
    let correction = TimeInterval::from(Duration::from_nanos(400));
    let sync = Header { correction, ..header(GRANDMASTER, 5) };
    let sample = offset_of(world.see(Direction::Ingress, sync, Body::Sync { origin_timestamp }));
    assert_eq!(sample.raw_offset.as_nanos(), 600);
}

#[test]
fn delay_exchanges_subtract_the_correction_of_the_response() {
    let mut world = World::new();
    world.announce(Direction::Ingress, GRANDMASTER, Flags(0));
    world.sync(0, 1_000);
    let body = Body::DelayReq { origin_timestamp: Timestamp::ZERO };
    world.see(Direction::Egress, header(CLIENT, 0), body);
    world.at(1_400);
    let correction = TimeInterval::from(Duration::from_nanos(400));
    let body =
        Body::DelayResp { receive_timestamp: world.timestamp(), requesting_port_identity: CLIENT };
    let resp = Header { correction, ..header(GRANDMASTER, 0) };
    let Some(Observation::Delay(sample)) = world.see(Direction::Ingress, resp, body) else {
        panic!()
    };
    assert_eq!(sample.delay, Some(Duration::from_nanos(1_000)));
}

#[test]
fn every_loss_is_counted_by_its_cause() {
    let mut world = World::new();
    world.announce(Direction::Ingress, GRANDMASTER, Flags(0));
    let two_step = |n| Header { flags: Flags::TWO_STEP, ..header(GRANDMASTER, n) };
    let sync = Body::Sync { origin_timestamp: Timestamp::ZERO };
    let follow_up = |world: &World| Body::FollowUp { precise_origin_timestamp: world.timestamp() };
    let request = Body::DelayReq { origin_timestamp: Timestamp::ZERO };
    for n in 0..10 {
        world.at(i64::from(n) * 100 * MS);
        match n {
            3 => assert_eq!(world.see(Direction::Ingress, two_step(n), sync), None),
            5 => {
                let body = follow_up(&world);
                assert_eq!(world.see(Direction::Ingress, header(GRANDMASTER, n), body), None);
            }
            7 => {
                let sync = bytes(two_step(n), sync);
                assert_eq!(world.packet(Direction::Ingress, &sync, false), None);
                let body = follow_up(&world);
                assert_eq!(world.see(Direction::Ingress, header(GRANDMASTER, n), body), None);
            }
            _ => assert!(world.sync(n, 1_000).is_some()),
        }
        match n {
            2 => {
                world.see(Direction::Egress, header(CLIENT, n), request);
            }
            4 => {
                let request = bytes(header(CLIENT, n), request);
                world.packet(Direction::Egress, &request, false);
                let body = Body::DelayResp {
                    receive_timestamp: world.timestamp(),
                    requesting_port_identity: CLIENT,
                };
                assert_eq!(world.see(Direction::Ingress, header(GRANDMASTER, n), body), None);
            }
            _ => assert!(world.delay(n, 1_000).is_some()),
        }
    }
    // Sync 10 to 12 never come, and a Delay_Resp answers what was not asked.
    world.at(1_300 * MS).sync(13, 1_000);
    let body =
        Body::DelayResp { receive_timestamp: world.timestamp(), requesting_port_identity: CLIENT };
    world.see(Direction::Ingress, header(GRANDMASTER, 99), body);
    world.settle();
    assert_eq!(world.port(GRANDMASTER).exchanges.sync, 8);
    assert_eq!(
        world.port(GRANDMASTER).losses,
        Losses {
            sync_without_follow_up: 1,
            follow_up_without_sync: 1,
            sync_gap: 1 + 3,
            stamp_missing: 1,
            ..Losses::default()
        }
    );
    assert_eq!(world.port(CLIENT).exchanges.delay, 8);
    assert_eq!(
        world.port(CLIENT).losses,
        Losses {
            delay_req_without_resp: 1,
            delay_resp_without_req: 1,
            stamp_missing: 1,
            ..Losses::default()
        }
    );
}

#[test]
fn duplicates_change_nothing_but_their_count() {
    let mut world = World::new();
    world.announce(Direction::Ingress, GRANDMASTER, Flags(0));
    assert!(world.sync(0, 1_000).is_some());
    assert!(world.delay(0, 1_000).is_some());
    let before = world.port(GRANDMASTER).clone();
    assert_eq!(world.sync(0, 9_000), None);
    assert_eq!(world.delay(0, 9_000), None);
    let after = world.port(GRANDMASTER);
    assert_eq!(after.exchanges, before.exchanges);
    assert_eq!(after.offset, before.offset);
    // Sync, Follow_Up, Delay_Resp; the Delay_Req is the client's.
    assert_eq!(after.losses.duplicate, 3);
    assert_eq!(world.port(CLIENT).losses.duplicate, 1);
}

#[test]
fn a_reordered_sync_is_not_missing() {
    let mut world = World::new();
    for (n, sequence_id) in [0u16, 1, 3, 2, 4].into_iter().enumerate() {
        world.at(n as i64 * 100 * MS).sync(sequence_id, 1_000);
    }
    let losses = world.port(GRANDMASTER).losses;
    assert_eq!((losses.sync_gap, losses.sync_reordered, losses.sync_restart), (0, 1, 0));
    assert_eq!(world.port(GRANDMASTER).exchanges.sync, 5);
}

#[test]
fn a_grandmaster_that_restarts_has_lost_nothing() {
    let mut world = World::new();
    for n in 0..4 {
        world.at(n * SECOND).sync(40_000 + n as u16, 1_000);
    }
    for n in 0..4 {
        world.at((n + 10) * SECOND).sync(n as u16, 1_000);
    }
    let losses = world.port(GRANDMASTER).losses;
    assert_eq!((losses.sync_gap, losses.sync_restart), (0, 1));
    assert_eq!(world.port(GRANDMASTER).exchanges.sync, 8);
}

#[test]
fn a_delay_resp_that_overtakes_its_request_is_paired() {
    let mut world = World::new();
    world.announce(Direction::Ingress, GRANDMASTER, Flags(0));
    world.sync(0, 1_000);
    world.delay(0, 1_000);
    let stamp = world.timestamp();
    world.at(SECOND);
    let body = Body::DelayResp { receive_timestamp: stamp, requesting_port_identity: CLIENT };
    assert_eq!(world.see(Direction::Ingress, header(GRANDMASTER, 1), body), None);
    let body = Body::DelayReq { origin_timestamp: Timestamp::ZERO };
    let delay = world.see(Direction::Egress, header(CLIENT, 1), body);
    assert!(matches!(delay, Some(Observation::Delay(_))), "{delay:?}");
    assert_eq!(world.port(CLIENT).exchanges.delay, 2);
}

#[test]
fn a_delay_resp_for_another_port_is_no_exchange_of_this_host() {
    let mut world = World::new();
    world.announce(Direction::Ingress, GRANDMASTER, Flags(0));
    world.sync(0, 1_000);
    let request = Body::DelayReq { origin_timestamp: Timestamp::ZERO };
    let response = |world: &World| Body::DelayResp {
        receive_timestamp: world.timestamp(),
        requesting_port_identity: OTHER,
    };
    // Nobody knows the port.
    let body = response(&world);
    assert_eq!(world.see(Direction::Ingress, header(GRANDMASTER, 0), body), None);
    assert_eq!(world.port(GRANDMASTER).losses.unknown_requester, 1);
    // Its request comes in as well: two others talk.
    assert_eq!(world.see(Direction::Ingress, header(OTHER, 1), request), None);
    let body = response(&world);
    assert_eq!(world.see(Direction::Ingress, header(GRANDMASTER, 1), body), None);
    assert_eq!(world.port(OTHER).exchanges.foreign_delay, 1);
    assert_eq!(world.port(GRANDMASTER).exchanges.delay_answered, 0);
    let sample = offset_of(world.at(SECOND).sync(1, 1_000));
    assert_eq!(sample.delay, None);
}

#[test]
fn the_claims_of_a_local_grandmaster_are_held_against_its_stamps() {
    let mut world = World { scale: 37 * SECOND, ..World::new() };
    world.announce(Direction::Egress, GRANDMASTER, Flags::PTP_TIMESCALE);
    let two_step = |n| Header { flags: Flags::TWO_STEP, ..header(GRANDMASTER, n) };
    for n in 0..100u16 {
        world.at(i64::from(n) * 100 * MS);
        let body = Body::Sync { origin_timestamp: Timestamp::ZERO };
        assert_eq!(world.see(Direction::Egress, two_step(n), body), None);
        // The driver's stamp is 700 ns after the hook's.
        world.now += 700;
        let body = Body::FollowUp { precise_origin_timestamp: world.timestamp() };
        let claim = world.see(Direction::Egress, header(GRANDMASTER, n), body);
        let Some(Observation::SyncClaim(claim)) = claim else { panic!("{claim:?}") };
        assert_eq!((claim.difference.as_nanos(), claim.requester), (700, None));
        // Its receive stamp is 300 ns before the hook's, and three clients ask.
        let client = [CLIENT, OTHER, port(4)][usize::from(n % 3)];
        let claimed = world.timestamp();
        world.now += 300;
        let body = Body::DelayReq { origin_timestamp: Timestamp::ZERO };
        assert_eq!(world.see(Direction::Ingress, header(client, n), body), None);
        let body = Body::DelayResp { receive_timestamp: claimed, requesting_port_identity: client };
        let claim = world.see(Direction::Egress, header(GRANDMASTER, n), body);
        let Some(Observation::DelayClaim(claim)) = claim else { panic!("{claim:?}") };
        assert_eq!((claim.difference.as_nanos(), claim.requester), (-300, Some(client)));
    }
    let grandmaster = world.port(GRANDMASTER);
    assert!(grandmaster.is_local() && grandmaster.is_time_transmitter());
    assert_eq!(grandmaster.exchanges.delay_answered, 100);
    assert_eq!(grandmaster.sync_claim.count, 100);
    assert_eq!(grandmaster.sync_claim.mean_ns, 700.0);
    assert_eq!(grandmaster.delay_claim.mean_ns, -300.0);
    assert_eq!(grandmaster.delay_claim.sd_ns(), 0.0);
    assert_eq!(world.port(CLIENT).exchanges.delay, 34);
    assert_eq!(world.port(OTHER).exchanges.delay, 33);
}

#[test]
fn unicast_sync_that_share_a_sequence_id_are_counted_each() {
    let mut world = World::new();
    let two_step = Header { flags: Flags::TWO_STEP, ..header(GRANDMASTER, 1) };
    for _client in 0..3 {
        let body = Body::Sync { origin_timestamp: Timestamp::ZERO };
        world.see(Direction::Egress, two_step, body);
        let body = Body::FollowUp { precise_origin_timestamp: world.timestamp() };
        world.see(Direction::Egress, header(GRANDMASTER, 1), body);
    }
    assert_eq!(world.port(GRANDMASTER).exchanges.sync, 3);
}

#[test]
fn ntp_over_ptp_is_a_domain_of_its_own() {
    let mut world = World::new();
    world.announce(Direction::Ingress, GRANDMASTER, Flags(0));
    world.sync(0, 1_000);
    // chrony sends Delay_Req both ways, in domain 123, and never a Delay_Resp.
    world.domain = 123;
    let request = Body::DelayReq { origin_timestamp: Timestamp::ZERO };
    for n in 0..10 {
        world.see(Direction::Egress, header(CLIENT, n), request);
        world.see(Direction::Ingress, header(OTHER, n), request);
    }
    world.domain = 0;
    world.delay(3, 1_000);
    world.settle();
    let in_domain =
        |number| world.observer.ports().filter(move |port| port.key.domain.domain_number == number);
    assert_eq!(in_domain(123).count(), 2);
    assert_eq!(in_domain(0).count(), 2);
    assert!(in_domain(0).all(|port| port.losses == Losses::default()));
}

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
        bytes: &sync,
        stamp: None,
        real: Time::ZERO,
    };
    let now = world.mono();
    world.observer.handle(now, &packet);
    assert_eq!(world.observer.ports().count(), 4);
    // A priority tag is no VLAN.
    world.observer.handle(now, &ObservedPacket { vlan: Some(0), ..packet });
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
                bytes: &bytes,
                stamp: stamp.map(|(mono, _)| Stamp::new(Time::from_nanos(mono), StampSource::TcIngress)),
                real: Time::from_nanos(stamp.map_or(0, |(_, real)| real)),
            };
            observer.handle(Time::from_nanos(now), &packet);
            for (_, port) in observer.ports.iter() {
                prop_assert!(port.syncs.is_bounded());
                prop_assert!(port.requests.is_bounded());
                prop_assert!(port.peer_requests.is_bounded());
            }
        }
        observer.advance(Time::from_nanos(now));
        for port in observer.ports() {
            let figures = [port.offset, port.delay, port.sync_claim, port.delay_claim];
            prop_assert!(figures.iter().all(|figure| figure.mean_ns.is_finite()));
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
