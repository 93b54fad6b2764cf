//! The server. Nothing of a request is kept but what its answer's departure needs, which is there some microseconds
//! later. Two messages go out for each that comes in, so strangers are answered only as far as they are worth it
//! ([`is_worth`]): whoever forges a sender must not make more of it than came in.

use core::net::IpAddr;

use alloc::collections::VecDeque;
use ptp_common::{
    time::{Mono, Time},
    wire::{
        Announce, Body, CsptpRequest, CsptpResponse, CsptpStatus, Flags, Header, MessageType,
        MessageView, PortIdentity, TimeInterval, Timestamp, Tlv, TlvBuilder, TlvType, Tlvs, csptp,
    },
};

use super::{Cx, Instance, Received};
use crate::prelude::*;
use crate::{
    Datagram, Destination, PortIndex, SentToken,
    address::Address,
    config::servers::{Answers, Protocol},
    counters::Drop,
    port::Role,
    prefix::Prefix,
    sent::Sent,
    stamp::Stamp,
};

/// Answers that wait for their stamps.
const PENDING: usize = 1024;
/// Octets around a message: Ethernet, IPv4 or IPv6, UDP.
const AROUND_V4: usize = 14 + 20 + 8;
const AROUND_V6: usize = 14 + 40 + 8 + 2;
/// What is sent may be longer than what came by this much, as a fraction.
const WORTH: (usize, usize) = (6, 5);

/// Whether a request of `request` octets may be answered by messages of these lengths, whoever sends it: not if
/// that is more than 1.2 times as much on the wire.
pub fn is_worth(request: usize, answers: [usize; 2], address: IpAddr) -> bool {
    let around = if address.to_canonical().is_ipv4() { AROUND_V4 } else { AROUND_V6 };
    let sent: usize = answers.iter().map(|each| each + around).sum();
    let (numerator, denominator) = WORTH;
    sent * denominator <= (request + around) * numerator
}

/// An answer that has no departure yet.
#[derive(Clone, Copy, Debug)]
struct Pending {
    token: SentToken,
    to: Address,
    index: usize,
    protocol: Protocol,
    domain_number: u8,
    sequence_id: u16,
    /// Of the request, less the fraction that the timestamp of its arrival leaves out.
    correction: TimeInterval,
}

/// What an instance that answers knows.
#[derive(Debug, Default)]
pub(crate) struct Answering {
    pending: VecDeque<Pending>,
    /// Who may be sent more than came from there.
    trusted: Vec<Prefix>,
    /// Only these are answered; all, if there are none.
    served: Vec<Prefix>,
}

/// Both messages of an answer as forms that somebody else may fill in who answers in this instance's name. Of a
/// CSPTP answer `domainNumber`, `sequenceId` and what CSPTP_RESPONSE says are to be filled in; of its Follow_Up the
/// first two and the time; of SPTP's Sync and Announce `sequenceId`, the times, and the Announce's correction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnswerForms {
    /// Which of them are served.
    pub served: Answers,
    /// CSPTP: the Sync with its status, and the Follow_Up.
    pub csptp: [Datagram; 2],
    /// SPTP: Sync and Announce.
    pub sptp: [Datagram; 2],
}

impl Answers {
    /// Of which exchange a message is a request, where those are answered. `own` is the domain and `sdoId` of the
    /// instance.
    pub(crate) fn exchange_of(
        self,
        kind: MessageType,
        header: &Header,
        own: (u8, u16),
    ) -> Option<Protocol> {
        let is_unicast = header.flags.contains(Flags::UNICAST);
        match kind {
            MessageType::Sync if header.sdo_id == csptp::SDO_ID => {
                let is_domain = csptp::DOMAINS.contains(&header.domain_number);
                (self.csptp && is_unicast && is_domain).then_some(Protocol::Csptp)
            }
            MessageType::DelayReq if (header.domain_number, header.sdo_id) == own => {
                let is_sptp = header.flags.contains(Flags::PROFILE_SPECIFIC_1);
                (self.sptp && is_unicast && is_sptp).then_some(Protocol::Sptp)
            }
            _ => None,
        }
    }
}

impl Instance {
    /// Who may be sent more than came from there, and who alone is answered (nobody said: everybody).
    pub fn set_prefixes(&mut self, trusted: Vec<Prefix>, served: Vec<Prefix>) {
        (self.answering.trusted, self.answering.served) = (trusted, served);
    }

    /// A message of an exchange that begins with the client, on either side of it; `None` for all others.
    pub(crate) fn exchange(
        &mut self,
        cx: &mut Cx<'_>,
        received: &Received<'_>,
    ) -> Option<Result<(), Drop>> {
        let is_asking = self.is_asking();
        if !is_asking && self.served.answers == Answers::default() {
            return None;
        }
        let view = match MessageView::new(received.bytes) {
            Ok(view) => view,
            Err(error) => return is_asking.then(|| Err(error.into())),
        };
        let (header, kind) = (view.header(), view.message_type());
        let own = (self.domain_number, self.sdo_id);
        let protocol = self.served.answers.exchange_of(kind, &header, own);
        if !is_asking && (protocol.is_none() || !self.is_telling(received.index)) {
            return None;
        }
        let port = self.ports.get_mut(received.index)?;
        self.last_now = cx.now;
        port.counters.count_received(kind);
        if matches!(port.role, Role::Disabled) {
            return Some(Err(Drop::PortDisabled));
        }
        Some(match protocol.filter(|_| !is_asking) {
            Some(protocol) => match view.tlvs() {
                Ok(tlvs) => self.take_exchange(cx, received, &header, &tlvs, protocol),
                Err(error) => Err(error.into()),
            },
            None => self.message_of_asker(cx, received, &header),
        })
    }

    /// A request. Its port serves.
    pub(crate) fn take_exchange(
        &mut self,
        cx: &mut Cx<'_>,
        received: &Received<'_>,
        header: &Header,
        tlvs: &Tlvs<'_>,
        protocol: Protocol,
    ) -> Result<(), Drop> {
        let Received { index, from, stamp, bytes } = *received;
        let Some(Address::Socket(socket)) = from else { return Err(Drop::NotForRole) };
        let address = socket.ip().to_canonical();
        let request = match protocol {
            Protocol::Csptp => CsptpRequest::find(tlvs).ok_or(Drop::Malformed)?,
            Protocol::Sptp => CsptpRequest::default(),
        };
        let served = &self.answering.served;
        if !served.is_empty() && !served.iter().any(|prefix| prefix.contains(address)) {
            return Err(Drop::NotServed);
        }
        let who = (header.source_port_identity, address);
        if self.requests.as_mut().is_some_and(|requests| !requests.admit(cx.now, &address, &who)) {
            return Err(Drop::RateLimited);
        }
        let arrival = stamp.and_then(|stamp| cx.clock.at(stamp.time));
        let (ingress, fraction) = Timestamp::from_time(arrival.ok_or(Drop::MissingRxStamp)?);
        let correction = TimeInterval(header.correction.0.saturating_sub(fraction.0));
        let (domain_number, sequence_id) = (header.domain_number, header.sequence_id);
        let answer = match protocol {
            Protocol::Csptp => {
                let response = CsptpResponse { ingress, correction };
                self.csptp_answer(cx.now, domain_number, sequence_id, response, request.status)
            }
            Protocol::Sptp => self.sptp_sync(index, sequence_id, ingress),
        };
        let behind = match protocol {
            Protocol::Csptp => MessageType::FollowUp,
            Protocol::Sptp => MessageType::Announce,
        };
        let lengths = [answer.len(), behind.fixed_length()];
        let is_trusted = self.answering.trusted.iter().any(|prefix| prefix.contains(address));
        if !is_trusted && !is_worth(bytes.len(), lengths, address) {
            return Err(Drop::WouldAmplify);
        }
        let on = PortIndex(index as u16);
        let token = self.in_flight.put(on, Sent::Answer);
        if self.answering.pending.len() >= PENDING {
            self.answering.pending.pop_front();
            self.count_drop(index, Drop::MissingTxStamp);
        }
        let to = Address::Socket(socket);
        self.answering.pending.push_back(Pending {
            token,
            to,
            index,
            protocol,
            domain_number,
            sequence_id,
            correction,
        });
        let to = Destination::Unicast(to);
        self.send(cx, index, MessageType::Sync, to, answer, Some(token));
        Ok(())
    }

    /// The stamp of an answer, or the news that there is none.
    pub(crate) fn answer_sent(&mut self, cx: &mut Cx<'_>, token: SentToken, stamp: Option<Stamp>) {
        let pending = &mut self.answering.pending;
        let Some(at) = pending.iter().position(|each| each.token == token) else { return };
        let Some(answer) = pending.remove(at) else { return };
        let Pending { to, index, protocol, domain_number, sequence_id, correction, .. } = answer;
        let Some(departure) = stamp.and_then(|stamp| cx.clock.at(stamp.time)) else {
            self.count_drop(index, Drop::MissingTxStamp);
            return;
        };
        let (origin, fraction) = Timestamp::from_time(departure);
        let (kind, message) = match protocol {
            Protocol::Csptp => {
                let follow_up = self.csptp_follow_up(cx.now, domain_number, sequence_id);
                let (mut header, body) =
                    (follow_up, Body::FollowUp { precise_origin_timestamp: origin });
                header.correction = fraction;
                (MessageType::FollowUp, Datagram::new(header, body))
            }
            Protocol::Sptp => (
                MessageType::Announce,
                self.sptp_announce(cx.now, index, sequence_id, origin, correction),
            ),
        };
        self.ports[index].counters.answers += 1;
        self.send(cx, index, kind, Destination::Unicast(to), message, None);
    }

    /// See [`AnswerForms`]; `None` while the port is no time transmitter.
    pub fn answer_forms(&self, now: Time<Mono>, port: PortIndex) -> Option<AnswerForms> {
        let index = usize::from(port.0);
        if !self.is_telling(index) {
            return None;
        }
        let served = self.served.answers;
        let (zero, correction) = (Timestamp::ZERO, TimeInterval(0));
        let response = CsptpResponse { ingress: zero, correction };
        let answer = self.csptp_answer(now, csptp::DEFAULT_DOMAIN, 0, response, true);
        let follow_up = self.csptp_follow_up(now, csptp::DEFAULT_DOMAIN, 0);
        let body = Body::FollowUp { precise_origin_timestamp: zero };
        let csptp = [answer, Datagram::new(follow_up, body)];
        let announce = self.sptp_announce(now, index, 0, zero, correction);
        let sptp = [self.sptp_sync(index, 0, zero), announce];
        Some(AnswerForms { served, csptp, sptp })
    }

    fn csptp_header(&self, now: Time<Mono>, domain_number: u8, sequence_id: u16) -> Header {
        let (_, flags) = self.announced(now);
        let mut header = Header::new(PortIdentity::default(), sequence_id);
        header.sdo_id = csptp::SDO_ID;
        header.domain_number = domain_number;
        header.flags = flags | Flags::UNICAST | Flags::TWO_STEP;
        header
    }

    fn csptp_follow_up(&self, now: Time<Mono>, domain_number: u8, sequence_id: u16) -> Header {
        self.csptp_header(now, domain_number, sequence_id)
    }

    fn csptp_answer(
        &self,
        now: Time<Mono>,
        domain_number: u8,
        sequence_id: u16,
        response: CsptpResponse,
        tells_status: bool,
    ) -> Datagram {
        let header = self.csptp_header(now, domain_number, sequence_id);
        let (announce, _) = self.announced(now);
        let status = CsptpStatus {
            priority1: announce.grandmaster_priority1,
            quality: announce.grandmaster_clock_quality,
            priority2: announce.grandmaster_priority2,
            steps_removed: announce.steps_removed,
            current_utc_offset: announce.current_utc_offset,
            grandmaster_identity: announce.grandmaster_identity,
        };
        let (response, status) = (response.value(), status.value());
        let mut buffer = [0; 2 * (4 + 18)];
        let mut tlvs = TlvBuilder::new(&mut buffer);
        let mut pushed = tlvs.push(Tlv { kind: TlvType::CSPTP_RESPONSE, value: &response });
        if tells_status {
            pushed = pushed
                .and_then(|()| tlvs.push(Tlv { kind: TlvType::CSPTP_STATUS, value: &status }));
        }
        let body = Body::Sync { origin_timestamp: Timestamp::ZERO };
        // Cannot fail: there is room for both.
        let told = pushed.and_then(|()| Datagram::with_tlvs(header, body, tlvs.finish()));
        told.unwrap_or_else(|_| Datagram::new(header, body))
    }

    fn sptp_sync(&self, index: usize, sequence_id: u16, ingress: Timestamp) -> Datagram {
        let mut header = self.header(index, sequence_id);
        header.flags = Flags::UNICAST | Flags::TWO_STEP;
        Datagram::new(header, Body::Sync { origin_timestamp: ingress })
    }

    fn sptp_announce(
        &self,
        now: Time<Mono>,
        index: usize,
        sequence_id: u16,
        origin: Timestamp,
        correction: TimeInterval,
    ) -> Datagram {
        let (announce, flags) = self.announced(now);
        let mut header = self.header(index, sequence_id);
        header.flags = flags | Flags::UNICAST;
        header.correction = correction;
        let announce = Announce { origin_timestamp: origin, ..announce };
        Datagram::new(header, Body::Announce(announce))
    }
}
