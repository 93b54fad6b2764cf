//! `cargo xtask bench suite`: linuxptp's own test suite with nodes of this project in ptp4l's place. The suite, the
//! simulator clknetsim that it runs in and linuxptp are other people's, under other licences, and are no part of
//! this project: they are where the developer says, and nothing of them is kept. A run is a copy of the suite's
//! scripts in a directory of its own, in which the shortest time to synchronise is 0, because to be faster than
//! ptp4l is no fault.

mod table;

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{self, ExitCode, Stdio},
    sync::{Mutex, PoisonError},
    thread,
};

use anyhow::{Context, Result, bail};

use crate::process::{cargo, find, search_path, target_directory};
use table::{Outcome, Run};

/// A test may take so long, seconds, many times what the longest does.
const LIMIT_S: u32 = 900;
/// What the suite finds nodes of this project by: the suffix of a program's name.
const SUFFIX: &str = "-ours";
/// More nodes than any test has.
const NODES: u32 = 16;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// A checkout of linuxptp-testsuite
    #[arg(long, value_name = "DIR")]
    suite: PathBuf,
    /// clknetsim, built; otherwise what is in or beside the suite
    #[arg(long, value_name = "DIR")]
    clknetsim: Option<PathBuf>,
    /// linuxptp, built; otherwise what is beside the suite, or on the path
    #[arg(long, value_name = "DIR")]
    linuxptp: Option<PathBuf>,
    /// Where ours are: 1, 2 (that node) or all; otherwise each of these in turn
    #[arg(long, value_name = "NODE")]
    place: Vec<Place>,
    /// Seeds of the simulator's random numbers
    #[arg(long, value_name = "N", default_values_t = [1, 2, 3])]
    seed: Vec<u32>,
    /// Runs at a time
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    jobs: u32,
    /// This sim-node, linked statically, instead of one that is built first
    #[arg(long, value_name = "FILE")]
    node: Option<PathBuf>,
    /// Keep logs and statistics of each test here
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// JSON lines instead of a table
    #[arg(long)]
    json: bool,
    /// Only tests whose name begins so, for instance 05 or 14-boundary
    tests: Vec<String>,
}

/// Which nodes are ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
enum Place {
    /// None: what the others are compared with.
    #[value(skip)]
    Nowhere,
    /// The first, mostly the grandmaster.
    #[value(name = "1")]
    First,
    /// The second.
    #[value(name = "2")]
    Second,
    /// All of them.
    All,
}

impl Place {
    const fn name(self) -> &'static str {
        match self {
            Self::Nowhere => "ptp4l",
            Self::First => "node 1",
            Self::Second => "node 2",
            Self::All => "all",
        }
    }

    fn has(self, node: u32) -> bool {
        match self {
            Self::Nowhere => false,
            Self::First => node == 1,
            Self::Second => node == 2,
            Self::All => true,
        }
    }

    /// Whether a node is one to compare: ours, or one that follows ours.
    fn concerns(self, node: u32) -> bool {
        self == Self::First || self.has(node)
    }
}

/// Where everything is.
struct Tools {
    suite: PathBuf,
    clknetsim: PathBuf,
    linuxptp: Option<PathBuf>,
    node: PathBuf,
    tests: Vec<String>,
    keep: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let tools = tools(arguments)?;
    let mut places = match &arguments.place[..] {
        [] => vec![Place::First, Place::Second, Place::All],
        places => places.to_vec(),
    };
    places.sort_unstable();
    places.dedup();
    let with_ptp4l = [Place::Nowhere].into_iter().chain(places.iter().copied());
    let mut waiting: Vec<(Place, u32)> = with_ptp4l
        .flat_map(|place| arguments.seed.iter().map(move |seed| (place, *seed)))
        .collect();
    waiting.reverse();
    let waiting = Mutex::new(waiting);
    let done = Mutex::new(BTreeMap::new());
    let failures = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..arguments.jobs {
            scope.spawn(|| {
                let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).pop();
                while let Some((place, seed)) = next() {
                    match tools.round(place, seed) {
                        Ok(runs) => {
                            let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
                            done.extend(
                                runs.into_iter().map(|(test, run)| ((test, place, seed), run)),
                            );
                        }
                        Err(error) => {
                            failures.lock().unwrap_or_else(PoisonError::into_inner).push(error);
                        }
                    }
                }
            });
        }
    });
    if let Some(error) = failures.into_inner().unwrap_or_else(PoisonError::into_inner).pop() {
        return Err(error);
    }
    let done: BTreeMap<(String, Place, u32), Run> =
        done.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut has_failed = false;
    if !arguments.json {
        println!("{}", table::HEAD);
    }
    for test in &tools.tests {
        for place in &places {
            let runs = arguments.seed.iter().filter_map(|seed| {
                let ours = done.get(&(test.clone(), *place, *seed))?;
                let theirs = done.get(&(test.clone(), Place::Nowhere, *seed))?;
                Some((*seed, ours, theirs))
            });
            let outcome = Outcome::of(runs, |node| place.concerns(node));
            has_failed |= !outcome.is_passed();
            let (test, place) = (test.as_str(), place.name());
            println!(
                "{}",
                if arguments.json { outcome.json(test, place) } else { outcome.line(test, place) }
            );
        }
    }
    Ok(if has_failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn tools(arguments: &Arguments) -> Result<Tools> {
    let suite = fs::canonicalize(&arguments.suite)
        .with_context(|| format!("no directory {}", arguments.suite.display()))?;
    if !suite.join("test.common").exists() {
        bail!("{} is no checkout of linuxptp-testsuite: test.common is not there", suite.display());
    }
    let beside = |name: &str| [suite.join(name), suite.join("..").join(name)];
    let clknetsim = match &arguments.clknetsim {
        Some(directory) => directory.clone(),
        None => beside("clknetsim")
            .into_iter()
            .find(|directory| directory.exists())
            .context("clknetsim is neither in the suite nor beside it: name it by --clknetsim")?,
    };
    for file in ["clknetsim", "clknetsim.so"] {
        if !clknetsim.join(file).exists() {
            bail!("{} is not built: run make there", clknetsim.display());
        }
    }
    let has_ptp4l = |directory: &PathBuf| directory.join("ptp4l").exists();
    let linuxptp = match &arguments.linuxptp {
        Some(directory) if has_ptp4l(directory) => Some(directory.clone()),
        Some(directory) => bail!("{} is not built: run make there", directory.display()),
        None => beside("linuxptp").into_iter().find(has_ptp4l),
    };
    if linuxptp.is_none() && find("ptp4l").is_none() {
        bail!("there is no ptp4l: name linuxptp by --linuxptp, or install it");
    }
    let is_wanted = |name: &str| {
        let is_test = name.starts_with(|first: char| first.is_ascii_digit());
        is_test
            && (arguments.tests.is_empty()
                || arguments.tests.iter().any(|test| name.starts_with(test.as_str())))
    };
    let mut tests: Vec<String> = fs::read_dir(&suite)?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| is_wanted(name) && !name.ends_with('_'))
        .collect();
    tests.sort();
    if tests.is_empty() {
        bail!("no test is called so");
    }
    let absolute =
        |path: PathBuf| fs::canonicalize(&path).with_context(|| format!("no {}", path.display()));
    if let Some(keep) = &arguments.keep {
        fs::create_dir_all(keep)?;
    }
    Ok(Tools {
        clknetsim: absolute(clknetsim)?,
        linuxptp: linuxptp.map(absolute).transpose()?,
        node: absolute(match &arguments.node {
            Some(node) => node.clone(),
            None => node()?,
        })?,
        keep: arguments.keep.clone().map(absolute).transpose()?,
        suite,
        tests,
    })
}

/// Builds the node, linked statically: what the suite preloads is not to get into it.
fn node() -> Result<PathBuf> {
    let build =
        ["rustc", "--release", "--quiet", "--package", "sim-node", "--bin", "sim-node", "--"];
    let flags = ["-C", "target-feature=+crt-static"];
    if !cargo(build.into_iter().chain(flags)).stream(|_| ())?.success() {
        bail!("sim-node could not be built");
    }
    Ok(target_directory().join("release/sim-node"))
}

impl Tools {
    /// All tests with one seed.
    fn round(&self, place: Place, seed: u32) -> Result<Vec<(String, Run)>> {
        let room = tempfile::tempdir()?;
        self.lay_out(room.path(), place)?;
        let mut runs = Vec::new();
        for test in &self.tests {
            let run = self.test(room.path(), test, seed)?;
            let word = if run.is_passed { "pass" } else { "FAIL" };
            eprintln!("{:6} seed {seed} {test}: {word}", place.name());
            if let Some(keep) = &self.keep {
                let kept = keep.join(format!("{}-{seed}-{test}", place.name().replace(' ', "")));
                fs::create_dir_all(&kept)?;
                fs::write(kept.join("output"), &run.output)?;
                for entry in fs::read_dir(room.path().join("tmp"))?.flatten() {
                    if entry.file_type()?.is_file() {
                        fs::copy(entry.path(), kept.join(entry.file_name()))?;
                    }
                }
            }
            runs.push((test.clone(), run));
        }
        Ok(runs)
    }

    /// The suite's scripts in a directory of their own, with what they look for.
    fn lay_out(&self, room: &Path, place: Place) -> Result<()> {
        fs::create_dir(room.join("tmp"))?;
        fs::create_dir(room.join("bin"))?;
        symlink(&self.clknetsim, room.join("clknetsim"))?;
        symlink(&self.node, room.join("bin").join(format!("ptp4l{SUFFIX}")))?;
        for name in self.tests.iter().map(String::as_str).chain(["test.common"]) {
            let script = fs::read_to_string(self.suite.join(name))
                .with_context(|| format!("cannot read {name} of the suite"))?;
            let copy = room.join(name);
            fs::write(&copy, without_shortest_time(&script))?;
            fs::set_permissions(&copy, fs::Permissions::from_mode(0o755))?;
        }
        // Read by every bash that is started, before its script: an array cannot be in the environment.
        let ours = (1..=NODES).filter(|node| place.has(*node));
        let suffixes: String = ours.map(|node| format!("[{node}]={SUFFIX} ")).collect();
        fs::write(room.join("suffixes"), format!("ptp4l_suffixes=({suffixes})\n"))?;
        Ok(())
    }

    fn test(&self, room: &Path, test: &str, seed: u32) -> Result<Run> {
        let mut path = room.join("bin").into_os_string();
        for directory in self.linuxptp.iter().map(|path| path.clone().into_os_string()) {
            path.push(":");
            path.push(directory);
        }
        path.push(":");
        path.push(search_path().unwrap_or_default());
        let output = process::Command::new("timeout")
            .args(["--kill-after=10", &LIMIT_S.to_string(), "bash"])
            .arg(room.join(test))
            .current_dir(room)
            .env("PATH", path)
            .env("BASH_ENV", room.join("suffixes"))
            .env("CLKNETSIM_RANDOM_SEED", seed.to_string())
            .stdin(Stdio::null())
            .output()
            .context("cannot start a test (timeout and bash are needed)")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok(Run::new(text, output.status.success()))
    }
}

/// A script that finds no fault with nodes that synchronise early.
fn without_shortest_time(script: &str) -> String {
    let mut copy = String::with_capacity(script.len());
    for line in script.lines() {
        let name = line.trim_start().split_once('=').map(|(name, _)| name);
        match name {
            Some(name @ ("min_sync_time" | "default_min_sync_time")) => {
                copy.push_str(&line[..line.len() - line.trim_start().len()]);
                copy.push_str(name);
                copy.push_str("=0");
            }
            _ => copy.push_str(line),
        }
        copy.push('\n');
    }
    copy
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_may_synchronise_as_early_as_they_can() {
        let script =
            "limit=5\n\tmin_sync_time=$[$a - 1]\ndefault_min_sync_time=10\nmax_sync_time=4\n";
        let copy = "limit=5\n\tmin_sync_time=0\ndefault_min_sync_time=0\nmax_sync_time=4\n";
        assert_eq!(without_shortest_time(script), copy);
    }

    #[test]
    fn what_follows_ours_is_compared_as_well_as_ours() {
        assert!(Place::First.concerns(3) && !Place::Second.concerns(3) && Place::All.concerns(3));
        assert!(!Place::Nowhere.has(1) && Place::First.has(1) && !Place::First.has(2));
    }
}
