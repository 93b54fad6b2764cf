//! Mean, spread and ends of a quantity, without memory of its single values: what the observer tells of a port, and
//! `replay` of a servo.

#[cfg(target_os = "none")]
use crate::math::Float as _;

/// See the module's paragraph. All in the unit of the values.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Spread {
    /// How many values.
    pub count: u64,
    /// Arithmetic mean.
    pub mean: f64,
    /// Smallest.
    pub min: f64,
    /// Largest.
    pub max: f64,
    squares: f64,
}

impl Spread {
    /// Takes one more.
    pub fn record(&mut self, value: f64) {
        self.count += 1;
        if self.count == 1 {
            (self.min, self.max) = (value, value);
        }
        // Welford's recurrence: exact enough where a large mean would eat the digits of a sum of
        // squares.
        let before = value - self.mean;
        self.mean += before / self.count as f64;
        self.squares += before * (value - self.mean);
        self.min = self.min.min(value);
        self.max = self.max.max(value);
    }

    /// Standard deviation of the values.
    pub fn sd(&self) -> f64 {
        if self.count == 0 { 0.0 } else { (self.squares.max(0.0) / self.count as f64).sqrt() }
    }
}
