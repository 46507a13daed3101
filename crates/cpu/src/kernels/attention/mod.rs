//! Scaled dot-product attention per sequence and head, without padding between sequences.
//!
//! A task is one head of up to 64 queries of one sequence. Everything is laid out with one query per lane:
//! `Sᵀ = K Qᵀ` is `[keys][queries]`, so the softmax of each query runs down its lane and no sum ever crosses lanes;
//! what it leaves is already the operand that `O = Pᵀ V` broadcasts from, with the values as they lie in memory as the other.
//! Both products are the tiles of the linear layers. A result depends on its own sequence only.
//!
//! Where the CPU multiplies bfloat16 faster than f32, both products may be in it (`operands.rs`); scores, softmax and sums are
//! f32 in any case.
//!
//! What scores gain by distance is in `relative.rs`.

mod operands;
mod relative;

use std::marker::PhantomData;
use std::ops::Range;
use std::ptr;
use std::sync::Arc;

use mlxt_backend::{Attention, Mask, Result, Segments};

pub use relative::Relative;

use self::operands::{Operand, Rows};
use self::relative::Term;
use super::gemm::tile::{Fetch, LINE, MAX_TILE_ROWS, Panels, Tile, function_of};
use super::gemm::weight::{Pair, Weight};
use super::math::exp;
use crate::arena::Arena;
use crate::simd::{Kernel, MAX_LANES, PairToken, Simd, Token};
use crate::threads::{Pool, Shareable};

/// Queries of a task: enough to pack a key only once per 64 uses, few enough that the scores of 512 keys stay in the
/// second-level cache.
pub(crate) const QUERIES: usize = 64;

/// What attention and pooling need to know of a batch.
#[derive(Debug)]
pub struct Layout {
    pub(crate) segments: Segments,
    blocks: Vec<Block>,
}

/// Some queries of one sequence.
#[derive(Debug, Clone)]
struct Block {
    /// The rows of the sequence.
    sequence: Range<usize>,
    /// The queries, counted from its start.
    queries: Range<usize>,
    /// The blocks of the sequence.
    all: Range<usize>,
}

impl Layout {
    /// Cuts each sequence into blocks of queries.
    pub(crate) fn new(segments: &Segments) -> Self {
        let mut blocks = Vec::new();
        for sequence in segments.ranges() {
            let panels = Panels::new(sequence.len(), QUERIES);
            let all = blocks.len()..blocks.len() + panels.count();
            let block = |i| Block { sequence: sequence.clone(), queries: panels.range(i), all: all.clone() };
            blocks.extend((0..panels.count()).map(block));
        }
        Self { blocks, segments: segments.clone() }
    }

    /// The block and the head of a task: sequence by sequence, and head by head, so that all queries meet a head's keys and
    /// values on the same thread, one after the other.
    fn task(&self, task: usize, heads: usize) -> (&Block, usize) {
        let all = &self.blocks[task / heads].all;
        let i = task - all.start * heads;
        (&self.blocks[all.start + i % all.len()], i / all.len())
    }
}

/// `out = softmax(scale q kᵀ + relative + mask) v`: `[rows, 3 * hidden]` to `[rows, hidden]`. With `pairs` the products are in
/// bfloat16, unless there is a relative term, which is added up from the same queries and keys in f32.
///
/// # Errors
/// Out of memory for the scores.
pub(crate) fn attention(
    (token, pool, arena): (Token, &Pool, &Arc<Arena>),
    pairs: Option<PairToken>,
    qkv: &[f32],
    layout: &Layout,
    a: &Attention,
    relative: Option<&Relative>,
    out: &mut [f32],
) -> Result<()> {
    let longest = layout.segments.longest();
    let plain_len = Scratch::len(longest, a.head_size);
    let scratch_len = plain_len + relative.map_or(0, |_| Term::scratch_len(longest));
    let tasks = layout.blocks.len() * a.heads;
    let mut scratch = arena.take(scratch_len.saturating_mul(pool.threads()))?;
    let (scratch, out) = (Shareable(scratch.as_mut_ptr()), Shareable(out.as_mut_ptr()));
    pool.run(tasks, |slot, claims| {
        // SAFETY: there is room for every thread, and no two have the same slot.
        let scratch = unsafe { std::slice::from_raw_parts_mut(scratch.get().add(slot * scratch_len), scratch_len) };
        for task in claims {
            let (block, index) = layout.task(task, a.heads);
            let (scratch, rest) = scratch.split_at_mut(plain_len);
            let relative = relative.map(|relative| (relative, rest));
            let next = layout.task((task + 1).min(tasks - 1), a.heads);
            let next = (next.0.sequence.start, next.1);
            match pairs {
                Some(pairs) if relative.is_none() => {
                    let operands = PhantomData::<Pair>;
                    pairs.run(Head { qkv, block, index, next, a, relative, scratch, out, operands });
                }
                _ => {
                    let operands = PhantomData::<f32>;
                    token.run(Head { qkv, block, index, next, a, relative, scratch, out, operands });
                }
            }
        }
    });
    Ok(())
}

/// Working memory of one thread. Pairs need half of what they lie in.
struct Scratch<'a> {
    /// `[head_size][QUERIES]`: scaled queries; later `[queries][head_size]`: the result, still to be scaled.
    heads: &'a mut [f32],
    /// `[head_size][tile rows]`: a few keys, transposed.
    keys: &'a mut [f32],
    /// `[keys][head_size]`: values that cannot be read where they lie, with room to read whole vectors behind the last row.
    values: &'a mut [f32],
    /// `[keys][QUERIES]`: scores, later weights.
    scores: &'a mut [f32],
}

impl<'a> Scratch<'a> {
    const fn sizes(head_size: usize) -> (usize, usize) {
        // Both transpositions spill up to a vector.
        (head_size * QUERIES + MAX_LANES, head_size * MAX_TILE_ROWS + MAX_LANES)
    }

    fn len(longest: usize, head_size: usize) -> usize {
        let (heads, keys) = Self::sizes(head_size);
        (heads + keys + longest * (head_size + QUERIES) + 2 * MAX_LANES).next_multiple_of(MAX_LANES)
    }

    fn new(memory: &'a mut [f32], count: usize, head_size: usize) -> Self {
        let (heads, keys) = Self::sizes(head_size);
        let (heads, rest) = memory.split_at_mut(heads);
        let (keys, rest) = rest.split_at_mut(keys);
        let (values, scores) = rest.split_at_mut(count * head_size + 2 * MAX_LANES);
        Self { heads, keys, values, scores }
    }
}

/// One task.
struct Head<'a, O> {
    qkv: &'a [f32],
    block: &'a Block,
    index: usize,
    /// The first row and the head of the task that mostly follows.
    next: (usize, usize),
    a: &'a Attention,
    /// With working memory for it.
    relative: Option<(&'a Relative, &'a mut [f32])>,
    scratch: &'a mut [f32],
    out: Shareable,
    operands: PhantomData<O>,
}

impl<O: Operand> Kernel for Head<'_, O> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let size = self.a.head_size;
        let hidden = self.a.heads * size;
        let stride = 3 * hidden;
        let Block { sequence, queries, .. } = self.block;
        let count = queries.len();
        // Only keys that some query of the block sees.
        let mask = self.a.mask;
        let last = mask.visible(queries.end - 1, sequence.len());
        let keys = mask.visible(queries.start, sequence.len()).start..last.end;
        let scratch = Scratch::new(self.scratch, keys.len(), size);
        // Lanes in use, as whole vectors. What is computed in the others is never stored.
        let lanes = count.next_multiple_of(S::LANES);

        let place = |rows: &Range<usize>, which: usize| {
            let at = (sequence.start + rows.start) * stride + which * hidden + self.index * size;
            Rows { values: &self.qkv[at..], stride, count: rows.len(), size }
        };
        let (query, key, value) = (place(queries, 0), place(&keys, 1), place(&keys, 2));
        O::queries(s, query, self.a.scale, scratch.heads);
        // Steps of a product that sums so many values.
        let steps = |values: usize| values.div_ceil(O::INPUTS);

        let mut term = self.relative.map(|(relative, memory)| {
            let mut term = Term::new(relative, self.a, self.index, (queries.clone(), keys.clone()), memory);
            term.prepare(s, scratch.heads);
            term
        });

        let key_panels = Panels::new(keys.len(), S::TILE_ROWS);
        for panel in (0..key_panels.count()).map(|i| key_panels.range(i)) {
            let height = panel.len();
            // The next rows come from far away while this panel is multiplied, and as many of the next task's.
            for row in (panel.end..keys.len()).take(S::TILE_ROWS) {
                fetch(s, key.row(row).as_ptr(), size);
                fetch(s, value.row(row).as_ptr(), size);
            }
            for row in panel.clone() {
                for which in 0..3 {
                    let at = (self.next.0 + row) * stride + which * hidden + self.next.1 * size;
                    fetch(s, self.qkv.as_ptr().wrapping_add(at), size);
                }
            }
            O::keys(s, key, panel.start, height, scratch.keys);
            let product = Product {
                a: scratch.keys.as_ptr(),
                a_stride: height,
                b: scratch.heads.as_ptr(),
                b_stride: QUERIES,
                steps: steps(size),
                c: scratch.scores[panel.start * QUERIES..].as_mut_ptr(),
                c_stride: QUERIES,
            };
            // SAFETY: `keys` holds so many steps of `height` values, `heads` as many rows of QUERIES, and `scores` a row
            // of QUERIES for each key.
            unsafe { product.run::<S, O>(s, height, lanes) };
            if let Some(term) = &mut term {
                term.add(s, &panel, scratch.keys, scratch.scores);
            }
        }

        // What each query's weights are to be multiplied by, so that their sum is 1.
        let mut shares = [0.0; QUERIES];
        for first in (0..lanes).step_by(S::LANES) {
            let visible = Visible::new(s, mask, queries.start + first, sequence.len());
            let total = softmax(s, &mut scratch.scores[first..], keys.clone(), visible.as_ref());
            s.put(&mut shares[first..first + S::LANES], s.div(s.splat(1.0), total));
        }

        O::weights(s, scratch.scores, keys.len(), lanes);
        let (values, values_stride) = O::values(s, value, scratch.values);
        let query_panels = Panels::new(count, S::TILE_ROWS);
        for panel in (0..query_panels.count()).map(|i| query_panels.range(i)) {
            let product = Product {
                a: scratch.scores[panel.start..].as_ptr(),
                a_stride: QUERIES,
                b: values.as_ptr(),
                b_stride: values_stride,
                steps: steps(keys.len()),
                c: scratch.heads[panel.start * size..].as_mut_ptr(),
                c_stride: size,
            };
            // SAFETY: for each step a weight of each query, and `size` values, which are whole vectors or have two vectors of
            // room behind them; `heads` has a row of `size` for each query. The queries in it are no longer needed.
            unsafe { product.run::<S, O>(s, panel.len(), size) };
        }
        for (q, (row, &share)) in scratch.heads.chunks_exact(size).zip(&shares[..count]).enumerate() {
            let first = (sequence.start + queries.start + q) * hidden + self.index * size;
            // SAFETY: the columns of this head in these rows of `out` belong to this task.
            let out = unsafe { std::slice::from_raw_parts_mut(self.out.get().add(first), size) };
            for (out, x) in out.chunks_mut(S::LANES).zip(row.chunks(S::LANES)) {
                s.put(out, s.mul(s.get(x), s.splat(share)));
            }
        }
    }
}

/// Brings so many values nearer. Any address is fine.
#[inline(always)]
fn fetch<S: Simd>(s: S, values: *const f32, count: usize) {
    for at in (0..count).step_by(LINE) {
        s.prefetch(values.wrapping_add(at));
    }
}

/// `c[i, j] = Σ a[k, i] b[k, j]`; each of `a` and `b` in the bits of an f32.
pub(crate) struct Product {
    pub(crate) a: *const f32,
    pub(crate) a_stride: usize,
    pub(crate) b: *const f32,
    pub(crate) b_stride: usize,
    pub(crate) steps: usize,
    pub(crate) c: *mut f32,
    pub(crate) c_stride: usize,
}

impl Product {
    /// # Safety
    /// `rows` values at each of `steps` steps of `a` can be read, and whole vectors for `columns` of each of `b`;
    /// `columns` values of `rows` rows of `c` can be written, and by nobody else.
    #[inline(always)]
    pub(crate) unsafe fn run<S: Simd, W: Weight>(self, s: S, rows: usize, columns: usize) {
        // SAFETY: the caller's promise.
        unsafe { self.run_fetching::<S, W>(s, rows, columns, (self.b, 0)) }
    }

    /// The same, and meanwhile what is needed next is brought nearer: from `next` on, `stride` values at each step of each
    /// tile. Any address is fine.
    ///
    /// # Safety
    /// As for [`Product::run`].
    #[inline(always)]
    pub(crate) unsafe fn run_fetching<S: Simd, W: Weight>(
        &self,
        s: S,
        rows: usize,
        columns: usize,
        (next, stride): (*const f32, usize),
    ) {
        const { assert!(size_of::<W>() == size_of::<f32>()) }
        let mut first = 0;
        while first < columns {
            let cols = (2 * S::LANES).min(columns - first);
            let tile = Tile {
                a: self.a,
                a_stride: self.a_stride,
                b: self.b.wrapping_add(first).cast::<W>(),
                b_stride: self.b_stride,
                steps: self.steps,
                c: self.c.wrapping_add(first),
                c_stride: self.c_stride,
                cols,
                accumulate: false,
                bias: ptr::null(),
                fetch: Fetch::two_vectors::<S, f32>(
                    next.wrapping_add(first / (2 * S::LANES) * self.steps * stride),
                    stride,
                ),
            };
            // SAFETY: the caller's promise.
            unsafe { function_of::<S, W>(rows, cols.div_ceil(S::LANES))(s, &tile) };
            first += cols;
        }
    }
}

/// The range of keys that the query in each lane sees, as numbers: sequences are far shorter than the 2²⁴ up to which
/// f32 counts exactly.
pub(crate) struct Visible<S: Simd> {
    first: S::V,
    end: S::V,
}

impl<S: Simd> Visible<S> {
    /// For the queries from `query` on; nothing if they see all keys.
    #[inline(always)]
    pub(crate) fn new(s: S, mask: Mask, query: usize, length: usize) -> Option<Self> {
        if mask == Mask::Full {
            return None;
        }
        let (mut first, mut end) = ([0.0; MAX_LANES], [0.0; MAX_LANES]);
        for (lane, (first, end)) in first.iter_mut().zip(&mut end).enumerate() {
            // Lanes behind the sequence see what its last query sees.
            let range = mask.visible((query + lane).min(length - 1), length);
            (*first, *end) = (range.start as f32, range.end as f32);
        }
        Some(Self { first: s.get(&first[..S::LANES]), end: s.get(&end[..S::LANES]) })
    }
}

/// Turns the scores of one vector of queries into weights (not yet divided by their sum), and gives the sums.
#[inline(always)]
pub(crate) fn softmax<S: Simd>(s: S, scores: &mut [f32], keys: Range<usize>, visible: Option<&Visible<S>>) -> S::V {
    let lowest = s.splat(f32::NEG_INFINITY);
    let mut largest = lowest;
    for (i, key) in keys.clone().enumerate() {
        let score = &mut scores[i * QUERIES..][..S::LANES];
        let mut x = s.get(score);
        if let Some(visible) = visible {
            let key = s.splat(key as f32);
            x = s.select(s.less(key, visible.end), s.select(s.less(key, visible.first), lowest, x), lowest);
            s.put(score, x);
        }
        largest = s.max(largest, x);
    }
    let mut total = s.splat(0.0);
    for i in 0..keys.len() {
        let score = &mut scores[i * QUERIES..][..S::LANES];
        let weight = exp(s, s.sub(s.get(score), largest));
        s.put(score, weight);
        total = s.add(total, weight);
    }
    total
}

#[cfg(test)]
mod tests {
    use crate::tests::{assert_near, every_cpu, every_cpu_in_bf16, noise};
    use crate::{Cpu, CpuOptions, Isa, Layout};
    use half::bf16;
    use mlxt_backend::{Attention, Backend, Mask, Reference, RelativeSource, Segments};

    const MASKS: [Mask; 5] = [
        Mask::Full,
        Mask::Causal,
        Mask::Window { radius: 0 },
        Mask::Window { radius: 5 },
        Mask::Window { radius: usize::MAX },
    ];

    fn attend<B: Backend>(b: &B, lengths: &[usize], qkv: &[f32], a: &Attention) -> Vec<f32> {
        attend_with(b, lengths, qkv, a, None)
    }

    fn attend_with<B: Backend>(
        b: &B,
        lengths: &[usize],
        qkv: &[f32],
        a: &Attention,
        relative: Option<&B::Relative>,
    ) -> Vec<f32> {
        let segments = Segments::from_lengths(lengths).unwrap();
        let cols = 3 * a.heads * a.head_size;
        let x = b.write(segments.rows(), cols, qkv).unwrap();
        b.read(&b.attention(&x, &b.layout(&segments).unwrap(), a, relative).unwrap()).unwrap()
    }

    #[test]
    fn tasks_are_all_blocks_of_a_head_before_the_next_head() {
        let layout = Layout::new(&Segments::from_lengths(&[3, 130, 64]).unwrap());
        let tasks: Vec<_> = (0..layout.blocks.len() * 2)
            .map(|task| {
                let (block, head) = layout.task(task, 2);
                (block.sequence.start, block.queries.start, head)
            })
            .collect();
        let middle = [(3, 0, 0), (3, 44, 0), (3, 87, 0), (3, 0, 1), (3, 44, 1), (3, 87, 1)];
        assert_eq!(tasks, [&[(0, 0, 0), (0, 0, 1)], &middle[..], &[(133, 0, 0), (133, 0, 1)]].concat());
    }

    /// All three parts, `reach` buckets of near distances and some of far ones.
    fn relative<B: Backend>(b: &B, a: &Attention, reach: usize) -> B::Relative {
        let buckets: Vec<u32> = (0..=2 * reach as u32).map(|i| i * 5 / 7).collect();
        let count = 1 + buckets[2 * reach] as usize;
        let part = |cols: usize| Some(b.write(count, cols, &noise(count * cols, 1.0)).unwrap());
        let (keys, queries) = (part(a.heads * a.head_size), part(a.heads * a.head_size));
        b.relative(RelativeSource { buckets, keys, queries, bias: part(a.heads) }).unwrap()
    }

    fn check(lengths: &[usize], heads: usize, head_size: usize) {
        let rows: usize = lengths.iter().sum();
        let qkv = noise(rows * 3 * heads * head_size, 2.0);
        for mask in MASKS {
            let a = Attention { heads, head_size, scale: 1.0 / (head_size as f32).sqrt(), mask };
            let want = attend(&Reference, lengths, &qkv, &a);
            every_cpu(|cpu| {
                assert_near(&attend(cpu, lengths, &qkv, &a), &want, 5e-6);
                Ok(())
            });
        }
    }

    #[test]
    fn every_length_is_the_references() {
        for length in 1..40 {
            check(&[length], 2, 8);
        }
        check(&[63, 64, 65, 1, 129, 200], 3, 16);
    }

    #[test]
    fn every_head_size_is_the_references() {
        for head_size in (1..36).chain([64, 65, 128]) {
            check(&[5, 18], 2, head_size);
        }
    }

    #[test]
    fn long_sequences_are_the_references() {
        check(&[700], 1, 20);
    }

    #[test]
    fn relative_terms_of_every_length_are_the_references() {
        for reach in [0, 3, 50, 300] {
            for mask in MASKS {
                let a = Attention { heads: 2, head_size: 9, scale: 0.3, mask };
                let lengths: &[usize] =
                    if reach == 50 { &[1, 2, 13, 14, 15, 16, 29, 31, 63, 64, 65, 130, 200] } else { &[1, 40, 129] };
                let qkv = noise(lengths.iter().sum::<usize>() * 54, 1.0);
                let want = attend_with(&Reference, lengths, &qkv, &a, Some(&relative(&Reference, &a, reach)));
                every_cpu(|cpu| {
                    let got = attend_with(cpu, lengths, &qkv, &a, Some(&relative(cpu, &a, reach)));
                    assert_near(&got, &want, 5e-6);
                    Ok(())
                });
            }
        }
    }

    #[test]
    fn in_bf16_it_is_the_reference_of_rounded_rows() {
        let lengths = (1..40).map(|length| (vec![length], 8)).chain((1..36).map(|size| (vec![5, 18], size)));
        for (lengths, head_size) in lengths.chain([(vec![63, 64, 65, 1, 129, 200], 64), (vec![700], 20)]) {
            let exact = noise(lengths.iter().sum::<usize>() * 6 * head_size, 2.0);
            let rounded: Vec<f32> = exact.iter().map(|&v| bf16::from_f32(v).to_f32()).collect();
            for mask in MASKS {
                let a = Attention { heads: 2, head_size, scale: 0.25, mask };
                let want = attend(&Reference, &lengths, &rounded, &a);
                // Queries times a power of two are exact; weights are rounded, by 2^-9 of themselves at most, their sum is 1, and
                // values are below 2.
                every_cpu_in_bf16(|cpu| assert_near(&attend(cpu, &lengths, &exact, &a), &want, 2.0 / 512.0 + 5e-6));
            }
        }
    }

    #[test]
    fn in_bf16_sequences_do_not_depend_on_their_batch() {
        let lengths = [1, 50, 14, 130, 7];
        let qkv = noise(202 * 180, 2.0);
        for mask in MASKS {
            let a = Attention { heads: 3, head_size: 20, scale: 0.2, mask };
            every_cpu_in_bf16(|cpu| {
                let whole = attend(cpu, &lengths, &qkv, &a);
                let mut first = 0;
                for length in lengths {
                    let alone = attend(cpu, &[length], &qkv[first * 180..][..length * 180], &a);
                    assert_eq!(alone, whole[first * 60..][..length * 60], "{length}");
                    first += length;
                }
            });
        }
    }

    #[test]
    fn in_bf16_relative_terms_stay_in_f32() {
        let a = Attention { heads: 2, head_size: 9, scale: 0.3, mask: Mask::Full };
        let qkv = noise(65 * 54, 1.0);
        let want = attend_with(&Reference, &[65], &qkv, &a, Some(&relative(&Reference, &a, 20)));
        every_cpu_in_bf16(|cpu| {
            assert_near(&attend_with(cpu, &[65], &qkv, &a, Some(&relative(cpu, &a, 20))), &want, 5e-6);
        });
    }

    #[test]
    fn sequences_do_not_depend_on_their_batch_or_the_threads() {
        let lengths = [1, 50, 14, 130, 7];
        let a = Attention { heads: 3, head_size: 20, scale: 0.2, mask: Mask::Full };
        let cols = 3 * 60;
        let qkv = noise(202 * cols, 2.0);
        for isa in Isa::available() {
            for mask in MASKS {
                let a = Attention { mask, ..a };
                let cpu = |threads| {
                    Cpu::new(CpuOptions { threads: Some(threads), isa: Some(isa), ..CpuOptions::default() }).unwrap()
                };
                for with in [false, true] {
                    let attend = |cpu: &Cpu, lengths: &[usize], qkv: &[f32]| {
                        let relative = with.then(|| relative(cpu, &a, 20));
                        attend_with(cpu, lengths, qkv, &a, relative.as_ref())
                    };
                    let whole = attend(&cpu(1), &lengths, &qkv);
                    for threads in 1..4 {
                        let cpu = cpu(threads);
                        assert_eq!(attend(&cpu, &lengths, &qkv), whole);
                        let mut first = 0;
                        for length in lengths {
                            let alone = attend(&cpu, &[length], &qkv[first * cols..][..length * cols]);
                            assert_eq!(alone, whole[first * 60..][..length * 60], "{length} on {isa}");
                            first += length;
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn saturated_scores_choose_one_key() {
        let a = Attention { heads: 1, head_size: 1, scale: 1.0, mask: Mask::Full };
        for large in [200.0, 1e15] {
            // Keys large, 0 and -large; values 1, 2, 3.
            let qkv = [large, large, 1.0, 1.0, 0.0, 2.0, -large, -large, 3.0];
            every_cpu(|cpu| {
                assert_eq!(attend(cpu, &[3], &qkv, &a), [1.0, 1.0, 3.0]);
                Ok(())
            });
        }
    }
}
