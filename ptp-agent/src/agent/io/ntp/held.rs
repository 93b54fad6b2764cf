//! How long answers take from their making to the socket. What is usual is in the time that they tell, since who makes them learns
//! from their departures; this finds the rest, which is what a busy machine holds one up.

use ptp_common::time::Duration;

/// Answers of which the median says how long one usually takes to the socket.
const HELD: usize = 32;
/// Of so many it is learnt anew.
const LEARNT_EVERY: usize = 8;

/// See the module's paragraph.
#[derive(Debug, Default)]
pub(super) struct Held {
    latest: [Duration; HELD],
    count: usize,
    usual: Option<Duration>,
}

impl Held {
    /// How much longer than usual.
    pub(super) fn unusual(&mut self, held: Duration) -> Duration {
        let by = self.usual.map_or(Duration::ZERO, |usual| held - usual);
        self.latest[self.count % HELD] = held;
        self.count += 1;
        if self.count >= HELD && self.count.is_multiple_of(LEARNT_EVERY) {
            let mut latest = self.latest;
            latest.sort_unstable();
            self.usual = Some(latest[HELD / 2]);
        }
        by
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_usual_is_in_the_answer_already_and_the_rest_is_told() {
        let mut held = Held::default();
        let micros = Duration::from_micros;
        for n in 0..64 {
            // Nothing is said until something is usual; one in eight is held up.
            let by = held.unusual(micros(if n % 8 == 5 { 900 } else { 4 }));
            let expected = match n {
                ..32 => Duration::ZERO,
                _ if n % 8 == 5 => micros(896),
                _ => Duration::ZERO,
            };
            assert_eq!(by, expected, "{n}");
        }
    }
}
