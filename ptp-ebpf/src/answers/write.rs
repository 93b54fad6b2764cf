//! Turning the packet of a request into that of its answer: headers and message, written anew as a whole. What a hook
//! has of its own, how a packet grows and how its checksum is made right, is the [`Hook`]'s.

use aya_ebpf::helpers::generated::bpf_csum_diff;
use core::ptr;
use ptp_common::{
    answer::interface,
    classify::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_PTP, Network, PORT_GENERAL},
};

use crate::{
    hook::Hook,
    maps::{DATAGRAM, Interface, Work},
    memory::{unpair, unsix},
    packet::{ETHERNET, Ends, IPV4, IPV6, Packet, TRAILER, UDP},
};

/// Hops that an answer to one address may make, and one to a group.
const HOPS: u8 = 64;
const LINK_HOPS: u8 = 1;
/// "Don't fragment".
const DONT_FRAGMENT: u16 = 0x4000;

impl<H: Hook> Packet<'_, H> {
    /// Makes the packet that of the answer, whose message is `length` bytes long. `false`: it was not possible,
    /// and the packet is as it was or is not to be sent.
    #[inline(always)]
    pub fn answer(&self, own: Interface, ends: &Ends, work: &mut Work, length: usize) -> bool {
        match self.network {
            Network::Ethernet => {
                self.hook.resize(ETHERNET + length)
                    && self.store_link(own, ends)
                    && self.hook.store(ETHERNET, &work.answer, length)
            }
            Network::Ipv4 => self.answer_v4(own, ends, work, length),
            Network::Ipv6 => self.answer_v6(own, ends, work, length),
        }
    }

    #[inline(always)]
    fn answer_v4(&self, own: Interface, ends: &Ends, work: &mut Work, length: usize) -> bool {
        if !self.hook.remember(ETHERNET + IPV4, work, false) {
            return false;
        }
        let has_checksum = head(work, PORT_GENERAL, UDP + length);
        self.write_v4(own, ends, work, length, DATAGRAM + 1, has_checksum)
    }

    /// Writes a datagram of `work` over the one that is there, of which `before` words are known.
    #[inline(always)]
    pub fn write_v4(
        &self,
        own: Interface,
        ends: &Ends,
        work: &mut Work,
        length: usize,
        before: usize,
        has_checksum: bool,
    ) -> bool {
        const AT: usize = ETHERNET + IPV4;
        let Some(first) = self.hook.load::<u32>(ETHERNET) else { return false };
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
        if !self.hook.resize(AT + UDP + length)
            || !self.store_link(own, ends)
            || !self.hook.store(ETHERNET, &work.ip, IPV4)
            || !self.hook.store(AT, &work.udp, UDP)
            || !self.hook.store(AT + UDP, &work.answer, length)
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
        self.hook.sum(AT, work, before, length, 12)
    }

    #[inline(always)]
    fn answer_v6(&self, own: Interface, ends: &Ends, work: &mut Work, length: usize) -> bool {
        if !self.hook.remember(ETHERNET + IPV6, work, ends.trailer == TRAILER) {
            return false;
        }
        head(work, PORT_GENERAL, UDP + length + TRAILER);
        self.write_v6(own, ends, work, length, DATAGRAM + 1)
    }

    /// As [`Self::write_v4`].
    #[inline(always)]
    pub fn write_v6(
        &self,
        own: Interface,
        ends: &Ends,
        work: &mut Work,
        length: usize,
        before: usize,
    ) -> bool {
        const AT: usize = ETHERNET + IPV6;
        let payload = UDP + length + TRAILER;
        let Some(first) = self.hook.load::<u32>(ETHERNET) else { return false };
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
        self.hook.resize(AT + payload)
            && self.store_link(own, ends)
            && self.hook.store(ETHERNET, &work.ip, IPV6)
            && self.hook.store(AT, &work.udp, UDP)
            // Zeros behind the message.
            && self.hook.store(AT + UDP, &work.answer, length + TRAILER)
            && self.hook.sum(AT, work, before, length, 36)
    }

    /// The whole header, since the packet may begin elsewhere than before.
    #[inline(always)]
    fn store_link(&self, own: Interface, ends: &Ends) -> bool {
        let own = unsix(own.get(interface::MAC));
        let to = &ends.mac;
        let to = if ends.is_unicast { [to[3], to[4], to[5]] } else { [to[0], to[1], to[2]] };
        let kind = match self.network {
            Network::Ethernet => ETHERTYPE_PTP,
            Network::Ipv4 => ETHERTYPE_IPV4,
            Network::Ipv6 => ETHERTYPE_IPV6,
        };
        let header = [to[0], to[1], to[2], own[0], own[1], own[2], kind.to_be()];
        self.hook.store(0, &header, ETHERNET)
    }
}

/// Makes the answer's UDP header, for a payload of the network layer of `payload` bytes, and takes the checksum
/// out of the one that is there. Whether there is a checksum.
#[inline(always)]
pub fn head(work: &mut Work, port: u16, payload: usize) -> bool {
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
pub fn folded(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}
