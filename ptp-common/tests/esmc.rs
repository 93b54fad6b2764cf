//! Claims about ESMC: every message survives a round trip, no bytes make the reader panic, and the frames that
//! are made here are what tshark takes them for.

use std::{io::Write as _, process::Command};

use proptest::{collection::vec, prelude::*};
use ptp_common::{
    esmc::{ETHERTYPE_SLOW, Esmc, EsmcError, ExtendedQuality, QualityLevel, SLOW_GROUP},
    wire::ClockIdentity,
};

fn bytes(message: &Esmc) -> Vec<u8> {
    let mut buffer = [0; Esmc::EXTENDED_LENGTH];
    let length = message.emit(&mut buffer);
    buffer[..length].to_vec()
}

fn message() -> impl Strategy<Value = Esmc> {
    let extended = any::<(u8, [u8; 8], bool, bool, u8, u8)>().prop_map(
        |(enhanced_ssm, identity, is_mixed, is_partial, cascaded_eeecs, cascaded_eecs)| {
            let clock_identity = ClockIdentity(identity);
            ExtendedQuality {
                enhanced_ssm,
                clock_identity,
                is_mixed,
                is_partial,
                cascaded_eeecs,
                cascaded_eecs,
            }
        },
    );
    (any::<bool>(), 0..16_u8, proptest::option::of(extended))
        .prop_map(|(is_event, ssm, extended)| Esmc { is_event, ssm, extended })
}

proptest! {
    #[test]
    fn every_message_survives_a_round_trip_with_any_padding(message in message(), padding in 0..64_usize) {
        let mut padded = bytes(&message);
        padded.resize(padded.len() + padding, 0);
        prop_assert_eq!(Esmc::parse(&padded), Ok(message));
    }

    #[test]
    fn a_message_cut_anywhere_is_refused_or_has_lost_its_extended_tlv(
        message in message(), at in any::<prop::sample::Index>(),
    ) {
        let whole = bytes(&message);
        let cut = &whole[..at.index(whole.len())];
        match Esmc::parse(cut) {
            Err(EsmcError::Truncated { .. } | EsmcError::Tlv(_)) => {}
            // Fewer than three octets behind the QL TLV are no TLV.
            read => prop_assert_eq!(read, Ok(Esmc { extended: None, ..message })),
        }
    }

    #[test]
    fn no_bytes_make_the_reader_panic_and_what_is_read_can_be_written(
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 0..6), message in message(),
        more in vec(any::<u8>(), 0..40),
    ) {
        let mut any = bytes(&message);
        any.extend(more);
        for (at, value) in damage {
            let at = at.index(any.len());
            any[at] = value;
        }
        if let Ok(read) = Esmc::parse(&any) {
            prop_assert_eq!(Esmc::parse(&bytes(&read)), Ok(read));
        }
    }
}

#[test]
fn levels_are_those_of_the_tables_and_their_order_is_that_of_both_options() {
    let of = |ssm, enhanced| QualityLevel::of(ssm, enhanced).name();
    for (ssm, enhanced, name) in [
        (0x2, 0xff, "QL-PRC"),
        (0x2, 0x20, "QL-PRTC"),
        (0x2, 0x21, "QL-ePRTC"),
        (0x2, 0x23, "QL-ePRC"),
        (0x4, 0xff, "QL-SSU-A/TNC"),
        (0x8, 0xff, "QL-SSU-B"),
        (0xb, 0xff, "QL-EEC1"),
        (0xb, 0x22, "QL-eEEC"),
        (0xf, 0xff, "QL-DNU"),
        (0x1, 0xff, "QL-PRS"),
        (0x1, 0x20, "QL-PRTC"),
        (0xa, 0xff, "QL-EEC2"),
        (0x3, 0xff, "QL-INV"),
    ] {
        assert_eq!(of(ssm, enhanced), name, "{ssm:#x} {enhanced:#x}");
    }
    let ranks = |names: &[&str]| -> Vec<u8> {
        let rank = |name: &&str| QualityLevel::ALL.iter().find(|level| level.name() == *name);
        names.iter().map(|name| rank(name).unwrap().rank()).collect()
    };
    for order in [
        [
            "QL-ePRTC",
            "QL-PRTC",
            "QL-ePRC",
            "QL-PRC",
            "QL-SSU-A/TNC",
            "QL-SSU-B",
            "QL-eEEC",
            "QL-EEC1",
            "QL-DNU",
        ],
        [
            "QL-PRTC",
            "QL-PRS",
            "QL-STU",
            "QL-ST2",
            "QL-SSU-A/TNC",
            "QL-ST3E",
            "QL-eEEC",
            "QL-EEC2",
            "QL-DNU",
        ],
    ] {
        assert!(ranks(&order).is_sorted_by(|one, other| one < other), "{order:?}");
    }
}

#[test]
fn other_slow_protocols_and_versions_are_refused_with_the_cause() {
    let whole = bytes(&Esmc { is_event: false, ssm: 2, extended: None });
    let with = |at: usize, value: u8| {
        let mut other = whole.clone();
        other[at] = value;
        Esmc::parse(&other)
    };
    // LACP has subtype 1.
    assert_eq!(with(0, 1), Err(EsmcError::Other));
    assert_eq!(with(2, 0), Err(EsmcError::Other));
    assert_eq!(with(6, 0x20), Err(EsmcError::Version(2)));
    assert_eq!(with(10, 2), Err(EsmcError::Tlv(10)));
    assert_eq!(with(12, 5), Err(EsmcError::Tlv(10)));
    assert_eq!(Esmc::parse(&whole[..9]), Err(EsmcError::Truncated { have: 9, need: 14 }));
}

/// A capture file (libpcap's oldest format) with one frame of Ethernet.
fn capture(frame: &[u8]) -> Vec<u8> {
    let mut file = Vec::new();
    for word in [
        0xa1b2_c3d4_u32,
        0x0004_0002,
        0,
        0,
        65_535,
        1,
        0,
        0,
        frame.len() as u32,
        frame.len() as u32,
    ] {
        file.extend(word.to_le_bytes());
    }
    file.extend(frame);
    file
}

#[test]
fn tshark_reads_the_frames_as_they_are_meant() {
    let extended = ExtendedQuality {
        enhanced_ssm: 0x20,
        clock_identity: ClockIdentity([0x00, 0x1b, 0x19, 0xff, 0xfe, 1, 2, 3]),
        is_mixed: true,
        is_partial: false,
        cascaded_eeecs: 3,
        cascaded_eecs: 1,
    };
    const FIELDS: [&str; 7] = [
        "ossp.esmc.event_flag",
        "ossp.esmc.tlv_ql_ssm",
        "ossp.esmc.tlv_ext_ql_essm",
        "ossp.esmc.tlv_ext_ql_clockid",
        "ossp.esmc.tlv_ext_ql_flag_mixed",
        "ossp.esmc.tlv_ext_ql_eeec",
        "ossp.esmc.tlv_ext_ql_eec",
    ];
    for (message, wanted) in [
        (Esmc { is_event: false, ssm: 0xb, extended: None }, vec![0, 0xb]),
        (
            Esmc { is_event: true, ssm: 0x2, extended: Some(extended) },
            vec![1, 0x2, 0x20, 0x001b_19ff_fe01_0203, 1, 3, 1],
        ),
    ] {
        let mut frame = [SLOW_GROUP.as_slice(), &[2, 0, 0, 0, 0, 1]].concat();
        frame.extend(ETHERTYPE_SLOW.to_be_bytes());
        frame.extend(bytes(&message));
        frame.resize(60, 0);
        let (path, mut file) = tempfile();
        file.write_all(&capture(&frame)).unwrap();
        let fields = FIELDS.map(|field| ["-e", field]).concat();
        let output =
            Command::new("tshark").args(["-r", &path, "-T", "fields"]).args(fields).output();
        let _ = std::fs::remove_file(&path);
        let Ok(output) = output else {
            eprintln!("skipped: tshark cannot be started");
            return;
        };
        let told = String::from_utf8_lossy(&output.stdout);
        let read: Vec<u64> = told.split_whitespace().map(number).collect();
        assert_eq!(read, wanted, "{told}{}", String::from_utf8_lossy(&output.stderr));
    }
}

/// A field as tshark writes it.
fn number(text: &str) -> u64 {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).unwrap(),
        None => match text {
            "True" => 1,
            "False" => 0,
            _ => text.parse().unwrap(),
        },
    }
}

/// A new file in the directory for such, and its path.
fn tempfile() -> (String, std::fs::File) {
    let path = std::env::temp_dir().join(format!("ptp-esmc-{}.pcap", std::process::id()));
    let file = std::fs::File::create(&path).unwrap();
    (path.to_string_lossy().into_owned(), file)
}
