//! A link: what is between a port of this host and the one at its other end (IEEE 1588-2019 3.1.32). Its delay is a
//! matter of the wire and not of any domain, so that a node owns it and all instances with a
//! port there share what is measured: by the peer delay mechanism (11.4), whatever the roles of those ports are.

mod pdelay;

use alloc::collections::VecDeque;

use crate::{
    Datagram, DelayMechanism, LinkState, SentToken,
    config::{AsCapable, PortConfig},
    limits,
    outcome::{LinkTold, PeerDelay},
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
    /// Another program measures.
    is_told: bool,
    log_min_pdelay_req_interval: i8,
    log_initial_interval: i8,
    state: LinkState,
    /// What the interface says, and what management does: it can be used where both permit it.
    pub(crate) carrier: LinkState,
    pub(crate) is_enabled: bool,
    told_threshold: Option<Duration>,
    pub(crate) initiator: Initiator,
    pub(crate) responder: Responder,
    sequence_id: u16,
    /// When the next request is due.
    request_at: Option<Time<Mono>>,
    round_trip: RoundTrip,
    neighbor_rate_ratio: Option<f64>,
    capability: Capability,
}

/// Delays whose shortest is held against the threshold: what a packet waits in a queue is not the length of the wire.
const DELAYS: usize = 8;

/// What an instance passes time on by.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct LinkFigures {
    /// `meanLinkDelay`, the shortest of late, on the local monotonic scale: a time that is passed on is never later than it can
    /// have been, so that causality holds behind it. With the usual one it was tens of microseconds later while a machine was
    /// busy, for a Sync that was fast.
    pub(crate) delay: Option<Duration>,
    /// `neighborRateRatio`.
    pub(crate) neighbor_rate_ratio: Option<f64>,
}

/// Whether a link is `asCapable` (IEEE 802.1AS-2020, 11.2.2), where anybody asks.
#[derive(Debug, Default)]
struct Capability {
    asked: Option<AsCapable>,
    is_capable: bool,
    /// Requests in a row that nothing came of, with the one under way.
    lost: u8,
    /// The latest delays, the last one last.
    delays: VecDeque<Duration>,
    /// How often it has become another.
    changes: u64,
}

impl Capability {
    fn asked(&mut self) {
        self.lost = self.lost.saturating_add(1);
        if self
            .asked
            .is_some_and(|asked| self.lost > asked.allowed_lost_responses.saturating_add(1))
        {
            self.set(false);
            self.delays.clear();
        }
    }

    const fn set(&mut self, is_capable: bool) {
        self.changes += (self.is_capable != is_capable) as u64;
        self.is_capable = is_capable;
    }

    fn measured(&mut self, delay: Duration, ratio: Option<f64>) {
        self.lost = 0;
        let Some(asked) = self.asked else { return };
        if self.delays.len() >= DELAYS {
            self.delays.pop_front();
        }
        self.delays.push_back(delay);
        let shortest = self.delays.iter().min().copied().unwrap_or(delay);
        let threshold = asked.neighbor_prop_delay_threshold;
        // Who is at the threshold does not go to and fro.
        let threshold = if self.is_capable { threshold + threshold.half() } else { threshold };
        self.set(shortest <= threshold && (self.is_capable || ratio.is_some()));
    }
}

impl Link {
    /// A link that is up or down as `config` says, and that nobody asks for its delay yet.
    pub(crate) fn new(config: &PortConfig, sequence_id: u16) -> Self {
        Self {
            delay_mechanism: config.delay_mechanism,
            is_told: config.link_delay.is_told(),
            log_min_pdelay_req_interval: config.log_min_pdelay_req_interval,
            log_initial_interval: config.log_min_pdelay_req_interval,
            state: LinkState::up_if(config.link_up),
            carrier: LinkState::up_if(config.link_up),
            is_enabled: true,
            told_threshold: None,
            initiator: Initiator::default(),
            responder: Responder::default(),
            sequence_id,
            request_at: None,
            round_trip: RoundTrip::default(),
            neighbor_rate_ratio: None,
            capability: Capability { asked: config.as_capable, ..Capability::default() },
        }
    }

    /// Measures from `now` on, where the link is up and its delay is measured.
    pub(crate) fn start(&mut self, now: Time<Mono>) {
        if self.state.is_up() && self.delay_mechanism == DelayMechanism::P2p && !self.is_told {
            self.request_at = Some(now);
        }
    }

    /// Whether it can be used.
    pub(crate) const fn usable(&self) -> LinkState {
        LinkState::up_if(self.is_enabled && self.carrier.is_up())
    }

    /// Another threshold for `asCapable`; it is kept where nobody asks for that.
    pub(crate) const fn set_threshold(&mut self, threshold: Duration) {
        self.told_threshold = Some(threshold);
        if let Some(asked) = &mut self.capability.asked {
            asked.neighbor_prop_delay_threshold = threshold;
        }
    }

    /// `neighborPropDelayThresh`; `None` where nobody has said any.
    pub const fn neighbor_prop_delay_threshold(&self) -> Option<Duration> {
        match self.capability.asked {
            Some(asked) => Some(asked.neighbor_prop_delay_threshold),
            None => self.told_threshold,
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
            self.neighbor_rate_ratio = None;
            let Capability { asked, is_capable, changes, .. } = self.capability;
            let changes = changes + u64::from(is_capable);
            self.capability = Capability { asked, changes, ..Capability::default() };
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
        self.capability.asked();
        (sequence_id, self.initiator.sent(token, sequence_id))
    }

    /// The request itself.
    pub(crate) fn pdelay_req(header: Header) -> Datagram {
        Datagram::new(header, Body::PdelayReq { origin_timestamp: Timestamp::ZERO })
    }

    /// An exchange is complete; whether what it says can be true.
    pub(crate) fn measured(&mut self, done: &PeerDelay) -> bool {
        let round_trip = done.mean_link_delay * 2;
        if !limits::is_round_trip(round_trip) || !self.round_trip.measured(done.t4.time, round_trip)
        {
            return false;
        }
        self.neighbor_rate_ratio = done.neighbor_rate_ratio.or(self.neighbor_rate_ratio);
        self.capability.measured(done.mean_link_delay, done.neighbor_rate_ratio);
        true
    }

    /// Another program has measured; whether that is wanted, and can be true.
    pub(crate) fn told(&mut self, told: &LinkTold) -> bool {
        let round_trip = told.mean_link_delay * 2;
        if !self.is_told || !limits::is_round_trip(round_trip) {
            return false;
        }
        if self.capability.asked.is_some() {
            self.capability.set(told.is_capable);
        }
        told.is_capable && self.round_trip.measured(told.at, round_trip)
    }

    /// The neighbour measures, so this side does from now on.
    pub(crate) fn go_over_to_peer_delay(&mut self, now: Time<Mono>) {
        self.delay_mechanism = DelayMechanism::P2p;
        self.start(now);
    }

    /// The neighbour asks for another interval of Pdelay_Req, log2 s; `None`: the one at first.
    pub(crate) fn set_interval(&mut self, now: Time<Mono>, log: Option<i8>) {
        self.log_min_pdelay_req_interval = log.unwrap_or(self.log_initial_interval);
        let latest = now + Duration::from_log_interval(self.log_min_pdelay_req_interval);
        self.request_at = self.request_at.map(|at| at.min(latest));
    }

    /// Interval of Pdelay_Req, log2 s.
    pub const fn log_interval(&self) -> i8 {
        self.log_min_pdelay_req_interval
    }

    /// Its `delayMechanism`.
    pub const fn delay_mechanism(&self) -> DelayMechanism {
        self.delay_mechanism
    }

    /// `asCapable`; `None` where nobody asks.
    pub fn is_capable(&self) -> Option<bool> {
        self.capability.asked.map(|_| self.capability.is_capable)
    }

    /// How often [`Self::is_capable`] has changed.
    pub const fn capability_changes(&self) -> u64 {
        self.capability.changes
    }

    /// What instances pass time on by.
    pub(crate) fn figures(&self) -> LinkFigures {
        LinkFigures { delay: self.mean_link_delay(), neighbor_rate_ratio: self.neighbor_rate_ratio }
    }

    /// `neighborRateRatio`: the neighbour's rate over that of the monotonic clock; `None` while it is not known.
    pub const fn neighbor_rate_ratio(&self) -> Option<f64> {
        self.neighbor_rate_ratio
    }

    /// `meanLinkDelay` (8.2.15.3.3): the shortest of late; `None` while it is not known.
    pub fn mean_link_delay(&self) -> Option<Duration> {
        self.round_trip.floor().map(Duration::half)
    }

    /// How much is stored, for the test that it is bounded.
    #[cfg(test)]
    pub(crate) fn stored(&self) -> usize {
        self.initiator.stored() + self.capability.delays.len()
    }
}
