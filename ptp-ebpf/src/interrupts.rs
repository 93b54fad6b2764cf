//! The programs by which `compare` and `doctor` see how far stamps are from the interrupts of a network card,
//! and how many packets a poll brings. They are an object of their own, because nothing that runs for long wants
//! them: an interrupt of any device costs what it costs to look at its number, and so does every poll.
//!
//! Interrupt, poll and TC ingress of a packet are on one processor, so what they tell each other is in a place per
//! processor. A packet that a poll finds without a new interrupt has none: the card's interrupts are off while
//! polls go on.
#![no_std]
#![no_main]

mod direct;
mod every;

use aya_ebpf::{
    bindings::BPF_RB_NO_WAKEUP,
    btf_maps::{Array, PerCpuArray, RingBuf},
    helpers::generated::bpf_ktime_get_ns,
    macros::{btf_map, classifier, raw_tracepoint},
    programs::{RawTracePointContext, TcContext},
};
use core::ptr;
use direct::Direct;
use ptp_common::{
    classify::classify,
    interrupts::{LARGEST_POLL, NUMBERS, POLLS as PLACES, WORDS, word},
};

/// "Go on as if I were not here": `TCX_NEXT`.
const NEXT: i32 = -1;

/// Which interrupts are the interface's: 1 at their numbers.
#[btf_map]
static IS_WATCHED: Array<u8, NUMBERS> = Array::new();
/// What is known on this processor.
#[btf_map]
static PRESENT: PerCpuArray<Present, 1> = PerCpuArray::new();
/// Polls that brought packets of the interface, by how many.
#[btf_map]
static POLLS: PerCpuArray<u64, PLACES> = PerCpuArray::new();
/// Packets of which there was nothing to tell, because the ring was full.
#[btf_map]
static LOST: PerCpuArray<u64, 1> = PerCpuArray::new();
/// Packets.
#[btf_map]
static PACKETS: RingBuf<(), { 256 * 1024 }> = RingBuf::new();

/// The present of a processor.
#[repr(C)]
pub struct Present {
    /// The last interrupt of the interface; 0 once a poll has done all that it announced.
    interrupt_ns: u64,
    /// Packets of the interface in this poll.
    polled: u64,
}

/// An interrupt begins: its number is the first argument.
#[raw_tracepoint(tracepoint = "irq_handler_entry")]
pub fn ptp_interrupt(ctx: RawTracePointContext) -> i32 {
    let number: i32 = ctx.arg(0);
    let Some(1) = IS_WATCHED.get(number as u32) else { return 0 };
    let Some(present) = PRESENT.get_ptr_mut(0) else { return 0 };
    // SAFETY: this processor's own place; what interrupts a program in the middle of it writes whole words. The
    // helper takes nothing.
    unsafe { ptr::write_volatile(ptr::addr_of_mut!((*present).interrupt_ns), bpf_ktime_get_ns()) };
    0
}

/// A poll has ended: instance, what it has done, and what it was allowed.
#[raw_tracepoint(tracepoint = "napi_poll")]
pub fn ptp_poll(ctx: RawTracePointContext) -> i32 {
    let Some(present) = PRESENT.get_ptr_mut(0) else { return 0 };
    // SAFETY: this processor's own place.
    let polled = unsafe { ptr::read_volatile(ptr::addr_of!((*present).polled)) };
    if polled == 0 {
        return 0;
    }
    let (done, allowed): (i32, i32) = (ctx.arg(1), ctx.arg(2));
    // SAFETY: as above.
    unsafe {
        ptr::write_volatile(ptr::addr_of_mut!((*present).polled), 0);
        if done < allowed {
            ptr::write_volatile(ptr::addr_of_mut!((*present).interrupt_ns), 0);
        }
    }
    let place = if polled > LARGEST_POLL as u64 { LARGEST_POLL as u32 } else { polled as u32 };
    if let Some(count) = POLLS.get_ptr_mut(place) {
        // SAFETY: as above.
        unsafe { *count += 1 };
    }
    0
}

/// A packet of the interface.
#[classifier]
pub fn ptp_interrupt_tc(ctx: TcContext) -> i32 {
    // SAFETY: a helper without arguments.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    let Some(present) = PRESENT.get_ptr_mut(0) else { return NEXT };
    // SAFETY: this processor's own place.
    let interrupt_ns = unsafe {
        (*present).polled += 1;
        ptr::read_volatile(ptr::addr_of!((*present).interrupt_ns))
    };
    let Some(mut entry) = PACKETS.reserve_untyped::<[u64; WORDS]>(0) else {
        if let Some(lost) = LOST.get_ptr_mut(0) {
            // SAFETY: as above.
            unsafe { *lost += 1 };
        }
        return NEXT;
    };
    let is_ptp = classify(&Direct { data: ctx.data(), end: ctx.data_end() }).is_ok();
    let words = entry.as_mut_ptr().cast::<u64>();
    // SAFETY: the reserved memory, all words of it; `skb` is the program's context, whose field the verifier checks.
    unsafe {
        ptr::write_volatile(words.add(word::INTERRUPT), interrupt_ns);
        ptr::write_volatile(words.add(word::TC_INGRESS), now_ns);
        ptr::write_volatile(words.add(word::STACK), (*ctx.skb.skb).tstamp);
        ptr::write_volatile(words.add(word::IS_PTP), u64::from(is_ptp));
    }
    entry.submit(u64::from(BPF_RB_NO_WAKEUP));
    NEXT
}
