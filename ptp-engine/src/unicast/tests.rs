//! Clients and servers that negotiate in virtual time.

mod absurd;
mod tables;

use core::net::{IpAddr, SocketAddr};

use ptp_common::{
    time::{Duration, Mono, Time},
    wire::{
        Body, ClockIdentity, Flags, Granted, Header, MAINTAIN_GRANT, Message, MessageType,
        MessageView, Negotiation, PortIdentity, TlvBuilder,
    },
};

use super::{
    client::ClientConfig,
    service::{ServiceConfig, Verdict},
};
use crate::{
    Change, Command, Commands, Context, Datagram, Destination, Driven, Engine, Input, LinkState,
    Monotonic, PortIndex, PortState,
    address::Address,
    config::{PortConfig, ReceiverConfig, TransmitterConfig},
    counters::Drop,
    node::Node,
    outcome::Observation,
    prefix::Prefix,
    prelude::*,
    stamp::{Stamp, StampSource},
};

const PORT: PortIndex = PortIndex(0);

fn at(seconds: f64) -> Time<Mono> {
    Time::ZERO + Duration::from_secs(1_000) + Duration::from_nanos_f64(seconds * 1e9)
}

fn address(host: u8) -> Address {
    Address::Socket(SocketAddr::new(IpAddr::from([192, 0, 2, host]), 320))
}

fn networks() -> Vec<Prefix> {
    vec!["192.0.2.0/24".parse().unwrap()]
}

fn identity(host: u8) -> ClockIdentity {
    ClockIdentity([0, 0, 0, 0xff, 0xfe, 0, 0, host])
}

/// Hosts with instances that hear each other by address alone. Time is the same for all.
struct World {
    now: Time<Mono>,
    hosts: Vec<(u8, Driven<Node>)>,
    /// Who says nothing of which kind.
    muted: Vec<(u8, MessageType)>,
    syncs: usize,
    delays: usize,
    changes: Vec<Change>,
    sent: Vec<(f64, u8, MessageType)>,
}

impl World {
    fn new() -> Self {
        Self {
            now: at(0.0),
            hosts: Vec::new(),
            muted: Vec::new(),
            syncs: 0,
            delays: 0,
            changes: Vec::new(),
            sent: Vec::new(),
        }
    }

    fn add(&mut self, host: u8, make: impl FnOnce(&mut Context<'_, crate::NoEvent>) -> Node) {
        let mut commands = Commands::default();
        let clock = &Monotonic::default();
        let instance = make(&mut Context { now: self.now, clock, out: &mut commands });
        self.hosts.push((host, Driven::new_with(instance, commands)));
    }

    fn server(&mut self, host: u8, priority1: u8, service: ServiceConfig) {
        let config = TransmitterConfig {
            priority1,
            unicast: Some(service),
            multicast: false,
            seed: host.into(),
            ..TransmitterConfig::new(identity(host))
        };
        self.add(host, |cx| Node::server_only(config, cx));
        self.instance(host).set_networks(networks());
    }

    /// A client of the servers, number 9.
    fn client(&mut self, config: ClientConfig, servers: &[u8]) {
        let port = PortConfig {
            log_announce_interval: config.log_intervals[0],
            log_min_delay_req_interval: config.log_intervals[2],
            unicast: Some(config),
            ..PortConfig::default()
        };
        let config = ReceiverConfig { ports: vec![port], ..ReceiverConfig::new(identity(9), 9) };
        self.add(9, |cx| Node::client_only(config, cx));
        for (number, server) in servers.iter().enumerate() {
            self.point(number as u16, Some(*server));
        }
    }

    fn point(&mut self, number: u16, server: Option<u8>) {
        let now = self.now;
        let client = self.hosts.iter_mut().find(|(host, _)| *host == 9).unwrap();
        client.1.with(|instance, out| {
            let mut cx = Context { now, clock: &Monotonic::default(), out };
            instance.set_partner(&mut cx, PORT, number, server.map(address));
        });
    }

    fn instance(&mut self, host: u8) -> &mut Driven<Node> {
        &mut self.hosts.iter_mut().find(|(each, _)| *each == host).unwrap().1
    }

    fn states(&mut self) -> Vec<&'static str> {
        let now = self.now;
        self.instance(9).partners(PORT, now).iter().map(|each| each.state).collect()
    }

    fn followed(&mut self) -> Option<ClockIdentity> {
        let parent = self.instance(9).parent().copied();
        parent.map(|parent| parent.set.parent_port_identity.clock_identity)
    }

    fn give(&mut self, to: u8, from: u8, bytes: &[u8]) {
        let now = self.now;
        let stamp = Some(Stamp::new(now, StampSource::Simulated));
        let Some((_, host)) = self.hosts.iter_mut().find(|(host, _)| *host == to) else { return };
        let input = Input::Message { on: PORT, from: Some(address(from)), bytes, stamp };
        host.handle(now, &Monotonic::default(), input);
    }

    /// Until nobody has anything to say.
    fn settle(&mut self) {
        loop {
            let mut said = Vec::new();
            for (host, engine) in &mut self.hosts {
                while let Some(command) = engine.next_command() {
                    said.push((*host, command));
                }
            }
            if said.is_empty() {
                return;
            }
            for (from, command) in said {
                match command {
                    Command::Send(transmit) => {
                        let kind = MessageView::new(&transmit.message).unwrap().message_type();
                        let Destination::Unicast(Address::Socket(to)) = transmit.to else {
                            panic!("{kind:?} to all")
                        };
                        let flags = MessageView::new(&transmit.message).unwrap().header().flags;
                        assert!(flags.contains(Flags::UNICAST), "{kind:?}");
                        let IpAddr::V4(ip) = to.ip() else { unreachable!() };
                        let (now, seconds) = (self.now, (self.now - at(0.0)).as_secs_f64());
                        self.sent.push((seconds, from, kind));
                        if let Some(token) = transmit.token {
                            let stamp = Some(Stamp::new(now, StampSource::Simulated));
                            self.instance(from).handle_tx_stamp(now, token, stamp);
                        }
                        if !self.muted.contains(&(from, kind)) {
                            self.give(ip.octets()[3], from, &transmit.message);
                        }
                    }
                    Command::Measured(measurement) => match measurement.observation {
                        Observation::Sync(sync) => {
                            assert_eq!(sync.t1.as_nanos(), sync.t2.time.as_nanos());
                            self.syncs += 1;
                        }
                        Observation::Delay(_) => self.delays += 1,
                        Observation::PeerDelay(_) | Observation::LinkTold(_) => {}
                    },
                    Command::Changed(change) => self.changes.push(change),
                    _ => {}
                }
            }
        }
    }

    fn run(&mut self, seconds: f64) {
        let end = self.now + Duration::from_nanos_f64(seconds * 1e9);
        self.settle();
        loop {
            let next = self.hosts.iter().filter_map(|(_, engine)| engine.next_wakeup()).min();
            let Some(next) = next.filter(|at| *at <= end) else { break };
            self.now = self.now.max(next);
            for at in 0..self.hosts.len() {
                let now = self.now;
                self.hosts[at].1.poll(now);
            }
            self.settle();
        }
        self.now = end;
    }

    fn sent(&self, from: u8, kind: MessageType) -> usize {
        self.sent.iter().filter(|(_, host, each)| (*host, *each) == (from, kind)).count()
    }
}

fn fast() -> ClientConfig {
    ClientConfig { log_intervals: [0, -3, -3], duration_s: 20, ..ClientConfig::new(2) }
}

#[test]
fn client_is_granted_what_it_needs_and_measures_both_ways() {
    let mut world = World::new();
    world.server(1, 128, ServiceConfig::default());
    world.client(ClientConfig { partners: 1, ..fast() }, &[1]);
    world.run(12.0);
    assert_eq!(world.followed(), Some(identity(1)));
    assert_eq!(world.states(), ["followed"]);
    // Eight a second from the third second on.
    assert!((60..=96).contains(&world.syncs), "{}", world.syncs);
    assert!((40..=140).contains(&world.delays), "{}", world.delays);
    let service = world.instance(1).service().unwrap();
    assert_eq!((service.clients(), service.grants()), (1, [1, 1, 1]));
}

#[test]
fn grants_are_renewed_before_they_end_and_nothing_is_missed() {
    let mut world = World::new();
    world.server(1, 128, ServiceConfig::default());
    world.client(ClientConfig { partners: 1, ..fast() }, &[1]);
    world.run(12.0);
    let before = world.syncs;
    world.run(100.0);
    assert!((world.syncs - before).abs_diff(800) <= 8, "{}", world.syncs - before);
    let counts: Vec<_> = world.instance(1).service().unwrap().counts().collect();
    let of = |verdict| counts.iter().find(|(each, _)| *each == verdict).unwrap().1;
    assert_eq!(of(Verdict::Granted), 3);
    assert!(of(Verdict::Renewed) >= 18 && of(Verdict::Renewed) <= 30, "{}", of(Verdict::Renewed));
    assert_eq!(of(Verdict::Expired), 0);
}

#[test]
fn better_server_is_followed_and_the_other_one_takes_over_when_it_dies() {
    let mut world = World::new();
    world.server(1, 128, ServiceConfig::default());
    world.server(2, 127, ServiceConfig::default());
    world.client(fast(), &[1, 2]);
    world.run(10.0);
    assert_eq!(world.followed(), Some(identity(2)));
    assert_eq!(world.states(), ["announced", "followed"]);
    // Of one server Announce alone is wanted.
    assert_eq!(world.instance(1).service().unwrap().grants(), [1, 0, 0]);
    world.hosts.retain(|(host, _)| *host != 2);
    let before = world.syncs;
    world.run(8.0);
    assert_eq!(world.followed(), Some(identity(1)));
    assert!(world.syncs > before + 16, "{}", world.syncs - before);
    // Its grants end by themselves, although nobody has cancelled them.
    world.run(30.0);
    assert_eq!(world.states()[0], "followed");
    assert!(["asked", "unanswered"].contains(&world.states()[1]), "{:?}", world.states());
}

#[test]
fn server_that_goes_takes_back_its_grants_and_the_other_one_is_followed_at_once() {
    let mut world = World::new();
    world.server(1, 128, ServiceConfig::default());
    world.server(2, 127, ServiceConfig::default());
    world.client(fast(), &[1, 2]);
    world.run(10.0);
    let now = world.now;
    world.instance(2).with(|instance, out| {
        let mut cx = Context { now, clock: &Monotonic::default(), out };
        assert!(!instance.end_unicast(&mut cx));
    });
    world.settle();
    assert_eq!(world.followed(), Some(identity(1)));
    assert_eq!(world.instance(2).service().unwrap().clients(), 0);
    world.hosts.retain(|(host, _)| *host != 2);
    let before = world.syncs;
    world.run(1.0);
    assert!(world.syncs >= before + 6, "{}", world.syncs - before);
}

#[test]
fn who_grants_and_sends_no_sync_is_left_for_another_one() {
    let mut world = World::new();
    world.server(1, 128, ServiceConfig::default());
    world.server(2, 127, ServiceConfig::default());
    world.client(fast(), &[1, 2]);
    world.muted = vec![(2, MessageType::Sync), (2, MessageType::FollowUp)];
    world.run(10.0);
    assert_eq!(world.followed(), Some(identity(1)));
    assert_eq!(world.states(), ["followed", "silent"]);
    assert!(world.syncs > 20);
    // It is tried again now and then, and followed when it is in order.
    world.muted.clear();
    world.run(60.0);
    assert_eq!(world.followed(), Some(identity(2)));
}

/// In the server's name and from its address, as often as he likes: he cannot be told from it, and what he takes away
/// is asked for again, neither ever more slowly nor ever more often.
#[test]
fn false_cancellations_cost_a_request_each_and_are_over_when_they_end() {
    for every_s in [0.01, 1.0, 5.0] {
        let mut world = World::new();
        world.server(1, 128, ServiceConfig::default());
        world.client(ClientConfig { partners: 1, ..fast() }, &[1]);
        world.run(12.0);
        let (begun, asked) = (world.syncs, world.sent(9, MessageType::Signaling));
        let source = PortIdentity { clock_identity: identity(1), port_number: 1 };
        for _ in 0..(60.0 / every_s) as u32 {
            for message_type in [0xb, 0x0, 0x9] {
                let said = Negotiation::Cancel { message_type, flags: MAINTAIN_GRANT };
                world.give(9, 1, &signaling(source, said));
            }
            world.run(every_s);
        }
        let asked = world.sent(9, MessageType::Signaling) - asked;
        let heard = world.syncs - begun;
        assert!(asked < 60 * 8, "{every_s}: {asked}");
        assert!(heard > 440, "{every_s}: {heard}");
        let before = world.syncs;
        world.run(20.0);
        assert_eq!(world.followed(), Some(identity(1)), "{every_s}");
        assert!(world.syncs - before > 80, "{every_s}: {heard}, then {}", world.syncs - before);
    }
}

#[test]
fn only_server_is_followed_though_it_is_silent() {
    let mut world = World::new();
    world.server(1, 128, ServiceConfig::default());
    world.client(ClientConfig { partners: 1, ..fast() }, &[1]);
    world.muted = vec![(1, MessageType::Sync)];
    world.run(10.0);
    assert_eq!(world.followed(), Some(identity(1)));
}

#[test]
fn refusal_is_followed_by_slower_requests_until_one_is_granted() {
    let mut world = World::new();
    let service = ServiceConfig { log_fastest: [1, -2, 0], ..ServiceConfig::default() };
    world.server(1, 128, service);
    world.client(ClientConfig { partners: 1, ..fast() }, &[1]);
    world.run(60.0);
    let now = world.now;
    let status = &world.instance(9).partners(PORT, now)[0];
    let intervals = status.grants.map(|grant| grant.map(|(log, _)| log));
    assert_eq!(intervals, [Some(1), Some(-2), Some(0)]);
    assert!(world.instance(9).counters(PORT).dropped(Drop::Denied) >= 3);
}

#[test]
fn who_never_answers_is_asked_less_and_less_often() {
    let mut world = World::new();
    world.client(ClientConfig { partners: 1, ..fast() }, &[1]);
    world.run(600.0);
    let asked = world.sent(9, MessageType::Signaling);
    assert!((10..=20).contains(&asked), "{asked}");
    assert_eq!(world.states(), ["unanswered"]);
}

#[test]
fn address_that_changes_is_negotiated_with_anew() {
    let mut world = World::new();
    world.server(1, 128, ServiceConfig::default());
    world.server(2, 127, ServiceConfig::default());
    world.client(ClientConfig { partners: 1, ..fast() }, &[1]);
    world.run(10.0);
    world.point(0, Some(2));
    world.run(10.0);
    assert_eq!(world.followed(), Some(identity(2)));
    // The old one was told.
    assert_eq!(world.instance(1).service().unwrap().clients(), 0);
    world.point(0, None);
    world.settle();
    assert_eq!(world.followed(), None);
    assert_eq!(world.states(), ["unresolved"]);
    assert_eq!(world.instance(9).port_state(PORT), PortState::Listening);
}

#[test]
fn two_servers_of_one_identity_are_not_mixed_up() {
    let mut world = World::new();
    world.server(1, 128, ServiceConfig::default());
    let twin = TransmitterConfig {
        unicast: Some(ServiceConfig::default()),
        multicast: false,
        ..TransmitterConfig::new(identity(1))
    };
    world.add(2, |cx| Node::server_only(twin, cx));
    world.instance(2).set_networks(networks());
    world.client(fast(), &[1, 2]);
    world.run(10.0);
    assert_eq!(world.states(), ["followed", "duplicate_identity"]);
    assert!(world.instance(9).counters(PORT).dropped(Drop::DuplicateIdentity) > 0);
}

#[test]
fn what_comes_from_an_address_that_was_not_asked_is_dropped() {
    let mut world = World::new();
    world.server(1, 128, ServiceConfig::default());
    world.client(ClientConfig { partners: 1, ..fast() }, &[1]);
    world.run(10.0);
    let source = PortIdentity { clock_identity: identity(1), port_number: 1 };
    let mut header = Header::new(source, 7);
    header.flags = Flags::UNICAST;
    let sync = Datagram::new(header, Body::Sync { origin_timestamp: at(3.0).into_stamp() });
    let before = world.syncs;
    world.give(9, 66, &sync);
    world.settle();
    assert_eq!(world.syncs, before);
    assert_eq!(world.instance(9).counters(PORT).dropped(Drop::NotAsked), 1);
    // Nor does a grant or a cancellation from there change anything.
    for said in [
        Negotiation::Cancel { message_type: 0xb, flags: 2 },
        Negotiation::Grant {
            message_type: 0xb,
            log_interval: -7,
            duration_s: u32::MAX,
            invites_renewal: true,
        },
    ] {
        let message = signaling(source, said);
        world.give(9, 66, &message);
        world.settle();
    }
    assert_eq!(world.states(), ["followed"]);
}

fn signaling(source: PortIdentity, said: Negotiation) -> Datagram {
    let mut buffer = [0; 64];
    let mut tlvs = TlvBuilder::new(&mut buffer);
    said.push(&mut tlvs).unwrap();
    let everybody = PortIdentity { clock_identity: ClockIdentity([0xff; 8]), port_number: 0xffff };
    let mut header = Header::new(source, 1);
    header.flags = Flags::UNICAST;
    let body = Body::Signaling { target_port_identity: everybody };
    Datagram::with_tlvs(header, body, tlvs.finish()).unwrap()
}

#[test]
fn absurd_grants_are_no_grants() {
    let mut world = World::new();
    world.client(ClientConfig { partners: 1, ..fast() }, &[1]);
    world.settle();
    let source = PortIdentity { clock_identity: identity(1), port_number: 1 };
    for (message_type, log_interval, duration_s) in
        [(0xb, -128, 300), (0xb, 127, 300), (0xb, 22, u32::MAX), (0x7, 0, 300), (0xb, 0, 0)]
    {
        world.run(130.0);
        let said =
            Negotiation::Grant { message_type, log_interval, duration_s, invites_renewal: false };
        world.give(9, 1, &signaling(source, said));
        world.settle();
        assert!(["asked", "refused", "unanswered"].contains(&world.states()[0]), "{log_interval}");
    }
    // For ever is as long as was asked for.
    world.run(130.0);
    let said = Negotiation::Grant {
        message_type: 0xb,
        log_interval: 0,
        duration_s: u32::MAX,
        invites_renewal: false,
    };
    world.give(9, 1, &signaling(source, said));
    let now = world.now;
    let granted = world.instance(9).partners(PORT, now)[0].grants[0].unwrap();
    assert!(granted.1 <= Duration::from_secs(20));
}

#[test]
fn link_that_was_down_is_negotiated_over_anew() {
    let mut world = World::new();
    world.server(1, 128, ServiceConfig::default());
    world.client(ClientConfig { partners: 1, ..fast() }, &[1]);
    world.run(10.0);
    let now = world.now;
    world.instance(9).handle_link(now, PORT, LinkState::Down);
    world.settle();
    assert_eq!(world.followed(), None);
    world.run(5.0);
    let now = world.now;
    world.instance(9).handle_link(now, PORT, LinkState::Up);
    world.run(10.0);
    assert_eq!(world.followed(), Some(identity(1)));
}

trait IntoStamp {
    fn into_stamp(self) -> ptp_common::wire::Timestamp;
}

impl IntoStamp for Time<Mono> {
    fn into_stamp(self) -> ptp_common::wire::Timestamp {
        ptp_common::wire::Timestamp::from_time(self.at_offset(Duration::ZERO)).0
    }
}

#[test]
fn what_is_sent_to_one_alone_says_so_and_has_no_interval() {
    let mut world = World::new();
    world.server(1, 128, ServiceConfig::default());
    world.client(ClientConfig { partners: 1, ..fast() }, &[1]);
    world.run(1.0);
    let now = world.now;
    let server = world.instance(1);
    server.poll(now + Duration::from_secs(1));
    let mut seen = 0;
    while let Some(command) = server.next_command() {
        let Command::Send(transmit) = command else { continue };
        let message = Message::parse(&transmit.message).unwrap();
        assert_eq!(message.header.log_message_interval, 0x7f);
        seen += 1;
    }
    assert!(seen > 0);
    assert!(server.next_timeout().is_some());
}
