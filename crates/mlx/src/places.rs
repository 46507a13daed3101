//! Sizes to make room for, and where the rows of a batch go: the numbers bridge/places.hpp works with.

use mlxt_backend::Segments;
use mlxt_lazy::plan::SegmentsRoom;

/// How sizes are rounded up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Room {
    /// Not at all. Right where a program costs nothing to make: nothing is computed for nothing.
    Exact,
    /// To sixteen sizes between a power of two and the next, so that batches share compiled programs. On lengths and
    /// batch sizes drawn evenly, under 4 % of all rows are spare.
    Rounded,
}

impl Room {
    /// At least `rows`.
    pub(crate) fn rows(self, rows: usize) -> usize {
        match self {
            Self::Exact => rows,
            Self::Rounded => rounded(rows, 16),
        }
    }

    /// At least the batch's sizes.
    pub(crate) fn segments(self, segments: &Segments) -> SegmentsRoom {
        let (sequences, longest) = (segments.count(), segments.longest());
        let rows = self.rows(segments.rows());
        // Sequences of one length lie at their places already; of a single one, so do the spare rows.
        match self {
            Self::Rounded if sequences == 1 => SegmentsRoom { rows, sequences, longest: rows },
            Self::Rounded if !is_uniform(segments) => {
                SegmentsRoom { rows, sequences: rounded(sequences, 8), longest: rounded(longest, 8) }
            }
            _ => SegmentsRoom { rows, sequences, longest },
        }
    }
}

fn is_uniform(segments: &Segments) -> bool {
    segments.rows() == segments.count() * segments.longest()
}

/// The next of `steps` sizes between a power of two and its double; below `steps`, the size itself.
fn rounded(size: usize, steps: usize) -> usize {
    let power = 1 << size.max(1).ilog2();
    size.checked_next_multiple_of((power / steps).max(1)).unwrap_or(size)
}

/// Where the rows of a batch go in a room of `[sequences, longest]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Places {
    /// Whether row r is place r, for all rows there are.
    pub(crate) packed: bool,
    /// Whether every place holds a row.
    pub(crate) full: bool,
    /// Of each sequence; 1 for spare ones.
    pub(crate) lengths: Vec<i32>,
    /// Where each sequence begins, and the end of the last one; spare ones have nothing.
    pub(crate) offsets: Vec<i32>,
    /// Unless rows are packed.
    pub(crate) moves: Option<Moves>,
}

/// How rows get to their places and back. Spare ones take the first row, whose values are as finite as any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Moves {
    /// The row of each place.
    pub(crate) rows: Vec<i32>,
    /// The place of each row.
    pub(crate) places: Vec<i32>,
    /// The position of each row in its sequence.
    pub(crate) positions: Vec<i32>,
}

impl Places {
    pub(crate) fn new(segments: &Segments, room: SegmentsRoom) -> Self {
        let SegmentsRoom { rows, sequences, longest } = room;
        let packed = segments.ranges().enumerate().all(|(i, range)| range.start == i * longest);
        let full = packed && sequences == segments.count() && segments.rows() == sequences * longest;
        let mut lengths: Vec<i32> = segments.ranges().map(|range| range.len() as i32).collect();
        lengths.resize(sequences, 1);
        let mut offsets: Vec<i32> = segments.offsets().iter().map(|&offset| offset as i32).collect();
        offsets.resize(sequences + 1, segments.rows() as i32);
        let moves = (!packed).then(|| {
            let mut moves =
                Moves { rows: vec![0; sequences * longest], places: vec![0; rows], positions: vec![0; rows] };
            for (i, range) in segments.ranges().enumerate() {
                for (position, row) in range.enumerate() {
                    let place = i * longest + position;
                    moves.rows[place] = row as i32;
                    moves.places[row] = place as i32;
                    moves.positions[row] = position as i32;
                }
            }
            moves
        });
        Self { packed, full, lengths, offsets, moves }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rooms_are_few_and_close() {
        let rooms: Vec<usize> = (1..=4096).map(|rows| Room::Rounded.rows(rows)).collect();
        assert!(rooms.iter().zip(1..).all(|(&room, rows)| room >= rows && room <= rows + rows.div_ceil(16)));
        let mut different = rooms.clone();
        different.dedup();
        assert_eq!(different.len(), 16 + 16 * 8);
        let waste: usize = rooms.iter().zip(1..).map(|(room, rows): (_, usize)| room - rows).sum();
        let all: usize = (1..=4096).sum();
        assert!(waste * 100 < all * 4, "{waste} of {all} rows are spare");
        assert_eq!(Room::Exact.rows(77), 77);
        assert_eq!(Room::Rounded.rows(usize::MAX), usize::MAX);
    }

    #[test]
    fn rows_of_one_length_and_of_one_sequence_are_packed() {
        for lengths in [&[7, 7, 7][..], &[100]] {
            let segments = Segments::from_lengths(lengths).unwrap();
            let room = Room::Rounded.segments(&segments);
            let places = Places::new(&segments, room);
            assert!(places.packed && places.moves.is_none(), "{lengths:?}");
            assert_eq!(places.full, lengths.len() * room.longest == segments.rows());
        }
    }

    #[test]
    fn rows_get_to_their_places_and_back() {
        let segments = Segments::from_lengths(&[2, 40, 1, 33]).unwrap();
        let room = Room::Rounded.segments(&segments);
        let places = Places::new(&segments, room);
        assert!(!places.packed && !places.full);
        assert_eq!(places.lengths[..4], [2, 40, 1, 33]);
        assert_eq!((&places.offsets[..5], places.offsets.len()), (&[0, 2, 42, 43, 76][..], room.sequences + 1));
        assert!(places.offsets[5..].iter().all(|&offset| offset == 76));
        let moves = places.moves.unwrap();
        assert_eq!((moves.rows.len(), moves.places.len()), (room.sequences * room.longest, room.rows));
        for (sequence, range) in segments.ranges().enumerate() {
            for row in range.clone() {
                let place = moves.places[row] as usize;
                assert_eq!(moves.rows[place] as usize, row);
                assert_eq!(place, sequence * room.longest + moves.positions[row] as usize);
                assert_eq!(moves.positions[row] as usize, row - range.start);
            }
        }
    }
}
