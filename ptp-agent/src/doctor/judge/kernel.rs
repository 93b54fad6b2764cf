//! What the kernel has of what the stamping programs use, and whether this process may use it.

use aya::util::KernelVersion;

use crate::doctor::{
    check::Check,
    facts::{Kernel, Privileges},
};

/// Ring buffers and CAP_BPF.
const OLDEST: KernelVersion = KernelVersion::new(5, 8, 0);
/// TCX links.
const TCX: KernelVersion = KernelVersion::new(6, 6, 0);

const UNASKED: &str = "cannot be asked without CAP_BPF";

pub(super) fn checks(kernel: &Kernel, privileges: &Privileges) -> Vec<Check> {
    vec![
        release(kernel),
        preemption(kernel),
        btf(kernel),
        ring_buffer(kernel),
        jit(kernel),
        tcx(kernel),
        tai_helper(kernel),
        xdp_load_bytes(kernel),
        stamps(privileges),
        ports(privileges),
    ]
}

fn release(kernel: &Kernel) -> Check {
    const NAME: &str = "kernel_release";
    if kernel.version < OLDEST {
        return Check::fail(
            NAME,
            format!("Linux {} is older than 5.8 and has no ring buffer", kernel.release),
            "install a kernel of version 5.10 or later",
        );
    }
    Check::ok(NAME, format!("Linux {}", kernel.release))
}

/// The programs count on bottom halves that do not interrupt each other.
fn preemption(kernel: &Kernel) -> Check {
    const NAME: &str = "preemption";
    if kernel.realtime {
        return Check::warn(
            NAME,
            "a real-time kernel (PREEMPT_RT): bottom halves interrupt each other, so counts of packets may miss some, and stamps are taken in threads that wait their turn",
            "compare and lab say what that costs here; counts are exact on other kernels",
        );
    }
    Check::ok(NAME, "bottom halves do not interrupt each other")
}

fn btf(kernel: &Kernel) -> Check {
    const NAME: &str = "btf";
    if kernel.btf {
        return Check::ok(NAME, "/sys/kernel/btf/vmlinux is there");
    }
    Check::fail(
        NAME,
        "/sys/kernel/btf/vmlinux is missing: the kernel does not describe its own types",
        "use a kernel built with CONFIG_DEBUG_INFO_BTF=y, and mount /sys",
    )
}

fn ring_buffer(kernel: &Kernel) -> Check {
    const NAME: &str = "ring_buffer";
    match kernel.ring_buffer {
        Some(true) => Check::ok(NAME, "stamps reach the agent through a ring buffer"),
        Some(false) => Check::fail(
            NAME,
            "the kernel has no eBPF ring buffer, or no eBPF at all",
            "use Linux 5.8 or later built with CONFIG_BPF_SYSCALL=y",
        ),
        None => Check::skip(NAME, UNASKED),
    }
}

fn jit(kernel: &Kernel) -> Check {
    const NAME: &str = "bpf_jit";
    match kernel.jit {
        Some(true) => Check::ok(NAME, "programs become machine code"),
        Some(false) => Check::warn(
            NAME,
            "programs are interpreted, which makes every packet and every stamp slower",
            "sysctl net.core.bpf_jit_enable=1, on a kernel built with CONFIG_BPF_JIT=y",
        ),
        None => Check::skip(NAME, UNASKED),
    }
}

fn tcx(kernel: &Kernel) -> Check {
    const NAME: &str = "tcx";
    if kernel.version >= TCX {
        return Check::ok(NAME, "programs are attached by links, which end with the agent");
    }
    Check::ok(NAME, "no TCX before Linux 6.6: the clsact queueing discipline is used instead")
        .advise("after a SIGKILL of the agent: tc qdisc del dev IFACE clsact, or start it again")
}

fn tai_helper(kernel: &Kernel) -> Check {
    const NAME: &str = "tai_helper";
    match kernel.tai_helper {
        Some(true) => Check::ok(NAME, "programs read CLOCK_TAI themselves"),
        Some(false) => Check::ok(
            NAME,
            "no bpf_ktime_get_tai_ns before Linux 6.1: TAI is computed from the monotonic stamp",
        ),
        None => Check::skip(NAME, UNASKED),
    }
}

fn xdp_load_bytes(kernel: &Kernel) -> Check {
    const NAME: &str = "xdp_load_bytes";
    match kernel.xdp_load_bytes {
        Some(true) => Check::ok(NAME, "XDP programs can read packets in several buffers"),
        Some(false) => Check::ok(
            NAME,
            "no bpf_xdp_load_bytes before Linux 5.18: XDP programs read the first buffer only",
        ),
        None => Check::skip(NAME, UNASKED),
    }
}

fn stamps(privileges: &Privileges) -> Check {
    const NAME: &str = "privileges_stamps";
    missing(
        NAME,
        "observe",
        &privileges.missing_for_stamps,
        "all that loading and attaching programs needs, so observe can run",
    )
}

fn ports(privileges: &Privileges) -> Check {
    const NAME: &str = "privileges_ports";
    missing(
        NAME,
        "run and serve",
        &privileges.missing_for_ports,
        "all that PTP sockets need, so run and serve can open theirs",
    )
}

fn missing(name: &'static str, commands: &str, missing: &[String], fine: &str) -> Check {
    if missing.is_empty() {
        return Check::ok(name, fine);
    }
    let list = missing.join(", ");
    Check::fail(
        name,
        format!("this process lacks {list} for {commands}"),
        format!("run as root, or AmbientCapabilities={} in the unit", missing.join(" ")),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::check::Status;

    fn modern() -> Kernel {
        Kernel {
            realtime: false,
            release: "6.12.1".to_owned(),
            version: KernelVersion::new(6, 12, 1),
            btf: true,
            jit: Some(true),
            ring_buffer: Some(true),
            tai_helper: Some(true),
            xdp_load_bytes: Some(true),
        }
    }

    fn status(kernel: &Kernel, privileges: &Privileges, name: &str) -> Status {
        let checks = checks(kernel, privileges);
        checks.iter().find(|check| check.name == name).expect("a check of this name").status
    }

    #[test]
    fn real_time_kernel_is_a_warning() {
        let kernel = Kernel { realtime: true, ..Kernel::default() };
        assert_eq!(preemption(&kernel).status, Status::Warn);
        assert_eq!(preemption(&Kernel::default()).status, Status::Ok);
    }

    #[test]
    fn modern_kernel_with_all_privileges_is_fine() {
        let checks = checks(&modern(), &Privileges::default());
        assert!(checks.iter().all(|check| check.status == Status::Ok), "{checks:?}");
    }

    #[test]
    fn substitutes_on_an_older_kernel_are_no_fault() {
        let older = Kernel {
            release: "5.10.0".to_owned(),
            version: KernelVersion::new(5, 10, 0),
            tai_helper: Some(false),
            xdp_load_bytes: Some(false),
            ..modern()
        };
        let checks = checks(&older, &Privileges::default());
        assert!(checks.iter().all(|check| check.status == Status::Ok), "{checks:?}");
    }

    #[test]
    fn what_has_no_substitute_is_a_failure() {
        let none = Privileges::default();
        let old = Kernel { version: KernelVersion::new(5, 7, 9), ..modern() };
        assert_eq!(status(&old, &none, "kernel_release"), Status::Fail);
        assert_eq!(status(&Kernel { btf: false, ..modern() }, &none, "btf"), Status::Fail);
        let no_ring = Kernel { ring_buffer: Some(false), ..modern() };
        assert_eq!(status(&no_ring, &none, "ring_buffer"), Status::Fail);
        let interpreted = Kernel { jit: Some(false), ..modern() };
        assert_eq!(status(&interpreted, &none, "bpf_jit"), Status::Warn);
    }

    #[test]
    fn missing_capabilities_are_named() {
        let privileges = Privileges {
            missing_for_ports: vec!["CAP_NET_RAW".to_owned()],
            ..Privileges::default()
        };
        let checks = checks(&modern(), &privileges);
        let failed: Vec<_> = checks.iter().filter(|check| check.status == Status::Fail).collect();
        let [check] = failed[..] else { panic!("{failed:?}") };
        assert_eq!(check.name, "privileges_ports");
        assert!(check.reason.contains("CAP_NET_RAW"), "{check:?}");
    }

    #[test]
    fn what_could_not_be_asked_is_skipped() {
        let unasked = Kernel { jit: None, ring_buffer: None, tai_helper: None, ..modern() };
        for name in ["bpf_jit", "ring_buffer", "tai_helper"] {
            assert_eq!(status(&unasked, &Privileges::default(), name), Status::Skip);
        }
    }
}
