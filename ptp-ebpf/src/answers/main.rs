//! The programs that answer for a time transmitter: a Delay_Req (IEEE 1588-2019 11.3) becomes its own Delay_Resp
//! on the way in, and goes back by the interface that it came from. An object of its own, loaded by `serve` alone:
//! the programs that only stamp go on changing nothing.
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
mod maps;
mod memory;
mod packet;
mod settings;

use aya_ebpf::{
    bindings::xdp_action::XDP_PASS,
    helpers::generated::{
        bpf_clone_redirect, bpf_ktime_get_ns, bpf_ktime_get_tai_ns, bpf_redirect,
    },
    macros::{classifier, raw_tracepoint, xdp},
    programs::{RawTracePointContext, TcContext, XdpContext},
};
use core::ptr;
use ptp_common::answer::{Outcome, PLAIN_RESPONSE, RESPONSE, flag, interface, served, slot};

use find::find;
use maps::{Interface, Leaving, Slot, Work, admit, admit_stranger, go_to_exchanges, has, mixed};
use memory::{between, first_half, last_half, pair};
use packet::{Packet, REQUEST, Request};

/// A message as it is made in the work area.
type Answer = [u64; maps::ANSWER];

/// "Go on as if I were not here": `TCX_NEXT` of TCX and `TC_ACT_UNSPEC` of clsact.
const NEXT: i32 = -1;
/// `TCX_DROP` and `TC_ACT_SHOT`.
const DROP: i32 = 2;
/// Number of Delay_Req among [`ptp_common::answer::KINDS`].
const DELAY: u32 = 0;
/// The stack's stamp is taken so long before TC ingress at the most, ns; another one is no stamp of this packet.
const STACK_NS: i64 = 100_000_000;
/// Two reads of the clocks agree with what the agent knows of them to within this, ns.
const AGREE_NS: i64 = 1_000;
/// What is corrected by more is nothing that happens in a network: ten seconds, in 2^-16 ns.
const MAX_CORRECTION: i64 = 10_000_000_000 << 16;
/// `unicastFlag` in the first octet of flagField.
const UNICAST: u8 = 0x04;
const SECOND_NS: u64 = 1_000_000_000;

/// TC ingress.
#[classifier]
pub fn ptp_answers_tc(ctx: TcContext) -> i32 {
    let Some(location) = find(&ctx) else { return NEXT };
    let Some(packet) = Packet::new(&ctx, &location) else { return NEXT };
    let clocks = Clocks::read();
    let Some(request) = packet.request() else { return NEXT };
    if exchange::is_request(&request) {
        go_to_exchanges(&ctx);
    }
    if request[0].to_ne_bytes()[0] & 0x0f != 1 {
        return NEXT;
    }
    // SAFETY: the program's context; the verifier checks the field access.
    let ifindex = unsafe { (*ctx.skb.skb).ifindex };
    let Some(own) = Interface::of(ifindex) else { return NEXT };
    match delay(&packet, own, &request, &clocks) {
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

/// The clocks, read in this order.
struct Clocks {
    before_ns: u64,
    tai_ns: u64,
    after_ns: u64,
}

impl Clocks {
    #[inline(always)]
    fn read() -> Self {
        // SAFETY: helpers without arguments.
        unsafe {
            Self {
                before_ns: bpf_ktime_get_ns(),
                tai_ns: bpf_ktime_get_tai_ns(),
                after_ns: bpf_ktime_get_ns(),
            }
        }
    }

    /// Whether nobody has set the host's clock since the agent has read it.
    #[inline(always)]
    fn agree(&self, slot: Slot) -> bool {
        let tai = (self.tai_ns as i64).wrapping_sub(slot.get(slot::TAI_MINUS_MONO) as i64);
        tai > self.before_ns as i64 - AGREE_NS && tai < self.after_ns as i64 + AGREE_NS
    }
}

#[inline(always)]
fn delay(
    packet: &Packet,
    own: Interface,
    request: &Request,
    clocks: &Clocks,
) -> Result<Outcome, Outcome> {
    let flags = own.get(interface::FLAGS);
    if flags & interface::SERVING == 0 {
        return Err(Outcome::Passive);
    }
    let now_ns = clocks.before_ns;
    let slot = Slot::now(now_ns).ok_or(Outcome::Stale)?;
    let generation = slot.get(slot::GENERATION);
    let work = Work::area().ok_or(Outcome::Failed)?;
    template(own, &mut work.answer);
    let is_unicast = check(request, &work.answer)?;
    if !clocks.agree(slot) {
        return Err(Outcome::ClockSet);
    }
    let identity = (pair(request[5], request[6]), request[7]);
    // The agent asks itself now and then, from its own address.
    let is_probe = identity.0 == slot.get(slot::PROBE);
    let ends = packet.ends(own, slot, is_unicast, is_probe, REQUEST, 0)?;
    let arrival_ns = arrival(packet, flags, slot, clocks) - own.get(interface::LATENCY) as i64;
    let time_ns = served(
        arrival_ns,
        slot.get(slot::BASE_MONO) as i64,
        slot.get(slot::BASE_TIME) as i64,
        slot.get(slot::RATE) as i64,
    )
    .filter(|time_ns| *time_ns >= 0)
    .ok_or(Outcome::Stale)? as u64;
    if !is_probe {
        let seed = slot.get(slot::SEED);
        let address = ends.hash(seed);
        if is_unicast && ends.trust & flag::TRUSTED == 0 {
            admit_stranger(slot, now_ns, address)?;
        }
        let client = mixed(mixed(address, identity.0), u64::from(first_half(identity.1)));
        if admit(slot, now_ns, client)? {
            own.count(DELAY, Outcome::NewClient);
        }
    }
    if !slot.is_still(generation) {
        return Err(Outcome::Stale);
    }
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

/// When the request arrived, CLOCK_MONOTONIC.
#[inline(always)]
fn arrival(packet: &Packet, flags: u64, slot: Slot, clocks: &Clocks) -> i64 {
    let now_ns = clocks.before_ns as i64;
    if flags & interface::STACK != 0 {
        // SAFETY: the program's context; the verifier checks the field access.
        let stack_ns = unsafe { (*packet.skb()).tstamp } as i64;
        let mono_ns = stack_ns.wrapping_sub(slot.get(slot::REAL_MINUS_MONO) as i64);
        if stack_ns != 0 && mono_ns <= now_ns && mono_ns > now_ns - STACK_NS {
            return mono_ns;
        }
    }
    now_ns
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
