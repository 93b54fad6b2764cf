//! Whom a time receiver asks for time by unicast (`run --unicast`): names, and where they are at present. Names are
//! resolved by a thread of its own, again and again, since a server may move; what cannot be resolved for a while
//! keeps the address that it had.

use std::{
    fmt, io,
    net::{IpAddr, ToSocketAddrs as _},
    str::FromStr,
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    thread,
    time::Duration,
};

use serde::{Deserialize, Deserializer, de};

use crate::{
    engine::{address::Address, unicast},
    transport::TransportKind,
};
use ptp_common::classify::PORT_GENERAL;

/// Between two looks at a name.
const AGAIN: Duration = Duration::from_secs(30);
/// While it has no address.
const SOON: Duration = Duration::from_secs(3);

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

    /// What is known of its address; of several the one in use, where it is still among them.
    fn look(
        &self,
        transport: TransportKind,
        in_use: Option<Address>,
        resolve: &mut impl FnMut(&str) -> io::Result<Vec<Address>>,
    ) -> io::Result<Option<Address>> {
        let name = match self {
            Self::At(address) => return Ok(Some(unicast::host(*address))),
            Self::Named(name) => name,
        };
        let found = resolve(name)?;
        let mut found =
            found.into_iter().map(unicast::host).filter(|each| fits(transport, *each)).peekable();
        let first = found.peek().copied();
        Ok(in_use.filter(|in_use| found.any(|each| each == *in_use)).or(first))
    }
}

fn resolve(name: &str) -> io::Result<Vec<Address>> {
    Ok((name, PORT_GENERAL).to_socket_addrs()?.map(Address::Socket).collect())
}

/// The number of a partner, and where it is.
pub type News = (u16, Option<Address>);

/// Looks the names up, for as long as it is there.
#[derive(Debug)]
pub struct Resolver {
    news: Receiver<News>,
    /// The thread ends with it.
    _until: Sender<()>,
}

impl Resolver {
    /// Starts a thread, which inherits what its starter may do.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(partners: Vec<Partner>, transport: TransportKind) -> io::Result<Self> {
        let (tell, news) = mpsc::channel();
        let (until, ended) = mpsc::channel();
        let builder = thread::Builder::new().name("resolver".into());
        builder.spawn(move || look_after(&partners, transport, &tell, &ended, &mut resolve))?;
        Ok(Self { news, _until: until })
    }

    /// What has changed since the last look.
    pub fn news(&self) -> impl Iterator<Item = News> + '_ {
        self.news.try_iter()
    }
}

fn look_after(
    partners: &[Partner],
    transport: TransportKind,
    tell: &Sender<News>,
    ended: &Receiver<()>,
    resolve: &mut impl FnMut(&str) -> io::Result<Vec<Address>>,
) {
    let mut known = vec![None; partners.len()];
    let mut is_failing = vec![false; partners.len()];
    loop {
        for (number, partner) in partners.iter().enumerate() {
            let problem = match partner.look(transport, known[number], resolve) {
                Ok(Some(address)) if known[number] == Some(address) => None,
                Ok(Some(address)) => {
                    let was = known[number].replace(address);
                    tracing::info!(server = %partner, ?address, ?was, "address");
                    if tell.send((number as u16, Some(address))).is_err() {
                        return;
                    }
                    None
                }
                Ok(None) => Some(format!("no address for {transport}")),
                Err(error) => Some(error.to_string()),
            };
            if let Some(problem) = &problem
                && !is_failing[number]
            {
                tracing::warn!(server = %partner, problem, "name cannot be resolved");
            }
            is_failing[number] = problem.is_some();
        }
        if partners.iter().all(|partner| matches!(partner, Partner::At(_))) {
            return;
        }
        let pause = if known.contains(&None) { SOON } else { AGAIN };
        if ended.recv_timeout(pause) != Err(RecvTimeoutError::Timeout) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn address_in_use_is_kept_for_as_long_as_it_is_one_of_them() {
        let name: Partner = "time".parse().unwrap();
        let mut both = |_: &str| Ok(vec![at("2001:db8::1"), at("192.0.2.1"), at("192.0.2.2")]);
        let look = |in_use: Option<&str>,
                    resolve: &mut dyn FnMut(&str) -> io::Result<Vec<Address>>| {
            name.look(TransportKind::Udp4, in_use.map(at), &mut |name: &str| resolve(name))
        };
        assert_eq!(look(None, &mut both).unwrap(), Some(at("192.0.2.1")));
        assert_eq!(look(Some("192.0.2.2"), &mut both).unwrap(), Some(at("192.0.2.2")));
        assert_eq!(look(Some("192.0.2.9"), &mut both).unwrap(), Some(at("192.0.2.1")));
        let mut none = |_: &str| Err(io::ErrorKind::NotFound.into());
        assert!(look(Some("192.0.2.9"), &mut none).is_err());
    }

    #[test]
    fn address_that_changes_is_told_and_a_failure_is_not() {
        let (tell, news) = mpsc::channel();
        let (until, ended) = mpsc::channel();
        let mut answers = vec![Ok(vec![at("192.0.2.2")]), Err(io::ErrorKind::Other.into())];
        answers.push(Ok(vec![at("192.0.2.1")]));
        let mut until = Some(until);
        let mut resolve = |_: &str| {
            // The last one: the thread is to end then.
            if answers.len() == 1 {
                until.take();
            }
            answers.pop().unwrap()
        };
        let partners = ["a".parse().unwrap(), "b".parse().unwrap(), "c".parse().unwrap()];
        look_after(&partners, TransportKind::Udp4, &tell, &ended, &mut resolve);
        let told: Vec<News> = news.try_iter().collect();
        assert_eq!(told, [(0, Some(at("192.0.2.1"))), (2, Some(at("192.0.2.2")))]);
    }
}
