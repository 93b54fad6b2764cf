//! Which authenticated messages are new: a window of sequence numbers per port, source and message type.
//! A number is taken once, and only if it is not far behind or ahead of the newest. After a silence of
//! several intervals a sender may begin anew, as one that was restarted does: then two messages in a row
//! must agree, so that a single old message in the gap moves nothing.
//!
//! Answers (Delay_Resp, Pdelay_Resp and its Follow_Up) carry the number of a request and are bound by
//! that; they have no window.

use std::num::NonZeroUsize;

use lru::LruCache;
use ptp_common::{
    time::{Duration, Mono, Time},
    wire::{MessageKey, MessageType, PortIdentity},
};

/// Windows that are kept; the one that was not used for longest goes. Only who has a key makes one.
const WINDOWS: usize = 4096;
/// Numbers behind the newest of which it is known whether they were taken.
const BEHIND: u16 = 64;
/// Numbers that a sender may be ahead of the newest where nothing else is set: a burst of losses.
pub(super) const AHEAD: u16 = 64;
/// A sender that was silent for so many of its intervals may begin anew.
const SILENT_INTERVALS: i32 = 3;
/// At least so long, and at most.
const SILENCE: [Duration; 2] = [Duration::from_secs(3), Duration::from_secs(60)];

/// Names a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Stream {
    port: u32,
    source: PortIdentity,
    kind: MessageType,
    domain_number: u8,
    sdo_id: u16,
}

#[derive(Clone, Copy, Debug)]
struct Window {
    newest: u16,
    /// Bit n: number `newest - n` was taken.
    taken: u64,
    last: Time<Mono>,
    /// Where the sender seems to have begun anew.
    anew: Option<u16>,
}

/// All windows.
#[derive(Debug)]
pub(super) struct Windows {
    windows: LruCache<Stream, Window>,
}

impl Default for Windows {
    fn default() -> Self {
        Self { windows: LruCache::new(const { NonZeroUsize::new(WINDOWS).unwrap() }) }
    }
}

/// Whether messages of a type have sequence numbers of their sender's own.
const fn has_own_numbers(kind: MessageType) -> bool {
    !matches!(
        kind,
        MessageType::DelayResp | MessageType::PdelayResp | MessageType::PdelayRespFollowUp
    )
}

impl Windows {
    /// Whether an authenticated message is new; then it is taken. `ahead` is how far numbers may jump, 0
    /// for no check; `log_interval` is what the sender says of its interval.
    pub(super) fn admit(
        &mut self,
        now: Time<Mono>,
        port: u32,
        key: &MessageKey,
        log_interval: i8,
        ahead: u16,
    ) -> bool {
        if ahead == 0 || !has_own_numbers(key.message_type) {
            return true;
        }
        let stream = Stream {
            port,
            source: key.source_port_identity,
            kind: key.message_type,
            domain_number: key.domain_number,
            sdo_id: key.sdo_id,
        };
        let number = key.sequence_id;
        let Some(window) = self.windows.get_mut(&stream) else {
            self.windows.push(stream, Window { newest: number, taken: 1, last: now, anew: None });
            return true;
        };
        let step = number.wrapping_sub(window.newest);
        if (1..=ahead).contains(&step) {
            let shift = u32::from(step);
            window.taken = window.taken.checked_shl(shift).unwrap_or(0) | 1;
            window.newest = number;
            window.last = now;
            window.anew = None;
            return true;
        }
        let back = window.newest.wrapping_sub(number);
        if back < BEHIND {
            let bit = 1 << back;
            let is_new = window.taken & bit == 0;
            window.taken |= bit;
            return is_new;
        }
        if now - window.last < silence(log_interval) {
            window.anew = None;
            return false;
        }
        let follows =
            window.anew.is_some_and(|anew| (1..=ahead).contains(&number.wrapping_sub(anew)));
        if follows {
            *window = Window { newest: number, taken: 1, last: now, anew: None };
        } else {
            window.anew = Some(number);
        }
        follows
    }

    /// How many there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.windows.len()
    }
}

fn silence(log_interval: i8) -> Duration {
    let interval = match log_interval {
        -10..=6 => Duration::from_log_interval(log_interval),
        // Unknown, as in a request.
        _ => Duration::from_secs(1),
    };
    (interval * SILENT_INTERVALS).clamp(SILENCE[0], SILENCE[1])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use ptp_common::wire::ClockIdentity;

    fn key(kind: MessageType, clock: u8, sequence_id: u16) -> MessageKey {
        let clock_identity = ClockIdentity([clock; 8]);
        MessageKey {
            domain_number: 0,
            sdo_id: 0,
            message_type: kind,
            source_port_identity: PortIdentity { clock_identity, port_number: 1 },
            sequence_id,
        }
    }

    fn at(millis: i64) -> Time<Mono> {
        Time::ZERO + Duration::from_millis(millis)
    }

    fn sync(windows: &mut Windows, millis: i64, number: u16) -> bool {
        windows.admit(at(millis), 0, &key(MessageType::Sync, 1, number), -3, AHEAD)
    }

    #[test]
    fn each_number_is_taken_once_in_whatever_order_it_comes() {
        let mut windows = Windows::default();
        for number in [65534, 65535, 1, 0, 3] {
            assert!(sync(&mut windows, 0, number), "{number}");
        }
        for number in [65534, 65535, 0, 1, 3] {
            assert!(!sync(&mut windows, 0, number), "{number}");
        }
        assert!(sync(&mut windows, 0, 2));
    }

    #[test]
    fn what_is_far_behind_or_ahead_is_refused_while_the_sender_speaks() {
        let mut windows = Windows::default();
        for number in 0..1000 {
            assert!(sync(&mut windows, i64::from(number) * 125, number));
            assert!(!sync(&mut windows, i64::from(number) * 125, number.wrapping_sub(200)));
            assert!(!sync(&mut windows, i64::from(number) * 125, number + 200));
        }
    }

    #[test]
    fn burst_of_losses_within_the_window_is_no_replay() {
        let mut windows = Windows::default();
        assert!(sync(&mut windows, 0, 10) && sync(&mut windows, 8_000, 10 + AHEAD));
        assert!(!sync(&mut windows, 8_000, 10 + 2 * AHEAD + 1));
    }

    #[test]
    fn sender_that_was_restarted_is_believed_at_its_second_message() {
        let mut windows = Windows::default();
        assert!(sync(&mut windows, 0, 5000));
        assert!(!sync(&mut windows, 1_000, 0) && !sync(&mut windows, 1_125, 1));
        assert!(!sync(&mut windows, 4_000, 2) && sync(&mut windows, 4_125, 3));
        assert!(sync(&mut windows, 4_250, 4));
    }

    #[test]
    fn one_old_message_in_a_gap_moves_nothing() {
        let mut windows = Windows::default();
        assert!(sync(&mut windows, 0, 5000));
        assert!(!sync(&mut windows, 10_000, 700));
        assert!(sync(&mut windows, 10_100, 5001));
        assert!(!sync(&mut windows, 10_200, 701));
    }

    #[test]
    fn types_sources_and_ports_have_windows_of_their_own() {
        let mut windows = Windows::default();
        let mut admit = |port, key| windows.admit(at(0), port, &key, 0, AHEAD);
        for port in [0, 1] {
            for clock in [1, 2] {
                for kind in [MessageType::Sync, MessageType::FollowUp, MessageType::Management] {
                    assert!(admit(port, key(kind, clock, 7)));
                    assert!(!admit(port, key(kind, clock, 7)));
                }
            }
        }
        // An answer is bound by its request, and many clients use the same numbers.
        for _ in 0..2 {
            assert!(admit(0, key(MessageType::DelayResp, 1, 7)));
        }
    }

    proptest! {
        #[test]
        fn no_number_is_taken_twice_within_the_window_and_memory_is_bounded(
            numbers in prop::collection::vec((any::<u8>(), 0..200_u16), 1..600),
        ) {
            let mut windows = Windows::default();
            let mut taken = std::collections::HashSet::new();
            for (clock, number) in numbers {
                let is_new = windows.admit(at(0), 0, &key(MessageType::Sync, clock, number), 0, AHEAD);
                if is_new {
                    prop_assert!(taken.insert((clock, number)));
                }
            }
            prop_assert!(windows.len() <= WINDOWS);
        }
    }
}
