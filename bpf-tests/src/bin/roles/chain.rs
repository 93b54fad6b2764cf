//! Two chains of boundary clocks behind one grandmaster, ours and linuxptp's, each with a client of linuxptp's at the end. The
//! clients measure what they are told against the host's clock, which is also the grandmaster's: what they see
//! is the error of the last boundary clock and of the last wire.

use std::{path::Path, thread, time::Duration};

use bpf_tests::{agent::Agent, children::Running, ptp4l::Ptp4l};
use nix::time::{ClockId, clock_gettime};
use ptp_agent::lab::netns::Namespace;
use serde_json::json;

use crate::{
    Measured, Options, PATIENCE, RATES, boundary, figures, follows, grandmaster, median, namespace,
    own_clock, tell, wire,
};

/// Before anything is counted: so long after the last client has begun.
const WARM_UP: Duration = Duration::from_secs(30);
/// Networks of the two chains.
const OURS: u8 = 77;
const THEIRS: u8 = 78;
/// How far CLOCK_REALTIME may run from CLOCK_MONOTONIC in a round, ns: nobody steers here, and a step would be much more.
const UNTOUCHED_NS: i64 = 1_000_000;
const CLIENT: &str = "slaveOnly 1\nsummary_interval -4\nfreq_est_interval 0\n";

/// Namespaces of a chain behind the grandmaster, with wires from `root`.
fn links(root: &Namespace, first: &str, count: u8, net: u8) -> Result<Vec<Namespace>, String> {
    let mut nodes: Vec<Namespace> = Vec::new();
    for n in 0..=count {
        let node = namespace()?;
        let (from, port) = match nodes.last() {
            Some(before) => (before, &*format!("down{}", n - 1)),
            None => (root, first),
        };
        // A pair is made in one namespace before an end of it is moved: names differ from clock to clock.
        wire((from, port), (&node, &format!("up{n}")), [net, n])?;
        nodes.push(node);
    }
    Ok(nodes)
}

fn real_minus_monotonic_ns() -> i64 {
    let nanos = |clock| {
        clock_gettime(clock).map_or(0, |time| time.tv_sec() * 1_000_000_000 + time.tv_nsec())
    };
    nanos(ClockId::CLOCK_REALTIME) - nanos(ClockId::CLOCK_MONOTONIC)
}

/// Offsets that a client prints within the time, ns, in order of time.
fn offsets(client: &Ptp4l, from: usize) -> Vec<f64> {
    client.offsets().get(from..).unwrap_or_default().iter().map(|each| *each as f64).collect()
}

/// Lines behind a mark that contain a text.
fn told(running: &Running, mark: usize, text: &str) -> usize {
    let lines = running.lines();
    lines.iter().skip(mark).filter(|line| line.text.contains(text)).count()
}

/// The interfaces of the clock with a number.
fn interfaces(n: usize) -> [String; 2] {
    [format!("up{n}"), format!("down{n}")]
}

fn theirs(nodes: &[Namespace], library: &Path) -> Result<Vec<Ptp4l>, String> {
    let start = |(n, node)| {
        let [up, down] = &interfaces(n);
        Ptp4l::on_own_clock(node, library, &[up, down], &[RATES])
    };
    nodes.iter().enumerate().map(start).collect()
}

/// By how much a clock of ours was ahead of the host's in the mean, ns; `None` where it has not said.
fn mean_error(clock: &Agent, mark: usize) -> Option<i64> {
    let offsets = clock.events(mark, "host");
    let offsets: Vec<i64> = offsets.iter().filter_map(|it| it["offset_ns"].as_i64()).collect();
    let count = i64::try_from(offsets.len()).ok().filter(|count| *count > 0)?;
    Some(-offsets.iter().sum::<i64>() / count)
}

pub(crate) fn measure(options: &Options) -> Measured {
    let library = own_clock()?;
    let before = real_minus_monotonic_ns();
    let mut ratios = [Vec::new(), Vec::new()];
    for round in 0..options.rounds {
        let root = namespace()?;
        let our_nodes = links(&root, "gm0", options.clocks, OURS)?;
        let their_nodes = links(&root, "gm1", options.clocks, THEIRS)?;
        let _grandmaster = grandmaster(&root, &["gm0", "gm1"])?;
        let (our_last, our_clocks) = our_nodes.split_last().ok_or("no chain")?;
        let (their_last, their_clocks) = their_nodes.split_last().ok_or("no chain")?;
        let more: Vec<&str> = options.with.iter().map(String::as_str).collect();
        let start = |(n, node)| {
            let [up, down] = &interfaces(n);
            boundary(node, &[up, down], &more)
        };
        let ours: Vec<Agent> = our_clocks.iter().enumerate().map(start).collect();
        let _theirs = theirs(their_clocks, &library)?;
        let end = format!("up{}", options.clocks);
        let clients = [
            Ptp4l::start(our_last, &[&end], &[RATES, CLIENT])?,
            Ptp4l::start(their_last, &[&end], &[RATES, CLIENT])?,
        ];
        for clock in &ours {
            follows(clock, 0);
        }
        for client in &clients {
            client.wait_for_text(0, PATIENCE, "master offset");
        }
        thread::sleep(WARM_UP);
        let marks = clients.each_ref().map(|client| client.offsets().len());
        let lines = clients.each_ref().map(|client| client.mark());
        let clocks: Vec<usize> = ours.iter().map(|clock| clock.mark()).collect();
        thread::sleep(options.seconds);
        // What makes measurements fewer than one a second.
        let faults = [0, 1].map(|at| told(&clients[at], lines[at], " to FAULTY"));
        let changes: usize =
            ours.iter().zip(&clocks).map(|(clock, mark)| told(clock, *mark, "port state")).sum();
        let errors = ours.iter().zip(&clocks).map(|(clock, mark)| mean_error(clock, *mark));
        let errors: Vec<_> = errors.collect();
        let [ours, theirs] = [0, 1].map(|at| figures(offsets(&clients[at], marks[at])));
        let mut ratio = [f64::NAN; 2];
        for (at, name) in ["rms", "trimmed_rms"].iter().enumerate() {
            let [Some(our), Some(their)] = [ours[name].as_f64(), theirs[name].as_f64()] else {
                return Err("a client has measured nothing".to_owned());
            };
            ratio[at] = our / their;
            ratios[at].push(ratio[at]);
        }
        tell(&json!({ "event": "round", "name": "chain", "round": round, "clocks": options.clocks,
                      "ours_ns": ours, "ptp4l_ns": theirs, "ratio": ratio[0],
                      "trimmed_ratio": ratio[1], "client_faults": faults,
                      "our_port_changes": changes, "our_clocks_error_ns": errors }));
    }
    let moved = real_minus_monotonic_ns() - before;
    if moved.abs() > UNTOUCHED_NS {
        return Err(format!("the host's clock was moved by {moved} ns meanwhile"));
    }
    let [plain, trimmed] = ratios.map(median);
    tell(&json!({ "event": "bench", "name": "chain", "clocks": options.clocks,
                  "rounds": options.rounds, "ratio": plain, "trimmed_ratio": trimmed,
                  "target": 1.0, "aim": 1.0 / 3.0, "host_clock_moved_ns": moved }));
    Ok(())
}
