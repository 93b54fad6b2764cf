//! `cargo xtask test package`, the RPM: its files are those of the Debian package, rpmlint finds no error, and `rpm` installs
//! it into a root of its own, finds it as it was packed, takes it over an older one without touching the configuration,
//! and removes it. The root is a Debian, since only `rpm` itself and the package's scripts are tried: what the package
//! wants of others (`useradd`, `getent`) is there under the same names.

use std::{ffi::OsString, fs, path::Path};

use anyhow::{Context, Result, ensure};

use super::trial::{self, Verdict};
use crate::process::{command, find, workspace};

/// Where rpm is to keep its list of what is installed.
const DATABASE: &str = "/var/lib/rpm";

/// Tries it; `told` hears of each claim. `deb`: the same files.
pub(super) fn run(deb: &Path, rpm: &Path, mut told: impl FnMut(Verdict)) {
    if !rpm.is_file() {
        println!("  no RPM: {}", rpm.display());
        told(Verdict::Skipped("there is no RPM beside the package"));
        return;
    }
    for (program, name, holds) in [
        ("rpm", "the RPM has the files of the Debian package", has_the_files as Claim),
        ("rpmlint", "rpmlint finds no error", is_clean),
        ("rpm", "rpm installs, verifies, updates and removes it", installs),
    ] {
        if find(program).is_none() {
            told(Verdict::Skipped("rpm or rpmlint is not installed"));
            continue;
        }
        match holds(deb, rpm) {
            Ok(()) => {
                println!("  ok: {name}");
                told(Verdict::Holds);
            }
            Err(error) => {
                println!("  FAILED: {name}: {error:#}");
                told(Verdict::Fails);
            }
        }
    }
}

type Claim = fn(&Path, &Path) -> Result<()>;

fn said(program: &str, words: &[&str], file: &Path) -> Result<String> {
    let arguments = words.iter().map(OsString::from).chain([file.into()]);
    command(program, arguments).output().with_context(|| format!("{program} {}", words.join(" ")))
}

fn has_the_files(deb: &Path, rpm: &Path) -> Result<()> {
    let listed = said("dpkg-deb", &["--contents"], deb)?;
    // Directories end in a slash, and are not in the other.
    let of_deb = listed.lines().filter_map(|line| line.split_whitespace().last());
    let mut of_deb: Vec<String> = of_deb
        .filter(|name| !name.ends_with('/'))
        .map(|name| name.trim_start_matches('.').to_owned())
        .collect();
    let listed = said("rpm", &["--query", "--list", "--package"], rpm)?;
    let mut of_rpm: Vec<String> = listed.lines().map(str::to_owned).collect();
    of_deb.sort();
    of_rpm.sort();
    ensure!(of_deb == of_rpm, "{} files there, {} here", of_deb.len(), of_rpm.len());
    let owners = said("rpm", &["--query", "--package", "--queryformat", OWNERS], rpm)?;
    ensure!(owners.split_whitespace().all(|owner| owner == "root:root"), "{owners}");
    let scripts = said("rpm", &["--query", "--scripts", "--package"], rpm)?;
    for script in ["postinstall", "preuninstall", "postuninstall"] {
        ensure!(scripts.contains(script), "no {script}: {scripts}");
    }
    Ok(())
}

const OWNERS: &str = "[%{FILEUSERNAME}:%{FILEGROUPNAME}\\n]";

fn is_clean(_: &Path, rpm: &Path) -> Result<()> {
    let config = workspace().join("docs/deploy/rpm/rpmlint.toml");
    let (code, text) = command("rpmlint", [Path::new("-c"), &config, rpm]).said()?;
    let last = text.lines().rev().find(|line| line.contains(" errors")).unwrap_or_default();
    println!("  rpmlint: {}", last.trim());
    ensure!(code == Some(0) && last.contains(" 0 errors"), "{text}");
    Ok(())
}

fn installs(_: &Path, rpm: &Path) -> Result<()> {
    let directory = tempfile::Builder::new().prefix("ptp-agent-rpm").tempdir()?;
    let root = directory.path();
    trial::unpack_base(root)?;
    let by_rpm = |words: &[&str], file: Option<&Path>| -> Result<String> {
        let place = ["--root".into(), root.as_os_str().to_owned()];
        let rest = ["--dbpath", DATABASE].into_iter().chain(words.iter().copied());
        let file = file.map(|file| file.as_os_str().to_owned());
        let arguments = place.into_iter().chain(rest.map(OsString::from)).chain(file);
        let (code, text) = command("rpm", arguments).said()?;
        ensure!(code == Some(0), "rpm {}: {text}", words.join(" "));
        Ok(text)
    };
    let inside = |words: &[&str]| -> Result<String> {
        let root = root.as_os_str().to_owned();
        let arguments = std::iter::once(root).chain(words.iter().map(OsString::from));
        let (code, text) = command("chroot", arguments).said()?;
        ensure!(code == Some(0), "{}: {text}", words.join(" "));
        Ok(text)
    };
    by_rpm(&["--initdb"], None)?;
    // Debian's list of packages is not rpm's.
    by_rpm(&["--install", "--nodeps"], Some(rpm))?;
    let text = by_rpm(&["--verify", "--nodeps", "ptp-agent"], None)?;
    ensure!(text.trim().is_empty(), "not as it was packed: {text}");
    let version = inside(&["ptp-agent", "--version"])?;
    ensure!(version.starts_with("ptp-agent "), "{version}");
    inside(&["ptp-agent", "config", "check", "/etc/ptp-agent.toml"])?;
    inside(&["getent", "passwd", "ptp-agent"])?;
    let config = root.join("etc/ptp-agent.toml");
    let changed = fs::read_to_string(&config)? + "# mine\n";
    fs::write(&config, &changed)?;
    by_rpm(&["--upgrade", "--force", "--nodeps"], Some(rpm))?;
    ensure!(fs::read_to_string(&config)? == changed, "the update took the configuration");
    by_rpm(&["--erase", "ptp-agent"], None)?;
    ensure!(!root.join("usr/bin/ptp-agent").exists(), "the program is still there");
    ensure!(!root.join("usr/lib/systemd/system/ptp-agent.service").exists(), "the unit is");
    let saved = root.join("etc/ptp-agent.toml.rpmsave");
    ensure!(fs::read_to_string(&saved)? == changed, "the changed configuration is not kept");
    Ok(())
}
