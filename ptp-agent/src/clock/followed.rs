//! The clock behind a time receiver: one that is steered, or one that is only watched.

use ptp_common::time::{Duration, Free, Mono, Ptp, Time};

use super::{
    Clock, ClockError, ClockScale, Consent,
    phc::PhcClock,
    policed::PolicedClock,
    policy::{Limits, MAX_FREQUENCY_PPB},
    system::SystemClock,
    virtual_clock::VirtualClock,
    watch::WatchClock,
};

/// See the module's paragraph.
pub enum Followed {
    /// A software clock; the host's own clocks are not touched.
    Virtual(PolicedClock),
    /// The host's time, compared with the grandmaster's.
    Watched(WatchClock),
    /// The host's clock.
    System(Box<SystemClock>),
    /// A hardware clock.
    Phc(Box<PhcClock>),
}

impl Followed {
    /// A software clock that shows `reading` at `now`, and may do anything until it gets limits.
    pub fn virtual_at(now: Time<Mono>, reading: Time<Ptp>) -> Self {
        let clock = VirtualClock::new(now, reading, MAX_FREQUENCY_PPB);
        Self::Virtual(PolicedClock::new(clock))
    }

    /// The host's time, which is `host` at `now`.
    pub fn watching(now: Time<Mono>, host: Time<Ptp>) -> Self {
        Self::Watched(WatchClock::new(ClockScale::Utc, now, host))
    }

    /// What may be done to the clock from now on.
    pub fn set_limits(&mut self, limits: Limits) {
        match self {
            Self::Watched(_) => {}
            Self::Virtual(clock) => clock.set_limits(limits),
            Self::System(clock) => clock.set_limits(limits),
            Self::Phc(clock) => clock.set_limits(limits),
        }
    }

    /// A fresh reading of the host's time. CLOCK_REALTIME and
    /// CLOCK_MONOTONIC are one counter plus a constant: there is no reading error.
    pub fn read(&mut self, now: Time<Mono>, host: Time<Ptp>) {
        match self {
            Self::Virtual(_) | Self::Phc(_) => {}
            Self::Watched(watch) => watch.update(now, host),
            Self::System(clock) => clock.read(now, host.ahead_of(now)),
        }
    }

    fn inner(&self) -> &dyn Clock {
        match self {
            Self::Virtual(clock) => clock,
            Self::Watched(clock) => clock,
            Self::System(clock) => &**clock,
            Self::Phc(clock) => &**clock,
        }
    }

    fn inner_mut(&mut self) -> &mut dyn Clock {
        match self {
            Self::Virtual(clock) => clock,
            Self::Watched(clock) => clock,
            Self::System(clock) => &mut **clock,
            Self::Phc(clock) => &mut **clock,
        }
    }
}

impl Clock for Followed {
    fn name(&self) -> &str {
        self.inner().name()
    }
    fn scale(&self) -> ClockScale {
        self.inner().scale()
    }
    fn at(&self, mono: Time<Mono>) -> Time<Ptp> {
        self.inner().at(mono)
    }
    fn free_running(&self, mono: Time<Mono>) -> Time<Free> {
        self.inner().free_running(mono)
    }
    fn leaps(&self) -> i64 {
        self.inner().leaps()
    }
    fn consent(&mut self, at: Time<Mono>, offset: Duration) -> Result<Consent, ClockError> {
        self.inner_mut().consent(at, offset)
    }
    fn is_refused(&self) -> bool {
        self.inner().is_refused()
    }
    fn followed(&mut self) {
        self.inner_mut().followed();
    }
    fn is_adjustable(&self) -> bool {
        self.inner().is_adjustable()
    }
    fn frequency_ppb(&self) -> f64 {
        self.inner().frequency_ppb()
    }
    fn max_frequency_ppb(&self) -> f64 {
        self.inner().max_frequency_ppb()
    }
    fn set_frequency(&mut self, now: Time<Mono>, ppb: f64) -> Result<f64, ClockError> {
        self.inner_mut().set_frequency(now, ppb)
    }
    fn step(&mut self, now: Time<Mono>, by: Duration) -> Result<(), ClockError> {
        self.inner_mut().step(now, by)
    }
}
