//! The agent's hands: the sockets of all ports, the kernel programs that stamp what passes through
//! them, and the interfaces' coming and going. Upwards it deals in messages with stamps and in
//! tokens with stamps; engines neither know nor care where those came from.

mod reach;

use std::{
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

use super::prime::{PrimeMode, Primer};
use crate::{
    capture::{
        AttachedHooks, Bracket, Candidates, CaptureError, Choice, ClockRelation, Hearsay,
        Latencies, Options, Outcome, Pairing, PairingCounts, PointReport, Programs, Reach,
        RxSource, Selector, SocketStamps, TcPlace, TxSource, is_before_socket, is_of_socket,
        rx_stamp, tx_stamp,
    },
    engine::{
        PortIndex, TxToken,
        receiver::{Measurement, Observation},
        strategy::Sending,
    },
    publish::metrics::Histogram,
    stamp::{Manner, Stamp, StampSource},
    sys::{clock::monotonic, schedule, timer::Timer},
    transport::{
        Channel, LinkState, LinkWatch, MAX_MESSAGE, Received, Source, Transport, TransportError,
        TransportKind, link_state,
        wire::{FarEnd, WireTap},
    },
};
use reach::Standby;

/// How long a received event message waits for its stamp. On the hook's side the stamp is there
/// before the socket is; this covers a record that another CPU is still writing.
const RX_PATIENCE: Duration = Duration::from_millis(20);
/// How long a sent event message waits for its stamp: a queueing discipline may hold it.
const TX_PATIENCE: Duration = Duration::from_millis(100);
/// Between two looks while something waits.
const RETRY: Duration = Duration::from_millis(1);
/// Between two looks into the ring while nothing waits: it fills with other traffic too.
const DRAIN: Duration = Duration::from_millis(100);
/// Between two attempts to open an interface that has come back.
const REOPEN: Duration = Duration::from_secs(1);
/// Messages that may wait for stamps at one time.
const WAITING: usize = 256;

/// How to open.
#[derive(Clone, Debug)]
pub struct IoConfig {
    /// Names of the interfaces, one port each.
    pub interfaces: Vec<String>,
    /// What carries the messages.
    pub transport: TransportKind,
    /// Which receive stamp; `None` measures which is best.
    pub rx_source: Option<RxSource>,
    /// Which transmit stamp; `None` measures which is best.
    pub tx_source: Option<TxSource>,
    /// Whether event messages may be primed.
    pub prime: PrimeMode,
    /// Between the wire and the receive stamp; subtracted.
    pub ingress_latency: Latencies,
    /// Between the transmit stamp and the wire; added.
    pub egress_latency: Latencies,
    /// Size of the ring, bytes.
    pub ring_bytes: Option<u32>,
    /// In a laboratory: the other ends of the interfaces' wires, where what was sent is stamped.
    pub wire: Vec<FarEnd>,
}

/// What a port's stamps come from; for status and logs.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Sources {
    /// The receive point in use.
    pub rx: StampSource,
    /// The transmit point in use.
    pub tx: StampSource,
    /// What was measured of the receive points.
    pub rx_points: Vec<PointReport>,
    /// What was measured of the transmit points.
    pub tx_points: Vec<PointReport>,
    /// Whether event messages are primed now.
    pub primed: bool,
    /// Messages that were stamped by another point than the chosen one.
    pub fallbacks: u64,
    /// Messages whose transmit stamps were not used, because something came between them.
    pub interrupted: u64,
    /// Directions in which packets do not reach the kernel programs, so that only the kernel's own stamps
    /// are left.
    pub displaced: Vec<&'static str>,
    /// How often the kernel programs were attached again because of others.
    pub attached_again: u64,
}

/// Why the agent cannot start.
#[derive(Debug, thiserror::Error)]
pub enum IoError {
    /// No stamps.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// No sockets.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// No news of interfaces.
    #[error("cannot watch the interfaces through netlink: {0}")]
    Watch(#[source] io::Error),
    /// No stamps at the other end of a wire.
    #[error("cannot listen at the other end of the wire, {far_end}: {source}")]
    Wire {
        /// Which.
        far_end: FarEnd,
        /// What the kernel said.
        source: io::Error,
    },
    /// No timer.
    #[error("cannot make a timer: {0}")]
    Timer(#[source] io::Error),
    /// No socket to ask for the stack's stamps.
    #[error("cannot ask the kernel for receive timestamps: {0}")]
    StackStamps(#[source] io::Error),
}

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
        source: Option<Source>,
    },
    /// What became of the stamp of a message sent.
    TxStamp {
        /// From [`Io::send_event`].
        token: TxToken,
        /// The stamp, or `None` when it did not come in time or the message could not be sent.
        stamp: Option<Stamp>,
    },
    /// The interface went down, came up, vanished or returned.
    Link {
        /// Which.
        port: PortIndex,
        /// Whether it can be used now.
        up: bool,
    },
}

/// Totals of what went wrong on a port, by cause, beside the pairing counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IoCounts {
    /// Messages too long to be PTP.
    pub oversized: u64,
    /// Sends that the kernel refused.
    pub send_errors: u64,
    /// Receives that the kernel refused.
    pub receive_errors: u64,
    /// Event messages dropped because too many waited for their stamps already.
    pub overrun: u64,
    /// Messages dropped by the kernel because they came faster than they were received.
    pub socket_overflow: u64,
    /// Records that lacked the chosen stamp.
    pub without_stamp: u64,
}

impl IoCounts {
    /// Every total with its name in summaries and metrics.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
        [
            ("oversized", self.oversized),
            ("send_error", self.send_errors),
            ("receive_error", self.receive_errors),
            ("overrun", self.overrun),
            ("socket_overflow", self.socket_overflow),
            ("record_without_stamp", self.without_stamp),
        ]
        .into_iter()
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
    last_problem: Option<String>,
    rx: Side,
    tx: Side,
    primer: Primer,
    /// Around the driver, of messages that were sent in each manner.
    brackets: [Bracket; 2],
    sending: Sending,
    driver_stamps: bool,
    standby: Standby,
    /// What passes the hook and is not for this port.
    hearsay: Hearsay,
    wire: Option<WireTap>,
    counts: IoCounts,
}

/// One direction of a port.
#[derive(Debug)]
struct Side {
    pairing: Pairing,
    reach: Reach,
    selector: Selector,
    matched: BTreeMap<StampSource, u64>,
    differences: BTreeMap<StampSource, Histogram>,
    interrupted: u64,
}

impl Side {
    fn new(selector: Selector) -> Self {
        let (matched, differences) = Default::default();
        let (pairing, reach) = Default::default();
        Self { pairing, reach, selector, matched, interrupted: 0, differences }
    }

    /// Counts how far the programs' own stamps of a packet are from the kernel's, which are the
    /// stack's on the way in and the driver's on the way out.
    fn compare(&mut self, stamps: &Candidates) {
        let is_kernels =
            |source| matches!(source, StampSource::Stack | StampSource::DriverSoftware);
        let Some(kernel) = stamps.iter().find(|stamp| is_kernels(stamp.source)) else { return };
        for stamp in stamps.iter().filter(|stamp| !is_kernels(stamp.source)) {
            self.differences.entry(stamp.source).or_default().add(stamp.time - kernel.time);
        }
    }

    fn counts(&self) -> SideCounts {
        let reference = self.selector.reference();
        SideCounts {
            matched: self.matched.clone(),
            interrupted: self.interrupted,
            reference,
            chosen: self.selector.chosen(),
            points: self.selector.report(),
            pairing: self.pairing.counts(),
            differences: self.differences.clone(),
        }
    }
}

/// What became of the stamps of one direction of a port.
#[derive(Clone, Debug)]
pub struct SideCounts {
    /// Stamps used, by the capture point they came from.
    pub matched: BTreeMap<StampSource, u64>,
    /// Stamps not used, because something came between them.
    pub interrupted: u64,
    /// Stands for the packet as a whole in the other counts.
    pub reference: StampSource,
    /// The point in use.
    pub chosen: StampSource,
    /// What was measured of all points.
    pub points: Vec<PointReport>,
    /// Everything else.
    pub pairing: PairingCounts,
    /// The programs' own stamps minus the kernel's, by the point where the former were taken.
    pub differences: BTreeMap<StampSource, Histogram>,
}

#[derive(Debug)]
struct Waiting {
    until: Time<Mono>,
    port: PortIndex,
    bytes: Vec<u8>,
    source: Option<Source>,
    /// As the socket has it.
    stack: Option<Stamp>,
    token: Option<TxToken>,
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
    drained: Time<Mono>,
    socket_stamps: SocketStamps,
    lost: u64,
    timer: Timer,
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
        let xdp = match config.rx_source {
            Some(RxSource::Xdp(hook)) => Some(hook),
            Some(RxSource::Stack | RxSource::TcIngress) | None => None,
        };
        // A transmit stamp at TC alone needs no tracepoints, which fire for every packet of the host.
        let xmit = config.tx_source != Some(TxSource::TcEgress);
        let mut programs = Programs::load(Options {
            ring_bytes: config.ring_bytes,
            xdp,
            xmit,
            place: TcPlace::InFront,
            ..Options::default()
        })?;
        let watch = LinkWatch::new().map_err(IoError::Watch)?;
        let mut ports = Vec::new();
        let mut hooks = Vec::new();
        for (index, interface) in config.interfaces.iter().enumerate() {
            let wire = config.wire.get(index).map(|far_end| {
                WireTap::open(far_end, config.transport)
                    .map_err(|source| IoError::Wire { far_end: far_end.clone(), source })
            });
            let wire = wire.transpose()?;
            let attached = programs.attach_beside_xdp(interface)?;
            hooks.push(attached);
            let transport = Transport::open(config.transport, interface)?;
            let up = matches!(link_state(interface), LinkState::Up(_));
            let driver_stamps = wants_driver_stamps(config.tx_source, &transport, interface);
            ports.push(Port {
                interface: interface.clone(),
                ifindex: transport.ifindex(),
                transport: Some(transport),
                up,
                buffer: Box::new([0; MAX_MESSAGE]),
                reopen_at: None,
                last_problem: None,
                rx: Side::new(rx_selector(config.rx_source, attached)),
                tx: Side::new(match wire {
                    Some(_) => Selector::fixed(&[StampSource::Stack, StampSource::XmitDone]),
                    None => tx_selector(config.tx_source),
                }),
                primer: Primer::new(config.prime, interface),
                brackets: Default::default(),
                sending: Sending::Free,
                driver_stamps,
                standby: Standby::default(),
                hearsay: Hearsay::default(),
                wire,
                counts: IoCounts::default(),
            });
        }
        Ok(Self {
            config,
            programs,
            hooks,
            watch,
            ports,
            waiting_rx: VecDeque::new(),
            waiting_tx: VecDeque::new(),
            ready: VecDeque::new(),
            drained: Time::ZERO,
            socket_stamps: SocketStamps::default(),
            lost: 0,
            timer: Timer::new().map_err(IoError::Timer)?,
        })
    }

    /// Corrects stamps by something else from now on.
    pub fn set_latencies(&mut self, ingress: Latencies, egress: Latencies) {
        self.config.ingress_latency = ingress;
        self.config.egress_latency = egress;
    }

    /// Name of a port's interface.
    pub fn interface(&self, port: PortIndex) -> &str {
        self.ports.get(usize::from(port.0)).map_or("?", |port| &port.interface)
    }

    /// Whether a port could be used when last looked at.
    pub fn is_up(&self, port: PortIndex) -> bool {
        self.ports.get(usize::from(port.0)).is_some_and(|port| port.up)
    }

    /// What the stamps of a port come from.
    pub fn sources(&self, port: PortIndex) -> Option<Sources> {
        let port = self.ports.get(usize::from(port.0))?;
        Some(Sources {
            rx: port.rx.selector.chosen(),
            tx: port.tx.selector.chosen(),
            rx_points: port.rx.selector.report(),
            tx_points: port.tx.selector.report(),
            primed: port.primer.is_on(),
            fallbacks: port.rx.selector.fallbacks + port.tx.selector.fallbacks,
            interrupted: port.tx.interrupted,
            displaced: port.displaced(),
            attached_again: port.attached_again(),
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
        let ingress = self.config.ingress_latency.of(port.rx.selector.reference());
        let egress = self.config.egress_latency.of(port.tx.selector.reference());
        let (direction, choice) = match measurement.observation {
            Observation::Sync(sync) => {
                ("receive", port.rx.selector.learn(sync.t2.time + ingress, sync.t1))
            }
            Observation::Delay(delay) => {
                ("transmit", port.tx.selector.learn(delay.t3.time - egress, delay.t4))
            }
            // No answer says when a Pdelay_Req arrived by a clock that could be compared with.
            Observation::PeerDelay(_) => return,
        };
        if let Some(Choice { from, to, noise_ns }) = choice {
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
        self.programs.lost()
    }

    /// What has happened, oldest first.
    pub fn next_delivery(&mut self) -> Option<Delivery> {
        self.ready.pop_front()
    }

    /// Sends an event message; its stamp comes as a [`Delivery::TxStamp`], mostly at once.
    pub fn send_event(&mut self, port: PortIndex, token: TxToken, peer: bool, message: &[u8]) {
        let failed = Delivery::TxStamp { token, stamp: None };
        let manner = self.ports.get_mut(usize::from(port.0)).map(Port::prepare);
        let manner = manner.unwrap_or_default();
        if !self.send(port, Channel::Event, peer, message) {
            self.ready.push_back(failed);
            return;
        }
        let now = monotonic();
        if self.waiting_tx.len() == WAITING {
            self.ports[usize::from(port.0)].counts.overrun += 1;
            self.ready.push_back(failed);
            return;
        }
        self.waiting_tx.push_back(Waiting {
            until: now + TX_PATIENCE,
            port,
            bytes: message.to_vec(),
            source: None,
            stack: None,
            token: Some(token),
            manner,
        });
        self.look(now);
    }

    /// Sends a general message.
    pub fn send_general(&mut self, port: PortIndex, peer: bool, message: &[u8]) {
        self.send(port, Channel::General, peer, message);
    }

    /// Sends a general message to one address alone.
    pub fn send_unicast(&mut self, port: PortIndex, to: Source, message: &[u8]) {
        self.send_by(port, |transport| transport.send_unicast(to, message));
    }

    fn send(&mut self, index: PortIndex, channel: Channel, peer: bool, message: &[u8]) -> bool {
        self.send_by(index, |transport| transport.send(channel, peer, message))
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
                port.last_problem = None;
                true
            }
            Err(error) => {
                port.counts.send_errors += 1;
                port.report(format!("cannot send on {}: {error}", port.interface));
                false
            }
        }
    }

    /// Waits until something may have happened, or until `until`; then [`Io::next_delivery`] has it.
    /// Cancel-safe: nothing that was received is lost when the future is dropped.
    pub async fn wait(&mut self, until: Time<Mono>) {
        if !self.ready.is_empty() {
            return;
        }
        let now = monotonic();
        let mut wake = until.min(self.drained + DRAIN);
        if !self.waiting_rx.is_empty() || !self.waiting_tx.is_empty() {
            wake = wake.min(now + RETRY);
        }
        for reopen in self.ports.iter().filter_map(|port| port.reopen_at) {
            wake = wake.min(reopen);
        }
        let event = tokio::select! {
            biased;
            received = receive_any(&mut self.ports) => Some(received),
            () = self.watch.changed() => None,
            over = self.timer.until(wake) => {
                if let Err(error) = over {
                    // Cannot be; and to go round without a pause would be worse than to be late.
                    tracing::warn!(%error, "timer");
                    sleep(std::time::Duration::from_millis(1)).await;
                }
                let now = monotonic();
                if self.ports.iter().any(|port| port.reopen_at.is_some_and(|at| at <= now)) {
                    self.check_links(now);
                }
                self.look(now);
                return;
            }
        };
        let now = monotonic();
        match event {
            Some((port, Ok(received))) => self.received(now, port, received),
            Some((port, Err(error))) => {
                self.ports[usize::from(port.0)].counts.receive_errors += 1;
                tracing::debug!(interface = self.interface(port), %error, "receive");
                self.check_links(now);
            }
            None => self.check_links(now),
        }
        self.look(now);
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
            port.hearsay.delivered(self.config.transport, &bytes);
            self.ready.push_back(Delivery::Message { port: index, bytes, stamp: None, source });
            return;
        }
        if self.waiting_rx.len() == WAITING {
            port.counts.overrun += 1;
            port.rx.pairing.give_up();
            self.ready.push_back(Delivery::Message { port: index, bytes, stamp: None, source });
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
                    self.ready.push_back(Delivery::Message { port, bytes, stamp, source });
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
        self.attach_again(now);
    }

    fn find(&mut self, waiting: &Waiting, now: Time<Mono>) -> Found {
        let port = &mut self.ports[usize::from(waiting.port.0)];
        let sent = waiting.token.is_some();
        let (side, patience) =
            if sent { (&mut port.tx, TX_PATIENCE) } else { (&mut port.rx, RX_PATIENCE) };
        // A message is looked for once on arrival; whatever comes later is a retry. When patience is
        // at its end, any point's stamp will do.
        let retry = waiting.until - now < patience - RETRY;
        // What reaches no program, as it is known by then, is not waited for where the kernel's stamp is there.
        let stands_in = side.reach.is_displaced()
            && (waiting.stack.is_some() || port.standby.has(&waiting.bytes));
        let given_up = now >= waiting.until || stands_in;
        let chosen = side.selector.chosen();
        if let Some(socket) = &waiting.stack {
            let another = |stamps: &Candidates| is_before_socket(stamps, socket);
            side.pairing.disown(port.ifindex, &waiting.bytes, another);
        }
        let enough = |stamps: &Candidates| {
            (given_up || stamps.time(chosen).is_some())
                && waiting.stack.is_none_or(|socket| is_of_socket(stamps, &socket))
        };
        let seen = side.pairing.take(port.ifindex, &waiting.bytes, retry, enough);
        let outcome = match seen {
            // No program has seen it. The kernel has a stamp of its own.
            Outcome::NotYet if given_up => {
                let stamp = waiting.stack.or_else(|| port.standby.take(&waiting.bytes));
                stamp.map_or(seen, |stamp| Outcome::Matched(Candidates::one(stamp)))
            }
            seen => seen,
        };
        match seen {
            Outcome::Matched(_) => side.reach.reached(),
            Outcome::NotYet if given_up => side.reach.missed(),
            Outcome::NotYet => {}
        }
        match outcome {
            Outcome::Matched(stamps) => {
                side.compare(&stamps);
                if sent {
                    port.primer.after_event(&stamps);
                    let bracket = &mut port.brackets[waiting.manner as usize];
                    if !bracket.is_sound_around(&stamps) {
                        side.interrupted += 1;
                        return Found::Stamp(None);
                    }
                }
                let stamp = side.selector.choose(&stamps);
                if let Some(stamp) = stamp {
                    *side.matched.entry(stamp.source).or_default() += 1;
                }
                let reference = side.selector.reference();
                Found::Stamp(stamp.map(|mut stamp| {
                    // What was used, against all that was seen: the moving to the reference included.
                    stamp.doubt = stamps.doubt(stamp.time, sent);
                    stamp.manner = waiting.manner;
                    let time = stamp.time;
                    let left = stamps.time(StampSource::XmitDone).filter(|_| sent);
                    stamp.late =
                        left.map_or(Duration::ZERO, |left| (left - time).max(Duration::ZERO));
                    stamp.time = if sent {
                        time + self.config.egress_latency.of(reference)
                    } else {
                        time - self.config.ingress_latency.of(reference)
                    };
                    stamp
                }))
            }
            Outcome::NotYet if given_up => {
                side.pairing.give_up();
                Found::Stamp(None)
            }
            Outcome::NotYet => Found::Wait,
        }
    }

    fn drain(&mut self, now: Time<Mono>) {
        self.drained = now;
        let relation = ClockRelation::now();
        let Self { programs, hooks, ports, .. } = self;
        programs.drain(|record| {
            if record.hook == Hook::Xmit {
                // Knows its packet by the serial alone.
                for source in [TxSource::XmitDone, TxSource::StartXmit] {
                    if let Some(stamp) = tx_stamp(&record, source) {
                        ports.iter_mut().any(|port| port.tx.pairing.amend(record.serial, stamp));
                    }
                }
                return;
            }
            let Some(at) = ports.iter().position(|port| port.ifindex == record.ifindex) else {
                return;
            };
            let port = &mut ports[at];
            if !is_event(record.message()) {
                port.hearsay.note(now, &record);
                return;
            }
            let mut stamps = Candidates::default();
            if record.direction == Direction::Egress {
                if let Some(stamp) = tx_stamp(&record, TxSource::TcEgress) {
                    stamps.add(stamp);
                }
                let (message, serial) = (record.message(), record.serial);
                port.tx.pairing.push(now, port.ifindex, message, serial, stamps);
                return;
            }
            let sources = match record.hook {
                Hook::XdpIngress => [hooks[at].xdp.map(RxSource::Xdp), None],
                _ => [Some(RxSource::Stack), Some(RxSource::TcIngress)],
            };
            for source in sources.into_iter().flatten() {
                match rx_stamp(&record, source, &relation) {
                    Some(stamp) => stamps.add(stamp),
                    None => port.counts.without_stamp += 1,
                }
            }
            port.rx.pairing.push(now, port.ifindex, record.message(), 0, stamps);
        });
        for port in ports {
            port.rx.pairing.expire(now);
            port.tx.pairing.expire(now);
        }
    }

    /// Compares what the interfaces are with what they were, and opens again what has come back.
    fn check_links(&mut self, now: Time<Mono>) {
        for (index, port) in self.ports.iter_mut().enumerate() {
            let number = PortIndex(u16::try_from(index).unwrap_or(u16::MAX));
            let state = link_state(&port.interface);
            let gone = match state {
                LinkState::Missing => true,
                LinkState::Up(ifindex) => ifindex != port.ifindex,
                LinkState::Down => false,
            };
            if gone && port.transport.is_some() {
                port.counts = port.counts();
                port.transport = None;
                self.programs.detach(port.ifindex);
            }
            let wanted = matches!(state, LinkState::Up(_));
            port.reopen_at = None;
            if wanted && port.transport.is_none() {
                match reopen(&mut self.programs, self.config.transport, &port.interface) {
                    Ok((transport, hooks)) => {
                        port.ifindex = transport.ifindex();
                        port.driver_stamps =
                            wants_driver_stamps(self.config.tx_source, &transport, &port.interface);
                        port.transport = Some(transport);
                        self.hooks[index] = hooks;
                        port.last_problem = None;
                        // Perhaps another driver: measure anew.
                        port.rx.selector = rx_selector(self.config.rx_source, hooks);
                        port.tx.selector = tx_selector(self.config.tx_source);
                        port.primer = Primer::new(self.config.prime, &port.interface);
                        port.brackets = Default::default();
                    }
                    Err(error) => {
                        port.report(format!(
                            "{} is back but cannot be used: {error}",
                            port.interface
                        ));
                        port.reopen_at = Some(now + REOPEN);
                    }
                }
            }
            let up = wanted && port.transport.is_some();
            if up != port.up {
                port.up = up;
                self.ready.push_back(Delivery::Link { port: number, up });
            }
        }
        self.check_places();
    }

    /// What was lost on all ports, by cause, for a summary.
    pub fn losses(&self) -> BTreeMap<String, u64> {
        let mut lost = BTreeMap::from([("ring".to_owned(), self.ring_lost())]);
        for port in &self.ports {
            let (rx, tx) = (port.rx.pairing.counts(), port.tx.pairing.counts());
            let stamps = [("rx_stamp_missing", rx.missing), ("tx_stamp_missing", tx.missing)];
            let interrupted = ("tx_stamp_interrupted", port.tx.interrupted);
            for (cause, total) in port.counts().iter().chain(stamps).chain([interrupted]) {
                *lost.entry(cause.to_owned()).or_default() += total;
            }
        }
        lost
    }
}

fn rx_selector(wanted: Option<RxSource>, hooks: AttachedHooks) -> Selector {
    use StampSource::{Stack, TcIngress};
    match wanted {
        None => Selector::automatic(&[Stack, TcIngress]),
        Some(RxSource::Stack) => Selector::fixed(&[Stack, TcIngress]),
        Some(RxSource::TcIngress) => Selector::fixed(&[TcIngress, Stack]),
        Some(RxSource::Xdp(_)) => match hooks.xdp {
            Some(hook) => Selector::fixed(&[RxSource::Xdp(hook).source(), Stack, TcIngress]),
            None => Selector::fixed(&[Stack, TcIngress]),
        },
    }
}

/// Whether the driver is to stamp as well: only where its stamp is asked for, because taking it costs the
/// packet half a microsecond on its way. That it cannot be asked for leaves the other points.
fn wants_driver_stamps(wanted: Option<TxSource>, transport: &Transport, interface: &str) -> bool {
    if wanted != Some(TxSource::DriverSoftware) {
        return false;
    }
    let asked = transport.ask_for_driver_stamps(true);
    if let Err(error) = &asked {
        tracing::warn!(interface, %error, "cannot ask for the driver's transmit stamps");
    }
    asked.is_ok()
}

fn tx_selector(wanted: Option<TxSource>) -> Selector {
    use StampSource::{DriverSoftware, StartXmit, TcEgress, XmitDone};
    match wanted {
        // What is behind the driver is later than the wire by nobody knows how much: it only shows how far
        // before the wire the others are at the most. The driver's is asked for only where packets do not
        // reach the programs.
        None => Selector::automatic(&[StartXmit, TcEgress]).with_stand_in(DriverSoftware),
        Some(TxSource::DriverSoftware) => {
            Selector::fixed(&[DriverSoftware, XmitDone, StartXmit, TcEgress])
        }
        Some(TxSource::XmitDone) => {
            Selector::fixed(&[XmitDone, StartXmit, TcEgress, DriverSoftware])
        }
        Some(TxSource::StartXmit) => {
            Selector::fixed(&[StartXmit, XmitDone, TcEgress, DriverSoftware])
        }
        Some(TxSource::TcEgress) => Selector::fixed(&[TcEgress, DriverSoftware]),
    }
}

enum Found {
    /// The stamp, or the certainty that there will be none.
    Stamp(Option<Stamp>),
    Wait,
}

impl Port {
    fn counts(&self) -> IoCounts {
        let overflowed = self.transport.as_ref().map_or(0, Transport::overflowed);
        let socket_overflow = self.counts.socket_overflow + overflowed;
        IoCounts { socket_overflow, ..self.counts }
    }

    /// Prepares the way for an event message in the manner that it is to be sent in. In which it is.
    fn prepare(&mut self) -> Manner {
        let primed = match self.sending {
            Sending::Free => self.primer.before_event(),
            Sending::Told(Manner::Primed) => self.primer.prime(),
            Sending::Told(Manner::Plain) => false,
        };
        if primed { Manner::Primed } else { Manner::Plain }
    }

    /// Reads the driver's stamps. The ring has been read before, so their packets are known.
    fn collect_driver_stamps(&mut self) {
        if let Some(wire) = &self.wire {
            let relation = ClockRelation::now();
            while let Some((message, real)) = wire.next(&mut self.buffer) {
                // A frame may have been padded.
                let said = message.get(2..4).map_or(0, |said| {
                    usize::from(u16::from_be_bytes([said[0], said[1]])).min(message.len())
                });
                let stamp = Stamp::new(relation.mono_at(real), StampSource::Stack);
                self.tx.pairing.amend_message(self.ifindex, &message[..said], stamp);
            }
        }
        let Some(transport) = self.transport.as_ref().filter(|_| self.driver_stamps) else {
            return;
        };
        let relation = ClockRelation::now();
        while let Some((message, real)) = transport.next_driver_stamp(&mut self.buffer) {
            let source = StampSource::DriverSoftware;
            let stamp = Stamp::new(relation.mono_at(real), source);
            if !self.tx.pairing.amend_message(self.ifindex, message, stamp) {
                self.standby.keep(message, stamp);
            }
        }
    }

    fn stop_driver_stamps(&mut self) {
        if self.driver_stamps
            && !self.tx.reach.is_displaced()
            && let Some(transport) = &self.transport
        {
            self.driver_stamps = transport.ask_for_driver_stamps(false).is_err();
        }
    }

    /// Says a problem once, until it is another or has gone away.
    fn report(&mut self, problem: String) {
        if self.last_problem.as_ref() != Some(&problem) {
            tracing::warn!("{problem}");
            self.last_problem = Some(problem);
        }
    }
}

fn reopen(
    programs: &mut Programs,
    kind: TransportKind,
    interface: &str,
) -> Result<(Transport, AttachedHooks), IoError> {
    let hooks = programs.attach_beside_xdp(interface)?;
    Ok((Transport::open(kind, interface)?, hooks))
}

/// Event messages have types below 8 (IEEE 1588-2019 table 36); only they are worth a stamp. What is
/// shorter than a header is no message, and could be the beginning of many.
pub(super) fn is_event(message: &[u8]) -> bool {
    message.len() >= HEADER_LENGTH && message[0] & 0x0f < 8
}

async fn receive_any(ports: &mut [Port]) -> (PortIndex, io::Result<Received>) {
    let mut receiving: Vec<_> = ports
        .iter_mut()
        .enumerate()
        .filter_map(|(index, Port { transport, buffer, .. })| {
            let transport = transport.as_ref()?;
            let index = PortIndex(u16::try_from(index).unwrap_or(u16::MAX));
            Some(Box::pin(async move { (index, transport.receive(buffer).await) }))
        })
        .collect();
    if receiving.is_empty() {
        return pending().await;
    }
    poll_fn(|context| {
        for future in &mut receiving {
            if let Poll::Ready(result) = pin!(future).poll(context) {
                return Poll::Ready(result);
            }
        }
        Poll::Pending
    })
    .await
}
