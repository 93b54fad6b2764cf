//! Whether something came between a packet and its transmit stamps. The two tracepoints put a bracket
//! around the driver, and the packet left between them. Mostly the bracket is as wide as the driver
//! takes; an interrupt in it makes it several times as wide, and then nobody knows whether the packet
//! left before or after. Such stamps are worse than none: the later one is late by the whole
//! interrupt, which to a servo that goes by the fastest packets looks like a packet faster than any.

use std::collections::VecDeque;

use super::{Candidates, median};
use crate::stamp::StampSource;

/// Brackets that the usual width is taken from, refused ones included: a driver that has become
/// slower for good is believed after half of them.
const WINDOW: usize = 64;
/// Brackets seen before any is refused.
const LEARNT: usize = 16;
/// A bracket is too wide beyond this multiple of the usual width.
const FACTOR: i64 = 2;
/// Stamps are not refused more often than this in a row: a worse stamp is better than no time.
const IN_A_ROW: u32 = 4;

/// The usual width of the bracket around the driver, and which ones are beyond it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bracket {
    widths: VecDeque<i64>,
    in_a_row: u32,
}

impl Bracket {
    /// Takes the width of one packet's bracket, ns; whether its stamps can be trusted.
    pub(crate) fn is_sound(&mut self, width_ns: i64) -> bool {
        let usual = (self.widths.len() >= LEARNT)
            .then(|| median(self.widths.iter().copied()))
            .flatten()
            .map(|median| median.max(1).saturating_mul(FACTOR));
        if self.widths.len() == WINDOW {
            self.widths.pop_front();
        }
        self.widths.push_back(width_ns);
        let is_sound = usual.is_none_or(|limit| width_ns <= limit) || self.in_a_row >= IN_A_ROW;
        self.in_a_row = if is_sound { 0 } else { self.in_a_row + 1 };
        is_sound
    }

    /// The same for the stamps of a packet; those without a bracket cannot be judged.
    pub(crate) fn is_sound_around(&mut self, stamps: &Candidates) -> bool {
        stamps.bracket_ns().is_none_or(|width_ns| self.is_sound(width_ns))
    }
}

impl Candidates {
    /// Width of the bracket around the driver, ns, where both of its stamps are there.
    pub fn bracket_ns(&self) -> Option<i64> {
        let start = self.time(StampSource::StartXmit)?;
        let done = self.time(StampSource::XmitDone)?;
        Some((done - start).as_nanos())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn learnt() -> Bracket {
        let mut bracket = Bracket::default();
        assert!((0..LEARNT).all(|n| bracket.is_sound(2_000 + n as i64)));
        bracket
    }

    #[test]
    fn interrupt_between_the_stamps_is_noticed() {
        let mut bracket = learnt();
        assert!(!bracket.is_sound(12_000));
        assert!(bracket.is_sound(2_500));
    }

    #[test]
    fn nothing_is_refused_before_the_usual_width_is_known() {
        let mut bracket = Bracket::default();
        assert!((1..LEARNT as i64).all(|n| bracket.is_sound(n * n * 1_000)));
    }

    #[test]
    fn driver_that_becomes_slower_is_believed_and_never_without_stamps() {
        let mut bracket = learnt();
        let refused: Vec<bool> = (0..2 * WINDOW).map(|_| !bracket.is_sound(9_000)).collect();
        let streak = refused.split(|refused| !refused).map(<[bool]>::len).max();
        assert_eq!(streak, Some(IN_A_ROW as usize));
        assert!(refused[WINDOW..].iter().all(|refused| !refused));
    }

    #[test]
    fn absurd_widths_do_not_overflow() {
        let mut bracket = Bracket::default();
        for n in 0..100 {
            bracket.is_sound(if n % 2 == 0 { i64::MAX } else { i64::MIN });
        }
    }
}
