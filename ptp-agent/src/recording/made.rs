//! With what servo and software clock were made, as far as the numbers depend on it: what an operator
//! knows of path and oscillator, and what the clock may do. Recordings of agents that did not know of
//! this have defaults, and clocks without limits.

use ptp_common::time::{Duration, Time};
use serde::{Deserialize, Serialize};

use crate::{clock::policy::Limits, servo::Options};

/// What the servo was told beside its name.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct OptionsNote {
    /// `asymmetry-limit`.
    pub asymmetry_limit_ns: Option<i64>,
    /// `least-delay-forward` and `-backward`.
    pub least_delay_ns: [i64; 2],
    /// `rate-error`.
    pub rate_error_ppb: f64,
    /// `boundary-clock-error`, which is not the servo's but the bound's.
    pub boundary_clock_error_ns: Option<i64>,
}

impl Default for OptionsNote {
    fn default() -> Self {
        Self::from(&Options::default())
    }
}

impl From<&Options> for OptionsNote {
    fn from(options: &Options) -> Self {
        Self {
            asymmetry_limit_ns: options.asymmetry_limit.map(Duration::as_nanos),
            least_delay_ns: options.least_delay.map(Duration::as_nanos),
            rate_error_ppb: options.rate_error_ppb,
            boundary_clock_error_ns: options.boundary_clock_error.map(Duration::as_nanos),
        }
    }
}

impl From<&OptionsNote> for Options {
    fn from(note: &OptionsNote) -> Self {
        Self {
            asymmetry_limit: note.asymmetry_limit_ns.map(Duration::from_nanos),
            least_delay: note.least_delay_ns.map(Duration::from_nanos),
            rate_error_ppb: note.rate_error_ppb,
            boundary_clock_error: note.boundary_clock_error_ns.map(Duration::from_nanos),
            ..Self::default()
        }
    }
}

/// What a software clock may do.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LimitsNote {
    /// `max-first-step`; `None` for any distance, here and below.
    pub max_first_step_ns: Option<i64>,
    /// `max-step`.
    pub max_step_ns: Option<i64>,
    /// `max-step-sum`.
    pub max_step_sum_ns: Option<i64>,
    /// `earliest`, since 1970.
    pub earliest_ns: i64,
    /// No time after this is believed.
    pub latest_ns: i64,
}

impl From<&Limits> for LimitsNote {
    fn from(limits: &Limits) -> Self {
        Self {
            max_first_step_ns: limits.max_first_step.map(Duration::as_nanos),
            max_step_ns: limits.max_step.map(Duration::as_nanos),
            max_step_sum_ns: limits.max_step_sum.map(Duration::as_nanos),
            earliest_ns: limits.earliest.as_nanos(),
            latest_ns: limits.latest.as_nanos(),
        }
    }
}

impl From<&LimitsNote> for Limits {
    fn from(note: &LimitsNote) -> Self {
        Self {
            max_first_step: note.max_first_step_ns.map(Duration::from_nanos),
            max_step: note.max_step_ns.map(Duration::from_nanos),
            max_step_sum: note.max_step_sum_ns.map(Duration::from_nanos),
            earliest: Time::from_nanos(note.earliest_ns),
            latest: Time::from_nanos(note.latest_ns),
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_told_is_told_again() {
        let options = Options {
            asymmetry_limit: Some(Duration::from_nanos(300)),
            least_delay: [5, 7].map(Duration::from_nanos),
            rate_error_ppb: 50.5,
            boundary_clock_error: Some(Duration::from_nanos(100)),
            ..Options::default()
        };
        let text = serde_json::to_string(&OptionsNote::from(&options)).unwrap();
        let note: OptionsNote = serde_json::from_str(&text).unwrap();
        assert_eq!(Options::from(&note), options);
        let limits = Limits { max_step: None, ..Limits::default() };
        let text = serde_json::to_string(&LimitsNote::from(&limits)).unwrap();
        let note: LimitsNote = serde_json::from_str(&text).unwrap();
        assert_eq!(Limits::from(&note), limits);
    }

    #[test]
    fn a_recording_that_says_nothing_of_it_has_defaults() {
        let note: OptionsNote = serde_json::from_str("{}").unwrap();
        assert_eq!(Options::from(&note), Options::default());
    }
}
