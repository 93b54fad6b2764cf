//! Timers by name: what is due next costs nothing to know, and setting or cancelling one O(log n), however many
//! partners a node has.

use alloc::collections::{BTreeMap, BTreeSet};

use ptp_common::time::{Mono, Time};

/// At most one instant for each name.
#[derive(Clone, Debug)]
pub struct Timers<K> {
    due: BTreeSet<(Time<Mono>, K)>,
    set: BTreeMap<K, Time<Mono>>,
}

impl<K: Ord + Copy> Default for Timers<K> {
    fn default() -> Self {
        Self { due: BTreeSet::new(), set: BTreeMap::new() }
    }
}

impl<K: Ord + Copy> Timers<K> {
    /// `key` is due at `at` from now on, whatever it was before.
    pub fn set(&mut self, key: K, at: Time<Mono>) {
        if let Some(before) = self.set.insert(key, at) {
            if before == at {
                return;
            }
            self.due.remove(&(before, key));
        }
        self.due.insert((at, key));
    }

    /// `key` is due no more.
    pub fn cancel(&mut self, key: K) {
        if let Some(at) = self.set.remove(&key) {
            self.due.remove(&(at, key));
        }
    }

    /// Sets or cancels.
    pub fn put(&mut self, key: K, at: Option<Time<Mono>>) {
        match at {
            Some(at) => self.set(key, at),
            None => self.cancel(key),
        }
    }

    /// When `key` is due.
    pub fn at(&self, key: K) -> Option<Time<Mono>> {
        self.set.get(&key).copied()
    }

    /// When the next one is due.
    pub fn next(&self) -> Option<Time<Mono>> {
        self.due.first().map(|(at, _)| *at)
    }

    /// One that is due at `now`, the earliest first, with when it was due, and forgets it.
    pub fn pop_due(&mut self, now: Time<Mono>) -> Option<(K, Time<Mono>)> {
        let (at, key) = *self.due.first()?;
        if at > now {
            return None;
        }
        self.cancel(key);
        Some((key, at))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.set.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prelude::*;
    use proptest::prelude::*;

    fn at(nanos: i64) -> Time<Mono> {
        Time::from_nanos(nanos)
    }

    proptest! {
        /// Against a plain list.
        #[test]
        fn the_earliest_is_next_and_each_name_is_due_once(
            steps in prop::collection::vec((0u8..8, prop::option::of(0i64..50), 0i64..50), 1..200),
        ) {
            let mut timers = Timers::default();
            let mut model: BTreeMap<u8, i64> = BTreeMap::new();
            for (key, set, now) in steps {
                timers.put(key, set.map(at));
                match set {
                    Some(due) => drop(model.insert(key, due)),
                    None => drop(model.remove(&key)),
                }
                prop_assert_eq!(timers.next(), model.values().min().map(|due| at(*due)));
                prop_assert_eq!(timers.len(), timers.due.len());
                if set.is_some_and(|due| due % 3 == 0) {
                    let popped = core::iter::from_fn(|| timers.pop_due(at(now)));
                    let mut popped: Vec<u8> = popped.map(|(key, _)| key).collect();
                    popped.sort_unstable();
                    let due: Vec<u8> =
                        model.iter().filter(|(_, due)| **due <= now).map(|(key, _)| *key).collect();
                    prop_assert_eq!(popped, due);
                    model.retain(|_, due| *due > now);
                }
            }
        }
    }
}
