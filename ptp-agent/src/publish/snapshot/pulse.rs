//! A pulse per second in the status.

use std::{borrow::Cow, collections::BTreeMap};

use serde::{Deserialize, Serialize};

/// A pulse per second.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pulse {
    /// Where it comes from.
    pub source: String,
    /// `silent`, `searching`, `unnumbered` or `numbered`.
    pub state: Cow<'static, str>,
    /// Whether the clock follows it.
    pub followed: bool,
    /// Why the last edge was refused; `null` where it was used.
    pub refused: Option<Cow<'static, str>>,
    /// Clock minus pulse at the latest one that was given its second.
    pub offset_ns: Option<i64>,
    /// Mean distance from where those before made it expected.
    pub jitter_ns: i64,
    /// How much longer than a second of the host the interval is; `null` until that is known.
    pub interval_error_ppb: Option<f64>,
    /// Whether others call the pulses another second than they have counted.
    pub wrong_second: bool,
    /// Edges by what became of them.
    pub pulses: BTreeMap<String, u64>,
    /// The receiver that says which seconds they are.
    pub nmea: Option<NmeaLine>,
    /// How the hardware clock that stamps lies to the host's.
    pub phc: Option<PhcRelation>,
}

/// A receiver's line.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct NmeaLine {
    /// Which.
    pub device: Option<String>,
    /// Whether it knows the time: `yes`, `no` or `unknown`.
    pub fix: Cow<'static, str>,
    /// Whether its date was brought forward by 1024 weeks.
    pub rolled_over: bool,
    /// Since it last named a second.
    pub age_s: Option<f64>,
    /// Sentences by what became of them.
    pub sentences: BTreeMap<String, u64>,
}

/// How a hardware clock lies to the host's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PhcRelation {
    /// How much faster than CLOCK_MONOTONIC it is.
    pub rate_ppb: f64,
    /// Root mean square distance of readings from a straight line.
    pub noise_ns: f64,
    /// How far a time that is moved from one to the other may be off.
    pub bound_ns: f64,
    /// How both are read: `precise`, `extended`, `offset` or `bracketed`.
    pub method: Cow<'static, str>,
}
