//! The classifier that runs in the kernel against the oracle of its property tests.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ptp_common::classify::{classify, classify_ethertype};

#[path = "../../ptp-common/tests/oracle/mod.rs"]
mod oracle;

fuzz_target!(|frame: &[u8]| {
    let outcome = classify(frame);
    assert_eq!(outcome, oracle::oracle(frame));
    if let Some(&[high, low]) = frame.get(12..14) {
        assert_eq!(classify_ethertype(frame, u16::from_be_bytes([high, low])), outcome);
    }
});
