//! Event messages that wait for their transmit stamp. A token is a number that is counted up, so that it names a
//! place in a ring: handing a stamp back costs no search, and a token that is handed back twice, or too late, is
//! nobody's.

use alloc::collections::VecDeque;

use serde::Serialize;

use crate::{PortIndex, address::Address};

/// As many may wait; the oldest is given up for another.
const CAPACITY: usize = 4096;
/// Bits of a token that count; those above say which instance.
const COUNTED: u32 = 48;

/// Names one event message on its way out, so that its transmit stamp can be handed back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct SentToken(pub u64);

impl SentToken {
    /// Which instance of a node it is of.
    pub(crate) const fn instance(self) -> usize {
        (self.0 >> COUNTED) as usize
    }

    const fn count(self) -> u64 {
        self.0 & ((1 << COUNTED) - 1)
    }
}

/// Which message waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    Sync,
    /// To one alone.
    SyncTo {
        to: Address,
        sequence_id: u16,
    },
    DelayReq,
    PdelayReq,
    PdelayResp,
    /// To a server of this number.
    Request(u16),
    /// To a client.
    Answer,
}

/// See the module's paragraph.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    instance: u16,
    /// Tokens that were given up or handed back, from the beginning.
    gone: u64,
    waiting: VecDeque<Option<(PortIndex, Sent)>>,
}

impl InFlight {
    /// Of another instance than the first.
    pub(crate) const fn of_instance(&mut self, instance: u16) {
        self.instance = instance;
    }

    /// Which instance's they are.
    pub(crate) const fn instance(&self) -> usize {
        self.instance as usize
    }

    /// A token for a message that is sent now.
    pub(crate) fn put(&mut self, on: PortIndex, what: Sent) -> SentToken {
        if self.waiting.len() >= CAPACITY {
            self.waiting.pop_front();
            self.gone += 1;
        }
        self.waiting.push_back(Some((on, what)));
        let count = self.gone + self.waiting.len() as u64;
        SentToken(u64::from(self.instance) << COUNTED | count)
    }

    /// What `token` was given for, once.
    pub(crate) fn take(&mut self, token: SentToken) -> Option<(PortIndex, Sent)> {
        let at = token.count().checked_sub(self.gone + 1)?;
        let taken = self.waiting.get_mut(usize::try_from(at).ok()?)?.take();
        while let Some(None) = self.waiting.front() {
            self.waiting.pop_front();
            self.gone += 1;
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ON: PortIndex = PortIndex(3);

    #[test]
    fn a_token_is_worth_one_stamp() {
        let mut sent = InFlight::default();
        let first = sent.put(ON, Sent::Sync);
        let second = sent.put(ON, Sent::DelayReq);
        assert_eq!((first, second), (SentToken(1), SentToken(2)));
        assert_eq!(sent.take(second), Some((ON, Sent::DelayReq)));
        assert_eq!(sent.take(second), None);
        assert_eq!(sent.take(first), Some((ON, Sent::Sync)));
        assert_eq!(sent.take(first), None);
        assert!(sent.waiting.is_empty());
        assert_eq!(sent.put(ON, Sent::Sync), SentToken(3));
    }

    #[test]
    fn what_never_comes_back_is_given_up_and_invented_tokens_are_nobodys() {
        let mut sent = InFlight::default();
        for n in 1..=3 * CAPACITY as u64 {
            assert_eq!(sent.put(ON, Sent::Sync), SentToken(n));
        }
        assert_eq!(sent.waiting.len(), CAPACITY);
        for token in [0, 1, 2 * CAPACITY as u64, 3 * CAPACITY as u64 + 1, u64::MAX] {
            assert_eq!(sent.take(SentToken(token)), None, "{token}");
        }
        assert!(sent.take(SentToken(2 * CAPACITY as u64 + 1)).is_some());
    }
}
