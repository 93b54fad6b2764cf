//! The estimate: filters for as long as the model holds, suspicion of every packet, judgement among
//! hypotheses when it does not hold, and for a while after a judgement an eye on the runner-up.

use super::{
    bank::Bank,
    change::{self, Hypothesis, Kind},
    confirmation::Fit,
    detect::Detector,
    filter::{Filter, Observation, Seen, WAYS, Way},
    history::History,
    noise::Noise,
};
use ptp_common::time::{Duration, Mono, Time};

/// Packets of each direction since a change before it is judged.
const EACH: usize = 3;
/// A suspicion is looked at again after so many more.
const AGAIN: u64 = 3;
/// Log evidence by which the best hypothesis must be ahead while there is time ...
const LEAD: f64 = 8.0;
/// ... which there is for so many packets; then half of it will do, and after twice as many the best wins.
const PATIENCE: u64 = 48;
/// Packets for which the runner-up is watched after a judgement, and the log evidence at which it was
/// right after all.
const WATCHED: u64 = 1_000;
const OVERTURNED: f64 = 10.0;
/// For so many packets after the first the edges may still be wrong.
const YOUNG: u64 = 256;

/// Something that may have changed, since which observation, and when to look at it again.
#[derive(Clone, Copy, Debug)]
struct Suspicion {
    since: u64,
    opened: u64,
    again: u64,
}

/// A change that was judged to have happened.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Change {
    pub(super) kind: Kind,
    /// When, as far as is known.
    pub(super) at: Time<Mono>,
    /// By how much the offset is another now than it would have been, nanoseconds.
    pub(super) offset_ns: f64,
}

impl Change {
    /// Whether it was the time that stepped.
    pub(super) const fn is_of_time(&self) -> bool {
        matches!(self.kind, Kind::Time | Kind::TimeAndRate)
    }
}

/// The hypothesis that came second.
#[derive(Clone, Debug)]
struct Rival {
    filter: Filter,
    origin: Duration,
    at: Time<Mono>,
    lead: f64,
    until: u64,
}

/// The estimator.
#[derive(Clone, Debug)]
pub(super) struct Estimator {
    bank: Bank,
    history: History,
    detector: Detector,
    suspicion: Option<Suspicion>,
    rival: Option<Rival>,
    change: Option<Change>,
    least_floor: f64,
}

impl Estimator {
    pub(super) fn new(
        origin: Duration,
        at: Time<Mono>,
        beliefs: [(Filter, [Noise; WAYS]); 2],
        before: Option<&Self>,
    ) -> Self {
        // Where stamps lie behind the wire, delays may seem to be negative from the start.
        let filter = &beliefs[0].0;
        let floor = filter.x[2].min(filter.x[3]) - 4.0 * filter.p[2][2].max(filter.p[3][3]).sqrt();
        Self {
            bank: Bank::new(origin, at, beliefs, before.map(|before| &before.bank)),
            history: History::default(),
            detector: Detector::default(),
            suspicion: None,
            rival: None,
            change: None,
            least_floor: floor.min(0.0),
        }
    }

    /// Of the free-running scale, from the origin, nanoseconds.
    pub(super) fn offset_ns(&self) -> f64 {
        self.bank.offset_ns()
    }

    /// What the free-running scale gains on the time transmitter, parts per billion.
    pub(super) fn rate_ppb(&self) -> f64 {
        self.bank.rate_ppb()
    }

    /// How well that is known, standard deviation, parts per billion.
    pub(super) fn rate_sigma_ppb(&self) -> f64 {
        self.bank.middle().p[1][1].sqrt()
    }

    /// The fastest delay, mean of both ways, nanoseconds.
    pub(super) fn delay_ns(&self) -> f64 {
        self.bank.delay_ns()
    }

    /// Error at `at` of a clock that shows `shown` more than the free-running scale, nanoseconds.
    pub(super) fn error_ns(&self, at: Time<Mono>, shown: Duration) -> f64 {
        self.bank.error_ns(at, shown)
    }

    /// Standard deviation of the offset as predicted for `now`, nanoseconds.
    pub(super) fn sigma_ns(&self, now: Time<Mono>) -> f64 {
        self.bank.sigma_ns(now)
    }

    /// The change that was judged since the last call.
    pub(super) const fn take_change(&mut self) -> Option<Change> {
        self.change.take()
    }

    /// When something may have changed that has not been judged yet.
    pub(super) fn suspected(&self) -> Option<Time<Mono>> {
        let suspicion = self.suspicion?;
        self.history.since(suspicion.since).next().map(|observation| observation.at)
    }

    /// The estimate was impossible by `by` nanoseconds.
    pub(super) fn clip(&mut self, by: f64) {
        self.bank.shift(by);
    }

    /// Takes in an observation: free-running minus PTP time for [`Way::Forward`], the reverse for
    /// [`Way::Backward`], a delay for [`Way::Peer`].
    pub(super) fn observe(&mut self, way: Way, at: Time<Mono>, value: Duration) -> Fit {
        let observation = Observation { way, at, value };
        let number = self.history.push(observation, &self.bank);
        let noise = self.bank.noise()[way as usize];
        let seen = self.bank.observe(&observation);
        self.watch_rival(&observation, &seen, &noise);
        let since = self.detector.push(number, way, &seen, &noise);
        if self.suspicion.is_none()
            && let Some(since) = since
        {
            self.suspicion = Some(Suspicion { since, opened: number, again: number });
            self.bank.is_in_question = true;
        }
        if let Some(suspicion) = self.suspicion
            && number >= suspicion.again
        {
            self.judge(number, suspicion);
        }
        let is_apart = seen.posterior.wild > 0.5
            || (seen.residual < 0.0 && seen.posterior.early + seen.posterior.wild > 0.5);
        if is_apart { Fit::Contradicts } else { Fit::Agrees }
    }

    fn judge(&mut self, number: u64, suspicion: Suspicion) {
        let Suspicion { since, opened, .. } = suspicion;
        let mut counts = [0; 2];
        for observation in self.history.since(since) {
            counts[usize::from(observation.way != Way::Forward)] += 1;
        }
        let age = number - opened;
        let waited = number - since;
        let is_final = age >= 2 * PATIENCE;
        if counts.iter().any(|count| *count < EACH) && !is_final {
            return;
        }
        let is_young = since < YOUNG;
        let hypotheses = change::hypotheses(&self.history, since, is_young, self.least_floor);
        let Some(best) = hypotheses.first() else {
            self.dismiss();
            return;
        };
        let second = change::runner_up(&hypotheses);
        let lead = second.map_or(f64::INFINITY, |second| best.ln_evidence - second.ln_evidence);
        let needed = match age {
            _ if is_final => 0.0,
            age if age >= PATIENCE => 0.5 * LEAD,
            _ => LEAD,
        };
        let is_nothing =
            best.kind == Kind::Nothing && best.opening.noise.iter().all(Option::is_none);
        if lead < needed || (is_nothing && waited < 8) {
            self.suspicion = Some(Suspicion { again: number + AGAIN, ..suspicion });
            return;
        }
        if is_nothing {
            self.dismiss();
            return;
        }
        let (best, second) = (best.clone(), second.cloned());
        self.adopt(since, &best);
        self.rival = second.map(|second| Rival {
            filter: second.filter,
            origin: second.origin,
            at: self.bank.at(),
            lead: second.ln_evidence - best.ln_evidence,
            until: number + WATCHED,
        });
    }

    fn dismiss(&mut self) {
        self.suspicion = None;
        self.detector = Detector::default();
        self.bank.is_in_question = false;
    }

    /// What has been seen since the change is seen again, with what is now believed of it.
    fn adopt(&mut self, since: u64, hypothesis: &Hypothesis) {
        let Some((from, bank)) = self.history.before(since).copied() else { return };
        let now = self.bank.at();
        let would_be = self.bank;
        let since = since.max(from);
        let before = usize::try_from(since - from).unwrap_or(0);
        self.bank = bank;
        for observation in self.history.since(from).take(before) {
            self.bank.observe(observation);
        }
        self.bank.open(&hypothesis.opening);
        self.history.forget_before(since);
        let again: Vec<Observation> = self.history.since(since).copied().collect();
        for (number, observation) in (since..).zip(&again) {
            self.history.believe(number, &self.bank);
            self.bank.observe(observation);
        }
        self.dismiss();
        self.rival = None;
        let at = again.first().map_or(now, |first| first.at);
        let offset_ns = self.bank.offset_above(&would_be);
        tracing::debug!(kind = ?hypothesis.kind, noise = ?hypothesis.opening.noise.map(|n| n.is_some()), offset_ns, "judged a change");
        self.change = Some(Change { kind: hypothesis.kind, at, offset_ns });
    }

    fn watch_rival(&mut self, observation: &Observation, seen: &Seen, noise: &Noise) {
        // What has changed since the judgement is no matter between the two.
        let Some(rival) = self.rival.as_mut().filter(|_| self.suspicion.is_none()) else { return };
        let dt = (observation.at - rival.at).as_secs_f64();
        if dt > 0.0 {
            rival.filter.predict(dt, self.bank.wander(0));
            rival.at = observation.at;
        }
        let (h, value) = observation.row(dt.min(0.0), rival.origin);
        let other = rival.filter.absorb(&h, value, &noise.prior());
        rival.lead += other.posterior.ln_evidence - seen.posterior.ln_evidence;
        if rival.lead > OVERTURNED {
            let (filter, origin) = (rival.filter, rival.origin);
            let now = self.bank.at();
            let would_be = self.bank;
            self.bank.replace(&filter, origin);
            let offset_ns = self.bank.offset_above(&would_be);
            let next = self.history.next();
            self.history.forget_before(next);
            self.dismiss();
            self.rival = None;
            tracing::debug!(offset_ns, "a judgement was wrong");
            self.change = Some(Change { kind: Kind::Nothing, at: now, offset_ns });
        } else if self.history.next() > rival.until || rival.lead < -40.0 {
            self.rival = None;
        }
    }
}
