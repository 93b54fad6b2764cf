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
mod pairing;
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
pub use pairing::{Outcome, Pairing, PairingCounts};
pub use probe::{ProbeError, ProbeReport, probe};
pub use programs::{
    AttachedHooks, CaptureError, Features, HookCounts, OBJECT, Options, Programs, TcAttach,
    TcPlace, XdpHook,
};
pub use reach::Reach;

pub(crate) use bracket::Bracket;
pub(crate) use chain::claim_name;
pub(crate) use clsact::Clsact;
pub(crate) use programs::{CLSACT_PRIORITY, KERNEL_LOG, XMIT, attach_error};
pub(crate) use select::median;
pub use select::{Candidates, Choice, PointReport, Selector};
pub use socket_stamp::{SocketStamps, is_before_socket, is_of_socket};

use std::{collections::VecDeque, str::FromStr};

use ptp_common::{
    record::{Hook, Record},
    time::{Duration, Mono, Real, Time},
};

use crate::{
    stamp::{Stamp, StampSource},
    sys::clock,
};

/// Which receive stamp is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RxSource {
    /// The clock as read by the program at TC ingress.
    TcIngress,
    /// The stack's own stamp, read at TC ingress. It is taken earlier, on the way from the driver.
    Stack,
    /// XDP, native or generic.
    Xdp(XdpHook),
}

impl RxSource {
    /// The hook whose records carry this stamp.
    pub const fn hook(self) -> Hook {
        match self {
            Self::TcIngress | Self::Stack => Hook::TcIngress,
            Self::Xdp(_) => Hook::XdpIngress,
        }
    }

    /// The source as samples and metrics name it.
    pub const fn source(self) -> StampSource {
        match self {
            Self::TcIngress => StampSource::TcIngress,
            Self::Stack => StampSource::Stack,
            Self::Xdp(XdpHook::Generic) => StampSource::XdpGeneric,
            Self::Xdp(_) => StampSource::XdpNative,
        }
    }
}

impl FromStr for RxSource {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "tc_ingress" => Self::TcIngress,
            "stack" => Self::Stack,
            "xdp" => Self::Xdp(XdpHook::Auto),
            "xdp_native" => Self::Xdp(XdpHook::Native),
            "xdp_generic" => Self::Xdp(XdpHook::Generic),
            _ => {
                return Err("expected stack, tc_ingress, xdp, xdp_native or xdp_generic".to_owned());
            }
        })
    }
}

/// Which transmit stamp is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TxSource {
    /// The clock as read by the program at TC egress, last thing before it returns.
    TcEgress,
    /// Raw tracepoint `net_dev_start_xmit`, right before the driver is called.
    StartXmit,
    /// Raw tracepoint `net_dev_xmit`, right after the driver has returned.
    XmitDone,
    /// The driver's software stamp, from the error queue of the socket that sent the message.
    DriverSoftware,
}

impl TxSource {
    /// The hook whose records carry this stamp; `None` for a stamp that does not come from our
    /// programs, which nobody but the sender of the packet can have.
    pub const fn hook(self) -> Option<Hook> {
        match self {
            Self::TcEgress => Some(Hook::TcEgress),
            Self::StartXmit | Self::XmitDone => Some(Hook::Xmit),
            Self::DriverSoftware => None,
        }
    }

    /// The source as samples and metrics name it.
    pub const fn source(self) -> StampSource {
        match self {
            Self::TcEgress => StampSource::TcEgress,
            Self::StartXmit => StampSource::StartXmit,
            Self::XmitDone => StampSource::XmitDone,
            Self::DriverSoftware => StampSource::DriverSoftware,
        }
    }
}

impl FromStr for TxSource {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "tc_egress" => Self::TcEgress,
            "start_xmit" => Self::StartXmit,
            "xmit_done" => Self::XmitDone,
            "driver_software" => Self::DriverSoftware,
            _ => {
                return Err(
                    "expected xmit_done, start_xmit, tc_egress or driver_software".to_owned()
                );
            }
        })
    }
}

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

/// The receive stamp of `record` from `source`; `None` where the record is another hook's or lacks
/// that stamp.
pub fn rx_stamp(record: &Record, source: RxSource, relation: &ClockRelation) -> Option<Stamp> {
    if record.hook != source.hook() {
        return None;
    }
    let time = match source {
        RxSource::TcIngress | RxSource::Xdp(_) => mono_stamp(record),
        RxSource::Stack => relation.stack_stamp(record)?,
    };
    Some(Stamp::new(time, source.source()))
}

/// The transmit stamp of `record` from `source`; `None` where the record is another hook's.
pub fn tx_stamp(record: &Record, source: TxSource) -> Option<Stamp> {
    if source.hook() != Some(record.hook) {
        return None;
    }
    let time = match source {
        TxSource::XmitDone => Time::from_epoch(nanos(record.done_ns)),
        _ => mono_stamp(record),
    };
    Some(Stamp::new(time, source.source()))
}

/// Joins the egress records of one packet: TC egress knows the packet, the tracepoint knows the
/// better time, and the serial number is in both. Bounded; what is never joined is dropped, oldest
/// first, and counted.
#[derive(Debug, Default)]
pub struct EgressJoin {
    waiting: VecDeque<Record>,
    /// TC egress records to which no tracepoint record came.
    pub unjoined: u64,
}

impl EgressJoin {
    const CAPACITY: usize = 256;

    /// Keeps a TC egress record until its tracepoint record comes.
    pub fn push(&mut self, record: Record) {
        if self.waiting.len() == Self::CAPACITY {
            self.waiting.pop_front();
            self.unjoined += 1;
        }
        self.waiting.push_back(record);
    }

    /// The oldest record that was written before `until`, as one to which nothing will come.
    pub fn give_up(&mut self, until: Time<Mono>) -> Option<Record> {
        let record = self.waiting.pop_front_if(|record| mono_stamp(record) < until)?;
        self.unjoined += 1;
        Some(record)
    }

    /// The TC egress record of the same packet as the tracepoint record `late`.
    pub fn join(&mut self, late: &Record) -> Option<Record> {
        let at = self.waiting.iter().position(|record| record.serial == late.serial)?;
        self.waiting.remove(at)
    }
}
