//! Operations on rows: lookups, norms, rotation, pooling.

use mlxt_backend::operations::{Operation, shapes};
use mlxt_backend::{NormKind, Reduction, Result};

use super::copy::write;
use super::{Context, FAR};
use crate::kernels;
use crate::kernels::norm::Norm;
use crate::simd::{Kernel, Simd};

/// `out[e] = x[index[e]]`
///
/// # Errors
/// An index that is no row of x.
pub(super) fn gather(
    context: Context<'_>,
    operation: &Operation,
    x: &[f32],
    shape: &[usize],
    index: &[i32],
    out: &mut [f32],
) -> Result<()> {
    let &[rows, cols] = shape else { return Ok(()) };
    context.indices(operation, index, rows)?;
    let far = out.len() >= FAR;
    context.pool.rows(out, cols, cols.div_ceil(4), |first, out| {
        context.token.run(Take { x, cols, index: &index[first..], out, far });
    });
    Ok(())
}

struct Take<'a> {
    x: &'a [f32],
    cols: usize,
    index: &'a [i32],
    out: &'a mut [f32],
    far: bool,
}

impl Kernel for Take<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for (out, &i) in self.out.chunks_exact_mut(self.cols).zip(self.index) {
            write(s, &self.x[i as usize * self.cols..][..self.cols], out, self.far, |x| x);
        }
        s.fence();
    }
}

/// LayerNorm over the last dimension, eps 1e-5.
pub(super) fn layer_norm(context: Context<'_>, x: &[f32], shape: &[usize], out: &mut [f32]) {
    let cols = shape.last().copied().unwrap_or(1);
    let n = Norm::from_values(NormKind::LayerNorm, vec![1.0; cols], vec![0.0; cols], 1e-5);
    normalize(context, x, None, &n, out);
}

/// LayerNorm of `x + residual`, with gain and shift, eps 1e-12.
pub(super) fn add_layer_norm(context: Context<'_>, x: &[f32], residual: &[f32], weights: [&[f32]; 2], out: &mut [f32]) {
    let [gain, shift] = weights.map(<[f32]>::to_vec);
    let n = Norm::from_values(NormKind::LayerNorm, gain, shift, 1e-12);
    normalize(context, x, Some(residual), &n, out);
}

/// Rows over their root mean square, times the gain, eps 1e-6.
pub(super) fn rms_norm(context: Context<'_>, x: &[f32], gain: &[f32], out: &mut [f32]) {
    let n = Norm::from_values(NormKind::RmsNorm, gain.to_vec(), vec![0.0; gain.len()], 1e-6);
    normalize(context, x, None, &n, out);
}

fn normalize(context: Context<'_>, x: &[f32], residual: Option<&[f32]>, n: &Norm, out: &mut [f32]) {
    let far = out.len() >= FAR;
    let cols = n.cols();
    context.pool.rows(out, cols, cols.div_ceil(4), |first, out| {
        let range = first * cols..first * cols + out.len();
        context.token.run(Normalize { x: &x[range.clone()], residual: residual.map(|r| &r[range]), n, out, far });
    });
}

struct Normalize<'a> {
    x: &'a [f32],
    residual: Option<&'a [f32]>,
    n: &'a Norm,
    out: &'a mut [f32],
    far: bool,
}

impl Kernel for Normalize<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        /// A row that is normalised in the nearest cache before it is streamed.
        const ROW: usize = 4096;
        let Self { x, residual, n, out, far } = self;
        let cols = n.cols();
        let mut near = [0.0; ROW];
        for (i, (x, out)) in x.chunks_exact(cols).zip(out.chunks_exact_mut(cols)).enumerate() {
            let residual = residual.map(|r| &r[i * cols..][..cols]);
            if far && cols <= ROW {
                let row = &mut near[..cols];
                write(s, x, row, false, |x| x);
                kernels::norm::Rows { x: row, residual, n, out: None }.run(s);
                write(s, row, out, true, |x| x);
            } else {
                write(s, x, out, false, |x| x);
                kernels::norm::Rows { x: out, residual, n, out: None }.run(s);
            }
        }
        s.fence();
    }
}

/// Rotary embedding of `[.., positions, size]`.
///
/// # Errors
/// Out of memory for the sines and cosines.
pub(super) fn rotate(context: Context<'_>, x: &[f32], shape: &[usize], out: &mut [f32]) -> Result<()> {
    let &[.., length, size] = shape else { return Ok(()) };
    let mut turns = context.arena.take(length * size)?;
    // A position's turn is the one before it, turned once more: in f64 that loses nothing within a piece.
    context.pool.rows(&mut turns, size, size, |first, turns| {
        let angle = |j: usize| 10_000_f64.powf(-2.0 * j as f64 / size as f64);
        let mut now: Vec<[f64; 2]> = (0..size / 2).map(|j| (first as f64 * angle(j)).sin_cos().into()).collect();
        let step: Vec<[f64; 2]> = (0..size / 2).map(|j| angle(j).sin_cos().into()).collect();
        for turns in turns.chunks_exact_mut(size) {
            let (cosines, sines) = turns.split_at_mut(size / 2);
            for (((cosine, sine), now), [sin, cos]) in cosines.iter_mut().zip(sines).zip(&mut now).zip(&step) {
                (*sine, *cosine) = (now[0] as f32, now[1] as f32);
                *now = [now[0] * cos + now[1] * sin, now[1] * cos - now[0] * sin];
            }
        }
    });
    context.pool.rows(out, size, size, |first, out| {
        context.token.run(Rotate { x: &x[first * size..], turns: &turns, first, size, out });
    });
    Ok(())
}

struct Rotate<'a> {
    x: &'a [f32],
    /// For each position the cosines, then the sines.
    turns: &'a [f32],
    /// The number of the first row.
    first: usize,
    size: usize,
    out: &'a mut [f32],
}

impl Kernel for Rotate<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (size, half) = (self.size, self.size / 2);
        let length = self.turns.len() / size;
        for ((row, x), out) in (self.first..).zip(self.x.chunks_exact(size)).zip(self.out.chunks_exact_mut(size)) {
            let (cosines, sines) = self.turns[row % length * size..][..size].split_at(half);
            let ((x1, x2), (to1, to2)) = (x.split_at(half), out.split_at_mut(half));
            for (i, (to1, to2)) in to1.chunks_mut(S::LANES).zip(to2.chunks_mut(S::LANES)).enumerate() {
                let range = i * S::LANES..i * S::LANES + to1.len();
                let (x1, x2) = (s.get(&x1[range.clone()]), s.get(&x2[range.clone()]));
                let (cos, sin) = (s.get(&cosines[range.clone()]), s.get(&sines[range]));
                s.put(to1, s.sub(s.mul(x1, cos), s.mul(x2, sin)));
                s.put(to2, s.mul_add(x2, cos, s.mul(x1, sin)));
            }
        }
    }
}

/// The mean of each sequence's rows, over its length as a vector.
///
/// # Errors
/// Lengths that do not add up to the rows.
pub(super) fn mean_normalized(
    context: Context<'_>,
    operation: &Operation,
    x: &[f32],
    shape: &[usize],
    lengths: &[i32],
    out: &mut [f32],
) -> Result<()> {
    let &[rows, cols] = shape else { return Ok(()) };
    let segments = shapes::segments(operation, lengths, rows)?;
    let parallel = (context.token, context.pool);
    kernels::rows::reduce(parallel, x, cols, &segments, Reduction::Mean, out);
    // A vector's length is its root mean square times the root of its size; no less than 1e-12, as in PyTorch.
    let gain = 1.0 / (cols as f32).sqrt();
    let n = Norm::from_values(NormKind::RmsNorm, vec![gain; cols], vec![0.0; cols], 1e-24 / cols as f32);
    kernels::norm::norm(parallel, out, None, &n);
    Ok(())
}
