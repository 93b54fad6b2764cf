//! What is simulated: the scenario file (TOML, keys in kebab-case, unknown keys and impossible values
//! refused with line and column), and the same as values for tests and benchmarks.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::servo;

/// A scenario has no reason to be larger, and neither has a file of recorded noise.
const MAX_BYTES: u64 = 16 * 1024 * 1024;
/// Longest true time that is simulated, seconds: 31 days.
const MAX_DURATION_S: f64 = 31.0 * 86_400.0;
/// Most instants at which the true error is taken.
const MAX_SAMPLES: f64 = 4e6;
/// Most grandmasters.
const MAX_GRANDMASTERS: usize = 16;
/// Most entries of any list.
const MAX_ENTRIES: usize = 1_000;

/// Why a scenario cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file is too large.
    #[error("{} is larger than 16 MiB", .0.display())]
    TooLarge(PathBuf),
    /// Not TOML, an unknown key or an impossible value; the message has line and column.
    #[error("scenario {name}: {source}")]
    Parse {
        /// The file.
        name: String,
        /// The place and the problem.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// Values that do not go together.
    #[error("scenario {name}: {problem}")]
    Value {
        /// The file.
        name: String,
        /// What is wrong, with the key or the line.
        problem: String,
    },
}

macro_rules! bounded {
    ($(#[$doc:meta])* $name:ident, $range:expr, $words:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd, Deserialize)]
        #[serde(try_from = "f64")]
        pub struct $name(f64);
        impl $name {
            /// The number.
            pub const fn get(self) -> f64 {
                self.0
            }
        }
        impl TryFrom<f64> for $name {
            type Error = String;
            fn try_from(value: f64) -> Result<Self, String> {
                if ($range).contains(&value) {
                    Ok(Self(value))
                } else {
                    Err(format!("{value} is not {}", $words))
                }
            }
        }
    };
}

bounded!(
    /// A probability.
    Probability, 0.0..=1.0, "from 0 to 1");
bounded!(
    /// Nanoseconds of either sign.
    Nanos, -1e10..=1e10, "from -1e10 to 1e10 ns");
bounded!(
    /// Nanoseconds, not negative.
    Span, 0.0..=1e10, "from 0 to 1e10 ns");
bounded!(
    /// Parts per billion, of either sign.
    Ppb, -500_000.0..=500_000.0, "from -500000 to 500000 ppb");
bounded!(
    /// Parts per billion, not negative.
    Wander, 0.0..=10_000.0, "from 0 to 10000 ppb");
bounded!(
    /// An instant of true time, seconds after the start.
    Instant, 0.0..=MAX_DURATION_S, "from 0 to 2678400 s");
bounded!(
    /// A length of time, seconds.
    Seconds, 0.001..=MAX_DURATION_S, "from 0.001 to 2678400 s");
bounded!(
    /// The shape of a gamma distribution.
    Shape, 0.05..=1_000.0, "from 0.05 to 1000");
bounded!(
    /// The load of a queue.
    Utilisation, 0.0..=0.99, "from 0 to 0.99");

/// An interval as PTP writes it, log2 seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "i64")]
pub struct LogInterval(i8);

impl LogInterval {
    /// The logarithm.
    pub const fn get(self) -> i8 {
        self.0
    }
}

impl TryFrom<i64> for LogInterval {
    type Error = String;
    fn try_from(value: i64) -> Result<Self, String> {
        match i8::try_from(value) {
            Ok(log @ -7..=6) => Ok(Self(log)),
            _ => Err(format!("{value} is not from -7 to 6")),
        }
    }
}

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
    /// The wait in a queue (M/M/1) whose load swings.
    Load {
        /// Mean time that a packet before us takes.
        service_ns: Span,
        /// Mean load.
        utilisation: Utilisation,
        /// How far the load swings to each side, as a sine; the load stays from 0 to 0.99.
        #[serde(default)]
        swing: Utilisation,
        /// Period of the swing.
        #[serde(default = "a_day")]
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
}

fn a_day() -> Seconds {
    Seconds(86_400.0)
}

/// A change of frequency with temperature.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Ramp {
    /// From here.
    pub from_s: Instant,
    /// To here, in a straight line.
    pub to_s: Instant,
    /// By so much.
    pub change_ppb: Ppb,
}

/// A sudden change.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Step {
    /// When.
    pub at_s: Instant,
    /// Of the time.
    #[serde(default)]
    pub phase_ns: Nanos,
    /// Of the frequency.
    #[serde(default)]
    pub frequency_ppb: Ppb,
}

/// An oscillator.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct OscillatorSettings {
    /// Error of the clock at the start.
    pub offset_ns: Nanos,
    /// Error of the frequency at the start.
    pub frequency_ppb: Ppb,
    /// Error of each single reading, standard deviation.
    pub white_phase_ns: Span,
    /// Flicker of the phase: standard deviation in each factor of four in time.
    pub flicker_phase_ns: Span,
    /// Random walk of the frequency: growth of its standard deviation per root second.
    pub random_walk_ppb: Wander,
    /// Changes with temperature.
    pub temperature: Vec<Ramp>,
    /// Sudden changes.
    pub steps: Vec<Step>,
}

/// Another route from some instant on.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct RouteChange {
    /// When.
    pub at_s: Instant,
    /// The base delay from then on.
    pub base_delay_ns: Span,
}

/// Rare packets that are much later.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Outliers {
    /// Of each packet.
    pub probability: Probability,
    /// How much later.
    pub delay: Noise,
}

/// One direction of a link.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Direction {
    /// The delay of the fastest packet.
    pub base_delay_ns: Span,
    /// What comes on top of it.
    pub jitter: Noise,
    /// Probability that a packet is lost.
    pub loss: Probability,
    /// Probability that it comes twice.
    pub duplication: Probability,
    /// Probability that it takes a detour of up to a tenth of a second and so may be overtaken.
    pub reordering: Probability,
    /// Rare late packets.
    pub outliers: Option<Outliers>,
    /// Changes of the base delay, in order of time.
    pub route_changes: Vec<RouteChange>,
}

/// A link between a grandmaster and the time receiver.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Link {
    /// From the grandmaster.
    pub forward: Direction,
    /// To the grandmaster; like `forward` unless given.
    pub backward: Option<Direction>,
}

/// Errors of a host's stamps.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Host {
    /// How much later than its arrival a packet is stamped.
    pub receive: Noise,
    /// How much earlier than its departure a packet is stamped.
    pub transmit: Noise,
}

/// A time in which a grandmaster is silent.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Outage {
    /// From here.
    pub from_s: Instant,
    /// To here.
    pub to_s: Instant,
}

/// A grandmaster and its link.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Grandmaster {
    /// `priority1`; the lowest that is alive is followed.
    pub priority1: u8,
    /// Sync interval.
    pub log_sync_interval: LogInterval,
    /// Delay_Req interval.
    pub log_min_delay_req_interval: LogInterval,
    /// Announce interval.
    pub log_announce_interval: LogInterval,
    /// Its oscillator.
    pub oscillator: OscillatorSettings,
    /// Its stamps.
    pub host: Host,
    /// The link.
    pub link: Link,
    /// When it is silent.
    pub outages: Vec<Outage>,
}

impl Default for Grandmaster {
    fn default() -> Self {
        Self {
            priority1: 128,
            log_sync_interval: LogInterval(0),
            log_min_delay_req_interval: LogInterval(0),
            log_announce_interval: LogInterval(1),
            oscillator: OscillatorSettings::default(),
            host: Host::default(),
            link: Link::default(),
            outages: Vec::new(),
        }
    }
}

/// What the servo steers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SteeredClock {
    /// A software clock over the monotonic one.
    #[default]
    Virtual,
    /// The host's clock, by a model of the kernel: the monotonic clock, from which the stamps are, is
    /// slewed with it.
    System,
}

/// The clock that follows.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct TimeReceiver {
    /// What is steered.
    pub clock: SteeredClock,
    /// Its oscillator.
    pub oscillator: OscillatorSettings,
    /// Its stamps.
    pub host: Host,
}

/// A scenario.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Scenario {
    /// For reports.
    #[serde(default)]
    pub title: String,
    /// Of all randomness: the same scenario gives the same numbers.
    #[serde(default)]
    pub seed: u64,
    /// True time that is simulated.
    pub duration_s: Seconds,
    /// Statistics are from here on; from convergence on if it is zero.
    #[serde(default)]
    pub warm_up_s: Instant,
    /// Between two instants at which the true error is taken.
    #[serde(default = "a_second")]
    pub sample_interval_s: Seconds,
    /// Converged is what stays below this.
    #[serde(default = "a_microsecond")]
    pub converged_below_ns: Span,
    /// The servo, as `--servo` takes it.
    #[serde(default)]
    pub servo: servo::Choice,
    /// The clock that follows.
    #[serde(default)]
    pub time_receiver: TimeReceiver,
    /// The grandmasters.
    pub grandmaster: Vec<Grandmaster>,
}

fn a_second() -> Seconds {
    Seconds(1.0)
}

fn a_microsecond() -> Span {
    Span(1_000.0)
}

impl Scenario {
    /// Reads a scenario and the noise files that it names.
    ///
    /// # Errors
    /// [`ScenarioError`], with the place where there is one.
    pub fn read(path: &Path) -> Result<Self, ScenarioError> {
        let text = read(path)?;
        let name = path.display().to_string();
        let directory = path.parent().unwrap_or(Path::new("."));
        Self::parse(&name, &text, directory)
    }

    /// A scenario from its text. `name` is for messages; noise files are looked for in `directory`.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn parse(name: &str, text: &str, directory: &Path) -> Result<Self, ScenarioError> {
        let mut scenario: Self = toml::from_str(text).map_err(|source| ScenarioError::Parse {
            name: name.to_owned(),
            source: Box::new(source),
        })?;
        scenario.check().map_err(|problem| ScenarioError::Value {
            name: name.to_owned(),
            problem: locate(text, problem),
        })?;
        for noise in scenario.noises() {
            if let Noise::Empirical { file, values } = noise {
                *values = recorded(&directory.join(&*file))?;
            }
        }
        Ok(scenario)
    }

    fn noises(&mut self) -> Vec<&mut Noise> {
        let mut all = Vec::new();
        let Host { receive, transmit } = &mut self.time_receiver.host;
        all.extend([receive, transmit]);
        for gm in &mut self.grandmaster {
            all.extend([&mut gm.host.receive, &mut gm.host.transmit]);
            for direction in [Some(&mut gm.link.forward), gm.link.backward.as_mut()] {
                let Some(direction) = direction else { continue };
                all.push(&mut direction.jitter);
                all.extend(direction.outliers.as_mut().map(|outliers| &mut outliers.delay));
            }
        }
        all
    }

    /// What no single value can be blamed for: the key, and what is wrong with it.
    fn check(&mut self) -> Result<(), (&'static str, String)> {
        let samples = self.duration_s.get() / self.sample_interval_s.get();
        if samples > MAX_SAMPLES {
            let problem = format!("{samples:.0} samples are more than {MAX_SAMPLES:.0}");
            return Err(("sample-interval-s", problem));
        }
        if self.warm_up_s.get() >= self.duration_s.get() {
            return Err(("warm-up-s", "nothing is left of duration-s".into()));
        }
        if self.grandmaster.is_empty() || self.grandmaster.len() > MAX_GRANDMASTERS {
            let problem = format!("one to {MAX_GRANDMASTERS} are needed");
            return Err(("grandmaster", problem));
        }
        let oscillators = self.grandmaster.iter().map(|gm| &gm.oscillator);
        for oscillator in oscillators.chain([&self.time_receiver.oscillator]) {
            if oscillator.steps.len().max(oscillator.temperature.len()) > MAX_ENTRIES {
                return Err(("oscillator", format!("a list has more than {MAX_ENTRIES} entries")));
            }
            if oscillator.temperature.iter().any(|ramp| ramp.to_s < ramp.from_s) {
                return Err(("temperature", "to-s is before from-s".into()));
            }
        }
        for gm in &self.grandmaster {
            if gm.outages.len() > MAX_ENTRIES || gm.outages.iter().any(|o| o.to_s < o.from_s) {
                return Err(("outages", "too many, or to-s before from-s".into()));
            }
            for direction in
                [Some(&gm.link.forward), gm.link.backward.as_ref()].into_iter().flatten()
            {
                let changes = &direction.route_changes;
                if changes.len() > MAX_ENTRIES || !changes.is_sorted_by(|a, b| a.at_s < b.at_s) {
                    return Err(("route-changes", "too many, or not in order of at-s".into()));
                }
            }
        }
        for noise in self.noises() {
            if let Noise::Uniform { low_ns, high_ns } = noise
                && low_ns > high_ns
            {
                return Err(("uniform", "low-ns is above high-ns".into()));
            }
        }
        Ok(())
    }

    /// The two-node link of the benchmarks: a path of 50 us, exponential jitter on both ways, and a
    /// time receiver whose frequency walks at random.
    pub fn two_nodes(jitter_ns: f64, random_walk_ppb: f64, log_interval: i8, seed: u64) -> Self {
        let direction = Direction {
            base_delay_ns: Span(50_000.0),
            jitter: Noise::Exponential { mean_ns: Span(jitter_ns) },
            ..Direction::default()
        };
        let interval = LogInterval(log_interval);
        Self {
            title: String::new(),
            seed,
            duration_s: Seconds(5_000.0),
            warm_up_s: Instant(1_000.0),
            // All phases of the Sync interval count, not only the instant before a Sync.
            sample_interval_s: Seconds(0.25),
            converged_below_ns: Span(1_000.0),
            servo: servo::Choice::default(),
            time_receiver: TimeReceiver {
                clock: SteeredClock::Virtual,
                oscillator: OscillatorSettings {
                    random_walk_ppb: Wander(random_walk_ppb),
                    ..OscillatorSettings::default()
                },
                host: Host::default(),
            },
            grandmaster: vec![Grandmaster {
                log_sync_interval: interval,
                log_min_delay_req_interval: interval,
                link: Link { forward: direction, backward: None },
                ..Grandmaster::default()
            }],
        }
    }
}

/// The problem with the line on which its key is first seen.
fn locate(text: &str, (key, problem): (&'static str, String)) -> String {
    let line = text.lines().position(|line| line.contains(key));
    match line {
        Some(line) => format!("{key} (line {}): {problem}", line + 1),
        None => format!("{key}: {problem}"),
    }
}

fn read(path: &Path) -> Result<String, ScenarioError> {
    let failed = |source| ScenarioError::Read { path: path.to_owned(), source };
    if fs::metadata(path).map_err(failed)?.len() > MAX_BYTES {
        return Err(ScenarioError::TooLarge(path.to_owned()));
    }
    fs::read_to_string(path).map_err(failed)
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

    fn parse(text: &str) -> Result<Scenario, String> {
        Scenario::parse("test.toml", text, Path::new("/nonexistent"))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn the_least_scenario_is_a_duration_and_a_grandmaster() {
        let scenario = parse("duration-s = 10\n[[grandmaster]]\n").unwrap();
        assert_eq!(scenario.grandmaster[0], Grandmaster::default());
    }

    #[test]
    fn unknown_keys_and_impossible_values_are_refused_with_their_place() {
        let gm = "duration-s = 10\n[[grandmaster]]\n";
        for (text, line, word) in [
            ("duration-s = 10\nspeed = 1\n[[grandmaster]]\n".to_owned(), "line 2", "speed"),
            ("duration-s = -10\n[[grandmaster]]\n".to_owned(), "line 1", "-10"),
            ("duration-s = nan\n[[grandmaster]]\n".to_owned(), "line 1", "NaN"),
            ("duration-s = 10\nservo = \"magic\"\n[[grandmaster]]".to_owned(), "line 2", "magic"),
            (format!("{gm}log-sync-interval = -9\n"), "line 3", "-9"),
            (format!("{gm}link.forward.loss = 1.5\n"), "line 3", "1.5"),
            (
                format!("{gm}[grandmaster.link.forward]\njitter.exponential.mean-ns = -1\n"),
                "line 4",
                "-1",
            ),
            (format!("{gm}link.forward.jitter.gauss.sd-ns = 1\n"), "line 3", "gauss"),
            (
                "duration-s = 1e6\nsample-interval-s = 0.1\n[[grandmaster]]\n".to_owned(),
                "line 2",
                "samples",
            ),
            (format!("warm-up-s = 10\n{gm}"), "line 1", "nothing is left"),
            (format!("{gm}outages = [{{ from-s = 2, to-s = 1 }}]\n"), "line 3", "to-s"),
        ] {
            let error = parse(&text).unwrap_err();
            assert!(error.contains(line) && error.contains(word), "{text}: {error}");
        }
        assert!(parse("duration-s = 10\n").is_err());
        assert!(parse("duration-s = 10\ngrandmaster = []\n").is_err());
    }

    #[test]
    fn a_file_of_noise_that_does_not_exist_is_named() {
        let text = "duration-s = 10\n[[grandmaster]]\nhost.receive.empirical.file = \"rx.txt\"\n";
        assert!(parse(text).unwrap_err().contains("/nonexistent/rx.txt"));
    }

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
