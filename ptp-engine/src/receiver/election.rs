//! Which time transmitter is followed: Announce messages in, the state decision out (9.3).

use super::{
    super::{PortIndex, PortState, bmca::DataSet, counters::Drop},
    Action, Parent, Receiver, StateReason,
    foreign::{Announced, Foreign, Heard},
    overheard::Hint,
};
use crate::limits;
use ptp_common::{
    data_set::{ParentDataSet, TimeProperties},
    time::{Mono, Time},
    wire::{Announce, Flags, Header},
};

impl Receiver {
    pub(super) fn take_announce(
        &mut self,
        now: Time<Mono>,
        index: usize,
        header: &Header,
        announce: Announce,
    ) -> Result<(), Drop> {
        if announce.grandmaster_identity == self.clock_identity {
            return Err(Drop::SelfGrandmaster);
        }
        if header.flags.contains(Flags::ALTERNATE_MASTER) {
            return Err(Drop::AlternateMaster);
        }
        if announce.steps_removed >= 255 {
            return Err(Drop::StepsRemoved);
        }
        let source = header.source_port_identity;
        if !self.acceptable.is_empty()
            && !self
                .acceptable
                .iter()
                .any(|each| each.accepts(source, announce.grandmaster_identity))
        {
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
        match heard {
            Heard::Believed => self.decide(now, StateReason::BestTransmitter),
            Heard::Noted => {}
            Heard::Late(kept) => self.overheard.hear(now, Hint::SlowAnnounce { source, kept }),
            // It was heard, and keeps its place.
            Heard::Unconfirmed => {
                self.decide(now, StateReason::BestTransmitter);
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
    pub(super) fn expiry(&self, index: usize, foreign: &Foreign) -> Time<Mono> {
        foreign.last_heard()
            + if self.parent_on(index) == Some(foreign.source) {
                let timeout = self.ports[index].config.announce_receipt_timeout;
                foreign.interval() * i32::from(timeout)
            } else {
                foreign.window()
            }
    }

    /// The state decision: E_best over all ports (9.3.2.2), for a clock that is a client only.
    pub(super) fn decide(&mut self, now: Time<Mono>, reason: StateReason) {
        let mut best: Option<(DataSet, usize, usize)> = None;
        for (index, port) in self.ports.iter().enumerate() {
            for (n, foreign) in port.foreign.iter().enumerate() {
                if !foreign.is_qualified(now) && self.parent_on(index) != Some(foreign.source) {
                    continue;
                }
                let candidate = foreign.data_set(port.identity);
                if best.as_ref().is_none_or(|(best, ..)| candidate.is_better_than(best)) {
                    best = Some((candidate, index, n));
                }
            }
        }
        let Some((_, index, n)) = best else {
            if let Some(old) = self.parent.take() {
                self.epoch += 1;
                self.leave(usize::from(old.port.0), reason);
                self.push(Action::ParentChanged { parent: None });
            }
            return;
        };
        let Some(foreign) = self.ports[index].foreign.get(n) else { return };
        let announce = &foreign.believed.announce;
        let mut new = Parent {
            port: PortIndex(index as u16),
            set: ParentDataSet::of(announce, foreign.source),
            steps_removed: announce.steps_removed,
            epoch: self.epoch,
            time_properties: TimeProperties::new(foreign.believed.flags, announce),
        };
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
        if !same_time {
            // Halves of exchanges from before and after do not fit together.
            self.ports[index].syncs.clear();
            self.ports[index].delays.clear();
        }
        if !same_parent {
            if let Some(old) = old.filter(|_| !same_port) {
                self.leave(usize::from(old.port.0), StateReason::BetterElsewhere);
            }
            self.ports[index].clear_parent();
            self.synchronized = false;
            self.set_state(index, PortState::Uncalibrated, StateReason::BestTransmitter);
        }
        if !same_time {
            self.push(Action::ParentChanged { parent: Some(new) });
        }
    }

    /// A port stops following.
    pub(super) fn leave(&mut self, index: usize, reason: StateReason) {
        self.synchronized = false;
        self.ports[index].clear_parent();
        if self.ports[index].state != PortState::Disabled {
            self.set_state(index, PortState::Listening, reason);
        }
    }
}
