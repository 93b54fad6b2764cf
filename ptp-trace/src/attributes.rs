//! Attributes of spans and resources: the names under which a host may be known, the time that a service
//! has stamped itself, and what is written beside corrected times. `ptp-clock-reader` writes the same at
//! the source.

use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, KeyValue, any_value::Value},
    resource::v1::Resource,
    trace::v1::Span,
};

use crate::span::{Lack, UNNAMED, When};

/// Start by the grandmaster's time, Unix ns.
pub const START: &str = "ptp.start_unix_nano";
/// The truth is no farther from that, ns.
pub const START_BOUND: &str = "ptp.start_bound_ns";
/// End by the grandmaster's time, Unix ns.
pub const END: &str = "ptp.end_unix_nano";
/// The truth is no farther from that, ns.
pub const END_BOUND: &str = "ptp.end_bound_ns";
/// What was taken from the host's start to correct it, ns.
pub const START_OFFSET: &str = "ptp.start_offset_ns";
/// What was taken from the host's end to correct it, ns.
pub const END_OFFSET: &str = "ptp.end_offset_ns";
/// Whose time it is.
pub const GRANDMASTER: &str = "ptp.grandmaster";
/// Why a span has been left as it was.
pub const UNCORRECTED: &str = "ptp.uncorrected";

/// Attributes of a resource that name its host, the surest first.
const HOSTS: [&str; 7] =
    ["k8s.node.name", "host.name", "host.id", "hostname", "host.ip", "ip", "net.host.name"];

/// The text of an attribute.
fn text(attribute: &KeyValue) -> Option<&str> {
    match attribute.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text),
        _ => None,
    }
}

fn integer(attributes: &[KeyValue], key: &str) -> Option<i64> {
    let attribute = attributes.iter().find(|attribute| attribute.key == key)?;
    match attribute.value.as_ref()?.value.as_ref()? {
        Value::IntValue(value) => Some(*value),
        // Some exporters make text of large numbers.
        Value::StringValue(text) => text.parse().ok(),
        _ => None,
    }
}

/// The text of the attribute `key` of a resource.
pub fn of_resource<'a>(resource: Option<&'a Resource>, key: &str) -> Option<&'a str> {
    let mut attributes = resource?.attributes.iter();
    attributes.find(|attribute| attribute.key == key).and_then(text)
}

/// Names under which the host of a resource may be known.
pub fn hosts(resource: Option<&Resource>) -> Vec<&str> {
    let names = HOSTS.iter().filter_map(|key| of_resource(resource, key));
    names.filter(|name| !name.is_empty()).collect()
}

/// Start and end as the service has stamped them itself, by its grandmaster's time.
pub fn at_source(span: &Span, grandmaster: Option<u32>) -> Option<[When; 2]> {
    // Most spans have none, and a million are looked at.
    if !span.attributes.iter().any(|attribute| attribute.key == START) {
        return None;
    }
    let when = |time: &str, bound: &str| {
        let time = integer(&span.attributes, time).filter(|time| *time > 0)?;
        let bound = integer(&span.attributes, bound).filter(|bound| *bound >= 0)?;
        Some(When {
            lo_ns: time.saturating_sub(bound),
            hi_ns: time.saturating_add(bound),
            grandmaster: grandmaster.unwrap_or(UNNAMED),
        })
    };
    Some([when(START, START_BOUND)?, when(END, END_BOUND)?])
}

/// The grandmaster that a span names.
pub fn grandmaster(span: &Span) -> Option<&str> {
    span.attributes.iter().find(|attribute| attribute.key == GRANDMASTER).and_then(text)
}

fn set(span: &mut Span, key: &str, value: Value) {
    let value = Some(AnyValue { value: Some(value) });
    match span.attributes.iter_mut().find(|attribute| attribute.key == key) {
        Some(attribute) => attribute.value = value,
        None => {
            span.attributes.push(KeyValue { key: key.to_owned(), value, ..KeyValue::default() })
        }
    }
}

/// Corrects the times of a span and of its events, and writes bounds and offsets beside them.
pub fn correct(span: &mut Span, start: When, end: When, grandmaster: Option<&str>) {
    let instants = [(&mut span.start_time_unix_nano, start), (&mut span.end_time_unix_nano, end)];
    let mut offsets = [0; 2];
    for ((time, when), offset) in instants.into_iter().zip(&mut offsets) {
        let corrected = u64::try_from(when.middle_ns()).unwrap_or(0);
        // Both fit: what does not was refused before.
        *offset = (i128::from(*time) - i128::from(corrected)) as i64;
        *time = corrected;
    }
    // A clock that was set back within the span must not make it end before it began.
    span.end_time_unix_nano = span.end_time_unix_nano.max(span.start_time_unix_nano);
    for event in &mut span.events {
        let corrected = i128::from(event.time_unix_nano) - i128::from(offsets[0]);
        event.time_unix_nano = u64::try_from(corrected).unwrap_or(event.time_unix_nano);
    }
    for (key, value) in [
        (START, start.middle_ns()),
        (START_BOUND, start.bound_ns()),
        (END, end.middle_ns()),
        (END_BOUND, end.bound_ns()),
        (START_OFFSET, offsets[0]),
        (END_OFFSET, offsets[1]),
    ] {
        set(span, key, Value::IntValue(value));
    }
    if let Some(name) = grandmaster {
        set(span, GRANDMASTER, Value::StringValue(name.to_owned()));
    }
}

/// Says why a span is left as it was.
pub fn leave(span: &mut Span, why: Lack) {
    set(span, UNCORRECTED, Value::StringValue(why.text().to_owned()));
}
