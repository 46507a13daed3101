//! Attention over `[batch, heads, tokens, size]`, where a head's rows lie side by side.
//!
//! As in the models' kernel, `Sᵀ = K Qᵀ` has one query per lane; what the softmax leaves is the operand that `P V`
//! broadcasts from, and the values and the result are read and written as they lie.

use mlxt_backend::operations::{Operation, shapes};
use mlxt_backend::{Attention, Mask, Result, Segments};

use super::copy::write;
use super::{Context, FAR};
use crate::kernels::attention::{Layout, Product, QUERIES, Visible, attention, softmax};
use crate::kernels::gemm::tile::{MAX_TILE_ROWS, Panels, transpose};
use crate::simd::{Kernel, MAX_LANES, Simd};
use crate::threads::Shareable;

/// Query `i` sees keys `0..=i`.
///
/// # Errors
/// Out of memory for the scores.
pub(super) fn causal(
    context: Context<'_>,
    qkv: [&[f32]; 3],
    queries: &[usize],
    keys: &[usize],
    out: &mut [f32],
) -> Result<()> {
    let (&[batch, heads, count, size], &[_, _, key_count, _]) = (queries, keys) else { return Ok(()) };
    // The keys behind the last query are seen by none.
    let all: Vec<_> =
        (0..batch * heads).map(|index| Head { index, queries: count, keys: count.min(key_count) }).collect();
    heads_of(context, qkv, &all, Sizes { queries: count, keys: key_count, size }, Mask::Causal, out)
}

/// Every query sees the keys of its sequence; what is behind a sequence's end becomes zero.
///
/// # Errors
/// A length beyond the operands; out of memory for the scores.
pub(super) fn padded(
    context: Context<'_>,
    operation: &Operation,
    qkv: [&[f32]; 3],
    shape: &[usize],
    lengths: &[i32],
    out: &mut [f32],
) -> Result<()> {
    let &[_, heads, count, size] = shape else { return Ok(()) };
    let lengths = shapes::lengths(operation, lengths, count)?;
    let head = |(batch, &seen): (usize, &usize)| {
        (0..heads).map(move |h| Head { index: batch * heads + h, queries: seen, keys: seen })
    };
    let all: Vec<_> = lengths.iter().enumerate().flat_map(head).collect();
    for head in &all {
        out[(head.index * count + head.queries) * size..(head.index + 1) * count * size].fill(0.0);
    }
    heads_of(context, qkv, &all, Sizes { queries: count, keys: count, size }, Mask::Full, out)
}

/// Sequences end to end: the models' own kernel.
///
/// # Errors
/// Lengths that do not add up to the rows; out of memory for the scores.
pub(super) fn ragged(
    context: Context<'_>,
    operation: &Operation,
    qkv: &[f32],
    shape: &[usize],
    (heads, lengths): (usize, &[i32]),
    out: &mut [f32],
) -> Result<()> {
    let &[rows, cols] = shape else { return Ok(()) };
    let segments: Segments = shapes::segments(operation, lengths, rows)?;
    let head_size = cols / 3 / heads;
    let a = Attention { heads, head_size, scale: scale(head_size), mask: Mask::Full };
    attention((context.token, context.pool, context.arena), None, qkv, &Layout::new(&segments), &a, None, out)
}

fn scale(size: usize) -> f32 {
    1.0 / (size as f32).sqrt()
}

/// A head, and how many of its queries and keys count.
#[derive(Clone, Copy)]
struct Head {
    index: usize,
    queries: usize,
    keys: usize,
}

/// Rows of each head's operands.
#[derive(Clone, Copy)]
struct Sizes {
    queries: usize,
    keys: usize,
    size: usize,
}

fn heads_of(
    context: Context<'_>,
    [q, k, v]: [&[f32]; 3],
    heads: &[Head],
    sizes: Sizes,
    mask: Mask,
    out: &mut [f32],
) -> Result<()> {
    let longest = heads.iter().map(|h| h.keys).max().unwrap_or(0);
    let blocks: Vec<_> = heads
        .iter()
        .flat_map(|&head| {
            let panels = Panels::new(head.queries, QUERIES);
            (0..panels.count()).map(move |i| (head, panels.range(i)))
        })
        .collect();
    let far = out.len() >= FAR;
    let scratch_len = Scratch::len(longest, sizes.size);
    let mut scratch = context.arena.take(scratch_len.saturating_mul(context.pool.threads()))?;
    let (scratch, out) = (Shareable(scratch.as_mut_ptr()), Shareable(out.as_mut_ptr()));
    context.pool.run(blocks.len(), |slot, claims| {
        // SAFETY: there is room for every thread, and no two have the same slot.
        let scratch = unsafe { std::slice::from_raw_parts_mut(scratch.get().add(slot * scratch_len), scratch_len) };
        for (head, queries) in claims.map(|i| blocks[i].clone()) {
            let first = (head.index * sizes.queries + queries.start) * sizes.size;
            let of_head = |x: &'_ [f32]| {
                head.index * sizes.keys * sizes.size..x.len().min((head.index + 1) * sizes.keys * sizes.size)
            };
            // SAFETY: the block's rows of `out` belong to this task, which is claimed once.
            let out = unsafe { std::slice::from_raw_parts_mut(out.get().add(first), queries.len() * sizes.size) };
            context.token.run(Attend {
                q: &q[first..][..out.len()],
                k: &k[of_head(k)],
                v: &v[of_head(v)],
                size: sizes.size,
                first: queries.start,
                keys: head.keys,
                mask,
                scratch: Scratch::new(scratch, longest, sizes.size),
                out,
                far,
            });
        }
    });
    Ok(())
}

/// Working memory of one thread.
struct Scratch<'a> {
    /// `[size][queries]`, scaled.
    queries: &'a mut [f32],
    /// `[size][tile rows]`: a few keys.
    keys: &'a mut [f32],
    /// `[keys][QUERIES]`: scores, later weights.
    scores: &'a mut [f32],
    /// `[tile rows][size]`: some rows of the result before they are streamed.
    result: &'a mut [f32],
    /// `[keys][size]`, with room to read whole vectors behind the last row.
    values: &'a mut [f32],
}

impl<'a> Scratch<'a> {
    const fn sizes(keys: usize, size: usize) -> [usize; 5] {
        // Transpositions spill up to a vector.
        let (queries, tile) = (size * QUERIES + MAX_LANES, size * MAX_TILE_ROWS);
        [queries, tile + MAX_LANES, keys * QUERIES, tile, keys * size + 2 * MAX_LANES]
    }

    fn len(keys: usize, size: usize) -> usize {
        Self::sizes(keys, size).into_iter().sum::<usize>().next_multiple_of(MAX_LANES)
    }

    fn new(memory: &'a mut [f32], count: usize, size: usize) -> Self {
        let [queries, keys, scores, result, _] = Self::sizes(count, size);
        let (queries, rest) = memory.split_at_mut(queries);
        let (keys, rest) = rest.split_at_mut(keys);
        let (scores, rest) = rest.split_at_mut(scores);
        let (result, values) = rest.split_at_mut(result);
        Self { queries, keys, scores, result, values }
    }
}

/// Some queries of one head.
struct Attend<'a> {
    /// `[queries, size]`
    q: &'a [f32],
    /// `[.., size]`, and the values likewise.
    k: &'a [f32],
    v: &'a [f32],
    size: usize,
    /// The number of the first query.
    first: usize,
    /// Keys that may be seen.
    keys: usize,
    mask: Mask,
    scratch: Scratch<'a>,
    /// `[queries, size]`
    out: &'a mut [f32],
    far: bool,
}

impl Kernel for Attend<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { q, k, v, size, first, mask, scratch, out, far, .. } = self;
        let count = out.len() / size;
        let keys = mask.visible((first + count - 1).min(self.keys - 1), self.keys).end;
        let lanes = count.next_multiple_of(S::LANES);
        // SAFETY: `count` rows of `size`; `queries` has room for `size` rows of up to QUERIES >= lanes, and a vector.
        unsafe { transpose(s, q.as_ptr(), size, (count, size), scratch.queries.as_mut_ptr(), lanes) };
        let scaling = s.splat(scale(size));
        for x in scratch.queries[..size * lanes].chunks_exact_mut(S::LANES) {
            s.put(x, s.mul(s.get(x), scaling));
        }
        let panels = Panels::new(keys, S::TILE_ROWS);
        for panel in (0..panels.count()).map(|i| panels.range(i)) {
            let height = panel.len();
            // SAFETY: `height` rows of `size`, and room for MAX_TILE_ROWS >= height and a vector.
            unsafe {
                transpose(s, k[panel.start * size..].as_ptr(), size, (height, size), scratch.keys.as_mut_ptr(), height);
            }
            let product = Product {
                a: scratch.keys.as_ptr(),
                a_stride: height,
                b: scratch.queries.as_ptr(),
                b_stride: lanes,
                steps: size,
                c: scratch.scores[panel.start * QUERIES..].as_mut_ptr(),
                c_stride: QUERIES,
            };
            // Meanwhile the values of these keys come: else memory and arithmetic would wait for each other in turns, which
            // took a third more time. And where a step can fetch as much, the next head's keys behind them.
            let next = if 2 * height > lanes.min(2 * S::LANES) {
                (v[panel.start * size..].as_ptr(), height)
            } else if 2 * panel.start < keys {
                (v.as_ptr().wrapping_add(2 * panel.start * size), 2 * height)
            } else {
                (k.as_ptr().wrapping_add(k.len() + (2 * panel.start - keys) * size), 2 * height)
            };
            // SAFETY: for each of `size` steps `height` keys and `lanes` queries, whole vectors; a row of QUERIES
            // scores for each key.
            unsafe { product.run_fetching::<S, f32>(s, height, lanes, next) };
        }
        for lane in (0..lanes).step_by(S::LANES) {
            let visible = Visible::new(s, mask, first + lane, self.keys);
            let scores = &mut scratch.scores[lane..];
            let share = s.div(s.splat(1.0), softmax(s, scores, 0..keys, visible.as_ref()));
            for key in 0..keys {
                let weight = &mut scores[key * QUERIES..][..S::LANES];
                s.put(weight, s.mul(s.get(weight), share));
            }
        }
        // Tiles read whole vectors, so rows that are none are moved to where something follows them.
        let values = if size.is_multiple_of(S::LANES) {
            v.as_ptr()
        } else {
            scratch.values[..keys * size].copy_from_slice(&v[..keys * size]);
            scratch.values.as_ptr()
        };
        let panels = Panels::new(count, S::TILE_ROWS);
        for panel in (0..panels.count()).map(|i| panels.range(i)) {
            let out = &mut out[panel.start * size..panel.end * size];
            // The next block's queries mostly follow these. A tile of two vectors takes a step for each key.
            let next = q.as_ptr().wrapping_add(q.len() + panel.start * size);
            let stride = panel.len() * 2 * S::LANES / keys;
            let near = if far { &mut scratch.result[..out.len()] } else { &mut *out };
            let product = Product {
                a: scratch.scores[panel.start..].as_ptr(),
                a_stride: QUERIES,
                b: values,
                b_stride: size,
                steps: keys,
                c: near.as_mut_ptr(),
                c_stride: size,
            };
            // SAFETY: for each key a weight of each query, and `size` values, which are whole vectors or have two
            // vectors of room behind them.
            unsafe { product.run_fetching::<S, f32>(s, panel.len(), size, (next, stride)) };
            if far {
                write(s, &scratch.result[..out.len()], out, far, |x| x);
            }
        }
        s.fence();
    }
}
