//! Unicast on an instance: what ports have been granted and grant (16.1), and Delay_Req that goes to the time
//! transmitter alone while everything else goes to all (16.9). The rooms of `crate::unicast` decide; messages, roles
//! and the table of those who have announced themselves are here.

use super::{
    Cx, Instance, Received,
    port::{Role, transmitter::transmit_bracket},
};
use crate::prelude::*;
use crate::{
    Datagram, Destination, Group, PortIndex,
    address::Address,
    counters::Drop,
    datagram::Telling,
    outcome::StateReason,
    prefix::Prefix,
    sent::Sent,
    stamp::Stamp,
    unicast::{
        NO_INTERVAL, TLVS, cancel,
        client::{Effect, PartnerStatus},
        host,
        service::{Outgoing, Service},
    },
};
use ptp_common::{
    time::{Duration, Mono, Time},
    wire::{
        Body, ClockIdentity, Flags, Granted, Header, MAINTAIN_GRANT, Message, MessageType,
        Negotiation, PortIdentity, Timestamp, TlvBuilder,
    },
};

/// Delay_Req in a row without an answer after which they go to all.
const HYBRID_PATIENCE: u8 = 4;
/// And for how long.
const HYBRID_PAUSE: Duration = Duration::from_secs(300);
/// Messages that are sent at once; the rest follows when these are on their way.
const AT_ONCE: usize = 64;
/// Length of Signaling without TLVs.
const SIGNALING: usize = MessageType::Signaling.fixed_length();
/// `targetPortIdentity` that means anybody (13.12.1).
const ANYBODY: PortIdentity =
    PortIdentity { clock_identity: ClockIdentity([0xff; 8]), port_number: 0xffff };

/// Delay_Req to the time transmitter alone.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Hybrid {
    /// From where its messages come.
    parent: Option<(PortIdentity, Address)>,
    unanswered: u8,
    /// Until when they go to all.
    multicast_until: Option<Time<Mono>>,
}

/// To whom the Delay_Req of a port go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DelayPath {
    /// To all.
    Multicast,
    /// To the time transmitter alone.
    Unicast,
    /// To all, since the time transmitter alone has not answered.
    Fallback,
}

impl DelayPath {
    /// The name in status.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Multicast => "multicast",
            Self::Unicast => "unicast",
            Self::Fallback => "fallback",
        }
    }
}

impl Instance {
    /// What concerns unicast of a message: `None` where there is no more to it. What has been granted comes
    /// with the interval that was granted for it, whatever it says itself.
    pub(super) fn negotiate<'a>(
        &mut self,
        cx: &mut Cx<'_>,
        received: &Received<'_>,
        mut message: Message<'a>,
    ) -> Result<Option<Message<'a>>, Drop> {
        let Received { index, from, .. } = *received;
        if let Body::Signaling { target_port_identity } = message.body {
            let is_ours = self.ports[index].partners.is_some() || self.service.is_some();
            let said: Vec<_> =
                message.tlvs.iter().filter_map(|tlv| Negotiation::of(&tlv)).collect();
            if !is_ours || said.is_empty() {
                return Ok(Some(message));
            }
            let own = self.ports[index].identity;
            let is_for_us = (target_port_identity.clock_identity == own.clock_identity
                || target_port_identity.clock_identity == ANYBODY.clock_identity)
                && [own.port_number, ANYBODY.port_number]
                    .contains(&target_port_identity.port_number);
            if !is_for_us {
                return Err(Drop::OtherRequester);
            }
            let said: Vec<Negotiation> = said
                .into_iter()
                .take(TLVS)
                .collect::<Result<_, _>>()
                .map_err(|_| Drop::Malformed)?;
            self.take_signaling(cx, received, &message.header, &said)?;
            return Ok(None);
        }
        let kind = match message.body {
            Body::Announce(_) => Granted::Announce,
            Body::Sync { .. } | Body::FollowUp { .. } => Granted::Sync,
            Body::DelayResp { .. } => Granted::DelayResp,
            _ => return Ok(Some(message)),
        };
        let source = message.header.source_port_identity;
        if let Some(partners) = &mut self.ports[index].partners {
            match partners.expect(cx.now, from, source, kind) {
                Ok(log) => message.header.log_message_interval = log,
                Err(cause) => {
                    let is_unicast = message.header.flags.contains(Flags::UNICAST);
                    // It is of a grant to somebody who was here before.
                    if kind == Granted::Announce && is_unicast && partners.may_send_away(cx.now) {
                        let said =
                            [Granted::Announce, Granted::Sync, Granted::DelayResp].map(cancel);
                        if let Some(to) = from {
                            self.signal(cx, index, to, source, 0, &said);
                        }
                    }
                    return Err(cause);
                }
            }
        } else if self.ports[index].config.hybrid && self.parent_on(index) == Some(source) {
            let hybrid = &mut self.ports[index].hybrid;
            if let Some(from) = from {
                hybrid.parent = Some((source, host(from)));
            }
            let is_answer =
                kind == Granted::DelayResp && message.header.flags.contains(Flags::UNICAST);
            if is_answer {
                hybrid.unanswered = 0;
            }
        }
        Ok(Some(message))
    }

    fn take_signaling(
        &mut self,
        cx: &mut Cx<'_>,
        received: &Received<'_>,
        header: &Header,
        said: &[Negotiation],
    ) -> Result<(), Drop> {
        let Received { index, from, .. } = *received;
        let source = header.source_port_identity;
        let mut answers = Vec::new();
        let mut dropped = Ok(());
        let is_to_service = |said: &Negotiation| match *said {
            Negotiation::Request { .. } => true,
            Negotiation::Cancel { flags, .. } | Negotiation::Acknowledge { flags, .. } => {
                flags & MAINTAIN_GRANT == 0
            }
            Negotiation::Grant { .. } => false,
        };
        if self.service.is_some() && self.ports[index].partners.is_none()
            || said.iter().all(is_to_service) && self.service.is_some()
        {
            dropped = self.serve_signaling(cx.now, index, from, source, said, &mut answers);
        } else if self.ports[index].partners.is_some() {
            let mut effects = Vec::new();
            for said in said {
                let Some(partners) = &mut self.ports[index].partners else { break };
                let taken = partners.take(cx.now, from, source, *said, &mut answers, &mut effects);
                if let Err(cause) = taken {
                    self.count_drop(index, cause);
                }
            }
            self.carry_out_unicast(cx, index, effects);
        }
        if let (Some(to), false) = (from, answers.is_empty()) {
            let sequence_id = self.service.as_mut().map_or(header.sequence_id, |service| {
                service.sequence_id = service.sequence_id.wrapping_add(1);
                service.sequence_id
            });
            self.signal(cx, index, to, source, sequence_id, &answers);
        }
        dropped
    }

    fn serve_signaling(
        &mut self,
        now: Time<Mono>,
        index: usize,
        from: Option<Address>,
        source: PortIdentity,
        said: &[Negotiation],
        answers: &mut Vec<Negotiation>,
    ) -> Result<(), Drop> {
        let is_serving = self.ports[index].role.is_serving();
        let Some(service) = &mut self.service else { return Err(Drop::NotForRole) };
        let from = from.ok_or(Drop::NotForRole)?;
        let port = index as u16;
        if !service.admit(now, port, from, source) {
            return Err(Drop::RateLimited);
        }
        let mut dropped = Ok(());
        for said in said {
            let kind = said.granted();
            match *said {
                Negotiation::Request { message_type, log_interval, duration_s } => {
                    let who = (port, from, source);
                    let duration_s =
                        service.request(now, who, kind, log_interval, duration_s, is_serving);
                    if duration_s == 0 {
                        dropped = Err(Drop::Denied);
                    }
                    answers.push(Negotiation::Grant {
                        message_type,
                        log_interval,
                        duration_s,
                        invites_renewal: duration_s != 0,
                    });
                }
                Negotiation::Cancel { message_type, flags } => {
                    if let Some(kind) = kind {
                        service.cancel(port, from, source, kind);
                    }
                    answers.push(Negotiation::Acknowledge { message_type, flags });
                }
                Negotiation::Grant { .. } | Negotiation::Acknowledge { .. } => {}
            }
        }
        dropped
    }

    fn signal(
        &mut self,
        cx: &mut Cx<'_>,
        index: usize,
        to: Address,
        whom: PortIdentity,
        sequence_id: u16,
        said: &[Negotiation],
    ) {
        let mut header = self.header(index, sequence_id);
        header.flags |= Flags::UNICAST;
        header.log_message_interval = NO_INTERVAL;
        let mut buffer = [0; Datagram::CAPACITY - SIGNALING];
        let mut tlvs = TlvBuilder::new(&mut buffer);
        for said in said {
            // There is room for as many as are ever said at once.
            let _ = said.push(&mut tlvs);
        }
        let body = Body::Signaling { target_port_identity: whom };
        let Ok(message) = Datagram::with_tlvs(header, body, tlvs.finish()) else { return };
        let to = Destination::Unicast(to);
        self.send(cx, index, MessageType::Signaling, to, message, None);
    }

    fn carry_out_unicast(&mut self, cx: &mut Cx<'_>, index: usize, effects: Vec<Effect>) {
        let mut is_other = false;
        for effect in effects {
            match effect {
                Effect::Signal { to, identity, sequence_id, said } => {
                    self.signal(cx, index, to, identity.unwrap_or(ANYBODY), sequence_id, &said);
                }
                Effect::Lost(identity) => {
                    self.ports[index].foreign.retain(|each| each.source != identity);
                    is_other = true;
                }
                Effect::Silent(identity, is_silent) => {
                    is_other |= self.ports[index].foreign.set_silent(identity, is_silent);
                }
            }
        }
        if is_other {
            self.decide(cx, StateReason::GrantLost);
        }
    }

    /// Does what is due of unicast: what has been granted to others is sent, as much as goes at once, so that whoever drives
    /// this hears what comes in meanwhile.
    pub(crate) fn attend_unicast(&mut self, cx: &mut Cx<'_>) {
        self.attend_partners(cx);
        for _ in 0..AT_ONCE {
            let due = self.service.as_mut().and_then(|service| service.pop_due(cx.now));
            let Some(outgoing) = due else { break };
            self.send_granted(cx, outgoing);
        }
    }

    /// Asks whoever is followed now for what is needed to follow, and others for what is due.
    pub(crate) fn attend_partners(&mut self, cx: &mut Cx<'_>) {
        for index in 0..self.ports.len() {
            let parent = self.parent_on(index);
            let Some(partners) = &mut self.ports[index].partners else { continue };
            partners.follow(cx.now, parent);
            if partners.next().is_none_or(|at| at > cx.now) {
                continue;
            }
            let mut effects = Vec::new();
            partners.attend(cx.now, &mut effects);
            self.carry_out_unicast(cx, index, effects);
            // It may be somebody else by now.
            let parent = self.parent_on(index);
            if let Some(partners) = &mut self.ports[index].partners {
                partners.follow(cx.now, parent);
            }
        }
    }

    pub(super) fn next_unicast(&self) -> Option<Time<Mono>> {
        let partners = self.ports.iter().filter_map(|port| port.partners.as_ref()?.next());
        let service = self.service.as_ref().and_then(Service::next);
        // What could not all be sent at once is due still.
        partners.chain(service).min().map(|at| at.max(self.last_now))
    }

    fn send_granted(&mut self, cx: &mut Cx<'_>, outgoing: Outgoing) {
        let Outgoing { port, to, kind, sequence_id } = outgoing;
        let index = usize::from(port);
        if !self.ports.get(index).is_some_and(|port| port.role.is_serving()) {
            return;
        }
        let mut header = self.header(index, sequence_id);
        header.log_message_interval = NO_INTERVAL;
        let destination = Destination::Unicast(to);
        if kind == Granted::Announce {
            let (announce, flags) = self.announced(cx.now);
            header.flags = flags | Flags::UNICAST;
            let mut buffer = [0; Datagram::CAPACITY - MessageType::Announce.fixed_length()];
            let tlvs = self.announced_tlvs(index, &mut buffer);
            let body = Body::Announce(announce);
            let whole = Datagram::with_tlvs(header, body, tlvs);
            let message = whole.unwrap_or_else(|_| Datagram::new(header, body));
            self.send(cx, index, MessageType::Announce, destination, message, None);
            return;
        }
        if !self.tells_time() {
            return;
        }
        header.flags |= Flags::UNICAST | Flags::TWO_STEP;
        let what = Sent::SyncTo { to, sequence_id };
        let token = self.in_flight.put(PortIndex(port), what);
        let message = Datagram::new(header, Body::Sync { origin_timestamp: Timestamp::ZERO });
        self.send(cx, index, MessageType::Sync, destination, message, Some(token));
    }

    /// The stamp of a Sync to one alone, or the news that there is none.
    pub(super) fn sync_to_sent(
        &mut self,
        cx: &mut Cx<'_>,
        index: usize,
        (to, sequence_id): (Address, u16),
        stamp: Option<Stamp>,
    ) {
        if !self.ports[index].role.is_serving() && !self.is_monitored() {
            return;
        }
        let (Some(sent), Some(stamp)) = (stamp.and_then(|each| cx.clock.at(each.time)), stamp)
        else {
            self.count_drop(index, Drop::MissingTxStamp);
            return;
        };
        self.ports[index].counters.sync_exchanges += 1;
        let (precise_origin_timestamp, fraction) = Timestamp::from_time(sent);
        let mut header = self.header(index, sequence_id);
        header.flags |= Flags::UNICAST;
        (header.correction, header.log_message_interval) = (fraction, NO_INTERVAL);
        let bracket = transmit_bracket(&stamp).filter(|_| self.served.tells_brackets);
        let body = Body::FollowUp { precise_origin_timestamp };
        let deviation = self.deviation(cx, stamp.time, sent);
        let message = Datagram::telling(header, body, Telling { gptp: None, bracket, deviation });
        self.send(cx, index, MessageType::FollowUp, Destination::Unicast(to), message, None);
    }

    /// Where the next Delay_Req of a port goes; `None` while nobody would answer it.
    pub(crate) fn delay_req_to(&mut self, now: Time<Mono>, index: usize) -> Option<Destination> {
        let parent = self.parent_on(index);
        let port = &mut self.ports[index];
        if let Some(partners) = &port.partners {
            return parent.and_then(|parent| partners.answers_of(parent)).map(Destination::Unicast);
        }
        let all = Destination::Multicast(Group::Primary);
        let hybrid = &mut port.hybrid;
        let known = hybrid.parent.filter(|(whose, _)| Some(*whose) == parent);
        let (true, Some((_, address))) = (port.config.hybrid, known) else { return Some(all) };
        if hybrid.multicast_until.is_some_and(|until| until > now) {
            return Some(all);
        }
        if hybrid.unanswered >= HYBRID_PATIENCE {
            hybrid.unanswered = 0;
            hybrid.multicast_until = Some(now + HYBRID_PAUSE);
            port.counters.count_drop(Drop::HybridUnanswered);
            return Some(all);
        }
        hybrid.multicast_until = None;
        hybrid.unanswered += 1;
        Some(Destination::Unicast(address))
    }

    /// To whom the Delay_Req of a port go at present.
    pub fn delay_path(&self, port: PortIndex) -> DelayPath {
        let Some(port) = self.ports.get(usize::from(port.0)) else { return DelayPath::Multicast };
        match (&port.role, port.config.hybrid, port.hybrid.multicast_until) {
            _ if port.partners.is_some() => DelayPath::Unicast,
            (Role::Receiver(_), true, Some(_)) => DelayPath::Fallback,
            (Role::Receiver(_), true, None) if port.hybrid.parent.is_some() => DelayPath::Unicast,
            _ => DelayPath::Multicast,
        }
    }

    /// Where a port's partner of this number in the table is, or that this is not known.
    pub fn set_partner(
        &mut self,
        cx: &mut Cx<'_>,
        port: PortIndex,
        number: u16,
        address: Option<Address>,
    ) {
        self.last_now = cx.now;
        let index = usize::from(port.0);
        let Some(partners) = self.ports.get_mut(index).and_then(|port| port.partners.as_mut())
        else {
            return;
        };
        let mut effects = Vec::new();
        partners.set_address(cx.now, number, address, &mut effects);
        self.carry_out_unicast(cx, index, effects);
        self.attend_unicast(cx);
    }

    /// How the partners of a port stand; nothing where it asks nobody.
    pub fn partners(&self, port: PortIndex, now: Time<Mono>) -> Vec<PartnerStatus> {
        let port = self.ports.get(usize::from(port.0));
        let partners = port.and_then(|port| port.partners.as_ref());
        partners.map(|partners| partners.status(now).collect()).unwrap_or_default()
    }

    /// Whether a partner of a port has not answered for a while where it is: its name may have moved.
    pub fn is_partner_silent(&self, port: PortIndex, number: u16, now: Time<Mono>) -> bool {
        let port = self.ports.get(usize::from(port.0));
        port.and_then(|port| port.partners.as_ref()).is_some_and(|it| it.is_silent(number, now))
    }

    /// What has been granted to others; `None` where nothing is granted.
    pub const fn service(&self) -> Option<&Service> {
        self.service.as_ref()
    }

    /// Who is served by unicast from now on.
    pub fn set_networks(&mut self, networks: Vec<Prefix>) {
        if let Some(service) = &mut self.service {
            service.set_networks(networks);
        }
    }

    /// Gives back what was granted, and takes back what others were granted, as far as [`AT_ONCE`] messages go.
    /// Whether there is more to be told.
    pub fn end_unicast(&mut self, cx: &mut Cx<'_>) -> bool {
        for index in 0..self.ports.len() {
            let mut effects = Vec::new();
            if let Some(partners) = &mut self.ports[index].partners {
                partners.give_back(cx.now, &mut effects);
            }
            // Whom it has followed it follows to the end.
            effects.retain(|effect| matches!(effect, Effect::Signal { .. }));
            self.carry_out_unicast(cx, index, effects);
        }
        for _ in 0..AT_ONCE {
            let Some(service) = &mut self.service else { return false };
            let Some((port, to, identity, had)) = service.dismiss_one() else { return false };
            service.sequence_id = service.sequence_id.wrapping_add(1);
            let sequence_id = service.sequence_id;
            let said: Vec<_> = Granted::ALL
                .into_iter()
                .filter(|kind| had[*kind as usize])
                .map(|kind| Negotiation::Cancel {
                    message_type: kind.message_type() as u8,
                    flags: MAINTAIN_GRANT,
                })
                .collect();
            self.signal(cx, usize::from(port), to, identity, sequence_id, &said);
        }
        true
    }

    /// Whether a Delay_Req is answered, where it is of somebody to whom answers have been granted.
    pub(crate) fn admit_granted(
        &mut self,
        now: Time<Mono>,
        received: &Received<'_>,
        header: &Header,
    ) -> Option<bool> {
        let from = received.from.filter(|_| header.flags.contains(Flags::UNICAST))?;
        let port = received.index as u16;
        self.service.as_mut()?.admit_delay_req(now, port, from, header.source_port_identity)
    }
}
