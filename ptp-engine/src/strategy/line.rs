//! A straight line below points: what a packet takes at the least, while two clocks run apart.

use crate::prelude::*;
use ptp_common::time::{Free, Time};

/// The line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line {
    at: Time<Free>,
    ns: f64,
    /// ns/s.
    slope: f64,
}

impl Line {
    /// Through the lowest point, with the median of all slopes between two points, which a few late ones
    /// do not change. `None` for fewer than two instants.
    pub(super) fn below(points: &[(Time<Free>, f64)]) -> Option<Self> {
        let at = points.iter().map(|point| point.0).max()?;
        let mut slopes = Vec::with_capacity(points.len() * points.len() / 2);
        for (n, (t, y)) in points.iter().enumerate() {
            for (u, z) in &points[n + 1..] {
                let apart_s = (*u - *t).as_secs_f64();
                if apart_s != 0.0 {
                    slopes.push((z - y) / apart_s);
                }
            }
        }
        if slopes.is_empty() {
            return None;
        }
        let middle = slopes.len() / 2;
        let slope = *slopes.select_nth_unstable_by(middle, f64::total_cmp).1;
        let lowest = points.iter().map(|(t, y)| y - slope * (*t - at).as_secs_f64());
        Some(Self { at, ns: lowest.reduce(f64::min)?, slope })
    }

    /// Its value then.
    pub(super) fn at(&self, time: Time<Free>) -> f64 {
        self.ns + self.slope * (time - self.at).as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_is_below_all_points_and_late_ones_do_not_bend_it() {
        let at = |second: i64| Time::from_nanos(second * 1_000_000_000);
        let mut points: Vec<_> = (0..8).map(|n| (at(n), n as f64 * 37_000.0)).collect();
        points[2].1 += 50_000.0;
        points[7].1 += 900_000.0;
        let line = Line::below(&points).unwrap();
        assert!((line.at(at(9)) - 9.0 * 37_000.0).abs() < 1.0, "{line:?}");
        assert!(Line::below(&points[..1]).is_none());
    }
}
