//! The scale of a group of 4-bit weights.

use half::bf16;

use super::{Four, Weights};
use crate::simd::Simd;

/// The ends of the range of whole numbers, of which the lower one is the scale's: there is one number more on its side.
pub(super) const LEAST: f32 = -8.0;
pub(super) const MOST: f32 = 7.0;

/// What is tried of the scale that takes the largest weight to the end of the range. A smaller one cuts the largest weights off, and
/// is nearer to all others.
const PARTS: [f32; 3] = [1.0, 0.92, 0.85];

/// The scale, a bf16, with which the squares of a group's rounding errors are least. `most` is the largest magnitude. The same on
/// every CPU.
#[inline(always)]
pub(super) fn scale<S: Simd>(s: S, values: &[f32], most: f32) -> f32 {
    let end = values.iter().copied().find(|v| v.abs() == most).unwrap_or(0.0);
    let [first, others @ ..] = PARTS.map(|part| bf16::from_f32(end * part / LEAST).to_f32());
    let mut best = (error(s, values, first), first);
    for scale in others {
        let error = error(s, values, scale);
        if error < best.0 {
            best = (error, scale);
        }
    }
    best.1
}

/// The sum of the squares of rounding errors.
#[inline(always)]
fn error<S: Simd>(s: S, values: &[f32], scale: f32) -> f32 {
    let mut squares = [0.0; Four::GROUP];
    let step = (s.splat(scale), s.splat(super::inverse(scale, 1.0)));
    let bounds = (s.splat(LEAST), s.splat(MOST));
    for (values, squares) in values.chunks_exact(S::LANES).zip(squares.chunks_exact_mut(S::LANES)) {
        let value = s.get(values);
        let error = s.sub(value, super::nearest(s, value, step, bounds));
        s.put(squares, s.mul(error, error));
    }
    // In one order, however many lanes there are.
    let mut half = squares.len() / 2;
    while half > 0 {
        let (sums, rest) = squares.split_at_mut(half);
        sums.iter_mut().zip(rest).for_each(|(sum, other)| *sum += *other);
        half /= 2;
    }
    squares[0]
}
