//! Products of some size: one by all threads, or many with a thread each.

use mlxt_backend::Result;
use mlxt_backend::operations::shapes::Product;

use super::super::Context;
use super::block::{Block, Finish, PackPanel, Right};
use super::{NEAR, Sizes, TERMS};
use crate::kernels::gemm::tile::Panels;
use crate::simd::MAX_LANES;
use crate::threads::Shareable;

/// One product by all threads.
///
/// # Errors
/// Out of memory for packed operands.
pub(super) fn one(
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
            context.token.run(Block { p, a, rows: rows.len(), terms: 0..p.inner, right, finish, scratch, out });
        }
    });
    Ok(())
}

/// Many products, each by one thread.
///
/// # Errors
/// Out of memory for packed operands.
pub(super) fn many(
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
                context.token.run(Block { p, a, rows: rows.len(), terms: 0..p.inner, right, finish, scratch, out });
            }
        }
    });
    Ok(())
}
