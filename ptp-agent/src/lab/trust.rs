//! What the agent promises, beside the truth: the share of the time in which the true error is within its
//! bound and within its causal interval, and how wide these are.

use serde::{Deserialize, Serialize};

/// What a sample says that only the judgement of promises needs.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Promise {
    /// Bound on |clock - grandmaster|, nanoseconds.
    #[serde(default)]
    pub error_bound_ns: Option<i64>,
    /// Where clock - grandmaster is by causality, nanoseconds.
    #[serde(default)]
    pub interval_ns: Option<[i64; 2]>,
    /// Spread alone, nanoseconds.
    #[serde(default)]
    pub precision_ns: Option<i64>,
    /// How the agent sends and stamps.
    #[serde(default)]
    pub strategy: Option<String>,
}

/// A promise and the truth of that instant.
#[derive(Clone, Copy, Debug)]
pub(super) struct Judged<'a> {
    /// Clock minus grandmaster, nanoseconds.
    pub truth_ns: f64,
    /// What was promised.
    pub promise: &'a Promise,
}

/// How promises were kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Kept {
    /// Samples that had a bound.
    pub bounds: u64,
    /// Share of them with the truth inside.
    pub inside_bound: Option<f64>,
    /// Mean of the bounds, nanoseconds.
    pub bound_ns: Option<f64>,
    /// Share of the samples that had an interval with the truth inside.
    pub inside_interval: Option<f64>,
    /// Mean half width of the intervals, nanoseconds.
    pub half_width_ns: Option<f64>,
    /// Mean of the precisions, nanoseconds.
    pub precision_ns: Option<f64>,
}

impl Kept {
    /// Of the samples of a run.
    pub(super) fn of<'a>(judged: impl Iterator<Item = Judged<'a>>) -> Self {
        let (mut bound, mut interval, mut precision) = <(Mean, Mean, Mean)>::default();
        let (mut inside_bound, mut inside_interval) = (0_u64, 0_u64);
        for Judged { truth_ns, promise } in judged {
            if let Some(promised) = promise.error_bound_ns {
                bound.add(promised as f64);
                inside_bound += u64::from(truth_ns.abs() <= promised as f64);
            }
            if let Some([lo, hi]) = promise.interval_ns {
                interval.add((hi - lo) as f64 / 2.0);
                inside_interval += u64::from((lo as f64..=hi as f64).contains(&truth_ns));
            }
            if let Some(promised) = promise.precision_ns {
                precision.add(promised as f64);
            }
        }
        Self {
            bounds: bound.count,
            inside_bound: bound.share(inside_bound),
            bound_ns: bound.value(),
            inside_interval: interval.share(inside_interval),
            half_width_ns: interval.value(),
            precision_ns: precision.value(),
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Mean {
    count: u64,
    sum: f64,
}

impl Mean {
    fn add(&mut self, value: f64) {
        self.count += 1;
        self.sum += value;
    }

    fn value(self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / self.count as f64)
    }

    fn share(self, of: u64) -> Option<f64> {
        (self.count > 0).then(|| of as f64 / self.count as f64)
    }
}

/// Root of the mean square of errors without the twentieth part that is largest: on a machine with other
/// work to do, those say how long somebody stood still.
pub(super) fn trimmed_rms(errors: &[f64]) -> f64 {
    let mut squares: Vec<f64> = errors.iter().map(|error| error * error).collect();
    squares.sort_unstable_by(f64::total_cmp);
    squares.truncate(squares.len() - squares.len() / 20);
    if squares.is_empty() {
        return 0.0;
    }
    (squares.iter().sum::<f64>() / squares.len() as f64).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_promises_are_counted() {
        let promise = |bound, interval| Promise {
            error_bound_ns: Some(bound),
            interval_ns: interval,
            ..Promise::default()
        };
        let promises = [promise(100, Some([-50, 150])), promise(300, None)];
        let judged = |truth_ns| promises.iter().map(move |promise| Judged { truth_ns, promise });
        let kept = Kept::of(judged(-200.0));
        assert_eq!((kept.inside_bound, kept.bound_ns), (Some(0.5), Some(200.0)));
        assert_eq!((kept.inside_interval, kept.half_width_ns), (Some(0.0), Some(100.0)));
        assert_eq!(Kept::of(judged(0.0)).inside_bound, Some(1.0));
        assert_eq!(Kept::of(std::iter::empty()), Kept::default());
    }

    #[test]
    fn largest_twentieth_is_left_out() {
        let mut errors = vec![3.0; 19];
        errors.push(-1e9);
        assert_eq!(trimmed_rms(&errors), 3.0);
        assert_eq!(trimmed_rms(&[]), 0.0);
    }
}
