//! The AUTHENTICATION TLV (IEEE 1588-2019 16.14.3): a checked view over a received message that
//! ends in one, and the owned form that is put behind a message to send. Which algorithm a key has, and so
//! how long the integrity check value is, is agreed between the parties and not on the wire; this file
//! knows lengths and places only, and no cryptography.

use super::{HEADER_LENGTH, MessageView, TlvType, WireError};

/// `secParamIndicator`: which optional fields there are (table 148).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SecurityParameters(pub u8);

impl SecurityParameters {
    /// A RES field is there.
    pub const RES: Self = Self(0x01);
    /// A `sequenceNo` field is there.
    pub const SEQUENCE_NUMBER: Self = Self(0x02);
    /// A `disclosedKey` field is there (delayed processing).
    pub const DISCLOSED_KEY: Self = Self(0x04);
}

/// `SPP`, `secParamIndicator` and `keyID`, bytes.
const FIXED: usize = 6;
/// Type and length of a TLV, bytes.
const HEAD: usize = 4;
/// Where `messageLength` stands.
const LENGTH_AT: usize = 2;

/// The AUTHENTICATION TLV at the end of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuthenticationView<'a> {
    /// The whole message, without padding.
    message: &'a [u8],
    /// Where the TLV's value begins.
    value_at: usize,
}

impl<'a> AuthenticationView<'a> {
    /// The TLV of a message, if it has one, which must be its last (16.14.3.1).
    ///
    /// # Errors
    /// What [`MessageView::tlvs`] reports; [`WireError::Tlv`] where the TLV is too short for its fixed
    /// fields, is not the last, or is not the only one of its kind.
    pub fn of(view: &MessageView<'a>) -> Result<Option<Self>, WireError> {
        let message = view.as_bytes();
        let tlvs = view.tlvs()?;
        let mut at = view.message_type().fixed_length();
        let mut found = None;
        for tlv in tlvs {
            if found.is_some() {
                return Err(WireError::Tlv(at));
            }
            if tlv.kind == TlvType::AUTHENTICATION {
                if tlv.value.len() < FIXED {
                    return Err(WireError::Tlv(at));
                }
                found = Some(Self { message, value_at: at + HEAD });
            }
            at += tlv.wire_length();
        }
        Ok(found)
    }

    fn value(&self) -> &'a [u8] {
        &self.message[self.value_at..]
    }

    /// `SPP`, the security parameter pointer: which association the sender means.
    pub fn spp(&self) -> u8 {
        self.value()[0]
    }

    /// `secParamIndicator`.
    pub fn parameters(&self) -> SecurityParameters {
        SecurityParameters(self.value()[1])
    }

    /// `keyID`; 0 is none.
    pub fn key_id(&self) -> u32 {
        let value = self.value();
        u32::from_be_bytes([value[2], value[3], value[4], value[5]])
    }

    /// What is protected and the integrity check value, where that has `length` bytes and there are no
    /// optional fields; `None` where the TLV has another length.
    pub fn split(&self, length: usize) -> Option<(&'a [u8], &'a [u8])> {
        (self.value().len() == FIXED + length)
            .then(|| self.message.split_at(self.message.len() - length))
    }

    /// The message as it was before it was authenticated, but for `messageLength`.
    pub fn without(&self) -> &'a [u8] {
        &self.message[..self.value_at - HEAD]
    }
}

/// An AUTHENTICATION TLV to send, without optional fields (immediate processing).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Authentication {
    /// `SPP`.
    pub spp: u8,
    /// `keyID`.
    pub key_id: u32,
    /// Length of the integrity check value, bytes; even.
    pub icv_length: u8,
}

impl Authentication {
    /// Length on the wire, bytes.
    pub const fn wire_length(&self) -> usize {
        HEAD + FIXED + self.icv_length as usize
    }

    /// Copies `message` to the beginning of `buffer`, puts the TLV behind it, sets `messageLength`, and
    /// returns what is to be protected and the place of the integrity check value, which is zero.
    ///
    /// # Errors
    /// [`WireError::Truncated`] for less than a header, [`WireError::Tlv`] for an odd length of the check
    /// value, [`WireError::Buffer`] where the result does not fit into the buffer or into
    /// `messageLength`.
    pub fn append<'b>(
        &self,
        message: &[u8],
        buffer: &'b mut [u8],
    ) -> Result<(&'b mut [u8], &'b mut [u8]), WireError> {
        if message.len() < HEADER_LENGTH {
            return Err(WireError::Truncated { have: message.len(), need: HEADER_LENGTH });
        }
        if !self.icv_length.is_multiple_of(2) {
            return Err(WireError::Tlv(message.len()));
        }
        let need = message.len() + self.wire_length();
        let error = WireError::Buffer { have: buffer.len(), need };
        let length = u16::try_from(need).map_err(|_| error)?;
        let whole = buffer.get_mut(..need).ok_or(error)?;
        let (copy, tlv) = whole.split_at_mut(message.len());
        copy.copy_from_slice(message);
        copy[LENGTH_AT..LENGTH_AT + 2].copy_from_slice(&length.to_be_bytes());
        tlv[..2].copy_from_slice(&TlvType::AUTHENTICATION.0.to_be_bytes());
        let value_length = FIXED as u16 + u16::from(self.icv_length);
        tlv[2..HEAD].copy_from_slice(&value_length.to_be_bytes());
        tlv[HEAD] = self.spp;
        tlv[HEAD + 1] = 0;
        tlv[HEAD + 2..HEAD + FIXED].copy_from_slice(&self.key_id.to_be_bytes());
        tlv[HEAD + FIXED..].fill(0);
        Ok(whole.split_at_mut(need - usize::from(self.icv_length)))
    }
}
