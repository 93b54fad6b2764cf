//! Writing a recording beside a running agent. Time-keeping never waits for a disk: notes queue for a
//! thread that makes blocks of them and writes; when the disk cannot keep up, notes are dropped and
//! counted, and the recording says where.

use std::{
    collections::VecDeque,
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    sync::mpsc::{self, RecvTimeoutError, SyncSender, TrySendError},
    thread,
    time::{Duration as StdDuration, Instant},
};

use pcap_file::{
    DataLink, Endianness,
    pcapng::{
        PcapNgWriteError, PcapNgWriter,
        blocks::{
            enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption},
            interface_description::{
                InterfaceDescriptionBlock, InterfaceDescriptionOption, InterfaceTsResolution,
            },
            opt_common::CommonOption,
            section_header::{SectionHeaderBlock, SectionHeaderOption},
        },
    },
};
use ptp_common::time::{Duration, Mono, Real, Time};

use super::{
    JSON_PDU, causes,
    frame::{self, Addresses, Route},
    note::{Note, RecordedStamp, Start},
    servers::ntp_interface,
};
use crate::sys::own_file;
use crate::{
    engine::{Input, PortIndex, SentToken, Transmit},
    transport::TransportKind,
};

/// Notes that may wait for the disk: some ten seconds at 128 Sync/s.
const QUEUE: usize = 8192;
/// Sent event messages that may wait for their stamps; each waits for a tenth of a second.
const AWAITING_STAMPS: usize = 512;
/// What is at stake when the agent is killed.
const FLUSH: StdDuration = StdDuration::from_secs(1);
/// How long [`Recorder::finish`] waits for the disk.
const FINISH_TIMEOUT: StdDuration = StdDuration::from_secs(10);

/// Why there is no recording, or no whole one.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The file could not be opened.
    #[error("cannot open {path} to record to: {error}")]
    Open {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
    /// The file could not be written.
    #[error("cannot write the recording {path}: {problem}")]
    Write {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        problem: String,
    },
}

/// The file of a recording that has not begun. One that was made for it vanishes again if it never
/// does; one that was there is touched only then.
#[derive(Debug)]
pub struct RecordingFile {
    path: PathBuf,
    file: Option<File>,
    is_new: bool,
}

impl RecordingFile {
    /// Opens, and makes, the file.
    ///
    /// # Errors
    /// [`RecordError::Open`].
    pub fn open(path: &Path) -> Result<Self, RecordError> {
        let failed = |error| RecordError::Open { path: path.to_owned(), error };
        let (file, is_new) = own_file::open(path).map_err(failed)?;
        Ok(Self { path: path.to_owned(), file: Some(file), is_new })
    }

    fn begin(mut self) -> io::Result<(PathBuf, File)> {
        let file = self.file.take().ok_or(io::ErrorKind::NotFound)?;
        own_file::cut(&file)?;
        Ok((self.path.clone(), file))
    }
}

impl Drop for RecordingFile {
    fn drop(&mut self) {
        if self.file.is_some() && self.is_new {
            // There is nobody to tell.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A message on the wire, for the packet of a note.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// The port.
    pub port: PortIndex,
    /// Where from, or where to.
    pub route: Route,
    /// The message.
    pub bytes: Vec<u8>,
}

struct Entry {
    real: Time<Real>,
    note: Note,
    message: Option<Outgoing>,
}

/// Makes pcapng blocks of notes.
pub struct Encoder<W: Write> {
    pcapng: PcapNgWriter<W>,
    transport: TransportKind,
    addresses: Vec<Addresses>,
    /// Those behind are of servers of NTP.
    ptp_ports: usize,
    /// Number of the interface of the notes without packets.
    events: u32,
}

impl<W: Write> Encoder<W> {
    /// Writes what a recording begins with. `addresses` are those of the ports.
    ///
    /// # Errors
    /// When the sink takes no more.
    pub fn new(
        sink: W,
        start: &Start,
        addresses: Vec<Addresses>,
    ) -> Result<Self, PcapNgWriteError> {
        let application = concat!("ptp-agent ", env!("CARGO_PKG_VERSION"));
        let section = SectionHeaderBlock {
            endianness: Endianness::Little,
            options: vec![SectionHeaderOption::UserApplication(application.into())],
            ..SectionHeaderBlock::default()
        };
        let mut pcapng = PcapNgWriter::with_section_header(sink, section)?;
        for (index, port) in start.ports.iter().enumerate() {
            let mut options = vec![
                InterfaceDescriptionOption::IfName(port.interface.as_str().into()),
                InterfaceDescriptionOption::IfTsResol(InterfaceTsResolution::NANO),
            ];
            if let Some(mac) = addresses.get(index).and_then(|own| own.mac) {
                options.push(InterfaceDescriptionOption::IfMacAddr(mac.to_vec().into()));
            }
            let linktype = DataLink::ETHERNET;
            pcapng.write_pcapng_block(InterfaceDescriptionBlock {
                linktype,
                snaplen: 0,
                options,
            })?;
        }
        for server in start.ntp.iter().flat_map(|ntp| &ntp.servers) {
            pcapng.write_pcapng_block(InterfaceDescriptionBlock {
                linktype: DataLink::ETHERNET,
                snaplen: 0,
                options: vec![
                    InterfaceDescriptionOption::IfName(ntp_interface(server).into()),
                    InterfaceDescriptionOption::IfTsResol(InterfaceTsResolution::NANO),
                ],
            })?;
        }
        pcapng.write_pcapng_block(InterfaceDescriptionBlock {
            linktype: DataLink::WIRESHARK_UPPER_PDU,
            snaplen: 0,
            options: vec![
                InterfaceDescriptionOption::IfName("ptp-agent".into()),
                InterfaceDescriptionOption::IfDescription("what else the engine was given".into()),
                InterfaceDescriptionOption::IfTsResol(InterfaceTsResolution::NANO),
            ],
        })?;
        let events = u32::try_from(start.all_ports()).unwrap_or(u32::MAX);
        let ptp_ports = start.ports.len();
        let mut encoder = Self { pcapng, transport: start.transport, addresses, ptp_ports, events };
        let real = start.now_ns.at_offset(start.real_minus_mono_ns);
        encoder.write(real, &Note::Start(start.clone()), None)?;
        Ok(encoder)
    }

    /// Writes one note, and the packet that it belongs to.
    ///
    /// # Errors
    /// When the sink takes no more.
    pub fn write(
        &mut self,
        real: Time<Real>,
        note: &Note,
        message: Option<&Outgoing>,
    ) -> Result<(), PcapNgWriteError> {
        let timestamp = StdDuration::from_nanos(u64::try_from(real.as_nanos()).unwrap_or(0));
        let json = serde_json::to_string(note).map_err(io::Error::from)?;
        let block = match message {
            Some(Outgoing { port, route, bytes }) => {
                let own = self.addresses.get(usize::from(port.0)).copied().unwrap_or_default();
                let data = if usize::from(port.0) < self.ptp_ports {
                    frame::build(self.transport, &own, *route, bytes)
                } else {
                    frame::build_ntp(*route, bytes)
                };
                // Bits 0 and 1 of epb_flags: 1 inbound, 2 outbound.
                let direction = if matches!(route, Route::Received(_)) { 1 } else { 2 };
                EnhancedPacketBlock {
                    interface_id: u32::from(port.0),
                    timestamp,
                    original_len: u32::try_from(data.len()).unwrap_or(u32::MAX),
                    data: data.into(),
                    options: vec![
                        EnhancedPacketOption::Common(CommonOption::Comment(json.into())),
                        EnhancedPacketOption::Flags(direction),
                    ],
                }
            }
            None => {
                let mut data = JSON_PDU.to_vec();
                data.extend_from_slice(json.as_bytes());
                EnhancedPacketBlock {
                    interface_id: self.events,
                    timestamp,
                    original_len: u32::try_from(data.len()).unwrap_or(u32::MAX),
                    data: data.into(),
                    options: Vec::new(),
                }
            }
        };
        self.pcapng.write_pcapng_block(block).map(drop)
    }

    /// The sink, as full as it is.
    pub fn into_inner(self) -> W {
        self.pcapng.into_inner()
    }

    /// Flushes the sink.
    ///
    /// # Errors
    /// When the sink takes no more.
    pub fn flush(&mut self) -> io::Result<()> {
        self.pcapng.get_mut().flush()
    }
}

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Notes handed to the disk.
    pub recorded: u64,
    /// Notes that had to be dropped: the recording has holes.
    pub lost: u64,
}

/// Takes what the engine is given. No method waits.
#[derive(Debug)]
pub struct Recorder {
    path: PathBuf,
    entries: Option<SyncSender<Entry>>,
    result: mpsc::Receiver<Result<(), String>>,
    real_minus_mono: Duration,
    now: Time<Mono>,
    awaiting: VecDeque<(SentToken, Outgoing)>,
    unsaid: u64,
    totals: Totals,
}

impl Recorder {
    /// Begins the recording. `addresses` are those of the ports.
    ///
    /// # Errors
    /// When the file cannot be written, or no thread started.
    pub fn start(
        file: RecordingFile,
        start: &Start,
        addresses: Vec<Addresses>,
    ) -> Result<Self, RecordError> {
        let path = file.path.clone();
        let failed = |problem: String| RecordError::Write { path: path.clone(), problem };
        let (_, file) = file.begin().map_err(|error| failed(error.to_string()))?;
        let mut encoder = Encoder::new(BufWriter::new(file), start, addresses)
            .map_err(|error| failed(causes(&error)))?;
        encoder.flush().map_err(|error| failed(error.to_string()))?;
        let (entries, queue) = mpsc::sync_channel(QUEUE);
        let (report, result) = mpsc::channel();
        thread::Builder::new()
            .name("recording".into())
            .spawn(move || {
                // Nobody waiting is fine: then nobody wants to know.
                let _ = report.send(write_all(encoder, &queue).map_err(|error| causes(&error)));
            })
            .map_err(|error| failed(error.to_string()))?;
        Ok(Self {
            path,
            entries: Some(entries),
            result,
            real_minus_mono: start.real_minus_mono_ns,
            now: start.now_ns,
            awaiting: VecDeque::new(),
            unsaid: 0,
            totals: Totals::default(),
        })
    }

    /// CLOCK_REALTIME minus CLOCK_MONOTONIC, as often as the agent looks; is noted when it changes.
    pub fn reading(&mut self, now: Time<Mono>, real_minus_mono: Duration) {
        if real_minus_mono != self.real_minus_mono {
            self.real_minus_mono = real_minus_mono;
            let note = Note::Reading { now_ns: now, real_minus_mono_ns: real_minus_mono };
            self.put(now, now, note, None);
        }
    }

    /// The engine is about to be polled and has something to do.
    pub fn poll(&mut self, now: Time<Mono>) {
        self.put(now, now, Note::Poll { now_ns: now }, None);
    }

    /// The engine is about to be given an input.
    pub fn input(&mut self, now: Time<Mono>, input: &Input<'_>) {
        match *input {
            Input::Message { on, from, bytes, stamp } => {
                let note = Note::Message { now_ns: now, stamp: stamp.map(RecordedStamp::from) };
                let route = Route::Received(from);
                let message = Outgoing { port: on, route, bytes: bytes.to_vec() };
                self.put(now, stamp.map_or(now, |stamp| stamp.time), note, Some(message));
            }
            Input::Sent { token, stamp } => {
                let message = self
                    .awaiting
                    .iter()
                    .position(|(awaited, _)| *awaited == token)
                    .and_then(|at| self.awaiting.remove(at))
                    .map(|(_, message)| message);
                let recorded = stamp.map(RecordedStamp::from);
                let note = Note::TxStamp { now_ns: now, token: token.0, stamp: recorded };
                self.put(now, stamp.map_or(now, |stamp| stamp.time), note, message);
            }
            Input::Link { on, state } => {
                let note = Note::Link { now_ns: now, port: on.0, up: state.is_up() };
                self.put(now, now, note, None);
            }
            // A recording is of an engine that has sockets; what passes by is anybody's to capture.
            Input::Passed(_) => {}
            // With a pulse nothing is recorded, which is refused before.
            Input::Pulse(_) | Input::Nmea { .. } => {}
        }
    }

    /// The engine has sent a message. What is an event message is written down with its stamp.
    pub fn sent(&mut self, transmit: &Transmit) {
        let Transmit { on, to, message, token } = transmit;
        let route = Route::Sent { to: *to };
        let message = Outgoing { port: *on, route, bytes: message.to_vec() };
        let Some(token) = token else {
            let now = self.now;
            self.put(now, now, Note::Sent { now_ns: now }, Some(message));
            return;
        };
        if self.awaiting.len() == AWAITING_STAMPS {
            self.awaiting.pop_front();
        }
        self.awaiting.push_back((*token, message));
    }

    /// What was written so far.
    pub const fn totals(&self) -> Totals {
        self.totals
    }

    fn put(&mut self, now: Time<Mono>, at: Time<Mono>, note: Note, message: Option<Outgoing>) {
        self.now = now;
        let real = at.at_offset(self.real_minus_mono);
        if self.unsaid > 0 {
            let lost = Entry { real, note: Note::Lost { inputs: self.unsaid }, message: None };
            if !self.send(lost) {
                self.lose();
                return;
            }
            self.unsaid = 0;
        }
        if self.send(Entry { real, note, message }) {
            self.totals.recorded += 1;
        } else {
            self.lose();
        }
    }

    fn lose(&mut self) {
        self.unsaid += 1;
        self.totals.lost += 1;
    }

    fn send(&mut self, entry: Entry) -> bool {
        let Some(entries) = &self.entries else {
            return false;
        };
        match entries.try_send(entry) {
            Ok(()) => true,
            Err(TrySendError::Full(_)) => {
                if self.totals.lost == 0 {
                    let path = self.path.display();
                    tracing::warn!("{path} cannot be written fast enough: the recording has holes");
                }
                false
            }
            Err(TrySendError::Disconnected(_)) => {
                // The thread has failed and `finish` will say why; the agent goes on.
                tracing::error!("the recording {} cannot be written further", self.path.display());
                self.entries = None;
                false
            }
        }
    }

    /// Ends the recording and waits, for ten seconds at the most, until it is written.
    ///
    /// # Errors
    /// When it could not be written.
    pub fn finish(mut self, now: Time<Mono>) -> Result<Totals, RecordError> {
        let real = now.at_offset(self.real_minus_mono);
        let failed = |problem: String| RecordError::Write { path: self.path.clone(), problem };
        if let Some(entries) = self.entries.take() {
            let mut notes = vec![Note::End { now_ns: now, lost: self.totals.lost }];
            if self.unsaid > 0 {
                notes.insert(0, Note::Lost { inputs: self.unsaid });
            }
            let patience = Instant::now() + FINISH_TIMEOUT;
            for note in notes {
                let mut entry = Entry { real, note, message: None };
                // The queue may be full; it moves as long as the disk does.
                while let Err(TrySendError::Full(back)) = entries.try_send(entry) {
                    if Instant::now() > patience {
                        return Err(failed("the disk does not keep up".to_owned()));
                    }
                    entry = back;
                    thread::sleep(StdDuration::from_millis(10));
                }
            }
        }
        match self.result.recv_timeout(FINISH_TIMEOUT) {
            Ok(Ok(())) => Ok(self.totals),
            Ok(Err(problem)) => Err(failed(problem)),
            Err(RecvTimeoutError::Timeout) => Err(failed("the disk does not answer".to_owned())),
            Err(RecvTimeoutError::Disconnected) => Err(failed("its thread has gone".to_owned())),
        }
    }
}

fn write_all<W: Write>(
    mut encoder: Encoder<W>,
    queue: &mpsc::Receiver<Entry>,
) -> Result<(), PcapNgWriteError> {
    let mut flush_at = Instant::now() + FLUSH;
    loop {
        match queue.recv_timeout(flush_at.saturating_duration_since(Instant::now())) {
            Ok(Entry { real, note, message }) => encoder.write(real, &note, message.as_ref())?,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                encoder.flush()?;
                return Ok(());
            }
        }
        if Instant::now() >= flush_at {
            encoder.flush()?;
            flush_at = Instant::now() + FLUSH;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt as _, chown, symlink};

    /// What is left of a file after somebody has tried to record into `path`.
    fn tried(path: &Path, precious: &Path) -> (Result<(), RecordError>, String) {
        let begun = RecordingFile::open(path).map(|file| drop(file.begin()));
        (begun, fs::read_to_string(precious).unwrap())
    }

    #[test]
    fn nothing_of_others_is_overwritten_by_a_recording() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::write(at("precious"), "7").unwrap();
        symlink(at("precious"), at("link")).unwrap();
        fs::hard_link(at("precious"), at("name")).unwrap();
        for name in ["link", "name"] {
            let (begun, left) = tried(&at(name), &at("precious"));
            assert!(matches!(begun, Err(RecordError::Open { .. })), "{name}: {begun:?}");
            assert_eq!(left, "7", "{name}");
        }
        fs::write(at("foreign"), "8").unwrap();
        // Only root can give files away.
        if nix::unistd::geteuid().is_root() {
            chown(at("foreign"), Some(12_345), None).unwrap();
            let (begun, left) = tried(&at("foreign"), &at("foreign"));
            assert!(matches!(begun, Err(RecordError::Open { .. })), "{begun:?}");
            assert_eq!(left, "8");
        }
        // An own file is what it was made for, and one that never begins leaves nothing.
        fs::write(at("own"), "9").unwrap();
        assert_eq!(tried(&at("own"), &at("own")).1, "");
        drop(RecordingFile::open(&at("new")).unwrap());
        assert!(!at("new").exists());
        assert_eq!(fs::metadata(at("own")).unwrap().nlink(), 1);
    }
}
