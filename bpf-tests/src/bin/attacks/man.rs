//! Who sits in the path: a wire with a program in the middle that sees every frame between the time transmitter
//! and everybody else, and passes it on, later, changed, once more, or not at all.

use std::{
    collections::{BinaryHeap, VecDeque},
    os::fd::AsFd as _,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use bpf_tests::{
    links::{Star, ip},
    raw::{FrameListener, FrameSocket},
};
use nix::{
    poll::{PollFd, PollFlags, ppoll},
    sys::time::TimeSpec,
};
use ptp_agent::lab::netns::{Namespace, veth};
use ptp_common::wire::{Flags, MessageType};

use crate::frame::{Frame, later};

/// Messages that are kept to be sent again.
const KEPT: usize = 64;

/// What becomes of a frame.
pub(crate) enum Fate {
    Pass,
    Hold(Duration),
    Drop,
    /// It passes, and after it these.
    With(Vec<Vec<u8>>),
}

/// What is done with each PTP message: the frame, seconds since he began, what the time transmitter has sent before.
pub(crate) type Trick = fn(&mut Frame, f64, &VecDeque<Frame>) -> Fate;

/// What he is about.
type Plan = Arc<Mutex<Option<(Trick, Instant)>>>;

/// The man in the middle. Ends when dropped.
pub(crate) struct Man {
    /// Behind him: has `gm0` with the address of the first leaf.
    pub(crate) grandmaster: Namespace,
    plan: Plan,
    end: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Man {
    /// Sits down in the first leaf of a star.
    pub(crate) fn new(star: &Star) -> Result<Self, String> {
        let words = |error: &dyn std::fmt::Display| error.to_string();
        let grandmaster = Namespace::new().map_err(|error| words(&error))?;
        let man = &star.leaves[0];
        ip(man, "address flush dev eth0");
        veth(man, "above", &grandmaster, "gm0").map_err(|error| words(&error))?;
        let address = std::net::Ipv4Addr::new(192, 0, 2, 1).into();
        grandmaster.add_address("gm0", address, 24).map_err(|error| words(&error))?;
        // He must not answer for himself.
        for name in ["above", "eth0"] {
            ip(man, &format!("link set dev {name} arp off multicast off"));
        }
        let (plan, end) = (Plan::default(), Arc::new(AtomicBool::new(false)));
        let sides = man.run(|| {
            let side = |name| {
                Ok::<_, std::io::Error>((FrameListener::open(name)?, FrameSocket::open(name)?))
            };
            Ok::<_, std::io::Error>([side("above")?, side("eth0")?])
        });
        let sides = sides.map_err(|error| words(&error))?.map_err(|error| words(&error))?;
        let (ours, ended) = (Arc::clone(&plan), Arc::clone(&end));
        let thread = Some(thread::spawn(move || relay(&sides, &ours, &ended)));
        Ok(Self { grandmaster, plan, end, thread })
    }

    pub(crate) fn begin(&self, trick: Trick) {
        if let Ok(mut plan) = self.plan.lock() {
            *plan = Some((trick, Instant::now()));
        }
    }

    pub(crate) fn cease(&self) {
        if let Ok(mut plan) = self.plan.lock() {
            *plan = None;
        }
    }
}

impl Drop for Man {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A frame that is held: until when, in which order, which side it leaves by.
struct Held(Instant, u64, usize, Vec<u8>);

impl PartialEq for Held {
    fn eq(&self, other: &Self) -> bool {
        (self.0, self.1) == (other.0, other.1)
    }
}
impl Eq for Held {}
impl PartialOrd for Held {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Held {
    /// The earliest is the greatest.
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.0, other.1).cmp(&(self.0, self.1))
    }
}

/// Carries frames from side to side until it is told to end.
fn relay(sides: &[(FrameListener, FrameSocket); 2], plan: &Plan, end: &AtomicBool) {
    const LOOK: Duration = Duration::from_millis(50);
    // On a busy machine he would be no man in the middle but a queue. Where that is not permitted, he is one.
    let parameters = libc::sched_param { sched_priority: 10 };
    // SAFETY: a plain structure that lives through the call, for this thread.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const parameters) };
    let mut held: BinaryHeap<Held> = BinaryHeap::new();
    let mut kept = VecDeque::new();
    let mut order = 0;
    while !end.load(Ordering::Relaxed) {
        while held.peek().is_some_and(|first| first.0 <= Instant::now()) {
            let Some(Held(_, _, to, frame)) = held.pop() else { break };
            let _ = sides[to].1.send(&frame);
        }
        let wait = held
            .peek()
            .map_or(LOOK, |first| first.0.saturating_duration_since(Instant::now()).min(LOOK));
        let mut polled =
            [0, 1].map(|side: usize| PollFd::new(sides[side].0.as_fd(), PollFlags::POLLIN));
        let ready = ppoll(&mut polled, Some(TimeSpec::from_duration(wait)), None).unwrap_or(0);
        if ready <= 0 {
            continue;
        }
        let has = polled.map(|it| it.revents().is_some_and(|events| !events.is_empty()));
        for (side, _) in has.iter().enumerate().filter(|(_, has)| **has) {
            while let Some(bytes) = sides[side].0.ready() {
                let plan = plan.lock().ok().and_then(|plan| *plan);
                let mut frame = Frame::new(bytes, side == 0);
                let fate = match plan {
                    Some((trick, since)) if frame.kind().is_some() => {
                        trick(&mut frame, since.elapsed().as_secs_f64(), &kept)
                    }
                    _ => Fate::Pass,
                };
                let to = 1 - side;
                match fate {
                    Fate::Drop => continue,
                    Fate::Hold(time) => {
                        order += 1;
                        held.push(Held(Instant::now() + time, order, to, frame.bytes.clone()));
                    }
                    Fate::Pass => drop(sides[to].1.send(&frame.bytes)),
                    Fate::With(others) => {
                        let _ = sides[to].1.send(&frame.bytes);
                        others.iter().for_each(|other| drop(sides[to].1.send(other)));
                    }
                }
                if frame.is_of_transmitter && frame.kind().is_some() {
                    if kept.len() == KEPT {
                        kept.pop_front();
                    }
                    kept.push_back(frame);
                }
            }
        }
    }
}

const fn is(frame: &Frame, kind: MessageType) -> bool {
    matches!(frame.kind(), Some(it) if it as u8 == kind as u8)
}

pub(crate) fn hold_sync(frame: &mut Frame, _: f64, _: &VecDeque<Frame>) -> Fate {
    if is(frame, MessageType::Sync) { Fate::Hold(Duration::from_millis(1)) } else { Fate::Pass }
}

pub(crate) fn hold_requests(frame: &mut Frame, _: f64, _: &VecDeque<Frame>) -> Fate {
    if is(frame, MessageType::DelayReq) { Fate::Hold(Duration::from_millis(1)) } else { Fate::Pass }
}

/// 20 us longer every second.
pub(crate) fn pull_by_hold(frame: &mut Frame, seconds: f64, _: &VecDeque<Frame>) -> Fate {
    match is(frame, MessageType::Sync) {
        true => Fate::Hold(Duration::from_secs_f64(20e-6 * seconds)),
        false => Fate::Pass,
    }
}

/// 10 us more every second.
pub(crate) fn pull_by_correction(frame: &mut Frame, seconds: f64, _: &VecDeque<Frame>) -> Fate {
    if is(frame, MessageType::FollowUp) {
        frame.correct((10_000.0 * seconds) as i64);
    }
    Fate::Pass
}

/// Each message of the time transmitter that went by two seconds ago once more.
pub(crate) fn replay(frame: &mut Frame, _: f64, kept: &VecDeque<Frame>) -> Fate {
    match is(frame, MessageType::FollowUp) {
        true => Fate::With(kept.iter().take(4).map(|old| old.bytes.clone()).collect()),
        false => Fate::Pass,
    }
}

fn all_but(frame: &Frame, kind: MessageType) -> Fate {
    if is(frame, kind) { Fate::Drop } else { Fate::Pass }
}

pub(crate) fn remove_sync(frame: &mut Frame, _: f64, _: &VecDeque<Frame>) -> Fate {
    all_but(frame, MessageType::Sync)
}

pub(crate) fn remove_answers(frame: &mut Frame, _: f64, _: &VecDeque<Frame>) -> Fate {
    all_but(frame, MessageType::DelayResp)
}

pub(crate) fn remove_announce(frame: &mut Frame, _: f64, _: &VecDeque<Frame>) -> Fate {
    all_but(frame, MessageType::Announce)
}

pub(crate) fn remove_all(_: &mut Frame, _: f64, _: &VecDeque<Frame>) -> Fate {
    Fate::Drop
}

/// All times of the time transmitter a second ahead.
pub(crate) fn move_time(frame: &mut Frame, _: f64, _: &VecDeque<Frame>) -> Fate {
    if is(frame, MessageType::FollowUp) || is(frame, MessageType::DelayResp) {
        frame.change_time(later);
    }
    Fate::Pass
}

/// One Follow_Up in eight a second ahead.
pub(crate) fn lie_now_and_then(frame: &mut Frame, _: f64, _: &VecDeque<Frame>) -> Fate {
    if is(frame, MessageType::FollowUp) && frame.sequence_id().is_some_and(|id| id % 8 == 0) {
        frame.change_time(later);
    }
    Fate::Pass
}

/// Another time scale, in the true Announces themselves.
pub(crate) fn flip_announce(frame: &mut Frame, _: f64, _: &VecDeque<Frame>) -> Fate {
    if is(frame, MessageType::Announce) {
        frame.flip(Flags::PTP_TIMESCALE);
    }
    Fate::Pass
}
