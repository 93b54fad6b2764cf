//! Which record belongs to which message. Pure bookkeeping: the caller reads ring and socket, and
//! tells the time. A message and its record are the same packet when they are on the same interface
//! and begin with the same bytes; of several equal packets (a replay) the first record goes with the
//! first message. Both sides are bounded in number and age, so traffic that a firewall drops behind
//! the hook costs memory for two seconds and a count.

use std::collections::VecDeque;

use ptp_common::{
    record::MESSAGE_CAPACITY,
    time::{Duration, Mono, Time},
};

use super::Candidates;
use crate::stamp::Stamp;

/// Records kept at the most; at 128 Sync/s from 16 transmitters, half a second.
const CAPACITY: usize = 1024;
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

/// Answer to a message that asks for its stamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    waiting: VecDeque<Entry>,
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
        let mut equal = self
            .waiting
            .iter_mut()
            .filter(|other| other.ifindex == ifindex && other.bytes() == bytes)
            .peekable();
        if equal.peek().is_some() {
            let is_new = |other: &Entry| {
                stamps.iter().all(|stamp| other.stamps.time(stamp.source).is_none())
            };
            if let Some(other) = equal.find(|other| is_new(other)) {
                stamps.iter().for_each(|stamp| other.stamps.add(stamp));
                return;
            }
            self.counts.duplicate += 1;
        }
        if self.waiting.len() == CAPACITY {
            self.waiting.pop_front();
            self.counts.orphaned += 1;
        }
        let mut kept = [0; MESSAGE_CAPACITY];
        kept[..length].copy_from_slice(bytes);
        let length = u8::try_from(length).unwrap_or(u8::MAX);
        self.waiting.push_back(Entry { at: now, ifindex, length, bytes: kept, serial, stamps });
    }

    /// A further stamp of the packet with this serial; `false` where that packet does not wait here.
    pub fn amend(&mut self, serial: u64, stamp: Stamp) -> bool {
        let found = self.waiting.iter_mut().rev().find(|entry| entry.serial == serial);
        if let Some(entry) = found {
            entry.stamps.add(stamp);
            return true;
        }
        false
    }

    /// A further stamp of the packet that carries this message, for a source that does not know the
    /// serial; `false` where no such packet waits for it.
    pub fn amend_message(&mut self, ifindex: u32, message: &[u8], stamp: Stamp) -> bool {
        let found = self
            .waiting
            .iter_mut()
            .find(|entry| entry.is(ifindex, message) && entry.stamps.time(stamp.source).is_none());
        if let Some(entry) = found {
            entry.stamps.add(stamp);
            return true;
        }
        false
    }

    /// The stamps of a message that came through the socket, or was sent. Stamps of which `enough`
    /// is not true stay here, as more may come; `retry` says that it has been asked for before.
    pub fn take(
        &mut self,
        ifindex: u32,
        message: &[u8],
        retry: bool,
        enough: impl Fn(&Candidates) -> bool,
    ) -> Outcome {
        let Some(at) = self.waiting.iter().position(|entry| entry.is(ifindex, message)) else {
            return Outcome::NotYet;
        };
        if self.is_ambiguous(at, ifindex, message) {
            // One may be of a packet that the stack has dropped. Without a stamp an exchange is lost; with
            // the wrong one it is false.
            let before = self.waiting.len();
            self.waiting.retain(|entry| !entry.is(ifindex, message));
            self.counts.orphaned += (before - self.waiting.len()) as u64;
            return Outcome::NotYet;
        }
        if !enough(&self.waiting[at].stamps) {
            return Outcome::NotYet;
        }
        match self.waiting.remove(at) {
            Some(entry) => {
                self.counts.matched += 1;
                self.counts.late += u64::from(retry);
                Outcome::Matched(entry.stamps)
            }
            None => Outcome::NotYet,
        }
    }

    /// Whether records behind the one at `first` look the same and are of another time.
    fn is_ambiguous(&self, first: usize, ifindex: u32, message: &[u8]) -> bool {
        let stamps = self.waiting[first].stamps;
        self.waiting.iter().skip(first + 1).filter(|entry| entry.is(ifindex, message)).any(
            |other| {
                stamps.iter().any(|stamp| {
                    let other = other.stamps.time(stamp.source);
                    other.is_some_and(|other| (other - stamp.time).abs() > AMBIGUOUS)
                })
            },
        )
    }

    /// The caller has given up waiting for the stamp of a message.
    pub fn give_up(&mut self) {
        self.counts.missing += 1;
    }

    /// Drops what has waited too long. [`Pairing::push`] does it too; this is for quiet times.
    pub fn expire(&mut self, now: Time<Mono>) {
        while self.waiting.front().is_some_and(|entry| now - entry.at > LIFETIME) {
            self.waiting.pop_front();
            self.counts.orphaned += 1;
        }
    }

    /// Totals since the start.
    pub const fn counts(&self) -> PairingCounts {
        self.counts
    }
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
        assert_eq!(pairing.take(7, &[2; 44], false, |_| true), Outcome::Matched(stamps(20)));
        assert_eq!(pairing.take(7, &[2; 44], false, |_| true), Outcome::NotYet);
        assert_eq!(pairing.counts().matched, 1);
    }

    #[test]
    fn record_of_another_interface_is_not_taken() {
        let mut pairing = Pairing::new();
        pairing.push(at(1), 8, &[1; 44], 0, stamps(10));
        assert_eq!(pairing.take(7, &[1; 44], false, |_| true), Outcome::NotYet);
    }

    #[test]
    fn padding_behind_the_recorded_message_is_ignored() {
        let mut pairing = Pairing::new();
        let mut padded = [0; 46];
        padded[..44].fill(5);
        pairing.push(at(1), 7, &padded, 0, stamps(10));
        assert_eq!(pairing.take(7, &[5; 44], false, |_| true), Outcome::Matched(stamps(10)));
    }

    #[test]
    fn message_longer_than_a_record_matches_by_its_beginning() {
        let mut pairing = Pairing::new();
        pairing.push(at(1), 7, &[5; MESSAGE_CAPACITY], 0, stamps(10));
        assert_eq!(pairing.take(7, &[5; 500], false, |_| true), Outcome::Matched(stamps(10)));
    }

    #[test]
    fn truncated_record_does_not_match_a_longer_message() {
        let mut pairing = Pairing::new();
        pairing.push(at(1), 7, &[5; 20], 0, stamps(10));
        assert_eq!(pairing.take(7, &[5; 44], false, |_| true), Outcome::NotYet);
    }

    #[test]
    fn replayed_packets_pair_in_order_and_are_counted() {
        let mut pairing = Pairing::new();
        pairing.push(at(1), 7, &[1; 44], 0, stamps(10));
        pairing.push(at(2), 7, &[1; 44], 0, stamps(20));
        assert_eq!(pairing.take(7, &[1; 44], false, |_| true), Outcome::Matched(stamps(10)));
        assert_eq!(pairing.take(7, &[1; 44], true, |_| true), Outcome::Matched(stamps(20)));
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
        assert_eq!(pairing.take(7, &[1; 44], false, |_| true), Outcome::NotYet);
        assert_eq!(pairing.take(7, &[1; 44], true, |_| true), Outcome::NotYet);
        let other = pairing.take(7, &[2; 44], false, |_| true);
        assert_eq!(other, Outcome::Matched(stamps(50_000_020)));
        assert_eq!((pairing.counts().duplicate, pairing.counts().orphaned), (1, 2));
    }

    #[test]
    fn packet_that_a_network_doubles_keeps_its_first_record() {
        let mut pairing = Pairing::new();
        pairing.push(at(0), 7, &[1; 44], 0, stamps(10));
        pairing.push(at(30_000), 7, &[1; 44], 0, stamps(30_010));
        assert_eq!(pairing.take(7, &[1; 44], false, |_| true), Outcome::Matched(stamps(10)));
    }

    #[test]
    fn stamps_of_two_hooks_for_one_packet_come_together() {
        let mut pairing = Pairing::new();
        let later = Stamp::new(at(30), StampSource::XdpNative);
        pairing.push(at(1), 7, &[1; 44], 0, stamps(10));
        pairing.push(at(1), 7, &[1; 44], 0, Candidates::one(later));
        let mut both = stamps(10);
        both.add(later);
        assert_eq!(pairing.take(7, &[1; 44], false, |_| true), Outcome::Matched(both));
        assert_eq!(pairing.counts().duplicate, 0);
    }

    #[test]
    fn stamp_that_comes_by_serial_is_waited_for() {
        let mut pairing = Pairing::new();
        let done = Stamp::new(at(30), StampSource::XmitDone);
        pairing.push(at(1), 7, &[1; 44], 99, stamps(10));
        let enough = |candidates: &Candidates| candidates.time(StampSource::XmitDone).is_some();
        assert_eq!(pairing.take(7, &[1; 44], false, enough), Outcome::NotYet);
        assert!(pairing.amend(99, done));
        assert!(!pairing.amend(98, done));
        assert!(matches!(pairing.take(7, &[1; 44], true, enough), Outcome::Matched(_)));
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
        assert_eq!(pairing.take(7, &[1; 44], false, |_| true), Outcome::Matched(both));
    }

    #[test]
    fn records_without_message_age_out_and_are_counted() {
        let mut pairing = Pairing::new();
        pairing.push(at(0), 7, &[1; 44], 0, stamps(10));
        pairing.expire(at(3_000_000_000));
        assert_eq!(pairing.take(7, &[1; 44], false, |_| true), Outcome::NotYet);
        assert_eq!(pairing.counts().orphaned, 1);
    }

    #[test]
    fn flood_of_records_is_bounded() {
        let mut pairing = Pairing::new();
        for n in 0..10_000_u32 {
            pairing.push(at(1), 7, &n.to_be_bytes(), 0, stamps(10));
        }
        assert_eq!(pairing.waiting.len(), CAPACITY);
        assert_eq!(pairing.counts().orphaned, 10_000 - CAPACITY as u64);
    }
}
