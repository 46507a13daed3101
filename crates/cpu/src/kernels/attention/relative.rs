//! What attention's scores gain by how far query and key are apart: parts by distance, and their sum for a block.
//!
//! Buckets are resolved at load: a part has a column for every distance within reach, so that neighbouring distances
//! are neighbours in memory. Queries times the columns of all distances that a block can meet is `[query][distance]`;
//! of it a key needs a diagonal, and reading the rows with a stride one shorter makes diagonals columns: one
//! transposition puts a few keys' shares where their scores are. Keys times columns is `[key][distance]`, of which
//! each key needs an unbroken piece. Both products are tiles, as the scores themselves.

use std::ops::Range;

use mlxt_backend::{Attention, RelativeShape, RelativeSource, Result, Shaped};

use super::{Product, QUERIES};
use crate::Tensor;
use crate::arena::Block;
use crate::kernels::gemm::tile::{MAX_TILE_ROWS, Panels, transpose};
use crate::simd::{MAX_LANES, Simd};

/// A relative term's parts by distance.
#[derive(Debug)]
pub struct Relative {
    shape: RelativeShape,
    /// By `j - i`, as the keys of a query follow each other.
    keys: Option<Columns>,
    /// By `i - j`, as the queries of a key follow each other.
    queries: Option<Columns>,
    /// By `i - j`.
    bias: Option<Columns>,
}

impl Relative {
    /// A term that has been checked.
    ///
    /// # Errors
    /// Out of memory.
    pub(crate) fn new(source: &RelativeSource<Tensor>) -> Result<Self> {
        let columns = |part: &Option<Tensor>, buckets: &mut dyn Iterator<Item = &u32>| {
            part.as_ref().map(|part| Columns::new(part, source.reach(), buckets)).transpose()
        };
        Ok(Self {
            shape: source.into(),
            keys: columns(&source.keys, &mut source.buckets.iter().rev())?,
            queries: columns(&source.queries, &mut source.buckets.iter())?,
            bias: columns(&source.bias, &mut source.buckets.iter())?,
        })
    }

    /// The columns of its parts.
    pub(crate) fn shape(&self) -> RelativeShape {
        self.shape
    }
}

/// One part, transposed: `[columns of the part][distances from -reach to reach]`.
#[derive(Debug)]
struct Columns {
    reach: usize,
    /// Behind the last row there is room for a tile's vectors.
    values: Block,
}

impl Columns {
    fn new(part: &Tensor, reach: usize, buckets: &mut dyn Iterator<Item = &u32>) -> Result<Self> {
        let width = 2 * reach + 1;
        let mut values = Block::new(part.cols().saturating_mul(width).saturating_add(2 * MAX_LANES))?;
        for (place, &bucket) in buckets.enumerate() {
            let row = &part.values[bucket as usize * part.cols()..][..part.cols()];
            for (to, &value) in values[place..].iter_mut().step_by(width).zip(row) {
                *to = value;
            }
        }
        Ok(Self { reach, values })
    }

    /// From the value of row `r` for the `place`th distance on.
    fn starting_at(&self, r: usize, place: usize) -> &[f32] {
        &self.values[r * (2 * self.reach + 1) + place..]
    }

    /// The distances of a run that are within reach.
    fn within(&self, run: Run) -> Within {
        let reach = self.reach as isize;
        let (low, high) = (run.first, run.first + run.len as isize - 1);
        let (first, last) = (low.clamp(-reach, reach), high.clamp(-reach, reach));
        Within {
            place: (first + reach) as usize,
            count: (last - first + 1) as usize,
            at: (first - low).clamp(0, run.len as isize - 1) as usize,
        }
    }
}

/// Neighbouring distances, at least one.
#[derive(Clone, Copy)]
struct Run {
    first: isize,
    len: usize,
}

/// Which distances of a run have columns of their own: those before and behind have those of the nearest.
struct Within {
    /// The first one's column.
    place: usize,
    /// How many; at least one, even if the whole run is out of reach.
    count: usize,
    /// Where in the run they begin.
    at: usize,
}

impl Within {
    /// Gives the distances out of reach the value of the nearest within.
    fn spread(&self, run: &mut [f32]) {
        let (before, rest) = run.split_at_mut(self.at);
        let (inside, behind) = rest.split_at_mut(self.count);
        before.fill(inside[0]);
        behind.fill(inside[self.count - 1]);
    }
}

/// A relative term for one head and one block of queries.
pub(super) struct Term<'a> {
    relative: &'a Relative,
    head: usize,
    head_size: usize,
    scale: f32,
    /// Counted from the start of the sequence, as the keys.
    queries: Range<usize>,
    keys: Range<usize>,
    /// `[query][distance]`: queries times the part for them.
    by_query: &'a mut [f32],
    /// `[key][QUERIES]` of a panel of keys: their shares of that.
    turned: &'a mut [f32],
    /// `[key][PIECE]` of a panel of keys: keys times the part for them.
    by_key: &'a mut [f32],
    /// `[distance]`, and room for a vector.
    bias: &'a mut [f32],
}

/// Distances between a panel of keys and a block of queries.
const PIECE: usize = QUERIES + MAX_TILE_ROWS;

impl<'a> Term<'a> {
    /// Values of working memory for sequences of at most `longest`.
    pub(super) fn scratch_len(longest: usize) -> usize {
        let [turned, by_key, bias] = Self::sizes(longest);
        (turned + by_key + bias + QUERIES * (longest + QUERIES)).next_multiple_of(MAX_LANES)
    }

    fn sizes(keys: usize) -> [usize; 3] {
        // The transposition spills up to a vector.
        [MAX_TILE_ROWS * QUERIES + MAX_LANES, MAX_TILE_ROWS * PIECE, keys + QUERIES]
    }

    pub(super) fn new(
        relative: &'a Relative,
        a: &Attention,
        head: usize,
        (queries, keys): (Range<usize>, Range<usize>),
        memory: &'a mut [f32],
    ) -> Self {
        let [turned, by_key, bias] = Self::sizes(keys.len());
        let (turned, rest) = memory.split_at_mut(turned);
        let (by_key, rest) = rest.split_at_mut(by_key);
        let (bias, by_query) = rest.split_at_mut(bias);
        let (head_size, scale) = (a.head_size, a.scale);
        Self { relative, head, head_size, scale, queries, keys, by_query, turned, by_key, bias }
    }

    /// Computes what all keys share. `queries` is `[head_size][QUERIES]`, scaled.
    #[inline(always)]
    pub(super) fn prepare<S: Simd>(&mut self, s: S, queries: &[f32]) {
        let run = self.run_of(0..self.keys.len());
        if let Some(columns) = &self.relative.bias {
            let within = columns.within(run);
            let values = &columns.starting_at(self.head, within.place)[..within.count];
            self.bias[within.at..][..within.count].copy_from_slice(values);
            within.spread(&mut self.bias[..run.len]);
        }
        if let Some(columns) = &self.relative.keys {
            // Seen from the queries, distances count the other way.
            let run = Run { first: 1 - run.first - run.len as isize, ..run };
            let panels = Panels::new(self.queries.len(), S::TILE_ROWS);
            for panel in (0..panels.count()).map(|i| panels.range(i)) {
                let out = &mut self.by_query[panel.start * run.len..panel.end * run.len];
                let first_row = self.head * self.head_size;
                let operand = (&queries[panel.start..], QUERIES, panel.len());
                products(s, operand, columns, (first_row, self.head_size), run, out, run.len);
            }
        }
    }

    /// Adds to the scores of a panel of keys, `[key][QUERIES]`. `packed` is the panel, `[head_size][keys of the panel]`.
    #[inline(always)]
    pub(super) fn add<S: Simd>(&mut self, s: S, panel: &Range<usize>, packed: &[f32], scores: &mut [f32]) {
        let (count, height) = (self.queries.len(), panel.len());
        if self.relative.keys.is_some() {
            let distances = self.keys.len() + count - 1;
            // The distance of query `q` and key `k` is at `k - q + count - 1` of its row.
            let src = &self.by_query[panel.start + count - 1..];
            // SAFETY: row `q` is read from `q` places further left on than row 0, and holds the distances of all keys;
            // `turned` has room for MAX_TILE_ROWS >= height rows of QUERIES >= count and a vector.
            unsafe {
                transpose(s, src.as_ptr(), distances - 1, (count, height), self.turned.as_mut_ptr(), QUERIES);
            }
        }
        if let Some(columns) = &self.relative.queries {
            let run = self.run_of(panel.clone());
            let first_row = self.head * self.head_size;
            let operand = (packed, height, height);
            products(s, operand, columns, (first_row, self.head_size), run, self.by_key, PIECE);
        }
        let scale = s.splat(self.scale);
        let rows = scores[panel.start * QUERIES..].chunks_exact_mut(QUERIES);
        for (k, row) in rows.enumerate().take(height) {
            for q in (0..count).step_by(S::LANES) {
                let score = &mut row[q..q + S::LANES];
                let mut x = s.get(score);
                if self.relative.keys.is_some() {
                    x = s.add(x, s.get(&self.turned[k * QUERIES + q..]));
                }
                if self.relative.queries.is_some() {
                    x = s.mul_add(s.get(&self.by_key[k * PIECE + height - 1 - k + q..]), scale, x);
                }
                if self.relative.bias.is_some() {
                    x = s.add(x, s.get(&self.bias[self.keys.len() - 1 - panel.start - k + q..]));
                }
                s.put(score, x);
            }
        }
    }

    /// The distances `i - j` between all queries of the block and some of its keys, from the last key's to the first
    /// query on.
    fn run_of(&self, keys: Range<usize>) -> Run {
        let last_key = self.keys.start + keys.end - 1;
        Run { first: self.queries.start as isize - last_key as isize, len: keys.len() + self.queries.len() - 1 }
    }
}

/// `out[r * out_stride + x] = Σ a[k * a_stride + r] column[k]` for `r < rows` and the `x`th distance of the run;
/// `column` being that distance's in `steps` rows of `columns` from `first_row` on.
#[inline(always)]
fn products<S: Simd>(
    s: S,
    (a, a_stride, rows): (&[f32], usize, usize),
    columns: &Columns,
    (first_row, steps): (usize, usize),
    run: Run,
    out: &mut [f32],
    out_stride: usize,
) {
    let within = columns.within(run);
    let product = Product {
        a: a.as_ptr(),
        a_stride,
        b: columns.starting_at(first_row, within.place).as_ptr(),
        b_stride: 2 * columns.reach + 1,
        steps,
        c: out[within.at..].as_mut_ptr(),
        c_stride: out_stride,
    };
    // SAFETY: `a` holds `steps` steps of at least `rows` values; the part has a row for each of the head's columns, of
    // which `count` lie behind `place`, and room for vectors behind the last; each row of `out` has room for the run.
    unsafe { product.run::<S, f32>(s, rows, within.count) };
    for row in out.chunks_mut(out_stride).take(rows) {
        within.spread(&mut row[..run.len]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_out_of_reach_are_given_the_nearest() {
        let columns = Columns { reach: 2, values: Block::new(5).unwrap() };
        let spread = |first: isize, len: usize| {
            let within = columns.within(Run { first, len });
            let mut row = vec![99.0; len];
            for (i, x) in row[within.at..][..within.count].iter_mut().enumerate() {
                *x = (within.place + i) as f32 - 2.0;
            }
            within.spread(&mut row);
            row
        };
        for first in -6..6 {
            for len in 1..12 {
                let want: Vec<f32> = (0..len).map(|i| (first + i as isize).clamp(-2, 2) as f32).collect();
                assert_eq!(spread(first, len), want);
            }
        }
    }
}
