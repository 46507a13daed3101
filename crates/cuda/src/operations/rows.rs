//! Softmax and norms: `rows.cu`.

use mlxt_backend::Result;
use mlxt_backend::operations::shapes::Axis;

use super::work::{THREADS, Work};

#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
struct RowOperands {
    x: u64,
    residual: u64,
    gain: u64,
    shift: u64,
    out: u64,
    partial: u64,
    rows: u64,
    cols: u64,
    inner: u64,
    parts: u32,
    eps: f32,
}

/// Columns that threads keep in registers.
const SHORT: usize = 1024;

/// The kernels of one function for short rows: vectors, threads of a row, vectors of a thread.
type Names = [(usize, usize, usize, &'static str); 10];

const SOFTMAX: Names = [
    (4, 2, 1, "softmax_4_2_1"),
    (4, 4, 2, "softmax_4_4_2"),
    (4, 8, 2, "softmax_4_8_2"),
    (4, 16, 2, "softmax_4_16_2"),
    (4, 32, 2, "softmax_4_32_2"),
    (4, 32, 4, "softmax_4_32_4"),
    (4, 32, 8, "softmax_4_32_8"),
    (1, 32, 1, "softmax_1_32_1"),
    (1, 32, 4, "softmax_1_32_4"),
    (1, 32, 32, "softmax_1_32_32"),
];
const LAYER_NORM: Names = [
    (4, 2, 1, "layer_norm_4_2_1"),
    (4, 4, 2, "layer_norm_4_4_2"),
    (4, 8, 2, "layer_norm_4_8_2"),
    (4, 16, 2, "layer_norm_4_16_2"),
    (4, 32, 2, "layer_norm_4_32_2"),
    (4, 32, 4, "layer_norm_4_32_4"),
    (4, 32, 8, "layer_norm_4_32_8"),
    (1, 32, 1, "layer_norm_1_32_1"),
    (1, 32, 4, "layer_norm_1_32_4"),
    (1, 32, 32, "layer_norm_1_32_32"),
];
const ADD_LAYER_NORM: Names = [
    (4, 2, 1, "add_layer_norm_4_2_1"),
    (4, 4, 2, "add_layer_norm_4_4_2"),
    (4, 8, 2, "add_layer_norm_4_8_2"),
    (4, 16, 2, "add_layer_norm_4_16_2"),
    (4, 32, 2, "add_layer_norm_4_32_2"),
    (4, 32, 4, "add_layer_norm_4_32_4"),
    (4, 32, 8, "add_layer_norm_4_32_8"),
    (1, 32, 1, "add_layer_norm_1_32_1"),
    (1, 32, 4, "add_layer_norm_1_32_4"),
    (1, 32, 32, "add_layer_norm_1_32_32"),
];
const RMS_NORM: Names = [
    (4, 2, 1, "rms_norm_4_2_1"),
    (4, 4, 2, "rms_norm_4_4_2"),
    (4, 8, 2, "rms_norm_4_8_2"),
    (4, 16, 2, "rms_norm_4_16_2"),
    (4, 32, 2, "rms_norm_4_32_2"),
    (4, 32, 4, "rms_norm_4_32_4"),
    (4, 32, 8, "rms_norm_4_32_8"),
    (1, 32, 1, "rms_norm_1_32_1"),
    (1, 32, 4, "rms_norm_1_32_4"),
    (1, 32, 32, "rms_norm_1_32_32"),
];

/// Starts the first of the kernels whose threads have room for a row.
fn short(work: &mut Work<'_>, names: &Names, operands: &RowOperands) -> Result<()> {
    let (rows, cols) = (operands.rows as usize, operands.cols as usize);
    let fits =
        |(vector, lanes, each, _): &&(usize, usize, usize, _)| cols % vector == 0 && cols <= vector * lanes * each;
    match names.iter().find(fits) {
        Some(&(_, lanes, _, name)) => work.start(name, rows.div_ceil(THREADS / lanes), operands),
        None => Ok(()),
    }
}

/// Softmax along an axis.
pub(super) fn softmax(work: &mut Work<'_>, x: u64, axis: Axis, out: u64) -> Result<()> {
    let Axis { outer, len, inner } = axis;
    let mut operands =
        RowOperands { x, out, rows: outer as u64, cols: len as u64, inner: inner as u64, ..RowOperands::default() };
    if inner > 1 {
        return work.start("softmax_columns", outer * inner.div_ceil(32), &operands);
    }
    if len <= SHORT {
        return short(work, &SOFTMAX, &operands);
    }
    // Four rounds of a block's loads or more; blocks enough for every multiprocessor to have eight.
    let parts = len.div_ceil(16 * THREADS).min((4 * work.plenty()).div_ceil(outer));
    let partial = work.memory(2 * outer * parts)?;
    (operands.partial, operands.parts) = (partial.address(), parts as u32);
    let names =
        if len % 4 == 0 { ["softmax_parts_4", "softmax_finish_4"] } else { ["softmax_parts_1", "softmax_finish_1"] };
    names.into_iter().try_for_each(|name| work.start(name, outer * parts, &operands))
}

/// How rows are normalised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Norm {
    Layer,
    AddLayer,
    RootMeanSquare,
}

/// A norm over the last dimension: of x, the residual, the gain, the shift, as far as there are any.
pub(super) fn norm(
    work: &mut Work<'_>,
    norm: Norm,
    [x, residual, gain, shift]: [u64; 4],
    shape: &[usize],
    out: u64,
) -> Result<()> {
    let (names, long, eps) = match norm {
        Norm::Layer => (&LAYER_NORM, "layer_norm_long", 1e-5),
        Norm::AddLayer => (&ADD_LAYER_NORM, "add_layer_norm_long", 1e-12),
        Norm::RootMeanSquare => (&RMS_NORM, "rms_norm_long", 1e-6),
    };
    let cols = shape.last().copied().unwrap_or(1);
    let rows = shape.iter().product::<usize>() / cols;
    let operands = RowOperands {
        x,
        residual,
        gain,
        shift,
        out,
        rows: rows as u64,
        cols: cols as u64,
        eps,
        ..RowOperands::default()
    };
    if cols <= SHORT { short(work, names, &operands) } else { work.start(long, rows, &operands) }
}
