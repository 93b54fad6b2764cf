//! The time of one source, watched beside the one that is followed: where the free-running scale can be against it.
//! Of a time transmitter that answers requests causality bounds both ends. Of one that is only overheard, a
//! Sync bounds one: it cannot have arrived before it was sent. At the other end it is taken to have been under way
//! no longer than [`limits::WITNESS_PATH`](crate::limits::WITNESS_PATH).

use crate::{
    PortIndex, limits,
    servo::{Causal, DelayInput, Interval, LocalTime, Options, Pace, PeerDelayInput, SyncInput},
    sources::SourceId,
};
use alloc::collections::VecDeque;
use ptp_common::{
    data_set::TimeProperties,
    time::{Duration, Free, Mono, Ptp, Time},
    wire::ClockIdentity,
};

/// A source that was silent for so long has no opinion,
const FRESH: Duration = Duration::from_secs(10);
/// or for as many of its intervals.
const FRESH_INTERVALS: i32 = 8;
/// Requests that are older bound nothing any more.
const ANSWERED: Duration = Duration::from_secs(40);
/// Syncs before it has an opinion.
const FEWEST: u32 = 4;
/// The rate is taken from the fastest Sync of each of so many spans, the oldest of which are forgotten.
const SPAN: Duration = Duration::from_secs(8);
const SPANS: usize = 8;
/// Any oscillator, ppb (IEEE 1588-2019 7.6.3.3 and annex I.3.4: 100 ppm), here and there.
const ANY_RATE_PPB: f64 = 200_000.0;
/// A rate that is known may be wrong by so much at least, ppb.
const LEAST_RATE_ERROR_PPB: f64 = 1_000.0;

/// The fastest and the mean of a span.
#[derive(Clone, Copy, Debug)]
struct Span {
    begun: Time<Free>,
    least: (Time<Free>, f64),
    sum_ns: f64,
    count: f64,
    /// What a single one may be off, where that is known: the round trip.
    doubt_ns: f64,
}

impl Span {
    fn spread_ns(&self) -> f64 {
        (self.sum_ns / self.count - self.least.1).max(self.doubt_ns)
    }
}

/// How the free-running scale gains on the source.
#[derive(Clone, Debug, Default)]
struct Rate {
    origin: Option<Duration>,
    spans: VecDeque<Span>,
}

impl Rate {
    fn sync(&mut self, t1: Time<Ptp>, t2: Time<Free>, doubt: Duration) {
        let doubt_ns = doubt.as_nanos_f64();
        let offset = t2.since_epoch() - t1.since_epoch();
        let ns = (offset - *self.origin.get_or_insert(offset)).as_nanos_f64();
        match self.spans.back_mut() {
            Some(span) if t2 - span.begun < SPAN => {
                if ns < span.least.1 {
                    span.least = (t2, ns);
                    span.doubt_ns = doubt_ns;
                }
                span.sum_ns += ns;
                span.count += 1.0;
            }
            _ => {
                if self.spans.len() == SPANS {
                    self.spans.pop_front();
                }
                let least = (t2, ns);
                let span = Span { begun: t2, least, sum_ns: ns, count: 1.0, doubt_ns };
                self.spans.push_back(span);
            }
        }
    }

    /// Of whole spans; anything before there are some.
    fn pace(&self) -> Pace {
        let whole = self.spans.len().saturating_sub(1);
        let unknown =
            Pace { rate_ppb: 0.0, error_ppb: ANY_RATE_PPB, least_error_ppb: LEAST_RATE_ERROR_PPB };
        let (Some(first), Some(last)) =
            (self.spans.front(), whole.checked_sub(1).and_then(|at| self.spans.get(at)))
        else {
            return unknown;
        };
        let base_s = (last.least.0 - first.least.0).as_secs_f64();
        if base_s < SPAN.as_secs_f64() / 2.0 {
            return unknown;
        }
        let rate_ppb = (last.least.1 - first.least.1) / base_s;
        let spread = self.spans.iter().take(whole).map(Span::spread_ns).fold(0.0, f64::max);
        let error_ppb = LEAST_RATE_ERROR_PPB + 2.0 * spread / base_s;
        if rate_ppb.abs() > ANY_RATE_PPB || error_ppb > ANY_RATE_PPB {
            return unknown;
        }
        Pace { rate_ppb, error_ppb, least_error_ppb: LEAST_RATE_ERROR_PPB }
    }
}

/// See the module's paragraph.
#[derive(Clone, Debug)]
pub(super) struct Witness {
    pub(super) id: SourceId,
    pub(super) grandmaster: ClockIdentity,
    time_properties: TimeProperties,
    causal: Causal,
    rate: Rate,
    /// Since the grandmaster or the time scale was another one.
    syncs: u32,
    pub(super) heard: Time<Mono>,
    answered: Option<Time<Free>>,
    interval: Duration,
    /// How far a server of NTP may be from UTC by its own words; `None` of one that is none.
    root_distance: Option<Duration>,
    /// Where it is heard: who takes its name on another network says nothing of it.
    pub(super) port: Option<PortIndex>,
}

impl Witness {
    pub(super) fn new(
        id: SourceId,
        grandmaster: ClockIdentity,
        time_properties: TimeProperties,
        now: Time<Mono>,
    ) -> Self {
        Self {
            id,
            grandmaster,
            time_properties,
            causal: Causal::new(&Options::default()),
            rate: Rate::default(),
            syncs: 0,
            heard: now,
            answered: None,
            interval: Duration::ZERO,
            root_distance: None,
            port: None,
        }
    }

    /// Whether what a port hears in its name is its own: it is heard there, or was heard nowhere of late.
    pub(super) fn is_heard_on(&self, now: Time<Mono>, port: PortIndex) -> bool {
        self.port.is_none_or(|own| own == port) || !self.is_fresh(now)
    }

    /// What it says of itself; of another grandmaster or time scale nothing of before is true.
    pub(super) fn says(&mut self, grandmaster: ClockIdentity, time_properties: TimeProperties) {
        let is_same = self.grandmaster == grandmaster
            && self.time_properties.ptp_timescale == time_properties.ptp_timescale;
        if !is_same {
            *self = Self::new(self.id, grandmaster, time_properties, self.heard);
        }
        self.time_properties = time_properties;
    }

    pub(super) fn sync(&mut self, now: Time<Mono>, input: &SyncInput) {
        self.one_way(now, input, Duration::ZERO);
    }

    /// An exchange with a server of NTP: both ways at once.
    pub(super) fn exchange(
        &mut self,
        now: Time<Mono>,
        delay: &DelayInput,
        sync: &SyncInput,
        round_trip: Duration,
        root_distance: Duration,
    ) {
        self.root_distance = Some(root_distance);
        self.one_way(now, sync, round_trip.max(Duration::ZERO));
        self.delay(delay);
    }

    fn one_way(&mut self, now: Time<Mono>, input: &SyncInput, doubt: Duration) {
        self.heard = now;
        if self.answered.is_some_and(|at| input.t2.mono - at > self.patience()) {
            // What was asked in better days would contradict what it says now for ever.
            self.causal = Causal::new(&Options::default());
            self.answered = None;
        }
        self.syncs = self.syncs.saturating_add(1);
        self.interval = input.log_interval.map_or(self.interval, Duration::from_log_interval);
        self.rate.sync(input.t1, input.t2.mono, doubt);
        self.causal.sync(input, self.rate.pace());
    }

    pub(super) fn delay(&mut self, input: &DelayInput) {
        self.answered = Some(input.t3.mono);
        self.causal.delay(input, self.rate.pace());
    }

    pub(super) fn peer_delay(&mut self, input: &PeerDelayInput) {
        self.answered = Some(input.mono);
        self.causal.peer_delay(input);
    }

    /// Whether what it says contradicts what it said, and nobody knows yet which holds.
    pub(super) fn is_contradicted(&self) -> bool {
        self.causal.is_contradicted()
    }

    pub(super) const fn announces_leap(&self) -> bool {
        self.time_properties.leap61 || self.time_properties.leap59
    }

    /// So long a request bounds something.
    fn patience(&self) -> Duration {
        ANSWERED.max(self.interval * FRESH_INTERVALS)
    }

    /// Whether it has been heard of late.
    pub(super) fn is_fresh(&self, now: Time<Mono>) -> bool {
        now - self.heard <= FRESH.max(self.interval * FRESH_INTERVALS)
    }

    /// Where the free-running scale minus the source's UTC, or what stands for it, must lie.
    pub(super) fn opinion(&self, now: Time<Mono>, free: Time<Free>) -> Option<Interval> {
        // An exchange bounds both ends by itself.
        let fewest = if self.root_distance.is_some() { 1 } else { FEWEST };
        if self.syncs < fewest || !self.is_fresh(now) {
            return None;
        }
        let pace = self.rate.pace();
        let is_answered = self.answered.is_some_and(|at| free - at <= self.patience());
        let interval = self.causal.interval(free, pace, None).filter(|_| is_answered);
        let interval = interval.or_else(|| {
            let hi = self.causal.upper(free, pace)?;
            Some(Interval { lo: hi - limits::WITNESS_PATH, hi })
        })?;
        let utc_offset = self.time_properties.utc_offset().best();
        let interval = interval.widened(self.root_distance.unwrap_or(Duration::ZERO));
        Some(Interval { lo: interval.lo + utc_offset, hi: interval.hi + utc_offset })
    }
}

/// A stamp on the free-running scale alone: no witness looks at a clock that is steered.
pub(super) const fn free_running(mono: Time<Free>, stamp: crate::stamp::Stamp) -> LocalTime {
    let crate::stamp::Stamp { source, doubt, told_within, .. } = stamp;
    LocalTime { mono, clock: Time::ZERO, source, doubt, told_within }
}
