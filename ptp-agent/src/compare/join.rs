//! Brings the stamps of one packet together, which come in any order out of rings, sockets and
//! error queues. Pure bookkeeping, bounded in number and age.

use std::collections::VecDeque;

use ptp_common::{
    time::{Duration, Mono, Time},
    wire::MessageKey,
};

use super::point::Point;

/// Packets that wait for stamps at the most.
const CAPACITY: usize = 4096;

/// One stamp of one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sighting {
    /// Which message.
    pub(super) key: MessageKey,
    /// Where.
    pub(super) point: Point,
    /// When, nanoseconds of CLOCK_MONOTONIC, or of the NIC's time for hardware stamps.
    pub(super) ns: i64,
}

/// All stamps of one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Packet {
    /// Which message.
    pub(super) key: MessageKey,
    /// Told packets with the same key apart: the direction on one interface, nothing where both
    /// ends of a link are watched and the stamps of both belong together.
    scope: u8,
    since: Time<Mono>,
    stamps: [Option<i64>; Point::COUNT],
}

impl Packet {
    /// The stamp taken at `point`.
    pub(super) const fn at(&self, point: Point) -> Option<i64> {
        self.stamps[point as usize]
    }

    /// Adds a stamp that follows from the others.
    pub(super) const fn derive(&mut self, point: Point, ns: i64) {
        self.stamps[point as usize] = Some(ns);
    }

    /// `later` minus `earlier`, nanoseconds, where there are both.
    pub(super) fn between(&self, later: Point, earlier: Point) -> Option<i64> {
        self.at(later)?.checked_sub(self.at(earlier)?)
    }
}

/// What belongs together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// One interface: a packet is either received or sent.
    Interface,
    /// Both ends of a link: a packet is sent and received.
    Link,
}

/// Packets whose stamps are still coming in.
#[derive(Debug)]
pub(super) struct Join {
    scope: Scope,
    waiting: VecDeque<Packet>,
    /// Packets that were given out early because too many waited.
    pub(super) overrun: u64,
}

impl Join {
    /// How long stamps of a packet are waited for: a queueing discipline may hold it, and a hardware
    /// stamp may take milliseconds.
    pub(super) const PATIENCE: Duration = Duration::from_millis(300);

    /// An empty one.
    pub(super) const fn new(scope: Scope) -> Self {
        Self { scope, waiting: VecDeque::new(), overrun: 0 }
    }

    /// Takes a stamp. Of packets that are equal (a replay, or a message seen twice) the first that
    /// lacks this stamp gets it. Returns the oldest packet if there was no room any more.
    pub(super) fn push(&mut self, now: Time<Mono>, sighting: Sighting) -> Option<Packet> {
        let Sighting { key, point, ns } = sighting;
        let scope = match self.scope {
            Scope::Interface => point.direction() as u8,
            Scope::Link => 0,
        };
        let found = self.waiting.iter_mut().find(|packet| {
            packet.scope == scope && packet.key == key && packet.at(point).is_none()
        });
        if let Some(packet) = found {
            packet.stamps[point as usize] = Some(ns);
            return None;
        }
        let mut packet = Packet { key, scope, since: now, stamps: [None; Point::COUNT] };
        packet.stamps[point as usize] = Some(ns);
        self.waiting.push_back(packet);
        if self.waiting.len() > CAPACITY {
            self.overrun += 1;
            return self.waiting.pop_front();
        }
        None
    }

    /// The next packet that has waited long enough.
    pub(super) fn pop(&mut self, now: Time<Mono>) -> Option<Packet> {
        self.waiting.pop_front_if(|packet| now - packet.since > Self::PATIENCE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ptp_common::wire::{ClockIdentity, MessageType, PortIdentity};

    fn key(sequence_id: u16) -> MessageKey {
        MessageKey {
            domain_number: 0,
            sdo_id: 0,
            message_type: MessageType::Sync,
            source_port_identity: PortIdentity {
                clock_identity: ClockIdentity([1; 8]),
                port_number: 1,
            },
            sequence_id,
        }
    }

    fn seen(sequence_id: u16, point: Point, ns: i64) -> Sighting {
        Sighting { key: key(sequence_id), point, ns }
    }

    const NOW: Time<Mono> = Time::from_nanos(1_000_000_000);

    fn late() -> Time<Mono> {
        NOW + Join::PATIENCE + Duration::from_nanos(1)
    }

    #[test]
    fn stamps_of_one_packet_come_together_in_any_order() {
        let mut join = Join::new(Scope::Interface);
        for sighting in [
            seen(1, Point::XmitDone, 30),
            seen(2, Point::TcEgress, 50),
            seen(1, Point::TcEgress, 10),
            seen(1, Point::TxSoftware, 25),
        ] {
            assert_eq!(join.push(NOW, sighting), None);
        }
        assert_eq!(join.pop(NOW), None);
        let packet = join.pop(late()).unwrap();
        assert_eq!(packet.between(Point::XmitDone, Point::TxSoftware), Some(5));
        assert_eq!(packet.between(Point::StartXmit, Point::TxSoftware), None);
        assert_eq!(join.pop(late()).unwrap().at(Point::TcEgress), Some(50));
        assert_eq!(join.pop(late()), None);
    }

    #[test]
    fn ends_of_a_link_share_a_packet_and_directions_of_an_interface_do_not() {
        for (scope, packets) in [(Scope::Link, 1), (Scope::Interface, 2)] {
            let mut join = Join::new(scope);
            join.push(NOW, seen(1, Point::TcEgress, 10));
            join.push(NOW, seen(1, Point::Stack, 20));
            assert_eq!(std::iter::from_fn(|| join.pop(late())).count(), packets);
        }
    }

    #[test]
    fn replayed_packets_are_two() {
        let mut join = Join::new(Scope::Interface);
        for ns in [10, 20] {
            join.push(NOW, seen(1, Point::Stack, ns));
            join.push(NOW, seen(1, Point::RxSoftware, ns));
        }
        let packets: Vec<Packet> = std::iter::from_fn(|| join.pop(late())).collect();
        assert_eq!(packets.len(), 2);
        assert!(packets.iter().all(|p| p.between(Point::Stack, Point::RxSoftware) == Some(0)));
    }

    #[test]
    fn flood_of_packets_is_bounded_and_counted() {
        let mut join = Join::new(Scope::Interface);
        let early = (0..=CAPACITY as u16)
            .filter_map(|id| join.push(NOW, seen(id, Point::Stack, 1)))
            .count();
        assert_eq!((early, join.overrun), (1, 1));
    }

    #[test]
    fn absurd_stamps_do_not_overflow() {
        let mut join = Join::new(Scope::Interface);
        join.push(NOW, seen(1, Point::Stack, i64::MAX));
        join.push(NOW, seen(1, Point::RxSoftware, i64::MIN));
        assert_eq!(join.pop(late()).unwrap().between(Point::Stack, Point::RxSoftware), None);
    }
}
