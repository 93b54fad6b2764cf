//! What the programs remember. All tables are of fixed size: whoever floods displaces the oldest entries,
//! and nothing grows.

use aya_ebpf::programs::TcContext;
use aya_ebpf::{
    btf_maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf},
    macros::btf_map,
};
use core::{arch::asm, ptr};
use ptp_common::residence::{
    BUCKETS, COUNTS, HISTOGRAMS, Key, Outcome, RELAYS, bucket, config, count_index, credit, held,
    histogram_index,
};

/// What the agent tells; see [`config`].
#[btf_map]
static CONFIG: Array<[u64; config::LENGTH], 1> = Array::new();
/// Interfaces that belong to ports: the port's number, and flags.
#[btf_map]
pub static PORTS: HashMap<u32, u32, 1024> = HashMap::new();
/// When event messages arrived: by key, without the port by which they leave.
#[btf_map]
pub static ARRIVALS: LruHashMap<Key, u64, 16384> = LruHashMap::new();
/// When they arrived and left, and when the driver was called: by key with both ports, once they have passed
/// TC egress.
#[btf_map]
pub static RESIDENCES: LruHashMap<Key, [u64; 3], 65536> = LruHashMap::new();
/// Messages between TC egress and the end of the driver's work: by their socket buffer's address.
#[btf_map]
pub static DEPARTING: LruHashMap<u64, Departing, 4096> = LruHashMap::new();
/// Time transmitters, by port, one of whose Sync could not be corrected, and when that was.
#[btf_map]
pub static ONE_WAY: LruHashMap<Key, u64, 1024> = LruHashMap::new();
/// Clocks that were heard on a port, and when.
#[btf_map]
pub static HEARD: LruHashMap<[u64; 2], u64, 4096> = LruHashMap::new();
/// Of each port: begin of the second and event messages in it; from TC egress to the driver, mean of the
/// undisturbed and slowly fading maximum, ns; [`credit`].
#[btf_map]
static STATES: Array<[u64; 5], 256> = Array::new();
/// By which of the kernel's devices messages leave that have passed TC egress of an interface, and how
/// often in a row it was another one.
#[btf_map]
static DEVICES: LruHashMap<u32, [u64; 2], 1024> = LruHashMap::new();
/// meanLinkDelay of each port, ns, for peer to peer.
#[btf_map]
static LINKS: Array<u64, 256> = Array::new();
/// Interfaces to which link-local messages are relayed; 0 ends the list.
#[btf_map]
static RELAY_TO: Array<u32, { RELAYS as usize }> = Array::new();
/// Counts of messages.
#[btf_map]
static COUNTS_OF: Array<u64, COUNTS> = Array::new();
/// Residence times.
#[btf_map]
static TIMES: Array<u64, HISTOGRAMS> = Array::new();
/// Messages that were taken out, for the agent to send when their events have left.
#[btf_map]
pub static HELD: RingBuf<(), { 256 * 1024 }> = RingBuf::new();

/// A place through which a pointer becomes a number.
#[btf_map]
static SCRATCH: PerCpuArray<u64, 1> = PerCpuArray::new();

/// The address of a context as a number, by way of a map: the verifier lets nobody calculate with the
/// pointer. 0 where that cannot be.
#[inline(always)]
pub fn number_of(ctx: &TcContext) -> u64 {
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return 0 };
    // SAFETY: this processor's own word, which nobody else uses while a TC program runs.
    unsafe {
        ptr::write_volatile(scratch, ctx.skb.skb as u64);
        ptr::read_volatile(scratch)
    }
}

/// See [`DEPARTING`].
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Departing {
    /// The event's key.
    pub key: Key,
    /// When it passed TC egress.
    pub egress_ns: u64,
    /// When the driver was called.
    pub start_ns: u64,
    /// Of the packet, bytes.
    pub length: u32,
    /// Interface whose TC egress that was.
    pub ifindex: u32,
    /// Processor on which the driver was called, and on which it answers.
    pub processor: u64,
}

/// A message in the ring.
#[repr(C)]
pub struct Record {
    pub words: [u64; held::WORDS],
    pub frame: [u8; held::FRAME],
}

const _: () = assert!(size_of::<Record>() == held::BYTES);

/// What the agent tells, or `None` where it has not told lately that it is there.
pub struct Config(*const [u64; config::LENGTH]);

impl Config {
    #[inline(always)]
    pub fn at(now_ns: u64) -> Option<Self> {
        let this = Self(CONFIG.get_ptr(0)?);
        (now_ns < this.get(config::TIME_UNTIL)).then_some(this)
    }

    #[inline(always)]
    pub fn get(&self, number: usize) -> u64 {
        // SAFETY: inside the map's value, which lives as long as the program; a word is read as a whole.
        unsafe { ptr::read_volatile(self.0.cast::<u64>().add(number)) }
    }
}

/// A port's numbers; see [`STATES`].
#[derive(Clone, Copy)]
pub struct State(*mut u64);

/// So often in a row another device is no accident: then it is the interface's.
const STRIKES: u64 = 3;

impl State {
    pub const SECOND: usize = 0;
    pub const EVENTS: usize = 1;
    pub const MEAN: usize = 2;
    pub const MOST: usize = 3;
    pub const CREDIT: usize = 4;

    #[inline(always)]
    pub fn of(port: u32) -> Option<Self> {
        STATES.get_ptr_mut(port & 0xff).map(|state| Self(state.cast()))
    }

    #[inline(always)]
    pub fn get(self, number: usize) -> u64 {
        // SAFETY: inside the map's value, which lives as long as the program.
        unsafe { ptr::read_volatile(self.0.add(number)) }
    }

    /// Several processors may write; each number is only a measure.
    #[inline(always)]
    pub fn set(self, number: usize, value: u64) {
        // SAFETY: as above.
        unsafe { ptr::write_volatile(self.0.add(number), value) }
    }
}

impl State {
    /// A message was corrected.
    #[inline(always)]
    pub fn earn(self) {
        let saved = self.get(Self::CREDIT);
        if saved < credit::MOST {
            self.set(Self::CREDIT, saved + 1);
        }
    }

    /// Whether a message may be withheld; then that is paid for.
    #[inline(always)]
    pub fn pays(self) -> bool {
        let saved = self.get(Self::CREDIT);
        if saved < credit::PRICE {
            return false;
        }
        self.set(Self::CREDIT, saved - credit::PRICE);
        true
    }
}

/// Whether a device is the one by which messages leave that have passed TC egress of an interface. Nobody
/// says which it is; but nearly always it is.
#[inline(always)]
pub fn is_device(ifindex: u32, device: u64) -> bool {
    let Some(known) = DEVICES.get_ptr_mut(&ifindex) else {
        let _ = DEVICES.insert(&ifindex, &[device, 0], 0);
        return true;
    };
    let known = known.cast::<u64>();
    // SAFETY: a value in the map, whose words are read and written as a whole.
    unsafe {
        let strikes = known.add(1);
        if ptr::read_volatile(known) == device {
            ptr::write_volatile(strikes, 0);
            return true;
        }
        let count = ptr::read_volatile(strikes) + 1;
        if count >= STRIKES {
            ptr::write_volatile(known, device);
            ptr::write_volatile(strikes, 0);
        } else {
            ptr::write_volatile(strikes, count);
        }
    }
    false
}

/// meanLinkDelay of a port, ns.
#[inline(always)]
pub fn link_delay_ns(port: u32) -> u64 {
    LINKS.get(port & 0xff).copied().unwrap_or(0)
}

/// An interface to which link-local messages are relayed, by its place; 0 for none.
#[inline(always)]
pub fn relay_to(number: u32) -> u32 {
    RELAY_TO.get(number).copied().unwrap_or(0)
}

#[inline(always)]
fn add(to: Option<*mut u64>, amount: u64) {
    if let Some(to) = to {
        // SAFETY: adds to a word in a map, which is aligned, as one step for all processors. Assembly,
        // because `core` has no such operation for this target.
        unsafe {
            asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) to, in(reg) amount, options(nostack))
        };
    }
}

/// Counts what became of a message. `place` is a count's place without the outcome.
#[inline(always)]
pub fn count(place: u32, outcome: Outcome) {
    add(COUNTS_OF.get_ptr_mut(place | outcome as u32), 1);
}

/// A message's place among the counts.
#[inline(always)]
pub fn place(port: u32, kind: u32) -> u32 {
    count_index(port, kind, 0)
}

/// Notes a residence time.
#[inline(always)]
pub fn note(port: u32, way: u32, residence_ns: u64) {
    add(TIMES.get_ptr_mut(histogram_index(port, way, bucket(residence_ns))), 1);
    add(TIMES.get_ptr_mut(histogram_index(port, way, BUCKETS - 1)), residence_ns);
}
