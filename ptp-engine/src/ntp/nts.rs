//! Network Time Security for the client (RFC 8915), sans I/O: what is said in a key exchange, and the association that its
//! keys and cookies make: requests leave with a cookie that is used once, with room for as many as are missing, and an
//! answer counts if it is of the server that gave the keys, and answers what was asked last. The association says when
//! new keys are needed and how long to wait before they are asked for again; who makes the connection is elsewhere.
//!
//! Between the client's engine and the network, it turns a header into a packet and a packet into a header. So the
//! engine knows nothing of it, and a recording of what it was given has no keys in it and is replayed without.

mod exchange;
mod keys;
#[cfg(test)]
mod tests;

use alloc::collections::VecDeque;

use ptp_common::{
    ntp::{
        HEADER_LENGTH, Mode, NtpPacket,
        nts::{Fields, IDENTIFIER_LENGTH, NAK, NONCE_LENGTH, Parts, TAG_LENGTH, field},
    },
    time::{Duration, Mono, Time},
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

pub use exchange::{Agreement, KeyExchange, KeyExchangeError, MAX_COOKIE, MAX_COOKIES, request};
pub use keys::Keys;

use crate::prelude::*;

/// A packet with everything in it is no longer than this, bytes: what IPv6 carries everywhere, without the heads of
/// IPv6 and UDP.
const MAX_PACKET: usize = 1280 - 48;
/// Before the second attempt at keys; each further one waits longer by half (section 4.2 wants it so).
const FIRST_PAUSE: Duration = Duration::from_secs(10);
/// Where nobody could be reached, which costs nobody anything.
const LONGEST_UNREACHED: Duration = Duration::from_secs(15 * 60);
/// Where a server refuses.
const LONGEST: Duration = Duration::from_secs(5 * 86_400);

/// How a server is protected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NtsState {
    /// The first keys are being asked for. Nothing else is asked until there are some.
    #[default]
    Negotiating,
    /// There are keys, and cookies that the server has not disowned.
    Protected,
    /// The cookies are used up or the server does not know them any more: new keys are asked for.
    Renewing,
    /// There are no keys, and the last attempt to get some failed.
    Failed,
}

impl NtsState {
    /// All of them, for metrics.
    pub const ALL: [Self; 4] = [Self::Negotiating, Self::Protected, Self::Renewing, Self::Failed];

    /// The name in JSON and in metric labels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Negotiating => "negotiating",
            Self::Protected => "protected",
            Self::Renewing => "renewing",
            Self::Failed => "failed",
        }
    }
}

/// Why a packet is not handed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NtsRefused {
    /// No packet with the extension fields that it must have.
    Malformed,
    /// Not the answer to what was asked last, or a second one.
    NotAsked,
    /// Nobody with the keys has made it.
    NotAuthentic,
    /// The server cannot make anything of the cookie; heeded when the next request is due, unless there is an answer
    /// till then.
    Nak,
}

/// Totals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NtsCounts {
    /// Key exchanges that gave keys.
    pub key_exchanges: u64,
    /// Those that gave none.
    pub failures: u64,
    /// Answers that were authentic.
    pub authentic: u64,
    /// Refusals of cookies.
    pub naks: u64,
    /// Answers that were not handed on for another reason.
    pub refused: u64,
}

/// Whether a cookie can be sent back as it is.
fn is_fine(cookie: &[u8]) -> bool {
    !cookie.is_empty() && cookie.len() <= MAX_COOKIE && cookie.len().is_multiple_of(4)
}

/// The protection of one server. See the module's paragraphs.
#[derive(Debug)]
pub struct NtsAssociation {
    keys: Option<Keys>,
    cookies: VecDeque<Vec<u8>>,
    /// Of the request whose answer is waited for.
    identifier: Option<[u8; IDENTIFIER_LENGTH]>,
    /// The server has refused a cookie, or nothing has been heard of it for long.
    is_doubted: bool,
    is_exchanging: bool,
    has_failed: bool,
    /// When keys may be asked for again, and how long to wait after that.
    not_before: Option<Time<Mono>>,
    pause: Duration,
    counts: NtsCounts,
    rng: ChaCha8Rng,
}

impl NtsAssociation {
    /// Without keys; `seed` is for numbers that nobody may guess.
    pub fn new(seed: [u8; 32]) -> Self {
        Self {
            keys: None,
            cookies: VecDeque::new(),
            identifier: None,
            is_doubted: false,
            is_exchanging: false,
            has_failed: false,
            not_before: None,
            pause: FIRST_PAUSE,
            counts: NtsCounts::default(),
            rng: ChaCha8Rng::from_seed(seed),
        }
    }

    /// How it is.
    pub fn state(&self) -> NtsState {
        match self.keys {
            None if self.has_failed => NtsState::Failed,
            None => NtsState::Negotiating,
            Some(_) if self.is_doubted || self.cookies.is_empty() => NtsState::Renewing,
            Some(_) => NtsState::Protected,
        }
    }

    /// Totals.
    pub const fn counts(&self) -> NtsCounts {
        self.counts
    }

    /// Cookies in stock.
    pub fn cookies(&self) -> usize {
        self.cookies.len()
    }

    /// Whether keys are being asked for.
    pub const fn is_exchanging(&self) -> bool {
        self.is_exchanging
    }

    /// Whether to ask for keys before the request that is due.
    pub fn needs_keys(&self, now: Time<Mono>) -> bool {
        let are_wanted = self.state() != NtsState::Protected;
        are_wanted && !self.is_exchanging && self.not_before.is_none_or(|at| now >= at)
    }

    /// Nothing was heard for long: new keys are asked for at the next request, perhaps of somebody else under this name.
    pub const fn doubt(&mut self) {
        self.is_doubted = true;
    }

    /// They are being asked for.
    pub fn began(&mut self, now: Time<Mono>) {
        self.is_exchanging = true;
        self.not_before = Some(now + self.pause);
        let longer = Duration::from_scaled_nanos(self.pause.as_scaled_nanos() * 3 / 2);
        self.pause = longer.min(LONGEST);
    }

    /// They are there, with cookies. The old ones are gone.
    pub fn agreed(&mut self, keys: Keys, cookies: Vec<Vec<u8>>) {
        self.is_exchanging = false;
        self.is_doubted = false;
        self.has_failed = false;
        self.counts.key_exchanges += 1;
        (self.keys, self.identifier) = (Some(keys), None);
        self.cookies.clear();
        self.keep(cookies);
    }

    /// There are none. With what it has it goes on as long as it can.
    pub fn failed(&mut self, now: Time<Mono>, is_reached: bool) {
        self.is_exchanging = false;
        self.has_failed = true;
        self.counts.failures += 1;
        if !is_reached {
            self.pause = self.pause.min(LONGEST_UNREACHED);
            self.not_before = self.not_before.map(|at| at.min(now + LONGEST_UNREACHED));
        }
    }

    fn keep(&mut self, cookies: impl IntoIterator<Item = Vec<u8>>) {
        for cookie in cookies {
            if is_fine(&cookie) && self.cookies.len() < MAX_COOKIES {
                self.cookies.push_back(cookie);
            }
        }
    }

    /// The packet by which a request is sent; `None` while there are no keys or no cookies.
    pub fn protect(&mut self, header: &[u8; HEADER_LENGTH]) -> Option<Vec<u8>> {
        let keys = self.keys.as_ref()?;
        let cookie = self.cookies.pop_front()?;
        let mut identifier = [0; IDENTIFIER_LENGTH];
        let mut nonce = [0; NONCE_LENGTH];
        self.rng.fill_bytes(&mut identifier);
        self.rng.fill_bytes(&mut nonce);
        let mut packet = header.to_vec();
        push_field(&mut packet, field::UNIQUE_IDENTIFIER, &identifier);
        push_field(&mut packet, field::COOKIE, &cookie);
        let authenticator = 4 + 4 + NONCE_LENGTH + TAG_LENGTH;
        let room = MAX_PACKET.saturating_sub(packet.len() + authenticator);
        // The answer brings one for the one that is sent.
        let missing = MAX_COOKIES - self.cookies.len() - 1;
        for _ in 0..missing.min(room / (4 + cookie.len())) {
            push_field(&mut packet, field::COOKIE_PLACEHOLDER, &vec![0; cookie.len()]);
        }
        let sealed = keys.seal(&packet, &nonce, &[])?;
        let lengths = (NONCE_LENGTH as u32) << 16 | TAG_LENGTH as u32;
        let value = [&lengths.to_be_bytes()[..], &nonce, &sealed].concat();
        push_field(&mut packet, field::AUTHENTICATOR, &value);
        self.identifier = Some(identifier);
        Some(packet)
    }

    /// The header of an answer that is the server's and to what was asked last; cookies in it are kept.
    ///
    /// # Errors
    /// [`NtsRefused`].
    pub fn open(&mut self, packet: &[u8]) -> Result<[u8; HEADER_LENGTH], NtsRefused> {
        let opened = self.opened(packet);
        match opened {
            Ok(_) => self.counts.authentic += 1,
            Err(NtsRefused::Nak) => self.counts.naks += 1,
            Err(_) => self.counts.refused += 1,
        }
        opened
    }

    fn opened(&mut self, packet: &[u8]) -> Result<[u8; HEADER_LENGTH], NtsRefused> {
        let Ok(parts) = Parts::of(packet) else { return Err(NtsRefused::Malformed) };
        let is_ours =
            self.identifier.is_some_and(|asked| parts.identifier.is_some_and(|it| it == asked));
        if !is_ours {
            return Err(NtsRefused::NotAsked);
        }
        let (Some(authenticator), Some(keys)) = (parts.authenticator, &self.keys) else {
            let Ok((header, _)) = NtpPacket::parse(parts.header) else {
                return Err(NtsRefused::Malformed);
            };
            let is_nak =
                header.mode == Mode::Server && header.stratum == 0 && header.reference_id == NAK;
            if !is_nak {
                return Err(NtsRefused::NotAuthentic);
            }
            self.is_doubted = true;
            return Err(NtsRefused::Nak);
        };
        let plain = keys.open(parts.associated, authenticator.nonce, authenticator.ciphertext);
        let Some(plain) = plain else { return Err(NtsRefused::NotAuthentic) };
        // A second copy of it is one too many.
        self.identifier = None;
        self.is_doubted = false;
        self.has_failed = false;
        self.pause = FIRST_PAUSE;
        // Of what is in there in the clear nobody knows who may have read it.
        let given = Fields::new(&plain).map_while(Result::ok);
        let cookies = given.filter(|it| it.kind == field::COOKIE).map(|it| it.value.to_vec());
        self.keep(cookies.collect::<Vec<_>>());
        Ok(*parts.header)
    }
}

/// An extension field; `value` is a multiple of four long.
fn push_field(packet: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
    packet.extend_from_slice(&kind.to_be_bytes());
    packet.extend_from_slice(&length.to_be_bytes());
    packet.extend_from_slice(value);
}
