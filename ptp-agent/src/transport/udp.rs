//! How a UDP socket of a port is opened: bound to its interface, and in the groups of the standard alone.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
};

use nix::sys::socket::{setsockopt, sockopt::Ipv6RecvPacketInfo};
use ptp_common::classify::PORT_EVENT;
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, Socket, Type};

use super::{Marking, PEER_V4, PEER_V6, PRIMARY_V4, TransportKind, scope::Scope};

/// Opens one; what was attempted comes with the error.
pub(super) fn udp_socket(
    kind: TransportKind,
    interface: &str,
    (ifindex, port): (u32, u16),
    marking: &Marking,
    is_shared: bool,
) -> Result<Socket, (&'static str, io::Error)> {
    let step = |attempt| move |error| (attempt, error);
    let v6 = kind == TransportKind::Udp6;
    let domain = if v6 { Domain::IPV6 } else { Domain::IPV4 };
    let socket =
        Socket::new(domain, Type::DGRAM, Some(Protocol::UDP)).map_err(step("open a UDP socket"))?;
    socket.set_nonblocking(true).map_err(step("open a UDP socket"))?;
    socket
        .bind_device(Some(interface.as_bytes()))
        .map_err(step("bind a socket to the interface"))?;
    let any: SocketAddr = if v6 {
        socket.set_only_v6(true).map_err(step("open a UDP socket"))?;
        (Ipv6Addr::UNSPECIFIED, port).into()
    } else {
        (Ipv4Addr::UNSPECIFIED, port).into()
    };
    socket.set_reuse_address(is_shared).map_err(step("open a UDP socket"))?;
    socket.bind(&any.into()).map_err(step("bind to the PTP port"))?;
    marking.apply(&socket, port == PORT_EVENT, v6).map_err(step("mark packets"))?;
    // A multicast message of ours must not come back to us, nor what is for groups that others of this host have
    // joined; kernels that do not know the latter for IPv6 (before 4.20) have no such choice.
    let groups = "join the PTP multicast groups";
    if v6 {
        if let Err(error) = socket.set_multicast_all_v6(false) {
            tracing::debug!(%error, "groups of others");
        }
        socket.set_multicast_loop_v6(false).map_err(step(groups))?;
        socket.set_multicast_if_v6(ifindex).map_err(step(groups))?;
        for scope in Scope::ALL {
            socket.join_multicast_v6(&scope.primary(), ifindex).map_err(step(groups))?;
        }
        setsockopt(&socket, Ipv6RecvPacketInfo, &true)
            .map_err(|error| ("ask for destination addresses", error.into()))?;
        socket.join_multicast_v6(&PEER_V6, ifindex).map_err(step(groups))?;
    } else {
        socket.set_multicast_all_v4(false).map_err(step(groups))?;
        socket.set_multicast_loop_v4(false).map_err(step(groups))?;
        let index = InterfaceIndexOrAddress::Index(ifindex);
        socket.join_multicast_v4_n(&PRIMARY_V4, &index).map_err(step(groups))?;
        socket.join_multicast_v4_n(&PEER_V4, &index).map_err(step(groups))?;
    }
    Ok(socket)
}
