//! What is known of synchronous Ethernet, in a line for people.

use crate::publish::snapshot::{DpllStatus, EsmcStatus};

/// What an interface is told.
pub fn esmc_text(status: &EsmcStatus) -> String {
    let mut text = match (&status.level, status.age_s) {
        (Some(level), _) => level.to_string(),
        (None, Some(age)) => format!("unknown, no ESMC for {age:.0} s"),
        (None, None) => "unknown".to_owned(),
    };
    if let (Some(usual), Some(_)) = (&status.lowered_from, &status.level) {
        text += &format!(", lower than {usual}");
    }
    if let Some(source) = &status.source {
        text += &format!(" from {source}");
    }
    if let Some(clock) = &status.clock_identity {
        let (eeecs, eecs) =
            (status.cascaded_eeecs.unwrap_or_default(), status.cascaded_eecs.unwrap_or_default());
        text += &format!(", clock {clock} behind {eeecs} eEEC and {eecs} EEC");
        text += match (status.mixed, status.partial_chain) {
            (_, Some(true)) => " at least (partial chain)",
            (Some(true), _) => " (mixed)",
            _ => "",
        };
    }
    for (count, what) in [
        (status.malformed, "malformed"),
        (status.excess, "too many"),
        (status.dropped, "without room"),
    ] {
        if count > 0 {
            text += &format!(", {count} frames {what}");
        }
    }
    text
}

/// What a loop does.
pub fn dpll_text(dpll: &DpllStatus) -> String {
    let inputs: Vec<&str> = dpll
        .pins
        .iter()
        .filter(|pin| pin.state == "connected")
        .map(|pin| pin.label.as_str())
        .collect();
    let inputs =
        if inputs.is_empty() { String::new() } else { format!(", by {}", inputs.join(", ")) };
    format!(
        "{} {} ({}): {}{inputs}, {}",
        dpll.module, dpll.id, dpll.kind, dpll.lock_status, dpll.mode
    )
}
