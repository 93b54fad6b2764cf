//! Who is on the same network, hears everything, and adds messages of his own: from his own address, or with
//! that of the time transmitter in it.

use std::{
    net::Ipv4Addr,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use bpf_tests::{
    forge::{Party, announce, message, message_with, now, port},
    raw::FrameSocket,
};
use ptp_agent::lab::netns::Namespace;
use ptp_common::wire::{
    Body, Flags, Granted, Header, Management, MessageType, MessageView, Negotiation, PortIdentity,
    Timestamp, Tlv, TlvBuilder, TlvType, management::ManagementId,
};

use crate::{
    GRANDMASTER,
    frame::{forged, forged_to, later},
};

const LOOK: Duration = Duration::from_millis(20);
const EVENT: u16 = 319;
const GENERAL: u16 = 320;

/// Ears and mouth of the injector.
pub(crate) struct Injector {
    party: Party,
    raw: FrameSocket,
    /// Of the agent.
    victim: (Ipv4Addr, [u8; 6]),
}

/// What he does until he is told to end.
pub(crate) type Trick = fn(&Injector, &AtomicBool);

impl Injector {
    pub(crate) fn new(
        namespace: &Namespace,
        address: Ipv4Addr,
        victim: (Ipv4Addr, [u8; 6]),
    ) -> Result<Self, String> {
        let raw = namespace.run(|| FrameSocket::open("eth0"));
        let raw = raw.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        Ok(Self { party: Party::new(namespace, address), raw, victim })
    }

    /// In the time transmitter's name, and from its address.
    fn forge(&self, port: u16, message: &[u8]) {
        let _ = self.raw.send(&forged(GRANDMASTER, port, message));
    }
}

pub(crate) fn nothing(_: &Injector, is_over: &AtomicBool) {
    while !is_over.load(Ordering::Relaxed) {
        thread::sleep(LOOK);
    }
}

/// Does something with each general message of a type until it is over.
fn on_general(
    injector: &Injector,
    is_over: &AtomicBool,
    kind: MessageType,
    mut what: impl FnMut(&[u8], Header),
) {
    while !is_over.load(Ordering::Relaxed) {
        if let Some(bytes) = injector.party.hear_general(Duration::from_millis(100))
            && let Ok(view) = MessageView::new(&bytes)
            && view.message_type() == kind
            && view.header().source_port_identity != port(0x11)
        {
            what(&bytes, view.header());
        }
    }
}

fn next(header: Header) -> Header {
    Header { sequence_id: header.sequence_id.wrapping_add(1), ..header }
}

fn one_step(header: Header) -> Vec<u8> {
    let header = Header { flags: Flags(0), ..next(header) };
    message(header, Body::Sync { origin_timestamp: later(now()) })
}

/// One-step Sync in the parent's name with the next number, a second ahead, each time one was heard.
pub(crate) fn sync_spoofed(injector: &Injector, is_over: &AtomicBool) {
    on_general(injector, is_over, MessageType::FollowUp, |_, header| {
        injector.party.event(&one_step(header));
    });
}

/// The same from the parent's own address.
pub(crate) fn sync_forged(injector: &Injector, is_over: &AtomicBool) {
    on_general(injector, is_over, MessageType::FollowUp, |_, header| {
        injector.forge(EVENT, &one_step(header));
    });
}

/// Sync and Follow_Up as the parent sends them, with the next number and from its address, a second ahead.
pub(crate) fn pair_forged(injector: &Injector, is_over: &AtomicBool) {
    on_general(injector, is_over, MessageType::FollowUp, |_, header| {
        let header = next(header);
        let sync = Header { flags: Flags::TWO_STEP, ..header };
        injector.forge(EVENT, &message(sync, Body::Sync { origin_timestamp: Timestamp::ZERO }));
        let precise_origin_timestamp = later(now());
        injector.forge(GENERAL, &message(header, Body::FollowUp { precise_origin_timestamp }));
    });
}

/// The same, shortly before the next one is due.
pub(crate) fn pair_forged_late(injector: &Injector, is_over: &AtomicBool) {
    on_general(injector, is_over, MessageType::FollowUp, |_, header| {
        thread::sleep(Duration::from_millis(115));
        let header = next(header);
        let sync = Header { flags: Flags::TWO_STEP, ..header };
        injector.forge(EVENT, &message(sync, Body::Sync { origin_timestamp: Timestamp::ZERO }));
        let precise_origin_timestamp = later(now());
        injector.forge(GENERAL, &message(header, Body::FollowUp { precise_origin_timestamp }));
    });
}

/// Follow_Up for the next Sync, a second ahead.
pub(crate) fn follow_up_spoofed(injector: &Injector, is_over: &AtomicBool) {
    on_general(injector, is_over, MessageType::FollowUp, |_, header| {
        let precise_origin_timestamp = later(now());
        injector.party.general(&message(next(header), Body::FollowUp { precise_origin_timestamp }));
    });
}

/// The same from the parent's own address.
pub(crate) fn follow_up_forged(injector: &Injector, is_over: &AtomicBool) {
    on_general(injector, is_over, MessageType::FollowUp, |_, header| {
        let precise_origin_timestamp = later(now());
        let body = Body::FollowUp { precise_origin_timestamp };
        injector.forge(GENERAL, &message(next(header), body));
    });
}

/// Does something with each request: who has been followed, and the request.
fn on_request(
    injector: &Injector,
    is_over: &AtomicBool,
    mut what: impl FnMut(PortIdentity, Header),
) {
    let mut parent = None;
    while !is_over.load(Ordering::Relaxed) {
        if let Some(bytes) = injector.party.hear_event(Duration::from_millis(50))
            && let Ok(view) = MessageView::new(&bytes)
        {
            let header = view.header();
            match (view.message_type(), parent) {
                (MessageType::Sync, _) => parent = Some(header.source_port_identity),
                (MessageType::DelayReq, Some(source)) => what(source, header),
                _ => {}
            }
        }
    }
}

/// Answers to requests before the parent, a second off, and with an interval of weeks.
fn false_answer(source: PortIdentity, header: Header) -> Vec<u8> {
    let answer = Header { log_message_interval: 22, ..Header::new(source, header.sequence_id) };
    let body = Body::DelayResp {
        receive_timestamp: later(now()),
        requesting_port_identity: header.source_port_identity,
    };
    message(answer, body)
}

pub(crate) fn delay_resp_spoofed(injector: &Injector, is_over: &AtomicBool) {
    on_request(injector, is_over, |source, header| {
        injector.party.general(&false_answer(source, header));
    });
}

pub(crate) fn delay_resp_forged(injector: &Injector, is_over: &AtomicBool) {
    on_request(injector, is_over, |source, header| {
        injector.forge(GENERAL, &false_answer(source, header));
    });
}

/// Each Follow_Up again, and each from ten messages ago.
pub(crate) fn sync_replayed(injector: &Injector, is_over: &AtomicBool) {
    let mut past: Vec<Vec<u8>> = Vec::new();
    on_general(injector, is_over, MessageType::FollowUp, |bytes, header| {
        let sync = Header { flags: Flags::TWO_STEP, ..header };
        injector.party.event(&message(sync, Body::Sync { origin_timestamp: Timestamp::ZERO }));
        injector.party.general(bytes);
        past.push(bytes.to_vec());
        if past.len() > 10 {
            injector.party.general(&past.remove(0));
        }
    });
}

/// The parent's Announce with another time scale.
pub(crate) fn announce_flipped(injector: &Injector, is_over: &AtomicBool) {
    on_general(injector, is_over, MessageType::Announce, |bytes, header| {
        let mut copy = bytes.to_vec();
        copy[7] ^= 0x0c;
        copy[30..32].copy_from_slice(&header.sequence_id.wrapping_add(1).to_be_bytes());
        injector.forge(GENERAL, &copy);
    });
}

/// The parent's Announce with an interval of a millisecond.
pub(crate) fn announce_fast(injector: &Injector, is_over: &AtomicBool) {
    on_general(injector, is_over, MessageType::Announce, |bytes, header| {
        let mut copy = bytes.to_vec();
        copy[33] = (-10_i8).cast_unsigned();
        copy[30..32].copy_from_slice(&header.sequence_id.wrapping_add(1).to_be_bytes());
        injector.forge(GENERAL, &copy);
    });
}

/// Two Announces of a better clock that claims an interval of weeks.
pub(crate) fn rogue_twice(injector: &Injector, is_over: &AtomicBool) {
    let rogue = port(0x11);
    for sequence_id in 0..2 {
        let header = Header { log_message_interval: 22, ..Header::new(rogue, sequence_id) };
        injector.party.general(&message(header, announce(rogue.clock_identity, 1)));
        thread::sleep(Duration::from_millis(100));
    }
    nothing(injector, is_over);
}

/// A better clock that does everything that a clock has to do, a second ahead.
pub(crate) fn rogue_master(injector: &Injector, is_over: &AtomicBool) {
    let rogue = port(0x11);
    let mut sequence_id = 0_u16;
    let mut due = Instant::now();
    while !is_over.load(Ordering::Relaxed) {
        if due <= Instant::now() {
            due += Duration::from_millis(125);
            let header =
                |log| Header { log_message_interval: log, ..Header::new(rogue, sequence_id) };
            if sequence_id.is_multiple_of(8) {
                let body = announce(rogue.clock_identity, 1);
                injector.party.general(&message(header(0), body));
            }
            let sync = Body::Sync { origin_timestamp: later(now()) };
            injector.party.event(&message(header(-3), sync));
            sequence_id = sequence_id.wrapping_add(1);
        }
        let left = due.saturating_duration_since(Instant::now()).max(Duration::from_micros(100));
        if let Some(bytes) = injector.party.hear_event(left)
            && let Ok(view) = MessageView::new(&bytes)
            && view.message_type() == MessageType::DelayReq
        {
            let answer = false_answer(rogue, view.header());
            injector.party.general(&answer);
        }
    }
}

/// Invented clocks, worse than the parent, a hundred a second, each twice.
pub(crate) fn many_masters(injector: &Injector, is_over: &AtomicBool) {
    let mut number = 0_u16;
    while !is_over.load(Ordering::Relaxed) {
        let mut source = port(0x20);
        source.clock_identity.0[6..8].copy_from_slice(&number.to_be_bytes());
        for sequence_id in 0..2 {
            let header = Header { log_message_interval: 4, ..Header::new(source, sequence_id) };
            injector.party.general(&message(header, announce(source.clock_identity, 200)));
        }
        number = number.wrapping_add(1);
        thread::sleep(Duration::from_millis(10));
    }
}

/// Ten thousand messages a second that are none of PTP, on its ports.
pub(crate) fn noise(injector: &Injector, is_over: &AtomicBool) {
    flood(is_over, || injector.forge(EVENT, &[0xa5; 44]));
}

/// Ten thousand Sync a second in the parent's name and from its address, which nobody has signed.
pub(crate) fn unsigned_flood(injector: &Injector, is_over: &AtomicBool) {
    let Some(parent) = parent(injector, is_over) else { return };
    let mut sequence_id = 0_u16;
    flood(is_over, || {
        sequence_id = sequence_id.wrapping_add(1);
        let sync = Body::Sync { origin_timestamp: later(now()) };
        injector.forge(EVENT, &message(Header::new(parent, sequence_id), sync));
    });
}

fn parent(injector: &Injector, is_over: &AtomicBool) -> Option<PortIdentity> {
    while !is_over.load(Ordering::Relaxed) {
        if let Some(bytes) = injector.party.hear_event(LOOK)
            && let Ok(view) = MessageView::new(&bytes)
            && view.message_type() == MessageType::Sync
        {
            return Some(view.header().source_port_identity);
        }
    }
    None
}

fn flood(is_over: &AtomicBool, mut send: impl FnMut()) {
    const PER_SECOND: u64 = 10_000;
    const BURST: u64 = 20;
    let begun = Instant::now();
    let mut sent = 0;
    while !is_over.load(Ordering::Relaxed) {
        let due = begun + Duration::from_nanos(sent * 1_000_000_000 / PER_SECOND);
        thread::sleep(due.saturating_duration_since(Instant::now()));
        (0..BURST).for_each(|_| send());
        sent += BURST;
    }
}

/// A copy of the next Sync with a checksum that is wrong, 50 ms early: it reaches the hooks and no socket.
pub(crate) fn ghosts(injector: &Injector, is_over: &AtomicBool) {
    on_general(injector, is_over, MessageType::FollowUp, |_, header| {
        thread::sleep(Duration::from_millis(75));
        let header = Header { flags: Flags::TWO_STEP, ..next(header) };
        let sync = message(header, Body::Sync { origin_timestamp: Timestamp::ZERO });
        let mut frame = forged(GRANDMASTER, EVENT, &sync);
        frame[40..42].copy_from_slice(&[0xde, 0xad]);
        let _ = injector.raw.send(&frame);
    });
}

/// Whatever management can set or command, to everybody, in the parent's name and from its address.
pub(crate) fn management_forged(injector: &Injector, is_over: &AtomicBool) {
    const SET: u8 = 1;
    const COMMAND: u8 = 3;
    const WHAT: [(u8, ManagementId, &[u8]); 14] = [
        (COMMAND, ManagementId::DISABLE_PORT, &[]),
        (COMMAND, ManagementId::INITIALIZE, &[0, 0]),
        (COMMAND, ManagementId::RESET_NON_VOLATILE_STORAGE, &[]),
        (SET, ManagementId::PRIORITY1, &[0, 0]),
        (SET, ManagementId::DOMAIN, &[7, 0]),
        (SET, ManagementId::SLAVE_ONLY, &[0, 0]),
        (SET, ManagementId::LOG_ANNOUNCE_INTERVAL, &[22, 0]),
        (SET, ManagementId::ANNOUNCE_RECEIPT_TIMEOUT, &[2, 0]),
        (SET, ManagementId::LOG_SYNC_INTERVAL, &[22, 0]),
        (SET, ManagementId::TIME, &[0; 10]),
        (SET, ManagementId::UTC_PROPERTIES, &[0, 99, 3, 0]),
        (SET, ManagementId::TIMESCALE_PROPERTIES, &[0, 0xa0]),
        (SET, ManagementId::DELAY_MECHANISM, &[2, 0]),
        (SET, ManagementId::LOG_MIN_PDELAY_REQ_INTERVAL, &[22, 0]),
    ];
    let Some(parent) = parent(injector, is_over) else { return };
    let mut sequence_id = 0_u16;
    while !is_over.load(Ordering::Relaxed) {
        for (action, id, data) in WHAT {
            let value = [&id.0.to_be_bytes(), data].concat();
            let mut room = [0; 32];
            let mut tlvs = TlvBuilder::new(&mut room);
            let _ = tlvs.push(Tlv { kind: TlvType::MANAGEMENT, value: &value });
            let body = Body::Management(Management {
                target_port_identity: PortIdentity::ALL,
                starting_boundary_hops: 1,
                boundary_hops: 1,
                action,
            });
            let header = Header { log_message_interval: 0x7f, ..Header::new(parent, sequence_id) };
            injector.forge(GENERAL, &message_with(header, body, tlvs.finish()));
            sequence_id = sequence_id.wrapping_add(1);
        }
        thread::sleep(LOOK);
    }
}

/// Ten thousand times a second to a client that asks for unicast messages, from its server's address and in its name:
/// what was granted is denied, for a second, for ever, once in weeks, a thousand times a second, or cancelled.
pub(crate) fn grants_forged(injector: &Injector, is_over: &AtomicBool) {
    let Some(parent) = parent(injector, is_over) else { return };
    let mut sequence_id = 0_u16;
    flood(is_over, || {
        let number = usize::from(sequence_id);
        let message_type = Granted::ALL[number % 3].message_type() as u8;
        let grant = |log_interval, duration_s| Negotiation::Grant {
            message_type,
            log_interval,
            duration_s,
            invites_renewal: true,
        };
        let what = match number / 3 % 6 {
            0 => grant(0, 0),
            1 => grant(0, 1),
            2 => grant(22, u32::MAX),
            3 => grant(-10, u32::MAX),
            4 => Negotiation::Cancel { message_type, flags: 2 },
            _ => Negotiation::Acknowledge { message_type, flags: 1 },
        };
        let mut room = [0; 32];
        let mut tlvs = TlvBuilder::new(&mut room);
        let _ = what.push(&mut tlvs);
        let header = Header {
            flags: Flags::UNICAST,
            log_message_interval: 0x7f,
            ..Header::new(parent, sequence_id)
        };
        let body = Body::Signaling { target_port_identity: PortIdentity::ALL };
        let signaling = message_with(header, body, tlvs.finish());
        let _ = injector.raw.send(&forged_to(injector.victim, GRANDMASTER, GENERAL, &signaling));
        sequence_id = sequence_id.wrapping_add(1);
    });
}
