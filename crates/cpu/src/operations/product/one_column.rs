//! Products of one column: dot products.

use mlxt_backend::Activation;
use mlxt_backend::operations::shapes::Product;

use super::super::Context;
use crate::kernels::activate::activate;
use crate::simd::{Kernel, Simd};

/// `out = activation(a b + bias)` with one column.
pub(super) fn multiply(
    context: Context<'_>,
    [a, b]: [&[f32]; 2],
    bias: Option<&[f32]>,
    activation: Activation,
    p: Product,
    out: &mut [f32],
) {
    context.pool.rows(out, 1, p.inner.div_ceil(4), |first, out| {
        context.token.run(Dots { a, b, bias, activation, p, first, out });
    });
}

/// Some of the results.
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
