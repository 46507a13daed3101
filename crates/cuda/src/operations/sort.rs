//! Lines sorted: `sort.cu`.

use mlxt_backend::Result;
use mlxt_backend::operations::shapes::Axis;

use super::work::{THREADS, Work};
use crate::ffi::module::Shape;

#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct SortOperands {
    x: u64,
    out: u64,
    from: u64,
    to: u64,
    lines: u64,
    len: u64,
    inner: u64,
    run: u64,
    pieces: u32,
    last: u32,
}

/// Values that a warp sorts in its registers.
const PIECE: usize = 1024;
/// Values that a thread of a merge writes.
const MERGED: usize = 8;
/// Kernels by the logarithm of the values of a thread: lines, columns and how many of those a block takes.
const SHORT: [(&str, &str, usize); 6] = [
    ("sort_lines_1", "sort_columns_1", 32),
    ("sort_lines_2", "sort_columns_2", 32),
    ("sort_lines_4", "sort_columns_4", 32),
    ("sort_lines_8", "sort_columns_8", 32),
    ("sort_lines_16", "sort_columns_16", 16),
    ("sort_lines_32", "sort_columns_32", 8),
];

/// Ascending along an axis.
pub(super) fn sort(work: &mut Work<'_>, x: u64, axis: Axis, out: u64) -> Result<()> {
    let Axis { outer, len, inner } = axis;
    let lines = outer * inner;
    let pieces = len.div_ceil(PIECE);
    let mut operands = SortOperands {
        x,
        out,
        from: 0,
        to: 0,
        lines: lines as u64,
        len: len as u64,
        inner: inner as u64,
        run: PIECE as u64,
        pieces: pieces as u32,
        last: 0,
    };
    // Four warps a block.
    let by_warps = |warps: usize| Shape { grid: [warps.div_ceil(4), 1, 1], threads: 128, shared: 0 };
    if len <= PIECE {
        let power = len.div_ceil(32).next_power_of_two().ilog2() as usize;
        let (in_lines, in_columns, width) = SHORT[power];
        if inner == 1 {
            return work.start_shaped(in_lines, by_warps(lines), &operands);
        }
        return work.start(in_columns, outer * inner.div_ceil(width), &operands);
    }
    let mut buffers = [work.memory(lines * len)?, work.memory(lines * len)?];
    operands.to = buffers[0].address();
    work.start_shaped("sort_pieces", by_warps(lines * pieces), &operands)?;
    let mut run = PIECE;
    while run < len {
        (operands.from, operands.to, operands.run) = (buffers[0].address(), buffers[1].address(), run as u64);
        operands.last = u32::from(2 * run >= len);
        let threads = lines * len.div_ceil(MERGED);
        work.start("sort_merge", threads.div_ceil(THREADS), &operands)?;
        buffers.swap(0, 1);
        run *= 2;
    }
    Ok(())
}
