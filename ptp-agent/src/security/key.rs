//! A key of a security association and what it makes of bytes: the integrity check value. The
//! algorithms are those of linuxptp, of which HMAC-SHA256-128 is the one that IEEE 1588-2019 16.14.2 demands.
//! Key material is wiped when it is dropped, check values are compared in constant time.

use aes::{Aes128, Aes256};
use cmac::Cmac;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// How a key makes check values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// HMAC-SHA256, the first 16 bytes.
    HmacSha256Truncated,
    /// HMAC-SHA256, 32 bytes.
    HmacSha256,
    /// AES-CMAC with a key of 128 bits.
    AesCmac128,
    /// AES-CMAC with a key of 256 bits.
    AesCmac256,
}

impl Algorithm {
    /// All of them, under linuxptp's names.
    pub const ALL: [(&str, Self); 4] = [
        ("SHA256-128", Self::HmacSha256Truncated),
        ("SHA256", Self::HmacSha256),
        ("AES128", Self::AesCmac128),
        ("AES256", Self::AesCmac256),
    ];

    /// Length of the check value, bytes.
    pub const fn icv_length(self) -> u8 {
        match self {
            Self::HmacSha256 => 32,
            Self::HmacSha256Truncated | Self::AesCmac128 | Self::AesCmac256 => 16,
        }
    }

    /// Length that the key must have, bytes; `None` for any but none.
    pub const fn key_length(self) -> Option<usize> {
        match self {
            Self::HmacSha256Truncated | Self::HmacSha256 => None,
            Self::AesCmac128 => Some(16),
            Self::AesCmac256 => Some(32),
        }
    }

    /// linuxptp's name.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, each)| *each == self).map_or("?", |(name, _)| name)
    }
}

/// A key, ready for use: its schedule or its padded blocks are computed once.
#[derive(Clone)]
pub(super) struct Key {
    algorithm: Algorithm,
    state: State,
}

#[derive(Clone)]
enum State {
    Hmac(Hmac<Sha256>),
    Cmac128(Cmac<Aes128>),
    Cmac256(Cmac<Aes256>),
}

impl Key {
    /// `None` where `secret` has the wrong length.
    pub(super) fn new(algorithm: Algorithm, secret: &[u8]) -> Option<Self> {
        if secret.is_empty() {
            return None;
        }
        let state = match algorithm {
            Algorithm::HmacSha256 | Algorithm::HmacSha256Truncated => {
                State::Hmac(Hmac::new_from_slice(secret).ok()?)
            }
            Algorithm::AesCmac128 => State::Cmac128(Cmac::new_from_slice(secret).ok()?),
            Algorithm::AesCmac256 => State::Cmac256(Cmac::new_from_slice(secret).ok()?),
        };
        Some(Self { algorithm, state })
    }

    pub(super) const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Whether `icv` is the check value of the concatenated `parts`. Takes as long whatever differs.
    pub(super) fn verify(&self, parts: &[&[u8]], icv: &[u8]) -> bool {
        if icv.len() != usize::from(self.algorithm.icv_length()) {
            return false;
        }
        match self.state.clone() {
            State::Hmac(mac) => fed(mac, parts).verify_truncated_left(icv).is_ok(),
            State::Cmac128(mac) => fed(mac, parts).verify_truncated_left(icv).is_ok(),
            State::Cmac256(mac) => fed(mac, parts).verify_truncated_left(icv).is_ok(),
        }
    }

    /// Writes the check value of the concatenated `parts` to `icv`, which has its length.
    pub(super) fn sign(&self, parts: &[&[u8]], icv: &mut [u8]) {
        let length = icv.len();
        match self.state.clone() {
            State::Hmac(mac) => {
                icv.copy_from_slice(&fed(mac, parts).finalize().into_bytes()[..length])
            }
            State::Cmac128(mac) => {
                icv.copy_from_slice(&fed(mac, parts).finalize().into_bytes()[..length]);
            }
            State::Cmac256(mac) => {
                icv.copy_from_slice(&fed(mac, parts).finalize().into_bytes()[..length]);
            }
        }
    }
}

fn fed<M: hmac::Mac>(mut mac: M, parts: &[&[u8]]) -> M {
    for part in parts {
        mac.update(part);
    }
    mac
}

impl core::fmt::Debug for Key {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        // Never the key itself.
        write!(f, "Key({})", self.algorithm.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
            .collect()
    }

    fn icv(algorithm: Algorithm, key: &[u8], data: &[u8]) -> Vec<u8> {
        let mut icv = vec![0; usize::from(algorithm.icv_length())];
        let key = Key::new(algorithm, key).unwrap();
        // In parts or whole: the same.
        key.sign(&[&data[..data.len() / 2], &data[data.len() / 2..]], &mut icv);
        assert!(key.verify(&[data], &icv));
        icv
    }

    #[test]
    fn hmac_is_that_of_rfc_4231_case_2() {
        let expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        let made = icv(Algorithm::HmacSha256, b"Jefe", b"what do ya want for nothing?");
        assert_eq!(made, bytes(expected));
        let made = icv(Algorithm::HmacSha256Truncated, b"Jefe", b"what do ya want for nothing?");
        assert_eq!(made, bytes(expected)[..16]);
    }

    #[test]
    fn cmac_128_is_that_of_rfc_4493_example_3() {
        let key = bytes("2b7e151628aed2a6abf7158809cf4f3c");
        let data = bytes(
            "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e5130c81c46a35ce411",
        );
        let expected = bytes("dfa66747de9ae63030ca32611497c827");
        assert_eq!(icv(Algorithm::AesCmac128, &key, &data), expected);
    }

    #[test]
    fn cmac_256_is_that_of_nist_sp_800_38b_example_10() {
        let key = bytes("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4");
        let data = bytes("6bc1bee22e409f96e93d7e117393172a");
        let expected = bytes("28a7023f452e8f82bd4bf28d8c37c35c");
        assert_eq!(icv(Algorithm::AesCmac256, &key, &data), expected);
    }

    #[test]
    fn one_wrong_bit_and_another_length_are_refused() {
        let key = Key::new(Algorithm::HmacSha256Truncated, b"key").unwrap();
        let mut icv = [0; 16];
        key.sign(&[b"data"], &mut icv);
        assert!(!key.verify(&[b"data"], &icv[..15]) && !key.verify(&[b"data"], &[]));
        for bit in 0..128 {
            let mut wrong = icv;
            wrong[bit / 8] ^= 1 << (bit % 8);
            assert!(!key.verify(&[b"data"], &wrong));
        }
    }

    #[test]
    fn keys_of_wrong_length_are_refused_and_none_is_printed() {
        assert!(Key::new(Algorithm::AesCmac128, &[0; 32]).is_none());
        assert!(Key::new(Algorithm::AesCmac256, &[0; 16]).is_none());
        assert!(Key::new(Algorithm::HmacSha256, &[]).is_none());
        let key = Key::new(Algorithm::AesCmac128, b"sixteen bytes ok").unwrap();
        assert_eq!(format!("{key:?}"), "Key(AES128)");
    }
}
