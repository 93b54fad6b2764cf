//! Delays and stamp errors of the simulator, as distributions and processes that are drawn from one
//! value at a time. All values are nanoseconds.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Exp1, Gamma, StandardNormal};

use super::scenario::{Noise, Seconds};

/// Longest value of a tail that has no end, nanoseconds.
const LONGEST_NS: f64 = 1e10;

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
    Pareto {
        shape: f64,
        scale: f64,
    },
    Cold {
        /// After a pause, and soon after another packet.
        ns: [f64; 2],
        within_s: f64,
        last_s: f64,
    },
    Sum(Vec<Source>),
    Schedule {
        parts: Vec<(f64, Source)>,
        every_s: Option<f64>,
    },
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
            Noise::Pareto { shape, scale_ns } => {
                Self::Pareto { shape: shape.get(), scale: scale_ns.get() }
            }
            Noise::Cold { cold_ns, warm_ns, within_ms } => Self::Cold {
                ns: [cold_ns.get(), warm_ns.get()],
                within_s: within_ms.get() * 1e-3,
                last_s: f64::NEG_INFINITY,
            },
            Noise::Sum(parts) => Self::Sum(parts.iter().map(Self::new).collect()),
            Noise::Schedule { parts, every_s } => Self::Schedule {
                parts: parts.iter().map(|part| (part.at_s.get(), Self::new(&part.noise))).collect(),
                every_s: every_s.map(Seconds::get),
            },
        }
    }

    /// Something else has used the path that this is of: it is warm now.
    pub(super) fn touch(&mut self, now_s: f64) {
        match self {
            Self::Cold { last_s, .. } => *last_s = now_s,
            Self::Sum(parts) => parts.iter_mut().for_each(|part| part.touch(now_s)),
            Self::Schedule { parts, .. } => {
                parts.iter_mut().for_each(|(_, part)| part.touch(now_s));
            }
            _ => {}
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
            Self::Pareto { shape, scale } => {
                let survival = 1.0 - rng.random::<f64>();
                (*scale * (survival.powf(-1.0 / *shape) - 1.0)).min(LONGEST_NS)
            }
            Self::Cold { ns, within_s, last_s } => {
                let is_warm = now_s - *last_s <= *within_s;
                *last_s = now_s;
                ns[usize::from(is_warm)]
            }
            Self::Sum(parts) => parts.iter_mut().map(|part| part.draw(now_s, rng)).sum(),
            Self::Schedule { parts, every_s } => {
                let at_s = every_s.map_or(now_s, |every_s| now_s % every_s);
                let begun = parts.partition_point(|(from_s, _)| *from_s <= at_s);
                match begun.checked_sub(1) {
                    Some(part) => parts[part].1.draw(now_s, rng),
                    None => 0.0,
                }
            }
        }
    }
}

pub(super) fn normal(rng: &mut ChaCha8Rng) -> f64 {
    StandardNormal.sample(rng)
}

pub(super) fn exponential(rng: &mut ChaCha8Rng) -> f64 {
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
            // Lomax: mean scale / (shape - 1), variance mean^2 shape / (shape - 2).
            (
                "noise.pareto = { shape = 5.0, scale-ns = 400 }",
                100.0,
                100.0 * (5.0_f64 / 3.0).sqrt(),
            ),
            (
                "noise.sum = [{ constant.ns = 50 }, { normal.sd-ns = 3 }, { normal.sd-ns = 4 }]",
                50.0,
                5.0,
            ),
            // A quarter of the time nothing, a quarter 40, half 100.
            (
                "noise.schedule = { every-s = 4, parts = [{ at-s = 1, noise.constant.ns = 40 }, \
                 { at-s = 2, noise.constant.ns = 100 }] }",
                60.0,
                (0.25 * 1_600.0 + 0.5 * 10_000.0 - 3_600_f64).sqrt(),
            ),
            // M/M/1: mean rho s / (1 - rho), mean square 2 rho s^2 / (1 - rho)^2.
            ("noise.load = { service-ns = 100, utilisation = 0.5 }", 100.0, 30_000_f64.sqrt()),
        ] {
            let (m, s) = moments(noise);
            assert!((m - mean).abs() < 0.03 * (mean.abs() + sd) + 1e-9, "{noise}: mean {m}");
            assert!((s - sd).abs() < 0.03 * sd + 1e-9, "{noise}: sd {s}");
        }
    }

    #[test]
    fn a_cold_path_is_warm_for_a_while_after_any_use() {
        let text = "noise.sum = [{ cold = { cold-ns = 2000, warm-ns = 600, within-ms = 5 } }]";
        let noise: std::collections::BTreeMap<String, Noise> = toml::from_str(text).unwrap();
        let mut source = Source::new(&noise["noise"]);
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let mut draw = |source: &mut Source, at_s| source.draw(at_s, &mut rng);
        assert_eq!(draw(&mut source, 1.0), 2000.0);
        assert_eq!(draw(&mut source, 1.004), 600.0);
        assert_eq!(draw(&mut source, 1.010), 2000.0);
        source.touch(1.018);
        assert_eq!(draw(&mut source, 1.022), 600.0);
    }
}
