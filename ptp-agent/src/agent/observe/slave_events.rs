//! What time receivers of this host tell of their events at a local socket (slave event monitoring): linuxptp's ptp4l and
//! `run` with `--slave-event-monitor`. A thread reads it, for a socket holds few messages; each record is told as a
//! line, some time later.

use std::{
    collections::{BTreeMap, VecDeque},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};

use ptp_common::wire::{
    Body, EventTiming, Message, MessageKey, MessageType, MessageView, PortIdentity, Timestamp, Tlvs,
};
use serde::Serialize;

use super::{
    super::{AgentError, print},
    Tap,
};
use crate::publish::{json::Output, local::Mailbox, management::Desk};

/// Records that wait to be told; further ones are counted.
const MAX_WAITING: usize = 4096;
/// The thread looks so often whether it is to end.
const LOOK: Duration = Duration::from_millis(200);
/// No message of theirs is longer.
const MAX_MESSAGE: usize = 1500;

/// See the module's paragraph.
pub(super) struct SlaveEventsHeard {
    records: Receiver<Record>,
    counts: Arc<Counts>,
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Counts {
    received: AtomicU64,
    malformed: AtomicU64,
    dropped: AtomicU64,
}

/// Of which port, about which time transmitter, what.
type Record = (PortIdentity, PortIdentity, EventTiming);

/// The same of messages that passed a hook: who sends them by Signaling on the network (16.11.4).
#[derive(Debug, Default)]
pub(super) struct SlaveEventsPassed {
    waiting: VecDeque<(u32, Record)>,
    dropped: u64,
}

impl SlaveEventsPassed {
    /// A message that has passed on an interface.
    pub(super) fn pass(&mut self, interface: u32, bytes: &[u8]) {
        if MessageKey::from_prefix(bytes).is_ok_and(|it| it.message_type == MessageType::Signaling)
            && let Ok(message) = MessageView::from_prefix(bytes)
        {
            let port = message.header().source_port_identity;
            let tlvs = message.tlvs().unwrap_or_default();
            for record in records(port, &tlvs) {
                if self.waiting.len() < MAX_WAITING {
                    self.waiting.push_back((interface, record));
                } else {
                    self.dropped += 1;
                }
            }
        }
    }

    /// Tells what has passed since the last time.
    pub(super) fn tell(&mut self, output: Option<&Output>, tap: &Tap) -> Result<(), AgentError> {
        for (interface, record) in self.waiting.drain(..) {
            let interface = Some(tap.name(interface).to_owned());
            tell(output, &SlaveEventLine { interface, ..line(&record) })?;
        }
        let dropped = std::mem::take(&mut self.dropped);
        if dropped > 0 {
            tracing::warn!(dropped, "too many records of slave events: not all could be told");
        }
        Ok(())
    }
}

/// A line of JSON.
#[derive(Serialize)]
struct SlaveEventLine {
    event: &'static str,
    /// Where its message passed; of those that came to the socket there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    interface: Option<String>,
    /// `sync`: sent by the parent, and arrived here; `delay`: the other way round.
    kind: &'static str,
    port: String,
    parent: String,
    sequence_id: u16,
    /// When it was sent, by the clock of the one who did; seconds.nanoseconds.
    origin: String,
    correction_ns: i64,
    /// When it arrived, by the clock of the other.
    arrival: String,
}

impl SlaveEventsHeard {
    /// Listens at `path`.
    pub(super) fn open(path: PathBuf) -> Result<Self, AgentError> {
        let failed = |source| AgentError::Os { attempt: "listen to slave events", source };
        let mailbox =
            Mailbox::open(&path, LOOK).map_err(|error| failed(std::io::Error::other(error)))?;
        let (sender, records) = sync_channel(MAX_WAITING);
        let (counts, stop) = (Arc::<Counts>::default(), Arc::<AtomicBool>::default());
        let (counting, stopping) = (Arc::clone(&counts), Arc::clone(&stop));
        let thread = thread::Builder::new()
            .name("slave-events".into())
            .spawn(move || {
                let mut bytes = [0; MAX_MESSAGE];
                while !stopping.load(Ordering::Relaxed) {
                    if let Some(length) = mailbox.receive(&mut bytes) {
                        hear(&bytes[..length], &sender, &counting);
                    }
                }
            })
            .map_err(failed)?;
        Ok(Self { records, counts, stop, thread: Some(thread) })
    }

    /// Tells what was heard since the last time.
    pub(super) fn tell(&mut self, output: Option<&Output>, desk: &Desk) -> Result<(), AgentError> {
        for record in self.records.try_iter() {
            tell(output, &line(&record))?;
        }
        let Counts { received, malformed, dropped } = &*self.counts;
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        desk.set_slave_events(BTreeMap::from([
            ("received", count(received)),
            ("malformed", count(malformed)),
            ("dropped", count(dropped)),
        ]));
        Ok(())
    }
}

impl Drop for SlaveEventsHeard {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed already.
            let _ = thread.join();
        }
    }
}

/// What a port tells in its message.
fn records<'a>(port: PortIdentity, tlvs: &Tlvs<'a>) -> impl Iterator<Item = Record> + use<'a> {
    let each = tlvs.iter().filter_map(EventTiming::read);
    each.flat_map(move |(parent, of)| of.map(move |timing| (port, parent, timing)))
}

fn hear(bytes: &[u8], sender: &SyncSender<Record>, counts: &Counts) {
    let mut has_any = false;
    if let Ok(message) = Message::parse(bytes)
        && let Body::Signaling { .. } = message.body
    {
        let port = message.header.source_port_identity;
        for record in records(port, &message.tlvs) {
            has_any = true;
            counts.received.fetch_add(1, Ordering::Relaxed);
            if sender.try_send(record).is_err() {
                counts.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
    if !has_any {
        counts.malformed.fetch_add(1, Ordering::Relaxed);
    }
}

fn tell(output: Option<&Output>, line: &SlaveEventLine) -> Result<(), AgentError> {
    match output {
        Some(output) => Ok(output.emit(line)?),
        None => Ok(print(&format!(
            "{} {} {} from {}: sent {} arrived {} correction {} ns",
            line.port,
            line.kind,
            line.sequence_id,
            line.parent,
            line.origin,
            line.arrival,
            line.correction_ns
        ))?),
    }
}

fn line((port, parent, timing): &Record) -> SlaveEventLine {
    let (kind, sequence_id, origin, correction, arrival) = match timing {
        EventTiming::Sync(it) => ("sync", it.sequence_id, it.origin, it.correction, it.ingress),
        EventTiming::Delay(it) => ("delay", it.sequence_id, it.origin, it.correction, it.response),
    };
    SlaveEventLine {
        event: "slave_event",
        interface: None,
        kind,
        port: port.to_string(),
        parent: parent.to_string(),
        sequence_id,
        origin: seconds(origin),
        correction_ns: correction.0 >> 16,
        arrival: seconds(arrival),
    }
}

fn seconds(timestamp: Timestamp) -> String {
    format!("{}.{:09}", timestamp.seconds(), timestamp.nanoseconds())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ptp_common::{
        time::Time,
        wire::{ClockIdentity, Header, SyncTiming, TimeInterval, Tlvs},
    };

    fn message() -> Vec<u8> {
        let port = PortIdentity { clock_identity: ClockIdentity([7; 8]), port_number: 1 };
        let at = Timestamp::from_time(Time::from_nanos(5_000_000_001)).0;
        let correction = TimeInterval(-3 << 16);
        let timing = EventTiming::Sync(SyncTiming {
            sequence_id: 9,
            origin: at,
            correction,
            rate_offset: 0,
            ingress: at,
        });
        let mut tlv = [0; EventTiming::MAX_LENGTH];
        let length = timing.emit(port, &mut tlv).unwrap();
        let message = Message {
            header: Header::new(port, 1),
            body: Body::Signaling { target_port_identity: PortIdentity::ALL },
            tlvs: Tlvs::new(&tlv[..length]).unwrap(),
        };
        let mut bytes = vec![0; 128];
        let length = message.emit(&mut bytes).unwrap();
        bytes.truncate(length);
        bytes
    }

    #[test]
    fn records_that_pass_on_the_network_are_kept_in_bounds_and_rubbish_is_none() {
        let mut passed = SlaveEventsPassed::default();
        for bytes in [&message()[..], &message()[..70], &[0; 60], b""] {
            passed.pass(3, bytes);
        }
        let [(3, record)] = passed.waiting.make_contiguous() else { panic!() };
        assert_eq!((line(record).kind, line(record).sequence_id), ("sync", 9));
        for _ in 0..MAX_WAITING + 5 {
            passed.pass(3, &message());
        }
        assert_eq!((passed.waiting.len(), passed.dropped), (MAX_WAITING, 6));
    }

    #[test]
    fn records_are_told_and_rubbish_and_floods_are_counted() {
        let (sender, records) = sync_channel(2);
        let counts = Counts::default();
        for bytes in [&message()[..], &[0; 60], b"", &message(), &message()] {
            hear(bytes, &sender, &counts);
        }
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let found = [&counts.received, &counts.malformed, &counts.dropped].map(count);
        assert_eq!(found, [3, 2, 1]);
        let line = line(&records.recv().unwrap());
        assert_eq!((line.kind, line.sequence_id, line.correction_ns), ("sync", 9, -3));
        assert_eq!(line.origin, "5.000000001");
    }
}
