//! What the loader sets before the programs are loaded; see the same of the programs that stamp.

use core::ptr;

/// `bpf_ktime_get_tai_ns` exists (Linux 6.1).
#[unsafe(no_mangle)]
pub static HAS_TAI: u8 = 0;

/// Frames of `doctor` are no business of these programs.
pub static WANT_PROBE: u8 = 0;

/// Where between both tracepoints a message is taken to leave: 0 before the driver, 1 in the middle, 2 behind
/// it.
#[unsafe(no_mangle)]
pub static DEPARTURE: u8 = 0;

/// Whether one of them is set.
#[inline(always)]
pub fn enabled(flag: &'static u8) -> bool {
    number(flag) != 0
}

/// What one of them is set to.
#[inline(always)]
pub fn number(setting: &'static u8) -> u8 {
    // SAFETY: a plain read; volatile, because the loader changes the value after compilation.
    unsafe { ptr::read_volatile(setting) }
}
