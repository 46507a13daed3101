//! A rotation that spreads what a few of a block's values hold over many of them, before they are rounded.
//!
//! A scale is as large as the largest value asks for, so a group is rounded the better the less its largest is beyond the others.
//! Sums and differences are alike in size. Both sides of a product are spread in the same way, and as that is a rotation but
//! for a factor, `a b` becomes `ORDER a b`.

use super::BLOCK;
use crate::simd::Simd;
use crate::simd::dot::Dot;

/// How many values each becomes a sum or difference of. The error of whole models is the same with 64 and with 128, and with 16
/// a sixth larger (docs/performance/cpu.md).
pub(super) const ORDER: usize = 32;

/// Values that are spread over each other lie a multiple of this apart: nearer ones would share a small vector.
pub(super) const APART: usize = BLOCK / ORDER;

/// Hadamard's matrix times the values of each remainder by `APART`: sums and differences of values 64 apart, of those 32
/// apart, and so on to 4, in this order on every CPU, so that all round the same numbers. Gives by what
/// products of two sides become larger.
#[inline(always)]
pub(super) fn spread<D: Dot>(d: D, values: &mut [f32; BLOCK]) -> f32 {
    const { assert!(D::F::LANES <= BLOCK / 8 && D::F::LANES >= APART) }
    let (s, lanes) = (d.floats(), D::F::LANES);
    // The first three in registers: eight vectors.
    for first in (0..BLOCK / 8).step_by(lanes) {
        let mut v = [s.splat(0.0); 8];
        for (i, v) in v.iter_mut().enumerate() {
            *v = s.get(&values[first + i * BLOCK / 8..]);
        }
        let pair = |a, b| (s.add(a, b), s.sub(a, b));
        let [v0, v1, v2, v3, v4, v5, v6, v7] = v;
        let ((v0, v4), (v1, v5), (v2, v6), (v3, v7)) = (pair(v0, v4), pair(v1, v5), pair(v2, v6), pair(v3, v7));
        let ((v0, v2), (v1, v3), (v4, v6), (v5, v7)) = (pair(v0, v2), pair(v1, v3), pair(v4, v6), pair(v5, v7));
        let ((v0, v1), (v2, v3), (v4, v5), (v6, v7)) = (pair(v0, v1), pair(v2, v3), pair(v4, v5), pair(v6, v7));
        for (i, v) in [v0, v1, v2, v3, v4, v5, v6, v7].into_iter().enumerate() {
            s.put(&mut values[first + i * BLOCK / 8..], v);
        }
    }
    let mut distance = BLOCK / 16;
    while distance >= lanes {
        for pair in values.chunks_exact_mut(2 * distance) {
            let (first, second) = pair.split_at_mut(distance);
            for (a, b) in first.iter_mut().zip(second) {
                (*a, *b) = (*a + *b, *a - *b);
            }
        }
        distance /= 2;
    }
    for vector in values.chunks_exact_mut(lanes) {
        let within = d.spread(s.get(vector));
        s.put(vector, within);
    }
    ORDER as f32
}
