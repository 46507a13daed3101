//! For how many rows there is room where there are so many: few answers, none much too large.

use mlxt_backend::Segments;
use mlxt_lazy::plan::SegmentsRoom;

/// Rows of a tile of tensor cores; no buffer has fewer.
pub(crate) const ROWS: usize = 16;
/// Queries of one block of attention: see `flash.cu`.
pub(crate) const QUERIES: usize = 64;

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

/// The most tiles of queries such a batch can have.
pub(crate) fn tiles(room: SegmentsRoom) -> usize {
    room.rows / QUERIES + room.sequences
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
            let needed: usize = lengths.iter().map(|n| n.div_ceil(QUERIES)).sum();
            prop_assert!(tiles(segments(&batch)) >= needed);
        }
    }
}
