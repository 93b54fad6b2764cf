//! How soon the thread runs when something has arrived, or when it is time. Its turns are so short that it needs no more than
//! tenths of a millisecond at a time; the kernel's fair scheduler lets those who say so run sooner, and
//! gives them no more of the processor than others.

use std::{io, mem};

use ptp_common::time::{Mono, Time};

/// A turn, nanoseconds: the least that the kernel takes.
const SLICE_NS: u64 = 100_000;

/// `struct sched_attr` of linux/sched/types.h, as it was at first: later fields are of no use here.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// Asks for short turns for this thread, where it is one of the ordinary kind; needs no privilege. Kernels
/// before Linux 6.12 take it and do nothing.
///
/// # Errors
/// What the kernel reports.
pub fn ask_for_short_turns() -> io::Result<()> {
    let size = mem::size_of::<Attributes>() as u32;
    let mut attributes = Attributes { size, ..Attributes::default() };
    // SAFETY: the pointer and the size describe a structure that lives through the call; zero is the
    // calling thread.
    let got =
        unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, size, 0_u32) };
    if got < 0 {
        return Err(io::Error::last_os_error());
    }
    if attributes.policy != libc::SCHED_OTHER as u32 {
        // Somebody has decided otherwise.
        return Ok(());
    }
    attributes.runtime = SLICE_NS;
    // SAFETY: as above; the kernel reads what it has just written, but for one field.
    let set = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0_u32) };
    if set < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// How much later than asked the kernel may wake this thread, so that several can be woken together, nanoseconds.
const SLACK_NS: libc::c_ulong = 1_000;

/// Asks to be woken as exactly as the kernel can; it may be 50 us later otherwise.
///
/// # Errors
/// What the kernel reports.
pub fn ask_for_exact_timers() -> io::Result<()> {
    // SAFETY: a system call without pointers.
    let result = unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, SLACK_NS, 0, 0, 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sleeps until then, or until a signal comes; whatever else this thread has to do waits.
pub fn sleep_until(at: Time<Mono>) {
    let nanos = at.as_nanos().max(0);
    let at = libc::timespec { tv_sec: nanos / 1_000_000_000, tv_nsec: nanos % 1_000_000_000 };
    // SAFETY: the pointer is to a structure that lives through the call; what is left is not asked for. That a
    // signal interrupts it is as good as its end.
    unsafe {
        libc::clock_nanosleep(
            libc::CLOCK_MONOTONIC,
            libc::TIMER_ABSTIME,
            &raw const at,
            std::ptr::null_mut(),
        )
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_turns_need_no_privilege() {
        // On a thread of its own: it stays as it is.
        std::thread::spawn(|| ask_for_short_turns().unwrap()).join().unwrap();
    }

    #[test]
    fn sleep_ends_after_its_time_and_at_once_where_that_has_passed() {
        use crate::sys::clock::monotonic;
        use ptp_common::time::Duration;
        std::thread::spawn(|| {
            ask_for_exact_timers().unwrap();
            let at = monotonic() + Duration::from_micros(300);
            sleep_until(at);
            assert!(monotonic() >= at);
            sleep_until(Time::ZERO);
        })
        .join()
        .unwrap();
    }
}
