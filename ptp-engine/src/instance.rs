//! One PTP Instance (IEEE 1588-2019 7.1): the ports of this clock in one domain, whom it follows and what it
//! tells of itself. Bytes come in by [`Input`], and which port does what with them is a matter of the port's
//! [`Role`]. What a clock may be is its [`Participation`].

mod admission;
pub(crate) mod answering;
pub(crate) mod asking;
mod bystanders;
mod election;
pub(crate) mod fixed;
pub(crate) mod leap;
mod managed;
mod monitor;
pub(crate) mod overheard;
mod peer_delay;
pub(crate) mod port;
pub(crate) mod relay;
mod roles;
mod sending;
mod standing;
mod told;
pub(crate) mod unicast;

use crate::prelude::*;
use crate::{
    PortIndex, PortState, SentToken,
    address::Address,
    config::{LinkDelayService, PortConfig, ReceiverConfig, TransmitterConfig},
    counters::{Counters, Drop},
    extras,
    fair::FairShare,
    limits,
    outcome::{Measurement, Observation, Parent, StateReason},
    port::{Port, PortTimer, Role, transmitter::Serving},
    round_trip::RoundTripTrend,
    seam::{Change, Command, Commands, Context, NoEvent},
    sent::{InFlight, Sent},
    stamp::Stamp,
    timers::Timers,
    unicast::service::Service,
};
use answering::Answering;
use asking::Asking;
use bystanders::Bystanders;
use election::Followable;
use managed::Managed;
use monitor::Monitored;
use overheard::{Hint, Overheard};
use ptp_common::{
    time::{Mono, Time},
    wire::{Body, ClockIdentity, Header, Message, MessageType, PortIdentity},
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use standing::Standing;

/// As many of the last requests may come back from the network.
const LOOPED: u16 = 1024;

/// What a clock may be (`defaultDS.slaveOnly`, and what a server-only clock does to each of its ports).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Participation {
    /// It follows and never serves.
    ClientOnly,
    /// It serves and never follows.
    ServerOnly,
    /// It serves and never follows, but not where a better one serves.
    Yielding,
    /// It does either, as the algorithm says.
    Either,
}

/// Whether the requests of a port are to arrive shortly before a Sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aiming {
    /// They are.
    On,
    /// They are sent at random.
    Off,
}

/// Whether the clock follows its time transmitter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Synchronization {
    /// It does: SLAVE.
    Locked,
    /// Not yet, or no more: UNCALIBRATED.
    Unlocked,
}

/// A message on its way through an instance.
#[derive(Clone, Copy)]
pub(crate) struct Received<'a> {
    pub(crate) index: usize,
    pub(crate) from: Option<Address>,
    pub(crate) bytes: &'a [u8],
    pub(crate) stamp: Option<Stamp>,
}

/// See the module's paragraph.
#[derive(Debug)]
pub struct Instance {
    pub(crate) participation: Participation,
    pub(crate) clock_identity: ClockIdentity,
    pub(crate) domain_number: u8,
    pub(crate) sdo_id: u16,
    minor_version: u8,
    acceptable: Followable,
    pub(crate) ports: Vec<Port>,
    pub(crate) timers: Timers<(u16, PortTimer)>,
    /// When the first foreign time transmitter of a port is forgotten.
    expiries: Timers<u16>,
    pub(crate) parent: Option<Parent>,
    pub(crate) epoch: u64,
    pub(crate) rng: ChaCha8Rng,
    pub(crate) in_flight: InFlight,
    /// What it tells of itself, where it serves.
    pub(crate) served: TransmitterConfig,
    /// Who is answered; only who serves needs it.
    pub(crate) requests: Option<FairShare>,
    /// What is granted to whom, where anything is.
    pub(crate) service: Option<Service>,
    /// Counts what came for ports that do not exist.
    stray: Counters,
    overheard: Overheard,
    bystanders: Bystanders,
    /// Who is not followed, since others have refuted its time.
    pub(crate) distrusted: Vec<PortIdentity>,
    /// Of a clock that may serve and hears others.
    standing: Option<Standing>,
    /// Of a clock that asks servers.
    pub(crate) asking: Option<Box<Asking>>,
    pub(crate) answering: Answering,
    /// What else the parent announces, and who that was.
    extras: Option<(PortIdentity, extras::Extras)>,
    /// What is passed on of the parent's time.
    relay: relay::Relay,
    /// Alternate times that are announced while it is the grandmaster.
    alternates: Vec<ptp_common::wire::AlternateTimeOffset>,
    managed: Managed,
    /// Of a clock that may be asked by monitors.
    monitored: Option<Box<Monitored>>,
    /// When it was last given anything.
    last_now: Time<Mono>,
}

/// The context of an instance, which has no events of its own.
pub(crate) type Cx<'a> = Context<'a, NoEvent>;

impl Instance {
    /// A clock that follows. Its ports listen, or are disabled where the link is down.
    pub fn client_only(config: ReceiverConfig, cx: &mut Cx<'_>) -> Self {
        let mut served = TransmitterConfig::new(config.clock_identity);
        (served.domain_number, served.sdo_id) = (config.domain_number, config.sdo_id);
        served.seed = config.seed;
        let mut instance = Self::new(
            Participation::ClientOnly,
            config.ports,
            served,
            config.minor_version,
            Followable::new(config.acceptable, config.max_clock_class),
        );
        instance.start_asking(cx, &config.servers);
        instance.start(cx);
        instance
    }

    /// A clock that serves. Its ports begin to send at `cx.now`.
    pub fn server_only(config: TransmitterConfig, cx: &mut Cx<'_>) -> Self {
        let ports = (0..config.ports).map(|_| PortConfig::default()).collect();
        let (version, anybody) = (config.minor_version, Followable::ANY);
        let mut instance = Self::new(Participation::ServerOnly, ports, config, version, anybody);
        let TransmitterConfig { max_requests_per_second, seed, .. } = instance.served;
        instance.requests = Some(FairShare::new(max_requests_per_second, seed, cx.now));
        instance.start(cx);
        instance
    }

    fn new(
        participation: Participation,
        ports: Vec<PortConfig>,
        served: TransmitterConfig,
        minor_version: u8,
        acceptable: Followable,
    ) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(served.seed);
        let clock_identity = served.clock_identity;
        let ports = ports.into_iter().zip(1..).map(|(config, port_number)| {
            let identity = PortIdentity { clock_identity, port_number };
            let key = served.seed.rotate_left(u32::from(port_number));
            // Not from 0, so that answers to an earlier run of this program do not match.
            let (delay_sequence_id, pdelay_sequence_id) = (rng.random(), rng.random());
            Port::new(identity, config, key, delay_sequence_id, pdelay_sequence_id)
        });
        let ports = ports.collect();
        Self {
            participation,
            clock_identity,
            domain_number: served.domain_number,
            sdo_id: served.sdo_id & 0xfff,
            minor_version,
            acceptable,
            ports,
            timers: Timers::default(),
            expiries: Timers::default(),
            parent: None,
            epoch: 0,
            rng,
            in_flight: InFlight::default(),
            served,
            requests: None,
            service: None,
            stray: Counters::default(),
            overheard: Overheard::default(),
            bystanders: Bystanders::default(),
            distrusted: Vec::new(),
            standing: None,
            asking: None,
            answering: Answering::default(),
            extras: None,
            relay: relay::Relay::default(),
            alternates: Vec::new(),
            managed: Managed::default(),
            monitored: None,
            last_now: Time::ZERO,
        }
    }

    fn start(&mut self, cx: &mut Cx<'_>) {
        self.last_now = cx.now;
        let granting = self.served.unicast.clone();
        self.service = granting.map(|config| Service::new(config, cx.now));
        for index in 0..self.ports.len() {
            if self.ports[index].config.link_up {
                self.start_port(cx, index, StateReason::Started);
            } else {
                self.enter(cx, index, Role::Disabled, StateReason::LinkDown);
            }
        }
    }

    /// Whether it is the one for messages of this domain.
    pub const fn is_for(&self, domain_number: u8, sdo_id: u16) -> bool {
        self.domain_number == domain_number && self.sdo_id == sdo_id
    }

    /// Whom it follows; `None` while there is no time transmitter.
    pub const fn parent(&self) -> Option<&Parent> {
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

    /// `sdoId`.
    pub const fn sdo_id(&self) -> u16 {
        self.sdo_id
    }

    /// How many ports there are.
    pub fn ports(&self) -> impl Iterator<Item = PortIndex> + use<> {
        (0..self.ports.len() as u16).map(PortIndex)
    }

    /// State of a port; `Disabled` for one that does not exist.
    pub fn port_state(&self, port: PortIndex) -> PortState {
        self.port(port).map_or(PortState::Disabled, |port| port.role.state())
    }

    /// The settings of a port.
    pub fn port_config(&self, port: PortIndex) -> Option<&PortConfig> {
        self.port(port).map(|port| &port.config)
    }

    /// Counts of a port; of what was given for no port where it does not exist.
    pub fn counters(&self, port: PortIndex) -> &Counters {
        self.port(port).map_or(&self.stray, |port| &port.counters)
    }

    fn port(&self, port: PortIndex) -> Option<&Port> {
        self.ports.get(usize::from(port.0))
    }

    /// The mean interval of Delay_Req in use on a port, log2 s.
    pub fn log_min_delay_req_interval(&self, port: PortIndex) -> Option<i8> {
        self.port(port).map(Port::log_delay_req_interval)
    }

    /// What has been heard in the last minute and cannot be followed.
    pub fn overheard(&self, now: Time<Mono>) -> impl Iterator<Item = Hint> {
        self.overheard.fresh(now)
    }

    /// How the round trip to the time transmitter has changed; `None` while there is none, or too little
    /// is known of it.
    pub fn round_trip(&self) -> Option<RoundTripTrend> {
        self.port(self.parent?.port)?.round_trip.trend()
    }

    /// The servo says whether the clock follows: the port with the parent is SLAVE or UNCALIBRATED.
    pub fn set_synchronized(&mut self, out: &mut Commands<NoEvent>, sync: Synchronization) {
        let Some(parent) = self.parent else { return };
        let index = usize::from(parent.port.0);
        let Role::Receiver(following) = &mut self.ports[index].role else { return };
        let old = following.state();
        following.synchronization = sync;
        let new = following.state();
        let reason = match sync {
            Synchronization::Locked => StateReason::Synchronized,
            Synchronization::Unlocked => StateReason::SynchronizationLost,
        };
        if old != new {
            following.lacks_exchange = sync == Synchronization::Unlocked;
            self.tell(out, Change::PortState { port: parent.port, old, new, reason });
        }
        if sync == Synchronization::Locked {
            self.locked();
        }
        self.ask_when_locked(out, sync == Synchronization::Locked);
    }

    /// The stamp of an event message of a port, or the news that there is none.
    pub(crate) fn sent(
        &mut self,
        cx: &mut Cx<'_>,
        index: usize,
        what: Sent,
        token: SentToken,
        stamp: Option<Stamp>,
    ) {
        self.last_now = cx.now;
        match what {
            Sent::Sync => self.sync_sent(cx, index, token, stamp),
            Sent::SyncTo { to, sequence_id } => {
                self.sync_to_sent(cx, index, (to, sequence_id), stamp);
            }
            Sent::DelayReq => self.delay_req_sent(cx, index, token, stamp),
            Sent::Request(server) => self.request_sent(cx, server, token, stamp),
            Sent::Answer => self.answer_sent(cx, token, stamp),
            // The link's.
            Sent::PdelayReq | Sent::PdelayResp => {}
        }
    }

    /// A message for this clock that is not about its link.
    pub(crate) fn message(
        &mut self,
        cx: &mut Cx<'_>,
        received: &Received<'_>,
        message: &Message<'_>,
    ) -> Result<(), Drop> {
        let port = &self.ports[received.index];
        let tells_time =
            matches!(message.body, Body::Announce(_) | Body::Sync { .. } | Body::FollowUp { .. });
        if tells_time && !port.is_capable {
            return Err(Drop::NotCapable);
        }
        if matches!(message.body, Body::Announce(_)) {
            self.refuse_announce()?;
        }
        let port = &self.ports[received.index];
        if matches!(message.body, Body::Signaling { .. }) && port.config.rules.are_gptp() {
            return self.take_interval_request(cx.now, received.index, message);
        }
        if let Some(answered) = self.monitor_request(cx, received, message) {
            return answered;
        }
        let Some(message) = self.negotiate(cx, received, *message)? else { return Ok(()) };
        let message = &message;
        if self.standing.is_some() {
            return self.message_of_either(cx, received, message);
        }
        let header = message.header;
        let is_serving = self.ports[received.index].role.is_serving();
        let is_of_use = match message.body {
            Body::DelayReq { .. } => is_serving,
            Body::Signaling { .. } | Body::Management(_) => false,
            _ => !is_serving,
        };
        if is_serving && !is_of_use {
            return Err(Drop::NotForRole);
        }
        if !limits::is_correction(header.correction.into()) {
            return Err(Drop::Correction);
        }
        if is_serving {
            return self.take_delay_req(cx, received, &header);
        }
        self.message_of_receiver(cx, received, message)
    }

    /// A message for a port that follows, or would like to.
    fn message_of_receiver(
        &mut self,
        cx: &mut Cx<'_>,
        received: &Received<'_>,
        message: &Message<'_>,
    ) -> Result<(), Drop> {
        let Received { index, stamp: rx, .. } = *received;
        let header = message.header;
        match message.body {
            Body::Announce(announce) => {
                self.take_announce(cx, index, &header, announce, message.tlvs)
            }
            Body::Sync { origin_timestamp } => {
                self.take_sync(cx, index, &header, origin_timestamp, rx)
            }
            Body::FollowUp { precise_origin_timestamp } => {
                let tlvs = message.tlvs;
                self.take_follow_up(cx, index, &header, precise_origin_timestamp, tlvs)
            }
            Body::DelayResp { receive_timestamp, requesting_port_identity } => {
                let (at, who) = (receive_timestamp, requesting_port_identity);
                self.take_delay_resp(cx, index, &header, at, who, message.tlvs)
            }
            Body::DelayReq { .. }
            | Body::PdelayReq { .. }
            | Body::PdelayResp { .. }
            | Body::PdelayRespFollowUp { .. }
            | Body::Signaling { .. }
            | Body::Management(_) => Err(Drop::NotForRole),
        }
    }

    pub(crate) fn parent_on(&self, index: usize) -> Option<PortIdentity> {
        self.parent
            .filter(|parent| usize::from(parent.port.0) == index)
            .map(|parent| parent.set.parent_port_identity)
    }

    pub(crate) fn header(&self, index: usize, sequence_id: u16) -> Header {
        let mut header = Header::new(self.ports[index].identity, sequence_id);
        header.sdo_id = self.sdo_id;
        header.minor_version = self.minor_version;
        header.domain_number = self.domain_number;
        header
    }

    pub(crate) fn measured(&mut self, cx: &mut Cx<'_>, index: usize, observation: Observation) {
        let Some(parent) = self.parent else { return };
        let measurement = Measurement {
            port: PortIndex(index as u16),
            epoch: parent.epoch,
            parent: parent.set.parent_port_identity,
            observation,
        };
        self.push(cx.out, Command::Measured(measurement));
    }

    /// How much is stored, for the test that it is bounded.
    #[cfg(test)]
    pub(crate) fn stored(&self) -> usize {
        self.ports.iter().map(Port::stored).sum::<usize>()
            + self.bystanders.len()
            + self.distrusted.len()
    }

    fn start_port(&mut self, cx: &mut Cx<'_>, index: usize, reason: StateReason) {
        if self.is_fixed() {
            self.start_fixed(cx, index, reason);
            return;
        }
        match self.participation {
            Participation::ClientOnly => {
                self.enter(cx, index, Role::Listening, reason);
            }
            Participation::ServerOnly => {
                self.enter(cx, index, Role::Transmitter(Serving::default()), reason);
                self.begin_multicast(cx.now, index);
            }
            Participation::Yielding | Participation::Either => {
                self.listen(cx, index, reason);
            }
        }
    }

    /// The one door between roles: ends what the old one had begun, and tells the change.
    pub(crate) fn enter(&mut self, cx: &mut Cx<'_>, index: usize, role: Role, reason: StateReason) {
        let port = PortIndex(index as u16);
        for timer in PortTimer::OF_ROLES {
            self.timers.cancel((port.0, timer));
        }
        let old = self.ports[index].role.state();
        let new = role.state();
        debug_assert!(old.may_become(new), "{old:?} to {new:?}");
        self.ports[index].role = role;
        self.ports[index].round_trip.clear();
        if old != new {
            self.tell(cx.out, Change::PortState { port, old, new, reason });
        }
    }

    pub(crate) fn tell(&mut self, out: &mut Commands<NoEvent>, change: Change) {
        self.push(out, Command::Changed(change));
    }

    pub(crate) fn count_drop(&mut self, index: usize, cause: Drop) {
        self.ports
            .get_mut(index)
            .map_or(&mut self.stray, |port| &mut port.counters)
            .count_drop(cause);
    }
}

/// Whether a message is one of the common service for the delay of links (16.6). Peers answer by whichever `sdoId` they have, so
/// that an answer is known by what it answers.
fn is_of_link(service: LinkDelayService, kind: MessageType, header: &Header) -> bool {
    let is_answer = matches!(kind, MessageType::PdelayResp | MessageType::PdelayRespFollowUp);
    let is_asked = kind == MessageType::PdelayReq && header.sdo_id == LinkDelayService::SDO_ID;
    service.is_common()
        && header.domain_number == LinkDelayService::DOMAIN_NUMBER
        && (is_answer || is_asked)
}

/// What a node asks of an instance.
impl Instance {
    /// Does what is due.
    pub(crate) fn handle_timeout(&mut self, cx: &mut Cx<'_>) {
        self.last_now = cx.now;
        self.pass_leap(cx);
        self.expire(cx);
        self.ask_due(cx);
        let mut due = Vec::new();
        while let Some(each) = self.timers.pop_due(cx.now) {
            due.push(each);
        }
        // Whatever was due first: by port, and each port's in their order.
        due.sort_unstable();
        for ((port, timer), at) in due {
            let index = usize::from(port);
            self.ports[index].counters.timeouts.count(timer);
            match timer {
                PortTimer::Announce => self.announce_due(cx, index, at),
                PortTimer::Sync => self.sync_due(cx, index, at),
                PortTimer::DelayReq => self.delay_req_due(cx, index),
                PortTimer::AnnounceReceipt => self.announce_receipt_due(cx, index),
                PortTimer::SyncReceipt => self.sync_receipt_due(cx, index),
                PortTimer::Qualification => self.qualification_due(cx, index),
                PortTimer::Decision => self.decide(cx, StateReason::BestTransmitter),
            }
        }
        self.attend_unicast(cx);
    }

    /// When [`Self::handle_timeout`] has something to do.
    pub(crate) fn next_timeout(&self) -> Option<Time<Mono>> {
        let asking = self.asking.as_deref().and_then(Asking::next_timeout);
        let unicast = self.next_unicast();
        [self.timers.next(), self.expiries.next(), asking, unicast].into_iter().flatten().min()
    }
}
