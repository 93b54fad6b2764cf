//! How requests are sent and what is made of Sync messages, by what is truest for the time transmitter that is
//! followed. Half of the difference between both ways is error of time, and nothing that is seen at one end
//! shows it; but of each way the fastest packet is the nearest to what the wire alone takes. The own
//! requests are primed, so that nearly all of them are as fast as they can be. A Sync of a software
//! grandmaster leaves on a cold path, a microsecond or two behind its stamp; one in hundreds does not.
//!
//! - `remote`: requests are aimed at the time shortly before a Sync, which warms its path. What a Sync took more
//!   than the fastest round trip of the last minutes is taken off it: it is known from the requests
//!   around it. The causal interval stays that of the stamps as they were.
//! - `primed`: Sync messages are as quiet as the own requests: the grandmaster stamps in hardware, or primes
//!   itself. Each counts as it is.
//! - `cold`: the own requests are unprimed, as cold as the Sync. Only where it is ordered: hosts are less alike
//!   than that needs.
//!
//! Which it is, is found out on the live traffic, from round trips alone, so no clock has to be right:
//! whether a Sync that follows a request is faster than others, and how much Sync messages scatter beside
//! the own requests. Everything is decided here from the engine's inputs, so a replay decides alike.

mod evidence;
mod least;
mod line;
#[cfg(test)]
mod tests;
mod verdict;

#[cfg(target_os = "none")]
use crate::math::Float as _;
use crate::prelude::*;
use crate::{
    servo::{DelayInput, Observed, SyncInput},
    stamp::Manner,
};
use alloc::collections::VecDeque;
use evidence::Evidence;
use least::Least;
use line::Line;
use ptp_common::time::{Duration, Free, Time};
use serde::{Deserialize, Serialize};

/// Requests remembered.
const REQUESTS: usize = 64;
/// Sync messages remembered.
const SYNCS: usize = 256;
/// Requests that the line of the way back is made of: so many, no older, but at least the latest few.
const LINE: usize = 32;
const LINE_AGE: Duration = Duration::from_secs(32);
const LEAST_LINE: usize = 4;
/// Sync messages before anything is decided.
const LEAST_SYNCS: usize = 16;
/// Requests before a servo can begin anew with them: those that it needs, and one that confirms them;
const ENOUGH: usize = 5;
/// and Sync messages, among which so few requests will do.
const ENOUGH_SYNCS: usize = 33;
/// Other verdicts in a row after which the strategy changes.
const PERSISTENT: u32 = 4;
/// So far apart are two looks at what would be truest, once it was decided: many requests a second tell no more.
const AGAIN: Duration = Duration::from_millis(500);
/// Between two requests that are sent unprimed to see what priming costs, requests; and so many of them are sent.
const PROBE_EVERY: u32 = 4;
const PROBES: usize = 4;
/// Of so many of them at the least the way back must be shorter, by so much, nanoseconds, or by so many times what
/// requests scatter.
const SHORTER: usize = 3;
const SHORTER_NS: f64 = 500.0;
const SHORTER_FACTOR: f64 = 3.0;
/// A Sync that left so shortly after a request arrived may have been warmed by it,
const WARMED: f64 = 2e6;
/// and one that left so long after it has not, nanoseconds.
const COOLED: f64 = 15e6;
/// What scatters less than this is quiet, nanoseconds,
const QUIET_NS: f64 = 400.0;
/// or no more than this many times as much as the own requests.
const QUIET_FACTOR: f64 = 3.0;
/// A fastest round trip that is faster, or slower, than before by this, nanoseconds, or by this share, is
/// another one.
const OTHER_NS: f64 = 50.0;
const OTHER_SHARE: f64 = 0.05;

/// A request that is off the line by more than this, nanoseconds, or by so many times what requests scatter,
/// is of another path, or of a clock that was set, if so many in a row are: above it, and below.
const OFF_NS: f64 = 200.0;
const OFF_FACTOR: f64 = 10.0;
const ABOVE: usize = 6;
const BELOW: usize = 3;

/// What `--strategy` takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Choice {
    /// Whatever is truest for the grandmaster that is followed.
    #[default]
    Auto,
    /// Prime where it makes the own path faster, and learn from each message as it is.
    Plain,
    /// Prime each request, and learn from each message as it is.
    Primed,
    /// Prime no request, as a software grandmaster primes no Sync.
    Cold,
    /// Send requests shortly before a Sync is due, and go by the fastest round trip.
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
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

/// In which manner requests are to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sending {
    /// That is for whoever sends them to find out.
    Free,
    /// In this, where it can be done.
    Told(Manner),
}

/// What is to be made of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// The servo learns from it.
    Learn,
    /// It bounds the time by causality, as every message does, and no more.
    Bound,
}

/// What has been measured; for logs, status and metrics. All in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Findings {
    /// By how much a Sync is faster after a request, median; `null` before both kinds have been seen.
    pub remote_priming_ns: Option<f64>,
    /// The fastest round trip.
    pub round_trip_ns: Option<f64>,
    /// By how much the usual Sync is slower than the fastest.
    pub sync_noise_ns: Option<f64>,
    /// By how much the usual request is slower than the fastest.
    pub request_noise_ns: Option<f64>,
    /// Whether a request makes the next Sync faster; `null` while it is not certain.
    pub is_primeable: Option<bool>,
    /// Whether a throwaway frame in front of a request makes it later than it is without, as behind a slow ring of
    /// a card; `null` while that is not known. Then none is sent.
    pub is_priming_late: Option<bool>,
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
    manner: Manner,
    /// `t4 - t3`, from an origin, ns.
    back_ns: f64,
}

#[derive(Clone, Copy, Debug)]
struct Sync {
    input: SyncInput,
    /// `t2 - t1`, from the origin, ns.
    forward_ns: f64,
    /// Round trip with the fastest request of that time, ns; `None` before one is known.
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
    line: Option<Line>,
    /// How many requests in a row were off the line, negative where they were below it.
    off: isize,
    least: Least,
    /// The fastest round trip that is gone by.
    gone_by_ns: Option<f64>,
    evidence: Evidence,
    /// How far unprimed requests were off the line of the primed ones, ns, and primed ones since the last of them.
    probes: Vec<f64>,
    since_probe: u32,
    is_priming_late: Option<bool>,
    /// When it was last looked at what would be truest.
    decided: Option<Time<Free>>,
    /// Another verdict than the present strategy, and how often in a row.
    other: Option<(Strategy, u32)>,
    findings: Findings,
    change: Option<Change>,
    is_anew: bool,
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
            line: None,
            off: 0,
            least: Least::default(),
            gone_by_ns: None,
            evidence: Evidence::default(),
            probes: Vec::new(),
            since_probe: 0,
            is_priming_late: None,
            decided: None,
            other: None,
            findings: Findings::default(),
            change: None,
            is_anew: false,
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

    /// In which manner requests are to be sent.
    pub const fn sending(&self) -> Sending {
        match self.strategy {
            Strategy::Plain => Sending::Free,
            Strategy::Cold => Sending::Told(Manner::Plain),
            Strategy::Trial | Strategy::Primed | Strategy::Remote => {
                Sending::Told(if self.is_probing() { Manner::Plain } else { self.manner() })
            }
        }
    }

    /// That of requests which are learnt from.
    const fn manner(&self) -> Manner {
        match (self.strategy, self.is_priming_late) {
            (Strategy::Plain | Strategy::Cold, _) | (_, Some(true)) => Manner::Plain,
            _ => Manner::Primed,
        }
    }

    /// The next request is to be unprimed, to see what priming costs on the way out: a throwaway frame that the card
    /// sends no faster than it is given makes the message behind it later, and no stamp in front of the driver shows it.
    const fn is_probing(&self) -> bool {
        matches!(self.choice, Choice::Auto | Choice::Remote)
            && self.is_priming_late.is_none()
            && self.line.is_some()
            && self.since_probe >= PROBE_EVERY
    }

    /// Compares an unprimed request with the primed ones. Whether it was one of those.
    fn probed(&mut self, at: Time<Free>, back_ns: f64, manner: Manner) -> bool {
        let (Some(line), None) = (self.line, self.is_priming_late) else { return false };
        if manner == self.manner() {
            self.since_probe = self.since_probe.saturating_add(1);
            return false;
        }
        if !self.requests.iter().any(|request| request.manner == Manner::Primed) {
            return false;
        }
        self.since_probe = 0;
        self.probes.push(back_ns - line.at(at));
        if self.probes.len() < PROBES {
            return true;
        }
        let noise_ns = self.findings.request_noise_ns.unwrap_or(0.0);
        let limit_ns = SHORTER_NS.max(SHORTER_FACTOR * noise_ns);
        let shorter = self.probes.iter().filter(|off_ns| **off_ns < -limit_ns).count();
        let is_late = shorter >= SHORTER;
        self.is_priming_late = Some(is_late);
        self.findings.is_priming_late = self.is_priming_late;
        if is_late {
            // Another way back: what was compared with the old one is of no use.
            self.requests.retain(|request| request.manner == Manner::Plain);
            self.syncs.iter_mut().for_each(|sync| sync.round_ns = None);
            (self.line, self.off, self.gone_by_ns) = (None, 0, None);
            self.least = Least::default();
            self.is_anew = true;
        }
        true
    }

    /// The change of the strategy since the last call.
    pub fn take_change(&mut self) -> Option<Change> {
        self.change.take()
    }

    /// The servo could not begin anew with so little.
    pub const fn postpone(&mut self) {
        self.is_anew = true;
    }

    /// What a servo is to begin anew with, where what it was given before would have been other numbers; in
    /// order of time.
    pub fn take_history(&mut self) -> Option<Vec<Observed>> {
        core::mem::take(&mut self.is_anew).then(|| {
            let syncs = self.syncs.iter().map(|sync| Observed::Sync(self.corrected(sync)));
            let requests = self
                .requests
                .iter()
                .filter(|request| self.use_of_request(request.manner) == Use::Learn)
                .map(|request| Observed::Delay(request.input));
            let mut history: Vec<Observed> = syncs.chain(requests).collect();
            history.sort_by_key(Observed::at);
            history
        })
    }

    /// Takes note of a Sync. What the servo is to be given for it.
    pub fn sync(&mut self, input: SyncInput) -> SyncInput {
        if self.choice == Choice::Plain {
            return input;
        }
        let forward = input.t2.mono.since_epoch() - input.t1.since_epoch();
        let forward_ns = (forward - *self.origin.get_or_insert(forward)).as_nanos_f64();
        let round_ns = self.line.map(|line| forward_ns + line.at(input.t2.mono));
        self.judge_leads();
        if self.syncs.len() == SYNCS {
            self.syncs.pop_front();
        }
        let sync = Sync { input, forward_ns, round_ns, lead_ns: None, is_judged: false };
        self.syncs.push_back(sync);
        self.corrected(&sync)
    }

    /// Takes note of an answered request. What is to be made of it.
    pub fn delay(&mut self, input: DelayInput, manner: Manner) -> Use {
        if self.choice == Choice::Plain {
            return Use::Learn;
        }
        // A Sync sets the origin, so that there is one.
        let Some(origin) = self.origin else { return Use::Learn };
        let back = input.t4.since_epoch() - input.t3.mono.since_epoch();
        let back_ns = (back + origin).as_nanos_f64();
        if self.requests.len() == REQUESTS {
            self.requests.pop_front();
        }
        self.requests.push_back(Request { input, manner, back_ns });
        let is_probe = self.probed(input.t3.mono, back_ns, manner);
        if !is_probe {
            self.follow_path(input.t3.mono, back_ns);
        }
        // The line would follow a request that is below it, before it is known whether the path does.
        if self.use_of_request(manner) == Use::Learn && self.off >= 0 {
            self.draw_line();
            self.follow_least(input.t3.mono);
            self.decide(input.t3.mono);
        }
        self.use_of_request(manner)
    }

    /// Where it is gone by the fastest round trip, a Sync as fast as that. The stamp as it was still bounds
    /// the time: it is by so much on its side of the wire for certain.
    fn corrected(&self, sync: &Sync) -> SyncInput {
        let mut input = sync.input;
        if let (Strategy::Remote, Some(round_ns), Some(least_ns)) =
            (self.strategy, sync.round_ns, self.gone_by_ns)
        {
            let excess = Duration::from_nanos_f64(round_ns - least_ns);
            input.t2.mono = input.t2.mono - excess;
            input.t2.clock = input.t2.clock - excess;
            input.t2.doubt += excess;
        }
        input
    }

    fn use_of_request(&self, manner: Manner) -> Use {
        if self.strategy == Strategy::Plain {
            return Use::Learn;
        }
        let wanted = self.manner();
        // Where there are none of those, the others are all there is.
        if manner == wanted || !self.requests.iter().any(|request| request.manner == wanted) {
            Use::Learn
        } else {
            Use::Bound
        }
    }

    /// Where the way back is another one, what was seen before is of no use.
    fn follow_path(&mut self, at: Time<Free>, back_ns: f64) {
        let Some(line) = self.line else { return };
        let off_ns = back_ns - line.at(at);
        let noise_ns = self.findings.request_noise_ns.unwrap_or(0.0);
        let limit_ns = OFF_NS.max(OFF_FACTOR * noise_ns);
        self.off = match off_ns {
            _ if off_ns > limit_ns => self.off.max(0) + 1,
            _ if off_ns < -limit_ns => self.off.min(0) - 1,
            _ => 0,
        };
        let limit = if self.off > 0 { ABOVE } else { BELOW };
        let off = self.off.unsigned_abs();
        if off < limit {
            return;
        }
        self.requests.drain(..self.requests.len() - off.min(self.requests.len()));
        let first = self.requests.front().map(|request| request.input.t3.mono);
        self.syncs.retain(|sync| first.is_some_and(|first| sync.input.t2.mono >= first));
        (self.line, self.off, self.gone_by_ns) = (None, 0, None);
        self.least = Least::default();
    }

    fn draw_line(&mut self) {
        let Some(last) = self.requests.back().map(|request| request.input.t3.mono) else { return };
        let points: Vec<_> = self
            .requests
            .iter()
            .rev()
            .filter(|request| self.use_of_request(request.manner) == Use::Learn)
            .take(LINE)
            .enumerate()
            .take_while(|(n, request)| *n < LEAST_LINE || last - request.input.t3.mono <= LINE_AGE)
            .map(|(_, request)| (request.input.t3.mono, request.back_ns))
            .collect();
        if points.len() < LEAST_LINE {
            return;
        }
        let Some(line) = Line::below(&points) else { return };
        // A Sync before a request is better known from the requests on either side of it.
        let before = points.get(1).filter(|_| self.line.is_some()).map(|point| point.0);
        for sync in self.syncs.iter_mut().rev() {
            let at = sync.input.t2.mono;
            if before.is_some_and(|before| at < before) {
                break;
            }
            let round_ns = sync.forward_ns + line.at(at);
            sync.round_ns = Some(round_ns);
            self.least.push(at, round_ns);
        }
        self.line = Some(line);
    }

    /// The fastest round trip of the last minutes; where it is another one, the servo begins anew.
    fn follow_least(&mut self, now: Time<Free>) {
        let Some(least_ns) = self.least.value(now) else { return };
        let is_other = self.gone_by_ns.is_none_or(|before| {
            (least_ns - before).abs() > OTHER_NS.max(OTHER_SHARE * before.abs())
        });
        if is_other {
            self.gone_by_ns = Some(least_ns);
            self.is_anew |= self.strategy == Strategy::Remote && self.has_enough();
        }
    }

    /// Which Sync messages followed a request: an answer may come after the Sync that follows it, so
    /// this is done when the next one is there.
    fn judge_leads(&mut self) {
        let requests = &self.requests;
        let mut hits = Vec::new();
        for sync in self.syncs.iter_mut().rev() {
            if sync.is_judged {
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

    fn decide(&mut self, now: Time<Free>) {
        let is_new = self.strategy == Strategy::Trial;
        if !is_new && self.decided.is_some_and(|decided| now - decided < AGAIN) {
            return;
        }
        let Some(verdict) = self.verdict() else { return };
        self.decided = Some(now);
        let times = match self.other {
            Some((other, times)) if other == verdict => times.saturating_add(1),
            _ => 1,
        };
        self.other = Some((verdict, times));
        let needed = if is_new { 1 } else { PERSISTENT };
        if self.choice != Choice::Auto || verdict == self.strategy || times < needed {
            return;
        }
        let from = core::mem::replace(&mut self.strategy, verdict);
        self.is_anew = true;
        self.change = Some(Change { from, to: verdict, findings: self.findings });
    }

    /// A servo can begin anew with what there is.
    fn has_enough(&self) -> bool {
        self.syncs.len() >= ENOUGH_SYNCS && self.requests.len() >= ENOUGH
    }
}

fn quantile(mut values: Vec<f64>, q: f64) -> Option<f64> {
    let last = values.len().checked_sub(1)?;
    let place = (last as f64 * q).round() as usize;
    Some(*values.select_nth_unstable_by(place, f64::total_cmp).1)
}
