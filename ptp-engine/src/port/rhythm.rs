//! When the next Sync is due, and requests that arrive shortly before it. A request that reaches a time
//! transmitter in software wakes its processor and, by the answer, warms its transmit path, so that the Sync
//! that follows leaves with less delay behind its stamp: remote priming. Not one request more is sent
//! than without: each keeps its random time but for half a Sync interval, which leaves the mean as it
//! is (9.5.11.2). Where others follow the same time transmitter, each does so only now and then: one
//! request warms the path for all.

#[cfg(target_os = "none")]
use crate::math::Float as _;
use crate::prelude::*;
use alloc::collections::VecDeque;
use ptp_common::time::{Duration, Mono, Time};

/// Intervals between Sync messages that their usual length is taken from.
const INTERVALS: usize = 9;
/// And as many must be known.
const KNOWN: usize = 4;
/// How long before a Sync a request is sent at the least: the answer takes some 50 us of the other
/// side's time, and a processor is warm for some hundreds.
const LEAST_LEAD: Duration = Duration::from_micros(150);
/// And at the most, where the time of the Sync is uncertain.
const MOST_LEAD: Duration = Duration::from_micros(600);
/// Answers to others are counted over so long.
const CENSUS: Duration = Duration::from_secs(64);

/// The rhythm of one time transmitter on one port.
#[derive(Debug, Default)]
pub(super) struct Rhythm {
    last: Option<Time<Mono>>,
    intervals: VecDeque<Duration>,
    census: Census,
}

/// Answers within a time, to this port and to others.
#[derive(Clone, Copy, Debug, Default)]
struct Census {
    since: Option<Time<Mono>>,
    own: u32,
    others: u32,
    /// Of the time before.
    clients: f64,
}

impl Rhythm {
    /// A Sync has arrived.
    pub(super) fn sync(&mut self, at: Time<Mono>) {
        if let Some(last) = self.last.replace(at) {
            if self.intervals.len() == INTERVALS {
                self.intervals.pop_front();
            }
            self.intervals.push_back(at - last);
        }
    }

    /// A request was answered, of this port or of another.
    pub(super) fn answered(&mut self, now: Time<Mono>, is_own: bool) {
        let census = &mut self.census;
        let since = *census.since.get_or_insert(now);
        if is_own {
            census.own = census.own.saturating_add(1);
        } else {
            census.others = census.others.saturating_add(1);
        }
        if now - since >= CENSUS {
            *census = Census { since: Some(now), clients: census.clients(), ..Census::default() };
        }
    }

    /// With which probability a request of this port is to be aimed: all that follow aim one together.
    pub(super) fn share(&self) -> f64 {
        1.0 / self.census.clients.max(self.census.clients()).max(1.0)
    }

    /// The time shortly before a Sync that is nearest to `wanted` and still to come; `wanted` itself where
    /// no Sync can be predicted, or none within `reach`.
    pub(super) fn aim(&self, now: Time<Mono>, wanted: Time<Mono>, reach: Duration) -> Time<Mono> {
        let Some((last, interval, lead)) = self.prediction() else { return wanted };
        let first = last + interval - lead;
        let steps = (wanted - first).as_nanos_f64() / interval.as_nanos_f64();
        let mut aimed =
            first + Duration::from_nanos_f64(interval.as_nanos_f64() * steps.round().max(0.0));
        if aimed <= now {
            aimed += interval;
        }
        if (aimed - wanted).abs() <= reach { aimed } else { wanted }
    }

    /// The last Sync, the usual interval, and how long before the next a request is to be sent.
    fn prediction(&self) -> Option<(Time<Mono>, Duration, Duration)> {
        let last = self.last?;
        let mut intervals: Vec<Duration> = self.intervals.iter().copied().collect();
        if intervals.len() < KNOWN {
            return None;
        }
        intervals.sort_unstable();
        let usual = intervals[intervals.len() / 2];
        let early = usual - intervals[intervals.len() / 4];
        let lead = (LEAST_LEAD + early * 2).min(MOST_LEAD);
        // A rhythm that is faster than this is none, or nothing that one could be in time for.
        (usual > lead * 4).then_some((last, usual, lead))
    }
}

impl Census {
    /// This port and as many others as its share of the answers says.
    fn clients(&self) -> f64 {
        1.0 + f64::from(self.others) / f64::from(self.own.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    const INTERVAL: Duration = Duration::from_micros(62_500);

    fn after(syncs: i32) -> (Rhythm, Time<Mono>) {
        let mut rhythm = Rhythm::default();
        let mut at = Time::from_nanos(1_000_000_000);
        for _ in 0..syncs {
            at += INTERVAL;
            rhythm.sync(at);
        }
        (rhythm, at)
    }

    #[test]
    fn request_is_aimed_at_the_time_before_a_sync() {
        let (rhythm, last) = after(10);
        let wanted = last + INTERVAL * 3 + Duration::from_millis(20);
        let aimed = rhythm.aim(last, wanted, Duration::from_secs(1));
        assert_eq!(aimed, last + INTERVAL * 3 - LEAST_LEAD);
        // What has passed cannot be reached any more.
        let late = last + INTERVAL - Duration::from_micros(10);
        assert_eq!(
            rhythm.aim(late, late, Duration::from_secs(1)),
            last + INTERVAL * 2 - LEAST_LEAD
        );
    }

    #[test]
    fn request_keeps_its_time_where_nothing_can_be_predicted_or_reached() {
        let (rhythm, last) = after(3);
        let wanted = last + Duration::from_millis(300);
        assert_eq!(rhythm.aim(last, wanted, Duration::from_secs(1)), wanted);
        let (rhythm, last) = after(10);
        let wanted = last + Duration::from_millis(30);
        assert_eq!(rhythm.aim(last, wanted, Duration::from_millis(5)), wanted);
    }

    #[test]
    fn aiming_does_not_make_requests_more_frequent() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for log_interval in [-4, 0, 3] {
            let (mut rhythm, start) = after(10);
            let mean = Duration::from_log_interval(log_interval);
            let (mut now, mut next_sync, mut sent) = (start, start + INTERVAL, 0);
            while sent < 2_000 {
                let wait = rng.random_range(0..=mean.as_nanos() * 2);
                now = rhythm.aim(now, now + Duration::from_nanos(wait), mean);
                sent += 1;
                while next_sync <= now {
                    rhythm.sync(next_sync);
                    next_sync += INTERVAL;
                }
            }
            let actual = (now - start).as_secs_f64() / f64::from(sent);
            assert!(actual > mean.as_secs_f64() * 0.97, "2^{log_interval} s: {actual}");
        }
    }

    #[test]
    fn thousand_clients_take_turns() {
        let (mut rhythm, at) = after(10);
        assert_eq!(rhythm.share(), 1.0);
        for n in 0..100_000 {
            rhythm.answered(at + Duration::from_millis(n), n % 1_000 == 0);
        }
        let share = rhythm.share();
        assert!((0.0005..0.002).contains(&share), "{share}");
    }
}
