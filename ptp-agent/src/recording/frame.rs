//! Frames for Wireshark: the agent's sockets deliver messages without headers, so these are made
//! again from what is known of the two ends. Only the message itself counts in a replay.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use etherparse::{PacketBuilder, SlicedPacket, TransportSlice};
use ptp_common::{
    classify::{ETHERTYPE_PTP, PORT_EVENT, PORT_GENERAL},
    ntp,
    wire::{MessageType, MessageView},
};

use crate::{
    engine::{Destination, Group, address::Address},
    transport::{TransportKind, destination},
};

/// Where a frame came from or went to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Received, from there if that is known.
    Received(Option<Address>),
    /// Sent.
    Sent {
        /// To whom.
        to: Destination,
    },
}

/// The agent's own addresses on an interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// Of the interface.
    pub mac: Option<[u8; 6]>,
    /// One of the interface.
    pub ipv4: Option<Ipv4Addr>,
    /// A link-local one of the interface, or any.
    pub ipv6: Option<Ipv6Addr>,
}

/// The frame around a message. What is not known of the addresses is zero.
pub(super) fn build(
    transport: TransportKind,
    own: &Addresses,
    route: Route,
    message: &[u8],
) -> Vec<u8> {
    let kind = message.first().map_or(0, |first| first & 0x0f);
    let port = if kind < 8 { PORT_EVENT } else { PORT_GENERAL };
    let (to_mac, to) = match route {
        Route::Sent { to: Destination::Multicast(group) } => destination(transport, group),
        Route::Sent { to: Destination::Unicast(Address::Mac(mac)) } => (mac, None),
        Route::Sent { to: Destination::Unicast(Address::Socket(to)) } => ([0; 6], Some(to.ip())),
        Route::Received(_) => {
            let is_peers =
                [MessageType::PdelayReq, MessageType::PdelayResp, MessageType::PdelayRespFollowUp]
                    .iter()
                    .any(|peer| *peer as u8 == kind);
            destination(transport, if is_peers { Group::Peer } else { Group::Primary })
        }
    };
    let (from_mac, from) = match route {
        Route::Sent { .. } => {
            let ip = match transport {
                TransportKind::Udp6 => own.ipv6.map(IpAddr::V6),
                TransportKind::Udp4 | TransportKind::L2 => own.ipv4.map(IpAddr::V4),
            };
            (own.mac, ip.map(|ip| SocketAddr::new(ip, port)))
        }
        Route::Received(Some(Address::Mac(mac))) => (Some(mac), None),
        Route::Received(Some(Address::Socket(from))) => (sender_mac(message), Some(from)),
        Route::Received(None) => (sender_mac(message), None),
    };
    let ethernet = PacketBuilder::ethernet2(from_mac.unwrap_or_default(), to_mac);
    let from_port = from.map_or(port, |from| from.port());
    let mut frame = Vec::with_capacity(message.len() + 64);
    // Writing to a vector fails for one reason, that a message is too long for its headers, and these
    // have at most 2048 bytes.
    let _ = match (transport, to) {
        (TransportKind::Udp4, Some(IpAddr::V4(to))) => {
            let from = match from {
                Some(SocketAddr::V4(from)) => *from.ip(),
                _ => Ipv4Addr::UNSPECIFIED,
            };
            let ip = ethernet.ipv4(from.octets(), to.octets(), 1);
            ip.udp(from_port, port).write(&mut frame, message)
        }
        (TransportKind::Udp6, Some(IpAddr::V6(to))) => {
            let from = match from {
                Some(SocketAddr::V6(from)) => *from.ip(),
                _ => Ipv6Addr::UNSPECIFIED,
            };
            let mut padded;
            let payload = match route {
                // The two octets that D.2 asks for; the transport adds them on sending.
                Route::Sent { .. } => {
                    padded = message.to_vec();
                    padded.extend_from_slice(&[0; 2]);
                    &padded
                }
                Route::Received(_) => message,
            };
            let ip = ethernet.ipv6(from.octets(), to.octets(), 1);
            ip.udp(from_port, port).write(&mut frame, payload)
        }
        _ => {
            frame.extend_from_slice(&to_mac);
            frame.extend_from_slice(&from_mac.unwrap_or_default());
            frame.extend_from_slice(&ETHERTYPE_PTP.to_be_bytes());
            frame.extend_from_slice(message);
            Ok(())
        }
    };
    frame
}

/// The same around a packet of NTP. The own end is not known: it has the port of requests, and no address.
pub(super) fn build_ntp(route: Route, packet: &[u8]) -> Vec<u8> {
    let (server, is_answer) = match route {
        Route::Received(Some(Address::Socket(server))) => (Some(server), true),
        Route::Sent { to: Destination::Unicast(Address::Socket(server)) } => (Some(server), false),
        Route::Received(_) => (None, true),
        Route::Sent { .. } => (None, false),
    };
    let server = server.unwrap_or((Ipv4Addr::UNSPECIFIED, ntp::PORT).into());
    let own: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, ntp::PORT).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, ntp::PORT).into(),
    };
    let (from, to) = if is_answer { (server, own) } else { (own, server) };
    let ethernet = PacketBuilder::ethernet2([0; 6], [0; 6]);
    let mut frame = Vec::with_capacity(packet.len() + 64);
    // As for those of PTP.
    let _ = match (from.ip(), to.ip()) {
        (IpAddr::V4(a), IpAddr::V4(b)) => ethernet
            .ipv4(a.octets(), b.octets(), 64)
            .udp(from.port(), to.port())
            .write(&mut frame, packet),
        (IpAddr::V6(a), IpAddr::V6(b)) => ethernet
            .ipv6(a.octets(), b.octets(), 64)
            .udp(from.port(), to.port())
            .write(&mut frame, packet),
        _ => Ok(()),
    };
    frame
}

/// The message in a frame.
pub(super) fn message(frame: &[u8]) -> Option<&[u8]> {
    // On Ethernet everything behind the type belongs to the message, whatever it looks like.
    if let Some((header, message)) = frame.split_first_chunk::<14>()
        && header[12..] == ETHERTYPE_PTP.to_be_bytes()
    {
        return Some(message);
    }
    match SlicedPacket::from_ethernet(frame).ok()?.transport? {
        TransportSlice::Udp(udp) => Some(udp.payload()),
        _ => None,
    }
}

/// Most clock identities are made of the MAC address that the messages are sent from (7.5.2.2.2).
fn sender_mac(message: &[u8]) -> Option<[u8; 6]> {
    let identity = MessageView::new(message).ok()?.header().source_port_identity.clock_identity;
    let [a, b, c, 0xff, 0xfe, d, e, f] = identity.0 else {
        return None;
    };
    Some([a, b, c, d, e, f])
}
