//! Loads `ptp-hints.bpf.o`: the XDP program that asks the driver for the NIC's receive time and
//! leaves it for the program at TC ingress, where it becomes `hardware_ns` of the record. It calls a
//! function of the kernel (a kfunc) and is bound to one device, neither of which aya can do, so this
//! is a small loader for just this object: one program, no maps, one function to be found.

use std::{ffi::CString, io, os::fd::OwnedFd};

use aya_obj::{
    btf::{Btf, BtfKind},
    generated::BPF_PSEUDO_KFUNC_CALL,
};
use object::{
    Endianness, Object as _, ObjectSection as _, ObjectSymbol as _, RelocationTarget,
    read::elf::ElfFile64,
};

use super::programs::{CaptureError, kernel_release};
use crate::sys::bpf::{INSTRUCTION, link_native_xdp, load_device_bound_xdp};

/// The object as compiled by `cargo xtask ebpf build`.
pub static HINTS_OBJECT: &[u8] = kernel_programs!("ptp-hints");

const PROGRAM: &str = "ptp_xdp_hints";
/// Opcode of calls (RFC 9669 section 4.3).
const CALL: u8 = 0x85;

/// Its registers where it calls a function of the kernel: none as destination, and as source the number that says so.
/// Which of them is in which half of the byte depends on the machine's byte order (RFC 9669 section 3.1).
const KFUNC: u8 = if cfg!(target_endian = "little") {
    (BPF_PSEUDO_KFUNC_CALL as u8) << 4
} else {
    BPF_PSEUDO_KFUNC_CALL as u8
};

/// Why there are no hints. Everything else works without them.
#[derive(Debug, thiserror::Error)]
pub enum HintsError {
    /// The kernel has no such function.
    #[error(
        "this kernel ({kernel}) has no {function}: Linux 6.3 or later with CONFIG_DEBUG_INFO_BTF is needed"
    )]
    Kernel {
        /// Version of the kernel.
        kernel: String,
        /// The function.
        function: String,
    },
    /// The interface is not there.
    #[error("interface {0} does not exist")]
    NoInterface(String),
    /// Not for this process.
    #[error(transparent)]
    Privilege(CaptureError),
    /// The driver has no XDP.
    #[error("the driver of {0} cannot run XDP programs, so it has no XDP metadata")]
    Driver(String),
    /// One XDP program per device.
    #[error("{0} has an XDP program already (see `ip link show {0}`); it must go first")]
    Busy(String),
    /// The kernel refused.
    #[error("cannot {attempt} {PROGRAM} on {interface}: {source}{said}")]
    Refused {
        /// What was attempted.
        attempt: &'static str,
        /// The interface.
        interface: String,
        /// What the kernel said.
        source: io::Error,
        /// What its verifier said, after a colon.
        said: String,
    },
    /// The object is not what this loader is made for.
    #[error("cannot use the object: {0}")]
    Object(String),
}

impl HintsError {
    fn refused(attempt: &'static str, interface: &str, source: io::Error, said: &str) -> Self {
        let interface = interface.to_owned();
        let Some(code) = source.raw_os_error() else {
            return Self::Refused { attempt, interface, source, said: String::new() };
        };
        match (code, CaptureError::load(io::Error::from_raw_os_error(code))) {
            (libc::EOPNOTSUPP, _) => Self::Driver(interface),
            (libc::EBUSY | libc::EEXIST, _) => Self::Busy(interface),
            (_, error @ CaptureError::Privilege { .. }) => Self::Privilege(error),
            _ => {
                let said = if said.is_empty() { String::new() } else { format!(": {said}") };
                Self::Refused { attempt, interface, source, said }
            }
        }
    }

    /// Whether the host lacks something, rather than something having gone wrong.
    pub const fn is_missing_on_host(&self) -> bool {
        !matches!(self, Self::Object(_))
    }
}

/// The program on one interface. It is detached when this is dropped, or the process ends.
#[derive(Debug)]
pub struct Hints {
    _link: OwnedFd,
}

impl Hints {
    /// Loads the program for an interface of the current network namespace and attaches it.
    ///
    /// # Errors
    /// [`HintsError`]. Nothing remains attached.
    pub fn attach(interface: &str) -> Result<Self, HintsError> {
        let ifindex = nix::net::if_::if_nametoindex(interface)
            .map_err(|_| HintsError::NoInterface(interface.to_owned()))?;
        let btf = Btf::from_sys_fs();
        let mut program = parse(HINTS_OBJECT)?;
        program.link(|function| {
            let id = btf.as_ref().ok()?.id_by_type_name_kind(function, BtfKind::Func).ok()?;
            i32::try_from(id).ok()
        })?;
        let name = c"ptp_xdp_hints";
        let loaded = load_device_bound_xdp(name, &program.license, &program.code, ifindex)
            .map_err(|(source, said)| HintsError::refused("load", interface, source, &said))?;
        let link = link_native_xdp(&loaded, ifindex)
            .map_err(|source| HintsError::refused("attach", interface, source, ""))?;
        Ok(Self { _link: link })
    }
}

/// The program before its calls have their targets.
#[derive(Debug, PartialEq, Eq)]
struct Program {
    license: CString,
    code: Vec<u8>,
    /// Offset of each call of a function of the kernel, and its name.
    calls: Vec<(usize, String)>,
}

impl Program {
    /// Puts the number that `find` says into each call.
    fn link(&mut self, find: impl Fn(&str) -> Option<i32>) -> Result<(), HintsError> {
        for (offset, function) in &self.calls {
            let id = find(function).ok_or_else(|| HintsError::Kernel {
                kernel: kernel_release(),
                function: function.clone(),
            })?;
            // `parse` has checked that an instruction is there. Register 0 as destination, no offset:
            // the function is the kernel's own, not a module's.
            let instruction = &mut self.code[*offset..*offset + INSTRUCTION];
            instruction[1] = KFUNC;
            instruction[2..4].fill(0);
            instruction[4..].copy_from_slice(&id.to_ne_bytes());
        }
        Ok(())
    }
}

fn parse(object: &[u8]) -> Result<Program, HintsError> {
    let wrong = |what: &str| HintsError::Object(what.to_owned());
    let read = |error: object::Error| HintsError::Object(error.to_string());
    let file = ElfFile64::<Endianness>::parse(object).map_err(read)?;
    let license = file.section_by_name("license").ok_or_else(|| wrong("no licence"))?;
    let license = CString::from_vec_with_nul(license.data().map_err(read)?.to_vec())
        .map_err(|_| wrong("the licence is no C string"))?;
    let symbol = file.symbol_by_name(PROGRAM).ok_or_else(|| wrong("no program"))?;
    let section = symbol.section_index().ok_or_else(|| wrong("the program is not in it"))?;
    let section = file.section_by_index(section).map_err(read)?;
    let code = section.data().map_err(read)?.to_vec();
    let is_whole = symbol.address() == 0
        && usize::try_from(symbol.size()) == Ok(code.len())
        && code.len().is_multiple_of(INSTRUCTION);
    if !is_whole {
        return Err(wrong("the section holds more than the program"));
    }
    let mut calls = Vec::new();
    for (offset, relocation) in section.relocations() {
        let RelocationTarget::Symbol(target) = relocation.target() else {
            return Err(wrong("a relocation without a symbol"));
        };
        let target = file.symbol_by_index(target).map_err(read)?;
        let offset = usize::try_from(offset).map_err(|_| wrong("a relocation outside"))?;
        let is_call = offset.is_multiple_of(INSTRUCTION) && code.get(offset) == Some(&CALL);
        if !is_call || !target.is_undefined() {
            return Err(wrong("a relocation that is no call of a function of the kernel"));
        }
        calls.push((offset, target.name().map_err(read)?.to_owned()));
    }
    Ok(Program { license, code, calls })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FUNCTION: &str = "bpf_xdp_metadata_rx_timestamp";

    #[test]
    fn the_object_calls_one_function_of_the_kernel_once() {
        let program = parse(HINTS_OBJECT).unwrap();
        assert_eq!(program.license.as_c_str(), c"Dual MIT/GPL");
        let names: Vec<&str> = program.calls.iter().map(|(_, name)| name.as_str()).collect();
        assert_eq!(names, [FUNCTION]);
    }

    #[test]
    fn linking_changes_the_call_and_nothing_else() {
        let unlinked = parse(HINTS_OBJECT).unwrap();
        let mut linked = parse(HINTS_OBJECT).unwrap();
        linked.link(|name| (name == FUNCTION).then_some(0x0102_0304)).unwrap();
        let at = linked.calls[0].0;
        assert_eq!(linked.code[at..at + 4], [CALL, KFUNC, 0, 0]);
        assert_eq!(linked.code[at + 4..at + 8], 0x0102_0304_i32.to_ne_bytes());
        linked.code[at..at + 8].copy_from_slice(&unlinked.code[at..at + 8]);
        assert_eq!(linked, unlinked);
    }

    #[test]
    fn kernel_without_the_function_is_named_as_the_reason() {
        let error = parse(HINTS_OBJECT).unwrap().link(|_| None).unwrap_err();
        assert!(matches!(error, HintsError::Kernel { .. }));
        assert!(error.to_string().contains(FUNCTION) && error.to_string().contains("6.3"));
    }

    #[test]
    fn other_objects_are_refused() {
        for object in [&b""[..], &[0x7f; 100], super::super::OBJECT] {
            assert!(matches!(parse(object), Err(HintsError::Object(_))));
        }
        // Cut anywhere, it is refused or unharmed, without a panic.
        for length in (0..HINTS_OBJECT.len()).step_by(7) {
            let _ = parse(&HINTS_OBJECT[..length]);
        }
    }
}
