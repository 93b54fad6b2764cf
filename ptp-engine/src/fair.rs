//! Who is answered when more ask than can be answered. A flood must cost the flooder its answers and
//! nobody else, and identities cost nothing: so those who ask again and again have a budget each, and
//! those who are heard for the first time share what these leave.
//!
//! Memory is bounded whatever comes: a table of known clients, where only one that has been silent for long makes
//! room, and a small one of newcomers, where in a flood one in eight takes the place of another.

use crate::prelude::*;
use core::{
    hash::{Hash, Hasher},
    num::NonZeroUsize,
};
use lru::LruCache;
use ptp_common::time::{Duration, Mono, Time};
use siphasher::sip::SipHasher13;

/// Known clients.
pub(super) const CLIENTS: usize = 4096;
/// Newcomers that are remembered.
const NEWCOMERS: usize = 8192;
/// One in so many newcomers takes a place that is in use.
const ADMISSION: u64 = 8;
/// Silent for so long, a client is unknown again: twice the longest interval that the default profile has.
const FORGOTTEN: Duration = Duration::from_secs(64);
/// Requests that a known client may have at once, whatever its share: they are spread at random.
const BURST: f64 = 8.0;

/// See the module's paragraph.
#[derive(Debug)]
pub(super) struct FairShare {
    /// Answers per second in all, and as many may be saved up.
    rate: f64,
    /// Answers that may be given now.
    saved: f64,
    refilled: Time<Mono>,
    clients: LruCache<u64, Client>,
    /// Empty until somebody asks.
    newcomers: Vec<Option<(u64, Time<Mono>)>>,
    key: u64,
    crowded: u64,
}

#[derive(Clone, Copy, Debug)]
struct Client {
    /// Answers that it may have now.
    saved: f64,
    asked: Time<Mono>,
}

impl FairShare {
    /// As many answers per second; `key` so that nobody can aim at a place.
    pub(super) fn new(per_second: u32, key: u64, now: Time<Mono>) -> Self {
        const SIZE: NonZeroUsize = NonZeroUsize::new(CLIENTS).expect("not zero");
        Self {
            rate: f64::from(per_second),
            saved: f64::from(per_second),
            refilled: now,
            clients: LruCache::new(SIZE),
            newcomers: Vec::new(),
            key,
            crowded: 0,
        }
    }

    /// Whether a client, told apart by `who`, is answered now.
    pub(super) fn admit(&mut self, now: Time<Mono>, who: &impl Hash) -> bool {
        let passed = (now - self.refilled).as_secs_f64().max(0.0);
        self.refilled = self.refilled.max(now);
        self.saved = (self.saved + passed * self.rate).min(self.rate);
        while self.clients.peek_lru().is_some_and(|(_, client)| now - client.asked > FORGOTTEN) {
            self.clients.pop_lru();
        }
        let who = self.hash(who);
        let is_plenty = self.saved >= self.rate / 2.0;
        let is_known = self.clients.contains(&who) || self.is_back(now, who);
        if !is_known {
            // While nobody is known there is nobody to keep anything for.
            let may = is_plenty || self.clients.is_empty();
            return may && self.spend();
        }
        let share = self.rate / self.clients.len().max(1) as f64;
        let most = share.max(BURST);
        let client = self.clients.get_or_insert_mut(who, || Client { saved: most, asked: now });
        let waited = (now - client.asked).as_secs_f64().max(0.0);
        client.saved = (client.saved + waited * share).min(most);
        client.asked = now;
        if !is_plenty && client.saved < 1.0 {
            return false;
        }
        client.saved = (client.saved - 1.0).max(0.0);
        self.spend()
    }

    fn spend(&mut self) -> bool {
        if self.saved < 1.0 {
            return false;
        }
        self.saved -= 1.0;
        true
    }

    /// Whether somebody who is not known has asked before, and can be known from now on.
    fn is_back(&mut self, now: Time<Mono>, who: u64) -> bool {
        if self.newcomers.is_empty() {
            self.newcomers = vec![None; NEWCOMERS];
        }
        let at = who as usize % NEWCOMERS;
        match self.newcomers[at] {
            Some((known, heard)) if known == who && now - heard <= FORGOTTEN => {
                if self.clients.len() == CLIENTS {
                    return false;
                }
                self.newcomers[at] = None;
                return true;
            }
            Some((_, heard)) if now - heard <= FORGOTTEN => {
                self.crowded = self.crowded.wrapping_add(1);
                if !self.hash(&self.crowded).is_multiple_of(ADMISSION) {
                    return false;
                }
            }
            _ => {}
        }
        self.newcomers[at] = Some((who, now));
        false
    }

    fn hash(&self, value: &impl Hash) -> u64 {
        let mut hasher = SipHasher13::new();
        self.key.hash(&mut hasher);
        value.hash(&mut hasher);
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(nanos: i64) -> Time<Mono> {
        Time::from_nanos(nanos)
    }

    /// `flood` is asked by whom, `per_second` times, from second 10 to 40; three honest clients ask once,
    /// four and sixteen times a second from the start, and a fourth from second 20 on. The share of
    /// each one's requests in the flood that was answered; of the last one from second 30 on.
    fn honest(per_second: i64, flood: impl Fn(u64) -> u64) -> [f64; 4] {
        let mut share = FairShare::new(10_000, 7, at(0));
        let mut asked = [0_u32; 4];
        let mut answered = [0_u32; 4];
        let mut n = 0_u64;
        let step = 1_000_000_000 / per_second;
        for tick in 0..40 * per_second {
            let now = tick * step;
            for (who, every) in
                [per_second, per_second / 4, per_second / 16, per_second].iter().enumerate()
            {
                let begins = if who == 3 { 20 * per_second } else { 0 };
                if tick >= begins && tick % every == every / 2 {
                    let is_answered = share.admit(at(now), &("honest", who));
                    let counts = if who == 3 { 30 } else { 10 };
                    if tick >= counts * per_second {
                        asked[who] += 1;
                        answered[who] += u32::from(is_answered);
                    }
                }
            }
            if tick >= 10 * per_second {
                share.admit(at(now), &("flood", flood(n)));
                n += 1;
            }
        }
        assert!(share.clients.len() <= CLIENTS && share.newcomers.len() <= NEWCOMERS);
        core::array::from_fn(|who| f64::from(answered[who]) / f64::from(asked[who]))
    }

    #[test]
    fn honest_clients_get_their_answers_in_a_flood_of_a_million_identities() {
        let answered = honest(40_000, |n| n % 1_000_000);
        assert!(answered[..3].iter().all(|share| *share >= 0.99), "{answered:?}");
        assert!(answered[3] >= 0.5, "{answered:?}");
    }

    #[test]
    fn honest_clients_get_their_answers_in_a_flood_of_one_identity() {
        let answered = honest(100_000, |_| 1);
        assert!(answered.iter().all(|share| *share >= 0.99), "{answered:?}");
    }

    #[test]
    fn honest_clients_get_their_answers_in_a_flood_of_hundreds_of_identities() {
        let answered = honest(40_000, |n| n % 300);
        assert!(answered.iter().all(|share| *share >= 0.99), "{answered:?}");
    }

    #[test]
    fn honest_slow_clients_get_their_answers_in_a_flood_of_as_many_clients_as_are_known() {
        let answered = honest(40_000, |n| n % 4_000);
        assert!(answered[0] >= 0.99, "{answered:?}");
    }
}
