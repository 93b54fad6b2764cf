//! What management does to a node while it runs, and who monitors it.

use super::*;
use crate::{
    Context, Engine, Input, Monotonic, address::Address, contention::Contention,
    instance::Instance, node::Node, prefix::Prefix, prelude::*, seam::Commands,
};
use core::net::IpAddr;
use ptp_common::wire::{NetSyncResponse, Tlv, TlvBuilder, TlvType};

/// A node of its own, with what it has said.
struct Managed {
    node: Node,
    commands: Commands<NoEvent>,
}

impl Managed {
    fn new(make: impl FnOnce(&mut Context<'_, NoEvent>) -> Node) -> Self {
        let mut commands = Commands::default();
        let clock = &Monotonic::default();
        let mut cx = Context { now: at(0), clock, out: &mut commands };
        let node = make(&mut cx);
        Self { node, commands }
    }

    fn client() -> Self {
        Self::new(|cx| Node::client_only(ReceiverConfig::new(OWN, 7), cx))
    }

    fn server() -> Self {
        Self::new(|cx| Node::server_only(TransmitterConfig::new(OWN), cx))
    }

    fn with(&mut self, millis: i64, then: impl FnOnce(&mut Node, &mut Context<'_, NoEvent>)) {
        let clock = &Monotonic(Duration::from_secs(1_000));
        let mut cx = Context { now: at(millis), clock, out: &mut self.commands };
        then(&mut self.node, &mut cx);
    }

    /// What was said since, of messages.
    fn sent(&mut self) -> Vec<Transmit> {
        let mut sent = Vec::new();
        while let Some(command) = self.commands.pop() {
            if let Command::Send(transmit) = command {
                sent.push(transmit);
            }
        }
        sent
    }

    fn poll(&mut self, millis: i64) -> Vec<Transmit> {
        self.with(millis, |node, cx| node.handle_timeout(cx));
        self.sent()
    }

    fn ask(&mut self, millis: i64, from: Address, bytes: &[u8]) -> Vec<Transmit> {
        self.with(millis, |node, cx| {
            let stamp = stamp(at(millis));
            node.handle(cx, Input::Message { on: PORT, from: Some(from), bytes, stamp });
        });
        self.sent()
    }

    fn monitored_from(&mut self, network: [u8; 4]) {
        let prefix = Prefix::of(IpAddr::from(network), IpAddr::from([255, 255, 255, 0]));
        let own = Some(address([10, 0, 0, 1]));
        self.node.set_monitored(at(0), Some(prefix.into_iter().collect()), vec![own]);
    }
}

fn address(octets: [u8; 4]) -> Address {
    Address::Socket((octets, 319).into())
}

/// The request of a NetSync Monitor.
fn monitor(sequence_id: u16) -> Vec<u8> {
    let mut header = Header::new(GM, sequence_id);
    header.flags = Flags::UNICAST;
    let mut buffer = [0; 8];
    let mut tlvs = TlvBuilder::new(&mut buffer);
    tlvs.push(Tlv { kind: NetSyncResponse::REQUEST, value: &[] }).unwrap();
    let body = Body::DelayReq { origin_timestamp: Timestamp::ZERO };
    let mut bytes = vec![0; 64];
    let length = Message { header, body, tlvs: tlvs.finish() }.emit(&mut bytes).unwrap();
    bytes.truncate(length);
    bytes
}

#[test]
fn a_port_that_is_disabled_stays_so_whatever_its_link_does() {
    let mut managed = Managed::server();
    assert!(!managed.poll(0).is_empty());
    managed.with(10, |node, cx| node.enable_port(cx, PORT, false));
    assert_eq!(managed.node.port_state(PORT), PortState::Disabled);
    for state in [LinkState::Down, LinkState::Up] {
        managed.with(20, |node, cx| node.handle(cx, Input::Link { on: PORT, state }));
        assert_eq!(managed.node.port_state(PORT), PortState::Disabled);
    }
    assert!(managed.poll(10_000).is_empty());
    // It is the link that keeps it down now.
    let down = Input::Link { on: PORT, state: LinkState::Down };
    managed.with(10_001, |node, cx| node.handle(cx, down));
    managed.with(10_002, |node, cx| node.enable_port(cx, PORT, true));
    assert_eq!(managed.node.port_state(PORT), PortState::Disabled);
    let up = Input::Link { on: PORT, state: LinkState::Up };
    managed.with(10_003, |node, cx| node.handle(cx, up));
    assert_eq!(managed.node.port_state(PORT), PortState::TimeTransmitter);
}

#[test]
fn intervals_of_a_port_hold_from_the_next_message_on() {
    let mut managed = Managed::server();
    managed.poll(0);
    managed.node.set_log_sync_interval(at(1), PORT, -3);
    managed.node.set_log_announce_interval(at(1), PORT, -1);
    let (mut syncs, mut announces) = (0, 0);
    for millis in (10..=2_010).step_by(10) {
        for transmit in managed.poll(millis) {
            let message = Message::parse(&transmit.message).unwrap();
            match message.message_type() {
                MessageType::Sync => {
                    syncs += 1;
                    assert_eq!(message.header.log_message_interval, -3);
                }
                MessageType::Announce => announces += 1,
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!((syncs, announces), (16, 4));
}

#[test]
fn what_a_grandmaster_is_told_to_say_holds_whatever_its_clock_says() {
    let mut managed = Managed::server();
    let quality = ClockQuality { clock_class: 6, ..managed.node.config().clock_quality };
    let properties = ptp_common::data_set::TimeProperties::told(
        37,
        Flags::PTP_TIMESCALE | Flags::TIME_TRACEABLE,
        TimeSource::GNSS,
    );
    managed.node.set_grandmaster(quality, properties);
    managed.node.set_time_properties(ptp_common::data_set::TimeProperties::UNKNOWN);
    managed.node.set_uncertain(true);
    managed.node.set_external_grandmaster(Some((GM.clock_identity, 3)));
    let sent = managed.poll(0);
    let announced = sent.iter().find_map(|transmit| {
        let message = Message::parse(&transmit.message).unwrap();
        match message.body {
            Body::Announce(announce) => Some((message.header.flags, announce)),
            _ => None,
        }
    });
    let (flags, announce) = announced.unwrap();
    assert_eq!(announce.grandmaster_clock_quality.clock_class, 6);
    assert_eq!((announce.grandmaster_identity, announce.steps_removed), (GM.clock_identity, 3));
    assert_eq!(announce.time_source, TimeSource::GNSS);
    for flag in [Flags::PTP_TIMESCALE, Flags::TIME_TRACEABLE, Flags::SYNCHRONIZATION_UNCERTAIN] {
        assert!(flags.contains(flag), "{flags:?}");
    }
}

#[test]
fn a_better_priority_by_management_makes_a_passive_port_serve() {
    let mut managed = Managed::new(|cx| {
        let config = ReceiverConfig::new(OWN, 9);
        let contention = Contention::new(TransmitterConfig::new(OWN));
        Node::new(Instance::either(config, contention, cx))
    });
    for n in 1..4 {
        let announce = announce(GM, n);
        managed.ask(i64::from(n) * 500, address([10, 0, 0, 9]), &announce);
    }
    assert_eq!(managed.node.port_state(PORT), PortState::Uncalibrated);
    managed.node.set_priorities(1, 128);
    managed.poll(2_000);
    assert_eq!(managed.node.port_state(PORT), PortState::TimeTransmitter);
}

#[test]
fn a_monitor_is_answered_by_a_clock_in_any_role_with_three_messages() {
    for mut managed in [Managed::client(), Managed::server()] {
        managed.poll(0);
        managed.monitored_from([10, 0, 0, 0]);
        let from = address([10, 0, 0, 7]);
        let sent = managed.ask(5, from, &monitor(77));
        assert_eq!(sent.len(), 2);
        assert!(sent.iter().all(|each| each.to == Destination::Unicast(from)));
        let answer = Message::parse(&sent[0].message).unwrap();
        assert_eq!(
            (answer.message_type(), answer.header.sequence_id),
            (MessageType::DelayResp, 77)
        );
        assert!(answer.header.flags.contains(Flags::UNICAST));
        let value = answer.tlvs.find(TlvType::PTPMON_RESP).unwrap();
        let response = NetSyncResponse::read(value).unwrap();
        assert_eq!(response.port_state, managed.node.port_state(PORT).number());
        assert_eq!(response.parent_address.address, [10, 0, 0, 1]);
        let token = sent[1].token.unwrap();
        managed.with(6, |node, cx| node.handle(cx, Input::Sent { token, stamp: stamp(at(6)) }));
        let sent = managed.sent();
        let follow_up = Message::parse(&sent[0].message).unwrap();
        assert_eq!(follow_up.header.sequence_id, 77);
        let Body::FollowUp { precise_origin_timestamp } = follow_up.body else { panic!() };
        // The clock that is served shows 1000 s more than the monotonic one.
        assert_eq!(precise_origin_timestamp, time(1_001, 6_000_000));
    }
}

#[test]
fn nobody_monitors_unasked_nor_from_elsewhere_nor_without_end() {
    let mut managed = Managed::client();
    let near = address([10, 0, 0, 7]);
    assert!(managed.ask(1, near, &monitor(1)).is_empty());
    managed.monitored_from([10, 0, 0, 0]);
    assert!(managed.ask(2, address([192, 0, 2, 1]), &monitor(2)).is_empty());
    assert_eq!(managed.node.counters(PORT).dropped(Drop::WouldAmplify), 1);
    let answered = (0..1_000).filter(|n| !managed.ask(3, near, &monitor(*n)).is_empty()).count();
    assert!((1..=100).contains(&answered), "{answered}");
    assert!(managed.node.counters(PORT).dropped(Drop::RateLimited) >= 900);
    managed.node.set_monitored(at(4), None, Vec::new());
    assert!(managed.ask(9_000, near, &monitor(3)).is_empty());
}
