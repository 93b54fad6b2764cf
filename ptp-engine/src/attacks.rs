//! What somebody on the network may try, and what a faulty grandmaster does: the receiver in virtual
//! time, told by its public side alone.

mod variants;

use super::{
    Change, Command, Destination, PortIndex, PortState, SentToken, Transmit,
    counters::Drop,
    receiver::{Acceptable, Hint, Observation, Receiver, ReceiverConfig},
};
use crate::prelude::*;
use crate::{
    address::Address,
    stamp::{Stamp, StampSource},
    transmitter::{Transmitter, TransmitterConfig},
};
use ptp_common::{
    time::{Duration, Mono, Ptp, Time},
    wire::{
        Announce, Body, ClockAccuracy, ClockIdentity, ClockQuality, Flags, Header, Message,
        PortIdentity, TimeInterval, TimeSource, Timestamp, Tlvs,
    },
};

const PORT: PortIndex = PortIndex(0);
const OWN: ClockIdentity = ClockIdentity([0xcc; 8]);
const OWN_PORT: PortIdentity = PortIdentity { clock_identity: OWN, port_number: 1 };
const GM: PortIdentity = sender(0x77);

const fn sender(n: u8) -> PortIdentity {
    PortIdentity { clock_identity: ClockIdentity([n; 8]), port_number: 1 }
}

/// An invented identity.
fn invented(n: u32) -> PortIdentity {
    let [a, b, c, d] = n.to_be_bytes();
    PortIdentity { clock_identity: ClockIdentity([0, 9, a, b, c, d, 0, 0]), port_number: 1 }
}

fn at(millis: i64) -> Time<Mono> {
    Time::from_nanos(1_000_000_000 + millis * 1_000_000)
}

fn wire(header: Header, body: Body) -> Vec<u8> {
    let mut bytes = vec![0; 64];
    let length = Message { header, body, tlvs: Tlvs::NONE }.emit(&mut bytes).unwrap();
    bytes.truncate(length);
    bytes
}

/// One Announce in the making.
#[derive(Clone, Copy)]
struct Says {
    from: PortIdentity,
    log: i8,
    flags: Flags,
    domain: u8,
    sdo_id: u16,
    body: Announce,
}

impl Says {
    /// A good grandmaster on the PTP time scale that announces itself every second.
    fn good(from: PortIdentity) -> Self {
        Self {
            from,
            log: 0,
            flags: Flags::PTP_TIMESCALE | Flags::UTC_OFFSET_VALID,
            domain: 0,
            sdo_id: 0,
            body: Announce {
                origin_timestamp: Timestamp::ZERO,
                current_utc_offset: 37,
                grandmaster_priority1: 128,
                grandmaster_clock_quality: ClockQuality {
                    clock_class: 6,
                    clock_accuracy: ClockAccuracy(0x21),
                    offset_scaled_log_variance: 100,
                },
                grandmaster_priority2: 128,
                grandmaster_identity: from.clock_identity,
                steps_removed: 0,
                time_source: TimeSource::GNSS,
            },
        }
    }

    fn priority1(mut self, priority1: u8) -> Self {
        self.body.grandmaster_priority1 = priority1;
        self
    }

    fn class(mut self, class: u8) -> Self {
        self.body.grandmaster_clock_quality.clock_class = class;
        self
    }

    fn bytes(&self, sequence_id: u16) -> Vec<u8> {
        let mut header = Header::new(self.from, sequence_id);
        header.log_message_interval = self.log;
        header.flags = self.flags;
        header.domain_number = self.domain;
        header.sdo_id = self.sdo_id;
        wire(header, Body::Announce(self.body))
    }
}

struct Bench {
    receiver: Receiver,
    epochs: usize,
    observations: Vec<Observation>,
    requests: Vec<(i64, SentToken, u16)>,
    now: i64,
}

impl Bench {
    fn new(config: ReceiverConfig) -> Self {
        let receiver = Receiver::new(config, at(0));
        Self { receiver, epochs: 0, observations: Vec::new(), requests: Vec::new(), now: 0 }
    }

    fn collect(&mut self) {
        while let Some(action) = self.receiver.next_command() {
            match action {
                Command::Changed(Change::Parent(_)) => self.epochs += 1,
                Command::Measured(measurement) => self.observations.push(measurement.observation),
                Command::Send(Transmit { token: Some(token), message, .. }) => {
                    let sequence_id = Message::parse(&message).unwrap().header.sequence_id;
                    self.requests.push((self.now, token, sequence_id));
                }
                _ => {}
            }
        }
    }

    /// Event messages get the present time as their stamp.
    fn put(&mut self, bytes: &[u8]) {
        let is_event = bytes[0] & 0x0f < 8;
        let rx = is_event.then(|| Stamp::new(at(self.now), StampSource::Simulated));
        self.receiver.handle_message(at(self.now), PORT, bytes, rx);
        self.collect();
    }

    /// Goes on to `millis`, stopping at each timer.
    fn go(&mut self, millis: i64) {
        while let Some(next) = self.receiver.next_wakeup().filter(|next| *next <= at(millis)) {
            self.now = (next - at(0)).as_nanos().div_euclid(1_000_000).max(self.now);
            self.receiver.poll(next);
            self.collect();
        }
        self.now = millis;
    }

    /// [`GM`] announces itself every second from `from` to `to`, seconds; after each Announce of
    /// sequence n comes `other(n)`.
    fn announced(&mut self, (from, to): (i64, i64), other: impl Fn(&mut Self, u16)) {
        for second in from..to {
            self.go(second * 1_000);
            let n = second as u16;
            self.put(&Says::good(GM).bytes(n));
            other(self, n);
        }
    }

    fn parent(&self) -> Option<PortIdentity> {
        self.receiver.parent().map(|parent| parent.set.parent_port_identity)
    }

    fn dropped(&self, cause: Drop) -> u64 {
        self.receiver.counters(PORT).dropped(cause)
    }

    fn sync(&mut self, sequence_id: u16, origin: Timestamp, flags: Flags) {
        let mut header = Header::new(GM, sequence_id);
        header.log_message_interval = 0;
        header.flags = flags;
        self.put(&wire(header, Body::Sync { origin_timestamp: origin }));
    }

    fn follow_up(&mut self, sequence_id: u16, origin: Timestamp) {
        let mut header = Header::new(GM, sequence_id);
        header.log_message_interval = 0;
        self.put(&wire(header, Body::FollowUp { precise_origin_timestamp: origin }));
    }

    fn delay_resp(&mut self, sequence_id: u16, receive: Timestamp, log: i8) {
        let mut header = Header::new(GM, sequence_id);
        header.log_message_interval = log;
        let body =
            Body::DelayResp { receive_timestamp: receive, requesting_port_identity: OWN_PORT };
        self.put(&wire(header, body));
    }
}

fn config() -> ReceiverConfig {
    ReceiverConfig::new(OWN, 1)
}

/// The receiver's monotonic clock as the grandmaster's time.
fn timestamp(millis: i64) -> Timestamp {
    Timestamp::new(1_700_000_000 + (millis / 1_000) as u64, (millis % 1_000) as u32 * 1_000_000)
        .unwrap()
}

#[test]
fn two_announces_with_an_interval_of_weeks_hold_nobody() {
    let mut bench = Bench::new(config());
    let mut captor = Says::good(sender(0x01)).priority1(1);
    captor.log = 22;
    bench.announced((0, 5), |_, _| {});
    assert_eq!(bench.parent(), Some(GM));
    bench.announced((5, 7), |bench, n| bench.put(&captor.bytes(n)));
    assert_eq!(bench.parent(), Some(captor.from));
    bench.announced((7, 20), |_, _| {});
    assert_eq!(bench.parent(), Some(GM));
    assert!(bench.dropped(Drop::IntervalClamped) == 2);
}

#[test]
fn best_of_seventeen_is_followed() {
    let mut bench = Bench::new(config());
    for n in 0..5_u16 {
        bench.go(i64::from(n) * 1_000);
        for other in 1..=16 {
            bench.put(&Says::good(sender(other)).priority1(200).bytes(n));
        }
        bench.put(&Says::good(GM).priority1(1).bytes(n));
    }
    assert_eq!(bench.parent(), Some(GM));
}

#[test]
fn thirty_two_frames_lock_out_nobody() {
    let mut bench = Bench::new(config());
    for n in 0..2_u16 {
        bench.go(i64::from(n) * 10);
        for other in 1..=16 {
            let mut says = Says::good(sender(other)).priority1(255).class(255);
            says.log = 22;
            bench.put(&says.bytes(n));
        }
    }
    bench.announced((1, 4), |_, _| {});
    assert_eq!(bench.parent(), Some(GM));
}

#[test]
fn ever_new_identities_lock_out_nobody() {
    let mut bench = Bench::new(config());
    let mut n = 0;
    let mut locked_out = 0;
    for second in 0..60 {
        for part in 0..1_000 {
            bench.go(second * 1_000 + part);
            // All of them better, if they were what they say.
            bench.put(&Says::good(invented(n)).priority1(0).bytes(1));
            n += 1;
        }
        bench.put(&Says::good(GM).bytes(second as u16));
        locked_out += i64::from(bench.parent() != Some(GM));
    }
    assert_eq!(bench.parent(), Some(GM));
    assert!(locked_out < 30, "{locked_out} s");
    assert!(bench.receiver.stored() < 64);
}

#[test]
fn candidate_that_is_pushed_out_comes_back_when_there_is_room() {
    let mut bench = Bench::new(config());
    for second in 0..40_i64 {
        bench.go(second * 1_000);
        let n = second as u16;
        for other in 1..=17 {
            if second < 10 {
                bench.put(&Says::good(sender(other)).priority1(1).bytes(n));
            }
        }
        bench.put(&Says::good(GM).bytes(n));
    }
    assert_eq!(bench.parent(), Some(GM));
}

#[test]
fn copies_with_a_tiny_interval_do_not_expire_the_parent() {
    let mut bench = Bench::new(config());
    let mut copy = Says::good(GM);
    copy.log = -10;
    bench.announced((0, 60), |bench, n| {
        bench.go(i64::from(n) * 1_000 + 500);
        bench.put(&copy.bytes(n + 1));
    });
    assert_eq!(bench.parent(), Some(GM));
    assert_eq!(bench.epochs, 1);
    // The one that came second is known to be a copy.
    assert!(bench.dropped(Drop::Duplicate) >= 50);
}

#[test]
fn flips_of_what_never_flips_are_held_and_counted() {
    let base = Says::good(GM);
    let flips: [(&str, Says); 6] = [
        ("time scale", Says { flags: Flags::UTC_OFFSET_VALID, ..base }),
        ("UTC offset", Says { body: Announce { current_utc_offset: 36, ..base.body }, ..base }),
        ("leap second", Says { flags: base.flags | Flags::LEAP61, ..base }),
        (
            "grandmaster",
            Says {
                body: Announce { grandmaster_identity: sender(9).clock_identity, ..base.body },
                ..base
            },
        ),
        ("class", base.class(255)),
        ("priority", base.priority1(255)),
    ];
    for (what, flip) in flips {
        // A sequenceId of its own, and that of the next true one: which is believed then?
        for ahead in [1, 5] {
            let mut bench = Bench::new(config());
            let rival = Says::good(sender(0x88)).priority1(129);
            bench.announced((0, 60), |bench, n| {
                bench.put(&rival.bytes(n));
                if n > 3 {
                    bench.go(i64::from(n) * 1_000 + 500);
                    bench.put(&flip.bytes(n + ahead));
                }
            });
            assert_eq!(bench.epochs, 1, "{what} {ahead}");
            let parent = bench.receiver.parent().unwrap();
            assert_eq!(parent.set.parent_port_identity, GM, "{what} {ahead}");
            assert_eq!(parent.set.grandmaster_identity, GM.clock_identity, "{what} {ahead}");
            let properties = parent.time_properties;
            assert!(properties.ptp_timescale && !properties.leap61, "{what} {ahead}");
            assert_eq!(properties.current_utc_offset, 37, "{what} {ahead}");
            assert!(bench.dropped(Drop::Unconfirmed) > 0, "{what} {ahead}");
        }
    }
}

#[test]
fn honest_change_costs_a_few_announces() {
    let base = Says::good(GM);
    let changes: [(Says, u16); 3] = [
        (Says { flags: Flags::UTC_OFFSET_VALID, ..base }, 3),
        (Says { body: Announce { current_utc_offset: 38, ..base.body }, ..base }, 3),
        (base.priority1(7).class(7), 2),
    ];
    for (change, needed) in changes {
        let mut bench = Bench::new(config());
        bench.announced((0, 10), |_, _| {});
        let before = *bench.receiver.parent().unwrap();
        let mut announces = 0;
        for second in 10..20 {
            bench.go(second * 1_000);
            bench.put(&change.bytes(second as u16));
            let now = *bench.receiver.parent().unwrap();
            announces += 1;
            if (now.time_properties, now.set.grandmaster_priority1)
                != (before.time_properties, before.set.grandmaster_priority1)
            {
                break;
            }
        }
        assert_eq!(announces, needed);
        assert_eq!(bench.dropped(Drop::Unconfirmed), u64::from(needed) - 1);
    }
}

#[test]
fn utc_offset_that_cannot_be_is_taken_for_unknown() {
    for offset in [0, -37, 29, 51, i16::MAX] {
        let mut bench = Bench::new(config());
        let mut says = Says::good(GM);
        says.body.current_utc_offset = offset;
        for n in 0..3 {
            bench.go(i64::from(n) * 1_000);
            bench.put(&says.bytes(n));
        }
        let properties = bench.receiver.parent().unwrap().time_properties;
        assert!(!properties.current_utc_offset_valid, "{offset}");
        assert_eq!(bench.dropped(Drop::ImplausibleUtcOffset), 3);
    }
}

#[test]
fn one_won_delay_resp_does_not_stop_requests() {
    let mut bench = Bench::new(config());
    bench.announced((0, 3), |_, _| {});
    bench.sync(1, timestamp(2_000), Flags(0));
    let mut answered = 0;
    let mut is_won = false;
    for millis in 3_000..63_000 {
        bench.go(millis);
        if millis % 1_000 == 0 {
            bench.put(&Says::good(GM).bytes((millis / 1_000) as u16));
        }
        for (_, token, sequence_id) in core::mem::take(&mut bench.requests) {
            bench.receiver.handle_tx_stamp(
                at(millis),
                token,
                Some(Stamp::new(at(millis), StampSource::Simulated)),
            );
            if !is_won {
                is_won = true;
                bench.delay_resp(sequence_id, timestamp(millis), 22);
            }
            bench.delay_resp(sequence_id, timestamp(millis), 0);
            answered += 1;
        }
    }
    assert!(answered > 30, "{answered} requests in a minute");
    assert_eq!(bench.receiver.log_min_delay_req_interval(PORT), Some(0));
}

#[test]
fn forgotten_two_step_flag_is_no_path_of_decades() {
    for (assumed, origin) in [(false, Timestamp::ZERO), (true, Timestamp::new(5, 0).unwrap())] {
        let mut config = config();
        config.ports[0].assume_two_step = assumed;
        let mut bench = Bench::new(config);
        bench.announced((0, 3), |_, _| {});
        bench.go(2_100);
        bench.sync(1, origin, Flags(0));
        assert!(bench.observations.is_empty());
        bench.follow_up(1, timestamp(2_100));
        let [Observation::Sync(sync)] = bench.observations[..] else { panic!() };
        assert_eq!(sync.t1, Time::<Ptp>::from(timestamp(2_100)));
    }
}

#[test]
fn path_delay_of_decades_is_dropped_and_counted() {
    let mut bench = Bench::new(config());
    bench.announced((0, 3), |_, _| {});
    bench.go(2_100);
    // One-step, from a clock that has no time yet.
    bench.sync(1, Timestamp::new(5, 0).unwrap(), Flags(0));
    while bench.requests.is_empty() {
        bench.go(bench.now + 1);
    }
    let (millis, token, sequence_id) = bench.requests[0];
    let stamp = Stamp::new(at(millis), StampSource::Simulated);
    bench.receiver.handle_tx_stamp(at(millis), token, Some(stamp));
    bench.delay_resp(sequence_id, timestamp(millis), 0);
    let delays = bench.observations.iter().filter(|each| matches!(each, Observation::Delay(_)));
    assert_eq!(delays.count(), 0);
    assert_eq!(bench.dropped(Drop::ImplausibleDelay), 1);
}

#[test]
fn correction_of_minutes_is_dropped() {
    let mut bench = Bench::new(config());
    bench.announced((0, 3), |_, _| {});
    for correction in [Duration::from_secs(60), Duration::from_secs(-60)] {
        let mut header = Header::new(GM, 1);
        header.correction = TimeInterval::from(correction);
        bench.put(&wire(header, Body::Sync { origin_timestamp: timestamp(2_000) }));
    }
    assert!(bench.observations.is_empty());
    assert_eq!(bench.dropped(Drop::Correction), 2);
}

#[test]
fn only_acceptable_masters_are_followed() {
    for acceptable in ["7777777777777777", "7777777777777777-1"] {
        let mut config = config();
        config.acceptable = vec![acceptable.parse::<Acceptable>().unwrap()];
        let mut bench = Bench::new(config);
        let rogue = Says::good(sender(0x11)).priority1(0);
        bench.announced((0, 10), |bench, n| bench.put(&rogue.bytes(n)));
        assert_eq!(bench.parent(), Some(GM));
        assert_eq!(bench.dropped(Drop::NotAcceptable), 10);
        let hint = Hint::NotAcceptable { source: rogue.from };
        assert!(bench.receiver.overheard(at(10_000)).any(|each| each == hint));
    }
    // A boundary clock behind which the acceptable grandmaster is.
    let mut config = config();
    config.acceptable = vec!["7777777777777777".parse().unwrap()];
    let mut bench = Bench::new(config);
    let mut boundary = Says::good(sender(0x11));
    boundary.body.grandmaster_identity = GM.clock_identity;
    for n in 0..3 {
        bench.go(i64::from(n) * 1_000);
        bench.put(&boundary.bytes(n));
    }
    assert_eq!(bench.parent(), Some(boundary.from));
}

#[test]
fn grandmasters_of_too_high_a_class_are_not_followed() {
    for (class, expected) in [(7, true), (8, false)] {
        let mut config = config();
        config.max_clock_class = 7;
        let mut bench = Bench::new(config);
        let mut told = Says::good(sender(0x11));
        told.body.grandmaster_clock_quality.clock_class = class;
        for n in 0..3 {
            bench.go(i64::from(n) * 1_000);
            bench.put(&told.bytes(n));
        }
        assert_eq!(bench.parent().is_some(), expected, "class {class}");
        assert_eq!(bench.dropped(Drop::NotAcceptable), if expected { 0 } else { 3 });
    }
}

#[test]
fn what_is_heard_and_cannot_be_followed_is_told_for_a_minute() {
    let mut bench = Bench::new(config());
    let other_domain = Says { domain: 24, ..Says::good(GM) };
    let other_profile = Says { sdo_id: 0x100, ..Says::good(GM) };
    let twin = Says::good(PortIdentity { port_number: 3, ..OWN_PORT });
    let mut version1 = Says::good(GM).bytes(1);
    version1[..2].copy_from_slice(&[0, 1]);
    bench.put(&other_domain.bytes(1));
    bench.put(&other_profile.bytes(1));
    bench.put(&version1);
    // Announced as its own, and by an honest grandmaster's identity: what the twin serves.
    let mut served = twin;
    served.body.grandmaster_identity = GM.clock_identity;
    bench.put(&served.bytes(1));
    // Says a second, and keeps twenty.
    let slow = Says::good(sender(0x55));
    for n in 0..4 {
        bench.go(i64::from(n) * 20_000);
        bench.put(&slow.bytes(n));
    }
    let hints: Vec<Hint> = bench.receiver.overheard(at(60_000)).collect();
    let expected = [
        Hint::OtherDomain { domain_number: 24, source: GM },
        Hint::OtherSdoId { sdo_id: 0x100, source: GM },
        Hint::Version1,
        Hint::Twin { source: twin.from },
        Hint::SlowAnnounce { source: slow.from, kept: Duration::from_secs(20) },
    ];
    assert_eq!(hints, expected);
    assert_eq!(bench.receiver.port_state(PORT), PortState::Listening);
    assert_eq!(bench.receiver.overheard(at(121_000)).count(), 0);
}

#[test]
fn own_requests_that_come_back_are_no_twin() {
    let mut bench = Bench::new(config());
    bench.announced((0, 3), |_, _| {});
    bench.sync(1, timestamp(2_000), Flags(0));
    bench.announced((3, 10), |_, _| {});
    let requests = core::mem::take(&mut bench.requests);
    let request = |sequence_id| {
        wire(
            Header::new(OWN_PORT, sequence_id),
            Body::DelayReq { origin_timestamp: Timestamp::ZERO },
        )
    };
    for (_, _, sequence_id) in &requests {
        bench.put(&request(*sequence_id));
    }
    assert_eq!(bench.receiver.overheard(at(10_000)).count(), 0);
    bench.put(&request(requests[0].2.wrapping_add(0x4000)));
    assert_eq!(bench.receiver.overheard(at(10_000)).count(), 1);
}

#[test]
fn unicast_request_is_answered_by_unicast_and_nobody_else_hears_it() {
    let mut transmitter = Transmitter::new(TransmitterConfig::new(GM.clock_identity), at(0));
    assert!(matches!(transmitter.next_command(), Some(Command::Changed(_))));
    let client = Address::Mac([2, 0, 0, 0, 0, 7]);
    for (flags, is_unicast) in [(Flags::UNICAST, true), (Flags(0), false)] {
        let mut header = Header::new(OWN_PORT, 9);
        header.flags = flags;
        let request = wire(header, Body::DelayReq { origin_timestamp: Timestamp::ZERO });
        let received = Some(Time::from_seconds_nanos(77, 5));
        transmitter.handle_message_from(at(5), PORT, &request, received, Some(client));
        match transmitter.next_command().unwrap() {
            Command::Send(Transmit { to, message, .. }) if is_unicast => {
                assert_eq!(to, Destination::Unicast(client));
                let answer = Message::parse(&message).unwrap();
                assert!(answer.header.flags.contains(Flags::UNICAST));
                assert_eq!(answer.header.log_message_interval, 0x7f);
            }
            Command::Send(Transmit { token: None, message, .. }) if !is_unicast => {
                let answer = Message::parse(&message).unwrap();
                assert!(!answer.header.flags.contains(Flags::UNICAST));
            }
            other => panic!("{other:?}"),
        }
        assert!(transmitter.next_command().is_none());
    }
}
