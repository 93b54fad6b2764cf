//! Spans of one resource: whose they are, and when they were by the grandmaster's time. What a service
//! has stamped itself comes first, then what is known of its host's clock.

use std::collections::HashMap;

use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, span::SpanKind, status::StatusCode};

use crate::{
    attributes,
    clocks::Clocks,
    names::Names,
    span::{Kind, Lack, Span, SpanId, TraceId, When},
};

/// How fine the stamps of a service are, ns, until they have shown to be finer.
const COARSEST_NS: i64 = 1_000_000;
/// Hosts and services of which the grain is remembered.
const GRAINS: usize = 65_536;
/// Earlier is no time of a span: a second of 1970, ns.
const EARLIEST_NS: u64 = 1_000_000_000;

/// What was seen so far.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Spans read.
    pub spans: u64,
    /// Corrected by what their service stamped itself.
    pub at_source: u64,
    /// Corrected by what is known of their host's clock.
    pub by_host: u64,
    /// Not corrected, by cause.
    pub lacking: HashMap<Lack, u64>,
    /// Without an identity of their own: cannot be compared with anything.
    pub without_identity: u64,
    /// That end before they start by their own clock.
    pub backwards: u64,
}

/// What is corrected, and what was seen.
#[derive(Debug)]
pub struct Corrector {
    /// What is known of the hosts.
    pub clocks: Clocks,
    /// Names of hosts, services and spans.
    pub names: Names,
    /// What was seen so far.
    pub counts: Counts,
    /// Spans of each host that could not be corrected because it has no agent.
    pub without_agent: HashMap<u32, u64>,
    grains: HashMap<(u32, u32), i64>,
    /// Set: all stamps are as fine as this, ns.
    grain_ns: Option<i64>,
}

impl Corrector {
    /// With what is known of the hosts; `grain_ns`: how fine all stamps are, otherwise it is seen by them.
    pub fn new(clocks: Clocks, grain_ns: Option<i64>) -> Self {
        Self {
            clocks,
            names: Names::default(),
            counts: Counts::default(),
            without_agent: HashMap::new(),
            grains: HashMap::new(),
            grain_ns: grain_ns.map(|grain| grain.max(1)),
        }
    }

    /// Gives each span of a resource to `take`; with `rewrite` corrects the resource itself, too.
    pub fn resource(
        &mut self,
        resource: &mut ResourceSpans,
        rewrite: bool,
        mut take: impl FnMut(TraceId, Span),
    ) {
        let of = resource.resource.clone();
        let hosts = attributes::hosts(of.as_ref());
        let service = attributes::of_resource(of.as_ref(), "service.name").unwrap_or("");
        let service = self.names.number(if service.is_empty() { "(no service)" } else { service });
        let spans = || resource.scope_spans.iter().flat_map(|scope| &scope.spans);
        let times = || {
            let both = |span: &opentelemetry_proto::tonic::trace::v1::Span| {
                [span.start_time_unix_nano, span.end_time_unix_nano]
            };
            spans().flat_map(both).filter_map(sensible)
        };
        if let (Some(first), Some(last)) = (times().min(), times().max()) {
            self.clocks.prepare(first..last.saturating_add(1));
        }
        let clock = self.clocks.host(&hosts).map(str::to_owned);
        let shown = clock.as_deref().or(hosts.first().copied()).unwrap_or("(no host)");
        let host = self.names.number(shown);
        let grain = match self.grain_ns {
            Some(grain) => grain,
            None => self.grain(host, service, times()),
        };
        for scope in &mut resource.scope_spans {
            for span in &mut scope.spans {
                self.span(span, clock.as_deref(), host, service, grain, rewrite, &mut take);
            }
        }
    }

    /// How fine the stamps of a service on a host have shown to be: those that all end in zeros are of a
    /// clock that counts in microseconds or milliseconds, and were cut.
    fn grain(&mut self, host: u32, service: u32, times: impl Iterator<Item = i64>) -> i64 {
        let known = self.grains.get(&(host, service)).copied();
        let mut grain = known.unwrap_or(COARSEST_NS);
        for time in times {
            while grain > 1 && time % grain != 0 {
                grain /= 1_000;
            }
            if grain <= 1 {
                break;
            }
        }
        if known.is_some() || self.grains.len() < GRAINS {
            self.grains.insert((host, service), grain);
        }
        grain.max(1)
    }

    #[expect(clippy::too_many_arguments, reason = "all but the first are of the resource")]
    fn span(
        &mut self,
        span: &mut opentelemetry_proto::tonic::trace::v1::Span,
        clock: Option<&str>,
        host: u32,
        service: u32,
        grain_ns: i64,
        rewrite: bool,
        take: &mut impl FnMut(TraceId, Span),
    ) {
        self.counts.spans += 1;
        let (start, end) = (sensible(span.start_time_unix_nano), sensible(span.end_time_unix_nano));
        if let (Some(start), Some(end)) = (start, end)
            && end < start
        {
            self.counts.backwards += 1;
        }
        let named = attributes::grandmaster(span).map(|name| self.clocks.grandmasters.number(name));
        let (when_start, when_end) = match attributes::at_source(span, named) {
            Some([start, end]) => {
                self.counts.at_source += 1;
                (Ok(start), Ok(end))
            }
            None => {
                let mut when = |time: Option<i64>| match (time, clock) {
                    (None, _) => Err(Lack::NoTime),
                    (_, None) => Err(Lack::NoAgent),
                    (Some(time), Some(clock)) => self.clocks.when(clock, time, grain_ns),
                };
                let both = (when(start), when(end));
                match (both.0, both.1) {
                    (Ok(_), Ok(_)) => self.counts.by_host += 1,
                    (Err(lack), _) | (_, Err(lack)) => {
                        *self.counts.lacking.entry(lack).or_default() += 1;
                        if lack == Lack::NoAgent {
                            *self.without_agent.entry(host).or_default() += 1;
                        }
                    }
                }
                both
            }
        };
        match (trace_id(&span.trace_id), span_id(&span.span_id)) {
            (Some(trace), Some(id)) => {
                let links = span.links.iter().filter(|link| link.trace_id == span.trace_id);
                let links = links.filter_map(|link| span_id(&link.span_id)).take(LINKS).collect();
                let parent = span_id(&span.parent_span_id).unwrap_or_default();
                let failed = i32::from(StatusCode::Error);
                take(
                    trace,
                    Span {
                        id,
                        parent,
                        host,
                        service,
                        name: self.names.number(&span.name),
                        kind: kind(span.kind),
                        has_failed: span
                            .status
                            .as_ref()
                            .is_some_and(|status| status.code == failed),
                        raw_start_ns: start.unwrap_or(0),
                        raw_end_ns: end.or(start).unwrap_or(0),
                        start: when_start,
                        end: when_end,
                        links,
                    },
                );
            }
            _ => self.counts.without_identity += 1,
        }
        if rewrite {
            match (when_start, when_end) {
                (Ok(start), Ok(end)) => {
                    let name = self.grandmaster_name(start);
                    let name = name.map(str::to_owned);
                    attributes::correct(span, start, end, name.as_deref());
                }
                (Err(lack), _) | (_, Err(lack)) => attributes::leave(span, lack),
            }
        }
    }

    fn grandmaster_name(&self, when: When) -> Option<&str> {
        let is_named = when.grandmaster != crate::span::UNNAMED;
        is_named.then(|| self.clocks.grandmasters.name(when.grandmaster))
    }
}

/// Links that are kept of a span.
const LINKS: usize = 128;

/// A time that is one, Unix ns.
fn sensible(time: u64) -> Option<i64> {
    i64::try_from(time).ok().filter(|_| time >= EARLIEST_NS)
}

fn trace_id(bytes: &[u8]) -> Option<TraceId> {
    let value = u128::from_be_bytes(bytes.try_into().ok()?);
    (value != 0).then_some(TraceId(value))
}

fn span_id(bytes: &[u8]) -> Option<SpanId> {
    let value = u64::from_be_bytes(bytes.try_into().ok()?);
    (value != 0).then_some(SpanId(value))
}

fn kind(kind: i32) -> Kind {
    match SpanKind::try_from(kind) {
        Ok(SpanKind::Server) => Kind::Server,
        Ok(SpanKind::Client) => Kind::Client,
        Ok(SpanKind::Producer) => Kind::Producer,
        Ok(SpanKind::Consumer) => Kind::Consumer,
        _ => Kind::Internal,
    }
}
