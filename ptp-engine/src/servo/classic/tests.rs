//! What is said of a clock whose grandmaster changes to one that runs at another rate, by the methods that keep what they
//! have learnt.

use super::*;
use crate::{
    servo::{Choice, LocalTime, Method, build},
    stamp::StampSource,
};
use ptp_common::time::Ptp;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Sync and Delay_Req a second.
const RATE: i64 = 8;
/// When the grandmaster changes, seconds.
const CHANGE_S: i64 = 60;
const END_S: i64 = 240;

/// A clock behind a grandmaster that is replaced by one whose rate is `apart_ppb` away.
struct Replaced {
    rng: ChaCha8Rng,
    noise_ns: f64,
    apart_ppb: f64,
    /// Free-running less the grandmaster's time, and what the clock shows beyond the free-running scale, nanoseconds.
    gained_ns: f64,
    shown_ns: f64,
    frequency_ppb: f64,
}

/// What has been seen of it.
#[derive(Debug, Default)]
struct Seen {
    outside: usize,
    looks: usize,
    contradictions: u64,
    /// The largest error since the change, and of the last minute, nanoseconds.
    worst_ns: f64,
    last_ns: f64,
}

impl Replaced {
    fn new(seed: u64, noise_ns: f64, apart_ppb: f64) -> Self {
        let rng = ChaCha8Rng::seed_from_u64(seed);
        Self { rng, noise_ns, apart_ppb, gained_ns: 0.0, shown_ns: 0.0, frequency_ppb: 0.0 }
    }

    fn late(&mut self) -> Duration {
        let beyond = -self.noise_ns * (1.0 - self.rng.random::<f64>()).ln();
        Duration::from_nanos_f64(2_000.0 + beyond)
    }

    fn pass(&mut self, now_s: f64, seconds: f64) {
        let apart_ppb = if now_s > CHANGE_S as f64 { self.apart_ppb } else { 0.0 };
        self.gained_ns += (2_000.0 + apart_ppb) * seconds;
        self.shown_ns += self.frequency_ppb * seconds;
    }

    fn local(&self, now: Time<Free>) -> LocalTime {
        let clock =
            Time::<Ptp>::from_nanos(now.as_nanos()) + Duration::from_nanos_f64(self.shown_ns);
        let (source, doubt) = (StampSource::Simulated, Duration::ZERO);
        LocalTime { mono: now, clock, source, doubt, told_within: None }
    }

    fn true_time(&self, now: Time<Free>) -> Time<Ptp> {
        Time::<Ptp>::from_nanos(now.as_nanos()) - Duration::from_nanos_f64(self.gained_ns)
    }

    fn run(mut self, method: Method) -> Seen {
        let mut servo = build(&Choice { method, ..Choice::default() }, &Options::default());
        let mut seen = Seen::default();
        let half_s = 0.5 / RATE as f64;
        for n in 1..=END_S * RATE {
            let now_s = n as f64 / RATE as f64;
            let now = Time::<Free>::from_nanos(1_000_000_000_000 + n * 1_000_000_000 / RATE);
            if n == CHANGE_S * RATE {
                servo.parent_changed();
                self.gained_ns += 300_000.0;
            }
            let correction = Duration::ZERO;
            self.pass(now_s, half_s);
            let sent = now - Duration::from_nanos_f64(1e9 * half_s);
            let (t3, t4) = (self.local(sent), self.true_time(sent) + self.late());
            servo.delay(DelayInput { t3, t4, sequence_id: n as u16, correction });
            self.pass(now_s, half_s);
            let (t1, t2) = (self.true_time(now) - self.late(), self.local(now));
            let log_interval = Some(-3);
            let input = SyncInput { t1, t2, sequence_id: n as u16, log_interval, correction };
            if let Some(output) = servo.sync(input) {
                self.frequency_ppb = output.frequency_ppb;
                self.shown_ns += output.step.map_or(0.0, Duration::as_nanos_f64);
                servo.adjusted(now, output.frequency_ppb, output.step);
            }
            let shown = Duration::from_nanos_f64(self.shown_ns);
            let error_ns = self.gained_ns + self.shown_ns;
            if let Some(trust) = servo.trust(now, shown) {
                let error = Duration::from_nanos_f64(error_ns);
                seen.looks += 1;
                // To what floating point has of it.
                let hair = Duration::from_nanos(1);
                let Interval { lo, hi } = trust.interval;
                seen.outside += usize::from(error < lo - hair || error > hi + hair);
            }
            if n > CHANGE_S * RATE {
                seen.worst_ns = seen.worst_ns.max(error_ns.abs());
            }
            if n > (END_S - 60) * RATE {
                seen.last_ns = seen.last_ns.max(error_ns.abs());
            }
        }
        seen.contradictions = servo.contradictions();
        seen
    }
}

#[test]
fn a_grandmaster_that_runs_at_another_rate_is_inside_the_interval_from_the_first_exchange_on() {
    for method in [Method::Pi, Method::LinReg, Method::Adaptive] {
        for (seed, noise_ns, apart_ppb) in [
            (0, 100.0, 20_000.0),
            (1, 1_000.0, -20_000.0),
            (2, 10_000.0, 50_000.0),
            (3, 30_000.0, -50_000.0),
            (4, 1_000.0, 0.0),
        ] {
            let seen = Replaced::new(seed, noise_ns, apart_ppb).run(method);
            assert_eq!((seen.outside, seen.contradictions), (0, 0), "{method:?} {seed} {seen:?}");
            assert!(seen.looks > 1_800 && seen.worst_ns > 250_000.0, "{method:?} {seed} {seen:?}");
            // With the old one's rate the integral alone would take minutes: 8 and 15 us.
            assert!(noise_ns > 1_000.0 || seen.last_ns < 3_000.0, "{method:?} {seed} {seen:?}");
        }
    }
}
