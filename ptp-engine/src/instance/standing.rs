//! What a clock that may serve says of its time: its own as grandmaster, that of its parent while it follows one,
//! and what is left of that when the parent has gone.

use super::{Cx, Instance, Participation};
use crate::prelude::*;
use crate::{
    contention::{Contention, Holdover, PathTrace},
    instance::Synchronization,
    port::Role,
};
use ptp_common::{
    data_set::{ParentDataSet, TimeProperties},
    time::{Duration, Mono, Time},
    wire::{
        AlternateTimeOffset, Announce, ClockQuality, Flags, PortIdentity, PowerProfile, TimeSource,
        Timestamp, Tlv, TlvBuilder, TlvType, Tlvs,
    },
};

/// Bytes of TLVs that are kept of a parent's Announce: more would not fit behind one's own.
const KEPT: usize = 128;
const DAY: Duration = Duration::from_secs(86_400);

/// See the module's paragraph.
#[derive(Debug)]
pub(crate) struct Standing {
    pub(super) contention: Contention,
    /// The servo has followed somebody well, once.
    pub(super) has_locked: bool,
    /// What the time is that the clock has followed well last.
    followed: Option<TimeProperties>,
    /// The same since there is no parent, and when the leap second comes that it has announced.
    heritage: Option<Heritage>,
    /// `pathTraceDS.list` (16.2.2), the parent's identity last; and what of its TLVs is passed on (14.2.2.2).
    path: Vec<u8>,
    passed: Vec<u8>,
    /// The parent says so of itself.
    is_parent_uncertain: bool,
}

/// What a parent has left.
#[derive(Clone, Copy, Debug)]
struct Heritage {
    properties: TimeProperties,
    since: Time<Mono>,
    leap_at: Option<Time<Mono>>,
}

impl Heritage {
    fn at(&self, now: Time<Mono>) -> TimeProperties {
        let mut properties = TimeProperties {
            time_traceable: false,
            frequency_traceable: false,
            time_source: TimeSource::INTERNAL_OSCILLATOR,
            ..self.properties
        };
        if self.leap_at.is_some_and(|at| at <= now) {
            let more = i16::from(properties.leap61) - i16::from(properties.leap59);
            properties.current_utc_offset += more;
            (properties.leap61, properties.leap59) = (false, false);
        }
        properties
    }
}

impl Standing {
    pub(super) const fn new(contention: Contention) -> Self {
        Self {
            contention,
            has_locked: false,
            followed: None,
            heritage: None,
            path: Vec::new(),
            passed: Vec::new(),
            is_parent_uncertain: false,
        }
    }
}

/// Whether a boundary clock passes a TLV of this type on (table 52).
pub(crate) const fn is_propagated(kind: TlvType) -> bool {
    matches!(kind.0, 0x4000..=0x7fff)
}

impl Instance {
    /// `currentDS.stepsRemoved`.
    pub fn steps_removed(&self) -> u16 {
        let external = self.managed.external.map_or(0, |(_, steps)| steps);
        self.parent.map_or(external, |parent| parent.steps_removed.saturating_add(1))
    }

    /// The path from the grandmaster to the parent, as far as it is told (`pathTraceDS.list`).
    pub fn path(&self) -> impl Iterator<Item = ptp_common::wire::ClockIdentity> + '_ {
        let path = self.standing.as_ref().map_or(&[][..], |standing| &standing.path);
        path.chunks_exact(8).filter_map(|each| {
            Some(ptp_common::wire::ClockIdentity(<[u8; 8]>::try_from(each).ok()?))
        })
    }

    /// Whether it takes either role, and so may serve.
    pub const fn may_take_either_role(&self) -> bool {
        matches!(self.participation, Participation::Either)
    }

    /// The path and the TLVs of the parent's Announce.
    pub(super) fn keep_of_parent(&mut self, flags: Flags, tlvs: Tlvs<'_>) {
        let Some(standing) = &mut self.standing else { return };
        standing.is_parent_uncertain = flags.contains(Flags::SYNCHRONIZATION_UNCERTAIN);
        standing.path.clear();
        if let Some(path) = tlvs.find(TlvType::PATH_TRACE) {
            let whole = path.len().min(KEPT) / 8 * 8;
            standing.path.extend_from_slice(&path[..whole]);
        }
        standing.passed.clear();
        for tlv in tlvs.iter().filter(|tlv| is_propagated(tlv.kind)) {
            let (before, length) = (standing.passed.len(), tlv.wire_length());
            if before + length > KEPT {
                continue;
            }
            standing.passed.resize(before + length, 0);
            // Cannot fail: it came in whole, and there is room.
            if tlv.emit(&mut standing.passed[before..]).is_err() {
                standing.passed.truncate(before);
            }
        }
    }

    /// The clock follows nobody from now on: what is left is the parent's time.
    pub(super) fn lost_parent(&mut self, cx: &mut Cx<'_>) {
        self.became_source();
        let Some(standing) = &mut self.standing else { return };
        standing.path.clear();
        standing.passed.clear();
        standing.is_parent_uncertain = false;
        let Some(properties) = standing.followed else { return };
        let has_leap = properties.leap61 || properties.leap59;
        let utc = cx.clock.at(cx.now).filter(|_| has_leap);
        // It comes at the end of the UTC day (7.2.4).
        let leap_at = utc.map(|time| {
            let utc = time - properties.utc_offset().best();
            let into_day = utc.since_epoch().as_nanos().rem_euclid(DAY.as_nanos());
            cx.now + (DAY - Duration::from_nanos(into_day))
        });
        standing.heritage = Some(Heritage { properties, since: cx.now, leap_at });
    }

    /// Remembers what time is followed well, for when its parent has gone.
    pub(super) fn note_time(&mut self) {
        let Some(parent) = self.parent.filter(|_| self.is_locked()) else { return };
        if let Some(standing) = &mut self.standing {
            standing.followed = Some(parent.time_properties);
        }
    }

    /// Whether the parent is followed well: SLAVE.
    pub(super) fn is_locked(&self) -> bool {
        let port = self.parent.and_then(|parent| self.ports.get(usize::from(parent.port.0)));
        port.is_some_and(|port| {
            matches!(&port.role, Role::Receiver(following)
            if following.synchronization == Synchronization::Locked)
        })
    }

    /// `timePropertiesDS` in force: the parent's; without one what its time is since, or the clock's own.
    pub fn time_properties(&self) -> TimeProperties {
        if let Some(parent) = &self.parent {
            return parent.time_properties;
        }
        let heritage = self.standing.as_ref().and_then(|standing| standing.heritage.as_ref());
        heritage.map_or(self.served.time_properties, |heritage| heritage.at(self.last_now))
    }

    fn holdover(&self) -> Option<(&Holdover, Time<Mono>)> {
        let standing = self.standing.as_ref()?;
        let heritage = standing.heritage.filter(|_| self.parent.is_none())?;
        Some((standing.contention.holdover.as_ref()?, heritage.since))
    }

    /// `defaultDS.clockQuality` at `now`.
    pub fn quality(&self, now: Time<Mono>) -> ClockQuality {
        let configured = self.served.clock_quality;
        match self.holdover() {
            Some((holdover, since)) => {
                let is_within = now - since < holdover.span;
                let clock_class = if is_within { holdover.within } else { holdover.beyond };
                ClockQuality { clock_class, ..configured }
            }
            None => configured,
        }
    }

    /// `synchronizationUncertain` (7.6.2.8): what is told is not what the clock is known to follow.
    pub fn is_uncertain(&self, now: Time<Mono>) -> bool {
        if self.managed.is_uncertain {
            return true;
        }
        let Some(standing) = &self.standing else { return false };
        match self.parent {
            Some(_) => {
                let is_own = !self.is_locked() && !self.passes_on_unlocked();
                is_own || standing.is_parent_uncertain
            }
            None => self.holdover().is_some_and(|(holdover, since)| now - since >= holdover.span),
        }
    }

    /// `parentDS` in force: its own where it is the grandmaster.
    pub fn parent_data_set(&self, now: Time<Mono>) -> ParentDataSet {
        match &self.parent {
            Some(parent) => parent.set,
            None => ParentDataSet {
                parent_port_identity: PortIdentity {
                    clock_identity: self.clock_identity,
                    port_number: 0,
                },
                parent_stats: false,
                observed_offset_scaled_log_variance: ParentDataSet::UNKNOWN_VARIANCE,
                observed_phase_change_rate: ParentDataSet::UNKNOWN_RATE,
                grandmaster_priority1: self.served.priority1,
                grandmaster_clock_quality: self.quality(now),
                grandmaster_priority2: self.served.priority2,
                grandmaster_identity: self
                    .managed
                    .external
                    .map_or(self.clock_identity, |(identity, _)| identity),
            },
        }
    }

    /// What Announce says at `now`, and its flags.
    pub(crate) fn announced(&self, now: Time<Mono>) -> (Announce, Flags) {
        let set = self.parent_data_set(now);
        let properties = self.time_properties();
        let uncertain = self.is_uncertain(now);
        let flags = properties.flags().with(Flags::SYNCHRONIZATION_UNCERTAIN, uncertain);
        let announce = Announce {
            origin_timestamp: Timestamp::ZERO,
            current_utc_offset: properties.current_utc_offset,
            grandmaster_priority1: set.grandmaster_priority1,
            grandmaster_clock_quality: set.grandmaster_clock_quality,
            grandmaster_priority2: set.grandmaster_priority2,
            grandmaster_identity: set.grandmaster_identity,
            steps_removed: self.steps_removed(),
            time_source: properties.time_source,
        };
        (announce, flags)
    }

    /// The TLVs behind that, as far as they fit into `buffer`: the path, what the parent's Announce has that is to be
    /// passed on, and a grandmaster's alternate times.
    pub(crate) fn announced_tlvs<'a>(&self, index: usize, buffer: &'a mut [u8]) -> Tlvs<'a> {
        let mut tlvs = TlvBuilder::new(buffer);
        // What does not fit is left out, and the message is sent all the same.
        if let Some(standing) = &self.standing {
            if standing.contention.path_trace == PathTrace::On {
                let mut path = standing.path.clone();
                path.extend_from_slice(&self.clock_identity.0);
                let _ = tlvs.push(Tlv { kind: TlvType::PATH_TRACE, value: &path });
            }
            for tlv in Tlvs::new(&standing.passed).unwrap_or(Tlvs::NONE) {
                let _ = tlvs.push(tlv);
            }
        }
        for alternate in self.alternates.iter().filter(|_| self.parent.is_none()) {
            let mut value = [0; AlternateTimeOffset::MAX_LENGTH];
            let length = alternate.value(&mut value);
            let _ = tlvs.push(AlternateTimeOffset::tlv(&value[..length]));
        }
        if let Some(power) = self.ports.get(index).and_then(|port| port.power) {
            let _ = tlvs.push(PowerProfile::tlv(&power.value()));
        }
        tlvs.finish()
    }
}
