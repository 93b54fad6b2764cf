//! The laboratory's child processes: the same binary as grandmaster and as agent, each in its
//! namespace, and on request ptp4l and busy loops. Their JSON lines and their logs come back over one channel.
//! No child outlives this process, however it ends.

use std::{
    os::unix::process::{CommandExt, ExitStatusExt},
    process::{Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::Context;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    process::Child,
    sync::{mpsc, oneshot},
};

use super::trust::Promise;
use crate::{publish::json::Event, sys::child};

/// Time for a child to print its summary and end after SIGTERM.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// The binary that is running, even if its file has been replaced meanwhile.
pub(super) const OWN_BINARY: &str = "/proc/self/exe";

/// Which child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// `serve`.
    Grandmaster,
    /// `run`.
    Agent,
    /// linuxptp's client.
    Ptp4l,
}

impl Role {
    /// What it is called in messages.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Grandmaster => "grandmaster",
            Self::Agent => "agent",
            Self::Ptp4l => "ptp4l",
        }
    }
}

/// News of a child.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "most are samples, and each is taken note of at once"
)]
pub(super) enum News {
    /// A line of its standard output.
    Event(Role, Event, Promise),
    /// A line of its standard error, or one of its standard output that is no event.
    Log(Role, String),
    /// It has ended; nothing more comes from it.
    Ended(Role, ExitStatus),
}

/// A child that is running. Dropping it kills the child.
#[derive(Debug)]
pub(super) struct Peer {
    stop: Option<oneshot::Sender<()>>,
    task: tokio::task::JoinHandle<()>,
}

impl Peer {
    /// Starts `command` and reports to `news`. Must be called in a tokio runtime of one thread, on
    /// the thread that lives as long as the child is wanted.
    ///
    /// # Errors
    /// When the child cannot be started.
    pub(super) fn start(
        role: Role,
        mut command: Command,
        news: mpsc::Sender<News>,
    ) -> anyhow::Result<Self> {
        command
            // Its own process group: the terminal's Ctrl-C is for the laboratory alone, which then
            // ends its children in order.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut command = tokio::process::Command::from(command);
        let child = command
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start the {}", role.name()))?;
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(attend(role, child, stopped, news));
        Ok(Self { stop: Some(stop), task })
    }

    /// Asks the child to end: SIGTERM, and SIGKILL if it takes longer than five seconds.
    pub(super) fn stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // If nobody listens, the child has ended already.
            let _ = stop.send(());
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn attend(
    role: Role,
    mut child: Child,
    stopped: oneshot::Receiver<()>,
    news: mpsc::Sender<News>,
) {
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let pid = child.id();
    let output = async {
        tokio::join!(
            forward(stdout, &news, |line| match serde_json::from_str(&line) {
                Ok(event) => {
                    // What is no sample promises nothing.
                    let promise = serde_json::from_str(&line).unwrap_or_default();
                    News::Event(role, event, promise)
                }
                Err(_) => News::Log(role, line),
            }),
            forward(stderr, &news, |line| News::Log(role, line)),
        );
    };
    let end = async {
        // An error means that the handle was dropped, and the task goes with it.
        if stopped.await.is_err() {
            std::future::pending::<()>().await;
        }
        // The child is not waited for before this future is done or dropped, so its number cannot
        // belong to another process.
        if let Some(pid) = pid.and_then(|pid| i32::try_from(pid).ok()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
            tokio::time::sleep(STOP_TIMEOUT).await;
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        std::future::pending::<()>().await;
    };
    // Both streams are at their end when the child is.
    tokio::select! {
        () = output => {}
        () = end => {}
    }
    let status = match tokio::time::timeout(STOP_TIMEOUT, child.wait()).await {
        Ok(Ok(status)) => status,
        _ => ExitStatus::from_raw(Signal::SIGKILL as i32),
    };
    let _ = news.send(News::Ended(role, status)).await;
}

async fn forward(
    stream: Option<impl AsyncRead + Unpin>,
    news: &mpsc::Sender<News>,
    read: impl Fn(String) -> News,
) {
    let Some(stream) = stream else { return };
    let mut lines = BufReader::new(stream).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if news.send(read(line)).await.is_err() {
            return;
        }
    }
}

/// Busy loops on all processors, for measurements under load. Killed when dropped.
#[derive(Debug, Default)]
pub(super) struct Load {
    children: Vec<std::process::Child>,
}

impl Load {
    /// Starts `count` processes, each of which keeps one processor busy.
    ///
    /// # Errors
    /// When a child cannot be started.
    pub(super) fn start(count: u16, arguments: &[&str]) -> anyhow::Result<Self> {
        let mut load = Self::default();
        for _ in 0..count {
            let mut command = Command::new(OWN_BINARY);
            command.args(arguments).process_group(0).stdin(Stdio::null());
            child::die_with_parent(&mut command);
            load.children.push(command.spawn().context("cannot start a busy loop")?);
        }
        Ok(load)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        for child in &mut self.children {
            // Both fail only for a child that has ended, which is what is wanted.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Keeps one processor busy until the process is killed.
pub(super) fn busy_loop() -> ! {
    let mut count = 0_u64;
    loop {
        // Not `spin_loop`: its instruction yields to a hypervisor, and this shall be a load.
        count = std::hint::black_box(count.wrapping_add(1));
    }
}

/// Why a child ended, for a message.
pub(super) fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "an unknown status".into(),
    }
}
