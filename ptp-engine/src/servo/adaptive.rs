//! The default servo. It models what it sees: a local clock whose frequency wanders, two directions
//! each with a fastest delay, and delays beyond it that are only ever positive. An assumed-density
//! Kalman filter follows time, frequency and both floors on the free-running scale, learns the noise of each
//! direction and the wander of the oscillator as it goes, and needs no setting. The mathematics and
//! its sources are in `docs/servo.md`.

mod acquisition;
mod bank;
mod change;
mod confirmation;
mod detect;
mod estimator;
mod filter;
mod history;
mod mills;
mod noise;
mod routes;
mod tail;
mod wander;

use super::{
    DelayInput, Interval, Observed, Options, PeerDelayInput, Purpose, Servo, ServoOutput,
    ServoState, SyncInput, Trust,
    causal::{Causal, Pace, trust},
    interval::{LONGEST_S, SyncInterval},
};
use acquisition::Acquisition;
use alloc::collections::VecDeque;
use confirmation::Confirmation;
use estimator::Estimator;
use filter::Way;
use ptp_common::time::{Duration, Free, Ptp, Time};

/// Standard deviations in the error bound.
const BOUND_SIGMAS: f64 = 12.0;
/// An offset of so many standard deviations is no mere error of the estimate, and removed within a Sync
/// interval, as far as those come ...
const SLEW_SIGMAS: f64 = 20.0;
/// ... others in no less than this, seconds: the estimate is smooth already, and at high rates a faster
/// correction would only make the frequency noisy.
const MIN_CORRECTION_S: f64 = 1.0;
/// How wrong a rate may be that nobody has measured yet, parts per billion (IEEE 1588-2019, 7.3.4.3).
const UNKNOWN_RATE_PPB: f64 = 1e5;
/// An offset and a rate that no estimate may leave, nanoseconds and parts per billion: beyond, the
/// input is nonsense and the servo begins anew.
const ABSURD_NS: f64 = 1e18;

/// Standard deviations of the rate within which it is known.
const RATE_SIGMAS: f64 = 4.0;
/// ... as far as a bound is concerned, for which only causality holds while few packets have been seen: until then the
/// spread of a rate is a guess about a distribution, and rates were up to 15 of it away.
const BOUND_RATE_SIGMAS: f64 = 20.0;
/// For how long, and how often, the believed rate is kept: samples of the causal interval are as old.
const RATES_KEPT: Duration = Duration::from_secs(16);
/// What a clipped estimate says of the rate fades with this time constant, seconds.
const CLIPPED_FOR_S: f64 = 64.0;
/// What was moved is taken to have been seen for so long at the least, seconds.
const LEAST_SPAN_S: f64 = 1.0;
const RATES_EVERY: Duration = Duration::from_secs(2);
/// For so long after a change of the rate was judged the one of before may have been right.
const JUDGED_FOR: Duration = Duration::from_secs(64);
/// Where an estimate is outside of what is possible by more than this part of its width, time may have stepped, and bounds
/// may be of two times, ...
const DOUBTED: f64 = 0.1;
/// ... for as long as the oldest of them count.
const DOUBT_LASTS: Duration = Duration::from_secs(24);
/// Sync in a row for which an estimate may be outside of what is possible while something is in question.
const REFUTED: u32 = 8;
/// An estimate is outside of what is possible if it is so by more than this, nanoseconds: rounding.
const CLIPPED_NS: f64 = 1.0;

/// The servo. See the module's documentation.
#[derive(Debug)]
pub struct AdaptiveServo {
    options: Options,
    max_frequency_ppb: f64,
    acquisition: Acquisition,
    estimator: Option<Estimator>,
    confirmation: Confirmation,
    state: ServoState,
    /// The clock has not been followed before.
    is_first: bool,
    /// Time itself has stepped.
    is_stepped: bool,
    /// When it last looked as if it had.
    doubted_at: Option<Time<Free>>,
    /// What was known of a grandmaster that was left behind.
    left_behind: Option<Estimator>,
    frequency_ppb: f64,
    interval: SyncInterval,
    latest: Latest,
    causal: Causal,
    is_clipped: bool,
    /// Sync in a row at which the estimate was outside of what is possible.
    outside: u32,
    /// When an estimate was refuted last: what was seen before may be of another time.
    refuted: Option<Time<Free>>,
    /// Rate error that would explain why estimates were clipped lately, parts per billion.
    clipped_ppb: f64,
    /// How far observations were moved lately.
    moved: Moved,
    /// The rates that were believed lately, parts per billion.
    rates: VecDeque<(Time<Free>, f64)>,
    /// When the rate was last judged to have changed, and what it was before, parts per billion.
    judged_rate: Option<(Time<Free>, f64)>,
}

/// The latest observation of each kind, for the raw offset.
#[derive(Clone, Copy, Debug, Default)]
struct Latest {
    forward: Option<(Time<Free>, Duration)>,
    backward: Option<(Time<Free>, Duration)>,
    peer: Option<Duration>,
}

/// Sync that are moved to where a line through few requests has them all agree on its slope, however wrong that is:
/// no residual tells. What they were moved by, over the time in which the slope was learnt, is what it may be wrong by.
#[derive(Clone, Copy, Debug, Default)]
struct Moved {
    /// The first observation.
    since: Option<Time<Free>>,
    latest: Option<Time<Free>>,
    /// The most of lately, nanoseconds.
    ns: f64,
}

impl Moved {
    fn note(&mut self, at: Time<Free>, by: Duration, interval_s: f64) {
        self.since = self.since.or(Some(at));
        self.latest = Some(at);
        let kept = 1.0 - interval_s.min(1.0) / CLIPPED_FOR_S;
        self.ns = (self.ns * kept).max(by.as_nanos_f64());
    }

    /// By how much the rate may be wrong for it, parts per billion.
    fn rate_error_ppb(&self) -> f64 {
        let span = self
            .latest
            .zip(self.since)
            .map_or(0.0, |(latest, since)| (latest - since).as_secs_f64());
        self.ns / span.clamp(LEAST_SPAN_S, CLIPPED_FOR_S)
    }
}

impl AdaptiveServo {
    /// A servo for a clock that is now adjusted by `options.frequency_ppb`.
    pub fn new(options: Options) -> Self {
        Self {
            options,
            max_frequency_ppb: 1e8,
            acquisition: Acquisition::default(),
            estimator: None,
            confirmation: Confirmation::default(),
            state: ServoState::Unlocked,
            is_first: true,
            is_stepped: false,
            doubted_at: None,
            left_behind: None,
            frequency_ppb: options.frequency_ppb,
            interval: SyncInterval::new(LONGEST_S),
            latest: Latest::default(),
            causal: Causal::new(&options),
            is_clipped: false,
            outside: 0,
            refuted: None,
            clipped_ppb: 0.0,
            moved: Moved::default(),
            rates: VecDeque::new(),
            judged_rate: None,
        }
    }

    fn observe(&mut self, way: Way, at: Time<Free>, value: Duration) {
        let Some(estimator) = &mut self.estimator else {
            self.acquisition.push(way, at, value);
            return;
        };
        let fit = estimator.observe(way, at, value);
        let absurd = |x: f64| !x.is_finite() || x.abs() > ABSURD_NS;
        if absurd(estimator.offset_ns()) || absurd(estimator.rate_ppb()) {
            self.begin_anew();
            return;
        }
        if !self.confirmation.is_given() {
            self.confirmation.push(way, fit);
            if self.confirmation.is_refused() {
                tracing::debug!("a first estimate is not confirmed");
                self.begin_anew();
                self.acquisition.push(way, at, value);
                return;
            }
        }
        self.follow_changes(at);
        self.remember_rate(at);
        if way == Way::Forward {
            self.clip(at);
        }
    }

    fn begin_anew(&mut self) {
        self.estimator = None;
        self.acquisition = Acquisition::default();
        self.confirmation = Confirmation::default();
        self.moved = Moved::default();
        self.outside = 0;
    }

    /// Where time has stepped, what bounded it before bounds it no more, and the clock may step too.
    fn follow_changes(&mut self, at: Time<Free>) {
        let Some(change) = self.estimator.as_mut().and_then(Estimator::take_change) else { return };
        if change.is_of_rate()
            && let Some((_, before)) = self.rates.back()
        {
            self.judged_rate = Some((at, *before));
        }
        if change.is_of_time() {
            let pace = self.pace();
            if let Some(estimator) = &self.estimator {
                self.causal.forget_contradicting(estimator.offset(at), change.at, at, pace);
            }
            self.is_stepped = true;
            self.doubted_at = Some(at);
        }
    }

    /// Whether bounds may be of two times: from before a step and from after it.
    fn is_in_doubt(&self, now: Time<Free>) -> bool {
        self.estimator.is_none() || self.doubted_at.is_some_and(|at| now - at < DOUBT_LASTS)
    }

    fn remember_rate(&mut self, at: Time<Free>) {
        let Some(rate_ppb) = self.known().map(Estimator::rate_ppb) else { return };
        if self.rates.back().is_none_or(|(last, _)| at - *last >= RATES_EVERY) {
            self.rates.push_back((at, rate_ppb));
        }
        while self.rates.front().is_some_and(|(first, _)| at - *first > RATES_KEPT) {
            self.rates.pop_front();
        }
        if self.judged_rate.is_some_and(|(judged, _)| at - judged > JUDGED_FOR) {
            self.judged_rate = None;
        }
    }

    /// The estimate lies inside the causal interval, or it is wrong.
    fn clip(&mut self, at: Time<Free>) {
        let pace = self.pace();
        self.is_clipped = false;
        self.clipped_ppb *= 1.0 - self.interval.seconds().min(1.0) / CLIPPED_FOR_S;
        if self.causal.is_contradicted() {
            self.doubted_at = Some(at);
            return;
        }
        let refuted = self.refuted();
        let Some(estimator) = &mut self.estimator else { return };
        let Some(interval) = self.causal.interval(at, pace, refuted) else { return };
        // Of a clock that shows what the free-running scale shows.
        let error = Duration::from_nanos_f64(estimator.error_ns(at, Duration::ZERO - interval.lo));
        let width = interval.hi - interval.lo;
        let by = if error < Duration::ZERO {
            Duration::ZERO - error
        } else if error > width {
            width - error
        } else {
            self.outside = 0;
            if estimator.suspected().is_none() && refuted.is_none() && !self.is_in_doubt(at) {
                self.causal.is_calm(width);
            }
            return;
        };
        self.outside += 1;
        if by.abs().as_nanos_f64() > DOUBTED * width.as_nanos_f64() {
            self.doubted_at = Some(at);
        }
        if estimator.suspected().is_some() {
            // What is in question is not corrected. But where nothing that may have changed explains it for long, what
            // is believed is refuted.
            if self.outside < REFUTED {
                return;
            }
            if by.abs() > width || self.outside >= 4 * REFUTED {
                tracing::debug!(?by, "an estimate is refuted");
                // So is its rate, with which the clock runs on and samples are carried along.
                let by_ppb = by.as_nanos_f64().abs() / RATES_KEPT.as_secs_f64();
                self.clipped_ppb = self.clipped_ppb.max(by_ppb);
                self.left_behind = self.estimator.take();
                self.is_stepped = true;
                self.refuted = Some(at);
                self.begin_anew();
                return;
            }
        }
        let by = by.as_nanos_f64();
        if by.abs() > CLIPPED_NS {
            estimator.clip(by, self.outside >= REFUTED);
            self.is_clipped = true;
            // It may well be the rate that is wrong, with which older packets are carried along.
            self.clipped_ppb = self.clipped_ppb.max(by.abs() / RATES_KEPT.as_secs_f64());
        }
    }

    /// When an estimate was refuted, as long as what was seen before it counts.
    fn refuted(&self) -> Option<Time<Free>> {
        self.refuted.filter(|refuted| self.causal.reaches_before(*refuted))
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
                let apart_s = (input.t2.mono - at).as_secs_f64();
                let gained = Duration::from_nanos_f64(self.pace().rate_ppb * apart_s);
                (forward + backward - gained).half()
            }
            (None, None) => return None,
        };
        Some((input.t2.clock - input.t1 - delay, delay))
    }

    /// By how much an offset has to exceed to be stepped, nanoseconds.
    fn step_limit(&self, now: Time<Free>) -> Option<f64> {
        let nanos = |limit: Option<Duration>| limit.map(Duration::as_nanos_f64);
        let first = if self.is_first { nanos(self.options.first_step_threshold) } else { None };
        let change = match &self.left_behind {
            // What may well be the error of holdover is no reason for a step.
            Some(before) => nanos(self.options.change_step_threshold)
                .map(|limit| limit.max(BOUND_SIGMAS * before.sigma_ns(now))),
            None if self.is_stepped => nanos(self.options.change_step_threshold),
            None => None,
        };
        let any = nanos(self.options.step_threshold);
        [first, change, any].into_iter().flatten().reduce(f64::min)
    }

    /// The estimator, or that of the grandmaster that was left.
    fn known(&self) -> Option<&Estimator> {
        self.confirmed().or(self.left_behind.as_ref())
    }

    fn confirmed(&self) -> Option<&Estimator> {
        self.estimator.as_ref().filter(|_| self.confirmation.is_given())
    }

    fn pace(&self) -> Pace {
        let least_error_ppb = self.options.rate_error_ppb;
        match self.known() {
            Some(estimator) => {
                let rate_ppb = estimator.rate_ppb();
                // What was believed a while ago may have been right, too.
                let known = self.rates.iter().chain(&self.judged_rate);
                let apart = known.map(|(_, believed)| (believed - rate_ppb).abs());
                let error_ppb = least_error_ppb
                    + RATE_SIGMAS * estimator.rate_sigma_ppb()
                    + apart.fold(0.0, f64::max)
                    + self.moved.rate_error_ppb()
                    + self.clipped_ppb;
                if self.confirmed().is_some() {
                    return Pace { rate_ppb, error_ppb, least_error_ppb };
                }
                // Of a grandmaster that was left, which says nothing of how fast the next one runs.
                let lo = (rate_ppb - error_ppb).min(-UNKNOWN_RATE_PPB);
                let hi = (rate_ppb + error_ppb).max(UNKNOWN_RATE_PPB);
                let (rate_ppb, error_ppb) = (lo.midpoint(hi), 0.5 * (hi - lo));
                Pace { rate_ppb, error_ppb, least_error_ppb }
            }
            None => {
                let rate_ppb = -self.frequency_ppb;
                Pace { rate_ppb, error_ppb: UNKNOWN_RATE_PPB, least_error_ppb }
            }
        }
    }

    /// How the clock is to run, parts per billion, by how much it is to be stepped, nanoseconds, and the
    /// state in which it is then, where its error is `error_ns`.
    fn steer(&self, at: Time<Free>, error_ns: f64, known: &Estimator) -> (f64, f64, ServoState) {
        let rate_ppb = -known.rate_ppb();
        if self.options.purpose == Purpose::Watch {
            return (rate_ppb, 0.0, ServoState::Locked);
        }
        if self.step_limit(at).is_some_and(|limit| error_ns.abs() > limit) {
            return (rate_ppb, -error_ns, ServoState::Jump);
        }
        let is_slew = error_ns.abs() > SLEW_SIGMAS * known.sigma_ns(at);
        let least_s = if is_slew { 0.0 } else { MIN_CORRECTION_S };
        let correction_s = self.interval.correction_s().max(least_s);
        (rate_ppb - error_ns / correction_s, 0.0, ServoState::Locked)
    }
}

impl Servo for AdaptiveServo {
    fn name(&self) -> &'static str {
        match self.options.purpose {
            Purpose::Steer => "adaptive",
            Purpose::Watch => "watch",
        }
    }

    fn sync(&mut self, input: SyncInput) -> Option<ServoOutput> {
        self.interval.learn(&input);
        // A time that is told within limits may go from one end to the other while its rate is learnt.
        let told = input.t2.told_within.unwrap_or_default();
        let moved = input.t2.doubt + told.behind() + told.ahead();
        self.moved.note(input.t2.mono, moved, self.interval.seconds());
        self.causal.sync(&input, self.pace());
        let SyncInput { t1, t2, .. } = input;
        let forward = one_way(t2.mono, t1);
        self.latest.forward = Some((t2.mono, forward));
        self.observe(Way::Forward, t2.mono, forward);
        if self.estimator.is_none() {
            self.estimator = self.acquisition.finish(self.left_behind.as_ref());
            self.confirmation = Confirmation::default();
        }
        let (raw_offset, delay) = self.raw(&input)?;
        // Clock minus monotonic; with monotonic minus time transmitter it makes the error.
        let shown = t2.clock.since_epoch() - t2.mono.since_epoch();
        let Some(estimator) = self.estimator.as_ref().filter(|_| self.confirmation.is_given())
        else {
            return Some(ServoOutput {
                offset: raw_offset,
                raw_offset,
                delay,
                frequency_ppb: match &self.left_behind {
                    Some(before) => self.clamp(-before.rate_ppb()),
                    None => self.frequency_ppb,
                },
                step: None,
                state: self.state,
                trust: self.trust(t2.mono, shown),
            });
        };
        let error_ns = estimator.error_ns(t2.mono, shown);
        let (frequency_ppb, step_ns, state) = self.steer(t2.mono, error_ns, estimator);
        let step = (state == ServoState::Jump).then(|| Duration::from_nanos_f64(step_ns));
        let delay = Duration::from_nanos_f64(estimator.delay_ns());
        self.state = state;
        self.is_first = false;
        self.is_stepped = false;
        self.left_behind = None;
        Some(ServoOutput {
            offset: Duration::from_nanos_f64(error_ns),
            raw_offset,
            delay,
            frequency_ppb: self.clamp(frequency_ppb),
            step,
            state,
            trust: self.trust(t2.mono, shown + step.unwrap_or(Duration::ZERO)),
        })
    }

    fn delay(&mut self, input: DelayInput) {
        self.causal.delay(&input, self.pace());
        let DelayInput { t3, t4, .. } = input;
        let backward = Duration::ZERO - one_way(t3.mono, t4);
        self.latest.backward = Some((t3.mono, backward));
        self.latest.peer = None;
        self.observe(Way::Backward, t3.mono, backward);
    }

    fn bound_by_delay(&mut self, input: DelayInput) {
        self.causal.delay(&input, self.pace());
    }

    fn relearn(&mut self, history: &[Observed]) -> bool {
        // Of a frequency that wanders by that much a few packets of before tell nothing.
        if self.known().is_some_and(Estimator::wanders) {
            return false;
        }
        let mut anew = Self::new(self.options);
        anew.frequency_ppb = self.frequency_ppb;
        for observed in history {
            match observed {
                Observed::Sync(input) => drop(anew.sync(*input)),
                Observed::Delay(input) => anew.delay(*input),
            }
        }
        if anew.estimator.is_none() || !anew.confirmation.is_given() {
            return false;
        }
        self.estimator = anew.estimator;
        self.confirmation = anew.confirmation;
        self.causal = anew.causal;
        self.refuted = anew.refuted;
        self.latest = anew.latest;
        self.moved = anew.moved;
        true
    }

    fn peer_delay(&mut self, input: PeerDelayInput) {
        self.causal.peer_delay(&input);
        self.latest.peer = Some(input.mean_link_delay);
        self.observe(Way::Peer, input.mono, input.mean_link_delay);
    }

    fn adjusted(&mut self, _now: Time<Free>, frequency_ppb: f64, _stepped: Option<Duration>) {
        self.frequency_ppb = frequency_ppb;
    }

    fn limit_frequency(&mut self, ppb: f64) {
        self.max_frequency_ppb = self.max_frequency_ppb.min(ppb.abs());
    }

    fn set_step_thresholds(&mut self, options: &Options) {
        self.options.set_thresholds(options);
    }

    fn parent_changed(&mut self) {
        if let Some(known) = self.known().cloned() {
            self.left_behind = Some(known);
            self.state = ServoState::Holdover;
        }
        self.begin_anew();
        self.latest = Latest::default();
        self.causal = Causal::new(&self.options);
        self.refuted = None;
    }

    fn holdover(&mut self, _now: Time<Free>) -> Option<f64> {
        let frequency_ppb = self.clamp(-self.known()?.rate_ppb());
        self.state = ServoState::Holdover;
        Some(frequency_ppb)
    }

    fn state(&self) -> ServoState {
        self.state
    }

    fn rate_ppb(&self) -> Option<f64> {
        self.known().map(Estimator::rate_ppb)
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
        let estimator = self.known()?;
        let doubted = self.estimator.as_ref().map(Estimator::doubted).into_iter().flatten();
        let doubted = doubted.chain(self.refuted());
        let pace = self.pace();
        let wander_ppb = pace.error_ppb - RATE_SIGMAS * estimator.rate_sigma_ppb();
        let error_ppb = wander_ppb + BOUND_RATE_SIGMAS * estimator.rate_sigma_ppb();
        let mut pace = Pace { error_ppb, ..pace };
        if doubted.clone().next().is_none() {
            pace = self.causal.possible(pace, wander_ppb);
        }
        let offset = self.causal.interval(now, pace, doubted)?;
        let offset = if self.is_in_doubt(now) { self.causal.of_two_times(offset) } else { offset };
        let interval = Interval { lo: offset.lo + shown, hi: offset.hi + shown };
        let error_ns = estimator.error_ns(now, shown);
        let precision_ns = BOUND_SIGMAS * estimator.sigma_ns(now) + error_ns.abs();
        let [error, precision] = [error_ns, precision_ns].map(Duration::from_nanos_f64);
        // A clock that is only watched is none of ours to run away.
        let frequency_ppb = match self.options.purpose {
            Purpose::Steer => self.frequency_ppb,
            Purpose::Watch => -pace.rate_ppb,
        };
        let trust = trust(interval, error, precision, self.is_clipped, &self.options);
        Some(Trust { growth: pace.growth(frequency_ppb), ..trust })
    }
}

/// Free-running minus PTP time: two epochs apart, which only the estimator's origin takes out.
fn one_way(mono: Time<Free>, ptp: Time<Ptp>) -> Duration {
    mono.since_epoch() - ptp.since_epoch()
}
