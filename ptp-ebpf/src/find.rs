//! Finding the message in a socket buffer, which may have most of the packet in pages.

use aya_ebpf::{helpers::generated::bpf_skb_load_bytes, programs::TcContext};
use core::mem::MaybeUninit;
use ptp_common::classify::{Frame, Location, Protocol, Reject, classify_protocol, probe};

use crate::{
    direct::Direct,
    settings::{WANT_PROBE, enabled},
};

/// A PTP message.
#[inline(always)]
pub fn find(ctx: &TcContext) -> Option<Location> {
    find_of(ctx, Protocol::Ptp)
}

/// Looks at the linear part of the packet, and where that ends too early at the rest.
#[inline(always)]
pub fn find_of(ctx: &TcContext, protocol: Protocol) -> Option<Location> {
    let frame = Direct { data: ctx.data(), end: ctx.data_end() };
    match classify_protocol(&frame, protocol) {
        Ok(location) => Some(location),
        Err(Reject::NotPtp) if enabled(&WANT_PROBE) => probe(&frame),
        Err(Reject::NotPtp) => None,
        Err(Reject::Truncated) => {
            say!(ctx, "the linear part of the packet ends before the decision");
            classify_protocol(&Loaded { ctx }, protocol).ok()
        }
    }
}

/// Access through the helper, which also reaches paged data.
struct Loaded<'a> {
    ctx: &'a TcContext,
}

impl Loaded<'_> {
    #[inline(always)]
    fn at<T: Copy>(&self, offset: usize) -> Option<T> {
        let mut value = MaybeUninit::<T>::uninit();
        // SAFETY: the helper writes at most `size_of::<T>()` bytes to `value`, all of them on success.
        unsafe {
            if bpf_skb_load_bytes(
                self.ctx.skb.skb.cast(),
                offset as u32,
                value.as_mut_ptr().cast(),
                size_of::<T>() as u32,
            ) != 0
            {
                return None;
            }
            Some(value.assume_init())
        }
    }
}

impl Frame for Loaded<'_> {
    #[inline(always)]
    fn byte(&self, offset: usize) -> Option<u8> {
        self.at(offset)
    }

    #[inline(always)]
    fn be16(&self, offset: usize) -> Option<u16> {
        self.at(offset).map(u16::from_be)
    }

    #[inline(always)]
    fn be16_pair(&self, offset: usize) -> Option<[u16; 2]> {
        self.at::<[u16; 2]>(offset).map(|pair| pair.map(u16::from_be))
    }
}
