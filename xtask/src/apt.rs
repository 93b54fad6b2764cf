//! Debian packages without installing them: apt-get and apt-cache with sources, lists and cache of
//! their own, everything else (proxies, credentials, the package database) being the machine's. The
//! mirrors are those that the machine itself uses. Packages are unpacked with dpkg-deb; none of their
//! scripts run, and nothing of it needs root.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result, bail};

use crate::process::{Command, command, command_in, find};

/// Where Debian is when the machine's configuration does not say.
const DEBIAN: &str = "http://deb.debian.org/debian";
const SECURITY: &str = "http://deb.debian.org/debian-security";
/// Keys of all of Debian's suites, in the package debian-archive-keyring.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// After this time the lists are fetched again.
const LISTS_LAST: Duration = Duration::from_secs(20 * 60 * 60);

/// Where Debian's packages come from.
#[derive(Debug, PartialEq, Eq)]
struct Mirrors {
    debian: String,
    security: String,
}

impl Mirrors {
    /// Those of the machine's configuration.
    fn of_this_machine() -> Self {
        let format = "$(REPO_URI)";
        let targets = command("apt-get", ["indextargets", "--format", format]).output();
        Self::among(targets.unwrap_or_default().lines())
    }

    fn among<'a>(addresses: impl Iterator<Item = &'a str>) -> Self {
        let mut found = Self { debian: DEBIAN.to_owned(), security: SECURITY.to_owned() };
        for address in addresses {
            let address = address.trim().trim_end_matches('/');
            match address.rsplit('/').next() {
                Some("debian") => found.debian = address.to_owned(),
                Some("debian-security") => found.security = address.to_owned(),
                _ => {}
            }
        }
        found
    }
}

/// A version of a package that can be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) version: String,
    pub(crate) depends: String,
}

/// Packages of some suites.
#[derive(Debug)]
pub(crate) struct Apt {
    directory: PathBuf,
    /// Debian's name of another architecture than this machine's, whose packages these are. Nothing is taken to be
    /// installed then.
    architecture: Option<&'static str>,
}

impl Apt {
    /// Gets the lists of packages of `suites`, unless they are recent. Where a mirror no longer has a
    /// suite, the others are used.
    pub(crate) fn open(directory: &Path, suites: &[&str]) -> Result<Self> {
        Self::open_for(directory, suites, None)
    }

    /// The same, of packages of another architecture.
    pub(crate) fn open_for(
        directory: &Path,
        suites: &[&str],
        architecture: Option<&'static str>,
    ) -> Result<Self> {
        for program in ["apt-get", "apt-cache", "dpkg-deb"] {
            if find(program).is_none() {
                bail!("there is no {program} here; Debian's kernels are downloaded with it");
            }
        }
        for part in ["lists/partial", "state", "cache/archives/partial", "sources.list.d"] {
            fs::create_dir_all(directory.join(part))
                .with_context(|| format!("cannot make {}", directory.display()))?;
        }
        if architecture.is_some() {
            fs::write(directory.join("status"), "").context("cannot write to the cache")?;
        }
        let this = Self { directory: directory.to_owned(), architecture };
        let sources = sources(&Mirrors::of_this_machine(), suites);
        let file = directory.join("sources.list");
        let stamp = directory.join("updated");
        let fresh = fs::read_to_string(&file).is_ok_and(|old| old == sources)
            && age(&stamp).is_some_and(|age| age < LISTS_LAST);
        if !fresh {
            fs::write(&file, sources).with_context(|| format!("cannot write {file:?}"))?;
            this.update(&stamp)?;
        }
        Ok(this)
    }

    fn update(&self, stamp: &Path) -> Result<()> {
        let updated = self.apt("apt-get", ["update"]).quietly("lists of Debian's packages");
        match &updated {
            Ok(()) => fs::write(stamp, "").context("cannot write to the cache")?,
            // Debian takes old suites off its mirrors at some time; the others' lists are there then.
            Err(error) => println!("  note: {error:#}"),
        }
        Ok(())
    }

    /// All versions of a package.
    pub(crate) fn candidates(&self, package: &str) -> Vec<Candidate> {
        let shown = self.apt("apt-cache", ["show", package]).output().unwrap_or_default();
        shown.split("\n\n").filter_map(candidate).collect()
    }

    /// What `apt-get install` would install to have `package`: names with versions. What is there
    /// already is left out.
    pub(crate) fn to_install(&self, package: &str, suite: &str) -> Result<Vec<String>> {
        let arguments = [
            "--simulate",
            "--no-install-recommends",
            "--target-release",
            suite,
            "install",
            package,
        ];
        let simulated = self.apt("apt-get", arguments).output();
        let simulated = simulated
            .with_context(|| format!("{package} cannot be had from {suite} for this machine"))?;
        Ok(installations(&simulated))
    }

    /// Downloads packages and unpacks them all into `directory`, which must not exist and is only
    /// there when everything went well.
    pub(crate) fn unpack(&self, packages: &[String], directory: &Path) -> Result<()> {
        let parent = directory.parent().context("no directory to unpack into")?;
        fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
        let work = tempfile::tempdir_in(parent).context("cannot make a directory")?;
        let downloads = work.path().join("packages");
        let unpacked = work.path().join("unpacked");
        fs::create_dir(&downloads)?;
        let mut arguments: Vec<OsString> = self.options();
        arguments.push("download".into());
        arguments.extend(packages.iter().map(OsString::from));
        let title = match packages {
            [one] => format!("download of {one}"),
            [first, more @ ..] => format!("download of {first} and {} more", more.len()),
            [] => bail!("no packages to download"),
        };
        command_in(&downloads, "apt-get", arguments).quietly(&title)?;
        for file in fs::read_dir(&downloads)? {
            let arguments = ["-x".into(), file?.path().into_os_string(), unpacked.clone().into()];
            command("dpkg-deb", arguments).output().context("dpkg-deb -x failed")?;
        }
        fs::rename(&unpacked, directory)
            .with_context(|| format!("cannot make {}", directory.display()))
    }

    fn apt<const N: usize>(&self, program: &str, arguments: [&str; N]) -> Command {
        command(program, self.options().into_iter().chain(arguments.map(OsString::from)))
            .env("DEBIAN_FRONTEND", "noninteractive")
            .env("LC_ALL", "C")
    }

    fn options(&self) -> Vec<OsString> {
        let directory = self.directory.display();
        let other = self.architecture.map_or_else(Vec::new, |architecture| {
            vec![
                format!("APT::Architecture={architecture}"),
                format!("APT::Architectures={architecture}"),
                format!("Dir::State::status={directory}/status"),
            ]
        });
        [
            format!("Dir::Etc::sourcelist={directory}/sources.list"),
            format!("Dir::Etc::sourceparts={directory}/sources.list.d"),
            format!("Dir::State={directory}/state"),
            format!("Dir::State::lists={directory}/lists"),
            format!("Dir::Cache={directory}/cache"),
            // Its user may not be allowed to write into the cache of this one.
            "APT::Sandbox::User=root".to_owned(),
            "Acquire::Languages=none".to_owned(),
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".to_owned(),
            "Acquire::Retries=3".to_owned(),
        ]
        .into_iter()
        .chain(other)
        .flat_map(|option| ["-o".into(), option.into()])
        .chain(["-q".into()])
        .collect()
    }
}

fn sources(mirrors: &Mirrors, suites: &[&str]) -> String {
    let keys = if Path::new(KEYRING).exists() {
        format!("[signed-by={KEYRING}] ")
    } else {
        // The machine's own keys then have to do.
        String::new()
    };
    let line = |suite: &&str| {
        let mirror = if suite.ends_with("-security") { &mirrors.security } else { &mirrors.debian };
        format!("deb {keys}{mirror} {suite} main\n")
    };
    suites.iter().map(line).collect()
}

fn age(file: &Path) -> Option<Duration> {
    SystemTime::now().duration_since(file.metadata().ok()?.modified().ok()?).ok()
}

fn candidate(paragraph: &str) -> Option<Candidate> {
    let field =
        |name: &str| paragraph.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    Some(Candidate {
        version: field("Version")?.to_owned(),
        depends: field("Depends").unwrap_or_default().to_owned(),
    })
}

/// The packages of `Inst NAME (VERSION SUITES [ARCHITECTURE])`.
fn installations(simulated: &str) -> Vec<String> {
    let installation = |line: &str| {
        let (name, rest) = line.strip_prefix("Inst ")?.split_once(' ')?;
        let version = rest.split_once('(')?.1.split_whitespace().next()?;
        Some(format!("{name}={version}"))
    };
    simulated.lines().filter_map(installation).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_are_those_of_the_machine() {
        let mirrors = Mirrors::among(
            ["http://mirror.example/a/debian/", "https://other.example/node", ""].into_iter(),
        );
        assert_eq!(mirrors.debian, "http://mirror.example/a/debian");
        assert_eq!(mirrors.security, SECURITY);
        let sources = sources(&mirrors, &["sid", "bookworm-security"]);
        assert!(sources.contains("http://mirror.example/a/debian sid main\n"), "{sources}");
        assert!(sources.contains(" http://deb.debian.org/debian-security bookworm-security main"));
    }

    #[test]
    fn versions_and_what_would_be_installed_are_understood() {
        let shown = "Package: x\nVersion: 1-2\nDepends: y (= 1), z\n\nPackage: x\nVersion: 3\n";
        let versions: Vec<_> = shown.split("\n\n").filter_map(candidate).collect();
        assert_eq!(versions[0], Candidate { version: "1-2".into(), depends: "y (= 1), z".into() });
        assert_eq!(versions[1].version, "3");
        let simulated =
            "Reading lists\nInst a (1:2-3 Debian:12/stable [all])\nInst b [1] (4 X)\nConf a";
        assert_eq!(installations(simulated), ["a=1:2-3", "b=4"]);
    }
}
