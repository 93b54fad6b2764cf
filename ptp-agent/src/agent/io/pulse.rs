//! The hands for pulses: a device of the kernel (RFC 2783) or a pin of a hardware clock, whose edges a thread waits for,
//! and the serial line of a receiver that says which seconds they are, which another one reads. Both threads end with
//! the process; what they cannot do any more they say once and try again.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration as StdDuration,
};

use ptp_common::time::{Duration, Mono, Time};
use tokio::sync::mpsc::{self, Receiver, Sender, error::TrySendError};

use super::Delivery;
use crate::{
    clock::{
        phc::{Access, Device as Phc, PhcError},
        relation::{Figures, Reading, Relation},
    },
    stamp::{Stamp, StampSource},
    sys::{
        clock::{monotonic, realtime_minus_monotonic},
        pins::{self, Edges, Function},
        pps::{self, Edge},
        serial::Line,
    },
};

/// Between two looks whether the process still wants pulses.
const PATIENCE: StdDuration = StdDuration::from_millis(1_200);
/// Between two attempts to read what cannot be read.
const AGAIN: StdDuration = StdDuration::from_secs(1);
/// Deliveries that wait; a loop that is later than that has other troubles.
const WAITING: usize = 64;
/// A line is read in such pieces, bytes.
const PIECE: usize = 256;
/// Channel of external timestamps, which most cards have one or two of.
const CHANNEL: u32 = 0;

/// Where pulses come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PulseSource {
    /// `/dev/ppsN`.
    Kernel(PathBuf),
    /// A hardware clock, and which of its pins, where it can be chosen.
    Phc(PathBuf, Option<u32>),
}

impl PulseSource {
    /// The device.
    pub fn path(&self) -> &Path {
        match self {
            Self::Kernel(path) | Self::Phc(path, _) => path,
        }
    }
}

impl std::fmt::Display for PulseSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Kernel(path) => write!(f, "{}", path.display()),
            Self::Phc(path, None) => write!(f, "phc:{}", path.display()),
            Self::Phc(path, Some(pin)) => write!(f, "phc:{}:{pin}", path.display()),
        }
    }
}

/// What is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PulseIoConfig {
    /// The pulses.
    pub source: PulseSource,
    /// Which edge.
    pub edge: Edge,
    /// A receiver's line, and its speed.
    pub nmea: Option<(PathBuf, Option<u32>)>,
}

/// Why it cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum PulseError {
    /// Not /dev/ppsN.
    #[error(
        "cannot take pulses from {path}: {error}. It needs a source of pulses (pps-gpio, pps-ldisc by `ldattach PPS`, or a card's own) and read access to the device, which a udev rule can give"
    )]
    Pps {
        /// Which.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
    /// Not /dev/ptpN.
    #[error(transparent)]
    Phc(#[from] PhcError),
    /// No edges there.
    #[error(
        "{path} does not stamp edges at its pins: {error}. `ptp-agent phc pins {path}` says what it can"
    )]
    Extts {
        /// Which.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
    /// No line.
    #[error(
        "cannot read {path}: {error}. It needs a serial line and read access to it (group dialout)"
    )]
    Nmea {
        /// Which.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
    /// No thread.
    #[error("cannot start a thread: {0}")]
    Thread(#[source] io::Error),
}

enum Edged {
    Kernel(pps::Device),
    Phc(Extts),
}

/// A channel that is switched off again.
struct Extts {
    device: Phc,
    relation: Relation,
}

impl Drop for Extts {
    fn drop(&mut self) {
        let _ = pins::set_extts(self.device.file(), CHANNEL, Edges::Off);
    }
}

/// Devices that are open, before privileges are given up.
pub struct Opened {
    config: PulseIoConfig,
    edged: Edged,
    line: Option<Line>,
}

impl Opened {
    /// Where pulses come from.
    pub const fn source(&self) -> &PulseSource {
        &self.config.source
    }
}

/// Opens the devices.
///
/// # Errors
/// [`PulseError`].
pub fn open(config: PulseIoConfig) -> Result<Opened, PulseError> {
    let edged = match &config.source {
        PulseSource::Kernel(path) => {
            let failed = |error| PulseError::Pps { path: path.clone(), error };
            Edged::Kernel(pps::Device::open(path, config.edge).map_err(failed)?)
        }
        PulseSource::Phc(path, pin) => {
            let device = Phc::open(path, Access::Set)?;
            let failed = |error| PulseError::Extts { path: path.clone(), error };
            if let Some(pin) = pin {
                let was = pins::pin(device.file(), *pin).map_err(failed)?;
                if (was.function, was.channel) != (Function::Extts, CHANNEL) {
                    pins::set_pin(device.file(), *pin, Function::Extts, CHANNEL).map_err(failed)?;
                }
            }
            let edges = match config.edge {
                Edge::Assert => Edges::Rising,
                Edge::Clear => Edges::Falling,
            };
            pins::set_extts(device.file(), CHANNEL, edges).map_err(failed)?;
            Edged::Phc(Extts { device, relation: Relation::default() })
        }
    };
    let line = config.nmea.as_ref().map(|(path, baud)| {
        Line::open(path, *baud).map_err(|error| PulseError::Nmea { path: path.clone(), error })
    });
    Ok(Opened { line: line.transpose()?, config, edged })
}

/// What is told of the threads.
#[derive(Debug, Default)]
struct Shared {
    /// Edges that were not used because CLOCK_REALTIME was stepped around them.
    stepped: AtomicU64,
    /// Deliveries for which there was no room.
    overrun: AtomicU64,
    /// Failures to read.
    errors: AtomicU64,
    relation: std::sync::Mutex<Option<Figures>>,
}

/// Totals of what went wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PulseIoCounts {
    /// Edges that were not used because CLOCK_REALTIME was stepped around them.
    pub stepped: u64,
    /// Edges and sentences for which there was no room.
    pub overrun: u64,
    /// Failures to read a device or a line.
    pub errors: u64,
}

/// See the module's paragraph.
pub struct PulseIo {
    config: PulseIoConfig,
    from: Receiver<Delivery>,
    next: Option<Delivery>,
    shared: Arc<Shared>,
}

impl PulseIo {
    /// Begins to wait for pulses.
    ///
    /// # Errors
    /// [`PulseError::Thread`].
    pub fn start(opened: Opened) -> Result<Self, PulseError> {
        let Opened { config, edged, line } = opened;
        let (to, from) = mpsc::channel(WAITING);
        let shared = Arc::new(Shared::default());
        if let (Some(line), Some((path, baud))) = (line, config.nmea.clone()) {
            let way = Way { to: to.clone(), shared: shared.clone() };
            spawn("nmea", move || read_line(&way, line, &path, baud))?;
        }
        let way = Way { to, shared: shared.clone() };
        let name = config.source.to_string();
        spawn("pps", move || match edged {
            Edged::Kernel(device) => fetch(&way, &device, &name),
            Edged::Phc(extts) => stamped(&way, extts, &name),
        })?;
        Ok(Self { config, from, next: None, shared })
    }

    /// What it was opened as.
    pub const fn config(&self) -> &PulseIoConfig {
        &self.config
    }

    /// Its device, as samples name it where others name an interface.
    pub fn name(&self) -> &str {
        self.config.source.path().to_str().unwrap_or("?")
    }

    /// Totals.
    pub fn counts(&self) -> PulseIoCounts {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let Shared { stepped, overrun, errors, .. } = &*self.shared;
        PulseIoCounts { stepped: of(stepped), overrun: of(overrun), errors: of(errors) }
    }

    /// How the hardware clock that stamps lies to the host's.
    pub fn relation(&self) -> Option<Figures> {
        *self.shared.relation.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// What has come, oldest first.
    pub fn next_delivery(&mut self) -> Option<Delivery> {
        self.next.take().or_else(|| self.from.try_recv().ok())
    }

    /// Until something has come. Cancel-safe.
    pub(super) async fn wait(&mut self) {
        if self.next.is_some() {
            return;
        }
        match self.from.recv().await {
            Some(delivery) => self.next = Some(delivery),
            // Both threads have gone, which they only do by a fault: there is nothing to wait for.
            None => std::future::pending().await,
        }
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), PulseError> {
    let spawned = thread::Builder::new().name(name.to_owned()).spawn(run);
    spawned.map(drop).map_err(PulseError::Thread)
}

struct Way {
    to: Sender<Delivery>,
    shared: Arc<Shared>,
}

impl Way {
    /// Whether anybody still wants it.
    fn deliver(&self, delivery: Delivery) -> bool {
        match self.to.try_send(delivery) {
            Ok(()) => true,
            Err(TrySendError::Full(_)) => {
                self.shared.overrun.fetch_add(1, Ordering::Relaxed);
                true
            }
            Err(TrySendError::Closed(_)) => false,
        }
    }

    fn failed(&self, told: &mut bool, what: &str, error: &io::Error) {
        self.shared.errors.fetch_add(1, Ordering::Relaxed);
        if !std::mem::replace(told, true) {
            tracing::warn!(device = what, %error, "cannot read; trying again");
        }
    }
}

/// Edges of a device of the kernel.
fn fetch(way: &Way, device: &pps::Device, name: &str) {
    let mut told = false;
    let mut sequence = device.fetch(StdDuration::ZERO).map_or(0, |event| event.sequence);
    let mut before = realtime_minus_monotonic();
    while !way.to.is_closed() {
        match device.fetch(PATIENCE) {
            Ok(event) if event.sequence == sequence => {}
            Ok(event) => {
                (sequence, told) = (event.sequence, false);
                let now = realtime_minus_monotonic();
                // It is a constant that only a step changes; nobody knows on which side of that the edge was.
                if now != std::mem::replace(&mut before, now) {
                    way.shared.stepped.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
                let time = event.real.at_offset(Duration::ZERO - now);
                if !way.deliver(Delivery::Pulse(Stamp::new(time, StampSource::Pps))) {
                    return;
                }
            }
            Err(error) if error.raw_os_error() == Some(libc::ETIMEDOUT) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                way.failed(&mut told, name, &error);
                thread::sleep(AGAIN);
            }
        }
    }
}

/// Edges that a hardware clock has stamped.
fn stamped(way: &Way, mut extts: Extts, name: &str) {
    let mut told = false;
    while !way.to.is_closed() {
        let edge = pins::next_edge(extts.device.file(), PATIENCE);
        match extts.device.cross_reading() {
            Ok(reading) => drop(extts.relation.learn(Reading::from(reading))),
            Err(PhcError::Os { error, .. }) => way.failed(&mut told, name, &error),
            Err(_) => {}
        }
        let figures = extts.relation.figures();
        *way.shared.relation.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = figures;
        match edge {
            Ok(Some(edge)) if edge.channel == CHANNEL => {
                told = false;
                let Some(time) = extts.relation.mono_at(edge.time) else { continue };
                if !way.deliver(Delivery::Pulse(Stamp::new(time, StampSource::Extts))) {
                    return;
                }
            }
            Ok(_) => {}
            Err(error) => {
                way.failed(&mut told, name, &error);
                thread::sleep(AGAIN);
            }
        }
    }
}

/// Sentences of a receiver.
fn read_line(way: &Way, line: Line, path: &Path, baud: Option<u32>) {
    let mut line = Some(line);
    let mut buffer = [0; PIECE];
    let mut told = false;
    while !way.to.is_closed() {
        let read = match &mut line {
            Some(line) => line.read(&mut buffer, PATIENCE),
            None => Line::open(path, baud).map(|opened| {
                line = Some(opened);
                0
            }),
        };
        let at: Time<Mono> = monotonic();
        match read {
            Ok(0) => {}
            Ok(count) => {
                told = false;
                if !way.deliver(Delivery::Nmea { at, bytes: buffer[..count].to_vec() }) {
                    return;
                }
            }
            Err(error) => {
                way.failed(&mut told, &path.display().to_string(), &error);
                line = None;
                thread::sleep(AGAIN);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_that_are_none_are_refused_with_what_to_do() {
        let open = |source, nmea: Option<&str>| {
            let nmea = nmea.map(|path| (path.into(), None));
            open(PulseIoConfig { source, edge: Edge::Assert, nmea }).err().unwrap().to_string()
        };
        let error = open(PulseSource::Kernel("/dev/null".into()), None);
        assert!(error.contains("/dev/null") && error.contains("pps-gpio"), "{error}");
        let error = open(PulseSource::Phc("/dev/null".into(), Some(0)), None);
        assert!(error.contains("is not a PTP clock"), "{error}");
    }
}
