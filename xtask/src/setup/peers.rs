//! Newer versions of peers than the system may have, which some tests want: a ptp4l that authenticates
//! (linuxptp 4.3), a chronyd that speaks NTP over PTP (chrony 4.9), ntpd-rs, and ptpd, which as an installed package would
//! be a service. They are unpacked below the target directory together with the C library that they are
//! linked with, and started by its own loader; nothing is installed.

use std::fs;

use anyhow::{Context, Result};

use crate::{
    apt::Apt,
    process::{self, target_directory},
    truth,
};

/// Where Debian's newest packages are.
const SUITE: &str = "sid";
/// What is unpacked: for each peer a directory with its package and the libraries that it needs.
const PEERS: [(&str, &[&str]); 3] = [
    ("linuxptp", &["linuxptp", "libc6", "libnettle8t64"]),
    ("chrony", &CHRONY),
    ("ntpd-rs", &["ntpd-rs", "libc6", "libgcc-s1"]),
];
const CHRONY: [&str; 17] = [
    "chrony",
    "libc6",
    "libcap2",
    "libedit2",
    "libbsd0",
    "libmd0",
    "libtinfo6",
    "libseccomp2",
    "libgnutls30t64",
    "libnettle8t64",
    "libhogweed6t64",
    "libgmp10",
    "libp11-kit0",
    "libidn2-0",
    "libunistring5",
    "libtasn1-6",
    "libffi8",
];

/// Unpacks the peers unless they are there.
pub(super) fn prepare() -> Result<()> {
    let peers = target_directory().join("peers");
    if !peers.join("usr/sbin/ptpd").is_file() && process::find("ptpd").is_none() {
        fs::create_dir_all(&peers).with_context(|| format!("cannot make {}", peers.display()))?;
        truth::get_peer("ptpd", &peers)?;
    }
    let missing = PEERS.iter().filter(|(name, _)| !peers.join(name).is_dir());
    let missing: Vec<_> = missing.collect();
    if missing.is_empty() {
        println!("Peers are there.");
        return Ok(());
    }
    fs::create_dir_all(&peers).with_context(|| format!("cannot make {}", peers.display()))?;
    let apt = Apt::open(&peers.join("apt"), &[SUITE])?;
    for (name, packages) in missing {
        let packages: Vec<_> = packages.iter().map(|name| format!("{name}/{SUITE}")).collect();
        apt.unpack(&packages, &peers.join(name))?;
    }
    Ok(())
}
