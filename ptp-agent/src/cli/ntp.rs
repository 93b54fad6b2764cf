//! Servers of NTP: which are asked, how and what for; and how NTP is served. The options, and what the file says in
//! `[run]` and `[serve]`.

use std::{
    io,
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    path::PathBuf,
    str::FromStr,
};

use clap::{Args, ValueEnum};
use serde::{Deserialize, Deserializer, de};

use super::{
    config::{Config, RunSection, ServeSection},
    merge::UsageError,
};
use crate::{
    agent::{
        io::{NtpCarrier, NtpPeer, NtsServer},
        ntp::NtpServing,
    },
    engine::ntp::{AssociationConfig, ExchangeKind, NtpConfig, NtpPart, Poll},
    transport::nts::Trust,
};
use ptp_common::{
    classify::PORT_EVENT,
    ntp::{PORT, nts},
    time::Time,
};

/// Servers at the most: more have no place among the sources that are compared.
const MAX_SERVERS: usize = 16;

/// `--follow`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Follow {
    /// The best grandmaster; servers of NTP are witnesses.
    #[default]
    Ptp,
    /// Servers of NTP; there is no PTP.
    Ntp,
    /// A pulse per second, whose seconds PTP, servers of NTP or a receiver's sentences number.
    Pps,
}

/// `--ntp-mode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum NtpMode {
    /// The transmit time of an answer is the server's intention, in the answer itself.
    Basic,
    /// It is that of the wire, in the next answer (RFC 9769), from servers that can.
    #[default]
    Interleaved,
}

/// How a server is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Plain,
    /// `nts:`.
    Nts,
    /// `ptp:`.
    Ptp,
}

impl Way {
    /// What stands before a name.
    const fn prefix(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Nts => "nts:",
            Self::Ptp => "ptp:",
        }
    }

    /// The port where none is named: with NTS that of the key exchange, which names the other one.
    const fn port(self) -> u16 {
        match self {
            Self::Plain => PORT,
            Self::Nts => nts::PORT,
            Self::Ptp => PORT_EVENT,
        }
    }
}

/// A server as it is named: an address or a name, perhaps with a port, and before it how it is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Host {
    way: Way,
    name: String,
    port: u16,
}

impl Host {
    /// As it is shown.
    fn shown(&self) -> String {
        let (prefix, name) = (self.way.prefix(), &self.name);
        match self.port == self.way.port() {
            true => format!("{prefix}{name}"),
            false if name.contains(':') => format!("{prefix}[{name}]:{}", self.port),
            false => format!("{prefix}{name}:{}", self.port),
        }
    }
}

impl FromStr for Host {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let named = [Way::Nts, Way::Ptp].into_iter();
        let mut named = named.filter_map(|way| Some((way, text.strip_prefix(way.prefix())?)));
        let (way, text) = named.next().unwrap_or((Way::Plain, text));
        if way == Way::Ptp
            && text.parse::<IpAddr>().is_err()
            && text.contains(':')
            && !text.ends_with(']')
        {
            return Err("messages of PTP have no other port than 319: leave it out".to_owned());
        }
        let host = |name: &str, port| Self { way, name: name.to_owned(), port };
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(host(&address.ip().to_string(), address.port()));
        }
        let bare = text.strip_prefix('[').and_then(|it| it.strip_suffix(']')).unwrap_or(text);
        if bare.parse::<IpAddr>().is_ok() {
            return Ok(host(bare, way.port()));
        }
        let (name, port) = match text.split_once(':') {
            Some((name, port)) => (name, port.parse().map_err(|_| EXPECTED.to_owned())?),
            None => (text, way.port()),
        };
        let is_name = |it: char| it.is_ascii_alphanumeric() || matches!(it, '.' | '-' | '_');
        if name.is_empty() || !name.chars().all(is_name) {
            return Err(EXPECTED.to_owned());
        }
        Ok(host(name, port))
    }
}

const EXPECTED: &str =
    "expected an address or a name, perhaps with :PORT behind, and nts: or ptp: before";

impl<'de> Deserialize<'de> for Host {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// `--ntp-poll`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PollOption(Poll);

impl FromStr for PollOption {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let limits = Poll::LIMITS;
        let wrong = || format!("expected MIN,MAX from {} to {}", limits.min, limits.max);
        let log = |text: &str| {
            let log = text.trim().parse().ok();
            log.filter(|log| (limits.min..=limits.max).contains(log)).ok_or_else(wrong)
        };
        let (min, max) = match text.split_once(',') {
            Some((min, max)) => (log(min)?, log(max)?),
            None => (log(text)?, log(text)?),
        };
        (min <= max).then(|| Self(Poll::new(min, max))).ok_or_else(wrong)
    }
}

impl<'de> Deserialize<'de> for PollOption {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// Of `run`.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct NtpArgs {
    /// Servers of NTP, by address or name, with :PORT where it is not 123: what the time transmitter of PTP is
    /// held against (see --on-disagreement), or with --follow ntp what the clock follows. nts:HOST is asked with
    /// NTS, and its port is that of the key exchange (TCP 4460); ptp:HOST by messages of PTP (NTP over PTP, UDP 319).
    #[arg(long, value_name = "HOST,...", value_delimiter = ',')]
    ntp: Vec<Host>,
    /// Authorities that certify the servers with nts: before their names, in PEM (default: those of the system).
    #[arg(long, value_name = "FILE")]
    ntp_nts_ca: Option<PathBuf>,
    /// How often they are asked: shortest and longest interval, log2 s (default 6,10: 64 s to 1024 s). A public
    /// server is not to be asked more often.
    #[arg(long, value_name = "MIN,MAX", allow_hyphen_values = true)]
    ntp_poll: Option<PollOption>,
    /// How they are asked: interleaved (default; of a server that can, the answer's transmit time is that of the
    /// wire) or basic.
    #[arg(long, value_name = "MODE")]
    ntp_mode: Option<NtpMode>,
    /// What the clock follows: ptp (default); ntp, where the servers take the place of PTP, and interfaces are those
    /// where packets are stamped; or pps, where a pulse does (see --pps), and PTP, NTP or NMEA say which second it
    /// is. It needs no interface.
    #[arg(long, value_name = "PROTOCOL")]
    follow: Option<Follow>,
}

/// What a run is told of NTP.
pub(super) struct Asking {
    pub(super) config: NtpConfig,
    pub(super) peers: Vec<NtpPeer>,
}

impl NtpArgs {
    /// The file with authorities, if one is named.
    pub(super) fn authorities(&self, config: &Config) -> Option<PathBuf> {
        self.ntp_nts_ca.clone().or_else(|| config.run.ntp_nts_ca.clone())
    }

    /// What the clock follows.
    pub(super) fn follow(&self, section: &RunSection) -> Follow {
        self.follow.or(section.follow).unwrap_or_default()
    }

    /// With what the file says. `None` where nobody is asked.
    pub(super) fn or(&self, section: &RunSection) -> Result<Option<Asking>, UsageError> {
        let servers = match self.ntp.is_empty() {
            true => section.ntp.clone().unwrap_or_default(),
            false => self.ntp.clone(),
        };
        let follow = self.follow(section);
        if servers.is_empty() {
            return match follow {
                Follow::Ptp | Follow::Pps => Ok(None),
                Follow::Ntp => Err(UsageError::NoNtpServers),
            };
        }
        if servers.len() > MAX_SERVERS {
            let too_many = format!("{} servers, at most {MAX_SERVERS}", servers.len());
            return Err(UsageError::OutOfRange("--ntp", too_many));
        }
        let poll = self.ntp_poll.or(section.ntp_poll).map(|it| it.0).unwrap_or_default();
        let kind = match self.ntp_mode.or(section.ntp_mode).unwrap_or_default() {
            NtpMode::Basic => ExchangeKind::Basic,
            NtpMode::Interleaved => ExchangeKind::Interleaved,
        };
        let file = self.ntp_nts_ca.as_ref().or(section.ntp_nts_ca.as_ref());
        let has_nts = servers.iter().any(|host| host.way == Way::Nts);
        let trust = has_nts.then(|| Trust::new(file.map(PathBuf::as_path))).transpose()?;
        let mut peers: Vec<NtpPeer> = Vec::new();
        for host in &servers {
            let failed = |error| UsageError::NoSuchServer(host.name.clone(), error);
            // With NTS the key exchange says which it is in the end.
            let port = if host.way == Way::Nts { PORT } else { host.port };
            let addresses: Vec<_> =
                (host.name.as_str(), port).to_socket_addrs().map_err(failed)?.collect();
            let is_new = |it: &&SocketAddr| peers.iter().all(|peer| peer.address != **it);
            let Some(address) = addresses.iter().find(is_new) else {
                if addresses.is_empty() {
                    return Err(failed(io::ErrorKind::NotFound.into()));
                }
                return Err(UsageError::TwiceTheSameServer(host.name.clone()));
            };
            let trust = trust.clone().filter(|_| host.way == Way::Nts);
            peers.push(NtpPeer {
                name: host.shown(),
                host: host.name.clone(),
                address: *address,
                carrier: if host.way == Way::Ptp { NtpCarrier::Ptp } else { NtpCarrier::Udp },
                nts: trust.map(|trust| NtsServer { port: host.port, trust }),
            });
        }
        let servers = peers
            .iter()
            .map(|peer| AssociationConfig { address: peer.address, poll, kind, repeats: true })
            .collect();
        let part = match follow {
            Follow::Ptp | Follow::Pps => NtpPart::Witness,
            Follow::Ntp => NtpPart::Source,
        };
        // Filled in when the clocks are read.
        Ok(Some(Asking { config: NtpConfig { servers, part, utc: Time::ZERO }, peers }))
    }
}

/// Of `serve`.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct NtpServeArgs {
    /// Serve NTP too, basic and interleaved, on UDP port 123 of the interfaces, while the clock is kept by somebody:
    /// true or false (default).
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    ntp: Option<bool>,
    /// Stratum that is told where nobody on this host says what its clock follows, 1 to 15 (default: with the
    /// virtual clock 1, else there is no answer then).
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=15))]
    ntp_stratum: Option<u8>,
    /// Hide leap seconds from clients of NTP: spread each over the day around it, from noon to noon: true or false
    /// (default). Clients must not ask servers with and without it.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    ntp_smear: Option<bool>,
    /// Answers to clients of NTP per second in all (default 100000), of which each gets a fair share.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    ntp_answers_per_second: Option<u32>,
}

impl NtpServeArgs {
    /// With what the file says. `None` where NTP is not served.
    pub(super) fn or(&self, section: &ServeSection) -> Option<NtpServing> {
        let is_wanted = self.ntp.or(section.ntp).unwrap_or(false);
        let per_second = section.ntp_answers_per_second.map(u32::from);
        is_wanted.then(|| NtpServing {
            stratum: self.ntp_stratum.or(section.ntp_stratum),
            smears: self.ntp_smear.or(section.ntp_smear).unwrap_or(false),
            answers_per_second: self.ntp_answers_per_second.or(per_second).unwrap_or(100_000),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_named_by_address_or_name_with_a_port_or_without() {
        let host = |name: &str, port| Ok(Host { way: Way::Plain, name: name.to_owned(), port });
        assert_eq!("192.0.2.1".parse(), host("192.0.2.1", 123));
        assert_eq!("192.0.2.1:1123".parse(), host("192.0.2.1", 1123));
        assert_eq!("2001:db8::1".parse(), host("2001:db8::1", 123));
        assert_eq!("[2001:db8::1]:1123".parse(), host("2001:db8::1", 1123));
        assert_eq!("time.example:1123".parse(), host("time.example", 1123));
        for wrong in ["", ":123", "a b", "time.example:", "time.example:70000", "a/b"] {
            assert!(wrong.parse::<Host>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn before_a_name_stands_how_it_is_asked_and_each_way_has_its_port() {
        for (text, way, name, port, shown) in [
            ("nts:time.example", Way::Nts, "time.example", 4460, "nts:time.example"),
            ("nts:time.example:4461", Way::Nts, "time.example", 4461, "nts:time.example:4461"),
            ("nts:[2001:db8::1]:4461", Way::Nts, "2001:db8::1", 4461, "nts:[2001:db8::1]:4461"),
            ("nts:2001:db8::1", Way::Nts, "2001:db8::1", 4460, "nts:2001:db8::1"),
            ("ptp:192.0.2.1", Way::Ptp, "192.0.2.1", 319, "ptp:192.0.2.1"),
            ("ptp:[2001:db8::1]", Way::Ptp, "2001:db8::1", 319, "ptp:2001:db8::1"),
            ("[2001:db8::1]:1123", Way::Plain, "2001:db8::1", 1123, "[2001:db8::1]:1123"),
        ] {
            let host: Host = text.parse().unwrap();
            assert_eq!(host, Host { way, name: name.to_owned(), port });
            assert_eq!(host.shown(), shown);
            assert_eq!(host.shown().parse(), Ok(host), "{text}");
        }
        for wrong in
            ["nts:", "ptp:", "nts::4460", "ptp:192.0.2.1:320", "ptp:[2001:db8::1]:319", "nts:nts:a"]
        {
            assert!(wrong.parse::<Host>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_poll_interval_that_is_out_of_range_is_refused() {
        assert_eq!("-2,6".parse(), Ok(PollOption(Poll { min: -2, max: 6 })));
        assert_eq!("0".parse(), Ok(PollOption(Poll { min: 0, max: 0 })));
        for wrong in ["", "6,4", "-9,4", "4,99", "x"] {
            assert!(wrong.parse::<PollOption>().is_err(), "{wrong}");
        }
    }
}
