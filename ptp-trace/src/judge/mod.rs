//! Verdicts. Spans are kept until their trace is complete (which nobody says: until the file ends, or too
//! many are open), then each pair of spans on different hosts that hang together is judged.

mod ledger;
mod pairs;

use std::collections::HashMap;

use lru::LruCache;

pub use ledger::{Accused, Ledger, Suspicion};
pub use pairs::{Order, Pair, Relation, Verdict};

use crate::span::{Lack, Span, TraceId};

/// Spans that are kept open unless told otherwise.
pub const OPEN_SPANS: usize = 2_000_000;

/// A trace whose pairs have been judged.
#[derive(Debug)]
pub struct Judged {
    /// Which.
    pub id: TraceId,
    /// Its spans, by their start.
    pub spans: Vec<Span>,
    /// Its pairs; numbers of spans are places in `spans`.
    pub pairs: Vec<Pair>,
}

/// Figures of all traces so far.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// Traces that were closed.
    pub traces: u64,
    /// Pairs on different hosts.
    pub pairs: u64,
    /// Whose order is certain.
    pub certain: u64,
    /// Whose order cannot be told, by cause; `None`: the bounds overlap.
    pub untold: HashMap<Option<Lack>, u64>,
    /// That cannot be.
    pub impossible: u64,
    /// Of the certain ones, those where the second was before the first: neighbours that the hosts' clocks
    /// show wrong, and links.
    pub certain_otherwise: u64,
    /// Of the certain ones, those that the hosts' own clocks show the other way round, or, where one comes
    /// of the other, the effect before the cause.
    pub raw_wrong: u64,
    /// Of all that are causal, those that the hosts' own clocks show the effect before the cause.
    pub raw_backwards: u64,
    /// Spans that are there twice with one identity.
    pub duplicates: u64,
    /// Spans that are their own ancestors.
    pub in_cycles: u64,
    /// Spans whose parent is not there.
    pub orphans: u64,
    /// Spans of traces that had to be closed before.
    pub late: u64,
    /// Traces closed because too many spans were open.
    pub closed_early: u64,
}

impl Totals {
    /// Pairs whose order cannot be told.
    pub fn untold(&self) -> u64 {
        self.untold.values().sum()
    }
}

/// Keeps open traces, and judges them.
#[derive(Debug)]
pub struct Judge {
    open: LruCache<TraceId, Vec<Span>>,
    open_spans: usize,
    most: usize,
    /// What closed early, so that late spans are known; bounded.
    closed: LruCache<TraceId, ()>,
    grandmasters_agree_ns: Option<i64>,
    /// Figures so far.
    pub totals: Totals,
    /// What hosts have shown of each other.
    pub ledger: Ledger,
}

/// Traces closed early that are remembered.
const CLOSED_KEPT: usize = 1 << 20;

impl Judge {
    /// `most`: spans that are kept open. `grandmasters_agree_ns`: two grandmasters are no farther apart.
    pub fn new(most: usize, grandmasters_agree_ns: Option<i64>) -> Self {
        Self {
            open: LruCache::unbounded(),
            open_spans: 0,
            most: most.max(1),
            closed: LruCache::unbounded(),
            grandmasters_agree_ns,
            totals: Totals::default(),
            ledger: Ledger::default(),
        }
    }

    /// Spans that are open.
    pub fn open_spans(&self) -> usize {
        self.open_spans
    }

    /// Takes a span; what has to be closed for it goes to `done`.
    pub fn push(&mut self, trace: TraceId, span: Span, done: &mut impl FnMut(Judged)) {
        if self.closed.contains(&trace) {
            self.totals.late += 1;
        }
        self.open.get_or_insert_mut(trace, Vec::new).push(span);
        self.open_spans += 1;
        while self.open_spans > self.most
            && let Some((id, spans)) = self.open.pop_lru()
        {
            self.totals.closed_early += 1;
            self.closed.put(id, ());
            if self.closed.len() > CLOSED_KEPT {
                self.closed.pop_lru();
            }
            self.open_spans -= spans.len();
            done(self.judge(id, spans));
        }
    }

    /// Closes all traces that are open.
    pub fn finish(&mut self, done: &mut impl FnMut(Judged)) {
        while let Some((id, spans)) = self.open.pop_lru() {
            self.open_spans -= spans.len();
            done(self.judge(id, spans));
        }
    }

    fn judge(&mut self, id: TraceId, mut spans: Vec<Span>) -> Judged {
        self.totals.traces += 1;
        spans.sort_by_key(|span| (span.raw_start_ns, span.id));
        let found = pairs::of_trace(&spans, self.grandmasters_agree_ns);
        self.totals.duplicates += found.duplicates;
        self.totals.in_cycles += found.in_cycles;
        self.totals.orphans += found.orphans;
        for pair in &found.pairs {
            self.totals.pairs += 1;
            let is_causal = pair.relation != Relation::Neighbours;
            if pair.is_raw_backwards && is_causal {
                self.totals.raw_backwards += 1;
            }
            match pair.verdict {
                Verdict::Certain(order) => {
                    self.totals.certain += 1;
                    self.totals.certain_otherwise += u64::from(order == Order::OtherThanShown);
                    self.totals.raw_wrong += u64::from(pair.is_raw_backwards);
                }
                Verdict::Untold(lack) => *self.totals.untold.entry(lack).or_default() += 1,
                Verdict::Impossible { .. } => self.totals.impossible += 1,
            }
            if is_causal {
                self.ledger.enter(&spans[pair.first], &spans[pair.second], pair.verdict);
            }
        }
        Judged { id, spans, pairs: found.pairs }
    }
}

#[cfg(test)]
mod tests;
