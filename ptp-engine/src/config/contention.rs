//! What a clock has to know that takes either role (an ordinary or a boundary clock without `slaveOnly`): what it
//! says of itself where it serves, when it serves what it follows, and what its time is worth when it follows
//! nobody any more.

#[cfg(doc)]
use crate::config::PortConfig;
use crate::config::TransmitterConfig;
use ptp_common::time::Duration;
use serde::{Deserialize, Serialize};

/// See the module's paragraph.
#[derive(Clone, Debug)]
pub struct Contention {
    /// Its own values as grandmaster, and how it sends; `ports` is not used, and domain and identity are those of
    /// the clock.
    pub transmitter: TransmitterConfig,
    /// Announce with this `stepsRemoved` or more are not followed (9.3.2.5, `maxStepsRemoved` of 9.2.6.6).
    pub max_steps_removed: u16,
    /// Whether Announce tells the path from the grandmaster (`pathTraceDS.enable`, 16.2).
    pub path_trace: PathTrace,
    /// What other ports do while the clock has never been locked.
    pub before_lock: BeforeLock,
    /// What its time is worth without its grandmaster.
    pub holdover: Option<Holdover>,
    /// `localPriority` of the clock itself, as for [`PortConfig::local_priority`].
    pub local_priority: Option<u8>,
    /// With the rules of IEEE 802.1AS: whose time other ports pass on.
    pub relay: RelayTime,
}

impl Contention {
    /// The default profile: path trace on, silent until the first lock, no better in holdover than without.
    pub const fn new(transmitter: TransmitterConfig) -> Self {
        Self {
            transmitter,
            max_steps_removed: 255,
            path_trace: PathTrace::On,
            before_lock: BeforeLock::Silent,
            holdover: None,
            local_priority: None,
            relay: RelayTime::Clock,
        }
    }
}

/// What a relay of IEEE 802.1AS passes on. Either way the Follow_Up has the grandmaster's `preciseOriginTimestamp`, and
/// `correctionField` is what has passed since, in the grandmaster's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RelayTime {
    /// By what the last Sync has taken: correction, delay of the link and residence, each by its rate (11.2.14). So the time is
    /// there from the first Sync on, and each relay adds the noise of two stamps.
    Residence,
    /// By the clock that follows: what it shows when the Sync leaves. So nothing is passed on before it is locked, and each
    /// relay adds what its servo is off.
    Clock,
}

/// Whether Announce carries a PATH_TRACE TLV.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathTrace {
    /// It does, and what has been here already is not believed: no grandmaster that is gone goes round in a ring.
    On,
    /// It does not. What comes in is looked at all the same.
    Off,
}

/// What a port does that is to pass on the time of a parent that has never been followed well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BeforeLock {
    /// It stays PRE_MASTER and sends nothing.
    #[default]
    Silent,
    /// It is MASTER and announces, with `synchronizationUncertain`, but tells no time: neither Sync nor answers.
    Announced,
    /// It sends, with `synchronizationUncertain`.
    Uncertain,
}

/// The quality of a clock that has lost its grandmaster, and how long it lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holdover {
    /// `clockClass` at first.
    pub within: u8,
    /// For so long.
    pub span: Duration,
    /// `clockClass` from then on, with `synchronizationUncertain`.
    pub beyond: u8,
}
