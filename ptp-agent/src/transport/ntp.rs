//! Sockets of NTP: one for each request, connected, at a port that the kernel draws; and for who serves one for each
//! interface and family, which tells to which address a request came, so that the answer comes from there.

use std::{
    io::{self, IoSlice, IoSliceMut},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::AsRawFd,
};

use nix::{
    ifaddrs::getifaddrs,
    sys::socket::{
        ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg,
        setsockopt,
        sockopt::{Ipv4PacketInfo, Ipv6RecvPacketInfo, ReceiveTimestampns},
    },
};
use ptp_common::{
    ntp::PORT,
    time::{Real, Time},
};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{Interest, unix::AsyncFd};

use super::{MAX_MESSAGE, TransportError, driver_stamp, sender};
use crate::{
    engine::address::Address,
    sys::{self, clock},
};

/// Room for requests that come while the agent does something else, bytes.
const QUEUE: usize = 4 << 20;

/// What was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Got {
    /// How long it is, of which the buffer has no more than it can.
    pub(crate) length: usize,
    /// From whom.
    pub(crate) source: Option<SocketAddr>,
    /// To which address, where that is told.
    pub(crate) local: Option<IpAddr>,
    /// The stack's stamp.
    pub(crate) stack: Option<Time<Real>>,
}

/// A socket that takes packets of `server` alone, and the address that it has here.
pub(crate) fn connect(server: SocketAddr) -> io::Result<(AsyncFd<Socket>, IpAddr)> {
    connect_from(0, server)
}

/// The same from a port of one's own, which may be in use, by PTP: what comes from that server's address and port is
/// this socket's, because it is connected, and all else is the other's.
pub(crate) fn connect_from(port: u16, server: SocketAddr) -> io::Result<(AsyncFd<Socket>, IpAddr)> {
    let socket = Socket::new(Domain::for_address(server), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    setsockopt(&socket, ReceiveTimestampns, &true)?;
    if port != 0 {
        socket.set_reuse_address(true)?;
        if server.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        let any: IpAddr = match server {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        socket.bind(&SocketAddr::new(any, port).into())?;
    }
    socket.connect(&server.into())?;
    let local = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
    Ok((sys::register(socket)?, local.ip()))
}

/// Index of the interface that has an address.
pub(crate) fn interface_of(address: IpAddr) -> Option<u32> {
    let own = getifaddrs().ok()?.find(|own| {
        let Some(own) = &own.address else { return false };
        match address {
            IpAddr::V4(address) => own.as_sockaddr_in().is_some_and(|it| it.ip() == address),
            IpAddr::V6(address) => own.as_sockaddr_in6().is_some_and(|it| it.ip() == address),
        }
    })?;
    nix::net::if_::if_nametoindex(own.interface_name.as_str()).ok()
}

/// The sockets of a server on an interface, IPv4 and IPv6.
///
/// # Errors
/// [`TransportError`].
pub(crate) fn listen(interface: &str) -> Result<Vec<AsyncFd<Socket>>, TransportError> {
    let failed = |attempt: &'static str| {
        move |source: io::Error| {
            let interface = interface.to_owned();
            match source.kind() {
                io::ErrorKind::AddrInUse => TransportError::PortInUse { port: PORT, interface },
                io::ErrorKind::PermissionDenied => TransportError::Privilege { attempt, interface },
                _ => TransportError::Socket { attempt, interface, source },
            }
        }
    };
    let open = |domain, any: IpAddr| -> io::Result<AsyncFd<Socket>> {
        let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_nonblocking(true)?;
        socket.bind_device(Some(interface.as_bytes()))?;
        if domain == Domain::IPV6 {
            socket.set_only_v6(true)?;
            setsockopt(&socket, Ipv6RecvPacketInfo, &true)?;
        } else {
            setsockopt(&socket, Ipv4PacketInfo, &true)?;
        }
        setsockopt(&socket, ReceiveTimestampns, &true)?;
        let _ = socket.set_recv_buffer_size(QUEUE);
        socket.bind(&SocketAddr::new(any, PORT).into())?;
        sys::register(socket)
    };
    let mut sockets = vec![
        open(Domain::IPV4, Ipv4Addr::UNSPECIFIED.into()).map_err(failed("bind to the NTP port"))?,
    ];
    match open(Domain::IPV6, Ipv6Addr::UNSPECIFIED.into()) {
        Ok(socket) => sockets.push(socket),
        // A host without IPv6.
        Err(error) => tracing::debug!(interface, %error, "no NTP over IPv6"),
    }
    Ok(sockets)
}

/// Whether a socket is one of IPv6.
pub(crate) fn is_v6(socket: &Socket) -> bool {
    socket.domain().is_ok_and(|domain| domain == Domain::IPV6)
}

/// Sends from one of the own addresses.
pub(crate) fn send_from(
    socket: &Socket,
    from: Option<IpAddr>,
    to: SocketAddr,
    message: &[u8],
) -> io::Result<()> {
    let parts = [IoSlice::new(message)];
    let to = SockaddrStorage::from(to);
    let fd = socket.as_raw_fd();
    let flags = MsgFlags::MSG_DONTWAIT;
    match from {
        Some(IpAddr::V4(from)) => {
            let info = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: libc::in_addr { s_addr: u32::from_ne_bytes(from.octets()) },
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            sendmsg(fd, &parts, &[ControlMessage::Ipv4PacketInfo(&info)], flags, Some(&to))?;
        }
        Some(IpAddr::V6(from)) => {
            let info = libc::in6_pktinfo {
                ipi6_addr: libc::in6_addr { s6_addr: from.octets() },
                ipi6_ifindex: 0,
            };
            sendmsg(fd, &parts, &[ControlMessage::Ipv6PacketInfo(&info)], flags, Some(&to))?;
        }
        None => drop(sendmsg(fd, &parts, &[], flags, Some(&to))?),
    }
    Ok(())
}

/// The next packet.
pub(crate) fn receive(socket: &AsyncFd<Socket>, buffer: &mut [u8; MAX_MESSAGE]) -> io::Result<Got> {
    socket.try_io(Interest::READABLE, |socket| receive_from(socket, buffer))
}

fn receive_from(socket: &Socket, buffer: &mut [u8; MAX_MESSAGE]) -> io::Result<Got> {
    let mut parts = [IoSliceMut::new(buffer)];
    let mut space = nix::cmsg_space!([u8; 256]);
    let before = clock::realtime();
    let message = recvmsg::<SockaddrStorage>(
        socket.as_raw_fd(),
        &mut parts,
        Some(&mut space),
        MsgFlags::MSG_TRUNC | MsgFlags::MSG_DONTWAIT,
    )?;
    let (mut stack, mut local) = (None, None);
    for further in message.cmsgs().into_iter().flatten() {
        match further {
            ControlMessageOwned::ScmTimestampns(time) => {
                // A packet that the stack has not stamped gets its stamp from this call.
                stack = driver_stamp::time(time).filter(|stamp| *stamp <= before);
            }
            ControlMessageOwned::Ipv4PacketInfo(info) => {
                local = Some(IpAddr::V4(Ipv4Addr::from(info.ipi_addr.s_addr.to_ne_bytes())));
            }
            ControlMessageOwned::Ipv6PacketInfo(info) => {
                local = Some(IpAddr::V6(Ipv6Addr::from(info.ipi6_addr.s6_addr)));
            }
            _ => {}
        }
    }
    let source = match message.address.as_ref().and_then(sender) {
        Some(Address::Socket(source)) => Some(source),
        _ => None,
    };
    Ok(Got { length: message.bytes, source, local, stack })
}
