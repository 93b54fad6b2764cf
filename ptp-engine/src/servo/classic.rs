//! What the textbook servos have in common: offsets from the delay filter, a first measurement of the
//! frequency, steps by policy. The method itself is a [`Controller`].

mod line;

use super::{
    DelayInput, Interval, Options, PeerDelayInput, Servo, ServoOutput, ServoState, SyncInput,
    Trust,
    causal::{Causal, Pace, trust},
    filter::{DelayFilterKind, Offset, TimestampMode, TimestampProcessor},
    interval::{LONGEST_S, SyncInterval},
};
#[cfg(target_os = "none")]
use crate::math::Float as _;
use line::{Gait, Line};
use ptp_common::time::{Duration, Free, Time};

/// How long the frequency is measured before the first adjustment, unless the method wants more.
const ACQUISITION: Duration = Duration::from_secs(4);

/// How wrong a rate may be that nobody has measured yet, parts per billion (7.3.4.3: 100 ppm).
const UNKNOWN_RATE_PPB: f64 = 1e5;

/// What is known of a rate to so many standard deviations: of noise with a long tail, by few points.
const RATE_SIGMAS: f64 = 6.0;

/// What is asked for at the most where the clock says no limit, parts per billion.
const MAX_FREQUENCY_PPB: f64 = 1e8;

/// An offset as a controller gets it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Point {
    /// When.
    pub(super) at: Time<Free>,
    /// Of the steered clock, nanoseconds.
    pub(super) offset_ns: f64,
    /// Of the free-running scale from some origin, nanoseconds.
    pub(super) free_ns: f64,
    /// Round trip less residence, halved, of this exchange alone; nanoseconds.
    pub(super) delay_ns: f64,
    /// Trust in it, above 0 up to 1.
    pub(super) weight: f64,
    /// The Sync interval, seconds.
    pub(super) interval_s: f64,
}

/// A method.
pub(super) trait Controller: Send {
    /// Longer Sync intervals are taken for this one, seconds.
    const LONGEST_INTERVAL_S: f64 = LONGEST_S;

    fn name(&self) -> &'static str;

    /// Nothing beyond this is to be asked for, or integrated, parts per billion.
    fn limit_frequency(&mut self, _ppb: f64) {}

    /// How long the frequency is to be measured before the begin.
    fn acquisition(&self) -> Duration {
        ACQUISITION
    }

    /// The free-running scale gains `drift_ppb`, and the clock is right now: the begin.
    fn start(&mut self, drift_ppb: f64);

    /// What the free-running scale gains, as far as is known, parts per billion.
    fn drift_ppb(&self) -> f64;

    /// The adjustment from now on, parts per billion; `None` leaves it.
    fn point(&mut self, point: Point) -> Option<f64>;

    /// Offsets of the steered clock before a step mean nothing now.
    fn stepped(&mut self);
}

/// A servo around a method.
pub(super) struct Classic<C> {
    controller: C,
    options: Options,
    processor: TimestampProcessor,
    state: ServoState,
    acquisition: Option<Line>,
    origin: Option<Duration>,
    first_update: bool,
    changed: bool,
    frequency_ppb: f64,
    max_frequency_ppb: f64,
    interval: SyncInterval,
    last_offset: Duration,
    variance_ns2: f64,
    causal: Causal,
    gait: Gait,
    /// The grandmaster is another one, and what the controller has learnt is of the one before.
    is_of_another: bool,
}

impl<C: Controller> Classic<C> {
    pub(super) fn new(
        mut controller: C,
        options: Options,
        mode: TimestampMode,
        kind: DelayFilterKind,
        length: usize,
    ) -> Self {
        controller.limit_frequency(MAX_FREQUENCY_PPB);
        Self {
            controller,
            options,
            processor: TimestampProcessor::new(mode, kind, length),
            state: ServoState::Unlocked,
            acquisition: None,
            origin: None,
            first_update: true,
            changed: false,
            frequency_ppb: options.frequency_ppb,
            max_frequency_ppb: MAX_FREQUENCY_PPB,
            interval: SyncInterval::new(C::LONGEST_INTERVAL_S),
            last_offset: Duration::ZERO,
            variance_ns2: 0.0,
            causal: Causal::new(&options),
            gait: Gait::default(),
            is_of_another: false,
        }
    }

    /// What Sync say of the rate. Not what the controller has made of it, which has its frequency by and by only, moves it to
    /// remove an offset, and has learnt it of the grandmaster before.
    fn pace(&self) -> Pace {
        let least_error_ppb = self.options.rate_error_ppb;
        let (rate_ppb, error_ppb) = match self.gait.rate() {
            Some(rate) => (rate.ppb, least_error_ppb + RATE_SIGMAS * rate.sigma_ppb),
            None => (-self.frequency_ppb, UNKNOWN_RATE_PPB + self.frequency_ppb.abs()),
        };
        Pace { rate_ppb, error_ppb, least_error_ppb }
    }

    /// Of another grandmaster the rate is measured anew, too: the small integral gain would take minutes.
    fn relearn(&mut self) {
        if !self.is_of_another || self.gait.span() < self.controller.acquisition() {
            return;
        }
        let Some(rate) = self.gait.rate() else { return };
        self.is_of_another = false;
        if (rate.ppb - self.controller.drift_ppb()).abs() > RATE_SIGMAS * rate.sigma_ppb {
            self.controller.start(rate.ppb);
        }
    }

    fn clamp(&self, ppb: f64) -> f64 {
        let limit = self.max_frequency_ppb;
        if ppb.is_finite() { ppb.clamp(-limit, limit) } else { self.frequency_ppb }
    }

    /// The frequency is measured while the clock runs on unadjusted, on Sync messages alone: delays
    /// that are measured meanwhile contain what the clock gains, and would bend the line. Returns
    /// the offset at the end, once there is enough and a delay is known.
    fn acquire(&mut self, input: &SyncInput) -> Option<Duration> {
        let forward = input.t2.clock - input.t1;
        let Some(line) = &mut self.acquisition else {
            self.acquisition = Some(Line::new(input.t2.mono, forward));
            return None;
        };
        line.push(input.t2.mono, forward);
        let line = *line;
        self.processor.filtered_delay()?;
        if line.last - line.first < self.controller.acquisition() {
            return None;
        }
        let slope = line.slope()?;
        self.controller.start(slope - self.frequency_ppb);
        self.acquisition = None;
        self.processor.remove_gain(slope);
        Some(line.end(slope) - self.processor.filtered_delay()?)
    }

    fn step_limit(&self) -> Option<Duration> {
        let first = if self.first_update { self.options.first_step_threshold } else { None };
        let change = if self.changed { self.options.change_step_threshold } else { None };
        [self.options.step_threshold, first, change].into_iter().flatten().min()
    }

    fn point(&mut self, input: &SyncInput, offset: Duration, measured: &Offset) -> Point {
        let shown = input.t2.clock.since_epoch() - input.t2.mono.since_epoch();
        let free = measured.offset - shown;
        let origin = *self.origin.get_or_insert(free);
        Point {
            at: input.t2.mono,
            offset_ns: offset.as_nanos_f64(),
            free_ns: (free - origin).as_nanos_f64(),
            delay_ns: (measured.delay + measured.offset - measured.raw_offset).as_nanos_f64(),
            weight: measured.weight,
            interval_s: self.interval.seconds(),
        }
    }
}

impl<C: Controller> Servo for Classic<C> {
    fn name(&self) -> &'static str {
        self.controller.name()
    }

    fn sync(&mut self, input: SyncInput) -> Option<ServoOutput> {
        self.interval.learn(&input);
        self.causal.sync(&input, self.pace());
        if self.causal.is_contradicted() {
            // Somebody's stamp lies, or the time has stepped: neither is on a line with the others.
            self.gait = Gait::default();
        }
        self.gait.push(input.t2.mono, input.t2.mono.since_epoch() - input.t1.since_epoch());
        let measured = self.processor.sync(input);
        let acquired = if self.state == ServoState::Unlocked { self.acquire(&input) } else { None };
        let measured = measured?;
        let mut output = measured.output(self.frequency_ppb, self.state);
        let mut offset = measured.offset;
        if self.state == ServoState::Unlocked {
            match acquired {
                Some(fitted) => offset = fitted,
                None => return Some(output),
            }
        } else {
            self.relearn();
        }
        if self.step_limit().is_some_and(|limit| offset.abs() > limit) {
            output.state = ServoState::Jump;
            output.step = Some(Duration::ZERO - offset);
            output.frequency_ppb = self.clamp(-self.controller.drift_ppb());
            self.controller.stepped();
            self.variance_ns2 = 0.0;
        } else {
            let point = self.point(&input, offset, &measured);
            if let Some(frequency_ppb) = self.controller.point(point) {
                output.frequency_ppb = self.clamp(frequency_ppb);
            }
            output.state = ServoState::Locked;
            self.variance_ns2 += (point.offset_ns * point.offset_ns - self.variance_ns2) / 16.0;
        }
        self.last_offset = offset;
        self.first_update = false;
        self.changed = false;
        self.state = output.state;
        let shown = input.t2.clock.since_epoch() - input.t2.mono.since_epoch();
        output.trust = self.trust(input.t2.mono, shown + output.step.unwrap_or(Duration::ZERO));
        Some(output)
    }

    fn delay(&mut self, input: DelayInput) {
        self.causal.delay(&input, self.pace());
        self.processor.delay(input);
    }

    fn peer_delay(&mut self, input: PeerDelayInput) {
        self.causal.peer_delay(&input);
        self.processor.peer_delay(input);
    }

    fn adjusted(&mut self, _now: Time<Free>, frequency_ppb: f64, stepped: Option<Duration>) {
        self.frequency_ppb = frequency_ppb;
        if stepped.is_some() {
            self.processor.forget_times();
        }
    }

    fn limit_frequency(&mut self, ppb: f64) {
        self.max_frequency_ppb = self.max_frequency_ppb.min(ppb.abs());
        self.controller.limit_frequency(self.max_frequency_ppb);
    }

    fn set_step_thresholds(&mut self, options: &Options) {
        self.options.set_thresholds(options);
    }

    fn parent_changed(&mut self) {
        self.processor.reset();
        self.acquisition = None;
        self.origin = None;
        self.controller.stepped();
        self.changed = !self.first_update;
        self.is_of_another = self.state != ServoState::Unlocked;
        self.causal = Causal::new(&self.options);
        self.gait = Gait::default();
    }

    fn holdover(&mut self, _now: Time<Free>) -> Option<f64> {
        if self.state == ServoState::Unlocked {
            return None;
        }
        self.state = ServoState::Holdover;
        self.processor.forget_times();
        Some(self.clamp(-self.controller.drift_ppb()))
    }

    fn rate_ppb(&self) -> Option<f64> {
        (self.state != ServoState::Unlocked).then(|| -self.controller.drift_ppb())
    }

    fn state(&self) -> ServoState {
        self.state
    }

    fn contradictions(&self) -> u64 {
        self.causal.contradictions()
    }

    fn is_contradicted(&self) -> bool {
        self.causal.is_contradicted()
    }

    fn trust(&self, now: Time<Free>, shown: Duration) -> Option<Trust> {
        if self.state == ServoState::Unlocked {
            return None;
        }
        let pace = self.causal.possible(self.pace(), self.options.rate_error_ppb);
        let offset = self.causal.interval(now, pace, None)?;
        let interval = Interval { lo: offset.lo + shown, hi: offset.hi + shown };
        let noise = Duration::from_nanos_f64(4.0 * self.variance_ns2.sqrt());
        let error = self.last_offset;
        let trust = trust(interval, error, noise + error.abs(), false, &self.options);
        Some(Trust { growth: pace.growth(self.frequency_ppb), ..trust })
    }
}

#[cfg(test)]
mod tests;
