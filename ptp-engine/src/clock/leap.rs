//! Leap seconds: what the grandmaster announces becomes an order to the kernel, and around the second
//! that UTC has twice, or not at all, nothing is measured. CLOCK_REALTIME shows 23:59:59 twice then
//! (the kernel's way), and the announced UTC offset changes within two announce intervals of midnight
//! (IEEE 1588-2019 9.4), not at the same instant. A grandmaster on an arbitrary time scale that announces a leap second, as linuxptp with
//! software time stamps does, has UTC for its scale and makes the second as this clock does.

use ptp_common::{
    data_set::TimeProperties,
    time::{Duration, Mono, Ptp, Time},
};

const DAY_S: i64 = 86_400;
/// From so long before midnight, UTC, nothing is measured ...
const BEFORE: Duration = Duration::from_secs(6);
/// ... for so long at least, and longer until the announced offset has changed ...
const AT_LEAST: Duration = Duration::from_secs(8);
/// ... but not longer than this.
const AT_MOST: Duration = Duration::from_secs(25);

#[derive(Clone, Copy, Debug)]
enum State {
    None,
    /// Ordered; from `midnight`, seconds since 1970, on another offset holds.
    Armed {
        leap: i8,
        midnight: i64,
        utc_offset: i16,
    },
    /// The ambiguous time, since `since`.
    Ambiguous {
        leap: i8,
        since: Time<Mono>,
        utc_offset: i16,
    },
    /// Done; the announcement is still that of the day before.
    Done,
}

/// See the module's paragraph.
#[derive(Clone, Copy, Debug)]
pub struct LeapSecond {
    state: State,
    announced: Option<i16>,
    is_arbitrary: bool,
}

impl Default for LeapSecond {
    fn default() -> Self {
        Self { state: State::None, announced: None, is_arbitrary: false }
    }
}

impl LeapSecond {
    /// The state at `now`, when the clock shows `utc`, with what is announced, if anything is.
    pub fn update(&mut self, now: Time<Mono>, utc: Time<Ptp>, announced: Option<&TimeProperties>) {
        if let Some(properties) = announced {
            self.announced = properties.ptp_timescale.then_some(properties.current_utc_offset);
            self.is_arbitrary = !properties.ptp_timescale;
            self.announce(utc, properties);
        }
        if let State::Armed { leap, midnight, utc_offset } = self.state
            && utc + BEFORE >= Time::from_epoch(Duration::from_secs(midnight))
        {
            self.state = State::Ambiguous { leap, since: now, utc_offset };
        }
        if let State::Ambiguous { leap, since, utc_offset } = self.state {
            // An arbitrary time scale has no offset that could change.
            let has_changed = self.is_arbitrary
                || self.announced.is_some_and(|offset| offset == utc_offset + i16::from(leap));
            let passed = now - since;
            if passed >= AT_MOST || (has_changed && passed >= AT_LEAST) {
                self.state = State::Done;
            }
        }
    }

    fn announce(&mut self, utc: Time<Ptp>, properties: &TimeProperties) {
        let leap = match (properties.leap61, properties.leap59) {
            (true, false) => 1,
            (false, true) => -1,
            _ => 0,
        };
        match self.state {
            State::None | State::Armed { .. } if leap != 0 => {
                let seconds = utc.as_nanos().div_euclid(1_000_000_000);
                let midnight = (seconds.div_euclid(DAY_S) + 1) * DAY_S;
                let utc_offset = properties.current_utc_offset;
                self.state = State::Armed { leap, midnight, utc_offset };
            }
            State::Armed { .. } | State::Done if leap == 0 => self.state = State::None,
            _ => {}
        }
    }

    /// What the kernel is to be told: a second is inserted (1) or left out (-1) at the end of this
    /// day, or none (0).
    pub const fn order(&self) -> i8 {
        match self.state {
            State::Armed { leap, .. } | State::Ambiguous { leap, .. } => leap,
            State::None | State::Done => 0,
        }
    }

    /// Whether UTC cannot be told apart now.
    pub const fn is_ambiguous(&self) -> bool {
        matches!(self.state, State::Ambiguous { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ptp_common::wire::TimeSource;

    const MIDNIGHT: i64 = 20_000 * DAY_S;

    fn announced(leap61: bool, current_utc_offset: i16) -> TimeProperties {
        TimeProperties {
            current_utc_offset,
            current_utc_offset_valid: true,
            leap59: false,
            leap61,
            time_traceable: true,
            frequency_traceable: true,
            ptp_timescale: true,
            time_source: TimeSource::GNSS,
        }
    }

    fn utc(seconds: i64) -> Time<Ptp> {
        Time::from_epoch(Duration::from_secs(seconds))
    }

    fn mono(seconds: i64) -> Time<Mono> {
        Time::from_epoch(Duration::from_secs(seconds))
    }

    #[test]
    fn a_leap_second_is_ordered_and_the_seconds_around_it_are_ambiguous() {
        let mut leap = LeapSecond::default();
        leap.update(mono(0), utc(MIDNIGHT - 100), Some(&announced(true, 37)));
        assert_eq!((leap.order(), leap.is_ambiguous()), (1, false));
        leap.update(mono(94), utc(MIDNIGHT - 6), Some(&announced(true, 37)));
        assert_eq!((leap.order(), leap.is_ambiguous()), (1, true));
        // The kernel's clock shows the last second twice; announced is the new offset at once.
        leap.update(mono(100), utc(MIDNIGHT - 1), Some(&announced(false, 38)));
        assert!(leap.is_ambiguous());
        leap.update(mono(102), utc(MIDNIGHT + 1), Some(&announced(false, 38)));
        assert_eq!((leap.order(), leap.is_ambiguous()), (0, false));
        leap.update(mono(103), utc(MIDNIGHT + 2), Some(&announced(false, 38)));
        assert_eq!((leap.order(), leap.is_ambiguous()), (0, false));
    }

    #[test]
    fn a_grandmaster_that_never_changes_its_offset_is_not_waited_for_for_ever() {
        let mut leap = LeapSecond::default();
        leap.update(mono(0), utc(MIDNIGHT - 2), Some(&announced(true, 37)));
        for second in 1..AT_MOST.as_secs_f64() as i64 {
            leap.update(mono(second), utc(MIDNIGHT - 3 + second), Some(&announced(true, 37)));
            assert!(leap.is_ambiguous(), "{second}");
        }
        leap.update(mono(25), utc(MIDNIGHT + 22), Some(&announced(true, 37)));
        assert!(!leap.is_ambiguous());
        // The stale announcement does not order another one for the next day.
        leap.update(mono(26), utc(MIDNIGHT + 23), Some(&announced(true, 37)));
        assert_eq!(leap.order(), 0);
    }

    #[test]
    fn an_announcement_that_is_taken_back_is_no_order() {
        let mut leap = LeapSecond::default();
        leap.update(mono(0), utc(MIDNIGHT - 100), Some(&announced(true, 37)));
        leap.update(mono(1), utc(MIDNIGHT - 99), Some(&announced(false, 37)));
        assert_eq!(leap.order(), 0);
        leap.update(mono(99), utc(MIDNIGHT - 1), Some(&announced(false, 37)));
        assert!(!leap.is_ambiguous());
    }

    #[test]
    fn an_arbitrary_time_scale_has_the_leap_seconds_that_it_announces() {
        let mut leap = LeapSecond::default();
        let arbitrary = |leap61| TimeProperties { ptp_timescale: false, ..announced(leap61, 37) };
        leap.update(mono(0), utc(MIDNIGHT - 9), Some(&arbitrary(false)));
        assert_eq!((leap.order(), leap.is_ambiguous()), (0, false));
        leap.update(mono(1), utc(MIDNIGHT - 8), Some(&arbitrary(true)));
        assert_eq!((leap.order(), leap.is_ambiguous()), (1, false));
        leap.update(mono(5), utc(MIDNIGHT - 4), Some(&arbitrary(true)));
        assert_eq!((leap.order(), leap.is_ambiguous()), (1, true));
        // Nothing is to be waited for beyond the second itself.
        leap.update(mono(13), utc(MIDNIGHT + 3), Some(&arbitrary(true)));
        assert_eq!((leap.order(), leap.is_ambiguous()), (0, false));
    }

    #[test]
    fn a_lost_grandmaster_leaves_the_order_standing() {
        let mut leap = LeapSecond::default();
        leap.update(mono(0), utc(MIDNIGHT - 100), Some(&announced(true, 37)));
        leap.update(mono(90), utc(MIDNIGHT - 10), None);
        assert_eq!(leap.order(), 1);
    }
}
