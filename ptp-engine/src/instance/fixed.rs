//! A clock whose roles are fixed, as in vehicles (the Automotive profile of Avnu): nobody announces himself, so that the first
//! who sends Sync is followed for as long as he does. And the intervals that a port asks its neighbour for while its clock is
//! locked (message interval request, IEEE 802.1AS-2020 10.6.4.3).

use ptp_common::{
    data_set::{ParentDataSet, TimeProperties},
    time::{Duration, Mono, Time},
    wire::{
        Body, ClockAccuracy, ClockQuality, Flags, Header, MessageType, PortIdentity,
        gptp::{AskedInterval, IntervalRequest},
    },
};

use super::{Cx, Instance, Participation};
use crate::{
    Datagram, Destination, Group, PortIndex,
    config::PortPart,
    counters::Drop,
    limits,
    outcome::{Parent, StateReason},
    port::{PortTimer, Role, transmitter::Serving},
    seam::{Change, Command, Commands, NoEvent, Transmit},
};

/// Whoever does not do as he is asked is asked again after so long.
const AGAIN: Duration = Duration::from_secs(8);
/// `priority1` of a grandmaster that says none.
const NO_PRIORITY: u8 = 255;

/// What a port has asked its neighbour for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LockedRequest {
    /// The clock is locked, so it is asked for.
    is_asked: bool,
    /// When it may be asked again.
    again_at: Option<Time<Mono>>,
    sequence_id: u16,
    /// Interval of the link's own requests, that the link has to be told, log2 s; an inner `None`: the one at first.
    pub(crate) link: Option<Option<i8>>,
}

impl Instance {
    /// Whether roles are fixed.
    pub(super) fn is_fixed(&self) -> bool {
        self.ports.iter().any(|port| port.config.rules.are_static())
    }

    /// Whether they are, and one port has the role to follow.
    pub(super) fn is_fixed_to_follow(&self) -> bool {
        let follows = |part| part != PortPart::Transmitter;
        self.is_fixed() && self.ports.iter().any(|port| follows(port.config.part))
    }

    /// A port takes the role that it has for good.
    pub(super) fn start_fixed(&mut self, cx: &mut Cx<'_>, index: usize, reason: StateReason) {
        let serves = self.participation == Participation::ServerOnly
            || self.ports[index].config.part == PortPart::Transmitter;
        if serves && self.participation != Participation::ClientOnly {
            self.enter(cx, index, Role::Transmitter(Serving::default()), reason);
            self.begin_multicast(cx.now, index);
        } else {
            self.enter(cx, index, Role::Listening, reason);
        }
    }

    /// A Sync has come to a port that follows: who has sent it is followed if nobody is, and for some intervals more.
    pub(crate) fn adopt(&mut self, cx: &mut Cx<'_>, index: usize, header: &Header) {
        let source = header.source_port_identity;
        let port = &self.ports[index];
        if header.flags.contains(Flags::ALTERNATE_MASTER) || matches!(port.role, Role::Disabled) {
            return;
        }
        if self.parent.is_none() && matches!(port.role, Role::Listening) {
            if !self.acceptable.names(source, source.clock_identity) {
                return;
            }
            let parent = self.unannounced(index, source);
            self.follow_parent(cx, index, parent, StateReason::BestTransmitter);
        }
        if self.parent_on(index) == Some(source) {
            let config = &self.ports[index].config;
            let asked = config.when_locked.map_or(i8::MIN, |asked| asked.log_sync_interval);
            let said = limits::sync_interval(header.log_message_interval).unwrap_or(0);
            // The interval that was asked for may begin at any time.
            let at = cx.now + config.sync_patience(said.max(asked));
            self.timers.set((index as u16, PortTimer::SyncReceipt), at);
        }
    }

    /// What is known of who does not announce himself.
    fn unannounced(&self, index: usize, source: PortIdentity) -> Parent {
        let set = ParentDataSet {
            parent_port_identity: source,
            parent_stats: false,
            observed_offset_scaled_log_variance: ParentDataSet::UNKNOWN_VARIANCE,
            observed_phase_change_rate: ParentDataSet::UNKNOWN_RATE,
            grandmaster_priority1: NO_PRIORITY,
            grandmaster_clock_quality: ClockQuality {
                clock_class: 248,
                clock_accuracy: ClockAccuracy::UNKNOWN,
                offset_scaled_log_variance: ParentDataSet::UNKNOWN_VARIANCE,
            },
            grandmaster_priority2: NO_PRIORITY,
            grandmaster_identity: source.clock_identity,
        };
        Parent {
            port: PortIndex(index as u16),
            set,
            steps_removed: 0,
            epoch: self.epoch,
            time_properties: TimeProperties::UNKNOWN,
        }
    }

    /// The state decision where roles are fixed: there is none, but that whose port is down is not followed.
    pub(super) fn decide_fixed(&mut self, cx: &mut Cx<'_>, reason: StateReason) {
        let Some(parent) = self.parent else { return };
        let index = usize::from(parent.port.0);
        if !matches!(self.ports[index].role, Role::Receiver(_)) {
            self.forsake(cx, index, reason);
        }
    }

    /// Nobody is followed any more.
    pub(super) fn forsake(&mut self, cx: &mut Cx<'_>, index: usize, reason: StateReason) {
        if self.parent.take().is_none() {
            return;
        }
        self.epoch += 1;
        self.lost_parent(cx);
        self.leave(cx, index, reason);
        self.tell(cx.out, Change::Parent(None));
    }

    /// The clock is locked, or not any more: what a port asks for while it is.
    pub(super) fn ask_when_locked(&mut self, out: &mut Commands<NoEvent>, is_locked: bool) {
        let Some(parent) = self.parent else { return };
        let index = usize::from(parent.port.0);
        let port = &mut self.ports[index];
        let Some(wanted) = port.config.when_locked.filter(|_| port.config.rules.are_gptp()) else {
            return;
        };
        if port.request.is_asked == is_locked {
            return;
        }
        port.request.is_asked = is_locked;
        port.request.link = Some(is_locked.then_some(wanted.log_pdelay_req_interval));
        self.send_interval_request(out, index);
    }

    /// A Sync says `log_interval`: whoever does not send as he was asked to has not heard it, or has begun anew.
    pub(crate) fn ask_again(&mut self, cx: &mut Cx<'_>, index: usize, log_interval: Option<i8>) {
        let port = &self.ports[index];
        let (Some(wanted), Some(said)) = (port.config.when_locked, log_interval) else { return };
        let is_due = port.request.again_at.is_some_and(|at| cx.now >= at);
        if port.request.is_asked && is_due && said != wanted.log_sync_interval {
            self.send_interval_request(cx.out, index);
        }
    }

    fn send_interval_request(&mut self, out: &mut Commands<NoEvent>, index: usize) {
        let port = &mut self.ports[index];
        let Some(wanted) = port.config.when_locked else { return };
        let request = &mut port.request;
        request.again_at = Some(self.last_now + AGAIN);
        request.sequence_id = request.sequence_id.wrapping_add(1);
        let sequence_id = request.sequence_id;
        let value = IntervalRequest {
            link_delay: AskedInterval::Keep,
            time_sync: match request.is_asked {
                true => AskedInterval::Log(wanted.log_sync_interval),
                false => AskedInterval::Initial,
            },
            announce: AskedInterval::Keep,
            // It computes both.
            flags: 0b11,
        };
        port.counters.count_sent(MessageType::Signaling);
        let body = Body::Signaling { target_port_identity: PortIdentity::ALL };
        let message = Datagram::with_gptp(self.header(index, sequence_id), body, &value.value());
        let to = Destination::Multicast(Group::Peer);
        let on = PortIndex(index as u16);
        self.push(out, Command::Send(Transmit { on, to, message, token: None }));
    }

    /// Who announces himself where roles are fixed is not heard.
    pub(super) fn refuse_announce(&self) -> Result<(), Drop> {
        if self.is_fixed() { Err(Drop::NotForRole) } else { Ok(()) }
    }
}
