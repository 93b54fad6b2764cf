//! A client-only ordinary clock with one or more ports in one domain: chooses the best time
//! transmitter that any port hears, follows it, and turns its messages and their stamps into one-way
//! observations. It steers nothing: that is for [`super::client`].

use super::{
    Datagram, DelayMechanism, PortIndex, PortState, TxToken,
    bmca::DataSet,
    counters::{Counters, Drop},
    log_interval,
    pdelay::{Initiator, Responder},
    sequence::{SequenceGuard, Verdict},
};
use crate::stamp::Stamp;
use ptp_common::{
    time::{Duration, Mono, Ptp, Time},
    wire::{
        Announce, Body, ClockIdentity, ClockQuality, Flags, Header, Message, MessageType,
        MessageView, PortIdentity, TimeInterval, TimeSource, Timestamp,
    },
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;
use std::{collections::VecDeque, fmt};

pub use super::pdelay::PeerDelay;

/// FOREIGN_MASTER_TIME_WINDOW, announce intervals (9.3.2.4.5).
const FOREIGN_MASTER_TIME_WINDOW: i32 = 4;
/// FOREIGN_MASTER_THRESHOLD, Announce messages within the window (9.3.2.4.5).
const FOREIGN_MASTER_THRESHOLD: u8 = 2;
/// Foreign time transmitters remembered per port. The standard asks for at least five (9.3.2.4.6).
const FOREIGN_CAPACITY: usize = 16;
/// Sync messages that wait for their other half.
const SYNC_CAPACITY: usize = 8;
/// Delay_Req messages that wait for stamp or answer.
const DELAY_CAPACITY: usize = 16;
/// Actions that wait to be collected; a caller that collects after each input never gets near.
const ACTION_CAPACITY: usize = 1024;
/// A Delay_Req older than this, or than four of its intervals, is not answered any more.
const DELAY_PATIENCE: Duration = Duration::from_secs(2);
/// Interval assumed where a Sync says none that can be believed.
const UNKNOWN_INTERVAL: Duration = Duration::from_log_interval(-7);

/// How one port behaves.
#[derive(Clone, Debug)]
pub struct PortConfig {
    /// `delayMechanism`.
    pub delay_mechanism: DelayMechanism,
    /// `announceReceiptTimeout`, announce intervals (7.7.3.1).
    pub announce_receipt_timeout: u8,
    /// Announce interval assumed for a time transmitter that says none, log2 s.
    pub log_announce_interval: i8,
    /// Mean interval of Delay_Req until the time transmitter says another, log2 s.
    pub log_min_delay_req_interval: i8,
    /// Interval of Pdelay_Req, log2 s.
    pub log_min_pdelay_req_interval: i8,
    /// `delayAsymmetry` (7.4.2): positive where the path from the time transmitter is the slower.
    pub delay_asymmetry: Duration,
    /// Whether the link is up at the start.
    pub link_up: bool,
}

impl Default for PortConfig {
    /// The default profile of annex I, link up.
    fn default() -> Self {
        Self {
            delay_mechanism: DelayMechanism::E2e,
            announce_receipt_timeout: 3,
            log_announce_interval: 1,
            log_min_delay_req_interval: 0,
            log_min_pdelay_req_interval: 0,
            delay_asymmetry: Duration::ZERO,
            link_up: true,
        }
    }
}

/// How the clock behaves.
#[derive(Clone, Debug)]
pub struct ReceiverConfig {
    /// `clockIdentity` of this clock.
    pub clock_identity: ClockIdentity,
    /// `domainNumber`.
    pub domain_number: u8,
    /// `sdoId`, 12 bits.
    pub sdo_id: u16,
    /// `minorVersionPTP` of what is sent; 0 and 1 are both understood.
    pub minor_version: u8,
    /// The ports, in the order of their [`PortIndex`].
    pub ports: Vec<PortConfig>,
    /// Seed for the randomised intervals; the same seed and inputs give the same actions.
    pub seed: u64,
}

impl ReceiverConfig {
    /// One port with the default profile in domain 0.
    pub fn new(clock_identity: ClockIdentity, seed: u64) -> Self {
        Self {
            clock_identity,
            domain_number: 0,
            sdo_id: 0,
            minor_version: 1,
            ports: vec![PortConfig::default()],
            seed,
        }
    }
}

/// What the caller is to do, or may want to know.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Send an event message, and give its transmit stamp to `handle_tx_stamp` with this token.
    SendEvent {
        /// The port to send on.
        port: PortIndex,
        /// Goes with the stamp.
        token: TxToken,
        /// To the peer-delay multicast address (224.0.0.107, ff02::6b, 01-80-C2-00-00-0E) instead of
        /// the primary one.
        peer_multicast: bool,
        /// The message.
        message: Datagram,
    },
    /// Send a general message.
    SendGeneral {
        /// The port to send on.
        port: PortIndex,
        /// As with `SendEvent`.
        peer_multicast: bool,
        /// The message.
        message: Datagram,
    },
    /// Something has been measured.
    Measurement(Measurement),
    /// A port has changed its state.
    PortState {
        /// The port.
        port: PortIndex,
        /// Its state before.
        old: PortState,
        /// Its state now.
        new: PortState,
        /// Why.
        reason: StateReason,
    },
    /// Another time transmitter, another grandmaster, or none.
    ParentChanged {
        /// The new one.
        parent: Option<ParentDataSet>,
    },
}

/// Why a port changed its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StateReason {
    /// The engine has started.
    Started,
    /// The link came up.
    LinkUp,
    /// The link went down.
    LinkDown,
    /// The port hears the best time transmitter.
    BestTransmitter,
    /// Another port hears a better one.
    BetterElsewhere,
    /// Announce messages stopped.
    AnnounceTimeout,
    /// The servo has locked.
    Synchronized,
    /// The servo has lost its lock.
    SynchronizationLost,
}

impl StateReason {
    /// Words for a log line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::LinkUp => "link up",
            Self::LinkDown => "link down",
            Self::BestTransmitter => "best time transmitter",
            Self::BetterElsewhere => "better time transmitter elsewhere",
            Self::AnnounceTimeout => "announce receipt timeout",
            Self::Synchronized => "synchronized",
            Self::SynchronizationLost => "synchronization lost",
        }
    }
}

/// One observation of the path between parent and port.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measurement {
    /// The port that made it.
    pub port: PortIndex,
    /// Changes whenever times before and after it must not be compared: see
    /// [`ParentDataSet::epoch`].
    pub epoch: u64,
    /// The time transmitter.
    pub parent: PortIdentity,
    /// What was seen.
    pub observation: Observation,
}

/// One-way observations, because estimators filter each direction by itself.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Observation {
    /// From the time transmitter: a Sync, with its Follow_Up if it is two-step.
    Sync(SyncObservation),
    /// To the time transmitter: a Delay_Req, with its Delay_Resp.
    Delay(DelayObservation),
    /// The link to the neighbour.
    PeerDelay(PeerDelay),
}

/// One Sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SyncObservation {
    /// When it left the grandmaster, all corrections and `delayAsymmetry` added: `t2 - t1` is path
    /// delay plus offset, free of residence times.
    pub t1: Time<Ptp>,
    /// When it arrived here.
    pub t2: Stamp,
    /// `sequenceId`.
    pub sequence_id: u16,
    /// `logMessageInterval`, where it can be believed.
    pub log_interval: Option<i8>,
    /// Whether there was a Follow_Up.
    pub two_step: bool,
    /// The correction fields of both messages: what transparent clocks have added.
    pub correction: Duration,
}

/// One Delay_Req.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DelayObservation {
    /// When it left here.
    pub t3: Stamp,
    /// When it arrived at the time transmitter, corrections subtracted and `delayAsymmetry` added:
    /// `t4 - t3` is path delay minus offset.
    pub t4: Time<Ptp>,
    /// `sequenceId`.
    pub sequence_id: u16,
    /// The correction field: what transparent clocks have added.
    pub correction: Duration,
}

/// `parentDS` (8.2.3), and where it came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParentDataSet {
    /// The port that hears it.
    pub port: PortIndex,
    /// `parentPortIdentity`.
    pub parent_port_identity: PortIdentity,
    /// `grandmasterIdentity`.
    pub grandmaster_identity: ClockIdentity,
    /// `grandmasterClockQuality`.
    pub grandmaster_clock_quality: ClockQuality,
    /// `grandmasterPriority1`.
    pub grandmaster_priority1: u8,
    /// `grandmasterPriority2`.
    pub grandmaster_priority2: u8,
    /// `stepsRemoved` as announced; `currentDS.stepsRemoved` is one more.
    pub steps_removed: u16,
    /// Counts changes of port, parent, grandmaster and time scale since the start.
    pub epoch: u64,
    /// `timePropertiesDS`.
    pub time_properties: TimeProperties,
}

/// `timePropertiesDS` (8.2.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeProperties {
    /// `currentUtcOffset`, seconds.
    pub current_utc_offset: i16,
    /// `currentUtcOffsetValid`.
    pub current_utc_offset_valid: bool,
    /// `leap59`.
    pub leap59: bool,
    /// `leap61`.
    pub leap61: bool,
    /// `timeTraceable`.
    pub time_traceable: bool,
    /// `frequencyTraceable`.
    pub frequency_traceable: bool,
    /// `ptpTimescale`.
    pub ptp_timescale: bool,
    /// `timeSource`.
    pub time_source: TimeSource,
}

impl TimeProperties {
    /// From the flags and the body of an Announce.
    pub const fn new(flags: Flags, announce: &Announce) -> Self {
        Self {
            current_utc_offset: announce.current_utc_offset,
            current_utc_offset_valid: flags.contains(Flags::UTC_OFFSET_VALID),
            leap59: flags.contains(Flags::LEAP59),
            leap61: flags.contains(Flags::LEAP61),
            time_traceable: flags.contains(Flags::TIME_TRACEABLE),
            frequency_traceable: flags.contains(Flags::FREQUENCY_TRACEABLE),
            ptp_timescale: flags.contains(Flags::PTP_TIMESCALE),
            time_source: announce.time_source,
        }
    }
}

/// The time scale, in words.
impl fmt::Display for TimeProperties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.ptp_timescale, self.current_utc_offset_valid) {
            (true, true) => write!(f, "PTP (TAI), UTC {} s behind", self.current_utc_offset),
            (true, false) => f.write_str("PTP (TAI), UTC offset unknown"),
            (false, _) => f.write_str("arbitrary"),
        }
    }
}

/// `foreignMasterDS` entry (9.3.2.4).
#[derive(Debug)]
struct Foreign {
    source: PortIdentity,
    announce: Announce,
    flags: Flags,
    log_interval: i8,
    sequence: SequenceGuard,
    /// When the last [`FOREIGN_MASTER_THRESHOLD`] Announce messages came, latest first.
    heard: [Option<Time<Mono>>; FOREIGN_MASTER_THRESHOLD as usize],
}

impl Foreign {
    fn interval(&self) -> Duration {
        Duration::from_log_interval(self.log_interval)
    }

    fn last_heard(&self) -> Time<Mono> {
        self.heard[0].unwrap_or(Time::ZERO)
    }

    fn window(&self) -> Duration {
        self.interval() * FOREIGN_MASTER_TIME_WINDOW
    }

    /// Enough Announce messages within the window.
    fn is_qualified(&self, now: Time<Mono>) -> bool {
        self.heard.iter().all(|heard| heard.is_some_and(|at| now - at <= self.window()))
    }
}

#[derive(Debug)]
enum SyncHalf {
    Awaited,
    /// Came without a stamp, and was counted; its Follow_Up needs no second count.
    Lost,
    Stamped {
        t2: Stamp,
        correction: Duration,
        log_interval: Option<i8>,
    },
}

#[derive(Debug)]
struct PendingSync {
    sequence_id: u16,
    sync: SyncHalf,
    /// Precise origin timestamp and the Follow_Up's correction.
    follow_up: Option<(Time<Ptp>, Duration)>,
}

#[derive(Debug)]
struct PendingDelay {
    sequence_id: u16,
    token: TxToken,
    sent: Time<Mono>,
    t3: Option<Stamp>,
    /// Corrected, and the correction.
    t4: Option<(Time<Ptp>, Duration)>,
}

#[derive(Debug)]
struct Port {
    identity: PortIdentity,
    config: PortConfig,
    state: PortState,
    counters: Counters,
    foreign: Vec<Foreign>,
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
}

impl Port {
    fn clear_parent(&mut self) {
        self.sync_sequence = sync_guard();
        self.syncs.clear();
        self.delays.clear();
        self.last_answered = None;
        self.log_delay_req_interval = self.config.log_min_delay_req_interval;
        self.next_delay_req = None;
    }
}

/// Three Sync messages of a new series, two intervals after the last of the old one.
fn sync_guard() -> SequenceGuard {
    SequenceGuard::new(3, 4)
}

/// Two Announce messages, one and a half intervals: before the receipt timeout ends it anyway.
fn announce_guard() -> SequenceGuard {
    SequenceGuard::new(2, 3)
}

/// A client-only ordinary clock. See the module's documentation.
#[derive(Debug)]
pub struct Receiver {
    clock_identity: ClockIdentity,
    domain_number: u8,
    sdo_id: u16,
    minor_version: u8,
    ports: Vec<Port>,
    parent: Option<ParentDataSet>,
    epoch: u64,
    synchronized: bool,
    rng: ChaCha8Rng,
    next_token: u64,
    actions: VecDeque<Action>,
    /// Counts what came for ports that do not exist.
    stray: Counters,
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
                foreign: Vec::new(),
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
                config: port,
            })
            .collect::<Vec<_>>();
        let mut receiver = Self {
            clock_identity: config.clock_identity,
            domain_number: config.domain_number,
            sdo_id: config.sdo_id & 0xfff,
            minor_version: config.minor_version,
            ports,
            parent: None,
            epoch: 0,
            synchronized: false,
            rng,
            next_token: 0,
            actions: VecDeque::new(),
            stray: Counters::default(),
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
        let view = MessageView::new(bytes)?;
        let header = view.header();
        let kind = view.message_type();
        let port = self.ports.get_mut(index).ok_or(Drop::PortDisabled)?;
        port.counters.count_received(kind);
        if port.state == PortState::Disabled {
            return Err(Drop::PortDisabled);
        }
        if header.domain_number != self.domain_number {
            return Err(Drop::WrongDomain);
        }
        if header.sdo_id != self.sdo_id {
            return Err(Drop::WrongSdoId);
        }
        if header.source_port_identity.clock_identity == self.clock_identity {
            return Err(Drop::SelfSent);
        }
        let message = Message::parse(bytes)?;
        if header.correction == TimeInterval(i64::MAX) {
            return Err(Drop::Correction);
        }
        match message.body {
            Body::Announce(announce) => self.take_announce(now, index, &header, announce),
            Body::Sync { origin_timestamp } => {
                self.take_sync(now, index, &header, origin_timestamp, rx)
            }
            Body::FollowUp { precise_origin_timestamp } => {
                self.take_follow_up(now, index, &header, precise_origin_timestamp)
            }
            Body::DelayResp { receive_timestamp, requesting_port_identity } => {
                self.take_delay_resp(index, &header, receive_timestamp, requesting_port_identity)
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

    fn take_announce(
        &mut self,
        now: Time<Mono>,
        index: usize,
        header: &Header,
        announce: Announce,
    ) -> Result<(), Drop> {
        if announce.grandmaster_identity == self.clock_identity {
            return Err(Drop::SelfGrandmaster);
        }
        if header.flags.contains(Flags::ALTERNATE_MASTER) {
            return Err(Drop::AlternateMaster);
        }
        if announce.steps_removed >= 255 {
            return Err(Drop::StepsRemoved);
        }
        let source = header.source_port_identity;
        let parent = self.parent_on(index);
        let port = &mut self.ports[index];
        let position = port.foreign.iter().position(|foreign| foreign.source == source);
        let position = match position {
            Some(position) => position,
            None => {
                if port.foreign.len() >= FOREIGN_CAPACITY {
                    // Room for one more only at the cost of one that has not qualified.
                    let oldest = (0..port.foreign.len())
                        .filter(|n| Some(port.foreign[*n].source) != parent)
                        .filter(|n| !port.foreign[*n].is_qualified(now))
                        .min_by_key(|n| port.foreign[*n].last_heard());
                    port.foreign.swap_remove(oldest.ok_or(Drop::ForeignTableFull)?);
                    port.counters.count_drop(Drop::ForeignTableFull);
                }
                port.foreign.push(Foreign {
                    source,
                    announce,
                    flags: header.flags,
                    log_interval: port.config.log_announce_interval,
                    sequence: announce_guard(),
                    heard: [None; _],
                });
                port.foreign.len() - 1
            }
        };
        let foreign = &mut port.foreign[position];
        let interval = foreign.interval();
        match foreign.sequence.check(now, header.sequence_id, interval) {
            Verdict::Fresh => foreign.sequence.accept(now, header.sequence_id),
            Verdict::Duplicate => return Err(Drop::Duplicate),
            Verdict::Stale => return Err(Drop::Replayed),
        }
        if let Some(log) = log_interval(header.log_message_interval) {
            foreign.log_interval = log;
        }
        foreign.announce = announce;
        foreign.flags = header.flags;
        foreign.heard.rotate_right(1);
        foreign.heard[0] = Some(now);
        self.decide(now, StateReason::BestTransmitter);
        Ok(())
    }

    /// When a foreign time transmitter is forgotten: the parent after the announce receipt timeout
    /// (9.2.6.12), others when their last Announce has left the window.
    fn expiry(&self, index: usize, foreign: &Foreign) -> Time<Mono> {
        let intervals = if self.parent_on(index) == Some(foreign.source) {
            i32::from(self.ports[index].config.announce_receipt_timeout)
        } else {
            FOREIGN_MASTER_TIME_WINDOW
        };
        foreign.last_heard() + foreign.interval() * intervals
    }

    fn parent_on(&self, index: usize) -> Option<PortIdentity> {
        self.parent
            .filter(|parent| usize::from(parent.port.0) == index)
            .map(|parent| parent.parent_port_identity)
    }

    /// The state decision: E_best over all ports (9.3.2.2), for a clock that is a client only.
    fn decide(&mut self, now: Time<Mono>, reason: StateReason) {
        let mut best: Option<(DataSet, usize, usize)> = None;
        for (index, port) in self.ports.iter().enumerate() {
            for (n, foreign) in port.foreign.iter().enumerate() {
                if !foreign.is_qualified(now) && self.parent_on(index) != Some(foreign.source) {
                    continue;
                }
                let candidate = DataSet::new(&foreign.announce, foreign.source, port.identity);
                if best.as_ref().is_none_or(|(best, ..)| candidate.is_better_than(best)) {
                    best = Some((candidate, index, n));
                }
            }
        }
        let Some((_, index, n)) = best else {
            if let Some(old) = self.parent.take() {
                self.epoch += 1;
                self.leave(usize::from(old.port.0), reason);
                self.push(Action::ParentChanged { parent: None });
            }
            return;
        };
        let foreign = &self.ports[index].foreign[n];
        let announce = &foreign.announce;
        let mut new = ParentDataSet {
            port: PortIndex(index as u16),
            parent_port_identity: foreign.source,
            grandmaster_identity: announce.grandmaster_identity,
            grandmaster_clock_quality: announce.grandmaster_clock_quality,
            grandmaster_priority1: announce.grandmaster_priority1,
            grandmaster_priority2: announce.grandmaster_priority2,
            steps_removed: announce.steps_removed,
            epoch: self.epoch,
            time_properties: TimeProperties::new(foreign.flags, announce),
        };
        let old = self.parent;
        let same_port = old.is_some_and(|old| old.port == new.port);
        let same_parent = same_port
            && old.is_some_and(|old| old.parent_port_identity == new.parent_port_identity);
        let same_time = same_parent
            && old.is_some_and(|old| {
                old.grandmaster_identity == new.grandmaster_identity
                    && old.time_properties.ptp_timescale == new.time_properties.ptp_timescale
            });
        if !same_time {
            self.epoch += 1;
            new.epoch = self.epoch;
        }
        self.parent = Some(new);
        if !same_time {
            // Halves of exchanges from before and after do not fit together.
            self.ports[index].syncs.clear();
            self.ports[index].delays.clear();
        }
        if !same_parent {
            if let Some(old) = old.filter(|_| !same_port) {
                self.leave(usize::from(old.port.0), StateReason::BetterElsewhere);
            }
            self.ports[index].clear_parent();
            self.synchronized = false;
            self.set_state(index, PortState::Uncalibrated, StateReason::BestTransmitter);
        }
        if !same_time {
            self.push(Action::ParentChanged { parent: Some(new) });
        }
    }

    /// A port stops following.
    fn leave(&mut self, index: usize, reason: StateReason) {
        self.synchronized = false;
        self.ports[index].clear_parent();
        if self.ports[index].state != PortState::Disabled {
            self.set_state(index, PortState::Listening, reason);
        }
    }

    fn take_sync(
        &mut self,
        now: Time<Mono>,
        index: usize,
        header: &Header,
        origin: Timestamp,
        rx: Option<Stamp>,
    ) -> Result<(), Drop> {
        self.check_parent(now, index, header)?;
        let sequence_id = header.sequence_id;
        let log_interval = log_interval(header.log_message_interval);
        // The first Sync shows that the time transmitter is at work: requests may start (9.5.11.2).
        self.start_delay_req(now, index);
        let port = &mut self.ports[index];
        let correction: Duration = header.correction.into();
        if !header.flags.contains(Flags::TWO_STEP) {
            let Some(t2) = rx else {
                port.sync_sequence.accept(now, sequence_id);
                return Err(Drop::MissingRxStamp);
            };
            let t1 = Time::<Ptp>::from(origin) + correction;
            let two_step = false;
            let sync = SyncObservation { t1, t2, sequence_id, log_interval, two_step, correction };
            self.finish_sync(now, index, sync);
            return Ok(());
        }
        let half = match rx {
            Some(t2) => SyncHalf::Stamped { t2, correction, log_interval },
            None => SyncHalf::Lost,
        };
        let lost = rx.is_none();
        let pending = self.pending_sync(index, sequence_id);
        if !matches!(pending.sync, SyncHalf::Awaited) {
            return Err(Drop::Duplicate);
        }
        pending.sync = half;
        self.match_sync(now, index, sequence_id);
        if lost { Err(Drop::MissingRxStamp) } else { Ok(()) }
    }

    fn take_follow_up(
        &mut self,
        now: Time<Mono>,
        index: usize,
        header: &Header,
        precise_origin: Timestamp,
    ) -> Result<(), Drop> {
        self.check_parent(now, index, header)?;
        let pending = self.pending_sync(index, header.sequence_id);
        if pending.follow_up.is_some() {
            return Err(Drop::Duplicate);
        }
        pending.follow_up = Some((precise_origin.into(), header.correction.into()));
        self.match_sync(now, index, header.sequence_id);
        Ok(())
    }

    /// Sync and Follow_Up count only from the parent and in sequence.
    fn check_parent(&mut self, now: Time<Mono>, index: usize, header: &Header) -> Result<(), Drop> {
        if header.flags.contains(Flags::ALTERNATE_MASTER) {
            return Err(Drop::AlternateMaster);
        }
        if self.parent_on(index) != Some(header.source_port_identity) {
            return Err(Drop::NotParent);
        }
        let interval = log_interval(header.log_message_interval)
            .map_or(UNKNOWN_INTERVAL, Duration::from_log_interval);
        match self.ports[index].sync_sequence.check(now, header.sequence_id, interval) {
            Verdict::Fresh => Ok(()),
            Verdict::Duplicate => Err(Drop::Duplicate),
            Verdict::Stale => Err(Drop::Replayed),
        }
    }

    /// The place where the halves of a two-step Sync meet; makes it, at the cost of the oldest.
    fn pending_sync(&mut self, index: usize, sequence_id: u16) -> &mut PendingSync {
        let port = &mut self.ports[index];
        let position = port.syncs.iter().position(|pending| pending.sequence_id == sequence_id);
        let position = position.unwrap_or_else(|| {
            if port.syncs.len() >= SYNC_CAPACITY
                && let Some(old) = port.syncs.pop_front()
            {
                count_half(&mut port.counters, &old);
            }
            let follow_up = None;
            port.syncs.push_back(PendingSync { sequence_id, sync: SyncHalf::Awaited, follow_up });
            port.syncs.len() - 1
        });
        &mut port.syncs[position]
    }

    fn match_sync(&mut self, now: Time<Mono>, index: usize, sequence_id: u16) {
        let port = &mut self.ports[index];
        let Some(at) = port.syncs.iter().position(|pending| pending.sequence_id == sequence_id)
        else {
            return;
        };
        let Some((origin, more)) = port.syncs[at].follow_up else { return };
        match port.syncs[at].sync {
            SyncHalf::Awaited => {}
            SyncHalf::Lost => {
                port.syncs.remove(at);
                port.sync_sequence.accept(now, sequence_id);
            }
            SyncHalf::Stamped { t2, correction, log_interval } => {
                port.syncs.remove(at);
                let correction = correction + more;
                let (t1, two_step) = (origin + correction, true);
                let sync =
                    SyncObservation { t1, t2, sequence_id, log_interval, two_step, correction };
                self.finish_sync(now, index, sync);
            }
        }
    }

    /// `delayAsymmetry` is still to be added to `t1`.
    fn finish_sync(&mut self, now: Time<Mono>, index: usize, mut sync: SyncObservation) {
        let sequence_id = sync.sequence_id;
        let port = &mut self.ports[index];
        port.sync_sequence.accept(now, sequence_id);
        // What is older can only be taken out of order from now on, so it is not taken at all.
        while let Some(at) = port
            .syncs
            .iter()
            .position(|pending| sequence_id.wrapping_sub(pending.sequence_id) < 0x8000)
        {
            if let Some(old) = port.syncs.remove(at) {
                count_half(&mut port.counters, &old);
            }
        }
        port.counters.sync_exchanges += 1;
        sync.t1 += port.config.delay_asymmetry;
        self.measured(index, Observation::Sync(sync));
    }

    fn start_delay_req(&mut self, now: Time<Mono>, index: usize) {
        let port = &self.ports[index];
        if port.config.delay_mechanism == DelayMechanism::E2e && port.next_delay_req.is_none() {
            let wait = self.random_interval(index);
            self.ports[index].next_delay_req = Some(now + wait);
        }
    }

    /// Uniform over 0..=2 times the mean interval (9.5.11.2).
    fn random_interval(&mut self, index: usize) -> Duration {
        let log = self.ports[index].log_delay_req_interval;
        let most = Duration::from_log_interval(log).as_nanos().saturating_mul(2);
        Duration::from_nanos(self.rng.random_range(0..=most))
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

    fn send_delay_req(&mut self, now: Time<Mono>, index: usize) {
        let wait = self.random_interval(index);
        let token = self.token();
        let port = &mut self.ports[index];
        let mean = Duration::from_log_interval(port.log_delay_req_interval);
        let patience = DELAY_PATIENCE.max(mean * 4);
        while port
            .delays
            .front()
            .is_some_and(|old| port.delays.len() >= DELAY_CAPACITY || now - old.sent > patience)
        {
            port.delays.pop_front();
            port.counters.count_drop(Drop::UnansweredDelayReq);
        }
        let sequence_id = port.delay_sequence_id;
        port.delay_sequence_id = sequence_id.wrapping_add(1);
        port.next_delay_req = Some(now + wait);
        port.delays.push_back(PendingDelay { sequence_id, token, sent: now, t3: None, t4: None });
        let header = self.header(index, sequence_id);
        let body = Body::DelayReq { origin_timestamp: Timestamp::ZERO };
        let message = Datagram::new(header, body);
        self.send_event(index, MessageType::DelayReq, token, false, message);
    }

    fn take_delay_resp(
        &mut self,
        index: usize,
        header: &Header,
        receive: Timestamp,
        requester: PortIdentity,
    ) -> Result<(), Drop> {
        if requester != self.ports[index].identity {
            return Err(Drop::OtherRequester);
        }
        if self.parent_on(index) != Some(header.source_port_identity) {
            return Err(Drop::NotParent);
        }
        let port = &mut self.ports[index];
        let sequence_id = header.sequence_id;
        let Some(at) = port.delays.iter().position(|delay| delay.sequence_id == sequence_id) else {
            return Err(if port.last_answered == Some(sequence_id) {
                Drop::Duplicate
            } else {
                Drop::UnmatchedDelayResp
            });
        };
        if port.delays[at].t4.is_some() {
            return Err(Drop::Duplicate);
        }
        if let Some(log) = log_interval(header.log_message_interval) {
            port.log_delay_req_interval = log;
        }
        let correction: Duration = header.correction.into();
        let t4 = Time::<Ptp>::from(receive) - correction + port.config.delay_asymmetry;
        port.delays[at].t4 = Some((t4, correction));
        self.finish_delay(index, at);
        Ok(())
    }

    fn finish_delay(&mut self, index: usize, at: usize) {
        let port = &mut self.ports[index];
        let PendingDelay { sequence_id, t3: Some(t3), t4: Some((t4, correction)), .. } =
            port.delays[at]
        else {
            return;
        };
        port.delays.remove(at);
        port.last_answered = Some(sequence_id);
        port.counters.delay_exchanges += 1;
        let delay = DelayObservation { t3, t4, sequence_id, correction };
        self.measured(index, Observation::Delay(delay));
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
        self.ports[index].counters.peer_delay_exchanges += 1;
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

fn count_half(counters: &mut Counters, old: &PendingSync) {
    match (&old.sync, &old.follow_up) {
        (SyncHalf::Lost, _) => {}
        (SyncHalf::Awaited, _) => counters.count_drop(Drop::FollowUpWithoutSync),
        (SyncHalf::Stamped { .. }, None) => counters.count_drop(Drop::SyncWithoutFollowUp),
        (SyncHalf::Stamped { .. }, Some(_)) => counters.count_drop(Drop::Reordered),
    }
}

/// A time receiver answers Pdelay_Req with times of its monotonic clock: only their difference and
/// their rate mean anything to the peer (11.4.2), and this clock is never stepped.
fn responder_time(mono: Time<Mono>) -> Time<Ptp> {
    Time::from_epoch(mono.since_epoch())
}
