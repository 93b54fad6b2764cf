//! The agent's hands: the sockets of all ports, the kernel programs that stamp what passes through
//! them, and the interfaces' coming and going. Upwards it deals in messages with stamps and in
//! tokens with stamps; engines neither know nor care where those came from.

mod collected;
mod complaint;
mod config;
mod counts;
mod crowd;
mod desk;
mod guard;
pub mod hardware;
mod interface;
mod lane;
mod lull;
mod ntp;
mod outside;
mod pin;
pub mod pulse;
mod reach;
mod sender;

use std::{
    cell::{Cell, OnceCell},
    collections::{BTreeMap, VecDeque},
    future::{Future, pending, poll_fn},
    io,
    pin::pin,
    task::Poll,
};

use ptp_common::{
    record::{Direction, Hook},
    time::{Duration, Mono, Time},
    wire::HEADER_LENGTH,
};
use tokio::time::sleep;

use super::{
    drive::Outside,
    prime::{PrimeMode, Primer},
};
use crate::{
    capture::{
        AttachedHooks, Bracket, Candidates, CaptureError, Choice, ClockRelation, Hearsay,
        Latencies, Options, Outcome, Pairing, PairingCounts, PointReport, Programs, Reach,
        Selector, SocketStamps, Switch, TcPlace, is_before_socket, is_of_socket, stamp_at,
    },
    engine::{
        self, Destination, Input, PortIndex, SentToken, Transmit,
        address::Address,
        receiver::{Measurement, Observation},
        strategy::Sending,
    },
    publish::{metrics::Histogram, snapshot::Sources},
    security,
    stamp::{Manner, Stamp, StampSource},
    sys::{clock::monotonic, schedule, timer::Timer},
    transport::{
        Channel, LinkState, LinkWatch, MAX_MESSAGE, Marking, Received, Shards, Transport,
        TransportError, TransportKind, link_state,
        wire::{FarEnd, WireTap},
    },
};
use collected::{Handed, Outbox};
use complaint::Complaint;
use crowd::Crowd;
use desk::{Found, Side};
use guard::Guard;
use hardware::{Card, HardwareError};
use interface::{card, receive_any, rx_selector, tx_selector, wants_driver_stamps};
use lane::Lanes;
use lull::Lull;
use reach::Standby;

pub use config::{IoConfig, IoError};
pub use counts::IoCounts;
pub use desk::SideCounts;
pub(super) use desk::is_event;
pub use ntp::{NtpCarrier, NtpIo, NtpIoConfig, NtpIoCounts, NtpPeer, NtsServer};
pub use pulse::PulseIo;
pub use sender::{NotASender, Sender};

/// How long a received event message waits for its stamp. On the hook's side the stamp is there
/// before the socket is; this covers a record that another CPU is still writing.
const RX_PATIENCE: Duration = Duration::from_millis(20);
/// From its arrival to the end of its patience, for a message that has not waited in the socket's queue.
const QUEUED: Duration = Duration::from_millis(40);
/// How long a sent event message waits for its stamp: a queueing discipline may hold it.
const TX_PATIENCE: Duration = Duration::from_millis(100);
/// Between two looks while something waits.
const RETRY: Duration = Duration::from_millis(1);
/// Between two looks into the ring while nothing waits: it fills with other traffic too.
const DRAIN: Duration = Duration::from_millis(100);
/// Where messages follow each other so quickly, more are there already when one is read.
const BUSY: Duration = Duration::from_micros(200);
/// Between two attempts to open an interface that has come back.
const REOPEN: Duration = Duration::from_secs(1);
/// Messages that may wait for stamps at one time.
const WAITING: usize = 256;

/// Something for an engine.
#[derive(Clone, Debug, PartialEq)]
pub enum Delivery {
    /// A message has come in.
    Message {
        /// Where.
        port: PortIndex,
        /// The message.
        bytes: Vec<u8>,
        /// Its stamp; only event messages have one, and not even they always.
        stamp: Option<Stamp>,
        /// Who sent it.
        source: Option<Address>,
    },
    /// What became of the stamp of a message sent.
    TxStamp {
        /// From [`Transmit::token`].
        token: SentToken,
        /// The stamp, or `None` when it did not come in time or the message could not be sent.
        stamp: Option<Stamp>,
    },
    /// The edge of a pulse.
    Pulse(Stamp),
    /// Bytes of a receiver's line.
    Nmea {
        /// When they arrived.
        at: Time<Mono>,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// The interface went down, came up, vanished or returned.
    Link {
        /// Which.
        port: PortIndex,
        /// Whether it can be used now.
        state: engine::LinkState,
    },
}

impl Delivery {
    /// The same for an engine.
    pub fn input(&self) -> Input<'_> {
        match self {
            Self::Message { port, bytes, stamp, source } => {
                Input::Message { on: *port, from: *source, bytes, stamp: *stamp }
            }
            Self::TxStamp { token, stamp } => Input::Sent { token: *token, stamp: *stamp },
            Self::Pulse(stamp) => Input::Pulse(*stamp),
            Self::Nmea { at, bytes } => Input::Nmea { at: *at, bytes },
            Self::Link { port, state } => Input::Link { on: *port, state: *state },
        }
    }
}

#[derive(Debug)]
struct Port {
    interface: String,
    ifindex: u32,
    transport: Option<Transport>,
    up: bool,
    buffer: Box<[u8; MAX_MESSAGE]>,
    reopen_at: Option<Time<Mono>>,
    complaint: Complaint,
    rx: Side,
    tx: Side,
    primer: Primer,
    /// Around the driver, of messages that were sent in each manner.
    brackets: [Bracket; 2],
    /// Of messages that were sent together.
    lanes: Lanes,
    sending: Sending,
    driver_stamps: bool,
    /// Where the card's own stamps are wanted.
    card: Option<Card>,
    standby: Standby,
    /// What passes the hook and is not for this port.
    hearsay: Hearsay,
    wire: Option<WireTap>,
    crowd: Crowd,
    counts: IoCounts,
}

#[derive(Debug)]
struct Waiting {
    until: Time<Mono>,
    port: PortIndex,
    bytes: Vec<u8>,
    source: Option<Address>,
    /// As the socket has it.
    stack: Option<Stamp>,
    token: Option<SentToken>,
    manner: Manner,
}

/// See the module's paragraph.
pub struct Io {
    config: IoConfig,
    programs: Programs,
    hooks: Vec<AttachedHooks>,
    watch: LinkWatch,
    ports: Vec<Port>,
    waiting_rx: VecDeque<Waiting>,
    waiting_tx: VecDeque<Waiting>,
    ready: VecDeque<Delivery>,
    outbox: Outbox,
    /// Where there are many to send to: unknown until there are.
    shards: OnceCell<Option<Shards<Handed>>>,
    /// When a message last came.
    heard: Time<Mono>,
    drained: Time<Mono>,
    socket_stamps: SocketStamps,
    lost: u64,
    timer: Timer,
    guard: Guard,
    lull: Lull,
    ntp: Option<Box<NtpIo>>,
    pulse: Option<PulseIo>,
    /// When it was asked, and what was said.
    ring_lost: Cell<(Time<Mono>, Option<u64>)>,
}

impl Io {
    /// Loads and attaches the programs, opens the sockets, all or nothing. Must be called inside a
    /// tokio runtime.
    ///
    /// # Errors
    /// [`IoError`], each naming what is missing.
    pub fn open(config: IoConfig) -> Result<Self, IoError> {
        if let Err(error) = schedule::ask_for_short_turns() {
            tracing::debug!(%error, "short turns");
        }
        if let Err(error) = schedule::ask_for_exact_timers() {
            tracing::debug!(%error, "exact timers");
        }
        // A transmit stamp at TC alone needs no tracepoints, which fire for every packet of the host.
        let xmit = !config.tx_source.is(StampSource::TcEgress) && !config.interfaces.is_empty();
        let mut programs = Programs::load(Options {
            ring_bytes: config.ring_bytes,
            xdp: config.rx_source.xdp(),
            xmit,
            place: TcPlace::InFront,
            ..Options::default()
        })?;
        let watch = LinkWatch::new().map_err(IoError::Watch)?;
        let guard = Guard::new(
            config.security.clone(),
            config.is_pinned,
            config.acceptable_senders.clone(),
        );
        let mut ports = Vec::new();
        let mut hooks = Vec::new();
        for (index, interface) in config.interfaces.iter().enumerate() {
            let wire = config.wire.get(index).map(|far_end| {
                WireTap::open(far_end, config.transport_of(interface))
                    .map_err(|source| IoError::Wire { far_end: far_end.clone(), source })
            });
            let wire = wire.transpose()?;
            let attached = programs.attach_beside_xdp(interface)?;
            hooks.push(attached);
            let transport =
                Transport::open(config.transport_of(interface), interface, &config.marking)?;
            if config.shares_event_port() {
                // Only now: that another program has it must be found.
                let attempt = "share the port of event messages";
                transport.share_event_port().map_err(|source| IoError::Os { attempt, source })?;
            }
            let up = matches!(link_state(interface), LinkState::Up(_));
            let driver_stamps = wants_driver_stamps(config.tx_source, &transport, interface);
            let card = card([config.rx_source, config.tx_source], &transport, interface)?;
            ports.push(Port {
                interface: interface.clone(),
                ifindex: transport.ifindex(),
                transport: Some(transport),
                up,
                buffer: Box::new([0; MAX_MESSAGE]),
                reopen_at: None,
                complaint: Complaint::default(),
                rx: Side::new(rx_selector(config.rx_source, attached)),
                tx: Side::new(match wire {
                    Some(_) => Selector::fixed(&[StampSource::Stack, StampSource::XmitDone]),
                    None => tx_selector(config.tx_source),
                }),
                primer: Primer::new(config.prime, interface),
                brackets: Default::default(),
                lanes: Lanes::default(),
                sending: Sending::Free,
                driver_stamps,
                card,
                standby: Standby::default(),
                hearsay: Hearsay::default(),
                wire,
                crowd: Crowd::default(),
                counts: IoCounts::default(),
            });
        }
        let ntp = config.ntp.clone().map(NtpIo::open).transpose()?.map(Box::new);
        Ok(Self {
            config,
            ntp,
            pulse: None,
            programs,
            hooks,
            watch,
            ports,
            waiting_rx: VecDeque::new(),
            waiting_tx: VecDeque::new(),
            ready: VecDeque::new(),
            outbox: Outbox::default(),
            shards: OnceCell::new(),
            heard: Time::ZERO,
            drained: Time::ZERO,
            socket_stamps: SocketStamps::default(),
            lost: 0,
            timer: Timer::new().map_err(IoError::Timer)?,
            guard,
            lull: Lull::default(),
            ring_lost: Cell::new((Time::ZERO, None)),
        })
    }

    /// Corrects stamps by something else from now on.
    pub fn set_latencies(&mut self, ingress: Latencies, egress: Latencies) {
        self.config.ingress_latency = ingress;
        self.config.egress_latency = egress;
    }

    /// Between the wire and the stack's receive stamp.
    pub fn ingress_latency(&self) -> Duration {
        self.config.ingress_latency.of(StampSource::Stack)
    }

    /// Between the transmit stamp in front of the driver and the wire.
    pub fn egress_latency(&self) -> Duration {
        self.config.egress_latency.of(StampSource::StartXmit)
    }

    /// Name of a port's interface.
    pub fn interface(&self, port: PortIndex) -> &str {
        match self.ports.get(usize::from(port.0)) {
            Some(port) => &port.interface,
            None => {
                let ntp = self.ntp.as_ref().and_then(|ntp| ntp.interface(port));
                ntp.or_else(|| self.pulse.as_ref().map(PulseIo::name)).unwrap_or("?")
            }
        }
    }

    /// Takes pulses from there as well.
    pub fn take_pulses(&mut self, pulse: PulseIo) {
        self.pulse = Some(pulse);
    }

    /// Where pulses come from.
    pub const fn pulse(&self) -> Option<&PulseIo> {
        self.pulse.as_ref()
    }

    /// Where servers of NTP are asked.
    pub fn ntp(&self) -> Option<&NtpIo> {
        self.ntp.as_deref()
    }

    /// The same, to tell it something.
    pub fn ntp_mut(&mut self) -> Option<&mut NtpIo> {
        self.ntp.as_deref_mut()
    }

    /// Whether a port could be used when last looked at.
    pub fn is_up(&self, port: PortIndex) -> bool {
        self.ports.get(usize::from(port.0)).is_some_and(|port| port.up)
    }

    /// What the stamps of a port come from.
    pub fn sources(&self, port: PortIndex) -> Option<Sources> {
        let port = self.ports.get(usize::from(port.0))?;
        Some(Sources {
            rx: port.rx.selector.chosen().into(),
            tx: port.tx.selector.chosen().into(),
            rx_points: port.rx.selector.report(),
            tx_points: port.tx.selector.report(),
            primed: port.primer.is_on(),
            fallbacks: port.rx.selector.fallbacks + port.tx.selector.fallbacks,
            interrupted: port.tx.interrupted,
            displaced: port.displaced(),
            attached_again: port.attached_again(),
            hardware: port.card.as_ref().and_then(Card::told),
            told_again: port.card.as_ref().map_or(0, Card::forgotten),
        })
    }

    /// Says in which manner the event messages of a port are to be sent.
    pub fn set_sending(&mut self, port: PortIndex, sending: Sending) {
        if let Some(port) = self.ports.get_mut(usize::from(port.0)) {
            port.sending = sending;
        }
    }

    /// Whether event messages of a port are primed, or it is being tried.
    pub fn is_primed(&self, port: PortIndex) -> Option<bool> {
        self.ports.get(usize::from(port.0)).map(|port| port.primer.is_on())
    }

    /// The other end has told when it sent or received a packet that was stamped here: now the noise
    /// of the capture points can be compared.
    pub fn learn(&mut self, measurement: &Measurement) {
        let Some(port) = self.ports.get_mut(usize::from(measurement.port.0)) else {
            return;
        };
        let (direction, side, stamp, remote) = match measurement.observation {
            Observation::Sync(sync) => ("receive", &mut port.rx, sync.t2, sync.t1),
            Observation::Delay(delay) => ("transmit", &mut port.tx, delay.t3, delay.t4),
            // No answer says when a Pdelay_Req arrived by a clock that could be compared with.
            Observation::PeerDelay(_) | Observation::LinkTold(_) => return,
        };
        let switch = stamp.packet.and_then(|packet| side.selector.learn(packet, remote));
        if let Some(Switch { from, to, noise_ns }) = switch {
            tracing::info!(
                interface = port.interface,
                direction,
                from = from.name(),
                to = to.name(),
                noise_before_ns = noise_ns.0.round(),
                noise_ns = noise_ns.1.round(),
                "capture point"
            );
        }
    }

    /// Totals of a port's receive and transmit stamps.
    pub fn stamp_counts(&self, port: PortIndex) -> Option<(SideCounts, SideCounts)> {
        self.ports.get(usize::from(port.0)).map(|port| (port.rx.counts(), port.tx.counts()))
    }

    /// Totals of what went wrong on a port.
    pub fn counts(&self, port: PortIndex) -> IoCounts {
        self.ports.get(usize::from(port.0)).map(Port::counts).unwrap_or_default()
    }

    /// Records lost in the kernel because the ring was full.
    pub fn ring_lost(&self) -> u64 {
        let now = monotonic();
        let (asked, lost) = self.ring_lost.get();
        // Several want to know at a time, and to ask takes a system call for each hook.
        if lost.is_some() && now - asked < DRAIN {
            return lost.unwrap_or_default();
        }
        let lost = self.programs.lost();
        self.ring_lost.set((now, Some(lost)));
        lost
    }

    fn send(
        &mut self,
        index: PortIndex,
        channel: Channel,
        to: Destination,
        message: &[u8],
    ) -> bool {
        self.send_by(index, |transport| match to {
            Destination::Multicast(group) => transport.send(channel, group, message),
            Destination::Unicast(to) => transport.send_unicast(channel, to, message),
        })
    }

    fn send_by(
        &mut self,
        index: PortIndex,
        send: impl FnOnce(&Transport) -> io::Result<()>,
    ) -> bool {
        let Some(port) = self.ports.get_mut(usize::from(index.0)) else {
            return false;
        };
        let result = match &port.transport {
            Some(transport) => send(transport),
            None => Err(io::Error::from(io::ErrorKind::NetworkDown)),
        };
        match result {
            Ok(()) => {
                port.complaint.clear();
                true
            }
            Err(error) => {
                port.counts.send_errors += 1;
                port.report(&format!("cannot send on {}: {error}", port.interface));
                false
            }
        }
    }

    /// When the ring was last read: stamps that are delivered now were taken before.
    pub const fn drained(&self) -> Time<Mono> {
        self.drained
    }

    fn received(&mut self, now: Time<Mono>, index: PortIndex, received: Received) {
        let port = &mut self.ports[usize::from(index.0)];
        if received.oversized {
            port.counts.oversized += 1;
            return;
        }
        let bytes = port.buffer[..received.length].to_vec();
        let source = received.source;
        let relation = ClockRelation::now();
        let stack = self.socket_stamps.stamp(now, &relation, received.stack);
        if !is_event(&bytes) {
            let kind = self.config.transport_of(&port.interface);
            port.hearsay.delivered(kind, &bytes);
            self.deliver(now, index, bytes, None, source);
            return;
        }
        if port.hold_back(now, source, &bytes) {
            port.counts.overrun += 1;
            return;
        }
        if self.waiting_rx.len() == WAITING {
            port.counts.overrun += 1;
            port.rx.pairing.give_up();
            self.deliver(now, index, bytes, None, source);
            return;
        }
        let until = now + RX_PATIENCE;
        self.waiting_rx.push_back(Waiting {
            until,
            port: index,
            bytes,
            source,
            stack,
            token: None,
            manner: Manner::Plain,
        });
    }

    /// Reads the ring and serves those who wait.
    fn look(&mut self, now: Time<Mono>) {
        self.drain(now);
        for port in &mut self.ports {
            port.collect_driver_stamps();
        }
        for _ in 0..self.waiting_rx.len() {
            let Some(waiting) = self.waiting_rx.pop_front() else { break };
            let port = waiting.port;
            match self.find(&waiting, now) {
                Found::Stamp(stamp) => {
                    let Waiting { bytes, source, .. } = waiting;
                    self.deliver(now, port, bytes, stamp, source);
                }
                Found::Wait => self.waiting_rx.push_back(waiting),
            }
        }
        for _ in 0..self.waiting_tx.len() {
            let Some(waiting) = self.waiting_tx.pop_front() else { break };
            match (self.find(&waiting, now), waiting.token) {
                (Found::Stamp(stamp), Some(token)) => {
                    self.ready.push_back(Delivery::TxStamp { token, stamp });
                }
                _ => self.waiting_tx.push_back(waiting),
            }
        }
        self.serve_lanes(now);
        self.attach_again(now);
    }
}
