//! Somebody else who speaks in the time transmitter's name and from its address, and is faster: of a number there
//! are then two Sync, which say different things. Nobody can know which is the true one. So from the first such pair
//! on every Sync waits until the next one is there, and one that was contradicted meanwhile is not used. Who
//! disturbs so can keep time from being told, which holdover and an alarm answer, but cannot tell another one.
//! The same for two answers to one request.
//!
//! And what a sender never changes is held fast: whether its Sync has a Follow_Up.

use alloc::collections::VecDeque;

use ptp_common::time::{Duration, Mono, Ptp, Time};

use crate::outcome::{DelayObservation, SyncObservation};

/// Sync that are remembered: a forger may be so many numbers ahead.
const TAKEN: usize = 32;
/// For how long after the last contradiction Sync wait.
const ALERT: Duration = Duration::from_secs(32);
/// So many contradictions within that time are more than an accident.
const ACCIDENTS: u8 = 1;
/// Sync in a row of the other kind, and time without one of the usual kind, after which it is believed. Who restarts
/// with other settings is silent first, and followed afresh.
const CONFIRM: u8 = 8;
const CONFIRM_SILENCE: Duration = Duration::from_secs(10);

/// Whether a Follow_Up comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Steps {
    One,
    Two,
}

/// What has a number.
pub(super) trait Numbered: Copy {
    fn sequence_id(&self) -> u16;
}

impl Numbered for SyncObservation {
    fn sequence_id(&self) -> u16 {
        self.sequence_id
    }
}

impl Numbered for DelayObservation {
    fn sequence_id(&self) -> u16 {
        self.sequence_id
    }
}

/// Whether the Sync of a sender have a Follow_Up. See the module's paragraph.
#[derive(Debug, Default)]
pub(super) struct Habit {
    steps: Option<Steps>,
    /// When the last of the usual kind came.
    usual: Option<Time<Mono>>,
    /// In a row of the other kind.
    others: u8,
}

/// See the module's paragraph.
#[derive(Debug)]
pub(super) struct Contest<T> {
    /// Numbers that something was said of, and what.
    taken: VecDeque<(u16, Time<Ptp>)>,
    alert: Option<Time<Mono>>,
    accidents: u8,
    held: Option<T>,
}

impl<T> Default for Contest<T> {
    fn default() -> Self {
        Self { taken: VecDeque::new(), alert: None, accidents: 0, held: None }
    }
}

impl Habit {
    /// Whether a Sync of this kind is to be believed.
    pub(super) fn is_usual(&mut self, now: Time<Mono>, steps: Steps) -> bool {
        let usual = *self.steps.get_or_insert(steps);
        if steps == usual {
            (self.usual, self.others) = (Some(now), 0);
            return true;
        }
        self.others = self.others.saturating_add(1);
        let is_silent = self.usual.is_none_or(|last| now - last >= CONFIRM_SILENCE);
        if self.others < CONFIRM || !is_silent {
            return false;
        }
        (self.steps, self.usual, self.others) = (Some(steps), Some(now), 0);
        true
    }
}

impl<T: Numbered> Contest<T> {
    /// The time of a message is told. Whether it contradicts what was said of the same one before.
    pub(super) fn is_contradiction(
        &mut self,
        now: Time<Mono>,
        sequence_id: u16,
        origin: Time<Ptp>,
    ) -> bool {
        let other = self.taken.iter().find(|(taken, _)| *taken == sequence_id);
        if other.is_none_or(|(_, said)| *said == origin) {
            return false;
        }
        self.accidents = if self.is_alert(now) { self.accidents.saturating_add(1) } else { 0 };
        self.alert = Some(now + ALERT);
        if self.held.is_some_and(|held| held.sequence_id() == sequence_id) {
            self.held = None;
        }
        true
    }

    fn is_alert(&self, now: Time<Mono>) -> bool {
        self.alert.is_some_and(|until| now < until)
    }

    /// What was said of a number first, to be compared with what may yet be said of it.
    pub(super) fn note(&mut self, sequence_id: u16, origin: Time<Ptp>) {
        if self.taken.len() == TAKEN {
            self.taken.pop_front();
        }
        self.taken.push_back((sequence_id, origin));
    }

    /// Half of an exchange is complete. What can be used now: another one that has waited, and this one, if it need
    /// not wait.
    pub(super) fn complete(&mut self, now: Time<Mono>, new: T) -> [Option<T>; 2] {
        let before = self.held.take();
        if self.is_alert(now) && self.accidents >= ACCIDENTS {
            self.held = Some(new);
            return [before, None];
        }
        [before, Some(new)]
    }

    /// Nothing that waits is of the present any more.
    pub(super) const fn forget(&mut self) {
        self.held = None;
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;
    use crate::stamp::{Stamp, StampSource};

    fn at(millis: i64) -> Time<Mono> {
        Time::from_nanos(millis * 1_000_000)
    }

    fn said(seconds: i64) -> Time<Ptp> {
        Time::from_nanos(seconds * 1_000_000_000)
    }

    fn sync(sequence_id: u16) -> SyncObservation {
        SyncObservation {
            t1: said(0),
            t2: Stamp::new(at(0), StampSource::Simulated),
            sequence_id,
            log_interval: None,
            two_step: true,
            correction: Duration::ZERO,
        }
    }

    /// A Sync whose time is told is complete.
    fn complete(
        contest: &mut Contest<SyncObservation>,
        now: Time<Mono>,
        origin: Time<Ptp>,
        sync: SyncObservation,
    ) -> [Option<SyncObservation>; 2] {
        contest.note(sync.sequence_id, origin);
        contest.complete(now, sync)
    }

    fn numbers(done: [Option<SyncObservation>; 2]) -> Vec<u16> {
        done.into_iter().flatten().map(|sync| sync.sequence_id).collect()
    }

    #[test]
    fn of_two_that_contradict_each_other_neither_is_used_once_somebody_forges() {
        let mut contest = Contest::default();
        assert_eq!(numbers(complete(&mut contest, at(0), said(0), sync(0))), [0]);
        // The first pair shows that there is somebody, the second that it was no accident.
        assert!(contest.is_contradiction(at(10), 0, said(1)));
        assert_eq!(numbers(complete(&mut contest, at(100), said(2), sync(1))), [1]);
        assert!(contest.is_contradiction(at(110), 1, said(1)));
        for n in 2..20_u16 {
            let now = 100 * i64::from(n);
            assert_eq!(numbers(complete(&mut contest, at(now), said(9), sync(n))), [0_u16; 0]);
            assert!(contest.is_contradiction(at(now + 10), n, said(1)));
        }
        // He is gone: each is used when the next one is there, and soon at once.
        assert_eq!(numbers(complete(&mut contest, at(2_000), said(2), sync(20))), [0_u16; 0]);
        assert_eq!(numbers(complete(&mut contest, at(2_100), said(2), sync(21))), [20]);
        assert_eq!(numbers(complete(&mut contest, at(40_000), said(40), sync(22))), [21, 22]);
        assert_eq!(numbers(complete(&mut contest, at(40_100), said(40), sync(23))), [23]);
    }

    #[test]
    fn copy_of_a_sync_contradicts_nothing() {
        let mut contest = Contest::default();
        for n in 0..100_u16 {
            let now = at(100 * i64::from(n));
            assert_eq!(numbers(complete(&mut contest, now, said(i64::from(n)), sync(n))), [n]);
            assert!(!contest.is_contradiction(now, n, said(i64::from(n))));
            assert!(!contest.is_contradiction(now, n.wrapping_sub(1), said(i64::from(n) - 1)));
        }
        assert!(contest.taken.len() <= TAKEN);
    }

    #[test]
    fn sync_without_a_follow_up_is_not_believed_of_who_always_sends_one() {
        let mut habit = Habit::default();
        for n in 0..100 {
            assert!(habit.is_usual(at(125 * n), Steps::Two));
            assert!(!habit.is_usual(at(125 * n + 1), Steps::One));
        }
        // But who has changed for good is followed.
        let believed = (100..400).find(|n| habit.is_usual(at(125 * n), Steps::One));
        assert_eq!(believed, Some(179));
        assert!(!habit.is_usual(at(60_000), Steps::Two));
    }
}
