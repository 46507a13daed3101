//! LayerNorm and RMSNorm, with the residual added on the way.

use mlxt_backend::{HostTensor, NormKind, NormSource};

use crate::simd::{Kernel, Simd, Token};
use crate::threads::{Pool, Shareable};

/// A normalisation's weights.
#[derive(Debug)]
pub struct Norm {
    kind: NormKind,
    /// `[cols]`
    gain: Vec<f32>,
    /// `[cols]`
    shift: Vec<f32>,
    eps: f32,
}

impl Norm {
    /// Weights that have been checked.
    pub(crate) fn new(source: &NormSource) -> Self {
        let gain = source.gain.to_f32();
        let shift = source.shift.as_ref().map_or_else(|| vec![0.0; gain.len()], HostTensor::to_f32);
        Self { kind: source.kind, gain, shift, eps: source.eps }
    }

    /// The same from plain values: `[cols]` each.
    pub(crate) fn from_values(kind: NormKind, gain: Vec<f32>, shift: Vec<f32>, eps: f32) -> Self {
        Self { kind, gain, shift, eps }
    }

    /// Columns of the rows it normalises.
    pub(crate) fn cols(&self) -> usize {
        self.gain.len()
    }
}

/// Normalises each row of `x + residual` in place.
pub(crate) fn norm((token, pool): (Token, &Pool), x: &mut [f32], residual: Option<&[f32]>, n: &Norm) {
    let cols = n.cols();
    // Three passes over a row, most of whose values come from a cache that is not near: 0.3 ns a value.
    pool.rows(x, cols, cols, |first, rows| {
        let residual = residual.map(|r| &r[first * cols..][..rows.len()]);
        token.run(Rows { x: rows, residual, n, out: None });
    });
}

/// Adds `residual` to `x`, and writes the rows of the sum, normalised, to `out`.
pub(crate) fn add_norm((token, pool): (Token, &Pool), x: &mut [f32], residual: &[f32], n: &Norm, out: &mut [f32]) {
    let cols = n.cols();
    let sums = Shareable(x.as_mut_ptr());
    // As for `norm`.
    pool.rows(out, cols, cols, |first, rows| {
        let residual = Some(&residual[first * cols..][..rows.len()]);
        // SAFETY: the same rows of `x`, which has the size of `out`, as no other thread is given of that.
        let x = unsafe { std::slice::from_raw_parts_mut(sums.get().add(first * cols), rows.len()) };
        token.run(Rows { x, residual, n, out: Some(rows) });
    });
}

/// Whole rows.
pub(crate) struct Rows<'a> {
    pub(crate) x: &'a mut [f32],
    /// Is added to `x`.
    pub(crate) residual: Option<&'a [f32]>,
    pub(crate) n: &'a Norm,
    /// Where the result goes, if not over `x`.
    pub(crate) out: Option<&'a mut [f32]>,
}

impl Kernel for Rows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let cols = self.n.cols();
        for (r, row) in self.x.chunks_exact_mut(cols).enumerate() {
            if let Some(residual) = self.residual {
                for (x, add) in row.chunks_mut(S::LANES).zip(residual[r * cols..][..cols].chunks(S::LANES)) {
                    s.put(x, s.add(s.get(x), s.get(add)));
                }
            }
            let moments = statistics(s, row, self.n);
            let weights = self.n.gain.chunks(S::LANES).zip(self.n.shift.chunks(S::LANES));
            if let Some(out) = &mut self.out {
                let out = out[r * cols..][..cols].chunks_mut(S::LANES);
                for ((x, out), (gain, shift)) in row.chunks(S::LANES).zip(out).zip(weights) {
                    s.put(out, normed(s, [x, gain, shift], moments));
                }
            } else {
                for (x, (gain, shift)) in row.chunks_mut(S::LANES).zip(weights) {
                    s.put(x, normed(s, [x, gain, shift], moments));
                }
            }
        }
    }
}

/// A vector of a row, normalised. A function, not a closure: those that are called from two places are compiled without
/// the instruction set.
#[inline(always)]
fn normed<S: Simd>(s: S, [x, gain, shift]: [&[f32]; 3], [mean, scale, left]: [f32; 3]) -> S::V {
    let unit = s.mul_add(s.sub(s.get(x), s.splat(mean)), s.splat(scale), s.splat(left));
    s.mul_add(unit, s.get(gain), s.get(shift))
}

/// `[mean, scale, left]`, of which `(x - mean) * scale + left` is a value of the row, normalised.
///
/// The mean is taken twice: what the first, rounded one leaves over is its error, and corrects both the mean and the
/// variance (the corrected two-pass algorithm; Chan, Golub and others, 1983).
#[inline(always)]
fn statistics<S: Simd>(s: S, row: &[f32], n: &Norm) -> [f32; 3] {
    let count = row.len() as f64;
    let mean = match n.kind {
        NormKind::LayerNorm => (f64::from(sum(s, row, |x| x)) / count) as f32,
        NormKind::RmsNorm => 0.0,
    };
    let center = s.splat(mean);
    // Lanes behind the row's end hold zeros, and zeros must stay out of the sums: they would add `mean²`.
    let whole = row.len() / S::LANES * S::LANES;
    let mut squares = f64::from(sum(s, &row[..whole], |x| {
        let d = s.sub(x, center);
        s.mul(d, d)
    }));
    let mut left = match n.kind {
        NormKind::LayerNorm => f64::from(sum(s, &row[..whole], |x| s.sub(x, center))),
        NormKind::RmsNorm => 0.0,
    };
    for &x in &row[whole..] {
        let d = f64::from(x - mean);
        squares += d * d;
        if n.kind == NormKind::LayerNorm {
            left += d;
        }
    }
    let off = left / count;
    let variance = (squares / count - off * off).max(0.0);
    let scale = 1.0 / (variance + f64::from(n.eps)).sqrt();
    [mean, scale as f32, (-off * scale) as f32]
}

/// The sum of `f` over a row, in four running sums: one would wait for each addition, and round more.
#[inline(always)]
fn sum<S: Simd>(s: S, row: &[f32], f: impl Fn(S::V) -> S::V) -> f32 {
    let mut sums = [s.splat(0.0); 4];
    let mut fours = row.chunks_exact(4 * S::LANES);
    for four in &mut fours {
        for (sum, x) in sums.iter_mut().zip(four.chunks_exact(S::LANES)) {
            *sum = s.add(*sum, f(s.get(x)));
        }
    }
    for (sum, x) in sums.iter_mut().zip(fours.remainder().chunks(S::LANES)) {
        *sum = s.add(*sum, f(s.get(x)));
    }
    s.sum(s.add(s.add(sums[0], sums[2]), s.add(sums[1], sums[3])))
}

#[cfg(test)]
mod tests {
    use crate::tests::{assert_near, every_cpu, noise};
    use mlxt_backend::{Backend, HostTensor, NormKind, NormSource, Reference};

    fn check(rows: usize, cols: usize, scale: f32, offset: f32, tolerance: f64) {
        let values: Vec<f32> = noise(rows * cols, scale).iter().map(|v| v + offset).collect();
        let residual = noise(rows * cols + 1, scale)[1..].to_vec();
        let weights = |first: usize| HostTensor::from_f32(&[cols], &noise(cols + first, 1.0)[first..]).unwrap();
        for kind in [NormKind::LayerNorm, NormKind::RmsNorm] {
            for (with_residual, with_shift) in [(false, true), (true, true), (true, false)] {
                let shift = with_shift.then(|| weights(2));
                let source = || NormSource { kind, gain: weights(5), shift: shift.clone(), eps: 1e-12 };
                let want = normed(&Reference, (rows, cols), &values, with_residual.then_some(&residual), source());
                every_cpu(|cpu| {
                    let got = normed(cpu, (rows, cols), &values, with_residual.then_some(&residual), source());
                    assert_near(&got, &want, tolerance);
                    Ok(())
                });
            }
        }
    }

    fn normed<B: Backend>(
        b: &B,
        (rows, cols): (usize, usize),
        values: &[f32],
        residual: Option<&Vec<f32>>,
        source: NormSource,
    ) -> Vec<f32> {
        let x = b.write(rows, cols, values).unwrap();
        let residual = residual.map(|r| b.write(rows, cols, r).unwrap());
        b.read(&b.norm(x, residual.as_ref(), &b.norm_weights(source).unwrap()).unwrap()).unwrap()
    }

    #[test]
    fn rows_of_every_tail_are_the_references() {
        for cols in 2..70 {
            check(3, cols, 1.0, 0.0, 2e-6);
        }
    }

    #[test]
    fn sums_are_kept_beside_their_norm() {
        for (rows, cols) in [(3, 17), (1, 64), (300, 384)] {
            let (values, residual) = (noise(rows * cols, 1.0), noise(rows * cols, 2.0));
            let source = || NormSource {
                kind: NormKind::LayerNorm,
                gain: HostTensor::from_f32(&[cols], &noise(cols, 1.0)).unwrap(),
                shift: None,
                eps: 1e-5,
            };
            let sums: Vec<f32> = values.iter().zip(&residual).map(|(x, r)| x + r).collect();
            every_cpu(|cpu| {
                let (x, r) = (cpu.write(rows, cols, &values)?, cpu.write(rows, cols, &residual)?);
                let (sum, out) = cpu.add_norm(x, &r, &cpu.norm_weights(source())?)?;
                assert_eq!(cpu.read(&sum)?, sums);
                assert_eq!(cpu.read(&out)?, normed(cpu, (rows, cols), &values, Some(&residual), source()));
                Ok(())
            });
        }
    }

    #[test]
    fn common_sizes_are_the_references() {
        for cols in [312, 384, 768, 1024] {
            check(70, cols, 1.0, 0.0, 2e-6);
        }
    }

    /// A mean a thousand times the deviation: what is left of the values is exact, and so must be the statistics.
    #[test]
    fn large_offsets_do_not_spoil_the_variance() {
        check(2, 768, 1.0, 1000.0, 2e-4);
        every_cpu(|cpu| {
            let values: Vec<f32> = (0..771).map(|i| 4096.0 + (i % 3) as f32).collect();
            let gain = HostTensor::from_f32(&[771], &[1.0; 771])?;
            let n = NormSource { kind: NormKind::LayerNorm, gain, shift: None, eps: 0.0 };
            let got = normed(cpu, (1, 771), &values, None, n);
            let unit = 1.5_f32.sqrt();
            assert_near(&got[..3], &[-unit, 0.0, unit], 1e-6);
            Ok(())
        });
    }

    #[test]
    fn a_constant_row_becomes_the_shift() {
        every_cpu(|cpu| {
            for cols in [1, 5, 16, 768] {
                let gain = HostTensor::from_f32(&[cols], &vec![3.0; cols])?;
                let shift = HostTensor::from_f32(&[cols], &vec![0.5; cols])?;
                let n = NormSource { kind: NormKind::LayerNorm, gain, shift: Some(shift), eps: 1e-5 };
                assert_near(&normed(cpu, (1, cols), &vec![7.3; cols], None, n), &vec![0.5; cols], 1e-6);
            }
            Ok(())
        });
    }
}
