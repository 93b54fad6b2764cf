//! Time transmitters whose stamps are whole microseconds (`SO_TIMESTAMP`, as ptpd takes them): such a stamp is up to
//! a microsecond too early, which for a receive stamp is the wrong side of the wire. It is found out by
//! the stamps themselves, since no other clock shows a dozen whole microseconds in a row.

use ptp_common::time::{Duration, Ptp, Time};

const MICROSECOND: i64 = 1_000;
/// So many in a row are no chance.
const IN_A_ROW: u32 = 12;

/// What the stamps of one time transmitter are multiples of.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Grain {
    whole: u32,
}

impl Grain {
    /// Takes note of a stamp as it was sent.
    pub(super) fn push(&mut self, stamp: Time<Ptp>) {
        let span = stamp.since_epoch();
        let is_whole = span == Duration::from_nanos(span.as_nanos() / MICROSECOND * MICROSECOND);
        self.whole = if is_whole { self.whole.saturating_add(1) } else { 0 };
    }

    /// What is to be added to a stamp, and how far it then still may be from the instant, either way.
    pub(super) const fn half(&self) -> Duration {
        let is_coarse = self.whole >= IN_A_ROW;
        if is_coarse { Duration::from_nanos(MICROSECOND / 2) } else { Duration::ZERO }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_microseconds_in_a_row_are_no_chance_and_one_other_stamp_ends_it() {
        let mut grain = Grain::default();
        for n in 0..12 {
            assert_eq!(grain.half(), Duration::ZERO);
            grain.push(Time::from_seconds_nanos(1_800_000_000, n * 62_500_000 + 7_000));
        }
        assert_eq!(grain.half(), Duration::from_nanos(500));
        grain.push(Time::from_seconds_nanos(1_800_000_001, 12_345));
        assert_eq!(grain.half(), Duration::ZERO);
    }
}
