//! Time, frequency and the two fastest delays, followed by three Kalman filters that differ in how
//! much they let the frequency wander; whichever predicts the packets best is believed, and the
//! three move with it. A fourth believes in another kind of noise, and takes their place when it
//! predicts better than they do.

use super::{
    filter::{Filter, Observation, Seen, Vector, WAYS, Way},
    noise::Noise,
};
use crate::math;
#[cfg(target_os = "none")]
use crate::math::Float as _;
use crate::prelude::*;
use ptp_common::time::{Duration, Free, Time};

/// Levels of wander of the frequency: [`LEAST_WANDER`] ppb per root second, and each three times the
/// last.
const LEVELS: usize = 20;
/// So far up the filters go by themselves: beyond is no oscillator, but something that has been judged,
const OWN_LEVELS: usize = 13;
/// which goes so far; or what the first packets have shown ([`super::wander`]).
const JUDGED_LEVELS: usize = 16;
/// By so much farther than that a frequency may wander that has been seen to.
const FARTHER: usize = 3;
const LEAST_WANDER: f64 = 1.0 / 729.0;
const LEVEL_RATIO: f64 = 3.0;
/// 1 ppb per root second, an ordinary crystal.
const FIRST_LEVEL: usize = 6;
/// Packets over which the filters are compared.
const COMPARED: f64 = 1000.0;
/// Log evidence by which a neighbour must be better for the three to move.
const MOVE_AT: f64 = 1.0;
/// Log evidence by which a filter can be behind.
const BEHIND: f64 = 12.0;
/// Log evidence by which the other kind of noise must be better to be believed.
const SWAP_AT: f64 = 4.0;
/// Packets of each direction from which the noise is looked at afresh.
const AFRESH: usize = 64;
/// Log evidence by which a new challenger is behind at the start.
const HANDICAP: f64 = 6.0;
/// By so many times the spread of the noise an edge may be elsewhere than believed: more is no matter of
/// noise, but a change, of which [`super::change`] tells which.
const NOISE_MOVES: f64 = 4.0;
/// Share of packets that may lie clearly before a new edge.
const MOST_BEFORE: f64 = 0.1;
/// What a new challenger sees afresh, in turns: whether the edges are sharp, and which directions. One
/// direction may be right where the other is not.
const CHALLENGES: [(bool, [bool; 2]); 6] = [
    (false, [true, true]),
    (false, [true, false]),
    (false, [false, true]),
    (true, [true, true]),
    (true, [true, false]),
    (true, [false, true]),
];
/// The challenger among the filters.
const CHALLENGER: usize = 3;

/// The filters. See the module's documentation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bank {
    /// What the offset in the states counts from.
    origin: Duration,
    at: Time<Free>,
    /// Wander level of the middle filter.
    level: usize,
    /// Levels up to which it goes by itself.
    own_levels: usize,
    filters: [Filter; 4],
    /// How much each of the three is believed, by their scores.
    weights: [f64; 3],
    /// As the three believe, and as the challenger does.
    noise: [[Noise; WAYS]; 2],
    /// Residuals of each direction, the latest overwriting the oldest, and how many there are since the
    /// last challenger came.
    residuals: [[f64; AFRESH]; 2],
    seen: [usize; 2],
    /// Of the next challenger, in [`CHALLENGES`].
    challenge: usize,
    /// Whether something is about to be judged, so that no new challenger is wanted.
    pub(super) is_in_question: bool,
}

/// What a change may have moved.
#[derive(Clone, Debug, Default)]
pub(super) struct Opening {
    /// Directions of the state, and how far it may have moved along each, standard deviation.
    pub(super) along: Vec<(Vector, f64)>,
    /// Levels by which the frequency wanders more.
    pub(super) levels: usize,
    /// Noise of each direction that is believed instead.
    pub(super) noise: [Option<Noise>; 2],
}

/// Wander of the frequency at each level, ppb² per second.
const WANDER: [f64; LEVELS] = {
    let mut wander = [LEAST_WANDER * LEAST_WANDER; LEVELS];
    let mut level = 1;
    while level < LEVELS {
        wander[level] = wander[level - 1] * (LEVEL_RATIO * LEVEL_RATIO);
        level += 1;
    }
    wander
};

/// Levels up to which a frequency may go by itself that has been seen to wander by `level`.
fn beyond(level: usize) -> usize {
    (level + FARTHER).min(LEVELS)
}

impl Bank {
    pub(super) fn new(
        origin: Duration,
        at: Time<Free>,
        beliefs: [(Filter, [Noise; WAYS]); 2],
        wander: Option<f64>,
        before: Option<&Self>,
    ) -> Self {
        let [(filter, noise), (challenger, other_noise)] = beliefs;
        let (level, own_levels) = match (wander, before) {
            (Some(q), _) => {
                let level = WANDER.iter().take_while(|wander| **wander < q).count();
                let level = level.clamp(1, LEVELS - 2);
                (level, OWN_LEVELS.max(beyond(level)))
            }
            (None, Some(before)) => (before.level, before.own_levels),
            (None, None) => (FIRST_LEVEL, OWN_LEVELS),
        };
        Self {
            origin,
            at,
            level,
            own_levels,
            filters: [filter, filter, filter, challenger],
            weights: [1.0 / 3.0; 3],
            noise: [noise, other_noise],
            residuals: [[0.0; AFRESH]; 2],
            seen: [0; 2],
            challenge: 0,
            is_in_question: false,
        }
    }

    /// What the offset counts from.
    pub(super) const fn origin(&self) -> Duration {
        self.origin
    }

    /// By how much its offset is above that of `other`, nanoseconds.
    pub(super) fn offset_above(&self, other: &Self) -> f64 {
        (self.origin - other.origin).as_nanos_f64() + self.offset_ns() - other.offset_ns()
    }

    /// Whether the frequency wanders by more than that of any oscillator.
    pub(super) const fn wanders(&self) -> bool {
        self.level >= OWN_LEVELS
    }

    /// When it was last told of anything.
    pub(super) const fn at(&self) -> Time<Free> {
        self.at
    }

    /// The filter in the middle.
    pub(super) const fn middle(&self) -> &Filter {
        &self.filters[1]
    }

    /// Wander of the frequency in the middle filter, ppb² per second, and `levels` higher.
    pub(super) fn wander(&self, levels: usize) -> f64 {
        WANDER[(self.level + levels).min(self.levels() - 1)]
    }

    /// Levels that there are, for what is judged too.
    fn levels(&self) -> usize {
        self.own_levels.max(JUDGED_LEVELS)
    }

    /// What is believed of the noise of each kind of observation.
    pub(super) const fn noise(&self) -> &[Noise; WAYS] {
        &self.noise[0]
    }

    /// Moves all filters alike, lets the frequency wander `levels` more than before, and takes other
    /// noise where some is given.
    pub(super) fn open(&mut self, opening: &Opening) {
        for filter in &mut self.filters {
            for (along, sd) in &opening.along {
                filter.open(along, 0.0, sd * sd);
            }
        }
        self.level = (self.level + opening.levels).min(self.levels() - 2);
        if self.wanders() {
            self.own_levels = self.own_levels.max(beyond(self.level));
        }
        for (way, noise) in opening.noise.iter().enumerate() {
            if let Some(noise) = noise {
                self.noise[0][way] = *noise;
                self.noise[1][way] = *noise;
            }
        }
        self.filters[CHALLENGER].score = self.filters[1].score - HANDICAP;
        self.seen = [0; 2];
    }

    /// The offset is `by` more, and less certain by the standard deviation `sd`, nanoseconds. What packets have shown are the edges, which
    /// stay; it is the floors that were taken for alike and are not.
    pub(super) fn shift(&mut self, by: f64, sd: f64) {
        for filter in &mut self.filters {
            filter.open(&[1.0, 0.0, -1.0, 1.0], by, sd * sd);
        }
    }

    /// The offset is `by` more, nanoseconds, which is no more than what the belief may well be wrong by.
    pub(super) fn correct(&mut self, by: f64) {
        for filter in &mut self.filters {
            filter.correct(by);
        }
    }

    fn level(&self, filter: usize) -> usize {
        if filter == CHALLENGER { self.level } else { self.level + filter - 1 }
    }

    fn weigh(&mut self) {
        let scores = [0, 1, 2].map(|i| self.filters[i].score);
        let top = scores.into_iter().fold(f64::MIN, f64::max);
        let weights = scores.map(|score| math::exp(score - top));
        let sum: f64 = weights.iter().sum();
        self.weights = weights.map(|weight| weight / sum);
    }

    fn mixed(&self, read: impl Fn(&Filter) -> f64) -> f64 {
        self.weights.iter().zip(&self.filters).map(|(weight, filter)| weight * read(filter)).sum()
    }

    /// Of the free-running scale, from the origin, nanoseconds.
    pub(super) fn offset_ns(&self) -> f64 {
        self.mixed(|filter| filter.x[0])
    }

    /// What the free-running scale gains on the time transmitter, parts per billion.
    pub(super) fn rate_ppb(&self) -> f64 {
        self.mixed(|filter| filter.x[1])
    }

    /// The fastest delay, mean of both ways, nanoseconds.
    pub(super) fn delay_ns(&self) -> f64 {
        self.mixed(|filter| 0.5 * (filter.x[2] + filter.x[3]))
    }

    /// Error at `at` of a clock that shows `shown` more than the free-running scale, nanoseconds.
    pub(super) fn error_ns(&self, at: Time<Free>, shown: Duration) -> f64 {
        let since_s = (at - self.at).as_secs_f64();
        (shown + self.origin).as_nanos_f64() + self.offset_ns() + self.rate_ppb() * since_s
    }

    /// Standard deviation of the offset as predicted for `now`, nanoseconds.
    pub(super) fn sigma_ns(&self, now: Time<Free>) -> f64 {
        let dt = (now - self.at).as_secs_f64().max(0.0);
        let mean = self.offset_ns();
        let variance: f64 = (0..3)
            .map(|i| {
                let filter = &self.filters[i];
                let apart = filter.x[0] - mean;
                let offset = filter.predicted_variance(dt, WANDER[self.level(i)]);
                self.weights[i] * (offset + apart * apart)
            })
            .sum();
        variance.max(0.0).sqrt()
    }

    /// Takes in an observation. Returns what it was to the middle filter.
    pub(super) fn observe(&mut self, observation: &Observation) -> Seen {
        let dt = (observation.at - self.at).as_secs_f64();
        if dt > 0.0 {
            for i in 0..self.filters.len() {
                let q = WANDER[self.level(i)];
                self.filters[i].predict(dt, q);
            }
            self.at = observation.at;
        }
        // An answer that comes after a later Sync is about the past.
        let (h, value) = observation.row(dt.min(0.0), self.origin);
        let way = observation.way as usize;
        let priors = [0, 1].map(|belief| self.noise[belief][way].prior());
        let seen = core::array::from_fn::<Seen, 4, _>(|i| {
            let belief = usize::from(i == CHALLENGER);
            let filter = &mut self.filters[i];
            let seen = filter.absorb(&h, value, &priors[belief]);
            filter.score += seen.posterior.ln_evidence - filter.score / COMPARED;
            seen
        });
        for (belief, i) in [(0, 1), (1, CHALLENGER)] {
            let Seen { mean, variance, posterior, .. } = &seen[i];
            self.noise[belief][way].learn(value, *mean, *variance, posterior);
        }
        let middle = seen[1];
        if observation.way != Way::Peer {
            self.residuals[way][self.seen[way] % AFRESH] = middle.residual;
            self.seen[way] += 1;
        }
        for [forward, backward, _] in &mut self.noise {
            forward.reconcile(backward);
        }
        self.compare();
        self.weigh();
        self.rebase();
        middle
    }

    /// Moves the three filters to where the best of them is in the middle.
    fn compare(&mut self) {
        // What was worse for long must not take as long to be believed once it is better.
        let best = self.filters.iter().map(|filter| filter.score).fold(f64::MIN, f64::max);
        for filter in &mut self.filters {
            filter.score = filter.score.max(best - BEHIND) - best;
        }
        let [a, b, c, challenger] = &self.filters;
        let is_hopeless = challenger.score <= 0.9 * -BEHIND && !self.is_in_question;
        if is_hopeless && !self.wanders() && self.seen.iter().all(|seen| *seen >= AFRESH) {
            self.challenge();
        } else if challenger.score - a.score.max(b.score).max(c.score) > SWAP_AT {
            self.filters = [*challenger, *challenger, *challenger, *b];
            self.filters[0].score -= MOVE_AT;
            self.filters[2].score -= MOVE_AT;
            self.noise.swap(0, 1);
        } else if c.score - b.score > MOVE_AT && self.level + 2 < self.own_levels {
            self.level += 1;
            self.filters = [*b, *c, *c, *challenger];
            self.filters[2].score -= MOVE_AT;
        } else if a.score - b.score > MOVE_AT && self.level > 1 {
            self.level -= 1;
            self.filters = [*a, *a, *b, *challenger];
            self.filters[0].score -= MOVE_AT;
        }
    }

    /// Puts another belief in the place of a challenger that has no prospects: expectation-maximisation
    /// only climbs the hill on which it stands, and the first packets may have put it on a wrong one.
    /// What the noise and the edges of the last packets look like by themselves is the new belief. Not where the
    /// frequency wanders: what that does to packets would look like noise.
    fn challenge(&mut self) {
        let (is_sharp, afresh) = CHALLENGES[self.challenge];
        self.challenge = (self.challenge + 1) % CHALLENGES.len();
        self.seen = [0; 2];
        let mut filter = self.filters[1];
        self.noise[1] = self.noise[0];
        for way in [Way::Forward, Way::Backward] {
            if !afresh[way as usize] {
                continue;
            }
            let mut residuals = self.residuals[way as usize];
            let least = residuals.iter().copied().fold(f64::INFINITY, f64::min);
            for residual in &mut residuals {
                *residual -= least;
            }
            let sharp = Noise::sharp(&mut residuals);
            let count = AFRESH as f64;
            let (noise, above) = if is_sharp {
                (sharp, -sharp.fast_ns / count)
            } else {
                Noise::soft(&residuals, &sharp)
            };
            // Whoever has many packets before the edge has put it on a slow mode of several.
            let early = above - 3.0 * noise.variance_ns2.sqrt();
            let before = residuals.iter().filter(|excess| **excess < early).count();
            if before as f64 > MOST_BEFORE * count {
                continue;
            }
            let by = least + above;
            let believed = self.noise[0][way as usize];
            let is_far = by.abs() > NOISE_MOVES * (believed.fast_ns + believed.variance_ns2.sqrt());
            // But a faster mode that was there all along may be far away.
            let is_mode = by < 0.0 && noise.has_two_modes() && !believed.has_two_modes();
            if is_far && !is_mode {
                continue;
            }
            self.noise[1][way as usize] = noise;
            // The difference between the floors cannot be seen and stays: half of the move is time, half
            // is what both floors share.
            let sign = if way == Way::Forward { 0.5 } else { -0.5 };
            filter.open(&[sign, 0.0, 0.5, 0.5], by, noise.edge_variance_ns2(count));
        }
        filter.score = -HANDICAP;
        self.filters[CHALLENGER] = filter;
    }

    /// Keeps the numbers small.
    fn rebase(&mut self) {
        let by = self.filters[1].x[0];
        if by.abs() > 1e7 && by.abs() < 1e18 {
            let by = by.round();
            self.origin += Duration::from_nanos_f64(by);
            for filter in &mut self.filters {
                filter.x[0] -= by;
            }
        }
    }
}
