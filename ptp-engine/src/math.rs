//! Functions of floating point that are no operation of the processor, and those that `core` does not have.
//!
//! `exp`, `ln`, `log2` and `powf` are the library's `libm` everywhere: what a C library gives for some arguments
//! differs in the last bit from one C library to the next and, with the same library, from one processor to the
//! next (with or without fused multiplication). A recording replays to the same bits on all machines, whatever
//! they are built for, and this is why. `sqrt`, `ceil`, `round` and whole powers are exact, or the same sequence of
//! multiplications; for them `std` is good enough where there is one, and the trait stands in for it elsewhere.

use crate::prelude::*;

/// The exponential function.
#[inline]
pub(crate) fn exp(x: f64) -> f64 {
    libm::exp(x)
}

/// The natural logarithm.
#[inline]
pub(crate) fn ln(x: f64) -> f64 {
    libm::log(x)
}

/// The logarithm to base 2.
#[inline]
pub(crate) fn log2(x: f64) -> f64 {
    libm::log2(x)
}

/// A power that need not be whole.
#[inline]
pub(crate) fn powf(x: f64, exponent: f64) -> f64 {
    libm::pow(x, exponent)
}

/// The middle one, of an even number the later of both; 0 of none.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// For targets without an operating system. Each method is what `std` documents under its name.
#[cfg(any(test, target_os = "none"))]
pub(crate) trait Float {
    fn sqrt(self) -> f64;
    fn powi(self, exponent: i32) -> f64;
    fn round(self) -> f64;
    fn ceil(self) -> f64;
}

#[cfg(any(test, target_os = "none"))]
impl Float for f64 {
    fn sqrt(self) -> f64 {
        libm::sqrt(self)
    }
    /// By squaring, as the compiler's own routine does it.
    fn powi(self, exponent: i32) -> f64 {
        let (mut base, mut left, mut power) = (self, exponent.unsigned_abs(), 1.0);
        while left > 0 {
            if left & 1 == 1 {
                power *= base;
            }
            base *= base;
            left >>= 1;
        }
        if exponent < 0 { 1.0 / power } else { power }
    }
    fn round(self) -> f64 {
        libm::round(self)
    }
    fn ceil(self) -> f64 {
        libm::ceil(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn without_std_the_exact_functions_are_the_same_and_the_others_in_all_but_the_last_bits(
            x in 1e-6f64..1e6, exponent in -20i32..20,
        ) {
            prop_assert_eq!(Float::sqrt(x), f64::sqrt(x));
            prop_assert_eq!(Float::round(x - 5e5), f64::round(x - 5e5));
            prop_assert_eq!(Float::ceil(x - 5e5), f64::ceil(x - 5e5));
            let close = |a: f64, b: f64| (a - b).abs() <= 1e-13 * b.abs();
            let small = x * 1e-4 - 50.0;
            prop_assert!(close(exp(small), f64::exp(small)));
            prop_assert!(close(ln(x + 2.0), f64::ln(x + 2.0)));
            prop_assert!(close(log2(x + 2.0), f64::log2(x + 2.0)));
            prop_assert!(close(powf(x, 0.3), f64::powf(x, 0.3)));
            prop_assert!(close(Float::powi(x, exponent), f64::powi(x, exponent)));
        }
    }

    /// Bits of results, the same on every machine that these tests are run on.
    #[test]
    fn functions_give_these_bits_on_every_machine() {
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        let mut mix = |value: f64| {
            for byte in value.to_bits().to_le_bytes() {
                hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
            }
        };
        let mut x = 1e-6;
        while x < 1e6 {
            mix(exp(-x));
            mix(ln(x));
            mix(log2(x));
            mix(powf(x, 0.3));
            mix(libm::erfc(x));
            x *= 1.001;
        }
        assert_eq!(hash, EXPECTED, "{hash:#x}");
    }

    const EXPECTED: u64 = 0xec91_5717_426d_24f4;
}
