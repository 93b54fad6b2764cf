//! The laboratory: the agent's main job on an embedded default. It makes two network namespaces and
//! a veth pair, runs a grandmaster with a drifting virtual clock in one and an agent with a virtual
//! clock in the other, both real processes of this binary, and knows the true error of the agent,
//! because both clocks are lines over the one CLOCK_MONOTONIC of the host.

use std::{
    fs::OpenOptions,
    io::{self, IsTerminal, Write},
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::{Command, ExitCode, ExitStatus},
    time::Duration,
};

use anyhow::{Context, bail};
use nix::unistd::{AccessFlags, access};
use serde::Serialize;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};

use self::{
    netns::{Namespace, NetnsError, veth},
    observation::{Observation, Point},
    peers::{Load, News, OWN_BINARY, Peer, Role},
    view::{Progress, View},
};
use crate::publish::json::{Output, OutputError, Sample};

mod beside;
pub mod netns;
mod observation;
mod peers;
mod report;
pub mod truth;
mod view;

/// Interface of the grandmaster.
const SERVER_INTERFACE: &str = "ptp0";
/// Interface of the agent.
const CLIENT_INTERFACE: &str = "ptp1";
/// The grandmaster's interface to ptp4l, and ptp4l's to the grandmaster.
const PTP4L_INTERFACES: [&str; 2] = ["ptp2", "ptp3"];
/// Between two drawings of the terminal view: often enough to look alive, seldom enough not to
/// disturb what is measured.
const TICK: Duration = Duration::from_millis(250);
/// Time for the children to end, beyond what each is given by itself.
const END_TIMEOUT: Duration = Duration::from_secs(15);

/// Options of `lab`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Run this scenario in virtual time instead, with the same engine and servo on simulated links
    /// and oscillators; needs no privilege.
    #[arg(long, value_name = "SCENARIO.toml")]
    pub simulate: Option<PathBuf>,
    /// Simulate with this seed instead of the scenario's.
    #[arg(long, value_name = "N", requires = "simulate")]
    pub seed: Option<u64>,
    /// How long to run, seconds.
    #[arg(long, value_name = "S", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub duration: u32,
    /// Log2 of the Sync interval in seconds: -4 is 16 per second.
    #[arg(long, alias = "rate", value_name = "LOG", default_value_t = -4, allow_negative_numbers = true,
          value_parser = clap::value_parser!(i8).range(-7..=4))]
    pub log_sync_interval: i8,
    /// What carries the messages: udp4, udp6 or l2.
    #[arg(long, default_value = "udp4", value_parser = ["udp4", "udp6", "l2"])]
    pub transport: String,
    /// How far the grandmaster's clock is ahead at the start, seconds.
    #[arg(long, value_name = "S", default_value_t = 1.5, allow_negative_numbers = true)]
    pub offset: f64,
    /// How much too fast the grandmaster's clock runs, parts per million.
    #[arg(long, value_name = "PPM", default_value_t = 37.0, allow_negative_numbers = true)]
    pub drift: f64,
    /// The agent's servo, as for `run`.
    #[arg(long)]
    pub servo: Option<String>,
    /// How far the two ways of the link may differ, as for `run`, ns.
    #[arg(long, value_name = "NS")]
    pub asymmetry_limit: Option<u32>,
    /// Receive stamps of both sides, as for `run`.
    #[arg(long, value_name = "SOURCE")]
    pub rx_source: Option<String>,
    /// Transmit stamps of both sides, as for `run`.
    #[arg(long, value_name = "SOURCE")]
    pub tx_source: Option<String>,
    /// Run linuxptp's ptp4l beside the agent, as a free-running client with software stamps on a
    /// like link to the same grandmaster, and report the true error of its offsets too. Needs
    /// CAP_SETPCAP besides, so that ptp4l can be denied the right to set clocks.
    #[arg(long)]
    pub beside_ptp4l: bool,
    /// Record what the agent's engine is given, for `replay`, as `run --record` does.
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,
    /// Busy loops to run beside it.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub load: u16,
    /// Where to write the report, an HTML page.
    #[arg(long, value_name = "FILE", default_value = "ptp-lab.html")]
    pub html: PathBuf,
    /// Write no report.
    #[arg(long, conflicts_with = "html")]
    pub no_html: bool,
    /// One line per second instead of the terminal view.
    #[arg(long)]
    pub no_tui: bool,
    /// Only keep one processor busy, until killed; how `--load` starts its children.
    #[arg(long, hide = true)]
    pub busy_loop: bool,
}

/// Runs the laboratory. The exit code is 0 when the agent converged or the user ended the run, 1
/// when it did not converge, 3 when the host lacks what is needed (named on standard error).
///
/// # Errors
/// When a child cannot be started or ends unasked, or the report cannot be written.
pub fn run(args: &Args, json: bool) -> anyhow::Result<ExitCode> {
    if args.busy_loop {
        peers::busy_loop();
    }
    if let Some(scenario) = &args.simulate {
        let servo = match args.servo.as_deref().map(str::parse).transpose() {
            Ok(servo) => servo,
            Err(error) => {
                let error: crate::servo::choice::UnknownServo = error;
                eprintln!("ptp-agent lab: {error}");
                return Ok(ExitCode::from(2));
            }
        };
        let html = (!args.no_html).then(|| args.html.clone());
        return crate::sim::command(scenario, servo, args.seed, json, html);
    }
    if !args.no_html {
        // Now rather than after the run.
        check_writable(&args.html)
            .with_context(|| format!("cannot write the report to {}", args.html.display()))?;
    }
    let ptp4l = if args.beside_ptp4l {
        let Some(program) = beside::find() else {
            eprintln!("ptp-agent lab: ptp4l is not installed; it comes with the package linuxptp");
            return Ok(ExitCode::from(3));
        };
        Some(program)
    } else {
        None
    };
    let made = namespaces().and_then(|(server, client)| {
        let beside = ptp4l.map(|program| Ok((program, beside::namespace(&server)?))).transpose()?;
        Ok((server, client, beside))
    });
    let (server, client, beside) = match made {
        Ok(made) => made,
        Err(error) if error.is_missing_on_host() => {
            eprintln!("ptp-agent lab: {error}");
            return Ok(ExitCode::from(3));
        }
        Err(error) => return Err(error.into()),
    };
    // The children are killed when the thread ends that starts them: this one, which stays.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let run = Run::start(args, json)?;
    match runtime.block_on(run.attend(&server, &client, beside)) {
        Ok(outcome) => outcome.conclude(args),
        // Bad usage and what the host lacks are the same for the child and for the laboratory.
        Err(error) => {
            match error.downcast_ref::<ChildEnded>().and_then(|ended| ended.status.code()) {
                Some(code @ 2..=3) => {
                    eprintln!("ptp-agent lab: {error:#}");
                    Ok(ExitCode::from(code as u8))
                }
                _ => Err(error),
            }
        }
    }
}

/// Whether a file could be written, without making it.
fn check_writable(file: &Path) -> io::Result<()> {
    match OpenOptions::new().append(true).open(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty());
            Ok(access(directory.unwrap_or(Path::new(".")), AccessFlags::W_OK | AccessFlags::X_OK)?)
        }
        opened => opened.map(drop),
    }
}

/// A child has ended unasked, or badly.
#[derive(Debug, thiserror::Error)]
#[error("the {} ended with {}:\n  {last_words}", role.name(), peers::describe(*status))]
struct ChildEnded {
    role: Role,
    status: ExitStatus,
    last_words: String,
}

/// The two ends, linked and addressed.
fn namespaces() -> Result<(Namespace, Namespace), NetnsError> {
    let (server, client) = (Namespace::new()?, Namespace::new()?);
    veth(&server, SERVER_INTERFACE, &client, CLIENT_INTERFACE)?;
    // TEST-NET-1 of RFC 5737: nobody has a route to it.
    server.add_address(SERVER_INTERFACE, Ipv4Addr::new(192, 0, 2, 1).into(), 24)?;
    client.add_address(CLIENT_INTERFACE, Ipv4Addr::new(192, 0, 2, 2).into(), 24)?;
    Ok((server, client))
}

/// Sync messages per second.
fn sync_rate(args: &Args) -> f64 {
    2f64.powi(-i32::from(args.log_sync_interval))
}

/// A run from its start to the end of its children.
struct Run<'a> {
    args: &'a Args,
    observation: Observation,
    output: Option<Output>,
    title: String,
    ended_early: bool,
}

/// A sample with the true error beside it, as `lab --json` prints it.
#[derive(Serialize)]
struct LabSample<'a> {
    event: &'static str,
    #[serde(flatten)]
    sample: &'a Sample,
    true_error_ns: Option<f64>,
}

impl<'a> Run<'a> {
    fn start(args: &'a Args, json: bool) -> anyhow::Result<Self> {
        let title = format!(
            "{}, {} Sync/s, grandmaster {:+} s and {:+} ppm",
            args.transport,
            sync_rate(args),
            args.offset,
            args.drift
        );
        let output = if json { Some(Output::stdout()?) } else { None };
        Ok(Self { args, observation: Observation::default(), output, title, ended_early: false })
    }

    async fn attend(
        mut self,
        server: &Namespace,
        client: &Namespace,
        beside: Option<(PathBuf, Namespace)>,
    ) -> anyhow::Result<Self> {
        let mut signals = Signals::new()?;
        let (sender, mut news) = mpsc::channel(1024);
        let _load = Load::start(self.args.load, &["lab", "--busy-loop"])?;
        let grandmaster =
            Peer::start(Role::Grandmaster, self.serve_command(server), sender.clone())?;
        let mut others = Vec::new();
        if let Some((program, namespace)) = beside {
            let command = beside::command(&namespace, program, &self.args.transport);
            others.push(Peer::start(Role::Ptp4l, command, sender.clone())?);
        }
        let mut agent = Peer::start(Role::Agent, self.run_command(client), sender)?;
        others.push(grandmaster);

        let wants_view = self.output.is_none() && !self.args.no_tui && io::stdout().is_terminal();
        let mut view = if wants_view {
            Some(View::start().context("cannot take the terminal")?)
        } else {
            None
        };
        let mut tick = interval(if view.is_some() { TICK } else { Duration::from_secs(1) });
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);

        let begin = Instant::now();
        let duration = Duration::from_secs(self.args.duration.into());
        let mut deadline = begin + duration;
        let mut ending = false;
        loop {
            let mut end = false;
            tokio::select! {
                received = news.recv() => match received {
                    // Both children have ended and been heard to the end.
                    None => break,
                    Some(received) => {
                        if view.is_none() && let News::Log(role, line) = &received {
                            eprintln!("{}: {line}", role.name());
                        }
                        end |= self.note(received, ending, &mut others)?;
                    }
                },
                _ = tick.tick() => {
                    let elapsed = begin.elapsed();
                    let progress = Progress { title: &self.title, elapsed, duration, ending };
                    if let Some(view) = &mut view {
                        view.draw(&self.observation, progress)?;
                        if view.is_end_wanted()? {
                            self.ended_early = true;
                            end = true;
                        }
                    } else if !ending && elapsed >= Duration::from_secs(1) {
                        eprintln!("{}", view::progress_line(&self.observation, progress));
                    }
                }
                () = signals.next() => {
                    self.ended_early = true;
                    end = true;
                }
                () = sleep_until(deadline) => {
                    if ending {
                        bail!("the children did not end in time and were killed");
                    }
                    end = true;
                }
            }
            if end && !ending {
                ending = true;
                deadline = Instant::now() + END_TIMEOUT;
                // The others follow when the agent has ended: so the agent never sees them go.
                agent.stop();
            }
        }
        Ok(self)
    }

    /// Takes note of news; true when the run shall end.
    fn note(&mut self, news: News, ending: bool, others: &mut [Peer]) -> anyhow::Result<bool> {
        let is_sample = matches!(&news, News::Event(Role::Agent, _));
        let samples = self.observation.points.len();
        if let Some((role, status)) = self.observation.take(news) {
            if !ending || !status.success() {
                let last_words = self.observation.last_words(role);
                return Err(ChildEnded { role, status, last_words }.into());
            }
            if role == Role::Agent {
                others.iter_mut().for_each(Peer::stop);
            }
        }
        if is_sample && self.observation.points.len() > samples {
            return self.print_sample();
        }
        Ok(false)
    }

    /// Prints the last sample if JSON is wanted; true when nobody reads it any more.
    fn print_sample(&mut self) -> anyhow::Result<bool> {
        let (Some(output), Some(sample)) = (&self.output, &self.observation.last) else {
            return Ok(false);
        };
        let true_error_ns =
            self.observation.points.last().and_then(|point: &Point| point.true_error_ns);
        match output.emit(&LabSample { event: "sample", sample, true_error_ns }) {
            Ok(()) => Ok(false),
            Err(OutputError::Closed) => {
                self.ended_early = true;
                self.output = None;
                Ok(true)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn common(&self, command: &mut Command) {
        command.args(["--transport", &self.args.transport]).args(["--clock", "virtual", "--json"]);
    }

    fn serve_command(&self, namespace: &Namespace) -> Command {
        let mut command = namespace.command(OWN_BINARY);
        command.args(["serve", "-i", SERVER_INTERFACE]);
        if self.args.beside_ptp4l {
            command.arg(PTP4L_INTERFACES[0]);
        }
        self.common(&mut command);
        command
            .arg(format!("--log-sync-interval={}", self.args.log_sync_interval))
            // As many measurements of the delay as of the offset.
            .arg(format!("--log-min-delay-req-interval={}", self.args.log_sync_interval))
            // Found within a second, where the default would take four.
            .arg("--log-announce-interval=-1")
            .arg(format!("--offset={}", self.args.offset))
            .arg(format!("--drift={}", self.args.drift));
        command
    }

    fn run_command(&self, namespace: &Namespace) -> Command {
        let mut command = namespace.command(OWN_BINARY);
        command.args(["run", "-i", CLIENT_INTERFACE]);
        self.common(&mut command);
        if let Some(servo) = &self.args.servo {
            command.args(["--servo", servo]);
        }
        if let Some(nanos) = self.args.asymmetry_limit {
            command.arg(format!("--asymmetry-limit={nanos}"));
        }
        if let Some(file) = &self.args.record {
            command.arg("--record").arg(file);
        }
        command
    }

    /// Summary, report and exit code.
    fn conclude(self, args: &Args) -> anyhow::Result<ExitCode> {
        let truth = self.observation.truth();
        let summary = self.observation.summary(&truth);
        match self.output {
            Some(output) => {
                output.emit(&summary)?;
                output.finish()?;
            }
            // A reader that has gone needs no summary.
            None => match io::stdout().write_all(report::text(&summary).as_bytes()) {
                Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error.into()),
                _ => {}
            },
        }
        if !args.no_html {
            report::page(args, &self.observation, &truth, &summary)?
                .write(&args.html)
                .with_context(|| format!("cannot write the report to {}", args.html.display()))?;
            eprintln!("report: {}", args.html.display());
        }
        if summary.samples == 0 {
            bail!("the agent took no sample");
        }
        if truth.converged_s.is_none() && !self.ended_early {
            eprintln!("ptp-agent lab: the agent did not converge");
            return Ok(ExitCode::FAILURE);
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The signals that end the run early, and in order.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl Signals {
    /// Listens from now on.
    ///
    /// # Errors
    /// What the kernel reports.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for the next.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hang_up.recv() => {}
        }
    }
}
