//! Rows taken out of a tensor, and rows of each sequence made one.

use mlxt_backend::{Reduction, Segments};

use crate::simd::{Kernel, Simd, Token};
use crate::threads::Pool;

/// `out[i] = x[indices[i]]`, rows of `cols`.
pub(crate) fn take(pool: &Pool, x: &[f32], cols: usize, indices: &[u32], out: &mut [f32]) {
    pool.rows(out, cols, cols / 8, |first, rows| {
        for (row, &index) in rows.chunks_exact_mut(cols).zip(&indices[first..]) {
            row.copy_from_slice(&x[index as usize * cols..][..cols]);
        }
    });
}

/// One row of `cols` for each sequence.
pub(crate) fn reduce(
    (token, pool): (Token, &Pool),
    x: &[f32],
    cols: usize,
    segments: &Segments,
    reduction: Reduction,
    out: &mut [f32],
) {
    let rows_each = segments.rows().div_ceil(segments.count());
    pool.rows(out, cols, rows_each * cols / 4, |first, rows| {
        for (row, range) in rows.chunks_exact_mut(cols).zip((first..).map(|i| segments.range(i))) {
            token.run(Reduce { x: &x[range.start * cols..range.end * cols], reduction, out: row });
        }
    });
}

/// Rows summed before the sum joins the total: sums of few terms of like size keep the rounding of long sequences low.
const BLOCK: usize = 32;

struct Reduce<'a> {
    /// The rows of one sequence.
    x: &'a [f32],
    reduction: Reduction,
    out: &'a mut [f32],
}

impl Kernel for Reduce<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let cols = self.out.len();
        let rows = self.x.len() / cols;
        let count = rows as f64;
        let factor = match self.reduction {
            Reduction::Max => 1.0,
            Reduction::Mean => 1.0 / count,
            Reduction::MeanSqrtLength => 1.0 / count.sqrt(),
            Reduction::WeightedMean => 2.0 / (count * (count + 1.0)),
        };
        for (i, out) in self.out.chunks_mut(S::LANES).enumerate() {
            let (first, width) = (i * S::LANES, out.len());
            let row = |r: usize| s.get(&self.x[r * cols + first..][..width]);
            let value = match self.reduction {
                Reduction::Max => (1..rows).fold(row(0), |largest, r| s.max(largest, row(r))),
                Reduction::Mean | Reduction::MeanSqrtLength => blocks(s, rows, |sum, r| s.add(sum, row(r))),
                Reduction::WeightedMean => blocks(s, rows, |sum, r| s.mul_add(s.splat((r + 1) as f32), row(r), sum)),
            };
            s.put(out, s.mul(value, s.splat(factor as f32)));
        }
    }
}

/// The sum over all rows, in blocks.
#[inline(always)]
fn blocks<S: Simd>(s: S, rows: usize, add: impl Fn(S::V, usize) -> S::V) -> S::V {
    let mut total = s.splat(0.0);
    for start in (0..rows).step_by(BLOCK) {
        let block = (start..rows.min(start + BLOCK)).fold(s.splat(0.0), &add);
        total = s.add(total, block);
    }
    total
}

#[cfg(test)]
mod tests {
    use crate::tests::{assert_near, every_cpu, noise};
    use mlxt_backend::{Backend, Reduction, Reference, Segments};

    #[test]
    fn reductions_are_the_references() {
        for cols in (1..35).chain([384, 1000]) {
            let segments = Segments::from_lengths(&[1, 7, 32, 33, 100, 2]).unwrap();
            let rows = segments.rows();
            let values = noise(rows * cols, 1.0);
            let x = Reference.write(rows, cols, &values).unwrap();
            for reduction in Reduction::ALL {
                let want = Reference.reduce_rows(&x, &segments, reduction).unwrap();
                let want = Reference.read(&want).unwrap();
                every_cpu(|cpu| {
                    let x = cpu.write(rows, cols, &values)?;
                    let got = cpu.reduce_rows(&x, &cpu.layout(&segments)?, reduction)?;
                    assert_near(&cpu.read(&got)?, &want, 1e-6);
                    Ok(())
                });
            }
        }
    }

    #[test]
    fn taken_rows_are_exact() {
        for (rows, cols) in [(1, 1), (9, 3), (40, 65), (600, 768)] {
            let values = noise(rows * cols, 1.0);
            let indices: Vec<u32> = (0..=3 * rows as u32 / 2).map(|i| (i * 7) % rows as u32).collect();
            let want: Vec<f32> = indices.iter().flat_map(|&i| values[i as usize * cols..][..cols].to_vec()).collect();
            every_cpu(|cpu| {
                let x = cpu.write(rows, cols, &values)?;
                assert_eq!(cpu.read(&cpu.take_rows(&x, &indices)?)?, want);
                Ok(())
            });
        }
    }
}
