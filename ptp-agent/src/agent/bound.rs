//! How far the clock can be trusted, in the words of status, metrics and text lines.

use ptp_common::time::Duration;

use crate::{
    engine::origin::{BoundReference, Origin},
    publish::{
        export::{View, Withheld},
        metrics::PortFigures,
        snapshot::{Following, Utc},
    },
    servo::{Interval, Servo, Trust},
};

/// Puts into the snapshot what is to be said of it.
pub(super) fn tell(following: &mut Following, view: &View<'_>, withheld: Option<String>) {
    let trust = view.trust;
    let nanos = |of: fn(&Trust) -> Duration| trust.as_ref().map(|trust| ceiling(of(trust)));
    following.error_bound_ns = nanos(|trust| trust.bound);
    following.precision_ns = nanos(|trust| trust.precision);
    following.interval_ns = trust.map(|trust| interval(&trust));
    following.bound_basis = trust.map(|trust| trust.basis.into());
    following.bound_reference = trust.map(|_| view.reference.into());
    following.clipped = trust.map(|trust| trust.is_clipped);
    following.utc = Some(utc(view));
    following.withheld = withheld;
}

/// The part about UTC: the same bound with the grandmaster's own error in it, and what it is against where
/// nobody knows that.
fn utc(view: &View<'_>) -> Utc {
    let inaccuracy = view.inaccuracy.filter(|_| !view.is_utc_unknown);
    let bound = view.trust.map(|trust| trust.bound + inaccuracy.unwrap_or(Duration::ZERO));
    let reference = if inaccuracy.is_some() { BoundReference::Utc } else { view.reference };
    Utc {
        bound_ns: bound.map(ceiling),
        reference: view.trust.map(|_| reference.into()),
        grandmaster_accuracy_ns: view.inaccuracy.map(ceiling),
        offset_s: view.utc_offset_s.map(i64::from),
    }
}

/// Whole nanoseconds, rounded up: a bound is never too small.
pub(super) fn ceiling(span: Duration) -> i64 {
    let nearest = span.as_nanos();
    if Duration::from_nanos(nearest) < span { nearest.saturating_add(1) } else { nearest }
}

/// Lowest and highest, nanoseconds, rounded outwards.
pub(super) fn interval(trust: &Trust) -> [i64; 2] {
    nanos_outwards(trust.interval)
}

/// The same of any interval.
pub(super) fn nanos_outwards(interval: Interval) -> [i64; 2] {
    [ceiling(-interval.lo).saturating_neg(), ceiling(interval.hi)]
}

/// What metrics say of it.
pub(super) fn set_figures(figures: &mut PortFigures, trust: Option<&Trust>, origin: &Origin) {
    let seconds = |of: fn(&Trust) -> Duration| trust.map(|trust| of(trust).as_secs_f64());
    figures.clock_error_bound_seconds = seconds(|trust| trust.bound);
    figures.clock_precision_seconds = seconds(|trust| trust.precision);
    figures.causal_interval_seconds =
        trust.map(|trust| [trust.interval.lo, trust.interval.hi].map(Duration::as_secs_f64));
    if let Some(parent) = origin.parent {
        figures.set_parent(parent.set.grandmaster_identity, parent.set.parent_port_identity);
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

/// Samples that contradicted the others so far, and whether the latest does, so that time is in doubt.
pub(super) fn doubt(servo: &dyn Servo) -> (u64, bool) {
    (servo.contradictions(), servo.is_contradicted())
}

/// Why time is withheld from the clock, or from other programs; the clock comes first.
pub(super) fn withheld(refused: Option<&str>, exports: Option<&Withheld>) -> Option<String> {
    refused.map(str::to_owned).or_else(|| exports.map(ToString::to_string))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::servo::{Basis, ServoState};
    use ptp_common::time::Time;
    use serde_json::{Value, json};

    fn status(view: &View<'_>, withheld: Option<String>) -> Value {
        let mut following = Following::default();
        tell(&mut following, view, withheld);
        json!(following)
    }

    fn trust() -> Trust {
        // Not whole, so that rounding shows.
        let odd = Duration::from_scaled_nanos(1);
        Trust {
            bound: Duration::from_nanos(900) + odd,
            precision: Duration::from_nanos(40),
            interval: Interval { lo: Duration::from_nanos(-900) - odd, hi: Duration::ZERO + odd },
            basis: Basis::Causality,
            is_clipped: false,
            growth: Duration::ZERO,
        }
    }

    fn view() -> View<'static> {
        View {
            now: Time::ZERO,
            state: ServoState::Locked,
            software: None,
            trust: Some(trust()),
            rate_error_ppb: 1_000.0,
            reference: BoundReference::Grandmaster,
            inaccuracy: Some(Duration::from_nanos(100)),
            utc_offset_s: Some(37),
            is_utc_unknown: false,
            real: Time::ZERO,
            real_error: None,
            real_error_bound: None,
            leap: 0,
            steps: 0,
        }
    }

    #[test]
    fn status_says_how_far_by_what_and_against_whom() {
        let status = status(&view(), None);
        assert_eq!(status["error_bound_ns"], 901, "rounded up");
        assert_eq!(status["interval_ns"], json!([-901, 1]), "rounded outwards");
        assert_eq!((&status["precision_ns"], &status["clipped"]), (&json!(40), &json!(false)));
        assert_eq!(status["bound_basis"], "causality");
        assert_eq!(status["bound_reference"], "grandmaster");
        assert_eq!(status["utc"]["bound_ns"], 1_001);
        assert_eq!(status["utc"]["reference"], "utc");
    }

    #[test]
    fn what_nobody_knows_is_relative_to_whom_it_is_known_against() {
        let parent = View { reference: BoundReference::Parent, inaccuracy: None, ..view() };
        let status_of = |view: &View<'_>| status(view, Some("why".to_owned()));
        let status = status_of(&parent);
        assert_eq!(
            (&status["bound_reference"], &status["withheld"]),
            (&json!("parent"), &json!("why"))
        );
        assert_eq!(status["utc"]["reference"], "parent");
        assert_eq!(status["utc"]["bound_ns"], 901);
        let no_offset = View { is_utc_unknown: true, utc_offset_s: None, ..view() };
        assert_eq!(status_of(&no_offset)["utc"]["reference"], "grandmaster");
        let nothing = View { trust: None, ..view() };
        let status = status_of(&nothing);
        for name in ["error_bound_ns", "precision_ns", "interval_ns", "bound_reference", "clipped"]
        {
            assert!(status[name].is_null(), "{name}");
        }
        assert!(status["utc"]["bound_ns"].is_null() && status["utc"]["reference"].is_null());
    }

    #[test]
    fn line_of_text_is_short() {
        assert_eq!(text(Some(&trust())), "bound 901 ns (precision 40 ns)");
        let clipped = Trust { is_clipped: true, ..trust() };
        assert_eq!(text(Some(&clipped)), "bound 901 ns (precision 40 ns, clipped)");
        assert_eq!(text(None), "bound unknown");
    }
}
