//! Sums and largest values, along an axis or over everything.
//!
//! Along the last axis a row is summed in vectors. Along others, sums of columns are kept in registers if there are few, so
//! that memory is read from end to end; else strips of columns are kept in the nearest cache while the rows pass by, so that
//! it is read in long runs.

use mlxt_backend::Result;
use mlxt_backend::operations::shapes::Axis;

use super::Context;
use crate::kernels::math::ln;
use crate::simd::{Kernel, MAX_LANES, Simd};
use crate::threads::Shareable;

/// Most columns of a strip: 16 KiB.
const STRIP: usize = 4096;
/// Rows added up before their sum joins the total: sums of few terms of like size keep rounding low.
const BLOCK: usize = 64;
/// Values of a task that reduces everything.
const PART: usize = 1 << 16;

/// `out[i] = Σ x` along the axis.
pub(super) fn sum(context: Context<'_>, x: &[f32], axis: Axis, out: &mut [f32]) -> Result<()> {
    if axis.inner > 1 {
        strips(context, x, axis, out, |x, out| context.token.run(SumColumns { x, inner: axis.inner, out }));
    } else if out.len() < 4 * context.pool.threads() {
        for (out, row) in out.iter_mut().zip(x.chunks_exact(axis.len)) {
            *out = sum_all(context, row)?;
        }
    } else {
        context.pool.rows(out, 1, axis.len.div_ceil(4), |first, out| {
            context.token.run(SumRows { x: &x[first * axis.len..], len: axis.len, out });
        });
    }
    Ok(())
}

/// `out[i]` is the index of the first of the largest values along the axis, as the bits of an integer.
pub(super) fn argmax(context: Context<'_>, x: &[f32], axis: Axis, out: &mut [f32]) {
    if axis.inner > 1 {
        strips(context, x, axis, out, |x, out| context.token.run(LargestInColumns { x, inner: axis.inner, out }));
    } else {
        context.pool.rows(out, 1, axis.len.div_ceil(2), |first, out| {
            context.token.run(LargestInRows { x: &x[first * axis.len..], len: axis.len, out });
        });
    }
}

/// Calls `f` for each strip of columns, with its first value and all behind it of one outer index, and its results.
fn strips(context: Context<'_>, x: &[f32], axis: Axis, out: &mut [f32], f: impl Fn(&[f32], &mut [f32]) + Sync) {
    // One for each thread at least.
    let share = axis.inner.div_ceil(context.pool.threads().div_ceil(axis.outer));
    let strip = share.next_multiple_of(MAX_LANES).min(STRIP);
    let each = axis.inner.div_ceil(strip);
    let out = Shareable(out.as_mut_ptr());
    context.each(axis.outer * each, x.len() / 4, |task| {
        let (outer, column) = (task / each, task % each * strip);
        let width = strip.min(axis.inner - column);
        // SAFETY: strips do not overlap, lie inside the result, and each is claimed once.
        let out = unsafe { std::slice::from_raw_parts_mut(out.get().add(outer * axis.inner + column), width) };
        let (first, end) = (outer * axis.len * axis.inner + column, (outer + 1) * axis.len * axis.inner);
        f(&x[first..end], out);
    });
}

/// The sum of all.
pub(super) fn sum_all(context: Context<'_>, x: &[f32]) -> Result<f32> {
    Ok(total(context, x, None)? as f32)
}

/// The mean of `-(y ln p + (1 - y) ln(1 - p))`, logarithms no less than -100.
pub(super) fn cross_entropy(context: Context<'_>, p: &[f32], y: &[f32]) -> Result<f32> {
    Ok((-total(context, p, Some(y))? / p.len() as f64) as f32)
}

/// The sum of all values, or of their cross entropies with `y` (without the sign). Parts are summed in an order that
/// depends on their number alone.
fn total(context: Context<'_>, x: &[f32], y: Option<&[f32]>) -> Result<f64> {
    let part = |i: usize| {
        let range = i * PART..x.len().min((i + 1) * PART);
        context.token.run(Total { x: &x[range.clone()], y: y.map(|y| &y[range]) })
    };
    let count = x.len().div_ceil(PART);
    if count == 1 {
        return Ok(part(0));
    }
    // Two f32 for each f64: the arena has no other memory.
    let mut parts = context.arena.take(2 * count)?;
    let to = Shareable(parts.as_mut_ptr());
    context.each(count, x.len(), |i| {
        let sum = part(i);
        let halves = [sum as f32, (sum - f64::from(sum as f32)) as f32];
        // SAFETY: each part is claimed once, and there is room for two values of each.
        unsafe { to.get().add(2 * i).cast::<[f32; 2]>().write(halves) };
    });
    Ok(parts.iter().map(|&v| f64::from(v)).sum())
}

struct Total<'a> {
    x: &'a [f32],
    y: Option<&'a [f32]>,
}

impl Kernel for Total<'_> {
    type Output = f64;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f64 {
        match self.y {
            None => sum_blocks(s, self.x),
            Some(y) => {
                let (one, least) = (s.splat(1.0), s.splat(-100.0));
                let mut total = 0.0;
                for (x, y) in self.x.chunks(BLOCK * MAX_LANES).zip(y.chunks(BLOCK * MAX_LANES)) {
                    let mut sums = [s.splat(0.0); 2];
                    for (x, y) in x.chunks(2 * S::LANES).zip(y.chunks(2 * S::LANES)) {
                        for ((x, y), sum) in x.chunks(S::LANES).zip(y.chunks(S::LANES)).zip(&mut sums) {
                            let (p, y) = (s.get(x), s.get(y));
                            // Of lanes behind the end, p and y are 0, and so is what they add.
                            let (yes, no) = (s.max(least, ln(s, p)), s.max(least, ln(s, s.sub(one, p))));
                            *sum = s.add(*sum, s.mul_add(y, s.sub(yes, no), no));
                        }
                    }
                    total += f64::from(s.sum(s.add(sums[0], sums[1])));
                }
                total
            }
        }
    }
}

/// The sum of a row, in eight running sums.
#[inline(always)]
fn sum_row<S: Simd>(s: S, row: &[f32]) -> f32 {
    let mut sums = [s.splat(0.0); 8];
    let mut eights = row.chunks_exact(8 * S::LANES);
    for eight in &mut eights {
        for (sum, x) in sums.iter_mut().zip(eight.chunks_exact(S::LANES)) {
            *sum = s.add(*sum, s.get(x));
        }
    }
    for (sum, x) in sums.iter_mut().zip(eights.remainder().chunks(S::LANES)) {
        *sum = s.add(*sum, s.get(x));
    }
    for i in [4, 2, 1] {
        for j in 0..i {
            sums[j] = s.add(sums[j], sums[j + i]);
        }
    }
    s.sum(sums[0])
}

/// The sum of a long row, in blocks.
#[inline(always)]
fn sum_blocks<S: Simd>(s: S, row: &[f32]) -> f64 {
    let mut total = 0.0;
    for block in row.chunks(BLOCK * MAX_LANES) {
        total += f64::from(sum_row(s, block));
    }
    total
}

struct SumRows<'a> {
    x: &'a [f32],
    len: usize,
    out: &'a mut [f32],
}

impl Kernel for SumRows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for (out, row) in self.out.iter_mut().zip(self.x.chunks_exact(self.len)) {
            *out = sum_blocks(s, row) as f32;
        }
    }
}

struct SumColumns<'a> {
    x: &'a [f32],
    inner: usize,
    out: &'a mut [f32],
}

impl Kernel for SumColumns<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { x, inner, out } = self;
        let width = out.len();
        if width == inner && width.is_multiple_of(S::LANES) {
            match width / S::LANES {
                1 => return sum_few::<S, 1>(s, x, out),
                2 => return sum_few::<S, 2>(s, x, out),
                4 => return sum_few::<S, 4>(s, x, out),
                8 => return sum_few::<S, 8>(s, x, out),
                _ => {}
            }
        }
        let rows = (x.len() - width) / inner + 1;
        let mut sums = [0.0; STRIP];
        for first in (0..rows).step_by(BLOCK) {
            let end = rows.min(first + BLOCK);
            // Of few rows the sum is the total already.
            let to = if first == 0 { &mut *out } else { &mut sums[..width] };
            to.fill(0.0);
            for r in first..end {
                add_row(s, to, &x[r * inner..][..width], inner);
            }
            if first > 0 {
                for (out, sum) in out.chunks_mut(S::LANES).zip(sums[..width].chunks(S::LANES)) {
                    s.put(out, s.add(s.get(out), s.get(sum)));
                }
            }
        }
    }
}

/// The sums of columns that are `VECTORS` vectors.
#[inline(always)]
fn sum_few<S: Simd, const VECTORS: usize>(s: S, x: &[f32], out: &mut [f32]) {
    let width = VECTORS * S::LANES;
    let mut totals = [s.splat(0.0); VECTORS];
    for block in x.chunks(BLOCK * width) {
        let mut sums = [s.splat(0.0); VECTORS];
        for row in block.chunks_exact(width) {
            for (sum, x) in sums.iter_mut().zip(row.chunks_exact(S::LANES)) {
                *sum = s.add(*sum, s.get(x));
            }
        }
        for (total, sum) in totals.iter_mut().zip(sums) {
            *total = s.add(*total, sum);
        }
    }
    for (out, total) in out.chunks_exact_mut(S::LANES).zip(totals) {
        s.put(out, total);
    }
}

/// `to += row`. Meanwhile the row `ahead` comes, because a strip ends before the CPU has noticed that it goes on: without, sums
/// of strips of 8 KiB took 1.6 times as long.
#[inline(always)]
fn add_row<S: Simd>(s: S, to: &mut [f32], row: &[f32], ahead: usize) {
    for (to, x) in to.chunks_mut(S::LANES).zip(row.chunks(S::LANES)) {
        s.prefetch(x.as_ptr().wrapping_add(ahead));
        s.put(to, s.add(s.get(to), s.get(x)));
    }
}

/// A whole number whose bits are moved about as a float's.
fn bits(i: usize) -> f32 {
    f32::from_bits(i as u32)
}

struct LargestInColumns<'a> {
    x: &'a [f32],
    inner: usize,
    out: &'a mut [f32],
}

impl Kernel for LargestInColumns<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { x, inner, out } = self;
        let width = out.len();
        let rows = (x.len() - width) / inner + 1;
        let mut largest = [0.0; STRIP];
        let largest = &mut largest[..width];
        largest.copy_from_slice(&x[..width]);
        out.fill(bits(0));
        for r in 1..rows {
            let row = &x[r * inner..][..width];
            let index = s.splat(bits(r));
            for ((out, best), x) in out.chunks_mut(S::LANES).zip(largest.chunks_mut(S::LANES)).zip(row.chunks(S::LANES))
            {
                let (old, x) = (s.get(best), s.get(x));
                let more = s.less(old, x);
                s.put(best, s.select(more, x, old));
                s.put(out, s.select(more, index, s.get(out)));
            }
        }
    }
}

struct LargestInRows<'a> {
    x: &'a [f32],
    len: usize,
    out: &'a mut [f32],
}

impl Kernel for LargestInRows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for (out, row) in self.out.iter_mut().zip(self.x.chunks_exact(self.len)) {
            let mut best = if row.len() < S::LANES { (row[0], 0) } else { largest_in_vectors(s, row) };
            let tail = row.len() / S::LANES * S::LANES;
            for (i, &x) in row.iter().enumerate().skip(tail) {
                if x > best.0 {
                    best = (x, i);
                }
            }
            *out = bits(best.1);
        }
    }
}

/// The largest value of a row's whole vectors, of which there are some, and the first place of it. Every lane begins with
/// the row's first value, so that one that is no number stands and others are passed over, as where values are looked at one
/// by one.
#[inline(always)]
fn largest_in_vectors<S: Simd>(s: S, row: &[f32]) -> (f32, usize) {
    let (mut largest, mut at) = (s.splat(row[0]), s.splat(bits(0)));
    for (i, x) in row.chunks_exact(S::LANES).enumerate() {
        let x = s.get(x);
        let more = s.less(largest, x);
        largest = s.select(more, x, largest);
        at = s.select(more, s.splat(bits(i)), at);
    }
    // Lanes with less are sent behind all others instead of being skipped: which they are nobody can foretell, and the
    // wrong guesses of a search took four fifths of the time of a row of 128.
    let most = s.largest(largest);
    let behind = s.splat(bits(u32::MAX as usize / S::LANES));
    let at = s.select(s.less(largest, s.splat(most)), behind, at);
    let mut vectors = [0.0; MAX_LANES];
    s.put(&mut vectors[..S::LANES], at);
    let mut first = u32::MAX;
    for (lane, at) in vectors[..S::LANES].iter().enumerate() {
        first = first.min(at.to_bits() * S::LANES as u32 + lane as u32);
    }
    (most, first as usize)
}
