//! The two things that the standard library does not have: mapping a file, and CLOCK_MONOTONIC as a
//! number. Declared here rather than taken from a crate, so that there is no dependency; all of this
//! crate's `unsafe` is in this file.
#![expect(unsafe_code, reason = "the one module where the C library is called")]

use core::{
    ffi::{c_int, c_long, c_void},
    ptr::NonNull,
    sync::atomic::AtomicU64,
};
use std::{fs::File, io, os::fd::AsRawFd};

use crate::{BYTES, WORDS};

const PROT_READ: c_int = 1;
const MAP_SHARED: c_int = 1;
const CLOCK_MONOTONIC: c_int = 1;

#[repr(C)]
struct Timespec {
    seconds: c_long,
    nanos: c_long,
}

unsafe extern "C" {
    fn mmap(
        address: *mut c_void,
        length: usize,
        protection: c_int,
        flags: c_int,
        descriptor: c_int,
        offset: c_long,
    ) -> *mut c_void;
    fn munmap(address: *mut c_void, length: usize) -> c_int;
    fn clock_gettime(clock: c_int, time: *mut Timespec) -> c_int;
}

/// A mapped page.
#[derive(Debug)]
pub(crate) struct Map(NonNull<[AtomicU64; WORDS]>);

// SAFETY: the mapping belongs to nobody else and is only read, atomically.
unsafe impl Send for Map {}
// SAFETY: as above.
unsafe impl Sync for Map {}

impl Map {
    /// Maps the beginning of `file`, which is at least a page's layout long.
    pub(crate) fn new(file: &File) -> io::Result<Self> {
        // SAFETY: a new mapping at an address that the kernel chooses; the descriptor is open.
        let address = unsafe {
            mmap(std::ptr::null_mut(), BYTES, PROT_READ, MAP_SHARED, file.as_raw_fd(), 0)
        };
        match NonNull::new(address.cast()) {
            Some(page) if address as isize != -1 => Ok(Self(page)),
            _ => Err(io::Error::last_os_error()),
        }
    }

    pub(crate) fn words(&self) -> &[AtomicU64; WORDS] {
        // SAFETY: mapped until `self` is dropped and aligned to a page of memory. The writer stores
        // whole words atomically and never shortens the file.
        unsafe { self.0.as_ref() }
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: mapped by `new` with this length, and no reference outlives `self`.
        unsafe { munmap(self.0.as_ptr().cast(), BYTES) };
    }
}

/// CLOCK_MONOTONIC, nanoseconds.
pub(crate) fn monotonic_ns() -> i64 {
    let mut now = Timespec { seconds: 0, nanos: 0 };
    // SAFETY: a valid pointer to a structure of C's `timespec` on 64-bit Linux.
    unsafe { clock_gettime(CLOCK_MONOTONIC, &raw mut now) };
    now.seconds * 1_000_000_000 + now.nanos
}

const _: () = assert!(size_of::<c_long>() == 8, "`struct timespec` is declared for 64-bit Linux");
