//! The host's time as a grandmaster serves it: which time a stamp had, told from readings before and after
//! it, and what Announce is to say of it. Pure, so that leap seconds and steps can be tried without having one.
//!
//! The time that is served is CLOCK_TAI, which a leap second does not touch: the kernel sets CLOCK_REALTIME
//! back and its TAI offset forward in one go. Only while the kernel knows no TAI offset is it CLOCK_REALTIME
//! itself, on an arbitrary time scale.

use alloc::collections::VecDeque;

use ptp_common::{
    data_set::TimeProperties,
    time::{Duration, Mono, Ptp, Time},
    wire::{Flags, TimeSource},
};

/// Readings that are remembered. A grandmaster reads for each message and each second; a transmit stamp is
/// given up after 100 ms.
const READINGS: usize = 64;
/// A clock moves by slewing by no more than one part in so many: twice as much as the kernel slews. What moves
/// more was set. The readings themselves are exact.
const SLEW: i128 = 1_000;

/// What the kernel says of its clock at one instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostReading {
    /// CLOCK_REALTIME minus CLOCK_MONOTONIC.
    pub real_minus_mono: Duration,
    /// CLOCK_TAI minus CLOCK_REALTIME, seconds; 0 until somebody has told the kernel.
    pub tai_offset_s: i32,
    /// The leap second that the kernel will make at the end of this day.
    pub leap: KernelLeap,
}

/// What the kernel means to do at the end of the day (`time_state` of `adjtimex`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KernelLeap {
    /// Nothing.
    #[default]
    None,
    /// To insert a second: TIME_INS.
    Insert,
    /// To leave one out: TIME_DEL.
    Delete,
}

impl HostReading {
    /// What is served minus CLOCK_MONOTONIC.
    fn offset(&self) -> Duration {
        self.real_minus_mono + Duration::from_secs(i64::from(self.tai_offset_s))
    }

    /// What Announce says of it.
    pub fn time_properties(&self) -> TimeProperties {
        let Ok(seconds @ 1..) = i16::try_from(self.tai_offset_s) else {
            return TimeProperties::UNKNOWN;
        };
        let flags = Flags::PTP_TIMESCALE | Flags::UTC_OFFSET_VALID;
        TimeProperties {
            leap61: self.leap == KernelLeap::Insert,
            leap59: self.leap == KernelLeap::Delete,
            ..TimeProperties::told(seconds, flags, TimeSource::NTP)
        }
    }
}

/// See the module's paragraph.
#[derive(Clone, Debug)]
pub struct ServedTime {
    /// Never empty, ascending.
    readings: VecDeque<(Time<Mono>, HostReading)>,
}

impl ServedTime {
    /// The host's time as it was read at `now`.
    pub fn new(now: Time<Mono>, reading: HostReading) -> Self {
        Self { readings: VecDeque::from([(now, reading)]) }
    }

    /// A fresh reading, made at `now`. To be called before stamps that were taken since the last one are
    /// asked for.
    pub fn read(&mut self, now: Time<Mono>, reading: HostReading) {
        // Of equal ones, only when the first and the last were made matters.
        let same = |at: usize| self.readings.get(at).is_some_and(|(_, each)| *each == reading);
        let count = self.readings.len();
        if count >= 2 && same(count - 1) && same(count - 2) {
            self.readings.pop_back();
        } else if count >= READINGS {
            self.readings.pop_front();
        }
        self.readings.push_back((now, reading));
    }

    /// The latest reading.
    pub fn latest(&self) -> &HostReading {
        &self.readings[self.readings.len() - 1].1
    }

    /// The time that was served at `mono`; `None` where the clock was set between the readings around it, so
    /// that nobody can tell whether before or after.
    pub fn at(&self, mono: Time<Mono>) -> Option<Time<Ptp>> {
        let after = self.readings.iter().position(|(at, _)| *at > mono);
        let offset = match after {
            // Younger than the latest reading.
            None => self.latest().offset(),
            // Older than all.
            Some(0) => return None,
            Some(after) => {
                let (begin, before) = &self.readings[after - 1];
                let (end, after) = &self.readings[after];
                let moved = (after.offset() - before.offset()).as_scaled_nanos();
                let slewed = (*end - *begin).as_scaled_nanos() / SLEW;
                if moved.abs() > slewed {
                    return None;
                }
                before.offset()
            }
        };
        Some(mono.at_offset(offset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIDNIGHT_S: i64 = 1_900_000_000;

    fn mono(millis: i64) -> Time<Mono> {
        Time::from_nanos(millis * 1_000_000)
    }

    fn reading(real_minus_mono_s: i64, tai_offset_s: i32, leap: KernelLeap) -> HostReading {
        let real_minus_mono = Duration::from_secs(real_minus_mono_s);
        HostReading { real_minus_mono, tai_offset_s, leap }
    }

    #[test]
    fn through_a_leap_second_the_time_goes_on_and_the_announced_offset_changes() {
        let before = reading(MIDNIGHT_S, 37, KernelLeap::Insert);
        let mut served = ServedTime::new(mono(0), before);
        assert!(before.time_properties().leap61);
        assert_eq!(before.time_properties().current_utc_offset, 37);
        // The kernel sets CLOCK_REALTIME back at midnight, and its TAI offset forward.
        let after = reading(MIDNIGHT_S - 1, 38, KernelLeap::None);
        served.read(mono(1_000), after);
        let tai = |millis: i64| {
            Time::<Ptp>::from_nanos((MIDNIGHT_S + 37) * 1_000_000_000 + millis * 1_000_000)
        };
        for millis in [100, 900, 1_000, 1_500] {
            assert_eq!(served.at(mono(millis)), Some(tai(millis)), "{millis}");
        }
        let properties = served.latest().time_properties();
        assert_eq!((properties.current_utc_offset, properties.leap61), (38, false));
    }

    #[test]
    fn a_step_between_stamp_and_delivery_does_not_move_the_stamp() {
        let mut served = ServedTime::new(mono(0), reading(1_000, 37, KernelLeap::None));
        served.read(mono(50), reading(1_000, 37, KernelLeap::None));
        served.read(mono(150), reading(1_005, 37, KernelLeap::None));
        served.read(mono(200), reading(1_005, 37, KernelLeap::None));
        // Taken before the step.
        assert_eq!(served.at(mono(40)), Some(Time::from_nanos(1_037_040_000_000)));
        // When exactly the clock was set is not known.
        assert_eq!(served.at(mono(100)), None);
        assert_eq!(served.at(mono(160)), Some(Time::from_nanos(1_042_160_000_000)));
    }

    #[test]
    fn a_slew_is_no_step() {
        let slewed = Duration::from_secs(1_000) + Duration::from_micros(50);
        let mut served = ServedTime::new(mono(0), reading(1_000, 37, KernelLeap::None));
        let next = reading(1_000, 37, KernelLeap::None);
        served.read(mono(100), HostReading { real_minus_mono: slewed, ..next });
        assert!(served.at(mono(60)).is_some());
    }

    #[test]
    fn a_kernel_without_tai_offset_serves_an_arbitrary_scale() {
        let reading = reading(1_000, 0, KernelLeap::Insert);
        assert_eq!(reading.time_properties(), TimeProperties::UNKNOWN);
        let served = ServedTime::new(mono(0), reading);
        assert_eq!(served.at(mono(1)), Some(Time::from_nanos(1_000_001_000_000)));
    }

    #[test]
    fn readings_are_bounded_and_a_constant_clock_needs_two() {
        let constant = reading(1_000, 37, KernelLeap::None);
        let mut served = ServedTime::new(mono(0), constant);
        for n in 1..10_000 {
            served.read(mono(n), constant);
        }
        assert_eq!(served.readings.len(), 2);
        assert!(served.at(mono(5_000)).is_some());
        for n in 0..1_000 {
            served.read(mono(10_000 + n), reading(n, 37, KernelLeap::None));
        }
        assert_eq!(served.readings.len(), READINGS);
    }
}
