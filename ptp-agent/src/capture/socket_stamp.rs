//! The stack's receive stamp as the socket has it. It is the very number that the program at TC ingress has
//! read from the same packet, so it says which record is a message's: a packet that the stack drops behind
//! the hook (wrong checksum, reverse path filter, firewall) leaves a record too, and may be byte for byte
//! the one that follows. And where no program has seen the message, it is the stamp.

use ptp_common::time::{Duration, Mono, Real, Time};

use super::{Candidates, ClockRelation};
use crate::stamp::{Stamp, StampSource};

/// Messages that were stamped before a step of CLOCK_REALTIME may be waiting for so long after it.
const UNSURE: Duration = Duration::from_secs(1);
/// Both clocks of a relation are read exactly; what differs by more is another relation.
const SAME: Duration = Duration::from_micros(1);

/// Translates the sockets' stamps to the clock of all others.
#[derive(Debug, Default)]
pub struct SocketStamps {
    real_minus_mono: Option<Duration>,
    unsure_until: Option<Time<Mono>>,
}

impl SocketStamps {
    /// The stamp of a message received now; `None` where it has none, or where CLOCK_REALTIME has been
    /// stepped so lately that nobody knows on which side of the step it was taken.
    pub fn stamp(
        &mut self,
        now: Time<Mono>,
        relation: &ClockRelation,
        stack: Option<Time<Real>>,
    ) -> Option<Stamp> {
        let before = self.real_minus_mono.replace(relation.real_minus_mono);
        if before.is_some_and(|before| (before - relation.real_minus_mono).abs() > SAME) {
            self.unsure_until = Some(now + UNSURE);
        }
        if self.unsure_until.is_some_and(|until| now < until) {
            return None;
        }
        Some(Stamp::new(relation.mono_at(stack?), StampSource::Stack))
    }
}

/// Whether the record that these stamps are from may be of the message that the socket has stamped so.
/// One without a stamp of the stack's may be anybody's.
pub fn is_of_socket(stamps: &Candidates, socket: &Stamp) -> bool {
    stamps.time(StampSource::Stack).is_none_or(|recorded| (recorded - socket.time).abs() <= SAME)
}

/// Whether these stamps are of a packet that came before the message. A socket delivers in order, so none
/// of its later messages is that packet either: the stack has dropped it.
pub fn is_before_socket(stamps: &Candidates, socket: &Stamp) -> bool {
    stamps.time(StampSource::Stack).is_some_and(|recorded| recorded < socket.time - SAME)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn relation(real_minus_mono: i64) -> ClockRelation {
        let real_minus_mono = Duration::from_nanos(real_minus_mono);
        ClockRelation { real_minus_mono, tai_minus_mono: real_minus_mono }
    }

    fn at(nanos: i64) -> Time<Mono> {
        Time::from_nanos(nanos)
    }

    #[test]
    fn stamp_is_moved_to_the_monotonic_clock() {
        let mut stamps = SocketStamps::default();
        let stamp =
            stamps.stamp(at(5_000), &relation(1_000_000), Some(Time::from_nanos(1_004_000)));
        assert_eq!(stamp, Some(Stamp::new(at(4_000), StampSource::Stack)));
        assert_eq!(stamps.stamp(at(6_000), &relation(1_000_000), None), None);
    }

    #[test]
    fn stamps_around_a_step_of_the_clock_are_not_used() {
        let mut stamps = SocketStamps::default();
        let stack = Some(Time::from_nanos(2_000_000_000));
        assert!(stamps.stamp(at(0), &relation(0), stack).is_some());
        let step = relation(1_000_000_000);
        assert_eq!(stamps.stamp(at(1_000), &step, stack), None);
        assert_eq!(stamps.stamp(at(900_000_000), &step, stack), None);
        assert!(stamps.stamp(at(1_100_000_000), &step, stack).is_some());
    }

    #[test]
    fn earlier_packets_are_never_claimed_any_more_and_later_ones_may_be() {
        let socket = Stamp::new(at(100_000), StampSource::Stack);
        let record = |nanos| Candidates::one(Stamp::new(at(nanos), StampSource::Stack));
        assert!(is_before_socket(&record(50_000), &socket));
        assert!(!is_before_socket(&record(100_000), &socket));
        assert!(!is_before_socket(&record(150_000), &socket));
        let unknown = Candidates::one(Stamp::new(at(1), StampSource::TcIngress));
        assert!(!is_before_socket(&unknown, &socket));
    }

    #[test]
    fn record_of_another_packet_is_told_by_the_stacks_stamp() {
        let socket = Stamp::new(at(100_000), StampSource::Stack);
        let record = |nanos| Candidates::one(Stamp::new(at(nanos), StampSource::Stack));
        assert!(is_of_socket(&record(100_000), &socket));
        assert!(
            !is_of_socket(&record(50_000), &socket) && !is_of_socket(&record(150_000), &socket)
        );
        let unknown = Candidates::one(Stamp::new(at(1), StampSource::TcIngress));
        assert!(is_of_socket(&unknown, &socket));
    }
}
