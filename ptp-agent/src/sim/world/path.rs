//! One direction of a link: what a packet goes through from departure to arrival.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::queue::Queue;
use crate::sim::{
    noise::{Source, exponential},
    scenario::{Direction, LossBursts},
};

/// Longest detour of a packet that is overtaken.
const DETOUR_NS: f64 = 1e8;

/// A packet's way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Passage {
    /// When it is there.
    pub(super) arrival_ns: i64,
    /// What transparent clocks have added to its correction field.
    pub(super) correction_ns: f64,
}

struct TransparentClock {
    residence: Source,
    error: Source,
    /// What it counts for each nanosecond.
    rate: f64,
}

/// Loss that comes in bursts.
struct Bursts {
    settings: LossBursts,
    is_losing: bool,
    until_s: f64,
}

impl Bursts {
    fn is_lost(&mut self, now_s: f64, rng: &mut ChaCha8Rng) -> bool {
        while self.until_s <= now_s {
            self.is_losing = !self.is_losing;
            let dwell = if self.is_losing { self.settings.length_s } else { self.settings.every_s };
            self.until_s += dwell.get() * exponential(rng);
        }
        self.is_losing && rng.random_bool(self.settings.loss.get())
    }
}

/// See the module's paragraph.
pub(super) struct Path {
    settings: Direction,
    jitter: Source,
    outliers: Option<(f64, Source)>,
    bursts: Option<Bursts>,
    queue: Option<Queue>,
    transparent_clocks: Vec<TransparentClock>,
}

impl Path {
    pub(super) fn new(settings: &Direction) -> Self {
        Self {
            jitter: Source::new(&settings.jitter),
            outliers: settings
                .outliers
                .as_ref()
                .map(|outliers| (outliers.probability.get(), Source::new(&outliers.delay))),
            bursts: settings.loss_bursts.map(|settings| Bursts {
                settings,
                is_losing: true,
                until_s: 0.0,
            }),
            queue: settings.queue.as_ref().map(Queue::new),
            transparent_clocks: settings
                .transparent_clocks
                .iter()
                .map(|clock| TransparentClock {
                    residence: Source::new(&clock.residence),
                    error: Source::new(&clock.error),
                    rate: 1.0 + clock.rate_error_ppb.get() * 1e-9,
                })
                .collect(),
            settings: settings.clone(),
        }
    }

    /// How many of a packet that leaves now arrive.
    pub(super) fn copies(
        &mut self,
        now_s: f64,
        rng: &mut ChaCha8Rng,
        extra: &mut ChaCha8Rng,
    ) -> usize {
        let Direction { loss, duplication, .. } = self.settings;
        if loss.get() > 0.0 && rng.random_bool(loss.get()) {
            return 0;
        }
        if self.bursts.as_mut().is_some_and(|bursts| bursts.is_lost(now_s, extra)) {
            return 0;
        }
        if duplication.get() > 0.0 && rng.random_bool(duplication.get()) { 2 } else { 1 }
    }

    /// The way of a packet that leaves at `departure_ns`; `None` where a queue has no room for it.
    pub(super) fn pass(
        &mut self,
        now_s: f64,
        departure_ns: i64,
        rng: &mut ChaCha8Rng,
        extra: &mut ChaCha8Rng,
    ) -> Option<Passage> {
        let mut arrival_ns = departure_ns + self.draw(now_s, rng).round() as i64;
        if let Some(queue) = &mut self.queue {
            arrival_ns += queue.pass(departure_ns, extra)?;
        }
        let mut correction_ns = 0.0;
        for clock in &mut self.transparent_clocks {
            let residence_ns = clock.residence.draw(now_s, extra).max(0.0).round();
            arrival_ns += residence_ns as i64;
            correction_ns += residence_ns * clock.rate + clock.error.draw(now_s, extra);
        }
        Some(Passage { arrival_ns, correction_ns })
    }

    /// The delay of a packet that leaves now, without queue and transparent clocks.
    fn draw(&mut self, now_s: f64, rng: &mut ChaCha8Rng) -> f64 {
        let routes = &self.settings.route_changes;
        let begun = routes.partition_point(|route| route.at_s.get() <= now_s);
        let route = begun.checked_sub(1).map(|route| routes[route].base_delay_ns);
        let mut delay = route.unwrap_or(self.settings.base_delay_ns).get();
        delay += self.jitter.draw(now_s, rng);
        if let Some((probability, source)) = &mut self.outliers
            && rng.random_bool(*probability)
        {
            delay += source.draw(now_s, rng);
        }
        if self.settings.reordering.get() > 0.0 && rng.random_bool(self.settings.reordering.get()) {
            delay += DETOUR_NS * rng.random::<f64>();
        }
        delay.max(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    fn path(text: &str) -> (Path, [ChaCha8Rng; 2]) {
        (Path::new(&toml::from_str(text).unwrap()), [1, 2].map(ChaCha8Rng::seed_from_u64))
    }

    #[test]
    fn losses_in_bursts_follow_each_other() {
        let (mut path, [mut rng, mut extra]) =
            path("loss-bursts = { every-s = 90, length-s = 10 }");
        let lost: Vec<bool> =
            (0..100_000).map(|s| path.copies(f64::from(s), &mut rng, &mut extra) == 0).collect();
        let share =
            |lost: &[bool]| lost.iter().filter(|lost| **lost).count() as f64 / lost.len() as f64;
        assert!((share(&lost) - 0.1).abs() < 0.02, "{}", share(&lost));
        let after_loss: Vec<bool> =
            lost.windows(2).filter(|pair| pair[0]).map(|pair| pair[1]).collect();
        assert!(share(&after_loss) > 0.8, "{}", share(&after_loss));
    }

    #[test]
    fn transparent_clocks_say_what_they_add_but_for_their_own_error() {
        let (mut path, [mut rng, mut extra]) = path(
            "base-delay-ns = 1000\n[[transparent-clocks]]\nresidence.constant.ns = 1000000\n\
             rate-error-ppb = 50000\nerror.constant.ns = -3\n\
             [[transparent-clocks]]\nresidence.constant.ns = 200\n",
        );
        let passage = path.pass(0.0, 500, &mut rng, &mut extra).unwrap();
        assert_eq!(passage.arrival_ns, 500 + 1_000 + 1_000_000 + 200);
        assert!((passage.correction_ns - (1_000_050.0 - 3.0 + 200.0)).abs() < 1e-6);
    }

    #[test]
    fn routes_that_change_again_and_again_are_taken_in_turn() {
        let text = "duration-s = 100\n[[grandmaster]]\n[grandmaster.link.forward]\n\
                    base-delay-ns = 1\nroute-changes = [{ at-s = 10, base-delay-ns = 2, every-s = 20 }, \
                    { at-s = 20, base-delay-ns = 3, every-s = 20, count = 2 }]\n";
        let scenario =
            crate::sim::Scenario::parse("test", text, std::path::Path::new(".")).unwrap();
        let mut path = Path::new(&scenario.grandmaster[0].link.forward);
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for (at_s, delay) in
            [(9.0, 1.0), (10.0, 2.0), (25.0, 3.0), (30.0, 2.0), (40.0, 3.0), (99.0, 2.0)]
        {
            assert_eq!(path.draw(at_s, &mut rng), delay, "{at_s}");
        }
    }
}
