//! Codes of the instructions of classic BPF, in which sockets' filters are written (linux/filter.h, linux/bpf_common.h).

pub(crate) const LOAD_WORD: u16 = 0x20;
pub(crate) const LOAD_HALF: u16 = 0x28;
pub(crate) const LOAD_BYTE: u16 = 0x30;
pub(crate) const LOAD_HALF_INDEXED: u16 = 0x48;
pub(crate) const LOAD_INDEX_IHL: u16 = 0xb1;
pub(crate) const TO_X: u16 = 0x07;
pub(crate) const AND: u16 = 0x54;
pub(crate) const XOR_X: u16 = 0xac;
pub(crate) const MULTIPLY: u16 = 0x24;
pub(crate) const JUMP: u16 = 0x05;
pub(crate) const IF_EQUAL: u16 = 0x15;
pub(crate) const IF_GREATER: u16 = 0x25;
pub(crate) const IF_BITS: u16 = 0x45;
pub(crate) const RETURN: u16 = 0x06;
