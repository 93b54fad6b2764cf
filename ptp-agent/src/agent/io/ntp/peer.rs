//! A server that is asked: what carries its packets, where it is by now, and where to find it when it has gone.

use std::{net::ToSocketAddrs, thread};

use ptp_common::classify::PORT_EVENT;

use super::{protection::Protection, *};
use crate::transport::nts::Trust;

/// What carries the packets of a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NtpCarrier {
    /// UDP port 123.
    #[default]
    Udp,
    /// Event messages of PTP (draft-ietf-ntp-over-ptp), UDP port 319 both ways.
    Ptp,
}

impl NtpCarrier {
    /// By which programs they are stamped.
    pub(super) const fn protocol(self) -> Protocol {
        match self {
            Self::Udp => Protocol::Ntp,
            Self::Ptp => Protocol::Ptp,
        }
    }
}

/// Who gives the keys by which a server is protected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NtsServer {
    /// TCP port of the key exchange.
    pub port: u16,
    /// Whose certificates are believed.
    pub trust: Trust,
}

/// A server that is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NtpPeer {
    /// As it was named.
    pub name: String,
    /// The same without what says how and its port, to be looked up again when it goes away.
    pub host: String,
    /// Where it is.
    pub address: SocketAddr,
    /// What carries its packets.
    pub carrier: NtpCarrier,
    /// It is asked with NTS.
    pub nts: Option<NtsServer>,
}

/// Which server, and where it is by now.
pub(super) type Found = (usize, SocketAddr);

#[derive(Debug)]
pub(super) struct Peer {
    pub(super) name: String,
    host: String,
    /// As the engine knows it.
    pub(super) known: SocketAddr,
    /// Where it is by now.
    pub(super) address: SocketAddr,
    pub(super) carrier: NtpCarrier,
    pub(super) protection: Option<Protection>,
    pub(super) socket: Option<AsyncFd<Socket>>,
    /// When the request was sent that no packet has come to yet.
    pub(super) asked: Option<Time<Mono>>,
    /// Which interface its packets pass, if it is one with programs.
    pub(super) place: Option<usize>,
    last_problem: Option<String>,
}

impl Peer {
    pub(super) fn new(peer: &NtpPeer, places: &[Place]) -> io::Result<Self> {
        let protection =
            peer.nts.as_ref().map(|nts| Protection::new(&peer.host, nts)).transpose()?;
        let mut this = Self {
            name: peer.name.clone(),
            host: peer.host.clone(),
            known: peer.address,
            address: peer.address,
            carrier: peer.carrier,
            protection,
            socket: None,
            asked: None,
            place: None,
            last_problem: None,
        };
        // Where packets will pass, for whoever wants to know it before the first one.
        let local = socket::connect(peer.address).ok().map(|(_, local)| local);
        this.place = local.and_then(|local| this.place_in(places, local));
        Ok(this)
    }

    /// A socket for one request, and its own address.
    pub(super) fn connect(&self) -> io::Result<(AsyncFd<Socket>, IpAddr)> {
        match self.carrier {
            NtpCarrier::Udp => socket::connect(self.address),
            NtpCarrier::Ptp => socket::connect_from(PORT_EVENT, self.address),
        }
    }

    /// Among places the one that packets from an own address pass.
    pub(super) fn place_in(&self, places: &[Place], local: IpAddr) -> Option<usize> {
        let ifindex = socket::interface_of(local)?;
        let protocol = self.carrier.protocol();
        places.iter().position(|it| it.ifindex == ifindex && it.protocol == protocol)
    }
}

impl NtpIo {
    /// Where a server is by now.
    pub fn address(&self, port: PortIndex) -> Option<SocketAddr> {
        self.peer(port).map(|at| self.peers[at].address)
    }

    /// Looks a name up again, in a thread of its own. Who is asked with NTS is looked up when keys are asked for.
    pub(super) fn find_again(&mut self, at: usize) {
        let Some(peer) = self.peers.get_mut(at) else { return };
        if let Some(protection) = &mut peer.protection {
            protection.association.doubt();
            return;
        }
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
            self.move_peer(at, address);
        }
    }

    /// Whether it is asked there from now on: not where another one is asked already.
    pub(super) fn move_peer(&mut self, at: usize, address: SocketAddr) -> bool {
        let mut others = self.peers.iter().enumerate().filter(|(other, _)| *other != at);
        if others.any(|(_, peer)| peer.address == address) {
            return false;
        }
        let Some(peer) = self.peers.get_mut(at) else { return false };
        if peer.address != address {
            tracing::info!(server = peer.name, from = %peer.address, to = %address, "NTP server");
            (peer.address, peer.socket) = (address, None);
        }
        true
    }

    /// Says a problem once, until it is another or has gone away.
    pub(super) fn report(&mut self, at: Option<usize>, error: &io::Error) {
        self.counts.send_errors += 1;
        let Some(peer) = at.map(|at| &mut self.peers[at]) else {
            tracing::debug!(%error, "an answer of NTP");
            return;
        };
        let problem = error.to_string();
        if peer.last_problem.as_ref() != Some(&problem) {
            tracing::warn!(server = peer.name, address = %peer.address, error = problem, "cannot ask");
            peer.last_problem = Some(problem);
        }
    }
}
