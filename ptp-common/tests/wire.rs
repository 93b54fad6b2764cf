//! Claims about the wire format that hold for all messages, and for all bytes.

mod support;

use proptest::{collection::vec, prelude::*};
use ptp_common::wire::{
    Authentication, AuthenticationView, Body, Flags, HEADER_LENGTH, Header, Message, MessageKey,
    MessageType, MessageView, PortIdentity, SecurityParameters, Timestamp, Tlv, TlvBuilder,
    TlvType, Tlvs, WireError,
};

/// Everything that can be asked of received bytes; the answer does not matter, that there is one
/// does. What parses must survive being written and read again.
fn exercise(bytes: &[u8]) {
    if let Ok(view) = MessageView::from_prefix(bytes) {
        assert_eq!(MessageKey::from_prefix(bytes), Ok(view.key()));
        let _ = (view.header(), view.body(), view.tlvs());
    }
    if let Ok(tlvs) = Tlvs::new(bytes) {
        assert_eq!(tlvs.iter().map(|tlv| tlv.wire_length()).sum::<usize>(), bytes.len());
    }
    if let Ok(message) = Message::parse(bytes) {
        let mut again = vec![0; message.wire_length()];
        assert_eq!(message.emit(&mut again), Ok(again.len()));
        assert_eq!(Message::parse(&again), Ok(message));
    }
}

proptest! {
    #[test]
    fn every_message_survives_a_round_trip(sample in support::message()) {
        let support::Sample { header, body, tlvs, bytes } = sample;
        let message = Message::parse(&bytes).unwrap();
        prop_assert_eq!(message.header, header);
        prop_assert_eq!(message.body, body);
        let read: Vec<_> = message.tlvs.iter().map(|tlv| (tlv.kind, tlv.value.to_vec())).collect();
        prop_assert_eq!(read, tlvs);
        prop_assert_eq!(message.wire_length(), bytes.len());
    }

    #[test]
    fn padding_behind_a_message_changes_nothing(
        sample in support::message(),
        padding in vec(any::<u8>(), 0..64),
    ) {
        let padded = [&sample.bytes[..], &padding].concat();
        prop_assert_eq!(Message::parse(&padded), Message::parse(&sample.bytes));
    }

    #[test]
    fn no_bytes_make_the_parser_panic(bytes in vec(any::<u8>(), 0..300)) {
        exercise(&bytes);
    }

    #[test]
    fn no_damage_to_a_message_makes_the_parser_panic(
        sample in support::message(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        length in any::<prop::sample::Index>(),
    ) {
        let mut bytes = sample.bytes;
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        bytes.truncate(length.index(bytes.len() + 1));
        exercise(&bytes);
    }

    #[test]
    fn a_message_cut_anywhere_is_truncated(
        sample in support::message(),
        at in any::<prop::sample::Index>(),
    ) {
        let cut = &sample.bytes[..at.index(sample.bytes.len())];
        let is_truncated = matches!(Message::parse(cut), Err(WireError::Truncated { .. }));
        prop_assert!(is_truncated);
    }

    #[test]
    fn a_prefix_that_holds_the_body_gives_key_header_and_body(
        sample in support::message(),
        at in any::<prop::sample::Index>(),
    ) {
        let support::Sample { header, body, bytes, .. } = sample;
        let prefix = &bytes[..at.index(bytes.len() + 1)];
        let kind = body.message_type();
        match MessageView::from_prefix(prefix) {
            Ok(view) => {
                prop_assert!(prefix.len() >= kind.fixed_length());
                prop_assert_eq!(view.header(), header);
                prop_assert_eq!(view.body(), Ok(body));
                prop_assert_eq!(view.message_length(), bytes.len());
                prop_assert_eq!(view.is_cut(), prefix.len() < bytes.len());
                prop_assert_eq!(view.tlvs().is_err(), view.is_cut());
            }
            Err(_) => prop_assert!(prefix.len() < kind.fixed_length()),
        }
        match MessageKey::from_prefix(prefix) {
            Ok(key) => prop_assert_eq!(key, header.key(kind)),
            Err(_) => prop_assert!(prefix.len() < HEADER_LENGTH),
        }
    }

    #[test]
    fn odd_tlvs_are_refused_by_reader_and_writer(
        before in support::tlvs(), kind in any::<u16>(), odd in 0..60usize,
    ) {
        let value = vec![0; odd * 2 + 1];
        let mut buffer = [0; 1024];
        let mut builder = TlvBuilder::new(&mut buffer);
        for (kind, value) in &before {
            builder.push(Tlv { kind: *kind, value }).unwrap();
        }
        prop_assert_eq!(
            builder.push(Tlv { kind: TlvType(kind), value: &value }),
            Err(WireError::Tlv(0))
        );
        let mut bytes = builder.finish().as_bytes().to_vec();
        let at = bytes.len();
        bytes.extend(kind.to_be_bytes());
        bytes.extend((value.len() as u16).to_be_bytes());
        bytes.extend(&value);
        prop_assert_eq!(Tlvs::new(&bytes), Err(WireError::Tlv(at)));
        // An even number of bytes does not make it better.
        bytes.push(0);
        prop_assert_eq!(Tlvs::new(&bytes), Err(WireError::Tlv(at)));
    }

    #[test]
    fn a_timestamp_and_its_rest_are_the_time(scaled in 0..(1i128 << 94)) {
        use ptp_common::time::{Duration, Time};
        let time = Time::from_epoch(Duration::from_scaled_nanos(scaled));
        let (timestamp, rest) = Timestamp::from_time(time);
        // 2^48 seconds are a little less than 2^94 scaled nanoseconds.
        prop_assume!(timestamp.seconds() < (1 << 48) - 1);
        prop_assert_eq!(Time::from(timestamp) + Duration::from(rest), time);
        prop_assert!((0..1 << 16).contains(&rest.0));
    }
}

#[test]
fn a_time_outside_the_range_of_a_timestamp_is_clamped() {
    use ptp_common::time::{Duration, Time};
    let before = Time::from_nanos(-1);
    assert_eq!(Timestamp::from_time(before).0, Timestamp::ZERO);
    let after = Time::from_epoch(Duration::from_scaled_nanos(i128::MAX));
    let last = Timestamp::new((1 << 48) - 1, 999_999_999).unwrap();
    assert_eq!(Timestamp::from_time(after).0, last);
    assert_eq!(Timestamp::from_time(last.into()).0, last);
    assert_eq!(Timestamp::new(1 << 48, 0), None);
    assert_eq!(Timestamp::new(0, 1_000_000_000), None);
}

#[test]
fn a_second_of_more_than_a_thousand_million_nanoseconds_is_refused() {
    let header = Header::new(PortIdentity::default(), 0);
    for kind in MessageType::ALL {
        let mut bytes = vec![0; kind.fixed_length()];
        let body = Body::Sync { origin_timestamp: Timestamp::ZERO };
        Message { header, body, tlvs: Tlvs::NONE }.emit(&mut bytes).unwrap();
        bytes[0] = kind as u8;
        bytes[2..4].copy_from_slice(&(kind.fixed_length() as u16).to_be_bytes());
        bytes[40..44].copy_from_slice(&1_000_000_000u32.to_be_bytes());
        let has_timestamp = !matches!(kind, MessageType::Signaling | MessageType::Management);
        let expected = has_timestamp.then_some(WireError::Nanoseconds(1_000_000_000));
        assert_eq!(Message::parse(&bytes).err(), expected, "{kind:?}");
    }
}

#[test]
fn only_version_two_and_the_ten_types_are_accepted() {
    let mut bytes = [0u8; 64];
    bytes[3] = 64;
    for code in 0..=0xffu8 {
        bytes[0] = code;
        for version in 0..=0xffu8 {
            bytes[1] = version;
            let outcome = MessageView::new(&bytes).map(|view| view.message_type() as u8);
            let expected = if version & 0x0f != 2 {
                Err(WireError::Version(version & 0x0f))
            } else if matches!(code & 0x0f, 0x0..=0x3 | 0x8..=0xd) {
                Ok(code & 0x0f)
            } else {
                Err(WireError::MessageType(code & 0x0f))
            };
            assert_eq!(outcome, expected);
        }
    }
}

#[test]
fn a_message_length_below_its_fixed_part_is_refused() {
    for kind in MessageType::ALL {
        let mut bytes = [0u8; 64];
        bytes[0] = kind as u8;
        bytes[1] = 2;
        for length in 0..64u8 {
            bytes[3] = length;
            let legal = usize::from(length) >= kind.fixed_length();
            assert_eq!(MessageView::new(&bytes).is_ok(), legal, "{kind:?} {length}");
        }
    }
}

#[test]
fn a_message_that_cannot_say_its_length_is_not_emitted() {
    let value = vec![0; 65_534];
    let mut buffer = vec![0; 70_000];
    let mut builder = TlvBuilder::new(&mut buffer);
    builder.push(Tlv { kind: TlvType::PAD, value: &value }).unwrap();
    let message = Message {
        header: Header::new(PortIdentity::default(), 0),
        body: Body::Sync { origin_timestamp: Timestamp::ZERO },
        tlvs: builder.finish(),
    };
    let mut bytes = vec![0; 70_000];
    assert_eq!(
        message.emit(&mut bytes),
        Err(WireError::Buffer { have: 70_000, need: 44 + 4 + 65_534 })
    );
    assert_eq!(
        Tlv { kind: TlvType::PAD, value: &[0; 65_536] }.emit(&mut bytes),
        Err(WireError::Tlv(0))
    );
}

#[test]
fn a_full_builder_keeps_what_it_has() {
    let mut buffer = [0; 10];
    let mut builder = TlvBuilder::new(&mut buffer);
    let tlv = Tlv { kind: TlvType::PAD, value: &[7, 7] };
    assert_eq!(builder.push(tlv), Ok(()));
    assert_eq!(builder.push(tlv), Err(WireError::Buffer { have: 4, need: 6 }));
    assert_eq!(builder.finish().iter().collect::<Vec<_>>(), [tlv]);
}

#[test]
fn flags_have_the_places_of_the_standard() {
    // twoStepFlag is bit 1 of the first octet, ptpTimescale bit 3 of the second (table 37).
    let mut header = Header::new(PortIdentity::default(), 0);
    header.flags = Flags::TWO_STEP | Flags::PTP_TIMESCALE;
    let body = Body::Sync { origin_timestamp: Timestamp::ZERO };
    let mut bytes = [0; 44];
    Message { header, body, tlvs: Tlvs::NONE }.emit(&mut bytes).unwrap();
    assert_eq!(bytes[6..8], [0x02, 0x08]);
    let cleared = header.flags.with(Flags::TWO_STEP, false).with(Flags::LEAP61, true);
    assert_eq!(cleared, Flags::PTP_TIMESCALE | Flags::LEAP61);
}

#[test]
fn clock_accuracy_bounds_grow_with_the_code() {
    use ptp_common::wire::ClockAccuracy;
    let bounds: Vec<_> =
        (0..=0xff).filter_map(|code| ClockAccuracy(code).bound_ns().map(|ns| (code, ns))).collect();
    assert!(bounds.is_sorted_by_key(|&(_, ns)| ns));
    assert_eq!(bounds.first(), Some(&(0x17, 1)));
    assert_eq!(bounds.last(), Some(&(0x30, 10_000_000_000)));
    assert_eq!(ClockAccuracy(0x1f).bound_ns(), Some(10));
}

#[test]
fn clock_accuracy_is_the_upper_edge_of_its_row_of_table_5() {
    use ptp_common::{time::Duration, wire::ClockAccuracy};
    // What the rows say, from "within 1 ps" to "within 10 s".
    let table = [
        "1 ps", "2.5 ps", "10 ps", "25 ps", "100 ps", "250 ps", "1 ns", "2.5 ns", "10 ns", "25 ns",
        "100 ns", "250 ns", "1 µs", "2.5 µs", "10 µs", "25 µs", "100 µs", "250 µs", "1 ms",
        "2.5 ms", "10 ms", "25 ms", "100 ms", "250 ms", "1 s", "10 s",
    ];
    for (code, text) in (0x17..).zip(table) {
        let accuracy = ClockAccuracy(code);
        assert_eq!(accuracy.to_string(), text);
        let (value, unit) = text.split_once(' ').unwrap();
        let unit_ps = match unit {
            "ps" => 1.0,
            "ns" => 1e3,
            "µs" => 1e6,
            "ms" => 1e9,
            _ => 1e12,
        };
        let ps = (value.parse::<f64>().unwrap() * unit_ps).ceil() as u64;
        assert_eq!(accuracy.bound_ps(), Some(ps), "{code:#x}");
        let bound = accuracy.bound().unwrap();
        assert!(bound.as_nanos_f64() * 1e3 >= ps as f64 && bound > Duration::ZERO);
        let less = bound - Duration::from_scaled_nanos(1);
        assert!(less.as_nanos_f64() * 1e3 < ps as f64);
    }
}

#[test]
fn clock_accuracy_that_claims_nothing_has_no_bound() {
    use ptp_common::wire::ClockAccuracy;
    for (code, text) in [(0x31, "more than 10 s"), (0xfe, "unknown"), (0x00, "reserved (0x00)")] {
        assert_eq!(ClockAccuracy(code).bound(), None);
        assert_eq!(ClockAccuracy(code).to_string(), text);
    }
    let claiming = (0..=0xff).filter(|code| ClockAccuracy(*code).bound().is_some());
    assert!(claiming.eq(0x17..=0x30));
}

proptest! {
    #[test]
    fn authentication_stands_last_and_leaves_the_message_as_it_was(
        sample in support::message(),
        (spp, key_id, words) in (any::<u8>(), any::<u32>(), 0..=16_u8),
    ) {
        prop_assume!(sample.tlvs.iter().all(|(kind, _)| *kind != TlvType::AUTHENTICATION));
        let tlv = Authentication { spp, key_id, icv_length: 2 * words };
        let mut buffer = [0xa5; 2048];
        let (protected, icv) = tlv.append(&sample.bytes, &mut buffer).unwrap();
        prop_assert!(icv.iter().all(|byte| *byte == 0));
        let length = protected.len() + icv.len();
        prop_assert_eq!(length, sample.bytes.len() + tlv.wire_length());
        // Padding behind it is not looked at.
        let view = MessageView::new(&buffer[..length + 9]).unwrap();
        prop_assert_eq!(view.header(), sample.header);
        let read = AuthenticationView::of(&view).unwrap().unwrap();
        prop_assert_eq!((read.spp(), read.key_id()), (spp, key_id));
        prop_assert_eq!(read.parameters(), SecurityParameters::default());
        let icv_length = usize::from(tlv.icv_length);
        let (protected, icv) = read.split(icv_length).unwrap();
        prop_assert_eq!((protected.len(), icv.len()), (length - icv_length, icv_length));
        prop_assert_eq!(read.split(icv_length + 2), None);
        prop_assert_eq!(&read.without()[4..], &sample.bytes[4..]);
    }

    #[test]
    fn authentication_that_is_not_last_or_too_short_is_refused(sample in support::message()) {
        prop_assume!(sample.tlvs.iter().all(|(kind, _)| *kind != TlvType::AUTHENTICATION));
        let tlv = Authentication { spp: 1, key_id: 2, icv_length: 16 };
        let append = |message: &[u8]| {
            let mut buffer = [0; 2048];
            let (protected, icv) = tlv.append(message, &mut buffer).unwrap();
            let length = protected.len() + icv.len();
            buffer[..length].to_vec()
        };
        let of = |bytes: &[u8]| AuthenticationView::of(&MessageView::new(bytes).unwrap()).map(drop);
        let once = append(&sample.bytes);
        prop_assert_eq!(of(&once), Ok(()));
        prop_assert!(matches!(of(&append(&once)), Err(WireError::Tlv(_))));
        let mut short = sample.bytes.clone();
        short.extend([0x80, 0x09, 0, 4, 1, 0, 0, 0]);
        let length = short.len() as u16;
        short[2..4].copy_from_slice(&length.to_be_bytes());
        prop_assert!(matches!(of(&short), Err(WireError::Tlv(_))));
    }
}
