//! What requests about an interface are sent in: `struct ifreq` with the interface's name and a pointer
//! to a structure of the request's own, and a socket that takes them.

use std::{io, mem, os::fd::AsRawFd as _};

use socket2::{Domain, Socket, Type};

/// The envelope around `request`, which must live until it has been sent.
///
/// # Errors
/// The name can be no interface's.
pub(super) fn addressed<T>(interface: &str, request: &mut T) -> io::Result<libc::ifreq> {
    // SAFETY: a plain structure of integers and pointers for which zero is a valid value.
    let mut envelope: libc::ifreq = unsafe { mem::zeroed() };
    let name = interface.as_bytes();
    // The last byte stays zero.
    if name.len() >= envelope.ifr_name.len() || name.contains(&0) {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    for (to, from) in envelope.ifr_name.iter_mut().zip(name) {
        *to = *from as libc::c_char;
    }
    envelope.ifr_ifru.ifru_data = (&raw mut *request).cast();
    Ok(envelope)
}

/// Whether packets of an interface begin with an Ethernet header, as the programs see them. Those of the
/// loopback interface do.
///
/// # Errors
/// What the kernel reports.
pub fn has_ethernet_header(interface: &str) -> io::Result<bool> {
    let socket = socket()?;
    let mut envelope = addressed(interface, &mut ())?;
    // SAFETY: a valid descriptor, and a structure that lives through the call and that the kernel fills.
    if unsafe {
        libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFHWADDR as libc::Ioctl, &raw mut envelope)
    } < 0
    {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: any bits are a valid address; the request fills this member.
    let kind = unsafe { envelope.ifr_ifru.ifru_hwaddr.sa_family };
    Ok(matches!(kind, libc::ARPHRD_ETHER | libc::ARPHRD_LOOPBACK))
}

/// Index of an interface, and `IFF_` flags.
///
/// # Errors
/// What the kernel reports; ENODEV where there is no such interface in the socket's network namespace.
pub(crate) fn index_and_flags(socket: &Socket, interface: &str) -> io::Result<(u32, i32)> {
    let ask = |request: libc::Ioctl| {
        let mut envelope = addressed(interface, &mut ())?;
        // SAFETY: a valid descriptor, and a structure that lives through the call and that the kernel fills.
        if unsafe { libc::ioctl(socket.as_raw_fd(), request, &raw mut envelope) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(envelope)
    };
    // SAFETY: any bits are a valid number; the request fills this member.
    let index = unsafe { ask(libc::SIOCGIFINDEX as libc::Ioctl)?.ifr_ifru.ifru_ifindex };
    // SAFETY: as above.
    let flags = unsafe { ask(libc::SIOCGIFFLAGS as libc::Ioctl)?.ifr_ifru.ifru_flags };
    Ok((index.unsigned_abs(), i32::from(flags)))
}

/// Belongs to the network namespace in which it is made, and so do the names that it is asked about.
///
/// # Errors
/// What the kernel reports where it has neither version of IP.
pub(super) fn socket() -> io::Result<Socket> {
    Socket::new(Domain::IPV4, Type::DGRAM, None)
        .or_else(|_| Socket::new(Domain::IPV6, Type::DGRAM, None))
}
