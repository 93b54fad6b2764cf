//! Clocks behind each other in virtual time, each with its servo and its software clock, on links as they are between machines
//! that stamp in software: either way has a delay and a noise of its own, now and then somebody is held up, and stamps lie a little on
//! their side of the wire. What is claimed: whatever a clock behind relays or boundary clocks says of its error against
//! the grandmaster is true. One that takes its neighbour's time for the grandmaster's is too sure of itself by all that its neighbours are off.

use super::*;
use crate::{
    Input, Monotonic,
    clock::virtual_clock::VirtualClock,
    config::{AsCapable, Rules},
    contention::{Contention, RelayTime},
    discipline::{Client, Event},
    node::Node,
    origin::BoundReference,
    prelude::*,
    seam::{Commands, Context, Driven},
    servo::{Choice, Options, build},
};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

/// What a clock's own claim was held against, and what came of it.
#[derive(Debug, Default)]
struct Tally {
    looks: u64,
    /// Looks whose bound was said to be one against the grandmaster.
    against_grandmaster: u64,
    outside: u64,
    /// Sum of the bounds, nanoseconds.
    bounds_ns: f64,
    /// Of the first look outside: seed, station, when in seconds, error and bound in nanoseconds.
    first: Option<(u64, usize, f64, f64, f64)>,
}

enum Engine {
    Grandmaster(Driven<Node>),
    Follower(Box<Client<VirtualClock>>),
}

struct Station {
    engine: Engine,
    /// Of its monotonic clock over true time, and how fast that changes, per second.
    rate: f64,
}

enum Coming {
    Message { to: usize, port: usize, bytes: Vec<u8> },
    Stamp { of: usize, token: SentToken, stamp: Stamp },
}

/// What one way of a link does to packets, nanoseconds.
#[derive(Clone, Copy)]
struct Way {
    least: f64,
    noise: f64,
}

struct Chain {
    stations: Vec<Station>,
    /// From each station to the next, and back.
    ways: Vec<[Way; 2]>,
    rng: ChaCha8Rng,
    now: f64,
    coming: Vec<(f64, Coming)>,
}

/// How often who is held up, and for how long at the most, nanoseconds: programs that wait for a processor, ...
const PROGRAM: (f64, f64) = (0.02, 2_000_000.0);
/// ... and packets between the two stamps.
const WIRE: (f64, f64) = (0.005, 50_000.0);
const START_NS: i64 = 1_000_000_000;
/// Where every monotonic clock is the same.
fn local(true_ns: f64, rate: f64) -> Time<Mono> {
    Time::from_nanos(START_NS) + Duration::from_nanos_f64(true_ns * rate)
}

fn truth(mono: Time<Mono>, rate: f64) -> f64 {
    (mono - Time::from_nanos(START_NS)).as_nanos_f64() / rate
}

fn identity(n: usize) -> ClockIdentity {
    ClockIdentity([n as u8 + 1, 0, 0, 0xff, 0xfe, 0, 0, n as u8 + 1])
}

/// How the stations pass time on.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Relays(RelayTime),
    BoundaryClocks,
}

impl Kind {
    fn port(self) -> PortConfig {
        let ports = PortConfig {
            log_announce_interval: 0,
            sync_receipt_timeout: 3,
            ..PortConfig::default()
        };
        match self {
            Self::BoundaryClocks => PortConfig { log_min_delay_req_interval: -3, ..ports },
            Self::Relays(_) => PortConfig {
                delay_mechanism: DelayMechanism::P2p,
                rules: Rules::Ieee8021As,
                as_capable: Some(AsCapable {
                    neighbor_prop_delay_threshold: Duration::from_micros(100),
                    allowed_lost_responses: 9,
                }),
                ..ports
            },
        }
    }

    fn config(self, n: usize, seed: u64) -> ReceiverConfig {
        let ports = vec![self.port(); if n == 0 { 1 } else { 2 }];
        let mut transmitter = TransmitterConfig::new(identity(n));
        transmitter.priority1 = 100 + n as u8;
        transmitter.log_announce_interval = 0;
        (transmitter.log_sync_interval, transmitter.log_min_delay_req_interval) = (-3, -3);
        transmitter.tells_brackets = true;
        let mut contention = Contention::new(transmitter);
        let mut config = ReceiverConfig { ports, ..ReceiverConfig::new(identity(n), seed) };
        if let Self::Relays(relay) = self {
            contention.relay = relay;
            config.sdo_id = 0x100;
        }
        config.contention = Some(contention);
        config
    }
}

impl Chain {
    /// A grandmaster and so many behind it.
    fn new(seed: u64, behind: usize, kind: Kind) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut stations = Vec::new();
        for n in 0..=behind {
            let rate = 1.0 + rng.random_range(-50e-6..50e-6);
            let config = kind.config(n, seed.wrapping_add(n as u64));
            let now = local(0.0, rate);
            let engine = if n == 0 {
                let mut commands = Commands::default();
                let mut config = config;
                let contention = config.contention.take().unwrap();
                let clock = &Monotonic::default();
                let mut cx = Context { now, clock, out: &mut commands };
                let node = Node::either(config, contention, &mut cx);
                Engine::Grandmaster(Driven::new_with(node, commands))
            } else {
                let servo = build(&Choice::default(), &Options::default());
                let clock = VirtualClock::new(now, Time::from_nanos(START_NS), 500_000.0);
                Engine::Follower(Box::new(Client::new(config, servo, clock, now)))
            };
            stations.push(Station { engine, rate });
        }
        let way = |rng: &mut ChaCha8Rng| Way {
            least: rng.random_range(300.0..3_000.0),
            noise: rng.random_range(100.0..3_000.0),
        };
        let ways = (0..behind).map(|_| [way(&mut rng), way(&mut rng)]).collect();
        Self { stations, ways, rng, now: 0.0, coming: Vec::new() }
    }

    /// Mostly a little, and now and then as long as somebody else has the processor.
    fn held_up(&mut self, usual_ns: f64, (rarely, most_ns): (f64, f64)) -> f64 {
        let u: f64 = self.rng.random_range(1e-9..1.0);
        let rare: f64 = self.rng.random();
        let much = if rare < rarely { self.rng.random_range(0.0..most_ns) } else { 0.0 };
        -u.ln() * usual_ns + much
    }

    fn give(&mut self, n: usize, input: Option<Input<'_>>) {
        let now = local(self.now, self.stations[n].rate);
        let clock = &Monotonic::default();
        let mut sent = Vec::new();
        match &mut self.stations[n].engine {
            Engine::Grandmaster(node) => {
                match input {
                    Some(input) => node.handle(now, clock, input),
                    None => node.poll(now),
                }
                while let Some(command) = node.next_command() {
                    if let Command::Send(transmit) = command {
                        sent.push(transmit);
                    }
                }
            }
            Engine::Follower(client) => {
                match input {
                    Some(input) => client.handle(now, clock, input),
                    None => client.poll(now),
                }
                while let Some(command) = client.next_command() {
                    match command {
                        Command::Send(transmit) => sent.push(transmit),
                        Command::Event(Event::ClockError(error)) => panic!("{error}"),
                        _ => {}
                    }
                }
            }
        }
        for transmit in sent {
            self.send(n, transmit);
        }
    }

    fn send(&mut self, n: usize, Transmit { on, message, token, .. }: Transmit) {
        let is_down = n == 0 || on.0 == 1;
        let left = self.now + self.held_up(20_000.0, PROGRAM);
        if let Some(token) = token {
            let early: f64 = self.rng.random_range(0.0..300.0);
            let stamp =
                Stamp::new(local(left - early, self.stations[n].rate), StampSource::Simulated);
            let known = left + self.held_up(30_000.0, PROGRAM);
            self.coming.push((known, Coming::Stamp { of: n, token, stamp }));
        }
        let to = if is_down { Some(n + 1) } else { n.checked_sub(1) };
        let Some(to) = to.filter(|to| *to < self.stations.len()) else { return };
        let way = self.ways[n.min(to)][usize::from(!is_down)];
        let arrives = left + way.least + self.held_up(way.noise, WIRE);
        let port = usize::from(!is_down && to > 0);
        self.coming.push((arrives, Coming::Message { to, port, bytes: message.to_vec() }));
    }

    fn run(&mut self, seconds: f64, mut look: impl FnMut(&Self)) {
        const LOOK_NS: f64 = 50e6;
        let end = self.now + seconds * 1e9;
        let mut look_at = self.now + LOOK_NS;
        loop {
            let due = self.stations.iter().enumerate().filter_map(|(n, station)| {
                let at = match &station.engine {
                    Engine::Grandmaster(node) => node.next_wakeup(),
                    Engine::Follower(client) => client.next_wakeup(),
                }?;
                Some((truth(at, station.rate).max(self.now), n))
            });
            let due = due.min_by(|a, b| a.0.total_cmp(&b.0));
            let next = (0..self.coming.len())
                .min_by(|a, b| self.coming[*a].0.total_cmp(&self.coming[*b].0));
            let arrival = next.map_or(f64::INFINITY, |it| self.coming[it].0);
            let at = due.map_or(f64::INFINITY, |it| it.0).min(arrival);
            while look_at <= at.min(end) {
                self.now = look_at;
                look(self);
                look_at += LOOK_NS;
            }
            if at > end {
                break;
            }
            self.now = at;
            if let (Some(next), true) = (next, arrival <= at) {
                match self.coming.swap_remove(next).1 {
                    Coming::Stamp { of, token, stamp } => {
                        self.give(of, Some(Input::Sent { token, stamp: Some(stamp) }));
                    }
                    Coming::Message { to, port, bytes } => {
                        let is_event = bytes[0] & 0x0f < 8;
                        // The stamp is taken on arrival, and the program comes to it when it can.
                        let time = local(self.now, self.stations[to].rate);
                        let stamp = is_event.then(|| Stamp::new(time, StampSource::Simulated));
                        let on = PortIndex(port as u16);
                        let input = Input::Message { on, from: None, bytes: &bytes, stamp };
                        self.give(to, Some(input));
                    }
                }
            } else if let Some((_, n)) = due {
                // Its own clock is a little behind what was computed back.
                self.now += 0.01;
                self.give(n, None);
            }
        }
        self.now = end;
    }

    /// What a follower's clock is off now, its bound and what that is against.
    fn claim(&self, n: usize) -> Option<(f64, f64, BoundReference)> {
        let Station { engine: Engine::Follower(client), rate } = &self.stations[n] else {
            return None;
        };
        let now = local(self.now, *rate);
        // Until all have heard of the first one, some follow others, and hold their time.
        let grandmaster = client.origin().parent?.set.grandmaster_identity;
        if grandmaster != identity(0) {
            return None;
        }
        let trust = client.trust(now)?;
        let grandmaster = local(self.now, self.stations[0].rate).at_offset(Duration::ZERO);
        let error = (client.domain_time(now) - grandmaster).as_nanos_f64();
        Some((error, trust.bound.as_nanos_f64(), client.origin().bound_reference()))
    }
}

/// What the last of three behind each other says, and the ones before it, for so many seeds.
fn tally(kind: Kind, seeds: core::ops::Range<u64>, seconds: f64) -> Tally {
    let mut tally = Tally::default();
    for seed in seeds {
        let mut chain = Chain::new(seed, 4, kind);
        chain.run(seconds, |chain| {
            for n in 1..chain.stations.len() {
                let Some((error, bound, reference)) = chain.claim(n) else { continue };
                tally.looks += 1;
                if reference != BoundReference::Grandmaster {
                    continue;
                }
                tally.against_grandmaster += 1;
                tally.bounds_ns += bound;
                if error.abs() > bound {
                    tally.outside += 1;
                    tally.first.get_or_insert((seed, n, chain.now / 1e9, error, bound));
                }
            }
        });
    }
    tally
}

/// How many seeds are tried of each kind: so many, or what `PTP_SEEDS` says.
fn seeds(usual: u64) -> core::ops::Range<u64> {
    let wanted = std::env::var("PTP_SEEDS").ok().and_then(|text| text.parse().ok());
    0..wanted.unwrap_or(usual)
}

fn holds(kind: Kind) {
    let tally = tally(kind, seeds(2), 30.0);
    let mean = tally.bounds_ns / tally.against_grandmaster as f64;
    std::println!("{kind:?}: {tally:?}, mean bound {mean:.0} ns");
    assert_eq!(tally.outside, 0, "{tally:?}");
    assert!(tally.against_grandmaster * 10 > tally.looks * 8, "{tally:?}");
}

#[test]
fn the_bound_behind_relays_by_their_clocks_holds_against_the_grandmaster() {
    holds(Kind::Relays(RelayTime::Clock));
}

#[test]
fn the_bound_behind_relays_by_residence_holds_against_the_grandmaster() {
    holds(Kind::Relays(RelayTime::Residence));
}

#[test]
fn the_bound_behind_boundary_clocks_holds_against_the_grandmaster() {
    holds(Kind::BoundaryClocks);
}
