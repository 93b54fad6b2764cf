//! When to suspect that something has changed: cumulative sums [Page 1954] of how improbable packets are
//! as late ones or as early ones, and normalised sums of the score, the derivative of the log
//! likelihood, which has no mean as long as the belief is right. Suspecting is cheap and decides
//! nothing; [`super::change`] does.

use super::{
    filter::{Seen, Way},
    noise::Noise,
};
use crate::math;
#[cfg(target_os = "none")]
use crate::math::Float as _;

/// Log likelihood ratio at which a suspicion is one.
const SUSPICIOUS: f64 = 7.5;
/// Share of early packets that a change is compared with.
const EARLY_AFTER: f64 = 0.5;
/// Early packets are never taken for rarer or for more frequent than this by habit.
const EARLY_BEFORE: (f64, f64) = (0.02, 0.15);
/// A packet that follows no model counts so much.
const WILD: f64 = 4.5;
/// What a single late packet may count.
const MOST: f64 = 4.5;
/// Under a change, the probability p of a packet to be as late has the density b p^(b - 1).
const LATE_POWER: f64 = 0.25;
const LN_LATE_POWER: f64 = -2.0 * core::f64::consts::LN_2;
/// Memories of the sums of the score, packets, ...
const MEMORIES: [f64; 3] = [16.0, 64.0, 256.0];
/// ... and the number of standard deviations at which each is suspicious.
const DRIFT_SIGMAS: f64 = 5.0;

/// A cumulative sum, and the number of the observation at which it began to grow.
#[derive(Clone, Copy, Debug, Default)]
struct Cusum {
    sum: f64,
    since: u64,
}

impl Cusum {
    fn push(&mut self, number: u64, by: f64) -> bool {
        if self.sum <= 0.0 {
            self.since = number;
        }
        self.sum = (self.sum + by).max(0.0);
        self.sum > SUSPICIOUS
    }
}

/// An exponentially forgotten sum of scores, and of their squares.
#[derive(Clone, Copy, Debug, Default)]
struct Drift {
    sum: f64,
    squares: f64,
}

impl Drift {
    fn push(&mut self, score: f64, memory: f64) -> bool {
        let kept = 1.0 - 1.0 / memory;
        self.sum = self.sum * kept + score;
        self.squares = self.squares * kept * kept + score * score;
        self.squares > 0.0 && self.sum * self.sum > DRIFT_SIGMAS * DRIFT_SIGMAS * self.squares
    }
}

/// What is odd about a packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Oddity {
    /// It is earlier than what most packets are.
    pub(super) is_early: bool,
    /// It follows no model.
    pub(super) is_wild: bool,
    /// Log probability of a packet to be later.
    pub(super) ln_later: f64,
}

impl Oddity {
    pub(super) fn of(seen: &Seen, noise: &Noise) -> Self {
        let excess = seen.residual - 2.0 * seen.variance.sqrt();
        Self {
            is_early: seen.residual < 0.0 && seen.posterior.early + seen.posterior.wild > 0.5,
            is_wild: seen.posterior.wild > 0.5,
            ln_later: if excess > 0.0 { noise.ln_later(excess) } else { 0.0 },
        }
    }

    /// Log likelihood ratio of its being early.
    fn early(&self, noise: &Noise) -> f64 {
        let before = noise.early_share().clamp(EARLY_BEFORE.0, EARLY_BEFORE.1);
        match (self.is_early, self.is_wild) {
            (true, true) => WILD,
            (true, false) => math::ln(EARLY_AFTER / before),
            (false, _) => math::ln((1.0 - EARLY_AFTER) / (1.0 - before)),
        }
    }

    /// Log likelihood ratio of its being late.
    fn late(&self) -> f64 {
        (LN_LATE_POWER - (1.0 - LATE_POWER) * self.ln_later).min(MOST)
    }
}

/// What the packets of a change are like, forward and backward: time that moves makes one way late and the
/// other early.
#[derive(Clone, Copy, Debug)]
enum Side {
    Early,
    Late,
    Any,
}

const PATTERNS: [[Side; 2]; 8] = [
    [Side::Early, Side::Any],
    [Side::Any, Side::Early],
    [Side::Late, Side::Any],
    [Side::Any, Side::Late],
    [Side::Late, Side::Early],
    [Side::Early, Side::Late],
    [Side::Late, Side::Late],
    [Side::Early, Side::Early],
];

/// Both directions, watched.
#[derive(Clone, Debug, Default)]
pub(super) struct Detector {
    patterns: [Cusum; PATTERNS.len()],
    /// For each memory: along the offset, and along either floor.
    drifts: [[Drift; 3]; MEMORIES.len()],
    seen: u64,
}

impl Detector {
    /// A packet. Returns the number of the observation from which on something may be different.
    pub(super) fn push(
        &mut self,
        number: u64,
        way: Way,
        seen: &Seen,
        oddity: &Oddity,
        noise: &Noise,
    ) -> Option<u64> {
        let sign = match way {
            Way::Forward => 1.0,
            Way::Backward => -1.0,
            Way::Peer => return None,
        };
        self.seen += 1;
        let mut since = None;
        let mut suspect = |number: u64| {
            since = Some(since.map_or(number, |other: u64| other.min(number)));
        };
        let (early, late) = (oddity.early(noise), oddity.late());
        for (pattern, cusum) in PATTERNS.iter().zip(&mut self.patterns) {
            let by = match pattern[way as usize] {
                Side::Early => early,
                Side::Late => late,
                Side::Any => continue,
            };
            if cusum.push(number, by) {
                suspect(cusum.since);
            }
        }
        // The score of the edge, by Tweedie's formula.
        let score = (seen.posterior.mean - seen.mean) / seen.variance;
        for (memory, drifts) in MEMORIES.iter().zip(&mut self.drifts) {
            let along_offset = drifts[0].push(sign * score, *memory);
            let along_floor = drifts[1 + way as usize].push(score, *memory);
            if (along_offset || along_floor) && self.seen as f64 > 2.0 * memory {
                suspect(number.saturating_sub(*memory as u64));
            }
        }
        since
    }
}
