//! Everything that the compiler cannot check: raw system calls, and the calls whose safety rests on
//! a promise of the caller. The rest of the crate forbids `unsafe`; what it needs from here has a
//! safe signature, and every block here says why it holds.
#![expect(unsafe_code, reason = "the one module where system calls are wrapped")]

pub mod adjust;
pub mod bpf;
pub mod child;
pub(crate) mod classic;
pub mod clock;
pub mod confine;
pub mod ethtool;
pub(crate) mod genl;
pub mod hwtstamp;
pub mod ifreq;
pub mod irq;
pub mod many;
pub mod own_file;
pub mod packet;
pub mod phc;
pub mod pins;
pub mod pps;
pub(crate) mod privileges;
pub(crate) mod random;
pub mod schedule;
pub mod serial;
pub mod shared;
pub mod timer;

use std::{
    io, mem,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use socket2::Socket;
use tokio::io::{Interest, unix::AsyncFd};

/// Registers a socket with the current tokio runtime.
///
/// # Errors
/// What the kernel says when the descriptor is added to epoll.
pub fn register(socket: Socket) -> io::Result<AsyncFd<Socket>> {
    // SAFETY: the descriptor must stay the same and open for as long as it is registered: `Socket`
    // owns it, `AsyncFd` owns the `Socket`, and nothing takes it out.
    unsafe { AsyncFd::register(socket) }.map_err(io::Error::from)
}

/// Registers with the current tokio runtime what becomes readable, and is never written.
///
/// # Errors
/// What the kernel says when the descriptor is added to epoll.
pub fn register_readable(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: as in `register`: `AsyncFd` owns the descriptor, and nothing takes it out.
    unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) }
        .map_err(io::Error::from)
}

/// Whether this process may open one more file, socket or the like: tried with a copy of the standard output.
pub(crate) fn has_a_descriptor_left() -> bool {
    // SAFETY: a system call without pointers; a descriptor that is not open is an error.
    let copy = unsafe { libc::fcntl(libc::STDOUT_FILENO, libc::F_DUPFD_CLOEXEC, 0) };
    if copy < 0 {
        return !matches!(io::Error::last_os_error().raw_os_error(), Some(libc::EMFILE));
    }
    // SAFETY: a descriptor that was just made and that nobody else has.
    drop(unsafe { OwnedFd::from_raw_fd(copy) });
    true
}

/// How many packets the kernel has dropped because the receive buffer of a socket was full.
///
/// # Errors
/// What the kernel reports; `SO_MEMINFO` is there since Linux 4.12.
pub fn dropped_by_kernel(socket: &Socket) -> io::Result<u32> {
    /// Of the array that `SO_MEMINFO` returns (linux/sock_diag.h).
    const SK_MEMINFO_DROPS: usize = 8;
    const SK_MEMINFO_VARS: usize = 9;
    let mut info = [0_u32; SK_MEMINFO_VARS];
    let mut length = mem::size_of_val(&info) as libc::socklen_t;
    // SAFETY: pointer and length describe an array that lives through the call; the kernel writes no
    // more than that.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(info[SK_MEMINFO_DROPS]) }
}
