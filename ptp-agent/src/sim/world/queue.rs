//! A bottleneck of a link: a queue that packets leave in the order of their arrival, so that those which
//! follow each other wait alike.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::windows::Windows;
use crate::sim::{
    noise::exponential,
    scenario::{Queue as Settings, Sawtooth as SawtoothSettings},
};

/// Relaxation times of the queue after which what was in it before is forgotten.
const RELAXATIONS: f64 = 10.0;
/// Arrivals of others that are simulated before one of ours, at the most.
const MOST_ARRIVALS: f64 = 20_000.0;

/// See the module's paragraph.
pub(super) struct Queue {
    service_ns: f64,
    /// What a batch of others brings, and the mean time between two batches.
    cross: Option<(f64, f64)>,
    /// The queue is forgotten after so long.
    memory_ns: f64,
    sawtooth: Option<Sawtooth>,
    limit_ns: f64,
    during: Windows,
    /// When the latest packet came, and the work that was there then.
    last_ns: f64,
    work_ns: f64,
    /// When the latest packet of ours left.
    left_ns: f64,
}

struct Sawtooth {
    settings: SawtoothSettings,
    /// Beginning and end of the tooth.
    tooth_s: [f64; 2],
}

impl Sawtooth {
    fn wait_ns(&mut self, now_s: f64, rng: &mut ChaCha8Rng) -> f64 {
        while now_s >= self.tooth_s[1] {
            let length_s = self.settings.period_s.get() * (0.5 + rng.random::<f64>());
            self.tooth_s = [self.tooth_s[1], self.tooth_s[1] + length_s];
        }
        let [from_s, to_s] = self.tooth_s;
        let share = (now_s - from_s) / (to_s - from_s);
        let (trough, peak) = (self.settings.trough_ns.get(), self.settings.peak_ns.get());
        trough + (peak - trough) * share
    }
}

impl Queue {
    pub(super) fn new(settings: &Settings) -> Self {
        let cross = settings.cross.filter(|cross| cross.load.get() > 0.0);
        // Relaxation time of an M/M/1 queue; batches are its packets here.
        let memory_ns = cross.map_or(0.0, |cross| {
            let batch_ns = cross.service_ns.get() * cross.batch.get() as f64;
            RELAXATIONS * batch_ns / (1.0 - cross.load.get().sqrt()).powi(2)
        });
        Self {
            service_ns: settings.service_ns.get(),
            cross: cross.map(|cross| {
                let batch_ns = (cross.service_ns.get() * cross.batch.get() as f64).max(1.0);
                (batch_ns, batch_ns / cross.load.get())
            }),
            memory_ns,
            sawtooth: settings.sawtooth.map(|settings| Sawtooth { settings, tooth_s: [0.0, 0.0] }),
            limit_ns: settings.limit_ns.map_or(f64::INFINITY, |limit| limit.get()),
            during: Windows::new(
                settings.during.iter().map(|window| [window.from_s.get(), window.to_s.get()]),
            ),
            last_ns: 0.0,
            work_ns: 0.0,
            left_ns: 0.0,
        }
    }

    /// How long a packet that comes at `at_ns` is in it; `None` where there is no room.
    pub(super) fn pass(&mut self, at_ns: i64, rng: &mut ChaCha8Rng) -> Option<i64> {
        // Behind what came before, whatever the order in which it is told here.
        let now_ns = (at_ns as f64).max(self.last_ns);
        let is_busy = self.during.is_empty() || self.during.contains(now_ns * 1e-9);
        self.drain(now_ns, if is_busy { self.cross } else { None }, rng);
        let standing = self.sawtooth.as_mut().map(|tooth| tooth.wait_ns(now_ns * 1e-9, rng));
        let standing_ns = standing.filter(|_| is_busy).unwrap_or(0.0);
        let wait_ns = (self.work_ns + standing_ns).max(self.left_ns - now_ns);
        if wait_ns > self.limit_ns {
            return None;
        }
        self.work_ns += self.service_ns;
        self.left_ns = now_ns + wait_ns + self.service_ns;
        Some((self.left_ns - at_ns as f64).round() as i64)
    }

    /// Until `now_ns`: others come, and work is done.
    fn drain(&mut self, now_ns: f64, cross: Option<(f64, f64)>, rng: &mut ChaCha8Rng) {
        if let Some((batch_ns, interval_ns)) = cross {
            let memory_ns = self.memory_ns.min(MOST_ARRIVALS * interval_ns);
            if now_ns - self.last_ns > memory_ns {
                self.work_ns = (self.work_ns - (now_ns - memory_ns - self.last_ns)).max(0.0);
                self.last_ns = now_ns - memory_ns;
            }
            loop {
                let next_ns = self.last_ns + interval_ns * exponential(rng);
                if next_ns >= now_ns {
                    break;
                }
                self.work_ns = (self.work_ns - (next_ns - self.last_ns)).max(0.0) + batch_ns;
                self.last_ns = next_ns;
            }
        }
        self.work_ns = (self.work_ns - (now_ns - self.last_ns)).max(0.0);
        self.last_ns = now_ns;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    fn queue(text: &str) -> (Queue, ChaCha8Rng) {
        (Queue::new(&toml::from_str(text).unwrap()), ChaCha8Rng::seed_from_u64(4))
    }

    #[test]
    fn the_mean_wait_is_that_of_a_queue_with_constant_service() {
        let (mut queue, mut rng) =
            queue("service-ns = 0\ncross = { service-ns = 1000, load = 0.6 }");
        let n = 20_000;
        let waits: Vec<f64> =
            (1..=n).map(|i| queue.pass(i * 1_000_000, &mut rng).unwrap() as f64).collect();
        // Pollaczek and Khinchine: rho s / 2 (1 - rho).
        let mean = waits.iter().sum::<f64>() / n as f64;
        assert!((mean - 750.0).abs() < 40.0, "{mean}");
    }

    #[test]
    fn packets_that_follow_each_other_wait_alike_and_never_overtake() {
        let (mut queue, mut rng) =
            queue("service-ns = 500\ncross = { service-ns = 12000, load = 0.9, batch = 4 }");
        let (mut near, mut far) = (0.0, 0.0);
        let mut left_ns = 0;
        for i in 1..2_000_i64 {
            let at_ns = i * 200_000_000;
            let [first, second] = [0, 10_000].map(|later| {
                let wait = queue.pass(at_ns + later, &mut rng).unwrap();
                assert!(at_ns + later + wait >= left_ns + 500);
                left_ns = at_ns + later + wait;
                wait
            });
            let later = queue.pass(at_ns + 100_000_000, &mut rng).unwrap();
            near += (second - first).abs() as f64;
            far += (later - first).abs() as f64;
        }
        assert!(near < 0.2 * far, "{near} {far}");
    }

    #[test]
    fn a_sawtooth_stays_within_its_teeth_and_what_has_no_room_is_lost() {
        let text = "service-ns = 0\nsawtooth = { peak-ns = 2e7, trough-ns = 1e6, period-s = 5 }\n\
                    during = [{ from-s = 0, to-s = 400 }]";
        let (mut queue, mut rng) = queue(text);
        let wait = |queue: &mut Queue, rng: &mut _, s: i64| queue.pass(s * 1_000_000_000, rng);
        let waits: Vec<i64> = (0..400).map(|s| wait(&mut queue, &mut rng, s).unwrap()).collect();
        assert!(waits.iter().all(|ns| (1_000_000..=20_000_000).contains(ns)));
        let mean = waits.iter().sum::<i64>() / 400;
        assert!((mean - 10_500_000).abs() < 1_000_000, "{mean}");
        assert_eq!(wait(&mut queue, &mut rng, 401), Some(0));
        let (mut queue, mut rng) = self::queue(&format!("{text}\nlimit-ns = 1e7"));
        let lost = (0..400).filter(|s| wait(&mut queue, &mut rng, *s).is_none()).count();
        assert!((150..270).contains(&lost), "{lost}");
    }
}
