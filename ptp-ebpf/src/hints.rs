//! The NIC's receive time, asked of the driver where it offers XDP metadata (Linux 6.3). The program
//! is bound to one device when it is loaded, and calls a function that older kernels lack; so it is
//! an object of its own, loaded by a loader of its own, and nothing depends on it. It has no map:
//! the time travels in front of the packet to the program at TC ingress, which records it.
//!
//! Only PTP packets get metadata. Packets whose metadata differ are not merged on the way up, so
//! metadata on others would cost throughput.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod direct;
mod every;

use aya_ebpf::{
    EbpfContext,
    bindings::{xdp_action::XDP_PASS, xdp_md},
    helpers::generated::bpf_xdp_adjust_meta,
    macros::xdp,
    programs::XdpContext,
};
use core::{arch::asm, ptr};
use direct::Direct;
use ptp_common::{classify::classify, hint};

/// XDP in the driver: puts a hint in front of PTP packets.
#[xdp]
pub fn ptp_xdp_hints(ctx: XdpContext) -> u32 {
    if classify(&Direct { data: ctx.data(), end: ctx.data_end() }).is_ok() {
        leave_hint(&ctx);
    }
    XDP_PASS
}

#[inline(always)]
fn leave_hint(ctx: &XdpContext) {
    let context = ctx.as_ptr().cast::<xdp_md>();
    let hardware_ns = receive_time(context).unwrap_or(0);
    // SAFETY: the program's context. Pointers to the packet are stale afterwards, and none is kept.
    if unsafe { bpf_xdp_adjust_meta(context, -(hint::LENGTH as i32)) } != 0 {
        return;
    }
    // Another program's metadata may be there already; a hint is always at the beginning.
    let metadata = ctx.metadata();
    if metadata + hint::LENGTH > ctx.metadata_end() {
        return;
    }
    for (index, word) in hint::encode(hardware_ns).into_iter().enumerate() {
        // SAFETY: inside the metadata, as just checked, and aligned as the packet is.
        unsafe { ptr::write_volatile((metadata as *mut u16).add(index), word) };
    }
}

/// The NIC's time of the packet, nanoseconds; `None` where the driver cannot tell (-EOPNOTSUPP), or
/// not of this packet (-ENODATA).
#[inline(always)]
fn receive_time(context: *mut xdp_md) -> Option<u64> {
    let mut hardware_ns = 0_u64;
    let result: i64;
    // SAFETY: calls `int bpf_xdp_metadata_rx_timestamp(const struct xdp_md *, u64 *)`, a function of
    // the kernel, whose number the loader puts in and which the verifier replaces by the driver's
    // own. It writes the number at most. Assembly, because bpf-linker gives
    // internal linkage to all functions, even to one that is only declared; the optimiser then
    // takes it for one that ignores its arguments and changes nothing (bpf-linker 0.10.4).
    unsafe {
        asm!(
            "call bpf_xdp_metadata_rx_timestamp",
            inout("r1") context => _,
            inout("r2") &raw mut hardware_ns => _,
            lateout("r0") result,
            lateout("r3") _,
            lateout("r4") _,
            lateout("r5") _,
        );
    }
    (result as i32 == 0).then_some(hardware_ns)
}
