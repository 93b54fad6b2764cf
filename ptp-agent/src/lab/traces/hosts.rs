//! The hosts: a grandmaster whose clock drifts, and three hosts with a wire to it, a wire to the next host,
//! and an agent each, which follows with a software clock and prints how far the host's clock is.

use std::{
    fs::File,
    io::{BufRead, BufReader, BufWriter, Write},
    net::Ipv4Addr,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    lab::{
        args::Args,
        netns::{Namespace, NetnsError, veth},
        peers::OWN_BINARY,
    },
    publish::json::{Event, HostLine},
};

/// Their names.
pub(super) const HOSTS: [&str; 3] = ["a", "b", "c"];
/// Interface of each host to the grandmaster.
const INTERFACE: &str = "ptp1";
/// Interfaces of the grandmaster.
const SERVED: [&str; 3] = ["ptp10", "ptp11", "ptp12"];

/// The ends of the wire from each host's predecessor, that one's first. A pair is made in one namespace, where
/// no other may have its names.
const WIRES: [(&str, &str); 3] = [("next0", "before0"), ("next1", "before1"), ("next2", "before2")];

/// The hosts and what connects them.
pub(super) struct Fleet {
    grandmaster: Namespace,
    pub(super) hosts: [Namespace; 3],
}

/// Where a host hears the one before it.
pub(super) const fn address(host: usize) -> Ipv4Addr {
    // TEST-NET-2 of RFC 5737: nobody has a route to it. Four addresses for each wire.
    Ipv4Addr::new(198, 51, 100, 4 * host as u8 + 2)
}

impl Fleet {
    /// Makes it.
    ///
    /// # Errors
    /// What the kernel said.
    pub(super) fn new() -> Result<Self, NetnsError> {
        let grandmaster = Namespace::new()?;
        let hosts = [Namespace::new()?, Namespace::new()?, Namespace::new()?];
        for (n, (host, served)) in hosts.iter().zip(SERVED).enumerate() {
            veth(&grandmaster, served, host, INTERFACE)?;
            let wire = |last: u8| Ipv4Addr::new(192, 0, 2, 4 * n as u8 + last).into();
            grandmaster.add_address(served, wire(1), 30)?;
            host.add_address(INTERFACE, wire(2), 30)?;
            // What requests take: a wire from each host to the next.
            let before = &hosts[(n + HOSTS.len() - 1) % HOSTS.len()];
            let (next, previous) = WIRES[n];
            veth(before, next, host, previous)?;
            let [a, b, c, d] = address(n).octets();
            before.add_address(next, Ipv4Addr::new(a, b, c, d - 1).into(), 30)?;
            host.add_address(previous, address(n).into(), 30)?;
        }
        Ok(Self { grandmaster, hosts })
    }

    /// Starts the grandmaster and an agent on each host, whose clock is taken to be off by `offsets_ns`.
    ///
    /// # Errors
    /// When one cannot be started.
    pub(super) fn start(
        &self,
        args: &Args,
        directory: &Path,
        offsets_ns: [i64; 3],
    ) -> anyhow::Result<Agents> {
        let mut serve = self.grandmaster.command(OWN_BINARY);
        serve
            .args(["serve", "-i"])
            .args(SERVED)
            .args(["--clock", "virtual", "--status-socket", "none"])
            .arg(format!("--log-sync-interval={}", args.log_sync_interval))
            .arg(format!("--log-min-delay-req-interval={}", args.log_sync_interval))
            .arg("--log-announce-interval=-1")
            .arg(format!("--offset={}", args.offset))
            .arg(format!("--drift={}", args.drift));
        let (sender, lines) = mpsc::channel();
        let mut agents = Agents {
            children: vec![Running::start(serve, None)?],
            lines,
            files: HOSTS.map(|host| directory.join(format!("host-{host}.jsonl"))),
            pages: HOSTS.map(|host| directory.join(format!("clock-{host}"))),
        };
        for (n, namespace) in self.hosts.iter().enumerate() {
            let mut run = namespace.command(OWN_BINARY);
            run.args(["run", "-i", INTERFACE, "--clock", "virtual", "--json"])
                .args(["--status-socket", "none", "--page"])
                .arg(&agents.pages[n])
                .arg(format!("--host-clock-offset={}", offsets_ns[n]));
            let file = File::create(&agents.files[n])?;
            agents.children.push(Running::start(run, Some((n, file, sender.clone())))?);
        }
        Ok(agents)
    }
}

/// Number of a host, where what it prints is kept, and where its lines go.
type Reading = (usize, File, mpsc::Sender<(usize, HostLine)>);

/// A child, killed when dropped.
struct Running {
    child: Child,
    reader: Option<thread::JoinHandle<()>>,
}

impl Running {
    fn start(mut command: Command, reading: Option<Reading>) -> anyhow::Result<Self> {
        command.process_group(0).stdin(Stdio::null());
        command.stdout(if reading.is_some() { Stdio::piped() } else { Stdio::null() });
        if reading.is_none() || std::env::var_os("PTP_LAB_LOG").is_none() {
            command.stderr(Stdio::null());
        }
        let mut child = command.spawn().context("cannot start an agent")?;
        let stdout = child.stdout.take();
        let reader = reading.zip(stdout).map(|((host, file, news), stdout)| {
            thread::spawn(move || {
                let mut file = BufWriter::new(file);
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    // A full disk shows when the file is read.
                    let _ = writeln!(file, "{line}");
                    if let Ok(Event::Host(line)) = serde_json::from_str(&line) {
                        // Nobody may be waiting.
                        let _ = news.send((host, line));
                    }
                }
            })
        });
        Ok(Self { child, reader })
    }

    fn stop(&mut self) -> anyhow::Result<()> {
        let pid = i32::try_from(self.child.id()).context("a process has a number")?;
        // Not waited for yet, so the number is still its own.
        kill(Pid::from_raw(pid), Signal::SIGTERM)?;
        let status = self.child.wait()?;
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        if !status.success() {
            bail!("an agent ended with {status}");
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail for one that has ended, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Running agents.
pub(super) struct Agents {
    children: Vec<Running>,
    lines: Receiver<(usize, HostLine)>,
    files: [PathBuf; 3],
    pages: [PathBuf; 3],
}

impl Agents {
    /// The page of each host.
    pub(super) const fn pages(&self) -> &[PathBuf; 3] {
        &self.pages
    }

    /// What each agent has printed, as `trace` takes it.
    pub(super) fn readings(&self) -> Vec<String> {
        let named = HOSTS.iter().zip(&self.files);
        named.map(|(host, file)| format!("{host}={}", file.display())).collect()
    }

    /// Waits until all know their host's clock to within `below_ns`.
    ///
    /// # Errors
    /// When they do not in time.
    pub(super) fn wait_for_bounds(&self, below_ns: i64, patience: Duration) -> anyhow::Result<()> {
        let mut bounds = [i64::MAX; 3];
        self.wait(patience, |host, line| {
            bounds[host] = line.bound_ns.unwrap_or(i64::MAX);
            bounds.iter().all(|bound| *bound < below_ns)
        })
        .with_context(|| format!("no bounds below {below_ns} ns: {bounds:?}"))
    }

    /// Waits until each has printed once more.
    ///
    /// # Errors
    /// When they do not.
    pub(super) fn wait_for_another(&self) -> anyhow::Result<()> {
        while self.lines.try_recv().is_ok() {}
        let mut seen = [0; 3];
        self.wait(Duration::from_secs(20), |host, _| {
            seen[host] += 1;
            seen.iter().all(|seen| *seen > 1)
        })
    }

    fn wait(
        &self,
        patience: Duration,
        mut is_enough: impl FnMut(usize, &HostLine) -> bool,
    ) -> anyhow::Result<()> {
        let deadline = Instant::now() + patience;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok((host, line)) if is_enough(host, &line) => return Ok(()),
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => bail!("the agents took longer than {patience:?}"),
                Err(RecvTimeoutError::Disconnected) => bail!("the agents have ended"),
            }
        }
    }

    /// Ends all in order: the grandmaster last.
    ///
    /// # Errors
    /// When one ends badly.
    pub(super) fn stop(&mut self) -> anyhow::Result<()> {
        self.children.iter_mut().rev().try_for_each(Running::stop)?;
        self.children.clear();
        Ok(())
    }
}
