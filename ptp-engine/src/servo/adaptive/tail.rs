//! A Gaussian belief about the edge of a distribution of delays after one of them was seen, in closed form: of an
//! exponential distribution, and of the mean of two delays that each have one.

use super::mills;
#[cfg(target_os = "none")]
use crate::math::Float as _;

/// Square root of 2 pi.
const SQRT_2_PI: f64 = 2.506_628_274_631_000_5;
/// Standard deviations on the wrong side of an edge at which nothing speaks for a packet of this kind.
const IMPOSSIBLE_SIGMAS: f64 = -12.0;
/// Below so many standard deviations Mills' ratio is taken from its asymptotic series ...
const FAR_BELOW: f64 = -7.0;
/// ... and above so many nothing is cut off: what is left out is below 1e-8. Most packets are such late ones.
const FAR_ABOVE: f64 = 6.0;

/// How many delays an observation is the mean of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Of {
    /// One: its excess is exponential.
    One,
    /// Two, as a measured link delay: its excess is the mean of two exponential ones (Erlang's distribution), for
    /// which hardly any packet is near the edge.
    Two,
}

impl Of {
    /// How many scales the mean excess is.
    pub(super) const fn scales(self) -> f64 {
        match self {
            Self::One => 1.0,
            Self::Two => 2.0,
        }
    }
}

/// One of the distributions that delays are mixed of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tail {
    pub(super) of: Of,
    pub(super) scale_ns: f64,
    /// Share of all packets by the scale: for one delay the density right at the edge.
    pub(super) density: f64,
}

/// A Gaussian belief about where an edge is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Edge {
    pub(super) mean: f64,
    pub(super) variance: f64,
    /// Its square root.
    pub(super) sd: f64,
}

/// What a value makes of the belief.
pub(super) struct Truncated {
    /// Density of the packet: `factor * exp(exponent)`. Apart, because the one spans more than floating
    /// point can hold, and the logarithm of the other would cost as much as all the rest.
    pub(super) exponent: f64,
    pub(super) factor: f64,
    pub(super) mean: f64,
    pub(super) variance: f64,
}

/// A Gaussian belief about the edge of a distribution after one value of it: the Gaussian, tilted towards the value and
/// cut off there, for a mean of two also weighted by how far from it.
pub(super) fn truncated(value: f64, edge: &Edge, tail: &Tail) -> Truncated {
    let Edge { mean, variance, sd } = *edge;
    let z = (value - mean) / sd;
    if z < IMPOSSIBLE_SIGMAS {
        // The density is below exp(-z²/2), which beside that of a packet of no model is nothing.
        return Truncated { exponent: f64::NEG_INFINITY, factor: 0.0, mean: value, variance };
    }
    match tail.of {
        Of::One => one(z, value, edge, tail),
        Of::Two => two(z, value, edge, tail),
    }
}

fn one(z: f64, value: f64, edge: &Edge, tail: &Tail) -> Truncated {
    let Edge { mean, variance, sd } = *edge;
    let Tail { scale_ns: scale, density, .. } = *tail;
    let tilt = sd / scale;
    let alpha = z - tilt;
    if alpha < FAR_BELOW {
        // The density without cancelling exponentials.
        let i = 1.0 / (alpha * alpha);
        let ratio = -(1.0 - i * (1.0 - i * (3.0 - i * (15.0 - i * 105.0)))) / alpha;
        return Truncated {
            exponent: -0.5 * z * z,
            factor: density * ratio / SQRT_2_PI,
            mean: value + sd / alpha * (1.0 - i * (2.0 - i * 10.0)),
            variance: variance * i * (1.0 - i * (6.0 - i * 50.0)),
        };
    }
    let exponent = tilt * (0.5 * tilt - z);
    if alpha > FAR_ABOVE {
        return Truncated { exponent, factor: density, mean: mean + sd * tilt, variance };
    }
    let (below, hazard) = mills::below(alpha);
    Truncated {
        exponent,
        factor: density * below,
        mean: mean + sd * (tilt - hazard),
        variance: variance * (1.0 - hazard * (alpha + hazard)).max(1e-6),
    }
}

/// The moments of how far the edge is before the value follow from those of a normal distribution that is cut off:
/// with `w` of them in standard deviations, of which the weight is one more power.
fn two(z: f64, value: f64, edge: &Edge, tail: &Tail) -> Truncated {
    let Edge { variance, sd, .. } = *edge;
    let Tail { scale_ns: scale, density, .. } = *tail;
    let tilt = sd / scale;
    let alpha = z - tilt;
    let of = |exponent: f64, first: f64, mean: f64, square: f64, least: f64| Truncated {
        exponent,
        factor: density * tilt * first,
        mean: value - sd * mean,
        variance: variance * (square - mean * mean).max(least),
    };
    if alpha < FAR_BELOW {
        let i = 1.0 / (alpha * alpha);
        let first = 1.0 - i * (3.0 - i * (15.0 - i * 105.0));
        let second = 1.0 - i * (6.0 - i * (45.0 - i * 420.0));
        let third = 1.0 - i * (10.0 - i * (105.0 - i * 1260.0));
        let mean = -2.0 / alpha * (second / first);
        return of(-0.5 * z * z, i * first / SQRT_2_PI, mean, 6.0 * i * (third / first), i);
    }
    let (below, hazard) = if alpha > FAR_ABOVE { (1.0, 0.0) } else { mills::below(alpha) };
    let first = alpha + hazard;
    let second = alpha * first + 1.0;
    let third = alpha * second + 2.0 * first;
    of(tilt * (0.5 * tilt - z), below * first, second / first, third / first, 1e-6)
}

/// The same for one that comes before the edge by such a time.
pub(super) fn mirrored(value: f64, edge: &Edge, tail: &Tail) -> Truncated {
    let seen = truncated(-value, &Edge { mean: -edge.mean, ..*edge }, tail);
    Truncated { mean: -seen.mean, ..seen }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::math;
    use core::f64::consts::PI;

    /// Moments by brute force.
    fn integrated(value: f64, edge: &Edge, tail: &Tail) -> (f64, f64, f64) {
        let (sd, scale) = (edge.sd, tail.scale_ns);
        let step = sd.min(scale) * 1e-3;
        let (mut z, mut first, mut second) = (0.0, 0.0, 0.0);
        let mut g = value;
        while g > (edge.mean - 12.0 * sd).min(value - 40.0 * scale.min(sd)) {
            g -= step;
            let excess = (value - g) / scale;
            let weight = if tail.of == Of::Two { excess } else { 1.0 };
            let density = (-0.5 * (g - edge.mean).powi(2) / edge.variance).exp()
                / (2.0 * PI * edge.variance).sqrt()
                * weight
                * (-excess).exp()
                / scale
                * step;
            z += density;
            first += density * g;
            second += density * g * g;
        }
        (z.ln(), first / z, second / z - (first / z).powi(2))
    }

    #[test]
    fn moments_agree_with_integration() {
        for of in [Of::One, Of::Two] {
            for (value, mean, variance, scale) in [
                (0.0, 0.0, 1.0, 1.0),
                (3.0, 0.0, 1.0, 2.0),
                (-3.0, 0.0, 1.0, 2.0),
                (-6.0, 0.0, 1.0, 0.5),
                (1.0, 0.0, 100.0, 0.5),
                (-60.0, 0.0, 100.0, 8.0),
                (50.0, 0.0, 1.0, 20.0),
            ] {
                let tail = Tail { of, scale_ns: scale, density: 1.0 / scale };
                let edge = Edge { mean, variance, sd: variance.sqrt() };
                let got = truncated(value, &edge, &tail);
                let (ln, first, second) = integrated(value, &edge, &tail);
                let ln_evidence = got.exponent + math::ln(got.factor);
                assert!((ln_evidence - ln).abs() < 5e-3, "{of:?} {value}: {ln_evidence} {ln}");
                let apart = (got.mean - first).abs();
                assert!(apart < 5e-3 * (1.0 + first.abs()), "{of:?} {value}: {} {first}", got.mean);
                let ratio = got.variance / second;
                assert!((ratio - 1.0).abs() < 0.03, "{of:?} {value}: {ratio}");
            }
        }
    }
}
