//! A client and its servers message by message, and whatever arrives.

mod council;

use core::net::SocketAddr;

use crate::prelude::*;
use crate::{
    Command, Input, Monotonic, NoEvent, PortIndex, PortState, SentToken, Transmit,
    address::Address,
    counters::Drop,
    csptp::{Answers, Protocol, ServerConfig, is_worth},
    instance::asking::{Asking, exchanges::csptp_request},
    outcome::{DelayObservation, Observation, SyncObservation},
    receiver::{Receiver, ReceiverConfig},
    stamp::{Stamp, StampSource},
    transmitter::{Transmitter, TransmitterConfig},
};
use proptest::prelude::*;
use ptp_common::{
    time::{Duration, Mono, Ptp, Time},
    wire::{ClockIdentity, CsptpResponse, CsptpStatus, Message, TimeInterval},
};

const PORT: PortIndex = PortIndex(0);

fn at(millis: i64) -> Time<Mono> {
    Time::from_nanos(1_000_000_000 + millis * 1_000_000)
}

fn server_at(last: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, last], 319))
}

fn identity(n: u8) -> ClockIdentity {
    ClockIdentity([n, 0, 0, 0xff, 0xfe, 0, 0, n])
}

/// Messages, and when they arrive.
type Arrivals = Vec<(Vec<u8>, Time<Mono>)>;

/// A server whose time is the monotonic one plus `ahead`, and who is far by `path`.
struct Server {
    transmitter: Transmitter,
    address: SocketAddr,
    ahead: Duration,
    path: Duration,
    is_up: bool,
}

impl Server {
    fn new(n: u8, ahead_ns: i64) -> Self {
        let mut config = TransmitterConfig::new(identity(n));
        config.answers = Answers { csptp: true, sptp: true };
        let mut transmitter = Transmitter::new(config, at(0));
        transmitter.set_prefixes(vec!["192.0.2.0/24".parse().unwrap()], Vec::new());
        let ahead = Duration::from_secs(1_000) + Duration::from_nanos(ahead_ns);
        let path = Duration::from_micros(10);
        Self { transmitter, address: server_at(n), ahead, path, is_up: true }
    }

    fn time(&self, mono: Time<Mono>) -> Time<Ptp> {
        mono.at_offset(self.ahead)
    }

    /// What it answers to a request that left at `left`.
    fn answer(&mut self, left: Time<Mono>, request: &[u8]) -> Arrivals {
        if !self.is_up {
            return Vec::new();
        }
        let arrival = left + self.path;
        let from = Some(Address::Socket(server_at(100)));
        let rx = Some(self.time(arrival));
        self.transmitter.handle_message_from(arrival, PORT, request, rx, from);
        let mut answers = Vec::new();
        let departure = arrival + Duration::from_micros(3);
        while let Some(command) = self.transmitter.next_command() {
            let Command::Send(Transmit { message, token, to, .. }) = command else { continue };
            // What is sent to all is of no interest here.
            if !matches!(to, crate::Destination::Unicast(_)) {
                continue;
            }
            answers.push((message.to_vec(), departure + self.path));
            if let Some(token) = token {
                self.transmitter.handle_tx_stamp(token, Some(self.time(departure)));
            }
        }
        answers
    }
}

struct Bench {
    client: Receiver,
    measured: Vec<crate::receiver::Measurement>,
    /// Which server, when, and what.
    requests: Vec<(SocketAddr, Vec<u8>, SentToken)>,
}

impl Bench {
    fn new(protocol: Protocol, servers: &[u8]) -> Self {
        let mut config = ReceiverConfig::new(identity(0xcc), 7);
        config.servers =
            servers.iter().map(|n| ServerConfig::new(protocol, Some(server_at(*n)))).collect();
        Self { client: Receiver::new(config, at(0)), measured: Vec::new(), requests: Vec::new() }
    }

    fn collect(&mut self) {
        while let Some(command) = self.client.next_command() {
            match command {
                Command::<NoEvent>::Measured(measurement) => self.measured.push(measurement),
                Command::Send(Transmit { to, message, token, .. }) => {
                    let crate::Destination::Unicast(Address::Socket(to)) = to else {
                        panic!("a request to all")
                    };
                    self.requests.push((to, message.to_vec(), token.unwrap()));
                }
                _ => {}
            }
        }
    }

    fn poll(&mut self, now: Time<Mono>) {
        self.client.poll(now);
        self.collect();
    }

    fn sent(&mut self, now: Time<Mono>, token: SentToken) {
        let stamp = Stamp::new(now, StampSource::Simulated);
        self.client.handle_tx_stamp(now, token, Some(stamp));
        self.collect();
    }

    fn hear(&mut self, at: Time<Mono>, from: SocketAddr, bytes: &[u8]) {
        let stamp = Some(Stamp::new(at, StampSource::Simulated));
        let from = Some(Address::Socket(from));
        let input = Input::Message { on: PORT, from, bytes, stamp };
        self.client.handle(at, &Monotonic::default(), input);
        self.collect();
    }

    /// Lets everybody do what is due until then.
    fn run(&mut self, until: Time<Mono>, servers: &mut [Server]) {
        while let Some(now) = self.client.next_wakeup().filter(|now| *now <= until) {
            self.poll(now);
            for (to, request, token) in core::mem::take(&mut self.requests) {
                let left = now + Duration::from_micros(5);
                self.sent(left, token);
                let Some(server) = servers.iter_mut().find(|each| each.address == to) else {
                    continue;
                };
                for (message, arrival) in server.answer(left, &request) {
                    self.hear(arrival, to, &message);
                }
            }
        }
    }

    fn followed(&self) -> Option<ClockIdentity> {
        self.client.parent().map(|parent| parent.set.grandmaster_identity)
    }

    fn dropped(&self, cause: Drop) -> u64 {
        self.client.counters(PORT).dropped(cause)
    }
}

/// The first request, and the answer to it.
fn begun(protocol: Protocol) -> (Bench, Server, Time<Mono>, SentToken, Arrivals) {
    let (mut bench, mut server) = (Bench::new(protocol, &[1]), Server::new(1, 0));
    let now = bench.client.next_wakeup().unwrap();
    bench.poll(now);
    let (_, request, token) = bench.requests.pop().unwrap();
    let answer = server.answer(now, &request);
    assert_eq!(answer.len(), 2, "{protocol}");
    (bench, server, now, token, answer)
}

#[test]
fn both_exchanges_give_all_four_times() {
    for protocol in [Protocol::Csptp, Protocol::Sptp] {
        let (mut bench, server, now, token, answer) = begun(protocol);
        bench.sent(now, token);
        for (message, arrival) in &answer {
            bench.hear(*arrival, server.address, message);
        }
        let observed: Vec<_> = bench.measured.iter().map(|each| each.observation).collect();
        let arrival = now + server.path;
        let departure = arrival + Duration::from_micros(3);
        let [Observation::Delay(delay), Observation::Sync(sync)] = observed[..] else {
            panic!("{protocol}: {observed:?}")
        };
        let DelayObservation { t3, t4, .. } = delay;
        assert_eq!((t3.time, t4), (now, server.time(arrival)), "{protocol}");
        let SyncObservation { t1, t2, .. } = sync;
        assert_eq!(t1, server.time(departure), "{protocol}");
        assert_eq!(t2.time, departure + server.path, "{protocol}");
        assert_eq!(bench.followed(), Some(identity(1)), "{protocol}");
        assert_eq!(bench.client.port_state(PORT), PortState::Uncalibrated);
    }
}

#[test]
fn parts_of_an_exchange_may_come_in_any_order() {
    for protocol in [Protocol::Csptp, Protocol::Sptp] {
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let (mut bench, server, now, token, answer) = begun(protocol);
            for part in order {
                assert!(bench.measured.is_empty(), "{order:?}");
                match part {
                    0 => bench.sent(now, token),
                    part => {
                        let (message, arrival) = &answer[part - 1];
                        bench.hear(*arrival, server.address, message);
                    }
                }
            }
            assert_eq!(bench.measured.len(), 2, "{order:?}");
        }
    }
}

#[test]
fn an_answer_from_elsewhere_or_to_another_number_is_nobodys() {
    for protocol in [Protocol::Csptp, Protocol::Sptp] {
        let (mut bench, server, now, token, answer) = begun(protocol);
        bench.sent(now, token);
        let (message, arrival) = &answer[0];
        bench.hear(*arrival, server_at(66), message);
        let mut other = message.clone();
        other[31] ^= 1;
        bench.hear(*arrival, server.address, &other);
        let mut other = message.clone();
        other[4] ^= 1;
        bench.hear(*arrival, server.address, &other);
        assert_eq!(bench.dropped(Drop::NotAsked), 3, "{protocol}");
        // The right one counts all the same, and once.
        for (message, arrival) in answer.iter().chain(&answer) {
            bench.hear(*arrival, server.address, message);
        }
        assert_eq!(bench.measured.len(), 2, "{protocol}");
        assert_eq!(bench.dropped(Drop::NotAsked), 5, "{protocol}: what comes twice");
    }
}

#[test]
fn times_that_cannot_be_are_not_used() {
    let (mut bench, server, now, token, mut answer) = begun(Protocol::Csptp);
    bench.sent(now, token);
    // Answered a second before it was asked.
    let (follow_up, _) = &mut answer[1];
    follow_up[39] = follow_up[39].wrapping_sub(1);
    for (message, arrival) in &answer {
        bench.hear(*arrival, server.address, message);
    }
    assert_eq!(bench.dropped(Drop::ImplausibleDelay), 1);
    assert!(bench.measured.is_empty() && bench.followed().is_none());
}

#[test]
fn corrections_of_both_ways_are_taken_off() {
    let (mut bench, server, now, token, mut answer) = begun(Protocol::Csptp);
    bench.sent(now, token);
    let us = |micros: i64| (micros * 1_000) << 16;
    // What transparent clocks have added: to the answer, and to the request as the server saw it.
    answer[0].0[8..16].copy_from_slice(&us(4).to_be_bytes());
    answer[0].0[58..66].copy_from_slice(&us(6).to_be_bytes());
    for (message, arrival) in &answer {
        bench.hear(*arrival, server.address, message);
    }
    let [Observation::Delay(delay), Observation::Sync(sync)] =
        [bench.measured[0].observation, bench.measured[1].observation]
    else {
        panic!()
    };
    let arrival = server.time(now + server.path);
    assert_eq!(delay.t4, arrival - Duration::from_micros(6));
    assert_eq!(sync.t1, arrival + Duration::from_micros(3 + 4));
}

#[test]
fn the_best_of_several_is_followed_and_another_when_that_is_silent() {
    for protocol in [Protocol::Csptp, Protocol::Sptp] {
        let mut bench = Bench::new(protocol, &[1, 2, 3]);
        let mut servers = [Server::new(1, 0), Server::new(2, 0), Server::new(3, 0)];
        servers[1].transmitter.set_priorities(100, 128);
        bench.run(at(3_000), &mut servers);
        assert_eq!(bench.followed(), Some(identity(2)), "{protocol}: by its priority");
        servers[1].is_up = false;
        bench.run(at(10_000), &mut servers);
        assert_eq!(bench.followed(), Some(identity(1)), "{protocol}: the first of equals");
        servers[1].is_up = true;
        bench.run(at(15_000), &mut servers);
        assert_eq!(bench.followed(), Some(identity(2)), "{protocol}: it is back");
        for server in &mut servers {
            server.is_up = false;
        }
        bench.run(at(40_000), &mut servers);
        assert_eq!(bench.followed(), None);
        assert_eq!(bench.client.port_state(PORT), PortState::Listening);
        // Who does not answer is asked no more than once a second each.
        let requests: u64 = bench.client.servers(at(40_000)).map(|each| each.requests).sum();
        assert!(requests < 3 * 60, "{requests}");
    }
}

#[test]
fn a_refuted_server_is_left_until_it_is_trusted_again() {
    let mut bench = Bench::new(Protocol::Csptp, &[1, 2]);
    let mut servers = [Server::new(1, 0), Server::new(2, 0)];
    bench.run(at(3_000), &mut servers);
    let first = bench.client.parent().unwrap().set.parent_port_identity;
    let mut commands = crate::Commands::default();
    let clock = &Monotonic::default();
    let mut cx = crate::Context { now: at(3_000), clock, out: &mut commands };
    bench.client.distrust(&mut cx, first);
    assert_eq!(bench.followed(), Some(identity(2)));
    bench.client.trust_again(&mut cx, first);
    assert_eq!(bench.followed(), Some(identity(1)));
}

#[test]
fn a_server_in_the_name_of_another_is_refused() {
    let mut bench = Bench::new(Protocol::Sptp, &[1, 2]);
    let mut servers = [Server::new(1, 0), Server::new(1, 5_000)];
    servers[1].address = server_at(2);
    bench.run(at(3_000), &mut servers);
    assert!(bench.dropped(Drop::DuplicateIdentity) > 5);
    let followed: Vec<_> = bench.client.servers(at(3_000)).map(|each| each.exchanges > 0).collect();
    assert_eq!(followed.iter().filter(|has| **has).count(), 1, "the one that was heard first");
}

#[test]
fn another_time_scale_is_believed_when_it_is_said_again_and_again() {
    let mut bench = Bench::new(Protocol::Csptp, &[1]);
    let mut servers = [Server::new(1, 0)];
    bench.run(at(1_500), &mut servers);
    let epoch = bench.client.parent().unwrap().epoch;
    let mut properties = ptp_common::data_set::TimeProperties::UNKNOWN;
    properties.ptp_timescale = true;
    servers[0].transmitter.set_time_properties(properties);
    bench.run(at(6_000), &mut servers);
    assert_eq!(bench.dropped(Drop::Unconfirmed), u64::from(crate::limits::CONFIRM_TIME) - 1);
    let parent = bench.client.parent().unwrap();
    assert!(parent.time_properties.ptp_timescale && parent.epoch > epoch);
}

fn csptp_from(last: u8, answers: Answers, request: &[u8]) -> (Vec<Vec<u8>>, Transmitter) {
    let mut server = Server::new(1, 0);
    let mut config = TransmitterConfig::new(identity(1));
    config.answers = answers;
    server.transmitter = Transmitter::new(config, at(0));
    server.transmitter.set_prefixes(vec!["192.0.2.0/25".parse().unwrap()], Vec::new());
    let from = Some(Address::Socket(server_at(last)));
    server.transmitter.handle_message_from(at(1), PORT, request, Some(server.time(at(1))), from);
    let mut sent = Vec::new();
    while let Some(command) = server.transmitter.next_command() {
        let Command::Send(Transmit { message, token, .. }) = command else { continue };
        sent.push(message.to_vec());
        if let Some(token) = token {
            server.transmitter.handle_tx_stamp(token, Some(server.time(at(2))));
        }
    }
    (sent, server.transmitter)
}

const BOTH: Answers = Answers { csptp: true, sptp: true };

#[test]
fn strangers_are_answered_only_as_far_as_their_request_is_worth_it() {
    let request = csptp_request(128, 7).to_vec();
    let (near, _) = csptp_from(9, BOTH, &request);
    assert_eq!(near.iter().map(Vec::len).collect::<Vec<_>>(), [88, 44]);
    let (far, transmitter) = csptp_from(200, BOTH, &request);
    assert!(far.is_empty());
    assert_eq!(transmitter.counters(PORT).dropped(Drop::WouldAmplify), 1);
    // With as much behind it as the answers are long.
    let mut long = request.clone();
    let more = 60_u16;
    long[2..4].copy_from_slice(&(88 + more).to_be_bytes());
    long[54..56].copy_from_slice(&(32 + more).to_be_bytes());
    long.resize(88 + usize::from(more), 0);
    let (far, _) = csptp_from(200, BOTH, &long);
    assert_eq!(far.len(), 2);
    assert!(is_worth(long.len(), [88, 44], server_at(200).ip()));
    assert!(!is_worth(request.len(), [88, 44], server_at(200).ip()));
}

#[test]
fn what_is_not_served_is_not_answered() {
    let request = csptp_request(128, 7).to_vec();
    let (sent, transmitter) = csptp_from(9, Answers { csptp: false, sptp: true }, &request);
    assert!(sent.is_empty());
    assert_eq!(transmitter.counters(PORT).dropped(Drop::WrongDomain), 1);
    let mut other = request.clone();
    other[4] = 127;
    let (sent, _) = csptp_from(9, BOTH, &other);
    assert!(sent.is_empty(), "no domain of CSPTP");
    let mut all = request.clone();
    all[6] = 0;
    let (sent, _) = csptp_from(9, BOTH, &all);
    assert!(sent.is_empty(), "not to one address");
    // An answer is no request.
    let (answers, _) = csptp_from(9, BOTH, &request);
    let (sent, transmitter) = csptp_from(9, BOTH, &answers[0]);
    assert!(sent.is_empty());
    assert_eq!(transmitter.counters(PORT).dropped(Drop::Malformed), 1);
}

#[test]
fn an_answer_says_what_announce_would_say_and_the_form_is_the_same() {
    let request = csptp_request(200, 7).to_vec();
    let (sent, transmitter) = csptp_from(9, BOTH, &request);
    let answer = Message::parse(&sent[0]).unwrap();
    let status = CsptpStatus::find(&answer.tlvs).unwrap();
    assert_eq!(status.grandmaster_identity, identity(1));
    assert_eq!(status.quality.clock_class, 248);
    assert_eq!((answer.header.domain_number, answer.header.sequence_id), (200, 7));
    let forms = transmitter.answer_forms(at(1), PORT).unwrap();
    let [form, follow_up] = forms.csptp;
    let mut filled = form.to_vec();
    filled[4] = 200;
    filled[30..32].copy_from_slice(&7_u16.to_be_bytes());
    let response = CsptpResponse::find(&answer.tlvs).unwrap();
    filled[48..66].copy_from_slice(&response.value());
    assert_eq!(filled, sent[0]);
    let mut filled = follow_up.to_vec();
    filled[4] = 200;
    filled[30..32].copy_from_slice(&7_u16.to_be_bytes());
    filled[34..44].copy_from_slice(&sent[1][34..44]);
    assert_eq!(filled, sent[1]);
    assert_eq!(response.correction, TimeInterval(0));
}

#[test]
fn a_flood_is_answered_within_the_budget_and_memory_is_bounded() {
    let mut server = Server::new(1, 0);
    let mut config = TransmitterConfig::new(identity(1));
    config.answers = BOTH;
    server.transmitter = Transmitter::new(config, at(0));
    server.transmitter.set_prefixes(vec!["0.0.0.0/0".parse().unwrap()], Vec::new());
    let mut answered = 0;
    for n in 0..40_000_u32 {
        let request = csptp_request(128, n as u16).to_vec();
        let from = SocketAddr::from((n.to_be_bytes(), 319));
        let rx = Some(server.time(at(5)));
        let from = Some(Address::Socket(from));
        server.transmitter.handle_message_from(at(5), PORT, &request, rx, from);
        // No stamp ever comes.
        while let Some(command) = server.transmitter.next_command() {
            answered +=
                u32::from(matches!(command, Command::Send(Transmit { token: Some(_), .. })));
        }
    }
    let counters = server.transmitter.counters(PORT);
    assert!(answered <= 10_001, "{answered}");
    assert!(counters.dropped(Drop::RateLimited) >= 29_000);
    assert!(counters.dropped(Drop::MissingTxStamp) + 1_025 >= u64::from(answered));
}

proptest! {
    /// Bounded, never late, and nothing is believed that was not asked for.
    #[test]
    fn whatever_a_server_answers_the_client_goes_on(
        pieces in prop::collection::vec((any::<u8>(), any::<u8>(), 0_u8..3, 0_i64..400), 1..60),
        sptp: bool,
    ) {
        let protocol = if sptp { Protocol::Sptp } else { Protocol::Csptp };
        let mut bench = Bench::new(protocol, &[1, 2]);
        let mut servers = [Server::new(1, 0), Server::new(2, 0)];
        let mut now = at(0);
        let mut answers: Vec<(SocketAddr, Vec<u8>)> = Vec::new();
        for (place, bits, what, wait) in pieces {
            now += Duration::from_millis(wait);
            bench.poll(now);
            for (to, request, token) in core::mem::take(&mut bench.requests) {
                if what != 2 {
                    bench.sent(now, token);
                }
                let server = servers.iter_mut().find(|each| each.address == to).unwrap();
                answers.extend(server.answer(now, &request).into_iter().map(|(it, _)| (to, it)));
            }
            // As it was, or damaged; at any time later, by anybody.
            if let Some((from, message)) = answers.get(usize::from(place) % answers.len().max(1)) {
                let (mut from, mut message) = (*from, message.clone());
                let length = message.len();
                if what > 0 {
                    message[usize::from(bits) % length] ^= place | 1;
                }
                if what == 2 {
                    from = server_at(place % 4);
                }
                bench.hear(now + Duration::from_micros(50), from, &message);
            }
            prop_assert!(bench.client.next_wakeup().is_none_or(|at| at >= now));
            let stored = bench.client.asking.as_deref().map_or(0, Asking::stored);
            prop_assert!(stored <= 2 * 16, "{stored}");
        }
        prop_assert!(bench.measured.len().is_multiple_of(2));
    }
}
