//! All clients in one process: their sockets, what they say, and what each of them was sent.

use std::{
    io::{IoSlice, IoSliceMut},
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::AsRawFd,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, MultiHeaders, SockaddrIn, recvmmsg, sendmsg,
    setsockopt,
    sockopt::{Ipv4PacketInfo, RcvBufForce, ReceiveTimestampns},
};
use ptp_common::wire::{
    Body, ClockIdentity, Flags, Header, Message, Negotiation, PortIdentity, Timestamp, TlvBuilder,
    Tlvs,
};
use serde_json::{Value, json};
use socket2::{Domain, Protocol, Type};

/// The first address of the clients' network, and how many there are.
const FIRST: u32 = u32::from_be_bytes([10, 64, 0, 0]);
const ADDRESSES: u32 = 1 << 20;
/// Messages that are read at a time.
const AT_ONCE: usize = 64;
/// Longer than anything that is sent to a client.
const LONGEST: usize = 256;
const SECOND_NS: i64 = 1_000_000_000;
/// What comes later than this is late.
const LATE_NS: i64 = 10_000_000;

/// Where a client is.
pub(super) fn address(number: u64) -> Ipv4Addr {
    Ipv4Addr::from_bits(FIRST + 1 + number as u32)
}

fn identity(number: u64) -> PortIdentity {
    let clock_identity = ClockIdentity((number | 1 << 60).to_be_bytes());
    PortIdentity { clock_identity, port_number: 1 }
}

/// A request for Sync once a second, and for answers as often.
pub(super) fn request(number: u64) -> Vec<u8> {
    let mut header = Header::new(identity(number), 1);
    header.flags = Flags::UNICAST;
    let mut buffer = [0; 32];
    let mut tlvs = TlvBuilder::new(&mut buffer);
    for message_type in [0, 9] {
        let said = Negotiation::Request { message_type, log_interval: 0, duration_s: 300 };
        said.push(&mut tlvs).expect("room");
    }
    let target = PortIdentity { clock_identity: ClockIdentity([0xff; 8]), port_number: 0xffff };
    let body = Body::Signaling { target_port_identity: target };
    let mut bytes = [0; 96];
    let length = Message { header, body, tlvs: tlvs.finish() }.emit(&mut bytes).expect("room");
    bytes[..length].to_vec()
}

/// A Delay_Req.
pub(super) fn delay_req(number: u64, sequence_id: u16) -> Vec<u8> {
    let mut header = Header::new(identity(number), sequence_id);
    header.flags = Flags::UNICAST;
    let body = Body::DelayReq { origin_timestamp: Timestamp::ZERO };
    let mut bytes = [0; 64];
    let length = Message { header, body, tlvs: Tlvs::NONE }.emit(&mut bytes);
    bytes[..length.expect("room")].to_vec()
}

/// A socket at all of the clients' addresses.
pub(super) struct Socket(socket2::Socket);

impl Socket {
    /// At this port.
    pub(super) fn new(port: u16) -> Self {
        let socket = socket2::Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP));
        let socket = socket.expect("a socket");
        socket.bind(&SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port).into()).expect("the port");
        let _ = setsockopt(&socket, RcvBufForce, &(256 << 20));
        setsockopt(&socket, Ipv4PacketInfo, &true).expect("addresses");
        setsockopt(&socket, ReceiveTimestampns, &true).expect("stamps");
        socket.set_nonblocking(true).expect("a socket that does not wait");
        Self(socket)
    }

    /// From one of the addresses.
    pub(super) fn send(&self, from: Ipv4Addr, (to, port): (Ipv4Addr, u16), message: &[u8]) {
        let from = libc::in_pktinfo {
            ipi_ifindex: 0,
            ipi_spec_dst: libc::in_addr { s_addr: from.to_bits().to_be() },
            ipi_addr: libc::in_addr { s_addr: 0 },
        };
        let to = SockaddrIn::from(SocketAddrV4::new(to, port));
        let further = [ControlMessage::Ipv4PacketInfo(&from)];
        let parts = [IoSlice::new(message)];
        let _ = sendmsg(self.0.as_raw_fd(), &parts, &further, MsgFlags::empty(), Some(&to));
    }

    /// What is there: the number of the client, when it came (ns), and what. Whether there was anything.
    fn take(&self, mut each: impl FnMut(u64, i64, &[u8])) -> bool {
        let mut buffers = [[0; LONGEST]; AT_ONCE];
        let mut taken = Vec::with_capacity(AT_ONCE);
        {
            let mut parts: Vec<_> =
                buffers.iter_mut().map(|buffer| [IoSliceMut::new(buffer)]).collect();
            let space = nix::cmsg_space!(libc::in_pktinfo, libc::timespec);
            let mut headers = MultiHeaders::<SockaddrIn>::preallocate(AT_ONCE, Some(space));
            let flags = MsgFlags::MSG_DONTWAIT;
            let received =
                recvmmsg(self.0.as_raw_fd(), &mut headers, parts.iter_mut(), flags, None);
            for message in received.into_iter().flatten() {
                let (mut number, mut at) = (u64::MAX, 0);
                for further in message.cmsgs().into_iter().flatten() {
                    match further {
                        ControlMessageOwned::Ipv4PacketInfo(info) => {
                            let to = u32::from_be(info.ipi_addr.s_addr);
                            let place = to.wrapping_sub(FIRST + 1);
                            number = if place < ADDRESSES { place.into() } else { u64::MAX };
                        }
                        ControlMessageOwned::ScmTimestampns(time) => {
                            at = time.tv_sec() * SECOND_NS + time.tv_nsec();
                        }
                        _ => {}
                    }
                }
                taken.push((number, at, message.bytes));
            }
        }
        for (buffer, (number, at, length)) in buffers.iter().zip(&taken) {
            each(*number, *at, &buffer[..*length]);
        }
        !taken.is_empty()
    }
}

/// What one client was sent.
#[derive(Clone, Default)]
struct Client {
    is_granted: bool,
    /// `sequenceId` of the last Sync, and when it came, ns.
    sync: Option<(u16, i64)>,
    /// When each came that counts.
    came: Vec<i64>,
}

/// See the module's paragraph.
pub(super) struct Crowd {
    clients: Mutex<Vec<Client>>,
    /// How far the arrival of Sync was behind what Follow_Up says, ns.
    behind: Mutex<Vec<i64>>,
    len: u64,
    granted: AtomicU64,
    answers: AtomicU64,
    follow_ups: AtomicU64,
    counts: AtomicBool,
    is_over: AtomicBool,
}

impl Crowd {
    /// So many.
    pub(super) fn new(len: u64) -> Self {
        Self {
            // Those by whom the round trip is measured come behind.
            clients: Mutex::new(vec![Client::default(); len as usize + 64]),
            behind: Mutex::default(),
            len,
            granted: AtomicU64::new(0),
            answers: AtomicU64::new(0),
            follow_ups: AtomicU64::new(0),
            counts: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
        }
    }

    /// How many.
    pub(super) const fn len(&self) -> u64 {
        self.len
    }

    /// How many have been granted something.
    pub(super) fn granted(&self) -> u64 {
        self.granted.load(Relaxed)
    }

    /// Whether one has.
    pub(super) fn is_granted(&self, number: u64) -> bool {
        self.clients.lock().expect("no panic")[number as usize].is_granted
    }

    /// Delay_Resp so far.
    pub(super) fn answers(&self) -> u64 {
        self.answers.load(Relaxed)
    }

    /// What comes counts from now on.
    pub(super) fn begin(&self) {
        self.counts.store(true, Relaxed);
    }

    /// And no longer.
    pub(super) fn end(&self) {
        self.counts.store(false, Relaxed);
    }

    /// Ends [`Self::take_all`].
    pub(super) fn stop(&self) {
        self.is_over.store(true, Relaxed);
    }

    /// Takes what comes until [`Self::stop`].
    pub(super) fn take_all(&self, event: &Socket, general: &Socket) {
        while !self.is_over.load(Relaxed) {
            let mut clients = self.clients.lock().expect("no panic");
            let mut behind = self.behind.lock().expect("no panic");
            let counts = self.counts.load(Relaxed);
            let mut take = |number: u64, at, message: &[u8]| {
                if let (Some(client), Some(kind)) =
                    (clients.get_mut(number as usize), message.first())
                {
                    self.one(client, &mut behind, counts, kind & 0xf, at, message);
                }
            };
            let is_busy = event.take(&mut take) | general.take(&mut take);
            drop((clients, behind));
            if !is_busy {
                thread::sleep(Duration::from_micros(200));
            }
        }
    }

    fn one(
        &self,
        client: &mut Client,
        behind: &mut Vec<i64>,
        counts: bool,
        kind: u8,
        at: i64,
        message: &[u8],
    ) {
        let sequence_id = || Some(u16::from_be_bytes([*message.get(30)?, *message.get(31)?]));
        match kind {
            0x0 => {
                client.sync = sequence_id().map(|id| (id, at));
                if counts {
                    client.came.push(at);
                }
            }
            0x8 if counts => {
                self.follow_ups.fetch_add(1, Relaxed);
                let (Some((id, at)), Ok(message)) = (client.sync, Message::parse(message)) else {
                    return;
                };
                let Body::FollowUp { precise_origin_timestamp } = message.body else { return };
                if id == message.header.sequence_id {
                    // Whatever the time scale is, it is whole seconds away.
                    let origin = i64::from(precise_origin_timestamp.nanoseconds());
                    let way = (at - origin).rem_euclid(SECOND_NS);
                    behind.push(if way > SECOND_NS / 2 { way - SECOND_NS } else { way });
                }
            }
            0x9 => {
                self.answers.fetch_add(1, Relaxed);
            }
            0xc if !client.is_granted => {
                client.is_granted = true;
                self.granted.fetch_add(1, Relaxed);
            }
            _ => {}
        }
    }

    /// What was seen in so many seconds.
    pub(super) fn seen(&self, took_s: f64) -> Value {
        let clients = self.clients.lock().expect("no panic");
        let mut behind = self.behind.lock().expect("no panic");
        let (mut syncs, mut late, mut unserved) = (0_u64, 0_u64, 0_u64);
        for client in &clients[..self.len as usize] {
            let Some(first) = client.came.first() else {
                unserved += 1;
                continue;
            };
            // Where each is in the second that begins with the first.
            let places = client.came.iter().map(|at| {
                let place = (at - first).rem_euclid(SECOND_NS);
                if place > SECOND_NS / 2 { place - SECOND_NS } else { place }
            });
            let earliest = places.clone().min().unwrap_or(0);
            syncs += client.came.len() as u64;
            late += places.filter(|place| place - earliest > LATE_NS).count() as u64;
        }
        behind.sort_unstable();
        let of = |part: f64| behind.get((behind.len() as f64 * part) as usize).copied();
        json!({
            "syncs_per_s": (syncs as f64 / took_s).round(),
            "follow_ups_per_s": (self.follow_ups.load(Relaxed) as f64 / took_s).round(),
            "late_share": late as f64 / (syncs as f64).max(1.0), "clients_without": unserved,
            "way_ns": {"p1": of(0.01), "p50": of(0.5), "p99": of(0.99), "n": behind.len()},
        })
    }
}
