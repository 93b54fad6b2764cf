//! Oscillators of the simulator: how far a local time scale is from true time, advanced on a grid
//! of true time with the noise processes of the scenario.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::{noise::normal, scenario::OscillatorSettings};

/// Step of the noise processes, true nanoseconds: 1/64 s.
const GRID_NS: i64 = 15_625_000;
const GRID_S: f64 = 1.0 / 64.0;
/// First-order processes that together make flicker noise: time constants from 1/16 s on, each four
/// times the last, up to three days.
const FLICKER: usize = 12;

/// An oscillator. It can only be read forward.
#[derive(Clone, Debug)]
pub(super) struct Oscillator {
    settings: OscillatorSettings,
    rng: ChaCha8Rng,
    /// Start of the grid step that `phase_ns` and `frequency_ppb` are for.
    at_ns: i64,
    /// Local minus true time, without flicker.
    phase_ns: f64,
    /// Of this step.
    frequency_ppb: f64,
    /// The part of the frequency that wanders.
    wander_ppb: f64,
    flicker: [f64; FLICKER],
    /// Steps and ramps that are over; both are in order of time.
    steps_done: usize,
    ramps_done: usize,
    /// What the ramps that are over have changed.
    settled_ppb: f64,
}

impl Oscillator {
    pub(super) fn new(settings: &OscillatorSettings, seed: u64) -> Self {
        let mut settings = settings.clone();
        settings.steps.sort_by(|a, b| a.at_s.get().total_cmp(&b.at_s.get()));
        settings.temperature.sort_by(|a, b| a.from_s.get().total_cmp(&b.from_s.get()));
        let wander_ppb = settings.frequency_ppb.get();
        let mut oscillator = Self {
            settings,
            rng: ChaCha8Rng::seed_from_u64(seed),
            at_ns: 0,
            phase_ns: 0.0,
            frequency_ppb: 0.0,
            wander_ppb,
            flicker: [0.0; FLICKER],
            steps_done: 0,
            ramps_done: 0,
            settled_ppb: 0.0,
        };
        if oscillator.settings.flicker_phase_ns.get() > 0.0 {
            for state in &mut oscillator.flicker {
                *state = normal(&mut oscillator.rng);
            }
        }
        oscillator.frequency_ppb = oscillator.frequency(0.0);
        oscillator
    }

    fn frequency(&mut self, at_s: f64) -> f64 {
        let ramps = &self.settings.temperature;
        while let Some(ramp) = ramps.get(self.ramps_done).filter(|ramp| ramp.to_s.get() <= at_s) {
            self.settled_ppb += ramp.change_ppb.get();
            self.ramps_done += 1;
        }
        let begun = ramps[self.ramps_done..].iter().take_while(|ramp| ramp.from_s.get() < at_s);
        let changes = begun.map(|ramp| {
            let (from, to) = (ramp.from_s.get(), ramp.to_s.get());
            ramp.change_ppb.get() * ((at_s - from) / (to - from)).clamp(0.0, 1.0)
        });
        let swing = self.settings.cycle.map_or(0.0, |cycle| {
            let turns = at_s / cycle.period_s.get() + cycle.phase.get();
            cycle.amplitude_ppb.get() * (std::f64::consts::TAU * turns).sin()
        });
        self.wander_ppb + (self.settled_ppb + changes.sum::<f64>()) + swing
    }

    /// Moves on to the grid step that holds `true_ns`.
    fn advance(&mut self, true_ns: i64) {
        let flicker = self.settings.flicker_phase_ns.get() > 0.0;
        let wander = self.settings.random_walk_ppb.get() * GRID_S.sqrt();
        while true_ns >= self.at_ns + GRID_NS {
            self.phase_ns += self.frequency_ppb * GRID_S;
            self.at_ns += GRID_NS;
            let at_s = self.at_ns as f64 * 1e-9;
            if wander > 0.0 {
                self.wander_ppb += wander * normal(&mut self.rng);
            }
            let steps = &self.settings.steps;
            while let Some(step) = steps.get(self.steps_done).filter(|step| step.at_s.get() < at_s)
            {
                self.phase_ns += step.phase_ns.get();
                self.wander_ppb += step.frequency_ppb.get();
                self.steps_done += 1;
            }
            if flicker {
                let mut tau = 1.0 / 16.0;
                for state in &mut self.flicker {
                    let kept = (-GRID_S / tau).exp();
                    *state = kept * *state + (1.0 - kept * kept).sqrt() * normal(&mut self.rng);
                    tau *= 4.0;
                }
            }
            self.frequency_ppb = self.frequency(at_s);
        }
    }

    /// Local minus true time at `true_ns`, nanoseconds. Instants must not decrease by more than the
    /// grid step.
    pub(super) fn phase_ns(&mut self, true_ns: i64) -> f64 {
        self.advance(true_ns);
        let flicker = self.settings.flicker_phase_ns.get();
        let noise = if flicker > 0.0 { flicker * self.flicker.iter().sum::<f64>() } else { 0.0 };
        self.phase_ns + noise + self.frequency_ppb * ((true_ns - self.at_ns) as f64 * 1e-9)
    }

    /// The error of one reading, on top of the phase.
    pub(super) fn reading_noise_ns(&mut self) -> f64 {
        let sd = self.settings.white_phase_ns.get();
        if sd > 0.0 { sd * normal(&mut self.rng) } else { 0.0 }
    }

    /// Local minus true frequency now, parts per billion.
    pub(super) fn frequency_ppb(&self) -> f64 {
        self.frequency_ppb
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn oscillator(text: &str) -> Oscillator {
        Oscillator::new(&toml::from_str(text).unwrap(), 3)
    }

    #[test]
    fn ramps_and_steps_add_up_exactly() {
        let mut oscillator = oscillator(
            "frequency-ppb = 100\n\
             temperature = [{ from-s = 10, to-s = 20, change-ppb = 50 }]\n\
             steps = [{ at-s = 30, phase-ns = 7, frequency-ppb = -50 }]",
        );
        assert!((oscillator.phase_ns(10_000_000_000) - 1_000.0).abs() < 1e-6);
        // On a grid, a ramp lags by half a step.
        assert!((oscillator.phase_ns(20_000_000_000) - 2_250.0).abs() < 0.5);
        let before = oscillator.phase_ns(30_000_000_000 - GRID_NS);
        let after = oscillator.phase_ns(40_000_000_000);
        assert!((after - before - 1_007.0).abs() < 3.0, "{}", after - before);
    }

    #[test]
    fn random_walk_of_frequency_grows_with_the_root_of_time() {
        let settings: OscillatorSettings = toml::from_str("random-walk-ppb = 2").unwrap();
        let mut square = 0.0;
        for seed in 0..200 {
            let mut oscillator = Oscillator::new(&settings, seed);
            oscillator.phase_ns(100_000_000_000);
            square += oscillator.frequency_ppb().powi(2) / 200.0;
        }
        assert!((square.sqrt() / 20.0 - 1.0).abs() < 0.15, "{square}");
    }

    #[test]
    fn a_cycle_swings_and_comes_back() {
        let mut oscillator =
            oscillator("cycle = { amplitude-ppb = 100, period-s = 400, phase = 0.25 }");
        assert!((oscillator.frequency_ppb() - 100.0).abs() < 1e-9);
        // A quarter of the period: the integral of a cosine, A T / 2 pi.
        let quarter = oscillator.phase_ns(100_000_000_000);
        assert!((quarter - 100.0 * 400.0 / std::f64::consts::TAU).abs() < 2.0, "{quarter}");
        assert!(oscillator.phase_ns(400_000_000_000).abs() < 2.0);
    }
}
