//! NTS between the engine and the sockets: a header leaves as a packet that is protected, and comes back as one only if
//! the server has made it. Keys are asked for in a thread of their own, so that nothing here ever waits; the request
//! that is due meanwhile leaves when they have come, or have not.

use std::{borrow::Cow, thread};

use ptp_common::ntp::HEADER_LENGTH;

use super::{
    peer::{NtpCarrier, NtsServer},
    *,
};
use crate::{
    engine::ntp::nts::{NtsAssociation, NtsRefused},
    publish::snapshot::NtsStatus,
    sys::random,
    transport::nts::{Agreed, NtsError, Trust, exchange},
};

/// Of which server, and what came out.
pub(super) type Given = (usize, Result<Agreed, NtsError>);

/// How a server is protected.
#[derive(Debug)]
pub(super) struct Protection {
    pub(super) association: NtsAssociation,
    trust: Trust,
    host: String,
    port: u16,
    /// The request that waits for keys.
    held: Option<Transmit>,
    /// Why there were none last time.
    problem: Option<String>,
}

impl Protection {
    pub(super) fn new(host: &str, server: &NtsServer) -> io::Result<Self> {
        Ok(Self {
            association: NtsAssociation::new(random::bytes()?),
            trust: server.trust.clone(),
            host: host.to_owned(),
            port: server.port,
            held: None,
            problem: None,
        })
    }

    fn ask(&self, at: usize, given: mpsc::Sender<Given>) -> io::Result<()> {
        let (trust, host, port) = (self.trust.clone(), self.host.clone(), self.port);
        thread::Builder::new().name("nts-keys".into()).spawn(move || {
            // Nobody waiting is fine: the agent ends.
            let _ = given.send((at, exchange(&trust, &host, port)));
        })?;
        Ok(())
    }
}

impl NtpIo {
    /// How a server is protected; `None` for those that are not.
    pub fn nts(&self, port: PortIndex) -> Option<NtsStatus> {
        let protection = self.peers[self.peer(port)?].protection.as_ref()?;
        let association = &protection.association;
        let counts = association.counts();
        Some(NtsStatus {
            state: association.state().into(),
            cookies: association.cookies() as u64,
            key_exchanges: counts.key_exchanges,
            failures: counts.failures,
            authentic: counts.authentic,
            naks: counts.naks,
            refused: counts.refused,
            problem: protection.problem.clone(),
        })
    }

    /// Whether keys are being asked for, of anybody.
    pub(super) fn is_exchanging(&self) -> bool {
        let mut protections = self.peers.iter().filter_map(|peer| peer.protection.as_ref());
        protections.any(|it| it.association.is_exchanging())
    }

    /// Whether a request waits for keys, which are asked for where that has to be.
    pub(super) fn is_held(&mut self, at: usize, transmit: &Transmit) -> bool {
        let now = monotonic();
        let Some(protection) = &mut self.peers[at].protection else { return false };
        if protection.association.needs_keys(now) {
            protection.association.began(now);
            if let Err(error) = protection.ask(at, self.given.0.clone()) {
                tracing::debug!(%error, "no thread");
                protection.association.failed(now, false);
            }
        }
        if !protection.association.is_exchanging() {
            return false;
        }
        let before = protection.held.replace(*transmit).and_then(|before| before.token);
        self.fail(before);
        true
    }

    /// A request has not left.
    pub(super) fn fail(&mut self, token: Option<SentToken>) {
        let failed = token.map(|token| (Delivery::TxStamp { token, stamp: None }, None));
        self.ready.extend(failed);
    }

    /// Takes keys that have come.
    pub(super) fn take_keys(&mut self, now: Time<Mono>) {
        while let Ok((at, given)) = self.given.1.try_recv() {
            let given = given.map_err(|error| (error.is_refusal(), error.to_string()));
            let given = given.and_then(|agreed| match self.move_peer(at, agreed.server) {
                true => Ok(agreed),
                false => Err((true, format!("it names {}, which is asked already", agreed.server))),
            });
            let peer = &mut self.peers[at];
            let Some(protection) = &mut peer.protection else { continue };
            match given {
                Ok(Agreed { keys, cookies, server }) => {
                    tracing::info!(server = peer.name, address = %server, cookies = cookies.len(), "NTS: keys");
                    protection.association.agreed(keys, cookies);
                    protection.problem = None;
                }
                Err((is_reached, problem)) => {
                    protection.association.failed(now, is_reached);
                    if protection.problem.as_ref() != Some(&problem) {
                        tracing::warn!(server = peer.name, problem, "NTS: no keys");
                        protection.problem = Some(problem);
                    }
                }
            }
            if let Some(held) = protection.held.take() {
                self.dispatch(&held);
            }
        }
    }

    /// What leaves for a header; `None` where it may not leave.
    pub(super) fn wrapped<'a>(&mut self, at: usize, header: &'a [u8]) -> Option<Cow<'a, [u8]>> {
        let peer = &mut self.peers[at];
        let exact = header.first_chunk::<HEADER_LENGTH>()?;
        match (&mut peer.protection, peer.carrier) {
            (Some(protection), _) => protection.association.protect(exact).map(Cow::from),
            (None, NtpCarrier::Ptp) => Some(over_ptp::wrap(exact).to_vec().into()),
            (None, NtpCarrier::Udp) => Some(header.into()),
        }
    }

    /// The header in what has come; `None` where nobody is to see it.
    pub(super) fn unwrapped(&mut self, port: PortIndex, bytes: Vec<u8>) -> Option<Vec<u8>> {
        let Some(at) = self.peer(port) else { return Some(bytes) };
        let peer = &mut self.peers[at];
        match (&mut peer.protection, peer.carrier) {
            (Some(protection), _) => match protection.association.open(&bytes) {
                Ok(header) => Some(header.to_vec()),
                Err(NtsRefused::Nak) => {
                    tracing::info!(server = peer.name, "NTS: the server does not know the cookies");
                    None
                }
                Err(why) => {
                    tracing::debug!(server = peer.name, ?why, "NTS: answer not used");
                    None
                }
            },
            (None, NtpCarrier::Ptp) => over_ptp::unwrap(&bytes).map(<[u8]>::to_vec),
            (None, NtpCarrier::Udp) => Some(bytes),
        }
    }
}
