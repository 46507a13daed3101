//! Ragged batches: where each sequence lies among the rows, and the tokens that make them.

use std::ops::Range;
use std::sync::Arc;

use crate::{Error, Result};

/// Where each sequence of a batch lies: cumulative lengths, checked once. There is no padding anywhere.
///
/// Every sequence has at least one row and there is at least one sequence. Clones share the numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segments {
    /// `[0, len0, len0 + len1, ..]`
    offsets: Arc<[usize]>,
}

impl Segments {
    /// Sequences of the given lengths, end to end.
    ///
    /// # Errors
    /// [`Error::Empty`] without a sequence or with one of no rows; [`Error::TooManyRows`] past `u32::MAX` rows.
    pub fn from_lengths(lengths: &[usize]) -> Result<Self> {
        if lengths.is_empty() {
            return Err(Error::Empty { found: "no sequence".into() });
        }
        let mut offsets = Vec::with_capacity(lengths.len() + 1);
        let mut end = 0_usize;
        offsets.push(end);
        for (i, &length) in lengths.iter().enumerate() {
            if length == 0 {
                return Err(Error::Empty { found: format!("no token in sequence {i}") });
            }
            end = end.saturating_add(length);
            offsets.push(end);
        }
        let limit = u32::MAX as usize;
        if end > limit {
            return Err(Error::TooManyRows { rows: end, limit });
        }
        Ok(Self { offsets: offsets.into() })
    }

    /// Number of sequences.
    #[must_use]
    pub fn count(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Number of rows over all sequences.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.offsets[self.count()]
    }

    /// The rows of sequence `i`.
    ///
    /// # Panics
    /// If there is no sequence `i`.
    #[must_use]
    pub fn range(&self, i: usize) -> Range<usize> {
        self.offsets[i]..self.offsets[i + 1]
    }

    /// The rows of each sequence, in order.
    pub fn ranges(&self) -> impl ExactSizeIterator<Item = Range<usize>> + '_ {
        (0..self.count()).map(|i| self.range(i))
    }

    /// The length of the longest sequence.
    #[must_use]
    pub fn longest(&self) -> usize {
        self.ranges().map(|r| r.len()).max().unwrap_or(0)
    }

    /// Cumulative lengths: `count() + 1` numbers, the first 0, the last [`Segments::rows`].
    #[must_use]
    pub fn offsets(&self) -> &[usize] {
        &self.offsets
    }
}

/// Token ids of several sequences, end to end, with the type (segment) id of each token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenBatch {
    ids: Vec<u32>,
    type_ids: Vec<u32>,
    segments: Segments,
}

impl TokenBatch {
    /// A batch of `ids`, `[rows]`, cut by `lengths`; `type_ids`, `[rows]`.
    ///
    /// # Errors
    /// What [`Segments::from_lengths`] refuses; [`Error::Shape`] if the lengths do not add up to the ids given.
    pub fn new(ids: Vec<u32>, type_ids: Vec<u32>, lengths: &[usize]) -> Result<Self> {
        let segments = Segments::from_lengths(lengths)?;
        let rows = segments.rows();
        for (what, found) in [("token ids", ids.len()), ("token type ids", type_ids.len())] {
            if found != rows {
                return Err(Error::Shape { op: "token batch", what, expected: rows, found });
            }
        }
        Ok(Self { ids, type_ids, segments })
    }

    /// A batch of whole sequences, all of token type 0.
    ///
    /// # Errors
    /// As [`TokenBatch::new`].
    pub fn from_sequences<S: AsRef<[u32]>>(sequences: &[S]) -> Result<Self> {
        let lengths: Vec<usize> = sequences.iter().map(|s| s.as_ref().len()).collect();
        let ids: Vec<u32> = sequences.iter().flat_map(|s| s.as_ref().iter().copied()).collect();
        let type_ids = vec![0; ids.len()];
        Self::new(ids, type_ids, &lengths)
    }

    /// Token ids, `[rows]`.
    #[must_use]
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// Token type ids, `[rows]`.
    #[must_use]
    pub fn type_ids(&self) -> &[u32] {
        &self.type_ids
    }

    /// Where each sequence lies.
    #[must_use]
    pub fn segments(&self) -> &Segments {
        &self.segments
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn empty_batches_and_sequences_are_refused() {
        assert!(matches!(Segments::from_lengths(&[]), Err(Error::Empty { .. })));
        assert!(matches!(Segments::from_lengths(&[3, 0]), Err(Error::Empty { .. })));
        assert!(matches!(Segments::from_lengths(&[usize::MAX, 2]), Err(Error::TooManyRows { .. })));
    }

    #[test]
    fn ids_must_fill_the_sequences() {
        let short = TokenBatch::new(vec![1, 2], vec![0, 0], &[3]);
        assert!(matches!(short, Err(Error::Shape { expected: 3, found: 2, .. })));
        let types = TokenBatch::new(vec![1, 2], vec![0], &[2]);
        assert!(matches!(types, Err(Error::Shape { what: "token type ids", .. })));
    }

    proptest! {
        #[test]
        fn ranges_tile_the_rows(lengths in prop::collection::vec(1_usize..600, 1..50)) {
            let segments = Segments::from_lengths(&lengths).unwrap();
            let mut next = 0;
            for (range, &length) in segments.ranges().zip(&lengths) {
                prop_assert_eq!(range.start, next);
                prop_assert_eq!(range.len(), length);
                next = range.end;
            }
            prop_assert_eq!(next, segments.rows());
            prop_assert_eq!(Some(segments.longest()), lengths.iter().copied().max());
        }
    }
}
