//! What has changed, if anything: hypotheses that compete by their evidence on the packets since a
//! suspicion, from the belief of before it. Time may have stepped, frequency may have, either way
//! may go over another route, both may, the noise may be another; or nothing is the matter.

use super::{
    acquisition::common_slope,
    bank::{Bank, Opening},
    filter::{Filter, Observation, Vector, Way},
    history::History,
    noise::{Noise, ln_normal_below},
};
use ptp_common::time::Duration;

/// Packets of a direction from which its noise is looked at afresh.
const AFRESH: usize = 6;
/// A floor is not below the least by more than so many standard deviations.
const FLOOR_SIGMAS: f64 = 4.0;
/// No oscillator's frequency steps by much more, parts per billion: a line through a few late packets may.
const RATE_STEP_PPB: f64 = 10_000.0;
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
    /// The edge forward was never where it was believed to be; the ways are as alike as before.
    EdgeForward,
    /// The edge backward.
    EdgeBackward,
}

impl Kind {
    const ALL: [Self; 11] = [
        Self::Nothing,
        Self::Time,
        Self::Rate,
        Self::TimeAndRate,
        Self::Wander,
        Self::Forward,
        Self::Backward,
        Self::Alike,
        Self::Apart,
        Self::EdgeForward,
        Self::EdgeBackward,
    ];

    /// Log probability that a suspicion is of this kind, relative to nothing.
    const fn ln_prior(self, is_young: bool) -> f64 {
        match self {
            Self::Nothing => 0.0,
            Self::Wander => -4.0,
            Self::Rate => -5.0,
            Self::Time | Self::Forward | Self::Backward | Self::Alike => -6.0,
            Self::TimeAndRate => -10.0,
            Self::Apart => -12.0,
            // What the first packets have got wrong shows soon.
            Self::EdgeForward | Self::EdgeBackward => {
                if is_young {
                    -2.0
                } else {
                    -12.0
                }
            }
        }
    }

    fn along(self, ns: f64, seconds: f64) -> Vec<(Vector, f64)> {
        const X: Vector = [1.0, 0.0, 0.0, 0.0];
        const Y: Vector = [0.0, 1.0, 0.0, 0.0];
        const F: Vector = [0.0, 0.0, 1.0, 0.0];
        const B: Vector = [0.0, 0.0, 0.0, 1.0];
        let ppb = (4.0 * ns / seconds).min(RATE_STEP_PPB);
        match self {
            Self::Nothing => vec![],
            Self::Time => vec![(X, ns)],
            Self::Rate => vec![(Y, ppb)],
            Self::TimeAndRate => vec![(X, ns), (Y, ppb)],
            Self::Wander => vec![],
            Self::Forward => vec![(F, ns)],
            Self::Backward => vec![(B, ns)],
            Self::Alike => vec![([0.0, 0.0, 1.0, 1.0], ns)],
            Self::Apart => vec![(F, ns), (B, ns)],
            Self::EdgeForward => vec![([0.5, 0.0, 0.5, 0.5], ns)],
            Self::EdgeBackward => vec![([-0.5, 0.0, 0.5, 0.5], ns)],
        }
    }

    const fn levels(self) -> usize {
        match self {
            Self::Wander => 3,
            Self::Rate | Self::TimeAndRate => 1,
            _ => 0,
        }
    }
}

/// Log probability that a change comes with other noise on one way.
const LN_FRESH: f64 = -6.0;

/// A hypothesis and what became of it.
#[derive(Clone, Debug)]
pub(super) struct Hypothesis {
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

/// All hypotheses on what is in `history` from `since` on, the best first. `least_floor` is what a
/// delay is at the least.
pub(super) fn hypotheses(
    history: &History,
    since: u64,
    is_young: bool,
    least_floor: f64,
) -> Vec<Hypothesis> {
    let Some((from, bank)) = history.before(since) else { return Vec::new() };
    let mut trial = Trial::new(bank);
    let (from, since) = (*from, since.max(*from));
    let before = usize::try_from(since - from).unwrap_or(0);
    for observation in history.since(from).take(before) {
        trial.observe(observation);
    }
    let after: Vec<&Observation> = history.since(since).collect();
    let Some(last) = after.last() else { return Vec::new() };
    let residuals = Residuals::new(&trial, &after);
    let seconds = (last.at - trial.at).as_secs_f64().max(1e-6);
    let size = residuals.size(trial.spread());
    let mut all = Vec::new();
    for kind in Kind::ALL {
        let noise = residuals.noise(matches!(kind, Kind::Rate | Kind::TimeAndRate | Kind::Wander));
        for fresh in [[false, false], [true, false], [false, true], [true, true]] {
            let noise = [0, 1].map(|way| if fresh[way] { noise[way] } else { None });
            if [0, 1].iter().any(|way| fresh[*way] && noise[*way].is_none()) {
                continue;
            }
            let opening =
                Opening { along: kind.along(size, seconds), levels: kind.levels(), noise };
            let mut trial = trial.clone();
            trial.open(&opening, bank);
            for observation in &after {
                trial.observe(observation);
            }
            let count = fresh.iter().filter(|fresh| **fresh).count() as f64;
            let prior = kind.ln_prior(is_young) + LN_FRESH * count;
            let ln_evidence = prior + trial.ln_evidence + trial.ln_floors(least_floor);
            all.push(Hypothesis {
                kind,
                opening,
                ln_evidence,
                filter: trial.filter,
                origin: trial.origin,
            });
        }
    }
    all.retain(|hypothesis| hypothesis.ln_evidence.is_finite());
    all.sort_by(|a, b| b.ln_evidence.total_cmp(&a.ln_evidence));
    all
}

/// The best of those that lead to another time than the best of all.
pub(super) fn runner_up(hypotheses: &[Hypothesis]) -> Option<&Hypothesis> {
    let (best, others) = hypotheses.split_first()?;
    others.iter().find(|other| !other.is_like(best))
}

/// One filter with fixed noise on its way through observations.
#[derive(Clone, Debug)]
struct Trial {
    filter: Filter,
    origin: Duration,
    at: ptp_common::time::Time<ptp_common::time::Mono>,
    wander: f64,
    noise: [Noise; 3],
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
        self.ln_evidence = 0.0;
    }

    fn observe(&mut self, observation: &Observation) {
        let dt = (observation.at - self.at).as_secs_f64();
        if dt > 0.0 {
            self.filter.predict(dt, self.wander);
            self.at = observation.at;
        }
        let (h, value) = observation.row(dt.min(0.0), self.origin);
        let prior = self.noise[observation.way as usize].prior();
        self.ln_evidence += self.filter.absorb(&h, value, &prior).posterior.ln_evidence;
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
        Self { points }
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

    /// What the noise of each direction looks like by itself.
    fn noise(&self, has_slope: bool) -> [Option<Noise>; 2] {
        let slope = if has_slope { common_slope(&self.points[0], &self.points[1]) } else { 0.0 };
        [0, 1].map(|way| {
            let points = &self.points[way];
            if points.len() < AFRESH {
                return None;
            }
            let sign = if way == 0 { 1.0 } else { -1.0 };
            let flat = points.iter().map(|(at, value)| value - sign * slope * at);
            let least = flat.clone().fold(f64::INFINITY, f64::min);
            let mut excess: Vec<f64> = flat.map(|value| value - least).collect();
            Some(Noise::sharp(&mut excess))
        })
    }
}
