//! The node's clock: the product's [`SystemClock`] over the simulator's `adjtimex`, through the trait that stands
//! for the kernel. With `time_stamping hardware` the same clock is taken for a card's: its time is on the PTP time
//! scale, and no UTC offset lies between.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use ptp_agent::{
    clock::{
        Clock, ClockError, ClockScale, Consent,
        frequency::KernelFrequency,
        system::{Kernel, SystemClock},
    },
    sys::adjust::{ClockState, Vouching, nominal_tick},
};
use ptp_common::time::{Duration, Free, Mono, NANOS_PER_SEC, Ptp, Time};

use crate::{
    settings::Steering,
    simulator::{Readings, Simulator, Timex},
};

/// The two clocks of a simulated node are one counter and a constant, but are told apart as floating point
/// numbers: what is less than this is no step.
const NOISE: Duration = Duration::from_micros(1);

/// The way to the server, and the time as it was last told.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) simulator: Simulator,
    /// When CLOCK_REALTIME was 0, seconds since 1970.
    epoch_s: u64,
    now: Time<Mono>,
    real_minus_mono: Duration,
    tai_offset_s: i32,
}

impl World {
    /// Asks the server for the time.
    pub(crate) fn new(simulator: Simulator, epoch_s: u64) -> io::Result<Self> {
        let readings = simulator.time()?;
        let mut world = Self {
            simulator,
            epoch_s,
            now: Time::from_nanos(0),
            real_minus_mono: Duration::ZERO,
            tai_offset_s: 0,
        };
        world.real_minus_mono = world.difference(&readings);
        world.take(&readings);
        Ok(world)
    }

    /// The present, CLOCK_MONOTONIC.
    pub(crate) const fn now(&self) -> Time<Mono> {
        self.now
    }

    /// CLOCK_REALTIME minus CLOCK_MONOTONIC.
    pub(crate) const fn real_minus_mono(&self) -> Duration {
        self.real_minus_mono
    }

    /// What SELECT has told.
    pub(crate) fn take(&mut self, readings: &Readings) {
        self.now = Time::from_epoch(Duration::from_nanos_f64(readings.monotonic_s * 1e9));
        let difference = self.difference(readings);
        if (difference - self.real_minus_mono).abs() >= NOISE {
            self.real_minus_mono = difference;
        }
    }

    fn difference(&self, readings: &Readings) -> Duration {
        let epoch = Duration::from_secs(i64::try_from(self.epoch_s).unwrap_or(i64::MAX));
        epoch + Duration::from_nanos_f64((readings.real_s - readings.monotonic_s) * 1e9)
    }

    fn adjust(&mut self, timex: &Timex) -> io::Result<ClockState> {
        let (leap_state, timex) = self.simulator.adjust(timex)?;
        self.tai_offset_s = timex.tai;
        Ok(ClockState {
            status: timex.status,
            frequency: timex.frequency,
            tick: timex.tick,
            offset: timex.offset,
            max_error_us: timex.max_error,
            est_error_us: timex.est_error,
            tai_offset_seconds: timex.tai,
            leap_state,
        })
    }

    fn step(&mut self, by: Duration) -> io::Result<()> {
        let nanos = by.as_nanos();
        let time = (nanos.div_euclid(NANOS_PER_SEC), nanos.rem_euclid(NANOS_PER_SEC));
        self.adjust(&Timex {
            modes: libc::ADJ_SETOFFSET | libc::ADJ_NANO,
            time,
            ..Timex::default()
        })?;
        // Afresh: of a clock that was far off, its reading was coarse.
        let readings = self.simulator.time()?;
        self.real_minus_mono = self.difference(&readings);
        Ok(())
    }
}

/// A [`World`] that the clock and the loop share.
#[derive(Clone, Debug)]
pub(crate) struct Shared(Arc<Mutex<World>>);

impl Shared {
    pub(crate) fn new(world: World) -> Self {
        Self(Arc::new(Mutex::new(world)))
    }

    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kernel for Shared {
    fn monotonic(&self) -> Time<Mono> {
        self.world().now
    }

    fn real_minus_monotonic(&self) -> Duration {
        self.world().real_minus_mono
    }

    fn nominal_tick(&self) -> i64 {
        nominal_tick()
    }

    fn state(&self) -> io::Result<ClockState> {
        self.world().adjust(&Timex::default())
    }

    fn take_over(&mut self) -> io::Result<ClockState> {
        let (modes, status) = (libc::ADJ_STATUS | libc::ADJ_NANO, libc::STA_UNSYNC);
        self.world().adjust(&Timex { modes, status, ..Timex::default() })
    }

    fn set_frequency(&mut self, frequency: KernelFrequency) -> io::Result<ClockState> {
        let KernelFrequency { tick, fine } = frequency;
        let modes = libc::ADJ_FREQUENCY | libc::ADJ_TICK;
        self.world().adjust(&Timex { modes, frequency: fine, tick, ..Timex::default() })
    }

    fn step(&mut self, by: Duration) -> io::Result<()> {
        self.world().step(by)
    }

    fn vouch(&mut self, vouching: Vouching) -> io::Result<ClockState> {
        let mut timex = Timex {
            modes: libc::ADJ_STATUS | libc::ADJ_MAXERROR | libc::ADJ_ESTERROR,
            status: vouching.status(),
            max_error: vouching.max_error_us,
            est_error: vouching.est_error_us,
            ..Timex::default()
        };
        if let Some(seconds) = vouching.tai_offset_seconds {
            timex.modes |= libc::ADJ_TAI;
            timex.constant = i64::from(seconds);
        }
        self.world().adjust(&timex)
    }
}

/// See the module's paragraph.
pub(crate) struct NodeClock {
    pub(crate) system: SystemClock,
    scale: ClockScale,
    steering: Steering,
}

impl NodeClock {
    pub(crate) const fn new(system: SystemClock, scale: ClockScale, steering: Steering) -> Self {
        Self { system, scale, steering }
    }
}

impl Clock for NodeClock {
    fn name(&self) -> &str {
        self.system.name()
    }
    fn scale(&self) -> ClockScale {
        self.scale
    }
    fn at(&self, mono: Time<Mono>) -> Time<Ptp> {
        self.system.at(mono)
    }
    fn free_running(&self, mono: Time<Mono>) -> Time<Free> {
        self.system.free_running(mono)
    }
    fn leaps(&self) -> i64 {
        self.system.leaps()
    }
    fn consent(&mut self, at: Time<Mono>, offset: Duration) -> Result<Consent, ClockError> {
        self.system.consent(at, offset)
    }
    fn is_refused(&self) -> bool {
        self.system.is_refused()
    }
    fn followed(&mut self) {
        self.system.followed();
    }
    fn frequency_ppb(&self) -> f64 {
        self.system.frequency_ppb()
    }
    fn max_frequency_ppb(&self) -> f64 {
        self.system.max_frequency_ppb()
    }
    fn set_frequency(&mut self, now: Time<Mono>, ppb: f64) -> Result<f64, ClockError> {
        match self.steering {
            Steering::On => self.system.set_frequency(now, ppb),
            Steering::Off => Ok(self.system.frequency_ppb()),
        }
    }
    fn step(&mut self, now: Time<Mono>, by: Duration) -> Result<(), ClockError> {
        match self.steering {
            Steering::On => self.system.step(now, by),
            Steering::Off => Ok(()),
        }
    }
}
