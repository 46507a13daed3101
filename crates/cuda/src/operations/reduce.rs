//! Sums, largest values and what is made of them: `reduce.cu`.

use mlxt_backend::Result;
use mlxt_backend::operations::shapes::Axis;

use super::work::{THREADS, Work};

#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
struct ReduceOperands {
    x: u64,
    y: u64,
    bias: u64,
    out: u64,
    partial: u64,
    counters: u64,
    outer: u64,
    len: u64,
    inner: u64,
    group: u64,
    parts: u32,
    lanes: u32,
    scale: f32,
}

/// The kernels of one function.
struct Names {
    rows_1: &'static str,
    rows_4x4: &'static str,
    rows_4x8: &'static str,
    rows_4x32: &'static str,
    long_1: &'static str,
    long_4: &'static str,
    columns_1: &'static str,
    columns_4: &'static str,
}

const SUM: Names = Names {
    rows_1: "sum_rows_1",
    rows_4x4: "sum_rows_4x4",
    rows_4x8: "sum_rows_4x8",
    rows_4x32: "sum_rows_4x32",
    long_1: "sum_long_1",
    long_4: "sum_long_4",
    columns_1: "sum_columns_1",
    columns_4: "sum_columns_4",
};
const WEIGHTED: Names = Names {
    rows_1: "weighted_rows_1",
    rows_4x4: "weighted_rows_4x4",
    rows_4x8: "weighted_rows_4x8",
    rows_4x32: "weighted_rows_4x32",
    long_1: "weighted_long_1",
    long_4: "weighted_long_4",
    columns_1: "weighted_columns_1",
    columns_4: "weighted_columns_4",
};
const ARGMAX: Names = Names {
    rows_1: "argmax_rows_1",
    rows_4x4: "argmax_rows_4x4",
    rows_4x8: "argmax_rows_4x8",
    rows_4x32: "argmax_rows_4x32",
    long_1: "argmax_long_1",
    long_4: "argmax_long_4",
    columns_1: "argmax_columns_1",
    columns_4: "argmax_columns_4",
};

/// Rows from here on are cut among several blocks, if there are few.
const CUT: usize = 1 << 14;
/// Values of a block of such a row.
const PART: usize = 32 * THREADS;

/// The sum along an axis.
pub(super) fn sum(work: &mut Work<'_>, x: u64, axis: Axis, out: u64) -> Result<()> {
    let operands = ReduceOperands { x, out, scale: 1.0, ..ReduceOperands::default() };
    if axis.inner == 1 && axis.len >= CUT && axis.outer < work.plenty() {
        let name = if axis.len.is_multiple_of(4) || axis.outer == 1 { "sum_cut_4" } else { "sum_cut_1" };
        return cut(work, name, operands, axis.outer, axis.len);
    }
    lines(work, &SUM, operands, axis)
}

/// Where along an axis the largest value is.
pub(super) fn argmax(work: &mut Work<'_>, x: u64, axis: Axis, out: u64) -> Result<()> {
    lines(work, &ARGMAX, ReduceOperands { x, out, ..ReduceOperands::default() }, axis)
}

/// Each row of `x [batch * rows, len]` times `y [batch, len]`, plus the one value of the bias.
pub(super) fn weighted_rows(
    work: &mut Work<'_>,
    [x, y, bias, out]: [u64; 4],
    (batch, rows, len): (usize, usize, usize),
) -> Result<()> {
    let operands = ReduceOperands { x, y, bias, out, group: rows as u64, scale: 1.0, ..ReduceOperands::default() };
    lines(work, &WEIGHTED, operands, Axis { outer: batch * rows, len, inner: 1 })
}

/// The rows of each `x [len, inner]` of `outer` by the weights `y [outer, len]`, plus the bias `[inner]`.
pub(super) fn weighted_columns(work: &mut Work<'_>, [x, y, bias, out]: [u64; 4], axis: Axis) -> Result<()> {
    columns(work, &WEIGHTED, ReduceOperands { x, y, bias, out, scale: 1.0, ..ReduceOperands::default() }, axis)
}

/// The mean of the cross entropies of probabilities and targets.
pub(super) fn cross_entropy(work: &mut Work<'_>, p: u64, y: u64, count: usize, out: u64) -> Result<()> {
    let scale = (1.0 / count as f64) as f32;
    cut(work, "entropy_cut_4", ReduceOperands { x: p, y, out, scale, ..ReduceOperands::default() }, 1, count)
}

fn cut(work: &mut Work<'_>, name: &'static str, operands: ReduceOperands, outer: usize, len: usize) -> Result<()> {
    // Eight blocks of this size fit on a multiprocessor.
    let parts = len.div_ceil(PART).min((4 * work.plenty()).div_ceil(outer));
    let partial = work.memory(outer * parts)?;
    let operands = ReduceOperands {
        partial: partial.address(),
        counters: work.counters(outer)?,
        outer: outer as u64,
        len: len as u64,
        inner: 1,
        parts: parts as u32,
        ..operands
    };
    work.start(name, outer * parts, &operands)
}

fn lines(work: &mut Work<'_>, names: &Names, operands: ReduceOperands, axis: Axis) -> Result<()> {
    let Axis { outer, len, inner } = axis;
    if inner > 1 {
        return columns(work, names, operands, axis);
    }
    let operands = ReduceOperands { outer: outer as u64, len: len as u64, inner: 1, ..operands };
    let vectors = len % 4 == 0;
    let short = len <= 1024 || (len <= 4096 && outer >= 4 * work.plenty());
    let (name, rows) = match (short, vectors) {
        (false, false) => (names.long_1, 1),
        (false, true) => (names.long_4, 1),
        (true, false) => (names.rows_1, THREADS / 32),
        (true, true) if len <= 64 => (names.rows_4x4, THREADS / 4),
        (true, true) if len <= 256 => (names.rows_4x8, THREADS / 8),
        (true, true) => (names.rows_4x32, THREADS / 32),
    };
    work.start(name, outer.div_ceil(rows), &operands)
}

fn columns(work: &mut Work<'_>, names: &Names, operands: ReduceOperands, axis: Axis) -> Result<()> {
    let Axis { outer, len, inner } = axis;
    let (name, step) = if inner % 4 == 0 { (names.columns_4, 4) } else { (names.columns_1, 1) };
    let across = inner / step;
    // Neighbours read a whole line of the cache; with little to do they share it among more blocks.
    let mut lanes = 32.min(across.next_power_of_two());
    while lanes > 4 && outer * across.div_ceil(lanes) < work.plenty() {
        lanes /= 2;
    }
    let operands =
        ReduceOperands { outer: outer as u64, len: len as u64, inner: inner as u64, lanes: lanes as u32, ..operands };
    work.start(name, outer * across.div_ceil(lanes), &operands)
}

#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct PoolOperands {
    x: u64,
    offsets: u64,
    out: u64,
    partial: u64,
    counters: u64,
    cols: u32,
    tiles: u32,
}

/// The mean of each sequence's rows, scaled to length 1.
pub(super) fn pool(
    work: &mut Work<'_>,
    (x, offsets, out): (u64, u64, u64),
    (sequences, cols): (usize, usize),
) -> Result<()> {
    let tiles = cols.div_ceil(32);
    let partial = work.memory(sequences * tiles)?;
    let counters = work.counters(sequences)?;
    let operands =
        PoolOperands { x, offsets, out, partial: partial.address(), counters, cols: cols as u32, tiles: tiles as u32 };
    work.start("pool", sequences * tiles, &operands)
}
