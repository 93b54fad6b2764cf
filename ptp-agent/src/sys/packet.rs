//! Packet sockets, for which no safe crate has the addresses: PTP over Ethernet (IEEE 1588-2019
//! Annex E) sends and receives on one such socket per interface.

use std::{
    io, mem,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use ptp_common::classify::ETHERTYPE_PTP;
use socket2::{SockAddr, SockFilter, Socket};

use super::classic::{IF_EQUAL, LOAD_HALF, LOAD_WORD, RETURN};

fn address(ifindex: u32, ethertype: u16, mac: [u8; 6]) -> io::Result<libc::sockaddr_ll> {
    let index = i32::try_from(ifindex).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut bytes = [0; 8];
    bytes[..6].copy_from_slice(&mac);
    Ok(libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: ethertype.to_be(),
        sll_ifindex: index,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 6,
        sll_addr: bytes,
    })
}

/// Where frames of PTP to a MAC address go, for [`super::many::send`].
///
/// # Errors
/// InvalidInput for an index that no interface has.
pub fn address_of(ifindex: u32, mac: [u8; 6]) -> io::Result<SockAddr> {
    let raw = address(ifindex, ETHERTYPE_PTP, mac)?;
    // SAFETY: the storage is longer than any address, and as much of it is written as its length says.
    let ((), address) = unsafe {
        SockAddr::try_init(|storage, length| {
            storage.cast::<libc::sockaddr_ll>().write(raw);
            *length = mem::size_of_val(&raw) as libc::socklen_t;
            Ok(())
        })
    }?;
    Ok(address)
}

/// What the kernel says of a frame to somebody else (`PACKET_OTHERHOST`). It says the same of a frame in
/// a VLAN that has no interface of its own here, whatever its address; priority tags (VID 0) are taken
/// off before.
const OTHER_HOST: u32 = libc::PACKET_OTHERHOST as u32;
/// What it says of a frame to a group, whoever has joined that.
const TO_GROUP: u32 = libc::PACKET_MULTICAST as u32;

/// The beginning of a filter that lets pass what is this host's, in this VLAN, and of what is sent to groups that to
/// `groups`: on a trunk a socket would otherwise receive the frames of all VLANs, and could tell none of them from its own,
/// and in promiscuous mode, or where another program has joined them, those of all groups.
pub(crate) fn own_frames_first(groups: &[[u8; 6]]) -> Vec<SockFilter> {
    /// Of the destination address.
    const LINK: u32 = libc::SKF_LL_OFF as u32;
    const FOR_EACH: usize = 4;
    let mut program = vec![
        SockFilter::new(LOAD_WORD, 0, 0, (libc::SKF_AD_OFF + libc::SKF_AD_PKTTYPE) as u32),
        SockFilter::new(IF_EQUAL, 0, 1, OTHER_HOST),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(IF_EQUAL, 0, (FOR_EACH * groups.len() + 1) as u8, TO_GROUP),
    ];
    for (n, [a, b, c, d, e, f]) in groups.iter().enumerate() {
        let to_end = FOR_EACH * (groups.len() - n - 1) + 1;
        program.extend([
            SockFilter::new(LOAD_WORD, 0, 0, LINK),
            SockFilter::new(IF_EQUAL, 0, 2, u32::from_be_bytes([*a, *b, *c, *d])),
            SockFilter::new(LOAD_HALF, 0, 0, LINK.wrapping_add(4)),
            SockFilter::new(IF_EQUAL, to_end as u8, 0, u32::from(u16::from_be_bytes([*e, *f]))),
        ]);
    }
    program.push(SockFilter::new(RETURN, 0, 0, 0));
    program
}

/// A socket that receives the PTP frames of one interface, without their Ethernet headers, and joins
/// the given multicast groups on it. Frames to other hosts, to other groups and in other VLANs are not received.
///
/// # Errors
/// What the kernel reports; EPERM without CAP_NET_RAW.
pub fn open(ifindex: u32, groups: &[[u8; 6]]) -> io::Result<Socket> {
    let mut filter = own_frames_first(groups);
    filter.push(SockFilter::new(RETURN, 0, 0, u32::MAX));
    listen(ifindex, ETHERTYPE_PTP, &filter, groups)
}

/// The same for any EtherType, of which only frames that pass `filter` are queued.
///
/// # Errors
/// As [`open`].
pub fn listen(
    ifindex: u32,
    ethertype: u16,
    filter: &[SockFilter],
    groups: &[[u8; 6]],
) -> io::Result<Socket> {
    let socket = open_sender()?;
    socket.attach_filter(filter)?;
    let local = bind(&socket, ifindex, ethertype)?;
    for group in groups {
        let mut mac = [0; 8];
        mac[..6].copy_from_slice(group);
        let request = libc::packet_mreq {
            mr_ifindex: local.sll_ifindex,
            mr_type: libc::PACKET_MR_MULTICAST as u16,
            mr_alen: 6,
            mr_address: mac,
        };
        // SAFETY: as above.
        check(unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_ADD_MEMBERSHIP,
                (&raw const request).cast(),
                mem::size_of_val(&request) as libc::socklen_t,
            )
        })?;
    }
    Ok(socket)
}

/// A socket that receives copies of the frames of one interface that have this EtherType and pass
/// the filter, without their Ethernet headers. Nothing that `filter` refuses is ever queued.
///
/// EtherType 3 (`ETH_P_ALL`) stands for all, and then for outgoing frames too.
///
/// # Errors
/// As [`open`].
pub fn tap(ifindex: u32, ethertype: u16, filter: &[SockFilter]) -> io::Result<Socket> {
    let socket = open_sender()?;
    socket.attach_filter(filter)?;
    bind(&socket, ifindex, ethertype)?;
    Ok(socket)
}

fn bind(socket: &Socket, ifindex: u32, ethertype: u16) -> io::Result<libc::sockaddr_ll> {
    let local = address(ifindex, ethertype, [0; 6])?;
    // SAFETY: the pointer and the length describe a structure that lives through the call.
    check(unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const local).cast(),
            mem::size_of_val(&local) as libc::socklen_t,
        )
    })?;
    Ok(local)
}

/// A socket that receives nothing.
///
/// # Errors
/// What the kernel reports; EPERM without CAP_NET_RAW.
pub fn open_sender() -> io::Result<Socket> {
    let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // Protocol 0: nothing is received unless the socket is bound to another.
    // SAFETY: a system call without pointers.
    let fd = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a descriptor that was just made and that nobody else has.
    Ok(Socket::from(unsafe { OwnedFd::from_raw_fd(fd) }))
}

/// Sends one frame to a MAC address.
///
/// # Errors
/// What the kernel reports.
pub fn send(
    socket: &Socket,
    ifindex: u32,
    to: [u8; 6],
    ethertype: u16,
    message: &[u8],
) -> io::Result<()> {
    let to = address(ifindex, ethertype, to)?;
    // SAFETY: pointers and lengths describe a slice and a structure that live through the call.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            message.as_ptr().cast(),
            message.len(),
            libc::MSG_DONTWAIT,
            (&raw const to).cast(),
            mem::size_of_val(&to) as libc::socklen_t,
        )
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A socket that receives nothing and sends whole frames, Ethernet header included.
///
/// # Errors
/// What the kernel reports; EPERM without CAP_NET_RAW.
pub fn open_frame_sender() -> io::Result<Socket> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: a system call without pointers.
    let fd = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a descriptor that was just made and that nobody else has.
    Ok(Socket::from(unsafe { OwnedFd::from_raw_fd(fd) }))
}

/// Binds a socket of [`open_frame_sender`] to an interface, so that frames need no address.
///
/// # Errors
/// What the kernel reports.
pub fn bind_frames(socket: &Socket, ifindex: u32) -> io::Result<()> {
    bind(socket, ifindex, 0).map(drop)
}

/// Makes a socket send past the queueing discipline, right to the driver; where that is busy, sending fails.
///
/// # Errors
/// What the kernel reports: before Linux 3.14 it has no such thing.
pub fn bypass_queue(socket: &Socket) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the pointer and the length describe a number that lives through the call.
    check(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_QDISC_BYPASS,
            (&raw const on).cast(),
            mem::size_of_val(&on) as libc::socklen_t,
        )
    })
}

/// Sends one frame as it is by an interface.
///
/// # Errors
/// What the kernel reports; InvalidInput for what is shorter than a header.
pub fn send_frame(socket: &Socket, ifindex: u32, frame: &[u8]) -> io::Result<()> {
    let (Some(mac), Some(ethertype)) = (frame.first_chunk::<6>(), frame.get(12..14)) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let ethertype = u16::from_be_bytes([ethertype[0], ethertype[1]]);
    send(socket, ifindex, *mac, ethertype, frame)
}

fn check(result: i32) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
