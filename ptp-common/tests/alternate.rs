//! Claims about ALTERNATE_TIME_OFFSET_INDICATOR: what is written is read again, what linuxptp sent is read, and no bytes
//! make the reader panic or reach a terminal as anything but text.

use proptest::{collection::vec, prelude::*};
use ptp_common::wire::{AlternateTimeOffset, DisplayName, TlvBuilder};

fn offset() -> impl Strategy<Value = AlternateTimeOffset> {
    (any::<(u8, i32, i32)>(), 0..1_u64 << 48, "[A-Z]{0,10}").prop_map(
        |((key, current_offset_s, jump_s), next_jump_s, name)| AlternateTimeOffset {
            key,
            current_offset_s,
            jump_s,
            next_jump_s,
            name: DisplayName::new(&name),
        },
    )
}

proptest! {
    #[test]
    fn every_offset_survives_a_round_trip_among_others(offsets in vec(offset(), 0..4)) {
        let mut buffer = [0; 256];
        let mut tlvs = TlvBuilder::new(&mut buffer);
        for each in &offsets {
            let mut value = [0; AlternateTimeOffset::MAX_LENGTH];
            let length = each.value(&mut value);
            tlvs.push(AlternateTimeOffset::tlv(&value[..length])).unwrap();
        }
        let read: Vec<_> = AlternateTimeOffset::all(&tlvs.finish()).collect();
        prop_assert_eq!(read, offsets);
    }

    #[test]
    fn no_bytes_make_the_reader_panic_or_are_shown_as_control_characters(bytes in vec(any::<u8>(), 0..80)) {
        if let Some(read) = AlternateTimeOffset::read(&bytes) {
            prop_assert!(!read.name.to_string().chars().any(char::is_control));
        }
    }
}

#[test]
fn the_offset_of_central_europe_is_as_linuxptp_writes_it() {
    // 20 octets for a name of three letters, padded, as ptp4l 4.4 sends it.
    let value = [
        0, 0, 0, 0x0d, 0xeb, 0, 0, 0x0e, 0x10, 0, 0, 0x69, 0xc8, 0x87, 0xb5, 3, b'C', b'E', b'T', 0,
    ];
    let read = AlternateTimeOffset::read(&value).unwrap();
    assert_eq!((read.current_offset_s, read.jump_s), (3_563, 3_600));
    assert_eq!(read.name.to_string(), "CET");
    let mut again = [0; AlternateTimeOffset::MAX_LENGTH];
    let length = read.value(&mut again);
    assert_eq!(again[..length], value);
    assert_eq!(AlternateTimeOffset::read(&value[..18]), None, "the name is cut off");
}

#[test]
fn names_are_ten_symbols_at_the_most() {
    assert_eq!(DisplayName::new("Central European").to_string(), "Central Eu");
    assert_eq!(DisplayName::new("ÄÖÜÄÖÜÄÖÜÄ").octets().len(), 16);
}
