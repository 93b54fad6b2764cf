//! Messages to many at a time. A server of thousands of clients has a hundred messages to send each millisecond: they
//! are collected until the engine has said all that it has to say, and go out by one system call. Few event messages
//! are sent one by one, each on a path that was prepared for it.
//!
//! Event messages that are sent together are often equal but for their addresses, so what they say does not tell their
//! records apart. But the records come in the order in which the messages were sent.

use super::*;
use crate::engine::unicast;
use std::collections::HashMap;

/// No more event messages than these are sent one by one.
const FEW: usize = 4;
/// Other messages are kept until there are so many, while there is something to be given to the engine: what it says
/// to that goes with them.
const MANY: usize = 64;
/// Event messages that may wait for their stamps: what is sent in 40 ms at 100,000 a second.
const LANE: usize = 4096;
/// Bytes at the beginning that all event messages have.
const KEYED: usize = 44;

/// A message to one address alone.
#[derive(Debug)]
struct Letter {
    port: PortIndex,
    to: Address,
    token: Option<SentToken>,
    /// Where its bytes begin and end.
    bytes: (usize, usize),
}

/// What is to be sent when the engine has said all that it has to say.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    letters: Vec<Letter>,
    bytes: Vec<u8>,
    events: usize,
}

impl Outbox {
    pub(super) fn put(
        &mut self,
        port: PortIndex,
        to: Address,
        token: Option<SentToken>,
        message: &[u8],
    ) {
        let begin = self.bytes.len();
        self.bytes.extend_from_slice(message);
        self.events += usize::from(token.is_some());
        self.letters.push(Letter { port, to, token, bytes: (begin, self.bytes.len()) });
    }

    /// The letters of a port, event messages or the others.
    fn of(
        &self,
        port: PortIndex,
        are_events: bool,
    ) -> impl Iterator<Item = (Address, Option<SentToken>, &[u8])> {
        self.letters
            .iter()
            .filter(move |each| each.port == port && each.token.is_some() == are_events)
            .map(|Letter { to, token, bytes: (begin, end), .. }| {
                (*to, *token, &self.bytes[*begin..*end])
            })
    }

    fn clear(&mut self) {
        self.letters.clear();
        self.bytes.clear();
        self.events = 0;
    }
}

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
    bracket: Bracket,
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
    fn finished(
        &mut self,
        now: Time<Mono>,
        chosen: StampSource,
    ) -> Vec<(SentToken, Candidates, Manner)> {
        let mut finished = Vec::new();
        for slot in &mut self.slots {
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

impl Port {
    /// Whether the stamps of messages that are sent together can be found: those of the programs alone.
    fn has_lane(&self) -> bool {
        !self.driver_stamps && self.wire.is_none() && !self.tx.reach.is_displaced()
    }
}

impl Io {
    /// Sends what was collected, unless more is to come soon that can go with it.
    pub(super) fn send_collected(&mut self, is_end: bool) {
        let Outbox { letters, events, .. } = &self.outbox;
        let may_wait = !is_end && *events == 0 && letters.len() < MANY && !self.ready.is_empty();
        if letters.is_empty() || may_wait {
            return;
        }
        let mut outbox = std::mem::take(&mut self.outbox);
        for index in 0..self.ports.len() {
            let port = PortIndex(u16::try_from(index).unwrap_or(u16::MAX));
            self.send_others(port, &outbox);
            self.send_events(port, &outbox);
        }
        outbox.clear();
        self.outbox = outbox;
    }

    fn send_others(&mut self, on: PortIndex, outbox: &Outbox) {
        let all: Vec<_> = outbox.of(on, false).map(|(to, _, message)| (to, message)).collect();
        let port = &mut self.ports[usize::from(on.0)];
        let Some(transport) = port.transport.as_ref().filter(|_| all.len() > 1) else {
            for (to, message) in all {
                self.send(on, Channel::General, Destination::Unicast(to), message);
            }
            return;
        };
        let mut failures = Vec::new();
        transport.send_many(Channel::General, &all, |_, error| failures.push(error));
        port.count_failures(failures);
    }

    fn send_events(&mut self, on: PortIndex, outbox: &Outbox) {
        let all =
            outbox.of(on, true).filter_map(|(to, token, message)| Some((to, token?, message)));
        let all: Vec<_> = all.collect();
        let port = &mut self.ports[usize::from(on.0)];
        let can = all.len() > FEW && port.has_lane();
        // The first finds its path warm like those behind it; to the bracket around the driver it would be an exception.
        let manner = if can { port.prepare() } else { Manner::Plain };
        let Some(transport) = port.transport.as_ref().filter(|_| can) else {
            for (to, token, message) in all {
                self.send_event(on, Destination::Unicast(to), token, message);
            }
            return;
        };
        let until = monotonic() + TX_PATIENCE;
        let mut names = Vec::with_capacity(all.len());
        let mut messages = Vec::with_capacity(all.len());
        for (to, token, message) in all {
            match port.lane.put(until, to, token, message, manner) {
                Some(name) => {
                    names.push(name);
                    messages.push((to, message));
                }
                None => {
                    port.counts.overrun += 1;
                    self.ready.push_back(Delivery::TxStamp { token, stamp: None });
                }
            }
        }
        let mut failures = Vec::new();
        transport.send_many(Channel::Event, &messages, |at, error| {
            if let Some(token) = port.lane.fail(names[at]) {
                self.ready.push_back(Delivery::TxStamp { token, stamp: None });
            }
            failures.push(error);
        });
        port.count_failures(failures);
        self.look(monotonic());
    }

    /// Hands back the stamps of what was sent together, as far as they are there.
    pub(super) fn serve_lanes(&mut self, now: Time<Mono>) {
        let latency = &self.config.egress_latency;
        for port in self.ports.iter_mut().filter(|port| !port.lane.is_empty()) {
            let chosen = port.tx.selector.chosen();
            for (token, stamps, manner) in port.lane.finished(now, chosen) {
                let stamp = if stamps.iter().next().is_none() {
                    port.tx.reach.missed();
                    port.tx.pairing.give_up();
                    None
                } else {
                    port.tx.reach.reached();
                    let bracket = &mut port.lane.bracket;
                    port.tx.sent(&stamps, bracket, manner, latency)
                };
                self.ready.push_back(Delivery::TxStamp { token, stamp });
            }
        }
    }

    /// Whether something waits for its stamps.
    pub(super) fn is_waited_for(&self) -> bool {
        !self.waiting_rx.is_empty()
            || !self.waiting_tx.is_empty()
            || self.ports.iter().any(|port| !port.lane.is_empty())
    }
}

impl Port {
    fn count_failures(&mut self, failures: Vec<io::Error>) {
        self.counts.send_errors += failures.len() as u64;
        match failures.last() {
            Some(error) => self.report(format!("cannot send on {}: {error}", self.interface)),
            None => self.last_problem = None,
        }
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
}
