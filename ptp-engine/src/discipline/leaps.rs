//! Leap seconds between the reference and what is known of it. An announcement changes up to two announce intervals before or
//! after midnight (IEEE 1588-2019 9.4), a clock that shows UTC at midnight itself: until the announcement follows, the offset
//! between them is another one than it says.
//!
//! A time transmitter on an arbitrary time scale that announces a leap second has UTC for its scale, as linuxptp with software time
//! stamps, and makes that second itself: its time is counted on as if it had not, so that nothing that was learnt of it is in
//! question.

use ptp_common::{
    data_set::TimeProperties,
    time::{Duration, Mono, Ptp, Time},
};

use super::Discipline;
use crate::{
    clock::{Clock, ClockScale},
    servo::{DelayInput, SyncInput},
};

const DAY_S: i64 = 86_400;
/// So near to the leap second of a time scale that has none of its own, nobody knows which of two seconds is meant.
const AMBIGUOUS_S: i64 = 2;

/// What a clock shows, and of how many leap seconds it knows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shown {
    pub(super) scale: ClockScale,
    /// As [`Clock::leaps`](crate::clock::Clock::leaps).
    pub(super) leaps: i64,
    /// In the time scale of the domain, where the clock follows that.
    pub(super) domain: Option<Time<Ptp>>,
}

/// See the module's paragraphs.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Leaps {
    said: Option<Said>,
    /// Leap seconds of the clock, as it was looked at last.
    seen: i64,
    /// What the announced offset lacks, seconds.
    lacking: i64,
    /// What an arbitrary time scale has made since it is followed, seconds.
    made: i64,
    /// When one that the clock does not make comes, seconds of that scale; and whether it has come.
    due: Option<(i64, bool)>,
}

/// What matters of an announcement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Said {
    is_ptp: bool,
    utc_offset: i16,
    leap: i64,
}

impl Said {
    fn of(properties: &TimeProperties) -> Self {
        let leap = i64::from(properties.leap61) - i64::from(properties.leap59);
        let (is_ptp, utc_offset) = (properties.ptp_timescale, properties.current_utc_offset);
        Self { is_ptp, utc_offset, leap }
    }
}

impl Leaps {
    /// Somebody else is followed.
    pub(super) const fn begin_anew(&mut self) {
        (self.lacking, self.made, self.due) = (0, 0, None);
    }

    /// What is announced now, and what the clock shows.
    pub(super) fn update(&mut self, properties: Option<&TimeProperties>, shown: Shown) {
        let said = properties.map(Said::of);
        let by = shown.leaps - self.seen;
        self.seen = shown.leaps;
        if said != self.said {
            self.said = said;
            self.lacking = 0;
        }
        let Some(said) = said else { return };
        if said.leap == 0 {
            self.due = None;
        }
        match (said.is_ptp, shown.scale) {
            // It had announced it, and does still.
            (true, ClockScale::Utc) if by != 0 && by == said.leap => self.lacking += by,
            (false, ClockScale::Utc) if by != 0 && by == said.leap => self.made += by,
            (false, ClockScale::Ptp) if said.leap != 0 => self.expect(said.leap, shown.domain),
            _ => {}
        }
    }

    fn expect(&mut self, leap: i64, domain: Option<Time<Ptp>>) {
        let Some(domain) = domain else { return };
        let seconds = domain.as_nanos().div_euclid(1_000_000_000);
        let (at, has_come) = *self.due.get_or_insert_with(|| {
            let midnight = (seconds.div_euclid(DAY_S) + 1) * DAY_S;
            (midnight + leap.min(0), false)
        });
        if !has_come && seconds >= at {
            self.due = Some((at, true));
            self.made += leap;
        }
    }

    /// What lies between the domain and UTC beyond what is announced: nothing where that has come since the last update.
    pub(super) fn lacking(&self, announced: &TimeProperties) -> Duration {
        let is_old = self.said == Some(Said::of(announced));
        Duration::from_secs(if is_old { self.lacking } else { 0 })
    }

    /// By how much the time of the domain is to be counted on.
    pub(super) fn made(&self) -> Duration {
        Duration::from_secs(self.made)
    }

    /// Whether the time that is followed has a leap second about now.
    pub(super) fn is_ambiguous(&self, domain: Time<Ptp>) -> bool {
        let seconds = domain.as_nanos().div_euclid(1_000_000_000);
        self.due.is_some_and(|(at, _)| (seconds - at).abs() <= AMBIGUOUS_S)
    }
}

impl<C: Clock> Discipline<C> {
    /// The domain's time minus the time that the clock is meant to show.
    pub(super) fn domain_offset(&self) -> Duration {
        match (self.followed_properties(), self.clock.scale()) {
            (Some(properties), ClockScale::Utc) => {
                properties.utc_offset().best() + self.leaps.lacking(&properties)
            }
            _ => Duration::ZERO,
        }
    }

    /// What is said of the time that the clock shows.
    fn followed_properties(&self) -> Option<TimeProperties> {
        // A clock in holdover shows the time of the one that it has followed.
        let parent = self.origin.parent.as_ref().or(self.receiver().parent());
        match parent {
            // Which is what it tells others then.
            _ if self.is_grandmaster() => Some(self.receiver().time_properties()),
            parent => parent.map(|parent| parent.time_properties),
        }
    }

    /// Looks at what is announced and at the leap seconds of the clock.
    pub(super) fn follow_leaps(&mut self, now: Time<Mono>) {
        let is_led = self.locked_at.is_some() && !self.is_grandmaster();
        let shown = Shown {
            scale: self.clock.scale(),
            leaps: self.clock.leaps(),
            domain: is_led.then(|| self.domain_time(now)),
        };
        let properties = self.followed_properties();
        self.leaps.update(properties.as_ref(), shown);
    }

    /// An exchange in the time that is counted on.
    pub(super) fn counted_on(
        &self,
        (delay, sync): (DelayInput, SyncInput),
    ) -> (DelayInput, SyncInput) {
        let made = self.leaps.made();
        (DelayInput { t4: delay.t4 + made, ..delay }, SyncInput { t1: sync.t1 + made, ..sync })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ptp_common::wire::TimeSource;

    const MIDNIGHT: i64 = 20_000 * DAY_S;

    fn said(ptp_timescale: bool, leap61: bool, current_utc_offset: i16) -> TimeProperties {
        TimeProperties {
            current_utc_offset,
            current_utc_offset_valid: true,
            leap59: false,
            leap61,
            time_traceable: true,
            frequency_traceable: true,
            ptp_timescale,
            time_source: TimeSource::GNSS,
        }
    }

    fn utc(leaps: i64) -> Shown {
        Shown { scale: ClockScale::Utc, leaps, domain: None }
    }

    fn card(second: i64) -> Shown {
        let domain = Some(Time::from_epoch(Duration::from_secs(MIDNIGHT + second)));
        Shown { scale: ClockScale::Ptp, leaps: 0, domain }
    }

    #[test]
    fn an_offset_that_is_announced_too_late_lacks_the_second_until_then() {
        let mut leaps = Leaps::default();
        let [before, after] = [said(true, true, 37), said(true, false, 38)];
        leaps.update(Some(&before), utc(0));
        assert_eq!(leaps.lacking(&before), Duration::ZERO);
        leaps.update(Some(&before), utc(1));
        leaps.update(Some(&before), utc(1));
        assert_eq!(leaps.lacking(&before), Duration::from_secs(1));
        // Also to who knows of it before this does.
        assert_eq!(leaps.lacking(&after), Duration::ZERO);
        leaps.update(Some(&after), utc(1));
        assert_eq!((leaps.lacking(&after), leaps.made()), (Duration::ZERO, Duration::ZERO));
    }

    #[test]
    fn an_offset_that_is_announced_before_the_second_lacks_nothing() {
        let mut leaps = Leaps::default();
        leaps.update(Some(&said(true, true, 37)), utc(0));
        leaps.update(Some(&said(true, false, 38)), utc(0));
        leaps.update(Some(&said(true, false, 38)), utc(1));
        assert_eq!(leaps.lacking(&said(true, false, 38)), Duration::ZERO);
    }

    #[test]
    fn an_arbitrary_time_scale_that_announces_one_is_counted_on() {
        let mut leaps = Leaps::default();
        leaps.update(Some(&said(false, true, 37)), utc(0));
        leaps.update(Some(&said(false, true, 37)), utc(1));
        let after = said(false, false, 38);
        leaps.update(Some(&after), utc(1));
        assert_eq!((leaps.made(), leaps.lacking(&after)), (Duration::from_secs(1), Duration::ZERO));
        leaps.begin_anew();
        assert_eq!(leaps.made(), Duration::ZERO);
        // A second that nobody has announced is none of its.
        leaps.update(Some(&said(false, false, 38)), utc(2));
        assert_eq!(leaps.made(), Duration::ZERO);
    }

    #[test]
    fn for_a_clock_that_makes_none_it_comes_once_at_midnight() {
        let mut leaps = Leaps::default();
        for second in -9..9 {
            leaps.update(Some(&said(false, true, 37)), card(second));
            let made = i64::from(second >= 0);
            assert_eq!(leaps.made(), Duration::from_secs(made), "{second}");
            let domain = Time::from_epoch(Duration::from_secs(MIDNIGHT + second));
            assert_eq!(leaps.is_ambiguous(domain), second.abs() <= AMBIGUOUS_S);
        }
        leaps.update(Some(&said(false, false, 38)), card(9));
        leaps.update(Some(&said(false, false, 38)), card(DAY_S));
        assert_eq!(leaps.made(), Duration::from_secs(1));
    }
}
