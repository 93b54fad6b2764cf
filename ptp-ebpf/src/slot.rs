//! A record in the ring, from its reservation to its submission. [`Slot`] is the only one that has it, so
//! what writes to it is safe to call; what a program writes are plain numbers.

use aya_ebpf::{
    EbpfContext,
    bindings::BPF_RB_NO_WAKEUP,
    btf_maps::{PerCpuArray, RingBuf},
    helpers::generated::{bpf_get_smp_processor_id, bpf_skb_load_bytes, bpf_xdp_load_bytes},
    macros::btf_map,
    programs::{TcContext, XdpContext},
};
use core::{arch::asm, ffi::c_void, mem::MaybeUninit, ptr};
use ptp_common::{
    classify::{Location, Network},
    record::{Direction, Hook, MESSAGE_CAPACITY, RECORD_VERSION, RawRecord},
};

use crate::{
    direct::Direct,
    settings::{HAS_XDP_LOAD_BYTES, enabled},
    stamps::Stamps,
};

/// The records. 2 MiB hold about 7 700 of them, 77 ms at 100 000 packets per second; user space can
/// ask for another size at load time.
#[btf_map]
static RECORDS: RingBuf<(), { 2 * 1024 * 1024 }> = RingBuf::new();

/// Per hook (index: its number) and CPU, two counts: packets seen as PTP, and those of them that
/// were lost because the ring was full. `seen == recorded + lost` holds exactly where the programs of one
/// hook do not interrupt each other on a CPU: TC and XDP run with bottom halves off, and only one bottom half
/// runs on a CPU at a time. A real-time kernel (PREEMPT_RT) lets one preempt another, and there a count may
/// miss one; `doctor` says so.
#[btf_map]
static COUNTS: PerCpuArray<Counts, 8> = PerCpuArray::new();

/// Counts of one hook on one CPU.
#[repr(C)]
pub struct Counts {
    seen: u64,
    lost: u64,
}

/// A reserved record. Its memory is the program's until it is submitted, which only [`with_slot`] does.
pub struct Slot<'a>(&'a mut MaybeUninit<RawRecord>);

/// Reserves a record, lets `fill` write it and submits it, without waking anybody up. `fill` is also told how
/// many packets this hook has seen on this CPU. Whether there was room in the ring.
#[inline(always)]
pub fn with_slot(hook: Hook, fill: impl FnOnce(&mut Slot, u64)) -> bool {
    let Some(counts) = COUNTS.get_ptr_mut(hook as u32) else {
        return false;
    };
    // SAFETY: a per-CPU slot, which the program has for itself as said at the map. Where it has not, a count
    // is lost and nothing else.
    let seen = unsafe {
        (*counts).seen += 1;
        (*counts).seen
    };
    let Some(mut entry) = RECORDS.reserve_untyped::<RawRecord>(0) else {
        // SAFETY: as above.
        unsafe { (*counts).lost += 1 };
        return false;
    };
    fill(&mut Slot(&mut entry), seen);
    entry.submit(u64::from(BPF_RB_NO_WAKEUP));
    true
}

/// Writes fields of a record. Volatile: the compiler would make a call of a byte-wise `memset` of
/// zeros that lie side by side.
macro_rules! set {
    ($slot:expr, $($field:ident = $value:expr),+ $(,)?) => {{
        let record = $slot.record();
        // SAFETY: the slot's memory, of the right size and alignment.
        $( unsafe { ptr::write_volatile(ptr::addr_of_mut!((*record).$field), $value) }; )+
    }};
}

impl Slot<'_> {
    #[inline(always)]
    fn record(&mut self) -> *mut RawRecord {
        self.0.as_mut_ptr()
    }

    /// Both clocks.
    #[inline(always)]
    pub fn stamp(&mut self, stamps: Stamps) {
        set!(self, mono_ns = stamps.mono_ns, done_ns = 0, tai_ns = stamps.tai_ns);
    }

    /// What only a received packet has.
    #[inline(always)]
    pub fn received(&mut self, stack_ns: u64, hardware_ns: u64) {
        set!(self, stack_ns = stack_ns, hardware_ns = hardware_ns, serial = 0);
    }

    /// What only a sent packet has.
    #[inline(always)]
    pub fn sent(&mut self, serial: u64) {
        set!(self, serial = serial, stack_ns = 0, hardware_ns = 0);
    }

    /// The address of a packet's socket buffer as a number, by way of the record: the verifier lets nobody
    /// calculate with a pointer to a context. [`Slot::sent`] overwrites it.
    #[inline(always)]
    pub fn address_of(&mut self, ctx: &TcContext) -> u64 {
        set!(self, serial = ctx.skb.skb as u64);
        let record = self.record();
        // SAFETY: the slot's memory, just written.
        unsafe { ptr::read_volatile(ptr::addr_of!((*record).serial)) }
    }

    /// A whole record of the tracepoints: two times and the packet's serial.
    #[inline(always)]
    pub fn transmitted(&mut self, serial: u64, start_ns: u64, done_ns: u64) {
        set!(
            self,
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
        self.set_addresses([0; 4], [0; 4]);
        self.set_common(Hook::Xmit, Direction::Egress);
    }

    #[inline(always)]
    fn set_common(&mut self, hook: Hook, direction: Direction) {
        // SAFETY: a helper without arguments.
        let cpu = unsafe { bpf_get_smp_processor_id() };
        set!(
            self,
            version = RECORD_VERSION,
            hook = hook as u8,
            direction = direction as u8,
            cpu = cpu,
        );
    }

    #[inline(always)]
    fn set_location(&mut self, location: &Location) {
        set!(
            self,
            network = location.network as u8,
            source_port = location.source_port,
            destination_port = location.destination_port,
        );
    }

    /// Stores both addresses as words. Volatile: the compiler would make a call of a byte-wise `memset`
    /// out of the zeros.
    #[inline(always)]
    fn set_addresses(&mut self, source: [u32; 4], destination: [u32; 4]) {
        let record = self.record();
        // SAFETY: the slot's memory; both fields follow each other, are 16 bytes long and aligned to 8.
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
    fn set_direct_addresses(&mut self, frame: &Direct, location: &Location) -> bool {
        match location.network {
            Network::Ipv6 => {
                let Some(header) = frame.at::<u32, 10>(location.l3_offset) else {
                    return false;
                };
                self.set_addresses(
                    [
                        header.read::<2>(),
                        header.read::<3>(),
                        header.read::<4>(),
                        header.read::<5>(),
                    ],
                    [
                        header.read::<6>(),
                        header.read::<7>(),
                        header.read::<8>(),
                        header.read::<9>(),
                    ],
                );
            }
            Network::Ipv4 => {
                let Some(header) = frame.at::<u32, 5>(location.l3_offset) else {
                    return false;
                };
                self.set_addresses([header.read::<3>(), 0, 0, 0], [header.read::<4>(), 0, 0, 0]);
            }
            Network::Ethernet => {
                let Some(header) = frame.at::<u16, 6>(0) else {
                    return false;
                };
                self.set_addresses(
                    [
                        word(header.read::<3>(), header.read::<4>()),
                        word(header.read::<5>(), 0),
                        0,
                        0,
                    ],
                    [
                        word(header.read::<0>(), header.read::<1>()),
                        word(header.read::<2>(), 0),
                        0,
                        0,
                    ],
                );
            }
        }
        true
    }

    /// Everything that a socket buffer tells of its packet.
    #[inline(always)]
    pub fn describe_skb(
        &mut self,
        ctx: &TcContext,
        location: &Location,
        hook: Hook,
        direction: Direction,
    ) {
        self.set_common(hook, direction);
        self.set_location(location);
        let skb = ctx.skb.skb;
        // SAFETY: `skb` is the program's context; the verifier checks each field access.
        let (length, ifindex, queue) =
            unsafe { ((*skb).len, (*skb).ifindex, (*skb).queue_mapping) };
        set!(self, ifindex = ifindex, queue = queue, packet_length = length);
        // SAFETY: as above.
        if unsafe { (*skb).vlan_present } != 0 {
            // SAFETY: as above.
            let tci = unsafe { (*skb).vlan_tci } as u16;
            set!(
                self,
                vlan = [tci, location.vlan[0]],
                vlan_count = if location.vlan_count == 0 { 1 } else { 2 },
                vlan_offloaded = 1,
            );
        } else {
            set!(self, vlan = location.vlan, vlan_count = location.vlan_count, vlan_offloaded = 0,);
        }
        // SAFETY: in each call `to` is a field of the slot with room for `count` bytes; the helper writes no
        // more than that.
        let load = |offset: usize, to: *mut u8, count: u32| unsafe {
            bpf_skb_load_bytes(skb.cast(), offset as u32, to.cast::<c_void>(), count)
        };
        let frame = Direct { data: ctx.data(), end: ctx.data_end() };
        if !self.set_direct_addresses(&frame, location) {
            self.set_addresses([0; 4], [0; 4]);
            let record = self.record();
            // SAFETY: fields of the slot's memory; no reference is made.
            let (source, destination) = unsafe {
                (
                    ptr::addr_of_mut!((*record).source).cast::<u8>(),
                    ptr::addr_of_mut!((*record).destination).cast::<u8>(),
                )
            };
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
        let loaded = load(location.ptp_offset, self.message(), wanted) == 0;
        set!(self, message_length = if loaded { wanted as u16 } else { 0 });
    }

    /// Everything that XDP tells of a packet.
    #[inline(always)]
    pub fn describe_xdp(&mut self, ctx: &XdpContext, frame: &Direct, location: &Location) {
        self.set_common(Hook::XdpIngress, Direction::Ingress);
        self.set_location(location);
        let length = (frame.end - frame.data) as u32;
        set!(
            self,
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
        if !self.set_direct_addresses(frame, location) {
            self.set_addresses([0; 4], [0; 4]);
        }
        let message = self.message();
        let available = length.wrapping_sub(location.ptp_offset as u32);
        let message_length = if enabled(&HAS_XDP_LOAD_BYTES) {
            let wanted = bounded(available);
            // SAFETY: the program's context, and a field of the slot with room for the bytes that are wanted.
            let result = unsafe {
                bpf_xdp_load_bytes(
                    ctx.as_ptr().cast(),
                    location.ptp_offset as u32,
                    message.cast(),
                    wanted,
                )
            };
            if result == 0 { wanted as u16 } else { 0 }
        } else {
            // Two bytes at a time: PTP messages have an even length, and the verifier learns nothing
            // from a check of one byte.
            let mut count = 0;
            while count < MESSAGE_CAPACITY {
                let Some(pair) = frame.at::<u16, 1>(location.ptp_offset + count) else {
                    break;
                };
                // SAFETY: a field of the slot that is as long as the loop runs, and aligned to 8.
                unsafe { ptr::write_volatile(message.add(count).cast::<u16>(), pair.read::<0>()) };
                count += 2;
            }
            count as u16
        };
        set!(self, message_length = message_length);
    }

    #[inline(always)]
    fn message(&mut self) -> *mut u8 {
        let record = self.record();
        // SAFETY: a field of the slot's memory; no reference is made.
        unsafe { ptr::addr_of_mut!((*record).message).cast::<u8>() }
    }
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
