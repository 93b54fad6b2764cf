//! What `run` knows of the clocks, as those outside want it: the software clock, and how wrong
//! CLOCK_REALTIME is.

use ptp_common::time::{Duration, Mono, Time};

use crate::{
    clock::{Clock, followed::Followed},
    engine::client::{Client, Sample},
    publish::export::View,
    sys::clock::realtime_minus_monotonic,
};

/// A sample of a clock that is only watched says nothing of the present when it is older.
const FRESH: Duration = Duration::from_secs(10);

/// At `now`, with the latest sample.
pub(super) fn view<'a>(
    client: &'a Client<Followed>,
    now: Time<Mono>,
    last: Option<&Sample>,
    steps: u64,
) -> View<'a> {
    let error_bound = client.error_bound(now);
    let real = Time::from_epoch(now.since_epoch() + realtime_minus_monotonic());
    let properties = client.receiver().parent().map(|parent| parent.time_properties);
    let utc_offset_s = properties
        .filter(|properties| properties.ptp_timescale && properties.current_utc_offset_valid)
        .map(|properties| i32::from(properties.current_utc_offset));
    let is_tai = properties.is_some_and(|properties| properties.ptp_timescale);
    let (software, real_error, real_error_bound) = match client.clock() {
        Followed::Virtual(clock) => {
            // Of a domain on TAI, UTC is known only with the offset.
            let utc = match (utc_offset_s, is_tai) {
                (Some(seconds), _) => Some(clock.at(now) - Duration::from_secs(seconds.into())),
                (None, false) if properties.is_some() => Some(clock.at(now)),
                _ => None,
            };
            (Some(clock), utc.map(|utc| real - utc), error_bound)
        }
        Followed::Watched(_) => {
            let fresh = last
                .filter(|sample| now - sample.mono <= FRESH)
                .filter(|_| !is_tai || utc_offset_s.is_some());
            (None, fresh.map(|sample| sample.offset), error_bound)
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
        error_bound,
        utc_offset_s,
        real,
        real_error,
        real_error_bound,
        leap: properties
            .filter(|_| is_tai)
            .map_or(0, |properties| i8::from(properties.leap61) - i8::from(properties.leap59)),
        steps,
    }
}
