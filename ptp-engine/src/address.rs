//! Where a message came from, and where an answer to it goes.

use core::net::{IpAddr, SocketAddr};

use ptp_common::wire::management::{NetworkProtocol, PortAddress};

/// The sender of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    /// On Ethernet.
    Mac([u8; 6]),
    /// On UDP.
    Socket(SocketAddr),
}

impl Address {
    /// As it is on the wire (5.3.6), in `octets`; without the port.
    pub fn port_address(self, octets: &mut [u8; 16]) -> PortAddress<'_> {
        let (protocol, length) = match self {
            Self::Mac(mac) => {
                octets[..6].copy_from_slice(&mac);
                (NetworkProtocol::IEEE_802_3, 6)
            }
            Self::Socket(socket) => match socket.ip().to_canonical() {
                IpAddr::V4(address) => {
                    octets[..4].copy_from_slice(&address.octets());
                    (NetworkProtocol::UDP_IPV4, 4)
                }
                IpAddr::V6(address) => {
                    *octets = address.octets();
                    (NetworkProtocol::UDP_IPV6, 16)
                }
            },
        };
        PortAddress { protocol, address: &octets[..length] }
    }
}
