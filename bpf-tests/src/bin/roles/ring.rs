//! Three boundary clocks in a ring, two of ours and one of linuxptp's, of which one is grandmaster and one port is passive.
//! Again and again the grandmaster is killed and comes back as the worst of the three, so that each is grandmaster in
//! its turn. Who serves is read from the Announce messages on the three wires; what our clocks show, from the pages that
//! they publish, against the host's clock.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use bpf_tests::{agent::Agent, children::Running, clocks::Look, ptp4l::Ptp4l, raw::FrameListener};
use ptp_agent::lab::netns::Namespace;
use ptp_clock_reader::PtpClock;
use ptp_common::{
    classify::PORT_GENERAL,
    wire::{Body, Message},
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{Measured, Options, PATIENCE, median, namespace, tell, wire};

const NODES: usize = 3;
/// Which one is ptp4l.
const PTP4L: usize = 2;
const NET: u8 = 80;
/// Of Announce: eight a second.
const LOG_ANNOUNCE: i8 = -3;
const INTERVAL: Duration = Duration::from_millis(125);
/// announceReceiptTimeout at its latest draw (9.2.6.12), and the second that the next one may take.
const SERVES_WITHIN: Duration = Duration::from_millis(4 * 125 + 1_000);
/// The draw, two Announce until somebody is believed, four intervals more for who is one further away; as in the engine's own test.
const TWO_WITHIN: Duration = Duration::from_millis((4 + 2 + 4) * 125);
/// A wire on which nobody has announced for so many intervals has nobody who serves.
const GONE: u32 = 3;
const ERROR_NS: i64 = 10_000;
/// The first priority1; each that comes back has the next.
const FIRST_PRIORITY: u8 = 10;
/// Between two looks at the clocks, and at everything.
const LOOK: Duration = Duration::from_millis(4);
const JUDGE: u32 = 12;
/// 14 octets of Ethernet, 20 of IPv4, 8 of UDP.
const PAYLOAD: usize = 42;

/// An Announce on a wire.
#[derive(Clone, Copy, Debug)]
struct Heard {
    at: Instant,
    from: usize,
    /// Whether by the port `right`.
    right: bool,
    /// Whether it says that its sender is the grandmaster.
    own: bool,
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<Heard>>>);

impl Log {
    fn push(&self, heard: Heard) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(heard);
    }

    fn since(&self, at: Instant) -> Vec<Heard> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().rev().take_while(|heard| heard.at > at).copied().collect()
    }

    fn forget(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// What an Ethernet frame announces: whether its sender.
fn announces_itself(frame: &[u8]) -> Option<bool> {
    let is_general = frame.get(12..14)? == [8, 0]
        && frame.get(23) == Some(&17)
        && frame.get(36..38)? == PORT_GENERAL.to_be_bytes();
    let Message { header, body, .. } =
        is_general.then(|| Message::parse(frame.get(PAYLOAD..)?).ok()).flatten()?;
    let Body::Announce(announce) = body else { return None };
    Some(announce.grandmaster_identity == header.source_port_identity.clock_identity)
}

enum Contender {
    Ours(Agent),
    Ptp4l(Ptp4l),
}

impl Contender {
    fn running(&mut self) -> &mut Running {
        match self {
            Self::Ours(agent) => agent,
            Self::Ptp4l(ptp4l) => ptp4l,
        }
    }

    /// Whether a port is neither serving, passive nor following, or more than one is following, by its log.
    fn is_between(&self, node: usize) -> bool {
        let (lines, word) = match self {
            Self::Ours(agent) => (agent.lines(), "to=\""),
            Self::Ptp4l(ptp4l) => (ptp4l.lines(), " to "),
        };
        interfaces(node).iter().enumerate().any(|(at, interface)| {
            let mine = match self {
                Self::Ours(_) => format!("interface=\"{interface}\""),
                Self::Ptp4l(_) => format!("port {}", at + 1),
            };
            let is_mine = |text: &str| {
                let told = text.contains("port state") || matches!(self, Self::Ptp4l(_));
                told && text.contains(&mine) && text.contains(word)
            };
            let last = lines.iter().rev().find(|line| is_mine(&line.text));
            let state = last.and_then(|line| line.text.split(word).nth(1)).unwrap_or_default();
            const SETTLED: [&str; 7] = [
                "time_transmitter",
                "time_receiver",
                "passive",
                "MASTER",
                "GRAND_MASTER",
                "PASSIVE",
                "UNCALIBRATED",
            ];
            !SETTLED.iter().any(|settled| state.starts_with(settled))
        })
    }

    fn steps(&self, mark: usize) -> usize {
        let Self::Ours(agent) = self else { return 0 };
        let lines = agent.lines();
        let new = lines.get(mark..).unwrap_or_default();
        new.iter().filter(|line| line.text.contains("clock stepped")).count()
    }
}

/// Those of a node: towards the one before it and the one behind it.
fn interfaces(node: usize) -> [String; 2] {
    [format!("left{node}"), format!("right{node}")]
}

struct Node {
    namespace: Namespace,
    contender: Option<Contender>,
    priority1: u8,
    page: PathBuf,
}

impl Node {
    fn start(&mut self, at: usize) -> Result<(), String> {
        let _ = std::fs::remove_file(&self.page);
        let [left, right] = interfaces(at);
        let contender = if at == PTP4L {
            let rates = format!(
                "priority1 {}\nlogAnnounceInterval {LOG_ANNOUNCE}\nlogSyncInterval -4\n\
                 logMinDelayReqInterval -4\npath_trace_enabled 1\n",
                self.priority1
            );
            Contender::Ptp4l(Ptp4l::start(&self.namespace, &[&left, &right], &[&rates])?)
        } else {
            let (priority, page) = (self.priority1.to_string(), self.page.display().to_string());
            let announce = format!("--log-announce-interval={LOG_ANNOUNCE}");
            let arguments = [
                "run",
                "--role",
                "auto",
                "--status-socket",
                "none",
                "-i",
                &left,
                &right,
                "--log-sync-interval=-4",
                "--log-min-delay-req-interval=-4",
                &announce,
                "--priority1",
                &priority,
                "--page",
                &page,
            ];
            Contender::Ours(Agent::start_only(&self.namespace, &arguments))
        };
        self.contender = Some(contender);
        Ok(())
    }
}

struct Ring {
    nodes: Vec<Node>,
    log: Log,
    stop: Arc<AtomicBool>,
    listeners: Vec<JoinHandle<()>>,
    _pages: TempDir,
}

impl Drop for Ring {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        for listener in self.listeners.drain(..) {
            let _ = listener.join();
        }
    }
}

/// What happened from a kill on until all is settled.
#[derive(Default)]
struct Change {
    /// First Announce of the next one as grandmaster.
    serves: Option<Duration>,
    settled: Option<Duration>,
    /// How long two said that they are grandmaster.
    two: Duration,
    worst_ns: i64,
    looks: usize,
    steps: usize,
}

impl Ring {
    fn new() -> Result<Self, String> {
        let pages = tempfile::tempdir().map_err(|error| error.to_string())?;
        let mut nodes = Vec::new();
        for at in 0..NODES {
            // The first grandmaster is ptp4l, whose time is the host's.
            let priority1 = FIRST_PRIORITY + ((at + NODES - PTP4L) % NODES) as u8;
            let page = pages.path().join(format!("page{at}"));
            nodes.push(Node { namespace: namespace()?, contender: None, priority1, page });
        }
        for (at, node) in nodes.iter().enumerate() {
            let next = (at + 1) % NODES;
            let ([_, right], [left, _]) = (interfaces(at), interfaces(next));
            let ends = ((&node.namespace, &*right), (&nodes[next].namespace, &*left));
            wire(ends.0, ends.1, [NET, at as u8])?;
        }
        let (log, stop) = (Log::default(), Arc::new(AtomicBool::new(false)));
        let mut listeners = Vec::new();
        for (at, node) in nodes.iter().enumerate() {
            let [left, right] = interfaces(at);
            for (interface, from, right) in
                [(left, (at + NODES - 1) % NODES, true), (right, (at + 1) % NODES, false)]
            {
                let opened = node.namespace.run(|| FrameListener::open(&interface));
                let opened = opened.map_err(|error| error.to_string())?;
                let listener = opened.map_err(|error| error.to_string())?;
                let (log, stop) = (log.clone(), Arc::clone(&stop));
                listeners.push(thread::spawn(move || {
                    while !stop.load(Relaxed) {
                        if let Some(own) =
                            listener.hear(Duration::from_millis(200), announces_itself)
                        {
                            log.push(Heard { at: Instant::now(), from, right, own });
                        }
                    }
                }));
            }
        }
        for (at, node) in nodes.iter_mut().enumerate() {
            node.start(at)?;
        }
        Ok(Self { nodes, log, stop, listeners, _pages: pages })
    }

    fn best(&self, without: Option<usize>) -> usize {
        let those = (0..NODES).filter(|at| Some(*at) != without);
        those.min_by_key(|at| self.nodes[*at].priority1).unwrap_or(0)
    }

    /// Whether the best one serves both others, one of which serves the other one, who is passive there.
    fn is_settled(&self) -> bool {
        let heard = self.log.since(Instant::now() - INTERVAL * GONE);
        let best = self.best(None);
        let serves = |from: usize, right: bool| {
            heard.iter().any(|each| (each.from, each.right) == (from, right))
        };
        let [next, last] = [(best + 1) % NODES, (best + 2) % NODES];
        heard.iter().all(|each| each.own == (each.from == best))
            && serves(best, true)
            && serves(best, false)
            && !serves(next, false)
            && !serves(last, true)
            && serves(next, true) != serves(last, false)
            && !self.nodes.iter().enumerate().any(|(at, node)| match &node.contender {
                Some(contender) => contender.is_between(at),
                None => true,
            })
    }

    /// The clocks of ours that are up, and have been followed by a page.
    fn pages(&self) -> Vec<PtpClock> {
        let ours =
            self.nodes.iter().filter(|node| matches!(&node.contender, Some(Contender::Ours(_))));
        ours.filter_map(|node| PtpClock::open(&node.page).ok()).collect()
    }

    fn kill(&mut self) -> Result<Change, String> {
        let victim = self.best(None);
        let expected = self.best(Some(victim));
        let mut change = Change::default();
        self.log.forget();
        let marks: Vec<usize> = self
            .nodes
            .iter_mut()
            .map(|node| node.contender.as_mut().map_or(0, |each| each.running().mark()))
            .collect();
        let Some(mut killed) = self.nodes[victim].contender.take() else {
            return Err("nobody to kill".to_owned());
        };
        let pages = self.pages();
        let since = Instant::now();
        killed.running().kill();
        let highest = self.nodes.iter().map(|node| node.priority1).max().unwrap_or(0);
        self.nodes[victim].priority1 = highest + 1;
        let mut turn = 0_u32;
        while since.elapsed() < PATIENCE {
            thread::sleep(LOOK);
            for page in &pages {
                let Some(look) = Look::at(page) else { continue };
                change.looks += 1;
                // Its bound is against the grandmaster, whose own clock need not be the host's.
                change.worst_ns = change.worst_ns.max(look.error_ns.abs());
            }
            turn += 1;
            if !turn.is_multiple_of(JUDGE) {
                continue;
            }
            let heard = self.log.since(since);
            if change.serves.is_none() {
                let own = heard.iter().filter(|each| each.own && each.from == expected);
                change.serves = own.map(|each| each.at - since).min();
            } else if self.nodes[victim].contender.is_none() {
                // The next one serves whoever is left; now the killed one comes back as the worst.
                if since.elapsed() > SERVES_WITHIN {
                    change.two = two(&heard, victim);
                    self.nodes[victim].start(victim)?;
                }
            } else if self.is_settled() {
                change.settled = Some(since.elapsed());
                break;
            }
        }
        for (at, node) in self.nodes.iter().enumerate().filter(|(at, _)| *at != victim) {
            change.steps += node.contender.as_ref().map_or(0, |each| each.steps(marks[at]));
        }
        if change.settled.is_none() {
            for (at, node) in self.nodes.iter_mut().enumerate() {
                let words = node.contender.as_mut().map(|each| each.running().last_words());
                eprintln!(
                    "node {at}, priority1 {}:\n{}",
                    node.priority1,
                    words.unwrap_or_default()
                );
            }
        }
        Ok(change)
    }
}

/// How long two of the living said that they are grandmaster.
fn two(heard: &[Heard], victim: usize) -> Duration {
    let spans: Vec<(Instant, Instant)> = (0..NODES)
        .filter(|at| *at != victim)
        .filter_map(|at| {
            let own = || heard.iter().filter(|each| each.own && each.from == at).map(|it| it.at);
            Some((own().min()?, own().max()?))
        })
        .collect();
    match spans[..] {
        [(a, b), (c, d)] => b.min(d).saturating_duration_since(a.max(c)),
        _ => Duration::ZERO,
    }
}

pub(crate) fn measure(options: &Options) -> Measured {
    if options.changes > usize::from(u8::MAX - FIRST_PRIORITY) - NODES {
        return Err("priorities are used up: fewer changes".to_owned());
    }
    let mut ring = Ring::new()?;
    let begin = Instant::now();
    while !ring.is_settled() {
        if begin.elapsed() > PATIENCE {
            return Err("the ring does not settle".to_owned());
        }
        thread::sleep(INTERVAL);
    }
    let (mut serves, mut settled, mut twos, mut worst) = (vec![], vec![], vec![], vec![]);
    let (mut late, mut stuck, mut two_long, mut far, mut steps) = (0, 0, 0, 0, 0);
    for number in 0..options.changes {
        let killed = ring.best(None);
        let change = ring.kill()?;
        let seconds = |time: Option<Duration>| time.map(|time| time.as_secs_f64());
        tell(&json!({ "event": "round", "name": "ring", "change": number,
                      "killed": if killed == PTP4L { "ptp4l" } else { "agent" },
                      "serves_s": seconds(change.serves), "settled_s": seconds(change.settled),
                      "two_grandmasters_s": change.two.as_secs_f64(), "worst_ns": change.worst_ns,
                      "looks": change.looks, "steps": change.steps }));
        late += usize::from(change.serves.is_none_or(|time| time > SERVES_WITHIN));
        stuck += usize::from(change.settled.is_none());
        two_long += usize::from(change.two > TWO_WITHIN);
        far += usize::from(change.worst_ns > ERROR_NS);
        steps += change.steps;
        serves.extend(seconds(change.serves));
        settled.extend(seconds(change.settled));
        twos.push(change.two.as_secs_f64());
        worst.push(change.worst_ns as f64);
        if change.settled.is_none() {
            return Err(format!("change {number}: the ring does not settle"));
        }
    }
    let of = |values: Vec<f64>| -> Value {
        json!({ "median": median(values.clone()), "max": values.into_iter().fold(0.0, f64::max) })
    };
    tell(&json!({ "event": "bench", "name": "ring", "changes": options.changes,
                  "announce_per_s": 8, "serves_s": of(serves),
                  "serves_within_s": SERVES_WITHIN.as_secs_f64(), "late": late,
                  "settled_s": of(settled), "stuck": stuck, "two_grandmasters_s": of(twos),
                  "two_within_s": TWO_WITHIN.as_secs_f64(), "two_for_too_long": two_long,
                  "worst_error_ns": of(worst), "beyond_10_us": far, "steps": steps }));
    Ok(())
}
