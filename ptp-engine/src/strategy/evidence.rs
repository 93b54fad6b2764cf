//! Does a request make the Sync that follows it faster? Each such Sync has a rank among those that nobody
//! asked for; if a request changes nothing, ranks are uniform, and the logarithms of their inverses have
//! mean and variance one. A grandmaster with stamps in hardware, or one that primes itself, is not changed.

use crate::math;
#[cfg(target_os = "none")]
use crate::math::Float as _;
use alloc::collections::VecDeque;

/// Ranks that count.
const RANKS: usize = 24;
/// Sync messages to compare with.
const COMPARED: usize = 8;
/// Ranks that are needed to say that it does, and that it does not.
const LEAST: usize = 3;
const ENOUGH: usize = 16;
/// Standard deviations from what chance would make.
const CERTAIN: f64 = 3.5;
const CHANCE: f64 = 1.0;

/// The latest ranks.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    ranks: VecDeque<f64>,
    verdict: Option<bool>,
}

impl Evidence {
    /// A Sync that followed a request, and those that followed none.
    pub(super) fn hit(&mut self, round_ns: f64, others: impl Iterator<Item = f64>) {
        let (mut faster, mut count) = (0_usize, 0_usize);
        for other in others {
            count += 1;
            faster += usize::from(other < round_ns);
        }
        if count < COMPARED {
            return;
        }
        if self.ranks.len() == RANKS {
            self.ranks.pop_front();
        }
        self.ranks.push_back((faster as f64 + 0.5) / (count as f64 + 1.0));
        let n = self.ranks.len() as f64;
        let sum: f64 = self.ranks.iter().map(|rank| -math::ln(*rank)).sum();
        let deviation = (sum - n) / n.sqrt();
        self.verdict = match deviation {
            CERTAIN.. if self.ranks.len() >= LEAST => Some(true),
            ..CHANCE if self.ranks.len() >= ENOUGH => Some(false),
            // Between the two what was certain stays so.
            _ => self.verdict,
        };
    }

    /// Whether it does; `None` while it is not certain.
    pub(super) const fn verdict(&self) -> Option<bool> {
        self.verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prelude::*;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn three_sync_messages_that_are_faster_than_all_others_are_enough() {
        let mut evidence = Evidence::default();
        let others = || (0..64).map(|n| 2_000.0 + f64::from(n));
        evidence.hit(500.0, others());
        evidence.hit(510.0, others());
        assert_eq!(evidence.verdict(), None);
        evidence.hit(700.0, others());
        assert_eq!(evidence.verdict(), Some(true));
    }

    #[test]
    fn grandmaster_that_is_not_changed_is_known_after_some_dozen_requests() {
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let mut wrong = 0;
        for _ in 0..200 {
            let mut evidence = Evidence::default();
            let others: Vec<f64> = (0..64).map(|_| rng.random()).collect();
            for _ in 0..64 {
                evidence.hit(rng.random(), others.iter().copied());
                wrong += u32::from(evidence.verdict() == Some(true));
            }
            assert_ne!(evidence.verdict(), None);
        }
        assert!(wrong < 200 * 64 / 50, "{wrong}");
    }

    #[test]
    fn nothing_is_said_while_every_sync_follows_a_request() {
        let mut evidence = Evidence::default();
        for _ in 0..100 {
            evidence.hit(500.0, core::iter::empty());
        }
        assert_eq!(evidence.verdict(), None);
    }
}
