//! Is the interface there, and is it up? The kernel's link notifications wake the agent; what it then
//! believes is what it reads afresh, so a lost notification costs a delay at the worst.

use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, Ipv6Addr},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use nix::{errno::Errno, ifaddrs::getifaddrs, net::if_::InterfaceFlags, sys::socket::SockaddrLike};
use rtnetlink::{MulticastGroup, new_multicast_connection};
use socket2::Socket;
use tokio::{task::JoinHandle, time::interval};

use crate::sys::ifreq;

/// State of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// There is none of this name.
    Missing,
    /// It is administratively down, or has no carrier.
    Down,
    /// It can send and receive. Carries the interface index: an interface that was deleted and made
    /// again has another.
    Up(u32),
}

/// Reads the state of an interface. To read it takes a descriptor; while this process may open no more, what was read
/// last holds, for a link does not go down by that.
pub fn link_state(interface: &str) -> LinkState {
    static LAST: Mutex<BTreeMap<String, LinkState>> = Mutex::new(BTreeMap::new());
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    let needed = InterfaceFlags::IFF_UP | InterfaceFlags::IFF_RUNNING;
    let is_up = || {
        let mut addresses = getifaddrs()?;
        Ok(addresses
            .any(|address| address.interface_name == interface && address.flags.contains(needed)))
    };
    let state = state_of(nix::net::if_::if_nametoindex(interface), is_up);
    let state = state.or_else(|| last.get(interface).copied()).unwrap_or(LinkState::Missing);
    last.insert(interface.to_owned(), state);
    state
}

/// The state of an interface, asked by a socket that is open in its network namespace.
pub(super) fn state_by(socket: &Socket, interface: &str) -> LinkState {
    let needed = libc::IFF_UP | libc::IFF_RUNNING;
    match ifreq::index_and_flags(socket, interface) {
        Ok((ifindex, flags)) if flags & needed == needed => LinkState::Up(ifindex),
        Ok(_) => LinkState::Down,
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => LinkState::Missing,
        Err(_) => link_state(interface),
    }
}

/// What the kernel's answers mean; `None` where it was too short of something to answer.
fn state_of(
    index: nix::Result<u32>,
    is_up: impl FnOnce() -> nix::Result<bool>,
) -> Option<LinkState> {
    let is_short = |error: Errno| {
        matches!(error, Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM)
    };
    match index.map(|ifindex| (ifindex, is_up())) {
        Ok((ifindex, Ok(true))) => Some(LinkState::Up(ifindex)),
        Ok((_, Err(error))) | Err(error) if is_short(error) => None,
        Ok((_, Ok(false) | Err(_))) => Some(LinkState::Down),
        Err(_) => Some(LinkState::Missing),
    }
}

/// The MAC address of an interface; `None` where it is missing or has none.
pub fn interface_mac(interface: &str) -> Option<[u8; 6]> {
    getifaddrs().ok()?.filter(|entry| entry.interface_name == interface).find_map(|entry| {
        let address = entry.address?;
        if address.family() != Some(nix::sys::socket::AddressFamily::Packet) {
            return None;
        }
        address.as_link_addr()?.addr()
    })
}

/// An IPv4 and an IPv6 address of an interface, of the latter a link-local one if there is one.
pub fn interface_addresses(interface: &str) -> (Option<Ipv4Addr>, Option<Ipv6Addr>) {
    let (mut v4, mut v6): (_, Option<Ipv6Addr>) = (None, None);
    let Ok(entries) = getifaddrs() else {
        return (v4, v6);
    };
    for entry in entries.filter(|entry| entry.interface_name == interface) {
        let Some(address) = entry.address else { continue };
        if let Some(found) = address.as_sockaddr_in() {
            v4 = v4.or(Some(found.ip()));
        } else if let Some(found) = address.as_sockaddr_in6() {
            let found = found.ip();
            if v6.is_none_or(|other| !other.is_unicast_link_local()) {
                v6 = Some(found);
            }
        }
    }
    (v4, v6)
}

/// Wakes up whenever the state of some interface may have changed, and every few seconds anyway.
#[derive(Debug)]
pub struct LinkWatch {
    connection: JoinHandle<()>,
    messages: tokio::sync::mpsc::Receiver<()>,
}

impl LinkWatch {
    const ANYWAY: Duration = Duration::from_secs(5);

    /// Subscribes in the current network namespace. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// What the kernel reports when the netlink socket is opened.
    pub fn new() -> io::Result<Self> {
        let (connection, _handle, mut notifications) =
            new_multicast_connection(&[MulticastGroup::Link])?;
        // One waiting wake-up is as good as many.
        let (sender, messages) = tokio::sync::mpsc::channel(1);
        let connection = tokio::spawn(async move {
            let _connection = tokio::spawn(connection);
            let mut anyway = interval(Self::ANYWAY);
            loop {
                tokio::select! {
                    message = futures_util::StreamExt::next(&mut notifications) => {
                        if message.is_none() {
                            // The kernel closed the socket: the timer still works.
                            anyway.tick().await;
                        }
                    }
                    _ = anyway.tick() => {}
                }
                if let Err(tokio::sync::mpsc::error::TrySendError::Closed(())) = sender.try_send(())
                {
                    return;
                }
            }
        });
        Ok(Self { connection, messages })
    }

    /// Waits for the next reason to look.
    pub async fn changed(&mut self) {
        if self.messages.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for LinkWatch {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_is_not_down_because_no_descriptor_is_left_to_look_at_it() {
        for short in [Errno::EMFILE, Errno::ENFILE, Errno::ENOBUFS, Errno::ENOMEM] {
            assert_eq!(state_of(Err(short), || Ok(true)), None);
            assert_eq!(state_of(Ok(3), || Err(short)), None);
        }
        assert_eq!(state_of(Err(Errno::ENODEV), || Ok(true)), Some(LinkState::Missing));
        assert_eq!(state_of(Ok(3), || Ok(false)), Some(LinkState::Down));
        assert_eq!(state_of(Ok(3), || Ok(true)), Some(LinkState::Up(3)));
        assert!(matches!(link_state("lo"), LinkState::Up(1..) | LinkState::Down));
        assert_eq!(link_state("not-there0"), LinkState::Missing);
    }

    #[test]
    fn link_is_read_alike_by_an_open_socket() {
        let socket = Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None).unwrap();
        for interface in ["lo", "not-there0", "a-name-that-is-too-long-for-any"] {
            assert_eq!(state_by(&socket, interface), link_state(interface), "{interface}");
        }
    }
}
