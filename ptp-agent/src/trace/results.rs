//! What is kept of all that has been judged: figures for each pair of hosts, the traces worth drawing, and
//! what is to be said of files and hosts.

use std::{
    collections::HashMap,
    io::{self, Write},
    path::Path,
};

use ptp_trace::{
    correct::{Corrector, Counts},
    input::{self, InputError},
    judge::{Accused, Judge, Judged, Order, Pair, Suspicion, Totals, Verdict},
    names::Names,
};

use super::{args::Args, output};

/// Pairs of hosts of which figures are kept.
const HOST_PAIRS: usize = 10_000;
/// Bounds that are kept of each to tell their median: the first so many.
const BOUNDS_KEPT: usize = 4_096;
/// Impossible pairs that are listed.
pub(super) const LISTED: usize = 20;
/// Spans that are drawn of a trace; larger ones are cut.
pub(super) const DRAWN: usize = 200;

/// What became of a file.
#[derive(Debug)]
pub struct FileResult {
    /// Its name.
    pub name: String,
    /// What was read of it.
    pub outcome: input::Outcome,
    /// Why it was not read to its end.
    pub error: Option<String>,
}

impl FileResult {
    /// # Errors
    /// When it was not the file that failed but what is made of it.
    pub(super) fn new(
        path: &Path,
        read: Result<input::Outcome, InputError>,
    ) -> anyhow::Result<Self> {
        let name = path.display().to_string();
        match read {
            Ok(outcome) => Ok(Self { name, outcome, error: None }),
            Err(InputError::Taker(error)) => Err(anyhow::Error::from_boxed(error)),
            Err(error) => Ok(Self {
                name,
                outcome: input::Outcome::default(),
                error: Some(error.to_string()),
            }),
        }
    }
}

/// What two hosts can order.
#[derive(Clone, Debug, Default)]
pub struct HostPair {
    /// Pairs of spans.
    pub pairs: u64,
    /// Whose order is certain.
    pub certain: u64,
    /// That cannot be.
    pub impossible: u64,
    /// Effects before their cause by the hosts' own clocks.
    pub raw_backwards: u64,
    bounds_ns: Vec<i64>,
}

impl HostPair {
    /// Events farther apart than this can be ordered, ns: the median over the pairs, and the largest.
    pub fn bound_ns(&self) -> Option<[i64; 2]> {
        let mut bounds = self.bounds_ns.clone();
        bounds.sort_unstable();
        Some([*bounds.get(bounds.len() / 2)?, *bounds.last()?])
    }
}

/// Everything that is known in the end.
#[derive(Debug)]
pub struct Results {
    /// The files, in their order.
    pub files: Vec<FileResult>,
    /// What went wrong beside.
    pub complaints: Vec<String>,
    /// Spans.
    pub counts: Counts,
    /// Pairs.
    pub totals: Totals,
    /// Clocks that lied.
    pub suspicions: Vec<Suspicion>,
    /// Names of hosts, services and spans.
    pub names: Names,
    /// Figures for each two hosts, by their numbers.
    pub host_pairs: HashMap<[u32; 2], HostPair>,
    /// Spans of hosts without an agent, most first.
    pub without_agent: Vec<(u32, u64)>,
    /// The first impossible pairs, in words.
    pub(super) listed: Vec<String>,
    pub(super) drawn: Vec<Judged>,
    most_drawn: usize,
    only: Option<u128>,
}

impl Results {
    pub(super) fn new(args: &Args) -> Self {
        Self {
            files: Vec::new(),
            complaints: Vec::new(),
            counts: Counts::default(),
            totals: Totals::default(),
            suspicions: Vec::new(),
            names: Names::default(),
            host_pairs: HashMap::new(),
            without_agent: Vec::new(),
            listed: Vec::new(),
            drawn: Vec::new(),
            most_drawn: if args.html.is_some() { args.most.min(1_000) } else { 0 },
            only: args.trace_id,
        }
    }

    /// Takes a trace that has been judged.
    pub(super) fn take(
        &mut self,
        judged: Judged,
        corrector: &Corrector,
        mut pairs: Option<&mut impl Write>,
    ) -> io::Result<()> {
        for pair in &judged.pairs {
            self.enter(&judged, pair);
            if let Verdict::Impossible { .. } = pair.verdict
                && self.listed.len() < LISTED
            {
                self.listed.push(super::text::pair(&judged, pair, &corrector.names));
            }
            if let Some(out) = &mut pairs {
                output::pair(&judged, pair, &corrector.names, out)?;
            }
        }
        self.consider(judged);
        Ok(())
    }

    fn enter(&mut self, judged: &Judged, pair: &Pair) {
        let hosts = [judged.spans[pair.first].host, judged.spans[pair.second].host];
        let hosts = [hosts[0].min(hosts[1]), hosts[0].max(hosts[1])];
        if self.host_pairs.len() >= HOST_PAIRS && !self.host_pairs.contains_key(&hosts) {
            return;
        }
        let entry = self.host_pairs.entry(hosts).or_default();
        entry.pairs += 1;
        match pair.verdict {
            Verdict::Certain(_) => entry.certain += 1,
            Verdict::Impossible { .. } => entry.impossible += 1,
            Verdict::Untold(_) => {}
        }
        entry.raw_backwards += u64::from(pair.is_raw_backwards);
        if entry.bounds_ns.len() < BOUNDS_KEPT {
            entry.bounds_ns.extend(pair.bound_ns);
        }
    }

    /// Keeps a trace for the page if it is more worth drawing than what is kept.
    fn consider(&mut self, mut judged: Judged) {
        if self.most_drawn == 0 || self.only.is_some_and(|only| only != judged.id.0) {
            return;
        }
        let place = self.drawn.partition_point(|kept| worth(kept) >= worth(&judged));
        if place < self.most_drawn {
            if judged.spans.len() > DRAWN {
                judged.pairs.retain(|pair| pair.first.max(pair.second) < DRAWN);
                judged.spans.truncate(DRAWN);
            }
            self.drawn.insert(place, judged);
            self.drawn.truncate(self.most_drawn);
        }
    }

    pub(super) fn conclude(&mut self, corrector: Corrector, judge: Judge) {
        self.complaints.extend(corrector.clocks.complaints());
        self.suspicions = judge.ledger.suspicions();
        if judge.ledger.left_out > 0 {
            let left_out = judge.ledger.left_out;
            self.complaints
                .push(format!("{left_out} pairs of spans are of too many pairs of hosts"));
        }
        self.totals = judge.totals;
        self.counts = corrector.counts;
        self.names = corrector.names;
        self.without_agent = corrector.without_agent.into_iter().collect();
        self.without_agent.sort_by_key(|(host, spans)| (std::cmp::Reverse(*spans), *host));
    }

    /// Whose clock it was, in words.
    pub(super) fn accused(&self, suspicion: &Suspicion) -> String {
        match &suspicion.accused {
            Accused::Host(host) => self.names.name(*host).to_owned(),
            Accused::OneOf([a, b]) => {
                format!("{} or {}", self.names.name(*a), self.names.name(*b))
            }
        }
    }

    /// Figures for each two hosts, most pairs first.
    pub(super) fn by_hosts(&self) -> Vec<([&str; 2], &HostPair)> {
        let mut rows: Vec<_> = self
            .host_pairs
            .iter()
            .map(|(hosts, figures)| (hosts.map(|host| self.names.name(host)), figures))
            .collect();
        rows.sort_by(|a, b| b.1.pairs.cmp(&a.1.pairs).then(a.0.cmp(&b.0)));
        rows
    }
}

/// How much a trace is worth drawing.
fn worth(judged: &Judged) -> (u8, usize) {
    let class = |pair: &Pair| match pair.verdict {
        Verdict::Impossible { .. } => 4,
        Verdict::Certain(Order::OtherThanShown) => 3,
        Verdict::Certain(Order::AsShown) => 1 + 2 * u8::from(pair.is_raw_backwards),
        Verdict::Untold(None) => 2,
        Verdict::Untold(Some(_)) => 1,
    };
    let best = judged.pairs.iter().map(class).max().unwrap_or(0);
    (best, judged.pairs.len())
}
