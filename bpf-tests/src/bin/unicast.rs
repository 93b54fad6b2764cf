//! How many unicast clients `ptp-agent serve --unicast` serves with Sync, and how late. `unicast [SECONDS [CLIENTS...]]`:
//! so many clients are granted Sync once a second each, by Signaling from one host that plays all of them and counts
//! what comes. One line of JSON for each number: granted, Sync and Follow_Up per second, share of Sync later than 10 ms
//! after its time, the agent's memory and processor time, the grant's round trip. Needs root.

use std::{
    env, fs,
    io::Write as _,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket},
    process::ExitCode,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use bpf_tests::{
    agent::{Agent, http_get},
    links::Wire,
    median,
};
use ptp_common::{
    classify::{PORT_EVENT, PORT_GENERAL},
    wire::{Body, ClockIdentity, Flags, Header, Message, Negotiation, PortIdentity, TlvBuilder},
};
use serde_json::{Value, json};
use socket2::{Domain, Protocol, Socket, Type};

const SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const METRICS: &str = "127.0.0.1:9319";
/// Passes over all clients: a request that is lost is repeated.
const PASSES: usize = 4;
/// Grants whose round trip is measured.
const ROUND_TRIPS: u64 = 31;
/// Clients that ask at a time, between two waits for their answers.
const BATCH: u64 = 16;

fn socket(port: u16) -> UdpSocket {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)).expect("a socket");
    socket.bind(&SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port).into()).expect("the port");
    let _ =
        nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::RcvBufForce, &(64 << 20));
    socket.set_read_timeout(Some(Duration::from_millis(50))).expect("a timeout");
    socket.into()
}

fn request(number: u64) -> Vec<u8> {
    let source = PortIdentity {
        clock_identity: ClockIdentity((number | 1 << 60).to_be_bytes()),
        port_number: 1,
    };
    let mut header = Header::new(source, 1);
    header.flags = Flags::UNICAST;
    let mut buffer = [0; 16];
    let mut tlvs = TlvBuilder::new(&mut buffer);
    let said = Negotiation::Request { message_type: 0, log_interval: 0, duration_s: 300 };
    said.push(&mut tlvs).expect("room");
    let target = PortIdentity { clock_identity: ClockIdentity([0xff; 8]), port_number: 0xffff };
    let body = Body::Signaling { target_port_identity: target };
    let mut bytes = [0; 64];
    let length = Message { header, body, tlvs: tlvs.finish() }.emit(&mut bytes).expect("room");
    bytes[..length].to_vec()
}

#[derive(Default)]
struct Counts {
    grants: AtomicU64,
    syncs: AtomicU64,
    follow_ups: AtomicU64,
    is_over: AtomicBool,
}

fn count(socket: &UdpSocket, counts: &Counts) {
    let mut buffer = [0; 256];
    while !counts.is_over.load(Relaxed) {
        if socket.recv(&mut buffer).is_err() {
            continue;
        }
        match buffer[0] & 0xf {
            0x0 => &counts.syncs,
            0x8 => &counts.follow_ups,
            _ => &counts.grants,
        }
        .fetch_add(1, Relaxed);
    }
}

/// Processor time of a process, s, and its resident memory, MB.
fn cost(pid: u32) -> (f64, f64) {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or("").split(' ').collect();
    let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
    ((ticks(11) + ticks(12)) / 100.0, ticks(21) * 4096.0 / 1e6)
}

fn service(wire: &Wire) -> Value {
    let address: SocketAddr = METRICS.parse().expect("an address");
    let answer = http_get(&wire.grandmaster, address, "/status");
    let body = answer.split_once("\r\n\r\n").map_or(answer.as_str(), |(_, body)| body);
    let status: Value = serde_json::from_str(body).unwrap_or_default();
    status["ports"][0]["unicast"]["service"].clone()
}

/// Asks for all clients, as fast as the server looks at requests of those whom it does not know.
fn ask_all(socket: &UdpSocket, clients: u64) {
    let began = Instant::now();
    for number in 0..clients {
        let _ = socket.send_to(&request(number), (SERVER, PORT_GENERAL));
        if number % BATCH == BATCH - 1 {
            let due = began + Duration::from_secs_f64((number + 1) as f64 / 3_000.0);
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
    }
}

fn measure(wire: &Wire, clients: u64, seconds: Duration) -> Value {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("config");
    let most = clients * 4;
    fs::write(
        &file,
        format!(
            "[serve]\nunicast = \"only\"\nunicast-clients = {most}\nunicast-clients-per-host = {most}\n\
             unicast-messages-per-second = {}\n",
            most * 4
        ),
    )
    .expect("a file");
    let path = file.display().to_string();
    let server = Agent::start(
        &wire.grandmaster,
        &["--config", &path, "serve", "-i", "gm0", "--metrics-address", METRICS],
    );
    let pid = server.pid();
    let (event, general) =
        wire.client.run(|| (socket(PORT_EVENT), socket(PORT_GENERAL))).expect("the namespace");
    let counts = Counts::default();
    let mut row = json!({});
    thread::scope(|scope| {
        scope.spawn(|| count(&event, &counts));
        scope.spawn(|| count(&general, &counts));
        let to = (SERVER, PORT_GENERAL);
        let mut round_trips = Vec::new();
        for number in 0..ROUND_TRIPS {
            let (began, before) = (Instant::now(), counts.grants.load(Relaxed));
            let _ = general.send_to(&request(u64::MAX >> 8 | number << 48), to);
            while counts.grants.load(Relaxed) == before && began.elapsed() < Duration::from_secs(2)
            {
                thread::yield_now();
            }
            round_trips.push(began.elapsed().as_micros() as i64);
        }
        let round_trip_us = median(round_trips);
        let began = Instant::now();
        for _ in 0..PASSES {
            ask_all(&general, clients);
            thread::sleep(Duration::from_secs(2));
            if service(wire)["clients"].as_u64() >= Some(clients) {
                break;
            }
        }
        let asked_s = began.elapsed().as_secs_f64();
        let before = service(wire);
        let (cpu, _) = cost(pid);
        let syncs = counts.syncs.load(Relaxed);
        let follow_ups = counts.follow_ups.load(Relaxed);
        let began = Instant::now();
        thread::sleep(seconds);
        let took = began.elapsed().as_secs_f64();
        let rate = |now: u64, before: u64| ((now - before) as f64 / took).round();
        let (syncs, follow_ups) = (
            rate(counts.syncs.load(Relaxed), syncs),
            rate(counts.follow_ups.load(Relaxed), follow_ups),
        );
        let (cpu_after, memory_mb) = cost(pid);
        thread::sleep(Duration::from_millis(1_100));
        let after = service(wire);
        let delta = |name: &str| {
            after[name].as_u64().unwrap_or(0) as f64 - before[name].as_u64().unwrap_or(0) as f64
        };
        row = json!({
            "clients": after["clients"], "asked_s": asked_s, "grant_round_trip_us": round_trip_us,
            "syncs_per_s": syncs, "follow_ups_per_s": follow_ups,
            "late_share": delta("late") / delta("sent").max(1.0),
            "cpu_share": (cpu_after - cpu) / took, "memory_mb": memory_mb.round(),
        });
        counts.is_over.store(true, Relaxed);
    });
    row
}

fn main() -> ExitCode {
    let mut arguments = env::args().skip(1).filter_map(|text| text.parse::<u64>().ok());
    let seconds = Duration::from_secs(arguments.next().unwrap_or(5));
    let given: Vec<u64> = arguments.collect();
    let numbers = if given.is_empty() { vec![1_000, 10_000, 30_000, 100_000] } else { given };
    let wire = match Wire::new() {
        Ok(wire) => wire,
        Err(reason) => {
            eprintln!("cannot measure: {reason}");
            return ExitCode::from(3);
        }
    };
    for clients in numbers {
        println!("{}", measure(&wire, clients, seconds));
        let _ = std::io::stdout().flush();
    }
    ExitCode::SUCCESS
}
