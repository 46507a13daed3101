//! How far a backend may lie from the reference, per operation and precision.
//!
//! The operands are standard normal and weights are scaled so that results are of size 1. An f32 sum of n products
//! rounds to about `√n · 6e-8` (Higham, "Accuracy and Stability of Numerical Algorithms", 2002, section 3.1, for random
//! signs); the longest sum in the table has 4096 terms: 4e-6. The bounds below are a few times that and no more, so
//! that a tanh GELU in place of an erf one (they differ by up to 5e-4) or a wrong epsilon is found.

use super::cases::Operation;
use crate::{Arithmetic, Precision};

/// A result `found` is right when `|found - expected| <= absolute + relative * |expected|`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tolerance {
    /// Allowed whatever the size of the value.
    pub absolute: f64,
    /// Allowed in proportion to the value.
    pub relative: f64,
}

impl Tolerance {
    /// The distance between two values in units of what is allowed: right up to 1, infinite where one of them is not a
    /// number or infinite and the other is not the same.
    #[must_use]
    pub fn share(self, expected: f32, found: f32) -> f64 {
        if expected.to_bits() == found.to_bits() || (expected.is_nan() && found.is_nan()) {
            return 0.0;
        }
        if !(expected.is_finite() && found.is_finite()) {
            return f64::INFINITY;
        }
        let distance = (f64::from(expected) - f64::from(found)).abs();
        if distance == 0.0 { 0.0 } else { distance / (self.absolute + self.relative * f64::from(expected).abs()) }
    }
}

/// The tolerance of an operation with weights in `precision` on a backend of that arithmetic.
#[must_use]
pub fn tolerance(operation: &Operation, precision: Precision, arithmetic: Arithmetic) -> Tolerance {
    let (exact, rounding) = (in_full(operation, precision), rounding(operation, arithmetic));
    Tolerance { absolute: exact.absolute + rounding.absolute, relative: exact.relative + rounding.relative }
}

/// A norm of a product and a residual divides by at least their deviation, about 1.4, and multiplies by a gain of up to 4: what a
/// product may be off is allowed three times behind it.
const BEHIND_A_NORM: f64 = 3.0;

/// What layers may be off of which each product and each norm is: their roundings know nothing of each other, so they add up in
/// squares.
fn layers(product: Tolerance, norm: Tolerance) -> Tolerance {
    let (each, first) = (product.absolute, BEHIND_A_NORM * product.absolute + norm.absolute);
    let second = BEHIND_A_NORM * first.hypot(first.hypot(each).hypot(each)) + norm.absolute;
    Tolerance { absolute: second.hypot(each), relative: product.relative + norm.relative }
}

/// Where activations are f32 and products exact but for their sums.
fn in_full(operation: &Operation, precision: Precision) -> Tolerance {
    let exact = Tolerance { absolute: 0.0, relative: 0.0 };
    let of = |absolute, relative| Tolerance { absolute, relative };
    match (operation, precision) {
        // Copies and maxima change nothing.
        (Operation::TakeRows { .. }, _) => exact,
        // Short sums; one sine, one cosine and two products; one activation and one product.
        (
            Operation::Embed { .. } | Operation::ReduceRows { .. } | Operation::Rotate { .. } | Operation::Gate { .. },
            _,
        ) => of(1e-6, 1e-6),
        // Weights of 16 bits are rounded once, when they are loaded, and the reference rounds them too.
        (Operation::Linear { .. }, Precision::F32 | Precision::Tf32 | Precision::Bf16 | Precision::F16)
        | (Operation::PackedLinear { .. }, Precision::F32 | Precision::Tf32) => of(1e-5, 1e-6),
        // What codes stand for may be rounded to the precision asked for, or not at all: the reference does not. A
        // rounding is 2^-9 or 2^-12 of a weight at most and 1 / √3 of that in the mean. Codes of 1 bit stand for the ends of
        // their group, which are of 2.5 deviations, and the results of as many: the sum's deviation is 2.8e-3 and 3.5e-4. These
        // are 5.5 times that.
        (Operation::PackedLinear { .. }, Precision::Bf16) => of(1.5e-2, 0.0),
        (Operation::PackedLinear { .. }, Precision::F16) => of(2e-3, 0.0),
        (Operation::Norm { .. } | Operation::AddNorm { .. }, _) => of(4e-6, 2e-6),
        (&Operation::NormedLinear { rows, inputs, cols, .. }, _) => {
            let product = in_full(&Operation::linear(rows, inputs, cols), precision);
            of(BEHIND_A_NORM * product.absolute + 4e-6, BEHIND_A_NORM * product.relative + 2e-6)
        }
        (&Operation::NormedLayers { rows, inputs, cols, .. }, _) => {
            layers(in_full(&Operation::linear(rows, inputs, cols), precision), of(4e-6, 2e-6))
        }
        // Scores grow with the square of the spread, and so does their rounding, which the softmax passes on whole
        // where two keys are nearly even: 144 * 3 deviations * 6e-8 * (values 2 apart) for a spread of 12.
        (Operation::Attention { spread, .. }, _) => of(4e-6 + 5e-7 * f64::from(spread * spread - 1.0), 2e-6),
        // 127 steps over about 4 deviations on each side, on weights and activations.
        (Operation::Linear { .. } | Operation::PackedLinear { .. }, Precision::Int8) => of(8e-2, 2e-2),
        // A number of 4 significant bits is off by 2^-4 at most and 0.026 in the mean, on both sides: 0.037 of a result of size 1. Of
        // packed weights some are few numbers that stand for the ends of their groups, of 2.5 deviations. These are six times that.
        (Operation::Linear { .. }, Precision::Fp8) => of(2.2e-1, 2e-2),
        (Operation::PackedLinear { .. }, Precision::Fp8) => of(5.5e-1, 2e-2),
        // 15 steps over about 2 deviations on each side of a group.
        (Operation::Linear { .. } | Operation::PackedLinear { .. }, Precision::Q4) => of(5e-1, 1e-1),
    }
}

/// What shorter numbers add, in units of their rounding `u`. Operands are rounded already ([`super::check_at`]); sums are
/// in f32.
fn rounding(operation: &Operation, arithmetic: Arithmetic) -> Tolerance {
    let u = arithmetic.unit();
    let of = |absolute, relative| Tolerance { absolute: absolute * u, relative: relative * u };
    match (arithmetic, operation) {
        // Products of numbers that lose up to 2 u each (hardware may cut instead of round) to a sum of size 1: 2 u is its
        // deviation, and a table of thousands of values goes up to 5 of these. Scores grow with the square of the spread.
        (Arithmetic::Tf32, Operation::Linear { .. } | Operation::PackedLinear { .. }) => of(12.0, 2.0),
        (Arithmetic::Tf32, Operation::Attention { spread, .. }) => of(12.0 * f64::from(spread * spread), 2.0),
        (Arithmetic::F32, _) | (_, Operation::TakeRows { .. }) => of(0.0, 0.0),
        // The product is rounded as one, and what is made of it as a norm.
        (_, &Operation::NormedLinear { rows, inputs, cols, .. }) => {
            let product = rounding(&Operation::linear(rows, inputs, cols), arithmetic);
            let (own, factor) = (if arithmetic == Arithmetic::Tf32 { 0.0 } else { u }, BEHIND_A_NORM);
            Tolerance { absolute: factor * product.absolute + own, relative: factor * product.relative + 2.0 * own }
        }
        (_, &Operation::NormedLayers { rows, inputs, cols, .. }) => {
            let own = if arithmetic == Arithmetic::Tf32 { of(0.0, 0.0) } else { of(1.0, 2.0) };
            layers(rounding(&Operation::linear(rows, inputs, cols), arithmetic), own)
        }
        (Arithmetic::Tf32, _) => of(0.0, 0.0),
        // The result is rounded; before that the bias, up to 4, and what the activation is applied to. The slope of an
        // activation is at most 2 in proportion to its value.
        (_, Operation::Linear { .. } | Operation::PackedLinear { .. }) => of(4.0, 4.0),
        // Weights of a softmax are rounded, of values up to 4, and the result. A relative term may be rounded where it is
        // added to the scores.
        (_, Operation::Attention { spread, .. }) => of(4.0 + f64::from(spread * spread - 1.0), 2.0),
        // Two roundings, one of them of a number near the result.
        (_, Operation::Norm { .. } | Operation::AddNorm { .. } | Operation::Rotate { .. } | Operation::Gate { .. }) => {
            of(1.0, 2.0)
        }
        (_, Operation::Embed { .. } | Operation::ReduceRows { .. }) => of(0.0, 1.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shorter_numbers_are_allowed_their_rounding_and_no_more() {
        let linear = Operation::linear(2, 8, 4);
        let full = tolerance(&linear, Precision::F16, Arithmetic::F32);
        let half = tolerance(&linear, Precision::F16, Arithmetic::F16);
        assert!(full.absolute < 2e-5 && half.absolute > 4.0 / 2048.0 && half.absolute < 5.0 / 2048.0);
        let copied = Operation::TakeRows { rows: 2, cols: 2, count: 1 };
        assert_eq!(tolerance(&copied, Precision::F16, Arithmetic::Bf16).share(1.0, 1.000_000_1), f64::INFINITY);
    }

    #[test]
    fn shares_count_in_units_of_the_tolerance() {
        let t = Tolerance { absolute: 0.1, relative: 0.1 };
        assert!((t.share(1.0, 1.1) - 0.5).abs() < 1e-6);
        assert_eq!(t.share(f32::NAN, f32::NAN), 0.0);
        assert_eq!(t.share(f32::NEG_INFINITY, f32::NEG_INFINITY), 0.0);
        assert_eq!(t.share(f32::INFINITY, f32::MAX), f64::INFINITY);
        assert_eq!(Tolerance { absolute: 0.0, relative: 0.0 }.share(0.0, 1e-30), f64::INFINITY);
        assert_eq!(Tolerance { absolute: 0.0, relative: 0.0 }.share(0.0, -0.0), 0.0);
    }
}
