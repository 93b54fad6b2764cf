//! Unicast negotiation (IEEE 1588-2019 16.1) without an instance around it: what a time receiver has been granted by
//! whom ([`client`]), what a time transmitter has granted to whom ([`service`]), and the timer wheel for many
//! grants ([`wheel`]). Each promise has its own time: what is not renewed ends, on both sides, whatever the other
//! side does.

pub mod client;
pub mod service;
mod verdict;
pub mod wheel;

#[cfg(test)]
mod tests;

use core::net::SocketAddr;

use crate::address::Address;
use ptp_common::wire::{Granted, MAINTAIN_REQUEST, Negotiation};

/// `logMessageInterval` that says no interval (table 42).
pub const NO_INTERVAL: i8 = 0x7f;
/// TLVs of one Signaling message that are looked at: nobody needs more.
pub(crate) const TLVS: usize = 8;

/// An address without the port, which a sender may change at will.
pub const fn host(address: Address) -> Address {
    match address {
        Address::Mac(mac) => Address::Mac(mac),
        Address::Socket(socket) => Address::Socket(SocketAddr::new(socket.ip(), 0)),
    }
}

/// What a time receiver says to be sent a type of message no more.
pub(crate) fn cancel(kind: Granted) -> Negotiation {
    let message_type = kind.message_type() as u8;
    Negotiation::Cancel { message_type, flags: MAINTAIN_REQUEST }
}
