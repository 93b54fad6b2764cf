//! A PTP hardware clock that follows. The servo steers a software clock over CLOCK_MONOTONIC, the
//! scale of the stamps, and a loop of its own keeps the device on that: so the servo need not know
//! that the device has another oscillator and takes microseconds to read.

use std::{
    fs::{File, OpenOptions},
    io,
    os::{fd::AsFd, unix::fs::FileTypeExt},
    path::{Path, PathBuf},
};

use nix::fcntl::{Flock, FlockArg};
use ptp_common::time::{Duration, Mono, Ptp, Time};

use super::{
    Clock, ClockError, Consent,
    policy::{Limits, Policy},
    virtual_clock::VirtualClock,
};
use crate::sys::{
    adjust::{AdjustableClock, SCALED_PPM},
    clock::realtime_minus_monotonic,
    phc::{self, CrossReading, DeviceCapabilities},
};

/// Gains of the loop that keeps the device on the software clock: per second, as linuxptp's for
/// hardware clocks.
const PROPORTIONAL: f64 = 0.7;
const INTEGRAL: f64 = 0.3;
/// A device this far off its course, nanoseconds, was set by somebody else.
const LOST_NS: f64 = 1e7;
/// Looks that follow each other sooner, seconds, tell nothing.
const SHORTEST_S: f64 = 0.2;
/// Share of the device's range that is for its own oscillator's error.
const RESERVE: f64 = 0.1;

/// Why a device cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PhcError {
    /// There is none.
    #[error(
        "there is no {0}: `ptp-agent phc list` shows the clock devices of this host; a network card without a hardware clock has none (ethtool -T)"
    )]
    Missing(PathBuf),
    /// It is something else.
    #[error("{0} is not a PTP clock: expected a device such as /dev/ptp0")]
    NotAClock(PathBuf),
    /// It may only be read.
    #[error("{0} may not be written: run as its owner or root, or allow it by a udev rule")]
    ReadOnly(PathBuf),
    /// It cannot adjust its frequency.
    #[error("{0} cannot adjust its frequency, so that it cannot follow")]
    Fixed(PathBuf),
    /// Another program uses it.
    #[error("{path} is steered by another program: {by}. Stop it, or choose another clock")]
    InUse {
        /// The device.
        path: PathBuf,
        /// Who.
        by: String,
    },
    /// Something else.
    #[error("cannot {action} {path}: {error}")]
    Os {
        /// What was attempted.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
}

/// What is to be done with a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It is read.
    Read,
    /// It is set as well.
    Set,
}

/// An open device.
#[derive(Debug)]
pub struct Device {
    path: PathBuf,
    file: File,
    capabilities: DeviceCapabilities,
}

impl Device {
    /// Opens the device at `path`.
    ///
    /// # Errors
    /// [`PhcError`].
    pub fn open(path: &Path, access: Access) -> Result<Self, PhcError> {
        let owned = || path.to_owned();
        let file = OpenOptions::new().read(true).write(access == Access::Set).open(path).map_err(
            |error| match error.kind() {
                io::ErrorKind::NotFound => PhcError::Missing(owned()),
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
                    if access == Access::Set =>
                {
                    PhcError::ReadOnly(owned())
                }
                io::ErrorKind::IsADirectory => PhcError::NotAClock(owned()),
                _ => PhcError::Os { action: "open", path: owned(), error },
            },
        )?;
        let is_device = file.metadata().is_ok_and(|metadata| metadata.file_type().is_char_device());
        if !is_device {
            return Err(PhcError::NotAClock(owned()));
        }
        let capabilities = phc::capabilities(&file).map_err(|_| PhcError::NotAClock(owned()))?;
        Ok(Self { path: owned(), file, capabilities })
    }

    /// What it can do.
    pub const fn capabilities(&self) -> &DeviceCapabilities {
        &self.capabilities
    }

    /// Locks it against other agents, for as long as what is returned lives.
    ///
    /// # Errors
    /// [`PhcError::InUse`] where another agent has it.
    pub fn lock(&self) -> Result<Flock<File>, PhcError> {
        let again = self.file.try_clone().map_err(self.failed("open"))?;
        match Flock::lock(again, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(lock),
            Err((_, nix::Error::EWOULDBLOCK)) => {
                let by = "another agent, which has locked it".to_owned();
                Err(PhcError::InUse { path: self.path.clone(), by })
            }
            Err((_, error)) => Err(self.failed("lock")(error.into())),
        }
    }

    /// For what is asked of its pins.
    pub const fn file(&self) -> &File {
        &self.file
    }

    fn failed(&self, action: &'static str) -> impl FnOnce(io::Error) -> PhcError {
        let path = self.path.clone();
        move |error| PhcError::Os { action, path, error }
    }

    fn clock(&self) -> AdjustableClock {
        AdjustableClock::of_device(self.file.as_fd())
    }

    /// Its time together with CLOCK_REALTIME.
    ///
    /// # Errors
    /// [`PhcError::Os`], here and below.
    pub fn cross_reading(&self) -> Result<CrossReading, PhcError> {
        phc::cross_reading(&self.file).map_err(self.failed("read"))
    }

    /// The frequency adjustment in effect, parts per billion.
    ///
    /// # Errors
    /// As above.
    pub fn frequency_ppb(&self) -> Result<f64, PhcError> {
        let state = self.clock().state().map_err(self.failed("read the frequency of"))?;
        Ok(state.frequency as f64 * SCALED_PPM)
    }

    /// Sets the frequency adjustment, parts per billion; returns what is in effect.
    ///
    /// # Errors
    /// As above.
    pub fn set_frequency(&self, ppb: f64) -> Result<f64, PhcError> {
        let scaled = (ppb / SCALED_PPM).round() as i64;
        self.clock().set_frequency(scaled, None).map_err(self.failed("set the frequency of"))?;
        Ok(scaled as f64 * SCALED_PPM)
    }

    /// Adds `by` to its time.
    ///
    /// # Errors
    /// As above.
    pub fn step(&self, by: Duration) -> Result<(), PhcError> {
        self.clock().step(by).map_err(self.failed("step"))
    }
}

/// What [`PhcClock`] steers: a device, or in tests a model of one.
pub trait Hardware: Send {
    /// For messages.
    fn name(&self) -> &str;
    /// Largest adjustment of the frequency, parts per billion.
    fn max_frequency_ppb(&self) -> f64;
    /// Its time at an instant of CLOCK_MONOTONIC, and half of how well the two belong together.
    ///
    /// # Errors
    /// What the kernel reports, here and below.
    fn read(&mut self) -> Result<(Time<Mono>, Time<Ptp>, Duration), PhcError>;
    /// Its frequency adjustment, parts per billion.
    ///
    /// # Errors
    /// As above.
    fn frequency_ppb(&mut self) -> Result<f64, PhcError>;
    /// Sets that; returns what is in effect.
    ///
    /// # Errors
    /// As above.
    fn set_frequency(&mut self, ppb: f64) -> Result<f64, PhcError>;
    /// Adds to its time.
    ///
    /// # Errors
    /// As above.
    fn step(&mut self, by: Duration) -> Result<(), PhcError>;
}

/// A device with a lock on it, so that two agents do not take the same.
struct Locked {
    device: Device,
    name: String,
    _lock: Flock<File>,
}

impl Hardware for Locked {
    fn name(&self) -> &str {
        &self.name
    }
    fn max_frequency_ppb(&self) -> f64 {
        f64::from(self.device.capabilities.max_adj)
    }
    fn read(&mut self) -> Result<(Time<Mono>, Time<Ptp>, Duration), PhcError> {
        let reading = self.device.cross_reading()?;
        let mono = reading.real.since_epoch() - realtime_minus_monotonic();
        Ok((Time::from_epoch(mono), reading.device, reading.width.half()))
    }
    fn frequency_ppb(&mut self) -> Result<f64, PhcError> {
        self.device.frequency_ppb()
    }
    fn set_frequency(&mut self, ppb: f64) -> Result<f64, PhcError> {
        self.device.set_frequency(ppb)
    }
    fn step(&mut self, by: Duration) -> Result<(), PhcError> {
        self.device.step(by)
    }
}

/// Opens the device at `path` to follow with, unless another agent does.
///
/// # Errors
/// [`PhcError`].
pub fn take_over(path: &Path, limits: Limits) -> Result<PhcClock, PhcError> {
    let device = Device::open(path, Access::Set)?;
    if device.capabilities.max_adj <= 0 {
        return Err(PhcError::Fixed(path.to_owned()));
    }
    let lock = device.lock()?;
    let name = path.display().to_string();
    PhcClock::new(Box::new(Locked { device, name, _lock: lock }), limits)
}

/// See the module's documentation.
pub struct PhcClock {
    hardware: Box<dyn Hardware>,
    policy: Policy,
    is_refused: bool,
    /// What the servo steers, and where the device ought to be.
    course: VirtualClock,
    max_frequency_ppb: f64,
    /// What the device's own oscillator needs, parts per billion.
    own_ppb: f64,
    /// What takes the device back to its course until the next look.
    back_ppb: f64,
    set_ppb: f64,
    last: Time<Mono>,
    is_first: bool,
}

impl PhcClock {
    /// A clock that goes on from what `hardware` shows.
    ///
    /// # Errors
    /// [`PhcError`].
    pub fn new(mut hardware: Box<dyn Hardware>, limits: Limits) -> Result<Self, PhcError> {
        let range = hardware.max_frequency_ppb().abs();
        let set_ppb = hardware.frequency_ppb()?;
        let (mono, reading, _) = hardware.read()?;
        Ok(Self {
            policy: Policy::new(limits),
            is_refused: false,
            max_frequency_ppb: limits.max_frequency_ppb.min(range * (1.0 - RESERVE)),
            course: VirtualClock::new(mono, reading, range),
            own_ppb: set_ppb,
            back_ppb: 0.0,
            set_ppb,
            last: mono,
            is_first: true,
            hardware,
        })
    }

    /// Permits other steps and times from now on; the largest frequency stays what it is.
    pub fn set_limits(&mut self, limits: Limits) {
        self.policy.set_limits(limits);
    }

    /// Once a second: looks where the device is, and takes it back to its course.
    ///
    /// # Errors
    /// [`ClockError::Interference`] when another program steers it; what the kernel reports.
    pub fn keep(&mut self) -> Result<(), ClockError> {
        let in_effect = self.hardware.frequency_ppb().map_err(|error| self.failed(error))?;
        // A driver may round.
        if (in_effect - self.set_ppb).abs() > 1.0 + self.set_ppb.abs() * 1e-3 {
            return Err(ClockError::Interference {
                clock: self.hardware.name().to_owned(),
                what: format!(
                    "its frequency was set to {in_effect:+.3} ppb, after this agent had set {:+.3} ppb",
                    self.set_ppb
                ),
            });
        }
        let (mono, reading, _) = self.hardware.read().map_err(|error| self.failed(error))?;
        let offset_ns = (reading - self.course.at(mono)).as_nanos_f64();
        if offset_ns.abs() > LOST_NS {
            return Err(ClockError::Interference {
                clock: self.hardware.name().to_owned(),
                what: format!("it was set, by {:+.6} s", offset_ns * 1e-9),
            });
        }
        let passed_s = (mono - self.last).as_secs_f64();
        if passed_s < SHORTEST_S {
            return Ok(());
        }
        if self.is_first {
            // It began on its course: what it has left it by since is its oscillator's doing.
            self.own_ppb -= offset_ns / passed_s;
            self.is_first = false;
        } else {
            self.own_ppb -= INTEGRAL * offset_ns * passed_s.min(1.0);
        }
        self.back_ppb = -PROPORTIONAL * offset_ns / passed_s.max(1.0);
        let range = self.hardware.max_frequency_ppb().abs();
        self.own_ppb = self.own_ppb.clamp(-range, range);
        self.last = mono;
        self.apply()
    }

    fn apply(&mut self) -> Result<(), ClockError> {
        let range = self.hardware.max_frequency_ppb().abs();
        let ppb = self.course.frequency_ppb() + self.own_ppb + self.back_ppb;
        let ppb = ppb.clamp(-range, range);
        self.set_ppb = self.hardware.set_frequency(ppb).map_err(|error| self.failed(error))?;
        Ok(())
    }

    fn failed(&self, error: PhcError) -> ClockError {
        let clock = self.hardware.name().to_owned();
        match error {
            PhcError::Os { action, error, .. } => {
                ClockError::Os { action, clock, source: error.into() }
            }
            other => ClockError::Refused { action: "steer", clock, reason: other.to_string() },
        }
    }

    /// Leaves the device with the frequency that it needs, without what was under way.
    ///
    /// # Errors
    /// What the kernel reports.
    pub fn release(&mut self) -> Result<(), ClockError> {
        self.back_ppb = 0.0;
        self.apply()
    }
}

impl Clock for PhcClock {
    fn name(&self) -> &str {
        self.hardware.name()
    }
    fn at(&self, mono: Time<Mono>) -> Time<Ptp> {
        self.course.at(mono)
    }
    fn consent(&mut self, at: Time<Mono>, offset: Duration) -> Result<Consent, ClockError> {
        let permitted = self.policy.permit(self.at(at), offset);
        self.is_refused = permitted.is_err();
        match permitted {
            Ok(()) => Ok(Consent::Given),
            Err(refusal) => Err(ClockError::Refused {
                action: "follow the grandmaster with",
                clock: self.hardware.name().to_owned(),
                reason: refusal.to_string(),
            }),
        }
    }
    fn is_refused(&self) -> bool {
        self.is_refused
    }
    fn followed(&mut self) {
        self.policy.followed();
    }
    fn frequency_ppb(&self) -> f64 {
        self.course.frequency_ppb()
    }
    fn max_frequency_ppb(&self) -> f64 {
        self.max_frequency_ppb
    }
    fn set_frequency(&mut self, now: Time<Mono>, ppb: f64) -> Result<f64, ClockError> {
        let ppb = if ppb.is_finite() { ppb } else { self.frequency_ppb() };
        let ppb = ppb.clamp(-self.max_frequency_ppb, self.max_frequency_ppb);
        let effective = self.course.set_frequency(now, ppb)?;
        self.apply()?;
        Ok(effective)
    }
    fn step(&mut self, now: Time<Mono>, by: Duration) -> Result<(), ClockError> {
        let reading = self.at(now);
        self.policy.step(reading, by).map_err(|refusal| ClockError::Refused {
            action: "step",
            clock: self.hardware.name().to_owned(),
            reason: refusal.to_string(),
        })?;
        // Whole nanoseconds for both.
        let by = Duration::from_nanos(by.as_nanos());
        self.hardware.step(by).map_err(|error| self.failed(error))?;
        self.course.step(now, by)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    /// A device with an oscillator of its own, read with an error that changes sign.
    #[derive(Clone)]
    struct Model(Arc<Mutex<State>>);

    struct State {
        now: Time<Mono>,
        clock: VirtualClock,
        oscillator_ppb: f64,
        set_ppb: f64,
        noise_ns: i64,
    }

    impl Model {
        fn new(oscillator_ppb: f64) -> Self {
            let now = Time::from_nanos(1_000_000_000);
            let mut clock = VirtualClock::new(now, Time::from_seconds_nanos(1_900_000_000, 0), 1e8);
            clock.set_frequency(now, oscillator_ppb).unwrap();
            Self(Arc::new(Mutex::new(State {
                now,
                clock,
                oscillator_ppb,
                set_ppb: 0.0,
                noise_ns: 50,
            })))
        }

        fn advance(&self, seconds: f64) -> Time<Mono> {
            let mut state = self.0.lock().unwrap();
            state.now += Duration::from_nanos_f64(seconds * 1e9);
            state.now
        }

        fn error_ns(&self, clock: &PhcClock) -> f64 {
            let state = self.0.lock().unwrap();
            (state.clock.at(state.now) - clock.at(state.now)).as_nanos_f64()
        }
    }

    impl Hardware for Model {
        fn name(&self) -> &str {
            "/dev/ptp0"
        }
        fn max_frequency_ppb(&self) -> f64 {
            1e6
        }
        fn read(&mut self) -> Result<(Time<Mono>, Time<Ptp>, Duration), PhcError> {
            let mut state = self.0.lock().unwrap();
            state.noise_ns = -state.noise_ns;
            let reading = state.clock.at(state.now) + Duration::from_nanos(state.noise_ns);
            Ok((state.now, reading, Duration::from_nanos(50)))
        }
        fn frequency_ppb(&mut self) -> Result<f64, PhcError> {
            Ok(self.0.lock().unwrap().set_ppb)
        }
        fn set_frequency(&mut self, ppb: f64) -> Result<f64, PhcError> {
            let mut state = self.0.lock().unwrap();
            state.set_ppb = ppb;
            let (now, total) = (state.now, state.oscillator_ppb + ppb);
            state.clock.set_frequency(now, total).unwrap();
            Ok(ppb)
        }
        fn step(&mut self, by: Duration) -> Result<(), PhcError> {
            let mut state = self.0.lock().unwrap();
            let now = state.now;
            state.clock.step(now, by).unwrap();
            Ok(())
        }
    }

    fn clock(model: &Model) -> PhcClock {
        PhcClock::new(Box::new(model.clone()), Limits::default()).unwrap()
    }

    #[test]
    fn the_device_stays_on_the_course_that_the_servo_steers() {
        let model = Model::new(43_210.0);
        let mut clock = clock(&model);
        for n in 0..300 {
            let now = model.advance(1.0);
            clock.keep().unwrap();
            clock.set_frequency(now, f64::from((n * 7_919) % 20_001 - 10_000)).unwrap();
            if n == 100 {
                clock.step(now, Duration::from_millis(-750)).unwrap();
            }
            let error_ns = model.error_ns(&clock);
            assert!(n < 20 || error_ns.abs() < 300.0, "{n}: {error_ns} ns");
        }
        assert!((clock.own_ppb + 43_210.0).abs() < 100.0, "{}", clock.own_ppb);
    }

    #[test]
    fn another_program_that_steers_the_device_is_noticed() {
        let model = Model::new(0.0);
        let mut clock = clock(&model);
        clock.keep().unwrap();
        model.clone().set_frequency(500.0).unwrap();
        assert!(matches!(clock.keep(), Err(ClockError::Interference { .. })));
        let model = Model::new(0.0);
        let mut clock = self::clock(&model);
        model.clone().step(Duration::from_secs(1)).unwrap();
        assert!(matches!(clock.keep(), Err(ClockError::Interference { .. })));
    }

    #[test]
    fn a_path_that_is_no_clock_gets_a_clear_error() {
        let open = |path: &str| Device::open(Path::new(path), Access::Set).unwrap_err();
        assert!(matches!(open("/dev/no-such-ptp"), PhcError::Missing(_)));
        assert!(matches!(open("/dev/null"), PhcError::NotAClock(_)));
        assert!(matches!(open("/dev"), PhcError::NotAClock(_)));
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = Device::open(file.path(), Access::Set).unwrap_err();
        assert!(matches!(error, PhcError::NotAClock(_)), "{error}");
    }
}
