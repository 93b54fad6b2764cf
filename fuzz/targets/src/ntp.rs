//! NTP packets: the header is read and written as the same bytes, extension fields and what is behind them are the whole
//! trailer, and a client and a server take anything: answers are no longer than requests, and the client is never late.
use ptp_common::{
    ntp::{HEADER_LENGTH, Leap, NtpPacket, ReferenceId},
    time::{Duration, Mono, Time},
};
use ptp_engine::{
    Command, Commands, Driven, Input, Monotonic, PortIndex,
    address::Address,
    ntp::{AssociationConfig, ExchangeKind, NtpClient, NtpServer, NtpServerConfig, Poll, Serving},
    stamp::{Stamp, StampSource},
};
use std::net::{Ipv4Addr, SocketAddr};

const PEER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 123);
const ON: PortIndex = PortIndex(0);

/// See the module's paragraph.
///
/// # Panics
/// If what must hold does not.
pub fn run(bytes: &[u8]) {
    if let Ok((packet, trailer)) = NtpPacket::parse(bytes) {
        assert_eq!(packet.to_bytes()[..], bytes[..HEADER_LENGTH]);
        let mut fields = 0;
        if let Ok(rest) = trailer.extensions(|field| fields += field.value.len() + 4) {
            assert_eq!(HEADER_LENGTH + fields + rest.len(), bytes.len());
        }
    }
    let (start, utc) = (Time::<Mono>::ZERO, Time::from_nanos(1_800_000_000_000_000_000));
    let asked = AssociationConfig {
        address: PEER,
        poll: Poll::default(),
        kind: ExchangeKind::Interleaved,
        repeats: true,
    };
    let client = NtpClient::new(&[asked], utc, [1; 32], start);
    let mut client = Driven::new_with(client, Commands::default());
    let mut server =
        NtpServer::new(&NtpServerConfig { answers_per_second: 8, seed: [2; 32] }, start);
    server.set_serving(Some(Serving {
        leap: Leap::None,
        stratum: 1,
        precision: -28,
        root_delay: Duration::ZERO,
        root_dispersion: Duration::from_micros(1),
        reference_id: ReferenceId::PTP,
        reference: start,
        utc_offset: Duration::from_secs(37),
        smear: None,
    }));
    let mut server = Driven::new_with(server, Commands::default());
    let clock = Monotonic(Duration::from_secs(1_800_000_037));
    let mut now = start;
    // Each piece once as it comes and once as the answer to what was asked.
    for piece in bytes.chunks(HEADER_LENGTH + 32) {
        now += Duration::from_secs(64);
        client.poll(now);
        let mut origin = None;
        while let Some(command) = client.next_command() {
            if let Command::Send(transmit) = command {
                origin = transmit.message.last_chunk::<8>().copied();
                let stamp = Stamp::new(now, StampSource::Simulated);
                let token = transmit.token.expect("a request is stamped");
                client.handle_tx_stamp(now, token, Some(stamp));
            }
        }
        let mut answer = piece.to_vec();
        if let (Some(origin), Some(place)) = (origin, answer.get_mut(24..32)) {
            place.copy_from_slice(&origin);
        }
        let stamp = Some(Stamp::new(now, StampSource::Simulated));
        for bytes in [piece, &answer] {
            let from = Some(Address::Socket(PEER));
            let input = Input::Message { on: ON, from, bytes, stamp };
            client.handle(now, &clock, input);
            server.handle(now, &clock, input);
            while let Some(command) = server.next_command() {
                let Command::Send(transmit) = command else { continue };
                assert!(transmit.message.len() <= bytes.len());
                if let Some(token) = transmit.token {
                    server.handle(now, &clock, Input::Sent { token, stamp });
                }
            }
        }
        assert!(client.next_wakeup().is_none_or(|at| at >= now));
    }
}
