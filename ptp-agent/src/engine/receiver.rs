//! A client-only ordinary clock with one or more ports in one domain: chooses the best time
//! transmitter that any port hears, follows it, and turns its messages and their stamps into one-way
//! observations. It steers nothing: that is for [`super::client`].

mod config;
mod election;
mod exchanges;
mod foreign;
mod grain;
mod outcome;
mod overheard;
mod rhythm;
mod round_trip;

use super::{
    Datagram, DelayMechanism, PortIndex, PortState, TxToken,
    counters::{Counters, Drop},
    pdelay::{Initiator, Responder},
    sequence::SequenceGuard,
};
use crate::{limits, stamp::Stamp};
use exchanges::{PendingDelay, PendingSync, sync_guard};
use foreign::ForeignTable;
use grain::Grain;
use overheard::Overheard;
use ptp_common::{
    time::{Duration, Mono, Ptp, Time},
    wire::{
        Body, Bracket, ClockIdentity, Header, Message, MessageType, MessageView, PortIdentity,
        Timestamp, WireError,
    },
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::VecDeque;

pub use super::pdelay::PeerDelay;
pub use config::{Acceptable, NotAnIdentity, PortConfig, ReceiverConfig};
pub use outcome::{
    Action, DelayObservation, Measurement, Observation, ParentDataSet, StateReason,
    SyncObservation, TimeProperties,
};
pub use overheard::Hint;
use rhythm::Rhythm;
use round_trip::RoundTrip;
pub use round_trip::RoundTripTrend;

/// As many of the last requests may come back from the network.
const LOOPED: u16 = 1024;
/// Actions that wait to be collected; a caller that collects after each input never gets near.
const ACTION_CAPACITY: usize = 1024;

#[derive(Debug)]
struct Port {
    identity: PortIdentity,
    config: PortConfig,
    state: PortState,
    counters: Counters,
    foreign: ForeignTable,
    // What follows belongs to the present parent and is cleared with it.
    sync_sequence: SequenceGuard,
    syncs: VecDeque<PendingSync>,
    delays: VecDeque<PendingDelay>,
    last_answered: Option<u16>,
    log_delay_req_interval: i8,
    next_delay_req: Option<Time<Mono>>,
    delay_sequence_id: u16,
    next_pdelay_req: Option<Time<Mono>>,
    pdelay_sequence_id: u16,
    initiator: Initiator,
    responder: Responder,
    round_trip: RoundTrip,
    rhythm: Rhythm,
    grain: Grain,
    /// Requests are to arrive shortly before a Sync.
    is_aiming: bool,
}

impl Port {
    fn clear_parent(&mut self) {
        self.sync_sequence = sync_guard();
        self.syncs.clear();
        self.delays.clear();
        self.last_answered = None;
        self.log_delay_req_interval = self.config.log_min_delay_req_interval;
        self.next_delay_req = None;
        self.round_trip.clear();
        self.rhythm = Rhythm::default();
        self.grain = Grain::default();
    }
}

/// A client-only ordinary clock. See the module's documentation.
#[derive(Debug)]
pub struct Receiver {
    clock_identity: ClockIdentity,
    domain_number: u8,
    sdo_id: u16,
    minor_version: u8,
    acceptable: Vec<Acceptable>,
    ports: Vec<Port>,
    parent: Option<ParentDataSet>,
    epoch: u64,
    synchronized: bool,
    rng: ChaCha8Rng,
    next_token: u64,
    actions: VecDeque<Action>,
    /// Counts what came for ports that do not exist.
    stray: Counters,
    overheard: Overheard,
}

impl Receiver {
    /// A clock whose ports listen, or are disabled where the link is down.
    pub fn new(config: ReceiverConfig, now: Time<Mono>) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(config.seed);
        let ports = config
            .ports
            .into_iter()
            .zip(1..)
            .map(|(port, port_number)| Port {
                identity: PortIdentity { clock_identity: config.clock_identity, port_number },
                state: PortState::Initializing,
                counters: Counters::default(),
                foreign: ForeignTable::new(config.seed.rotate_left(u32::from(port_number))),
                sync_sequence: sync_guard(),
                syncs: VecDeque::new(),
                delays: VecDeque::new(),
                last_answered: None,
                log_delay_req_interval: port.log_min_delay_req_interval,
                next_delay_req: None,
                // Not from 0, so that answers to an earlier run of this program do not match.
                delay_sequence_id: rng.random(),
                next_pdelay_req: None,
                pdelay_sequence_id: rng.random(),
                initiator: Initiator::default(),
                responder: Responder::default(),
                round_trip: RoundTrip::default(),
                rhythm: Rhythm::default(),
                grain: Grain::default(),
                is_aiming: false,
                config: port,
            })
            .collect::<Vec<_>>();
        let mut receiver = Self {
            clock_identity: config.clock_identity,
            domain_number: config.domain_number,
            sdo_id: config.sdo_id & 0xfff,
            minor_version: config.minor_version,
            acceptable: config.acceptable,
            ports,
            parent: None,
            epoch: 0,
            synchronized: false,
            rng,
            next_token: 0,
            actions: VecDeque::new(),
            stray: Counters::default(),
            overheard: Overheard::default(),
        };
        for index in 0..receiver.ports.len() {
            if receiver.ports[index].config.link_up {
                receiver.start_port(now, index, StateReason::Started);
            } else {
                receiver.set_state(index, PortState::Disabled, StateReason::LinkDown);
            }
        }
        receiver
    }

    /// The next action, in the order of their making. To be called until `None` after every input.
    pub fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`Self::poll`] has something to do.
    pub fn next_wakeup(&self) -> Option<Time<Mono>> {
        let timers = self.ports.iter().flat_map(|port| [port.next_delay_req, port.next_pdelay_req]);
        let foreign = self.ports.iter().enumerate().flat_map(|(index, port)| {
            port.foreign.iter().map(move |foreign| Some(self.expiry(index, foreign)))
        });
        timers.chain(foreign).flatten().min()
    }

    /// `parentDS` and `timePropertiesDS`; `None` while there is no time transmitter.
    pub const fn parent(&self) -> Option<&ParentDataSet> {
        self.parent.as_ref()
    }

    /// `clockIdentity` of this clock.
    pub const fn clock_identity(&self) -> ClockIdentity {
        self.clock_identity
    }

    /// `domainNumber`.
    pub const fn domain_number(&self) -> u8 {
        self.domain_number
    }

    /// How many ports there are.
    pub fn ports(&self) -> impl Iterator<Item = PortIndex> + use<> {
        (0..self.ports.len() as u16).map(PortIndex)
    }

    /// State of a port; `Disabled` for one that does not exist.
    pub fn port_state(&self, port: PortIndex) -> PortState {
        self.ports.get(usize::from(port.0)).map_or(PortState::Disabled, |port| port.state)
    }

    /// Counts of a port; of what was given for no port where it does not exist.
    pub fn counters(&self, port: PortIndex) -> &Counters {
        self.ports.get(usize::from(port.0)).map_or(&self.stray, |port| &port.counters)
    }

    /// The mean interval of Delay_Req in use on a port, log2 s.
    pub fn log_min_delay_req_interval(&self, port: PortIndex) -> Option<i8> {
        self.ports.get(usize::from(port.0)).map(|port| port.log_delay_req_interval)
    }

    /// What has been heard in the last minute and cannot be followed.
    pub fn overheard(&self, now: Time<Mono>) -> impl Iterator<Item = Hint> {
        self.overheard.fresh(now)
    }

    /// How the round trip to the time transmitter has changed; `None` while there is none, or too little
    /// is known of it.
    pub fn round_trip(&self) -> Option<RoundTripTrend> {
        let parent = self.parent?;
        self.ports.get(usize::from(parent.port.0))?.round_trip.trend()
    }

    /// The servo says whether the clock follows: the port with the parent is SLAVE or UNCALIBRATED.
    pub fn set_synchronized(&mut self, synchronized: bool) {
        self.synchronized = synchronized;
        let Some(parent) = self.parent else { return };
        let (state, reason) = if synchronized {
            (PortState::TimeReceiver, StateReason::Synchronized)
        } else {
            (PortState::Uncalibrated, StateReason::SynchronizationLost)
        };
        self.set_state(usize::from(parent.port.0), state, reason);
    }

    /// Lets the requests of a port arrive shortly before a Sync is due, or at any time.
    pub fn set_aiming(&mut self, port: PortIndex, is_aiming: bool) {
        if let Some(port) = self.ports.get_mut(usize::from(port.0)) {
            port.is_aiming = is_aiming;
        }
    }

    /// As for [`PortConfig::delay_asymmetry`], for all ports.
    pub fn set_delay_asymmetry(&mut self, asymmetry: Duration) {
        for port in &mut self.ports {
            port.config.delay_asymmetry = asymmetry;
        }
    }

    /// The link of a port came up or went down. To say what is known already does no harm.
    pub fn handle_link(&mut self, now: Time<Mono>, port: PortIndex, up: bool) {
        let index = usize::from(port.0);
        let Some(port) = self.ports.get_mut(index) else { return };
        let is_down = port.state == PortState::Disabled;
        if up && is_down {
            self.start_port(now, index, StateReason::LinkUp);
        } else if !up && !is_down {
            port.foreign.clear();
            port.clear_parent();
            port.initiator.clear();
            port.next_pdelay_req = None;
            self.set_state(index, PortState::Disabled, StateReason::LinkDown);
            self.decide(now, StateReason::LinkDown);
        }
    }

    /// Does what is due: timeouts, Delay_Req, Pdelay_Req.
    pub fn poll(&mut self, now: Time<Mono>) {
        let mut expired = false;
        for index in 0..self.ports.len() {
            let gone: Vec<PortIdentity> = self.ports[index]
                .foreign
                .iter()
                .filter(|foreign| self.expiry(index, foreign) <= now)
                .map(|foreign| foreign.source)
                .collect();
            if !gone.is_empty() {
                self.ports[index].foreign.retain(|foreign| !gone.contains(&foreign.source));
                expired = true;
            }
        }
        if expired {
            self.decide(now, StateReason::AnnounceTimeout);
        }
        for index in 0..self.ports.len() {
            if self.ports[index].next_delay_req.is_some_and(|at| at <= now) {
                self.send_delay_req(now, index);
            }
            if self.ports[index].next_pdelay_req.is_some_and(|at| at <= now) {
                self.send_pdelay_req(now, index);
            }
        }
    }

    /// A PTP message came through the socket of `port`. `rx` is its stamp, for event messages.
    pub fn handle_message(
        &mut self,
        now: Time<Mono>,
        port: PortIndex,
        bytes: &[u8],
        rx: Option<Stamp>,
    ) {
        let index = usize::from(port.0);
        if let Err(cause) = self.take(now, index, bytes, rx) {
            self.count_drop(index, cause);
        }
    }

    /// The transmit stamp of an event message, or the news that there is none.
    pub fn handle_tx_stamp(&mut self, _now: Time<Mono>, token: TxToken, stamp: Option<Stamp>) {
        let parent = self.parent.map(|parent| parent.parent_port_identity);
        for index in 0..self.ports.len() {
            let port = &mut self.ports[index];
            if let Some(at) = port.delays.iter().position(|delay| delay.token == token) {
                if stamp.is_none() {
                    port.delays.remove(at);
                    self.count_drop(index, Drop::MissingTxStamp);
                } else {
                    port.delays[at].t3 = stamp;
                    self.finish_delay(index, at);
                }
                return;
            }
            if let Some(result) = port.initiator.stamped(token, stamp, parent) {
                match result {
                    Ok(done) => self.finish_peer_delay(index, done),
                    Err(cause) => self.count_drop(index, cause),
                }
                return;
            }
            let sent = stamp.map(|stamp| responder_time(stamp.time));
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
        // Otherwise its exchange was given up already, and nothing depends on it any more.
    }

    fn take(
        &mut self,
        now: Time<Mono>,
        index: usize,
        bytes: &[u8],
        rx: Option<Stamp>,
    ) -> Result<(), Drop> {
        let view = MessageView::new(bytes).inspect_err(|error| {
            if *error == WireError::Version(1) {
                self.overheard.hear(now, Hint::Version1);
            }
        })?;
        let header = view.header();
        let kind = view.message_type();
        let source = header.source_port_identity;
        let port = self.ports.get_mut(index).ok_or(Drop::PortDisabled)?;
        port.counters.count_received(kind);
        if port.state == PortState::Disabled {
            return Err(Drop::PortDisabled);
        }
        if header.domain_number != self.domain_number {
            if kind == MessageType::Announce {
                let domain_number = header.domain_number;
                self.overheard.hear(now, Hint::OtherDomain { domain_number, source });
            }
            return Err(Drop::WrongDomain);
        }
        if header.sdo_id != self.sdo_id {
            if kind == MessageType::Announce {
                self.overheard.hear(now, Hint::OtherSdoId { sdo_id: header.sdo_id, source });
            }
            return Err(Drop::WrongSdoId);
        }
        if source.clock_identity == self.clock_identity {
            // Of its own messages, a switch may send some back.
            let is_ours = match kind {
                MessageType::Announce | MessageType::Sync => false,
                MessageType::DelayReq => {
                    port.delay_sequence_id.wrapping_sub(header.sequence_id) <= LOOPED
                }
                _ => true,
            };
            if !is_ours {
                self.overheard.hear(now, Hint::Twin { source });
            }
            return Err(Drop::SelfSent);
        }
        let message = Message::parse(bytes)?;
        if !limits::is_correction(header.correction.into()) {
            return Err(Drop::Correction);
        }
        match message.body {
            Body::Announce(announce) => self.take_announce(now, index, &header, announce),
            Body::Sync { origin_timestamp } => {
                self.take_sync(now, index, &header, origin_timestamp, rx)
            }
            Body::FollowUp { precise_origin_timestamp } => {
                let bracket = Bracket::find(&message.tlvs);
                self.take_follow_up(now, index, &header, precise_origin_timestamp, bracket)
            }
            Body::DelayResp { receive_timestamp, requesting_port_identity } => {
                let (at, who) = (receive_timestamp, requesting_port_identity);
                let bracket = Bracket::find(&message.tlvs);
                self.take_delay_resp(now, index, &header, at, who, bracket)
            }
            Body::PdelayReq { .. } => self.take_pdelay_req(index, &header, rx),
            Body::PdelayResp { request_receipt_timestamp, requesting_port_identity } => {
                self.pdelay_answer_is_ours(index, requesting_port_identity)?;
                let t4 = rx.ok_or(Drop::MissingRxStamp)?;
                let parent = self.parent_on(index);
                let initiator = &mut self.ports[index].initiator;
                let receipt = request_receipt_timestamp.into();
                let (done, multiple) = initiator.response(&header, receipt, t4, parent)?;
                if multiple {
                    self.count_drop(index, Drop::MultipleResponders);
                }
                self.finish_peer_delay(index, done);
                Ok(())
            }
            Body::PdelayRespFollowUp { response_origin_timestamp, requesting_port_identity } => {
                self.pdelay_answer_is_ours(index, requesting_port_identity)?;
                let parent = self.parent_on(index);
                let initiator = &mut self.ports[index].initiator;
                let origin = response_origin_timestamp.into();
                let done = initiator.follow_up(&header, origin, parent)?;
                self.finish_peer_delay(index, done);
                Ok(())
            }
            Body::DelayReq { .. } | Body::Signaling { .. } | Body::Management(_) => {
                Err(Drop::NotForRole)
            }
        }
    }

    fn parent_on(&self, index: usize) -> Option<PortIdentity> {
        self.parent
            .filter(|parent| usize::from(parent.port.0) == index)
            .map(|parent| parent.parent_port_identity)
    }

    fn header(&self, index: usize, sequence_id: u16) -> Header {
        let mut header = Header::new(self.ports[index].identity, sequence_id);
        header.sdo_id = self.sdo_id;
        header.minor_version = self.minor_version;
        header.domain_number = self.domain_number;
        header
    }

    fn token(&mut self) -> TxToken {
        self.next_token += 1;
        TxToken(self.next_token)
    }

    fn send_pdelay_req(&mut self, now: Time<Mono>, index: usize) {
        let token = self.token();
        let port = &mut self.ports[index];
        let interval = Duration::from_log_interval(port.config.log_min_pdelay_req_interval);
        port.next_pdelay_req = Some(now + interval);
        let sequence_id = port.pdelay_sequence_id;
        port.pdelay_sequence_id = sequence_id.wrapping_add(1);
        for _ in 0..port.initiator.sent(token, sequence_id) {
            port.counters.count_drop(Drop::UnansweredPdelayReq);
        }
        let header = self.header(index, sequence_id);
        let body = Body::PdelayReq { origin_timestamp: Timestamp::ZERO };
        let message = Datagram::new(header, body);
        self.send_event(index, MessageType::PdelayReq, token, true, message);
    }

    fn take_pdelay_req(
        &mut self,
        index: usize,
        header: &Header,
        rx: Option<Stamp>,
    ) -> Result<(), Drop> {
        if self.ports[index].config.delay_mechanism != DelayMechanism::P2p {
            return Err(Drop::NotForRole);
        }
        let rx = rx.ok_or(Drop::MissingRxStamp)?;
        let token = self.token();
        let template = self.header(index, header.sequence_id);
        let port = PortIndex(index as u16);
        let receipt = responder_time(rx.time);
        let responder = &mut self.ports[index].responder;
        let message = responder.answer(token, port, template, header, receipt);
        self.send_event(index, MessageType::PdelayResp, token, true, message);
        Ok(())
    }

    fn pdelay_answer_is_ours(&self, index: usize, requester: PortIdentity) -> Result<(), Drop> {
        if requester == self.ports[index].identity { Ok(()) } else { Err(Drop::OtherRequester) }
    }

    fn finish_peer_delay(&mut self, index: usize, done: Option<PeerDelay>) {
        let Some(done) = done else { return };
        let port = &mut self.ports[index];
        if !port.round_trip.measured(done.t4.time, done.mean_link_delay * 2) {
            port.counters.count_drop(Drop::ImplausibleDelay);
            return;
        }
        port.counters.peer_delay_exchanges += 1;
        if self.parent_on(index).is_some() {
            self.measured(index, Observation::PeerDelay(done));
        }
    }

    fn measured(&mut self, index: usize, observation: Observation) {
        let Some(parent) = self.parent else { return };
        self.push(Action::Measurement(Measurement {
            port: PortIndex(index as u16),
            epoch: parent.epoch,
            parent: parent.parent_port_identity,
            observation,
        }));
    }

    /// How much is stored, for the test that it is bounded.
    #[cfg(test)]
    pub(super) fn stored(&self) -> usize {
        let port = |port: &Port| {
            port.foreign.len() + port.syncs.len() + port.delays.len() + port.initiator.stored()
        };
        self.actions.len() + self.ports.iter().map(port).sum::<usize>()
    }

    fn start_port(&mut self, now: Time<Mono>, index: usize, reason: StateReason) {
        self.set_state(index, PortState::Listening, reason);
        if self.ports[index].config.delay_mechanism == DelayMechanism::P2p {
            self.ports[index].next_pdelay_req = Some(now);
        }
    }

    fn set_state(&mut self, index: usize, new: PortState, reason: StateReason) {
        let port = &mut self.ports[index];
        let old = port.state;
        if old != new {
            port.state = new;
            self.push(Action::PortState { port: PortIndex(index as u16), old, new, reason });
        }
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

/// A time receiver answers Pdelay_Req with times of its monotonic clock: only their difference and
/// their rate mean anything to the peer (11.4.2), and this clock is never stepped.
fn responder_time(mono: Time<Mono>) -> Time<Ptp> {
    Time::from_epoch(mono.since_epoch())
}
