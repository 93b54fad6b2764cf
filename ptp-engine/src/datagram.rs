//! The bytes of a message to send.

use core::{fmt, ops};

use ptp_common::wire::{Body, Header, Message, Tlvs};

/// The bytes of a message to send. No message that the agent sends is longer than Announce.
#[derive(Clone, Copy)]
pub struct Datagram {
    bytes: [u8; Self::CAPACITY],
    length: u8,
}

impl Datagram {
    const CAPACITY: usize = 64;

    /// A message without TLVs.
    pub fn new(header: Header, body: Body) -> Self {
        let mut bytes = [0; Self::CAPACITY];
        let message = Message { header, body, tlvs: Tlvs::NONE };
        // Cannot fail: the longest fixed part has 64 bytes, but an empty datagram beats a panic.
        let length = message.emit(&mut bytes).unwrap_or(0) as u8;
        Self { bytes, length }
    }
}

impl ops::Deref for Datagram {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}
impl PartialEq for Datagram {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}
impl Eq for Datagram {}
impl fmt::Debug for Datagram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Datagram(")?;
        for byte in self.iter() {
            write!(f, "{byte:02x}")?;
        }
        f.write_str(")")
    }
}
