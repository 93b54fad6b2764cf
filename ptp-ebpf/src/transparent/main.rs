//! The programs of a transparent clock (IEEE 1588-2019 10.2) for what the host forwards anyway. An event
//! message is noted where it comes in and again when the driver has it; what lies between is its residence.
//! The general message that follows it through the same ports is given that residence on its way out. No
//! other packet is changed. An object of its own: the programs that only stamp go on changing nothing.
//!
//! Unless the agent has told within the last moments that it is there, all of this does nothing: a dead
//! agent holds no message back and alters none.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

#[path = "../say.rs"]
#[macro_use]
mod say;
#[path = "../direct.rs"]
mod direct;
mod events;
#[path = "../every.rs"]
mod every;
#[path = "../find.rs"]
mod find;
mod flight;
mod generals;
mod maps;
mod packet;
mod relay;
mod settings;

use aya_ebpf::{
    helpers::generated::bpf_ktime_get_ns,
    macros::{classifier, raw_tracepoint},
    programs::{RawTracePointContext, TcContext},
};
use core::mem::MaybeUninit;
use ptp_common::residence::{HEAD, Head, Kind, Outcome, kind_of};

use find::find;
use flight::FLIGHTS;
use maps::{Config, PORTS, count, place};
use packet::Packet;

/// "Go on as if I were not here": `TCX_NEXT` of TCX and `TC_ACT_UNSPEC` of clsact.
const NEXT: i32 = -1;
/// `TCX_DROP` and `TC_ACT_SHOT`.
const DROP: i32 = 2;

#[inline(always)]
fn now() -> u64 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_ktime_get_ns() }
}

/// The port that an interface belongs to, with its flags.
#[inline(always)]
fn port_of(ifindex: u32) -> Option<u32> {
    // SAFETY: the value is copied at once.
    unsafe { PORTS.get(ifindex) }.copied()
}

/// TC ingress of a port: when did an event message arrive?
#[classifier]
pub fn ptp_tc_arrive(ctx: TcContext) -> i32 {
    if let Some(location) = find(&ctx) {
        let now_ns = now();
        let mut bytes = MaybeUninit::<[u8; HEAD]>::uninit();
        let packet = Packet::new(&ctx, &location);
        // SAFETY: the program's context; the verifier checks the field access.
        let ifindex = unsafe { (*ctx.skb.skb).ifindex };
        if let Some(config) = Config::at(now_ns)
            && let Some(port) = port_of(ifindex)
        {
            let Some(loaded) = packet.message::<[u8; HEAD]>(0) else {
                truncated(&packet, port, Some(Kind::Event));
                return NEXT;
            };
            let head = Head::new(bytes.write(loaded));
            if let Some((kind, Kind::Event)) = head.kind() {
                // SAFETY: as above.
                let stack_ns = unsafe { (*ctx.skb.skb).tstamp };
                events::arrived(&packet, &head, &config, kind, port, now_ns, stack_ns);
            }
            relay::copies(&ctx, &packet, &head, &config, now_ns);
        }
    }
    NEXT
}

/// TC egress of a port: event messages are noted for the tracepoints, general messages are corrected.
#[classifier]
pub fn ptp_tc_depart(ctx: TcContext) -> i32 {
    if let Some(location) = find(&ctx) {
        return depart(&ctx, &Packet::new(&ctx, &location));
    }
    NEXT
}

#[inline(always)]
fn depart(ctx: &TcContext, packet: &Packet) -> i32 {
    let now_ns = now();
    // SAFETY: the program's context; the verifier checks each field access.
    let (ifindex, ingress) = unsafe { ((*ctx.skb.skb).ifindex, (*ctx.skb.skb).ingress_ifindex) };
    let (Some(config), Some(went)) = (Config::at(now_ns), port_of(ifindex)) else {
        return NEXT;
    };
    let Some(loaded) = packet.message::<[u8; HEAD]>(0) else {
        truncated(packet, went, None);
        return NEXT;
    };
    let head = Head::new(&loaded);
    let Some((kind, sort)) = head.kind() else {
        return NEXT;
    };
    let Some(came) = port_of(ingress) else {
        if ingress == 0 && sort == Kind::Event {
            events::sent_here(&head, kind, went, now_ns);
        }
        return NEXT;
    };
    match sort {
        Kind::Event => events::leaves(ctx, packet, &head, &config, kind, came, went),
        Kind::General => generals::leaves(ctx, packet, &head, &config, kind, came, went, now_ns),
    }
}

/// Counts a message that is shorter than any of its type can be; of one kind only, if one is named.
#[inline(always)]
fn truncated(packet: &Packet, port: u32, only: Option<Kind>) {
    if let Some(first) = packet.message::<u8>(0)
        && let Some((kind, sort)) = kind_of(first & 0x0f)
        && only.is_none_or(|only| only == sort)
    {
        count(place(port, kind), Outcome::Malformed);
    }
}

/// Right before the driver. The first argument is the socket buffer, whose address TC egress has seen.
#[raw_tracepoint(tracepoint = "net_dev_start_xmit")]
pub fn ptp_tc_start(ctx: RawTracePointContext) -> i32 {
    let address: u64 = ctx.arg(0);
    if FLIGHTS.has(address) {
        return ptp_tc_on_start(address);
    }
    0
}

/// Right after the driver.
#[raw_tracepoint(tracepoint = "net_dev_xmit")]
pub fn ptp_tc_done(ctx: RawTracePointContext) -> i32 {
    let address: u64 = ctx.arg(0);
    if FLIGHTS.has(address) {
        return ptp_tc_on_done(address, ctx.arg(1), ctx.arg(2), ctx.arg(3));
    }
    0
}

/// A queue has dropped it. Fires for dropped packets only.
#[raw_tracepoint(tracepoint = "kfree_skb")]
pub fn ptp_tc_dropped(ctx: RawTracePointContext) -> i32 {
    let address: u64 = ctx.arg(0);
    if FLIGHTS.has(address) {
        return ptp_tc_on_dropped(address);
    }
    0
}

// Functions of their own, so that the programs above need no registers saved.

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn ptp_tc_on_start(address: u64) -> i32 {
    events::started(address, now());
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn ptp_tc_on_done(address: u64, code: i32, device: u64, sent: u32) -> i32 {
    events::done(address, code, now(), device, sent);
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn ptp_tc_on_dropped(address: u64) -> i32 {
    events::dropped(address);
    0
}
