//! Kernels of `gemm_few.cu`: which tiles are tried for a product of few rows on Hopper, into how many shares its sum is cut,
//! and how much of a share is on its way at a time.

use mlxt_backend::{DType, Result};

use super::{STEP, Size, Way};
use crate::device::Inner;
use crate::ffi::module::Shape;

/// Rooms worth a try: below, `stream` reads the weights faster; above, tiles of `gemm_hopper.cu` fill the chip.
const LEAST: usize = 33;
const MOST: usize = 1024;
/// Blocks of a cluster, at most.
const CLUSTER: usize = 8;
/// Parts, at most: so many the norm that adds them up has on their way at a time.
const PARTS: usize = 4;
/// Shared memory of a block that has a processor to itself, and of one that leaves half of it to the next kernel's, whose
/// weights can then be on their way. Less what a kernel has by itself: barriers, and up to two numbers for each of 128 outputs.
const WHOLE: usize = 225 << 10;
const HALF: usize = 112 << 10;
/// Shared memory is used from a multiple of this on.
pub(super) const ALIGNED: usize = 1024;

/// Tiles by rows and outputs.
const TILES: [(&str, usize, usize); 6] = [
    ("few_64_32", 64, 32),
    ("few_64_64", 64, 64),
    ("few_64_96", 64, 96),
    ("few_64_128", 64, 128),
    ("few_128_64", 128, 64),
    ("few_128_96", 128, 96),
];

/// All that are worth a try for a size, in activations that tensor cores multiply: of 16 bits, or TF32.
///
/// # Errors
/// The driver's own.
pub(super) fn ways(inner: &Inner, size: Size) -> Result<Vec<Way>> {
    if inner.context.capability != 90 {
        return Ok(Vec::new());
    }
    let way = |cut: Cut| {
        let Cut { name, rows, outputs, cluster, parts, shared } = cut;
        let function = inner.kernels(size.operand)?.function(name, WHOLE)?;
        let grid = [size.outputs.div_ceil(outputs), size.room.div_ceil(rows), cluster * parts];
        // Two for each row, and a warp that copies.
        let shape = Shape { grid, threads: 2 * rows + 32, shared };
        Ok(Way::Hopper { name, function, shape, tile: (rows, outputs), cluster, parts })
    };
    cuts(size, inner.arithmetic.activations(), inner.context.processors).into_iter().map(way).collect()
}

/// A tile, and the shares of the sum: first for the blocks of a cluster, then for parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cut {
    name: &'static str,
    rows: usize,
    outputs: usize,
    cluster: usize,
    parts: usize,
    shared: usize,
}

fn cuts(size: Size, activations: DType, processors: usize) -> Vec<Cut> {
    let mut cuts = Vec::new();
    if !(LEAST..=MOST).contains(&size.room) {
        return cuts;
    }
    let steps = size.inputs.div_ceil(size.step(activations));
    for (name, rows, outputs) in TILES.into_iter().filter(|&(_, rows, _)| rows == 64 || size.room > 64) {
        let tiles = size.room.div_ceil(rows) * size.outputs.div_ceil(outputs);
        // One block for each processor, and two steps for each block.
        let most = (processors / tiles).min(steps / 2).clamp(1, CLUSTER);
        let share = steps.div_ceil(most);
        // No more blocks than such shares need.
        let shares = steps.div_ceil(share);
        if tiles * shares > processors || 2 * tiles * shares < processors {
            continue;
        }
        let parts = (2..=PARTS).rev().find(|parts| size.parts && shares.is_multiple_of(*parts));
        for parts in [1].into_iter().chain(parts) {
            let cluster = shares / parts;
            let (stage, fixed) = (stage(rows, outputs), ALIGNED + exchange(rows, outputs, cluster));
            let mut held = [WHOLE, HALF].map(|limit| share.min((limit - fixed) / stage)).to_vec();
            // A share that does not fit into half is tried in both; where there are parts, those are enough to try.
            held.dedup();
            // One stage alone would wait for itself.
            let works = |stages: &usize| *stages >= share.min(2);
            let first = if size.parts { held.len() - 1 } else { 0 };
            let cut = |stages| Cut { name, rows, outputs, cluster, parts, shared: fixed + stages * stage };
            cuts.extend(held.into_iter().skip(first).filter(works).map(cut));
        }
    }
    cuts
}

/// Bytes of the tiles of one step.
fn stage(rows: usize, outputs: usize) -> usize {
    (rows + outputs) * STEP
}

/// Bytes in which the sums of a cluster's blocks arrive: eight outputs of all rows go together.
fn exchange(rows: usize, outputs: usize, cluster: usize) -> usize {
    if cluster == 1 { 0 } else { cluster * (outputs / 8).div_ceil(cluster) * rows * 8 * 4 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operand::Operand;
    use mlxt_backend::Activation;
    use proptest::prelude::*;

    const H100: usize = 132;
    /// For so many stages the kernel has barriers.
    const STAGES: usize = 18;

    fn of(room: usize, outputs: usize, inputs: usize, parts: bool) -> Vec<Cut> {
        cuts(
            Size {
                room,
                outputs,
                inputs,
                activation: Activation::Identity,
                parts,
                normed: false,
                operand: Operand::Kept,
            },
            DType::F16,
            H100,
        )
    }

    proptest! {
        #[test]
        fn every_cut_fills_the_chip_once_and_fits(
            room in 1_usize..70,
            outputs in 1_usize..520,
            inputs in 1_usize..520,
            parts: bool,
            halves: bool,
            processors in 60_usize..150,
        ) {
            let (room, outputs, inputs) = (16 * room, 8 * outputs, 8 * inputs);
            let size = Size { room, outputs, inputs, activation: Activation::Identity, parts, normed: false, operand: Operand::Kept };
            let activations = if halves { DType::F16 } else { DType::F32 };
            let found = cuts(size, activations, processors);
            prop_assert!(found.len() <= 12 && (found.is_empty() || (LEAST..=MOST).contains(&room)), "{found:?}");
            for cut in found {
                let shares = cut.cluster * cut.parts;
                let blocks = room.div_ceil(cut.rows) * outputs.div_ceil(cut.outputs) * shares;
                prop_assert!(2 * blocks >= processors && blocks <= processors, "{blocks} of {cut:?}");
                prop_assert!(cut.cluster <= CLUSTER && cut.parts <= if parts { PARTS } else { 1 }, "{cut:?}");
                // As the kernel finds them.
                let left = cut.shared - ALIGNED - exchange(cut.rows, cut.outputs, cut.cluster);
                let steps = inputs.div_ceil(size.step(activations));
                let (stages, share) = (left / stage(cut.rows, cut.outputs), steps.div_ceil(shares));
                prop_assert!((share.min(2)..=STAGES).contains(&stages) && cut.shared <= WHOLE, "{cut:?}");
            }
        }
    }

    #[test]
    fn sums_are_cut_for_clusters_and_for_norms() {
        let named = |found: &[Cut], name| -> Vec<_> {
            found.iter().filter(|cut| cut.name == name).map(|cut| (cut.cluster, cut.parts, cut.shared >> 10)).collect()
        };
        // 36 tiles of twelve steps: three blocks each, of four steps (24 KiB) and 36 KiB of sums, more than half the memory.
        assert_eq!(named(&of(128, 2304, 768, false), "few_64_128"), [(3, 1, 133), (3, 1, 109)]);
        // 16 tiles of 48 steps: eight blocks each; the norm adds up four sums of two.
        assert_eq!(named(&of(128, 768, 3072, true), "few_64_96"), [(8, 1, 93), (2, 4, 105)]);
        // Tiles of 128 rows would be half empty.
        assert!(of(64, 2304, 768, false).iter().all(|cut| cut.rows == 64));
    }
}
