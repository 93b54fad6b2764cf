//! The classic proportional-integral controller with the constants that linuxptp documents for software
//! time stamps (ptp4l(8): `pi_*`), so that figures can be compared. One thing differs: the first
//! frequency estimate is a least-squares line over a few seconds, because the small integral gain
//! would take minutes to remove what two noisy points get wrong.

use super::classic::{Controller, Point};
use crate::math;

/// A gain, as linuxptp documents it: `min(scale * sync^exponent, norm_max / sync)`, with `sync` the
/// Sync interval in seconds, unless `constant` is above zero.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Gain {
    /// `pi_*_const`.
    constant: f64,
    /// `pi_*_scale`.
    scale: f64,
    /// `pi_*_exponent`.
    exponent: f64,
    /// `pi_*_norm_max`.
    norm_max: f64,
}

impl Gain {
    fn at(&self, interval_s: f64) -> f64 {
        if self.constant > 0.0 {
            return self.constant;
        }
        (self.scale * math::powf(interval_s, self.exponent)).min(self.norm_max / interval_s)
    }
}

/// The controller.
#[derive(Debug)]
pub(super) struct Pi {
    proportional: Gain,
    integral: Gain,
    /// What the clock gains on the time transmitter while it is not adjusted, parts per billion.
    drift_ppb: f64,
    /// Largest adjustment, parts per billion.
    limit_ppb: f64,
}

impl Default for Pi {
    /// linuxptp's documented defaults for software time stamps.
    fn default() -> Self {
        Self {
            proportional: Gain { constant: 0.0, scale: 0.1, exponent: -0.3, norm_max: 0.7 },
            integral: Gain { constant: 0.0, scale: 0.001, exponent: 0.4, norm_max: 0.3 },
            drift_ppb: 0.0,
            limit_ppb: f64::INFINITY,
        }
    }
}

impl Controller for Pi {
    /// The gains are given for every interval.
    const LONGEST_INTERVAL_S: f64 = f64::INFINITY;

    fn name(&self) -> &'static str {
        "pi"
    }

    fn limit_frequency(&mut self, ppb: f64) {
        self.limit_ppb = ppb;
    }

    fn start(&mut self, drift_ppb: f64) {
        self.drift_ppb = drift_ppb.clamp(-self.limit_ppb, self.limit_ppb);
    }

    fn drift_ppb(&self) -> f64 {
        self.drift_ppb
    }

    fn point(&mut self, point: Point) -> Option<f64> {
        let ns = point.offset_ns;
        let proportional = self.proportional.at(point.interval_s) * ns * point.weight;
        let integral = self.integral.at(point.interval_s) * ns * point.weight;
        let wanted = -(self.drift_ppb + proportional + integral);
        // While the adjustment is at its limit the integral would only wind up.
        if wanted.abs() <= self.limit_ppb {
            self.drift_ppb += integral;
        }
        Some(wanted)
    }

    /// The frequency that was learnt stays: a step is about time alone.
    fn stepped(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prelude::*;
    use crate::{
        servo::{
            Choice, DelayInput, LocalTime, Options, Servo, ServoOutput, ServoState, SyncInput,
            build,
        },
        stamp::StampSource,
    };
    use ptp_common::time::{Duration, Free, Ptp, Time};

    fn gains(interval_s: f64) -> (f64, f64) {
        let pi = Pi::default();
        (pi.proportional.at(interval_s), pi.integral.at(interval_s))
    }

    #[test]
    fn the_gains_follow_the_documented_formula() {
        assert_eq!(gains(1.0), (0.1, 0.001));
        let (kp, ki) = gains(1.0 / 16.0);
        assert!((kp - 0.1 * 16.0_f64.powf(0.3)).abs() < 1e-12);
        assert!((ki - 0.001 * 16.0_f64.powf(-0.4)).abs() < 1e-12);
        // The norm takes over at long intervals.
        let (kp, _) = gains(64.0);
        assert!((kp - 0.7 / 64.0).abs() < 1e-12);
        let constant = Gain { constant: 0.5, ..Pi::default().proportional };
        assert_eq!(constant.at(64.0), 0.5);
    }

    /// A servo whose clock runs free: nothing that it asks for is done.
    struct OpenLoop {
        servo: Box<dyn Servo>,
        now: Time<Free>,
    }

    impl OpenLoop {
        fn new(options: &Options) -> Self {
            let choice: Choice = "pi".parse().unwrap();
            Self { servo: build(&choice, options), now: Time::from_nanos(1_000_000_000) }
        }

        fn local(&self, offset: Duration) -> LocalTime {
            let clock = Time::<Ptp>::from_epoch(self.now.since_epoch()) + offset;
            LocalTime {
                mono: self.now,
                clock,
                source: StampSource::Simulated,
                doubt: Duration::ZERO,
                told_within: None,
            }
        }

        /// A second later, an exchange over a path of 10 us each way.
        fn exchange(&mut self, offset: Duration) -> Option<ServoOutput> {
            let path = Duration::from_micros(10);
            self.now += Duration::from_secs(1);
            let local = self.local(offset);
            let truth = Time::<Ptp>::from_epoch(self.now.since_epoch());
            self.servo.delay(DelayInput {
                t3: local,
                t4: truth + path,
                sequence_id: 0,
                correction: Duration::ZERO,
            });
            let t1 = truth - path;
            self.servo.sync(SyncInput {
                t1,
                t2: local,
                sequence_id: 0,
                log_interval: Some(0),
                correction: Duration::ZERO,
            })
        }
    }

    fn locked(offset: Duration) -> (OpenLoop, ServoOutput) {
        locked_with(&Options::default(), offset)
    }

    fn locked_with(options: &Options, offset: Duration) -> (OpenLoop, ServoOutput) {
        let mut bench = OpenLoop::new(options);
        loop {
            if let Some(output) = bench.exchange(offset).filter(|o| o.state != ServoState::Unlocked)
            {
                return (bench, output);
            }
        }
    }

    #[test]
    fn the_first_update_steps_above_20_us_only() {
        let (_, output) = locked(Duration::from_micros(19));
        assert_eq!((output.state, output.step), (ServoState::Locked, None));
        let (_, output) = locked(Duration::from_micros(21));
        assert_eq!(output.state, ServoState::Jump);
        assert_eq!(output.step, Some(Duration::from_micros(-21)));
    }

    #[test]
    fn later_offsets_are_slewed_unless_a_threshold_is_set() {
        let (mut bench, _) = locked(Duration::ZERO);
        let output = bench.exchange(Duration::from_secs(1)).unwrap();
        assert_eq!(output.step, None);
        let options =
            Options { step_threshold: Some(Duration::from_millis(1)), ..Options::default() };
        let (mut bench, _) = locked_with(&options, Duration::ZERO);
        let output = bench.exchange(Duration::from_secs(1)).unwrap();
        assert_eq!(output.step, Some(Duration::from_secs(-1)));
    }

    #[test]
    fn one_update_is_proportional_plus_integral() {
        let (mut bench, _) = locked(Duration::ZERO);
        let output = bench.exchange(Duration::from_nanos(1_000)).unwrap();
        assert!((output.frequency_ppb + 101.0).abs() < 1e-6, "{}", output.frequency_ppb);
        let output = bench.exchange(Duration::ZERO).unwrap();
        assert!((output.frequency_ppb + 1.0).abs() < 1e-6, "{}", output.frequency_ppb);
        assert!((bench.servo.holdover(bench.now).unwrap() + 1.0).abs() < 1e-6);
    }

    #[test]
    fn at_the_limit_the_integral_does_not_wind_up() {
        let (mut bench, _) = locked(Duration::ZERO);
        bench.servo.limit_frequency(1_000.0);
        for _ in 0..1_000 {
            let output = bench.exchange(Duration::from_secs(1)).unwrap();
            assert!((output.frequency_ppb + 1_000.0).abs() < 1e-9);
        }
        let output = bench.exchange(Duration::ZERO).unwrap();
        assert!(output.frequency_ppb.abs() < 1e-6, "{}", output.frequency_ppb);
    }

    #[test]
    fn another_grandmaster_steps_above_a_millisecond_and_keeps_the_frequency() {
        for (offset, steps) in [(900, false), (1_100, true)] {
            let (mut bench, _) = locked(Duration::ZERO);
            bench.servo.parent_changed();
            // The delay of the new path comes first.
            assert_eq!(bench.exchange(Duration::from_micros(offset)), None);
            let output = bench.exchange(Duration::from_micros(offset)).unwrap();
            assert_eq!(output.step.is_some(), steps);
        }
    }

    #[test]
    fn absurd_times_give_finite_frequencies() {
        let (mut bench, _) = locked(Duration::ZERO);
        for offset in [i64::MAX, i64::MIN, 0, i64::MAX] {
            let output = bench.exchange(Duration::from_nanos(offset)).unwrap();
            assert!(output.frequency_ppb.is_finite());
        }
    }
}
