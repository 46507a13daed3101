//! Rounding errors made good by the weights that are rounded after them (as GPTQ does, with squares of inputs that are guessed).
//!
//! A block's error in a product is `Σ x e`, where `x` are spread inputs and `e` what rounding takes from weights. Inputs that are
//! independent of each other with squares `d` are correlated once they are spread by a rotation `R`, with moments
//! `M = R diag(d) Rᵀ`. So what rounding a weight does to a product can be taken back in part by changing those that are not
//! rounded yet: by its error times a column of the Cholesky factor of `M⁻¹`. With a rotation that inverse is known at once,
//! `R diag(1 / d) Rᵀ`, and as Hadamard's, its value in row `i` and column `j` depends on `i ^ j` alone.

use std::ops::RangeInclusive;

use super::BLOCK;
use super::spread::{APART, ORDER};
use crate::simd::Simd;

/// Squares are taken to be no less than this part of their block's mean.
const LEAST: f64 = 1e-3;

/// Values of the longest vector.
const MOST_LANES: usize = 16;
/// By which parts of a weight's error those behind it change: for a block, a weight of each remainder by [`APART`] at a time.
type Block = [[f32; BLOCK]; ORDER];

/// For the blocks of all inputs.
#[derive(Debug)]
pub(crate) struct Feedback(Vec<Box<Block>>);

impl Feedback {
    /// Of the expected squares of inputs, which may be off by a factor.
    pub(super) fn new(squares: &[f32]) -> Self {
        Self(squares.chunks(BLOCK).map(block).collect())
    }

    /// Rounds a block of spread weights to multiples of `steps`, of which there is one for as many groups of it, within `range` of
    /// them, and each error into those behind it; the same on every CPU.
    #[inline(always)]
    pub(super) fn round<S: Simd>(
        &self,
        s: S,
        block: usize,
        values: &mut [f32; BLOCK],
        steps: &[f32],
        range: RangeInclusive<f32>,
    ) {
        let bounds = (s.splat(*range.start()), s.splat(*range.end()));
        let lanes = S::LANES;
        // With room for a vector that begins at the last values.
        let (mut left, mut rounded) = ([0.0; BLOCK + MOST_LANES], [0.0; BLOCK + MOST_LANES]);
        left[..BLOCK].copy_from_slice(values);
        let mut errors = [0.0; 2 * MOST_LANES];
        for (k, factors) in self.0[block].iter().enumerate() {
            let step = steps[k * steps.len() / ORDER];
            let step = (s.splat(step), s.splat(super::inverse(step, 1.0)));
            let now = s.get(&left[k * APART..]);
            let nearest = super::nearest(s, now, step, bounds);
            // Of each vector the first few count: the next is put over the others.
            s.put(&mut rounded[k * APART..], nearest);
            for at in (0..lanes).step_by(APART) {
                s.put(&mut errors[at..], s.sub(now, nearest));
            }
            let error = s.get(&errors);
            // Whole vectors: the factors of what is rounded already are 0.
            for at in ((k + 1) * APART / lanes * lanes..BLOCK).step_by(lanes) {
                let changed = s.sub(s.get(&left[at..]), s.mul(error, s.get(&factors[at..])));
                s.put(&mut left[at..], changed);
            }
        }
        values.copy_from_slice(&rounded[..BLOCK]);
    }
}

fn block(squares: &[f32]) -> Box<Block> {
    let mean = squares.iter().map(|&d| f64::from(d)).sum::<f64>() / squares.len() as f64;
    let mut factors = Box::new([[0.0; BLOCK]; ORDER]);
    for remainder in 0..APART {
        // Behind the last input there is nothing to be wrong about.
        let square = |k: usize| squares.get(k * APART + remainder).map_or(mean, |&d| f64::from(d));
        let lower = cholesky(&moments(|k| 1.0 / square(k).max(mean * LEAST)));
        for (k, factors) in factors.iter_mut().enumerate() {
            for j in k + 1..ORDER {
                factors[j * APART + remainder] = (lower[j][k] / lower[k][k]) as f32;
            }
        }
    }
    factors
}

/// `R diag(d) Rᵀ` but for a factor.
fn moments(d: impl Fn(usize) -> f64) -> [[f64; ORDER]; ORDER] {
    let sign = |bits: usize| if bits.count_ones().is_multiple_of(2) { 1.0 } else { -1.0 };
    let of: [f64; ORDER] = std::array::from_fn(|difference| (0..ORDER).map(|k| d(k) * sign(k & difference)).sum());
    std::array::from_fn(|i| std::array::from_fn(|j| of[i ^ j]))
}

/// The lower triangle whose product with its transpose is `m`, which is positive definite.
fn cholesky(m: &[[f64; ORDER]; ORDER]) -> [[f64; ORDER]; ORDER] {
    let mut lower = [[0.0; ORDER]; ORDER];
    for i in 0..ORDER {
        for j in 0..=i {
            let known: f64 = (0..j).map(|k| lower[i][k] * lower[j][k]).sum();
            let left = m[i][j] - known;
            lower[i][j] = if i == j { left.sqrt() } else { left / lower[j][j] };
        }
    }
    lower
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_factor_times_its_transpose_is_the_inverse_of_the_moments() {
        let d = |k: usize| 0.01 + (k * 7 % 11) as f64;
        let (m, lower) = (moments(d), cholesky(&moments(|k| 1.0 / d(k))));
        for (i, row) in m.iter().enumerate() {
            for (j, right) in lower.iter().enumerate() {
                // R is Hadamard's matrix, whose square is `ORDER`.
                let inverse = |left: &[f64; ORDER]| left.iter().zip(right).map(|(a, b)| a * b).sum::<f64>();
                let one: f64 = row.iter().zip(&lower).map(|(m, left)| m * inverse(left)).sum();
                let one = one / (ORDER * ORDER) as f64;
                assert!((one - f64::from(u8::from(i == j))).abs() < 1e-9, "{i} {j} {one}");
            }
        }
    }
}
