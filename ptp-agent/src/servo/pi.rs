//! The classic proportional-integral servo with the constants that linuxptp documents for software
//! time stamps (ptp4l(8): `pi_*`, `step_threshold`, `first_step_threshold`, `max_frequency`), so
//! that figures can be compared. One thing differs: the first frequency estimate is a least-squares
//! line over a few seconds, because the small integral gain would take minutes to remove what two
//! noisy points get wrong.

use super::{
    DelayInput, PeerDelayInput, Servo, ServoOutput, ServoState, SyncInput,
    filter::{DelayFilterKind, TimestampMode, TimestampProcessor},
};
use ptp_common::time::{Duration, Mono, Time};

/// A gain, as linuxptp documents it: `min(scale * sync^exponent, norm_max / sync)`, with `sync` the
/// Sync interval in seconds, unless `constant` is above zero.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gain {
    /// `pi_*_const`.
    pub constant: f64,
    /// `pi_*_scale`.
    pub scale: f64,
    /// `pi_*_exponent`.
    pub exponent: f64,
    /// `pi_*_norm_max`.
    pub norm_max: f64,
}

impl Gain {
    fn at(&self, interval_s: f64) -> f64 {
        if self.constant > 0.0 {
            return self.constant;
        }
        (self.scale * interval_s.powf(self.exponent)).min(self.norm_max / interval_s)
    }
}

/// Settings of the servo.
#[derive(Clone, Debug, PartialEq)]
pub struct PiConfig {
    /// The proportional gain.
    pub proportional: Gain,
    /// The integral gain.
    pub integral: Gain,
    /// Larger offsets are stepped at any time; `None` never steps but at the start.
    pub step_threshold: Option<Duration>,
    /// Larger offsets are stepped at the first update; `None` never steps at the start.
    pub first_step_threshold: Option<Duration>,
    /// Larger offsets are stepped at the first update after a change of grandmaster; not of
    /// linuxptp, which would slew a second for a quarter of an hour.
    pub change_step_threshold: Option<Duration>,
    /// Largest adjustment, parts per billion.
    pub max_frequency_ppb: f64,
    /// How long the frequency is measured before the first adjustment.
    pub acquisition: Duration,
    /// `tsproc_mode`.
    pub mode: TimestampMode,
    /// `delay_filter`.
    pub delay_filter: DelayFilterKind,
    /// `delay_filter_length`.
    pub delay_filter_length: usize,
}

impl Default for PiConfig {
    /// linuxptp's documented defaults for software time stamps.
    fn default() -> Self {
        Self {
            proportional: Gain { constant: 0.0, scale: 0.1, exponent: -0.3, norm_max: 0.7 },
            integral: Gain { constant: 0.0, scale: 0.001, exponent: 0.4, norm_max: 0.3 },
            step_threshold: None,
            first_step_threshold: Some(Duration::from_micros(20)),
            change_step_threshold: Some(Duration::from_millis(1)),
            max_frequency_ppb: 900_000_000.0,
            acquisition: Duration::from_secs(4),
            mode: TimestampMode::Filter,
            delay_filter: DelayFilterKind::MovingMedian,
            delay_filter_length: 10,
        }
    }
}

/// Shortest interval between two outputs that a gain is computed for, seconds.
const MIN_INTERVAL_S: f64 = 1.0 / 1024.0;

/// Sums for a least-squares line through (time, offset), relative to the first point.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line {
    pub(super) first: Time<Mono>,
    pub(super) last: Time<Mono>,
    base: Duration,
    n: f64,
    x: f64,
    y: f64,
    xx: f64,
    xy: f64,
}

impl Line {
    pub(super) fn new(mono: Time<Mono>, offset: Duration) -> Self {
        let mut line = Self {
            first: mono,
            last: mono,
            base: offset,
            n: 0.0,
            x: 0.0,
            y: 0.0,
            xx: 0.0,
            xy: 0.0,
        };
        line.push(mono, offset);
        line
    }

    /// Seconds and nanoseconds.
    pub(super) fn push(&mut self, mono: Time<Mono>, offset: Duration) {
        self.last = mono;
        let x = (mono - self.first).as_secs_f64();
        let y = (offset - self.base).as_nanos_f64();
        self.n += 1.0;
        self.x += x;
        self.y += y;
        self.xx += x * x;
        self.xy += x * y;
    }

    /// ns/s, which is parts per billion.
    pub(super) fn slope(&self) -> Option<f64> {
        let denominator = self.n * self.xx - self.x * self.x;
        (self.n >= 2.0 && denominator > 0.0)
            .then(|| (self.n * self.xy - self.x * self.y) / denominator)
    }

    /// The line's offset at the last point.
    pub(super) fn end(&self, slope: f64) -> Duration {
        let x = (self.last - self.first).as_secs_f64();
        let mean = self.y / self.n;
        self.base + Duration::from_nanos_f64(mean + slope * (x - self.x / self.n))
    }
}

/// The servo.
#[derive(Debug)]
pub struct PiServo {
    config: PiConfig,
    processor: TimestampProcessor,
    state: ServoState,
    acquisition: Option<Line>,
    /// No step has been decided on yet.
    first_update: bool,
    /// The next update is the first after a change of grandmaster.
    changed: bool,
    /// What the clock gains on the time transmitter while it is not adjusted, parts per billion.
    drift_ppb: f64,
    /// The adjustment in effect.
    frequency_ppb: f64,
    interval_s: f64,
    last_sync: Option<Time<Mono>>,
    last_offset: Duration,
    /// Smoothed square of the offset, for the error bound.
    variance_ns2: f64,
}

impl PiServo {
    /// A servo for a clock that is now adjusted by `frequency_ppb`.
    pub fn new(config: PiConfig, frequency_ppb: f64) -> Self {
        let processor =
            TimestampProcessor::new(config.mode, config.delay_filter, config.delay_filter_length);
        Self {
            config,
            processor,
            state: ServoState::Unlocked,
            acquisition: None,
            first_update: true,
            changed: false,
            drift_ppb: -frequency_ppb,
            frequency_ppb,
            interval_s: 1.0,
            last_sync: None,
            last_offset: Duration::ZERO,
            variance_ns2: 0.0,
        }
    }

    fn clamp(&self, ppb: f64) -> f64 {
        ppb.clamp(-self.config.max_frequency_ppb, self.config.max_frequency_ppb)
    }

    fn learn_interval(&mut self, input: &SyncInput) {
        let measured = self.last_sync.map(|last| (input.t2.mono - last).as_secs_f64());
        self.last_sync = Some(input.t2.mono);
        let interval = match (input.log_interval, measured) {
            (Some(log), _) => Duration::from_log_interval(log).as_secs_f64(),
            (None, Some(measured)) if measured > 0.0 => {
                self.interval_s + (measured - self.interval_s) / 8.0
            }
            _ => return,
        };
        self.interval_s = interval.max(MIN_INTERVAL_S);
    }

    /// The frequency is measured while the clock runs on unadjusted, on Sync messages alone: delays
    /// that are measured meanwhile contain what the clock gains, and would bend the line. Returns
    /// the offset at the end, once there is enough and a delay is known.
    fn acquire(&mut self, input: &SyncInput) -> Option<Duration> {
        let forward = input.t2.clock - input.t1;
        let line = match &mut self.acquisition {
            Some(line) => {
                line.push(input.t2.mono, forward);
                *line
            }
            None => {
                self.acquisition = Some(Line::new(input.t2.mono, forward));
                return None;
            }
        };
        self.processor.filtered_delay()?;
        if line.last - line.first < self.config.acquisition {
            return None;
        }
        let slope = line.slope()?;
        // The line was drawn with the clock adjusted by `frequency_ppb`.
        self.drift_ppb = -self.clamp(-(slope - self.frequency_ppb));
        self.acquisition = None;
        self.processor.remove_gain(slope);
        Some(line.end(slope) - self.processor.filtered_delay()?)
    }

    fn step_limit(&self) -> Option<Duration> {
        let at_start = if self.first_update { self.config.first_step_threshold } else { None };
        let at_change = if self.changed { self.config.change_step_threshold } else { None };
        [self.config.step_threshold, at_start, at_change].into_iter().flatten().min()
    }
}

impl Servo for PiServo {
    fn name(&self) -> &'static str {
        "pi"
    }

    fn sync(&mut self, input: SyncInput) -> Option<ServoOutput> {
        self.learn_interval(&input);
        let measured = self.processor.sync(input);
        let acquired = if self.state == ServoState::Unlocked { self.acquire(&input) } else { None };
        let measured = measured?;
        let mut output = ServoOutput {
            offset: measured.offset,
            raw_offset: measured.raw_offset,
            delay: measured.delay,
            frequency_ppb: self.frequency_ppb,
            step: None,
            state: self.state,
            error_bound: None,
        };
        let mut offset = measured.offset;
        if self.state == ServoState::Unlocked {
            match acquired {
                Some(fitted) => offset = fitted,
                None => return Some(output),
            }
        }
        if self.step_limit().is_some_and(|limit| offset.abs() > limit) {
            // The frequency that was learnt stays: a step is about time alone.
            output.state = ServoState::Jump;
            output.step = Some(-offset);
            output.frequency_ppb = self.clamp(-self.drift_ppb);
            self.variance_ns2 = 0.0;
        } else {
            let ns = offset.as_nanos_f64();
            let proportional = self.config.proportional.at(self.interval_s) * ns * measured.weight;
            let integral = self.config.integral.at(self.interval_s) * ns * measured.weight;
            let wanted = -(self.drift_ppb + proportional + integral);
            output.frequency_ppb = self.clamp(wanted);
            // While the adjustment is at its limit the integral would only wind up.
            if output.frequency_ppb == wanted {
                self.drift_ppb += integral;
            }
            output.state = ServoState::Locked;
            self.variance_ns2 += (ns * ns - self.variance_ns2) / 16.0;
        }
        self.last_offset = offset;
        self.first_update = false;
        self.changed = false;
        self.state = output.state;
        output.error_bound = self.error_bound(input.t2.mono);
        Some(output)
    }

    fn delay(&mut self, input: DelayInput) {
        self.processor.delay(input);
    }

    fn peer_delay(&mut self, input: PeerDelayInput) {
        self.processor.peer_delay(input);
    }

    fn adjusted(&mut self, _now: Time<Mono>, frequency_ppb: f64, stepped: Option<Duration>) {
        self.frequency_ppb = frequency_ppb;
        if stepped.is_some() {
            self.processor.forget_times();
        }
    }

    fn limit_frequency(&mut self, ppb: f64) {
        self.config.max_frequency_ppb = self.config.max_frequency_ppb.min(ppb);
    }

    fn parent_changed(&mut self) {
        self.processor.reset();
        self.acquisition = None;
        self.changed = !self.first_update;
    }

    fn holdover(&mut self, _now: Time<Mono>) -> Option<f64> {
        if matches!(self.state, ServoState::Unlocked) {
            return None;
        }
        self.state = ServoState::Holdover;
        self.processor.forget_times();
        Some(self.clamp(-self.drift_ppb))
    }

    fn state(&self) -> ServoState {
        self.state
    }

    /// All of the path may lie on one side, so the delay itself bounds the asymmetry. Beyond the
    /// noise, 1 ppm is allowed for the age of the last Sync.
    fn error_bound(&self, now: Time<Mono>) -> Option<Duration> {
        if !matches!(self.state, ServoState::Locked | ServoState::Holdover) {
            return None;
        }
        let delay = self.processor.filtered_delay()?;
        let noise = Duration::from_nanos_f64(4.0 * self.variance_ns2.sqrt());
        let age = (now - self.last_sync?).max(Duration::ZERO);
        let wander = Duration::from_nanos_f64(age.as_secs_f64() * 1_000.0);
        Some(delay.abs() + noise + wander + self.last_offset.abs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{servo::LocalTime, stamp::StampSource};
    use ptp_common::time::Ptp;

    fn gains(interval_s: f64) -> (f64, f64) {
        let config = PiConfig::default();
        (config.proportional.at(interval_s), config.integral.at(interval_s))
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
        let constant = Gain { constant: 0.5, ..PiConfig::default().proportional };
        assert_eq!(constant.at(64.0), 0.5);
    }

    /// A servo whose clock runs free: nothing that it asks for is done.
    struct OpenLoop {
        servo: PiServo,
        now: Time<Mono>,
    }

    impl OpenLoop {
        fn new(config: PiConfig) -> Self {
            Self { servo: PiServo::new(config, 0.0), now: Time::from_nanos(1_000_000_000) }
        }

        fn local(&self, offset: Duration) -> LocalTime {
            let clock = Time::<Ptp>::from_epoch(self.now.since_epoch()) + offset;
            LocalTime { mono: self.now, clock, source: StampSource::Simulated }
        }

        /// A second later, an exchange over a path of 10 us each way.
        fn exchange(&mut self, offset: Duration) -> Option<ServoOutput> {
            let path = Duration::from_micros(10);
            self.now += Duration::from_secs(1);
            let local = self.local(offset);
            let truth = Time::<Ptp>::from_epoch(self.now.since_epoch());
            self.servo.delay(DelayInput { t3: local, t4: truth + path, sequence_id: 0 });
            let t1 = truth - path;
            self.servo.sync(SyncInput { t1, t2: local, sequence_id: 0, log_interval: Some(0) })
        }
    }

    fn locked(offset: Duration) -> (OpenLoop, ServoOutput) {
        let mut bench = OpenLoop::new(PiConfig::default());
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
        let (mut bench, _) = locked(Duration::ZERO);
        bench.servo.config.step_threshold = Some(Duration::from_millis(1));
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
