//! The commands that keep time: engine, servo and clock on one side, sockets and kernel programs on
//! the other, and a loop between them that only carries.

pub mod answer_for;
mod bound;
pub mod confinement;
pub mod data_sets;
pub mod drive;
mod export;
pub(crate) mod health;
pub mod io;
pub mod link_server;
mod local_times;
pub mod managing;
pub mod ntp;
pub mod observe;
pub mod partners;
pub mod prime;
pub mod replay;
pub mod run;
pub mod serve;
pub mod services;
mod slave_events;
mod snapshot;
pub mod steer;
pub mod tap;
mod unicast;

use std::{
    io::Write as _,
    path::PathBuf,
    time::{Duration as StdDuration, SystemTime, UNIX_EPOCH},
};

use ptp_common::{
    time::{Duration, Mono, Ptp, Time},
    wire::{ClockIdentity, MessageType},
};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::publish::Format;
use crate::{
    clock::{
        Clock, ClockError, phc::PhcError, policy::MAX_FREQUENCY_PPB, virtual_clock::VirtualClock,
    },
    engine::{counters::Counters, csptp::Protocol, discipline, ntp::Exchange},
    publish::{
        alarms::Limits,
        json::{ClockLine, NTP, NtpLine, Output, OutputError, PPS, PTP, Sample},
        metrics::{CapturePoint, Direction, PortFigures, StampOutcome},
    },
    recording::{Problem, ReadError, RecordError},
    sys::{clock, random},
    transport::{TransportError, interface_mac},
    zones::ZoneError,
};
use io::{IoCounts, IoError, SideCounts, pulse::PulseError};
use services::Serving;
use tap::TapError;

/// Why a command ended before it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// Stamps, sockets or interfaces.
    #[error(transparent)]
    Io(#[from] IoError),
    /// Stamps or interfaces of an observer.
    #[error(transparent)]
    Tap(#[from] TapError),
    /// Standard output.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// A hardware clock that cannot be used.
    #[error(transparent)]
    Phc(#[from] PhcError),
    /// A pulse that cannot be taken.
    #[error(transparent)]
    Pulse(#[from] PulseError),
    /// A clock that cannot be steered.
    #[error(transparent)]
    Clock(#[from] ClockError),
    /// Time zones that cannot be told.
    #[error(transparent)]
    Zones(#[from] ZoneError),
    /// A recording that cannot be written.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// A recording that cannot be read.
    #[error("{path}: {error}{}", remedy(.error))]
    Recording {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        error: ReadError,
    },
    /// A recording that cannot even be opened.
    #[error("cannot open the recording {path}: {error}")]
    NoRecording {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        error: std::io::Error,
    },
    /// A recording that was made too fast for its disk.
    #[error(
        "{path}: byte {position}: {lost} inputs could not be recorded here, so what follows would be other numbers; --partial replays it all the same"
    )]
    Holes {
        /// The file.
        path: PathBuf,
        /// Of the first hole.
        position: u64,
        /// How large that is.
        lost: u64,
    },
    /// The operating system refused something every process may do.
    #[error("cannot {attempt}: {source}")]
    Os {
        /// What was attempted.
        attempt: &'static str,
        /// What the kernel said.
        source: std::io::Error,
    },
}

impl AgentError {
    /// Whether the host lacks something, which is exit code 3, or something failed, which is 1.
    pub fn is_missing_on_host(&self) -> bool {
        match self {
            Self::Io(IoError::Capture(error)) => error.is_missing_on_host(),
            Self::Io(IoError::Transport(error)) => !matches!(error, TransportError::Socket { .. }),
            Self::Phc(error) => matches!(error, PhcError::Missing(_) | PhcError::ReadOnly(_)),
            Self::Pulse(_)
            | Self::Io(IoError::Hardware(_))
            | Self::Clock(ClockError::NotPermitted { .. })
            | Self::Zones(_) => true,
            Self::Tap(TapError::Capture(error)) => error.is_missing_on_host(),
            Self::Io(
                IoError::Watch(_) | IoError::Wire { .. } | IoError::Os { .. } | IoError::Timer(_),
            )
            | Self::Tap(TapError::Watch(_) | TapError::StackStamps(_))
            | Self::Output(_)
            | Self::Clock(_)
            | Self::Record(_)
            | Self::Recording { .. }
            | Self::NoRecording { .. }
            | Self::Holes { .. }
            | Self::Os { .. } => false,
        }
    }
}

fn remedy(error: &ReadError) -> &'static str {
    match error.problem {
        Problem::CutShort(_) => "; --partial replays what there is",
        _ => "",
    }
}

/// What all of these commands are told.
#[derive(Clone, Debug)]
pub struct Common {
    /// The ports.
    pub io: io::IoConfig,
    /// `domainNumber`.
    pub domain: u8,
    /// `clockIdentity`; `None` for one of the first MAC address.
    pub clock_identity: Option<ClockIdentity>,
    /// End by itself after this time.
    pub duration: Option<StdDuration>,
    /// Where it can be asked.
    pub serving: Serving,
    /// What is tolerated before there is an alarm.
    pub limits: Limits,
    /// To give up system calls that are not needed once everything is open.
    pub is_confined: bool,
    /// How results are told.
    pub format: Format,
    /// Seed of the randomised intervals; `None` takes one from the clock.
    pub seed: Option<u64>,
}

/// Makes the configuration of a running command anew; `None` where the old one stays. It says by
/// itself what has changed, and what has changed in vain.
pub type Reload<C> = Box<dyn FnMut() -> Option<C>>;

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    ToEnd,
    ToReload,
}

/// What ends a command, or interrupts it.
pub(crate) struct Ending {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
    /// What a hangup asks for: to end where there is nothing to read again.
    on_hangup: Asked,
    deadline: Option<Time<Mono>>,
}

impl Ending {
    pub(crate) fn new<C>(
        duration: Option<StdDuration>,
        reload: Option<&Reload<C>>,
    ) -> Result<Self, AgentError> {
        let listen = |kind| {
            signal(kind).map_err(|source| AgentError::Os { attempt: "listen for signals", source })
        };
        let deadline = duration.map(|duration| {
            let nanos = i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX);
            clock::monotonic() + Duration::from_nanos(nanos)
        });
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hangup: listen(SignalKind::hangup())?,
            on_hangup: if reload.is_some() { Asked::ToReload } else { Asked::ToEnd },
            deadline,
        })
    }

    /// For what ends with something else: signals are asked for and mean nothing.
    fn never() -> Result<Self, AgentError> {
        let nothing: Reload<()> = Box::new(|| None);
        Self::new(None, Some(&nothing))
    }

    pub(crate) fn is_due(&self, now: Time<Mono>) -> bool {
        self.deadline.is_some_and(|deadline| now >= deadline)
    }

    /// The earlier of `until` and the deadline.
    pub(crate) fn limit(&self, until: Time<Mono>) -> Time<Mono> {
        self.deadline.map_or(until, |deadline| deadline.min(until))
    }

    pub(crate) async fn signalled(&mut self) -> Asked {
        tokio::select! {
            _ = self.interrupt.recv() => Asked::ToEnd,
            _ = self.terminate.recv() => Asked::ToEnd,
            _ = self.hangup.recv() => self.on_hangup,
        }
    }
}

/// The clock identity of a host: from the first interface that has a MAC address (IEEE 1588-2019
/// 7.5.2.2.2), otherwise from the seed.
fn clock_identity(common: &Common, seed: u64) -> ClockIdentity {
    let interfaces = &common.io.interfaces;
    common.clock_identity.unwrap_or_else(|| identity_of(interfaces, seed))
}

fn identity_of(interfaces: &[String], seed: u64) -> ClockIdentity {
    interfaces
        .iter()
        .find_map(|interface| interface_mac(interface).filter(|mac| *mac != [0; 6]))
        .map_or(ClockIdentity(seed.to_be_bytes()), ClockIdentity::from_mac)
}

fn seed(chosen: Option<u64>) -> u64 {
    // Nobody may guess what a request of NTP is known by.
    chosen.or_else(|| random::bytes().ok().map(u64::from_ne_bytes)).unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        now.as_nanos() as u64 ^ u64::from(std::process::id()) << 32
    })
}

fn unix_seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// A virtual clock's line from `mono` on.
fn clock_line(clock: &VirtualClock, mono: Time<Mono>) -> ClockLine {
    ClockLine {
        mono_ns: mono.as_nanos(),
        clock_ns: clock.at(mono).since_epoch().as_scaled_nanos() >> 16,
        frequency_ppb: clock.frequency_ppb(),
    }
}

/// The served or followed software clock at the start: the host's time, moved by `offset`.
fn virtual_clock(now: Time<Mono>, offset: Duration) -> VirtualClock {
    let real = now.since_epoch() + clock::realtime_minus_monotonic();
    VirtualClock::new(now, Time::<Ptp>::from_epoch(real + offset), MAX_FREQUENCY_PPB)
}

pub(crate) fn start_output(format: Format) -> Result<Option<Output>, AgentError> {
    format
        .is_json()
        .then(Output::stdout)
        .transpose()
        .map_err(|source| AgentError::Os { attempt: "start a thread", source })
}

/// A sample as the JSON line of `run` and `replay`.
fn sample_line(interface: &str, sample: &discipline::Sample) -> Sample {
    Sample {
        interface: interface.to_owned(),
        domain: sample.domain_number,
        mono_ns: sample.mono.as_nanos(),
        offset_ns: sample.offset.as_nanos(),
        raw_offset_ns: sample.raw_offset.as_nanos(),
        delay_ns: Some(sample.delay.as_nanos()),
        frequency_ppb: sample.frequency_ppb,
        error_bound_ns: sample.trust.map(|trust| bound::ceiling(trust.bound)),
        precision_ns: sample.trust.map(|trust| bound::ceiling(trust.precision)),
        interval_ns: sample.trust.map(|trust| bound::interval(&trust)),
        state: sample.state.into(),
        rx_source: Some(sample.rx_source.name().into()),
        tx_source: sample.tx_source.map(|source| source.name().into()),
        strategy: Some(sample.strategy.name().into()),
        source: Some(match (sample.is_of_ntp, sample.is_of_pulse) {
            (true, _) => NTP.into(),
            (_, true) => PPS.into(),
            _ => sample.exchange.map_or(PTP, Protocol::name).into(),
        }),
        grandmaster: sample.grandmaster.map(|identity| identity.to_string()),
    }
}

/// Prints a line for people. `println!` would panic when the reader has gone, and a clock that is being
/// steered would be left as it is.
pub(crate) fn print(line: &str) -> Result<(), OutputError> {
    writeln!(std::io::stdout().lock(), "{line}").map_err(OutputError::from)
}

/// An exchange with a server of NTP as a line of `run`.
fn ntp_line(server: &str, exchange: &Exchange) -> NtpLine {
    NtpLine {
        server: server.to_owned(),
        kind: exchange.kind,
        turn: exchange.turn,
        t1_mono_ns: exchange.t1.time.as_nanos(),
        handed_ns: exchange.t1.handed.as_nanos(),
        t2_ns: exchange.t2.as_nanos(),
        t3_ns: exchange.t3.as_nanos(),
        t4_mono_ns: exchange.t4.time.as_nanos(),
        delay_ns: exchange.delay().as_nanos(),
        stratum: exchange.server.stratum,
        root_distance_ns: exchange.server.root_distance.as_nanos(),
        poll: exchange.poll,
        rx_source: exchange.t4.source.name().into(),
        tx_source: exchange.t1.source.name().into(),
    }
}

/// A sample as a line of text.
fn sample_text(interface: &str, sample: &discipline::Sample) -> String {
    format!(
        "{interface}: offset {:+} ns  delay {} ns  frequency {:+.1} ppb  {}  {}",
        sample.offset.as_nanos(),
        sample.delay.as_nanos(),
        sample.frequency_ppb,
        sample.state.name(),
        bound::text(sample.trust.as_ref()),
    )
}

fn set_message_figures(figures: &mut PortFigures, counters: &Counters) {
    for kind in MessageType::ALL {
        figures.set_messages(Direction::Rx, kind, counters.received(kind));
        figures.set_messages(Direction::Tx, kind, counters.sent(kind));
    }
}

/// What was dropped, by the engine and before it.
fn set_drop_figures(figures: &mut PortFigures, counters: &Counters, counts: IoCounts) {
    for (cause, total) in counters.drops() {
        figures.set_exchanges(cause.name(), total);
    }
    for (cause, total) in counts.iter() {
        figures.set_exchanges(cause, total);
    }
}

fn set_stamp_figures(figures: &mut PortFigures, direction: Direction, counts: &SideCounts) {
    for (source, matched) in &counts.matched {
        figures.set_timestamps(direction, *source, StampOutcome::Matched, *matched);
    }
    for (outcome, total) in [
        (StampOutcome::Orphaned, counts.pairing.orphaned),
        (StampOutcome::Duplicate, counts.pairing.duplicate),
        (StampOutcome::Late, counts.pairing.late),
        (StampOutcome::Interrupted, counts.interrupted),
    ] {
        figures.set_timestamps(direction, counts.reference, outcome, total);
    }
    for point in &counts.points {
        let is_chosen = point.source == counts.chosen;
        let noise_seconds = point.noise_ns.map(|nanos| nanos / 1e9);
        let point = ((direction, point.source), CapturePoint { is_chosen, noise_seconds });
        figures.capture_points.extend([point]);
    }
    for (source, histogram) in &counts.differences {
        figures.timestamp_differences.insert((direction, *source), histogram.clone());
    }
}
