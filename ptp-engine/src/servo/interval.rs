//! How often Sync comes: what the time transmitter says, or else what is seen.

use super::SyncInput;
use ptp_common::time::{Duration, Free, Time};

/// Shortest interval that is computed with, seconds.
const SHORTEST_S: f64 = 1.0 / 1024.0;

/// Longest interval that most servos compute with, seconds.
pub(super) const LONGEST_S: f64 = 1024.0;

/// Gaps that are averaged over, and the longest that is one, seconds and intervals: beyond, it is an outage.
const GAPS: f64 = 16.0;
const LONGEST_GAP_S: f64 = 64.0;
const LONGEST_GAP: f64 = 16.0;

/// The Sync interval.
#[derive(Clone, Copy, Debug)]
pub(super) struct SyncInterval {
    seconds: f64,
    /// Means of the time between two of them that came, and of its square, seconds.
    gap_s: f64,
    gap_square_s2: f64,
    longest_s: f64,
    last_sync: Option<Time<Free>>,
    /// The latest gap, seconds.
    last_gap_s: f64,
}

impl SyncInterval {
    /// One second, until more is known; never more than `longest_s`.
    pub(super) const fn new(longest_s: f64) -> Self {
        Self {
            seconds: 1.0,
            gap_s: 0.0,
            gap_square_s2: 0.0,
            longest_s,
            last_sync: None,
            last_gap_s: 0.0,
        }
    }

    /// A Sync has come.
    pub(super) fn learn(&mut self, input: &SyncInput) {
        let measured = self.last_sync.map(|last| (input.t2.mono - last).as_secs_f64());
        self.last_sync = Some(input.t2.mono);
        let longest_s = LONGEST_GAP_S.min(LONGEST_GAP * self.seconds);
        if let Some(gap_s) = measured.filter(|gap_s| (0.0..longest_s).contains(gap_s)) {
            let gain = if self.gap_s > 0.0 { 1.0 / GAPS } else { 1.0 };
            self.gap_s += gain * (gap_s - self.gap_s);
            self.gap_square_s2 += gain * (gap_s * gap_s - self.gap_square_s2);
        }
        let seconds = match (input.log_interval, measured) {
            (Some(log), _) => Duration::from_log_interval(log).as_secs_f64(),
            (None, Some(measured)) if measured > 0.0 => {
                self.seconds + (measured - self.seconds) / 8.0
            }
            _ => return,
        };
        // What is claimed is believed within limits; two gaps one after the other that are longer need not be
        // believed, they were waited for. To correct faster than Sync comes would make the clock swing.
        let slow_s = measured.map_or(0.0, |gap_s| gap_s.min(self.last_gap_s));
        self.last_gap_s = measured.unwrap_or(0.0);
        let seconds = if slow_s > LONGEST_GAP_S { seconds.max(slow_s) } else { seconds };
        self.seconds = seconds.clamp(SHORTEST_S, self.longest_s);
    }

    /// The interval, seconds.
    pub(super) const fn seconds(&self) -> f64 {
        self.seconds
    }

    /// The time in which an error is to be removed, so that what is left of it at the next Sync is least in
    /// the mean square: the interval, and more where Sync messages are lost, since a correction goes on until
    /// the next one.
    pub(super) fn correction_s(&self) -> f64 {
        let best = if self.gap_s > 0.0 { self.gap_square_s2 / self.gap_s } else { 0.0 };
        best.clamp(self.seconds, LONGEST_GAP_S.max(self.seconds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{servo::LocalTime, stamp::StampSource};

    fn sync(at_s: i64, log_interval: i8) -> SyncInput {
        let mono = Time::from_nanos(at_s * 1_000_000_000);
        let t1 = Time::from_nanos(mono.as_nanos());
        let source = StampSource::Simulated;
        let t2 = LocalTime { mono, clock: t1, source, doubt: Duration::ZERO, told_within: None };
        let correction = Duration::ZERO;
        SyncInput { t1, t2, sequence_id: 0, log_interval: Some(log_interval), correction }
    }

    #[test]
    fn a_rhythm_slower_than_any_claim_is_known_by_two_gaps_and_an_outage_is_none() {
        let mut interval = SyncInterval::new(LONGEST_S);
        for second in [0, 1_000, 2_000, 3_000] {
            interval.learn(&sync(second, 5));
        }
        assert_eq!(interval.correction_s(), 1_000.0);
        let mut interval = SyncInterval::new(LONGEST_S);
        for second in [0, 1, 2, 3_000, 3_001] {
            interval.learn(&sync(second, 0));
            assert_eq!(interval.seconds(), 1.0);
        }
    }
}
