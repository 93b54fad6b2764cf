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

use aya_ebpf::{
    EbpfContext,
    bindings::{BPF_ANY, BPF_RB_NO_WAKEUP, xdp_action::XDP_PASS},
    btf_maps::{LruHashMap, PerCpuArray, RingBuf},
    helpers::generated::{
        bpf_get_smp_processor_id, bpf_ktime_get_ns, bpf_ktime_get_tai_ns, bpf_skb_load_bytes,
        bpf_xdp_load_bytes,
    },
    macros::{btf_map, classifier, raw_tracepoint, xdp},
    programs::{RawTracePointContext, TcContext, XdpContext},
};
use core::{arch::asm, cell::UnsafeCell, ffi::c_void, mem::MaybeUninit, ptr};
use ptp_common::{
    classify::{Frame, Location, Network, Reject, classify},
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

/// Packets between TC egress and the end of the driver's work, by the address of their socket buffer.
/// LRU, because a queueing discipline may drop the packet and then nobody takes the entry out.
#[btf_map]
static IN_FLIGHT: LruHashMap<u64, InFlight, 1024> = LruHashMap::new();

/// Last serial given on a CPU.
#[btf_map]
static SERIALS: PerCpuArray<u64, 1> = PerCpuArray::new();

/// How many entries `IN_FLIGHT` has, so that the tracepoint, which fires for every packet of every
/// interface, can leave after one load. Packets that a queueing discipline dropped make it too large,
/// never too small: the look-up is then done in vain until user space sets it right.
#[unsafe(no_mangle)]
static IN_FLIGHT_COUNT: SharedCount = SharedCount(UnsafeCell::new(0));

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

/// A count that all CPUs change. `core`'s atomics have no addition for this target, because old
/// kernels only know the one form used here, which does not return the value.
#[repr(transparent)]
pub struct SharedCount(UnsafeCell<u64>);

// SAFETY: changed by one atomic instruction only.
unsafe impl Sync for SharedCount {}

impl SharedCount {
    #[inline(always)]
    fn load(&self) -> u64 {
        // SAFETY: an aligned 64-bit read, which is atomic.
        unsafe { ptr::read_volatile(self.0.get()) }
    }

    #[inline(always)]
    fn add(&self, by: i64) {
        // SAFETY: an atomic addition to a value that lives as long as the program.
        unsafe { asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) self.0.get(), in(reg) by) };
    }
}

/// A packet on its way out.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct InFlight {
    serial: u64,
    start_ns: u64,
}

/// Counts of one hook on one CPU.
#[repr(C)]
pub struct Counts {
    seen: u64,
    lost: u64,
}

/// TC ingress: the clock is read as soon as the packet is known to be PTP; the stack's own stamp,
/// taken earlier, comes along where some socket has asked for it.
#[classifier]
pub fn ptp_tc_ingress(ctx: TcContext) -> i32 {
    if let Some(location) = find(&ctx) {
        let stamps = Stamps::now();
        with_record(Hook::TcIngress, |record| {
            let skb = ctx.skb.skb;
            // SAFETY: `skb` is the program's context; the verifier checks each field access.
            unsafe {
                (*record).stack_ns = (*skb).tstamp;
                (*record).hardware_ns = if enabled(&HAS_HWTSTAMP) { (*skb).hwtstamp } else { 0 };
                (*record).serial = 0;
            }
            fill_from_skb(record, &ctx, &location, Hook::TcIngress, Direction::Ingress);
            stamps.store(record);
        });
    }
    NEXT
}

/// TC egress: everything else first, the clock last.
#[classifier]
pub fn ptp_tc_egress(ctx: TcContext) -> i32 {
    if let Some(location) = find(&ctx) {
        with_record(Hook::TcEgress, |record| {
            let serial = next_serial();
            // SAFETY: `record` points to reserved ring memory of the right size.
            unsafe {
                (*record).stack_ns = 0;
                (*record).hardware_ns = 0;
                (*record).serial = serial;
            }
            fill_from_skb(record, &ctx, &location, Hook::TcEgress, Direction::Egress);
            if enabled(&WANT_XMIT) {
                let address = ctx.skb.skb as u64;
                let entry = InFlight { serial, start_ns: 0 };
                if IN_FLIGHT.insert(&address, &entry, u64::from(BPF_ANY)).is_ok() {
                    IN_FLIGHT_COUNT.add(1);
                }
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
        with_record(Hook::XdpIngress, |record| {
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
    if IN_FLIGHT_COUNT.load() == 0 {
        return 0;
    }
    let address: u64 = ctx.arg(0);
    if let Some(entry) = IN_FLIGHT.get_ptr_mut(&address) {
        // SAFETY: the value of a packet that is right here; nobody else looks at it now.
        unsafe { (*entry).start_ns = bpf_ktime_get_ns() };
    }
    0
}

/// The first point after the driver: it has handed the packet to the hardware. The socket buffer may
/// be gone by now; its address is only compared.
#[raw_tracepoint(tracepoint = "net_dev_xmit")]
pub fn ptp_xmit_done(ctx: RawTracePointContext) -> i32 {
    if IN_FLIGHT_COUNT.load() == 0 {
        return 0;
    }
    // SAFETY: a helper without arguments.
    let done_ns = unsafe { bpf_ktime_get_ns() };
    let address: u64 = ctx.arg(0);
    // SAFETY: the value is copied out at once, and no other packet has this address yet that passed
    // TC egress.
    let Some(entry) = (unsafe { IN_FLIGHT.get(&address) }).copied() else {
        return 0;
    };
    let code: i32 = ctx.arg(1);
    if entry.start_ns == 0 || code != NETDEV_TX_OK {
        // Busy: the queueing discipline will try again.
        return 0;
    }
    if IN_FLIGHT.remove(&address).is_ok() {
        IN_FLIGHT_COUNT.add(-1);
    }
    with_record(Hook::Xmit, |record| {
        // SAFETY: `record` points to reserved ring memory of the right size.
        unsafe {
            (*record).stack_ns = 0;
            (*record).hardware_ns = 0;
            (*record).serial = entry.serial;
            (*record).network = 0;
            (*record).ifindex = 0;
            (*record).queue = 0;
            (*record).message_length = 0;
            (*record).packet_length = 0;
            no_vlan(record);
            no_addresses(record);
            (*record).mono_ns = entry.start_ns;
            (*record).tai_ns = 0;
        }
        fill_common(record, Hook::Xmit, Direction::Egress);
        // SAFETY: as above.
        unsafe { (*record).done_ns = done_ns };
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
            (*record).mono_ns = self.mono_ns;
            (*record).tai_ns = self.tai_ns;
        }
    }
}

#[inline(always)]
fn enabled(flag: &'static u8) -> bool {
    // SAFETY: a plain read; volatile, because the loader changes the value after compilation.
    unsafe { ptr::read_volatile(flag) != 0 }
}

/// Reserves a record, lets `fill` write it, and submits it without a wake-up; counts either way.
#[inline(always)]
fn with_record(hook: Hook, fill: impl FnOnce(*mut RawRecord)) {
    let Some(counts) = COUNTS.get_ptr_mut(hook as u32) else {
        return;
    };
    // SAFETY: a per-CPU slot; programs of one hook do not interrupt each other on a CPU.
    unsafe { (*counts).seen += 1 };
    let Some(mut entry) = RECORDS.reserve_untyped::<RawRecord>(0) else {
        // SAFETY: as above.
        unsafe { (*counts).lost += 1 };
        return;
    };
    fill(MaybeUninit::as_mut_ptr(&mut entry));
    entry.submit(u64::from(BPF_RB_NO_WAKEUP));
}

#[inline(always)]
fn next_serial() -> u64 {
    let Some(last) = SERIALS.get_ptr_mut(0) else {
        return 0;
    };
    // SAFETY: a per-CPU slot.
    unsafe {
        *last += 1;
        (*last & 0xffff_ffff_ffff) | u64::from(bpf_get_smp_processor_id()) << 48
    }
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

/// Direct packet access; each read carries the bounds check that the verifier asks for.
struct Direct {
    data: usize,
    end: usize,
}

impl Direct {
    /// `T` is made of bytes, or of 16-bit numbers at an even offset: packets begin at even addresses.
    #[inline(always)]
    fn at<T: Copy>(&self, offset: usize) -> Option<T> {
        let address = self.data + offset;
        if address + size_of::<T>() > self.end {
            return None;
        }
        // SAFETY: inside the packet, checked above, and aligned as said.
        Some(unsafe { ptr::read(address as *const T) })
    }
}

impl Frame for Direct {
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
        (*record).version = RECORD_VERSION;
        (*record).hook = hook as u8;
        (*record).direction = direction as u8;
        (*record).cpu = bpf_get_smp_processor_id();
        (*record).done_ns = 0;
    }
}

#[inline(always)]
fn fill_location(record: *mut RawRecord, location: &Location) {
    // SAFETY: `record` points to reserved ring memory of the right size.
    unsafe {
        (*record).network = location.network as u8;
        (*record).source_port = location.source_port;
        (*record).destination_port = location.destination_port;
    }
}

/// # Safety
/// `record` must point to writable memory of a record's size.
#[inline(always)]
unsafe fn no_vlan(record: *mut RawRecord) {
    // SAFETY: the caller's.
    unsafe {
        (*record).vlan = [0; 2];
        (*record).vlan_count = 0;
        (*record).vlan_offloaded = 0;
        (*record).source_port = 0;
        (*record).destination_port = 0;
    }
}

/// # Safety
/// `record` must point to writable memory of a record's size.
#[inline(always)]
unsafe fn no_addresses(record: *mut RawRecord) {
    // SAFETY: the caller's.
    unsafe {
        (*record).source = [0; 16];
        (*record).destination = [0; 16];
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
        (*record).ifindex = (*skb).ifindex;
        (*record).queue = (*skb).queue_mapping;
        let length = (*skb).len;
        (*record).packet_length = length;
        if (*skb).vlan_present != 0 {
            (*record).vlan = [(*skb).vlan_tci as u16, location.vlan[0]];
            (*record).vlan_count = if location.vlan_count == 0 { 1 } else { 2 };
            (*record).vlan_offloaded = 1;
        } else {
            (*record).vlan = location.vlan;
            (*record).vlan_count = location.vlan_count;
            (*record).vlan_offloaded = 0;
        }
        let load = |offset: usize, to: *mut u8, count: u32| {
            bpf_skb_load_bytes(skb.cast(), offset as u32, to.cast::<c_void>(), count)
        };
        let source = ptr::addr_of_mut!((*record).source).cast::<u8>();
        let destination = ptr::addr_of_mut!((*record).destination).cast::<u8>();
        match location.network {
            Network::Ipv6 => {
                // Source and destination follow each other in the packet and in the record.
                load(location.l3_offset + 8, source, 32);
            }
            Network::Ipv4 => {
                no_addresses(record);
                load(location.l3_offset + 12, source, 4);
                load(location.l3_offset + 16, destination, 4);
            }
            Network::Ethernet => {
                no_addresses(record);
                load(6, source, 6);
                load(0, destination, 6);
            }
        }
        let available = length.wrapping_sub(location.ptp_offset as u32);
        let wanted = bounded(available);
        let message = ptr::addr_of_mut!((*record).message).cast::<u8>();
        (*record).message_length =
            if load(location.ptp_offset, message, wanted) == 0 { wanted as u16 } else { 0 };
    }
}

/// How many bytes of the message to copy, 1 to [`MESSAGE_CAPACITY`], in a form whose range no
/// optimisation hides from the verifier. Nothing available gives the capacity, and the helper then
/// refuses to read beyond the packet.
#[inline(always)]
fn bounded(available: u32) -> u32 {
    let mut last = u64::from(available.wrapping_sub(1));
    // SAFETY: no instruction at all; it makes the value opaque to the optimiser.
    unsafe { asm!("/* {0} */", inout(reg) last) };
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
        (*record).ifindex = ctx.ingress_ifindex() as u32;
        (*record).queue = ctx.rx_queue_index();
        (*record).serial = 0;
        (*record).stack_ns = 0;
        (*record).hardware_ns = 0;
        (*record).packet_length = length;
        (*record).vlan = location.vlan;
        (*record).vlan_count = location.vlan_count;
        (*record).vlan_offloaded = 0;
        no_addresses(record);
        let source = ptr::addr_of_mut!((*record).source);
        let destination = ptr::addr_of_mut!((*record).destination);
        match location.network {
            Network::Ipv6 => {
                if let Some(address) = frame.at::<[u8; 16]>(location.l3_offset + 8) {
                    *source = address;
                }
                if let Some(address) = frame.at::<[u8; 16]>(location.l3_offset + 24) {
                    *destination = address;
                }
            }
            Network::Ipv4 => {
                if let Some(address) = frame.at::<[u8; 4]>(location.l3_offset + 12) {
                    *source.cast() = address;
                }
                if let Some(address) = frame.at::<[u8; 4]>(location.l3_offset + 16) {
                    *destination.cast() = address;
                }
            }
            Network::Ethernet => {
                if let Some(address) = frame.at::<[u8; 6]>(6) {
                    *source.cast() = address;
                }
                if let Some(address) = frame.at::<[u8; 6]>(0) {
                    *destination.cast() = address;
                }
            }
        }
        let message = ptr::addr_of_mut!((*record).message).cast::<u8>();
        let available = length.wrapping_sub(location.ptp_offset as u32);
        (*record).message_length = if enabled(&HAS_XDP_LOAD_BYTES) {
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
                let Some(pair) = frame.at::<[u8; 2]>(location.ptp_offset + count) else {
                    break;
                };
                *message.add(count).cast() = pair;
                count += 2;
            }
            count as u16
        };
    }
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}
