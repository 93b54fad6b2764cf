//! Messages to many addresses, as many of them by one system call as the kernel takes.

use std::{io, sync::Arc};

use socket2::SockAddr;

use super::*;
use crate::sys::many;

/// Behind each message over IPv6, so that a transparent clock can keep the checksum right (D.2).
const PADDING: [u8; 2] = [0; 2];

/// A socket, and how addresses are written for it. `S` is a [`Socket`] or a reference to one.
#[derive(Debug)]
pub(super) struct Way<S> {
    socket: S,
    port: u16,
    kind: TransportKind,
    ifindex: u32,
}

impl Transport {
    /// Sends each message to one address, without waiting; `failed` is told of those that could not be sent, by their
    /// place, and why. One that cannot be sent is in nobody's way.
    pub fn send_many(
        &self,
        channel: Channel,
        messages: &[(Address, &[u8])],
        failed: impl FnMut(usize, io::Error),
    ) {
        let (socket, port) = self.way(channel);
        Way { socket, port, kind: self.kind, ifindex: self.ifindex }.send_many(messages, failed);
    }

    /// The way of a channel's messages, for other threads.
    ///
    /// # Errors
    /// If there are no descriptors left when it is first asked for.
    pub(super) fn shared_way(&self, channel: Channel) -> io::Result<Arc<Way<Socket>>> {
        let known = &self.shared[channel as usize];
        if let Some(way) = known.get() {
            return Ok(Arc::clone(way));
        }
        let (socket, port) = self.way(channel);
        let socket = socket.try_clone()?;
        let way = Arc::new(Way { socket, port, kind: self.kind, ifindex: self.ifindex });
        Ok(Arc::clone(known.get_or_init(|| way)))
    }
}

#[cfg(test)]
impl Way<Socket> {
    /// From a socket of IPv4 to this port of any address.
    pub(super) fn over_udp4(socket: Socket, port: u16) -> Self {
        Self { socket, port, kind: TransportKind::Udp4, ifindex: 0 }
    }
}

impl<S: std::borrow::Borrow<Socket>> Way<S> {
    /// See [`Transport::send_many`].
    pub(super) fn send_many(
        &self,
        messages: &[(Address, &[u8])],
        mut failed: impl FnMut(usize, io::Error),
    ) {
        let behind = if self.kind == TransportKind::Udp6 { &PADDING[..] } else { &[] };
        let mut at = 0;
        while at < messages.len() {
            let next: io::Result<Vec<(SockAddr, &[u8])>> = messages[at..]
                .iter()
                .take(many::AT_ONCE)
                .map(|(to, message)| Ok((self.address_of(*to)?, *message)))
                .collect();
            match next.and_then(|next| many::send(self.socket.borrow(), &next, behind)) {
                Ok(sent) if sent > 0 => at += sent,
                sent => {
                    failed(at, sent.err().unwrap_or_else(|| io::ErrorKind::WriteZero.into()));
                    at += 1;
                }
            }
        }
    }

    fn address_of(&self, to: Address) -> io::Result<SockAddr> {
        match to {
            Address::Mac(mac) => packet::address_of(self.ifindex, mac),
            Address::Socket(SocketAddr::V4(v4)) => {
                Ok(SocketAddrV4::new(*v4.ip(), self.port).into())
            }
            Address::Socket(SocketAddr::V6(v6)) => {
                Ok(SocketAddrV6::new(*v6.ip(), self.port, 0, self.ifindex).into())
            }
        }
    }
}
