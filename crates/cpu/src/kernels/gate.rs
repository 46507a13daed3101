//! Gated activations: one half of a row activated, times the other.

use mlxt_backend::Activation;

use super::activate::activate;
use crate::simd::{Kernel, Simd, Token};
use crate::threads::Pool;

/// `out = activation(left) * right`, where each row of `x` is left and right, `cols` each.
pub(crate) fn gate((token, pool): (Token, &Pool), x: &[f32], cols: usize, activation: Activation, out: &mut [f32]) {
    // An activation is about 20 operations of a vector.
    pool.rows(out, cols, cols, |first, rows| {
        token.run(Gate { x: &x[2 * first * cols..][..2 * rows.len()], cols, activation, out: rows });
    });
}

struct Gate<'a> {
    x: &'a [f32],
    cols: usize,
    activation: Activation,
    out: &'a mut [f32],
}

impl Kernel for Gate<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for (x, out) in self.x.chunks_exact(2 * self.cols).zip(self.out.chunks_exact_mut(self.cols)) {
            let (left, right) = x.split_at(self.cols);
            out.copy_from_slice(left);
            activate(s, self.activation, std::iter::once(&mut *out));
            for (out, right) in out.chunks_mut(S::LANES).zip(right.chunks(S::LANES)) {
                s.put(out, s.mul(s.get(out), s.get(right)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::tests::{assert_near, every_cpu, noise};
    use mlxt_backend::{Activation, Backend, Reference};

    #[test]
    fn every_tail_is_the_references() {
        for cols in (1..40).chain([1152]) {
            let rows = if cols > 1000 { 70 } else { 3 };
            let values = noise(rows * 2 * cols, 4.0);
            for activation in [Activation::Gelu, Activation::Silu, Activation::Identity] {
                let x = Reference.write(rows, 2 * cols, &values).unwrap();
                let want = Reference.gate(&x, activation).unwrap();
                let want = Reference.read(&want).unwrap();
                every_cpu(|cpu| {
                    let x = cpu.write(rows, 2 * cols, &values)?;
                    assert_near(&cpu.read(&cpu.gate(&x, activation)?)?, &want, 5e-7);
                    Ok(())
                });
            }
        }
    }
}
