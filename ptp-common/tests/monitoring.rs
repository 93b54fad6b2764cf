//! What those who watch a clock are told: as long as linuxptp's messages were seen to be, and the same again after a
//! round trip.

use proptest::prelude::*;
use ptp_common::{
    data_set::{CurrentDataSet, ParentDataSet, TimeProperties},
    wire::{
        ClockAccuracy, ClockIdentity, ClockQuality, DelayTiming, EventTiming, NetSyncResponse,
        PortIdentity, SyncTiming, TimeInterval, Timestamp, Tlv, TlvType, Tlvs,
        management::{NetworkProtocol, PortAddress},
    },
};

const PARENT: PortIdentity =
    PortIdentity { clock_identity: ClockIdentity([1, 2, 3, 0xff, 0xfe, 4, 5, 6]), port_number: 1 };

fn at(seconds: u64, nanoseconds: u32) -> Timestamp {
    Timestamp::new(seconds, nanoseconds).unwrap()
}

fn sync() -> EventTiming {
    EventTiming::Sync(SyncTiming {
        sequence_id: 7,
        origin: at(1_000, 1),
        correction: TimeInterval(3 << 16),
        rate_offset: -1,
        ingress: at(1_000, 2),
    })
}

fn delay() -> EventTiming {
    EventTiming::Delay(DelayTiming {
        sequence_id: 8,
        origin: at(1_000, 3),
        correction: TimeInterval(-1),
        response: at(1_000, 4),
    })
}

/// Signaling of linuxptp with one record has 92 and 88 octets: 44 before the TLV.
#[test]
fn records_are_as_long_as_those_of_linuxptp_and_survive_a_round_trip() {
    for (timing, length) in [(sync(), 92 - 44), (delay(), 88 - 44)] {
        let mut bytes = [0xa5; EventTiming::MAX_LENGTH];
        assert_eq!(timing.emit(PARENT, &mut bytes), Ok(length));
        let tlv = Tlvs::new(&bytes[..length]).unwrap().iter().next().unwrap();
        let (source, records) = EventTiming::read(tlv).unwrap();
        assert_eq!((source, records.collect::<Vec<_>>()), (PARENT, vec![timing]));
        assert!(timing.emit(PARENT, &mut bytes[..length - 1]).is_err());
    }
}

#[test]
fn several_records_are_read_and_half_a_record_is_none() {
    let mut bytes = [0; EventTiming::MAX_LENGTH];
    let length = sync().emit(PARENT, &mut bytes).unwrap();
    let mut value = bytes[4..length].to_vec();
    value.extend_from_within(10..);
    let kind = TlvType::SLAVE_RX_SYNC_TIMING_DATA;
    let (_, records) = EventTiming::read(Tlv { kind, value: &value }).unwrap();
    assert_eq!(records.count(), 2);
    assert!(EventTiming::read(Tlv { kind, value: &value[..value.len() - 2] }).is_none());
    // A thousand million nanoseconds: that record alone is left out.
    value[18..22].fill(0xff);
    let (_, mut records) = EventTiming::read(Tlv { kind, value: &value }).unwrap();
    assert_eq!((records.next(), records.next()), (Some(sync()), None));
}

#[test]
fn answer_to_a_monitor_has_the_parents_address_and_survives_a_round_trip() {
    let clock_quality = ClockQuality {
        clock_class: 6,
        clock_accuracy: ClockAccuracy(0x21),
        offset_scaled_log_variance: 0x4e5d,
    };
    for address in [&[10, 0, 0, 1][..], &[0xfe; 16], &[2, 0, 0, 0, 0, 1]] {
        let response = NetSyncResponse {
            port_state: 9,
            parent_address: PortAddress { protocol: NetworkProtocol::UDP_IPV4, address },
            parent: ParentDataSet {
                parent_port_identity: PARENT,
                parent_stats: false,
                observed_offset_scaled_log_variance: 0xffff,
                observed_phase_change_rate: i32::MAX,
                grandmaster_priority1: 100,
                grandmaster_clock_quality: clock_quality,
                grandmaster_priority2: 101,
                grandmaster_identity: PARENT.clock_identity,
            },
            current: CurrentDataSet {
                steps_removed: 1,
                offset_from_master: TimeInterval(-5 << 16),
                mean_path_delay: TimeInterval(7 << 16),
            },
            time_properties: TimeProperties::UNKNOWN,
            last_sync: at(1_000, 5),
        };
        let mut value = [0; NetSyncResponse::MAX_LENGTH];
        let length = response.value(&mut value);
        assert_eq!(length, 70 + address.len());
        assert_eq!(NetSyncResponse::read(&value[..length]), Some(response));
        assert_eq!(NetSyncResponse::read(&value[..length - 1]), None);
    }
}

proptest! {
    #[test]
    fn any_value_is_read_without_a_panic(kind: u16, value: Vec<u8>) {
        let read = EventTiming::read(Tlv { kind: TlvType(kind), value: &value });
        prop_assert!(read.is_none_or(|(_, records)| records.count() * 30 <= value.len()));
        for kind in [TlvType::SLAVE_RX_SYNC_TIMING_DATA, TlvType::SLAVE_DELAY_TIMING_DATA_NP] {
            let read = EventTiming::read(Tlv { kind, value: &value });
            prop_assert!(read.is_none_or(|(_, records)| records.count() * 30 <= value.len()));
        }
        let _ = NetSyncResponse::read(&value);
    }
}
