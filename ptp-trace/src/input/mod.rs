//! Spans from files of any size, part by part: OTLP as JSON (one document or one a line) or as protobuf (one
//! message, or the Collector's with their length in front), and Jaeger's JSON. What cannot be read is
//! counted with its place, and what comes after it is read all the same.

mod elements;
mod jaeger;
mod protobuf;

use std::{
    fmt,
    io::{self, Read},
};

use opentelemetry_proto::tonic::trace::v1::ResourceSpans;

use elements::{Element, Elements, Held};

/// The largest part of a file that is read at once, bytes: spans of one resource, or one trace of Jaeger.
pub const LARGEST_PART: usize = 64 << 20;
/// Faults that are told one by one.
pub const FAULTS_KEPT: usize = 20;

/// How the spans are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// JSON, OTLP or Jaeger's: the key says which.
    Json,
    /// One protobuf message `TracesData`.
    Protobuf,
    /// Protobuf messages, each after its length in four bytes.
    FramedProtobuf,
}

/// A part that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where it begins, bytes from the start of the file.
    pub at: u64,
    /// What is wrong with it.
    pub what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at byte {}: {}", self.at, self.what)
    }
}

/// What became of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Bytes read.
    pub bytes: u64,
    /// Parts (of a resource, or traces) that were read.
    pub parts: u64,
    /// Parts that could not be read.
    pub faults: u64,
    /// The first of these.
    pub first_faults: Vec<Fault>,
}

impl Outcome {
    fn fault(&mut self, at: u64, what: impl Into<String>) {
        self.faults += 1;
        if self.first_faults.len() < FAULTS_KEPT {
            self.first_faults.push(Fault { at, what: what.into() });
        }
    }
}

/// Why a file was not read to its end.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// The system said no.
    #[error("cannot read: {0}")]
    Io(#[from] io::Error),
    /// It is compressed.
    #[error("compressed with {0}: decompress it, for instance `{1} FILE | ptp-agent trace -`")]
    Compressed(&'static str, &'static str),
    /// It is none of the formats.
    #[error("neither JSON nor protobuf of OTLP, nor Jaeger's JSON: it begins with {0:02x?}")]
    Unknown(Vec<u8>),
    /// Whoever takes the spans has had enough.
    #[error(transparent)]
    Taker(Box<dyn std::error::Error + Send + Sync>),
}

/// Gives all spans of `reader` to `take`, with the bytes read so far, one resource after the other.
///
/// # Errors
/// [`InputError`], or what `take` says.
pub fn read<E>(
    mut reader: impl Read,
    mut take: impl FnMut(ResourceSpans, u64) -> Result<(), E>,
) -> Result<Outcome, InputError>
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut head = [0; 4];
    let mut length = 0;
    while length < head.len() {
        match reader.read(&mut head[length..]) {
            Ok(0) => break,
            Ok(more) => length += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    let head = &head[..length];
    let mut outcome = Outcome::default();
    let format = match format_of(head)? {
        Some(format) => format,
        // Nothing is no fault: nobody has sent a span yet.
        None => return Ok(outcome),
    };
    let whole = head.chain(reader);
    let mut take =
        |spans, bytes| take(spans, bytes).map_err(|error| InputError::Taker(error.into()));
    match format {
        Format::Json => json(whole, &mut outcome, &mut take)?,
        Format::Protobuf => protobuf::message(whole, &mut outcome, &mut take)?,
        Format::FramedProtobuf => protobuf::frames(whole, &mut outcome, &mut take)?,
    }
    Ok(outcome)
}

/// The format of what begins so; `None` of nothing.
fn format_of(head: &[u8]) -> Result<Option<Format>, InputError> {
    match head {
        [] => Ok(None),
        [0x1f, 0x8b, ..] => Err(InputError::Compressed("gzip", "zcat")),
        [0x28, 0xb5, 0x2f, 0xfd] => Err(InputError::Compressed("zstd", "zstdcat")),
        // A byte order mark that Windows puts there is skipped as white space is.
        [b'{' | b'[' | b' ' | b'\r' | b'\t', ..] | [0xef, 0xbb, 0xbf, ..] => Ok(Some(Format::Json)),
        // A newline is also the tag of the first field, and a brace its length.
        [b'\n', b'{', b'"', ..] => Ok(Some(Format::Json)),
        [protobuf::RESOURCE_SPANS, ..] => Ok(Some(Format::Protobuf)),
        [0, ..] => Ok(Some(Format::FramedProtobuf)),
        _ => Err(InputError::Unknown(head.to_vec())),
    }
}

fn json(
    reader: impl Read,
    outcome: &mut Outcome,
    take: &mut impl FnMut(ResourceSpans, u64) -> Result<(), InputError>,
) -> Result<(), InputError> {
    let mut elements = Elements::new(reader, LARGEST_PART);
    loop {
        match elements.next()? {
            None => break,
            Some(Err(Fault { at, what })) => outcome.fault(at, what),
            Some(Ok(Element { held: Held::ResourceSpans, at, text })) => {
                outcome.bytes = at + text.len() as u64;
                match serde_json::from_slice::<ResourceSpans>(text) {
                    Ok(spans) => {
                        outcome.parts += 1;
                        take(spans, outcome.bytes)?;
                    }
                    Err(error) => outcome.fault(at, format!("spans of a resource: {error}")),
                }
            }
            Some(Ok(Element { held: Held::JaegerTrace, at, text })) => {
                outcome.bytes = at + text.len() as u64;
                match jaeger::read(text) {
                    Ok(resources) => {
                        outcome.parts += 1;
                        for spans in resources {
                            take(spans, outcome.bytes)?;
                        }
                    }
                    Err(error) => outcome.fault(at, format!("trace of Jaeger: {error}")),
                }
            }
        }
    }
    outcome.bytes = elements.offset();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry_proto::tonic::trace::v1::{ScopeSpans, Span, TracesData};
    use prost::Message as _;
    use std::convert::Infallible;

    fn resource(names: &[&str]) -> ResourceSpans {
        let spans = names.iter().map(|name| Span {
            trace_id: vec![1; 16],
            span_id: vec![2; 8],
            name: (*name).to_owned(),
            start_time_unix_nano: 1_700_000_000_000_000_001,
            ..Span::default()
        });
        let scope = ScopeSpans { spans: spans.collect(), ..ScopeSpans::default() };
        ResourceSpans { scope_spans: vec![scope], ..ResourceSpans::default() }
    }

    fn traces() -> TracesData {
        TracesData { resource_spans: vec![resource(&["a", "b"]), resource(&["c"])] }
    }

    fn names(bytes: &[u8]) -> (Vec<String>, Outcome) {
        let mut names = Vec::new();
        let outcome = read(bytes, |resource, _| {
            let spans = resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
            names.extend(spans.map(|span| span.name));
            Ok::<(), Infallible>(())
        });
        (names, outcome.unwrap())
    }

    #[test]
    fn every_form_of_otlp_gives_the_same_spans() {
        let json = serde_json::to_vec(&traces()).unwrap();
        let pretty = serde_json::to_vec_pretty(&traces()).unwrap();
        let lines = [json.clone(), b"\n".to_vec(), json.clone()].concat();
        let protobuf = traces().encode_to_vec();
        let length = u32::try_from(protobuf.len()).unwrap().to_be_bytes();
        let framed = [length.as_slice(), &protobuf, &length, &protobuf].concat();
        for (bytes, times) in [(json, 1), (pretty, 1), (lines, 2), (protobuf, 1), (framed, 2)] {
            let (names, outcome) = names(&bytes);
            assert_eq!(names, ["a", "b", "c"].repeat(times));
            assert_eq!((outcome.faults, outcome.bytes), (0, bytes.len() as u64));
        }
    }

    #[test]
    fn what_is_cut_short_gives_what_came_before_and_says_where_it_ends() {
        let json = serde_json::to_vec(&traces()).unwrap();
        let protobuf = traces().encode_to_vec();
        let length = u32::try_from(protobuf.len()).unwrap().to_be_bytes();
        let framed = [length.as_slice(), &protobuf, &length, &protobuf].concat();
        for bytes in [json, protobuf] {
            let (names, outcome) = names(&bytes[..bytes.len() - 4]);
            assert_eq!(names, ["a", "b"]);
            assert_eq!(outcome.faults, 1, "{outcome:?}");
        }
        let (names, outcome) = names(&framed[..framed.len() - 4]);
        assert_eq!(names, ["a", "b", "c", "a", "b"]);
        assert_eq!(outcome.faults, 1);
    }

    #[test]
    fn part_that_is_wrong_is_told_and_the_next_is_read() {
        let text =
            br#"{"resourceSpans":[{"scopeSpans":7},{"scopeSpans":[{"spans":[{"name":"x"}]}]}]}"#;
        let (names, outcome) = names(text);
        assert_eq!(names, ["x"]);
        assert_eq!(outcome.faults, 1);
        assert_eq!(outcome.first_faults[0].at, 18);
    }

    #[test]
    fn compressed_and_foreign_files_are_refused_with_what_to_do() {
        let none = |_, _| Ok::<(), Infallible>(());
        let error = read(&[0x1f, 0x8b, 8, 0][..], none).unwrap_err();
        assert!(error.to_string().contains("zcat"), "{error}");
        assert!(matches!(read(&b"PK\x03\x04"[..], none), Err(InputError::Unknown(_))));
        assert_eq!(read(&b""[..], none).unwrap(), Outcome::default());
    }

    #[test]
    fn taker_who_has_had_enough_ends_the_reading() {
        let json = serde_json::to_vec(&traces()).unwrap();
        let mut taken = 0;
        let result = read(json.as_slice(), |_, _| {
            taken += 1;
            Err::<(), _>("enough")
        });
        assert!(matches!(result, Err(InputError::Taker(_))));
        assert_eq!(taken, 1);
    }
}
