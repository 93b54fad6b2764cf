//! The bpf(2) commands that the library which loads all other programs has no words for: loading a
//! device-bound XDP program, which can neither name a device there nor call a function of the kernel;
//! and asking who is attached without asking for their names, which takes less privilege.

use std::{
    ffi::CStr,
    io, mem,
    os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd},
    ptr,
};

use aya_obj::generated::{
    bpf_attach_type::{self, BPF_XDP},
    bpf_cmd::{self, BPF_LINK_CREATE, BPF_PROG_LOAD, BPF_PROG_QUERY},
    bpf_prog_type::BPF_PROG_TYPE_XDP,
};

/// `BPF_F_XDP_DEV_BOUND_ONLY` (linux/bpf.h).
const DEVICE_BOUND: u32 = 1 << 6;
/// `XDP_FLAGS_DRV_MODE` (linux/if_link.h).
const DRIVER_MODE: u32 = 1 << 2;
/// Length of an instruction, bytes.
pub const INSTRUCTION: usize = 8;
/// Room for what the verifier says.
const LOG_BYTES: usize = 64 * 1024;

/// `union bpf_attr` for BPF_PROG_LOAD, as far as it is needed; the kernel takes the rest as zero.
#[repr(C)]
struct ProgLoad {
    prog_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    ifindex: u32,
    expected_attach_type: u32,
}

/// The same for BPF_LINK_CREATE.
#[repr(C)]
struct LinkCreate {
    program: u32,
    ifindex: u32,
    attach_type: u32,
    flags: u32,
}

/// The same for BPF_PROG_QUERY, of TCX hooks.
#[repr(C)]
#[derive(Default)]
struct ProgQuery {
    ifindex: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    program_ids: u64,
    count: u32,
    padding: u32,
    program_attach_flags: u64,
    link_ids: u64,
    link_attach_flags: u64,
    revision: u64,
}

/// Loads an XDP program that may run on one device only, and there ask the driver for metadata.
/// `code` is whole instructions.
///
/// # Errors
/// What the kernel says, with the verifier's last words where it was the verifier.
pub fn load_device_bound_xdp(
    name: &CStr,
    license: &CStr,
    code: &[u8],
    ifindex: u32,
) -> Result<OwnedFd, (io::Error, String)> {
    let mut log = vec![0_u8; LOG_BYTES];
    let mut attributes = ProgLoad {
        prog_type: BPF_PROG_TYPE_XDP as u32,
        instruction_count: u32::try_from(code.len() / INSTRUCTION).unwrap_or(u32::MAX),
        instructions: code.as_ptr().expose_provenance() as u64,
        license: license.as_ptr().expose_provenance() as u64,
        log_level: 1,
        log_size: LOG_BYTES as u32,
        log: log.as_mut_ptr().expose_provenance() as u64,
        kernel_version: 0,
        flags: DEVICE_BOUND,
        name: [0; 16],
        ifindex,
        expected_attach_type: BPF_XDP as u32,
    };
    // The last byte stays zero.
    for (to, from) in attributes.name[..15].iter_mut().zip(name.to_bytes()) {
        *to = *from;
    }
    // SAFETY: the structure begins as the command's attributes do and has no padding. The buffers
    // that it points to live through the call and are as long as it says; only the log is written.
    unsafe { descriptor(BPF_PROG_LOAD, &mut attributes) }.map_err(|error| {
        let log = CStr::from_bytes_until_nul(&log).unwrap_or_default().to_string_lossy();
        (error, log.lines().rfind(|line| !line.starts_with("processed ")).unwrap_or("").to_owned())
    })
}

/// Attaches an XDP program in the driver. It is detached when the link is closed.
///
/// # Errors
/// What the kernel says.
pub fn link_native_xdp(program: impl AsFd, ifindex: u32) -> io::Result<OwnedFd> {
    let mut attributes = LinkCreate {
        // Descriptors are not negative.
        program: program.as_fd().as_raw_fd().unsigned_abs(),
        ifindex,
        attach_type: BPF_XDP as u32,
        flags: DRIVER_MODE,
    };
    // SAFETY: as above, without further pointers.
    unsafe { descriptor(BPF_LINK_CREATE, &mut attributes) }
}

/// The numbers of the programs on a TCX hook, in the order in which packets pass them. Needs
/// CAP_NET_ADMIN only.
///
/// # Errors
/// What the kernel says: EINVAL before Linux 6.6, ENODEV without such an interface, ENOSPC where there are
/// more than it lets attach.
pub fn tcx_programs(ifindex: u32, hook: bpf_attach_type) -> io::Result<Vec<u32>> {
    /// `BPF_MPROG_MAX` (linux/bpf_mprog.h).
    const MOST: usize = 64;
    let mut ids = [0_u32; MOST];
    let mut attributes = ProgQuery {
        ifindex,
        attach_type: hook as u32,
        program_ids: ids.as_mut_ptr().expose_provenance() as u64,
        count: MOST as u32,
        ..ProgQuery::default()
    };
    // SAFETY: the structure begins as the command's attributes do and has no padding. The buffer that it
    // points to lives through the call and has room for as many numbers as it says.
    unsafe { bpf(BPF_PROG_QUERY, &mut attributes) }?;
    Ok(ids[..MOST.min(attributes.count as usize)].to_vec())
}

/// A command that returns a new descriptor.
///
/// # Safety
/// As [`bpf`].
unsafe fn descriptor<T>(command: bpf_cmd, attributes: &mut T) -> io::Result<OwnedFd> {
    // SAFETY: the caller's promise.
    let fd = unsafe { bpf(command, attributes) }?;
    // SAFETY: a descriptor that the kernel has just made for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A command; returns what the kernel does, which is no error.
///
/// # Safety
/// `T` is laid out as the command's attributes, without padding, and its pointers are good for what
/// the command does with them.
unsafe fn bpf<T>(command: bpf_cmd, attributes: &mut T) -> io::Result<i32> {
    // SAFETY: a structure that lives through the call, and its size; the rest is the caller's promise.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command as libc::c_long,
            ptr::from_mut(attributes),
            mem::size_of::<T>(),
        )
    };
    match i32::try_from(result) {
        Ok(result) if result >= 0 => Ok(result),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_lie_where_the_kernel_looks_for_them() {
        // Offsets in `union bpf_attr` (linux/bpf.h).
        assert_eq!(mem::offset_of!(ProgLoad, flags), 44);
        assert_eq!(mem::offset_of!(ProgLoad, name), 48);
        assert_eq!(mem::offset_of!(ProgLoad, ifindex), 64);
        assert_eq!(mem::size_of::<ProgLoad>(), 72);
        assert_eq!(mem::size_of::<LinkCreate>(), 16);
        assert_eq!(mem::offset_of!(ProgQuery, program_ids), 16);
        assert_eq!(mem::offset_of!(ProgQuery, link_ids), 40);
        assert_eq!(mem::size_of::<ProgQuery>(), 64);
    }
}
