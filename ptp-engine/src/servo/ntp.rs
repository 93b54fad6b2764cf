//! Mills' algorithms from NTP (RFC 5905): the minimum-delay clock filter over eight exchanges, the
//! popcorn-spike suppressor, and the discipline, a phase-locked loop that turns into a
//! frequency-locked one at long intervals, with a time constant that follows the noise. Constants
//! and names are those of appendix A.

use crate::math;
#[cfg(target_os = "none")]
use crate::math::Float as _;
use alloc::collections::VecDeque;

use super::classic::{Controller, Point};
use ptp_common::time::{Duration, Free, Time};

/// Stages of the clock filter (NSTAGE).
const NSTAGE: usize = 8;
/// Spike gate, in jitters (SGATE).
const SGATE: f64 = 3.0;
/// Loop gain of the phase-locked loop (PLL).
const PLL: f64 = 16.0;
/// Loop gain of the frequency-locked loop (FLL).
const FLL: f64 = 18.0;
/// Averaging constant (AVG).
const AVG: f64 = 4.0;
/// Allan intercept, log2 s (ALLAN): from there on the frequency-locked loop takes part.
const ALLAN: f64 = 11.0;
/// Poll-adjust gate and its threshold (PGATE, LIMIT).
const PGATE: f64 = 4.0;
const LIMIT: i32 = 30;
/// Time constants, log2 s, beyond eight Sync intervals at the least.
const MAXPOLL: i32 = 10;

/// The controller.
#[derive(Debug, Default)]
pub(super) struct Ntp {
    /// Offset, delay, time; latest last.
    stages: VecDeque<(f64, f64, Time<Free>)>,
    /// When the sample in use was taken: an older one is never used again.
    used: Option<Time<Free>>,
    last_offset_ns: f64,
    jitter_ns: f64,
    /// Time constant, log2 s.
    poll: i32,
    /// When it was last judged.
    judged: Option<Time<Free>>,
    jiggle: i32,
    drift_ppb: f64,
    /// The offset that is being amortised.
    residual_ns: f64,
    last: Option<Time<Free>>,
}

impl Ntp {
    /// The best of the last eight exchanges (A.5.2), unless it has been used.
    fn filter(&mut self, point: &Point) -> Option<(f64, Time<Free>)> {
        if self.stages.len() >= NSTAGE {
            self.stages.pop_front();
        }
        self.stages.push_back((point.offset_ns, point.delay_ns, point.at));
        let best = self.stages.iter().min_by(|a, b| a.1.total_cmp(&b.1)).copied()?;
        let square: f64 = self.stages.iter().map(|stage| (stage.0 - best.0).powi(2)).sum();
        let others = (self.stages.len() - 1).max(1) as f64;
        let jitter_ns = (square / others).sqrt().max(1.0);
        let before_ns = core::mem::replace(&mut self.jitter_ns, jitter_ns);
        if self.used.is_some_and(|used| best.2 <= used) {
            return None;
        }
        let is_spike = (best.0 - self.last_offset_ns).abs() > SGATE * before_ns;
        let is_fresh =
            self.used.is_none_or(|used| (best.2 - used).as_secs_f64() < 2.0 * point.interval_s);
        if is_spike && is_fresh && before_ns > 0.0 {
            self.last_offset_ns = best.0;
            return None;
        }
        Some((best.0, best.2))
    }

    fn adjustment(&self) -> Option<f64> {
        Some(-self.drift_ppb - self.residual_ns / (PLL * 2_f64.powi(self.poll)))
    }

    fn minpoll(point: &Point) -> i32 {
        (math::log2(point.interval_s).ceil() as i32 + 3).clamp(-4, MAXPOLL)
    }
}

impl Controller for Ntp {
    fn name(&self) -> &'static str {
        "rfc5905"
    }

    /// The RFC measures for 900 s (WATCH); stamps of PTP's quality need less, but the loop would take
    /// half an hour to remove what four seconds get wrong.
    fn acquisition(&self) -> Duration {
        Duration::from_secs(60)
    }

    fn start(&mut self, drift_ppb: f64) {
        *self = Self { drift_ppb, poll: i32::MIN, ..Self::default() };
    }

    fn drift_ppb(&self) -> f64 {
        self.drift_ppb
    }

    fn point(&mut self, point: Point) -> Option<f64> {
        let minpoll = Self::minpoll(&point);
        self.poll = self.poll.clamp(minpoll, MAXPOLL.max(minpoll));
        let constant_s = PLL * 2_f64.powi(self.poll);
        // What the clock has been moved by since; the stages hold offsets of the steered clock.
        let since_s = self.last.map_or(0.0, |last| (point.at - last).as_secs_f64().max(0.0));
        let moved = self.residual_ns * (1.0 - math::exp(-since_s / constant_s));
        self.residual_ns -= moved;
        for stage in &mut self.stages {
            stage.0 -= moved;
        }
        self.last_offset_ns -= moved;
        self.last = Some(point.at);
        if let Some((offset_ns, at)) = self.filter(&point) {
            let mu = self.used.map_or(point.interval_s, |used| (at - used).as_secs_f64());
            // A.5.5.6, frequency: PLL below the Allan intercept, FLL beyond.
            let allan_s = math::powf(2.0, ALLAN);
            if 2_f64.powi(self.poll) > allan_s / 2.0 {
                let weight = FLL - f64::from(self.poll);
                let rate = (offset_ns - self.last_offset_ns) / mu.max(allan_s);
                self.drift_ppb += rate / weight.max(AVG);
            }
            let etemp = mu.min(2_f64.powi(self.poll));
            let dtemp = 4.0 * constant_s;
            self.drift_ppb += offset_ns * etemp / (dtemp * dtemp);
            self.used = Some(at);
            self.last_offset_ns = offset_ns;
            self.residual_ns = offset_ns;
            // The time constant follows: longer while the offset is within the noise. Judged once in
            // 2^poll seconds, which is when NTP would have asked.
            if self.judged.is_some_and(|judged| (at - judged).as_secs_f64() < 2_f64.powi(self.poll))
            {
                return self.adjustment();
            }
            self.judged = Some(at);
            if offset_ns.abs() < PGATE * self.jitter_ns {
                self.jiggle += self.poll.max(1);
                if self.jiggle > LIMIT {
                    self.jiggle = 0;
                    self.poll = (self.poll + 1).min(MAXPOLL.max(minpoll));
                }
            } else {
                self.jiggle -= 2 * self.poll.max(1);
                if self.jiggle < -LIMIT {
                    self.jiggle = 0;
                    self.poll = (self.poll - 1).max(minpoll);
                }
            }
        }
        self.adjustment()
    }

    fn stepped(&mut self) {
        let (drift_ppb, poll) = (self.drift_ppb, self.poll);
        *self = Self { drift_ppb, poll, ..Self::default() };
    }
}
