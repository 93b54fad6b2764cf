//! The latest observations, and what was believed before some of them: to judge them again under
//! another hypothesis.

use alloc::collections::VecDeque;

use super::{bank::Bank, filter::Observation};

/// Observations that are kept.
const KEPT: usize = 256;
/// One belief is kept for so many observations.
const EVERY: u64 = 16;

/// What was seen lately. Observations are numbered from zero.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    observations: VecDeque<Observation>,
    /// Number of the next observation.
    next: u64,
    /// Beliefs, each with the number of the observation that came after it; ascending.
    beliefs: VecDeque<(u64, Bank)>,
}

impl History {
    /// `bank` is as it was before `observation`. Returns its number.
    pub(super) fn push(&mut self, observation: Observation, bank: &Bank) -> u64 {
        let number = self.next;
        if number.is_multiple_of(EVERY) || self.beliefs.is_empty() {
            self.beliefs.push_back((number, *bank));
        }
        self.observations.push_back(observation);
        self.next += 1;
        if self.observations.len() > KEPT {
            self.observations.pop_front();
        }
        let first = self.first();
        // A belief is of use only with all that came after it.
        while self.beliefs.front().is_some_and(|(at, _)| *at < first) {
            self.beliefs.pop_front();
        }
        number
    }

    /// An observation of which only it itself is of interest.
    pub(super) fn extend(&mut self, observation: Observation) {
        self.observations.push_back(observation);
        self.next += 1;
    }

    /// Whether there is still a belief from before observation `number` that all that came after is kept of.
    pub(super) fn reaches(&self, number: u64) -> bool {
        self.observations.len() <= 2 * KEPT && self.oldest().is_some_and(|(at, _)| *at <= number)
    }

    /// Number of the next observation.
    pub(super) const fn next(&self) -> u64 {
        self.next
    }

    /// Number of the oldest observation.
    fn first(&self) -> u64 {
        self.next - self.observations.len() as u64
    }

    /// The oldest belief, with the number of the observation that came after it.
    pub(super) fn oldest(&self) -> Option<&(u64, Bank)> {
        self.beliefs.front()
    }

    /// The latest belief from before observation `number`, or else the oldest, with the number of the
    /// observation that came after it.
    pub(super) fn before(&self, number: u64) -> Option<&(u64, Bank)> {
        let earlier = self.beliefs.iter().rev().find(|(at, _)| *at <= number);
        earlier.or(self.beliefs.front())
    }

    /// The observations from `number` on.
    pub(super) fn since(&self, number: u64) -> impl Iterator<Item = &Observation> {
        let skip = number.saturating_sub(self.first());
        self.observations.iter().skip(usize::try_from(skip).unwrap_or(usize::MAX))
    }

    /// What was believed is believed no more: only what is from `number` on is kept, without beliefs.
    pub(super) fn forget_before(&mut self, number: u64) {
        while self.first() < number && self.observations.pop_front().is_some() {}
        self.beliefs.clear();
    }

    /// Puts a belief beside the observation that came after it.
    pub(super) fn believe(&mut self, number: u64, bank: &Bank) {
        if number.is_multiple_of(EVERY) || self.beliefs.is_empty() {
            self.beliefs.push_back((number, *bank));
        }
    }
}
