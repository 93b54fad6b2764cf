//! How a hardware clock lies to CLOCK_MONOTONIC: both are read together now and then, a straight line goes through the
//! latest readings, and a time of the device is moved to the host by that. What the readings scatter around it, and how
//! wide each was, says how far such a time may be wrong.

use std::collections::VecDeque;

use ptp_common::time::{Duration, Mono, Ptp, Time};

use crate::sys::{
    clock::realtime_minus_monotonic,
    phc::{CrossReading, Method},
};

/// The line goes through so many readings: long enough for the noise, short enough for a clock that is steered.
const READINGS: usize = 16;
/// A reading this far from the line, beyond its own width, is of a device that was set, ns.
const SET_NS: f64 = 100_000.0;
/// Oscillators differ by so much at the most, ppb; a line that is steeper is none.
const STEEPEST_PPB: f64 = 1_000_000.0;

/// A device and the host's clock at one instant.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reading {
    /// The host's.
    pub mono: Time<Mono>,
    /// The device's.
    pub device: Time<Ptp>,
    /// They belong together to within half of this.
    pub width: Duration,
    /// How they were read.
    pub method: Method,
}

impl From<CrossReading> for Reading {
    fn from(reading: CrossReading) -> Self {
        let mono = reading.real.since_epoch() - realtime_minus_monotonic();
        let CrossReading { device, width, method, .. } = reading;
        Self { mono: Time::from_epoch(mono), device, width, method }
    }
}

/// What the readings say of each other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figures {
    /// How many there are.
    pub readings: usize,
    /// How much faster than the host's clock the device is, ppb.
    pub rate_ppb: f64,
    /// Their root mean square distance from the line, ns.
    pub noise_ns: f64,
    /// How far a time may be off: half of the widest reading and the largest distance, ns.
    pub bound_ns: f64,
    /// How the latest one was read.
    pub method: Method,
}

/// See the module's paragraph.
#[derive(Clone, Debug, Default)]
pub struct Relation {
    readings: VecDeque<Reading>,
    /// How often it was begun anew because the device had been set.
    sets: u64,
}

/// Device minus host at `origin`, and how that grows, ns per ns.
struct Line {
    origin: Time<Mono>,
    base: Duration,
    at_origin_ns: f64,
    slope: f64,
}

impl Line {
    fn ns(&self, mono: Time<Mono>) -> f64 {
        self.at_origin_ns + self.slope * (mono - self.origin).as_nanos_f64()
    }

    fn beside_ns(&self, reading: &Reading) -> f64 {
        (reading.device.ahead_of(reading.mono) - self.base).as_nanos_f64() - self.ns(reading.mono)
    }
}

impl Relation {
    /// Learns a reading. Says whether the device had been set since the one before, which made it begin anew.
    pub fn learn(&mut self, reading: Reading) -> bool {
        let is_set = self.line().is_some_and(|line| {
            line.beside_ns(&reading).abs() > SET_NS + reading.width.as_nanos_f64()
        });
        if is_set {
            self.readings.clear();
            self.sets += 1;
        }
        if self.readings.len() == READINGS {
            self.readings.pop_front();
        }
        self.readings.push_back(reading);
        is_set
    }

    /// How often the device was set.
    pub const fn sets(&self) -> u64 {
        self.sets
    }

    fn line(&self) -> Option<Line> {
        let latest = self.readings.back()?;
        let (origin, base) = (latest.mono, latest.device.ahead_of(latest.mono));
        let points = || {
            self.readings.iter().map(|reading| {
                let beside = reading.device.ahead_of(reading.mono) - base;
                ((reading.mono - origin).as_nanos_f64(), beside.as_nanos_f64())
            })
        };
        let count = self.readings.len() as f64;
        let (sum_x, sum_y) = points().fold((0.0, 0.0), |sum, (x, y)| (sum.0 + x, sum.1 + y));
        let (mean_x, mean_y) = (sum_x / count, sum_y / count);
        let (square, product) = points().fold((0.0, 0.0), |sum, (x, y)| {
            (sum.0 + (x - mean_x).powi(2), sum.1 + (x - mean_x) * (y - mean_y))
        });
        let slope = if square > 0.0 { product / square } else { 0.0 };
        let steepest = STEEPEST_PPB * 1e-9;
        let slope = slope.clamp(-steepest, steepest);
        Some(Line { origin, base, at_origin_ns: mean_y - slope * mean_x, slope })
    }

    /// A time of the device on the host's clock; `None` before the first reading.
    pub fn mono_at(&self, device: Time<Ptp>) -> Option<Time<Mono>> {
        let line = self.line()?;
        // The line is over the host's time, which is nearly known: once more, and it is to the picosecond.
        let near = device.at_offset(Duration::ZERO - line.base);
        let by = |mono| near - Duration::from_nanos_f64(line.ns(mono));
        Some(by(by(near)))
    }

    /// What the readings say of each other; `None` until there are four.
    pub fn figures(&self) -> Option<Figures> {
        let line = self.line().filter(|_| self.readings.len() >= 4)?;
        let beside = || self.readings.iter().map(|reading| line.beside_ns(reading));
        let count = self.readings.len() as f64;
        let widest = self.readings.iter().map(|reading| reading.width.as_nanos_f64());
        let half_width = widest.fold(0.0, f64::max) / 2.0;
        let largest = beside().map(f64::abs).fold(0.0, f64::max);
        Some(Figures {
            readings: self.readings.len(),
            rate_ppb: line.slope * 1e9,
            noise_ns: (beside().map(|it| it * it).sum::<f64>() / count).sqrt(),
            bound_ns: half_width + largest,
            method: self.readings.back()?.method,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A device that is `ppb` faster, read at each second with an error that changes sign.
    fn reading(second: i64, ppb: i64, error_ns: i64) -> Reading {
        let mono = second * 1_000_000_000;
        let device = 1_900_000_000_000_000_000 + mono + second * ppb;
        let error_ns = if second % 2 == 0 { error_ns } else { -error_ns };
        Reading {
            mono: Time::from_nanos(mono),
            device: Time::from_nanos(device + error_ns),
            width: Duration::from_nanos(400),
            method: Method::Extended,
        }
    }

    #[test]
    fn a_time_of_the_device_is_moved_by_rate_and_offset() {
        let mut relation = Relation::default();
        assert_eq!(relation.mono_at(Time::ZERO), None);
        for second in 0..40 {
            assert!(!relation.learn(reading(second, 25_000, 50)));
        }
        for (half_second, late) in [(77, 0), (80, 500_000_000)] {
            let mono = half_second * 500_000_000 + late;
            let device = 1_900_000_000_000_000_000
                + mono
                + mono / 1_000_000_000 * 25_000
                + mono % 1_000_000_000 / 40_000;
            let found = relation.mono_at(Time::from_nanos(device)).unwrap();
            assert!((found - Time::from_nanos(mono)).abs() < Duration::from_nanos(30), "{found:?}");
        }
        let figures = relation.figures().unwrap();
        assert!((figures.rate_ppb - 25_000.0).abs() < 15.0, "{figures:?}");
        assert!((figures.noise_ns - 50.0).abs() < 5.0 && figures.bound_ns < 300.0, "{figures:?}");
    }

    #[test]
    fn a_device_that_is_set_begins_anew() {
        let mut relation = Relation::default();
        for second in 0..10 {
            relation.learn(reading(second, 0, 10));
        }
        let later = reading(10, 0, 10);
        assert!(relation.learn(Reading { device: later.device + Duration::from_secs(1), ..later }));
        assert_eq!((relation.sets(), relation.figures()), (1, None));
    }
}
