//! How many Delay_Req are answered: by the kernel for `ptp-agent serve` at TC and by XDP, by the agent itself, by
//! `ptp4l -S`, and by the kernel for that (`--answer-for ptp4l`), one after the other at each rate. `answers [SECONDS [RATE...]]`: how long each flood lasts, and how many a second. Each request is
//! another identity's, but for an honest client's, which asks 20 times a second since two seconds before: from the
//! flooder's own address first, then from another host behind the same switch. Answers are counted on that client's
//! socket, as is Sync, which must not stop. One line of JSON for each. Needs root and linuxptp.

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
    forge::port,
    links::{Star, output},
    ptp4l::Ptp4l,
    transparent::delay_req,
};
use ptp_agent::lab::netns::Namespace;
use ptp_common::classify::{PORT_EVENT, PORT_GENERAL};
use serde_json::json;
use socket2::{Domain, Protocol, Socket, Type};

const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 1, 129);
const FLOODER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const OTHER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 3);
const RATES: [u64; 4] = [20_000, 50_000, 100_000, 200_000];
/// Requests between two looks at the clock.
const BURST: u64 = 32;
/// Number of the honest client's port.
const HONEST: u16 = 0x7777;
/// Between two of its requests.
const HONEST_EVERY: Duration = Duration::from_millis(50);
/// The honest client has asked for so long when the flood begins.
const BEFORE: Duration = Duration::from_secs(2);
/// Answers that are still under way when the flood is over.
const AFTER: Duration = Duration::from_millis(500);
const SERVERS: [&str; 5] = ["kernel", "xdp", "agent", "ptp4l", "kernel for ptp4l"];
/// Between two Sync; one that comes later than this by more than 10 ms is late.
const SYNC_EVERY: Duration = Duration::from_millis(125);
const LATE: Duration = Duration::from_millis(10);
/// How long it may take until the kernel answers.
const START: Duration = Duration::from_secs(30);

/// What was counted.
#[derive(Default)]
struct Counts {
    sent: AtomicU64,
    answered: AtomicU64,
    honest_sent: AtomicU64,
    honest_answered: AtomicU64,
    syncs: AtomicU64,
    late_syncs: AtomicU64,
    is_over: AtomicBool,
}

/// From where the honest client asks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// The flooder's own address.
    Same,
    /// Another host.
    Other,
}

fn socket(port: u16, address: Ipv4Addr) -> UdpSocket {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)).expect("a socket");
    socket.set_reuse_address(true).expect("reuse");
    socket.bind(&SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port).into()).expect("the port");
    socket.join_multicast_v4(&GROUP, &address).expect("the group");
    socket.set_multicast_if_v4(&address).expect("the interface");
    socket.set_multicast_loop_v4(false).expect("no loop");
    let _ =
        nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::RcvBufForce, &(64 << 20));
    socket.set_read_timeout(Some(Duration::from_millis(50))).expect("a timeout");
    socket.into()
}

/// Sends at a rate, as far as the machine can.
fn flood(socket: &UdpSocket, rate: u64, seconds: Duration, sent_in_all: &AtomicU64) {
    let mut anybody = delay_req(port(1), 0);
    let begin = Instant::now();
    let mut sent = 0_u64;
    while begin.elapsed() < seconds {
        let due = begin + Duration::from_nanos(sent * 1_000_000_000 / rate);
        thread::sleep(due.saturating_duration_since(Instant::now()));
        for _ in 0..BURST {
            anybody[20..28].copy_from_slice(&(sent | 1 << 60).to_be_bytes());
            sent += u64::from(socket.send_to(&anybody, (GROUP, PORT_EVENT)).is_ok());
        }
    }
    sent_in_all.store(sent, Relaxed);
}

/// Asks at its own pace.
fn ask(socket: &UdpSocket, seconds: Duration, asked: &AtomicU64) {
    let mut honest = delay_req(port(2), 0);
    honest[28..30].copy_from_slice(&HONEST.to_be_bytes());
    let begin = Instant::now();
    let mut sent = 0_u64;
    while begin.elapsed() < seconds {
        thread::sleep(
            (begin + HONEST_EVERY * sent as u32).saturating_duration_since(Instant::now()),
        );
        honest[30..32].copy_from_slice(&(sent as u16).to_be_bytes());
        sent += u64::from(socket.send_to(&honest, (GROUP, PORT_EVENT)).is_ok());
    }
    asked.store(sent, Relaxed);
}

fn ask_once(socket: &UdpSocket, number: &mut u16) {
    *number += 1;
    let mut honest = delay_req(port(2), *number);
    honest[28..30].copy_from_slice(&HONEST.to_be_bytes());
    let _ = socket.send_to(&honest, (GROUP, PORT_EVENT));
}

fn drain(sockets: &[&UdpSocket]) {
    let mut buffer = [0; 256];
    for socket in sockets {
        // Until what is under way has come.
        thread::sleep(HONEST_EVERY);
        socket.set_nonblocking(true).expect("a socket");
        while socket.recv(&mut buffer).is_ok() {}
        socket.set_nonblocking(false).expect("a socket");
    }
}

/// Counts Sync, and those that are late.
fn count_sync(socket: &UdpSocket, counts: &Counts) {
    let mut buffer = [0; 256];
    let mut last: Option<Instant> = None;
    while !counts.is_over.load(Relaxed) {
        if socket.recv(&mut buffer).is_err() || buffer[0] & 0x0f != 0 {
            continue;
        }
        let now = Instant::now();
        counts.syncs.fetch_add(1, Relaxed);
        let is_late = last.is_some_and(|last| now - last > SYNC_EVERY + LATE);
        counts.late_syncs.fetch_add(is_late.into(), Relaxed);
        last = Some(now);
    }
}

/// Counts Delay_Resp, and those to the honest client.
fn count(socket: &UdpSocket, all: &AtomicU64, honest: &AtomicU64, over: &AtomicBool) {
    let mut buffer = [0; 256];
    while !over.load(Relaxed) {
        let Ok(length) = socket.recv(&mut buffer) else { continue };
        if buffer[0] & 0x0f != 9 {
            continue;
        }
        if length >= 54 && buffer[52..54] == HONEST.to_be_bytes() {
            honest.fetch_add(1, Relaxed);
        } else {
            all.fetch_add(1, Relaxed);
        }
    }
}

fn measure(
    server: &str,
    place: Place,
    rate: u64,
    seconds: Duration,
) -> Result<serde_json::Value, String> {
    let star = Star::new(3)?;
    let [grandmaster, flooder, other] = &star.leaves[..] else { unreachable!() };
    let start = |arguments: &[&str]| {
        let arguments = [&["serve", "-i", "eth0"], arguments].concat();
        Agent::start_only(grandmaster, &arguments)
    };
    let serve = |mode: &str| start(&["--log-sync-interval=-3", "--kernel-answers", mode]);
    let ptp4l = || {
        let options = ["logSyncInterval -3", "summary_interval 1"];
        Ptp4l::grandmaster(grandmaster, &["eth0"], &options)
    };
    // The other end of a veth takes what XDP sends only with NAPI.
    if server == "xdp" {
        output(star.switch.command("ethtool").args(["-K", "port1", "gro", "on"]));
    }
    let (agent, ptp4l, proof) = match server {
        "kernel" => (Some(serve("tc")), None, "answered in the kernel"),
        "xdp" => (Some(serve("xdp")), None, "answered by XDP"),
        "agent" => (Some(serve("off")), None, "serving"),
        "ptp4l" => (None, Some(ptp4l()?), ""),
        _ => {
            let ptp4l = ptp4l()?;
            (Some(start(&["--answer-for", "ptp4l"])), Some(ptp4l), "answered in the kernel")
        }
    };
    let counts = Counts::default();
    let open = |namespace: &Namespace, address| {
        let open = || (socket(PORT_EVENT, address), socket(PORT_GENERAL, address));
        namespace.run(open).map_err(|error| error.to_string())
    };
    let (flooding, general) = open(flooder, FLOODER)?;
    let apart = if place == Place::Other { Some(open(other, OTHER)?) } else { None };
    let (event, honest_general) =
        apart.as_ref().map_or((&flooding, &general), |(event, general)| (event, general));
    if let Some(agent) = &agent {
        // Who answers in another's name wants to see one answer of its first.
        let begin = Instant::now();
        let mut number = 0;
        while !agent.lines().iter().any(|line| line.text.contains(proof)) {
            if begin.elapsed() > START {
                return Err(format!("not {proof}: {}", agent.last_words()));
            }
            ask_once(event, &mut number);
            thread::sleep(HONEST_EVERY);
        }
        // What was answered meanwhile is no part of it.
        drain(&[event, honest_general]);
    }
    thread::scope(|scope| {
        let over = &counts.is_over;
        // All are seen by both, since answers are multicast; the honest one counts where it is.
        scope.spawn(|| count(honest_general, &counts.answered, &counts.honest_answered, over));
        scope.spawn(|| count_sync(event, &counts));
        ask(event, BEFORE, &counts.honest_sent);
        thread::sleep(AFTER);
        for counter in
            [&counts.answered, &counts.honest_answered, &counts.syncs, &counts.late_syncs]
        {
            counter.store(0, Relaxed);
        }
        scope.spawn(|| ask(event, seconds, &counts.honest_sent));
        flood(&flooding, rate, seconds, &counts.sent);
        thread::sleep(AFTER);
        over.store(true, Relaxed);
    });
    drop((agent, ptp4l));
    let get = |counter: &AtomicU64| counter.load(Relaxed);
    let share = |part: &AtomicU64, whole: &AtomicU64| get(part) as f64 / get(whole).max(1) as f64;
    Ok(json!({
        "event": "bench", "name": "answers", "server": server,
        "honest_from": if place == Place::Same { "the flooder's address" } else { "another address" },
        "rate_wanted": rate,
        "rate": (get(&counts.sent) as f64 / seconds.as_secs_f64()).round(),
        "answered_share": share(&counts.answered, &counts.sent),
        "answered_per_second": (get(&counts.answered) as f64 / seconds.as_secs_f64()).round(),
        "honest_share": share(&counts.honest_answered, &counts.honest_sent),
        "honest_n": get(&counts.honest_sent),
        "sync_per_second": get(&counts.syncs) as f64 / (seconds + AFTER).as_secs_f64(),
        "sync_expected": 8,
        "sync_late_share": share(&counts.late_syncs, &counts.syncs),
    }))
}

fn main() -> ExitCode {
    let arguments: Vec<u64> = env::args().skip(1).filter_map(|word| word.parse().ok()).collect();
    let (seconds, rates) = arguments.split_first().map_or((&4, &RATES[..]), |(seconds, rates)| {
        (seconds, if rates.is_empty() { &RATES[..] } else { rates })
    });
    for rate in rates {
        for (server, place) in
            SERVERS.into_iter().flat_map(|server| [(server, Place::Same), (server, Place::Other)])
        {
            match measure(server, place, *rate, Duration::from_secs(*seconds)) {
                Ok(line) => println!("{line}"),
                Err(reason) => {
                    eprintln!("cannot measure {server}: {reason}");
                    return ExitCode::FAILURE;
                }
            }
        }
    }
    ExitCode::SUCCESS
}
