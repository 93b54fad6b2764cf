//! The estimate: filters for as long as the model holds, suspicion of every packet, judgement among
//! hypotheses when it does not hold, and for a while after a judgement an eye on the runner-up.

use super::{
    bank::Bank,
    change::{self, Hypothesis, Kind, Known},
    confirmation::Fit,
    detect::{Detector, Oddity},
    filter::{Filter, Observation, WAYS, Way},
    history::History,
    noise::Noise,
    routes::Routes,
};
use crate::math;
#[cfg(target_os = "none")]
use crate::math::Float as _;
use crate::prelude::*;
use ptp_common::time::{Duration, Free, Time};

/// Packets of each direction since a change before it is judged.
const EACH: usize = 3;
const EACH_IF_CERTAIN: usize = 2;
const CERTAIN: f64 = 16.0;
const EACH_IF_OBVIOUS: usize = 1;
const OBVIOUS: f64 = 24.0;
const EACH_WITHOUT_HURRY: usize = 6;
/// A suspicion is looked at again after this part of its age.
const AGAIN: u64 = 4;
/// That nothing has changed is believed sooner from so many packets on.
const AT_ONCE: u64 = 8;
/// Log evidence by which the best hypothesis must be ahead while there is time ...
const LEAD: f64 = 8.0;
/// ... which there is for so many packets; then half of it will do, and after twice as many the best wins.
const PATIENCE: u64 = 48;
/// Log probability below which a late packet leaves open whether time has stepped, until the next one.
const INEXPLICABLE: f64 = -12.0;
/// Where stamps lie now and then, some lie in a row by chance: so improbable must it be that they did,
const LN_BY_CHANCE: f64 = -14.0;
/// with the share of them that was seen, within these limits, over so many packets.
const WILD_SHARE: (f64, f64) = (1e-3, 0.5);
const WILD_MEMORY: f64 = 256.0;
/// Log probability below which a late packet is odd.
const UNUSUAL: f64 = -3.0;
/// Odd packets in a row that may be a second change while a first one is in question.
const SECOND: u64 = 8;
/// Observations after which what is believed since a change is known.
const SETTLED: u64 = 64;
/// How uncertain the time is after it was moved because a route is known, as a share of the move.
const ROUTE_SHARE: f64 = 0.1;
/// Standard deviations of the offset that an impossible estimate may be wrong by itself.
const OWN_ERROR_SIGMAS: f64 = 3.0;
/// Observations before a suspicion below which a belief is young: it is likelier wrong itself than refuted by
/// a change.
const YOUNG: u64 = 96;

/// Something that may have changed, since which observation, and when to look at it again.
#[derive(Clone, Copy, Debug)]
struct Suspicion {
    since: u64,
    opened: u64,
    again: u64,
    /// It was looked at, and nothing seemed to be the matter: before its time it is looked at again only if
    /// something odd comes.
    is_calm: bool,
    /// Observations in a row that must say that time has stepped.
    run: u64,
    /// The longest row of odd ones so far: what is believed bends after a step that is no larger than its noise, and those
    /// that come later are no longer odd.
    longest: Row,
}

/// Odd observations in a row: from which number on, and up to which.
#[derive(Clone, Copy, Debug, Default)]
struct Row {
    from: u64,
    to: u64,
}

impl Row {
    /// How many of them are not before `number`.
    fn since(self, number: u64) -> u64 {
        self.to.saturating_sub(self.from.max(number))
    }
}

/// A change that was judged to have happened.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Change {
    pub(super) kind: Kind,
    /// When, as far as is known.
    pub(super) at: Time<Free>,
    /// By how much the offset is another now than it would have been, nanoseconds.
    pub(super) offset_ns: f64,
}

impl Change {
    /// Whether it was the time that stepped.
    pub(super) const fn is_of_time(&self) -> bool {
        self.kind.is_of_time()
    }

    /// Whether the frequency is another one.
    pub(super) const fn is_of_rate(&self) -> bool {
        matches!(self.kind, Kind::Rate | Kind::TimeAndRate | Kind::Wander)
    }
}

/// A judgement, and what it was made of: to be made again when there is more.
#[derive(Clone, Debug)]
struct Judged {
    history: History,
    since: u64,
    kind: Kind,
}

/// The estimator.
#[derive(Clone, Debug)]
pub(super) struct Estimator {
    bank: Bank,
    history: History,
    detector: Detector,
    suspicion: Option<Suspicion>,
    /// The latest change, while it can still be judged again.
    judged: Option<Judged>,
    change: Option<Change>,
    known: Known,
    routes: Routes,
    /// Share of packets that nothing explains.
    wild_share: f64,
    odd_in_a_row: u64,
    /// Observations since the last change.
    settled: u64,
    /// Nothing has been judged to have changed so far.
    is_first: bool,
    /// The latest packet of each direction, where it was one that nothing explains.
    doubted: [Option<Time<Free>>; 2],
    /// Since when something was in question last, and until when: a second change may have come meanwhile.
    questioned: Option<[Time<Free>; 2]>,
    /// The packet before the latest of each direction, and the latest.
    latest: [[Option<Time<Free>>; 2]; 2],
}

impl Estimator {
    pub(super) fn new(
        origin: Duration,
        at: Time<Free>,
        beliefs: [(Filter, [Noise; WAYS]); 2],
        wander: Option<f64>,
        before: Option<&Self>,
    ) -> Self {
        // Where stamps lie behind the wire, delays may seem to be negative from the start.
        let filter = &beliefs[0].0;
        let floor = filter.x[2].min(filter.x[3]) - 4.0 * filter.p[2][2].max(filter.p[3][3]).sqrt();
        Self {
            bank: Bank::new(origin, at, beliefs, wander, before.map(|before| &before.bank)),
            history: History::default(),
            detector: Detector::default(),
            suspicion: None,
            judged: None,
            change: None,
            known: Known {
                least_floor_ns: floor.min(0.0),
                round_trip_ns: f64::INFINITY,
                is_young: true,
            },
            routes: Routes::default(),
            wild_share: WILD_SHARE.0,
            odd_in_a_row: 0,
            settled: 0,
            is_first: true,
            doubted: [None; 2],
            questioned: None,
            latest: [[None; 2]; 2],
        }
    }

    /// Whether the frequency wanders by more than that of any oscillator.
    pub(super) const fn wanders(&self) -> bool {
        self.bank.wanders()
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
    pub(super) fn error_ns(&self, at: Time<Free>, shown: Duration) -> f64 {
        self.bank.error_ns(at, shown)
    }

    /// Free-running minus PTP time at `at`.
    pub(super) fn offset(&self, at: Time<Free>) -> Duration {
        let since_s = (at - self.bank.at()).as_secs_f64();
        let ns = self.bank.offset_ns() + self.bank.rate_ppb() * since_s;
        self.bank.origin() + Duration::from_nanos_f64(ns)
    }

    /// Standard deviation of the offset as predicted for `now`, nanoseconds.
    pub(super) fn sigma_ns(&self, now: Time<Free>) -> f64 {
        self.bank.sigma_ns(now)
    }

    /// The change that was judged since the last call.
    pub(super) const fn take_change(&mut self) -> Option<Change> {
        self.change.take()
    }

    /// Since when something may be different that has not been judged yet.
    pub(super) fn suspected(&self) -> Option<Time<Free>> {
        self.doubted.into_iter().chain([self.in_question()]).flatten().min()
    }

    fn in_question(&self) -> Option<Time<Free>> {
        let suspicion = self.suspicion?;
        self.history.since(suspicion.since).next().map(|observation| observation.at)
    }

    /// Each instant since which something may be different, or was taken for possible lately: a judgement may be wrong
    /// too, and what was seen before it be of another time; and while one change is in question another one may come,
    /// of which only the latest packets tell.
    pub(super) fn doubted(&self) -> impl Iterator<Item = Time<Free>> + Clone + use<> {
        let [forward, backward] = self.doubted;
        let in_question = self.in_question();
        let latest = self.latest.iter().filter_map(|[before, _]| *before).min();
        let latest = latest.filter(|_| in_question.is_some());
        let questioned = self.questioned.into_iter().flatten();
        [forward, backward, in_question, latest].into_iter().flatten().chain(questioned)
    }

    /// The estimate was impossible by `by` nanoseconds. What its own error explains says nothing of how the ways differ, unless
    /// `is_lasting`.
    pub(super) fn clip(&mut self, by: f64, is_lasting: bool) {
        if !is_lasting && by.abs() < OWN_ERROR_SIGMAS * self.bank.sigma_ns(self.bank.at()) {
            self.bank.correct(by);
        } else {
            self.bank.shift(by, by);
        }
    }

    /// Takes in an observation: free-running minus PTP time for [`Way::Forward`], the reverse for
    /// [`Way::Backward`], a delay for [`Way::Peer`].
    pub(super) fn observe(&mut self, way: Way, at: Time<Free>, value: Duration) -> Fit {
        let observation = Observation { way, at, value };
        let number = self.history.push(observation, &self.bank);
        let noise = self.bank.noise()[way as usize];
        let seen = self.bank.observe(&observation);
        if let Some(judged) = &mut self.judged {
            judged.history.extend(observation);
            if !judged.history.reaches(judged.since) {
                self.judged = None;
            }
        }
        let oddity = Oddity::of(&seen, &noise);
        if way != Way::Peer {
            let is_odd = oddity.is_early || oddity.ln_later < INEXPLICABLE;
            let doubted = &mut self.doubted[way as usize];
            *doubted = if is_odd { doubted.or(Some(at)) } else { None };
            let [before, latest] = &mut self.latest[way as usize];
            *before = latest.replace(at);
        }
        self.settled += 1;
        if self.settled >= SETTLED && self.suspicion.is_none() {
            let round_trip_ns = 2.0 * self.bank.delay_ns();
            self.known.round_trip_ns = self.known.round_trip_ns.min(round_trip_ns);
            if self.settled.is_multiple_of(SETTLED) {
                self.routes.learn(self.bank.middle());
            }
        }
        if self.settled.is_multiple_of(SETTLED) && !self.is_first {
            self.recognise();
        }
        let is_odd = oddity.is_early || oddity.is_wild || oddity.ln_later < UNUSUAL;
        self.odd_in_a_row = if is_odd { self.odd_in_a_row + 1 } else { 0 };
        let row = self.row();
        if let Some(suspicion) = &mut self.suspicion
            && row.since(suspicion.since) > suspicion.longest.since(suspicion.since)
        {
            suspicion.longest = row;
        }
        if self.suspicion.is_none() {
            let is_apart = oddity.is_wild || oddity.ln_later < INEXPLICABLE;
            self.wild_share += (f64::from(is_apart) - self.wild_share) / WILD_MEMORY;
            self.wild_share = self.wild_share.clamp(WILD_SHARE.0, WILD_SHARE.1);
        }
        let since = self.detector.push(number, way, &seen, &oddity, &noise);
        if self.suspicion.is_none()
            && let Some(since) = since
        {
            let run = (LN_BY_CHANCE / math::ln(self.wild_share)).ceil() as u64;
            let (opened, again) = (number, number);
            let longest = self.row();
            self.suspicion = Some(Suspicion { since, opened, again, is_calm: false, run, longest });
            self.bank.is_in_question = true;
        }
        if let Some(suspicion) = self.suspicion
            && (number >= suspicion.again || suspicion.is_calm && is_odd)
        {
            self.judge(number, suspicion);
        }
        if oddity.is_early || oddity.is_wild { Fit::Contradicts } else { Fit::Agrees }
    }

    fn judge(&mut self, number: u64, suspicion: Suspicion) {
        let Suspicion { since, opened, run, .. } = suspicion;
        let age = number - opened;
        let is_final = age >= 2 * PATIENCE;
        if self.history.oldest().is_none_or(|(at, _)| *at > since) {
            // Too long ago to be judged.
            self.dismiss();
            return;
        }
        if self.fewest_since(since) == 0 {
            // One way alone cannot tell what has changed.
            return;
        }
        let before = self.settled.saturating_sub(self.history.next() - since);
        self.known.is_young = self.is_first && before < YOUNG;
        let lead = change::lead_of_nothing(&self.history, since, self.known).unwrap_or(0.0);
        if lead > 0.5 * LEAD && age >= AT_ONCE {
            self.dismiss();
            return;
        }
        if lead > 0.0 && age < PATIENCE {
            let is_calm = lead > 0.5 * LEAD;
            let again = if is_calm { opened + AT_ONCE } else { number + 1 + age / AGAIN };
            self.suspicion = Some(Suspicion { again, is_calm, ..suspicion });
            return;
        }
        let hypotheses = change::hypotheses(&self.history, since, self.known);
        let Some(best) = hypotheses.first() else {
            self.dismiss();
            return;
        };
        let second = change::runner_up(&hypotheses);
        let lead = second.map_or(f64::INFINITY, |second| best.ln_evidence - second.ln_evidence);
        let is_nothing =
            best.kind == Kind::Nothing && best.opening.noise.iter().all(Option::is_none);
        let needed = match age {
            _ if is_final => 0.0,
            age if age >= PATIENCE || (is_nothing && age >= AT_ONCE) => 0.5 * LEAD,
            _ if self.known.is_young => 2.0 * LEAD,
            _ => LEAD,
        };
        let each = match best.kind {
            // What does not move the time is in no hurry.
            kind if !kind.is_of_time_or_rate() => EACH_WITHOUT_HURRY,
            _ if lead > OBVIOUS => EACH_IF_OBVIOUS,
            _ if lead > CERTAIN => EACH_IF_CERTAIN,
            _ => EACH,
        };
        // Where stamps lie, others agree with what was believed before.
        let row = self.row().since(best.since).max(suspicion.longest.since(best.since));
        let is_chance = best.kind.is_of_time() && row < run;
        if (lead < needed || is_chance || self.fewest_since(best.since) < each) && !is_final {
            let again = number + 1 + age / AGAIN;
            let since = self.second_change(since, run).unwrap_or(since);
            self.suspicion = Some(Suspicion { since, again, is_calm: false, ..suspicion });
            return;
        }
        if is_nothing {
            self.dismiss();
            return;
        }
        let best = best.clone();
        match self.otherwise(&best, &hypotheses) {
            Some((history, other)) => {
                self.history = history;
                self.adopt(&other);
            }
            None => self.adopt(&best),
        }
    }

    /// Whether what has happened is better explained by another judgement of the change before than by `best`
    /// on top of it.
    fn otherwise(
        &self,
        best: &Hypothesis,
        hypotheses: &[Hypothesis],
    ) -> Option<(History, Hypothesis)> {
        let judged = self.judged.as_ref()?;
        let again = change::hypotheses(&judged.history, judged.since, self.known);
        let other = again.first()?;
        let before = again.iter().find(|hypothesis| hypothesis.kind == judged.kind)?;
        let nothing = hypotheses.iter().find(|hypothesis| hypothesis.kind == Kind::Nothing);
        let gained =
            nothing.map_or(f64::INFINITY, |nothing| best.ln_evidence - nothing.ln_evidence);
        let is_better =
            other.kind != judged.kind && other.ln_evidence > before.ln_evidence + gained;
        is_better.then(|| (judged.history.clone(), other.clone()))
    }

    /// Odd packets in a row up to the latest.
    fn row(&self) -> Row {
        let to = self.history.next();
        Row { from: to.saturating_sub(self.odd_in_a_row), to }
    }

    /// Where two things have happened one after the other, no change explains both: when the second was, if every
    /// packet since then is odd and those before it were not.
    fn second_change(&self, since: u64, run: u64) -> Option<u64> {
        let at = self.history.next() - self.odd_in_a_row.min(self.history.next());
        let is_clear = self.odd_in_a_row >= run.max(SECOND);
        (at > since && is_clear && self.fewest_since(at) >= EACH).then_some(at)
    }

    /// Packets since `number` of the direction with fewer of them.
    fn fewest_since(&self, number: u64) -> usize {
        let mut counts = [0; 2];
        for observation in self.history.since(number) {
            counts[usize::from(observation.way != Way::Forward)] += 1;
        }
        counts[0].min(counts[1])
    }

    /// A route that has been seen before is as uneven as it was then: what packets of one direction alone cannot
    /// tell, for they look the same whether time or the route is another.
    fn recognise(&mut self) {
        if let Some(by) = self.routes.unlike(self.bank.middle()) {
            tracing::debug!(by, "back on a route that is known");
            self.bank.shift(by, ROUTE_SHARE * by);
        }
    }

    fn dismiss(&mut self) {
        if let Some(suspicion) = self.suspicion.take() {
            let since = self.history.since(suspicion.since).next();
            if let Some(since) = since {
                self.questioned = Some([since.at, self.bank.at()]);
            }
        }
        self.detector = Detector::default();
        self.bank.is_in_question = false;
    }

    /// What has been seen since the change is seen again, with what is now believed of it.
    fn adopt(&mut self, hypothesis: &Hypothesis) {
        let since = hypothesis.since;
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
        self.judged = Some(Judged { history: self.history.clone(), since, kind: hypothesis.kind });
        self.history.forget_before(since);
        let again: Vec<Observation> = self.history.since(since).copied().collect();
        for (number, observation) in (since..).zip(&again) {
            self.history.believe(number, &self.bank);
            self.bank.observe(observation);
        }
        self.dismiss();
        self.settled = 0;
        self.is_first = false;
        if !hypothesis.kind.is_of_time_or_rate() {
            self.recognise();
        }
        let at = again.first().map_or(now, |first| first.at);
        let offset_ns = self.bank.offset_above(&would_be);
        tracing::debug!(kind = ?hypothesis.kind, noise = ?hypothesis.opening.noise.map(|n| n.is_some()), offset_ns, "judged a change");
        self.change = Some(Change { kind: hypothesis.kind, at, offset_ns });
    }
}
