//! The innermost product: a few rows by two vectors of outputs, over all blocks of inputs.

use super::rows::Pointers;
use super::{BLOCK, Weights};
use crate::kernels::gemm::weight::Weight;
use crate::simd::Simd;
use crate::simd::dot::{Dot, DotKernel};

/// The most rows of a tile on any instruction set.
pub(super) const MAX_TILE_ROWS: usize = 8;

/// `c[i, j] = bias[j] + Σ over blocks of row scale * Σ over groups of weight scale * Σ a b`
pub(super) struct Tile<W: Weights> {
    /// The panel of rows.
    pub(super) rows: Pointers,
    /// `[groups][four inputs][two vectors of outputs][input]`, packed.
    pub(super) weights: *const u8,
    /// `[groups][two vectors of outputs]`
    pub(super) scales: *const W::Scale,
    /// `[two vectors of outputs]`
    pub(super) bias: *const f32,
    pub(super) blocks: usize,
    /// `[rows][columns]`
    pub(super) c: *mut f32,
    pub(super) c_stride: usize,
    /// Columns that are written.
    pub(super) cols: usize,
    /// What to bring nearer meanwhile: as much as the weights of four inputs at each step, steps `fetch_stride` apart. Any
    /// address is fine.
    pub(super) fetch: *const u8,
    pub(super) fetch_stride: usize,
}

/// Computes tiles of one height.
pub(super) type TileFn<D, W> = unsafe fn(D, &Tile<W>);

/// The function for tiles of `rows` rows.
///
/// Each is a function of its own, so that its sums surely get the registers to themselves.
pub(super) fn function<D: Dot, W: Weights>(rows: usize) -> TileFn<D, W> {
    Table::<D, W>::FUNCTIONS[rows - 1]
}

struct Table<D, W>(std::marker::PhantomData<(D, W)>);

impl<D: Dot, W: Weights> Table<D, W> {
    const FUNCTIONS: [TileFn<D, W>; MAX_TILE_ROWS] = [
        tile::<D, W, 1>,
        tile::<D, W, 2>,
        tile::<D, W, 3>,
        tile::<D, W, 4>,
        tile::<D, W, 5>,
        tile::<D, W, 6>,
        tile::<D, W, 7>,
        tile::<D, W, 8>,
    ];
}

/// # Safety
/// The panel holds `ROWS` rows of `blocks` blocks; for each group of these `GROUP / 4 * VECTORS` vectors of weights and two of
/// scales can be read, and two of bias; `cols` values, at least 1, of `ROWS` rows of `c` can be written, and by nobody else.
unsafe fn tile<D: Dot, W: Weights, const ROWS: usize>(d: D, t: &Tile<W>) {
    d.vectorize(Height::<W, ROWS>(t));
}

/// A tile whose height the compiler knows.
struct Height<'a, W: Weights, const ROWS: usize>(&'a Tile<W>);

impl<W: Weights, const ROWS: usize> DotKernel for Height<'_, W, ROWS> {
    type Output = ();

    #[inline(always)]
    fn run<D: Dot>(self, d: D) {
        let (t, s, lanes) = (self.0, d.floats(), D::F::LANES);
        let (groups, steps) = (BLOCK / W::GROUP, W::GROUP / 4);
        let step_bytes = W::VECTORS * 4 * lanes;
        let (mut weights, mut scales, mut fetch) = (t.weights, t.scales, t.fetch);
        // SAFETY: the caller of `tile` promised two vectors.
        let bias = unsafe { [s.load(t.bias), s.load(t.bias.add(lanes))] };
        // Written at the end; the lines may come from far away until then.
        for (i, v) in (0..ROWS).flat_map(|i| [(i, 0), (i, 1)]) {
            s.prefetch(t.c.wrapping_add(i * t.c_stride + v * lanes));
        }
        let mut out = [bias; ROWS];
        for b in 0..t.blocks {
            let bytes = t.rows.bytes.wrapping_add(b * ROWS * BLOCK);
            let about = t.rows.about.wrapping_add(b * ROWS);
            let mut block = [[s.splat(0.0); 2]; ROWS];
            for g in 0..groups {
                let mut sums = [[d.splat(0); 2]; ROWS];
                for (i, sums) in sums.iter_mut().enumerate() {
                    // SAFETY: the caller of `tile` promised the block of rows.
                    *sums = [d.splat(unsafe { (*about.add(i)).starts[g] }); 2];
                }
                for step in 0..steps {
                    // SAFETY: the caller of `tile` promised the group of weights.
                    let columns = unsafe { W::load(d, weights) };
                    weights = weights.wrapping_add(step_bytes);
                    for v in 0..W::VECTORS {
                        s.prefetch(fetch.wrapping_add(v * 4 * lanes).cast());
                    }
                    fetch = fetch.wrapping_add(t.fetch_stride);
                    for (i, sums) in sums.iter_mut().enumerate() {
                        // SAFETY: as for `about`.
                        let row = unsafe { d.row(bytes.add(i * BLOCK + g * W::GROUP + 4 * step)) };
                        for (sum, column) in sums.iter_mut().zip(columns) {
                            *sum = d.dot(*sum, column, row);
                        }
                    }
                }
                // SAFETY: the caller of `tile` promised two vectors for each group.
                let scale = unsafe { [W::Scale::load(s, scales), W::Scale::load(s, scales.wrapping_add(lanes))] };
                scales = scales.wrapping_add(2 * lanes);
                for (block, sums) in block.iter_mut().zip(sums) {
                    for (v, (block, sum)) in block.iter_mut().zip(sums).enumerate() {
                        // With one group a product by itself: nothing is added to.
                        let sum = d.to_f32(sum);
                        *block = if groups == 1 { s.mul(sum, scale[v]) } else { s.mul_add(sum, scale[v], *block) };
                    }
                }
            }
            for (i, (out, block)) in out.iter_mut().zip(block).enumerate() {
                // SAFETY: the caller of `tile` promised the block of rows.
                let scale = s.splat(unsafe { (*about.add(i)).scale });
                for (out, block) in out.iter_mut().zip(block) {
                    *out = s.mul_add(block, scale, *out);
                }
            }
        }
        for (i, out) in out.into_iter().enumerate() {
            for (v, value) in out.into_iter().enumerate() {
                let Some(cols) = t.columns(v, lanes) else { continue };
                // SAFETY: the caller of `tile` promised `t.cols` columns of `c`.
                unsafe {
                    let c = t.c.add(i * t.c_stride + v * lanes);
                    if cols >= lanes { s.store(c, value) } else { s.store_first(c, value, cols) }
                }
            }
        }
    }
}

impl<W: Weights> Tile<W> {
    /// The columns that are written from vector `v` on, if there are any.
    #[inline(always)]
    fn columns(&self, v: usize, lanes: usize) -> Option<usize> {
        self.cols.checked_sub(v * lanes).filter(|&n| n > 0)
    }
}
