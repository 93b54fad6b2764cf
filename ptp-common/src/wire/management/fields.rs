//! Reading and writing the fields of management TLVs one after the other.

use super::{NetworkProtocol, PortAddress};
use crate::wire::{ClockAccuracy, ClockIdentity, ClockQuality, PortIdentity};

/// Reads one field after the other; never beyond the end.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    /// As many octets as are said, as they are.
    pub(super) fn slice(&mut self, length: usize) -> Option<&'a [u8]> {
        let (slice, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(slice)
    }

    /// PTPText (5.3.9): its length in an octet, and its octets.
    pub(super) fn text(&mut self) -> Option<&'a [u8]> {
        let length = usize::from(self.byte()?);
        self.slice(length)
    }

    /// PortAddress (5.3.6).
    pub(super) fn address(&mut self) -> Option<PortAddress<'a>> {
        let protocol = NetworkProtocol(u16::from_be_bytes(self.bytes()?));
        let length = usize::from(u16::from_be_bytes(self.bytes()?));
        Some(PortAddress { protocol, address: self.slice(length)? })
    }

    /// Whether nothing is left but what makes the length even.
    pub(super) const fn is_done(&self) -> bool {
        self.0.len() <= 1
    }

    pub(super) fn bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*bytes)
    }

    pub(super) fn byte(&mut self) -> Option<u8> {
        self.bytes::<1>().map(|[byte]| byte)
    }

    pub(super) fn port(&mut self) -> Option<PortIdentity> {
        Some(PortIdentity {
            clock_identity: ClockIdentity(self.bytes()?),
            port_number: u16::from_be_bytes(self.bytes()?),
        })
    }

    pub(super) fn quality(&mut self) -> Option<ClockQuality> {
        Some(ClockQuality {
            clock_class: self.byte()?,
            clock_accuracy: ClockAccuracy(self.byte()?),
            offset_scaled_log_variance: u16::from_be_bytes(self.bytes()?),
        })
    }

    pub(super) fn counts<const N: usize>(&mut self) -> Option<[u64; N]> {
        let mut counts = [0; N];
        for count in &mut counts {
            *count = u64::from_le_bytes(self.bytes()?);
        }
        Some(counts)
    }
}

/// Writes one field after the other into room that the caller has measured.
pub(super) struct Writer<'a> {
    pub(super) bytes: &'a mut [u8],
    pub(super) at: usize,
}

impl Writer<'_> {
    pub(super) fn put(&mut self, field: &[u8]) {
        let end = self.at + field.len();
        if let Some(room) = self.bytes.get_mut(self.at..end) {
            room.copy_from_slice(field);
        }
        self.at = end;
    }

    pub(super) fn port(&mut self, port: PortIdentity) {
        self.put(&port.clock_identity.0);
        self.put(&port.port_number.to_be_bytes());
    }

    pub(super) fn quality(&mut self, quality: ClockQuality) {
        self.put(&[quality.clock_class, quality.clock_accuracy.0]);
        self.put(&quality.offset_scaled_log_variance.to_be_bytes());
    }

    /// What is longer than 255 octets is cut off.
    pub(super) fn text(&mut self, text: &[u8]) {
        let text = &text[..text.len().min(usize::from(u8::MAX))];
        self.put(&[text.len() as u8]);
        self.put(text);
    }

    pub(super) fn address(&mut self, address: &PortAddress<'_>) {
        let octets = &address.address[..address.address.len().min(usize::from(u8::MAX))];
        self.put(&address.protocol.0.to_be_bytes());
        self.put(&(octets.len() as u16).to_be_bytes());
        self.put(octets);
    }

    pub(super) fn counts(&mut self, counts: &[u64]) {
        for count in counts {
            self.put(&count.to_le_bytes());
        }
    }
}
