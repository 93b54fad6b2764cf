//! Event messages: when they arrived, when they left, and those that carry their own correction.

use aya_ebpf::{
    bindings::BPF_ANY,
    helpers::generated::{bpf_get_smp_processor_id, bpf_ktime_get_tai_ns},
    programs::TcContext,
};
use core::ptr;
use ptp_common::residence::{
    DELAY_REQ, Head, LOST, NO_QUEUE, Outcome, PDELAY_REQ, PDELAY_RESP, REQUESTER, SYNC, UNCERTAIN,
    added, config, scaled,
};

use crate::{
    DROP, NEXT,
    flight::FLIGHTS,
    maps::{
        ARRIVALS, Config, DEPARTING, Departing, HEARD, ONE_WAY, RESIDENCES, State, count,
        is_device, link_delay_ns, note, number_of, place,
    },
    now,
    packet::Packet,
    settings::{DEPARTURE, HAS_TAI, enabled, number},
};

/// The stack's stamp is taken so long before TC ingress at the most, even where the processor was taken away
/// in between; another one is of another time.
const STACK_NS: u64 = 1_000_000_000;
/// The same where a step of the clock cannot be told from that.
const STACK_UNSURE_NS: u64 = 10_000_000;
/// A driver that takes longer was interrupted: nobody knows whether before it sent the message or after.
const INTERRUPTED_NS: u64 = 50_000;
/// A second, in which so many messages are allowed.
const SECOND_NS: u64 = 1_000_000_000;
/// Length of a VLAN tag, bytes.
const TAG: u32 = 4;
/// A way from TC egress to the driver without a queue in between is shorter.
const UNDISTURBED_NS: u64 = 20_000;
/// Whoever was heard so lately on a port is not this host.
const HEARD_NS: u64 = 10 * SECOND_NS;

/// An event message has arrived on a port.
#[inline(always)]
pub fn arrived(
    packet: &Packet,
    head: &Head,
    config: &Config,
    kind: u32,
    port: u32,
    now_ns: u64,
    stack_ns: u64,
) {
    let place = place(port, kind);
    if let Some(objection) = packet.objection(head) {
        count(place, objection);
        return;
    }
    let Some(state) = State::of(port) else { return };
    if now_ns - state.get(State::SECOND) >= SECOND_NS {
        state.set(State::SECOND, now_ns);
        state.set(State::EVENTS, 0);
    }
    let events = state.get(State::EVENTS);
    if events >= config.get(config::EVENTS_PER_SECOND) {
        count(place, Outcome::Flood);
        return;
    }
    state.set(State::EVENTS, events + 1);
    let mut arrival_ns = now_ns;
    if stack_ns != 0 {
        let real_minus_mono = if enabled(&HAS_TAI) {
            // SAFETY: a helper without arguments.
            let tai_ns = unsafe { bpf_ktime_get_tai_ns() };
            tai_ns.wrapping_sub(config.get(config::TAI_OFFSET)).wrapping_sub(now())
        } else {
            config.get(config::REAL_MINUS_MONO)
        };
        let stack_ns = stack_ns.wrapping_sub(real_minus_mono);
        let limit_ns = if enabled(&HAS_TAI) { STACK_NS } else { STACK_UNSURE_NS };
        if now_ns.wrapping_sub(stack_ns) < limit_ns {
            arrival_ns = stack_ns;
        }
    }
    let source = head.source();
    let key = head.key(head.message_type(), &source, port, 0);
    let _ = ARRIVALS.insert(&key, &arrival_ns, u64::from(BPF_ANY));
    let clock = [key[0], key[1] & 0xffff_0000_0000_0000];
    let _ = HEARD.insert(&clock, &now_ns, u64::from(BPF_ANY));
}

/// An event message that no port of ours has brought leaves. Where its sender was heard on one, a program
/// of this host relays: a transparent clock of its own.
#[inline(always)]
pub fn sent_here(head: &Head, kind: u32, went: u32, now_ns: u64) {
    let key = head.key(0, &head.source(), 0, 0);
    let clock = [key[0], key[1] & 0xffff_0000_0000_0000];
    // SAFETY: the value is copied at once.
    if let Some(heard_ns) = unsafe { HEARD.get(&clock) }.copied()
        && now_ns.wrapping_sub(heard_ns) < HEARD_NS
    {
        count(place(went, kind), Outcome::Relayed);
    }
}

/// An event message leaves by a port.
#[inline(always)]
pub fn leaves(
    ctx: &TcContext,
    packet: &Packet,
    head: &Head,
    config: &Config,
    kind: u32,
    came: u32,
    went: u32,
) -> i32 {
    let event = head.message_type();
    let place = place(went, kind);
    if config.get(config::IS_P2P) != 0 && (event == PDELAY_REQ || event == PDELAY_RESP) {
        if now() < config.get(config::ALTER_UNTIL) {
            count(place, Outcome::Terminated);
            return DROP;
        }
        return NEXT;
    }
    if let Some(objection) = packet.objection(head) {
        count(place, objection);
        return NEXT;
    }
    let source = head.source();
    let arrival_key = head.key(event, &source, came, 0);
    // SAFETY: the value is copied at once.
    let Some(arrival_ns) = unsafe { ARRIVALS.get(&arrival_key) }.copied() else {
        count(place, Outcome::NoArrival);
        return NEXT;
    };
    let key = head.key(event, &source, came, went);
    let is_complete = match event {
        SYNC | PDELAY_RESP => !head.is_two_step(),
        _ => false,
    };
    if is_complete {
        let outcome = complete(packet, head, config, &key, arrival_ns, came, went);
        count(place, outcome);
        if event == SYNC && outcome != Outcome::Corrected {
            let one_way = head.key(0, &source, 0, went);
            let _ = ONE_WAY.insert(&[one_way[0], one_way[1] & ONE_WAY_BITS], &now(), 0);
        }
    } else {
        count(place, Outcome::Timed);
    }
    let residence = [arrival_ns, 0, 0];
    let _ = RESIDENCES.insert(&key, &residence, u64::from(BPF_ANY));
    // SAFETY: the program's context; the verifier checks the field access.
    let (length, ifindex) = unsafe { ((*ctx.skb.skb).len, (*ctx.skb.skb).ifindex) };
    let departing = Departing { key, egress_ns: now(), start_ns: 0, length, ifindex, processor: 0 };
    let address = number_of(ctx);
    if address != 0 {
        reused(address);
        let _ = DEPARTING.insert(&address, &departing, u64::from(BPF_ANY));
        FLIGHTS.put(address);
    }
    NEXT
}

/// Of a key: everything but type and `sequenceId`, which is what [`ONE_WAY`] is asked by.
pub const ONE_WAY_BITS: u64 = 0xffff_0000_ff00_00ff;

/// A message that carries its own correction: possible only where no queue follows.
#[inline(always)]
fn complete(
    packet: &Packet,
    head: &Head,
    config: &Config,
    key: &[u64; 2],
    arrival_ns: u64,
    came: u32,
    went: u32,
) -> Outcome {
    if let Some(objection) = packet.forbidden(head) {
        return objection;
    }
    let Some(state) = State::of(went) else { return Outcome::TableFull };
    if went & NO_QUEUE == 0 && state.get(State::MOST) > UNDISTURBED_NS {
        return Outcome::Queue;
    }
    let mut more_ns = state.get(State::MEAN);
    if head.message_type() == PDELAY_RESP {
        // It carries the residence of the request as well.
        let Some(requester) = packet.message(REQUESTER) else { return Outcome::Malformed };
        let request = head.key(PDELAY_REQ, &requester, went, came);
        match residence_ns(&request) {
            Residence::Known(nanos) => more_ns += nanos,
            _ => return Outcome::NoResidence,
        }
    } else if config.get(config::IS_P2P) != 0 {
        more_ns += link_delay_ns(came);
    }
    let _ = key;
    if now() >= config.get(config::ALTER_UNTIL) {
        return Outcome::Timed;
    }
    // Last, because all that comes after it is not in it.
    let residence_ns = now().wrapping_sub(arrival_ns).wrapping_add(more_ns);
    match scaled(residence_ns, config.get(config::RATE) as i64)
        .and_then(|correction| added(head.correction(), correction))
    {
        None => Outcome::Overflow,
        Some(new) if packet.correct(head.correction(), new) => Outcome::Corrected,
        Some(_) => Outcome::TableFull,
    }
}

/// What is known of how long an event message was inside.
pub enum Residence {
    /// Nothing.
    Unknown,
    /// It is still inside, or so it seems: the driver has not said that it is done. With it, how long the
    /// message had been inside when the driver was called; 0 where it was not called yet.
    Pending(u64),
    /// It was dropped.
    Lost,
    /// It has left, and nobody knows when. With it, how long the message had been inside when the driver was
    /// called; 0 where that is not known either.
    Uncertain(u64),
    /// Nanoseconds.
    Known(u64),
}

/// How long an event message was inside.
#[inline(always)]
pub fn residence_ns(key: &[u64; 2]) -> Residence {
    let Some(value) = RESIDENCES.get_ptr(key) else { return Residence::Unknown };
    // SAFETY: a value in the map, each word of which is written as a whole, the arrival before the rest.
    let (arrival_ns, departure_ns, start_ns) = unsafe {
        let words = value.cast::<u64>();
        (
            ptr::read_volatile(words),
            ptr::read_volatile(words.add(1)),
            ptr::read_volatile(words.add(2)),
        )
    };
    match departure_ns {
        0 if start_ns == 0 => Residence::Pending(0),
        0 => Residence::Pending(start_ns.wrapping_sub(arrival_ns)),
        LOST => Residence::Lost,
        UNCERTAIN if start_ns == 0 => Residence::Uncertain(0),
        UNCERTAIN => Residence::Uncertain(start_ns.wrapping_sub(arrival_ns)),
        _ => Residence::Known(departure_ns.wrapping_sub(arrival_ns)),
    }
}

#[inline(always)]
fn processor() -> u64 {
    // SAFETY: a helper without arguments.
    u64::from(unsafe { bpf_get_smp_processor_id() })
}

/// The driver is about to be called.
#[inline(always)]
pub fn started(address: u64, now_ns: u64) {
    if let Some(departing) = DEPARTING.get_ptr_mut(&address) {
        // SAFETY: a value in the map; the word is written as a whole.
        unsafe {
            ptr::write_volatile(&raw mut (*departing).processor, processor());
            ptr::write_volatile(&raw mut (*departing).start_ns, now_ns);
        }
        // SAFETY: a value in the map, copied at once.
        let key = unsafe { (*departing).key };
        if let Some(value) = RESIDENCES.get_ptr_mut(&key) {
            // SAFETY: as above.
            unsafe { ptr::write_volatile(value.cast::<u64>().add(2), now_ns) };
        }
    }
}

/// The driver has answered. A message may have left unseen; then its socket buffer is another packet's by
/// now, which leaves by another device or has another length.
#[inline(always)]
pub fn done(address: u64, code: i32, now_ns: u64, device: u64, sent: u32) {
    let Some(departing) = DEPARTING.get_ptr_mut(&address) else {
        FLIGHTS.remove(address);
        return;
    };
    if code != 0 {
        // Too busy; it will be tried again.
        // SAFETY: as above.
        unsafe { ptr::write_volatile(&raw mut (*departing).start_ns, 0) };
        return;
    }
    // SAFETY: a value in the map, copied at once.
    let Departing { key, egress_ns, start_ns, length, ifindex, processor: on } =
        unsafe { ptr::read_volatile(departing) };
    // A driver that answers without having been called, or on another processor, answers for the packet that
    // had the socket buffer before: it may be free, and used again, before the tracepoint is reached.
    if start_ns == 0 || on != processor() {
        return;
    }
    FLIGHTS.remove(address);
    let _ = DEPARTING.remove(&address);
    // A tag that was beside the packet may be in it now.
    if sent.wrapping_sub(length) > TAG || !is_device(ifindex, device) {
        unseen(&key);
        return;
    }
    let inside_ns = now_ns.wrapping_sub(start_ns);
    let (went, event) = ((key[1] & 0xff) as u32, (key[1] >> 16) as u8 & 0x0f);
    if inside_ns > INTERRUPTED_NS {
        // An event message's number among the types is its messageType.
        count(place(went, u32::from(event)), Outcome::Interrupted);
        write_departure(&key, UNCERTAIN);
        return;
    }
    let departure_ns = match number(&DEPARTURE) {
        0 => start_ns,
        1 => start_ns + inside_ns / 2,
        _ => now_ns,
    };
    let Some(value) = RESIDENCES.get_ptr_mut(&key) else { return };
    // SAFETY: a value in the map; the word is written as a whole.
    let arrival_ns = unsafe {
        let words = value.cast::<u64>();
        ptr::write_volatile(words.add(1), departure_ns);
        ptr::read_volatile(words)
    };
    let way = u32::from(event == DELAY_REQ || event == PDELAY_REQ);
    note(went, way, departure_ns.wrapping_sub(arrival_ns));
    if let Some(state) = State::of(went) {
        let gap_ns = departure_ns.wrapping_sub(egress_ns);
        let most = state.get(State::MOST);
        state.set(State::MOST, gap_ns.max(most - most / 16));
        if gap_ns <= UNDISTURBED_NS {
            let mean = state.get(State::MEAN);
            state.set(State::MEAN, (mean * 7 + gap_ns) / 8);
        }
    }
}

/// It was dropped.
#[inline(always)]
pub fn dropped(address: u64) {
    FLIGHTS.remove(address);
    let Some(departing) = DEPARTING.get_ptr(&address) else { return };
    // SAFETY: a value in the map, copied at once.
    let Departing { key, .. } = unsafe { ptr::read_volatile(departing) };
    let _ = DEPARTING.remove(&address);
    write_departure(&key, LOST);
}

/// Another message passes TC egress in the same socket buffer: the one before has left unseen.
#[inline(always)]
pub fn reused(address: u64) {
    if FLIGHTS.has(address)
        && let Some(departing) = DEPARTING.get_ptr(&address)
    {
        // SAFETY: a value in the map, copied at once.
        let key = unsafe { (*departing).key };
        FLIGHTS.remove(address);
        let _ = DEPARTING.remove(&address);
        unseen(&key);
    }
}

/// It has left, and the tracepoints have not seen it.
#[inline(always)]
fn unseen(key: &[u64; 2]) {
    count(place((key[1] & 0xff) as u32, (key[1] >> 16) as u32 & 3), Outcome::Unseen);
    if let Some(value) = RESIDENCES.get_ptr_mut(key) {
        // SAFETY: a value in the map; each word is written as a whole. When the driver was called is
        // not known either: that was another packet's.
        unsafe {
            ptr::write_volatile(value.cast::<u64>().add(2), 0);
            ptr::write_volatile(value.cast::<u64>().add(1), UNCERTAIN);
        }
    }
}

/// Writes down when a message left, or that nobody knows.
#[inline(always)]
fn write_departure(key: &[u64; 2], departure: u64) {
    if let Some(value) = RESIDENCES.get_ptr_mut(key) {
        // SAFETY: a value in the map; the word is written as a whole.
        unsafe { ptr::write_volatile(value.cast::<u64>().add(1), departure) };
    }
}
