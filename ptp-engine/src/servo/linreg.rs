//! Linear regression as linuxptp documents it (`clock_servo linreg`): lines through the latest points
//! on the free-running scale, over several numbers of points, of which the one that has extrapolated
//! best is followed.

use alloc::collections::VecDeque;

use super::classic::{Controller, Point};
use ptp_common::time::{Free, Time};

/// Numbers of points: powers of two from 4 to 64.
const SIZES: [usize; 5] = [4, 8, 16, 32, 64];
/// Errors of extrapolation that the smoothed one is the mean of. With few, which size is best is chance.
const SMOOTHED_OVER: f64 = 100.0;
/// A larger size replaces a smaller one unless it is worse by this factor: of two that predict alike, the longer
/// one is the steadier.
const AS_GOOD: f64 = 1.1;

#[derive(Clone, Copy, Debug, Default)]
struct Line {
    /// Where the line is at its last point.
    end_ns: f64,
    slope_ppb: f64,
    /// Smoothed square of what it was wrong by, one point ahead, and of how many.
    error_ns2: f64,
    errors: f64,
    known: bool,
}

/// The controller.
#[derive(Debug, Default)]
pub(super) struct LinReg {
    points: VecDeque<(Time<Free>, f64, f64)>,
    lines: [Line; SIZES.len()],
    drift_ppb: f64,
}

impl LinReg {
    /// Lines through the latest points, by one way back through them.
    fn fit(&mut self) {
        let Some((last, ..)) = self.points.back() else {
            return;
        };
        let (mut w, mut x, mut y, mut xx, mut xy) = (0.0, 0.0, 0.0, 0.0, 0.0);
        let mut sizes = SIZES.iter().zip(&mut self.lines).peekable();
        for (count, (at, value, weight)) in self.points.iter().rev().enumerate() {
            let t = (*at - *last).as_secs_f64();
            w += weight;
            x += weight * t;
            y += weight * value;
            xx += weight * t * t;
            xy += weight * t * value;
            let Some((_, line)) = sizes.next_if(|(size, _)| **size == count + 1) else {
                continue;
            };
            let denominator = w * xx - x * x;
            if denominator > 0.0 {
                let slope_ppb = (w * xy - x * y) / denominator;
                *line = Line { end_ns: (y - slope_ppb * x) / w, slope_ppb, known: true, ..*line };
            }
        }
    }
}

impl Controller for LinReg {
    fn name(&self) -> &'static str {
        "linreg"
    }

    fn start(&mut self, drift_ppb: f64) {
        *self = Self { drift_ppb, ..Self::default() };
    }

    fn drift_ppb(&self) -> f64 {
        self.drift_ppb
    }

    fn point(&mut self, point: Point) -> Option<f64> {
        if let Some((last, ..)) = self.points.back() {
            let ahead_s = (point.at - *last).as_secs_f64();
            for line in self.lines.iter_mut().filter(|line| line.known) {
                let error = line.end_ns + line.slope_ppb * ahead_s - point.free_ns;
                let square = error * error * point.weight;
                line.errors = (line.errors + 1.0).min(SMOOTHED_OVER);
                line.error_ns2 += (square - line.error_ns2) / line.errors;
            }
        }
        if self.points.len() >= SIZES[SIZES.len() - 1] {
            self.points.pop_front();
        }
        self.points.push_back((point.at, point.free_ns, point.weight));
        self.fit();
        let mut best: Option<Line> = None;
        for line in self.lines.into_iter().filter(|line| line.known) {
            if best.is_none_or(|best| {
                best.errors < 1.0 || line.errors >= 1.0 && line.error_ns2 < AS_GOOD * best.error_ns2
            }) {
                best = Some(line);
            }
        }
        let Some(best) = best else {
            return Some(-self.drift_ppb - 0.1 * point.offset_ns / point.interval_s);
        };
        self.drift_ppb = best.slope_ppb;
        // The steered clock's offset, with the line in place of the noisy point.
        let offset_ns = point.offset_ns - point.free_ns + best.end_ns;
        Some(-best.slope_ppb - offset_ns / point.interval_s)
    }

    fn stepped(&mut self) {
        // Points are on the free-running scale; but another origin may be coming.
        let drift_ppb = self.drift_ppb;
        self.start(drift_ppb);
    }
}
