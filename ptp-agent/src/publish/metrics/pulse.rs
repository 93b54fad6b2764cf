//! What is known of a pulse per second.

use std::collections::BTreeMap;

use super::family::{
    Families, NMEA_FIX, NMEA_SENTENCES, PPS_JITTER, PPS_OFFSET, PPS_PULSES, PPS_STATE,
};
use crate::engine::pulse::State;

/// A pulse, and the receiver that says which seconds it is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PulseFigures {
    /// How it stands.
    pub state: State,
    /// Clock minus pulse at the latest one that was given its second.
    pub offset_seconds: Option<f64>,
    /// Mean distance from where it was expected.
    pub jitter_seconds: f64,
    /// Edges by what became of them.
    pub pulses: BTreeMap<&'static str, u64>,
    /// Sentences by what became of them.
    pub sentences: BTreeMap<&'static str, u64>,
    /// Whether the receiver knows the time; `None` where there is none.
    pub fix: Option<bool>,
}

impl PulseFigures {
    pub(super) fn add(&self, families: &mut Families) {
        if let Some(offset) = self.offset_seconds {
            families.add(&PPS_OFFSET, &[], offset);
        }
        families.add(&PPS_JITTER, &[], self.jitter_seconds);
        for state in State::ALL {
            let is_it = f64::from(state == self.state);
            families.add(&PPS_STATE, &[("state", state.name())], is_it);
        }
        for (outcome, total) in &self.pulses {
            families.add(&PPS_PULSES, &[("outcome", outcome)], *total as f64);
        }
        for (outcome, total) in &self.sentences {
            families.add(&NMEA_SENTENCES, &[("outcome", outcome)], *total as f64);
        }
        if let Some(fix) = self.fix {
            families.add(&NMEA_FIX, &[], f64::from(fix));
        }
    }
}
