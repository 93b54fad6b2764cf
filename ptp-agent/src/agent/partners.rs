//! Whom a time receiver asks for time by unicast (`run --unicast`): names, and where they are at present. Names are
//! resolved again and again, since a server may move; what cannot be resolved for a while keeps the address that it
//! had.

use std::{fmt, net::IpAddr, str::FromStr};

use serde::{Deserialize, Deserializer, de};

use crate::{
    engine::{address::Address, unicast},
    transport::{TransportKind, resolve::Resolver},
};
use ptp_common::{
    classify::PORT_GENERAL,
    time::{Mono, Time},
};

/// A server by name or address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Partner {
    /// By its address.
    At(Address),
    /// By its name.
    Named(String),
}

/// Why a text names no [`Partner`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a name, an IP address or, with l2, a MAC address, not {0:?}")]
pub struct NotAPartner(String);

impl FromStr for Partner {
    type Err = NotAPartner;

    fn from_str(text: &str) -> Result<Self, NotAPartner> {
        if let Ok(ip) = text.parse::<IpAddr>() {
            return Ok(Self::At(Address::Socket((ip, PORT_GENERAL).into())));
        }
        let octets: Option<Vec<u8>> =
            text.split(':').map(|part| u8::from_str_radix(part, 16).ok()).collect();
        if let Some(mac) = octets.and_then(|octets| <[u8; 6]>::try_from(octets).ok()) {
            return Ok(Self::At(Address::Mac(mac)));
        }
        let is_name = !text.is_empty()
            && text.len() <= 253
            && text.bytes().all(|it| it.is_ascii_alphanumeric() || b"-._".contains(&it));
        if is_name { Ok(Self::Named(text.to_owned())) } else { Err(NotAPartner(text.to_owned())) }
    }
}

impl fmt::Display for Partner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(Address::Socket(socket)) => write!(f, "{}", socket.ip()),
            Self::At(Address::Mac(mac)) => {
                let [a, b, c, d, e, g] = mac;
                write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
            }
            Self::Named(name) => f.write_str(name),
        }
    }
}

impl<'de> Deserialize<'de> for Partner {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// Whether an address is one that messages can be sent to by `transport`.
fn fits(transport: TransportKind, address: Address) -> bool {
    match (transport, address) {
        (TransportKind::L2, Address::Mac(_)) => true,
        (TransportKind::Udp4, Address::Socket(socket)) => socket.is_ipv4(),
        (TransportKind::Udp6, Address::Socket(socket)) => socket.is_ipv6(),
        _ => false,
    }
}

impl Partner {
    /// Whether it can be asked by `transport` at all.
    pub fn fits(&self, transport: TransportKind) -> bool {
        match self {
            Self::At(address) => fits(transport, *address),
            Self::Named(_) => transport != TransportKind::L2,
        }
    }
}

/// The number of a partner, and where it is.
pub type News = (u16, Option<Address>);

/// Where all of them are.
#[derive(Debug)]
pub struct Partners {
    /// What needs no looking up and was not told yet.
    known: Vec<News>,
    resolver: Resolver,
    /// Which of them the resolver's names are.
    named: Vec<u16>,
}

impl Partners {
    /// Looks their names up from now on, by a thread that inherits what its starter may do.
    pub fn start(partners: &[Partner], transport: TransportKind) -> Self {
        let (mut known, mut named, mut names) = (Vec::new(), Vec::new(), Vec::new());
        for (number, partner) in (0..).zip(partners) {
            match partner {
                Partner::At(address) => known.push((number, Some(unicast::host(*address)))),
                Partner::Named(name) => {
                    named.push(number);
                    names.push(name.clone());
                }
            }
        }
        Self { known, resolver: Resolver::start(transport, names), named }
    }

    /// Where they were found since the last look. `is_silent` says of a partner whether it does not answer where
    /// it is.
    pub fn news(&mut self, now: Time<Mono>, is_silent: impl Fn(u16) -> bool) -> Vec<News> {
        let named = &self.named;
        let found = self.resolver.look(now, |n| named.get(n).is_some_and(|it| is_silent(*it)));
        let found = found.into_iter().filter_map(|(n, address)| {
            Some((*named.get(n)?, Some(unicast::host(Address::Socket(address)))))
        });
        self.known.drain(..).chain(found).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ptp_common::time::Duration;

    fn at(text: &str) -> Address {
        Address::Socket((text.parse::<IpAddr>().unwrap(), 0).into())
    }

    #[test]
    fn partners_are_read_as_they_are_written() {
        for text in ["192.0.2.1", "2001:db8::1", "00:11:22:33:44:55", "time-1.example.net"] {
            assert_eq!(text.parse::<Partner>().unwrap().to_string(), text);
        }
        for text in ["", "a b", "a/b", "x,y"] {
            assert!(text.parse::<Partner>().is_err(), "{text}");
        }
        let v6: Partner = "2001:db8::1".parse().unwrap();
        assert!(v6.fits(TransportKind::Udp6) && !v6.fits(TransportKind::Udp4));
        let name: Partner = "time".parse().unwrap();
        assert!(name.fits(TransportKind::Udp4) && !name.fits(TransportKind::L2));
    }

    #[test]
    fn what_is_an_address_is_told_once_and_a_name_by_its_place_in_the_table() {
        let table = ["192.0.2.1", "localhost", "192.0.2.3"].map(|it| it.parse().unwrap());
        let mut partners = Partners::start(&table, TransportKind::Udp4);
        let second = |it| Time::ZERO + Duration::from_secs(it);
        let told = partners.news(second(1), |_| false);
        assert_eq!(told, [(0, Some(at("192.0.2.1"))), (2, Some(at("192.0.2.3")))]);
        let begin = std::time::Instant::now();
        loop {
            match partners.news(second(2), |_| false)[..] {
                [] => assert!(begin.elapsed().as_secs() < 20),
                ref found => break assert_eq!(found, [(1, Some(at("127.0.0.1")))]),
            }
            std::thread::yield_now();
        }
    }
}
