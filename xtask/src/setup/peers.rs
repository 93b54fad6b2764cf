//! Newer versions of peers than the system may have, which some tests want: a ptp4l that authenticates
//! (linuxptp 4.3), and ptpd, which as an installed package would be a service. They are unpacked below the target directory together with the C library that they are
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
/// What is unpacked: linuxptp and the libraries that it needs.
const PACKAGES: [&str; 3] = ["linuxptp", "libc6", "libnettle8t64"];

/// Unpacks the peers unless they are there.
pub(super) fn prepare() -> Result<()> {
    let peers = target_directory().join("peers");
    if !peers.join("usr/sbin/ptpd").is_file() && process::find("ptpd").is_none() {
        fs::create_dir_all(&peers).with_context(|| format!("cannot make {}", peers.display()))?;
        truth::get_peer("ptpd", &peers)?;
    }
    let directory = peers.join("linuxptp");
    if directory.is_dir() {
        println!("Peers are there.");
        return Ok(());
    }
    fs::create_dir_all(&peers).with_context(|| format!("cannot make {}", peers.display()))?;
    let apt = Apt::open(&peers.join("apt"), &[SUITE])?;
    apt.unpack(&PACKAGES.map(|name| format!("{name}/{SUITE}")), &directory)
}
