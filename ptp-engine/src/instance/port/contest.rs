//! Somebody else who speaks in the time transmitter's name and from its address, and is faster: of a number there
//! are then two Sync, which say different things. Nobody can know which is the true one. So from the first such pair
//! on every Sync waits until the next one is there, and one that was contradicted meanwhile is not used. Who
//! disturbs so can keep time from being told, which holdover and an alarm answer, but cannot tell another one.
//!
//! The same for what a sender never changes: whether its Sync has a Follow_Up.

use alloc::collections::VecDeque;

use ptp_common::time::{Duration, Mono, Ptp, Time};

use crate::outcome::SyncObservation;

/// Sync that are remembered: a forger may be so many numbers ahead.
const TAKEN: usize = 32;
/// For how long after the last contradiction Sync wait.
const ALERT: Duration = Duration::from_secs(32);
/// So many contradictions within that time are more than an accident.
const ACCIDENTS: u8 = 1;
/// Sync in a row of the other kind after which it is believed.
const CONFIRM: u8 = 3;

/// Whether a Follow_Up comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Steps {
    One,
    Two,
}

/// See the module's paragraph.
#[derive(Debug, Default)]
pub(super) struct Contest {
    /// Numbers that were used, and what they said.
    taken: VecDeque<(u16, Time<Ptp>)>,
    alert: Option<Time<Mono>>,
    accidents: u8,
    held: Option<SyncObservation>,
    steps: Option<Steps>,
    /// In a row of the other kind.
    others: u8,
}

impl Contest {
    /// Whether a Sync of this kind is to be believed.
    pub(super) fn is_usual(&mut self, steps: Steps) -> bool {
        let usual = *self.steps.get_or_insert(steps);
        if steps == usual {
            self.others = 0;
            return true;
        }
        self.others += 1;
        if self.others < CONFIRM {
            return false;
        }
        (self.steps, self.others) = (Some(steps), 0);
        true
    }

    /// The time of departure of a Sync is told. Whether it contradicts what was said of the same one before.
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
        if self.held.is_some_and(|held| held.sequence_id == sequence_id) {
            self.held = None;
        }
        true
    }

    fn is_alert(&self, now: Time<Mono>) -> bool {
        self.alert.is_some_and(|until| now < until)
    }

    /// A Sync is complete. What can be used now: another one that has waited, and this one, if it need not wait.
    pub(super) fn complete(
        &mut self,
        now: Time<Mono>,
        origin: Time<Ptp>,
        sync: SyncObservation,
    ) -> [Option<SyncObservation>; 2] {
        if self.taken.len() == TAKEN {
            self.taken.pop_front();
        }
        self.taken.push_back((sync.sequence_id, origin));
        let before = self.held.take();
        if self.is_alert(now) && self.accidents >= ACCIDENTS {
            self.held = Some(sync);
            return [before, None];
        }
        [before, Some(sync)]
    }

    /// Nothing that waits is of the present any more.
    pub(super) const fn forget(&mut self) {
        self.held = None;
    }
}
