//! The council of sources in simulated domains: grandmasters that are right and wrong together, each on a path of its own.

use super::*;
use crate::{
    Destination, PortIndex, SentToken, Transmit,
    clock::virtual_clock::VirtualClock,
    config::PortConfig,
    discipline::Client,
    servo::{Choice, Options, ServoState, build},
    stamp::{Stamp, StampSource},
};
use ptp_common::wire::{
    Announce, Body, ClockAccuracy, ClockQuality, Flags, Header, Message, TimeSource, Timestamp,
    Tlvs,
};
use std::collections::BTreeMap;

const PORT: PortIndex = PortIndex(0);
const ELSEWHERE: PortIndex = PortIndex(1);
/// Each way, ns.
const PATH: i64 = 20_000;
const STEP: i64 = 125_000_000;

/// A grandmaster: how far its time is from the true one, as it goes.
#[derive(Clone, Copy)]
struct Gm {
    n: u8,
    domain: u8,
    priority: u8,
    offset_ns: fn(i64) -> i64,
}

impl Gm {
    fn port(self) -> PortIdentity {
        PortIdentity { clock_identity: ClockIdentity([self.n; 8]), port_number: 1 }
    }

    fn header(self, sequence_id: u16) -> Header {
        let mut header = Header::new(self.port(), sequence_id);
        header.domain_number = self.domain;
        header
    }

    fn id(self) -> SourceId {
        SourceId::Ptp { domain_number: self.domain, port: self.port() }
    }
}

const fn honest(_: i64) -> i64 {
    0
}

/// A second ahead from the 40th second on.
const fn lies_later(second: i64) -> i64 {
    if second >= 40 { 1_000_000_000 } else { 0 }
}

const fn lies(_: i64) -> i64 {
    -500_000_000
}

const fn gm(n: u8, domain: u8, priority: u8, offset_ns: fn(i64) -> i64) -> Gm {
    Gm { n, domain, priority, offset_ns }
}

fn mono(ns: i64) -> Time<Mono> {
    Time::from_nanos(1_000_000_000_000 + ns)
}

fn bytes(header: Header, body: Body) -> Vec<u8> {
    let mut buffer = vec![0; 96];
    let length = Message { header, body, tlvs: Tlvs::NONE }.emit(&mut buffer).unwrap();
    buffer.truncate(length);
    buffer
}

struct Bench {
    client: Client<VirtualClock>,
    gms: Vec<Gm>,
    now: i64,
    sequence: u16,
    told: Vec<(i64, Standing)>,
    asked: BTreeMap<u8, u32>,
    /// Somebody at another port takes the grandmasters' names and says something else.
    has_impostor: bool,
}

impl Bench {
    fn new(policy: Policy, domains: &[u8], gms: &[Gm]) -> Self {
        let config = ReceiverConfig {
            on_disagreement: policy,
            ports: vec![PortConfig::default(); 2],
            witness_domains: domains.to_vec(),
            ..ReceiverConfig::new(ClockIdentity([0xcc; 8]), 7)
        };
        let servo = build(&Choice::default(), &Options::default());
        let clock = VirtualClock::new(mono(0), Time::from_nanos(5_000_000_000_000), 500_000.0);
        let client = Client::new(config, servo, clock, mono(0));
        let (told, asked) = (Vec::new(), BTreeMap::new());
        Self { client, gms: gms.to_vec(), now: 0, sequence: 0, told, asked, has_impostor: false }
    }

    /// What a grandmaster shows; the truth is the monotonic clock and 4000 s.
    fn time_of(gm: Gm, at: i64) -> Timestamp {
        let offset = (gm.offset_ns)(at / 1_000_000_000);
        Timestamp::from_time(Time::from_nanos(5_000_000_000_000 + at + offset)).0
    }

    fn give(&mut self, message: &[u8], stamp: Option<i64>) {
        self.give_on(PORT, message, stamp);
    }

    fn give_on(&mut self, on: PortIndex, message: &[u8], stamp: Option<i64>) {
        let stamp = stamp.map(|at| Stamp::new(mono(at), StampSource::Simulated));
        self.client.handle_message(mono(self.now), on, message, stamp);
        self.collect();
    }

    fn collect(&mut self) {
        let mut sent: Vec<(SentToken, Vec<u8>)> = Vec::new();
        while let Some(command) = self.client.next_command() {
            match command {
                Command::Send(Transmit { token: Some(token), message, to, .. }) => {
                    assert!(matches!(to, Destination::Multicast(_)));
                    sent.push((token, message.to_vec()));
                }
                Command::Event(Event::Standing { new, .. }) => {
                    self.told.push((self.now / 1_000_000_000, new));
                }
                _ => {}
            }
        }
        for (token, message) in sent {
            let request = Message::parse(&message).unwrap().header;
            *self.asked.entry(request.domain_number).or_default() += 1;
            let stamp = Stamp::new(mono(self.now), StampSource::Simulated);
            self.client.handle_tx_stamp(mono(self.now), token, Some(stamp));
            for gm in self.gms.clone().into_iter().filter(|it| it.domain == request.domain_number) {
                let header = gm.header(request.sequence_id);
                let body = Body::DelayResp {
                    receive_timestamp: Self::time_of(gm, self.now + PATH),
                    requesting_port_identity: request.source_port_identity,
                };
                self.give(&bytes(header, body), None);
            }
        }
    }

    fn run_to(&mut self, second: i64) {
        while self.now < second * 1_000_000_000 {
            self.now += STEP;
            while let Some(due) = self.client.next_wakeup().filter(|due| *due <= mono(self.now)) {
                self.client.poll(due.max(mono(self.now)));
                self.collect();
            }
            self.sequence = self.sequence.wrapping_add(1);
            for gm in self.gms.clone() {
                if self.sequence.is_multiple_of(8) {
                    let announce = Announce {
                        origin_timestamp: Timestamp::ZERO,
                        current_utc_offset: 37,
                        grandmaster_priority1: gm.priority,
                        grandmaster_clock_quality: ClockQuality {
                            clock_class: 6,
                            clock_accuracy: ClockAccuracy(0x21),
                            offset_scaled_log_variance: 100,
                        },
                        grandmaster_priority2: 128,
                        grandmaster_identity: gm.port().clock_identity,
                        steps_removed: 0,
                        time_source: TimeSource::GNSS,
                    };
                    let flags = Flags::PTP_TIMESCALE | Flags::UTC_OFFSET_VALID;
                    let header = Header { flags, ..gm.header(self.sequence / 8) };
                    let message = bytes(header, Body::Announce(announce));
                    self.give(&message, None);
                    if self.has_impostor {
                        self.give_on(ELSEWHERE, &message, None);
                    }
                }
                let header = Header {
                    flags: Flags::TWO_STEP,
                    log_message_interval: -3,
                    ..gm.header(self.sequence)
                };
                let sync = Body::Sync { origin_timestamp: Timestamp::ZERO };
                self.give(&bytes(header, sync), Some(self.now));
                let precise_origin_timestamp = Self::time_of(gm, self.now - PATH);
                let follow_up = Body::FollowUp { precise_origin_timestamp };
                let header = Header { flags: Flags(0), ..header };
                self.give(&bytes(header, follow_up), None);
                if self.has_impostor {
                    let origin_timestamp = Self::time_of(Gm { offset_ns: lies, ..gm }, self.now);
                    let message = bytes(header, Body::Sync { origin_timestamp });
                    self.give_on(ELSEWHERE, &message, Some(self.now));
                }
            }
        }
    }

    fn followed(&self) -> Option<SourceId> {
        self.client.followed_id()
    }

    /// How far the clock is from the truth, ns.
    fn error(&self) -> i64 {
        let truth = Time::from_nanos(5_000_000_000_000 + self.now);
        (self.client.domain_time(mono(self.now)) - truth).as_nanos()
    }
}

#[test]
fn sources_that_agree_are_heard_and_nothing_is_told() {
    let gms = [gm(1, 0, 100, honest), gm(2, 0, 128, honest), gm(3, 1, 128, honest)];
    let mut bench = Bench::new(Policy::FollowMajority, &[1], &gms);
    bench.run_to(30);
    assert_eq!((bench.client.standing(), bench.told.len()), (Standing::Agreed, 0));
    assert_eq!(bench.followed(), Some(gms[0].id()));
    let sources: Vec<Source> = bench.client.sources(mono(bench.now)).collect();
    assert_eq!(sources.len(), 3);
    for source in &sources {
        let interval = source.interval.unwrap();
        assert!(interval.contains(Duration::from_nanos(bench.error())), "{source:?}");
        assert_eq!(source.is_followed, source.id == gms[0].id());
        assert_eq!(source.agrees, Some(true));
    }
    assert!(bench.asked[&1] > 10, "the other domain is asked: {:?}", bench.asked);
}

#[test]
fn second_grandmaster_that_contradicts_is_told_within_seconds_and_the_best_is_followed() {
    let gms = [gm(1, 0, 100, honest), gm(2, 0, 128, lies)];
    let mut bench = Bench::new(Policy::Alarm, &[], &gms);
    bench.run_to(30);
    assert_eq!(bench.client.standing(), Standing::Open);
    assert!(bench.told[0].0 <= 10, "{:?}", bench.told);
    assert_eq!(bench.client.servo().state(), ServoState::Locked);
    assert!(bench.error().abs() < 1_000);
}

#[test]
fn clock_runs_on_by_itself_where_two_contradict_each_other_and_the_policy_says_so() {
    let gms = [gm(1, 0, 100, lies_later), gm(2, 0, 128, honest)];
    let mut bench = Bench::new(Policy::Holdover, &[], &gms);
    bench.run_to(120);
    assert_eq!(bench.client.servo().state(), ServoState::Holdover);
    assert!(bench.error().abs() < 100_000, "{}", bench.error());
    let trust = bench.client.trust(mono(bench.now)).unwrap();
    assert!(trust.bound.as_nanos() >= bench.error().abs());
    // It tells the truth again.
    bench.gms[0].offset_ns = honest;
    bench.run_to(180);
    assert_eq!(bench.client.standing(), Standing::Agreed);
    assert_eq!(bench.client.servo().state(), ServoState::Locked);
    assert!(bench.error().abs() < 1_000, "{}", bench.error());
}

#[test]
fn two_honest_ones_outvote_the_best_of_the_domain() {
    let gms = [gm(1, 0, 100, lies), gm(2, 0, 128, honest), gm(3, 0, 129, honest)];
    let mut bench = Bench::new(Policy::FollowMajority, &[], &gms);
    bench.run_to(60);
    assert_eq!(bench.followed(), Some(gms[1].id()), "{:?}", bench.told);
    assert_eq!(bench.client.standing(), Standing::Confirmed);
    assert!(bench.error().abs() < 1_000, "{}", bench.error());
    // Whom the others have refuted may come back when it agrees.
    bench.gms[0].offset_ns = honest;
    bench.run_to(120);
    assert_eq!(bench.followed(), Some(gms[0].id()), "{:?}", bench.told);
    assert_eq!(bench.client.standing(), Standing::Agreed);
}

#[test]
fn two_other_domains_outvote_the_one_that_is_followed_until_it_agrees() {
    let gms = [gm(1, 0, 100, lies_later), gm(2, 1, 128, honest), gm(3, 2, 128, honest)];
    let mut bench = Bench::new(Policy::FollowMajority, &[1, 2], &gms);
    bench.run_to(35);
    assert_eq!(bench.followed(), Some(gms[0].id()));
    bench.run_to(100);
    assert_eq!(bench.followed(), Some(gms[1].id()), "{:?}", bench.told);
    assert_eq!(bench.client.receiver().domain_number(), 1);
    assert_eq!(bench.client.servo().state(), ServoState::Locked);
    assert!(bench.error().abs() < 1_000, "{}", bench.error());
    bench.gms[0].offset_ns = honest;
    bench.run_to(160);
    assert_eq!(bench.followed(), Some(gms[0].id()), "{:?}", bench.told);
    assert!(bench.error().abs() < 1_000, "{}", bench.error());
}

/// On another network, or by another transport: what is said there in the name of who is heard here is not what it says.
#[test]
fn who_takes_the_grandmasters_name_on_another_port_makes_it_contradict_nobody() {
    for policy in Policy::ALL {
        let gms = [gm(1, 0, 100, honest), gm(2, 0, 128, honest)];
        let mut bench = Bench::new(policy, &[], &gms);
        bench.run_to(20);
        bench.has_impostor = true;
        bench.run_to(80);
        assert_eq!(bench.client.servo().state(), ServoState::Locked, "{policy:?}");
        assert_eq!(bench.followed(), Some(gms[0].id()), "{policy:?}");
        assert!(bench.told.is_empty(), "{policy:?} {:?}", bench.told);
        assert!(bench.error().abs() < 1_000, "{policy:?} {}", bench.error());
    }
}

#[test]
fn invented_time_transmitters_leave_the_memory_as_it_is() {
    let mut bench = Bench::new(Policy::Alarm, &[1], &[gm(1, 0, 100, honest)]);
    for n in 2..200 {
        bench.gms.push(gm(n, n % 2, 200, lies));
    }
    bench.run_to(10);
    assert!(bench.client.council.witnesses.len() <= MAX_SOURCES);
    assert!(bench.client.council.others.iter().all(|it| it.said.len() < 8));
}

/// A grandmaster that lies from the first message on is not stepped to while the other's first word is under way.
#[test]
fn a_clock_that_has_never_locked_waits_for_a_second_opinion() {
    let first = |domains: &[u8], gms: &[Gm]| {
        let mut bench = Bench::new(Policy::Holdover, domains, gms);
        (1..40).find(|second| {
            bench.run_to(*second);
            bench.client.servo().state() == ServoState::Locked
        })
    };
    let liar = gm(1, 0, 1, |_| 86_400_000_000_000);
    // Nobody is in the other domain: it is waited for, and not for ever.
    let alone = first(&[], &[liar]).expect("nobody is asked");
    let silent = first(&[1], &[liar]).expect("nobody answers");
    assert!(alone < 10 && (alone + 1..20).contains(&silent), "{alone} {silent}");
    assert_eq!(first(&[1], &[liar, gm(2, 1, 1, honest)]), None);
}
