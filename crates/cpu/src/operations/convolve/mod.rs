//! Convolutions (cross-correlations) with stride 1 and without padding, channels last.
//!
//! Vectors run along the outputs where there are enough of them (`wide.rs`), else along the positions (`narrow.rs`).

mod narrow;
mod wide;

use mlxt_backend::Result;
use mlxt_backend::operations::shapes::Convolution;

use super::Context;
use crate::simd::MAX_LANES;

/// `out[n, y, x, o] = Σ x[n, y + dy, x + dx, c] w[o, dy, dx, c]`
///
/// # Errors
/// Out of memory for operands in another order.
pub(super) fn convolve(context: Context<'_>, x: &[f32], w: &[f32], c: Convolution, out: &mut [f32]) -> Result<()> {
    if c.outputs > MAX_LANES { wide::convolve(context, x, w, c, out) } else { narrow::convolve(context, x, w, c, out) }
}
