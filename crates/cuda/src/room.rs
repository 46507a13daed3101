//! For how many rows there is room where there are so many: few answers, none much too large.

use mlxt_backend::{DType, Segments};
use mlxt_lazy::plan::SegmentsRoom;

/// Rows of a tile of tensor cores; no buffer has fewer.
pub(crate) const ROWS: usize = 16;

/// Multiples of 16, then of a sixteenth of the power of two below: at most 6 % beyond 256 rows are room for nothing.
pub(crate) fn rows(rows: usize) -> usize {
    let below = rows.saturating_sub(1).checked_ilog2().map_or(1, |power| 1 << power);
    rows.max(1).next_multiple_of(ROWS.max(below / 16))
}

/// The same for a batch; sequences in powers of two.
pub(crate) fn segments(segments: &Segments) -> SegmentsRoom {
    let room = rows(segments.rows());
    SegmentsRoom { rows: room, sequences: segments.count().next_power_of_two().max(ROWS), longest: room }
}

/// Queries of one block of attention where activations are f32: see `attention_f32.cu` and `flash_tf32.cu`.
pub(crate) const QUERIES: usize = 64;
/// Where they have 16 bits and rows are few, and where rows are many: see `flash.cu`.
pub(crate) const FEW_QUERIES: usize = 16;
pub(crate) const MANY_QUERIES: usize = 128;

/// Queries of one block of attention. Blocks of few use more of a device, but each loads the same keys: from about this
/// many rows on that costs more than it saves.
pub(crate) fn queries(room: SegmentsRoom, activations: DType) -> usize {
    match activations {
        DType::F32 => QUERIES,
        _ if room.rows <= 512 => FEW_QUERIES,
        _ => MANY_QUERIES,
    }
}

/// The most tiles of so many queries such a batch can have.
pub(crate) fn tiles(room: SegmentsRoom, queries: usize) -> usize {
    room.rows / queries + room.sequences
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rooms_are_what_the_documentation_says() {
        let rooms = [(1, 16), (16, 16), (17, 32), (122, 128), (257, 272), (448, 448), (1952, 1984), (3904, 3968)];
        for (found, room) in rooms {
            assert_eq!(rows(found), room, "{found} rows");
        }
    }

    proptest! {
        #[test]
        fn there_is_room_for_all_and_not_for_much_more(n in 1_usize..200_000) {
            let room = rows(n);
            prop_assert!(room >= n && room.is_multiple_of(ROWS));
            prop_assert!(room <= 16.max(n + 15).max(n + n / 8), "{n} in {room}");
            prop_assert_eq!(rows(room), room);
        }

        #[test]
        fn there_is_room_for_every_tile(lengths in prop::collection::vec(1_usize..300, 1..60)) {
            let batch = Segments::from_lengths(&lengths).unwrap();
            for queries in [QUERIES, FEW_QUERIES, MANY_QUERIES] {
                let needed: usize = lengths.iter().map(|n| n.div_ceil(queries)).sum();
                prop_assert!(tiles(segments(&batch), queries) >= needed);
            }
        }
    }
}
