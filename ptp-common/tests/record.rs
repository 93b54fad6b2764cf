//! Claims about the ring record: what a kernel program wrote is read back, anything else is refused.

use core::mem::offset_of;
use proptest::{collection::vec, prelude::*};
use ptp_common::{
    classify::Network,
    record::{
        Direction, Hook, MESSAGE_CAPACITY, RECORD_SIZE, RECORD_VERSION, RawRecord, Record,
        RecordError,
    },
};

/// A record as the kernel program lays it out, every field different from every other.
fn image() -> [u8; RECORD_SIZE] {
    let mut bytes = [0; RECORD_SIZE];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(offset_of!(RawRecord, version), &[RECORD_VERSION]);
    put(offset_of!(RawRecord, hook), &[Hook::TcEgress as u8]);
    put(offset_of!(RawRecord, direction), &[Direction::Egress as u8]);
    put(offset_of!(RawRecord, network), &[Network::Ipv6 as u8]);
    put(offset_of!(RawRecord, ifindex), &7u32.to_ne_bytes());
    put(offset_of!(RawRecord, cpu), &3u32.to_ne_bytes());
    put(offset_of!(RawRecord, queue), &9u32.to_ne_bytes());
    put(offset_of!(RawRecord, serial), &0x0003_0000_0000_0001u64.to_ne_bytes());
    put(offset_of!(RawRecord, mono_ns), &1_000_000_000_001u64.to_ne_bytes());
    put(offset_of!(RawRecord, done_ns), &1_000_000_000_501u64.to_ne_bytes());
    put(offset_of!(RawRecord, tai_ns), &1_700_000_000_000_000_002u64.to_ne_bytes());
    put(offset_of!(RawRecord, stack_ns), &1_700_000_000_000_000_003u64.to_ne_bytes());
    put(offset_of!(RawRecord, hardware_ns), &4u64.to_ne_bytes());
    put(offset_of!(RawRecord, vlan), &0x6064u16.to_ne_bytes());
    put(offset_of!(RawRecord, vlan) + 2, &0x0065u16.to_ne_bytes());
    put(offset_of!(RawRecord, vlan_count), &[2]);
    put(offset_of!(RawRecord, vlan_offloaded), &[1]);
    put(offset_of!(RawRecord, source_port), &319u16.to_ne_bytes());
    put(offset_of!(RawRecord, destination_port), &320u16.to_ne_bytes());
    put(offset_of!(RawRecord, message_length), &44u16.to_ne_bytes());
    put(offset_of!(RawRecord, packet_length), &106u32.to_ne_bytes());
    put(offset_of!(RawRecord, source), &[0xfe; 16]);
    put(offset_of!(RawRecord, destination), &[0xff; 16]);
    put(offset_of!(RawRecord, message), &[0x5a; MESSAGE_CAPACITY]);
    bytes
}

#[test]
fn every_field_is_read_from_its_place() {
    let record = Record::parse(&image()).unwrap();
    assert_eq!((record.hook, record.direction), (Hook::TcEgress, Direction::Egress));
    assert_eq!(record.network, Network::Ipv6);
    assert_eq!((record.ifindex, record.cpu, record.queue), (7, 3, 9));
    assert_eq!(record.serial, 0x0003_0000_0000_0001);
    assert_eq!(record.mono_ns, 1_000_000_000_001);
    assert_eq!(record.done_ns, 1_000_000_000_501);
    assert_eq!(record.tai_ns, 1_700_000_000_000_000_002);
    assert_eq!(record.stack_ns, 1_700_000_000_000_000_003);
    assert_eq!(record.hardware_ns, 4);
    assert_eq!((record.vlan, record.vlan_count), ([0x6064, 0x0065], 2));
    assert!(record.vlan_offloaded);
    assert_eq!((record.source_port, record.destination_port), (319, 320));
    assert_eq!(record.packet_length, 106);
    assert_eq!((record.source, record.destination), ([0xfe; 16], [0xff; 16]));
    assert_eq!(record.message(), [0x5a; 44]);
}

#[test]
fn another_version_is_named_whatever_its_size() {
    let mut bytes = image().to_vec();
    bytes[offset_of!(RawRecord, version)] = RECORD_VERSION + 1;
    bytes.extend([0; 8]);
    assert_eq!(Record::parse(&bytes), Err(RecordError::Version(RECORD_VERSION + 1)));
    assert_eq!(Record::parse(&[]), Err(RecordError::Size(0)));
    assert_eq!(Record::parse(&image()[..RECORD_SIZE - 1]), Err(RecordError::Size(RECORD_SIZE - 1)));
}

#[test]
fn unknown_enumeration_values_are_refused() {
    for (at, legal) in [
        (offset_of!(RawRecord, hook), &[1u8, 2, 3, 4][..]),
        (offset_of!(RawRecord, direction), &[0, 1]),
        (offset_of!(RawRecord, network), &[0, 4, 6]),
        (offset_of!(RawRecord, vlan_count), &[0, 1, 2]),
    ] {
        for value in 0..=0xff {
            let mut bytes = image();
            bytes[at] = value;
            match Record::parse(&bytes) {
                Ok(_) => assert!(legal.contains(&value)),
                Err(error) => {
                    assert!(matches!(error, RecordError::Field(_, code) if code == value));
                    assert!(!legal.contains(&value));
                }
            }
        }
    }
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(bytes in vec(any::<u8>(), 0..2 * RECORD_SIZE)) {
        let _ = Record::parse(&bytes);
    }

    #[test]
    fn no_field_makes_the_reader_panic(
        noise in vec(any::<u8>(), RECORD_SIZE), hook in 0..6u8, direction in 0..3u8,
        network in 0..8u8, vlan_count in 0..4u8,
    ) {
        let mut bytes = noise;
        bytes[offset_of!(RawRecord, version)] = RECORD_VERSION;
        bytes[offset_of!(RawRecord, hook)] = hook;
        bytes[offset_of!(RawRecord, direction)] = direction;
        bytes[offset_of!(RawRecord, network)] = network;
        bytes[offset_of!(RawRecord, vlan_count)] = vlan_count;
        if let Ok(record) = Record::parse(&bytes) {
            prop_assert!(record.message().len() <= MESSAGE_CAPACITY);
        }
    }
}
