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
struct Line {
    first: Time<Mono>,
    last: Time<Mono>,
    base: Duration,
    n: f64,
    x: f64,
    y: f64,
    xx: f64,
    xy: f64,
}

impl Line {
    fn new(mono: Time<Mono>, offset: Duration) -> Self {
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
    fn push(&mut self, mono: Time<Mono>, offset: Duration) {
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
    fn slope(&self) -> Option<f64> {
        let denominator = self.n * self.xx - self.x * self.x;
        (self.n >= 2.0 && denominator > 0.0)
            .then(|| (self.n * self.xy - self.x * self.y) / denominator)
    }

    /// The line's offset at the last point.
    fn end(&self, slope: f64) -> Duration {
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

    /// The frequency is measured while the clock runs on unadjusted.
    fn acquire(&mut self, mono: Time<Mono>, offset: Duration) -> Option<Duration> {
        let line = match &mut self.acquisition {
            Some(line) => {
                line.push(mono, offset);
                *line
            }
            None => {
                self.acquisition = Some(Line::new(mono, offset));
                return None;
            }
        };
        if line.last - line.first < self.config.acquisition {
            return None;
        }
        let slope = line.slope()?;
        self.acquisition = None;
        // The line was drawn with the clock adjusted by `frequency_ppb`.
        self.drift_ppb = -self.clamp(-(slope - self.frequency_ppb));
        let before = self.processor.filtered_delay()?;
        self.processor.remove_gain(slope);
        let after = self.processor.filtered_delay()?;
        Some(line.end(slope) + (before - after))
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
        let measured = self.processor.sync(input)?;
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
            match self.acquire(input.t2.mono, offset) {
                Some(fitted) => offset = fitted,
                None => return Some(output),
            }
            output.frequency_ppb = self.clamp(-self.drift_ppb);
        }
        if self.step_limit().is_some_and(|limit| offset.abs() > limit) {
            // As in linuxptp, an offset that needs a step later on means that all is to be learnt
            // anew, but for the first update and after a change of grandmaster.
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
