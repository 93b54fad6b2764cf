//! Servers whose names lead elsewhere: looked up again when they go away.

use std::{
    net::{IpAddr, ToSocketAddrs},
    thread,
};

use super::NtpIo;

impl NtpIo {
    /// Looks a name up again, in a thread of its own.
    pub(super) fn find_again(&self, at: usize) {
        let Some(peer) = self.peers.get(at) else { return };
        if peer.host.parse::<IpAddr>().is_ok() {
            return;
        }
        let (host, now, found) = (peer.host.clone(), peer.address, self.found.0.clone());
        let spawned = thread::Builder::new().name("ntp-name".into()).spawn(move || {
            match (host.as_str(), now.port()).to_socket_addrs() {
                Ok(all) => {
                    // Of several another one than that which does not answer.
                    let all: Vec<_> = all.collect();
                    let other = all.iter().find(|it| **it != now).or(all.first());
                    // Nobody waiting is fine: the agent ends.
                    if let Some(other) = other {
                        let _ = found.send((at, *other));
                    }
                }
                Err(error) => tracing::warn!(server = host, %error, "cannot find the server"),
            }
        });
        if let Err(error) = spawned {
            tracing::debug!(%error, "no thread");
        }
    }

    /// Asks servers elsewhere whose names lead elsewhere now; the engine goes on to know them by their first
    /// addresses.
    pub(super) fn move_peers(&mut self) {
        while let Ok((at, address)) = self.found.1.try_recv() {
            let taken = self.peers.iter().any(|peer| peer.address == address);
            let Some(peer) = self.peers.get_mut(at).filter(|_| !taken) else { continue };
            tracing::info!(server = peer.name, from = %peer.address, to = %address, "NTP server");
            (peer.address, peer.socket) = (address, None);
        }
    }
}
