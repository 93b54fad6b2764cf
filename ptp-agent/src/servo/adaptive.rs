//! The default servo. It models what it sees: a local clock whose frequency wanders, two directions
//! each with a fastest delay, and delays beyond it that are only ever positive. An assumed-density
//! Kalman filter follows time, frequency and both floors on the free-running scale, learns the noise of each
//! direction and the wander of the oscillator as it goes, and needs no setting. The mathematics and
//! its sources are in `docs/servo.md`.

mod acquisition;
mod estimator;
mod noise;

use super::{
    DelayInput, Interval, Options, PeerDelayInput, Servo, ServoOutput, ServoState, SyncInput,
    Trust,
    causal::{Causal, Pace, trust},
    interval::{LONGEST_S, SyncInterval},
};
use acquisition::Acquisition;
use estimator::{Estimator, Way};
use ptp_common::time::{Duration, Mono, Ptp, Time};

/// Standard deviations in the error bound.
const BOUND_SIGMAS: f64 = 12.0;
/// The offset is removed within one Sync interval, or within this many where it is no mere error of
/// the estimate: a Sync that is lost then must not turn a long slew into an overshoot ...
const SLEW_INTERVALS: f64 = 4.0;
/// ... which it is from so many standard deviations on ...
const SLEW_SIGMAS: f64 = 20.0;
/// ... and in no less than this, seconds: the estimate is smooth already, and at high rates a
/// faster correction would only make the frequency noisy.
const MIN_CORRECTION_S: f64 = 1.0;
/// How wrong a rate may be that nobody has measured yet, parts per billion (IEEE 1588-2019, 7.3.4.3).
const UNKNOWN_RATE_PPB: f64 = 1e5;
/// An offset and a rate that no estimate may leave, nanoseconds and parts per billion: beyond, the
/// input is nonsense and the servo begins anew.
const ABSURD_NS: f64 = 1e18;

/// The servo. See the module's documentation.
#[derive(Debug)]
pub struct AdaptiveServo {
    options: Options,
    max_frequency_ppb: f64,
    acquisition: Acquisition,
    estimator: Option<Estimator>,
    state: ServoState,
    /// The clock has been followed before.
    is_first: bool,
    /// A grandmaster was left behind: nanoseconds that the clock may have been wrong by since.
    left_behind: Option<Coasting>,
    frequency_ppb: f64,
    interval: SyncInterval,
    /// Clock minus time transmitter at [`Self::error_at`], as estimated.
    error_ns: f64,
    error_at: Time<Mono>,
    latest: Latest,
    causal: Causal,
}

/// The latest observation of each kind, for the raw offset.
#[derive(Clone, Copy, Debug, Default)]
struct Latest {
    forward: Option<(Time<Mono>, Duration)>,
    backward: Option<(Time<Mono>, Duration)>,
    peer: Option<Duration>,
}

/// What was known when the grandmaster was left.
#[derive(Clone, Copy, Debug)]
struct Coasting {
    estimator: Estimator,
}

impl AdaptiveServo {
    /// A servo for a clock that is now adjusted by `options.frequency_ppb`.
    pub fn new(options: Options) -> Self {
        Self {
            options,
            max_frequency_ppb: 1e8,
            acquisition: Acquisition::default(),
            estimator: None,
            state: ServoState::Unlocked,
            is_first: true,
            left_behind: None,
            frequency_ppb: options.frequency_ppb,
            interval: SyncInterval::new(LONGEST_S),
            error_ns: 0.0,
            error_at: Time::ZERO,
            latest: Latest::default(),
            causal: Causal::new(&options),
        }
    }

    fn observe(&mut self, way: Way, at: Time<Mono>, value: Duration) {
        match &mut self.estimator {
            Some(estimator) => {
                estimator.observe(way, at, value);
                let absurd = |x: f64| !x.is_finite() || x.abs() > ABSURD_NS;
                if absurd(estimator.offset_ns()) || absurd(estimator.rate_ppb()) {
                    self.estimator = None;
                    self.acquisition = Acquisition::default();
                }
            }
            None => self.acquisition.push(way, at, value),
        }
    }

    fn clamp(&self, ppb: f64) -> f64 {
        let limit = self.max_frequency_ppb;
        if ppb.is_finite() { ppb.clamp(-limit, limit) } else { self.frequency_ppb }
    }

    /// Offset of the clock by the latest Sync and the latest answer alone.
    fn raw(&self, input: &SyncInput) -> Option<(Duration, Duration)> {
        let (_, forward) = self.latest.forward?;
        let delay = match (self.latest.peer, self.latest.backward) {
            (Some(peer), _) => peer,
            (None, Some((at, backward))) => {
                let rate_ppb =
                    self.estimator.as_ref().map_or(-self.frequency_ppb, Estimator::rate_ppb);
                let apart_s = (input.t2.mono - at).as_secs_f64();
                (forward + backward - Duration::from_nanos_f64(rate_ppb * apart_s)).half()
            }
            (None, None) => return None,
        };
        Some((input.t2.clock - input.t1 - delay, delay))
    }

    /// By how much an offset has to exceed to be stepped.
    fn step_limit(&self, bound_ns: f64) -> Option<f64> {
        let nanos = |limit: Option<Duration>| limit.map(Duration::as_nanos_f64);
        let first = if self.is_first { nanos(self.options.first_step_threshold) } else { None };
        let change = match &self.left_behind {
            // What may well be the error of holdover is no reason for a step.
            Some(_) => nanos(self.options.change_step_threshold).map(|limit| limit.max(bound_ns)),
            None => None,
        };
        let any = nanos(self.options.step_threshold);
        [first, change, any].into_iter().flatten().reduce(f64::min)
    }

    /// The estimator, or that of the grandmaster that was left.
    fn known(&self) -> Option<&Estimator> {
        self.estimator.as_ref().or(self.left_behind.as_ref().map(|c| &c.estimator))
    }

    fn pace(&self) -> Pace {
        match self.known() {
            Some(estimator) => {
                Pace { rate_ppb: estimator.rate_ppb(), error_ppb: self.options.rate_error_ppb }
            }
            None => Pace { rate_ppb: -self.frequency_ppb, error_ppb: UNKNOWN_RATE_PPB },
        }
    }
}

impl Servo for AdaptiveServo {
    fn name(&self) -> &'static str {
        "adaptive"
    }

    fn sync(&mut self, input: SyncInput) -> Option<ServoOutput> {
        self.interval.learn(&input);
        self.causal.sync(&input, self.pace());
        let SyncInput { t1, t2, .. } = input;
        let forward = one_way(t2.mono, t1);
        self.latest.forward = Some((t2.mono, forward));
        self.observe(Way::Forward, t2.mono, forward);
        if self.estimator.is_none()
            && let Some(estimator) = self.acquisition.finish(self.left_behind.map(|c| c.estimator))
        {
            self.estimator = Some(estimator);
        }
        let (raw_offset, raw_delay) = self.raw(&input)?;
        // Clock minus monotonic; with monotonic minus time transmitter it makes the error.
        let shown = t2.clock.since_epoch() - t2.mono.since_epoch();
        let Some(estimator) = &self.estimator else {
            let coasting = &self.left_behind;
            return Some(ServoOutput {
                offset: raw_offset,
                raw_offset,
                delay: raw_delay,
                frequency_ppb: match coasting {
                    Some(coasting) => self.clamp(-coasting.estimator.rate_ppb()),
                    None => self.frequency_ppb,
                },
                step: None,
                state: self.state,
                trust: self.trust(t2.mono, shown),
            });
        };
        let mut error_ns = estimator.error_ns(t2.mono, shown);
        let bound_ns = match &self.left_behind {
            Some(coasting) => BOUND_SIGMAS * coasting.estimator.sigma_ns(t2.mono),
            None => 0.0,
        };
        let steps = self.step_limit(bound_ns).is_some_and(|limit| error_ns.abs() > limit);
        let offset = Duration::from_nanos_f64(error_ns);
        let mut frequency_ppb = -estimator.rate_ppb();
        let mut step = None;
        if steps {
            step = Some(-offset);
            error_ns = 0.0;
            self.state = ServoState::Jump;
        } else {
            let is_slew = error_ns.abs() > SLEW_SIGMAS * estimator.sigma_ns(t2.mono);
            let intervals = if is_slew { SLEW_INTERVALS } else { 1.0 };
            let correction_s = (intervals * self.interval.seconds()).max(MIN_CORRECTION_S);
            frequency_ppb -= error_ns / correction_s;
            self.state = ServoState::Locked;
        }
        self.is_first = false;
        self.left_behind = None;
        self.error_ns = error_ns;
        self.error_at = t2.mono;
        let mut output = ServoOutput {
            offset,
            raw_offset,
            delay: Duration::from_nanos_f64(estimator.delay_ns()),
            frequency_ppb: self.clamp(frequency_ppb),
            step,
            state: self.state,
            trust: None,
        };
        output.trust = self.trust(t2.mono, shown + step.unwrap_or(Duration::ZERO));
        Some(output)
    }

    fn delay(&mut self, input: DelayInput) {
        self.causal.delay(&input, self.pace());
        let DelayInput { t3, t4, .. } = input;
        let backward = Duration::ZERO - one_way(t3.mono, t4);
        self.latest.backward = Some((t3.mono, backward));
        self.latest.peer = None;
        self.observe(Way::Backward, t3.mono, backward);
    }

    fn peer_delay(&mut self, input: PeerDelayInput) {
        self.causal.peer_delay(&input);
        self.latest.peer = Some(input.mean_link_delay);
        self.observe(Way::Peer, input.mono, input.mean_link_delay);
    }

    fn adjusted(&mut self, now: Time<Mono>, frequency_ppb: f64, stepped: Option<Duration>) {
        // The clock ran on as before until now.
        let estimator = self.estimator.as_ref().or(self.left_behind.as_ref().map(|c| &c.estimator));
        if let Some(estimator) = estimator {
            let since_s = (now - self.error_at).as_secs_f64().max(0.0);
            self.error_ns += (self.frequency_ppb + estimator.rate_ppb()) * since_s;
            self.error_at = self.error_at.max(now);
        }
        if self.state == ServoState::Jump && stepped.is_none() {
            // The clock refused: the offset is still there, to be slewed.
            self.is_first = false;
        }
        self.frequency_ppb = frequency_ppb;
    }

    fn limit_frequency(&mut self, ppb: f64) {
        self.max_frequency_ppb = self.max_frequency_ppb.min(ppb.abs());
    }

    fn set_step_thresholds(&mut self, options: &Options) {
        self.options.set_thresholds(options);
    }

    fn parent_changed(&mut self) {
        self.acquisition = Acquisition::default();
        self.latest = Latest::default();
        self.causal = Causal::new(&self.options);
        if let Some(estimator) = self.estimator.take() {
            self.left_behind = Some(Coasting { estimator });
        }
        if self.left_behind.is_some() {
            self.state = ServoState::Holdover;
        }
    }

    fn holdover(&mut self, _now: Time<Mono>) -> Option<f64> {
        let estimator =
            self.estimator.as_ref().or(self.left_behind.as_ref().map(|c| &c.estimator))?;
        let frequency_ppb = self.clamp(-estimator.rate_ppb());
        self.state = ServoState::Holdover;
        Some(frequency_ppb)
    }

    fn state(&self) -> ServoState {
        self.state
    }

    fn trust(&self, now: Time<Mono>, shown: Duration) -> Option<Trust> {
        if self.state == ServoState::Unlocked {
            return None;
        }
        let estimator = self.known()?;
        let offset = self.causal.interval(now, self.pace())?;
        let interval = Interval { lo: offset.lo + shown, hi: offset.hi + shown };
        let error_ns = estimator.error_ns(now, shown);
        let precision_ns = BOUND_SIGMAS * estimator.sigma_ns(now) + error_ns.abs();
        let [error, precision] = [error_ns, precision_ns].map(Duration::from_nanos_f64);
        Some(trust(interval, error, precision, false, &self.options))
    }
}

/// Free-running minus PTP time: two epochs apart, which only the estimator's origin takes out.
fn one_way(mono: Time<Mono>, ptp: Time<Ptp>) -> Duration {
    mono.since_epoch() - ptp.since_epoch()
}
