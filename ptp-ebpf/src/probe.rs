//! The programs by which `doctor` sends a frame of its own round through the hooks of one interface: what is
//! sent comes in again, and ends there. They are an object of their own, because only `doctor` wants them.
//! No frame of anybody else is touched.
#![no_std]
#![no_main]

mod direct;
mod every;

use aya_ebpf::{
    bindings::BPF_F_INGRESS, helpers::generated::bpf_redirect, macros::classifier,
    programs::TcContext,
};
use direct::Direct;
use ptp_common::classify::probe;

/// "Go on as if I were not here": `TCX_NEXT`.
const NEXT: i32 = -1;
/// `TCX_DROP`.
const DROP: i32 = 2;

#[inline(always)]
fn is_probe(ctx: &TcContext) -> bool {
    probe(&Direct { data: ctx.data(), end: ctx.data_end() }).is_some()
}

/// On TC egress: a probe does not go out, but comes in by the same interface.
#[classifier]
pub fn ptp_probe_turn(ctx: TcContext) -> i32 {
    if !is_probe(&ctx) {
        return NEXT;
    }
    // SAFETY: the program's context; the verifier checks the field access. The helper takes numbers.
    unsafe { bpf_redirect((*ctx.skb.skb).ifindex, u64::from(BPF_F_INGRESS)) as i32 }
}

/// On TC ingress: a probe comes no further, neither to sockets nor to a bridge that would learn its source.
#[classifier]
pub fn ptp_probe_end(ctx: TcContext) -> i32 {
    if is_probe(&ctx) { DROP } else { NEXT }
}
