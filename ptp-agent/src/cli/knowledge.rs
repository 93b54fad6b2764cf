//! What an operator knows of the path, the oscillators and the clocks on the way, and the agent cannot
//! measure: the options that make the error bound smaller or say what it is against.

use ptp_common::time::Duration;

use super::config::RunSection;
use crate::servo::Options;

/// The options. Their places in the configuration are in `[run]`.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct KnowledgeArgs {
    /// How far the clock can be wrong because the two ways of the path differ, ns: half of the largest
    /// difference. A promise that makes the error bound smaller than causality alone does; without it no
    /// symmetry is assumed.
    #[arg(long, value_name = "NS")]
    asymmetry_limit: Option<u32>,
    /// What a packet from the time transmitter takes at the least, ns: cables and switches.
    #[arg(long, value_name = "NS")]
    least_delay_forward: Option<u32>,
    /// What a packet to the time transmitter takes at the least, ns: cables and switches.
    #[arg(long, value_name = "NS")]
    least_delay_backward: Option<u32>,
    /// What an oscillator's frequency may change by unseen, ppb: by so much the error bound grows with
    /// age (default 1000).
    #[arg(long, value_name = "PPB", value_parser = rate_error)]
    rate_error: Option<f64>,
    /// Error of each boundary clock between the grandmaster and here, ns. Without it the error bound is
    /// against the parent where there are some.
    #[arg(long, value_name = "NS")]
    boundary_clock_error: Option<u32>,
    /// How far the grandmaster is from UTC at the most, ns, where it does not say so itself (clockAccuracy
    /// unknown, or time not traceable). Without it no bound against UTC is given then.
    #[arg(long, value_name = "NS")]
    grandmaster_accuracy: Option<u32>,
}

/// The same with what the file says, and defaults.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Knowledge {
    asymmetry_limit: Option<Duration>,
    least_delay: [Duration; 2],
    rate_error_ppb: f64,
    boundary_clock_error: Option<Duration>,
    /// Distance of the grandmaster from UTC.
    pub(super) grandmaster_accuracy: Option<Duration>,
}

impl KnowledgeArgs {
    /// These, or else those of the configuration.
    pub(super) fn or(&self, section: &RunSection) -> Knowledge {
        let nanos = |given: Option<u32>, file: Option<u32>| {
            given.or(file).map(|nanos| Duration::from_nanos(nanos.into()))
        };
        let least = |given, file| nanos(given, file).unwrap_or(Duration::ZERO);
        Knowledge {
            asymmetry_limit: nanos(self.asymmetry_limit, section.asymmetry_limit),
            least_delay: [
                least(self.least_delay_forward, section.least_delay_forward),
                least(self.least_delay_backward, section.least_delay_backward),
            ],
            rate_error_ppb: self
                .rate_error
                .or(section.rate_error)
                .unwrap_or(Options::default().rate_error_ppb),
            boundary_clock_error: nanos(self.boundary_clock_error, section.boundary_clock_error),
            grandmaster_accuracy: nanos(self.grandmaster_accuracy, section.grandmaster_accuracy),
        }
    }
}

impl Knowledge {
    /// What a servo can make use of.
    pub(super) fn tell(&self, options: Options) -> Options {
        Options {
            asymmetry_limit: self.asymmetry_limit,
            least_delay: self.least_delay,
            rate_error_ppb: self.rate_error_ppb,
            boundary_clock_error: self.boundary_clock_error,
            ..options
        }
    }
}

/// A rate error that an oscillator can have, parts per billion.
pub(super) fn rate_error(text: &str) -> Result<f64, String> {
    match text.parse() {
        // Zero would be an oscillator that never changes, and a bound that never grows.
        Ok(ppb) if (0.001..=1e6).contains(&ppb) => Ok(ppb),
        _ => Err("expected a number from 0.001 to 1000000 (ppb)".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_line_wins_over_the_file_and_defaults_promise_nothing() {
        let none = KnowledgeArgs::default().or(&RunSection::default());
        assert_eq!(none.tell(Options::default()), Options::default());
        let section: RunSection = toml::from_str(
            "asymmetry-limit = 300\nleast-delay-forward = 5\nleast-delay-backward = 7\n\
             rate-error = 50\nboundary-clock-error = 100\ngrandmaster-accuracy = 0\n",
        )
        .unwrap();
        let args = KnowledgeArgs { least_delay_forward: Some(9), ..KnowledgeArgs::default() };
        let knowledge = args.or(&section);
        let options = knowledge.tell(Options::default());
        assert_eq!(options.asymmetry_limit, Some(Duration::from_nanos(300)));
        assert_eq!(options.least_delay, [9, 7].map(Duration::from_nanos));
        assert!((options.rate_error_ppb - 50.0).abs() < 1e-9);
        assert_eq!(options.boundary_clock_error, Some(Duration::from_nanos(100)));
        assert_eq!(knowledge.grandmaster_accuracy, Some(Duration::ZERO));
    }

    #[test]
    fn an_oscillator_that_never_changes_is_refused() {
        for text in ["0", "-1", "nan", "inf", "2e6", ""] {
            assert!(rate_error(text).is_err(), "{text}");
        }
        assert!(rate_error("0.5").is_ok());
    }
}
