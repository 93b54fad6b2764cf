//! Somebody else's program on TC egress, beside the agent's: tags packets, or drops them. Written as
//! instructions (RFC 9669), because two of them do not deserve a compiler.

use std::{
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    ptr,
};

use libbpf_sys as sys;
use nix::net::if_::if_nametoindex;

/// `BPF_FUNC_skb_vlan_push` of linux/bpf.h.
const SKB_VLAN_PUSH: i32 = 18;
/// `TCX_NEXT` and `TCX_DROP` of linux/bpf.h.
const NEXT: i32 = -1;
const DROP: i32 = 2;

/// What it does to each packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Adds a C-TAG with this control information, in metadata, as a VLAN interface does.
    Tag(u16),
    /// Drops it.
    Drop,
}

/// The attached program. Detached when dropped.
#[derive(Debug)]
pub struct Neighbour {
    _link: OwnedFd,
    _program: OwnedFd,
}

impl Neighbour {
    /// Attaches it behind everything that is attached so far to TC egress of an interface of the
    /// current network namespace.
    ///
    /// # Errors
    /// The kernel has no TCX (before Linux 6.6), or something else that it says.
    pub fn attach(interface: &str, act: Act) -> io::Result<Self> {
        let instructions = match act {
            Act::Tag(tci) => vec![
                // r1 is the packet already; the EtherType is wanted in network order.
                set(2, i32::from(0x8100_u16.to_be())),
                set(3, i32::from(tci)),
                call(SKB_VLAN_PUSH),
                set(0, NEXT),
                exit(),
            ],
            Act::Drop => vec![set(0, DROP), exit()],
        };
        // SAFETY: name and licence are C strings, the instructions are as many as is said; the
        // kernel checks what they do.
        let program = unsafe {
            owned(sys::bpf_prog_load(
                sys::BPF_PROG_TYPE_SCHED_CLS,
                c"neighbour".as_ptr(),
                c"GPL".as_ptr(),
                instructions.as_ptr(),
                instructions.len() as sys::size_t,
                ptr::null_mut(),
            ))?
        };
        let index = if_nametoindex(interface)?;
        // SAFETY: an open descriptor; no options.
        let link = unsafe {
            owned(sys::bpf_link_create(
                program.as_raw_fd(),
                index as i32,
                sys::BPF_TCX_EGRESS,
                ptr::null(),
            ))?
        };
        Ok(Self { _link: link, _program: program })
    }
}

/// # Safety
/// `result` must be a descriptor that nobody else owns, or a negative error number.
unsafe fn owned(result: i32) -> io::Result<OwnedFd> {
    if result < 0 {
        return Err(io::Error::from_raw_os_error(-result));
    }
    // SAFETY: the caller's.
    Ok(unsafe { OwnedFd::from_raw_fd(result) })
}

fn instruction(code: u8, register: u8, immediate: i32) -> sys::bpf_insn {
    sys::bpf_insn {
        code,
        _bitfield_align_1: [],
        _bitfield_1: sys::bpf_insn::new_bitfield_1(register, 0),
        off: 0,
        imm: immediate,
    }
}

/// Set a register to a constant: class ALU64, operation MOV.
fn set(register: u8, constant: i32) -> sys::bpf_insn {
    instruction(0xb7, register, constant)
}

/// Call a helper: class JMP.
fn call(helper: i32) -> sys::bpf_insn {
    instruction(0x85, 0, helper)
}

/// Return register 0: class JMP.
fn exit() -> sys::bpf_insn {
    instruction(0x95, 0, 0)
}
