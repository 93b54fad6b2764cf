//! The other end of a wire, where there is one host at both ends: in the laboratory a packet that was sent can
//! be stamped as it arrives on the other side of its veth pair, which is when it left the wire. A
//! grandmaster with such stamps stands for one that has them from its hardware.

use std::{
    fmt,
    fs::File,
    io::{self, IoSliceMut},
    os::fd::AsRawFd,
    path::PathBuf,
    str::FromStr,
    thread,
};

use nix::{
    net::if_::if_nametoindex,
    sched::{CloneFlags, setns},
    sys::socket::{
        ControlMessageOwned, LinkAddr, MsgFlags, recvmsg, setsockopt, sockopt::ReceiveTimestampns,
    },
};
use ptp_common::{
    classify::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_PTP, classify},
    time::{Real, Time},
};
use socket2::{SockFilter, Socket};

use super::{MAX_MESSAGE, TransportKind, driver_stamp::time};
use crate::sys::packet;

const ETHERNET_HEADER: usize = 14;
/// BPF_RET: the whole packet.
const TAKE_ALL: (u16, u32) = (0x06, 0xffff);

/// Where the other end is: `NAMESPACE=INTERFACE`, the former a file as in /proc/PID/ns/net.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FarEnd {
    namespace: PathBuf,
    interface: String,
}

impl FromStr for FarEnd {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (namespace, interface) =
            text.rsplit_once('=').ok_or_else(|| "expected NAMESPACE=INTERFACE".to_owned())?;
        Ok(Self { namespace: namespace.into(), interface: interface.to_owned() })
    }
}

impl fmt::Display for FarEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.namespace.display(), self.interface)
    }
}

/// What arrives there.
#[derive(Debug)]
pub struct WireTap {
    socket: Socket,
    ethertype: u16,
}

impl WireTap {
    /// Listens at the other end to what `kind` carries. Nothing ever waits for this socket, so nobody is
    /// woken up by a packet.
    ///
    /// # Errors
    /// What the kernel reports; EPERM without CAP_SYS_ADMIN and CAP_NET_RAW.
    pub fn open(far_end: &FarEnd, kind: TransportKind) -> io::Result<Self> {
        let ethertype = match kind {
            TransportKind::L2 => ETHERTYPE_PTP,
            TransportKind::Udp4 => ETHERTYPE_IPV4,
            TransportKind::Udp6 => ETHERTYPE_IPV6,
        };
        // A namespace is left by the thread's end.
        let socket = thread::scope(|scope| {
            let open = || -> io::Result<Socket> {
                setns(File::open(&far_end.namespace)?, CloneFlags::CLONE_NEWNET)?;
                let index = if_nametoindex(far_end.interface.as_str())?;
                let (code, k) = TAKE_ALL;
                packet::tap(index, ethertype, &[SockFilter::new(code, 0, 0, k)])
            };
            let thread = thread::Builder::new().name("wire".into()).spawn_scoped(scope, open)?;
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })?;
        setsockopt(&socket, ReceiveTimestampns, &true)?;
        Ok(Self { socket, ethertype })
    }

    /// The next message that has arrived, and when, CLOCK_REALTIME.
    pub fn next<'a>(&self, buffer: &'a mut [u8; MAX_MESSAGE]) -> Option<(&'a [u8], Time<Real>)> {
        loop {
            let (length, stamp) = self.receive(&mut buffer[ETHERNET_HEADER..]).ok()?;
            let end = ETHERNET_HEADER + length;
            buffer[12..ETHERNET_HEADER].copy_from_slice(&self.ethertype.to_be_bytes());
            if let (Ok(location), Some(stamp)) = (classify(&buffer[..end]), stamp) {
                return Some((&buffer[location.ptp_offset..end], stamp));
            }
        }
    }

    fn receive(&self, buffer: &mut [u8]) -> nix::Result<(usize, Option<Time<Real>>)> {
        let mut parts = [IoSliceMut::new(buffer)];
        let mut space = nix::cmsg_space!([u8; 64]);
        let received = recvmsg::<LinkAddr>(
            self.socket.as_raw_fd(),
            &mut parts,
            Some(&mut space),
            MsgFlags::MSG_DONTWAIT,
        )?;
        let stamp = received.cmsgs()?.find_map(|message| match message {
            ControlMessageOwned::ScmTimestampns(stamp) => time(stamp),
            _ => None,
        });
        Ok((received.bytes, stamp))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn far_end_is_a_namespace_and_an_interface() {
        let text = "/proc/17/fd/5=ptp1";
        let far_end: FarEnd = text.parse().unwrap();
        assert_eq!((far_end.interface.as_str(), far_end.to_string().as_str()), ("ptp1", text));
        "ptp1".parse::<FarEnd>().unwrap_err();
    }
}
