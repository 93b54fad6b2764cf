//! `ptp-agent replay`: a recording through engine, servo and clock once more, with the output of
//! `run`. The file is read twice: what is wrong with it is said before anything is printed.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufReader, BufWriter, Seek, StdoutLock, Write},
    path::PathBuf,
};

use ptp_common::time::{Duration, Mono, Time};
use serde_json::json;

use super::{AgentError, clock_line, sample_line, sample_text};
use crate::publish::Format;
use crate::{
    clock::followed::Followed,
    engine::{Change, Command, PortIndex, discipline::Event, spread::Spread},
    publish::json::{self, OutputError},
    recording::{Note, Problem, ReadError, Reader, Replay, Start, Steered},
    servo::{Servo, ServoState},
};

/// Between two lines of text, on the recording's clock.
const LINES: Duration = Duration::from_secs(1);
/// After the lock, before a servo's figures are taken.
const SETTLING: Duration = Duration::from_secs(10);

/// What `replay` is told.
pub struct ReplayConfig {
    /// The recording.
    pub file: PathBuf,
    /// Replay also a recording that is cut short or has holes.
    pub partial: bool,
    /// How results are told.
    pub format: Format,
}

/// A recording that was opened.
pub struct Recording {
    path: PathBuf,
    reader: Reader<BufReader<File>>,
    /// Where and why it ends early, and how many inputs it lacks.
    short: Option<ReadError>,
    lost: u64,
}

impl Recording {
    /// Opens `config.file` and looks through all of it.
    ///
    /// # Errors
    /// [`AgentError::NoRecording`], [`AgentError::Recording`] and [`AgentError::Holes`].
    pub fn open(config: &ReplayConfig) -> Result<Self, AgentError> {
        let path = &config.file;
        let failed = |error| AgentError::Recording { path: path.clone(), error };
        let io = |error| AgentError::NoRecording { path: path.clone(), error };
        let mut file = File::open(path).map_err(io)?;
        let mut reader = Reader::new(BufReader::new(&file)).map_err(failed)?;
        let mut lost = 0;
        let short = loop {
            match reader.next_item() {
                Ok(Some(item)) => {
                    let Note::Lost { inputs } = item.note else { continue };
                    if !config.partial {
                        let (path, position) = (path.clone(), item.position);
                        return Err(AgentError::Holes { path, position, lost: inputs });
                    }
                    lost += inputs;
                }
                Ok(None) => break None,
                Err(error) => {
                    let is_short = matches!(error.problem, Problem::CutShort(_));
                    if is_short && config.partial {
                        break Some(error);
                    }
                    return Err(failed(error));
                }
            }
        };
        file.rewind().map_err(io)?;
        let reader = Reader::new(BufReader::new(file)).map_err(failed)?;
        Ok(Self { path: path.clone(), reader, short, lost })
    }

    /// With what it begins.
    pub const fn start(&self) -> &Start {
        self.reader.start()
    }

    fn warn(&self) {
        let path = self.path.display();
        if let Some(short) = &self.short {
            tracing::warn!("{path}: {short}; replayed up to there");
        }
        if self.lost > 0 {
            tracing::warn!("{path} lacks {} inputs: these are other numbers", self.lost);
        }
    }
}

/// Replays. `servo` is what steers, in the recording or for the first time.
///
/// # Errors
/// [`AgentError`]: a reader of the output that has gone, or a file that has changed meanwhile.
pub fn replay(
    config: &ReplayConfig,
    mut recording: Recording,
    servo: Box<dyn Servo>,
    steered: Steered,
) -> Result<(), AgentError> {
    recording.warn();
    let start = recording.start().clone();
    tracing::info!(
        recording = %config.file.display(),
        agent = start.agent,
        servo = servo.name(),
        "replaying"
    );
    let mut replay = Replay::new(&start, servo, steered);
    let mut teller = Teller {
        output: BufWriter::new(io::stdout().lock()),
        format: config.format,
        start: &start,
        printed: start.now_ns,
        samples: 0,
        figures: Figures::default(),
    };
    teller.clock(&replay, start.now_ns)?;
    loop {
        while let Some(command) = replay.next_command() {
            teller.tell(&command, &replay)?;
        }
        match recording.reader.next_item() {
            Ok(Some(item)) => replay.give(&item),
            Ok(None) => break,
            Err(_) if recording.short.is_some() => break,
            Err(error) => {
                return Err(AgentError::Recording { path: config.file.clone(), error });
            }
        }
    }
    let (diverged, compared) = replay.diverged();
    if diverged > 0 {
        let agent = &start.agent;
        tracing::warn!(
            "{diverged} of {compared} messages that ptp-agent {agent} sent would not have been sent like this: these are other numbers"
        );
    }
    teller.summarise(&replay, &recording)
}

/// How steadily the servo followed once it had settled: what two servos on one recording can be compared
/// by, where the truth is not known. The noise of the packets is in all of them alike.
#[derive(Debug, Default)]
struct Figures {
    locked: Option<Time<Mono>>,
    raw_offset_ns: Spread,
    frequency_ppb: Spread,
}

impl Figures {
    fn take(&mut self, mono: Time<Mono>, sample: &json::Sample) {
        if sample.state != ServoState::Locked {
            return;
        }
        let since = *self.locked.get_or_insert(mono);
        if mono - since >= SETTLING {
            self.raw_offset_ns.record(sample.raw_offset_ns as f64);
            self.frequency_ppb.record(sample.frequency_ppb);
        }
    }

    fn text(&self) -> Option<String> {
        let Self { raw_offset_ns: offset, frequency_ppb: frequency, .. } = self;
        (offset.count > 0).then(|| {
            format!(
                "from {} s after the lock: raw offset mean {:.0} ns, sd {:.0} ns; frequency mean {:.1} ppb, \
                 sd {:.1} ppb; n = {}",
                SETTLING.as_secs_f64(),
                offset.mean,
                offset.sd(),
                frequency.mean,
                frequency.sd(),
                offset.count
            )
        })
    }

    fn json(&self) -> Option<serde_json::Value> {
        let Self { raw_offset_ns: offset, frequency_ppb: frequency, .. } = self;
        (offset.count > 0).then(|| {
            json!({
                "samples": offset.count,
                "raw_offset_ns": {"mean": offset.mean, "sd": offset.sd()},
                "frequency_ppb": {"mean": frequency.mean, "sd": frequency.sd()},
            })
        })
    }
}

struct Teller<'a> {
    /// Unlike a living agent, a replay waits for its reader.
    output: BufWriter<StdoutLock<'static>>,
    format: Format,
    start: &'a Start,
    printed: Time<Mono>,
    samples: u64,
    figures: Figures,
}

impl Teller<'_> {
    fn tell(&mut self, command: &Command<Event>, replay: &Replay) -> Result<(), AgentError> {
        match command {
            Command::Event(Event::Sample(sample)) => {
                self.samples += 1;
                let line = sample_line("", sample);
                self.figures.take(sample.mono, &line);
                let interface = self.start.interface(sample.port);
                if self.format.is_json() {
                    self.emit(&json::Event::Sample(sample_line(interface, sample)))?;
                } else if sample.mono - self.printed >= LINES {
                    self.printed = sample.mono;
                    self.print(&sample_text(interface, sample))?;
                }
            }
            Command::Event(Event::Adjusted { mono, .. }) => self.clock(replay, *mono)?,
            Command::Event(Event::ServoState { old, new }) => {
                tracing::info!(from = old.name(), to = new.name(), "servo state");
            }
            Command::Event(Event::Strategy(change)) => {
                tracing::info!(from = change.from.name(), to = change.to.name(), "strategy");
            }
            Command::Event(Event::Standing { old, new }) => {
                tracing::info!(from = old.name(), to = new.name(), "sources of time");
            }
            Command::Event(Event::ClockError(error)) => tracing::warn!(%error, "clock"),
            Command::Changed(Change::Parent(Some(parent))) => tracing::info!(
                grandmaster = %parent.set.grandmaster_identity,
                port = %parent.set.parent_port_identity,
                "following"
            ),
            Command::Changed(Change::Parent(None)) => {
                tracing::warn!("no grandmaster");
            }
            Command::Changed(_)
            | Command::Event(Event::Ntp(_))
            | Command::Send(_)
            | Command::Measured(_)
            | Command::Witnessed(_) => {}
        }
        Ok(())
    }

    fn clock(&mut self, replay: &Replay, mono: Time<Mono>) -> Result<(), OutputError> {
        match replay.client().clock() {
            Followed::Virtual(clock) if self.format.is_json() => {
                self.emit(&json::Event::Clock(clock_line(clock, mono)))
            }
            _ => Ok(()),
        }
    }

    fn emit(&mut self, event: &json::Event) -> Result<(), OutputError> {
        serde_json::to_writer(&mut self.output, event).map_err(io::Error::from)?;
        Ok(self.output.write_all(b"\n")?)
    }

    fn print(&mut self, line: &str) -> Result<(), OutputError> {
        Ok(writeln!(self.output, "{line}")?)
    }

    fn summarise(mut self, replay: &Replay, recording: &Recording) -> Result<(), AgentError> {
        let receiver = replay.client().receiver();
        let mut lost: BTreeMap<String, u64> = BTreeMap::new();
        for port in 0..self.start.ports.len() {
            let port = PortIndex(u16::try_from(port).unwrap_or(u16::MAX));
            for (cause, total) in receiver.counters(port).drops() {
                *lost.entry(cause.name().to_owned()).or_default() += total;
            }
        }
        lost.retain(|_, total| *total > 0);
        let duration_s = (replay.now() - self.start.now_ns).as_secs_f64();
        if !self.format.is_json() {
            self.print(&format!("{} samples in {duration_s:.1} s", self.samples))?;
            if let Some(text) = self.figures.text() {
                self.print(&text)?;
            }
            return Ok(self.output.flush().map_err(OutputError::from)?);
        }
        let (diverged, compared) = replay.diverged();
        let more = serde_json::Map::from_iter([
            ("servo".to_owned(), json!(replay.client().servo().name())),
            ("settled".to_owned(), json!(self.figures.json())),
            (
                "recording".to_owned(),
                json!({
                    "agent": self.start.agent,
                    "servo": self.start.servo,
                    "complete": recording.short.is_none() && recording.lost == 0,
                    "lost": recording.lost,
                    "diverged": diverged,
                    "compared": compared,
                }),
            ),
        ]);
        let summary = json::Summary { duration_s, samples: self.samples, lost, more };
        self.emit(&json::Event::Summary(summary))?;
        Ok(self.output.flush().map_err(OutputError::from)?)
    }
}
