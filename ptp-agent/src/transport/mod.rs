//! The sockets of one port: UDP over IPv4 (IEEE 1588-2019 Annex C) and IPv6 (Annex D), and Ethernet
//! (Annex E), all multicast. What is received here has passed the host's firewall and checksums.
//!
//! The event socket also asks the stack for its own receive stamps. It is this wish that makes the
//! stack stamp packets before TC ingress sees them; and as the socket has the very same stamp, it says
//! which record of a kernel program is this message's, and stands in where there is none.

pub(crate) mod driver_stamp;
mod heavy;
mod link;
mod many;
mod marking;
pub(crate) mod ntp;
pub mod nts;
pub mod resolve;
mod scope;
mod shards;
mod udp;
pub mod wire;

pub use heavy::Identity;
pub(crate) use heavy::{MOST as HEAVY_SENDERS, REGULARS, regulars_of_each};
pub use link::{LinkState, LinkWatch, interface_addresses, interface_mac, link_state};
pub use marking::Marking;
pub use shards::{Batch, Shards};

use std::{
    fmt,
    io::{self, IoSliceMut},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6},
    os::fd::AsRawFd,
    str::FromStr,
    sync::{Arc, OnceLock},
};

use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt,
    sockopt::{RcvBufForce, ReceiveTimestampns, SndBufForce},
};
use ptp_common::{
    classify::{ETHERTYPE_PTP, PORT_EVENT, PORT_GENERAL},
    time::{Ptp, Real, Time},
};
use socket2::Socket;
use tokio::io::unix::AsyncFd;

use crate::{
    engine::{Group, address::Address},
    sys::{self, clock, packet},
};
use many::Way;
use scope::{Scope, Scopes};
use udp::udp_socket;

const PRIMARY_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 1, 129);
const PEER_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 107);
const PEER_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x6b);
const PRIMARY_MAC: [u8; 6] = [0x01, 0x1b, 0x19, 0x00, 0x00, 0x00];
const PEER_MAC: [u8; 6] = [0x01, 0x80, 0xc2, 0x00, 0x00, 0x0e];
/// To which messages are sent on Ethernet (E.2, F.3); no other groups are listened to.
const GROUP_MACS: [[u8; 6]; 2] = [PRIMARY_MAC, PEER_MAC];
/// No PTP message is longer than an Ethernet frame; what is longer than this is counted and dropped.
pub const MAX_MESSAGE: usize = 2048;

/// Bytes of messages that may wait in a socket, either way, as the kernel counts them: some ten thousand messages, the
/// flood of a tenth of a second while the agent has no processor.
const QUEUE: usize = 4 << 20;

/// What carries the messages.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum TransportKind {
    /// UDP over IPv4.
    #[default]
    Udp4,
    /// UDP over IPv6.
    Udp6,
    /// Ethernet, EtherType 0x88F7.
    L2,
}

impl TransportKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Udp4, Self::Udp6, Self::L2];
}

impl FromStr for TransportKind {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "udp4" => Ok(Self::Udp4),
            "udp6" => Ok(Self::Udp6),
            "l2" => Ok(Self::L2),
            _ => Err("expected udp4, udp6 or l2".to_owned()),
        }
    }
}

impl fmt::Display for TransportKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Udp4 => "udp4",
            Self::Udp6 => "udp6",
            Self::L2 => "l2",
        })
    }
}

/// Which of the two channels a message goes to; the same socket on Ethernet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    /// Event messages, UDP port 319.
    Event,
    /// General messages, UDP port 320.
    General,
}

/// Why a transport could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The interface is not there.
    #[error("interface {0} does not exist")]
    NoInterface(String),
    /// Another program has the port.
    #[error(
        "UDP port {port} is already in use on {interface}: another PTP daemon (ptp4l, ptpd, ptp-agent) is running in this network namespace; stop it, or use `ptp-agent observe`, which needs no port"
    )]
    PortInUse {
        /// The port.
        port: u16,
        /// The interface.
        interface: String,
    },
    /// Missing privilege.
    #[error(
        "may not {attempt} on {interface}: needs CAP_NET_RAW (Ethernet) and CAP_NET_BIND_SERVICE (UDP ports 319 and 320), or root"
    )]
    Privilege {
        /// What was attempted.
        attempt: &'static str,
        /// The interface.
        interface: String,
    },
    /// The interface has no address of the family.
    #[error("cannot {attempt} on {interface}: {source}; does it have an {family} address?")]
    NoAddress {
        /// What was attempted.
        attempt: &'static str,
        /// The interface.
        interface: String,
        /// The family.
        family: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// Anything else.
    #[error("cannot {attempt} on {interface}: {source}")]
    Socket {
        /// What was attempted.
        attempt: &'static str,
        /// The interface.
        interface: String,
        /// What the kernel said.
        source: io::Error,
    },
}

/// The open sockets of one port.
#[derive(Debug)]
pub struct Transport {
    kind: TransportKind,
    ifindex: u32,
    event: AsyncFd<Socket>,
    /// `None` on Ethernet, which has one socket.
    general: Option<AsyncFd<Socket>>,
    /// Of IPv6 groups.
    scopes: Scopes,
    /// The ways of both channels, for other threads, once they are asked for.
    shared: [OnceLock<Arc<Way<Socket>>>; 2],
}

/// One received message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// How many bytes of the buffer it fills.
    pub length: usize,
    /// Whether it did not fit the buffer.
    pub oversized: bool,
    /// Who sent it.
    pub source: Option<Address>,
    /// The stack's own stamp, CLOCK_REALTIME; only event messages have one, and not even they where the
    /// stack has only just been asked for stamps.
    pub stack: Option<Time<Real>>,
}

/// The sender of a message, as the kernel says it.
fn sender(address: &SockaddrStorage) -> Option<Address> {
    if let Some(v4) = address.as_sockaddr_in() {
        return Some(Address::Socket(SocketAddr::new(v4.ip().into(), v4.port())));
    }
    if let Some(v6) = address.as_sockaddr_in6() {
        return Some(Address::Socket(SocketAddr::new(v6.ip().into(), v6.port())));
    }
    address.as_link_addr()?.addr().map(Address::Mac)
}

/// Where messages to a group go: the MAC address and, on UDP, the IP address.
pub const fn destination(kind: TransportKind, group: Group) -> ([u8; 6], Option<IpAddr>) {
    let peer = matches!(group, Group::Peer);
    match kind {
        TransportKind::L2 => (if peer { PEER_MAC } else { PRIMARY_MAC }, None),
        TransportKind::Udp4 => {
            let ip = if peer { PEER_V4 } else { PRIMARY_V4 };
            // RFC 1112 6.4: the low 23 bits.
            let [_, b, c, d] = ip.octets();
            ([0x01, 0x00, 0x5e, b & 0x7f, c, d], Some(IpAddr::V4(ip)))
        }
        TransportKind::Udp6 => {
            let ip = if peer { PEER_V6 } else { Scope::GLOBAL.primary() };
            // RFC 2464 section 7: the low 32 bits.
            let [.., a, b, c, d] = ip.octets();
            ([0x33, 0x33, a, b, c, d], Some(IpAddr::V6(ip)))
        }
    }
}

impl Transport {
    /// Lets another socket of this process have the port of event messages too, for what comes from one address alone.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn share_event_port(&self) -> io::Result<()> {
        self.event.get_ref().set_reuse_address(true)
    }

    /// Opens the sockets. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`TransportError`].
    pub fn open(
        kind: TransportKind,
        interface: &str,
        marking: &Marking,
    ) -> Result<Self, TransportError> {
        Self::open_as(kind, interface, marking, false)
    }

    /// The same beside sockets that have the port of event messages already, as
    /// [`share_event_port`](Self::share_event_port) lets them.
    ///
    /// # Errors
    /// [`TransportError`].
    pub(crate) fn open_shared(
        kind: TransportKind,
        interface: &str,
        marking: &Marking,
    ) -> Result<Self, TransportError> {
        Self::open_as(kind, interface, marking, true)
    }

    fn open_as(
        kind: TransportKind,
        interface: &str,
        marking: &Marking,
        is_shared: bool,
    ) -> Result<Self, TransportError> {
        let ifindex = nix::net::if_::if_nametoindex(interface)
            .map_err(|_| TransportError::NoInterface(interface.to_owned()))?;
        let failed = |attempt, source: io::Error| {
            let interface = interface.to_owned();
            match source.kind() {
                io::ErrorKind::PermissionDenied => TransportError::Privilege { attempt, interface },
                io::ErrorKind::AddrNotAvailable => TransportError::NoAddress {
                    attempt,
                    interface,
                    family: if kind == TransportKind::Udp6 { "IPv6" } else { "IPv4" },
                    source,
                },
                _ => TransportError::Socket { attempt, interface, source },
            }
        };
        let (event, general) = match kind {
            TransportKind::L2 => {
                let socket = packet::open(ifindex, &GROUP_MACS)
                    .map_err(|error| failed("open a packet socket", error))?;
                (socket, None)
            }
            TransportKind::Udp4 | TransportKind::Udp6 => {
                let open = |port| {
                    let is_shared = is_shared && port == PORT_EVENT;
                    udp_socket(kind, interface, (ifindex, port), marking, is_shared).map_err(
                        |(attempt, error)| {
                            if error.kind() == io::ErrorKind::AddrInUse
                                && attempt.starts_with("bind")
                            {
                                let interface = interface.to_owned();
                                return TransportError::PortInUse { port, interface };
                            }
                            failed(attempt, error)
                        },
                    )
                };
                (open(PORT_EVENT)?, Some(open(PORT_GENERAL)?))
            }
        };
        // Room for what comes while the agent does something else; that it cannot be had is no fault.
        for socket in [Some(&event), general.as_ref()].into_iter().flatten() {
            if let Err(error) = setsockopt(socket, RcvBufForce, &QUEUE) {
                tracing::debug!(%error, "receive buffer");
            }
            if let Err(error) = setsockopt(socket, SndBufForce, &QUEUE) {
                tracing::debug!(%error, "send buffer");
            }
        }
        setsockopt(&event, ReceiveTimestampns, &true)
            .map_err(|error| failed("ask for receive timestamps", error.into()))?;
        let register = |socket| {
            sys::register(socket)
                .map_err(|error| failed("register a socket with the runtime", error))
        };
        Ok(Self {
            kind,
            ifindex,
            event: register(event)?,
            general: general.map(register).transpose()?,
            scopes: Scopes::new(marking.scope()),
            shared: Default::default(),
        })
    }

    /// Index of the interface.
    pub const fn ifindex(&self) -> u32 {
        self.ifindex
    }

    /// Whether the interface is there and up, by a socket that is open: no descriptor is needed for it.
    pub fn link_state(&self, interface: &str) -> LinkState {
        link::state_by(self.event.get_ref(), interface)
    }

    /// Messages that came faster than they were received, and that the kernel dropped.
    pub fn overflowed(&self) -> u64 {
        let general = self.general.as_ref().map(AsyncFd::get_ref);
        [Some(self.event.get_ref()), general]
            .into_iter()
            .flatten()
            .filter_map(|socket| sys::dropped_by_kernel(socket).ok())
            .map(u64::from)
            .sum()
    }

    /// Lets only one in `1 << keep` event messages of these senders into the socket's queue, but all of `regulars`;
    /// all of everybody with none of them. With `None` in their place, one in so many of everybody's.
    ///
    /// # Errors
    /// What the kernel reports.
    pub fn hold_back(
        &self,
        senders: Option<&[Address]>,
        regulars: &[(Address, Identity)],
        keep: u32,
    ) -> io::Result<()> {
        let first = match self.kind {
            TransportKind::L2 => packet::own_frames_first(&GROUP_MACS),
            TransportKind::Udp4 | TransportKind::Udp6 => Vec::new(),
        };
        let filter = match senders {
            Some(senders) => heavy::filter(self.kind, senders, regulars, keep, first),
            None => heavy::strict(self.kind, regulars, keep, first),
        };
        let socket = self.event.get_ref();
        // Both at once may be more than the memory that the kernel gives a socket.
        socket.attach_filter(&filter).or_else(|_| {
            socket.detach_filter()?;
            socket.attach_filter(&filter)
        })
    }

    /// Asks for the driver's stamps of event messages sent from now on, or no longer.
    ///
    /// # Errors
    /// What the kernel reports.
    pub fn ask_for_driver_stamps(&self, wanted: bool) -> io::Result<()> {
        driver_stamp::ask(self.event.get_ref(), wanted)
    }

    /// The next of the driver's stamps, CLOCK_REALTIME, and the message it belongs to.
    pub fn next_driver_stamp<'a>(
        &self,
        buffer: &'a mut [u8; MAX_MESSAGE],
    ) -> Option<(&'a [u8], Time<Real>)> {
        driver_stamp::next(self.event.get_ref(), buffer)
    }

    /// Asks for the card's stamps of event messages sent from now on.
    ///
    /// # Errors
    /// What the kernel reports.
    pub fn ask_for_hardware_stamps(&self) -> io::Result<()> {
        driver_stamp::ask_for_hardware(self.event.get_ref())
    }

    /// The next of the card's stamps, by its own clock, and the message it belongs to.
    pub fn next_hardware_stamp<'a>(
        &self,
        buffer: &'a mut [u8; MAX_MESSAGE],
    ) -> Option<(&'a [u8], Time<Ptp>)> {
        driver_stamp::next_of_hardware(self.event.get_ref(), buffer)
    }

    /// The next message, event messages first.
    ///
    /// # Errors
    /// What the kernel reports; ENETDOWN when the interface goes down.
    pub async fn receive(&self, buffer: &mut [u8; MAX_MESSAGE]) -> io::Result<Received> {
        loop {
            let (mut guard, socket) = match &self.general {
                Some(general) => tokio::select! {
                    biased;
                    guard = self.event.readable() => (guard?, self.event.get_ref()),
                    guard = general.readable() => (guard?, general.get_ref()),
                },
                None => (self.event.readable().await?, self.event.get_ref()),
            };
            match guard.try_io(|_| receive(socket, buffer)) {
                Ok(Ok((received, group))) => {
                    if let Some(scope) = group {
                        self.scopes.heard(scope, &buffer[..received.length]);
                    }
                    return Ok(received);
                }
                Ok(Err(error)) => return Err(error),
                Err(_would_block) => {}
            }
        }
    }

    /// The next message of one kind that is there already; `None` where there is none. Ethernet has one socket for
    /// both, whose messages are event messages here.
    pub fn try_receive(
        &self,
        channel: Channel,
        buffer: &mut [u8; MAX_MESSAGE],
    ) -> Option<io::Result<Received>> {
        let socket = match channel {
            Channel::Event => &self.event,
            Channel::General => self.general.as_ref()?,
        };
        match receive(socket.get_ref(), buffer) {
            Ok((received, group)) => {
                if let Some(scope) = group {
                    self.scopes.heard(scope, &buffer[..received.length]);
                }
                Some(Ok(received))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            Err(error) => Some(Err(error)),
        }
    }

    /// Sends one message, without waiting.
    ///
    /// # Errors
    /// What the kernel reports.
    pub fn send(&self, channel: Channel, group: Group, message: &[u8]) -> io::Result<()> {
        let peer = group == Group::Peer;
        let (socket, port) = self.way(channel);
        match self.kind {
            TransportKind::L2 => {
                let to = if peer { PEER_MAC } else { PRIMARY_MAC };
                packet::send(socket, self.ifindex, to, ETHERTYPE_PTP, message)
            }
            TransportKind::Udp4 => {
                let to = SocketAddrV4::new(if peer { PEER_V4 } else { PRIMARY_V4 }, port);
                socket.send_to(message, &to.into()).map(drop)
            }
            TransportKind::Udp6 => {
                let to = if peer { PEER_V6 } else { self.scopes.of(message).primary() };
                let to = SocketAddrV6::new(to, port, 0, self.ifindex);
                send_padded(socket, message, to)
            }
        }
    }
}

impl Transport {
    /// The socket by which messages of a channel are sent, and the port that they go to.
    fn way(&self, channel: Channel) -> (&Socket, u16) {
        match (channel, &self.general) {
            (Channel::General, Some(general)) => (general.get_ref(), PORT_GENERAL),
            _ => (self.event.get_ref(), PORT_EVENT),
        }
    }

    /// Sends one message to one address alone, without waiting.
    ///
    /// # Errors
    /// What the kernel reports.
    pub fn send_unicast(&self, channel: Channel, to: Address, message: &[u8]) -> io::Result<()> {
        let (socket, port) = self.way(channel);
        match to {
            Address::Mac(mac) => packet::send(socket, self.ifindex, mac, ETHERTYPE_PTP, message),
            Address::Socket(from) => match from.ip() {
                IpAddr::V4(ip) => {
                    let to = SocketAddrV4::new(ip, port);
                    socket.send_to(message, &to.into()).map(drop)
                }
                IpAddr::V6(ip) => {
                    let to = SocketAddrV6::new(ip, port, 0, self.ifindex);
                    send_padded(socket, message, to)
                }
            },
        }
    }
}

/// With two octets behind the message, so that a transparent clock can keep the checksum right (D.2).
fn send_padded(socket: &Socket, message: &[u8], to: SocketAddrV6) -> io::Result<()> {
    let mut padded = Vec::with_capacity(message.len() + 2);
    padded.extend_from_slice(message);
    padded.extend_from_slice(&[0; 2]);
    socket.send_to(&padded, &to.into()).map(drop)
}

/// The message, and the scope of the primary group of IPv6 that it was sent to.
fn receive(
    socket: &Socket,
    buffer: &mut [u8; MAX_MESSAGE],
) -> io::Result<(Received, Option<Scope>)> {
    let mut parts = [IoSliceMut::new(buffer)];
    // The stamp comes a second time where the driver's transmit stamps are asked for.
    let mut space = nix::cmsg_space!([u8; 256]);
    let before = clock::realtime();
    // With MSG_TRUNC the kernel returns the length that the message really had.
    let message = recvmsg::<SockaddrStorage>(
        socket.as_raw_fd(),
        &mut parts,
        Some(&mut space),
        MsgFlags::MSG_TRUNC,
    )?;
    let (mut stack, mut scope) = (None, None);
    for further in message.cmsgs().into_iter().flatten() {
        match further {
            ControlMessageOwned::ScmTimestampns(time) => {
                // A packet that the stack has not stamped gets its stamp from this call.
                stack = driver_stamp::time(time).filter(|stamp| *stamp <= before);
            }
            ControlMessageOwned::Ipv6PacketInfo(info) => {
                scope = Scope::of_primary(Ipv6Addr::from(info.ipi6_addr.s6_addr));
            }
            _ => {}
        }
    }
    let full = message.bytes;
    let source = message.address.as_ref().and_then(sender);
    let (length, oversized) = (full.min(MAX_MESSAGE), full > MAX_MESSAGE);
    Ok((Received { length, oversized, source, stack }, scope))
}
