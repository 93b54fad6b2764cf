//! A node with a client, a server and a clock of either role, fed with any inputs at any times: it stays bounded, its ports stay in states
//! that figure 30 allows one from the other, and `next_timeout` never lies behind `now`.
use ptp_common::{
    time::{Duration, Mono, Time},
    wire::ClockIdentity,
};
use ptp_engine::{
    Change, Command, Commands, Context, DelayMechanism, Engine, Input, LinkState, Monotonic,
    NoEvent, PortIndex, SentToken, Transmit,
    address::Address,
    contention::Contention,
    instance::Instance,
    node::Node,
    receiver::{PortConfig, ReceiverConfig},
    stamp::{Stamp, StampSource},
    transmitter::TransmitterConfig,
};

const OWN: ClockIdentity = ClockIdentity([9; 8]);

fn node(now: Time<Mono>, out: &mut Commands<NoEvent>) -> Node {
    let mut cx = Context { now, clock: &Monotonic::default(), out };
    let mut receiver = ReceiverConfig::new(OWN, 1);
    let peer = PortConfig { delay_mechanism: DelayMechanism::P2p, ..PortConfig::default() };
    receiver.ports.push(peer);
    let client = Instance::client_only(receiver, &mut cx);
    let mut transmitter = TransmitterConfig::new(OWN);
    (transmitter.ports, transmitter.domain_number) = (2, 1);
    let mut either = ReceiverConfig::new(OWN, 3);
    either.domain_number = 2;
    let peer = PortConfig {
        delay_mechanism: DelayMechanism::P2p,
        sync_receipt_timeout: 3,
        ..PortConfig::default()
    };
    either.ports.push(peer);
    let contention = Contention::new(TransmitterConfig::new(OWN));
    let either = Instance::either(either, contention, &mut cx);
    Node::new(client).with(Instance::server_only(transmitter, &mut cx)).with(either)
}

/// See the module's paragraph.
///
/// # Panics
/// If what must hold does not.
pub fn run(input: &[u8]) {
    let mut now: Time<Mono> = Time::from_nanos(1_000_000_000);
    let mut commands = Commands::default();
    let mut node = node(now, &mut commands);
    let mut tokens: Vec<SentToken> = Vec::new();
    let mut rest = input;
    // What, how long after the last one, which port or token, how many bytes follow.
    while let Some(([what, step, which, length], more)) = rest.split_first_chunk() {
        let (bytes, after) = more.split_at(usize::from(*length).min(more.len()));
        rest = after;
        now += Duration::from_nanos(1i64 << (step % 40));
        let on = PortIndex(u16::from(which & 3));
        let stamp = (what & 0x80 == 0).then_some(Stamp::new(now, StampSource::Simulated));
        let from = (what & 0x40 == 0).then_some(Address::Mac([*which; 6]));
        let input = match what & 7 {
            0 => match tokens.get(usize::from(*which)) {
                Some(token) => Input::Sent { token: *token, stamp },
                None => Input::Sent { token: SentToken(u64::from(*which) << (step % 60)), stamp },
            },
            1 => Input::Link { on, state: LinkState::up_if(what & 8 == 0) },
            _ => Input::Message { on, from, bytes, stamp },
        };
        let mut cx = Context { now, clock: &Monotonic::default(), out: &mut commands };
        node.handle(&mut cx, input);
        node.handle_timeout(&mut cx);
        assert!(node.next_timeout().is_none_or(|at| at >= now));
        assert!(commands.len() <= Commands::<NoEvent>::CAPACITY);
        while let Some(command) = commands.pop() {
            match command {
                Command::Send(Transmit { token: Some(token), .. }) => {
                    tokens.push(token);
                    tokens.truncate(256);
                }
                Command::Changed(Change::PortState { old, new, .. }) => {
                    assert!(old.may_become(new), "{old:?} {new:?}");
                }
                _ => {}
            }
        }
    }
}
