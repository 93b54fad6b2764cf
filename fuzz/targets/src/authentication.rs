//! The AUTHENTICATION TLV: whatever arrives is refused, or splits into parts that are the message again; and
//! whatever is a message can be signed and read again.
use ptp_common::wire::{Authentication, AuthenticationView, MessageView};

/// See the module's paragraph.
///
/// # Panics
/// If what must hold does not.
pub fn run(bytes: &[u8]) {
    let Ok(view) = MessageView::new(bytes) else { return };
    let Ok(found) = AuthenticationView::of(&view) else { return };
    if let Some(tlv) = found {
        let whole = view.as_bytes();
        assert!(tlv.without().len() + 10 <= whole.len());
        for length in [0, 16, 32] {
            if let Some((protected, icv)) = tlv.split(length) {
                assert_eq!([protected, icv].concat(), whole);
            }
        }
        return;
    }
    let tlv = Authentication { spp: bytes[0], key_id: 7, icv_length: 16 };
    let mut buffer = vec![0; bytes.len() + tlv.wire_length()];
    if let Ok((protected, icv)) = tlv.append(view.as_bytes(), &mut buffer) {
        let length = protected.len() + icv.len();
        let view = MessageView::new(&buffer[..length]).expect("as it was, and longer");
        let read = AuthenticationView::of(&view).expect("last").expect("there");
        assert_eq!((read.spp(), read.key_id()), (bytes[0], 7));
    }
}
