//! The bytes of a message to send.

use core::{fmt, ops};

use ptp_common::wire::{Body, Bracket, Header, Message, TlvBuilder, Tlvs};

/// The bytes of a message to send. No message that the agent sends is longer than Announce.
#[derive(Clone, Copy)]
pub struct Datagram {
    bytes: [u8; Self::CAPACITY],
    length: u8,
}

impl Datagram {
    const CAPACITY: usize = 72;

    /// A message without TLVs.
    pub fn new(header: Header, body: Body) -> Self {
        Self::with(header, body, Tlvs::NONE)
    }

    /// A message that tells the bracket of its timestamp, where there is one.
    pub fn bracketed(header: Header, body: Body, bracket: Option<Bracket>) -> Self {
        let Some(bracket) = bracket else { return Self::new(header, body) };
        let (value, mut buffer) = (bracket.value(), [0; Bracket::LENGTH + 4]);
        let mut tlvs = TlvBuilder::new(&mut buffer);
        match tlvs.push(Bracket::tlv(&value)) {
            Ok(()) => Self::with(header, body, tlvs.finish()),
            // Cannot be: there is room for it.
            Err(_) => Self::new(header, body),
        }
    }

    fn with(header: Header, body: Body, tlvs: Tlvs<'_>) -> Self {
        let mut bytes = [0; Self::CAPACITY];
        let message = Message { header, body, tlvs };
        // Cannot fail: the longest message, Delay_Resp with a bracket, has 72 bytes, but an empty datagram beats a panic.
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
