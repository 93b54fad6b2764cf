//! Makes files of spans for measurements: requests that pass through a chain of hosts, with attributes as
//! services have them, and for each host what an agent there would have printed of its clock.
//! `spans COUNT HOSTS DIRECTORY` writes `spans.json`, `spans.pb` and `HOST.jsonl`.

use std::{
    env,
    error::Error,
    fs::File,
    io::{BufWriter, Write},
    path::Path,
};

use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span, TracesData, span::SpanKind},
};
use prost::Message as _;
use ptp_trace::readings::HostLine;

/// Spans of a batch, as SDKs send them.
const BATCH: usize = 512;
/// Spans of a request.
const DEPTH: u64 = 6;
const START_NS: i64 = 1_700_000_000_000_000_000;

fn attribute(key: &str, value: Value) -> KeyValue {
    let value = Some(AnyValue { value: Some(value) });
    KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
}

fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, Value::StringValue(value.to_owned()))
}

/// How far the clock of a host is off, ns.
fn offset_ns(host: u64) -> i64 {
    (host as i64 * 7_919_113) % 2_000_000 - 1_000_000
}

fn span(number: u64, hosts: u64) -> (u64, Span) {
    let (request, step) = (number / DEPTH, number % DEPTH);
    let host = (request + step) % hosts;
    let start = START_NS + request as i64 * 50_000 + step as i64 * 20_000 + offset_ns(host);
    let id = |step: u64| (request * DEPTH + step + 1).to_be_bytes().to_vec();
    let span = Span {
        trace_id: (u128::from(request) + 1).to_be_bytes().to_vec(),
        span_id: id(step),
        parent_span_id: if step == 0 { Vec::new() } else { id(step - 1) },
        name: format!("GET /api/v1/items/{}", number % 50),
        kind: SpanKind::Server.into(),
        start_time_unix_nano: start as u64,
        end_time_unix_nano: (start + 400_000) as u64,
        attributes: vec![
            text("http.request.method", "GET"),
            text("url.path", "/api/v1/items"),
            attribute("http.response.status_code", Value::IntValue(200)),
            attribute("server.port", Value::IntValue(8443)),
            text("user_agent.original", "client/2.7.1 (linux; x86_64)"),
            text("thread.name", "worker-3"),
        ],
        ..Span::default()
    };
    (host, span)
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [count, hosts, directory] = arguments.as_slice() else {
        return Err("spans COUNT HOSTS DIRECTORY".into());
    };
    let (count, hosts): (u64, u64) = (count.parse()?, hosts.parse()?);
    let directory = Path::new(directory);
    let create = |name: &str| File::create(directory.join(name)).map(BufWriter::new);
    let (mut json, mut protobuf) = (create("spans.json")?, create("spans.pb")?);
    let mut waiting: Vec<Vec<Span>> = vec![Vec::new(); hosts as usize];
    let mut flush = |host: u64, spans: Vec<Span>| -> Result<(), Box<dyn Error>> {
        let attributes =
            vec![text("service.name", "items"), text("host.name", &format!("host{host}"))];
        let scope = InstrumentationScope { name: "http".to_owned(), ..Default::default() };
        let data = TracesData {
            resource_spans: vec![ResourceSpans {
                resource: Some(Resource { attributes, ..Resource::default() }),
                scope_spans: vec![ScopeSpans { scope: Some(scope), spans, ..Default::default() }],
                ..ResourceSpans::default()
            }],
        };
        serde_json::to_writer(&mut json, &data)?;
        json.write_all(b"\n")?;
        protobuf.write_all(&data.encode_to_vec())?;
        Ok(())
    };
    for number in 0..count {
        let (host, span) = span(number, hosts);
        let batch = &mut waiting[host as usize];
        batch.push(span);
        if batch.len() == BATCH {
            flush(host, std::mem::take(batch))?;
        }
    }
    for (host, spans) in (0..).zip(waiting) {
        flush(host, spans)?;
    }
    json.flush()?;
    protobuf.flush()?;
    let seconds = (count / DEPTH) as i64 * 50_000 / 1_000_000_000 + 2;
    for host in 0..hosts {
        let mut file = create(&format!("host{host}.jsonl"))?;
        for second in -1..=seconds {
            let line = HostLine {
                host: format!("host{host}"),
                mono_ns: second * 1_000_000_000,
                real_ns: START_NS + second * 1_000_000_000,
                offset_ns: Some(offset_ns(host)),
                bound_ns: Some(800),
                grandmaster: Some("000000.fffe.000001".to_owned()),
                domain: 0,
            };
            let mut line = serde_json::to_value(&line)?;
            line["event"] = "host".into();
            writeln!(file, "{line}")?;
        }
        file.flush()?;
    }
    Ok(())
}
