//! The services: a request goes from the first host to the second, the third and back to the first, as
//! a datagram each time. Each stamps a span when it comes, with its host's clock, which is wrong, and
//! beside it with the time of the agent's page.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    thread,
    time::Duration as StdDuration,
};

use anyhow::{Context, bail};
use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, KeyValue, any_value::Value},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span, TracesData, span::SpanKind},
};
use ptp_clock_reader::PtpClock;
use ptp_trace::attributes;

use super::hosts::{Fleet, HOSTS, address};
use crate::sys::clock::{monotonic, realtime_minus_monotonic};

const PORT: u16 = 4319;
/// How long a datagram may take.
const PATIENCE: StdDuration = StdDuration::from_secs(5);
/// Spans of a batch, as an exporter sends them.
const BATCH: usize = 100;

/// How requests pass.
pub(super) struct Pass {
    pub(super) requests: u64,
    /// Not less is between the starts of two spans that follow each other.
    pub(super) hop: StdDuration,
    /// Between two requests.
    pub(super) pause: StdDuration,
    pub(super) offsets_ns: [i64; 3],
    pub(super) pages: [PathBuf; 3],
}

/// A span as its service has stamped it.
#[derive(Clone, Copy)]
struct Stamped {
    request: u64,
    step: u64,
    /// By the clock of the host.
    start_ns: i64,
    end_ns: i64,
    /// By the agent's page, with its bound.
    ptp: [Option<(i64, u64)>; 2],
    /// The truth: since the span before it began, ns.
    hop_ns: Option<i64>,
}

/// Spans of each host.
pub(super) struct Passed([Vec<Stamped>; 3]);

/// Lets the requests pass.
///
/// # Errors
/// When a datagram is lost or a page cannot be read.
pub(super) fn pass(fleet: &Fleet, pass: &Pass) -> anyhow::Result<Passed> {
    let mut sockets = Vec::new();
    for (n, namespace) in fleet.hosts.iter().enumerate() {
        let heard = namespace.run(|| UdpSocket::bind((address(n), PORT)))??;
        heard.set_read_timeout(Some(PATIENCE))?;
        let socket = namespace.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))??;
        let next = (n + 1) % HOSTS.len();
        socket.connect(SocketAddr::from((address(next), PORT)))?;
        let clock = PtpClock::open(&pass.pages[n]).context("cannot open the page of an agent")?;
        sockets.push(Service { host: n, socket, heard, clock });
    }
    let spans = thread::scope(|scope| {
        let threads: Vec<_> =
            sockets.iter().map(|service| scope.spawn(|| service.run(pass))).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect::<io::Result<Vec<_>>>()
    });
    let spans = spans.context("a request was lost")?;
    match <[Vec<Stamped>; 3]>::try_from(spans) {
        Ok(spans) => Ok(Passed(spans)),
        Err(_) => bail!("each host has spans"),
    }
}

struct Service {
    host: usize,
    socket: UdpSocket,
    heard: UdpSocket,
    clock: PtpClock,
}

impl Service {
    fn run(&self, pass: &Pass) -> io::Result<Vec<Stamped>> {
        let mut spans = Vec::new();
        for request in 0..pass.requests {
            if self.host == 0 {
                thread::sleep(pass.pause);
                spans.push(self.step(pass, request, 0, None)?);
            }
            let mut message = [0; 24];
            self.heard.recv(&mut message)?;
            let number = |at: usize| {
                let bytes = message.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
                bytes.map_or(0, u64::from_be_bytes)
            };
            let began = number(16) as i64;
            spans.push(self.step(pass, number(0), number(8) + 1, Some(began))?);
        }
        Ok(spans)
    }

    /// One span: begins, sends the request on, ends.
    fn step(
        &self,
        pass: &Pass,
        request: u64,
        step: u64,
        before: Option<i64>,
    ) -> io::Result<Stamped> {
        let hop = pass.hop.as_nanos() as i64;
        // Less than a hop ought to take: it is waited for without sleeping, which would take longer.
        while before.is_some_and(|before| monotonic().as_nanos() - before < hop) {
            std::hint::spin_loop();
        }
        let (start_mono, start_ns, start_ptp) = self.now(pass);
        if step < 3 {
            let message =
                [request.to_be_bytes(), step.to_be_bytes(), start_mono.to_be_bytes()].concat();
            self.socket.send(&message)?;
        }
        let (_, end_ns, end_ptp) = self.now(pass);
        Ok(Stamped {
            request,
            step,
            start_ns,
            end_ns,
            ptp: [start_ptp, end_ptp],
            hop_ns: before.map(|before| start_mono - before),
        })
    }

    /// The true time, that of the host's wrong clock, and that of the page with its bound; all ns.
    fn now(&self, pass: &Pass) -> (i64, i64, Option<(i64, u64)>) {
        let mono = monotonic();
        let ptp = self.clock.course().ok().map(|course| course.at(mono.as_nanos()));
        let ptp = ptp.and_then(|time| Some((time.ptp_ns, time.bound_ns?)));
        let real = (mono.since_epoch() + realtime_minus_monotonic()).as_nanos();
        (mono.as_nanos(), real + pass.offsets_ns[self.host], ptp)
    }
}

fn attribute(key: &str, value: Value) -> KeyValue {
    let value = Some(AnyValue { value: Some(value) });
    KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
}

impl Stamped {
    fn span(&self, is_stamped_at_source: bool) -> Span {
        let id = |step: u64| (self.request * 4 + step + 1).to_be_bytes().to_vec();
        let mut attributes = Vec::new();
        if is_stamped_at_source {
            for (ptp, keys) in self.ptp.iter().zip([
                [attributes::START, attributes::START_BOUND],
                [attributes::END, attributes::END_BOUND],
            ]) {
                let Some((time, bound)) = ptp else { continue };
                let bound = i64::try_from(*bound).unwrap_or(i64::MAX);
                attributes.push(attribute(keys[0], Value::IntValue(*time)));
                attributes.push(attribute(keys[1], Value::IntValue(bound)));
            }
        }
        Span {
            trace_id: (u128::from(self.request) + 1).to_be_bytes().to_vec(),
            span_id: id(self.step),
            parent_span_id: if self.step == 0 { Vec::new() } else { id(self.step - 1) },
            name: format!("step {}", self.step),
            kind: if self.step == 0 { SpanKind::Producer } else { SpanKind::Consumer }.into(),
            start_time_unix_nano: u64::try_from(self.start_ns).unwrap_or(0),
            end_time_unix_nano: u64::try_from(self.end_ns).unwrap_or(0),
            attributes,
            ..Span::default()
        }
    }
}

impl Passed {
    /// Writes the spans as OTLP, once as the hosts' clocks have them and once with the page's time; returns
    /// the true hops, ns.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn write(&self, directory: &Path) -> anyhow::Result<Vec<i64>> {
        for (host, spans) in HOSTS.iter().zip(&self.0) {
            for (kind, at_source) in [("spans", false), ("source", true)] {
                let path = directory.join(format!("{kind}-{host}.json"));
                let file = File::create(&path);
                let file = file.with_context(|| format!("cannot make {}", path.display()))?;
                let mut file = BufWriter::new(file);
                for batch in spans.chunks(BATCH) {
                    let text =
                        |key, text: &str| attribute(key, Value::StringValue(text.to_owned()));
                    let attributes = vec![text("service.name", "lab"), text("host.name", host)];
                    let spans = batch.iter().map(|stamped| stamped.span(at_source)).collect();
                    let resource = ResourceSpans {
                        resource: Some(Resource { attributes, ..Resource::default() }),
                        scope_spans: vec![ScopeSpans { spans, ..ScopeSpans::default() }],
                        ..ResourceSpans::default()
                    };
                    let data = TracesData { resource_spans: vec![resource] };
                    serde_json::to_writer(&mut file, &data)?;
                    file.write_all(b"\n")?;
                }
                file.flush()?;
            }
        }
        Ok(self.0.iter().flatten().filter_map(|stamped| stamped.hop_ns).collect())
    }
}
