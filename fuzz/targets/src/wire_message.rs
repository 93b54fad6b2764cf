//! The wire format: no bytes make the parser panic, prefix and whole message agree, and whatever
//! parses comes out of the writer as a message that parses to the same.
use ptp_common::wire::{HEADER_LENGTH, Message, MessageKey, MessageView};

/// See the module's paragraph.
///
/// # Panics
/// If what must hold does not.
pub fn run(bytes: &[u8]) {
    let key = MessageKey::from_prefix(bytes);
    assert!(key.is_err() || bytes.len() >= HEADER_LENGTH);
    let Ok(prefix) = MessageView::from_prefix(bytes) else {
        assert!(Message::parse(bytes).is_err());
        return;
    };
    assert_eq!(key, Ok(prefix.key()));
    assert!(!prefix.is_cut() || (prefix.tlvs().is_err() && Message::parse(bytes).is_err()));

    let Ok(message) = Message::parse(bytes) else { return };
    assert_eq!(message.body, prefix.body().expect("the message has one"));
    let mut again = vec![0xa5; message.wire_length()];
    assert_eq!(message.emit(&mut again), Ok(again.len()));
    assert_eq!(Message::parse(&again), Ok(message));
    // The header is kept but for the controlField, which follows from the type.
    assert_eq!(again[..32], bytes[..32]);
    assert_eq!(again[33], bytes[33]);
    let fixed = message.message_type().fixed_length();
    assert_eq!(again[fixed..], bytes[fixed..again.len()]);
    again.pop();
    assert!(message.emit(&mut again).is_err());
}
