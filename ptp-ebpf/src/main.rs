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

#[macro_use]
mod say;

mod direct;
mod every;
mod find;
mod in_flight;
mod settings;
mod slot;
mod stamps;

use aya_ebpf::{
    bindings::xdp_action::XDP_PASS,
    helpers::generated::{bpf_get_smp_processor_id, bpf_ktime_get_ns},
    macros::{classifier, raw_tracepoint, xdp},
    programs::{RawTracePointContext, TcContext, XdpContext},
};
use ptp_common::{
    answer::MARK,
    classify::{Location, Protocol, classify},
    hint,
    record::{Direction, Hook},
};

use direct::Direct;
use find::{find, find_of};
use in_flight::IN_FLIGHT;
use settings::{HAS_HWTSTAMP, WANT_XMIT, enabled};
use slot::with_slot;
use stamps::Stamps;

/// "Go on as if I were not here": `TCX_NEXT` of TCX and `TC_ACT_UNSPEC` of clsact.
const NEXT: i32 = -1;
/// The driver has taken the packet.
const NETDEV_TX_OK: i32 = 0;

/// A protocol as a type: what is generic over it is compiled once for each program, so that all of it is in the program
/// itself and nothing is called.
trait Wanted {
    /// The message, if there is one.
    fn find(ctx: &TcContext) -> Option<Location>;
}

struct Ptp;
struct Ntp;

impl Wanted for Ptp {
    #[inline(always)]
    fn find(ctx: &TcContext) -> Option<Location> {
        find(ctx)
    }
}

impl Wanted for Ntp {
    #[inline(always)]
    fn find(ctx: &TcContext) -> Option<Location> {
        find_of(ctx, Protocol::Ntp)
    }
}

/// TC ingress: the clock is read as soon as the packet is known to be PTP; the stack's own stamp,
/// taken earlier, comes along where some socket has asked for it.
#[classifier]
pub fn ptp_tc_ingress(ctx: TcContext) -> i32 {
    tc_ingress::<Ptp>(ctx)
}

/// The same for NTP: a program of its own, so that whoever only wants PTP pays for nothing else.
#[classifier]
pub fn ntp_tc_ingress(ctx: TcContext) -> i32 {
    tc_ingress::<Ntp>(ctx)
}

#[inline(always)]
fn tc_ingress<W: Wanted>(ctx: TcContext) -> i32 {
    if let Some(location) = W::find(&ctx) {
        let stamps = Stamps::now();
        let _recorded = with_slot(Hook::TcIngress, |slot, _| {
            let skb = ctx.skb.skb;
            let hardware_ns = match hint(&ctx) {
                Some(hardware_ns) => hardware_ns,
                // SAFETY: `skb` is the program's context; the verifier checks each field access.
                None if enabled(&HAS_HWTSTAMP) => unsafe { (*skb).hwtstamp },
                None => 0,
            };
            // SAFETY: as above.
            slot.received(unsafe { (*skb).tstamp }, hardware_ns);
            slot.describe_skb(&ctx, &location, Hook::TcIngress, Direction::Ingress);
            slot.stamp(stamps);
        });
        say!(
            &ctx,
            "TC ingress: message at byte {}, {} tags in the packet, recorded {}",
            location.ptp_offset,
            location.vlan_count,
            u8::from(_recorded)
        );
    } else {
        say!(&ctx, "TC ingress: no PTP, EtherType 0x{:x}, {} bytes", ethertype(&ctx), ctx.len());
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
    tc_egress::<Ptp>(ctx)
}

/// The same for NTP.
#[classifier]
pub fn ntp_tc_egress(ctx: TcContext) -> i32 {
    tc_egress::<Ntp>(ctx)
}

#[inline(always)]
fn tc_egress<W: Wanted>(ctx: TcContext) -> i32 {
    if let Some(location) = W::find(&ctx) {
        // SAFETY: the program's context; the verifier checks the field access.
        let block = unsafe { [(*ctx.skb.skb).cb[0], (*ctx.skb.skb).cb[1]] };
        if block == MARK {
            // An answer of the kernel's own, which has its stamp.
            return NEXT;
        }
        let _recorded = with_slot(Hook::TcEgress, |slot, seen| {
            let address = slot.address_of(&ctx);
            // SAFETY: a helper without arguments.
            let cpu = u64::from(unsafe { bpf_get_smp_processor_id() });
            let serial = (seen & 0xffff_ffff_ffff) | cpu << 48;
            slot.sent(serial);
            slot.describe_skb(&ctx, &location, Hook::TcEgress, Direction::Egress);
            if enabled(&WANT_XMIT) {
                IN_FLIGHT.put(address, serial);
            }
            slot.stamp(Stamps::now());
        });
        say!(
            &ctx,
            "TC egress: message at byte {}, {} tags in the packet, recorded {}",
            location.ptp_offset,
            location.vlan_count,
            u8::from(_recorded)
        );
    } else {
        say!(&ctx, "TC egress: no PTP, EtherType 0x{:x}, {} bytes", ethertype(&ctx), ctx.len());
    }
    NEXT
}

/// What the packet carries, for the log.
#[cfg(feature = "log")]
#[inline(always)]
fn ethertype(ctx: &TcContext) -> u16 {
    // SAFETY: the program's context; the verifier checks the field access.
    u16::from_be(unsafe { (*ctx.skb.skb).protocol } as u16)
}

/// XDP: native where the driver can, generic otherwise.
#[xdp]
pub fn ptp_xdp_ingress(ctx: XdpContext) -> u32 {
    let frame = Direct { data: ctx.data(), end: ctx.data_end() };
    if let Ok(location) = classify(&frame) {
        let stamps = Stamps::now();
        let _recorded = with_slot(Hook::XdpIngress, |slot, _| {
            slot.describe_xdp(&ctx, &frame, &location);
            slot.stamp(stamps);
        });
        say!(
            &ctx,
            "XDP: message at byte {}, {} tags in the packet, recorded {}",
            location.ptp_offset,
            location.vlan_count,
            u8::from(_recorded)
        );
    } else {
        say!(&ctx, "XDP: no PTP");
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
        say!(&ctx, "net_dev_start_xmit: a message goes to the driver");
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
        say!(&ctx, "net_dev_xmit: the driver has answered {} to a message", ctx.arg::<i32>(1));
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
        say!(&ctx, "kfree_skb: a message was dropped behind the hook");
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
    with_slot(Hook::Xmit, |slot, _| slot.transmitted(serial, start_ns, done_ns));
    0
}
