//! Which clock follows, and what may be done to it: the values of `--clock` and the `[clock]` section
//! of the configuration.

use std::{path::PathBuf, str::FromStr};

use ptp_common::time::{Duration, Time};
use serde::Deserialize;
use toml::value::Datetime;

use super::config::ConfigError;
use crate::{
    agent::steer::Steering,
    clock::{
        frequency::{KernelFrequency, LIMIT_PPB},
        policy::{Limits, MAX_FREQUENCY_PPB},
        saved,
        system::{HostKernel, Kernel},
    },
    publish::export::Exporting,
    servo,
};

/// Where packages keep such things.
const FREQUENCY_FILE: &str = "/var/lib/ptp-agent/frequency";

/// `--clock` of `run`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(super) enum RunClock {
    None,
    Virtual,
    System,
    Phc(PathBuf),
}

impl FromStr for RunClock {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self::None),
            "virtual" => Ok(Self::Virtual),
            "system" => Ok(Self::System),
            _ => match text.strip_prefix("phc:") {
                Some(device) if !device.is_empty() => Ok(Self::Phc(device.into())),
                _ => Err(format!("{text:?} is not none, virtual, system or phc:/dev/ptpN")),
            },
        }
    }
}

impl TryFrom<String> for RunClock {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// What other programs on this host are given.
#[derive(Clone, Debug, Default, clap::Args, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct ExportArgs {
    /// Publish the software clock in shared memory, in this file (see ptp-clock-reader); with
    /// --clock virtual.
    #[arg(long, value_name = "FILE")]
    page: Option<PathBuf>,
    /// Publish the error bound of CLOCK_REALTIME for AWS ClockBound's clients, in this file; not with a
    /// hardware clock. Theirs is /var/run/clockbound/shm.
    #[arg(long, value_name = "FILE")]
    clock_bound: Option<PathBuf>,
    /// Give chronyd samples through the socket of its `refclock SOCK`; not with --clock system.
    #[arg(long, value_name = "SOCKET")]
    chrony_sock: Option<PathBuf>,
    /// Give ntpd or chronyd samples through NTP's shared memory of this unit; not with --clock system.
    #[arg(long, value_name = "UNIT")]
    ntp_shm: Option<u8>,
}

impl ExportArgs {
    /// These, or else those of the configuration, for a run with this clock.
    pub(super) fn exporting(
        self,
        config: Self,
        clock: &RunClock,
    ) -> Result<Exporting, &'static str> {
        let exporting = Exporting {
            page: self.page.or(config.page),
            clock_bound: self.clock_bound.or(config.clock_bound),
            chrony_sock: self.chrony_sock.or(config.chrony_sock),
            ntp_shm: self.ntp_shm.or(config.ntp_shm),
        };
        let is_given = |given: bool, clocks: &[RunClock], problem| {
            if given && !clocks.contains(clock) { Err(problem) } else { Ok(()) }
        };
        is_given(
            exporting.page.is_some(),
            &[RunClock::Virtual],
            "--page publishes the software clock, which there is with --clock virtual only",
        )?;
        is_given(
            exporting.clock_bound.is_some(),
            &[RunClock::None, RunClock::Virtual, RunClock::System],
            "--clock-bound is about CLOCK_REALTIME, which is not compared with anything while a hardware clock follows",
        )?;
        is_given(
            exporting.chrony_sock.is_some() || exporting.ntp_shm.is_some(),
            &[RunClock::None, RunClock::Virtual],
            "--chrony-sock and --ntp-shm are for another program that steers the system clock: use them with --clock virtual or none",
        )?;
        Ok(exporting)
    }
}

/// `[clock]`: the safety policy for the host's clocks.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct ClockSection {
    /// Larger offsets are stepped at the first lock, seconds; `false` for never.
    first_step_threshold: Option<OrNever>,
    /// Larger offsets are stepped later, seconds; never unless given.
    step_threshold: Option<OrNever>,
    /// Farthest from the first reference, seconds; `false` for any distance, the default.
    max_first_step: Option<OrNever>,
    /// Farthest later, seconds.
    max_step: Option<OrNever>,
    /// All later steps together, seconds.
    max_step_sum: Option<OrNever>,
    /// Largest adjustment of the frequency, parts per million.
    max_frequency: Option<f64>,
    /// No time before this is believed.
    earliest: Option<Datetime>,
    /// Where the frequency is kept; `false` for nowhere.
    frequency_file: Option<PathOrNone>,
    /// Steer though another program is known to.
    #[serde(default)]
    beside_others: bool,
}

/// Seconds, or `false`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(untagged, expecting = "expected a number of seconds, or false")]
enum OrNever {
    Seconds(f64),
    Is(bool),
}

/// A path, or `false`.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "expected a path, or false")]
enum PathOrNone {
    Path(PathBuf),
    Is(bool),
}

fn wrong(key: &'static str, problem: impl Into<String>) -> ConfigError {
    ConfigError::Value { key, problem: problem.into() }
}

fn seconds(
    key: &'static str,
    given: Option<OrNever>,
    default: Option<Duration>,
) -> Result<Option<Duration>, ConfigError> {
    match given {
        None => Ok(default),
        Some(OrNever::Is(false)) => Ok(None),
        Some(OrNever::Seconds(seconds)) if (0.0..=1e10).contains(&seconds) => {
            Ok(Some(Duration::from_nanos_f64(seconds * 1e9)))
        }
        Some(_) => Err(wrong(key, "expected a number of seconds that is not negative, or false")),
    }
}

impl ClockSection {
    /// The limits.
    pub(super) fn limits(&self) -> Result<Limits, ConfigError> {
        let default = Limits::default();
        let max_frequency_ppb = self.max_frequency.map_or(MAX_FREQUENCY_PPB, |ppm| ppm * 1e3);
        if !(1.0..=LIMIT_PPB).contains(&max_frequency_ppb) {
            return Err(wrong("clock.max-frequency", "expected 0.001 to 100000 (ppm)"));
        }
        let earliest = match &self.earliest {
            None => default.earliest,
            Some(earliest) => Time::from_seconds_nanos(unix_seconds(earliest)?, 0),
        };
        Ok(Limits {
            max_first_step: seconds(
                "clock.max-first-step",
                self.max_first_step,
                default.max_first_step,
            )?,
            max_step: seconds("clock.max-step", self.max_step, default.max_step)?,
            max_step_sum: seconds("clock.max-step-sum", self.max_step_sum, default.max_step_sum)?,
            earliest,
            max_frequency_ppb,
            ..default
        })
    }

    /// When the servo steps the host's clock.
    pub(super) fn servo_options(&self) -> Result<servo::Options, ConfigError> {
        let default = servo::Options::default();
        let step_threshold = seconds("clock.step-threshold", self.step_threshold, None)?;
        Ok(servo::Options {
            step_threshold,
            first_step_threshold: seconds(
                "clock.first-step-threshold",
                self.first_step_threshold,
                default.first_step_threshold,
            )?,
            change_step_threshold: step_threshold,
            ..default
        })
    }

    /// How the system clock is steered, and with what servo.
    pub(super) fn steering(&self) -> Result<(Steering, servo::Options), ConfigError> {
        let limits = self.limits()?;
        let frequency_file = match &self.frequency_file {
            None => Some(PathBuf::from(FREQUENCY_FILE)),
            Some(PathOrNone::Path(path)) => Some(path.clone()),
            Some(PathOrNone::Is(false)) => None,
            Some(PathOrNone::Is(true)) => {
                return Err(wrong("clock.frequency-file", "expected a path, or false"));
            }
        };
        let frequency_ppb = frequency_file.as_deref().and_then(|path| {
            saved::read(path).unwrap_or_else(|error| {
                tracing::warn!(%error, path = %path.display(), "cannot restore the frequency");
                None
            })
        });
        let in_effect = frequency_ppb.or_else(|| {
            let state = HostKernel.state().ok()?;
            let set = KernelFrequency { tick: state.tick, fine: state.frequency };
            Some(set.ppb(HostKernel.nominal_tick()))
        });
        let options =
            servo::Options { frequency_ppb: in_effect.unwrap_or(0.0), ..self.servo_options()? };
        let steering =
            Steering { limits, frequency_file, frequency_ppb, beside_others: self.beside_others };
        Ok((steering, options))
    }

    /// How a hardware clock is steered, and with what servo. Its frequency is in the device.
    pub(super) fn phc_steering(&self) -> Result<(Steering, servo::Options), ConfigError> {
        let steering = Steering {
            limits: self.limits()?,
            frequency_file: None,
            frequency_ppb: None,
            beside_others: false,
        };
        Ok((steering, self.servo_options()?))
    }

    /// Whether everything in it can be used.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        self.limits()?;
        self.servo_options()?;
        Ok(())
    }
}

/// A date, or a date and time in UTC.
fn unix_seconds(datetime: &Datetime) -> Result<u64, ConfigError> {
    let expected =
        || wrong("clock.earliest", "expected a date from 1970 on, and perhaps a time, UTC");
    let date = datetime.date.ok_or_else(expected)?;
    let is_utc = match datetime.offset {
        None | Some(toml::value::Offset::Z) => true,
        Some(toml::value::Offset::Custom { minutes }) => minutes == 0,
    };
    if !is_utc {
        return Err(expected());
    }
    // Days since 1970 in the Gregorian calendar, years beginning in March.
    let (month, day) = (i64::from(date.month), i64::from(date.day));
    let year = i64::from(date.year) - i64::from(month <= 2);
    let of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    let days = year * 365 + year / 4 - year / 100 + year / 400 + of_year - 719_468;
    let time = datetime.time.map_or(0, |time| {
        i64::from(time.hour) * 3_600
            + i64::from(time.minute) * 60
            + i64::from(time.second.unwrap_or(0))
    });
    u64::try_from(days * 86_400 + time).map_err(|_| expected())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(text: &str) -> ClockSection {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn dates_are_seconds_since_1970() {
        for (text, seconds) in [
            ("1970-01-01", 0),
            ("2000-02-29T12:00:00Z", 951_825_600),
            ("2026-11-22T01:00:00", 1_795_309_200),
        ] {
            let earliest = section(&format!("earliest = {text}")).earliest.unwrap();
            assert_eq!(unix_seconds(&earliest).unwrap(), seconds, "{text}");
        }
        for text in ["1969-12-31", "12:00:00", "2026-01-01T00:00:00+01:00"] {
            assert!(section(&format!("earliest = {text}")).check().is_err(), "{text}");
        }
    }

    #[test]
    fn limits_are_seconds_or_none() {
        let limits = section("max-first-step = 2.5\nmax-step = false\nmax-frequency = 100.0")
            .limits()
            .unwrap();
        assert_eq!(limits.max_first_step, Some(Duration::from_millis(2_500)));
        assert_eq!(limits.max_step, None);
        assert!((limits.max_frequency_ppb - 1e5).abs() < 1e-6);
        for text in ["max-step = -1.0", "max-step = true", "max-step = nan", "max-frequency = 0.0"]
        {
            assert!(section(text).check().is_err(), "{text}");
        }
    }

    #[test]
    fn no_other_steers_what_the_agent_steers() {
        let args = ExportArgs { chrony_sock: Some("/run/s".into()), ..ExportArgs::default() };
        let with = |clock| args.clone().exporting(ExportArgs::default(), &clock);
        assert!(with(RunClock::System).is_err());
        assert!(with(RunClock::Virtual).is_ok() && with(RunClock::None).is_ok());
        let bound = ExportArgs { clock_bound: Some("/run/b".into()), ..ExportArgs::default() };
        let with = |clock| bound.clone().exporting(ExportArgs::default(), &clock);
        assert!(with(RunClock::Phc("/dev/ptp0".into())).is_err() && with(RunClock::None).is_ok());
        let config = ExportArgs { page: Some("/run/p".into()), ..ExportArgs::default() };
        let merged = args.clone().exporting(config, &RunClock::Virtual).unwrap();
        assert!(merged.page.is_some() && merged.chrony_sock.is_some());
    }

    #[test]
    fn a_clock_of_the_host_is_not_stepped_later_unless_told() {
        let options = section("").servo_options().unwrap();
        assert_eq!((options.step_threshold, options.change_step_threshold), (None, None));
        assert!(options.first_step_threshold.is_some());
        let options = section("step-threshold = 1").servo_options().unwrap();
        assert_eq!(options.change_step_threshold, Some(Duration::from_secs(1)));
    }
}
