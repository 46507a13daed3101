//! What attention's two products read, in f32 or in pairs of bfloat16: queries and keys are laid out as they are packed, weights
//! in place, values as copies side by side, for they lie far apart in the batch.

use super::QUERIES;
use crate::kernels::gemm::tile::transpose;
use crate::kernels::gemm::weight::{Pair, Weight, pack_pairs};
use crate::simd::Simd;

/// Rows of one head in a batch: the first one's values, and how far apart they begin.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    pub(super) values: &'a [f32],
    pub(super) stride: usize,
    pub(super) count: usize,
    /// Values of a row, the head's size.
    pub(super) size: usize,
}

impl<'a> Rows<'a> {
    pub(super) fn row(self, row: usize) -> &'a [f32] {
        &self.values[row * self.stride..][..self.size]
    }

    /// `count` rows from row `first` on.
    fn from(self, first: usize, count: usize) -> Self {
        Self { values: &self.values[first * self.stride..], count, ..self }
    }
}

/// A number that attention multiplies: for `INPUTS` values of a sum.
pub(super) trait Operand: Weight {
    /// Queries times `scale` as `[size / INPUTS][QUERIES]`; `to` has room for a vector more.
    fn queries<S: Simd>(s: S, rows: Rows<'_>, scale: f32, to: &mut [f32]);

    /// `count` keys from key `first` on, at most a tile's, as `[size / INPUTS][count]`; `to` has room for a vector more.
    fn keys<S: Simd>(s: S, rows: Rows<'_>, first: usize, count: usize, to: &mut [f32]);

    /// Values as `[keys / INPUTS][size]`, and how far apart those rows begin: where they lie, or in `to`. Whole vectors can be
    /// read at the end of the last row if there are two of room in `to`.
    fn values<'a, S: Simd>(s: S, rows: Rows<'a>, to: &'a mut [f32]) -> (&'a [f32], usize);

    /// Turns weights, `[keys][QUERIES]`, into `[keys / INPUTS][QUERIES]` in their first `lanes` columns.
    fn weights<S: Simd>(s: S, weights: &mut [f32], keys: usize, lanes: usize);
}

impl Operand for f32 {
    #[inline(always)]
    fn queries<S: Simd>(s: S, rows: Rows<'_>, scale: f32, to: &mut [f32]) {
        let Rows { values, stride, count, size } = rows;
        assert!(to.len() >= size * QUERIES + S::LANES && rows.row(count - 1).len() == size);
        // SAFETY: the last row is there, and the room, both as just seen.
        unsafe { transpose(s, values.as_ptr(), stride, (count, size), to.as_mut_ptr(), QUERIES) };
        for row in to.chunks_exact_mut(QUERIES).take(size) {
            for x in row[..count.next_multiple_of(S::LANES)].chunks_exact_mut(S::LANES) {
                s.put(x, s.mul(s.get(x), s.splat(scale)));
            }
        }
    }

    #[inline(always)]
    fn keys<S: Simd>(s: S, rows: Rows<'_>, first: usize, count: usize, to: &mut [f32]) {
        let Rows { values, stride, size, .. } = rows.from(first, count);
        assert!(to.len() >= size * count + S::LANES && values.len() >= (count - 1) * stride + size);
        // SAFETY: as just seen.
        unsafe { transpose(s, values.as_ptr(), stride, (count, size), to.as_mut_ptr(), count) };
    }

    #[inline(always)]
    fn values<'a, S: Simd>(s: S, rows: Rows<'a>, to: &'a mut [f32]) -> (&'a [f32], usize) {
        if rows.size.is_multiple_of(S::LANES) {
            return (rows.values, rows.stride);
        }
        for (i, to) in to.chunks_exact_mut(rows.size).take(rows.count).enumerate() {
            for (to, from) in to.chunks_mut(S::LANES).zip(rows.row(i).chunks(S::LANES)) {
                s.put(to, s.get(from));
            }
        }
        (to, rows.size)
    }

    #[inline(always)]
    fn weights<S: Simd>(_: S, _: &mut [f32], _: usize, _: usize) {}
}

impl Operand for Pair {
    #[inline(always)]
    fn queries<S: Simd>(s: S, rows: Rows<'_>, scale: f32, to: &mut [f32]) {
        let Rows { values, stride, count, size } = rows;
        assert!(to.len() >= size.div_ceil(2) * QUERIES + S::LANES && rows.row(count - 1).len() == size);
        // SAFETY: the last row is there, and the room, both as just seen.
        unsafe { pack_pairs(s, (values.as_ptr(), stride), (count, size), scale, (to.as_mut_ptr(), QUERIES)) };
    }

    #[inline(always)]
    fn keys<S: Simd>(s: S, rows: Rows<'_>, first: usize, count: usize, to: &mut [f32]) {
        let Rows { values, stride, size, .. } = rows.from(first, count);
        assert!(to.len() >= size.div_ceil(2) * count + S::LANES && values.len() >= (count - 1) * stride + size);
        // SAFETY: as just seen.
        unsafe { pack_pairs(s, (values.as_ptr(), stride), (count, size), 1.0, (to.as_mut_ptr(), count)) };
    }

    #[inline(always)]
    fn values<'a, S: Simd>(s: S, rows: Rows<'a>, to: &'a mut [f32]) -> (&'a [f32], usize) {
        for (i, to) in to.chunks_exact_mut(rows.size).take(rows.count.div_ceil(2)).enumerate() {
            let first = rows.row(2 * i);
            for at in (0..rows.size).step_by(S::LANES) {
                let end = rows.size.min(at + S::LANES);
                let second = if 2 * i + 1 < rows.count { s.get(&rows.row(2 * i + 1)[at..end]) } else { s.splat(0.0) };
                s.put(&mut to[at..end], s.pair(s.get(&first[at..end]), second));
            }
        }
        (to, rows.size)
    }

    #[inline(always)]
    fn weights<S: Simd>(s: S, weights: &mut [f32], keys: usize, lanes: usize) {
        // Pair `i` lies where weight `i` was, which is read by then.
        for i in 0..keys.div_ceil(2) {
            for at in (0..lanes).step_by(S::LANES) {
                let weight = |key: usize| s.get(&weights[key * QUERIES + at..][..S::LANES]);
                let second = if 2 * i + 1 < keys { weight(2 * i + 1) } else { s.splat(0.0) };
                let pair = s.pair(weight(2 * i), second);
                s.put(&mut weights[i * QUERIES + at..][..S::LANES], pair);
            }
        }
    }
}
