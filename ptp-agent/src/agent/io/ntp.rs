//! The hands for NTP: sockets of the servers that are asked and of the port that is served, and programs of their own that
//! stamp what passes through them. To engines it is what [`Io`] is. Where packets do not pass an interface with
//! programs, the kernel's stamps stand in: the stack's on the way in, the driver's on the way out.
//!
//! Each request leaves by a socket of its own, so that its source port is one that nobody can guess (RFC 9109), and
//! that takes packets of that server only. What carries its packets, and what protects them, is the peer's: the engine
//! sees headers of NTP.

mod held;
mod outside;
mod peer;
mod protection;
mod sending;

use std::{
    net::{IpAddr, SocketAddr},
    sync::mpsc,
};

use held::Held;
use ptp_common::{classify::Protocol, ntp::over_ptp};
use socket2::Socket;
use tokio::io::unix::AsyncFd;

use super::{desk::Side, interface::rx_selector, interface::tx_selector, *};
use crate::{
    capture::Asked,
    engine::{
        Datagram,
        ntp::{Exchange, NtpEvent},
    },
    transport::{driver_stamp, ntp as socket},
};
use peer::{Found, Peer};
use protection::Given;
use sending::{Listener, Sending, is_waited_for};

pub use peer::{NtpCarrier, NtpPeer, NtsServer};

/// Requests that are taken from the sockets in one go.
const AT_ONCE: usize = 64;
/// Stamps of the driver that nobody has asked for yet.
const STRAYS: usize = 64;

/// How to open.
#[derive(Clone, Debug, Default)]
pub struct NtpIoConfig {
    /// Names of the interfaces where packets are stamped.
    pub interfaces: Vec<String>,
    /// Servers that are asked.
    pub peers: Vec<NtpPeer>,
    /// Number of the first one's port; those of interfaces that are served begin with 0.
    pub base: u16,
    /// Whether requests are answered on these interfaces.
    pub serves: bool,
    /// Which receive stamp.
    pub rx_source: Choice,
    /// Which transmit stamp.
    pub tx_source: Choice,
    /// Whether packets may be primed.
    pub prime: PrimeMode,
    /// Size of the ring, bytes.
    pub ring_bytes: Option<u32>,
    /// Between the wire and the receive stamp; subtracted.
    pub ingress_latency: Latencies,
    /// Between the transmit stamp and the wire; added.
    pub egress_latency: Latencies,
}

/// An interface where packets are stamped.
#[derive(Debug)]
struct Place {
    protocol: Protocol,
    interface: String,
    ifindex: u32,
    rx: Side,
    tx: Side,
    primer: Primer,
    brackets: [Bracket; 2],
    /// When the latest answer was sent there.
    answered: Option<Time<Mono>>,
}

impl Place {
    /// Whether the stack's stamp, which the socket has, is all that is wanted of what is received.
    fn is_content_with_sockets(&self) -> bool {
        self.rx.selector.chosen() == StampSource::Stack
    }
}

#[derive(Debug)]
struct Waiting {
    until: Time<Mono>,
    port: PortIndex,
    place: Option<usize>,
    bytes: Vec<u8>,
    source: Option<SocketAddr>,
    local: Option<IpAddr>,
    stack: Option<Stamp>,
    token: Option<SentToken>,
    sending: Sending,
}

/// What went wrong. Totals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NtpIoCounts {
    /// Could not be sent.
    pub send_errors: u64,
    /// Could not be received.
    pub receive_errors: u64,
    /// Longer than any packet of NTP.
    pub oversized: u64,
    /// Came while too many waited for stamps.
    pub overrun: u64,
    /// Answers of which nobody has looked when they left, because too many requests waited.
    pub untracked: u64,
    /// Answers and requests without a stamp of the programs.
    pub kernel_stamps: u64,
}

/// See the module's paragraphs.
pub struct NtpIo {
    config: NtpIoConfig,
    programs: Vec<(Protocol, Programs)>,
    places: Vec<Place>,
    peers: Vec<Peer>,
    /// Those that are served, and which interface they are on.
    listeners: Vec<Listener>,
    waiting_rx: VecDeque<Waiting>,
    waiting_tx: VecDeque<Waiting>,
    ready: VecDeque<(Delivery, Option<IpAddr>)>,
    /// To which address the request came that was delivered last.
    local: Option<IpAddr>,
    strays: VecDeque<(Vec<u8>, Stamp)>,
    held: Held,
    drained: Time<Mono>,
    socket_stamps: SocketStamps,
    timer: Timer,
    buffer: Box<[u8; MAX_MESSAGE]>,
    counts: NtpIoCounts,
    /// Addresses of names that were looked up again.
    found: (mpsc::Sender<Found>, mpsc::Receiver<Found>),
    /// Keys of NTS that were asked for.
    given: (mpsc::Sender<Given>, mpsc::Receiver<Given>),
}

impl NtpIo {
    /// Loads and attaches the programs, and opens the sockets of a server. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`IoError`], each naming what is missing. That packets cannot be stamped by programs is none for who only asks.
    pub fn open(config: NtpIoConfig) -> Result<Self, IoError> {
        let mut programs = Vec::new();
        let mut places = Vec::new();
        let mut listeners = Vec::new();
        for protocol in [Protocol::Ntp, Protocol::Ptp] {
            let is_asked_so = config.peers.iter().any(|peer| peer.carrier.protocol() == protocol);
            let is_needed = is_asked_so || config.serves && protocol == Protocol::Ntp;
            if !is_needed {
                continue;
            }
            let loaded = Programs::load(Options {
                protocol,
                ring_bytes: config.ring_bytes,
                xmit: !config.tx_source.is(StampSource::TcEgress),
                place: TcPlace::InFront,
                ..Options::default()
            });
            let mut loaded = match loaded {
                Ok(loaded) => loaded,
                Err(error) if config.serves => return Err(error.into()),
                Err(error) => {
                    tracing::warn!(%error, "packets of NTP are stamped by the kernel alone");
                    continue;
                }
            };
            for interface in &config.interfaces {
                let hooks = loaded.attach(interface)?;
                let ifindex = nix::net::if_::if_nametoindex(interface.as_str()).unwrap_or(0);
                places.push(Place {
                    protocol,
                    interface: interface.clone(),
                    ifindex,
                    rx: Side::new(rx_selector(without_xdp(config.rx_source), hooks)),
                    tx: Side::new(tx_selector(config.tx_source)),
                    primer: Primer::new(config.prime, interface),
                    brackets: Default::default(),
                    answered: None,
                });
                if config.serves {
                    for socket in socket::listen(interface)? {
                        listeners.push(Listener::new(places.len() - 1, socket));
                    }
                }
            }
            programs.push((protocol, loaded));
        }
        let peers = config.peers.iter().map(|peer| Peer::new(peer, &places));
        let attempt = "read random numbers";
        let peers = peers.collect::<io::Result<_>>();
        let peers = peers.map_err(|source| IoError::Os { attempt, source })?;
        Ok(Self {
            config,
            programs,
            places,
            peers,
            listeners,
            waiting_rx: VecDeque::new(),
            waiting_tx: VecDeque::new(),
            ready: VecDeque::new(),
            local: None,
            strays: VecDeque::new(),
            held: Held::default(),
            drained: Time::ZERO,
            socket_stamps: SocketStamps::default(),
            timer: Timer::new().map_err(IoError::Timer)?,
            buffer: Box::new([0; MAX_MESSAGE]),
            counts: NtpIoCounts::default(),
            found: mpsc::channel(),
            given: mpsc::channel(),
        })
    }

    /// What a port is called: its interface, or the server's name.
    pub fn name(&self, port: PortIndex) -> &str {
        match self.peer(port) {
            Some(at) => &self.peers[at].name,
            None => self.places.get(usize::from(port.0)).map_or("?", |place| &place.interface),
        }
    }

    /// Interface of a port, where its packets pass one with programs.
    pub fn interface(&self, port: PortIndex) -> Option<&str> {
        let at = match self.peer(port) {
            Some(at) => self.peers[at].place?,
            None => usize::from(port.0),
        };
        self.places.get(at).map(|place| place.interface.as_str())
    }

    /// Interface and name of each server that is asked.
    pub fn asked(&self) -> impl Iterator<Item = (&str, &str)> {
        self.peers.iter().map(|peer| {
            let place = peer.place.and_then(|at| self.places.get(at));
            (place.map_or("?", |place| place.interface.as_str()), peer.name.as_str())
        })
    }

    /// Number of the port of the first server that is asked.
    pub const fn first_port(&self) -> u16 {
        self.config.base
    }

    /// Totals of what went wrong.
    pub const fn counts(&self) -> NtpIoCounts {
        self.counts
    }

    /// Records lost in the kernel because the ring was full.
    pub fn ring_lost(&self) -> u64 {
        self.programs.iter().map(|(_, programs)| programs.lost()).sum()
    }

    /// Totals of the receive and transmit stamps of an interface.
    pub fn stamp_counts(&self) -> impl Iterator<Item = (&str, SideCounts, SideCounts)> {
        self.places
            .iter()
            .map(|place| (place.interface.as_str(), place.rx.counts(), place.tx.counts()))
    }

    /// The other end has told when it received and sent: now the noise of the capture points can be compared. Or it
    /// does not answer, and its name may lead elsewhere by now.
    pub fn heard(&mut self, event: &NtpEvent) {
        if let NtpEvent::Unreachable(with) = event {
            self.find_again(usize::from(with.0));
        }
        let NtpEvent::Exchange(Exchange { with, t1, t2, t3, t4, .. }) = event else { return };
        let Some(at) = self.peers.get(usize::from(with.0)).and_then(|peer| peer.place) else {
            return;
        };
        let place = &mut self.places[at];
        let ptp = |time: Time<ptp_common::time::Real>| Time::from_epoch(time.since_epoch());
        let switches = [
            t4.packet.and_then(|packet| place.rx.selector.learn(packet, ptp(*t3))),
            t1.packet.and_then(|packet| place.tx.selector.learn(packet, ptp(*t2))),
        ];
        for Switch { from, to, .. } in switches.into_iter().flatten() {
            let interface = &place.interface;
            tracing::info!(interface, from = from.name(), to = to.name(), "capture point for NTP");
        }
    }

    fn peer(&self, port: PortIndex) -> Option<usize> {
        let at = usize::from(port.0.checked_sub(self.config.base)?);
        (at < self.peers.len()).then_some(at)
    }

    fn received(
        &mut self,
        now: Time<Mono>,
        relation: &ClockRelation,
        (port, place): (PortIndex, Option<usize>),
        got: socket::Got,
    ) {
        if got.length > MAX_MESSAGE {
            self.counts.oversized += 1;
            return;
        }
        let stack = self.socket_stamps.stamp(now, relation, got.stack);
        let source = match self.peer(port) {
            // The engine knows it by another address where it has moved.
            Some(at) if got.source == Some(self.peers[at].address) => Some(self.peers[at].known),
            _ => got.source,
        };
        if self.peer(port).is_none()
            && let Some(stack) = stack
            && let Some(place) = place.and_then(|at| self.places.get_mut(at))
            && place.is_content_with_sockets()
        {
            // No record of the programs says more.
            *place.rx.matched.entry(StampSource::Stack).or_default() += 1;
            let latency = self.config.ingress_latency.of(place.rx.selector.reference());
            let stamp = Some(Stamp { time: stack.time - latency, ..stack });
            let (bytes, source) = (self.buffer[..got.length].to_vec(), source.map(Address::Socket));
            self.ready.push_back((Delivery::Message { port, bytes, stamp, source }, got.local));
            return;
        }
        if self.waiting_rx.len() == WAITING {
            self.counts.overrun += 1;
            return;
        }
        self.waiting_rx.push_back(Waiting {
            until: now + RX_PATIENCE,
            port,
            place,
            bytes: self.buffer[..got.length].to_vec(),
            source,
            local: got.local,
            stack,
            token: None,
            sending: Sending::default(),
        });
    }

    /// Takes what is in the sockets.
    fn read(&mut self) {
        let now = monotonic();
        let relation = ClockRelation::now();
        for at in 0..self.peers.len() {
            let port = PortIndex(self.config.base.saturating_add(at as u16));
            while let Some(socket) = &self.peers[at].socket {
                match socket::receive(socket, &mut self.buffer) {
                    Ok(got) => {
                        self.peers[at].asked = None;
                        self.received(now, &relation, (port, self.peers[at].place), got);
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => {
                        self.counts.receive_errors += 1;
                        tracing::debug!(server = self.peers[at].name, %error, "receive");
                        break;
                    }
                }
            }
        }
        for at in 0..self.listeners.len() {
            for _ in 0..AT_ONCE {
                let Listener { place, socket, .. } = &self.listeners[at];
                let place = *place;
                match socket::receive(socket, &mut self.buffer) {
                    Ok(got) => {
                        let at = (PortIndex(place as u16), Some(place));
                        self.received(now, &relation, at, got);
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => {
                        self.counts.receive_errors += 1;
                        tracing::debug!(%error, "receive");
                        break;
                    }
                }
            }
        }
    }

    /// Reads the ring and serves those who wait.
    fn look(&mut self, now: Time<Mono>) {
        self.take_keys(now);
        self.drain(now);
        for _ in 0..self.waiting_rx.len() {
            let Some(waiting) = self.waiting_rx.pop_front() else { break };
            match self.find(&waiting, now) {
                Some(stamp) => {
                    let Waiting { port, bytes, source, local, .. } = waiting;
                    let Some(bytes) = self.unwrapped(port, bytes) else { continue };
                    let source = source.map(Address::Socket);
                    self.ready.push_back((Delivery::Message { port, bytes, stamp, source }, local));
                }
                None => self.waiting_rx.push_back(waiting),
            }
        }
        for _ in 0..self.waiting_tx.len() {
            let Some(waiting) = self.waiting_tx.pop_front() else { break };
            match (self.find(&waiting, now), waiting.token) {
                (Some(stamp), Some(token)) => {
                    self.ready.push_back((Delivery::TxStamp { token, stamp }, None));
                }
                _ => self.waiting_tx.push_back(waiting),
            }
        }
    }

    fn drain(&mut self, now: Time<Mono>) {
        self.drained = now;
        let relation = ClockRelation::now();
        let is_asking = !self.peers.is_empty();
        let waiting = &self.waiting_tx;
        let places = &mut self.places;
        for (protocol, programs) in &mut self.programs {
            programs.drain(|record| {
                let mut places = places.iter_mut().filter(|it| it.protocol == *protocol);
                if record.hook == Hook::Xmit {
                    let points = [StampSource::XmitDone, StampSource::StartXmit];
                    let stamps = points.map(|point| stamp_at(&record, point, &relation));
                    places.any(|it| {
                        let pairing = &mut it.tx.pairing;
                        let stamps = stamps.into_iter().flatten();
                        stamps.fold(false, |is_its, stamp| {
                            pairing.amend(record.serial, stamp) | is_its
                        })
                    });
                    return;
                }
                // PTP itself is somebody else's.
                if *protocol == Protocol::Ptp && record.message().get(4) != Some(&over_ptp::DOMAIN)
                {
                    return;
                }
                let Some(place) = places.find(|it| it.ifindex == record.ifindex) else { return };
                let is_wanted = match record.direction {
                    Direction::Egress => is_waited_for(waiting, record.message()),
                    Direction::Ingress => !place.is_content_with_sockets(),
                };
                if !is_asking && !is_wanted {
                    return;
                }
                let mut stamps = Candidates::default();
                let (points, side): (&[_], _) = match record.direction {
                    Direction::Egress => (&[StampSource::TcEgress], &mut place.tx),
                    Direction::Ingress => {
                        (&[StampSource::Stack, StampSource::TcIngress], &mut place.rx)
                    }
                };
                for point in points {
                    stamp_at(&record, *point, &relation).into_iter().for_each(|it| stamps.add(it));
                }
                let serial = if record.direction == Direction::Egress { record.serial } else { 0 };
                side.pairing.push(now, record.ifindex, record.message(), serial, stamps);
            });
        }
        for place in places {
            place.rx.pairing.expire(now);
            place.tx.pairing.expire(now);
        }
        for peer in &self.peers {
            let Some(socket) = peer.socket.as_ref().filter(|_| peer.place.is_none()) else {
                continue;
            };
            let next = match peer.carrier {
                NtpCarrier::Udp => driver_stamp::next_ntp,
                NtpCarrier::Ptp => driver_stamp::next,
            };
            while let Some((message, real)) = next(socket.get_ref(), &mut self.buffer) {
                let stamp = Stamp::new(relation.mono_at(real), StampSource::DriverSoftware);
                if self.strays.len() == STRAYS {
                    self.strays.pop_front();
                }
                self.strays.push_back((message.to_vec(), stamp));
            }
        }
    }

    fn stray(&mut self, message: &[u8]) -> Option<Stamp> {
        let at = self.strays.iter().position(|(other, _)| other.as_slice() == message)?;
        Some(self.strays.remove(at)?.1)
    }

    /// The stamp, or `Some(None)` where there will be none; `None` while it may still come.
    fn find(&mut self, waiting: &Waiting, now: Time<Mono>) -> Option<Option<Stamp>> {
        let sent = waiting.token.is_some();
        let given_up = now >= waiting.until;
        let Some(place) = waiting.place.and_then(|at| self.places.get_mut(at)) else {
            let stamp = if sent { self.stray(&waiting.bytes) } else { waiting.stack };
            if stamp.is_some() {
                self.counts.kernel_stamps += 1;
            }
            return (stamp.is_some() || given_up || !sent).then_some(stamp);
        };
        let (direction, side, patience) = if sent {
            (Direction::Egress, &mut place.tx, TX_PATIENCE)
        } else {
            (Direction::Ingress, &mut place.rx, RX_PATIENCE)
        };
        let asked =
            if waiting.until - now < patience - RETRY { Asked::Again } else { Asked::First };
        let chosen = side.selector.chosen();
        if let Some(socket) = &waiting.stack {
            let another = |stamps: &Candidates| is_before_socket(stamps, socket);
            side.pairing.disown(place.ifindex, &waiting.bytes, another);
        }
        let enough = |stamps: &Candidates| {
            (given_up || stamps.time(chosen).is_some())
                && waiting.stack.is_none_or(|socket| is_of_socket(stamps, &socket))
        };
        let stamps = match side.pairing.take(place.ifindex, &waiting.bytes, asked, enough) {
            Outcome::Matched(stamps) => stamps,
            Outcome::NotYet if given_up => {
                side.pairing.give_up();
                self.counts.kernel_stamps += u64::from(waiting.stack.is_some());
                return Some(waiting.stack);
            }
            Outcome::NotYet => return None,
        };
        if sent {
            if waiting.sending.is_trial {
                place.primer.after_event(&stamps);
            }
            if !place.brackets[waiting.sending.path() as usize].is_sound_around(&stamps) {
                side.interrupted += 1;
                return Some(None);
            }
        }
        let Some(mut stamp) = side.selector.choose(&stamps) else { return Some(None) };
        *side.matched.entry(stamp.source).or_default() += 1;
        let reference = side.selector.reference();
        stamp.doubt = stamps.doubt(stamp.time, direction);
        stamp.manner = waiting.sending.manner;
        stamp.time = if sent {
            let handed = waiting.sending.handed.map(|handed| stamp.time - handed);
            stamp.handed = handed.unwrap_or_default().max(Duration::ZERO);
            stamp.time + self.config.egress_latency.of(reference)
        } else {
            stamp.time - self.config.ingress_latency.of(reference)
        };
        Some(Some(stamp))
    }
}

/// There is no XDP for NTP.
const fn without_xdp(choice: Choice) -> Choice {
    match choice {
        Choice::Fixed(StampSource::Stack | StampSource::TcIngress) => choice,
        _ => Choice::Auto,
    }
}
