//! The classifier that runs in the kernel against the oracle of its property tests.
use ptp_common::classify::{classify, classify_ethertype};

#[path = "../../../ptp-common/tests/oracle/mod.rs"]
mod oracle;

/// See the module's paragraph.
///
/// # Panics
/// If what must hold does not.
pub fn run(frame: &[u8]) {
    let outcome = classify(frame);
    assert_eq!(outcome, oracle::oracle(frame));
    if let Some(&[high, low]) = frame.get(12..14) {
        assert_eq!(classify_ethertype(frame, u16::from_be_bytes([high, low])), outcome);
    }
}
