//! Several sources of time held against each other: the one that is followed, others that its ports hear in the
//! same domain, and the time transmitters of other domains, which an instance of each asks as if it were to follow
//! them. What they say is put to [`sources::select`](crate::sources::select); here is what is made of the answer:
//! a contradiction that lasts is told, and by the [`Policy`] the clock runs on by itself or follows the majority.

pub use standing::Standing;

use super::{
    Discipline, Event, Way,
    links::link_delay,
    witness::{Witness, free_running},
};
use crate::prelude::*;
use crate::{
    clock::Clock,
    config::ReceiverConfig,
    instance::{Instance, Synchronization},
    node::Node,
    outcome::{Measurement, Observation, Parent},
    pulse::Hint,
    seam::{Command, Commands, Context, Engine, Input, NoEvent, Witnessed},
    servers::{NtpConfig, NtpPart},
    servo::{DelayInput, Interval, SyncInput},
    sources::{MAX_SOURCES, Opinion, Policy, Selection, SourceId, select},
};
use core::mem;
use ptp_common::{
    time::{Duration, Free, Mono, Time},
    wire::{ClockIdentity, PortIdentity},
};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(500);
/// A contradiction must last so long before it is one,
const CONFIRM: Duration = Duration::from_secs(3);
/// and so long nothing may contradict until it is none any more.
const CLEAR: Duration = Duration::from_secs(10);
/// A source that others have refuted and that has been silent since may be followed again after this.
const FORGIVEN: Duration = Duration::from_secs(600);
/// A clock that has never locked waits so long for a second opinion, where others are asked to have one.
const AWAITED: Duration = Duration::from_secs(10);
/// Instances of other domains, at the most.
pub const MAX_WITNESS_DOMAINS: usize = 4;

/// One source, for the status.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Source {
    /// Whose time.
    pub id: SourceId,
    /// The grandmaster behind it.
    pub grandmaster: ClockIdentity,
    /// Where clock minus source must lie; `None` while nothing is known.
    pub interval: Option<Interval>,
    /// Whether it is followed.
    pub is_followed: bool,
    /// Whether it is in the largest group that can be right together; `None` without an opinion.
    pub agrees: Option<bool>,
}

/// What a server of NTP says.
#[derive(Clone, Copy, Debug)]
pub(super) struct NtpOpinion {
    pub(super) id: SourceId,
    /// Where the free-running scale minus UTC must lie.
    pub(super) interval: Interval,
    /// Whether it is in the largest group.
    pub(super) is_member: bool,
}

/// A domain that is watched: an instance that asks and is not followed.
#[derive(Debug)]
struct Other {
    node: Node,
    said: Commands<NoEvent>,
}

/// See the module's paragraph.
#[derive(Debug, Default)]
pub(super) struct Council {
    others: Vec<Other>,
    witnesses: Vec<Witness>,
    policy: Policy,
    standing: Standing,
    /// What is seen and has not lasted yet.
    candidate: Option<(Standing, Time<Mono>)>,
    looked: Option<Time<Mono>>,
    /// Others are there to ask, and the one that is followed contradicts itself or them: until it is clear what
    /// that means, nothing is learnt of it unless the policy is to follow it all the same.
    is_doubted: bool,
    /// Nothing is learnt before two have been compared, or until then.
    awaited_until: Option<Time<Mono>>,
    selection: Option<Selection>,
    /// The domain that is configured to be followed.
    home: u8,
}

impl Council {
    /// Instances of the witness domains of `config`, on the same ports.
    pub(super) fn new(config: &ReceiverConfig, cx: &mut Context<'_, Event>) -> Self {
        let mut council =
            Self { policy: config.on_disagreement, home: config.domain_number, ..Self::default() };
        let domains = config.witness_domains.iter().filter(|it| **it != config.domain_number);
        for (domain_number, number) in domains.take(MAX_WITNESS_DOMAINS).zip(1..) {
            let config = ReceiverConfig {
                domain_number: *domain_number,
                seed: config.seed.rotate_left(u32::from(*domain_number) + 1),
                witness_domains: Vec::new(),
                contention: None,
                servers: Vec::new(),
                ..config.clone()
            };
            let mut said = Commands::default();
            let mut inner = Context { now: cx.now, clock: cx.clock, out: &mut said };
            let mut node = Node::client_only(config, &mut inner);
            node.in_flight.of_instance(number);
            council.others.push(Other { node, said });
        }
        let is_witness = |ntp: &NtpConfig| ntp.part == NtpPart::Witness;
        if !council.others.is_empty() || config.ntp.as_ref().is_some_and(is_witness) {
            council.awaited_until = Some(cx.now + AWAITED);
        }
        council
    }

    /// Whether it is about to be found out whom to believe.
    const fn is_undecided(&self) -> bool {
        self.is_doubted || self.awaited_until.is_some()
    }

    /// Which of the other domains an input is for; `None` for the one that is followed.
    fn of_input(&self, input: &Input<'_>) -> Option<usize> {
        match *input {
            Input::Message { bytes, .. } => {
                let (first, domain_number, minor) = (bytes.first()?, bytes.get(4)?, bytes.get(5)?);
                let sdo_id = u16::from(first >> 4) << 8 | u16::from(*minor);
                self.others.iter().position(|it| it.node.is_for(*domain_number, sdo_id))
            }
            Input::Sent { token, .. } => {
                let number = token.instance();
                self.others.iter().position(|it| it.node.in_flight.instance() == number)
            }
            Input::Link { .. } | Input::Passed(_) | Input::Pulse(_) | Input::Nmea { .. } => None,
        }
    }

    fn next_timeout(&self) -> Option<Time<Mono>> {
        self.others.iter().filter_map(|it| it.node.next_timeout()).min()
    }

    /// What the servers of NTP say, beside all other sources.
    pub(super) fn ntp_opinions(&self, now: Time<Mono>, free: Time<Free>) -> Vec<NtpOpinion> {
        let opinions = self.opinions(now, free);
        let members = select(&opinions).members;
        let ntp = opinions.into_iter().filter(|it| matches!(it.id, SourceId::Ntp(_)));
        ntp.map(|Opinion { id, interval }| NtpOpinion {
            id,
            interval,
            is_member: members.contains(&id),
        })
        .collect()
    }

    /// What all say that name seconds, to a pulse, which names none.
    pub(super) fn hint(&self, now: Time<Mono>, free: Time<Free>) -> Hint {
        let mut opinions = self.opinions(now, free);
        opinions.retain(|it| it.id != SourceId::Pulse);
        let is_nothing = opinions.is_empty();
        // Who contradicts itself names no second: what it said before and what it says now are seconds apart.
        let is_torn = |id| self.witnesses.iter().any(|it| it.id == id && it.is_contradicted());
        opinions.retain(|it| !is_torn(it.id));
        let selection = select(&opinions);
        match selection.common {
            None if is_nothing => Hint::Nothing,
            Some(common) if selection.is_majority() => {
                Hint::Within(common, selection.members.len())
            }
            _ => Hint::Disputed,
        }
    }

    /// Whether anybody says that the day ends with a leap second.
    pub(super) fn is_leap_announced(&self) -> bool {
        self.witnesses.iter().any(Witness::announces_leap)
    }

    fn opinions(&self, now: Time<Mono>, free: Time<Free>) -> Vec<Opinion> {
        let known = self.witnesses.iter();
        known
            .filter_map(|it| Some(Opinion { id: it.id, interval: it.opinion(now, free)? }))
            .collect()
    }

    pub(super) fn witness(
        &mut self,
        now: Time<Mono>,
        id: SourceId,
        grandmaster: ClockIdentity,
        time_properties: ptp_common::data_set::TimeProperties,
    ) -> &mut Witness {
        let at = self.witnesses.iter().position(|it| it.id == id).unwrap_or_else(|| {
            if self.witnesses.len() >= MAX_SOURCES {
                let oldest = (0..self.witnesses.len()).min_by_key(|at| self.witnesses[*at].heard);
                self.witnesses.swap_remove(oldest.unwrap_or(0));
            }
            self.witnesses.push(Witness::new(id, grandmaster, time_properties, now));
            self.witnesses.len() - 1
        });
        let witness = &mut self.witnesses[at];
        witness.says(grandmaster, time_properties);
        witness
    }
}

impl<C: Clock> Discipline<C> {
    /// How the sources of time stand to each other.
    pub const fn standing(&self) -> Standing {
        self.council.standing
    }

    /// What is done where they contradict each other.
    pub const fn on_disagreement(&self) -> Policy {
        self.council.policy
    }

    /// Does something else from now on where they do.
    pub const fn set_on_disagreement(&mut self, policy: Policy) {
        self.council.policy = policy;
    }

    /// The sources that have been heard of late, and what the clock is against each.
    pub fn sources(&self, now: Time<Mono>) -> impl Iterator<Item = Source> {
        let free = self.clock.free_running(now);
        let shown = self.utc_shown(now);
        let followed = self.followed_id();
        let members = self.council.selection.as_ref().map(|selection| &selection.members);
        self.council.witnesses.iter().filter(move |it| it.is_fresh(now)).map(move |witness| {
            let opinion = witness.opinion(now, free);
            let against_clock = opinion.map(|it| Interval { lo: it.lo + shown, hi: it.hi + shown });
            Source {
                id: witness.id,
                grandmaster: witness.grandmaster,
                interval: against_clock,
                is_followed: followed == Some(witness.id),
                agrees: opinion.and(members).map(|members| members.contains(&witness.id)),
            }
        })
    }

    /// What the clock shows more than the free-running scale, in UTC or what stands for it.
    pub(super) fn utc_shown(&self, now: Time<Mono>) -> Duration {
        let free = self.clock.free_running(now);
        let parent = self.origin.parent.as_ref();
        let utc_offset = parent.map_or(Duration::ZERO, |it| it.time_properties.utc_offset().best());
        self.domain_time(now).ahead_of(free) - utc_offset
    }

    fn followed_id(&self) -> Option<SourceId> {
        if let Some(ntp) = self.ntp.as_ref().filter(|ntp| ntp.is_followed) {
            return ntp.leader();
        }
        if self.follows_pulse() {
            return Some(SourceId::Pulse);
        }
        let port = self.receiver().parent()?.set.parent_port_identity;
        Some(SourceId::Ptp { domain_number: self.receiver().domain_number(), port })
    }

    /// Gives an input to the instance of another domain where it is for one.
    pub(super) fn handled_by_witness(
        &mut self,
        cx: &mut Context<'_, Event>,
        input: &Input<'_>,
    ) -> bool {
        if let Input::Link { .. } = input {
            for at in 0..self.council.others.len() {
                self.with_other(cx, at, |node, cx| node.handle(cx, *input));
            }
            return false;
        }
        let Some(at) = self.council.of_input(input) else { return false };
        self.with_other(cx, at, |node, cx| node.handle(cx, *input));
        true
    }

    pub(super) fn witnesses_due(&mut self, cx: &mut Context<'_, Event>) {
        for at in 0..self.council.others.len() {
            if self.council.others[at].node.next_timeout().is_some_and(|due| due <= cx.now) {
                self.with_other(cx, at, |node, cx| node.handle_timeout(cx));
            }
        }
    }

    pub(super) fn witnesses_timeout(&self) -> Option<Time<Mono>> {
        self.council.next_timeout()
    }

    fn with_other(
        &mut self,
        cx: &mut Context<'_, Event>,
        at: usize,
        input: impl FnOnce(&mut Node, &mut Context<'_, NoEvent>),
    ) {
        let Other { node, said } = &mut self.council.others[at];
        let mut inner = Context { now: cx.now, clock: cx.clock, out: said };
        input(node, &mut inner);
        let domain_number = node.domain_number();
        let parent = node.parent().copied();
        let mut said = mem::take(said);
        while let Some(command) = said.pop() {
            match command {
                Command::Send(transmit) => drop(cx.out.push(Command::Send(transmit))),
                Command::Measured(measurement) => {
                    self.watch(cx.now, domain_number, parent.as_ref(), &measurement);
                }
                Command::Witnessed(witnessed) => self.overheard(cx.now, domain_number, &witnessed),
                Command::Changed(_) | Command::Event(_) => {}
            }
        }
        // The same again, for the room that it has.
        if let Some(other) = self.council.others.get_mut(at) {
            other.said = said;
        }
    }

    /// What was measured against a time transmitter that is asked.
    pub(super) fn watch(
        &mut self,
        now: Time<Mono>,
        domain_number: u8,
        parent: Option<&Parent>,
        measurement: &Measurement,
    ) {
        let Some(parent) = parent else { return };
        let id = SourceId::Ptp { domain_number, port: measurement.parent };
        let grandmaster = parent.set.grandmaster_identity;
        let free =
            |stamp: crate::stamp::Stamp| free_running(self.clock.free_running(stamp.time), stamp);
        // Whoever is asked is heard where it is asked.
        let said = parent.time_properties;
        self.council.witness(now, id, grandmaster, said).port = Some(measurement.port);
        match measurement.observation {
            Observation::Sync(sync) => {
                let input = SyncInput {
                    t1: sync.t1,
                    t2: free(sync.t2),
                    sequence_id: sync.sequence_id,
                    log_interval: sync.log_interval,
                    correction: sync.correction,
                };
                let said = parent.time_properties;
                self.council.witness(now, id, grandmaster, said).sync(now, &input);
            }
            Observation::Delay(delay) => {
                let input = DelayInput {
                    t3: free(delay.t3),
                    t4: delay.t4,
                    sequence_id: delay.sequence_id,
                    correction: delay.correction,
                };
                let said = parent.time_properties;
                self.council.witness(now, id, grandmaster, said).delay(&input);
            }
            Observation::PeerDelay(_) | Observation::LinkTold(_) => {
                let free = |time| self.clock.free_running(time);
                let Some(input) = link_delay(&measurement.observation, free) else {
                    return;
                };
                let said = parent.time_properties;
                self.council.witness(now, id, grandmaster, said).peer_delay(&input);
            }
        }
    }

    /// A Sync of somebody who is not asked.
    pub(super) fn overheard(&mut self, now: Time<Mono>, domain_number: u8, heard: &Witnessed) {
        let id = SourceId::Ptp { domain_number, port: heard.source };
        let known = self.council.witnesses.iter().find(|it| it.id == id);
        if known.is_some_and(|it| !it.is_heard_on(now, heard.port)) {
            return;
        }
        let input = SyncInput {
            t1: heard.sync.t1,
            t2: free_running(self.clock.free_running(heard.sync.t2.time), heard.sync.t2),
            sequence_id: heard.sync.sequence_id,
            log_interval: heard.sync.log_interval,
            correction: heard.sync.correction,
        };
        let witness = self.council.witness(now, id, heard.grandmaster, heard.time_properties);
        witness.port = Some(heard.port);
        witness.sync(now, &input);
    }

    /// Holds the sources against each other, not too often, and does what the policy says.
    pub(super) fn confer(&mut self, way: &mut Way<'_, '_>) {
        let now = way.now;
        let followed = self.followed_id();
        let contradicts_itself = || {
            let followed = self.council.witnesses.iter().find(|it| Some(it.id) == followed);
            followed.is_some_and(Witness::is_contradicted)
        };
        let is_waiting = self.council.looked.is_some_and(|at| now - at < LOOK);
        if is_waiting && !self.council.is_undecided() && !contradicts_itself() {
            return;
        }
        let contradicts_itself = contradicts_itself();
        if contradicts_itself {
            // Whoever is followed has changed his mind: what others say now is better known soon.
            self.look_closer(now);
        }
        self.council.looked = Some(now);
        let free = self.clock.free_running(now);
        // Who is asked each seventeen minutes has not gone in ten.
        self.council.witnesses.retain(|it| now - it.heard <= FORGIVEN || it.is_fresh(now));
        let opinions = self.council.opinions(now, free);
        let selection = select(&opinions);
        let seen = match followed {
            _ if selection.is_unanimous() => Standing::Agreed,
            Some(followed) if selection.is_confirmed(followed) => Standing::Confirmed,
            Some(_) if selection.is_majority() => Standing::Refuted,
            _ => Standing::Open,
        };
        let is_refutable = matches!(seen, Standing::Refuted | Standing::Open);
        self.council.is_doubted = opinions.len() > 1 && (contradicts_itself || is_refutable);
        self.council.selection = Some(selection);
        if opinions.len() > 1 || self.council.awaited_until.is_some_and(|until| until <= now) {
            self.council.awaited_until = None;
        }
        if is_refutable {
            self.former.contradicted(now);
        }
        let old = self.council.standing;
        if seen == old {
            self.council.candidate = None;
        } else {
            let since = match self.council.candidate {
                Some((candidate, since)) if candidate == seen => since,
                _ => now,
            };
            self.council.candidate = Some((seen, since));
            let patience = if seen.is_contradicted() { CONFIRM } else { CLEAR };
            if now - since < patience {
                return;
            }
            self.council.candidate = None;
            self.council.standing = seen;
            way.tell(Event::Standing { old, new: seen });
        }
        self.act(way);
    }

    /// Whether the policy lets the clock run on by itself.
    pub(super) fn is_suspended(&self) -> bool {
        match (self.council.policy, self.council.standing) {
            (Policy::Alarm, _) => false,
            (_, Standing::Agreed | Standing::Confirmed) => false,
            (Policy::Holdover | Policy::FollowMajority, Standing::Open) => true,
            (Policy::Holdover, Standing::Refuted) => true,
            (Policy::FollowMajority, Standing::Refuted) => false,
        }
    }

    /// Whether nothing may be learnt at present.
    pub(super) fn is_unheard(&self) -> bool {
        let council = &self.council;
        self.is_suspended() || (council.policy != Policy::Alarm && council.is_undecided())
    }

    fn act(&mut self, way: &mut Way<'_, '_>) {
        if self.is_suspended() {
            if self.state != crate::servo::ServoState::Holdover {
                self.hold(way);
            }
            return;
        }
        if self.council.policy == Policy::FollowMajority {
            match self.council.standing {
                Standing::Refuted => self.follow_majority(way),
                Standing::Agreed => self.go_home(way),
                Standing::Confirmed | Standing::Open => {}
            }
        }
    }

    /// Leaves the time transmitter that the others have refuted.
    fn follow_majority(&mut self, way: &mut Way<'_, '_>) {
        let Some(SourceId::Ptp { domain_number, port }) = self.followed_id() else { return };
        let Some(selection) = self.council.selection.clone() else { return };
        let is_near = |id: &SourceId| matches!(id, SourceId::Ptp { domain_number: it, .. } if *it == domain_number);
        if selection.members.iter().any(is_near) {
            self.in_instance(way, |instance, cx| instance.distrust(cx, port));
            return self.confirmed(way);
        }
        let is_followable = |other: &Other| {
            other.node.parent().is_some_and(|parent| {
                let (domain_number, port) =
                    (other.node.domain_number(), parent.set.parent_port_identity);
                selection.members.contains(&SourceId::Ptp { domain_number, port })
            })
        };
        if let Some(at) = self.council.others.iter().position(is_followable) {
            self.follow_domain(way, at);
            return self.confirmed(way);
        }
        let is_ntp = |id: &SourceId| matches!(id, SourceId::Ntp(_));
        if let Some(ntp) = self.ntp.as_mut().filter(|_| selection.members.iter().any(is_ntp)) {
            ntp.follow(true);
            self.confirmed(way);
        }
    }

    /// The one that is followed is in the majority now.
    fn confirmed(&mut self, way: &mut Way<'_, '_>) {
        let new = Standing::Confirmed;
        let old = mem::replace(&mut self.council.standing, new);
        way.tell(Event::Standing { old, new });
    }

    /// All agree: whoever was refuted may be followed again.
    fn go_home(&mut self, way: &mut Way<'_, '_>) {
        let Some(selection) = self.council.selection.clone() else { return };
        let is_heard = self.receiver().parent().is_some();
        if let Some(ntp) = self.ntp.as_mut().filter(|ntp| ntp.is_followed && is_heard)
            && ntp.part == NtpPart::Witness
        {
            // The grandmaster is true again, and leads.
            ntp.follow(false);
            self.epoch = u64::MAX;
        }
        let domain_number = self.receiver().domain_number();
        let heard = |port: &PortIdentity| {
            self.council
                .witnesses
                .iter()
                .any(|it| it.id == SourceId::Ptp { domain_number, port: *port })
        };
        let distrusted = self.receiver().distrusted().iter();
        let forgiven: Vec<PortIdentity> = distrusted
            .filter(|port| {
                selection.members.contains(&SourceId::Ptp { domain_number, port: **port })
                    || !heard(port)
            })
            .copied()
            .collect();
        for port in forgiven {
            self.in_instance(way, |instance, cx| instance.trust_again(cx, port));
        }
        if domain_number != self.council.home {
            let is_home = |other: &Other| {
                other.node.domain_number() == self.council.home
                    && other.node.parent().is_some_and(|parent| {
                        let port = parent.set.parent_port_identity;
                        let domain_number = self.council.home;
                        selection.members.contains(&SourceId::Ptp { domain_number, port })
                    })
            };
            if let Some(at) = self.council.others.iter().position(is_home) {
                self.follow_domain(way, at);
            }
        }
    }

    fn in_instance(
        &mut self,
        way: &mut Way<'_, '_>,
        then: impl FnOnce(&mut Instance, &mut Context<'_, NoEvent>),
    ) {
        let clock = &crate::seam::Monotonic::default();
        let mut cx = Context { now: way.now, clock, out: &mut *way.said };
        then(self.node.instance_mut(), &mut cx);
    }

    /// The instance of another domain is the one that is followed from now on, and the other way round.
    fn follow_domain(&mut self, way: &mut Way<'_, '_>, at: usize) {
        let instance = self.node.instance_mut();
        instance.set_synchronized(way.said, Synchronization::Unlocked);
        mem::swap(&mut self.node, &mut self.council.others[at].node);
        let parent = self.receiver().parent().copied();
        // Numbers of epochs are an instance's own.
        self.epoch = u64::MAX;
        self.origin.parent = parent.or(self.origin.parent);
        way.said.push(Command::Changed(crate::seam::Change::Parent(parent)));
    }
}

mod standing;
#[cfg(test)]
mod tests;
