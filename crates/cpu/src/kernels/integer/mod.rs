//! Linear layers over weights of 8 or 4 bits: `activation(x wᵀ + bias)`, the products in integers.
//!
//! Inputs are cut into groups. Weights have a scale for each output and group, made when they are loaded (`pack.rs`); the rows
//! of `x` are rounded to 8 bits with a scale for each row and block of inputs, on the way (`rows.rs`). Encoders' activations have a few
//! values far beyond the others, which would cost those their digits, so both sides are spread over their blocks
//! first (`spread.rs`), unless the weights were of few bits already. A group's products are summed exactly in 32 bits,
//! scaled, and added up in f32 (`tile.rs`).
//!
//! Where a model tells which inputs are large, weights are rounded so that their errors meet small ones (`feedback.rs`).
//!
//! Work is cut as for weights of f32 (`gemm/plan.rs`), and likewise never changes a result.

mod feedback;
mod four;
mod pack;
mod rows;
mod spread;
mod tile;

pub(crate) use pack::Matrix;

use std::sync::Arc;

use half::bf16;
use mlxt_backend::{Activation, LinearPart, LinearWeight, Result, Shaped};

use self::feedback::Feedback;
use self::rows::{Extent, Packed, Quantize, narrow};
use self::tile::{MAX_TILE_ROWS, Tile, function};
use super::activate::activate;
use super::gemm::plan::{Part, Plan};
use super::gemm::weight::Weight;
use crate::arena::Arena;
use crate::simd::dot::{Dot, DotKernel, DotToken};
use crate::simd::{Simd, Token};
use crate::threads::{Pool, Shareable};

/// Bytes of a block of rows that stay in the second-level cache.
const ROW_BLOCK: usize = 256 << 10;
/// Products below this (about 9 microseconds) are not worth the hand-off.
const SMALL: usize = 1 << 21;
/// Nor is rounding fewer values than this.
const SMALL_ROWS: usize = 1 << 13;

/// Inputs that are spread over each other, and rounded together.
const BLOCK: usize = 128;
/// The most groups of a block.
const MOST_GROUPS: usize = 4;

/// Whether blocks are spread before they are rounded to so many bits. Weights of few values, as packed checkpoints have them, would
/// take many, which as few bits do not hold; and those of one bit are all as large as the largest of their group, so that spread,
/// which makes them normally distributed, they would be rounded with a scale nearly three times as large.
pub(crate) fn gains_by_spreading(bits: Bits, parts: &[LinearPart]) -> bool {
    let few = match bits {
        Bits::Eight => 1,
        Bits::Four => 3,
    };
    let of_few = |part: &LinearPart| matches!(&part.weight, LinearWeight::Quantised(w) if w.scheme().bits() <= few);
    !parts.iter().any(of_few)
}

/// Bits of a weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bits {
    Eight,
    Four,
}

/// A way to keep weights.
pub(crate) trait Weights: Copy {
    /// Vectors of bytes for the weights of four inputs and a panel's outputs, which are two vectors.
    const VECTORS: usize;
    /// Inputs that share a scale. A block is a whole number of groups.
    const GROUP: usize;
    /// What scales are kept as.
    type Scale: Weight;

    /// Numbers for a block's weights in the form they are kept in, and their groups' scales, which are NaN if one of the weights is
    /// NaN or infinite. With the feedback of the block that `values` are, where there is one.
    fn round<D: Dot>(
        d: D,
        values: &mut [f32; BLOCK],
        feedback: Option<(&Feedback, usize)>,
        scales: &mut [f32],
        out: &mut [i8; BLOCK],
    );

    /// Puts an output's weights of four inputs in their place of a panel: output `o` of `width`.
    fn place(four: [i8; 4], panel: &mut [u8], step: usize, of: (usize, usize));

    /// The weights of four inputs.
    ///
    /// # Safety
    /// `VECTORS` vectors can be read from `p` on.
    unsafe fn load<D: Dot>(d: D, p: *const u8) -> [D::Weights; 2];
}

/// 8 bits. With a scale for 64 inputs products would take a fifth longer for an error a third less (docs/performance/cpu.md).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Eight;

/// 4 bits, and half a bit of scales. With these for 64 inputs the error is a fifth larger, for 128 two fifths.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Four;

impl Weights for Eight {
    const VECTORS: usize = 2;
    const GROUP: usize = 128;
    type Scale = f32;

    #[inline(always)]
    fn round<D: Dot>(
        d: D,
        values: &mut [f32; BLOCK],
        feedback: Option<(&Feedback, usize)>,
        scales: &mut [f32],
        out: &mut [i8; BLOCK],
    ) {
        let Extent { most, not_finite } = Extent::of(d, values);
        if let Some((feedback, block)) = feedback {
            feedback.round(d.floats(), block, values, &[most / 127.0], -127.0..=127.0);
        }
        narrow(d, values, inverse(most, 127.0), out);
        for byte in out {
            *byte = byte.wrapping_add(D::OFFSET_8 as i8);
        }
        scales[0] = most / 127.0 + not_finite;
    }

    #[inline(always)]
    fn place(four: [i8; 4], panel: &mut [u8], step: usize, (o, width): (usize, usize)) {
        panel[4 * (step * width + o)..][..4].copy_from_slice(&four.map(i8::cast_unsigned));
    }

    #[inline(always)]
    unsafe fn load<D: Dot>(d: D, p: *const u8) -> [D::Weights; 2] {
        // SAFETY: the caller's promise.
        unsafe { [d.load_8(p), d.load_8(p.add(4 * D::F::LANES))] }
    }
}

impl Weights for Four {
    const VECTORS: usize = 1;
    const GROUP: usize = 32;
    type Scale = bf16;

    #[inline(always)]
    fn round<D: Dot>(
        d: D,
        values: &mut [f32; BLOCK],
        feedback: Option<(&Feedback, usize)>,
        scales: &mut [f32],
        out: &mut [i8; BLOCK],
    ) {
        let mut not_finite = [0.0; BLOCK / Self::GROUP];
        for ((group, scale), not_finite) in values.chunks_exact(Self::GROUP).zip(&mut *scales).zip(&mut not_finite) {
            let extent = Extent::of(d, group);
            *scale = four::scale(d.floats(), group, extent.most);
            *not_finite = extent.not_finite;
        }
        if let Some((feedback, block)) = feedback {
            feedback.round(d.floats(), block, values, scales, four::LEAST..=four::MOST);
        }
        let groups = values.chunks_exact(Self::GROUP).zip(out.chunks_exact_mut(Self::GROUP));
        for (((group, out), scale), not_finite) in groups.zip(scales).zip(not_finite) {
            narrow(d, group, inverse(*scale, 1.0), out);
            for weight in out {
                *weight = (*weight).clamp(four::LEAST as i8, four::MOST as i8) + 8;
            }
            *scale += not_finite;
        }
    }

    /// The first vector's outputs are in the lower halves of the bytes, the second's in the upper ones.
    #[inline(always)]
    fn place(four: [i8; 4], panel: &mut [u8], step: usize, (o, width): (usize, usize)) {
        let (half, shift) = (width / 2, if o < width / 2 { 0 } else { 4 });
        let place = &mut panel[4 * (step * half + o % half)..][..4];
        place.iter_mut().zip(four).for_each(|(byte, weight)| *byte |= weight.cast_unsigned() << shift);
    }

    #[inline(always)]
    unsafe fn load<D: Dot>(d: D, p: *const u8) -> [D::Weights; 2] {
        // SAFETY: the caller's promise.
        unsafe { d.load_4(p) }
    }
}

/// `end / largest`; 0 where that is infinite: what is so small is nothing.
fn inverse(largest: f32, end: f32) -> f32 {
    let inverse = end / largest;
    if inverse.is_finite() { inverse } else { 0.0 }
}

/// What is added to a value and taken off again is rounded to a whole number.
const WHOLE: f32 = 1.5 * (1 << 23) as f32;

/// The nearest whole number of steps within bounds, times the step, of which `inverse` is the inverse; the same on every CPU.
#[inline(always)]
fn nearest<S: Simd>(s: S, value: S::V, (step, inverse): (S::V, S::V), (least, most): (S::V, S::V)) -> S::V {
    let (steps, whole) = (s.max(s.min(s.mul(value, inverse), most), least), s.splat(WHOLE));
    s.mul(s.sub(s.add(steps, whole), whole), step)
}

/// `out = activation(x wᵀ + bias)`: `x` is `[rows, inputs]`, `out` `[rows, outputs]`. `bias` stands in for the matrix's own.
///
/// # Errors
/// Out of memory for the packed rows.
pub(crate) fn linear(
    (token, pool, arena): (Token, &Pool, &Arc<Arena>),
    x: &[f32],
    w: &Matrix,
    bias: Option<&[f32]>,
    activation: Activation,
    out: &mut [f32],
) -> Result<()> {
    let given = bias.map(|values| w.whole_panels(values, arena)).transpose()?;
    let bias = given.as_deref().unwrap_or_else(|| w.bias());
    let token = DotToken::of(token);
    let (inputs, blocks) = (w.cols(), w.blocks());
    let rows = x.len() / inputs;
    let tiles = (token.run(TileRows), ROW_BLOCK / (blocks * BLOCK));
    let plan = Plan::new(rows, tiles, w.count(), rows * w.rows() * inputs < SMALL, pool.threads());

    let mut room = arena.take(Packed::len(rows, blocks))?;
    let packed = Packed::new(&mut room, rows, blocks);
    // All rows first: each task for itself would round them once for every thread.
    let row_panels = plan.row_panels();
    let quantize = |task| {
        let (rows, block) = (row_panels.range(task / blocks), task % blocks);
        token.run(Quantize { x, inputs, out: packed, rows, block, bits: w.bits(), is_spread: w.is_spread() });
    };
    let tasks = row_panels.count() * blocks;
    if x.len() < SMALL_ROWS {
        (0..tasks).for_each(quantize);
    } else {
        pool.run(tasks, |_, claims| claims.for_each(quantize));
    }
    let out = Shareable(out.as_mut_ptr());
    plan.run((pool, arena), 0, |_, part| {
        token.run(Task { w, bias, activation, part, packed, out });
    })
}

struct TileRows;

impl DotKernel for TileRows {
    type Output = usize;

    #[inline(always)]
    fn run<D: Dot>(self, _: D) -> usize {
        const { assert!(D::TILE_ROWS <= MAX_TILE_ROWS) }
        D::TILE_ROWS
    }
}

/// One task.
struct Task<'a> {
    w: &'a Matrix,
    bias: &'a [f32],
    activation: Activation,
    part: Part,
    packed: Packed<'a>,
    out: Shareable,
}

impl DotKernel for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn run<D: Dot>(self, d: D) {
        match self.w.bits() {
            Bits::Eight => self.multiply::<D, Eight>(d),
            Bits::Four => self.multiply::<D, Four>(d),
        }
    }
}

impl Task<'_> {
    #[inline(always)]
    fn multiply<D: Dot, W: Weights>(self, d: D) {
        let (outputs, width) = (self.w.rows(), self.w.width());
        let Part { rows: block, panels, after, .. } = self.part;
        let tiles = block.count();
        let next = self.w.next().weights(self.w.place(), after);
        for panel in panels.clone() {
            let column = panel * width;
            let cols = width.min(outputs - column);
            let weights = self.w.panel(panel);
            let this = weights.bytes.as_ptr();
            let next =
                if panel + 1 == panels.end { next.unwrap_or(this) } else { this.wrapping_add(weights.bytes.len()) };
            for (i, rows) in block.iter().enumerate() {
                let height = rows.len();
                // SAFETY: `packed` holds the groups of these rows, all written before; the panel of weights, its scales
                // and its bias are whole. The tile of `out` belongs to this task alone.
                unsafe {
                    let c = self.out.get().add(rows.start * outputs + column);
                    let tile = Tile::<W> {
                        rows: self.packed.panel(rows.clone()).as_ptrs(),
                        weights: this,
                        scales: weights.scales.as_ptr().cast(),
                        bias: self.bias[column..].as_ptr(),
                        blocks: self.w.blocks(),
                        c,
                        c_stride: outputs,
                        cols,
                        // The next panel comes from memory while this one is used, a part during each tile.
                        fetch: next.wrapping_add(i * weights.bytes.len() / tiles),
                        fetch_stride: (W::VECTORS * 4 * D::F::LANES).div_ceil(tiles),
                    };
                    function::<D, W>(height)(d, &tile);
                    let row = |i| std::slice::from_raw_parts_mut(c.add(i * outputs), cols);
                    activate(d.floats(), self.activation, (0..height).map(row));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
