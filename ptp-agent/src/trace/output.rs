//! What goes to files and to programs: corrected spans as OTLP, and JSON lines of pairs and figures.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::Path,
};

use anyhow::Context;
use opentelemetry_proto::tonic::trace::v1::ResourceSpans;
use prost::Message as _;
use ptp_trace::{
    judge::{Accused, Judged, Order, Pair, Verdict},
    names::Names,
};
use serde_json::json;

use super::results::Results;
use crate::sys::own_file;

/// A file of corrected spans.
#[derive(Debug)]
pub(super) struct Output {
    file: BufWriter<File>,
    name: String,
    is_protobuf: bool,
    /// A part of it, kept for its memory.
    part: Vec<u8>,
}

/// Tag of the field `resource_spans`, which has a length.
const FIRST_FIELD: u8 = 0x0a;

impl Output {
    /// Makes the file.
    ///
    /// # Errors
    /// When it cannot be made, or is a file that is none of our own.
    pub(super) fn create(path: &Path) -> anyhow::Result<Self> {
        let name = path.display().to_string();
        let file = own_file::create(path).with_context(|| format!("cannot make {name}"))?;
        let is_protobuf = path.extension().is_some_and(|extension| extension == "pb");
        Ok(Self {
            file: BufWriter::with_capacity(1 << 18, file),
            name,
            is_protobuf,
            part: Vec::new(),
        })
    }

    /// Writes the spans of a resource: a line, or the next field of one message.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn write(&mut self, resource: &ResourceSpans) -> io::Result<()> {
        // Around each what `TracesData` has around its only field, so that nothing is copied.
        let written = if self.is_protobuf {
            // Messages put together one after the other are one message with all their fields.
            self.part.clear();
            self.part.push(FIRST_FIELD);
            match resource.encode_length_delimited(&mut self.part) {
                Ok(()) => self.file.write_all(&self.part),
                Err(error) => Err(io::Error::other(error)),
            }
        } else {
            self.json(resource)
        };
        written.map_err(|error| self.named(&error))
    }

    fn json(&mut self, resource: &ResourceSpans) -> io::Result<()> {
        self.file.write_all(b"{\"resourceSpans\":[")?;
        serde_json::to_writer(&mut self.file, resource)?;
        self.file.write_all(b"]}\n")
    }

    /// Writes what is not written yet.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.file.flush().map_err(|error| self.named(&error))
    }

    fn named(&self, error: &io::Error) -> io::Error {
        io::Error::new(error.kind(), format!("cannot write {}: {error}", self.name))
    }
}

/// One line of a pair.
///
/// # Errors
/// What the writer says.
pub(super) fn pair(
    judged: &Judged,
    pair: &Pair,
    names: &Names,
    out: &mut impl Write,
) -> io::Result<()> {
    let of = |place: usize| {
        let span = &judged.spans[place];
        json!({
            "span": span.id.to_string(),
            "host": names.name(span.host),
            "service": names.name(span.service),
            "name": names.name(span.name),
        })
    };
    let (order, reason, by_ns) = match pair.verdict {
        Verdict::Certain(Order::AsShown) => (Some("as_shown"), None, None),
        Verdict::Certain(Order::OtherThanShown) => (Some("other_than_shown"), None, None),
        Verdict::Untold(lack) => {
            (None, Some(lack.map_or("bounds_overlap", |lack| lack.name())), None)
        }
        Verdict::Impossible { by_ns } => (None, None, Some(by_ns)),
    };
    let line = json!({
        "event": "pair",
        "trace": judged.id.to_string(),
        "relation": pair.relation.name(),
        "first": of(pair.first),
        "second": of(pair.second),
        "verdict": pair.verdict.name(),
        "order": order,
        "reason": reason,
        "gap_ns": pair.gap_ns,
        "bound_ns": pair.bound_ns,
        "impossible_by_ns": by_ns,
        "raw_backwards": pair.is_raw_backwards,
    });
    serde_json::to_writer(&mut *out, &line)?;
    out.write_all(b"\n")
}

/// The last lines: clocks that lied, hosts, and all figures.
///
/// # Errors
/// What the writer says.
pub(super) fn summary(results: &Results, out: &mut impl Write) -> io::Result<()> {
    let mut line = |value: serde_json::Value| writeln!(out, "{value}");
    for suspicion in &results.suspicions {
        let hosts: Vec<&str> = match &suspicion.accused {
            Accused::Host(host) => vec![results.names.name(*host)],
            Accused::OneOf(hosts) => hosts.iter().map(|host| results.names.name(*host)).collect(),
        };
        line(json!({
            "event": "suspicion",
            "one_of": hosts,
            "pairs": suspicion.pairs,
            "last_good_unix_ns": suspicion.last_good_ns,
            "first_unix_ns": suspicion.first_ns,
            "last_unix_ns": suspicion.last_ns,
            "beyond_bounds_ns": suspicion.by_ns,
        }))?;
    }
    for (hosts, figures) in results.by_hosts() {
        let bounds = figures.bound_ns();
        line(json!({
            "event": "hosts",
            "hosts": hosts,
            "pairs": figures.pairs,
            "certain": figures.certain,
            "impossible": figures.impossible,
            "raw_backwards": figures.raw_backwards,
            "bound_ns": bounds.map(|[median, _]| median),
            "bound_max_ns": bounds.map(|[_, most]| most),
        }))?;
    }
    let (totals, counts) = (&results.totals, &results.counts);
    let untold: serde_json::Map<String, serde_json::Value> = totals
        .untold
        .iter()
        .map(|(lack, count)| {
            (lack.map_or("bounds_overlap", |lack| lack.name()).to_owned(), (*count).into())
        })
        .collect();
    let lacking: serde_json::Map<String, serde_json::Value> = counts
        .lacking
        .iter()
        .map(|(lack, count)| (lack.name().to_owned(), (*count).into()))
        .collect();
    let without_agent: Vec<_> = results
        .without_agent
        .iter()
        .map(|(host, spans)| json!({"host": results.names.name(*host), "spans": spans}))
        .collect();
    let files: Vec<_> = results
        .files
        .iter()
        .map(|file| {
            let faults: Vec<String> =
                file.outcome.first_faults.iter().map(ToString::to_string).collect();
            json!({
                "file": file.name, "bytes": file.outcome.bytes, "faults": file.outcome.faults,
                "first_faults": faults, "error": file.error,
            })
        })
        .collect();
    line(json!({
        "event": "summary",
        "spans": counts.spans,
        "corrected_at_source": counts.at_source,
        "corrected_by_host": counts.by_host,
        "uncorrected": lacking,
        "traces": totals.traces,
        "pairs": totals.pairs,
        "certain": totals.certain,
        "not_to_be_told": totals.untold(),
        "not_to_be_told_by_reason": untold,
        "impossible": totals.impossible,
        "raw_wrong_of_certain": totals.raw_wrong,
        "raw_backwards": totals.raw_backwards,
        "hosts_without_agent": without_agent,
        "odd": {
            "duplicates": totals.duplicates,
            "in_cycles": totals.in_cycles,
            "orphans": totals.orphans,
            "late": totals.late,
            "without_identity": counts.without_identity,
            "backwards": counts.backwards,
            "traces_closed_early": totals.closed_early,
        },
        "files": files,
        "complaints": results.complaints,
    }))
}
