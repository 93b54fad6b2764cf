//! What stands behind Announce and is for people: alternate times (16.3) and the power profile (IEEE C37.238); and of
//! `serve` where its alternate times are from.

use ptp_common::wire::{Inaccuracy, PowerProfile};
use serde::{Deserialize, Serialize};

use crate::{engine::extras::Extras, zones};

/// See the module's paragraph.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AnnouncedExtras {
    /// Local times and the like, which nobody's clock follows.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub alternate_times: Vec<AlternateTime>,
    /// Of the power profile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub power_profile: Option<PowerStatus>,
}

/// An alternate time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AlternateTime {
    /// `keyField`.
    pub key: u8,
    /// `displayName`.
    pub name: String,
    /// `currentOffset` from the grandmaster's time, seconds.
    pub offset_s: i32,
    /// `jumpSeconds`.
    pub jump_s: i32,
    /// `timeOfNextJump`, the grandmaster's time, seconds.
    pub next_jump_s: u64,
    /// All of it in words.
    pub text: String,
}

/// What the power profile's TLV says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PowerStatus {
    /// Of IEEE C37.238: 2011 or 2017.
    pub version: u16,
    /// `grandmasterID`.
    pub grandmaster_id: u16,
    /// `grandmasterTimeInaccuracy` (2011).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grandmaster_inaccuracy_ns: Option<u32>,
    /// `networkTimeInaccuracy` (2011).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_inaccuracy_ns: Option<u32>,
    /// `totalTimeInaccuracy` (2017).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_inaccuracy_ns: Option<u32>,
}

/// The time zone database of a server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ZoneDatabase {
    /// As in `2025b`, where it says so.
    pub version: Option<String>,
    /// Why it may be too old.
    pub doubt: Option<String>,
}

impl AnnouncedExtras {
    /// Of what is announced, by a grandmaster whose time is so many seconds ahead of UTC, where that is known.
    pub fn new(extras: &Extras, utc_offset_s: Option<i64>) -> Self {
        let alternates = extras.alternates.iter().map(|each| AlternateTime {
            key: each.key,
            name: each.name.to_string(),
            offset_s: each.current_offset_s,
            jump_s: each.jump_s,
            next_jump_s: each.next_jump_s,
            text: zones::text(each, utc_offset_s),
        });
        Self {
            alternate_times: alternates.collect(),
            power_profile: extras.power.as_ref().map(PowerStatus::new),
        }
    }

    /// In lines, with what each is.
    pub fn lines(&self) -> impl Iterator<Item = (&'static str, String)> + '_ {
        let times = self.alternate_times.iter().map(|each| ("local time", each.text.clone()));
        times.chain(self.power_profile.iter().map(|power| ("power", power.text())))
    }
}

impl PowerStatus {
    fn new(power: &PowerProfile) -> Self {
        let this = Self { grandmaster_id: power.grandmaster_id, ..Self::default() };
        match power.inaccuracy {
            Inaccuracy::V2011 { grandmaster_ns, network_ns } => Self {
                version: 2011,
                grandmaster_inaccuracy_ns: Some(grandmaster_ns),
                network_inaccuracy_ns: Some(network_ns),
                ..this
            },
            Inaccuracy::V2017 { total_ns } => {
                Self { version: 2017, total_inaccuracy_ns: Some(total_ns), ..this }
            }
        }
    }

    fn text(&self) -> String {
        let told = [
            ("grandmaster", self.grandmaster_inaccuracy_ns),
            ("network", self.network_inaccuracy_ns),
            ("in all", self.total_inaccuracy_ns),
        ];
        let told = told.iter().filter_map(|(what, nanos)| Some((what, (*nanos)?)));
        let told = told.map(|(what, nanos)| match nanos {
            u32::MAX => format!("{what} unknown"),
            nanos => format!("{what} {nanos} ns"),
        });
        let told: Vec<String> = told.collect();
        let Self { version, grandmaster_id, .. } = self;
        format!("C37.238-{version} grandmaster {grandmaster_id}, inaccuracy {}", told.join(", "))
    }
}
