//! Packets between TC egress and the end of the driver's work: how the tracepoints, which fire for every
//! packet of the host, know the few that are of interest.
//!
//! Programs of two CPUs may meet at one place. On a 64-bit machine a reader sees each word as somebody has
//! written it, and [`InFlight::finish`] looks twice, so the worst is a packet without its record. On a 32-bit
//! machine a word is written in two halves, and another CPU may see one of them. An address has its upper
//! half zero there, so it is seen whole, and a place that another packet takes meanwhile is found out. What is
//! left is a socket buffer that was freed and became another CPU's packet before this CPU looked: two looks at
//! a half-written serial may then agree, and the stamps go to the wrong packet.

use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use core::{cell::UnsafeCell, ptr};

/// See the module's paragraphs.
#[unsafe(no_mangle)]
pub static IN_FLIGHT: InFlight = InFlight {
    addresses: [const { Word::new(0) }; PLACES],
    serials: [const { Word::new(0) }; PLACES],
    starts: [const { Word::new(0) }; PLACES],
};

/// Packets on their way out, each at the place that the hash of its socket buffer's address names.
/// The tracepoints fire for every packet of every interface, so the look-up is what has to be cheap:
/// one load, no helper, no lock. What is left behind, by whatever way a packet may disappear, costs
/// nothing and is overwritten some day. Two packets that want one place at the same time cost one of
/// them its record.
#[repr(C)]
pub struct InFlight {
    /// 0 where there is none.
    addresses: [Word; PLACES],
    serials: [Word; PLACES],
    /// When the driver was called; 0 as long as it has not taken the packet.
    starts: [Word; PLACES],
}

const PLACES_BITS: u32 = 8;
const PLACES: usize = 1 << PLACES_BITS;

impl InFlight {
    /// The place of an address. Fibonacci hashing: the upper bits of the product depend on all bits
    /// of the address.
    #[inline(always)]
    fn place(address: u64) -> usize {
        (address.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - PLACES_BITS)) as usize
    }

    /// A packet has passed TC egress.
    #[inline(always)]
    pub fn put(&self, address: u64, serial: u64) {
        let place = Self::place(address);
        // Empty while it changes, for `finish` on another CPU.
        self.addresses[place].store(0);
        self.serials[place].store(serial);
        self.starts[place].store(0);
        self.addresses[place].store(address);
    }

    /// Whether a packet is one of them. All that most packets of the host see of this program.
    #[inline(always)]
    pub fn has(&self, address: u64) -> bool {
        self.addresses[Self::place(address)].load() == address
    }

    /// The driver is about to be called with a packet that is one of them.
    #[inline(always)]
    pub fn start(&self, address: u64) {
        // SAFETY: a helper without arguments.
        let start_ns = unsafe { bpf_ktime_get_ns() };
        self.starts[Self::place(address)].store(start_ns);
    }

    /// The driver was too busy to take it.
    #[inline(always)]
    pub fn postpone(&self, address: u64) {
        self.starts[Self::place(address)].store(0);
    }

    /// The driver has taken it: its serial, and when the driver was called. `None` where another CPU
    /// has meanwhile taken the place, or even the socket buffer, for its own packet.
    #[inline(always)]
    pub fn finish(&self, address: u64) -> Option<(u64, u64)> {
        let place = Self::place(address);
        let serial = self.serials[place].load();
        let start_ns = self.starts[place].load();
        if self.addresses[place].load() != address
            || self.serials[place].load() != serial
            || start_ns == 0
        {
            return None;
        }
        self.addresses[place].store(0);
        Some((serial, start_ns))
    }

    /// It was dropped. What happens to it once the driver has it is no longer of interest.
    #[inline(always)]
    pub fn forget(&self, address: u64) {
        let place = Self::place(address);
        if self.starts[place].load() == 0 {
            self.addresses[place].store(0);
        }
    }
}

/// A word that all CPUs read and write. The verifier takes it for plain memory, and no other code of this
/// program touches it.
#[repr(transparent)]
pub struct Word(UnsafeCell<u64>);

// SAFETY: only touched by volatile reads and writes of the whole word, which the machine that runs the
// program sees as they are written here: an eBPF program has no data races that a compiler could exploit
// after this point. See the module on what a reader may see.
unsafe impl Sync for Word {}

impl Word {
    const fn new(value: u64) -> Self {
        Self(UnsafeCell::new(value))
    }

    #[inline(always)]
    fn load(&self) -> u64 {
        // SAFETY: valid and aligned as long as the program lives.
        unsafe { ptr::read_volatile(self.0.get()) }
    }

    #[inline(always)]
    fn store(&self, value: u64) {
        // SAFETY: as above.
        unsafe { ptr::write_volatile(self.0.get(), value) };
    }
}
