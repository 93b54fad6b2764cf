//! Both clocks, read back to back.

use aya_ebpf::helpers::generated::{bpf_ktime_get_ns, bpf_ktime_get_tai_ns};

use crate::settings::{HAS_TAI, enabled};

/// Readings of both clocks, nanoseconds.
#[derive(Clone, Copy)]
pub struct Stamps {
    /// CLOCK_MONOTONIC.
    pub mono_ns: u64,
    /// CLOCK_TAI; 0 where the kernel has no helper for it.
    pub tai_ns: u64,
}

impl Stamps {
    /// Now. The monotonic clock is the one that everything is computed from; it is read nearer to the wire on
    /// egress, where it comes second, and 20 ns after the hook on ingress.
    #[inline(always)]
    pub fn now() -> Self {
        // SAFETY: helpers without arguments.
        let tai_ns = if enabled(&HAS_TAI) { unsafe { bpf_ktime_get_tai_ns() } } else { 0 };
        // SAFETY: as above.
        let mono_ns = unsafe { bpf_ktime_get_ns() };
        Self { mono_ns, tai_ns }
    }
}
