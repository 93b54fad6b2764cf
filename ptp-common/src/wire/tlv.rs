//! TLVs behind a message (IEEE 1588-2019 clause 14). All are kept as they came, known or not.

use super::WireError;

/// `tlvType` (table 52), as it is on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TlvType(pub u16);

impl TlvType {
    /// MANAGEMENT.
    pub const MANAGEMENT: Self = Self(0x0001);
    /// MANAGEMENT_ERROR_STATUS.
    pub const MANAGEMENT_ERROR_STATUS: Self = Self(0x0002);
    /// ORGANIZATION_EXTENSION.
    pub const ORGANIZATION_EXTENSION: Self = Self(0x0003);
    /// REQUEST_UNICAST_TRANSMISSION.
    pub const REQUEST_UNICAST_TRANSMISSION: Self = Self(0x0004);
    /// GRANT_UNICAST_TRANSMISSION.
    pub const GRANT_UNICAST_TRANSMISSION: Self = Self(0x0005);
    /// CANCEL_UNICAST_TRANSMISSION.
    pub const CANCEL_UNICAST_TRANSMISSION: Self = Self(0x0006);
    /// ACKNOWLEDGE_CANCEL_UNICAST_TRANSMISSION.
    pub const ACKNOWLEDGE_CANCEL_UNICAST_TRANSMISSION: Self = Self(0x0007);
    /// PATH_TRACE.
    pub const PATH_TRACE: Self = Self(0x0008);
    /// ALTERNATE_TIME_OFFSET_INDICATOR.
    pub const ALTERNATE_TIME_OFFSET_INDICATOR: Self = Self(0x0009);
    /// The request of a NetSync Monitor, of linuxptp's own.
    pub const PTPMON_REQ: Self = Self(0x21fe);
    /// The answer to it.
    pub const PTPMON_RESP: Self = Self(0x21ff);
    /// ORGANIZATION_EXTENSION_PROPAGATE.
    pub const ORGANIZATION_EXTENSION_PROPAGATE: Self = Self(0x4000);
    /// ENHANCED_ACCURACY_METRICS.
    pub const ENHANCED_ACCURACY_METRICS: Self = Self(0x4001);
    /// SLAVE_DELAY_TIMING_DATA_NP of linuxptp.
    pub const SLAVE_DELAY_TIMING_DATA_NP: Self = Self(0x7f00);
    /// ORGANIZATION_EXTENSION_DO_NOT_PROPAGATE.
    pub const ORGANIZATION_EXTENSION_DO_NOT_PROPAGATE: Self = Self(0x8000);
    /// L1_SYNC.
    pub const L1_SYNC: Self = Self(0x8001);
    /// SLAVE_RX_SYNC_TIMING_DATA.
    pub const SLAVE_RX_SYNC_TIMING_DATA: Self = Self(0x8004);
    /// CUMULATIVE_RATE_RATIO.
    pub const CUMULATIVE_RATE_RATIO: Self = Self(0x8007);
    /// PAD.
    pub const PAD: Self = Self(0x8008);
    /// AUTHENTICATION.
    pub const AUTHENTICATION: Self = Self(0x8009);
}

/// One TLV.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tlv<'a> {
    /// Its type.
    pub kind: TlvType,
    /// Its value, of even length.
    pub value: &'a [u8],
}

/// The TLVs of a message, checked: whole TLVs of even length, nothing between or behind them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tlvs<'a>(&'a [u8]);

impl<'a> Tlvs<'a> {
    /// No TLV.
    pub const NONE: Tlvs<'static> = Tlvs(&[]);

    /// Checks that `bytes` are whole TLVs.
    ///
    /// # Errors
    /// [`WireError::Tlv`] with the offset in `bytes` of the TLV that is odd or cut off.
    pub fn new(bytes: &'a [u8]) -> Result<Self, WireError> {
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            if rest.len() < 4 {
                return Err(WireError::Tlv(at));
            }
            let length = usize::from(u16::from_be_bytes([rest[2], rest[3]]));
            if !length.is_multiple_of(2) || rest.len() - 4 < length {
                return Err(WireError::Tlv(at));
            }
            at += 4 + length;
        }
        Ok(Self(bytes))
    }

    /// The bytes as they are on the wire.
    pub const fn as_bytes(&self) -> &'a [u8] {
        self.0
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value of the first TLV of type `kind`.
    pub fn find(&self, kind: TlvType) -> Option<&'a [u8]> {
        self.iter().find(|tlv| tlv.kind == kind).map(|tlv| tlv.value)
    }

    /// One after the other.
    pub const fn iter(&self) -> TlvIter<'a> {
        TlvIter(self.0)
    }
}

impl<'a> IntoIterator for Tlvs<'a> {
    type Item = Tlv<'a>;
    type IntoIter = TlvIter<'a>;
    fn into_iter(self) -> TlvIter<'a> {
        self.iter()
    }
}

/// Iterator over [`Tlvs`].
#[derive(Clone, Debug)]
pub struct TlvIter<'a>(&'a [u8]);

impl<'a> Iterator for TlvIter<'a> {
    type Item = Tlv<'a>;

    fn next(&mut self) -> Option<Tlv<'a>> {
        let (head, rest) = self.0.split_at_checked(4)?;
        let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
        let (value, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some(Tlv { kind: TlvType(u16::from_be_bytes([head[0], head[1]])), value })
    }
}

impl Tlv<'_> {
    /// Length on the wire, bytes.
    pub const fn wire_length(&self) -> usize {
        4 + self.value.len()
    }

    /// Writes the TLV to the beginning of `bytes` and returns its length.
    ///
    /// # Errors
    /// [`WireError::Buffer`] where it does not fit, [`WireError::Tlv`] for a value of odd length or
    /// of more than 65 534 bytes.
    pub fn emit(&self, bytes: &mut [u8]) -> Result<usize, WireError> {
        let need = self.wire_length();
        let Ok(length) = u16::try_from(self.value.len()) else {
            return Err(WireError::Tlv(0));
        };
        if !length.is_multiple_of(2) {
            return Err(WireError::Tlv(0));
        }
        if bytes.len() < need {
            return Err(WireError::Buffer { have: bytes.len(), need });
        }
        bytes[..2].copy_from_slice(&self.kind.0.to_be_bytes());
        bytes[2..4].copy_from_slice(&length.to_be_bytes());
        bytes[4..need].copy_from_slice(self.value);
        Ok(need)
    }
}

/// Writes TLVs one behind the other into a buffer, for [`Message::tlvs`](super::Message::tlvs),
/// which borrows.
///
/// ```
/// use ptp_common::wire::{Tlv, TlvBuilder, TlvType};
/// let mut buffer = [0; 64];
/// let mut builder = TlvBuilder::new(&mut buffer);
/// builder.push(Tlv { kind: TlvType::PATH_TRACE, value: &[0xaa; 8] })?;
/// builder.push(Tlv { kind: TlvType::PAD, value: &[0; 2] })?;
/// let tlvs = builder.finish();
/// assert_eq!(tlvs.as_bytes().len(), 12 + 6);
/// # Ok::<(), ptp_common::wire::WireError>(())
/// ```
#[derive(Debug)]
pub struct TlvBuilder<'a> {
    buffer: &'a mut [u8],
    length: usize,
}

impl<'a> TlvBuilder<'a> {
    /// Nothing written to `buffer` yet.
    pub const fn new(buffer: &'a mut [u8]) -> Self {
        Self { buffer, length: 0 }
    }

    /// Appends `tlv`. After an error the builder holds what it held before.
    ///
    /// # Errors
    /// As [`Tlv::emit`].
    pub fn push(&mut self, tlv: Tlv<'_>) -> Result<(), WireError> {
        self.length += tlv.emit(&mut self.buffer[self.length..])?;
        Ok(())
    }

    /// The TLVs that were pushed.
    pub fn finish(self) -> Tlvs<'a> {
        // Whole TLVs of even length by construction.
        Tlvs(&self.buffer[..self.length])
    }
}
