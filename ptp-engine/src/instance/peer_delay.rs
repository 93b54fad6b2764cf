//! What an instance has to do with its links: which messages of the peer delay mechanism its ports let in, and what
//! it makes of what was measured. The mechanism itself is the node's (`node/peer_delay.rs`).

use ptp_common::{
    time::{Duration, Mono, Time},
    wire::{
        Body, Message,
        gptp::{AskedInterval, IntervalRequest},
    },
};

use super::{
    Cx, Instance, Participation, Received,
    port::{Port, PortTimer, Role},
};
use crate::prelude::*;
use crate::{
    DelayMechanism,
    counters::Drop,
    limits,
    link::{Link, LinkFigures},
    outcome::Observation,
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
        let is_auto = port.config.delay_mechanism == DelayMechanism::Auto;
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
            None if asks && !is_p2p && !is_auto => Err(Drop::NotForRole),
            None => self.admit_request(now, received, &message.header),
            Some(_) if self.standing.is_some() && !is_p2p => Err(Drop::NotForRole),
            Some(requester) if requester != port.identity => Err(Drop::OtherRequester),
            Some(_) => Ok(()),
        }
    }

    /// The delay of a port's link was measured, and when.
    pub(crate) fn link_measured(
        &mut self,
        cx: &mut Cx<'_>,
        index: usize,
        (at, delay): (Time<Mono>, Duration),
        observation: Observation,
    ) {
        let Some(port) = self.ports.get_mut(index) else { return };
        port.round_trip.measured(at, delay * 2);
        port.counters.peer_delay_exchanges += 1;
        if self.parent_on(index).is_some() {
            self.measured(cx, index, observation);
        }
    }

    /// The neighbour measures the link, so this port does from now on, too (`DelayMechanism::Auto`).
    pub(crate) fn go_over_to_peer_delay(&mut self, index: usize) {
        let Some(port) = self.ports.get_mut(index) else { return };
        port.config.delay_mechanism = DelayMechanism::P2p;
        port.round_trip.clear();
        if let Role::Receiver(following) = &mut port.role {
            following.forget_halves();
        }
        self.timers.cancel((index as u16, PortTimer::DelayReq));
    }

    /// What the link of a port has measured.
    pub(crate) fn set_link_figures(&mut self, index: usize, figures: LinkFigures) {
        if let Some(port) = self.ports.get_mut(index) {
            port.link = figures;
        }
    }

    /// `asCapable` of a port, as its link says it.
    pub(crate) fn set_capable(&mut self, index: usize, is_capable: bool) {
        if let Some(port) = self.ports.get_mut(index) {
            port.is_capable = is_capable;
        }
    }

    /// Signaling of the neighbour with other intervals (IEEE 802.1AS-2020, 10.6.4.3). Nobody can stop the time by it.
    pub(super) fn take_interval_request(
        &mut self,
        now: Time<Mono>,
        index: usize,
        message: &Message<'_>,
    ) -> Result<(), Drop> {
        let request = IntervalRequest::find(&message.tlvs).ok_or(Drop::NotForRole)?;
        let port = &mut self.ports[index];
        for (asked, interval, usual, timer) in [
            (
                request.time_sync,
                &mut port.asked_sync,
                self.served.log_sync_interval,
                PortTimer::Sync,
            ),
            (
                request.announce,
                &mut port.asked_announce,
                self.served.log_announce_interval,
                PortTimer::Announce,
            ),
        ] {
            let log = match asked {
                AskedInterval::Keep => continue,
                AskedInterval::Initial => None,
                AskedInterval::Log(log) if limits::is_asked_interval(log) => Some(log),
                AskedInterval::Log(_) | AskedInterval::Stop => {
                    port.counters.count_drop(Drop::IntervalClamped);
                    continue;
                }
            };
            *interval = log;
            let latest = now + Duration::from_log_interval(log.unwrap_or(usual));
            let key = (index as u16, timer);
            let due = self.timers.at(key).map(|due| due.min(latest));
            self.timers.put(key, due);
        }
        Ok(())
    }
}
