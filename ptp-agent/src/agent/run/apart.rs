//! How far the offsets of single exchanges are from the filtered one: noise makes some of them far, but not all.

use std::collections::VecDeque;

use ptp_common::time::Duration;

/// Exchanges that are looked at.
const LATEST: usize = 16;

/// The latest distances.
#[derive(Debug, Default)]
pub(super) struct Apart {
    distances: VecDeque<Duration>,
}

impl Apart {
    /// A sample of a clock that is locked; `None` of one that is not, which begins anew.
    pub(super) fn sample(&mut self, distance: Option<Duration>) {
        let Some(distance) = distance else { return self.distances.clear() };
        if self.distances.len() == LATEST {
            self.distances.pop_front();
        }
        self.distances.push_back(distance.abs());
    }

    /// The least of them, once there are enough: nobody is nearer.
    pub(super) fn least(&self) -> Option<Duration> {
        (self.distances.len() == LATEST).then(|| self.distances.iter().min().copied()).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_is_near_among_many_that_are_far_is_enough() {
        let mut apart = Apart::default();
        for n in 0..LATEST as i64 - 1 {
            apart.sample(Some(Duration::from_micros(-1_000 - n)));
            assert_eq!(apart.least(), None);
        }
        apart.sample(Some(Duration::from_micros(3)));
        assert_eq!(apart.least(), Some(Duration::from_micros(3)));
        for _ in 0..LATEST {
            apart.sample(Some(Duration::from_micros(500)));
        }
        assert_eq!(apart.least(), Some(Duration::from_micros(500)));
        apart.sample(None);
        assert_eq!(apart.least(), None);
    }
}
