//! Synchronous Ethernet in the status: what ESMC says of each interface, and the kernel's DPLLs.

use std::borrow::Cow;

use ptp_common::time::{Mono, Time};
use serde::{Deserialize, Serialize};

use crate::engine::esmc::Watch;

/// What ESMC says on an interface.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EsmcStatus {
    /// Where.
    pub interface: String,
    /// Its quality level, as in `QL-PRC`; `null` where messages have stopped.
    pub level: Option<Cow<'static, str>>,
    /// Its place in the order of levels, 0 for the best.
    pub rank: Option<u8>,
    /// The higher level that the link usually has.
    pub lowered_from: Option<Cow<'static, str>>,
    /// SSM code of the last message.
    pub ssm: Option<u8>,
    /// Its enhanced SSM code.
    pub enhanced_ssm: Option<u8>,
    /// The clock that has originated it.
    pub clock_identity: Option<String>,
    /// Enhanced clocks passed.
    pub cascaded_eeecs: Option<u8>,
    /// Clocks passed.
    pub cascaded_eecs: Option<u8>,
    /// Some of them do not know the extended TLV.
    pub mixed: Option<bool>,
    /// Those are not counted.
    pub partial_chain: Option<bool>,
    /// The neighbour's MAC address.
    pub source: Option<String>,
    /// Since the last message, seconds.
    pub age_s: Option<f64>,
    /// Messages understood.
    pub messages: u64,
    /// Frames that are none.
    pub malformed: u64,
    /// Frames beyond what a port may send, not read.
    pub excess: u64,
    /// Frames that the socket had no room for.
    pub dropped: u64,
}

impl EsmcStatus {
    /// Of an interface at `now`, whose socket has dropped so many frames.
    pub fn new(interface: &str, now: Time<Mono>, watch: &Watch, dropped: u64) -> Self {
        let (counts, last) = (watch.counts(), watch.last());
        let level = watch.level(now);
        let extended = last.and_then(|last| last.message.extended);
        let mac = |mac: [u8; 6]| mac.map(|octet| format!("{octet:02x}")).join(":");
        Self {
            interface: interface.to_owned(),
            level: level.map(|level| level.name().into()),
            rank: level.map(|level| level.rank()),
            lowered_from: watch.lowered(now).map(|(usual, _)| usual.name().into()),
            ssm: last.map(|last| last.message.ssm),
            enhanced_ssm: extended.map(|it| it.enhanced_ssm),
            clock_identity: extended.map(|it| it.clock_identity.to_string()),
            cascaded_eeecs: extended.map(|it| it.cascaded_eeecs),
            cascaded_eecs: extended.map(|it| it.cascaded_eecs),
            mixed: extended.map(|it| it.is_mixed),
            partial_chain: extended.map(|it| it.is_partial),
            source: last.and_then(|last| last.source).map(mac),
            age_s: last.map(|last| (now - last.at).as_secs_f64()),
            messages: counts.accepted,
            malformed: counts.malformed,
            excess: counts.excess,
            dropped,
        }
    }
}

/// A DPLL of the kernel.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DpllStatus {
    /// The kernel's number of it.
    pub id: u32,
    /// Its driver.
    pub module: String,
    /// The clock that it belongs to, hexadecimal.
    pub clock_id: Option<String>,
    /// `eec` of synchronous Ethernet, `pps`.
    pub kind: String,
    /// `manual` or `automatic`.
    pub mode: String,
    /// `unlocked`, `locked`, `locked_ho_acq` (and ready for holdover), `holdover`.
    pub lock_status: String,
    /// Where it is measured, degrees.
    pub temperature_c: Option<f64>,
    /// Its inputs and outputs.
    pub pins: Vec<DpllPin>,
}

/// An input or output of a DPLL.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DpllPin {
    /// What stands beside it.
    pub label: String,
    /// `ext`, `gnss`, `synce_eth_port` ...
    pub kind: String,
    /// `connected`, `disconnected`, `selectable`.
    pub state: String,
    /// Smaller is preferred.
    pub priority: Option<u32>,
}
