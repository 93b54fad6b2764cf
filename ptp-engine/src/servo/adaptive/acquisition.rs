//! The first estimate: a line under all packets of each direction, both with the same slope, where
//! the mean delay beyond the lines is least. That is the maximum-likelihood line for exponential
//! delays, it needs to know nothing about them, and late packets cannot bend it.

use super::{
    estimator::Estimator,
    filter::{Filter, Way},
    noise::Noise,
    wander::Wander,
};
#[cfg(target_os = "none")]
use crate::math::Float as _;
use crate::{math::median, prelude::*};
use ptp_common::time::{Duration, Free, Time};

/// Packets of each direction that are needed.
const NEEDED: usize = 8;
/// Of an oscillator that has been followed before, so many will do.
const NEEDED_AGAIN: usize = 4;
/// And for so long, seconds: many packets in a short time tell little about frequency.
const NEEDED_S: f64 = 2.0;
/// Where so many Sync have told the rate, fewer answers have to do.
const FEWER: usize = 4;
const PLENTY: usize = 24;
/// A packet is too early to be true by so many times the median distance from the median, and so much more.
const TOO_EARLY: f64 = 30.0;
const TOO_EARLY_NS: f64 = 1_000.0;
/// Packets that are kept of each direction; with so many, time does not matter.
const CAPACITY: usize = 512;
/// Fastest and slowest clock that is looked for, parts per billion.
const RATE_LIMIT_PPB: f64 = 1e6;
/// A clock beyond is believed if the middle half of what pairs of packets say of it is narrower than a part of
/// what is in its middle: then no delay has made it.
const NARROW: f64 = 0.25;
/// Halvings (by the golden section) of that range: to 0.001 ppb.
const SEARCH_STEPS: usize = 44;
const GOLDEN: f64 = 0.618_033_988_749_894_8;

/// What has been seen so far.
#[derive(Debug, Default)]
pub(super) struct Acquisition {
    /// The first forward observation: origin of offset and time.
    first: Option<(Time<Free>, Duration)>,
    forward: Vec<(f64, f64)>,
    backward: Vec<(f64, f64)>,
    peer: Vec<f64>,
}

impl Acquisition {
    pub(super) fn push(&mut self, way: Way, at: Time<Free>, value: Duration) {
        let (first, origin) = match (self.first, way) {
            (Some(first), _) => first,
            (None, Way::Forward) => *self.first.insert((at, value)),
            (None, _) => return,
        };
        let at_s = (at - first).as_secs_f64();
        let (points, value) = match way {
            Way::Forward => (&mut self.forward, value - origin),
            Way::Backward => (&mut self.backward, value + origin),
            Way::Peer => {
                if self.peer.len() < CAPACITY {
                    self.peer.push(value.as_nanos_f64());
                }
                return;
            }
        };
        if points.len() < CAPACITY {
            points.push((at_s, value.as_nanos_f64()));
        }
    }

    /// The estimator, once there is enough. `before` is one that followed the same oscillator.
    pub(super) fn finish(&mut self, before: Option<&Estimator>) -> Option<Estimator> {
        let (first, origin) = self.first?;
        let last_s = self.forward.last()?.0;
        let is_peer = !self.peer.is_empty();
        let backward = if is_peer { self.peer.len() } else { self.backward.len() };
        let full = self.forward.len() >= CAPACITY;
        let needed = if before.is_some() { NEEDED_AGAIN } else { NEEDED };
        let backward_needed = if self.forward.len() >= PLENTY { FEWER } else { needed };
        let enough = self.forward.len() >= needed && backward >= backward_needed;
        if !enough || (last_s < NEEDED_S && !full) {
            return None;
        }
        if is_peer {
            self.backward.clear();
        }
        let (rough, centre) = median_slope(&self.forward, &self.backward);
        let sound_forward = without_too_early(&self.forward, rough);
        let sound_backward = without_too_early(&self.backward, -rough);
        let mostly = |sound: &[_], all: &[_]| 2 * sound.len() >= all.len();
        if !mostly(&sound_forward, &self.forward) || !mostly(&sound_backward, &self.backward) {
            if full {
                *self = Self::default();
            }
            return None;
        }
        let rate = common_slope(&sound_forward, &sound_backward, centre);
        let wander = Wander::seen(&sound_forward, &sound_backward, rate);
        let (edges, rate, span_s) = match &wander {
            Some(wander) => of_latest(wander, last_s),
            None => {
                let backward = if is_peer {
                    let points: Vec<_> = self.peer.iter().map(|delay| (0.0, *delay)).collect();
                    Edge::of_two(&points)
                } else {
                    Edge::new(&sound_backward, -rate, last_s)
                };
                ([Edge::new(&sound_forward, rate, last_s), backward], rate, last_s)
            }
        };
        let [forward, backward] = &edges;
        let beliefs = [0, 1].map(|kind| {
            let mut filter = filter(forward, backward, kind, is_peer, rate, span_s);
            if let Some(wander) = &wander {
                filter.open(&[0.5 * span_s, 1.0, 0.0, 0.0], 0.0, wander.q * span_s);
            }
            let noise = [forward, backward, backward].map(|edge| edge.noise[kind]);
            (filter, noise)
        });
        let at = first + Duration::from_nanos_f64(last_s * 1e9);
        Some(Estimator::new(origin, at, beliefs, wander.map(|wander| wander.q), before))
    }
}

/// The edges of a clock whose frequency wanders, by its latest packets, their rate, and how long it took them to come.
fn of_latest(wander: &Wander, end_s: f64) -> ([Edge; 2], f64, f64) {
    let [forward, backward] = &wander.latest;
    let (rough, _) = median_slope(forward, backward);
    let rate = common_slope(forward, backward, rough);
    let edge = |points: &[(f64, f64)], rate: f64| {
        let end = least(points, rate) + rate * end_s;
        Edge::of_noise(end, points.len(), wander.excess.clone())
    };
    let begin = |points: &[(f64, f64)]| points.first().map_or(end_s, |point| point.0);
    let span_s = end_s - begin(forward).min(begin(backward));
    ([edge(forward, rate), edge(backward, -rate)], rate, span_s)
}

/// Median of the slopes between points half of the time apart, ns/s: rough, but no single stamp can
/// bend it (Theil and Sen). And about which slope the true one is to be looked for: about none, but for a clock
/// that is farther off than any oscillator.
fn median_slope(forward: &[(f64, f64)], backward: &[(f64, f64)]) -> (f64, f64) {
    let slopes = |points: &[(f64, f64)], sign: f64| {
        let half = points.len() / 2;
        let pairs = points.iter().zip(points.iter().skip(half));
        pairs
            .filter(|(a, b)| b.0 > a.0)
            .map(|(a, b)| sign * (b.1 - a.1) / (b.0 - a.0))
            .collect::<Vec<_>>()
    };
    let mut all = slopes(forward, 1.0);
    all.extend(slopes(backward, -1.0));
    all.sort_unstable_by(f64::total_cmp);
    let part = |quarters: usize| all.get(all.len() * quarters / 4).copied().unwrap_or(0.0);
    let middle = part(2);
    let is_far = middle.abs() > RATE_LIMIT_PPB && part(3) - part(1) < NARROW * middle.abs();
    (middle, if is_far { middle } else { 0.0 })
}

/// The points without those that are before all others by far more than these spread: stamps that lie.
/// Late ones may stay, they move no edge.
fn without_too_early(points: &[(f64, f64)], rate: f64) -> Vec<(f64, f64)> {
    let flat = |point: &(f64, f64)| point.1 - rate * point.0;
    let middle = median(points.iter().map(flat).collect());
    let spread = median(points.iter().map(|point| (flat(point) - middle).abs()).collect());
    let earliest = middle - TOO_EARLY * spread - TOO_EARLY_NS;
    points.iter().copied().filter(|point| flat(point) >= earliest).collect()
}

/// The common slope of both directions near to `centre`, ns/s, of points in seconds and nanoseconds: the mean
/// delay beyond the lines is convex in it.
pub(super) fn common_slope(forward: &[(f64, f64)], backward: &[(f64, f64)], centre: f64) -> f64 {
    let excess = |points: &[(f64, f64)], rate: f64| {
        let (mut sum, mut least) = (0.0, f64::INFINITY);
        for (at, value) in points {
            let value = value - rate * at;
            sum += value;
            least = least.min(value);
        }
        if points.is_empty() { 0.0 } else { sum - least * points.len() as f64 }
    };
    let cost = |rate: f64| excess(forward, rate) + excess(backward, -rate);
    let (mut low, mut high) = (centre - RATE_LIMIT_PPB, centre + RATE_LIMIT_PPB);
    let mut inner = [high - GOLDEN * (high - low), low + GOLDEN * (high - low)];
    let mut costs = inner.map(cost);
    for _ in 0..SEARCH_STEPS {
        if costs[0] < costs[1] {
            high = inner[1];
            inner = [high - GOLDEN * (high - low), inner[0]];
            costs = [cost(inner[0]), costs[0]];
        } else {
            low = inner[0];
            inner = [inner[1], low + GOLDEN * (high - low)];
            costs = [costs[1], cost(inner[1])];
        }
    }
    0.5 * (low + high)
}

/// The belief that the edges make, at the end of the time.
fn filter(
    forward: &Edge,
    backward: &Edge,
    kind: usize,
    is_peer: bool,
    rate: f64,
    span_s: f64,
) -> Filter {
    let (vf, vb) = (forward.variance(kind), backward.variance(kind));
    let (forward, backward) = (forward.at[kind], backward.at[kind]);
    let span_s = span_s.max(1e-3);
    let rate_sd = 4.0 * (vf + vb).sqrt() / span_s + 1.0;
    let vr = rate_sd * rate_sd;
    let half_s = 0.5 * span_s;
    // The floor is taken to be the same both ways. Variances of offset and floor, and covariance.
    let (offset, floor, vo, vd, cod) = if is_peer {
        (forward - backward, backward, vf + vb, vb, -vb)
    } else {
        let v = 0.25 * (vf + vb);
        (0.5 * (forward - backward), 0.5 * (forward + backward), v, v, 0.25 * (vf - vb))
    };
    // The offset is known best in the middle of the time.
    let vo = vo + half_s * half_s * vr;
    let vor = half_s * vr;
    let p = [[vo, vor, cod, cod], [vor, vr, 0.0, 0.0], [cod, 0.0, vd, vd], [cod, 0.0, vd, vd]];
    Filter::new([offset, rate, floor, floor], p)
}

/// The fastest of the points, at time 0 of a line that gains `rate` ns/s.
fn least(points: &[(f64, f64)], rate: f64) -> f64 {
    points.iter().map(|(at, value)| value - rate * at).fold(f64::INFINITY, f64::min)
}

/// The lower edge of one direction, believed to be sharp and to be soft.
struct Edge {
    /// At the end of the time.
    at: [f64; 2],
    noise: [Noise; 2],
    count: f64,
}

impl Edge {
    fn new(points: &[(f64, f64)], rate: f64, end_s: f64) -> Self {
        let least = least(points, rate);
        let excess = points.iter().map(|(at, value)| value - rate * at - least).collect();
        Self::of_noise(least + rate * end_s, points.len(), excess)
    }

    /// Of delays that are beyond the fastest by `excess`, where the fastest of `count` packets is at `end`.
    fn of_noise(end: f64, count: usize, mut excess: Vec<f64>) -> Self {
        let sharp = Noise::sharp(&mut excess);
        let (soft, above) = Noise::soft(&excess, &sharp);
        let count = count as f64;
        // The fastest of n packets is late by an n-th of the mean.
        Self { at: [end - sharp.fast_ns / count, end + above], noise: [sharp, soft], count }
    }

    /// Of link delays, each the mean of two.
    fn of_two(points: &[(f64, f64)]) -> Self {
        let edge = Self::new(points, 0.0, 0.0);
        let least = least(points, 0.0);
        let mut excess: Vec<f64> = points.iter().map(|(_, value)| value - least).collect();
        let (sharp, before) = Noise::sharp_of_two(&mut excess);
        let noise = [sharp, edge.noise[1].soft_of_two()];
        Self { at: [least - before, edge.at[1]], noise, ..edge }
    }

    fn variance(&self, kind: usize) -> f64 {
        self.noise[kind].edge_variance_ns2(self.count)
    }
}
