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
}

impl Rules {
    /// Whether they are those of IEEE 802.1AS.
    pub const fn are_gptp(self) -> bool {
        matches!(self, Self::Ieee8021As)
    }
}
