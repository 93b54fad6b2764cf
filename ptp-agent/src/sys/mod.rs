//! Everything that the compiler cannot check: raw system calls, and the calls whose safety rests on
//! a promise of the caller. The rest of the crate forbids `unsafe`; what it needs from here has a
//! safe signature, and every block here says why it holds.
#![expect(unsafe_code, reason = "the one module where system calls are wrapped")]

pub mod child;
pub mod clock;
pub mod packet;

use std::io;

use socket2::Socket;
use tokio::io::unix::AsyncFd;

/// Registers a socket with the current tokio runtime.
///
/// # Errors
/// What the kernel says when the descriptor is added to epoll.
pub fn register(socket: Socket) -> io::Result<AsyncFd<Socket>> {
    // SAFETY: the descriptor must stay the same and open for as long as it is registered: `Socket`
    // owns it, `AsyncFd` owns the `Socket`, and nothing takes it out.
    unsafe { AsyncFd::register(socket) }.map_err(io::Error::from)
}
