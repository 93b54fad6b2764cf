//! Claims about the observer, in virtual time: a world with a grandmaster, a network and a host
//! whose clock is known to be wrong, of which the observer sees only packets and stamps.

mod anything;
mod asked;
mod peers;

use super::*;
use crate::address::Address;
use crate::prelude::*;
use crate::{Command, Commands, Context, Engine as _, Input, Monotonic};
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
    between: Option<(Address, Address)>,
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
            between: None,
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
        let packet = ObservedPacket {
            interface: self.interface,
            direction,
            vlan: None,
            between: self.between,
            bytes,
            stamp,
            real,
        };
        let mut out = Commands::default();
        let mut cx = Context { now: self.mono(), clock: &Monotonic::default(), out: &mut out };
        self.observer.handle(&mut cx, Input::Passed(packet));
        match out.pop()? {
            Command::Event(observation) => Some(observation),
            other => panic!("{other:?}"),
        }
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
    assert_eq!(grandmaster.sync_claim.mean, 700.0);
    assert_eq!(grandmaster.delay_claim.mean, -300.0);
    assert_eq!(grandmaster.delay_claim.sd(), 0.0);
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
