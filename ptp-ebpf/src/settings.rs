//! What the loader sets before the programs are loaded. The verifier knows these values (their section is
//! frozen) and drops the branches that they guard before it looks at the helper or the field that an older
//! kernel lacks.

use core::ptr;

/// `bpf_ktime_get_tai_ns` exists (Linux 6.1).
#[unsafe(no_mangle)]
pub static HAS_TAI: u8 = 0;
/// `bpf_xdp_load_bytes` exists (Linux 5.18).
#[unsafe(no_mangle)]
pub static HAS_XDP_LOAD_BYTES: u8 = 0;
/// `__sk_buff->hwtstamp` exists (Linux 5.16).
#[unsafe(no_mangle)]
pub static HAS_HWTSTAMP: u8 = 0;
/// The tracepoints are attached, so TC egress shall leave them a note.
#[unsafe(no_mangle)]
pub static WANT_XMIT: u8 = 0;

/// Frames of `doctor` are stamped as PTP is.
#[unsafe(no_mangle)]
pub static WANT_PROBE: u8 = 0;

/// Whether one of them is set.
#[inline(always)]
pub fn enabled(flag: &'static u8) -> bool {
    // SAFETY: a plain read; volatile, because the loader changes the value after compilation.
    unsafe { ptr::read_volatile(flag) != 0 }
}
