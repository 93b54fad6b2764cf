//! The agent as its user runs it: the binary of this workspace, in a namespace, with JSON lines.

use std::{
    env,
    ffi::OsStr,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    ops::{Deref, DerefMut},
    path::PathBuf,
    process::{Command, ExitStatus},
    sync::OnceLock,
    time::Duration,
};

use ptp_agent::lab::netns::Namespace;
use serde_json::Value;

use crate::children::{Line, Running, Stream};

/// How long the agent may take to load its programs and open its sockets; a debug build on a busy
/// machine needs more than a second.
pub const START: Duration = Duration::from_secs(20);
/// A grandmaster that sends 16 Sync per second, takes as many requests, and announces each second.
pub const SERVE: [&str; 9] = [
    "serve",
    "-i",
    "eth0",
    "--log-sync-interval",
    "-4",
    "--log-announce-interval",
    "0",
    "--log-min-delay-req-interval",
    "-4",
];

/// Where the agent is, where there is no cargo to build it: in guests.
const BINARY_VARIABLE: &str = "PTP_AGENT_BINARY";

/// The agent's binary, as fresh as the tests: cargo builds it if it has to. The same choice of
/// packages as `cargo xtask test` makes, so that nothing is built twice.
///
/// # Panics
/// If it does not compile.
pub fn binary() -> PathBuf {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY
        .get_or_init(|| {
            if let Some(path) = env::var_os(BINARY_VARIABLE) {
                return path.into();
            }
            let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
            cargo.args(["build", "--quiet", "--workspace", "--bins", "--tests"]);
            if !cfg!(debug_assertions) {
                cargo.arg("--release");
            }
            // What cargo tells the test of its package is none of the build's: some crates' build scripts (ring's) watch
            // these variables, and half of the workspace would be built anew, here and in the next step again.
            for (name, _) in env::vars_os() {
                let of_package = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"];
                if of_package.iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
                    cargo.env_remove(name);
                }
            }
            let status = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).status();
            assert!(status.is_ok_and(|status| status.success()), "cannot build the agent");
            // This program is in `deps`, beside which cargo puts binaries.
            let own = env::current_exe().expect("a running program has a file");
            let path = own.ancestors().nth(2).expect("target/<profile>/deps").join("ptp-agent");
            assert!(path.is_file(), "{} is not there", path.display());
            path
        })
        .clone()
}

/// A running agent.
pub struct Agent {
    running: Running,
}

impl Agent {
    /// Starts the agent in `namespace`, with JSON lines, and waits until it listens, serves or
    /// observes.
    ///
    /// # Panics
    /// If it does not.
    pub fn start<S: AsRef<OsStr>>(namespace: &Namespace, arguments: &[S]) -> Self {
        let this = Self::start_only(namespace, arguments);
        this.wait_for(0, START, "start", |line| {
            ["listening", "serving", "observing"]
                .iter()
                .any(|word| line.text.contains(&format!(": {word} interface=")))
                .then_some(())
        });
        this
    }

    /// Starts the agent and does not wait for anything.
    ///
    /// # Panics
    /// If the process cannot be started.
    pub fn start_only<S: AsRef<OsStr>>(namespace: &Namespace, arguments: &[S]) -> Self {
        let name = arguments
            .first()
            .map_or("agent".into(), |first| format!("agent {}", first.as_ref().to_string_lossy()));
        let mut command = namespace.command(binary());
        Self { running: Running::start(name, command.arg("--json").args(arguments)) }
    }

    /// Wraps an agent that was started in another way.
    pub const fn from_running(running: Running) -> Self {
        Self { running }
    }

    /// Its JSON lines with this `event` behind `mark`.
    pub fn events(&self, mark: usize, event: &str) -> Vec<Value> {
        self.lines()
            .get(mark..)
            .unwrap_or_default()
            .iter()
            .filter_map(|l| parse(l, event))
            .collect()
    }

    /// Its samples behind `mark`.
    pub fn samples(&self, mark: usize) -> Vec<Value> {
        self.events(mark, "sample")
    }

    /// Waits for a sample behind `mark` that `wanted` accepts.
    ///
    /// # Panics
    /// If none comes within `patience`.
    pub fn wait_for_sample(
        &self,
        mark: usize,
        patience: Duration,
        what: &str,
        wanted: impl Fn(&Value) -> bool,
    ) -> Value {
        self.wait_for(mark, patience, what, |line| parse(line, "sample").filter(&wanted))
    }

    /// Waits for `count` samples behind `mark` and returns them.
    ///
    /// # Panics
    /// If they do not come within `patience`.
    pub fn wait_for_samples(&self, mark: usize, patience: Duration, count: usize) -> Vec<Value> {
        let mut samples = Vec::new();
        self.wait_for(mark, patience, &format!("{count} samples"), |line| {
            samples.extend(parse(line, "sample"));
            (samples.len() >= count).then_some(())
        });
        samples
    }

    /// Waits until the port is in state `to`.
    ///
    /// # Panics
    /// If it does not come to it within `patience`.
    pub fn wait_for_state(&self, mark: usize, patience: Duration, to: &str) -> Line {
        let to = format!("to=\"{to}\"");
        self.wait_for(mark, patience, &to, |line| {
            (line.text.contains("port state") && line.text.contains(&to)).then(|| line.clone())
        })
    }

    /// Stops it as a service manager does, and returns its summary.
    ///
    /// # Panics
    /// If it does not end with success and a summary.
    pub fn finish(&mut self) -> Value {
        let status = self.stop();
        assert!(status.success(), "{status}\n{}", self.last_words());
        self.events(0, "summary").pop().unwrap_or_else(|| panic!("{}", self.last_words()))
    }
}

impl Deref for Agent {
    type Target = Running;
    fn deref(&self) -> &Running {
        &self.running
    }
}

impl DerefMut for Agent {
    fn deref_mut(&mut self) -> &mut Running {
        &mut self.running
    }
}

fn parse(line: &Line, event: &str) -> Option<Value> {
    if line.stream != Stream::Output {
        return None;
    }
    let value: Value = serde_json::from_str(&line.text).ok()?;
    (value["event"] == event).then_some(value)
}

/// A field of each sample, as integers.
pub fn field(samples: &[Value], name: &str) -> Vec<i64> {
    samples.iter().filter_map(|sample| sample[name].as_i64()).collect()
}

/// Runs a command that is expected to end by itself.
///
/// # Panics
/// If it does not end within 20 seconds.
pub fn run_to_end(mut command: Command) -> (ExitStatus, String, String) {
    let mut running = Running::start("agent", &mut command);
    let status = running.wait(START);
    let text = |stream| {
        let lines = running.lines();
        let lines: Vec<_> = lines.iter().filter(|line| line.stream == stream).collect();
        lines.iter().map(|line| format!("{}\n", line.text)).collect::<String>()
    };
    (status, text(Stream::Output), text(Stream::Log))
}

/// The body of `GET path` from a server in `namespace`.
///
/// # Panics
/// If there is no answer, or it is not 200.
pub fn http_get(namespace: &Namespace, address: SocketAddr, path: &str) -> String {
    let answer = namespace
        .run(|| {
            let mut stream = TcpStream::connect(address)?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            // Version 1.0 has no chunks that would have to be put together.
            write!(stream, "GET {path} HTTP/1.0\r\nHost: agent\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            std::io::Result::Ok(answer)
        })
        .expect("the namespace exists")
        .unwrap_or_else(|error| panic!("GET {path} from {address}: {error}"));
    let (head, body) = answer.split_once("\r\n\r\n").expect("an HTTP answer");
    assert!(head.starts_with("HTTP/1.") && head[8..].starts_with(" 200"), "{head}");
    body.to_owned()
}

/// The value of a series, named as in the text format, without spaces: `name{a="b",c="d"}`.
pub fn series(metrics: &str, name: &str) -> Option<f64> {
    metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}
