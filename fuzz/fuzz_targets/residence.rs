//! What a transparent clock does to a message: the field is the exact sum or left alone, a checksum goes back
//! when the field does, and the first bytes of anything can be looked at.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ptp_common::residence::{HEAD, Head, added, bucket, bucket_end_ns, checksum, scaled};

fuzz_target!(|input: ([u8; HEAD], u64, i64, u16)| {
    let (bytes, nanos, rate, sum) = input;
    let head = Head::new(&bytes);
    let _ = (head.kind(), head.is_version_2(), head.length(), head.fixed_length());
    assert!(bucket(nanos) < 62 && (nanos >= 1 << 30 || nanos < bucket_end_ns(bucket(nanos))));
    let Some(correction) = scaled(nanos, rate) else { return };
    assert!(correction >= 0);
    let old = head.correction();
    let Some(new) = added(old, correction) else { return };
    assert_eq!(i128::from(new), i128::from(old) + i128::from(correction));
    let (old, new) = (old.to_be_bytes(), new.to_be_bytes());
    let there = checksum(sum, old, new);
    let back = checksum(there, new, old);
    assert!(back % 0xffff == sum % 0xffff && (sum == 0) == (there == 0));
});
