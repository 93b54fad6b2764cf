//! Which roles the ports of a clock take that may serve: the state decision of all of them together (9.3.3), and
//! the machine of figure 30 that carries it out. A clock that is a client only decides in `election.rs`.

use super::{Cx, Instance, Participation, Received, election::Followable, standing::Standing};
use crate::prelude::*;
use crate::{
    DelayMechanism, PortIndex,
    bmca::{self, Candidate, DataSet, Recommended},
    config::{PortPart, ReceiverConfig, TransmitterConfig},
    contention::{BeforeLock, Contention},
    counters::Drop,
    fair::FairShare,
    limits,
    outcome::StateReason,
    port::{PortTimer, Role, foreign::Belief, transmitter::Serving},
    seam::Change,
};
use ptp_common::{
    time::{Duration, Mono, Time},
    wire::{Announce, Body, Header, Message, PortIdentity},
};
use rand::RngExt;

/// As many of the last Announce messages of another own port may come back from the network.
const LOOPED: u16 = 64;

impl Instance {
    /// A clock that takes either role on each of its ports: an ordinary clock, or a boundary clock.
    pub fn either(config: ReceiverConfig, contention: Contention, cx: &mut Cx<'_>) -> Self {
        let ReceiverConfig { clock_identity, domain_number, sdo_id, minor_version, seed, .. } =
            config;
        let ports = u16::try_from(config.ports.len()).unwrap_or(u16::MAX);
        let served = TransmitterConfig {
            clock_identity,
            domain_number,
            sdo_id,
            minor_version,
            ports,
            seed,
            ..contention.transmitter.clone()
        };
        let participation = Participation::Either;
        let acceptable = Followable::new(config.acceptable, config.max_clock_class);
        let mut instance =
            Self::new(participation, config.ports, served, minor_version, acceptable);
        instance.contend(contention, cx);
        instance
    }

    /// A clock that serves and never follows, but falls silent where a better one serves already.
    pub fn yielding_server(
        config: TransmitterConfig,
        ports: Vec<crate::config::PortConfig>,
        cx: &mut Cx<'_>,
    ) -> Self {
        let contention = Contention::new(config.clone());
        let minor_version = config.minor_version;
        let participation = Participation::Yielding;
        let mut instance = Self::new(participation, ports, config, minor_version, Followable::ANY);
        instance.contend(contention, cx);
        instance
    }

    fn contend(&mut self, contention: Contention, cx: &mut Cx<'_>) {
        let TransmitterConfig { max_requests_per_second, seed, .. } = self.served;
        self.requests = Some(FairShare::new(max_requests_per_second, seed, cx.now));
        self.standing = Some(Standing::new(contention));
        for port in &mut self.ports {
            port.foreign.belief = Belief::AtOnce;
        }
        self.start(cx);
    }

    /// LISTENING of a clock that will serve if it hears nobody.
    pub(super) fn listen(&mut self, cx: &mut Cx<'_>, index: usize, reason: StateReason) {
        self.enter(cx, index, Role::Listening, reason);
        self.draw_patience(index);
        let port = &mut self.ports[index];
        port.has_waited = false;
        if port.config.part != PortPart::Receiver {
            let interval = Duration::from_log_interval(port.config.log_announce_interval);
            let at = cx.now + port.patience(interval);
            self.timers.set((index as u16, PortTimer::AnnounceReceipt), at);
        }
    }

    /// A message for a clock that takes either role.
    pub(super) fn message_of_either(
        &mut self,
        cx: &mut Cx<'_>,
        received: &Received<'_>,
        message: &Message<'_>,
    ) -> Result<(), Drop> {
        let index = received.index;
        let header = message.header;
        if !limits::is_correction(header.correction.into()) {
            return Err(Drop::Correction);
        }
        let is_p2p = self.ports[index].config.delay_mechanism == DelayMechanism::P2p;
        match message.body {
            // A port with the one mechanism does not answer the other (11.1).
            Body::DelayReq { .. } if self.is_telling(index) && !is_p2p => {
                self.take_delay_req(cx, received, &header)
            }
            Body::DelayReq { .. } => Err(Drop::NotForRole),
            Body::Sync { .. } => {
                self.sync_heard(cx, index, &header);
                self.message_of_receiver(cx, received, message)
            }
            _ => self.message_of_receiver(cx, received, message),
        }
    }

    /// So that not all begin to serve at the same instant (9.2.6.12).
    fn draw_patience(&mut self, index: usize) {
        self.ports[index].more_patience = self.rng.random();
    }

    pub(super) fn announce_receipt_due(&mut self, cx: &mut Cx<'_>, index: usize) {
        self.ports[index].has_waited = true;
        self.decide(cx, StateReason::AnnounceTimeout);
    }

    pub(super) fn qualification_due(&mut self, cx: &mut Cx<'_>, index: usize) {
        if matches!(self.ports[index].role, Role::PreTransmitter) && self.may_serve() {
            self.begin_to_serve(cx, index, StateReason::Qualified);
        }
    }

    /// The parent announces itself, but its Sync messages have stopped. It does not count until they come again.
    pub(super) fn sync_receipt_due(&mut self, cx: &mut Cx<'_>, index: usize) {
        let Some(parent) = self.parent_on(index) else { return };
        if self.is_fixed() {
            self.forsake(cx, index, StateReason::SyncTimeout);
            return;
        }
        self.ports[index].foreign.set_silent(parent, true);
        self.decide(cx, StateReason::SyncTimeout);
    }

    /// A Sync of `source` has come.
    pub(crate) fn sync_heard(&mut self, cx: &mut Cx<'_>, index: usize, header: &Header) {
        let source = header.source_port_identity;
        let config = &self.ports[index].config;
        if config.sync_receipt_timeout == 0 || self.standing.is_none() {
            return;
        }
        if self.parent_on(index) == Some(source) {
            let interval = limits::sync_interval(header.log_message_interval).unwrap_or(0);
            let at = cx.now + config.sync_patience(interval);
            self.timers.set((index as u16, PortTimer::SyncReceipt), at);
        } else if self.ports[index].foreign.set_silent(source, false) {
            self.decide(cx, StateReason::BestTransmitter);
        }
    }

    /// What has been said to decide by has changed: decides when it is next called.
    pub(super) fn decide_soon(&mut self) {
        if self.standing.is_some() {
            self.timers.set((0, PortTimer::Decision), self.last_now);
        }
    }

    /// An Announce of this clock has come back. Of the ports in one network all but the lowest fall silent
    /// (9.5.2.3).
    pub(super) fn hear_own(&mut self, cx: &mut Cx<'_>, index: usize, header: &Header) {
        let other = header.source_port_identity.port_number;
        let Some(sender) = usize::from(other).checked_sub(1).and_then(|at| self.ports.get(at))
        else {
            return;
        };
        let port = &self.ports[index];
        let is_recent = sender.announce_sequence_id.wrapping_sub(header.sequence_id) <= LOOPED;
        if self.standing.is_none()
            || other >= port.identity.port_number
            || !sender.role.is_serving()
            || !is_recent
        {
            return;
        }
        let interval = Duration::from_log_interval(self.served.log_announce_interval);
        let until = cx.now + port.patience(interval).max(interval * 4);
        let was_shadowed = self.is_shadowed(index, cx.now);
        self.ports[index].shadowed_until = Some(until);
        if !was_shadowed {
            self.decide(cx, StateReason::OwnNetwork);
        }
        self.expect_silence_on(index);
    }

    fn is_shadowed(&self, index: usize, now: Time<Mono>) -> bool {
        self.ports[index].shadowed_until.is_some_and(|until| until > now)
    }

    /// `D_0`: this clock as it would be a grandmaster (table 12).
    fn own_data_set(&self, now: Time<Mono>) -> DataSet {
        let own = PortIdentity { clock_identity: self.clock_identity, port_number: 0 };
        DataSet {
            priority1: self.served.priority1,
            grandmaster_identity: self.clock_identity,
            clock_quality: self.quality(now),
            priority2: self.served.priority2,
            steps_removed: 0,
            sender: own,
            receiver: own,
            local_priority: self.standing.as_ref().and_then(|each| each.contention.local_priority),
        }
    }

    /// `E_rbest` of a port, and its place in the port's table.
    fn best_of_port(&self, index: usize, now: Time<Mono>) -> Option<(Candidate, usize)> {
        let port = &self.ports[index];
        if matches!(port.role, Role::Disabled) || port.config.part == PortPart::Transmitter {
            return None;
        }
        let parent = self.parent_on(index);
        let mut best: Option<(Candidate, usize)> = None;
        for (n, foreign) in port.foreign.iter().enumerate() {
            let counts = foreign.is_qualified(now) || parent == Some(foreign.source);
            if !counts || foreign.is_silent {
                continue;
            }
            let candidate = Candidate { set: port.data_set_of(foreign), port: index as u16 };
            if best.as_ref().is_none_or(|(best, _)| candidate.set.is_better_than(&best.set)) {
                best = Some((candidate, n));
            }
        }
        best
    }

    /// The state decision event (9.2.6.9): all ports together.
    pub(super) fn decide_roles(&mut self, cx: &mut Cx<'_>, reason: StateReason) {
        let now = cx.now;
        self.note_time();
        self.end_shadows(now);
        let bests: Vec<_> =
            (0..self.ports.len()).map(|index| self.best_of_port(index, now)).collect();
        let best =
            bests.iter().flatten().copied().reduce(|best, each| {
                if each.0.set.is_better_than(&best.0.set) { each } else { best }
            });
        let own = self.own_data_set(now);
        let recommended: Vec<Recommended> = bests
            .iter()
            .zip(&self.ports)
            .map(|(of_port, port)| {
                let of_port = of_port.as_ref().map(|(candidate, _)| candidate);
                let state = match port.role {
                    // Who has waited long enough does not listen any more.
                    Role::Listening if port.has_waited => crate::PortState::PreTimeTransmitter,
                    _ => port.role.state(),
                };
                if self.participation == Participation::Yielding {
                    return yield_or_serve(&own, of_port, state);
                }
                bmca::decide(&own, best.as_ref().map(|(best, _)| best), of_port, state)
            })
            .collect();
        let followed = recommended.iter().position(|each| *each == Recommended::S1);
        match (followed, best) {
            (Some(index), Some((_, n))) => {
                let reason = match reason {
                    StateReason::AnnounceTimeout | StateReason::SyncTimeout => {
                        StateReason::BestTransmitter
                    }
                    reason => reason,
                };
                self.follow(cx, index, n, reason);
            }
            _ => {
                if self.parent.take().is_some() {
                    self.epoch += 1;
                    self.lost_parent(cx);
                    self.tell(cx.out, Change::Parent(None));
                }
            }
        }
        for (index, recommended) in recommended.into_iter().enumerate() {
            if recommended != Recommended::S1 {
                self.carry_out(cx, index, recommended, reason);
            }
            let port = &mut self.ports[index];
            port.has_waited &= matches!(port.role, Role::Listening);
        }
        self.expect_silence();
    }

    fn carry_out(
        &mut self,
        cx: &mut Cx<'_>,
        index: usize,
        recommended: Recommended,
        reason: StateReason,
    ) {
        let port = &self.ports[index];
        if matches!(port.role, Role::Disabled | Role::Initializing) {
            return;
        }
        let serves = matches!(recommended, Recommended::M1 | Recommended::M2 | Recommended::M3);
        let lost = match reason {
            StateReason::AnnounceTimeout | StateReason::SyncTimeout | StateReason::LinkDown => {
                Some(reason)
            }
            _ => None,
        };
        if port.config.part == PortPart::Receiver {
            if !matches!(port.role, Role::Listening) && recommended != Recommended::Listening {
                self.listen(cx, index, lost.unwrap_or(StateReason::BetterElsewhere));
            }
            return;
        }
        if serves && self.is_shadowed(index, cx.now) {
            self.be_passive(cx, index, StateReason::OwnNetwork);
            return;
        }
        match recommended {
            Recommended::Listening | Recommended::S1 => {}
            Recommended::P1 | Recommended::P2 => {
                self.be_passive(cx, index, StateReason::ServedAlready);
            }
            Recommended::M1 | Recommended::M2 => {
                if !self.ports[index].role.is_serving() {
                    self.begin_to_serve(cx, index, lost.unwrap_or(StateReason::BestClock));
                }
            }
            Recommended::M3 => match self.ports[index].role {
                Role::Transmitter(_) if self.may_serve() => {}
                Role::PreTransmitter => {
                    let key = (index as u16, PortTimer::Qualification);
                    if self.timers.at(key).is_none() && self.may_serve() {
                        self.begin_to_serve(cx, index, StateReason::Qualified);
                    }
                }
                // Who has heard nobody for as long as announceReceiptTimeout has not to be qualified (9.2.6.12).
                _ if self.ports[index].has_waited => {
                    if self.may_serve() {
                        self.begin_to_serve(cx, index, StateReason::AnnounceTimeout);
                    } else {
                        self.enter(cx, index, Role::PreTransmitter, StateReason::AnnounceTimeout);
                    }
                }
                _ => {
                    self.enter(cx, index, Role::PreTransmitter, StateReason::PassesOn);
                    let interval = Duration::from_log_interval(self.served.log_announce_interval);
                    let steps = i32::from(self.steps_removed()) + 1;
                    // IEEE 802.1AS knows no PRE_MASTER (10.3).
                    let is_at_once = self.ports[index].config.rules.are_gptp();
                    let at = if is_at_once { cx.now } else { cx.now + interval * steps };
                    self.timers.set((index as u16, PortTimer::Qualification), at);
                }
            },
        }
    }

    fn be_passive(&mut self, cx: &mut Cx<'_>, index: usize, reason: StateReason) {
        if !matches!(self.ports[index].role, Role::Passive) {
            self.enter(cx, index, Role::Passive, reason);
        }
    }

    fn begin_to_serve(&mut self, cx: &mut Cx<'_>, index: usize, reason: StateReason) {
        self.enter(cx, index, Role::Transmitter(Serving::default()), reason);
        self.begin_multicast(cx.now, index);
    }

    /// Whether ports may announce what it follows, or itself.
    pub(super) fn may_serve(&self) -> bool {
        let before_lock = self.standing.as_ref().map(|it| it.contention.before_lock);
        before_lock == Some(BeforeLock::Announced) || self.tells_time()
    }

    /// Whether a port is a time transmitter that tells the time.
    pub(super) fn is_telling(&self, index: usize) -> bool {
        self.ports.get(index).is_some_and(|port| port.role.is_serving()) && self.tells_time()
    }

    /// Whether the time is worth passing on: its own, or that of a parent that has been followed well once.
    pub(super) fn tells_time(&self) -> bool {
        let Some(standing) = &self.standing else { return true };
        self.parent.is_none()
            || self.passes_on_unlocked()
            || standing.has_locked
            || standing.contention.before_lock == BeforeLock::Uncertain
    }

    /// The clock is locked: ports that have waited only for that begin.
    pub(super) fn locked(&mut self) {
        self.note_time();
        let Some(standing) = &mut self.standing else { return };
        if core::mem::replace(&mut standing.has_locked, true) {
            return;
        }
        // Those that wait to be qualified wait on.
        self.decide_soon();
    }

    /// Whether an Announce may be considered by a clock that passes on what it follows.
    pub(super) fn is_fit_to_follow(
        &self,
        index: usize,
        announce: &Announce,
        path: Option<&[u8]>,
    ) -> Result<(), Drop> {
        let Some(standing) = &self.standing else { return Ok(()) };
        if self.ports[index].config.part == PortPart::Transmitter {
            return Err(Drop::NotForRole);
        }
        if announce.steps_removed >= standing.contention.max_steps_removed {
            return Err(Drop::StepsRemoved);
        }
        let own = self.clock_identity.0;
        let has_been_here = |path: &[u8]| path.chunks_exact(own.len()).any(|each| each == own);
        if path.is_some_and(has_been_here) {
            return Err(Drop::Looped);
        }
        Ok(())
    }

    /// A new parent, or the same with something else to say: the patience with it is drawn anew.
    pub(super) fn expect_parent(&mut self, index: usize) {
        if self.standing.is_some() {
            self.draw_patience(index);
        }
    }

    /// Ports whose other port in the same network has fallen silent serve again.
    pub(super) fn end_shadows(&mut self, now: Time<Mono>) {
        for port in &mut self.ports {
            if port.shadowed_until.is_some_and(|until| until <= now) {
                port.shadowed_until = None;
            }
        }
    }

    /// The port that follows, if one does.
    pub fn receiving_port(&self) -> Option<PortIndex> {
        self.parent.map(|parent| parent.port)
    }
}

/// Figure 33 for a clock that never follows, whatever its class: by each port for itself.
fn yield_or_serve(
    own: &DataSet,
    of_port: Option<&Candidate>,
    state: crate::PortState,
) -> Recommended {
    match of_port {
        None if state == crate::PortState::Listening => Recommended::Listening,
        Some(heard) if !own.is_better_than(&heard.set) => Recommended::P1,
        _ => Recommended::M1,
    }
}
