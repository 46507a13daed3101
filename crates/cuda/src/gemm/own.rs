//! Our own kernels of tensor cores: which sizes each takes, and how it is started for one.

use mlxt_backend::{DType, Result};

use super::{STEP, Size, Way};
use crate::device::Inner;
use crate::ffi::module::Shape;
use crate::operand::Operand;

/// Rows of a tile of `gemm_hopper.cu`.
const HOPPER_ROWS: usize = 128;
/// Rows from which it is worth a try: most of one tile.
const HOPPER_LEAST: usize = 96;
/// Its tiles, by outputs, and how many of them are on their way at a time.
const HOPPER: [(&str, usize, usize); 2] = [("hopper_192", 192, 5), ("hopper_128", 128, 6)];

/// All that can compute a size, in activations that tensor cores multiply: of 16 bits, or TF32.
///
/// # Errors
/// The driver's own.
pub(super) fn ways(inner: &Inner, size: Size) -> Result<Vec<Way>> {
    let (mut ways, kernels) = (Vec::new(), inner.kernels(size.operand)?);
    let halves = inner.arithmetic.activations() != DType::F32;
    for kernel in KERNELS.iter().filter(|kernel| halves && kernel.takes(size)) {
        for parts in kernel.parts(size) {
            let function = kernels.function(kernel.name, kernel.shared)?;
            ways.push(Way::Own { name: kernel.name, function, shape: kernel.shape(size, parts), parts });
        }
    }
    if inner.context.capability == 90 && size.room >= HOPPER_LEAST {
        for (name, outputs, stages) in HOPPER {
            // Stages begin at multiples of 1024 bytes.
            let shared = stages * (HOPPER_ROWS + outputs) * STEP + 1024;
            let function = kernels.function(name, shared)?;
            let tiles = size.room.div_ceil(HOPPER_ROWS) * size.outputs.div_ceil(outputs);
            let shape = Shape { grid: [tiles.min(inner.context.processors), 1, 1], threads: 384, shared };
            let tile = (HOPPER_ROWS, outputs);
            ways.push(Way::Hopper { name, function, shape, tile, cluster: 1, parts: 1 });
        }
    }
    Ok(ways)
}

/// A kernel of `gemm.cu`, for activations of 16 bits.
#[derive(Debug, Clone, Copy)]
struct Kernel {
    name: &'static str,
    /// Results of one block.
    rows: usize,
    outputs: usize,
    /// Bytes of inputs that it takes at a time.
    step: usize,
    threads: usize,
    shared: usize,
    /// Rows for which it is worth a try.
    least: usize,
    most: usize,
}

const fn stream(name: &'static str, rows: usize, tiles: usize) -> Kernel {
    let least = if rows == 16 { 1 } else { 17 };
    Kernel { name, rows, outputs: 8 * tiles, step: STEP / 2, threads: 256, shared: 0, least, most: rows }
}

const fn tile(name: &'static str, rows: usize, outputs: usize, stages: usize, least: usize, most: usize) -> Kernel {
    let shared = (rows + outputs) * STEP * stages;
    Kernel { name, rows, outputs, step: STEP, threads: 128, shared, least, most }
}

const KERNELS: [Kernel; 15] = [
    stream("stream_16_1_3", 16, 1),
    stream("stream_16_2_3", 16, 2),
    stream("stream_16_3_3", 16, 3),
    stream("stream_16_1_6", 16, 1),
    stream("stream_16_1_12", 16, 1),
    stream("stream_32_1_3", 32, 1),
    stream("stream_32_2_3", 32, 2),
    stream("stream_32_3_3", 32, 3),
    stream("stream_32_1_6", 32, 1),
    stream("stream_32_1_12", 32, 1),
    tile("tile_16_64", 16, 64, 4, 1, 128),
    tile("tile_32_32", 32, 32, 6, 17, 256),
    tile("tile_64_32", 64, 32, 5, 33, 512),
    tile("tile_64_64", 64, 64, 4, 33, 1024),
    tile("tile_128_64", MOST_ROWS, 64, 4, 65, 2048),
];

/// Rows of the largest tile.
const MOST_ROWS: usize = 128;

impl Kernel {
    fn takes(&self, size: Size) -> bool {
        // Nobody else multiplies many rows of 8 bits on what is not Hopper.
        let most = if self.rows == MOST_ROWS && size.operand != Operand::Kept { usize::MAX } else { self.most };
        (self.least..=most).contains(&size.room) && (self.step == STEP || bytes(size).is_multiple_of(self.step))
    }

    /// Into how many parts it may be worth cutting the sum.
    fn parts(&self, size: Size) -> Vec<usize> {
        let blocks = size.room.div_ceil(self.rows) * size.outputs.div_ceil(self.outputs);
        // Beyond a few blocks for each processor there is nothing to win, nor where a part is a few steps.
        let worth = |&parts: &usize| parts == 1 || (blocks * parts <= 800 && bytes(size) / self.step >= 4 * parts);
        [1, 2, 3, 4, 6, 8].into_iter().filter(|parts| *parts == 1 || size.parts).filter(worth).collect()
    }

    fn shape(&self, size: Size, parts: usize) -> Shape {
        let grid = [size.outputs.div_ceil(self.outputs), size.room.div_ceil(self.rows), parts];
        Shape { grid, threads: self.threads, shared: self.shared }
    }
}

/// Bytes of a row of inputs.
fn bytes(size: Size) -> usize {
    size.inputs * size.operand.bytes(DType::F16)
}
