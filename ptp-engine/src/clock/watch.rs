//! The clock of `--clock none`: it shows a given local time scale and refuses every adjustment.

use super::{Clock, ClockError, ClockScale};
use ptp_common::time::{Duration, Mono, Ptp, Time};

/// A local time scale as an offset from the monotonic clock, kept fresh by the caller.
#[derive(Clone, Debug)]
pub struct WatchClock {
    scale: ClockScale,
    offset: Duration,
    error: Duration,
}

impl WatchClock {
    /// A time scale that now reads `local` when the monotonic clock reads `mono`, give or take
    /// `error`.
    pub fn new(scale: ClockScale, mono: Time<Mono>, local: Time<Ptp>, error: Duration) -> Self {
        Self { scale, offset: local.ahead_of(mono), error }
    }

    /// A fresh pair of readings, as for [`Self::new`].
    pub fn update(&mut self, mono: Time<Mono>, local: Time<Ptp>, error: Duration) {
        *self = Self::new(self.scale, mono, local, error);
    }
}

impl Clock for WatchClock {
    fn name(&self) -> &str {
        "none"
    }
    fn scale(&self) -> ClockScale {
        self.scale
    }
    fn at(&self, mono: Time<Mono>) -> Time<Ptp> {
        mono.at_offset(self.offset)
    }
    fn reading_error(&self) -> Duration {
        self.error
    }
    fn is_adjustable(&self) -> bool {
        false
    }
    fn frequency_ppb(&self) -> f64 {
        0.0
    }
    fn max_frequency_ppb(&self) -> f64 {
        0.0
    }
    fn set_frequency(&mut self, _now: Time<Mono>, _ppb: f64) -> Result<f64, ClockError> {
        Err(ClockError::ReadOnly("none"))
    }
    fn step(&mut self, _now: Time<Mono>, _by: Duration) -> Result<(), ClockError> {
        Err(ClockError::ReadOnly("none"))
    }
}
