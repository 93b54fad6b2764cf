//! The receiver message by message, and in rooms of their own the peer delay, the transmitter and what
//! holds whatever arrives.

mod anything;
mod brackets;
mod chain;
mod csptp;
mod links;
mod managed;
mod node;
mod peer_delay;
mod relay;
mod roles;
mod server;

use super::{
    Change, Command, DelayMechanism, Destination, Group, LinkState, NoEvent, PortIndex, PortState,
    SentToken, Transmit,
    counters::{Counters, Drop},
    instance::Synchronization,
    receiver::{
        DelayObservation, Observation, PortConfig, Receiver, ReceiverConfig, StateReason,
        SyncObservation,
    },
    transmitter::{Transmitter, TransmitterConfig},
};
use crate::prelude::*;
use crate::stamp::{Stamp, StampSource};
use ptp_common::{
    time::{Duration, Mono, Ptp, Time},
    wire::{
        Announce, Body, Bracket, ClockAccuracy, ClockIdentity, ClockQuality, Flags, Header,
        Message, MessageType, PortIdentity, TimeInterval, TimeSource, Timestamp, Tlvs,
    },
};

const PORT: PortIndex = PortIndex(0);
const OWN: ClockIdentity = ClockIdentity([0xcc; 8]);
const GM: PortIdentity = PortIdentity { clock_identity: ClockIdentity([1; 8]), port_number: 1 };
const OWN_PORT: PortIdentity = PortIdentity { clock_identity: OWN, port_number: 1 };

fn at(millis: i64) -> Time<Mono> {
    Time::from_nanos(1_000_000_000 + millis * 1_000_000)
}

fn stamp(time: Time<Mono>) -> Option<Stamp> {
    Some(Stamp::new(time, StampSource::Simulated))
}

fn wire(header: Header, body: Body) -> Vec<u8> {
    let mut bytes = vec![0; 64];
    let length = Message { header, body, tlvs: Tlvs::NONE }.emit(&mut bytes).unwrap();
    bytes.truncate(length);
    bytes
}

fn time(seconds: u64, nanos: u32) -> Timestamp {
    Timestamp::new(seconds, nanos).unwrap()
}

fn announce_body(grandmaster: ClockIdentity) -> Announce {
    Announce {
        origin_timestamp: Timestamp::ZERO,
        current_utc_offset: 37,
        grandmaster_priority1: 128,
        grandmaster_clock_quality: ClockQuality {
            clock_class: 6,
            clock_accuracy: ClockAccuracy(0x21),
            offset_scaled_log_variance: 100,
        },
        grandmaster_priority2: 128,
        grandmaster_identity: grandmaster,
        steps_removed: 0,
        time_source: TimeSource::GNSS,
    }
}

fn announce(from: PortIdentity, sequence_id: u16) -> Vec<u8> {
    let mut header = Header::new(from, sequence_id);
    header.log_message_interval = 0;
    wire(header, Body::Announce(announce_body(from.clock_identity)))
}

fn sync_header(sequence_id: u16) -> Header {
    let mut header = Header::new(GM, sequence_id);
    header.log_message_interval = 0;
    header
}

fn sync(sequence_id: u16, correction: i64) -> Vec<u8> {
    let mut header = sync_header(sequence_id);
    header.flags = Flags::TWO_STEP;
    header.correction = TimeInterval(correction);
    wire(header, Body::Sync { origin_timestamp: Timestamp::ZERO })
}

fn follow_up(sequence_id: u16, origin: Timestamp, correction: i64) -> Vec<u8> {
    let mut header = sync_header(sequence_id);
    header.correction = TimeInterval(correction);
    wire(header, Body::FollowUp { precise_origin_timestamp: origin })
}

fn delay_resp(sequence_id: u16, receive: Timestamp, requester: PortIdentity, log: i8) -> Vec<u8> {
    let mut header = Header::new(GM, sequence_id);
    header.log_message_interval = log;
    wire(
        header,
        Body::DelayResp { receive_timestamp: receive, requesting_port_identity: requester },
    )
}

struct Bench {
    receiver: Receiver,
    actions: Vec<Command<NoEvent>>,
}

impl Bench {
    fn new(config: ReceiverConfig) -> Self {
        let receiver = Receiver::new(config, at(0));
        let mut bench = Self { receiver, actions: Vec::new() };
        bench.collect();
        bench
    }

    /// Follows [`GM`] from 1 s on.
    fn following(config: ReceiverConfig) -> Self {
        let mut bench = Self::new(config);
        bench.put(0, &announce(GM, 1));
        assert_eq!(bench.receiver.port_state(PORT), PortState::Listening);
        bench.put(1_000, &announce(GM, 2));
        assert_eq!(bench.receiver.port_state(PORT), PortState::Uncalibrated);
        bench.actions.clear();
        bench
    }

    fn collect(&mut self) {
        while let Some(action) = self.receiver.next_command() {
            self.actions.push(action);
        }
    }

    /// Event messages get the present time as their stamp.
    fn put(&mut self, millis: i64, bytes: &[u8]) {
        let rx = if bytes[0] & 0x0f < 8 { stamp(at(millis)) } else { None };
        self.receiver.handle_message(at(millis), PORT, bytes, rx);
        self.collect();
    }

    fn poll(&mut self, millis: i64) {
        self.receiver.poll(at(millis));
        self.collect();
    }

    fn counters(&self) -> &Counters {
        self.receiver.counters(PORT)
    }

    fn dropped(&self, cause: Drop) -> u64 {
        self.counters().dropped(cause)
    }

    fn total_dropped(&self) -> u64 {
        self.counters().drops().map(|(_, count)| count).sum()
    }

    fn observations(&self) -> Vec<Observation> {
        let observation = |action: &Command<NoEvent>| match action {
            Command::Measured(measurement) => Some(measurement.observation),
            _ => None,
        };
        self.actions.iter().filter_map(observation).collect()
    }

    /// The first event message that the receiver wants to send from `millis` on.
    fn request(&mut self, millis: i64) -> (i64, SentToken, Header) {
        for now in millis..millis + 10_000 {
            self.actions.clear();
            self.poll(now);
            for action in &self.actions {
                if let Command::Send(Transmit { token: Some(token), message, .. }) = action {
                    return (now, *token, Message::parse(message).unwrap().header);
                }
            }
        }
        panic!("no request within 10 s");
    }
}

fn pdelay_resp(from: PortIdentity, sequence_id: u16, receipt: Timestamp) -> Vec<u8> {
    let mut header = Header::new(from, sequence_id);
    header.flags = Flags::TWO_STEP;
    wire(
        header,
        Body::PdelayResp { request_receipt_timestamp: receipt, requesting_port_identity: OWN_PORT },
    )
}

fn pdelay_follow_up(from: PortIdentity, sequence_id: u16, origin: Timestamp) -> Vec<u8> {
    wire(
        Header::new(from, sequence_id),
        Body::PdelayRespFollowUp {
            response_origin_timestamp: origin,
            requesting_port_identity: OWN_PORT,
        },
    )
}

fn grandmaster() -> Transmitter {
    let mut config = TransmitterConfig::new(GM.clock_identity);
    config.max_requests_per_second = 10;
    let mut transmitter = Transmitter::new(config, at(0));
    assert!(matches!(transmitter.next_command(), Some(Command::Changed(_))));
    transmitter
}

fn delay_req(sequence_id: u16, correction: i64) -> Vec<u8> {
    let mut header = Header::new(OWN_PORT, sequence_id);
    header.correction = TimeInterval(correction);
    wire(header, Body::DelayReq { origin_timestamp: Timestamp::ZERO })
}

fn config() -> ReceiverConfig {
    ReceiverConfig::new(OWN, 1)
}

fn p2p() -> ReceiverConfig {
    let port = PortConfig { delay_mechanism: DelayMechanism::P2p, ..PortConfig::default() };
    ReceiverConfig { ports: vec![port], ..config() }
}

#[test]
fn states_serialise_to_their_names() {
    for state in PortState::ALL {
        assert_eq!(serde_json::to_value(state).unwrap(), state.name());
    }
}

#[test]
fn a_two_step_sync_sums_both_corrections_and_keeps_fractions() {
    let mut bench = Bench::following(config());
    bench.put(1_100, &sync(7, 3 << 16));
    bench.put(1_101, &follow_up(7, time(100, 5), 0x8000));
    let t1 = Time::<Ptp>::from_seconds_nanos(100, 8) + Duration::from_scaled_nanos(0x8000);
    let t2 = stamp(at(1_100)).unwrap();
    let expected = SyncObservation {
        t1,
        t2,
        sequence_id: 7,
        log_interval: Some(0),
        two_step: true,
        correction: Duration::from_scaled_nanos((3 << 16) + 0x8000),
    };
    assert_eq!(bench.observations(), [Observation::Sync(expected)]);
}

#[test]
fn a_follow_up_before_its_sync_is_accepted() {
    let mut bench = Bench::following(config());
    bench.put(1_100, &follow_up(7, time(100, 5), 0));
    assert!(bench.observations().is_empty());
    bench.put(1_101, &sync(7, 0));
    assert_eq!(bench.observations().len(), 1);
    assert_eq!(bench.total_dropped(), 0);
}

#[test]
fn a_one_step_sync_needs_no_follow_up() {
    let mut bench = Bench::following(config());
    let mut header = sync_header(9);
    header.correction = TimeInterval(1 << 16);
    bench.put(1_100, &wire(header, Body::Sync { origin_timestamp: time(100, 5) }));
    let [Observation::Sync(sync)] = bench.observations()[..] else { panic!() };
    assert_eq!(sync.t1, Time::from_seconds_nanos(100, 6));
    assert!(!sync.two_step);
}

#[test]
fn delay_asymmetry_moves_both_directions() {
    let mut config = config();
    config.ports[0].delay_asymmetry = Duration::from_nanos(100);
    let mut bench = Bench::following(config);
    let header = sync_header(9);
    bench.put(1_100, &wire(header, Body::Sync { origin_timestamp: time(100, 5) }));
    let [Observation::Sync(sync)] = bench.observations()[..] else { panic!() };
    assert_eq!(sync.t1, Time::from_seconds_nanos(100, 105));
    let (now, token, request) = bench.request(1_100);
    bench.receiver.handle_tx_stamp(at(now), token, stamp(at(now)));
    bench.actions.clear();
    bench.put(now + 1, &delay_resp(request.sequence_id, time(100, 0), OWN_PORT, 0));
    let [Observation::Delay(delay)] = bench.observations()[..] else { panic!() };
    assert_eq!(delay.t4, Time::from_seconds_nanos(100, 100));
}

#[test]
fn sync_from_another_port_of_the_grandmaster_is_ignored() {
    let mut bench = Bench::following(config());
    let mut header = sync_header(9);
    header.source_port_identity.port_number = 2;
    bench.put(1_100, &wire(header, Body::Sync { origin_timestamp: time(100, 5) }));
    assert!(bench.observations().is_empty());
    assert_eq!(bench.dropped(Drop::NotParent), 1);
}

#[test]
fn replayed_and_duplicate_messages_are_counted_and_change_nothing() {
    let mut bench = Bench::following(config());
    for n in 0..10 {
        bench.put(1_100 + 1_000 * i64::from(n), &sync(100 + n, 0));
        bench.put(1_101 + 1_000 * i64::from(n), &follow_up(100 + n, time(100, 5), 0));
        bench.put(1_102 + 1_000 * i64::from(n), &announce(GM, 3 + n));
    }
    assert_eq!(bench.observations().len(), 10);
    bench.actions.clear();
    bench.put(10_200, &sync(109, 0));
    bench.put(10_201, &follow_up(109, time(1, 5), 0));
    bench.put(10_202, &announce(GM, 12));
    assert_eq!(bench.dropped(Drop::Duplicate), 3);
    bench.put(10_300, &sync(101, 0));
    bench.put(10_301, &follow_up(101, time(1, 5), 0));
    bench.put(10_302, &announce(GM, 4));
    assert_eq!(bench.dropped(Drop::Replayed), 3);
    assert!(bench.actions.is_empty(), "{:?}", bench.actions);
}

#[test]
fn a_sync_overtaken_by_a_later_one_is_not_taken_out_of_order() {
    let mut bench = Bench::following(config());
    bench.put(1_100, &sync(1, 0));
    bench.put(1_101, &sync(2, 0));
    bench.put(1_102, &follow_up(2, time(2, 0), 0));
    bench.put(1_103, &follow_up(1, time(1, 0), 0));
    assert_eq!(bench.observations().len(), 1);
    assert_eq!(bench.dropped(Drop::SyncWithoutFollowUp), 1);
    assert_eq!(bench.dropped(Drop::Replayed), 1);
}

#[test]
fn a_sync_without_stamp_costs_one_exchange_and_counts_once() {
    let mut bench = Bench::following(config());
    bench.receiver.handle_message(at(1_100), PORT, &sync(1, 0), None);
    bench.put(1_101, &follow_up(1, time(1, 0), 0));
    bench.put(2_100, &sync(2, 0));
    bench.put(2_101, &follow_up(2, time(2, 0), 0));
    assert_eq!(bench.observations().len(), 1);
    assert_eq!(bench.dropped(Drop::MissingRxStamp), 1);
    assert_eq!(bench.total_dropped(), 1);
}

#[test]
fn an_answered_delay_req_is_an_observation_in_either_order_of_stamp_and_answer() {
    for stamp_first in [true, false] {
        let mut bench = Bench::following(config());
        bench.put(1_100, &sync(1, 0));
        let (now, token, request) = bench.request(1_100);
        assert_eq!(request.source_port_identity, OWN_PORT);
        bench.actions.clear();
        if stamp_first {
            bench.receiver.handle_tx_stamp(at(now), token, stamp(at(now)));
        }
        bench.put(now + 1, &delay_resp(request.sequence_id, time(200, 9), OWN_PORT, 0));
        if !stamp_first {
            assert!(bench.observations().is_empty());
            bench.receiver.handle_tx_stamp(at(now + 2), token, stamp(at(now)));
            bench.collect();
        }
        let expected = DelayObservation {
            t3: stamp(at(now)).unwrap(),
            t4: Time::from_seconds_nanos(200, 9),
            sequence_id: request.sequence_id,
            correction: Duration::ZERO,
        };
        assert_eq!(bench.observations(), [Observation::Delay(expected)]);
        bench.put(now + 3, &delay_resp(request.sequence_id, time(200, 9), OWN_PORT, 0));
        assert_eq!(bench.dropped(Drop::Duplicate), 1);
    }
}

#[test]
fn delay_resp_for_another_port_is_ignored() {
    let mut bench = Bench::following(config());
    bench.put(1_100, &sync(1, 0));
    let (now, token, request) = bench.request(1_100);
    bench.receiver.handle_tx_stamp(at(now), token, stamp(at(now)));
    let other = PortIdentity { port_number: 2, ..OWN_PORT };
    bench.put(now + 1, &delay_resp(request.sequence_id, time(200, 9), other, 0));
    assert_eq!(bench.dropped(Drop::OtherRequester), 1);
    bench.put(now + 1, &delay_resp(request.sequence_id.wrapping_add(1), time(2, 9), OWN_PORT, 0));
    assert_eq!(bench.dropped(Drop::UnmatchedDelayResp), 1);
    assert!(bench.observations().is_empty());
}

#[test]
fn the_delay_req_interval_is_adopted_from_delay_resp_if_it_is_sane() {
    for (log, expected) in [(-3, -3), (3, 3), (22, 3), (-10, -7), (23, 0), (-11, 0), (127, 0)] {
        let mut bench = Bench::following(config());
        bench.put(1_100, &sync(1, 0));
        let (now, _, request) = bench.request(1_100);
        bench.put(now + 1, &delay_resp(request.sequence_id, time(200, 9), OWN_PORT, log));
        assert_eq!(bench.receiver.log_min_delay_req_interval(PORT), Some(expected));
    }
}

#[test]
fn delay_req_intervals_are_uniform_over_twice_the_mean() {
    let mut bench = Bench::following(config());
    let mut sent: Vec<f64> = Vec::new();
    let mut now = 1_000;
    let mut n = 0;
    while sent.len() < 2_000 {
        if now % 1_000 == 0 {
            n += 1;
            bench.put(now, &announce(GM, 2 + n));
            bench.put(now, &sync(n, 0));
        }
        bench.actions.clear();
        bench.poll(now);
        let requests = bench
            .actions
            .iter()
            .filter(|a| matches!(a, Command::Send(Transmit { token: Some(_), .. })));
        sent.extend(requests.map(|_| now as f64 / 1_000.0));
        now += 5;
    }
    let gaps: Vec<f64> = sent.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
    assert!((0.95..1.05).contains(&mean), "{mean}");
    assert!(gaps.iter().all(|gap| *gap <= 2.01));
    let below_half = gaps.iter().filter(|gap| **gap < 0.5).count() as f64 / gaps.len() as f64;
    assert!((0.22..0.28).contains(&below_half), "{below_half}");
}

#[test]
fn an_announce_is_not_enough_and_two_far_apart_are_not_either() {
    let mut bench = Bench::new(config());
    bench.put(0, &announce(GM, 1));
    bench.put(4_500, &announce(GM, 2));
    assert_eq!(bench.receiver.port_state(PORT), PortState::Listening);
    bench.put(5_500, &announce(GM, 3));
    assert_eq!(bench.receiver.port_state(PORT), PortState::Uncalibrated);
}

#[test]
fn the_announce_receipt_timeout_ends_in_listening_after_three_intervals() {
    let mut bench = Bench::following(config());
    bench.receiver.synchronize(Synchronization::Locked);
    assert_eq!(bench.receiver.port_state(PORT), PortState::TimeReceiver);
    bench.collect();
    bench.actions.clear();
    assert_eq!(bench.receiver.next_wakeup(), Some(at(4_000)));
    bench.poll(3_999);
    assert!(bench.actions.is_empty());
    bench.poll(4_000);
    let state = Command::Changed(Change::PortState {
        port: PORT,
        old: PortState::TimeReceiver,
        new: PortState::Listening,
        reason: StateReason::AnnounceTimeout,
    });
    assert_eq!(bench.actions, [state, Command::Changed(Change::Parent(None))]);
    assert_eq!(bench.receiver.next_wakeup(), None);
}

#[test]
fn announce_messages_that_must_not_count_are_counted_by_cause() {
    let from = |body: Announce, flags: Flags, sequence_id: u16| {
        let mut header = Header::new(GM, sequence_id);
        header.flags = flags;
        wire(header, Body::Announce(body))
    };
    let body = announce_body(GM.clock_identity);
    let none = Flags(0);
    type Case<'a> = (Drop, &'a dyn Fn(u16) -> Vec<u8>);
    let cases: [Case<'_>; 4] = [
        (Drop::StepsRemoved, &|n| from(Announce { steps_removed: 255, ..body }, none, n)),
        (Drop::AlternateMaster, &|n| from(body, Flags::ALTERNATE_MASTER, n)),
        (Drop::SelfGrandmaster, &|n| from(Announce { grandmaster_identity: OWN, ..body }, none, n)),
        (Drop::SelfSent, &|n| announce(PortIdentity { port_number: 7, ..OWN_PORT }, n)),
    ];
    for (cause, message) in cases {
        let mut bench = Bench::new(config());
        for n in 0..4 {
            bench.put(i64::from(n) * 1_000, &message(n));
        }
        assert_eq!(bench.receiver.port_state(PORT), PortState::Listening, "{}", cause.name());
        assert_eq!(bench.dropped(cause), 4, "{}", cause.name());
    }
}

#[test]
fn messages_of_other_domains_profiles_and_versions_are_counted_by_cause() {
    let good = announce(GM, 3);
    let changed = |at: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[at] = value;
        bytes
    };
    let cases = [
        (Drop::WrongDomain, changed(4, 123)),
        (Drop::WrongSdoId, changed(0, 0x1b)),
        (Drop::WrongSdoId, changed(5, 1)),
        (Drop::WrongVersion, changed(1, 1)),
        (Drop::Malformed, changed(0, 0x0e)),
        (Drop::Truncated, good[..40].to_vec()),
        (Drop::Truncated, Vec::new()),
    ];
    let mut bench = Bench::following(config());
    for (cause, bytes) in cases {
        let before = bench.dropped(cause);
        bench.receiver.handle_message(at(1_100), PORT, &bytes, None);
        assert_eq!(bench.dropped(cause), before + 1, "{}", cause.name());
    }
    bench.collect();
    assert!(bench.actions.is_empty());
    // Minor version 0 and 1 are both fine, and so is padding.
    let mut padded = changed(1, 0x02);
    padded.extend([0; 10]);
    bench.put(2_000, &padded);
    assert_eq!(bench.total_dropped(), 7);
}

#[test]
fn a_flood_of_announcing_clocks_is_bounded_and_does_not_unseat_the_parent() {
    let mut bench = Bench::following(config());
    for n in 0..10_000_u32 {
        let [a, b, c, d] = n.to_be_bytes();
        let from = PortIdentity {
            clock_identity: ClockIdentity([0, 9, a, b, c, d, 0, 0]),
            port_number: 1,
        };
        bench.put(1_500, &announce(from, 1));
    }
    assert!(bench.receiver.stored() <= 16);
    assert_eq!(bench.receiver.parent().unwrap().set.parent_port_identity, GM);
    assert!(bench.dropped(Drop::ForeignTableFull) > 9_000);
}

#[test]
fn a_correction_that_is_too_large_to_represent_is_dropped() {
    let mut bench = Bench::following(config());
    bench.put(1_100, &sync(1, i64::MAX));
    assert_eq!(bench.dropped(Drop::Correction), 1);
}

#[test]
fn announce_intervals_out_of_range_are_ignored() {
    let mut bench = Bench::new(config());
    for n in 1..=3 {
        let mut bytes = announce(GM, n);
        bytes[33] = 0x7f;
        bench.put(i64::from(n) * 2_000, &bytes);
    }
    assert_eq!(bench.receiver.port_state(PORT), PortState::Uncalibrated);
    // Three of the configured 2 s.
    assert_eq!(bench.receiver.next_wakeup(), Some(at(12_000)));
}
