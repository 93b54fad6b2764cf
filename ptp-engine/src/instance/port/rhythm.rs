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
use ptp_common::time::{Duration, Mono, Ptp, Time};

/// Intervals between Sync messages that their usual length is taken from.
const INTERVALS: usize = 9;
/// And as many must be known.
const KNOWN: usize = 4;
/// How long before a Sync leaves a request is to arrive: as long as the other side needs to wake up and to
/// answer, so that it is still at work when the Sync is due. (Round trips of 0.6 us more than the least
/// with 30 to 60 us, of 1.0 us with 60 to 220 us, and of 2.2 us without a request, median, ptp4l on veth.)
const TARGET: Duration = Duration::from_micros(50);
/// How long before a Sync is due a request is sent: at first, and within which limits.
const FIRST_LEAD: Duration = Duration::from_micros(150);
const LEADS: [Duration; 2] = [Duration::from_micros(40), Duration::from_millis(1)];
/// What is farther from the Sync on either side was not aimed at it.
const MISSED: [Duration; 2] = [Duration::from_micros(300), Duration::from_millis(1)];
/// The lead is corrected by this part of its error.
const GAIN: i64 = 5;
/// The longest interval after which the next Sync is soon.
const SOON: Duration = Duration::from_millis(150);
/// Answers to others are counted over so long.
const CENSUS: Duration = Duration::from_secs(64);

/// The rhythm of one time transmitter on one port.
#[derive(Debug)]
pub(super) struct Rhythm {
    last: Option<Time<Mono>>,
    intervals: VecDeque<Duration>,
    /// Departure of the last Sync.
    left: Option<Time<Ptp>>,
    /// Arrival of an aimed request that no Sync was compared with yet.
    asked: Option<Time<Ptp>>,
    lead: Duration,
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

impl Default for Rhythm {
    fn default() -> Self {
        Self {
            last: None,
            intervals: VecDeque::new(),
            left: None,
            asked: None,
            lead: FIRST_LEAD,
            census: Census::default(),
        }
    }
}

impl Rhythm {
    /// A Sync that left at `t1` has arrived.
    pub(super) fn sync(&mut self, t1: Time<Ptp>, at: Time<Mono>) {
        if let Some(t4) = self.asked.take() {
            // The answer may have come before that Sync, or behind it.
            let leads = [self.left, Some(t1)].into_iter().flatten().map(|t1| t1 - t4);
            let aimed = leads.filter(|lead| -*lead <= MISSED[0] && *lead <= MISSED[1]);
            if let Some(lead) = aimed.min_by_key(|lead| lead.abs()) {
                self.lead += Duration::from_nanos((TARGET - lead).as_nanos() / GAIN);
                self.lead = self.lead.clamp(LEADS[0], LEADS[1]);
            }
        }
        self.left = Some(t1);
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

    /// An aimed request arrived at `t4`.
    pub(super) const fn aimed_arrived(&mut self, t4: Time<Ptp>) {
        self.asked = Some(t4);
    }

    /// With which probability a request of this port is to be aimed: all that follow aim one together.
    pub(super) fn share(&self) -> f64 {
        1.0 / self.census.clients.max(self.census.clients()).max(1.0)
    }

    /// The time shortly before a Sync that is nearest to `wanted` and still to come; `wanted` itself where
    /// no Sync can be predicted, or none within `reach`.
    pub(super) fn aim(&self, now: Time<Mono>, wanted: Time<Mono>, reach: Duration) -> Time<Mono> {
        let Some((last, interval)) = self.prediction() else { return wanted };
        let first = last + interval - self.lead;
        let steps = (wanted - first).as_nanos_f64() / interval.as_nanos_f64();
        let mut aimed =
            first + Duration::from_nanos_f64(interval.as_nanos_f64() * steps.round().max(0.0));
        if aimed <= now {
            aimed += interval;
        }
        if (aimed - wanted).abs() <= reach { aimed } else { wanted }
    }

    /// When the Sync after the last one is due to arrive, where they are so frequent that it is soon.
    pub(super) fn next(&self) -> Option<Time<Mono>> {
        let (last, interval) = self.prediction()?;
        (interval <= SOON).then_some(last + interval)
    }

    /// The last Sync, and the usual interval to the next.
    fn prediction(&self) -> Option<(Time<Mono>, Duration)> {
        let last = self.last?;
        let mut intervals: Vec<Duration> = self.intervals.iter().copied().collect();
        if intervals.len() < KNOWN {
            return None;
        }
        intervals.sort_unstable();
        let usual = intervals[intervals.len() / 2];
        // A rhythm that is faster than this is none, or nothing that one could be in time for.
        (usual > LEADS[1] * 2).then_some((last, usual))
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

    /// The time transmitter's clock shows the same.
    fn there(at: Time<Mono>) -> Time<Ptp> {
        Time::from_epoch(at.since_epoch())
    }

    fn after(syncs: i32) -> (Rhythm, Time<Mono>) {
        let mut rhythm = Rhythm::default();
        let mut at = Time::from_nanos(1_000_000_000);
        for _ in 0..syncs {
            at += INTERVAL;
            rhythm.sync(there(at), at);
        }
        (rhythm, at)
    }

    #[test]
    fn request_is_aimed_at_the_time_before_a_sync() {
        let (rhythm, last) = after(10);
        let wanted = last + INTERVAL * 3 + Duration::from_millis(20);
        let aimed = rhythm.aim(last, wanted, Duration::from_secs(1));
        assert_eq!(aimed, last + INTERVAL * 3 - FIRST_LEAD);
        // What has passed cannot be reached any more.
        let late = last + INTERVAL - Duration::from_micros(10);
        assert_eq!(
            rhythm.aim(late, late, Duration::from_secs(1)),
            last + INTERVAL * 2 - FIRST_LEAD
        );
    }

    #[test]
    fn next_sync_is_predicted_where_they_are_frequent() {
        let (rhythm, last) = after(10);
        assert_eq!(rhythm.next(), Some(last + INTERVAL));
        assert_eq!(after(3).0.next(), None);
        let mut slow = Rhythm::default();
        for n in 1..10 {
            let at = Time::from_nanos(n * 1_000_000_000);
            slow.sync(there(at), at);
        }
        assert_eq!(slow.next(), None);
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
                    rhythm.sync(there(next_sync), next_sync);
                    next_sync += INTERVAL;
                }
            }
            let actual = (now - start).as_secs_f64() / f64::from(sent);
            assert!(actual > mean.as_secs_f64() * 0.97, "2^{log_interval} s: {actual}");
        }
    }

    #[test]
    fn lead_is_corrected_by_what_became_of_it() {
        let (mut rhythm, mut at) = after(10);
        for _ in 0..60 {
            let aimed = rhythm.aim(at, at + INTERVAL, INTERVAL);
            // Timer, send path and the way take 90 us.
            rhythm.aimed_arrived(there(aimed + Duration::from_micros(90)));
            at += INTERVAL;
            rhythm.sync(there(at), at);
        }
        assert!((rhythm.lead - Duration::from_micros(140)).abs() < Duration::from_micros(5));
        // What has nothing to do with a Sync changes nothing.
        rhythm.aimed_arrived(there(at + Duration::from_millis(20)));
        let lead = rhythm.lead;
        rhythm.sync(there(at + INTERVAL), at + INTERVAL);
        assert_eq!(rhythm.lead, lead);
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
