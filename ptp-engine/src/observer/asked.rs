//! Exchanges that begin with the client (CSPTP, SPTP), as they are seen from beside: a request, the answer to it, and
//! when that left. All four times of the path come together, so each of them is an offset and a delay where the client
//! is on this host, and two times that are claimed where the server is.
//!
//! What belongs together is told by the two addresses and the number, since clients of CSPTP have no identities: these are made of
//! their addresses, as a client does it with its servers.

use super::{
    Announced, ClaimSample, DomainKey, Observation, ObservedPacket, Observer, PacketStamp, PortKey,
    path::Point, sample::on_ptp_scale,
};
use crate::{
    address::Address,
    csptp::Protocol,
    instance::asking::{announce_of, exchanges::identity_of},
};
use core::num::NonZeroUsize;
use lru::LruCache;
use ptp_common::{
    record::Direction,
    time::{Duration, Mono, Ptp, Time},
    wire::{
        Body, CsptpResponse, CsptpStatus, Flags, Header, MessageType, MessageView, PortIdentity,
        TlvType, Tlvs, csptp,
    },
};

/// Exchanges that may be incomplete at a time.
const PENDING: usize = 1024;
/// How long the missing part is waited for.
const PATIENCE: Duration = Duration::from_secs(4);

/// Which exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct ExchangeKey {
    domain: DomainKey,
    client: Address,
    server: Address,
    sequence_id: u16,
}

/// What a message is of an exchange.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    key: ExchangeKey,
    protocol: Protocol,
    kind: MessageType,
    /// Who sent it.
    identity: PortIdentity,
    correction: Duration,
    said: Said,
}

#[derive(Clone, Copy, Debug)]
enum Said {
    Request,
    Answer {
        /// When the request arrived at the server.
        ingress: Time<Ptp>,
        /// Of the request, where the answer tells it.
        request_correction: Option<Duration>,
        /// When it left, where it says that itself.
        origin: Option<Time<Ptp>>,
        announced: Option<Announced>,
    },
    /// When the answer left.
    Departure {
        origin: Time<Ptp>,
        announced: Option<Announced>,
    },
}

#[derive(Clone, Copy, Debug)]
struct Request {
    port: PortKey,
    stamp: Option<PacketStamp>,
    correction: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Answer {
    port: PortKey,
    stamp: Option<PacketStamp>,
    ingress: Time<Ptp>,
    request_correction: Option<Duration>,
    correction: Duration,
}

/// An exchange of which a part is still missing.
#[derive(Clone, Copy, Debug)]
struct Pending {
    since: Time<Mono>,
    request: Option<Request>,
    answer: Option<Answer>,
    /// With the correction of its message, which is the request's in SPTP.
    departure: Option<(Time<Ptp>, Duration)>,
    is_done: bool,
}

/// See the module's paragraphs.
#[derive(Debug)]
pub(super) struct Asked(LruCache<ExchangeKey, Pending>);

impl Default for Asked {
    fn default() -> Self {
        const SIZE: NonZeroUsize = NonZeroUsize::new(PENDING).expect("not zero");
        Self(LruCache::new(SIZE))
    }
}

#[cfg(test)]
impl Asked {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

fn identity(of: PortIdentity, address: Address) -> PortIdentity {
    match address {
        Address::Socket(socket) if of == PortIdentity::default() => identity_of(socket.ip()),
        _ => of,
    }
}

impl Observer {
    /// What a message is of an exchange; `None` of one that is no part of any.
    pub(super) fn part_of_exchange(
        &self,
        packet: &ObservedPacket<'_>,
        header: &Header,
        body: &Body,
    ) -> Option<Part> {
        let (from, to) = packet.between?;
        let domain = DomainKey {
            interface: packet.interface,
            vlan: packet.vlan.filter(|identifier| *identifier != 0),
            domain_number: header.domain_number,
            sdo_id: header.sdo_id,
        };
        let sequence_id = header.sequence_id;
        let asks = ExchangeKey { domain, client: from, server: to, sequence_id };
        let answers = ExchangeKey { domain, client: to, server: from, sequence_id };
        let is_csptp = header.sdo_id == csptp::SDO_ID;
        let is_unicast = header.flags.contains(Flags::UNICAST);
        let is_asked_by_sptp = !is_csptp && is_unicast && self.asked.0.peek(&answers).is_some();
        let (protocol, key, said) = match *body {
            Body::Sync { origin_timestamp } if is_csptp => {
                let view = MessageView::from_prefix(packet.bytes).ok()?;
                // The end of a long one may be cut off, so what it is is told by what comes first.
                let first = packet.bytes.get(44..46).map(|kind| [kind[0], kind[1]]);
                let first = first.map(|kind| TlvType(u16::from_be_bytes(kind)));
                if first == Some(TlvType::CSPTP_REQUEST) {
                    (Protocol::Csptp, asks, Said::Request)
                } else {
                    let tlvs = view.tlvs().unwrap_or(Tlvs::NONE);
                    let response = CsptpResponse::find(&tlvs)?;
                    let own = identity(header.source_port_identity, from).clock_identity;
                    let status = CsptpStatus::find(&tlvs);
                    let announce = announce_of(status.as_ref(), own, header.flags);
                    let is_two_step = header.flags.contains(Flags::TWO_STEP);
                    let said = Said::Answer {
                        ingress: response.ingress.into(),
                        request_correction: Some(response.correction.into()),
                        origin: (!is_two_step).then(|| origin_timestamp.into()),
                        announced: Some(Announced { flags: header.flags, announce }),
                    };
                    (Protocol::Csptp, answers, said)
                }
            }
            Body::FollowUp { precise_origin_timestamp } if is_csptp => {
                let origin = precise_origin_timestamp.into();
                (Protocol::Csptp, answers, Said::Departure { origin, announced: None })
            }
            Body::DelayReq { .. }
                if is_unicast && header.flags.contains(Flags::PROFILE_SPECIFIC_1) =>
            {
                (Protocol::Sptp, asks, Said::Request)
            }
            Body::Sync { origin_timestamp } if is_asked_by_sptp => {
                let ingress = origin_timestamp.into();
                let (request_correction, origin, announced) = (None, None, None);
                let said = Said::Answer { ingress, request_correction, origin, announced };
                (Protocol::Sptp, answers, said)
            }
            Body::Announce(announce) if is_asked_by_sptp => {
                let origin = announce.origin_timestamp.into();
                let announced = Some(Announced { flags: header.flags, announce });
                (Protocol::Sptp, answers, Said::Departure { origin, announced })
            }
            _ => return None,
        };
        Some(Part {
            key,
            protocol,
            kind: body.message_type(),
            identity: identity(header.source_port_identity, from),
            correction: header.correction.into(),
            said,
        })
    }

    /// Takes a part; what it completes.
    pub(super) fn exchange(
        &mut self,
        now: Time<Mono>,
        port: PortKey,
        stamp: Option<PacketStamp>,
        part: Part,
    ) -> Option<Observation> {
        let Part { key, protocol, kind, identity, correction, said } = part;
        let port = PortKey { port_identity: identity, ..port };
        self.heard(now, port, kind)?;
        self.expire_asked(now);
        if !self.asked.0.contains(&key) {
            if self.asked.0.len() == PENDING {
                self.let_go_of_oldest();
            }
            let (request, answer, departure, is_done) = (None, None, None, false);
            let pending = Pending { since: now, request, answer, departure, is_done };
            self.asked.0.push(key, pending);
        }
        let pending = self.asked.0.peek_mut(&key)?;
        let is_known = match said {
            Said::Request => pending.request.replace(Request { port, stamp, correction }).is_some(),
            Said::Answer { ingress, request_correction, origin, announced } => {
                if let Some(origin) = origin {
                    pending.departure = Some((origin, Duration::ZERO));
                }
                let answer = Answer { port, stamp, ingress, request_correction, correction };
                let is_known = pending.answer.replace(answer).is_some();
                self.announced(port, announced);
                is_known
            }
            Said::Departure { origin, announced } => {
                let is_known = pending.departure.replace((origin, correction)).is_some();
                self.announced(port, announced);
                is_known
            }
        };
        if is_known {
            self.ports.peek_mut(&port)?.seen.losses.duplicate += 1;
            return None;
        }
        let pending = self.asked.0.peek_mut(&key)?;
        let (request, answer, departure) = (pending.request?, pending.answer?, pending.departure?);
        pending.is_done = true;
        self.exchange_complete(protocol, key.sequence_id, &request, &answer, departure)
    }

    fn announced(&mut self, port: PortKey, announced: Option<Announced>) {
        if let (Some(port), Some(announced)) = (self.ports.peek_mut(&port), announced) {
            port.seen.announced = Some(announced);
        }
    }

    fn exchange_complete(
        &mut self,
        protocol: Protocol,
        sequence_id: u16,
        request: &Request,
        answer: &Answer,
        (origin, correction): (Time<Ptp>, Duration),
    ) -> Option<Observation> {
        let client = self.ports.peek_mut(&request.port)?;
        if request.port.direction == answer.port.direction {
            client.seen.exchanges.foreign_delay += 1;
            return None;
        }
        let (Some(asked), Some(answered)) = (request.stamp, answer.stamp) else {
            client.seen.losses.stamp_missing += 1;
            return None;
        };
        client.seen.exchanges.delay += 1;
        // That of SPTP's Announce is the request's, that of a Follow_Up the answer's.
        let (told, behind) = match protocol {
            Protocol::Csptp => (answer.request_correction, correction),
            Protocol::Sptp => (Some(correction), Duration::ZERO),
        };
        let told = told.unwrap_or_default();
        let server = self.ports.peek_mut(&answer.port)?;
        server.seen.exchanges.delay_answered += 1;
        server.seen.exchanges.sync += 1;
        let t1 = origin + answer.correction + behind;
        let t4 = answer.ingress - told;
        if request.port.direction == Direction::Egress {
            let at = asked.stamp.time;
            server.tx_source = Some(asked.stamp.source);
            let point = Point { at, difference: t4.ahead_of(at) };
            let (stamp, real) = (answered.stamp, answered.real);
            let with = Some((protocol, point));
            return server
                .measure(None, sequence_id, stamp, real, t1, with)
                .map(Observation::Offset);
        }
        let announced = server.seen.announced?;
        // What is told of the request's correction is less by the fraction that its arrival leaves out.
        let claimed = answer.ingress + (request.correction - told);
        let received = claimed - on_ptp_scale(asked.real, &announced);
        server.seen.delay_claim.record(received.as_nanos_f64());
        let difference = t1 - on_ptp_scale(answered.real, &announced);
        server.seen.sync_claim.record(difference.as_nanos_f64());
        Some(Observation::SyncClaim(ClaimSample {
            domain: answer.port.domain,
            source: answer.port.port_identity,
            requester: Some(request.port.port_identity),
            sequence_id,
            at: answered.stamp.time,
            difference,
        }))
    }

    /// Lets go of what has waited too long, and counts what was missing.
    pub(super) fn expire_asked(&mut self, now: Time<Mono>) {
        while self.asked.0.peek_lru().is_some_and(|(_, oldest)| now - oldest.since > PATIENCE) {
            self.let_go_of_oldest();
        }
    }

    fn let_go_of_oldest(&mut self) {
        let Some((_, Pending { request, answer, is_done: false, .. })) = self.asked.0.pop_lru()
        else {
            return;
        };
        let port = request.map(|it| it.port).or(answer.map(|it| it.port));
        let Some(port) = port.and_then(|port| self.ports.peek_mut(&port)) else { return };
        let losses = &mut port.seen.losses;
        match (request, answer) {
            (None, _) => losses.unknown_requester += 1,
            (_, None) => losses.delay_req_without_resp += 1,
            _ => losses.sync_without_follow_up += 1,
        }
    }
}
