//! What the programs know and remember. All tables are of fixed size: whoever floods displaces the oldest
//! entries, and nothing grows.

use aya_ebpf::{
    bindings::__sk_buff,
    btf_maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, ProgramArray, lpm_trie::Key},
    helpers::generated::{bpf_get_prandom_u32, bpf_ktime_get_ns},
    macros::btf_map,
    programs::TcContext,
};
use core::ptr;
use ptp_common::answer::{
    COUNTS, CSPTP_ANSWER, INTERFACES as NUMBERS, Outcome, compared, count_index, flag, interface,
    slot, spend,
};

use crate::{hook::Hook, memory::pair, packet::Request, serving::Serving};

/// The generation of the numbers that are valid.
#[btf_map]
static GENERATION: Array<u64, 1> = Array::new();
/// See [`slot`].
#[btf_map]
static SLOTS: Array<[u64; slot::LENGTH], 2> = Array::new();
/// See [`interface`].
#[btf_map]
static INTERFACES: HashMap<u32, [u64; interface::LENGTH], 64> = HashMap::new();
/// Own addresses of interfaces and those that reach all: the interface, then the address.
#[btf_map]
static ADDRESSES: HashMap<[u32; 5], u32, 4096> = HashMap::new();
/// Prefixes, IPv4 as `::ffff:0:0/96`; see [`flag`].
#[btf_map]
static PREFIXES: LpmTrie<[u8; 16], u32, 1024> = LpmTrie::new();
/// Clients that have come back: until when their answers are paid for.
#[btf_map]
static KNOWN: LruHashMap<u64, u64, 65536> = LruHashMap::new();
/// Clients that were heard once, each at the place that its hash names: rest of the hash, and when.
#[btf_map]
static NEWCOMERS: Array<u64, NEWCOMERS_LENGTH> = Array::new();
/// Addresses that are not trusted: until when their answers are paid for.
#[btf_map]
static STRANGERS: LruHashMap<u64, u64, 16384> = LruHashMap::new();
/// Until when all answers of a processor are paid for.
#[btf_map]
static BUDGET: PerCpuArray<u64, 1> = PerCpuArray::new();
/// Where answers are made.
#[btf_map]
static WORK: PerCpuArray<Work, 1> = PerCpuArray::new();
/// The program for exchanges of two messages.
#[btf_map]
static EXCHANGES: ProgramArray<1> = ProgramArray::new();
/// The answer that is being sent.
#[btf_map]
static LEAVING: PerCpuArray<Leaving, 1> = PerCpuArray::new();
/// The request that XDP has seen last on this processor: its hash, and when.
#[btf_map]
static SEEN: PerCpuArray<[u64; 2], 1> = PerCpuArray::new();
/// How the two points stand to each other, by the interface's number; see [`compared`].
#[btf_map]
static COMPARED: PerCpuArray<[u64; compared::LENGTH], { NUMBERS as usize }> = PerCpuArray::new();
/// Of a trial: whether one is under way, and the frames that a driver has taken.
#[btf_map]
static TAKEN: PerCpuArray<[u64; 2], 1> = PerCpuArray::new();
/// Counts of requests.
#[btf_map]
static COUNTS_OF: PerCpuArray<u64, COUNTS> = PerCpuArray::new();

/// An answer on its way out, from the hook to the driver. All of it happens inside of one call, on one processor.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Leaving {
    is_sending: u64,
    /// The socket buffer, as the hook at TC egress has seen it.
    skb: u64,
    /// When the driver was called with it, CLOCK_MONOTONIC; 0 as long as it was not.
    left_ns: u64,
}

impl Leaving {
    fn of_processor() -> Option<*mut Self> {
        LEAVING.get_ptr_mut(0)
    }

    /// Calls `send`; when the driver was called with what that has sent, or `None` where it has not been until
    /// `send` was done, because something holds the packet.
    #[inline(always)]
    pub fn of(send: impl FnOnce() -> bool) -> Option<u64> {
        let this = Self::of_processor()?;
        // SAFETY: this processor's own words, which the two programs below read and write meanwhile.
        unsafe {
            ptr::write_volatile(&raw mut (*this).skb, 0);
            ptr::write_volatile(&raw mut (*this).left_ns, 0);
            ptr::write_volatile(&raw mut (*this).is_sending, 1);
            let is_sent = send();
            ptr::write_volatile(&raw mut (*this).is_sending, 0);
            let left_ns = ptr::read_volatile(&raw const (*this).left_ns);
            (is_sent && left_ns != 0).then_some(left_ns)
        }
    }

    /// A packet passes TC egress.
    #[inline(always)]
    pub fn passes(skb: *mut __sk_buff) {
        let Some(this) = Self::of_processor() else { return };
        // SAFETY: as above.
        unsafe {
            if ptr::read_volatile(&raw const (*this).is_sending) != 0 {
                // In the map's value it is a number.
                ptr::write_volatile((&raw mut (*this).skb).cast(), skb);
            }
        }
    }

    /// The driver is called with a packet.
    #[inline(always)]
    pub fn leaves(skb: u64) {
        let Some(this) = Self::of_processor() else { return };
        // SAFETY: as above, and a helper without arguments.
        unsafe {
            if ptr::read_volatile(&raw const (*this).is_sending) != 0
                && ptr::read_volatile(&raw const (*this).skb) == skb
            {
                // Where devices are stacked the lowest one is the last.
                ptr::write_volatile(&raw mut (*this).left_ns, bpf_ktime_get_ns());
            }
        }
    }
}

/// Goes on in the program for exchanges of two messages, if there is one.
#[inline(always)]
pub fn go_to_exchanges(ctx: &TcContext) {
    // SAFETY: nothing is left to be done here.
    unsafe {
        let _ = EXCHANGES.tail_call(ctx, 0);
    }
}

/// Which of the two points sees requests earlier, and so nearer to the wire. A request is known again by who asks and by
/// its number; where another has come between on this processor, it is not compared.
pub struct Comparing;

impl Comparing {
    #[inline(always)]
    fn hash(request: &Request) -> u64 {
        // Never the zero that stands there at first.
        mixed(mixed(1, pair(request[5], request[6])), u64::from(request[7])) | 1
    }

    #[inline(always)]
    pub fn at_xdp(request: &Request, now_ns: u64) {
        let Some(seen) = SEEN.get_ptr_mut(0) else { return };
        // SAFETY: this processor's own words.
        unsafe { ptr::write_volatile(seen, [Self::hash(request), now_ns]) };
    }

    #[inline(always)]
    pub fn at_tc<H: Hook>(serving: &Serving, request: &Request, hook: &H) {
        let Some(stack_ns) = serving.stack_mono(hook) else { return };
        let Some(seen) = SEEN.get_ptr_mut(0) else { return };
        // SAFETY: as above.
        let [hash, xdp_ns] = unsafe { ptr::read_volatile(seen) };
        if hash != Self::hash(request) {
            return;
        }
        let number = (serving.own.get(interface::FLAGS) >> interface::NUMBER_SHIFT) as u32;
        let Some(sums) = COMPARED.get_ptr_mut(number & (NUMBERS - 1)) else { return };
        let earlier_ns = stack_ns - xdp_ns as i64;
        // SAFETY: as above.
        unsafe {
            (*sums)[compared::COUNT] += 1;
            (*sums)[compared::XDP_EARLIER] += u64::from(earlier_ns > 0);
            let sum = (*sums)[compared::SUM_NS];
            (*sums)[compared::SUM_NS] = sum.wrapping_add(earlier_ns as u64);
            ptr::write_volatile(seen, [0, 0]);
        }
    }
}

/// Whether a driver takes what XDP sends: what was sent for the trial is the next that a driver is given on this
/// processor, since the trial's frame is alone.
pub struct Taken;

impl Taken {
    #[inline(always)]
    pub fn expect() {
        let Some(taken) = TAKEN.get_ptr_mut(0) else { return };
        // SAFETY: this processor's own words.
        unsafe { ptr::write_volatile(taken.cast::<u64>(), 1) };
    }

    #[inline(always)]
    pub fn sent(frames: u32) {
        let Some(taken) = TAKEN.get_ptr_mut(0) else { return };
        // SAFETY: as above.
        unsafe {
            let [is_expected, sum] = ptr::read_volatile(taken);
            if is_expected != 0 {
                ptr::write_volatile(taken, [0, sum + u64::from(frames)]);
            }
        }
    }
}

/// What an answer is made of; a program's stack has no room for it.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Work {
    /// The answer, and zeros behind it.
    pub answer: [u64; ANSWER],
    /// The datagram that is there, without its checksum, and zeros behind it.
    pub before: [u32; BEFORE],
    /// The UDP headers to send, and the same without checksum.
    pub udp: [u32; 2],
    pub summed_udp: [u32; 2],
    /// The IP header.
    pub ip: [u32; 10],
    /// Pseudo headers.
    pub old_pseudo: [u32; 9],
    pub new_pseudo: [u32; 9],
}

/// Words of a Delay_Req and its UDP header.
pub const DATAGRAM: usize = (8 + 44) / 4;
/// Words of eight bytes that the longest answer is in, and one more.
pub const ANSWER: usize = CSPTP_ANSWER / 8 + 1;
/// Words of the longest datagram.
pub const BEFORE: usize = 2 + ANSWER * 2;

impl Work {
    /// This processor's.
    #[inline(always)]
    pub fn area() -> Option<&'static mut Self> {
        // SAFETY: nobody else uses it while a program runs on this processor, and each run takes it once. A dry run of
        // the agent's own may be interrupted by a packet; only its own result suffers, and it is repeated.
        Some(unsafe { &mut *WORK.get_ptr_mut(0)? })
    }
}

const NEWCOMERS_LENGTH: usize = 16384;
/// One in so many newcomers takes a place that is in use.
const ADMISSION: u32 = 8;
/// Silent for so long, a newcomer is one again; in units of 2^30 ns.
const FORGOTTEN: u32 = 60;

/// The numbers that hold for all interfaces.
#[derive(Clone, Copy)]
pub struct Slot(*const u64);

impl Slot {
    /// The valid one.
    #[inline(always)]
    pub fn now(now_ns: u64) -> Option<Self> {
        // SAFETY: a word in a map, read as a whole.
        let generation = unsafe { ptr::read_volatile(GENERATION.get_ptr(0)?) };
        let this = Self(SLOTS.get_ptr((generation & 1) as u32)?.cast());
        (this.get(slot::GENERATION) == generation && now_ns < this.get(slot::UNTIL)).then_some(this)
    }

    #[inline(always)]
    pub fn get(self, number: usize) -> u64 {
        // SAFETY: inside the map's value, which lives as long as the program; a word is read as a whole.
        unsafe { ptr::read_volatile(self.0.add(number)) }
    }

    /// Whether what was read was not overwritten meanwhile.
    #[inline(always)]
    pub fn is_still(self, generation: u64) -> bool {
        self.get(slot::GENERATION) == generation
    }
}

/// The numbers of an interface.
#[derive(Clone, Copy)]
pub struct Interface(*const u64);

impl Interface {
    #[inline(always)]
    pub fn of(ifindex: u32) -> Option<Self> {
        Some(Self(INTERFACES.get_ptr(ifindex)?.cast()))
    }

    #[inline(always)]
    pub fn get(self, number: usize) -> u64 {
        // SAFETY: as above. An entry is replaced as a whole, and the old one lives until the program ends.
        unsafe { ptr::read_volatile(self.0.add(number)) }
    }

    /// Counts what became of a request of some kind.
    #[inline(always)]
    pub fn count(self, kind: u32, outcome: Outcome) {
        let number = (self.get(interface::FLAGS) >> interface::NUMBER_SHIFT) as u32;
        let Some(count) = COUNTS_OF.get_ptr_mut(count_index(number, kind, outcome as u32)) else {
            return;
        };
        // SAFETY: this processor's own word, which nobody else writes while a TC program runs.
        unsafe { *count += 1 };
    }
}

/// What an address of this interface is; `None` for somebody else's.
#[inline(always)]
pub fn kind_of(ifindex: u32, address: &[u32; 4]) -> Option<u32> {
    let key = [ifindex, address[0], address[1], address[2], address[3]];
    let kind = ADDRESSES.get_ptr(&key)?;
    // SAFETY: a word in a map, read as a whole.
    Some(unsafe { ptr::read_volatile(kind) })
}

/// What the prefixes say of an address.
#[inline(always)]
pub fn prefix_of(address: &[u32; 4]) -> Option<u32> {
    let mut bytes = [0_u8; 16];
    // SAFETY: sixteen bytes each.
    unsafe { ptr::copy_nonoverlapping(address.as_ptr().cast::<u8>(), bytes.as_mut_ptr(), 16) };
    PREFIXES.get(&Key::new(128, bytes)).copied()
}

/// Mixes a word into a hash.
#[inline(always)]
pub fn mixed(hash: u64, word: u64) -> u64 {
    let product = (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    product ^ product >> 29
}

/// Whether somebody who is not trusted may have an answer to this address.
#[inline(always)]
pub fn admit_stranger(slot: Slot, now_ns: u64, hash: u64) -> Result<(), Outcome> {
    let (cost, burst) = (slot.get(slot::STRANGER_COST), slot.get(slot::STRANGER_BURST));
    if let Some(earned_at) = STRANGERS.get_ptr_mut(&hash) {
        // SAFETY: a word in a map. Two processors may write it at once, and then one answer is free.
        unsafe {
            let next = spend(ptr::read_volatile(earned_at), now_ns, cost, burst);
            ptr::write_volatile(earned_at, next.ok_or(Outcome::Stranger)?);
        }
        return Ok(());
    }
    let _ = STRANGERS.insert(&hash, now_ns + cost, 0);
    Ok(())
}

/// Whether a client may have an answer, and whether it has become a known one by asking again.
#[inline(always)]
pub fn admit(slot: Slot, now_ns: u64, hash: u64) -> Result<bool, Outcome> {
    let (mut is_known, mut is_back) = (false, false);
    if let Some(earned_at) = KNOWN.get_ptr_mut(&hash) {
        let (cost, burst) = (slot.get(slot::CLIENT_COST), slot.get(slot::CLIENT_BURST));
        // SAFETY: as above.
        unsafe {
            let next = spend(ptr::read_volatile(earned_at), now_ns, cost, burst);
            ptr::write_volatile(earned_at, next.ok_or(Outcome::ClientLimit)?);
        }
        is_known = true;
    } else if was_heard(now_ns, hash) {
        let _ = KNOWN.insert(&hash, now_ns, 0);
        (is_known, is_back) = (true, true);
    }
    let Some(earned_at) = BUDGET.get_ptr_mut(0) else { return Err(Outcome::Failed) };
    let burst = slot.get(slot::TOTAL_BURST);
    // Half of what is saved up is for those who are known.
    let allowed = if is_known { burst } else { burst >> 1 };
    // SAFETY: this processor's own word.
    unsafe {
        match spend(*earned_at, now_ns, slot.get(slot::TOTAL_COST), allowed) {
            Some(next) => *earned_at = next,
            None if is_known => return Err(Outcome::Budget),
            None => return Err(Outcome::Crowded),
        }
    }
    Ok(is_back)
}

/// Whether a newcomer was heard before; it is noted if not. In a flood one in [`ADMISSION`] takes the
/// place of another, so that who asks twice soon is likely to be found.
#[inline(always)]
fn was_heard(now_ns: u64, hash: u64) -> bool {
    let Some(place) = NEWCOMERS.get_ptr_mut((hash as usize % NEWCOMERS_LENGTH) as u32) else {
        return false;
    };
    let now = (now_ns >> 30) as u32;
    // SAFETY: a word in a map, read and written as a whole.
    let before = unsafe { ptr::read_volatile(place) };
    let is_fresh = now.wrapping_sub(before as u32) < FORGOTTEN;
    if is_fresh && before >> 32 == hash >> 32 {
        return true;
    }
    // SAFETY: a helper without arguments.
    if !is_fresh || unsafe { bpf_get_prandom_u32() } % ADMISSION == 0 {
        // SAFETY: as above.
        unsafe { ptr::write_volatile(place, hash >> 32 << 32 | u64::from(now)) };
    }
    false
}

/// Whether [`flag`] is set for all.
#[inline(always)]
pub fn has(slot: Slot, flag: u64) -> bool {
    slot.get(slot::FLAGS) & flag != 0
}

/// As [`flag::TRUSTED`], for what needs no prefix: a link has no strangers.
pub const LINK: u32 = flag::SERVED | flag::TRUSTED;
