//! Several sources of time, each with an interval in which the clock's error against it must lie: who of them can
//! be right together, and who cannot. An interval that rests upon causality contains the truth of every honest
//! source, so honest ones have a point in common, and where two have none, one of them lies or is broken
//! (Marzullo and Owicki 1983; the selection of RFC 5905, 11.2.1, with intervals that need no distribution).
//! Sans-I/O and of no protocol: a server of NTP is a source like a grandmaster.

use core::{fmt, net::IpAddr};

use ptp_common::{time::Duration, wire::PortIdentity};
use serde::{Deserialize, Serialize};

use crate::{prelude::*, servo::Interval};

/// As many are compared at the most.
pub const MAX_SOURCES: usize = 32;

/// Whose time it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SourceId {
    /// A time transmitter of PTP.
    Ptp {
        /// `domainNumber`.
        domain_number: u8,
        /// Who sends it.
        port: PortIdentity,
    },
    /// A server of NTP.
    Ntp(IpAddr),
    /// A pulse per second.
    Pulse,
    /// The sentences of a receiver, which say which second it is.
    Nmea,
}

/// What is done where sources contradict each other (`--on-disagreement`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// It is told, and the best time transmitter is followed all the same.
    #[default]
    Alarm,
    /// Unless most sources agree with the one that is followed, the clock runs on with what it has learnt.
    Holdover,
    /// Where most sources agree with each other and not with the one that is followed, one of them is followed
    /// instead. Where no majority is, the clock runs on with what it has learnt.
    FollowMajority,
}

impl Policy {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Alarm, Self::Holdover, Self::FollowMajority];

    /// The name, as on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Alarm => "alarm",
            Self::Holdover => "holdover",
            Self::FollowMajority => "follow-majority",
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl core::str::FromStr for Policy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|each| each.name() == text);
        known.ok_or_else(|| "expected alarm, holdover or follow-majority".to_owned())
    }
}

/// What one source says of the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opinion {
    /// Whose it is.
    pub id: SourceId,
    /// Where clock minus source must lie.
    pub interval: Interval,
}

/// Who can be right together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// What all members of the largest group have in common; `None` where there is nobody.
    pub common: Option<Interval>,
    /// The members of the largest group: whose interval has all of `common` in it. Empty where two groups are
    /// equally large, since nobody knows then which is right.
    pub members: Vec<SourceId>,
    /// How many were asked.
    pub asked: usize,
}

impl Selection {
    /// Whether the largest group is more than half of all.
    pub const fn is_majority(&self) -> bool {
        2 * self.members.len() > self.asked
    }

    /// Whether all can be right together.
    pub const fn is_unanimous(&self) -> bool {
        self.members.len() == self.asked
    }

    /// Whether a source is in the largest group, and that is more than half of all.
    pub fn is_confirmed(&self, id: SourceId) -> bool {
        self.is_majority() && self.members.contains(&id)
    }
}

/// Finds the largest group of sources whose intervals have a point in common.
pub fn select(opinions: &[Opinion]) -> Selection {
    let opinions = &opinions[..opinions.len().min(MAX_SOURCES)];
    let asked = opinions.len();
    // The common part of any group begins where one of its intervals does.
    let group_at = |point: Duration| {
        opinions.iter().filter(move |each| each.interval.contains(point)).collect::<Vec<_>>()
    };
    let groups: Vec<Vec<&Opinion>> =
        opinions.iter().map(|each| group_at(each.interval.lo)).collect();
    let Some(largest) = groups.iter().map(Vec::len).max() else {
        return Selection { common: None, members: Vec::new(), asked };
    };
    let common_of = |group: &[&Opinion]| {
        let lo = group.iter().map(|each| each.interval.lo).max()?;
        let hi = group.iter().map(|each| each.interval.hi).min()?;
        Some(Interval { lo, hi })
    };
    let mut largest_ones = groups.iter().filter(|group| group.len() == largest);
    let Some(first) = largest_ones.next() else {
        return Selection { common: None, members: Vec::new(), asked };
    };
    let ids = |group: &[&Opinion]| {
        let mut ids: Vec<SourceId> = group.iter().map(|each| each.id).collect();
        ids.sort_unstable();
        ids
    };
    let members = ids(first);
    let is_alone = largest_ones.all(|other| ids(other) == members);
    if is_alone {
        Selection { common: common_of(first), members, asked }
    } else {
        Selection { common: None, members: Vec::new(), asked }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use ptp_common::wire::ClockIdentity;

    fn id(n: u8) -> SourceId {
        let port = PortIdentity { clock_identity: ClockIdentity([n; 8]), port_number: 1 };
        SourceId::Ptp { domain_number: 0, port }
    }

    fn opinions(ends: &[(i64, i64)]) -> Vec<Opinion> {
        let numbered = ends.iter().zip(1..);
        numbered
            .map(|((lo, hi), n)| {
                let [lo, hi] = [*lo, *hi].map(Duration::from_nanos);
                Opinion { id: id(n), interval: Interval { lo, hi } }
            })
            .collect()
    }

    fn selected(ends: &[(i64, i64)]) -> Selection {
        select(&opinions(ends))
    }

    #[test]
    fn one_that_lies_is_told_by_two_that_agree() {
        let selection = selected(&[(-10, 5), (-3, 20), (1_000, 1_020)]);
        assert_eq!(selection.members, [id(1), id(2)]);
        let common = Interval { lo: Duration::from_nanos(-3), hi: Duration::from_nanos(5) };
        assert_eq!(selection.common, Some(common));
        assert!(selection.is_majority() && !selection.is_unanimous());
        assert!(selection.is_confirmed(id(2)) && !selection.is_confirmed(id(3)));
    }

    #[test]
    fn of_two_that_contradict_each_other_nobody_knows_who_is_right() {
        let selection = selected(&[(-10, 5), (1_000, 1_020)]);
        assert_eq!((selection.members.len(), selection.common), (0, None));
        assert!(!selection.is_majority() && !selection.is_unanimous());
        let pairs = selected(&[(0, 5), (0, 5), (10, 15), (10, 15)]);
        assert!(!pairs.is_majority());
    }

    #[test]
    fn a_largest_group_that_is_less_than_half_is_no_majority() {
        let selection = selected(&[(0, 5), (1, 6), (100, 101), (200, 201), (300, 301)]);
        assert_eq!(selection.members, [id(1), id(2)]);
        assert!(!selection.is_majority());
    }

    #[test]
    fn one_alone_and_nobody_at_all_contradict_nobody() {
        assert!(selected(&[(0, 5)]).is_unanimous() && selected(&[(0, 5)]).is_majority());
        assert!(selected(&[]).is_unanimous() && !selected(&[]).is_majority());
    }

    #[test]
    fn who_knows_little_agrees_with_all_and_decides_nothing_between_two() {
        let selection = selected(&[(0, 5), (100, 105), (-1_000, 1_000)]);
        assert!(!selection.is_majority(), "{selection:?}");
    }

    #[test]
    fn intervals_that_only_touch_agree() {
        assert!(selected(&[(0, 5), (5, 9)]).is_unanimous());
    }

    #[test]
    fn more_than_there_is_room_for_are_not_compared() {
        let many: Vec<(i64, i64)> = (0..100).map(|n| (0, n)).collect();
        assert_eq!(selected(&many).asked, MAX_SOURCES);
    }

    proptest! {
        /// As long as most are honest, whose intervals have the truth in them, the group is theirs and has it too.
        #[test]
        fn truth_of_an_honest_majority_is_in_what_is_common(
            honest in prop::collection::vec((0_i64..1_000, 0_i64..1_000), 3..9),
            lies in prop::collection::vec((5_000_i64..9_000, 0_i64..100), 0..3),
        ) {
            prop_assume!(honest.len() > lies.len());
            let truth = 0;
            let ends: Vec<(i64, i64)> = honest.iter().map(|(below, above)| (truth - below, truth + above))
                .chain(lies.iter().map(|(at, width)| (*at, at + width))).collect();
            let selection = selected(&ends);
            prop_assert!(selection.is_majority());
            prop_assert!(selection.common.is_some_and(|common| common.contains(Duration::ZERO)));
            for n in 1..=honest.len() {
                prop_assert!(selection.is_confirmed(id(n as u8)));
            }
        }
    }
}
