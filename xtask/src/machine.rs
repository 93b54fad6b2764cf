//! The machines that the agent is built for: their names, which differ from tool to tool, and how a static program
//! for one of them is built on another. Machines of 32 bits are refused here, with the reason, before anything is built.

use std::path::Path;

use anyhow::{Result, bail};
use clap::ValueEnum;

use crate::process::{Command, cargo, command, find};

/// An architecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Machine {
    /// amd64
    #[value(name = "x86_64", alias = "amd64")]
    X86,
    /// arm64
    #[value(name = "aarch64", alias = "arm64")]
    Arm,
    /// Little-endian, with compressed instructions and hardware floating point
    #[value(name = "riscv64")]
    Riscv,
    /// Big-endian
    #[value(name = "s390x")]
    S390,
}

/// 32-bit architectures that somebody may ask for.
const TOO_SMALL: [&str; 8] =
    ["i586", "i686", "arm", "armv5te", "armv7", "mips", "powerpc", "riscv32gc"];

impl Machine {
    pub(crate) const ALL: [Self; 4] = [Self::X86, Self::Arm, Self::Riscv, Self::S390];

    /// As `uname -m`, the compiler and RPM call it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::X86 => "x86_64",
            Self::Arm => "aarch64",
            Self::Riscv => "riscv64",
            Self::S390 => "s390x",
        }
    }

    /// As Debian calls it.
    pub(crate) const fn debian(self) -> &'static str {
        match self {
            Self::X86 => "amd64",
            Self::Arm => "arm64",
            Self::Riscv => "riscv64",
            Self::S390 => "s390x",
        }
    }

    /// The directory of its libraries in Debian, which is also the beginning of the names of its cross compiler.
    pub(crate) const fn triplet(self) -> &'static str {
        match self {
            Self::X86 => "x86_64-linux-gnu",
            Self::Arm => "aarch64-linux-gnu",
            Self::Riscv => "riscv64-linux-gnu",
            Self::S390 => "s390x-linux-gnu",
        }
    }

    /// This one.
    pub(crate) fn own() -> Result<Self> {
        Self::of_architecture(std::env::consts::ARCH)
    }

    fn of_architecture(name: &str) -> Result<Self> {
        let known = |machine: &Self| {
            let compiler = if *machine == Self::Riscv { "riscv64gc" } else { machine.name() };
            name == machine.name() || name == compiler
        };
        if let Some(machine) = Self::ALL.into_iter().find(known) {
            return Ok(machine);
        }
        if TOO_SMALL.contains(&name) {
            bail!(
                "{name} is a machine of 32 bits: a stamp that another processor is writing may be read half there, \
                 and the error bound would not hold"
            );
        }
        let names: Vec<_> = Self::ALL.iter().map(|machine| machine.name()).collect();
        bail!("nothing is known of {name}; there are {}", names.join(", "))
    }

    /// What the agent is built for by default: musl, where Rust has its library for it.
    fn default_target(self) -> &'static str {
        match self {
            Self::X86 => "x86_64-unknown-linux-musl",
            Self::Arm => "aarch64-unknown-linux-musl",
            Self::Riscv => "riscv64gc-unknown-linux-musl",
            // Rust has no library for musl there.
            Self::S390 => "s390x-unknown-linux-gnu",
        }
    }

    /// What remains where rustup cannot download.
    fn other_target(self) -> &'static str {
        match self {
            Self::X86 => "x86_64-unknown-linux-gnu",
            Self::Arm => "aarch64-unknown-linux-gnu",
            Self::Riscv => "riscv64gc-unknown-linux-gnu",
            Self::S390 => "s390x-unknown-linux-gnu",
        }
    }
}

/// A way to build static programs for a machine.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) machine: Machine,
    /// As the compiler calls it.
    pub(crate) name: String,
}

impl Target {
    /// By the compiler's name, which must be one of Linux.
    pub(crate) fn parse(name: &str) -> Result<Self> {
        let (architecture, rest) = name.split_once('-').unwrap_or((name, ""));
        let machine = Machine::of_architecture(architecture)?;
        if !rest.contains("linux") {
            bail!(
                "{name} is no target for Linux, whose kernel runs the programs that stamp packets"
            );
        }
        Ok(Self { machine, name: name.to_owned() })
    }

    /// The best one for a machine, whose library is there then: with musl where Rust has it, otherwise with glibc,
    /// which is larger and looks names up in its own way only.
    pub(crate) fn of(machine: Machine) -> Self {
        let musl = Self { machine, name: machine.default_target().to_owned() };
        if musl.add().is_ok() {
            return musl;
        }
        println!("  the target {} is not to be had: linking glibc statically", musl.name);
        Self { machine, name: machine.other_target().to_owned() }
    }

    /// Gets Rust's library for it.
    ///
    /// Fails without a network, or where there is no rustup.
    pub(crate) fn add(&self) -> Result<()> {
        if self.is_there() {
            return Ok(());
        }
        if find("rustup").is_some() {
            let _ = command("rustup", ["target", "add", &self.name]).quietly("rustup target add");
        }
        if !self.is_there() {
            bail!("Rust's library for {} is not to be had (rustup target add)", self.name);
        }
        Ok(())
    }

    fn is_there(&self) -> bool {
        let arguments = ["--print", "target-libdir", "--target", &self.name];
        let libraries = command("rustc", arguments).output();
        libraries.is_some_and(|path| Path::new(path.trim()).is_dir())
    }

    fn is_musl(&self) -> bool {
        self.name.ends_with("-musl")
    }

    fn is_foreign(&self) -> bool {
        Machine::own().ok() != Some(self.machine)
    }

    /// Debian's packages that building needs, each with a program that shows whether it is there: the cross compiler and
    /// its C library. With Rust's own musl only the ciphers of TLS (ring) want them, which have some C in them.
    pub(crate) fn packages(&self) -> Vec<(String, String)> {
        if !self.is_foreign() {
            return Vec::new();
        }
        let gcc = format!("{}-gcc", self.machine.triplet());
        let package = format!("gcc-{}", self.machine.triplet());
        vec![(package, gcc.clone()), (format!("libc6-dev-{}-cross", self.machine.debian()), gcc)]
    }

    /// What the compiler is told, so that the program needs no library.
    pub(crate) fn flags(&self) -> &'static str {
        "-C target-feature=+crt-static"
    }

    /// Cargo, building for it.
    pub(crate) fn cargo(&self, arguments: &[&str], flags: &str) -> Result<Command> {
        self.add()?;
        let all = arguments.iter().copied().chain(["--target", &self.name]);
        let flags = format!("{} {flags}", self.flags());
        let mut cargo = cargo(all).env("RUSTFLAGS", flags.trim());
        // The ciphers of TLS (ring) have some C in them, which needs nothing of a C library.
        let name = self.name.replace('-', "_");
        let compiler = format!("CC_{name}");
        let is_chosen = std::env::var_os(&compiler).is_some();
        if !self.is_foreign() {
            if self.is_musl() && find("musl-gcc").is_none() && !is_chosen {
                cargo = cargo.env(&compiler, "cc");
            }
            return Ok(cargo);
        }
        let gcc = format!("{}-gcc", self.machine.triplet());
        if !is_chosen {
            if find(&gcc).is_none() {
                bail!("{gcc} is missing: cargo xtask setup --target {}", self.name);
            }
            cargo = cargo.env(&compiler, gcc.as_str());
        }
        // With musl the compiler's own linker, start-up code and C library.
        let linker = if self.is_musl() { "rust-lld" } else { gcc.as_str() };
        let variable = format!("CARGO_TARGET_{}_LINKER", name.to_uppercase());
        Ok(cargo.env(&variable, linker))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_known_by_the_compilers_names() -> Result<()> {
        for (name, debian) in [
            ("x86_64-unknown-linux-musl", "amd64"),
            ("aarch64-unknown-linux-gnu", "arm64"),
            ("riscv64gc-unknown-linux-musl", "riscv64"),
            ("s390x-unknown-linux-gnu", "s390x"),
        ] {
            assert_eq!(Target::parse(name)?.machine.debian(), debian);
        }
        Ok(())
    }

    #[test]
    fn machines_of_32_bits_are_refused_with_the_reason() {
        for name in ["i686-unknown-linux-musl", "armv7-unknown-linux-musleabihf"] {
            let error = Target::parse(name).unwrap_err().to_string();
            assert!(error.contains("32 bits") && error.contains("error bound"), "{error}");
        }
        let error = Target::parse("sparc64-unknown-linux-gnu").unwrap_err().to_string();
        assert!(error.contains("nothing is known of sparc64"), "{error}");
        assert!(Target::parse("aarch64-apple-darwin").is_err());
    }

    #[test]
    fn a_foreign_target_needs_a_cross_compiler() -> Result<()> {
        let target = Target::parse("s390x-unknown-linux-gnu")?;
        if target.is_foreign() {
            let names: Vec<_> = target.packages().into_iter().map(|(name, _)| name).collect();
            assert_eq!(names, ["gcc-s390x-linux-gnu", "libc6-dev-s390x-cross"]);
        }
        Ok(())
    }
}
