//! Guests of other architectures, `cargo xtask test kernels --arch ARCH`: a Debian kernel of that architecture in an
//! emulated machine, the agent and its tests built for it and linked statically, `ptp4l` and `ip` of Debian's packages
//! of that architecture. What they say goes into the table of `docs/architectures.md`. The recordings of this directory
//! are replayed here and there, and the lines must be the same.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError, atomic::AtomicBool},
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use super::{
    Job, Lab, Ready, artifacts, cache, find_artifact,
    image::{self, Image},
    kernel::{Build, Kernel, Series},
    qemu::{Qemu, Time, user_emulator},
    table::{self, Facts, Table},
    with_name,
};
use crate::{
    apt::Apt,
    machine::{Machine, Target},
    package,
    process::{Command, cargo, command, target_directory, workspace},
};

/// Where kernels, `ptp4l` and their libraries are taken from: the first Debian with all of these architectures.
const SUITE: &str = "trixie";
/// Has kernels of the same series, where that one's cannot be had.
const OTHER_SUITE: &str = "bookworm-backports";
/// Has `ptp4l` and its libraries, where the mirror lists the first one's and does not have all of them.
const OLDER_SUITE: &str = "bookworm";
const SERIES: Series = Series::LongTerm("6.12");
/// What is unpacked for the guest, with all that it depends on.
const PACKAGES: [&str; 3] = ["linuxptp", "iproute2", "ethtool"];
const TOOLS: [&str; 4] = ["ptp4l", "ip", "tc", "ethtool"];
/// Test programs of this workspace that are also run there.
const TESTS: [&str; 2] = ["answers", "transparent"];
/// Groups of tests of the guest's first process.
const GROUPS: [&str; 4] = ["capture", "follow", "clock", "machine"];
/// How long a guest may take on the host's clock: another architecture's instructions take longer to emulate.
const LIMIT: Duration = Duration::from_secs(3_600);
/// Below the workspace.
const RECORDINGS: &str = "bpf-tests/recordings";
/// Where the guest finds the recordings, and what their replay gives here.
const REPLAYS: &str = "/replays";

/// An emulator that runs programs of this machine beside those of this one, for what is made by the program itself.
pub(crate) fn emulator(machine: Machine) -> Result<PathBuf> {
    let cache = cache()?;
    fs::create_dir_all(&cache).with_context(|| format!("cannot make {}", cache.display()))?;
    user_emulator(&cache, machine)
}

/// Boots a guest of a machine and shows what it prints to `on_line`. Returns whether the documents' table is as it
/// says; with `update`, it is then.
pub(crate) fn run(machine: Machine, update: bool, on_line: impl FnMut(&str) + Send) -> Result<()> {
    let name = machine.name();
    let cache = cache()?;
    fs::create_dir_all(&cache).with_context(|| format!("cannot make {}", cache.display()))?;
    let (qemu, kernel, root) = {
        let lock = fs::File::create(cache.join("lock")).context("cannot write to the cache")?;
        lock.lock().context("cannot lock the cache")?;
        let qemu = Qemu::get(&cache, machine).context("no emulator")?;
        println!("  QEMU {}", qemu.version);
        let debian = machine.debian();
        let suites = [SUITE, OTHER_SUITE, OLDER_SUITE];
        let apt = Apt::open_for(&cache.join(format!("apt-{debian}")), &suites, Some(debian))?;
        let kernel = Kernel::get(&apt, &cache, SERIES, Build::Of(machine))?;
        let root = cache.join(format!("root-{debian}"));
        let is_there = |tool: &&str| {
            ["usr/sbin", "usr/bin", "sbin", "bin"]
                .iter()
                .any(|it| root.join(it).join(tool).exists())
        };
        if !TOOLS.iter().all(is_there) {
            if root.is_dir() {
                fs::remove_dir_all(&root).context("cannot unpack the packages anew")?;
            }
            unpack(&apt, SUITE, &root).or_else(|error| {
                println!("  note: {error:#}; {OLDER_SUITE} is tried");
                unpack(&apt, OLDER_SUITE, &root)
            })?;
        }
        (qemu, kernel, root)
    };
    let programs = build(machine)?;
    let directory = target_directory().join("kernels");
    fs::create_dir_all(&directory).context("cannot make a directory in the target directory")?;
    let base = base_image(machine, &programs, &root)?;
    let facts: Mutex<Facts> = Mutex::default();
    let tell = |fact: &str, value: String| {
        let mut facts = facts.lock().unwrap_or_else(PoisonError::into_inner);
        facts.insert((name, fact.to_owned()), value);
    };
    let on_line = Mutex::new(on_line);
    let show = |guest: &str, line: &str| {
        let mut on_line = on_line.lock().unwrap_or_else(PoisonError::into_inner);
        (*on_line)(&with_name(guest, line));
    };
    let ready =
        Ready { kernels: Vec::new(), card: None, newest_card: None, missing: Vec::new(), qemu };
    let lab = Lab { ready: &ready, base: &base, directory: &directory, show: &show, limit: LIMIT };
    let mut tests: Vec<String> = GROUPS.map(str::to_owned).to_vec();
    tests.extend(TESTS.map(|test| format!("/tests/{test}")));
    let tests: Vec<&str> = tests.iter().map(String::as_str).collect();
    let passed = Mutex::new((0_u32, 0_u32));
    let job = Job {
        name,
        kernel: &kernel,
        tests: &tests,
        devices: &[],
        time: Time::Virtual,
        stop: &AtomicBool::new(false),
    };
    lab.boot(&job, &|line| {
        if let Some((fact, value)) = table::fact(line) {
            tell(&fact, value);
        }
        if let Some((good, bad)) = result_of(line) {
            let mut passed = passed.lock().unwrap_or_else(PoisonError::into_inner);
            passed.0 += good;
            passed.1 += good + bad;
        }
    })?;
    let (good, all) = *passed.lock().unwrap_or_else(PoisonError::into_inner);
    tell("tests", format!("{good} of {all}"));
    for (fact, value) in package::sizes(machine) {
        tell(fact, value);
    }
    let facts = facts.into_inner().unwrap_or_else(PoisonError::into_inner);
    table::check(&Table::of_machines(), &facts, update)
}

/// Unpacks what the guest needs of a suite into a directory that does not exist.
fn unpack(apt: &Apt, suite: &str, root: &Path) -> Result<()> {
    let mut packages = Vec::new();
    for package in PACKAGES {
        packages.extend(apt.to_install(package, suite)?);
    }
    packages.sort();
    packages.dedup();
    apt.unpack(&packages, root)
}

/// How many passed and failed of what a test program ends with.
fn result_of(line: &str) -> Option<(u32, u32)> {
    let result = line.strip_prefix("test result: ")?;
    let count = |what: &str| {
        let mut words = result.split(&[' ', '.', ';'][..]).filter(|word| !word.is_empty());
        let mut last = words.next()?;
        words.find_map(|word| {
            let number = std::mem::replace(&mut last, word);
            (word == what).then(|| number.parse().ok())?
        })
    };
    Some((count("passed")?, count("failed")?))
}

struct Programs {
    agent: PathBuf,
    guest: PathBuf,
    tests: Vec<(&'static str, PathBuf)>,
    /// The agent of this machine.
    native: PathBuf,
}

/// Builds the programs, optimised: an emulated processor is slow.
fn build(machine: Machine) -> Result<Programs> {
    let target = Target::of(machine);
    // Without what needs a C compiler for that machine.
    let mut arguments = vec!["build", "--profile", "guests", "--no-default-features"];
    arguments.extend(["--package", "ptp-agent", "--package", "bpf-tests"]);
    arguments.extend(["--bin", "ptp-agent", "--bin", "guest"]);
    arguments.extend(TESTS.iter().flat_map(|name| ["--test", name]));
    let cargo_for_it = |arguments: &[&str]| -> Result<Command> {
        Ok(target.cargo(arguments, "")?.env("CARGO_PROFILE_GUESTS_STRIP", "symbols"))
    };
    cargo_for_it(&arguments)?.quietly(&format!("build of the programs for {}", target.name))?;
    arguments.extend(["--quiet", "--message-format", "json"]);
    let messages = cargo_for_it(&arguments)?.output();
    let built = artifacts(&messages.context("the programs for the guest do not build")?);
    cargo(["build", "--package", "ptp-agent"]).quietly("build of this machine's agent")?;
    let mut tests = Vec::new();
    for name in TESTS {
        tests.push((name, find_artifact(&built, "test", name)?));
    }
    Ok(Programs {
        agent: find_artifact(&built, "bin", "ptp-agent")?,
        guest: find_artifact(&built, "bin", "guest")?,
        tests,
        native: target_directory().join("debug/ptp-agent"),
    })
}

fn base_image(machine: Machine, programs: &Programs, root: &Path) -> Result<Vec<u8>> {
    let mut image = Image::default();
    let read = |program: &Path| {
        fs::read(program).with_context(|| format!("cannot read {}", program.display()))
    };
    image.add("/init", read(&programs.guest)?);
    image.add("/usr/bin/ptp-agent", read(&programs.agent)?);
    for (name, program) in &programs.tests {
        image.add(format!("/tests/{name}"), read(program)?);
    }
    for tool in TOOLS {
        image.add_foreign_tool(root, machine.triplet(), tool)?;
    }
    let mut count = 0;
    for entry in fs::read_dir(workspace().join(RECORDINGS)).context("no recordings")? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "pcapng") {
            continue;
        }
        let arguments = ["--json".into(), "replay".into(), path.clone().into_os_string()];
        let replayed = command(&programs.native, arguments).output();
        let replayed = replayed.with_context(|| format!("cannot replay {}", path.display()))?;
        let name = path.file_stem().context("a name")?.to_string_lossy().into_owned();
        image.add(format!("{REPLAYS}/{name}.pcapng"), fs::read(&path)?);
        image.add(format!("{REPLAYS}/{name}.json"), replayed.into_bytes());
        count += 1;
    }
    ensure!(count > 0, "no recordings in {RECORDINGS}");
    // Where ptp4l has a socket that only tells, since linuxptp 4.0.
    for directory in image::MOUNTED.into_iter().chain(["/var/run"]) {
        image.add_directory(directory);
    }
    let mut bytes = Vec::new();
    image.write(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_line_of_a_test_program_says_how_many_passed() {
        let line =
            "test result: FAILED. 16 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out";
        assert_eq!(result_of(line), Some((16, 1)));
        assert_eq!(result_of("test result: ok. 3 passed; 0 failed"), Some((3, 0)));
        assert_eq!(result_of("test a ... ok"), None);
    }
}
