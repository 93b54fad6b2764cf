//! The least of what was seen in the last minutes, second by second, so that it costs little however much is
//! seen.

use alloc::collections::BTreeMap;
use ptp_common::time::{Free, Time};

/// How long a least value counts, seconds.
const MEMORY: i64 = 120;

/// The least values of each second.
#[derive(Debug, Default)]
pub(super) struct Least(BTreeMap<i64, f64>);

impl Least {
    /// A value, in any order of time.
    pub(super) fn push(&mut self, at: Time<Free>, value: f64) {
        let least = self.0.entry(second(at)).or_insert(value);
        *least = least.min(value);
    }

    /// The least value at `now`.
    pub(super) fn value(&mut self, now: Time<Free>) -> Option<f64> {
        self.0 = self.0.split_off(&(second(now) - MEMORY));
        self.0.values().copied().reduce(f64::min)
    }
}

fn second(at: Time<Free>) -> i64 {
    at.as_nanos().div_euclid(1_000_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn least_value_counts_for_two_minutes() {
        let at = |ms: i64| Time::from_nanos(1_000_000_000_000 + ms * 1_000_000);
        let mut least = Least::default();
        for n in (0..2_000).rev() {
            least.push(at(n * 100), if n == 300 { 5.0 } else { 7.0 + (n % 3) as f64 });
        }
        assert_eq!(least.value(at(140_000)), Some(5.0));
        assert_eq!(least.value(at(200_000)), Some(7.0));
        assert!(least.0.len() <= 121);
    }
}
