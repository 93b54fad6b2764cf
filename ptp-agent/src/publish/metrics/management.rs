//! Metrics of management messages: what became of requests, and who is told what happens.

use super::Metrics;
use super::family::{
    Families, MANAGEMENT_EVENTS, MANAGEMENT_REQUESTS, MANAGEMENT_SUBSCRIBERS, SLAVE_EVENTS,
};
use crate::publish::management::ManagementFigures;

impl Metrics {
    /// Sets what has become of management messages.
    pub fn set_management(&self, figures: ManagementFigures) {
        self.figures.lock().management = Some(figures);
    }
}

pub(super) fn add(families: &mut Families, figures: Option<&ManagementFigures>) {
    let Some(figures) = figures else { return };
    for (outcome, total) in &figures.requests {
        families.add(&MANAGEMENT_REQUESTS, &[("outcome", outcome)], *total as f64);
    }
    families.add(&MANAGEMENT_SUBSCRIBERS, &[], figures.subscribers as f64);
    for (outcome, total) in [("told", figures.told), ("untold", figures.untold)] {
        families.add(&MANAGEMENT_EVENTS, &[("outcome", outcome)], total as f64);
    }
    for (outcome, total) in &figures.slave_events {
        families.add(&SLAVE_EVENTS, &[("outcome", outcome)], *total as f64);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::publish::metrics) fn example() -> ManagementFigures {
        ManagementFigures {
            requests: [("answered", 1)].into(),
            slave_events: [("sent", 1)].into(),
            ..ManagementFigures::default()
        }
    }
}
