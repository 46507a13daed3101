//! Products of matrices that arrive as they lie, unpacked: `activation(a b + bias)`.
//!
//! The register tiles are those of the linear layers, and so is the order of work: rows are packed tile by tile, columns
//! in panels of two vectors. What differs is that nothing is prepared: columns are packed inside the call, unless they
//! already lie as a panel does. One product is shared by all threads, of many each has its own (`whole.rs`); three shapes have
//! ways of their own: one column (dot products), one row (a sum of rows), and a sum far longer than its result (cut, and the
//! parts added).

mod block;
mod one_column;
mod one_row;
mod parts;
mod whole;

use mlxt_backend::operations::shapes::Product;
use mlxt_backend::{Activation, Result};

use self::block::Finish;
use super::{Context, FAR};
use crate::simd::{Kernel, MAX_LANES, Simd};

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
        one_column::multiply(context, [a, b], bias, activation, p, out);
        return Ok(());
    }
    if p.rows == 1 {
        one_row::multiply(context, [a, b], bias, activation, p, out);
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
        return whole::many(context, [a, b], finish, p, sizes, out);
    }
    let items = a.chunks_exact(p.rows * p.inner).zip(b.chunks_exact(one)).zip(out.chunks_exact_mut(p.rows * p.cols));
    for ((a, b), out) in items {
        let small = p.rows * p.cols <= NEAR;
        if small && p.inner >= 4 * PART {
            parts::multiply(context, [a, b], finish, p, sizes, out)?;
        } else {
            whole::one(context, [a, b], finish, p, sizes, out)?;
        }
    }
    Ok(())
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
