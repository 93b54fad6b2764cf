//! Servos by name, as `--servo` and scenario files take them, and the one place that makes them.

use crate::prelude::*;
use core::{fmt, str::FromStr};

use serde::Deserialize;

use super::{
    Servo,
    adaptive::AdaptiveServo,
    classic::Classic,
    filter::{DelayFilterKind, TimestampMode},
    linreg::LinReg,
    ntp::Ntp,
    pi::Pi,
};
use ptp_common::time::Duration;

/// Which method steers the clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Method {
    /// Models noise and oscillator and adapts to both.
    #[default]
    Adaptive,
    /// linuxptp's proportional-integral controller.
    Pi,
    /// linuxptp's linear regression.
    LinReg,
    /// NTP's clock filter and discipline.
    Ntp,
}

impl Method {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Adaptive, Self::Pi, Self::LinReg, Self::Ntp];

    /// The name, as `--servo` takes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Adaptive => "adaptive",
            Self::Pi => "pi",
            Self::LinReg => "linreg",
            Self::Ntp => "rfc5905",
        }
    }
}

/// A servo and, for those that work on a filtered path delay, how it is filtered. Written
/// `method[:mode[:filter[:length]]]`, for instance `pi:raw-weight` or `linreg:filter:mean:20`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Choice {
    /// The method.
    pub method: Method,
    /// `tsproc_mode`.
    pub mode: TimestampMode,
    /// `delay_filter`.
    pub delay_filter: DelayFilterKind,
    /// `delay_filter_length`.
    pub delay_filter_length: u16,
}

impl Default for Choice {
    fn default() -> Self {
        Self {
            method: Method::default(),
            mode: TimestampMode::default(),
            delay_filter: DelayFilterKind::default(),
            delay_filter_length: 10,
        }
    }
}

/// Not a servo.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no servo: expected method[:mode[:filter[:length]]] with {1}")]
pub struct UnknownServo(String, &'static str);

impl FromStr for Choice {
    type Err = UnknownServo;

    fn from_str(text: &str) -> Result<Self, UnknownServo> {
        let unknown = |expected| move || UnknownServo(text.to_owned(), expected);
        let mut choice = Self::default();
        let mut parts = text.split(':');
        let method = parts.next().unwrap_or_default();
        choice.method = Method::ALL
            .into_iter()
            .find(|each| each.name() == method)
            .ok_or_else(unknown("method adaptive, pi, linreg or rfc5905"))?;
        if let Some(mode) = parts.next() {
            choice.mode = TimestampMode::ALL
                .into_iter()
                .find(|each| each.name() == mode)
                .ok_or_else(unknown("mode raw, filter, raw-weight or filter-weight"))?;
        }
        if let Some(filter) = parts.next() {
            choice.delay_filter = DelayFilterKind::ALL
                .into_iter()
                .find(|each| each.name() == filter)
                .ok_or_else(unknown("filter median or mean"))?;
        }
        if let Some(length) = parts.next() {
            choice.delay_filter_length = length
                .parse()
                .ok()
                .filter(|length| (1..=1_000).contains(length))
                .ok_or_else(unknown("length from 1 to 1000"))?;
        }
        if parts.next().is_some() {
            return Err(unknown("nothing after the length")());
        }
        Ok(choice)
    }
}

impl TryFrom<String> for Choice {
    type Error = UnknownServo;
    fn try_from(text: String) -> Result<Self, UnknownServo> {
        text.parse()
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.method.name())?;
        let plain = Self { method: self.method, ..Self::default() };
        if *self != plain {
            let (mode, filter) = (self.mode.name(), self.delay_filter.name());
            write!(f, ":{mode}:{filter}:{}", self.delay_filter_length)?;
        }
        Ok(())
    }
}

/// What is done with the clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Purpose {
    /// It is made to follow.
    #[default]
    Steer,
    /// It is left alone; only its error is estimated.
    Watch,
}

/// What is the same for all servos.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// Larger offsets are stepped at any time; `None` never steps but at the start.
    pub step_threshold: Option<Duration>,
    /// Larger offsets are stepped at the first lock; `None` never steps at the start.
    pub first_step_threshold: Option<Duration>,
    /// Larger offsets are stepped after a change of grandmaster.
    pub change_step_threshold: Option<Duration>,
    /// How far the clock can be wrong because the two ways differ, at the most: half of the largest
    /// difference. Where an operator promises one, the error bound may be smaller than causality alone
    /// allows.
    pub asymmetry_limit: Option<Duration>,
    /// What a packet takes at the least forward and backward, where that is known: cables, switches.
    pub least_delay: [Duration; 2],
    /// What an oscillator's frequency may change by unseen, parts per billion: the bound grows by so
    /// much with age.
    pub rate_error_ppb: f64,
    /// Error of each boundary clock between the grandmaster and here; `None` where nobody knows it, and
    /// the bound is against the parent.
    pub boundary_clock_error: Option<Duration>,
    /// The frequency adjustment in effect at the start, parts per billion.
    pub frequency_ppb: f64,
    /// What is done with the clock.
    pub purpose: Purpose,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            step_threshold: None,
            first_step_threshold: Some(Duration::from_micros(20)),
            change_step_threshold: Some(Duration::from_millis(1)),
            asymmetry_limit: None,
            least_delay: [Duration::ZERO; 2],
            rate_error_ppb: 1_000.0,
            boundary_clock_error: None,
            frequency_ppb: 0.0,
            purpose: Purpose::Steer,
        }
    }
}

impl Options {
    /// Takes the thresholds from `other`, and leaves the rest.
    pub const fn set_thresholds(&mut self, other: &Self) {
        self.step_threshold = other.step_threshold;
        self.first_step_threshold = other.first_step_threshold;
        self.change_step_threshold = other.change_step_threshold;
    }
}

/// Makes a servo.
pub fn build(choice: &Choice, options: &Options) -> Box<dyn Servo> {
    let length = usize::from(choice.delay_filter_length);
    let Choice { mode, delay_filter: kind, .. } = *choice;
    match choice.method {
        // Whoever only watches wants to know, not to see what a controller would do.
        _ if options.purpose == Purpose::Watch => Box::new(AdaptiveServo::new(*options)),
        Method::Adaptive => Box::new(AdaptiveServo::new(*options)),
        Method::Pi => Box::new(Classic::new(Pi::default(), *options, mode, kind, length)),
        Method::LinReg => Box::new(Classic::new(LinReg::default(), *options, mode, kind, length)),
        // The clock filter chooses among whole exchanges: each with its own delay.
        Method::Ntp => {
            let mode = TimestampMode::Raw;
            Box::new(Classic::new(Ntp::default(), *options, mode, kind, length))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_reads_what_it_writes() {
        for text in ["pi", "pi:raw-weight:median:10", "pi:filter:mean:7"] {
            assert_eq!(text.parse::<Choice>().unwrap().to_string(), text);
        }
        assert_eq!("pi:raw".parse::<Choice>().unwrap().mode, TimestampMode::Raw);
    }

    #[test]
    fn nonsense_is_refused_and_named() {
        for text in ["", "p", "pi:", "pi:raw:", "pi:raw:median:0", "pi:raw:median:1:2"] {
            let error = text.parse::<Choice>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("{text:?}")), "{error}");
        }
    }
}
