//! The peer delay mechanism between a node's links and its instances: what is asked, what is answered, and who
//! learns what was measured.

use ptp_common::{
    time::{Duration, Mono, Ptp, Time},
    wire::{
        Body, Header, Message, MessageType, PortIdentity,
        gptp::{AskedInterval, IntervalRequest},
    },
};

use super::Node;
use crate::{
    DelayMechanism, Group, Monotonic, PortIndex, ReadClock, SentToken,
    config::LinkDelayService,
    counters::Drop,
    instance::{Cx, Instance, Received},
    limits,
    link::Link,
    outcome::{LinkTold, Observation, PeerDelay},
    sent::Sent,
    stamp::Stamp,
};

impl Node {
    /// Who is followed behind a link, by whichever instance.
    fn parent_on(&self, index: usize) -> Option<PortIdentity> {
        self.instances.iter().find_map(|instance| instance.parent_on(index))
    }

    /// Asks on each link where that is due. The first instance lends its name and its domain.
    pub(super) fn requests_due(&mut self, cx: &mut Cx<'_>) {
        for index in 0..self.links.len() {
            if self.links[index].request_at().is_some_and(|at| at <= cx.now) {
                self.send_pdelay_req(cx, index);
            }
        }
    }

    fn send_pdelay_req(&mut self, cx: &mut Cx<'_>, index: usize) {
        let instance = &mut self.instances[0];
        let token = instance.in_flight.put(PortIndex(index as u16), Sent::PdelayReq);
        let (sequence_id, unanswered) = self.links[index].request(cx.now, token);
        for _ in 0..unanswered {
            instance.count_drop(index, Drop::UnansweredPdelayReq);
        }
        let mut header = instance.header(index, sequence_id);
        if instance.ports[index].config.link_delay.is_common() {
            of_common_service(&mut header);
        }
        if instance.ports[index].config.rules.are_gptp() {
            header.log_message_interval = self.links[index].log_interval();
        }
        let message = Link::pdelay_req(header);
        instance.send_event(cx, index, MessageType::PdelayReq, token, Group::Peer, message);
        self.tell_capability(index);
    }

    /// Instances learn whether the link is `asCapable`.
    pub(super) fn tell_capability(&mut self, index: usize) {
        let capable = self.links.get(index).and_then(Link::is_capable);
        if let Some(is_capable) = capable {
            for instance in &mut self.instances {
                instance.set_capable(index, is_capable);
            }
        }
    }

    /// Links that are to be asked for at another interval.
    pub(super) fn attend_links(&mut self, now: Time<Mono>) {
        for instance in &mut self.instances {
            for (port, link) in instance.ports.iter_mut().zip(&mut self.links) {
                if let Some(log) = port.request.link.take() {
                    link.set_interval(now, log);
                }
            }
        }
    }

    /// What the neighbour asks of the link (IEEE 802.1AS-2020, 10.6.4.3).
    pub(super) fn take_interval_request(
        &mut self,
        now: Time<Mono>,
        index: usize,
        message: &Message<'_>,
    ) {
        let asked = IntervalRequest::find(&message.tlvs).map(|request| request.link_delay);
        let log = match asked {
            Some(AskedInterval::Initial) => None,
            Some(AskedInterval::Log(log)) if limits::is_asked_interval(log) => Some(log),
            _ => return,
        };
        if let Some(link) = self.links.get_mut(index) {
            link.set_interval(now, log);
        }
    }

    /// The stamp of a Pdelay_Req, or the news that there is none.
    pub(super) fn pdelay_req_sent(
        &mut self,
        cx: &mut Cx<'_>,
        index: usize,
        token: SentToken,
        stamp: Option<Stamp>,
    ) {
        let parent = self.parent_on(index);
        match self.links[index].initiator.stamped(token, stamp, parent) {
            Some(Ok(done)) => self.finish(cx, index, done),
            Some(Err(cause)) => self.instances[0].count_drop(index, cause),
            None => {}
        }
    }

    /// The stamp of a Pdelay_Resp of instance `which`, or the news that there is none.
    pub(super) fn pdelay_resp_sent(
        &mut self,
        cx: &mut Cx<'_>,
        which: usize,
        index: usize,
        token: SentToken,
        stamp: Option<Stamp>,
    ) {
        let instance = &mut self.instances[which];
        let sent = stamp.and_then(|stamp| free_time(instance, cx, stamp));
        match self.links[index].responder.stamped(token, sent) {
            Some(Some(message)) => {
                let kind = MessageType::PdelayRespFollowUp;
                instance.send_general(cx, index, kind, Group::Peer, message);
            }
            Some(None) => instance.count_drop(index, Drop::MissingTxStamp),
            None => {}
        }
    }

    /// A message of the mechanism, which instance `which` has let in.
    pub(super) fn peer_delay_message(
        &mut self,
        cx: &mut Cx<'_>,
        which: usize,
        received: &Received<'_>,
        message: &Message<'_>,
    ) -> Result<(), Drop> {
        self.instances[which].admit_peer_delay(cx.now, received, message)?;
        let Received { index, stamp, .. } = *received;
        let header = &message.header;
        if self.instances[which].ports[index].config.link_delay.is_told() {
            return Err(Drop::NotForRole);
        }
        let parent = self.parent_on(index);
        let link = self.links.get_mut(index).ok_or(Drop::PortDisabled)?;
        let (done, is_of_many) = match message.body {
            Body::PdelayReq { .. } => {
                if link.delay_mechanism() == DelayMechanism::Auto {
                    link.go_over_to_peer_delay(cx.now);
                    for instance in &mut self.instances {
                        instance.go_over_to_peer_delay(index);
                    }
                }
                return self.answer(cx, which, index, header, stamp);
            }
            Body::PdelayResp { request_receipt_timestamp, .. } => {
                let t4 = stamp.ok_or(Drop::MissingRxStamp)?;
                let receipt = request_receipt_timestamp.into();
                link.initiator.response(header, receipt, t4, parent)?
            }
            Body::PdelayRespFollowUp { response_origin_timestamp, .. } => {
                link.initiator.follow_up(header, response_origin_timestamp.into(), parent)?
            }
            _ => return Err(Drop::NotForRole),
        };
        if is_of_many {
            self.instances[which].count_drop(index, Drop::MultipleResponders);
        }
        self.finish(cx, index, done);
        Ok(())
    }

    fn answer(
        &mut self,
        cx: &mut Cx<'_>,
        which: usize,
        index: usize,
        request: &Header,
        rx: Option<Stamp>,
    ) -> Result<(), Drop> {
        let instance = &mut self.instances[which];
        let rx = rx.ok_or(Drop::MissingRxStamp)?;
        let receipt = free_time(instance, cx, rx).ok_or(Drop::MissingRxStamp)?;
        // Its stamp was missing while it could have been answered.
        if self.links[index].responder.is_overtaken(request, rx.time) {
            return Err(Drop::Reordered);
        }
        let token = instance.in_flight.put(PortIndex(index as u16), Sent::PdelayResp);
        let mut template = instance.header(index, request.sequence_id);
        if request.sdo_id == LinkDelayService::SDO_ID {
            of_common_service(&mut template);
        }
        let message = self.links[index].responder.answer(token, template, request, receipt);
        instance.send_event(cx, index, MessageType::PdelayResp, token, Group::Peer, message);
        Ok(())
    }

    /// All instances on the link learn what was measured.
    fn finish(&mut self, cx: &mut Cx<'_>, index: usize, done: Option<PeerDelay>) {
        let Some(done) = done else { return };
        if !self.links[index].measured(&done) {
            self.instances[0].count_drop(index, Drop::ImplausibleDelay);
            return;
        }
        let received = done.t4.time;
        self.spread(cx, index, received, done.mean_link_delay, Observation::PeerDelay(done));
    }

    /// Another program has measured a link.
    pub(super) fn link_told(&mut self, cx: &mut Cx<'_>, on: PortIndex, told: LinkTold) {
        let index = usize::from(on.0);
        let Some(link) = self.links.get_mut(index) else { return };
        if link.told(&told) {
            let delay = told.mean_link_delay;
            self.spread(cx, index, told.at, delay, Observation::LinkTold(told));
        } else {
            self.tell_capability(index);
        }
    }

    fn spread(
        &mut self,
        cx: &mut Cx<'_>,
        index: usize,
        at: Time<Mono>,
        delay: Duration,
        observation: Observation,
    ) {
        self.tell_capability(index);
        let figures = self.links[index].figures();
        for instance in &mut self.instances {
            instance.set_link_figures(index, figures);
            instance.link_measured(cx, index, (at, delay), observation);
        }
    }
}

/// With the `sdoId` of the common service, in its domain.
const fn of_common_service(header: &mut Header) {
    header.sdo_id = LinkDelayService::SDO_ID;
    header.domain_number = LinkDelayService::DOMAIN_NUMBER;
}

/// What Pdelay_Req is answered by. Only differences and the rate mean anything to the peer, so that a clock
/// that is steered answers with one that is not.
fn free_time(instance: &Instance, cx: &Cx<'_>, stamp: Stamp) -> Option<Time<Ptp>> {
    if instance.may_take_either_role() {
        return Monotonic::default().at(stamp.time);
    }
    cx.clock.at(stamp.time)
}
