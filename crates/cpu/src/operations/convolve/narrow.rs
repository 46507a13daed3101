//! Convolutions of few outputs.
//!
//! Vectors run along the line, not the outputs: rows of x are turned
//! about to `[channel][position]` as they are needed, a few at a time in a ring, and a tile of sums, `[output]` by two
//! vectors of positions, stays in registers over the whole window. Nothing is copied for each place of the window.

use std::ops::Range;

use mlxt_backend::Result;
use mlxt_backend::operations::shapes::Convolution;

use super::super::copy::write;
use super::super::{Context, FAR};
use crate::kernels::gemm::TileRows;
use crate::kernels::gemm::tile::{MAX_TILE_ROWS, Panels, transpose};
use crate::simd::{Kernel, MAX_LANES, Simd};
use crate::threads::Shareable;

/// Positions of a task: longer lines are cut.
const POSITIONS: usize = 1024;

pub(super) fn convolve(context: Context<'_>, x: &[f32], w: &[f32], c: Convolution, out: &mut [f32]) -> Result<()> {
    let [height, width] = c.output();
    let far = out.len() >= FAR;
    let tile_rows = context.token.run(TileRows);
    let panels = Panels::new(c.outputs, tile_rows);
    let mut weights = context.arena.take(w.len())?;
    pack(w, c, panels, &mut weights);

    let columns = Panels::new(width, POSITIONS);
    // Enough tasks for all threads, but of several rows where that can be: the first rows of each are turned about once
    // more than needed.
    let wanted = (4 * context.pool.threads()).div_ceil(c.count * columns.count());
    let rows = Panels::new(height, height.div_ceil(wanted));
    let sizes = Lines::new(c, columns.range(0).len());
    let scratch_len = sizes.total(c);
    let mut scratch = context.arena.take(scratch_len.saturating_mul(context.pool.threads()))?;
    let (scratch, out) = (Shareable(scratch.as_mut_ptr()), Shareable(out.as_mut_ptr()));
    context.pool.run(c.count * rows.count() * columns.count(), |slot, claims| {
        // SAFETY: there is room for every thread, and no two have the same slot.
        let scratch = unsafe { std::slice::from_raw_parts_mut(scratch.get().add(slot * scratch_len), scratch_len) };
        for task in claims {
            let (image, rest) = (task / (rows.count() * columns.count()), task % (rows.count() * columns.count()));
            let (row, column) = (rest / columns.count(), rest % columns.count());
            let size = c.size[0] * c.size[1] * c.channels;
            let block = Block {
                x: &x[image * size..][..size],
                weights: &weights,
                c,
                panels,
                rows: rows.range(row),
                columns: columns.range(column),
                sizes,
                scratch,
                // SAFETY: images of the result lie one after another.
                out: unsafe { out.get().add(image * height * width * c.outputs) },
                far,
            };
            context.token.run(block);
        }
    });
    Ok(())
}

/// Weights as tiles read them: `[panel of outputs][dy][dx][channel][output]`.
fn pack(w: &[f32], c: Convolution, panels: Panels, out: &mut [f32]) {
    let window = c.window[0] * c.window[1] * c.channels;
    for panel in (0..panels.count()).map(|i| panels.range(i)) {
        let out = &mut out[panel.start * window..panel.end * window];
        for (k, out) in out.chunks_exact_mut(panel.len()).enumerate() {
            out.iter_mut().zip(panel.clone()).for_each(|(out, o)| *out = w[o * window + k]);
        }
    }
}

/// Sizes of a thread's working memory.
#[derive(Clone, Copy)]
struct Lines {
    /// Values of one channel of one row: its positions, and what whole tiles and turned blocks reach beyond.
    line: usize,
    /// All channels of one row.
    row: usize,
}

impl Lines {
    fn new(c: Convolution, positions: usize) -> Self {
        let line = (positions + c.window[1] + 3 * MAX_LANES).next_multiple_of(MAX_LANES);
        Self { line, row: line * c.channels + MAX_LANES }
    }

    /// Values of a tile of positions of all outputs, and a vector to spill into.
    fn tile(c: Convolution) -> usize {
        2 * MAX_LANES * c.outputs + MAX_LANES
    }

    fn total(self, c: Convolution) -> usize {
        (self.row * c.window[0] + 2 * Self::tile(c)).next_multiple_of(MAX_LANES)
    }
}

/// Some rows of one image.
struct Block<'a> {
    x: &'a [f32],
    weights: &'a [f32],
    c: Convolution,
    panels: Panels,
    /// Rows and columns of the result.
    rows: Range<usize>,
    columns: Range<usize>,
    sizes: Lines,
    scratch: &'a mut [f32],
    /// The image's result.
    out: *mut f32,
    far: bool,
}

impl Kernel for Block<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { x, weights, c, panels, rows, columns, sizes, scratch, out, far } = self;
        let [window, across] = c.window;
        let (ring, rest) = scratch.split_at_mut(sizes.row * window);
        let (sums, turned) = rest.split_at_mut(Lines::tile(c));
        let read = columns.len() + across - 1;
        let width = c.output()[1];
        let mut ready = rows.start;
        for row in rows {
            for r in ready..row + window {
                let from = &x[(r * c.size[1] + columns.start) * c.channels..][..read * c.channels];
                turn(s, from, c.channels, &mut ring[r % window * sizes.row..][..sizes.row], sizes.line);
            }
            ready = row + window;
            for first in (0..columns.len()).step_by(2 * S::LANES) {
                let count = (2 * S::LANES).min(columns.len() - first);
                for panel in (0..panels.count()).map(|i| panels.range(i)) {
                    let tile = Tile {
                        weights: weights[panel.start * window * across * c.channels..].as_ptr(),
                        x: ring[first..].as_ptr(),
                        row: sizes.row,
                        first: row % window,
                        line: sizes.line,
                        window: c.window,
                        channels: c.channels,
                        out: sums[panel.start * 2 * S::LANES..].as_mut_ptr(),
                    };
                    // SAFETY: the ring holds the window's rows, each line long enough for whole tiles behind the last
                    // position; `sums` has two vectors for each output.
                    unsafe { Table::<S>::FUNCTIONS[panel.len() - 1](s, &tile) };
                }
                // SAFETY: `sums` is `[outputs][2 * LANES]`; `turned` has room for all positions and a vector.
                unsafe {
                    transpose(
                        s,
                        sums.as_ptr(),
                        2 * S::LANES,
                        (c.outputs, 2 * S::LANES),
                        turned.as_mut_ptr(),
                        c.outputs,
                    );
                }
                let at = (row * width + columns.start + first) * c.outputs;
                // SAFETY: these positions of the row belong to this task.
                let to = unsafe { std::slice::from_raw_parts_mut(out.add(at), count * c.outputs) };
                write(s, &turned[..count * c.outputs], to, far, |x| x);
            }
        }
        if far {
            s.fence();
        }
    }
}

/// `[position][channel]` to `[channel][position]`, lines `line` apart.
#[inline(always)]
fn turn<S: Simd>(s: S, from: &[f32], channels: usize, to: &mut [f32], line: usize) {
    match channels {
        1 => to[..from.len()].copy_from_slice(from),
        // A vector of three values would be mostly empty.
        3 => {
            let (a, rest) = to.split_at_mut(line);
            let (b, d) = rest.split_at_mut(line);
            for (((x, a), b), d) in from.as_chunks::<3>().0.iter().zip(a).zip(b).zip(d) {
                [*a, *b, *d] = *x;
            }
        }
        _ => {
            let positions = from.len() / channels;
            // SAFETY: `from` is `positions` by `channels`; lines are longer than that, and a vector follows the last.
            unsafe { transpose(s, from.as_ptr(), channels, (positions, channels), to.as_mut_ptr(), line) };
        }
    }
}

/// `out[o][p] = Σ x[row + dy][channel][p + dx] weights[dy][dx][channel][o]`, for two vectors of positions.
struct Tile {
    /// `[dy][dx][channel][output]`
    weights: *const f32,
    /// A ring of as many rows as the window has, at the first position.
    x: *const f32,
    row: usize,
    /// The row of the ring that is the window's first.
    first: usize,
    line: usize,
    window: [usize; 2],
    channels: usize,
    /// `[output][2 * LANES]`
    out: *mut f32,
}

type TileFn<S> = unsafe fn(S, &Tile);

struct Table<S>(std::marker::PhantomData<S>);

impl<S: Simd> Table<S> {
    const FUNCTIONS: [TileFn<S>; MAX_TILE_ROWS] = [
        tile::<S, 1>,
        tile::<S, 2>,
        tile::<S, 3>,
        tile::<S, 4>,
        tile::<S, 5>,
        tile::<S, 6>,
        tile::<S, 7>,
        tile::<S, 8>,
        tile::<S, 9>,
        tile::<S, 10>,
        tile::<S, 11>,
        tile::<S, 12>,
        tile::<S, 13>,
        tile::<S, 14>,
    ];
}

/// # Safety
/// The window's rows can be read, two vectors at each of its places; `ROWS` times two vectors of `out` be written.
unsafe fn tile<S: Simd, const ROWS: usize>(s: S, t: &Tile) {
    s.vectorize(Shape::<ROWS>(t));
}

/// A tile whose number of outputs the compiler knows.
struct Shape<'a, const ROWS: usize>(&'a Tile);

impl<const ROWS: usize> Kernel for Shape<'_, ROWS> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let t = self.0;
        let mut sums = [[s.splat(0.0); 2]; ROWS];
        let mut weights = t.weights;
        for dy in 0..t.window[0] {
            let row = t.x.wrapping_add((t.first + dy) % t.window[0] * t.row);
            for dx in 0..t.window[1] {
                let mut x = row.wrapping_add(dx);
                for _ in 0..t.channels {
                    // SAFETY: the caller of `tile` promised this place of the window.
                    let positions = unsafe { [s.load(x), s.load(x.add(S::LANES))] };
                    for (i, sums) in sums.iter_mut().enumerate() {
                        // SAFETY: as above.
                        let weight = s.splat(unsafe { *weights.add(i) });
                        for (sum, &x) in sums.iter_mut().zip(&positions) {
                            *sum = s.mul_add(weight, x, *sum);
                        }
                    }
                    weights = weights.wrapping_add(ROWS);
                    x = x.wrapping_add(t.line);
                }
            }
        }
        for (i, sums) in sums.into_iter().enumerate() {
            for (v, sum) in sums.into_iter().enumerate() {
                // SAFETY: the caller of `tile` promised two vectors of each row.
                unsafe { s.store(t.out.add((2 * i + v) * S::LANES), sum) };
            }
        }
    }
}
