//! Where the time can be at all. A packet is never received before it was sent, so every Sync bounds
//! the offset of the free-running scale from above and every Delay_Req from below. The latest of them,
//! carried along with the rate that is believed and a rate error that is allowed for, make an interval
//! that holds whatever a filter believes: no distribution, no symmetry, no memory of the noise.
//!
//! A sample that contradicts the others is a stamp that lies or a time that has stepped. Until the
//! next one has told which, both are possible, and the interval has both in it.

use crate::prelude::*;
use alloc::collections::VecDeque;

use ptp_common::{
    time::{Duration, Free, Time},
    wire::Deviation,
};

use super::{
    DelayInput, Options, PeerDelayInput, SyncInput,
    corrections::Corrections,
    trust::{Basis, Interval, Trust},
};

/// Samples of each direction that the interval is made of.
const WINDOW: u64 = 64;
/// Older ones do not count ...
const OLDEST: Duration = Duration::from_secs(16);
/// ... but for the latest few.
const FEWEST: u64 = 8;
/// Contradictions in a row after which what was before is given up.
const CONTRADICTIONS: usize = 8;
/// Rate error of a transparent clock over what it adds to a correction field (IEEE 1588-2019, 7.3.4.3:
/// a free oscillator is within 100 ppm).
const CORRECTION_ERROR: f64 = 100e-6;
/// And by so much, nanoseconds: what the power profile permits a transparent clock (IEEE C37.238-2017). A residence
/// is one stamp minus another, and a card that counts at 125 MHz stamps to 8 ns. Transparent clocks that correct a
/// little too much made each way look shorter than it can be: both bounds contradicted each other, and the estimate
/// was held to the one that had been there first.
const CORRECTION_GRAIN_NS: f64 = 50.0;
/// Sync of which one at least has not been held up: before, the fastest of them may have taken longer than a packet both ways,
const FEW: u64 = 4;
/// by no more than this, nanoseconds.
const HELD_UP_NS: f64 = 1e6;
/// Until so many Sync, and so many link delays, the fastest may be slower than the slowest exchange, by as much as Sync differ: of 16
/// and 8 that is so once in 700,000 times, if they are of one distribution and the other way is nothing.
const ENOUGH: u64 = 16;
const ENOUGH_DELAYS: usize = 8;
/// Link delays of which the largest counts.
const PEER_DELAYS: usize = 16;
/// Values are kept as floating point from an origin: farther away they are counted anew.
const FAR_NS: f64 = 1e12;

/// One bound: the offset was at most (forward) or at least (backward) so much then.
#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Time<Free>,
    /// The same, seconds.
    at_s: f64,
    ns: f64,
    /// How many samples of its direction were before it.
    number: u64,
}

impl Sample {
    fn new(at: Time<Free>, ns: f64) -> Self {
        Self { at, at_s: at.since_epoch().as_secs_f64(), ns, number: 0 }
    }
}

/// The latest bounds of one direction. `sign` is 1 where they are upper ones, -1 for lower ones, and
/// all values are multiplied by it.
#[derive(Clone, Debug)]
struct Side {
    sign: f64,
    /// Those of the window that a later one does not make superfluous: few, and the latest among them.
    samples: VecDeque<Sample>,
    pushed: u64,
    contradicting: Vec<Sample>,
}

impl Side {
    const fn new(sign: f64) -> Self {
        Self { sign, samples: VecDeque::new(), pushed: 0, contradicting: Vec::new() }
    }

    /// Puts it behind the others, whatever it says.
    fn append(&mut self, sample: Sample) {
        self.samples.push_back(Sample { number: self.pushed, ..sample });
        self.pushed += 1;
    }

    fn push(&mut self, sample: Sample, pace: Pace) {
        let is_past = |old: &Sample| {
            let after = self.pushed - old.number;
            after >= WINDOW || after >= FEWEST && sample.at - old.at > OLDEST
        };
        while self.samples.front().is_some_and(is_past) {
            self.samples.pop_front();
        }
        // A sample grows wider with its age by no less than this, whatever will be believed of the rate. What
        // is then wider than the new one will never be the tightest again; and who leaves out a bound, makes
        // no other one false.
        let growth = self.sign * pace.rate_ppb + 2.0 * pace.least_error_ppb - pace.error_ppb;
        let is_superfluous = |old: &Sample| old.ns + growth * (sample.at_s - old.at_s) >= sample.ns;
        while self.samples.back().is_some_and(is_superfluous) {
            self.samples.pop_back();
        }
        self.append(sample);
    }

    /// As [`Self::push`], where the least is looked for and not the tightest.
    fn push_least(&mut self, sample: Sample, pace: Pace) {
        // With age it says less, and not more.
        self.push(sample, Pace { least_error_ppb: 0.0, ..pace });
    }

    /// The least that any of the latest says of `now`: what is not known of the rate makes an old one say less, and not more.
    fn least(&self, now: Time<Free>, pace: Pace) -> Option<f64> {
        let latest = self.samples.iter().filter(|it| self.pushed - it.number <= ENOUGH);
        self.tightest(latest, now, Pace { error_ppb: -pace.error_ppb, ..pace })
    }

    fn append_contradicting(&mut self) {
        for sample in core::mem::take(&mut self.contradicting) {
            self.append(sample);
        }
    }

    fn forget_before(&mut self, at: Time<Free>) {
        self.samples.retain(|sample| sample.at >= at);
        self.contradicting.retain(|sample| sample.at >= at);
    }

    /// What was taken for contradictions is what holds.
    fn turn_over(&mut self) {
        self.samples.clear();
        self.append_contradicting();
    }

    /// The tightest of `samples` at `now`, in the sign of an upper bound.
    fn tightest<'a>(
        &self,
        samples: impl IntoIterator<Item = &'a Sample>,
        now: Time<Free>,
        pace: Pace,
    ) -> Option<f64> {
        let drift = self.sign * pace.rate_ppb;
        // To 100 ns after years of uptime, which is nothing beside the rates of change.
        let now_s = now.since_epoch().as_secs_f64();
        let bounds = samples.into_iter().map(|sample| {
            let age_s = now_s - sample.at_s;
            sample.ns + drift * age_s + pace.error_ppb * age_s.abs()
        });
        bounds.reduce(f64::min)
    }

    fn bound(&self, now: Time<Free>, pace: Pace) -> Option<f64> {
        self.tightest(&self.samples, now, pace)
    }

    fn bound_since(&self, since: Time<Free>, now: Time<Free>, pace: Pace) -> Option<f64> {
        let recent = self.samples.iter().rev().take_while(|sample| sample.at >= since);
        self.tightest(recent, now, pace)
    }

    fn contradiction(&self, now: Time<Free>, pace: Pace) -> Option<f64> {
        self.tightest(&self.contradicting, now, pace)
    }
}

/// How the free-running scale moves against the time transmitter.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// What it gains, as is believed, parts per billion.
    pub(crate) rate_ppb: f64,
    /// By how much that may be wrong, parts per billion ...
    pub(crate) error_ppb: f64,
    /// ... and will always have to be taken to be, however well it is known.
    pub(crate) least_error_ppb: f64,
}

impl Pace {
    /// By how much in a second a clock may go away that is adjusted by so much, parts per billion.
    pub(super) fn growth(&self, frequency_ppb: f64) -> Duration {
        Duration::from_nanos_f64(self.error_ppb + (frequency_ppb + self.rate_ppb).abs())
    }
}

/// How the local scale may have moved, by one bound before another, parts per billion: no line through both ways'
/// bounds is steeper than from the earlier to the later of a pair.
fn steepest(earlier: &Side, later: &Side) -> Option<f64> {
    let pairs = earlier.samples.iter().flat_map(|from| {
        let after = later.samples.iter().filter(|to| to.at > from.at);
        after.map(|to| (to.ns + from.ns) / (to.at_s - from.at_s))
    });
    pairs.reduce(f64::min)
}

/// The interval. See the module's documentation.
#[derive(Clone, Debug)]
pub(crate) struct Causal {
    least_delay_ns: [f64; 2],
    origin: Option<Duration>,
    forward: Side,
    backward: Side,
    /// Sync as they came, without what may be wrong with them: which of them was fast.
    fastest: Side,
    /// By how much one of the first Sync differed from the one before at the most.
    uneven_ns: f64,
    /// Upper minus lower bound when time stepped last ...
    width_ns: Option<f64>,
    /// ... and when nothing was in doubt last.
    usual_width_ns: f64,
    peer_delays: Vec<f64>,
    next_peer: usize,
    contradictions: u64,
    /// Of Sync and of Delay_Resp.
    corrections: [Corrections; 2],
    /// Whether the time transmitter tells how far it is from the grandmaster.
    is_told: bool,
}

impl Causal {
    pub(crate) fn new(options: &Options) -> Self {
        Self {
            least_delay_ns: options.least_delay.map(Duration::as_nanos_f64),
            origin: None,
            forward: Side::new(1.0),
            backward: Side::new(-1.0),
            fastest: Side::new(1.0),
            uneven_ns: 0.0,
            width_ns: None,
            usual_width_ns: 0.0,
            peer_delays: Vec::new(),
            next_peer: 0,
            contradictions: 0,
            corrections: Default::default(),
            is_told: false,
        }
    }

    /// How many samples there were that contradicted the others.
    pub(super) const fn contradictions(&self) -> u64 {
        self.contradictions
    }

    /// The latest sample fits none of the others, and nobody knows yet which are right.
    pub(crate) fn is_contradicted(&self) -> bool {
        !(self.forward.contradicting.is_empty() && self.backward.contradicting.is_empty())
    }

    /// Free-running minus PTP time, counted from the origin.
    fn count(&mut self, offset: Duration) -> f64 {
        let origin = *self.origin.get_or_insert(offset);
        let ns = (offset - origin).as_nanos_f64();
        if ns.abs() < FAR_NS {
            return ns;
        }
        for side in [&mut self.forward, &mut self.backward, &mut self.fastest] {
            for sample in side.samples.iter_mut().chain(&mut side.contradicting) {
                sample.ns -= side.sign * ns;
            }
        }
        self.origin = Some(offset);
        0.0
    }

    /// A Sync.
    pub(crate) fn sync(&mut self, input: &SyncInput, pace: Pace) {
        self.heed(input.t2.told_within);
        let [unusual, _] = &mut self.corrections;
        let told = input.t2.told_within.unwrap_or_default();
        let slack = input.t2.doubt.as_nanos_f64()
            + f64::from(told.ahead_ns)
            + doubt_of(input.correction)
            + unusual.unusual_ns(input.t2.mono, input.correction);
        let ns = self.count(input.t2.mono.since_epoch() - input.t1.since_epoch());
        let sample = Sample::new(input.t2.mono, ns - self.least_delay_ns[0] + slack);
        let other = self.lower(sample.at, pace);
        // A Sync may come before the first link delay does.
        if !self.peer_delays.is_empty() || self.backward.samples.is_empty() {
            // What was told may be behind, so that this one was faster than it seems.
            let ns = sample.ns - slack - f64::from(told.behind_ns);
            self.note_fastest(Sample { ns, ..sample }, other, sample.ns, pace);
        }
        Self::take(&mut self.forward, sample, other, pace, &mut self.contradictions);
        self.settle(sample.at, pace);
    }

    /// The time transmitter tells how far it is from the grandmaster: what it said before was bounded against itself alone, and
    /// does not bound the other.
    fn heed(&mut self, told: Option<Deviation>) {
        if told.is_some() && !self.is_told {
            for side in [&mut self.forward, &mut self.backward, &mut self.fastest] {
                *side = Side::new(side.sign);
            }
            self.width_ns = None;
        }
        self.is_told = told.is_some();
    }

    /// The same Sync, which says `upper` with all that may be wrong with it, as it came.
    fn note_fastest(&mut self, sample: Sample, other: Option<f64>, upper: f64, pace: Pace) {
        if self.fastest.pushed < ENOUGH
            && let Some(last) = self.fastest.samples.back()
        {
            let expected = last.ns + pace.rate_ppb * (sample.at_s - last.at_s);
            self.uneven_ns = self.uneven_ns.max((sample.ns - expected).abs());
        }
        if other.is_some_and(|other| upper + other < 0.0) {
            self.fastest.contradicting.push(sample);
        } else {
            self.fastest.contradicting.clear();
            self.fastest.push_least(sample, pace);
        }
    }

    /// An answered Delay_Req.
    pub(crate) fn delay(&mut self, input: &DelayInput, pace: Pace) {
        let [_, unusual] = &mut self.corrections;
        let told = input.t3.told_within.unwrap_or_default();
        let slack = input.t3.doubt.as_nanos_f64()
            + f64::from(told.behind_ns)
            + doubt_of(input.correction)
            + unusual.unusual_ns(input.t3.mono, input.correction);
        self.peer_delays.clear();
        let ns = -self.count(input.t3.mono.since_epoch() - input.t4.since_epoch());
        let sample = Sample::new(input.t3.mono, ns - self.least_delay_ns[1] + slack);
        let other = self.forward.bound(sample.at, pace);
        Self::take(&mut self.backward, sample, other, pace, &mut self.contradictions);
        self.settle(sample.at, pace);
    }

    /// A link delay: a Sync cannot have taken longer than the fastest packet both ways.
    pub(crate) fn peer_delay(&mut self, input: &PeerDelayInput) {
        let ns = input.mean_link_delay.as_nanos_f64() + input.doubt.as_nanos_f64() / 2.0;
        if self.peer_delays.len() < PEER_DELAYS {
            self.peer_delays.push(ns);
        } else {
            self.peer_delays[self.next_peer % PEER_DELAYS] = ns;
        }
        self.next_peer = (self.next_peer + 1) % PEER_DELAYS;
    }

    fn take(
        side: &mut Side,
        sample: Sample,
        other: Option<f64>,
        pace: Pace,
        contradictions: &mut u64,
    ) {
        // Upper and lower bound exclude each other. Of the same side, what is much tighter than all
        // the others is suspicious too, but possible.
        let contradicts = other.is_some_and(|other| sample.ns + other < 0.0);
        if contradicts {
            *contradictions += 1;
            side.contradicting.push(sample);
            return;
        }
        // It agrees with the others again. But where time has stepped the other way, old samples are
        // tighter than the new ones for ever: those age.
        let agrees = side.contradiction(sample.at, pace).is_none_or(|contradiction| {
            side.bound(sample.at, pace)
                .is_none_or(|bound| (sample.ns - bound).abs() < (sample.ns - contradiction).abs())
        });
        if agrees {
            side.contradicting.clear();
        }
        side.push(sample, pace);
    }

    /// Gives up what was before when contradictions have become the rule.
    fn settle(&mut self, now: Time<Free>, pace: Pace) {
        let counts = [self.forward.contradicting.len(), self.backward.contradicting.len()];
        let both = counts.iter().all(|count| *count >= CONTRADICTIONS / 2);
        let one = counts.iter().any(|count| *count >= CONTRADICTIONS);
        if both || one {
            self.remember_width(now, pace);
        }
        if both {
            self.forward.turn_over();
            self.backward.turn_over();
            self.fastest.turn_over();
        } else if one {
            let (early, late) = if counts[0] > counts[1] {
                (&mut self.forward, &mut self.backward)
            } else {
                (&mut self.backward, &mut self.forward)
            };
            // The other way must have been seen since, or nothing would be known of it.
            let Some(since) = early.contradicting.first().map(|sample| sample.at) else { return };
            // Where links are measured peer to peer, Sync is the only way there is, and the link tells the rest.
            let is_sync_alone = !self.peer_delays.is_empty() && counts[0] > counts[1];
            if is_sync_alone || late.samples.iter().any(|sample| sample.at >= since) {
                early.turn_over();
                late.forget_before(since);
                self.fastest.append_contradicting();
                self.fastest.forget_before(since);
            } else {
                early.contradicting.drain(..CONTRADICTIONS / 2);
            }
        }
    }

    /// Time has stepped at `since`, and is believed to be `offset` at `now`: what is of before and contradicts that
    /// bounds it no more. What is of since then and contradicts it may be right all the same.
    pub(super) fn forget_contradicting(
        &mut self,
        offset: Duration,
        since: Time<Free>,
        now: Time<Free>,
        pace: Pace,
    ) {
        let Some(origin) = self.origin else { return };
        let ns = (offset - origin).as_nanos_f64();
        self.remember_width(now, pace);
        self.fastest.append_contradicting();
        self.fastest.forget_before(since);
        for side in [&mut self.forward, &mut self.backward] {
            side.append_contradicting();
            let sign = side.sign;
            for sample in core::mem::take(&mut side.samples) {
                if side.tightest([&sample], now, pace).is_some_and(|bound| bound >= sign * ns) {
                    side.samples.push_back(sample);
                } else if sample.at >= since {
                    side.contradicting.push(sample);
                }
            }
        }
    }

    /// What was seen before `at` still bounds the time.
    pub(super) fn reaches_before(&self, at: Time<Free>) -> bool {
        [&self.forward, &self.backward].iter().any(|side| side.samples.iter().any(|it| it.at < at))
    }

    /// Nothing is in doubt, and the interval is so wide.
    pub(super) fn is_calm(&mut self, width: Duration) {
        self.usual_width_ns = width.as_nanos_f64();
    }

    /// An interval of which it is not known whether both ends are of one time: where one way alone has told of a step so far,
    /// it is narrower than any round trip is, and either end may be the one that is true.
    pub(super) fn of_two_times(&self, interval: Interval) -> Interval {
        let usual = Duration::from_nanos_f64(self.usual_width_ns);
        let Interval { lo, hi } = interval;
        Interval { lo: lo.min(hi - usual), hi: hi.max(lo + usual) }
    }

    fn remember_width(&mut self, now: Time<Free>, pace: Pace) {
        if let (Some(hi), Some(lo)) = (self.forward.bound(now, pace), self.lower(now, pace)) {
            self.width_ns = Some((hi + lo).abs());
        }
    }

    /// Lower bound as such, in the sign of an upper one.
    fn lower(&self, now: Time<Free>, pace: Pace) -> Option<f64> {
        let largest = self.peer_delays.iter().copied().reduce(f64::max);
        match largest {
            None => self.backward.bound(now, pace),
            Some(delay) => {
                // What may be wrong with a Sync makes the upper bound wider, and must not lift the lower one by it.
                let upper = self.forward.bound(now, pace)?;
                let fastest = self.fastest.least(now, pace).map_or(upper, |it| it.min(upper));
                let held_up = if self.fastest.pushed < FEW {
                    HELD_UP_NS
                } else if self.fastest.pushed < ENOUGH || self.peer_delays.len() < ENOUGH_DELAYS {
                    self.uneven_ns
                } else {
                    0.0
                };
                Some(2.0 * delay.max(0.0) + held_up - fastest)
            }
        }
    }

    /// `pace` without the rates that no clock can have had that kept between all bounds, but for `wander_ppb`: what a
    /// filter takes for its error is a guess about a distribution, above all while it has seen little.
    pub(crate) fn possible(&self, pace: Pace, wander_ppb: f64) -> Pace {
        if self.is_contradicted() {
            return pace;
        }
        let (mut lo, mut hi) = (pace.rate_ppb - pace.error_ppb, pace.rate_ppb + pace.error_ppb);
        if let Some(rise) = steepest(&self.backward, &self.forward) {
            hi = hi.min(rise + wander_ppb);
        }
        if let Some(fall) = steepest(&self.forward, &self.backward) {
            lo = lo.max(-fall - wander_ppb);
        }
        if lo > hi {
            return pace;
        }
        Pace { rate_ppb: lo.midpoint(hi), error_ppb: 0.5 * (hi - lo), ..pace }
    }

    /// The most that free-running minus PTP time can be at `now`, of Sync alone.
    pub(crate) fn upper(&self, now: Time<Free>, pace: Pace) -> Option<Duration> {
        let bound = self.forward.bound(now, pace)?;
        // One that contradicts the others may be the one that is true.
        let bound = self.forward.contradiction(now, pace).map_or(bound, |other| bound.max(other));
        Some(self.origin? + Duration::from_nanos_f64(bound))
    }

    /// Where free-running minus PTP time is at `now`; `None` before both ways have been seen. Where time may
    /// have stepped, at each of `doubted`, what has been seen since counts for itself too.
    pub(crate) fn interval(
        &self,
        now: Time<Free>,
        pace: Pace,
        doubted: impl IntoIterator<Item = Time<Free>>,
    ) -> Option<Interval> {
        let origin = self.origin?;
        let (hi, lo) = (self.forward.bound(now, pace), self.lower(now, pace).map(|ns| -ns));
        // Of a way that has not been seen since time stepped, the round trip of before tells.
        let (mut hi, mut lo) = match (hi, lo, self.width_ns) {
            (Some(hi), Some(lo), _) => (hi, lo),
            (Some(hi), None, Some(width)) => (hi, hi - width),
            (None, Some(lo), Some(width)) => (lo + width, lo),
            _ => return None,
        };
        if lo > hi {
            // Somebody's stamp lies, and it is not known whose. Of either story only the near end is there; the
            // far one is a round trip away.
            let width = self.width_ns.unwrap_or(0.0);
            (lo, hi) = (hi - width, lo + width);
        }
        // Where one way alone tells of a step, it also makes the interval narrower than any round trip is.
        let width = (hi - lo).max(self.usual_width_ns);
        let sides = [&self.forward, &self.backward];
        let contradicting = sides.map(|side| side.contradiction(now, pace));
        let since =
            doubted.into_iter().map(|since| sides.map(|side| side.bound_since(since, now, pace)));
        for [other_hi, other_lo] in core::iter::once(contradicting).chain(since) {
            let (other_lo, other_hi) = match (other_lo.map(|ns| -ns), other_hi) {
                (None, None) => continue,
                (other_lo, Some(hi)) => (other_lo.unwrap_or(hi - width), hi),
                (Some(lo), None) => (lo, lo + width),
            };
            lo = lo.min(other_lo).min(other_hi);
            hi = hi.max(other_lo).max(other_hi);
        }
        let at = |ns: f64| origin + Duration::from_nanos_f64(ns);
        Some(Interval { lo: at(lo), hi: at(hi) })
    }
}

fn doubt_of(correction: Duration) -> f64 {
    let ns = correction.as_nanos_f64().abs();
    CORRECTION_ERROR * ns + ns.min(CORRECTION_GRAIN_NS)
}

/// What may be said of a clock whose error is in `interval`, is estimated as `error`, and repeats within
/// `precision`.
pub(super) fn trust(
    interval: Interval,
    error: Duration,
    precision: Duration,
    is_clipped: bool,
    options: &Options,
) -> Trust {
    let (mut bound, mut basis) = (interval.farther_end(), Basis::Causality);
    if let Some(limit) = options.asymmetry_limit
        && !is_clipped
        && interval.contains(error)
        && precision + limit.abs() < bound
    {
        (bound, basis) = (precision + limit.abs(), Basis::AsymmetryLimit);
    }
    Trust { bound, precision, interval, basis, is_clipped, growth: Duration::ZERO }
}

#[cfg(test)]
mod tests;
