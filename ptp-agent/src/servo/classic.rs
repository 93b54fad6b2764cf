//! What the other textbook servos have in common: offsets from the delay filter, a first measurement
//! of the frequency, steps by policy. The method itself is a [`Controller`].

use super::{
    DelayInput, Options, PeerDelayInput, Servo, ServoOutput, ServoState, SyncInput,
    filter::{DelayFilterKind, Offset, TimestampMode, TimestampProcessor},
    pi::Line,
};
use ptp_common::time::{Duration, Mono, Time};

/// How long the frequency is measured before the first adjustment, unless the method wants more.
const ACQUISITION: Duration = Duration::from_secs(4);

/// An offset as a controller gets it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Point {
    /// When.
    pub(super) at: Time<Mono>,
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
    fn name(&self) -> &'static str;

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
    interval_s: f64,
    last_sync: Option<Time<Mono>>,
    last_offset: Duration,
    variance_ns2: f64,
}

impl<C: Controller> Classic<C> {
    pub(super) fn new(
        controller: C,
        options: Options,
        mode: TimestampMode,
        kind: DelayFilterKind,
        length: usize,
    ) -> Self {
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
            max_frequency_ppb: 1e8,
            interval_s: 1.0,
            last_sync: None,
            last_offset: Duration::ZERO,
            variance_ns2: 0.0,
        }
    }

    fn clamp(&self, ppb: f64) -> f64 {
        let limit = self.max_frequency_ppb;
        if ppb.is_finite() { ppb.clamp(-limit, limit) } else { self.frequency_ppb }
    }

    fn learn_interval(&mut self, input: &SyncInput) {
        let measured = self.last_sync.map(|last| (input.t2.mono - last).as_secs_f64());
        self.last_sync = Some(input.t2.mono);
        let interval_s = match (input.log_interval, measured) {
            (Some(log), _) => Duration::from_log_interval(log).as_secs_f64(),
            (None, Some(measured)) if measured > 0.0 => {
                self.interval_s + (measured - self.interval_s) / 8.0
            }
            _ => return,
        };
        self.interval_s = interval_s.clamp(1.0 / 1024.0, 1024.0);
    }

    /// The offset at the end of a line through the first Sync messages, on which the clock ran
    /// unadjusted.
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
            interval_s: self.interval_s,
        }
    }
}

impl<C: Controller> Servo for Classic<C> {
    fn name(&self) -> &'static str {
        self.controller.name()
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
        self.max_frequency_ppb = self.max_frequency_ppb.min(ppb.abs());
    }

    fn parent_changed(&mut self) {
        self.processor.reset();
        self.acquisition = None;
        self.origin = None;
        self.controller.stepped();
        self.changed = !self.first_update;
    }

    fn holdover(&mut self, _now: Time<Mono>) -> Option<f64> {
        if self.state == ServoState::Unlocked {
            return None;
        }
        self.state = ServoState::Holdover;
        self.processor.forget_times();
        Some(self.clamp(-self.controller.drift_ppb()))
    }

    fn state(&self) -> ServoState {
        self.state
    }

    /// As for `pi`: all of the path may lie on one side, and 1 ppm is allowed for age.
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
