//! What a transparent clock exports of a port: how long event messages were inside, and what became of the
//! messages. The programs count in the kernel, so these are totals that are set.

use std::collections::BTreeMap;

use prometheus::proto::{Bucket, Histogram};
use ptp_common::residence::bucket_end_ns;

use super::family::{CORRECTED, Families, RESIDENCE};

/// Buckets of the programs that are told: one per doubling, from a quarter of a microsecond to a second.
const TOLD: std::ops::RangeInclusive<u32> = 8..=29;

/// Which way an event message went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// From the time transmitter: Sync, Pdelay_Resp.
    Downstream,
    /// To it: Delay_Req, Pdelay_Req.
    Upstream,
}

impl Way {
    /// Both, in the programs' order.
    pub const ALL: [Self; 2] = [Self::Downstream, Self::Upstream];

    /// The name in labels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Downstream => "downstream",
            Self::Upstream => "upstream",
        }
    }
}

/// Figures of one port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forwarding {
    /// Counts by the programs' buckets, and the sum in nanoseconds.
    pub residence: BTreeMap<Way, (Vec<u64>, u64)>,
    /// Messages by type and outcome.
    pub messages: BTreeMap<(&'static str, &'static str), u64>,
}

impl Forwarding {
    pub(super) fn add(&self, interface: &str, families: &mut Families) {
        let interface = ("interface", interface);
        for (way, (counts, sum_ns)) in &self.residence {
            let histogram = proto(counts, *sum_ns);
            families.add_proto(&RESIDENCE, &[interface, ("direction", way.name())], histogram);
        }
        for ((kind, outcome), total) in &self.messages {
            let labels = [interface, ("type", kind), ("outcome", outcome)];
            families.add(&CORRECTED, &labels, *total as f64);
        }
    }
}

fn proto(counts: &[u64], sum_ns: u64) -> Histogram {
    let mut histogram = Histogram::default();
    histogram.set_sample_count(counts.iter().sum());
    histogram.set_sample_sum(sum_ns as f64 / 1e9);
    let buckets = TOLD.map(|log| {
        let last = log * 2 + 1;
        let below = counts.iter().take(last as usize + 1).sum();
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(bucket_end_ns(last) as f64 / 1e9);
        bucket.set_cumulative_count(below);
        bucket
    });
    histogram.set_bucket(buckets.collect());
    histogram
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use ptp_common::residence::bucket;

    pub(in crate::publish::metrics) fn example() -> Forwarding {
        let mut counts = vec![0; 63];
        for nanos in [900, 1_100, 5_000_000] {
            counts[bucket(nanos) as usize] += 1;
        }
        Forwarding {
            residence: [(Way::Downstream, (counts, 5_002_000))].into(),
            messages: [(("follow_up", "corrected"), 3)].into(),
        }
    }

    #[test]
    fn time_is_counted_below_the_first_bound_that_is_not_less() {
        let histogram = proto(&example().residence[&Way::Downstream].0, 5_002_000);
        let below = |seconds: f64| {
            let bucket = histogram.get_bucket().iter().find(|it| it.upper_bound() >= seconds);
            bucket.unwrap().cumulative_count()
        };
        assert_eq!([512e-9, 1e-6, 2e-6, 4e-3, 5e-3].map(below), [0, 1, 2, 2, 3]);
        assert_eq!(histogram.get_sample_count(), 3);
    }
}
