//! What an instance has to do with its links: which messages of the peer delay mechanism its ports let in, and what
//! it makes of what was measured. The mechanism itself is the node's (`node/peer_delay.rs`).

use ptp_common::{
    time::{Mono, Time},
    wire::{Body, Message},
};

use super::{Cx, Instance, Participation, Received, port::Port};
use crate::prelude::*;
use crate::{
    DelayMechanism,
    counters::Drop,
    limits,
    link::Link,
    outcome::{Observation, PeerDelay},
};

impl Instance {
    /// The links of its ports.
    pub(crate) fn links(&self) -> Vec<Link> {
        let link = |port: &Port| {
            let mut link = Link::new(&port.config, port.pdelay_sequence_id);
            if self.asks_for_link_delay() {
                link.start(self.last_now);
            }
            link
        };
        self.ports.iter().map(link).collect()
    }

    /// Whether it wants to know how long its links are; a server's clients find out for themselves.
    pub(crate) fn asks_for_link_delay(&self) -> bool {
        self.participation != Participation::ServerOnly
    }

    /// Whether a message of the peer delay mechanism is one that the port answers or takes.
    pub(crate) fn admit_peer_delay(
        &mut self,
        now: Time<Mono>,
        received: &Received<'_>,
        message: &Message<'_>,
    ) -> Result<(), Drop> {
        let port = &self.ports[received.index];
        let is_p2p = port.config.delay_mechanism == DelayMechanism::P2p;
        let asks = self.asks_for_link_delay();
        let requester = match message.body {
            Body::PdelayResp { requesting_port_identity, .. }
            | Body::PdelayRespFollowUp { requesting_port_identity, .. } => {
                Some(requesting_port_identity)
            }
            _ => None,
        };
        if !asks && requester.is_some() {
            return Err(Drop::NotForRole);
        }
        if !limits::is_correction(message.header.correction.into()) {
            return Err(Drop::Correction);
        }
        match requester {
            // A port with the one mechanism does not answer the other (11.1); a server answers both.
            None if asks && !is_p2p => Err(Drop::NotForRole),
            None => self.admit_request(now, received, &message.header),
            Some(_) if self.standing.is_some() && !is_p2p => Err(Drop::NotForRole),
            Some(requester) if requester != port.identity => Err(Drop::OtherRequester),
            Some(_) => Ok(()),
        }
    }

    /// The delay of a port's link was measured.
    pub(crate) fn link_measured(&mut self, cx: &mut Cx<'_>, index: usize, done: PeerDelay) {
        let Some(port) = self.ports.get_mut(index) else { return };
        port.round_trip.measured(done.t4.time, done.mean_link_delay * 2);
        port.counters.peer_delay_exchanges += 1;
        if self.parent_on(index).is_some() {
            self.measured(cx, index, Observation::PeerDelay(done));
        }
    }
}
