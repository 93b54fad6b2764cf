//! What corrections of one direction are usually: the medians of what was least in each of the last minutes. A
//! correction says for how long a message was held on its way, and nobody can check that. So what it says beyond
//! the usual moves the estimate, as it should, but does not make the causal interval narrower: who adds a little
//! more every second pulls the time, and the bound goes with it. An honest one is at its usual least now and then, and those
//! samples are the tight ones anyway. What is usual never becomes more, since who has patience could make anything usual: a
//! path on which messages are held longer from some day on has a wider interval for as long as its time transmitter is followed.

use crate::prelude::*;
use alloc::collections::VecDeque;

use ptp_common::time::{Duration, Free, Time};

/// What is least in so much time is remembered,
const BUCKET: Duration = Duration::from_secs(10);
/// for so many times.
const BUCKETS: usize = 60;
/// After so many it is known what is usual.
const SETTLED: usize = 6;

/// See the module's paragraph.
#[derive(Clone, Debug, Default)]
pub(super) struct Corrections {
    /// The least of each time, nanoseconds, the latest last.
    least_ns: VecDeque<f64>,
    since: Option<Time<Free>>,
    present_ns: f64,
    usual_ns: f64,
}

impl Corrections {
    /// A message came with this correction. How much of it is beyond the usual, nanoseconds.
    pub(super) fn unusual_ns(&mut self, at: Time<Free>, correction: Duration) -> f64 {
        let ns = correction.as_nanos_f64();
        let since = *self.since.get_or_insert(at);
        if self.least_ns.is_empty() {
            // The first are taken as they come: nothing is known yet.
            self.present_ns = if since == at { ns } else { self.present_ns.min(ns) };
            self.usual_ns = self.present_ns.max(ns);
        }
        if at - since >= BUCKET {
            if self.least_ns.len() == BUCKETS {
                self.least_ns.pop_front();
            }
            self.least_ns.push_back(self.present_ns);
            self.since = Some(at);
            self.present_ns = ns;
            let mut known: Vec<f64> = self.least_ns.iter().copied().collect();
            known.sort_unstable_by(f64::total_cmp);
            let median_ns = known[(known.len() - 1) / 2];
            let is_settled = known.len() > SETTLED;
            self.usual_ns = if is_settled { self.usual_ns.min(median_ns) } else { median_ns };
        }
        self.present_ns = self.present_ns.min(ns);
        (ns - self.usual_ns).max(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unusual(correction: impl Fn(i64) -> i64) -> Vec<f64> {
        let mut corrections = Corrections::default();
        let each = (0..8 * 600).map(|n| {
            let at = Time::from_nanos(n * 125_000_000);
            corrections.unusual_ns(at, Duration::from_nanos(correction(n)))
        });
        each.collect()
    }

    #[test]
    fn what_a_transparent_clock_says_is_usual_at_its_least() {
        let residence = |n: i64| 20_000 + (n * 7_919 % 1_000) * 100;
        let unusual = unusual(residence);
        for seconds in unusual.chunks(8 * 30).skip(1) {
            let least = seconds.iter().copied().fold(f64::INFINITY, f64::min);
            assert!(least <= 1_000.0, "{least}");
        }
    }

    #[test]
    fn what_grows_every_second_is_not_believed_by_the_bound() {
        let grows = |n: i64| (n - 8 * 60).max(0) * 3_000 / 8;
        for (n, unusual) in (0..).zip(unusual(grows)) {
            let added = grows(n) as f64;
            // Of half of a minute at the most is it used to.
            assert!(unusual >= added - 30.0 * 3_000.0 - 100.0, "{n}: {unusual} of {added}");
            assert!(unusual >= 0.45 * added - 100.0, "{n}: {unusual} of {added}");
        }
    }

    #[test]
    fn what_grows_for_hours_is_never_usual() {
        let grows = |n: i64| (n - 120).max(0) * 50;
        let mut corrections = Corrections::default();
        for n in 0..4 * 3_600 {
            let at = Time::from_nanos(n * 1_000_000_000);
            let unusual = corrections.unusual_ns(at, Duration::from_nanos(grows(n)));
            assert!(unusual >= grows(n) as f64 - 100.0, "{n}: {unusual}");
        }
    }
}
