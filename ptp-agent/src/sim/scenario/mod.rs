//! What is simulated: the scenario file (TOML, keys in kebab-case, unknown keys and impossible values
//! refused with line and column), and the same as values for tests and benchmarks. `docs/scenarios` has
//! all keys in words.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::servo;

mod grandmaster;
mod host;
mod link;
mod noise;
mod oscillator;
mod receiver;
#[cfg(test)]
mod tests;
mod values;

use values::unroll;

pub use grandmaster::{BoundaryClock, Grandmaster, Outage, Restart, Silence, TimeStep};
pub use host::{BadStamps, GivenStall, Host, Sign, SleepingClock, Stall, Suspend, Which};
pub use link::{
    Cross, Direction, Link, LossBursts, Outliers, Queue, RouteChange, Sawtooth, TransparentClock,
};
pub use noise::{Noise, Part};
pub use oscillator::{Cycle, OscillatorSettings, Ramp, Step};
pub use receiver::{Expectations, ServoSettings, SteeredClock, TimeReceiver};
pub use values::{
    Count, Factor, Instant, Load, LogInterval, Millis, Nanos, Phase, Ppb, Probability, Seconds,
    Shape, Span, Tail, Utilisation, Wander, Window,
};

/// A scenario has no reason to be larger, and neither has a file of recorded noise.
const MAX_BYTES: u64 = 16 * 1024 * 1024;
/// Most instants at which the true error is taken.
const MAX_SAMPLES: f64 = 4e6;
/// Most grandmasters.
const MAX_GRANDMASTERS: usize = 16;
/// Most entries of any list.
const MAX_ENTRIES: usize = 1_000;
/// `stepsRemoved` from which on a receiver takes an Announce for one that goes round in circles
/// (IEEE 1588-2019, 9.3.2.5 d).
const MAX_STEPS_REMOVED: usize = 254;

/// What no single value can be blamed for: the key, and what is wrong with it.
type Problem = (&'static str, String);

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
    /// How it is set.
    #[serde(default)]
    pub servo_settings: ServoSettings,
    /// What is expected of the default servo.
    #[serde(default)]
    pub expect: Expectations,
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

fn a_day() -> Seconds {
    Seconds(86_400.0)
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
        scenario.check().and_then(|()| scenario.unroll()).map_err(|problem| {
            ScenarioError::Value { name: name.to_owned(), problem: locate(text, problem) }
        })?;
        scenario.noises().try_for_each(|noise| noise.read_files(directory))?;
        Ok(scenario)
    }

    fn noises(&mut self) -> impl Iterator<Item = &mut Noise> {
        let grandmasters = self.grandmaster.iter_mut();
        self.time_receiver.host.noises().chain(grandmasters.flat_map(|gm| {
            gm.host.noises().chain(gm.link.directions().flat_map(Direction::noises))
        }))
    }

    fn check(&mut self) -> Result<(), Problem> {
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
        for gm in &mut self.grandmaster {
            let steps_removed = usize::from(gm.steps_removed) + gm.boundary_clocks.len();
            if steps_removed > MAX_STEPS_REMOVED {
                let problem = format!("{steps_removed} with the boundary clocks, more than 254");
                return Err(("steps-removed", problem));
            }
            if gm.host.receive_doubt_ns.get() > 0.0 || gm.host.transmit_doubt_ns.get() > 0.0 {
                return Err(("doubt", "nobody asks a grandmaster about its doubts".into()));
            }
            for direction in gm.link.directions() {
                if !direction.route_changes.is_sorted_by(|a, b| a.at_s < b.at_s) {
                    return Err(("route-changes", "not in order of at-s".into()));
                }
                if direction.transparent_clocks.len() > MAX_ENTRIES {
                    return Err(("transparent-clocks", "too many".into()));
                }
                if let Some(Queue { sawtooth: Some(Sawtooth { peak_ns, trough_ns, .. }), .. }) =
                    &direction.queue
                    && trough_ns > peak_ns
                {
                    return Err(("sawtooth", "trough-ns is above peak-ns".into()));
                }
            }
        }
        self.noises().try_for_each(|noise| noise.check())
    }

    /// Writes out what happens again and again.
    fn unroll(&mut self) -> Result<(), Problem> {
        let until_s = self.duration_s.get();
        let Self { time_receiver, grandmaster, expect, .. } = self;
        unroll(&mut expect.excused, until_s)?;
        unroll(&mut time_receiver.suspends, until_s)?;
        // An oscillator that does not count in the meantime is one that has stepped back.
        let steps = time_receiver.suspends.iter().map(|suspend| Step {
            at_s: suspend.at_s,
            phase_ns: Phase(suspend.phase_ns()),
            frequency_ppb: Ppb::default(),
            every_s: None,
            count: None,
        });
        time_receiver.oscillator.steps.extend(steps);
        let oscillators = grandmaster.iter_mut().map(|gm| &mut gm.oscillator);
        for oscillator in oscillators.chain([&mut time_receiver.oscillator]) {
            unroll(&mut oscillator.steps, until_s)?;
            unroll(&mut oscillator.temperature, until_s)?;
        }
        let hosts = grandmaster.iter_mut().map(|gm| &mut gm.host);
        for host in hosts.chain([&mut time_receiver.host]) {
            unroll(&mut host.stalls, until_s)?;
        }
        for gm in grandmaster {
            unroll(&mut gm.outages, until_s)?;
            unroll(&mut gm.time_steps, until_s)?;
            unroll(&mut gm.restarts, until_s)?;
            for direction in gm.link.directions() {
                unroll(&mut direction.route_changes, until_s)?;
                if let Some(queue) = &mut direction.queue {
                    unroll(&mut queue.during, until_s)?;
                }
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
            servo_settings: ServoSettings::default(),
            expect: Expectations::default(),
            time_receiver: TimeReceiver {
                oscillator: OscillatorSettings {
                    random_walk_ppb: Wander(random_walk_ppb),
                    ..OscillatorSettings::default()
                },
                ..TimeReceiver::default()
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
fn locate(text: &str, (key, problem): Problem) -> String {
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
