//! `cargo xtask package`: the agent as a Debian package. The binary is linked statically, so that one
//! package serves every release of Debian; manual pages and completions come out of that binary, so
//! that they are of the same build. dpkg-deb makes the package of a directory that is laid out here.

mod bill;
mod rpm;
mod rpm_trial;
mod stage;
pub(crate) mod trial;

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, bail};

use self::stage::Stage;
use crate::{
    kernels::foreign,
    machine::{Machine, Target},
    process::{cargo, command, command_in, find, target_directory, workspace},
};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only the binary, linked statically, as the container image wants it
    #[arg(long)]
    binary_only: bool,
    /// Build a second time, from a clone in another directory, and compare the packages byte by byte
    #[arg(long)]
    twice: bool,
    /// For another machine, by the compiler's name of it (aarch64-unknown-linux-musl, riscv64gc-unknown-linux-musl,
    /// s390x-unknown-linux-gnu ...)
    #[arg(long, conflicts_with_all = ["twice", "crates"])]
    target: Option<String>,
    /// The crates instead, as they would be published, each built from its own package
    #[arg(long)]
    crates: bool,
}

/// Who makes it, and an address where nobody is.
const DEVELOPERS: &str = "The ptp-agent developers";
const ADDRESS: &str = "ptp-agent@packages.invalid";
/// Those that others could use, in the order in which they need each other.
const CRATES: [&str; 5] =
    ["ptp-common", "ptp-clock-reader", "ptp-trace", "ptp-engine", "ptp-agent"];

/// A package that was built.
pub(crate) struct Built {
    /// The package.
    pub(crate) package: PathBuf,
    /// The same files as an RPM.
    pub(crate) rpm: PathBuf,
    /// The binary in it.
    pub(crate) binary: PathBuf,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let target = match &arguments.target {
        Some(name) => Target::parse(name)?,
        None => Target::of(Machine::own()?),
    };
    if arguments.binary_only {
        let binary = binary_for(&target)?;
        println!("{} ({})", binary.display(), size(&binary)?);
        return Ok(ExitCode::SUCCESS);
    }
    if arguments.crates {
        let names = CRATES.into_iter().flat_map(|name| ["--package", name]);
        cargo(["package", "--locked"].into_iter().chain(names)).quietly("cargo package")?;
        println!("{} in {}", CRATES.join(", "), target_directory().join("package").display());
        return Ok(ExitCode::SUCCESS);
    }
    let built = build_for(&target)?;
    for file in [&built.package, &built.rpm, &built.binary] {
        println!("{} ({})", file.display(), size(file)?);
    }
    if arguments.twice {
        build_again(&built)?;
        println!("a second build, in another directory, has the same bytes");
    }
    Ok(ExitCode::SUCCESS)
}

/// Builds what is committed once more, elsewhere.
fn build_again(first: &Built) -> Result<()> {
    let directory = tempfile::tempdir().context("cannot make a temporary directory")?;
    let clone = directory.path().join("elsewhere");
    let source = workspace().into_os_string();
    let arguments = ["clone".into(), "--quiet".into(), source, clone.clone().into_os_string()];
    command("git", arguments).quietly("git clone")?;
    command_in(&clone, "cargo", ["xtask", "package"])
        .env("CARGO_TARGET_DIR", clone.join("target"))
        .quietly("the second build")?;
    for file in [&first.package, &first.rpm] {
        let name = file.file_name().context("a package has a name")?;
        let again = clone.join("target/package").join(name);
        let (one, two) = (fs::read(file)?, fs::read(&again)?);
        let differs = one.iter().zip(&two).position(|(one, two)| one != two);
        if one != two {
            bail!(
                "{}: {} and {} bytes, alike up to {differs:?}",
                file.display(),
                one.len(),
                two.len()
            );
        }
    }
    Ok(())
}

/// What was built for a machine weighs, as far as it is there: facts for the documents.
pub(crate) fn sizes(machine: Machine) -> Vec<(&'static str, String)> {
    let (version, directory) = (env!("CARGO_PKG_VERSION"), target_directory());
    let package = directory.join("package");
    let deb = package.join(format!("ptp-agent_{version}_{}.deb", machine.debian()));
    let rpm = package.join(format!("ptp-agent-{version}-1.{}.rpm", machine.name()));
    let mut facts = Vec::new();
    if let (Ok(deb), Ok(rpm)) = (size(&deb), size(&rpm)) {
        facts.push(("packages", format!("{deb}, {rpm}")));
    }
    let binary = directory.join(Target::of(machine).name).join("release/ptp-agent");
    facts.extend(size(&binary).ok().map(|binary| ("binary", binary)));
    facts
}

/// The RPM of the same build, beside a Debian package.
pub(crate) fn rpm_beside(package: &Path) -> Result<PathBuf> {
    let (version, machine) = (env!("CARGO_PKG_VERSION"), Machine::own()?);
    Ok(package.with_file_name(format!("ptp-agent-{version}-1.{}.rpm", machine.name())))
}

fn size(file: &Path) -> Result<String> {
    Ok(format!("{:.2} MB", fs::metadata(file)?.len() as f64 / 1e6))
}

/// The agent for this machine, without symbols and without need of any library.
pub(crate) fn binary() -> Result<PathBuf> {
    binary_for(&Target::of(Machine::own()?))
}

fn binary_for(target: &Target) -> Result<PathBuf> {
    let arguments = ["build", "--release", "--package", "ptp-agent", "--bin", "ptp-agent"];
    // Where it was built is in no message of the program.
    let build = target.cargo(&arguments, &remapped_paths()?)?;
    if !build.env("CARGO_PROFILE_RELEASE_STRIP", "symbols").stream(|_| ())?.success() {
        bail!("the agent could not be built for {}", target.name);
    }
    Ok(target_directory().join(&target.name).join("release/ptp-agent"))
}

/// Names of directories that are the same wherever it is built.
fn remapped_paths() -> Result<String> {
    let home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    let places = [
        (Some(workspace()), "/ptp-agent"),
        (Some(target_directory()), "/target"),
        (home, "/cargo"),
    ];
    let remap = |(from, to): (Option<PathBuf>, &str)| {
        from.map(|from| format!("--remap-path-prefix={}={to}", from.display()))
    };
    let flags: Vec<_> = places.into_iter().filter_map(remap).collect();
    if flags.iter().any(|flag| flag.contains(' ')) {
        bail!("directories with a space in their name: the package cannot be built there");
    }
    Ok(flags.join(" "))
}

/// Builds the package for this machine.
pub(crate) fn build() -> Result<Built> {
    build_for(&Target::of(Machine::own()?))
}

fn build_for(target: &Target) -> Result<Built> {
    for (program, package) in [("dpkg-deb", "dpkg"), ("gzip", "gzip")] {
        if find(program).is_none() {
            bail!("{program} is needed to build the package (Debian's {package})");
        }
    }
    let binary = binary_for(target)?;
    let directory = tempfile::tempdir().context("cannot make a temporary directory")?;
    let stage = Stage::new(directory.path().join("ptp-agent"));
    let (version, architecture) = (env!("CARGO_PKG_VERSION"), target.machine.debian());
    lay_out(&stage, target, &binary, version)?;
    stage.finish(version, architecture)?;
    let output = target_directory().join("package");
    fs::create_dir_all(&output)?;
    let package = output.join(format!("ptp-agent_{version}_{architecture}.deb"));
    let options = ["--root-owner-group", "-Zxz", "--build"].map(OsString::from);
    let paths = [stage.root().into(), package.clone().into_os_string()];
    let date = source_date();
    command("dpkg-deb", options.into_iter().chain(paths))
        .env("SOURCE_DATE_EPOCH", date.to_string())
        .quietly("dpkg-deb")?;
    let rpm = rpm::build(&stage, version, target.machine.name(), date, &output)?;
    Ok(Built { package, rpm, binary })
}

/// Of the last commit, seconds since 1970: the only date that packages have.
fn source_date() -> u32 {
    let date = command("git", ["log", "-1", "--format=%ct"]).output();
    date.and_then(|date| date.trim().parse().ok()).unwrap_or(0)
}

/// Everything that is installed.
fn lay_out(stage: &Stage, target: &Target, binary: &Path, version: &str) -> Result<()> {
    let root = workspace();
    let deploy = root.join("docs/deploy");
    stage.program("usr/bin/ptp-agent", binary)?;
    stage.file("etc/ptp-agent.toml", fs::read(root.join("docs/ptp-agent.toml"))?)?;
    let unit = fs::read(deploy.join("ptp-agent.service"))?;
    stage.file("usr/lib/systemd/system/ptp-agent.service", unit)?;
    // Another machine's program, run by an emulator of its processor.
    let own = Machine::own()?;
    let emulator =
        (target.machine != own).then(|| foreign::emulator(target.machine)).transpose()?;
    let generate = |arguments: &[&str]| {
        let arguments = [&["generate"], arguments].concat();
        let said = match &emulator {
            Some(emulator) => {
                let program = std::iter::once(binary.as_os_str().to_owned());
                command(emulator, program.chain(arguments.iter().map(OsString::from))).output()
            }
            None => command(binary, &arguments).output(),
        };
        let arguments = &arguments[1..];
        said.with_context(|| format!("ptp-agent generate {} failed", arguments.join(" ")))
    };
    for (shell, path) in [
        ("bash", "usr/share/bash-completion/completions/ptp-agent"),
        ("zsh", "usr/share/zsh/vendor-completions/_ptp-agent"),
        ("fish", "usr/share/fish/vendor_completions.d/ptp-agent.fish"),
    ] {
        stage.file(path, generate(&["completions", shell])? + "\n")?;
    }
    let pages = tempfile::tempdir()?;
    generate(&["man", &pages.path().to_string_lossy()])?;
    for page in fs::read_dir(pages.path())? {
        let page = page?;
        let name = page.file_name();
        let path = format!("usr/share/man/man8/{}", name.to_string_lossy());
        stage.compressed(&path, fs::read(page.path())?)?;
    }
    let documents = "usr/share/doc/ptp-agent";
    stage.file(&format!("{documents}/README.md"), fs::read(root.join("README.md"))?)?;
    stage.tree(&format!("{documents}/docs"), &root.join("docs"))?;
    stage.file(&format!("{documents}/copyright"), copyright(&root)?)?;
    let linked = bill::linked(&target.name)?;
    stage.file(&format!("{documents}/third-party"), bill::list(&linked))?;
    stage.file(&format!("{documents}/sbom.cdx.json"), bill::bill(&linked, version)?)?;
    stage.compressed(&format!("{documents}/changelog"), changelog(version))?;
    for script in ["postinst", "prerm", "postrm"] {
        stage.program(&format!("DEBIAN/{script}"), &deploy.join("debian").join(script))?;
    }
    stage.file("DEBIAN/conffiles", "/etc/ptp-agent.toml\n")
}

fn copyright(root: &Path) -> Result<String> {
    let mit = fs::read_to_string(root.join("LICENSE-MIT"))?;
    let mut text = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\
                    Upstream-Name: ptp-agent\n\n\
                    Files: *\nCopyright: The ptp-agent developers\nLicense: Expat or Apache-2.0\n\n\
                    License: Apache-2.0\n \
                    On Debian systems the text is in /usr/share/common-licenses/Apache-2.0.\n\n\
                    License: Expat\n"
        .to_owned();
    for line in mit.lines() {
        text.push_str(&format!(" {}\n", if line.is_empty() { "." } else { line }));
    }
    Ok(text)
}

fn changelog(version: &str) -> String {
    let date = command("git", ["log", "-1", "--format=%aD"]).output().unwrap_or_default();
    let date = if date.trim().is_empty() { "Thu, 01 Jan 2026 00:00:00 +0000" } else { date.trim() };
    format!(
        "ptp-agent ({version}) unstable; urgency=medium\n\n  * See the history of the project.\n\n \
         -- {DEVELOPERS} <{ADDRESS}>  {date}\n"
    )
}
