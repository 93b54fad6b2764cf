//! Ethernet frames made from recipes, with what a record of each must say. The recipe is the truth:
//! what is expected is read from it and never from the frame, so the classifier is not tested
//! against itself.

use proptest::{collection::vec, prelude::*, sample::select};
use ptp_common::{
    classify::{
        ETHERTYPE_CTAG, ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_PTP, ETHERTYPE_STAG, Network,
        PORT_EVENT, PORT_GENERAL,
    },
    record::{MESSAGE_CAPACITY, Record},
};

/// What a frame is made from.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// Destination MAC address.
    pub destination_mac: [u8; 6],
    /// Source MAC address.
    pub source_mac: [u8; 6],
    /// VLAN tags, outermost first: EtherType and tag control information.
    pub tags: Vec<(u16, u16)>,
    /// What the frame carries.
    pub payload: Payload,
    /// The PTP message, or whatever stands in its place.
    pub message: Vec<u8>,
}

/// What a frame carries.
#[derive(Clone, Debug)]
pub enum Payload {
    /// PTP on Ethernet.
    Ethernet,
    /// IPv4.
    Ipv4 {
        /// Option words.
        options: Vec<[u8; 4]>,
        /// Flags and fragment offset.
        fragment: u16,
        /// Protocol number.
        protocol: u8,
        /// Source and destination address.
        addresses: [[u8; 4]; 2],
        /// Source and destination port.
        ports: [u16; 2],
    },
    /// IPv6 without extension headers.
    Ipv6 {
        /// Protocol number.
        next_header: u8,
        /// Source and destination address.
        addresses: [[u8; 16]; 2],
        /// Source and destination port.
        ports: [u16; 2],
    },
    /// Something else.
    Other {
        /// Its EtherType.
        ethertype: u16,
    },
}

/// What a record of a frame must say, as far as the frame decides it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// What carries the message.
    pub network: Network,
    /// Tag control information of the tags in the packet.
    pub vlan: Vec<u16>,
    /// Source address in the record's form.
    pub source: [u8; 16],
    /// Destination address in the record's form.
    pub destination: [u8; 16],
    /// Source and destination port, 0 on Ethernet.
    pub ports: [u16; 2],
    /// What of the message a record has room for.
    pub message: Vec<u8>,
}

impl Expected {
    /// What a record says of the same things.
    pub fn of(record: &Record) -> Self {
        Self {
            network: record.network,
            vlan: record.vlan[..usize::from(record.vlan_count)].to_vec(),
            source: record.source,
            destination: record.destination,
            ports: [record.source_port, record.destination_port],
            message: record.message().to_vec(),
        }
    }
}

impl Recipe {
    /// A Sync of 44 bytes on Ethernet, without tags.
    pub fn sync_on_ethernet() -> Self {
        Self {
            destination_mac: [0x01, 0x1b, 0x19, 0, 0, 0],
            source_mac: [2, 0, 0, 0, 0, 1],
            tags: Vec::new(),
            payload: Payload::Ethernet,
            message: sync(),
        }
    }

    /// A Sync of 44 bytes over UDP/IPv4 to the event port, without tags.
    pub fn sync_on_udp4() -> Self {
        Self {
            destination_mac: [0x01, 0, 0x5e, 0, 1, 0x81],
            payload: Payload::Ipv4 {
                options: Vec::new(),
                fragment: 0,
                protocol: 17,
                addresses: [[192, 0, 2, 1], [224, 0, 1, 129]],
                ports: [PORT_EVENT, PORT_EVENT],
            },
            ..Self::sync_on_ethernet()
        }
    }

    /// A Sync of 44 bytes over UDP/IPv6 to the event port, without tags.
    pub fn sync_on_udp6() -> Self {
        let mut group = [0; 16];
        group[..2].copy_from_slice(&[0xff, 0x0e]);
        group[14..].copy_from_slice(&[0x01, 0x81]);
        let mut source = [0; 16];
        source[..2].copy_from_slice(&[0xfe, 0x80]);
        source[15] = 1;
        Self {
            destination_mac: [0x33, 0x33, 0, 0, 1, 0x81],
            payload: Payload::Ipv6 {
                next_header: 17,
                addresses: [source, group],
                ports: [PORT_EVENT, PORT_EVENT],
            },
            ..Self::sync_on_ethernet()
        }
    }

    /// The frame's bytes.
    pub fn frame(&self) -> Vec<u8> {
        let mut frame = [self.destination_mac, self.source_mac].concat();
        for (ethertype, tci) in &self.tags {
            frame.extend(ethertype.to_be_bytes());
            frame.extend(tci.to_be_bytes());
        }
        let udp_length = (8 + self.message.len()) as u16;
        let udp_header = |[source, destination]: [u16; 2]| {
            [source, destination, udp_length, 0].map(u16::to_be_bytes).concat()
        };
        match &self.payload {
            Payload::Ethernet => frame.extend(ETHERTYPE_PTP.to_be_bytes()),
            Payload::Ipv4 { options, fragment, protocol, addresses, ports } => {
                frame.extend(ETHERTYPE_IPV4.to_be_bytes());
                let words = 5 + options.len();
                let total = (words * 4) as u16 + udp_length;
                let mut header = vec![0x40 | words as u8, 0];
                header.extend([total, 0x1234, *fragment].map(u16::to_be_bytes).concat());
                header.extend([1, *protocol, 0, 0]);
                header.extend(addresses.concat());
                header.extend(options.concat());
                // Bridges with a firewall drop what has it wrong.
                let sum = checksum(&header);
                header[10..12].copy_from_slice(&sum.to_be_bytes());
                frame.extend(header);
                frame.extend(udp_header(*ports));
            }
            Payload::Ipv6 { next_header, addresses, ports } => {
                frame.extend(ETHERTYPE_IPV6.to_be_bytes());
                frame.extend([0x60, 0, 0, 0]);
                frame.extend(udp_length.to_be_bytes());
                frame.extend([*next_header, 1]);
                frame.extend(addresses.concat());
                frame.extend(udp_header(*ports));
            }
            Payload::Other { ethertype } => frame.extend(ethertype.to_be_bytes()),
        }
        frame.extend(&self.message);
        frame
    }

    /// How long the frame is up to and with the field that decides whether it is PTP: the network
    /// header's fixed part and the ports.
    pub fn decided_at(&self) -> usize {
        let network = 14 + 4 * self.tags.len();
        match &self.payload {
            Payload::Ipv4 { options, .. } => network + 20 + 4 * options.len() + 4,
            Payload::Ipv6 { .. } => network + 40 + 4,
            Payload::Ethernet | Payload::Other { .. } => network,
        }
    }

    /// What a record of the first `length` bytes of the frame must say; `None` where there must be
    /// no record.
    pub fn expected(&self, length: usize) -> Option<Expected> {
        if length < self.decided_at() || self.tags.len() > 2 {
            return None;
        }
        let padded = |address: &[u8]| {
            let mut bytes = [0; 16];
            bytes[..address.len()].copy_from_slice(address);
            bytes
        };
        let (network, [source, destination], ports) = match &self.payload {
            Payload::Ethernet => {
                let addresses = [padded(&self.source_mac), padded(&self.destination_mac)];
                (Network::Ethernet, addresses, [0, 0])
            }
            Payload::Ipv4 { fragment, protocol: 17, addresses, ports, .. }
                if fragment & 0x1fff == 0 =>
            {
                (Network::Ipv4, [padded(&addresses[0]), padded(&addresses[1])], *ports)
            }
            Payload::Ipv6 { next_header: 17, addresses, ports } => {
                (Network::Ipv6, *addresses, *ports)
            }
            _ => return None,
        };
        if network != Network::Ethernet && ![PORT_EVENT, PORT_GENERAL].contains(&ports[1]) {
            return None;
        }
        let cut = self.frame().len().saturating_sub(length);
        let available = self.message.len().saturating_sub(cut);
        Some(Expected {
            network,
            vlan: self.tags.iter().map(|(_, tci)| *tci).collect(),
            source,
            destination,
            ports,
            message: self.message[..available.min(MESSAGE_CAPACITY)].to_vec(),
        })
    }
}

/// The Internet checksum of a header whose checksum field is zero (RFC 1071).
fn checksum(header: &[u8]) -> u16 {
    let words = header.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1]));
    let sum = words.sum::<u32>();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}

/// A Sync: type 0, version 2.1, length 44, then bytes that are all different.
pub fn sync() -> Vec<u8> {
    [0x00, 0x12, 0, 44].into_iter().chain(4..44).collect()
}

fn ports() -> impl Strategy<Value = [u16; 2]> {
    let port = || prop_oneof![4 => select(&[PORT_EVENT, PORT_GENERAL][..]), 1 => any::<u16>()];
    [port(), port()]
}

/// Recipes of every kind that the classifier knows, and of frames that are nearly such.
pub fn recipe() -> impl Strategy<Value = Recipe> {
    let protocol = || prop_oneof![6 => Just(17u8), 1 => any::<u8>()];
    // Whole, first fragment (more fragments follow), don't-fragment, any other.
    let fragment =
        prop_oneof![4 => Just(0u16), 1 => Just(0x2000), 1 => Just(0x4000), 1 => any::<u16>()];
    let ipv4 =
        (vec(any::<[u8; 4]>(), 0..=10), fragment, protocol(), any::<[[u8; 4]; 2]>(), ports());
    let payload = prop_oneof![
        2 => Just(Payload::Ethernet),
        4 => ipv4.prop_map(|(options, fragment, protocol, addresses, ports)| {
            Payload::Ipv4 { options, fragment, protocol, addresses, ports }
        }),
        3 => (protocol(), any::<[[u8; 16]; 2]>(), ports()).prop_map(|(next_header, addresses, ports)| {
            Payload::Ipv6 { next_header, addresses, ports }
        }),
        1 => any::<u16>()
            .prop_filter("one of the others", |ethertype| {
                ![0x0800, 0x86dd, 0x88f7, 0x8100, 0x88a8].contains(ethertype)
            })
            .prop_map(|ethertype| Payload::Other { ethertype }),
    ];
    let tag = (select(&[ETHERTYPE_CTAG, ETHERTYPE_STAG][..]), any::<u16>());
    // Mostly PTP's sizes, sometimes a jumbo that still fits a page with the kernel's own overhead.
    let message = prop_oneof![9 => vec(any::<u8>(), 0..150), 1 => vec(any::<u8>(), 3000..3300)];
    (any::<[u8; 6]>(), any::<[u8; 6]>(), vec(tag, 0..=2), payload, message).prop_map(
        |(destination_mac, source_mac, tags, payload, message)| Recipe {
            destination_mac,
            source_mac,
            tags,
            payload,
            message,
        },
    )
}
