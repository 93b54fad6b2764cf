//! Where a message came from, and where an answer to it goes.

use core::net::SocketAddr;

/// The sender of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    /// On Ethernet.
    Mac([u8; 6]),
    /// On UDP.
    Socket(SocketAddr),
}
