//! What another program of this host sends by an interface: copies of its PTP messages on their way out, each with the
//! stack's stamp. A filter in the kernel keeps away all else, and in the end the answers of both, which are many.

use std::{
    io::{self, IoSliceMut},
    os::fd::AsRawFd as _,
};

use nix::sys::socket::{
    ControlMessageOwned, LinkAddr, MsgFlags, recvmsg, setsockopt, sockopt::ReceiveTimestampns,
};
use ptp_common::{
    classify::{
        ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_PTP, Network, PORT_EVENT, PORT_GENERAL, classify,
    },
    time::{Real, Time},
};
use socket2::{SockFilter, Socket};

use crate::{
    sys::{
        classic::{AND, IF_EQUAL, JUMP, LOAD_BYTE, LOAD_HALF, LOAD_WORD, RETURN},
        packet,
    },
    transport::{MAX_MESSAGE, TransportKind, driver_stamp},
};

/// `ETH_P_ALL`.
const ALL: u16 = 3;
const ETHERNET_HEADER: usize = 14;
/// Messages in one look: whoever floods does not keep the loop.
const MOST: usize = 4096;

/// Where the filter below ends.
const TAKE: u8 = 23;
const LEAVE: u8 = 24;
/// Of Delay_Resp.
const DELAY_RESP: u32 = 9;

/// A listener on one interface.
#[derive(Debug)]
pub(super) struct Tap {
    socket: Socket,
    ifindex: u32,
    skips_answers: bool,
}

impl Tap {
    /// Listens.
    ///
    /// # Errors
    /// What the kernel reports; EPERM without CAP_NET_RAW.
    pub(super) fn open(ifindex: u32) -> io::Result<Self> {
        let socket = packet::tap(ifindex, ALL, &filter(false))?;
        setsockopt(&socket, ReceiveTimestampns, &true)?;
        Ok(Self { socket, ifindex, skips_answers: false })
    }

    /// Where.
    pub(super) const fn ifindex(&self) -> u32 {
        self.ifindex
    }

    /// Whether Delay_Resp are of interest any more.
    pub(super) fn skip_answers(&mut self, skip: bool) {
        if self.skips_answers != skip && self.socket.attach_filter(&filter(skip)).is_ok() {
            self.skips_answers = skip;
        }
    }

    /// All that has left: when, CLOCK_REALTIME, over what, and the message.
    pub(super) fn drain(&mut self, mut each: impl FnMut(Option<Time<Real>>, TransportKind, &[u8])) {
        let mut buffer = [0_u8; MAX_MESSAGE];
        for _ in 0..MOST {
            let Ok((length, stamp)) = self.receive(&mut buffer) else { return };
            let end = ETHERNET_HEADER + length;
            let Ok(location) = classify(&buffer[..end]) else { continue };
            let transport = match location.network {
                Network::Ethernet => TransportKind::L2,
                Network::Ipv4 => TransportKind::Udp4,
                Network::Ipv6 => TransportKind::Udp6,
            };
            each(stamp, transport, &buffer[location.ptp_offset..end]);
        }
    }

    /// One frame behind a header of which only the type is filled in.
    fn receive(&self, buffer: &mut [u8; MAX_MESSAGE]) -> nix::Result<(usize, Option<Time<Real>>)> {
        let mut parts = [IoSliceMut::new(&mut buffer[ETHERNET_HEADER..])];
        let mut space = nix::cmsg_space!([u8; 64]);
        let fd = self.socket.as_raw_fd();
        let received =
            recvmsg::<LinkAddr>(fd, &mut parts, Some(&mut space), MsgFlags::MSG_DONTWAIT)?;
        let stamp = received.cmsgs()?.find_map(|message| match message {
            ControlMessageOwned::ScmTimestampns(stamp) => driver_stamp::time(stamp),
            _ => None,
        });
        let length = received.bytes;
        // As it lies in memory, big endian.
        let kind = received.address.map_or(0, |address| address.protocol());
        buffer[12..ETHERNET_HEADER].copy_from_slice(&kind.to_ne_bytes());
        Ok((length, stamp))
    }
}

/// Outgoing messages over whatever carries them, without IP options; Delay_Resp only if they are of interest.
fn filter(skips_answers: bool) -> [SockFilter; 25] {
    let special = |offset: libc::c_int| (libc::SKF_AD_OFF + offset).cast_unsigned();
    let load = |code, k| SockFilter::new(code, 0, 0, k);
    // Where it stands, what is compared, and where to go on.
    let equal = |at: u8, value: u32, then: u8, otherwise: u8| {
        SockFilter::new(IF_EQUAL, then - at - 1, otherwise - at - 1, value)
    };
    let of_answers = if skips_answers { LEAVE } else { TAKE };
    [
        load(LOAD_WORD, special(libc::SKF_AD_PKTTYPE)),
        equal(1, u32::from(libc::PACKET_OUTGOING), 2, LEAVE),
        load(LOAD_WORD, special(libc::SKF_AD_PROTOCOL)),
        equal(3, ETHERTYPE_PTP.into(), 16, 4),
        equal(4, ETHERTYPE_IPV4.into(), 6, 5),
        equal(5, ETHERTYPE_IPV6.into(), 11, LEAVE),
        // IPv4: protocol, and the port behind a header of 20 bytes.
        load(LOAD_BYTE, 9),
        equal(7, 17, 8, LEAVE),
        load(LOAD_HALF, 22),
        equal(9, PORT_EVENT.into(), 18, 10),
        equal(10, PORT_GENERAL.into(), 18, LEAVE),
        // IPv6.
        load(LOAD_BYTE, 6),
        equal(12, 17, 13, LEAVE),
        load(LOAD_HALF, 42),
        equal(14, PORT_EVENT.into(), 20, 15),
        equal(15, PORT_GENERAL.into(), 20, LEAVE),
        // The message's type, wherever it is.
        load(LOAD_BYTE, 0),
        load(JUMP, 3),
        load(LOAD_BYTE, 28),
        load(JUMP, 1),
        load(LOAD_BYTE, 48),
        load(AND, 0x0f),
        equal(22, DELAY_RESP, of_answers, TAKE),
        load(RETURN, u32::MAX),
        load(RETURN, 0),
    ]
}
