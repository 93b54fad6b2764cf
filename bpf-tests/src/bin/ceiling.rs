//! How many Delay_Req a second the kernel answers at the most. `ceiling [SECONDS [RATE...]]`: requests of ever other clients
//! are put on a veth by one thread, past all queues, pinned to processor 0, at each rate (0: as fast as it can); on the other
//! side XDP answers in a NAPI thread pinned to the last processor, or TC in the sender's own softirq. Answers are
//! counted and dropped by XDP as they come back. One line of JSON for each. Needs root.

use std::{
    env, fs,
    os::fd::{AsRawFd, OwnedFd},
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use bpf_tests::{
    agent::Agent,
    forge::port,
    links::{Wire, mac, output},
    neighbour::{Act, Neighbour},
    transparent::{Carrier, delay_req},
};
use nix::{
    net::if_::if_nametoindex,
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};
use ptp_agent::sys::packet;
use serde_json::json;

const START: Duration = Duration::from_secs(30);
/// Frames in one system call.
const BATCH: usize = 64;
const MODES: [(&str, &str); 2] = [("xdp", "answered by XDP"), ("tc", "answered in the kernel")];

fn pin(pid: i32, processor: usize) {
    let mut set = CpuSet::new();
    if set.set(processor).is_ok() {
        let _ = sched_setaffinity(Pid::from_raw(pid), &set);
    }
}

/// Sends for so long; how many the driver has taken.
fn flood(socket: &impl AsRawFd, frame: &[u8], rate: u64, seconds: Duration) -> u64 {
    let mut frames = vec![frame.to_vec(); BATCH];
    // Behind the message's first twenty octets.
    let identity = frame.len() - 44 + 20;
    let begin = Instant::now();
    let mut sent = 0_u64;
    while begin.elapsed() < seconds {
        // Without a rate nothing is waited for.
        if let Some(due_ns) = (sent * 1_000_000_000).checked_div(rate) {
            let due = begin + Duration::from_nanos(due_ns);
            while Instant::now() < due {
                std::hint::spin_loop();
            }
        }
        for (number, frame) in (0..).zip(&mut frames) {
            frame[identity..identity + 8]
                .copy_from_slice(&((sent + number) | 1 << 60).to_be_bytes());
        }
        let mut parts: Vec<libc::iovec> = frames
            .iter_mut()
            .map(|frame| libc::iovec { iov_base: frame.as_mut_ptr().cast(), iov_len: frame.len() })
            .collect();
        let mut messages: Vec<libc::mmsghdr> = parts
            .iter_mut()
            .map(|part| {
                // SAFETY: a structure of integers and pointers, for which zero is valid.
                let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
                message.msg_hdr.msg_iov = part;
                message.msg_hdr.msg_iovlen = 1;
                message
            })
            .collect();
        // SAFETY: as many messages as is said, each with one part that lives through the call.
        let done =
            unsafe { libc::sendmmsg(socket.as_raw_fd(), messages.as_mut_ptr(), BATCH as u32, 0) };
        sent += u64::try_from(done).unwrap_or(0);
    }
    sent
}

/// Frames that XDP has dropped on the client's end.
fn dropped(wire: &Wire) -> u64 {
    let text = output(wire.client.command("ethtool").args(["-S", "ptp0"]));
    let of = |name: &str| {
        let lines = text.lines().filter(|line| line.contains(name));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum::<u64>()
    };
    // The name has changed.
    of("xdp_drops:")
}

/// Time that a thread has had of a processor, s.
fn processor_s(pid: u32) -> f64 {
    let Ok(line) = fs::read_to_string(format!("/proc/{pid}/schedstat")) else { return 0.0 };
    let first = line.split_whitespace().next().and_then(|word| word.parse::<f64>().ok());
    first.unwrap_or(0.0) / 1e9
}

/// The NAPI threads of an interface.
fn napi_threads(interface: &str) -> Vec<u32> {
    let name = format!("napi/{interface}-");
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| {
            fs::read_to_string(format!("/proc/{pid}/comm"))
                .is_ok_and(|comm| comm.starts_with(&name))
        })
        .collect()
}

fn measure(
    (mode, proof): (&str, &str),
    rate: u64,
    seconds: Duration,
) -> Result<serde_json::Value, String> {
    let wire = Wire::new()?;
    let counting = wire.client.run(|| Neighbour::attach_in_driver("ptp0", Act::Drop));
    let _counting =
        counting.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
    let arguments = [
        "serve",
        "-i",
        "gm0",
        "--kernel-answers",
        mode,
        "--answers-per-second",
        "10000000",
        "--transport",
        "l2",
    ];
    let agent = Agent::start_only(&wire.grandmaster, &arguments);
    agent.wait_for_text(0, START, proof);
    let last = thread::available_parallelism().map_or(1, usize::from) - 1;
    if mode == "xdp" {
        // Sysfs shows the interfaces of the namespace in which it was mounted.
        let threaded = "mount -t sysfs none /sys && echo 1 > /sys/class/net/gm0/threaded";
        let mut command = wire.grandmaster.command("unshare");
        output(command.args(["--mount", "sh", "-c", threaded]));
    }
    let threads = napi_threads("gm0");
    for thread in &threads {
        pin(thread.cast_signed(), last);
    }
    let open = || -> std::io::Result<OwnedFd> {
        let socket = packet::open_frame_sender()?;
        packet::bypass_queue(&socket)?;
        let index = if_nametoindex("ptp0")?;
        packet::bind_frames(&socket, index)?;
        Ok(socket.into())
    };
    let socket = wire.client.run(open).map_err(|error| error.to_string())?;
    let socket = socket.map_err(|error| error.to_string())?;
    let mut frame = Carrier::Ethernet.frame(&delay_req(port(1), 0));
    frame.truncate(14 + 44);
    frame[6..12].copy_from_slice(&mac(&wire.client, "ptp0"));
    let before = dropped(&wire);
    let processor = || threads.iter().map(|pid| processor_s(*pid)).sum::<f64>();
    let had = processor();
    let begin = Instant::now();
    let sent = thread::scope(|scope| {
        let sender = scope.spawn(|| {
            pin(0, 0);
            flood(&socket, &frame, rate, seconds)
        });
        sender.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    let took = begin.elapsed().as_secs_f64();
    thread::sleep(Duration::from_millis(200));
    let answered = dropped(&wire) - before;
    drop(agent);
    Ok(json!({
        "event": "bench", "name": "ceiling", "hook": mode, "rate_wanted": rate,
        "sent_per_second": (sent as f64 / took).round(),
        "answered_per_second": (answered as f64 / took).round(),
        "answered_share": answered as f64 / sent.max(1) as f64,
        "napi_threads": threads.len(),
        "napi_processor_share": (processor() - had) / took,
    }))
}

fn main() -> ExitCode {
    let arguments: Vec<u64> = env::args().skip(1).filter_map(|word| word.parse().ok()).collect();
    let (seconds, rates) = arguments.split_first().map_or((4, &[][..]), |(s, rates)| (*s, rates));
    let rates = if rates.is_empty() { &[200_000, 400_000, 800_000, 0][..] } else { rates };
    for mode in MODES {
        for rate in rates {
            match measure(mode, *rate, Duration::from_secs(seconds)) {
                Ok(line) => println!("{line}"),
                Err(reason) => {
                    eprintln!("cannot measure: {reason}");
                    return ExitCode::FAILURE;
                }
            }
        }
    }
    ExitCode::SUCCESS
}
