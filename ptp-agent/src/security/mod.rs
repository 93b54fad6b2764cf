//! Authentication of messages (IEEE 1588-2019 16.14, immediate processing): bytes in, a verdict out on
//! the way up; bytes in, signed bytes out on the way down. Nothing here touches a socket, a clock or a
//! file, but for [`mod@file`], which reads keys.
//!
//! A port either *requires* authentication, and then nothing reaches its engine that no key vouches for,
//! or it only signs and checks: what is unsigned passes, what is signed wrongly does not. The second is
//! for the time in which keys are brought to all hosts of a domain.

pub mod file;
mod key;
mod replay;

use std::sync::Arc;

use ptp_common::{
    time::{Mono, Time},
    wire::{Authentication, AuthenticationView, MessageView, SecurityParameters, WireError},
};

pub use key::Algorithm;
use key::Key;
use replay::Windows;

/// Where `correctionField` stands in a header.
const CORRECTION: core::ops::Range<usize> = 8..16;
/// Associations and keys in one file at the most.
const MAX_ASSOCIATIONS: usize = 256;
const MAX_KEYS: usize = 256;
/// Room for the longest message with its TLV, bytes.
pub const MAX_SEALED: usize = 2048;

/// A security association: keys that are equally good, and how messages are judged by them.
#[derive(Clone, Debug)]
struct Association {
    spp: u8,
    keys: Vec<(u32, Key)>,
    /// How far sequence numbers may jump ahead; 0 for no check of replays.
    ahead: u16,
    /// `correctionField` is not protected: something in the path changes it.
    is_correction_mutable: bool,
}

impl Association {
    fn key(&self, id: u32) -> Option<&Key> {
        self.keys.iter().find(|(each, _)| *each == id).map(|(_, key)| key)
    }
}

/// The keys of a file, and the one that signs.
#[derive(Clone, Debug)]
pub struct KeyRing {
    associations: Vec<Association>,
    spp: u8,
    key_id: u32,
}

impl KeyRing {
    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.associations.iter().map(|association| association.keys.len()).sum()
    }

    /// Whether there is none, which no file yields.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// `SPP` and `keyID` of the key that signs.
    pub const fn active(&self) -> (u8, u32) {
        (self.spp, self.key_id)
    }

    fn association(&self, spp: u8) -> Option<&Association> {
        self.associations.iter().find(|association| association.spp == spp)
    }
}

/// What a port is told.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The keys.
    pub keys: Arc<KeyRing>,
    /// Whether what is not authenticated is dropped.
    pub is_required: bool,
    /// Messages of other domains are nobody's, and are not judged; where there are none in it, all are judged.
    pub domains: Vec<u8>,
}

impl PartialEq for Policy {
    /// Whether nothing has to be done to go from one to the other: keys that were read again are others.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.keys, &other.keys)
            && self.is_required == other.is_required
            && self.domains == other.domains
    }
}

impl Eq for Policy {}

/// What is known of the sender of a message that may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Somebody with a key of the association.
    Verified,
    /// Nobody knows.
    Unverified,
}

/// Why a message may not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// No AUTHENTICATION TLV, and one is required.
    Missing,
    /// No such association or key here.
    UnknownKey,
    /// The check value is wrong: somebody without the key, or a message that was changed in the path.
    Failed,
    /// A TLV that is not last, has optional fields or another length than the key's algorithm makes.
    Parameters,
    /// Authentic, but not new.
    Replayed,
}

impl Refusal {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Missing, Self::UnknownKey, Self::Failed, Self::Parameters, Self::Replayed];

    /// The name in counts.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Missing => "auth_missing",
            Self::UnknownKey => "auth_unknown_key",
            Self::Failed => "auth_failed",
            Self::Parameters => "auth_parameters",
            Self::Replayed => "auth_replayed",
        }
    }
}

/// Totals of one port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Totals {
    /// Messages that a key vouched for.
    pub verified: u64,
    /// Messages that passed all the same.
    pub unverified: u64,
    /// Messages dropped, as [`Refusal::ALL`].
    #[serde(skip)]
    refused: [u64; Refusal::ALL.len()],
}

impl Totals {
    /// Messages dropped for a cause.
    pub const fn refused(&self, cause: Refusal) -> u64 {
        self.refused[cause as usize]
    }

    /// Every cause with its total, under its name in counts.
    pub fn refusals(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
        let refused = self.refused;
        Refusal::ALL.into_iter().map(move |cause| (cause.name(), refused[cause as usize]))
    }

    /// Counts a verdict.
    pub const fn count(&mut self, verdict: Result<Trust, Refusal>) {
        match verdict {
            Ok(Trust::Verified) => self.verified += 1,
            Ok(Trust::Unverified) => self.unverified += 1,
            Err(cause) => self.refused[cause as usize] += 1,
        }
    }
}

/// Keys in use: what opens and seals messages.
#[derive(Debug)]
pub struct Associations {
    policy: Policy,
    windows: Windows,
}

impl Associations {
    /// Judges by `policy`.
    pub fn new(policy: Policy) -> Self {
        Self { policy, windows: Windows::default() }
    }

    /// Judges by `policy` from now on. Which numbers were taken is remembered, so that nothing is lost and
    /// nothing can be replayed when keys change.
    pub fn set_policy(&mut self, policy: Policy) {
        self.policy = policy;
    }

    /// The policy in effect.
    pub const fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Judges a message that came in on `port`. Bytes that are no message of this domain are not judged:
    /// whoever takes them next drops them by their own cause.
    ///
    /// # Errors
    /// Why it may not pass; it must then be dropped unread.
    pub fn open(&mut self, now: Time<Mono>, port: u32, bytes: &[u8]) -> Result<Trust, Refusal> {
        let Ok(view) = MessageView::new(bytes) else { return Ok(Trust::Unverified) };
        let header = view.header();
        let Policy { keys, is_required, domains } = &self.policy;
        if !domains.is_empty() && !domains.contains(&header.domain_number) {
            return Ok(Trust::Unverified);
        }
        let (association, verdict) = verdict(keys, *is_required, &view)?;
        let Some(association) = association else { return Ok(verdict) };
        let (key, log) = (view.key(), header.log_message_interval);
        if !self.windows.admit(now, port, &key, log, association.ahead) {
            return Err(Refusal::Replayed);
        }
        Ok(verdict)
    }

    /// As [`Self::open`], where a message may come again: on a local socket, whose clients begin to count
    /// anew each time.
    ///
    /// # Errors
    /// As there.
    pub fn open_local(&self, bytes: &[u8]) -> Result<Trust, Refusal> {
        let Ok(view) = MessageView::new(bytes) else { return Ok(Trust::Unverified) };
        verdict(&self.policy.keys, self.policy.is_required, &view).map(|(_, trust)| trust)
    }

    /// Puts an AUTHENTICATION TLV behind `message` and returns the signed message in `buffer`.
    ///
    /// # Errors
    /// [`WireError`] where it does not fit.
    pub fn seal<'b>(&self, message: &[u8], buffer: &'b mut [u8]) -> Result<&'b [u8], WireError> {
        let keys = &self.policy.keys;
        // Behind a TLV that says to be longer than there is, this one would be a part of it.
        AuthenticationView::of(&MessageView::new(message)?).map_err(|_| WireError::Tlv(0))?;
        // A key ring has the key that signs.
        let Some((association, key)) =
            keys.association(keys.spp).and_then(|it| Some((it, it.key(keys.key_id)?)))
        else {
            return Err(WireError::Tlv(0));
        };
        let icv_length = key.algorithm().icv_length();
        let tlv = Authentication { spp: keys.spp, key_id: keys.key_id, icv_length };
        let (protected, icv) = tlv.append(message, buffer)?;
        key.sign(&parts(protected, association.is_correction_mutable), icv);
        let length = protected.len() + icv.len();
        Ok(&buffer[..length])
    }
}

/// What a key says of a message, and the association that vouches for it.
fn verdict<'k>(
    keys: &'k KeyRing,
    is_required: bool,
    view: &MessageView<'_>,
) -> Result<(Option<&'k Association>, Trust), Refusal> {
    let tlv = AuthenticationView::of(view).map_err(|_| Refusal::Parameters)?;
    let unverified = |cause| if is_required { Err(cause) } else { Ok((None, Trust::Unverified)) };
    let Some(tlv) = tlv else { return unverified(Refusal::Missing) };
    let association = keys.association(tlv.spp()).filter(|_| !is_required || tlv.spp() == keys.spp);
    let Some((association, key)) = association.and_then(|it| Some((it, it.key(tlv.key_id())?)))
    else {
        return unverified(Refusal::UnknownKey);
    };
    if tlv.parameters() != SecurityParameters::default() {
        return Err(Refusal::Parameters);
    }
    let icv_length = usize::from(key.algorithm().icv_length());
    let (protected, icv) = tlv.split(icv_length).ok_or(Refusal::Parameters)?;
    if !key.verify(&parts(protected, association.is_correction_mutable), icv) {
        return Err(Refusal::Failed);
    }
    Ok((Some(association), Trust::Verified))
}

/// What a check value is made of.
fn parts(protected: &[u8], is_correction_mutable: bool) -> [&[u8]; 3] {
    if is_correction_mutable {
        [&protected[..CORRECTION.start], &[0; 8], &protected[CORRECTION.end..]]
    } else {
        [protected, &[], &[]]
    }
}

#[cfg(test)]
mod tests;
