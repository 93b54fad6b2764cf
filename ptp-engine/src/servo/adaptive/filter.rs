//! A Gaussian belief about time, frequency and the two fastest delays, how it grows older, and what a
//! packet does to it.

use super::noise::{Posterior, Prior};
use ptp_common::time::{Duration, Free, Time};

/// Wander of the floor that both ways share, ns per root second.
const FLOOR_WANDER: f64 = 0.5;

/// A kind of observation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// A Sync: offset plus forward delay.
    Forward,
    /// A Delay_Req: backward delay minus offset.
    Backward,
    /// A measured link delay.
    Peer,
}

/// Kinds of observation.
pub(super) const WAYS: usize = 3;

/// What was seen, as it came.
#[derive(Clone, Copy, Debug)]
pub(super) struct Observation {
    pub(super) way: Way,
    pub(super) at: Time<Free>,
    /// Free-running minus PTP time for [`Way::Forward`], the reverse for [`Way::Backward`], a delay for
    /// [`Way::Peer`].
    pub(super) value: Duration,
}

impl Observation {
    /// The row by which the state appears in it, where the state is of `back` seconds later (not above
    /// zero), and its value with the offset counted from `origin`, nanoseconds.
    pub(super) fn row(&self, back: f64, origin: Duration) -> (Vector, f64) {
        match self.way {
            Way::Forward => ([1.0, back, 1.0, 0.0], (self.value - origin).as_nanos_f64()),
            Way::Backward => ([-1.0, -back, 0.0, 1.0], (self.value + origin).as_nanos_f64()),
            Way::Peer => ([0.0, 0.0, 0.5, 0.5], self.value.as_nanos_f64()),
        }
    }
}

/// What a packet was to a belief before it was taken in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    /// Where the edge was believed to be, and the variance of the Gaussian part about it.
    pub(super) mean: f64,
    pub(super) variance: f64,
    /// By how much it was later.
    pub(super) residual: f64,
    pub(super) posterior: Posterior,
}

/// State: offset and rate of the free-running scale, forward and backward floor.
pub(super) type Vector = [f64; 4];

#[derive(Clone, Copy, Debug)]
pub(super) struct Filter {
    pub(super) x: Vector,
    pub(super) p: [Vector; 4],
    pub(super) score: f64,
}

impl Filter {
    pub(super) const fn new(x: Vector, p: [Vector; 4]) -> Self {
        Self { x, p, score: 0.0 }
    }

    /// Variance of the offset after `dt` seconds, with a wander of the frequency of `q` ppb² per second.
    pub(super) fn predicted_variance(&self, dt: f64, q: f64) -> f64 {
        let p = &self.p;
        p[0][0] + (dt * (2.0 * p[0][1] + dt * p[1][1]) + q * dt * dt * dt / 3.0)
    }

    pub(super) fn predict(&mut self, dt: f64, q: f64) {
        self.x[0] += self.x[1] * dt;
        self.p[0][0] = self.predicted_variance(dt, q);
        let p = &mut self.p;
        p[0][1] += dt * p[1][1] + q * dt * dt / 2.0;
        p[1][1] += q * dt;
        p[0][2] += dt * p[1][2];
        p[0][3] += dt * p[1][3];
        let floor = FLOOR_WANDER * FLOOR_WANDER * dt;
        p[2][2] += floor;
        p[2][3] += floor;
        p[3][2] += floor;
        p[3][3] += floor;
        p[1][0] = p[0][1];
        p[2][0] = p[0][2];
        p[3][0] = p[0][3];
    }

    pub(super) fn times(&self, h: &Vector) -> Vector {
        let mut ph = [0.0; 4];
        for (ph, row) in ph.iter_mut().zip(&self.p) {
            *ph = dot(row, h);
        }
        ph
    }

    /// Takes in a packet whose value is `value` along `h`.
    pub(super) fn absorb(&mut self, h: &Vector, value: f64, prior: &Prior) -> Seen {
        let ph = self.times(h);
        let mean = dot(h, &self.x);
        let variance = dot(h, &ph).max(0.0) + prior.variance_ns2;
        let posterior = prior.posterior(value, mean, variance);
        self.update(&ph, variance, posterior.mean - mean, posterior.variance);
        Seen { mean, variance, residual: value - mean, posterior }
    }

    /// The offset is `by` more: as far as that is the error of this belief, whatever it may be wrong together with it moves along.
    pub(super) fn correct(&mut self, by: f64) {
        let ph = self.times(&[1.0, 0.0, 0.0, 0.0]);
        let variance = ph[0];
        self.update(&ph, variance, by, variance);
    }

    /// Moves along `along` by `by`, known to a variance of `variance` more than before.
    pub(super) fn open(&mut self, along: &Vector, by: f64, variance: f64) {
        for i in 0..4 {
            self.x[i] += along[i] * by;
            for j in 0..4 {
                self.p[i][j] += along[i] * along[j] * variance;
            }
        }
    }

    /// Takes in that the quantity along `ph` (the covariance with it), of variance `variance`, moved
    /// by `by` and is now of variance `after`.
    fn update(&mut self, ph: &Vector, variance: f64, by: f64, after: f64) {
        let gain = 1.0 / variance;
        let shrink = (1.0 - after * gain) * gain;
        let moved = by * gain;
        for i in 0..4 {
            self.x[i] += ph[i] * moved;
            let shrunk = shrink * ph[i];
            for (j, ph) in ph.iter().enumerate().skip(i) {
                self.p[i][j] -= shrunk * ph;
                self.p[j][i] = self.p[i][j];
            }
        }
        // Rounding must not make a variance negative.
        for i in 0..4 {
            self.p[i][i] = self.p[i][i].max(1e-9);
        }
    }
}

pub(super) fn dot(a: &Vector, b: &Vector) -> f64 {
    (a[0] * b[0] + a[1] * b[1]) + (a[2] * b[2] + a[3] * b[3])
}
