//! TLVs: what the reader accepts is whole, even and complete, and the builder makes the same bytes
//! from the parts.
use ptp_common::wire::{TlvBuilder, Tlvs, WireError};

/// See the module's paragraph.
///
/// # Panics
/// If what must hold does not.
pub fn run(bytes: &[u8]) {
    match Tlvs::new(bytes) {
        Ok(tlvs) => {
            let mut again = vec![0xa5; bytes.len()];
            let mut builder = TlvBuilder::new(&mut again);
            for tlv in tlvs {
                assert!(tlv.value.len().is_multiple_of(2));
                builder.push(tlv).expect("as long as the original");
            }
            assert_eq!(builder.finish(), tlvs);
            assert_eq!(tlvs.as_bytes(), bytes);
        }
        // What comes before the malformed TLV is well-formed.
        Err(WireError::Tlv(at)) => assert!(Tlvs::new(&bytes[..at]).is_ok()),
        Err(error) => panic!("{error}"),
    }
}
