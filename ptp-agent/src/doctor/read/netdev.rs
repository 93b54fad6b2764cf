//! Asks the kernel's `netdev` family (generic netlink, since Linux 6.3) what XDP a driver can do.
//! Two requests with one attribute each do not need a netlink library with another runtime.

use std::{
    io::{self, IoSlice, IoSliceMut},
    os::fd::AsRawFd,
};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recvmsg, sendmsg,
    setsockopt, socket, sockopt::ReceiveTimeout,
};

/// `GENL_ID_CTRL` of linux/genetlink.h, `CTRL_CMD_GETFAMILY` and its attributes.
const CONTROL: u16 = 0x10;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;
/// `NETDEV_CMD_DEV_GET` of linux/netdev.h and its attributes.
const GET_DEVICE: u8 = 1;
const IFINDEX: u16 = 1;
const XDP_FEATURES: u16 = 3;

const NLM_F_REQUEST: u16 = 1;
const NLMSG_ERROR: u16 = 2;
/// Bytes of `nlmsghdr` and `genlmsghdr`.
const HEADERS: usize = 16 + 4;

/// The features as a set of `NETDEV_XDP_ACT_*` bits.
///
/// # Errors
/// What the kernel reports; `NotFound` where it has no such family.
pub(super) fn xdp_features(ifindex: u32) -> io::Result<u64> {
    let answer = ask(CONTROL, GET_FAMILY, FAMILY_NAME, b"netdev\0")?;
    let family = attribute(&answer, FAMILY_ID).and_then(|value| value.try_into().ok());
    let family = u16::from_ne_bytes(family.ok_or(io::ErrorKind::InvalidData)?);
    let answer = ask(family, GET_DEVICE, IFINDEX, &ifindex.to_ne_bytes())?;
    let features = attribute(&answer, XDP_FEATURES).and_then(|value| value.try_into().ok());
    Ok(u64::from_ne_bytes(features.ok_or(io::ErrorKind::InvalidData)?))
}

/// One request, one answer; returns the answer's attributes.
fn ask(family: u16, command: u8, attribute: u16, value: &[u8]) -> io::Result<Vec<u8>> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket =
        socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkGeneric)?;
    // The kernel answers at once; if not, better no answer than to hang.
    setsockopt(&socket, ReceiveTimeout, &nix::sys::time::TimeVal::new(1, 0))?;
    let request = request(family, command, attribute, value);
    let kernel = NetlinkAddr::new(0, 0);
    let fd = socket.as_raw_fd();
    sendmsg(fd, &[IoSlice::new(&request)], &[], MsgFlags::empty(), Some(&kernel))?;
    let mut buffer = vec![0; 16 * 1024];
    let mut slices = [IoSliceMut::new(&mut buffer)];
    let length = recvmsg::<NetlinkAddr>(fd, &mut slices, None, MsgFlags::empty())?.bytes;
    buffer.truncate(length);
    attributes(&buffer)
}

fn request(family: u16, command: u8, attribute: u16, value: &[u8]) -> Vec<u8> {
    let attribute_length = 4 + value.len();
    let mut bytes = vec![0; HEADERS + attribute_length.next_multiple_of(4)];
    let length = bytes.len() as u32;
    bytes[0..4].copy_from_slice(&length.to_ne_bytes());
    bytes[4..6].copy_from_slice(&family.to_ne_bytes());
    bytes[6..8].copy_from_slice(&NLM_F_REQUEST.to_ne_bytes());
    // Sequence number and port stay 0; then command and version.
    bytes[16..18].copy_from_slice(&[command, 1]);
    let nla = &mut bytes[HEADERS..];
    nla[0..2].copy_from_slice(&(attribute_length as u16).to_ne_bytes());
    nla[2..4].copy_from_slice(&attribute.to_ne_bytes());
    nla[4..attribute_length].copy_from_slice(value);
    bytes
}

fn attributes(message: &[u8]) -> io::Result<Vec<u8>> {
    let u16_at = |at: usize| {
        message.get(at..at + 2).and_then(|bytes| bytes.try_into().ok()).map(u16::from_ne_bytes)
    };
    if u16_at(4) == Some(NLMSG_ERROR) {
        let code = message.get(16..20).and_then(|bytes| bytes.try_into().ok());
        let code = i32::from_ne_bytes(code.ok_or(io::ErrorKind::InvalidData)?);
        return Err(io::Error::from_raw_os_error(code.saturating_neg()));
    }
    Ok(message.get(HEADERS..).ok_or(io::ErrorKind::InvalidData)?.to_vec())
}

fn attribute(mut rest: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(u16::from_ne_bytes(rest.get(0..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(rest.get(2..4)?.try_into().ok()?);
        let value = rest.get(4..length)?;
        if kind == wanted {
            return Some(value);
        }
        rest = rest.get(length.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attribute_is_found_behind_others_and_never_outside() {
        let bytes = [5, 0, 7, 0, 1, 0, 0, 0, 8, 0, 9, 0, 1, 2, 3, 4];
        if cfg!(target_endian = "little") {
            assert_eq!(attribute(&bytes, 9), Some(&[1, 2, 3, 4][..]));
            assert_eq!(attribute(&bytes, 8), None);
            for end in 0..bytes.len() {
                assert_eq!(attribute(&bytes[..end], 9), None);
            }
            assert_eq!(attribute(&[0; 32], 9), None);
        }
    }

    #[test]
    fn loopback_has_no_native_xdp_where_the_kernel_tells() {
        match xdp_features(1) {
            Ok(features) => assert_eq!(features & 1, 0),
            Err(error) => eprintln!("skipped: {error}"),
        }
    }
}
