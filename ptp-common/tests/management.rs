//! Management TLVs: lengths as the standard gives them, and the same bytes again after a round trip.

use proptest::prelude::*;
use ptp_common::{
    data_set::{CurrentDataSet, DefaultDataSet},
    wire::{
        ClockAccuracy, ClockIdentity, ClockQuality, PortIdentity, TimeInterval, TimeSource, Tlv,
        TlvType, Tlvs,
        management::{
            ClockDescription, ManagementData, ManagementErrorId, ManagementEvent, ManagementId,
            ManagementTlv, NetworkProtocol, PortAddress, SubscribeEvents, TimeStatus,
            UnicastMaster, UnicastMasters,
        },
    },
};

const KNOWN: [ManagementId; 36] = [
    ManagementId::DEFAULT_DATA_SET,
    ManagementId::CURRENT_DATA_SET,
    ManagementId::PARENT_DATA_SET,
    ManagementId::TIME_PROPERTIES_DATA_SET,
    ManagementId::PORT_DATA_SET,
    ManagementId::PRIORITY1,
    ManagementId::PRIORITY2,
    ManagementId::TIME_STATUS_NP,
    ManagementId::PORT_STATS_NP,
    ManagementId::DOMAIN,
    ManagementId::SLAVE_ONLY,
    ManagementId::LOG_ANNOUNCE_INTERVAL,
    ManagementId::ANNOUNCE_RECEIPT_TIMEOUT,
    ManagementId::LOG_SYNC_INTERVAL,
    ManagementId::VERSION_NUMBER,
    ManagementId::CLOCK_ACCURACY,
    ManagementId::TRACEABILITY_PROPERTIES,
    ManagementId::TIMESCALE_PROPERTIES,
    ManagementId::PATH_TRACE_ENABLE,
    ManagementId::ALTERNATE_TIME_OFFSET_MAX_KEY,
    ManagementId::MASTER_ONLY,
    ManagementId::DELAY_MECHANISM,
    ManagementId::LOG_MIN_PDELAY_REQ_INTERVAL,
    ManagementId::SYNCHRONIZATION_UNCERTAIN_NP,
    ManagementId::UTC_PROPERTIES,
    ManagementId::ALTERNATE_TIME_OFFSET_ENABLE,
    ManagementId::ALTERNATE_TIME_OFFSET_PROPERTIES,
    ManagementId::GRANDMASTER_SETTINGS_NP,
    ManagementId::PORT_DATA_SET_NP,
    ManagementId::SUBSCRIBE_EVENTS_NP,
    ManagementId::PORT_SERVICE_STATS_NP,
    ManagementId::PORT_HWCLOCK_NP,
    ManagementId::POWER_PROFILE_SETTINGS_NP,
    ManagementId::CMLDS_INFO_NP,
    ManagementId::PORT_CORRECTIONS_NP,
    ManagementId::EXTERNAL_GRANDMASTER_PROPERTIES_NP,
];

const OF_ANY_LENGTH: [ManagementId; 6] = [
    ManagementId::CLOCK_DESCRIPTION,
    ManagementId::USER_DESCRIPTION,
    ManagementId::PATH_TRACE_LIST,
    ManagementId::ALTERNATE_TIME_OFFSET_NAME,
    ManagementId::PORT_PROPERTIES_NP,
    ManagementId::UNICAST_MASTER_TABLE_NP,
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
        let zeros = vec![0; length];
        let data = ManagementData::read(id, &zeros).unwrap();
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

#[test]
fn every_identifier_has_one_number_and_one_name() {
    let named = ManagementId::NAMED;
    assert!(named.windows(2).all(|pair| pair[0].0 < pair[1].0), "{named:?}");
    assert!(KNOWN.iter().chain(&OF_ANY_LENGTH).all(|id| id.is_named()));
    assert!(!ManagementId(0x2fff).is_named());
}

#[test]
fn description_is_laid_out_as_in_15_5_3_1_2() {
    let description = ClockDescription {
        clock_type: 0x8000,
        physical_layer_protocol: b"IEEE 802.3",
        physical_address: &[2, 0, 0, 0, 0, 1],
        protocol_address: PortAddress {
            protocol: NetworkProtocol::UDP_IPV4,
            address: &[10, 0, 0, 1],
        },
        manufacturer_identity: [0; 3],
        product_description: b";;",
        revision_data: b";;1",
        user_description: b"",
        profile_identity: [0, 0x1b, 0x19, 0, 1, 0],
    };
    let mut bytes = [0xa5; 64];
    let length = ManagementData::Description(description).emit(&mut bytes).unwrap();
    let mut expected = vec![0x80, 0, 10];
    expected.extend(b"IEEE 802.3");
    expected.extend([0, 6, 2, 0, 0, 0, 0, 1, 0, 1, 0, 4, 10, 0, 0, 1, 0, 0, 0, 0]);
    expected.extend(b"\x02;;\x03;;1\x00\x00\x1b\x19\x00\x01\x00");
    expected.resize(expected.len().next_multiple_of(2), 0);
    assert_eq!(bytes[..length], expected);
    let read = ManagementData::read(ManagementId::CLOCK_DESCRIPTION, &expected);
    assert_eq!(read, Some(ManagementData::Description(description)));
    assert_eq!(ManagementData::read(ManagementId::CLOCK_DESCRIPTION, &expected[..20]), None);
}

#[test]
fn table_of_unicast_partners_is_whole_or_none() {
    let master = UnicastMaster {
        port_identity: PortIdentity { clock_identity: ClockIdentity([7; 8]), port_number: 1 },
        clock_quality: ClockQuality {
            clock_class: 6,
            clock_accuracy: ClockAccuracy(0x21),
            offset_scaled_log_variance: 0x4e5d,
        },
        is_selected: true,
        state: 3,
        priority1: 128,
        priority2: 127,
        address: PortAddress { protocol: NetworkProtocol::UDP_IPV4, address: &[10, 0, 0, 9] },
    };
    let mut entries = [0; 64];
    let length = master.emit(&mut entries).unwrap();
    assert_eq!(master.emit(&mut entries[length..]), Some(length));
    let table = UnicastMasters::new(&entries[..2 * length]).unwrap();
    assert_eq!((table.count(), table.iter().last()), (2, Some(master)));
    let mut bytes = [0; 128];
    let written = ManagementData::UnicastMasters(table).emit(&mut bytes).unwrap();
    let id = ManagementId::UNICAST_MASTER_TABLE_NP;
    let read = ManagementData::read(id, &bytes[..written]);
    assert_eq!(read, Some(ManagementData::UnicastMasters(table)));
    assert_eq!(ManagementData::read(id, &bytes[..written - 4]), None);
    assert!(UnicastMasters::new(&entries[..length + 3]).is_none());
}

#[test]
fn events_are_counted_from_the_lowest_bit_of_the_first_octet() {
    let mut subscribed = SubscribeEvents::none();
    subscribed.events[0] = 0b0101;
    assert!(subscribed.has(ManagementEvent::PortState));
    assert!(!subscribed.has(ManagementEvent::TimeSync));
    assert!(subscribed.has(ManagementEvent::ParentDataSet));
    assert!(!subscribed.has(ManagementEvent::Cmlds));
}

proptest! {
    #[test]
    fn payloads_of_any_length_survive_a_round_trip_or_are_refused(
        at in 0..OF_ANY_LENGTH.len(),
        bytes in prop::collection::vec(0..8_u8, 0..120),
    ) {
        let id = OF_ANY_LENGTH[at];
        if let Some(data) = ManagementData::read(id, &bytes) {
            let mut again = vec![0xa5; ManagementData::MAX_LENGTH];
            let length = data.emit(&mut again).unwrap();
            prop_assert!(length <= bytes.len().next_multiple_of(2) && length.is_multiple_of(2));
            prop_assert_eq!(ManagementData::read(id, &again[..length]), Some(data));
            prop_assert!(length == 0 || data.emit(&mut again[..length - 1]).is_err());
        }
    }

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
        prop_assume!(!ManagementData::is_of_any_length(id));
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
