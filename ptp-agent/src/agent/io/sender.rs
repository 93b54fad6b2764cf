//! From whom the messages of a time transmitter are taken, beside what they say of themselves: by address or by the
//! key that signs. Together with the acceptable masters of the engine (by identity) this is the table of
//! IEEE 1588-2019 17.5: who is in the way of either is not followed.

use std::{fmt, net::IpAddr, str::FromStr};

use ptp_common::wire::MessageType;
use serde::{Deserialize, Deserializer, de};

use crate::engine::address::Address;

/// One that may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// By its address, where UDP carries the messages.
    Host(IpAddr),
    /// By its MAC address, where Ethernet does.
    Mac([u8; 6]),
    /// By the number of the key that has signed, and is one of ours.
    Key(u32),
}

impl Sender {
    /// Whether a message is from it. `key_id` is that of a key that has proven itself.
    pub(super) fn is(&self, from: Option<Address>, key_id: Option<u32>) -> bool {
        match *self {
            Self::Host(host) => {
                matches!(from, Some(Address::Socket(from)) if from.ip().to_canonical() == host)
            }
            Self::Mac(mac) => from == Some(Address::Mac(mac)),
            Self::Key(key) => key_id == Some(key),
        }
    }
}

/// Whether only a time transmitter sends such messages.
pub(super) const fn is_of_transmitter(kind: MessageType) -> bool {
    matches!(
        kind,
        MessageType::Announce | MessageType::Sync | MessageType::FollowUp | MessageType::DelayResp
    )
}

/// Why a text is no [`Sender`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected an IP address, a MAC address as in 00:11:22:33:44:55, or key:N")]
pub struct NotASender;

impl FromStr for Sender {
    type Err = NotASender;

    fn from_str(text: &str) -> Result<Self, NotASender> {
        if let Some(key) = text.strip_prefix("key:") {
            return key.parse().map(Self::Key).map_err(|_| NotASender);
        }
        if let Ok(host) = text.parse::<IpAddr>() {
            return Ok(Self::Host(host.to_canonical()));
        }
        let parts: Vec<&str> = text.split([':', '-']).collect();
        let octets: Option<Vec<u8>> = parts
            .iter()
            .map(|part| {
                let is_octet = part.len() == 2 && part.bytes().all(|it| it.is_ascii_hexdigit());
                u8::from_str_radix(part, 16).ok().filter(|_| is_octet)
            })
            .collect();
        octets.and_then(|octets| octets.try_into().ok()).map(Self::Mac).ok_or(NotASender)
    }
}

impl fmt::Display for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(host) => write!(f, "{host}"),
            Self::Mac([a, b, c, d, e, g]) => {
                write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
            }
            Self::Key(key) => write!(f, "key:{key}"),
        }
    }
}

impl<'de> Deserialize<'de> for Sender {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn senders_are_read_as_they_are_written() {
        for text in ["192.0.2.1", "2001:db8::1", "00:11:22:33:44:55", "key:2"] {
            assert_eq!(text.parse::<Sender>().unwrap().to_string(), text);
        }
        let mac = Sender::Mac([0, 0x11, 0x22, 0x33, 0x44, 0xaa]);
        assert_eq!("00-11-22-33-44-AA".parse(), Ok(mac));
        for text in
            ["", "key:", "key:-1", "00:11:22:33:44", "00:11:22:33:44:5g", "+0:11:22:33:44:55"]
        {
            assert_eq!(text.parse::<Sender>(), Err(NotASender), "{text}");
        }
    }

    #[test]
    fn only_who_is_named_is_taken_and_a_key_only_when_it_has_proven_itself() {
        let from = |text: &str| Some(Address::Socket(format!("{text}:320").parse().unwrap()));
        let host = Sender::Host([192, 0, 2, 1].into());
        assert!(host.is(from("192.0.2.1"), None) && host.is(from("[::ffff:192.0.2.1]"), None));
        assert!(!host.is(from("192.0.2.2"), Some(2)) && !host.is(None, None));
        let mac = Sender::Mac([2; 6]);
        assert!(mac.is(Some(Address::Mac([2; 6])), None));
        assert!(!mac.is(Some(Address::Mac([3; 6])), None) && !mac.is(from("192.0.2.1"), None));
        assert!(Sender::Key(2).is(None, Some(2)));
        assert!(!Sender::Key(2).is(None, Some(3)) && !Sender::Key(2).is(None, None));
    }

    #[test]
    fn who_may_not_be_followed_may_ask_all_the_same() {
        assert!(is_of_transmitter(MessageType::Sync) && is_of_transmitter(MessageType::DelayResp));
        assert!(!is_of_transmitter(MessageType::DelayReq));
        assert!(
            !is_of_transmitter(MessageType::PdelayResp),
            "a neighbour's, not the transmitter's"
        );
    }
}
