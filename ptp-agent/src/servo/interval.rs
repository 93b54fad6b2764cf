//! How often Sync comes: what the time transmitter says, or else what is seen.

use super::SyncInput;
use ptp_common::time::{Duration, Mono, Time};

/// Shortest interval that is computed with, seconds.
const SHORTEST_S: f64 = 1.0 / 1024.0;

/// Longest interval that most servos compute with, seconds.
pub(super) const LONGEST_S: f64 = 1024.0;

/// The Sync interval.
#[derive(Clone, Copy, Debug)]
pub(super) struct SyncInterval {
    seconds: f64,
    longest_s: f64,
    last_sync: Option<Time<Mono>>,
}

impl SyncInterval {
    /// One second, until more is known; never more than `longest_s`.
    pub(super) const fn new(longest_s: f64) -> Self {
        Self { seconds: 1.0, longest_s, last_sync: None }
    }

    /// A Sync has come.
    pub(super) fn learn(&mut self, input: &SyncInput) {
        let measured = self.last_sync.map(|last| (input.t2.mono - last).as_secs_f64());
        self.last_sync = Some(input.t2.mono);
        let seconds = match (input.log_interval, measured) {
            (Some(log), _) => Duration::from_log_interval(log).as_secs_f64(),
            (None, Some(measured)) if measured > 0.0 => {
                self.seconds + (measured - self.seconds) / 8.0
            }
            _ => return,
        };
        self.seconds = seconds.clamp(SHORTEST_S, self.longest_s);
    }

    /// The interval, seconds.
    pub(super) const fn seconds(&self) -> f64 {
        self.seconds
    }

    /// When the last Sync came.
    pub(super) const fn last_sync(&self) -> Option<Time<Mono>> {
        self.last_sync
    }
}
