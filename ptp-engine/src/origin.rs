//! Where the clock's time comes from: the time transmitter that was measured last, which is still known
//! when it has fallen silent, and what lies between it and UTC. A bound on the clock's error is against
//! the parent by nature; boundary clocks between, where these do not tell themselves how far they are off, and the
//! grandmaster's own inaccuracy come on top.

use ptp_common::time::Duration;
use serde::{Deserialize, Serialize};

use super::receiver::Parent;
use crate::servo::Trust;

/// What a bound on the clock's error is against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BoundReference {
    /// UTC, or its like with the grandmaster's epoch.
    Utc,
    /// The grandmaster, whose own error nobody knows.
    Grandmaster,
    /// The parent: boundary clocks of unknown error stand between it and the grandmaster.
    Parent,
}

impl BoundReference {
    /// The name in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Utc => "utc",
            Self::Grandmaster => "grandmaster",
            Self::Parent => "parent",
        }
    }
}

/// See the module's paragraph.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Origin {
    /// Of the latest measurement.
    pub parent: Option<Parent>,
    /// Error of each boundary clock between grandmaster and here, where it is known.
    pub boundary_clock_error: Option<Duration>,
    /// The parent tells how far it is from the grandmaster at the most, and that is in the bound.
    pub is_told: bool,
    /// Of a server of NTP: how far it is from UTC at the most, by what it says.
    pub root_distance: Option<Duration>,
}

impl Origin {
    /// What the boundary clocks between may add; `None` where there are some and nobody knows it.
    fn between(&self) -> Option<Duration> {
        match self.parent.map_or(0, |parent| parent.steps_removed) {
            0 => Some(Duration::ZERO),
            _ if self.is_told => Some(Duration::ZERO),
            steps => Some(self.boundary_clock_error? * i32::from(steps)),
        }
    }

    /// What a bound on the clock's error is against: grandmaster or parent.
    pub fn bound_reference(&self) -> BoundReference {
        match self.between() {
            Some(_) if self.root_distance.is_some() => BoundReference::Utc,
            Some(_) => BoundReference::Grandmaster,
            None => BoundReference::Parent,
        }
    }

    /// What was against the parent, against the grandmaster as far as the boundary clocks are known.
    pub fn widen(&self, trust: Trust) -> Trust {
        let between = self.between().unwrap_or(Duration::ZERO);
        let between = between + self.root_distance.unwrap_or(Duration::ZERO);
        Trust { bound: trust.bound + between, interval: trust.interval.widened(between), ..trust }
    }

    /// How far the grandmaster itself is from UTC at the most: what it claims (`clockAccuracy`, IEEE
    /// 1588-2019 table 5) where it calls its time traceable (`timeTraceable`, 7.6.2.3), else `configured`.
    /// `None` where nobody knows, and where the bound is not even against the grandmaster.
    pub fn inaccuracy(&self, configured: Option<Duration>) -> Option<Duration> {
        self.between()?;
        let parent = self.parent?;
        let is_utc = parent.time_properties.time_traceable && parent.time_properties.ptp_timescale;
        let accuracy = parent.set.grandmaster_clock_quality.clock_accuracy;
        accuracy.bound().filter(|_| is_utc).or(configured)
    }

    /// The bound with [`Self::inaccuracy`] in it, and what it is against then.
    pub fn utc_bound(
        &self,
        trust: &Trust,
        configured: Option<Duration>,
    ) -> (Duration, BoundReference) {
        match self.inaccuracy(configured) {
            Some(inaccuracy) => (trust.bound + inaccuracy, BoundReference::Utc),
            None => (trust.bound, self.bound_reference()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        PortIndex,
        clock::{ClockScale, watch::WatchClock},
        discipline::Client,
        receiver::ReceiverConfig,
        servo::{Basis, Choice, Interval, Options, build},
    };
    use ptp_common::{
        data_set::{ParentDataSet, TimeProperties},
        time::Time,
        wire::{
            Announce, ClockAccuracy, ClockIdentity, ClockQuality, PortIdentity, TimeSource,
            Timestamp,
        },
    };

    pub(crate) fn origin(steps_removed: u16, accuracy: u8, time_traceable: bool) -> Origin {
        let announce = Announce {
            origin_timestamp: Timestamp::ZERO,
            current_utc_offset: 37,
            grandmaster_priority1: 128,
            grandmaster_clock_quality: ClockQuality {
                clock_class: 6,
                clock_accuracy: ClockAccuracy(accuracy),
                offset_scaled_log_variance: 0xffff,
            },
            grandmaster_priority2: 128,
            grandmaster_identity: ClockIdentity::default(),
            steps_removed,
            time_source: TimeSource::GNSS,
        };
        let parent = Parent {
            port: PortIndex(0),
            set: ParentDataSet::of(&announce, PortIdentity::default()),
            steps_removed,
            epoch: 1,
            time_properties: TimeProperties {
                current_utc_offset: 37,
                current_utc_offset_valid: true,
                leap59: false,
                leap61: false,
                time_traceable,
                frequency_traceable: true,
                ptp_timescale: true,
                time_source: TimeSource::GNSS,
            },
        };
        Origin { parent: Some(parent), ..Origin::default() }
    }

    fn nanos(nanos: i64) -> Duration {
        Duration::from_nanos(nanos)
    }

    fn trust() -> Trust {
        Trust {
            bound: nanos(5_000),
            precision: nanos(40),
            interval: Interval { lo: nanos(-3_000), hi: nanos(5_000) },
            basis: Basis::Causality,
            is_clipped: false,
            growth: Duration::ZERO,
        }
    }

    #[test]
    fn each_boundary_clock_widens_bound_and_interval_by_its_error_and_leaves_the_precision() {
        let trust = trust();
        let mut origin = origin(3, 0x21, true);
        assert_eq!(origin.widen(trust), trust, "of unknown boundary clocks nothing is guessed");
        assert_eq!(origin.bound_reference(), BoundReference::Parent);
        origin.boundary_clock_error = Some(nanos(100));
        let widened = origin.widen(trust);
        assert_eq!((widened.bound, widened.precision), (nanos(5_300), nanos(40)));
        assert_eq!(widened.interval, Interval { lo: nanos(-3_300), hi: nanos(5_300) });
        assert_eq!(origin.bound_reference(), BoundReference::Grandmaster);
    }

    #[test]
    fn without_boundary_clocks_the_bound_is_against_the_grandmaster() {
        assert_eq!(origin(0, 0xfe, false).bound_reference(), BoundReference::Grandmaster);
    }

    #[test]
    fn a_traceable_grandmaster_is_believed_and_another_needs_a_configured_figure() {
        let configured = Some(nanos(7));
        for (origin, alone, with) in [
            (origin(0, 0x21, true), Some(nanos(100)), Some(nanos(100))),
            (origin(0, 0x21, false), None, configured),
            (origin(0, 0xfe, true), None, configured),
            (origin(0, 0x31, true), None, configured),
        ] {
            assert_eq!(origin.inaccuracy(None), alone);
            assert_eq!(origin.inaccuracy(configured), with);
        }
    }

    #[test]
    fn behind_unknown_boundary_clocks_no_accuracy_of_the_grandmaster_makes_utc() {
        let mut origin = origin(1, 0x21, true);
        assert_eq!(origin.inaccuracy(Some(nanos(7))), None);
        let trust = trust();
        let alone = (trust.bound, BoundReference::Parent);
        assert_eq!(origin.utc_bound(&trust, Some(nanos(7))), alone);
        origin.boundary_clock_error = Some(nanos(50));
        let trust = origin.widen(trust);
        let with_all = (nanos(5_000 + 50 + 100), BoundReference::Utc);
        assert_eq!(origin.utc_bound(&trust, None), with_all);
    }

    #[test]
    fn a_clock_on_utc_still_stands_beside_tai_when_its_grandmaster_has_gone() {
        let now = Time::from_nanos(1_000_000_000);
        let utc = Time::from_seconds_nanos(1_900_000_000, 0);
        let clock = WatchClock::new(ClockScale::Utc, now, utc);
        let config = ReceiverConfig::new(ClockIdentity::default(), 1);
        let servo = build(&Choice::default(), &Options::default());
        let mut client = Client::new(config, servo, clock, now);
        client.origin = origin(0, 0x21, true);
        assert_eq!(client.receiver().parent(), None);
        assert_eq!(client.domain_time(now), utc + Duration::from_secs(37));
    }
}
