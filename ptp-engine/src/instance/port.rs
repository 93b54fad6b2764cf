//! One PTP Port: who it is, what it has heard, and its [`Role`], which holds what belongs to the role alone. So
//! nothing of a role outlives it.

mod contest;
pub(crate) mod foreign;
mod grain;
pub(crate) mod receiver;
mod rhythm;
pub(crate) mod transmitter;

use crate::{
    PortState,
    bmca::DataSet,
    config::PortConfig,
    counters::Counters,
    instance::{Aiming, fixed::LockedRequest, unicast::Hybrid},
    link::LinkFigures,
    round_trip::RoundTrip,
    unicast::client::Client,
};
use foreign::{Foreign, ForeignTable};
use ptp_common::{
    time::{Duration, Mono, Time},
    wire::{PortIdentity, PowerProfile},
};
use receiver::Following;
use transmitter::Serving;

/// What a port is doing (table 20), with what it needs for that.
#[derive(Debug, Default)]
#[expect(clippy::large_enum_variant, reason = "one for each port, and never moved but at a change")]
pub(crate) enum Role {
    /// Before the first input.
    #[default]
    Initializing,
    /// The link is down, or the interface is gone.
    Disabled,
    /// Waits for a time transmitter, or another port has the best one.
    Listening,
    /// Follows a time transmitter.
    Receiver(Following),
    /// Will send its time soon.
    PreTransmitter,
    /// Sends its time.
    Transmitter(Serving),
    /// Neither.
    Passive,
}

impl Role {
    pub(crate) fn state(&self) -> PortState {
        match self {
            Self::Initializing => PortState::Initializing,
            Self::Disabled => PortState::Disabled,
            Self::Listening => PortState::Listening,
            Self::Receiver(following) => following.state(),
            Self::PreTransmitter => PortState::PreTimeTransmitter,
            Self::Transmitter(_) => PortState::TimeTransmitter,
            Self::Passive => PortState::Passive,
        }
    }

    pub(crate) const fn is_serving(&self) -> bool {
        matches!(self, Self::Transmitter(_))
    }
}

/// Timers of a port, in the order in which they are served when several are due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum PortTimer {
    Announce,
    Sync,
    DelayReq,
    /// Nobody has been heard for long enough (9.2.6.12).
    AnnounceReceipt,
    /// The parent has sent no Sync for too long.
    SyncReceipt,
    /// No better one has turned up (9.2.6.11).
    Qualification,
    /// What decides has changed.
    Decision,
}

impl PortTimer {
    /// Those that end with a role.
    pub(crate) const OF_ROLES: [Self; 6] = [
        Self::Announce,
        Self::Sync,
        Self::DelayReq,
        Self::AnnounceReceipt,
        Self::SyncReceipt,
        Self::Qualification,
    ];
}

/// See the module's paragraph.
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) identity: PortIdentity,
    pub(crate) config: PortConfig,
    pub(crate) role: Role,
    pub(crate) counters: Counters,
    pub(crate) foreign: ForeignTable,
    pub(crate) round_trip: RoundTrip,
    /// Whom it has asked for what, where it asks.
    pub(crate) partners: Option<Client>,
    pub(crate) hybrid: Hybrid,
    pub(crate) aiming: Aiming,
    /// `asCapable`, as the link says it; true where nobody asks.
    pub(crate) is_capable: bool,
    /// What its link has measured.
    pub(crate) link: LinkFigures,
    /// What it has asked its neighbour for.
    pub(crate) request: LockedRequest,
    /// Intervals of Sync and Announce that the neighbour has asked for, log2 s.
    pub(crate) asked_sync: Option<i8>,
    pub(crate) asked_announce: Option<i8>,
    /// Who has answered last, and the mean interval of Delay_Req that it permits, log2 s: it holds when it comes back.
    pub(crate) granted: Option<(PortIdentity, i8)>,
    /// What its Announce say of IEEE C37.238.
    pub(crate) power: Option<PowerProfile>,
    /// How much longer than `announceReceiptTimeout` the port waits, in 2^-16 of an announce interval.
    pub(crate) more_patience: u16,
    /// Nobody has been heard for as long as `announceReceiptTimeout`: until the next decision, or while LISTENING.
    pub(crate) has_waited: bool,
    /// Until when another port of this clock is known to send into the same network.
    pub(crate) shadowed_until: Option<Time<Mono>>,
    // Numbers of a series go on when the role comes back.
    pub(crate) delay_sequence_id: u16,
    /// Where the series of its link begins.
    pub(crate) pdelay_sequence_id: u16,
    pub(crate) announce_sequence_id: u16,
    pub(crate) sync_sequence_id: u16,
}

impl Port {
    /// `key` so that nobody can aim at a place in a table.
    pub(crate) fn new(
        identity: PortIdentity,
        config: PortConfig,
        key: u64,
        delay_sequence_id: u16,
        pdelay_sequence_id: u16,
    ) -> Self {
        let partners = config.unicast.clone().map(Client::new);
        Self {
            identity,
            partners,
            hybrid: Hybrid::default(),
            role: Role::default(),
            counters: Counters::default(),
            foreign: ForeignTable::new(key, config.rules),
            is_capable: config.as_capable.is_none(),
            link: LinkFigures::default(),
            request: LockedRequest::default(),
            round_trip: RoundTrip::default(),
            aiming: Aiming::Off,
            asked_sync: None,
            asked_announce: None,
            granted: None,
            power: None,
            more_patience: 0,
            has_waited: false,
            shadowed_until: None,
            delay_sequence_id,
            pdelay_sequence_id,
            announce_sequence_id: 0,
            sync_sequence_id: 0,
            config,
        }
    }

    /// What this port compares of somebody whom it has heard.
    pub(crate) fn data_set_of(&self, foreign: &Foreign) -> DataSet {
        let local_priority = self.config.local_priority;
        DataSet { local_priority, ..foreign.data_set(self.identity) }
    }

    /// For how long somebody with this announce interval may be silent (9.2.6.12).
    pub(crate) fn patience(&self, interval: Duration) -> Duration {
        let more = (interval.as_scaled_nanos() * i128::from(self.more_patience)) >> 16;
        interval * i32::from(self.config.announce_receipt_timeout)
            + Duration::from_scaled_nanos(more)
    }

    /// The mean interval of Delay_Req in use, log2 s.
    pub(crate) const fn log_delay_req_interval(&self) -> i8 {
        match &self.role {
            Role::Receiver(following) => following.log_delay_req_interval,
            _ => self.config.log_min_delay_req_interval,
        }
    }

    /// How much is stored, for the test that it is bounded.
    #[cfg(test)]
    pub(crate) fn stored(&self) -> usize {
        let of_role = match &self.role {
            Role::Receiver(following) => following.stored(),
            _ => 0,
        };
        self.foreign.len() + of_role
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_left_only_as_figure_30_has_it() {
        use PortState::{
            Disabled, Initializing, Listening, Passive, PreTimeTransmitter, TimeReceiver,
            TimeTransmitter, Uncalibrated,
        };
        // One becomes a time receiver by way of UNCALIBRATED alone.
        for from in [Initializing, Disabled, Listening, Passive, PreTimeTransmitter] {
            assert!(!from.may_become(TimeReceiver), "{from:?}");
        }
        assert!(Uncalibrated.may_become(TimeReceiver));
        for from in PortState::ALL {
            assert!(from.may_become(Disabled) && from.may_become(from), "{from:?}");
            assert!(!from.may_become(Initializing) || from == Initializing, "{from:?}");
        }
        assert!(Disabled.may_become(Listening) && Disabled.may_become(TimeTransmitter));
        assert!(!Disabled.may_become(Uncalibrated));
    }
}
