//! Delays and stamp errors of the simulator, as distributions and processes that are drawn from one
//! value at a time. All values are nanoseconds.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Exp1, Gamma, StandardNormal};

use super::scenario::Noise;

/// A noise while it is drawn from.
#[derive(Clone, Debug)]
pub(super) enum Source {
    None,
    Constant(f64),
    Uniform {
        low: f64,
        width: f64,
    },
    Normal {
        sd: f64,
    },
    Exponential {
        mean: f64,
    },
    Gamma(Gamma<f64>),
    Bursty {
        means: [f64; 2],
        dwell: [f64; 2],
        busy: bool,
        until_s: f64,
    },
    Load {
        service: f64,
        utilisation: f64,
        swing: f64,
        period_s: f64,
    },
    /// Ascending.
    Empirical(Vec<f64>),
}

impl Source {
    pub(super) fn new(noise: &Noise) -> Self {
        match noise {
            Noise::None => Self::None,
            Noise::Constant { ns } => Self::Constant(ns.get()),
            Noise::Uniform { low_ns, high_ns } => {
                Self::Uniform { low: low_ns.get(), width: high_ns.get() - low_ns.get() }
            }
            Noise::Normal { sd_ns } => Self::Normal { sd: sd_ns.get() },
            Noise::Exponential { mean_ns } => Self::Exponential { mean: mean_ns.get() },
            Noise::Gamma { shape, mean_ns } => {
                let scale = (mean_ns.get() / shape.get()).max(f64::MIN_POSITIVE);
                Gamma::new(shape.get(), scale).map_or(Self::None, Self::Gamma)
            }
            Noise::Bursty { quiet_mean_ns, busy_mean_ns, quiet_s, busy_s } => Self::Bursty {
                means: [quiet_mean_ns.get(), busy_mean_ns.get()],
                dwell: [quiet_s.get(), busy_s.get()],
                busy: true,
                until_s: 0.0,
            },
            Noise::Load { service_ns, utilisation, swing, period_s } => Self::Load {
                service: service_ns.get(),
                utilisation: utilisation.get(),
                swing: swing.get(),
                period_s: period_s.get(),
            },
            Noise::Empirical { values, .. } => Self::Empirical(values.clone()),
        }
    }

    /// The next value, at true time `now_s`, which never decreases.
    pub(super) fn draw(&mut self, now_s: f64, rng: &mut ChaCha8Rng) -> f64 {
        match self {
            Self::None => 0.0,
            Self::Constant(ns) => *ns,
            Self::Uniform { low, width } => *low + *width * rng.random::<f64>(),
            Self::Normal { sd } => *sd * normal(rng),
            Self::Exponential { mean } => *mean * exponential(rng),
            Self::Gamma(gamma) => gamma.sample(rng),
            Self::Bursty { means, dwell, busy, until_s } => {
                // Long pauses between two draws cost one turn of the loop per state, so states are
                // no shorter than a millisecond (the scenario sees to it).
                while *until_s <= now_s {
                    *busy = !*busy;
                    *until_s += dwell[usize::from(*busy)] * exponential(rng);
                }
                means[usize::from(*busy)] * exponential(rng)
            }
            Self::Load { service, utilisation, swing, period_s } => {
                let phase = std::f64::consts::TAU * now_s / *period_s;
                let load = (*utilisation + *swing * phase.sin()).clamp(0.0, 0.99);
                // Waiting time of an M/M/1 queue: none at all for a share of 1 - load.
                if rng.random_bool(load) { *service / (1.0 - load) * exponential(rng) } else { 0.0 }
            }
            Self::Empirical(values) => {
                let Some(last) = values.len().checked_sub(1) else { return 0.0 };
                // Between neighbouring values, so that a short recording is no comb.
                let at = rng.random::<f64>() * last as f64;
                let below = at as usize;
                let above = values[(below + 1).min(last)];
                values[below] + (above - values[below]) * (at - below as f64)
            }
        }
    }
}

pub(super) fn normal(rng: &mut ChaCha8Rng) -> f64 {
    StandardNormal.sample(rng)
}

fn exponential(rng: &mut ChaCha8Rng) -> f64 {
    Exp1.sample(rng)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    fn moments(noise: &str) -> (f64, f64) {
        let noise: std::collections::BTreeMap<String, Noise> = toml::from_str(noise).unwrap();
        let mut source = Source::new(&noise["noise"]);
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let n = 200_000;
        let values: Vec<f64> = (0..n).map(|i| source.draw(f64::from(i) * 0.1, &mut rng)).collect();
        let mean = values.iter().sum::<f64>() / f64::from(n);
        let square = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / f64::from(n);
        (mean, square.sqrt())
    }

    #[test]
    fn mean_and_deviation_are_those_of_the_distribution() {
        for (noise, mean, sd) in [
            ("noise.exponential.mean-ns = 1000", 1000.0, 1000.0),
            ("noise.gamma = { shape = 4.0, mean-ns = 1000 }", 1000.0, 500.0),
            ("noise.uniform = { low-ns = -10, high-ns = 30 }", 10.0, 40.0 / 12_f64.sqrt()),
            ("noise.normal.sd-ns = 7", 0.0, 7.0),
            ("noise.constant.ns = 12", 12.0, 0.0),
            // Half of the time at each mean: mean square 2 (100^2 + 300^2) / 2.
            (
                "noise.bursty = { quiet-mean-ns = 100, busy-mean-ns = 300, quiet-s = 1, busy-s = 1 }",
                200.0,
                60_000_f64.sqrt(),
            ),
            // M/M/1: mean rho s / (1 - rho), mean square 2 rho s^2 / (1 - rho)^2.
            ("noise.load = { service-ns = 100, utilisation = 0.5 }", 100.0, 30_000_f64.sqrt()),
        ] {
            let (m, s) = moments(noise);
            assert!((m - mean).abs() < 0.03 * (mean.abs() + sd) + 1e-9, "{noise}: mean {m}");
            assert!((s - sd).abs() < 0.03 * sd + 1e-9, "{noise}: sd {s}");
        }
    }
}
