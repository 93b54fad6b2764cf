//! Unicast negotiation: a server and a client that are told anything by anybody at any time. The tables stay within
//! their limits, what is granted is within what may be granted, an answer is hardly longer than its request, and
//! `next_timeout` never lies behind `now`.
use std::net::SocketAddr;

use ptp_common::{
    time::{Duration, Mono, Time},
    wire::{
        Body, ClockIdentity, Flags, Header, Message, MessageType, Negotiation, PortIdentity,
        TlvBuilder, Tlvs,
    },
};
use ptp_engine::{
    Command, Commands, Context, Datagram, Engine, Input, Monotonic, NoEvent, PortIndex,
    address::Address,
    config::{PortConfig, ReceiverConfig, TransmitterConfig},
    instance::Instance,
    node::Node,
    unicast::{client::ClientConfig, service::ServiceConfig},
};

const OWN: ClockIdentity = ClockIdentity([9; 8]);
const CLIENTS: u32 = 16;
const PORT: PortIndex = PortIndex(0);

fn address(host: u8) -> Address {
    Address::Socket(SocketAddr::from(([192, 0, 2, host], 320)))
}

fn node(now: Time<Mono>, out: &mut Commands<NoEvent>) -> Node {
    let mut cx = Context { now, clock: &Monotonic::default(), out };
    let service = ServiceConfig { max_clients: CLIENTS, ..ServiceConfig::default() };
    let transmitter = TransmitterConfig {
        unicast: Some(service),
        multicast: false,
        ..TransmitterConfig::new(OWN)
    };
    let mut server = Instance::server_only(transmitter, &mut cx);
    server.set_networks(vec!["192.0.2.0/25".parse().expect("a prefix")]);
    let port = PortConfig { unicast: Some(ClientConfig::new(2)), ..PortConfig::default() };
    let receiver =
        ReceiverConfig { domain_number: 1, ports: vec![port], ..ReceiverConfig::new(OWN, 1) };
    let mut client = Instance::client_only(receiver, &mut cx);
    client.set_partner(&mut cx, PORT, 0, Some(address(1)));
    client.set_partner(&mut cx, PORT, 1, Some(address(2)));
    Node::new(server).with(client)
}

/// A TLV as it would be sent, or one of any bytes.
fn said(what: u8, [kind, log, a, b]: [u8; 4]) -> Negotiation {
    let (message_type, log_interval) = (kind & 0xf, log.cast_signed());
    let duration_s = u32::from(a) << (b & 31);
    match what & 3 {
        0 => Negotiation::Request { message_type, log_interval, duration_s },
        1 => {
            let invites_renewal = b & 1 != 0;
            Negotiation::Grant { message_type, log_interval, duration_s, invites_renewal }
        }
        2 => Negotiation::Cancel { message_type, flags: b & 3 },
        _ => Negotiation::Acknowledge { message_type, flags: b & 3 },
    }
}

/// See the module's paragraph.
///
/// # Panics
/// If what must hold does not.
pub fn run(input: &[u8]) {
    // Any bytes at all are TLVs or are not.
    if let Ok(tlvs) = Tlvs::new(input) {
        for said in tlvs.iter().filter_map(|tlv| Negotiation::of(&tlv)).flatten() {
            let mut buffer = [0; 16];
            said.push(&mut TlvBuilder::new(&mut buffer)).expect("room for any of them");
        }
    }
    let mut now: Time<Mono> = Time::from_nanos(1_000_000_000);
    let mut commands = Commands::default();
    let mut node = node(now, &mut commands);
    let mut rest = input;
    // What, from whom, how long after the last one, and four bytes of it.
    while let Some(([what, who, step, kind, log, a, b], more)) = rest.split_first_chunk() {
        rest = more;
        now += Duration::from_nanos(1i64 << (step % 38));
        let said = said(*what, [*kind, *log, *a, *b]);
        let source = PortIdentity { clock_identity: ClockIdentity([*who >> 2; 8]), port_number: 1 };
        let mut header = Header::new(source, 1);
        (header.flags, header.domain_number) = (Flags::UNICAST, *what >> 7);
        let mut buffer = [0; 16];
        let mut tlvs = TlvBuilder::new(&mut buffer);
        said.push(&mut tlvs).expect("room for any of them");
        let target = PortIdentity { clock_identity: ClockIdentity([0xff; 8]), port_number: 0xffff };
        let body = Body::Signaling { target_port_identity: target };
        let message = Datagram::with_tlvs(header, body, tlvs.finish()).expect("room for it");
        let clock = &Monotonic::default();
        let mut cx = Context { now, clock, out: &mut commands };
        node.handle_timeout(&mut cx);
        while cx.out.pop().is_some() {}
        let input =
            Input::Message { on: PORT, from: Some(address(*who)), bytes: &message, stamp: None };
        node.handle(&mut cx, input);
        while let Some(command) = commands.pop() {
            let Command::Send(transmit) = command else { continue };
            let sent = Message::parse(&transmit.message).expect("whole messages");
            assert!(sent.header.flags.contains(Flags::UNICAST));
            if sent.message_type() == MessageType::Signaling && *what >> 7 == 0 {
                assert!(transmit.message.len() <= message.len() + 2, "an answer is no amplifier");
            }
            for grant in sent.tlvs.iter().filter_map(|tlv| Negotiation::of(&tlv)).flatten() {
                if let Negotiation::Grant { duration_s, log_interval, .. } = grant {
                    assert!(duration_s <= 1_000);
                    assert!(duration_s == 0 || (-7..=6).contains(&log_interval));
                }
            }
        }
        let service = node.service().expect("it serves");
        assert!(service.clients() <= CLIENTS as usize);
        assert!(node.next_timeout().is_none_or(|at| at >= now), "a timeout behind the present");
    }
}
