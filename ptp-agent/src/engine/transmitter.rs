//! A server-only ordinary clock: the grandmaster of `ptp-agent serve`. Announce, two-step Sync whose
//! Follow_Up carries the stamp of its own transmission, Delay_Resp, and answers to Pdelay_Req. The
//! caller converts stamps to the time that is served, so that this file needs no clock.

use super::{
    Datagram, PortIndex, TxToken,
    counters::{Counters, Drop},
    fair::FairShare,
    pdelay::Responder,
    receiver::Action,
};
use crate::{limits, transport::Source};
use ptp_common::{
    time::{Duration, Mono, Ptp, Time},
    wire::{
        Announce, Body, Bracket, ClockAccuracy, ClockIdentity, ClockQuality, Flags, Header,
        Message, MessageType, MessageView, PortIdentity, TimeInterval, TimeSource, Timestamp,
    },
};
use std::{collections::VecDeque, net::IpAddr};

/// Sync messages that wait for their stamp, per port.
const PENDING_SYNCS: usize = 16;
/// `logMessageInterval` that says no interval.
const UNICAST_INTERVAL: i8 = 0x7f;
/// Actions that wait to be collected.
const ACTION_CAPACITY: usize = 4096;

/// How the grandmaster behaves.
#[derive(Clone, Debug)]
pub struct TransmitterConfig {
    /// `clockIdentity`.
    pub clock_identity: ClockIdentity,
    /// `domainNumber`.
    pub domain_number: u8,
    /// `sdoId`, 12 bits.
    pub sdo_id: u16,
    /// `minorVersionPTP`.
    pub minor_version: u8,
    /// How many ports.
    pub ports: u16,
    /// `priority1`.
    pub priority1: u8,
    /// `priority2`.
    pub priority2: u8,
    /// `clockQuality`.
    pub clock_quality: ClockQuality,
    /// `logAnnounceInterval`.
    pub log_announce_interval: i8,
    /// `logSyncInterval`.
    pub log_sync_interval: i8,
    /// `logMinDelayReqInterval`, which clients adopt.
    pub log_min_delay_req_interval: i8,
    /// What Announce says about the time, the flags of `timePropertiesDS` only.
    pub time_flags: Flags,
    /// `currentUtcOffset`, seconds.
    pub current_utc_offset: i16,
    /// `timeSource`.
    pub time_source: TimeSource,
    /// Delay_Req and Pdelay_Req answered per second, shared by client; more are counted and dropped.
    pub max_requests_per_second: u32,
    /// Follow_Up and Delay_Resp tell the brackets of their timestamps in a TLV.
    pub tells_brackets: bool,
    /// Makes it unforeseeable which clients share a place in the tables.
    pub seed: u64,
}

impl TransmitterConfig {
    /// The default profile of annex I for a clock without reference (class 248), arbitrary time
    /// scale, one port.
    pub fn new(clock_identity: ClockIdentity) -> Self {
        Self {
            clock_identity,
            domain_number: 0,
            sdo_id: 0,
            minor_version: 1,
            ports: 1,
            priority1: 128,
            priority2: 128,
            clock_quality: ClockQuality {
                clock_class: 248,
                clock_accuracy: ClockAccuracy::UNKNOWN,
                offset_scaled_log_variance: 0xffff,
            },
            log_announce_interval: 1,
            log_sync_interval: 0,
            log_min_delay_req_interval: 0,
            time_flags: Flags(0),
            current_utc_offset: 37,
            time_source: TimeSource::INTERNAL_OSCILLATOR,
            max_requests_per_second: 10_000,
            tells_brackets: false,
            seed: 0,
        }
    }
}

#[derive(Debug)]
struct Port {
    identity: PortIdentity,
    up: bool,
    counters: Counters,
    next_announce: Option<Time<Mono>>,
    next_sync: Option<Time<Mono>>,
    announce_sequence_id: u16,
    sync_sequence_id: u16,
    syncs: VecDeque<(TxToken, u16)>,
    responder: Responder,
}

/// The grandmaster. See the module's documentation.
#[derive(Debug)]
pub struct Transmitter {
    config: TransmitterConfig,
    ports: Vec<Port>,
    next_token: u64,
    actions: VecDeque<Action>,
    requests: FairShare,
    /// Of the stamp that is given next.
    bracket: Option<Bracket>,
    stray: Counters,
}

impl Transmitter {
    /// A grandmaster whose ports begin to send at `now`.
    pub fn new(config: TransmitterConfig, now: Time<Mono>) -> Self {
        let ports = (1..=config.ports)
            .map(|port_number| Port {
                identity: PortIdentity { clock_identity: config.clock_identity, port_number },
                up: true,
                counters: Counters::default(),
                next_announce: Some(now),
                next_sync: Some(now),
                announce_sequence_id: 0,
                sync_sequence_id: 0,
                syncs: VecDeque::new(),
                responder: Responder::default(),
            })
            .collect();
        let requests = FairShare::new(config.max_requests_per_second, config.seed, now);
        Self {
            config,
            ports,
            next_token: 0,
            actions: VecDeque::new(),
            requests,
            bracket: None,
            stray: Counters::default(),
        }
    }

    /// The next action. To be called until `None` after every input.
    pub fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`Self::poll`] has something to do.
    pub fn next_wakeup(&self) -> Option<Time<Mono>> {
        self.ports.iter().flat_map(|port| [port.next_announce, port.next_sync]).flatten().min()
    }

    /// Counts of a port.
    pub fn counters(&self, port: PortIndex) -> &Counters {
        self.ports.get(usize::from(port.0)).map_or(&self.stray, |port| &port.counters)
    }

    /// The settings in effect.
    pub const fn config(&self) -> &TransmitterConfig {
        &self.config
    }

    /// What Announce says from now on about quality and time, for a served clock that is itself
    /// synchronised or has lost its reference.
    pub fn set_quality(&mut self, clock_quality: ClockQuality, time_flags: Flags, utc_offset: i16) {
        self.config.clock_quality = clock_quality;
        self.config.time_flags = time_flags;
        self.config.current_utc_offset = utc_offset;
    }

    /// What the best master clock algorithm compares first and third, from the next Announce on.
    pub fn set_priorities(&mut self, priority1: u8, priority2: u8) {
        self.config.priority1 = priority1;
        self.config.priority2 = priority2;
    }

    /// Sends and lets others send at other intervals, log2 s. Longer ones begin after what is due
    /// already.
    pub fn set_intervals(&mut self, now: Time<Mono>, sync: i8, announce: i8, min_delay_req: i8) {
        self.config.log_sync_interval = sync;
        self.config.log_announce_interval = announce;
        self.config.log_min_delay_req_interval = min_delay_req;
        let at_most = |due: Option<Time<Mono>>, log| {
            due.map(|due| due.min(now + Duration::from_log_interval(log)))
        };
        for port in &mut self.ports {
            port.next_sync = at_most(port.next_sync, sync);
            port.next_announce = at_most(port.next_announce, announce);
        }
    }

    /// The link of a port came up or went down.
    pub fn handle_link(&mut self, now: Time<Mono>, port: PortIndex, up: bool) {
        let Some(port) = self.ports.get_mut(usize::from(port.0)) else { return };
        if port.up != up {
            port.up = up;
            port.syncs.clear();
            port.next_announce = up.then_some(now);
            port.next_sync = up.then_some(now);
        }
    }

    /// Sends what is due.
    pub fn poll(&mut self, now: Time<Mono>) {
        for index in 0..self.ports.len() {
            let port = &mut self.ports[index];
            if let Some(due) = port.next_announce.filter(|due| *due <= now) {
                let log = self.config.log_announce_interval;
                port.next_announce = Some(following(due, now, log));
                let sequence_id = port.announce_sequence_id;
                port.announce_sequence_id = sequence_id.wrapping_add(1);
                self.send_announce(index, sequence_id);
            }
            let port = &mut self.ports[index];
            if let Some(due) = port.next_sync.filter(|due| *due <= now) {
                let log = self.config.log_sync_interval;
                port.next_sync = Some(following(due, now, log));
                self.send_sync(index);
            }
        }
    }

    fn send_announce(&mut self, index: usize, sequence_id: u16) {
        let mut header = self.header(index, sequence_id, self.config.log_announce_interval);
        header.flags = self.config.time_flags;
        let body = Body::Announce(Announce {
            origin_timestamp: Timestamp::ZERO,
            current_utc_offset: self.config.current_utc_offset,
            grandmaster_priority1: self.config.priority1,
            grandmaster_clock_quality: self.config.clock_quality,
            grandmaster_priority2: self.config.priority2,
            grandmaster_identity: self.config.clock_identity,
            steps_removed: 0,
            time_source: self.config.time_source,
        });
        self.send_general(index, MessageType::Announce, false, Datagram::new(header, body));
    }

    fn send_sync(&mut self, index: usize) {
        let token = self.token();
        let port = &mut self.ports[index];
        let sequence_id = port.sync_sequence_id;
        port.sync_sequence_id = sequence_id.wrapping_add(1);
        if port.syncs.len() >= PENDING_SYNCS {
            port.syncs.pop_front();
            port.counters.count_drop(Drop::MissingTxStamp);
        }
        port.syncs.push_back((token, sequence_id));
        let mut header = self.header(index, sequence_id, self.config.log_sync_interval);
        header.flags |= Flags::TWO_STEP;
        let body = Body::Sync { origin_timestamp: Timestamp::ZERO };
        self.send_event(index, MessageType::Sync, token, false, Datagram::new(header, body));
    }

    /// Between which instants that is which the stamp stands for that is given next, by
    /// [`Self::handle_tx_stamp`] or with a message.
    pub fn set_bracket(&mut self, bracket: Option<Bracket>) {
        self.bracket = bracket.filter(|_| self.config.tells_brackets);
    }

    /// The transmit stamp of an event message, converted to the time that is served, or the news
    /// that there is none.
    pub fn handle_tx_stamp(&mut self, token: TxToken, sent: Option<Time<Ptp>>) {
        for index in 0..self.ports.len() {
            let port = &mut self.ports[index];
            if let Some(at) = port.syncs.iter().position(|(each, _)| *each == token) {
                let sequence_id = port.syncs.remove(at).map_or(0, |(_, sequence_id)| sequence_id);
                let Some(sent) = sent else {
                    port.counters.count_drop(Drop::MissingTxStamp);
                    return;
                };
                port.counters.sync_exchanges += 1;
                let (precise_origin_timestamp, fraction) = Timestamp::from_time(sent);
                let mut header = self.header(index, sequence_id, self.config.log_sync_interval);
                header.correction = fraction;
                let body = Body::FollowUp { precise_origin_timestamp };
                let message = Datagram::bracketed(header, body, self.bracket.take());
                self.send_general(index, MessageType::FollowUp, false, message);
                return;
            }
            if let Some((_, follow_up)) = port.responder.stamped(token, sent) {
                match follow_up {
                    Some(message) => {
                        self.send_general(index, MessageType::PdelayRespFollowUp, true, message);
                    }
                    None => self.count_drop(index, Drop::MissingTxStamp),
                }
                return;
            }
        }
    }

    /// A PTP message came through the socket of `port`; `rx` is its stamp, converted to the time
    /// that is served.
    pub fn handle_message(
        &mut self,
        now: Time<Mono>,
        port: PortIndex,
        bytes: &[u8],
        rx: Option<Time<Ptp>>,
    ) {
        self.handle_message_from(now, port, bytes, rx, None);
    }

    /// As [`Self::handle_message`], from whom: a unicast request is then answered by unicast, and two
    /// senders with one identity are told apart.
    pub fn handle_message_from(
        &mut self,
        now: Time<Mono>,
        port: PortIndex,
        bytes: &[u8],
        rx: Option<Time<Ptp>>,
        source: Option<Source>,
    ) {
        let index = usize::from(port.0);
        if let Err(cause) = self.take(now, index, bytes, rx, source) {
            self.count_drop(index, cause);
        }
    }

    fn take(
        &mut self,
        now: Time<Mono>,
        index: usize,
        bytes: &[u8],
        rx: Option<Time<Ptp>>,
        source: Option<Source>,
    ) -> Result<(), Drop> {
        let view = MessageView::new(bytes)?;
        let header = view.header();
        let kind = view.message_type();
        let port = self.ports.get_mut(index).filter(|port| port.up).ok_or(Drop::PortDisabled)?;
        port.counters.count_received(kind);
        if header.domain_number != self.config.domain_number {
            return Err(Drop::WrongDomain);
        }
        if header.sdo_id != self.config.sdo_id {
            return Err(Drop::WrongSdoId);
        }
        if header.source_port_identity.clock_identity == self.config.clock_identity {
            return Err(Drop::SelfSent);
        }
        let message = Message::parse(bytes)?;
        match message.body {
            Body::DelayReq { .. } | Body::PdelayReq { .. } => {}
            _ => return Err(Drop::NotForRole),
        }
        if !limits::is_correction(header.correction.into()) {
            return Err(Drop::Correction);
        }
        let who = (header.source_port_identity, source.map(address));
        if !self.requests.admit(now, &who) {
            return Err(Drop::RateLimited);
        }
        let rx = rx.ok_or(Drop::MissingRxStamp)?;
        if matches!(message.body, Body::DelayReq { .. }) {
            self.answer_delay_req(index, &header, rx, source);
        } else {
            let token = self.token();
            let template = self.header(index, header.sequence_id, UNICAST_INTERVAL);
            let responder = &mut self.ports[index].responder;
            let port = PortIndex(index as u16);
            let message = responder.answer(token, port, template, &header, rx);
            self.send_event(index, MessageType::PdelayResp, token, true, message);
        }
        Ok(())
    }

    fn answer_delay_req(
        &mut self,
        index: usize,
        request: &Header,
        received: Time<Ptp>,
        source: Option<Source>,
    ) {
        let asked_alone = source.filter(|_| request.flags.contains(Flags::UNICAST));
        // The interval of what is unicast is a matter of its negotiation (table 42).
        let log = match asked_alone {
            Some(_) => UNICAST_INTERVAL,
            None => self.config.log_min_delay_req_interval,
        };
        let mut header = self.header(index, request.sequence_id, log);
        let (receive_timestamp, fraction) = Timestamp::from_time(received);
        // 11.3.2 c) 3): the request's correction, less the fraction that the timestamp leaves out.
        header.correction = TimeInterval(request.correction.0.saturating_sub(fraction.0));
        let body = Body::DelayResp {
            receive_timestamp,
            requesting_port_identity: request.source_port_identity,
        };
        self.ports[index].counters.delay_exchanges += 1;
        let bracket = self.bracket.take();
        match asked_alone {
            Some(to) => {
                header.flags |= Flags::UNICAST;
                self.ports[index].counters.count_sent(MessageType::DelayResp);
                let port = PortIndex(index as u16);
                let message = Datagram::bracketed(header, body, bracket);
                self.push(Action::SendUnicast { port, to, message });
            }
            None => {
                let message = Datagram::bracketed(header, body, bracket);
                self.send_general(index, MessageType::DelayResp, false, message);
            }
        }
    }

    fn header(&self, index: usize, sequence_id: u16, log_interval: i8) -> Header {
        let mut header = Header::new(self.ports[index].identity, sequence_id);
        header.sdo_id = self.config.sdo_id;
        header.minor_version = self.config.minor_version;
        header.domain_number = self.config.domain_number;
        header.log_message_interval = log_interval;
        header
    }

    fn token(&mut self) -> TxToken {
        self.next_token += 1;
        TxToken(self.next_token)
    }

    fn send_event(
        &mut self,
        index: usize,
        kind: MessageType,
        token: TxToken,
        peer_multicast: bool,
        message: Datagram,
    ) {
        self.ports[index].counters.count_sent(kind);
        let port = PortIndex(index as u16);
        self.push(Action::SendEvent { port, token, peer_multicast, message });
    }

    fn send_general(
        &mut self,
        index: usize,
        kind: MessageType,
        peer_multicast: bool,
        message: Datagram,
    ) {
        self.ports[index].counters.count_sent(kind);
        let port = PortIndex(index as u16);
        self.push(Action::SendGeneral { port, peer_multicast, message });
    }

    fn push(&mut self, action: Action) {
        if self.actions.len() >= ACTION_CAPACITY {
            self.actions.pop_front();
            self.stray.count_drop(Drop::ActionOverflow);
        }
        self.actions.push_back(action);
    }

    fn count_drop(&mut self, index: usize, cause: Drop) {
        self.ports
            .get_mut(index)
            .map_or(&mut self.stray, |port| &mut port.counters)
            .count_drop(cause);
    }
}

/// Where a message came from, whatever the port: a client may change that at will.
fn address(source: Source) -> (Option<[u8; 6]>, Option<IpAddr>) {
    match source {
        Source::Mac(mac) => (Some(mac), None),
        Source::Socket(socket) => (None, Some(socket.ip())),
    }
}

/// The next point of the interval's grid after `due`; skips what was missed.
fn following(due: Time<Mono>, now: Time<Mono>, log_interval: i8) -> Time<Mono> {
    let interval = Duration::from_log_interval(log_interval);
    let next = due + interval;
    if next > now { next } else { now + interval }
}
