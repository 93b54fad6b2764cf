//! Who is answered when more ask than can be answered. A flood must cost the flooder its answers and
//! nobody else, and identities cost nothing: so those who ask again and again have a budget each, and
//! those who are heard for the first time share what these leave. Half of what there is is shared by client, so that who
//! forges many addresses takes no more from those behind one than from others, and half by host, so that who invents
//! many clients at one address takes no more from others than one client would.
//!
//! Memory is bounded whatever comes: a table of known clients, where only one that has been silent for long makes
//! room, or one of the host that has most of them, and a small one of newcomers, where in a flood one in eight takes the place of another.

use crate::prelude::*;
use alloc::collections::BTreeMap;
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
/// So often, at the most, it is looked for which host has most clients, and of so many clients it is looked for one of its.
const LOOKED: Duration = Duration::from_secs(1);
const PROBED: usize = 64;
/// Part of a second's answers that are kept for those that have saved up theirs.
const RESERVE: f64 = 0.125;
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
    /// How many of them each host has.
    hosts: BTreeMap<u64, u32>,
    /// Which has most, and when that was found.
    largest: Option<(u64, Time<Mono>)>,
    /// Empty until somebody asks.
    newcomers: Vec<Option<Newcomer>>,
    key: u64,
    crowded: u64,
}

/// Somebody who has asked once.
#[derive(Clone, Copy, Debug)]
struct Newcomer {
    who: u64,
    host: u64,
    heard: Time<Mono>,
}

#[derive(Clone, Copy, Debug)]
struct Client {
    /// Answers that it may have now.
    saved: f64,
    asked: Time<Mono>,
    host: u64,
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
            hosts: BTreeMap::new(),
            largest: None,
            newcomers: Vec::new(),
            key,
            crowded: 0,
        }
    }

    /// Whether a client, told apart by `who`, is answered now; where it asks from is `host`.
    pub(super) fn admit(&mut self, now: Time<Mono>, host: &impl Hash, who: &impl Hash) -> bool {
        let passed = (now - self.refilled).as_secs_f64().max(0.0);
        self.refilled = self.refilled.max(now);
        self.saved = (self.saved + passed * self.rate).min(self.rate);
        while let Some((oldest, client)) = self.clients.peek_lru()
            && now - client.asked > FORGOTTEN
        {
            let oldest = *oldest;
            self.forget(oldest);
        }
        let (host, who) = (self.hash(host), self.hash(who));
        let is_plenty = self.saved >= self.rate / 2.0;
        let is_known = self.clients.contains(&who) || self.is_back(now, host, who);
        if !is_known {
            // While nobody is known there is nobody to keep anything for.
            let may = is_plenty || self.clients.is_empty();
            return may && self.spend();
        }
        if !self.clients.contains(&who) {
            *self.hosts.entry(host).or_default() += 1;
        }
        let of_host = f64::from(self.hosts.get(&host).copied().unwrap_or(1));
        let (clients, hosts) = (self.clients.len().max(1) as f64, self.hosts.len().max(1) as f64);
        let share = 0.5 * self.rate * (1.0 / clients + 1.0 / (hosts * of_host));
        let most = share.max(BURST);
        let client =
            self.clients.get_or_insert_mut(who, || Client { saved: most, asked: now, host });
        let waited = (now - client.asked).as_secs_f64().max(0.0);
        client.saved = (client.saved + waited * share).min(most);
        client.asked = now;
        // Bursts of many together must leave something for who takes less than its share.
        let reserve = RESERVE * self.rate * (1.0 - client.saved / most);
        if !is_plenty && (client.saved < 1.0 || self.saved < reserve) {
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
    fn is_back(&mut self, now: Time<Mono>, host: u64, who: u64) -> bool {
        if self.newcomers.is_empty() {
            self.newcomers = vec![None; NEWCOMERS];
        }
        let at = who as usize % NEWCOMERS;
        let new = Some(Newcomer { who, host, heard: now });
        let Some(there) = self.newcomers[at].filter(|there| now - there.heard <= FORGOTTEN) else {
            self.newcomers[at] = new;
            return false;
        };
        if there.who == who {
            if self.clients.len() == CLIENTS && !self.make_room(now, host) {
                return false;
            }
            self.newcomers[at] = None;
            return true;
        }
        let may_take = match (self.is_crowd(there.host), self.is_crowd(host)) {
            (true, false) => true,
            (false, true) => false,
            _ => {
                self.crowded = self.crowded.wrapping_add(1);
                self.hash(&self.crowded).is_multiple_of(ADMISSION)
            }
        };
        if may_take {
            self.newcomers[at] = new;
        }
        false
    }

    /// Whether a host has most of all clients there can be.
    fn is_crowd(&self, host: u64) -> bool {
        self.hosts.get(&host).is_some_and(|count| *count as usize > CLIENTS / 2)
    }

    /// The host that has most clients gives a place to one that has less than half as many: that of the one that asked last,
    /// for who asks more often is likelier to be it.
    fn make_room(&mut self, now: Time<Mono>, host: u64) -> bool {
        let largest = match self.largest {
            Some((largest, found)) if now - found < LOOKED => largest,
            _ => {
                let most = self.hosts.iter().max_by_key(|(_, count)| **count);
                let Some((largest, _)) = most else { return false };
                self.largest = Some((*largest, now));
                *largest
            }
        };
        let of = |host: &u64| self.hosts.get(host).copied().unwrap_or(0);
        if of(&largest) <= 2 * of(&host) + 1 {
            return false;
        }
        let mut latest = self.clients.iter().take(PROBED);
        let one = latest.find(|(_, client)| client.host == largest).map(|(who, _)| *who);
        one.is_some_and(|who| self.forget(who))
    }

    fn forget(&mut self, who: u64) -> bool {
        let Some(client) = self.clients.pop(&who) else { return false };
        if let Some(count) = self.hosts.get_mut(&client.host) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.hosts.remove(&client.host);
            }
        }
        true
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

    /// A flood of so many requests a second, of whom and from where by number, from second 10 to 40; three honest clients,
    /// each somewhere else, ask once, four and sixteen times a second from the start, and a fourth from second 20 on. The
    /// share of each one's requests in the flood that was answered; of the last one from second 30 on.
    fn honest(per_second: i64, flood: impl Fn(u64) -> (u64, u64)) -> [f64; 4] {
        honest_at(per_second, flood, |who| 1_000_000 + who as u64)
    }

    fn honest_at(
        per_second: i64,
        flood: impl Fn(u64) -> (u64, u64),
        home: impl Fn(usize) -> u64,
    ) -> [f64; 4] {
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
                    let is_answered = share.admit(at(now), &home(who), &("honest", who));
                    let counts = if who == 3 { 30 } else { 10 };
                    if tick >= counts * per_second {
                        asked[who] += 1;
                        answered[who] += u32::from(is_answered);
                    }
                }
            }
            if tick >= 10 * per_second {
                let (who, host) = flood(n);
                share.admit(at(now), &host, &("flood", who));
                n += 1;
            }
        }
        assert!(share.clients.len() <= CLIENTS && share.newcomers.len() <= NEWCOMERS);
        let of_hosts: u32 = share.hosts.values().sum();
        assert_eq!(of_hosts as usize, share.clients.len());
        core::array::from_fn(|who| f64::from(answered[who]) / f64::from(asked[who]))
    }

    #[test]
    fn honest_clients_get_their_answers_in_a_flood_of_a_million_identities() {
        for (rate, from_everywhere) in [(40_000, 0), (15_000, 1)] {
            let answered = honest(rate, |n| (n % 1_000_000, n % 1_000_000 * from_everywhere));
            assert!(answered[..3].iter().all(|share| *share >= 0.99), "{answered:?}");
            assert!(answered[3] >= 0.5, "{answered:?}");
        }
    }

    #[test]
    fn honest_clients_get_their_answers_in_a_flood_of_one_identity() {
        let answered = honest(100_000, |_| (1, 1));
        assert!(answered.iter().all(|share| *share >= 0.99), "{answered:?}");
    }

    #[test]
    fn honest_clients_get_their_answers_in_a_flood_of_hundreds_of_identities() {
        let answered = honest(40_000, |n| (n % 300, 0));
        assert!(answered.iter().all(|share| *share >= 0.99), "{answered:?}");
    }

    #[test]
    fn so_do_those_at_the_flooders_own_address() {
        let answered = honest_at(15_000, |n| (n % 300, 0), |_| 0);
        assert!(answered.iter().all(|share| *share >= 0.99), "{answered:?}");
    }

    #[test]
    fn honest_clients_get_their_answers_in_a_flood_of_more_clients_than_are_known_from_one_host() {
        for cycle in [4_000, 8_000] {
            let answered = honest(15_000, |n| (n % cycle, 0));
            assert!(answered.iter().all(|share| *share >= 0.99), "{cycle}: {answered:?}");
        }
    }

    #[test]
    fn honest_slow_clients_get_their_answers_in_a_flood_of_as_many_clients_as_are_known() {
        let answered = honest(40_000, |n| (n % 4_000, n % 4_000));
        assert!(answered[0] >= 0.99, "{answered:?}");
    }
}
