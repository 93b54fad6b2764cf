//! A node with a client, a server and a clock of either role in three domains, fed with anything: it stays bounded, its ports stay in legal
//! states, and its timers never lie behind. The fuzz target of the same name feeds it more of it.

use super::*;
use crate::{
    Context, Engine, Input, Monotonic, config::Rules, contention::Contention, instance::Instance,
    node::Node, prelude::*, seam::Commands,
};
use proptest::prelude::*;

fn node(now: Time<Mono>, rules: Rules) -> (Node, Commands<NoEvent>) {
    let mut commands = Commands::default();
    let clock = &Monotonic::default();
    let mut cx = Context { now, clock, out: &mut commands };
    let mut receiver = ReceiverConfig::new(OWN, 7);
    receiver.ports.push(PortConfig { delay_mechanism: DelayMechanism::P2p, ..config_of_port() });
    let client = Instance::client_only(receiver, &mut cx);
    let mut transmitter = TransmitterConfig::new(OWN);
    (transmitter.ports, transmitter.domain_number) = (2, 1);
    let server = Instance::server_only(transmitter, &mut cx);
    let mut either = ReceiverConfig::new(OWN, 9);
    either.domain_number = 2;
    either.ports.push(PortConfig {
        delay_mechanism: DelayMechanism::P2p,
        sync_receipt_timeout: 3,
        ..config_of_port()
    });
    for port in &mut either.ports {
        port.rules = rules;
    }
    let contention = Contention::new(TransmitterConfig::new(OWN));
    let either = Instance::either(either, contention, &mut cx);
    (Node::new(client).with(server).with(either), commands)
}

fn config_of_port() -> PortConfig {
    PortConfig::default()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn whatever_arrives_a_node_stays_bounded_legal_and_on_time(
        inputs in prop::collection::vec(
            (0i64..3_000, anything::message(), any::<u8>(), any::<u16>()), 1..200,
        ),
        rules in prop::sample::select(&[Rules::Ieee1588, Rules::Ieee8021As, Rules::Automotive][..]),
    ) {
        let (mut node, mut commands) = node(at(0), rules);
        let mut states = vec![PortState::Initializing; 6];
        let mut tokens: Vec<SentToken> = Vec::new();
        let mut now = at(0);
        for (wait_ms, mut bytes, what, which) in inputs {
            now += Duration::from_millis(wait_ms);
            if let Some(domain) = bytes.get_mut(4) {
                *domain %= 3;
            }
            let on = PortIndex(which & 3);
            let rx = (what & 1 == 0).then_some(Stamp::new(now, StampSource::Simulated));
            let token = tokens.get(usize::from(which) % tokens.len().max(1)).copied();
            let input = match (what >> 1 & 7, token) {
                (0, Some(token)) => Input::Sent { token, stamp: rx },
                (1, _) => Input::Sent { token: SentToken(u64::from(which) << 40), stamp: rx },
                (2, _) if what > 200 => Input::Link { on, state: LinkState::up_if(what & 1 == 0) },
                _ => Input::Message { on, from: None, bytes: &bytes, stamp: rx },
            };
            let mut cx = Context { now, clock: &Monotonic::default(), out: &mut commands };
            node.handle(&mut cx, input);
            node.handle_timeout(&mut cx);
            prop_assert!(node.next_timeout().is_none_or(|at| at >= now));
            let before = states.clone();
            states = node.instances().flat_map(|instance| {
                instance.ports().map(|port| instance.port_state(port))
            }).collect();
            // Several changes may lie between; each was judged where it was made.
            for (old, new) in before.iter().zip(&states) {
                prop_assert!(
                    *old == PortState::Initializing || *new != PortState::Initializing,
                    "{old:?} {new:?}"
                );
            }
            prop_assert!(commands.len() <= Commands::<NoEvent>::CAPACITY);
            while let Some(command) = commands.pop() {
                if let Command::Send(Transmit { token: Some(token), .. }) = command {
                    tokens.push(token);
                    tokens.truncate(64);
                }
            }
            let stored = node.stored();
            prop_assert!(stored <= 6 * (16 + 8 + 16 + 4 * 5), "{stored}");
        }
    }
}
