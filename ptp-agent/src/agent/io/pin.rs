//! The address of the time transmitter that is followed, held fast: once it has been chosen, messages in its name
//! from another address are somebody else's, and are dropped. It is the address from which its name was first
//! heard, as long as that is not silent; who sends in a name that others have cannot take it over. A time
//! transmitter that moves to another address has to be given up first, by its silence, as one that fails.

use ptp_common::{
    time::{Duration, Mono, Time},
    wire::{MessageKey, MessageType, PortIdentity},
};

use crate::engine::{PortIndex, address::Address};

/// Senders of Announce whose addresses are remembered; the one that was silent for longest goes.
const SENDERS: usize = 64;
/// After such a silence a name may come from elsewhere: the longest announce receipt timeout that is kept, twice.
const SILENCE: Duration = Duration::from_secs(96);

#[derive(Clone, Copy, Debug)]
struct Sender {
    port: PortIndex,
    identity: PortIdentity,
    address: Address,
    heard: Time<Mono>,
}

/// See the module's paragraph.
#[derive(Debug, Default)]
pub(super) struct Pin {
    senders: Vec<Sender>,
    parent: Option<(PortIndex, PortIdentity)>,
}

impl Pin {
    /// Who is followed. Who is given up may come from anywhere again.
    pub(super) fn follow(&mut self, parent: Option<(PortIndex, PortIdentity)>) {
        if self.parent != parent
            && let Some((port, identity)) = self.parent
        {
            self.senders.retain(|each| (each.port, each.identity) != (port, identity));
        }
        self.parent = parent;
    }

    /// Whether a message may be from whom it says. `from` is without the port.
    pub(super) fn is_at_home(
        &mut self,
        now: Time<Mono>,
        port: PortIndex,
        key: &MessageKey,
        from: Address,
    ) -> bool {
        let identity = key.source_port_identity;
        let known =
            self.senders.iter_mut().find(|each| (each.port, each.identity) == (port, identity));
        if let Some(known) = known {
            if known.address == from {
                known.heard = now;
                return true;
            }
            return self.parent != Some((port, identity));
        }
        if key.message_type == MessageType::Announce {
            self.senders.retain(|each| now - each.heard <= SILENCE);
            if self.senders.len() == SENDERS {
                let oldest = self.senders.iter().enumerate();
                let oldest = oldest.filter(|(_, it)| self.parent != Some((it.port, it.identity)));
                if let Some((at, _)) = oldest.min_by_key(|(_, each)| each.heard) {
                    self.senders.swap_remove(at);
                }
            }
            self.senders.push(Sender { port, identity, address: from, heard: now });
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ptp_common::wire::ClockIdentity;

    const PORT: PortIndex = PortIndex(0);

    fn key(kind: MessageType, clock: u8) -> MessageKey {
        let clock_identity = ClockIdentity([clock; 8]);
        MessageKey {
            domain_number: 0,
            sdo_id: 0,
            message_type: kind,
            source_port_identity: PortIdentity { clock_identity, port_number: 1 },
            sequence_id: 0,
        }
    }

    fn hear(pin: &mut Pin, second: i64, kind: MessageType, clock: u8, host: u8) -> bool {
        let now = Time::ZERO + Duration::from_secs(second);
        pin.is_at_home(now, PORT, &key(kind, clock), Address::Mac([host; 6]))
    }

    fn follow(pin: &mut Pin, clock: u8) {
        pin.follow(Some((PORT, key(MessageType::Sync, clock).source_port_identity)));
    }

    #[test]
    fn name_of_the_parent_is_believed_from_its_own_address_only() {
        let mut pin = Pin::default();
        assert!(hear(&mut pin, 0, MessageType::Announce, 1, 10));
        follow(&mut pin, 1);
        for kind in [MessageType::Sync, MessageType::FollowUp, MessageType::DelayResp] {
            assert!(hear(&mut pin, 1, kind, 1, 10) && !hear(&mut pin, 1, kind, 1, 66));
            assert!(hear(&mut pin, 1, kind, 2, 66), "another name");
        }
    }

    #[test]
    fn who_announces_a_name_that_others_have_does_not_take_it_over() {
        let mut pin = Pin::default();
        assert!(hear(&mut pin, 0, MessageType::Announce, 1, 10));
        assert!(hear(&mut pin, 1, MessageType::Announce, 1, 66), "nobody is followed yet");
        follow(&mut pin, 1);
        assert!(!hear(&mut pin, 2, MessageType::Announce, 1, 66));
        assert!(hear(&mut pin, 2, MessageType::Announce, 1, 10));
    }

    #[test]
    fn who_was_given_up_may_come_back_from_another_address() {
        let mut pin = Pin::default();
        assert!(hear(&mut pin, 0, MessageType::Announce, 1, 10));
        follow(&mut pin, 1);
        assert!(!hear(&mut pin, 1, MessageType::Announce, 1, 11));
        pin.follow(None);
        assert!(hear(&mut pin, 8, MessageType::Announce, 1, 11));
        follow(&mut pin, 1);
        assert!(
            hear(&mut pin, 9, MessageType::Sync, 1, 11)
                && !hear(&mut pin, 9, MessageType::Sync, 1, 10)
        );
    }

    #[test]
    fn flood_of_names_forgets_the_parents_address_never() {
        let mut pin = Pin::default();
        assert!(hear(&mut pin, 0, MessageType::Announce, 1, 10));
        follow(&mut pin, 1);
        for clock in 2..=255 {
            hear(&mut pin, 1, MessageType::Announce, clock, 66);
        }
        assert!(pin.senders.len() <= SENDERS);
        assert!(!hear(&mut pin, 2, MessageType::Sync, 1, 66));
    }
}
