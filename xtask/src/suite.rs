//! `cargo xtask test`: installs what is missing if it can, then runs the checks and tests step by
//! step. A step that fails does not keep the next from running; a step or test that cannot run here
//! says why. At the end stands a table of the steps, and in the last line the number of tests.
//!
//! All compilation is done with `--workspace`, whatever part is then run, because cargo would build
//! shared crates anew for every other choice of packages.

mod report;
mod tally;
mod targets;

use std::{env, ffi::OsString, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Result, anyhow, bail, ensure};
use clap::ValueEnum;

use self::{
    report::{Outcome, Suite},
    tally::Tally,
    targets::TestTargets,
};
use crate::{
    ebpf, fuzz, kernels,
    machine::Machine,
    package::{
        self,
        trial::{self, Verdict},
    },
    process::{self, Command, TIMED_OUT, cargo, cargo_program, command_within},
    setup,
};

/// Where the kernel tests find the object that was just built from source.
const FRESH_OBJECT: &str = "PTP_EBPF_FRESH_OBJECT";

/// Names a package that is to be tried instead of one that is built.
const OTHER_PACKAGE: &str = "PTP_AGENT_PACKAGE";

/// Seconds that each fuzz target runs.
const FUZZ_SECONDS: u32 = 3;

/// How long the test programs of a step may take where nobody watches. They take a few minutes.
const TIME_LIMIT: Duration = Duration::from_secs(15 * 60);

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// What to run; everything but `kernels` and `package` if nothing is named
    groups: Vec<Group>,
    /// Only guests of these architectures, with kernels of their own (for kernels)
    #[arg(long, value_enum, value_name = "ARCH")]
    arch: Vec<Machine>,
    /// Write what the guests say about their kernels into the documents (for kernels)
    #[arg(long)]
    update: bool,
    /// Run only tests whose name contains this (for unit, kernel and interop), or only guests (for kernels)
    #[arg(last = true)]
    filter: Vec<OsString>,
}

/// A part of the suite that can be run by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Group {
    /// Formatting and clippy
    Lints,
    /// Unit, property and documentation tests
    Unit,
    /// The committed object against the source of the kernel programs
    Ebpf,
    /// Kernel programs and network namespaces; needs root
    Kernel,
    /// The agent against other PTP implementations; needs root
    Interop,
    /// Each fuzz target for a few seconds
    Fuzz,
    /// The agent on other kernels, in emulated machines whose clocks it steers
    Kernels,
    /// The Debian package in a Debian of its own, with systemd; needs root
    Package,
}

impl Arguments {
    /// Whether a group of the default run is wanted.
    fn want(&self, group: Group) -> bool {
        self.groups.is_empty() || self.groups.contains(&group)
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let mut suite = Suite::default();
    suite.step("setup", setup);
    if arguments.want(Group::Lints) {
        lints(&mut suite);
    }
    let runs_tests = [Group::Unit, Group::Kernel, Group::Interop];
    let built = runs_tests.into_iter().any(|group| arguments.want(group))
        && suite.step("build", || one(&cargo(["build", "--workspace", "--bins", "--tests"])));
    let targets = TestTargets::read();
    let targets = || targets.as_ref().map_err(|error| anyhow!("{error:#}"));
    let after_build = |run: &dyn Fn() -> Result<Outcome>| {
        if built { run() } else { Ok(Outcome::Skipped("the build failed".to_owned())) }
    };
    let filter = &arguments.filter;
    if arguments.want(Group::Unit) {
        suite.step("unit tests", || {
            after_build(&|| {
                let mut choice = vec!["--lib".to_owned(), "--bins".to_owned()];
                choice.extend(targets()?.unit.iter().flat_map(|name| test_option(name)));
                run_tests(&choice, &[], filter, None)
            })
        });
        suite.step("doc tests", || {
            after_build(&|| run_tests(&["--doc".to_owned()], &[], filter, None))
        });
    }
    // The kernel tests want the freshly built object, so that it is checked before them.
    let mut fresh = None;
    if arguments.want(Group::Ebpf) || arguments.want(Group::Kernel) {
        suite.step("ebpf check", || match ebpf::ready() {
            Ok(toolchain) => {
                fresh = Some(ebpf::check(&toolchain)?);
                Ok(Outcome::passed())
            }
            Err(reason) => Ok(Outcome::Skipped(format!("{reason:#}"))),
        });
    }
    let fresh = fresh.as_ref();
    // Tests that measure nanoseconds run one after the other. Others mostly wait for their peers, so some
    // run at a time, whatever the number of processors.
    let (one_by_one, some_at_a_time) = (["--test-threads=1"], ["--test-threads=4"]);
    if arguments.want(Group::Kernel) {
        suite.step("kernel tests", || {
            after_build(&|| named_tests(&targets()?.kernel, &one_by_one, filter, fresh))
        });
        suite.step("waiting kernel tests", || {
            after_build(&|| named_tests(&targets()?.waiting, &some_at_a_time, filter, fresh))
        });
    }
    if arguments.want(Group::Interop) {
        suite.step("interop tests", || {
            after_build(&|| named_tests(&targets()?.interop, &some_at_a_time, filter, fresh))
        });
    }
    if arguments.want(Group::Fuzz) {
        // On any toolchain; in a whole run they have been among the unit tests.
        if arguments.groups.contains(&Group::Fuzz) {
            suite.step("fuzz properties", || {
                one(&cargo(["test", "--workspace", "--quiet", "--test", "properties"]))
            });
        }
        suite.step("fuzz targets", fuzz);
    }
    if arguments.groups.contains(&Group::Kernels) {
        if arguments.arch.is_empty() {
            suite.step("kernels in guests", || guests(arguments.update, filter));
        }
        for machine in &arguments.arch {
            let name = format!("guest of {}", machine.name());
            suite.step(&name, || foreign_guest(*machine, arguments.update));
        }
    }
    if arguments.groups.contains(&Group::Package) {
        suite.step("package in a system", package_trial);
    }
    print!("\n{}", suite.summary());
    Ok(suite.exit_code())
}

fn package_trial() -> Result<Outcome> {
    if let Some(reason) = trial::reason_to_skip() {
        return Ok(Outcome::Skipped(reason));
    }
    let package = match env::var_os(OTHER_PACKAGE) {
        Some(package) => package.into(),
        None => package::build()?.package,
    };
    let mut tally = Tally::default();
    let rpm = package::rpm_beside(&package)?;
    trial::run(&package, &rpm, |verdict| match verdict {
        Verdict::Holds => tally.count_one(true),
        Verdict::Fails => tally.count_one(false),
        Verdict::Skipped(reason) => tally.skip(reason),
    })?;
    Ok(Outcome::Ran { tally })
}

fn test_option(name: &str) -> [String; 2] {
    ["--test".to_owned(), name.to_owned()]
}

fn setup() -> Result<Outcome> {
    let remaining = setup::ensure();
    for notice in &remaining.notices {
        println!("note: {notice}");
    }
    if remaining.errors.is_empty() {
        return Ok(Outcome::passed());
    }
    if process::is_root() {
        bail!("{}", remaining.errors.join("\n"));
    }
    // Not this user's to install; what needs it will say so.
    Ok(Outcome::Skipped(remaining.errors.join("\n")))
}

fn lints(suite: &mut Suite) {
    suite.step("format", || {
        let mut tally = Tally::default();
        for workspace in [".", "ptp-ebpf"].into_iter().chain(fuzz::crates()) {
            let manifest = format!("{workspace}/Cargo.toml");
            let format = cargo(["fmt", "--all", "--check", "--manifest-path", &manifest]);
            tally.count_one(format.stream(|_| ())?.success());
        }
        Ok(Outcome::Ran { tally })
    });
    suite.step("clippy", || {
        one(&cargo(["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"]))
    });
}

/// A command that counts as one test.
fn one(command: &Command) -> Result<Outcome> {
    let status = command.stream(|_| ())?;
    ensure!(status.success(), "{status}");
    Ok(Outcome::passed())
}

/// Run test programs by name, with `options` of the harness.
fn named_tests(
    names: &[String],
    options: &[&str],
    filter: &[OsString],
    fresh: Option<&PathBuf>,
) -> Result<Outcome> {
    if names.is_empty() {
        return Ok(Outcome::Skipped("there are none".to_owned()));
    }
    let choice: Vec<String> = names.iter().flat_map(|name| test_option(name)).collect();
    run_tests(&choice, options, filter, fresh)
}

fn run_tests(
    choice: &[String],
    options: &[&str],
    filter: &[OsString],
    fresh: Option<&PathBuf>,
) -> Result<Outcome> {
    let mut arguments: Vec<OsString> =
        ["test", "--workspace", "--no-fail-fast"].iter().map(OsString::from).collect();
    arguments.extend(choice.iter().map(OsString::from));
    // With what tests print that passed: the reasons of those that skipped themselves.
    arguments.extend(["--".into(), "--show-output".into()]);
    arguments.extend(options.iter().map(OsString::from));
    arguments.extend(filter.iter().cloned());
    let mut command = command_within(TIME_LIMIT, cargo_program(), arguments);
    if let Some(path) = process::search_path() {
        command = command.env("PATH", path);
    }
    if let Some(fresh) = fresh {
        command = command.env(FRESH_OBJECT, fresh);
    }
    let mut tally = Tally::default();
    let status = command.stream(|line| tally.read(line))?;
    if status.code() == Some(TIMED_OUT) {
        println!("these tests did not end within {} s", TIME_LIMIT.as_secs());
    }
    Ok(Outcome::Ran { tally: tally.with_status(status.success()) })
}

fn guests(update: bool, filter: &[OsString]) -> Result<Outcome> {
    let ready = match kernels::prepare() {
        Ok(ready) => ready,
        Err(error) => return Ok(Outcome::Skipped(format!("{error:#}"))),
    };
    let mut tally = Tally::default();
    for reason in &ready.missing {
        tally.skip(reason);
    }
    let compared = kernels::run(&ready, filter, update, |line| {
        println!("{line}");
        tally.read(line);
    });
    if let Err(error) = &compared {
        println!("{error:#}");
    }
    tally.count_one(compared.is_ok());
    Ok(Outcome::Ran { tally })
}

fn foreign_guest(machine: Machine, update: bool) -> Result<Outcome> {
    let mut tally = Tally::default();
    let compared = kernels::foreign::run(machine, update, |line| {
        println!("{line}");
        tally.read(line);
    });
    if let Err(error) = &compared {
        println!("{error:#}");
    }
    tally.count_one(compared.is_ok());
    Ok(Outcome::Ran { tally })
}

fn fuzz() -> Result<Outcome> {
    if let Some(reason) = fuzz::reason_to_skip() {
        return Ok(Outcome::Skipped(reason));
    }
    let mut tally = Tally::default();
    // Those that need the agent take minutes to build: they are `cargo xtask fuzz`'s, and property tests here.
    for fuzz_crate in fuzz::crates().into_iter().filter(|path| !fuzz::brings_the_agent(path)) {
        for target in fuzz::targets(fuzz_crate)? {
            tally.count_one(fuzz::one(fuzz_crate, &target, FUZZ_SECONDS)?.0);
        }
    }
    Ok(Outcome::Ran { tally })
}
