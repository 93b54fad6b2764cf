//! Who sends more than can be taken: event messages counted by sender, in short turns, and what the kernel has
//! dropped meanwhile. When more come than a server answers, or than this host takes, those that send most of them are
//! held back by the kernel (one in so many of theirs passes), so that the queue of the socket has room for
//! others. Who has asked before from the same address under another identity still passes: an address may be
//! shared, or be used by somebody who wants its owner held back. A flood of senders that each send little is
//! nobody's: then everybody is held back who has not asked before.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    net::SocketAddr,
};

use ptp_common::time::{Duration, Mono, Time};

use crate::{
    engine::address::Address,
    transport::{HEAVY_SENDERS, Identity, REGULARS, regulars_of_each},
};

/// A turn; with so many messages it is over sooner, for a queue has no room for a flood of a tenth of a second.
const TURN: Duration = Duration::from_millis(100);
const MANY: u32 = 1_500;
/// But no sooner than this: what has waited while this program had no processor comes all at once.
const SHORTEST: Duration = Duration::from_millis(5);
/// More messages per second than this are a crowd, even where none is dropped; a server answers fewer.
const CROWD: f64 = 12_000.0;
/// What is left of each who is held back, messages per second, about.
const LEFT: f64 = 500.0;
/// How long somebody who was heavy is held back after he has ceased to be.
const HELD: Duration = Duration::from_secs(2);
/// Senders that are counted in a turn.
const SENDERS: usize = 4096;

/// Identities that were heard once, and how long one must have been known to be a regular: a flood that cycles
/// through some is not so old when it is found to be one.
const NEWCOMERS: usize = 4096;
const KNOWN: Duration = Duration::from_secs(1);
/// Regulars of all addresses, and for how long one is remembered who is silent.
const ALL_REGULARS: usize = 1024;
const REMEMBERED: Duration = Duration::from_secs(64);
/// Regulars of the address that has most that go at once where the table is full.
const PLACES: usize = 64;
/// A regular that sends more than this is a part of the flood, messages per second: twice what a client may be asked for.
const PLAUSIBLE: f64 = 256.0;
/// For so long they are counted, seconds.
const COUNTED_S: f64 = 1.0;
/// So many may have waited and come at once, of a regular and of all of them.
const AT_ONCE: f64 = 64.0;
/// The regulars of who is held back send no more than this together, or the fastest are the flood, messages per second; ...
const TOO_MANY: f64 = 4.0 * LEFT;
/// ... and those of all, where everybody is.
const TOO_MANY_OF_ALL: f64 = CROWD / 2.0;

/// Fewer in a turn are no crowd, whatever was dropped before.
const FEW: u32 = 64;

/// Who is held back, and how much.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct HeldBack {
    pub(super) senders: Vec<Address>,
    /// One in `1 << keep` of their messages passes.
    pub(super) keep: u32,
    /// But all of these identities, at those addresses.
    pub(super) regulars: Vec<(Address, Identity)>,
    /// All others are held back, whoever they are.
    pub(super) is_everybody: bool,
}

/// An identity at an address that has been heard before.
#[derive(Clone, Copy, Debug)]
struct Regular {
    since: Time<Mono>,
    heard: Time<Mono>,
}

/// Who has been heard before. In a flood nobody new gets in: of who is held back nobody is counted here.
#[derive(Debug, Default)]
struct Regulars {
    known: HashMap<(Address, Identity), Regular>,
    /// Empty until somebody is heard.
    newcomers: Vec<Option<(u64, Time<Mono>)>>,
    key: RandomState,
    /// When room was made last.
    looked: Option<Time<Mono>>,
}

impl Regulars {
    fn hear(&mut self, now: Time<Mono>, who: (Address, Identity)) {
        if let Some(known) = self.known.get_mut(&who) {
            known.heard = now;
            return;
        }
        if self.newcomers.is_empty() {
            self.newcomers = vec![None; NEWCOMERS];
        }
        let hash = self.key.hash_one(who);
        let place = &mut self.newcomers[hash as usize % NEWCOMERS];
        match *place {
            Some((known, since)) if known == hash && now - since <= REMEMBERED => {
                *place = None;
                self.make_room(now);
                if self.known.len() < ALL_REGULARS {
                    self.known.insert(who, Regular { since, heard: now });
                }
            }
            _ => *place = Some((hash, now)),
        }
    }

    /// Where the table is full, the address that has most of it gives the places of its latest: whoever invents identities
    /// takes none of others, nor of those who were there before. Some at once and not too often, for that takes time.
    fn make_room(&mut self, now: Time<Mono>) {
        if self.known.len() < ALL_REGULARS || self.looked.is_some_and(|looked| now - looked < TURN)
        {
            return;
        }
        self.looked = Some(now);
        self.known.retain(|_, regular| now - regular.heard <= REMEMBERED);
        if self.known.len() < ALL_REGULARS {
            return;
        }
        let mut counts: HashMap<Address, u32> = HashMap::new();
        for (at, _) in self.known.keys() {
            *counts.entry(*at).or_default() += 1;
        }
        let most = counts.into_iter().max_by_key(|(at, count)| (*count, *at));
        let Some((most, _)) = most.filter(|(_, count)| *count > 1) else { return };
        let of_most = self.known.iter().filter(|((at, _), _)| *at == most);
        let mut of_most: Vec<_> = of_most.map(|(who, it)| (it.since, *who)).collect();
        of_most.sort_unstable_by(|one, other| other.cmp(one));
        for (_, latest) in of_most.iter().take(PLACES.min(of_most.len() / 2)) {
            self.known.remove(latest);
        }
    }

    /// Those at an address, or at all; where there are more than `most`, who has been there for longest: identities that
    /// are invented are new.
    fn of(
        &self,
        now: Time<Mono>,
        address: Option<Address>,
        most: usize,
    ) -> Vec<(Address, Identity)> {
        let here = self.known.iter().filter(|((at, _), regular)| {
            address.is_none_or(|address| *at == address)
                && now - regular.since >= KNOWN
                && now - regular.heard <= REMEMBERED
        });
        self.oldest(here.map(|(who, _)| *who).collect(), most)
    }

    fn oldest(&self, mut those: Vec<(Address, Identity)>, most: usize) -> Vec<(Address, Identity)> {
        those.retain(|who| self.known.contains_key(who));
        those.sort_unstable_by_key(|who| (self.known[who].since, *who));
        those.truncate(most);
        those.sort_unstable();
        those
    }

    /// Forgets a clock, at an address or wherever it is.
    fn forget(&mut self, clock: &Clock) {
        let (address, identity) = clock;
        self.known.retain(|(at, who), _| {
            address.is_some_and(|address| *at != address) || clock_of(*who) != *identity
        });
    }
}

/// A clock as the kernel tells regulars apart: all ports of a clock identity, where one sender is held back at his address.
type Clock = (Option<Address>, [u8; 8]);

fn clock_of(identity: Identity) -> [u8; 8] {
    let [clock @ .., _, _] = identity;
    clock
}

/// See the module's paragraph.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    begun: Option<Time<Mono>>,
    counts: HashMap<Address, u32>,
    total: u32,
    dropped: u64,
    held: HeldBack,
    since: HashMap<Address, Time<Mono>>,
    /// When everybody was last too many.
    all_since: Option<Time<Mono>>,
    regulars: Regulars,
    /// Messages since then of those who pass though others are held back.
    passed: HashMap<Clock, u32>,
    passed_since: Option<Time<Mono>>,
    /// Of those who are held back, messages that had been in the queue before they were.
    waiting: u32,
}

impl Crowd {
    /// Whether a message is one that the kernel would have held back, had it come later: what is in the queue when somebody
    /// begins to be held back is the more of his the slower this host is.
    pub(super) fn is_excess(&mut self, from: Option<Address>, identity: Option<Identity>) -> bool {
        let (Some(from), Some(identity)) = (from.map(without_port), identity) else { return false };
        let in_this_turn = self.counts.get(&from).copied().unwrap_or(0);
        // What the kernel has let pass since is few enough.
        if in_this_turn <= AT_ONCE as u32
            || !self.held.senders.contains(&from)
            || self.passed.contains_key(&(Some(from), clock_of(identity)))
        {
            return false;
        }
        self.waiting = self.waiting.wrapping_add(1);
        !self.waiting.is_multiple_of(1 << self.held.keep.min(10))
    }

    /// Counts a message of an identity. `dropped` is asked at the end of a turn for the total of messages that the
    /// kernel has dropped. Then: whom to hold back from now on, if that has changed.
    pub(super) fn count(
        &mut self,
        now: Time<Mono>,
        from: Option<Address>,
        identity: Option<Identity>,
        dropped: impl FnOnce() -> u64,
    ) -> Option<&HeldBack> {
        let begun = *self.begun.get_or_insert(now);
        self.total = self.total.saturating_add(1);
        // Ports are the senders' own.
        let from = from.map(without_port);
        if let (Some(from), Some(identity)) = (from, identity) {
            if !self.held.senders.contains(&from) {
                self.regulars.hear(now, (from, identity));
            }
            let at = (!self.held.is_everybody).then_some(from);
            if let Some(count) = self.passed.get_mut(&(at, clock_of(identity))) {
                *count = count.saturating_add(1);
            }
        }
        if let Some(from) = from
            && (self.counts.len() < SENDERS || self.counts.contains_key(&from))
        {
            *self.counts.entry(from).or_default() += 1;
        }
        let passed = now - begun;
        if passed < TURN && (self.total < MANY || passed < SHORTEST) {
            return None;
        }
        if self.total < FEW && self.held == HeldBack::default() {
            // No queue overflows by so few, so the kernel need not be asked.
            self.begun = Some(now);
            self.counts.clear();
            self.total = 0;
            return None;
        }
        self.judge(now, passed.as_secs_f64(), dropped())
    }

    fn judge(&mut self, now: Time<Mono>, seconds: f64, dropped: u64) -> Option<&HeldBack> {
        let lost = dropped.saturating_sub(self.dropped) as f64;
        self.dropped = dropped;
        let all = (f64::from(self.total) + lost) / seconds;
        let is_held = |who: &Address| self.held.is_everybody || self.held.senders.contains(who);
        let of_held: u32 =
            self.counts.iter().filter(|(who, _)| is_held(who)).map(|(_, count)| count).sum();
        // What is dropped is dropped of those who are held back; of all alike while nobody is.
        let (held, others) = if of_held == 0 {
            (1.0, 1.0 + lost / f64::from(self.total.max(1)))
        } else {
            (1.0 + lost / f64::from(of_held), 1.0)
        };
        let rate = |(who, count): (&Address, &u32)| {
            (*who, f64::from(*count) * if is_held(who) { held } else { others } / seconds)
        };
        let mut rates: Vec<(Address, f64)> = self.counts.iter().map(rate).collect();
        rates.sort_by(|one, other| other.1.total_cmp(&one.1));
        let is_free = self.held.senders.is_empty() && !self.held.is_everybody;
        let is_crowd = all > CROWD || (lost > 0.0 && is_free);
        let was_heavy = |who: &Address| self.held.senders.contains(who);
        let heavy = rates.iter().filter(|(who, rate)| {
            (is_crowd && *rate > all / 4.0) || (was_heavy(who) && *rate > 2.0 * LEFT)
        });
        for (who, _) in heavy.take(HEAVY_SENDERS) {
            self.since.insert(*who, now);
        }
        self.since.retain(|_, heavy| now - *heavy <= HELD);
        let mut senders: Vec<Address> = self.since.keys().copied().collect();
        senders.sort_unstable();
        senders.truncate(HEAVY_SENDERS);
        let mut most = rates.first().map_or(0.0, |(_, rate)| *rate);
        // Of nobody in particular: then those count who have been heard before.
        let is_too_much = all > CROWD;
        let is_possible = senders.is_empty() && (is_too_much || self.all_since.is_some());
        let has_strangers = is_possible && !self.regulars.of(now, None, 1).is_empty();
        if is_too_much && has_strangers {
            self.all_since = Some(now);
        }
        self.all_since = self.all_since.filter(|last| now - *last <= HELD && senders.is_empty());
        let is_everybody = self.all_since.is_some() && has_strangers;
        if is_everybody {
            most = all * LEFT / (CROWD / 4.0);
        }
        let keep = match senders.is_empty() && !is_everybody {
            true => 0,
            // Not less for a while: an estimate of few is a rough one.
            false => ((most / LEFT).max(1.0).log2().ceil() as u32).max(self.held.keep).min(10),
        };
        // Before who passes is chosen.
        self.judge_regulars(now);
        let strangers = match is_everybody {
            true => self.regulars.of(now, None, REGULARS),
            false => Vec::new(),
        };
        let is_everybody = is_everybody && !strangers.is_empty();
        let mut regulars = strangers;
        let each = regulars_of_each(senders.len());
        for sender in &senders {
            // Nobody new is heard of who is held back, so these are those of before.
            regulars.extend(match self.held.senders.contains(sender) {
                true => {
                    let kept = self.held.regulars.iter().filter(|who| who.0 == *sender);
                    self.regulars.oldest(kept.copied().collect(), each)
                }
                false => self.regulars.of(now, Some(*sender), each),
            });
        }
        let at = |address| (!is_everybody).then_some(address);
        let clocks = regulars.iter().map(|(address, who)| (at(*address), clock_of(*who)));
        let before = &self.passed;
        if before.is_empty() {
            self.passed_since = Some(now);
        }
        let passed = clocks.map(|clock| (clock, before.get(&clock).copied().unwrap_or(0)));
        self.passed = passed.collect();
        self.begun = Some(now);
        self.counts.clear();
        self.total = 0;
        let new = HeldBack { senders, keep, regulars, is_everybody };
        if new == self.held {
            return None;
        }
        self.held = new;
        Some(&self.held)
    }
}

impl Crowd {
    /// Forgets regulars that send what no client sends: one more than is plausible, or all of a sender together too much,
    /// and then the fastest. Others at the same address are not suspected for it: what was in the queue when a
    /// sender began to be held back is still his.
    fn judge_regulars(&mut self, now: Time<Mono>) {
        let seconds = (now - self.passed_since.unwrap_or(now)).as_secs_f64();
        let mut by_sender: HashMap<Option<Address>, Vec<(u32, Clock)>> = HashMap::new();
        for (clock, count) in &self.passed {
            by_sender.entry(clock.0).or_default().push((*count, *clock));
        }
        if seconds >= COUNTED_S {
            self.passed_since = Some(now);
            self.passed.values_mut().for_each(|count| *count = 0);
        }
        for (sender, mut clocks) in by_sender {
            clocks.sort_unstable();
            let mut together: f64 = clocks.iter().map(|(count, _)| f64::from(*count)).sum();
            let most = if sender.is_some() { TOO_MANY } else { TOO_MANY_OF_ALL };
            while let Some((count, clock)) = clocks.pop() {
                let count = f64::from(count);
                if count <= PLAUSIBLE * seconds + AT_ONCE && together <= most * seconds + AT_ONCE {
                    break;
                }
                together -= count;
                self.regulars.forget(&clock);
            }
        }
    }
}

/// The host alone: ports are a sender's own choice.
pub(super) const fn without_port(address: Address) -> Address {
    match address {
        Address::Socket(from) => Address::Socket(SocketAddr::new(from.ip(), 0)),
        mac @ Address::Mac(_) => mac,
    }
}

#[cfg(test)]
mod tests;
