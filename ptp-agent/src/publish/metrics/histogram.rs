//! A histogram of differences between two stamps of the same packets: a bucket per decade and a half,
//! either side of zero, because which stamp is the earlier one depends on the capture points.

use prometheus::proto::{Bucket, Histogram as Proto};
use ptp_common::time::Duration;

/// Upper bounds of the buckets, seconds; the last bucket has none.
pub const DIFFERENCE_BOUNDS: [f64; 17] = [
    -1e-3, -1e-4, -3e-5, -1e-5, -3e-6, -1e-6, -3e-7, -1e-7, 0.0, 1e-7, 3e-7, 1e-6, 3e-6, 1e-5,
    3e-5, 1e-4, 1e-3,
];

/// Counts by bucket. Totals only grow.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram {
    counts: [u64; DIFFERENCE_BOUNDS.len() + 1],
    sum: f64,
}

impl Histogram {
    /// Counts one difference.
    pub fn add(&mut self, difference: Duration) {
        let seconds = difference.as_secs_f64();
        let bucket = DIFFERENCE_BOUNDS.partition_point(|bound| *bound < seconds);
        self.counts[bucket] += 1;
        self.sum += seconds;
    }

    /// How many differences were counted.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    pub(super) fn to_proto(&self) -> Proto {
        let mut proto = Proto::default();
        proto.set_sample_count(self.count());
        proto.set_sample_sum(self.sum);
        let mut below = 0;
        let buckets = DIFFERENCE_BOUNDS.iter().zip(self.counts).map(|(bound, count)| {
            below += count;
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(*bound);
            bucket.set_cumulative_count(below);
            bucket
        });
        proto.set_bucket(buckets.collect());
        proto
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn difference_is_counted_in_the_first_bucket_that_holds_it() {
        let mut histogram = Histogram::default();
        for nanos in [-2_000_000, -50, 0, 100, 101, 5_000_000] {
            histogram.add(Duration::from_nanos(nanos));
        }
        let proto = histogram.to_proto();
        let cumulative = |bound: f64| {
            let bucket = proto.get_bucket().iter().find(|bucket| bucket.upper_bound() == bound);
            bucket.unwrap().cumulative_count()
        };
        assert_eq!([-1e-3, -1e-7, 0.0, 1e-7, 3e-7, 1e-3].map(cumulative), [1, 1, 3, 4, 5, 5]);
        assert_eq!((proto.get_sample_count(), histogram.count()), (6, 6));
    }

    #[test]
    fn bounds_ascend() {
        assert!(DIFFERENCE_BOUNDS.is_sorted());
    }
}
