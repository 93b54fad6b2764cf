//! The record that a kernel program puts into the ring buffer for each stamped packet, and how user
//! space reads it. The kernel side fills a [`RawRecord`] in place; user space never casts, it reads
//! field by field with [`Record::parse`], so a wrong size or version is an error and not a guess.
//! All fields are in the host's byte order, times in nanoseconds.

use crate::classify::Network;
use core::mem::{offset_of, size_of};

/// Version of the layout below; a reader refuses any other.
pub const RECORD_VERSION: u8 = 2;
/// How many bytes of the PTP message a record carries at the most. The longest fixed part is that of
/// Announce (64); the rest is room for TLVs such as PATH_TRACE.
pub const MESSAGE_CAPACITY: usize = 128;

/// Where a stamp was taken. The numbers are part of the record's layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Hook {
    /// TC (TCX or clsact) ingress: clock read by the program, and the stack's own stamp beside it.
    TcIngress = 1,
    /// TC (TCX or clsact) egress: clock read as the last thing before the record is submitted.
    TcEgress = 2,
    /// XDP, before the stack has allocated a socket buffer.
    XdpIngress = 3,
    /// Raw tracepoints `net_dev_start_xmit` and `net_dev_xmit`, right before and right after the
    /// driver was called. Carries the two stamps only; the packet's bytes came with the TC egress
    /// record of the same `serial`.
    Xmit = 4,
}

/// Direction of the packet as the host sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Direction {
    /// Received.
    Ingress = 0,
    /// Transmitted.
    Egress = 1,
}

/// The record as the kernel program writes it. See [`Record`] for the fields' meaning. `version` is
/// the first byte in every version of the layout.
#[derive(Clone, Copy)]
#[repr(C)]
#[expect(missing_docs, reason = "documented on Record, field by field")]
pub struct RawRecord {
    pub version: u8,
    pub hook: u8,
    pub direction: u8,
    pub network: u8,
    pub ifindex: u32,
    pub cpu: u32,
    pub queue: u32,
    pub serial: u64,
    pub mono_ns: u64,
    pub done_ns: u64,
    pub tai_ns: u64,
    pub stack_ns: u64,
    pub hardware_ns: u64,
    pub vlan: [u16; 2],
    pub vlan_count: u8,
    pub vlan_offloaded: u8,
    pub source_port: u16,
    pub destination_port: u16,
    pub message_length: u16,
    pub packet_length: u32,
    pub source: [u8; 16],
    pub destination: [u8; 16],
    pub message: [u8; MESSAGE_CAPACITY],
}

/// Size of a record, bytes.
pub const RECORD_SIZE: usize = size_of::<RawRecord>();

// No padding: the kernel program writes every byte that user space reads, whatever compiler built it.
const _: () = assert!(offset_of!(RawRecord, message) == 112);
const _: () = assert!(RECORD_SIZE == 112 + MESSAGE_CAPACITY && RECORD_SIZE.is_multiple_of(8));

/// One stamped packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Where the stamp was taken.
    pub hook: Hook,
    /// Direction of the packet.
    pub direction: Direction,
    /// What carries the message.
    pub network: Network,
    /// Interface index in the namespace of the hook.
    pub ifindex: u32,
    /// CPU that ran the program.
    pub cpu: u32,
    /// Receive queue (XDP, TC) or transmit queue mapping.
    pub queue: u32,
    /// Joins the records of one packet on different hooks: counts the egress packets of one CPU,
    /// CPU number in the upper 16 bits. 0 on ingress.
    pub serial: u64,
    /// CLOCK_MONOTONIC.
    pub mono_ns: u64,
    /// [`Hook::Xmit`] only: CLOCK_MONOTONIC when the driver had returned; `mono_ns` is from before
    /// it was called, so the packet went out between the two. 0 on other hooks.
    pub done_ns: u64,
    /// CLOCK_TAI as the kernel has it; 0 where the kernel has no helper (before Linux 6.1).
    pub tai_ns: u64,
    /// The stack's own receive stamp (`skb->tstamp`, CLOCK_REALTIME); 0 where there is none.
    pub stack_ns: u64,
    /// The NIC's stamp (`skb_hwtstamps`), in the NIC's time; 0 where there is none.
    pub hardware_ns: u64,
    /// VLAN tag control information, outermost tag first.
    pub vlan: [u16; 2],
    /// How many entries of `vlan` are meaningful, 0 to 2.
    pub vlan_count: u8,
    /// Whether the outermost tag was in metadata and not in the packet.
    pub vlan_offloaded: bool,
    /// UDP source port; 0 on Ethernet.
    pub source_port: u16,
    /// UDP destination port; 0 on Ethernet.
    pub destination_port: u16,
    /// Length of the packet on the wire as the hook saw it, bytes.
    pub packet_length: u32,
    /// Source address: IPv6 16 bytes, IPv4 the first 4, Ethernet the first 6.
    pub source: [u8; 16],
    /// Destination address, as `source`.
    pub destination: [u8; 16],
    message: [u8; MESSAGE_CAPACITY],
    message_length: u16,
}

/// Why bytes from the ring are no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Not [`RECORD_SIZE`] bytes.
    #[error("ring record of {0} bytes, expected {RECORD_SIZE}")]
    Size(usize),
    /// Written by another version of the kernel programs.
    #[error("ring record version {0}, expected {RECORD_VERSION}")]
    Version(u8),
    /// A field holds a value that has no meaning.
    #[error("ring record with unknown {0} {1}")]
    Field(&'static str, u8),
}

macro_rules! field {
    ($bytes:ident, $field:ident, $type:ty) => {{
        let at = offset_of!(RawRecord, $field);
        let mut raw = [0u8; size_of::<$type>()];
        raw.copy_from_slice(&$bytes[at..at + size_of::<$type>()]);
        <$type>::from_ne_bytes(raw)
    }};
}

macro_rules! array {
    ($bytes:ident, $field:ident, $length:expr) => {{
        let at = offset_of!(RawRecord, $field);
        let mut raw = [0u8; $length];
        raw.copy_from_slice(&$bytes[at..at + $length]);
        raw
    }};
}

impl Record {
    /// Reads a record from the bytes of one ring entry.
    ///
    /// # Errors
    /// [`RecordError`] for bytes of another size or version, or with an unknown enumeration value.
    pub fn parse(bytes: &[u8]) -> Result<Self, RecordError> {
        // The version comes first: it names the cause where another version has another size.
        match bytes.first() {
            Some(&RECORD_VERSION) => {}
            Some(&version) => return Err(RecordError::Version(version)),
            None => return Err(RecordError::Size(0)),
        }
        if bytes.len() != RECORD_SIZE {
            return Err(RecordError::Size(bytes.len()));
        }
        let hook = match bytes[offset_of!(RawRecord, hook)] {
            1 => Hook::TcIngress,
            2 => Hook::TcEgress,
            3 => Hook::XdpIngress,
            4 => Hook::Xmit,
            other => return Err(RecordError::Field("hook", other)),
        };
        let direction = match bytes[offset_of!(RawRecord, direction)] {
            0 => Direction::Ingress,
            1 => Direction::Egress,
            other => return Err(RecordError::Field("direction", other)),
        };
        let network = match bytes[offset_of!(RawRecord, network)] {
            0 => Network::Ethernet,
            4 => Network::Ipv4,
            6 => Network::Ipv6,
            other => return Err(RecordError::Field("network", other)),
        };
        let vlan_count = bytes[offset_of!(RawRecord, vlan_count)];
        if vlan_count > 2 {
            return Err(RecordError::Field("VLAN count", vlan_count));
        }
        let vlan = array!(bytes, vlan, 4);
        Ok(Self {
            hook,
            direction,
            network,
            ifindex: field!(bytes, ifindex, u32),
            cpu: field!(bytes, cpu, u32),
            queue: field!(bytes, queue, u32),
            serial: field!(bytes, serial, u64),
            mono_ns: field!(bytes, mono_ns, u64),
            done_ns: field!(bytes, done_ns, u64),
            tai_ns: field!(bytes, tai_ns, u64),
            stack_ns: field!(bytes, stack_ns, u64),
            hardware_ns: field!(bytes, hardware_ns, u64),
            vlan: [u16::from_ne_bytes([vlan[0], vlan[1]]), u16::from_ne_bytes([vlan[2], vlan[3]])],
            vlan_count,
            vlan_offloaded: bytes[offset_of!(RawRecord, vlan_offloaded)] != 0,
            source_port: field!(bytes, source_port, u16),
            destination_port: field!(bytes, destination_port, u16),
            packet_length: field!(bytes, packet_length, u32),
            source: array!(bytes, source, 16),
            destination: array!(bytes, destination, 16),
            message: array!(bytes, message, MESSAGE_CAPACITY),
            message_length: field!(bytes, message_length, u16).min(MESSAGE_CAPACITY as u16),
        })
    }

    /// The PTP message, or as much of it as the record had room for; empty on
    /// [`Hook::Xmit`].
    pub fn message(&self) -> &[u8] {
        &self.message[..usize::from(self.message_length)]
    }
}
