//! Time transmitters of the same domain that a port hears and does not follow: their Sync messages, put together
//! with the Follow_Up, so that the time of one can be held against another's. A requestless, one-way look; who
//! has not announced himself often enough to be followed is not looked at, nor who may not be followed.

use super::{Cx, Instance};
use crate::{
    PortIndex, limits,
    outcome::SyncObservation,
    seam::{Command, Witnessed},
    stamp::Stamp,
};
use alloc::collections::VecDeque;
use ptp_common::{
    data_set::TimeProperties,
    time::{Duration, Ptp, Time},
    wire::{Flags, Header, PortIdentity, Timestamp},
};

/// Sync messages that wait for their Follow_Up; the oldest goes.
const PENDING: usize = 32;

/// One half of two.
#[derive(Clone, Copy, Debug)]
struct Half {
    port: usize,
    source: PortIdentity,
    sequence_id: u16,
    sync: Option<(Stamp, Duration, Option<i8>)>,
    follow_up: Option<(Timestamp, Duration)>,
}

/// See the module's paragraph.
#[derive(Debug, Default)]
pub(super) struct Bystanders(VecDeque<Half>);

impl Bystanders {
    fn half(&mut self, port: usize, header: &Header) -> &mut Half {
        let (source, sequence_id) = (header.source_port_identity, header.sequence_id);
        let is_it =
            |half: &Half| (half.port, half.source, half.sequence_id) == (port, source, sequence_id);
        let at = self.0.iter().position(is_it).unwrap_or_else(|| {
            if self.0.len() >= PENDING {
                self.0.pop_front();
            }
            self.0.push_back(Half { port, source, sequence_id, sync: None, follow_up: None });
            self.0.len() - 1
        });
        &mut self.0[at]
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

impl Instance {
    /// A Sync of somebody who is not followed.
    pub(crate) fn overhear_sync(
        &mut self,
        cx: &mut Cx<'_>,
        index: usize,
        header: &Header,
        origin: Timestamp,
        rx: Option<Stamp>,
    ) {
        let Some(t2) = rx.filter(|_| self.is_candidate(cx, index, header)) else { return };
        let correction: Duration = header.correction.into();
        let log_interval = limits::sync_interval(header.log_message_interval);
        let is_one_step = !header.flags.contains(Flags::TWO_STEP)
            && !self.ports[index].config.assume_two_step
            && origin != Timestamp::ZERO;
        if is_one_step {
            self.witnessed(
                cx,
                index,
                header,
                (t2, correction, log_interval),
                (origin, Duration::ZERO),
                false,
            );
            return;
        }
        let half = self.bystanders.half(index, header);
        half.sync = Some((t2, correction, log_interval));
        self.match_halves(cx, index, header);
    }

    /// Its Follow_Up.
    pub(crate) fn overhear_follow_up(
        &mut self,
        cx: &mut Cx<'_>,
        index: usize,
        header: &Header,
        origin: Timestamp,
    ) {
        if self.is_candidate(cx, index, header) {
            let half = self.bystanders.half(index, header);
            half.follow_up = Some((origin, header.correction.into()));
            self.match_halves(cx, index, header);
        }
    }

    fn is_candidate(&self, cx: &Cx<'_>, index: usize, header: &Header) -> bool {
        let source = header.source_port_identity;
        !header.flags.contains(Flags::ALTERNATE_MASTER)
            && self.parent_on(index) != Some(source)
            && self.ports[index]
                .foreign
                .iter()
                .any(|each| each.source == source && each.is_qualified(cx.now))
    }

    fn match_halves(&mut self, cx: &mut Cx<'_>, index: usize, header: &Header) {
        let half = *self.bystanders.half(index, header);
        if let (Some(sync), Some(follow_up)) = (half.sync, half.follow_up) {
            self.bystanders.0.retain(|each| {
                (each.port, each.source, each.sequence_id)
                    != (half.port, half.source, half.sequence_id)
            });
            self.witnessed(cx, index, header, sync, follow_up, true);
        }
    }

    fn witnessed(
        &mut self,
        cx: &mut Cx<'_>,
        index: usize,
        header: &Header,
        (t2, correction, log_interval): (Stamp, Duration, Option<i8>),
        (origin, more): (Timestamp, Duration),
        two_step: bool,
    ) {
        let source = header.source_port_identity;
        let port = &self.ports[index];
        let Some(foreign) = port.foreign.iter().find(|each| each.source == source) else { return };
        let correction = correction + more;
        let t1 = Time::<Ptp>::from(origin) + correction + port.config.delay_asymmetry;
        let sequence_id = header.sequence_id;
        let sync = SyncObservation { t1, t2, sequence_id, log_interval, two_step, correction };
        let witnessed = Witnessed {
            port: PortIndex(index as u16),
            source,
            grandmaster: foreign.believed.announce.grandmaster_identity,
            time_properties: TimeProperties::new(
                foreign.believed.flags,
                &foreign.believed.announce,
            ),
            sync,
        };
        self.push(cx.out, Command::Witnessed(witnessed));
    }
}
