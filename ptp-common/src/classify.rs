//! The packet classifier: finds the PTP message inside an Ethernet frame. One source, compiled into
//! the kernel programs (which implement [`Frame`] over a packet context) and into user space (where
//! a byte slice is a [`Frame`]).
//!
//! The protocol is PTP, or NTP where a caller asks for that: then UDP from or to port 123 is what is found, and
//! nothing else.
//!
//! Matched are EtherType 0x88F7 (IEEE 1588-2019 Annex E), UDP over IPv4 with options (Annex C) and
//! UDP over IPv6 (Annex D) on destination ports 319 and 320, each behind zero, one or two VLAN tags
//! that are still in the packet. A tag that the NIC or the stack has moved to metadata is the
//! caller's to report; it is invisible here. IPv6 extension headers are not followed: no PTP
//! implementation sends any, and following them needs a loop in the kernel programs.
//!
//! The classifier looks at addresses and lengths only as far as it must to find the message; that
//! the message itself is well formed is checked by [`crate::wire`].

/// EtherType of PTP over Ethernet (IEEE 1588-2019 Annex E).
pub const ETHERTYPE_PTP: u16 = 0x88f7;
/// EtherType of the frames by which `doctor` looks whether packets reach the capture points: IEEE 802 local
/// experimental EtherType 2, so that nobody takes them for PTP.
pub const ETHERTYPE_PROBE: u16 = 0x88b6;
/// EtherType of IPv4.
pub const ETHERTYPE_IPV4: u16 = 0x0800;
/// EtherType of IPv6.
pub const ETHERTYPE_IPV6: u16 = 0x86dd;
/// EtherType of a customer VLAN tag (IEEE 802.1Q C-TAG).
pub const ETHERTYPE_CTAG: u16 = 0x8100;
/// EtherType of a service VLAN tag (IEEE 802.1ad S-TAG).
pub const ETHERTYPE_STAG: u16 = 0x88a8;
/// UDP port of PTP event messages (IEEE 1588-2019 C.2).
pub const PORT_EVENT: u16 = 319;
/// UDP port of PTP general messages (IEEE 1588-2019 C.2).
pub const PORT_GENERAL: u16 = 320;

const ETHERNET_HEADER: usize = 14;
const VLAN_TAG: usize = 4;
const IPV4_MIN_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
const UDP_HEADER: usize = 8;
const PROTOCOL_UDP: u8 = 17;

/// Bounds-checked big-endian reads from an Ethernet frame, offsets in bytes from the destination
/// MAC address. `None` means that the frame (or the part of it that can be read) ends before.
pub trait Frame {
    /// The byte at `offset`.
    fn byte(&self, offset: usize) -> Option<u8>;
    /// The two bytes at `offset`, an even number, big endian.
    fn be16(&self, offset: usize) -> Option<u16>;
    /// Two such numbers that follow each other, under one bounds check: the kernel's verifier cannot
    /// follow a second check against the same variable offset once the compiler has removed it.
    fn be16_pair(&self, offset: usize) -> Option<[u16; 2]>;
}

impl Frame for [u8] {
    fn byte(&self, offset: usize) -> Option<u8> {
        self.get(offset).copied()
    }

    fn be16(&self, offset: usize) -> Option<u16> {
        let bytes = self.get(offset..)?.first_chunk()?;
        Some(u16::from_be_bytes(*bytes))
    }

    fn be16_pair(&self, offset: usize) -> Option<[u16; 2]> {
        Some([self.be16(offset)?, self.be16(offset.checked_add(2)?)?])
    }
}

/// Whose messages are looked for. A constant wherever it is given, so that the other protocol costs nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// PTP, in all of its transports.
    #[default]
    Ptp,
    /// NTP: requests go to port 123 from any, answers the other way.
    Ntp,
}

/// What carries the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Network {
    /// Directly on Ethernet, EtherType 0x88F7.
    Ethernet = 0,
    /// UDP over IPv4.
    Ipv4 = 4,
    /// UDP over IPv6.
    Ipv6 = 6,
}

/// Where the PTP message lies in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Location {
    /// What carries the message.
    pub network: Network,
    /// Offset of the network header (or of the message itself on Ethernet), bytes.
    pub l3_offset: usize,
    /// Offset of the first byte of the PTP header, bytes.
    pub ptp_offset: usize,
    /// UDP source port, 0 on Ethernet.
    pub source_port: u16,
    /// UDP destination port, 0 on Ethernet.
    pub destination_port: u16,
    /// VLAN tags found in the packet, outermost first; only the first `vlan_count` are meaningful.
    pub vlan: [u16; 2],
    /// How many VLAN tags were found in the packet, 0 to 2.
    pub vlan_count: u8,
}

/// Why a frame carries no PTP message that could be stamped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reject {
    /// Some other protocol.
    NotPtp,
    /// The frame, or the part of it that can be read, ends before the decision could be made.
    Truncated,
}

/// Finds the PTP message in `frame`, an Ethernet frame beginning with the destination MAC address.
///
/// # Errors
/// [`Reject::NotPtp`] for everything that is certainly not PTP (fragments other than the first
/// included), [`Reject::Truncated`] where the frame ends before the last field that decides: the
/// fixed part of the network header, then the UDP ports. What follows the ports is not looked at, so
/// `ptp_offset` may lie beyond the end of the frame.
#[inline(always)]
pub fn classify<F: Frame + ?Sized>(frame: &F) -> Result<Location, Reject> {
    classify_protocol(frame, Protocol::Ptp)
}

/// As [`classify`], for another protocol: its message is what `ptp_offset` says the place of.
///
/// # Errors
/// As [`classify`].
#[inline(always)]
pub fn classify_protocol<F: Frame + ?Sized>(
    frame: &F,
    protocol: Protocol,
) -> Result<Location, Reject> {
    let Some(ethertype) = frame.be16(12) else {
        return Err(Reject::Truncated);
    };
    tagged(frame, ethertype, protocol)
}

/// As [`classify`], for callers that know the EtherType of the outermost header in the packet
/// already (the kernel programs read `__sk_buff->protocol`, which costs no packet access).
///
/// # Errors
/// As [`classify`].
#[inline(always)]
pub fn classify_ethertype<F: Frame + ?Sized>(
    frame: &F,
    ethertype: u16,
) -> Result<Location, Reject> {
    tagged(frame, ethertype, Protocol::Ptp)
}

#[inline(always)]
fn tagged<F: Frame + ?Sized>(
    frame: &F,
    ethertype: u16,
    protocol: Protocol,
) -> Result<Location, Reject> {
    // Written out, not a loop: two tags at the most, and `network` is compiled for each of the three
    // offsets as a constant, which halves what an untagged packet costs in the kernel.
    if !is_vlan(ethertype) {
        return network(frame, ETHERNET_HEADER, ethertype, [0; 2], 0, protocol);
    }
    let Some([outer, ethertype]) = frame.be16_pair(ETHERNET_HEADER) else {
        return Err(Reject::Truncated);
    };
    if !is_vlan(ethertype) {
        return network(frame, ETHERNET_HEADER + VLAN_TAG, ethertype, [outer, 0], 1, protocol);
    }
    let Some([inner, ethertype]) = frame.be16_pair(ETHERNET_HEADER + VLAN_TAG) else {
        return Err(Reject::Truncated);
    };
    network(frame, ETHERNET_HEADER + 2 * VLAN_TAG, ethertype, [outer, inner], 2, protocol)
}

/// Finds what stands in the place of a message in a frame of [`ETHERTYPE_PROBE`] without tags; `None` in
/// any other frame.
#[inline(always)]
pub fn probe<F: Frame + ?Sized>(frame: &F) -> Option<Location> {
    (frame.be16(12)? == ETHERTYPE_PROBE).then_some(Location {
        network: Network::Ethernet,
        l3_offset: ETHERNET_HEADER,
        ptp_offset: ETHERNET_HEADER,
        source_port: 0,
        destination_port: 0,
        vlan: [0; 2],
        vlan_count: 0,
    })
}

/// The network header, which begins at `l3_offset`, and the ports behind it.
#[inline(always)]
fn network<F: Frame + ?Sized>(
    frame: &F,
    l3_offset: usize,
    ethertype: u16,
    vlan: [u16; 2],
    vlan_count: u8,
    protocol: Protocol,
) -> Result<Location, Reject> {
    let (network, udp_offset) = match ethertype {
        ETHERTYPE_IPV4 => {
            // The protocol first: most packets leave here, and what lies before it needs no further
            // check of the frame's length.
            let Some(protocol) = frame.byte(l3_offset + 9) else {
                return Err(Reject::Truncated);
            };
            if protocol != PROTOCOL_UDP {
                return Err(Reject::NotPtp);
            }
            let (Some(version_ihl), Some(fragment)) =
                (frame.byte(l3_offset), frame.be16(l3_offset + 6))
            else {
                return Err(Reject::Truncated);
            };
            // The version is checked because the byte is needed for the header length anyway; the
            // stack drops an IPv6 packet of another version, and a stamp that no message claims
            // costs nothing.
            if version_ihl >> 4 != 4 {
                return Err(Reject::NotPtp);
            }
            let header = ((version_ihl & 0x0f) as usize) * 4;
            if header < IPV4_MIN_HEADER {
                return Err(Reject::NotPtp);
            }
            // A later fragment has no UDP header; bytes at that place are payload.
            if fragment & 0x1fff != 0 {
                return Err(Reject::NotPtp);
            }
            (Network::Ipv4, l3_offset + header)
        }
        ETHERTYPE_IPV6 => {
            let Some(next_header) = frame.byte(l3_offset + 6) else {
                return Err(Reject::Truncated);
            };
            if next_header != PROTOCOL_UDP {
                return Err(Reject::NotPtp);
            }
            (Network::Ipv6, l3_offset + IPV6_HEADER)
        }
        ETHERTYPE_PTP if matches!(protocol, Protocol::Ptp) => {
            return Ok(Location {
                network: Network::Ethernet,
                l3_offset,
                ptp_offset: l3_offset,
                source_port: 0,
                destination_port: 0,
                vlan,
                vlan_count,
            });
        }
        _ => return Err(Reject::NotPtp),
    };
    let Some([source_port, destination_port]) = frame.be16_pair(udp_offset) else {
        return Err(Reject::Truncated);
    };
    let is_wanted = match protocol {
        Protocol::Ptp => destination_port == PORT_EVENT || destination_port == PORT_GENERAL,
        Protocol::Ntp => destination_port == crate::ntp::PORT || source_port == crate::ntp::PORT,
    };
    if !is_wanted {
        return Err(Reject::NotPtp);
    }
    Ok(Location {
        network,
        l3_offset,
        ptp_offset: udp_offset + UDP_HEADER,
        source_port,
        destination_port,
        vlan,
        vlan_count,
    })
}

#[inline(always)]
const fn is_vlan(ethertype: u16) -> bool {
    ethertype == ETHERTYPE_CTAG || ethertype == ETHERTYPE_STAG
}
