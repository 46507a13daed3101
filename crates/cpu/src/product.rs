//! A plain product of two matrices as others' BLAS interfaces ask for it: `c = alpha a b + beta c`, row-major, either
//! operand transposed, rows any distance apart. Models do not use it: their weights are packed once (`kernels/linear.rs`).

use mlxt_backend::operations::shapes;
use mlxt_backend::{Activation, Error, Result, check};

use crate::Cpu;
use crate::arena::Buffer;
use crate::operations::product::multiply;

/// One side of a product.
#[derive(Debug, Clone, Copy)]
pub struct Operand<'a> {
    /// Its lines, which begin `stride` values apart.
    pub values: &'a [f32],
    /// At least the length of a line.
    pub stride: usize,
    /// Whether the lines are its columns.
    pub transposed: bool,
}

/// `alpha left right + beta c`
#[derive(Debug, Clone, Copy)]
pub struct Product<'a> {
    /// Rows of the left side and of the result.
    pub rows: usize,
    /// Terms of each sum. Where there are none the product is 0.
    pub inner: usize,
    /// Columns of the right side and of the result.
    pub cols: usize,
    /// Multiplies the product.
    pub alpha: f32,
    /// `[rows, inner]`
    pub left: Operand<'a>,
    /// `[inner, cols]`
    pub right: Operand<'a>,
    /// Multiplies what is in the result already; where it is 0, that is not read.
    pub beta: f32,
}

impl Cpu {
    /// Computes a product into the lines of `c`, which begin `stride` values apart.
    ///
    /// # Errors
    /// [`Error::Shape`] for lines that do not hold what the sizes say; out of memory for a transposed copy.
    pub fn product(&self, p: &Product<'_>, c: &mut [f32], stride: usize) -> Result<()> {
        let Product { rows, inner, cols, alpha, beta, .. } = *p;
        if rows == 0 || cols == 0 {
            return Ok(());
        }
        lines("values of the result", c.len(), (rows, cols, stride))?;
        if inner == 0 {
            each_line(c, stride, (rows, cols), |_, line| scale(line, beta));
            return Ok(());
        }
        let (left, right) = (self.straight(&p.left, rows, inner)?, self.straight(&p.right, inner, cols)?);
        let operands = [left.values(&p.left), right.values(&p.right)];
        let sizes = shapes::Product { batch: 1, rows, inner, cols };
        if alpha == 1.0 && beta == 0.0 && stride == cols {
            return multiply(self.context(), operands, None, Activation::Identity, sizes, &mut c[..rows * cols]);
        }
        let mut product = self.arena.take(rows.saturating_mul(cols))?;
        multiply(self.context(), operands, None, Activation::Identity, sizes, &mut product)?;
        each_line(c, stride, (rows, cols), |row, line| {
            scale(line, beta);
            line.iter_mut().zip(&product[row * cols..]).for_each(|(c, p)| *c += alpha * p);
        });
        Ok(())
    }

    /// An operand of `[rows, cols]` as it is or, if it does not lie row after row, a copy that does.
    fn straight(&self, x: &Operand<'_>, rows: usize, cols: usize) -> Result<Straight> {
        let (count, length) = if x.transposed { (cols, rows) } else { (rows, cols) };
        lines("values of an operand", x.values.len(), (count, length, x.stride))?;
        // A single row or column lies the same either way.
        if x.stride == length && (!x.transposed || rows == 1 || cols == 1) {
            return Ok(Straight::AsItIs(rows * cols));
        }
        let mut copy = self.arena.take(rows.saturating_mul(cols))?;
        if x.transposed {
            transpose(x, (rows, cols), &mut copy);
        } else {
            copy.chunks_exact_mut(cols)
                .zip(x.values.chunks(x.stride))
                .for_each(|(to, x)| to.copy_from_slice(&x[..cols]));
        }
        Ok(Straight::Copied(copy))
    }
}

enum Straight {
    AsItIs(usize),
    Copied(Buffer),
}

impl Straight {
    fn values<'a>(&'a self, x: &Operand<'a>) -> &'a [f32] {
        match self {
            Self::AsItIs(len) => &x.values[..*len],
            Self::Copied(copy) => copy,
        }
    }
}

/// That `count` lines of `length` values fit into `found` values, `stride` apart.
fn lines(what: &'static str, found: usize, (count, length, stride): (usize, usize, usize)) -> Result<()> {
    if stride < length {
        let what = format!("lines of {length} values cannot begin {stride} apart");
        return Err(Error::Setting { op: "product", what });
    }
    let needed = (count - 1).saturating_mul(stride).saturating_add(length);
    if found < needed { check::size("product", what, needed, found) } else { Ok(()) }
}

/// Blocks of a line and a few columns at a time: both sides stay within the nearest cache.
fn transpose(x: &Operand<'_>, (rows, cols): (usize, usize), out: &mut [f32]) {
    const BLOCK: usize = 16;
    for first in (0..rows).step_by(BLOCK) {
        let last = rows.min(first + BLOCK);
        for col in 0..cols {
            let line = &x.values[col * x.stride..];
            for row in first..last {
                out[row * cols + col] = line[row];
            }
        }
    }
}

fn each_line(c: &mut [f32], stride: usize, (rows, cols): (usize, usize), mut f: impl FnMut(usize, &mut [f32])) {
    c.chunks_mut(stride).take(rows).enumerate().for_each(|(row, line)| f(row, &mut line[..cols]));
}

fn scale(line: &mut [f32], by: f32) {
    if by == 0.0 {
        line.fill(0.0);
    } else if by != 1.0 {
        for v in line {
            *v *= by;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{assert_near, every_cpu, noise};

    /// `alpha a b + beta c` by plain loops, in f64.
    fn expected(p: &Product<'_>, c: &[f32], stride: usize) -> Vec<f32> {
        let at = |x: &Operand<'_>, row: usize, col: usize| {
            f64::from(x.values[if x.transposed { col * x.stride + row } else { row * x.stride + col }])
        };
        let mut out = c.to_vec();
        for (row, col) in (0..p.rows).flat_map(|row| (0..p.cols).map(move |col| (row, col))) {
            let sum: f64 = (0..p.inner).map(|k| at(&p.left, row, k) * at(&p.right, k, col)).sum();
            let old = if p.beta == 0.0 { 0.0 } else { f64::from(p.beta) * f64::from(c[row * stride + col]) };
            out[row * stride + col] = (f64::from(p.alpha) * sum + old) as f32;
        }
        out
    }

    #[test]
    fn every_form_of_product_is_that_of_plain_loops() {
        every_cpu(|cpu| {
            for (rows, inner, cols) in
                [(1, 1, 1), (3, 5, 7), (17, 33, 40), (1, 30, 9), (9, 30, 1), (50, 64, 65), (2, 0, 3)]
            {
                for form in 0..32 {
                    let set = |bit: usize| form >> bit & 1 == 1;
                    let operand = |values, transposed, length: usize, wide| Operand {
                        values,
                        stride: length + 3 * usize::from(wide),
                        transposed,
                    };
                    let (a, b) = (noise((rows + 3) * (inner + 3) + 9, 1.0), noise((inner + 3) * (cols + 3) + 7, 1.0));
                    let p = Product {
                        rows,
                        inner,
                        cols,
                        alpha: if set(2) { 0.5 } else { 1.0 },
                        left: operand(&a, set(0), if set(0) { rows } else { inner }, set(4)),
                        right: operand(&b, set(1), if set(1) { inner } else { cols }, set(4)),
                        beta: [0.0, 1.0][usize::from(set(3))],
                    };
                    let stride = cols + 2 * usize::from(set(4));
                    let mut c = noise(rows * stride, 1.0);
                    let want = expected(&p, &c, stride);
                    cpu.product(&p, &mut c, stride)?;
                    assert_near(&c, &want, 3e-6);
                }
            }
            Ok(())
        });
    }

    #[test]
    fn what_is_in_the_result_is_not_read_where_beta_is_0() {
        every_cpu(|cpu| {
            let one = |values| Operand { values, stride: 1, transposed: false };
            let p =
                Product { rows: 1, inner: 1, cols: 1, alpha: 2.0, left: one(&[3.0]), right: one(&[4.0]), beta: 0.0 };
            let mut c = [f32::NAN];
            cpu.product(&p, &mut c, 1)?;
            assert_eq!(c, [24.0]);
            Ok(())
        });
    }

    #[test]
    fn lines_that_do_not_hold_what_the_sizes_say_are_errors() {
        every_cpu(|cpu| {
            let operand = |values, stride| Operand { values, stride, transposed: false };
            let product = |left, right| Product { rows: 2, inner: 2, cols: 2, alpha: 1.0, left, right, beta: 0.0 };
            let mut c = [0.0; 4];
            let short = cpu.product(&product(operand(&[0.0; 3], 2), operand(&[0.0; 4], 2)), &mut c, 2);
            assert!(matches!(short, Err(Error::Shape { op: "product", expected: 4, found: 3, .. })));
            let narrow = cpu.product(&product(operand(&[0.0; 4], 1), operand(&[0.0; 4], 2)), &mut c, 2);
            assert!(matches!(narrow, Err(Error::Setting { op: "product", .. })));
            assert!(cpu.product(&product(operand(&[0.0; 4], 2), operand(&[0.0; 4], 2)), &mut c[..3], 2).is_err());
            Ok(())
        });
    }
}
