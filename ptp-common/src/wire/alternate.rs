//! ALTERNATE_TIME_OFFSET_INDICATOR (IEEE 1588-2019, 16.3): behind Announce a grandmaster tells what other times, for
//! instance the local one, are from its own, and when that jumps next. For showing: nobody's clock follows it.

use core::fmt;

use super::{Tlv, TlvType, Tlvs};

/// Octets of a name that are kept; the standard allows ten symbols (16.3.3.7).
const NAME: usize = 16;
/// Before the name's octets: keyField, currentOffset, jumpSeconds, timeOfNextJump, the name's length.
const HEAD: usize = 16;

/// `displayName`, as far as it is kept.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct DisplayName {
    octets: [u8; NAME],
    length: u8,
}

impl DisplayName {
    /// Of a text; what is longer than ten symbols, or than is kept, is cut off.
    pub fn new(text: &str) -> Self {
        let mut name = Self { octets: [0; NAME], length: 0 };
        for symbol in text.chars().take(10) {
            let at = usize::from(name.length);
            let Some(room) = name.octets.get_mut(at..at + symbol.len_utf8()) else { break };
            name.length += symbol.encode_utf8(room).len() as u8;
        }
        name
    }

    fn of_octets(octets: &[u8]) -> Self {
        let mut name = Self { octets: [0; NAME], length: 0 };
        let length = octets.len().min(NAME);
        name.octets[..length].copy_from_slice(&octets[..length]);
        name.length = length as u8;
        name
    }

    /// As it is on the wire.
    pub fn octets(&self) -> &[u8] {
        &self.octets[..usize::from(self.length)]
    }
}

/// What can be read of it and does no harm on a terminal.
impl fmt::Display for DisplayName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = match core::str::from_utf8(self.octets()) {
            Ok(text) => text,
            // Cut off within a symbol, or no text at all.
            Err(error) => core::str::from_utf8(&self.octets[..error.valid_up_to()]).unwrap_or(""),
        };
        whole.chars().filter(|it| !it.is_control()).try_for_each(|it| write!(f, "{it}"))
    }
}

impl fmt::Debug for DisplayName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// One of the times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AlternateTimeOffset {
    /// `keyField`: which of them.
    pub key: u8,
    /// `currentOffset`: it is so many seconds ahead of the sender's time.
    pub current_offset_s: i32,
    /// `jumpSeconds`: how much further it is after the next jump.
    pub jump_s: i32,
    /// `timeOfNextJump`: the sender's time of it, seconds, 48 bits; 0 where none is known.
    pub next_jump_s: u64,
    /// `displayName`.
    pub name: DisplayName,
}

impl AlternateTimeOffset {
    /// Length of the longest value that is written, bytes.
    pub const MAX_LENGTH: usize = HEAD + NAME;

    /// Writes the value of its TLV, and returns its length.
    pub fn value(&self, value: &mut [u8; Self::MAX_LENGTH]) -> usize {
        *value = [0; Self::MAX_LENGTH];
        value[0] = self.key;
        value[1..5].copy_from_slice(&self.current_offset_s.to_be_bytes());
        value[5..9].copy_from_slice(&self.jump_s.to_be_bytes());
        value[9..15].copy_from_slice(&self.next_jump_s.to_be_bytes()[2..]);
        let name = self.name.octets();
        value[15] = name.len() as u8;
        value[HEAD..HEAD + name.len()].copy_from_slice(name);
        // To an even length (14.1.1).
        (HEAD + name.len()).next_multiple_of(2)
    }

    /// The TLV with such a value.
    pub const fn tlv(value: &[u8]) -> Tlv<'_> {
        Tlv { kind: TlvType::ALTERNATE_TIME_OFFSET_INDICATOR, value }
    }

    /// Reads the value of a TLV; `None` for one that is cut off.
    pub fn read(value: &[u8]) -> Option<Self> {
        let (head, rest) = value.split_first_chunk::<HEAD>()?;
        let name = rest.get(..usize::from(head[15]))?;
        let number =
            |at: usize| i32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let mut seconds = [0; 8];
        seconds[2..].copy_from_slice(&head[9..15]);
        Some(Self {
            key: head[0],
            current_offset_s: number(1),
            jump_s: number(5),
            next_jump_s: u64::from_be_bytes(seconds),
            name: DisplayName::of_octets(name),
        })
    }

    /// Those of a message; what is no such TLV, or a broken one, is left out.
    pub fn all<'a>(tlvs: &Tlvs<'a>) -> impl Iterator<Item = Self> + use<'a> {
        let indicators =
            tlvs.iter().filter(|tlv| tlv.kind == TlvType::ALTERNATE_TIME_OFFSET_INDICATOR);
        indicators.filter_map(|tlv| Self::read(tlv.value))
    }
}
