//! The eyes of `observe`: the kernel programs on some interfaces, and their records as packets with
//! the chosen stamp, both directions, general messages too. Nothing is sent and no PTP port is
//! opened. Interfaces may go and come back.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    net::{IpAddr, SocketAddr},
};

use nix::sys::socket::{setsockopt, sockopt::ReceiveTimestampns};
use ptp_common::{
    classify::{Network, Protocol},
    record::{Direction, Hook, Record},
    time::{Duration, Mono, Real, Time},
};
use socket2::{Domain, Socket, Type};
use tokio::time::sleep;

use super::{drive::Outside, io::is_event};
use crate::{
    capture::{
        AttachedHooks, CaptureError, Choice, ClockRelation, EgressJoin, Options, Place, Programs,
        Reach, TcPlace, hook_of, stamp_at,
    },
    engine::{Input, Transmit, address::Address, observer::ObservedPacket},
    security::{Associations, Policy, Totals as Authentication},
    stamp::{Stamp, StampSource},
    sys::clock::monotonic,
    transport::{LinkState, LinkWatch, link_state},
};

/// Between two looks into the ring. Programs do not wake user space, so that is the age that a
/// packet may reach; at 20 ms the default ring holds 400 000 packets per second.
const DRAIN: Duration = Duration::from_millis(20);
/// How long a sent packet waits for the stamp of the tracepoint: a queueing discipline may hold it.
const JOIN_PATIENCE: Duration = Duration::from_millis(200);
/// Between two attempts to attach to an interface that has come back.
const REATTACH: Duration = Duration::from_secs(1);
/// Interface numbers whose names are remembered: an interface that is made anew has another number,
/// and what was seen on the old one is still to be told.
const MAX_NAMES: usize = 256;

/// How to open.
#[derive(Clone, Debug)]
pub struct TapConfig {
    /// Whose packets.
    pub protocol: Protocol,
    /// Names of the interfaces.
    pub interfaces: Vec<String>,
    /// Which receive stamp; nothing can be measured here.
    pub rx_source: Choice,
    /// Which transmit stamp.
    pub tx_source: StampSource,
    /// Size of the ring, bytes.
    pub ring_bytes: Option<u32>,
}

/// Why nothing can be observed.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// No stamps.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// No news of interfaces.
    #[error("cannot watch the interfaces through netlink: {0}")]
    Watch(#[source] io::Error),
    /// No socket to ask for the stack's stamps.
    #[error("cannot ask the kernel for receive timestamps: {0}")]
    StackStamps(#[source] io::Error),
}

/// A packet that passed.
#[derive(Debug)]
pub struct Packet {
    /// Interface, direction, VLAN and message.
    pub(super) record: Record,
    /// The stamp; general messages have one too. `None` where it was lost.
    pub(super) stamp: Option<Stamp>,
    /// The same instant on CLOCK_REALTIME. Without meaning where there is no stamp.
    pub(super) real: Time<Real>,
}

impl Packet {
    /// The same for the observer.
    fn observed(&self) -> ObservedPacket<'_> {
        let Self { record, stamp, real } = self;
        ObservedPacket {
            interface: record.ifindex,
            direction: record.direction,
            vlan: (record.vlan_count > 0).then_some(record.vlan[0] & 0x0fff),
            between: Some((
                address_of(record, &record.source),
                address_of(record, &record.destination),
            )),
            bytes: record.message(),
            stamp: *stamp,
            real: *real,
        }
    }
}

/// One of a record's addresses.
pub(super) fn address_of(record: &Record, octets: &[u8; 16]) -> Address {
    let [a, b, c, d, e, f, ..] = *octets;
    let ip: IpAddr = match record.network {
        Network::Ethernet => return Address::Mac([a, b, c, d, e, f]),
        Network::Ipv4 => [a, b, c, d].into(),
        Network::Ipv6 => (*octets).into(),
    };
    Address::Socket(SocketAddr::new(ip, 0))
}

/// Totals of what went wrong here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct TapCounts {
    /// Received event messages whose records lacked the chosen stamp.
    pub(super) rx_without_stamp: u64,
    /// Sent event messages to which the tracepoints' stamp did not come.
    pub(super) tx_without_stamp: u64,
}

#[derive(Debug)]
struct Port {
    interface: String,
    ifindex: u32,
    /// `None` while the interface is gone.
    hooks: Option<AttachedHooks>,
    state: LinkState,
    reach: Reach,
    last_problem: Option<String>,
}

/// See the module's paragraph.
pub struct Tap {
    config: TapConfig,
    programs: Programs,
    ports: Vec<Port>,
    names: BTreeMap<u32, String>,
    watch: LinkWatch,
    join: EgressJoin,
    counts: TapCounts,
    reattach_at: Option<Time<Mono>>,
    /// Packets that nobody has been told of yet, as of `drained`.
    ready: VecDeque<Packet>,
    drained: Time<Mono>,
    /// Check what is observed.
    keys: Option<Associations>,
    authentication: Authentication,
    /// The last that was refused, in words.
    refused: Option<String>,
    /// Asks for receive stamps and does nothing else: it is this wish that makes the stack stamp
    /// packets. Not bound to any port.
    _wish: Socket,
}

impl Tap {
    /// Loads and attaches the programs, all or nothing. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`TapError`], naming what is missing.
    pub(super) fn open(config: TapConfig) -> Result<Self, TapError> {
        let mut programs = Programs::load(Options {
            protocol: config.protocol,
            ring_bytes: config.ring_bytes,
            xdp: config.rx_source.xdp().filter(|_| config.protocol == Protocol::Ptp),
            xmit: hook_of(config.tx_source) == Some(Hook::Xmit),
            // Nothing would tell that packets do not reach the programs.
            place: TcPlace::InFront,
            ..Options::default()
        })?;
        let watch = LinkWatch::new().map_err(TapError::Watch)?;
        let wish = ask_for_stamps().map_err(TapError::StackStamps)?;
        let mut ports = Vec::new();
        let mut names = BTreeMap::new();
        for interface in &config.interfaces {
            let (hooks, ifindex) = attach(&mut programs, interface)?;
            names.insert(ifindex, interface.clone());
            ports.push(Port {
                interface: interface.clone(),
                ifindex,
                hooks: Some(hooks),
                state: link_state(interface),
                reach: Reach::default(),
                last_problem: None,
            });
        }
        Ok(Self {
            config,
            programs,
            ports,
            names,
            watch,
            join: EgressJoin::default(),
            counts: TapCounts::default(),
            reattach_at: None,
            ready: VecDeque::new(),
            drained: Time::ZERO,
            keys: None,
            authentication: Authentication::default(),
            refused: None,
            _wish: wish,
        })
    }

    /// The interfaces, whether each can be used, and the receive source on it.
    pub(super) fn interfaces(&self) -> impl Iterator<Item = (&str, bool, StampSource)> {
        self.ports.iter().map(|port| (port.interface.as_str(), port.is_up(), self.rx_source(port)))
    }

    /// Name of an interface by its number, also of one that is gone.
    pub(super) fn name(&self, ifindex: u32) -> &str {
        self.names.get(&ifindex).map_or("?", String::as_str)
    }

    /// The receive source in use on an interface: XDP may have become generic.
    pub(super) fn rx_source_of(&self, ifindex: u32) -> StampSource {
        let port = self.ports.iter().find(|port| port.ifindex == ifindex);
        port.map_or(self.received_at(None), |port| self.rx_source(port))
    }

    fn rx_source(&self, port: &Port) -> StampSource {
        self.received_at(port.hooks)
    }

    /// Where nothing is attached, what would be used if all that is wanted were.
    fn received_at(&self, hooks: Option<AttachedHooks>) -> StampSource {
        let wanted = self.config.rx_source;
        let hooks = hooks.unwrap_or(AttachedHooks { tcx: false, xdp: wanted.xdp() });
        wanted.received_at(hooks).unwrap_or(StampSource::Stack)
    }

    /// The transmit source in use.
    pub(super) const fn tx_source(&self) -> StampSource {
        self.config.tx_source
    }

    /// Whether other programs stand in front of ours on some interface, and may keep packets from them.
    pub(super) fn is_displaced(&self) -> bool {
        self.ports.iter().any(|port| port.hooks.is_some() && port.reach.is_behind())
    }

    /// Totals of what went wrong.
    pub(super) const fn counts(&self) -> TapCounts {
        self.counts
    }

    /// Records lost in the kernel because the ring was full.
    pub(super) fn ring_lost(&self) -> u64 {
        self.programs.lost()
    }

    /// Ring entries that were no records.
    pub(super) const fn malformed(&self) -> u64 {
        self.programs.malformed()
    }

    /// Checks messages by these keys from now on, or by none.
    pub(super) fn set_security(&mut self, policy: Option<Policy>) {
        match (&mut self.keys, policy) {
            (Some(keys), Some(policy)) => keys.set_policy(policy),
            (keys, policy) => *keys = policy.map(Associations::new),
        }
    }

    /// What authentication has let pass and dropped; all zero without keys.
    pub(super) const fn authentication(&self) -> (bool, Authentication) {
        (self.keys.is_some(), self.authentication)
    }

    /// The last message that was refused, in words.
    pub(super) fn last_refused(&self) -> Option<String> {
        self.refused.clone()
    }

    /// Whether what has passed may be taken for what it says. A record has room for the beginning of a
    /// message: what is longer cannot be judged and counts as unverified.
    fn is_authentic(&mut self, packet: &Packet) -> bool {
        let Some(keys) = &mut self.keys else { return true };
        let record = &packet.record;
        let place = record.ifindex << 1 | u32::from(record.direction == Direction::Egress);
        let verdict = keys.open(self.drained, place, record.message());
        self.authentication.count(verdict);
        let Err(cause) = verdict else { return true };
        self.refused = Some(format!("{} on {}", cause.name(), self.name(record.ifindex)));
        false
    }

    /// Takes everything out of the ring.
    pub(super) fn drain(&mut self, now: Time<Mono>) {
        self.drained = now;
        let relation = ClockRelation::now();
        let mut packets = Vec::new();
        let tx_source = self.config.tx_source;
        let Self { programs, join, .. } = self;
        programs.drain(|record| match (record.direction, record.hook) {
            (Direction::Ingress, _) => packets.push((record, None)),
            (Direction::Egress, Hook::TcEgress) => match stamp_at(&record, tx_source, &relation) {
                Some(stamp) => packets.push((record, Some(stamp))),
                None => join.push(record),
            },
            (Direction::Egress, Hook::Xmit) => {
                if let Some(packet) = join.join(&record) {
                    packets.push((packet, stamp_at(&record, tx_source, &relation)));
                }
            }
            _ => {}
        });
        while let Some(record) = self.join.give_up(now - JOIN_PATIENCE) {
            packets.push((record, None));
        }
        for (record, mut stamp) in packets {
            if record.direction == Direction::Ingress {
                let source = self.rx_source_of(record.ifindex);
                if hook_of(source) != Some(record.hook) {
                    continue;
                }
                stamp = stamp_at(&record, source, &relation);
            }
            if stamp.is_none() && is_event(record.message()) {
                let count = match record.direction {
                    Direction::Ingress => &mut self.counts.rx_without_stamp,
                    Direction::Egress => &mut self.counts.tx_without_stamp,
                };
                *count += 1;
            }
            let real = relation.real_at(&record, stamp.map_or(now, |stamp| stamp.time));
            self.ready.push_back(Packet { record, stamp, real });
        }
    }

    /// Looks who stands in front of our programs, and attaches these again.
    fn check_places(&mut self, now: Time<Mono>) {
        for port in self.ports.iter_mut().filter(|port| port.hooks.is_some()) {
            let Ok(places) = self.programs.places(port.ifindex) else { continue };
            port.reach.set_behind(places.iter().any(|place| *place != Place::Front));
            if port.reach.wants_again(now) {
                let interface = &port.interface;
                match self.programs.attach_again(port.ifindex) {
                    Ok(()) => tracing::warn!(
                        interface,
                        ?places,
                        "attached again, in front of other programs"
                    ),
                    Err(error) => {
                        tracing::warn!(interface, %error, "cannot attach the programs again");
                    }
                }
            }
        }
    }

    /// Compares what the interfaces are with what they were, and attaches to what has come back.
    pub(super) fn check_links(&mut self, now: Time<Mono>) {
        self.reattach_at = None;
        for port in &mut self.ports {
            let state = link_state(&port.interface);
            let gone = match state {
                LinkState::Missing => true,
                LinkState::Up(ifindex) => ifindex != port.ifindex,
                LinkState::Down => false,
            };
            if gone && port.hooks.take().is_some() {
                self.programs.detach(port.ifindex);
            }
            if port.hooks.is_none() && state != LinkState::Missing {
                match attach(&mut self.programs, &port.interface) {
                    Ok((hooks, ifindex)) => {
                        port.hooks = Some(hooks);
                        port.ifindex = ifindex;
                        port.last_problem = None;
                        if self.names.len() == MAX_NAMES {
                            self.names.pop_first();
                        }
                        self.names.insert(ifindex, port.interface.clone());
                    }
                    Err(error) => {
                        let problem = error.to_string();
                        if port.last_problem.as_ref() != Some(&problem) {
                            let interface = &port.interface;
                            tracing::warn!("{interface} is back but cannot be observed: {problem}");
                            port.last_problem = Some(problem);
                        }
                        self.reattach_at = Some(now + REATTACH);
                    }
                }
            }
            if state != port.state {
                port.state = state;
                let state = match state {
                    LinkState::Up(_) => "up",
                    LinkState::Down => "down",
                    LinkState::Missing => "gone",
                };
                tracing::info!(interface = port.interface, state, "interface");
            }
        }
        self.check_places(now);
    }
}

impl Outside for Tap {
    type Delivery = Packet;

    fn input(packet: &Packet) -> Input<'_> {
        Input::Passed(packet.observed())
    }

    fn next_delivery(&mut self) -> Option<Packet> {
        loop {
            let packet = self.ready.pop_front()?;
            if self.is_authentic(&packet) {
                return Some(packet);
            }
        }
    }

    /// An observer has nothing to send, and nothing to send it with.
    fn transmit(&mut self, _: &Transmit) {}

    /// Until it is time to look into the ring, but no longer than `until`.
    async fn wait(&mut self, until: Time<Mono>) {
        if !self.ready.is_empty() {
            return;
        }
        let now = monotonic();
        let patience = (until.min(now + DRAIN) - now).as_nanos();
        tokio::select! {
            () = self.watch.changed() => self.check_links(monotonic()),
            () = sleep(std::time::Duration::from_nanos(u64::try_from(patience).unwrap_or(0))) => {
                if self.reattach_at.is_some_and(|at| at <= now) {
                    self.check_links(now);
                }
            }
        }
        self.drain(monotonic());
    }
}

impl Port {
    const fn is_up(&self) -> bool {
        matches!(self.state, LinkState::Up(_)) && self.hooks.is_some()
    }
}

fn attach(programs: &mut Programs, interface: &str) -> Result<(AttachedHooks, u32), CaptureError> {
    let hooks = programs.attach_beside_xdp(interface)?;
    let ifindex = nix::net::if_::if_nametoindex(interface)
        .map_err(|_| CaptureError::NoInterface(interface.to_owned()))?;
    Ok((hooks, ifindex))
}

pub(crate) fn ask_for_stamps() -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)
        .or_else(|_| Socket::new(Domain::IPV6, Type::DGRAM, None))?;
    setsockopt(&socket, ReceiveTimestampns, &true)?;
    Ok(socket)
}
