//! Kernel programs for measurements only: the emptiest program of each kind, against which the cost
//! of a hook is taken, and the cost of one clock call inside eBPF. They are an object of their own,
//! so that the object that stamps packets stays as small as it can be.
//!
//! The cost of a clock call is the difference of two calls of the same clock that follow each other
//! with nothing in between: exactly one call lies between the two instants at which the counter is
//! read. No loop overhead is in it, so nothing has to be subtracted.
#![no_std]
#![no_main]

mod every;

use aya_ebpf::{
    bindings::xdp_action::XDP_PASS,
    btf_maps::Array,
    helpers::generated::{bpf_ktime_get_ns, bpf_ktime_get_tai_ns},
    macros::{btf_map, classifier, raw_tracepoint, xdp},
    programs::{RawTracePointContext, TcContext, XdpContext},
};
use core::ptr;

/// Pairs of calls per run: enough to make the run's own cost vanish, few enough for the verifier.
const PAIRS: u32 = 64;

/// What was measured. User space runs one measurement at a time and takes the result out, so it need
/// be neither per clock nor per CPU.
#[btf_map]
static COSTS: Array<Costs, 1> = Array::new();

/// `bpf_ktime_get_tai_ns` exists (Linux 6.1). Set at load time.
#[unsafe(no_mangle)]
static HAS_TAI: u8 = 0;

/// Sums over all differences, nanoseconds.
#[repr(C)]
pub struct Costs {
    count: u64,
    sum: u64,
    sum_of_squares: u64,
    min: u64,
    max: u64,
}

/// The empty program on TC.
#[classifier]
pub fn empty_tc(_ctx: TcContext) -> i32 {
    -1
}

/// The empty program on XDP.
#[xdp]
pub fn empty_xdp(_ctx: XdpContext) -> u32 {
    XDP_PASS
}

/// The empty program on the tracepoint.
#[raw_tracepoint(tracepoint = "net_dev_start_xmit")]
pub fn empty_start_xmit(_ctx: RawTracePointContext) -> i32 {
    0
}

/// The monotonic clock.
#[classifier]
pub fn clock_mono(_ctx: TcContext) -> i32 {
    // SAFETY: a helper without arguments.
    measure(|| unsafe { bpf_ktime_get_ns() });
    -1
}

/// The TAI clock; does nothing where the kernel has no helper for it.
#[classifier]
pub fn clock_tai(_ctx: TcContext) -> i32 {
    // SAFETY: a plain read; volatile, because the loader changes the value after compilation.
    if unsafe { ptr::read_volatile(&HAS_TAI) } != 0 {
        // SAFETY: a helper without arguments.
        measure(|| unsafe { bpf_ktime_get_tai_ns() });
    }
    -1
}

#[inline(always)]
fn measure(clock: impl Fn() -> u64) {
    let Some(costs) = COSTS.get_ptr_mut(0) else {
        return;
    };
    for _ in 0..PAIRS {
        let before = clock();
        let after = clock();
        // A clock that was stepped back in between has measured nothing.
        if after < before {
            continue;
        }
        let cost = after - before;
        // SAFETY: a map value that lives as long as the program; only one program runs at a time.
        unsafe {
            if (*costs).count == 0 || cost < (*costs).min {
                (*costs).min = cost;
            }
            if cost > (*costs).max {
                (*costs).max = cost;
            }
            (*costs).count += 1;
            (*costs).sum += cost;
            (*costs).sum_of_squares += cost * cost;
        }
    }
}
