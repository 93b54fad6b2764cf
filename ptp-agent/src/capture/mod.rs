//! From the packet in the kernel to a stamp in user space: [`Programs`] loads the kernel programs,
//! attaches them to interfaces and reads their records; [`Pairing`] finds the record that belongs to
//! a message that came through a socket or was sent by the agent itself.

mod bracket;
mod chain;
mod clsact;
mod hearsay;
mod hints;
mod interrupts;
mod latency;
mod object;
mod pairing;
mod point;
mod probe;
mod programs;
mod reach;
mod select;
mod socket_stamp;

pub use chain::Place;
pub use hearsay::{Channel as HeardChannel, Hearsay};
pub use hints::{HINTS_OBJECT, Hints, HintsError};
pub use interrupts::{
    INTERRUPTS_OBJECT, Interrupts, InterruptsError, Report as InterruptReport, Spread,
    moderation_in_words,
};
pub(crate) use interrupts::{
    TC as INTERRUPT_TC, TRACEPOINTS as INTERRUPT_TRACEPOINTS, load as load_interrupts,
};
pub use latency::{Latencies, Latency};
pub use pairing::{Asked, Outcome, Pairing, PairingCounts};
pub use point::{Choice, hook_of, stamp_at};
pub use probe::{ProbeError, ProbeReport, probe};
pub use programs::{
    AttachedHooks, CaptureError, Features, HookCounts, OBJECT, Options, Programs, TcAttach,
    TcPlace, XdpHook,
};
pub use reach::Reach;

pub(crate) use bracket::Bracket;
pub(crate) use chain::claim_name;
pub(crate) use clsact::Clsact;
pub(crate) use object::{map, program};
pub(crate) use programs::{CLSACT_PRIORITY, KERNEL_LOG, XMIT, attach_error};
pub(crate) use select::median;
pub use select::{Candidates, PointReport, Selector, Switch};
pub use socket_stamp::{SocketStamps, is_before_socket, is_of_socket};

use std::collections::{HashMap, VecDeque};

use ptp_common::{
    record::Record,
    time::{Duration, Mono, Real, Time},
};

use crate::sys::clock;

/// How the kernel's other clocks lie to CLOCK_MONOTONIC at the moment: constants that only a step
/// changes, so one look serves all records read together.
#[derive(Clone, Copy, Debug)]
pub struct ClockRelation {
    /// CLOCK_REALTIME minus CLOCK_MONOTONIC.
    pub real_minus_mono: Duration,
    /// CLOCK_TAI minus CLOCK_MONOTONIC.
    pub tai_minus_mono: Duration,
}

impl ClockRelation {
    /// How far the two clock reads of one record may lie apart (an interrupt may come between them)
    /// before a step of the real-time clock is the likelier explanation.
    const TOLERANCE: Duration = Duration::from_micros(100);

    /// Reads the host's clocks.
    pub fn now() -> Self {
        let real_minus_mono = clock::realtime_minus_monotonic();
        let tai = i64::from(clock::tai_offset_seconds().unwrap_or(0));
        Self { real_minus_mono, tai_minus_mono: real_minus_mono + Duration::from_secs(tai) }
    }

    /// The stack's stamp on CLOCK_MONOTONIC; `None` where the record has none, or where the
    /// real-time clock was stepped between the stamp and now.
    pub fn stack_stamp(&self, record: &Record) -> Option<Time<Mono>> {
        if record.stack_ns == 0 {
            return None;
        }
        if record.tai_ns != 0 {
            let then = nanos(record.tai_ns) - nanos(record.mono_ns);
            if (then - self.tai_minus_mono).abs() > Self::TOLERANCE {
                return None;
            }
        }
        Some(Time::from_epoch(nanos(record.stack_ns) - self.real_minus_mono))
    }

    /// A stamp on CLOCK_REALTIME that is so fresh that no step can have come between.
    pub fn mono_at(&self, real: Time<Real>) -> Time<Mono> {
        real.at_offset(Duration::ZERO - self.real_minus_mono)
    }

    /// What CLOCK_REALTIME showed at `time`, about when `record` was written: by the record's own
    /// pair of clock reads where the clock has been stepped since.
    pub fn real_at(&self, record: &Record, time: Time<Mono>) -> Time<Real> {
        let mut real_minus_mono = self.real_minus_mono;
        if record.tai_ns != 0 {
            let then = nanos(record.tai_ns) - nanos(record.mono_ns);
            if (then - self.tai_minus_mono).abs() > Self::TOLERANCE {
                real_minus_mono = then - (self.tai_minus_mono - self.real_minus_mono);
            }
        }
        time.at_offset(real_minus_mono)
    }
}

fn nanos(value: u64) -> Duration {
    Duration::from_nanos(i64::try_from(value).unwrap_or(i64::MAX))
}

/// The monotonic clock as read by the program.
pub fn mono_stamp(record: &Record) -> Time<Mono> {
    Time::from_epoch(nanos(record.mono_ns))
}

/// Joins the egress records of one packet: TC egress knows the packet, the tracepoint knows the
/// better time, and the serial number is in both. Bounded; what is never joined is dropped, oldest
/// first, and counted.
#[derive(Debug, Default)]
pub struct EgressJoin {
    /// By serial.
    waiting: HashMap<u64, Record>,
    /// Serials in the order of their coming; those of records that were joined are still among them.
    order: VecDeque<u64>,
    /// TC egress records to which no tracepoint record came.
    pub unjoined: u64,
}

impl EgressJoin {
    const CAPACITY: usize = 256;

    /// Keeps a TC egress record until its tracepoint record comes.
    pub fn push(&mut self, record: Record) {
        if self.waiting.len() == Self::CAPACITY || self.order.len() == 4 * Self::CAPACITY {
            self.unjoined += u64::from(self.oldest().is_some());
        }
        self.order.push_back(record.serial);
        self.waiting.insert(record.serial, record);
    }

    /// The oldest record that was written before `until`, as one to which nothing will come.
    pub fn give_up(&mut self, until: Time<Mono>) -> Option<Record> {
        while let Some(serial) = self.order.front() {
            if self.waiting.get(serial).is_some_and(|record| mono_stamp(record) >= until) {
                return None;
            }
            if let Some(record) = self.oldest() {
                self.unjoined += 1;
                return Some(record);
            }
        }
        None
    }

    /// The TC egress record of the same packet as the tracepoint record `late`.
    pub fn join(&mut self, late: &Record) -> Option<Record> {
        self.waiting.remove(&late.serial)
    }

    /// Takes out the one that came first; `None` where that was joined.
    fn oldest(&mut self) -> Option<Record> {
        self.waiting.remove(&self.order.pop_front()?)
    }
}
