//! chronyd as a peer of the tests: a server of NTP, or a client that never steers (`-x`) and cannot (no CAP_SYS_TIME). All
//! namespaces share one clock, so whatever offset it finds is its error.

use std::{
    ffi::OsString,
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use ptp_agent::lab::netns::Namespace;

use crate::{children::Running, newer, program};

/// How long it may take to be there.
const READY: Duration = Duration::from_secs(40);

/// A running chronyd, with a directory of its own.
pub struct Chronyd {
    running: Running,
    directory: tempfile::TempDir,
}

impl Chronyd {
    /// A server of stratum 1 for everybody.
    ///
    /// # Errors
    /// What is missing.
    ///
    /// # Panics
    /// If its files cannot be written.
    pub fn server(namespace: &Namespace) -> Result<Self, String> {
        Self::start(namespace, "local stratum 1\nallow all\n")
    }

    /// A server of chrony 4.9 or later that speaks NTP over PTP too.
    ///
    /// # Errors
    /// What is missing.
    ///
    /// # Panics
    /// If its files cannot be written.
    pub fn ptp_server(namespace: &Namespace) -> Result<Self, String> {
        let lines = "local stratum 1\nallow all\nptpport 319\n";
        Self::start_by(namespace, &newer("chrony", "sbin/chronyd")?, lines)
    }

    /// The same with NTS besides, by files with a key and a certificate. What it enciphers cookies with it keeps to
    /// itself and forgets when it ends.
    ///
    /// # Errors
    /// What is missing.
    ///
    /// # Panics
    /// If its files cannot be written.
    pub fn nts_server(
        namespace: &Namespace,
        [key, certificate]: &[String; 2],
    ) -> Result<Self, String> {
        let files = format!("ntsserverkey {key}\nntsservercert {certificate}\nntsprocesses 0\n");
        Self::start(namespace, &format!("local stratum 1\nallow all\n{files}"))
    }

    /// A client of `server`; `options` are those of its line, and of all it measures there is a log.
    ///
    /// # Errors
    /// What is missing.
    ///
    /// # Panics
    /// If its files cannot be written.
    pub fn client(namespace: &Namespace, server: &str, options: &str) -> Result<Self, String> {
        Self::start(namespace, &format!("server {server} {options}\nport 0\nlog rawmeasurements\n"))
    }

    fn start(namespace: &Namespace, lines: &str) -> Result<Self, String> {
        Self::start_by(namespace, &[program("chronyd")?.into_os_string()], lines)
    }

    fn start_by(namespace: &Namespace, chronyd: &[OsString], lines: &str) -> Result<Self, String> {
        let setpriv = program("setpriv")?;
        program("chronyc")?;
        let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
        // It makes its command socket nowhere else.
        fs::set_permissions(directory.path(), Permissions::from_mode(0o700))
            .expect("a directory of ours");
        let at = |name: &str| directory.path().join(name).display().to_string();
        let configuration = format!(
            "{lines}cmdport 0\nbindcmdaddress {}\npidfile {}\nlogdir {}\nuser root\n",
            at("chronyd.sock"),
            at("pid"),
            directory.path().display(),
        );
        let file = directory.path().join("chrony.conf");
        fs::write(&file, configuration).map_err(|error| error.to_string())?;
        let mut command = namespace.command(setpriv);
        command.args(["--bounding-set", "-sys_time", "--inh-caps", "-sys_time", "--"]);
        command.args(chronyd).args(["-x", "-d", "-f"]).arg(file);
        let this = Self { running: Running::start("chronyd", &mut command), directory };
        // Who is asked before it listens looks like one that is gone.
        let start = Instant::now();
        while this.error_ns().is_none() {
            assert!(start.elapsed() < READY, "chronyd does not answer chronyc");
            thread::sleep(Duration::from_millis(20));
        }
        Ok(this)
    }

    /// What it has measured so far.
    pub fn measurements(&self) -> Vec<Measured> {
        parse(&self.log("measurements.log"))
    }

    /// How far its clock is ahead of the host's, by which it is steered in its own mind alone (`-x`), ns: asked eight times a second for
    /// `span`, of which the first `settling_s` are left out.
    pub fn errors(&self, span: Duration, settling_s: f64) -> Vec<f64> {
        let begin = Instant::now();
        let mut errors = Vec::new();
        while begin.elapsed() < span {
            thread::sleep(Duration::from_millis(125));
            if begin.elapsed().as_secs_f64() > settling_s {
                errors.extend(self.error_ns());
            }
        }
        errors
    }

    fn error_ns(&self) -> Option<f64> {
        let socket = self.path().join("chronyd.sock");
        let mut command = Command::new(program("chronyc").ok()?);
        let output = command.args(["-c", "-h"]).arg(socket).arg("tracking").output().ok()?;
        // Identifier, name, stratum, time of reference, system time, ...
        let text = String::from_utf8(output.stdout).ok()?;
        let seconds: f64 = text.split(',').nth(4)?.parse().ok()?;
        Some(seconds * 1e9)
    }

    fn log(&self, name: &str) -> String {
        fs::read_to_string(self.path().join(name)).unwrap_or_default()
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The process.
    pub const fn running(&mut self) -> &mut Running {
        &mut self.running
    }
}

/// One measurement of chronyd's.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// Server minus client, seconds.
    pub offset_s: f64,
    /// Round trip, seconds.
    pub delay_s: f64,
    /// `4B` or `4I`: basic or interleaved.
    pub mode: String,
    /// Who took the transmit and the receive stamp: D (daemon), K (kernel) or H (hardware).
    pub stamps: [String; 2],
}

fn parse(log: &str) -> Vec<Measured> {
    let lines = log.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let measured = |fields: Vec<&str>| {
        // Date, time, address, leap, stratum, three groups of tests, two polls, score, offset, delay, dispersion, root
        // delay, root dispersion, reference, mode, transmit stamp, receive stamp.
        let number = |at: usize| fields.get(at)?.parse().ok();
        Some(Measured {
            offset_s: number(11)?,
            delay_s: number(12)?,
            mode: (*fields.get(17)?).to_owned(),
            stamps: [18, 19].map(|at| fields.get(at).copied().unwrap_or("?").to_owned()),
        })
    };
    lines.filter_map(measured).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_log_is_a_measurement() {
        let line = "2026-11-27 00:38:25 10.99.0.1       N  1 111 111 1111  -2 -2 1.00 -2.150e-07  2.834e-06  2.188e-08  0.000e+00  1.526e-05 4C4F434C 4I K K\n";
        let measured = parse(&format!("====\n  Date (UTC) Time\n{line}"));
        assert_eq!(measured.len(), 1);
        assert_eq!((measured[0].offset_s, measured[0].delay_s), (-2.15e-7, 2.834e-6));
        assert_eq!((measured[0].mode.as_str(), measured[0].stamps[0].as_str()), ("4I", "K"));
    }
}
