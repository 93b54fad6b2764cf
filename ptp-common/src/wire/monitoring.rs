//! What clocks tell those who watch them: slave event monitoring (IEEE 1588-2019 16.11) in Signaling, with the record of
//! linuxptp's own for Delay_Req, and the NetSync Monitor of linuxptp, by which one asks a clock for its time and its data
//! sets in a Delay_Req.

use super::{
    PortIdentity, TimeInterval, Timestamp, Tlv, TlvType, WireError,
    data_set::{CurrentDataSet, ParentDataSet, TimeProperties},
    management::{ManagementData, PortAddress},
};

/// A Sync as its receiver has measured it (16.11.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SyncTiming {
    /// `sequenceId`.
    pub sequence_id: u16,
    /// `syncOriginTimestamp`, as it was told.
    pub origin: Timestamp,
    /// `totalCorrectionField`, of Sync and Follow_Up.
    pub correction: TimeInterval,
    /// `scaledCumulativeRateOffset`; zero where nobody tells it.
    pub rate_offset: i32,
    /// `syncEventIngressTimestamp`, by the receiver's clock.
    pub ingress: Timestamp,
}

/// A Delay_Req as its sender has measured it: linuxptp's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DelayTiming {
    /// `sequenceId`.
    pub sequence_id: u16,
    /// `delayOriginTimestamp`, by the sender's clock.
    pub origin: Timestamp,
    /// `totalCorrectionField`, of the Delay_Resp.
    pub correction: TimeInterval,
    /// `delayResponseTimestamp`, as it was told.
    pub response: Timestamp,
}

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventTiming {
    /// SLAVE_RX_SYNC_TIMING_DATA.
    Sync(SyncTiming),
    /// SLAVE_DELAY_TIMING_DATA_NP.
    Delay(DelayTiming),
}

const SYNC: usize = 34;
const DELAY: usize = 30;
const SOURCE: usize = 10;
/// Of an answer to a NetSync Monitor: behind the address, and with the longest.
const FOOT: usize = 32 + 18 + 4 + 10;
const LONGEST_ANSWER: usize = 2 + 4 + 16 + FOOT;

impl EventTiming {
    /// Length of the longest TLV with one record, bytes.
    pub const MAX_LENGTH: usize = 4 + SOURCE + SYNC;

    /// Writes a TLV with this one record about the time transmitter `source`, and returns its length.
    ///
    /// # Errors
    /// [`WireError::Buffer`] where it does not fit.
    pub fn emit(&self, source: PortIdentity, bytes: &mut [u8]) -> Result<usize, WireError> {
        let (kind, record) = match self {
            Self::Sync(_) => (TlvType::SLAVE_RX_SYNC_TIMING_DATA, SYNC),
            Self::Delay(_) => (TlvType::SLAVE_DELAY_TIMING_DATA_NP, DELAY),
        };
        let mut value = [0; SOURCE + SYNC];
        source.write(&mut value, 0);
        let (sequence_id, first, correction, last) = match self {
            Self::Sync(it) => {
                value[30..34].copy_from_slice(&it.rate_offset.to_be_bytes());
                (it.sequence_id, it.origin, it.correction, it.ingress)
            }
            Self::Delay(it) => (it.sequence_id, it.origin, it.correction, it.response),
        };
        value[10..12].copy_from_slice(&sequence_id.to_be_bytes());
        first.write(&mut value, 12);
        value[22..30].copy_from_slice(&correction.0.to_be_bytes());
        last.write(&mut value, SOURCE + record - Timestamp::LENGTH);
        Tlv { kind, value: &value[..SOURCE + record] }.emit(bytes)
    }

    /// The records of a TLV, and the time transmitter that they are about; `None` for another TLV, or one that is not
    /// whole. A record with a time that cannot be is left out.
    pub fn read(tlv: Tlv<'_>) -> Option<(PortIdentity, impl Iterator<Item = Self> + '_)> {
        let length = match tlv.kind {
            TlvType::SLAVE_RX_SYNC_TIMING_DATA => SYNC,
            TlvType::SLAVE_DELAY_TIMING_DATA_NP => DELAY,
            _ => return None,
        };
        let (source, records) = tlv.value.split_at_checked(SOURCE)?;
        if !records.len().is_multiple_of(length) {
            return None;
        }
        let records = records.chunks_exact(length).filter_map(move |record| {
            let sequence_id = u16::from_be_bytes([record[0], record[1]]);
            let first = Timestamp::read(record, 2).ok()?;
            let correction = record[12..20].first_chunk().copied().map(i64::from_be_bytes)?;
            let correction = TimeInterval(correction);
            let last = Timestamp::read(record, length - Timestamp::LENGTH).ok()?;
            Some(if length == SYNC {
                let rate_offset = record[20..24].first_chunk().copied().map(i32::from_be_bytes)?;
                Self::Sync(SyncTiming {
                    sequence_id,
                    origin: first,
                    correction,
                    rate_offset,
                    ingress: last,
                })
            } else {
                Self::Delay(DelayTiming { sequence_id, origin: first, correction, response: last })
            })
        });
        Some((PortIdentity::read(source, 0), records))
    }
}

/// What a clock answers to a NetSync Monitor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetSyncResponse<'a> {
    /// `portState` by its number (table 20).
    pub port_state: u8,
    /// Where the parent's messages come from; the port's own address where it follows nobody.
    pub parent_address: PortAddress<'a>,
    /// `parentDS`.
    pub parent: ParentDataSet,
    /// `currentDS`.
    pub current: CurrentDataSet,
    /// `timePropertiesDS`.
    pub time_properties: TimeProperties,
    /// When the last Sync came in, by the clock.
    pub last_sync: Timestamp,
}

impl<'a> NetSyncResponse<'a> {
    /// The request: an empty TLV behind a unicast Delay_Req.
    pub const REQUEST: TlvType = TlvType::PTPMON_REQ;
    /// Length of the longest value that is written, bytes.
    pub const MAX_LENGTH: usize = LONGEST_ANSWER;

    /// Writes the value of the TLV, and returns its length; an address of more than 16 octets is left away.
    pub fn value(&self, value: &mut [u8; LONGEST_ANSWER]) -> usize {
        *value = [0; LONGEST_ANSWER];
        let address = self.parent_address.address;
        let address = if address.len() > 16 { &[][..] } else { address };
        value[0] = self.port_state;
        value[2..4].copy_from_slice(&self.parent_address.protocol.0.to_be_bytes());
        value[4..6].copy_from_slice(&(address.len() as u16).to_be_bytes());
        value[6..6 + address.len()].copy_from_slice(address);
        let mut at = 6 + address.len();
        for data in [
            ManagementData::Parent(self.parent),
            ManagementData::Current(self.current),
            ManagementData::TimeProperties(self.time_properties),
        ] {
            // Cannot fail: there is room for the longest.
            at += data.emit(&mut value[at..]).unwrap_or(0);
        }
        self.last_sync.write(value, at);
        // To an even length (14.1.1): addresses are of even length.
        (at + Timestamp::LENGTH).next_multiple_of(2)
    }

    /// Reads the value of a TLV; `None` where it is not whole.
    pub fn read(value: &'a [u8]) -> Option<Self> {
        use super::management::{ManagementId, NetworkProtocol};
        let (head, rest) = value.split_first_chunk::<6>()?;
        let length = usize::from(u16::from_be_bytes([head[4], head[5]]));
        let (address, foot) = rest.split_at_checked(length)?;
        let foot = foot.get(..FOOT)?;
        let ManagementData::Parent(parent) =
            ManagementData::read(ManagementId::PARENT_DATA_SET, &foot[..32])?
        else {
            return None;
        };
        let ManagementData::Current(current) =
            ManagementData::read(ManagementId::CURRENT_DATA_SET, &foot[32..50])?
        else {
            return None;
        };
        let ManagementData::TimeProperties(time_properties) =
            ManagementData::read(ManagementId::TIME_PROPERTIES_DATA_SET, &foot[50..54])?
        else {
            return None;
        };
        Some(Self {
            port_state: head[0],
            parent_address: PortAddress {
                protocol: NetworkProtocol(u16::from_be_bytes([head[2], head[3]])),
                address,
            },
            parent,
            current,
            time_properties,
            last_sync: Timestamp::read(foot, 54).ok()?,
        })
    }
}
