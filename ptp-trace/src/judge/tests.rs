//! Verdicts by example, what is odd about traces, and that no verdict is wrong while bounds hold.

use super::*;
use crate::span::{Kind, SpanId, When};
use proptest::prelude::*;

/// A span of `host` from `start` to `end` ns, by a clock good to `bound` ns and off by `error`.
fn span(id: u64, parent: u64, host: u32, [start, end]: [i64; 2], error: i64, bound: i64) -> Span {
    let when = |at: i64| When { lo_ns: at - bound, hi_ns: at + bound, grandmaster: 1 };
    Span {
        id: SpanId(id),
        parent: SpanId(parent),
        host,
        service: host,
        name: 1,
        kind: Kind::Internal,
        has_failed: false,
        raw_start_ns: start + error,
        raw_end_ns: end + error,
        start: Ok(when(start)),
        end: Ok(when(end)),
        links: Box::default(),
    }
}

fn judged(spans: Vec<Span>) -> (Judge, Judged) {
    let mut judge = Judge::new(1_000, None);
    let mut out = Vec::new();
    for span in spans {
        judge.push(TraceId(1), span, &mut |judged| out.push(judged));
    }
    judge.finish(&mut |judged| out.push(judged));
    (judge, out.pop().unwrap())
}

fn only(spans: Vec<Span>) -> Pair {
    let (_, judged) = judged(spans);
    assert_eq!(judged.pairs.len(), 1, "{:?}", judged.pairs);
    judged.pairs[0]
}

#[test]
fn hop_longer_than_both_bounds_is_certain_and_a_shorter_one_is_not_told() {
    let of = |hop: i64, bound| {
        only(vec![
            span(1, 0, 1, [1_000_000, 2_000_000], 500_000, bound),
            span(2, 1, 2, [1_000_000 + hop, 1_500_000], -500_000, bound),
        ])
    };
    let pair = of(20_000, 9_999);
    assert_eq!(pair.verdict, Verdict::Certain(Order::AsShown));
    assert!(pair.is_raw_backwards, "the hosts' own clocks say otherwise");
    assert_eq!((pair.gap_ns, pair.bound_ns), (Some(20_000), Some(19_998)));
    assert_eq!(of(20_000, 10_000).verdict, Verdict::Untold(None));
}

#[test]
fn effect_before_its_cause_is_impossible() {
    let pair = only(vec![
        span(1, 0, 1, [100_000, 200_000], 0, 10),
        span(2, 1, 2, [90_000, 95_000], 0, 10),
    ]);
    assert_eq!(pair.verdict, Verdict::Impossible { by_ns: 9_980 });
}

#[test]
fn server_that_begins_after_its_client_has_the_answer_is_impossible_unless_the_client_gave_up() {
    let of = |has_failed| {
        let client =
            Span { kind: Kind::Client, has_failed, ..span(1, 0, 1, [100_000, 200_000], 0, 10) };
        let server = Span { kind: Kind::Server, ..span(2, 1, 2, [300_000, 400_000], 0, 10) };
        only(vec![client, server]).verdict
    };
    assert_eq!(of(false), Verdict::Impossible { by_ns: 99_980 });
    assert_eq!(of(true), Verdict::Certain(Order::AsShown));
}

#[test]
fn host_of_which_nothing_is_known_is_never_judged() {
    let blind = Span {
        start: Err(Lack::NoAgent),
        end: Err(Lack::NoAgent),
        ..span(2, 1, 2, [90_000, 95_000], 0, 10)
    };
    let pair = only(vec![span(1, 0, 1, [100_000, 200_000], 0, 10), blind]);
    assert_eq!(pair.verdict, Verdict::Untold(Some(Lack::NoAgent)));
    assert!(pair.is_raw_backwards && pair.gap_ns.is_none());
}

#[test]
fn times_of_different_grandmasters_are_compared_only_if_they_are_said_to_agree() {
    let spans = || {
        let other = |when: Result<When, Lack>| when.map(|when| When { grandmaster: 2, ..when });
        let second = span(2, 1, 2, [120_000, 150_000], 0, 10);
        let second = Span { start: other(second.start), end: other(second.end), ..second };
        vec![span(1, 0, 1, [100_000, 200_000], 0, 10), second]
    };
    assert_eq!(only(spans()).verdict, Verdict::Untold(Some(Lack::OtherGrandmaster)));
    for (agree, verdict) in
        [(19_979, Verdict::Certain(Order::AsShown)), (20_000, Verdict::Untold(None))]
    {
        assert_eq!(pairs::of_trace(&spans(), Some(agree)).pairs[0].verdict, verdict);
    }
}

#[test]
fn siblings_that_look_ordered_are_asked_whether_they_are() {
    let of = |second: [i64; 2], error| {
        let (_, judged) = judged(vec![
            span(1, 9, 1, [100_000, 200_000], 0, 10),
            span(2, 9, 2, second, error, 10),
        ]);
        judged.pairs.iter().map(|pair| (pair.relation, pair.verdict)).collect::<Vec<_>>()
    };
    let neighbours = |verdict| vec![(Relation::Neighbours, verdict)];
    assert_eq!(of([300_000, 1], 0), neighbours(Verdict::Certain(Order::AsShown)));
    assert_eq!(of([150_000, 1], 90_000), neighbours(Verdict::Certain(Order::OtherThanShown)));
    assert_eq!(of([200_005, 1], 0), neighbours(Verdict::Untold(None)));
    assert_eq!(of([150_000, 1], 0), [], "they do not look ordered");
}

#[test]
fn link_is_judged_and_may_begin_before_what_it_links_to() {
    let of = |linked: [i64; 2]| {
        let follower =
            Span { links: [SpanId(2)].into(), ..span(1, 0, 1, [100_000, 200_000], 0, 10) };
        only(vec![follower, span(2, 0, 2, linked, 0, 10)]).verdict
    };
    assert_eq!(of([50_000, 60_000]), Verdict::Certain(Order::AsShown));
    assert_eq!(of([150_000, 160_000]), Verdict::Certain(Order::OtherThanShown));
    assert_eq!(of([250_000, 260_000]), Verdict::Impossible { by_ns: 49_980 });
}

#[test]
fn cyclic_double_and_orphaned_spans_are_counted_and_the_rest_is_judged() {
    let (judge, judged) = judged(vec![
        // A ring of two, a span that is its own parent, and a child of the ring.
        span(1, 2, 1, [100, 200], 0, 1),
        span(2, 1, 2, [100, 200], 0, 1),
        span(3, 3, 1, [100, 200], 0, 1),
        span(4, 1, 2, [150, 200], 0, 1),
        span(4, 3, 3, [400, 500], 0, 1),
        span(5, 77, 1, [100, 200], 0, 1),
    ]);
    assert_eq!(judge.totals.in_cycles, 3);
    assert_eq!(judge.totals.duplicates, 1);
    assert_eq!(judge.totals.orphans, 1);
    assert_eq!(judged.pairs.len(), 1, "the child of the ring");
}

#[test]
fn clock_that_contradicts_several_is_named_with_the_time_since_when() {
    let mut judge = Judge::new(1_000_000, None);
    let second = 1_000_000_000_i64;
    for n in 0..100_i64 {
        let at = n * second;
        // From the 40th second on, host 2 is 50 us behind and does not know it.
        let lie = if n >= 40 { 50_000 } else { 0 };
        let spans = [
            span(1, 0, 1, [at, at + 900_000], 0, 100),
            span(2, 1, 2, [at + 20_000 - lie, at + 100_000 - lie], 0, 100),
            span(3, 1, 3, [at + 20_000, at + 100_000], 0, 100),
            span(4, 3, 2, [at + 40_000 - lie, at + 100_000 - lie], 0, 100),
        ];
        for span in spans {
            judge.push(TraceId(1 + n as u128), span, &mut |_| {});
        }
    }
    judge.finish(&mut |_| {});
    let suspicions = judge.ledger.suspicions();
    assert_eq!(suspicions.len(), 1, "{suspicions:?}");
    let suspicion = &suspicions[0];
    assert_eq!(suspicion.accused, Accused::Host(2));
    assert_eq!(suspicion.pairs, 120);
    assert_eq!(suspicion.by_ns, 30_000 - 200);
    assert!((40 * second - 50_000..41 * second).contains(&suspicion.first_ns));
    assert_eq!(suspicion.last_good_ns.unwrap() / second, 39);
}

#[test]
fn of_two_hosts_nobody_can_say_which_lied() {
    let (judge, _) = judged(vec![
        span(1, 0, 1, [100_000, 200_000], 0, 10),
        span(2, 1, 2, [90_000, 95_000], 0, 10),
    ]);
    assert_eq!(judge.ledger.suspicions()[0].accused, Accused::OneOf([1, 2]));
}

#[test]
fn no_more_spans_are_open_than_permitted_and_late_ones_are_counted() {
    let mut judge = Judge::new(10, None);
    let mut closed = 0;
    for n in 0..1_000_u64 {
        judge.push(TraceId(n.into()), span(1, 0, 1, [1, 2], 0, 1), &mut |_| closed += 1);
        assert!(judge.open_spans() <= 10);
    }
    judge.push(TraceId(5), span(2, 1, 2, [1, 2], 0, 1), &mut |_| closed += 1);
    judge.finish(&mut |_| closed += 1);
    assert_eq!((judge.totals.late, closed), (1, 1_001));
}

proptest! {
    /// Whatever the clocks' errors: within their bounds no verdict is wrong.
    #[test]
    fn no_verdict_is_wrong_while_bounds_hold(
        hops in proptest::collection::vec(1_i64..100_000, 1..30),
        errors in proptest::collection::vec(-1.0_f64..1.0, 31),
        bound in 1_i64..60_000,
    ) {
        let mut spans = Vec::new();
        let mut at = 1_000_000_000;
        for (n, hop) in (0..).zip(std::iter::once(&0).chain(&hops)) {
            at += hop;
            let error = (errors[n as usize] * bound as f64) as i64;
            let shown = [at + error, at + error + 10_000_000];
            spans.push(span(n + 1, n, n as u32 % 5, shown, 0, bound));
        }
        let (judge, _) = judged(spans);
        prop_assert_eq!(judge.totals.impossible, 0);
        prop_assert_eq!(judge.totals.raw_wrong, 0);
    }

    #[test]
    fn any_trace_ends(spans in proptest::collection::vec(
        (0_u64..6, 0_u64..6, 0_u32..3, any::<i64>(), any::<i64>(), 0_i64..i64::MAX), 0..40)
    ) {
        let spans: Vec<Span> = spans.into_iter().map(|(id, parent, host, start, end, bound)| {
            let when = |at: i64| When {
                lo_ns: at.saturating_sub(bound), hi_ns: at.saturating_add(bound), grandmaster: 1,
            };
            Span {
                raw_start_ns: start, raw_end_ns: end, start: Ok(when(start)), end: Ok(when(end)),
                links: [SpanId(parent)].into(), ..span(id, parent, host, [0, 0], 0, 0)
            }
        }).collect();
        if !spans.is_empty() {
            let (judge, judged) = judged(spans);
            prop_assert!(judged.pairs.len() <= 3 * 40);
            let _ = judge.ledger.suspicions();
        }
    }
}
