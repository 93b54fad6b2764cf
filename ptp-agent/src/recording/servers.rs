//! Which servers of NTP were asked, as far as the numbers of a replay depend on it.

use std::net::SocketAddr;

use ptp_common::time::Time;
use serde::{Deserialize, Serialize};

use crate::engine::ntp::{AssociationConfig, ExchangeKind, NtpConfig, NtpPart, Poll};

/// The servers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NtpNote {
    /// Whether the clock follows them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub followed: bool,
    /// UTC at the start, since 1970.
    pub utc_ns: i64,
    /// In the order of their ports.
    pub servers: Vec<ServerNote>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerNote {
    /// Where it is.
    pub address: SocketAddr,
    /// The interface by which it was asked; empty where packets are not stamped there.
    #[serde(default)]
    pub interface: String,
    /// Shortest and longest interval, log2 s.
    pub poll: [i8; 2],
    /// Whether it is asked for interleaved answers.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub interleaved: bool,
    /// Whether it is asked a second time where that is of use.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub repeats: bool,
}

/// What stands for an interface in the file; no interface can be called so.
pub(super) fn ntp_interface(server: &ServerNote) -> String {
    format!("ntp:{}", server.address)
}

impl NtpNote {
    /// Of servers that are asked; the interfaces are filled in by who knows them.
    pub(super) fn of(config: &NtpConfig) -> Self {
        let servers = config.servers.iter().map(|server| ServerNote {
            address: server.address,
            interface: String::new(),
            poll: [server.poll.min, server.poll.max],
            interleaved: server.kind == ExchangeKind::Interleaved,
            repeats: server.repeats,
        });
        Self {
            followed: config.part == NtpPart::Source,
            utc_ns: config.utc.as_nanos(),
            servers: servers.collect(),
        }
    }

    pub(super) fn config(&self) -> NtpConfig {
        let servers = self.servers.iter().map(|server| AssociationConfig {
            address: server.address,
            poll: Poll::new(server.poll[0], server.poll[1]),
            kind: if server.interleaved { ExchangeKind::Interleaved } else { ExchangeKind::Basic },
            repeats: server.repeats,
        });
        NtpConfig {
            servers: servers.collect(),
            part: if self.followed { NtpPart::Source } else { NtpPart::Witness },
            utc: Time::from_nanos(self.utc_ns),
        }
    }
}
