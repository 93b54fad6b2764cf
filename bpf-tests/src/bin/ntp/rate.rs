//! Requests answered per second where the server has one processor and who asks has another.

use std::{
    net::{SocketAddr, UdpSocket},
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use bpf_tests::{agent::Agent, children::Running, chrony::Chronyd, links::Wire};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};
use ptp_agent::lab::netns::Namespace;
use ptp_common::ntp::{NtpPacket, NtpTimestamp};
use serde_json::json;

use super::Result;

fn pin(processor: usize, process: Pid) {
    let mut set = CpuSet::new();
    if set.set(processor).is_ok() {
        let _ = sched_setaffinity(process, &set);
    }
}

/// See the module's paragraph.
pub(crate) fn rate(seconds: u64) -> Result<()> {
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
            let process = match (&agent, &mut other) {
                (Some(agent), _) => agent.pid(),
                (None, Some(other)) => other.running().pid(),
                (None, None) => return Err("nobody serves".into()),
            };
            let before = processor_s(process);
            let (sent, answered) = flood(&wire.client, wanted, seconds)?;
            let used_s = processor_s(process) - before;
            drop((agent.take(), other.as_mut().map(|it| it.running().stop())));
            let each = |total: u64| (total as f64 / seconds as f64).round();
            println!(
                "{}",
                json!({
                    "event": "bench", "name": "ntp rate", "server": server, "wanted_per_second": wanted,
                    "asked_per_second": each(sent), "answered_per_second": each(answered),
                    "processor_s": (used_s * 100.0).round() / 100.0,
                    "answered_per_processor_second": (answered as f64 / used_s).round(),
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

/// What a process has used of processors until now, s: however busy they are with other things, this is what its answers cost.
fn processor_s(process: u32) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // Behind the name, which is in parentheses: state and ten others, then ticks of 10 ms in the process and in the kernel.
    let behind = text.rsplit_once(')').map_or("", |(_, behind)| behind);
    let ticks = behind.split_whitespace().skip(11).take(2).filter_map(|it| it.parse::<f64>().ok());
    ticks.sum::<f64>() / 100.0
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
