//! What a GET is answered with: the data sets of the clock from one port, those of ports from each port that is meant.

use ptp_common::wire::{
    Flags, PortIdentity,
    management::{
        AlternateOffsetProperties, ClockDescription, ManagementData, ManagementErrorId,
        ManagementId, PortAddress, PortHwclock, PortProperties, UnicastMasters,
    },
};

use super::{
    Reply,
    sets::{Alternates, DataSets, PortSets},
};

/// Ports that answer one request at the most.
const MAX_PORTS: usize = 64;
/// `clockType` of an ordinary clock, and of one with several ports.
const ORDINARY: u16 = 0x8000;
const BOUNDARY: u16 = 0x4000;
/// `profileIdentity` of the default profiles (annex I), and of those of G.8275.
const PROFILE_E2E: [u8; 6] = [0x00, 0x1b, 0x19, 0x00, 0x01, 0x00];
const PROFILE_P2P: [u8; 6] = [0x00, 0x1b, 0x19, 0x00, 0x02, 0x00];

/// The replies, each with the number of the port that it comes from; `own` is that of data sets of the clock.
pub(super) fn get<'a>(
    id: ManagementId,
    payload: &[u8],
    port_number: u16,
    own: u16,
    sets: &'a DataSets,
    path: &'a [u8],
) -> Vec<(u16, Reply<'a>)> {
    if is_of_ports(id) {
        return of_ports(id, port_number, own, sets);
    }
    let reply = match of_clock(id, payload, sets, path) {
        Ok(data) => Reply::Data(data),
        Err(error) => Reply::Error(error, id),
    };
    vec![(own, reply)]
}

/// Whether each port has its own.
pub(super) const fn is_of_ports(id: ManagementId) -> bool {
    matches!(
        id,
        ManagementId::NULL
            | ManagementId::CLOCK_DESCRIPTION
            | ManagementId::PORT_DATA_SET
            | ManagementId::LOG_ANNOUNCE_INTERVAL
            | ManagementId::ANNOUNCE_RECEIPT_TIMEOUT
            | ManagementId::LOG_SYNC_INTERVAL
            | ManagementId::VERSION_NUMBER
            | ManagementId::ENABLE_PORT
            | ManagementId::DISABLE_PORT
            | ManagementId::MASTER_ONLY
            | ManagementId::DELAY_MECHANISM
            | ManagementId::LOG_MIN_PDELAY_REQ_INTERVAL
            | ManagementId::PORT_DATA_SET_NP
            | ManagementId::PORT_PROPERTIES_NP
            | ManagementId::PORT_STATS_NP
            | ManagementId::PORT_SERVICE_STATS_NP
            | ManagementId::UNICAST_MASTER_TABLE_NP
            | ManagementId::PORT_HWCLOCK_NP
            | ManagementId::POWER_PROFILE_SETTINGS_NP
            | ManagementId::CMLDS_INFO_NP
            | ManagementId::PORT_CORRECTIONS_NP
    )
}

/// The path's identities as they are told.
pub(super) fn path_octets(sets: &DataSets) -> Vec<u8> {
    sets.path_trace.1.iter().flat_map(|identity| identity.0).collect()
}

fn of_clock<'a>(
    id: ManagementId,
    payload: &[u8],
    sets: &'a DataSets,
    path: &'a [u8],
) -> Result<ManagementData<'a>, ManagementErrorId> {
    let properties = &sets.time_properties;
    let flags = |mask: Flags| (properties.flags().0 & mask.0) as u8;
    let octet = |value: u8| Ok(ManagementData::Octet(id, value));
    match id {
        ManagementId::USER_DESCRIPTION => {
            Ok(ManagementData::UserDescription(sets.description.user.as_bytes()))
        }
        ManagementId::DEFAULT_DATA_SET => Ok(ManagementData::Default(sets.default)),
        ManagementId::CURRENT_DATA_SET => Ok(ManagementData::Current(sets.current)),
        ManagementId::PARENT_DATA_SET => Ok(ManagementData::Parent(sets.parent)),
        ManagementId::TIME_PROPERTIES_DATA_SET => Ok(ManagementData::TimeProperties(*properties)),
        ManagementId::PRIORITY1 => Ok(ManagementData::Priority1(sets.default.priority1)),
        ManagementId::PRIORITY2 => Ok(ManagementData::Priority2(sets.default.priority2)),
        ManagementId::DOMAIN => octet(sets.default.domain_number),
        ManagementId::SLAVE_ONLY => octet(u8::from(sets.default.client_only)),
        ManagementId::CLOCK_ACCURACY => octet(sets.default.clock_quality.clock_accuracy.0),
        ManagementId::UTC_PROPERTIES => {
            let leaps = u8::from(properties.leap61) | u8::from(properties.leap59) << 1;
            let flags = leaps | u8::from(properties.current_utc_offset_valid) << 2;
            Ok(ManagementData::Utc(properties.current_utc_offset, flags))
        }
        ManagementId::TRACEABILITY_PROPERTIES => {
            octet(flags(Flags::TIME_TRACEABLE | Flags::FREQUENCY_TRACEABLE))
        }
        ManagementId::TIMESCALE_PROPERTIES => octet(flags(Flags::PTP_TIMESCALE)),
        ManagementId::PATH_TRACE_LIST => Ok(ManagementData::PathTrace(path)),
        ManagementId::PATH_TRACE_ENABLE => octet(u8::from(sets.path_trace.0)),
        ManagementId::ALTERNATE_TIME_OFFSET_MAX_KEY => octet(Alternates::KEYS as u8 - 1),
        ManagementId::ALTERNATE_TIME_OFFSET_ENABLE
        | ManagementId::ALTERNATE_TIME_OFFSET_NAME
        | ManagementId::ALTERNATE_TIME_OFFSET_PROPERTIES => alternate(id, payload, sets),
        ManagementId::TIME_STATUS_NP => Ok(ManagementData::TimeStatus(sets.time_status)),
        ManagementId::GRANDMASTER_SETTINGS_NP => Ok(ManagementData::Grandmaster(sets.grandmaster)),
        ManagementId::SYNCHRONIZATION_UNCERTAIN_NP => {
            octet(sets.uncertain.map_or(u8::MAX, u8::from))
        }
        ManagementId::EXTERNAL_GRANDMASTER_PROPERTIES_NP => {
            Ok(ManagementData::ExternalGrandmaster(sets.external))
        }
        id if id.is_named() => Err(ManagementErrorId::NOT_SUPPORTED),
        _ => Err(ManagementErrorId::NO_SUCH_ID),
    }
}

/// A GET of these says in its payload which of them is meant; without one it is the first.
fn alternate<'a>(
    id: ManagementId,
    payload: &[u8],
    sets: &'a DataSets,
) -> Result<ManagementData<'a>, ManagementErrorId> {
    let key = payload.first().copied().unwrap_or(0);
    let place = sets.alternates.0.get(usize::from(key));
    let (is_on, each) = place.ok_or(ManagementErrorId::WRONG_VALUE)?;
    Ok(match id {
        ManagementId::ALTERNATE_TIME_OFFSET_ENABLE => ManagementData::AlternateEnable(key, *is_on),
        ManagementId::ALTERNATE_TIME_OFFSET_NAME => {
            ManagementData::AlternateName(key, each.name.octets())
        }
        _ => ManagementData::AlternateProperties(AlternateOffsetProperties {
            key,
            current_offset_s: each.current_offset_s,
            jump_s: each.jump_s,
            next_jump_s: each.next_jump_s,
        }),
    })
}

fn of_ports(
    id: ManagementId,
    port_number: u16,
    own: u16,
    sets: &DataSets,
) -> Vec<(u16, Reply<'_>)> {
    let is_meant = |number| [number, PortIdentity::ALL.port_number].contains(&port_number);
    let meant = sets
        .ports
        .iter()
        .filter(|port| is_meant(port.data.port_identity.port_number))
        .take(MAX_PORTS);
    let replies: Vec<_> =
        meant.map(|port| (port.data.port_identity.port_number, of_port(id, port, sets))).collect();
    if replies.is_empty() {
        // What the standard's interpretation 21 suggests for ports that do not exist.
        return vec![(own, Reply::Error(ManagementErrorId::WRONG_VALUE, id))];
    }
    replies
}

fn of_port<'a>(id: ManagementId, port: &'a PortSets, sets: &'a DataSets) -> Reply<'a> {
    let octet = |value: u8| Reply::Data(ManagementData::Octet(id, value));
    let data = &port.data;
    let port_identity = data.port_identity;
    match id {
        ManagementId::NULL | ManagementId::ENABLE_PORT | ManagementId::DISABLE_PORT => {
            Reply::Empty(id)
        }
        ManagementId::CLOCK_DESCRIPTION => Reply::Data(description(port, sets)),
        ManagementId::PORT_DATA_SET => Reply::Data(ManagementData::Port(*data)),
        ManagementId::LOG_ANNOUNCE_INTERVAL => octet(data.log_announce_interval as u8),
        ManagementId::ANNOUNCE_RECEIPT_TIMEOUT => octet(data.announce_receipt_timeout),
        ManagementId::LOG_SYNC_INTERVAL => octet(data.log_sync_interval as u8),
        ManagementId::VERSION_NUMBER => octet(data.version_number),
        ManagementId::MASTER_ONLY => octet(u8::from(port.transmitter_only)),
        ManagementId::DELAY_MECHANISM => octet(data.delay_mechanism),
        ManagementId::LOG_MIN_PDELAY_REQ_INTERVAL => octet(data.log_min_pdelay_req_interval as u8),
        ManagementId::PORT_DATA_SET_NP => Reply::Data(ManagementData::PortNp(port.np)),
        ManagementId::PORT_PROPERTIES_NP => {
            Reply::Data(ManagementData::PortProperties(PortProperties {
                port_identity,
                port_state: data.port_state,
                timestamping: u8::from(port.place.phc_index.is_some()),
                interface: port.place.interface.as_bytes(),
            }))
        }
        ManagementId::PORT_STATS_NP => Reply::Data(ManagementData::PortStats(port.stats)),
        ManagementId::PORT_SERVICE_STATS_NP => {
            Reply::Data(ManagementData::PortServiceStats(port.service))
        }
        ManagementId::UNICAST_MASTER_TABLE_NP => match UnicastMasters::new(&port.unicast_masters) {
            Some(table) => Reply::Data(ManagementData::UnicastMasters(table)),
            None => Reply::Error(ManagementErrorId::GENERAL_ERROR, id),
        },
        ManagementId::PORT_HWCLOCK_NP => Reply::Data(ManagementData::Hwclock(PortHwclock {
            port_identity,
            phc_index: port.place.phc_index.unwrap_or(-1),
            flags: 0,
        })),
        ManagementId::POWER_PROFILE_SETTINGS_NP => Reply::Data(ManagementData::Power(port.power)),
        ManagementId::CMLDS_INFO_NP => Reply::Data(ManagementData::Cmlds(port.link)),
        _ => Reply::Data(ManagementData::Corrections(port.corrections)),
    }
}

fn description<'a>(port: &'a PortSets, sets: &'a DataSets) -> ManagementData<'a> {
    let is_p2p = port.data.delay_mechanism == 2;
    ManagementData::Description(ClockDescription {
        clock_type: if sets.ports.len() > 1 { BOUNDARY } else { ORDINARY },
        physical_layer_protocol: b"IEEE 802.3",
        physical_address: &port.place.physical_address,
        protocol_address: PortAddress {
            protocol: port.place.protocol,
            address: &port.place.protocol_address,
        },
        manufacturer_identity: [0; 3],
        product_description: sets.description.product.as_bytes(),
        revision_data: sets.description.revision.as_bytes(),
        user_description: sets.description.user.as_bytes(),
        profile_identity: if is_p2p { PROFILE_P2P } else { PROFILE_E2E },
    })
}
