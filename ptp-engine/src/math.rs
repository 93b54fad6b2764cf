//! Functions of floating point that `core` does not have, for targets without an operating system. On
//! all others the methods of the same names that `std` gives `f64` are used.
//!
//! Which of the two computes is visible: `sqrt`, `ceil` and `round` are exact in both, but
//! `exp`, `ln`, `log2` and `powf` differ in the last bit for some arguments. A recording replays to the
//! same bits where both sides use the same; the estimators do not care.

/// See the module's paragraph. Each method is what `std` documents under its name.
pub(crate) trait Float {
    fn sqrt(self) -> f64;
    fn exp(self) -> f64;
    fn ln(self) -> f64;
    fn log2(self) -> f64;
    fn powf(self, exponent: f64) -> f64;
    fn powi(self, exponent: i32) -> f64;
    fn round(self) -> f64;
    fn ceil(self) -> f64;
}

impl Float for f64 {
    fn sqrt(self) -> f64 {
        libm::sqrt(self)
    }
    fn exp(self) -> f64 {
        libm::exp(self)
    }
    fn ln(self) -> f64 {
        libm::log(self)
    }
    fn log2(self) -> f64 {
        libm::log2(self)
    }
    fn powf(self, exponent: f64) -> f64 {
        libm::pow(self, exponent)
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
    use super::Float;
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
            prop_assert!(close(Float::exp(small), f64::exp(small)));
            prop_assert!(close(Float::ln(x + 2.0), f64::ln(x + 2.0)));
            prop_assert!(close(Float::log2(x + 2.0), f64::log2(x + 2.0)));
            prop_assert!(close(Float::powf(x, 0.3), f64::powf(x, 0.3)));
            prop_assert!(close(Float::powi(x, exponent), f64::powi(x, exponent)));
        }
    }
}
