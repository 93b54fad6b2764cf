//! The compiler of the kernel programs. It must build `core` for a BPF target, which stable Rust
//! does not allow. The pinned nightly of rustup is used where it is installed, otherwise Debian's
//! `rustc-web` with its sources, a stable compiler that is told to accept what nightly accepts. Both
//! have the same LLVM and were seen to give the same instructions.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow, bail};
use serde::Deserialize;

use crate::process::{Command, cargo_program, command, command_in, find, workspace};

/// Version of `bpf-linker` that the committed object is made with.
pub(crate) const LINKER_VERSION: &str = "0.10.4";

/// What Debian calls its newer Rust compiler (that of the web browsers) and the library's source.
pub(crate) const DEBIAN_PACKAGES: [&str; 2] = ["rustc-web", "rust-web-src"];

/// Where Debian puts the compiler, beyond the reach of rustup's names on the path.
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";

/// Major version of LLVM that `bpf-linker` works with.
const LLVM: &str = "22.";

/// A compiler that can build the kernel programs.
#[derive(Debug)]
pub(crate) struct Toolchain {
    kind: Kind,
    /// As the compiler calls itself.
    version: String,
    /// Where its own library and the library's source are.
    sysroot: PathBuf,
}

#[derive(Debug)]
enum Kind {
    Rustup { channel: String },
    Debian,
}

impl Kind {
    fn rustc(&self, arguments: &[&str]) -> Command {
        match self {
            Self::Rustup { channel } => {
                let all = ["run", channel, "rustc"].into_iter().chain(arguments.iter().copied());
                command("rustup", all).env("RUSTUP_AUTO_INSTALL", "0")
            }
            Self::Debian => command(DEBIAN_RUSTC, arguments),
        }
    }
}

impl Toolchain {
    /// Find one that is installed with the source of `core`, rustup's first.
    pub(crate) fn find() -> Result<Self> {
        let channel = pinned_channel()?;
        let rustup = Self::complete(Kind::Rustup { channel: channel.clone() });
        rustup.or_else(|rustup| {
            Self::complete(Kind::Debian).map_err(|debian| {
                anyhow!(
                    "neither rustup's {channel} ({rustup}) nor Debian's {DEBIAN_RUSTC} ({debian})"
                )
            })
        })
    }

    /// Ask the compiler what it is, and look for the source.
    fn complete(kind: Kind) -> Result<Self> {
        if matches!(kind, Kind::Rustup { .. }) && find("rustup").is_none() {
            bail!("there is no rustup");
        }
        let version = kind.rustc(&["-vV"]).output();
        let sysroot = kind.rustc(&["--print", "sysroot"]).output();
        let (Some(version), Some(sysroot)) = (version, sysroot) else { bail!("not installed") };
        let llvm = version.lines().find_map(|line| line.strip_prefix("LLVM version: "));
        if !llvm.is_some_and(|llvm| llvm.starts_with(LLVM)) {
            bail!("its LLVM is {}, needed is {LLVM}x", llvm.unwrap_or("unknown"));
        }
        let this = Self {
            kind,
            version: version.lines().next().unwrap_or_default().to_owned(),
            sysroot: PathBuf::from(sysroot.trim()),
        };
        if !this.rust_source().join("library/core/src/lib.rs").exists() {
            bail!("installed without the library's source");
        }
        Ok(this)
    }

    /// The Rust source tree of which `library/core` is a part.
    pub(super) fn rust_source(&self) -> PathBuf {
        self.sysroot.join("lib/rustlib/src/rust")
    }

    /// `cargo` of this toolchain in a directory, free of what another cargo has put in the environment.
    pub(super) fn cargo(&self, directory: &Path, arguments: Vec<String>) -> Command {
        let command = match &self.kind {
            Kind::Rustup { channel } => {
                let mut all = vec!["run".to_owned(), channel.clone(), "cargo".to_owned()];
                all.extend(arguments);
                command_in(directory, "rustup", all).env("RUSTUP_AUTO_INSTALL", "0")
            }
            Kind::Debian => command_in(directory, cargo_program(), arguments)
                .env("RUSTC", DEBIAN_RUSTC)
                .env("RUSTC_BOOTSTRAP", "1"),
        };
        command.without_env(&[
            "CARGO",
            "CARGO_BUILD_TARGET",
            "CARGO_ENCODED_RUSTFLAGS",
            "CARGO_TARGET_DIR",
            "RUSTC",
            "RUSTC_WORKSPACE_WRAPPER",
            "RUSTC_WRAPPER",
            "RUSTFLAGS",
        ])
    }

    /// For people: which compiler this is and where it comes from.
    pub(crate) fn describe(&self) -> String {
        match &self.kind {
            Kind::Rustup { channel } => format!("{} (rustup's {channel})", self.version),
            Kind::Debian => format!("{} (Debian's {DEBIAN_RUSTC})", self.version),
        }
    }
}

/// The nightly that `ptp-ebpf/rust-toolchain.toml` pins.
pub(crate) fn pinned_channel() -> Result<String> {
    #[derive(Deserialize)]
    struct File {
        toolchain: Table,
    }
    #[derive(Deserialize)]
    struct Table {
        channel: String,
    }
    let path = workspace().join("ptp-ebpf/rust-toolchain.toml");
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let file: File =
        toml::from_str(&text).with_context(|| format!("cannot understand {}", path.display()))?;
    Ok(file.toolchain.channel)
}

/// Whether `bpf-linker` is there, in the version wanted.
pub(crate) fn linker_is_installed() -> bool {
    let version = command("bpf-linker", ["--version"]).output();
    version.is_some_and(|version| version.split_whitespace().nth(1) == Some(LINKER_VERSION))
}

/// Cargo's home, below which it unpacks the crates that it builds.
pub(super) fn cargo_home() -> Result<PathBuf> {
    env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::home_dir().map(|home| home.join(".cargo")))
        .context("neither CARGO_HOME nor HOME is set")
}
