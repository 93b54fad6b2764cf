//! What a port does that sends its time: Announce, two-step Sync whose Follow_Up carries the stamp of its own
//! transmission, Delay_Resp, and answers to Pdelay_Req.

use alloc::collections::VecDeque;
use core::net::IpAddr;

use ptp_common::{
    time::{Duration, Mono, Ptp, Time},
    wire::{Body, Bracket, Flags, Header, MessageType, PortIdentity, TimeInterval, Timestamp},
};

use crate::{
    Datagram, Destination, Group, PortIndex, SentToken,
    address::Address,
    counters::Drop,
    datagram::Telling,
    instance::{Cx, Instance, Received},
    port::{PortTimer, Role},
    sent::Sent,
    stamp::Stamp,
};

/// Sync messages that wait for their stamp, per port.
const PENDING_SYNCS: usize = 16;
/// Length of an Announce without TLVs.
const ANNOUNCE: usize = MessageType::Announce.fixed_length();
/// `logMessageInterval` that says no interval.
pub(crate) const UNICAST_INTERVAL: i8 = crate::unicast::NO_INTERVAL;

/// What whoever fills in a form may lose by rounding to whole nanoseconds.
const ROUNDED_NS: i32 = 3;

/// What belongs to a port while it sends.
#[derive(Debug, Default)]
pub(crate) struct Serving {
    syncs: VecDeque<(SentToken, u16)>,
}

impl Instance {
    /// Sends and lets others send at other intervals, log2 s. Longer ones begin after what is due
    /// already.
    pub fn set_intervals(&mut self, now: Time<Mono>, sync: i8, announce: i8, min_delay_req: i8) {
        self.served.log_sync_interval = sync;
        self.served.log_announce_interval = announce;
        self.served.log_min_delay_req_interval = min_delay_req;
        for index in 0..self.ports.len() as u16 {
            for (timer, log) in [(PortTimer::Sync, sync), (PortTimer::Announce, announce)] {
                let key = (index, timer);
                let at_most = now + Duration::from_log_interval(log);
                let due = self.timers.at(key).map(|due| due.min(at_most));
                self.timers.put(key, due);
            }
        }
    }

    /// Announce and Sync to all, unless they are for those alone who ask.
    pub(crate) fn begin_multicast(&mut self, now: Time<Mono>, index: usize) {
        if self.served.multicast {
            if !self.is_fixed() {
                self.timers.set((index as u16, PortTimer::Announce), now);
            }
            self.timers.set((index as u16, PortTimer::Sync), now);
        }
    }

    pub(crate) fn announce_due(&mut self, cx: &mut Cx<'_>, index: usize, due: Time<Mono>) {
        let log = self.ports[index].asked_announce.unwrap_or(self.served.log_announce_interval);
        self.timers.set((index as u16, PortTimer::Announce), following(due, cx.now, log));
        let port = &mut self.ports[index];
        if !port.is_capable {
            return;
        }
        let sequence_id = port.announce_sequence_id;
        port.announce_sequence_id = sequence_id.wrapping_add(1);
        let mut header = self.header_of(index, sequence_id, log);
        let (announce, flags) = self.announced(cx.now);
        header.flags = flags;
        let mut buffer = [0; Datagram::CAPACITY - ANNOUNCE];
        let tlvs = self.announced_tlvs(index, &mut buffer);
        let body = Body::Announce(announce);
        let whole = Datagram::with_tlvs(header, body, tlvs);
        let message = whole.unwrap_or_else(|_| Datagram::new(header, body));
        self.send_general(cx, index, MessageType::Announce, Group::Primary, message);
    }

    pub(crate) fn sync_due(&mut self, cx: &mut Cx<'_>, index: usize, due: Time<Mono>) {
        let log = self.log_sync_interval(index);
        self.timers.set((index as u16, PortTimer::Sync), following(due, cx.now, log));
        if self.ports[index].is_capable && !self.is_sync_locked(index) && self.has_time(cx.now) {
            self.send_sync(cx, index);
        }
    }

    /// Sends a Sync on a port.
    pub(crate) fn send_sync(&mut self, cx: &mut Cx<'_>, index: usize) {
        let log = self.log_sync_interval(index);
        let port = &mut self.ports[index];
        let Role::Transmitter(serving) = &mut port.role else { return };
        let token = self.in_flight.put(crate::PortIndex(index as u16), Sent::Sync);
        let sequence_id = port.sync_sequence_id;
        port.sync_sequence_id = sequence_id.wrapping_add(1);
        if serving.syncs.len() >= PENDING_SYNCS {
            serving.syncs.pop_front();
            port.counters.count_drop(Drop::MissingTxStamp);
        }
        serving.syncs.push_back((token, sequence_id));
        let mut header = self.header_of(index, sequence_id, log);
        header.flags |= Flags::TWO_STEP;
        let body = Body::Sync { origin_timestamp: Timestamp::ZERO };
        let message = Datagram::new(header, body);
        self.send_event(cx, index, MessageType::Sync, token, Group::Primary, message);
    }

    pub(crate) fn log_sync_interval(&self, index: usize) -> i8 {
        self.ports[index].asked_sync.unwrap_or(self.served.log_sync_interval)
    }

    /// The stamp of a Sync, or the news that there is none.
    pub(crate) fn sync_sent(
        &mut self,
        cx: &mut Cx<'_>,
        index: usize,
        token: SentToken,
        stamp: Option<Stamp>,
    ) {
        let port = &mut self.ports[index];
        let Role::Transmitter(serving) = &mut port.role else { return };
        let Some(at) = serving.syncs.iter().position(|(each, _)| *each == token) else { return };
        let sequence_id = serving.syncs.remove(at).map_or(0, |(_, sequence_id)| sequence_id);
        let told = stamp.and_then(|stamp| Some((stamp, self.told(cx, stamp.time)?)));
        let port = &mut self.ports[index];
        let Some((stamp, told)) = told else {
            port.counters.count_drop(Drop::MissingTxStamp);
            return;
        };
        port.counters.sync_exchanges += 1;
        let is_gptp = port.config.rules.are_gptp();
        let mut header = self.header_of(index, sequence_id, self.log_sync_interval(index));
        header.correction = told.correction;
        let bracket = transmit_bracket(&stamp).filter(|_| self.served.tells_brackets);
        let body = Body::FollowUp { precise_origin_timestamp: told.origin };
        let value = told.information.value();
        let gptp = is_gptp.then_some(&value[..]);
        let bracket = bracket.filter(|_| !is_gptp);
        let telling = Telling { gptp, bracket, deviation: told.deviation };
        let message = Datagram::telling(header, body, telling);
        self.send_general(cx, index, MessageType::FollowUp, Group::Primary, message);
    }

    /// Somebody asks for an answer, and may have to wait for others.
    pub(crate) fn admit_request(
        &mut self,
        now: Time<Mono>,
        received: &Received<'_>,
        header: &Header,
    ) -> Result<(), Drop> {
        let host = received.from.map(address);
        let who = (header.source_port_identity, host);
        if self.requests.as_mut().is_some_and(|requests| !requests.admit(now, &host, &who)) {
            return Err(Drop::RateLimited);
        }
        Ok(())
    }

    /// A Delay_Req.
    pub(crate) fn take_delay_req(
        &mut self,
        cx: &mut Cx<'_>,
        received: &Received<'_>,
        header: &Header,
    ) -> Result<(), Drop> {
        match self.admit_granted(cx.now, received, header) {
            Some(true) => {}
            Some(false) => return Err(Drop::RateLimited),
            None => self.admit_request(cx.now, received, header)?,
        }
        let arrival = received.stamp.and_then(|stamp| cx.clock.at(stamp.time));
        let arrival = arrival.ok_or(Drop::MissingRxStamp)?;
        self.answer_delay_req(cx, received, header, arrival);
        Ok(())
    }

    fn answer_delay_req(
        &mut self,
        cx: &mut Cx<'_>,
        received: &Received<'_>,
        request: &Header,
        arrival: Time<Ptp>,
    ) {
        let index = received.index;
        let asked_alone = received.from.filter(|_| request.flags.contains(Flags::UNICAST));
        // The interval of what is unicast is a matter of its negotiation (table 42).
        let log = match asked_alone {
            Some(_) => UNICAST_INTERVAL,
            None => self.served.log_min_delay_req_interval,
        };
        let mut header = self.header_of(index, request.sequence_id, log);
        let (receive_timestamp, fraction) = Timestamp::from_time(arrival);
        // 11.3.2 c) 3): the request's correction, less the fraction that the timestamp leaves out.
        header.correction = TimeInterval(request.correction.0.saturating_sub(fraction.0));
        let body = Body::DelayResp {
            receive_timestamp,
            requesting_port_identity: request.source_port_identity,
        };
        self.ports[index].counters.delay_exchanges += 1;
        let to = match asked_alone {
            Some(to) => {
                header.flags |= Flags::UNICAST;
                Destination::Unicast(to)
            }
            None => Destination::Multicast(Group::Primary),
        };
        let told = received.stamp.filter(|_| self.served.tells_brackets);
        let deviation = received.stamp.and_then(|it| self.deviation(cx, it.time, arrival));
        let bracket = told.map(|stamp| receive_bracket(&stamp));
        let message = Datagram::telling(header, body, Telling { gptp: None, bracket, deviation });
        self.send(cx, index, MessageType::DelayResp, to, message, None);
    }

    /// The Delay_Resp of a port as a form that somebody else may fill in who answers in its name:
    /// sequenceId, correctionField, receiveTimestamp and requestingPortIdentity. A time to whole nanoseconds
    /// is meant, which is why the bracket ends a little later. `None` while the port is no time transmitter.
    pub fn delay_resp_form(&self, port: PortIndex) -> Option<Datagram> {
        let index = usize::from(port.0);
        if !self.is_telling(index) {
            return None;
        }
        let header = self.header_of(index, 0, self.served.log_min_delay_req_interval);
        let body = Body::DelayResp {
            receive_timestamp: Timestamp::ZERO,
            requesting_port_identity: PortIdentity::default(),
        };
        let bracket = Bracket { earliest_ns: i32::MIN, latest_ns: ROUNDED_NS };
        Some(Datagram::bracketed(header, body, self.served.tells_brackets.then_some(bracket)))
    }

    fn header_of(&self, index: usize, sequence_id: u16, log_interval: i8) -> Header {
        let mut header = self.header(index, sequence_id);
        header.log_message_interval = log_interval;
        header
    }
}

/// What is known of the departure that a stamp stands for.
pub(crate) fn transmit_bracket(stamp: &Stamp) -> Option<Bracket> {
    (stamp.late > Duration::ZERO).then(|| Bracket {
        earliest_ns: -whole_nanos(stamp.doubt),
        latest_ns: whole_nanos(stamp.late),
    })
}

/// The same of an arrival: when the interrupt was is not known, only on which side of it the stamp is.
fn receive_bracket(stamp: &Stamp) -> Bracket {
    Bracket { earliest_ns: i32::MIN, latest_ns: whole_nanos(stamp.doubt) }
}

/// Whole nanoseconds, no fewer.
fn whole_nanos(span: Duration) -> i32 {
    i32::try_from(span.as_nanos().saturating_add(1)).unwrap_or(i32::MAX)
}

/// Where a message came from, whatever the port: a client may change that at will.
fn address(source: Address) -> (Option<[u8; 6]>, Option<IpAddr>) {
    match source {
        Address::Mac(mac) => (Some(mac), None),
        Address::Socket(socket) => (None, Some(socket.ip())),
    }
}

/// The next point of the interval's grid after `due`; skips what was missed.
fn following(due: Time<Mono>, now: Time<Mono>, log_interval: i8) -> Time<Mono> {
    let interval = Duration::from_log_interval(log_interval);
    let next = due + interval;
    if next > now { next } else { now + interval }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stamp::StampSource;

    #[test]
    fn bracket_is_what_lies_before_and_behind_the_stamp() {
        let mut stamp = Stamp::new(Time::ZERO, StampSource::StartXmit);
        assert_eq!(transmit_bracket(&stamp), None);
        stamp.late = Duration::from_nanos(450);
        let bracket = Bracket { earliest_ns: -1, latest_ns: 451 };
        assert_eq!(transmit_bracket(&stamp), Some(bracket));
        stamp.doubt = Duration::from_secs(60);
        assert_eq!(receive_bracket(&stamp).latest_ns, i32::MAX);
    }
}
