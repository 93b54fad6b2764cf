//! The page: figures, the hosts, and traces drawn on a common axis, each end of a span as wide as it is
//! uncertain, with the time that its host's clock showed as a mark.

use std::{io, path::Path};

use maud::{Markup, html};
use ptp_trace::{
    judge::{Judged, Relation, Verdict},
    names::Names,
    span::{Lack, Span, When},
};

use super::{
    results::{DRAWN, Results},
    text::{span as spoken, utc},
};
use crate::publish::{
    plot::{Ink, Svg},
    report::Page,
};

/// Width of a drawing, its own units.
const WIDTH: f64 = 960.0;
/// Where the axis begins.
const LEFT: f64 = 300.0;
/// Height of a span.
const ROW: f64 = 22.0;
/// Height of the axis.
const AXIS: f64 = 26.0;
/// Letters of a name that have room.
const LETTERS: usize = 40;

/// Writes the page.
///
/// # Errors
/// When it cannot be written.
pub(super) fn write(results: &Results, path: &Path) -> io::Result<()> {
    page(results).write(path)
}

fn page(results: &Results) -> Page {
    let totals = &results.totals;
    let mut page = Page::new(
        "What these traces are worth",
        format!(
            "{} spans in {} traces; which orders between hosts are certain",
            results.counts.spans, totals.traces
        ),
    );
    page.figures(&[
        ("pairs on different hosts", totals.pairs.to_string()),
        ("certain", totals.certain.to_string()),
        ("not to be told", totals.untold().to_string()),
        ("impossible", totals.impossible.to_string()),
        ("effect before cause, uncorrected", totals.raw_backwards.to_string()),
    ]);
    for complaint in &results.complaints {
        page.paragraph(complaint);
    }
    for file in &results.files {
        if let Some(error) = &file.error {
            page.paragraph(&format!("{}: {error}", file.name));
        }
    }
    if !results.suspicions.is_empty() {
        page.heading("Clocks that were farther off than they said");
        let rows: Vec<Vec<String>> = results
            .suspicions
            .iter()
            .map(|suspicion| {
                vec![
                    results.accused(suspicion),
                    suspicion.pairs.to_string(),
                    suspicion.last_good_ns.map_or("none before".into(), utc),
                    utc(suspicion.first_ns),
                    utc(suspicion.last_ns),
                    spoken(suspicion.by_ns),
                ]
            })
            .collect();
        let header = ["host", "pairs", "last good, UTC", "first", "last", "beyond the bounds"];
        page.table("", &header, &rows);
    }
    page.heading("What two hosts can order");
    let rows: Vec<Vec<String>> = results
        .by_hosts()
        .into_iter()
        .take(100)
        .map(|([a, b], figures)| {
            let bound =
                |n: usize| figures.bound_ns().map_or("unknown".into(), |both| spoken(both[n]));
            vec![
                format!("{a}, {b}"),
                figures.pairs.to_string(),
                figures.certain.to_string(),
                figures.impossible.to_string(),
                bound(0),
                bound(1),
            ]
        })
        .collect();
    let header = ["hosts", "pairs", "certain", "impossible", "gap that can be told", "worst"];
    page.table("", &header, &rows);
    if !results.without_agent.is_empty() {
        page.heading("Hosts of which nothing is known");
        let rows: Vec<Vec<String>> = results
            .without_agent
            .iter()
            .take(100)
            .map(|(host, spans)| vec![results.names.name(*host).to_owned(), spans.to_string()])
            .collect();
        page.table(
            "Their spans are drawn where their own clocks put them.",
            &["host", "spans"],
            &rows,
        );
    }
    if !results.drawn.is_empty() {
        page.heading("Traces");
        page.paragraph(
            "A bar is a span by its grandmaster's time. Its pale ends reach as far as start and end may \
             be; the short line below is where the host's own clock put it. Lines between spans: \
             solid where the order is certain, dashed where it cannot be told, thick where it is impossible.",
        );
    }
    for judged in &results.drawn {
        let cut = if judged.spans.len() == DRAWN { ", the first of them" } else { "" };
        let caption =
            format!("Trace {}, {} spans{cut}; {}", judged.id, judged.spans.len(), verdicts(judged));
        page.plot(&Svg::of_text(drawing(judged, &results.names).into_string()), &caption);
    }
    page
}

fn verdicts(judged: &Judged) -> String {
    let count =
        |wanted: &str| judged.pairs.iter().filter(|pair| pair.verdict.name() == wanted).count();
    format!(
        "{} pairs certain, {} not to be told, {} impossible",
        count("certain"),
        count("not_to_be_told"),
        count("impossible")
    )
}

/// Where a span is drawn: start and end, each from and to; as its own clock says where nothing better is
/// known.
fn ends(span: &Span) -> [[i64; 2]; 2] {
    let of = |when: Result<When, Lack>, raw: i64| match when {
        Ok(when) => [when.lo_ns, when.hi_ns],
        Err(_) => [raw, raw],
    };
    [of(span.start, span.raw_start_ns), of(span.end, span.raw_end_ns)]
}

fn shortened(name: &str) -> String {
    match name.char_indices().nth(LETTERS) {
        Some((at, _)) => format!("{}…", &name[..at]),
        None => name.to_owned(),
    }
}

fn drawing(judged: &Judged, names: &Names) -> Markup {
    let spans = &judged.spans;
    let drawn = || spans.iter().flat_map(ends).flatten();
    let first = drawn().min().unwrap_or(0);
    let last = drawn().max().unwrap_or(1).max(first.saturating_add(1));
    let width = last.saturating_sub(first).max(1) as f64;
    let x = |at: i64| {
        let share = at.saturating_sub(first) as f64 / width;
        // What a wrong clock puts far away is at the edge.
        LEFT + share.clamp(-0.01, 1.01) * (WIDTH - LEFT - 16.0)
    };
    let y = |row: usize| AXIS + row as f64 * ROW;
    let height = y(spans.len()) + 6.0;
    let number = |value: f64| format!("{value:.1}");
    let [text, grid, bar, other] =
        [Ink::Text, Ink::Grid, Ink::First, Ink::Second].map(Ink::placeholder);
    html! {
        svg xmlns="http://www.w3.org/2000/svg" viewBox=(format!("0 0 {WIDTH} {height}")) {
            @for tick in 0..=4_u8 {
                @let at = first.saturating_add((width * f64::from(tick) / 4.0) as i64);
                line x1=(number(x(at))) x2=(number(x(at))) y1=(AXIS - 4.0) y2=(height) stroke=(grid) {}
                text x=(number(x(at))) y="14" font-size="11" fill=(text)
                    text-anchor=(if tick == 4 { "end" } else { "middle" }) {
                    (spoken(at.saturating_sub(first)))
                }
            }
            @for (row, span) in spans.iter().enumerate() {
                @let [[start_lo, start_hi], [end_lo, end_hi]] = ends(span);
                @let ink = if span.start.is_ok() { &bar } else { &other };
                text x="0" y=(number(y(row) + 13.0)) font-size="11" fill=(text) {
                    (shortened(&format!("{}: {}", names.name(span.host), names.name(span.name))))
                }
                rect x=(number(x(start_lo))) width=(number((x(end_hi) - x(start_lo)).max(1.0)))
                    y=(number(y(row) + 3.0)) height="11" fill=(ink) fill-opacity="0.3" {}
                rect x=(number(x(start_hi))) width=(number((x(end_lo) - x(start_hi)).max(1.0)))
                    y=(number(y(row) + 3.0)) height="11" fill=(ink) {}
                line x1=(number(x(span.raw_start_ns))) x2=(number(x(span.raw_end_ns) + 1.0))
                    y1=(number(y(row) + 17.0)) y2=(number(y(row) + 17.0)) stroke=(text) {}
            }
            @for pair in &judged.pairs {
                @let from = ends(&spans[pair.first])[usize::from(pair.relation == Relation::Neighbours)];
                @let to = ends(&spans[pair.second])[0];
                @let (ink, thick, dashes) = match pair.verdict {
                    Verdict::Certain(_) => (&text, "1", ""),
                    Verdict::Untold(_) => (&text, "1", "3 3"),
                    Verdict::Impossible { .. } => (&other, "3", ""),
                };
                line x1=(number(x(from[0].midpoint(from[1])))) y1=(number(y(pair.first) + 8.0))
                    x2=(number(x(to[0].midpoint(to[1])))) y2=(number(y(pair.second) + 8.0))
                    stroke=(ink) stroke-width=(thick) stroke-dasharray=(dashes) {}
            }
        }
    }
}
