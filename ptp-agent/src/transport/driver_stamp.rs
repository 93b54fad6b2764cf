//! The driver's own software transmit stamps: what SO_TIMESTAMPING delivers through the error queue
//! of the socket that has sent a packet. The kernel returns the packet with its stamp, headers and
//! all, so that it is found by what it says, as the records of the kernel programs are.

use std::{io, io::IoSliceMut, ops::Range, os::fd::AsRawFd};

use nix::sys::{
    socket::{
        ControlMessageOwned, MsgFlags, SockaddrStorage, TimestampingFlag, recvmsg, setsockopt,
        sockopt,
    },
    time::TimeSpec,
};
use ptp_common::{
    classify::{Protocol, classify, classify_protocol},
    time::{Duration, Ptp, Real, Time},
};
use socket2::Socket;

use super::MAX_MESSAGE;

/// Asks for the stamps of what the socket sends from now on, or no longer.
pub(crate) fn ask(socket: &Socket, wanted: bool) -> io::Result<()> {
    let flags = if wanted {
        TimestampingFlag::SOF_TIMESTAMPING_TX_SOFTWARE | TimestampingFlag::SOF_TIMESTAMPING_SOFTWARE
    } else {
        TimestampingFlag::empty()
    };
    Ok(setsockopt(socket, sockopt::Timestamping, &flags)?)
}

/// Asks for the card's own stamps of what the socket sends from now on.
pub(crate) fn ask_for_hardware(socket: &Socket) -> io::Result<()> {
    let flags = TimestampingFlag::SOF_TIMESTAMPING_TX_HARDWARE
        | TimestampingFlag::SOF_TIMESTAMPING_RAW_HARDWARE;
    Ok(setsockopt(socket, sockopt::Timestamping, &flags)?)
}

/// As [`next`], of the card's clock.
pub(super) fn next_of_hardware<'a>(
    socket: &Socket,
    buffer: &'a mut [u8; MAX_MESSAGE],
) -> Option<(&'a [u8], Time<Ptp>)> {
    loop {
        let (length, _, stamp) = receive(socket, buffer).ok()?;
        if let (Some(message), Some(stamp)) = (message(&buffer[..length]), stamp) {
            return Some((&buffer[message], stamp));
        }
    }
}

/// The next stamp in the error queue of a socket, with the message that it belongs to; what else is
/// in there is thrown away. `None` when the queue is empty.
pub(crate) fn next<'a>(
    socket: &Socket,
    buffer: &'a mut [u8; MAX_MESSAGE],
) -> Option<(&'a [u8], Time<Real>)> {
    next_of(socket, buffer, message)
}

/// As [`next`], of packets of NTP: what UDP carries.
pub(crate) fn next_ntp<'a>(
    socket: &Socket,
    buffer: &'a mut [u8; MAX_MESSAGE],
) -> Option<(&'a [u8], Time<Real>)> {
    next_of(socket, buffer, ntp_packet)
}

fn next_of<'a>(
    socket: &Socket,
    buffer: &'a mut [u8; MAX_MESSAGE],
    find: fn(&[u8]) -> Option<Range<usize>>,
) -> Option<(&'a [u8], Time<Real>)> {
    loop {
        let (length, stamp, _) = receive(socket, buffer).ok()?;
        if let (Some(message), Some(stamp)) = (find(&buffer[..length]), stamp) {
            return Some((&buffer[message], stamp));
        }
    }
}

/// Throws away as many stamps as are in the error queue of a socket, but no more than `most`. How many.
pub(crate) fn discard(socket: &Socket, most: u32) -> u32 {
    let mut buffer = [0; MAX_MESSAGE];
    (0..most).find(|_| receive(socket, &mut buffer).is_err()).unwrap_or(most)
}

/// Where in a packet the PTP message is.
fn message(packet: &[u8]) -> Option<Range<usize>> {
    let begin = classify(packet).ok()?.ptp_offset;
    // Some drivers pad short frames before they stamp them: no more than messageLength says.
    let said = packet
        .get(begin + 2..begin + 4)
        .map_or(packet.len(), |said| usize::from(u16::from_be_bytes([said[0], said[1]])));
    let end = packet.len().min(begin.saturating_add(said));
    (begin <= end).then_some(begin..end)
}

/// Where in a packet the one of NTP is, as long as UDP says.
fn ntp_packet(packet: &[u8]) -> Option<Range<usize>> {
    let begin = classify_protocol(packet, Protocol::Ntp).ok()?.ptp_offset;
    let said = packet.get(begin - 4..begin - 2);
    let said = said.map_or(0, |it| usize::from(u16::from_be_bytes([it[0], it[1]])));
    let end = packet.len().min(begin + said.saturating_sub(8));
    (begin <= end).then_some(begin..end)
}

/// A stamp of the kernel as a time; `None` for the zero that stands for none.
pub(crate) fn time(stamp: TimeSpec) -> Option<Time<Real>> {
    Some(Time::from_epoch(Duration::from_nanos(nanos(stamp)?)))
}

/// Nanoseconds of a stamp of SO_TIMESTAMPING; `None` for the zero that stands for none.
pub(crate) fn nanos(stamp: TimeSpec) -> Option<i64> {
    let nanos = stamp.tv_sec().checked_mul(1_000_000_000)?.checked_add(stamp.tv_nsec())?;
    (nanos != 0).then_some(nanos)
}

/// How long a packet is that came back, the driver's stamp and the card's.
type Received = (usize, Option<Time<Real>>, Option<Time<Ptp>>);

fn receive(socket: &Socket, buffer: &mut [u8; MAX_MESSAGE]) -> nix::Result<Received> {
    let mut parts = [IoSliceMut::new(buffer)];
    let mut space = nix::cmsg_space!([u8; 256]);
    let received = recvmsg::<SockaddrStorage>(
        socket.as_raw_fd(),
        &mut parts,
        Some(&mut space),
        MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT,
    )?;
    let stamps = received.cmsgs()?.find_map(|message| match message {
        ControlMessageOwned::ScmTimestampsns(times) => {
            let of_card = nanos(times.hw_raw).map(Time::from_nanos);
            Some((time(times.system), of_card))
        }
        _ => None,
    });
    let (stamp, of_card) = stamps.unwrap_or_default();
    Ok((received.bytes, stamp, of_card))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ptp_common::classify::ETHERTYPE_PTP;

    /// A frame with a Pdelay_Req, which is 54 bytes long.
    fn frame(said: u16, length: usize) -> Vec<u8> {
        let mut frame = vec![0; length];
        frame[12..14].copy_from_slice(&ETHERTYPE_PTP.to_be_bytes());
        frame[14..18].copy_from_slice(&[2, 2, said.to_be_bytes()[0], said.to_be_bytes()[1]]);
        frame
    }

    #[test]
    fn padding_behind_a_message_is_no_part_of_it() {
        assert_eq!(message(&frame(54, 68)), Some(14..68));
        assert_eq!(message(&frame(54, 82)), Some(14..68));
        // Nor is there more than there is.
        assert_eq!(message(&frame(5_000, 60)), Some(14..60));
        assert_eq!(message(&[0; 14]), None);
    }
}
