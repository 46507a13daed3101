//! Which kernel attention takes where queries are in tiles.

use mlxt_backend::Arithmetic;
use mlxt_lazy::plan::SegmentsRoom;

use crate::room;

/// A sequence is long from so many rows on.
const LONG: usize = 128;

/// What a kernel is chosen by, besides heads and arithmetic.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tiles {
    /// The device's compute capability.
    capability: u32,
    /// Of a tile.
    queries: usize,
    /// Whether sequences are long, as far as the room for them tells.
    long: bool,
}

impl Tiles {
    /// Tiles of so many queries of a batch.
    pub(crate) fn new(capability: u32, room: SegmentsRoom, queries: usize) -> Self {
        Self { capability, queries, long: room.rows >= LONG * room.sequences }
    }
}

/// A kernel that takes a tile of queries of one head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tiled {
    pub(crate) name: &'static str,
    pub(crate) threads: usize,
    pub(crate) shared: usize,
}

impl Tiled {
    /// The one for heads of a size, if any: of `flash_hopper.cu` or `flash.cu` for activations of 16 bits, of `flash_tf32.cu` or
    /// `attention_f32.cu` for others.
    pub(crate) fn of(arithmetic: Arithmetic, tiles: Tiles, head_size: usize) -> Option<Self> {
        match arithmetic {
            Arithmetic::Tf32 if head_size.is_multiple_of(4) && head_size <= 128 => Self::of_tf32(tiles, head_size),
            Arithmetic::F32 | Arithmetic::Tf32 => Self::of_f32(tiles, head_size),
            Arithmetic::F16 | Arithmetic::Bf16 if !head_size.is_multiple_of(8) => None,
            Arithmetic::F16 | Arithmetic::Bf16 if tiles.queries == room::FEW_QUERIES => Self::of_few(head_size),
            Arithmetic::F16 | Arithmetic::Bf16 => {
                Self::of_hopper(tiles, head_size).or_else(|| Self::of_many(tiles, head_size))
            }
        }
    }

    fn of_hopper(tiles: Tiles, head_size: usize) -> Option<Self> {
        /// Bytes of a row in shared memory, which begins at a multiple of `ALIGNED`.
        const ROW: usize = 128;
        const ALIGNED: usize = 1024;
        // For short sequences and for long; the smallest heads have kernels that do not pad them.
        let kernels =
            [(32, "flash_hopper_32", "flash_hopper_long_32"), (64, "flash_hopper_64", "flash_hopper_long_64")];
        let (_, short, long) = kernels.into_iter().find(|(size, ..)| (17..=*size).contains(&head_size))?;
        // Threads, keys of a step, and of how many steps they hold them.
        let (name, threads, keys, slots) = if tiles.long { (long, 128, 64, 2) } else { (short, 256, 32, 4) };
        let shared = (tiles.queries + 2 * keys * slots) * ROW + ALIGNED;
        (tiles.capability == 90).then_some(Self { name, threads, shared })
    }

    fn of_many(tiles: Tiles, head_size: usize) -> Option<Self> {
        // Threads, and for how many steps they hold keys.
        let kernels = [
            (16, "flash_16", 128, 4),
            (32, "flash_32", 128, 4),
            (64, "flash_64", 128, 4),
            (96, "flash_96", 256, 4),
            (128, "flash_128", 256, 2),
        ];
        let (size, name, threads, slots) = kernels.into_iter().find(|(size, ..)| head_size <= *size)?;
        Some(Self { name, threads, shared: padded(tiles.queries, slots, size) })
    }

    fn of_few(head_size: usize) -> Option<Self> {
        let kernels = [
            (16, "flash_few_16"),
            (32, "flash_few_32"),
            (64, "flash_few_64"),
            (96, "flash_few_96"),
            (128, "flash_few_128"),
        ];
        let (size, name) = kernels.into_iter().find(|(size, _)| head_size <= *size)?;
        // Each of four warps holds the keys of one step.
        Some(Self { name, threads: 128, shared: padded(room::FEW_QUERIES, 4, size) })
    }

    fn of_tf32(tiles: Tiles, head_size: usize) -> Option<Self> {
        // For how many steps they hold keys.
        let kernels =
            [(16, "flash_tf32_16", 2), (32, "flash_tf32_32", 2), (64, "flash_tf32_64", 2), (128, "flash_tf32_128", 1)];
        let (size, name, slots) = kernels.into_iter().find(|(size, ..)| head_size <= *size)?;
        // Rows of queries and keys have 8 columns more, those of values 4; a warp takes 16 queries.
        let values = (tiles.queries + 32 * slots) * (size + 8) + 32 * slots * (size + 4);
        Some(Self { name, threads: tiles.queries * 2, shared: values * 4 })
    }

    fn of_f32(tiles: Tiles, head_size: usize) -> Option<Self> {
        let kernels = [("tiled_16", 16), ("tiled_32", 32), ("tiled_64", 64), ("tiled_128", 128)];
        let (name, size) = kernels.into_iter().find(|(_, size)| head_size <= *size)?;
        // Queries and keys by columns, weights by keys, values by rows.
        let pitch = tiles.queries + 4;
        let values = (2 * size + tiles.queries) * pitch + tiles.queries * (size + 4);
        Some(Self { name, threads: 256, shared: values * 4 })
    }
}

/// Bytes of queries, and of 32 keys and values for each step, in rows of 16 bits and of 8 columns more than `size`.
fn padded(queries: usize, slots: usize, size: usize) -> usize {
    (queries + 2 * 32 * slots) * (size + 8) * 2
}

#[cfg(test)]
mod tests {
    use super::*;

    const AMPERE: u32 = 80;
    const HOPPER: u32 = 90;

    fn of(arithmetic: Arithmetic, (capability, queries, long): (u32, usize, bool), size: usize) -> Option<Tiled> {
        Tiled::of(arithmetic, Tiles { capability, queries, long }, size)
    }

    #[test]
    fn heads_go_to_the_smallest_kernel_that_holds_them() {
        let name = |tiles, size| of(Arithmetic::F16, tiles, size).map(|kernel| kernel.name);
        let many = (AMPERE, room::MANY_QUERIES, true);
        for (size, kernel) in
            [(8, "flash_16"), (24, "flash_32"), (64, "flash_64"), (72, "flash_96"), (128, "flash_128")]
        {
            assert_eq!(name(many, size), Some(kernel), "{size}");
        }
        let few = (HOPPER, room::FEW_QUERIES, false);
        assert_eq!(name(few, 40), Some("flash_few_64"));
        for size in [1, 3, 7, 12, 20, 33, 136, 256] {
            assert_eq!((name(many, size), name(few, size)), (None, None), "{size}");
        }
        let name = |arithmetic, size| of(arithmetic, (HOPPER, room::QUERIES, false), size).map(|kernel| kernel.name);
        for (size, kernel) in [(1, "tiled_16"), (33, "tiled_64"), (64, "tiled_64"), (65, "tiled_128")] {
            assert_eq!(name(Arithmetic::F32, size), Some(kernel), "{size}");
        }
        for (size, kernel) in [
            (4, "flash_tf32_16"),
            (20, "flash_tf32_32"),
            (64, "flash_tf32_64"),
            (68, "flash_tf32_128"),
            (33, "tiled_64"),
        ] {
            assert_eq!(name(Arithmetic::Tf32, size), Some(kernel), "{size}");
        }
        assert_eq!((name(Arithmetic::F32, 129), name(Arithmetic::Tf32, 132)), (None, None));
    }

    #[test]
    fn hopper_has_kernels_of_its_own_for_many_rows_and_the_usual_heads() {
        let name = |long, size| {
            let tiles = (HOPPER, room::MANY_QUERIES, long);
            of(Arithmetic::Bf16, tiles, size).map_or("none", |kernel| kernel.name)
        };
        assert_eq!([8, 16, 72, 128].map(|size| name(false, size)), ["flash_16", "flash_16", "flash_96", "flash_128"]);
        for (size, kernel) in [(24, "32"), (32, "32"), (40, "64"), (64, "64")] {
            assert_eq!(name(false, size), format!("flash_hopper_{kernel}"));
            assert_eq!(name(true, size), format!("flash_hopper_long_{kernel}"));
        }
        let long = |lengths: &[usize]| {
            let batch = mlxt_backend::Segments::from_lengths(lengths).unwrap();
            Tiles::new(HOPPER, room::segments(&batch), room::MANY_QUERIES).long
        };
        assert_eq!([&[122; 32][..], &[50; 32], &[900; 1]].map(long), [false; 3]);
        assert_eq!([&[512; 8][..], &[256; 64], &[2048; 1]].map(long), [true; 3]);
    }

    #[test]
    fn tiles_for_tensor_cores_fit_into_the_shared_memory_of_every_device() {
        // 99 KB for a block: compute capability 8.6 and 8.9, the least of those from 8.0 on.
        for (arithmetic, queries) in [
            (Arithmetic::F16, room::FEW_QUERIES),
            (Arithmetic::F16, room::MANY_QUERIES),
            (Arithmetic::Tf32, room::QUERIES),
        ] {
            for size in [16, 32, 64, 96, 128] {
                let shared = of(arithmetic, (AMPERE, queries, false), size).map(|kernel| kernel.shared);
                assert!(shared.is_some_and(|bytes| bytes <= 98 * 1024), "{queries} queries of {size}: {shared:?}");
            }
        }
        // Three blocks for each multiprocessor of Hopper, of 227 KB.
        for (size, long) in [(32, false), (32, true), (64, false), (64, true)] {
            let shared = of(Arithmetic::F16, (HOPPER, room::MANY_QUERIES, long), size).map(|kernel| kernel.shared);
            assert!(shared.is_some_and(|bytes| 3 * (bytes + 1024) <= 227 * 1024), "{size}: {shared:?}");
        }
    }
}
