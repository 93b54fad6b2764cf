//! How requests are sent and which Sync messages are learnt from, by what is truest for the time transmitter
//! that is followed. Half of the difference between both ways is error of time, and nothing that is seen at one
//! end shows it; but where both hosts are alike, so are their paths if they are sent upon alike. A Sync
//! of a software grandmaster leaves on a cold path, a microsecond or two behind its stamp:
//!
//! - `remote`: requests are aimed at the time shortly before a Sync, which warms its path, and only the
//!   Sync messages that were fast are learnt from; the own requests are primed. Both ways are warm,
//!   and the causal interval is the narrowest that there is.
//! - `cold`: where that does not help often enough, the own requests leave unprimed, as cold as the Sync.
//! - `primed`: a grandmaster that is as quick without being asked stamps in hardware, or primes itself: the own
//!   requests are primed, and each Sync counts.
//!
//! Which it is, is found out on the live traffic, from round trips alone, so no clock has to be right:
//! whether a Sync that follows a request is faster than others, and how much Sync messages scatter beside
//! the own primed requests. Everything is decided here from the engine's inputs, so a replay decides alike.

mod evidence;
mod line;
#[cfg(test)]
mod tests;

#[cfg(target_os = "none")]
use crate::math::Float as _;
use crate::prelude::*;
use crate::servo::{DelayInput, SyncInput};
use alloc::collections::VecDeque;
use evidence::Evidence;
use line::Line;
use ptp_common::time::{Duration, Mono, Time};
use serde::{Deserialize, Serialize};

/// Requests remembered.
const REQUESTS: usize = 64;
/// Sync messages remembered.
const SYNCS: usize = 512;
/// How long either is.
const MEMORY: Duration = Duration::from_secs(120);
/// Of each way, before a servo can begin anew with them.
const ENOUGH: usize = 10;
/// Requests that are primed and unprimed in turn before anything is decided.
const TRIAL: u32 = 8;
/// Primed requests that the line of the way back is made of, at the most and at the least.
const LINE: usize = 16;
const LEAST_LINE: usize = 4;
/// Sync messages before anything is decided.
const LEAST_SYNCS: usize = 16;
/// Other verdicts in a row after which the strategy changes.
const PERSISTENT: u32 = 4;
/// A Sync that left so shortly after a request arrived may have been warmed by it,
const WARMED: f64 = 2e6;
/// and one that left so long after it has not, nanoseconds.
const COOLED: f64 = 15e6;
/// What scatters less than this is quiet, nanoseconds,
const QUIET_NS: f64 = 150.0;
/// or no more than this many times as much as the own requests.
const QUIET_FACTOR: f64 = 3.0;
/// Within this share of the distance from the fastest to the usual Sync one is fast,
const FAST_SHARE: f64 = 0.3;
/// but within no less and no more than this, nanoseconds.
const FAST_NS: (f64, f64) = (100.0, 1_000.0);
/// Fast Sync messages that must be left of [`ENOUGH`] for `remote` to go on.
const STILL_FAST: usize = 3;

/// What `--strategy` takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Choice {
    /// Whatever is truest for the grandmaster that is followed.
    Auto,
    /// Prime where it makes the own path faster, and learn from each message.
    #[default]
    Plain,
    /// Prime each request.
    Primed,
    /// Prime no request, as a software grandmaster primes no Sync.
    Cold,
    /// Send requests shortly before a Sync is due, and learn from the Sync messages that were fast.
    Remote,
}

impl Choice {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Auto, Self::Plain, Self::Primed, Self::Cold, Self::Remote];

    /// The name, as `--strategy` takes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Plain => "plain",
            Self::Primed => "primed",
            Self::Cold => "cold",
            Self::Remote => "remote",
        }
    }
}

/// What is done at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// As [`Choice::Plain`].
    Plain,
    /// Not decided yet.
    Trial,
    /// As [`Choice::Primed`].
    Primed,
    /// As [`Choice::Cold`].
    Cold,
    /// As [`Choice::Remote`].
    Remote,
}

impl Strategy {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Plain, Self::Trial, Self::Primed, Self::Cold, Self::Remote];

    /// The name in samples and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Trial => "trial",
            Self::Primed => "primed",
            Self::Cold => "cold",
            Self::Remote => "remote",
        }
    }
}

/// Which requests are to be primed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priming {
    /// That is for whoever sends them to find out.
    Free,
    /// Every other one.
    Alternate,
    /// All.
    Always,
    /// None.
    Never,
}

/// What is to be made of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// The servo learns from it.
    Learn,
    /// It bounds the time by causality, as every message does, and no more.
    Bound,
}

/// What has been measured; for logs, status and metrics. All in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Findings {
    /// By how much a Sync is faster after a request, median; `null` before both kinds have been seen.
    pub remote_priming_ns: Option<f64>,
    /// By how much the own requests are faster with priming, median.
    pub own_priming_ns: Option<f64>,
    /// The fastest round trip, primed.
    pub round_trip_ns: Option<f64>,
    /// By how much the usual Sync is slower than the fastest.
    pub sync_noise_ns: Option<f64>,
    /// By how much the usual primed request is slower than the fastest.
    pub request_noise_ns: Option<f64>,
    /// Whether a request makes the next Sync faster; `null` while it is not certain.
    pub is_primeable: Option<bool>,
}

/// The strategy is another one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Change {
    /// Before.
    pub from: Strategy,
    /// Now.
    pub to: Strategy,
    /// Why.
    pub findings: Findings,
}

#[derive(Clone, Copy, Debug)]
struct Request {
    input: DelayInput,
    primed: bool,
    /// `t4 - t3`, from an origin, ns.
    back_ns: f64,
}

#[derive(Clone, Copy, Debug)]
struct Sync {
    input: SyncInput,
    /// Round trip with the fastest primed request of that time, ns; `None` before one is known.
    round_ns: Option<f64>,
    /// From the arrival of the last request there to the departure of this Sync, ns.
    lead_ns: Option<f64>,
    is_judged: bool,
}

/// See the module's paragraph.
#[derive(Debug)]
pub struct Strategist {
    choice: Choice,
    strategy: Strategy,
    origin: Option<Duration>,
    requests: VecDeque<Request>,
    syncs: VecDeque<Sync>,
    asked: u32,
    line: Option<Line>,
    evidence: Evidence,
    /// Another verdict than the present strategy, and how often in a row.
    other: Option<(Strategy, u32)>,
    /// A Sync is fast up to this round trip, ns.
    fast_ns: Option<f64>,
    findings: Findings,
    change: Option<Change>,
}

impl Strategist {
    /// With nothing known.
    pub fn new(choice: Choice) -> Self {
        Self {
            choice,
            strategy: match choice {
                Choice::Auto => Strategy::Trial,
                Choice::Plain => Strategy::Plain,
                Choice::Primed => Strategy::Primed,
                Choice::Cold => Strategy::Cold,
                Choice::Remote => Strategy::Remote,
            },
            origin: None,
            requests: VecDeque::new(),
            syncs: VecDeque::new(),
            asked: 0,
            line: None,
            evidence: Evidence::default(),
            other: None,
            fast_ns: None,
            findings: Findings::default(),
            change: None,
        }
    }

    /// Another grandmaster, or another path: what was found out is of no use.
    pub fn clear(&mut self) {
        *self = Self::new(self.choice);
    }

    /// What is done at present.
    pub const fn strategy(&self) -> Strategy {
        self.strategy
    }

    /// What has been measured.
    pub const fn findings(&self) -> Findings {
        self.findings
    }

    /// Whether requests are to be aimed.
    pub const fn is_aiming(&self) -> bool {
        match self.choice {
            Choice::Plain | Choice::Primed | Choice::Cold => false,
            Choice::Remote => true,
            Choice::Auto => !matches!(self.findings.is_primeable, Some(false)),
        }
    }

    /// Which requests are to be primed.
    pub const fn priming(&self) -> Priming {
        match self.strategy {
            Strategy::Plain => Priming::Free,
            Strategy::Primed | Strategy::Remote => Priming::Always,
            // Both kinds are needed to compare them, and the primed ones for the causal interval.
            Strategy::Cold if matches!(self.choice, Choice::Auto) => Priming::Alternate,
            Strategy::Cold => Priming::Never,
            Strategy::Trial => match self.other {
                Some((Strategy::Primed | Strategy::Remote, _)) if self.asked >= TRIAL => {
                    Priming::Always
                }
                _ => Priming::Alternate,
            },
        }
    }

    /// The change of the strategy since the last call; the servo is to begin anew with
    /// [`Self::history`].
    pub fn take_change(&mut self) -> Option<Change> {
        self.change.take()
    }

    /// Takes note of a Sync.
    pub fn sync(&mut self, input: SyncInput) -> Use {
        if self.choice == Choice::Plain {
            return Use::Learn;
        }
        let forward = input.t2.mono.since_epoch() - input.t1.since_epoch();
        let forward_ns = (forward - *self.origin.get_or_insert(forward)).as_nanos_f64();
        let round_ns = self.line.map(|line| forward_ns + line.at(input.t2.mono));
        self.judge_leads(input.t2.mono);
        if self.syncs.len() == SYNCS {
            self.syncs.pop_front();
        }
        self.syncs.push_back(Sync { input, round_ns, lead_ns: None, is_judged: false });
        self.use_of_sync(round_ns)
    }

    /// Takes note of an answered request.
    pub fn delay(&mut self, input: DelayInput, primed: bool) -> Use {
        if self.choice == Choice::Plain {
            return Use::Learn;
        }
        // A Sync sets the origin, so that there is one.
        let Some(origin) = self.origin else { return Use::Learn };
        let back = input.t4.since_epoch() - input.t3.mono.since_epoch();
        let back_ns = (back + origin).as_nanos_f64();
        self.asked = self.asked.saturating_add(1);
        if self.requests.len() == REQUESTS {
            self.requests.pop_front();
        }
        self.requests.push_back(Request { input, primed, back_ns });
        self.forget(input.t3.mono);
        if primed {
            self.draw_line();
        }
        if self.choice == Choice::Auto || self.strategy == Strategy::Remote {
            self.decide();
        }
        self.use_of_request(primed)
    }

    fn use_of_sync(&self, round_ns: Option<f64>) -> Use {
        match (self.strategy, self.fast_ns, round_ns) {
            (Strategy::Remote, Some(fast_ns), Some(round_ns)) if round_ns > fast_ns => Use::Bound,
            _ => Use::Learn,
        }
    }

    fn use_of_request(&self, primed: bool) -> Use {
        let is_like = match self.strategy {
            Strategy::Cold => !primed,
            Strategy::Primed | Strategy::Remote => primed,
            Strategy::Plain | Strategy::Trial => true,
        };
        // Where nothing can be primed, the others are all there is.
        if is_like || !self.requests.iter().any(|request| request.primed != primed) {
            Use::Learn
        } else {
            Use::Bound
        }
    }

    /// What a servo would have learnt from, had the present strategy been in use, in order of time.
    pub fn history(&self) -> Vec<Observed> {
        let syncs = self
            .syncs
            .iter()
            .filter(|sync| self.use_of_sync(sync.round_ns) == Use::Learn)
            .map(|sync| Observed::Sync(sync.input));
        let requests = self
            .requests
            .iter()
            .filter(|request| self.use_of_request(request.primed) == Use::Learn)
            .map(|request| Observed::Delay(request.input));
        let mut history: Vec<Observed> = syncs.chain(requests).collect();
        history.sort_by_key(|observed| observed.at());
        history
    }

    fn forget(&mut self, now: Time<Mono>) {
        let is_old = |at: Time<Mono>| now - at > MEMORY;
        while self.syncs.front().is_some_and(|sync| is_old(sync.input.t2.mono)) {
            self.syncs.pop_front();
        }
        while self.requests.len() > LINE
            && self.requests.front().is_some_and(|request| is_old(request.input.t3.mono))
        {
            self.requests.pop_front();
        }
    }

    fn draw_line(&mut self) {
        let primed = self.requests.iter().rev().filter(|request| request.primed).take(LINE);
        let points: Vec<_> =
            primed.map(|request| (request.input.t3.mono, request.back_ns)).collect();
        let Some(line) = Line::below(&points).filter(|_| points.len() >= LEAST_LINE) else {
            return;
        };
        if self.line.is_none() {
            // What came before there was one.
            for sync in &mut self.syncs {
                let t2 = sync.input.t2.mono;
                let forward = t2.since_epoch() - sync.input.t1.since_epoch();
                let forward_ns = (forward - self.origin.unwrap_or(forward)).as_nanos_f64();
                sync.round_ns = Some(forward_ns + line.at(t2));
            }
        }
        self.line = Some(line);
    }

    /// Which Sync messages followed a request: an answer may come after the Sync that follows it, so
    /// this is done when the next one is there.
    fn judge_leads(&mut self, now: Time<Mono>) {
        let requests = &self.requests;
        let mut hits = Vec::new();
        for at in (0..self.syncs.len()).rev() {
            let sync = &mut self.syncs[at];
            if sync.is_judged || now - sync.input.t2.mono > MEMORY {
                break;
            }
            sync.is_judged = true;
            let t1 = sync.input.t1;
            let leads = requests.iter().map(|request| (t1 - request.input.t4).as_nanos_f64());
            sync.lead_ns = leads.filter(|lead| *lead >= 0.0).reduce(f64::min);
            if let (Some(round_ns), Some(..=WARMED)) = (sync.round_ns, sync.lead_ns) {
                hits.push(round_ns);
            }
        }
        let unasked = || {
            let is_unasked = |sync: &&Sync| sync.lead_ns.is_none_or(|lead| lead > COOLED);
            self.syncs.iter().filter(is_unasked).filter_map(|sync| sync.round_ns)
        };
        for round_ns in hits {
            self.evidence.hit(round_ns, unasked());
        }
    }

    fn decide(&mut self) {
        let Some(verdict) = self.verdict() else { return };
        let times = match self.other {
            Some((other, times)) if other == verdict => times.saturating_add(1),
            _ => 1,
        };
        self.other = Some((verdict, times));
        let needed = if self.strategy == Strategy::Trial { 1 } else { PERSISTENT };
        if verdict == self.strategy || times < needed {
            return;
        }
        let from = core::mem::replace(&mut self.strategy, verdict);
        if verdict != Strategy::Trial && !self.has_enough() {
            self.strategy = from;
            return;
        }
        if verdict == Strategy::Trial {
            self.asked = 0;
            return;
        }
        self.change = Some(Change { from, to: verdict, findings: self.findings });
    }

    /// A servo can begin anew with what the present strategy has.
    fn has_enough(&self) -> bool {
        let history = self.history();
        let syncs = history.iter().filter(|each| matches!(each, Observed::Sync(_))).count();
        syncs >= ENOUGH && history.len() - syncs >= ENOUGH
    }

    /// What would be truest now; `None` while too little is known.
    fn verdict(&mut self) -> Option<Strategy> {
        let back =
            |primed: bool| self.requests.iter().filter(move |request| request.primed == primed);
        let Some(line) = self.line else {
            // Nothing is primed here: an unprimed request is all there is.
            let is_hopeless = self.asked >= TRIAL && back(true).next().is_none();
            return is_hopeless.then_some(Strategy::Cold);
        };
        let excess = |primed: bool| {
            let each = back(primed).map(|request| request.back_ns - line.at(request.input.t3.mono));
            quantile(each.collect(), 0.5)
        };
        let mut rounds: Vec<f64> = self.syncs.iter().filter_map(|sync| sync.round_ns).collect();
        rounds.sort_unstable_by(f64::total_cmp);
        if rounds.len() < LEAST_SYNCS {
            return None;
        }
        // One that is too good to be true is left out.
        let fastest = rounds[rounds.len() / 64];
        let usual = quantile(rounds.clone(), 0.5)?;
        let request_noise = excess(true)?;
        let fast = fastest + ((usual - fastest) * FAST_SHARE).clamp(FAST_NS.0, FAST_NS.1);
        let is_primeable = self.evidence.verdict();
        let (unasked, asked): (Vec<&Sync>, Vec<&Sync>) =
            self.syncs.iter().partition(|sync| sync.lead_ns.is_none_or(|lead| lead > COOLED));
        let round_of = |syncs: Vec<&Sync>, limit_ns: f64| {
            let near = syncs.into_iter().filter(|sync| sync.lead_ns.unwrap_or(0.0) <= limit_ns);
            quantile(near.filter_map(|sync| sync.round_ns).collect(), 0.5)
        };
        let remote = round_of(unasked, f64::INFINITY)
            .zip(round_of(asked, WARMED))
            .map(|(unasked, asked)| unasked - asked);
        self.findings = Findings {
            remote_priming_ns: remote,
            own_priming_ns: excess(false).map(|unprimed| unprimed - request_noise),
            round_trip_ns: Some(fastest),
            sync_noise_ns: Some(usual - fastest),
            request_noise_ns: Some(request_noise),
            is_primeable,
        };
        self.fast_ns = Some(fast);
        let is_remote = self.strategy == Strategy::Remote;
        let quiet_ns = QUIET_NS.max(QUIET_FACTOR * request_noise + 50.0);
        let is_quiet = usual - fastest <= if is_remote { 0.5 * quiet_ns } else { quiet_ns };
        let fast_syncs = rounds.iter().filter(|round| **round <= fast).count();
        tracing::debug!(
            findings = ?self.findings,
            fast_ns = fast,
            fast_syncs,
            syncs = rounds.len(),
            asked = self.asked,
            "strategy"
        );
        let needed = if is_remote { STILL_FAST } else { ENOUGH };
        Some(match is_primeable {
            _ if self.choice == Choice::Remote => Strategy::Remote,
            Some(false) => Strategy::Primed,
            _ if is_quiet => Strategy::Primed,
            _ if fast_syncs >= needed => Strategy::Remote,
            _ if is_remote => Strategy::Trial,
            _ if self.strategy == Strategy::Primed && self.asked > TRIAL * 4 => Strategy::Trial,
            _ => Strategy::Cold,
        })
    }
}

/// An input of the servo.
#[derive(Clone, Copy, Debug)]
pub enum Observed {
    /// A Sync.
    Sync(SyncInput),
    /// A Delay_Req.
    Delay(DelayInput),
}

impl Observed {
    fn at(&self) -> Time<Mono> {
        match self {
            Self::Sync(sync) => sync.t2.mono,
            Self::Delay(delay) => delay.t3.mono,
        }
    }
}

fn quantile(mut values: Vec<f64>, q: f64) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    let last = values.len().checked_sub(1)?;
    values.get((last as f64 * q).round() as usize).copied()
}
