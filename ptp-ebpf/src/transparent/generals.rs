//! General messages, which carry the corrections of the event messages that they belong to.

use aya_ebpf::{
    bindings::BPF_RB_FORCE_WAKEUP, helpers::generated::bpf_skb_load_bytes, programs::TcContext,
};
use core::{arch::asm, ptr};
use ptp_common::residence::{
    DELAY_REQ, DELAY_RESP, FOLLOW_UP, Head, Key, Outcome, PDELAY_REQ, PDELAY_RESP,
    PDELAY_RESP_FOLLOW_UP, REQUESTER, SYNC, added, config, held, scaled,
};

use crate::{
    DROP, NEXT,
    events::{ONE_WAY_BITS, Residence, residence_ns, reused},
    maps::{Config, HELD, ONE_WAY, Record, State, count, link_delay_ns, number_of, place},
    packet::Packet,
};

/// For so long after a Sync that could not be corrected nothing is that goes the other way.
const ONE_WAY_NS: u64 = 10_000_000_000;

/// A general message leaves by a port.
#[inline(always)]
pub fn leaves(
    ctx: &TcContext,
    packet: &Packet,
    head: &Head,
    config: &Config,
    kind: u32,
    came: u32,
    went: u32,
    now_ns: u64,
) -> i32 {
    if now_ns >= config.get(config::ALTER_UNTIL) {
        return NEXT;
    }
    reused(number_of(ctx));
    let place = place(went, kind);
    let message_type = head.message_type();
    let is_p2p = config.get(config::IS_P2P) != 0;
    if is_p2p && message_type == PDELAY_RESP_FOLLOW_UP {
        count(place, Outcome::Terminated);
        return DROP;
    }
    if is_p2p && message_type == DELAY_RESP {
        // 10.3: no business of a peer-to-peer transparent clock.
        return NEXT;
    }
    let objection = packet.objection(head).or_else(|| packet.forbidden(head));
    let source = head.source();
    if let Some(objection) = objection {
        count(place, objection);
        if message_type == FOLLOW_UP {
            let one_way = head.key(0, &source, 0, went);
            let _ = ONE_WAY.insert(&[one_way[0], one_way[1] & ONE_WAY_BITS], &now_ns, 0);
        }
        return NEXT;
    }
    let none: Key = [0, 0];
    let mut second = none;
    let key = if message_type == FOLLOW_UP {
        head.key(SYNC, &source, came, went)
    } else {
        let Some(requester) = packet.message(REQUESTER) else {
            count(place, Outcome::Malformed);
            return NEXT;
        };
        if message_type == DELAY_RESP {
            let one_way = head.key(0, &source, 0, went);
            // SAFETY: the value is copied at once.
            let since = unsafe { ONE_WAY.get(&[one_way[0], one_way[1] & ONE_WAY_BITS]) }.copied();
            if since.is_some_and(|since_ns| now_ns.wrapping_sub(since_ns) < ONE_WAY_NS) {
                count(place, Outcome::OneWay);
                return NEXT;
            }
            head.key(DELAY_REQ, &requester, went, came)
        } else {
            second = head.key(PDELAY_REQ, &requester, went, came);
            head.key(PDELAY_RESP, &source, came, went)
        }
    };
    let mut more_ns = 0;
    if message_type == PDELAY_RESP_FOLLOW_UP {
        match residence_ns(&second) {
            Residence::Known(nanos) | Residence::Pending(nanos @ 1..) => more_ns = nanos,
            _ => {
                count(place, Outcome::Unrequested);
                return NEXT;
            }
        }
    } else if is_p2p {
        more_ns = link_delay_ns(came);
    }
    let residence = match residence_ns(&key) {
        // Whoever answers has had the message, whatever has kept the driver from saying so.
        Residence::Pending(nanos @ 1..) if message_type != FOLLOW_UP => Residence::Known(nanos),
        Residence::Uncertain(nanos) => {
            if config.get(config::WITHHOLDS) != 0
                && now_ns < config.get(config::HOLD_UNTIL)
                && State::of(went).is_some_and(State::pays)
            {
                count(place, Outcome::Withheld);
                return DROP;
            }
            // Interrupted: what is known is better than nothing.
            if nanos > 0 { Residence::Known(nanos) } else { Residence::Uncertain(0) }
        }
        residence => residence,
    };
    let outcome = match residence {
        Residence::Known(nanos) => {
            let rate = config.get(config::RATE) as i64;
            match scaled(nanos.wrapping_add(more_ns), rate)
                .and_then(|correction| added(head.correction(), correction))
            {
                None => Outcome::Overflow,
                Some(new) if packet.correct(head.correction(), new) => {
                    if let Some(state) = State::of(went) {
                        state.earn();
                    }
                    Outcome::Corrected
                }
                Some(_) => Outcome::TableFull,
            }
        }
        Residence::Pending(_) if now_ns < config.get(config::HOLD_UNTIL) => {
            let words = Words { key, second, place, offset: packet.location.ptp_offset as u64 };
            if hold(ctx, &words) {
                count(place, Outcome::Held);
                return DROP;
            }
            Outcome::TableFull
        }
        Residence::Pending(_) => Outcome::NoResidence,
        Residence::Lost | Residence::Uncertain(_) => Outcome::EventLost,
        Residence::Unknown if message_type == FOLLOW_UP => Outcome::NoResidence,
        Residence::Unknown => Outcome::Unrequested,
    };
    count(place, outcome);
    NEXT
}

struct Words {
    key: Key,
    second: Key,
    place: u32,
    offset: u64,
}

/// Gives the frame to the agent. Whether there was room.
#[inline(always)]
fn hold(ctx: &TcContext, words: &Words) -> bool {
    let skb = ctx.skb.skb;
    // SAFETY: the program's context; the verifier checks each field access.
    let (length, ifindex, tag) = unsafe {
        let tag = if (*skb).vlan_present != 0 {
            u64::from(u16::from_be((*skb).vlan_proto as u16)) << 16
                | u64::from((*skb).vlan_tci as u16)
        } else {
            0
        };
        ((*skb).len, (*skb).ifindex, tag)
    };
    if length as usize > held::FRAME || length == 0 {
        return false;
    }
    let Some(mut entry) = HELD.reserve_untyped::<Record>(0) else {
        return false;
    };
    let record = entry.as_mut_ptr();
    let mut last = u64::from(length - 1);
    // SAFETY: moves a register to itself, which hides the range from the optimiser, but not from the
    // verifier, which sees the comparison that follows.
    unsafe { asm!("{0} = {0}", inout(reg) last, options(pure, nomem, nostack)) };
    if last >= held::FRAME as u64 {
        last = held::FRAME as u64 - 1;
    }
    // SAFETY: the record's memory; the helper writes no more than the frame has room for.
    let loaded = unsafe {
        let set = |at: usize, value: u64| {
            ptr::write_volatile((&raw mut (*record).words).cast::<u64>().add(at), value);
        };
        set(held::KEY, words.key[0]);
        set(held::KEY + 1, words.key[1]);
        set(held::SECOND, words.second[0]);
        set(held::SECOND + 1, words.second[1]);
        set(held::IFINDEX, u64::from(ifindex));
        set(held::LENGTH, u64::from(length) | words.offset << 32);
        set(held::VLAN, tag);
        set(held::COUNT, u64::from(words.place));
        let frame = (&raw mut (*record).frame).cast();
        bpf_skb_load_bytes(skb.cast(), 0, frame, last as u32 + 1) == 0
    };
    if loaded {
        entry.submit(u64::from(BPF_RB_FORCE_WAKEUP));
    } else {
        entry.discard(0);
    }
    loaded
}
