//! The keys of a session and what they do: AEAD_AES_SIV_CMAC_256 (RFC 5297) over a packet. They are wiped when they are
//! dropped, and shown to nobody.

use core::fmt;

use aes_siv::{KeyInit as _, siv::Aes128Siv};
use ptp_common::ntp::nts::KEY_LENGTH;
use zeroize::Zeroizing;

use crate::prelude::*;

/// One for each direction.
#[derive(Clone)]
pub struct Keys {
    to_server: Zeroizing<[u8; KEY_LENGTH]>,
    to_client: Zeroizing<[u8; KEY_LENGTH]>,
}

impl Keys {
    /// As the TLS session gives them, see [`exporter_context`](ptp_common::ntp::nts::exporter_context).
    pub const fn new(
        to_server: Zeroizing<[u8; KEY_LENGTH]>,
        to_client: Zeroizing<[u8; KEY_LENGTH]>,
    ) -> Self {
        Self { to_server, to_client }
    }

    /// The same keys for who answers.
    #[must_use]
    pub fn of_server(&self) -> Self {
        Self { to_server: self.to_client.clone(), to_client: self.to_server.clone() }
    }

    /// Enciphers `plain` and vouches for `associated`, on the way to the server.
    pub(super) fn seal(&self, associated: &[u8], nonce: &[u8], plain: &[u8]) -> Option<Vec<u8>> {
        let mut siv = Aes128Siv::new((&*self.to_server).into());
        siv.encrypt([associated, nonce], plain).ok()
    }

    /// Deciphers what comes from the server; `None` where it is not from there as it is.
    pub(super) fn open(&self, associated: &[u8], nonce: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let mut siv = Aes128Siv::new((&*self.to_client).into());
        siv.decrypt([associated, nonce], sealed).ok()
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys")
    }
}
