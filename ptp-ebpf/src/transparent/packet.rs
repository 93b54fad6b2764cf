//! A PTP message in a socket buffer, read and corrected through the kernel's helpers, which reach paged
//! data, make shared data writable and know about checksums that are still to be filled in.

use aya_ebpf::{
    bindings::{__sk_buff, BPF_F_MARK_MANGLED_0, BPF_F_RECOMPUTE_CSUM},
    helpers::generated::{
        bpf_csum_diff, bpf_l4_csum_replace, bpf_skb_load_bytes, bpf_skb_store_bytes,
    },
    programs::TcContext,
};
use core::mem::MaybeUninit;
use ptp_common::{
    classify::{Location, Network},
    residence::{CORRECTION, Head, Outcome, is_authentication},
};

/// TLVs that are looked at; no message has more.
const TLVS: usize = 8;
/// What the checksum is behind the beginning of the UDP header.
const UDP_CHECKSUM: usize = 6;
/// The field's place in an IPv4 header, and all of it but "don't fragment".
const IPV4_FRAGMENT: usize = 6;
const IS_FRAGMENT: u16 = 0x3fff;

pub struct Packet<'a> {
    ctx: &'a TcContext,
    pub location: &'a Location,
}

impl<'a> Packet<'a> {
    #[inline(always)]
    pub fn new(ctx: &'a TcContext, location: &'a Location) -> Self {
        Self { ctx, location }
    }

    #[inline(always)]
    fn skb(&self) -> *mut __sk_buff {
        self.ctx.skb.skb
    }

    /// Bytes of the frame.
    #[inline(always)]
    pub fn load<T: Copy>(&self, offset: usize) -> Option<T> {
        let mut value = MaybeUninit::<T>::uninit();
        // SAFETY: the helper writes at most as many bytes as there are, all of them on success.
        unsafe {
            let to = value.as_mut_ptr().cast();
            (bpf_skb_load_bytes(self.skb().cast(), offset as u32, to, size_of::<T>() as u32) == 0)
                .then(|| value.assume_init())
        }
    }

    /// Bytes of the message.
    #[inline(always)]
    pub fn message<T: Copy>(&self, offset: usize) -> Option<T> {
        self.load(self.location.ptp_offset + offset)
    }

    /// Why the message is none that could be timed or corrected, as far as that is not in its TLVs.
    #[inline(always)]
    pub fn objection(&self, head: &Head) -> Option<Outcome> {
        if !head.is_version_2() {
            return Some(Outcome::Version);
        }
        // SAFETY: the program's context; the verifier checks the field access.
        let length = unsafe { (*self.skb()).len };
        let end = self.location.ptp_offset as u32 + u32::from(head.length());
        if head.length() < head.fixed_length() || end > length {
            return Some(Outcome::Malformed);
        }
        if self.location.network == Network::Ethernet {
            return None;
        }
        if self.location.network == Network::Ipv4 {
            match self.load::<u16>(self.location.l3_offset + IPV4_FRAGMENT) {
                Some(fragment) if u16::from_be(fragment) & IS_FRAGMENT == 0 => {}
                _ => return Some(Outcome::Fragment),
            }
        }
        match self.load::<u16>(self.location.ptp_offset - 4) {
            Some(udp) if u16::from_be(udp) >= head.length() + 8 => None,
            _ => Some(Outcome::Malformed),
        }
    }

    /// Why the message must not be changed, by its TLVs.
    #[inline(always)]
    pub fn forbidden(&self, head: &Head) -> Option<Outcome> {
        let mut at = u32::from(head.fixed_length());
        let end = u32::from(head.length());
        for _ in 0..TLVS {
            if at >= end {
                break;
            }
            let Some([tlv_type, length]) = self.message::<[u16; 2]>(at as usize) else {
                return Some(Outcome::Malformed);
            };
            if is_authentication(u16::from_be(tlv_type)) {
                return Some(Outcome::Authenticated);
            }
            at += 4 + u32::from(u16::from_be(length));
        }
        (at != end).then_some(Outcome::Malformed)
    }

    /// Puts another `correctionField` into the message. Whether that was possible; if not, the packet is
    /// as it was.
    #[inline(always)]
    pub fn correct(&self, old: i64, new: i64) -> bool {
        let (old, new) = (old.to_be(), new.to_be());
        let field = (self.location.ptp_offset + CORRECTION) as u32;
        let store = |value: &i64, flags| {
            // SAFETY: the helper reads eight bytes.
            unsafe {
                bpf_skb_store_bytes(self.skb().cast(), field, (&raw const *value).cast(), 8, flags)
                    == 0
            }
        };
        if self.location.network == Network::Ethernet {
            return store(&new, u64::from(BPF_F_RECOMPUTE_CSUM));
        }
        let at = self.location.ptp_offset - 8 + UDP_CHECKSUM;
        if self.location.network == Network::Ipv4 && self.load::<u16>(at) == Some(0) {
            // No checksum (RFC 768).
            return store(&new, u64::from(BPF_F_RECOMPUTE_CSUM));
        }
        // What the hardware has summed of the packet stays right: message and checksum change by opposite
        // amounts. And where the checksum is still to be filled in, the helper leaves it alone.
        if !store(&new, 0) {
            return false;
        }
        // SAFETY: the helpers read eight bytes each; the offset is the checksum's.
        let done = unsafe {
            let (mut old, mut new) = (old, new);
            let difference =
                bpf_csum_diff((&raw mut old).cast(), 8, (&raw mut new).cast(), 8, 0) as u64;
            let flags = u64::from(BPF_F_MARK_MANGLED_0);
            bpf_l4_csum_replace(self.skb(), at as u32, 0, difference & 0xffff_ffff, flags) == 0
        };
        if !done {
            store(&old, 0);
        }
        done
    }
}
