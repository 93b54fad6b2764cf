//! Which record belongs to which message. Pure bookkeeping: the caller reads ring and socket, and
//! tells the time. A message and its record are the same packet when they are on the same interface
//! and begin with the same bytes; of several equal packets (a replay) the first record goes with the
//! first message. Both sides are bounded in number and age, so traffic that a firewall drops behind
//! the hook costs memory for two seconds and a count.

use std::{
    collections::{HashMap, VecDeque, hash_map},
    hash::{BuildHasher as _, RandomState},
};

use ptp_common::{
    record::MESSAGE_CAPACITY,
    time::{Duration, Mono, Time},
};

use super::Candidates;
use crate::stamp::Stamp;

/// Records kept at the most: in a flood of 40,000 a second, those of 100 ms.
const CAPACITY: usize = 4096;
/// Bytes at the beginning that all messages have (header and one timestamp), by which they are found.
const KEYED: usize = 44;
/// Records that look alike and wait at the same time. A flood of one packet would make each further one be compared
/// with all before it.
const ALIKE: usize = 16;
/// How long a record waits for its message.
const LIFETIME: Duration = Duration::from_secs(2);

/// Two records that look like one message and are farther apart leave it open whose they are. Packets that
/// a network doubles are nearer, and the first of them is the one that counts.
const AMBIGUOUS: Duration = Duration::from_micros(100);

/// What became of stamps so far. Totals since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PairingCounts {
    /// Found their message.
    pub matched: u64,
    /// Aged out or were pushed out without one: a firewall, or nobody's multicast group.
    pub orphaned: u64,
    /// Were equal to another record that still waited: a replayed packet, or one seen twice.
    pub duplicate: u64,
    /// Came only after their message had been looked up in vain at least once.
    pub late: u64,
    /// Messages that were given up because no record came.
    pub missing: u64,
}

/// Whether a message has asked for its stamp before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Not yet.
    First,
    /// In vain.
    Again,
}

/// Answer to a message that asks for its stamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "made one at a time and at once taken apart")]
pub enum Outcome {
    /// Here they are, one for each capture point that saw the packet.
    Matched(Candidates),
    /// Not there yet.
    NotYet,
}

#[derive(Debug)]
struct Entry {
    at: Time<Mono>,
    ifindex: u32,
    length: u8,
    bytes: [u8; MESSAGE_CAPACITY],
    serial: u64,
    stamps: Candidates,
}

impl Entry {
    fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }

    /// A record may carry padding behind the message, and may carry less than a long message.
    fn is(&self, ifindex: u32, message: &[u8]) -> bool {
        let compared = message.len().min(MESSAGE_CAPACITY);
        self.ifindex == ifindex && self.bytes().get(..compared) == Some(&message[..compared])
    }
}

/// The stamps of one direction that wait for their messages.
#[derive(Debug, Default)]
pub struct Pairing {
    /// In the order of their coming; `None` where one has been taken out of the middle.
    waiting: VecDeque<Option<Entry>>,
    /// Name of the first of them; the others follow on it.
    first: u64,
    live: usize,
    /// The names of those that begin alike, so that a flood costs no search.
    index: HashMap<u64, Vec<u64>>,
    /// The names of those whose further stamps come by serial.
    serials: HashMap<u64, u64>,
    hasher: RandomState,
    counts: PairingCounts,
}

impl Pairing {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Stamps with the beginning of the message they belong to. `serial` names the packet for
    /// [`Pairing::amend`]; 0 where the record has none. A packet that another hook has reported
    /// already gets the further stamps.
    pub fn push(
        &mut self,
        now: Time<Mono>,
        ifindex: u32,
        bytes: &[u8],
        serial: u64,
        stamps: Candidates,
    ) {
        self.expire(now);
        let length = bytes.len().min(MESSAGE_CAPACITY);
        let bytes = &bytes[..length];
        let key = self.key(ifindex, bytes);
        let known = self.index.get(&key).into_iter().flatten();
        let equal = known.filter(|name| {
            self.entry(**name)
                .is_some_and(|other| other.ifindex == ifindex && other.bytes() == bytes)
        });
        let equal: Vec<u64> = equal.copied().collect();
        let is_new =
            |other: &Entry| stamps.iter().all(|stamp| other.stamps.time(stamp.source).is_none());
        if let Some(name) = equal.iter().find(|name| self.entry(**name).is_some_and(is_new)) {
            if let Some(other) = self.entry_mut(*name) {
                stamps.iter().for_each(|stamp| other.stamps.add(stamp));
            }
            return;
        }
        self.counts.duplicate += u64::from(!equal.is_empty());
        // The first is the one that counts, and the latest tells whether it is in doubt.
        let alike = self.index.get(&key).filter(|alike| alike.len() >= ALIKE);
        if let Some(name) = alike.and_then(|alike| alike.get(1)).copied() {
            self.orphan(name);
        }
        if self.live == CAPACITY || self.waiting.len() == 2 * CAPACITY {
            self.orphan(self.first);
        }
        let mut kept = [0; MESSAGE_CAPACITY];
        kept[..length].copy_from_slice(bytes);
        let length = u8::try_from(length).unwrap_or(u8::MAX);
        let name = self.first + self.waiting.len() as u64;
        let entry = Entry { at: now, ifindex, length, bytes: kept, serial, stamps };
        self.waiting.push_back(Some(entry));
        self.live += 1;
        self.index.entry(key).or_default().push(name);
        if serial != 0 {
            self.serials.insert(serial, name);
        }
    }

    /// A further stamp of the packet with this serial; `false` where that packet does not wait here.
    pub fn amend(&mut self, serial: u64, stamp: Stamp) -> bool {
        let name = self.serials.get(&serial).copied();
        let Some(entry) = name.and_then(|name| self.entry_mut(name)) else { return false };
        entry.stamps.add(stamp);
        true
    }

    /// A further stamp of the packet that carries this message, for a source that does not know the
    /// serial; `false` where no such packet waits for it.
    pub fn amend_message(&mut self, ifindex: u32, message: &[u8], stamp: Stamp) -> bool {
        let lacks = |name: &u64| {
            self.entry(*name).is_some_and(|entry| entry.stamps.time(stamp.source).is_none())
        };
        let found = self.alike(ifindex, message).into_iter().find(lacks);
        let Some(entry) = found.and_then(|name| self.entry_mut(name)) else { return false };
        entry.stamps.add(stamp);
        true
    }

    /// The stamps of a message that came through the socket, or was sent. Stamps of which `enough`
    /// is not true stay here, as more may come.
    pub fn take(
        &mut self,
        ifindex: u32,
        message: &[u8],
        asked: Asked,
        enough: impl Fn(&Candidates) -> bool,
    ) -> Outcome {
        let alike = self.alike(ifindex, message);
        let Some((name, entry)) = alike.first().and_then(|name| Some((*name, self.entry(*name)?)))
        else {
            return Outcome::NotYet;
        };
        let stamps = entry.stamps;
        let is_ambiguous = alike[1..]
            .iter()
            .filter_map(|name| self.entry(*name))
            .any(|other| is_of_another_time(&stamps, &other.stamps));
        if is_ambiguous {
            // One may be of a packet that the stack has dropped. Without a stamp an exchange is lost; with
            // the wrong one it is false.
            alike.into_iter().for_each(|name| self.orphan(name));
            return Outcome::NotYet;
        }
        if !enough(&stamps) {
            return Outcome::NotYet;
        }
        self.remove(name);
        self.counts.matched += 1;
        self.counts.late += u64::from(asked == Asked::Again);
        Outcome::Matched(stamps)
    }

    /// Drops the records that look like a message and are `another`'s: of packets that the stack did not
    /// let pass. Counted as orphaned, as they are.
    pub fn disown(&mut self, ifindex: u32, message: &[u8], another: impl Fn(&Candidates) -> bool) {
        for name in self.alike(ifindex, message) {
            if self.entry(name).is_some_and(|entry| another(&entry.stamps)) {
                self.orphan(name);
            }
        }
    }

    /// The caller has given up waiting for the stamp of a message.
    pub fn give_up(&mut self) {
        self.counts.missing += 1;
    }

    /// Drops what has waited too long. [`Pairing::push`] does it too; this is for quiet times.
    pub fn expire(&mut self, now: Time<Mono>) {
        // What was taken out at the front is gone, so the first is one that waits.
        while self
            .waiting
            .front()
            .is_some_and(|first| first.as_ref().is_none_or(|entry| now - entry.at > LIFETIME))
        {
            self.orphan(self.first);
        }
    }

    /// Totals since the start.
    pub const fn counts(&self) -> PairingCounts {
        self.counts
    }

    /// The same for all that begin alike, as far as every message has bytes.
    fn key(&self, ifindex: u32, bytes: &[u8]) -> u64 {
        self.hasher.hash_one((ifindex, &bytes[..bytes.len().min(KEYED)]))
    }

    /// The names of the records that look like a message, oldest first.
    fn alike(&self, ifindex: u32, message: &[u8]) -> Vec<u64> {
        let is_alike =
            |name: &u64| self.entry(*name).is_some_and(|entry| entry.is(ifindex, message));
        if message.len() < KEYED {
            // Too short for any message of PTP, and for the index.
            let end = self.first + self.waiting.len() as u64;
            return (self.first..end).filter(is_alike).collect();
        }
        let known = self.index.get(&self.key(ifindex, message));
        known.into_iter().flatten().copied().filter(is_alike).collect()
    }

    fn place(&self, name: u64) -> Option<usize> {
        usize::try_from(name.checked_sub(self.first)?).ok()
    }

    fn entry(&self, name: u64) -> Option<&Entry> {
        self.waiting.get(self.place(name)?)?.as_ref()
    }

    fn entry_mut(&mut self, name: u64) -> Option<&mut Entry> {
        let at = self.place(name)?;
        self.waiting.get_mut(at)?.as_mut()
    }

    /// Takes out one that found no message.
    fn orphan(&mut self, name: u64) {
        self.counts.orphaned += u64::from(self.remove(name));
    }

    /// Whether there was such a one.
    fn remove(&mut self, name: u64) -> bool {
        let taken = self.place(name).and_then(|at| self.waiting.get_mut(at)?.take());
        if let Some(entry) = &taken {
            self.live -= 1;
            if self.serials.get(&entry.serial) == Some(&name) {
                self.serials.remove(&entry.serial);
            }
            let key = self.key(entry.ifindex, entry.bytes());
            if let hash_map::Entry::Occupied(mut alike) = self.index.entry(key) {
                alike.get_mut().retain(|other| *other != name);
                if alike.get().is_empty() {
                    alike.remove();
                }
            }
        }
        while self.waiting.front().is_some_and(Option::is_none) {
            self.waiting.pop_front();
            self.first += 1;
        }
        taken.is_some()
    }
}

/// Whether two records cannot be of one packet, nor of one that a network has doubled.
fn is_of_another_time(one: &Candidates, other: &Candidates) -> bool {
    one.iter().any(|stamp| {
        let other = other.time(stamp.source);
        other.is_some_and(|other| (other - stamp.time).abs() > AMBIGUOUS)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stamp::StampSource;

    fn at(nanos: i64) -> Time<Mono> {
        Time::from_nanos(nanos)
    }

    fn stamps(nanos: i64) -> Candidates {
        Candidates::one(Stamp::new(at(nanos), StampSource::TcIngress))
    }

    #[test]
    fn record_of_the_same_packet_is_found_behind_others() {
        let mut pairing = Pairing::new();
        pairing.push(at(1), 7, &[1; 44], 0, stamps(10));
        pairing.push(at(2), 7, &[2; 44], 0, stamps(20));
        assert_eq!(pairing.take(7, &[2; 44], Asked::First, |_| true), Outcome::Matched(stamps(20)));
        assert_eq!(pairing.take(7, &[2; 44], Asked::First, |_| true), Outcome::NotYet);
        assert_eq!(pairing.counts().matched, 1);
    }

    #[test]
    fn record_of_another_interface_is_not_taken() {
        let mut pairing = Pairing::new();
        pairing.push(at(1), 8, &[1; 44], 0, stamps(10));
        assert_eq!(pairing.take(7, &[1; 44], Asked::First, |_| true), Outcome::NotYet);
    }

    #[test]
    fn padding_behind_the_recorded_message_is_ignored() {
        let mut pairing = Pairing::new();
        let mut padded = [0; 46];
        padded[..44].fill(5);
        pairing.push(at(1), 7, &padded, 0, stamps(10));
        assert_eq!(pairing.take(7, &[5; 44], Asked::First, |_| true), Outcome::Matched(stamps(10)));
    }

    #[test]
    fn message_longer_than_a_record_matches_by_its_beginning() {
        let mut pairing = Pairing::new();
        pairing.push(at(1), 7, &[5; MESSAGE_CAPACITY], 0, stamps(10));
        assert_eq!(
            pairing.take(7, &[5; 500], Asked::First, |_| true),
            Outcome::Matched(stamps(10))
        );
    }

    #[test]
    fn truncated_record_does_not_match_a_longer_message() {
        let mut pairing = Pairing::new();
        pairing.push(at(1), 7, &[5; 20], 0, stamps(10));
        assert_eq!(pairing.take(7, &[5; 44], Asked::First, |_| true), Outcome::NotYet);
    }

    #[test]
    fn replayed_packets_pair_in_order_and_are_counted() {
        let mut pairing = Pairing::new();
        pairing.push(at(1), 7, &[1; 44], 0, stamps(10));
        pairing.push(at(2), 7, &[1; 44], 0, stamps(20));
        assert_eq!(pairing.take(7, &[1; 44], Asked::First, |_| true), Outcome::Matched(stamps(10)));
        assert_eq!(pairing.take(7, &[1; 44], Asked::Again, |_| true), Outcome::Matched(stamps(20)));
        let counts = pairing.counts();
        assert_eq!((counts.duplicate, counts.late), (1, 1));
    }

    #[test]
    fn message_with_two_records_far_apart_gets_neither() {
        let mut pairing = Pairing::new();
        // The first of a packet that the stack dropped for its checksum, 50 ms early.
        pairing.push(at(0), 7, &[1; 44], 0, stamps(10));
        pairing.push(at(50_000_000), 7, &[1; 44], 0, stamps(50_000_010));
        pairing.push(at(50_000_000), 7, &[2; 44], 0, stamps(50_000_020));
        assert_eq!(pairing.take(7, &[1; 44], Asked::First, |_| true), Outcome::NotYet);
        assert_eq!(pairing.take(7, &[1; 44], Asked::Again, |_| true), Outcome::NotYet);
        let other = pairing.take(7, &[2; 44], Asked::First, |_| true);
        assert_eq!(other, Outcome::Matched(stamps(50_000_020)));
        assert_eq!((pairing.counts().duplicate, pairing.counts().orphaned), (1, 2));
    }

    #[test]
    fn flood_of_one_packet_is_compared_with_few_and_leaves_its_stamp_in_doubt() {
        let mut pairing = Pairing::new();
        for n in 0..2_000 {
            pairing.push(at(n * 100_000), 7, &[1; 44], 0, stamps(n * 100_000));
        }
        assert!(pairing.live <= ALIKE, "{}", pairing.live);
        assert_eq!(pairing.counts().orphaned, 2_000 - ALIKE as u64);
        assert_eq!(pairing.take(7, &[1; 44], Asked::First, |_| true), Outcome::NotYet);
    }

    #[test]
    fn packet_that_a_network_doubles_keeps_its_first_record() {
        let mut pairing = Pairing::new();
        pairing.push(at(0), 7, &[1; 44], 0, stamps(10));
        pairing.push(at(30_000), 7, &[1; 44], 0, stamps(30_010));
        assert_eq!(pairing.take(7, &[1; 44], Asked::First, |_| true), Outcome::Matched(stamps(10)));
    }

    #[test]
    fn stamps_of_two_hooks_for_one_packet_come_together() {
        let mut pairing = Pairing::new();
        let later = Stamp::new(at(30), StampSource::XdpNative);
        pairing.push(at(1), 7, &[1; 44], 0, stamps(10));
        pairing.push(at(1), 7, &[1; 44], 0, Candidates::one(later));
        let mut both = stamps(10);
        both.add(later);
        assert_eq!(pairing.take(7, &[1; 44], Asked::First, |_| true), Outcome::Matched(both));
        assert_eq!(pairing.counts().duplicate, 0);
    }

    #[test]
    fn stamp_that_comes_by_serial_is_waited_for() {
        let mut pairing = Pairing::new();
        let done = Stamp::new(at(30), StampSource::XmitDone);
        pairing.push(at(1), 7, &[1; 44], 99, stamps(10));
        let enough = |candidates: &Candidates| candidates.time(StampSource::XmitDone).is_some();
        assert_eq!(pairing.take(7, &[1; 44], Asked::First, enough), Outcome::NotYet);
        assert!(pairing.amend(99, done));
        assert!(!pairing.amend(98, done));
        assert!(!pairing.amend(0, done), "no serial names no packet");
        assert!(matches!(pairing.take(7, &[1; 44], Asked::Again, enough), Outcome::Matched(_)));
    }

    #[test]
    fn stamp_that_comes_by_message_is_waited_for() {
        let mut pairing = Pairing::new();
        let driver = Stamp::new(at(20), StampSource::DriverSoftware);
        // The record has the padding of the frame behind the message.
        pairing.push(at(1), 7, &[1; 46], 99, stamps(10));
        assert!(!pairing.amend_message(8, &[1; 44], driver));
        assert!(pairing.amend_message(7, &[1; 44], driver));
        assert!(!pairing.amend_message(7, &[1; 44], driver), "once");
        let mut both = stamps(10);
        both.add(driver);
        assert_eq!(pairing.take(7, &[1; 44], Asked::First, |_| true), Outcome::Matched(both));
    }

    #[test]
    fn records_without_message_age_out_and_are_counted() {
        let mut pairing = Pairing::new();
        pairing.push(at(0), 7, &[1; 44], 0, stamps(10));
        pairing.expire(at(3_000_000_000));
        assert_eq!(pairing.take(7, &[1; 44], Asked::First, |_| true), Outcome::NotYet);
        assert_eq!(pairing.counts().orphaned, 1);
    }

    #[test]
    fn record_that_is_not_the_messages_is_dropped_and_counted() {
        let mut pairing = Pairing::new();
        pairing.push(at(1), 7, &[1; 44], 0, stamps(10));
        pairing.push(at(1), 7, &[2; 44], 0, stamps(10));
        pairing.push(at(2), 7, &[1; 44], 0, stamps(20));
        pairing.disown(7, &[1; 44], |candidates| *candidates == stamps(10));
        assert_eq!(pairing.take(7, &[1; 44], Asked::First, |_| true), Outcome::Matched(stamps(20)));
        assert_eq!(pairing.take(7, &[1; 44], Asked::First, |_| true), Outcome::NotYet);
        assert_eq!(pairing.take(7, &[2; 44], Asked::First, |_| true), Outcome::Matched(stamps(10)));
        assert_eq!(pairing.counts().orphaned, 1);
    }

    #[test]
    fn holes_of_a_flood_are_bounded_too() {
        let mut pairing = Pairing::new();
        pairing.push(at(1), 7, &[0xff; 44], 0, stamps(10));
        for n in 0..50_000_u32 {
            let mut message = [0; 44];
            message[..4].copy_from_slice(&n.to_be_bytes());
            pairing.push(at(1), 7, &message, 0, stamps(10));
            // All but the first are taken at once.
            assert!(matches!(
                pairing.take(7, &message, Asked::First, |_| true),
                Outcome::Matched(_)
            ));
            assert!(pairing.waiting.len() <= 2 * CAPACITY);
        }
        assert!(pairing.index.len() <= 1 && pairing.live <= 1 && pairing.serials.is_empty());
        assert_eq!(pairing.counts().matched, 50_000);
    }

    #[test]
    fn flood_of_records_is_bounded() {
        let mut pairing = Pairing::new();
        for n in 0..10_000_u32 {
            pairing.push(at(1), 7, &n.to_be_bytes(), 0, stamps(10));
        }
        assert_eq!((pairing.waiting.len(), pairing.index.len()), (CAPACITY, CAPACITY));
        assert_eq!(pairing.counts().orphaned, 10_000 - CAPACITY as u64);
    }
}
