//! Whether packets still reach our programs in one direction, and when to attach these again. Evidence
//! are messages that the socket has seen and no program, and somebody else's program in front of ours.
//! Pure bookkeeping: the caller tells the time and does what is to be done.

use ptp_common::time::{Duration, Mono, Time};

/// So many messages in a row without a record are no chance.
const ENOUGH: u32 = 3;
/// Between two attempts, at first; it doubles with each that was in vain, for two programs that both want
/// to be first would else never end.
const SHORTEST: Duration = Duration::from_secs(1);
/// And at last.
const LONGEST: Duration = Duration::from_secs(64);

/// See the module's paragraph.
#[derive(Debug, Default)]
pub struct Reach {
    missed: u32,
    behind: bool,
    wait: Option<(Time<Mono>, Duration)>,
    attached_again: u64,
}

impl Reach {
    /// A program has seen a message.
    pub fn reached(&mut self) {
        self.missed = 0;
    }

    /// A message was received or sent, and no program has seen it.
    pub fn missed(&mut self) {
        self.missed = self.missed.saturating_add(1);
    }

    /// Whether somebody else's program was found in front of ours.
    pub fn set_behind(&mut self, behind: bool) {
        self.behind = behind;
    }

    /// Whether somebody else's program was found in front of ours, or ours was not found.
    pub const fn is_behind(&self) -> bool {
        self.behind
    }

    /// Whether packets do not reach our programs.
    pub const fn is_displaced(&self) -> bool {
        self.missed >= ENOUGH
    }

    /// How often our programs were to be attached again.
    pub const fn attached_again(&self) -> u64 {
        self.attached_again
    }

    /// Whether our programs shall be attached again now.
    pub fn wants_again(&mut self, now: Time<Mono>) -> bool {
        if !self.is_displaced() && !self.behind {
            return false;
        }
        let wait = match self.wait {
            Some((last, wait)) if now < last + wait => return false,
            // It was well for as long as it had taken to wait: a new story.
            Some((last, wait)) if now > last + wait * 4 => SHORTEST,
            Some((_, wait)) => (wait * 2).min(LONGEST),
            None => SHORTEST,
        };
        self.wait = Some((now, wait));
        self.attached_again += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Time<Mono> {
        Time::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn single_lost_records_are_no_displacement() {
        let mut reach = Reach::default();
        for _ in 0..10 {
            reach.missed();
            reach.missed();
            assert!(!reach.wants_again(at(1)));
            reach.reached();
        }
        reach.missed();
        reach.missed();
        reach.missed();
        assert!(reach.is_displaced() && reach.wants_again(at(1)));
    }

    #[test]
    fn attempts_in_vain_become_rare_and_never_end() {
        let mut reach = Reach::default();
        (0..3).for_each(|_| reach.missed());
        let attempts: Vec<i64> = (0..600).filter(|second| reach.wants_again(at(*second))).collect();
        assert_eq!(attempts[..7], [0, 1, 3, 7, 15, 31, 63]);
        assert!(attempts.windows(2).all(|pair| pair[1] - pair[0] <= 64));
        assert_eq!(reach.attached_again(), attempts.len() as u64);
    }

    #[test]
    fn somebody_in_front_is_enough_and_a_later_one_is_met_at_once() {
        let mut reach = Reach::default();
        reach.set_behind(true);
        assert!(reach.wants_again(at(0)) && reach.wants_again(at(1)));
        reach.set_behind(false);
        assert!(!reach.wants_again(at(100)));
        reach.set_behind(true);
        assert!(reach.wants_again(at(100)) && reach.wants_again(at(101)));
        assert!(!reach.is_displaced());
    }
}
