//! A time receiver of the engine among a grandmaster and servers of NTP, in virtual time.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    net::{IpAddr, SocketAddr},
};

use ptp_common::{
    ntp::{Mode, NtpPacket, NtpShort, NtpTimestamp, ReferenceId},
    time::{Duration, Mono, Real, Time},
    wire::{
        Announce, Body, ClockAccuracy, ClockIdentity, ClockQuality, Header, Message, PortIdentity,
        TimeSource, Timestamp, Tlvs,
    },
};
use ptp_engine::{
    Command, Input, Monotonic, PortIndex, SentToken, Transmit,
    address::Address,
    clock::virtual_clock::VirtualClock,
    discipline::{Client, Event, Policy},
    ntp::{AssociationConfig, Exchange, ExchangeKind, NtpConfig, NtpEvent, NtpPart, Poll},
    receiver::ReceiverConfig,
    servo::{Choice, Options, build},
    sources::SourceId,
    stamp::{Stamp, StampSource},
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

pub(crate) const SECOND: i64 = 1_000_000_000;
const UTC_NS: i64 = 1_800_000_000 * SECOND;
const GM: PortIdentity = PortIdentity { clock_identity: ClockIdentity([7; 8]), port_number: 1 };

/// UTC when the host's monotonic clock shows `mono`: the oscillator is 3 ppm fast, and wanders by 0.05 ppm in an hour.
pub(crate) fn utc(mono: i64) -> i64 {
    let seconds = mono as f64 / 1e9;
    let phase = std::f64::consts::TAU * seconds / 3_600.0;
    let wander = 0.05e-6 * 3_600.0 / std::f64::consts::TAU * phase.sin();
    UTC_NS + mono - ((3e-6 * seconds + wander) * 1e9) as i64
}

/// One way, ns: the least, and the mean of what comes on top, once in fifty times ten times as much.
#[derive(Clone, Copy)]
pub(crate) struct Way {
    pub(crate) least: i64,
    pub(crate) jitter: f64,
}

impl Way {
    fn draw(self, rng: &mut ChaCha8Rng) -> i64 {
        let long = if rng.random_range(0..50) == 0 { 10.0 } else { 1.0 };
        self.least + (-(1.0 - rng.random::<f64>()).ln() * self.jitter * long) as i64
    }
}

#[derive(Clone, Copy)]
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    ways: [Way; 2],
    /// Ahead of UTC.
    error: i64,
    root_distance: Duration,
}

/// How far a grandmaster is from UTC.
#[derive(Clone, Copy, Default)]
pub(crate) struct Error {
    /// When it goes wrong, ns.
    pub(crate) from: i64,
    /// By how much at once, ns.
    pub(crate) step: i64,
    /// And how much more as it goes, parts per billion.
    pub(crate) drift_ppb: i64,
}

impl Error {
    fn at(self, at: i64) -> i64 {
        let since = (at - self.from).max(0);
        if at < self.from {
            0
        } else {
            self.step + (since as f64 * self.drift_ppb as f64 * 1e-9) as i64
        }
    }
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Coming {
    Sync(u16),
    Sent(u64),
    Request(usize, Vec<u8>),
    Answer(usize, Vec<u8>),
    DelayReq(Vec<u8>),
    DelayResp(Vec<u8>),
}

pub(crate) struct World {
    pub(crate) client: Client<VirtualClock>,
    servers: Vec<Server>,
    ports: u16,
    gm_error: Option<Error>,
    gm_ways: [Way; 2],
    coming: BinaryHeap<Reverse<(i64, u64, Coming)>>,
    count: u64,
    rng: ChaCha8Rng,
    pub(crate) now: i64,
    pub(crate) exchanges: Vec<Exchange>,
}

pub(crate) fn mono(ns: i64) -> Time<Mono> {
    Time::from_nanos(ns)
}

fn bytes(sequence_id: u16, body: Body) -> Vec<u8> {
    let mut buffer = vec![0; 96];
    let header = Header::new(GM, sequence_id);
    let length = Message { header, body, tlvs: Tlvs::NONE }.emit(&mut buffer).expect("room");
    buffer.truncate(length);
    buffer
}

impl World {
    pub(crate) fn new(
        servers: &[Server],
        poll: Poll,
        part: NtpPart,
        gm_error: Option<Error>,
        seed: u64,
    ) -> Self {
        let associations = servers.iter().map(|server| AssociationConfig {
            address: server.address,
            poll,
            kind: ExchangeKind::Basic,
            repeats: false,
        });
        let ntp =
            NtpConfig { servers: associations.collect(), part, utc: Time::from_nanos(UTC_NS) };
        let mut config = ReceiverConfig::new(ClockIdentity([0xcc; 8]), seed);
        config.on_disagreement = Policy::Alarm;
        config.ntp = Some(ntp);
        if gm_error.is_none() {
            config.ports.clear();
        }
        let ports = config.ports.len() as u16;
        let clock = VirtualClock::new(mono(0), Time::from_nanos(UTC_NS), 500_000.0);
        let servo = build(&Choice::default(), &Options::default());
        let mut world = Self {
            client: Client::new(config, servo, clock, mono(0)),
            servers: servers.to_vec(),
            ports,
            gm_error,
            gm_ways: [Way { least: 8_000, jitter: 3_000.0 }; 2],
            coming: BinaryHeap::new(),
            count: 0,
            rng: ChaCha8Rng::seed_from_u64(seed),
            now: 0,
            exchanges: Vec::new(),
        };
        if world.gm_error.is_some() {
            world.later(SECOND / 2, Coming::Sync(0));
        }
        world.collect();
        world
    }

    fn later(&mut self, after: i64, what: Coming) {
        self.count += 1;
        self.coming.push(Reverse((self.now + after, self.count, what)));
    }

    fn gm_time(&self, at: i64) -> Timestamp {
        let error = self.gm_error.map_or(0, |error| error.at(at));
        Timestamp::from_time(Time::from_nanos(utc(at) + error)).0
    }

    fn collect(&mut self) {
        while let Some(command) = self.client.next_command() {
            match command {
                Command::Send(Transmit { on, message, token, .. }) => {
                    if let Some(SentToken(token)) = token {
                        self.later(0, Coming::Sent(token));
                    }
                    match on.0.checked_sub(self.ports) {
                        Some(at) => {
                            let at = usize::from(at);
                            let way = self.servers[at].ways[0].draw(&mut self.rng);
                            self.later(way, Coming::Request(at, message.to_vec()));
                        }
                        None => {
                            let way = self.gm_ways[0].draw(&mut self.rng);
                            self.later(way, Coming::DelayReq(message.to_vec()));
                        }
                    }
                }
                Command::Event(Event::Ntp(NtpEvent::Exchange(exchange))) => {
                    self.exchanges.push(exchange);
                }
                _ => {}
            }
        }
    }

    fn give(&mut self, input: Input<'_>) {
        self.client.handle(mono(self.now), &Monotonic::default(), input);
        self.collect();
    }

    fn happen(&mut self, what: Coming) {
        let stamp = Some(Stamp::new(mono(self.now), StampSource::Simulated));
        let on = PortIndex(0);
        match what {
            Coming::Sync(sequence_id) => {
                let way = self.gm_ways[1].draw(&mut self.rng);
                if sequence_id.is_multiple_of(2) {
                    let body = Body::Announce(Announce {
                        origin_timestamp: Timestamp::ZERO,
                        current_utc_offset: 37,
                        grandmaster_priority1: 128,
                        grandmaster_clock_quality: ClockQuality {
                            clock_class: 6,
                            clock_accuracy: ClockAccuracy(0x21),
                            offset_scaled_log_variance: 0xffff,
                        },
                        grandmaster_priority2: 128,
                        grandmaster_identity: GM.clock_identity,
                        steps_removed: 0,
                        time_source: TimeSource::INTERNAL_OSCILLATOR,
                    });
                    let announce = bytes(sequence_id / 2, body);
                    let input = Input::Message { on, from: None, bytes: &announce, stamp: None };
                    self.give(input);
                }
                let left = self.gm_time(self.now - way);
                let sync = bytes(sequence_id, Body::Sync { origin_timestamp: left });
                let input = Input::Message { on, from: None, bytes: &sync, stamp };
                self.give(input);
                self.later(SECOND, Coming::Sync(sequence_id.wrapping_add(1)));
            }
            Coming::Sent(token) => self.give(Input::Sent { token: SentToken(token), stamp }),
            Coming::DelayReq(message) => {
                let header = Message::parse(&message).expect("our own").header;
                let body = Body::DelayResp {
                    receive_timestamp: self.gm_time(self.now),
                    requesting_port_identity: header.source_port_identity,
                };
                self.later(20_000, Coming::DelayResp(bytes(header.sequence_id, body)));
            }
            Coming::DelayResp(message) => {
                let input = Input::Message { on, from: None, bytes: &message, stamp: None };
                self.give(input);
            }
            Coming::Request(at, message) => {
                let server = self.servers[at];
                let (asked, _) = NtpPacket::parse(&message).expect("our own");
                let shown =
                    |at: i64| NtpTimestamp::of(Time::<Real>::from_nanos(utc(at) + server.error));
                let answer = NtpPacket {
                    mode: Mode::Server,
                    stratum: 1,
                    root_dispersion: NtpShort::of(server.root_distance),
                    reference_id: ReferenceId(*b"GPS\0"),
                    origin: asked.transmit,
                    receive: shown(self.now),
                    transmit: shown(self.now + 30_000),
                    ..asked
                };
                let way = server.ways[1].draw(&mut self.rng);
                self.later(30_000 + way, Coming::Answer(at, answer.to_bytes().to_vec()));
            }
            Coming::Answer(at, message) => {
                let from = Some(Address::Socket(self.servers[at].address));
                let on = PortIndex(self.ports + at as u16);
                self.give(Input::Message { on, from, bytes: &message, stamp });
            }
        }
    }

    /// Until `end`, or until `each`, which is called every `step`, says that it is enough.
    pub(crate) fn run(&mut self, end: i64, step: i64, mut each: impl FnMut(&mut Self) -> bool) {
        let mut look = self.now + step;
        while self.now < end {
            // Timers have fractions of nanoseconds, which time here has not.
            let timeout = self.client.next_wakeup().map(|at| at.as_nanos() + 1);
            let coming = self.coming.peek().map(|Reverse((at, ..))| *at);
            let next = [timeout, coming].into_iter().flatten().min().unwrap_or(end).min(look);
            self.now = self.now.max(next);
            if self.now >= look {
                look += step;
                if !each(self) {
                    return;
                }
            }
            while self.coming.peek().is_some_and(|Reverse((at, ..))| *at <= self.now) {
                let Some(Reverse((_, _, what))) = self.coming.pop() else { break };
                self.happen(what);
            }
            self.client.poll(mono(self.now));
            self.collect();
        }
    }

    /// Whether a server is one of those that can be right together.
    pub(crate) fn believes(&self, server: IpAddr) -> bool {
        let mut sources = self.client.sources(mono(self.now));
        sources.any(|it| it.id == SourceId::Ntp(server) && it.agrees == Some(true))
    }

    /// Clock minus UTC, ns, and the bound on it.
    pub(crate) fn error(&self) -> (i64, Option<i64>) {
        let shown = self.client.domain_time(mono(self.now)).as_nanos();
        (shown - utc(self.now), self.client.error_bound(mono(self.now)).map(Duration::as_nanos))
    }
}

pub(crate) fn server(n: u8, ways: [Way; 2], error: i64, root_distance: Duration) -> Server {
    Server { address: ([192, 0, 2, n], 123).into(), ways, error, root_distance }
}
