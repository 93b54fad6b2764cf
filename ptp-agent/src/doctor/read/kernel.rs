//! Asking the kernel what it has, and what this process may.

use std::path::Path;

use aya::{
    maps::MapType,
    programs::ProgramType,
    sys::{is_helper_supported, is_map_supported},
    util::KernelVersion,
};
use aya_obj::generated::bpf_func_id;
use caps::{CapSet, Capability};
use ptp_common::classify::PORT_EVENT;

use super::file;
use crate::{
    doctor::facts::{Kernel, Privileges},
    sys::privileges::{CAPTURE, PORTS},
};

pub(super) fn read() -> Kernel {
    let name = nix::sys::utsname::uname().ok();
    let release =
        name.as_ref().map(|name| name.release().to_string_lossy().into_owned()).unwrap_or_default();
    let is_built_for_it =
        name.is_some_and(|name| name.version().to_string_lossy().contains("PREEMPT_RT"));
    let helper = |kind, id| is_helper_supported(kind, id).ok();
    Kernel {
        release,
        version: KernelVersion::current().unwrap_or(KernelVersion::new(0, 0, 0)),
        realtime: is_built_for_it || file("/sys/kernel/realtime").is_some_and(|is| is == "1"),
        btf: Path::new("/sys/kernel/btf/vmlinux").exists(),
        jit: super::interface::is_compiled().or_else(|| {
            // Not there in network namespaces other than the first.
            file("/proc/sys/net/core/bpf_jit_enable").map(|text| text != "0")
        }),
        ring_buffer: is_map_supported(MapType::RingBuf).ok(),
        tai_helper: helper(ProgramType::SchedClassifier, bpf_func_id::BPF_FUNC_ktime_get_tai_ns),
        xdp_load_bytes: helper(ProgramType::Xdp, bpf_func_id::BPF_FUNC_xdp_load_bytes),
    }
}

/// Looks at the capabilities of this process.
pub(super) fn privileges() -> Privileges {
    let has = |capability| caps::has_cap(None, CapSet::Effective, capability).unwrap_or(false);
    let low_ports_are_free = file("/proc/sys/net/ipv4/ip_unprivileged_port_start")
        .and_then(|text| text.parse::<u16>().ok())
        .is_some_and(|first| first <= PORT_EVENT);
    let replaced = |capability| match capability {
        Capability::CAP_BPF | Capability::CAP_PERFMON => has(Capability::CAP_SYS_ADMIN),
        Capability::CAP_NET_BIND_SERVICE => low_ports_are_free,
        _ => false,
    };
    let missing = |needed: &[Capability]| -> Vec<Capability> {
        needed.iter().copied().filter(|needed| !has(*needed) && !replaced(*needed)).collect()
    };
    let names = |list: Vec<Capability>| list.iter().map(ToString::to_string).collect();
    let for_stamps = missing(CAPTURE);
    let mut for_ports = missing(PORTS);
    for_ports.retain(|capability| !CAPTURE.contains(capability));
    Privileges { missing_for_stamps: names(for_stamps), missing_for_ports: names(for_ports) }
}
