//! How much of a normal distribution is below a value, and its density there as a share of that: the inverse of
//! Mills' ratio. Both come from one exponential and one quotient of polynomials [W. J. Cody, Rational Chebyshev
//! approximations for the error function, Math. Comp. 23 (1969) 631], where the error function and
//! the density apart would take four exponentials: judging what has changed asks for thousands in a row.

use crate::math;
use core::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};

/// Square root of 2 over pi.
const SQRT_2_OVER_PI: f64 = FRAC_2_SQRT_PI * FRAC_1_SQRT_2;
/// Up to here the error function is a small number's own approximation.
const SMALL: f64 = 0.46875;
/// From here on it is one in the inverse.
const LARGE: f64 = 4.0;

/// Cody's coefficients, numerator and denominator, lowest power first.
const ERF: ([f64; 5], [f64; 5]) = (
    [
        3.209_377_589_138_469_5e3,
        3.774_852_376_853_02e2,
        1.138_641_541_510_501_6e2,
        3.161_123_743_870_565_6,
        1.857_777_061_846_031_5e-1,
    ],
    [
        2.844_236_833_439_171e3,
        1.282_616_526_077_372_3e3,
        2.440_246_379_344_441_7e2,
        2.360_129_095_234_412e1,
        1.0,
    ],
);
const MIDDLE: ([f64; 9], [f64; 9]) = (
    [
        1.230_339_354_797_997_2e3,
        2.051_078_377_826_071_5e3,
        1.712_047_612_634_070_6e3,
        8.819_522_212_417_69e2,
        2.986_351_381_974_001e2,
        6.611_919_063_714_163e1,
        8.883_149_794_388_376,
        5.641_884_969_886_701e-1,
        2.153_115_354_744_038_5e-8,
    ],
    [
        1.230_339_354_803_749_4e3,
        3.439_367_674_143_721_6e3,
        4.362_619_090_143_247e3,
        3.290_799_235_733_46e3,
        1.621_389_574_566_690_2e3,
        5.371_811_018_620_099e2,
        1.176_939_508_913_125e2,
        1.574_492_611_070_983_5e1,
        1.0,
    ],
);
const FAR: ([f64; 6], [f64; 6]) = (
    [
        6.587_491_615_298_378e-4,
        1.608_378_514_874_228e-2,
        1.257_817_261_112_292_5e-1,
        3.603_448_999_498_044_4e-1,
        3.053_266_349_612_323_4e-1,
        1.631_538_713_730_209_8e-2,
    ],
    [
        2.335_204_976_268_691_8e-3,
        6.051_834_131_244_132e-2,
        5.279_051_029_514_284e-1,
        1.872_952_849_923_460_5,
        2.568_520_192_289_822,
        1.0,
    ],
);

fn polynomial<const N: usize>(coefficients: &[f64; N], x: f64) -> f64 {
    coefficients.iter().rev().fold(0.0, |sum, coefficient| sum * x + coefficient)
}

fn quotient<const N: usize>((above, below): &([f64; N], [f64; N]), x: f64) -> f64 {
    polynomial(above, x) / polynomial(below, x)
}

/// The share of a standard normal distribution that is below `z`, and the density at `z` divided by that share. For `z`
/// between -7 and 7; farther out the share is 0 or 1.
pub(super) fn below(z: f64) -> (f64, f64) {
    let x = z.abs() * FRAC_1_SQRT_2;
    let density = math::exp(-0.5 * z * z);
    if x <= SMALL {
        let below = 0.5 + 0.5 * z * FRAC_1_SQRT_2 * quotient(&ERF, x * x);
        return (below, 0.5 * SQRT_2_OVER_PI * density / below);
    }
    // The complementary error function over exp(-x²).
    let scaled = if x <= LARGE {
        quotient(&MIDDLE, x)
    } else {
        let inverse = 1.0 / (x * x);
        (0.5 * FRAC_2_SQRT_PI - inverse * quotient(&FAR, inverse)) / x
    };
    let beyond = 0.5 * density * scaled;
    if z < 0.0 {
        (beyond, SQRT_2_OVER_PI / scaled)
    } else {
        let below = 1.0 - beyond;
        (below, 0.5 * SQRT_2_OVER_PI * density / below)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_error_function_and_the_density_to_the_last_digits() {
        for step in -7000..=7000 {
            let z = f64::from(step) * 1e-3;
            let (share, hazard) = below(z);
            let expected = 0.5 * libm::erfc(-z * FRAC_1_SQRT_2);
            assert!((share / expected - 1.0).abs() < 1e-14, "{z}: {share} {expected}");
            let density = 0.5 * SQRT_2_OVER_PI * (-0.5 * z * z).exp();
            assert!((hazard * expected / density - 1.0).abs() < 1e-14, "{z}: {hazard}");
        }
    }
}
