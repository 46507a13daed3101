//! Operations on rows: lookups, norms, rotation, pooling, attention.

use crate::Segments;
use crate::operations::Operation;

/// The softmax of a line.
pub(super) fn softmax(line: &[f64]) -> impl Iterator<Item = f64> {
    let largest = line.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let total: f64 = line.iter().map(|v| (v - largest).exp()).sum();
    line.iter().map(move |v| (v - largest).exp() / total)
}

/// `out[e] = x[index[e]]`, rows of `cols`.
pub(super) fn gather(x: &[f32], cols: usize, index: &[i32], out: &mut [f32]) {
    for (out, &i) in out.chunks_exact_mut(cols).zip(index) {
        out.copy_from_slice(&x[i as usize * cols..][..cols]);
    }
}

/// Rows of `cols` from the first of each edge to the second, over zeros.
pub(super) fn scatter(
    operation: Operation,
    x: &[f32],
    cols: usize,
    edges: impl Iterator<Item = (usize, usize)>,
    out: &mut [f32],
) {
    let mut sums: Vec<f64> = vec![0.0; out.len()];
    for (source, target) in edges {
        for c in 0..cols {
            let (value, sum) = (f64::from(x[source * cols + c]), &mut sums[target * cols + c]);
            *sum = match operation {
                Operation::ScatterSum => *sum + value,
                Operation::ScatterMax => sum.max(value),
                _ => value,
            };
        }
    }
    out.iter_mut().zip(sums).for_each(|(out, sum)| *out = sum as f32);
}

/// Over the last dimension of `shape`, times the first of the weights, plus the second.
pub(super) fn layer_norm<T: Copy + Into<f64>>(
    x: &[T],
    shape: &[usize],
    weights: Option<[&[f32]; 2]>,
    eps: f64,
    out: &mut [f32],
) {
    let cols = shape.last().copied().unwrap_or(1);
    for (out, x) in out.chunks_exact_mut(cols).zip(x.chunks_exact(cols)) {
        let mean = x.iter().map(|&v| v.into()).sum::<f64>() / cols as f64;
        let variance = x.iter().map(|&v| (v.into() - mean).powi(2)).sum::<f64>() / cols as f64;
        for (c, (out, &v)) in out.iter_mut().zip(x).enumerate() {
            let unit = (v.into() - mean) / (variance + eps).sqrt();
            *out = weights.map_or(unit, |[gain, shift]| unit * f64::from(gain[c]) + f64::from(shift[c])) as f32;
        }
    }
}

/// Each row over its root mean square, times the gain.
pub(super) fn rms_norm(x: &[f32], gain: &[f32], out: &mut [f32]) {
    let cols = gain.len();
    for (out, x) in out.chunks_exact_mut(cols).zip(x.chunks_exact(cols)) {
        let square = x.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / cols as f64;
        let root = (square + 1e-6).sqrt();
        for ((out, &x), &gain) in out.iter_mut().zip(x).zip(gain) {
            *out = (f64::from(x) / root * f64::from(gain)) as f32;
        }
    }
}

/// Rotary embedding of `[.., positions, size]`.
pub(super) fn rotate(x: &[f32], shape: &[usize], out: &mut [f32]) {
    let &[.., length, size] = shape else { return };
    for (t, (out, x)) in (0..length).cycle().zip(out.chunks_exact_mut(size).zip(x.chunks_exact(size))) {
        for j in 0..size / 2 {
            let angle = t as f64 * 10_000_f64.powf(-2.0 * j as f64 / size as f64);
            let (x1, x2) = (f64::from(x[j]), f64::from(x[j + size / 2]));
            out[j] = (x1 * angle.cos() - x2 * angle.sin()) as f32;
            out[j + size / 2] = (x2 * angle.cos() + x1 * angle.sin()) as f32;
        }
    }
}

/// The mean of each sequence's rows, over its length as a vector (no less than 1e-12).
pub(super) fn mean_normalized(x: &[f32], cols: usize, segments: &Segments, out: &mut [f32]) {
    for (out, range) in out.chunks_exact_mut(cols).zip(segments.ranges()) {
        let column = |c: usize| range.clone().map(|r| f64::from(x[r * cols + c])).sum::<f64>() / range.len() as f64;
        let means: Vec<f64> = (0..cols).map(column).collect();
        let length = means.iter().map(|v| v * v).sum::<f64>().sqrt().max(1e-12);
        out.iter_mut().zip(means).for_each(|(out, v)| *out = (v / length) as f32);
    }
}

/// `softmax(q kᵀ / √size) v` of one head, query `i` seeing the first `seen(i)` keys. Rows of the operands and of the
/// result lie `strides` apart; as many queries as the result has rows.
pub(super) fn attend(
    [q, k, v]: [&[f32]; 3],
    strides: [usize; 2],
    size: usize,
    seen: impl Fn(usize) -> usize,
    out: &mut [f32],
) {
    for (i, out) in out.chunks_mut(strides[1]).enumerate() {
        let row = |of: &[f32], r: usize, d: usize| f64::from(of[r * strides[0] + d]);
        let score = |j: usize| (0..size).map(|d| row(q, i, d) * row(k, j, d)).sum::<f64>() / (size as f64).sqrt();
        let weights: Vec<f64> = softmax(&(0..seen(i)).map(score).collect::<Vec<_>>()).collect();
        for (d, out) in out[..size].iter_mut().enumerate() {
            *out = weights.iter().enumerate().map(|(j, w)| w * row(v, j, d)).sum::<f64>() as f32;
        }
    }
}
