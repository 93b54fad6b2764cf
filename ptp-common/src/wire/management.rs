//! Management TLVs (IEEE 1588-2019 15.5): the data sets that a clock tells about itself, the errors
//! it answers with, and two TLVs of linuxptp's own (TIME_STATUS_NP, PORT_STATS_NP) that its `pmc`
//! knows. Layouts are those of clause 15.5.3; what is reserved is sent as zero and not looked at.

use super::data_set::{CurrentDataSet, DefaultDataSet, ParentDataSet, PortDataSet, TimeProperties};
use super::{
    ClockAccuracy, ClockIdentity, ClockQuality, Flags, PortIdentity, TimeInterval, TimeSource, Tlv,
    TlvType, WireError,
};

/// `actionField` (table 57).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Action(pub u8);

impl Action {
    /// Tell a data set.
    pub const GET: Self = Self(0);
    /// Change one.
    pub const SET: Self = Self(1);
    /// The answer to both.
    pub const RESPONSE: Self = Self(2);
    /// Do something.
    pub const COMMAND: Self = Self(3);
    /// The answer to that.
    pub const ACKNOWLEDGE: Self = Self(4);
}

/// `managementId` (table 59), as it is on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ManagementId(pub u16);

impl ManagementId {
    /// NULL_PTP_MANAGEMENT.
    pub const NULL: Self = Self(0x0000);
    /// DEFAULT_DATA_SET.
    pub const DEFAULT_DATA_SET: Self = Self(0x2000);
    /// CURRENT_DATA_SET.
    pub const CURRENT_DATA_SET: Self = Self(0x2001);
    /// PARENT_DATA_SET.
    pub const PARENT_DATA_SET: Self = Self(0x2002);
    /// TIME_PROPERTIES_DATA_SET.
    pub const TIME_PROPERTIES_DATA_SET: Self = Self(0x2003);
    /// PORT_DATA_SET.
    pub const PORT_DATA_SET: Self = Self(0x2004);
    /// PRIORITY1.
    pub const PRIORITY1: Self = Self(0x2005);
    /// PRIORITY2.
    pub const PRIORITY2: Self = Self(0x2006);
    /// TIME_STATUS_NP of linuxptp.
    pub const TIME_STATUS_NP: Self = Self(0xc000);
    /// PORT_STATS_NP of linuxptp.
    pub const PORT_STATS_NP: Self = Self(0xc005);
}

/// `managementErrorId` (table 109), as it is on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ManagementErrorId(pub u16);

impl ManagementErrorId {
    /// RESPONSE_TOO_BIG.
    pub const RESPONSE_TOO_BIG: Self = Self(0x0001);
    /// NO_SUCH_ID.
    pub const NO_SUCH_ID: Self = Self(0x0002);
    /// WRONG_LENGTH.
    pub const WRONG_LENGTH: Self = Self(0x0003);
    /// WRONG_VALUE.
    pub const WRONG_VALUE: Self = Self(0x0004);
    /// NOT_SETABLE.
    pub const NOT_SETABLE: Self = Self(0x0005);
    /// NOT_SUPPORTED.
    pub const NOT_SUPPORTED: Self = Self(0x0006);
    /// GENERAL_ERROR.
    pub const GENERAL_ERROR: Self = Self(0xfffe);
}

/// TIME_STATUS_NP: how well a clock follows, as linuxptp tells it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimeStatus {
    /// Local clock minus time transmitter, ns.
    pub master_offset: i64,
    /// When the last Sync came in, local clock, ns since its epoch.
    pub ingress_time: i64,
    /// From the Follow_Up of IEEE 802.1AS; zero without.
    pub cumulative_scaled_rate_offset: i32,
    /// As above.
    pub scaled_last_gm_phase_change: i32,
    /// As above.
    pub gm_time_base_indicator: u16,
    /// As above: 2^-16 ns in 96 bits.
    pub last_gm_phase_change: [u8; 12],
    /// Whether there is a grandmaster that is not this clock.
    pub gm_present: bool,
    /// `grandmasterIdentity`.
    pub gm_identity: ClockIdentity,
}

/// PORT_STATS_NP: messages of a port by `messageType`, as linuxptp tells it (counts little-endian).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortStats {
    /// The port.
    pub port_identity: PortIdentity,
    /// Received.
    pub received: [u64; 16],
    /// Sent.
    pub sent: [u64; 16],
}

/// What a management TLV with a payload says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "made one at a time and at once written out")]
pub enum ManagementData {
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
    /// TIME_STATUS_NP.
    TimeStatus(TimeStatus),
    /// PORT_STATS_NP.
    PortStats(PortStats),
}

impl ManagementData {
    /// The longest payload, bytes.
    pub const MAX_LENGTH: usize = 266;

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
            Self::TimeStatus(_) => ManagementId::TIME_STATUS_NP,
            Self::PortStats(_) => ManagementId::PORT_STATS_NP,
        }
    }

    /// Length of the payload with this identifier, bytes; `None` for one that is not known here.
    pub const fn length(id: ManagementId) -> Option<usize> {
        Some(match id {
            ManagementId::DEFAULT_DATA_SET => 20,
            ManagementId::CURRENT_DATA_SET => 18,
            ManagementId::PARENT_DATA_SET => 32,
            ManagementId::TIME_PROPERTIES_DATA_SET => 4,
            ManagementId::PORT_DATA_SET => 26,
            ManagementId::PRIORITY1 | ManagementId::PRIORITY2 => 2,
            ManagementId::TIME_STATUS_NP => 50,
            ManagementId::PORT_STATS_NP => Self::MAX_LENGTH,
            _ => return None,
        })
    }

    /// Reads a payload; `None` for an unknown identifier or a wrong length.
    pub fn read(id: ManagementId, payload: &[u8]) -> Option<Self> {
        if Self::length(id) != Some(payload.len()) {
            return None;
        }
        let mut from = Reader(payload);
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
            ManagementId::PARENT_DATA_SET => Self::Parent(ParentDataSet {
                parent_port_identity: from.port()?,
                parent_stats: from.bytes::<2>()?[0] & 1 != 0,
                observed_offset_scaled_log_variance: u16::from_be_bytes(from.bytes()?),
                observed_phase_change_rate: i32::from_be_bytes(from.bytes()?),
                grandmaster_priority1: from.byte()?,
                grandmaster_clock_quality: from.quality()?,
                grandmaster_priority2: from.byte()?,
                grandmaster_identity: ClockIdentity(from.bytes()?),
            }),
            ManagementId::TIME_PROPERTIES_DATA_SET => {
                let current_utc_offset = i16::from_be_bytes(from.bytes()?);
                let flags = Flags(u16::from(from.byte()?));
                let time_source = TimeSource(from.byte()?);
                let told = TimeProperties::told(current_utc_offset, flags, time_source);
                Self::TimeProperties(told)
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
            ManagementId::TIME_STATUS_NP => Self::TimeStatus(TimeStatus {
                master_offset: i64::from_be_bytes(from.bytes()?),
                ingress_time: i64::from_be_bytes(from.bytes()?),
                cumulative_scaled_rate_offset: i32::from_be_bytes(from.bytes()?),
                scaled_last_gm_phase_change: i32::from_be_bytes(from.bytes()?),
                gm_time_base_indicator: u16::from_be_bytes(from.bytes()?),
                last_gm_phase_change: from.bytes()?,
                gm_present: i32::from_be_bytes(from.bytes()?) != 0,
                gm_identity: ClockIdentity(from.bytes()?),
            }),
            _ => Self::PortStats(PortStats {
                port_identity: from.port()?,
                received: from.counts()?,
                sent: from.counts()?,
            }),
        })
    }

    /// Writes the payload to the beginning of `bytes` and returns its length.
    ///
    /// # Errors
    /// [`WireError::Buffer`] where it does not fit.
    pub fn emit(&self, bytes: &mut [u8]) -> Result<usize, WireError> {
        let need = Self::length(self.id()).unwrap_or(Self::MAX_LENGTH);
        let have = bytes.len();
        let payload = bytes.get_mut(..need).ok_or(WireError::Buffer { have, need })?;
        payload.fill(0);
        let mut to = Writer { bytes: payload, at: 0 };
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
            Self::Current(it) => {
                to.put(&it.steps_removed.to_be_bytes());
                to.put(&it.offset_from_master.0.to_be_bytes());
                to.put(&it.mean_path_delay.0.to_be_bytes());
            }
            Self::Parent(it) => {
                to.port(it.parent_port_identity);
                to.put(&[u8::from(it.parent_stats), 0]);
                to.put(&it.observed_offset_scaled_log_variance.to_be_bytes());
                to.put(&it.observed_phase_change_rate.to_be_bytes());
                to.put(&[it.grandmaster_priority1]);
                to.quality(it.grandmaster_clock_quality);
                to.put(&[it.grandmaster_priority2]);
                to.put(&it.grandmaster_identity.0);
            }
            Self::TimeProperties(it) => {
                to.put(&it.current_utc_offset.to_be_bytes());
                to.put(&[it.flags().0 as u8, it.time_source.0]);
            }
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
            Self::Priority1(priority) | Self::Priority2(priority) => to.put(&[*priority]),
            Self::TimeStatus(it) => {
                to.put(&it.master_offset.to_be_bytes());
                to.put(&it.ingress_time.to_be_bytes());
                to.put(&it.cumulative_scaled_rate_offset.to_be_bytes());
                to.put(&it.scaled_last_gm_phase_change.to_be_bytes());
                to.put(&it.gm_time_base_indicator.to_be_bytes());
                to.put(&it.last_gm_phase_change);
                to.put(&i32::from(it.gm_present).to_be_bytes());
                to.put(&it.gm_identity.0);
            }
            Self::PortStats(it) => {
                to.port(it.port_identity);
                for count in it.received.iter().chain(&it.sent) {
                    to.put(&count.to_le_bytes());
                }
            }
        }
        Ok(need)
    }
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

/// Reads one field after the other; never beyond the end.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*bytes)
    }

    fn byte(&mut self) -> Option<u8> {
        self.bytes::<1>().map(|[byte]| byte)
    }

    fn port(&mut self) -> Option<PortIdentity> {
        Some(PortIdentity {
            clock_identity: ClockIdentity(self.bytes()?),
            port_number: u16::from_be_bytes(self.bytes()?),
        })
    }

    fn quality(&mut self) -> Option<ClockQuality> {
        Some(ClockQuality {
            clock_class: self.byte()?,
            clock_accuracy: ClockAccuracy(self.byte()?),
            offset_scaled_log_variance: u16::from_be_bytes(self.bytes()?),
        })
    }

    fn counts(&mut self) -> Option<[u64; 16]> {
        let mut counts = [0; 16];
        for count in &mut counts {
            *count = u64::from_le_bytes(self.bytes()?);
        }
        Some(counts)
    }
}

/// Writes one field after the other into room that the caller has measured.
struct Writer<'a> {
    bytes: &'a mut [u8],
    at: usize,
}

impl Writer<'_> {
    fn put(&mut self, field: &[u8]) {
        let end = self.at + field.len();
        if let Some(room) = self.bytes.get_mut(self.at..end) {
            room.copy_from_slice(field);
        }
        self.at = end;
    }

    fn port(&mut self, port: PortIdentity) {
        self.put(&port.clock_identity.0);
        self.put(&port.port_number.to_be_bytes());
    }

    fn quality(&mut self, quality: ClockQuality) {
        self.put(&[quality.clock_class, quality.clock_accuracy.0]);
        self.put(&quality.offset_scaled_log_variance.to_be_bytes());
    }
}
