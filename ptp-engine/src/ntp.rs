//! NTP by the same stamps (RFC 5905, interleaved mode of RFC 9769), sans I/O: a client that asks any number of servers, a
//! server, and the smear that hides leap seconds. Both are [`crate::Engine`]s and are driven by the loop that drives
//! everything. What comes out of a client are four times and what the server says of its own; whether they are
//! followed or only watched is decided elsewhere.

mod client;
pub mod nts;
mod server;
mod smear;
#[cfg(test)]
mod tests;
mod watch;

pub use client::{AssociationState, Exchange, NtpClient, NtpEvent, Refused, ServerState};
pub use server::{NtpServer, NtpServerConfig, NtpServerCounters, NtpServerEvent, Serving, WARM};
pub use smear::LeapSmear;
pub use watch::{NtpAnswered, NtpAsked, NtpSeen, NtpWatch, NtpWatchCounts, Passing};

pub use crate::servers::{AssociationConfig, ExchangeKind, NtpConfig, NtpPart, Poll, Turn};
