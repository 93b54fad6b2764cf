//! How soon the thread runs when something has arrived. Its turns are so short that it needs no more than
//! tenths of a millisecond at a time; the kernel's fair scheduler lets those who say so run sooner, and
//! gives them no more of the processor than others.

use std::{io, mem};

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_turns_need_no_privilege() {
        // On a thread of its own: it stays as it is.
        std::thread::spawn(|| ask_for_short_turns().unwrap()).join().unwrap();
    }
}
