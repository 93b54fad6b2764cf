//! What `run` knows of the clocks, as those outside want it: the software clock, and how wrong
//! CLOCK_REALTIME is.

use ptp_common::{
    data_set::UtcOffset,
    time::{Duration, Mono, Time},
};

use crate::{
    clock::{Clock, followed::Followed},
    engine::discipline::{Discipline, Sample},
    publish::export::View,
    servo::Trust,
    sys::clock::realtime_minus_monotonic,
};

/// A sample of a clock that is only watched says nothing of the present when it is older.
const FRESH: Duration = Duration::from_secs(10);

/// What has been made of the clock so far, and what an operator knows of it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Known {
    /// The latest sample.
    pub(super) last: Option<Sample>,
    /// Steps of the clock.
    pub(super) steps: u64,
    /// How far the grandmaster is from UTC, where it does not say so itself.
    pub(super) grandmaster_accuracy: Option<Duration>,
    /// By how much a bound grows with age, parts per billion.
    pub(super) rate_error_ppb: f64,
    /// In a laboratory: the host's clock is taken to be so far ahead of what it is.
    pub(super) host_clock_offset: Duration,
}

/// At `now`.
pub(super) fn view<'a>(
    client: &'a Discipline<Followed>,
    now: Time<Mono>,
    known: &Known,
) -> View<'a> {
    let trust = client.trust(now);
    let error_bound = trust.map(|trust| trust.bound);
    let real = now.at_offset(realtime_minus_monotonic() + known.host_clock_offset);
    let origin = client.origin();
    let properties = origin.parent.map(|parent| parent.time_properties);
    let is_tai = properties.is_some_and(|properties| properties.ptp_timescale);
    let utc_offset_s = properties
        .filter(|properties| matches!(properties.utc_offset(), UtcOffset::Announced(_)))
        .map(|properties| i32::from(properties.current_utc_offset));
    let is_utc_unknown = properties.is_some_and(|known| known.utc_offset().known().is_none());
    let (software, real_error, real_error_bound) = match client.clock() {
        Followed::Virtual(clock) => {
            // Of a domain on TAI, UTC is known only with the offset.
            let utc = properties
                .filter(|_| !is_utc_unknown)
                .map(|_| clock.at(now) - Duration::from_secs(utc_offset_s.unwrap_or(0).into()));
            (Some(&**clock), utc.map(|utc| real - utc), error_bound)
        }
        Followed::Watched(_) => {
            let fresh = known
                .last
                .filter(|sample| now - sample.mono <= FRESH && !is_utc_unknown)
                .map(|sample| sample.offset);
            (None, fresh, fresh.zip(trust).map(|(error, trust)| beyond(error, &trust)))
        }
        // Which hardware clock nobody is told of here.
        Followed::Phc(_) => (None, None, None),
        // The bound has the offset in it.
        Followed::System(_) => (None, error_bound.map(|_| Duration::ZERO), error_bound),
    };
    View {
        now,
        state: client.servo().state(),
        software,
        trust,
        rate_error_ppb: known.rate_error_ppb,
        reference: origin.bound_reference(),
        inaccuracy: origin.inaccuracy(known.grandmaster_accuracy),
        utc_offset_s,
        is_utc_unknown,
        real,
        real_error,
        real_error_bound,
        leap: properties
            .filter(|_| is_tai)
            .map_or(0, |properties| i8::from(properties.leap61) - i8::from(properties.leap59)),
        steps: known.steps,
    }
}

/// How far the host's own clock is from the grandmaster's time as UTC, and to within what; `None` while that
/// is not known.
pub(super) fn host_offset(
    client: &Discipline<Followed>,
    view: &View<'_>,
) -> Option<(Duration, Duration)> {
    match client.clock() {
        // The interval is of this very clock, and holds now, which the last sample does not.
        Followed::Watched(_) | Followed::System(_) if !view.is_utc_unknown => {
            let interval = view.trust?.interval;
            let half = (interval.hi - interval.lo).half();
            Some((interval.lo + half, half))
        }
        Followed::Virtual(_) => view.real_error.zip(view.real_error_bound),
        Followed::Watched(_) | Followed::System(_) | Followed::Phc(_) => None,
    }
}

/// How far the truth can be from `error`.
fn beyond(error: Duration, trust: &Trust) -> Duration {
    (trust.interval.hi - error).abs().max((error - trust.interval.lo).abs())
}
