//! Whether a first estimate is right, by packets that were no part of it: a clock is stepped once, and
//! a single stamp that lies must not be what it is stepped by.

use super::filter::Way;

/// Packets of each direction that must agree.
const AGREEING: u32 = 2;
/// Of so many Sync, one answer may do.
const PLENTY: u32 = 8;
/// So many may contradict, and one more for so many that agree.
const AGAINST: u32 = 2;

/// What a packet is to an estimate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    /// As expected, or late.
    Agrees,
    /// Too early, or of no model.
    Contradicts,
}

/// What the packets after a first estimate say of it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Confirmation {
    forward: u32,
    backward: u32,
    against: u32,
    /// Of peer delays alone, which are few beside Sync messages.
    peer: u32,
    peer_against: u32,
}

impl Confirmation {
    /// A packet.
    pub(super) const fn push(&mut self, way: Way, fit: Fit) {
        match (fit, way) {
            (Fit::Agrees, Way::Forward) => self.forward += 1,
            (Fit::Agrees, Way::Backward | Way::Peer) => self.backward += 1,
            (Fit::Contradicts, _) => self.against += 1,
        }
        match (fit, way) {
            (Fit::Agrees, Way::Peer) => self.peer += 1,
            (Fit::Contradicts, Way::Peer) => self.peer_against += 1,
            (_, Way::Forward | Way::Backward) => {}
        }
    }

    /// Enough packets of each direction agree.
    pub(super) const fn is_given(&self) -> bool {
        let enough = self.forward >= AGREEING && self.backward >= AGREEING;
        let plenty = self.forward >= PLENTY && self.backward > 0;
        (enough || plenty) && !self.is_refused()
    }

    /// Too many contradict.
    pub(super) const fn is_refused(&self) -> bool {
        self.against > AGAINST + (self.forward + self.backward) / AGAINST
            || self.peer_against > AGAINST + self.peer / AGAINST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_have_to_agree() {
        let mut confirmation = Confirmation::default();
        for _ in 0..100 {
            confirmation.push(Way::Forward, Fit::Agrees);
        }
        assert!(!confirmation.is_given());
        for _ in 0..AGREEING {
            confirmation.push(Way::Backward, Fit::Agrees);
        }
        assert!(confirmation.is_given());
    }

    #[test]
    fn peer_delays_that_all_contradict_refuse_however_many_sync_messages_agree() {
        let mut confirmation = Confirmation::default();
        for _ in 0..=AGAINST {
            for _ in 0..8 {
                confirmation.push(Way::Forward, Fit::Agrees);
            }
            assert!(!confirmation.is_refused());
            confirmation.push(Way::Peer, Fit::Contradicts);
        }
        assert!(confirmation.is_refused());
    }

    #[test]
    fn a_few_contradictions_have_no_weight_and_many_refuse() {
        let mut confirmation = Confirmation::default();
        for way in [Way::Forward, Way::Backward, Way::Forward, Way::Backward] {
            confirmation.push(way, Fit::Agrees);
        }
        confirmation.push(Way::Forward, Fit::Contradicts);
        assert!(confirmation.is_given());
        for _ in 0..5 {
            confirmation.push(Way::Forward, Fit::Contradicts);
        }
        assert!(confirmation.is_refused() && !confirmation.is_given());
    }
}
