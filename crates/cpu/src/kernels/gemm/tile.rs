//! The innermost product: a tile of a few rows by one or two vectors, summed over `k` in registers.
//!
//! Attention uses it as the linear layers do. Every tile shape adds the products of one result in the same order, each
//! with one rounding where the instruction set can fuse: a result does not depend on the shape of its tile.

use std::ptr;

use super::weight::Weight;
use crate::simd::{Kernel, Simd};

/// The most rows of a tile on any instruction set.
pub(crate) const MAX_TILE_ROWS: usize = 14;

/// `c[i, j] = Σ a[k, i] b[k, j] (+ c[i, j]) (+ bias[j])`
#[derive(Clone, Copy)]
pub(crate) struct Tile<W = f32> {
    /// `[steps][rows]`: the rows of one step side by side, steps `a_stride` apart.
    pub(crate) a: *const f32,
    pub(crate) a_stride: usize,
    /// `[steps][columns]`, whole vectors.
    pub(crate) b: *const W,
    pub(crate) b_stride: usize,
    pub(crate) steps: usize,
    /// `[rows][columns]`
    pub(crate) c: *mut f32,
    pub(crate) c_stride: usize,
    /// Columns that are written, at most the tile's.
    pub(crate) cols: usize,
    /// Whether to add to what `c` holds.
    pub(crate) accumulate: bool,
    /// One value for each column of the tile, or null.
    pub(crate) bias: *const f32,
    /// What to bring nearer meanwhile.
    pub(crate) fetch: [Fetch; 2],
}

/// Values of f32 in a line of the caches.
pub(crate) const LINE: usize = 16;

/// Lines to bring nearer, one at each step, `stride` values of f32 apart. Any address is fine.
#[derive(Clone, Copy)]
pub(crate) struct Fetch {
    pub(crate) at: *const f32,
    pub(crate) stride: usize,
}

impl Fetch {
    /// Two vectors of `W` at each step, from `at` on, steps `stride` of them apart.
    #[inline(always)]
    pub(crate) fn two_vectors<S: Simd, W>(at: *const W, stride: usize) -> [Self; 2] {
        let stride = (stride * size_of::<W>()).div_ceil(size_of::<f32>());
        [at, at.wrapping_add(S::LANES)].map(|at| Self { at: at.cast(), stride })
    }

    /// A line that is there already.
    pub(crate) fn nothing<W>(at: *const W) -> [Self; 2] {
        [Self { at: at.cast(), stride: 0 }; 2]
    }
}

/// Computes tiles of one shape.
pub(crate) type TileFn<S, W = f32> = unsafe fn(S, &Tile<W>);

/// The function for tiles of `rows` by `vectors` (1 or 2) of f32.
pub(crate) fn function<S: Simd>(rows: usize, vectors: usize) -> TileFn<S> {
    function_of::<S, f32>(rows, vectors)
}

/// The function for tiles of `rows` by `vectors` (1 or 2).
///
/// Each is a function of its own, so that its sums surely get the registers to themselves.
pub(crate) fn function_of<S: Simd, W: Weight>(rows: usize, vectors: usize) -> TileFn<S, W> {
    let [one, two] = Table::<S, W>::FUNCTIONS[rows - 1];
    if vectors == 1 { one } else { two }
}

struct Table<S, W>(std::marker::PhantomData<(S, W)>);

impl<S: Simd, W: Weight> Table<S, W> {
    const FUNCTIONS: [[TileFn<S, W>; 2]; MAX_TILE_ROWS] = [
        [tile::<S, W, 1, 1>, tile::<S, W, 1, 2>],
        [tile::<S, W, 2, 1>, tile::<S, W, 2, 2>],
        [tile::<S, W, 3, 1>, tile::<S, W, 3, 2>],
        [tile::<S, W, 4, 1>, tile::<S, W, 4, 2>],
        [tile::<S, W, 5, 1>, tile::<S, W, 5, 2>],
        [tile::<S, W, 6, 1>, tile::<S, W, 6, 2>],
        [tile::<S, W, 7, 1>, tile::<S, W, 7, 2>],
        [tile::<S, W, 8, 1>, tile::<S, W, 8, 2>],
        [tile::<S, W, 9, 1>, tile::<S, W, 9, 2>],
        [tile::<S, W, 10, 1>, tile::<S, W, 10, 2>],
        [tile::<S, W, 11, 1>, tile::<S, W, 11, 2>],
        [tile::<S, W, 12, 1>, tile::<S, W, 12, 2>],
        [tile::<S, W, 13, 1>, tile::<S, W, 13, 2>],
        [tile::<S, W, 14, 1>, tile::<S, W, 14, 2>],
    ];
}

/// # Safety
/// For every step, `ROWS` values of `a` and `VECTORS` vectors of `b` can be read; `cols` values of `ROWS` rows of `c`
/// can be written, and by nobody else; `bias` is null or has `VECTORS` vectors.
unsafe fn tile<S: Simd, W: Weight, const ROWS: usize, const VECTORS: usize>(s: S, t: &Tile<W>) {
    s.vectorize(Shape::<W, ROWS, VECTORS>(t));
}

/// A tile whose size the compiler knows.
struct Shape<'a, W, const ROWS: usize, const VECTORS: usize>(&'a Tile<W>);

impl<W: Weight, const ROWS: usize, const VECTORS: usize> Kernel for Shape<'_, W, ROWS, VECTORS> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let t = self.0;
        let mut sums = [[s.splat(0.0); VECTORS]; ROWS];
        let (mut a, mut b, mut fetch) = (t.a, t.b, t.fetch);
        for _ in 0..t.steps {
            let mut columns = [s.splat(0.0); VECTORS];
            for (v, column) in columns.iter_mut().enumerate() {
                // SAFETY: the caller of `tile` promised this step of `b`.
                *column = unsafe { W::load(s, b.add(v * S::LANES)) };
            }
            for fetch in &mut fetch {
                s.prefetch(fetch.at);
                fetch.at = fetch.at.wrapping_add(fetch.stride);
            }
            for (i, sums) in sums.iter_mut().enumerate() {
                // SAFETY: the caller of `tile` promised this step of `a`.
                let row = s.splat(unsafe { *a.add(i) });
                for (sum, &column) in sums.iter_mut().zip(&columns) {
                    *sum = W::multiply(s, row, column, *sum);
                }
            }
            a = a.wrapping_add(t.a_stride);
            b = b.wrapping_add(t.b_stride);
        }
        // SAFETY: the caller of `tile` promised `t.cols` columns of `c` and whole vectors of `bias`.
        unsafe {
            if t.cols >= VECTORS * S::LANES {
                finish::<_, _, _, _, true>(s, t, sums);
            } else {
                finish::<_, _, _, _, false>(s, t, sums);
            }
        }
    }
}

/// Writes the sums of a tile, all of whose columns are written if it is `WHOLE`. Three loops without a branch: those the compiler
/// unrolls, so that the sums stay in registers.
///
/// # Safety
/// As for [`tile`].
#[inline(always)]
unsafe fn finish<S: Simd, W, const ROWS: usize, const VECTORS: usize, const WHOLE: bool>(
    s: S,
    t: &Tile<W>,
    mut sums: [[S::V; VECTORS]; ROWS],
) {
    if t.accumulate {
        for (i, sums) in sums.iter_mut().enumerate() {
            for (v, sum) in sums.iter_mut().enumerate() {
                // SAFETY: the caller's promise.
                *sum = s.add(*sum, s.get(unsafe { columns::<S, W, WHOLE>(t, i, v) }));
            }
        }
    }
    if !ptr::eq(t.bias, ptr::null()) {
        let mut bias = [s.splat(0.0); VECTORS];
        for (v, bias) in bias.iter_mut().enumerate() {
            // SAFETY: the caller's promise.
            *bias = unsafe { s.load(t.bias.add(v * S::LANES)) };
        }
        for sums in &mut sums {
            for (sum, &bias) in sums.iter_mut().zip(&bias) {
                *sum = s.add(*sum, bias);
            }
        }
    }
    for (i, sums) in sums.iter().enumerate() {
        for (v, &sum) in sums.iter().enumerate() {
            // SAFETY: the caller's promise.
            s.put(unsafe { columns::<S, W, WHOLE>(t, i, v) }, sum);
        }
    }
}

/// What is written of row `i` of a tile, in its vector `v`.
///
/// # Safety
/// As for [`tile`]; and while it is used nothing else reads or writes it.
#[inline(always)]
unsafe fn columns<'a, S: Simd, W, const WHOLE: bool>(t: &Tile<W>, i: usize, v: usize) -> &'a mut [f32] {
    let first = v * S::LANES;
    let count = if WHOLE { S::LANES } else { t.cols.saturating_sub(first).min(S::LANES) };
    // SAFETY: columns of `c`, of which there are `t.cols`; or none.
    unsafe { std::slice::from_raw_parts_mut(t.c.wrapping_add(i * t.c_stride + first), count) }
}

/// Rows cut into panels, as equal as they can be, the larger ones spread evenly and the first one of them: 50 by 14 is
/// 13, 12, 13, 12, and not 14, 14, 14, 8, because a tile of few rows reads its columns for little work.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Panels {
    total: usize,
    count: usize,
}

impl Panels {
    /// The fewest panels of at most `largest`.
    pub(crate) fn new(total: usize, largest: usize) -> Self {
        Self::of(total, total.div_ceil(largest))
    }

    /// That many panels; if there are fewer rows, some are empty.
    pub(crate) fn of(total: usize, count: usize) -> Self {
        Self { total, count }
    }

    pub(crate) fn count(self) -> usize {
        self.count
    }

    /// The first row of panel `i`, and of the next.
    pub(crate) fn range(self, i: usize) -> std::ops::Range<usize> {
        let first = |i: usize| i * (self.total / self.count) + (i * (self.total % self.count)).div_ceil(self.count);
        first(i)..first(i + 1)
    }
}

/// `dst[c * dst_stride + r] = src[r * src_stride + c]`, for `r < rows`, `c < cols`.
///
/// # Safety
/// `rows, cols >= 1`, `dst_stride >= rows`; the values named can be read, and `dst` is at least
/// `cols * dst_stride + LANES` long: what lies between the rows, and behind the last, is lost.
#[inline(always)]
pub(crate) unsafe fn transpose<S: Simd>(
    s: S,
    src: *const f32,
    src_stride: usize,
    (rows, cols): (usize, usize),
    dst: *mut f32,
    dst_stride: usize,
) {
    // The last group of rows first: where it is not whole it spills into the next row of `dst`, whose beginning the
    // groups before it write later.
    for r in (0..rows).step_by(S::LANES).rev() {
        for c in (0..cols).step_by(S::LANES) {
            let size = (S::LANES.min(rows - r), S::LANES.min(cols - c));
            // SAFETY: the block lies inside the matrix. A row of it is written at `c * dst_stride + r`, with
            // `r < rows <= dst_stride`, and ends before `cols * dst_stride + LANES`.
            unsafe {
                s.transpose(
                    src.add(r * src_stride + c),
                    src_stride,
                    size.0,
                    size.1,
                    dst.add(c * dst_stride + r),
                    dst_stride,
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;
    use crate::tests::noise;

    #[test]
    fn panels_are_equal_and_cover_all_rows() {
        let sizes = |total, largest| {
            let panels = Panels::new(total, largest);
            (0..panels.count()).map(|i| panels.range(i).len()).collect::<Vec<_>>()
        };
        assert_eq!(sizes(50, 14), [13, 12, 13, 12]);
        assert_eq!(sizes(14, 14), [14]);
        for total in 1..100 {
            for largest in 1..20 {
                let sizes = sizes(total, largest);
                assert_eq!(sizes.iter().sum::<usize>(), total);
                assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1);
                assert!(sizes.iter().all(|&s| s <= sizes[0] && s <= largest));
            }
        }
    }

    struct Transposed<'a> {
        src: &'a [f32],
        src_stride: usize,
        size: (usize, usize),
        dst_stride: usize,
    }

    impl Kernel for Transposed<'_> {
        type Output = Vec<f32>;

        #[inline(always)]
        fn run<S: Simd>(self, s: S) -> Vec<f32> {
            let mut dst = vec![f32::NAN; self.size.1 * self.dst_stride + S::LANES];
            // SAFETY: the sizes below fit.
            unsafe { transpose(s, self.src.as_ptr(), self.src_stride, self.size, dst.as_mut_ptr(), self.dst_stride) };
            dst
        }
    }

    #[test]
    fn transposition_is_exact_at_every_size() {
        for isa in Isa::available() {
            for rows in 1..40 {
                for cols in 1..36 {
                    let src = noise((rows - 1) * (cols + 3) + cols, 1.0);
                    for dst_stride in [rows, rows + 5] {
                        let (src, src_stride) = (&src, cols + 3);
                        let dst =
                            isa.token().unwrap().run(Transposed { src, src_stride, size: (rows, cols), dst_stride });
                        for (r, c) in (0..rows).flat_map(|r| (0..cols).map(move |c| (r, c))) {
                            assert_eq!(dst[c * dst_stride + r], src[r * src_stride + c], "{rows}x{cols} on {isa}");
                        }
                    }
                }
            }
        }
    }
}
