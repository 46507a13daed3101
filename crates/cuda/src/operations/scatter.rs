//! Rows brought to indices: `scatter.cu`.

use mlxt_backend::Result;
use mlxt_backend::operations::Operation;

use super::work::{THREADS, Work};
use crate::ffi::memory::Memory;

#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct ScatterOperands {
    x: u64,
    source: u64,
    target: u64,
    out: u64,
    pairs: u64,
    count: u64,
    rows: u32,
    cols: u32,
}

/// Comparisons of rows with edges that are not worth a second kernel.
const FEW: usize = 1 << 22;
/// Rows of which all pairs are counted (16 MiB of counts).
const PAIRS: usize = 1 << 11;

/// `rows` of `cols` values; `count` edges.
pub(super) fn scatter(
    work: &mut Work<'_>,
    operation: &Operation,
    [x, source, target]: [u64; 3],
    (rows, cols, count): (usize, usize, usize),
    out: &Memory,
) -> Result<()> {
    let [in_rows, in_pairs, each] = match operation {
        Operation::ScatterSum => ["scatter_rows_sum", "scatter_pairs_sum", "scatter_each_sum"],
        Operation::ScatterMax => ["scatter_rows_max", "scatter_pairs_max", "scatter_each_max"],
        _ => ["scatter_rows_last", "scatter_take", "scatter_last"],
    };
    let mut operands = ScatterOperands {
        x,
        source,
        target,
        out: out.address(),
        pairs: 0,
        count: count as u64,
        rows: rows as u32,
        cols: cols as u32,
    };
    let tiles = cols.div_ceil(32);
    if rows.saturating_mul(count) <= FEW {
        return work.start(in_rows, (rows * tiles).div_ceil(THREADS / 32), &operands);
    }
    let zeros = |work: &Work<'_>, values: usize| -> Result<Memory> {
        let memory = work.memory(values)?;
        memory.fill(0, memory.bytes())?;
        Ok(memory)
    };
    if *operation == Operation::Scatter {
        let last = zeros(work, rows)?;
        operands.pairs = last.address();
        work.start(each, count.div_ceil(THREADS), &operands)?;
        return work.start(in_pairs, (rows * cols).div_ceil(THREADS), &operands);
    }
    if rows <= PAIRS {
        let pairs = zeros(work, rows * rows)?;
        operands.pairs = pairs.address();
        work.start("scatter_count", count.div_ceil(4 * THREADS), &operands)?;
        return work.start(in_pairs, rows * tiles, &operands);
    }
    out.fill(0, out.bytes())?;
    work.start(each, (count * cols).div_ceil(THREADS), &operands)
}
