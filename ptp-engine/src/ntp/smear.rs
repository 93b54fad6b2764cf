//! The smear that hides a leap second from clients that cannot stand one: for a day around it the served second
//! is longer or shorter by one part in 86,400, as several public services do it. Whoever mixes servers with and without one
//! is off by up to half a second, so it is an option, and off.

use ptp_common::time::{Duration, Ptp, Time};

/// From the noon before the leap to the noon after it.
const HALF: i64 = 12 * 3600;

/// A leap second, smeared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeapSmear {
    /// When the offset of UTC changes, on the time scale that is served (TAI): the first instant of the new offset.
    pub at: Time<Ptp>,
    /// By how much it grows, seconds: 1 where a second is inserted, -1 where one is left out.
    pub seconds: i8,
}

impl LeapSmear {
    /// What is to be taken off UTC as it is without the leap, at `time`: nothing up to noon before it, all of it
    /// from noon after it on, evenly between.
    pub fn at(&self, time: Time<Ptp>) -> Duration {
        let whole = Duration::from_secs(i64::from(self.seconds));
        let span = Duration::from_secs(2 * HALF) + whole;
        // The leap itself is a second of the time scale before the instant at which the new offset holds.
        let begin = self.at - whole - Duration::from_secs(HALF);
        let passed = (time - begin).as_scaled_nanos().clamp(0, span.as_scaled_nanos());
        let part = passed * whole.as_scaled_nanos() / span.as_scaled_nanos();
        Duration::from_scaled_nanos(part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400;

    fn smeared(leap: LeapSmear, seconds: i64) -> f64 {
        leap.at(leap.at + Duration::from_secs(seconds)).as_secs_f64()
    }

    #[test]
    fn a_leap_second_is_spread_evenly_over_a_day() {
        for sign in [1, -1] {
            let leap = LeapSmear { at: Time::from_seconds_nanos(2_000_000_000, 0), seconds: sign };
            let sign = f64::from(sign);
            assert_eq!(smeared(leap, -DAY), 0.0);
            assert_eq!(smeared(leap, DAY), sign);
            assert!((smeared(leap, 0) - sign / 2.0).abs() < 2e-5);
            let rate = smeared(leap, 3_600) - smeared(leap, 0);
            assert!((rate - sign * 3_600.0 / (86_400.0 + sign)).abs() < 1e-9);
        }
    }
}
