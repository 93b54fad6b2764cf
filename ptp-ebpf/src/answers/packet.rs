//! The packet of a request: who has sent it to whom, and turning it into the packet of its answer. Headers and
//! message are written through the kernel's helpers, which make shared data writable; and where the checksum
//! is still to be filled in by a network card, they leave what it will be made of.

use aya_ebpf::{
    bindings::{__sk_buff, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR},
    helpers::generated::{
        bpf_csum_diff, bpf_l4_csum_replace, bpf_skb_change_tail, bpf_skb_load_bytes,
        bpf_skb_store_bytes,
    },
    programs::TcContext,
};
use core::{mem::MaybeUninit, ptr};
use ptp_common::{
    answer::{BROADCAST, OWN, Outcome, flag, interface},
    classify::{Location, Network, PORT_EVENT, PORT_GENERAL},
};

use crate::{
    maps::{BEFORE, DATAGRAM, Interface, LINK, Slot, Work, has, kind_of, mixed, prefix_of},
    memory::{six, unpair, unsix},
};

/// Length of an Ethernet header.
const ETHERNET: usize = 14;
const IPV4: usize = 20;
const IPV6: usize = 40;
const UDP: usize = 8;
/// Length of a request.
pub const REQUEST: usize = 44;
/// Octets that may follow a message over IPv6 (D.2).
const TRAILER: usize = 2;
/// `PACKET_OTHERHOST` (linux/if_packet.h).
const OTHER_HOST: u32 = 3;
/// 224.0.1.129 and what stands in front of and behind the scope in FF0X::181.
const PRIMARY_V4: u32 = u32::from_be_bytes([224, 0, 1, 129]);
const PRIMARY_V6: u32 = 0x181;
const PRIMARY_MAC: [u8; 6] = [0x01, 0x1b, 0x19, 0, 0, 0];
/// What IPv4 addresses have in front in the tables: `::ffff:0:0/96`.
const MAPPED: u32 = 0xffff_u32.to_be();
/// Hops that an answer to one address may make, and one to a group.
const HOPS: u8 = 64;
const LINK_HOPS: u8 = 1;
/// "Don't fragment".
const DONT_FRAGMENT: u16 = 0x4000;

/// Words of a message's beginning as they lie in memory.
pub type Request = [u32; REQUEST / 4];

/// Where the message begins in a packet of some network, without tags and options.
#[inline(always)]
const fn message_at(network: Network) -> usize {
    match network {
        Network::Ethernet => ETHERNET,
        Network::Ipv4 => ETHERNET + IPV4 + UDP,
        Network::Ipv6 => ETHERNET + IPV6 + UDP,
    }
}

/// Both ends of a request.
pub struct Ends {
    /// From the MAC addresses: to whom and from whom, as they lie in memory.
    mac: [u16; 6],
    source: [u32; 4],
    destination: [u32; 4],
    /// Whether it was sent to one address.
    pub is_unicast: bool,
    /// What the prefixes say of the sender.
    pub trust: u32,
    /// Octets behind the message.
    pub trailer: usize,
}

pub struct Packet<'a> {
    ctx: &'a TcContext,
    network: Network,
}

impl<'a> Packet<'a> {
    /// `None` for what is no plain event message.
    #[inline(always)]
    pub fn new(ctx: &'a TcContext, location: &Location) -> Option<Self> {
        let is_plain = location.vlan_count == 0
            && location.ptp_offset == message_at(location.network)
            && location.destination_port != PORT_GENERAL;
        is_plain.then_some(Self { ctx, network: location.network })
    }

    #[inline(always)]
    pub fn skb(&self) -> *mut __sk_buff {
        self.ctx.skb.skb
    }

    #[inline(always)]
    fn load<T: Copy>(&self, offset: usize) -> Option<T> {
        let mut value = MaybeUninit::<T>::uninit();
        // SAFETY: the helper writes at most as many bytes as there are, all of them on success.
        unsafe {
            let to = value.as_mut_ptr().cast();
            (bpf_skb_load_bytes(self.skb().cast(), offset as u32, to, size_of::<T>() as u32) == 0)
                .then(|| value.assume_init())
        }
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
        let skb = self.skb();
        // SAFETY: the program's context; the verifier checks each field access.
        let (tag, segments, to, size, ifindex) = unsafe {
            ((*skb).vlan_present, (*skb).gso_segs, (*skb).pkt_type, (*skb).len, (*skb).ifindex)
        };
        if tag != 0 || segments > 1 {
            return Err(Outcome::Packet);
        }
        let mac: [u16; 6] = self.load(0).ok_or(Outcome::Packet)?;
        if to == OTHER_HOST || mac[3] & u16::from_ne_bytes([1, 0]) != 0 {
            return Err(Outcome::Address);
        }
        let own_mac = own.get(interface::MAC);
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
        let size = size as usize;
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

    /// Makes the packet that of the answer, whose message is `length` bytes long. `false`: it was not possible,
    /// and the packet is as it was or is not to be sent.
    #[inline(always)]
    pub fn answer(&self, own: Interface, ends: &Ends, work: &mut Work, length: usize) -> bool {
        match self.network {
            Network::Ethernet => {
                self.resize(ETHERNET + length)
                    && self.store_macs(own, ends)
                    && self.store(ETHERNET, &work.answer, length)
            }
            Network::Ipv4 => self.answer_v4(own, ends, work, length),
            Network::Ipv6 => self.answer_v6(own, ends, work, length),
        }
    }

    /// Reads what is summed of the request's datagram and makes the answer's UDP header, for a payload of the
    /// network layer of `payload` bytes. Whether there is a checksum.
    #[inline(always)]
    fn prepare(&self, at: usize, work: &mut Work, payload: usize) -> Option<bool> {
        let to = work.before.as_mut_ptr().cast();
        // SAFETY: the helper writes as many bytes as there are in front of the last word.
        if unsafe { bpf_skb_load_bytes(self.skb().cast(), at as u32, to, (DATAGRAM * 4) as u32) }
            != 0
        {
            return None;
        }
        Some(head(work, PORT_GENERAL, payload))
    }

    /// The message's words behind its fixed part.
    #[inline(always)]
    pub fn behind<T: Copy>(&self, offset: usize) -> Option<T> {
        match self.network {
            Network::Ethernet => None,
            Network::Ipv4 => self.load(message_at(Network::Ipv4) + offset),
            Network::Ipv6 => self.load(message_at(Network::Ipv6) + offset),
        }
    }

    /// Reads the datagram of a request, `size` bytes long.
    #[inline(always)]
    fn read_datagram(&self, at: usize, work: &mut Work, size: usize) -> bool {
        work.before = [0; BEFORE];
        let to = work.before.as_mut_ptr().cast();
        // The verifier wants to see each length.
        macro_rules! read {
            ($($length:literal)*) => {
                match size {
                    // SAFETY: the helper writes as many bytes, and there are more.
                    $($length => unsafe {
                        bpf_skb_load_bytes(self.skb().cast(), at as u32, to, $length) == 0
                    },)*
                    _ => false,
                }
            };
        }
        // Requests of 44, 50, 52 and 88 octets, and two behind them.
        read!(52 54 58 60 62 96 98)
    }

    /// The first message of an answer to a request of `request` bytes, to the event port.
    #[inline(always)]
    pub fn answer_first(
        &self,
        own: Interface,
        ends: &Ends,
        work: &mut Work,
        request: usize,
        length: usize,
    ) -> bool {
        let size = UDP + request + ends.trailer;
        match self.network {
            Network::Ethernet => false,
            Network::Ipv4 => {
                self.read_datagram(ETHERNET + IPV4, work, size) && {
                    let has_checksum = head(work, PORT_EVENT, UDP + length);
                    self.write_v4(own, ends, work, length, BEFORE, has_checksum)
                }
            }
            Network::Ipv6 => {
                self.read_datagram(ETHERNET + IPV6, work, size) && {
                    head(work, PORT_EVENT, UDP + length + TRAILER);
                    self.write_v6(own, ends, work, length, BEFORE)
                }
            }
        }
    }

    /// The second one in place of the first, whose datagram is in `work`, to the general port.
    #[inline(always)]
    pub fn answer_second(
        &self,
        own: Interface,
        ends: &Ends,
        work: &mut Work,
        length: usize,
    ) -> bool {
        let at = match self.network {
            Network::Ethernet => return false,
            Network::Ipv4 => ETHERNET + IPV4,
            Network::Ipv6 => ETHERNET + IPV6,
        };
        let Some(now) = self.load::<u32>(at + 4) else { return false };
        work.before[1] = now;
        match self.network {
            Network::Ethernet => false,
            Network::Ipv4 => {
                let has_checksum = head(work, PORT_GENERAL, UDP + length);
                self.write_v4(own, ends, work, length, BEFORE, has_checksum)
            }
            Network::Ipv6 => {
                head(work, PORT_GENERAL, UDP + length + TRAILER);
                self.write_v6(own, ends, work, length, BEFORE)
            }
        }
    }

    #[inline(always)]
    fn answer_v4(&self, own: Interface, ends: &Ends, work: &mut Work, length: usize) -> bool {
        let at = ETHERNET + IPV4;
        let Some(has_checksum) = self.prepare(at, work, UDP + length) else { return false };
        work.before[DATAGRAM] = 0;
        self.write_v4(own, ends, work, length, DATAGRAM + 1, has_checksum)
    }

    /// Writes a datagram of `work` over the one that is there, of which `before` words are known.
    #[inline(always)]
    fn write_v4(
        &self,
        own: Interface,
        ends: &Ends,
        work: &mut Work,
        length: usize,
        before: usize,
        has_checksum: bool,
    ) -> bool {
        const AT: usize = ETHERNET + IPV4;
        let Some(first) = self.load::<u32>(ETHERNET) else { return false };
        let (from, to) = (ends.source[3], ends.destination[3]);
        let (source, destination, hops) = if ends.is_unicast {
            (to, from, HOPS)
        } else {
            (own.get(interface::IP4) as u32, to, LINK_HOPS)
        };
        if source == 0 {
            return false;
        }
        // The request's traffic class.
        work.ip[0] = (u32::from_be(first) & 0xffff_0000 | (IPV4 + UDP + length) as u32).to_be();
        work.ip[1] = u32::from(DONT_FRAGMENT).to_be();
        work.ip[2] = (u32::from(hops) << 24 | 17 << 16).to_be();
        work.ip[3] = source;
        work.ip[4] = destination;
        // SAFETY: the helper reads the header.
        let sum =
            unsafe { bpf_csum_diff(ptr::null_mut(), 0, work.ip.as_mut_ptr(), IPV4 as u32, 0) };
        let [a, b] = (!folded(sum as u32)).to_ne_bytes();
        // As it lies in memory, behind time to live and protocol.
        work.ip[2] |= u32::from_ne_bytes([0, 0, a, b]);
        if !self.resize(AT + UDP + length)
            || !self.store_macs(own, ends)
            || !self.store(ETHERNET, &work.ip, IPV4)
            || !self.store(AT, &work.udp, UDP)
            || !self.store(AT + UDP, &work.answer, length)
        {
            return false;
        }
        if !has_checksum {
            return true;
        }
        work.old_pseudo[0] = from;
        work.old_pseudo[1] = to;
        work.old_pseudo[2] = work.before[1];
        work.new_pseudo[0] = source;
        work.new_pseudo[1] = destination;
        work.new_pseudo[2] = work.summed_udp[1];
        self.sum(AT, work, before, length, 12)
    }

    #[inline(always)]
    fn answer_v6(&self, own: Interface, ends: &Ends, work: &mut Work, length: usize) -> bool {
        const AT: usize = ETHERNET + IPV6;
        let payload = UDP + length + TRAILER;
        if self.prepare(AT, work, payload).is_none() {
            return false;
        }
        work.before[DATAGRAM] = 0;
        if ends.trailer == TRAILER {
            let Some(behind) = self.load::<u16>(AT + UDP + REQUEST) else { return false };
            let [a, b] = behind.to_ne_bytes();
            work.before[DATAGRAM] = u32::from_ne_bytes([a, b, 0, 0]);
        }
        self.write_v6(own, ends, work, length, DATAGRAM + 1)
    }

    /// As [`Self::write_v4`].
    #[inline(always)]
    fn write_v6(
        &self,
        own: Interface,
        ends: &Ends,
        work: &mut Work,
        length: usize,
        before: usize,
    ) -> bool {
        const AT: usize = ETHERNET + IPV6;
        let payload = UDP + length + TRAILER;
        let Some(first) = self.load::<u32>(ETHERNET) else { return false };
        let (from, to) = (ends.source, ends.destination);
        let (source, destination, hops) = if ends.is_unicast {
            (to, from, HOPS)
        } else {
            // The link's own scope, or a wider one.
            let at = if u32::from_be(to[0]) >> 16 & 0xf <= 2 {
                interface::IP6_LINK
            } else {
                interface::IP6
            };
            (halves(own.get(at), own.get(at + 1)), to, LINK_HOPS)
        };
        if source[0] == 0 {
            return false;
        }
        work.ip[0] = first;
        work.ip[1] = ((payload as u32) << 16 | 17 << 8 | u32::from(hops)).to_be();
        let mut at = 0;
        while at < 4 {
            work.ip[2 + at] = source[at];
            work.ip[6 + at] = destination[at];
            work.old_pseudo[at] = from[at];
            work.old_pseudo[4 + at] = to[at];
            work.new_pseudo[at] = source[at];
            work.new_pseudo[4 + at] = destination[at];
            at += 1;
        }
        work.old_pseudo[8] = work.before[1];
        work.new_pseudo[8] = work.summed_udp[1];
        self.resize(AT + payload)
            && self.store_macs(own, ends)
            && self.store(ETHERNET, &work.ip, IPV6)
            && self.store(AT, &work.udp, UDP)
            // Zeros behind the message.
            && self.store(AT + UDP, &work.answer, length + TRAILER)
            && self.sum(AT, work, before, length, 36)
    }

    /// Makes the UDP checksum right: for what the datagram was and is, and for what the pseudo header was and
    /// is. Where the checksum is still to be filled in, only the latter is in the field.
    #[inline(always)]
    fn sum(&self, at: usize, work: &mut Work, before: usize, length: usize, pseudo: u32) -> bool {
        // The message has zeros behind it.
        let words = length.next_multiple_of(4) as u32;
        // SAFETY: the helpers read as many bytes as these have.
        unsafe {
            let (from, size) = (work.before.as_mut_ptr(), (before * 4) as u32);
            let first = bpf_csum_diff(from, size, work.summed_udp.as_mut_ptr(), UDP as u32, 0);
            let message = work.answer.as_mut_ptr().cast();
            let whole = bpf_csum_diff(ptr::null_mut(), 0, message, words, first as u32) as u32;
            let (old, new) = (work.old_pseudo.as_mut_ptr(), work.new_pseudo.as_mut_ptr());
            let header = bpf_csum_diff(old, pseudo, new, pseudo, 0) as u32;
            let field = (at + 6) as u32;
            let mangled = u64::from(BPF_F_MARK_MANGLED_0);
            let with_header = mangled | u64::from(BPF_F_PSEUDO_HDR);
            bpf_l4_csum_replace(self.skb(), field, 0, u64::from(whole), mangled) == 0
                && bpf_l4_csum_replace(self.skb(), field, 0, u64::from(header), with_header) == 0
        }
    }

    #[inline(always)]
    fn resize(&self, length: usize) -> bool {
        // SAFETY: the program's context.
        unsafe { bpf_skb_change_tail(self.skb(), length as u32, 0) == 0 }
    }

    /// Stores `length` bytes.
    #[inline(always)]
    fn store<T>(&self, offset: usize, value: &T, length: usize) -> bool {
        let from = ptr::from_ref(value).cast();
        // SAFETY: the helper reads as many bytes as there are.
        unsafe {
            length <= size_of::<T>()
                && bpf_skb_store_bytes(self.skb(), offset as u32, from, length as u32, 0) == 0
        }
    }

    #[inline(always)]
    fn store_macs(&self, own: Interface, ends: &Ends) -> bool {
        let own = own.get(interface::MAC);
        let own = unsix(own);
        let to = &ends.mac;
        let macs = if ends.is_unicast {
            [to[3], to[4], to[5], own[0], own[1], own[2]]
        } else {
            [to[0], to[1], to[2], own[0], own[1], own[2]]
        };
        self.store(0, &macs, 12)
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

/// Makes the answer's UDP header, for a payload of the network layer of `payload` bytes, and takes the checksum
/// out of the one that is there. Whether there is a checksum.
#[inline(always)]
fn head(work: &mut Work, port: u16, payload: usize) -> bool {
    let checksum = u32::from_be(work.before[1]) & 0xffff;
    work.before[1] &= u32::from_be(0xffff_0000);
    let ports = u32::from(port) << 16 | u32::from(port);
    let length = (payload as u32) << 16;
    work.udp = [ports.to_be(), (length | checksum).to_be()];
    work.summed_udp = [ports.to_be(), length.to_be()];
    checksum != 0
}

#[inline(always)]
fn halves(first: u64, second: u64) -> [u32; 4] {
    let ([a, b], [c, d]) = (unpair(first), unpair(second));
    [a, b, c, d]
}

/// The sum of sixteen-bit words of a sum of thirty-two-bit words.
#[inline(always)]
fn folded(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}
