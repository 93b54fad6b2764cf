//! What a node is made of: the product's time receiver, which may serve as well unless the configuration forbids
//! it, over the simulated system clock; and what is around that.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io,
    net::{IpAddr, SocketAddr},
};

use ptp_agent::{
    agent::{
        data_sets::{self, About},
        managing::{Rest, carry_out},
        run::ptp4l_line,
    },
    clock::{
        Clock, ClockScale,
        system::{Keeping, SystemClock},
    },
    engine::{
        Change, Command, Commands, Context, Monotonic, PortIndex, PortState, ReadClock,
        address::Address,
        config::{LinkDelayService, PortConfig, PortPart, ReceiverConfig, TransmitterConfig},
        contention::{Contention, PathTrace},
        discipline::{Discipline, Event, Sample},
        prefix::Prefix,
        receiver::Observation,
        strategy,
        unicast::service::ServiceConfig,
    },
    publish::management::{Access, DataSets, Description, Happening, Place, Responder},
    servo,
};
use ptp_common::{
    classify::PORT_GENERAL,
    data_set::TimeProperties,
    time::{Duration, Mono, Time},
    wire::{
        ClockIdentity, Flags, MessageType, TimeSource,
        management::{ManagementData, ManagementEvent, NetworkProtocol},
    },
};

use crate::{
    clock::{NodeClock, Shared, World},
    drive::{Asker, Door, Drive, Host, Network},
    keys::Keys,
    links::Links,
    relay::Relay,
    settings::{Part, Settings, Stamping},
    simulator::Simulator,
    words::{self, Exchange, say},
};

/// Where the node is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Whereabouts {
    /// Counted from 1.
    pub(crate) node: u32,
    /// When the simulated CLOCK_REALTIME is 0, seconds since 1970.
    pub(crate) epoch_s: u64,
    /// Where local sockets are.
    pub(crate) unix_subnet: Option<u32>,
}

/// `sdoId` of IEEE 802.1AS.
const GPTP: u16 = 0x100;
/// All nodes are here, by address and mask.
const NETWORK: [[u8; 4]; 2] = [[192, 168, 0, 0], [255, 255, 0, 0]];
/// The local socket that may change something.
const READ_WRITE: u32 = 1;
/// Of the clock that a node is to set, as the simulator tells it to whoever asks: 0 is the reference.
const PHC_INDEX: i32 = 1;
/// A simulated local socket holds one message for a node that sleeps, as phc2sys does for a second, and the simulator drops
/// the next, where a real one keeps all: changes of state that follow each other at once are told as one, and the
/// others so far apart.
const AT_ONCE: Duration = Duration::from_millis(10);
const BETWEEN_STATES: Duration = Duration::from_millis(1_050);
/// Where Management is counted.
const MANAGEMENT: usize = MessageType::Management as usize;
/// Where a Management message says which port is to answer (table 41), and that all are.
const TARGET_PORT: std::ops::Range<usize> = 42..44;
const ALL_PORTS: [u8; 2] = [0xff, 0xff];

/// Runs until the simulation is over.
///
/// # Errors
/// What the server says, or the clock.
pub(crate) fn run(simulator: Simulator, settings: &Settings, place: Whereabouts) -> io::Result<()> {
    let subnets: Vec<u32> = settings
        .interfaces
        .iter()
        .map(|name| {
            let digits = name.trim_start_matches(|letter: char| !letter.is_ascii_digit());
            digits.parse().map_err(|_| io::Error::other(format!("{name} is in no subnet")))
        })
        .collect::<io::Result<_>>()?;
    let shared = Shared::new(World::new(simulator, place.epoch_s)?);
    let subnet = subnets.first().map_or(0, |subnet| subnet.to_be_bytes()[3]);
    let [.., node] = place.node.to_be_bytes();
    let identity = ClockIdentity::from_mac([0x12, 0x34, 0x56, 0x78, subnet.wrapping_add(1), node]);
    let count = u16::try_from(subnets.len()).unwrap_or(u16::MAX);
    let relay = settings
        .is_transparent()
        .then(|| Relay::new(count, settings.delay_mechanism(), settings.has_circles()));
    let network = Network {
        shared: shared.clone(),
        subnets,
        unix_subnet: place.unix_subnet,
        stamping: settings.stamping,
        stamps: VecDeque::new(),
        relay,
        keys: settings.signing().map(Keys::new).transpose().map_err(io::Error::other)?,
    };
    follow(network, settings, identity, place)
}

fn ports(settings: &Settings) -> Vec<PortConfig> {
    let defaults = PortConfig::default();
    let port = |interface: &String| PortConfig {
        delay_mechanism: settings.delay_mechanism(),
        delay_asymmetry: settings.delay_asymmetry(),
        assume_two_step: settings.assume_two_step(),
        log_announce_interval: settings.log_interval("log-announce-interval", 1),
        log_min_delay_req_interval: settings.log_interval("log-min-delay-req-interval", 0),
        log_min_pdelay_req_interval: settings.missing("logMinPdelayReqInterval", 0),
        announce_receipt_timeout: settings
            .missing("announceReceiptTimeout", defaults.announce_receipt_timeout),
        sync_receipt_timeout: settings.missing("syncReceiptTimeout", 0),
        part: match settings.part_of(interface) {
            Part::Any => PortPart::Either,
            Part::Transmitter => PortPart::Transmitter,
            Part::Receiver => PortPart::Receiver,
        },
        local_priority: settings.local_priority_of(interface),
        unicast: settings.asking(),
        hybrid: settings.is_hybrid(),
        link_delay: match settings.link_server() {
            Some(_) => LinkDelayService::Told,
            None => LinkDelayService::Instance,
        },
        rules: settings.rules(),
        when_locked: settings.when_locked(),
        ..PortConfig::default()
    };
    settings.interfaces.iter().map(port).collect()
}

/// How it serves; `None` where it never does.
fn contention(settings: &Settings, identity: ClockIdentity) -> Option<Contention> {
    if settings.is_receiver_only() {
        return None;
    }
    let flags = match settings.stamping {
        Stamping::Hardware => Flags::PTP_TIMESCALE,
        Stamping::Software => Flags(0),
    };
    let source = TimeSource::INTERNAL_OSCILLATOR;
    let mut transmitter = TransmitterConfig {
        priority1: settings.rank("priority1", 128),
        priority2: settings.rank("priority2", 128),
        log_announce_interval: settings.log_interval("log-announce-interval", 1),
        log_sync_interval: settings.log_interval("log-sync-interval", 0),
        log_min_delay_req_interval: settings.log_interval("log-min-delay-req-interval", 0),
        time_properties: TimeProperties::told(settings.utc_offset(), flags, source),
        unicast: settings.grants().then(ServiceConfig::default),
        multicast: settings.serves_all(),
        ..TransmitterConfig::new(identity)
    };
    transmitter.clock_quality.clock_class = settings.rank("clock-class", 248);
    let is_traced = settings.missing("path_trace_enabled", 0_u8) == 1;
    Some(Contention {
        max_steps_removed: settings.missing("maxStepsRemoved", 255),
        path_trace: if is_traced { PathTrace::On } else { PathTrace::Off },
        before_lock: settings.before_lock(),
        local_priority: settings.local_priority(),
        ..Contention::new(transmitter)
    })
}

fn follow(
    network: Network,
    settings: &Settings,
    identity: ClockIdentity,
    place: Whereabouts,
) -> io::Result<()> {
    let shared = network.shared.clone();
    let now = shared.world().now();
    let config = ReceiverConfig {
        domain_number: settings.domain_number(),
        ports: ports(settings),
        strategy: strategy::Choice::default(),
        max_clock_class: settings.max_clock_class(),
        sdo_id: if settings.rules().are_gptp() { GPTP } else { 0 },
        contention: contention(settings, identity),
        ..ReceiverConfig::new(identity, u64::from(place.node))
    };
    let scale = match settings.stamping {
        Stamping::Hardware => ClockScale::Ptp,
        Stamping::Software => ClockScale::Utc,
    };
    let system = SystemClock::take_over(Box::new(shared.clone()), settings.limits(), None)
        .map_err(io::Error::other)?;
    let choice = settings.servo().map_err(io::Error::other)?;
    let servo = servo::build(&choice, &settings.options());
    let (mut commands, read) = (Commands::default(), Monotonic::default());
    let mut cx = Context { now, clock: &read, out: &mut commands };
    let mut engine =
        Discipline::new(config, servo, NodeClock::new(system, scale, settings.steering()), &mut cx);
    let [address, mask] = NETWORK.map(IpAddr::from);
    let networks: Vec<Prefix> = Prefix::of(address, mask).into_iter().collect();
    if settings.is_monitored() {
        let own = settings.interfaces.iter().map(|name| {
            let ip = address_in(subnet_of(name), place.node.to_be_bytes()[3]);
            Some(Address::Socket(SocketAddr::new(ip.into(), PORT_GENERAL)))
        });
        engine.instance_mut().set_monitored(now, Some(networks.clone()), own.collect());
    }
    engine.set_networks(networks);
    for port in 0..settings.interfaces.len() {
        let port = PortIndex(u16::try_from(port).unwrap_or(u16::MAX));
        engine.instance_mut().set_power_profile(port, settings.power_profile());
    }
    for (number, address) in (0..).zip(settings.servers()) {
        for port in 0..settings.interfaces.len() {
            let port = PortIndex(u16::try_from(port).unwrap_or(u16::MAX));
            engine.set_partner(&mut cx, port, number, Some(address));
        }
    }
    let mut follower = Follower {
        shared,
        clock: read,
        identity,
        is_verbose: settings.is_verbose(),
        sample: None,
        sync_interval: None,
        exchange: Exchange::default(),
        about: about(settings, place),
        responders: BTreeMap::new(),
        notices: Vec::new(),
        answers: BTreeMap::new(),
        changed: BTreeSet::new(),
        tell_at: None,
        told: None,
        links: Links::new(settings, identity, place.unix_subnet),
    };
    Drive { network, engine, commands }.run(&mut follower)
}

/// The number of an interface is that of its subnet.
fn subnet_of(interface: &str) -> u8 {
    let digits = interface.trim_start_matches(|letter: char| !letter.is_ascii_digit());
    digits.parse().unwrap_or(0)
}

const fn address_in(subnet: u8, node: u8) -> [u8; 4] {
    [192, 168, subnet.wrapping_add(123), node]
}

/// What the simulator gives a node: addresses by subnet and number, and the same number to each node's own clock.
fn about(settings: &Settings, whereabouts: Whereabouts) -> About {
    let [.., node] = whereabouts.node.to_be_bytes();
    let place = |interface: &String| {
        let subnet = subnet_of(interface);
        let mac = [0x12, 0x34, 0x56, 0x78, subnet.wrapping_add(1), node];
        Place {
            interface: interface.clone(),
            physical_address: mac.to_vec(),
            protocol: NetworkProtocol::UDP_IPV4,
            protocol_address: address_in(subnet, node).to_vec(),
            phc_index: (settings.stamping == Stamping::Hardware).then_some(PHC_INDEX),
        }
    };
    About {
        places: settings.interfaces.iter().map(place).collect(),
        // As ptp4l describes itself where nobody has said anything.
        description: Description {
            product: ";;".into(),
            revision: ";;".into(),
            user: String::new(),
        },
        ..About::default()
    }
}

/// What is around a time receiver.
struct Follower {
    shared: Shared,
    clock: Monotonic,
    identity: ClockIdentity,
    is_verbose: bool,
    sample: Option<Sample>,
    sync_interval: Option<Duration>,
    exchange: Exchange,
    about: About,
    responders: BTreeMap<Door, Responder<Asker>>,
    notices: Vec<(Asker, Vec<u8>)>,
    /// Management messages that ports have sent: the engine, which counts all others, sends none.
    answers: BTreeMap<PortIndex, u64>,
    /// Ports whose state may be another one than was told.
    changed: BTreeSet<PortIndex>,
    /// When that is to be told, and when it was told last.
    tell_at: Option<Time<Mono>>,
    told: Option<Time<Mono>>,
    /// Those that another node measures.
    links: Option<Links>,
}

impl Host<Discipline<NodeClock>> for Follower {
    fn clock(&self) -> &dyn ReadClock {
        &self.clock
    }

    fn refresh(&mut self, engine: &mut Discipline<NodeClock>, now: Time<Mono>) {
        let real_minus_mono = self.shared.world().real_minus_mono();
        engine.clock_mut().system.read(now, real_minus_mono);
    }

    fn told(
        &mut self,
        engine: &mut Discipline<NodeClock>,
        now: Time<Mono>,
        command: &Command<Event>,
    ) {
        match command {
            Command::Measured(measurement) => {
                if let Observation::Sync(sync) = measurement.observation {
                    self.sync_interval = sync.log_interval.map(Duration::from_log_interval);
                }
                if let Some(raw) = self.exchange.measured(measurement)
                    && self.is_verbose
                {
                    let filtered = self.sample.map_or(raw, |sample| sample.delay);
                    let (filtered, raw) = (filtered.as_nanos(), raw.as_nanos());
                    say(now, format_args!("delay   filtered {filtered:10}   raw {raw:10}"));
                }
            }
            Command::Event(Event::Sample(sample)) => {
                self.sample = Some(*sample);
                let at = engine.domain_time(sample.mono);
                engine.instance_mut().note_measured(sample.offset, sample.delay, at);
                self.happen(now, engine, ManagementEvent::TimeSync, None);
                words::print(ptp4l_line(sample));
            }
            Command::Event(Event::Adjusted { stepped: Some(by), .. }) => {
                say(now, format_args!("clock stepped by {} ns", by.as_nanos()));
            }
            Command::Event(Event::ClockError(error)) => say(now, error),
            Command::Event(Event::ServoState { old, new }) => {
                say(now, format_args!("servo {} to {}", old.name(), new.name()));
            }
            Command::Changed(Change::Parent(parent)) => {
                let best = parent.map(|parent| parent.set.grandmaster_identity);
                say(now, words::selected(self.identity, best));
                self.happen(now, engine, ManagementEvent::ParentDataSet, None);
            }
            Command::Changed(Change::PortState { port, old, new, .. }) => {
                port_state(now, *port, *old, *new);
                self.changed.insert(*port);
                let earliest = self.told.map_or(now, |at| at + BETWEEN_STATES);
                self.tell_at = Some(earliest.max(now + AT_ONCE));
                if *new == PortState::TimeTransmitter && engine.receiver().parent().is_none() {
                    say(now, words::selected(self.identity, None));
                }
            }
            Command::Event(_) | Command::Send(_) | Command::Witnessed(_) => {}
        }
    }

    fn housekeep(&mut self, engine: &mut Discipline<NodeClock>, now: Time<Mono>) -> io::Result<()> {
        self.notices.extend(self.links.iter_mut().flat_map(Links::ask));
        let state = engine.servo().state();
        let trust = engine.trust(now);
        // A card's clock is on the PTP time scale, or on that of whom it follows: nothing orders leap seconds for it.
        let is_utc = engine.clock().scale() == ClockScale::Utc;
        let parent = engine.receiver().parent().filter(|_| is_utc);
        let properties = parent.map(|parent| parent.time_properties);
        let clock = &mut engine.clock_mut().system;
        while let Some(by) = clock.next_foreign_step() {
            say(now, format_args!("somebody else has stepped the clock by {} ns", by.as_nanos()));
        }
        let keeping = Keeping {
            now,
            state,
            precision: trust.map(|trust| trust.precision),
            error_bound: trust.map(|trust| trust.bound),
            time_properties: properties.as_ref(),
        };
        clock.keep(keeping).map_err(io::Error::other)
    }

    fn manage(
        &mut self,
        engine: &mut Discipline<NodeClock>,
        (now, out): (Time<Mono>, &mut Commands<Event>),
        request: &[u8],
        from: Asker,
    ) -> Vec<Vec<u8>> {
        let told = self.links.as_mut().and_then(|links| links.told(now, request));
        if let Some((port, command)) = told {
            let mut cx = Context { now, clock: &self.clock, out };
            engine.manage_port(&mut cx, port, command);
            return Vec::new();
        }
        let mut sets = self.data_sets(engine);
        if let Door::Port(port) = from.door
            && let Some(of_port) = sets.ports.get_mut(usize::from(port.0))
            && is_to_all_ports(request)
        {
            // Those before it have answered by then, and through this port.
            of_port.stats.sent[MANAGEMENT] += u64::from(port.0);
        }
        let answer = self.responder(from.door).answer(now, request, &from, &sets);
        if let Door::Port(port) = from.door {
            *self.answers.entry(port).or_default() += answer.messages.len() as u64;
        }
        let Some(setting) = answer.setting else { return answer.messages };
        let rest = carry_out(setting, now, engine.instance_mut(), &mut self.about);
        let mut cx = Context { now, clock: &self.clock, out };
        for each in rest {
            match each {
                Rest::Port(port, command) => engine.manage_port(&mut cx, port, command),
                // Stamps have none here, but what was said is told.
                Rest::Latencies { ingress, egress } => self.about.latencies = (egress, ingress),
            }
        }
        answer.messages
    }

    fn due(&self) -> Option<Time<Mono>> {
        self.tell_at
    }

    /// Whoever has subscribed is told which ports may have other states than they had.
    fn tell(&mut self, engine: &Discipline<NodeClock>, now: Time<Mono>) {
        (self.tell_at, self.told) = (None, Some(now));
        for port in std::mem::take(&mut self.changed) {
            self.happen(now, engine, ManagementEvent::PortState, Some(port));
        }
    }

    fn notices(&mut self) -> Vec<(Asker, Vec<u8>)> {
        std::mem::take(&mut self.notices)
    }
}

impl Follower {
    fn data_sets(&self, engine: &Discipline<NodeClock>) -> DataSets {
        let sample = self.sample.as_ref();
        let mut sets = data_sets::of_client(engine, sample, self.sync_interval, &self.about);
        for (port, count) in &self.answers {
            if let Some(port) = sets.ports.get_mut(usize::from(port.0)) {
                port.stats.sent[MANAGEMENT] = *count;
            }
        }
        sets
    }

    /// What is answered with what comes through a door: ptp4l has two local sockets, and takes settings by one of them
    /// alone.
    fn responder(&mut self, door: Door) -> &mut Responder<Asker> {
        self.responders.entry(door).or_insert_with(|| match door {
            Door::Unix(READ_WRITE) => Responder::new(Access::ReadWrite, 0),
            Door::Unix(_) => Responder::new(Access::Public, 0),
            Door::Port(port) => Responder::new(Access::Public, port.number()),
        })
    }

    /// Something happens: whoever has subscribed is told of it.
    fn happen(
        &mut self,
        now: Time<Mono>,
        engine: &Discipline<NodeClock>,
        event: ManagementEvent,
        port: Option<PortIndex>,
    ) {
        let door = Door::Unix(READ_WRITE);
        if self.responder(door).wanted(now) & 1 << event as u8 == 0 {
            return;
        }
        let sets = self.data_sets(engine);
        let of_port = port.and_then(|port| sets.ports.get(usize::from(port.0)));
        let data = match (event, of_port) {
            (ManagementEvent::TimeSync, _) => ManagementData::TimeStatus(sets.time_status),
            (ManagementEvent::ParentDataSet, _) => ManagementData::Parent(sets.parent),
            (ManagementEvent::PortState, Some(port)) => ManagementData::Port(port.data),
            (ManagementEvent::Cmlds, Some(port)) => ManagementData::Cmlds(port.link),
            (ManagementEvent::PortState | ManagementEvent::Cmlds, None) => return,
        };
        let port_number = port.map_or(0, PortIndex::number);
        let happening = Happening { event, port_number, data };
        let told = self.responder(door).tell(now, &happening, &sets);
        self.notices.extend(told);
    }
}

fn is_to_all_ports(request: &[u8]) -> bool {
    request.get(TARGET_PORT) == Some(&ALL_PORTS[..])
}

fn port_state(now: Time<Mono>, port: PortIndex, old: PortState, new: PortState) {
    let (number, old, new) = (port.number(), old.name(), new.name());
    say(now, format_args!("port {number}: {old} to {new}"));
}
