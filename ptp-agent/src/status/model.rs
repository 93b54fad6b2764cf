//! The status as the agent tells it, as far as it is shown. Whatever is missing is left out: an agent
//! may be older or newer than the command that asks it.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// See the module's paragraph.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Status {
    pub(super) command: Option<String>,
    pub(super) version: Option<String>,
    pub(super) pid: Option<u32>,
    pub(super) uptime_s: Option<f64>,
    pub(super) clock_identity: Option<String>,
    pub(super) domain: Option<u8>,
    pub(super) clock: Option<String>,
    pub(super) servo: Option<String>,
    pub(super) servo_state: Option<String>,
    pub(super) grandmaster: Option<String>,
    pub(super) grandmaster_class: Option<u8>,
    pub(super) parent_port: Option<String>,
    pub(super) steps_removed: Option<u16>,
    pub(super) time_scale: Option<String>,
    pub(super) samples: Option<u64>,
    pub(super) sample_age_s: Option<f64>,
    pub(super) offset_ns: Option<i64>,
    pub(super) delay_ns: Option<i64>,
    pub(super) frequency_ppb: Option<f64>,
    pub(super) error_bound_ns: Option<i64>,
    pub(super) precision_ns: Option<i64>,
    pub(super) interval_ns: Option<[i64; 2]>,
    /// Which of the reasons for a bound speaks.
    pub(super) bound_basis: Option<String>,
    /// What the bound is against.
    pub(super) bound_reference: Option<String>,
    pub(super) clipped: Option<bool>,
    pub(super) utc: Option<Utc>,
    /// Why time is not passed on.
    pub(super) withheld: Option<String>,
    pub(super) alarms: Vec<Alarm>,
    pub(super) ports: Vec<Port>,
    pub(super) lost: BTreeMap<String, u64>,
    /// Seconds since the agent's start, offset and delay in ns.
    pub(super) history: Vec<(f64, i64, Option<i64>)>,
    /// Why this is not up to date.
    #[serde(skip)]
    pub(super) problem: Option<String>,
}

/// The bound as one against UTC, or what it is against where nobody knows that.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Utc {
    pub(super) bound_ns: Option<i64>,
    pub(super) reference: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Alarm {
    pub(super) alarm: String,
    pub(super) for_s: f64,
    pub(super) meaning: String,
    /// The figures behind it; may be empty.
    pub(super) detail: String,
    pub(super) explanation: String,
    /// Path of the page about it.
    pub(super) runbook: Option<String>,
}

/// A port of the agent; or one of those that it observes, which have a role and no state.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Port {
    pub(super) interface: Option<String>,
    pub(super) state: Option<String>,
    pub(super) port: Option<String>,
    pub(super) role: Option<String>,
    pub(super) offset_ns: Option<i64>,
    pub(super) sources: Option<Sources>,
    pub(super) timestamps: BTreeMap<String, BTreeMap<String, BTreeMap<String, u64>>>,
    /// Of a transparent clock: messages by type and outcome.
    pub(super) messages: BTreeMap<String, BTreeMap<String, u64>>,
    /// How long event messages were inside, by direction.
    pub(super) residence: BTreeMap<String, Residence>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Residence {
    pub(super) n: u64,
    pub(super) p50_ns: Option<i64>,
    pub(super) p99_ns: Option<i64>,
    pub(super) max_ns: Option<i64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Sources {
    pub(super) rx: Option<String>,
    pub(super) tx: Option<String>,
    pub(super) primed: bool,
}

impl Status {
    /// Of what an agent has answered. Something that is no status is an empty one.
    pub(super) fn new(value: &Value) -> Self {
        match Self::deserialize(value) {
            Ok(status) => status,
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

impl Port {
    /// One line about what a transparent clock has done with each type of message:
    /// `follow_up: 12 corrected, 3 held`.
    pub(super) fn outcomes(&self) -> String {
        let types = self.messages.iter().map(|(kind, outcomes)| {
            let outcomes = outcomes.iter().map(|(outcome, total)| format!("{total} {outcome}"));
            format!("{kind}: {}", outcomes.collect::<Vec<_>>().join(", "))
        });
        let types: Vec<_> = types.collect();
        if types.is_empty() { "-".into() } else { types.join("; ") }
    }

    /// One line about the stamps of a direction: `stack: 512 matched, 3 late`.
    pub(super) fn stamps(&self, direction: &str) -> String {
        let Some(sources) = self.timestamps.get(direction) else { return "-".into() };
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
        assert_eq!(status.offset_ns, Some(-123));
        assert_eq!(status.ports[0].stamps("rx"), "stack: 3 late, 512 matched");
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
}
