//! How far the clock can be trusted, in the words of status, metrics and text lines.

use ptp_common::time::Duration;
use serde_json::{Value, json};

use crate::{
    engine::origin::{BoundReference, Origin},
    publish::{
        export::{View, Withheld},
        metrics::PortFigures,
    },
    servo::Trust,
};

/// What the status says of it.
pub(super) fn status(view: &View<'_>, withheld: Option<String>) -> Value {
    let trust = view.trust;
    let nanos = |of: fn(&Trust) -> Duration| trust.as_ref().map(|trust| ceiling(of(trust)));
    json!({
        "error_bound_ns": nanos(|trust| trust.bound),
        "precision_ns": nanos(|trust| trust.precision),
        "interval_ns": trust.map(|trust| interval(&trust)),
        "bound_basis": trust.map(|trust| trust.basis.name()),
        "bound_reference": trust.map(|_| view.reference.name()),
        "clipped": trust.map(|trust| trust.is_clipped),
        "utc": utc(view),
        "withheld": withheld,
    })
}

/// The part of the status about UTC: the same bound with the grandmaster's own error in it, and what it
/// is against where nobody knows that.
fn utc(view: &View<'_>) -> Value {
    let inaccuracy = view.inaccuracy.filter(|_| !view.is_utc_unknown);
    let bound = view.trust.map(|trust| trust.bound + inaccuracy.unwrap_or(Duration::ZERO));
    let reference = if inaccuracy.is_some() { BoundReference::Utc } else { view.reference };
    json!({
        "bound_ns": bound.map(ceiling),
        "reference": view.trust.map(|_| reference.name()),
        "grandmaster_accuracy_ns": view.inaccuracy.map(ceiling),
        "offset_s": view.utc_offset_s,
    })
}

/// Whole nanoseconds, rounded up: a bound is never too small.
pub(super) fn ceiling(span: Duration) -> i64 {
    let nearest = span.as_nanos();
    if Duration::from_nanos(nearest) < span { nearest.saturating_add(1) } else { nearest }
}

/// Lowest and highest, nanoseconds, rounded outwards.
pub(super) fn interval(trust: &Trust) -> [i64; 2] {
    [ceiling(-trust.interval.lo).saturating_neg(), ceiling(trust.interval.hi)]
}

/// What metrics say of it.
pub(super) fn set_figures(figures: &mut PortFigures, trust: Option<&Trust>, origin: &Origin) {
    let seconds = |of: fn(&Trust) -> Duration| trust.map(|trust| of(trust).as_secs_f64());
    figures.clock_error_bound_seconds = seconds(|trust| trust.bound);
    figures.clock_precision_seconds = seconds(|trust| trust.precision);
    figures.causal_interval_seconds =
        trust.map(|trust| [trust.interval.lo, trust.interval.hi].map(Duration::as_secs_f64));
    if let Some(parent) = origin.parent {
        figures.set_parent(parent.grandmaster_identity, parent.parent_port_identity);
    }
}

/// The end of a line of text about a sample.
pub(super) fn text(trust: Option<&Trust>) -> String {
    match trust {
        None => "bound unknown".to_owned(),
        Some(trust) => {
            let clipped = if trust.is_clipped { ", clipped" } else { "" };
            let (bound, precision) = (ceiling(trust.bound), ceiling(trust.precision));
            format!("bound {bound} ns (precision {precision} ns{clipped})")
        }
    }
}

/// Why time is withheld from the clock, or from other programs; the clock comes first.
pub(super) fn withheld(refused: Option<&str>, exports: Option<&Withheld>) -> Option<String> {
    refused.map(str::to_owned).or_else(|| exports.map(ToString::to_string))
}
