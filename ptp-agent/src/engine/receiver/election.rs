//! Which time transmitter is followed: Announce messages in, the state decision out (9.3).

use super::{
    super::{
        PortIndex, PortState,
        bmca::DataSet,
        counters::Drop,
        log_interval,
        sequence::{SequenceGuard, Verdict},
    },
    Action, ParentDataSet, Receiver, StateReason, TimeProperties,
};
use ptp_common::{
    time::{Duration, Mono, Time},
    wire::{Announce, Flags, Header, PortIdentity},
};

/// FOREIGN_MASTER_TIME_WINDOW, announce intervals (9.3.2.4.5).
const FOREIGN_MASTER_TIME_WINDOW: i32 = 4;
/// FOREIGN_MASTER_THRESHOLD, Announce messages within the window (9.3.2.4.5).
const FOREIGN_MASTER_THRESHOLD: u8 = 2;
/// Foreign time transmitters remembered per port. The standard asks for at least five (9.3.2.4.6).
const FOREIGN_CAPACITY: usize = 16;

/// `foreignMasterDS` entry (9.3.2.4).
#[derive(Debug)]
pub(super) struct Foreign {
    pub(super) source: PortIdentity,
    announce: Announce,
    flags: Flags,
    log_interval: i8,
    sequence: SequenceGuard,
    /// When the last [`FOREIGN_MASTER_THRESHOLD`] Announce messages came, latest first.
    heard: [Option<Time<Mono>>; FOREIGN_MASTER_THRESHOLD as usize],
}

impl Foreign {
    fn interval(&self) -> Duration {
        Duration::from_log_interval(self.log_interval)
    }

    fn last_heard(&self) -> Time<Mono> {
        self.heard[0].unwrap_or(Time::ZERO)
    }

    fn window(&self) -> Duration {
        self.interval() * FOREIGN_MASTER_TIME_WINDOW
    }

    /// Enough Announce messages within the window.
    fn is_qualified(&self, now: Time<Mono>) -> bool {
        self.heard.iter().all(|heard| heard.is_some_and(|at| now - at <= self.window()))
    }
}

/// Two Announce messages, one and a half intervals: before the receipt timeout ends it anyway.
fn announce_guard() -> SequenceGuard {
    SequenceGuard::new(2, 3)
}

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
        let parent = self.parent_on(index);
        let port = &mut self.ports[index];
        let position = port.foreign.iter().position(|foreign| foreign.source == source);
        let position = match position {
            Some(position) => position,
            None => {
                if port.foreign.len() >= FOREIGN_CAPACITY {
                    // Room for one more only at the cost of one that has not qualified.
                    let oldest = (0..port.foreign.len())
                        .filter(|n| Some(port.foreign[*n].source) != parent)
                        .filter(|n| !port.foreign[*n].is_qualified(now))
                        .min_by_key(|n| port.foreign[*n].last_heard());
                    port.foreign.swap_remove(oldest.ok_or(Drop::ForeignTableFull)?);
                    port.counters.count_drop(Drop::ForeignTableFull);
                }
                port.foreign.push(Foreign {
                    source,
                    announce,
                    flags: header.flags,
                    log_interval: port.config.log_announce_interval,
                    sequence: announce_guard(),
                    heard: [None; _],
                });
                port.foreign.len() - 1
            }
        };
        let foreign = &mut port.foreign[position];
        let interval = foreign.interval();
        match foreign.sequence.check(now, header.sequence_id, interval) {
            Verdict::Fresh => foreign.sequence.accept(now, header.sequence_id),
            Verdict::Duplicate => return Err(Drop::Duplicate),
            Verdict::Stale => return Err(Drop::Replayed),
        }
        if let Some(log) = log_interval(header.log_message_interval) {
            foreign.log_interval = log;
        }
        foreign.announce = announce;
        foreign.flags = header.flags;
        foreign.heard.rotate_right(1);
        foreign.heard[0] = Some(now);
        self.decide(now, StateReason::BestTransmitter);
        Ok(())
    }

    /// When a foreign time transmitter is forgotten: the parent after the announce receipt timeout
    /// (9.2.6.12), others when their last Announce has left the window.
    pub(super) fn expiry(&self, index: usize, foreign: &Foreign) -> Time<Mono> {
        let intervals = if self.parent_on(index) == Some(foreign.source) {
            i32::from(self.ports[index].config.announce_receipt_timeout)
        } else {
            FOREIGN_MASTER_TIME_WINDOW
        };
        foreign.last_heard() + foreign.interval() * intervals
    }

    /// The state decision: E_best over all ports (9.3.2.2), for a clock that is a client only.
    pub(super) fn decide(&mut self, now: Time<Mono>, reason: StateReason) {
        let mut best: Option<(DataSet, usize, usize)> = None;
        for (index, port) in self.ports.iter().enumerate() {
            for (n, foreign) in port.foreign.iter().enumerate() {
                if !foreign.is_qualified(now) && self.parent_on(index) != Some(foreign.source) {
                    continue;
                }
                let candidate = DataSet::new(&foreign.announce, foreign.source, port.identity);
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
        let foreign = &self.ports[index].foreign[n];
        let announce = &foreign.announce;
        let mut new = ParentDataSet {
            port: PortIndex(index as u16),
            parent_port_identity: foreign.source,
            grandmaster_identity: announce.grandmaster_identity,
            grandmaster_clock_quality: announce.grandmaster_clock_quality,
            grandmaster_priority1: announce.grandmaster_priority1,
            grandmaster_priority2: announce.grandmaster_priority2,
            steps_removed: announce.steps_removed,
            epoch: self.epoch,
            time_properties: TimeProperties::new(foreign.flags, announce),
        };
        let old = self.parent;
        let same_port = old.is_some_and(|old| old.port == new.port);
        let same_parent = same_port
            && old.is_some_and(|old| old.parent_port_identity == new.parent_port_identity);
        let same_time = same_parent
            && old.is_some_and(|old| {
                old.grandmaster_identity == new.grandmaster_identity
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
