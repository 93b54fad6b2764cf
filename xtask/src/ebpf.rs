//! `cargo xtask ebpf build` and `ebpf check`. The compiled kernel programs are committed, so that
//! building and installing the agent needs stable Rust only. The price is that source and object can
//! drift apart: `check` rebuilds from the source and compares instructions, programs and maps. Debug
//! information is left out of the object, and what remains of file names in it (the verifier quotes
//! the source) is relative to the workspace, so that the object does not depend on who built it.

mod disassembly;
mod strip;
pub(crate) mod toolchain;

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, bail, ensure};
use similar::TextDiff;

use self::toolchain::{LINKER_VERSION, Toolchain, cargo_home, linker_is_installed};
use crate::process::{target_directory, workspace};

/// The binaries of `ptp-ebpf`, each of which gives an object: the programs that stamp packets, those
/// that `ptp-agent bench` measures with, the one that asks the driver for the NIC's time, those that
/// `ptp-agent doctor` sends packets through, those that watch interrupts, those of the transparent clock, and those
/// that answer for a time transmitter.
const BINARIES: [&str; 7] = [AGENT, "ptp-bench", HINTS, PROBE, INTERRUPTS, TRANSPARENT, ANSWERS];
/// The programs that stamp packets once more, saying where they decide: the source with feature `log`.
const DEBUG: &str = "ptp-agent-debug";
/// All objects that are committed.
const OBJECTS: [&str; 8] =
    [AGENT, "ptp-bench", HINTS, PROBE, INTERRUPTS, TRANSPARENT, ANSWERS, DEBUG];
/// For `compare` and `doctor`.
const INTERRUPTS: &str = "ptp-interrupts";
/// Has no maps either.
const PROBE: &str = "ptp-probe";
/// Has no maps, so that it can be loaded without the machinery for them.
const HINTS: &str = "ptp-hints";
const AGENT: &str = "ptp-agent";
/// Changes packets that are forwarded.
const TRANSPARENT: &str = "ptp-transparent";
/// Makes answers of requests.
const ANSWERS: &str = "ptp-answers";

/// The byte order of the machines that objects are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Little,
    Big,
}

impl Order {
    const ALL: [Self; 2] = [Self::Little, Self::Big];

    /// As the compiler calls it.
    const fn target(self) -> &'static str {
        match self {
            Self::Little => "bpfel-unknown-none",
            Self::Big => "bpfeb-unknown-none",
        }
    }

    /// Where its objects are, in a directory of objects.
    const fn directory(self) -> &'static str {
        match self {
            Self::Little => "",
            Self::Big => "big-endian/",
        }
    }
}

/// Where the object of a binary is committed, below the workspace.
fn committed(order: Order, binary: &str) -> String {
    format!("ptp-agent/bpf/{}{binary}.bpf.o", order.directory())
}

#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Rebuild the objects and put them in their committed places
    Build,
    /// Rebuild the objects and fail if they differ from the committed ones
    Check,
}

pub(crate) fn run(command: &Command) -> Result<ExitCode> {
    let toolchain = ready()?;
    match command {
        Command::Build => {
            for order in Order::ALL {
                build(&toolchain, order)?;
                for binary in OBJECTS {
                    let committed = committed(order, binary);
                    let directory = workspace().join("ptp-agent/bpf").join(order.directory());
                    fs::create_dir_all(directory)?;
                    fs::copy(fresh(order, binary), workspace().join(&committed))
                        .with_context(|| format!("cannot write {committed}"))?;
                    println!("wrote {committed}");
                }
            }
        }
        Command::Check => {
            for order in Order::ALL {
                check_order(&toolchain, order)?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The compiler, once everything that building needs is there; the error says what is not.
pub(crate) fn ready() -> Result<Toolchain> {
    let toolchain = Toolchain::find().context("no compiler for the kernel programs")?;
    ensure!(
        linker_is_installed(),
        "bpf-linker {LINKER_VERSION} is missing; `cargo xtask setup` installs it"
    );
    Ok(toolchain)
}

/// Rebuild the objects for machines like this one and compare them with the committed ones. Returns where the new
/// object of the programs that stamp packets is. Those for the other byte order are of the same source, and made by the
/// same command; `ebpf check` rebuilds them too.
pub(crate) fn check(toolchain: &Toolchain) -> Result<PathBuf> {
    let order = if cfg!(target_endian = "little") { Order::Little } else { Order::Big };
    check_order(toolchain, order)?;
    Ok(fresh(order, AGENT))
}

fn check_order(toolchain: &Toolchain, order: Order) -> Result<()> {
    build(toolchain, order)?;
    OBJECTS.iter().try_for_each(|binary| compare(order, binary))
}

/// Compare the freshly built object of a binary with the committed one.
fn compare(order: Order, binary: &str) -> Result<()> {
    let committed = committed(order, binary);
    let describe = |path: &Path| -> Result<String> {
        let object = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        disassembly::describe(&object)
            .with_context(|| format!("cannot understand {}", path.display()))
    };
    let (old, new) = (describe(&workspace().join(&committed))?, describe(&fresh(order, binary))?);
    if old != new {
        let difference = TextDiff::from_lines(&old, &new);
        print!(
            "{}",
            difference
                .unified_diff()
                .context_radius(4)
                .header("committed object", "built from source")
        );
        bail!(
            "{committed} is not what the source gives (above); \
             if the source is right, run `cargo xtask ebpf build` and commit the object"
        );
    }
    println!(
        "{committed} is what the source gives: {} lines of instructions, programs and maps agree",
        new.lines().count()
    );
    Ok(())
}

/// Where the freshly built object of a binary is.
fn fresh(order: Order, binary: &str) -> PathBuf {
    target_directory().join("ebpf").join(order.directory()).join(format!("{binary}.bpf.o"))
}

/// Build the kernel programs, each binary's object to where [`fresh`] says.
fn build(toolchain: &Toolchain, order: Order) -> Result<()> {
    println!("compiler: {}; linker: bpf-linker {LINKER_VERSION}", toolchain.describe());
    let source = workspace().join("ptp-ebpf");
    let target = target_directory().join("ebpf");
    let fetch = toolchain.cargo(&source, vec!["fetch".into(), "--locked".into()]);
    ensure!(fetch.stream(|_| ())?.success(), "the crates of ptp-ebpf could not be fetched");

    let flags: Vec<String> = remapping(toolchain)?.iter().map(|flag| format!("{flag:?}")).collect();
    let arguments = vec![
        "build".to_owned(),
        "--release".to_owned(),
        "--locked".to_owned(),
        "--target-dir".to_owned(),
        target.display().to_string(),
        "--target".to_owned(),
        order.target().to_owned(),
        "--config".to_owned(),
        format!("target.{}.rustflags=[{}]", order.target(), flags.join(",")),
    ];
    // The one with the log first: what is linked in the end is what everything else reads.
    let take = |binary: &str, object: &str| {
        let linked = target.join(order.target()).join("release").join(binary);
        let bytes =
            fs::read(&linked).with_context(|| format!("cannot read {}", linked.display()))?;
        let stripped = fresh(order, object);
        fs::create_dir_all(stripped.parent().context("a file in a directory")?)?;
        fs::write(&stripped, strip::without_debug_information(&bytes)?)
            .with_context(|| format!("cannot write {}", stripped.display()))
    };
    let mut with_log = arguments.clone();
    with_log.extend(["--bin", AGENT, "--features", "log"].map(str::to_owned));
    for (arguments, objects) in [
        (with_log, &[(AGENT, DEBUG)][..]),
        (arguments, &BINARIES.map(|binary| (binary, binary))[..]),
    ] {
        let status = toolchain.cargo(&source, arguments).stream(|_| ())?;
        ensure!(status.success(), "ptp-ebpf could not be built ({status})");
        for (binary, object) in objects {
            take(binary, object)?;
        }
    }
    Ok(())
}

/// Compiler flags that replace the directories of this machine by names that mean the same anywhere.
fn remapping(toolchain: &Toolchain) -> Result<Vec<String>> {
    let mut replaced = vec![(workspace(), ".")];
    let library = toolchain.rust_source();
    if let Ok(real) = library.canonicalize() {
        replaced.push((real, "/rustc"));
    }
    replaced.push((library, "/rustc"));
    let registry = cargo_home()?.join("registry/src");
    for entry in
        fs::read_dir(&registry).with_context(|| format!("cannot read {}", registry.display()))?
    {
        replaced.push((entry?.path(), "/cargo"));
    }
    Ok(replaced
        .into_iter()
        .map(|(from, to)| format!("--remap-path-prefix={}={to}", from.display()))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_objects_name_no_directory_of_the_machine_that_built_them() -> Result<()> {
        for object in Order::ALL.iter().flat_map(|order| OBJECTS.map(|it| committed(*order, it))) {
            let bytes = fs::read(workspace().join(&object))?;
            let text = String::from_utf8_lossy(&bytes);
            let here = workspace().display().to_string();
            let general = ["/home/", "/root/", "/tmp/", "/usr/", ".cargo", "crates.io"];
            for directory in general.into_iter().chain([here.as_str()]) {
                assert!(!text.contains(directory), "{object} contains {directory}");
            }
        }
        Ok(())
    }

    #[test]
    fn the_committed_objects_have_programs_and_maps_and_no_debug_information() -> Result<()> {
        for binary in OBJECTS {
            for order in Order::ALL {
                let object = committed(order, binary);
                let bytes = fs::read(workspace().join(&object))?;
                let description = disassembly::describe(&bytes)?;
                assert!(description.contains("\nprogram "), "{object}: {description}");
                if order == Order::Little {
                    let has_maps = description.contains("\nmap ");
                    assert_eq!(
                        has_maps,
                        ![HINTS, PROBE].contains(&binary),
                        "{object}: {description}"
                    );
                }
                assert!(!String::from_utf8_lossy(&bytes).contains(".debug_"), "{object}");
            }
        }
        Ok(())
    }

    #[test]
    fn objects_of_both_byte_orders_have_the_same_programs() -> Result<()> {
        for binary in OBJECTS {
            let [little, big] = Order::ALL.map(|order| -> Result<Vec<String>> {
                let bytes = fs::read(workspace().join(committed(order, binary)))?;
                let description = disassembly::describe(&bytes)?;
                let is_one = |line: &&str| line.starts_with("program ");
                Ok(description.lines().filter(is_one).map(str::to_owned).collect())
            });
            assert_eq!(little?, big?, "{binary}");
        }
        Ok(())
    }
}
