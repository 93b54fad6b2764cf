//! The driver's own software transmit stamps: what SO_TIMESTAMPING delivers through the error queue
//! of the socket that has sent a packet. The kernel returns the packet with its stamp, headers and
//! all, so that it is found by what it says, as the records of the kernel programs are.

use std::{io, io::IoSliceMut, os::fd::AsRawFd};

use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrStorage, TimestampingFlag, recvmsg, setsockopt, sockopt,
};
use ptp_common::{
    classify::classify,
    time::{Duration, Real, Time},
};
use socket2::Socket;

use super::MAX_MESSAGE;

/// Asks for the stamps of what the socket sends from now on, or no longer.
pub(super) fn ask(socket: &Socket, wanted: bool) -> io::Result<()> {
    let flags = if wanted {
        TimestampingFlag::SOF_TIMESTAMPING_TX_SOFTWARE | TimestampingFlag::SOF_TIMESTAMPING_SOFTWARE
    } else {
        TimestampingFlag::empty()
    };
    Ok(setsockopt(socket, sockopt::Timestamping, &flags)?)
}

/// The next stamp in the error queue of a socket, with the message that it belongs to; what else is
/// in there is thrown away. `None` when the queue is empty.
pub(super) fn next<'a>(
    socket: &Socket,
    buffer: &'a mut [u8; MAX_MESSAGE],
) -> Option<(&'a [u8], Time<Real>)> {
    loop {
        let (length, stamp) = receive(socket, buffer).ok()?;
        let offset = classify(&buffer[..length]).ok().map(|location| location.ptp_offset);
        if let (Some(offset), Some(stamp)) = (offset, stamp) {
            // Some drivers pad short frames before they stamp them: no more than messageLength says.
            let said = buffer
                .get(offset + 2..offset + 4)
                .map_or(length, |said| usize::from(u16::from_be_bytes([said[0], said[1]])));
            let end = length.min(offset.saturating_add(said));
            return buffer.get(offset..end).map(|message| (message, stamp));
        }
    }
}

fn receive(
    socket: &Socket,
    buffer: &mut [u8; MAX_MESSAGE],
) -> nix::Result<(usize, Option<Time<Real>>)> {
    let mut parts = [IoSliceMut::new(buffer)];
    let mut space = nix::cmsg_space!([u8; 256]);
    let received = recvmsg::<SockaddrStorage>(
        socket.as_raw_fd(),
        &mut parts,
        Some(&mut space),
        MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT,
    )?;
    let stamp = received.cmsgs()?.find_map(|message| match message {
        ControlMessageOwned::ScmTimestampsns(times) => {
            let whole = times.system.tv_sec().checked_mul(1_000_000_000)?;
            let nanos = whole.checked_add(times.system.tv_nsec())?;
            (nanos != 0).then(|| Time::from_epoch(Duration::from_nanos(nanos)))
        }
        _ => None,
    });
    Ok((received.bytes, stamp))
}
