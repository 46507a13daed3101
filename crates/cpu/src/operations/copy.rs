//! Copies, past the caches where the result is too large for them.

use super::{Context, FAR};
use crate::simd::{Kernel, Simd};

/// `out = x`
pub(super) fn copy(context: Context<'_>, x: &[f32], out: &mut [f32]) {
    let far = out.len() >= FAR;
    context.pool.rows(out, 1, 1, |first, out| context.token.run(Copy { x: &x[first..][..out.len()], out, far }));
}

/// Rows of one array and of another in turns: each with the length of its rows.
pub(super) fn join(context: Context<'_>, parts: [(&[f32], usize); 2], out: &mut [f32]) {
    let far = out.len() >= FAR;
    let [(a, wide_a), (b, wide_b)] = parts;
    let width = wide_a + wide_b;
    // Few long rows would leave threads without work.
    if out.len() / width < 4 * context.pool.threads() {
        for (i, row) in out.chunks_exact_mut(width).enumerate() {
            let (to_a, to_b) = row.split_at_mut(wide_a);
            for (x, wide, out) in [(a, wide_a, to_a), (b, wide_b, to_b)] {
                let x = &x[i * wide..][..wide];
                context.pool.rows(out, 1, 1, |first, out| {
                    context.token.run(Copy { x: &x[first..][..out.len()], out, far });
                });
            }
        }
        return;
    }
    context.pool.rows(out, width, width / 8, |first, out| context.token.run(Join { parts, first, out, far }));
}

/// `out = x`, of the same length.
struct Copy<'a> {
    x: &'a [f32],
    out: &'a mut [f32],
    far: bool,
}

impl Kernel for Copy<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        write(s, self.x, self.out, self.far, |x| x);
        s.fence();
    }
}

struct Join<'a> {
    parts: [(&'a [f32], usize); 2],
    /// The first row of `out`.
    first: usize,
    out: &'a mut [f32],
    far: bool,
}

impl Kernel for Join<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let [(a, wide_a), (b, wide_b)] = self.parts;
        for (row, i) in self.out.chunks_exact_mut(wide_a + wide_b).zip(self.first..) {
            let (to_a, to_b) = row.split_at_mut(wide_a);
            write(s, &a[i * wide_a..][..wide_a], to_a, self.far, |x| x);
            write(s, &b[i * wide_b..][..wide_b], to_b, self.far, |x| x);
        }
        s.fence();
    }
}

/// `out = f(x)` value by value, both of the same length. Where it is `far`, a fence has to follow.
///
/// `f` is called from one place only: then, and only then, compilers put it where the instruction set is switched on.
#[inline(always)]
pub(super) fn write<S: Simd>(s: S, x: &[f32], out: &mut [f32], far: bool, f: impl Fn(S::V) -> S::V) {
    // Vectors can only be streamed to multiples of their size.
    let before = if far { out.as_ptr().align_offset(size_of::<f32>() * S::LANES).min(out.len()) } else { 0 };
    let mut at = 0;
    while at < out.len() {
        let end = if at < before { before } else { out.len() };
        let end = end.min(at + S::LANES);
        let to = &mut out[at..end];
        let y = f(s.get(&x[at..end]));
        if far && at >= before && to.len() == S::LANES {
            // SAFETY: a whole vector at a multiple of its size.
            unsafe { s.stream(to.as_mut_ptr(), y) };
        } else {
            s.put(to, y);
        }
        at = end;
    }
}
