//! The programs that answer for a time transmitter: a Delay_Req (IEEE 1588-2019 11.3) becomes its own Delay_Resp
//! on the way in, and goes back by the interface that it came from; at TC ingress, and in front of it by XDP in the
//! driver where that is wanted. An object of its own, loaded by `serve` alone: the programs that only stamp go on
//! changing nothing.
//!
//! Unless the agent has told within the last moments that it is there and which time it serves, everything goes
//! on to it as if this were not here; so does all that is no plain request. Who asks too often is dropped
//! before anything is sent.
#![no_std]
#![no_main]

#[path = "../say.rs"]
#[macro_use]
mod say;
#[path = "../direct.rs"]
mod direct;
#[path = "../every.rs"]
mod every;
mod exchange;
#[path = "../find.rs"]
mod find;
mod hook;
mod maps;
mod memory;
mod packet;
mod serving;
mod settings;
mod write;

use aya_ebpf::{
    bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_TX},
    helpers::generated::{bpf_clone_redirect, bpf_redirect},
    macros::{classifier, raw_tracepoint, xdp},
    programs::{RawTracePointContext, TcContext, XdpContext},
};
use core::ptr;
use ptp_common::answer::{Outcome, PLAIN_RESPONSE, RESPONSE, flag, interface};

use find::find;
use hook::{AtTc, AtXdp, Hook};
use maps::{Comparing, Interface, Leaving, Taken, Work, admit_stranger, go_to_exchanges, has};
use memory::{between, first_half, last_half, pair};
use packet::{Packet, REQUEST, Request};
use serving::{Asking, Clocks, Serving};

/// A message as it is made in the work area.
type Answer = [u64; maps::ANSWER];

/// "Go on as if I were not here": `TCX_NEXT` of TCX and `TC_ACT_UNSPEC` of clsact.
const NEXT: i32 = -1;
/// `TCX_DROP` and `TC_ACT_SHOT`.
const DROP: i32 = 2;
/// Number of Delay_Req among [`ptp_common::answer::KINDS`].
const DELAY: u32 = 0;
/// What is corrected by more is nothing that happens in a network: ten seconds, in 2^-16 ns.
const MAX_CORRECTION: i64 = 10_000_000_000 << 16;
/// `unicastFlag` in the first octet of flagField.
const UNICAST: u8 = 0x04;
const SECOND_NS: u64 = 1_000_000_000;

/// TC ingress.
#[classifier]
pub fn ptp_answers_tc(ctx: TcContext) -> i32 {
    let Some(location) = find(&ctx) else { return NEXT };
    let hook = AtTc(&ctx);
    let Some(packet) = Packet::new(&hook, &location) else { return NEXT };
    let clocks = Clocks::read();
    let Some(request) = packet.request() else { return NEXT };
    if exchange::is_request(&request) {
        go_to_exchanges(&ctx);
    }
    if request[0].to_ne_bytes()[0] & 0x0f != 1 {
        return NEXT;
    }
    let ifindex = hook.ifindex();
    let Some(own) = Interface::of(ifindex) else { return NEXT };
    let done = Serving::open(own, clocks).and_then(|serving| {
        if own.get(interface::FLAGS) & interface::COMPARE != 0 {
            Comparing::at_tc(&serving, &request, &hook);
        }
        delay(&packet, &serving, &request)
    });
    match done {
        Ok(outcome) => {
            own.count(DELAY, outcome);
            send_back(&ctx, ifindex)
        }
        Err(outcome) => {
            own.count(DELAY, outcome);
            if outcome.is_refused() { DROP } else { NEXT }
        }
    }
}

/// XDP in the driver. What is not answered here goes on, to the program at TC first, which counts it.
#[xdp]
pub fn ptp_answers_xdp(ctx: XdpContext) -> u32 {
    let hook = AtXdp(&ctx);
    let Some(location) = hook.find() else { return XDP_PASS };
    let Some(packet) = Packet::new(&hook, &location) else { return XDP_PASS };
    let clocks = Clocks::read();
    let Some(request) = packet.request() else { return XDP_PASS };
    if request[0].to_ne_bytes()[0] & 0x0f != 1 || exchange::is_request(&request) {
        return XDP_PASS;
    }
    let ifindex = hook.ifindex();
    let Some(own) = Interface::of(ifindex) else { return XDP_PASS };
    let flags = own.get(interface::FLAGS);
    if flags & interface::COMPARE != 0 {
        Comparing::at_xdp(&request, clocks.before_ns);
    }
    if flags & interface::XDP == 0 {
        return XDP_PASS;
    }
    let done = Serving::open(own, clocks).and_then(|serving| delay(&packet, &serving, &request));
    match done {
        Ok(outcome) => {
            own.count(DELAY, outcome);
            if matches!(outcome, Outcome::Probe) {
                Taken::expect();
            }
            if flags & interface::REDIRECT == 0 {
                return XDP_TX;
            }
            // SAFETY: a helper that takes numbers.
            unsafe { bpf_redirect(ifindex, 0) as u32 }
        }
        Err(outcome) if outcome.is_refused() => {
            own.count(DELAY, outcome);
            XDP_DROP
        }
        Err(_) => XDP_PASS,
    }
}

/// What a driver has made of frames that were redirected to it. Attached during trials alone.
#[raw_tracepoint(tracepoint = "xdp_devmap_xmit")]
pub fn ptp_answers_taken(ctx: RawTracePointContext) -> i32 {
    // Where from, where to, sent, dropped, error.
    Taken::sent(ctx.arg::<u64>(2) as u32);
    0
}

/// Sends the packet by an interface. Where its sender is on this host, as behind a veth, the packet still
/// belongs to its socket and is marked for a transmit stamp: the answer would give that socket a second stamp, at
/// which ptp4l (3.1.1) takes the port for faulty. A clone belongs to nobody.
#[inline(always)]
fn send_back(ctx: &TcContext, ifindex: u32) -> i32 {
    let skb = ctx.skb.skb;
    // SAFETY: the program's context, of which a field is only compared; helpers that take numbers and the context.
    unsafe {
        if (*skb).__bindgen_anon_2.sk.is_null() {
            return bpf_redirect(ifindex, 0) as i32;
        }
        bpf_clone_redirect(skb, ifindex, 0);
    }
    DROP
}

/// Requests of CSPTP and SPTP, which have two messages as their answer.
#[classifier]
pub fn ptp_answers_exchange(ctx: TcContext) -> i32 {
    exchange::answer(&ctx)
}

/// TC egress: an answer of ours on its way to the driver.
#[classifier]
pub fn ptp_answers_out(ctx: TcContext) -> i32 {
    Leaving::passes(ctx.skb.skb);
    NEXT
}

/// The last point before the driver. Fires for every packet of the host.
#[raw_tracepoint(tracepoint = "net_dev_start_xmit")]
pub fn ptp_answers_leave(ctx: RawTracePointContext) -> i32 {
    Leaving::leaves(ctx.arg(0));
    0
}

/// Lets everything pass: through it the agent puts a frame of its own on the way in (BPF_PROG_TEST_RUN with live
/// frames), to see whether the answer goes out. Attached to nothing.
#[xdp]
pub fn ptp_answers_in(_: XdpContext) -> u32 {
    XDP_PASS
}

#[inline(always)]
fn delay<H: Hook>(
    packet: &Packet<H>,
    serving: &Serving,
    request: &Request,
) -> Result<Outcome, Outcome> {
    let (own, slot) = (serving.own, serving.slot);
    let work = Work::area().ok_or(Outcome::Failed)?;
    template(own, &mut work.answer);
    let is_unicast = check(request, &work.answer)?;
    serving.check_clock()?;
    let asking = Asking::of(request);
    let is_probe = serving.is_probe(&asking);
    if !H::IS_FIRST && !is_probe && own.get(interface::FLAGS) & interface::XDP_ALONE != 0 {
        return Err(Outcome::Passive);
    }
    let ends = packet.ends(own, slot, is_unicast, is_probe, REQUEST, 0)?;
    let time_ns = serving.arrival(packet.hook)?;
    if !is_probe {
        let address = serving.address(&ends);
        if is_unicast && ends.trust & flag::TRUSTED == 0 {
            admit_stranger(slot, serving.now_ns, address)?;
        }
        serving.admit(DELAY, address, &asking)?;
    }
    serving.confirm()?;
    fill(&mut work.answer, request, is_unicast, time_ns);
    // Nobody can be made to send much more to others than was sent to us.
    let is_longer = has(slot, flag::BRACKETS) && (!is_unicast || ends.trust & flag::TRUSTED != 0);
    let done = if is_longer {
        packet.answer(own, &ends, work, RESPONSE)
    } else {
        shorten(&mut work.answer);
        packet.answer(own, &ends, work, PLAIN_RESPONSE)
    };
    if !done {
        return Err(Outcome::Failed);
    }
    Ok(if is_probe { Outcome::Probe } else { Outcome::Answered })
}

/// The answer as the agent has made it.
#[inline(always)]
fn template(own: Interface, answer: &mut Answer) {
    let mut at = 0;
    while at < RESPONSE / 8 {
        answer[at] = own.get(interface::RESPONSE + at);
        at += 1;
    }
    answer[at] = 0;
}

/// Whether it is a plain request to the clock of the template, and one to it alone.
#[inline(always)]
fn check(request: &Request, template: &Answer) -> Result<bool, Outcome> {
    let [kind, version, length_high, length_low] = request[0].to_ne_bytes();
    let [own_kind, own_version, ..] = template[0].to_ne_bytes();
    let [domain, sdo, flags, _] = request[1].to_ne_bytes();
    let [.., own_domain, own_sdo, _, _] = template[0].to_ne_bytes();
    if (version ^ own_version) & 0x0f != 0
        || (kind ^ own_kind) & 0xf0 != 0
        || usize::from(u16::from_be_bytes([length_high, length_low])) != REQUEST
        || domain != own_domain
        || sdo != own_sdo
    {
        return Err(Outcome::Foreign);
    }
    let correction = i64::from_be(pair(request[2], request[3]) as i64);
    if correction > MAX_CORRECTION || correction < -MAX_CORRECTION {
        return Err(Outcome::Foreign);
    }
    // sourcePortIdentity of the template, which begins in the middle of a word.
    if pair(request[5], request[6]) == between(template[2], template[3]) {
        return Err(Outcome::Foreign);
    }
    Ok(flags & UNICAST != 0)
}

/// What of an answer depends on its request (11.3.2).
#[inline(always)]
fn fill(answer: &mut Answer, request: &Request, is_unicast: bool, time_ns: u64) {
    let seconds = time_ns / SECOND_NS;
    let nanoseconds = (time_ns - seconds * SECOND_NS) as u32;
    let bytes = answer.as_mut_ptr().cast::<u8>();
    // SAFETY: all offsets are inside the message and suit what is written there.
    unsafe {
        if is_unicast {
            *bytes.add(6) |= UNICAST;
            // The interval of what is unicast is a matter of its negotiation (table 42).
            *bytes.add(33) = 0x7f;
        }
        *bytes.add(8).cast::<u64>() = pair(request[2], request[3]);
        *bytes.add(30).cast::<u16>() = last_half(request[7]);
        *bytes.add(34).cast::<u16>() = ((seconds >> 32) as u16).to_be();
        *bytes.add(36).cast::<u32>() = (seconds as u32).to_be();
        *bytes.add(40).cast::<u32>() = nanoseconds.to_be();
        *bytes.add(44).cast::<u32>() = request[5];
        *bytes.add(48).cast::<u32>() = request[6];
        *bytes.add(52).cast::<u16>() = first_half(request[7]);
    }
}

/// Leaves the TLV out.
#[inline(always)]
fn shorten(answer: &mut Answer) {
    let bytes = answer.as_mut_ptr().cast::<u8>();
    // SAFETY: inside the message, at even places.
    unsafe {
        *bytes.add(2).cast::<u16>() = (PLAIN_RESPONSE as u16).to_be();
        ptr::write_volatile(bytes.add(PLAIN_RESPONSE).cast::<u16>(), 0);
    }
}
