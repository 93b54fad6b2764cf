//! Stability of a time error: MTIE and TDEV as ITU-T G.810 defines them, and the overlapping Allan
//! deviation, for observation intervals in octaves.

use std::collections::VecDeque;

use serde::Serialize;

/// The figures for one observation interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Stability {
    /// Observation interval, seconds.
    pub tau_s: f64,
    /// Maximum time interval error, nanoseconds (G.810, II.5).
    pub mtie_ns: f64,
    /// Time deviation, nanoseconds (G.810, II.3); `None` where the run is shorter than three
    /// intervals.
    pub tdev_ns: Option<f64>,
    /// Overlapping Allan deviation of the frequency, dimensionless (G.810, II.1).
    pub adev: Option<f64>,
}

/// Of time errors in nanoseconds, `interval_s` apart.
pub fn stability(errors: &[f64], interval_s: f64) -> Vec<Stability> {
    let mut rows = Vec::new();
    let mut n = 1;
    while n < errors.len() {
        rows.push(Stability {
            tau_s: n as f64 * interval_s,
            mtie_ns: mtie(errors, n),
            tdev_ns: tdev(errors, n),
            adev: adev(errors, n).map(|ns| ns * 1e-9 / (n as f64 * interval_s)),
        });
        n *= 2;
    }
    rows
}

/// The largest peak-to-peak error within any n + 1 successive values.
fn mtie(errors: &[f64], n: usize) -> f64 {
    let mut highest: VecDeque<usize> = VecDeque::new();
    let mut lowest: VecDeque<usize> = VecDeque::new();
    let mut largest: f64 = 0.0;
    for (at, error) in errors.iter().enumerate() {
        while highest.back().is_some_and(|last| errors[*last] <= *error) {
            highest.pop_back();
        }
        while lowest.back().is_some_and(|last| errors[*last] >= *error) {
            lowest.pop_back();
        }
        highest.push_back(at);
        lowest.push_back(at);
        for queue in [&mut highest, &mut lowest] {
            while queue.front().is_some_and(|first| first + n < at) {
                queue.pop_front();
            }
        }
        if at >= n
            && let (Some(high), Some(low)) = (highest.front(), lowest.front())
        {
            largest = largest.max(errors[*high] - errors[*low]);
        }
    }
    largest
}

/// G.810's estimator: second differences of averages over n.
fn tdev(errors: &[f64], n: usize) -> Option<f64> {
    let count = (errors.len() + 1).checked_sub(3 * n).filter(|count| *count > 0)?;
    let mut inner: f64 = (0..n).map(|i| errors[i + 2 * n] - 2.0 * errors[i + n] + errors[i]).sum();
    let mut sum = inner * inner;
    for j in 1..count {
        let (i, last) = (j - 1, j + n - 1);
        inner -= errors[i + 2 * n] - 2.0 * errors[i + n] + errors[i];
        inner += errors[last + 2 * n] - 2.0 * errors[last + n] + errors[last];
        sum += inner * inner;
    }
    Some((sum / (6.0 * (n * n) as f64 * count as f64)).sqrt())
}

/// Root mean square second difference over root two; divided by tau it is the Allan deviation.
fn adev(errors: &[f64], n: usize) -> Option<f64> {
    let count = errors.len().checked_sub(2 * n).filter(|count| *count > 0)?;
    let sum: f64 =
        (0..count).map(|i| (errors[i + 2 * n] - 2.0 * errors[i + n] + errors[i]).powi(2)).sum();
    Some((sum / (2.0 * count as f64)).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn a_constant_frequency_error_is_all_mtie() {
        let errors: Vec<f64> = (0..1_000).map(|i| f64::from(i) * 3.0).collect();
        for row in stability(&errors, 2.0) {
            assert!((row.mtie_ns - row.tau_s * 1.5).abs() < 1e-9);
            assert!(row.tdev_ns.is_none_or(|tdev| tdev < 1e-9));
            assert!(row.adev.is_none_or(|adev| adev < 1e-15));
        }
    }

    #[test]
    fn white_phase_noise_has_the_slopes_of_the_standard() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let errors: Vec<f64> =
            (0..100_000).map(|_| 10.0 * crate::sim::noise::normal(&mut rng)).collect();
        for row in stability(&errors, 1.0).iter().take(10) {
            // TDEV = sd / sqrt(n), ADEV = sqrt(3) sd / tau.
            let tdev = row.tdev_ns.unwrap() * row.tau_s.sqrt();
            assert!((tdev - 10.0).abs() < 1.0, "{row:?}");
            let adev = row.adev.unwrap() * row.tau_s * 1e9;
            assert!((adev - 300_f64.sqrt()).abs() < 0.5, "{row:?}");
        }
    }

    #[test]
    fn mtie_is_the_same_as_by_its_definition() {
        let errors: Vec<f64> = (0..200_u32).map(|i| f64::from(i.pow(3) % 101)).collect();
        for n in [1, 7, 64, 199] {
            let plain = errors
                .windows(n + 1)
                .map(|w| {
                    w.iter().fold(f64::MIN, |a, b| a.max(*b))
                        - w.iter().fold(f64::MAX, |a, b| a.min(*b))
                })
                .fold(0.0, f64::max);
            assert_eq!(mtie(&errors, n), plain);
        }
    }
}
