//! The recent past of the totals: what has been added within several message intervals.

use std::collections::VecDeque;

use ptp_common::{
    time::{Duration, Mono, Time},
    wire::ClockIdentity,
};

use super::{Facts, Totals};

/// The window is at least this long,
const SHORTEST: Duration = Duration::from_secs(5);
/// or as many intervals,
const INTERVALS: i32 = 8;
/// and at most this long.
const LONGEST: Duration = Duration::from_secs(600);
/// Looks that are remembered; closer ones than this allows are not.
const LOOKS: i128 = 64;

/// See the module's paragraph.
#[derive(Debug, Default)]
pub(super) struct Window {
    looks: VecDeque<(Time<Mono>, Totals)>,
    latest: Option<(Time<Mono>, Totals)>,
    length: Duration,
    place: Option<(Option<ClockIdentity>, usize)>,
}

impl Window {
    /// Adds a look. With another time transmitter, or after a link has changed, the past says nothing
    /// about the present any more.
    pub(super) fn add(&mut self, now: Time<Mono>, facts: &Facts) {
        let place = Some((facts.grandmaster, facts.ports_down));
        if self.place != place || self.latest.is_some_and(|(latest, _)| now < latest) {
            self.place = place;
            self.looks.clear();
        }
        let intervals = facts.interval.unwrap_or(Duration::ZERO) * INTERVALS;
        self.length = intervals.max(SHORTEST).min(LONGEST);
        self.latest = Some((now, facts.totals));
        let apart = Duration::from_scaled_nanos(self.length.as_scaled_nanos() / LOOKS);
        if self.looks.back().is_none_or(|(last, _)| now - *last >= apart) {
            self.looks.push_back((now, facts.totals));
        }
        // The first look is the last one that is at least a whole window old.
        while self.looks.get(1).is_some_and(|(second, _)| now - *second >= self.length) {
            self.looks.pop_front();
        }
    }

    /// What has been added; `None` while the past does not reach back far enough.
    pub(super) fn recent(&self) -> Option<Totals> {
        let (now, new) = self.latest?;
        let (then, old) = self.looks.front()?;
        if now - *then < self.length {
            return None;
        }
        Some(Totals {
            syncs: new.syncs.saturating_sub(old.syncs),
            follow_ups_missing: new.follow_ups_missing.saturating_sub(old.follow_ups_missing),
            delays: new.delays.saturating_sub(old.delays),
            delays_unanswered: new.delays_unanswered.saturating_sub(old.delays_unanswered),
            rx_stamps: new.rx_stamps.saturating_sub(old.rx_stamps),
            rx_stamps_missing: new.rx_stamps_missing.saturating_sub(old.rx_stamps_missing),
            tx_stamps: new.tx_stamps.saturating_sub(old.tx_stamps),
            tx_stamps_missing: new.tx_stamps_missing.saturating_sub(old.tx_stamps_missing),
            tx_interrupted: new.tx_interrupted.saturating_sub(old.tx_interrupted),
            fallbacks: new.fallbacks.saturating_sub(old.fallbacks),
            ring_lost: new.ring_lost.saturating_sub(old.ring_lost),
            clock_errors: new.clock_errors.saturating_sub(old.clock_errors),
            clock_steps: new.clock_steps.saturating_sub(old.clock_steps),
            contradictions: new.contradictions.saturating_sub(old.contradictions),
            replayed: new.replayed.saturating_sub(old.replayed),
            duplicate: new.duplicate.saturating_sub(old.duplicate),
            self_sent: new.self_sent.saturating_sub(old.self_sent),
            unmatched: new.unmatched.saturating_sub(old.unmatched),
            unconfirmed: new.unconfirmed.saturating_sub(old.unconfirmed),
            table_full: new.table_full.saturating_sub(old.table_full),
            implausible: new.implausible.saturating_sub(old.implausible),
            other_address: new.other_address.saturating_sub(old.other_address),
            other_sender: new.other_sender.saturating_sub(old.other_sender),
            unauthentic: new.unauthentic.saturating_sub(old.unauthentic),
            overflowed: new.overflowed.saturating_sub(old.overflowed),
            refused: new.refused.saturating_sub(old.refused),
            rx_orphaned: new.rx_orphaned.saturating_sub(old.rx_orphaned),
        })
    }

    #[cfg(test)]
    pub(super) fn looks(&self) -> usize {
        self.looks.len()
    }
}
