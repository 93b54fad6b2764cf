//! What has changed, if anything: hypotheses that compete by their evidence on the packets since a
//! suspicion, from the belief of before it. Time may have stepped, frequency may have, either way
//! may go over another route, both may, the noise may be another; or nothing is the matter.

use super::{
    acquisition::common_slope,
    bank::{Bank, Opening},
    filter::{Filter, Observation, Vector, Way},
    history::History,
    noise::{Noise, Prior, ln_normal_below},
};
#[cfg(target_os = "none")]
use crate::math::Float as _;
use crate::prelude::*;
use core::cell::OnceCell;
use ptp_common::time::{Duration, Free, Time};

/// Log evidence by which a hypothesis is so far behind the best that its rest is not looked at. Densities of
/// packets are below one per nanosecond, so that evidence only falls.
const HOPELESS: f64 = 40.0;
/// Instants at which a change may have been.
const INSTANTS: u64 = 4;
/// Packets of a direction from which its noise is looked at afresh.
const AFRESH: usize = 3;
/// A floor is not below the least by more than so many standard deviations.
const FLOOR_SIGMAS: f64 = 4.0;
/// A round trip is shorter than any before by this share.
const SHORTER: f64 = 0.03;
/// Two hypotheses that differ by less than so many of their standard deviations are one.
const ALIKE_SIGMAS: f64 = 3.0;

/// A kind of change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// None.
    Nothing,
    /// A clock has stepped.
    Time,
    /// A frequency has.
    Rate,
    /// Both have.
    TimeAndRate,
    /// The frequency wanders more than before.
    Wander,
    /// Another route forward.
    Forward,
    /// Another route backward.
    Backward,
    /// Another route both ways that is as much longer or shorter.
    Alike,
    /// Other routes that have nothing to do with each other.
    Apart,
    /// Another route forward, which is as long as the one backward while the old one was not.
    ShorterForward,
    /// The same backward.
    ShorterBackward,
    /// The edge forward was never where it was believed to be; the ways are as alike as before.
    EdgeForward,
    /// The edge backward.
    EdgeBackward,
}

/// A kind of change and how far it may go.
#[derive(Clone, Copy, Debug)]
struct Shape {
    kind: Kind,
    /// Log probability that a suspicion is of this kind, relative to nothing.
    ln_prior: f64,
    /// The frequency steps by no more, parts per billion.
    rate_ppb: f64,
    /// Levels by which the frequency wanders more.
    levels: usize,
}

/// All that may be. No oscillator's frequency steps by more than a few ppm, though a line through a few late
/// packets may; a kernel that slews a clock moves it by hundreds.
const SHAPES: [Shape; 15] = {
    const fn shape(kind: Kind, ln_prior: f64) -> Shape {
        Shape { kind, ln_prior, rate_ppb: 0.0, levels: 0 }
    }
    [
        shape(Kind::Nothing, 0.0),
        shape(Kind::Time, -6.0),
        Shape { rate_ppb: 1e4, levels: 1, ..shape(Kind::Rate, -5.0) },
        Shape { rate_ppb: 1e6, levels: 1, ..shape(Kind::Rate, -14.0) },
        Shape { rate_ppb: 1e4, levels: 1, ..shape(Kind::TimeAndRate, -10.0) },
        Shape { levels: 3, ..shape(Kind::Wander, -4.0) },
        Shape { levels: 6, ..shape(Kind::Wander, -7.0) },
        shape(Kind::Forward, -9.0),
        shape(Kind::Backward, -9.0),
        shape(Kind::Alike, -9.0),
        shape(Kind::Apart, -15.0),
        shape(Kind::ShorterForward, -10.0),
        shape(Kind::ShorterBackward, -10.0),
        shape(Kind::EdgeForward, -12.0),
        shape(Kind::EdgeBackward, -12.0),
    ]
};

impl Shape {
    fn along(self, ns: f64, seconds: f64) -> Vec<(Vector, f64)> {
        const X: Vector = [1.0, 0.0, 0.0, 0.0];
        const Y: Vector = [0.0, 1.0, 0.0, 0.0];
        const F: Vector = [0.0, 0.0, 1.0, 0.0];
        const B: Vector = [0.0, 0.0, 0.0, 1.0];
        let ppb = (4.0 * ns / seconds).min(self.rate_ppb);
        match self.kind {
            Kind::Nothing | Kind::Wander => vec![],
            Kind::Time => vec![(X, ns)],
            Kind::Rate => vec![(Y, ppb)],
            Kind::TimeAndRate => vec![(X, ns), (Y, ppb)],
            Kind::Forward => vec![(F, ns)],
            Kind::Backward => vec![(B, ns)],
            Kind::Alike => vec![([0.0, 0.0, 1.0, 1.0], ns)],
            Kind::Apart => vec![(F, ns), (B, ns)],
            Kind::ShorterForward | Kind::EdgeForward => vec![([0.5, 0.0, 0.5, 0.5], ns)],
            Kind::ShorterBackward | Kind::EdgeBackward => vec![([-0.5, 0.0, 0.5, 0.5], ns)],
        }
    }
}

impl Kind {
    /// Whether it is no change but an old error.
    const fn is_of_old(self) -> bool {
        matches!(self, Self::EdgeForward | Self::EdgeBackward)
    }

    /// Whether it is among the first that are looked at.
    const fn is_plain(self) -> bool {
        matches!(
            self,
            Self::Nothing | Self::Time | Self::Rate | Self::Forward | Self::Backward | Self::Alike
        )
    }

    /// Whether it matters when exactly it was.
    const fn has_instant(self) -> bool {
        matches!(self, Self::Time | Self::Rate | Self::TimeAndRate | Self::Forward | Self::Backward)
    }

    /// Whether no packet can tell both apart: who knows which of two routes was the symmetric one?
    fn is_mirror_of(self, other: Self) -> bool {
        let pair = |a, b| (self, other) == (a, b) || (self, other) == (b, a);
        pair(Self::Forward, Self::ShorterForward) || pair(Self::Backward, Self::ShorterBackward)
    }

    /// How probable that is where the round trip is `shorter` by that share than any that was known: of two
    /// routes the shorter one is the symmetric one, if any is.
    fn ln_symmetry(self, shorter: f64) -> f64 {
        match (self, shorter > SHORTER) {
            (Self::ShorterForward | Self::ShorterBackward, false) => -20.0,
            (Self::Forward | Self::Backward, true) => -4.0,
            _ => 0.0,
        }
    }

    /// How much less probable it is where what is believed is a first estimate, whose edges may well be
    /// elsewhere: hardly any time, frequency or route changes in its first seconds.
    const fn ln_of_young(self) -> f64 {
        match self {
            Self::Time | Self::Rate | Self::TimeAndRate => -8.0,
            Self::Forward | Self::Backward | Self::Apart => -8.0,
            _ => 0.0,
        }
    }

    /// Whether a clock has stepped.
    pub(super) const fn is_of_time(self) -> bool {
        matches!(self, Self::Time | Self::TimeAndRate)
    }

    /// Whether the time is another one after it, at once or by and by.
    pub(super) const fn is_of_time_or_rate(self) -> bool {
        matches!(self, Self::Time | Self::TimeAndRate | Self::Rate | Self::Wander)
    }

    /// Whether nothing has happened to the ways.
    const fn is_of_clock(self) -> bool {
        matches!(self, Self::Nothing) || self.is_of_time_or_rate()
    }

    /// Whether the edge of a way (forward is 0) is elsewhere than it was.
    const fn moves(self, way: usize) -> bool {
        match self {
            Self::Nothing | Self::Rate | Self::Wander => false,
            Self::Time | Self::TimeAndRate | Self::Alike | Self::Apart => true,
            Self::Forward | Self::ShorterForward | Self::EdgeForward => way == 0,
            Self::Backward | Self::ShorterBackward | Self::EdgeBackward => way == 1,
        }
    }
}

/// Log probability that a change comes with other noise on one way.
const LN_FRESH: f64 = -9.0;

/// A hypothesis and what became of it.
#[derive(Clone, Debug)]
pub(super) struct Hypothesis {
    /// Number of the first observation after the change.
    pub(super) since: u64,
    pub(super) kind: Kind,
    pub(super) opening: Opening,
    /// Log evidence of the packets since the change, prior included.
    pub(super) ln_evidence: f64,
    /// The belief now.
    pub(super) filter: Filter,
    /// What its offset counts from.
    pub(super) origin: Duration,
}

impl Hypothesis {
    /// Whether both lead to the same time.
    fn is_like(&self, other: &Self) -> bool {
        let apart =
            (self.filter.x[0] - other.filter.x[0]) + (self.origin - other.origin).as_nanos_f64();
        let variance = self.filter.p[0][0] + other.filter.p[0][0];
        apart * apart <= ALIKE_SIGMAS * ALIKE_SIGMAS * variance
    }
}

/// By how much nothing explains what is in `history` since `since` better than the plainest changes, log
/// evidence: a first look that costs little, for most suspicions are none.
pub(super) fn lead_of_nothing(history: &History, since: u64, known: Known) -> Option<f64> {
    let (from, bank) = history.before(since)?;
    let mut trial = Trial::new(bank);
    let mut observations = history.since(*from);
    for _ in *from..since {
        trial.observe(observations.next()?);
    }
    trial.ln_evidence = 0.0;
    let after: Vec<&Observation> = observations.collect();
    let scene = Scene::new(since, trial, &after)?;
    let mut hypotheses = Vec::new();
    for shape in SHAPES.into_iter().filter(|shape| shape.kind.is_plain()) {
        scene.try_one(shape, [None; 2], bank, known, &mut hypotheses);
    }
    let (nothing, others) =
        hypotheses.split_first().filter(|(first, _)| first.kind == Kind::Nothing)?;
    let noise = scene.residuals.noise(Kind::Nothing);
    let mut noisier = Vec::new();
    scene.try_one(SHAPES[0], noise, bank, known, &mut noisier);
    let best = others.iter().chain(&noisier).map(|other| other.ln_evidence);
    Some(nothing.ln_evidence - best.fold(f64::NEG_INFINITY, f64::max))
}

/// What is known of delays.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    /// No floor is less, nanoseconds.
    pub(super) least_floor_ns: f64,
    /// The shortest round trip so far, nanoseconds.
    pub(super) round_trip_ns: f64,
    /// What is believed is a first estimate of a few packets.
    pub(super) is_young: bool,
}

/// All hypotheses on what is in `history`, the best first. What changes has done so at `since` or after; an edge
/// that was never where it was believed to be was not there from the start.
pub(super) fn hypotheses(history: &History, since: u64, known: Known) -> Vec<Hypothesis> {
    let Some((from, bank)) = history.oldest() else { return Vec::new() };
    let since = since.max(*from);
    let all: Vec<&Observation> = history.since(*from).collect();
    let mut trial = Trial::new(bank);
    let mut hypotheses = Vec::new();
    // Where the frequency is no oscillator's, packets say little about a way: what it does would soon be taken for that.
    let is_possible = |kind: Kind| kind.is_of_clock() || !bank.wanders();
    let shapes = || SHAPES.into_iter().filter(|shape| is_possible(shape.kind));
    if let Some(scene) = Scene::new(*from, trial.clone(), &all) {
        for shape in shapes().filter(|shape| shape.kind.is_of_old()) {
            scene.try_all(shape, bank, known, &mut hypotheses);
        }
    }
    // When it changed is not known exactly either.
    let mut number = *from;
    for part in 0..INSTANTS {
        let at = since + (history.next() - since) * part / INSTANTS;
        while number < at {
            if let Some(observation) = all.get((number - from) as usize) {
                trial.observe(observation);
            }
            number += 1;
        }
        let after = all.get((at - from) as usize..).unwrap_or_default();
        let Some(scene) = Scene::new(at, trial.clone(), after) else { continue };
        for shape in shapes().filter(|shape| !shape.kind.is_of_old()) {
            if part == 0 || shape.kind.has_instant() {
                scene.try_all(shape, bank, known, &mut hypotheses);
            }
        }
    }
    hypotheses.retain(|hypothesis| hypothesis.ln_evidence.is_finite());
    hypotheses.sort_by(|a, b| b.ln_evidence.total_cmp(&a.ln_evidence));
    hypotheses
}

/// A belief, and the packets after it that something has changed before.
struct Scene<'a> {
    since: u64,
    trial: Trial,
    after: &'a [&'a Observation],
    residuals: Residuals,
    seconds: f64,
    size: f64,
}

impl<'a> Scene<'a> {
    fn new(since: u64, trial: Trial, after: &'a [&'a Observation]) -> Option<Self> {
        let seconds = (after.last()?.at - trial.at).as_secs_f64().max(1e-6);
        let residuals = Residuals::new(&trial, after);
        let size = residuals.size(trial.spread());
        Some(Self { since, trial, after, residuals, seconds, size })
    }

    fn try_all(&self, shape: Shape, bank: &Bank, known: Known, into: &mut Vec<Hypothesis>) {
        let noise = self.residuals.noise(shape.kind);
        for fresh in [[false, false], [true, false], [false, true], [true, true]] {
            let noise = [0, 1].map(|way| if fresh[way] { noise[way] } else { None });
            if [0, 1].iter().any(|way| fresh[*way] && noise[*way].is_none()) {
                continue;
            }
            self.try_one(shape, noise, bank, known, into);
        }
    }

    fn try_one(
        &self,
        shape: Shape,
        noise: [Option<Noise>; 2],
        bank: &Bank,
        known: Known,
        into: &mut Vec<Hypothesis>,
    ) {
        let along = shape.along(self.size, self.seconds);
        let opening = Opening { along, levels: shape.levels, noise };
        let mut trial = self.trial.clone();
        trial.open(&opening, bank);
        let best = into.iter().map(|known| known.ln_evidence).fold(f64::NEG_INFINITY, f64::max);
        for part in self.after.chunks(8) {
            part.iter().for_each(|observation| trial.observe(observation));
            if trial.ln_evidence < best - HOPELESS {
                return;
            }
        }
        let count = noise.iter().flatten().count() as f64;
        let shorter = 1.0 - (trial.filter.x[2] + trial.filter.x[3]) / known.round_trip_ns;
        let young = if known.is_young { shape.kind.ln_of_young() } else { 0.0 };
        let prior = shape.ln_prior + young + shape.kind.ln_symmetry(shorter) + LN_FRESH * count;
        let ln_evidence = prior + trial.ln_evidence + trial.ln_floors(known.least_floor_ns);
        let Trial { filter, origin, .. } = trial;
        let (since, kind) = (self.since, shape.kind);
        into.push(Hypothesis { since, kind, opening, ln_evidence, filter, origin });
    }
}

/// The best of those that lead to another time than the best of all.
pub(super) fn runner_up(hypotheses: &[Hypothesis]) -> Option<&Hypothesis> {
    let (best, others) = hypotheses.split_first()?;
    others.iter().find(|other| !other.is_like(best) && !other.kind.is_mirror_of(best.kind))
}

/// One filter with fixed noise on its way through observations.
#[derive(Clone, Debug)]
struct Trial {
    filter: Filter,
    origin: Duration,
    at: Time<Free>,
    wander: f64,
    noise: [Noise; 3],
    /// What each noise is to a packet.
    priors: [Prior; 3],
    ln_evidence: f64,
}

impl Trial {
    fn new(bank: &Bank) -> Self {
        Self {
            filter: *bank.middle(),
            origin: bank.origin(),
            at: bank.at(),
            wander: bank.wander(0),
            noise: *bank.noise(),
            priors: bank.noise().map(|noise| noise.prior()),
            ln_evidence: 0.0,
        }
    }

    fn open(&mut self, opening: &Opening, bank: &Bank) {
        for (along, sd) in &opening.along {
            self.filter.open(along, 0.0, sd * sd);
        }
        self.wander = bank.wander(opening.levels);
        for (noise, fresh) in self.noise.iter_mut().zip(&opening.noise) {
            *noise = fresh.unwrap_or(*noise);
        }
        self.priors = self.noise.map(|noise| noise.prior());
    }

    fn observe(&mut self, observation: &Observation) {
        let dt = (observation.at - self.at).as_secs_f64();
        if dt > 0.0 {
            self.filter.predict(dt, self.wander);
            self.at = observation.at;
        }
        let (h, value) = observation.row(dt.min(0.0), self.origin);
        let prior = &self.priors[observation.way as usize];
        self.ln_evidence += self.filter.absorb(&h, value, prior).posterior.ln_evidence;
    }

    /// The usual spread of packets and belief.
    fn spread(&self) -> f64 {
        let noise = self.noise[..2].iter().map(|noise| noise.fast_ns + noise.variance_ns2.sqrt());
        noise.fold(self.filter.p[0][0].sqrt(), f64::max)
    }

    /// Log probability that both floors are delays.
    fn ln_floors(&self, least: f64) -> f64 {
        let floors = [2, 3].map(|i| {
            let sigmas = (self.filter.x[i] - least) / self.filter.p[i][i].sqrt();
            if sigmas < -FLOOR_SIGMAS { f64::NEG_INFINITY } else { ln_normal_below(sigmas) }
        });
        floors[0] + floors[1]
    }
}

/// How late the packets since a change are by the belief of before it, with their times, seconds and
/// nanoseconds.
struct Residuals {
    points: [Vec<(f64, f64)>; 2],
    /// The slope of both, once it is known.
    slope: OnceCell<f64>,
}

impl Residuals {
    fn new(trial: &Trial, after: &[&Observation]) -> Self {
        let mut points = [Vec::new(), Vec::new()];
        for observation in after {
            if observation.way == Way::Peer {
                continue;
            }
            let at_s = (observation.at - trial.at).as_secs_f64();
            let (h, value) = observation.row(at_s, trial.origin);
            let mean: f64 = h.iter().zip(&trial.filter.x).map(|(h, x)| h * x).sum();
            points[observation.way as usize].push((at_s, value - mean));
        }
        Self { points, slope: OnceCell::new() }
    }

    /// How large the change may be.
    fn size(&self, least: f64) -> f64 {
        let medians = self.points.iter().filter_map(|points| {
            let mut sizes: Vec<f64> = points.iter().map(|point| point.1.abs()).collect();
            sizes.sort_unstable_by(f64::total_cmp);
            sizes.get(sizes.len() / 2).copied()
        });
        medians.fold(least, f64::max)
    }

    /// What the noise of each direction looks like by itself, if what has changed is of this kind.
    fn noise(&self, kind: Kind) -> [Option<Noise>; 2] {
        let has_slope = matches!(kind, Kind::Rate | Kind::TimeAndRate | Kind::Wander);
        let common = || common_slope(&self.points[0], &self.points[1], 0.0);
        let slope = if has_slope { *self.slope.get_or_init(common) } else { 0.0 };
        [0, 1].map(|way| {
            let points = &self.points[way];
            let sign = if way == 0 { 1.0 } else { -1.0 };
            let flat = points.iter().map(|(at, value)| value - sign * slope * at);
            let least = flat.clone().fold(f64::INFINITY, f64::min);
            // An edge that has moved is at the fastest packet, another one where it was.
            let edge = if kind.moves(way) || has_slope { least } else { least.min(0.0) };
            let mut excess: Vec<f64> = flat.map(|value| value - edge).collect();
            (excess.len() >= AFRESH).then(|| Noise::sharp(&mut excess))
        })
    }
}
