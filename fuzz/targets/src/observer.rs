//! The observer: whatever sequence of messages passes the hooks, in whatever order and at whatever
//! times, it neither panics nor follows more ports than it may. Eight bytes of input make one
//! message between few ports with few sequence numbers, so that exchanges meet; a message may be
//! damaged in one byte.
use ptp_agent::{
    engine::{
        address::Address,
        observer::{MAX_PORTS, ObservedPacket, Observer},
    },
    stamp::{Stamp, StampSource},
};
use ptp_common::{record::Direction, time::Time};

/// See the module's paragraph.
///
/// # Panics
/// If what must hold does not.
pub fn run(input: &[u8]) {
    let mut observer = Observer::new();
    let mut now = 0i64;
    for recipe in input.chunks_exact(8) {
        let [kind, ports, sequence_id, step, nanos, correction, at, damage] =
            *recipe.first_chunk().expect("of eight");
        now = now.saturating_add(1i64.checked_shl(u32::from(step)).unwrap_or(i64::MIN));
        let mut bytes = message(kind, ports, sequence_id, nanos, correction);
        if let Some(place) = bytes.get_mut(usize::from(at)) {
            *place = damage;
        }
        let time = Time::from_nanos(now.saturating_sub(i64::from(nanos)));
        let stamp = Stamp::new(time, StampSource::TcIngress);
        let packet = ObservedPacket {
            interface: 1,
            direction: if kind & 0x10 == 0 { Direction::Ingress } else { Direction::Egress },
            vlan: None,
            between: (kind & 0x40 == 0).then(|| (host(ports), host(ports >> 4))),
            bytes: &bytes,
            stamp: (kind & 0x20 == 0).then_some(stamp),
            real: Time::from_nanos(now),
        };
        observer.packet(Time::from_nanos(now), &packet);
    }
    observer.advance(Time::from_nanos(now));
    assert!(observer.ports().count() <= MAX_PORTS);
    for port in observer.ports() {
        for spread in [port.offset, port.delay, port.sync_claim, port.delay_claim] {
            assert!(spread.mean.is_finite() && spread.sd().is_finite());
        }
    }
}

/// A well-formed message by offsets (IEEE 1588-2019 13.3 and following), so that the target does not
/// lean on the writer.
/// One of four hosts.
fn host(which: u8) -> Address {
    Address::Socket((std::net::Ipv4Addr::new(192, 0, 2, which & 0x03), 319).into())
}

fn message(kind: u8, ports: u8, sequence_id: u8, nanos: u8, correction: u8) -> [u8; 64] {
    let mut bytes = [0; 64];
    bytes[0] = kind & 0x0f;
    bytes[1] = 2;
    bytes[3] = 64;
    // twoStepFlag and ptpTimescale.
    bytes[6] = (kind & 0x40) >> 5;
    bytes[7] = (kind & 0x80) >> 4;
    let extreme = match correction >> 6 {
        0 => 0,
        1 => i64::MIN + 1,
        2 => i64::MAX - 1,
        _ => i64::from(correction) << 16,
    };
    bytes[8..16].copy_from_slice(&extreme.to_be_bytes());
    bytes[20] = ports & 0x03;
    bytes[31] = sequence_id;
    bytes[33] = ports >> 4;
    // Seconds and nanoseconds, or the port that a Signaling message is for.
    bytes[39] = sequence_id;
    bytes[43] = nanos;
    bytes[44] = (ports >> 2) & 0x03;
    bytes
}
