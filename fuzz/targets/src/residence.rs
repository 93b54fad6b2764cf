//! What a transparent clock does to a message: the field is the exact sum or left alone, a checksum goes back
//! when the field does, and the first bytes of anything can be looked at.
use ptp_common::residence::{HEAD, Head, added, bucket, bucket_end_ns, checksum, scaled};

/// See the module's paragraph.
///
/// # Panics
/// If what must hold does not.
pub fn run(input: &[u8]) {
    let Some((bytes, rest)) = input.split_first_chunk::<HEAD>() else { return };
    let Some((nanos, rest)) = rest.split_first_chunk() else { return };
    let Some((rate, rest)) = rest.split_first_chunk() else { return };
    let Some(sum) = rest.first_chunk() else { return };
    let (nanos, rate) = (u64::from_be_bytes(*nanos), i64::from_be_bytes(*rate));
    let (bytes, sum) = (*bytes, u16::from_be_bytes(*sum));
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
}
