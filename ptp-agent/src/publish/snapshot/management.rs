//! What the snapshot says of management.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::publish::management::ManagementFigures;

/// What became of management requests, and who is told what happens.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ManagementStatus {
    /// By outcome.
    pub requests: BTreeMap<String, u64>,
    /// Those that have subscribed to events.
    pub subscribers: usize,
    /// Events that were told.
    pub events_told: u64,
    /// And those that could not be.
    pub events_untold: u64,
    /// Messages of slave event monitoring, by outcome.
    pub slave_events: BTreeMap<String, u64>,
}

impl From<&ManagementFigures> for ManagementStatus {
    fn from(figures: &ManagementFigures) -> Self {
        let named = |counts: &BTreeMap<&'static str, u64>| {
            counts.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect()
        };
        Self {
            requests: named(&figures.requests),
            subscribers: figures.subscribers,
            events_told: figures.told,
            events_untold: figures.untold,
            slave_events: named(&figures.slave_events),
        }
    }
}
