//! Time transmitters whose stamps are whole microseconds (`SO_TIMESTAMP`, as ptpd takes them): such a stamp is up to
//! a microsecond too early, which for a receive stamp is the wrong side of the wire. It is found out by
//! the stamps themselves, since no other clock shows a dozen whole microseconds in a row. Who sends by a timer
//! of its own clock may do so at whole microseconds, though: that requests arrive at them is what tells.

use ptp_common::time::{Duration, Ptp, Time};

const MICROSECOND: i64 = 1_000;
/// So many in a row are no chance.
const IN_A_ROW: u32 = 12;
/// And so many arrivals among them.
const ARRIVALS: u32 = 3;

/// What the stamps of one time transmitter are multiples of.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Grain {
    whole: u32,
    arrivals: u32,
}

impl Grain {
    /// Takes note of when a Sync left, as it was sent.
    pub(super) fn left(&mut self, stamp: Time<Ptp>) {
        if is_whole(stamp) {
            self.whole = self.whole.saturating_add(1);
        } else {
            *self = Self::default();
        }
    }

    /// The same for when a request arrived.
    pub(super) fn arrived(&mut self, stamp: Time<Ptp>) {
        self.left(stamp);
        if self.whole > 0 {
            self.arrivals = self.arrivals.saturating_add(1);
        }
    }

    /// What is to be added to a stamp, and how far it then still may be from the instant, either way.
    pub(super) const fn half(&self) -> Duration {
        let is_coarse = self.whole >= IN_A_ROW && self.arrivals >= ARRIVALS;
        if is_coarse { Duration::from_nanos(MICROSECOND / 2) } else { Duration::ZERO }
    }
}

fn is_whole(stamp: Time<Ptp>) -> bool {
    let span = stamp.since_epoch();
    span == Duration::from_nanos(span.as_nanos() / MICROSECOND * MICROSECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(n: u32) -> Time<Ptp> {
        Time::from_seconds_nanos(1_800_000_000, n * 62_500_000 + 7_000)
    }

    #[test]
    fn whole_microseconds_in_a_row_are_no_chance_and_one_other_stamp_ends_it() {
        let mut grain = Grain::default();
        for n in 0..12 {
            assert_eq!(grain.half(), Duration::ZERO);
            if n % 4 == 3 { grain.arrived(whole(n)) } else { grain.left(whole(n)) }
        }
        assert_eq!(grain.half(), Duration::from_nanos(500));
        grain.arrived(Time::from_seconds_nanos(1_800_000_001, 12_345));
        assert_eq!(grain.half(), Duration::ZERO);
    }

    #[test]
    fn a_timer_that_fires_at_whole_microseconds_is_no_coarse_clock() {
        let mut grain = Grain::default();
        for n in 0..15 {
            grain.left(whole(n));
        }
        assert_eq!(grain.half(), Duration::ZERO);
    }
}
