//! The pairing desk: records of the kernel programs on one side, messages of the sockets on the other, and which
//! stamp of a packet is used.

use super::*;
use crate::{
    agent::tap::address_of,
    capture::{Asked, XdpHook},
};

/// One direction of a port.
#[derive(Debug)]
pub(super) struct Side {
    pub(super) pairing: Pairing,
    pub(super) reach: Reach,
    pub(super) selector: Selector,
    pub(super) matched: BTreeMap<StampSource, u64>,
    pub(super) differences: BTreeMap<StampSource, Histogram>,
    pub(super) interrupted: u64,
}

impl Side {
    pub(super) fn new(selector: Selector) -> Self {
        let (matched, differences) = Default::default();
        let (pairing, reach) = Default::default();
        Self { pairing, reach, selector, matched, interrupted: 0, differences }
    }

    /// Forgets what was measured of the capture points.
    pub(super) fn compare_anew(&mut self, selector: Selector) {
        self.selector = selector.in_place_of(&self.selector);
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

    /// The stamp of a packet out of those that its points have taken, moved to the reference.
    fn choose(
        &mut self,
        stamps: &Candidates,
        direction: Direction,
        manner: Manner,
    ) -> Option<Stamp> {
        let mut stamp = self.selector.choose(stamps)?;
        *self.matched.entry(stamp.source).or_default() += 1;
        // What was used, against all that was seen: the moving to the reference included.
        stamp.doubt = stamps.doubt(stamp.time, direction);
        stamp.manner = manner;
        Some(stamp)
    }

    fn received(
        &mut self,
        stamps: &Candidates,
        manner: Manner,
        latency: &Latencies,
    ) -> Option<Stamp> {
        self.compare(stamps);
        let mut stamp = self.choose(stamps, Direction::Ingress, manner)?;
        stamp.late = Duration::ZERO;
        stamp.time = stamp.time - latency.of(self.selector.reference());
        Some(stamp)
    }

    /// When a message left; `None` where something came between its stamps.
    pub(super) fn sent(
        &mut self,
        stamps: &Candidates,
        bracket: &mut Bracket,
        manner: Manner,
        latency: &Latencies,
    ) -> Option<Stamp> {
        self.compare(stamps);
        if !bracket.is_sound_around(stamps) {
            self.interrupted += 1;
            return None;
        }
        let mut stamp = self.choose(stamps, Direction::Egress, manner)?;
        let time = stamp.time;
        let left = stamps.time(StampSource::XmitDone);
        stamp.late = left.map_or(Duration::ZERO, |left| (left - time).max(Duration::ZERO));
        stamp.time = time + latency.of(self.selector.reference());
        Some(stamp)
    }

    pub(super) fn counts(&self) -> SideCounts {
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

pub(super) enum Found {
    /// The stamp, or the certainty that there will be none.
    Stamp(Option<Stamp>),
    Wait,
}

impl Io {
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

    pub(super) fn find(&mut self, waiting: &Waiting, now: Time<Mono>) -> Found {
        let port = &mut self.ports[usize::from(waiting.port.0)];
        let sent = waiting.token.is_some();
        let (side, patience) =
            if sent { (&mut port.tx, TX_PATIENCE) } else { (&mut port.rx, RX_PATIENCE) };
        // A message is looked for once on arrival; whatever comes later is a retry. When patience is
        // at its end, any point's stamp will do.
        let asked =
            if waiting.until - now < patience - RETRY { Asked::Again } else { Asked::First };
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
        let is_stale = waiting.stack.is_some_and(|stack| waiting.until - stack.time > QUEUED);
        let seen = side.pairing.take(port.ifindex, &waiting.bytes, asked, enough);
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
            // What has waited long in the socket's queue may have had a record that is forgotten by now.
            Outcome::NotYet if given_up && !is_stale => side.reach.missed(),
            Outcome::NotYet => {}
        }
        match outcome {
            Outcome::Matched(stamps) if sent => {
                port.primer.after_event(&stamps);
                let bracket = &mut port.brackets[waiting.manner as usize];
                let latency = &self.config.egress_latency;
                let stamp = side.sent(&stamps, bracket, waiting.manner, latency);
                Found::Stamp(doubted(stamp, port.card.as_ref()))
            }
            Outcome::Matched(stamps) => {
                let latency = &self.config.ingress_latency;
                let stamp = side.received(&stamps, waiting.manner, latency);
                Found::Stamp(doubted(stamp, port.card.as_ref()))
            }
            Outcome::NotYet if given_up => {
                side.pairing.give_up();
                Found::Stamp(None)
            }
            Outcome::NotYet => Found::Wait,
        }
    }

    pub(super) fn drain(&mut self, now: Time<Mono>) {
        self.drained = now;
        let relation = ClockRelation::now();
        let Self { programs, hooks, ports, .. } = self;
        programs.drain(|record| {
            if record.hook == Hook::Xmit {
                // Knows its packet by the serial alone.
                for point in [StampSource::XmitDone, StampSource::StartXmit] {
                    if let Some(stamp) = stamp_at(&record, point, &relation) {
                        ports.iter_mut().any(|Port { lanes, tx, .. }| {
                            lanes.amend(record.serial, stamp)
                                || tx.pairing.amend(record.serial, stamp)
                        });
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
                if let Some(stamp) = stamp_at(&record, StampSource::TcEgress, &relation) {
                    stamps.add(stamp);
                }
                let to = address_of(&record, &record.destination);
                if port.lanes.claim(to, record.message(), record.serial, stamps) {
                    return;
                }
                let (message, serial) = (record.message(), record.serial);
                port.tx.pairing.push(now, port.ifindex, message, serial, stamps);
                return;
            }
            let points = match record.hook {
                Hook::XdpIngress => [hooks[at].xdp.map(XdpHook::point), None],
                _ => [Some(StampSource::Stack), Some(StampSource::TcIngress)],
            };
            for point in points.into_iter().flatten() {
                match stamp_at(&record, point, &relation) {
                    Some(stamp) => stamps.add(stamp),
                    None => port.counts.without_stamp += 1,
                }
            }
            if let Some(card) = port.card.as_ref().filter(|_| record.hardware_ns != 0) {
                let of_card = i64::try_from(record.hardware_ns).ok().map(Time::from_nanos);
                of_card.and_then(|time| card.stamp(time)).into_iter().for_each(|it| stamps.add(it));
            }
            port.rx.pairing.push(now, port.ifindex, record.message(), 0, stamps);
        });
        for port in ports {
            if let Some(card) = &mut port.card {
                card.look(now);
            }
            port.rx.pairing.expire(now);
            port.tx.pairing.expire(now);
        }
    }
}

/// A stamp with what is not known of the card's clock, where it is the card's.
fn doubted(stamp: Option<Stamp>, card: Option<&Card>) -> Option<Stamp> {
    let mut stamp = stamp?;
    if let Some(bound) = card.and_then(Card::bound)
        && stamp.source == StampSource::Hardware
    {
        stamp.doubt += bound;
    }
    Some(stamp)
}

/// Event messages have types below 8 (IEEE 1588-2019 table 36); only they are worth a stamp. What is
/// shorter than a header is no message, and could be the beginning of many.
pub(in crate::agent) fn is_event(message: &[u8]) -> bool {
    message.len() >= HEADER_LENGTH && message[0] & 0x0f < 8
}
