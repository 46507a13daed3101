//! Rotary position embeddings: queries and keys turned by their position, in place.

use std::sync::Arc;

use mlxt_backend::{Result, Rotation, Segments};

use crate::arena::Arena;
use crate::simd::{Kernel, Simd, Token};
use crate::threads::Pool;

/// Turns the queries and keys of `qkv`, `[rows, 3 * heads * head_size]`.
///
/// # Errors
/// Out of memory for the sines.
pub(crate) fn rotate(
    (token, pool, arena): (Token, &Pool, &Arc<Arena>),
    qkv: &mut [f32],
    segments: &Segments,
    r: &Rotation,
) -> Result<()> {
    let size = r.head_size;
    let frequencies = r.frequencies();
    // `[position][cosines, sines]`: all sequences and heads share them.
    let mut turns = arena.take(segments.longest().saturating_mul(size))?;
    pool.rows(&mut turns, size, size * 16, |first, rows| {
        for (position, row) in (first..).zip(rows.chunks_exact_mut(size)) {
            let (cosines, sines) = row.split_at_mut(size / 2);
            for ((cos, sin), frequency) in cosines.iter_mut().zip(sines).zip(&frequencies) {
                (*sin, *cos) = (position as f32 * frequency).sin_cos();
            }
        }
    });
    let cols = 3 * r.heads * size;
    pool.rows(qkv, cols, cols / 4, |first, rows| {
        let mut sequence = segments.offsets().partition_point(|&start| start <= first) - 1;
        for (row, values) in (first..).zip(rows.chunks_exact_mut(cols)) {
            if row == segments.range(sequence).end {
                sequence += 1;
            }
            let position = row - segments.range(sequence).start;
            let turn = &turns[position * size..][..size];
            token.run(Row { heads: &mut values[..2 * r.heads * size], turn });
        }
    });
    Ok(())
}

struct Row<'a> {
    /// Heads of queries, then of keys.
    heads: &'a mut [f32],
    /// Cosines and sines of this position.
    turn: &'a [f32],
}

impl Kernel for Row<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let size = self.turn.len();
        let (cosines, sines) = self.turn.split_at(size / 2);
        for head in self.heads.chunks_exact_mut(size) {
            let (left, right) = head.split_at_mut(size / 2);
            let turns = cosines.chunks(S::LANES).zip(sines.chunks(S::LANES));
            for ((x, y), (cos, sin)) in left.chunks_mut(S::LANES).zip(right.chunks_mut(S::LANES)).zip(turns) {
                let (old_x, old_y, cos, sin) = (s.get(x), s.get(y), s.get(cos), s.get(sin));
                s.put(x, s.sub(s.mul(old_x, cos), s.mul(old_y, sin)));
                s.put(y, s.mul_add(old_y, cos, s.mul(old_x, sin)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::tests::{assert_near, every_cpu, noise};
    use mlxt_backend::{Backend, Reference, Rotation, Segments};

    #[test]
    fn positions_count_from_the_start_of_each_sequence() {
        for head_size in (2..40).step_by(2).chain([64]) {
            let heads = 3;
            let r = Rotation { heads, head_size, theta: 10_000.0 };
            // Enough rows that threads begin inside sequences.
            let segments = Segments::from_lengths(&[1, 1, 90, 3, 200, 40]).unwrap();
            let (rows, cols) = (segments.rows(), 3 * heads * head_size);
            let values = noise(rows * cols, 1.0);
            let want = Reference.rotate(Reference.write(rows, cols, &values).unwrap(), &segments, &r).unwrap();
            let want = Reference.read(&want).unwrap();
            every_cpu(|cpu| {
                let got = cpu.rotate(cpu.write(rows, cols, &values)?, &cpu.layout(&segments)?, &r)?;
                assert_near(&cpu.read(&got)?, &want, 3e-7);
                Ok(())
            });
        }
    }
}
