//! Claims about what a transparent clock adds: the arithmetic against wide integers, the checksum against
//! one that is summed anew, and keys that tell every event message from every other.

use proptest::prelude::*;
use ptp_common::{
    residence::{
        DELAY_REQ, FOLLOW_UP, HEAD, Head, Kind, MAX_RATE, MAX_RESIDENCE_NS, PORT_IDENTITY,
        RATE_BITS, SYNC, TYPES, added, bucket, bucket_end_ns, checksum, is_authentication, scaled,
    },
    wire::TlvType,
};

/// The Internet checksum, by the book (RFC 1071).
fn summed(bytes: &[u8]) -> u16 {
    let mut sum: u64 = bytes.chunks(2).map(|it| u64::from(it[0]) << 8 | u64::from(it[1])).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

proptest! {
    /// As with integers that cannot overflow, rounded down.
    #[test]
    fn correction_is_the_residence_at_the_time_transmitters_rate(
        nanos in 0..=MAX_RESIDENCE_NS,
        rate in -MAX_RATE..=MAX_RATE,
    ) {
        let exact = i128::from(nanos) << 16;
        let scale = i128::from(nanos) * i128::from(rate);
        let expected = exact + (scale >> (RATE_BITS - 16));
        prop_assert_eq!(scaled(nanos, rate).map(i128::from), Some(expected));
        prop_assert!(expected >= 0, "nothing is inside for less than no time");
    }

    /// Out of range is never wrapped round.
    #[test]
    fn field_is_the_exact_sum_or_left_alone(field in any::<i64>(), correction in 0..i64::MAX) {
        let sum = i128::from(field) + i128::from(correction);
        match added(field, correction) {
            Some(new) => prop_assert_eq!(i128::from(new), sum),
            None => prop_assert!(field == i64::MAX || sum >= i128::from(i64::MAX)),
        }
    }

    /// A checksum that was right is right again, one that was wrong stays wrong by as much.
    #[test]
    fn checksum_follows_the_field(
        mut datagram in prop::collection::vec(any::<u8>(), 32..=96),
        at in 4..12_usize,
        new in any::<[u8; 8]>(),
        error in any::<u16>(),
    ) {
        if !datagram.len().is_multiple_of(2) { datagram.pop(); }
        datagram[0] |= 1;
        let at = at * 2;
        let right = summed(&datagram);
        let before = if error.is_multiple_of(2) { right } else { right ^ error };
        prop_assume!(before != 0);
        let old: [u8; 8] = datagram[at..at + 8].try_into().unwrap();
        let after = checksum(before, old, new);
        prop_assert_ne!(after, 0);
        datagram[at..at + 8].copy_from_slice(&new);
        let expected = summed(&datagram);
        let is_same = |a: u16, b: u16| a % 0xffff == b % 0xffff;
        prop_assert_eq!(is_same(after, expected), is_same(before, right));
        prop_assert!(is_same(checksum(after, new, old), before), "and back");
    }

    /// No two messages of different type, sender, number, domain, sdoId or ports have one key.
    #[test]
    fn keys_differ_where_anything_that_counts_does(
        a in (any::<[u8; HEAD]>(), any::<[u8; PORT_IDENTITY]>(), 0..256_u32, 0..256_u32),
        change in any::<[u8; HEAD]>(),
        which in 0..HEAD,
    ) {
        let (head, port, came, went) = a;
        let key = Head::new(&head).key(SYNC, &port, came, went);
        let mut other = head;
        other[which] = change[which];
        let counts = match which {
            0 => head[0] >> 4 != other[0] >> 4,
            4 | 30 | 31 => head[which] != other[which],
            _ => false,
        };
        prop_assert_eq!(Head::new(&other).key(SYNC, &port, came, went) != key, counts);
        prop_assert_ne!(Head::new(&head).key(DELAY_REQ, &port, came, went), key);
        prop_assert_ne!(Head::new(&head).key(SYNC, &port, came ^ 1, went), key);
        prop_assert_ne!(Head::new(&head).key(SYNC, &port, came, went ^ 1), key);
        for byte in 0..PORT_IDENTITY {
            let mut port = port;
            port[byte] ^= 0x10;
            prop_assert_ne!(Head::new(&head).key(SYNC, &port, came, went), key);
        }
    }

    #[test]
    fn bucket_holds_what_is_counted_in_it(nanos in 0..0x4000_0000_u64) {
        let at = bucket(nanos);
        prop_assert!(nanos < bucket_end_ns(at) && at < 62);
        prop_assert!(at == 0 || nanos >= bucket_end_ns(at - 1) || nanos < 2);
    }
}

#[test]
fn what_is_no_residence_or_no_rate_is_no_correction() {
    assert_eq!(scaled(MAX_RESIDENCE_NS + 1, 0), None);
    assert_eq!(scaled(u64::MAX, 0), None);
    assert_eq!(scaled(1, MAX_RATE + 1), None);
    assert_eq!(scaled(1, i64::MIN), None);
    assert_eq!(bucket(u64::MAX), bucket(0x3fff_ffff));
}

#[test]
fn field_that_says_too_large_stays_so() {
    assert_eq!(added(i64::MAX, 0), None);
    assert_eq!(added(i64::MAX - 1, 1), None, "would say so without being so");
    assert_eq!(added(i64::MIN, 1), Some(i64::MIN + 1));
}

#[test]
fn datagram_without_a_checksum_stays_without() {
    assert_eq!(checksum(0, [1; 8], [2; 8]), 0);
}

#[test]
fn messages_are_told_apart_by_type() {
    let mut bytes = [0; HEAD];
    for (message_type, name) in [(0, "sync"), (1, "delay_req"), (8, "follow_up"), (9, "delay_resp")]
    {
        bytes[0] = 0x10 | message_type;
        let (kind, sort) = Head::new(&bytes).kind().unwrap();
        assert_eq!(TYPES[kind as usize], name);
        assert_eq!(sort == Kind::Event, message_type < 4);
    }
    for message_type in [4, 7, 0xb, 0xc, 0xd, 0xf] {
        bytes[0] = message_type;
        assert!(Head::new(&bytes).kind().is_none());
    }
    bytes[0] = FOLLOW_UP;
    bytes[1] = 0x12;
    bytes[6] = 2;
    let head = Head::new(&bytes);
    assert!(head.is_version_2() && head.is_two_step() && head.fixed_length() == 44);
    bytes[1] = 0x21;
    assert!(!Head::new(&bytes).is_version_2());
}

#[test]
fn authentication_of_both_standards_is_known() {
    assert!(is_authentication(TlvType::AUTHENTICATION.0) && is_authentication(0x2000));
    assert!(!is_authentication(0x0003));
}
