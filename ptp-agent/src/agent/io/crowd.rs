//! Who sends more than can be taken: event messages counted by sender, in short turns, and what the kernel has
//! dropped meanwhile. When more come than a server answers, or than this host takes, those that send most of them are
//! held back by the kernel (one in so many of theirs passes), so that the queue of the socket has room for
//! others. Bounded: a flood of senders that each send little is nobody's.

use std::{collections::HashMap, net::SocketAddr};

use ptp_common::time::{Duration, Mono, Time};

use crate::{engine::address::Address, transport::HEAVY_SENDERS};

/// A turn.
const TURN: Duration = Duration::from_millis(100);
/// More messages per second than this are a crowd, even where none is dropped; a server answers fewer.
const CROWD: f64 = 12_000.0;
/// What is left of each who is held back, messages per second, about.
const LEFT: f64 = 500.0;
/// How long somebody who was heavy is held back after he has ceased to be.
const HELD: Duration = Duration::from_secs(2);
/// Senders that are counted in a turn.
const SENDERS: usize = 4096;

/// Fewer in a turn are no crowd, whatever was dropped before.
const FEW: u32 = 64;

/// Who is held back, and how much.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct HeldBack {
    pub(super) senders: Vec<Address>,
    /// One in `1 << keep` of their messages passes.
    pub(super) keep: u32,
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
}

impl Crowd {
    /// Counts a message. `dropped` is asked at the end of a turn for the total of messages that the kernel has
    /// dropped. Then: whom to hold back from now on, if that has changed.
    pub(super) fn count(
        &mut self,
        now: Time<Mono>,
        from: Option<Address>,
        dropped: impl FnOnce() -> u64,
    ) -> Option<&HeldBack> {
        let begun = *self.begun.get_or_insert(now);
        self.total = self.total.saturating_add(1);
        // Ports are the senders' own.
        let from = from.map(without_port);
        if let Some(from) = from
            && (self.counts.len() < SENDERS || self.counts.contains_key(&from))
        {
            *self.counts.entry(from).or_default() += 1;
        }
        if now - begun < TURN {
            return None;
        }
        if self.total < FEW && self.held.senders.is_empty() {
            // No queue overflows by so few, so the kernel need not be asked.
            self.begun = Some(now);
            self.counts.clear();
            self.total = 0;
            return None;
        }
        self.judge(now, (now - begun).as_secs_f64(), dropped())
    }

    fn judge(&mut self, now: Time<Mono>, seconds: f64, dropped: u64) -> Option<&HeldBack> {
        let lost = dropped.saturating_sub(self.dropped) as f64;
        self.dropped = dropped;
        let all = (f64::from(self.total) + lost) / seconds;
        let is_held = |who: &Address| self.held.senders.contains(who);
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
        let is_crowd = all > CROWD || (lost > 0.0 && self.held.senders.is_empty());
        let heavy = rates.iter().filter(|(who, rate)| {
            (is_crowd && *rate > all / 4.0) || (is_held(who) && *rate > 2.0 * LEFT)
        });
        for (who, _) in heavy.take(HEAVY_SENDERS) {
            self.since.insert(*who, now);
        }
        self.since.retain(|_, heavy| now - *heavy <= HELD);
        let mut senders: Vec<Address> = self.since.keys().copied().collect();
        senders.sort_unstable();
        senders.truncate(HEAVY_SENDERS);
        let most = rates.first().map_or(0.0, |(_, rate)| *rate);
        let keep = match senders.is_empty() {
            true => 0,
            // Not less for a while: an estimate of few is a rough one.
            false => ((most / LEFT).max(1.0).log2().ceil() as u32).max(self.held.keep).min(10),
        };
        self.begun = Some(now);
        self.counts.clear();
        self.total = 0;
        let new = HeldBack { senders, keep };
        if new == self.held {
            return None;
        }
        self.held = new;
        Some(&self.held)
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
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn host(number: u32) -> Address {
        Address::Socket((Ipv4Addr::from_bits(number), 319).into())
    }

    /// One message in `micros` of a flooder, as the kernel would let it pass, and one in five milliseconds of
    /// each of ten others. Who is held back in the end, and how
    /// many of the flooder's and of the others' have come through.
    fn flooded(
        micros: i64,
        seconds: i64,
        flooder: impl Fn(i64) -> Address,
    ) -> (HeldBack, [i64; 2]) {
        let mut crowd = Crowd::default();
        let (mut dropped, mut passed) = (0, [0, 0]);
        for n in 0..seconds * 1_000_000 / micros {
            let now = Time::ZERO + Duration::from_nanos(n * micros * 1_000);
            if n * micros % 5_000 < micros {
                for number in 1..=10 {
                    passed[1] += 1;
                    crowd.count(now, Some(host(number)), || dropped);
                }
            }
            let from = flooder(n);
            if crowd.held.senders.contains(&without_port(from)) && n % (1 << crowd.held.keep) != 0 {
                dropped += 1;
            } else {
                passed[0] += 1;
                crowd.count(now, Some(from), || dropped);
            }
        }
        (crowd.held, passed)
    }

    #[test]
    fn one_flooder_is_held_back_within_a_turn_and_nobody_else_is() {
        let (held, [flooder, others]) = flooded(10, 3, |_| host(99));
        assert_eq!(held.senders, [without_port(host(99))]);
        assert!((11_000..14_000).contains(&flooder), "{flooder} of 300000");
        assert_eq!(others, 6_000);
    }

    #[test]
    fn flood_that_this_host_cannot_take_is_seen_by_what_is_dropped() {
        let (mut crowd, mut dropped) = (Crowd::default(), 0);
        for n in 0..1_000 {
            // 3,000 a second come through, 30 times as many do not.
            dropped += 30;
            let now = Time::ZERO + Duration::from_nanos(n * 333_000);
            let from = if n % 10 == 0 { host(n as u32) } else { host(99) };
            crowd.count(now, Some(from), || dropped);
        }
        assert_eq!(crowd.held.senders, [without_port(host(99))]);
        assert!(crowd.held.keep >= 7, "{crowd:?}");
    }

    #[test]
    fn busy_network_below_what_is_answered_is_no_crowd() {
        let (held, _) = flooded(200, 3, |_| host(99));
        assert_eq!(held, HeldBack::default());
    }

    #[test]
    fn flood_of_ever_other_senders_holds_nobody_back() {
        let (held, _) = flooded(10, 2, |n| host(1000 + n as u32));
        assert_eq!(held, HeldBack::default());
    }

    #[test]
    fn flooder_who_ceases_is_let_go() {
        let mut crowd = Crowd::default();
        let at = |millis| Time::ZERO + Duration::from_millis(millis);
        for n in 0..20_000 {
            crowd.count(at(n / 100), Some(host(99)), || 0);
        }
        assert_eq!(crowd.held.senders.len(), 1);
        for n in 0..40 {
            crowd.count(at(300 + 100 * n), Some(host(1)), || 0);
        }
        assert_eq!(crowd.held, HeldBack::default());
    }
}
