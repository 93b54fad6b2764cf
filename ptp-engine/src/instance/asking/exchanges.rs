//! Requests out, answers in, and the four times of an exchange together, in whatever order their parts and stamps
//! come.

use core::net::IpAddr;

use super::{
    Answer, BURST, BURST_INTERVAL, Departure, MISSED, Origin, PENDING, Pending, SLACK, SLOW, Said,
    Server,
};
use crate::{
    Datagram, Destination, PortIndex, SentToken,
    address::Address,
    config::servers::{Protocol, ServerConfig},
    counters::Drop,
    instance::{Cx, Instance, Received},
    limits,
    outcome::{DelayObservation, Measurement, Observation, StateReason, SyncObservation},
    port::Role,
    seam::Command,
    sent::Sent,
    stamp::Stamp,
};
use ptp_common::{
    time::Duration,
    wire::{
        Body, ClockIdentity, CsptpRequest, CsptpResponse, CsptpStatus, Flags, Header, Message,
        MessageType, PortIdentity, Timestamp, Tlv, TlvBuilder, TlvType, csptp,
    },
};
use rand::RngExt;

impl Instance {
    /// Asks who is to be asked now.
    pub(crate) fn ask_due(&mut self, cx: &mut Cx<'_>) {
        let mut is_due = false;
        while let Some((n, _)) =
            self.asking.as_deref_mut().and_then(|asking| asking.timers.pop_due(cx.now))
        {
            is_due = true;
            self.ask(cx, usize::from(n));
        }
        if is_due {
            self.decide_as_asker(cx, StateReason::AnnounceTimeout);
        }
    }

    fn ask(&mut self, cx: &mut Cx<'_>, n: usize) {
        let part = self.rng.random_range(-0.1..=0.1);
        let sequence_id: u16 = self.rng.random();
        let now = cx.now;
        let Some(asking) = self.asking.as_deref_mut() else { return };
        let Some(server) = asking.servers.get_mut(n) else { return };
        let on = server.config.port;
        let index = usize::from(on.0);
        let Some(port) = self.ports.get_mut(index) else { return };
        for _ in 0..server.expire(now) {
            port.counters.count_drop(Drop::UnansweredRequest);
        }
        let usual = server.interval();
        let interval = match () {
            () if server.missed >= MISSED => usual.max(SLOW),
            () if server.exchanges < u64::from(BURST) => usual.min(BURST_INTERVAL),
            () => usual,
        };
        let next = interval + Duration::from_nanos_f64(interval.as_nanos_f64() * part);
        asking.timers.set(n as u16, now + next);
        let Some(address) = server.config.address else { return };
        if matches!(port.role, Role::Disabled) {
            return;
        }
        // No two under way have one number, and nobody can foresee it.
        let is_used = |id: u16| server.pending.iter().any(|each| each.sequence_id == id);
        let sequence_id = (0..=PENDING as u16)
            .map(|more| sequence_id.wrapping_add(more))
            .find(|id| !is_used(*id))
            .unwrap_or(sequence_id);
        let token = self.in_flight.put(on, Sent::Request(n as u16));
        let (departure, answer, origin) = (Departure::Awaited, None, None);
        let asked_at = now;
        server.pending.push_back(Pending {
            sequence_id,
            token,
            asked_at,
            departure,
            answer,
            origin,
        });
        server.requests += 1;
        let ServerConfig { protocol, domain_number, .. } = server.config;
        let (kind, message) = match protocol {
            Protocol::Csptp => (MessageType::Sync, csptp_request(domain_number, sequence_id)),
            Protocol::Sptp => {
                let mut header = self.header(index, sequence_id);
                header.flags = Flags::UNICAST | Flags::PROFILE_SPECIFIC_1;
                let body = Body::DelayReq { origin_timestamp: Timestamp::ZERO };
                (MessageType::DelayReq, Datagram::new(header, body))
            }
        };
        let to = Destination::Unicast(Address::Socket(address));
        self.send(cx, index, kind, to, message, Some(token));
    }

    /// The stamp of a request, or the news that there is none.
    pub(crate) fn request_sent(
        &mut self,
        cx: &mut Cx<'_>,
        n: u16,
        token: SentToken,
        stamp: Option<Stamp>,
    ) {
        let n = usize::from(n);
        let Some(asking) = self.asking.as_deref_mut() else { return };
        let Some(server) = asking.servers.get_mut(n) else { return };
        let Some(at) = server.pending.iter().position(|each| each.token == token) else { return };
        let index = usize::from(server.config.port.0);
        match stamp {
            Some(stamp) => {
                server.pending[at].departure = Departure::Stamped(stamp);
                if let Err(cause) = self.finish_exchange(cx, n, at) {
                    self.count_drop(index, cause);
                }
            }
            None => {
                // The server is not to blame.
                server.pending.remove(at);
                self.count_drop(index, Drop::MissingTxStamp);
            }
        }
    }

    /// A message for an instance that asks.
    pub(crate) fn message_of_asker(
        &mut self,
        cx: &mut Cx<'_>,
        received: &Received<'_>,
        header: &Header,
    ) -> Result<(), Drop> {
        let Received { index, from, bytes, stamp } = *received;
        let message = Message::parse(bytes)?;
        let (domain_number, sdo_id) = (self.domain_number, self.sdo_id);
        let Some(asking) = self.asking.as_deref_mut() else { return Err(Drop::NotForRole) };
        let on = PortIndex(index as u16);
        let is_waiting = |server: &Server| {
            server.pending.iter().any(|each| each.sequence_id == header.sequence_id)
        };
        let is_its =
            |server: &Server| server.is_at(from, on) && server.is_of(header, domain_number, sdo_id);
        let found = asking.servers.iter().position(|each| is_its(each) && is_waiting(each));
        let Some(n) = found else {
            // What is sent to all is somebody else's business.
            let is_for_us = header.flags.contains(Flags::UNICAST);
            return Err(if is_for_us { Drop::NotAsked } else { Drop::NotParent });
        };
        let correction: Duration = header.correction.into();
        if !limits::is_correction(correction) {
            return Err(Drop::Correction);
        }
        let server = &mut asking.servers[n];
        let protocol = server.config.protocol;
        let identity = match (header.source_port_identity, server.config.address) {
            // CSPTP has none.
            (none, Some(address)) if none == PortIdentity::default() => identity_of(address.ip()),
            (identity, _) => identity,
        };
        let at = server.pending.iter().position(|each| each.sequence_id == header.sequence_id);
        let Some(at) = at else { return Err(Drop::NotAsked) };
        let pending = &mut server.pending[at];
        match (protocol, message.body) {
            (_, Body::Sync { origin_timestamp }) => {
                if pending.answer.is_some() {
                    return Err(Drop::Duplicate);
                }
                let nothing = Said::nothing(identity.clock_identity, header.flags);
                let (ingress, request_correction, said) = match protocol {
                    Protocol::Csptp => {
                        let response = CsptpResponse::find(&message.tlvs).ok_or(Drop::Malformed)?;
                        let status = CsptpStatus::find(&message.tlvs);
                        let said = status.map_or(nothing, |status| nothing.with(&status));
                        (response.ingress, Some(response.correction.into()), Some(said))
                    }
                    Protocol::Sptp => (origin_timestamp, None, None),
                };
                let Some(rx) = stamp else {
                    server.pending.remove(at);
                    return Err(Drop::MissingRxStamp);
                };
                let ingress = ingress.into();
                pending.answer =
                    Some(Answer { rx, identity, ingress, request_correction, correction, said });
                let is_one_step =
                    protocol == Protocol::Csptp && !header.flags.contains(Flags::TWO_STEP);
                if is_one_step {
                    let (time, correction) = (origin_timestamp.into(), Duration::ZERO);
                    let (request_correction, said) = (None, None);
                    pending.origin = Some(Origin { time, correction, request_correction, said });
                }
            }
            (Protocol::Csptp, Body::FollowUp { precise_origin_timestamp }) => {
                if pending.origin.is_some() {
                    return Err(Drop::Duplicate);
                }
                let (request_correction, said) = (None, None);
                let time = precise_origin_timestamp.into();
                pending.origin = Some(Origin { time, correction, request_correction, said });
            }
            (Protocol::Sptp, Body::Announce(announce)) => {
                if pending.origin.is_some() {
                    return Err(Drop::Duplicate);
                }
                let said = Some(Said { announce, flags: header.flags });
                let time = announce.origin_timestamp.into();
                let request_correction = Some(correction);
                let correction = Duration::ZERO;
                pending.origin = Some(Origin { time, correction, request_correction, said });
            }
            _ => return Err(Drop::NotForRole),
        }
        self.finish_exchange(cx, n, at)
    }

    /// The four times together, once they are all there.
    fn finish_exchange(&mut self, cx: &mut Cx<'_>, n: usize, at: usize) -> Result<(), Drop> {
        let now = cx.now;
        let own = self.clock_identity;
        let Some(asking) = self.asking.as_deref_mut() else { return Ok(()) };
        let server = &mut asking.servers[n];
        let Pending {
            sequence_id,
            departure: Departure::Stamped(tx),
            answer: Some(answer),
            origin: Some(origin),
            ..
        } = server.pending[at]
        else {
            return Ok(());
        };
        server.pending.remove(at);
        let request_correction =
            answer.request_correction.or(origin.request_correction).unwrap_or(Duration::ZERO);
        if !limits::is_correction(request_correction) {
            return Err(Drop::Correction);
        }
        let index = usize::from(server.config.port.0);
        let asymmetry = self.ports[index].config.delay_asymmetry;
        let response_correction = answer.correction + origin.correction;
        let residence = origin.time - answer.ingress;
        let round_trip =
            (answer.rx.time - tx.time) - residence - request_correction - response_correction;
        let is_possible = !(answer.rx.time - tx.time).is_negative()
            && !(residence + SLACK).is_negative()
            && !(round_trip + SLACK).is_negative()
            && limits::is_round_trip(round_trip);
        if !is_possible {
            return Err(Drop::ImplausibleDelay);
        }
        let identity = answer.identity;
        if identity.clock_identity == own {
            return Err(Drop::SelfSent);
        }
        let said = answer
            .said
            .or(origin.said)
            .unwrap_or_else(|| Said::nothing(identity.clock_identity, Flags::default()));
        if said.announce.grandmaster_identity == own {
            return Err(Drop::SelfGrandmaster);
        }
        if said.announce.steps_removed >= 255 {
            return Err(Drop::StepsRemoved);
        }
        let is_another = |(other, each): (usize, &Server)| {
            other != n && each.identity == Some(identity) && each.is_answering(now)
        };
        if asking.servers.iter().enumerate().any(is_another) {
            return Err(Drop::DuplicateIdentity);
        }
        if !self.acceptable.accepts(identity, &said.announce) {
            return Err(Drop::NotAcceptable);
        }
        let server = &mut asking.servers[n];
        if server.identity.is_some_and(|before| before != identity) {
            // Another host has taken its place.
            (server.said, server.doubtful) = (None, None);
        }
        server.identity = Some(identity);
        server.believe(said)?;
        server.answered_at = Some(now);
        server.missed = 0;
        server.exchanges += 1;
        server.round_trip = Some(round_trip);
        let log_interval = Some(server.config.log_interval);
        let delay = DelayObservation {
            t3: tx,
            t4: answer.ingress - request_correction + asymmetry,
            sequence_id,
            correction: request_correction,
        };
        let sync = SyncObservation {
            t1: origin.time + response_correction + asymmetry,
            t2: answer.rx,
            sequence_id,
            log_interval,
            two_step: true,
            correction: response_correction,
        };
        self.decide_as_asker(cx, StateReason::BestTransmitter);
        let is_parents =
            self.parent.is_some_and(|parent| parent.set.parent_port_identity == identity);
        let port = &mut self.ports[index];
        port.counters.sync_exchanges += 1;
        port.counters.delay_exchanges += 1;
        if is_parents {
            port.round_trip.sync(sync.t1, sync.t2.time);
            port.round_trip.delay(delay.t3.time, delay.t4);
        }
        let epoch = self.parent.filter(|_| is_parents).map_or(0, |parent| parent.epoch);
        let port = PortIndex(index as u16);
        // The request left first.
        for observation in [Observation::Delay(delay), Observation::Sync(sync)] {
            let measurement = Measurement { port, epoch, parent: identity, observation };
            self.push(cx.out, Command::Measured(measurement));
        }
        Ok(())
    }
}

/// What stands for a server that does not say who it is: its address.
pub(crate) fn identity_of(address: IpAddr) -> PortIdentity {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            // Locally administered, as of a MAC address.
            let clock_identity = ClockIdentity([0x02, 0, a, 0xff, 0xfe, b, c, d]);
            PortIdentity { clock_identity, port_number: 1 }
        }
        IpAddr::V6(v6) => {
            let [network @ .., _, _, _, _, _, _, _, _] = v6.octets();
            let [.., a, b, c, d, e, f, g, h] = v6.octets();
            let folded = network.chunks(2).fold(0, |sum: u16, pair| {
                sum.rotate_left(3) ^ u16::from_be_bytes([pair[0], pair[1]])
            });
            let clock_identity = ClockIdentity([a, b, c, d, e, f, g, h]);
            PortIdentity { clock_identity, port_number: folded | 1 }
        }
    }
}

/// Octets of an answer of CSPTP with its status.
const CSPTP_ANSWER: usize = MessageType::Sync.fixed_length() + 2 * (4 + 18);

/// A request of CSPTP. It is as long as the answer, so that both take equally long on the way.
pub(crate) fn csptp_request(domain_number: u8, sequence_id: u16) -> Datagram {
    let mut header = Header::new(PortIdentity::default(), sequence_id);
    header.sdo_id = csptp::SDO_ID;
    header.domain_number = domain_number;
    header.flags = Flags::UNICAST;
    let body = Body::Sync { origin_timestamp: Timestamp::ZERO };
    let request = CsptpRequest { status: true, alternate_time: false }.value();
    let padding = [0; CSPTP_ANSWER - 44 - 8 - 4];
    let mut buffer = [0; CSPTP_ANSWER];
    let mut tlvs = TlvBuilder::new(&mut buffer);
    let pushed = tlvs
        .push(Tlv { kind: TlvType::CSPTP_REQUEST, value: &request })
        .and_then(|()| tlvs.push(Tlv { kind: TlvType::PAD, value: &padding }));
    // Cannot fail: there is room for both.
    let told = pushed.and_then(|()| Datagram::with_tlvs(header, body, tlvs.finish()));
    told.unwrap_or_else(|_| Datagram::new(header, body))
}
