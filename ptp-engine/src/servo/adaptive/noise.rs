//! What packets suffer beyond the usual fastest delay: a mixture of two exponential distributions, most
//! packets and the slow ones, with a Gaussian error on top, and a few that seem too early by an
//! exponential time, because a transmit stamp was late; learnt by expectation-maximisation. And
//! the moments of a Gaussian belief after one such packet, in closed form.

use super::tail::{Edge, Of, Tail, mirrored, truncated};
use crate::math;
#[cfg(target_os = "none")]
use crate::math::Float as _;
use core::f64::consts::{FRAC_1_SQRT_2, LN_2};

/// Means are no smaller, nanoseconds: stamps are whole nanoseconds.
const MIN_MEAN_NS: f64 = 1.0;
const MAX_MEAN_NS: f64 = 1e9;
/// The Gaussian error is no smaller, nanoseconds.
const MIN_SIGMA_NS: f64 = 0.5;
/// Of a sharp lower edge, in means of most packets: at the most.
const SHARP: f64 = 0.05;
/// Spreads of two directions whose logarithms differ by less are the same.
const SAME_SPREAD: f64 = 0.5;
/// How much a soft edge is believed to have no tail, in observations.
const SYMMETRY: f64 = 1.0;
/// How fast shapes are drawn together, per packet.
const RECONCILE: f64 = 0.05;
/// Share of slow packets: at the least, at the most, and of a slow mode apart from the fast one.
const MIN_SLOW_SHARE: f64 = 0.002;
const MAX_SLOW_SHARE: f64 = 0.4;
const MOST_OF_TWO: f64 = 0.97;
/// A gap between two modes is so many times as wide as what is before it, and as the mean of what is after it
/// beyond its first.
const GAP_RATIO: f64 = 4.0;
/// Packets of the fast mode at the least.
const FAST_MODE: usize = 4;
/// Of means of two exponential delays: the median, and how late the fastest of n is, times the root of n, in scales
/// of one.
const MEDIAN_OF_TWO: f64 = 1.678;
const FASTEST_OF_TWO: f64 = 1.2533;
/// Slow packets are slower than the others by at least this factor in the mean.
const SLOW_RATIO: f64 = 4.0;
/// Share of early packets that is believed before any is seen, and the least and the largest.
const EARLY_SHARE: f64 = 0.005;
const MIN_EARLY_SHARE: f64 = 0.001;
const MAX_EARLY_SHARE: f64 = 0.15;
/// Early packets are earlier than the usual spread by at least this factor in the mean: what is nearer is
/// the shape of the edge.
const EARLY_RATIO: f64 = 3.0;
/// Packets over which the noise is averaged.
const MEMORY: f64 = 400.0;
/// Log density of a packet that follows no model at all: one in 10 000, anywhere in a second.
const LN_WILD: f64 = -30.0;
/// Difference of two [`Truncated::exponent`]s from which on nothing is left of the lesser kind beside the
/// other, whatever their factors: those are between 1e-14 and 1.
const LN_NOTHING: f64 = -75.0;

/// The noise of one direction.
#[derive(Clone, Copy, Debug)]
pub(super) struct Noise {
    /// How many delays most observations are the mean of.
    of: Of,
    /// Scale of most packets, nanoseconds: their mean, or what each of two delays adds to theirs.
    pub(super) fast_ns: f64,
    /// Mean of slow packets beyond [`Self::slow_from_ns`], nanoseconds.
    slow_ns: f64,
    /// Where slow packets begin: another mode of the delay, or zero.
    slow_from_ns: f64,
    /// Share of slow packets.
    slow_share: f64,
    /// Mean by which early packets are early, nanoseconds.
    early_ns: f64,
    /// Share of early packets.
    early_share: f64,
    /// Variance of the Gaussian error.
    pub(super) variance_ns2: f64,
    /// The lower edge is sharp: the Gaussian error stays small.
    is_sharp: bool,
    /// Packets seen, up to the memory.
    count: f64,
    /// Sums behind the means: expected delay of fast and of slow packets, over all packets.
    fast_sum: f64,
    slow_sum: f64,
    early_sum: f64,
}

/// A Gaussian belief about an edge after one packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Posterior {
    /// Log density of the packet before it was seen.
    pub(super) ln_evidence: f64,
    pub(super) mean: f64,
    pub(super) variance: f64,
    /// Probability that the packet follows no model.
    pub(super) wild: f64,
    slow: f64,
    /// Probability that the packet is an early one.
    pub(super) early: f64,
    fast_mean: f64,
    slow_mean: f64,
    early_mean: f64,
}

impl Noise {
    /// From delays beyond the fastest one, with a sharp lower edge there.
    pub(super) fn sharp(excess: &mut [f64]) -> Self {
        excess.sort_unstable_by(f64::total_cmp);
        if let Some(at) = second_mode(excess) {
            return Self::two_modes(excess, at);
        }
        let count = excess.len().max(1);
        let median = excess.get(count / 2).copied().unwrap_or(0.0);
        let fast_ns = (median / LN_2).clamp(MIN_MEAN_NS, MAX_MEAN_NS);
        let slow = excess.iter().filter(|excess| **excess > 8.0 * fast_ns);
        let (n, sum) = slow.fold((0.0, 0.0), |(n, sum), excess| (n + 1.0, sum + excess));
        let slow_ns = if n > 0.0 { sum / n } else { 10.0 * fast_ns };
        let slow_share = ((n + 0.1) / count as f64).clamp(0.01, 0.4);
        let slow_ns = slow_ns.clamp(SLOW_RATIO * fast_ns, MAX_MEAN_NS * SLOW_RATIO);
        Self {
            of: Of::One,
            fast_ns,
            slow_ns,
            slow_from_ns: 0.0,
            slow_share,
            early_ns: EARLY_RATIO * fast_ns,
            early_share: EARLY_SHARE,
            variance_ns2: (0.003 * fast_ns).max(MIN_SIGMA_NS).powi(2),
            is_sharp: true,
            count: count as f64,
            fast_sum: fast_ns * (1.0 - slow_share),
            slow_sum: slow_ns * slow_share,
            early_sum: EARLY_RATIO * fast_ns * EARLY_SHARE,
        }
    }

    /// Two modes: from the delay at `at` on it is the slow one. Ascending.
    fn two_modes(excess: &[f64], at: usize) -> Self {
        let (fast, slow) = excess.split_at(at);
        let count = excess.len() as f64;
        let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len().max(1) as f64;
        let first = slow.first().copied().unwrap_or(0.0);
        let fast_ns = mean(fast).clamp(MIN_MEAN_NS, MAX_MEAN_NS);
        let slow_ns = (mean(slow) - first).max(fast_ns).clamp(MIN_MEAN_NS, MAX_MEAN_NS);
        let slow_share = (slow.len() as f64 / count).clamp(MIN_SLOW_SHARE, MOST_OF_TWO);
        // The first of them is no edge.
        let slow_from_ns = (first - slow_ns).max(0.0);
        let slow_ns = slow_ns + first - slow_from_ns;
        Self {
            of: Of::One,
            fast_ns,
            slow_ns,
            slow_from_ns,
            slow_share,
            early_ns: EARLY_RATIO * fast_ns,
            early_share: EARLY_SHARE,
            variance_ns2: (0.003 * fast_ns).max(MIN_SIGMA_NS).powi(2),
            is_sharp: true,
            count,
            fast_sum: fast_ns * (1.0 - slow_share),
            slow_sum: (slow_from_ns + slow_ns) * slow_share,
            early_sum: EARLY_RATIO * fast_ns * EARLY_SHARE,
        }
    }

    /// The same delays, where each of them is the mean of two: `excess` beyond the fastest of them, ascending. And how
    /// far before that one the edge is.
    pub(super) fn sharp_of_two(excess: &mut [f64]) -> (Self, f64) {
        let sharp = Self::sharp(excess);
        let count = excess.len().max(1);
        let median = excess.get(count / 2).copied().unwrap_or(0.0);
        let before = FASTEST_OF_TWO / (count as f64).sqrt();
        let fast_ns = (median / (MEDIAN_OF_TWO - before).max(1.0)).clamp(MIN_MEAN_NS, MAX_MEAN_NS);
        let two = Self {
            of: Of::Two,
            fast_ns,
            slow_from_ns: 0.0,
            slow_ns: sharp.slow_ns.max(SLOW_RATIO * fast_ns),
            fast_sum: Of::Two.scales() * fast_ns * (1.0 - sharp.slow_share),
            variance_ns2: (0.003 * fast_ns).max(MIN_SIGMA_NS).powi(2),
            ..sharp
        };
        (two, before * fast_ns)
    }

    /// Of noise with a soft edge: as that of means of two.
    pub(super) fn soft_of_two(self) -> Self {
        let fast_ns = (self.fast_ns / Of::Two.scales()).max(MIN_MEAN_NS);
        Self { of: Of::Two, fast_ns, ..self }
    }

    /// Whether there are two modes of delay.
    pub(super) fn has_two_modes(&self) -> bool {
        self.slow_from_ns > 0.0
    }

    /// The same delays, ascending, with a soft edge in the middle of the densest half of them, which
    /// neither late nor early packets can move; and how far above the fastest that is.
    pub(super) fn soft(excess: &[f64], sharp: &Self) -> (Self, f64) {
        let half = excess.len() / 2;
        let densest = excess
            .iter()
            .zip(excess.iter().skip(half))
            .map(|(low, high)| (high - low, 0.5 * (low + high)))
            .min_by(|a, b| a.0.total_cmp(&b.0));
        let (width, middle) = densest.unwrap_or((0.0, 0.0));
        // Half of a Gaussian distribution is within 1.35 standard deviations.
        let sd = width / 1.35;
        let fast_ns = (0.5 * sd).max(MIN_MEAN_NS);
        let soft = Self {
            fast_ns,
            fast_sum: fast_ns * (1.0 - sharp.slow_share),
            variance_ns2: (0.75 * sd * sd).max(MIN_SIGMA_NS * MIN_SIGMA_NS),
            is_sharp: false,
            slow_from_ns: 0.0,
            ..*sharp
        };
        (soft, middle - fast_ns)
    }

    fn early_ns(&self) -> f64 {
        let least = EARLY_RATIO * (self.fast_ns + self.variance_ns2.sqrt());
        (self.early_sum / self.early_share).max(least).min(MAX_MEAN_NS * EARLY_RATIO)
    }

    /// Share of early packets.
    pub(super) const fn early_share(&self) -> f64 {
        self.early_share
    }

    /// Variance of an edge that was found among `count` packets.
    pub(super) fn edge_variance_ns2(&self, count: f64) -> f64 {
        let sharp = match self.of {
            Of::One => (3.0 * self.fast_ns / count).powi(2),
            // The fastest of them spreads as it is late.
            Of::Two => 2.0 * self.fast_ns * self.fast_ns / count,
        };
        sharp + 2.0 * self.variance_ns2 / count + 1.0
    }

    /// What is needed to judge packets by this noise.
    pub(super) fn prior(&self) -> Prior {
        let usual = (1.0 - self.slow_share - self.early_share).max(1.0 - MOST_OF_TWO);
        let tail =
            |scale_ns: f64, share: f64| Tail { of: Of::One, scale_ns, density: share / scale_ns };
        let slow_from_ns = self.slow_from_ns;
        Prior {
            variance_ns2: self.variance_ns2,
            fast: Tail { of: self.of, ..tail(self.fast_ns, usual) },
            slow: tail(self.slow_ns, self.slow_share),
            early: tail(self.early_ns, self.early_share),
            slow_from_ns,
        }
    }

    /// Of two directions with soft edges whose spread is the same within what can be told, the
    /// shapes are drawn together: how much of the mean delay is edge and how much is tail cannot be
    /// told well from one direction, and a difference between the two would be an error of time.
    pub(super) fn reconcile(&mut self, other: &mut Self) {
        if self.is_sharp || other.is_sharp {
            return;
        }
        let spread = |noise: &Self| noise.fast_ns * noise.fast_ns + noise.variance_ns2;
        let apart = math::ln(spread(self) / spread(other)).abs();
        let pull = RECONCILE * (1.0 - apart / SAME_SPREAD).max(0.0);
        let fast_sum = 0.5 * (self.fast_sum + other.fast_sum);
        let early_sum = 0.5 * (self.early_sum + other.early_sum);
        let early_share = 0.5 * (self.early_share + other.early_share);
        let variance_ns2 = 0.5 * (self.variance_ns2 + other.variance_ns2);
        for noise in [self, other] {
            noise.fast_sum += pull * (fast_sum - noise.fast_sum);
            noise.early_sum += pull * (early_sum - noise.early_sum);
            noise.early_share += pull * (early_share - noise.early_share);
            noise.variance_ns2 += pull * (variance_ns2 - noise.variance_ns2);
        }
    }

    /// Log probability that a packet is later than `excess`.
    pub(super) fn ln_later(&self, excess: f64) -> f64 {
        let scales = excess / self.fast_ns;
        let later = match self.of {
            Of::One => math::exp(-scales),
            Of::Two => (1.0 + scales) * math::exp(-scales),
        };
        let fast = (1.0 - self.slow_share) * later;
        let beyond = (excess - self.slow_from_ns).max(0.0);
        math::ln((fast + self.slow_share * math::exp(-beyond / self.slow_ns)).max(1e-300)).min(0.0)
    }

    /// Learns from a packet; `mean` and `variance` as for [`Self::posterior`].
    pub(super) fn learn(&mut self, value: f64, mean: f64, variance: f64, seen: &Posterior) {
        let Posterior { mean: after, variance: left, fast_mean, slow_mean, early_mean, .. } = *seen;
        let all = [value, mean, variance, after, left, fast_mean, slow_mean, early_mean, seen.wild];
        // What is no number teaches nothing; whoever believes it begins anew.
        if seen.wild > 0.5 || all.iter().any(|number| !number.is_finite()) {
            return;
        }
        self.count = (self.count + 1.0).min(MEMORY);
        let gain = 1.0 / self.count;
        let fast = 1.0 - seen.slow - seen.early - seen.wild;
        self.slow_share += gain * (seen.slow - self.slow_share);
        let most = if self.has_two_modes() { MOST_OF_TWO } else { MAX_SLOW_SHARE };
        self.slow_share = self.slow_share.clamp(MIN_SLOW_SHARE, most);
        self.fast_sum += gain * (fast * (value - seen.fast_mean) - self.fast_sum);
        self.slow_sum += gain * (seen.slow * (value - seen.slow_mean) - self.slow_sum);
        self.early_share += gain * (seen.early - self.early_share);
        self.early_share = self.early_share.clamp(MIN_EARLY_SHARE, MAX_EARLY_SHARE);
        self.early_sum += gain * (seen.early * (seen.early_mean - value) - self.early_sum);
        self.early_ns = self.early_ns();
        let usual = (1.0 - self.slow_share - self.early_share).max(1.0 - MOST_OF_TWO);
        self.fast_ns = (self.fast_sum / usual / self.of.scales()).clamp(MIN_MEAN_NS, MAX_MEAN_NS);
        let slow_ns = self.slow_sum / self.slow_share;
        self.slow_ns = if self.has_two_modes() {
            (slow_ns - self.slow_from_ns).clamp(MIN_MEAN_NS, MAX_MEAN_NS)
        } else {
            slow_ns.clamp(SLOW_RATIO * self.fast_ns, SLOW_RATIO * MAX_MEAN_NS)
        };
        // The share of the innovation that is this packet's own Gaussian error.
        let share = self.variance_ns2 / variance;
        let square = share * share * (seen.variance + (seen.mean - mean).powi(2))
            + self.variance_ns2 * (1.0 - share);
        self.variance_ns2 += gain * (square - self.variance_ns2);
        if self.is_sharp {
            self.variance_ns2 = self.variance_ns2.min((SHARP * self.fast_ns).powi(2));
        } else {
            // Whether a soft edge has a tail at all is told by the third moment alone, and hardly: without
            // evidence it has none, and the delay is symmetric about the edge.
            let spread = (self.fast_ns * self.fast_ns + self.variance_ns2).sqrt();
            let kept = 1.0 - gain * SYMMETRY * (self.fast_ns / spread);
            self.fast_sum *= kept;
            self.fast_ns = (self.fast_ns * kept).max(MIN_MEAN_NS);
        }
        self.variance_ns2 = self.variance_ns2.max(MIN_SIGMA_NS * MIN_SIGMA_NS);
    }
}

/// Where a second mode of delay begins in delays beyond the fastest one, ascending.
fn second_mode(excess: &[f64]) -> Option<usize> {
    let gap = |at: usize| excess[at] - excess[at - 1];
    let at = (FAST_MODE..excess.len().saturating_sub(FAST_MODE))
        .max_by(|a, b| gap(*a).total_cmp(&gap(*b)))?;
    let after = &excess[at..];
    let spread_after = after[after.len() / 2] - after[0];
    let is_wide = gap(at) > GAP_RATIO * excess[at - 1].max(spread_after).max(MIN_MEAN_NS);
    is_wide.then_some(at)
}

/// The noise of one direction as it was before a packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Prior {
    /// Variance of the Gaussian error.
    pub(super) variance_ns2: f64,
    fast: Tail,
    slow: Tail,
    early: Tail,
    slow_from_ns: f64,
}

impl Prior {
    /// What a packet at `value` tells about an edge that is believed to be at `mean` with
    /// `variance`, the Gaussian error included.
    pub(super) fn posterior(&self, value: f64, mean: f64, variance: f64) -> Posterior {
        let edge = Edge { mean, variance, sd: variance.sqrt() };
        let fast = truncated(value, &edge, &self.fast);
        let slow = truncated(value - self.slow_from_ns, &edge, &self.slow);
        let early = mirrored(value, &edge, &self.early);
        let exponents = [fast.exponent, slow.exponent, early.exponent, LN_WILD];
        let factors = [fast.factor, slow.factor, early.factor, 1.0];
        let top = exponents.into_iter().fold(f64::MIN, f64::max);
        let mut weights = [0.0; 4];
        for (weight, (exponent, factor)) in weights.iter_mut().zip(exponents.iter().zip(factors)) {
            // One of the four is the top itself.
            if *exponent == top {
                *weight = factor;
            } else if exponent - top > LN_NOTHING {
                *weight = factor * math::exp(exponent - top);
            }
        }
        let sum: f64 = weights.iter().sum();
        let [wf, ws, we, ww] = weights.map(|weight| weight / sum);
        let m = wf * fast.mean + ws * slow.mean + we * early.mean + ww * mean;
        let spread = |w: f64, mean: f64, variance: f64| w * (variance + (mean - m).powi(2));
        Posterior {
            ln_evidence: top + math::ln(sum),
            mean: m,
            variance: spread(wf, fast.mean, fast.variance)
                + spread(ws, slow.mean, slow.variance)
                + spread(we, early.mean, early.variance)
                + spread(ww, mean, variance),
            wild: ww,
            slow: ws,
            early: we,
            fast_mean: fast.mean,
            slow_mean: slow.mean,
            early_mean: early.mean,
        }
    }
}

/// Log probability that a standard normal value is below `z`.
pub(super) fn ln_normal_below(z: f64) -> f64 {
    math::ln((0.5 * libm::erfc(-z * FRAC_1_SQRT_2)).max(1e-300))
}
