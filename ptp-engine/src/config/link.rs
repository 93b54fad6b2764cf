//! What is asked of a link, and what IEEE 802.1AS has otherwise than IEEE 1588.

use ptp_common::time::Duration;
use serde::{Deserialize, Serialize};

/// When a port is `asCapable` (IEEE 802.1AS-2020, 11.2.2): its neighbour answers, its rate is known, and it is not
/// further away than a wire is long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AsCapable {
    /// `neighborPropDelayThresh`: the shortest `meanLinkDelay` of late is no longer. The 800 ns of the standard are for
    /// stamps of the hardware; what software stamps include is that of both stacks.
    pub neighbor_prop_delay_threshold: Duration,
    /// `allowedLostResponses`: so many requests in a row may stay unanswered.
    pub allowed_lost_responses: u8,
}

/// Which standard's rules a port keeps where they differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rules {
    /// IEEE 1588.
    #[default]
    #[serde(rename = "ieee1588")]
    Ieee1588,
    /// IEEE 802.1AS: all messages go to the group that bridges do not forward, an Announce counts at once, a Follow_Up
    /// without its information TLV is of no use, and a neighbour may ask for other intervals.
    #[serde(rename = "ieee802.1as")]
    Ieee8021As,
    /// IEEE 802.1AS as vehicles have it (the Automotive profile of Avnu): the same, but roles are fixed and nobody announces
    /// himself. Whoever sends Sync is followed, one at a time, and a link is good without being asked.
    #[serde(rename = "automotive")]
    Automotive,
}

/// In whose name the delay of a link is measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LinkDelayService {
    /// In that of the first instance: with its `sdoId`, in its domain.
    #[default]
    Instance,
    /// In that of the Common Mean Link Delay Service (16.6): with `sdoId` 0x200, in domain 0. Who asks by the `sdoId` of an
    /// instance is answered as well.
    Common,
    /// By another program of this host, which says what it has measured (a command to its port):
    /// here nothing is asked, and nobody is answered, because two who answer one request are a fault of the link to who
    /// asks (11.4.2).
    Told,
}

impl LinkDelayService {
    /// `sdoId` of the common service (table 2).
    pub const SDO_ID: u16 = 0x200;
    /// `domainNumber` of its messages.
    pub const DOMAIN_NUMBER: u8 = 0;
    /// By so much a Sync may have been longer on its way to a stamp of software than twice the delay that another program
    /// has measured: its stamps may be a card's, and what lies between the card and a stamp of ours is not in it. An
    /// assumption; where the machine holds interrupts back for longer, the bound is wrong.
    pub const TOLD_DOUBT: Duration = Duration::from_micros(100);

    /// Whether it is the common one.
    pub const fn is_common(self) -> bool {
        matches!(self, Self::Common)
    }

    /// Whether another program measures.
    pub const fn is_told(self) -> bool {
        matches!(self, Self::Told)
    }
}

/// Intervals that a port asks its neighbour for while the clock is locked, and takes back when it is not any more (message
/// interval request, IEEE 802.1AS-2020 10.6.4.3), log2 s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LockedIntervals {
    /// `operLogSyncInterval`: of the neighbour's Sync.
    pub log_sync_interval: i8,
    /// `operLogPdelayReqInterval`: of the own Pdelay_Req.
    pub log_pdelay_req_interval: i8,
}

impl Rules {
    /// Whether they are those of IEEE 802.1AS.
    pub const fn are_gptp(self) -> bool {
        matches!(self, Self::Ieee8021As | Self::Automotive)
    }

    /// Whether roles are fixed, and nobody announces himself.
    pub const fn are_static(self) -> bool {
        matches!(self, Self::Automotive)
    }
}
