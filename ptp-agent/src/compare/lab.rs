//! `compare --lab`: two namespaces of one host exchange Sync and Delay_Req, and because both have
//! the one CLOCK_MONOTONIC, the time from a transmit to a receive stamp is known to the nanosecond.
//! Primed and unprimed exchanges take turns, so that whatever else happens on the host happens to
//! both.

use std::{
    collections::VecDeque,
    net::{IpAddr, Ipv4Addr},
    time::Duration as StdDuration,
};

use ptp_common::{
    classify::Protocol,
    time::{Duration, Mono, Time},
    wire::{Body, ClockIdentity, Header, MessageKey, MessageType, PortIdentity, Timestamp},
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::time::sleep;

use super::{
    Args, CompareError, Link, Prime,
    join::{Join, Packet, Scope, Sighting},
    live::{delay_req, emit},
    load::Load,
    report::{self, Lines, Measurement, Place},
    results::{Results, Traffic},
    side::{Side, SideOptions, index},
    socket::Sender,
};
use crate::publish::Format;
use crate::{
    lab::{
        Signals,
        netns::{Namespace, veth},
    },
    sys::clock::monotonic,
    transport::TransportKind,
};

/// Exchanges of each kind by default; as many as the figures need to be worth something.
const EXCHANGES: u32 = 1000;
/// Exchanges of each kind per second.
const RATE: i64 = 16;
/// Exchanges whose second packet has not come yet.
const WAITING: usize = 256;
/// TEST-NET-1 of RFC 5737: nobody has a route to it.
const ADDRESSES: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2)];
const VETH: [&str; 2] = ["cmp0", "cmp1"];
const BRIDGE: [&str; 2] = ["cmpbr0", "cmpbr1"];

/// What disturbs a measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Disturbance {
    Idle,
    Busy(u16),
    Flood,
    BusyFlood(u16),
}

impl Disturbance {
    fn chosen(args: &Args) -> Vec<Self> {
        match (args.load, args.flood) {
            (None, false) => vec![Self::Idle, Self::Busy(4), Self::Flood],
            (None | Some(0), true) => vec![Self::Flood],
            (Some(0), false) => vec![Self::Idle],
            (Some(count), false) => vec![Self::Busy(count)],
            (Some(count), true) => vec![Self::BusyFlood(count)],
        }
    }

    /// For tables and JSON.
    pub(super) fn name(self) -> String {
        match self {
            Self::Idle => "idle".into(),
            Self::Busy(count) => format!("busy_{count}"),
            Self::Flood => "udp_flood".into(),
            Self::BusyFlood(count) => format!("busy_{count}_udp_flood"),
        }
    }
}

/// The conditions of one measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Conditions {
    pub(super) link: Link,
    pub(super) disturbance: Disturbance,
}

/// Measures under all conditions that are asked for.
pub(super) async fn run(args: &Args, format: Format) -> Result<(), CompareError> {
    let mut signals = Signals::new()
        .map_err(|source| CompareError::Os { attempt: "listen for signals", source })?;
    let links = Link::ALL.into_iter().filter(|link| args.link.is_none_or(|only| only == *link));
    let all: Vec<Conditions> = links
        .flat_map(|link| {
            let conditions = move |disturbance| Conditions { link, disturbance };
            Disturbance::chosen(args).into_iter().map(conditions)
        })
        .collect();
    let mut measurements = Vec::new();
    for (at, conditions) in all.iter().enumerate() {
        eprintln!(
            "measurement {} of {}: {}, {}",
            at + 1,
            all.len(),
            conditions.link.name(),
            conditions.disturbance.name()
        );
        let mut laboratory = Laboratory::open(args, *conditions, format)?;
        let was_interrupted = laboratory.measure(args, &mut signals).await?;
        measurements.push(laboratory.finish()?);
        if was_interrupted {
            break;
        }
    }
    report::publish(args, format, &measurements)
}

/// One end of the link.
struct End {
    side: Side,
    sender: Sender,
    identity: PortIdentity,
}

impl End {
    fn open(
        namespace: &Namespace,
        interface: &str,
        identity: PortIdentity,
        args: &Args,
    ) -> Result<Self, CompareError> {
        let options = SideOptions {
            protocol: Protocol::Ptp,
            xdp: args.xdp.map(Into::into),
            hints: false,
            outgoing_copies: false,
        };
        let transport: TransportKind = args.transport;
        let (side, sender) = namespace.run(|| {
            let side = Side::open(interface, options)?;
            let sender = Sender::open(interface, index(interface)?, transport).map_err(
                |(attempt, source)| CompareError::Socket {
                    attempt,
                    interface: interface.to_owned(),
                    source,
                },
            )?;
            Ok::<_, CompareError>((side, sender))
        })??;
        Ok(Self { side, sender, identity })
    }
}

/// Everything of one measurement. Fields are dropped in this order: hooks and sockets before the
/// namespaces that they are in.
struct Laboratory {
    conditions: Conditions,
    _load: Load,
    ends: [End; 2],
    turns: &'static [bool],
    join: Join,
    /// First packets of exchanges, by `sequenceId`.
    there: VecDeque<Packet>,
    results: Results,
    packets: Option<Lines>,
    errors: u64,
    begin: Time<Mono>,
    _namespaces: [Namespace; 2],
}

impl Laboratory {
    fn open(args: &Args, conditions: Conditions, format: Format) -> Result<Self, CompareError> {
        let namespaces = [Namespace::new()?, Namespace::new()?];
        let [a, b] = &namespaces;
        veth(a, VETH[0], b, VETH[1])?;
        let interfaces = match conditions.link {
            Link::Veth => VETH,
            Link::Bridge => {
                a.bridge(BRIDGE[0], &[VETH[0]])?;
                b.bridge(BRIDGE[1], &[VETH[1]])?;
                BRIDGE
            }
        };
        for ((namespace, interface), address) in namespaces.iter().zip(interfaces).zip(ADDRESSES) {
            namespace.add_address(interface, address.into(), 24)?;
        }
        let identity = |number: u8| PortIdentity {
            clock_identity: ClockIdentity([2, 0, 0, 0xff, 0xfe, 0, 0, number]),
            port_number: 1,
        };
        let ends = [
            End::open(a, interfaces[0], identity(1), args)?,
            End::open(b, interfaces[1], identity(2), args)?,
        ];
        let mut load = Load::default();
        let busy = |source| CompareError::Os { attempt: "start a busy loop", source };
        match conditions.disturbance {
            Disturbance::Idle => {}
            Disturbance::Busy(count) => load.busy(count).map_err(busy)?,
            Disturbance::Flood => load.flood(a, b, IpAddr::V4(ADDRESSES[1]))?,
            Disturbance::BusyFlood(count) => {
                load.busy(count).map_err(busy)?;
                load.flood(a, b, IpAddr::V4(ADDRESSES[1]))?;
            }
        }
        Ok(Self {
            conditions,
            _load: load,
            ends,
            turns: args.prime.unwrap_or(Prime::Both).turns(),
            join: Join::new(Scope::Link),
            there: VecDeque::new(),
            results: Results::default(),
            packets: (format.is_json() && args.packets).then(Lines::new),
            errors: 0,
            begin: monotonic(),
            _namespaces: namespaces,
        })
    }

    /// Runs the exchanges; true when a signal has ended them.
    async fn measure(&mut self, args: &Args, signals: &mut Signals) -> Result<bool, CompareError> {
        let kinds = self.turns.len() as u32;
        let exchanges = args.count.unwrap_or(EXCHANGES).saturating_mul(kinds);
        let deadline = args.duration.map(|duration| tokio::time::Instant::now() + duration);
        let mut random = ChaCha8Rng::seed_from_u64(0);
        // Two messages to an exchange.
        let slot = 1_000_000_000 / (RATE * i64::from(kinds) * 2);
        for exchange in 0..exchanges {
            if deadline.is_some_and(|deadline| tokio::time::Instant::now() >= deadline)
                && (args.count.is_none() || exchange >= kinds)
            {
                break;
            }
            for end in 0..2 {
                // Half the slot of rest at least, and no beat with the kernel's timers.
                let rest = random.random_range(slot / 4..slot / 2);
                if rested(rest, signals).await {
                    return Ok(true);
                }
                self.send(end, exchange);
                if rested(slot - slot * 3 / 8, signals).await {
                    return Ok(true);
                }
                self.look(monotonic())?;
            }
        }
        Ok(false)
    }

    fn is_primed(&self, sequence_id: u16) -> bool {
        self.turns[usize::from(sequence_id) % self.turns.len()]
    }

    fn send(&mut self, end: usize, exchange: u32) {
        let sequence_id = (exchange & 0xffff) as u16;
        let primed = self.is_primed(sequence_id);
        let End { sender, identity, .. } = &mut self.ends[end];
        let (key, bytes) = if end == 0 {
            let body = Body::Sync { origin_timestamp: Timestamp::ZERO };
            emit(Header::new(*identity, sequence_id), body)
        } else {
            delay_req(*identity, 0, sequence_id)
        };
        if sender.send(key, &bytes, primed).is_err() {
            self.errors += 1;
        }
    }

    fn look(&mut self, now: Time<Mono>) -> Result<(), CompareError> {
        let mut sightings: Vec<Sighting> = Vec::new();
        for End { side, sender, .. } in &mut self.ends {
            side.drain(
                |_| {},
                |sighting| sightings.push(sighting),
                |relation, each| sender.drain(relation, each),
            );
        }
        for sighting in sightings {
            // A namespace's own neighbours talk too; only the two ends count.
            if self.is_ours(&sighting.key)
                && let Some(packet) = self.join.push(now, sighting)
            {
                self.packet(packet)?;
            }
        }
        while let Some(packet) = self.join.pop(now) {
            self.packet(packet)?;
        }
        Ok(())
    }

    fn is_ours(&self, key: &MessageKey) -> bool {
        self.ends.iter().any(|end| end.identity == key.source_port_identity)
    }

    fn packet(&mut self, mut packet: Packet) -> Result<(), CompareError> {
        let traffic = Traffic::own(self.is_primed(packet.key.sequence_id));
        self.results.judge(&mut packet, traffic);
        self.results.packet(&packet, traffic);
        self.results.crossing(&packet, traffic);
        if let Some(lines) = &self.packets {
            lines.packet(&Place::lab(self.conditions), &packet, traffic)?;
        }
        if packet.key.message_type == MessageType::Sync {
            if self.there.len() == WAITING {
                self.there.pop_front();
            }
            self.there.push_back(packet);
        } else {
            let id = packet.key.sequence_id;
            let at = self.there.iter().position(|there| there.key.sequence_id == id);
            if let Some(there) = at.and_then(|at| self.there.remove(at)) {
                self.results.exchange(&there, &packet, traffic);
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Measurement, CompareError> {
        let duration_s = (monotonic() - self.begin).as_secs_f64();
        self.look(monotonic() + Join::PATIENCE + Duration::from_nanos(1))?;
        // Packets that this look has brought.
        self.look(monotonic() + Join::PATIENCE * 3)?;
        self.results.finish();
        let sum = |count: fn(&End) -> u64| self.ends.iter().map(count).sum();
        Ok(Measurement {
            interface: None,
            lab: Some(self.conditions),
            duration_s,
            lost: [
                ("ring".to_owned(), sum(|end| end.side.lost())),
                ("overrun".to_owned(), self.join.overrun),
                ("clock_step".to_owned(), sum(|end| end.side.clock_steps)),
                ("send_error".to_owned(), self.errors),
            ]
            .into(),
            copies_are_early: self.ends.iter().any(|end| end.side.copies_are_early),
            interrupts: None,
            results: self.results,
        })
    }
}

/// Sleeps; true when a signal has come meanwhile.
async fn rested(nanos: i64, signals: &mut Signals) -> bool {
    tokio::select! {
        () = sleep(StdDuration::from_nanos(nanos.unsigned_abs())) => false,
        () = signals.next() => true,
    }
}
