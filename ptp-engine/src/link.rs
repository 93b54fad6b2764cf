//! A link: what is between a port of this host and the one at its other end (IEEE 1588-2019 3.1.32). Its delay is a
//! matter of the wire and not of any domain, so that a node owns it and all instances with a
//! port there share what is measured: by the peer delay mechanism (11.4), whatever the roles of those ports are.

mod pdelay;

use crate::{
    Datagram, DelayMechanism, LinkState, SentToken, config::PortConfig, limits, outcome::PeerDelay,
    round_trip::RoundTrip,
};
use pdelay::{Initiator, Responder};
use ptp_common::{
    time::{Duration, Mono, Time},
    wire::{Body, Header, Timestamp},
};

/// See the module's paragraph.
#[derive(Debug)]
pub struct Link {
    delay_mechanism: DelayMechanism,
    log_min_pdelay_req_interval: i8,
    state: LinkState,
    pub(crate) initiator: Initiator,
    pub(crate) responder: Responder,
    sequence_id: u16,
    /// When the next request is due.
    request_at: Option<Time<Mono>>,
    round_trip: RoundTrip,
}

impl Link {
    /// A link that is up or down as `config` says, and that nobody asks for its delay yet.
    pub(crate) fn new(config: &PortConfig, sequence_id: u16) -> Self {
        Self {
            delay_mechanism: config.delay_mechanism,
            log_min_pdelay_req_interval: config.log_min_pdelay_req_interval,
            state: LinkState::up_if(config.link_up),
            initiator: Initiator::default(),
            responder: Responder::default(),
            sequence_id,
            request_at: None,
            round_trip: RoundTrip::default(),
        }
    }

    /// Measures from `now` on, where the link is up and its delay is measured.
    pub(crate) fn start(&mut self, now: Time<Mono>) {
        if self.state.is_up() && self.delay_mechanism == DelayMechanism::P2p {
            self.request_at = Some(now);
        }
    }

    /// The link has come up, or gone down; whether that is news.
    pub(crate) fn set_state(&mut self, state: LinkState) -> bool {
        let is_news = self.state != state;
        self.state = state;
        if is_news && !state.is_up() {
            self.initiator.clear();
            self.round_trip.clear();
            self.request_at = None;
        }
        is_news
    }

    /// When a request is due.
    pub(crate) const fn request_at(&self) -> Option<Time<Mono>> {
        self.request_at
    }

    /// The number of the request that is sent now, and how many unanswered ones it displaces.
    pub(crate) fn request(&mut self, now: Time<Mono>, token: SentToken) -> (u16, usize) {
        let interval = Duration::from_log_interval(self.log_min_pdelay_req_interval);
        self.request_at = Some(now + interval);
        let sequence_id = self.sequence_id;
        self.sequence_id = sequence_id.wrapping_add(1);
        (sequence_id, self.initiator.sent(token, sequence_id))
    }

    /// The request itself.
    pub(crate) fn pdelay_req(header: Header) -> Datagram {
        Datagram::new(header, Body::PdelayReq { origin_timestamp: Timestamp::ZERO })
    }

    /// An exchange is complete; whether what it says can be true.
    pub(crate) fn measured(&mut self, done: &PeerDelay) -> bool {
        let round_trip = done.mean_link_delay * 2;
        limits::is_round_trip(round_trip) && self.round_trip.measured(done.t4.time, round_trip)
    }

    /// `meanLinkDelay` (8.2.15.3.3): the shortest of late; `None` while it is not known.
    pub fn mean_link_delay(&self) -> Option<Duration> {
        self.round_trip.floor().map(Duration::half)
    }

    /// How much is stored, for the test that it is bounded.
    #[cfg(test)]
    pub(crate) fn stored(&self) -> usize {
        self.initiator.stored()
    }
}
