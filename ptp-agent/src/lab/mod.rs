//! The laboratory: the agent's main job on an embedded default. It makes network namespaces and links,
//! runs a grandmaster in one and an agent in another, real processes both, and knows the true error of
//! the agent: a virtual clock is a line over the one CLOCK_MONOTONIC of the host, and so is
//! CLOCK_REALTIME, which other programs serve.

use std::{
    fmt::Write as _,
    fs::OpenOptions,
    io::{self, IsTerminal, Write},
    os::unix::process::ExitStatusExt as _,
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

pub use self::args::Args;
use self::{
    grandmaster::{Grandmaster, Service},
    network::{Network, Place},
    observation::{Observation, Point},
    peers::{Load, News, OWN_BINARY, Peer, Role},
    view::{Progress, View},
};
use crate::publish::Format;
use crate::publish::json::{Output, OutputError, Sample};

mod args;
mod beside;
mod grandmaster;
pub mod netns;
mod network;
mod observation;
mod peers;
mod report;
mod traces;
mod trust;
pub mod truth;
mod view;

/// Between two drawings of the terminal view: often enough to look alive, seldom enough not to
/// disturb what is measured.
const TICK: Duration = Duration::from_millis(250);
/// Time for the children to end, beyond what each is given by itself.
const END_TIMEOUT: Duration = Duration::from_secs(15);

/// Runs the laboratory. The exit code is 0 when the agent converged or the user ended the run, 1
/// when it did not converge, 3 when the host lacks what is needed (named on standard error).
///
/// # Errors
/// When a child cannot be started or ends unasked, or the report cannot be written.
pub fn run(args: &Args, format: Format) -> anyhow::Result<ExitCode> {
    if args.busy_loop {
        peers::busy_loop();
    }
    if args.trace {
        return traces::run(args, format);
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
        return crate::sim::command(scenario, servo, args.seed, format, html);
    }
    if args.ask.is_some() && (args.transport != "udp4" || args.grandmaster != Grandmaster::Serve) {
        eprintln!("ptp-agent lab: --ask is for --transport udp4 and --grandmaster serve");
        return Ok(ExitCode::from(2));
    }
    if !args.no_html {
        // Now rather than after the run.
        check_writable(&args.html)
            .with_context(|| format!("cannot write the report to {}", args.html.display()))?;
    }
    let ptp4l = beside::find("ptp4l").filter(|_| args.wants_ptp4l());
    if args.beside_ptp4l && ptp4l.is_none() {
        eprintln!("ptp-agent lab: ptp4l is not installed; it comes with the package linuxptp");
        return Ok(ExitCode::from(3));
    }
    let service = match Service::find(args) {
        Ok(service) => service,
        Err(error) if error.is_missing_on_host() => {
            eprintln!("ptp-agent lab: {error}");
            return Ok(ExitCode::from(3));
        }
        Err(error) => return Err(error.into()),
    };
    let network = match args.cards.as_deref() {
        Some([server, client]) => {
            Network::on_cards(&[server.clone(), client.clone()], ptp4l.is_some())
        }
        Some(_) => {
            eprintln!("ptp-agent lab: --cards takes two interfaces, with a comma between");
            return Ok(ExitCode::from(2));
        }
        None => Network::new(args.link, ptp4l.is_some(), args.grandmaster.is_single()),
    };
    let network = match network {
        Ok(network) => network,
        Err(error) if error.is_missing_on_host() => {
            eprintln!("ptp-agent lab: {error}");
            return Ok(ExitCode::from(3));
        }
        Err(error) => return Err(error.into()),
    };
    // The children are killed when the thread ends that starts them: this one, which stays.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let run = Run::start(args, format)?;
    match runtime.block_on(run.attend(&network, service, ptp4l)) {
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
    fn start(args: &'a Args, format: Format) -> anyhow::Result<Self> {
        let mut title =
            format!("{}, {} Sync/s, {}", args.transport, sync_rate(args), args.grandmaster.name());
        if args.grandmaster.is_own() {
            let _ = write!(title, " {:+} s and {:+} ppm", args.offset, args.drift);
        }
        let output = if format.is_json() { Some(Output::stdout()?) } else { None };
        let observation = Observation::new(args);
        Ok(Self { args, observation, output, title, ended_early: false })
    }

    async fn attend(
        mut self,
        network: &Network,
        mut service: Service,
        ptp4l: Option<PathBuf>,
    ) -> anyhow::Result<Self> {
        let mut signals = Signals::new()?;
        let (sender, mut news) = mpsc::channel(1024);
        let _load = Load::start(self.args.load, &["lab", "--busy-loop"])?;
        let mut others = Vec::new();
        for server in &network.servers {
            if self.args.grandmaster == Grandmaster::Statime {
                // It takes its identity from an address that is the world's, and veth's are local.
                for (octet, interface) in (1..).zip(&server.interfaces) {
                    server.namespace.set_mac(interface, [0x00, 0x00, 0x5e, 0x00, 0x53, octet])?;
                }
            }
            let command = service.command(self.args, server)?;
            others.push(Peer::start(Role::Grandmaster, command, sender.clone())?);
        }
        if let (Some(program), Some(place)) = (ptp4l, &network.beside) {
            let command = beside::command(place, program, &self.args.transport);
            others.push(Peer::start(Role::Ptp4l, command, sender.clone())?);
        }
        let mut agent = Peer::start(Role::Agent, self.run_command(&network.client), sender)?;

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
        let is_sample = matches!(&news, News::Event(Role::Agent, ..));
        let samples = self.observation.points.len();
        if let Some((role, status)) = self.observation.take(news) {
            // Other programs end as the signal that they are sent has it.
            let is_foreign = role == Role::Grandmaster && !self.args.grandmaster.is_own();
            let is_ordered = is_foreign && status.signal() == Some(libc::SIGTERM);
            if !ending || !(status.success() || is_ordered) {
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

    fn run_command(&self, place: &Place) -> Command {
        let mut command = place.namespace.command(OWN_BINARY);
        command.args(["run", "-i", &place.interface]);
        grandmaster::stamps(self.args, &mut command);
        command.args(["--transport", &self.args.transport, "--clock", &self.args.clock, "--json"]);
        for (option, value) in [
            ("--servo", &self.args.servo),
            ("--strategy", &self.args.strategy),
            ("--prime", &self.args.prime),
        ] {
            if let Some(value) = value {
                command.args([option, value]);
            }
        }
        if let Some(protocol) = self.args.ask {
            command.arg(format!("--{protocol}={}", network::SERVER_ADDRESS));
            let log = self.args.log_sync_interval.max(-7);
            command.arg(format!("--log-request-interval={log}"));
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
