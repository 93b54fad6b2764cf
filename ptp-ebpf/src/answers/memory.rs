//! Numbers as they lie in memory: packets and the tables of addresses are bytes, which the programs take in words of
//! the machine's own order. Everything that puts words together or takes them apart is here, once for each order.

/// Whether a word's first byte is its lowest.
const IS_LITTLE: bool = cfg!(target_endian = "little");

/// Two words as one.
#[inline(always)]
pub fn pair(first: u32, second: u32) -> u64 {
    if IS_LITTLE {
        u64::from(first) | u64::from(second) << 32
    } else {
        u64::from(first) << 32 | u64::from(second)
    }
}

/// A word's two halves.
#[inline(always)]
pub fn unpair(word: u64) -> [u32; 2] {
    if IS_LITTLE { [word as u32, (word >> 32) as u32] } else { [(word >> 32) as u32, word as u32] }
}

/// The word that begins in the middle of one and ends in the middle of the next.
#[inline(always)]
pub fn between(first: u64, second: u64) -> u64 {
    if IS_LITTLE { (first >> 32) | (second << 32) } else { (first << 32) | (second >> 32) }
}

/// A word's first two bytes.
#[inline(always)]
pub fn first_half(word: u32) -> u16 {
    if IS_LITTLE { word as u16 } else { (word >> 16) as u16 }
}

/// A word's last two bytes.
#[inline(always)]
pub fn last_half(word: u32) -> u16 {
    if IS_LITTLE { (word >> 16) as u16 } else { word as u16 }
}

/// Six bytes, and two zeros behind them.
#[inline(always)]
pub fn six(a: u16, b: u16, c: u16) -> u64 {
    if IS_LITTLE {
        u64::from(a) | u64::from(b) << 16 | u64::from(c) << 32
    } else {
        u64::from(a) << 48 | u64::from(b) << 32 | u64::from(c) << 16
    }
}

/// The first six bytes of a word.
#[inline(always)]
pub fn unsix(word: u64) -> [u16; 3] {
    if IS_LITTLE {
        [word as u16, (word >> 16) as u16, (word >> 32) as u16]
    } else {
        [(word >> 48) as u16, (word >> 32) as u16, (word >> 16) as u16]
    }
}
