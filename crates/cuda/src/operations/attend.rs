//! Attention in f32: `attend.cu`.

use mlxt_backend::Result;

use super::work::{THREADS, Work};
use crate::ffi::module::Shape;

#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
struct AttendOperands {
    q: u64,
    k: u64,
    v: u64,
    out: u64,
    lengths: u64,
    offsets: u64,
    q_batch: u64,
    k_batch: u64,
    out_batch: u64,
    q_head: u64,
    k_head: u64,
    out_head: u64,
    pitch: u64,
    out_pitch: u64,
    queries: i32,
    keys: i32,
    size: i32,
    heads: i32,
    causal: i32,
    scale: f32,
}

/// Which keys a query sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    /// Those up to its own number.
    Before,
    /// As many as the sequence is long; here are the lengths.
    Lengths(u64),
}

/// Queries and keys `[batch, heads, .., size]`, the result like the queries.
pub(super) fn heads(
    work: &mut Work<'_>,
    [q, k, v, out]: [u64; 4],
    (shape, keys): (&[usize], usize),
    seen: Seen,
) -> Result<()> {
    let &[batch, heads, queries, size] = shape else { return Ok(()) };
    let (of_queries, of_keys) = ((queries * size) as u64, (keys * size) as u64);
    let operands = AttendOperands {
        q,
        k,
        v,
        out,
        lengths: if let Seen::Lengths(lengths) = seen { lengths } else { 0 },
        q_batch: heads as u64 * of_queries,
        k_batch: heads as u64 * of_keys,
        out_batch: heads as u64 * of_queries,
        q_head: of_queries,
        k_head: of_keys,
        out_head: of_queries,
        pitch: size as u64,
        out_pitch: size as u64,
        queries: queries as i32,
        keys: keys as i32,
        causal: i32::from(seen == Seen::Before),
        ..AttendOperands::default()
    };
    start(work, operands, (batch, heads, queries), size)
}

/// Sequences end to end, `[rows, 3 * heads * size]`.
pub(super) fn ragged(
    work: &mut Work<'_>,
    (qkv, offsets, out): (u64, u64, u64),
    (sequences, longest): (usize, usize),
    (hidden, heads): (usize, usize),
) -> Result<()> {
    let size = hidden / heads;
    let [q, k, v] = [0, 1, 2].map(|part| qkv + (4 * part * hidden) as u64);
    let operands = AttendOperands {
        q,
        k,
        v,
        out,
        offsets,
        q_head: size as u64,
        k_head: size as u64,
        out_head: size as u64,
        pitch: 3 * hidden as u64,
        out_pitch: hidden as u64,
        queries: longest as i32,
        keys: longest as i32,
        ..AttendOperands::default()
    };
    start(work, operands, (sequences, heads, longest), size)
}

fn start(
    work: &mut Work<'_>,
    operands: AttendOperands,
    (batch, heads, queries): (usize, usize, usize),
    size: usize,
) -> Result<()> {
    /// Queries of a block, and its shared memory: `BLOCK`, four times `BLOCK * PITCH`.
    const TILE: (usize, usize) = (64, 4 * 4 * 64 * 68);
    let scale = 1.0 / (size as f32).sqrt();
    let operands = AttendOperands { size: size as i32, heads: heads as i32, scale, ..operands };
    if size.is_multiple_of(4) && size <= 64 && queries > 16 {
        let grid = [queries.div_ceil(TILE.0), heads, batch];
        let shape = Shape { grid, threads: THREADS, shared: TILE.1 };
        return work.start_shaped("attend_tile", shape, &operands);
    }
    let (name, columns) = match size {
        _ if !size.is_multiple_of(4) => ("attend_wide_1_4", 128),
        0..=128 => ("attend_wide_4_1", 128),
        _ => ("attend_wide_4_8", 1024),
    };
    let grid = [queries.div_ceil(16) * size.div_ceil(columns), heads, batch];
    work.start_shaped(name, Shape { grid, threads: THREADS, shared: 0 }, &operands)
}
