//! The engine of `ptp-agent observe`: it sees what other daemons send and receive and transmits
//! nothing. Fed with every PTP packet that passes a hook, in both directions, it follows all ports
//! of all domains, pairs Sync with Follow_Up, Delay_Req with Delay_Resp and the three messages of
//! the peer delay mechanism, counts what is lost, and measures:
//!
//! - where Sync comes in: the offset of the host's real-time clock from the time transmitter's, and
//!   the mean path delay, from the stamps that this host took and the times in the messages;
//! - where Sync goes out: how far the times that the local time transmitter claims (t1 in its
//!   Follow_Up, t4 in its Delay_Resp) are from the stamps that this host took;
//! - where Pdelay_Req goes out: the delay of the link.
//!
//! What a port is follows from what it does: a port is on this side of the interface if its messages
//! go out, a time transmitter if it sends Sync, a time receiver if it sends Delay_Req. A port is
//! known by its direction as well as its identity, so a packet from outside that pretends to be from
//! a local port does not touch what is known about that port.
//!
//! The engine is sans I/O and its memory is bounded whatever arrives.

mod asked;
mod driven;
mod figures;
mod path;
mod pending;
mod sample;
mod seen;
#[cfg(test)]
mod tests;
mod told;

use crate::extras;
use crate::prelude::*;
use crate::stamp::{Stamp, StampSource};
use asked::Asked;
use core::num::NonZeroUsize;
use lru::LruCache;
use path::{Link, Path, Point};
use pending::{
    CompleteDelay, CompletePdelay, CompleteSync, Duplicate, PdelayRespPart, PeerRequests,
    RequestPart, Requests, ResponsePart, SyncPart, Syncs,
};
use ptp_common::{
    record::Direction,
    time::{Duration, Mono, Ptp, Real, Time},
    wire::{Body, Flags, Header, MessageType, MessageView, PortIdentity, TimeInterval, WireError},
};

use sample::on_ptp_scale;

pub use crate::seam::ObservedPacket;
pub use crate::spread::Spread;
pub use figures::{Exchanges, Losses, Refusals};
pub use seen::{
    Announced, ClaimSample, DelaySample, DomainKey, Observation, OffsetSample, PortKey,
    PortSnapshot,
};
pub use told::Told;

/// Ports that are followed at a time, over all interfaces and domains.
pub const MAX_PORTS: usize = 1024;
/// How long a port must have been silent before another one may take its place.
const PORT_PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks at what has been waited for in vain.
const LOOK: Duration = Duration::from_secs(1);
/// Links whose peer delay is known at a time.
const MAX_LINKS: usize = 64;
/// How many Sync may be missing at once without any time having passed.
const GAP_SLACK: i128 = 16;

/// The stamp of a packet on both clocks.
#[derive(Clone, Copy, Debug)]
struct PacketStamp {
    stamp: Stamp,
    real: Time<Real>,
}

#[derive(Debug)]
struct Port {
    seen: PortSnapshot,
    last_sync: Option<(u16, Time<Mono>)>,
    syncs: Syncs,
    requests: Requests,
    peer_requests: PeerRequests,
    path: Option<Box<Path>>,
    tx_source: Option<StampSource>,
}

impl Port {
    fn new(key: PortKey, now: Time<Mono>) -> Self {
        Self {
            seen: PortSnapshot::new(key, now),
            last_sync: None,
            syncs: Syncs::default(),
            requests: Requests::default(),
            peer_requests: PeerRequests::default(),
            path: None,
            tx_source: None,
        }
    }

    fn expire(&mut self, now: Time<Mono>) {
        let losses = &mut self.seen.losses;
        self.syncs.expire(now, losses);
        self.requests.expire(now, losses);
        self.peer_requests.expire(now, losses);
    }

    /// Counts what the sequence of Sync says about the network. A number is ahead of the last one by
    /// no more than the time between them explains, or the sequence has begun anew.
    fn sync_sequence(&mut self, now: Time<Mono>, header: &Header) {
        let losses = &mut self.seen.losses;
        let Some((last, at)) = self.last_sync else {
            self.last_sync = Some((header.sequence_id, now));
            return;
        };
        // Unicast Sync tell no interval (0x7f); then as many as the fastest that is allowed.
        let log = header.log_message_interval;
        let interval =
            Duration::from_log_interval(if (-10..=22).contains(&log) { log } else { -7 });
        let explained =
            (now - at).as_scaled_nanos() / interval.as_scaled_nanos().max(1) * 4 + GAP_SLACK;
        match header.sequence_id.wrapping_sub(last) {
            // The pairing counts duplicates.
            0 => return,
            1 => {}
            ahead @ 2..=0x7fff if i128::from(ahead) <= explained => {
                losses.sync_gap += u64::from(ahead - 1);
            }
            behind if i128::from(behind) >= 0x1_0000 - GAP_SLACK => {
                losses.sync_reordered += 1;
                // It was counted as missing when the later one came.
                losses.sync_gap = losses.sync_gap.saturating_sub(1);
                return;
            }
            _ => losses.sync_restart += 1,
        }
        self.last_sync = Some((header.sequence_id, now));
    }
}

/// The observer. See the module's description.
#[derive(Debug)]
pub struct Observer {
    ports: LruCache<PortKey, Port>,
    links: LruCache<DomainKey, Link>,
    asked: Asked,
    refusals: Refusals,
    /// When [`Self::advance`] is to be called again, if anything is waited for.
    due: Option<Time<Mono>>,
}

impl Default for Observer {
    fn default() -> Self {
        Self::new()
    }
}

impl Observer {
    /// An observer that has seen nothing.
    pub fn new() -> Self {
        const PORTS: NonZeroUsize = NonZeroUsize::new(MAX_PORTS).expect("not zero");
        const LINKS: NonZeroUsize = NonZeroUsize::new(MAX_LINKS).expect("not zero");
        Self {
            ports: LruCache::new(PORTS),
            links: LruCache::new(LINKS),
            asked: Asked::default(),
            refusals: Refusals::default(),
            due: None,
        }
    }

    /// What was not followed.
    pub fn refusals(&self) -> &Refusals {
        &self.refusals
    }

    /// Every port that is followed, the one that was heard last first.
    pub fn ports(&self) -> impl Iterator<Item = &PortSnapshot> {
        self.ports.iter().map(|(_, port)| &port.seen)
    }

    /// Counts as lost what has been waited for long enough. To be called from time to time, and
    /// before the figures are read.
    pub fn advance(&mut self, now: Time<Mono>) {
        for (_, port) in self.ports.iter_mut() {
            port.expire(now);
        }
        self.expire_asked(now);
        self.due = (!self.ports.is_empty()).then(|| now + LOOK);
    }

    /// Takes a packet that passed a hook, at `now` or shortly before. Returns what it completed.
    pub fn packet(&mut self, now: Time<Mono>, packet: &ObservedPacket<'_>) -> Option<Observation> {
        let parsed = MessageView::from_prefix(packet.bytes)
            .and_then(|view| Ok((view.header(), view.body()?, view)));
        let (header, body, view) = match parsed {
            Ok(parsed) => parsed,
            Err(error) => {
                *match error {
                    WireError::Truncated { .. } => &mut self.refusals.truncated,
                    WireError::Version(_) => &mut self.refusals.wrong_version,
                    _ => &mut self.refusals.malformed,
                } += 1;
                return None;
            }
        };
        // The two ends of the range say that the correction does not fit (5.3.2, 13.3.2.9).
        if matches!(header.correction, TimeInterval(i64::MIN | i64::MAX)) {
            self.refusals.correction += 1;
            return None;
        }
        let domain = DomainKey {
            interface: packet.interface,
            vlan: packet.vlan.filter(|identifier| *identifier != 0),
            domain_number: header.domain_number,
            sdo_id: header.sdo_id,
        };
        let key = PortKey {
            domain,
            direction: packet.direction,
            port_identity: header.source_port_identity,
        };
        let stamp = packet.stamp.map(|stamp| PacketStamp { stamp, real: packet.real });
        if let Some(part) = self.part_of_exchange(packet, &header, &body) {
            return self.exchange(now, key, stamp, part);
        }
        self.heard(now, key, body.message_type())?;
        match body {
            Body::Sync { origin_timestamp } => {
                let part = SyncPart {
                    stamp,
                    origin: origin_timestamp.into(),
                    two_step: header.flags.contains(Flags::TWO_STEP),
                };
                self.sync(now, key, &header, part)
            }
            Body::FollowUp { precise_origin_timestamp } => {
                if let Some(port) = self.ports.peek_mut(&key) {
                    port.seen.told.by_follow_up(&view.tlvs().unwrap_or_default());
                }
                self.follow_up(now, key, &header, precise_origin_timestamp.into())
            }
            Body::DelayReq { .. } => self.delay_req(now, key, &header, stamp),
            Body::DelayResp { receive_timestamp, requesting_port_identity } => {
                let part = ResponsePart {
                    responder: key.port_identity,
                    direction: key.direction,
                    receive_timestamp: receive_timestamp.into(),
                    correction: header.correction.into(),
                };
                self.delay_resp(now, key, header.sequence_id, requesting_port_identity, part)
            }
            Body::PdelayReq { .. } => {
                let port = self.ports.peek_mut(&key)?;
                let outcome = port.peer_requests.request(now, header.sequence_id, stamp);
                port.seen.losses.duplicate += u64::from(outcome.is_err());
                port.expire(now);
                None
            }
            Body::PdelayResp { request_receipt_timestamp, requesting_port_identity } => {
                let part = PdelayRespPart {
                    stamp,
                    request_receipt: request_receipt_timestamp.into(),
                    correction: header.correction.into(),
                    two_step: header.flags.contains(Flags::TWO_STEP),
                };
                let sequence_id = header.sequence_id;
                self.peer_answer(now, key, sequence_id, requesting_port_identity, |pending| {
                    pending.response(sequence_id, key.port_identity, part)
                })
            }
            Body::PdelayRespFollowUp { response_origin_timestamp, requesting_port_identity } => {
                let (origin, correction) =
                    (response_origin_timestamp.into(), header.correction.into());
                let sequence_id = header.sequence_id;
                self.peer_answer(now, key, sequence_id, requesting_port_identity, |pending| {
                    pending.follow_up(sequence_id, key.port_identity, origin, correction)
                })
            }
            Body::Announce(announce) => {
                let port = self.ports.peek_mut(&key)?;
                port.seen.announced = Some(Announced { flags: header.flags, announce });
                port.seen.extras = extras::Extras::of(&view.tlvs().unwrap_or_default());
                None
            }
            Body::Signaling { .. } => {
                let port = self.ports.peek_mut(&key)?;
                port.seen.told.by_signaling(&view.tlvs().unwrap_or_default());
                None
            }
            Body::Management(_) => None,
        }
    }

    /// Finds or makes the port that sent a message, and counts the message. `None` where there is no
    /// room: a newcomer takes the place of the port that has been silent for longest, but only if
    /// that is long enough, so that a flood of invented ports cannot push out the real ones.
    fn heard(&mut self, now: Time<Mono>, key: PortKey, kind: MessageType) -> Option<()> {
        if !self.ports.contains(&key) && self.ports.len() == self.ports.cap().get() {
            let (_, oldest) = self.ports.peek_lru()?;
            if now - oldest.seen.last_seen < PORT_PATIENCE {
                self.refusals.table_full += 1;
                return None;
            }
        }
        self.due.get_or_insert(now + LOOK);
        let port = self.ports.get_or_insert_mut(key, || Port::new(key, now));
        port.expire(now);
        port.seen.last_seen = now;
        port.seen.messages[seen::slot(kind)] += 1;
        Some(())
    }

    fn sync(
        &mut self,
        now: Time<Mono>,
        key: PortKey,
        header: &Header,
        part: SyncPart,
    ) -> Option<Observation> {
        let port = self.ports.peek_mut(&key)?;
        port.sync_sequence(now, header);
        let outcome = port.syncs.sync(
            now,
            header.sequence_id,
            part,
            header.correction.into(),
            key.direction == Direction::Egress,
        );
        self.sync_outcome(now, key, header.sequence_id, outcome)
    }

    fn follow_up(
        &mut self,
        now: Time<Mono>,
        key: PortKey,
        header: &Header,
        origin: Time<Ptp>,
    ) -> Option<Observation> {
        let port = self.ports.peek_mut(&key)?;
        let origin = origin + Duration::from(header.correction);
        let outcome = port.syncs.follow_up(now, header.sequence_id, origin);
        self.sync_outcome(now, key, header.sequence_id, outcome)
    }

    fn sync_outcome(
        &mut self,
        now: Time<Mono>,
        key: PortKey,
        sequence_id: u16,
        outcome: Result<Option<CompleteSync>, Duplicate>,
    ) -> Option<Observation> {
        let link_delay = self.links.peek(&key.domain).and_then(|link| link.delay(now));
        let port = self.ports.peek_mut(&key)?;
        port.expire(now);
        let Ok(complete) = outcome else {
            port.seen.losses.duplicate += 1;
            return None;
        };
        let CompleteSync { stamp, t1 } = complete?;
        let Some(PacketStamp { stamp, real }) = stamp else {
            port.seen.losses.stamp_missing += 1;
            return None;
        };
        port.seen.exchanges.sync += 1;
        match key.direction {
            Direction::Egress => {
                let difference = t1 - on_ptp_scale(real, &port.seen.announced?);
                port.seen.sync_claim.record(difference.as_nanos_f64());
                Some(Observation::SyncClaim(ClaimSample {
                    domain: key.domain,
                    source: key.port_identity,
                    requester: None,
                    sequence_id,
                    at: stamp.time,
                    difference,
                }))
            }
            Direction::Ingress => {
                let sample = port.measure(link_delay, sequence_id, stamp, real, t1, None)?;
                Some(Observation::Offset(sample))
            }
        }
    }

    fn delay_req(
        &mut self,
        now: Time<Mono>,
        key: PortKey,
        header: &Header,
        stamp: Option<PacketStamp>,
    ) -> Option<Observation> {
        let part = RequestPart { stamp, correction: header.correction.into() };
        let port = self.ports.peek_mut(&key)?;
        let outcome = port.requests.request(now, header.sequence_id, part);
        port.expire(now);
        let Ok(complete) = outcome else {
            port.seen.losses.duplicate += 1;
            return None;
        };
        self.delay_complete(key, header.sequence_id, complete?)
    }

    fn delay_resp(
        &mut self,
        now: Time<Mono>,
        key: PortKey,
        sequence_id: u16,
        requester: PortIdentity,
        part: ResponsePart,
    ) -> Option<Observation> {
        let asked = |direction| PortKey { direction, port_identity: requester, ..key };
        let requester = if self.ports.contains(&asked(opposite(key.direction))) {
            asked(opposite(key.direction))
        } else {
            asked(key.direction)
        };
        let Some(port) = self.ports.peek_mut(&requester) else {
            self.ports.peek_mut(&key)?.seen.losses.unknown_requester += 1;
            return None;
        };
        port.expire(now);
        let outcome = port.requests.response(now, sequence_id, part);
        port.expire(now);
        let Ok(complete) = outcome else {
            self.ports.peek_mut(&key)?.seen.losses.duplicate += 1;
            return None;
        };
        self.delay_complete(requester, sequence_id, complete?)
    }

    /// A Delay_Req of `requester` is answered.
    fn delay_complete(
        &mut self,
        requester: PortKey,
        sequence_id: u16,
        complete: CompleteDelay,
    ) -> Option<Observation> {
        let CompleteDelay { request, response } = complete;
        let direction = response.direction;
        let port = self.ports.peek_mut(&requester)?;
        if requester.direction == direction {
            port.seen.exchanges.foreign_delay += 1;
            return None;
        }
        let Some(PacketStamp { stamp, real }) = request.stamp else {
            port.seen.losses.stamp_missing += 1;
            return None;
        };
        port.seen.exchanges.delay += 1;
        let responder = PortKey { direction, port_identity: response.responder, ..requester };
        let port = self.ports.peek_mut(&responder)?;
        port.seen.exchanges.delay_answered += 1;
        let domain = requester.domain;
        match direction {
            Direction::Ingress => {
                // The correction field of Delay_Resp contains that of Delay_Req, what transparent
                // clocks have added to it included (11.3.2).
                let t4 = response.receive_timestamp - response.correction;
                port.tx_source = Some(stamp.source);
                let point = Point { at: stamp.time, difference: t4.ahead_of(stamp.time) };
                let delay = port.path.get_or_insert_default().request(point);
                if let Some(delay) = delay {
                    port.seen.delay.record(delay.as_nanos_f64());
                }
                Some(Observation::Delay(DelaySample {
                    domain,
                    source: response.responder,
                    requester: requester.port_identity,
                    sequence_id,
                    at: stamp.time,
                    delay,
                }))
            }
            Direction::Egress => {
                // What the answer's correction has more than the request's is the fraction of a
                // nanosecond that the timestamp could not carry, with the sign reversed (11.3.2).
                let fraction = response.correction - request.correction;
                let claimed = response.receive_timestamp - fraction;
                let difference = claimed - on_ptp_scale(real, &port.seen.announced?);
                port.seen.delay_claim.record(difference.as_nanos_f64());
                Some(Observation::DelayClaim(ClaimSample {
                    domain,
                    source: response.responder,
                    requester: Some(requester.port_identity),
                    sequence_id,
                    at: stamp.time,
                    difference,
                }))
            }
        }
    }

    /// A part of the answer of port `key` to a Pdelay_Req of port `requester`.
    fn peer_answer(
        &mut self,
        now: Time<Mono>,
        key: PortKey,
        sequence_id: u16,
        requester: PortIdentity,
        enter: impl FnOnce(&mut PeerRequests) -> Option<Result<Option<CompletePdelay>, Duplicate>>,
    ) -> Option<Observation> {
        let asked = |direction| PortKey { direction, port_identity: requester, ..key };
        let asked = if self.ports.contains(&asked(opposite(key.direction))) {
            asked(opposite(key.direction))
        } else {
            asked(key.direction)
        };
        let Some(port) = self.ports.peek_mut(&asked) else {
            self.ports.peek_mut(&key)?.seen.losses.unknown_requester += 1;
            return None;
        };
        port.expire(now);
        let seen = &mut port.seen;
        let complete = match enter(&mut port.peer_requests) {
            None => {
                seen.losses.pdelay_resp_refused += 1;
                return None;
            }
            Some(Err(Duplicate)) => {
                seen.losses.duplicate += 1;
                return None;
            }
            Some(Ok(complete)) => complete?,
        };
        if asked.direction == key.direction {
            seen.exchanges.foreign_peer_delay += 1;
            return None;
        }
        let (Some(request), Some(response)) = (complete.request, complete.response) else {
            seen.losses.stamp_missing += 1;
            return None;
        };
        seen.exchanges.peer_delay += 1;
        if asked.direction == Direction::Ingress {
            // The local port only answers; between these two stamps lies its own turnaround.
            return None;
        }
        // The turnaround is the peer's, on its clock: at 100 ppm and 1 ms, 50 ns are neglected.
        let round_trip = response.stamp.time - request.stamp.time;
        let delay = (round_trip - complete.turnaround).half();
        let link = self.links.get_or_insert_mut(key.domain, || Link::new(key.port_identity));
        if !link.exchange(response.stamp.time, key.port_identity, delay) {
            seen.losses.pdelay_resp_refused += 1;
            return None;
        }
        seen.delay.record(delay.as_nanos_f64());
        Some(Observation::PeerDelay(DelaySample {
            domain: key.domain,
            source: key.port_identity,
            requester,
            sequence_id,
            at: request.stamp.time,
            delay: Some(delay),
        }))
    }
}

const fn opposite(direction: Direction) -> Direction {
    match direction {
        Direction::Ingress => Direction::Egress,
        Direction::Egress => Direction::Ingress,
    }
}
