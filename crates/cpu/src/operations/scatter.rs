//! Rows sent to indices: copied, added, or the largest kept.
//!
//! Threads share the edges, each with a result of its own where that is small, and the results are joined in order;
//! where it is large one thread does all, because it would spend more on clearing and joining than on the edges.

use mlxt_backend::Result;
use mlxt_backend::operations::Operation;

use super::Context;
use crate::simd::{Kernel, Simd};
use crate::threads::Shareable;

/// `out` is zeros, and then for each edge the row of x at the first index goes to the second.
///
/// # Errors
/// An index that is no row; out of memory for the threads' own results.
pub(super) fn scatter(
    context: Context<'_>,
    operation: &Operation,
    x: &[f32],
    shape: &[usize],
    [source, target]: [&[i32]; 2],
    out: &mut [f32],
) -> Result<()> {
    let &[rows, cols] = shape else { return Ok(()) };
    context.indices(operation, source, rows)?;
    context.indices(operation, target, rows)?;
    match operation {
        Operation::ScatterSum => combine(context, Edges { x, cols, source, target, sum: true }, out),
        Operation::ScatterMax => combine(context, Edges { x, cols, source, target, sum: false }, out),
        _ => {
            copy(x, cols, [source, target], out);
            Ok(())
        }
    }
}

/// From the last edge back: the first that comes to a row is the one that counts, and when all rows have theirs the
/// others need not be looked at.
fn copy(x: &[f32], cols: usize, [source, target]: [&[i32]; 2], out: &mut [f32]) {
    let mut from = vec![None; out.len() / cols];
    let mut missing = from.len();
    for (&source, &target) in source.iter().zip(target).rev() {
        let from = &mut from[target as usize];
        if from.is_none() {
            *from = Some(source as usize);
            missing -= 1;
            if missing == 0 {
                break;
            }
        }
    }
    for (out, from) in out.chunks_exact_mut(cols).zip(from) {
        match from {
            Some(row) => out.copy_from_slice(&x[row * cols..][..cols]),
            None => out.fill(0.0),
        }
    }
}

fn combine(context: Context<'_>, edges: Edges<'_>, out: &mut [f32]) -> Result<()> {
    let count = edges.source.len();
    // One part for each thread, of edges worth more than clearing and joining a result.
    let parts = context.pool.threads().min(count * edges.cols / (2 * out.len() + (1 << 15))).max(1);
    out.fill(0.0);
    if parts == 1 {
        context.token.run(Combine { edges, out });
        return Ok(());
    }
    let len = out.len().next_multiple_of(16);
    let mut others = context.arena.take(len.saturating_mul(parts))?;
    others.fill(0.0);
    let to = Shareable(others.as_mut_ptr());
    context.pool.run(parts, |_, claims| {
        for part in claims {
            let range = count * part / parts..count * (part + 1) / parts;
            let edges = Edges { source: &edges.source[range.clone()], target: &edges.target[range], ..edges };
            // SAFETY: each part is claimed once, and there is room for a result of each.
            let out = unsafe { std::slice::from_raw_parts_mut(to.get().add(part * len), out.len()) };
            context.token.run(Combine { edges, out });
        }
    });
    for other in others.chunks_exact(len) {
        context.token.run(Join { sum: edges.sum, x: other, out });
    }
    Ok(())
}

#[derive(Clone, Copy)]
struct Edges<'a> {
    x: &'a [f32],
    cols: usize,
    source: &'a [i32],
    target: &'a [i32],
    /// Whether rows are added; else the largest values stay.
    sum: bool,
}

/// All edges into one result.
struct Combine<'a> {
    edges: Edges<'a>,
    out: &'a mut [f32],
}

impl Kernel for Combine<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Edges { x, cols, source, target, sum } = self.edges;
        // Rows of one or two vectors are so short that a loop over them would cost more than the work.
        match (sum, cols / S::LANES, cols % S::LANES) {
            (true, 1, 0) => fixed::<S, 1, true>(s, self.edges, self.out),
            (true, 2, 0) => fixed::<S, 2, true>(s, self.edges, self.out),
            (false, 1, 0) => fixed::<S, 1, false>(s, self.edges, self.out),
            (false, 2, 0) => fixed::<S, 2, false>(s, self.edges, self.out),
            _ => {
                for (&source, &target) in source.iter().zip(target) {
                    let x = &x[source as usize * cols..][..cols];
                    Join { sum, x, out: &mut self.out[target as usize * cols..][..cols] }.run(s);
                }
            }
        }
    }
}

/// Rows of `VECTORS` whole vectors.
#[inline(always)]
fn fixed<S: Simd, const VECTORS: usize, const SUM: bool>(s: S, edges: Edges<'_>, out: &mut [f32]) {
    for (&source, &target) in edges.source.iter().zip(edges.target) {
        let x = &edges.x[source as usize * edges.cols..][..VECTORS * S::LANES];
        let out = &mut out[target as usize * edges.cols..][..VECTORS * S::LANES];
        for v in 0..VECTORS {
            let (x, out) = (&x[v * S::LANES..][..S::LANES], &mut out[v * S::LANES..][..S::LANES]);
            let (a, b) = (s.get(out), s.get(x));
            s.put(out, if SUM { s.add(a, b) } else { s.max(a, b) });
        }
    }
}

/// `out += x`, or the larger of both.
struct Join<'a> {
    sum: bool,
    x: &'a [f32],
    out: &'a mut [f32],
}

impl Kernel for Join<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for (out, x) in self.out.chunks_mut(S::LANES).zip(self.x.chunks(S::LANES)) {
            let (a, b) = (s.get(out), s.get(&x[..out.len()]));
            s.put(out, if self.sum { s.add(a, b) } else { s.max(a, b) });
        }
    }
}
