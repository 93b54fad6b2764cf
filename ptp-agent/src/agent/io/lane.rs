//! Event messages that were sent together and wait for their stamps. They are often equal but for their addresses, so what
//! they say does not tell their records apart. But the records come in the order in which the messages were sent.

use super::*;
use crate::engine::unicast;
use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
};

/// Event messages that may wait for their stamps: what is sent in 160 ms at 100,000 a second.
const LANE: usize = 16_384;
/// Bytes at the beginning that all event messages have.
const KEYED: usize = 44;

/// An event message that waits for its stamps; without a token once it does not.
#[derive(Debug)]
struct Slot {
    until: Time<Mono>,
    to: Address,
    begins: [u8; KEYED],
    token: Option<SentToken>,
    serial: Option<u64>,
    stamps: Candidates,
    manner: Manner,
}

impl Slot {
    fn is(&self, to: Address, message: &[u8]) -> bool {
        self.to == to && message.get(..KEYED) == Some(&self.begins)
    }
}

/// Event messages that were sent together, in the order of their sending.
#[derive(Debug, Default)]
pub(super) struct Lane {
    slots: VecDeque<Slot>,
    /// Name of the first; the others follow on it.
    first: u64,
    /// Name of the next one for which a record is to come.
    next: u64,
    by_serial: HashMap<u64, u64>,
    pub(super) bracket: Bracket,
}

impl Lane {
    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// One more, if there is room. Its name.
    fn put(
        &mut self,
        until: Time<Mono>,
        to: Address,
        token: SentToken,
        message: &[u8],
        manner: Manner,
    ) -> Option<u64> {
        if self.slots.len() == LANE {
            return None;
        }
        let begins = *message.first_chunk()?;
        let (to, stamps) = (unicast::host(to), Candidates::default());
        self.slots.push_back(Slot {
            until,
            to,
            begins,
            token: Some(token),
            serial: None,
            stamps,
            manner,
        });
        Some(self.first + self.slots.len() as u64 - 1)
    }

    fn slot(&mut self, name: u64) -> Option<&mut Slot> {
        self.slots.get_mut(usize::try_from(name.checked_sub(self.first)?).ok()?)
    }

    /// It could not be sent: its token.
    fn fail(&mut self, name: u64) -> Option<SentToken> {
        self.slot(name)?.token.take()
    }

    /// A message to `to` has passed the hook, the packet with this serial: whether it is one of these. Those before it have
    /// not passed the hook, and no record of theirs comes any more.
    pub(super) fn claim(
        &mut self,
        to: Address,
        message: &[u8],
        serial: u64,
        stamps: Candidates,
    ) -> bool {
        let from = self.next.max(self.first);
        for name in from..self.first + self.slots.len() as u64 {
            let Some(slot) = self.slot(name) else { return false };
            if slot.token.is_some() && slot.is(to, message) {
                (slot.serial, slot.stamps) = (Some(serial), stamps);
                self.by_serial.insert(serial, name);
                self.next = name + 1;
                return true;
            }
        }
        false
    }

    /// A further stamp of the packet with this serial; whether it is one of these.
    pub(super) fn amend(&mut self, serial: u64, stamp: Stamp) -> bool {
        let Some(name) = self.by_serial.get(&serial).copied() else { return false };
        let Some(slot) = self.slot(name) else { return false };
        slot.stamps.add(stamp);
        true
    }

    /// Those whose stamp is there, or that have waited long enough, with the stamps that came.
    pub(super) fn finished(
        &mut self,
        now: Time<Mono>,
        chosen: StampSource,
    ) -> Vec<(SentToken, Candidates, Manner)> {
        let mut finished = Vec::new();
        for (name, slot) in (self.first..).zip(&mut self.slots) {
            // Those behind the latest record have nothing yet, and longer patience the later they were sent.
            if name >= self.next && now < slot.until {
                break;
            }
            if (slot.stamps.time(chosen).is_some() || now >= slot.until)
                && let Some(token) = slot.token.take()
            {
                finished.push((token, slot.stamps, slot.manner));
            }
        }
        while self.slots.front().is_some_and(|slot| slot.token.is_none()) {
            let serial = self.slots.pop_front().and_then(|slot| slot.serial);
            if let Some(serial) = serial {
                self.by_serial.remove(&serial);
            }
            self.first += 1;
        }
        finished
    }
}

/// Where an event message waits: in which lane, and its name there.
pub(super) type Place = (usize, u64);

/// A lane for each thread that sends: the order is that of a thread.
#[derive(Debug)]
pub(super) struct Lanes {
    lanes: Vec<Lane>,
    key: RandomState,
}

impl Default for Lanes {
    fn default() -> Self {
        Self { lanes: vec![Lane::default()], key: RandomState::new() }
    }
}

impl Lanes {
    pub(super) fn is_empty(&self) -> bool {
        self.lanes.iter().all(Lane::is_empty)
    }

    /// At least so many.
    pub(super) fn widen(&mut self, count: usize) {
        let count = count.max(self.lanes.len());
        self.lanes.resize_with(count, Lane::default);
    }

    /// By which messages to this address go.
    pub(super) fn of(&self, to: Address) -> usize {
        self.key.hash_one(unicast::host(to)) as usize % self.lanes.len()
    }

    /// One more, if there is room. Where it waits.
    pub(super) fn put(
        &mut self,
        until: Time<Mono>,
        to: Address,
        token: SentToken,
        message: &[u8],
        manner: Manner,
    ) -> Option<Place> {
        let lane = self.of(to);
        Some((lane, self.lanes[lane].put(until, to, token, message, manner)?))
    }

    /// What waits there could not be sent: its token.
    pub(super) fn fail(&mut self, (lane, name): Place) -> Option<SentToken> {
        self.lanes.get_mut(lane)?.fail(name)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Lane> {
        self.lanes.iter_mut()
    }

    /// See [`Lane::claim`].
    pub(super) fn claim(
        &mut self,
        to: Address,
        message: &[u8],
        serial: u64,
        stamps: Candidates,
    ) -> bool {
        // Where there are more of them since it was sent, it is in another one.
        let (first, count) = (self.of(to), self.lanes.len());
        (first..first + count).any(|at| self.lanes[at % count].claim(to, message, serial, stamps))
    }

    /// See [`Lane::amend`].
    pub(super) fn amend(&mut self, serial: u64, stamp: Stamp) -> bool {
        self.lanes.iter_mut().any(|lane| lane.amend(serial, stamp))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(last: u8) -> Address {
        Address::Socket(([192, 0, 2, last], 0).into())
    }

    fn at(nanos: i64) -> Time<Mono> {
        Time::from_nanos(nanos)
    }

    fn passed(nanos: i64) -> Candidates {
        Candidates::one(Stamp::new(at(nanos), StampSource::TcEgress))
    }

    fn start(nanos: i64) -> Stamp {
        Stamp::new(at(nanos), StampSource::StartXmit)
    }

    /// Messages to these hosts with equal bytes, which wait until 100.
    fn lane(hosts: &[u8]) -> Lane {
        let mut lane = Lane::default();
        for (n, last) in hosts.iter().enumerate() {
            let token = SentToken(n as u64);
            assert_eq!(
                lane.put(at(100), host(*last), token, &[7; 44], Manner::Plain),
                Some(n as u64)
            );
        }
        lane
    }

    /// Tokens and times of those that are finished.
    fn finished(lane: &mut Lane, now: i64) -> Vec<(u64, Option<i64>)> {
        let all = lane.finished(at(now), StampSource::StartXmit).into_iter();
        all.map(|(token, stamps, _)| {
            let time = stamps.time(StampSource::StartXmit);
            (token.0, time.map(|time| time.as_nanos()))
        })
        .collect()
    }

    #[test]
    fn equal_messages_are_told_apart_by_address_and_order() {
        // Two clients behind one address have the same numbers.
        let mut lane = lane(&[1, 2, 2, 3]);
        for (serial, last) in [(10, 1), (11, 2), (12, 2), (13, 3)] {
            assert!(lane.claim(host(last), &[7; 46], serial, passed(1)));
        }
        for serial in [12, 10, 13, 11] {
            assert!(lane.amend(serial, start(serial as i64)));
        }
        let expected = [(0, Some(10)), (1, Some(11)), (2, Some(12)), (3, Some(13))];
        assert_eq!(finished(&mut lane, 5), expected);
        assert!(lane.is_empty() && lane.by_serial.is_empty());
        assert!(!lane.amend(10, start(1)));
    }

    #[test]
    fn message_that_has_not_passed_the_hook_is_given_up_after_its_patience_and_moves_no_other_stamp()
     {
        let mut lane = lane(&[1, 2, 3]);
        assert!(lane.claim(host(1), &[7; 44], 10, passed(1)));
        assert!(lane.claim(host(3), &[7; 44], 12, passed(3)));
        assert!(!lane.claim(host(2), &[7; 44], 11, passed(2)), "it is passed over");
        assert!(lane.amend(10, start(1)) && lane.amend(12, start(3)));
        assert_eq!(finished(&mut lane, 5), [(0, Some(1)), (2, Some(3))]);
        assert_eq!(finished(&mut lane, 99), []);
        assert_eq!(finished(&mut lane, 100), [(1, None)]);
        assert!(lane.is_empty());
        // And goes on.
        assert_eq!(lane.put(at(200), host(1), SentToken(9), &[7; 44], Manner::Plain), Some(3));
        assert!(lane.claim(host(1), &[7; 44], 13, passed(4)));
    }

    #[test]
    fn others_messages_and_such_as_could_not_be_sent_are_none_of_these() {
        let mut lane = lane(&[1, 2]);
        assert_eq!(lane.fail(0), Some(SentToken(0)));
        assert_eq!(lane.fail(0), None);
        assert!(!lane.claim(host(1), &[7; 44], 10, passed(1)));
        assert!(!lane.claim(host(2), &[8; 44], 11, passed(1)));
        assert!(!lane.claim(host(2), &[7; 40], 12, passed(1)));
        assert!(lane.claim(host(2), &[7; 44], 13, passed(1)));
    }

    #[test]
    fn no_more_wait_than_there_are_places() {
        let mut lane = lane(&[1; LANE]);
        assert_eq!(lane.put(at(100), host(1), SentToken(0), &[7; 44], Manner::Plain), None);
    }

    #[test]
    fn each_thread_has_an_order_of_its_own_and_what_was_sent_before_there_were_more_is_found() {
        let mut lanes = Lanes::default();
        let put = |lanes: &mut Lanes, last: u8| {
            let token = SentToken(u64::from(last));
            lanes.put(at(100), host(last), token, &[7; 44], Manner::Plain).unwrap();
        };
        (1..=20).for_each(|last| put(&mut lanes, last));
        lanes.widen(3);
        (21..=60).for_each(|last| put(&mut lanes, last));
        // As one thread after the other sends.
        let of: Vec<usize> = (0..=60).map(|last| lanes.of(host(last))).collect();
        let begun = (1..=20).collect::<Vec<u8>>();
        let later = (0..3).flat_map(|shard| {
            let of = &of;
            (21..=60).filter(move |last| of[usize::from(*last)] == shard)
        });
        for last in begun.into_iter().chain(later) {
            assert!(lanes.claim(host(last), &[7; 44], u64::from(last), passed(1)), "{last}");
            assert!(lanes.amend(u64::from(last), start(i64::from(last))));
        }
        let mut all: Vec<_> = lanes.iter_mut().flat_map(|lane| finished(lane, 5)).collect();
        all.sort_unstable();
        let expected: Vec<_> = (1..=60).map(|last| (last, Some(last as i64))).collect();
        assert_eq!(all, expected);
        assert!(lanes.is_empty() && (0..3).all(|shard| of.contains(&shard)));
    }
}
