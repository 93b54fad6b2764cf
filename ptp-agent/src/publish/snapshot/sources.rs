//! Where time comes from beside the grandmaster: servers that are asked, sources that are compared; and how NTP is
//! served.

use std::{borrow::Cow, collections::BTreeMap};

use serde::{Deserialize, Serialize};

use super::Named;
use crate::engine::ntp::nts::NtsState;

/// A server of NTP that is asked.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct NtpServer {
    /// As it was named.
    pub name: String,
    /// Where it was found at first.
    pub address: String,
    /// Its stratum.
    pub stratum: Option<u8>,
    /// What it follows.
    pub reference: Option<String>,
    /// How far it is from its source at the most, by its own words.
    pub root_distance_ns: Option<i64>,
    /// Which of the last eight requests were answered, the latest in the lowest bit.
    pub reach: u8,
    /// The interval at which it is asked, log2 s.
    pub poll: i8,
    /// It has refused service, and is not asked any more.
    pub denied: bool,
    /// It has not answered four requests in a row.
    pub silent: bool,
    /// Requests sent.
    pub requests: u64,
    /// Exchanges completed.
    pub exchanges: u64,
    /// Server minus clock at the latest one.
    pub offset_ns: Option<i64>,
    /// Its round trip.
    pub delay_ns: Option<i64>,
    /// Mean difference of two offsets that follow each other.
    pub jitter_ns: Option<i64>,
    /// How much farther it is ahead of the clock than usual; `null` where that is not sure.
    pub shift_ns: Option<i64>,
    /// Whether the clock is steered by its exchanges.
    pub leads: bool,
    /// How it is protected; `null` where it is asked without NTS.
    pub nts: Option<NtsStatus>,
}

/// How a server of NTP is protected (RFC 8915).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct NtsStatus {
    /// Whether there are keys: `negotiating`, `protected`, `renewing` or `failed`.
    pub state: Named<NtsState>,
    /// Cookies in stock, 8 at the most: each request takes one, each answer brings what is missing.
    pub cookies: u64,
    /// Key exchanges that gave keys.
    pub key_exchanges: u64,
    /// Key exchanges that gave none.
    pub failures: u64,
    /// Answers that were authentic.
    pub authentic: u64,
    /// Refusals of cookies.
    pub naks: u64,
    /// Answers that were not used because they were not authentic or not to what was asked.
    pub refused: u64,
    /// Why there were no keys last time.
    pub problem: Option<String>,
}

/// How NTP is served.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct NtpServed {
    /// What is told; `null` while nobody is answered.
    pub stratum: Option<u8>,
    /// What the clock follows.
    pub reference: Option<String>,
    /// How far the clock is from that at the most.
    pub root_dispersion_ns: Option<i64>,
    /// Whether a leap second is smeared at present.
    pub smeared: bool,
    /// Requests by what became of them.
    pub requests: BTreeMap<String, u64>,
    /// The same of those that came inside of messages of PTP.
    pub over_ptp: BTreeMap<String, u64>,
}

/// Sources of time that are compared.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SourcesStatus {
    /// How they stand to each other.
    pub standing: Cow<'static, str>,
    /// What is done where they contradict each other.
    pub on_disagreement: Cow<'static, str>,
    /// The sources.
    pub of: Vec<SourceStatus>,
}

/// A source of time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SourceStatus {
    /// `ptp` or `ntp`.
    pub kind: Cow<'static, str>,
    /// `domainNumber`.
    pub domain: Option<u8>,
    /// Which.
    pub name: String,
    /// Whose time it is.
    pub grandmaster: String,
    /// Whether it is the one.
    pub followed: bool,
    /// With the others; `null` where it has no opinion yet.
    pub agrees: Option<bool>,
    /// Lowest and highest of clock minus this source.
    pub interval_ns: Option<[i64; 2]>,
}

/// A server that is asked.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServerStatus {
    /// As it is configured.
    pub name: String,
    /// `csptp` or `sptp`.
    pub protocol: Cow<'static, str>,
    /// Where it is; `null` while its name has no address.
    pub address: Option<String>,
    /// Whether it answers.
    pub answering: bool,
    /// Whether it is followed.
    pub followed: bool,
    /// Requests sent.
    pub requests: u64,
    /// Exchanges that were complete.
    pub exchanges: u64,
    /// The latest, without the time that the server took.
    pub round_trip_ns: Option<i64>,
    /// Why it has no address.
    pub problem: Option<String>,
}
