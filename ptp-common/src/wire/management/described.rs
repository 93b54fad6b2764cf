//! Management data with texts, addresses and tables, whose length is what is in them. What is in them stays where it
//! is: nothing is copied.

use super::fields::{Reader, Writer};
use crate::wire::{ClockQuality, PortIdentity};

/// `networkProtocol` (table 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetworkProtocol(pub u16);

impl NetworkProtocol {
    /// A socket of the host itself, as linuxptp has it.
    pub const UDS: Self = Self(0);
    /// UDP over IPv4.
    pub const UDP_IPV4: Self = Self(1);
    /// UDP over IPv6.
    pub const UDP_IPV6: Self = Self(2);
    /// Ethernet.
    pub const IEEE_802_3: Self = Self(3);
}

/// `PortAddress` (5.3.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortAddress<'a> {
    /// Of which protocol it is an address.
    pub protocol: NetworkProtocol,
    /// Its octets.
    pub address: &'a [u8],
}

impl PortAddress<'_> {
    /// Length on the wire, octets.
    pub const fn wire_length(&self) -> usize {
        4 + self.address.len()
    }
}

/// CLOCK_DESCRIPTION (15.5.3.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockDescription<'a> {
    /// `clockType`, a bit for each: 0x8000 ordinary, 0x4000 boundary.
    pub clock_type: u16,
    /// `physicalLayerProtocol`.
    pub physical_layer_protocol: &'a [u8],
    /// `physicalAddress`.
    pub physical_address: &'a [u8],
    /// `protocolAddress`.
    pub protocol_address: PortAddress<'a>,
    /// `manufacturerIdentity`.
    pub manufacturer_identity: [u8; 3],
    /// `productDescription`.
    pub product_description: &'a [u8],
    /// `revisionData`.
    pub revision_data: &'a [u8],
    /// `userDescription`.
    pub user_description: &'a [u8],
    /// `profileIdentity`.
    pub profile_identity: [u8; 6],
}

impl<'a> ClockDescription<'a> {
    pub(super) fn read(from: &mut Reader<'a>) -> Option<Self> {
        let clock_type = u16::from_be_bytes(from.bytes()?);
        let physical_layer_protocol = from.text()?;
        let length = usize::from(u16::from_be_bytes(from.bytes()?));
        let physical_address = from.slice(length)?;
        let protocol_address = from.address()?;
        let manufacturer_identity = from.bytes()?;
        // Reserved.
        from.byte()?;
        Some(Self {
            clock_type,
            physical_layer_protocol,
            physical_address,
            protocol_address,
            manufacturer_identity,
            product_description: from.text()?,
            revision_data: from.text()?,
            user_description: from.text()?,
            profile_identity: from.bytes()?,
        })
    }

    pub(super) fn write(&self, to: &mut Writer<'_>) {
        to.put(&self.clock_type.to_be_bytes());
        to.text(self.physical_layer_protocol);
        to.put(&(self.physical_address.len() as u16).to_be_bytes());
        to.put(self.physical_address);
        to.address(&self.protocol_address);
        to.put(&self.manufacturer_identity);
        to.put(&[0]);
        to.text(self.product_description);
        to.text(self.revision_data);
        to.text(self.user_description);
        to.put(&self.profile_identity);
    }
}

/// PORT_PROPERTIES_NP of linuxptp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortProperties<'a> {
    /// The port.
    pub port_identity: PortIdentity,
    /// `portState` by its number (table 20).
    pub port_state: u8,
    /// What stamps: 0 software, 1 a hardware clock.
    pub timestamping: u8,
    /// The interface's name.
    pub interface: &'a [u8],
}

impl<'a> PortProperties<'a> {
    pub(super) fn read(from: &mut Reader<'a>) -> Option<Self> {
        Some(Self {
            port_identity: from.port()?,
            port_state: from.byte()?,
            timestamping: from.byte()?,
            interface: from.text()?,
        })
    }

    pub(super) fn write(&self, to: &mut Writer<'_>) {
        to.port(self.port_identity);
        to.put(&[self.port_state, self.timestamping]);
        to.text(self.interface);
    }
}

/// UNICAST_MASTER_TABLE_NP of linuxptp: whom a port asks for time. The entries were checked when they were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnicastMasters<'a> {
    count: u16,
    entries: &'a [u8],
}

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnicastMaster<'a> {
    /// Its identity; zeros until it has said it.
    pub port_identity: PortIdentity,
    /// What it has announced.
    pub clock_quality: ClockQuality,
    /// Whether it is the one that is followed.
    pub is_selected: bool,
    /// How far it is with its grants: 0 waiting, 1 Announce, 2 Sync and Delay_Resp asked for, 3 all granted.
    pub state: u8,
    /// What it has announced.
    pub priority1: u8,
    /// The same.
    pub priority2: u8,
    /// Where it is.
    pub address: PortAddress<'a>,
}

impl<'a> UnicastMaster<'a> {
    const HEAD: usize = 10 + 4 + 4;

    fn read(from: &mut Reader<'a>) -> Option<Self> {
        Some(Self {
            port_identity: from.port()?,
            clock_quality: from.quality()?,
            is_selected: from.byte()? != 0,
            state: from.byte()?,
            priority1: from.byte()?,
            priority2: from.byte()?,
            address: from.address()?,
        })
    }

    /// Writes it to the beginning of `bytes`, and returns its length; `None` where it does not fit.
    pub fn emit(&self, bytes: &mut [u8]) -> Option<usize> {
        let length = Self::HEAD + self.address.wire_length();
        let mut to = Writer { bytes: bytes.get_mut(..length)?, at: 0 };
        to.port(self.port_identity);
        to.quality(self.clock_quality);
        to.put(&[u8::from(self.is_selected), self.state, self.priority1, self.priority2]);
        to.address(&self.address);
        Some(length)
    }
}

impl<'a> UnicastMasters<'a> {
    /// A table of the entries that were written one behind the other; `None` where they are not whole.
    pub fn new(entries: &'a [u8]) -> Option<Self> {
        let (mut from, mut count) = (Reader(entries), 0_u16);
        while !from.0.is_empty() {
            UnicastMaster::read(&mut from)?;
            count = count.checked_add(1)?;
        }
        Some(Self { count, entries })
    }

    /// How many.
    pub const fn count(&self) -> u16 {
        self.count
    }

    /// One after the other.
    pub fn iter(&self) -> impl Iterator<Item = UnicastMaster<'a>> + use<'a> {
        let mut from = Reader(self.entries);
        core::iter::from_fn(move || UnicastMaster::read(&mut from))
    }

    pub(super) fn read(from: &mut Reader<'a>) -> Option<Self> {
        let count = u16::from_be_bytes(from.bytes()?);
        let entries = from.0;
        for _ in 0..count {
            UnicastMaster::read(from)?;
        }
        Some(Self { count, entries: &entries[..entries.len() - from.0.len()] })
    }

    pub(super) fn write(&self, to: &mut Writer<'_>) {
        to.put(&self.count.to_be_bytes());
        to.put(self.entries);
    }
}

/// ALTERNATE_TIME_OFFSET_PROPERTIES (15.5.3.4.7), without the name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AlternateOffsetProperties {
    /// `keyField`.
    pub key: u8,
    /// `currentOffset`, s.
    pub current_offset_s: i32,
    /// `jumpSeconds`.
    pub jump_s: i32,
    /// `timeOfNextJump`, s, 48 bits.
    pub next_jump_s: u64,
}

impl AlternateOffsetProperties {
    pub(super) fn read(from: &mut Reader<'_>) -> Option<Self> {
        let key = from.byte()?;
        let current_offset_s = i32::from_be_bytes(from.bytes()?);
        let jump_s = i32::from_be_bytes(from.bytes()?);
        let [a, b, c, d, e, f] = from.bytes()?;
        let next_jump_s = u64::from_be_bytes([0, 0, a, b, c, d, e, f]);
        Some(Self { key, current_offset_s, jump_s, next_jump_s })
    }

    pub(super) fn write(&self, to: &mut Writer<'_>) {
        to.put(&[self.key]);
        to.put(&self.current_offset_s.to_be_bytes());
        to.put(&self.jump_s.to_be_bytes());
        to.put(&self.next_jump_s.to_be_bytes()[2..]);
    }
}
