//! Products of matrices that arrive as they lie, unpacked: `activation(a b + bias)`.
//!
//! The register tiles are those of the linear layers, and so is the order of work: rows are packed tile by tile, columns
//! in panels of two vectors. What differs is that nothing is prepared: columns are packed inside the call, unless they
//! already lie as a panel does. Four shapes have ways of their own: one column (dot products), one row (a sum of rows),
//! many small products (one task each), and a sum far longer than its result (cut, and the parts added).

use std::ops::Range;
use std::ptr;

use mlxt_backend::operations::shapes::Product;
use mlxt_backend::{Activation, Result};

use super::copy::write;
use super::{Context, FAR};
use crate::kernels::activate::activate;
use crate::kernels::gemm::tile::{MAX_TILE_ROWS, Panels, Tile, function, transpose};
use crate::simd::{Kernel, MAX_LANES, Simd};
use crate::threads::Shareable;

/// Terms summed in registers before the sums go to memory.
const TERMS: usize = 1024;
/// Values of packed rows, or of packed columns, that stay in the second-level cache.
const NEAR: usize = 96 << 10;
/// Terms of each part of a sum that is cut.
const PART: usize = 8192;

/// `out = activation(a b + bias)`
///
/// # Errors
/// Out of memory for packed operands.
pub(crate) fn multiply(
    context: Context<'_>,
    [a, b]: [&[f32]; 2],
    bias: Option<&[f32]>,
    activation: Activation,
    p: Product,
    out: &mut [f32],
) -> Result<()> {
    if p.cols == 1 {
        context.pool.rows(out, 1, p.inner.div_ceil(4), |first, out| {
            context.token.run(Dots { a, b, bias, activation, p, first, out });
        });
        return Ok(());
    }
    if p.rows == 1 {
        row_by_matrix(context, [a, b], bias, activation, p, out);
        return Ok(());
    }
    let sizes = context.token.run(Sizes::default());
    let bias = match bias {
        Some(bias) => {
            let mut padded = context.arena.take(p.cols.next_multiple_of(sizes.width))?;
            padded.fill(0.0);
            padded[..p.cols].copy_from_slice(bias);
            Some(padded)
        }
        None => None,
    };
    let finish = Finish { bias: bias.as_deref(), activation, far: out.len() >= FAR };
    let one = p.inner * p.cols;
    if p.batch >= 4 * context.pool.threads() && one <= 8 * NEAR {
        return many(context, [a, b], finish, p, sizes, out);
    }
    let items = a.chunks_exact(p.rows * p.inner).zip(b.chunks_exact(one)).zip(out.chunks_exact_mut(p.rows * p.cols));
    for ((a, b), out) in items {
        let small = p.rows * p.cols <= NEAR;
        if small && p.inner >= 4 * PART {
            cut(context, [a, b], finish, p, sizes, out)?;
        } else {
            single(context, [a, b], finish, p, sizes, out)?;
        }
    }
    Ok(())
}

/// What happens to a sum when it is complete.
#[derive(Clone, Copy)]
struct Finish<'a> {
    /// Whole panels.
    bias: Option<&'a [f32]>,
    activation: Activation,
    far: bool,
}

/// Sizes of the instruction set.
#[derive(Clone, Copy, Default)]
struct Sizes {
    /// Columns of a panel.
    width: usize,
    /// Rows of a tile.
    height: usize,
}

impl Kernel for Sizes {
    type Output = Self;

    #[inline(always)]
    fn run<S: Simd>(mut self, _: S) -> Self {
        (self.width, self.height) = (2 * S::LANES, S::TILE_ROWS);
        self
    }
}

impl Sizes {
    /// Whether columns can be read as they lie: whole panels, and few, for rows at a distance of a page would all meet
    /// in the same lines of the nearest cache.
    fn lies_as_panels(self, p: Product) -> bool {
        p.cols.is_multiple_of(self.width) && p.cols <= 2 * self.width
    }

    /// Values of all panels.
    fn packed(self, p: Product) -> usize {
        p.inner.saturating_mul(p.cols.next_multiple_of(self.width))
    }

    /// Values of packed rows, and a vector to spill into.
    fn packed_rows(rows: usize, p: Product) -> usize {
        rows * p.inner.min(TERMS) + MAX_LANES
    }
}

/// Columns in panels: value `j` of panel `i` at term `k` is at `start[i * panel + k * step + j]`.
#[derive(Clone, Copy)]
struct Right<'a> {
    values: &'a [f32],
    panel: usize,
    step: usize,
}

impl<'a> Right<'a> {
    fn as_it_lies(b: &'a [f32], p: Product, sizes: Sizes) -> Self {
        Self { values: b, panel: sizes.width, step: p.cols }
    }

    fn packed(values: &'a [f32], p: Product, sizes: Sizes) -> Self {
        Self { values, panel: p.inner * sizes.width, step: sizes.width }
    }
}

/// One product by all threads.
fn single(
    context: Context<'_>,
    [a, b]: [&[f32]; 2],
    finish: Finish<'_>,
    p: Product,
    sizes: Sizes,
    out: &mut [f32],
) -> Result<()> {
    let lies = sizes.lies_as_panels(p);
    let mut packed = context.arena.take(if lies { 1 } else { sizes.packed(p) })?;
    let right = if lies {
        Right::as_it_lies(b, p, sizes)
    } else {
        let panels = Shareable(packed.as_mut_ptr());
        let each = p.inner * sizes.width;
        context.each(p.cols.div_ceil(sizes.width), p.inner * p.cols, |i| {
            // SAFETY: each panel is claimed once, and there is room for all.
            let out = unsafe { std::slice::from_raw_parts_mut(panels.get().add(i * each), each) };
            context.token.run(PackPanel { b, cols: p.cols, first: i * sizes.width, out });
        });
        Right::packed(&packed, p, sizes)
    };
    let wanted = (4 * context.pool.threads()).min(p.rows * p.inner * p.cols / (1 << 18) + 1);
    let largest = (NEAR / p.inner.min(TERMS)).min(p.rows.div_ceil(wanted)).next_multiple_of(sizes.height);
    let blocks = Panels::new(p.rows, largest.max(sizes.height));
    let scratch_len = Sizes::packed_rows(blocks.range(0).len(), p);
    let mut scratch = context.arena.take(scratch_len * context.pool.threads())?;
    let (scratch, out) = (Shareable(scratch.as_mut_ptr()), Shareable(out.as_mut_ptr()));
    context.pool.run(blocks.count(), |slot, claims| {
        // SAFETY: there is room for every thread, and no two have the same slot.
        let scratch = unsafe { std::slice::from_raw_parts_mut(scratch.get().add(slot * scratch_len), scratch_len) };
        for i in claims {
            let rows = blocks.range(i);
            // SAFETY: the block's rows of `out` belong to this task.
            let out = unsafe { out.get().add(rows.start * p.cols) };
            let a = &a[rows.start * p.inner..];
            let block = Block {
                a,
                a_stride: p.inner,
                rows: rows.len(),
                terms: 0..p.inner,
                right,
                cols: p.cols,
                finish,
                scratch,
                out,
            };
            context.token.run(block);
        }
    });
    Ok(())
}

/// Many products, each by one thread.
fn many(
    context: Context<'_>,
    [a, b]: [&[f32]; 2],
    finish: Finish<'_>,
    p: Product,
    sizes: Sizes,
    out: &mut [f32],
) -> Result<()> {
    let lies = sizes.lies_as_panels(p);
    let panels_len = if lies { 0 } else { sizes.packed(p) };
    let rows = Panels::new(p.rows, (NEAR / p.inner.min(TERMS)).next_multiple_of(sizes.height));
    let rows_len = Sizes::packed_rows(rows.range(0).len(), p);
    let scratch_len = (panels_len + rows_len).next_multiple_of(MAX_LANES);
    let mut scratch = context.arena.take(scratch_len * context.pool.threads())?;
    let (scratch, out) = (Shareable(scratch.as_mut_ptr()), Shareable(out.as_mut_ptr()));
    context.pool.run(p.batch, |slot, claims| {
        // SAFETY: there is room for every thread, and no two have the same slot.
        let scratch = unsafe { std::slice::from_raw_parts_mut(scratch.get().add(slot * scratch_len), scratch_len) };
        let (panels, scratch) = scratch.split_at_mut(panels_len);
        for item in claims {
            let b = &b[item * p.inner * p.cols..][..p.inner * p.cols];
            for (i, out) in panels.chunks_exact_mut(p.inner * sizes.width).enumerate() {
                context.token.run(PackPanel { b, cols: p.cols, first: i * sizes.width, out });
            }
            let right = if lies { Right::as_it_lies(b, p, sizes) } else { Right::packed(panels, p, sizes) };
            for rows in (0..rows.count()).map(|i| rows.range(i)) {
                let first = item * p.rows + rows.start;
                // SAFETY: this product's rows of `out` belong to this task.
                let out = unsafe { out.get().add(first * p.cols) };
                let a = &a[first * p.inner..];
                let block = Block {
                    a,
                    a_stride: p.inner,
                    rows: rows.len(),
                    terms: 0..p.inner,
                    right,
                    cols: p.cols,
                    finish,
                    scratch,
                    out,
                };
                context.token.run(block);
            }
        }
    });
    Ok(())
}

/// A product whose sums are cut into parts, one task each; the parts are added in order.
fn cut(
    context: Context<'_>,
    [a, b]: [&[f32]; 2],
    finish: Finish<'_>,
    p: Product,
    sizes: Sizes,
    out: &mut [f32],
) -> Result<()> {
    let lies = sizes.lies_as_panels(p);
    let mut packed = context.arena.take(if lies { 1 } else { sizes.packed(p) })?;
    if !lies {
        for (i, out) in packed.chunks_exact_mut(p.inner * sizes.width).enumerate() {
            context.token.run(PackPanel { b, cols: p.cols, first: i * sizes.width, out });
        }
    }
    let right = if lies { Right::as_it_lies(b, p, sizes) } else { Right::packed(&packed, p, sizes) };
    let parts = Panels::new(p.inner, p.inner.div_ceil(64).max(PART));
    let rows_len = Sizes::packed_rows(p.rows, p);
    let size = p.rows * p.cols;
    let mut sums = context.arena.take(size * parts.count())?;
    let mut scratch = context.arena.take(rows_len * context.pool.threads())?;
    let (to, scratch) = (Shareable(sums.as_mut_ptr()), Shareable(scratch.as_mut_ptr()));
    let unfinished = Finish { bias: None, activation: Activation::Identity, far: false };
    context.pool.run(parts.count(), |slot, claims| {
        // SAFETY: there is room for every thread, and no two have the same slot.
        let scratch = unsafe { std::slice::from_raw_parts_mut(scratch.get().add(slot * rows_len), rows_len) };
        for part in claims {
            let terms = parts.range(part);
            // SAFETY: each part has its own sums, and is claimed once.
            let out = unsafe { to.get().add(part * size) };
            let block = Block {
                a,
                a_stride: p.inner,
                rows: p.rows,
                terms,
                right,
                cols: p.cols,
                finish: unfinished,
                scratch,
                out,
            };
            context.token.run(block);
        }
    });
    context.pool.rows(out, p.cols, parts.count() * p.cols / 4, |first, out| {
        let range = first * p.cols..first * p.cols + out.len();
        context.token.run(AddParts { sums: &sums, size, range, finish, cols: p.cols, out });
    });
    Ok(())
}

/// `out = activation(Σ parts + bias)`
struct AddParts<'a> {
    sums: &'a [f32],
    size: usize,
    range: Range<usize>,
    finish: Finish<'a>,
    cols: usize,
    out: &'a mut [f32],
}

impl Kernel for AddParts<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        match self.finish.bias {
            Some(bias) => self.out.chunks_exact_mut(self.cols).for_each(|row| row.copy_from_slice(&bias[..self.cols])),
            None => self.out.fill(0.0),
        }
        for part in self.sums.chunks_exact(self.size) {
            for (out, x) in self.out.chunks_mut(S::LANES).zip(part[self.range.clone()].chunks(S::LANES)) {
                s.put(out, s.add(s.get(out), s.get(x)));
            }
        }
        activate(s, self.finish.activation, std::iter::once(self.out));
    }
}

/// Some columns of `[terms, cols]` side by side, zeros where there are no more.
struct PackPanel<'a> {
    b: &'a [f32],
    cols: usize,
    first: usize,
    /// `[terms][width]`
    out: &'a mut [f32],
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
struct Block<'a> {
    /// From the first row on, rows `a_stride` apart.
    a: &'a [f32],
    a_stride: usize,
    rows: usize,
    /// Those of the sum that are added.
    terms: Range<usize>,
    right: Right<'a>,
    cols: usize,
    finish: Finish<'a>,
    /// Room for the rows, of one block of terms, and a vector.
    scratch: &'a mut [f32],
    /// The first row, rows `cols` apart.
    out: *mut f32,
}

impl Kernel for Block<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let width = 2 * S::LANES;
        let tiles = Panels::new(self.rows, S::TILE_ROWS);
        let blocks = Panels::new(self.terms.len(), TERMS);
        let panels = self.cols.div_ceil(width);
        // What is used again and again should be near: the columns, if all fit beside a tile's rows; else the rows.
        let columns_near = self.terms.len().min(TERMS) * self.cols <= NEAR;
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
                next_rows: (columns_near && blocks.count() == 1).then_some((self.a.as_ptr(), self.a_stride)),
                cols: self.cols,
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
                        let src = self.a[rows.start * self.a_stride + steps.start..].as_ptr();
                        transpose(s, src, self.a_stride, (rows.len(), steps.len()), packed, rows.len());
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
            fetch,
            fetch_stride,
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

/// Dot products: one column.
struct Dots<'a> {
    a: &'a [f32],
    b: &'a [f32],
    bias: Option<&'a [f32]>,
    activation: Activation,
    p: Product,
    /// The first row, counted over all products.
    first: usize,
    out: &'a mut [f32],
}

impl Kernel for Dots<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Product { rows, inner, .. } = self.p;
        let bias = self.bias.map_or(0.0, |bias| bias[0]);
        let mut done = 0;
        while done < self.out.len() {
            let row = self.first + done;
            let (a, b) = (&self.a[row * inner..], &self.b[row / rows * inner..][..inner]);
            // Rows that share the column share its way from the cache.
            let together = (self.out.len() - done).min(rows - row % rows);
            let out = &mut self.out[done..];
            done += if together >= 4 { dots::<S, 4>(s, a, b, bias, out) } else { dots::<S, 1>(s, a, b, bias, out) };
        }
        activate(s, self.activation, std::iter::once(self.out));
    }
}

/// The products of `ROWS` rows with one column; gives their number.
#[inline(always)]
fn dots<S: Simd, const ROWS: usize>(s: S, a: &[f32], b: &[f32], bias: f32, out: &mut [f32]) -> usize {
    let mut sums = [[s.splat(0.0); 2]; ROWS];
    for (i, column) in b.chunks(2 * S::LANES).enumerate() {
        for (v, column) in column.chunks(S::LANES).enumerate() {
            let at = (2 * i + v) * S::LANES;
            let x = s.get(column);
            for (r, sums) in sums.iter_mut().enumerate() {
                sums[v] = s.mul_add(s.get(&a[r * b.len() + at..][..column.len()]), x, sums[v]);
            }
        }
    }
    for (out, sums) in out.iter_mut().zip(sums) {
        *out = s.sum(s.add(sums[0], sums[1])) + bias;
    }
    ROWS
}

/// Vectors of columns whose sums are in registers at once.
const VECTORS: usize = 8;

/// One row times a matrix, for each product: the columns are read as they lie.
fn row_by_matrix(
    context: Context<'_>,
    [a, b]: [&[f32]; 2],
    bias: Option<&[f32]>,
    activation: Activation,
    p: Product,
    out: &mut [f32],
) {
    let strip = VECTORS * MAX_LANES;
    let each = p.cols.div_ceil(strip);
    let to = Shareable(out.as_mut_ptr());
    context.each(p.batch * each, p.batch * p.inner * p.cols / 4, |task| {
        let (item, first) = (task / each, task % each * strip);
        let width = strip.min(p.cols - first);
        // SAFETY: these columns of this product's row belong to this task.
        let out = unsafe { std::slice::from_raw_parts_mut(to.get().add(item * p.cols + first), width) };
        let a = &a[item * p.inner..][..p.inner];
        let b = &b[item * p.inner * p.cols + first..(item + 1) * p.inner * p.cols];
        let bias = bias.map(|bias| &bias[first..][..width]);
        context.token.run(RowByColumns { a, b, cols: p.cols, bias, activation, out });
    });
}

struct RowByColumns<'a> {
    a: &'a [f32],
    /// From the first column of the first term on, terms `cols` apart.
    b: &'a [f32],
    cols: usize,
    bias: Option<&'a [f32]>,
    activation: Activation,
    out: &'a mut [f32],
}

impl Kernel for RowByColumns<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { a, b, cols, bias, activation, out } = self;
        for (i, out) in out.chunks_mut(VECTORS * S::LANES).enumerate() {
            let first = i * VECTORS * S::LANES;
            let mut sums = [s.splat(0.0); VECTORS];
            if out.len() == VECTORS * S::LANES {
                for (k, &a) in a.iter().enumerate() {
                    let (a, b) = (s.splat(a), &b[k * cols + first..][..VECTORS * S::LANES]);
                    for (sum, b) in sums.iter_mut().zip(b.chunks_exact(S::LANES)) {
                        *sum = s.mul_add(a, s.get(b), *sum);
                    }
                }
            } else {
                for (k, &a) in a.iter().enumerate() {
                    let (a, b) = (s.splat(a), &b[k * cols + first..][..out.len()]);
                    for (sum, b) in sums.iter_mut().zip(b.chunks(S::LANES)) {
                        *sum = s.mul_add(a, s.get(b), *sum);
                    }
                }
            }
            for (v, (out, sum)) in out.chunks_mut(S::LANES).zip(sums).enumerate() {
                let bias = bias.map_or(s.splat(0.0), |bias| s.get(&bias[first + v * S::LANES..][..out.len()]));
                s.put(out, s.add(sum, bias));
            }
        }
        activate(s, activation, std::iter::once(out));
    }
}
