//! Spans of OpenTelemetry's SDK carry the time of the page and its bound, as long as there is one.

use std::{
    env, fs,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use opentelemetry::{
    Context, Value,
    trace::{Span as _, Tracer as _, TracerProvider as _},
};
use opentelemetry_sdk::{
    error::OTelSdkResult,
    trace::{SdkTracerProvider, Span, SpanData, SpanProcessor},
};
use ptp_clock_reader::{Course, NO_BOUND, NO_INTERVAL, PtpClock, PtpSpans, WORDS, spans};

/// Keeps what it is given.
#[derive(Clone, Debug, Default)]
struct Kept(Arc<Mutex<Vec<SpanData>>>);

impl SpanProcessor for Kept {
    fn on_start(&self, _: &mut Span, _: &Context) {}
    fn on_end(&self, span: SpanData) {
        self.0.lock().unwrap().push(span);
    }
    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }
    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// A page in which a clock is an hour ahead of 2026, on TAI, good to `bound_ns`.
fn page(name: &str, bound_ns: u64) -> PathBuf {
    let course = Course {
        mono_ns: 0,
        ptp_ns: 1_767_229_200_000_000_000,
        fraction: 0,
        rate: 0,
        bound_ns,
        growth_ppb: 0,
        void_ns: i64::MAX,
        state: 1,
        utc_offset_s: 37,
        steps: 0,
        interval_ns: NO_INTERVAL,
        precision_ns: None,
        accuracy_ns: None,
    };
    let words: [AtomicU64; WORDS] = Default::default();
    course.write(&words);
    let bytes = words.iter().flat_map(|word| word.load(Ordering::Relaxed).to_ne_bytes());
    let path = env::temp_dir().join(format!("ptp-spans-{name}-{}", std::process::id()));
    fs::write(&path, bytes.collect::<Vec<u8>>()).unwrap();
    path
}

fn span_with(path: &PathBuf) -> SpanData {
    let kept = Kept::default();
    let spans = PtpSpans::new(PtpClock::open(path).unwrap(), kept.clone()).of_grandmaster("gm");
    let provider = SdkTracerProvider::builder().with_span_processor(spans).build();
    provider.tracer("test").start("work").end();
    let span = kept.0.lock().unwrap().pop().unwrap();
    fs::remove_file(path).unwrap();
    span
}

fn number(span: &SpanData, key: &str) -> Option<i64> {
    let attribute = span.attributes.iter().find(|attribute| attribute.key.as_str() == key)?;
    match attribute.value {
        Value::I64(value) => Some(value),
        _ => None,
    }
}

#[test]
fn span_carries_start_and_end_by_the_page_with_their_bounds() {
    let before = PtpClock::open(page("before", 250)).unwrap().now().unwrap().ptp_ns;
    let span = span_with(&page("known", 250));
    let after = PtpClock::open(page("after", 250)).unwrap().now().unwrap().ptp_ns;
    let utc = |tai: i64| tai - 37_000_000_000;
    let (start, end) = (number(&span, spans::START).unwrap(), number(&span, spans::END).unwrap());
    let bounds = [spans::START_BOUND, spans::END_BOUND].map(|key| number(&span, key).unwrap());
    assert!(bounds.iter().all(|bound| *bound >= 250), "{bounds:?}");
    assert!(utc(before) - bounds[0] <= start && start - bounds[0] <= end + bounds[1]);
    assert!(end - bounds[1] <= utc(after));
    // The span is as long by the page as by the host's clock, which runs as fast.
    let shown = span.end_time.duration_since(span.start_time).unwrap().as_nanos() as i64;
    assert!((end - start - shown).abs() <= bounds[0] + bounds[1], "{shown} {}", end - start);
    let keys: Vec<&str> = span.attributes.iter().map(|one| one.key.as_str()).collect();
    assert_eq!(keys.len(), 5, "nothing else is left behind: {keys:?}");
    assert!(keys.contains(&spans::GRANDMASTER));
    for name in ["before", "after"] {
        let _ = fs::remove_file(
            env::temp_dir().join(format!("ptp-spans-{name}-{}", std::process::id())),
        );
    }
}

#[test]
fn clock_without_a_bound_says_nothing() {
    let span = span_with(&page("unknown", NO_BOUND));
    assert!(span.attributes.is_empty(), "{:?}", span.attributes);
}
