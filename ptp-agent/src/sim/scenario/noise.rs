//! What delays and stamp errors are drawn from, as a scenario says it, and recorded values.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{
    Problem, ScenarioError, read,
    values::{Instant, Millis, Nanos, Seconds, Shape, Span, Tail, Utilisation},
};

/// How deep noises may stand in each other.
const MAX_DEPTH: usize = 4;
/// Most parts of a sum or of a schedule.
const MAX_PARTS: usize = 100;

/// A delay or a stamp error: what it is drawn from.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case", deny_unknown_fields)]
pub enum Noise {
    /// None.
    #[default]
    None,
    /// Always the same.
    Constant {
        /// How much.
        ns: Nanos,
    },
    /// Even between two bounds.
    Uniform {
        /// The lower.
        low_ns: Nanos,
        /// The upper.
        high_ns: Nanos,
    },
    /// Gaussian about zero.
    Normal {
        /// Standard deviation.
        sd_ns: Span,
    },
    /// Exponential.
    Exponential {
        /// Mean.
        mean_ns: Span,
    },
    /// Gamma.
    Gamma {
        /// Shape; 1 is exponential, more is rounder.
        shape: Shape,
        /// Mean.
        mean_ns: Span,
    },
    /// Pareto from zero on (Lomax): a tail that is heavier, the smaller the shape.
    Pareto {
        /// Shape; below 2 there is no variance.
        shape: Tail,
        /// Scale; the mean is the scale over the shape less one.
        scale_ns: Span,
    },
    /// Exponential with a mean that changes at random between two values.
    Bursty {
        /// Mean in quiet times.
        quiet_mean_ns: Span,
        /// Mean in bursts.
        busy_mean_ns: Span,
        /// Mean length of quiet times.
        quiet_s: Seconds,
        /// Mean length of bursts.
        busy_s: Seconds,
    },
    /// The wait in a queue (M/M/1) whose load swings. Each packet draws alone; see [`Queue`] for one in
    /// which packets wait behind each other.
    ///
    /// [`Queue`]: super::Queue
    Load {
        /// Mean time that a packet before us takes.
        service_ns: Span,
        /// Mean load.
        utilisation: Utilisation,
        /// How far the load swings to each side, as a sine; the load stays from 0 to 0.99.
        #[serde(default)]
        swing: Utilisation,
        /// Period of the swing.
        #[serde(default = "super::a_day")]
        period_s: Seconds,
    },
    /// Drawn from recorded values.
    Empirical {
        /// A file with one value per line or in a JSON list, or JSON with `histogram_ns`, a list of
        /// `[ns, count]`. Relative to the scenario's own directory.
        file: PathBuf,
        /// The values, read from the file; ascending.
        #[serde(skip)]
        values: Vec<f64>,
    },
    /// A path that is slow when it was not used for a while: of a host, by any packet that it sent or
    /// received.
    Cold {
        /// After a pause.
        cold_ns: Span,
        /// Soon after another packet.
        warm_ns: Span,
        /// How long it stays warm.
        within_ms: Millis,
    },
    /// Several at once.
    Sum(Vec<Noise>),
    /// Another one from given times on.
    Schedule {
        /// The noises in order of time; none before the first.
        parts: Vec<Part>,
        /// Begins anew after so long: times are within it.
        every_s: Option<Seconds>,
    },
}

/// A noise from some time on.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Part {
    /// From here.
    pub at_s: Instant,
    /// This one.
    pub noise: Noise,
}

impl Noise {
    fn parts(&self) -> Vec<&Self> {
        match self {
            Self::Sum(parts) => parts.iter().collect(),
            Self::Schedule { parts, .. } => parts.iter().map(|part| &part.noise).collect(),
            _ => Vec::new(),
        }
    }

    fn parts_mut(&mut self) -> Vec<&mut Self> {
        match self {
            Self::Sum(parts) => parts.iter_mut().collect(),
            Self::Schedule { parts, .. } => parts.iter_mut().map(|part| &mut part.noise).collect(),
            _ => Vec::new(),
        }
    }

    /// What no single value can be blamed for.
    pub(super) fn check(&self) -> Result<(), Problem> {
        self.check_at(0)
    }

    fn check_at(&self, depth: usize) -> Result<(), Problem> {
        match self {
            Self::Uniform { low_ns, high_ns } if low_ns > high_ns => {
                return Err(("uniform", "low-ns is above high-ns".into()));
            }
            Self::Cold { cold_ns, warm_ns, .. } if warm_ns > cold_ns => {
                return Err(("cold", "warm-ns is above cold-ns".into()));
            }
            Self::Schedule { parts, every_s } => {
                let ordered = parts.is_sorted_by(|a, b| a.at_s < b.at_s);
                if parts.is_empty() || parts.len() > MAX_PARTS || !ordered {
                    return Err(("schedule", "no parts, too many, or not in order of at-s".into()));
                }
                let last = parts.last().map_or(0.0, |part| part.at_s.get());
                if every_s.is_some_and(|every| last >= every.get()) {
                    return Err(("schedule", "at-s is not before every-s".into()));
                }
            }
            Self::Sum(parts) if parts.is_empty() || parts.len() > MAX_PARTS => {
                return Err(("sum", format!("one to {MAX_PARTS} are needed")));
            }
            _ => {}
        }
        if depth >= MAX_DEPTH {
            return Err(("sum", format!("more than {MAX_DEPTH} deep")));
        }
        self.parts().into_iter().try_for_each(|part| part.check_at(depth + 1))
    }

    /// Reads the files that are named.
    pub(super) fn read_files(&mut self, directory: &Path) -> Result<(), ScenarioError> {
        if let Self::Empirical { file, values } = self {
            *values = recorded(&directory.join(&*file))?;
        }
        self.parts_mut().into_iter().try_for_each(|part| part.read_files(directory))
    }
}

/// Recorded values, ascending.
fn recorded(path: &Path) -> Result<Vec<f64>, ScenarioError> {
    let text = read(path)?;
    values(&text)
        .map_err(|problem| ScenarioError::Value { name: path.display().to_string(), problem })
}

fn values(text: &str) -> Result<Vec<f64>, String> {
    /// Values that a histogram is unfolded to: its shape to a thousandth.
    const UNFOLDED: f64 = 10_000.0;
    #[derive(Deserialize)]
    struct Histogram {
        histogram_ns: Vec<(f64, f64)>,
    }
    let mut values = if text.trim_start().starts_with('[') {
        serde_json::from_str::<Vec<f64>>(text).map_err(|error| error.to_string())?
    } else if text.trim_start().starts_with('{') {
        let Histogram { histogram_ns } =
            serde_json::from_str(text).map_err(|error| error.to_string())?;
        let total: f64 = histogram_ns.iter().map(|(_, count)| count.max(0.0)).sum();
        let mut unfolded = Vec::new();
        for (ns, count) in histogram_ns {
            let copies = (count.max(0.0) / total * UNFOLDED).ceil();
            unfolded.extend(std::iter::repeat_n(ns, copies.clamp(0.0, UNFOLDED) as usize));
        }
        unfolded
    } else {
        text.lines()
            .enumerate()
            .filter(|(_, line)| !line.trim().is_empty())
            .map(|(at, line)| {
                line.trim().parse().map_err(|_| format!("line {}: no number: {line:?}", at + 1))
            })
            .collect::<Result<Vec<f64>, String>>()?
    };
    if values.is_empty() {
        return Err("holds no values".into());
    }
    if let Some(bad) = values.iter().find(|value| Nanos::try_from(**value).is_err()) {
        return Err(format!("{bad} is not from -1e10 to 1e10 ns"));
    }
    values.sort_unstable_by(f64::total_cmp);
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recorded_values_come_as_lines_list_or_histogram() {
        assert_eq!(values("3\n\n 1.5\n").unwrap(), [1.5, 3.0]);
        assert_eq!(values("[3, 1]").unwrap(), [1.0, 3.0]);
        let unfolded = values(r#"{"event":"summary","histogram_ns":[[5,1],[2,3]]}"#).unwrap();
        assert_eq!(unfolded.len(), 10_000);
        assert_eq!((unfolded[7_499], unfolded[7_500]), (2.0, 5.0));
        for bad in ["", "[]", "1\nx\n", "[1e300]", "{}"] {
            assert!(values(bad).is_err(), "{bad}");
        }
        assert!(values("1\nx\n").unwrap_err().contains("line 2"));
    }
}
