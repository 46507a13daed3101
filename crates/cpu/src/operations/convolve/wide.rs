//! Convolutions of many outputs, as the product they are: positions by the values of their windows.
//!
//! Windows overlap, and channels come last: for each of its rows a window's values lie side by side, and those of the next
//! position begin one pixel later. So a panel of positions is packed from where x lies, and no matrix of all windows is ever made.

use std::ptr;

use mlxt_backend::Result;
use mlxt_backend::operations::shapes::Convolution;

use super::super::Context;
use crate::kernels::gemm::tile::{Fetch, Panels, Tile, function, transpose};
use crate::kernels::gemm::{TileRows, Width};
use crate::simd::{Kernel, MAX_LANES, Simd};
use crate::threads::Shareable;

/// Panels of positions of a task.
const TASK_PANELS: usize = 8;

pub(super) fn convolve(context: Context<'_>, x: &[f32], w: &[f32], c: Convolution, out: &mut [f32]) -> Result<()> {
    let [height, width] = c.output();
    let (tile_rows, panel) = (context.token.run(TileRows), context.token.run(Width));
    let steps = c.window[0] * c.window[1] * c.channels;
    let mut weights = context.arena.take(c.outputs.next_multiple_of(panel) * steps)?;
    pack(w, steps, panel, &mut weights);
    let positions = Panels::new(width, tile_rows);
    let parts = Panels::new(positions.count(), TASK_PANELS);
    let packed_len = (positions.range(0).len() * steps + MAX_LANES).next_multiple_of(MAX_LANES);
    let mut packed = context.arena.take(packed_len.saturating_mul(context.pool.threads()))?;
    let (packed, out) = (Shareable(packed.as_mut_ptr()), Shareable(out.as_mut_ptr()));
    context.pool.run(c.count * height * parts.count(), |slot, claims| {
        // SAFETY: there is room for every thread, and no two have the same slot.
        let packed = unsafe { std::slice::from_raw_parts_mut(packed.get().add(slot * packed_len), packed_len) };
        for task in claims {
            let (line, part) = (task / parts.count(), task % parts.count());
            let (image, row) = (line / height, line % height);
            for positions in parts.range(part).map(|i| positions.range(i)) {
                let x = &x[((image * c.size[0] + row) * c.size[1] + positions.start) * c.channels..];
                // SAFETY: these positions belong to this task.
                let out = unsafe { out.get().add((line * width + positions.start) * c.outputs) };
                context.token.run(Block { x, weights: &weights, c, steps, rows: positions.len(), packed, out });
            }
        }
    });
    Ok(())
}

/// `[output][step]` to `[panel of outputs][step][output]`, zeros behind the last.
fn pack(w: &[f32], steps: usize, panel: usize, out: &mut [f32]) {
    for (w, out) in w.chunks(panel * steps).zip(out.chunks_exact_mut(panel * steps)) {
        for (k, out) in out.chunks_exact_mut(panel).enumerate() {
            let values = w.iter().skip(k).step_by(steps).copied().chain(std::iter::repeat(0.0));
            out.iter_mut().zip(values).for_each(|(out, w)| *out = w);
        }
    }
}

/// A panel of positions of one row.
struct Block<'a> {
    /// From the first value of the first window on.
    x: &'a [f32],
    weights: &'a [f32],
    c: Convolution,
    steps: usize,
    /// Positions.
    rows: usize,
    packed: &'a mut [f32],
    out: *mut f32,
}

impl Kernel for Block<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { x, weights, c, steps, rows, packed, out } = self;
        let across = c.window[1] * c.channels;
        for dy in 0..c.window[0] {
            let from = &x[dy * c.size[1] * c.channels..][..(rows - 1) * c.channels + across];
            // SAFETY: `from` holds the windows of all positions, each `across` long; behind the rows of `packed` written here
            // is a vector to spill into, or room that is written next.
            unsafe {
                let to = packed.as_mut_ptr().add(dy * across * rows);
                transpose(s, from.as_ptr(), c.channels, (rows, across), to, rows);
            }
        }
        let width = 2 * S::LANES;
        for (panel, weights) in weights.chunks_exact(width * steps).enumerate() {
            let tile = Tile {
                a: packed.as_ptr(),
                a_stride: rows,
                b: weights.as_ptr(),
                b_stride: width,
                steps,
                c: out.wrapping_add(panel * width),
                c_stride: c.outputs,
                cols: width.min(c.outputs - panel * width),
                accumulate: false,
                bias: ptr::null(),
                fetch: Fetch::nothing(weights.as_ptr()),
            };
            // SAFETY: `packed` has `rows` values for every step and the panel two vectors; these positions of the result
            // are the caller's.
            unsafe { function::<S>(rows, 2)(s, &tile) };
        }
    }
}
