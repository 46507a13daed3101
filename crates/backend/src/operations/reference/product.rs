//! Products and convolutions.

use crate::operations::shapes::{Convolution, Product};

/// `a b`, each result passed through `finish` with its column.
pub(super) fn multiply(a: &[f32], b: &[f32], p: Product, finish: impl Fn(usize, f64) -> f64, out: &mut [f32]) {
    for (r, out) in out.chunks_exact_mut(p.cols).enumerate() {
        let (a, b) = (&a[r * p.inner..], &b[r / p.rows * p.inner * p.cols..]);
        for (c, out) in out.iter_mut().enumerate() {
            let sum: f64 = (0..p.inner).map(|k| f64::from(a[k]) * f64::from(b[k * p.cols + c])).sum();
            *out = finish(c, sum) as f32;
        }
    }
}

/// Cross-correlation, channels last.
pub(super) fn convolve(x: &[f32], w: &[f32], c: Convolution, out: &mut [f32]) {
    let [height, width] = c.output();
    let window = c.window[0] * c.window[1] * c.channels;
    for (i, out) in out.iter_mut().enumerate() {
        let (output, col) = (i % c.outputs, i / c.outputs % width);
        let (row, image) = (i / c.outputs / width % height, i / c.outputs / width / height);
        let mut sum = 0.0;
        for dy in 0..c.window[0] {
            let first = ((image * c.size[0] + row + dy) * c.size[1] + col) * c.channels;
            // A window's columns lie side by side, with their channels.
            let len = c.window[1] * c.channels;
            let weights = &w[output * window + dy * len..][..len];
            sum += weights.iter().zip(&x[first..]).map(|(&w, &x)| f64::from(w) * f64::from(x)).sum::<f64>();
        }
        *out = sum as f32;
    }
}
