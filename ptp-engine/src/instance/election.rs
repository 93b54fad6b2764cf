//! Which time transmitter is followed: Announce messages in, the state decision out (9.3).

use super::{Cx, Instance, overheard::Hint};
use crate::prelude::*;
use crate::{
    PortIndex,
    bmca::DataSet,
    config::Acceptable,
    counters::Drop,
    extras::Extras,
    limits,
    outcome::{Parent, StateReason},
    port::{
        Role,
        foreign::{Announced, CAPACITY, Foreign, Heard},
        receiver::Following,
    },
    seam::Change,
};
use ptp_common::{
    data_set::{ParentDataSet, TimeProperties},
    time::{Mono, Time},
    wire::{Announce, ClockIdentity, Flags, Header, PortIdentity, TlvType, Tlvs},
};

/// Who may be followed.
#[derive(Debug)]
pub(super) struct Followable {
    /// Nobody in it: everybody.
    clocks: Vec<Acceptable>,
    max_clock_class: u8,
}

impl Followable {
    /// Whoever there is.
    pub(super) const ANY: Self = Self { clocks: Vec::new(), max_clock_class: u8::MAX };

    pub(super) const fn new(clocks: Vec<Acceptable>, max_clock_class: u8) -> Self {
        Self { clocks, max_clock_class }
    }

    /// Whether this one, and the grandmaster that it names, are among them.
    pub(super) fn names(&self, source: PortIdentity, grandmaster: ClockIdentity) -> bool {
        self.clocks.is_empty() || self.clocks.iter().any(|each| each.accepts(source, grandmaster))
    }

    pub(super) fn accepts(&self, source: PortIdentity, announce: &Announce) -> bool {
        self.names(source, announce.grandmaster_identity)
            && announce.grandmaster_clock_quality.clock_class <= self.max_clock_class
    }
}

impl Instance {
    pub(super) fn take_announce(
        &mut self,
        cx: &mut Cx<'_>,
        index: usize,
        header: &Header,
        announce: Announce,
        tlvs: Tlvs<'_>,
    ) -> Result<(), Drop> {
        let now = cx.now;
        if announce.grandmaster_identity == self.clock_identity {
            return Err(Drop::SelfGrandmaster);
        }
        if header.flags.contains(Flags::ALTERNATE_MASTER) {
            return Err(Drop::AlternateMaster);
        }
        if announce.steps_removed >= 255 {
            return Err(Drop::StepsRemoved);
        }
        self.is_fit_to_follow(index, &announce, tlvs.find(TlvType::PATH_TRACE))?;
        let source = header.source_port_identity;
        if !self.acceptable.accepts(source, &announce) {
            self.overheard.hear(now, Hint::NotAcceptable { source });
            return Err(Drop::NotAcceptable);
        }
        let parent = self.parent_on(index);
        let port = &mut self.ports[index];
        let configured = port.config.log_announce_interval;
        let claimed = limits::announce_interval(configured, header.log_message_interval);
        if claimed.is_some_and(|claimed| claimed.is_clamped) {
            port.counters.count_drop(Drop::IntervalClamped);
        }
        let said = Announced { announce, flags: header.flags };
        if !said.is_utc_offset_plausible() {
            port.counters.count_drop(Drop::ImplausibleUtcOffset);
        }
        let heard = port.foreign.hear(
            now,
            source,
            header.sequence_id,
            (configured, claimed.map_or(configured, |claimed| claimed.log)),
            said,
            port.identity,
            parent,
        );
        self.expect_silence_on(index);
        if heard == Heard::Believed && parent == Some(source) {
            self.keep_of_parent(header.flags, tlvs);
            self.extras = Some((source, Extras::of(&tlvs)));
        }
        match heard {
            Heard::Believed => self.decide(cx, StateReason::BestTransmitter),
            Heard::Noted => {}
            Heard::Late(kept) => self.overheard.hear(now, Hint::SlowAnnounce { source, kept }),
            // It was heard, and keeps its place.
            Heard::Unconfirmed => {
                self.decide(cx, StateReason::BestTransmitter);
                return Err(Drop::Unconfirmed);
            }
            Heard::NoRoom => return Err(Drop::ForeignTableFull),
            Heard::Duplicate => return Err(Drop::Duplicate),
            Heard::Stale => return Err(Drop::Replayed),
        }
        Ok(())
    }

    /// When a foreign time transmitter is forgotten: the parent after the announce receipt timeout
    /// (9.2.6.12), others when their last Announce has left the window.
    fn expiry(&self, index: usize, foreign: &Foreign) -> Time<Mono> {
        foreign.last_heard()
            + if self.parent_on(index) == Some(foreign.source) {
                self.ports[index].patience(foreign.interval())
            } else {
                foreign.window()
            }
    }

    /// The state decision: E_best over all ports (9.3.2.2), and what follows from it.
    pub(super) fn decide(&mut self, cx: &mut Cx<'_>, reason: StateReason) {
        if self.is_fixed() {
            self.decide_fixed(cx, reason);
        } else if self.asking.is_some() {
            self.decide_as_asker(cx, reason);
        } else if self.standing.is_some() {
            self.decide_roles(cx, reason);
        } else {
            self.decide_as_client(cx, reason);
        }
    }

    /// For a clock that is a client only.
    fn decide_as_client(&mut self, cx: &mut Cx<'_>, reason: StateReason) {
        let now = cx.now;
        let mut best: Option<(DataSet, bool, usize, usize)> = None;
        for (index, port) in self.ports.iter().enumerate() {
            for (n, foreign) in port.foreign.iter().enumerate() {
                if !foreign.is_qualified(now) && self.parent_on(index) != Some(foreign.source) {
                    continue;
                }
                if self.distrusted.contains(&foreign.source) {
                    continue;
                }
                let candidate = port.data_set_of(foreign);
                // Who announces itself and sends nothing else is better than nobody alone.
                let is_better = best.as_ref().is_none_or(|(best, is_silent, ..)| {
                    if foreign.is_silent == *is_silent {
                        candidate.is_better_than(best)
                    } else {
                        *is_silent
                    }
                });
                if is_better {
                    best = Some((candidate, foreign.is_silent, index, n));
                }
            }
        }
        let Some((_, _, index, n)) = best else {
            if let Some(old) = self.parent.take() {
                self.epoch += 1;
                self.leave(cx, usize::from(old.port.0), reason);
                self.tell(cx.out, Change::Parent(None));
            }
            self.expect_silence();
            return;
        };
        self.follow(cx, index, n, StateReason::BestTransmitter);
        self.expect_silence();
    }

    /// Follows the `n`th of those that port `index` has heard.
    pub(super) fn follow(&mut self, cx: &mut Cx<'_>, index: usize, n: usize, reason: StateReason) {
        let Some(foreign) = self.ports[index].foreign.get(n) else { return };
        let announce = &foreign.believed.announce;
        let new = Parent {
            port: PortIndex(index as u16),
            set: ParentDataSet::of(announce, foreign.source),
            steps_removed: announce.steps_removed,
            epoch: self.epoch,
            time_properties: TimeProperties::new(foreign.believed.flags, announce),
        };
        self.follow_parent(cx, index, new, reason);
    }

    /// Follows `new`, whom port `index` has heard.
    pub(super) fn follow_parent(
        &mut self,
        cx: &mut Cx<'_>,
        index: usize,
        mut new: Parent,
        reason: StateReason,
    ) {
        let old = self.parent;
        let same_port = old.is_some_and(|old| old.port == new.port);
        let same_parent = same_port
            && old.is_some_and(|old| old.set.parent_port_identity == new.set.parent_port_identity);
        let same_time = same_parent
            && old.is_some_and(|old| {
                old.set.grandmaster_identity == new.set.grandmaster_identity
                    && old.time_properties.ptp_timescale == new.time_properties.ptp_timescale
            });
        if !same_time {
            self.epoch += 1;
            new.epoch = self.epoch;
        }
        self.parent = Some(new);
        if let (false, Role::Receiver(following)) = (same_time, &mut self.ports[index].role) {
            following.forget_halves();
        }
        if !same_parent {
            // A clock that may serve decides what else the old port does.
            if let Some(old) = old.filter(|_| !same_port && self.standing.is_none()) {
                self.leave(cx, usize::from(old.port.0), StateReason::BetterElsewhere);
            }
            let mut following = Following::new(&self.ports[index].config);
            if let Some((_, log)) =
                self.ports[index].granted.filter(|(by, _)| *by == new.set.parent_port_identity)
            {
                following.log_delay_req_interval = log;
            }
            self.enter(cx, index, Role::Receiver(following), reason);
            self.expect_parent(index);
        }
        if !same_time {
            self.tell(cx.out, Change::Parent(Some(new)));
        }
    }

    /// A time transmitter is not followed any more until [`Instance::trust_again`]: others have refuted its time.
    /// As many as there are candidates; the first of more is forgotten.
    pub(crate) fn distrust(&mut self, cx: &mut Cx<'_>, source: PortIdentity) {
        if !self.distrusted.contains(&source) {
            if self.distrusted.len() >= CAPACITY {
                self.distrusted.remove(0);
            }
            self.distrusted.push(source);
            self.decide(cx, StateReason::BetterElsewhere);
        }
    }

    /// It may be followed again.
    pub(crate) fn trust_again(&mut self, cx: &mut Cx<'_>, source: PortIdentity) {
        let before = self.distrusted.len();
        self.distrusted.retain(|each| *each != source);
        if self.distrusted.len() < before {
            self.decide(cx, StateReason::BestTransmitter);
        }
    }

    /// Whom it does not follow though it could.
    pub(crate) fn distrusted(&self) -> &[PortIdentity] {
        &self.distrusted
    }

    /// A port stops following.
    pub(crate) fn leave(&mut self, cx: &mut Cx<'_>, index: usize, reason: StateReason) {
        if !matches!(self.ports[index].role, Role::Disabled) {
            self.enter(cx, index, Role::Listening, reason);
        }
    }

    /// When the first of the foreign time transmitters of each port is forgotten: it depends on who is followed.
    pub(super) fn expect_silence(&mut self) {
        for index in 0..self.ports.len() {
            self.expect_silence_on(index);
        }
    }

    pub(super) fn expect_silence_on(&mut self, index: usize) {
        let foreign = self.ports[index].foreign.iter();
        let first = foreign
            .map(|foreign| self.expiry(index, foreign))
            .chain(self.ports[index].shadowed_until)
            .min();
        self.expiries.put(index as u16, first);
    }

    /// Forgets who has been silent for too long.
    pub(super) fn expire(&mut self, cx: &mut Cx<'_>) {
        if self.expiries.next().is_none_or(|at| at > cx.now) {
            return;
        }
        for index in 0..self.ports.len() {
            let gone: Vec<PortIdentity> = self.ports[index]
                .foreign
                .iter()
                .filter(|foreign| self.expiry(index, foreign) <= cx.now)
                .map(|foreign| foreign.source)
                .collect();
            let is_forsaken = self.parent_on(index).is_some_and(|parent| gone.contains(&parent));
            let port = &mut self.ports[index];
            port.foreign.retain(|foreign| !gone.contains(&foreign.source));
            if is_forsaken {
                port.counters.timeouts.announce += 1;
                port.has_waited = port.foreign.iter().next().is_none();
            }
        }
        self.decide(cx, StateReason::AnnounceTimeout);
    }
}
