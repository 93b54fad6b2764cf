//! How many exchanges of CSPTP and SPTP are answered whole: by the kernel for `ptp-agent serve`, and by the agent itself,
//! one after the other at each rate. `exchanges [SECONDS [RATE...]]`: how long each flood lasts, and how many a second. Requests
//! come from two thousand clients at two hundred addresses. Both messages are
//! counted by the sender on sockets. One line of JSON for each. Needs root.

use std::{
    env,
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    process::ExitCode,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use bpf_tests::{
    agent::Agent,
    links::{Wire, ip},
};
use ptp_common::{
    classify::{PORT_EVENT, PORT_GENERAL},
    wire::{
        Body, CsptpRequest, Flags, Header, Message, PortIdentity, Timestamp, Tlv, TlvBuilder,
        TlvType, csptp,
    },
};
use serde_json::json;
use socket2::{Domain, Protocol, Socket, Type};

const SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const RATES: [u64; 4] = [5_000, 20_000, 50_000, 100_000];
/// Requests between two looks at the clock.
const BURST: u64 = 32;
/// Answers that are still under way when the flood is over.
const AFTER: Duration = Duration::from_millis(500);
/// Addresses to ask from; the network has room for no more.
const CLIENTS: u8 = 200;
/// Each of which has as many identities as make these.
const CLIENTS_IN_ALL: u64 = 2_000;

fn socket(address: Ipv4Addr, port: u16) -> UdpSocket {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)).expect("a socket");
    socket.set_reuse_address(true).expect("reuse");
    socket.bind(&SocketAddrV4::new(address, port).into()).expect("the port");
    let _ =
        nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::RcvBufForce, &(64 << 20));
    socket.set_read_timeout(Some(Duration::from_millis(50))).expect("a timeout");
    socket.into()
}

fn request(protocol: &str) -> Vec<u8> {
    let identity = PortIdentity::default();
    let mut header = Header::new(identity, 0);
    let value = CsptpRequest { status: true, alternate_time: false }.value();
    let mut buffer = [0; 64];
    let mut tlvs = TlvBuilder::new(&mut buffer);
    let zero = Timestamp::ZERO;
    let body = if protocol == "csptp" {
        (header.sdo_id, header.domain_number) = (csptp::SDO_ID, csptp::DEFAULT_DOMAIN);
        header.flags = Flags::UNICAST;
        tlvs.push(Tlv { kind: TlvType::CSPTP_REQUEST, value: &value }).expect("it fits");
        tlvs.push(Tlv { kind: TlvType::PAD, value: &[0; 32] }).expect("it fits");
        Body::Sync { origin_timestamp: zero }
    } else {
        header.flags = Flags::UNICAST | Flags::PROFILE_SPECIFIC_1;
        Body::DelayReq { origin_timestamp: zero }
    };
    let mut bytes = vec![0; 128];
    let length = Message { header, body, tlvs: tlvs.finish() }.emit(&mut bytes).expect("it fits");
    bytes.truncate(length);
    bytes
}

/// Sends at a rate, as far as the machine can; how many.
fn flood(sockets: &[UdpSocket], protocol: &str, rate: u64, seconds: Duration) -> u64 {
    let mut message = request(protocol);
    let begin = Instant::now();
    let mut sent = 0_u64;
    while begin.elapsed() < seconds {
        let due = begin + Duration::from_nanos(sent * 1_000_000_000 / rate);
        thread::sleep(due.saturating_duration_since(Instant::now()));
        for _ in 0..BURST {
            message[30..32].copy_from_slice(&(sent as u16).to_be_bytes());
            // Identities tell clients of one address apart.
            let client = (sent % CLIENTS_IN_ALL) | 1 << 60;
            message[20..28].copy_from_slice(&client.to_be_bytes());
            let from = &sockets[sent as usize % sockets.len()];
            sent += u64::from(from.send_to(&message, (SERVER, PORT_EVENT)).is_ok());
        }
    }
    sent
}

fn count(sockets: &[UdpSocket], counted: &AtomicU64, over: &AtomicBool) {
    for socket in sockets {
        socket.set_nonblocking(true).expect("a socket");
    }
    let mut buffer = [0; 256];
    while !over.load(Relaxed) {
        let mut has_any = false;
        for socket in sockets {
            while socket.recv(&mut buffer).is_ok() {
                has_any = true;
                counted.fetch_add(1, Relaxed);
            }
        }
        if !has_any {
            thread::sleep(Duration::from_micros(200));
        }
    }
}

fn measure(
    mode: &str,
    protocol: &str,
    rate: u64,
    seconds: Duration,
) -> Result<serde_json::Value, String> {
    let wire = Wire::new()?;
    let option = format!("--{protocol}");
    let arguments = ["serve", "-i", "gm0", "--kernel-answers", mode, &option];
    let agent = Agent::start(&wire.grandmaster, &arguments);
    if mode == "tc" {
        agent.wait_for_text(0, Duration::from_secs(10), "answered in the kernel");
    }
    let addresses: Vec<Ipv4Addr> = (0..CLIENTS).map(|n| Ipv4Addr::new(192, 0, 2, 2 + n)).collect();
    for address in &addresses[1..] {
        ip(&wire.client, &format!("address add {address}/24 dev ptp0"));
    }
    let open = || {
        let event: Vec<_> = addresses.iter().map(|each| socket(*each, PORT_EVENT)).collect();
        (event, [socket(Ipv4Addr::UNSPECIFIED, PORT_GENERAL)])
    };
    let (event, general) = wire.client.run(open).map_err(|error| error.to_string())?;
    let (syncs, seconds_part, over) = Default::default();
    let sent = thread::scope(|scope| {
        scope.spawn(|| count(&event, &syncs, &over));
        scope.spawn(|| count(&general, &seconds_part, &over));
        let sent = flood(&event, protocol, rate, seconds);
        thread::sleep(AFTER);
        over.store(true, Relaxed);
        sent
    });
    drop(agent);
    let whole = seconds_part.load(Relaxed);
    Ok(json!({
        "event": "bench", "name": "exchanges", "protocol": protocol,
        "server": if mode == "tc" { "kernel" } else { "agent" },
        "rate_wanted": rate,
        "rate": (sent as f64 / seconds.as_secs_f64()).round(),
        "sync_share": syncs.load(Relaxed) as f64 / sent.max(1) as f64,
        "whole_share": whole as f64 / sent.max(1) as f64,
        "whole_per_second": (whole as f64 / seconds.as_secs_f64()).round(),
    }))
}

fn main() -> ExitCode {
    let arguments: Vec<u64> = env::args().skip(1).filter_map(|word| word.parse().ok()).collect();
    let (seconds, rates) = arguments.split_first().map_or((&4, &RATES[..]), |(seconds, rates)| {
        (seconds, if rates.is_empty() { &RATES[..] } else { rates })
    });
    for rate in rates {
        for protocol in ["csptp", "sptp"] {
            for mode in ["tc", "off"] {
                match measure(mode, protocol, *rate, Duration::from_secs(*seconds)) {
                    Ok(line) => println!("{line}"),
                    Err(reason) => {
                        eprintln!("cannot measure: {reason}");
                        return ExitCode::FAILURE;
                    }
                }
            }
        }
    }
    ExitCode::SUCCESS
}
