//! The packet of a request, at whatever hook: who has sent it to whom, and whether it may be answered.

use ptp_common::{
    answer::{BROADCAST, OWN, Outcome, flag, interface},
    classify::{Location, Network, PORT_GENERAL},
};

use crate::{
    hook::Hook,
    maps::{Interface, LINK, Slot, has, kind_of, mixed, prefix_of},
    memory::six,
};

/// Length of an Ethernet header.
pub const ETHERNET: usize = 14;
pub const IPV4: usize = 20;
pub const IPV6: usize = 40;
pub const UDP: usize = 8;
/// Length of a request.
pub const REQUEST: usize = 44;
/// Octets that may follow a message over IPv6 (D.2).
pub const TRAILER: usize = 2;
/// 224.0.1.129 and what stands in front of and behind the scope in FF0X::181.
const PRIMARY_V4: u32 = u32::from_be_bytes([224, 0, 1, 129]);
const PRIMARY_V6: u32 = 0x181;
const PRIMARY_MAC: [u8; 6] = [0x01, 0x1b, 0x19, 0, 0, 0];
/// What IPv4 addresses have in front in the tables: `::ffff:0:0/96`.
const MAPPED: u32 = 0xffff_u32.to_be();
/// Words of a message's beginning as they lie in memory.
pub type Request = [u32; REQUEST / 4];

/// Where the message begins in a packet of some network, without tags and options.
#[inline(always)]
pub const fn message_at(network: Network) -> usize {
    match network {
        Network::Ethernet => ETHERNET,
        Network::Ipv4 => ETHERNET + IPV4 + UDP,
        Network::Ipv6 => ETHERNET + IPV6 + UDP,
    }
}

/// Both ends of a request.
pub struct Ends {
    /// From the MAC addresses: to whom and from whom, as they lie in memory.
    pub mac: [u16; 6],
    pub source: [u32; 4],
    pub destination: [u32; 4],
    /// Whether it was sent to one address.
    pub is_unicast: bool,
    /// What the prefixes say of the sender.
    pub trust: u32,
    /// Octets behind the message.
    pub trailer: usize,
}

pub struct Packet<'a, H: Hook> {
    pub hook: &'a H,
    pub network: Network,
}

impl<'a, H: Hook> Packet<'a, H> {
    /// `None` for what is no plain event message.
    #[inline(always)]
    pub fn new(hook: &'a H, location: &Location) -> Option<Self> {
        let is_plain = location.vlan_count == 0
            && location.ptp_offset == message_at(location.network)
            && location.destination_port != PORT_GENERAL;
        is_plain.then_some(Self { hook, network: location.network })
    }

    #[inline(always)]
    fn load<T: Copy>(&self, offset: usize) -> Option<T> {
        self.hook.load(offset)
    }

    /// The message's beginning.
    #[inline(always)]
    pub fn request(&self) -> Option<Request> {
        match self.network {
            Network::Ethernet => self.load(message_at(Network::Ethernet)),
            Network::Ipv4 => self.load(message_at(Network::Ipv4)),
            Network::Ipv6 => self.load(message_at(Network::Ipv6)),
        }
    }

    /// Who asks whom, if the packet carries a request of this length and nothing else, and may be answered.
    #[inline(always)]
    pub fn ends(
        &self,
        own: Interface,
        slot: Slot,
        is_unicast: bool,
        is_probe: bool,
        length: usize,
        v4_trailer: usize,
    ) -> Result<Ends, Outcome> {
        if !self.hook.is_alone() {
            return Err(Outcome::Packet);
        }
        let (size, ifindex) = (self.hook.size(), self.hook.ifindex());
        let mac: [u16; 6] = self.load(0).ok_or(Outcome::Packet)?;
        let own_mac = own.get(interface::MAC);
        let group_bit = u16::from_ne_bytes([1, 0]);
        if !self.hook.is_for_us(mac[0] & group_bit != 0, six(mac[0], mac[1], mac[2]) == own_mac)
            || mac[3] & group_bit != 0
        {
            return Err(Outcome::Address);
        }
        if six(mac[3], mac[4], mac[5]) == own_mac && !is_probe {
            return Err(Outcome::Address);
        }
        let mut ends = Ends {
            mac,
            source: [u32::from(mac[3]), u32::from(mac[4]), u32::from(mac[5]), 0],
            destination: [0; 4],
            is_unicast,
            trust: LINK,
            trailer: 0,
        };
        match self.network {
            Network::Ethernet => {
                if size < ETHERNET + length {
                    return Err(Outcome::Packet);
                }
                let to = six(mac[0], mac[1], mac[2]);
                let [a, b, c, d, e, f] = PRIMARY_MAC;
                let group = u64::from_ne_bytes([a, b, c, d, e, f, 0, 0]);
                if to != (if is_unicast { own_mac } else { group }) {
                    return Err(Outcome::Address);
                }
                return Ok(ends);
            }
            Network::Ipv4 => {
                let header: [u32; 5] = self.load(ETHERNET).ok_or(Outcome::Packet)?;
                let first = u32::from_be(header[0]);
                let second = u32::from_be(header[1]);
                let total = (first & 0xffff) as usize;
                let trailer = total.wrapping_sub(IPV4 + UDP + length);
                if first >> 24 != 0x45
                    || second & 0x3fff != 0
                    || (trailer != 0 && trailer != v4_trailer)
                    || size != ETHERNET + total
                {
                    return Err(Outcome::Packet);
                }
                let (source, destination) = (u32::from_be(header[3]), u32::from_be(header[4]));
                // This network, this host, groups, and what is reserved.
                if source >> 24 == 0 || source >> 24 == 127 || source >> 28 >= 0xe {
                    return Err(Outcome::Address);
                }
                if !is_unicast && destination != PRIMARY_V4 {
                    return Err(Outcome::Address);
                }
                ends.trailer = trailer;
                ends.source = [0, 0, MAPPED, header[3]];
                ends.destination = [0, 0, MAPPED, header[4]];
            }
            Network::Ipv6 => {
                let header: [u32; 10] = self.load(ETHERNET).ok_or(Outcome::Packet)?;
                let payload = (u32::from_be(header[1]) >> 16) as usize;
                let trailer = payload.wrapping_sub(UDP + length);
                if (trailer != 0 && trailer != TRAILER) || size != ETHERNET + IPV6 + payload {
                    return Err(Outcome::Packet);
                }
                ends.trailer = trailer;
                ends.source = [header[2], header[3], header[4], header[5]];
                ends.destination = [header[6], header[7], header[8], header[9]];
                let first = u32::from_be(header[2]);
                let rest = header[3] | header[4];
                // Groups, and :: and ::1, and what stands for IPv4.
                if first >> 24 == 0xff || (first == 0 && rest == 0) || first == 0 && header[3] == 0
                {
                    return Err(Outcome::Address);
                }
                let to = u32::from_be(header[6]);
                let is_primary = to & 0xfff0_ffff == 0xff00_0000
                    && header[7] | header[8] == 0
                    && u32::from_be(header[9]) == PRIMARY_V6;
                if !is_unicast && !is_primary {
                    return Err(Outcome::Address);
                }
            }
        }
        if is_unicast && kind_of(ifindex, &ends.destination) != Some(OWN) {
            return Err(Outcome::Address);
        }
        if !is_probe && matches!(kind_of(ifindex, &ends.source), Some(OWN | BROADCAST)) {
            return Err(Outcome::Address);
        }
        let udp: [u16; 4] = match self.network {
            Network::Ipv4 => self.load(ETHERNET + IPV4),
            _ => self.load(ETHERNET + IPV6),
        }
        .ok_or(Outcome::Packet)?;
        if u16::from_be(udp[2]) as usize != UDP + length + ends.trailer {
            return Err(Outcome::Packet);
        }
        if is_probe {
            return Ok(ends);
        }
        ends.trust = match prefix_of(&ends.source) {
            Some(trust) => trust,
            None if has(slot, flag::PREFIXES_ONLY) => return Err(Outcome::Prefix),
            None => 0,
        };
        if has(slot, flag::PREFIXES_ONLY) && ends.trust & flag::SERVED == 0 {
            return Err(Outcome::Prefix);
        }
        Ok(ends)
    }
}

impl Ends {
    /// Mixes the sender's address into a hash.
    #[inline(always)]
    pub fn hash(&self, seed: u64) -> u64 {
        let words = self.source;
        let hash = mixed(seed, u64::from(words[0]) << 32 | u64::from(words[1]));
        mixed(hash, u64::from(words[2]) << 32 | u64::from(words[3]))
    }
}
