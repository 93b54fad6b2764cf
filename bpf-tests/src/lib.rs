//! What the tests that need root share: how a test skips itself, which of them may run beside each
//! other, network namespaces in the shapes that they need, the programs under test and their peers
//! as children whose output can be waited for, and messages that no honest peer would send. For the
//! kernel programs: frames with what their records must say, runs on them, and a second loader.

pub mod agent;
pub mod authority;
pub mod children;
pub mod chrony;
pub mod clocks;
pub mod forge;
pub mod frames;
pub mod hooks;
#[cfg(feature = "host")]
pub mod libbpf;
pub mod links;
pub mod load;
#[cfg(feature = "host")]
pub mod metadata;
#[cfg(feature = "host")]
pub mod neighbour;
pub mod ntpd_rs;
pub mod objects;
pub mod prometheus;
pub mod ptp4l;
pub mod ptpd;
pub mod raw;
pub mod run;
pub mod terminal;
pub mod transparent;

use std::{
    env,
    ffi::OsString,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

/// Says why a test does not run, where the test command counts it: the harness captures what goes
/// through `eprintln!`, but not this.
pub fn skipped(reason: &str) {
    // Nobody to tell if standard error is closed.
    let _ = writeln!(io::stderr(), "skipped: {reason}");
}

/// The value, or the end of the test with the reason why it cannot run here.
#[macro_export]
macro_rules! need {
    ($what:expr) => {
        match $what {
            Ok(value) => value,
            Err(reason) => {
                $crate::skipped(&reason);
                return;
            }
        }
    };
}

/// Where a program is.
///
/// # Errors
/// The reason to skip: it is not installed.
pub fn program(name: &str) -> Result<PathBuf, String> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|directory| directory.join(name))
        .find(|file| file.is_file())
        .ok_or_else(|| format!("{name} is not installed (cargo xtask setup installs it)"))
}

/// How a program of a newer peer than the system may have is started: by the loader of its own C library, which
/// `cargo xtask setup --peers` unpacks with it below the target directory.
///
/// # Errors
/// The reason to skip: it is not there.
pub fn newer(package: &str, program: &str) -> Result<Vec<OsString>, String> {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
    let root = target.join("peers").join(package).join("usr");
    let loader = root.join("lib64/ld-linux-x86-64.so.2");
    if !loader.is_file() {
        return Err(format!(
            "no {package} of the newest Debian (cargo xtask setup --peers unpacks one)"
        ));
    }
    let name = program.rsplit('/').next().unwrap_or(program);
    Ok([
        loader.into_os_string(),
        "--argv0".into(),
        name.into(),
        "--library-path".into(),
        root.join("lib/x86_64-linux-gnu").into_os_string(),
        root.join(program).into_os_string(),
    ]
    .into())
}

static MACHINE: RwLock<()> = RwLock::new(());

/// Held by a test that measures time: no other test of the program runs meanwhile.
pub fn alone() -> RwLockWriteGuard<'static, ()> {
    MACHINE.write().unwrap_or_else(PoisonError::into_inner)
}

/// Held by a test that mostly waits and does not mind company.
pub fn in_company() -> RwLockReadGuard<'static, ()> {
    MACHINE.read().unwrap_or_else(PoisonError::into_inner)
}

/// The median of some numbers; 0 of none.
pub fn median(mut values: Vec<i64>) -> i64 {
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or(0)
}
