//! Kernels of `gemm_f32.cu`: which are tried for a product of few rows in activations of 32 bits, and into how many parts its
//! sum is cut.

use mlxt_backend::Result;

use super::{Size, Way};
use crate::device::Inner;
use crate::ffi::module::Shape;

/// Rows of a block.
const ROWS: usize = 16;
/// Rooms worth a try: each 16 rows read all weights again, from the second-level cache.
const MOST: usize = 64;
/// Inputs that a warp takes at a time, and warps of a block.
const INPUTS: usize = 16;
const WARPS: usize = 8;
/// Beyond so many blocks there is nothing to win by cutting.
const BLOCKS: usize = 800;

/// Kernels by outputs of a block.
const KERNELS: [(&str, usize); 4] =
    [("stream_f32_8", 8), ("stream_f32_16", 16), ("stream_f32_24", 24), ("stream_f32_32", 32)];

/// All that are worth a try for a size.
///
/// # Errors
/// The driver's own.
pub(super) fn ways(inner: &Inner, size: Size) -> Result<Vec<Way>> {
    let way = |(name, outputs, parts)| {
        let function = inner.kernels(size.operand)?.function(name, 0)?;
        let grid = [size.outputs.div_ceil(outputs), size.room.div_ceil(ROWS), parts];
        Ok(Way::Own { name, function, shape: Shape { grid, threads: 32 * WARPS, shared: 0 }, parts })
    };
    cuts(size).into_iter().map(way).collect()
}

/// A kernel, the outputs of its blocks, and the parts of the sum.
fn cuts(size: Size) -> Vec<(&'static str, usize, usize)> {
    if size.room > MOST || !size.inputs.is_multiple_of(INPUTS) {
        return Vec::new();
    }
    let of = |(name, outputs): (&'static str, usize)| {
        let blocks = size.room.div_ceil(ROWS) * size.outputs.div_ceil(outputs);
        // Every warp has inputs of its own.
        let worth = move |&parts: &usize| blocks * parts <= BLOCKS && size.inputs >= INPUTS * WARPS * parts;
        let parts = [2, 3, 4, 6, 8].into_iter().filter(move |parts| size.parts && worth(parts));
        [1].into_iter().chain(parts).map(move |parts| (name, outputs, parts))
    };
    KERNELS.into_iter().flat_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operand::Operand;
    use mlxt_backend::Activation;

    fn of(room: usize, outputs: usize, inputs: usize, parts: bool) -> Vec<(&'static str, usize, usize)> {
        cuts(Size {
            room,
            outputs,
            inputs,
            activation: Activation::Identity,
            parts,
            normed: false,
            operand: Operand::Kept,
        })
    }

    #[test]
    fn some_cut_gives_most_multiprocessors_of_an_h200_a_block_and_none_more_than_two() {
        for (outputs, inputs, parts) in [
            (768_usize, 768, true),
            (2304, 768, false),
            (3072, 768, false),
            (768, 3072, true),
            (1024, 1024, true),
            (3072, 1024, false),
            (4096, 1024, false),
            (1024, 4096, true),
        ] {
            for room in [16_usize, 32] {
                let blocks = |outs| room.div_ceil(ROWS) * outputs.div_ceil(outs);
                let found = of(room, outputs, inputs, parts);
                let fills = found.iter().any(|&(_, outs, parts)| (96..=264).contains(&(blocks(outs) * parts)));
                assert!(fills, "{room} {outputs} {inputs}");
            }
        }
    }

    #[test]
    fn sums_are_cut_for_norms_alone_and_into_parts_that_all_warps_share() {
        assert!(of(16, 2304, 768, false).iter().all(|(_, _, parts)| *parts == 1));
        let named = |name| of(16, 768, 768, true).into_iter().filter(move |cut| cut.0 == name).map(|cut| cut.2);
        assert_eq!(named("stream_f32_24").collect::<Vec<_>>(), [1, 2, 3, 4, 6]);
        // 96 blocks for each part.
        assert_eq!(of(16, 768, 3072, true).iter().filter(|cut| cut.0 == "stream_f32_8").count(), 6);
        assert_eq!(of(64, 768, 3072, true).iter().filter(|cut| cut.0 == "stream_f32_8").count(), 2);
    }

    #[test]
    fn other_sizes_are_left_to_others() {
        assert_eq!(of(80, 768, 768, true), []);
        assert_eq!(of(16, 768, 760, true), []);
        assert_eq!(of(16, 4, 16, false).len(), KERNELS.len());
    }
}
