//! `compare -i`: the packets that pass an interface anyway, of whatever daemon, and on request
//! probes of its own.

use std::time::Duration as StdDuration;

use ptp_common::{
    record::{Direction, Record},
    time::{Duration, Mono, Time},
    wire::{
        Body, ClockIdentity, Header, Message, MessageKey, MessageType, MessageView, PortIdentity,
        Timestamp, Tlvs,
    },
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::time::sleep;

use super::{
    Args, CompareError, Prime,
    join::{Join, Packet, Scope, Sighting},
    point::Point,
    report::{self, Lines, Measurement, Place},
    results::{Results, Traffic},
    side::{Side, SideOptions},
    socket::Sender,
};
use crate::publish::Format;
use crate::{
    capture::{ClockRelation, Interrupts},
    lab::Signals,
    sys::{clock::monotonic, ethtool, hwtstamp::HardwareStamps},
    transport::interface_mac,
};

/// Between two looks. Nothing wakes this process up: see [`super::socket`].
const LOOK: StdDuration = StdDuration::from_millis(20);
/// Interval of the probes until a time transmitter says another, log2 s.
const LOG_PROBE_INTERVAL: i8 = 0;
/// Shortest interval that a time transmitter can make us adopt: 16 per second.
const LOG_SHORTEST: i8 = -4;
/// Longest.
const LOG_LONGEST: i8 = 5;

/// Runs until the duration or the count is reached, or a signal comes.
pub(super) async fn run(args: &Args, format: Format) -> Result<(), CompareError> {
    let interface = args.interface.as_deref().ok_or(CompareError::NoInterface)?;
    let options = SideOptions {
        protocol: args.protocol.protocol(),
        xdp: args.xdp.map(Into::into),
        hints: args.xdp_hints,
        outgoing_copies: !args.no_copies,
    };
    let mut side = Side::open(interface, options)?;
    let _hardware = args
        .hardware
        .then(|| HardwareStamps::enable(interface))
        .transpose()
        .map_err(|source| CompareError::Hardware { interface: interface.to_owned(), source })?;
    let mut probe = args.probe.then(|| Probe::open(args, interface, side.ifindex())).transpose()?;
    let mut interrupts = Interrupts::attach(interface);
    let mut signals = Signals::new()
        .map_err(|source| CompareError::Os { attempt: "listen for signals", source })?;
    let begin = monotonic();
    let deadline = args.duration.map(|duration| {
        begin + Duration::from_nanos(i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX))
    });
    tracing::info!(interface, probe = probe.is_some(), "comparing");
    let mut join = Join::new(Scope::Interface);
    let mut results = Results::default();
    let place = Place::interface(interface);
    let packets = (format.is_json() && args.packets).then(Lines::new);
    loop {
        let now = monotonic();
        if let Ok(interrupts) = &mut interrupts {
            interrupts.drain(&ClockRelation::now());
        }
        look(&mut side, probe.as_mut(), &mut join, now, |packet, traffic| {
            results.judge(packet, traffic);
            results.packet(packet, traffic);
            packets.as_ref().map_or(Ok(()), |lines| lines.packet(&place, packet, traffic))
        })?;
        let is_done = deadline.is_some_and(|deadline| now >= deadline)
            || args.count.is_some_and(|count| is_reached(&results, count));
        if is_done {
            break;
        }
        if let Some(probe) = &mut probe {
            probe.send_if_due(now);
        }
        tokio::select! {
            () = sleep(LOOK) => {}
            () = signals.next() => break,
        }
    }
    // What is still on its way.
    sleep(StdDuration::from_millis(100)).await;
    let end = monotonic() + Join::PATIENCE;
    look(&mut side, probe.as_mut(), &mut join, end, |packet, traffic| {
        results.judge(packet, traffic);
        results.packet(packet, traffic);
        packets.as_ref().map_or(Ok(()), |lines| lines.packet(&place, packet, traffic))
    })?;
    results.finish();
    let measurement = Measurement {
        interface: Some(interface.to_owned()),
        lab: None,
        duration_s: (monotonic() - begin).as_secs_f64(),
        lost: [
            ("ring".to_owned(), side.lost()),
            ("overrun".to_owned(), join.overrun),
            ("clock_step".to_owned(), side.clock_steps),
            ("send_error".to_owned(), probe.as_ref().map_or(0, |probe| probe.errors)),
        ]
        .into(),
        copies_are_early: side.copies_are_early,
        interrupts: Some(match interrupts {
            Ok(mut interrupts) => {
                interrupts.drain(&ClockRelation::now());
                Ok((interrupts.report(), ethtool::moderation(interface).ok()))
            }
            Err(error) => Err(error.to_string()),
        }),
        results,
    };
    report::publish(args, format, &[measurement])
}

/// Each direction that has packets at all has enough of them.
fn is_reached(results: &Results, count: u32) -> bool {
    let counts = [results.received, results.sent];
    counts.iter().any(|n| *n > 0) && counts.iter().all(|n| *n == 0 || *n >= count.into())
}

fn look(
    side: &mut Side,
    mut probe: Option<&mut Probe>,
    join: &mut Join,
    now: Time<Mono>,
    mut each: impl FnMut(&mut Packet, Traffic) -> Result<(), CompareError>,
) -> Result<(), CompareError> {
    let mut sightings: Vec<Sighting> = Vec::new();
    let mut interval = None;
    let identity = probe.as_ref().map(|probe| probe.identity);
    side.drain(
        |record| interval = interval_for(record, identity).or(interval),
        |sighting| sightings.push(sighting),
        |relation, each| {
            if let Some(probe) = &mut probe {
                probe.sender.drain(relation, each);
            }
        },
    );
    if let (Some(probe), Some(log_interval)) = (&mut probe, interval) {
        probe.log_interval = log_interval.clamp(LOG_SHORTEST, LOG_LONGEST);
    }
    let traffic = |packet: &Packet| probe.as_ref().map_or(Traffic::Others, |p| p.traffic(packet));
    for sighting in sightings {
        if let Some(mut packet) = join.push(now, sighting) {
            let traffic = traffic(&packet);
            each(&mut packet, traffic)?;
        }
    }
    while let Some(mut packet) = join.pop(now) {
        let traffic = traffic(&packet);
        each(&mut packet, traffic)?;
    }
    Ok(())
}

/// The interval that a time transmitter asks of us in its Delay_Resp (IEEE 1588-2019 9.5.11.2).
fn interval_for(record: &Record, identity: Option<PortIdentity>) -> Option<i8> {
    let identity = identity?;
    if record.direction != Direction::Ingress {
        return None;
    }
    let view = MessageView::from_prefix(record.message()).ok()?;
    if view.message_type() != MessageType::DelayResp {
        return None;
    }
    match view.body().ok()? {
        Body::DelayResp { requesting_port_identity, .. }
            if requesting_port_identity == identity =>
        {
            Some(view.header().log_message_interval).filter(|log| (-10..=22).contains(log))
        }
        _ => None,
    }
}

/// Sends Delay_Req, as a time receiver would.
struct Probe {
    sender: Sender,
    identity: PortIdentity,
    domain: u8,
    turns: &'static [bool],
    sequence_id: u16,
    log_interval: i8,
    due: Time<Mono>,
    random: ChaCha8Rng,
    errors: u64,
}

impl Probe {
    fn open(args: &Args, interface: &str, ifindex: u32) -> Result<Self, CompareError> {
        let sender =
            Sender::open(interface, ifindex, args.transport).map_err(|(attempt, source)| {
                CompareError::Socket { attempt, interface: interface.to_owned(), source }
            })?;
        let prime = args.prime.unwrap_or(Prime::Off);
        if prime != Prime::Off && !sender.can_prime() {
            return Err(CompareError::NoPriming(interface.to_owned()));
        }
        let mut random = ChaCha8Rng::seed_from_u64(monotonic().as_nanos().unsigned_abs());
        // Another daemon has the identity that follows from the MAC address, with low port numbers.
        let mac = interface_mac(interface).unwrap_or_else(|| random.random());
        let identity = PortIdentity {
            clock_identity: ClockIdentity::from_mac(mac),
            port_number: random.random_range(0x8000..0xffff),
        };
        Ok(Self {
            sender,
            identity,
            domain: args.domain,
            turns: prime.turns(),
            sequence_id: 0,
            log_interval: LOG_PROBE_INTERVAL,
            due: monotonic(),
            random,
            errors: 0,
        })
    }

    fn is_primed(&self, sequence_id: u16) -> bool {
        self.turns[usize::from(sequence_id) % self.turns.len()]
    }

    fn traffic(&self, packet: &Packet) -> Traffic {
        let is_own = packet.key.source_port_identity == self.identity
            && packet.at(Point::TcEgress).or(packet.at(Point::TxSoftware)).is_some();
        if is_own { Traffic::own(self.is_primed(packet.key.sequence_id)) } else { Traffic::Others }
    }

    fn send_if_due(&mut self, now: Time<Mono>) {
        if now < self.due {
            return;
        }
        // Between nothing and twice the interval (9.5.11.2), so that receivers do not synchronise.
        let mean = Duration::from_log_interval(self.log_interval).as_nanos();
        self.due = now + Duration::from_nanos(self.random.random_range(0..=2 * mean));
        let sequence_id = self.sequence_id;
        self.sequence_id = sequence_id.wrapping_add(1);
        let (key, bytes) = delay_req(self.identity, self.domain, sequence_id);
        if self.sender.send(key, &bytes, self.is_primed(sequence_id)).is_err() {
            self.errors += 1;
        }
    }
}

/// A Delay_Req without a time of its own, as two-step clocks send it.
pub(super) fn delay_req(
    identity: PortIdentity,
    domain: u8,
    sequence_id: u16,
) -> (MessageKey, Vec<u8>) {
    let body = Body::DelayReq { origin_timestamp: Timestamp::ZERO };
    emit(Header { domain_number: domain, ..Header::new(identity, sequence_id) }, body)
}

/// A message without TLVs, and its key.
pub(super) fn emit(header: Header, body: Body) -> (MessageKey, Vec<u8>) {
    let message = Message { header, body, tlvs: Tlvs::NONE };
    let mut bytes = vec![0; message.wire_length()];
    // The buffer has the length that the message says.
    let length = message.emit(&mut bytes).unwrap_or(0);
    bytes.truncate(length);
    (message.key(), bytes)
}
