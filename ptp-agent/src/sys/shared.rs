//! Memory shared with other programs: a mapped file, or a System V segment. It is only ever touched
//! through atomics, so that whatever others do with it is no undefined behaviour here.

use std::{
    fs::File,
    io,
    os::fd::AsRawFd,
    ptr::{self, NonNull},
    sync::atomic::{AtomicU32, AtomicU64},
};

/// How it is given back.
#[derive(Debug)]
enum Kind {
    Mapped,
    Attached,
}

/// A piece of shared memory, aligned to a page.
#[derive(Debug)]
pub struct SharedMemory {
    address: NonNull<u8>,
    bytes: usize,
    kind: Kind,
}

// SAFETY: the memory belongs to this value alone within the process, and is touched through atomics.
unsafe impl Send for SharedMemory {}

impl SharedMemory {
    /// Maps the first `bytes` of `file`, to be written. The file is at least that long, and whoever
    /// else may write to it is trusted not to shorten it.
    ///
    /// # Errors
    /// What the kernel reports.
    pub fn map(file: &File, bytes: usize) -> io::Result<Self> {
        // SAFETY: a new mapping at an address that the kernel chooses; the descriptor is open.
        let address = unsafe {
            libc::mmap(
                ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let address = NonNull::new(address.cast()).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(Self { address, bytes, kind: Kind::Mapped })
    }

    /// The System V segment of `key`, made with `mode` if there is none.
    ///
    /// # Errors
    /// What the kernel reports: EINVAL for one that is shorter.
    pub fn attach(key: i32, bytes: usize, mode: i32) -> io::Result<Self> {
        let id = segment(key, bytes, libc::IPC_CREAT | mode)?;
        // SAFETY: attached at an address that the kernel chooses.
        let address = unsafe { libc::shmat(id, ptr::null(), 0) };
        if address as isize == -1 {
            return Err(io::Error::last_os_error());
        }
        let address = NonNull::new(address.cast()).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(Self { address, bytes, kind: Kind::Attached })
    }

    /// As words of 64 bits; what is left at the end is not shown.
    pub const fn words64(&self) -> &[AtomicU64] {
        // SAFETY: the memory lives as long as `self`, is aligned to a page and holds so many words;
        // any bits are a valid number.
        unsafe { std::slice::from_raw_parts(self.address.as_ptr().cast(), self.bytes / 8) }
    }

    /// As words of 32 bits.
    pub const fn words32(&self) -> &[AtomicU32] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts(self.address.as_ptr().cast(), self.bytes / 4) }
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        match self.kind {
            // SAFETY: mapped with this length, and no reference outlives `self`.
            Kind::Mapped => unsafe { libc::munmap(self.address.as_ptr().cast(), self.bytes) },
            // SAFETY: attached here, and no reference outlives `self`.
            Kind::Attached => unsafe { libc::shmdt(self.address.as_ptr().cast()) },
        };
    }
}

fn segment(key: i32, bytes: usize, flags: i32) -> io::Result<i32> {
    // SAFETY: takes numbers only.
    let id = unsafe { libc::shmget(key, bytes, flags) };
    if id < 0 { Err(io::Error::last_os_error()) } else { Ok(id) }
}

/// The number of the System V segment that `key` stands for now, if there is one: another one after
/// somebody has removed and made it again.
pub fn segment_id(key: i32) -> Option<i32> {
    segment(key, 0, 0).ok()
}

/// Whose a System V segment is, and who may touch it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentAccess {
    /// User that owns it.
    pub owner: u32,
    /// User that made it; may be another.
    pub creator: u32,
    /// Permission bits.
    pub mode: u32,
}

/// Whose the segment of `key` is.
///
/// # Errors
/// What the kernel reports: ENOENT where there is none.
pub fn segment_access(key: i32) -> io::Result<SegmentAccess> {
    let id = segment(key, 0, 0)?;
    // SAFETY: a plain structure of integers for which zero is a valid value.
    let mut status: libc::shmid_ds = unsafe { std::mem::zeroed() };
    // SAFETY: a pointer to a structure that lives through the call, of the kind that the command fills.
    if unsafe { libc::shmctl(id, libc::IPC_STAT, &raw mut status) } < 0 {
        return Err(io::Error::last_os_error());
    }
    let access = status.shm_perm;
    // The mode has 16 bits in some C libraries and 32 in others.
    Ok(SegmentAccess {
        owner: access.uid,
        creator: access.cuid,
        mode: u32::from(access.mode) & 0o777,
    })
}

/// Removes the segment of `key`, for tests.
#[cfg(test)]
pub(crate) fn remove_segment(key: i32) {
    if let Some(id) = segment_id(key) {
        // SAFETY: takes numbers only; without a structure for this command.
        unsafe { libc::shmctl(id, libc::IPC_RMID, ptr::null_mut()) };
    }
}
