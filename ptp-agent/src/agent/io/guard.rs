//! Where messages of a port are authenticated: the last thing before they are sent, and the last before an
//! engine is given them. What is refused has been paired with its stamp by then, so that it counts as
//! what it is and nothing is taken for lost.

use ptp_common::{
    time::{Mono, Time},
    wire::{AuthenticationView, MessageKey, MessageView, PortIdentity},
};
use std::collections::BTreeMap;

use super::{
    Delivery, Io,
    crowd::without_port,
    pin::Pin,
    sender::{Sender, is_of_transmitter},
};
use crate::{
    engine::{PortIndex, address::Address},
    publish::snapshot::Authentication,
    security::{Associations, Policy, Trust},
    stamp::Stamp,
};

/// Judges what comes in, signs what goes out; does neither without keys.
#[derive(Debug, Default)]
pub(super) struct Guard {
    associations: Option<Associations>,
    /// Who has last sent what was refused, on which port, and why.
    refused: Option<(PortIndex, Option<Address>, &'static str)>,
    /// Where the time transmitter is.
    pin: Option<Pin>,
    /// From whom messages of time transmitters are taken; nobody in it: from everybody.
    senders: Vec<Sender>,
}

impl Guard {
    pub(super) fn new(policy: Option<Policy>, is_pinned: bool, senders: Vec<Sender>) -> Self {
        let associations = policy.map(Associations::new);
        Self { associations, refused: None, pin: is_pinned.then(Pin::default), senders }
    }
}

impl Io {
    /// Uses other keys from now on, or none.
    pub fn set_security(&mut self, policy: Option<Policy>) {
        if self.config.security == policy {
            return;
        }
        self.config.security.clone_from(&policy);
        match (&mut self.guard.associations, policy) {
            (Some(associations), Some(policy)) => associations.set_policy(policy),
            (associations, policy) => *associations = policy.map(Associations::new),
        }
    }

    /// The message as it goes out, signed where there are keys; `None` where it cannot be.
    pub(super) fn seal<'b>(
        &mut self,
        port: PortIndex,
        message: &'b [u8],
        buffer: &'b mut [u8],
    ) -> Option<&'b [u8]> {
        let Some(associations) = &self.guard.associations else { return Some(message) };
        let sealed = associations.seal(message, buffer).ok();
        if sealed.is_none()
            && let Some(port) = self.ports.get_mut(usize::from(port.0))
        {
            port.counts.send_errors += 1;
        }
        sealed
    }

    /// Hands a message on, unless it should be authenticated and is not.
    pub(super) fn deliver(
        &mut self,
        now: Time<Mono>,
        index: PortIndex,
        bytes: Vec<u8>,
        stamp: Option<Stamp>,
        source: Option<Address>,
    ) {
        let mut key_id = None;
        if let Some(associations) = &mut self.guard.associations {
            let verdict = associations.open(now, u32::from(index.0), &bytes);
            if let Some(port) = self.ports.get_mut(usize::from(index.0)) {
                port.counts.authentication.count(verdict);
            }
            if let Err(cause) = verdict {
                self.guard.refused = Some((index, source, cause.name()));
                return;
            }
            if verdict == Ok(Trust::Verified) {
                let view = MessageView::new(&bytes).ok();
                let tlv =
                    view.as_ref().and_then(|view| AuthenticationView::of(view).ok().flatten());
                key_id = tlv.map(|tlv| tlv.key_id());
            }
        }
        if !self.guard.senders.is_empty()
            && MessageKey::from_prefix(&bytes).is_ok_and(|key| is_of_transmitter(key.message_type))
            && !self.guard.senders.iter().any(|each| each.is(source, key_id))
        {
            if let Some(port) = self.ports.get_mut(usize::from(index.0)) {
                port.counts.other_sender += 1;
            }
            self.guard.refused = Some((index, source, "other_sender"));
            return;
        }
        if let (Some(pin), Some(from), Ok(key)) =
            (&mut self.guard.pin, source, MessageKey::from_prefix(&bytes))
            && !pin.is_at_home(now, index, &key, without_port(from))
        {
            if let Some(port) = self.ports.get_mut(usize::from(index.0)) {
                port.counts.other_address += 1;
            }
            self.guard.refused = Some((index, source, "other_address"));
            return;
        }
        self.ready.push_back(Delivery::Message { port: index, bytes, stamp, source });
    }

    /// Who is followed, and on which port: from now on his address is held fast.
    pub fn follow(&mut self, parent: Option<(PortIndex, PortIdentity)>) {
        if let Some(pin) = &mut self.guard.pin {
            pin.follow(parent);
        }
    }

    /// Who has last sent a message that was refused, and why, in words.
    pub fn last_refused(&self) -> Option<String> {
        let (port, source, cause) = self.guard.refused?;
        let from = source.map_or_else(|| "unknown".to_owned(), host);
        Some(format!("{cause} from {from} on {}", self.interface(port)))
    }

    /// What authentication does on a port; `None` without keys.
    pub fn authentication(&self, port: PortIndex) -> Option<Authentication> {
        let policy = self.guard.associations.as_ref()?.policy();
        let (spp, key_id) = policy.keys.active();
        let totals = self.counts(port).authentication;
        let refused: BTreeMap<String, u64> = totals
            .refusals()
            .filter(|(_, total)| *total > 0)
            .map(|(cause, total)| (cause.to_owned(), total))
            .collect();
        Some(Authentication {
            required: Some(policy.is_required),
            spp: Some(spp),
            key: Some(key_id),
            keys: Some(policy.keys.len()),
            verified: totals.verified,
            unverified: totals.unverified,
            refused: Some(refused),
        })
    }
}

/// The host of an address in words.
fn host(address: Address) -> String {
    match address {
        Address::Socket(from) => from.ip().to_string(),
        Address::Mac([a, b, c, d, e, f]) => {
            format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
        }
    }
}
