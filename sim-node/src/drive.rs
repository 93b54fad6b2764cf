//! The loop: what the simulator delivers goes into an engine, what the engine commands goes out, and time passes
//! while nothing is to be done. A stamp is the time at which a message is received or sent, for the simulator has
//! no other.

use std::{
    collections::VecDeque,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use ptp_common::time::{Duration, Mono, Time};
use ptp_engine::{
    Command, Commands, Context, Destination, Engine, Input, PortIndex, ReadClock, SentToken,
    Transmit,
    address::Address,
    outcome::Observation,
    stamp::{Stamp, StampSource},
};

use crate::{
    clock::Shared,
    keys::Keys,
    relay::Relay,
    settings::Stamping,
    simulator::{ALL_NODES, Packet, Wake},
};

/// UDP ports of event and general messages.
const EVENT: u32 = 319;
const GENERAL: u32 = 320;
/// Ethernet, IPv4, UDP and the frame check sequence, bytes; what a card stamps lies at the begin of a frame that
/// travels at 100 Gb/s.
const FRAMING: usize = 46;
const BITS_PER_NANO: f64 = 100.0;
/// Waiting a bit longer than asked for beats waiting for nothing, again and again.
const LATER: Duration = Duration::from_nanos(1);
/// At the longest, to look after the clock.
const HOUSEKEEPING: Duration = Duration::from_secs(1);
/// messageType of Management, in the low half of the first octet.
const MANAGEMENT: u8 = 0xd;

/// What is around an engine.
pub(crate) trait Host<E: Engine> {
    /// The clock that the engine may read.
    fn clock(&self) -> &dyn ReadClock;

    /// Reads clocks anew, before the engine is given anything at `now`.
    fn refresh(&mut self, engine: &mut E, now: Time<Mono>);

    /// The engine has said something that is no message to send.
    fn told(&mut self, engine: &mut E, now: Time<Mono>, command: &Command<E::Event>);

    /// Once a second.
    ///
    /// # Errors
    /// What ends the node.
    fn housekeep(&mut self, engine: &mut E, now: Time<Mono>) -> io::Result<()>;

    /// Answers to a management message.
    fn manage(
        &mut self,
        engine: &mut E,
        cx: (Time<Mono>, &mut Commands<E::Event>),
        request: &[u8],
        from: Asker,
    ) -> Vec<Vec<u8>>;

    /// When [`Self::tell`] has something to do.
    fn due(&self) -> Option<Time<Mono>>;

    /// Makes notices of what has changed.
    fn tell(&mut self, engine: &E, now: Time<Mono>);

    /// What those are to be told who have subscribed to it.
    fn notices(&mut self) -> Vec<(Asker, Vec<u8>)>;
}

/// Who asks by a management message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Asker {
    /// What it came through.
    pub(crate) door: Door,
    subnet: u32,
    node: u32,
    src_port: u32,
    dst_port: u32,
}

/// What a management message comes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Door {
    /// A local socket of this number.
    Unix(u32),
    /// A port.
    Port(PortIndex),
}

impl Asker {
    /// Who is at a local socket, as seen from the own one of number `own`.
    pub(crate) const fn at(subnet: u32, node: u32, number: u32, own: u32) -> Self {
        Self { door: Door::Unix(own), subnet, node, src_port: number, dst_port: own }
    }

    const fn of(packet: &Packet, door: Door, node: u32) -> Self {
        let Packet { subnet, src_port, dst_port, .. } = *packet;
        Self { door, subnet, node, src_port, dst_port }
    }
}

/// The simulated network as this node sees it.
pub(crate) struct Network {
    pub(crate) shared: Shared,
    /// Subnets of the ports, in their order.
    pub(crate) subnets: Vec<u32>,
    /// Where local sockets are.
    pub(crate) unix_subnet: Option<u32>,
    pub(crate) stamping: Stamping,
    /// Transmit stamps that the engine has still to be told of.
    pub(crate) stamps: VecDeque<(SentToken, Stamp)>,
    /// Where the node is a transparent clock as well.
    pub(crate) relay: Option<Relay>,
    /// Where messages are signed.
    pub(crate) keys: Option<Keys>,
}

impl Network {
    fn transmit(&mut self, transmit: &Transmit) -> io::Result<()> {
        let Some(&subnet) = self.subnets.get(usize::from(transmit.on.0)) else { return Ok(()) };
        let port = if transmit.token.is_some() { EVENT } else { GENERAL };
        let node = match transmit.to {
            Destination::Multicast(_) => ALL_NODES,
            Destination::Unicast(Address::Socket(address)) => node_of(address),
            Destination::Unicast(Address::Mac(_)) => return Ok(()),
        };
        let data = self.sealed(Some(transmit.on.0), transmit.message.to_vec());
        let world = self.shared.world();
        world.simulator.send(&Packet { subnet, node, src_port: port, dst_port: port, data })?;
        if let Some(token) = transmit.token {
            self.stamps.push_back((token, Stamp::new(world.now(), StampSource::Simulated)));
        }
        Ok(())
    }

    fn sealed(&self, port: Option<u16>, data: Vec<u8>) -> Vec<u8> {
        match &self.keys {
            Some(keys) => keys.seal(port, &data),
            None => data,
        }
    }

    /// A message that may pass, without its signature.
    fn opened(&mut self, port: Option<u16>, data: &[u8]) -> Option<Vec<u8>> {
        let now = self.shared.world().now();
        match (&mut self.keys, port) {
            (Some(keys), Some(port)) => keys.open(now, port, data),
            (Some(keys), None) => keys.open_local(data),
            (None, _) => Some(data.to_vec()),
        }
    }

    /// Sends by the other ports what has come by one.
    fn forward(
        &mut self,
        came: u16,
        packet: &Packet,
        bytes: &[u8],
        stamp: Option<Stamp>,
    ) -> io::Result<()> {
        let Some(relay) = &mut self.relay else { return Ok(()) };
        let now = self.shared.world().now();
        let arrival = stamp.map(|stamp| stamp.time);
        for (went, data) in relay.forward(now, came, bytes, arrival) {
            let Some(&subnet) = self.subnets.get(usize::from(went)) else { continue };
            let data = match &self.keys {
                Some(keys) => keys.seal(Some(went), &data),
                None => data,
            };
            let world = self.shared.world();
            let (src_port, dst_port) = (packet.dst_port, packet.dst_port);
            world.simulator.send(&Packet { subnet, node: ALL_NODES, src_port, dst_port, data })?;
        }
        Ok(())
    }

    fn received_at(&self, length: usize) -> Time<Mono> {
        let now = self.shared.world().now();
        match self.stamping {
            Stamping::Hardware => {
                let nanos = 8.0 * (length + FRAMING) as f64 / BITS_PER_NANO;
                now - Duration::from_nanos_f64(nanos)
            }
            Stamping::Software => now,
        }
    }
}

/// Addresses are 192.168.(123 + subnet).(node + 1).
fn address_of(packet: &Packet) -> Address {
    let [.., subnet] = packet.subnet.wrapping_add(123).to_be_bytes();
    let [.., node] = packet.node.wrapping_add(1).to_be_bytes();
    let port = u16::try_from(packet.src_port).unwrap_or(0);
    Address::Socket(SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 168, subnet, node)), port))
}

fn node_of(address: SocketAddr) -> u32 {
    match address.ip() {
        IpAddr::V4(address) => u32::from(address.octets()[3]).wrapping_sub(1),
        IpAddr::V6(address) => u32::from(address.octets()[15]).wrapping_sub(1),
    }
}

/// An engine in the simulator's network.
pub(crate) struct Drive<E: Engine> {
    pub(crate) network: Network,
    pub(crate) engine: E,
    pub(crate) commands: Commands<E::Event>,
}

impl<E: Engine> Drive<E> {
    /// Until the simulation is over.
    ///
    /// # Errors
    /// What the server or `host` says.
    pub(crate) fn run(mut self, host: &mut impl Host<E>) -> io::Result<()> {
        let mut housekeeping = self.now();
        loop {
            self.turn(host)?;
            let now = self.now();
            if now >= housekeeping {
                housekeeping = now + HOUSEKEEPING;
                host.refresh(&mut self.engine, now);
                host.housekeep(&mut self.engine, now)?;
            }
            if host.due().is_some_and(|at| at <= now) {
                host.tell(&self.engine, now);
                continue;
            }
            let due = [self.engine.next_timeout(), host.due()].into_iter().flatten();
            let until = due.fold(housekeeping, Time::min);
            let timeout = (until - now).max(Duration::ZERO) + LATER;
            let wake = self.network.shared.world().simulator.select(timeout.as_secs_f64())?;
            match wake {
                Wake::Timeout(readings) => self.network.shared.world().take(&readings),
                Wake::Message(readings) => {
                    let packet = {
                        let mut world = self.network.shared.world();
                        world.take(&readings);
                        world.simulator.receive()?
                    };
                    if let Some(packet) = packet {
                        self.receive(host, &packet)?;
                    }
                }
                Wake::Terminate => return self.network.shared.world().simulator.deregister(),
            }
        }
    }

    fn now(&self) -> Time<Mono> {
        self.network.shared.world().now()
    }

    fn with(
        &mut self,
        host: &mut impl Host<E>,
        then: impl FnOnce(&mut E, &mut Context<'_, E::Event>),
    ) {
        let now = self.now();
        host.refresh(&mut self.engine, now);
        let mut cx = Context { now, clock: host.clock(), out: &mut self.commands };
        then(&mut self.engine, &mut cx);
    }

    /// Does what is due, and carries commands out until there is none.
    fn turn(&mut self, host: &mut impl Host<E>) -> io::Result<()> {
        let now = self.now();
        if self.engine.next_timeout().is_some_and(|at| at <= now) {
            self.with(host, |engine, cx| engine.handle_timeout(cx));
        }
        loop {
            while let Some(command) = self.commands.pop() {
                match command {
                    Command::Send(transmit) => self.network.transmit(&transmit)?,
                    command => {
                        if let (Command::Measured(measurement), Some(relay)) =
                            (&command, &mut self.network.relay)
                            && let Observation::PeerDelay(peer) = measurement.observation
                        {
                            relay.set_link(measurement.port.0, peer.mean_link_delay);
                        }
                        host.told(&mut self.engine, now, &command);
                    }
                }
            }
            for (to, notice) in host.notices() {
                self.answer(to, vec![notice])?;
            }
            let Some((token, stamp)) = self.network.stamps.pop_front() else { return Ok(()) };
            let stamp = Some(stamp);
            self.with(host, |engine, cx| engine.handle(cx, Input::Sent { token, stamp }));
        }
    }

    fn receive(&mut self, host: &mut impl Host<E>, packet: &Packet) -> io::Result<()> {
        if Some(packet.subnet) == self.network.unix_subnet {
            let Some(bytes) = self.network.opened(None, &packet.data) else { return Ok(()) };
            let asker = Asker::of(packet, Door::Unix(packet.dst_port), packet.node);
            let cx = (self.now(), &mut self.commands);
            let answers = host.manage(&mut self.engine, cx, &bytes, asker);
            return self.answer(asker, answers);
        }
        // What is sent to all reaches nodes that share another subnet with the sender, too.
        let port = self.network.subnets.iter().position(|subnet| *subnet == packet.subnet);
        let Some(port) = port.and_then(|port| u16::try_from(port).ok()) else { return Ok(()) };
        let stamp = match packet.dst_port {
            EVENT => {
                let at = self.network.received_at(packet.data.len());
                Some(Stamp::new(at, StampSource::Simulated))
            }
            GENERAL => None,
            _ => return Ok(()),
        };
        let Some(bytes) = self.network.opened(Some(port), &packet.data) else { return Ok(()) };
        let bytes = &bytes[..];
        self.network.forward(port, packet, bytes, stamp)?;
        let from = Some(address_of(packet));
        let on = PortIndex(port);
        self.with(host, |engine, cx| engine.handle(cx, Input::Message { on, from, bytes, stamp }));
        // After the engine, which counts it: what asks for the count is in it.
        if stamp.is_none() && bytes.first().is_some_and(|first| first & 0xf == MANAGEMENT) {
            let asker = Asker::of(packet, Door::Port(PortIndex(port)), ALL_NODES);
            let cx = (self.now(), &mut self.commands);
            let answers = host.manage(&mut self.engine, cx, bytes, asker);
            self.answer(asker, answers)?;
        }
        Ok(())
    }

    /// To who has asked, by a port or a local socket.
    fn answer(&mut self, to: Asker, answers: Vec<Vec<u8>>) -> io::Result<()> {
        let Asker { door, subnet, node, src_port, dst_port } = to;
        let port = match door {
            Door::Port(port) => Some(port.0),
            Door::Unix(_) => None,
        };
        for data in answers {
            let data = self.network.sealed(port, data);
            let answer = Packet { subnet, node, src_port: dst_port, dst_port: src_port, data };
            self.network.shared.world().simulator.send(&answer)?;
        }
        Ok(())
    }
}
