//! How long answers take from their making to the socket. What is usual is in the time that they tell, since who makes them learns
//! from their departures; this finds the rest, which is what a busy machine holds one up. Those that follow on one another are
//! another thing than the first after a while.

use ptp_common::time::{Duration, Mono, Time};

use crate::engine::ntp::WARM;

/// Answers of which the median says how long one usually takes to the socket.
const HELD: usize = 32;
/// Of so many it is learnt anew.
const LEARNT_EVERY: usize = 32;

/// See the module's paragraph.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// When the latest was made.
    made: Option<Time<Mono>>,
    cold: Usual,
    warm: Usual,
}

impl Held {
    /// How much longer than usual it takes one that was made at `made` to be sent at `now`.
    pub(super) fn unusual(&mut self, made: Time<Mono>, now: Time<Mono>) -> Duration {
        let is_warm = self.made.replace(made).is_some_and(|before| made - before < WARM);
        let usual = if is_warm { &mut self.warm } else { &mut self.cold };
        usual.unusual(now - made)
    }
}

#[derive(Debug, Default)]
struct Usual {
    latest: [Duration; HELD],
    count: usize,
    usual: Option<Duration>,
}

impl Usual {
    fn unusual(&mut self, held: Duration) -> Duration {
        let by = self.usual.map_or(Duration::ZERO, |usual| held - usual);
        self.latest[self.count % HELD] = held;
        // Wraps far behind the number of places, and stays there.
        self.count = self.count.checked_add(1).unwrap_or(HELD);
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

    const MICRO: i64 = 1_000;

    /// Answers that are made so far apart and held up by so much: what of it was not usual.
    fn unusual(held: &mut Held, apart_us: i64, times: i64, by_us: impl Fn(i64) -> i64) -> Vec<i64> {
        let begin = held.made.map_or(0, Time::as_nanos);
        let one = |n: i64| {
            let made = Time::from_nanos(begin + (n + 1) * apart_us * MICRO);
            held.unusual(made, made + Duration::from_micros(by_us(n))).as_nanos() / MICRO
        };
        (0..times).map(one).collect()
    }

    #[test]
    fn what_is_usual_is_in_the_answer_already_and_the_rest_is_told() {
        let by = unusual(&mut Held::default(), 250_000, 64, |n| if n % 8 == 5 { 900 } else { 4 });
        // Nothing is said until something is usual; one in eight is held up.
        assert!(by[..32].iter().all(|by| *by == 0), "{by:?}");
        for (n, by) in (32..).zip(&by[32..]) {
            assert_eq!(*by, if n % 8 == 5 { 896 } else { 0 }, "{n}");
        }
    }

    #[test]
    fn what_follows_on_another_is_not_measured_by_the_first_after_a_while() {
        let mut held = Held::default();
        unusual(&mut held, 250_000, 40, |_| 30);
        unusual(&mut held, 100, 40, |_| 3);
        assert_eq!(unusual(&mut held, 100, 2, |_| 4), [1, 1]);
        assert_eq!(unusual(&mut held, 250_000, 2, |_| 31), [1, 1]);
    }
}
