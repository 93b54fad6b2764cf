//! Descriptive statistics of a set of numbers, exact (by sorting), with the names that the JSON
//! summaries use. What the laboratory, `compare` and `bench` say about a distribution.

use serde::Serialize;

/// A distribution in six figures. All zero for no values at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Statistics {
    /// Arithmetic mean.
    pub mean: f64,
    /// Standard deviation (of the values, not an estimate for a larger population).
    pub sd: f64,
    /// Smallest value.
    pub min: f64,
    /// Median.
    pub p50: f64,
    /// 99th percentile, nearest rank.
    pub p99: f64,
    /// Largest value.
    pub max: f64,
}

impl Statistics {
    /// Of `values`, which are left sorted. Values must be finite.
    pub fn of(values: &mut [f64]) -> Self {
        values.sort_unstable_by(f64::total_cmp);
        let (Some(&min), Some(&max)) = (values.first(), values.last()) else {
            return Self::default();
        };
        let (mean, sd) = mean_and_sd(values);
        Self { mean, sd, min, p50: percentile(values, 0.5), p99: percentile(values, 0.99), max }
    }
}

/// An error: signed in its mean, a magnitude in its percentiles.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct ErrorStatistics {
    /// Mean of the signed error.
    pub mean: f64,
    /// Standard deviation of the signed error.
    pub sd: f64,
    /// Root of the mean square.
    pub rms: f64,
    /// Median of the error's magnitude.
    pub p50: f64,
    /// 99th percentile of the error's magnitude.
    pub p99: f64,
    /// Largest magnitude.
    pub max: f64,
}

impl ErrorStatistics {
    /// Of signed errors, which must be finite.
    pub fn of(errors: &[f64]) -> Self {
        let mut magnitudes: Vec<f64> = errors.iter().map(|error| error.abs()).collect();
        let magnitude = Statistics::of(&mut magnitudes);
        let (mean, sd) = mean_and_sd(errors);
        let rms = mean.hypot(sd);
        Self { mean, sd, rms, p50: magnitude.p50, p99: magnitude.p99, max: magnitude.max }
    }
}

fn mean_and_sd(values: &[f64]) -> (f64, f64) {
    if values.is_empty() {
        return (0.0, 0.0);
    }
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    // Two passes: one would lose the digits that large means leave for small deviations.
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count;
    (mean, variance.sqrt())
}

/// The `q` quantile of sorted values by nearest rank; zero of none.
pub fn percentile(sorted: &[f64], q: f64) -> f64 {
    let rank = (q * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1).min(sorted.len().saturating_sub(1))).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_of_the_set() {
        let mut values: Vec<f64> = (1..=200).rev().map(f64::from).collect();
        let statistics = Statistics::of(&mut values);
        assert_eq!((statistics.min, statistics.max), (1.0, 200.0));
        assert_eq!((statistics.p50, statistics.p99), (100.0, 198.0));
        assert_eq!(statistics.mean, 100.5);
    }

    #[test]
    fn error_percentiles_are_of_the_magnitude() {
        let statistics = ErrorStatistics::of(&[-3.0, -1.0, 1.0, 3.0]);
        assert_eq!((statistics.mean, statistics.p50, statistics.max), (0.0, 1.0, 3.0));
        assert_eq!(statistics.rms, 5f64.sqrt());
        assert_eq!(statistics.sd, statistics.rms);
    }

    #[test]
    fn nothing_has_zero_statistics() {
        assert_eq!(Statistics::of(&mut []), Statistics::default());
        assert_eq!(ErrorStatistics::of(&[]), ErrorStatistics::default());
    }
}
