//! Oscillators, as a scenario says them.

use serde::Deserialize;

use super::values::{Count, Instant, Phase, Ppb, Probability, Seconds, Span, Wander, recurring};

/// A change of frequency with temperature.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Ramp {
    /// From here.
    pub from_s: Instant,
    /// To here, in a straight line.
    pub to_s: Instant,
    /// By so much.
    pub change_ppb: Ppb,
    /// And again after so long.
    pub every_s: Option<Seconds>,
    /// So often altogether; to the end of the scenario unless given.
    pub count: Option<Count>,
}

recurring!(Ramp, "temperature", from_s, to_s);

/// A sudden change.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Step {
    /// When.
    pub at_s: Instant,
    /// Of the time.
    #[serde(default)]
    pub phase_ns: Phase,
    /// Of the frequency.
    #[serde(default)]
    pub frequency_ppb: Ppb,
    /// And again after so long.
    pub every_s: Option<Seconds>,
    /// So often altogether; to the end of the scenario unless given.
    pub count: Option<Count>,
}

recurring!(Step, "steps", at_s);

/// A frequency that swings as a sine: day and night.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Cycle {
    /// To each side.
    pub amplitude_ppb: Ppb,
    /// Of the swing.
    #[serde(default = "super::a_day")]
    pub period_s: Seconds,
    /// Share of the period that is over at the start; there the sine is at zero and rises if it is 0.
    #[serde(default)]
    pub phase: Probability,
}

/// An oscillator.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct OscillatorSettings {
    /// Error of the clock at the start.
    pub offset_ns: Phase,
    /// Error of the frequency at the start.
    pub frequency_ppb: Ppb,
    /// Error of each single reading, standard deviation.
    pub white_phase_ns: Span,
    /// Flicker of the phase: standard deviation in each factor of four in time.
    pub flicker_phase_ns: Span,
    /// Random walk of the frequency: growth of its standard deviation per root second.
    pub random_walk_ppb: Wander,
    /// Changes with temperature.
    pub temperature: Vec<Ramp>,
    /// A swing of the frequency.
    pub cycle: Option<Cycle>,
    /// Sudden changes. Timers run on the same oscillator: for a time that is set while they go on see
    /// [`Grandmaster::time_steps`](super::Grandmaster::time_steps).
    pub steps: Vec<Step>,
}
