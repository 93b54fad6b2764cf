//! Distributions of time differences in bounded memory: moments over everything, percentiles and
//! histograms over a random sample of it.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use crate::publish::statistics::percentile;

/// Values kept; of more, a random sample of this size.
const KEPT: usize = 100_000;

/// One distribution that is being collected, nanoseconds.
#[derive(Clone, Debug)]
pub(super) struct Tally {
    n: u64,
    mean: f64,
    /// Sum of the squared deviations from the mean.
    squares: f64,
    min: f64,
    max: f64,
    kept: Vec<f64>,
    random: ChaCha8Rng,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            n: 0,
            mean: 0.0,
            squares: 0.0,
            min: f64::INFINITY,
            max: f64::NEG_INFINITY,
            kept: Vec::new(),
            // Which values are kept need not be secret, only independent of them.
            random: ChaCha8Rng::seed_from_u64(0),
        }
    }
}

impl Tally {
    /// Takes one value, which must be finite.
    pub(super) fn push(&mut self, value: f64) {
        self.n += 1;
        let from_mean = value - self.mean;
        self.mean += from_mean / self.n as f64;
        self.squares += from_mean * (value - self.mean);
        self.min = self.min.min(value);
        self.max = self.max.max(value);
        if self.kept.len() < KEPT {
            self.kept.push(value);
        } else {
            // Reservoir sampling: each of the n values stays with the same probability.
            let at = self.random.random_range(0..self.n);
            if let Some(slot) = usize::try_from(at).ok().and_then(|at| self.kept.get_mut(at)) {
                *slot = value;
            }
        }
    }

    /// How many values there were.
    pub(super) const fn n(&self) -> u64 {
        self.n
    }

    /// The kept values, in no order.
    pub(super) fn values(&self) -> &[f64] {
        &self.kept
    }

    /// The figures; zeros of nothing.
    pub(super) fn figures(&self) -> Figures {
        if self.n == 0 {
            return Figures::default();
        }
        let mut sorted = self.kept.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        let cut = sorted.len() / 100;
        let mut central = Self::default();
        for value in &sorted[cut..sorted.len() - cut] {
            central.push(*value);
        }
        Figures {
            mean: self.mean,
            sd: self.sd(),
            central_sd: central.sd(),
            min: self.min,
            p1: percentile(&sorted, 0.01),
            p25: percentile(&sorted, 0.25),
            p50: percentile(&sorted, 0.5),
            p75: percentile(&sorted, 0.75),
            p99: percentile(&sorted, 0.99),
            max: self.max,
        }
    }

    fn sd(&self) -> f64 {
        if self.n == 0 { 0.0 } else { (self.squares / self.n as f64).sqrt() }
    }

    /// The distribution in bars; `None` of nothing.
    pub(super) fn histogram(&self) -> Option<Histogram> {
        const BARS: usize = 60;
        let mut sorted = self.kept.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        // The outermost hundredth on each side would squeeze all others into one bar.
        let low = percentile(&sorted, 0.01);
        let high = percentile(&sorted, 0.99);
        sorted.first()?;
        let width = ((high - low) / BARS as f64).ceil().max(1.0);
        let mut counts = vec![0; BARS];
        let (mut below, mut above) = (0, 0);
        for value in &sorted {
            let bar = ((value - low) / width).floor();
            if bar < 0.0 {
                below += 1;
            } else {
                match counts.get_mut(bar as usize) {
                    Some(count) => *count += 1,
                    None => above += 1,
                }
            }
        }
        counts.truncate(counts.iter().rposition(|count| *count > 0).map_or(0, |last| last + 1));
        Some(Histogram { from: low, width, below, counts, above })
    }
}

/// A distribution in figures, nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Figures {
    /// Arithmetic mean.
    pub(super) mean: f64,
    /// Standard deviation.
    pub(super) sd: f64,
    /// Standard deviation of the central 98 %: without the few packets that an interrupt hit.
    pub(super) central_sd: f64,
    /// Smallest.
    pub(super) min: f64,
    /// First percentile.
    pub(super) p1: f64,
    /// First quartile.
    pub(super) p25: f64,
    /// Median.
    pub(super) p50: f64,
    /// Third quartile.
    pub(super) p75: f64,
    /// 99th percentile.
    pub(super) p99: f64,
    /// Largest.
    pub(super) max: f64,
}

/// A distribution in bars of equal width.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Histogram {
    /// Lower edge of the first bar, ns.
    pub(super) from: f64,
    /// Width of a bar, ns.
    pub(super) width: f64,
    /// Values below the first bar.
    pub(super) below: u64,
    /// Values in each bar.
    pub(super) counts: Vec<u64>,
    /// Values above the last bar.
    pub(super) above: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(values: impl IntoIterator<Item = f64>) -> Tally {
        let mut tally = Tally::default();
        values.into_iter().for_each(|value| tally.push(value));
        tally
    }

    #[test]
    fn figures_are_those_of_the_values() {
        let figures = tally((1..=200).rev().map(f64::from)).figures();
        assert_eq!((figures.min, figures.max), (1.0, 200.0));
        assert_eq!((figures.p1, figures.p50, figures.p99), (2.0, 100.0, 198.0));
        assert!((figures.mean - 100.5).abs() < 1e-9);
        assert!((figures.sd - ((200.0f64.powi(2) - 1.0) / 12.0).sqrt()).abs() < 1e-9);
        assert!(figures.central_sd < figures.sd);
    }

    #[test]
    fn few_outliers_do_not_move_the_central_deviation() {
        let calm = (0..1000).map(|i| f64::from(i % 10));
        let quiet = tally(calm.clone()).figures();
        let disturbed = tally(calm.chain([1e6, 1e6])).figures();
        assert!(disturbed.sd > 1000.0 * quiet.sd);
        assert!((disturbed.central_sd / quiet.central_sd - 1.0).abs() < 0.01);
    }

    #[test]
    fn memory_is_bounded_and_the_sample_is_of_everything() {
        let many = 3 * KEPT;
        let tally = tally((0..many).map(|i| i as f64));
        assert_eq!((tally.n() as usize, tally.values().len()), (many, KEPT));
        let median = tally.figures().p50;
        assert!((median / (many as f64 / 2.0) - 1.0).abs() < 0.02, "{median}");
    }

    #[test]
    fn histogram_counts_every_value_once() {
        for values in [vec![5.0], vec![0.0; 7], (0..997).map(|i| f64::from(i * i)).collect()] {
            let tally = tally(values.iter().copied());
            let histogram = tally.histogram().unwrap();
            let counted = histogram.below + histogram.counts.iter().sum::<u64>() + histogram.above;
            assert_eq!(counted, values.len() as u64);
            assert!(histogram.width >= 1.0);
        }
        assert_eq!(Tally::default().histogram(), None);
    }
}
