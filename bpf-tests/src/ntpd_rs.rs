//! ntpd-rs as a peer of measurements: a client that never steers, and could not. It does not run where it may not set clocks, so calls
//! that set them come back as if they had succeeded, and do nothing (seccomp); CAP_SYS_TIME it has not, either; and it
//! is told to want two servers that agree, and has one, so it never tries. What it makes of that one it tells by its observation
//! socket. All namespaces share one clock, so whatever offset it finds is its error.

use std::{
    fs,
    io::{self, Read},
    os::unix::{net::UnixStream, process::CommandExt},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use ptp_agent::lab::netns::Namespace;
use serde_json::Value;

use crate::{children::Running, newer, program};

/// What it makes of its server.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Observed {
    /// How far its clock is from the server's, as it estimates it, ns.
    pub offset_ns: f64,
    /// Round trip, ns.
    pub delay_ns: f64,
}

/// A running ntp-daemon, with a directory of its own.
pub struct NtpdRs {
    running: Running,
    directory: tempfile::TempDir,
}

impl NtpdRs {
    /// A client that asks `server` each 2^`poll` seconds.
    ///
    /// # Errors
    /// What is missing.
    pub fn client(namespace: &Namespace, server: &str, poll: i8) -> Result<Self, String> {
        let daemon = newer("ntpd-rs", "bin/ntp-daemon")?;
        let setpriv = program("setpriv")?;
        let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
        let file = directory.path().join("ntp.toml");
        let text = format!(
            "[[source]]\nmode = \"server\"\naddress = \"{server}\"\n\
             [source-defaults]\npoll-interval-limits = {{ min = {poll}, max = {poll} }}\ninitial-poll-interval = {poll}\n\
             [synchronization]\nminimum-agreeing-sources = 2\n\
             [observability]\nobservation-path = \"{}\"\n",
            directory.path().join("observe").display()
        );
        fs::write(&file, text).map_err(|error| error.to_string())?;
        let mut command = namespace.command(setpriv);
        command.args(["--bounding-set", "-sys_time", "--inh-caps", "-sys_time", "--"]);
        command.args(daemon).arg("--config").arg(file);
        pretend_to_set_clocks(&mut command);
        Ok(Self { running: Running::start("ntp-daemon", &mut command), directory })
    }

    /// What it has found: asked eight times a second for `span`, of which the first `settling_s` are left out.
    pub fn observe(&self, span: Duration, settling_s: f64) -> Vec<Observed> {
        let begin = Instant::now();
        let mut observed = Vec::new();
        while begin.elapsed() < span {
            thread::sleep(Duration::from_millis(125));
            if begin.elapsed().as_secs_f64() > settling_s {
                observed.extend(self.look());
            }
        }
        observed
    }

    fn look(&self) -> Option<Observed> {
        let mut stream = UnixStream::connect(self.directory.path().join("observe")).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(1))).ok()?;
        // Its length comes first.
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).ok()?;
        let state: Value = serde_json::from_slice(bytes.get(8..)?).ok()?;
        let source = state["sources"].get(0)?;
        let nanos = |name: &str| Some(source[name].as_f64()? * 1e9);
        Some(Observed { offset_ns: nanos("offset")?, delay_ns: nanos("delay")? })
    }

    /// The process.
    pub const fn running(&mut self) -> &mut Running {
        &mut self.running
    }
}

/// Calls of the child of `command`, and of what it executes, that set clocks do nothing, and succeed.
fn pretend_to_set_clocks(command: &mut Command) {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    const fn step(code: u16, k: u32, jt: u8) -> libc::sock_filter {
        libc::sock_filter { code, jt, jf: 0, k }
    }
    let mut filter = [
        // The number of the call.
        step(LOAD, 0, 0),
        step(EQUAL, libc::SYS_clock_adjtime as u32, 4),
        step(EQUAL, libc::SYS_adjtimex as u32, 3),
        step(EQUAL, libc::SYS_clock_settime as u32, 2),
        step(EQUAL, libc::SYS_settimeofday as u32, 1),
        step(RETURN, libc::SECCOMP_RET_ALLOW, 0),
        // An error of none.
        step(RETURN, libc::SECCOMP_RET_ERRNO, 0),
    ];
    let install = move || {
        let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
        // SAFETY: the first takes integers alone; the second reads the program, which points to instructions that this
        // closure owns.
        let is_done = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
                && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program)
                    == 0
        };
        if is_done { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    // SAFETY: between fork and exec only async-signal-safe calls are allowed: the closure does two system calls on
    // values that it owns, and reads errno.
    unsafe { command.pre_exec(install) };
}
