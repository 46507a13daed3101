//! What differs from run to run, as it lies in one block that is copied to the device at once.
//!
//! First comes a row of counts for each input, then each input's own numbers. Kernels read from the counts how much is
//! real, so what lies behind is never written.

use mlxt_backend::convert::encode;
use mlxt_backend::{DType, Segments};
use mlxt_lazy::Input;
use mlxt_lazy::plan::{InputId, InputKind, Rows};

use crate::results::Buffer;
use crate::room;

/// Rows, sequences, tiles of queries, and one word for the alignment.
const COUNTS: usize = 4;
const WORD: usize = 4;
/// Words of a tile: where its sequence begins, how long that is, its first query, and one for the alignment.
const TILE: usize = 4;

/// Where everything lies in the block, in bytes.
#[derive(Debug)]
pub(crate) struct Staging {
    starts: Vec<usize>,
    kinds: Vec<InputKind>,
    element: DType,
    bytes: usize,
}

impl Staging {
    /// The block for inputs of these kinds, with values of this type.
    pub(crate) fn new(kinds: &[InputKind], element: DType) -> Self {
        let mut next = kinds.len() * COUNTS * WORD;
        let starts = kinds.iter().map(|kind| {
            let start = next.next_multiple_of(256);
            next = start
                + match *kind {
                    InputKind::Ids { room } => room * WORD,
                    InputKind::Segments(room) => {
                        let tiles = room::tiles(room, room::queries(room, element));
                        tiles_after(room.sequences) + tiles * TILE * WORD
                    }
                    InputKind::Values { room, cols } => room.next_multiple_of(room::ROWS) * cols * element.size(),
                    InputKind::Buffer { .. } => 0,
                };
            start
        });
        let starts = starts.collect();
        Self { starts, kinds: kinds.to_vec(), element, bytes: next }
    }

    /// Its size.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Where an input's own numbers begin.
    pub(crate) fn start(&self, input: InputId) -> usize {
        self.starts[input.0]
    }

    /// Where the number of real rows is; for segments the numbers of sequences and of tiles follow.
    pub(crate) fn counts(rows: Rows) -> usize {
        match rows {
            Rows::Of(input) => input.0 * COUNTS * WORD,
            Rows::SequencesOf(input) => (input.0 * COUNTS + 1) * WORD,
        }
    }

    /// Where the tiles of a batch are, [`TILE`] words each.
    pub(crate) fn tiles(&self, input: InputId) -> usize {
        let sequences = match self.kinds[input.0] {
            InputKind::Segments(room) => room.sequences,
            _ => 0,
        };
        self.starts[input.0] + tiles_after(sequences)
    }

    /// How many queries each of them has.
    pub(crate) fn queries(&self, input: InputId) -> usize {
        match self.kinds[input.0] {
            InputKind::Segments(room) => room::queries(room, self.element),
            _ => room::QUERIES,
        }
    }

    /// Writes one run's inputs.
    pub(crate) fn fill(&self, inputs: &[Input<'_, Buffer>], block: &mut [u8]) {
        for (i, input) in inputs.iter().enumerate() {
            let start = self.starts[i];
            let counts = match input {
                Input::Ids(ids) => [put(block, start, ids.iter().copied()), 0, 0],
                Input::Segments(segments) => self.fill_segments(InputId(i), segments, block),
                Input::Values(values) => {
                    let bytes = encode(values, self.element);
                    block[start..][..bytes.len()].copy_from_slice(&bytes);
                    let cols = match self.kinds[i] {
                        InputKind::Values { cols, .. } => cols,
                        _ => values.len(),
                    };
                    [values.len() / cols.max(1), 0, 0]
                }
                Input::Buffer(_, rows) => [*rows, 0, 0],
            };
            put(block, i * COUNTS * WORD, counts.into_iter().map(|n| n as u32));
        }
    }

    /// Writes counts for which there is just room, and sequences of one length; ids and values stay as they are.
    pub(crate) fn fill_room(&self, block: &mut [u8]) {
        for (i, kind) in self.kinds.iter().enumerate() {
            let counts = match *kind {
                InputKind::Ids { room } | InputKind::Values { room, .. } | InputKind::Buffer { room, .. } => {
                    [room, 0, 0]
                }
                InputKind::Segments(room) => {
                    let count = room.sequences.min(room.rows);
                    let until = |i| i * room.rows / count;
                    let lengths: Vec<usize> = (0..count).map(|i| until(i + 1) - until(i)).collect();
                    match Segments::from_lengths(&lengths) {
                        Ok(segments) => self.fill_segments(InputId(i), &segments, block),
                        Err(_) => [0; 3],
                    }
                }
            };
            put(block, i * COUNTS * WORD, counts.into_iter().map(|n| n as u32));
        }
    }

    /// Writes a batch's offsets and tiles; gives its counts.
    fn fill_segments(&self, input: InputId, segments: &Segments, block: &mut [u8]) -> [usize; 3] {
        put(block, self.start(input), segments.offsets().iter().map(|&offset| offset as u32));
        let words = put(block, self.tiles(input), tiles(segments, self.queries(input)).flatten());
        [segments.rows(), segments.count(), words / TILE]
    }
}

/// Tiles begin behind the offsets, at a multiple of their size.
fn tiles_after(sequences: usize) -> usize {
    ((sequences + 1) * WORD).next_multiple_of(TILE * WORD)
}

/// Every tile of so many queries of a batch.
fn tiles(segments: &Segments, queries: usize) -> impl Iterator<Item = [u32; TILE]> + '_ {
    segments.ranges().flat_map(move |range| {
        let (start, length) = (range.start as u32, range.len() as u32);
        (0..range.len()).step_by(queries).map(move |first| [start, length, first as u32, 0])
    })
}

/// Writes words, as many as there is room for; gives their number.
fn put(block: &mut [u8], start: usize, words: impl Iterator<Item = u32>) -> usize {
    let (to, _) = block[start..].as_chunks_mut::<WORD>();
    let mut written = 0;
    for (to, word) in to.iter_mut().zip(words) {
        *to = word.to_le_bytes();
        written += 1;
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(block: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(block[at..at + 4].try_into().unwrap())
    }

    #[test]
    fn a_batch_lies_where_kernels_look_for_it() {
        let segments = Segments::from_lengths(&[3, 130, 64]).unwrap();
        let room = room::segments(&segments);
        let kinds = [InputKind::Ids { room: 208 }, InputKind::Segments(room), InputKind::Values { room: 16, cols: 3 }];
        let staging = Staging::new(&kinds, DType::F16);
        let mut block = vec![0xff; staging.bytes()];
        let ids: Vec<u32> = (0..197).collect();
        let values = [1.0, 2.0, -0.5, 4.0, 5.0, 6.0];
        staging.fill(&[Input::Ids(&ids), Input::Segments(&segments), Input::Values(&values)], &mut block);

        assert_eq!(word(&block, Staging::counts(Rows::Of(InputId(0)))), 197);
        assert_eq!(word(&block, staging.start(InputId(0)) + 4 * 196), 196);
        let counts = Staging::counts(Rows::Of(InputId(1)));
        assert_eq!([0, 4, 8].map(|i| word(&block, counts + i)), [197, 3, 14]);
        assert_eq!(word(&block, Staging::counts(Rows::SequencesOf(InputId(1)))), 3);
        assert_eq!([0, 4, 8, 12].map(|i| word(&block, staging.start(InputId(1)) + i)), [0, 3, 133, 197]);
        // Rows are few: 16 queries to a tile.
        let tiles: Vec<_> = (0..56).map(|i| word(&block, staging.tiles(InputId(1)) + 4 * i)).collect();
        assert_eq!(tiles[..12], [0, 3, 0, 0, 3, 130, 0, 0, 3, 130, 16, 0]);
        assert_eq!(tiles[36..44], [3, 130, 128, 0, 133, 64, 0, 0]);
        assert_eq!(tiles[52..], [133, 64, 48, 0]);
        assert_eq!(word(&block, Staging::counts(Rows::Of(InputId(2)))), 2);
        let start = staging.start(InputId(2));
        assert_eq!(&block[start..start + 6], [0x00, 0x3c, 0x00, 0x40, 0x00, 0xb8]);
    }

    #[test]
    fn what_fills_the_room_is_a_batch() {
        let room = room::segments(&Segments::from_lengths(&[3, 130, 64]).unwrap());
        let kinds = [InputKind::Ids { room: 208 }, InputKind::Segments(room), InputKind::Buffer { room: 32, cols: 3 }];
        let staging = Staging::new(&kinds, DType::F16);
        let mut block = vec![0; staging.bytes()];
        staging.fill_room(&mut block);

        let counts = |input| Staging::counts(Rows::Of(InputId(input)));
        assert_eq!([0, 2].map(|input| word(&block, counts(input))), [208, 32]);
        // 16 sequences of 13 rows, a tile of 16 queries each.
        assert_eq!([0, 4, 8].map(|i| word(&block, counts(1) + i)), [208, 16, 16]);
        let offsets = staging.start(InputId(1));
        assert_eq!([0, 1, 15, 16].map(|i| word(&block, offsets + 4 * i)), [0, 13, 195, 208]);
        assert_eq!([60, 61, 62, 63].map(|i| word(&block, staging.tiles(InputId(1)) + 4 * i)), [195, 13, 0, 0]);
    }
}
