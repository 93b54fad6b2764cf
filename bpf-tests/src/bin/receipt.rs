//! How near to the truth the receive stamps of a server are, and what that is worth to a client.
//! `receipt [ROUNDS [REQUESTS [SECONDS]]]`: first, in so many rounds in turn, `ptp4l -S`, the agent itself, and the kernel at
//! TC and by XDP answer so many Delay_Req, 15 ms apart, over a veth pair of two namespaces with one clock: the answer's
//! time minus the instant at which the client's driver was handed the request. Then, as often, `ptp-agent lab` for so many seconds
//! with the answers of each: the client's true error, over that against the agent's own answers in the same round.
//! One line of JSON for each, medians over the rounds at the end. Needs root and linuxptp.

use std::{
    collections::BTreeMap,
    env,
    io::IoSliceMut,
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    os::fd::AsRawFd as _,
    process::{Command, ExitCode},
    thread,
    time::{Duration, Instant},
};

use bpf_tests::{
    agent::{Agent, binary},
    forge::port,
    links::{Wire, output},
    ptp4l::Ptp4l,
    transparent::delay_req,
};
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrStorage, TimestampingFlag, recvmsg, setsockopt, sockopt,
};
use ptp_common::{
    classify::{PORT_EVENT, PORT_GENERAL},
    time::{Ptp, Time},
    wire::{Body, Message},
};
use serde_json::{Value, json};
use socket2::{Domain, Protocol, Socket, Type};

const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 1, 129);
const CLIENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// Between two requests.
const PAUSE: Duration = Duration::from_millis(15);
/// How long a server may take to begin.
const START: Duration = Duration::from_secs(30);
const SECOND_NS: i64 = 1_000_000_000;
const SERVERS: [&str; 4] = ["ptp4l", "agent", "tc", "xdp"];
/// Of the answers, so many of a hundred at either end are left out of the spread.
const TRIMMED: usize = 1;

fn socket(port: u16) -> UdpSocket {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)).expect("a socket");
    socket.set_reuse_address(true).expect("reuse");
    socket.bind(&SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port).into()).expect("the port");
    socket.join_multicast_v4(&GROUP, &CLIENT).expect("the group");
    socket.set_multicast_if_v4(&CLIENT).expect("the interface");
    socket.set_multicast_loop_v4(false).expect("no loop");
    socket.set_read_timeout(Some(Duration::from_millis(200))).expect("a timeout");
    socket.into()
}

/// When the driver was handed the last packet, CLOCK_REALTIME, ns.
fn departure(socket: &UdpSocket) -> Option<i64> {
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_millis(100) {
        let mut buffer = [0; 128];
        let mut parts = [IoSliceMut::new(&mut buffer)];
        let mut space = nix::cmsg_space!([u8; 256]);
        let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
        let fd = socket.as_raw_fd();
        let Ok(received) = recvmsg::<SockaddrStorage>(fd, &mut parts, Some(&mut space), flags)
        else {
            thread::sleep(Duration::from_micros(100));
            continue;
        };
        let Ok(mut further) = received.cmsgs() else { continue };
        let stamp = further.find_map(|message| match message {
            ControlMessageOwned::ScmTimestampsns(times) => {
                Some(times.system.tv_sec() * SECOND_NS + times.system.tv_nsec())
            }
            _ => None,
        });
        if stamp.is_some() {
            return stamp;
        }
    }
    None
}

/// The time in the answer to a request.
fn answer(socket: &UdpSocket, number: u16) -> Option<i64> {
    let mut buffer = [0; 256];
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_millis(200) {
        let Ok(length) = socket.recv(&mut buffer) else { continue };
        let Ok(Message { header, body, .. }) = Message::parse(&buffer[..length]) else { continue };
        if let Body::DelayResp { receive_timestamp, .. } = body
            && header.sequence_id == number
        {
            return Some(Time::<Ptp>::from(receive_timestamp).as_nanos());
        }
    }
    None
}

/// Answers' times minus departures, ns; whole seconds between time scales are left out.
fn differences(server: &str, requests: u16) -> Result<Vec<i64>, String> {
    let wire = Wire::new()?;
    // What XDP sends is taken at the other end of a veth only with NAPI.
    if server == "xdp" {
        output(wire.client.command("ethtool").args(["-K", "ptp0", "gro", "on"]));
    }
    let mode = match server {
        "agent" => "off",
        other => other,
    };
    let (mut agent, mut ptp4l) = (None, None);
    if server == "ptp4l" {
        ptp4l = Some(Ptp4l::grandmaster(&wire.grandmaster, &["gm0"], &[])?);
    } else {
        let arguments = ["serve", "-i", "gm0", "--kernel-answers", mode];
        let started = Agent::start_only(&wire.grandmaster, &arguments);
        let proof = match server {
            "tc" => "answered in the kernel",
            "xdp" => "answered by XDP",
            _ => "serving",
        };
        started.wait_for_text(0, START, proof);
        agent = Some(started);
    }
    let open = || {
        let event = socket(PORT_EVENT);
        let flags = TimestampingFlag::SOF_TIMESTAMPING_TX_SOFTWARE
            | TimestampingFlag::SOF_TIMESTAMPING_SOFTWARE
            | TimestampingFlag::SOF_TIMESTAMPING_OPT_TSONLY;
        setsockopt(&event, sockopt::Timestamping, &flags).map(|()| (event, socket(PORT_GENERAL)))
    };
    let opened = wire.client.run(open).map_err(|error| error.to_string())?;
    let (event, general) = opened.map_err(|error| error.to_string())?;
    let mut all = Vec::new();
    for number in 1..=requests {
        let request = delay_req(port(7), number);
        let sent = event.send_to(&request, (GROUP, PORT_EVENT));
        sent.map_err(|error| error.to_string())?;
        if let (Some(left), Some(arrived)) = (departure(&event), answer(&general, number)) {
            let apart = (arrived - left).rem_euclid(SECOND_NS);
            all.push(if apart > SECOND_NS / 2 { apart - SECOND_NS } else { apart });
        }
        thread::sleep(PAUSE);
    }
    drop((agent.take(), ptp4l.take()));
    if all.len() < usize::from(requests) / 2 {
        return Err(format!("only {} of {requests} answers", all.len()));
    }
    Ok(all)
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Median and standard deviation without the ends.
fn figures(mut all: Vec<i64>) -> (f64, f64) {
    all.sort_unstable();
    let middle = all[all.len() / 2] as f64;
    let cut = all.len() * TRIMMED / 100;
    let kept = &all[cut..all.len() - cut];
    let mean = kept.iter().sum::<i64>() as f64 / kept.len() as f64;
    let squares: f64 = kept.iter().map(|each| (*each as f64 - mean).powi(2)).sum();
    (middle, (squares / kept.len() as f64).sqrt())
}

/// Of a client: root of the mean square of its true error, and its mean, ns.
fn true_error(mode: &str, seconds: &str) -> Result<(f64, f64), String> {
    let mut command = Command::new(binary());
    command.args(["lab", "--json", "--duration", seconds, "--kernel-answers", mode]);
    let done = command.output().map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&done.stdout);
    let summary = text.lines().rev().find_map(|line| {
        let line: Value = serde_json::from_str(line).ok()?;
        (line["event"] == "summary").then_some(line)
    });
    let error = summary
        .map(|it| (it["true_error_ns"]["rms"].as_f64(), it["true_error_ns"]["mean"].as_f64()));
    match error {
        Some((Some(rms), Some(mean))) => Ok((rms, mean)),
        _ => Err(format!("no summary of lab: {}", String::from_utf8_lossy(&done.stderr))),
    }
}

fn measure(rounds: usize, requests: u16, seconds: &str) -> Result<(), String> {
    let mut rows: BTreeMap<&str, [Vec<f64>; 2]> = BTreeMap::new();
    for round in 0..rounds {
        for server in SERVERS {
            let all = differences(server, requests)?;
            let n = all.len();
            let (middle, sd) = figures(all);
            println!(
                "{}",
                json!({ "event": "round", "name": "receipt", "round": round, "server": server, "n": n,
                        "median_ns": middle, "trimmed_sd_ns": sd })
            );
            let row = rows.entry(server).or_default();
            row[0].push(middle);
            row[1].push(sd);
        }
    }
    for (server, [medians, sds]) in &mut rows {
        println!(
            "{}",
            json!({ "event": "bench", "name": "receipt", "server": server, "rounds": rounds,
                    "requests": requests, "median_ns": median(medians), "trimmed_sd_ns": median(sds) })
        );
    }
    let mut ratios = Vec::new();
    for round in 0..rounds {
        let (own, own_mean) = true_error("off", seconds)?;
        let (kernel, kernel_mean) = true_error("tc", seconds)?;
        println!(
            "{}",
            json!({ "event": "round", "name": "true_error", "round": round, "agent_rms_ns": own,
                    "agent_mean_ns": own_mean, "kernel_rms_ns": kernel, "kernel_mean_ns": kernel_mean,
                    "ratio": kernel / own })
        );
        ratios.push(kernel / own);
    }
    println!(
        "{}",
        json!({ "event": "bench", "name": "true_error", "rounds": rounds,
                "kernel_over_agent": median(&mut ratios), "target": 1.0 })
    );
    Ok(())
}

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let number = |at: usize, default: u16| {
        arguments.get(at).and_then(|word| word.parse().ok()).unwrap_or(default)
    };
    let seconds = number(2, 30).to_string();
    match measure(number(0, 3).into(), number(1, 300), &seconds) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("cannot measure: {reason}");
            ExitCode::FAILURE
        }
    }
}
