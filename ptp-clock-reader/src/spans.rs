//! Spans with PTP time, stamped where they happen: a span processor of OpenTelemetry's SDK that goes around
//! another one and adds the time by the agent's page, and its bound, as attributes. No privilege is needed
//! and the span's own times stay as they are; `ptp-agent trace` and any other reader find both.
//!
//! ```no_run
//! use opentelemetry_sdk::trace::{SdkTracerProvider, SpanExporter, SimpleSpanProcessor};
//! # fn provider(exporter: impl SpanExporter + 'static) -> Result<(), Box<dyn std::error::Error>> {
//! let clock = ptp_clock_reader::PtpClock::open("/run/ptp-agent/clock")?;
//! let spans = ptp_clock_reader::PtpSpans::new(clock, SimpleSpanProcessor::new(exporter));
//! let provider = SdkTracerProvider::builder().with_span_processor(spans).build();
//! # Ok(()) }
//! ```

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use opentelemetry::{Array, Context, KeyValue, Value, trace::Span as _};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{Span, SpanData, SpanProcessor},
};

use crate::PtpClock;

/// Attribute: start by the grandmaster's time, ns since 1970; UTC where the domain knows it.
pub const START: &str = "ptp.start_unix_nano";
/// Attribute: the truth is no farther from that, ns.
pub const START_BOUND: &str = "ptp.start_bound_ns";
/// Attribute: end by the grandmaster's time, ns since 1970.
pub const END: &str = "ptp.end_unix_nano";
/// Attribute: the truth is no farther from that, ns.
pub const END_BOUND: &str = "ptp.end_bound_ns";
/// Attribute: whose time it is.
pub const GRANDMASTER: &str = "ptp.grandmaster";
/// Kept from start to end: the host's clock, ns since 1970, PTP time and bound of one instant.
const BEGUN: &str = "ptp.begun";
/// A span's own time is taken from the host's clock up to this long before the processor hears of it.
const LATEST: i64 = 1_000_000_000;
/// Readings of the host's clock around one of the page; the closest pair counts.
const ATTEMPTS: u32 = 4;
/// Close enough, ns.
const CLOSE: i64 = 500;

/// Adds PTP time to spans and passes them on.
#[derive(Debug)]
pub struct PtpSpans<P> {
    inner: P,
    clock: PtpClock,
    grandmaster: Option<String>,
}

/// One instant by both clocks.
#[derive(Clone, Copy)]
struct Instant {
    host_ns: i64,
    ptp_ns: i64,
    bound_ns: i64,
}

impl<P> PtpSpans<P> {
    /// Around `inner`, with the time of `clock`.
    pub const fn new(clock: PtpClock, inner: P) -> Self {
        Self { inner, clock, grandmaster: None }
    }

    /// Names the grandmaster or the domain, so that nobody compares these times with those of another.
    #[must_use]
    pub fn of_grandmaster(mut self, name: impl Into<String>) -> Self {
        self.grandmaster = Some(name.into());
        self
    }

    /// Now; `None` while the clock follows nothing, or no bound is known.
    fn now(&self) -> Option<Instant> {
        let mut best: Option<(i64, Instant)> = None;
        for _ in 0..ATTEMPTS {
            let before = unix_ns(SystemTime::now())?;
            let time = self.clock.now().ok()?;
            let taken =
                unix_ns(SystemTime::now())?.checked_sub(before).filter(|taken| *taken >= 0)?;
            let utc_offset = i64::from(time.utc_offset_s.unwrap_or(0)) * 1_000_000_000;
            let instant = Instant {
                host_ns: before,
                ptp_ns: time.ptp_ns.checked_sub(utc_offset)?,
                // The page was read some time between the two.
                bound_ns: i64::try_from(time.bound_ns?).ok()?.checked_add(taken)?,
            };
            if best.is_none_or(|(least, _)| taken < least) {
                best = Some((taken, instant));
            }
            if taken <= CLOSE {
                break;
            }
        }
        best.map(|(_, instant)| instant)
    }
}

fn unix_ns(time: SystemTime) -> Option<i64> {
    i64::try_from(time.duration_since(UNIX_EPOCH).ok()?.as_nanos()).ok()
}

impl Instant {
    /// The time when the host's clock showed `at`, which was shortly before.
    fn back_to(self, at: SystemTime) -> Option<(i64, i64)> {
        let ago = self.host_ns.checked_sub(unix_ns(at)?)?;
        // The host's clock may be slewed meanwhile, by 500 ppm at the most; a step shows as nonsense.
        let is_sensible = (-1_000_000..=LATEST).contains(&ago);
        let slewed = ago.abs() / 2_000;
        is_sensible.then_some((self.ptp_ns.checked_sub(ago)?, self.bound_ns.checked_add(slewed)?))
    }
}

impl<P: SpanProcessor> SpanProcessor for PtpSpans<P> {
    fn on_start(&self, span: &mut Span, cx: &Context) {
        if let Some(now) = self.now() {
            let instant = vec![now.host_ns, now.ptp_ns, now.bound_ns];
            span.set_attribute(KeyValue::new(BEGUN, Value::Array(Array::I64(instant))));
        }
        self.inner.on_start(span, cx);
    }

    fn on_end(&self, mut span: SpanData) {
        let begun = span.attributes.iter().position(|attribute| attribute.key.as_str() == BEGUN);
        let begun = begun.map(|at| span.attributes.swap_remove(at).value);
        let start = match begun {
            Some(Value::Array(Array::I64(instant))) => match instant[..] {
                [host_ns, ptp_ns, bound_ns] => {
                    Instant { host_ns, ptp_ns, bound_ns }.back_to(span.start_time)
                }
                _ => None,
            },
            _ => None,
        };
        let end = self.now().and_then(|now| now.back_to(span.end_time));
        for (instant, [time, bound]) in [(start, [START, START_BOUND]), (end, [END, END_BOUND])] {
            if let Some((ptp_ns, bound_ns)) = instant {
                span.attributes.push(KeyValue::new(time, ptp_ns));
                span.attributes.push(KeyValue::new(bound, bound_ns));
            }
        }
        if let (Some(name), true) = (&self.grandmaster, start.is_some() || end.is_some()) {
            span.attributes.push(KeyValue::new(GRANDMASTER, name.clone()));
        }
        self.inner.on_end(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}
