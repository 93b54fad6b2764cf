//! Somebody else's program on TC or in the driver, beside the agent's: tags packets, drops them, or lets them pass and
//! nobody behind it see them. Written as instructions (RFC 9669), because two of them do not deserve a
//! compiler.

use std::{
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    ptr,
};

use aya::programs::TcAttachType;
use libbpf_sys as sys;
use nix::net::if_::if_nametoindex;

/// `BPF_FUNC_skb_vlan_push` of linux/bpf.h.
const SKB_VLAN_PUSH: i32 = 18;
/// `TCX_NEXT`, `TCX_DROP` and `TCX_PASS` (which is `TC_ACT_OK`) of linux/bpf.h.
const NEXT: i32 = -1;
const DROP: i32 = 2;
const PASS: i32 = 0;
/// `XDP_DROP`, `XDP_PASS` and `XDP_FLAGS_DRV_MODE`.
const XDP_DROP: i32 = 1;
const XDP_PASS: i32 = 2;
const DRIVER_MODE: u32 = 1 << 2;

/// What it does to each packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Adds a C-TAG with this control information, in metadata, as a VLAN interface does.
    Tag(u16),
    /// Drops it.
    Drop,
    /// Lets it pass, and ends the chain: what network policy agents do with what they permit.
    Accept,
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
        Self::attach_to(interface, sys::BPF_TCX_EGRESS, 0, act)
    }

    /// Attaches it in front of everything that is attached so far to TC ingress or egress.
    ///
    /// # Errors
    /// As [`Neighbour::attach`].
    pub fn attach_in_front(interface: &str, hook: TcAttachType, act: Act) -> io::Result<Self> {
        let hook = match hook {
            TcAttachType::Ingress => sys::BPF_TCX_INGRESS,
            _ => sys::BPF_TCX_EGRESS,
        };
        Self::attach_to(interface, hook, sys::BPF_F_BEFORE, act)
    }

    /// Attaches it in the driver of an interface, where there is one place: [`Act::Drop`] drops all, [`Act::Accept`] lets
    /// all pass.
    ///
    /// # Errors
    /// What the kernel says: EBUSY where another one is.
    ///
    /// # Panics
    /// For another act.
    pub fn attach_in_driver(interface: &str, act: Act) -> io::Result<Self> {
        let verdict = match act {
            Act::Drop => XDP_DROP,
            Act::Accept => XDP_PASS,
            Act::Tag(_) => panic!("XDP has no tags in metadata"),
        };
        Self::link(
            interface,
            sys::BPF_PROG_TYPE_XDP,
            &[set(0, verdict), exit()],
            sys::BPF_XDP,
            DRIVER_MODE,
        )
    }

    fn attach_to(
        interface: &str,
        hook: sys::bpf_attach_type,
        flags: u32,
        act: Act,
    ) -> io::Result<Self> {
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
            Act::Accept => vec![set(0, PASS), exit()],
        };
        Self::link(interface, sys::BPF_PROG_TYPE_SCHED_CLS, &instructions, hook, flags)
    }

    fn link(
        interface: &str,
        kind: sys::bpf_prog_type,
        instructions: &[sys::bpf_insn],
        hook: sys::bpf_attach_type,
        flags: u32,
    ) -> io::Result<Self> {
        // SAFETY: name and licence are C strings, the instructions are as many as is said; the
        // kernel checks what they do.
        let program = unsafe {
            owned(sys::bpf_prog_load(
                kind,
                c"neighbour".as_ptr(),
                c"GPL".as_ptr(),
                instructions.as_ptr(),
                instructions.len() as sys::size_t,
                ptr::null_mut(),
            ))?
        };
        let index = if_nametoindex(interface)?;
        let options = sys::bpf_link_create_opts {
            sz: size_of::<sys::bpf_link_create_opts>() as sys::size_t,
            flags,
            ..sys::bpf_link_create_opts::default()
        };
        // SAFETY: an open descriptor; the options live through the call and say how long they are.
        let link = unsafe {
            owned(sys::bpf_link_create(
                program.as_raw_fd(),
                index as i32,
                hook,
                &raw const options,
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
