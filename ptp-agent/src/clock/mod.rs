//! Clocks that can be followed with: what the servo steers, or only compares with. The [`Clock`]
//! trait is written so that the system clock and PHCs fit behind it; here are the two that need no
//! system call, the software clock and the one that is only watched.

pub mod followed;
pub mod virtual_clock;
pub mod watch;

use ptp_common::time::{Duration, Mono, Ptp, Time};

/// Which time a clock is meant to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockScale {
    /// That of the PTP domain, as the grandmaster gives it.
    Ptp,
    /// UTC: `currentUtcOffset` lies between it and the domain, if that is on the PTP time scale.
    Utc,
}

/// Why a clock could not be adjusted.
#[derive(Debug, thiserror::Error)]
pub enum ClockError {
    /// This clock is only watched.
    #[error("clock {0} is not to be adjusted")]
    ReadOnly(&'static str),
    /// The operating system refused.
    #[error("cannot {action} clock {clock}")]
    Os {
        /// What was attempted.
        action: &'static str,
        /// On what.
        clock: String,
        /// The answer.
        #[source]
        source: std::io::Error,
    },
    /// Safety policy does not allow it.
    #[error("refused to {action} clock {clock}: {reason}")]
    Refused {
        /// What was attempted.
        action: &'static str,
        /// On what.
        clock: String,
        /// Which rule it would have broken.
        reason: String,
    },
}

/// A clock, read through the host's monotonic clock on which all stamps are.
pub trait Clock: Send {
    /// Name for messages: `virtual`, `system`, `/dev/ptp0` ...
    fn name(&self) -> &str;

    /// Which time it is meant to show.
    fn scale(&self) -> ClockScale {
        ClockScale::Ptp
    }

    /// What the clock showed, or shows, at a monotonic instant near to now. On a clock of scale
    /// [`ClockScale::Utc`] the value is UTC.
    fn at(&self, mono: Time<Mono>) -> Time<Ptp>;

    /// Bound on the error of [`Self::at`], for instance half of the bracket of the reads.
    fn reading_error(&self) -> Duration {
        Duration::ZERO
    }

    /// Whether it may be adjusted at all.
    fn is_adjustable(&self) -> bool {
        true
    }

    /// The frequency adjustment in effect, parts per billion; positive is faster.
    fn frequency_ppb(&self) -> f64;

    /// The largest adjustment either way, parts per billion.
    fn max_frequency_ppb(&self) -> f64;

    /// Sets the frequency adjustment; returns what is in effect, within the limit and the clock's
    /// resolution.
    ///
    /// # Errors
    /// [`ClockError`]; the clock then runs on as before.
    fn set_frequency(&mut self, now: Time<Mono>, ppb: f64) -> Result<f64, ClockError>;

    /// Adds `by` to the time.
    ///
    /// # Errors
    /// [`ClockError`]; the clock then runs on as before.
    fn step(&mut self, now: Time<Mono>, by: Duration) -> Result<(), ClockError>;
}

impl<C: Clock + ?Sized> Clock for Box<C> {
    fn name(&self) -> &str {
        (**self).name()
    }
    fn scale(&self) -> ClockScale {
        (**self).scale()
    }
    fn at(&self, mono: Time<Mono>) -> Time<Ptp> {
        (**self).at(mono)
    }
    fn reading_error(&self) -> Duration {
        (**self).reading_error()
    }
    fn is_adjustable(&self) -> bool {
        (**self).is_adjustable()
    }
    fn frequency_ppb(&self) -> f64 {
        (**self).frequency_ppb()
    }
    fn max_frequency_ppb(&self) -> f64 {
        (**self).max_frequency_ppb()
    }
    fn set_frequency(&mut self, now: Time<Mono>, ppb: f64) -> Result<f64, ClockError> {
        (**self).set_frequency(now, ppb)
    }
    fn step(&mut self, now: Time<Mono>, by: Duration) -> Result<(), ClockError> {
        (**self).step(now, by)
    }
}
