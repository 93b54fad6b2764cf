//! Clocks that can be followed with: what the servo steers, or only compares with; and what may be done
//! to a clock of the host. Here are the clocks that are only numbers and the rules; those of the host are
//! the agent's.

pub mod leap;
pub mod policed;
pub mod policy;
pub mod served;
pub mod virtual_clock;
pub mod watch;

use crate::prelude::*;
use ptp_common::time::{Duration, Free, Mono, Ptp, Time};

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
    /// The process may not.
    #[error(
        "cannot {action} clock {clock}: that needs CAP_SYS_TIME; run as root, or give the service the capability"
    )]
    NotPermitted {
        /// What was attempted.
        action: &'static str,
        /// On what.
        clock: String,
    },
    /// The operating system refused.
    #[error("cannot {action} clock {clock}")]
    Os {
        /// What was attempted.
        action: &'static str,
        /// On what.
        clock: String,
        /// The answer.
        #[source]
        source: Box<dyn core::error::Error + Send + Sync>,
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
    /// Another program steers the same clock.
    #[error(
        "another program steers clock {clock} too: {what}. Two would fight: stop the other one, or follow with --clock virtual"
    )]
    Interference {
        /// Which clock.
        clock: String,
        /// How one can tell.
        what: String,
    },
}

/// Whether a clock may follow its reference at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consent {
    /// It may.
    Given,
    /// Not now, but soon: in a leap second.
    Later,
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

    /// The instant `mono` on a scale that the steering of this clock does not stretch. The stamps'
    /// own scale, unless this clock is the one that stamps are taken from.
    fn free_running(&self, mono: Time<Mono>) -> Time<Free> {
        mono.at_offset(Duration::ZERO)
    }

    /// Leap seconds that it has made by itself since it is followed with: those inserted less those left out.
    fn leaps(&self) -> i64 {
        0
    }

    /// Whether the clock, which at `at` was `offset` ahead of its reference, may follow it.
    ///
    /// # Errors
    /// [`ClockError::Refused`]: then it is neither to be stepped nor slewed.
    fn consent(&mut self, _at: Time<Mono>, _offset: Duration) -> Result<Consent, ClockError> {
        Ok(Consent::Given)
    }

    /// Whether the latest reference is one that it may not follow: [`Self::consent`] says why.
    fn is_refused(&self) -> bool {
        false
    }

    /// The first adjustments were made, and a later step is no first step.
    fn followed(&mut self) {}

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
