//! The peer-to-peer delay mechanism (IEEE 1588-2019 11.4), both sides of it: a [`Responder`] that
//! answers two-step, and an [`Initiator`] that measures the link.
//!
//! A second port that answers the same request is a misconfigured switch or somebody who wants to
//! stop the clock. Neither may: answers are kept per responder, the known peer is believed, and
//! another one takes over only after the known peer has been silent for several requests.

use crate::prelude::*;
use crate::{Datagram, SentToken, counters::Drop, outcome::PeerDelay, stamp::Stamp};
use alloc::collections::VecDeque;
use ptp_common::{
    time::{Duration, Mono, Ptp, Time},
    wire::{Body, Flags, Header, PortIdentity, TimeInterval, Timestamp},
};

/// Answers that wait for the stamp of their Pdelay_Resp.
const PENDING_ANSWERS: usize = 32;
/// Requests that wait for answers.
const PENDING_REQUESTS: usize = 4;
/// Ports that are remembered for one request.
const RESPONDERS: usize = 4;
/// Requests that the known peer may leave unanswered before another one is believed.
const PEER_PATIENCE: u8 = 3;

/// Answers Pdelay_Req with Pdelay_Resp, and once that is stamped with Pdelay_Resp_Follow_Up.
#[derive(Debug, Default)]
pub(crate) struct Responder {
    pending: VecDeque<Answer>,
    /// Whose request was answered last, and when that was received.
    latest: Option<(PortIdentity, Time<Mono>)>,
}

#[derive(Debug)]
struct Answer {
    token: SentToken,
    header: Header,
    requesting_port_identity: PortIdentity,
}

impl Responder {
    /// Whether a request that was received at `at`, and whose stamp has come only now, is older than the one of the
    /// same port that was answered last. Nobody waits for that answer any more, and ptp4l 3.1 takes it for a rogue's
    /// and stops for 16 s. What is not older counts as answered.
    pub(crate) fn is_overtaken(&mut self, request: &Header, at: Time<Mono>) -> bool {
        let requester = request.source_port_identity;
        if self.latest.is_some_and(|(port, latest)| port == requester && at < latest) {
            return true;
        }
        self.latest = Some((requester, at));
        false
    }

    /// The Pdelay_Resp to a request that was received at `receipt`. `template` is the header that
    /// this clock sends with, in whose name the request was.
    pub(crate) fn answer(
        &mut self,
        token: SentToken,
        template: Header,
        request: &Header,
        receipt: Time<Ptp>,
    ) -> Datagram {
        if self.pending.len() >= PENDING_ANSWERS {
            self.pending.pop_front();
        }
        let requesting_port_identity = request.source_port_identity;
        let mut header = Header { sequence_id: request.sequence_id, ..template };
        // 11.4.2 c) 7): Pdelay_Resp carries the receive time, its fraction of a nanosecond with the
        // sign reversed, and the follow-up the request's own correction.
        header.correction = request.correction;
        self.pending.push_back(Answer { token, header, requesting_port_identity });
        let (request_receipt_timestamp, fraction) = Timestamp::from_time(receipt);
        // IEEE 802.1AS has it the other way round (11.2.20.3.1).
        header.correction = TimeInterval(if is_gptp(&header) { fraction.0 } else { -fraction.0 });
        header.flags |= Flags::TWO_STEP;
        Datagram::new(
            header,
            Body::PdelayResp { request_receipt_timestamp, requesting_port_identity },
        )
    }

    /// The follow-up to the answer that was sent with `token`; `None` if it was none of ours.
    /// Without a stamp there is no follow-up, and the inner value is `None`.
    pub(crate) fn stamped(
        &mut self,
        token: SentToken,
        sent: Option<Time<Ptp>>,
    ) -> Option<Option<Datagram>> {
        let at = self.pending.iter().position(|answer| answer.token == token)?;
        let Answer { mut header, requesting_port_identity, .. } = self.pending.remove(at)?;
        let follow_up = sent.map(|sent| {
            let (response_origin_timestamp, fraction) = Timestamp::from_time(sent);
            header.correction = TimeInterval(header.correction.0.saturating_add(fraction.0));
            Datagram::new(
                header,
                Body::PdelayRespFollowUp { response_origin_timestamp, requesting_port_identity },
            )
        });
        Some(follow_up)
    }
}

/// Whether a message is of IEEE 802.1AS: `majorSdoId` 1.
const fn is_gptp(header: &Header) -> bool {
    header.sdo_id >> 8 == 1
}

#[derive(Debug)]
struct Request {
    token: SentToken,
    sequence_id: u16,
    t1: Option<Stamp>,
    responses: Vec<Response>,
    answered: bool,
}

#[derive(Clone, Debug)]
struct Response {
    responder: PortIdentity,
    /// Request receipt and correction of Pdelay_Resp, receive stamp.
    resp: Option<(Time<Ptp>, Duration, bool, Stamp)>,
    /// Response origin and correction of the follow-up.
    follow_up: Option<(Time<Ptp>, Duration)>,
}

/// Sends Pdelay_Req and makes measurements of what comes back.
#[derive(Debug, Default)]
pub(crate) struct Initiator {
    requests: VecDeque<Request>,
    peer: Option<PortIdentity>,
    /// Requests in a row that were answered, but not by the peer.
    missed: u8,
    /// Response origin and arrival of earlier exchanges with the peer, for the rate ratio.
    anchors: Anchors,
}

/// Earlier exchanges with the peer, about one a second, the oldest first.
#[derive(Debug, Default)]
struct Anchors(VecDeque<(Time<Ptp>, Time<Mono>)>);

impl Anchors {
    /// Long enough for a good ratio, short enough to follow the temperature: stamps of one microsecond make one of 0.1 ppm.
    const SPAN: Duration = Duration::from_secs(16);
    /// No two are nearer to each other, and with the span that is how many there are.
    const APART: Duration = Duration::from_millis(900);

    /// `neighborRateRatio` from the oldest to an exchange whose answer left at `origin` by the peer's clock and came at `arrived`.
    fn ratio(&mut self, origin: Time<Ptp>, arrived: Time<Mono>) -> Option<f64> {
        while self.0.get(1).is_some_and(|(_, next)| arrived - *next >= Self::SPAN) {
            self.0.pop_front();
        }
        let ratio = self.0.front().map(|(first, since)| {
            (origin - *first).as_nanos_f64() / (arrived - *since).as_nanos_f64()
        });
        // A ratio that no oscillator has: the peer's clock was set in between.
        let possible = ratio.filter(|ratio| (0.9..1.1).contains(ratio));
        if ratio.is_some() && possible.is_none() {
            self.0.clear();
        }
        if self.0.back().is_none_or(|(_, last)| arrived - *last >= Self::APART) {
            self.0.push_back((origin, arrived));
        }
        possible
    }
}

impl Initiator {
    /// Notes a request that is sent now; returns how many unanswered ones it displaces.
    pub(crate) fn sent(&mut self, token: SentToken, sequence_id: u16) -> usize {
        let mut unanswered = 0;
        while self.requests.len() >= PENDING_REQUESTS {
            if let Some(old) = self.requests.pop_front() {
                unanswered += usize::from(old.responses.is_empty());
                self.settle(&old);
            }
        }
        let request =
            Request { token, sequence_id, t1: None, responses: Vec::new(), answered: false };
        self.requests.push_back(request);
        unanswered
    }

    /// A request has had its time: if others answered it and the peer did not, the peer loses trust.
    fn settle(&mut self, request: &Request) {
        let Some(peer) = self.peer else { return };
        if request.responses.is_empty() {
            return;
        }
        if request.responses.iter().any(|response| response.responder == peer) {
            self.missed = 0;
        } else {
            self.missed = self.missed.saturating_add(1);
            if self.missed >= PEER_PATIENCE {
                self.peer = None;
                self.missed = 0;
                self.anchors.0.clear();
            }
        }
    }

    /// The stamp of a request; `None` if the token is none of ours.
    pub(crate) fn stamped(
        &mut self,
        token: SentToken,
        t1: Option<Stamp>,
        parent: Option<PortIdentity>,
    ) -> Option<Result<Option<PeerDelay>, Drop>> {
        let at = self.requests.iter().position(|request| request.token == token)?;
        let Some(t1) = t1 else {
            self.requests.remove(at);
            return Some(Err(Drop::MissingTxStamp));
        };
        self.requests[at].t1 = Some(t1);
        Some(Ok(self.finish(at, parent)))
    }

    /// A Pdelay_Resp for this port; the flag says that somebody else has answered before.
    pub(crate) fn response(
        &mut self,
        header: &Header,
        request_receipt: Time<Ptp>,
        t4: Stamp,
        parent: Option<PortIdentity>,
    ) -> Result<(Option<PeerDelay>, bool), Drop> {
        let (at, n, multiple) = self.entry(header, parent)?;
        let response = &mut self.requests[at].responses[n];
        if response.resp.is_some() {
            return Err(Drop::Duplicate);
        }
        let two_step = header.flags.contains(Flags::TWO_STEP);
        let correction = header.correction.0;
        let correction = if is_gptp(header) { correction.saturating_neg() } else { correction };
        response.resp = Some((request_receipt, TimeInterval(correction).into(), two_step, t4));
        Ok((self.finish(at, parent), multiple))
    }

    /// A Pdelay_Resp_Follow_Up for this port, which may be there before what it follows; says whether somebody else has
    /// answered before.
    pub(crate) fn follow_up(
        &mut self,
        header: &Header,
        response_origin: Time<Ptp>,
        parent: Option<PortIdentity>,
    ) -> Result<(Option<PeerDelay>, bool), Drop> {
        let (at, n, is_of_many) = self.entry(header, parent)?;
        let response = &mut self.requests[at].responses[n];
        if response.follow_up.is_some() {
            return Err(Drop::Duplicate);
        }
        response.follow_up = Some((response_origin, header.correction.into()));
        Ok((self.finish(at, parent), is_of_many))
    }

    /// Finds or makes the place for an answer; says whether somebody else has answered before.
    fn entry(
        &mut self,
        header: &Header,
        parent: Option<PortIdentity>,
    ) -> Result<(usize, usize, bool), Drop> {
        let at = self
            .requests
            .iter()
            .position(|request| request.sequence_id == header.sequence_id)
            .ok_or(Drop::UnmatchedPdelayResp)?;
        let responses = &mut self.requests[at].responses;
        let responder = header.source_port_identity;
        if let Some(n) = responses.iter().position(|each| each.responder == responder) {
            return Ok((at, n, false));
        }
        if responses.len() >= RESPONDERS {
            // A crowd that answers first must not crowd out the port to be believed.
            if Some(responder) != self.peer && Some(responder) != parent {
                return Err(Drop::MultipleResponders);
            }
            responses.pop();
        }
        responses.push(Response { responder, resp: None, follow_up: None });
        Ok((at, responses.len() - 1, responses.len() > 1))
    }

    /// Makes the measurement if request `at` has everything from the port to be believed.
    fn finish(&mut self, at: usize, parent: Option<PortIdentity>) -> Option<PeerDelay> {
        let request = &mut self.requests[at];
        if request.answered {
            return None;
        }
        let t1 = request.t1?;
        let complete = |response: &&Response| {
            response
                .resp
                .is_some_and(|(_, _, two_step, _)| !two_step || response.follow_up.is_some())
        };
        let from = |port: Option<PortIdentity>| {
            let port = port?;
            request.responses.iter().find(|response| response.responder == port)
        };
        // Where the parent itself answers it is the peer; behind a transparent clock it cannot.
        let response = match from(parent).or_else(|| from(self.peer)) {
            Some(response) => Some(response).filter(complete)?,
            None if self.peer.is_none() => request.responses.iter().find(complete)?,
            None => return None,
        };
        let (receipt, correction, two_step, t4) = response.resp?;
        let mut turnaround = correction;
        let mut origin = None;
        if two_step {
            let (response_origin, follow_up_correction) = response.follow_up?;
            turnaround += (response_origin - receipt) + follow_up_correction;
            origin = Some(response_origin + correction + follow_up_correction);
        }
        let responder = response.responder;
        if self.peer != Some(responder) {
            self.peer = Some(responder);
            self.anchors.0.clear();
        }
        request.answered = true;
        let sequence_id = request.sequence_id;
        let neighbor_rate_ratio = origin.and_then(|origin| self.anchors.ratio(origin, t4.time));
        let held = match neighbor_rate_ratio {
            Some(ratio) => Duration::from_nanos_f64(turnaround.as_nanos_f64() / ratio),
            None => turnaround,
        };
        let mean_link_delay = ((t4.time - t1.time) - held).half();
        Some(PeerDelay {
            responder,
            t1,
            t4,
            turnaround,
            mean_link_delay,
            neighbor_rate_ratio,
            sequence_id,
        })
    }

    /// How much is stored.
    #[cfg(test)]
    pub(crate) fn stored(&self) -> usize {
        let requests = self.requests.iter().map(|request| 1 + request.responses.len());
        requests.sum::<usize>() + self.anchors.0.len()
    }

    /// Forgets everything; the link has changed.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}
