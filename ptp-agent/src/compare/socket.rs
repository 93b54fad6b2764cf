//! SO_TIMESTAMPING, the stamps that the kernel itself offers: on copies of the packets of an
//! interface, whichever daemon they belong to, and on messages that are sent from here.
//!
//! No socket here is ever waited for. A packet that somebody waits for wakes that somebody up, on the
//! processor that is just busy with the packet; these sockets are looked into from time to time.

use std::{
    collections::VecDeque,
    io::{self, IoSliceMut},
    net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6},
    os::fd::AsRawFd,
};

use nix::sys::socket::{
    ControlMessageOwned, LinkAddr, MsgFlags, TimestampingFlag, recvmsg, setsockopt, sockopt,
};
use ptp_common::{
    classify::{
        ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_PTP, PORT_EVENT, Protocol as Of,
        classify_protocol,
    },
    ntp::{self, Mode, NtpPacket},
    record::Direction,
    wire::{ClockIdentity, MessageKey, MessageType, PortIdentity},
};
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, SockAddr, SockFilter, Socket, Type};

use super::{join::Sighting, point::Point};
use crate::{
    agent::prime::Throwaway,
    capture::ClockRelation,
    sys::{
        classic::{
            AND, IF_BITS, IF_EQUAL, IF_GREATER, LOAD_BYTE, LOAD_HALF, LOAD_HALF_INDEXED,
            LOAD_INDEX_IHL, RETURN,
        },
        packet,
    },
    transport::{TransportKind, driver_stamp::nanos},
};

/// `ETH_P_ALL`.
const ETHERTYPE_ALL: u16 = 3;
const ETHERNET_HEADER: usize = 14;
/// The longest packet of which the beginning matters here.
const BUFFER: usize = 512;
/// For the packets of the time between two looks, at a hundred thousand per second.
const RECEIVE_BUFFER: usize = 4 << 20;
/// Own messages whose transmit stamps may be outstanding.
const WAITING: usize = 64;

/// `PACKET_OUTGOING` of linux/if_packet.h.
const PACKET_OUTGOING: u32 = 4;
/// `SKF_AD_OFF` of linux/filter.h, with `SKF_AD_PROTOCOL` 0 and `SKF_AD_PKTTYPE` 4 behind it.
const ANCILLARY: u32 = 0xffff_f000;

/// Which of the packets that a socket is offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Offered {
    All,
    Outgoing,
    Incoming,
}

/// How a filter of 20 instructions behind it begins, the last of which refuses the packet. Jumps are counted in
/// instructions to skip.
fn in_direction(offered: Offered) -> Vec<SockFilter> {
    let (outgoing, other) = match offered {
        Offered::All => return Vec::new(),
        Offered::Outgoing => (0, 19),
        Offered::Incoming => (19, 0),
    };
    vec![
        SockFilter::new(LOAD_BYTE, 0, 0, ANCILLARY + 4),
        SockFilter::new(IF_EQUAL, outgoing, other, PACKET_OUTGOING),
    ]
}

/// Event messages in packets that begin with the network header.
fn event_filter(offered: Offered) -> Vec<SockFilter> {
    let mut program = in_direction(offered);
    let mut emit = |code, then, otherwise, k| {
        program.push(SockFilter::new(code, then, otherwise, k));
    };
    emit(LOAD_HALF, 0, 0, ANCILLARY); // 0
    emit(IF_EQUAL, 2, 0, ETHERTYPE_PTP.into());
    emit(IF_EQUAL, 4, 0, ETHERTYPE_IPV4.into());
    emit(IF_EQUAL, 10, 15, ETHERTYPE_IPV6.into());
    // Ethernet: event messages have types below 8.
    emit(LOAD_BYTE, 0, 0, 0); // 4
    emit(AND, 0, 0, 0x0f);
    emit(IF_GREATER, 12, 11, 7);
    // IPv4: UDP, not a later fragment, destination port.
    emit(LOAD_BYTE, 0, 0, 9); // 7
    emit(IF_EQUAL, 0, 10, 17);
    emit(LOAD_HALF, 0, 0, 6);
    emit(IF_BITS, 8, 0, 0x1fff);
    emit(LOAD_INDEX_IHL, 0, 0, 0);
    emit(LOAD_HALF_INDEXED, 0, 0, 2);
    emit(IF_EQUAL, 4, 5, PORT_EVENT.into());
    // IPv6: UDP, destination port.
    emit(LOAD_BYTE, 0, 0, 6); // 14
    emit(IF_EQUAL, 0, 3, 17);
    emit(LOAD_HALF, 0, 0, 42);
    emit(IF_EQUAL, 0, 1, PORT_EVENT.into());
    emit(RETURN, 0, 0, 0xffff); // 18
    emit(RETURN, 0, 0, 0);
    program
}

/// Packets of NTP, requests and answers, that begin with the network header.
fn ntp_filter(offered: Offered) -> Vec<SockFilter> {
    let port = u32::from(ntp::PORT);
    let mut program = in_direction(offered);
    let mut emit = |code, then, otherwise, k| {
        program.push(SockFilter::new(code, then, otherwise, k));
    };
    emit(LOAD_HALF, 0, 0, ANCILLARY); // 0
    emit(IF_EQUAL, 1, 0, ETHERTYPE_IPV4.into());
    emit(IF_EQUAL, 9, 16, ETHERTYPE_IPV6.into());
    // IPv4: UDP, not a later fragment, source or destination port.
    emit(LOAD_BYTE, 0, 0, 9); // 3
    emit(IF_EQUAL, 0, 14, 17);
    emit(LOAD_HALF, 0, 0, 6);
    emit(IF_BITS, 12, 0, 0x1fff);
    emit(LOAD_INDEX_IHL, 0, 0, 0);
    emit(LOAD_HALF_INDEXED, 0, 0, 0);
    emit(IF_EQUAL, 8, 0, port);
    emit(LOAD_HALF_INDEXED, 0, 0, 2);
    emit(IF_EQUAL, 6, 7, port);
    // IPv6: the same without options.
    emit(LOAD_BYTE, 0, 0, 6); // 12
    emit(IF_EQUAL, 0, 5, 17);
    emit(LOAD_HALF, 0, 0, 40);
    emit(IF_EQUAL, 2, 0, port);
    emit(LOAD_HALF, 0, 0, 42);
    emit(IF_EQUAL, 0, 1, port);
    emit(RETURN, 0, 0, 0xffff); // 18
    emit(RETURN, 0, 0, 0);
    program
}

/// What tells the packets of a protocol apart: the key of a message of PTP, and for one of NTP a key of the same form
/// that is made of its times, which no two have alike.
pub(super) fn key_of(protocol: Of, message: &[u8]) -> Option<MessageKey> {
    if protocol == Of::Ptp {
        return MessageKey::from_prefix(message).ok();
    }
    let (packet, _) = NtpPacket::parse(message).ok()?;
    let message_type = match packet.mode {
        Mode::Client => MessageType::DelayReq,
        Mode::Server => MessageType::Sync,
        Mode::Other(_) => return None,
    };
    let named =
        packet.transmit.0 ^ packet.origin.0.rotate_left(17) ^ packet.receive.0.rotate_left(31);
    Some(MessageKey {
        domain_number: 0,
        sdo_id: 0,
        message_type,
        source_port_identity: PortIdentity {
            clock_identity: ClockIdentity(named.to_be_bytes()),
            port_number: packet.receive.0 as u16,
        },
        sequence_id: packet.origin.0 as u16,
    })
}

/// The stamps that came with a packet or with a transmit stamp's notice.
#[derive(Clone, Copy, Debug, Default)]
struct Stamps {
    software: Option<i64>,
    hardware: Option<i64>,
    id: Option<u32>,
}

impl Stamps {
    fn read(messages: impl Iterator<Item = ControlMessageOwned>) -> Self {
        let mut stamps = Self::default();
        for message in messages {
            match message {
                ControlMessageOwned::ScmTimestampsns(times) => {
                    stamps.software = nanos(times.system);
                    stamps.hardware = nanos(times.hw_raw);
                }
                ControlMessageOwned::Ipv4RecvErr(error, _) => stamps.id = Some(error.ee_data),
                ControlMessageOwned::Ipv6RecvErr(error, _) => stamps.id = Some(error.ee_data),
                // PACKET_TX_TIMESTAMP, which carries the same `sock_extended_err`.
                ControlMessageOwned::Unknown(message)
                    if message.cmsg_header.cmsg_level == libc::SOL_PACKET =>
                {
                    let data = message.data_bytes.get(12..16).and_then(|b| b.first_chunk());
                    stamps.id = data.copied().map(u32::from_ne_bytes);
                }
                _ => {}
            }
        }
        stamps
    }
}

/// A stamp of the stack, CLOCK_REALTIME, on CLOCK_MONOTONIC.
fn on_monotonic(real_ns: i64, relation: &ClockRelation) -> i64 {
    real_ns.saturating_sub(relation.real_minus_mono.as_nanos())
}

/// Copies of the event messages of an interface, with the kernel's stamps.
#[derive(Debug)]
pub(super) struct Copies {
    sockets: Vec<Socket>,
    protocol: Of,
    direction: Direction,
}

impl Copies {
    /// Copies of what is received. They are made behind TC ingress, so they delay no stamp.
    ///
    /// # Errors
    /// What the kernel reports; EPERM without CAP_NET_RAW.
    pub(super) fn received(ifindex: u32, protocol: Of) -> io::Result<Self> {
        let sockets = [ETHERTYPE_PTP, ETHERTYPE_IPV4, ETHERTYPE_IPV6]
            .iter()
            .map(|ethertype| open_tap(ifindex, *ethertype, Offered::All, protocol))
            .collect::<io::Result<_>>()?;
        Ok(Self { sockets, protocol, direction: Direction::Ingress })
    }

    /// Copies of what is received, made before TC ingress, whose stamps they delay. For the ports of
    /// bridges and the like, which take packets away before ordinary sockets see them.
    ///
    /// # Errors
    /// As [`Copies::received`].
    pub(super) fn received_early(ifindex: u32, protocol: Of) -> io::Result<Self> {
        let socket = open_tap(ifindex, ETHERTYPE_ALL, Offered::Incoming, protocol)?;
        Ok(Self { sockets: vec![socket], protocol, direction: Direction::Ingress })
    }

    /// Copies of what is sent, made between TC egress and `net_dev_start_xmit`; making one delays the
    /// packet by one to four microseconds, more on a cold path.
    ///
    /// # Errors
    /// As [`Copies::received`].
    pub(super) fn sent(ifindex: u32, protocol: Of) -> io::Result<Self> {
        // Only sockets for all protocols are given outgoing packets.
        let socket = open_tap(ifindex, ETHERTYPE_ALL, Offered::Outgoing, protocol)?;
        Ok(Self { sockets: vec![socket], protocol, direction: Direction::Egress })
    }

    /// Reads all that has come.
    pub(super) fn drain(&self, relation: &ClockRelation, mut each: impl FnMut(Sighting)) {
        let (software, hardware) = match self.direction {
            Direction::Ingress => (Point::RxSoftware, Some(Point::RxHardware)),
            Direction::Egress => (Point::OutgoingCopy, None),
        };
        for socket in &self.sockets {
            let mut frame = [0; ETHERNET_HEADER + BUFFER];
            while let Ok((length, ethertype, stamps)) = receive_copy(socket, &mut frame) {
                frame[12..ETHERNET_HEADER].copy_from_slice(&ethertype.to_be_bytes());
                let frame = &frame[..ETHERNET_HEADER + length];
                let Some(key) = classify_protocol(frame, self.protocol)
                    .ok()
                    .and_then(|location| frame.get(location.ptp_offset..))
                    .and_then(|message| key_of(self.protocol, message))
                else {
                    continue;
                };
                if let Some(real_ns) = stamps.software {
                    each(Sighting { key, point: software, ns: on_monotonic(real_ns, relation) });
                }
                if let (Some(ns), Some(point)) = (stamps.hardware, hardware) {
                    each(Sighting { key, point, ns });
                }
            }
        }
    }
}

fn open_tap(ifindex: u32, ethertype: u16, offered: Offered, protocol: Of) -> io::Result<Socket> {
    let filter = match protocol {
        Of::Ptp => event_filter(offered),
        Of::Ntp => ntp_filter(offered),
    };
    let socket = packet::tap(ifindex, ethertype, &filter)?;
    // Only root gets all of it, and less does for ordinary traffic.
    let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
    setsockopt(
        &socket,
        sockopt::Timestamping,
        &(TimestampingFlag::SOF_TIMESTAMPING_RX_SOFTWARE
            | TimestampingFlag::SOF_TIMESTAMPING_SOFTWARE
            | TimestampingFlag::SOF_TIMESTAMPING_RX_HARDWARE
            | TimestampingFlag::SOF_TIMESTAMPING_RAW_HARDWARE),
    )?;
    Ok(socket)
}

/// One copy into `frame`, behind room for an Ethernet header: its length, EtherType and stamps.
fn receive_copy(
    socket: &Socket,
    frame: &mut [u8; ETHERNET_HEADER + BUFFER],
) -> io::Result<(usize, u16, Stamps)> {
    let mut parts = [IoSliceMut::new(&mut frame[ETHERNET_HEADER..])];
    let mut space = nix::cmsg_space!([u8; 256]);
    let received = recvmsg::<LinkAddr>(
        socket.as_raw_fd(),
        &mut parts,
        Some(&mut space),
        MsgFlags::MSG_DONTWAIT,
    )?;
    let ethertype = received.address.map_or(0, |from| u16::from_be(from.protocol()));
    Ok((received.bytes, ethertype, Stamps::read(received.cmsgs()?)))
}

/// Sends event messages and gets the driver's stamps of them.
#[derive(Debug)]
pub(super) struct Sender {
    socket: Socket,
    ifindex: u32,
    to: Destination,
    /// The kernel's count of messages sent, which is in each stamp's notice.
    next_id: u32,
    waiting: VecDeque<(u32, MessageKey)>,
    primer: Option<Throwaway>,
}

#[derive(Debug)]
enum Destination {
    Udp(SockAddr),
    Ethernet([u8; 6]),
}

impl Sender {
    /// Opens a socket that sends to the primary multicast address of the transport. It has no PTP
    /// port, so it gets along with any daemon. `listen` joins the groups, so that the NIC lets
    /// messages pass.
    ///
    /// # Errors
    /// What was attempted, and what the kernel reports.
    pub(super) fn open(
        interface: &str,
        ifindex: u32,
        kind: TransportKind,
    ) -> Result<Self, (&'static str, io::Error)> {
        let step = |attempt| move |error| (attempt, error);
        const GROUP_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 1, 129);
        const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff0e, 0, 0, 0, 0, 0, 0, 0x181);
        const GROUP_MAC: [u8; 6] = [0x01, 0x1b, 0x19, 0x00, 0x00, 0x00];
        let open = |domain| -> io::Result<Socket> {
            let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
            socket.set_nonblocking(true)?;
            socket.bind_device(Some(interface.as_bytes()))?;
            Ok(socket)
        };
        let (socket, to) = match kind {
            TransportKind::L2 => {
                let socket =
                    packet::open(ifindex, &[GROUP_MAC]).map_err(step("open a packet socket"))?;
                (socket, Destination::Ethernet(GROUP_MAC))
            }
            TransportKind::Udp4 => {
                let socket = open(Domain::IPV4).map_err(step("open a UDP socket"))?;
                let index = InterfaceIndexOrAddress::Index(ifindex);
                socket
                    .set_multicast_loop_v4(false)
                    .and_then(|()| socket.set_multicast_ttl_v4(1))
                    .and_then(|()| socket.join_multicast_v4_n(&GROUP_V4, &index))
                    .map_err(step("join the PTP multicast group"))?;
                (socket, Destination::Udp(SocketAddrV4::new(GROUP_V4, PORT_EVENT).into()))
            }
            TransportKind::Udp6 => {
                let socket = open(Domain::IPV6).map_err(step("open a UDP socket"))?;
                socket
                    .set_multicast_loop_v6(false)
                    .and_then(|()| socket.set_multicast_hops_v6(1))
                    .and_then(|()| socket.set_multicast_if_v6(ifindex))
                    .and_then(|()| socket.join_multicast_v6(&GROUP_V6, ifindex))
                    .map_err(step("join the PTP multicast group"))?;
                let to = SocketAddrV6::new(GROUP_V6, PORT_EVENT, 0, ifindex);
                (socket, Destination::Udp(to.into()))
            }
        };
        let primer = Throwaway::open(interface);
        let sender = Self { socket, ifindex, to, next_id: 0, waiting: VecDeque::new(), primer };
        sender.ask_for_stamps(true).map_err(step("ask for transmit timestamps"))?;
        Ok(sender)
    }

    /// Asks for stamps, numbered from zero; `numbered` false stops the numbers.
    fn ask_for_stamps(&self, numbered: bool) -> io::Result<()> {
        // Without OPT_TX_SWHW a hardware stamp comes instead of the software stamp, where the
        // driver can do both.
        let both = TimestampingFlag::from_bits_retain(libc::SOF_TIMESTAMPING_OPT_TX_SWHW);
        let mut flags = TimestampingFlag::SOF_TIMESTAMPING_TX_SOFTWARE
            | TimestampingFlag::SOF_TIMESTAMPING_SOFTWARE
            | TimestampingFlag::SOF_TIMESTAMPING_TX_HARDWARE
            | TimestampingFlag::SOF_TIMESTAMPING_RAW_HARDWARE
            | TimestampingFlag::SOF_TIMESTAMPING_OPT_TSONLY
            | both;
        if numbered {
            flags |= TimestampingFlag::SOF_TIMESTAMPING_OPT_ID;
        }
        Ok(setsockopt(&self.socket, sockopt::Timestamping, &flags)?)
    }

    /// Whether [`Sender::send`] can prime: the interface has a MAC address.
    pub(super) const fn can_prime(&self) -> bool {
        self.primer.is_some()
    }

    /// Sends an event message; with `prime` a throwaway frame right before it.
    ///
    /// # Errors
    /// What the kernel reports.
    pub(super) fn send(&mut self, key: MessageKey, message: &[u8], prime: bool) -> io::Result<()> {
        if prime && let Some(primer) = &self.primer {
            primer.send();
        }
        let sent = match &self.to {
            Destination::Udp(to) => self.socket.send_to(message, to).map(drop),
            Destination::Ethernet(to) => {
                packet::send(&self.socket, self.ifindex, *to, ETHERTYPE_PTP, message)
            }
        };
        if let Err(error) = sent {
            // Whether the kernel has counted it is unknown: begin again.
            self.waiting.clear();
            self.next_id = 0;
            self.ask_for_stamps(false)?;
            self.ask_for_stamps(true)?;
            return Err(error);
        }
        if self.waiting.len() == WAITING {
            self.waiting.pop_front();
        }
        self.waiting.push_back((self.next_id, key));
        self.next_id = self.next_id.wrapping_add(1);
        Ok(())
    }

    /// Reads all stamps that have come, and throws away what was received.
    pub(super) fn drain(&mut self, relation: &ClockRelation, mut each: impl FnMut(Sighting)) {
        while let Ok(stamps) = receive_notice(&self.socket) {
            let known = self.waiting.iter().find(|(id, _)| stamps.id == Some(*id));
            let Some(&(_, key)) = known else { continue };
            if let Some(real_ns) = stamps.software {
                let ns = on_monotonic(real_ns, relation);
                each(Sighting { key, point: Point::TxSoftware, ns });
            }
            if let Some(ns) = stamps.hardware {
                each(Sighting { key, point: Point::TxHardware, ns });
            }
        }
        let mut buffer = [0; 1];
        let discard = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC;
        while nix::sys::socket::recv(self.socket.as_raw_fd(), &mut buffer, discard).is_ok() {}
    }
}

fn receive_notice(socket: &Socket) -> io::Result<Stamps> {
    let mut buffer = [0; 1];
    let mut parts = [IoSliceMut::new(&mut buffer)];
    let mut space = nix::cmsg_space!([u8; 512]);
    let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
    let received = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut space), flags)?;
    Ok(Stamps::read(received.cmsgs()?))
}
