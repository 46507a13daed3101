//! Some rows times all columns, by one thread: rows are packed tile by tile, and each tile meets all panels of columns.

use std::ops::Range;
use std::ptr;

use mlxt_backend::Activation;
use mlxt_backend::operations::shapes::Product;

use super::super::copy::write;
use super::{NEAR, Sizes, TERMS};
use crate::kernels::activate::activate;
use crate::kernels::gemm::tile::{Fetch, MAX_TILE_ROWS, Panels, Tile, function, transpose};
use crate::simd::{Kernel, MAX_LANES, Simd};

/// What happens to a sum when it is complete.
#[derive(Clone, Copy)]
pub(super) struct Finish<'a> {
    /// Whole panels.
    pub(super) bias: Option<&'a [f32]>,
    pub(super) activation: Activation,
    pub(super) far: bool,
}

/// Columns in panels: value `j` of panel `i` at term `k` is at `start[i * panel + k * step + j]`.
#[derive(Clone, Copy)]
pub(super) struct Right<'a> {
    values: &'a [f32],
    panel: usize,
    step: usize,
}

impl<'a> Right<'a> {
    pub(super) fn as_it_lies(b: &'a [f32], p: Product, sizes: Sizes) -> Self {
        Self { values: b, panel: sizes.width, step: p.cols }
    }

    pub(super) fn packed(values: &'a [f32], p: Product, sizes: Sizes) -> Self {
        Self { values, panel: p.inner * sizes.width, step: sizes.width }
    }
}

/// Some columns of `[terms, cols]` side by side, zeros where there are no more.
pub(super) struct PackPanel<'a> {
    pub(super) b: &'a [f32],
    pub(super) cols: usize,
    pub(super) first: usize,
    /// `[terms][width]`
    pub(super) out: &'a mut [f32],
}

impl Kernel for PackPanel<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let width = (2 * S::LANES).min(self.cols - self.first);
        for (out, row) in self.out.chunks_exact_mut(2 * S::LANES).zip(self.b.chunks_exact(self.cols)) {
            let row = &row[self.first..][..width];
            let (low, high) = row.split_at(width.min(S::LANES));
            let (to_low, to_high) = out.split_at_mut(S::LANES);
            s.put(to_low, s.get(low));
            s.put(to_high, s.get(high));
        }
    }
}

/// Some rows times all columns.
pub(super) struct Block<'a> {
    pub(super) p: Product,
    /// From the first row on.
    pub(super) a: &'a [f32],
    pub(super) rows: usize,
    /// Those of the sum that are added.
    pub(super) terms: Range<usize>,
    pub(super) right: Right<'a>,
    pub(super) finish: Finish<'a>,
    /// Room for the rows, of one block of terms, and a vector.
    pub(super) scratch: &'a mut [f32],
    /// The first row.
    pub(super) out: *mut f32,
}

impl Kernel for Block<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let width = 2 * S::LANES;
        let tiles = Panels::new(self.rows, S::TILE_ROWS);
        let blocks = Panels::new(self.terms.len(), TERMS);
        let panels = self.p.cols.div_ceil(width);
        // What is used again and again should be near: the columns, if all fit beside a tile's rows; else the rows.
        let columns_near = self.terms.len().min(TERMS) * self.p.cols <= NEAR;
        let packed = self.scratch.as_mut_ptr();
        let mut near = [0.0; MAX_TILE_ROWS * 2 * MAX_LANES];
        for block in 0..blocks.count() {
            let steps = blocks.range(block);
            let steps = self.terms.start + steps.start..self.terms.start + steps.end;
            let multiply = Multiply {
                right: self.right,
                steps: steps.clone(),
                accumulate: block > 0,
                finish: (block + 1 == blocks.count()).then_some(self.finish),
                stream: self.finish.far && blocks.count() == 1,
                // Rows are read once, a tile's from far apart: they come late unless they are asked for early. With all of
                // their terms in one block, those of the next tile lie behind those of this one.
                next_rows: (columns_near && blocks.count() == 1).then_some((self.a.as_ptr(), self.p.inner)),
                cols: self.p.cols,
                out: self.out,
                tiles: tiles.count(),
            };
            let (outer, inner) = if columns_near { (tiles.count(), panels) } else { (panels, tiles.count()) };
            for (i, j) in (0..outer).flat_map(|i| (0..inner).map(move |j| (i, j))) {
                let (tile, panel) = if columns_near { (i, j) } else { (j, i) };
                let rows = tiles.range(tile);
                let packed = packed.wrapping_add(rows.start * steps.len());
                if panel == 0 {
                    // SAFETY: the rows lie in `a`. The tile before ends where this begins, and what it spilled there
                    // is written over now; the last has a vector to spill into.
                    unsafe {
                        let src = self.a[rows.start * self.p.inner + steps.start..].as_ptr();
                        transpose(s, src, self.p.inner, (rows.len(), steps.len()), packed, rows.len());
                    }
                }
                // SAFETY: the rows have been packed, as [tile][step][row]; their places in `out` are this task's.
                unsafe { multiply.tile(s, (tile, &rows), panel, packed, &mut near) };
            }
        }
        if self.finish.far {
            s.fence();
        }
    }
}

/// What the tiles of one block of terms share.
struct Multiply<'a> {
    right: Right<'a>,
    steps: Range<usize>,
    accumulate: bool,
    finish: Option<Finish<'a>>,
    stream: bool,
    /// Where rows begin and how far apart they are, if they are to be brought nearer meanwhile, and not columns.
    next_rows: Option<(*const f32, usize)>,
    cols: usize,
    out: *mut f32,
    tiles: usize,
}

impl Multiply<'_> {
    /// Tile `i`, `rows`, of a panel of columns.
    ///
    /// # Safety
    /// `a` holds the rows for each step, `near` has room for a tile, and the rows of `out` can be written, by nobody else.
    #[inline(always)]
    unsafe fn tile<S: Simd>(
        &self,
        s: S,
        (i, rows): (usize, &Range<usize>),
        panel: usize,
        a: *const f32,
        near: &mut [f32],
    ) {
        let width = 2 * S::LANES;
        let (column, height) = (panel * width, rows.len());
        let cols = width.min(self.cols - column);
        let b = self.right.values[panel * self.right.panel + self.steps.start * self.right.step..].as_ptr();
        // SAFETY: the caller's promise.
        let to = unsafe { self.out.add(rows.start * self.cols + column) };
        let (c, c_stride) = if self.stream { (near.as_mut_ptr(), width) } else { (to, self.cols) };
        let bias = self.finish.and_then(|f| f.bias).map_or(ptr::null(), |bias| bias[column..].as_ptr());
        let (fetch, fetch_stride) = if let Some((rows_from, stride)) = self.next_rows {
            // A part of the next tile's rows during each panel.
            let part = (height * stride).div_ceil(self.cols.div_ceil(width));
            (rows_from.wrapping_add(rows.end * stride + panel * part), part.div_ceil(self.steps.len()))
        } else {
            // The next panel, a part during each tile.
            let part = i * self.steps.len() * width / self.tiles;
            (b.wrapping_add(self.right.panel + part), width.div_ceil(self.tiles))
        };
        let tile = Tile {
            a,
            a_stride: height,
            b,
            b_stride: self.right.step,
            steps: self.steps.len(),
            c,
            c_stride,
            cols,
            accumulate: self.accumulate,
            bias,
            fetch: Fetch::two_vectors::<S, f32>(fetch, fetch_stride),
        };
        // SAFETY: the caller's promise for `a` and `out`; panels are whole, and so is the bias.
        unsafe {
            function::<S>(height, 2)(s, &tile);
            if let Some(finish) = self.finish {
                activate(
                    s,
                    finish.activation,
                    (0..height).map(|r| std::slice::from_raw_parts_mut(c.add(r * c_stride), cols)),
                );
            }
            if self.stream {
                for r in 0..height {
                    let row = std::slice::from_raw_parts_mut(to.add(r * self.cols), cols);
                    write(s, &near[r * width..][..cols], row, true, |x| x);
                }
            }
        }
    }
}
