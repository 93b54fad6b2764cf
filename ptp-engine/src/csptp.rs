//! Exchanges that begin with the client and leave nothing behind at the server: those of IEEE 1588.1 (CSPTP), and
//! Meta's SPTP. A request, an answer whose both ends are stamped, and a second message that says when the answer left:
//! all four times of an exchange within one round trip, from one address to one address. A server needs no memory
//! of its clients, and a client may ask several servers, each of which is a source with a causal interval of its
//! own.
//!
//! | | request | answer | behind it |
//! |---|---|---|---|
//! | CSPTP | Sync, CSPTP_REQUEST | Sync, CSPTP_RESPONSE | Follow_Up |
//! | SPTP | Delay_Req, profileSpecific1 | Sync, whose originTimestamp is the request's arrival | Announce, whose originTimestamp is the Sync's departure |
//!
//! An instance that asks takes no part in any election: whom it follows is decided among its servers (`client.rs`).
//! An instance that serves answers beside what it does otherwise (`server.rs`).

mod client;
mod server;
#[cfg(test)]
mod tests;

use core::{fmt, net::SocketAddr, str::FromStr};

use crate::prelude::*;
use crate::{Datagram, PortIndex};
use ptp_common::wire::{
    Body, CsptpRequest, Flags, Header, MessageType, PortIdentity, Timestamp, Tlv, TlvBuilder,
    TlvType, csptp,
};
use serde::{Deserialize, Serialize};

pub(crate) use client::Asking;
pub use client::{MAX_SERVERS, ServerState};
pub(crate) use server::Answering;
pub use server::{AnswerForms, is_worth};

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

/// Octets of an answer of CSPTP with its status.
const CSPTP_ANSWER: usize = MessageType::Sync.fixed_length() + 2 * (4 + 18);

/// A request of CSPTP. It is as long as the answer, so that both take equally long on the way.
fn csptp_request(domain_number: u8, sequence_id: u16) -> Datagram {
    let mut header = Header::new(PortIdentity::default(), sequence_id);
    header.sdo_id = csptp::SDO_ID;
    header.domain_number = domain_number;
    header.flags = Flags::UNICAST;
    let body = Body::Sync { origin_timestamp: Timestamp::ZERO };
    let request = CsptpRequest { status: true, alternate_time: false }.value();
    let padding = [0; CSPTP_ANSWER - 44 - 8 - 4];
    let mut buffer = [0; CSPTP_ANSWER];
    let mut tlvs = TlvBuilder::new(&mut buffer);
    let pushed = tlvs
        .push(Tlv { kind: TlvType::CSPTP_REQUEST, value: &request })
        .and_then(|()| tlvs.push(Tlv { kind: TlvType::PAD, value: &padding }));
    // Cannot fail: there is room for both.
    let told = pushed.and_then(|()| Datagram::with_tlvs(header, body, tlvs.finish()));
    told.unwrap_or_else(|_| Datagram::new(header, body))
}
