//! Functions of each value, and values copied: `map.cu`.

use mlxt_backend::Result;

use super::work::{THREADS, Work};
use crate::ffi::memory::Memory;

/// Vectors of a block.
const BLOCK: usize = 4 * THREADS;

#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct MapOperands {
    x: u64,
    out: u64,
    slope: u64,
    count: u64,
}

/// `out = f(x)`, `f` being the kernel of that name.
pub(super) fn map(
    work: &mut Work<'_>,
    name: &'static str,
    (x, out, slope): (u64, u64, u64),
    count: usize,
) -> Result<()> {
    let operands = MapOperands { x, out, slope, count: count as u64 };
    work.start(name, (count / 4).div_ceil(BLOCK).max(1), &operands)
}

#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct JoinOperands {
    a: u64,
    b: u64,
    out: u64,
    count: u64,
    wide_a: u64,
    wide: u64,
}

/// Rows of one array and of another in turns, each with the length of its rows.
pub(super) fn join(
    work: &mut Work<'_>,
    [(a, wide_a), (b, wide_b)]: [(u64, usize); 2],
    (out, count): (u64, usize),
) -> Result<()> {
    let (name, step) = if wide_a % 4 == 0 && wide_b % 4 == 0 { ("join_4", 4) } else { ("join_1", 1) };
    let [count, wide_a, wide_b] = [count, wide_a, wide_b].map(|n| (n / step) as u64);
    let operands = JoinOperands { a, b, out, count, wide_a, wide: wide_a + wide_b };
    work.start(name, (count as usize).div_ceil(BLOCK), &operands)
}

#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct GatherOperands {
    x: u64,
    index: u64,
    out: u64,
    count: u64,
    cols: u32,
    rows: u32,
}

/// `out[e] = x[index[e]]`
pub(super) fn gather(
    work: &mut Work<'_>,
    (x, index, out): (u64, u64, u64),
    (rows, cols): (usize, usize),
    count: usize,
) -> Result<()> {
    let (name, step) = if cols % 4 == 0 { ("gather_4", 4) } else { ("gather_1", 1) };
    let count = count / step;
    let operands = GatherOperands { x, index, out, count: count as u64, cols: (cols / step) as u32, rows: rows as u32 };
    work.start(name, count.div_ceil(BLOCK), &operands)
}

#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct RopeOperands {
    x: u64,
    cosines: u64,
    sines: u64,
    out: u64,
    pairs: u64,
    length: u32,
    half: u32,
}

/// Halves of `[.., length, size]` rotated by position.
pub(super) fn rope(work: &mut Work<'_>, x: u64, shape: &[usize], out: u64) -> Result<()> {
    let &[batch, heads, length, size] = shape else { return Ok(()) };
    let half = size / 2;
    if !work.state.angles.contains_key(&(length, half)) {
        let made = angles(work, length, half)?;
        work.state.angles.insert((length, half), made);
    }
    let places = work.state.angles.get(&(length, half)).map_or([0; 2], |made| made.each_ref().map(Memory::address));
    let (name, step) = if half % 4 == 0 { ("rope_4", 4) } else { ("rope_1", 1) };
    let pairs = batch * heads * length * half / step;
    let operands = RopeOperands {
        x,
        cosines: places[0],
        sines: places[1],
        out,
        pairs: pairs as u64,
        length: length as u32,
        half: (half / step) as u32,
    };
    work.start(name, pairs.div_ceil(THREADS), &operands)
}

/// `[length, half]`: cosines and sines of `t 10000^(-j / half)`, rounded once.
fn angles(work: &Work<'_>, length: usize, half: usize) -> Result<[Memory; 2]> {
    let angle = |i: usize| (i / half) as f64 * 10_000_f64.powf(-((i % half) as f64) / half as f64);
    let table = |f: fn(f64) -> f64| (0..length * half).map(|i| f(angle(i)) as f32).collect::<Vec<_>>();
    let context = &work.inner.context;
    Ok([Memory::with(context, &table(f64::cos))?, Memory::with(context, &table(f64::sin))?])
}
