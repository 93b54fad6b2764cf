//! Clients and a server of CSPTP and SPTP take anything: what a client learns comes in pairs and only of what it asked,
//! a server sends no more to strangers than came from them, and neither is ever late.
use ptp_common::{
    time::{Duration, Mono, Time},
    wire::{ClockIdentity, MessageType},
};
use ptp_engine::{
    Command, Destination, Input, Monotonic, PortIndex,
    address::Address,
    csptp::{Answers, Protocol, ServerConfig, is_worth},
    receiver::{Receiver, ReceiverConfig},
    stamp::{Stamp, StampSource},
    transmitter::{Transmitter, TransmitterConfig},
};
use std::net::SocketAddr;

const ON: PortIndex = PortIndex(0);
/// The longest piece.
const PIECE: usize = 160;

fn client(protocol: Protocol, server: SocketAddr, start: Time<Mono>) -> Receiver {
    let mut config = ReceiverConfig::new(ClockIdentity([0xcc; 8]), 7);
    config.servers = vec![ServerConfig::new(protocol, Some(server))];
    Receiver::new(config, start)
}

/// See the module's paragraph.
///
/// # Panics
/// If what must hold does not.
pub fn run(bytes: &[u8]) {
    let server_at = SocketAddr::from(([192, 0, 2, 1], 319));
    let stranger = SocketAddr::from(([203, 0, 113, 9], 319));
    let start = Time::<Mono>::ZERO + Duration::from_secs(1_000);
    let mut clients =
        [Protocol::Csptp, Protocol::Sptp].map(|protocol| client(protocol, server_at, start));
    let mut config = TransmitterConfig::new(ClockIdentity([1; 8]));
    config.answers = Answers { csptp: true, sptp: true };
    let mut server = Transmitter::new(config, start);
    let mut now = start;
    for piece in bytes.chunks(PIECE) {
        now += Duration::from_millis(300);
        for client in &mut clients {
            client.poll(now);
            let mut sequence_id = None;
            let mut measured = 0;
            let mut collect = |client: &mut Receiver| {
                let mut tokens = Vec::new();
                while let Some(command) = client.next_command() {
                    match command {
                        Command::Send(transmit) => {
                            sequence_id = transmit.message.get(30..32).map(<[u8]>::to_vec);
                            tokens.extend(transmit.token);
                        }
                        Command::Measured(_) => measured += 1,
                        _ => {}
                    }
                }
                for token in tokens {
                    let stamp = Stamp::new(now, StampSource::Simulated);
                    client.handle_tx_stamp(now, token, Some(stamp));
                }
            };
            collect(client);
            // As it comes, and as the answer to what was asked.
            let stamp = Some(Stamp::new(now + Duration::from_micros(50), StampSource::Simulated));
            let from = Some(Address::Socket(server_at));
            client.handle(
                now,
                &Monotonic::default(),
                Input::Message { on: ON, from, bytes: piece, stamp },
            );
            collect(client);
            let mut answer = piece.to_vec();
            if let (Some(id), Some(place)) = (&sequence_id, answer.get_mut(30..32)) {
                place.copy_from_slice(id);
            }
            let input = Input::Message { on: ON, from, bytes: &answer, stamp };
            client.handle(now, &Monotonic::default(), input);
            let mut more = 0;
            while let Some(command) = client.next_command() {
                more += usize::from(matches!(command, Command::Measured(_)));
            }
            measured += more;
            assert!(measured % 2 == 0, "both ways or none");
            assert!(client.next_wakeup().is_none_or(|at| at >= now));
        }
        let rx = Some(Time::from_nanos(1_800_000_000_000_000_000));
        let from = Some(Address::Socket(stranger));
        server.handle_message_from(now, ON, piece, rx, from);
        let mut lengths = Vec::new();
        while let Some(command) = server.next_command() {
            let Command::Send(transmit) = command else { continue };
            if transmit.to != Destination::Unicast(Address::Socket(stranger)) {
                continue;
            }
            lengths.push(transmit.message.len());
            if let Some(token) = transmit.token {
                server.handle_tx_stamp(token, rx);
            }
        }
        if let [first, second] = lengths[..] {
            assert!(is_worth(piece.len(), [first, second], stranger.ip()), "{first} {second}");
        }
        let longest = MessageType::DelayResp.fixed_length();
        assert!(lengths.len() != 1 || lengths[0] <= longest, "{lengths:?}");
    }
}
