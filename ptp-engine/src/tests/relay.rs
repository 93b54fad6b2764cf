//! Relays of IEEE 802.1AS behind each other in virtual time, every clock with a rate of its own: what arrives behind the last
//! is the grandmaster's time, and the rate that is told is the grandmaster's.

use super::*;
use crate::{
    Context, Engine, Input, Monotonic, ReadClock,
    config::{AsCapable, PortPart, Rules},
    contention::{Contention, RelayTime},
    instance::Instance,
    node::Node,
    prelude::*,
    seam::Commands,
};
use proptest::prelude::*;
use ptp_common::wire::{
    TlvBuilder, TlvType,
    gptp::{self, AskedInterval, FollowUpInformation, IntervalRequest},
};

const SDO_ID: u16 = 0x100;
/// Of event messages, in true time, nanoseconds.
const WIRE_NS: f64 = 5_000.0;
/// Of all others: what the residence of a Sync is.
const SLOW_NS: f64 = 3_000_000.0;

struct Station {
    node: Node,
    commands: Commands<NoEvent>,
    /// Of its monotonic clock over true time.
    rate: f64,
    /// Of the grandmaster over true time, where its clock shows the grandmaster's time.
    shows: Option<f64>,
    alive: bool,
    /// True departures of Sync, and what was said in Follow_Up.
    syncs: Vec<f64>,
    said: Vec<(Header, Timestamp, FollowUpInformation)>,
    sent: Vec<MessageType>,
    measured: Vec<SyncObservation>,
}

/// A clock that shows the grandmaster's time.
struct Shown {
    own: f64,
    grandmaster: f64,
}

impl ReadClock for Shown {
    fn at(&self, mono: Time<Mono>) -> Option<Time<Ptp>> {
        Some(local(truth(mono, self.own), self.grandmaster).at_offset(Duration::ZERO))
    }
}

/// Stations in a line: port 2 of each has a wire to port 1 of the next; the first has port 1 alone, and nobody is behind the last,
/// so that its link there is not capable.
struct Line {
    stations: Vec<Station>,
    /// True time, nanoseconds.
    now: f64,
    wire: Vec<(f64, usize, usize, Vec<u8>)>,
}

/// What a monotonic clock of this rate shows.
fn local(true_ns: f64, rate: f64) -> Time<Mono> {
    Time::from_nanos(1_000_000_000) + Duration::from_nanos_f64(true_ns * rate)
}

fn truth(mono: Time<Mono>, rate: f64) -> f64 {
    (mono - Time::from_nanos(1_000_000_000)).as_nanos_f64() / rate
}

fn identity(n: usize) -> ClockIdentity {
    ClockIdentity([n as u8 + 1, 0, 0, 0xff, 0xfe, 0, 0, n as u8 + 1])
}

fn port(rules: Rules) -> PortConfig {
    PortConfig {
        delay_mechanism: DelayMechanism::P2p,
        log_announce_interval: 0,
        sync_receipt_timeout: 3,
        rules,
        as_capable: (rules == Rules::Ieee8021As).then_some(AsCapable {
            neighbor_prop_delay_threshold: Duration::from_micros(60),
            allowed_lost_responses: 3,
        }),
        ..PortConfig::default()
    }
}

impl Line {
    /// A grandmaster and relays with these rates, the last one of which ends at a wire into nowhere.
    fn new(rates: &[f64], relay: RelayTime, rules: Rules) -> Self {
        let mut line = Self { stations: Vec::new(), now: 0.0, wire: Vec::new() };
        for (n, rate) in rates.iter().enumerate() {
            let mut ports = vec![port(rules); if n == 0 { 1 } else { 2 }];
            if rules.are_static() {
                ports.last_mut().unwrap().part = PortPart::Transmitter;
            }
            let config = ReceiverConfig {
                ports,
                sdo_id: SDO_ID,
                ..ReceiverConfig::new(identity(n), n as u64)
            };
            let mut transmitter = TransmitterConfig::new(identity(n));
            transmitter.priority1 = 100 + n as u8;
            (transmitter.log_announce_interval, transmitter.log_sync_interval) = (0, -3);
            let contention = Contention { relay, ..Contention::new(transmitter) };
            let mut commands = Commands::default();
            let now = local(0.0, *rate);
            let mut cx = Context { now, clock: &Monotonic::default(), out: &mut commands };
            let node = Node::either(config, contention, &mut cx);
            line.add(node, commands, *rate);
        }
        line
    }

    fn add(&mut self, node: Node, commands: Commands<NoEvent>, rate: f64) {
        self.stations.push(Station {
            node,
            commands,
            rate,
            shows: None,
            alive: true,
            syncs: Vec::new(),
            said: Vec::new(),
            sent: Vec::new(),
            measured: Vec::new(),
        });
    }

    fn give(&mut self, n: usize, input: Option<Input<'_>>) {
        let station = &mut self.stations[n];
        let now = local(self.now, station.rate);
        let own = Monotonic::default();
        let shown = station.shows.map(|grandmaster| Shown { own: station.rate, grandmaster });
        let clock: &dyn ReadClock = shown.as_ref().map_or(&own, |shown| shown);
        let mut cx = Context { now, clock, out: &mut station.commands };
        match input {
            Some(input) => station.node.handle(&mut cx, input),
            None => station.node.handle_timeout(&mut cx),
        }
        self.carry(n);
    }

    fn carry(&mut self, n: usize) {
        while let Some(command) = self.stations[n].commands.pop() {
            let now = self.now;
            match command {
                Command::Send(Transmit { on, to, message, token }) => {
                    assert_eq!(to, Destination::Multicast(Group::Peer));
                    let station = &mut self.stations[n];
                    let parsed = Message::parse(&message).unwrap();
                    station.sent.push(parsed.body.message_type());
                    match parsed.body {
                        Body::Sync { .. } => station.syncs.push(now),
                        Body::FollowUp { precise_origin_timestamp: origin } => {
                            let information = FollowUpInformation::find(&parsed.tlvs).unwrap();
                            station.said.push((parsed.header, origin, information));
                        }
                        _ => {}
                    }
                    let down = n == 0 || on.0 == 1;
                    let to = if down { Some(n + 1) } else { n.checked_sub(1) };
                    let to = to.filter(|to| *to < self.stations.len());
                    if let Some(to) = to {
                        let port = usize::from(!down && to > 0);
                        let takes = if message[0] & 0x0f < 8 { WIRE_NS } else { SLOW_NS };
                        self.wire.push((now + takes, to, port, message.to_vec()));
                    }
                    if let Some(token) = token {
                        let stamp = stamp(local(now, self.stations[n].rate));
                        self.give(n, Some(Input::Sent { token, stamp }));
                    }
                }
                Command::Measured(measurement) => {
                    if let Observation::Sync(sync) = measurement.observation {
                        self.stations[n].measured.push(sync);
                    }
                }
                _ => {}
            }
        }
    }

    fn put(&mut self, n: usize, port: usize, bytes: &[u8]) {
        let now = local(self.now, self.stations[n].rate);
        let stamp = if bytes[0] & 0x0f < 8 { stamp(now) } else { None };
        let on = PortIndex(port as u16);
        self.give(n, Some(Input::Message { on, from: None, bytes, stamp }));
    }

    fn run(&mut self, seconds: f64) {
        let end = self.now + seconds * 1e9;
        loop {
            let due = self
                .stations
                .iter()
                .filter(|it| it.alive)
                .filter_map(|station| Some(truth(station.node.next_timeout()?, station.rate)));
            let arrivals = self.wire.iter().map(|(at, ..)| *at);
            let next = due.chain(arrivals).fold(f64::INFINITY, f64::min);
            if next > end {
                break;
            }
            self.now = self.now.max(next);
            let now = self.now;
            let (come, wait): (Vec<_>, Vec<_>) =
                core::mem::take(&mut self.wire).into_iter().partition(|(at, ..)| *at <= now);
            self.wire = wait;
            for (_, to, port, bytes) in come {
                if self.stations[to].alive {
                    self.put(to, port, &bytes);
                }
            }
            for n in 0..self.stations.len() {
                // Its own clock is a little behind what was computed back.
                let station = &self.stations[n];
                let due = station.node.next_timeout().map(|at| truth(at, station.rate));
                if station.alive && due.is_some_and(|due| due <= now) {
                    self.now = now + 0.01;
                    self.give(n, None);
                    self.now = now;
                }
            }
        }
        self.now = end;
    }

    fn lock(&mut self, n: usize, synchronization: Synchronization) {
        let station = &mut self.stations[n];
        station.node.set_synchronized(&mut station.commands, synchronization);
        self.carry(n);
    }

    /// What a station has measured of the grandmaster's time of late, off by so much at the most, nanoseconds.
    fn off(&self, n: usize) -> f64 {
        let of = |sync: &SyncObservation| {
            let left = truth(sync.t2.time, self.stations[n].rate) - WIRE_NS;
            let grandmaster = local(left, self.stations[0].rate).at_offset(Duration::ZERO);
            (sync.t1 - grandmaster).as_nanos_f64().abs()
        };
        let measured = &self.stations[n].measured;
        assert!(measured.len() >= 16, "{}", measured.len());
        measured[measured.len() - 16..].iter().map(of).fold(0.0, f64::max)
    }
}

/// A message with one extension of IEEE 802.1.
fn with_tlv(mut header: Header, body: Body, value: &[u8]) -> Vec<u8> {
    header.sdo_id = SDO_ID;
    let (mut bytes, mut buffer) = (vec![0; 128], [0; 64]);
    let mut tlvs = TlvBuilder::new(&mut buffer);
    tlvs.push(gptp::tlv(value)).unwrap();
    let length = Message { header, body, tlvs: tlvs.finish() }.emit(&mut bytes).unwrap();
    bytes.truncate(length);
    bytes
}

/// A neighbour asks for an interval of Sync.
fn ask(from: PortIdentity, time_sync: AskedInterval) -> Vec<u8> {
    let keep = AskedInterval::Keep;
    let value = IntervalRequest { link_delay: keep, time_sync, announce: keep, flags: 0 }.value();
    let body = Body::Signaling { target_port_identity: PortIdentity::ALL };
    with_tlv(Header::new(from, 1), body, &value)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, ..ProptestConfig::default() })]

    #[test]
    fn behind_three_relays_time_and_rate_are_the_grandmasters_whatever_the_rates_of_all_clocks(
        ppm in prop::collection::vec(-100.0..100.0_f64, 5),
    ) {
        let rates: Vec<f64> = ppm.iter().map(|ppm| 1.0 + ppm * 1e-6).collect();
        let mut line = Line::new(&rates, RelayTime::Residence, Rules::Ieee8021As);
        line.run(24.0);
        for n in 1..rates.len() {
            let station = &line.stations[n];
            let told = station.node.grandmaster_time().unwrap().rate_ratio;
            let ratio = rates[0] / rates[n];
            // Stamps have whole nanoseconds nowhere here, but what goes over the wire has 2^-16 and rates 2^-41.
            prop_assert!((told - ratio).abs() < 1e-10 * n as f64, "{n}: {told} {ratio}");
            prop_assert!(line.off(n) < 0.01 * n as f64, "{n}: {} ns", line.off(n));
        }
    }
}

#[test]
fn a_relay_keeps_the_origin_and_the_path_and_sends_a_sync_when_one_comes() {
    let mut line = Line::new(&[1.0; 4], RelayTime::Residence, Rules::Ieee8021As);
    line.run(12.0);
    let [grandmaster, _, last, _] = &line.stations[..] else { unreachable!() };
    assert_eq!(last.node.parent().unwrap().set.grandmaster_identity, identity(0));
    assert_eq!(last.node.steps_removed(), 2);
    assert_eq!(last.node.path().collect::<Vec<_>>(), [identity(0), identity(1)]);
    let origins: Vec<Timestamp> = grandmaster.said.iter().map(|(_, origin, _)| *origin).collect();
    let (header, origin, _) = last.said.last().unwrap();
    assert!(origins.contains(origin));
    // Two Follow_Up that were waited for, the wires among that.
    let passed = Duration::from(header.correction).as_nanos_f64();
    assert!((passed - 2.0 * SLOW_NS).abs() < 2.0, "{passed}");
    // A Sync left there that long behind each of the grandmaster's.
    let behind = last.syncs.last().unwrap() - 2.0 * SLOW_NS;
    assert!(grandmaster.syncs.iter().any(|at| (behind - at).abs() < 100.0), "{behind}");
    // Though no servo has locked anywhere.
    assert_eq!(last.node.port_state(PORT), PortState::Uncalibrated);
}

#[test]
fn a_neighbour_that_wants_fewer_sync_has_them_with_the_same_time() {
    let mut line = Line::new(&[1.0, 1.00005, 0.99995], RelayTime::Residence, Rules::Ieee8021As);
    line.run(8.0);
    let own = PortIdentity { clock_identity: identity(2), port_number: 1 };
    line.put(1, 1, &ask(own, AskedInterval::Log(-1)));
    let before = line.stations[2].measured.len();
    line.run(10.0);
    let since = line.stations[2].measured.len() - before;
    assert!((18..=22).contains(&since), "{since} in 10 s");
    // By the rate of one interval, which is known to 0.1 ppm.
    assert!(line.off(2) < 20.0, "{}", line.off(2));
}

#[test]
fn a_grandmaster_that_falls_silent_is_not_passed_on_and_the_next_one_has_another_time_base() {
    let mut line = Line::new(&[1.0; 3], RelayTime::Residence, Rules::Ieee8021As);
    line.run(8.0);
    line.stations[0].alive = false;
    let before = line.stations[1].syncs.len();
    line.run(0.2);
    let passed = line.stations[1].syncs.len() - before;
    assert!(passed <= 1, "{passed}");
    line.run(8.0);
    let [_, next, last] = &line.stations[..] else { unreachable!() };
    assert!(next.node.parent().is_none());
    let time = last.node.grandmaster_time().unwrap();
    assert_eq!(last.node.parent().unwrap().set.grandmaster_identity, identity(1));
    assert_eq!((time.time_base_indicator, time.last_phase_change), (1, Duration::ZERO));
}

#[test]
fn what_the_grandmaster_says_of_its_time_base_goes_through() {
    let mut line = Line::new(&[1.0; 3], RelayTime::Residence, Rules::Ieee8021As);
    line.run(6.0);
    line.stations[0].alive = false;
    line.wire.clear();
    let mut last_gm_phase_change = [0; 12];
    last_gm_phase_change[8] = 7;
    let information = FollowUpInformation {
        gm_time_base_indicator: 9,
        last_gm_phase_change,
        scaled_last_gm_freq_change: -5,
        ..FollowUpInformation::default()
    };
    let source = PortIdentity { clock_identity: identity(0), port_number: 1 };
    let sequence_id = line.stations[0].said.last().unwrap().0.sequence_id + 1;
    let mut header = Header::new(source, sequence_id);
    header.log_message_interval = -3;
    let follow_up = Body::FollowUp { precise_origin_timestamp: time(7, 5) };
    let follow_up = with_tlv(header, follow_up, &information.value());
    (header.sdo_id, header.flags) = (SDO_ID, Flags::TWO_STEP);
    line.put(1, 0, &wire(header, Body::Sync { origin_timestamp: Timestamp::ZERO }));
    line.put(1, 0, &follow_up);
    let (_, origin, told) = line.stations[1].said.last().unwrap();
    assert_eq!(*origin, time(7, 5));
    let rate = told.cumulative_scaled_rate_offset;
    let expected = FollowUpInformation { cumulative_scaled_rate_offset: rate, ..information };
    assert_eq!(*told, expected);
}

#[test]
fn a_relay_by_its_own_clock_keeps_the_origin_too_and_is_silent_until_it_has_locked() {
    let rates = [1.00002, 0.99999, 1.00003];
    let mut line = Line::new(&rates, RelayTime::Clock, Rules::Ieee8021As);
    for station in &mut line.stations[1..] {
        station.shows = Some(rates[0]);
    }
    line.run(6.0);
    assert!(line.stations[1].node.parent().is_some());
    line.stations[1].syncs.clear();
    line.stations[1].said.clear();
    line.run(2.0);
    assert!(line.stations[1].syncs.is_empty(), "not locked");
    line.lock(1, Synchronization::Locked);
    line.run(8.0);
    let origins: Vec<Timestamp> =
        line.stations[0].said.iter().map(|(_, origin, _)| *origin).collect();
    assert!(line.stations[1].said.iter().all(|(_, origin, _)| origins.contains(origin)));
    assert!(line.off(2) < 1.0, "{}", line.off(2));
    let told = line.stations[2].node.grandmaster_time().unwrap().rate_ratio;
    assert!((told - rates[0] / rates[2]).abs() < 1e-9, "{told}");
}

#[test]
fn where_roles_are_fixed_sync_is_followed_and_passed_on_and_nobody_announces_himself() {
    let mut line = Line::new(&[1.0, 1.00002, 1.0], RelayTime::Residence, Rules::Automotive);
    // From the first exchanges on: nobody waits for anybody.
    line.run(3.0);
    assert!(line.off(2) < 1.0, "{}", line.off(2));
    for station in &line.stations {
        assert!(!station.sent.contains(&MessageType::Announce));
        assert_eq!(station.node.counters(PORT).dropped(Drop::NotCapable), 0);
    }
    let parent = line.stations[2].node.parent().unwrap();
    assert_eq!(parent.set.parent_port_identity.clock_identity, identity(1));
    // Without the first there is no time, and the second does not make one of its own.
    line.stations[0].alive = false;
    line.run(1.0);
    let before = line.stations[1].syncs.len();
    line.run(4.0);
    assert_eq!(line.stations[1].syncs.len(), before);
    assert!(line.stations[1].node.parent().is_none() && line.stations[2].node.parent().is_none());
    assert_eq!(line.stations[2].node.port_state(PORT), PortState::Listening);
    line.stations[0].alive = true;
    line.run(1.0);
    assert!(line.stations[2].node.parent().is_some());
}

#[test]
fn an_announce_where_roles_are_fixed_is_not_heard() {
    let mut line = Line::new(&[1.0, 1.0], RelayTime::Residence, Rules::Automotive);
    line.run(2.0);
    let mut bytes = announce(GM, 1);
    bytes[0] |= 0x10;
    line.put(1, 0, &bytes);
    assert_eq!(line.stations[1].node.counters(PORT).dropped(Drop::NotForRole), 1);
    let parent = line.stations[1].node.parent().unwrap();
    assert_eq!(parent.set.grandmaster_identity, identity(0));
    assert!(Message::parse(&bytes).unwrap().tlvs.find(TlvType::PATH_TRACE).is_none());
}

#[test]
fn a_locked_clock_asks_for_fewer_sync_and_for_all_of_them_when_it_is_not_any_more() {
    let mut line = Line::new(&[1.0], RelayTime::Residence, Rules::Automotive);
    let mut port = port(Rules::Automotive);
    port.when_locked =
        Some(crate::config::LockedIntervals { log_sync_interval: 0, log_pdelay_req_interval: 2 });
    let config =
        ReceiverConfig { ports: vec![port], sdo_id: SDO_ID, ..ReceiverConfig::new(identity(1), 1) };
    let mut commands = Commands::default();
    let now = local(0.0, 1.0);
    let mut cx = Context { now, clock: &Monotonic::default(), out: &mut commands };
    let node = Node::new(Instance::client_only(config, &mut cx));
    line.add(node, commands, 1.0);
    let count = |line: &Line, n: usize, kind| {
        line.stations[n].sent.iter().filter(|sent| **sent == kind).count()
    };
    line.run(4.0);
    assert_eq!(count(&line, 1, MessageType::Signaling), 0);
    line.lock(1, Synchronization::Locked);
    line.run(1.0);
    let (syncs, asked) =
        (count(&line, 0, MessageType::Sync), count(&line, 1, MessageType::PdelayReq));
    line.run(16.0);
    assert_eq!(count(&line, 0, MessageType::Sync) - syncs, 16);
    assert_eq!(count(&line, 1, MessageType::PdelayReq) - asked, 4);
    assert_eq!(count(&line, 1, MessageType::Signaling), 1, "once is enough");
    assert!(line.stations[1].node.parent().is_some());
    // A grandmaster that has begun anew is asked again.
    let own = PortIdentity { clock_identity: identity(9), port_number: 1 };
    line.put(0, 0, &ask(own, AskedInterval::Initial));
    line.run(4.0);
    assert_eq!(count(&line, 1, MessageType::Signaling), 2);
    line.lock(1, Synchronization::Unlocked);
    line.run(1.0);
    let syncs = count(&line, 0, MessageType::Sync);
    line.run(4.0);
    assert_eq!(count(&line, 0, MessageType::Sync) - syncs, 32);
    assert_eq!(count(&line, 1, MessageType::Signaling), 3);
}
