//! Clocks that take either role, several of them on networks in virtual time: who serves, who follows, who is
//! silent, and what happens when one is taken away.

mod telecom;

use super::*;
use crate::{
    Context, Engine, Input, Monotonic,
    config::PortPart,
    contention::{BeforeLock, Contention},
    node::Node,
    prelude::*,
    seam::Commands,
};
use PortState::{
    Listening, Passive, PreTimeTransmitter, TimeReceiver, TimeTransmitter, Uncalibrated,
};
use ptp_common::wire::TlvType;

/// Between sending and arrival.
const WIRE: Duration = Duration::from_micros(10);
/// From the first Sync to a locked servo.
const LOCKS_AFTER: Duration = Duration::from_secs(2);

struct Clock {
    instance: Node,
    commands: Commands<NoEvent>,
    alive: bool,
    followed_since: Option<Time<Mono>>,
    /// The network of each port.
    networks: Vec<usize>,
}

/// Clocks with their networks.
struct World {
    clocks: Vec<Clock>,
    now: Time<Mono>,
    /// Arrival, clock, port, message.
    wire: Vec<(Time<Mono>, usize, usize, Vec<u8>)>,
    /// Announce messages, the latest last: network, sender, message.
    announced: Vec<(Time<Mono>, usize, Vec<u8>)>,
}

fn identity(n: u8) -> ClockIdentity {
    ClockIdentity([n, 0, 0, 0xff, 0xfe, 0, 0, n])
}

/// A clock that takes either role, better with a lower number, with so many ports.
fn clock(n: u8, ports: usize) -> (ReceiverConfig, Contention) {
    let port = PortConfig { log_announce_interval: 0, ..PortConfig::default() };
    let receiver = ReceiverConfig {
        ports: vec![port; ports],
        ..ReceiverConfig::new(identity(n), u64::from(n))
    };
    let mut transmitter = TransmitterConfig::new(identity(n));
    (transmitter.priority1, transmitter.log_announce_interval) = (100 + n, 0);
    (receiver, Contention::new(transmitter))
}

impl World {
    fn new() -> Self {
        Self { clocks: Vec::new(), now: at(0), wire: Vec::new(), announced: Vec::new() }
    }

    /// Adds a clock; returns its number.
    fn add(
        &mut self,
        (config, contention): (ReceiverConfig, Contention),
        networks: &[usize],
    ) -> usize {
        assert_eq!(config.ports.len(), networks.len());
        let mut commands = Commands::default();
        let clock = &Monotonic::default();
        let mut cx = Context { now: self.now, clock, out: &mut commands };
        let instance = Node::either(config, contention, &mut cx);
        self.adopt(instance, commands, networks)
    }

    fn adopt(&mut self, instance: Node, commands: Commands<NoEvent>, networks: &[usize]) -> usize {
        self.clocks.push(Clock {
            instance,
            commands,
            alive: true,
            followed_since: None,
            networks: networks.to_vec(),
        });
        self.clocks.len() - 1
    }

    fn state(&self, clock: usize, port: u16) -> PortState {
        self.clocks[clock].instance.port_state(PortIndex(port))
    }

    fn states(&self, clock: usize) -> Vec<PortState> {
        let instance = &self.clocks[clock].instance;
        instance.ports().map(|port| instance.port_state(port)).collect()
    }

    fn grandmaster(&self, clock: usize) -> ClockIdentity {
        self.clocks[clock].instance.parent_data_set(self.now).grandmaster_identity
    }

    fn give(&mut self, clock: usize, input: Option<Input<'_>>) {
        let each = &mut self.clocks[clock];
        let served = &Monotonic::default();
        let mut cx = Context { now: self.now, clock: served, out: &mut each.commands };
        match input {
            Some(input) => each.instance.handle(&mut cx, input),
            None => each.instance.handle_timeout(&mut cx),
        }
        self.carry(clock);
    }

    fn carry(&mut self, clock: usize) {
        while let Some(command) = self.clocks[clock].commands.pop() {
            match command {
                Command::Send(Transmit { on, message, token, .. }) => {
                    let from = usize::from(on.0);
                    let network = self.clocks[clock].networks[from];
                    if message[0] & 0x0f == 0x0b {
                        self.announced.push((self.now, network, message.to_vec()));
                    }
                    for (to, each) in self.clocks.iter().enumerate() {
                        for (port, of) in each.networks.iter().enumerate() {
                            if *of == network && (to, port) != (clock, from) {
                                self.wire.push((self.now + WIRE, to, port, message.to_vec()));
                            }
                        }
                    }
                    if let Some(token) = token {
                        let stamp = stamp(self.now);
                        self.give(clock, Some(Input::Sent { token, stamp }));
                    }
                }
                Command::Witnessed(_) => {}
                Command::Measured(_) => {
                    let now = self.now;
                    let since = *self.clocks[clock].followed_since.get_or_insert(now);
                    if now - since >= LOCKS_AFTER {
                        let each = &mut self.clocks[clock];
                        let locked = Synchronization::Locked;
                        each.instance.set_synchronized(&mut each.commands, locked);
                    }
                }
                Command::Changed(Change::Parent(_)) => self.clocks[clock].followed_since = None,
                Command::Changed(Change::PortState { old, new, .. }) => {
                    assert!(old.may_become(new), "{old:?} {new:?}");
                }
                Command::Event(never) => match never {},
            }
        }
    }

    /// Goes on for so long, and looks with `check` after each event.
    fn run_with(&mut self, span: Duration, mut check: impl FnMut(&Self)) {
        let end = self.now + span;
        loop {
            let alive = self.clocks.iter().filter(|clock| clock.alive);
            let due = alive.filter_map(|clock| clock.instance.next_timeout()).min();
            let arrival = self.wire.iter().map(|(at, ..)| *at).min();
            let next = [due, arrival].into_iter().flatten().min();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            self.now = self.now.max(next);
            let (come, wait): (Vec<_>, Vec<_>) =
                core::mem::take(&mut self.wire).into_iter().partition(|(at, ..)| *at <= self.now);
            self.wire = wait;
            for (_, to, port, bytes) in come {
                if !self.clocks[to].alive {
                    continue;
                }
                let stamp = if bytes[0] & 0x0f < 8 { stamp(self.now) } else { None };
                let on = PortIndex(port as u16);
                self.give(to, Some(Input::Message { on, from: None, bytes: &bytes, stamp }));
            }
            for clock in 0..self.clocks.len() {
                if self.clocks[clock].alive {
                    self.give(clock, None);
                }
            }
            check(self);
        }
        self.now = end;
    }

    fn run(&mut self, seconds: i64) {
        self.run_with(Duration::from_secs(seconds), |_| ());
    }

    /// Who is its own grandmaster and sends.
    fn grandmasters(&self) -> Vec<usize> {
        let serves = |clock: &Clock| {
            let mut ports = clock.instance.ports();
            clock.alive
                && clock.instance.parent().is_none()
                && ports.any(|port| clock.instance.port_state(port) == TimeTransmitter)
        };
        (0..self.clocks.len()).filter(|at| serves(&self.clocks[*at])).collect()
    }

    /// The body of the last Announce in a network, and its whole.
    fn last_announce(&self, network: usize) -> (Header, Announce, Vec<u8>) {
        let (_, _, bytes) = self.announced.iter().rev().find(|(_, of, _)| *of == network).unwrap();
        let message = Message::parse(bytes).unwrap();
        let Body::Announce(announce) = message.body else { unreachable!() };
        (message.header, announce, bytes.clone())
    }
}

#[test]
fn a_clock_that_hears_nobody_serves_after_the_announce_receipt_timeout_drawn_from_its_range() {
    let mut waits = Vec::new();
    for n in 1..20 {
        let mut world = World::new();
        let alone = world.add(clock(n, 1), &[0]);
        let start = world.now;
        let mut serves_at = None;
        world.run_with(Duration::from_secs(6), |world| {
            if world.state(alone, 0) == TimeTransmitter && serves_at.is_none() {
                serves_at = Some(world.now);
            }
        });
        waits.push((serves_at.unwrap() - start).as_secs_f64());
    }
    assert!(waits.iter().all(|wait| (3.0..4.0).contains(wait)), "{waits:?}");
    let (least, most) =
        (waits.iter().copied().reduce(f64::min), waits.into_iter().reduce(f64::max));
    assert!(most.unwrap() - least.unwrap() > 0.5, "not drawn");
}

#[test]
fn the_better_of_two_serves_and_the_other_follows() {
    let mut world = World::new();
    let worse = world.add(clock(2, 1), &[0]);
    let better = world.add(clock(1, 1), &[0]);
    world.run(20);
    assert_eq!(world.state(better, 0), TimeTransmitter);
    assert_eq!(world.state(worse, 0), TimeReceiver);
    assert_eq!(world.grandmaster(worse), identity(1));
    assert_eq!(world.clocks[worse].instance.steps_removed(), 1);
}

#[test]
fn a_better_one_that_comes_late_takes_over_and_the_old_one_follows_it() {
    let mut world = World::new();
    let old = world.add(clock(2, 1), &[0]);
    world.run(10);
    assert_eq!(world.state(old, 0), TimeTransmitter);
    let new = world.add(clock(1, 1), &[0]);
    world.run(10);
    assert_eq!((world.state(old, 0), world.state(new, 0)), (TimeReceiver, TimeTransmitter));
}

#[test]
fn of_a_reference_and_a_better_one_the_reference_is_passive_and_never_follows() {
    let mut world = World::new();
    let with_class = |n: u8, class: u8| {
        let (config, mut contention) = clock(n, 1);
        contention.transmitter.clock_quality.clock_class = class;
        (config, contention)
    };
    let reference = world.add(with_class(2, 6), &[0]);
    let better = world.add(with_class(1, 6), &[0]);
    world.run(20);
    assert_eq!((world.state(reference, 0), world.state(better, 0)), (Passive, TimeTransmitter));
    world.clocks[better].alive = false;
    world.run(6);
    assert_eq!(world.state(reference, 0), TimeTransmitter);
}

#[test]
fn a_boundary_clock_passes_on_grandmaster_steps_path_and_time() {
    let mut world = World::new();
    let mut first = clock(1, 1);
    let flags = Flags::PTP_TIMESCALE | Flags::UTC_OFFSET_VALID | Flags::LEAP61;
    first.1.transmitter.time_properties =
        ptp_common::data_set::TimeProperties::told(37, flags, TimeSource::GNSS);
    world.add(first, &[0]);
    let boundary = world.add(clock(2, 2), &[0, 1]);
    let next = world.add(clock(3, 2), &[1, 2]);
    let last = world.add(clock(4, 1), &[2]);
    world.run(40);
    assert_eq!(world.states(boundary), [TimeReceiver, TimeTransmitter]);
    assert_eq!(world.states(next), [TimeReceiver, TimeTransmitter]);
    assert_eq!(world.states(last), [TimeReceiver]);
    assert_eq!(world.grandmaster(last), identity(1));
    assert_eq!(world.clocks[last].instance.steps_removed(), 3);
    let path: Vec<_> = world.clocks[last].instance.path().collect();
    assert_eq!(path, [identity(1), identity(2), identity(3)]);
    let (header, announce, _) = world.last_announce(2);
    assert_eq!((announce.steps_removed, announce.time_source), (2, TimeSource::GNSS));
    assert!(header.flags.contains(flags));
    assert!(!header.flags.contains(Flags::SYNCHRONIZATION_UNCERTAIN));
}

#[test]
fn until_it_has_locked_once_a_boundary_clock_is_silent_or_says_that_it_is_uncertain() {
    for before_lock in [BeforeLock::Silent, BeforeLock::Announced, BeforeLock::Uncertain] {
        let mut world = World::new();
        world.add(clock(1, 1), &[0]);
        let mut second = clock(2, 2);
        second.1.before_lock = before_lock;
        let boundary = world.add(second, &[0, 1]);
        let mut certain_at = None;
        world.run_with(Duration::from_secs(30), |world| {
            let is_locked = world.state(boundary, 0) == TimeReceiver;
            for (_, network, bytes) in &world.announced {
                let header = Message::parse(bytes).unwrap().header;
                if *network == 1 && !header.flags.contains(Flags::SYNCHRONIZATION_UNCERTAIN) {
                    // What it says as its own grandmaster, before it hears the other, is certain.
                    let Body::Announce(body) = Message::parse(bytes).unwrap().body else {
                        continue;
                    };
                    assert!(
                        body.grandmaster_identity == identity(2)
                            || is_locked
                            || certain_at.is_some()
                    );
                    certain_at = certain_at.or(Some(world.now));
                }
            }
        });
        assert!(certain_at.is_some());
        assert_eq!(world.states(boundary), [TimeReceiver, TimeTransmitter]);
    }
}

#[test]
fn a_port_that_has_heard_nobody_for_long_enough_passes_on_without_being_qualified() {
    for before_lock in [BeforeLock::Silent, BeforeLock::Announced, BeforeLock::Uncertain] {
        let mut world = World::new();
        world.add(clock(1, 1), &[0]);
        world.run(10);
        let mut second = clock(2, 2);
        second.1.before_lock = before_lock;
        let boundary = world.add(second, &[0, 1]);
        // The draw is from three to four intervals; the servo locks later.
        let mut states = Vec::new();
        world.run_with(Duration::from_secs(20), |world| {
            states.push(world.state(boundary, 1));
            let sent = world.clocks[boundary].instance.counters(PortIndex(1)).sync_exchanges;
            let is_locked = world.state(boundary, 0) == TimeReceiver;
            assert!(sent == 0 || is_locked || before_lock == BeforeLock::Uncertain);
        });
        states.dedup();
        let expected: &[_] = match before_lock {
            BeforeLock::Silent => &[Listening, PreTimeTransmitter, TimeTransmitter],
            _ => &[Listening, TimeTransmitter],
        };
        assert_eq!(states, expected);
        assert_eq!(world.states(boundary), [TimeReceiver, TimeTransmitter]);
        let timeouts = world.clocks[boundary].instance.counters(PortIndex(1)).timeouts;
        assert_eq!((timeouts.announce, timeouts.qualification), (1, 0));
    }
}

#[test]
fn in_a_ring_one_port_is_passive_and_serves_when_the_ring_breaks() {
    let mut world = World::new();
    let grandmaster = world.add(clock(1, 2), &[0, 1]);
    let left = world.add(clock(2, 2), &[0, 2]);
    let right = world.add(clock(3, 2), &[1, 2]);
    world.run(40);
    assert_eq!(world.states(grandmaster), [TimeTransmitter; 2]);
    let mut between = [world.state(left, 1), world.state(right, 1)];
    between.sort_unstable_by_key(|state| state.number());
    assert_eq!(between, [TimeTransmitter, Passive]);
    // The network between the grandmaster and the left one breaks.
    world.clocks[left].networks[0] = 99;
    let before = world.clocks[left].instance.counters(PORT).timeouts;
    world.run(60);
    // Who loses the parent is MASTER at once where another port follows.
    let after = world.clocks[left].instance.counters(PORT).timeouts;
    assert_eq!(after.announce, before.announce + 1);
    assert_eq!(after.qualification, before.qualification);
    assert_eq!(world.grandmaster(left), identity(1));
    assert_eq!(world.states(left), [TimeTransmitter, TimeReceiver]);
    assert_eq!(world.clocks[left].instance.steps_removed(), 2);
}

#[test]
fn of_two_own_ports_in_one_network_the_lower_serves_and_the_other_is_passive() {
    let mut world = World::new();
    let twice = world.add(clock(1, 3), &[0, 1, 0]);
    let client = world.add(clock(2, 1), &[0]);
    world.run(20);
    assert_eq!(world.states(twice), [TimeTransmitter, TimeTransmitter, Passive]);
    assert_eq!(world.state(client, 0), TimeReceiver);
    // The cable of the first one is drawn.
    world.give(twice, Some(Input::Link { on: PortIndex(0), state: LinkState::Down }));
    world.run(10);
    assert_eq!(world.state(twice, 2), TimeTransmitter);
}

#[test]
fn two_ports_in_the_network_of_a_better_one_do_not_both_follow() {
    let mut world = World::new();
    let twice = world.add(clock(2, 2), &[0, 0]);
    world.add(clock(1, 1), &[0]);
    world.run(30);
    assert_eq!(world.states(twice), [TimeReceiver, Passive]);
}

#[test]
fn whoever_dies_is_replaced_a_hundred_times_without_two_grandmasters_for_longer_than_allowed() {
    let mut world = World::new();
    // A ring of three with two more clocks on it.
    let rings: [&[usize]; 3] = [&[0, 1], &[1, 2], &[2, 0]];
    let numbers = [1, 2, 3];
    for (n, networks) in numbers.into_iter().zip(rings) {
        world.add(clock(n, 2), networks);
    }
    world.add(clock(4, 1), &[0]);
    world.add(clock(5, 1), &[1]);
    world.run(40);
    // The draw, two Announce to be heard, and as much again for who is one further away.
    let allowed = Duration::from_secs(4 + 2 + 4);
    for round in 0..100 {
        let before = world.grandmasters();
        assert_eq!(before.len(), 1, "round {round}");
        let victim = before[0];
        world.clocks[victim].alive = false;
        let mut several_since = None;
        world.run_with(Duration::from_secs(25), |world| match world.grandmasters().len() {
            0 | 1 => several_since = None,
            _ => {
                let since = *several_since.get_or_insert(world.now);
                assert!(world.now - since < allowed, "round {round}: {:?}", world.grandmasters());
            }
        });
        let after = world.grandmasters();
        assert!(after.len() == 1 && after != before, "round {round}: {after:?}");
        // It comes back as it would after a restart.
        let n = u8::try_from(victim + 1).unwrap();
        let networks = core::mem::take(&mut world.clocks[victim].networks);
        let (config, contention) = clock(n, networks.len());
        let mut commands = Commands::default();
        let served = &Monotonic::default();
        let mut cx = Context { now: world.now, clock: served, out: &mut commands };
        let config = ReceiverConfig { seed: 1_000 + round, ..config };
        let instance = Node::either(config, contention, &mut cx);
        world.clocks[victim] =
            Clock { instance, commands, alive: true, followed_since: None, networks };
        world.run(25);
        assert_eq!(world.grandmasters(), [0], "round {round}: the best is back");
        for at in 0..world.clocks.len() {
            let states = world.states(at);
            assert!(
                !states
                    .iter()
                    .any(|state| matches!(state, Listening | PreTimeTransmitter | Uncalibrated)),
                "round {round}: {at} is stuck: {states:?}"
            );
        }
        world.announced.clear();
    }
}

#[test]
fn a_parent_that_announces_and_sends_no_sync_is_left_until_it_does() {
    let (mut config, contention) = clock(40, 1);
    config.ports[0].sync_receipt_timeout = 3;
    let mut world = World::new();
    let ours = world.add((config, contention), &[0]);
    let tell = |world: &mut World, bytes: Vec<u8>| {
        world.run(1);
        let on = PORT;
        let stamp = if bytes[0] & 0x0f < 8 { stamp(world.now) } else { None };
        world.give(ours, Some(Input::Message { on, from: None, bytes: &bytes, stamp }));
    };
    for n in 1..5 {
        tell(&mut world, announce(GM, n));
        tell(&mut world, sync(n, 0));
    }
    assert_eq!(world.state(ours, 0), Uncalibrated);
    for n in 5..10 {
        tell(&mut world, announce(GM, n));
    }
    assert_eq!(world.state(ours, 0), TimeTransmitter, "it serves itself meanwhile");
    tell(&mut world, announce(GM, 10));
    assert_eq!(world.state(ours, 0), TimeTransmitter, "and does not go to and fro");
    tell(&mut world, sync(11, 0));
    assert_eq!(world.state(ours, 0), Uncalibrated);
}

#[test]
fn what_has_been_here_already_and_what_is_too_far_away_is_not_followed() {
    let (config, mut contention) = clock(40, 1);
    contention.max_steps_removed = 3;
    let mut world = World::new();
    let ours = world.add((config, contention), &[0]);
    let mut buffer = [0; 64];
    let mut header = Header::new(GM, 0);
    header.log_message_interval = 0;
    for n in 0..4 {
        header.sequence_id = n;
        let own = identity(40).0;
        let mut tlvs = ptp_common::wire::TlvBuilder::new(&mut buffer);
        tlvs.push(ptp_common::wire::Tlv { kind: TlvType::PATH_TRACE, value: &own }).unwrap();
        let tlvs = tlvs.finish();
        let body = Body::Announce(announce_body(GM.clock_identity));
        let mut bytes = vec![0; 128];
        let length = Message { header, body, tlvs }.emit(&mut bytes).unwrap();
        bytes.truncate(length);
        world.run(1);
        world.give(ours, Some(Input::Message { on: PORT, from: None, bytes: &bytes, stamp: None }));
        let far = Announce { steps_removed: 3, ..announce_body(GM.clock_identity) };
        let bytes = wire(header, Body::Announce(far));
        world.give(ours, Some(Input::Message { on: PORT, from: None, bytes: &bytes, stamp: None }));
    }
    let counters = world.clocks[ours].instance.counters(PORT);
    assert_eq!((counters.dropped(Drop::Looped), counters.dropped(Drop::StepsRemoved)), (4, 4));
    assert!(world.clocks[ours].instance.parent().is_none());
}

#[test]
fn tlvs_that_are_to_be_propagated_are_and_others_are_not() {
    let mut world = World::new();
    let boundary = world.add(clock(40, 2), &[0, 1]);
    let mut header = Header::new(GM, 0);
    header.log_message_interval = 0;
    for n in 0..12 {
        header.sequence_id = n;
        let mut buffer = [0; 64];
        let mut tlvs = ptp_common::wire::TlvBuilder::new(&mut buffer);
        for kind in [0x4001, 0x0003, 0x7fff, 0x8000] {
            tlvs.push(ptp_common::wire::Tlv { kind: TlvType(kind), value: &[1, 2] }).unwrap();
        }
        let mut bytes = vec![0; 128];
        let body = Body::Announce(announce_body(GM.clock_identity));
        let length = Message { header, body, tlvs: tlvs.finish() }.emit(&mut bytes).unwrap();
        bytes.truncate(length);
        world.run(1);
        world.give(
            boundary,
            Some(Input::Message { on: PORT, from: None, bytes: &bytes, stamp: None }),
        );
        let each = &mut world.clocks[boundary];
        each.instance.set_synchronized(&mut each.commands, Synchronization::Locked);
    }
    let (_, _, bytes) = world.last_announce(1);
    let message = Message::parse(&bytes).unwrap();
    let kinds: Vec<u16> = message.tlvs.iter().map(|tlv| tlv.kind.0).collect();
    assert_eq!(kinds, [TlvType::PATH_TRACE.0, 0x4001, 0x7fff]);
}

#[test]
fn a_port_that_only_serves_hears_nobody_and_one_that_only_follows_never_serves() {
    let mut world = World::new();
    world.add(clock(1, 1), &[0]);
    let mut second = clock(2, 2);
    second.0.ports[0].part = PortPart::Transmitter;
    second.0.ports[1].part = PortPart::Receiver;
    let ours = world.add(second, &[0, 1]);
    world.run(20);
    assert_eq!(world.states(ours), [TimeTransmitter, Listening]);
}

#[test]
fn a_server_that_yields_is_passive_beside_a_better_one_and_serves_where_it_is_the_best() {
    let mut world = World::new();
    let better = world.add(clock(1, 1), &[0]);
    let mut commands = Commands::default();
    let served = &Monotonic::default();
    let mut cx = Context { now: world.now, clock: served, out: &mut commands };
    let mut config = TransmitterConfig::new(identity(2));
    (config.ports, config.priority1, config.log_announce_interval) = (2, 102, 0);
    let port = PortConfig { log_announce_interval: 0, ..PortConfig::default() };
    let server = Node::yielding_server(config, vec![port.clone(), port], &mut cx);
    let server = world.adopt(server, commands, &[0, 1]);
    world.run(20);
    assert_eq!(world.states(server), [Passive, TimeTransmitter]);
    world.clocks[better].alive = false;
    world.run(6);
    assert_eq!(world.states(server), [TimeTransmitter; 2]);
}
