//! What a run leaves behind: the truth at each instant, beside what the servo said.

use ptp_common::time::Duration;

use crate::servo::{ServoState, Trust};

/// The truth at one instant.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Truth {
    /// True time since the start, seconds.
    pub at_s: f64,
    /// Clock minus the grandmaster that is, or was last, followed; nanoseconds.
    pub error_ns: f64,
    /// What the servo took it for at the last Sync; `None` before the first estimate.
    pub offset_ns: Option<f64>,
    /// How far the clock can be trusted, as the servo says; `None` where it says nothing.
    pub trust: Option<Trusted>,
    /// State of the servo.
    pub state: ServoState,
}

/// What a servo says about the error, nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trusted {
    /// Bound on its magnitude.
    pub bound_ns: f64,
    /// The spread alone.
    pub precision_ns: f64,
    /// Where it can be by causality: the least and the most.
    pub interval_ns: [f64; 2],
    /// The estimate had left the interval.
    pub is_clipped: bool,
}

impl Trusted {
    pub(super) fn new(trust: &Trust) -> Self {
        Self {
            bound_ns: trust.bound.as_nanos_f64(),
            precision_ns: trust.precision.as_nanos_f64(),
            interval_ns: [trust.interval.lo, trust.interval.hi].map(Duration::as_nanos_f64),
            is_clipped: trust.is_clipped,
        }
    }

    /// Half of the interval's width.
    pub fn half_width_ns(&self) -> f64 {
        (self.interval_ns[1] - self.interval_ns[0]) / 2.0
    }
}

impl Truth {
    /// Bound on the magnitude of the error, where there is one.
    pub fn bound_ns(&self) -> Option<f64> {
        self.trust.map(|trust| trust.bound_ns)
    }

    /// Whether the error is within the bound, where there is one.
    pub fn is_within_bound(&self) -> Option<bool> {
        self.trust.map(|trust| self.error_ns.abs() <= trust.bound_ns)
    }
}

/// What a run has left behind.
#[derive(Debug, Default)]
pub(in crate::sim) struct Course {
    /// At the scenario's interval.
    pub(in crate::sim) truth: Vec<Truth>,
    /// Over the first two minutes, ten per second.
    pub(in crate::sim) start: Vec<Truth>,
    /// Steps of the clock: when, seconds, and by how much, nanoseconds.
    pub(in crate::sim) steps: Vec<(f64, f64)>,
    /// Sync messages that were used.
    pub(in crate::sim) samples: u64,
    /// Where somebody attacks: when an exchange was measured, seconds, and whether it was a Sync.
    pub(in crate::sim) measured: Vec<(f64, bool)>,
    /// Changes of the grandmaster that is followed.
    pub(in crate::sim) changes: u64,
}
