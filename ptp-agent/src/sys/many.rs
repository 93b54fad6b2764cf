//! Many messages by one system call, each to an address of its own (`sendmmsg`). The wrapper of the crate that has one
//! reads addresses that nobody has written when it is asked how many messages were sent.

use std::{io, mem, os::fd::AsRawFd, ptr};

use socket2::{SockAddr, Socket};

/// As many are handed over at a time.
pub const AT_ONCE: usize = 64;

/// Sends the first [`AT_ONCE`] of the messages, `behind` behind each, without waiting. How many were sent: those from
/// the beginning up to one that could not be.
///
/// # Errors
/// Why the first of them could not be sent.
pub fn send(socket: &Socket, messages: &[(SockAddr, &[u8])], behind: &[u8]) -> io::Result<usize> {
    let messages = &messages[..messages.len().min(AT_ONCE)];
    let part = |bytes: &[u8]| libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    let mut parts: Vec<[libc::iovec; 2]> =
        messages.iter().map(|(_, message)| [part(message), part(behind)]).collect();
    let mut headers: Vec<libc::mmsghdr> = messages
        .iter()
        .zip(&mut parts)
        .map(|((to, _), parts)| {
            // SAFETY: integers and pointers, for which zero is a value.
            let mut header: libc::mmsghdr = unsafe { mem::zeroed() };
            header.msg_hdr.msg_name = to.as_ptr().cast_mut().cast();
            header.msg_hdr.msg_namelen = to.len();
            header.msg_hdr.msg_iov = parts.as_mut_ptr();
            header.msg_hdr.msg_iovlen = if behind.is_empty() { 1 } else { 2 };
            header.msg_hdr.msg_control = ptr::null_mut();
            header
        })
        .collect();
    // SAFETY: the headers point to addresses, parts and messages that live through the call, with their lengths, and
    // the kernel writes nothing but the lengths in the headers.
    let sent = unsafe {
        libc::sendmmsg(
            socket.as_raw_fd(),
            headers.as_mut_ptr(),
            headers.len() as libc::c_uint,
            // Signed for glibc, unsigned for musl.
            libc::MSG_DONTWAIT as _,
        )
    };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    #[test]
    fn each_message_goes_to_its_own_address_and_those_before_a_bad_one_are_sent() {
        let receivers = [(); 3].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
        let sender = Socket::from(UdpSocket::bind("127.0.0.1:0").unwrap());
        let texts = [b"one".as_slice(), b"two", b"three"];
        let to = |at: usize| SockAddr::from(receivers[at].local_addr().unwrap());
        let mut messages: Vec<_> =
            texts.iter().enumerate().map(|(n, text)| (to(n), *text)).collect();
        assert_eq!(send(&sender, &messages, b"!").unwrap(), 3);
        for (receiver, text) in receivers.iter().zip(texts) {
            let mut buffer = [0; 16];
            let length = receiver.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..length], [text, b"!"].concat());
        }
        // No datagram is so long.
        let long = vec![0; 70_000];
        messages[1].1 = &long;
        assert_eq!(send(&sender, &messages, &[]).unwrap(), 1);
        assert!(send(&sender, &messages[1..], &[]).is_err());
        assert_eq!(send(&sender, &messages[2..], &[]).unwrap(), 1);
        assert_eq!(send(&sender, &[], &[]).unwrap(), 0);
    }
}
