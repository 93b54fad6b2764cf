//! A model of the kernel's clocks: CLOCK_MONOTONIC, which `adjtimex` slews, over an oscillator that
//! nobody touches, and CLOCK_REALTIME a constant above it.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use ptp_common::time::{Duration, Mono, Ptp, Time};

use crate::{
    clock::{
        Clock,
        frequency::{KernelFrequency, LIMIT_PPB},
        system::Kernel,
        virtual_clock::VirtualClock,
    },
    sys::adjust::{ClockState, Vouching},
};

const NOMINAL_TICK: i64 = 10_000;

#[derive(Debug)]
struct Inner {
    /// What the oscillator has counted, as a time.
    raw: Time<Mono>,
    slewed: VirtualClock,
    real_minus_mono: Duration,
    state: ClockState,
}

/// See the module's paragraph. Clones are the same kernel.
#[derive(Clone, Debug)]
pub struct SimulatedKernel(Arc<Mutex<Inner>>);

impl SimulatedKernel {
    /// At `raw`, CLOCK_MONOTONIC shows the same and CLOCK_REALTIME shows `real`.
    pub fn new(raw: Time<Mono>, real: Time<Ptp>) -> Self {
        let state = ClockState {
            status: libc::STA_UNSYNC,
            frequency: 0,
            tick: NOMINAL_TICK,
            offset: 0,
            max_error_us: 16_000_000,
            est_error_us: 16_000_000,
            tai_offset_seconds: 0,
            leap_state: 0,
        };
        Self(Arc::new(Mutex::new(Inner {
            raw,
            slewed: VirtualClock::new(raw, raw.at_offset(Duration::ZERO), LIMIT_PPB),
            real_minus_mono: real.ahead_of(raw),
            state,
        })))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The oscillator has come to `raw`.
    pub fn advance(&self, raw: Time<Mono>) {
        self.inner().raw = raw;
    }

    /// CLOCK_MONOTONIC when the oscillator showed `raw`.
    pub fn monotonic_at(&self, raw: Time<Mono>) -> Time<Mono> {
        Time::from_epoch(self.inner().slewed.at(raw).since_epoch())
    }

    /// CLOCK_REALTIME now.
    pub fn realtime(&self) -> Time<Ptp> {
        let inner = self.inner();
        inner.slewed.at(inner.raw) + inner.real_minus_mono
    }

    /// A leap second, or somebody sets the clock.
    pub fn jump(&self, by: Duration) {
        self.inner().real_minus_mono += by;
    }

    fn set(&self, change: impl FnOnce(&mut Inner)) -> io::Result<ClockState> {
        let mut inner = self.inner();
        change(&mut inner);
        Ok(inner.state)
    }
}

impl Kernel for SimulatedKernel {
    fn monotonic(&self) -> Time<Mono> {
        let inner = self.inner();
        inner.slewed.at(inner.raw).at_offset(Duration::ZERO)
    }

    fn real_minus_monotonic(&self) -> Duration {
        self.inner().real_minus_mono
    }

    fn nominal_tick(&self) -> i64 {
        NOMINAL_TICK
    }

    fn state(&self) -> io::Result<ClockState> {
        Ok(self.inner().state)
    }

    fn take_over(&mut self) -> io::Result<ClockState> {
        self.set(|inner| inner.state.status = libc::STA_UNSYNC)
    }

    fn set_frequency(&mut self, frequency: KernelFrequency) -> io::Result<ClockState> {
        self.set(|inner| {
            inner.state.tick = frequency.tick;
            inner.state.frequency = frequency.fine;
            let raw = inner.raw;
            // Within its limits whatever the setting is.
            let _ = inner.slewed.set_frequency(raw, frequency.ppb(NOMINAL_TICK));
        })
    }

    fn step(&mut self, by: Duration) -> io::Result<()> {
        self.set(|inner| {
            inner.real_minus_mono += Duration::from_nanos(by.as_nanos());
            // As `ntp_clear` does.
            inner.state.status |= libc::STA_UNSYNC;
            inner.state.max_error_us = 16_000_000;
            inner.state.est_error_us = 16_000_000;
        })
        .map(drop)
    }

    fn vouch(&mut self, vouching: Vouching) -> io::Result<ClockState> {
        self.set(|inner| {
            let state = &mut inner.state;
            state.status = vouching.status();
            state.max_error_us = vouching.max_error_us;
            state.est_error_us = vouching.est_error_us;
            if let Some(seconds) = vouching.tai_offset_seconds {
                state.tai_offset_seconds = seconds;
            }
        })
    }
}
