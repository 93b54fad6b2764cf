//! A trace of Jaeger's JSON (what its query service answers, and what its page saves) as spans of OTLP, one
//! resource for each process.

use std::collections::HashMap;

use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, KeyValue, any_value::Value},
    resource::v1::Resource,
    trace::v1::{
        ResourceSpans, ScopeSpans, Span, Status,
        span::{Link, SpanKind},
        status::StatusCode,
    },
};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Trace {
    #[serde(default)]
    spans: Vec<JaegerSpan>,
    #[serde(default)]
    processes: HashMap<String, Process>,
}

#[derive(Deserialize)]
struct JaegerSpan {
    #[serde(rename = "traceID")]
    trace_id: String,
    #[serde(rename = "spanID")]
    span_id: String,
    #[serde(rename = "parentSpanID", default)]
    parent_span_id: String,
    #[serde(rename = "operationName", default)]
    operation_name: String,
    #[serde(default)]
    references: Vec<Reference>,
    /// Microseconds.
    #[serde(rename = "startTime", default)]
    start_time: u64,
    /// Microseconds.
    #[serde(default)]
    duration: u64,
    #[serde(default)]
    tags: Vec<Tag>,
    #[serde(rename = "processID", default)]
    process_id: String,
}

#[derive(Deserialize)]
struct Reference {
    #[serde(rename = "refType", default)]
    kind: String,
    #[serde(rename = "traceID", default)]
    trace_id: String,
    #[serde(rename = "spanID", default)]
    span_id: String,
}

#[derive(Deserialize)]
struct Process {
    #[serde(rename = "serviceName", default)]
    service_name: String,
    #[serde(default)]
    tags: Vec<Tag>,
}

#[derive(Deserialize)]
struct Tag {
    #[serde(default)]
    key: String,
    #[serde(default)]
    value: serde_json::Value,
}

/// One trace.
///
/// # Errors
/// What serde says of it.
pub(super) fn read(text: &[u8]) -> Result<Vec<ResourceSpans>, serde_json::Error> {
    let trace: Trace = serde_json::from_slice(text)?;
    let mut of_process: HashMap<String, Vec<Span>> = HashMap::new();
    for span in trace.spans {
        of_process.entry(span.process_id.clone()).or_default().push(span.into());
    }
    let resources = of_process.into_iter().map(|(process, spans)| ResourceSpans {
        resource: Some(trace.processes.get(&process).map_or_else(Resource::default, resource)),
        scope_spans: vec![ScopeSpans { spans, ..ScopeSpans::default() }],
        ..ResourceSpans::default()
    });
    Ok(resources.collect())
}

fn resource(process: &Process) -> Resource {
    let name = Tag { key: "service.name".to_owned(), value: process.service_name.clone().into() };
    let attributes = std::iter::once(&name).chain(&process.tags).map(attribute).collect();
    Resource { attributes, ..Resource::default() }
}

fn attribute(tag: &Tag) -> KeyValue {
    let value = match &tag.value {
        serde_json::Value::Bool(value) => Value::BoolValue(*value),
        serde_json::Value::Number(number) => match number.as_i64() {
            Some(value) => Value::IntValue(value),
            None => Value::DoubleValue(number.as_f64().unwrap_or(f64::NAN)),
        },
        serde_json::Value::String(value) => Value::StringValue(value.clone()),
        other => Value::StringValue(other.to_string()),
    };
    KeyValue {
        key: tag.key.clone(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

/// Hexadecimal as bytes, the lowest last; leading zeros may be missing. Empty when it is none.
fn id<const N: usize>(text: &str) -> Vec<u8> {
    let value = u128::from_str_radix(text, 16).unwrap_or_default();
    let bytes = value.to_be_bytes();
    let (above, bytes) = bytes.split_at(bytes.len() - N);
    if value == 0 || above.iter().any(|byte| *byte != 0) { Vec::new() } else { bytes.to_vec() }
}

impl From<JaegerSpan> for Span {
    fn from(span: JaegerSpan) -> Self {
        let tag = |key: &str| span.tags.iter().find(|tag| tag.key == key).map(|tag| &tag.value);
        let kind = match tag("span.kind").and_then(|kind| kind.as_str()) {
            Some("server") => SpanKind::Server,
            Some("client") => SpanKind::Client,
            Some("producer") => SpanKind::Producer,
            Some("consumer") => SpanKind::Consumer,
            Some("internal") => SpanKind::Internal,
            _ => SpanKind::Unspecified,
        };
        let has_failed = tag("error").is_some_and(|value| *value == true || *value == "true");
        let mut parent = span.parent_span_id.clone();
        let mut links = Vec::new();
        for reference in &span.references {
            if reference.kind == "CHILD_OF" && parent.is_empty() {
                parent.clone_from(&reference.span_id);
            } else if reference.span_id != parent {
                links.push(Link {
                    trace_id: id::<16>(&reference.trace_id),
                    span_id: id::<8>(&reference.span_id),
                    ..Link::default()
                });
            }
        }
        let start_time_unix_nano = span.start_time.saturating_mul(1_000);
        Self {
            trace_id: id::<16>(&span.trace_id),
            span_id: id::<8>(&span.span_id),
            parent_span_id: id::<8>(&parent),
            kind: kind.into(),
            start_time_unix_nano,
            end_time_unix_nano: start_time_unix_nano
                .saturating_add(span.duration.saturating_mul(1_000)),
            status: has_failed
                .then(|| Status { code: StatusCode::Error.into(), ..Status::default() }),
            attributes: span.tags.iter().map(attribute).collect(),
            links,
            name: span.operation_name,
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &[u8] = br#"{"traceID":"ab","spans":[
        {"traceID":"ab","spanID":"1","operationName":"ask","references":[],"startTime":1700000000000001,
         "duration":7,"tags":[{"key":"span.kind","type":"string","value":"client"},
         {"key":"error","type":"bool","value":true}],"logs":[],"processID":"p1","warnings":null},
        {"traceID":"ab","spanID":"2","operationName":"answer","references":[
         {"refType":"CHILD_OF","traceID":"ab","spanID":"1"},
         {"refType":"FOLLOWS_FROM","traceID":"ab","spanID":"9"}],"startTime":1700000000000003,
         "duration":2,"tags":[],"processID":"p2"}],
        "processes":{"p1":{"serviceName":"front","tags":[{"key":"hostname","type":"string","value":"h1"}]}}}"#;

    #[test]
    fn spans_have_their_process_their_parent_and_their_times() {
        let resources = read(TRACE).unwrap();
        let named = |name: &str| {
            resources.iter().find(|resource| resource.scope_spans[0].spans[0].name == name).unwrap()
        };
        let (ask, answer) = (named("ask"), named("answer"));
        let attributes = &ask.resource.as_ref().unwrap().attributes;
        assert_eq!(attributes[0].key, "service.name");
        assert_eq!(attributes[1].key, "hostname");
        let (ask, span) = (&ask.scope_spans[0].spans[0], &answer.scope_spans[0].spans[0]);
        assert_eq!(ask.kind, i32::from(SpanKind::Client));
        assert_eq!(ask.status.as_ref().unwrap().code, i32::from(StatusCode::Error));
        assert_eq!(ask.start_time_unix_nano, 1_700_000_000_000_001_000);
        assert_eq!(ask.end_time_unix_nano, 1_700_000_000_000_008_000);
        assert_eq!(span.parent_span_id, [0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(span.links[0].span_id, [0, 0, 0, 0, 0, 0, 0, 9]);
        assert!(answer.resource.as_ref().unwrap().attributes.is_empty(), "no such process");
    }

    #[test]
    fn what_is_no_identity_is_none() {
        assert_eq!(id::<8>("xyz"), Vec::<u8>::new());
        assert_eq!(id::<8>("10000000000000000"), Vec::<u8>::new(), "too long");
        assert_eq!(id::<8>("0"), Vec::<u8>::new());
    }

    #[test]
    fn absurd_times_saturate() {
        let span: JaegerSpan = serde_json::from_str(
            r#"{"traceID":"1","spanID":"1","startTime":18446744073709551615,"duration":1}"#,
        )
        .unwrap();
        assert_eq!(Span::from(span).end_time_unix_nano, u64::MAX);
    }
}
