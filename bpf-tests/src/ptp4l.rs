//! ptp4l (linuxptp) as a peer. It never touches the host's clock: as a grandmaster it has no reason
//! to, and as a client it runs with `free_running`; both always have it set.

use std::{fs, ops::Deref, path::Path, process::Command, time::Duration};

use ptp_agent::lab::netns::Namespace;
use tempfile::TempDir;

use crate::{children::Running, newer, program};

/// Names of the transports as the agent has them, and as ptp4l has them.
pub const TRANSPORTS: [(&str, &str); 3] = [("udp4", "UDPv4"), ("udp6", "UDPv6"), ("l2", "L2")];

/// Options of a grandmaster with 16 Sync and Delay_Req per second, and one Announce.
pub const GRANDMASTER: &str = "masterOnly 1\npriority1 100\nlogSyncInterval -4\nlogAnnounceInterval 0\nlogMinDelayReqInterval -4\nlogMinPdelayReqInterval -4\n";

/// Options of a client that prints a measurement per second (as often as it does without a servo).
pub const CLIENT: &str = "slaveOnly 1\nlogSyncInterval -4\nlogAnnounceInterval 0\nlogMinPdelayReqInterval -4\nsummary_interval -4\nfreq_est_interval 0\n";

/// A program of linuxptp 4.3 or later, which the system need not have: `cargo xtask setup --peers` unpacks
/// one with its C library below the target directory.
///
/// # Errors
/// The reason to skip: it is not there.
pub fn authenticating(namespace: &Namespace, name: &str) -> Result<Command, String> {
    let words = newer("linuxptp", &format!("sbin/{name}"))?;
    let (loader, more) = words.split_first().ok_or("no words")?;
    let mut command = namespace.command(loader);
    command.args(more);
    Ok(command)
}

/// A running ptp4l.
pub struct Ptp4l {
    running: Running,
    /// Holds its configuration and its sockets.
    _directory: TempDir,
}

impl Ptp4l {
    /// Starts ptp4l in `namespace` with software stamps on some interfaces. `options` are lines of
    /// its `[global]` section, which win over the defaults of this function.
    ///
    /// # Errors
    /// The reason to skip: it is not installed.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn start(
        namespace: &Namespace,
        interfaces: &[&str],
        options: &[&str],
    ) -> Result<Self, String> {
        Self::start_program(namespace.command(program("ptp4l")?), interfaces, options)
    }

    /// As [`Ptp4l::start`], of a version that authenticates messages.
    ///
    /// # Errors
    /// The reason to skip: it is not there.
    ///
    /// # Panics
    /// As there.
    pub fn start_authenticating(
        namespace: &Namespace,
        interfaces: &[&str],
        options: &[&str],
    ) -> Result<Self, String> {
        Self::start_program(authenticating(namespace, "ptp4l")?, interfaces, options)
    }

    /// Starts one that steers what it takes for the system clock: a clock of its own that the library brings
    /// (`examples/own_clock.rs`). It may change no other, with the library or without.
    ///
    /// # Errors
    /// As [`Ptp4l::start`].
    pub fn on_own_clock(
        namespace: &Namespace,
        library: &Path,
        interfaces: &[&str],
        options: &[&str],
    ) -> Result<Self, String> {
        let mut command = namespace.command(program("setpriv")?);
        command.args(["--bounding-set=-sys_time", "--inh-caps=-sys_time"]);
        command.arg(program("ptp4l")?).env("LD_PRELOAD", library);
        let options: Vec<&str> = ["free_running 0"].iter().chain(options).copied().collect();
        Self::start_program(command, interfaces, &options)
    }

    fn start_program(
        mut command: Command,
        interfaces: &[&str],
        options: &[&str],
    ) -> Result<Self, String> {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let socket = directory.path().join("socket");
        // On a busy machine its transmit stamps take longer than the 10 ms that it waits; it would go
        // to FAULTY for 16 seconds.
        let mut config = format!(
            "[global]\nfree_running 1\nkernel_leap 0\ntime_stamping software\ntx_timestamp_timeout 500\nuds_address {}\n",
            socket.display()
        );
        for option in options {
            config.push_str(option);
            config.push('\n');
        }
        let file = directory.path().join("config");
        fs::write(&file, config).expect("a file in an own directory");
        command.args(["-m", "-q", "-f"]).arg(file);
        for interface in interfaces {
            command.args(["-i", interface]);
        }
        Ok(Self { running: Running::start("ptp4l", &mut command), _directory: directory })
    }

    /// Starts a grandmaster and waits until it is one.
    ///
    /// # Errors
    /// As [`Ptp4l::start`].
    ///
    /// # Panics
    /// If it does not become one.
    pub fn grandmaster(
        namespace: &Namespace,
        interfaces: &[&str],
        options: &[&str],
    ) -> Result<Self, String> {
        let options: Vec<&str> = [GRANDMASTER].iter().chain(options).copied().collect();
        let this = Self::start(namespace, interfaces, &options)?;
        for port in 1..=interfaces.len() {
            this.wait_for(0, Duration::from_secs(15), "grandmaster", |line| {
                (line.text.contains(&format!("port {port}")) && line.text.contains("to MASTER"))
                    .then_some(())
            });
        }
        Ok(this)
    }

    /// The `master offset` values that it has printed, in nanoseconds.
    pub fn offsets(&self) -> Vec<i64> {
        self.lines()
            .iter()
            .filter_map(|line| line.text.split_once("master offset"))
            .filter_map(|(_, rest)| rest.split_whitespace().next()?.parse().ok())
            .collect()
    }
}

impl Deref for Ptp4l {
    type Target = Running;
    fn deref(&self) -> &Running {
        &self.running
    }
}

impl std::ops::DerefMut for Ptp4l {
    fn deref_mut(&mut self) -> &mut Running {
        &mut self.running
    }
}
