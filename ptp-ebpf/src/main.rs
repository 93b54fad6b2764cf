//! The kernel programs. Each finds the PTP message with the classifier of `ptp-common`, stamps the
//! packet with the monotonic and the TAI clock and hands a [`RawRecord`] to user space through one
//! ring buffer. No packet is ever dropped or changed, and a packet that is not PTP leaves after a
//! handful of loads.
//!
//! What decides the accuracy is *when* the clock is read. On ingress it is the first thing done once
//! the packet is known to be PTP. On egress it is the last: the record is reserved and filled first,
//! then the clock is read, then the record is submitted without waking anybody up, because a wake-up
//! raises an interrupt between the stamp and the wire (measured: it costs about 4 us of mean and
//! 1 us of spread).
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod direct;

use aya_ebpf::{
    EbpfContext,
    bindings::{BPF_RB_NO_WAKEUP, xdp_action::XDP_PASS},
    btf_maps::{PerCpuArray, RingBuf},
    helpers::generated::{
        bpf_get_smp_processor_id, bpf_ktime_get_ns, bpf_ktime_get_tai_ns, bpf_skb_load_bytes,
        bpf_xdp_load_bytes,
    },
    macros::{btf_map, classifier, raw_tracepoint, xdp},
    programs::{RawTracePointContext, TcContext, XdpContext},
};
use core::{arch::asm, cell::UnsafeCell, ffi::c_void, mem::MaybeUninit, ptr};
use direct::Direct;
use ptp_common::{
    classify::{Frame, Location, Network, Reject, classify},
    hint,
    record::{Direction, Hook, MESSAGE_CAPACITY, RECORD_VERSION, RawRecord},
};

/// "Go on as if I were not here": `TCX_NEXT` of TCX and `TC_ACT_UNSPEC` of clsact.
const NEXT: i32 = -1;
/// The driver has taken the packet.
const NETDEV_TX_OK: i32 = 0;

/// The records. 2 MiB hold about 7 700 of them, 77 ms at 100 000 packets per second; user space can
/// ask for another size at load time.
#[btf_map]
static RECORDS: RingBuf<(), { 2 * 1024 * 1024 }> = RingBuf::new();

/// Per hook (index: its number) and CPU, two counts: packets seen as PTP, and those of them that
/// were lost because the ring was full. `seen == recorded + lost` holds exactly.
#[btf_map]
static COUNTS: PerCpuArray<Counts, 8> = PerCpuArray::new();

/// Packets between TC egress and the end of the driver's work.
#[unsafe(no_mangle)]
static IN_FLIGHT: InFlight = InFlight {
    addresses: [const { Word::new(0) }; PLACES],
    serials: [const { Word::new(0) }; PLACES],
    starts: [const { Word::new(0) }; PLACES],
};

// Set at load time. The verifier knows their values (the section is frozen) and drops the branches
// they guard before it looks at the helper or the field that an older kernel lacks.
/// `bpf_ktime_get_tai_ns` exists (Linux 6.1).
#[unsafe(no_mangle)]
static HAS_TAI: u8 = 0;
/// `bpf_xdp_load_bytes` exists (Linux 5.18).
#[unsafe(no_mangle)]
static HAS_XDP_LOAD_BYTES: u8 = 0;
/// `__sk_buff->hwtstamp` exists (Linux 5.16).
#[unsafe(no_mangle)]
static HAS_HWTSTAMP: u8 = 0;
/// The tracepoints are attached, so TC egress shall leave them a note.
#[unsafe(no_mangle)]
static WANT_XMIT: u8 = 0;

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
    fn put(&self, address: u64, serial: u64) {
        let place = Self::place(address);
        // Empty while it changes, for `finish` on another CPU.
        self.addresses[place].store(0);
        self.serials[place].store(serial);
        self.starts[place].store(0);
        self.addresses[place].store(address);
    }

    /// Whether a packet is one of them. All that most packets of the host see of this program.
    #[inline(always)]
    fn has(&self, address: u64) -> bool {
        self.addresses[Self::place(address)].load() == address
    }

    /// The driver is about to be called with a packet that is one of them.
    #[inline(always)]
    fn start(&self, address: u64) {
        // SAFETY: a helper without arguments.
        let start_ns = unsafe { bpf_ktime_get_ns() };
        self.starts[Self::place(address)].store(start_ns);
    }

    /// The driver was too busy to take it.
    #[inline(always)]
    fn postpone(&self, address: u64) {
        self.starts[Self::place(address)].store(0);
    }

    /// The driver has taken it: its serial, and when the driver was called. `None` where another CPU
    /// has meanwhile taken the place, or even the socket buffer, for its own packet.
    #[inline(always)]
    fn finish(&self, address: u64) -> Option<(u64, u64)> {
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
    fn forget(&self, address: u64) {
        let place = Self::place(address);
        if self.starts[place].load() == 0 {
            self.addresses[place].store(0);
        }
    }
}

/// A word that all CPUs read and write.
#[repr(transparent)]
pub struct Word(UnsafeCell<u64>);

// SAFETY: only touched by volatile reads and writes, which tear on no machine.
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

/// Counts of one hook on one CPU.
#[repr(C)]
pub struct Counts {
    seen: u64,
    lost: u64,
}

/// Writes fields of a record. Volatile: the compiler would make a call of a byte-wise `memset` of
/// zeros that lie side by side.
macro_rules! set {
    ($record:expr, $($field:ident = $value:expr),+ $(,)?) => {{
        $( ptr::write_volatile(ptr::addr_of_mut!((*$record).$field), $value); )+
    }};
}

/// TC ingress: the clock is read as soon as the packet is known to be PTP; the stack's own stamp,
/// taken earlier, comes along where some socket has asked for it.
#[classifier]
pub fn ptp_tc_ingress(ctx: TcContext) -> i32 {
    if let Some(location) = find(&ctx) {
        let stamps = Stamps::now();
        with_record(Hook::TcIngress, |record, _| {
            let skb = ctx.skb.skb;
            // SAFETY: `skb` is the program's context; the verifier checks each field access.
            unsafe {
                let hardware_ns = match hint(&ctx) {
                    Some(hardware_ns) => hardware_ns,
                    None if enabled(&HAS_HWTSTAMP) => (*skb).hwtstamp,
                    None => 0,
                };
                set!(record, stack_ns = (*skb).tstamp, hardware_ns = hardware_ns, serial = 0);
            }
            fill_from_skb(record, &ctx, &location, Hook::TcIngress, Direction::Ingress);
            stamps.store(record);
        });
    }
    NEXT
}

/// The NIC's receive time as `ptp_xdp_hints` has left it in front of the packet; `None` where that is
/// not attached or the driver did not know.
#[inline(always)]
fn hint(ctx: &TcContext) -> Option<u64> {
    // SAFETY: `skb` is the program's context; the verifier checks the field access.
    let metadata = Direct { data: unsafe { (*ctx.skb.skb).data_meta } as usize, end: ctx.data() };
    let words = metadata.at::<u16, { hint::WORDS }>(0)?;
    hint::decode([
        words.read::<0>(),
        words.read::<1>(),
        words.read::<2>(),
        words.read::<3>(),
        words.read::<4>(),
        words.read::<5>(),
        words.read::<6>(),
        words.read::<7>(),
    ])
    .filter(|hardware_ns| *hardware_ns != 0)
}

/// TC egress: everything else first, the clock last.
#[classifier]
pub fn ptp_tc_egress(ctx: TcContext) -> i32 {
    if let Some(location) = find(&ctx) {
        with_record(Hook::TcEgress, |record, seen| {
            // SAFETY: `record` points to reserved ring memory of the right size.
            let address = unsafe {
                // Through memory: the verifier lets nobody calculate with a pointer to a context.
                set!(record, serial = ctx.skb.skb as u64);
                ptr::read_volatile(ptr::addr_of!((*record).serial))
            };
            // SAFETY: a helper without arguments.
            let cpu = u64::from(unsafe { bpf_get_smp_processor_id() });
            let serial = (seen & 0xffff_ffff_ffff) | cpu << 48;
            // SAFETY: `record` points to reserved ring memory of the right size.
            unsafe { set!(record, serial = serial, stack_ns = 0, hardware_ns = 0) };
            fill_from_skb(record, &ctx, &location, Hook::TcEgress, Direction::Egress);
            if enabled(&WANT_XMIT) {
                IN_FLIGHT.put(address, serial);
            }
            Stamps::now().store(record);
        });
    }
    NEXT
}

/// XDP: native where the driver can, generic otherwise.
#[xdp]
pub fn ptp_xdp_ingress(ctx: XdpContext) -> u32 {
    let frame = Direct { data: ctx.data(), end: ctx.data_end() };
    if let Ok(location) = classify(&frame) {
        let stamps = Stamps::now();
        with_record(Hook::XdpIngress, |record, _| {
            fill_from_xdp(record, &ctx, &frame, &location);
            stamps.store(record);
        });
    }
    XDP_PASS
}

/// The last point before the driver. The first argument is the socket buffer, the same address that
/// TC egress saw as its context, so no kernel structure has to be read. Nothing but the clock is
/// touched here: what comes after this stamp delays the packet. Where devices are stacked (VLAN,
/// bridge) the packet passes here once for each, and the lowest one's stamp stays.
#[raw_tracepoint(tracepoint = "net_dev_start_xmit")]
pub fn ptp_start_xmit(ctx: RawTracePointContext) -> i32 {
    let address: u64 = ctx.arg(0);
    if IN_FLIGHT.has(address) {
        return ptp_on_start_xmit(address);
    }
    0
}

/// The first point after the driver: it has handed the packet to the hardware. The socket buffer may
/// be gone by now; its address is only compared.
#[raw_tracepoint(tracepoint = "net_dev_xmit")]
pub fn ptp_xmit_done(ctx: RawTracePointContext) -> i32 {
    let address: u64 = ctx.arg(0);
    if IN_FLIGHT.has(address) {
        return ptp_on_xmit_done(address, ctx.arg(1));
    }
    0
}

/// A packet was dropped, perhaps by the queueing discipline: its socket buffer will be another
/// packet's, which must not be taken for it. Fires for dropped packets only.
#[raw_tracepoint(tracepoint = "kfree_skb")]
pub fn ptp_dropped(ctx: RawTracePointContext) -> i32 {
    let address: u64 = ctx.arg(0);
    if IN_FLIGHT.has(address) {
        IN_FLIGHT.forget(address);
    }
    0
}

// The two that follow are functions of their own, so that the programs above need no registers
// saved: every packet of the host pays for that. The verifier looks at global functions by themselves
// and wants a number from them. Their names would otherwise depend on the compiler's version.

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn ptp_on_start_xmit(address: u64) -> i32 {
    IN_FLIGHT.start(address);
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn ptp_on_xmit_done(address: u64, code: i32) -> i32 {
    // SAFETY: a helper without arguments.
    let done_ns = unsafe { bpf_ktime_get_ns() };
    if code != NETDEV_TX_OK {
        // The queueing discipline will try again.
        IN_FLIGHT.postpone(address);
        return 0;
    }
    let Some((serial, start_ns)) = IN_FLIGHT.finish(address) else {
        return 0;
    };
    with_record(Hook::Xmit, |record, _| {
        // SAFETY: `record` points to reserved ring memory of the right size.
        unsafe {
            set!(
                record,
                serial = serial,
                mono_ns = start_ns,
                done_ns = done_ns,
                tai_ns = 0,
                stack_ns = 0,
                hardware_ns = 0,
                network = 0,
                ifindex = 0,
                queue = 0,
                vlan = [0; 2],
                vlan_count = 0,
                vlan_offloaded = 0,
                source_port = 0,
                destination_port = 0,
                message_length = 0,
                packet_length = 0,
            );
        }
        store_addresses(record, [0; 4], [0; 4]);
        fill_common(record, Hook::Xmit, Direction::Egress);
    });
    0
}

/// Both clocks, read back to back.
#[derive(Clone, Copy)]
struct Stamps {
    mono_ns: u64,
    tai_ns: u64,
}

impl Stamps {
    #[inline(always)]
    fn now() -> Self {
        // The monotonic clock is the one that everything is computed from; it is read nearer to the
        // wire on egress, where it comes second, and 20 ns after the hook on ingress.
        // SAFETY: helpers without arguments.
        let tai_ns = if enabled(&HAS_TAI) { unsafe { bpf_ktime_get_tai_ns() } } else { 0 };
        // SAFETY: as above.
        let mono_ns = unsafe { bpf_ktime_get_ns() };
        Self { mono_ns, tai_ns }
    }

    #[inline(always)]
    fn store(self, record: *mut RawRecord) {
        // SAFETY: `record` points to reserved ring memory of the right size.
        unsafe {
            set!(record, mono_ns = self.mono_ns, done_ns = 0, tai_ns = self.tai_ns);
        }
    }
}

#[inline(always)]
fn enabled(flag: &'static u8) -> bool {
    // SAFETY: a plain read; volatile, because the loader changes the value after compilation.
    unsafe { ptr::read_volatile(flag) != 0 }
}

/// Reserves a record, lets `fill` write it, and submits it without a wake-up; counts either way.
/// `fill` is also told how many packets this hook has seen on this CPU, this one included.
#[inline(always)]
fn with_record(hook: Hook, fill: impl FnOnce(*mut RawRecord, u64)) {
    let Some(counts) = COUNTS.get_ptr_mut(hook as u32) else {
        return;
    };
    // SAFETY: a per-CPU slot; programs of one hook do not interrupt each other on a CPU.
    let seen = unsafe {
        (*counts).seen += 1;
        (*counts).seen
    };
    let Some(mut entry) = RECORDS.reserve_untyped::<RawRecord>(0) else {
        // SAFETY: as above.
        unsafe { (*counts).lost += 1 };
        return;
    };
    fill(MaybeUninit::as_mut_ptr(&mut entry), seen);
    entry.submit(u64::from(BPF_RB_NO_WAKEUP));
}

/// Looks at the linear part of the packet, and where that ends too early at the rest.
#[inline(always)]
fn find(ctx: &TcContext) -> Option<Location> {
    let frame = Direct { data: ctx.data(), end: ctx.data_end() };
    match classify(&frame) {
        Ok(location) => Some(location),
        Err(Reject::NotPtp) => None,
        Err(Reject::Truncated) => classify(&Loaded { ctx }).ok(),
    }
}

/// Access through the helper, which also reaches paged data.
struct Loaded<'a> {
    ctx: &'a TcContext,
}

impl Loaded<'_> {
    #[inline(always)]
    fn at<T: Copy>(&self, offset: usize) -> Option<T> {
        let mut value = MaybeUninit::<T>::uninit();
        // SAFETY: the helper writes at most `size_of::<T>()` bytes to `value`, all of them on success.
        unsafe {
            if bpf_skb_load_bytes(
                self.ctx.skb.skb.cast(),
                offset as u32,
                value.as_mut_ptr().cast(),
                size_of::<T>() as u32,
            ) != 0
            {
                return None;
            }
            Some(value.assume_init())
        }
    }
}

impl Frame for Loaded<'_> {
    #[inline(always)]
    fn byte(&self, offset: usize) -> Option<u8> {
        self.at(offset)
    }

    #[inline(always)]
    fn be16(&self, offset: usize) -> Option<u16> {
        self.at(offset).map(u16::from_be)
    }

    #[inline(always)]
    fn be16_pair(&self, offset: usize) -> Option<[u16; 2]> {
        self.at::<[u16; 2]>(offset).map(|pair| pair.map(u16::from_be))
    }
}

#[inline(always)]
fn fill_common(record: *mut RawRecord, hook: Hook, direction: Direction) {
    // SAFETY: `record` points to reserved ring memory of the right size; the helper has no arguments.
    unsafe {
        set!(
            record,
            version = RECORD_VERSION,
            hook = hook as u8,
            direction = direction as u8,
            cpu = bpf_get_smp_processor_id(),
        );
    }
}

#[inline(always)]
fn fill_location(record: *mut RawRecord, location: &Location) {
    // SAFETY: `record` points to reserved ring memory of the right size.
    unsafe {
        set!(
            record,
            network = location.network as u8,
            source_port = location.source_port,
            destination_port = location.destination_port,
        );
    }
}

/// Stores both addresses as words. Volatile: the compiler would make a call of a byte-wise `memset`
/// out of the zeros.
#[inline(always)]
fn store_addresses(record: *mut RawRecord, source: [u32; 4], destination: [u32; 4]) {
    // SAFETY: `record` points to reserved ring memory of the right size, both fields are 16 bytes
    // long and aligned to 8.
    unsafe {
        let to = ptr::addr_of_mut!((*record).source).cast::<u32>();
        ptr::write_volatile(to, source[0]);
        ptr::write_volatile(to.add(1), source[1]);
        ptr::write_volatile(to.add(2), source[2]);
        ptr::write_volatile(to.add(3), source[3]);
        ptr::write_volatile(to.add(4), destination[0]);
        ptr::write_volatile(to.add(5), destination[1]);
        ptr::write_volatile(to.add(6), destination[2]);
        ptr::write_volatile(to.add(7), destination[3]);
    }
}

/// Stores the addresses if they are in the linear part of the packet, which is nearly always so, and
/// says whether they were.
#[inline(always)]
fn direct_addresses(record: *mut RawRecord, frame: &Direct, location: &Location) -> bool {
    match location.network {
        Network::Ipv6 => {
            let Some(header) = frame.at::<u32, 10>(location.l3_offset) else {
                return false;
            };
            store_addresses(
                record,
                [header.read::<2>(), header.read::<3>(), header.read::<4>(), header.read::<5>()],
                [header.read::<6>(), header.read::<7>(), header.read::<8>(), header.read::<9>()],
            );
        }
        Network::Ipv4 => {
            let Some(header) = frame.at::<u32, 5>(location.l3_offset) else {
                return false;
            };
            store_addresses(record, [header.read::<3>(), 0, 0, 0], [header.read::<4>(), 0, 0, 0]);
        }
        Network::Ethernet => {
            let Some(header) = frame.at::<u16, 6>(0) else {
                return false;
            };
            store_addresses(
                record,
                [word(header.read::<3>(), header.read::<4>()), word(header.read::<5>(), 0), 0, 0],
                [word(header.read::<0>(), header.read::<1>()), word(header.read::<2>(), 0), 0, 0],
            );
        }
    }
    true
}

/// Two half words as they lie in memory, as one word.
#[inline(always)]
fn word(first: u16, second: u16) -> u32 {
    if cfg!(target_endian = "little") {
        u32::from(second) << 16 | u32::from(first)
    } else {
        u32::from(first) << 16 | u32::from(second)
    }
}

#[inline(always)]
fn fill_from_skb(
    record: *mut RawRecord,
    ctx: &TcContext,
    location: &Location,
    hook: Hook,
    direction: Direction,
) {
    fill_common(record, hook, direction);
    fill_location(record, location);
    let skb = ctx.skb.skb;
    // SAFETY: `skb` is the program's context, `record` reserved ring memory of the right size; the
    // helper writes no more than the length it is given.
    unsafe {
        let length = (*skb).len;
        set!(
            record,
            ifindex = (*skb).ifindex,
            queue = (*skb).queue_mapping,
            packet_length = length,
        );
        if (*skb).vlan_present != 0 {
            set!(
                record,
                vlan = [(*skb).vlan_tci as u16, location.vlan[0]],
                vlan_count = if location.vlan_count == 0 { 1 } else { 2 },
                vlan_offloaded = 1,
            );
        } else {
            set!(
                record,
                vlan = location.vlan,
                vlan_count = location.vlan_count,
                vlan_offloaded = 0,
            );
        }
        let load = |offset: usize, to: *mut u8, count: u32| {
            bpf_skb_load_bytes(skb.cast(), offset as u32, to.cast::<c_void>(), count)
        };
        let frame = Direct { data: ctx.data(), end: ctx.data_end() };
        if !direct_addresses(record, &frame, location) {
            store_addresses(record, [0; 4], [0; 4]);
            let source = ptr::addr_of_mut!((*record).source).cast::<u8>();
            let destination = ptr::addr_of_mut!((*record).destination).cast::<u8>();
            match location.network {
                Network::Ipv6 => {
                    // Source and destination follow each other in the packet and in the record.
                    load(location.l3_offset + 8, source, 32);
                }
                Network::Ipv4 => {
                    load(location.l3_offset + 12, source, 4);
                    load(location.l3_offset + 16, destination, 4);
                }
                Network::Ethernet => {
                    load(6, source, 6);
                    load(0, destination, 6);
                }
            }
        }
        let available = length.wrapping_sub(location.ptp_offset as u32);
        let wanted = bounded(available);
        let message = ptr::addr_of_mut!((*record).message).cast::<u8>();
        let loaded = load(location.ptp_offset, message, wanted) == 0;
        set!(record, message_length = if loaded { wanted as u16 } else { 0 });
    }
}

/// How many bytes of the message to copy, 1 to [`MESSAGE_CAPACITY`], in a form whose range no
/// optimisation hides from the verifier. Nothing available gives the capacity, and the helper then
/// refuses to read beyond the packet.
#[inline(always)]
fn bounded(available: u32) -> u32 {
    let mut last = u64::from(available.wrapping_sub(1));
    // SAFETY: moves a register to itself, which makes the value opaque to the optimiser. (With no
    // instruction at all there would be a line number for none, which the kernel refuses.)
    unsafe { asm!("{0} = {0}", inout(reg) last, options(pure, nomem, nostack)) };
    if last >= MESSAGE_CAPACITY as u64 {
        last = MESSAGE_CAPACITY as u64 - 1;
    }
    last as u32 + 1
}

#[inline(always)]
fn fill_from_xdp(record: *mut RawRecord, ctx: &XdpContext, frame: &Direct, location: &Location) {
    fill_common(record, Hook::XdpIngress, Direction::Ingress);
    fill_location(record, location);
    let length = (frame.end - frame.data) as u32;
    // SAFETY: `record` points to reserved ring memory of the right size, the context is the
    // program's; each packet read is checked by `Direct::at`.
    unsafe {
        set!(
            record,
            ifindex = ctx.ingress_ifindex() as u32,
            queue = ctx.rx_queue_index(),
            serial = 0,
            stack_ns = 0,
            hardware_ns = 0,
            packet_length = length,
            vlan = location.vlan,
            vlan_count = location.vlan_count,
            vlan_offloaded = 0,
        );
        if !direct_addresses(record, frame, location) {
            store_addresses(record, [0; 4], [0; 4]);
        }
        let message = ptr::addr_of_mut!((*record).message).cast::<u8>();
        let available = length.wrapping_sub(location.ptp_offset as u32);
        let message_length = if enabled(&HAS_XDP_LOAD_BYTES) {
            let wanted = bounded(available);
            if bpf_xdp_load_bytes(
                ctx.as_ptr().cast(),
                location.ptp_offset as u32,
                message.cast(),
                wanted,
            ) == 0
            {
                wanted as u16
            } else {
                0
            }
        } else {
            // Two bytes at a time: PTP messages have an even length, and the verifier learns nothing
            // from a check of one byte.
            let mut count = 0;
            while count < MESSAGE_CAPACITY {
                let Some(pair) = frame.at::<u16, 1>(location.ptp_offset + count) else {
                    break;
                };
                ptr::write_volatile(message.add(count).cast::<u16>(), pair.read::<0>());
                count += 2;
            }
            count as u16
        };
        set!(record, message_length = message_length);
    }
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}
