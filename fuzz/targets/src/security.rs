//! Authentication and key files: no bytes pass for authentic that nobody has signed, what was signed is
//! accepted once, and a key file of any content is read or refused. The first byte says which.

use std::sync::Arc;

use ptp_agent::security::{
    Associations, MAX_SEALED, Policy, Refusal, Trust,
    file::{Choice, parse},
};
use ptp_common::{time::Time, wire::MessageView};

const KEYS: &str =
    "[security_association]\nspp 1\n1 SHA256-128 secret\n2 AES128 0123456789abcdef\n";

/// See the module's paragraph.
///
/// # Panics
/// If what must hold does not.
pub fn run(input: &[u8]) {
    let Some((kind, bytes)) = input.split_first() else { return };
    if kind & 1 == 0 {
        if let Ok(text) = std::str::from_utf8(bytes)
            && let Ok(ring) = parse(text, Choice::default())
        {
            assert!(!ring.is_empty());
        }
        return;
    }
    let choice = Choice { spp: Some(1), key_id: Some(1 + u32::from(kind >> 7)) };
    let keys = Arc::new(parse(KEYS, choice).expect("good keys"));
    let policy = Policy { keys, is_required: kind & 2 != 0, domains: Vec::new() };
    let mut associations = Associations::new(policy);
    // 128 bits are not guessed.
    let verdict = associations.open(Time::ZERO, 0, bytes);
    assert_ne!(verdict, Ok(Trust::Verified));
    let mut buffer = [0; MAX_SEALED];
    let Ok(view) = MessageView::new(bytes) else { return };
    let Ok(sealed) = associations.seal(view.as_bytes(), &mut buffer) else { return };
    let is_new = matches!(verdict, Ok(Trust::Unverified) | Err(Refusal::Missing));
    let opened = associations.open(Time::ZERO, 0, sealed);
    // One that has a TLV of its own, or none that can be read, is refused.
    assert!(opened == Ok(Trust::Verified) && is_new || opened == Err(Refusal::Parameters));
    let again = associations.open(Time::ZERO, 0, sealed);
    let is_answer = matches!(bytes[0] & 0x0f, 0x3 | 0x9 | 0xa);
    assert!(again != Ok(Trust::Verified) || is_answer);
}
