//! Management TLVs: lengths as the standard gives them, and the same bytes again after a round trip.

use proptest::prelude::*;
use ptp_common::{
    data_set::{CurrentDataSet, DefaultDataSet},
    wire::{
        ClockAccuracy, ClockIdentity, ClockQuality, PortIdentity, TimeInterval, TimeSource, Tlv,
        TlvType, Tlvs,
        management::{ManagementData, ManagementErrorId, ManagementId, ManagementTlv, TimeStatus},
    },
};

const KNOWN: [ManagementId; 9] = [
    ManagementId::DEFAULT_DATA_SET,
    ManagementId::CURRENT_DATA_SET,
    ManagementId::PARENT_DATA_SET,
    ManagementId::TIME_PROPERTIES_DATA_SET,
    ManagementId::PORT_DATA_SET,
    ManagementId::PRIORITY1,
    ManagementId::PRIORITY2,
    ManagementId::TIME_STATUS_NP,
    ManagementId::PORT_STATS_NP,
];

#[test]
fn default_data_set_is_laid_out_as_in_table_70() {
    let data = ManagementData::Default(DefaultDataSet {
        two_step: true,
        client_only: true,
        number_ports: 2,
        priority1: 128,
        clock_quality: ClockQuality {
            clock_class: 255,
            clock_accuracy: ClockAccuracy(0xfe),
            offset_scaled_log_variance: 0xffff,
        },
        priority2: 127,
        clock_identity: ClockIdentity([1, 2, 3, 4, 5, 6, 7, 8]),
        domain_number: 24,
    });
    let mut bytes = [0xa5; 20];
    assert_eq!(data.emit(&mut bytes), Ok(20));
    let expected = [3, 0, 0, 2, 128, 255, 0xfe, 0xff, 0xff, 127, 1, 2, 3, 4, 5, 6, 7, 8, 24, 0];
    assert_eq!(bytes, expected);
}

#[test]
fn current_data_set_is_laid_out_as_in_table_71() {
    let data = ManagementData::Current(CurrentDataSet {
        steps_removed: 1,
        offset_from_master: TimeInterval(-2 << 16),
        mean_path_delay: TimeInterval(0x0102_0304),
    });
    let mut bytes = [0; 18];
    data.emit(&mut bytes).unwrap();
    let expected = [0, 1, 255, 255, 255, 255, 255, 254, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4];
    assert_eq!(bytes, expected);
}

#[test]
fn time_status_ends_with_presence_and_identity() {
    let status = TimeStatus {
        master_offset: -5,
        gm_present: true,
        gm_identity: ClockIdentity([9; 8]),
        ..TimeStatus::default()
    };
    let mut bytes = [0; 50];
    ManagementData::TimeStatus(status).emit(&mut bytes).unwrap();
    assert_eq!(bytes[..8], (-5i64).to_be_bytes());
    assert_eq!(bytes[38..], [0, 0, 0, 1, 9, 9, 9, 9, 9, 9, 9, 9]);
}

#[test]
fn error_tlv_names_error_and_request() {
    let tlv =
        ManagementTlv::Error { error: ManagementErrorId::NOT_SUPPORTED, id: ManagementId(0x2007) };
    let mut bytes = [0xa5; 12];
    assert_eq!(tlv.emit(&mut bytes), Ok(12));
    assert_eq!(bytes, [0, 2, 0, 8, 0, 6, 0x20, 7, 0, 0, 0, 0]);
    let back = Tlvs::new(&bytes).unwrap().iter().next().and_then(ManagementTlv::read);
    assert_eq!(back, Some(tlv));
}

#[test]
fn short_buffer_is_an_error_and_no_panic() {
    for id in KNOWN {
        let length = ManagementData::length(id).unwrap();
        assert!(length <= ManagementData::MAX_LENGTH && length.is_multiple_of(2));
        let data = ManagementData::read(id, &vec![0; length]).unwrap();
        assert!(data.emit(&mut vec![0; length - 1]).is_err());
    }
    let odd = ManagementTlv::Data { id: ManagementId::NULL, payload: &[1] };
    assert!(odd.emit(&mut [0; 64]).is_err());
}

#[test]
fn time_source_and_ports_survive() {
    let mut bytes = [0; 4];
    let data = ManagementData::read(ManagementId::TIME_PROPERTIES_DATA_SET, &[0, 37, 0x3c, 0x20]);
    let Some(ManagementData::TimeProperties(properties)) = data else { panic!("{data:?}") };
    assert_eq!(properties.time_source, TimeSource::GNSS);
    ManagementData::TimeProperties(properties).emit(&mut bytes).unwrap();
    assert_eq!(bytes, [0, 37, 0x3c, 0x20]);
    let port = PortIdentity { clock_identity: ClockIdentity([1; 8]), port_number: 3 };
    let stats = ManagementData::length(ManagementId::PORT_STATS_NP).unwrap();
    let mut payload = vec![0; stats];
    payload[..8].fill(1);
    payload[9] = 3;
    payload[10] = 7;
    let Some(ManagementData::PortStats(stats)) =
        ManagementData::read(ManagementId::PORT_STATS_NP, &payload)
    else {
        panic!("the length is right")
    };
    assert_eq!((stats.port_identity, stats.received[0]), (port, 7));
}

proptest! {
    /// What was read is written again as other bytes at most where something is reserved, and reads
    /// as the same again.
    #[test]
    fn every_payload_survives_a_round_trip(
        at in 0..KNOWN.len(),
        bytes in prop::collection::vec(any::<u8>(), ManagementData::MAX_LENGTH),
    ) {
        let id = KNOWN[at];
        let payload = &bytes[..ManagementData::length(id).unwrap()];
        let data = ManagementData::read(id, payload).unwrap();
        prop_assert_eq!(data.id(), id);
        let mut again = vec![0xa5; payload.len()];
        prop_assert_eq!(data.emit(&mut again), Ok(payload.len()));
        prop_assert_eq!(ManagementData::read(id, &again), Some(data));
    }

    #[test]
    fn wrong_lengths_and_unknown_identifiers_are_refused(id: u16, bytes: Vec<u8>) {
        let id = ManagementId(id);
        let data = ManagementData::read(id, &bytes);
        prop_assert_eq!(data.is_some(), ManagementData::length(id) == Some(bytes.len()));
    }

    #[test]
    fn tlv_survives_a_round_trip(id: u16, mut payload: Vec<u8>) {
        payload.truncate(payload.len() / 2 * 2);
        let tlv = ManagementTlv::Data { id: ManagementId(id), payload: &payload };
        let mut bytes = vec![0; payload.len() + 6];
        prop_assert_eq!(tlv.emit(&mut bytes), Ok(bytes.len()));
        let tlvs = Tlvs::new(&bytes).unwrap();
        prop_assert_eq!(tlvs.iter().next().and_then(ManagementTlv::read), Some(tlv));
    }

    #[test]
    fn any_tlv_is_read_without_a_panic(kind: u16, value: Vec<u8>) {
        let tlv = ManagementTlv::read(Tlv { kind: TlvType(kind), value: &value });
        prop_assert!(tlv.is_none() || (1..=2).contains(&kind));
    }
}
