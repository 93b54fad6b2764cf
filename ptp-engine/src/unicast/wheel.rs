//! A timer wheel: to set a timer and to fire it costs the same however many there are, which a sorted tree does not
//! give for a million of them. Three wheels of 256 places turn one into the next. Nothing is cancelled here: whoever
//! sets timers knows which of them still mean anything.

use crate::prelude::*;
use ptp_common::time::{Duration, Mono, Time};

const PLACES: usize = 256;
const LEVELS: usize = 3;
/// Length of a step, ns: about a millisecond. A timer is late by less than that.
const STEP_NS: i64 = 1 << 20;

/// One timer.
#[derive(Clone, Copy, Debug)]
struct Entry<K> {
    /// In steps.
    due: u64,
    key: K,
}

/// See the module's paragraph.
#[derive(Debug)]
pub struct Wheel<K> {
    /// All before this step has been fired.
    now: u64,
    places: Vec<Vec<Entry<K>>>,
    len: usize,
}

/// In whole steps, no less.
fn step(at: Time<Mono>) -> u64 {
    let nanos = at.as_nanos().max(0);
    (nanos as u64).div_ceil(STEP_NS as u64)
}

impl<K: Copy> Wheel<K> {
    /// Without timers, at `now`.
    pub fn new(now: Time<Mono>) -> Self {
        let places = (0..PLACES * LEVELS).map(|_| Vec::new()).collect();
        Self { now: step(now), places, len: 0 }
    }

    /// How many there are.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// `key` is due at `at`, beside whatever else it is due at.
    pub fn set(&mut self, now: Time<Mono>, at: Time<Mono>, key: K) {
        if self.len == 0 {
            self.now = self.now.max(now.as_nanos().max(0) as u64 / STEP_NS as u64);
        }
        let due = step(at).max(self.now);
        self.put(Entry { due, key });
        self.len += 1;
    }

    fn put(&mut self, entry: Entry<K>) {
        let away = entry.due - self.now;
        let level = match away {
            0..0x100 => 0,
            0x100..0x1_0000 => 1,
            _ => 2,
        };
        // What is farther than the last wheel goes round it more than once.
        let steps = if level == 2 { entry.due.min(self.now + 0xff_0000) } else { entry.due };
        let place = (steps >> (8 * level)) as usize % PLACES;
        self.places[level * PLACES + place].push(entry);
    }

    /// One that is due at `now`; no order among those of one step.
    pub fn pop_due(&mut self, now: Time<Mono>) -> Option<K> {
        let until = now.as_nanos().max(0) as u64 / STEP_NS as u64;
        while self.len > 0 && self.now <= until {
            let place = self.now as usize % PLACES;
            if let Some(entry) = self.places[place].pop() {
                self.len -= 1;
                return Some(entry.key);
            }
            self.now += 1;
            self.turn();
        }
        if self.len == 0 {
            self.now = self.now.max(until);
        }
        None
    }

    /// At the beginning of a turn of one wheel, what is due in it comes down from the next.
    fn turn(&mut self) {
        for level in 1..LEVELS {
            if self.now & ((1 << (8 * level)) - 1) != 0 {
                return;
            }
            let place = (self.now >> (8 * level)) as usize % PLACES;
            for entry in core::mem::take(&mut self.places[level * PLACES + place]) {
                self.put(entry);
            }
        }
    }

    /// When [`Self::pop_due`] is to be called again: when the next one is due, or earlier.
    pub fn next(&self) -> Option<Time<Mono>> {
        if self.len == 0 {
            return None;
        }
        let rest = PLACES - self.now as usize % PLACES;
        let first = (0..rest as u64)
            .find(|away| !self.places[(self.now + away) as usize % PLACES].is_empty());
        let at = self.now + first.unwrap_or(rest as u64);
        Some(Time::ZERO + Duration::from_nanos((at * STEP_NS as u64) as i64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeMap;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// Against a plain list, with a caller that looks when it is told to.
        #[test]
        fn each_is_due_once_and_not_before_its_time(
            spans in prop::collection::vec(0i64..90_000_000_000, 1..40),
            far in 60_000_000_000i64..150_000_000_000,
        ) {
            let start = Time::from_nanos(77_000_000_000);
            let mut wheel = Wheel::new(start);
            let mut expected = BTreeMap::new();
            for (key, span) in spans.iter().copied().chain([far]).enumerate() {
                let at = start + Duration::from_nanos(span);
                wheel.set(start, at, key);
                expected.insert(key, at);
            }
            let mut looks = 0;
            while let Some(now) = wheel.next() {
                while let Some(key) = wheel.pop_due(now) {
                    let at = expected.remove(&key).unwrap();
                    prop_assert!(at <= now && now - at <= Duration::from_nanos(STEP_NS));
                }
                looks += 1;
                prop_assert!(looks < 400_000);
            }
            prop_assert!(expected.is_empty() && wheel.is_empty());
        }
    }

    #[test]
    fn who_looks_late_finds_all_that_was_due() {
        let start = Time::from_nanos(1_000_000_000);
        let mut wheel = Wheel::new(start);
        for millis in 0..10_000 {
            wheel.set(start, start + Duration::from_millis(millis), millis);
        }
        let mut found = 0;
        while wheel.pop_due(start + Duration::from_secs(20)).is_some() {
            found += 1;
        }
        assert_eq!((found, wheel.len()), (10_000, 0));
    }
}
