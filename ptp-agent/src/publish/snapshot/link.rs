//! What is known of a link beside its delay, and with IEEE 802.1AS of the grandmaster's time beside the time itself.

use serde::{Deserialize, Serialize};

/// Of a link.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LinkStatus {
    /// `neighborRateRatio` less one: by how much the neighbour's clock is faster than this host's monotonic one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub neighbor_rate_ppb: Option<f64>,
    /// How often `asCapable` has changed, where anybody asks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub as_capable_changes: Option<u64>,
    /// `common` where it is measured in the name of the Common Mean Link Delay Service, `told` where another program
    /// measures it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub link_delay_service: Option<String>,
}

/// Of the grandmaster's time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Gptp {
    /// By what other ports pass the time on: `residence` or `clock`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relay: Option<String>,
    /// By how much the grandmaster is faster than this host's monotonic clock, as all neighbours on the way say it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grandmaster_rate_ppb: Option<f64>,
    /// `gmTimeBaseIndicator`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_base_indicator: Option<u16>,
    /// `lastGmPhaseChange`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_phase_change_ns: Option<i64>,
}

impl LinkStatus {
    /// In words; empty where nothing is known.
    pub fn text(&self, as_capable: Option<bool>) -> Option<String> {
        let service = self.link_delay_service.as_deref().map(|service| match service {
            "told" => "measured by another program".to_owned(),
            _ => "common service".to_owned(),
        });
        let capable = as_capable.map(|is| {
            let changes = self.as_capable_changes.unwrap_or(0);
            let not = if is { "" } else { "not " };
            format!("{not}asCapable, {changes} changes")
        });
        let rate = self.neighbor_rate_ppb.map(|ppb| format!("neighbour {ppb:+.0} ppb"));
        let parts: Vec<String> = [service, capable, rate].into_iter().flatten().collect();
        (!parts.is_empty()).then(|| parts.join(", "))
    }
}

impl Gptp {
    /// In words.
    pub fn text(&self) -> String {
        let relay = self.relay.as_ref().map(|relay| format!("passed on by {relay}"));
        let rate = self.grandmaster_rate_ppb.map(|ppb| format!("grandmaster {ppb:+.0} ppb"));
        let base = self.time_base_indicator.map(|base| {
            let change = self.last_phase_change_ns.unwrap_or(0);
            format!("time base {base} (by {change} ns)")
        });
        [relay, rate, base].into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}
