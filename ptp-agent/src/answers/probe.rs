//! The agent's own trial of its answers in the kernel: a Delay_Req of its own comes in by the interface, and the
//! answer must be seen to go out to the driver, right to the last octet. Whoever has taken the programs off, or
//! put one in front of them, is found out by this before a client is; and a kernel whose helpers do something
//! else than was assumed. The answer goes to the interface's own address, where nobody takes it for anything.

use std::{
    io,
    net::IpAddr,
    os::fd::AsRawFd as _,
    time::{Duration as StdDuration, Instant},
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{MsgFlags, recv},
};
use ptp_common::{
    time::{Duration, Ptp, Time},
    wire::{
        Body, ClockIdentity, CsptpRequest, CsptpResponse, Flags, Header, Message, PortIdentity,
        Timestamp, Tlv, TlvBuilder, TlvType, Tlvs, csptp,
    },
};
use socket2::SockFilter;
use std::os::fd::AsFd as _;

use super::{Programs, native};
use crate::{
    sys::{
        classic::{IF_EQUAL, LOAD_WORD, RETURN},
        packet,
    },
    transport::TransportKind,
};

/// How long an answer may take: it is there when the frame has been let in, unless others keep the processor.
const PATIENCE: StdDuration = StdDuration::from_millis(200);
/// `ETH_P_ALL`.
const ALL: u16 = 3;

/// Outgoing frames only, copied as a whole.
const OUTGOING: [SockFilter; 4] = [
    SockFilter::new(LOAD_WORD, 0, 0, (libc::SKF_AD_OFF + libc::SKF_AD_PKTTYPE) as u32),
    SockFilter::new(IF_EQUAL, 0, 1, libc::PACKET_OUTGOING as u32),
    SockFilter::new(RETURN, 0, 0, u32::MAX),
    SockFilter::new(RETURN, 0, 0, 0),
];

/// Where a trial happens.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// The interface.
    pub ifindex: u32,
    /// What carries the messages.
    pub transport: TransportKind,
    /// The interface's MAC address.
    pub mac: [u8; 6],
    /// Its address, with UDP.
    pub ip: Option<IpAddr>,
    /// Domain of the requests.
    pub domain: u8,
    /// Its `majorSdoId` and `minorSdoId`.
    pub sdo_id: u16,
}

/// What is wrong with the answers.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProbeError {
    /// No frame can be let in here.
    #[error("cannot let a trial in: {0}")]
    Inject(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Nothing came out.
    #[error("the trial's answer did not go out")]
    Silent,
    /// It got no further than the driver.
    #[error(
        "the driver does not take the trial's answer; of a veth the other end needs GRO or an XDP program"
    )]
    Refused,
    /// Something else came out.
    #[error("the trial's answer is wrong: {0}")]
    Wrong(&'static str),
    /// No socket to look with.
    #[error("cannot look at what goes out: {0}")]
    Look(#[from] io::Error),
}

/// Lets one request in, and looks for its answer. Returns the time that is in it.
///
/// # Errors
/// [`ProbeError`].
pub(super) fn probe(
    programs: &mut Programs,
    place: &Place,
    identity: ClockIdentity,
    sequence_id: u16,
) -> Result<Time<Ptp>, ProbeError> {
    let requester = PortIdentity { clock_identity: identity, port_number: 1 };
    let frame = request(place, requester, sequence_id);
    watched(programs, place, &frame, |packet| answer(place, packet, requester, sequence_id))
}

/// The same by XDP in the driver. Nothing that it sends can be seen on its way, so what it makes of the request is looked
/// at first, sending nothing; then the driver must take it.
///
/// # Errors
/// [`ProbeError`].
pub(super) fn probe_native(
    programs: &mut Programs,
    place: &Place,
    identity: ClockIdentity,
    sequence_id: u16,
) -> Result<Time<Ptp>, ProbeError> {
    let requester = PortIdentity { clock_identity: identity, port_number: 1 };
    let frame = request(place, requester, sequence_id);
    let inject = |error| ProbeError::Inject(Box::new(error));
    let mut found = Err(ProbeError::Wrong("it is none"));
    for _ in 0..native::dry_runs() {
        let (verdict, made) = programs.dry_run(place.ifindex, &frame).map_err(inject)?;
        if !native::SENT.contains(&verdict) {
            found = Err(ProbeError::Wrong("it is none"));
            continue;
        }
        let packet = made.get(14..).unwrap_or_default();
        found = answer(place, packet, requester, sequence_id)
            .and_then(|time| time.ok_or(ProbeError::Wrong("it is none")));
        if found.is_ok() {
            break;
        }
    }
    let time = found?;
    let is_taken = programs.live_run(place.ifindex, &frame);
    if is_taken.map_err(|error| ProbeError::Inject(Box::new(error)))? {
        Ok(time)
    } else {
        Err(ProbeError::Refused)
    }
}

/// The same with an exchange of CSPTP, whose second message must tell when the first one left. Returns the time from
/// the request's arrival to then.
///
/// # Errors
/// [`ProbeError`].
pub(super) fn probe_exchange(
    programs: &mut Programs,
    place: &Place,
    identity: ClockIdentity,
    sequence_id: u16,
) -> Result<Duration, ProbeError> {
    let requester = PortIdentity { clock_identity: identity, port_number: 1 };
    let mut header = Header::new(requester, sequence_id);
    (header.sdo_id, header.domain_number) = (csptp::SDO_ID, csptp::DEFAULT_DOMAIN);
    header.flags = Flags::UNICAST;
    let value = CsptpRequest { status: true, alternate_time: false }.value();
    let mut buffer = [0; 16];
    let mut tlvs = TlvBuilder::new(&mut buffer);
    let body = Body::Sync { origin_timestamp: Timestamp::ZERO };
    let mut message = [0; 64];
    let length = tlvs
        .push(Tlv { kind: TlvType::CSPTP_REQUEST, value: &value })
        .and_then(|()| Message { header, body, tlvs: tlvs.finish() }.emit(&mut message))
        .unwrap_or_default();
    let frame = frame_of(place, &message[..length]);
    let mut arrived = None;
    watched(programs, place, &frame, |packet| {
        let Some((message, is_summed)) = inside(place, packet) else { return Ok(None) };
        let Ok(Message { header, body, tlvs }) = Message::parse(message) else { return Ok(None) };
        if header.sdo_id != csptp::SDO_ID || header.sequence_id != sequence_id {
            return Ok(None);
        }
        if !is_summed {
            return Err(ProbeError::Wrong("its checksum"));
        }
        match (body, arrived) {
            (Body::Sync { .. }, _) => {
                arrived = CsptpResponse::find(&tlvs).map(|it| Time::<Ptp>::from(it.ingress));
                Ok(None)
            }
            (Body::FollowUp { precise_origin_timestamp }, Some(arrived)) => {
                Ok(Some(Time::<Ptp>::from(precise_origin_timestamp) - arrived))
            }
            _ => Ok(None),
        }
    })
}

/// Lets a frame in, and shows what goes out until something is found in it.
fn watched<T>(
    programs: &mut Programs,
    place: &Place,
    frame: &[u8],
    mut found: impl FnMut(&[u8]) -> Result<Option<T>, ProbeError>,
) -> Result<T, ProbeError> {
    let socket = packet::tap(place.ifindex, ALL, &OUTGOING)?;
    programs.inject(place.ifindex, frame).map_err(|error| ProbeError::Inject(Box::new(error)))?;
    let begin = Instant::now();
    let mut buffer = [0_u8; 512];
    loop {
        match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
            Ok(length) => {
                if let Some(it) = found(&buffer[..length])? {
                    return Ok(it);
                }
                continue;
            }
            Err(nix::errno::Errno::EAGAIN) => {}
            Err(error) => return Err(ProbeError::Look(error.into())),
        }
        let left = PATIENCE.saturating_sub(begin.elapsed());
        if left.is_zero() {
            return Err(ProbeError::Silent);
        }
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
        let _ = poll(&mut [PollFd::new(socket.as_fd(), PollFlags::POLLIN)], timeout);
    }
}

/// A unicast Delay_Req from the interface to itself.
pub(super) fn request(place: &Place, requester: PortIdentity, sequence_id: u16) -> Vec<u8> {
    let mut header = Header::new(requester, sequence_id);
    header.domain_number = place.domain;
    header.sdo_id = place.sdo_id;
    header.flags |= Flags::UNICAST;
    header.log_message_interval = 0x7f;
    let body = Body::DelayReq { origin_timestamp: Timestamp::ZERO };
    let mut message = [0; 64];
    let length = Message { header, body, tlvs: Tlvs::NONE }.emit(&mut message).unwrap_or_default();
    frame_of(place, &message[..length])
}

/// A message to the event port in a frame from the interface to itself.
fn frame_of(place: &Place, message: &[u8]) -> Vec<u8> {
    let mut frame = [place.mac, place.mac].concat();
    let udp = |extra: usize| {
        let mut udp = Vec::new();
        for half in [319, 319, 8 + message.len() as u16 + extra as u16, 0] {
            udp.extend(half.to_be_bytes());
        }
        udp.extend(message);
        udp.resize(udp.len() + extra, 0);
        udp
    };
    match (place.transport, place.ip) {
        (TransportKind::Udp4, Some(IpAddr::V4(ip))) => {
            let udp = udp(0);
            frame.extend([0x08, 0x00]);
            let mut header = vec![0x45, 0];
            header.extend((20 + udp.len() as u16).to_be_bytes());
            header.extend([0, 0, 0x40, 0, 64, 17, 0, 0]);
            header.extend(ip.octets());
            header.extend(ip.octets());
            let sum = checksum(&header);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            frame.extend(header);
            frame.extend(udp);
        }
        (TransportKind::Udp6, Some(IpAddr::V6(ip))) => {
            let mut udp = udp(2);
            let mut pseudo = [ip.octets(), ip.octets()].concat();
            pseudo.extend((udp.len() as u32).to_be_bytes());
            pseudo.extend([0, 0, 0, 17]);
            pseudo.extend(&udp);
            let sum = checksum(&pseudo);
            udp[6..8].copy_from_slice(&sum.to_be_bytes());
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend((udp.len() as u16).to_be_bytes());
            frame.extend([17, 64]);
            frame.extend(ip.octets());
            frame.extend(ip.octets());
            frame.extend(udp);
        }
        _ => {
            frame.extend([0x88, 0xf7]);
            frame.extend(message);
        }
    }
    frame
}

/// The time in the trial's answer; `None` for another packet. `packet` begins with the network layer.
fn answer(
    place: &Place,
    packet: &[u8],
    requester: PortIdentity,
    sequence_id: u16,
) -> Result<Option<Time<Ptp>>, ProbeError> {
    let Some((message, is_summed)) = inside(place, packet) else { return Ok(None) };
    let Ok(Message { header, body, .. }) = Message::parse(message) else { return Ok(None) };
    let Body::DelayResp { receive_timestamp, requesting_port_identity } = body else {
        return Ok(None);
    };
    if requesting_port_identity != requester || header.sequence_id != sequence_id {
        return Ok(None);
    }
    if !is_summed {
        return Err(ProbeError::Wrong("its checksum"));
    }
    if !header.flags.contains(Flags::UNICAST) || header.domain_number != place.domain {
        return Err(ProbeError::Wrong("its header"));
    }
    Ok(Some(receive_timestamp.into()))
}

/// The message of a packet, and whether the checksum around it is right.
fn inside<'a>(place: &Place, packet: &'a [u8]) -> Option<(&'a [u8], bool)> {
    let (header, is_summed) = match place.transport {
        TransportKind::L2 => (0, true),
        TransportKind::Udp4 => (28, packet.get(..20).is_some_and(|ip| checksum(ip) == 0)),
        TransportKind::Udp6 => (48, is_v6_summed(packet)),
    };
    Some((packet.get(header..)?, is_summed))
}

fn is_v6_summed(packet: &[u8]) -> bool {
    let (Some(addresses), Some(udp)) = (packet.get(8..40), packet.get(40..)) else { return false };
    let length = usize::from(u16::from_be_bytes([packet[4], packet[5]]));
    let Some(udp) = udp.get(..length) else { return false };
    let mut pseudo = addresses.to_vec();
    pseudo.extend((length as u32).to_be_bytes());
    pseudo.extend([0, 0, 0, 17]);
    pseudo.extend(udp);
    checksum(&pseudo) == 0
}

/// The Internet checksum (RFC 1071); 0 over what has a right one in it.
pub(super) fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)])))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
