//! Which spans of a trace are compared, and what can be said of them. A parent must have begun before its
//! child; a server must have begun before its client had the answer; what a span links to must have begun
//! before that span ended. Siblings whose times do not overlap look ordered, and are asked whether they are.

use std::collections::HashMap;

use crate::span::{Kind, Lack, Span, SpanId, UNNAMED, When};

/// Why two spans are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// The second is a child of the first.
    Child,
    /// The second says that it follows from the first.
    Link,
    /// Both have one parent, and by their hosts' clocks the first ended before the second began.
    Neighbours,
}

impl Relation {
    /// As a word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Child => "child",
            Self::Link => "link",
            Self::Neighbours => "neighbours",
        }
    }
}

/// What is certain of two events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The first was first.
    AsShown,
    /// The second began before the first had ended, other than the hosts' clocks show.
    OtherThanShown,
}

/// What can be said of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The order, whatever the clocks' errors within their bounds.
    Certain(Order),
    /// The order cannot be told, for this cause; `None`: the bounds overlap.
    Untold(Option<Lack>),
    /// Within the bounds the effect was before its cause: a clock lied.
    Impossible {
        /// By how much at the least, ns.
        by_ns: i64,
    },
}

impl Verdict {
    /// As a word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Certain(_) => "certain",
            Self::Untold(_) => "not_to_be_told",
            Self::Impossible { .. } => "impossible",
        }
    }
}

/// Two spans on different hosts.
#[derive(Clone, Copy, Debug)]
pub struct Pair {
    /// Place of the one that is first, or seems to be.
    pub first: usize,
    /// Place of the other.
    pub second: usize,
    /// Why they are compared.
    pub relation: Relation,
    /// What can be said.
    pub verdict: Verdict,
    /// By the middles of corrected times, the second is so much later, ns; `None` where nothing is known.
    pub gap_ns: Option<i64>,
    /// That may be wrong by so much, ns.
    pub bound_ns: Option<i64>,
    /// By their hosts' clocks the second was before the first.
    pub is_raw_backwards: bool,
}

/// All pairs of a trace, and what is odd about it.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) pairs: Vec<Pair>,
    pub(super) duplicates: u64,
    pub(super) in_cycles: u64,
    pub(super) orphans: u64,
}

/// `spans` are in the order of their start.
pub(super) fn of_trace(spans: &[Span], agree_ns: Option<i64>) -> Found {
    let mut found = Found::default();
    let mut place: HashMap<SpanId, usize> = HashMap::with_capacity(spans.len());
    let mut is_first = vec![true; spans.len()];
    for (at, span) in spans.iter().enumerate() {
        if *place.entry(span.id).or_insert(at) != at {
            found.duplicates += 1;
            is_first[at] = false;
        }
    }
    let parents: Vec<Option<usize>> =
        spans.iter().map(|span| place.get(&span.parent).copied()).collect();
    let cyclic = in_cycles(&parents);
    let mut last_of: HashMap<SpanId, usize> = HashMap::new();
    for (at, span) in spans.iter().enumerate() {
        if !is_first[at] {
            continue;
        }
        if cyclic[at] {
            // Who comes first there, nobody can say.
            found.in_cycles += 1;
        } else {
            match parents[at] {
                Some(parent) => {
                    found.pairs.extend(pair(spans, parent, at, Relation::Child, agree_ns));
                }
                None if span.parent != SpanId::default() => found.orphans += 1,
                None => {}
            }
        }
        for link in &span.links {
            if let Some(linked) = place.get(link).copied().filter(|linked| *linked != at) {
                found.pairs.extend(pair(spans, linked, at, Relation::Link, agree_ns));
            }
        }
        if span.parent != SpanId::default() {
            // Only those next to each other: all pairs would be as many as the square.
            if let Some(before) = last_of.insert(span.parent, at)
                && spans[before].raw_end_ns <= span.raw_start_ns
            {
                found.pairs.extend(pair(spans, before, at, Relation::Neighbours, agree_ns));
            }
        }
    }
    found
}

/// Which places are their own ancestors.
fn in_cycles(parents: &[Option<usize>]) -> Vec<bool> {
    const NEW: u32 = 0;
    let mut seen = vec![NEW; parents.len()];
    let mut cyclic = vec![false; parents.len()];
    for (start, walk) in (0..parents.len()).zip(1..) {
        let mut at = Some(start);
        while let Some(here) = at.filter(|here| seen[*here] == NEW) {
            seen[here] = walk;
            at = parents[here];
        }
        // Met on this very walk: what lies between is a ring.
        if let Some(met) = at.filter(|met| seen[*met] == walk) {
            let mut here = met;
            loop {
                cyclic[here] = true;
                match parents[here] {
                    Some(next) if next != met => here = next,
                    _ => break,
                }
            }
        }
    }
    cyclic
}

/// The pair, if it is on two hosts.
fn pair(
    spans: &[Span],
    first: usize,
    second: usize,
    relation: Relation,
    agree_ns: Option<i64>,
) -> Option<Pair> {
    let (a, b) = (&spans[first], &spans[second]);
    if a.host == b.host {
        return None;
    }
    let earlier = if relation == Relation::Neighbours { a.end } else { a.start };
    let (verdict, gap) = match compared(earlier, b.start, agree_ns) {
        Err(lack) => (Verdict::Untold(Some(lack)), None),
        Ok(gap) => (verdict(a, b, relation, gap, agree_ns), Some(gap)),
    };
    let is_raw_backwards = match relation {
        Relation::Child | Relation::Link => b.raw_start_ns < a.raw_start_ns,
        Relation::Neighbours => verdict == Verdict::Certain(Order::OtherThanShown),
    };
    Some(Pair {
        first,
        second,
        relation,
        verdict,
        gap_ns: gap.map(Gap::middle_ns),
        bound_ns: gap.map(Gap::bound_ns),
        is_raw_backwards,
    })
}

fn verdict(a: &Span, b: &Span, relation: Relation, gap: Gap, agree_ns: Option<i64>) -> Verdict {
    let is_first_certain = gap.least_ns > 0;
    let is_second_certain = gap.most_ns < 0;
    match relation {
        Relation::Child => {
            if is_second_certain {
                return Verdict::Impossible { by_ns: gap.most_ns.saturating_neg() };
            }
            // The client has its answer at its end, unless it gave up.
            let is_answered = a.kind == Kind::Client && b.kind == Kind::Server && !a.has_failed;
            if is_answered
                && let Ok(answer) = compared(b.start, a.end, agree_ns)
                && answer.most_ns < 0
            {
                return Verdict::Impossible { by_ns: answer.most_ns.saturating_neg() };
            }
        }
        Relation::Link => {
            if let Ok(known) = compared(a.start, b.end, agree_ns)
                && known.most_ns < 0
            {
                return Verdict::Impossible { by_ns: known.most_ns.saturating_neg() };
            }
        }
        Relation::Neighbours => {}
    }
    if is_first_certain {
        Verdict::Certain(Order::AsShown)
    } else if is_second_certain {
        Verdict::Certain(Order::OtherThanShown)
    } else {
        Verdict::Untold(None)
    }
}

/// By how much one event is later than another, at the least and at the most, ns.
#[derive(Clone, Copy, Debug)]
struct Gap {
    least_ns: i64,
    most_ns: i64,
}

impl Gap {
    const fn middle_ns(self) -> i64 {
        self.least_ns.midpoint(self.most_ns)
    }

    const fn bound_ns(self) -> i64 {
        let width = self.most_ns.saturating_sub(self.least_ns);
        width / 2 + width % 2
    }
}

fn compared(
    earlier: Result<When, Lack>,
    later: Result<When, Lack>,
    agree_ns: Option<i64>,
) -> Result<Gap, Lack> {
    let (a, b) = (earlier?, later?);
    // One that is stamped at the source may not know whose time it is; it is of the one domain.
    let is_one =
        a.grandmaster == b.grandmaster || [a.grandmaster, b.grandmaster].contains(&UNNAMED);
    let apart = match agree_ns {
        _ if is_one => 0,
        Some(apart) => apart,
        None => return Err(Lack::OtherGrandmaster),
    };
    Ok(Gap {
        least_ns: b.lo_ns.saturating_sub(a.hi_ns).saturating_sub(apart),
        most_ns: b.hi_ns.saturating_sub(a.lo_ns).saturating_add(apart),
    })
}
