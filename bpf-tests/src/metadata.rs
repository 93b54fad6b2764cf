//! Metadata in front of packets, as other programs see and write it: a witness at TC ingress that
//! counts packets with and without, and an XDP program that writes any. Written as instructions
//! (RFC 9669), because two of them do not deserve a compiler.

use std::{
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    ptr,
};

use libbpf_sys as sys;
use nix::net::if_::if_nametoindex;

/// `BPF_FUNC_map_lookup_elem`, `BPF_FUNC_xdp_adjust_meta` of linux/bpf.h.
const MAP_LOOKUP_ELEM: i32 = 1;
const XDP_ADJUST_META: i32 = 54;
/// `XDP_PASS` and `XDP_FLAGS_DRV_MODE`.
const XDP_PASS: i32 = 2;
const DRIVER_MODE: u32 = 1 << 2;

/// The attached program. Detached when dropped.
#[derive(Debug)]
pub struct Attached {
    _link: OwnedFd,
    _program: OwnedFd,
}

impl Attached {
    fn new(
        interface: &str,
        program_type: sys::bpf_prog_type,
        attach_type: sys::bpf_attach_type,
        flags: u32,
        code: &[sys::bpf_insn],
    ) -> io::Result<Self> {
        let index = if_nametoindex(interface)? as i32;
        // SAFETY: name and licence are C strings, the instructions are as many as is said; the
        // kernel checks what they do. No options.
        let program = unsafe {
            owned(sys::bpf_prog_load(
                program_type,
                c"metadata".as_ptr(),
                c"GPL".as_ptr(),
                code.as_ptr(),
                code.len() as sys::size_t,
                ptr::null_mut(),
            ))
        }?;
        let options = sys::bpf_link_create_opts {
            sz: size_of::<sys::bpf_link_create_opts>() as sys::size_t,
            flags,
            ..sys::bpf_link_create_opts::default()
        };
        // SAFETY: a loaded program; the structure says its size and lives through the call.
        let link = unsafe {
            owned(sys::bpf_link_create(program.as_raw_fd(), index, attach_type, &raw const options))
        }?;
        Ok(Self { _link: link, _program: program })
    }
}

/// Counts packets at TC ingress.
#[derive(Debug)]
pub struct Witness {
    counts: OwnedFd,
    _program: Attached,
}

impl Witness {
    /// On an interface of the current network namespace.
    ///
    /// # Errors
    /// The kernel has no TCX (before Linux 6.6), or something else that it says.
    pub fn attach(interface: &str) -> io::Result<Self> {
        // SAFETY: the name is a C string; no options.
        let counts = unsafe {
            owned(sys::bpf_map_create(
                sys::BPF_MAP_TYPE_ARRAY,
                c"counts".as_ptr(),
                4,
                8,
                2,
                ptr::null(),
            ))
        }?;
        let code = [
            // `data_meta` and `data` of `struct __sk_buff`; whether they differ is the key.
            insn(0x61, 2, 1, 140, 0),
            insn(0x61, 3, 1, 76, 0),
            insn(0x1f, 3, 2, 0, 0),
            insn(0xb7, 4, 0, 0, 0),
            insn(0x15, 3, 0, 1, 0),
            insn(0xb7, 4, 0, 0, 1),
            insn(0x63, 10, 4, -4, 0),
            insn(0xbf, 2, 10, 0, 0),
            insn(0x07, 2, 0, 0, -4),
            insn(0x18, 1, 1, 0, counts.as_raw_fd()),
            insn(0, 0, 0, 0, 0),
            insn(0x85, 0, 0, 0, MAP_LOOKUP_ELEM),
            insn(0x15, 0, 0, 2, 0),
            insn(0xb7, 1, 0, 0, 1),
            insn(0xdb, 0, 1, 0, 0),
            // TCX_NEXT.
            insn(0xb7, 0, 0, 0, -1),
            insn(0x95, 0, 0, 0, 0),
        ];
        let program =
            Attached::new(interface, sys::BPF_PROG_TYPE_SCHED_CLS, sys::BPF_TCX_INGRESS, 0, &code)?;
        Ok(Self { counts, _program: program })
    }

    /// Packets so far without and with metadata.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn counts(&self) -> io::Result<[u64; 2]> {
        let mut counts = [0_u64; 2];
        for (key, count) in (0_u32..).zip(&mut counts) {
            // SAFETY: key and value have the sizes that the map was made with.
            let result = unsafe {
                sys::bpf_map_lookup_elem(
                    self.counts.as_raw_fd(),
                    (&raw const key).cast(),
                    ptr::from_mut(count).cast(),
                )
            };
            if result != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(counts)
    }
}

/// Attaches an XDP program in the driver that puts these words in front of every packet.
///
/// # Errors
/// The driver cannot, or something else that the kernel says.
pub fn write(interface: &str, words: [u16; 8]) -> io::Result<Attached> {
    let mut code = vec![
        insn(0xbf, 6, 1, 0, 0),
        insn(0xb7, 2, 0, 0, -16),
        insn(0x85, 0, 0, 0, XDP_ADJUST_META),
        // `data_meta` and `data` of `struct xdp_md`.
        insn(0x61, 2, 6, 8, 0),
        insn(0x61, 3, 6, 0, 0),
        insn(0xbf, 4, 2, 0, 0),
        insn(0x07, 4, 0, 0, 16),
        insn(0x2d, 4, 3, words.len() as i16, 0),
    ];
    for (at, word) in (0..).step_by(2).zip(words) {
        code.push(insn(0x6a, 2, 0, at, i32::from(word)));
    }
    code.extend([insn(0xb7, 0, 0, 0, XDP_PASS), insn(0x95, 0, 0, 0, 0)]);
    Attached::new(interface, sys::BPF_PROG_TYPE_XDP, sys::BPF_XDP, DRIVER_MODE, &code)
}

fn insn(code: u8, dst: u8, src: u8, off: i16, imm: i32) -> sys::bpf_insn {
    let mut insn = sys::bpf_insn { code, off, imm, ..sys::bpf_insn::default() };
    insn.set_dst_reg(dst);
    insn.set_src_reg(src);
    insn
}

/// A descriptor that libbpf has just returned, or the error that it left in `errno`.
///
/// # Safety
/// Nobody else has the descriptor.
unsafe fn owned(descriptor: i32) -> io::Result<OwnedFd> {
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the caller's promise.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}
