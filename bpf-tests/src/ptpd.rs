//! ptpd 2.3 as a peer. It never touches the host's clock: in either role it is told not to.

use std::{
    ops::Deref,
    path::{Path, PathBuf},
};

use ptp_agent::lab::netns::Namespace;
use tempfile::TempDir;

use crate::{children::Running, program};

/// A running ptpd.
pub struct Ptpd {
    running: Running,
    /// Holds its locks.
    _directory: TempDir,
}

/// Where it is: on the path, or below the target directory, where `cargo xtask setup --peers` unpacks it.
fn place() -> Result<PathBuf, String> {
    let unpacked = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/peers/usr/sbin/ptpd");
    program("ptpd").or_else(|_| {
        if unpacked.is_file() {
            return Ok(unpacked);
        }
        Err("ptpd is not installed (cargo xtask setup --peers unpacks it)".to_owned())
    })
}

impl Ptpd {
    /// Starts it in `namespace` on an interface. `options` are of its section `ptpengine`, as in its configuration.
    ///
    /// # Errors
    /// The reason to skip: it is not there.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn start(namespace: &Namespace, interface: &str, options: &[&str]) -> Result<Self, String> {
        let mut command = namespace.command(place()?);
        let directory = tempfile::tempdir().expect("a temporary directory");
        command.args(["--global:foreground=Y", "--global:verbose_foreground=Y"]);
        command.args(["--clock:no_adjust=Y", "--clock:no_reset=Y"]);
        command.arg(format!("--global:lock_directory={}", directory.path().display()));
        command.arg(format!("--ptpengine:interface={interface}"));
        command.args(options.iter().map(|option| format!("--ptpengine:{option}")));
        Ok(Self { running: Running::start("ptpd", &mut command), _directory: directory })
    }

    /// The offsets from its time transmitter that it has printed, nanoseconds.
    pub fn offsets(&self) -> Vec<i64> {
        let lines = self.running.lines();
        let of_client = |text: &str| {
            // Time, state, clock, delay, offset: seconds with a fraction.
            let fields: Vec<&str> = text.split(',').map(str::trim).collect();
            let is_client = fields.get(1) == Some(&"slv");
            let seconds: f64 = fields.get(4).filter(|_| is_client)?.parse().ok()?;
            Some((seconds * 1e9).round() as i64)
        };
        lines.iter().filter_map(|line| of_client(&line.text)).collect()
    }
}

impl Deref for Ptpd {
    type Target = Running;
    fn deref(&self) -> &Running {
        &self.running
    }
}
