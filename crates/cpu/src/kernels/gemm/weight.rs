//! What a packed weight is kept as: an f32; half of one, which becomes an f32 on its way into a register; or a pair of
//! bfloat16, which is multiplied as it is, where the CPU does that faster than f32.
//!
//! Half the bytes are half the time wherever memory is the limit: at few rows. Sums are always in f32, and so are
//! activations, but for those that meet pairs, which are rounded to bfloat16 when they are packed.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use super::tile::transpose;
use crate::simd::{MAX_LANES, PairToken, Simd};

/// What a panel of weights is made of, and how it meets rows.
pub(crate) trait Weight: Copy {
    /// Inputs that one of them holds the weights of.
    const INPUTS: usize = 1;

    /// A vector of them from `p` on, of any alignment.
    ///
    /// # Safety
    /// `LANES` of them can be read.
    unsafe fn load<S: Simd>(s: S, p: *const Self) -> S::V;

    /// `sum`, and the product of a packed row's values and a column's weights.
    #[inline(always)]
    fn multiply<S: Simd>(s: S, row: S::V, column: S::V, sum: S::V) -> S::V {
        s.mul_add(row, column, sum)
    }

    /// `[inputs][width]` weights, each rounded to the nearest (of two equally near ones the even one). Whether all of them
    /// stayed finite that this type may make infinite.
    fn round(values: &[f32], width: usize, out: &mut [Self]) -> bool;

    /// Packs `rows` rows of `x` as a tile reads them: `[inputs / INPUTS][rows]`.
    ///
    /// # Safety
    /// `rows` rows of `inputs` values can be read from `x` on, and `dst` is as large as that and a vector behind it, which
    /// is lost.
    #[inline(always)]
    unsafe fn pack<S: Simd>(s: S, x: *const f32, (rows, inputs): (usize, usize), dst: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { transpose(s, x, inputs, (rows, inputs), dst, rows) };
    }
}

impl Weight for f32 {
    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, p: *const Self) -> S::V {
        // SAFETY: the caller's promise.
        unsafe { s.load(p) }
    }

    fn round(values: &[f32], _: usize, out: &mut [Self]) -> bool {
        out.copy_from_slice(values);
        true
    }
}

impl Weight for bf16 {
    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, p: *const Self) -> S::V {
        // SAFETY: the caller's promise.
        unsafe { s.load_bf16(p.cast()) }
    }

    fn round(values: &[f32], _: usize, out: &mut [Self]) -> bool {
        out.convert_from_f32_slice(values);
        !out.iter().any(|v| v.is_infinite())
    }
}

impl Weight for f16 {
    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, p: *const Self) -> S::V {
        // SAFETY: the caller's promise.
        unsafe { s.load_f16(p.cast()) }
    }

    fn round(values: &[f32], _: usize, out: &mut [Self]) -> bool {
        out.convert_from_f32_slice(values);
        !out.iter().any(|v| v.is_infinite())
    }
}

/// An output's weights of two inputs, in the bits of an f32: the first in the lower half. What is behind the last input is 0.
#[derive(Debug, Clone, Copy)]
#[expect(dead_code, reason = "vectors of them are read")]
pub(crate) struct Pair(f32);

impl Weight for Pair {
    const INPUTS: usize = 2;

    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, p: *const Self) -> S::V {
        // SAFETY: the caller's promise; a pair is an f32.
        unsafe { s.load(p.cast()) }
    }

    #[inline(always)]
    fn multiply<S: Simd>(s: S, row: S::V, column: S::V, sum: S::V) -> S::V {
        s.add_pairs(row, column, sum)
    }

    fn round(values: &[f32], width: usize, out: &mut [Self]) -> bool {
        let mut finite = true;
        for (inputs, out) in values.chunks(2 * width).zip(out.chunks_exact_mut(width)) {
            let (first, second) = inputs.split_at(width);
            for (o, out) in out.iter_mut().enumerate() {
                let pair = [first[o], second.get(o).copied().unwrap_or(0.0)].map(bf16::from_f32);
                finite &= !pair.iter().any(|v| v.is_infinite());
                *out = Self(f32::from_bits(u32::from(pair[0].to_bits()) | u32::from(pair[1].to_bits()) << 16));
            }
        }
        finite
    }

    #[inline(always)]
    unsafe fn pack<S: Simd>(s: S, x: *const f32, (rows, inputs): (usize, usize), dst: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { pack_pairs(s, (x, inputs), (rows, inputs), 1.0, (dst, rows)) };
    }
}

/// `dst[i * dst_stride + r]` is the pair of row `r`'s values `2 i` and `2 i + 1` (0 behind the last) times `scale`, rounded.
///
/// # Safety
/// As [`transpose`] of half the columns: `rows, inputs >= 1`, `dst_stride >= rows`; `rows` rows of `inputs` values, `stride`
/// apart, can be read, and `dst` is at least `inputs / 2` rows of `dst_stride` and a vector long: what lies between the rows,
/// and behind the last, is lost.
#[inline(always)]
pub(crate) unsafe fn pack_pairs<S: Simd>(
    s: S,
    (x, stride): (*const f32, usize),
    (rows, inputs): (usize, usize),
    scale: f32,
    (dst, dst_stride): (*mut f32, usize),
) {
    let pairs = inputs.div_ceil(2);
    // A vector of pairs of each of a few rows at a time, the last rows first for the reason that `transpose` has.
    let mut block = [0.0_f32; MAX_LANES * MAX_LANES];
    for first in (0..rows).step_by(S::LANES).rev() {
        let height = S::LANES.min(rows - first);
        for pair in (0..pairs).step_by(S::LANES) {
            for r in 0..height {
                for half in 0..2 {
                    let input = 2 * pair + half * S::LANES;
                    // SAFETY: as many values are read as the row has from `input` on; `block` has two halves of a vector of
                    // pairs for each of as many rows as a vector has lanes.
                    unsafe {
                        let from = x.wrapping_add((first + r) * stride + input);
                        let values = match inputs.saturating_sub(input) {
                            0 => s.splat(0.0),
                            n if n < S::LANES => s.load_first(from, n),
                            _ => s.load(from),
                        };
                        let place = block.as_mut_ptr().add(r * MAX_LANES).cast::<u8>().add(half * 2 * S::LANES);
                        s.store_bf16(place, s.mul(values, s.splat(scale)));
                    }
                }
            }
            let size = (height, S::LANES.min(pairs - pair));
            // SAFETY: the caller's promise; what is lost behind these pairs is written by the next.
            unsafe { transpose(s, block.as_ptr(), MAX_LANES, size, dst.add(pair * dst_stride + first), dst_stride) };
        }
    }
}

/// How a matrix keeps its weights.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kept {
    F32,
    Bf16,
    F16,
    Pairs(PairToken),
}

impl Kept {
    /// Bytes of a [`Weight`].
    pub(crate) fn size(self) -> usize {
        match self {
            Self::F32 | Self::Pairs(_) => size_of::<f32>(),
            Self::Bf16 | Self::F16 => size_of::<u16>(),
        }
    }

    /// Inputs of a [`Weight`].
    pub(crate) fn inputs(self) -> usize {
        match self {
            Self::F32 | Self::Bf16 | Self::F16 => 1,
            Self::Pairs(_) => Pair::INPUTS,
        }
    }
}
