//! Sorting along any axis: as many lines at once as a vector has lanes, by a network of comparisons.
//!
//! A block of lines is laid out `[value][line]`; a comparison of two places is then one minimum and one maximum of
//! vectors, for all lines, without a branch. The network is merge exchange (Knuth, "The Art of Computer Programming" 3,
//! section 5.2.2, algorithm M), which takes any length. It does about `n log² n / 4` comparisons, so long lines are
//! sorted one by one instead, and so are those with values that are not numbers, which minimum and maximum would lose.

use mlxt_backend::Result;
use mlxt_backend::operations::shapes::Axis;

use super::Context;
use crate::kernels::gemm::tile::transpose;
use crate::simd::{Kernel, MAX_LANES, Simd};
use crate::threads::Shareable;

/// The longest line for the network.
const LONGEST: usize = 4096;
/// Values of a block that stay in the nearest cache: lines are short of it by far, or fill it with one vector of them.
const BLOCK: usize = 4096;
/// Vectors of lines that are neighbours in memory and read together: 256 bytes, of each of many rows far apart.
const NEIGHBOURS: usize = 4;

/// `out` is `x`, ascending along the axis.
///
/// # Errors
/// Out of memory for the blocks.
pub(super) fn sort(context: Context<'_>, x: &[f32], axis: Axis, out: &mut [f32]) -> Result<()> {
    let lines =
        if axis.inner == 1 { MAX_LANES } else { MAX_LANES * (BLOCK / (axis.len * MAX_LANES)).clamp(1, NEIGHBOURS) };
    // Lines of one block are neighbours: rows if the axis is the last, else columns of one outer index.
    let count = if axis.inner == 1 { axis.outer } else { axis.inner };
    let each = count.div_ceil(lines);
    let tasks = if axis.inner == 1 { each } else { axis.outer * each };
    // Transposing spills up to a vector.
    let scratch_len = lines * axis.len + MAX_LANES;
    let mut scratch = context.arena.take(scratch_len.saturating_mul(context.pool.threads()))?;
    let (scratch, out) = (Shareable(scratch.as_mut_ptr()), Shareable(out.as_mut_ptr()));
    context.pool.run(tasks, |slot, claims| {
        // SAFETY: there is room for every thread, and no two have the same slot.
        let scratch = unsafe { std::slice::from_raw_parts_mut(scratch.get().add(slot * scratch_len), scratch_len) };
        for task in claims {
            let (outer, first) = (task / each, task % each * lines);
            let start = if axis.inner == 1 { first * axis.len } else { outer * axis.len * axis.inner + first };
            let lines = lines.min(count - first);
            // SAFETY: the lines lie inside `out`, which is as large as `x`, and belong to this task.
            let out = unsafe { out.get().add(start) };
            context.token.run(Block { x: &x[start..], axis, lines, scratch, out });
        }
    });
    Ok(())
}

struct Block<'a> {
    /// From the first value of the first line on.
    x: &'a [f32],
    axis: Axis,
    lines: usize,
    scratch: &'a mut [f32],
    out: *mut f32,
}

impl Kernel for Block<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { x, axis: Axis { len, inner, .. }, lines, scratch, out } = self;
        // Where value `k` of line `i` is.
        let place = |i: usize, k: usize| if inner == 1 { i * len + k } else { k * inner + i };
        let unordered = if inner == 1 {
            x[..lines * len].iter().fold(false, |any, x| any | x.is_nan())
        } else {
            (0..len).any(|k| x[k * inner..][..lines].iter().fold(false, |any, x| any | x.is_nan()))
        };
        if len > LONGEST || unordered {
            let line = &mut scratch[..len];
            for i in 0..lines {
                line.iter_mut().enumerate().for_each(|(k, v)| *v = x[place(i, k)]);
                // What is not a number comes last.
                line.sort_unstable_by(|a, b| a.partial_cmp(b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan())));
                // SAFETY: this task's lines.
                line.iter().enumerate().for_each(|(k, &v)| unsafe { *out.add(place(i, k)) = v });
            }
            return;
        }
        // Groups of as many lines as there are lanes, each `[len][LANES]`.
        for (group, first) in scratch.chunks_mut(len * S::LANES).zip((0..lines).step_by(S::LANES)) {
            let width = S::LANES.min(lines - first);
            if inner == 1 {
                // SAFETY: `width` rows of `len` values; columns of LANES values, whole vectors, so nothing is spilled.
                unsafe { transpose(s, x[first * len..].as_ptr(), len, (width, len), group.as_mut_ptr(), S::LANES) };
            }
        }
        if inner > 1 {
            for k in 0..len {
                for (g, from) in x[k * inner..][..lines].chunks(S::LANES).enumerate() {
                    s.put(&mut scratch[(g * len + k) * S::LANES..][..S::LANES], s.get(from));
                }
            }
        }
        for g in 0..lines.div_ceil(S::LANES) {
            network(s, &mut scratch[g * len * S::LANES..][..len * S::LANES], len);
        }
        if inner > 1 {
            for k in 0..len {
                // SAFETY: this task's columns of row `k`.
                let row = unsafe { std::slice::from_raw_parts_mut(out.add(k * inner), lines) };
                for (g, to) in row.chunks_mut(S::LANES).enumerate() {
                    s.put(to, s.get(&scratch[(g * len + k) * S::LANES..][..S::LANES]));
                }
            }
            return;
        }
        for first in (0..lines).step_by(S::LANES) {
            let group = &scratch[first * len..];
            let width = S::LANES.min(lines - first);
            for k in (0..len).step_by(S::LANES) {
                let values = S::LANES.min(len - k);
                let mut turned = [0.0; MAX_LANES * MAX_LANES];
                // SAFETY: `values` rows of LANES values each, and room for LANES vectors.
                unsafe {
                    s.transpose(group[k * S::LANES..].as_ptr(), S::LANES, values, width, turned.as_mut_ptr(), S::LANES);
                }
                for (i, from) in turned.chunks_exact(S::LANES).take(width).enumerate() {
                    // SAFETY: this task's lines, and no value behind their end.
                    let to = unsafe { std::slice::from_raw_parts_mut(out.add((first + i) * len + k), values) };
                    s.put(to, s.get(from));
                }
            }
        }
    }
}

/// Sorts the columns of `[len][LANES]`.
#[inline(always)]
fn network<S: Simd>(s: S, block: &mut [f32], len: usize) {
    let half = len.next_power_of_two() / 2;
    let mut p = half;
    while p > 0 {
        let (mut q, mut r, mut d) = (half, 0, p);
        loop {
            // All i below len - d with (i & p) == r.
            for first in (r..len.saturating_sub(d)).step_by(2 * p) {
                for i in first..(first + p).min(len - d) {
                    // SAFETY: `i < i + d < len`, and the block holds `len` vectors.
                    unsafe {
                        let low = block.as_mut_ptr().add(i * S::LANES);
                        let high = low.add(d * S::LANES);
                        let (a, b) = (s.load(low), s.load(high));
                        s.store(low, s.min(a, b));
                        s.store(high, s.max(a, b));
                    }
                }
            }
            if q == p {
                break;
            }
            (d, q, r) = (q - p, q / 2, p);
        }
        p /= 2;
    }
}
