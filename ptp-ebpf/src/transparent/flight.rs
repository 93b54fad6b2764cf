//! Which socket buffers are of interest to the tracepoints, which fire for every packet of the host: one
//! load decides. What is left behind, by whatever way a packet may disappear, costs nothing and is
//! overwritten some day; two messages that want one place at the same time cost one of them its time.

use core::{cell::UnsafeCell, ptr};

const BITS: u32 = 12;

/// See the module's paragraph.
#[unsafe(no_mangle)]
pub static FLIGHTS: Flights = Flights([const { Word(UnsafeCell::new(0)) }; 1 << BITS]);

/// The addresses, each at the place that its hash names.
#[repr(C)]
pub struct Flights([Word; 1 << BITS]);

#[repr(transparent)]
struct Word(UnsafeCell<u64>);

// SAFETY: only touched by volatile reads and writes of the whole word; see the same in `in_flight`.
unsafe impl Sync for Word {}

impl Flights {
    /// Fibonacci hashing, as in `in_flight`.
    #[inline(always)]
    fn place(&self, address: u64) -> *mut u64 {
        self.0[(address.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - BITS)) as usize].0.get()
    }

    /// Whether a packet is one of them.
    #[inline(always)]
    pub fn has(&self, address: u64) -> bool {
        // SAFETY: valid and aligned as long as the program lives.
        unsafe { ptr::read_volatile(self.place(address)) == address }
    }

    /// It is from now on.
    #[inline(always)]
    pub fn put(&self, address: u64) {
        // SAFETY: as above.
        unsafe { ptr::write_volatile(self.place(address), address) };
    }

    /// It is not any more.
    #[inline(always)]
    pub fn remove(&self, address: u64) {
        // SAFETY: as above.
        unsafe { ptr::write_volatile(self.place(address), 0) };
    }
}
