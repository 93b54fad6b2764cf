//! A frequency adjustment as the kernel takes it: a length of the tick, for what is beyond 500 parts
//! per million, and a fine part.

use crate::sys::adjust::SCALED_PPM;

/// Largest fine part, parts per billion (`MAXFREQ` of linux/timex.h).
const FINE_LIMIT_PPB: f64 = 500_000.0;
/// Largest adjustment either way, parts per billion: a tenth of a tick (`do_adjtimex`).
pub const LIMIT_PPB: f64 = 1e8;

/// See the module's paragraph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelFrequency {
    /// Microseconds per tick.
    pub tick: i64,
    /// The fine part, 2^-16 parts per million.
    pub fine: i64,
}

impl KernelFrequency {
    /// What comes nearest to `ppb` parts per billion where a tick has `nominal_tick` microseconds.
    pub fn nearest(ppb: f64, nominal_tick: i64) -> Self {
        let ppb = if ppb.is_finite() { ppb.clamp(-LIMIT_PPB, LIMIT_PPB) } else { 0.0 };
        let tick_ppb = 1e9 / nominal_tick as f64;
        // A tick is left alone as long as it can be.
        let ticks = if ppb.abs() <= FINE_LIMIT_PPB { 0.0 } else { (ppb / tick_ppb).round() };
        let fine = ((ppb - ticks * tick_ppb) / SCALED_PPM).round();
        Self { tick: nominal_tick + ticks as i64, fine: fine as i64 }
    }

    /// In parts per billion.
    pub fn ppb(self, nominal_tick: i64) -> f64 {
        let tick_ppb = 1e9 / nominal_tick as f64;
        (self.tick - nominal_tick) as f64 * tick_ppb + self.fine as f64 * SCALED_PPM
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_nearest_is_within_half_a_unit_and_within_the_kernels_limits(
            ppb in -LIMIT_PPB..LIMIT_PPB,
        ) {
            let setting = KernelFrequency::nearest(ppb, 10_000);
            prop_assert!((setting.ppb(10_000) - ppb).abs() <= 0.5 * SCALED_PPM + 1e-6);
            prop_assert!((9_000..=11_000).contains(&setting.tick));
            prop_assert!(setting.fine.abs() <= 500 << 16);
        }
    }

    #[test]
    fn nonsense_is_no_adjustment() {
        let none = KernelFrequency { tick: 10_000, fine: 0 };
        assert_eq!(KernelFrequency::nearest(f64::NAN, 10_000), none);
        assert_eq!(KernelFrequency::nearest(f64::INFINITY, 10_000), none);
    }
}
