//! The status as it is shown: what the agent has told, by the types that it tells it with, and why that is not up to
//! date. Whatever is missing is left out: an agent may be older or newer than the command that asks it.

use std::ops::Deref;

use serde::Deserialize;
use serde_json::Value;

pub(super) use crate::publish::snapshot::{Command, Messages, Port, Snapshot, Sources, Utc};

/// See the module's paragraph.
#[derive(Clone, Debug, Default)]
pub(super) struct Status {
    told: Snapshot,
    /// Why this is not up to date.
    pub(super) problem: Option<String>,
}

impl Deref for Status {
    type Target = Snapshot;
    fn deref(&self) -> &Snapshot {
        &self.told
    }
}

impl Status {
    /// Of what an agent has answered. Something that is no status is an empty one.
    pub(super) fn new(value: &Value) -> Self {
        match Snapshot::deserialize(value) {
            Ok(told) => Self { told, problem: None },
            Err(error) => Self {
                problem: Some(format!("the agent's answer is not understood: {error}")),
                ..Self::default()
            },
        }
    }

    pub(super) fn has_interface(&self, name: &str) -> bool {
        self.ports.iter().any(|port| port.interface.as_deref() == Some(name))
    }
}

/// One line about what a transparent clock has done with each type of message:
/// `follow_up: 12 corrected, 3 held`.
pub(super) fn outcomes(port: &Port) -> String {
    let Some(Messages::ByOutcome(messages)) = &port.messages else { return "-".into() };
    let types = messages.iter().map(|(kind, outcomes)| {
        let outcomes = outcomes.iter().map(|(outcome, total)| format!("{total} {outcome}"));
        format!("{kind}: {}", outcomes.collect::<Vec<_>>().join(", "))
    });
    let types: Vec<_> = types.collect();
    if types.is_empty() { "-".into() } else { types.join("; ") }
}

/// One line about the stamps of a direction: `stack: 512 matched, 3 late`.
pub(super) fn stamps(port: &Port, direction: &str) -> String {
    let Some(sources) = port.stamped.timestamps.get(direction) else { return "-".into() };
    let sources: Vec<String> = sources
        .iter()
        .map(|(source, outcomes)| {
            let outcomes: Vec<String> = outcomes
                .iter()
                .filter(|(outcome, total)| **total > 0 || *outcome == "matched")
                .map(|(outcome, total)| format!("{total} {outcome}"))
                .collect();
            format!("{source}: {}", outcomes.join(", "))
        })
        .collect();
    if sources.is_empty() { "-".into() } else { sources.join("; ") }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use serde_json::json;

    pub(crate) fn example() -> Value {
        json!({
            "command": "run", "version": "0.1.0", "pid": 42, "uptime_s": 3_725.0,
            "clock_identity": "020304.fffe.050607", "domain": 0, "clock": "virtual",
            "servo": "adaptive", "servo_state": "locked",
            "grandmaster": "aabbcc.fffe.ddeeff", "grandmaster_class": 6,
            "parent_port": "aabbcc.fffe.ddeeff-1", "steps_removed": 0, "time_scale": "PTP (TAI)",
            "samples": 51_234, "sample_age_s": 0.03, "offset_ns": -123, "delay_ns": 4_210,
            "frequency_ppb": -36_999.7, "error_bound_ns": 812, "precision_ns": 45,
            "interval_ns": [-812, 630], "bound_basis": "causality", "bound_reference": "grandmaster",
            "clipped": false, "utc": {"bound_ns": 912, "reference": "utc"}, "withheld": null,
            "alarms": [{
                "alarm": "grandmaster_changed", "for_s": 12.0, "meaning": "another grandmaster",
                "explanation": "Another grandmaster has taken over.\nExpected in maintenance.",
                "runbook": "docs/alarms/grandmaster_changed.md",
            }],
            "ports": [{
                "interface": "eth0", "state": "time_receiver",
                "sources": {"rx": "stack", "tx": "start_xmit", "primed": true, "fallbacks": 2},
                "timestamps": {
                    "rx": {"stack": {"matched": 512, "late": 3, "orphaned": 0}},
                    "tx": {"start_xmit": {"matched": 498}},
                },
            }],
            "lost": {"wrong_domain": 7},
            "history": [[1.0, 200, null], [2.0, -150, 4_200], [3.0, 90, 4_210]],
            "news": {"of": "a later version"},
        })
    }

    #[test]
    fn what_is_told_is_read_and_news_are_no_error() {
        let status = Status::new(&example());
        assert!(status.problem.is_none());
        assert_eq!(status.following.offset_ns, Some(-123));
        assert_eq!(stamps(&status.ports[0], "rx"), "stack: 3 late, 512 matched");
        assert!(status.has_interface("eth0") && !status.has_interface("eth1"));
    }

    #[test]
    fn nulls_nothing_and_nonsense_are_no_panic() {
        let nulls = json!({"offset_ns": null, "grandmaster": null, "ports": [{}]});
        assert!(Status::new(&nulls).problem.is_none());
        for value in [json!(null), json!([1]), json!({"alarms": 7})] {
            assert!(Status::new(&value).problem.is_some(), "{value}");
        }
    }

    #[test]
    fn ports_that_an_observer_sees_and_those_of_a_transparent_clock_are_read_too() {
        let observe = json!({"command": "observe", "ports": [
            {"interface": "eth0", "port": "aabbcc.fffe.ddeeff-1", "role": "time_transmitter",
             "direction": "rx", "messages": {"sync": 12}, "offset_ns": 5, "vlan": null},
        ]});
        let status = Status::new(&observe);
        assert_eq!(status.problem, None);
        assert_eq!(status.ports[0].observed.offset_ns, Some(5));
        let transparent = json!({"command": "transparent", "ports": [
            {"interface": "tap0", "state": "transparent", "link_delay_ns": null,
             "messages": {"follow_up": {"corrected": 9}}},
        ]});
        let status = Status::new(&transparent);
        assert_eq!(status.problem, None);
        assert_eq!(status.ports[0].link_delay_ns, Some(None));
        assert_eq!(outcomes(&status.ports[0]), "follow_up: 9 corrected");
    }
}
