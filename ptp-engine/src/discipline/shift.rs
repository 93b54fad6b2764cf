//! Whether the clock has moved against a server of NTP: the latest exchanges against the long-time average of those before. A
//! grandmaster that goes wrong by less than a round trip contradicts no interval of causality, but what lay between the
//! clock and the server was another value before.
//!
//! An exchange that was under way longer than the quickest ones may be off by half of the difference, and by no more: what is
//! added on one way moves its offset by half of it. So each exchange says where the offset is as exactly as it was quick,
//! whatever the distribution of delays, as long as the difference of the two ways at their quickest stays what it was. What
//! exchanges have differed by beyond that, because the clock or the server wanders, is measured and allowed for.
//! That is evidence and no proof: another route may be as long as the old one and differ in its two ways. It takes two
//! servers that see the same ([`Discipline::shifted`](super::Discipline::shifted)), and nothing but an alarm comes of it.

use crate::{math::median, prelude::*};
use alloc::collections::VecDeque;
use ptp_common::time::{Duration, Mono, Time};

/// Spans of time of each of which the quickest exchange is remembered,
const SPANS: usize = 64;
/// and how long each of them lasts at the least.
const SPAN: Duration = Duration::from_secs(8);
/// So many must be known before anything is usual.
const FEWEST: usize = 16;
/// At least so many of the quickest ones, or a third, say what is usual.
const FEWEST_QUICK: usize = 8;
/// What one in ten have differed by beyond their delays is allowed for, so many times,
const ALLOWED: f64 = 3.0;
/// how slow those were that say what is usual a little more than once, since nobody knows how quick one can be,
const UNSURE: f64 = 1.5;
/// and so much more, ns: stamps of different kinds.
const LEAST_NS: f64 = 1_000.0;
/// So many exchanges must be unusual in the same sense,
const FEWEST_UNUSUAL: u32 = 3;
/// and for so long.
const LASTING: Duration = Duration::from_secs(3);
/// Where so many more of which it cannot be told come for each of them, and some more, they were chance.
const UNTOLD: u32 = 3;
const FEWEST_UNTOLD: u32 = 3;
/// Unusual offsets of which the median is told.
const TOLD: usize = 8;
/// What has been unusual for so long is usual from then on.
const ACCEPTED: Duration = Duration::from_secs(86_400);

/// One exchange: server minus clock, and the round trip, ns.
#[derive(Clone, Copy, Debug)]
struct Point {
    offset_ns: f64,
    delay_ns: f64,
}

impl Point {
    /// By how much it may be off because it was not as quick as `least_ns`.
    fn slowness_ns(&self, least_ns: f64) -> f64 {
        (self.delay_ns - least_ns).max(0.0) / 2.0
    }
}

/// What the spans say.
#[derive(Clone, Copy, Debug)]
struct Usual {
    offset_ns: f64,
    /// Of those that say it, in the middle, and the least.
    delay_ns: f64,
    least_ns: f64,
    /// What is allowed for beside slowness.
    allowed_ns: f64,
}

/// Exchanges that do not fit.
#[derive(Clone, Debug)]
struct Unusual {
    since: Time<Mono>,
    latest: Time<Mono>,
    count: u32,
    /// Of which it could not be told whether they fit.
    untold: u32,
    /// How far from what is usual.
    by_ns: VecDeque<f64>,
}

/// See the module's paragraphs.
#[derive(Clone, Debug, Default)]
pub(super) struct Shift {
    spans: VecDeque<Point>,
    /// The span that lasts, and its quickest exchange so far.
    present: Option<(Time<Mono>, Point)>,
    unusual: Option<Unusual>,
}

impl Shift {
    /// An exchange: how far the server is ahead of the clock, and the round trip. Whether it is the first one of its kind that
    /// does not fit to those before.
    pub(super) fn take(&mut self, now: Time<Mono>, offset: Duration, delay: Duration) -> bool {
        let point = Point { offset_ns: offset.as_nanos_f64(), delay_ns: delay.as_nanos_f64() };
        if self.unusual.as_ref().is_some_and(|unusual| now - unusual.since > ACCEPTED) {
            *self = Self::default();
        }
        let Some(usual) = self.usual() else {
            self.remember(now, point);
            return false;
        };
        // What is usual comes from exchanges that were not as quick as can be either; one that is quicker than all says more of that.
        let least_ns = usual.least_ns.min(point.delay_ns);
        let unsure_ns = UNSURE * (usual.delay_ns - least_ns) / 2.0;
        let slack_ns = point.slowness_ns(least_ns) + unsure_ns + usual.allowed_ns;
        let by_ns = point.offset_ns - usual.offset_ns;
        if by_ns.abs() <= slack_ns {
            let excludes = |unusual: &Unusual| {
                (by_ns - median(unusual.by_ns.iter().copied().collect())).abs() > slack_ns
            };
            if self.unusual.as_ref().is_none_or(excludes) {
                self.unusual = None;
                self.remember(now, point);
            } else if let Some(unusual) = &mut self.unusual {
                // It was too slow to tell. Where most are, a few that seemed to say something were chance.
                unusual.untold += 1;
                if unusual.untold > FEWEST_UNTOLD + UNTOLD * unusual.count {
                    self.unusual = None;
                }
            }
            return false;
        }
        let is_same = |unusual: &&mut Unusual| {
            unusual.by_ns.back().is_some_and(|before| before.signum() == by_ns.signum())
        };
        match self.unusual.as_mut().filter(is_same) {
            Some(unusual) => {
                unusual.latest = now;
                unusual.count += 1;
                if unusual.by_ns.len() == TOLD {
                    unusual.by_ns.pop_front();
                }
                unusual.by_ns.push_back(by_ns);
                false
            }
            None => {
                let by_ns = VecDeque::from([by_ns]);
                self.unusual =
                    Some(Unusual { since: now, latest: now, count: 1, untold: 0, by_ns });
                true
            }
        }
    }

    /// Whether enough is known to say anything.
    pub(super) fn is_known(&self) -> bool {
        self.spans.len() >= FEWEST
    }

    /// How much farther the server is ahead of the clock than usual, once that is sure.
    pub(super) fn by(&self) -> Option<Duration> {
        let unusual = self.unusual.as_ref().filter(|unusual| {
            unusual.count >= FEWEST_UNUSUAL && unusual.latest - unusual.since >= LASTING
        })?;
        Some(Duration::from_nanos_f64(median(unusual.by_ns.iter().copied().collect())))
    }

    fn remember(&mut self, now: Time<Mono>, point: Point) {
        match &mut self.present {
            Some((begun, quickest)) if now - *begun < SPAN => {
                if point.delay_ns < quickest.delay_ns {
                    *quickest = point;
                }
            }
            present => {
                if let Some((_, quickest)) = present.replace((now, point)) {
                    if self.spans.len() == SPANS {
                        self.spans.pop_front();
                    }
                    self.spans.push_back(quickest);
                }
            }
        }
    }

    fn usual(&self) -> Option<Usual> {
        if !self.is_known() {
            return None;
        }
        let mut all: Vec<Point> = self.spans.iter().copied().collect();
        all.sort_unstable_by(|a, b| a.delay_ns.total_cmp(&b.delay_ns));
        let least_ns = all[0].delay_ns;
        let quick = &all[..(all.len() / 3).max(FEWEST_QUICK).min(all.len())];
        let offset_ns = median(quick.iter().map(|point| point.offset_ns).collect());
        let mut beyond: Vec<f64> = all
            .iter()
            .map(|point| (point.offset_ns - offset_ns).abs() - point.slowness_ns(least_ns))
            .collect();
        beyond.sort_unstable_by(f64::total_cmp);
        let one_in_ten = beyond[beyond.len() - 1 - beyond.len() / 10].max(0.0);
        let delay_ns = quick[quick.len() / 2].delay_ns;
        Some(Usual { offset_ns, delay_ns, least_ns, allowed_ns: ALLOWED * one_in_ten + LEAST_NS })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    /// Exchanges each 16 s over a path of two ways of 20 us at the least.
    struct Path {
        shift: Shift,
        rng: ChaCha8Rng,
        now: i64,
        least: [i64; 2],
        jitter: f64,
    }

    impl Path {
        fn new(jitter: f64) -> Self {
            let rng = ChaCha8Rng::seed_from_u64(7);
            Self { shift: Shift::default(), rng, now: 0, least: [20_000; 2], jitter }
        }

        fn take(&mut self, error: i64) -> bool {
            self.now += 16;
            let [there, back] = self
                .least
                .map(|least| least + (-(1.0 - self.rng.random::<f64>()).ln() * self.jitter) as i64);
            let offset = Duration::from_nanos(error + (there - back) / 2);
            let now = Time::ZERO + Duration::from_secs(self.now);
            self.shift.take(now, offset, Duration::from_nanos(there + back))
        }

        /// Exchanges until it is told, at the most so many.
        fn until_told(&mut self, most: u32, error: impl Fn(u32) -> i64) -> Option<u32> {
            (1..=most).find(|n| {
                self.take(error(*n));
                self.shift.by().is_some()
            })
        }
    }

    #[test]
    fn jitter_alone_is_never_a_shift() {
        for jitter in [0.0, 4_000.0, 60_000.0, 2e6] {
            let mut path = Path::new(jitter);
            assert_eq!(path.until_told(10_000, |_| 0), None, "{jitter}");
        }
    }

    #[test]
    fn ten_microseconds_are_seen_through_a_local_networks_jitter_and_the_sense_is_right() {
        let mut path = Path::new(4_000.0);
        assert_eq!(path.until_told(100, |_| 5_000), None);
        let found = path.until_told(20, |_| -5_000).unwrap();
        assert!(found <= 8, "{found}");
        let by = path.shift.by().unwrap();
        assert!((by + Duration::from_micros(10)).abs() < Duration::from_micros(5), "{by:?}");
        // And it is over when the old offset is back.
        for _ in 0..8 {
            path.take(5_000);
        }
        assert_eq!(path.shift.by(), None);
    }

    #[test]
    fn a_slow_drift_is_seen() {
        let mut path = Path::new(4_000.0);
        assert_eq!(path.until_told(100, |_| 0), None);
        // 1 ppm.
        let found = path.until_told(20, |n| i64::from(n) * 16_000).unwrap();
        assert!(found <= 4, "{found}");
    }

    #[test]
    fn another_route_is_no_shift_of_the_clock() {
        for ways in [[220_000, 20_000], [20_000, 220_000], [12_000, 20_000], [20_000, 12_000]] {
            let mut path = Path::new(2_000.0);
            assert_eq!(path.until_told(100, |_| 0), None);
            path.least = ways;
            assert_eq!(path.until_told(300, |_| 0), None, "{ways:?}");
            path.least = [20_000; 2];
            assert_eq!(path.until_told(300, |_| 0), None, "back from {ways:?}");
        }
    }

    #[test]
    fn what_lasts_a_day_is_usual_and_little_is_said_before_something_is() {
        let mut path = Path::new(1_000.0);
        assert_eq!(path.until_told(FEWEST as u32, |n| i64::from(n) * 1_000_000), None);
        let mut path = Path::new(1_000.0);
        assert_eq!(path.until_told(100, |_| 0), None);
        assert!(path.take(50_000), "the first one is told at once");
        assert!(!path.take(50_000));
        assert!(path.until_told(8, |_| 50_000).is_some());
        for _ in 0..86_400 / 16 + 1 {
            path.take(50_000);
        }
        assert_eq!(path.shift.by(), None);
        assert_eq!(path.until_told(100, |_| 50_000), None);
        assert!(path.until_told(8, |_| 0).is_some());
    }
}
