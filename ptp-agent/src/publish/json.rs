//! The JSON lines that the commands print on standard output and that the laboratory reads back:
//! one object per line, told apart by `event`. Numbers in `_ns` fields are integers; only
//! frequencies are floating point. Field names are part of the command-line contract.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::{self, SyncSender, TrySendError},
    },
    thread,
    time::Duration,
};

use crate::engine::ntp::{ExchangeKind, Turn};
pub use ptp_trace::readings::HostLine;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::snapshot::Named;
use crate::servo::ServoState;

/// Lines that may wait for a slow reader before further ones are dropped (a minute at 16 Sync/s).
const QUEUE_LINES: usize = 1024;
/// How long [`Output::finish`] waits for a reader that does not read.
const FINISH_TIMEOUT: Duration = Duration::from_secs(2);

/// Standard output, to be opened once more.
const STDOUT: &str = "/proc/self/fd/1";

/// `source` of a sample: multicast or unicast PTP without negotiation.
pub const PTP: &str = "ptp";
/// The same of one that an exchange with a server of NTP has led to.
pub const NTP: &str = "ntp";
/// The same of a pulse per second.
pub const PPS: &str = "pps";

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// One measurement, as the servo saw it.
    Sample(Sample),
    /// A virtual clock runs on a new line from now on.
    Clock(ClockLine),
    /// An exchange with a server of NTP.
    Ntp(NtpLine),
    /// How far the host's own clock is from the grandmaster, once a second.
    Host(HostLine),
    /// The last line of a command.
    Summary(Summary),
    /// An event that this version does not know; never printed.
    #[serde(other, skip_serializing)]
    Unknown,
}

/// An exchange with a server of NTP: when the request left and when the answer came on CLOCK_MONOTONIC, between them
/// the server's two times since 1970.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NtpLine {
    /// The server's name.
    pub server: String,
    /// What its transmit time is worth.
    pub kind: ExchangeKind,
    /// Which of two that follow each other at once it is.
    pub turn: Turn,
    /// T1.
    pub t1_mono_ns: i64,
    /// How long before T1 the clock was read to send the request.
    pub handed_ns: i64,
    /// T2.
    pub t2_ns: i64,
    /// T3.
    pub t3_ns: i64,
    /// T4.
    pub t4_mono_ns: i64,
    /// Round trip without the time that the server took.
    pub delay_ns: i64,
    /// Of the server.
    pub stratum: u8,
    /// How far it is from its source at the most, by its own words.
    pub root_distance_ns: i64,
    /// The interval at which it is asked, log2 s.
    pub poll: i8,
    /// Where the answer was stamped.
    pub rx_source: Cow<'static, str>,
    /// Where the request was.
    pub tx_source: Cow<'static, str>,
}

/// One measurement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Name of the interface.
    pub interface: String,
    /// PTP domain number.
    pub domain: u8,
    /// When, on CLOCK_MONOTONIC.
    pub mono_ns: i64,
    /// The servo's estimate of local clock minus grandmaster clock.
    pub offset_ns: i64,
    /// The same from this exchange alone.
    pub raw_offset_ns: i64,
    /// Mean path delay; `null` before the first measurement of it.
    pub delay_ns: Option<i64>,
    /// Correction applied to the local clock's frequency, parts per billion.
    pub frequency_ppb: f64,
    /// Bound on |local clock - time transmitter|; `null` before the first lock.
    pub error_bound_ns: Option<i64>,
    /// To within what the clock repeats: the spread alone. `null` as above; here and below also in what
    /// an older agent has printed.
    #[serde(default)]
    pub precision_ns: Option<i64>,
    /// Lowest and highest of local clock minus time transmitter, by causality alone.
    #[serde(default)]
    pub interval_ns: Option<[i64; 2]>,
    /// State of the servo; an observer has none and says so.
    pub state: Named<ServoState>,
    /// Where the receive stamp was taken.
    pub rx_source: Option<Cow<'static, str>>,
    /// Where the transmit stamp was taken.
    pub tx_source: Option<Cow<'static, str>>,
    /// How the paths are made alike, where that is chosen.
    #[serde(default)]
    pub strategy: Option<Cow<'static, str>>,
    /// By what protocol the time came.
    #[serde(default)]
    pub source: Option<Cow<'static, str>>,
    /// `grandmasterIdentity`.
    #[serde(default)]
    pub grandmaster: Option<String>,
}

/// A virtual clock as a straight line: from `mono_ns` on, until the next such line, it shows
/// `clock_ns + (mono - mono_ns) * (1 + frequency_ppb * 1e-9)`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClockLine {
    /// Start of the line on CLOCK_MONOTONIC.
    pub mono_ns: i64,
    /// What the clock shows then. A JSON number, or a string where it does not fit an `i64`.
    #[serde(serialize_with = "wide_integer", deserialize_with = "from_wide_integer")]
    pub clock_ns: i128,
    /// How much faster than CLOCK_MONOTONIC it runs, parts per billion.
    pub frequency_ppb: f64,
}

/// What a command did altogether.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// How long it ran, seconds.
    #[serde(default)]
    pub duration_s: f64,
    /// How many samples it printed or would have printed.
    #[serde(default)]
    pub samples: u64,
    /// Everything that was lost or dropped, by cause.
    #[serde(default)]
    pub lost: BTreeMap<String, u64>,
    /// Further figures of the command.
    #[serde(flatten)]
    pub more: serde_json::Map<String, serde_json::Value>,
}

fn wide_integer<S: Serializer>(value: &i128, serializer: S) -> Result<S::Ok, S::Error> {
    match i64::try_from(*value) {
        Ok(value) => serializer.serialize_i64(value),
        Err(_) => serializer.collect_str(value),
    }
}

fn from_wide_integer<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i128, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Wide {
        Number(i64),
        Text(String),
    }
    match Wide::deserialize(deserializer)? {
        Wide::Number(value) => Ok(value.into()),
        Wide::Text(text) => text.parse().map_err(serde::de::Error::custom),
    }
}

/// Why a line could not be written.
#[derive(Clone, Debug, thiserror::Error)]
pub enum OutputError {
    /// The reader has gone: time to end, quietly.
    #[error("standard output was closed by its reader")]
    Closed,
    /// Any other trouble.
    #[error("cannot write to standard output: {0}")]
    Failed(Arc<io::Error>),
}

impl From<io::Error> for OutputError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::Closed,
            _ => Self::Failed(Arc::new(error)),
        }
    }
}

/// A writer of JSON lines that never makes its caller wait: what a pipe has no room for at once, and all where it
/// is no pipe, queues for a thread that writes, and when a reader has stopped reading, lines are dropped
/// and counted rather than time-keeping held.
#[derive(Debug)]
pub struct Output {
    /// The pipe, written to without waiting: no thread has to wake up for a line.
    direct: Option<File>,
    /// Lines that the thread has not written yet.
    queued: Arc<AtomicU64>,
    lines: SyncSender<String>,
    finished: mpsc::Receiver<()>,
    failure: Arc<Mutex<Option<OutputError>>>,
    dropped: AtomicU64,
}

impl Output {
    /// Writes to standard output.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn stdout() -> io::Result<Self> {
        let mut output = Self::new(io::stdout())?;
        // A description of its own, so that nobody else's writes are changed.
        let is_pipe = fs::metadata(STDOUT).is_ok_and(|file| file.file_type().is_fifo());
        if is_pipe {
            let flags = libc::O_NONBLOCK | libc::O_CLOEXEC;
            output.direct = File::options().write(true).custom_flags(flags).open(STDOUT).ok();
        }
        Ok(output)
    }

    /// Writes to `sink`, flushing after each line.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn new(sink: impl Write + Send + 'static) -> io::Result<Self> {
        let (lines, queue) = mpsc::sync_channel::<String>(QUEUE_LINES);
        let (finish, finished) = mpsc::channel();
        let failure = Arc::new(Mutex::new(None));
        let slot = Arc::clone(&failure);
        let queued = Arc::new(AtomicU64::new(0));
        let left = Arc::clone(&queued);
        thread::Builder::new().name("json".into()).spawn(move || {
            let mut sink = sink;
            for line in queue {
                if let Err(error) = sink.write_all(line.as_bytes()).and_then(|()| sink.flush()) {
                    *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.into());
                    break;
                }
                left.fetch_sub(1, Ordering::Release);
            }
            // Nobody waiting is fine: then nobody calls `finish`.
            let _ = finish.send(());
        })?;
        Ok(Self { direct: None, queued, lines, finished, failure, dropped: AtomicU64::new(0) })
    }

    /// Queues `event` as one line.
    ///
    /// # Errors
    /// Once an earlier line could not be written: [`OutputError::Closed`] when the reader has gone.
    pub fn emit(&self, event: &impl Serialize) -> Result<(), OutputError> {
        let mut line = serde_json::to_string(event).map_err(io::Error::from)?;
        line.push('\n');
        if self.is_written(&line)? {
            return Ok(());
        }
        self.queued.fetch_add(1, Ordering::Relaxed);
        match self.lines.try_send(line) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(_)) => {
                self.queued.fetch_sub(1, Ordering::Relaxed);
                self.dropped.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            Err(TrySendError::Disconnected(_)) => {
                Err(self.failure().unwrap_or(OutputError::Closed))
            }
        }
    }

    /// Writes a line to the pipe, if nothing is before it and there is room for all of it.
    fn is_written(&self, line: &str) -> Result<bool, OutputError> {
        let Some(mut pipe) = self.direct.as_ref() else { return Ok(false) };
        // A write of so much is done as a whole or not at all (POSIX).
        if line.len() > libc::PIPE_BUF || self.queued.load(Ordering::Acquire) > 0 {
            return Ok(false);
        }
        match pipe.write(line.as_bytes()) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(error.into()),
            Err(_) => Ok(false),
        }
    }

    /// Lines dropped because the reader was too slow.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Waits until everything queued is written, for two seconds at the most.
    ///
    /// # Errors
    /// When a line could not be written.
    pub fn finish(self) -> Result<(), OutputError> {
        let Self { lines, finished, failure, .. } = self;
        drop(lines);
        // A reader that does not read for so long has lost its lines by its own choice.
        let _ = finished.recv_timeout(FINISH_TIMEOUT);
        let failure = failure.lock().unwrap_or_else(PoisonError::into_inner).take();
        failure.map_or(Ok(()), Err)
    }

    fn failure(&self) -> Option<OutputError> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Sample {
        Sample {
            interface: "veth1".into(),
            domain: 0,
            mono_ns: 5_000_000_000,
            offset_ns: -120,
            raw_offset_ns: 340,
            delay_ns: None,
            frequency_ppb: -36_999.5,
            error_bound_ns: Some(812),
            precision_ns: Some(40),
            interval_ns: Some([-700, 812]),
            state: "locked".into(),
            rx_source: Some("tc_ingress".into()),
            tx_source: Some("start_xmit".into()),
            strategy: None,
            source: Some(PTP.into()),
            grandmaster: Some("aabbcc.fffe.ddeeff".to_owned()),
        }
    }

    #[test]
    fn sample_has_exactly_the_fields_of_the_contract() {
        let line = serde_json::to_string(&Event::Sample(sample())).unwrap();
        assert_eq!(
            line,
            r#"{"event":"sample","interface":"veth1","domain":0,"mono_ns":5000000000,"offset_ns":-120,"raw_offset_ns":340,"delay_ns":null,"frequency_ppb":-36999.5,"error_bound_ns":812,"precision_ns":40,"interval_ns":[-700,812],"state":"locked","rx_source":"tc_ingress","tx_source":"start_xmit","strategy":null,"source":"ptp","grandmaster":"aabbcc.fffe.ddeeff"}"#
        );
        assert_eq!(serde_json::from_str::<Event>(&line).unwrap(), Event::Sample(sample()));
    }

    #[test]
    fn sample_of_an_older_agent_is_read() {
        let line = r#"{"event":"sample","interface":"veth1","domain":0,"mono_ns":5000000000,"offset_ns":-120,"raw_offset_ns":340,"delay_ns":null,"frequency_ppb":-36999.5,"error_bound_ns":null,"state":"locked","rx_source":"tc_ingress","tx_source":"start_xmit"}"#;
        let older = Sample {
            error_bound_ns: None,
            precision_ns: None,
            interval_ns: None,
            source: None,
            grandmaster: None,
            ..sample()
        };
        assert_eq!(serde_json::from_str::<Event>(line).unwrap(), Event::Sample(older));
    }

    #[test]
    fn clock_beyond_64_bits_survives_as_a_string() {
        for (clock_ns, text) in
            [(1_500_000_000_i128, "1500000000"), (1_i128 << 70, r#""1180591620717411303424""#)]
        {
            let event = Event::Clock(ClockLine { mono_ns: 1, clock_ns, frequency_ppb: 37_000.0 });
            let line = serde_json::to_string(&event).unwrap();
            assert_eq!(
                line,
                format!(
                    r#"{{"event":"clock","mono_ns":1,"clock_ns":{text},"frequency_ppb":37000.0}}"#
                )
            );
            assert_eq!(serde_json::from_str::<Event>(&line).unwrap(), event);
        }
    }

    #[test]
    fn summary_keeps_figures_that_it_does_not_know() {
        let line = r#"{"event":"summary","duration_s":1.5,"samples":3,"lost":{"ring":2},"rx":{"matched":7}}"#;
        let event: Event = serde_json::from_str(line).unwrap();
        let Event::Summary(summary) = &event else { panic!("{event:?}") };
        assert_eq!(summary.lost["ring"], 2);
        assert_eq!(summary.more["rx"]["matched"], 7);
        assert_eq!(serde_json::to_string(&event).unwrap(), line);
    }

    #[test]
    fn line_of_the_host_is_what_trace_reads() {
        let line = r#"{"event":"host","host":"h1","mono_ns":1,"real_ns":1700000000000000000,"offset_ns":-5,"bound_ns":7,"grandmaster":"aabbcc.fffe.ddeeff","domain":0}"#;
        let event: Event = serde_json::from_str(line).unwrap();
        assert!(matches!(&event, Event::Host(host) if host.offset_ns == Some(-5)), "{event:?}");
        assert_eq!(serde_json::to_string(&event).unwrap(), line);
    }

    #[test]
    fn unknown_event_is_no_error() {
        let event: Event = serde_json::from_str(r#"{"event":"news","a":[1]}"#).unwrap();
        assert_eq!(event, Event::Unknown);
    }

    #[test]
    fn output_reports_that_its_reader_has_gone() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let output = Output::new(writer).unwrap();
        let error = (0..).find_map(|_| {
            thread::yield_now();
            output.emit(&Event::Sample(sample())).err()
        });
        assert!(matches!(error, Some(OutputError::Closed)), "{error:?}");
    }

    #[test]
    fn output_drops_lines_and_counts_them_when_its_reader_sleeps() {
        let (reader, writer) = io::pipe().unwrap();
        let output = Output::new(writer).unwrap();
        // Longer than pipe and queue hold together.
        while output.dropped() == 0 {
            output.emit(&Event::Sample(sample())).unwrap();
        }
        drop(reader);
        assert!(matches!(output.finish(), Err(OutputError::Closed)));
    }

    #[test]
    fn output_is_complete_when_finished() {
        let (reader, writer) = io::pipe().unwrap();
        let output = Output::new(writer).unwrap();
        for _ in 0..3 {
            output.emit(&Event::Sample(sample())).unwrap();
        }
        output.finish().unwrap();
        let text = io::read_to_string(reader).unwrap();
        assert_eq!(text.lines().count(), 3);
    }
}
