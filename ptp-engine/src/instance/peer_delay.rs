//! The peer delay mechanism on a port, whatever its role: what is asked, what is answered, what is measured.

use ptp_common::{
    time::{Duration, Ptp, Time},
    wire::{Body, Header, MessageType, PortIdentity, Timestamp},
};

use super::{Cx, Instance};
use crate::{
    Datagram, Group, Monotonic, PortIndex, ReadClock, SentToken, counters::Drop,
    outcome::Observation, pdelay::PeerDelay, port::PortTimer, sent::Sent, stamp::Stamp,
};

impl Instance {
    pub(super) fn send_pdelay_req(&mut self, cx: &mut Cx<'_>, index: usize) {
        let token = self.in_flight.put(PortIndex(index as u16), Sent::PdelayReq);
        let port = &mut self.ports[index];
        let interval = Duration::from_log_interval(port.config.log_min_pdelay_req_interval);
        self.timers.set((index as u16, PortTimer::PdelayReq), cx.now + interval);
        let sequence_id = port.pdelay_sequence_id;
        port.pdelay_sequence_id = sequence_id.wrapping_add(1);
        for _ in 0..port.initiator.sent(token, sequence_id) {
            port.counters.count_drop(Drop::UnansweredPdelayReq);
        }
        let header = self.header(index, sequence_id);
        let body = Body::PdelayReq { origin_timestamp: Timestamp::ZERO };
        let message = Datagram::new(header, body);
        self.send_event(cx, index, MessageType::PdelayReq, token, Group::Peer, message);
    }

    pub(super) fn pdelay_req_sent(
        &mut self,
        cx: &mut Cx<'_>,
        index: usize,
        token: SentToken,
        stamp: Option<Stamp>,
    ) {
        let parent = self.parent.map(|parent| parent.set.parent_port_identity);
        match self.ports[index].initiator.stamped(token, stamp, parent) {
            Some(Ok(done)) => self.finish_peer_delay(cx, index, done),
            Some(Err(cause)) => self.count_drop(index, cause),
            None => {}
        }
    }

    pub(crate) fn answer_pdelay_req(
        &mut self,
        cx: &mut Cx<'_>,
        index: usize,
        header: &Header,
        rx: Option<Stamp>,
    ) -> Result<(), Drop> {
        let receipt = rx.and_then(|rx| self.free_time(cx, rx)).ok_or(Drop::MissingRxStamp)?;
        let on = PortIndex(index as u16);
        let token = self.in_flight.put(on, Sent::PdelayResp);
        let template = self.header(index, header.sequence_id);
        let responder = &mut self.ports[index].responder;
        let message = responder.answer(token, template, header, receipt);
        self.send_event(cx, index, MessageType::PdelayResp, token, Group::Peer, message);
        Ok(())
    }

    /// What Pdelay_Req is answered by. Only differences and the rate mean anything to the peer, so that a clock
    /// that is steered answers with one that is not.
    fn free_time(&self, cx: &Cx<'_>, stamp: Stamp) -> Option<Time<Ptp>> {
        if self.may_take_either_role() {
            return Monotonic::default().at(stamp.time);
        }
        cx.clock.at(stamp.time)
    }

    pub(super) fn pdelay_resp_sent(
        &mut self,
        cx: &mut Cx<'_>,
        index: usize,
        token: SentToken,
        stamp: Option<Stamp>,
    ) {
        let sent = stamp.and_then(|stamp| self.free_time(cx, stamp));
        match self.ports[index].responder.stamped(token, sent) {
            Some(Some(message)) => {
                let kind = MessageType::PdelayRespFollowUp;
                self.send_general(cx, index, kind, Group::Peer, message);
            }
            Some(None) => self.count_drop(index, Drop::MissingTxStamp),
            None => {}
        }
    }

    pub(super) fn take_pdelay_resp(
        &mut self,
        cx: &mut Cx<'_>,
        index: usize,
        header: &Header,
        receipt: Timestamp,
        rx: Option<Stamp>,
    ) -> Result<(), Drop> {
        let t4 = rx.ok_or(Drop::MissingRxStamp)?;
        let parent = self.parent_on(index);
        let initiator = &mut self.ports[index].initiator;
        let (done, is_of_many) = initiator.response(header, receipt.into(), t4, parent)?;
        if is_of_many {
            self.count_drop(index, Drop::MultipleResponders);
        }
        self.finish_peer_delay(cx, index, done);
        Ok(())
    }

    pub(super) fn take_pdelay_resp_follow_up(
        &mut self,
        cx: &mut Cx<'_>,
        index: usize,
        header: &Header,
        origin: Timestamp,
    ) -> Result<(), Drop> {
        let parent = self.parent_on(index);
        let done = self.ports[index].initiator.follow_up(header, origin.into(), parent)?;
        self.finish_peer_delay(cx, index, done);
        Ok(())
    }

    pub(super) fn pdelay_answer_is_ours(
        &self,
        index: usize,
        requester: PortIdentity,
    ) -> Result<(), Drop> {
        if requester == self.ports[index].identity { Ok(()) } else { Err(Drop::OtherRequester) }
    }

    fn finish_peer_delay(&mut self, cx: &mut Cx<'_>, index: usize, done: Option<PeerDelay>) {
        let Some(done) = done else { return };
        let port = &mut self.ports[index];
        if !port.round_trip.measured(done.t4.time, done.mean_link_delay * 2) {
            port.counters.count_drop(Drop::ImplausibleDelay);
            return;
        }
        port.counters.peer_delay_exchanges += 1;
        if self.parent_on(index).is_some() {
            self.measured(cx, index, Observation::PeerDelay(done));
        }
    }
}
