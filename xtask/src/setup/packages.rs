//! The Debian packages that building and testing need: which there are, which are missing (judged by
//! the file that is needed and not by the package database, so that other ways to install it count),
//! and their installation without starting any service.

use std::{path::Path, process};

use anyhow::Result;

use super::no_daemons::{self, NoDaemons};
use crate::process::{Command, command, find};

/// A Debian package.
#[derive(Debug)]
pub(super) struct Package {
    pub(super) name: &'static str,
    /// What it is needed for.
    pub(super) purpose: &'static str,
    probe: Probe,
}

/// What shows that a package is there.
#[derive(Debug)]
enum Probe {
    Program(&'static str),
    /// Any of these files.
    File(&'static [&'static str]),
}

/// What is needed, those for building first.
const PACKAGES: [Package; 14] = [
    Package::program("gcc", "cc", "links every Rust program; compiles libbpf for the tests"),
    Package::file("libc6-dev", &["/usr/include/stdlib.h"], "the C library's part of linking"),
    Package::program("make", "make", "builds libbpf for the tests"),
    Package::program("pkg-config", "pkg-config", "finds libelf and zlib"),
    Package::file("libelf-dev", &["/usr/include/libelf.h"], "libbpf reads BPF objects with it"),
    Package::file("zlib1g-dev", &["/usr/include/zlib.h"], "libelf needs it"),
    Package::program("iproute2", "ip", "network namespaces and interfaces of the tests"),
    Package::program("nftables", "nft", "packet filters in the tests; its service stays off"),
    Package::program("ethtool", "ethtool", "interface features in the tests"),
    Package::program("linuxptp", "ptp4l", "the peer of the interoperability tests"),
    Package::program("chrony", "chronyd", "takes the agent's samples in the tests; never steers"),
    Package::program("bpftool", "bpftool", "shows what is attached where"),
    Package::program("tshark", "tshark", "second opinion on packets in the tests"),
    Package::program("prometheus", "prometheus", "checks and scrapes the metrics"),
];

impl Package {
    const fn program(name: &'static str, program: &'static str, purpose: &'static str) -> Self {
        Self { name, purpose, probe: Probe::Program(program) }
    }

    const fn file(
        name: &'static str,
        files: &'static [&'static str],
        purpose: &'static str,
    ) -> Self {
        Self { name, purpose, probe: Probe::File(files) }
    }

    fn is_present(&self) -> bool {
        match self.probe {
            Probe::Program(program) => find(program).is_some(),
            Probe::File(files) => files.iter().any(|file| Path::new(file).exists()),
        }
    }
}

/// What only the fuzz targets need.
const FOR_FUZZING: [Package; 1] = [Package::program("g++", "c++", "compiles the fuzzing engine")];

/// The packages that are not there.
pub(super) fn missing(fuzz: bool) -> Vec<&'static Package> {
    let fuzzing = FOR_FUZZING.iter().filter(|_| fuzz);
    PACKAGES.iter().chain(fuzzing).filter(|package| !package.is_present()).collect()
}

/// Install packages with apt-get, which must be there, as root. Services that they bring are neither
/// started now nor at the next start of the machine: a test tool must not leave daemons behind, least
/// of all one that steers the clock.
pub(super) fn install(names: &[&str]) -> Result<()> {
    no_daemons::catch_interrupts()?;
    let guard = NoDaemons::begin(Path::new(no_daemons::POLICY))?;
    let result = apt_get(&["update"]).quietly("apt-get update").and_then(|()| {
        let mut arguments = vec!["install", "--yes", "--no-install-recommends"];
        arguments.extend(names);
        apt_get(&arguments).quietly(&format!("apt-get install {}", names.join(" ")))
    });
    let disabled = disable_services(names);
    guard.end()?;
    if no_daemons::interrupted() {
        println!("  interrupted");
        process::exit(130);
    }
    result.and(disabled)
}

fn apt_get(arguments: &[&str]) -> Command {
    let mut all = vec!["-o", "DPkg::Lock::Timeout=120", "-q"];
    all.extend(arguments);
    command("apt-get", all).env("DEBIAN_FRONTEND", "noninteractive")
}

/// Disable the services of these packages, which were not there before.
fn disable_services(names: &[&str]) -> Result<()> {
    if find("systemctl").is_none() {
        return Ok(());
    }
    for name in names {
        for unit in services(name) {
            let is_enabled = command("systemctl", ["is-enabled", &unit]);
            if is_enabled.output().is_none_or(|state| state.trim() != "enabled") {
                continue;
            }
            command("systemctl", ["disable", &unit])
                .quietly(&format!("systemctl disable {unit}"))?;
        }
    }
    Ok(())
}

/// Names of the systemd services in a package, templates left out.
fn services(package: &str) -> Vec<String> {
    let files = command("dpkg-query", ["--listfiles", package]).output().unwrap_or_default();
    files
        .lines()
        .filter(|file| file.contains("/lib/systemd/system/") && file.ends_with(".service"))
        .filter(|file| !file.ends_with("@.service"))
        .filter_map(|file| file.rsplit('/').next())
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_counts_as_present_when_its_file_is_there() {
        assert!(Package::program("dash", "sh", "").is_present());
        assert!(Package::file("base-files", &["/no/such/file", "/etc/passwd"], "").is_present());
        assert!(!Package::program("none", "no-such-program", "").is_present());
        assert!(!Package::file("none", &["/no/such/file"], "").is_present());
    }

    #[test]
    fn a_package_that_is_not_installed_has_no_services() {
        assert!(services("no-such-package").is_empty());
    }
}
