//! The clock that follows, how its servo is set, and what is expected of it, as a scenario says them.

use ptp_common::time::Duration;
use serde::Deserialize;

use super::{
    host::{Host, Suspend},
    oscillator::OscillatorSettings,
    values::{Factor, Probability, Span, Wander, Window},
};
use crate::servo::Options;

/// What the servo steers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SteeredClock {
    /// A software clock over the monotonic one.
    #[default]
    Virtual,
    /// The host's clock, by a model of the kernel: the monotonic clock, from which the stamps are, is
    /// slewed with it.
    System,
}

/// The clock that follows.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct TimeReceiver {
    /// What is steered.
    pub clock: SteeredClock,
    /// Its oscillator.
    pub oscillator: OscillatorSettings,
    /// Its stamps.
    pub host: Host,
    /// When the host sleeps.
    pub suspends: Vec<Suspend>,
}

/// Settings of the servo, as the agent has them; its own defaults unless given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct ServoSettings {
    /// Larger offsets are stepped at any time.
    pub step_threshold_ns: Option<Span>,
    /// Larger offsets are stepped at the first lock.
    pub first_step_threshold_ns: Option<Span>,
    /// Larger offsets are stepped after a change of grandmaster.
    pub change_step_threshold_ns: Option<Span>,
    /// How far the clock can be wrong because the two ways differ.
    pub asymmetry_limit_ns: Option<Span>,
    /// What a packet takes at the least, forward and backward.
    pub least_delay_ns: Option<[Span; 2]>,
    /// What the oscillator's frequency may change by unseen.
    pub rate_error_ppb: Option<Wander>,
    /// Error of each boundary clock. Where it is given, the error is counted against the grandmaster, else
    /// against the boundary clock: as the bound is.
    pub boundary_clock_error_ns: Option<Span>,
}

impl ServoSettings {
    /// For the servo.
    pub fn options(&self) -> Options {
        let duration = |span: Span| Duration::from_nanos_f64(span.get());
        let defaults = Options::default();
        Options {
            step_threshold: self.step_threshold_ns.map(duration).or(defaults.step_threshold),
            first_step_threshold: self
                .first_step_threshold_ns
                .map(duration)
                .or(defaults.first_step_threshold),
            change_step_threshold: self
                .change_step_threshold_ns
                .map(duration)
                .or(defaults.change_step_threshold),
            asymmetry_limit: self.asymmetry_limit_ns.map(duration).or(defaults.asymmetry_limit),
            least_delay: self
                .least_delay_ns
                .map_or(defaults.least_delay, |spans| spans.map(duration)),
            rate_error_ppb: self.rate_error_ppb.map_or(defaults.rate_error_ppb, Wander::get),
            boundary_clock_error: self
                .boundary_clock_error_ns
                .map(duration)
                .or(defaults.boundary_clock_error),
            ..defaults
        }
    }
}

/// What is expected of the default servo, for `bench servo --scenarios` and the test of the same.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Expectations {
    /// Steps of the clock after the first one: where time steps.
    pub steps_allowed: u32,
    /// Share of the time with a bound in which the error is within it.
    pub within_bound: Probability,
    /// Root mean square of its error over that of the best of the other servos.
    pub rms_over_best: Factor,
    /// Times that do not count: where nobody can know yet that time has stepped.
    pub excused: Vec<Window>,
}

impl Default for Expectations {
    fn default() -> Self {
        Self {
            steps_allowed: 0,
            within_bound: Probability(0.999),
            rms_over_best: Factor(1.2),
            excused: Vec::new(),
        }
    }
}
