//! OTLP as protobuf: the field `resource_spans` of one message, or of each of the Collector's messages with
//! a length in front. Each resource is decoded by itself, so that only one is in memory.

use std::io::{self, Read};

use opentelemetry_proto::tonic::trace::v1::ResourceSpans;
use prost::Message as _;

use super::{InputError, LARGEST_PART, Outcome};

/// Tag of the first field of `TracesData`, which has a length.
pub(super) const RESOURCE_SPANS: u8 = 0x0a;

/// Reads one message to the end of the file.
pub(super) fn message(
    reader: impl Read,
    outcome: &mut Outcome,
    take: &mut impl FnMut(ResourceSpans, u64) -> Result<(), InputError>,
) -> Result<(), InputError> {
    fields(
        &mut Counted { reader: io::BufReader::with_capacity(256 << 10, reader), read: 0 },
        None,
        outcome,
        take,
    )
    .map(drop)
}

/// Reads messages, each after its length.
pub(super) fn frames(
    reader: impl Read,
    outcome: &mut Outcome,
    take: &mut impl FnMut(ResourceSpans, u64) -> Result<(), InputError>,
) -> Result<(), InputError> {
    let mut reader = Counted { reader: io::BufReader::with_capacity(256 << 10, reader), read: 0 };
    loop {
        let mut length = [0; 4];
        match reader.fill(&mut length)? {
            0 => {
                outcome.bytes = reader.read;
                return Ok(());
            }
            4 => {}
            _ => {
                outcome.fault(reader.read, "the file ends within the length of a message");
                return Ok(());
            }
        }
        let end = reader.read + u64::from(u32::from_be_bytes(length));
        if !fields(&mut reader, Some(end), outcome, take)? {
            return Ok(());
        }
    }
}

/// Reads fields up to `end`; false when nothing sensible can follow.
fn fields(
    reader: &mut Counted<impl Read>,
    end: Option<u64>,
    outcome: &mut Outcome,
    take: &mut impl FnMut(ResourceSpans, u64) -> Result<(), InputError>,
) -> Result<bool, InputError> {
    while end.is_none_or(|end| reader.read < end) {
        let at = reader.read;
        let (tag, length) = match (reader.varint()?, end) {
            (Some(tag), _) => (tag, reader.length_of(tag)?),
            // A message without a length ends where the file does.
            (None, None) if reader.read == at => break,
            (None, _) => (0, None),
        };
        outcome.bytes = reader.read;
        let Some(length) = length else {
            outcome.fault(at, "the file ends here, or this is no protobuf of OTLP");
            return Ok(false);
        };
        if end.is_some_and(|end| reader.read.saturating_add(length) > end) {
            outcome.fault(at, "a field is longer than its message");
            return Ok(false);
        }
        if tag != u64::from(RESOURCE_SPANS) {
            if !reader.skip(length)? {
                outcome.fault(at, "the file ends within a field");
                return Ok(false);
            }
            continue;
        }
        let Some(size) = usize::try_from(length).ok().filter(|size| *size <= LARGEST_PART) else {
            outcome.fault(
                at,
                format!("spans of {length} bytes in one piece: more than {LARGEST_PART}"),
            );
            if !reader.skip(length)? {
                return Ok(false);
            }
            continue;
        };
        // Grows with what is there, not with what is promised.
        let mut part = Vec::new();
        reader.take_into(size, &mut part)?;
        outcome.bytes = reader.read;
        if part.len() < size {
            outcome.fault(at, "the file ends within the spans of a resource");
            return Ok(false);
        }
        match ResourceSpans::decode(part.as_slice()) {
            Ok(spans) => {
                outcome.parts += 1;
                take(spans, outcome.bytes)?;
            }
            Err(error) => outcome.fault(at, format!("spans of a resource: {error}")),
        }
    }
    outcome.bytes = reader.read;
    Ok(true)
}

/// Counts what is read.
struct Counted<R> {
    reader: R,
    read: u64,
}

impl<R: Read> Counted<R> {
    /// Fills `into`, or what there is of it.
    fn fill(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut length = 0;
        while length < into.len() {
            match self.reader.read(&mut into[length..]) {
                Ok(0) => break,
                Ok(more) => length += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.read += length as u64;
        Ok(length)
    }

    fn take_into(&mut self, length: usize, into: &mut Vec<u8>) -> io::Result<()> {
        self.read += (&mut self.reader).take(length as u64).read_to_end(into)? as u64;
        Ok(())
    }

    fn skip(&mut self, length: u64) -> io::Result<bool> {
        let skipped = io::copy(&mut (&mut self.reader).take(length), &mut io::sink())?;
        self.read += skipped;
        Ok(skipped == length)
    }

    /// `None` at the end of the file, and of a number that is none.
    fn varint(&mut self) -> io::Result<Option<u64>> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let mut byte = [0];
            if self.fill(&mut byte)? == 0 {
                return Ok(None);
            }
            value |= u64::from(byte[0] & 0x7f) << shift;
            if byte[0] & 0x80 == 0 {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }

    /// How many bytes the field of `tag` has; `None` of what is no field.
    fn length_of(&mut self, tag: u64) -> io::Result<Option<u64>> {
        match tag & 7 {
            _ if tag >> 3 == 0 => Ok(None),
            0 => Ok(self.varint()?.map(|_| 0)),
            1 => Ok(Some(8)),
            2 => self.varint(),
            5 => Ok(Some(4)),
            _ => Ok(None),
        }
    }
}
