//! What a port that is observed tells behind its Follow_Up and Signaling (IEEE 802.1AS-2020 11.4.4.3 and 10.6.4.3).

use ptp_common::wire::gptp::{AskedInterval, FollowUpInformation, IntervalRequest, RATE_SCALE};
use serde::{Deserialize, Serialize};

use crate::engine::observer::Told;

/// See the module's paragraph.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ObservedTold {
    /// Follow_Up information TLV.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub follow_up_information: Option<FollowUpStatus>,
    /// Message interval request TLV.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval_request: Option<IntervalRequestStatus>,
    /// How far a clock of ours says that it may be behind the grandmaster, and how far ahead, nanoseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deviation_ns: Option<(u32, u32)>,
}

/// What a Follow_Up says of the grandmaster's time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct FollowUpStatus {
    /// `cumulativeScaledRateOffset`: the grandmaster's rate over the sender's, minus one.
    pub cumulative_rate_offset_ppb: f64,
    /// `gmTimeBaseIndicator`.
    pub time_base_indicator: u16,
    /// `lastGmPhaseChange`.
    pub last_phase_change_ns: f64,
    /// `scaledLastGmFreqChange`.
    pub last_frequency_change_ppb: f64,
}

/// The intervals that a neighbour asks for: log2 s, or `keep`, `initial` or `stop`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct IntervalRequestStatus {
    /// Of Pdelay_Req.
    pub link_delay: String,
    /// Of Sync.
    pub time_sync: String,
    /// Of Announce.
    pub announce: String,
}

impl ObservedTold {
    /// Of what was seen last.
    pub fn new(told: &Told) -> Self {
        Self {
            follow_up_information: told.information.as_ref().map(FollowUpStatus::new),
            interval_request: told.asked.as_ref().map(IntervalRequestStatus::new),
            deviation_ns: told.deviation.map(|it| (it.behind_ns, it.ahead_ns)),
        }
    }

    /// For people: what, and how much.
    pub fn lines(&self) -> impl Iterator<Item = (&'static str, String)> + '_ {
        let information = self.follow_up_information.as_ref().map(|it| {
            let text = format!(
                "rate {:+.1} ppb, time base {}, last phase change {:.0} ns, last frequency change {:+.1} ppb",
                it.cumulative_rate_offset_ppb,
                it.time_base_indicator,
                it.last_phase_change_ns,
                it.last_frequency_change_ppb
            );
            ("grandmaster", text)
        });
        let asked = self.interval_request.as_ref().map(|it| {
            let IntervalRequestStatus { link_delay, time_sync, announce } = it;
            let text = format!("Pdelay_Req {link_delay}, Sync {time_sync}, Announce {announce}");
            ("asks for intervals (log2 s):", text)
        });
        let deviation = self.deviation_ns.map(|(behind, ahead)| {
            ("says it is off by no more than", format!("-{behind} to +{ahead} ns"))
        });
        [information, asked, deviation].into_iter().flatten()
    }
}

impl FollowUpStatus {
    fn new(information: &FollowUpInformation) -> Self {
        let ppb = |scaled: i32| f64::from(scaled) / RATE_SCALE * 1e9;
        Self {
            cumulative_rate_offset_ppb: ppb(information.cumulative_scaled_rate_offset),
            time_base_indicator: information.gm_time_base_indicator,
            last_phase_change_ns: information.phase_change().as_nanos_f64(),
            last_frequency_change_ppb: ppb(information.scaled_last_gm_freq_change),
        }
    }
}

impl IntervalRequestStatus {
    fn new(request: &IntervalRequest) -> Self {
        let text = |asked: AskedInterval| match asked {
            AskedInterval::Keep => "keep".to_owned(),
            AskedInterval::Initial => "initial".to_owned(),
            AskedInterval::Stop => "stop".to_owned(),
            AskedInterval::Log(log) => log.to_string(),
        };
        Self {
            link_delay: text(request.link_delay),
            time_sync: text(request.time_sync),
            announce: text(request.announce),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ptp_common::wire::Deviation;

    #[test]
    fn what_a_gptp_port_tells_is_shown_in_figures_and_in_words() {
        let mut phase = [0; 12];
        phase[9] = 5;
        let information = FollowUpInformation {
            cumulative_scaled_rate_offset: 2_199_023,
            gm_time_base_indicator: 3,
            last_gm_phase_change: phase,
            scaled_last_gm_freq_change: -2_199_023,
        };
        let asked = IntervalRequest {
            link_delay: AskedInterval::Keep,
            time_sync: AskedInterval::Log(-4),
            announce: AskedInterval::Stop,
            flags: 0,
        };
        let deviation = Some(Deviation { behind_ns: 700, ahead_ns: 900 });
        let told = ObservedTold::new(&Told {
            information: Some(information),
            asked: Some(asked),
            deviation,
        });
        let json = serde_json::to_value(&told).unwrap();
        assert_eq!(json["follow_up_information"]["time_base_indicator"], 3);
        assert_eq!(json["follow_up_information"]["last_phase_change_ns"], 5.0);
        assert_eq!(json["interval_request"]["time_sync"], "-4");
        assert_eq!(json["deviation_ns"], serde_json::json!([700, 900]));
        let lines: Vec<String> =
            told.lines().map(|(what, text)| format!("{what} {text}")).collect();
        assert_eq!(
            lines,
            [
                "grandmaster rate +1000.0 ppb, time base 3, last phase change 5 ns, last frequency change -1000.0 ppb",
                "asks for intervals (log2 s): Pdelay_Req keep, Sync -4, Announce stop",
                "says it is off by no more than -700 to +900 ns",
            ]
        );
        let none = serde_json::to_value(ObservedTold::default()).unwrap();
        assert_eq!(none, serde_json::json!({}));
    }
}
