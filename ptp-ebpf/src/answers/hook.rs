//! The two hooks at which requests become their answers, TC ingress and XDP in the driver: how each reads a packet, lets
//! it grow and makes its checksum right. All else is the same at both.

use aya_ebpf::{
    bindings::{__sk_buff, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR, xdp_md},
    helpers::generated::{
        bpf_csum_diff, bpf_l4_csum_replace, bpf_skb_change_tail, bpf_skb_load_bytes,
        bpf_skb_store_bytes, bpf_xdp_adjust_head, bpf_xdp_store_bytes,
    },
    programs::{TcContext, XdpContext},
};
use core::{mem::MaybeUninit, ptr};
use ptp_common::classify::{Location, Protocol, classify_protocol};

use crate::{
    direct::Direct,
    maps::{DATAGRAM, Work},
    packet::{REQUEST, UDP},
    write::folded,
};

/// `PACKET_OTHERHOST` (linux/if_packet.h).
const OTHER_HOST: u32 = 3;
/// `IPPROTO_UDP`.
const PROTOCOL: u16 = 17;

/// What programs ask a packet, and do to it, where they meet it.
pub trait Hook {
    /// Whether nobody has heard of the packet before.
    const IS_FIRST: bool;

    /// The interface by which it came.
    fn ifindex(&self) -> u32;

    /// Its length, bytes.
    fn size(&self) -> usize;

    /// Reads a value, which lies as [`Direct::at`] says.
    fn load<T: Copy>(&self, offset: usize) -> Option<T>;

    /// Stores `length` bytes.
    fn store<T>(&self, offset: usize, value: &T, length: usize) -> bool;

    /// Makes it so long; what was at its beginning may be elsewhere then. Where this fails it is as it was.
    fn resize(&self, length: usize) -> bool;

    /// The stack's stamp, CLOCK_REALTIME; 0 for none.
    fn stack_ns(&self) -> i64;

    /// Whether it has no tag beside it, and is not several joined into one.
    fn is_alone(&self) -> bool;

    /// Whether it is for this host, by the MAC address that it was sent to.
    fn is_for_us(&self, is_group: bool, is_own: bool) -> bool;

    /// Takes note of what of the datagram at `at` is in its checksum, as far as [`Self::sum`] asks.
    fn remember(&self, at: usize, work: &mut Work, has_trailer: bool) -> bool;

    /// Makes the UDP checksum of the datagram at `at` right, with `pseudo` bytes of pseudo headers and `before` words that
    /// were there.
    fn sum(&self, at: usize, work: &mut Work, before: usize, length: usize, pseudo: u32) -> bool;
}

/// TC ingress. Headers and message are written through the kernel's helpers, which make shared data writable; and
/// where the checksum is still to be filled in by a network card, they leave what it will be made of.
pub struct AtTc<'a>(pub &'a TcContext);

impl AtTc<'_> {
    #[inline(always)]
    pub fn skb(&self) -> *mut __sk_buff {
        self.0.skb.skb
    }
}

impl Hook for AtTc<'_> {
    const IS_FIRST: bool = false;

    #[inline(always)]
    fn ifindex(&self) -> u32 {
        // SAFETY: the program's context; the verifier checks the field access.
        unsafe { (*self.skb()).ifindex }
    }

    #[inline(always)]
    fn size(&self) -> usize {
        // SAFETY: as above.
        unsafe { (*self.skb()).len as usize }
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
    fn resize(&self, length: usize) -> bool {
        // SAFETY: the program's context.
        unsafe { bpf_skb_change_tail(self.skb(), length as u32, 0) == 0 }
    }

    #[inline(always)]
    fn stack_ns(&self) -> i64 {
        // SAFETY: the program's context; the verifier checks the field access.
        unsafe { (*self.skb()).tstamp as i64 }
    }

    #[inline(always)]
    fn is_alone(&self) -> bool {
        // SAFETY: as above.
        unsafe { (*self.skb()).vlan_present == 0 && (*self.skb()).gso_segs <= 1 }
    }

    #[inline(always)]
    fn is_for_us(&self, _: bool, _: bool) -> bool {
        // SAFETY: as above.
        unsafe { (*self.skb()).pkt_type != OTHER_HOST }
    }

    #[inline(always)]
    fn remember(&self, at: usize, work: &mut Work, has_trailer: bool) -> bool {
        let to = work.before.as_mut_ptr().cast();
        // SAFETY: the helper writes as many bytes as there are in front of the last word.
        let done =
            unsafe { bpf_skb_load_bytes(self.skb().cast(), at as u32, to, (DATAGRAM * 4) as u32) };
        work.before[DATAGRAM] = 0;
        if done == 0 && has_trailer {
            let Some(behind) = self.load::<u16>(at + UDP + REQUEST) else { return false };
            let [a, b] = behind.to_ne_bytes();
            work.before[DATAGRAM] = u32::from_ne_bytes([a, b, 0, 0]);
        }
        done == 0
    }

    /// For what the datagram was and is, and for what the pseudo header was and is. Where the checksum is still to be
    /// filled in, only the latter is in the field.
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
}

/// XDP in the driver, before the stack knows of the packet. Whether the sender's stack has left the checksum to a card
/// cannot be seen here, so it is made anew as a whole.
pub struct AtXdp<'a>(pub &'a XdpContext);

impl AtXdp<'_> {
    #[inline(always)]
    fn md(&self) -> *mut xdp_md {
        self.0.ctx
    }

    /// A PTP message.
    #[inline(always)]
    pub fn find(&self) -> Option<Location> {
        let frame = Direct { data: self.0.data(), end: self.0.data_end() };
        classify_protocol(&frame, Protocol::Ptp).ok()
    }
}

impl Hook for AtXdp<'_> {
    const IS_FIRST: bool = true;

    #[inline(always)]
    fn ifindex(&self) -> u32 {
        self.0.ingress_ifindex() as u32
    }

    #[inline(always)]
    fn size(&self) -> usize {
        self.0.data_end() - self.0.data()
    }

    #[inline(always)]
    fn load<T: Copy>(&self, offset: usize) -> Option<T> {
        let address = self.0.data() + offset;
        // SAFETY: inside the packet, and aligned as the trait says.
        (address + size_of::<T>() <= self.0.data_end())
            .then(|| unsafe { ptr::read(address as *const T) })
    }

    #[inline(always)]
    fn store<T>(&self, offset: usize, value: &T, length: usize) -> bool {
        let from = ptr::from_ref(value).cast_mut().cast();
        // SAFETY: the helper reads as many bytes as there are.
        unsafe {
            length <= size_of::<T>()
                && bpf_xdp_store_bytes(self.md(), offset as u32, from, length as u32) == 0
        }
    }

    /// At the front: drivers promise room there, and a veth has hardly any behind.
    #[inline(always)]
    fn resize(&self, length: usize) -> bool {
        let by = self.size() as i32 - length as i32;
        // SAFETY: the program's context.
        unsafe { bpf_xdp_adjust_head(self.md(), by) == 0 }
    }

    #[inline(always)]
    fn stack_ns(&self) -> i64 {
        0
    }

    /// That there is no tag beside the packet is the agent's business: it keeps this program off where there are VLANs.
    #[inline(always)]
    fn is_alone(&self) -> bool {
        true
    }

    #[inline(always)]
    fn is_for_us(&self, is_group: bool, is_own: bool) -> bool {
        is_group || is_own
    }

    #[inline(always)]
    fn remember(&self, at: usize, work: &mut Work, _: bool) -> bool {
        // Whether there is a checksum at all.
        let Some(length_and_checksum) = self.load::<u32>(at + 4) else { return false };
        work.before[1] = length_and_checksum;
        true
    }

    #[inline(always)]
    fn sum(&self, at: usize, work: &mut Work, _: usize, length: usize, pseudo: u32) -> bool {
        let words = length.next_multiple_of(4) as u32;
        // SAFETY: the helper reads as many bytes as these have.
        let sum = unsafe {
            let header = work.new_pseudo.as_mut_ptr();
            let protocol = u32::from(PROTOCOL.to_be());
            let sum = bpf_csum_diff(ptr::null_mut(), 0, header, pseudo, protocol) as u32;
            let header = work.summed_udp.as_mut_ptr();
            let sum = bpf_csum_diff(ptr::null_mut(), 0, header, UDP as u32, sum) as u32;
            let message = work.answer.as_mut_ptr().cast();
            bpf_csum_diff(ptr::null_mut(), 0, message, words, sum) as u32
        };
        let sum = match !folded(sum) {
            // 0 means that there is none.
            0 => u16::MAX,
            sum => sum,
        };
        self.store(at + 6, &sum, 2)
    }
}
