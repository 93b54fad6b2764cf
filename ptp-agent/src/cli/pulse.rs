//! Pulses per second: where they come from, who says which seconds they are, and what for. The options, and what the
//! file says in `[run]`.

use std::{path::PathBuf, str::FromStr};

use clap::{Args, ValueEnum};
use serde::{Deserialize, Deserializer, de};

use super::{config::RunSection, merge::UsageError, ntp::Follow};
use crate::{
    agent::{
        io::pulse::{PulseIoConfig, PulseSource},
        run::PulseRun,
    },
    engine::{
        config::{PulseConfig, PulsePart},
        pulse,
    },
    sys::{pps::Edge, serial},
};
use ptp_common::time::Duration;

/// Half of the distance between two pulses, ns: nothing that is known of one can be larger.
const LARGEST_NS: u32 = 500_000_000;

/// `--pps`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SourceOption(pub(super) PulseSource);

impl FromStr for SourceOption {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || format!("{text:?} is not /dev/ppsN, phc:/dev/ptpN or phc:/dev/ptpN:PIN");
        let Some(device) = text.strip_prefix("phc:") else {
            let is_path = text.starts_with('/') && !text.ends_with('/');
            return is_path.then(|| Self(PulseSource::Kernel(text.into()))).ok_or_else(expected);
        };
        let (path, pin) = match device.rsplit_once(':') {
            Some((path, pin)) => (path, Some(pin.parse().map_err(|_| expected())?)),
            None => (device, None),
        };
        if path.is_empty() {
            return Err(expected());
        }
        Ok(Self(PulseSource::Phc(path.into(), pin)))
    }
}

impl<'de> Deserialize<'de> for SourceOption {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// `--pps-edge`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum EdgeOption {
    /// That by which the line becomes active, or rises.
    #[default]
    Assert,
    /// The other one.
    Clear,
}

impl EdgeOption {
    pub(super) const fn edge(self) -> Edge {
        match self {
            Self::Assert => Edge::Assert,
            Self::Clear => Edge::Clear,
        }
    }
}

/// Of `run`.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct PulseArgs {
    /// A pulse per second (RFC 2783): /dev/ppsN, or an input of a hardware clock as phc:/dev/ptpN or with its pin as
    /// phc:/dev/ptpN:PIN. The source that is followed is held against it (see --on-disagreement), or with --follow
    /// pps the clock follows it.
    #[arg(long, value_name = "SOURCE")]
    pps: Option<SourceOption>,
    /// Which edge is the second: assert (default; that by which the line becomes active) or clear.
    #[arg(long, value_name = "EDGE")]
    pps_edge: Option<EdgeOption>,
    /// From the second to its stamp: cable, receiver, the least time that the interrupt takes, ns. Taken off.
    #[arg(long, value_name = "NS", value_parser = clap::value_parser!(u32).range(..i64::from(LARGEST_NS)))]
    pps_delay: Option<u32>,
    /// How much later than that the stamp may be, since an interrupt may have to wait, ns (default 20000). Half of it is
    /// taken off, and all of it is in the error bound.
    #[arg(long, value_name = "NS", value_parser = clap::value_parser!(u32).range(..i64::from(LARGEST_NS)))]
    pps_lateness: Option<u32>,
    /// How far the pulse itself is from UTC at the most, ns (default 1000).
    #[arg(long, value_name = "NS", value_parser = clap::value_parser!(u32).range(..i64::from(LARGEST_NS)))]
    pps_accuracy: Option<u32>,
    /// A pulse that is farther from where the others make it expected is refused, ns (default 500000).
    #[arg(long, value_name = "NS", value_parser = clap::value_parser!(u32).range(1..i64::from(LARGEST_NS)))]
    pps_jitter: Option<u32>,
    /// A receiver's serial line, which says by NMEA 0183 (RMC, ZDA, GGA) which second a pulse is.
    #[arg(long, value_name = "DEVICE")]
    nmea: Option<PathBuf>,
    /// Speed of that line, baud (default: as it is set).
    #[arg(long, value_name = "N")]
    nmea_baud: Option<u32>,
}

impl PulseArgs {
    /// With what the file says. `None` where there is no pulse.
    pub(super) fn or(
        &self,
        section: &RunSection,
        follow: Follow,
        earliest_s: i64,
    ) -> Result<Option<PulseRun>, UsageError> {
        let source = self.pps.clone().or_else(|| section.pps.clone());
        let nmea = self.nmea.clone().or_else(|| section.nmea.clone());
        let Some(SourceOption(source)) = source else {
            return match (follow, nmea) {
                (Follow::Pps, _) => Err(UsageError::NoPulse("--follow pps")),
                (_, Some(_)) => Err(UsageError::NoPulse("--nmea")),
                _ => Ok(None),
            };
        };
        let baud = self.nmea_baud.or(section.nmea_baud);
        if let Some(baud) = baud.filter(|baud| !serial::is_speed(*baud)) {
            return Err(UsageError::OutOfRange(
                "--nmea-baud",
                format!("{baud} is no speed of a line"),
            ));
        }
        let known = pulse::Config::default();
        let nanos =
            |name, given: Option<u32>, file: Option<u32>, default: Duration| match given.or(file) {
                Some(nanos) if nanos < LARGEST_NS => Ok(Duration::from_nanos(nanos.into())),
                Some(nanos) => Err(UsageError::OutOfRange(name, format!("{nanos} ns"))),
                None => Ok(default),
            };
        let pulse = pulse::Config {
            delay: nanos("--pps-delay", self.pps_delay, section.pps_delay, known.delay)?,
            lateness: nanos(
                "--pps-lateness",
                self.pps_lateness,
                section.pps_lateness,
                known.lateness,
            )?,
            accuracy: nanos(
                "--pps-accuracy",
                self.pps_accuracy,
                section.pps_accuracy,
                known.accuracy,
            )?,
            jitter: nanos("--pps-jitter", self.pps_jitter, section.pps_jitter, known.jitter)?,
        };
        let engine = PulseConfig {
            pulse,
            part: match follow {
                Follow::Pps => PulsePart::Source,
                Follow::Ptp | Follow::Ntp => PulsePart::Witness,
            },
            nmea_earliest: nmea.is_some().then_some(earliest_s),
            // Filled in when the kernel has been asked.
            tai_offset_s: None,
        };
        let edge = self.pps_edge.or(section.pps_edge).unwrap_or_default().edge();
        let io = PulseIoConfig { source, edge, nmea: nmea.map(|path| (path, baud)) };
        Ok(Some(PulseRun { engine, io }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pulses_come_from_a_device_of_the_kernel_or_a_pin_of_a_hardware_clock() {
        let source = |text: &str| text.parse::<SourceOption>().map(|it| it.0);
        assert_eq!(source("/dev/pps0"), Ok(PulseSource::Kernel("/dev/pps0".into())));
        assert_eq!(source("phc:/dev/ptp0"), Ok(PulseSource::Phc("/dev/ptp0".into(), None)));
        assert_eq!(source("phc:/dev/ptp1:3"), Ok(PulseSource::Phc("/dev/ptp1".into(), Some(3))));
        for wrong in ["", "pps0", "phc:", "phc:/dev/ptp0:", "phc:/dev/ptp0:x", "phc::1", "/dev/"] {
            assert!(source(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn to_follow_a_pulse_one_must_be_named() {
        let section = RunSection::default();
        let args = PulseArgs::default();
        assert!(args.or(&section, Follow::Pps, 0).is_err());
        assert!(args.or(&section, Follow::Ptp, 0).unwrap().is_none());
        let nmea = PulseArgs { nmea: Some("/dev/ttyS0".into()), ..args.clone() };
        assert!(nmea.or(&section, Follow::Ptp, 0).is_err());
        let pps = PulseArgs { pps: Some("/dev/pps0".parse().unwrap()), ..nmea };
        let run = pps.or(&section, Follow::Pps, 77).unwrap().unwrap();
        assert_eq!((run.engine.part, run.engine.nmea_earliest), (PulsePart::Source, Some(77)));
        let fast = PulseArgs { nmea_baud: Some(1), ..pps };
        assert!(fast.or(&section, Follow::Pps, 0).is_err());
    }
}
