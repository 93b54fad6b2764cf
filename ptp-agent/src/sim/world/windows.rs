//! Times in which something is so: given ones, and random ones that are made as time comes to them.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::sim::{
    noise::{Source, exponential},
    scenario::Stall,
};

pub(super) fn nanos(seconds: f64) -> i64 {
    (seconds * 1e9).round() as i64
}

/// Given times, seconds, each with its beginning and without its end.
#[derive(Clone, Debug, Default)]
pub(super) struct Windows(Vec<[f64; 2]>);

impl Windows {
    /// In any order, and they may overlap.
    pub(super) fn new(windows: impl Iterator<Item = [f64; 2]>) -> Self {
        let mut all: Vec<[f64; 2]> = windows.filter(|[from, to]| from < to).collect();
        all.sort_by(|a, b| a[0].total_cmp(&b[0]));
        let mut merged: Vec<[f64; 2]> = Vec::new();
        for [from, to] in all {
            match merged.last_mut() {
                Some(last) if from <= last[1] => last[1] = last[1].max(to),
                _ => merged.push([from, to]),
            }
        }
        Self(merged)
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The end of the one that `at_s` is in.
    pub(super) fn end_s(&self, at_s: f64) -> Option<f64> {
        let begun = self.0.partition_point(|[from, _]| *from <= at_s);
        let [_, to] = self.0[begun.checked_sub(1)?];
        (at_s < to).then_some(to)
    }

    pub(super) fn contains(&self, at_s: f64) -> bool {
        self.end_s(at_s).is_some()
    }
}

/// Times, at random, in which a host stands still.
#[derive(Debug)]
pub(super) struct Stalls {
    every_ns: f64,
    length: Source,
    rng: ChaCha8Rng,
    /// Those that are known and may still be asked for, in order of time; the last one is ahead of all
    /// that was asked for.
    known: std::collections::VecDeque<[i64; 2]>,
}

impl Stalls {
    pub(super) fn new(settings: &Stall, seed: u64) -> Self {
        let mut stalls = Self {
            every_ns: settings.every_s.get() * 1e9,
            length: Source::new(&settings.length),
            rng: ChaCha8Rng::seed_from_u64(seed),
            known: std::collections::VecDeque::new(),
        };
        stalls.extend(0);
        stalls
    }

    fn extend(&mut self, after_ns: i64) {
        let from_ns = after_ns.saturating_add((self.every_ns * exponential(&mut self.rng)) as i64);
        let length = self.length.draw(from_ns as f64 * 1e-9, &mut self.rng).max(1.0);
        self.known.push_back([from_ns, from_ns.saturating_add(length as i64)]);
    }

    /// The end of the one that `at_ns` is in. Nothing before `now_ns` will be asked for again.
    pub(super) fn end_ns(&mut self, now_ns: i64, at_ns: i64) -> Option<i64> {
        while let Some(&[from_ns, to_ns]) = self.known.back()
            && from_ns <= at_ns
        {
            self.extend(to_ns);
        }
        while self.known.len() > 1 && self.known[0][1] <= now_ns {
            self.known.pop_front();
        }
        self.known
            .iter()
            .find(|[from_ns, to_ns]| (*from_ns..*to_ns).contains(&at_ns))
            .map(|[_, to_ns]| *to_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_that_touch_are_one() {
        let windows = Windows::new([[5.0, 6.0], [1.0, 2.0], [1.5, 3.0], [6.0, 7.0]].into_iter());
        assert_eq!(windows.end_s(1.0), Some(3.0));
        assert_eq!(windows.end_s(5.5), Some(7.0));
        assert!(!windows.contains(3.0) && !windows.contains(0.5) && !windows.contains(7.0));
        assert!(Windows::default().is_empty());
    }

    #[test]
    fn stalls_are_as_long_and_as_frequent_as_they_are_said_to_be() {
        let settings = toml::from_str("every-s = 2\nlength.constant.ns = 500000000").unwrap();
        let mut stalls = Stalls::new(&settings, 1);
        let step_ns = 1_000_000;
        let still =
            (0..2_000_000).filter(|n| stalls.end_ns(n * step_ns, n * step_ns).is_some()).count();
        assert!((still as f64 / 2e6 - 0.2).abs() < 0.02, "{still}");
        // What is asked for ahead is the same when it is there.
        let mut ahead = Stalls::new(&settings, 2);
        let end = (0..).find_map(|n| ahead.end_ns(0, n * step_ns).map(|end| (n * step_ns, end)));
        let (at, end) = end.unwrap();
        assert_eq!(ahead.end_ns(at, at), Some(end));
    }
}
