//! Whether the frequency wandered while the first packets came, more than that of any oscillator: a clock that another
//! servo is chasing, or a machine that is not told its time evenly. A line through the packets takes such for their noise, and the first
//! estimate then believes that it is to be averaged. But a round trip no wander touches: what they do not have is none of the packets'.

#[cfg(target_os = "none")]
use crate::math::Float as _;
use crate::{math::median, prelude::*};

/// Round trips that are needed to tell.
const NEEDED: usize = 6;
/// So many times as far as round trips spread, halved, must time be from a line,
const RATIO: f64 = 6.0;
/// and so far, nanoseconds: what less does, the filters find by themselves.
const LEAST_NS: f64 = 1_000.0;
/// Packets of each direction that tell where the clock is now.
const LATEST: usize = 3;
/// A frequency that wanders by more, ppb² per second, is none: stamps that have nothing to do with each other.
const MOST: f64 = 1e13;
/// Median of the square of a standard normal value.
const MEDIAN_OF_SQUARES: f64 = 0.4549;

/// A frequency that wanders.
#[derive(Debug)]
pub(super) struct Wander {
    /// By so much, ppb² per second.
    pub(super) q: f64,
    /// The latest packets, forward and backward: all that is to be asked where the clock is.
    pub(super) latest: [Vec<(f64, f64)>; 2],
    /// What the packets took beyond the fastest, by their round trips, nanoseconds.
    pub(super) excess: Vec<f64>,
}

impl Wander {
    /// What packets of both directions, in seconds and nanoseconds, say about a line that gains `rate` ns/s.
    pub(super) fn seen(forward: &[(f64, f64)], backward: &[(f64, f64)], rate: f64) -> Option<Self> {
        // When, where the clock was, and how long a packet took, if both took as long.
        let pairs: Vec<[f64; 3]> = backward
            .iter()
            .filter_map(|(at, value)| {
                let ahead = between(forward, *at)?;
                Some([*at, 0.5 * (ahead - value), 0.5 * (ahead + value)])
            })
            .collect();
        if pairs.len() < NEEDED {
            return None;
        }
        let spread = |of: &dyn Fn(&[f64; 3]) -> f64| {
            let middle = median(pairs.iter().map(of).collect());
            median(pairs.iter().map(|pair| (of(pair) - middle).abs()).collect())
        };
        let of_packets = spread(&|[_, _, delay]| *delay);
        let of_time = spread(&|[at, offset, _]| offset - rate * at);
        if of_time < RATIO * of_packets + LEAST_NS {
            return None;
        }
        let from = |points: &[(f64, f64)]| Some(points.iter().rev().nth(LATEST - 1)?.0);
        let from = from(forward)?.min(from(backward)?);
        let latest = [forward, backward]
            .map(|all| all.iter().copied().filter(|(at, _)| *at >= from).collect());
        let least = pairs.iter().map(|[_, _, delay]| *delay).fold(f64::INFINITY, f64::min);
        let excess = pairs.iter().map(|[_, _, delay]| delay - least).collect();
        let q = wander(&pairs).filter(|q| *q < MOST)?;
        Some(Self { q, latest, excess })
    }
}

/// What is at `at` on the lines between `points`.
fn between(points: &[(f64, f64)], at: f64) -> Option<f64> {
    let behind = points.partition_point(|point| point.0 < at);
    let ((from, low), (to, high)) = (*points.get(behind.checked_sub(1)?)?, *points.get(behind)?);
    (to > from).then(|| low + (high - low) * (at - from) / (to - from))
}

/// Of the mean frequencies between pairs, by how much each differs from the one before: an integrated random walk's by two
/// thirds of what it wanders in the time between.
fn wander(pairs: &[[f64; 3]]) -> Option<f64> {
    let [first, .., last] = pairs else { return None };
    let apart = (last[0] - first[0]) / (2 * NEEDED) as f64;
    if apart <= 0.0 {
        return None;
    }
    let mut sparse: Vec<[f64; 2]> = Vec::new();
    for [at, offset, _] in pairs {
        if sparse.last().is_none_or(|before| at - before[0] >= apart) {
            sparse.push([*at, *offset]);
        }
    }
    let rates: Vec<[f64; 2]> = sparse
        .windows(2)
        .map(|pair| {
            let span = pair[1][0] - pair[0][0];
            [span, (pair[1][1] - pair[0][1]) / span]
        })
        .collect();
    let squares: Vec<f64> = rates
        .windows(2)
        .map(|pair| {
            let by = pair[1][1] - pair[0][1];
            by * by / (0.5 * (pair[0][0] + pair[1][0])) * 1.5
        })
        .collect();
    (squares.len() + 2 >= NEEDED).then(|| median(squares) / MEDIAN_OF_SQUARES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt as _, SeedableRng as _};
    use rand_chacha::ChaCha8Rng;

    type Points = Vec<(f64, f64)>;

    /// Packets with delays of 20 us and up to 30 more, and a frequency that wanders by `ppb` per root second.
    fn packets(seed: u64, ppb: f64) -> [Points; 2] {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let (mut offset, mut rate) = (0.0, 20_000.0);
        let mut points = [Vec::new(), Vec::new()];
        for n in 0..1_200 {
            let at = f64::from(n) * 0.01;
            // Sum of twelve: nearly normal, and of variance 1.
            let normal: f64 = (0..12).map(|_| rng.random_range(-0.5..0.5)).sum();
            rate += normal * ppb * 0.1;
            offset += rate * 0.01;
            let delay = 20_000.0 + rng.random_range(0.0_f64..30_000.0);
            if n % 100 == 0 {
                points[0].push((at, offset + delay));
            } else if n % 100 == 40 {
                points[1].push((at, delay - offset));
            }
        }
        points
    }

    #[test]
    fn wander_that_is_no_oscillators_is_told_from_noise_of_packets_and_how_much_it_is() {
        let found = |seed, ppb| {
            let [forward, backward] = packets(seed, ppb);
            Wander::seen(&forward, &backward, 20_000.0).map(|wander| wander.q.sqrt() / ppb)
        };
        let mut of_much: Vec<f64> = (0..60).filter_map(|seed| found(seed, 1e5)).collect();
        assert!(of_much.len() > 45, "{}", of_much.len());
        of_much.sort_unstable_by(f64::total_cmp);
        assert!(of_much[3] > 0.2 && of_much[of_much.len() - 4] < 5.0, "{of_much:?}");
        let of_little = (0..300).filter(|seed| found(*seed, 10.0).is_some()).count();
        assert!(of_little < 3, "{of_little}");
    }
}
