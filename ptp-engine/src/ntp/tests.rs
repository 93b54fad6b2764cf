//! A client and a server that speak with each other in virtual time, over a link that this file holds up and
//! forges as it likes.

use core::net::{Ipv4Addr, SocketAddr};

use proptest::prelude::*;
use ptp_common::{
    ntp::{Leap, Mode, NtpPacket, NtpTimestamp, ReferenceId},
    time::{Duration, Mono, Ptp, Real, Time},
};

use super::*;
use crate::{
    Command, Commands, Driven, Input, Monotonic, PortIndex, ReadClock, SentToken,
    address::Address,
    stamp::{Stamp, StampSource},
};
use std::vec::Vec;

mod gone;
mod pairs;

const SERVER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 123);
const CLIENT: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2)), 40_000);
const WITH: PortIndex = PortIndex(0);
/// 2026-01-01, TAI.
const BEGIN: Duration = Duration::from_secs(1_767_225_637);
/// What an answer waits between its making and the wire.
const HELD: Duration = Duration::from_micros(30);
const WAY: Duration = Duration::from_micros(5);

fn stamp(time: Time<Mono>) -> Stamp {
    Stamp::new(time, StampSource::Simulated)
}

fn seconds(seconds: i64) -> Time<Mono> {
    Time::from_epoch(Duration::from_secs(seconds))
}

fn utc(mono: Time<Mono>) -> Time<Real> {
    mono.at_offset(BEGIN - Duration::from_secs(37))
}

fn serving() -> Serving {
    Serving {
        leap: Leap::None,
        stratum: 1,
        precision: -28,
        root_delay: Duration::from_micros(4),
        root_dispersion: Duration::from_micros(1),
        reference_id: ReferenceId::PTP,
        reference: Time::ZERO,
        utc_offset: Duration::from_secs(37),
        smear: None,
    }
}

struct World {
    client: Driven<NtpClient>,
    server: Driven<NtpServer>,
    clock: Monotonic,
    now: Time<Mono>,
    events: Vec<NtpEvent>,
    /// Requests that get through.
    loses: bool,
}

impl World {
    fn new(kind: ExchangeKind) -> Self {
        Self::at(kind, BEGIN, Poll::new(0, 4))
    }

    /// One that begins at another time, TAI.
    fn at(kind: ExchangeKind, begin: Duration, poll: Poll) -> Self {
        let asked = AssociationConfig { address: SERVER, poll, kind, repeats: false };
        let utc = Time::from_epoch(begin - Duration::from_secs(37));
        let client = NtpClient::new(&[asked], utc, [1; 32], Time::ZERO);
        let config = NtpServerConfig { answers_per_second: 100, seed: [2; 32] };
        let mut server = NtpServer::new(&config, Time::ZERO);
        server.set_serving(Some(serving()));
        Self {
            client: Driven::new_with(client, Commands::default()),
            server: Driven::new_with(server, Commands::default()),
            clock: Monotonic(begin),
            now: Time::ZERO,
            events: Vec::new(),
            loses: false,
        }
    }

    /// The next request, with when it leaves.
    fn request(&mut self) -> (Vec<u8>, SentToken) {
        loop {
            while let Some(command) = self.client.next_command() {
                match command {
                    Command::Send(transmit) => {
                        return (transmit.message.to_vec(), transmit.token.unwrap());
                    }
                    Command::Event(event) => self.events.push(event),
                    other => panic!("{other:?}"),
                }
            }
            self.now = self.client.next_wakeup().unwrap();
            self.client.poll(self.now);
        }
    }

    /// What the server makes of it, and when it leaves.
    fn answer(&mut self, request: &[u8]) -> Option<(Vec<u8>, Time<Mono>)> {
        let came = self.now + WAY;
        let from = Some(Address::Socket(CLIENT));
        let input = Input::Message { on: WITH, from, bytes: request, stamp: Some(stamp(came)) };
        self.server.handle(came, &self.clock, input);
        let Command::Send(transmit) = self.server.next_command()? else { panic!("no answer") };
        assert!(transmit.message.len() <= request.len(), "an answer is longer than its request");
        let left = came + HELD;
        if let Some(token) = transmit.token {
            let input = Input::Sent { token, stamp: Some(stamp(left)) };
            self.server.handle(left, &self.clock, input);
        }
        Some((transmit.message.to_vec(), left))
    }

    fn give(&mut self, bytes: &[u8], at: Time<Mono>, from: SocketAddr) {
        let from = Some(Address::Socket(from));
        let input = Input::Message { on: WITH, from, bytes, stamp: Some(stamp(at)) };
        self.client.handle(at, &self.clock, input);
        while let Some(command) = self.client.next_command() {
            if let Command::Event(event) = command {
                self.events.push(event);
            }
        }
    }

    fn exchange(&mut self) {
        let (request, token) = self.request();
        let now = self.now;
        self.client.handle_tx_stamp(now, token, Some(stamp(now)));
        if self.loses {
            return;
        }
        if let Some((answer, left)) = self.answer(&request) {
            self.give(&answer, left + WAY, SERVER);
        }
    }

    fn exchanges(&self) -> Vec<Exchange> {
        let one = |event: &NtpEvent| match event {
            NtpEvent::Exchange(exchange) => Some(*exchange),
            _ => None,
        };
        self.events.iter().filter_map(one).collect()
    }
}

/// How far the middle of the server's times is ahead of the middle of ours.
fn offset(exchange: &Exchange) -> Duration {
    let there = (exchange.t2 - utc(exchange.t1.time)) + (exchange.t3 - utc(exchange.t4.time));
    there.half()
}

fn near(a: Duration, b: Duration) -> bool {
    (a - b).abs() <= Duration::from_nanos(1)
}

#[test]
fn a_basic_exchange_has_the_time_of_intention() {
    let mut world = World::new(ExchangeKind::Basic);
    world.exchange();
    let exchange = world.exchanges()[0];
    assert_eq!(exchange.kind, ExchangeKind::Basic);
    assert!(near(exchange.delay(), WAY * 2 + HELD), "{:?}", exchange.delay());
    assert!(near(offset(&exchange), -HELD.half()));
    assert_eq!((exchange.server.stratum, exchange.server.reference_id), (1, ReferenceId::PTP));
}

#[test]
fn a_server_learns_how_long_an_answer_takes_to_leave() {
    let mut world = World::new(ExchangeKind::Basic);
    for _ in 0..40 {
        world.exchange();
    }
    let exchanges = world.exchanges();
    assert!(near(exchanges.last().unwrap().delay(), WAY * 2));
}

#[test]
fn an_interleaved_exchange_has_the_time_of_the_wire_from_the_second_answer_on() {
    let mut world = World::new(ExchangeKind::Interleaved);
    for _ in 0..6 {
        world.exchange();
    }
    let exchanges = world.exchanges();
    assert_eq!(exchanges[0].kind, ExchangeKind::Basic);
    assert_eq!(exchanges.len(), 6);
    for exchange in &exchanges[1..] {
        assert_eq!(exchange.kind, ExchangeKind::Interleaved);
        assert!(near(exchange.delay(), WAY * 2), "{:?}", exchange.delay());
        assert!(near(offset(exchange), Duration::ZERO));
    }
    let counters = world.server.counters();
    assert_eq!((counters.basic, counters.interleaved), (1, 5));
}

#[test]
fn interleaved_mode_survives_what_is_lost() {
    let mut world = World::new(ExchangeKind::Interleaved);
    for n in 0..12 {
        world.loses = n % 3 == 1;
        world.exchange();
    }
    let exchanges = world.exchanges();
    assert_eq!(exchanges.len(), 8);
    assert!(exchanges[1..].iter().all(|exchange| near(exchange.delay(), WAY * 2)));
}

#[test]
fn a_stamp_that_comes_behind_the_answer_completes_the_exchange() {
    let mut world = World::new(ExchangeKind::Basic);
    let (request, token) = world.request();
    let (answer, left) = world.answer(&request).unwrap();
    world.give(&answer, left + WAY, SERVER);
    assert_eq!(world.exchanges().len(), 0);
    let now = world.now;
    world.client.handle_tx_stamp(left + WAY, token, Some(stamp(now)));
    let Some(Command::Event(NtpEvent::Exchange(exchange))) = world.client.next_command() else {
        panic!("no exchange")
    };
    assert!(near(exchange.delay(), WAY * 2 + HELD));
}

#[test]
fn what_was_not_asked_is_refused() {
    let mut world = World::new(ExchangeKind::Interleaved);
    world.exchange();
    let (request, token) = world.request();
    let now = world.now;
    world.client.handle_tx_stamp(now, token, Some(stamp(now)));
    let (answer, left) = world.answer(&request).unwrap();
    let arrives = left + WAY;
    world.events.clear();
    let mut forged = NtpPacket::parse(&answer).unwrap().0;
    forged.origin = NtpTimestamp(forged.origin.0 ^ 4);
    world.give(&forged.to_bytes(), arrives, SERVER);
    world.give(&answer, arrives, CLIENT);
    world.give(&answer[..47], arrives, SERVER);
    world.give(&request, arrives, SERVER);
    world.give(&answer, arrives, SERVER);
    world.give(&answer, arrives, SERVER);
    let refused = |why| NtpEvent::Refused { with: WITH, why };
    let [a, b, c, d, NtpEvent::Exchange(_), f] = world.events[..] else {
        panic!("{:?}", world.events)
    };
    assert_eq!(a, refused(Refused::NotAsked));
    assert_eq!(b, refused(Refused::FromElsewhere));
    assert_eq!((c, d), (refused(Refused::Malformed), refused(Refused::Malformed)));
    assert_eq!(f, refused(Refused::NotAsked));
}

/// The event that an answer changed like this leads to.
fn changed(change: impl Fn(&mut NtpPacket)) -> (World, NtpEvent) {
    let mut world = World::new(ExchangeKind::Basic);
    let (request, token) = world.request();
    let now = world.now;
    world.client.handle_tx_stamp(now, token, Some(stamp(now)));
    let (answer, left) = world.answer(&request).unwrap();
    let mut packet = NtpPacket::parse(&answer).unwrap().0;
    change(&mut packet);
    world.give(&packet.to_bytes(), left + WAY, SERVER);
    let event = world.events.pop().unwrap();
    (world, event)
}

#[test]
fn servers_without_time_and_times_that_cannot_be_are_refused() {
    let why = |change: &dyn Fn(&mut NtpPacket)| match changed(change).1 {
        NtpEvent::Refused { why, .. } => why,
        other => panic!("{other:?}"),
    };
    assert_eq!(why(&|packet| packet.leap = Leap::Unknown), Refused::Unsynchronized);
    assert_eq!(why(&|packet| packet.stratum = 16), Refused::Unsynchronized);
    assert_eq!(why(&|packet| packet.root_delay.0 = 4 << 16), Refused::Unsynchronized);
    assert_eq!(why(&|packet| packet.root_dispersion.0 = 2 << 16), Refused::Unsynchronized);
    assert_eq!(why(&|packet| packet.receive = NtpTimestamp::NONE), Refused::Implausible);
    assert_eq!(why(&|packet| packet.transmit.0 -= 1 << 20), Refused::Implausible);
    assert_eq!(why(&|packet| packet.transmit.0 += 1 << 20), Refused::Implausible);
    assert_eq!(why(&|packet| packet.mode = Mode::Other(5)), Refused::Malformed);
}

#[test]
fn kisses_are_obeyed() {
    let kiss =
        |code| move |packet: &mut NtpPacket| (packet.stratum, packet.reference_id) = (0, code);
    let (mut world, event) = changed(kiss(ReferenceId::RATE));
    assert_eq!(event, NtpEvent::Kiss { with: WITH, code: ReferenceId::RATE });
    let before = world.now;
    assert_eq!(world.client.states().next().unwrap().poll, 1);
    world.request();
    world.request();
    assert!(world.now - before > Duration::from_millis(2_500), "{:?}", world.now - before);
    let (mut world, event) = changed(kiss(ReferenceId::DENY));
    assert_eq!(event, NtpEvent::Kiss { with: WITH, code: ReferenceId::DENY });
    while let Some(at) = world.client.next_wakeup() {
        world.client.poll(at);
        assert!(world.client.next_command().is_none(), "asked again");
    }
    world.client.move_to(WITH, SERVER, seconds(100));
    world.exchange();
    assert_eq!(world.exchanges().len(), 1);
}

#[test]
fn silence_is_told_and_asked_into_less_often() {
    let mut world = World::new(ExchangeKind::Interleaved);
    world.exchange();
    world.events.clear();
    world.loses = true;
    for _ in 0..8 {
        world.exchange();
    }
    assert_eq!(world.events, [NtpEvent::Unreachable(WITH)]);
    assert_eq!(world.client.states().next().unwrap().poll, 1);
    world.loses = false;
    world.exchange();
    world.exchange();
    assert_eq!(world.exchanges().len(), 2);
}

#[test]
fn the_interval_grows_while_the_offset_is_within_its_noise() {
    let mut world = World::new(ExchangeKind::Basic);
    let micros = Duration::from_micros;
    for _ in 0..200 {
        world.client.judge(WITH, micros(3), micros(1));
    }
    assert_eq!(world.client.states().next().unwrap().poll, 4);
    for _ in 0..200 {
        world.client.judge(WITH, micros(5), micros(1));
    }
    assert_eq!(world.client.states().next().unwrap().poll, 0);
}

#[test]
fn a_server_answers_requests_alone_and_only_with_time_to_give() {
    let mut world = World::new(ExchangeKind::Basic);
    let (request, _) = world.request();
    let of_mode = |mode: u8| {
        let mut bytes = request.clone();
        bytes[0] = bytes[0] & !7 | mode;
        bytes
    };
    for mode in [0, 1, 2, 4, 5, 6, 7] {
        assert!(world.answer(&of_mode(mode)).is_none(), "mode {mode}");
    }
    assert!(world.answer(&request[..47]).is_none());
    assert!(world.answer(&[&request[..], &[0; 20]].concat()).is_none());
    world.server.set_serving(None);
    assert!(world.answer(&request).is_none());
    let counters = world.server.counters();
    assert_eq!((counters.malformed, counters.authenticated, counters.unsynchronized), (8, 1, 1));
    world.server.set_serving(Some(serving()));
    assert!(world.answer(&request).is_some());
}

#[test]
fn one_that_asks_too_often_is_told_so_now_and_then() {
    let mut world = World::new(ExchangeKind::Basic);
    let (request, _) = world.request();
    let answers = (0..2_000).filter(|_| world.answer(&request).is_some()).count() as u64;
    let counters = *world.server.counters();
    assert_eq!(counters.basic + counters.kisses, answers);
    assert!(counters.basic <= 101 && (150..320).contains(&counters.kisses), "{counters:?}");
}

#[test]
fn exchanges_go_on_through_the_era_that_begins_in_2036() {
    for kind in [ExchangeKind::Basic, ExchangeKind::Interleaved] {
        // 2036-02-07 06:28:16 UTC is 2^32 s after the beginning of 1900.
        const ROLLOVER: Duration = Duration::from_secs(2_085_978_496);
        let begin = ROLLOVER + Duration::from_secs(37 - 20);
        let mut world = World::at(kind, begin, Poll::new(0, 0));
        while world.now < seconds(40) {
            world.exchange();
        }
        let exchanges = world.exchanges();
        assert!(exchanges.len() > 30, "{}", exchanges.len());
        let truth = |mono: Time<Mono>| mono.at_offset::<Real>(begin - Duration::from_secs(37));
        let mut eras = [0, 0];
        for exchange in &exchanges {
            let there = exchange.t2 - truth(exchange.t1.time);
            assert!(near(there, WAY), "{there:?}");
            eras[usize::from(exchange.t2 >= Time::from_epoch(ROLLOVER))] += 1;
        }
        assert!(eras.iter().all(|count| *count > 10), "{eras:?}");
        assert!(world.events.iter().all(|it| matches!(it, NtpEvent::Exchange(_))));
    }
}

#[test]
fn every_field_of_an_answer_may_be_at_its_extremes() {
    type Change = fn(&mut NtpPacket, u64);
    let fields: [Change; 11] = [
        |packet, to| packet.version = to as u8 & 7,
        |packet, to| packet.stratum = to as u8,
        |packet, to| packet.poll = to as i8,
        |packet, to| packet.precision = to as i8,
        |packet, to| packet.root_delay.0 = to as u32,
        |packet, to| packet.root_dispersion.0 = to as u32,
        |packet, to| packet.reference_id.0 = (to as u32).to_be_bytes(),
        |packet, to| packet.reference = NtpTimestamp(to),
        |packet, to| packet.origin = NtpTimestamp(to),
        |packet, to| packet.receive = NtpTimestamp(to),
        |packet, to| packet.transmit = NtpTimestamp(to),
    ];
    let extremes = [0, 1, 0x7f, 0x80, 0x7fff_ffff, 0x8000_0000, i64::MAX as u64, 1 << 63, u64::MAX];
    for (at, field) in fields.iter().enumerate() {
        for to in extremes {
            let (mut world, event) = changed(|packet| field(packet, to));
            // It is used, refused, or a kiss: whatever it is, times that are used are possible ones.
            if let NtpEvent::Exchange(exchange) = event {
                assert!(!(exchange.t3 - exchange.t2).is_negative(), "{at} {to:x}");
                assert!(exchange.delay() > -Duration::from_micros(11), "{at} {to:x}");
                assert!(exchange.server.root_distance <= Duration::from_millis(1_500));
            }
            // And the next one is as any other.
            world.events.clear();
            if world.client.states().next().is_some_and(|it| !it.is_denied) {
                world.exchange();
                assert_eq!(world.exchanges().len(), 1, "{at} {to:x}: {:?}", world.events);
            }
        }
    }
}

#[test]
fn every_field_of_a_request_may_be_at_its_extremes_and_the_answer_is_the_servers_own() {
    let mut world = World::new(ExchangeKind::Basic);
    let (request, _) = world.request();
    for place in 1..48 {
        for to in [0, 1, 0x7f, 0x80, 0xff] {
            let mut asked = request.clone();
            asked[place] = to;
            world.now += Duration::from_secs(1);
            let Some((answer, _)) = world.answer(&asked) else { panic!("{place} {to}") };
            let (answer, trailer) = NtpPacket::parse(&answer).unwrap();
            assert!(trailer.is_empty());
            assert_eq!((answer.mode, answer.stratum), (Mode::Server, 1));
            assert_eq!(answer.origin.0.to_be_bytes(), asked[40..48], "{place} {to}");
        }
    }
}

#[test]
fn a_flood_of_kisses_counts_once_for_each_request_and_only_where_it_knows_the_origin() {
    let mut world = World::new(ExchangeKind::Basic);
    for expected in (1..=17).chain([17; 3]) {
        let (request, token) = world.request();
        let now = world.now;
        world.client.handle_tx_stamp(now, token, Some(stamp(now)));
        let asked = NtpPacket::parse(&request).unwrap().0;
        let kiss = NtpPacket {
            mode: Mode::Server,
            stratum: 0,
            reference_id: ReferenceId::RATE,
            origin: asked.transmit,
            ..asked
        };
        world.events.clear();
        let forged = |n: u64| NtpPacket { origin: NtpTimestamp(kiss.origin.0 ^ (n + 1)), ..kiss };
        let deny = ReferenceId::DENY;
        for n in 0..100 {
            world.give(&NtpPacket { reference_id: deny, ..forged(n) }.to_bytes(), now, SERVER);
        }
        assert!(world.events.iter().all(|it| matches!(it, NtpEvent::Refused { .. })));
        world.events.clear();
        for _ in 0..100 {
            world.give(&kiss.to_bytes(), now, SERVER);
        }
        let kisses = world.events.iter().filter(|it| matches!(it, NtpEvent::Kiss { .. })).count();
        let state = world.client.states().next().unwrap();
        assert_eq!((kisses, state.poll, state.is_denied), (1, expected, false));
    }
}

#[test]
fn a_server_that_misses_a_request_is_asked_soon_and_one_that_misses_four_is_silent() {
    let mut world = World::at(ExchangeKind::Basic, BEGIN, Poll::new(6, 10));
    for _ in 0..8 {
        world.exchange();
    }
    for _ in 0..400 {
        world.client.judge(WITH, Duration::ZERO, Duration::from_micros(1));
    }
    world.exchange();
    let state = |world: &World| world.client.states().next().unwrap();
    assert_eq!((state(&world).poll, state(&world).is_silent), (10, false));
    world.loses = true;
    let mut gaps = Vec::new();
    for _ in 0..6 {
        let before = world.now;
        world.exchange();
        gaps.push((world.now - before).as_secs_f64() as i64);
    }
    // The usual interval, once more the usual one, since nobody knew yet, and then the shortest.
    assert!(gaps[..2].iter().all(|gap| (1_000..1_046).contains(gap)), "{gaps:?}");
    assert!(gaps[2..].iter().all(|gap| (62..67).contains(gap)), "{gaps:?}");
    assert!(state(&world).is_silent);
    world.loses = false;
    world.exchange();
    assert!(!state(&world).is_silent);
}

#[test]
fn who_looks_closer_asks_a_few_times_soon_and_not_again_for_ten_minutes_nor_who_asked_for_less() {
    let mut world = World::at(ExchangeKind::Basic, BEGIN, Poll::new(6, 10));
    for _ in 0..6 {
        world.exchange();
    }
    let requests = |world: &World| world.client.states().next().unwrap().requests;
    let asked = |world: &mut World| {
        let (before, end) = (requests(world), world.now + Duration::from_secs(20));
        while world.client.next_wakeup().is_some_and(|at| at < end) {
            world.exchange();
        }
        requests(world) - before
    };
    let now = world.now;
    world.client.look_closer(now);
    assert_eq!(asked(&mut world), 4);
    let now = world.now;
    world.client.look_closer(now);
    assert_eq!(asked(&mut world), 0);
    world.client.look_closer(now + Duration::from_secs(700));
    assert_eq!(
        world.client.next_wakeup().map(|at| at > now + Duration::from_secs(700)),
        Some(true)
    );
    let (mut world, _) = changed(|packet| {
        (packet.stratum, packet.reference_id) = (0, ReferenceId::RATE);
    });
    let (now, next) = (world.now, world.client.next_wakeup());
    world.client.look_closer(now);
    assert_eq!(world.client.next_wakeup(), next);
}

/// A clock that is being set.
struct Unset;
impl ReadClock for Unset {
    fn at(&self, _: Time<Mono>) -> Option<Time<Ptp>> {
        None
    }
}

fn any_packet() -> impl Strategy<Value = Vec<u8>> {
    let first = prop_oneof![Just(0x23_u8), Just(0x24), any::<u8>()];
    (first, proptest::collection::vec(any::<u8>(), 0..120), any::<bool>()).prop_map(
        |(first, mut bytes, is_whole)| {
            if is_whole {
                bytes.resize(48, 0);
            }
            if let Some(byte) = bytes.first_mut() {
                *byte = first;
            }
            bytes
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_comes_is_taken_in_time_and_never_answered_with_more(
        packets in proptest::collection::vec((any_packet(), 0_i64..3_000, any::<bool>(), 0_u64..9), 1..60),
    ) {
        let mut world = World::new(ExchangeKind::Interleaved);
        for (bytes, after, is_set, token) in packets {
            world.now += Duration::from_millis(after);
            let now = world.now;
            world.client.poll(now);
            prop_assert!(world.client.next_wakeup().is_none_or(|at| at >= now));
            let right = Monotonic(BEGIN);
            let clock: &dyn ReadClock = if is_set { &right } else { &Unset };
            let from = Some(Address::Socket(SERVER));
            let message = Input::Message { on: WITH, from, bytes: &bytes, stamp: Some(stamp(now)) };
            world.server.handle(now, clock, message);
            let sent = Input::Sent { token: SentToken(token), stamp: Some(stamp(now)) };
            world.server.handle(now, clock, sent);
            while let Some(command) = world.server.next_command() {
                let Command::Send(transmit) = command else { continue };
                prop_assert!(transmit.message.len() <= bytes.len());
            }
            world.client.handle(now, &Monotonic(BEGIN), message);
            world.client.handle_tx_stamp(now, SentToken(token), Some(stamp(now)));
            while world.client.next_command().is_some() {}
        }
    }
}
