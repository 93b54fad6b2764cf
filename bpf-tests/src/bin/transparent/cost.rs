//! What the transparent clock costs: each program per PTP message, and what other packets lose.

use std::{
    any::Any,
    net::UdpSocket,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use aya::{
    Ebpf, EbpfLoader,
    programs::{RawTracePoint, SchedClassifier, TcAttachType},
    sys::{Stats, enable_stats},
};
use bpf_tests::forge::{Party, message, port};
use ptp_agent::{
    bench,
    lab::netns::Namespace,
    transparent::programs::{Departure, Programs},
};
use ptp_common::{
    residence::config,
    wire::{Body, Flags, Header, Timestamp},
};
use serde_json::json;

use crate::{
    network::{address, bridge, host, namespace},
    tell,
};

const PORTS: [&str; 2] = ["port1", "port2"];
/// Packets of a flow: as few as tell something, so that what else the machine does meets all kinds alike.
const PACKETS: u32 = 10_000;
/// In front of each, that the caches are warm.
const WARM: u32 = 1_000;
/// Turns of all three kinds for each run that is asked for.
const TURNS: usize = 40;

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// The programs on both ports, told that somebody is there.
fn ours() -> Result<Programs, String> {
    let mut programs = Programs::load(Departure::default()).map_err(text)?;
    for (number, name) in (1..).zip(PORTS) {
        let ifindex = nix::net::if_::if_nametoindex(name).map_err(text)?;
        programs.attach(ifindex, name).map_err(text)?;
        programs.set_port(ifindex, Some((number, true))).map_err(text)?;
    }
    let mut numbers = [0; config::LENGTH];
    for at in [config::TIME_UNTIL, config::ALTER_UNTIL, config::HOLD_UNTIL] {
        numbers[at] = u64::MAX;
    }
    numbers[config::EVENTS_PER_SECOND] = u64::MAX;
    programs.tell(numbers).map_err(text)?;
    Ok(programs)
}

/// Programs that do nothing, in the same places.
fn empty() -> Result<Ebpf, String> {
    let mut ebpf = EbpfLoader::new().load(bench::OBJECT).map_err(text)?;
    let missing = "the object lacks a program";
    let tc: &mut SchedClassifier =
        ebpf.program_mut("empty_tc").ok_or(missing)?.try_into().map_err(text)?;
    tc.load().map_err(text)?;
    for name in PORTS {
        for hook in [TcAttachType::Ingress, TcAttachType::Egress] {
            tc.attach(name, hook).map_err(text)?;
        }
    }
    let tracepoint: &mut RawTracePoint =
        ebpf.program_mut("empty_start_xmit").ok_or(missing)?.try_into().map_err(text)?;
    tracepoint.load().map_err(text)?;
    for name in ["net_dev_start_xmit", "net_dev_xmit", "kfree_skb"] {
        tracepoint.attach(name).map_err(text)?;
    }
    Ok(ebpf)
}

/// A run of each program on PTP messages, ns.
pub(crate) fn per_message() -> Result<(), String> {
    const MESSAGES: u16 = 2_000;
    let switch = namespace()?;
    let sender = host(&switch, PORTS[0], 1)?;
    let _receiver = host(&switch, PORTS[1], 2)?;
    bridge(&switch, &PORTS)?;
    let mut programs = switch.run(ours).map_err(text)??;
    let _stats = enable_stats(Stats::RunTime).map_err(text)?;
    let party = Party::new(&sender, address(1));
    for sequence_id in 0..MESSAGES {
        let header = |flags| Header { flags, ..Header::new(port(7), sequence_id) };
        let at = Timestamp::default();
        party.event(&message(header(Flags::TWO_STEP), Body::Sync { origin_timestamp: at }));
        let follow_up = Body::FollowUp { precise_origin_timestamp: at };
        party.general(&message(header(Flags::default()), follow_up));
        thread::sleep(Duration::from_micros(200));
    }
    for (name, program) in programs.ebpf().programs() {
        if let Ok(info) = match program {
            aya::programs::Program::SchedClassifier(program) => program.info(),
            aya::programs::Program::RawTracePoint(program) => program.info(),
            _ => continue,
        } {
            let (time, count) = (info.run_time(), info.run_count());
            let each = time.as_nanos() as f64 / count.max(1) as f64;
            tell("cost_per_run", json!({"program": name, "ns": each.round(), "n": count}));
        }
    }
    let forwarding = programs.counts(2);
    let sum: u64 = forwarding.iter().sum();
    tell("cost_messages", json!({"sent": 2 * u32::from(MESSAGES), "counted": sum}));
    switch.run(|| drop(programs)).map_err(text)
}

/// Small packets through the bridge, as fast as one thread can send them, by turns: without programs, with
/// empty ones, with ours. The way of a packet runs on the sender's processor in the sender's time, so its
/// thread's processor time is what a packet takes, whoever else wants the processor; the wall clock is told
/// beside it. Ratios are of neighbours in time.
pub(crate) fn forwarding(turns: usize) -> Result<(), String> {
    let switch = namespace()?;
    let from = host(&switch, PORTS[0], 1)?;
    let to = host(&switch, PORTS[1], 2)?;
    bridge(&switch, &PORTS)?;
    let open = |namespace: &Namespace, at| {
        namespace.run(|| UdpSocket::bind((address(at), 9))).map_err(text)?.map_err(text)
    };
    let receiver = open(&to, 2)?;
    receiver.set_read_timeout(Some(Duration::from_millis(50))).map_err(text)?;
    let sender = open(&from, 1)?;
    sender.connect((address(2), 9)).map_err(text)?;
    let done = AtomicBool::new(false);
    let costs = thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let _ = receiver.recv(&mut [0; 64]);
            }
        });
        let costs = flows(&switch, &sender, turns * TURNS);
        done.store(true, Ordering::Relaxed);
        costs
    })?;
    for (clock, which) in [("processor", 0), ("wall", 1)] {
        let ratio = |of: usize, to: usize| {
            let pairs = costs[of].iter().zip(&costs[to]);
            let mut ratios: Vec<f64> = pairs.map(|(of, to)| of[which] / to[which]).collect();
            ratios.sort_by(f64::total_cmp);
            let at = |share: usize| {
                let ratio = ratios.get(ratios.len() * share / 4).copied().unwrap_or(0.0);
                (ratio * 1e4).round() / 1e4
            };
            json!({"median": at(2), "quartiles": [at(1), at(3)], "n": ratios.len()})
        };
        let each = |kind: usize| {
            let mut all: Vec<f64> = costs[kind].iter().map(|cost| cost[which]).collect();
            all.sort_by(f64::total_cmp);
            all.get(all.len() / 2).copied().unwrap_or(0.0).round()
        };
        tell(
            "cost_forwarding",
            json!({
                "clock": clock, "packet_ns": {"none": each(0), "empty": each(1), "ours": each(2)},
                "rate_empty_to_none": ratio(0, 1), "rate_ours_to_none": ratio(0, 2),
                "rate_ours_to_empty": ratio(1, 2),
            }),
        );
    }
    Ok(())
}

/// Times per packet, ns: of the thread's processor, and by the wall clock.
type Cost = [f64; 2];

/// Of each kind, turn by turn.
fn flows(switch: &Namespace, sender: &UdpSocket, turns: usize) -> Result<[Vec<Cost>; 3], String> {
    let mut costs = [Vec::new(), Vec::new(), Vec::new()];
    let mut order = [0, 1, 2];
    let send = |count| {
        for _ in 0..count {
            let _ = sender.send(&[0; 18]);
        }
    };
    // The first turn warms up.
    for turn in 0..=turns {
        for which in order {
            let attached: Box<dyn Any + Send> = match which {
                1 => Box::new(switch.run(empty).map_err(text)??),
                2 => Box::new(switch.run(ours).map_err(text)??),
                _ => Box::new(()),
            };
            send(WARM);
            let (begin, begin_processor) = (Instant::now(), processor_ns()?);
            send(PACKETS);
            let times = [processor_ns()? - begin_processor, begin.elapsed().as_nanos() as f64];
            if turn > 0 {
                costs[which].push(times.map(|time| time / f64::from(PACKETS)));
            }
            switch.run(|| drop(attached)).map_err(text)?;
        }
        // Every order comes equally often.
        order.rotate_left(1);
        if turn % 3 == 2 {
            order.swap(0, 1);
        }
    }
    Ok(costs)
}

/// What this thread has had of a processor so far, ns.
fn processor_ns() -> Result<f64, String> {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID);
    let time = time.map_err(text)?;
    Ok(time.tv_sec() as f64 * 1e9 + time.tv_nsec() as f64)
}
