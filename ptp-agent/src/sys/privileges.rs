//! Least privilege: before anything is opened, the process gives up every capability but those that
//! loading programs, attaching them and opening PTP sockets need. These stay, because an interface
//! that vanishes and returns needs them again.

use caps::{CapSet, Capability, CapsHashSet};

/// What stamps need: loading programs and attaching them.
pub(crate) const CAPTURE: &[Capability] =
    &[Capability::CAP_BPF, Capability::CAP_NET_ADMIN, Capability::CAP_PERFMON];

/// What comparing stamps needs: stamps, and packet sockets.
pub(crate) const COMPARE: &[Capability] = &[
    Capability::CAP_BPF,
    Capability::CAP_NET_ADMIN,
    Capability::CAP_PERFMON,
    Capability::CAP_NET_RAW,
];

/// What a transparent clock needs: its programs, and to send what it has held back.
pub(crate) const FRAMES: &[Capability] = COMPARE;

/// What measuring costs needs: stamps, a namespace of its own with PTP's ports, and the kernel's
/// statistics of programs.
pub(crate) const BENCH: &[Capability] = &[
    Capability::CAP_BPF,
    Capability::CAP_NET_ADMIN,
    Capability::CAP_NET_BIND_SERVICE,
    Capability::CAP_PERFMON,
    Capability::CAP_SYS_ADMIN,
];

/// What PTP ports need: stamps, Ethernet sockets and UDP ports 319 and 320.
pub(crate) const PORTS: &[Capability] = &[
    Capability::CAP_BPF,
    Capability::CAP_NET_ADMIN,
    Capability::CAP_PERFMON,
    Capability::CAP_NET_RAW,
    Capability::CAP_NET_BIND_SERVICE,
];

/// Drops all other capabilities of this thread, from which later threads inherit. Where CAP_BPF is
/// not to be had (before Linux 5.8), CAP_SYS_ADMIN stands in for it and is kept.
pub(crate) fn keep_only(needed: &[Capability]) {
    let Ok(permitted) = caps::read(None, CapSet::Permitted) else {
        return;
    };
    let mut kept: CapsHashSet =
        needed.iter().copied().filter(|capability| permitted.contains(capability)).collect();
    if !permitted.contains(&Capability::CAP_BPF) && permitted.contains(&Capability::CAP_SYS_ADMIN) {
        kept.insert(Capability::CAP_SYS_ADMIN);
    }
    // Inheritable first: it must not exceed what follows.
    let dropped = caps::clear(None, CapSet::Inheritable)
        .and_then(|()| caps::set(None, CapSet::Effective, &kept))
        .and_then(|()| caps::set(None, CapSet::Permitted, &kept));
    if let Err(error) = dropped {
        tracing::warn!(%error, "cannot drop capabilities");
    }
}
