//! The scopes of PTP's primary group over IPv6 (IEEE 1588-2019 D.3): FF0X::181, X being how far its
//! packets may go. Every scope is received. What a port has to say to others goes to the widest one,
//! as it does elsewhere; but a request, or an answer, goes where its receiver listens, which is the scope
//! that the receiver itself speaks on: ptp4l with `udp6_scope 2` joins no other.

use std::{
    net::Ipv6Addr,
    sync::atomic::{AtomicU8, Ordering},
};

use ptp_common::wire::MessageType;

/// A scope (RFC 4291 2.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Scope(u8);

impl Scope {
    /// All through the network; the default of other implementations.
    pub(super) const GLOBAL: Self = Self(0xe);
    /// All but those that RFC 4291 reserves (0 and F) and the one that never leaves a host (1).
    pub(super) const ALL: [Self; 13] = {
        let mut all = [Self::GLOBAL; 13];
        let mut at = 0;
        while at < all.len() {
            all[at] = Self(at as u8 + 2);
            at += 1;
        }
        all
    };

    /// The scope with this number.
    pub(super) const fn of_number(number: u8) -> Self {
        Self(number & 0x0f)
    }

    /// The primary group of this scope.
    pub(super) const fn primary(self) -> Ipv6Addr {
        Ipv6Addr::new(0xff00 | self.0 as u16, 0, 0, 0, 0, 0, 0, 0x181)
    }

    /// The scope of a primary group; `None` for any other address.
    pub(super) fn of_primary(address: Ipv6Addr) -> Option<Self> {
        let scope = Self(address.octets()[1] & 0x0f);
        (scope.primary() == address).then_some(scope)
    }
}

/// The scopes that others were heard to speak on, last.
#[derive(Debug)]
pub(super) struct Scopes {
    /// For what is nobody's in particular.
    own: Scope,
    transmitter: AtomicU8,
    requester: AtomicU8,
}

impl Scopes {
    /// Nobody has been heard yet: all goes to this one.
    pub(super) fn new(own: Scope) -> Self {
        Self { own, transmitter: AtomicU8::new(own.0), requester: AtomicU8::new(own.0) }
    }

    /// A message came in by this scope.
    pub(super) fn heard(&self, scope: Scope, message: &[u8]) {
        let speaker = match kind(message) {
            Some(MessageType::Sync | MessageType::Announce) => &self.transmitter,
            Some(MessageType::DelayReq) => &self.requester,
            _ => return,
        };
        speaker.store(scope.0, Ordering::Relaxed);
    }

    /// The scope for a message to be sent.
    pub(super) fn of(&self, message: &[u8]) -> Scope {
        match kind(message) {
            Some(MessageType::DelayReq) => Scope(self.transmitter.load(Ordering::Relaxed)),
            Some(MessageType::DelayResp) => Scope(self.requester.load(Ordering::Relaxed)),
            _ => self.own,
        }
    }
}

fn kind(message: &[u8]) -> Option<MessageType> {
    MessageType::try_from(message.first()? & 0x0f).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scope_is_the_fourth_digit_of_the_group() {
        let group = |text: &str| Scope::of_primary(text.parse().unwrap());
        assert_eq!(group("ff0e::181"), Some(Scope::GLOBAL));
        assert_eq!(group("ff02::181"), Some(Scope(2)));
        for other in ["ff02::6b", "ff12::181", "fe80::181", "ff0e::1:181"] {
            assert_eq!(group(other), None, "{other}");
        }
        assert!(Scope::ALL.contains(&Scope(2)) && Scope::ALL.contains(&Scope::GLOBAL));
        assert!(!Scope::ALL.contains(&Scope(0xf)) && !Scope::ALL.contains(&Scope(1)));
    }

    #[test]
    fn requests_and_answers_go_where_their_receiver_speaks() {
        let scopes = Scopes::new(Scope::GLOBAL);
        let (sync, request, answer, announce) = ([0x00], [0x01], [0x09], [0x0b]);
        assert_eq!(scopes.of(&request), Scope::GLOBAL);
        scopes.heard(Scope(5), &announce);
        scopes.heard(Scope(2), &request);
        assert_eq!((scopes.of(&request), scopes.of(&answer)), (Scope(5), Scope(2)));
        scopes.heard(Scope(3), &sync);
        // What is nobody's in particular does not count, nor does it depend on others.
        scopes.heard(Scope(4), &answer);
        scopes.heard(Scope(4), &[]);
        assert_eq!((scopes.of(&request), scopes.of(&answer)), (Scope(3), Scope(2)));
        assert_eq!((scopes.of(&sync), scopes.of(&announce)), (Scope::GLOBAL, Scope::GLOBAL));
        let scopes = Scopes::new(Scope(5));
        assert_eq!((scopes.of(&sync), scopes.of(&request)), (Scope(5), Scope(5)));
    }
}
