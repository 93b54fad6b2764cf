//! How many unicast clients `ptp-agent serve --unicast` serves with Sync, how late, and how well it knows when each
//! left. `unicast [SECONDS [CLIENTS...]] [requests] [agent]`: so many clients, each at an address of its own behind a
//! router, are granted Sync once a second each, by Signaling from one host that plays all of them and takes what comes;
//! with `requests` each asks once a second too (Delay_Req), and with `agent` the kernel does not answer. One line of JSON
//! for each number. Needs root.
//!
//! What is late is judged twice: by the server (more than 10 ms after its time), and by arrivals: of each client the
//! message that is earliest in its second says where the others belong. Both ends have one clock, so the receive stamp
//! of a Sync is behind what its Follow_Up says by the way between the two and whatever is wrong with the latter.

mod crowd;

use std::{
    env, fs,
    io::Write as _,
    net::{Ipv4Addr, SocketAddr},
    process::ExitCode,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use bpf_tests::{
    agent::{Agent, http_get},
    links::{Wire, ip},
    median,
};
use ptp_common::classify::{PORT_EVENT, PORT_GENERAL};
use serde_json::{Value, json};

use crowd::{Crowd, Socket, address, delay_req, request};

const SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const METRICS: &str = "127.0.0.1:9319";
/// Passes over all clients: a request that is lost is repeated.
const PASSES: usize = 4;
/// Grants whose round trip is measured.
const ROUND_TRIPS: u64 = 31;
/// Clients that ask at a time, between two waits for their answers.
const BATCH: u64 = 16;
/// Requests of newcomers that the server looks at in a second, with something to spare.
const ASKED_PER_SECOND: f64 = 3_000.0;

/// What is measured beside Sync.
#[derive(Clone, Copy, Default)]
struct Options {
    requests: bool,
    agent_answers: bool,
}

/// Processor time of a process, s, and its resident memory, MB.
fn cost(pid: u32) -> (f64, f64) {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or("").split(' ').collect();
    let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
    ((ticks(11) + ticks(12)) / 100.0, ticks(21) * 4096.0 / 1e6)
}

/// Processor time that the whole machine has spent in all, s, and how much it could have.
fn machine() -> (f64, f64) {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let first = stat.lines().next().unwrap_or("");
    let ticks: Vec<f64> = first.split_whitespace().filter_map(|text| text.parse().ok()).collect();
    let all: f64 = ticks.iter().take(8).sum();
    let idle: f64 = ticks.iter().skip(3).take(2).sum();
    ((all - idle) / 100.0, all / 100.0)
}

fn port(wire: &Wire) -> Value {
    let address: SocketAddr = METRICS.parse().expect("an address");
    let answer = http_get(&wire.grandmaster, address, "/status");
    let body = answer.split_once("\r\n\r\n").map_or(answer.as_str(), |(_, body)| body);
    let status: Value = serde_json::from_str(body).unwrap_or_default();
    json!({"port": status["ports"][0], "lost": status["lost"]})
}

/// Asks for all clients that have nothing yet, as fast as the server looks at requests of those whom it does not know.
fn ask_all(socket: &Socket, crowd: &Crowd) {
    let (began, mut asked) = (Instant::now(), 0);
    for number in 0..crowd.len() {
        if crowd.is_granted(number) {
            continue;
        }
        socket.send(address(number), (SERVER, PORT_GENERAL), &request(number));
        asked += 1;
        if asked % BATCH == 0 {
            let due = began + Duration::from_secs_f64(asked as f64 / ASKED_PER_SECOND);
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
    }
}

/// Lets each client ask once a second, one after the other; how many have been sent.
fn keep_asking(socket: &Socket, clients: u64, is_over: &AtomicBool, sent: &AtomicU64) {
    let began = Instant::now();
    for n in 0.. {
        if is_over.load(Relaxed) {
            return;
        }
        let number = n % clients;
        let message = delay_req(number, (n / clients) as u16);
        socket.send(address(number), (SERVER, PORT_EVENT), &message);
        sent.fetch_add(1, Relaxed);
        if n % BATCH == BATCH - 1 {
            let due = began + Duration::from_secs_f64((n + 1) as f64 / clients as f64);
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
    }
}

fn round_trips(socket: &Socket, crowd: &Crowd) -> i64 {
    let mut round_trips = Vec::new();
    for number in 0..ROUND_TRIPS {
        // Somebody who is no client later.
        let number = crowd.len() + number;
        let (began, before) = (Instant::now(), crowd.granted());
        socket.send(address(number), (SERVER, PORT_GENERAL), &request(number));
        while crowd.granted() == before && began.elapsed() < Duration::from_secs(2) {
            thread::yield_now();
        }
        round_trips.push(began.elapsed().as_micros() as i64);
    }
    median(round_trips)
}

fn measure(wire: &Wire, clients: u64, seconds: Duration, options: Options) -> Value {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("config");
    let most = clients * 4;
    fs::write(
        &file,
        format!(
            "[serve]\nunicast = \"only\"\nserve-to = [\"10.64.0.0/12\"]\nunicast-clients = {most}\n\
             unicast-messages-per-second = {}\nkernel-answers = \"{}\"\n",
            most * 4,
            if options.agent_answers { "off" } else { "auto" },
        ),
    )
    .expect("a file");
    let path = file.display().to_string();
    let server = Agent::start(
        &wire.grandmaster,
        &["--config", &path, "serve", "-i", "gm0", "--metrics-address", METRICS],
    );
    let pid = server.pid();
    let sockets = wire.client.run(|| (Socket::new(PORT_EVENT), Socket::new(PORT_GENERAL)));
    let (event, general) = sockets.expect("the namespace");
    let crowd = Crowd::new(clients);
    let (is_over, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut row = json!({});
    thread::scope(|scope| {
        scope.spawn(|| crowd.take_all(&event, &general));
        let round_trip_us = round_trips(&general, &crowd);
        let began = Instant::now();
        for _ in 0..PASSES {
            ask_all(&general, &crowd);
            thread::sleep(Duration::from_secs(2));
            if crowd.granted() >= clients {
                break;
            }
        }
        let asked_s = began.elapsed().as_secs_f64();
        if options.requests {
            scope.spawn(|| keep_asking(&event, clients, &is_over, &sent));
            thread::sleep(Duration::from_secs(2));
        }
        let before = port(wire);
        let (cpu, busy) = (cost(pid).0, machine());
        crowd.begin();
        let (began, asked, answers) = (Instant::now(), sent.load(Relaxed), crowd.answers());
        thread::sleep(seconds);
        let took = began.elapsed().as_secs_f64();
        crowd.end();
        let (asked, answers) = (sent.load(Relaxed) - asked, crowd.answers() - answers);
        let (cpu_after, memory_mb) = cost(pid);
        let busy_after = machine();
        thread::sleep(Duration::from_millis(1_100));
        let after = port(wire);
        is_over.store(true, Relaxed);
        let service = |of: &Value, name: &str| {
            of["port"]["unicast"]["service"][name].as_u64().unwrap_or(0) as f64
        };
        let delta = |name: &str| service(&after, name) - service(&before, name);
        row = json!({
            "clients": service(&after, "clients"), "asked_s": asked_s,
            "grant_round_trip_us": round_trip_us, "took_s": took,
            "late_share": delta("late") / delta("sent").max(1.0),
            "skipped_share": delta("skipped") / (delta("sent") + delta("skipped")).max(1.0),
            "cpu_share": (cpu_after - cpu) / took, "memory_mb": memory_mb.round(),
            "machine_busy_share": (busy_after.0 - busy.0) / (busy_after.1 - busy.1).max(0.01),
            "seen": crowd.seen(took), "lost": after["lost"],
        });
        if options.requests {
            row["requests_per_s"] = json!((asked as f64 / took).round());
            row["answered_share"] = json!(answers as f64 / (asked as f64).max(1.0));
        }
        crowd.stop();
    });
    drop(server);
    row
}

fn main() -> ExitCode {
    let mut options = Options::default();
    let mut numbers = Vec::new();
    for argument in env::args().skip(1) {
        match (argument.as_str(), argument.parse::<u64>()) {
            ("requests", _) => options.requests = true,
            ("agent", _) => options.agent_answers = true,
            (_, Ok(number)) => numbers.push(number),
            _ => {
                eprintln!("usage: unicast [SECONDS [CLIENTS...]] [requests] [agent]");
                return ExitCode::from(2);
            }
        }
    }
    let seconds = Duration::from_secs(numbers.first().copied().unwrap_or(5));
    let given = numbers.get(1..).unwrap_or_default();
    let given = if given.is_empty() { &[1_000, 10_000, 30_000, 100_000][..] } else { given };
    let wire = match Wire::new() {
        Ok(wire) => wire,
        Err(reason) => {
            eprintln!("cannot measure: {reason}");
            return ExitCode::from(3);
        }
    };
    // The clients' host is the router to a network of which it has all addresses.
    ip(&wire.grandmaster, "route add 10.64.0.0/12 via 192.0.2.2");
    ip(&wire.client, "route add local 10.64.0.0/12 dev lo");
    for clients in given {
        println!("{}", measure(&wire, *clients, seconds, options));
        let _ = std::io::stdout().flush();
    }
    ExitCode::SUCCESS
}
