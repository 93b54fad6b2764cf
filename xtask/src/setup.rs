//! `cargo xtask setup`: says what building and testing need, what of it is there, and installs the
//! rest. It asks for nothing that is already there, so it can be repeated, and it needs root only
//! when a Debian package is missing. Two kinds of thing are wanted: Debian packages (see
//! [`packages`]) and the toolchain of the kernel programs, without which only `ebpf build` and
//! `ebpf check` do not work, because the compiled object is committed.

mod no_daemons;
mod packages;
mod peers;

use std::{env, fmt::Write, process::ExitCode};

use anyhow::{Result, anyhow, bail};

use self::packages::Package;
use crate::{
    ebpf::toolchain::{self, LINKER_VERSION, Toolchain},
    kernels,
    machine::Target,
    process::{cargo, command, find, is_root},
};

/// Version of `cargo-fuzz` that the fuzz targets are run with.
const CARGO_FUZZ_VERSION: &str = "0.13.2";

#[derive(clap::Args, Default)]
pub(crate) struct Arguments {
    /// Only say what is missing; exit code 1 if anything is
    #[arg(long)]
    check: bool,
    /// Only the Debian packages, the part that needs root
    #[arg(long)]
    packages_only: bool,
    /// Also what only the fuzz tests need
    #[arg(long)]
    fuzz: bool,
    /// Also download what only the tests on other kernels need; it is not installed
    #[arg(long, conflicts_with = "check")]
    kernels: bool,
    /// Also what building for another machine needs, by the compiler's name of it
    #[arg(long, conflicts_with = "check")]
    target: Option<String>,
    /// Also download newer peers of some tests than the system has; they are not installed
    #[arg(long, conflicts_with = "check")]
    peers: bool,
}

/// What is missing, found by looking and without changing anything.
struct Plan {
    packages: Vec<&'static Package>,
    toolchain: bool,
    linker: bool,
    fuzz: bool,
}

impl Plan {
    fn inspect(arguments: &Arguments) -> Self {
        let bpf = !arguments.packages_only;
        Self {
            packages: packages::missing(arguments.fuzz),
            toolchain: bpf && Toolchain::find().is_err(),
            linker: bpf && !toolchain::linker_is_installed(),
            fuzz: arguments.fuzz && find("cargo-fuzz").is_none(),
        }
    }

    fn is_empty(&self) -> bool {
        self.packages.is_empty() && !self.toolchain && !self.linker && !self.fuzz
    }

    fn describe(&self) -> String {
        let mut text = String::new();
        for package in &self.packages {
            let _ = writeln!(text, "  {:<20} {}", package.name, package.purpose);
        }
        if self.toolchain {
            let _ = writeln!(text, "  {:<20} compiler of the kernel programs", "BPF toolchain");
        }
        if self.linker {
            let _ = writeln!(text, "  {:<20} linker of the kernel programs", "bpf-linker");
        }
        if self.fuzz {
            let _ = writeln!(text, "  {:<20} runs the fuzz targets", "cargo-fuzz");
        }
        text
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    if arguments.kernels {
        for missing in kernels::prepare()?.missing {
            println!("note: {missing}");
        }
    }
    if arguments.peers {
        peers::prepare()?;
    }
    if let Some(name) = &arguments.target {
        let target = Target::parse(name)?;
        target.add()?;
        let packages = target.packages();
        if packages.iter().any(|(_, program)| find(program).is_none()) {
            let names: Vec<&str> = packages.iter().map(|(name, _)| name.as_str()).collect();
            install_packages(&names, &format!("sudo apt-get install {}", names.join(" ")))?;
        }
    }
    let plan = Plan::inspect(arguments);
    if plan.is_empty() {
        println!("Everything is there; nothing to do.");
        return Ok(ExitCode::SUCCESS);
    }
    print!("Missing:\n{}", plan.describe());
    if arguments.check {
        return Ok(ExitCode::FAILURE);
    }
    let remaining = install(&plan);
    for problem in &remaining.notices {
        println!("note: {problem}");
    }
    for problem in &remaining.errors {
        eprintln!("error: {problem}");
    }
    Ok(if remaining.errors.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What could not be installed.
#[derive(Default)]
pub(crate) struct Remaining {
    /// Without these something that the tests need is missing.
    pub(crate) errors: Vec<String>,
    /// Without these a part that few people need is missing.
    pub(crate) notices: Vec<String>,
}

/// For `cargo xtask test`: install what is missing if this can be done without asking anybody.
pub(crate) fn ensure() -> Remaining {
    let plan = Plan::inspect(&Arguments::default());
    if plan.is_empty() {
        println!("Everything is there.");
        return Remaining::default();
    }
    print!("Missing:\n{}", plan.describe());
    install(&plan)
}

fn install(plan: &Plan) -> Remaining {
    let mut remaining = Remaining::default();
    if !plan.packages.is_empty() {
        let names: Vec<&str> = plan.packages.iter().map(|package| package.name).collect();
        if let Err(error) = install_packages(&names, &as_root()) {
            remaining.errors.push(format!("{error:#}"));
        }
    }
    if plan.toolchain
        && let Err(error) = install_toolchain()
    {
        remaining.notices.push(format!(
            "{error:#}\n  Only `cargo xtask ebpf build` and `ebpf check` need it; everything else \
             uses the committed object."
        ));
    }
    if plan.linker
        && let Err(error) = toolchain_then_linker()
    {
        remaining.notices.push(format!("bpf-linker is missing: {error:#}"));
    }
    if plan.fuzz
        && let Err(error) = install_cargo_fuzz()
    {
        remaining.errors.push(format!("cargo-fuzz is missing: {error:#}"));
    }
    remaining
}

/// Install Debian packages, or say what to run `as_root` to have them.
fn install_packages(names: &[&str], as_root: &str) -> Result<()> {
    let list = names.join(" ");
    if find("apt-get").is_none() {
        bail!(
            "there is no apt-get here; install by this system's own means what Debian calls: {list}"
        );
    }
    if !is_root() {
        bail!("installing {list} needs root; run: {as_root}");
    }
    packages::install(names)
}

/// This command, limited to what needs root.
fn as_root() -> String {
    let this = env::current_exe()
        .map_or_else(|_| "target/debug/xtask".to_owned(), |path| path.display().to_string());
    format!(
        "sudo {this} setup --packages-only\n  (or use apt-get yourself; mind then that Debian's \
         prometheus starts a service)"
    )
}

fn install_toolchain() -> Result<()> {
    let channel = toolchain::pinned_channel()?;
    let mut tried = String::new();
    if find("rustup").is_some() {
        let install = command(
            "rustup",
            [
                "toolchain",
                "install",
                &channel,
                "--component",
                "rust-src",
                "--profile",
                "minimal",
                "--no-self-update",
            ],
        );
        match install.quietly(&format!("rustup toolchain install {channel}")) {
            Ok(()) => return Ok(()),
            Err(error) => {
                println!("  rustup could not install it; trying Debian's compiler.");
                let _ = write!(tried, "{error:#}");
            }
        }
    } else {
        tried.push_str("there is no rustup here");
    }
    let names = toolchain::DEBIAN_PACKAGES;
    let result = install_packages(&names, &format!("sudo apt-get install {}", names.join(" ")))
        .and_then(|()| Toolchain::find().map(drop));
    result.map_err(|error| {
        anyhow!("the compiler of the kernel programs is missing: {tried}; {error:#}")
    })
}

fn toolchain_then_linker() -> Result<()> {
    if Toolchain::find().is_err() {
        bail!("not tried, because the compiler that it belongs to is missing");
    }
    cargo(["install", "bpf-linker", "--version", LINKER_VERSION, "--locked"])
        .quietly(&format!("cargo install bpf-linker {LINKER_VERSION} (about a minute)"))
}

fn install_cargo_fuzz() -> Result<()> {
    cargo(["install", "cargo-fuzz", "--version", CARGO_FUZZ_VERSION, "--locked"])
        .quietly(&format!("cargo install cargo-fuzz {CARGO_FUZZ_VERSION} (about a minute)"))
}
