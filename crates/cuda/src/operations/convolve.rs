//! Convolutions without windows in memory: `product.cu`.

use mlxt_backend::Result;
use mlxt_backend::operations::shapes::Convolution;

use super::work::{THREADS, Work};
use crate::ffi::module::Shape;

#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct ConvolveOperands {
    x: u64,
    w: u64,
    out: u64,
    count: i32,
    height: i32,
    width: i32,
    channels: i32,
    outputs: i32,
    rows: i32,
    cols: i32,
    tile: i32,
    some: i32,
    pitch: i32,
}

/// Threads of a block and the outputs each of them computes: `CONVOLVE_THREADS`, `CONVOLVE_OUTPUTS`.
const BLOCK: usize = 128;
const OUTPUTS: usize = 8;
/// Shared memory of a block: four or more fit on a multiprocessor.
const SHARED: usize = 44 << 10;

/// How a block's work is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tiling {
    /// Positions of a thread: 1 or 4.
    positions: usize,
    /// Positions side by side.
    tile: usize,
    /// Channels at a time.
    some: usize,
    /// From one position to the next in shared memory.
    pitch: usize,
    /// Bytes of shared memory.
    shared: usize,
}

/// Cross-correlation, channels last.
pub(super) fn convolve(work: &mut Work<'_>, (x, w, out): (u64, u64, u64), c: Convolution) -> Result<()> {
    let [height, width] = c.output();
    let mut operands = ConvolveOperands {
        x,
        w,
        out,
        count: c.count as i32,
        height: c.size[0] as i32,
        width: c.size[1] as i32,
        channels: c.channels as i32,
        outputs: c.outputs as i32,
        rows: c.window[0] as i32,
        cols: c.window[1] as i32,
        tile: 0,
        some: 0,
        pitch: 0,
    };
    let Some(tiling) = tiling(c, work.plenty()) else {
        let blocks = (c.count * height * width * c.outputs).div_ceil(THREADS);
        return work.start("convolve_any", blocks, &operands);
    };
    (operands.tile, operands.some, operands.pitch) = (tiling.tile as i32, tiling.some as i32, tiling.pitch as i32);
    let name = match (c.channels.is_multiple_of(4), tiling.positions) {
        (true, 1) => "convolve_4_1",
        (true, _) => "convolve_4_4",
        (false, 1) => "convolve_1_1",
        (false, _) => "convolve_1_4",
    };
    let rows = BLOCK * tiling.positions / tiling.tile;
    let grid = [c.count * width.div_ceil(tiling.tile) * height.div_ceil(rows), c.outputs.div_ceil(OUTPUTS), 1];
    work.start_shaped(name, Shape { grid, threads: BLOCK, shared: tiling.shared }, &operands)
}

/// The tiling of a convolution, if its windows fit in shared memory. Four positions a thread where that still leaves
/// `plenty` of blocks, and no tile half empty.
fn tiling(c: Convolution, plenty: usize) -> Option<Tiling> {
    let [height, width] = c.output();
    let groups = c.outputs.div_ceil(OUTPUTS);
    let fours = c.count * (height * width).div_ceil(4 * BLOCK) * groups >= plenty;
    let lines = height == 1;
    let positions = if fours && (!lines || width.next_power_of_two() >= 4 * BLOCK) { 4 } else { 1 };
    let most = match (lines, positions) {
        (true, _) => positions * BLOCK,
        (false, 4) => 64,
        (false, _) => 32,
    };
    let tile = width.next_power_of_two().min(most);
    let lines = positions * BLOCK / tile + c.window[0] - 1;
    let vector = if c.channels.is_multiple_of(4) { 4 } else { 1 };
    // Vectors at an odd distance in units of their size meet no two in one bank.
    let pitch = |some: usize| if (some / vector).is_multiple_of(2) { some + vector } else { some };
    let shared =
        |some: usize| 4 * (c.window[0] * c.window[1] * some * OUTPUTS + lines * (tile + c.window[1] - 1) * pitch(some));
    let some = (1..=c.channels / vector).rev().map(|n| n * vector).find(|&some| shared(some) <= SHARED)?;
    Some(Tiling { positions, tile, some, pitch: pitch(some), shared: shared(some) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_fit_in_shared_memory() {
        for (x, w) in [
            (&[100, 256, 3][..], &[8, 3, 3][..]),
            (&[16, 1000, 80], &[128, 11, 80]),
            (&[100, 256, 256, 3], &[8, 3, 3, 3]),
            (&[1, 256, 256, 128], &[8, 3, 3, 128]),
            (&[2, 9, 8, 3], &[4, 9, 8, 3]),
            (&[1, 1, 1], &[1, 1, 1]),
        ] {
            let c = Convolution::new(x, w);
            let tiling = tiling(c, 264).unwrap();
            assert!(
                tiling.shared <= SHARED && tiling.some >= 1 && tiling.tile <= BLOCK * tiling.positions,
                "{tiling:?}"
            );
            assert!(tiling.tile.is_power_of_two() && tiling.pitch >= tiling.some);
        }
        assert_eq!(tiling(Convolution::new(&[1, 4000, 3], &[1, 3000, 3]), 264), None);
    }
}
