//! What the XDP program that asks the driver for the NIC's receive time leaves in front of a packet
//! (its metadata), and the program at TC ingress finds there. Sixteen-bit words, because metadata is
//! aligned no better than the packet.

/// Words of a hint.
pub const WORDS: usize = 8;
/// Its length, bytes. Metadata lengths are multiples of 4 and at most 32.
pub const LENGTH: usize = WORDS * size_of::<u16>();

/// Tells a hint from other programs' metadata: "PTPhint1" in memory.
const MAGIC: [u16; 4] = [
    u16::from_ne_bytes(*b"PT"),
    u16::from_ne_bytes(*b"Ph"),
    u16::from_ne_bytes(*b"in"),
    u16::from_ne_bytes(*b"t1"),
];

/// The hint that says when the NIC received the packet, nanoseconds of its clock; 0: it does not know.
#[inline(always)]
pub const fn encode(hardware_ns: u64) -> [u16; WORDS] {
    let [m0, m1, m2, m3] = MAGIC;
    [
        m0,
        m1,
        m2,
        m3,
        hardware_ns as u16,
        (hardware_ns >> 16) as u16,
        (hardware_ns >> 32) as u16,
        (hardware_ns >> 48) as u16,
    ]
}

/// The time in a hint; `None` where this is none.
#[inline(always)]
pub const fn decode(words: [u16; WORDS]) -> Option<u64> {
    let [m0, m1, m2, m3, t0, t1, t2, t3] = words;
    if m0 != MAGIC[0] || m1 != MAGIC[1] || m2 != MAGIC[2] || m3 != MAGIC[3] {
        return None;
    }
    Some((t3 as u64) << 48 | (t2 as u64) << 32 | (t1 as u64) << 16 | t0 as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_comes_back_and_other_metadata_is_none() {
        for hardware_ns in [0, 1, 0x0123_4567_89ab_cdef, u64::MAX] {
            let words = encode(hardware_ns);
            assert_eq!(decode(words), Some(hardware_ns));
            for index in 0..MAGIC.len() {
                let mut other = words;
                other[index] ^= 1;
                assert_eq!(decode(other), None);
            }
        }
    }
}
