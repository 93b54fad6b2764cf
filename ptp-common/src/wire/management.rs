//! Management TLVs (IEEE 1588-2019 15.5): the data sets that a clock tells about itself and what can be changed of
//! them, the errors it answers with, and what linuxptp has of its own (`_NP`) that its `pmc` knows. Layouts are those of
//! clause 15.5.3; what is reserved is sent as zero and not looked at.

mod described;
mod fields;
mod ids;
mod linuxptp;

pub use described::{
    AlternateOffsetProperties, ClockDescription, NetworkProtocol, PortAddress, PortProperties,
    UnicastMaster, UnicastMasters,
};
pub use ids::{Action, ManagementErrorId, ManagementId};
pub use linuxptp::{
    CmldsInfo, ExternalGrandmaster, GrandmasterSettings, ManagementEvent, PortCorrections,
    PortDataSetNp, PortHwclock, PortServiceStats, PortStats, PowerProfileSettings, SubscribeEvents,
    TimeStatus,
};

use super::data_set::{CurrentDataSet, DefaultDataSet, ParentDataSet, PortDataSet, TimeProperties};
use super::{ClockIdentity, Flags, TimeInterval, TimeSource, Tlv, TlvType, WireError};
use fields::{Reader, Writer};

/// What a management TLV with a payload says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ManagementData<'a> {
    /// DEFAULT_DATA_SET.
    Default(DefaultDataSet),
    /// CURRENT_DATA_SET.
    Current(CurrentDataSet),
    /// PARENT_DATA_SET.
    Parent(ParentDataSet),
    /// TIME_PROPERTIES_DATA_SET.
    TimeProperties(TimeProperties),
    /// PORT_DATA_SET.
    Port(PortDataSet),
    /// PRIORITY1.
    Priority1(u8),
    /// PRIORITY2.
    Priority2(u8),
    /// One octet, and one that is reserved: DOMAIN, SLAVE_ONLY, LOG_ANNOUNCE_INTERVAL and the like.
    Octet(ManagementId, u8),
    /// UTC_PROPERTIES: `currentUtcOffset`, s, and bit 0 `leap61`, bit 1 `leap59`, bit 2 `currentUtcOffsetValid`.
    Utc(i16, u8),
    /// CLOCK_DESCRIPTION.
    Description(ClockDescription<'a>),
    /// USER_DESCRIPTION.
    UserDescription(&'a [u8]),
    /// PATH_TRACE_LIST: identities of eight octets, one behind the other.
    PathTrace(&'a [u8]),
    /// ALTERNATE_TIME_OFFSET_ENABLE: `keyField`, and whether it is announced.
    AlternateEnable(u8, bool),
    /// ALTERNATE_TIME_OFFSET_NAME: `keyField` and `displayName`.
    AlternateName(u8, &'a [u8]),
    /// ALTERNATE_TIME_OFFSET_PROPERTIES.
    AlternateProperties(AlternateOffsetProperties),
    /// TIME_STATUS_NP.
    TimeStatus(TimeStatus),
    /// GRANDMASTER_SETTINGS_NP.
    Grandmaster(GrandmasterSettings),
    /// PORT_DATA_SET_NP.
    PortNp(PortDataSetNp),
    /// SUBSCRIBE_EVENTS_NP.
    Subscribe(SubscribeEvents),
    /// PORT_PROPERTIES_NP.
    PortProperties(PortProperties<'a>),
    /// PORT_STATS_NP.
    PortStats(PortStats),
    /// PORT_SERVICE_STATS_NP.
    PortServiceStats(PortServiceStats),
    /// UNICAST_MASTER_TABLE_NP.
    UnicastMasters(UnicastMasters<'a>),
    /// PORT_HWCLOCK_NP.
    Hwclock(PortHwclock),
    /// POWER_PROFILE_SETTINGS_NP.
    Power(PowerProfileSettings),
    /// CMLDS_INFO_NP.
    Cmlds(CmldsInfo),
    /// PORT_CORRECTIONS_NP.
    Corrections(PortCorrections),
    /// EXTERNAL_GRANDMASTER_PROPERTIES_NP.
    ExternalGrandmaster(ExternalGrandmaster),
}

impl<'a> ManagementData<'a> {
    /// The longest payload that is written, bytes.
    pub const MAX_LENGTH: usize = 1024;

    /// Its `managementId`.
    pub const fn id(&self) -> ManagementId {
        match self {
            Self::Default(_) => ManagementId::DEFAULT_DATA_SET,
            Self::Current(_) => ManagementId::CURRENT_DATA_SET,
            Self::Parent(_) => ManagementId::PARENT_DATA_SET,
            Self::TimeProperties(_) => ManagementId::TIME_PROPERTIES_DATA_SET,
            Self::Port(_) => ManagementId::PORT_DATA_SET,
            Self::Priority1(_) => ManagementId::PRIORITY1,
            Self::Priority2(_) => ManagementId::PRIORITY2,
            Self::Octet(id, _) => *id,
            Self::Utc(..) => ManagementId::UTC_PROPERTIES,
            Self::Description(_) => ManagementId::CLOCK_DESCRIPTION,
            Self::UserDescription(_) => ManagementId::USER_DESCRIPTION,
            Self::PathTrace(_) => ManagementId::PATH_TRACE_LIST,
            Self::AlternateEnable(..) => ManagementId::ALTERNATE_TIME_OFFSET_ENABLE,
            Self::AlternateName(..) => ManagementId::ALTERNATE_TIME_OFFSET_NAME,
            Self::AlternateProperties(_) => ManagementId::ALTERNATE_TIME_OFFSET_PROPERTIES,
            Self::TimeStatus(_) => ManagementId::TIME_STATUS_NP,
            Self::Grandmaster(_) => ManagementId::GRANDMASTER_SETTINGS_NP,
            Self::PortNp(_) => ManagementId::PORT_DATA_SET_NP,
            Self::Subscribe(_) => ManagementId::SUBSCRIBE_EVENTS_NP,
            Self::PortProperties(_) => ManagementId::PORT_PROPERTIES_NP,
            Self::PortStats(_) => ManagementId::PORT_STATS_NP,
            Self::PortServiceStats(_) => ManagementId::PORT_SERVICE_STATS_NP,
            Self::UnicastMasters(_) => ManagementId::UNICAST_MASTER_TABLE_NP,
            Self::Hwclock(_) => ManagementId::PORT_HWCLOCK_NP,
            Self::Power(_) => ManagementId::POWER_PROFILE_SETTINGS_NP,
            Self::Cmlds(_) => ManagementId::CMLDS_INFO_NP,
            Self::Corrections(_) => ManagementId::PORT_CORRECTIONS_NP,
            Self::ExternalGrandmaster(_) => ManagementId::EXTERNAL_GRANDMASTER_PROPERTIES_NP,
        }
    }

    /// Length of the payload with this identifier, bytes; `None` for one that is not known here, or whose length
    /// is what is in it ([`Self::is_of_any_length`]).
    pub const fn length(id: ManagementId) -> Option<usize> {
        Some(match id {
            ManagementId::DEFAULT_DATA_SET => 20,
            ManagementId::CURRENT_DATA_SET => 18,
            ManagementId::PARENT_DATA_SET => 32,
            ManagementId::TIME_PROPERTIES_DATA_SET | ManagementId::UTC_PROPERTIES => 4,
            ManagementId::PORT_DATA_SET => 26,
            ManagementId::PRIORITY1
            | ManagementId::PRIORITY2
            | ManagementId::ALTERNATE_TIME_OFFSET_ENABLE => 2,
            id if is_octet(id) => 2,
            ManagementId::ALTERNATE_TIME_OFFSET_PROPERTIES => 16,
            ManagementId::TIME_STATUS_NP => 50,
            ManagementId::GRANDMASTER_SETTINGS_NP | ManagementId::PORT_DATA_SET_NP => 8,
            ManagementId::SUBSCRIBE_EVENTS_NP => 66,
            ManagementId::PORT_STATS_NP => 266,
            ManagementId::PORT_SERVICE_STATS_NP => 90,
            ManagementId::PORT_HWCLOCK_NP
            | ManagementId::POWER_PROFILE_SETTINGS_NP
            | ManagementId::CMLDS_INFO_NP => 16,
            ManagementId::PORT_CORRECTIONS_NP => 24,
            ManagementId::EXTERNAL_GRANDMASTER_PROPERTIES_NP => 10,
            _ => return None,
        })
    }

    /// Whether the length of a payload with this identifier is a matter of what is in it.
    pub const fn is_of_any_length(id: ManagementId) -> bool {
        matches!(
            id,
            ManagementId::CLOCK_DESCRIPTION
                | ManagementId::USER_DESCRIPTION
                | ManagementId::PATH_TRACE_LIST
                | ManagementId::ALTERNATE_TIME_OFFSET_NAME
                | ManagementId::PORT_PROPERTIES_NP
                | ManagementId::UNICAST_MASTER_TABLE_NP
        )
    }

    /// Reads a payload; `None` for an unknown identifier or a wrong length.
    pub fn read(id: ManagementId, payload: &'a [u8]) -> Option<Self> {
        if Self::length(id) != Some(payload.len()) && !Self::is_of_any_length(id) {
            return None;
        }
        let mut from = Reader(payload);
        let data = Self::read_from(id, &mut from)?;
        // What is fixed may end with what is reserved.
        (from.is_done() || !Self::is_of_any_length(id)).then_some(data)
    }

    fn read_from(id: ManagementId, from: &mut Reader<'a>) -> Option<Self> {
        Some(match id {
            ManagementId::DEFAULT_DATA_SET => {
                let [flags, _] = from.bytes()?;
                Self::Default(DefaultDataSet {
                    two_step: flags & 1 != 0,
                    client_only: flags & 2 != 0,
                    number_ports: u16::from_be_bytes(from.bytes()?),
                    priority1: from.byte()?,
                    clock_quality: from.quality()?,
                    priority2: from.byte()?,
                    clock_identity: ClockIdentity(from.bytes()?),
                    domain_number: from.byte()?,
                })
            }
            ManagementId::CURRENT_DATA_SET => Self::Current(CurrentDataSet {
                steps_removed: u16::from_be_bytes(from.bytes()?),
                offset_from_master: TimeInterval(i64::from_be_bytes(from.bytes()?)),
                mean_path_delay: TimeInterval(i64::from_be_bytes(from.bytes()?)),
            }),
            ManagementId::PARENT_DATA_SET => Self::Parent(read_parent(from)?),
            ManagementId::TIME_PROPERTIES_DATA_SET => {
                Self::TimeProperties(read_time_properties(from)?)
            }
            ManagementId::PORT_DATA_SET => Self::Port(PortDataSet {
                port_identity: from.port()?,
                port_state: from.byte()?,
                log_min_delay_req_interval: from.byte()? as i8,
                mean_link_delay: TimeInterval(i64::from_be_bytes(from.bytes()?)),
                log_announce_interval: from.byte()? as i8,
                announce_receipt_timeout: from.byte()?,
                log_sync_interval: from.byte()? as i8,
                delay_mechanism: from.byte()?,
                log_min_pdelay_req_interval: from.byte()? as i8,
                version_number: from.byte()?,
            }),
            ManagementId::PRIORITY1 => Self::Priority1(from.byte()?),
            ManagementId::PRIORITY2 => Self::Priority2(from.byte()?),
            id if is_octet(id) => Self::Octet(id, from.byte()?),
            ManagementId::UTC_PROPERTIES => {
                Self::Utc(i16::from_be_bytes(from.bytes()?), from.byte()? & 7)
            }
            ManagementId::CLOCK_DESCRIPTION => Self::Description(ClockDescription::read(from)?),
            ManagementId::USER_DESCRIPTION => Self::UserDescription(from.text()?),
            ManagementId::PATH_TRACE_LIST => {
                let length = from.0.len() / 8 * 8;
                Self::PathTrace(from.slice(length)?)
            }
            ManagementId::ALTERNATE_TIME_OFFSET_ENABLE => {
                Self::AlternateEnable(from.byte()?, from.byte()? & 1 != 0)
            }
            ManagementId::ALTERNATE_TIME_OFFSET_NAME => {
                Self::AlternateName(from.byte()?, from.text()?)
            }
            ManagementId::ALTERNATE_TIME_OFFSET_PROPERTIES => {
                Self::AlternateProperties(AlternateOffsetProperties::read(from)?)
            }
            ManagementId::TIME_STATUS_NP => Self::TimeStatus(TimeStatus::read(from)?),
            ManagementId::GRANDMASTER_SETTINGS_NP => {
                Self::Grandmaster(GrandmasterSettings::read(from)?)
            }
            ManagementId::PORT_DATA_SET_NP => Self::PortNp(PortDataSetNp::read(from)?),
            ManagementId::SUBSCRIBE_EVENTS_NP => Self::Subscribe(SubscribeEvents::read(from)?),
            ManagementId::PORT_PROPERTIES_NP => Self::PortProperties(PortProperties::read(from)?),
            ManagementId::PORT_STATS_NP => Self::PortStats(PortStats::read(from)?),
            ManagementId::PORT_SERVICE_STATS_NP => {
                Self::PortServiceStats(PortServiceStats::read(from)?)
            }
            ManagementId::UNICAST_MASTER_TABLE_NP => {
                Self::UnicastMasters(UnicastMasters::read(from)?)
            }
            ManagementId::PORT_HWCLOCK_NP => Self::Hwclock(PortHwclock::read(from)?),
            ManagementId::POWER_PROFILE_SETTINGS_NP => {
                Self::Power(PowerProfileSettings::read(from)?)
            }
            ManagementId::CMLDS_INFO_NP => Self::Cmlds(CmldsInfo::read(from)?),
            ManagementId::PORT_CORRECTIONS_NP => Self::Corrections(PortCorrections::read(from)?),
            ManagementId::EXTERNAL_GRANDMASTER_PROPERTIES_NP => {
                Self::ExternalGrandmaster(ExternalGrandmaster::read(from)?)
            }
            _ => return None,
        })
    }

    /// Writes the payload to the beginning of `bytes` and returns its length, which is even.
    ///
    /// # Errors
    /// [`WireError::Buffer`] where it does not fit.
    pub fn emit(&self, bytes: &mut [u8]) -> Result<usize, WireError> {
        let need = Self::length(self.id()).unwrap_or_else(|| {
            let mut measured = Writer { bytes: &mut [], at: 0 };
            self.write(&mut measured);
            measured.at.next_multiple_of(2)
        });
        let have = bytes.len();
        let payload = bytes.get_mut(..need).ok_or(WireError::Buffer { have, need })?;
        payload.fill(0);
        self.write(&mut Writer { bytes: payload, at: 0 });
        Ok(need)
    }

    fn write(&self, to: &mut Writer<'_>) {
        match self {
            Self::Default(it) => {
                to.put(&[u8::from(it.two_step) | u8::from(it.client_only) << 1, 0]);
                to.put(&it.number_ports.to_be_bytes());
                to.put(&[it.priority1]);
                to.quality(it.clock_quality);
                to.put(&[it.priority2]);
                to.put(&it.clock_identity.0);
                to.put(&[it.domain_number]);
            }
            Self::Current(it) => write_current(it, to),
            Self::Parent(it) => write_parent(it, to),
            Self::TimeProperties(it) => write_time_properties(it, to),
            Self::Port(it) => {
                to.port(it.port_identity);
                to.put(&[it.port_state, it.log_min_delay_req_interval as u8]);
                to.put(&it.mean_link_delay.0.to_be_bytes());
                to.put(&[
                    it.log_announce_interval as u8,
                    it.announce_receipt_timeout,
                    it.log_sync_interval as u8,
                    it.delay_mechanism,
                    it.log_min_pdelay_req_interval as u8,
                    it.version_number,
                ]);
            }
            Self::Priority1(octet) | Self::Priority2(octet) | Self::Octet(_, octet) => {
                to.put(&[*octet]);
            }
            Self::Utc(offset, flags) => {
                to.put(&offset.to_be_bytes());
                to.put(&[*flags]);
            }
            Self::Description(it) => it.write(to),
            Self::UserDescription(text) => to.text(text),
            Self::PathTrace(path) => to.put(path),
            Self::AlternateEnable(key, is_on) => to.put(&[*key, u8::from(*is_on)]),
            Self::AlternateName(key, name) => {
                to.put(&[*key]);
                to.text(name);
            }
            Self::AlternateProperties(it) => it.write(to),
            Self::TimeStatus(it) => it.write(to),
            Self::Grandmaster(it) => it.write(to),
            Self::PortNp(it) => it.write(to),
            Self::Subscribe(it) => it.write(to),
            Self::PortProperties(it) => it.write(to),
            Self::PortStats(it) => it.write(to),
            Self::PortServiceStats(it) => it.write(to),
            Self::UnicastMasters(it) => it.write(to),
            Self::Hwclock(it) => it.write(to),
            Self::Power(it) => it.write(to),
            Self::Cmlds(it) => it.write(to),
            Self::Corrections(it) => it.write(to),
            Self::ExternalGrandmaster(it) => it.write(to),
        }
    }
}

/// Whether a payload is one octet and one that is reserved.
const fn is_octet(id: ManagementId) -> bool {
    matches!(
        id,
        ManagementId::DOMAIN
            | ManagementId::SLAVE_ONLY
            | ManagementId::LOG_ANNOUNCE_INTERVAL
            | ManagementId::ANNOUNCE_RECEIPT_TIMEOUT
            | ManagementId::LOG_SYNC_INTERVAL
            | ManagementId::VERSION_NUMBER
            | ManagementId::CLOCK_ACCURACY
            | ManagementId::TRACEABILITY_PROPERTIES
            | ManagementId::TIMESCALE_PROPERTIES
            | ManagementId::PATH_TRACE_ENABLE
            | ManagementId::ALTERNATE_TIME_OFFSET_MAX_KEY
            | ManagementId::MASTER_ONLY
            | ManagementId::DELAY_MECHANISM
            | ManagementId::LOG_MIN_PDELAY_REQ_INTERVAL
            | ManagementId::SYNCHRONIZATION_UNCERTAIN_NP
    )
}

fn read_parent(from: &mut Reader<'_>) -> Option<ParentDataSet> {
    Some(ParentDataSet {
        parent_port_identity: from.port()?,
        parent_stats: from.bytes::<2>()?[0] & 1 != 0,
        observed_offset_scaled_log_variance: u16::from_be_bytes(from.bytes()?),
        observed_phase_change_rate: i32::from_be_bytes(from.bytes()?),
        grandmaster_priority1: from.byte()?,
        grandmaster_clock_quality: from.quality()?,
        grandmaster_priority2: from.byte()?,
        grandmaster_identity: ClockIdentity(from.bytes()?),
    })
}

fn read_time_properties(from: &mut Reader<'_>) -> Option<TimeProperties> {
    let current_utc_offset = i16::from_be_bytes(from.bytes()?);
    let flags = Flags(u16::from(from.byte()?));
    let time_source = TimeSource(from.byte()?);
    Some(TimeProperties::told(current_utc_offset, flags, time_source))
}

fn write_current(it: &CurrentDataSet, to: &mut Writer<'_>) {
    to.put(&it.steps_removed.to_be_bytes());
    to.put(&it.offset_from_master.0.to_be_bytes());
    to.put(&it.mean_path_delay.0.to_be_bytes());
}

fn write_parent(it: &ParentDataSet, to: &mut Writer<'_>) {
    to.port(it.parent_port_identity);
    to.put(&[u8::from(it.parent_stats), 0]);
    to.put(&it.observed_offset_scaled_log_variance.to_be_bytes());
    to.put(&it.observed_phase_change_rate.to_be_bytes());
    to.put(&[it.grandmaster_priority1]);
    to.quality(it.grandmaster_clock_quality);
    to.put(&[it.grandmaster_priority2]);
    to.put(&it.grandmaster_identity.0);
}

fn write_time_properties(it: &TimeProperties, to: &mut Writer<'_>) {
    to.put(&it.current_utc_offset.to_be_bytes());
    to.put(&[it.flags().0 as u8, it.time_source.0]);
}

/// The TLV of a management message (15.5.2, 15.5.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ManagementTlv<'a> {
    /// MANAGEMENT: an identifier, and data that may be empty.
    Data {
        /// `managementId`.
        id: ManagementId,
        /// The payload as it came.
        payload: &'a [u8],
    },
    /// MANAGEMENT_ERROR_STATUS.
    Error {
        /// `managementErrorId`.
        error: ManagementErrorId,
        /// `managementId` of the request.
        id: ManagementId,
    },
}

impl<'a> ManagementTlv<'a> {
    /// Reads a TLV; `None` where it is another one or too short for its fixed part.
    pub fn read(tlv: Tlv<'a>) -> Option<Self> {
        let (first, rest) = tlv.value.split_first_chunk::<2>()?;
        let first = u16::from_be_bytes(*first);
        match tlv.kind {
            TlvType::MANAGEMENT => Some(Self::Data { id: ManagementId(first), payload: rest }),
            TlvType::MANAGEMENT_ERROR_STATUS => {
                let (id, _) = rest.split_first_chunk::<2>()?;
                let id = ManagementId(u16::from_be_bytes(*id));
                Some(Self::Error { error: ManagementErrorId(first), id })
            }
            _ => None,
        }
    }

    /// Writes the TLV to the beginning of `bytes` and returns its length.
    ///
    /// # Errors
    /// [`WireError::Buffer`] where it does not fit, [`WireError::Tlv`] for a payload of odd length.
    pub fn emit(&self, bytes: &mut [u8]) -> Result<usize, WireError> {
        let (kind, first, length) = match self {
            Self::Data { id, payload } => (TlvType::MANAGEMENT, id.0, 2 + payload.len()),
            // `displayData` is left out: 8 bytes without it.
            Self::Error { error, .. } => (TlvType::MANAGEMENT_ERROR_STATUS, error.0, 8),
        };
        let (need, have) = (4 + length, bytes.len());
        let field = u16::try_from(length).map_err(|_| WireError::Tlv(0))?;
        if !length.is_multiple_of(2) {
            return Err(WireError::Tlv(0));
        }
        let bytes = bytes.get_mut(..need).ok_or(WireError::Buffer { have, need })?;
        bytes.fill(0);
        let mut to = Writer { bytes, at: 0 };
        to.put(&kind.0.to_be_bytes());
        to.put(&field.to_be_bytes());
        to.put(&first.to_be_bytes());
        match self {
            Self::Data { payload, .. } => to.put(payload),
            Self::Error { id, .. } => to.put(&id.0.to_be_bytes()),
        }
        Ok(need)
    }
}
