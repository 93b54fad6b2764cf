//! Exchanges of two messages: of CSPTP (IEEE 1588.1) and SPTP. The request becomes the Sync of its answer, of which a
//! clone is sent; and when that has been handed to the driver, the request becomes the message that tells when that
//! was. If something holds the clone on its way, the second message is not sent: a time that is not known
//! is none.

use aya_ebpf::{
    helpers::generated::{bpf_clone_redirect, bpf_skb_load_bytes},
    programs::TcContext,
};
use ptp_common::{
    answer::{
        ANNOUNCE, CSPTP_ANSWER, CSPTP_PLAIN_ANSWER, CSPTP_REQUEST, MARK, Outcome, SPTP_REQUEST,
        SYNC, flag, interface,
    },
    classify::{Network, PORT_EVENT, PORT_GENERAL},
};

use crate::{
    DROP, MAX_CORRECTION, NEXT, SECOND_NS, UNICAST,
    find::find,
    hook::{AtTc, Hook as _},
    maps::{ANSWER, BEFORE, Interface, Leaving, Work},
    memory::{last_half, pair, unpair},
    packet::{ETHERNET, Ends, IPV4, IPV6, Packet, Request, TRAILER, UDP, message_at},
    send_back,
    serving::{Asking, Clocks, Serving},
    write::head,
};

/// `majorSdoId` 3 and `messageType` Sync.
const CSPTP: u8 = 0x30;
/// profileSpecific1 in the first octet of flagField.
const SPTP: u8 = 0x20;
/// Numbers among [`ptp_common::answer::KINDS`].
const CSPTP_KIND: u32 = 1;
const SPTP_KIND: u32 = 2;
/// CSPTP_REQUEST with its length, and PAD with the length that makes a request as long as its answer.
const REQUEST_TLV: [u8; 4] = [0xff, 0x00, 0, 4];
const PAD_TLV: [u8; 4] = [0x80, 0x08, 0, (CSPTP_ANSWER - CSPTP_REQUEST - 4) as u8];
/// CSPTP_REQUEST asks for the status alone.
const WANTS_STATUS: u8 = 1;
/// Where CSPTP_RESPONSE says when the request arrived, and what its correction was.
const INGRESS: usize = SYNC + 4;
const CORRECTION: usize = INGRESS + 10;
/// Where messages say when they left.
const ORIGIN: usize = 34;
/// Domains of CSPTP.
const FIRST_DOMAIN: u8 = 128;
const LAST_DOMAIN: u8 = 239;

/// Whether a message is one of these requests, as far as its header says.
#[inline(always)]
pub fn is_request(request: &Request) -> bool {
    let [kind, ..] = request[0].to_ne_bytes();
    let [_, _, flags, _] = request[1].to_ne_bytes();
    kind == CSPTP || (kind & 0x0f == 1 && flags & SPTP != 0)
}

/// The program.
#[inline(always)]
pub fn answer(ctx: &TcContext) -> i32 {
    let Some(location) = find(ctx) else { return NEXT };
    if matches!(location.network, Network::Ethernet) {
        return NEXT;
    }
    let hook = AtTc(ctx);
    let Some(packet) = Packet::new(&hook, &location) else { return NEXT };
    let clocks = Clocks::read();
    let Some(request) = packet.request() else { return NEXT };
    let ifindex = hook.ifindex();
    let Some(own) = Interface::of(ifindex) else { return NEXT };
    let is_csptp = request[0].to_ne_bytes()[0] == CSPTP;
    let (kind, wanted) = match is_csptp {
        true => (CSPTP_KIND, interface::CSPTP),
        false => (SPTP_KIND, interface::SPTP),
    };
    // Nobody counts what is not served at all.
    if own.get(interface::FLAGS) & wanted == 0 {
        return NEXT;
    }
    let done = Serving::open(own, clocks)
        .and_then(|serving| exchange(&packet, &serving, &request, is_csptp, kind));
    match done {
        Ok(outcome) => {
            own.count(kind, outcome);
            send_back(ctx, ifindex)
        }
        Err(outcome) => {
            own.count(kind, outcome);
            let is_gone = outcome.is_refused() || matches!(outcome, Outcome::NoDeparture);
            if is_gone { DROP } else { NEXT }
        }
    }
}

type TcPacket<'a> = Packet<'a, AtTc<'a>>;

#[inline(always)]
fn exchange(
    packet: &TcPacket,
    serving: &Serving,
    request: &Request,
    is_csptp: bool,
    kind: u32,
) -> Result<Outcome, Outcome> {
    let own = serving.own;
    let work = Work::area().ok_or(Outcome::Failed)?;
    let length = match is_csptp {
        true => check_csptp(request)?,
        false => check_sptp(request, own)?,
    };
    let tells_status = is_csptp && tlvs(packet, length)?;
    serving.check_clock()?;
    let asking = Asking::of(request);
    let is_probe = serving.is_probe(&asking);
    let ends = packet.ends(own, serving.slot, true, is_probe, length, 2)?;
    let arrived = serving.arrival(packet.hook)?;
    if !is_probe {
        // Two messages for one: to strangers that would be more than came from them.
        if ends.trust & flag::TRUSTED == 0 {
            return Err(Outcome::Prefix);
        }
        serving.admit(kind, serving.address(&ends), &asking)?;
    }
    serving.confirm()?;
    let (first, first_length) = match (is_csptp, tells_status) {
        (true, true) => (interface::CSPTP_ANSWER, CSPTP_ANSWER),
        (true, false) => (interface::CSPTP_ANSWER, CSPTP_PLAIN_ANSWER),
        (false, _) => (interface::SPTP_SYNC, SYNC),
    };
    fill_sync(own, work, request, is_csptp, tells_status, arrived, first);
    // The lengths are few, so each has code of its own.
    let is_written = match first_length {
        CSPTP_ANSWER => packet.answer_first(own, &ends, work, length, CSPTP_ANSWER),
        CSPTP_PLAIN_ANSWER => packet.answer_first(own, &ends, work, length, CSPTP_PLAIN_ANSWER),
        _ => packet.answer_first(own, &ends, work, length, SYNC),
    };
    if !is_written {
        return Err(Outcome::Failed);
    }
    let (skb, ifindex) = (packet.hook.skb(), packet.hook.ifindex());
    let left_ns = Leaving::of(|| {
        // SAFETY: the program's context, and a helper that takes numbers and the context.
        unsafe {
            (*skb).cb[0] = MARK[0];
            (*skb).cb[1] = MARK[1];
            bpf_clone_redirect(skb, ifindex, 0) == 0
        }
    });
    let left_ns = left_ns.ok_or(Outcome::NoDeparture)? as i64;
    let latency_ns = own.get(interface::EGRESS_LATENCY) as i64;
    let left = serving.time(left_ns + latency_ns).ok_or(Outcome::NoDeparture)?;
    // What is there now.
    let mut at = 0;
    while at < ANSWER {
        let [first, second] = unpair(work.answer[at]);
        work.before[2 + 2 * at] = first;
        work.before[3 + 2 * at] = second;
        at += 1;
    }
    work.before[0] = work.summed_udp[0];
    let is_written = match is_csptp {
        true => {
            form(own, work, interface::CSPTP_FOLLOW_UP, SYNC.div_ceil(8));
            fill(work, request, true, left);
            packet.answer_second(own, &ends, work, SYNC)
        }
        false => {
            form(own, work, interface::SPTP_ANNOUNCE, ANNOUNCE / 8);
            fill(work, request, false, left);
            put(work, 8, request[2]);
            put(work, 12, request[3]);
            packet.answer_second(own, &ends, work, ANNOUNCE)
        }
    };
    if !is_written {
        return Err(Outcome::NoDeparture);
    }
    Ok(if is_probe { Outcome::Probe } else { Outcome::Answered })
}

/// Length of a plain request of CSPTP.
#[inline(always)]
fn check_csptp(request: &Request) -> Result<usize, Outcome> {
    let [_, version, high, low] = request[0].to_ne_bytes();
    let [domain, minor_sdo, flags, _] = request[1].to_ne_bytes();
    let length = usize::from(u16::from_be_bytes([high, low]));
    let is_plain = version & 0x0f == 2
        && minor_sdo == 0
        && domain >= FIRST_DOMAIN
        && domain <= LAST_DOMAIN
        && flags & UNICAST != 0
        && (length == CSPTP_REQUEST || length == CSPTP_ANSWER)
        && is_correction(request);
    if is_plain { Ok(length) } else { Err(Outcome::Foreign) }
}

/// The same of SPTP.
#[inline(always)]
fn check_sptp(request: &Request, own: Interface) -> Result<usize, Outcome> {
    let form = own.get(interface::SPTP_SYNC).to_ne_bytes();
    let [kind, version, high, low] = request[0].to_ne_bytes();
    let [domain, minor_sdo, flags, _] = request[1].to_ne_bytes();
    let length = usize::from(u16::from_be_bytes([high, low]));
    let is_plain = version & 0x0f == 2
        && kind & 0xf0 == form[0] & 0xf0
        && domain == form[4]
        && minor_sdo == form[5]
        && flags & UNICAST != 0
        && (length == SYNC || length == SPTP_REQUEST)
        && is_correction(request);
    if is_plain { Ok(length) } else { Err(Outcome::Foreign) }
}

#[inline(always)]
fn is_correction(request: &Request) -> bool {
    let correction = i64::from_be(pair(request[2], request[3]) as i64);
    correction <= MAX_CORRECTION && correction >= -MAX_CORRECTION
}

/// Whether the status is wanted, of a request that has the TLVs of a plain one.
#[inline(always)]
fn tlvs(packet: &TcPacket, length: usize) -> Result<bool, Outcome> {
    let tlv: [u8; 8] = packet.behind(SYNC).ok_or(Outcome::Packet)?;
    let [a, b, c, d, flags, _, _, _] = tlv;
    if [a, b, c, d] != REQUEST_TLV || flags & !WANTS_STATUS != 0 {
        return Err(Outcome::Foreign);
    }
    if length == CSPTP_ANSWER {
        let pad: [u8; 4] = packet.behind(CSPTP_REQUEST).ok_or(Outcome::Packet)?;
        if pad != PAD_TLV {
            return Err(Outcome::Foreign);
        }
    }
    Ok(flags & WANTS_STATUS != 0)
}

/// A message as the agent has made it, and zeros behind it.
#[inline(always)]
fn form(own: Interface, work: &mut Work, first: usize, words: usize) {
    let mut at = 0;
    while at < ANSWER {
        work.answer[at] = if at < words { own.get(first + at) } else { 0 };
        at += 1;
    }
}

#[inline(always)]
fn fill_sync(
    own: Interface,
    work: &mut Work,
    request: &Request,
    is_csptp: bool,
    tells_status: bool,
    arrived: u64,
    first: usize,
) {
    if !is_csptp {
        form(own, work, first, SYNC.div_ceil(8));
        fill(work, request, false, arrived);
        return;
    }
    form(own, work, first, CSPTP_ANSWER / 8);
    name(work, request, true);
    put_time(work, INGRESS, arrived);
    let correction = pair(request[2], request[3]).to_ne_bytes();
    let [a, b, c, d, e, f, g, h] = correction;
    for (at, two) in [(0, [a, b]), (2, [c, d]), (4, [e, f]), (6, [g, h])] {
        put(work, CORRECTION + at, u16::from_ne_bytes(two));
    }
    if !tells_status {
        put(work, 2, (CSPTP_PLAIN_ANSWER as u16).to_be());
        let mut at = CSPTP_PLAIN_ANSWER;
        while at < CSPTP_ANSWER {
            put(work, at, 0_u16);
            at += 2;
        }
    }
}

/// Names the request, and says a time.
#[inline(always)]
fn fill(work: &mut Work, request: &Request, is_csptp: bool, time_ns: u64) {
    name(work, request, is_csptp);
    put_time(work, ORIGIN, time_ns);
}

#[inline(always)]
fn name(work: &mut Work, request: &Request, is_csptp: bool) {
    if is_csptp {
        put(work, 4, request[1].to_ne_bytes()[0]);
    }
    put(work, 30, last_half(request[7]));
}

#[inline(always)]
fn put_time(work: &mut Work, at: usize, time_ns: u64) {
    let seconds = time_ns / SECOND_NS;
    let nanoseconds = ((time_ns - seconds * SECOND_NS) as u32).to_be_bytes();
    let [_, _, a, b, c, d, e, f] = seconds.to_be_bytes();
    let [g, h, i, j] = nanoseconds;
    let pairs = [[a, b], [c, d], [e, f], [g, h], [i, j]];
    let mut n = 0;
    while n < 5 {
        put(work, at + 2 * n, u16::from_ne_bytes(pairs[n]));
        n += 1;
    }
}

/// Puts a value at a place that suits it.
#[inline(always)]
fn put<T>(work: &mut Work, at: usize, value: T) {
    let bytes = work.answer.as_mut_ptr().cast::<u8>();
    // SAFETY: all places are inside of the message and suit what is put there.
    unsafe { core::ptr::write_volatile(bytes.add(at).cast::<T>(), value) };
}

/// Both messages of an answer, which only TC can send.
impl Packet<'_, AtTc<'_>> {
    /// The message's words behind its fixed part.
    #[inline(always)]
    fn behind<T: Copy>(&self, offset: usize) -> Option<T> {
        match self.network {
            Network::Ethernet => None,
            Network::Ipv4 => self.hook.load(message_at(Network::Ipv4) + offset),
            Network::Ipv6 => self.hook.load(message_at(Network::Ipv6) + offset),
        }
    }

    /// Reads the datagram of a request, `size` bytes long.
    #[inline(always)]
    fn read_datagram(&self, at: usize, work: &mut Work, size: usize) -> bool {
        work.before = [0; BEFORE];
        let to = work.before.as_mut_ptr().cast();
        // The verifier wants to see each length.
        macro_rules! read {
            ($($length:literal)*) => {
                match size {
                    // SAFETY: the helper writes as many bytes, and there are more.
                    $($length => unsafe {
                        bpf_skb_load_bytes(self.hook.skb().cast(), at as u32, to, $length) == 0
                    },)*
                    _ => false,
                }
            };
        }
        // Requests of 44, 50, 52 and 88 octets, and two behind them.
        read!(52 54 58 60 62 96 98)
    }

    /// The first message of an answer to a request of `request` bytes, to the event port.
    #[inline(always)]
    fn answer_first(
        &self,
        own: Interface,
        ends: &Ends,
        work: &mut Work,
        request: usize,
        length: usize,
    ) -> bool {
        let size = UDP + request + ends.trailer;
        match self.network {
            Network::Ethernet => false,
            Network::Ipv4 => {
                self.read_datagram(ETHERNET + IPV4, work, size) && {
                    let has_checksum = head(work, PORT_EVENT, UDP + length);
                    self.write_v4(own, ends, work, length, BEFORE, has_checksum)
                }
            }
            Network::Ipv6 => {
                self.read_datagram(ETHERNET + IPV6, work, size) && {
                    head(work, PORT_EVENT, UDP + length + TRAILER);
                    self.write_v6(own, ends, work, length, BEFORE)
                }
            }
        }
    }

    /// The second one in place of the first, whose datagram is in `work`, to the general port.
    #[inline(always)]
    fn answer_second(&self, own: Interface, ends: &Ends, work: &mut Work, length: usize) -> bool {
        let at = match self.network {
            Network::Ethernet => return false,
            Network::Ipv4 => ETHERNET + IPV4,
            Network::Ipv6 => ETHERNET + IPV6,
        };
        let Some(now) = self.hook.load::<u32>(at + 4) else { return false };
        work.before[1] = now;
        match self.network {
            Network::Ethernet => false,
            Network::Ipv4 => {
                let has_checksum = head(work, PORT_GENERAL, UDP + length);
                self.write_v4(own, ends, work, length, BEFORE, has_checksum)
            }
            Network::Ipv6 => {
                head(work, PORT_GENERAL, UDP + length + TRAILER);
                self.write_v6(own, ends, work, length, BEFORE)
            }
        }
    }
}
