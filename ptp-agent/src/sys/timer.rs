//! A timer on the monotonic clock with the kernel's accuracy, some ten microseconds, where that of the
//! runtime is a millisecond: a request that is to arrive shortly before a message is due needs it.

use std::{
    io, mem,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    ptr,
};

use ptp_common::time::{Mono, Time};
use tokio::io::unix::AsyncFd;

/// The timer.
#[derive(Debug)]
pub struct Timer {
    descriptor: AsyncFd<OwnedFd>,
    at: Option<Time<Mono>>,
}

impl Timer {
    /// A timer that is not set. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// What the kernel reports.
    pub fn new() -> io::Result<Self> {
        let flags = libc::TFD_NONBLOCK | libc::TFD_CLOEXEC;
        // SAFETY: a system call without pointers.
        let fd = unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, flags) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a descriptor that was just made and that nobody else has.
        let owned = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: the descriptor must stay the same and open for as long as it is registered: `OwnedFd`
        // does not change, `AsyncFd` owns it, and nothing takes it out.
        let descriptor = unsafe { AsyncFd::register(owned) }.map_err(io::Error::from)?;
        Ok(Self { descriptor, at: None })
    }

    /// Waits until `at`. Cancel-safe.
    ///
    /// # Errors
    /// What the kernel reports.
    pub async fn until(&mut self, at: Time<Mono>) -> io::Result<()> {
        if self.at != Some(at) {
            self.set(at)?;
            self.at = Some(at);
        }
        let mut guard = self.descriptor.readable().await?;
        // To set it anew takes the expirations away; they need not be read.
        guard.clear_ready();
        self.at = None;
        Ok(())
    }

    fn set(&self, at: Time<Mono>) -> io::Result<()> {
        // Zero would stop it; the clock's zero was when the host started.
        let nanos = at.as_nanos().max(1);
        let value = libc::itimerspec {
            // SAFETY: integers, for which all zeros are a value.
            it_interval: unsafe { mem::zeroed() },
            it_value: libc::timespec {
                tv_sec: nanos / 1_000_000_000,
                tv_nsec: nanos % 1_000_000_000,
            },
        };
        let (fd, flags) = (self.descriptor.as_raw_fd(), libc::TFD_TIMER_ABSTIME);
        // SAFETY: the pointer is to a structure that lives through the call; the old value is not asked
        // for.
        let result = unsafe { libc::timerfd_settime(fd, flags, &raw const value, ptr::null_mut()) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::clock::monotonic;
    use ptp_common::time::Duration;

    #[test]
    fn timer_ends_after_its_time_and_can_be_set_again() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut timer = Timer::new().unwrap();
            for _ in 0..3 {
                let at = monotonic() + Duration::from_micros(300);
                timer.until(at).await.unwrap();
                assert!(monotonic() >= at);
            }
            // What is over already is over at once.
            timer.until(monotonic() - Duration::from_secs(1)).await.unwrap();
        });
    }
}
