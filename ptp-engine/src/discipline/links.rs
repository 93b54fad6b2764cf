//! What was measured of a link, as servos and the council want it.

use ptp_common::time::{Duration, Free, Mono, Time};

use crate::{config::LinkDelayService, outcome::Observation, servo::PeerDelayInput};

/// The same on the free-running scale; `None` where that is no link.
pub(super) fn link_delay(
    observation: &Observation,
    free: impl Fn(Time<Mono>) -> Time<Free>,
) -> Option<PeerDelayInput> {
    Some(match observation {
        Observation::PeerDelay(peer) => PeerDelayInput {
            mono: free(peer.t4.time),
            mean_link_delay: peer.mean_link_delay,
            neighbor_rate_ratio: peer.neighbor_rate_ratio,
            doubt: Duration::ZERO,
        },
        Observation::LinkTold(told) => PeerDelayInput {
            mono: free(told.at),
            mean_link_delay: told.mean_link_delay,
            neighbor_rate_ratio: None,
            doubt: LinkDelayService::TOLD_DOUBT,
        },
        Observation::Sync(_) | Observation::Delay(_) => return None,
    })
}
