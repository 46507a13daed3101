//! Products of matrices that arrive as they lie: `gelu(a b + bias)`.
//!
//! cuBLASLt computes most. One column is a sum of rows times weights, one row a sum of weighted rows, and a sum far longer
//! than its result is cut into many products whose results are added up.

use mlxt_backend::Result;
use mlxt_backend::operations::shapes::{Axis, Product};

use super::reduce;
use super::work::{THREADS, Work};
use crate::ffi::failure;
use crate::ffi::matmul::{Places, Sizes};

#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct FinishOperands {
    x: u64,
    bias: u64,
    count: u64,
    cols: u32,
    gelu: u32,
}

/// Where everything is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Operands {
    pub(super) a: u64,
    pub(super) b: u64,
    pub(super) bias: Option<u64>,
    /// Whether GELU follows.
    pub(super) gelu: bool,
    pub(super) out: u64,
}

/// Sums from here on are cut, if their results are few.
const LONG: usize = 1 << 13;
/// Results that are few: with more, there is enough to do for every multiprocessor.
const FEW: usize = 1 << 14;
/// The most parts of a sum, and the fewest terms of one.
const PARTS: usize = 512;
const TERMS: usize = 256;

/// `out = gelu(a b + bias)`
pub(super) fn multiply(work: &mut Work<'_>, o: Operands, p: Product) -> Result<()> {
    let Product { batch, rows, inner, cols } = p;
    let bias = o.bias.unwrap_or(0);
    let results = batch * rows * cols;
    if cols == 1 {
        reduce::weighted_rows(work, [o.a, o.b, bias, o.out], (batch, rows, inner))?;
        return finish(work, o, (results, cols), (false, o.gelu));
    }
    if rows == 1 {
        reduce::weighted_columns(work, [o.b, o.a, bias, o.out], Axis { outer: batch, len: inner, inner: cols })?;
        return finish(work, o, (results, cols), (false, o.gelu));
    }
    let parts = if batch == 1 && inner >= LONG && results <= FEW { cut(inner) } else { 1 };
    if parts > 1 {
        let partial = work.memory(parts * results)?;
        let terms = inner / parts;
        let sizes = Sizes {
            batch: parts,
            rows,
            inner: terms,
            cols,
            a_row: inner,
            a_next: terms,
            b_next: terms * cols,
            bias: false,
        };
        let places = Places { a: o.a, b: o.b, bias: 0, out: partial.address() };
        if start(work, sizes, places)? {
            reduce::sum(work, partial.address(), Axis { outer: 1, len: parts, inner: results }, o.out)?;
            return finish(work, o, (results, cols), (o.bias.is_some(), o.gelu));
        }
    }
    // GELU is a pass of its own (cuBLASLt has its approximation alone), and takes the bias with it.
    let fused = o.bias.is_some() && !o.gelu;
    let plain =
        Sizes { batch, rows, inner, cols, a_row: inner, a_next: rows * inner, b_next: inner * cols, bias: false };
    let places = Places { a: o.a, b: o.b, bias, out: o.out };
    if fused && start(work, Sizes { bias: true, ..plain }, places)? {
        return Ok(());
    }
    if !start(work, plain, places)? {
        return Err(failure(format!("cuBLASLt has no algorithm for {batch} x [{rows}, {inner}] [{inner}, {cols}]")));
    }
    finish(work, o, (results, cols), (o.bias.is_some(), o.gelu))
}

/// Starts a product, if cuBLASLt has an algorithm for it.
fn start(work: &mut Work<'_>, sizes: Sizes, places: Places) -> Result<bool> {
    let product = work.product(sizes, places)?;
    if !product.is_possible() {
        return Ok(false);
    }
    // SAFETY: the places hold arrays of the checked shapes that the sizes were made from.
    unsafe { product.run(places) }?;
    Ok(true)
}

/// In how many equal parts, of whole vectors, a sum is cut.
fn cut(inner: usize) -> usize {
    let fits =
        |parts: &usize| inner.is_multiple_of(*parts) && inner / parts >= TERMS && (inner / parts).is_multiple_of(4);
    (2..=PARTS).rev().find(fits).unwrap_or(1)
}

/// What the product itself did not do.
fn finish(work: &mut Work<'_>, o: Operands, (count, cols): (usize, usize), (bias, gelu): (bool, bool)) -> Result<()> {
    match (o.bias, bias, gelu) {
        (Some(bias), true, _) => {
            let (name, step) = if cols.is_multiple_of(4) { ("finish_4", 4) } else { ("finish_1", 1) };
            let (count, cols) = (count / step, (cols / step) as u32);
            let operands = FinishOperands { x: o.out, bias, count: count as u64, cols, gelu: u32::from(gelu) };
            work.start(name, count.div_ceil(4 * THREADS), &operands)
        }
        (_, _, true) => super::map::map(work, "map_gelu", (o.out, o.out, 0), count),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_equal_and_whole_vectors() {
        for inner in [8192, 9000, 10_007, 51_200, 1_000_000] {
            let parts = cut(inner);
            assert!(
                parts == 1 || (inner % parts == 0 && (inner / parts).is_multiple_of(4) && inner / parts >= TERMS),
                "{inner}"
            );
        }
        assert_eq!(cut(1_000_000), 500);
        assert_eq!(cut(10_007), 1);
    }
}
