//! Messages to many addresses, as many of them by one system call as the kernel takes.

use std::io;

use socket2::SockAddr;

use super::*;
use crate::sys::many;

/// Behind each message over IPv6, so that a transparent clock can keep the checksum right (D.2).
const PADDING: [u8; 2] = [0; 2];

impl Transport {
    /// Sends each message to one address, without waiting; `failed` is told of those that could not be sent, by their
    /// place, and why. One that cannot be sent is in nobody's way.
    pub fn send_many(
        &self,
        channel: Channel,
        messages: &[(Address, &[u8])],
        mut failed: impl FnMut(usize, io::Error),
    ) {
        let (socket, port) = self.way(channel);
        let behind = if self.kind == TransportKind::Udp6 { &PADDING[..] } else { &[] };
        let mut at = 0;
        while at < messages.len() {
            let next: io::Result<Vec<(SockAddr, &[u8])>> = messages[at..]
                .iter()
                .take(many::AT_ONCE)
                .map(|(to, message)| Ok((self.address_of(*to, port)?, *message)))
                .collect();
            match next.and_then(|next| many::send(socket, &next, behind)) {
                Ok(sent) if sent > 0 => at += sent,
                sent => {
                    failed(at, sent.err().unwrap_or_else(|| io::ErrorKind::WriteZero.into()));
                    at += 1;
                }
            }
        }
    }

    fn address_of(&self, to: Address, port: u16) -> io::Result<SockAddr> {
        match to {
            Address::Mac(mac) => packet::address_of(self.ifindex, mac),
            Address::Socket(SocketAddr::V4(v4)) => Ok(SocketAddrV4::new(*v4.ip(), port).into()),
            Address::Socket(SocketAddr::V6(v6)) => {
                Ok(SocketAddrV6::new(*v6.ip(), port, 0, self.ifindex).into())
            }
        }
    }
}
