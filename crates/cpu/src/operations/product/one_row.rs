//! Products of one row: a sum of the matrix's rows, which are read as they lie.

use mlxt_backend::Activation;
use mlxt_backend::operations::shapes::Product;

use super::super::Context;
use crate::kernels::activate::activate;
use crate::simd::{Kernel, MAX_LANES, Simd};
use crate::threads::Shareable;

/// Vectors of columns whose sums are in registers at once.
const VECTORS: usize = 8;

/// `out = activation(a b + bias)` with one row in each product.
pub(super) fn multiply(
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
