//! What NTP by the agent's stamps is worth, beside chronyd in the same run. All namespaces share one clock, so every
//! nanosecond of offset is error. `ntp [WHAT [SECONDS]]`, where WHAT is
//! `clients` (the agent and chronyd ask the same chronyd, on a veth pair and on a bridge, basic and interleaved),
//! `servers` (chronyd asks the agent, and another chronyd beside it),
//! `witness` (how long it takes until two servers of NTP find a grandmaster that is wrong, and false alarms),
//! `rate` (requests answered on one processor) or `picture` (where the time goes: user space, TC, driver, wire).
//! One line of JSON for each. Needs root and chronyd.

use std::{
    env,
    net::{SocketAddr, UdpSocket},
    process::ExitCode,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use bpf_tests::{
    agent::Agent,
    children::Running,
    chrony::Chronyd,
    links::{Star, Wire, ip},
};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use ptp_agent::{
    lab::netns::Namespace,
    sys::clock::{monotonic, realtime_minus_monotonic},
};
use ptp_common::ntp::{NtpPacket, NtpTimestamp};
use serde_json::{Value, json};

/// What was settling, s.
const SETTLING: f64 = 8.0;
/// Between the asking of both clients: 4 a second.
const POLL: &str = "-2";

type Result<T> = std::result::Result<T, String>;

/// Mean, rms, median of the magnitude, and how many.
fn figures(mut values: Vec<f64>) -> Value {
    let n = values.len().max(1) as f64;
    let mean = values.iter().sum::<f64>() / n;
    let rms = (values.iter().map(|it| it * it).sum::<f64>() / n).sqrt();
    let sd = (rms * rms - mean * mean).max(0.0).sqrt();
    values.sort_unstable_by(|a, b| a.abs().total_cmp(&b.abs()));
    let median = values.get(values.len() / 2).copied().unwrap_or(f64::NAN).abs();
    json!({"n": values.len(), "mean": mean.round(), "sd": sd.round(), "rms": rms.round(), "median": median.round()})
}

fn rms(values: &Value) -> f64 {
    values["rms"].as_f64().unwrap_or(f64::NAN)
}

/// What an exchange alone says, ns: its error.
fn raw(line: &Value, real_minus_mono: i64) -> Option<f64> {
    let at = |name: &str| line[name].as_i64();
    let (t1, t4) = (at("t1_mono_ns")? + real_minus_mono, at("t4_mono_ns")? + real_minus_mono);
    let (there, back) = (at("t2_ns")? - t1, at("t3_ns")? - t4);
    Some((there + back) as f64 / 2.0)
}

/// The error of the agent's clock at each of its samples, ns.
fn clock_errors(agent: &Agent, since_mono_ns: i64, real_minus_mono: i64) -> Vec<f64> {
    let lines = agent.events(0, "clock");
    let samples = agent.samples(0).into_iter();
    let locked = samples
        .filter(|it| it["state"] == "locked" && it["mono_ns"].as_i64() >= Some(since_mono_ns));
    locked
        .filter_map(|sample| {
            let mono = sample["mono_ns"].as_i64()?;
            let line = lines.iter().rev().find(|line| line["mono_ns"].as_i64() <= Some(mono))?;
            let since = (mono - line["mono_ns"].as_i64()?) as f64;
            let gained = since * line["frequency_ppb"].as_f64()? * 1e-9;
            let shown =
                (line["clock_ns"].as_i64()? - line["mono_ns"].as_i64()? - real_minus_mono) as f64;
            Some(shown + gained)
        })
        .collect()
}

fn clients(seconds: u64) -> Result<()> {
    for (link, interface) in [("veth", "ptp0"), ("bridge", "br0")] {
        for mode in ["basic", "interleaved"] {
            let wire = Wire::new()?;
            if link == "bridge" {
                for command in [
                    "link add br0 type bridge",
                    "address del 192.0.2.2/24 dev ptp0",
                    "link set ptp0 master br0",
                    "address add 192.0.2.2/24 dev br0",
                    "link set br0 up",
                ] {
                    ip(&wire.client, command);
                }
            }
            let mut server = Chronyd::server(&wire.grandmaster)?;
            let xleave = if mode == "interleaved" { " xleave" } else { "" };
            let options = format!("minpoll {POLL} maxpoll {POLL}{xleave}");
            let mut chronyd = Chronyd::client(&wire.client, "192.0.2.1", &options)?;
            let real_minus_mono = realtime_minus_monotonic().as_nanos();
            let begin = monotonic().as_nanos();
            let run = ["run", "-i", interface, "--follow", "ntp", "--ntp", "192.0.2.1"];
            let more = ["--ntp-poll", POLL, "--ntp-mode", mode, "--clock", "virtual"];
            let mut agent = Agent::start_only(&wire.client, &[&run[..], &more[..]].concat());
            thread::sleep(Duration::from_secs(seconds));
            agent.finish();
            let (measured, tracked) = (chronyd.measurements(), chronyd.tracked());
            chronyd.running().stop();
            server.running().stop();
            let since = begin + (SETTLING * 1e9) as i64;
            let exchanges = agent.events(0, "ntp").into_iter();
            let ours = exchanges
                .filter(|line| line["t4_mono_ns"].as_i64() >= Some(since))
                .filter_map(|line| raw(&line, real_minus_mono))
                .collect();
            let skip = (SETTLING * 4.0) as usize;
            let theirs = measured.iter().skip(skip).map(|it| it.offset_s * 1e9).collect();
            let mut found: Vec<f64> = tracked.iter().skip(skip).map(|it| it * 1e9).collect();
            if found.is_empty() {
                found = tracked.iter().map(|it| it * 1e9).collect();
            }
            let clock = figures(clock_errors(&agent, since, real_minus_mono));
            let (ours, theirs, found) = (figures(ours), figures(theirs), figures(found));
            let stamps = measured.last().map(|it| it.stamps.join(""));
            println!(
                "{}",
                json!({
                    "event": "bench", "name": "ntp clients", "link": link, "mode": mode,
                    "agent_exchange_ns": ours, "chronyd_exchange_ns": theirs,
                    "exchange_rms_ratio": rms(&ours) / rms(&theirs),
                    "agent_clock_ns": clock, "chronyd_clock_ns": found,
                    "clock_rms_ratio": rms(&clock) / rms(&found),
                    "clock_to_exchange_ratio": rms(&clock) / rms(&theirs),
                    "chronyd_stamps": stamps,
                })
            );
        }
    }
    Ok(())
}

fn servers(seconds: u64) -> Result<()> {
    for xleave in ["", " xleave"] {
        let mut all = Vec::new();
        for server in ["agent", "chronyd"] {
            let wire = Wire::new()?;
            let (mut agent, mut other) = (None, None);
            if server == "agent" {
                let serve =
                    ["serve", "-i", "gm0", "--ntp", "--ntp-stratum", "1", "--clock", "system"];
                let started = Agent::start(&wire.grandmaster, &serve);
                started.wait_for_text(0, Duration::from_secs(20), "serving NTP");
                agent = Some(started);
            } else {
                other = Some(Chronyd::server(&wire.grandmaster)?);
            }
            let options = format!("minpoll {POLL} maxpoll {POLL}{xleave}");
            let mut client = Chronyd::client(&wire.client, "192.0.2.1", &options)?;
            thread::sleep(Duration::from_secs(seconds));
            let measured = client.measurements();
            client.running().stop();
            drop((
                agent.as_mut().map(|it| it.finish()),
                other.as_mut().map(|it| it.running().stop()),
            ));
            let skip = (SETTLING * 4.0) as usize;
            let offsets = measured.iter().skip(skip).map(|it| it.offset_s * 1e9).collect();
            let delays = measured.iter().skip(skip).map(|it| it.delay_s * 1e9).collect();
            all.push((figures(offsets), figures(delays)));
        }
        println!(
            "{}",
            json!({
                "event": "bench", "name": "ntp servers", "mode": if xleave.is_empty() { "basic" } else { "interleaved" },
                "of_agent_ns": all[0].0, "of_chronyd_ns": all[1].0,
                "rms_ratio": rms(&all[0].0) / rms(&all[1].0),
                "delay_of_agent_ns": all[0].1, "delay_of_chronyd_ns": all[1].1,
            })
        );
    }
    Ok(())
}

/// A grandmaster in one leaf, two servers of NTP in two, the agent in the fourth. The grandmaster is wrong by so much,
/// or drifts by so much, from the beginning.
fn witness(seconds: u64) -> Result<()> {
    let faults: [(&str, &[&str]); 5] = [
        ("right", &[]),
        ("10 us", &["--offset", "0.00001"]),
        ("1 ms", &["--offset", "0.001"]),
        ("1 day", &["--offset", "86400"]),
        ("1 ppm", &["--clock", "virtual", "--drift", "1"]),
    ];
    for (name, options) in faults {
        let star = Star::new(4)?;
        let [gm, one, two, client] = &star.leaves[..] else { return Err("four leaves".into()) };
        let mut servers = [Chronyd::server(one)?, Chronyd::server(two)?];
        let serve =
            ["serve", "-i", "eth0", "--log-sync-interval", "-3", "--log-announce-interval", "0"];
        let more = ["--log-min-delay-req-interval", "-3"];
        let run = ["run", "-i", "eth0", "--ntp", "192.0.2.2,192.0.2.3", "--ntp-poll", POLL];
        let then = ["--clock", "virtual", "--on-disagreement", "holdover"];
        let agent = Agent::start(client, &[&run[..], &then[..]].concat());
        // Known before the grandmaster is there.
        agent.wait_for(0, Duration::from_secs(30), "two servers", |_| {
            (agent.events(0, "ntp").len() >= 16).then_some(())
        });
        let begin = Instant::now();
        let grandmaster = Agent::start(gm, &[&serve[..], &more[..], options].concat());
        let found = loop {
            let text = agent
                .lines()
                .iter()
                .any(|line| line.text.contains("alarm=\"grandmaster_contradicted\""));
            if text {
                break Some(begin.elapsed().as_secs_f64());
            }
            if begin.elapsed() > Duration::from_secs(seconds) {
                break None;
            }
            thread::sleep(Duration::from_millis(50));
        };
        let followed = agent.lines().iter().any(|line| line.text.contains(": following "));
        println!(
            "{}",
            json!({
                "event": "bench", "name": "ntp witness", "fault": name, "found_after_s": found,
                "waited_s": seconds, "grandmaster_was_heard": followed,
            })
        );
        drop((agent, grandmaster));
        for server in &mut servers {
            server.running().stop();
        }
    }
    Ok(())
}

fn pin(processor: usize, process: Pid) {
    let mut set = CpuSet::new();
    if set.set(processor).is_ok() {
        let _ = sched_setaffinity(process, &set);
    }
}

fn rate(seconds: u64) -> Result<()> {
    for server in ["agent", "chronyd"] {
        for wanted in [20_000_u64, 50_000, 100_000, 200_000] {
            let wire = Wire::new()?;
            let (mut agent, mut other) = (None, None);
            if server == "agent" {
                let serve =
                    ["serve", "-i", "gm0", "--ntp", "--ntp-stratum", "1", "--clock", "system"];
                let more = ["--ntp-answers-per-second", "1000000"];
                let started = Agent::start(&wire.grandmaster, &[&serve[..], &more[..]].concat());
                started.wait_for_text(0, Duration::from_secs(20), "serving NTP");
                pin_all(&started, 0);
                agent = Some(started);
            } else {
                let mut started = Chronyd::server(&wire.grandmaster)?;
                thread::sleep(Duration::from_secs(1));
                pin_all(started.running(), 0);
                other = Some(started);
            }
            let (sent, answered) = flood(&wire.client, wanted, seconds)?;
            drop((agent.take(), other.as_mut().map(|it| it.running().stop())));
            let each = |total: u64| (total as f64 / seconds as f64).round();
            println!(
                "{}",
                json!({
                    "event": "bench", "name": "ntp rate", "server": server, "wanted_per_second": wanted,
                    "asked_per_second": each(sent), "answered_per_second": each(answered),
                })
            );
        }
    }
    Ok(())
}

fn pin_all(running: &Running, processor: usize) {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", running.pid()));
    for task in tasks.into_iter().flatten().flatten() {
        if let Some(id) = task.file_name().to_str().and_then(|it| it.parse().ok()) {
            pin(processor, Pid::from_raw(id));
        }
    }
}

/// Requests at a rate, as far as the machine can, and answers.
fn flood(client: &Namespace, rate: u64, seconds: u64) -> Result<(u64, u64)> {
    const BURST: u64 = 16;
    let server: SocketAddr = ([192, 0, 2, 1], 123).into();
    let socket = client
        .run(|| UdpSocket::bind("192.0.2.2:0"))
        .map_err(|error| error.to_string())?
        .map_err(|error| error.to_string())?;
    let _ =
        nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::RcvBufForce, &(64 << 20));
    socket.connect(server).map_err(|error| error.to_string())?;
    socket.set_read_timeout(Some(Duration::from_millis(50))).map_err(|error| error.to_string())?;
    let (answered, over) = (AtomicU64::new(0), AtomicBool::new(false));
    let mut sent = 0;
    thread::scope(|scope| {
        scope.spawn(|| {
            pin(1, Pid::from_raw(0));
            let mut buffer = [0; 128];
            while !over.load(Relaxed) {
                if socket.recv(&mut buffer).is_ok() {
                    answered.fetch_add(1, Relaxed);
                }
            }
        });
        pin(1, Pid::from_raw(0));
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(seconds) {
            let due = begin + Duration::from_nanos(sent * 1_000_000_000 / rate);
            thread::sleep(due.saturating_duration_since(Instant::now()));
            for _ in 0..BURST {
                let request = NtpPacket::request(NtpTimestamp(sent << 8 | 1), 4).to_bytes();
                sent += u64::from(socket.send(&request).is_ok());
            }
        }
        thread::sleep(Duration::from_millis(300));
        over.store(true, Relaxed);
    });
    Ok((sent, answered.load(Relaxed)))
}

fn main() -> ExitCode {
    let mut arguments = env::args().skip(1);
    let what = arguments.next();
    let seconds = arguments.next().and_then(|it| it.parse::<u64>().ok());
    type Part = (&'static str, fn(u64) -> Result<()>, u64);
    let parts: [Part; 4] = [
        ("clients", clients, 60),
        ("servers", servers, 60),
        ("witness", witness, 90),
        ("rate", rate, 3),
    ];
    for (name, measure, usual) in parts {
        if what.as_deref().is_some_and(|what| what != name) {
            continue;
        }
        if let Err(reason) = measure(seconds.unwrap_or(usual)) {
            eprintln!("cannot measure {name}: {reason}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
