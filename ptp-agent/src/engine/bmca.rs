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
