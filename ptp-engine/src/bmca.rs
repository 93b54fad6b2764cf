//! The data set comparison of the best time transmitter algorithm (IEEE 1588-2019 9.3.4, figures 34
//! and 35), on values only.

use core::cmp::Ordering;
use ptp_common::wire::{Announce, ClockIdentity, ClockQuality, PortIdentity};

/// What figures 34 and 35 compare: one Announce, who sent it and which port took it (table 12).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataSet {
    /// `grandmasterPriority1`.
    pub priority1: u8,
    /// `grandmasterIdentity`.
    pub grandmaster_identity: ClockIdentity,
    /// `grandmasterClockQuality`.
    pub clock_quality: ClockQuality,
    /// `grandmasterPriority2`.
    pub priority2: u8,
    /// `stepsRemoved`.
    pub steps_removed: u16,
    /// `sourcePortIdentity` of the Announce.
    pub sender: PortIdentity,
    /// The port that received it.
    pub receiver: PortIdentity,
}

impl DataSet {
    /// From an Announce.
    pub const fn new(announce: &Announce, sender: PortIdentity, receiver: PortIdentity) -> Self {
        Self {
            priority1: announce.grandmaster_priority1,
            grandmaster_identity: announce.grandmaster_identity,
            clock_quality: announce.grandmaster_clock_quality,
            priority2: announce.grandmaster_priority2,
            steps_removed: announce.steps_removed,
            sender,
            receiver,
        }
    }

    /// Figure 34, and figure 35 where both have the same grandmaster.
    pub fn compare(&self, other: &Self) -> Comparison {
        if self.grandmaster_identity == other.grandmaster_identity {
            return self.compare_topology(other);
        }
        let key = |set: &Self| {
            (
                set.priority1,
                set.clock_quality.clock_class,
                set.clock_quality.clock_accuracy,
                set.clock_quality.offset_scaled_log_variance,
                set.priority2,
                set.grandmaster_identity,
            )
        };
        match key(self).cmp(&key(other)) {
            Ordering::Less => Comparison::Better,
            _ => Comparison::Worse,
        }
    }

    /// Figure 35: the same grandmaster over two paths.
    fn compare_topology(&self, other: &Self) -> Comparison {
        let (a, b) = (u32::from(self.steps_removed), u32::from(other.steps_removed));
        if a > b + 1 {
            return Comparison::Worse;
        }
        if b > a + 1 {
            return Comparison::Better;
        }
        if a > b {
            return match self.receiver.clock_identity.cmp(&self.sender.clock_identity) {
                Ordering::Less => Comparison::Worse,
                Ordering::Greater => Comparison::WorseByTopology,
                Ordering::Equal => Comparison::SelfSent,
            };
        }
        if b > a {
            return match other.receiver.clock_identity.cmp(&other.sender.clock_identity) {
                Ordering::Less => Comparison::Better,
                Ordering::Greater => Comparison::BetterByTopology,
                Ordering::Equal => Comparison::SelfSent,
            };
        }
        let key = |set: &Self| (set.sender, set.receiver.port_number);
        match key(self).cmp(&key(other)) {
            Ordering::Less => Comparison::BetterByTopology,
            Ordering::Greater => Comparison::WorseByTopology,
            Ordering::Equal => Comparison::Same,
        }
    }

    /// Whether this one is to be preferred; never both ways round.
    pub fn is_better_than(&self, other: &Self) -> bool {
        matches!(self.compare(other), Comparison::Better | Comparison::BetterByTopology)
    }
}

/// Outcome of a comparison, seen from the first data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// "A better than B".
    Better,
    /// "A better by topology than B".
    BetterByTopology,
    /// "error-2": the very same Announce.
    Same,
    /// "error-1": a port that hears itself.
    SelfSent,
    /// "B better by topology than A".
    WorseByTopology,
    /// "B better than A".
    Worse,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use ptp_common::wire::ClockAccuracy;

    const OWN: u8 = 0x50;

    fn identity(n: u8) -> ClockIdentity {
        ClockIdentity([0, 0, 0, 0, 0, 0, 0, n])
    }

    fn port(n: u8, port_number: u16) -> PortIdentity {
        PortIdentity { clock_identity: identity(n), port_number }
    }

    /// Grandmaster 0x20 heard through sender 0x40.
    fn set() -> DataSet {
        DataSet {
            priority1: 128,
            grandmaster_identity: identity(0x20),
            clock_quality: ClockQuality {
                clock_class: 128,
                clock_accuracy: ClockAccuracy(0x30),
                offset_scaled_log_variance: 128,
            },
            priority2: 128,
            steps_removed: 3,
            sender: port(0x40, 1),
            receiver: port(OWN, 1),
        }
    }

    fn other(change: impl FnOnce(&mut DataSet)) -> DataSet {
        let mut set = DataSet { grandmaster_identity: identity(0x21), ..set() };
        change(&mut set);
        set
    }

    fn same(change: impl FnOnce(&mut DataSet)) -> DataSet {
        let mut set = set();
        change(&mut set);
        set
    }

    #[test]
    fn figure_34_decides_in_the_standards_order() {
        use Comparison::{Better, Worse};
        let cases: [(&str, DataSet, Comparison); 7] = [
            ("priority1", other(|s| s.priority1 = 127), Worse),
            ("clockClass", other(|s| s.clock_quality.clock_class = 6), Worse),
            ("accuracy", other(|s| s.clock_quality.clock_accuracy = ClockAccuracy(0x20)), Worse),
            ("variance", other(|s| s.clock_quality.offset_scaled_log_variance = 1), Worse),
            ("priority2", other(|s| s.priority2 = 127), Worse),
            ("identity", other(|_| {}), Better),
            ("stepsRemoved does not count", other(|s| s.steps_removed = 0), Better),
        ];
        for (name, b, expected) in &cases {
            assert_eq!(set().compare(b), *expected, "{name}");
        }
        // The better of two in an earlier rank wins although it loses in the next one.
        let early = other(|s| {
            s.priority1 = 1;
            s.clock_quality.clock_class = 255;
        });
        assert_eq!(early.compare(&set()), Better);
        let early = other(|s| {
            s.clock_quality.clock_class = 6;
            s.clock_quality.clock_accuracy = ClockAccuracy(0xfe);
        });
        assert_eq!(early.compare(&set()), Better);
        let early = other(|s| {
            s.clock_quality.clock_accuracy = ClockAccuracy(0x20);
            s.clock_quality.offset_scaled_log_variance = 0xffff;
        });
        assert_eq!(early.compare(&set()), Better);
        let early = other(|s| {
            s.clock_quality.offset_scaled_log_variance = 1;
            s.priority2 = 255;
        });
        assert_eq!(early.compare(&set()), Better);
    }

    #[test]
    fn figure_35_decides_between_paths_to_one_grandmaster() {
        use Comparison::{Better, BetterByTopology, Same, SelfSent, Worse, WorseByTopology};
        let cases: [(&str, DataSet, DataSet, Comparison); 9] = [
            ("two steps more", same(|s| s.steps_removed = 5), set(), Worse),
            ("two steps less", same(|s| s.steps_removed = 1), set(), Better),
            (
                "one more, receiver above sender",
                same(|s| s.steps_removed = 4),
                set(),
                WorseByTopology,
            ),
            (
                "one more, receiver below sender",
                same(|s| {
                    s.steps_removed = 4;
                    s.sender = port(0x60, 1);
                }),
                set(),
                Worse,
            ),
            (
                "one more, own message",
                same(|s| {
                    s.steps_removed = 4;
                    s.sender = port(OWN, 2);
                }),
                set(),
                SelfSent,
            ),
            ("sender's identity", same(|s| s.sender = port(0x3f, 9)), set(), BetterByTopology),
            ("sender's port", same(|s| s.sender = port(0x40, 2)), set(), WorseByTopology),
            ("own port", same(|s| s.receiver = port(OWN, 2)), set(), WorseByTopology),
            ("nothing", set(), set(), Same),
        ];
        for (name, a, b, expected) in cases {
            assert_eq!(a.compare(&b), expected, "{name}");
        }
    }

    #[test]
    fn one_grandmaster_is_compared_by_topology_even_if_it_has_changed_its_priority() {
        let a = same(|s| {
            s.priority1 = 255;
            s.steps_removed = 0;
        });
        assert_eq!(a.compare(&set()), Comparison::Better);
    }

    prop_compose! {
        /// Few values, so that ties are common; qualities belong to the grandmaster.
        fn data_set()(
            gm in 0u8..6, qualities in Just([(1, 6, 1), (1, 7, 1), (1, 6, 1), (2, 6, 1), (1, 6, 0), (0, 255, 9)]),
            steps_removed in 0u16..5, sender in (0u8..4, 1u16..3), receiver in 1u16..4,
        ) -> DataSet {
            let (priority1, clock_class, priority2) = qualities[usize::from(gm)];
            same(|s| {
                s.grandmaster_identity = identity(gm);
                s.priority1 = priority1;
                s.clock_quality.clock_class = clock_class;
                s.priority2 = priority2;
                s.steps_removed = steps_removed;
                s.sender = port(sender.0, sender.1);
                s.receiver = port(OWN, receiver);
            })
        }
    }

    const fn mirrored(comparison: Comparison) -> Comparison {
        match comparison {
            Comparison::Better => Comparison::Worse,
            Comparison::BetterByTopology => Comparison::WorseByTopology,
            Comparison::Same => Comparison::Same,
            Comparison::SelfSent => Comparison::SelfSent,
            Comparison::WorseByTopology => Comparison::BetterByTopology,
            Comparison::Worse => Comparison::Better,
        }
    }

    proptest! {
        #[test]
        fn the_other_way_round_the_outcome_is_mirrored(a in data_set(), b in data_set()) {
            prop_assert_eq!(a.compare(&b), mirrored(b.compare(&a)));
            prop_assert_eq!(a.compare(&a), Comparison::Same);
        }

        #[test]
        fn better_is_transitive_and_total(a in data_set(), b in data_set(), c in data_set()) {
            if a.is_better_than(&b) && b.is_better_than(&c) {
                prop_assert!(a.is_better_than(&c));
            }
            if a != b {
                prop_assert!(a.is_better_than(&b) || b.is_better_than(&a));
            }
        }
    }
}
