//! Tells a fresh `sequenceId` from a duplicate, a replay and a sender that started again. A fresh
//! number is ahead of the last one by no more than the time between them explains; anything else
//! is stale, until stale numbers keep advancing while the old series is silent: then the sender has
//! restarted. Sixteen bits wrap after 512 s at 128 messages/s, so "ahead" alone would not do.

use super::intervals_in;
use ptp_common::time::{Duration, Mono, Time};

/// How far ahead a number may be without any time having passed, and how far apart the numbers of a
/// restarted series may be.
const SLACK: u16 = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Fresh,
    Duplicate,
    Stale,
}

#[derive(Clone, Debug)]
pub(super) struct SequenceGuard {
    last: Option<(u16, Time<Mono>)>,
    restart: Option<(u16, u8)>,
    restart_after: u8,
    silent_half_intervals: i32,
}

impl SequenceGuard {
    /// A restart is believed after `restart_after` stale numbers in ascending order, and
    /// `silent_half_intervals` halves of the message interval after the last fresh one.
    pub(super) const fn new(restart_after: u8, silent_half_intervals: i32) -> Self {
        Self { last: None, restart: None, restart_after, silent_half_intervals }
    }

    /// Judges a number; changes nothing but what is remembered about a possible restart.
    pub(super) fn check(
        &mut self,
        now: Time<Mono>,
        sequence_id: u16,
        interval: Duration,
    ) -> Verdict {
        let Some((last, at)) = self.last else { return Verdict::Fresh };
        let ahead = sequence_id.wrapping_sub(last);
        let explained =
            intervals_in(now - at, interval).saturating_mul(4).saturating_add(u64::from(SLACK));
        if (1..=0x7fff).contains(&ahead) && u64::from(ahead) <= explained {
            return Verdict::Fresh;
        }
        let streak = match self.restart {
            Some((previous, streak)) => match sequence_id.wrapping_sub(previous) {
                0 => streak,
                1..=SLACK => streak.saturating_add(1),
                _ => 1,
            },
            None => 1,
        };
        self.restart = Some((sequence_id, streak));
        let silence = (interval * self.silent_half_intervals).half();
        if streak >= self.restart_after && now - at >= silence {
            self.last = Some((sequence_id.wrapping_sub(1), now));
            self.restart = None;
            return Verdict::Fresh;
        }
        if ahead == 0 { Verdict::Duplicate } else { Verdict::Stale }
    }

    /// Takes a number as the latest one.
    pub(super) fn accept(&mut self, now: Time<Mono>, sequence_id: u16) {
        self.last = Some((sequence_id, now));
        self.restart = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(second: i64) -> Time<Mono> {
        Time::from_nanos(second * 1_000_000_000)
    }

    fn take(guard: &mut SequenceGuard, second: i64, sequence_id: u16) -> Verdict {
        let verdict = guard.check(at(second), sequence_id, SECOND);
        if verdict == Verdict::Fresh {
            guard.accept(at(second), sequence_id);
        }
        verdict
    }

    #[test]
    fn the_wrap_from_65535_to_0_is_fresh() {
        let mut guard = SequenceGuard::new(3, 4);
        assert_eq!(take(&mut guard, 0, 65_535), Verdict::Fresh);
        assert_eq!(take(&mut guard, 1, 0), Verdict::Fresh);
        assert_eq!(take(&mut guard, 2, 65_535), Verdict::Stale);
    }

    #[test]
    fn replays_between_live_messages_never_pass() {
        let mut guard = SequenceGuard::new(3, 4);
        for n in 0..200_u16 {
            assert_eq!(take(&mut guard, i64::from(n), 1_000 + n), Verdict::Fresh);
            assert_eq!(take(&mut guard, i64::from(n), 1_000 + n), Verdict::Duplicate);
            for old in 0..10 {
                assert_eq!(take(&mut guard, i64::from(n), 500 + old), Verdict::Stale);
                // A recording of more than 32 768 messages ago looks "ahead".
                assert_eq!(take(&mut guard, i64::from(n), 20_000 + old), Verdict::Stale);
            }
        }
    }

    #[test]
    fn a_sender_that_restarts_at_zero_is_believed_after_three_messages() {
        let mut guard = SequenceGuard::new(3, 4);
        assert_eq!(take(&mut guard, 0, 10), Verdict::Fresh);
        assert_eq!(take(&mut guard, 1, 0), Verdict::Stale);
        assert_eq!(take(&mut guard, 2, 1), Verdict::Stale);
        assert_eq!(take(&mut guard, 3, 2), Verdict::Fresh);
        assert_eq!(take(&mut guard, 4, 3), Verdict::Fresh);
    }

    #[test]
    fn an_outage_explains_a_jump_ahead() {
        let mut guard = SequenceGuard::new(3, 4);
        assert_eq!(take(&mut guard, 0, 10), Verdict::Fresh);
        assert_eq!(take(&mut guard, 1_000, 1_010), Verdict::Fresh);
    }
}
