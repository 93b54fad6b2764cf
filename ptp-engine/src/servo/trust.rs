//! How far a clock can be trusted: the interval in which its error lies by causality alone, its
//! precision, and the bound that is made of both. The mathematics is in `docs/servo.md`.

use ptp_common::time::Duration;
use serde::{Deserialize, Serialize};

/// An interval of clock minus time transmitter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval {
    /// The least that it can be.
    pub lo: Duration,
    /// The most that it can be.
    pub hi: Duration,
}

impl Interval {
    /// Half of its width.
    pub fn half_width(self) -> Duration {
        (self.hi - self.lo).half()
    }

    /// Between both ends.
    pub fn middle(self) -> Duration {
        (self.lo + self.hi).half()
    }

    /// Whether it contains `error`.
    pub fn contains(self, error: Duration) -> bool {
        self.lo <= error && error <= self.hi
    }

    /// The same interval and `by` more on either side.
    #[must_use]
    pub fn widened(self, by: Duration) -> Self {
        Self { lo: self.lo - by, hi: self.hi + by }
    }

    /// The smallest interval that contains both.
    #[must_use]
    pub fn hull(self, other: Self) -> Self {
        Self { lo: self.lo.min(other.lo), hi: self.hi.max(other.hi) }
    }

    /// The farther end from zero.
    pub fn farther_end(self) -> Duration {
        self.lo.abs().max(self.hi.abs())
    }
}

/// What an error bound rests upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// Nothing but that stamps lie on their side of the wire: the causal interval.
    Causality,
    /// An asymmetry of the path that an operator has promised not to be exceeded.
    AsymmetryLimit,
}

impl Basis {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Causality, Self::AsymmetryLimit];

    /// The name in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Causality => "causality",
            Self::AsymmetryLimit => "asymmetry_limit",
        }
    }
}

/// How far a clock can be trusted at one instant, all against the time transmitter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trust {
    /// Bound on |clock - time transmitter|, boundary and transparent clocks between included.
    pub bound: Duration,
    /// The spread alone (repeatability, no claim about asymmetry), the clock's present offset included.
    pub precision: Duration,
    /// Where clock minus time transmitter can be at all.
    pub interval: Interval,
    /// What the bound rests upon.
    pub basis: Basis,
    /// The estimate left the causal interval and was set to its end.
    pub is_clipped: bool,
    /// By how much either end of the interval may be farther out each second from now on, as the clock runs now:
    /// what the rate may be wrong by, and the slew by which an error is being removed, which goes on beyond its end if
    /// nobody ends it.
    pub growth: Duration,
}
