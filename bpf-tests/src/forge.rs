//! A party on the network that says what it is told to: messages of any content over UDP/IPv4, ears
//! to answer or repeat what others say, and a grandmaster that does one-step Sync, which ptp4l does
//! with hardware stamps only.

use std::{
    io,
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use ptp_agent::lab::netns::Namespace;
use ptp_common::wire::{
    Announce, Body, ClockAccuracy, ClockIdentity, ClockQuality, Header, Message, MessageView,
    PortIdentity, TimeSource, Timestamp, Tlvs,
};
use socket2::{Domain, Protocol, Socket, Type};

const EVENT: u16 = 319;
const GENERAL: u16 = 320;
const PRIMARY: Ipv4Addr = Ipv4Addr::new(224, 0, 1, 129);
const PEER: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 107);

/// The time of the host's clock, which all namespaces share.
pub fn now() -> Timestamp {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::new(now.as_secs(), now.subsec_nanos()).unwrap_or_default()
}

/// The bytes of a message.
///
/// # Panics
/// Never: it fits.
pub fn message(header: Header, body: Body) -> Vec<u8> {
    message_with(header, body, Tlvs::NONE)
}

/// The same with TLVs behind it.
///
/// # Panics
/// If they are longer than any that somebody forges here: 128 octets with the message.
pub fn message_with(header: Header, body: Body, tlvs: Tlvs<'_>) -> Vec<u8> {
    let mut bytes = vec![0; 128];
    let length = Message { header, body, tlvs }.emit(&mut bytes).expect("room");
    bytes.truncate(length);
    bytes
}

/// Port 1 of a clock made of one byte.
pub const fn port(byte: u8) -> PortIdentity {
    PortIdentity { clock_identity: ClockIdentity([byte; 8]), port_number: 1 }
}

/// What a grandmaster of some priority announces.
pub const fn announce(identity: ClockIdentity, priority1: u8) -> Body {
    Body::Announce(Announce {
        origin_timestamp: Timestamp::ZERO,
        current_utc_offset: 37,
        grandmaster_priority1: priority1,
        grandmaster_clock_quality: ClockQuality {
            clock_class: 248,
            clock_accuracy: ClockAccuracy::UNKNOWN,
            offset_scaled_log_variance: 0xffff,
        },
        grandmaster_priority2: 128,
        grandmaster_identity: identity,
        steps_removed: 0,
        time_source: TimeSource::INTERNAL_OSCILLATOR,
    })
}

/// Sockets on both PTP ports.
#[derive(Debug)]
pub struct Party {
    event: UdpSocket,
    general: UdpSocket,
}

impl Party {
    /// Joins the network of the namespace in which `address` is.
    ///
    /// # Panics
    /// If there is no such network.
    pub fn new(namespace: &Namespace, address: Ipv4Addr) -> Self {
        let open = |number| {
            socket(address, number).unwrap_or_else(|error| panic!("{address}:{number}: {error}"))
        };
        namespace
            .run(|| Self { event: open(EVENT), general: open(GENERAL) })
            .expect("the namespace exists")
    }

    fn to(socket: &UdpSocket, group: Ipv4Addr, number: u16, bytes: &[u8]) {
        // A full send buffer, in a flood, loses what it would have lost anyway.
        let _ = socket.send_to(bytes, SocketAddrV4::new(group, number));
    }

    /// Sends to the event port.
    pub fn event(&self, bytes: &[u8]) {
        Self::to(&self.event, PRIMARY, EVENT, bytes);
    }

    /// Sends to the event port of one host alone.
    pub fn event_to(&self, host: Ipv4Addr, bytes: &[u8]) {
        Self::to(&self.event, host, EVENT, bytes);
    }

    /// Sends to the general port.
    pub fn general(&self, bytes: &[u8]) {
        Self::to(&self.general, PRIMARY, GENERAL, bytes);
    }

    /// Sends to the event port of the peer delay group.
    pub fn peer_event(&self, bytes: &[u8]) {
        Self::to(&self.event, PEER, EVENT, bytes);
    }

    /// Sends to the general port of the peer delay group.
    pub fn peer_general(&self, bytes: &[u8]) {
        Self::to(&self.general, PEER, GENERAL, bytes);
    }

    /// The next message on the event port.
    pub fn hear_event(&self, patience: Duration) -> Option<Vec<u8>> {
        hear(&self.event, patience)
    }

    /// The next message on the general port.
    pub fn hear_general(&self, patience: Duration) -> Option<Vec<u8>> {
        hear(&self.general, patience)
    }
}

fn hear(socket: &UdpSocket, patience: Duration) -> Option<Vec<u8>> {
    let mut bytes = vec![0; 2048];
    socket.set_read_timeout(Some(patience)).ok()?;
    let (length, _) = socket.recv_from(&mut bytes).ok()?;
    bytes.truncate(length);
    Some(bytes)
}

fn socket(address: Ipv4Addr, number: u16) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.bind(&SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, number).into())?;
    socket.set_multicast_loop_v4(false)?;
    socket.set_multicast_if_v4(&address)?;
    socket.join_multicast_v4(&PRIMARY, &address)?;
    socket.join_multicast_v4(&PEER, &address)?;
    Ok(socket.into())
}

/// A grandmaster with one-step Sync, 16 per second, whose stamps are those of a user-space program.
/// Ends when dropped.
#[derive(Debug)]
pub struct OneStep {
    end: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl OneStep {
    /// Starts it where `address` is.
    pub fn start(namespace: &Namespace, address: Ipv4Addr) -> Self {
        let party = Party::new(namespace, address);
        let end = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&end);
        let thread = thread::spawn(move || serve(&party, &ended));
        Self { end, thread: Some(thread) }
    }
}

impl Drop for OneStep {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(party: &Party, ended: &AtomicBool) {
    const INTERVAL: Duration = Duration::from_micros(62_500);
    let source = port(0x42);
    let header = |sequence_id, log_message_interval| Header {
        log_message_interval,
        ..Header::new(source, sequence_id)
    };
    let mut next = Instant::now();
    let mut sequence_id = 0_u16;
    while !ended.load(Ordering::Relaxed) {
        let left = next.saturating_duration_since(Instant::now());
        if left < Duration::from_micros(1) {
            next += INTERVAL;
            if sequence_id.is_multiple_of(4) {
                let body = announce(source.clock_identity, 100);
                party.general(&message(header(sequence_id / 4, -2), body));
            }
            let header = header(sequence_id, -4);
            party.event(&message(header, Body::Sync { origin_timestamp: now() }));
            sequence_id = sequence_id.wrapping_add(1);
        } else if let Some(bytes) = party.hear_event(left) {
            let receive_timestamp = now();
            let Ok(request) = MessageView::new(&bytes) else { continue };
            if let Ok(Body::DelayReq { .. }) = request.body() {
                let asked = request.header();
                let body = Body::DelayResp {
                    receive_timestamp,
                    requesting_port_identity: asked.source_port_identity,
                };
                party.general(&message(header(asked.sequence_id, -4), body));
            }
        }
    }
}
