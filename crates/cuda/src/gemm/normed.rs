//! Kernels of `gemm_norm.cu`: products that are normalised where their sums are, by clusters whose blocks have whole rows between
//! them.

use mlxt_backend::{Arithmetic, DType, Result};

use super::few::ALIGNED;
use super::{STEP, Size, Way};
use crate::device::Inner;
use crate::ffi::module::Shape;
use crate::operand::Operand;

/// Blocks of a cluster, at most.
const CLUSTER: usize = 8;
/// The least rows: below, rows are too few for as many clusters as a device has place for.
const LEAST: usize = 129;

/// Shared memory of a block, less what kernels have by themselves: barriers, and three numbers for each of 256 outputs.
const WHOLE: usize = 223 << 10;

/// Tiles by rows and outputs.
const TILES: [(&str, usize, usize); 7] = [
    ("normed_64_96", 64, 96),
    ("normed_64_128", 64, 128),
    ("normed_64_192", 64, 192),
    ("normed_128_96", 128, 96),
    ("normed_128_128", 128, 128),
    ("normed_128_192", 128, 192),
    ("normed_128_256", 128, 256),
];

/// All that can compute a size whose only reader is a norm, in activations of 16 bits.
///
/// # Errors
/// The driver's own.
pub(super) fn ways(inner: &Inner, size: Size) -> Result<Vec<Way>> {
    let halves = matches!(inner.arithmetic, Arithmetic::F16 | Arithmetic::Bf16) && size.operand == Operand::Kept;
    if inner.context.capability != 90 || !halves || !size.normed || size.room < LEAST {
        return Ok(Vec::new());
    }
    let way = |(name, rows, outputs): (&'static str, usize, usize)| {
        let function = inner.kernels(size.operand)?.function(name, WHOLE)?;
        let cluster = size.outputs / outputs;
        let shape = Shape {
            grid: [1, size.room.div_ceil(rows), cluster],
            threads: threads(rows, outputs),
            shared: shared(size, (rows, outputs)),
        };
        Ok(Way::Normed { name, function, shape, tile: (rows, outputs), cluster })
    };
    TILES.into_iter().filter(|(_, _, outputs)| is_whole(size, *outputs)).map(way).collect()
}

/// Whether clusters of tiles of so many outputs have whole rows.
fn is_whole(size: Size, outputs: usize) -> bool {
    size.outputs.is_multiple_of(outputs) && size.outputs / outputs <= CLUSTER
}

/// Threads of a block: two for each row and a warp that copies, or whole groups of four warps, which can give each other registers.
fn threads(rows: usize, outputs: usize) -> usize {
    if rows == 128 && outputs >= 192 { 384 } else { 2 * rows + 32 }
}

/// What is told between blocks, two numbers for each row; and as many stages as are of use, or as there is memory for.
fn shared(size: Size, (rows, outputs): (usize, usize)) -> usize {
    let told = (size.outputs / outputs * rows * 8).next_multiple_of(ALIGNED);
    let stage = (rows + outputs) * STEP;
    let steps = size.inputs.div_ceil(size.step(DType::F16));
    ALIGNED + told + stage * steps.min((WHOLE - ALIGNED - told) / stage)
}

#[cfg(test)]
mod tests {
    use mlxt_backend::Activation;

    use super::*;

    #[test]
    fn rows_of_every_encoder_are_whole_in_some_cluster_and_fit() {
        for outputs in [384, 512, 768, 1024] {
            for inputs in [outputs, 4 * outputs] {
                let activation = Activation::Identity;
                let size =
                    Size { room: 512, outputs, inputs, activation, parts: true, normed: true, operand: Operand::Kept };
                let tiles: Vec<_> = TILES.iter().filter(|(_, _, outs)| is_whole(size, *outs)).collect();
                assert!(tiles.len() >= 2, "{outputs}: {tiles:?}");
                for (name, rows, outs) in tiles {
                    let bytes = shared(size, (*rows, *outs));
                    assert!(bytes <= WHOLE && bytes >= ALIGNED + 2 * (rows + outs) * STEP, "{name} {bytes}");
                }
            }
        }
    }
}
