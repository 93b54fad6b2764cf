//! The best time transmitter algorithm on values only (IEEE 1588-2019 9.3): the data set comparison, figures 34
//! and 35, and the state decision, figure 33.

use core::cmp::Ordering;

use crate::PortState;
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
    /// `localPriority` of that port, or of the clock for its own set, where the alternate algorithm of ITU-T
    /// G.8275 is used; `None` is the standard's. All sets of a clock have one, or none has.
    pub local_priority: Option<u8>,
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
            local_priority: None,
        }
    }

    /// Figure 34, and figure 35 where both have the same grandmaster; with local priorities by the alternate
    /// algorithm.
    pub fn compare(&self, other: &Self) -> Comparison {
        if let (Some(own), Some(others)) = (self.local_priority, other.local_priority) {
            return self.compare_alternately(other, own, others);
        }
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

    /// ITU-T G.8275.1 6.3.6: `priority1` is not looked at, `localPriority` is, and clocks that have a reference are
    /// as good as one another, so that several may be grandmaster and the nearest is followed.
    fn compare_alternately(&self, other: &Self, own: u8, others: u8) -> Comparison {
        let key = |set: &Self, local: u8| {
            (
                set.clock_quality.clock_class,
                set.clock_quality.clock_accuracy,
                set.clock_quality.offset_scaled_log_variance,
                set.priority2,
                local,
            )
        };
        let by_quality = key(self, own).cmp(&key(other, others));
        let by_identity = match self.clock_quality.clock_class {
            ..=127 => Ordering::Equal,
            _ => self.grandmaster_identity.cmp(&other.grandmaster_identity),
        };
        match by_quality.then(by_identity) {
            Ordering::Less => Comparison::Better,
            Ordering::Greater => Comparison::Worse,
            Ordering::Equal => self.compare_topology(other),
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

/// What a port hears best: `E_rbest` of it, or `E_best` of all ports (9.3.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// What it says.
    pub set: DataSet,
    /// The port that hears it, counted from 0.
    pub port: u16,
}

/// What the state decision recommends to one port (figure 33), by its decision code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recommended {
    /// Stay LISTENING: nobody was heard, and the port listens still.
    Listening,
    /// M1: MASTER, of a clock of class 1 to 127 that is better than what the port hears.
    M1,
    /// M2: MASTER, of any other clock that is better than all that is heard.
    M2,
    /// M3: MASTER, because another port follows the best clock and this one passes its time on.
    M3,
    /// S1: SLAVE of the best clock that is heard.
    S1,
    /// P1: PASSIVE, because a clock of class 1 to 127 follows nobody.
    P1,
    /// P2: PASSIVE, because the best clock reaches this port too, only not as well as another.
    P2,
}

/// The state decision algorithm (9.3.3, figure 33) for one port: `own` is this clock as it would be a grandmaster
/// (`D_0`), `best` the best of all ports, `of_port` the best of this one.
pub fn decide(
    own: &DataSet,
    best: Option<&Candidate>,
    of_port: Option<&Candidate>,
    state: PortState,
) -> Recommended {
    // Whatever others have heard: who has heard nobody on this port listens until the time for that is over.
    if of_port.is_none() && state == PortState::Listening {
        return Recommended::Listening;
    }
    let Some(best) = best else {
        return if is_reference(own) { Recommended::M1 } else { Recommended::M2 };
    };
    if is_reference(own) {
        let is_better = of_port.is_none_or(|of_port| own.is_better_than(&of_port.set));
        return if is_better { Recommended::M1 } else { Recommended::P1 };
    }
    if own.is_better_than(&best.set) {
        return Recommended::M2;
    }
    match of_port {
        Some(of_port) if of_port.port == best.port => Recommended::S1,
        Some(of_port) if best.set.compare(&of_port.set) == Comparison::BetterByTopology => {
            Recommended::P2
        }
        _ => Recommended::M3,
    }
}

/// Classes 1 to 127: a clock that never follows (table 4).
const fn is_reference(set: &DataSet) -> bool {
    matches!(set.clock_quality.clock_class, 1..=127)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prelude::*;
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
            local_priority: None,
        }
    }

    #[test]
    fn alternate_algorithm_looks_at_the_local_priority_and_at_neither_priority1_nor_who_it_is() {
        let near = DataSet { local_priority: Some(128), ..set() };
        let with = |change: fn(&mut DataSet)| {
            let mut set = DataSet { grandmaster_identity: identity(0x10), ..near };
            change(&mut set);
            set
        };
        assert_eq!(near.compare(&with(|s| s.local_priority = Some(127))), Comparison::Worse);
        // Of no reference: whoever has the lower identity.
        assert_eq!(near.compare(&with(|s| s.priority1 = 255)), Comparison::Worse);
        // Both have a reference: the nearer one.
        let reference = |steps_removed| {
            let mut set = with(|s| s.clock_quality.clock_class = 6);
            set.steps_removed = steps_removed;
            set
        };
        let here = DataSet { grandmaster_identity: identity(0x20), ..reference(1) };
        assert_eq!(here.compare(&reference(4)), Comparison::Better);
        assert_eq!(reference(4).compare(&here), Comparison::Worse);
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

    fn candidate(set: DataSet, port: u16) -> Candidate {
        Candidate { set, port }
    }

    /// A clock that may serve and follow, of this class, on a port that serves.
    fn own(clock_class: u8) -> DataSet {
        other(|s| {
            s.clock_quality.clock_class = clock_class;
            s.steps_removed = 0;
            (s.sender, s.receiver) = (port(OWN, 0), port(OWN, 0));
        })
    }

    #[test]
    fn figure_33_recommends_in_the_standards_order() {
        use Recommended::{Listening, M1, M2, M3, P1, P2, S1};
        let serving = PortState::TimeTransmitter;
        let heard = candidate(set(), 0);
        let worse = candidate(same(|s| s.steps_removed = 9), 1);
        let as_good = candidate(same(|s| s.receiver = port(OWN, 2)), 1);
        let another = candidate(other(|s| s.priority1 = 255), 1);
        let bad = candidate(other(|s| s.priority1 = 255), 0);
        let with_better = candidate(DataSet { priority1: 1, ..set() }, 0);
        let cases = [
            ("nobody, listening", own(248), None, None, PortState::Listening, Listening),
            ("nobody, serving", own(248), None, None, serving, M2),
            ("nobody, with a reference", own(6), None, None, serving, M1),
            (
                "a reference hears a better one",
                own(127),
                Some(&heard),
                Some(&with_better),
                serving,
                P1,
            ),
            ("a reference hears a worse one", own(6), Some(&heard), Some(&heard), serving, M1),
            ("a reference hears nobody here", own(6), Some(&heard), None, serving, M1),
            ("better than all", own(248), Some(&bad), Some(&bad), serving, M2),
            ("the best is heard here", own(248), Some(&heard), Some(&heard), serving, S1),
            ("nobody here, another port follows", own(248), Some(&heard), None, serving, M3),
            (
                "nobody here yet, another port follows",
                own(248),
                Some(&heard),
                None,
                PortState::Listening,
                Listening,
            ),
            ("a worse one here", own(248), Some(&heard), Some(&another), serving, M3),
            ("the same one, farther", own(248), Some(&heard), Some(&worse), serving, M3),
            ("the same one, as near", own(248), Some(&heard), Some(&as_good), serving, P2),
        ];
        for (name, own, best, of_port, state, expected) in cases {
            assert_eq!(decide(&own, best, of_port, state), expected, "{name}");
        }
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
        /// Whatever is heard: exactly the port that hears the best follows it, or none does.
        #[test]
        fn at_most_one_port_is_recommended_to_follow(
            heard in prop::collection::vec(prop::option::of(data_set()), 1..5), class in 1u8..=255,
        ) {
            let heard: Vec<Option<Candidate>> =
                (0..).zip(&heard).map(|(port, set)| set.map(|set| candidate(set, port))).collect();
            let best = heard.iter().flatten().copied().reduce(|best, each| {
                if each.set.is_better_than(&best.set) { each } else { best }
            });
            let own = own(class);
            let follow = heard.iter().filter(|of_port| {
                let state = PortState::Listening;
                decide(&own, best.as_ref(), of_port.as_ref(), state) == Recommended::S1
            });
            let follow = follow.count();
            let follows = best.is_some_and(|best| class > 127 && !own.is_better_than(&best.set));
            prop_assert_eq!(follow, usize::from(follows));
        }

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
