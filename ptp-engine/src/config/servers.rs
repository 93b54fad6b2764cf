//! Servers that are asked, and what is answered: exchanges that begin with the client.

use core::{fmt, net::SocketAddr, str::FromStr};

use crate::PortIndex;
use crate::prelude::*;
use ptp_common::wire::csptp;
use serde::{Deserialize, Serialize};

/// Which exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// IEEE 1588.1.
    Csptp,
    /// Meta's.
    Sptp,
}

impl Protocol {
    /// The name in samples, metrics and status.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Csptp => "csptp",
            Self::Sptp => "sptp",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Protocol {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = [Self::Csptp, Self::Sptp].into_iter().find(|each| each.name() == text);
        known.ok_or_else(|| "expected csptp or sptp".to_owned())
    }
}

/// A server that is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerConfig {
    /// How.
    pub protocol: Protocol,
    /// Where it is; `None` while its name has no address.
    pub address: Option<SocketAddr>,
    /// The port by which it is asked.
    pub port: PortIndex,
    /// Of CSPTP; SPTP is asked in the domain of the instance.
    pub domain_number: u8,
    /// The interval between requests, log2 s.
    pub log_interval: i8,
}

impl ServerConfig {
    /// One that is asked each second by the first port, in the domain of CSPTP.
    pub const fn new(protocol: Protocol, address: Option<SocketAddr>) -> Self {
        let domain_number = csptp::DEFAULT_DOMAIN;
        Self { protocol, address, port: PortIndex(0), domain_number, log_interval: 0 }
    }
}

/// What an instance that serves answers beside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    /// CSPTP.
    pub csptp: bool,
    /// SPTP.
    pub sptp: bool,
}
