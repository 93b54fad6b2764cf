//! Time, frequency and the two fastest delays, followed by three Kalman filters that differ in how
//! much they let the frequency wander; whichever predicts the packets best is believed, and the
//! three move with it. A fourth believes in another kind of noise, and takes their place when it
//! predicts better than they do.

use super::noise::Noise;
use ptp_common::time::{Duration, Mono, Time};

/// Levels of wander of the frequency: [`LEAST_WANDER`] ppb per root second, and each three times the
/// last.
const LEVELS: usize = 13;
const LEAST_WANDER: f64 = 1.0 / 729.0;
const LEVEL_RATIO: f64 = 3.0;
/// 1 ppb per root second, an ordinary crystal.
const FIRST_LEVEL: usize = 6;
/// Packets over which the filters are compared.
const COMPARED: f64 = 1000.0;
/// Log evidence by which a neighbour must be better for the three to move.
const MOVE_AT: f64 = 1.0;
/// Packets of each direction that are looked at for a change of path.
const RECENT: usize = 8;
/// Standard deviations beyond which a change is one.
const CHANGE_SIGMAS: f64 = 8.0;
/// Log probability of as many late packets below which they are a change.
const LN_CHANGE: f64 = -25.0;
/// Log evidence by which a filter can be behind.
const BEHIND: f64 = 12.0;
/// Log evidence by which the other kind of noise must be better to be believed.
const SWAP_AT: f64 = 4.0;
/// Packets of each direction from which the noise is looked at afresh.
const AFRESH: usize = 64;
/// Log evidence by which a new challenger is behind at the start.
const HANDICAP: f64 = 6.0;
/// By so many times the spread of the noise an edge may be elsewhere than believed: more is no matter of
/// noise, but a change of path or a step, which [`Estimator::judge`] tells apart.
const NOISE_MOVES: f64 = 4.0;
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
/// Wander of the floor that both ways share, ns per root second.
const FLOOR_WANDER: f64 = 0.5;
/// The challenger among the filters.
const CHALLENGER: usize = 3;

/// A kind of observation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// A Sync: offset plus forward delay.
    Forward,
    /// A Delay_Req: backward delay minus offset.
    Backward,
    /// A measured link delay.
    Peer,
}

const WAYS: usize = 3;

/// State: offset and rate of the free-running scale, forward and backward floor.
type Vector = [f64; 4];

#[derive(Clone, Copy, Debug)]
pub(super) struct Filter {
    pub(super) x: Vector,
    pub(super) p: [Vector; 4],
    score: f64,
}

impl Filter {
    pub(super) const fn new(x: Vector, p: [Vector; 4]) -> Self {
        Self { x, p, score: 0.0 }
    }

    /// Variance of the offset after `dt` seconds, with a wander of the frequency of `q` ppb² per second.
    fn predicted_variance(&self, dt: f64, q: f64) -> f64 {
        let p = &self.p;
        p[0][0] + (dt * (2.0 * p[0][1] + dt * p[1][1]) + q * dt * dt * dt / 3.0)
    }

    fn predict(&mut self, dt: f64, q: f64) {
        self.x[0] += self.x[1] * dt;
        self.p[0][0] = self.predicted_variance(dt, q);
        let p = &mut self.p;
        p[0][1] += dt * p[1][1] + q * dt * dt / 2.0;
        p[1][1] += q * dt;
        p[0][2] += dt * p[1][2];
        p[0][3] += dt * p[1][3];
        let floor = FLOOR_WANDER * FLOOR_WANDER * dt;
        p[2][2] += floor;
        p[2][3] += floor;
        p[3][2] += floor;
        p[3][3] += floor;
        p[1][0] = p[0][1];
        p[2][0] = p[0][2];
        p[3][0] = p[0][3];
    }

    fn times(&self, h: &Vector) -> Vector {
        let mut ph = [0.0; 4];
        for (ph, row) in ph.iter_mut().zip(&self.p) {
            *ph = dot(row, h);
        }
        ph
    }

    /// Takes in that the quantity along `ph` (the covariance with it), of variance `variance`, moved
    /// by `by` and is now of variance `after`.
    fn update(&mut self, ph: &Vector, variance: f64, by: f64, after: f64) {
        let gain = 1.0 / variance;
        let shrink = (1.0 - after * gain) * gain;
        let moved = by * gain;
        for i in 0..4 {
            self.x[i] += ph[i] * moved;
            let shrunk = shrink * ph[i];
            for (j, ph) in ph.iter().enumerate().skip(i) {
                self.p[i][j] -= shrunk * ph;
                self.p[j][i] = self.p[i][j];
            }
        }
        // Rounding must not make a variance negative.
        for i in 0..4 {
            self.p[i][i] = self.p[i][i].max(1e-9);
        }
    }
}

fn dot(a: &Vector, b: &Vector) -> f64 {
    (a[0] * b[0] + a[1] * b[1]) + (a[2] * b[2] + a[3] * b[3])
}

/// Recent packets of one direction relative to where the edge was believed to be.
#[derive(Clone, Copy, Debug)]
struct Recent {
    residuals: [f64; RECENT],
    wild: [bool; RECENT],
    next: usize,
    count: usize,
    sigma: f64,
}

impl Recent {
    const NEW: Self =
        Self { residuals: [0.0; RECENT], wild: [false; RECENT], next: 0, count: 0, sigma: 0.0 };

    fn push(&mut self, residual: f64, wild: bool, sigma: f64) {
        self.residuals[self.next] = residual;
        self.wild[self.next] = wild;
        self.next = (self.next + 1) % RECENT;
        self.count += 1;
        self.sigma = sigma;
    }

    /// How far the edge seems to have moved, if it has.
    fn moved(&self, noise: &Noise) -> Option<f64> {
        if self.count < RECENT {
            return None;
        }
        let early = self
            .wild
            .iter()
            .zip(&self.residuals)
            .filter(|(wild, residual)| **wild && **residual < 0.0)
            .count();
        let least = self.residuals.iter().copied().fold(f64::INFINITY, f64::min);
        let excess = least - CHANGE_SIGMAS * self.sigma;
        let is_late = excess > 0.0 && RECENT as f64 * noise.ln_later(excess) < LN_CHANGE;
        (is_late || early > RECENT / 2).then_some(least)
    }
}

/// The estimator.
#[derive(Clone, Copy, Debug)]
pub(super) struct Estimator {
    /// What the offset in the states counts from.
    origin: Duration,
    at: Time<Mono>,
    /// Wander level of the middle filter.
    level: usize,
    filters: [Filter; 4],
    /// How much each of the three is believed, by their scores.
    weights: [f64; 3],
    /// As the three believe, and as the challenger does.
    noise: [[Noise; WAYS]; 2],
    recent: [Recent; 2],
    /// Residuals of each direction, the latest overwriting the oldest, and how many there are since the
    /// last challenger came.
    residuals: [[f64; AFRESH]; 2],
    seen: [usize; 2],
    /// Of the next challenger, in [`CHALLENGES`].
    challenge: usize,
    /// Packets to wait for before a suspected change is judged.
    suspicion: Option<u8>,
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

impl Estimator {
    pub(super) fn new(
        origin: Duration,
        at: Time<Mono>,
        beliefs: [(Filter, [Noise; WAYS]); 2],
        before: Option<Self>,
    ) -> Self {
        let [(filter, noise), (challenger, other_noise)] = beliefs;
        Self {
            origin,
            at,
            level: before.map_or(FIRST_LEVEL, |before| before.level),
            filters: [filter, filter, filter, challenger],
            weights: [1.0 / 3.0; 3],
            noise: [noise, other_noise],
            recent: [Recent::NEW; 2],
            residuals: [[0.0; AFRESH]; 2],
            seen: [0; 2],
            challenge: 0,
            suspicion: None,
        }
    }

    fn level(&self, filter: usize) -> usize {
        if filter == CHALLENGER { self.level } else { self.level + filter - 1 }
    }

    fn weigh(&mut self) {
        let scores = [0, 1, 2].map(|i| self.filters[i].score);
        let top = scores.into_iter().fold(f64::MIN, f64::max);
        let weights = scores.map(|score| (score - top).exp());
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

    /// Half of the difference between the ways that changes of path have brought, nanoseconds.
    pub(super) fn asymmetry_ns(&self) -> f64 {
        self.mixed(|filter| 0.5 * (filter.x[2] - filter.x[3]))
    }

    /// Error at `at` of a clock that shows `shown` more than the free-running scale, nanoseconds.
    pub(super) fn error_ns(&self, at: Time<Mono>, shown: Duration) -> f64 {
        let since_s = (at - self.at).as_secs_f64();
        (shown + self.origin).as_nanos_f64() + self.offset_ns() + self.rate_ppb() * since_s
    }

    /// Standard deviation of the offset as predicted for `now`, nanoseconds.
    pub(super) fn sigma_ns(&self, now: Time<Mono>) -> f64 {
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

    /// Takes in an observation: free-running minus PTP time for [`Way::Forward`], the reverse for
    /// [`Way::Backward`], a delay for [`Way::Peer`].
    pub(super) fn observe(&mut self, way: Way, at: Time<Mono>, value: Duration) {
        let dt = (at - self.at).as_secs_f64();
        if dt > 0.0 {
            for i in 0..self.filters.len() {
                let q = WANDER[self.level(i)];
                self.filters[i].predict(dt, q);
            }
            self.at = at;
        }
        // An answer that comes after a later Sync is about the past.
        let back = dt.min(0.0);
        let (h, value) = match way {
            Way::Forward => ([1.0, back, 1.0, 0.0], (value - self.origin).as_nanos_f64()),
            Way::Backward => ([-1.0, -back, 0.0, 1.0], (value + self.origin).as_nanos_f64()),
            Way::Peer => ([0.0, 0.0, 0.5, 0.5], value.as_nanos_f64()),
        };
        let priors = [0, 1].map(|belief| self.noise[belief][way as usize].prior());
        for i in 0..self.filters.len() {
            let prior = &priors[usize::from(i == CHALLENGER)];
            let filter = &mut self.filters[i];
            let ph = filter.times(&h);
            let mean = dot(&h, &filter.x);
            let variance = dot(&h, &ph).max(0.0) + prior.variance_ns2;
            let seen = prior.posterior(value, mean, variance);
            filter.update(&ph, variance, seen.mean - mean, seen.variance);
            filter.score += seen.ln_evidence - filter.score / COMPARED;
            if i == 1 || i == CHALLENGER {
                let noise = &mut self.noise[usize::from(i == CHALLENGER)][way as usize];
                noise.learn(value, mean, variance, &seen);
            }
            if i == 1 && way != Way::Peer {
                let wild = seen.wild > 0.5;
                self.recent[way as usize].push(value - mean, wild, variance.sqrt());
                let seen = &mut self.seen[way as usize];
                self.residuals[way as usize][*seen % AFRESH] = value - mean;
                *seen += 1;
            }
        }
        for [forward, backward, _] in &mut self.noise {
            forward.reconcile(backward);
        }
        self.compare();
        self.weigh();
        self.suspect();
        self.rebase();
    }

    /// Moves the three filters to where the best of them is in the middle.
    fn compare(&mut self) {
        // What was worse for long must not take as long to be believed once it is better.
        let best = self.filters.iter().map(|filter| filter.score).fold(f64::MIN, f64::max);
        for filter in &mut self.filters {
            filter.score = filter.score.max(best - BEHIND) - best;
        }
        let [a, b, c, challenger] = &self.filters;
        let is_hopeless = challenger.score <= 0.9 * -BEHIND && self.suspicion.is_none();
        if is_hopeless && self.seen.iter().all(|seen| *seen >= AFRESH) {
            self.challenge();
        } else if challenger.score - a.score.max(b.score).max(c.score) > SWAP_AT {
            self.filters = [*challenger, *challenger, *challenger, *b];
            self.filters[0].score -= MOVE_AT;
            self.filters[2].score -= MOVE_AT;
            self.noise.swap(0, 1);
        } else if c.score - b.score > MOVE_AT && self.level + 2 < LEVELS {
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
    /// What the noise and the edges of the last packets look like by themselves is the new belief.
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
            let by = least + above;
            let believed = self.noise[0][way as usize];
            if by.abs() > NOISE_MOVES * (believed.fast_ns + believed.variance_ns2.sqrt()) {
                continue;
            }
            self.noise[1][way as usize] = noise;
            // The difference between the floors cannot be seen and stays: half of the move is time, half
            // is what both floors share.
            let sign = if way == Way::Forward { 0.5 } else { -0.5 };
            let along = [sign, 0.0, 0.5, 0.5];
            let variance = noise.edge_variance_ns2(count);
            for i in 0..4 {
                filter.x[i] += along[i] * by;
                for j in 0..4 {
                    filter.p[i][j] += along[i] * along[j] * variance;
                }
            }
        }
        filter.score = -HANDICAP;
        self.filters[CHALLENGER] = filter;
    }

    /// Looks for changes of path and for steps of a clock.
    fn suspect(&mut self) {
        let moved = [0, 1].map(|way| self.recent[way].moved(&self.noise[0][way]));
        if let Some(wait) = self.suspicion {
            if wait > 0 {
                self.suspicion = Some(wait - 1);
                return;
            }
            self.suspicion = None;
            self.judge(moved);
        } else if moved.iter().any(Option::is_some) {
            // Until both directions have had their say.
            self.suspicion = Some(RECENT as u8 + 2);
        }
    }

    fn judge(&mut self, moved: [Option<f64>; 2]) {
        match moved {
            [Some(forward), Some(backward)] => {
                let size = forward.abs().max(backward.abs());
                if (forward + backward).abs() < 0.25 * size {
                    // The edges moved against each other: time itself has stepped.
                    let step = 0.5 * (forward - backward);
                    let spread = self.spread(0).max(self.spread(1)) + 0.02 * size;
                    for filter in &mut self.filters {
                        filter.x[0] += step;
                        filter.p[0][0] += spread * spread;
                    }
                } else if (forward - backward).abs() < 0.25 * size {
                    // Another path that is as long both ways: what is known of the difference stays.
                    let by = 0.5 * (forward + backward);
                    let spread = self.spread(0).max(self.spread(1)) + 0.1 * size;
                    let v = spread * spread;
                    for filter in &mut self.filters {
                        filter.x[2] += by;
                        filter.x[3] += by;
                        filter.p[2][2] += v;
                        filter.p[3][3] += v;
                        filter.p[2][3] += v;
                        filter.p[3][2] += v;
                    }
                } else {
                    self.move_floor(0, forward);
                    self.move_floor(1, backward);
                }
            }
            [Some(forward), None] => self.move_floor(0, forward),
            [None, Some(backward)] => self.move_floor(1, backward),
            [None, None] => return,
        }
        self.recent = [Recent::NEW; 2];
        self.seen = [0; 2];
    }

    fn spread(&self, way: usize) -> f64 {
        self.noise[0][way].fast_ns + self.recent[way].sigma
    }

    /// One direction took another path: its floor is new, time goes on.
    fn move_floor(&mut self, way: usize, by: f64) {
        let spread = self.spread(way) + 0.1 * by.abs();
        for filter in &mut self.filters {
            filter.x[2 + way] += by;
            filter.p[2 + way][2 + way] += spread * spread;
        }
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
