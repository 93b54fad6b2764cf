//! A span as it is kept until its trace is complete: who, where, when, and how well that is known. Small,
//! because a million of them may be open.

use std::fmt;

/// Of a trace, 16 bytes as in OTLP; Jaeger's 8 are the lower half.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TraceId(pub u128);

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Of a span within its trace; 0 is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpanId(pub u64);

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Why nothing is known of a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Lack {
    /// No agent is known for the host.
    NoAgent,
    /// The host has an agent, but there is nothing of it from that time.
    Gap,
    /// The agent has changed its grandmaster just then.
    GrandmasterChanged,
    /// Two hosts follow different grandmasters, so that their times cannot be compared.
    OtherGrandmaster,
    /// The span has no sensible time.
    NoTime,
}

impl Lack {
    /// In words, for a message.
    pub const fn text(self) -> &'static str {
        match self {
            Self::NoAgent => "no agent is known for the host",
            Self::Gap => "nothing is known of the host's clock at that time",
            Self::GrandmasterChanged => "the host's grandmaster changed just then",
            Self::OtherGrandmaster => "the hosts follow different grandmasters",
            Self::NoTime => "the span has no time",
        }
    }

    /// As a word, for JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoAgent => "no_agent",
            Self::Gap => "gap",
            Self::GrandmasterChanged => "grandmaster_changed",
            Self::OtherGrandmaster => "other_grandmaster",
            Self::NoTime => "no_time",
        }
    }
}

/// When something happened by the grandmaster's time: not before `lo_ns` and not after `hi_ns`, Unix ns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct When {
    /// Earliest, ns.
    pub lo_ns: i64,
    /// Latest, ns.
    pub hi_ns: i64,
    /// Number of the grandmaster's name; [`UNNAMED`] where the host stamps at the source and does not say.
    pub grandmaster: u32,
}

/// A grandmaster that nobody names: all who do not are of one domain.
pub const UNNAMED: u32 = u32::MAX;

impl When {
    /// The middle, ns.
    pub const fn middle_ns(self) -> i64 {
        self.lo_ns.saturating_add(self.width_ns() / 2)
    }

    /// Latest minus earliest, ns.
    pub const fn width_ns(self) -> i64 {
        self.hi_ns.saturating_sub(self.lo_ns)
    }

    /// The largest error of the middle, ns, rounded up.
    pub const fn bound_ns(self) -> i64 {
        self.width_ns() / 2 + self.width_ns() % 2
    }
}

/// What a span is, as far as it matters for what must come first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// Anything else.
    #[default]
    Internal,
    /// Answers a request.
    Server,
    /// Asks, and waits for the answer.
    Client,
    /// Sends, and does not wait.
    Producer,
    /// Takes what a producer has sent.
    Consumer,
}

/// One span.
#[derive(Clone, Debug)]
pub struct Span {
    /// Itself.
    pub id: SpanId,
    /// What it is part of; 0 of a root.
    pub parent: SpanId,
    /// Number of the name of its host.
    pub host: u32,
    /// Number of the name of its service.
    pub service: u32,
    /// Number of its name.
    pub name: u32,
    /// What it is.
    pub kind: Kind,
    /// It says that it failed, so that nothing follows from its end.
    pub has_failed: bool,
    /// Start by the host's clock, Unix ns.
    pub raw_start_ns: i64,
    /// End by the host's clock, Unix ns.
    pub raw_end_ns: i64,
    /// Start by the grandmaster's time.
    pub start: Result<When, Lack>,
    /// End by the grandmaster's time.
    pub end: Result<When, Lack>,
    /// Spans of the same trace that it says to follow from.
    pub links: Box<[SpanId]>,
}
