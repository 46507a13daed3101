//! A product whose sums are far longer than its result is large: cut into parts, one task each, which are added in order.

use std::ops::Range;

use mlxt_backend::operations::shapes::Product;
use mlxt_backend::{Activation, Result};

use super::super::Context;
use super::block::{Block, Finish, PackPanel, Right};
use super::{PART, Sizes};
use crate::kernels::activate::activate;
use crate::kernels::gemm::tile::Panels;
use crate::simd::{Kernel, Simd};
use crate::threads::Shareable;

/// `out = activation(a b + bias)`
///
/// # Errors
/// Out of memory for packed operands.
pub(super) fn multiply(
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
            context.token.run(Block { p, a, rows: p.rows, terms, right, finish: unfinished, scratch, out });
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
