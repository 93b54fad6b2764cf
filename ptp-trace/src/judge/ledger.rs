//! What hosts have shown of each other's clocks. One impossible pair says that one of two clocks lied;
//! which, only others can say: a host that contradicts several which agree among themselves is the one.
//! And since when: between the last pair that went well and the first that could not be.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::Verdict;
use crate::span::Span;

/// Pairs of hosts that are kept; what is beyond is counted alone.
const PAIRS_KEPT: usize = 100_000;
/// Stretches of time that are kept for each; when there are more, they are made twice as long.
const STRETCHES: usize = 512;
/// The shortest stretch, ns.
const SHORTEST_NS: i64 = 1_000_000_000;

/// What two hosts have shown of each other.
#[derive(Clone, Debug)]
struct Entry {
    consistent: u64,
    impossible: u64,
    /// By how much at the least the two clocks were wrong together, ns.
    by_ns: i64,
    first_ns: i64,
    last_ns: i64,
    stretch_ns: i64,
    /// The latest consistent pair in each stretch of time, Unix ns.
    went_well: BTreeMap<i64, i64>,
}

impl Default for Entry {
    fn default() -> Self {
        Self {
            consistent: 0,
            impossible: 0,
            by_ns: 0,
            first_ns: i64::MAX,
            last_ns: i64::MIN,
            stretch_ns: SHORTEST_NS,
            went_well: BTreeMap::new(),
        }
    }
}

impl Entry {
    fn went_well(&mut self, at_ns: i64) {
        self.consistent += 1;
        let latest = self.went_well.entry(at_ns.div_euclid(self.stretch_ns)).or_insert(at_ns);
        *latest = at_ns.max(*latest);
        if self.went_well.len() > STRETCHES {
            self.stretch_ns = self.stretch_ns.saturating_mul(2);
            let mut longer = BTreeMap::new();
            for latest in std::mem::take(&mut self.went_well).into_values() {
                let kept = longer.entry(latest.div_euclid(self.stretch_ns)).or_insert(latest);
                *kept = latest.max(*kept);
            }
            self.went_well = longer;
        }
    }

    /// The latest pair before the first impossible one that went well.
    fn last_good_ns(&self) -> Option<i64> {
        self.went_well.values().copied().filter(|at| *at < self.first_ns).max()
    }
}

/// Whose clock it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Accused {
    /// This host's: it contradicts several hosts that do not contradict each other.
    Host(u32),
    /// One of these two.
    OneOf([u32; 2]),
}

/// A clock that lied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suspicion {
    /// Whose.
    pub accused: Accused,
    /// Impossible pairs.
    pub pairs: u64,
    /// The first of them, Unix ns.
    pub first_ns: i64,
    /// The last of them, Unix ns.
    pub last_ns: i64,
    /// The last pair before that went well, Unix ns: it began between the two.
    pub last_good_ns: Option<i64>,
    /// The error is at least so much beyond the bounds, ns.
    pub by_ns: i64,
}

/// All entries.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    entries: HashMap<[u32; 2], Entry>,
    /// Pairs of spans that there was no room for.
    pub left_out: u64,
}

impl Ledger {
    /// Enters what a pair has shown.
    pub(super) fn enter(&mut self, first: &Span, second: &Span, verdict: Verdict) {
        let hosts = [first.host.min(second.host), first.host.max(second.host)];
        let Ok(at) = second.start else { return };
        if self.entries.len() >= PAIRS_KEPT && !self.entries.contains_key(&hosts) {
            self.left_out += 1;
            return;
        }
        let at_ns = at.middle_ns();
        let entry = self.entries.entry(hosts).or_default();
        match verdict {
            Verdict::Impossible { by_ns } => {
                entry.impossible += 1;
                entry.by_ns = entry.by_ns.max(by_ns);
                entry.first_ns = entry.first_ns.min(at_ns);
                entry.last_ns = entry.last_ns.max(at_ns);
            }
            Verdict::Certain(_) | Verdict::Untold(None) => entry.went_well(at_ns),
            Verdict::Untold(Some(_)) => {}
        }
    }

    /// Clocks that lied, the one with most impossible pairs first. A host is named alone when it contradicts
    /// at least two others, and more than any of these does; then what it is part of is explained.
    pub fn suspicions(&self) -> Vec<Suspicion> {
        let mut bad: Vec<(&[u32; 2], &Entry)> =
            self.entries.iter().filter(|(_, entry)| entry.impossible > 0).collect();
        bad.sort_by_key(|(hosts, _)| **hosts);
        let mut suspicions = Vec::new();
        while !bad.is_empty() {
            let mut against: HashMap<u32, HashSet<u32>> = HashMap::new();
            for ([a, b], _) in &bad {
                against.entry(*a).or_default().insert(*b);
                against.entry(*b).or_default().insert(*a);
            }
            let count = |host: u32| against.get(&host).map_or(0, HashSet::len);
            let culprit = against
                .iter()
                .filter(|(_, others)| others.len() >= 2)
                .filter(|(_, others)| others.iter().all(|other| count(*other) < others.len()));
            // The most contradicted; of equal ones the first by number, so that runs are alike.
            let culprit = culprit.max_by_key(|(host, others)| (others.len(), u32::MAX - **host));
            let explained = |hosts: &[u32; 2]| match culprit {
                Some((host, _)) => hosts.contains(host),
                None => true,
            };
            let (of_this, rest): (Vec<_>, Vec<_>) =
                bad.into_iter().partition(|(hosts, _)| explained(hosts));
            match culprit {
                Some((host, _)) => {
                    suspicions.push(suspicion(Accused::Host(*host), &of_this));
                }
                None => suspicions
                    .extend(of_this.iter().map(|one| suspicion(Accused::OneOf(*one.0), &[*one]))),
            }
            bad = rest;
        }
        suspicions.sort_by_key(|suspicion| std::cmp::Reverse(suspicion.pairs));
        suspicions
    }
}

fn suspicion(accused: Accused, entries: &[(&[u32; 2], &Entry)]) -> Suspicion {
    let entries = || entries.iter().map(|(_, entry)| *entry);
    let first_ns = entries().map(|entry| entry.first_ns).min().unwrap_or(0);
    Suspicion {
        accused,
        pairs: entries().map(|entry| entry.impossible).sum(),
        first_ns,
        last_ns: entries().map(|entry| entry.last_ns).max().unwrap_or(0),
        last_good_ns: entries().filter_map(Entry::last_good_ns).filter(|at| *at < first_ns).max(),
        by_ns: entries().map(|entry| entry.by_ns).max().unwrap_or(0),
    }
}
