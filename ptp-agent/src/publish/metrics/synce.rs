//! Families of synchronous Ethernet: the quality level of each interface, frames, and the states of DPLLs.

use super::{
    MAX_PORTS,
    family::{DPLL_LOCK, ESMC_FRAMES, Families, SYNCE_QUALITY, SYNCE_RANK},
};
use crate::publish::snapshot::{DpllStatus, EsmcStatus};

/// States of a DPLL, by their names.
const LOCK_STATES: [&str; 4] = ["unlocked", "locked", "locked_ho_acq", "holdover"];

/// What is known of synchronous Ethernet.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SyncEFigures {
    interfaces: Vec<EsmcStatus>,
    dplls: Vec<DpllStatus>,
}

impl SyncEFigures {
    /// Of these interfaces and loops.
    pub fn new(interfaces: &[EsmcStatus], dplls: &[DpllStatus]) -> Self {
        let interfaces = interfaces.iter().take(MAX_PORTS).cloned().collect();
        Self { interfaces, dplls: dplls.iter().take(MAX_PORTS).cloned().collect() }
    }

    pub(super) fn add(&self, families: &mut Families) {
        for status in &self.interfaces {
            let interface = ("interface", status.interface.as_str());
            if let (Some(level), Some(rank)) = (&status.level, status.rank) {
                families.add(&SYNCE_QUALITY, &[interface, ("level", level)], 1.0);
                families.add(&SYNCE_RANK, &[interface], rank.into());
            }
            for (outcome, total) in [
                ("accepted", status.messages),
                ("malformed", status.malformed),
                ("excess", status.excess),
                ("dropped", status.dropped),
            ] {
                families.add(&ESMC_FRAMES, &[interface, ("outcome", outcome)], total as f64);
            }
        }
        for dpll in &self.dplls {
            let (id, is) = (dpll.id.to_string(), dpll.lock_status.as_str());
            let labels = [("dpll", id.as_str()), ("type", dpll.kind.as_str())];
            for state in LOCK_STATES {
                let labels = [labels[0], labels[1], ("state", state)];
                families.add(&DPLL_LOCK, &labels, f64::from(state == is));
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::publish::metrics) fn example() -> SyncEFigures {
        let interface = EsmcStatus {
            interface: "eth0".to_owned(),
            level: Some("QL-PRC".into()),
            rank: Some(3),
            messages: 7,
            ..EsmcStatus::default()
        };
        let dpll = DpllStatus {
            kind: "eec".to_owned(),
            lock_status: "holdover".to_owned(),
            ..DpllStatus::default()
        };
        SyncEFigures::new(&[interface], &[dpll])
    }
}
