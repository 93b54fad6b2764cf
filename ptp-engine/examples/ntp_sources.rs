//! Sources of time in virtual time: how long it takes until two servers of NTP find a grandmaster that goes wrong, that they
//! find none in a day in which it does not, and what three servers with delays as on the internet are worth, of which one
//! lies, beside the algorithm of RFC 5905 on the same exchanges.
//!
//! `cargo run --release -p ptp-engine --example ntp_sources`

use std::{cmp::Reverse, collections::BinaryHeap, net::SocketAddr};

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
    discipline::{Client, Event, Policy, Standing},
    ntp::{AssociationConfig, Exchange, ExchangeKind, NtpConfig, NtpEvent, NtpPart, Poll},
    receiver::ReceiverConfig,
    servo::{Choice, Options, build},
    stamp::{Stamp, StampSource},
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const SECOND: i64 = 1_000_000_000;
const UTC_NS: i64 = 1_800_000_000 * SECOND;
const GM: PortIdentity = PortIdentity { clock_identity: ClockIdentity([7; 8]), port_number: 1 };

/// UTC when the host's monotonic clock shows `mono`: the oscillator is 3 ppm fast, and wanders by 0.05 ppm in an hour.
fn utc(mono: i64) -> i64 {
    let seconds = mono as f64 / 1e9;
    let phase = std::f64::consts::TAU * seconds / 3_600.0;
    let wander = 0.05e-6 * 3_600.0 / std::f64::consts::TAU * phase.sin();
    UTC_NS + mono - ((3e-6 * seconds + wander) * 1e9) as i64
}

/// One way, ns: the least, and the mean of what comes on top, once in fifty times ten times as much.
#[derive(Clone, Copy)]
struct Way {
    least: i64,
    jitter: f64,
}

impl Way {
    fn draw(self, rng: &mut ChaCha8Rng) -> i64 {
        let long = if rng.random_range(0..50) == 0 { 10.0 } else { 1.0 };
        self.least + (-(1.0 - rng.random::<f64>()).ln() * self.jitter * long) as i64
    }
}

#[derive(Clone, Copy)]
struct Server {
    address: SocketAddr,
    ways: [Way; 2],
    /// Ahead of UTC.
    error: i64,
    root_distance: Duration,
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

struct World {
    client: Client<VirtualClock>,
    servers: Vec<Server>,
    ports: u16,
    gm_error: Option<fn(i64) -> i64>,
    gm_ways: [Way; 2],
    coming: BinaryHeap<Reverse<(i64, u64, Coming)>>,
    count: u64,
    rng: ChaCha8Rng,
    now: i64,
    standings: Vec<(i64, Standing)>,
    exchanges: Vec<Exchange>,
}

fn mono(ns: i64) -> Time<Mono> {
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
    fn new(
        servers: &[Server],
        poll: Poll,
        part: NtpPart,
        gm_error: Option<fn(i64) -> i64>,
        seed: u64,
    ) -> Self {
        let associations = servers.iter().map(|server| AssociationConfig {
            address: server.address,
            poll,
            kind: ExchangeKind::Basic,
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
            standings: Vec::new(),
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
        let error = self.gm_error.map_or(0, |error| error(at));
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
                Command::Event(Event::Standing { new, .. }) => self.standings.push((self.now, new)),
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

    /// Until `end`; `each` is called every `step`.
    fn run(&mut self, end: i64, step: i64, mut each: impl FnMut(&mut Self)) {
        let mut look = self.now + step;
        while self.now < end {
            // Timers have fractions of nanoseconds, which time here has not.
            let timeout = self.client.next_wakeup().map(|at| at.as_nanos() + 1);
            let coming = self.coming.peek().map(|Reverse((at, ..))| *at);
            let next = [timeout, coming].into_iter().flatten().min().unwrap_or(end).min(look);
            self.now = self.now.max(next);
            if self.now >= look {
                look += step;
                each(self);
            }
            while self.coming.peek().is_some_and(|Reverse((at, ..))| *at <= self.now) {
                let Some(Reverse((_, _, what))) = self.coming.pop() else { break };
                self.happen(what);
            }
            self.client.poll(mono(self.now));
            self.collect();
        }
    }

    /// Clock minus UTC, ns, and the bound on it.
    fn error(&self) -> (i64, Option<i64>) {
        let shown = self.client.domain_time(mono(self.now)).as_nanos();
        (shown - utc(self.now), self.client.error_bound(mono(self.now)).map(Duration::as_nanos))
    }
}

fn server(n: u8, ways: [Way; 2], error: i64, root_distance: Duration) -> Server {
    Server { address: ([192, 0, 2, n], 123).into(), ways, error, root_distance }
}

const GONE_WRONG: i64 = 3_600 * SECOND;

fn after(at: i64, error: i64) -> i64 {
    if at >= GONE_WRONG { error } else { 0 }
}

/// How far a grandmaster is from UTC, as it goes, ns.
type Fault = fn(i64) -> i64;

fn witness() {
    let faults: [(&str, Fault); 6] = [
        ("step of 10 us", |at| after(at, 10_000)),
        ("step of 100 us", |at| after(at, 100_000)),
        ("step of 1 ms", |at| after(at, 1_000_000)),
        ("step of 1 day", |at| after(at, 86_400 * SECOND)),
        ("drift of 1 ppm", |at| (at - GONE_WRONG).max(0) / 1_000_000),
        ("right for 24 h", |_| 0),
    ];
    for (network, way) in [
        ("lan", Way { least: 15_000, jitter: 4_000.0 }),
        ("campus", Way { least: 200_000, jitter: 60_000.0 }),
    ] {
        for (fault, gm_error) in faults {
            let asymmetric = Way { least: way.least + way.least / 10, ..way };
            let servers = [
                server(1, [way, asymmetric], 0, Duration::from_micros(2)),
                server(2, [asymmetric, way], 0, Duration::from_micros(2)),
            ];
            let mut world =
                World::new(&servers, Poll { min: 3, max: 6 }, NtpPart::Witness, Some(gm_error), 11);
            let is_right = gm_error(GONE_WRONG) == 0 && gm_error(2 * GONE_WRONG) == 0;
            let end = if is_right { 86_400 * SECOND } else { GONE_WRONG + 1_800 * SECOND };
            world.run(end, SECOND, |_| ());
            let wrong = |(_, standing): &&(i64, Standing)| standing.is_contradicted();
            let found = world.standings.iter().find(wrong);
            match found {
                _ if is_right => println!(
                    "{network}: {fault}: {} false alarms, {} exchanges",
                    world.standings.iter().filter(|it| wrong(it)).count(),
                    world.exchanges.len()
                ),
                Some((at, standing)) => println!(
                    "{network}: {fault}: found after {:.1} s ({})",
                    (at - GONE_WRONG) as f64 / 1e9,
                    standing.name()
                ),
                None => println!("{network}: {fault}: not found in 1800 s"),
            }
        }
    }
}

/// The clock filter, selection, cluster algorithm and combining of RFC 5905 (10, 11.2), given the true frequency of the
/// oscillator, as a discipline that has settled has it.
#[derive(Default)]
struct Rfc5905 {
    /// Of each server: offset, delay, dispersion at the time of the sample, and that time.
    samples: Vec<Vec<(f64, f64, f64, i64)>>,
    root: Vec<f64>,
}

impl Rfc5905 {
    const PHI: f64 = 15e-6;

    fn take(&mut self, at: usize, exchange: &Exchange) {
        self.samples.resize(self.samples.len().max(at + 1), Vec::new());
        self.root.resize(self.samples.len(), 0.0);
        let (t1, t4) = (exchange.t1.time.as_nanos(), exchange.t4.time.as_nanos());
        // Against what the oscillator would show if it were steered well.
        let there = (exchange.t2.as_nanos() - utc(t1)) as f64;
        let back = (exchange.t3.as_nanos() - utc(t4)) as f64;
        let delay = exchange.delay().as_nanos() as f64;
        self.root[at] = exchange.server.root_distance.as_nanos() as f64;
        let dispersion = 1_000.0 + Self::PHI * (t4 - t1) as f64;
        let stage = &mut self.samples[at];
        stage.insert(0, ((there + back) / 2.0, delay, dispersion, t4));
        stage.truncate(8);
    }

    /// Combined offset and synchronization distance, ns.
    fn system(&self, now: i64) -> Option<(f64, f64)> {
        // 10: the sample of least delay; jitter against it.
        let peers: Vec<(f64, f64, f64)> = self
            .samples
            .iter()
            .zip(&self.root)
            .filter_map(|(stage, root)| {
                let best = stage.iter().min_by(|a, b| a.1.total_cmp(&b.1))?;
                let squares = stage.iter().map(|it| (it.0 - best.0).powi(2)).sum::<f64>();
                let jitter = (squares / (stage.len().max(2) - 1) as f64).sqrt();
                let mut sorted: Vec<_> = stage.iter().collect();
                sorted.sort_by(|a, b| a.1.total_cmp(&b.1));
                let aged = |it: &(f64, f64, f64, i64)| it.2 + Self::PHI * (now - it.3) as f64;
                let dispersion: f64 =
                    sorted.iter().zip(1..).map(|(it, n)| aged(it) / 2_f64.powi(n)).sum();
                Some((best.0, best.1 / 2.0 + dispersion + jitter + root, jitter))
            })
            .collect();
        // 11.2.1.
        let n = peers.len();
        let chosen = (0..n.div_ceil(2)).find_map(|allowed| {
            let mut edges: Vec<f64> = peers.iter().map(|it| it.0 - it.1).collect();
            edges.sort_by(f64::total_cmp);
            let count = |x: f64| peers.iter().filter(|it| (it.0 - x).abs() <= it.1).count();
            let low = edges.iter().copied().find(|x| count(*x) >= n - allowed)?;
            let mut highs: Vec<f64> = peers.iter().map(|it| it.0 + it.1).collect();
            highs.sort_by(|a, b| b.total_cmp(a));
            let high = highs.into_iter().find(|x| count(*x) >= n - allowed)?;
            (low <= high).then_some((low, high))
        })?;
        let mut survivors: Vec<_> = peers
            .into_iter()
            .filter(|it| it.0 - it.1 <= chosen.1 && it.0 + it.1 >= chosen.0)
            .collect();
        // 11.2.2 leaves three; then 11.2.3.
        while survivors.len() > 3 {
            let spread =
                |it: &(f64, f64, f64)| survivors.iter().map(|o| (o.0 - it.0).powi(2)).sum::<f64>();
            let worst = (0..survivors.len())
                .max_by(|a, b| spread(&survivors[*a]).total_cmp(&spread(&survivors[*b])))?;
            survivors.remove(worst);
        }
        let weights: f64 = survivors.iter().map(|it| 1.0 / it.1).sum();
        let combined = survivors.iter().map(|it| it.0 / it.1).sum::<f64>() / weights;
        let distance = survivors.iter().map(|it| it.1).fold(f64::MAX, f64::min);
        Some((combined, distance + combined.abs()))
    }
}

fn rms(values: &[f64]) -> f64 {
    (values.iter().map(|it| it * it).sum::<f64>() / values.len().max(1) as f64).sqrt()
}

fn servers() {
    let ms = |ms: f64| (ms * 1e6) as i64;
    for lie in [0, ms(15.0), ms(200.0)] {
        let (mut ours, mut theirs, mut bounds, mut distances) = (vec![], vec![], vec![], vec![]);
        let (mut false_bounds, mut false_distances) = (0, 0);
        for seed in 1..=8 {
            let way = |least: f64| Way { least: ms(least), jitter: 1.5e6 };
            let servers = [
                server(1, [way(8.0), way(9.0)], 0, Duration::from_micros(300)),
                server(2, [way(15.0), way(12.0)], 0, Duration::from_micros(500)),
                server(3, [way(6.0), way(6.5)], lie, Duration::from_micros(400)),
            ];
            let mut world = World::new(&servers, Poll::default(), NtpPart::Source, None, seed);
            let mut rfc = Rfc5905::default();
            let mut taken = 0;
            world.run(12 * 3_600 * SECOND, 16 * SECOND, |world| {
                for exchange in &world.exchanges[taken..] {
                    rfc.take(usize::from(exchange.with.0), exchange);
                }
                taken = world.exchanges.len();
                if world.now < 2 * 3_600 * SECOND {
                    return;
                }
                let (error, bound) = world.error();
                ours.push(error as f64 / 1e6);
                if let Some(bound) = bound {
                    bounds.push(bound as f64 / 1e6);
                    false_bounds += usize::from(error.abs() > bound);
                }
                if let Some((offset, distance)) = rfc.system(world.now) {
                    // What a clock that is set by it would be wrong by.
                    theirs.push(offset / 1e6);
                    distances.push(distance / 1e6);
                    false_distances += usize::from(offset.abs() > distance);
                }
            });
        }
        println!(
            "three servers, one ahead by {} ms: error rms {:.3} ms (RFC 5905: {:.3} ms), ratio {:.2}; bound rms {:.1} ms (RFC 5905: {:.1} ms); false bounds {} and {} of {}",
            lie as f64 / 1e6,
            rms(&ours),
            rms(&theirs),
            rms(&ours) / rms(&theirs),
            rms(&bounds),
            rms(&distances),
            false_bounds,
            false_distances,
            ours.len(),
        );
    }
}

fn main() {
    let what = std::env::args().nth(1);
    let is_wanted = |name: &str| what.as_deref().is_none_or(|what| what == name);
    if is_wanted("witness") {
        witness();
    }
    if is_wanted("servers") {
        servers();
    }
}
