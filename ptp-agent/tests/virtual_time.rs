//! Grandmasters and a client joined by simulated links, in virtual time: the test jumps from one
//! wake-up to the next. All clocks are software clocks over one monotonic scale, so the true error
//! is known exactly.

use ptp_agent::{
    clock::{Clock, ClockScale, virtual_clock::VirtualClock, watch::WatchClock},
    engine::{
        Command, DelayMechanism, LinkState, PortIndex, PortState, SentToken, Transmit,
        counters::Drop,
        discipline::{Client, Event, Sample},
        receiver::{PortConfig, ReceiverConfig},
        transmitter::{Transmitter, TransmitterConfig},
    },
    servo::{Options, Purpose, Servo, ServoState, build},
    stamp::{Stamp, StampSource},
};
use ptp_common::{
    time::{Duration, Mono, Ptp, Time},
    wire::{ClockIdentity, Flags, MessageType},
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::{cmp::Reverse, collections::BinaryHeap};

const PORT: PortIndex = PortIndex(0);
const CLIENT: usize = usize::MAX;

fn start() -> Time<Mono> {
    Time::from_nanos(1_000_000_000_000)
}

fn identity(n: u8) -> ClockIdentity {
    ClockIdentity([n, 0, 0, 0xff, 0xfe, 0, 0, n])
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Happening {
    Arrives { at: usize, is_event: bool, bytes: Vec<u8> },
    Stamped { by: usize, token: u64 },
}

#[derive(Clone, Debug)]
struct Link {
    base: Duration,
    jitter_ns: i64,
    loss: f64,
    duplication: f64,
    /// Chance that a message takes a detour of up to 50 ms.
    reordering: f64,
    missing_stamps: f64,
}

impl Default for Link {
    fn default() -> Self {
        Self {
            base: Duration::from_micros(10),
            jitter_ns: 0,
            loss: 0.0,
            duplication: 0.0,
            reordering: 0.0,
            missing_stamps: 0.0,
        }
    }
}

struct Grandmaster {
    transmitter: Transmitter,
    clock: VirtualClock,
    alive: bool,
}

struct World<C: Clock> {
    now: Time<Mono>,
    link: Link,
    rng: ChaCha8Rng,
    grandmasters: Vec<Grandmaster>,
    client: Client<C>,
    queue: BinaryHeap<Reverse<(i64, u64, Happening)>>,
    order: u64,
    samples: Vec<Sample>,
    log: Vec<String>,
}

fn gm_config(n: u8) -> TransmitterConfig {
    let mut config = TransmitterConfig::new(identity(n));
    config.log_sync_interval = -4;
    config.log_min_delay_req_interval = -4;
    config.log_announce_interval = 0;
    config
}

fn gm(config: TransmitterConfig, offset: Duration, drift_ppb: f64) -> Grandmaster {
    let time = Time::from_seconds_nanos(1_700_000_000, 0) + offset;
    let mut clock = VirtualClock::new(start(), time, 1e6);
    clock.set_frequency(start(), drift_ppb).unwrap();
    Grandmaster { transmitter: Transmitter::new(config, start()), clock, alive: true }
}

fn client_config() -> ReceiverConfig {
    ReceiverConfig::new(identity(0xcc), 7)
}

fn virtual_client(config: ReceiverConfig) -> Client<VirtualClock> {
    let clock = VirtualClock::new(start(), Time::from_seconds_nanos(1_700_000_000, 0), 900_000.0);
    Client::new(config, build(&"pi".parse().unwrap(), &Options::default()), clock, start())
}

impl<C: Clock> World<C> {
    fn new(client: Client<C>, grandmasters: Vec<Grandmaster>, link: Link) -> Self {
        Self {
            now: start(),
            link,
            rng: ChaCha8Rng::seed_from_u64(42),
            grandmasters,
            client,
            queue: BinaryHeap::new(),
            order: 0,
            samples: Vec::new(),
            log: Vec::new(),
        }
    }

    fn later(&mut self, at: Time<Mono>, what: Happening) {
        self.order += 1;
        self.queue.push(Reverse((at.as_nanos(), self.order, what)));
    }

    fn send(&mut self, from: usize, bytes: &[u8], token: Option<SentToken>) {
        if let Some(token) = token {
            let at = self.now + Duration::from_micros(3);
            self.later(at, Happening::Stamped { by: from, token: token.0 });
        }
        let receivers: Vec<usize> =
            (0..self.grandmasters.len()).chain([CLIENT]).filter(|to| *to != from).collect();
        for at in receivers {
            if self.rng.random_bool(self.link.loss) {
                continue;
            }
            let copies = 1 + usize::from(self.rng.random_bool(self.link.duplication));
            for _ in 0..copies {
                let mut delay = self.link.base;
                delay += Duration::from_nanos(self.rng.random_range(0..=self.link.jitter_ns));
                if self.rng.random_bool(self.link.reordering) {
                    delay += Duration::from_micros(self.rng.random_range(0..50_000));
                }
                let is_event = token.is_some();
                let bytes = bytes.to_vec();
                self.later(self.now + delay, Happening::Arrives { at, is_event, bytes });
            }
        }
    }

    fn stamp(&mut self, time: Time<Mono>) -> Option<Stamp> {
        (!self.rng.random_bool(self.link.missing_stamps))
            .then_some(Stamp::new(time, StampSource::Simulated))
    }

    fn happen(&mut self, what: Happening) {
        match what {
            Happening::Arrives { at: CLIENT, is_event, bytes } => {
                let stamp = if is_event { self.stamp(self.now) } else { None };
                self.client.handle_message(self.now, PORT, &bytes, stamp);
            }
            Happening::Arrives { at, is_event, bytes } => {
                let gm = &mut self.grandmasters[at];
                if gm.alive {
                    let rx = is_event.then(|| gm.clock.at(self.now));
                    gm.transmitter.handle_message(self.now, PORT, &bytes, rx);
                }
            }
            Happening::Stamped { by: CLIENT, token } => {
                let stamp = self.stamp(self.now - Duration::from_micros(3));
                self.client.handle_tx_stamp(self.now, SentToken(token), stamp);
            }
            Happening::Stamped { by, token } => {
                let gm = &mut self.grandmasters[by];
                let sent = gm.clock.at(self.now - Duration::from_micros(3));
                gm.transmitter.handle_tx_stamp(SentToken(token), Some(sent));
            }
        }
    }

    fn drain(&mut self) {
        for n in 0..self.grandmasters.len() {
            while let Some(command) = self.grandmasters[n].transmitter.next_command() {
                if let Command::Send(transmit) = command
                    && self.grandmasters[n].alive
                {
                    self.transmit(n, &transmit);
                }
            }
        }
        while let Some(command) = self.client.next_command() {
            self.log.push(format!("{command:?}"));
            match command {
                Command::Send(transmit) => self.transmit(CLIENT, &transmit),
                Command::Event(Event::Sample(sample)) => self.samples.push(sample),
                _ => {}
            }
        }
    }

    fn transmit(&mut self, from: usize, transmit: &Transmit) {
        self.send(from, &transmit.message, transmit.token);
    }

    fn run_for(&mut self, span: Duration) {
        let end = self.now + span;
        self.drain();
        loop {
            let wakeups = self
                .grandmasters
                .iter()
                .filter(|gm| gm.alive)
                .filter_map(|gm| gm.transmitter.next_wakeup())
                .chain(self.client.next_wakeup())
                .chain(self.queue.peek().map(|Reverse((at, ..))| Time::from_nanos(*at)));
            let Some(next) = wakeups.min().filter(|next| *next <= end) else { break };
            self.now = self.now.max(next);
            while self.queue.peek().is_some_and(|Reverse((at, ..))| *at <= self.now.as_nanos()) {
                if let Some(Reverse((_, _, what))) = self.queue.pop() {
                    self.happen(what);
                }
            }
            for gm in self.grandmasters.iter_mut().filter(|gm| gm.alive) {
                gm.transmitter.poll(self.now);
            }
            self.client.poll(self.now);
            self.drain();
        }
        self.now = end;
    }

    fn true_error(&self, gm: usize) -> Duration {
        self.client.domain_time(self.now) - self.grandmasters[gm].clock.at(self.now)
    }

    fn port_state(&self) -> PortState {
        self.client.receiver().port_state(PORT)
    }

    fn followed(&self) -> Option<ClockIdentity> {
        self.client.receiver().parent().map(|parent| parent.set.grandmaster_identity)
    }

    fn dropped(&self, cause: Drop) -> u64 {
        self.client.receiver().counters(PORT).dropped(cause)
    }

    fn worst_over(&mut self, gm: usize, seconds: i64) -> Duration {
        let mut worst = Duration::ZERO;
        for _ in 0..seconds * 10 {
            self.run_for(Duration::from_millis(100));
            worst = worst.max(self.true_error(gm).abs());
        }
        worst
    }
}

fn default_world() -> World<VirtualClock> {
    let gm = gm(gm_config(1), Duration::from_millis(1_500), 37_000.0);
    let link = Link { jitter_ns: 8_000, ..Link::default() };
    World::new(virtual_client(client_config()), vec![gm], link)
}

#[test]
fn pi_converges_from_1_5_s_and_37_ppm_within_10_s() {
    let mut world = default_world();
    world.run_for(Duration::from_secs(10));
    assert_eq!(world.client.servo().state(), ServoState::Locked);
    assert_eq!(world.port_state(), PortState::TimeReceiver);
    let worst = world.worst_over(0, 60);
    assert!(worst < Duration::from_micros(5), "{worst:?}");
    let frequency = world.client.clock().frequency_ppb();
    assert!((frequency - 37_000.0).abs() < 2_000.0, "{frequency}");
}

#[test]
fn pi_converges_at_one_sync_per_second_and_without_noise_is_exact() {
    let mut config = gm_config(1);
    config.log_sync_interval = 0;
    config.log_min_delay_req_interval = 0;
    config.log_announce_interval = 1;
    let gm = gm(config, Duration::from_millis(-1_500), -37_000.0);
    let mut world = World::new(virtual_client(client_config()), vec![gm], Link::default());
    world.run_for(Duration::from_secs(300));
    let worst = world.worst_over(0, 60);
    assert!(worst < Duration::from_nanos(10), "{worst:?}");
}

#[test]
fn samples_say_sources_delay_and_an_error_bound_that_holds() {
    let mut world = default_world();
    world.run_for(Duration::from_secs(30));
    let error = world.true_error(0).abs();
    let sample = world.samples.last().unwrap();
    assert_eq!(sample.rx_source, StampSource::Simulated);
    assert_eq!(sample.tx_source, Some(StampSource::Simulated));
    assert!((sample.delay - Duration::from_micros(14)).abs() < Duration::from_micros(3));
    assert!(sample.trust.unwrap().bound > error);
}

#[test]
fn one_way_delay_is_measured_by_the_peer_mechanism_too() {
    let mut config = client_config();
    config.ports[0].delay_mechanism = DelayMechanism::P2p;
    config.ports[0].log_min_pdelay_req_interval = -3;
    let gm = gm(gm_config(1), Duration::from_millis(1_500), 37_000.0);
    let mut world = World::new(virtual_client(config), vec![gm], Link::default());
    world.run_for(Duration::from_secs(10));
    let worst = world.worst_over(0, 60);
    assert!(worst < Duration::from_nanos(50), "{worst:?}");
    let counters = world.client.receiver().counters(PORT);
    assert_eq!(counters.sent(MessageType::DelayReq), 0);
    assert!(counters.peer_delay_exchanges > 400);
    assert_eq!(world.samples.last().unwrap().delay.as_nanos(), 10_000);
}

#[test]
fn a_lost_grandmaster_means_holdover_and_its_return_no_step() {
    let mut world = default_world();
    world.run_for(Duration::from_secs(20));
    world.grandmasters[0].alive = false;
    world.run_for(Duration::from_secs(30));
    assert_eq!(world.client.servo().state(), ServoState::Holdover);
    assert_eq!(world.port_state(), PortState::Listening);
    assert_eq!(world.followed(), None);
    assert!(world.true_error(0).abs() < Duration::from_micros(60), "{:?}", world.true_error(0));
    world.log.clear();
    world.grandmasters[0].alive = true;
    world.run_for(Duration::from_secs(60));
    assert_eq!(world.port_state(), PortState::TimeReceiver);
    assert!(!world.log.iter().any(|line| line.contains("stepped: Some")));
    assert!(world.true_error(0).abs() < Duration::from_micros(5));
}

#[test]
fn a_grandmaster_that_restarts_its_sequence_numbers_is_followed_again() {
    let mut world = default_world();
    world.run_for(Duration::from_secs(40));
    let config = world.grandmasters[0].transmitter.config().clone();
    world.grandmasters[0].transmitter = Transmitter::new(config, world.now);
    world.run_for(Duration::from_secs(10));
    let before = world.samples.len();
    world.run_for(Duration::from_secs(10));
    assert!(world.samples.len() - before > 150);
    assert_eq!(world.port_state(), PortState::TimeReceiver);
}

#[test]
fn the_wrap_of_the_sequence_number_goes_unnoticed() {
    let mut config = gm_config(1);
    config.log_sync_interval = -7;
    let gm = gm(config, Duration::ZERO, 0.0);
    let mut world = World::new(virtual_client(client_config()), vec![gm], Link::default());
    world.run_for(Duration::from_secs(530));
    let received = world.client.receiver().counters(PORT).received(MessageType::Sync);
    assert!(received > 65_536 + 1_000);
    for cause in [Drop::Duplicate, Drop::Replayed, Drop::Reordered, Drop::FollowUpWithoutSync] {
        assert_eq!(world.dropped(cause), 0, "{}", cause.name());
    }
}

#[test]
fn the_better_of_three_grandmasters_is_followed_and_replaced_when_it_goes() {
    let mut gms = Vec::new();
    for (n, priority1) in [(1, 129), (2, 100), (3, 128)] {
        let mut config = gm_config(n);
        config.priority1 = priority1;
        gms.push(gm(config, Duration::from_millis(i64::from(n)), 10_000.0 * f64::from(n)));
    }
    let mut world = World::new(virtual_client(client_config()), gms, Link::default());
    world.run_for(Duration::from_secs(20));
    assert_eq!(world.followed(), Some(identity(2)));
    assert!(world.true_error(1).abs() < Duration::from_micros(20));
    world.grandmasters[1].alive = false;
    world.run_for(Duration::from_secs(20));
    assert_eq!(world.followed(), Some(identity(3)));
    world.grandmasters[1].alive = true;
    world.run_for(Duration::from_secs(20));
    assert_eq!(world.followed(), Some(identity(2)));
    assert!(world.dropped(Drop::NotParent) > 0);
}

#[test]
fn loss_duplication_reordering_and_missing_stamps_cost_exchanges_and_no_more() {
    let mut world = default_world();
    world.link.loss = 0.05;
    world.link.duplication = 0.05;
    world.link.reordering = 0.05;
    world.link.missing_stamps = 0.05;
    world.run_for(Duration::from_secs(20));
    let worst = world.worst_over(0, 60);
    // A detour of 25 ms on average on one exchange in twenty is no noise that PI is made for.
    assert!(worst < Duration::from_millis(20), "{worst:?}");
    assert_eq!(world.port_state(), PortState::TimeReceiver);
    for cause in [
        Drop::Duplicate,
        Drop::MissingRxStamp,
        Drop::MissingTxStamp,
        Drop::SyncWithoutFollowUp,
        Drop::FollowUpWithoutSync,
        Drop::UnansweredDelayReq,
    ] {
        assert!(world.dropped(cause) > 0, "{}", cause.name());
    }
    let counters = world.client.receiver().counters(PORT);
    let share = counters.sync_exchanges as f64 / counters.received(MessageType::Sync) as f64;
    assert!(share > 0.8, "{share}");
}

#[test]
fn the_same_seed_gives_the_same_events() {
    let run = || {
        let mut world = default_world();
        world.link.loss = 0.1;
        world.link.reordering = 0.1;
        world.run_for(Duration::from_secs(20));
        world.log
    };
    let first = run();
    assert!(first.len() > 500);
    assert_eq!(first, run());
}

#[test]
fn a_link_that_goes_down_disables_the_port_and_comes_back() {
    let mut world = default_world();
    world.run_for(Duration::from_secs(10));
    world.client.handle_link(world.now, PORT, LinkState::Down);
    assert_eq!(world.port_state(), PortState::Disabled);
    world.run_for(Duration::from_secs(5));
    assert!(world.dropped(Drop::PortDisabled) > 0);
    assert_eq!(world.client.servo().state(), ServoState::Holdover);
    world.client.handle_link(world.now, PORT, LinkState::Up);
    world.run_for(Duration::from_secs(5));
    assert_eq!(world.port_state(), PortState::TimeReceiver);
}

#[test]
fn watching_a_utc_clock_applies_the_utc_offset_only_on_the_ptp_time_scale() {
    for flags in [Flags(0), Flags::PTP_TIMESCALE | Flags::UTC_OFFSET_VALID] {
        let mut config = gm_config(1);
        let ptp = flags.contains(Flags::PTP_TIMESCALE);
        config.time_properties.ptp_timescale = ptp;
        config.time_properties.current_utc_offset_valid = ptp;
        let gm = gm(config, Duration::ZERO, 0.0);
        let utc: Time<Ptp> = Time::from_seconds_nanos(1_700_000_000, 5_000);
        let clock = WatchClock::new(ClockScale::Utc, start(), utc, Duration::ZERO);
        let servo: Box<dyn Servo> =
            build(&Default::default(), &Options { purpose: Purpose::Watch, ..Options::default() });
        let client = Client::new(client_config(), servo, clock, start());
        let mut world = World::new(client, vec![gm], Link::default());
        world.run_for(Duration::from_secs(10));
        let expected = if flags == Flags(0) { 5_000 } else { 37_000_005_000 };
        assert_eq!(world.samples.last().unwrap().offset.as_nanos(), expected);
        assert_eq!(world.port_state(), PortState::TimeReceiver);
    }
}

#[test]
fn of_two_ports_the_one_that_hears_the_better_grandmaster_follows() {
    let mut config = client_config();
    config.ports.push(PortConfig::default());
    let mut client = virtual_client(config);
    // Both transmitters are read at one place each; only the Announce messages matter here.
    let mut good = Transmitter::new(gm_config(1), start());
    let mut bad = Transmitter::new(TransmitterConfig { priority1: 200, ..gm_config(2) }, start());
    let mut now = start();
    let mut states = Vec::new();
    for second in 0..20 {
        for (port, transmitter) in [(0, &mut bad), (1, &mut good)] {
            transmitter.poll(now);
            while let Some(action) = transmitter.next_command() {
                let Command::Send(Transmit { token: None, message: general, .. }) = action else {
                    continue;
                };
                if port == 0 || second < 10 {
                    client.handle_message(now, PortIndex(port), &general, None);
                }
            }
        }
        client.poll(now);
        let receiver = client.receiver();
        states.push([receiver.port_state(PortIndex(0)), receiver.port_state(PortIndex(1))]);
        now += Duration::from_secs(1);
    }
    assert_eq!(states[5], [PortState::Listening, PortState::Uncalibrated]);
    assert_eq!(states[19], [PortState::Uncalibrated, PortState::Listening]);
}
