//! Softmax along any axis. Rows are read from memory once while they fit the caches, and twice where they do not.

use mlxt_backend::operations::shapes::Axis;

use super::copy::write;
use super::{Context, FAR};
use crate::kernels::math::exp;
use crate::simd::{Kernel, MAX_LANES, Simd};
use crate::threads::Shareable;

/// The longest row whose exponentials are kept in the nearest cache: 16 KiB.
const ROW: usize = 4096;
/// Columns of a strip, where the axis is not the last.
const STRIP: usize = 256;

/// `out = softmax(x)` along the axis.
pub(super) fn softmax(context: Context<'_>, x: &[f32], axis: Axis, out: &mut [f32]) {
    let far = out.len() >= FAR;
    let Axis { outer, len, inner } = axis;
    if inner == 1 {
        context.pool.rows(out, len, len, |first, out| {
            context.token.run(Rows { x: &x[first * len..][..out.len()], len, out, far });
        });
        return;
    }
    let each = inner.div_ceil(STRIP);
    let out = Shareable(out.as_mut_ptr());
    context.each(outer * each, x.len(), |task| {
        let (i, strip) = (task / each, task % each * STRIP);
        let first = i * len * inner + strip;
        // SAFETY: the strip's columns of `out` belong to this task, which is claimed once.
        let out = unsafe { out.get().add(first) };
        let width = STRIP.min(inner - strip);
        context.token.run(Columns { x: &x[first..(i + 1) * len * inner], inner, width, out });
    });
}

struct Rows<'a> {
    x: &'a [f32],
    len: usize,
    out: &'a mut [f32],
    far: bool,
}

impl Kernel for Rows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { x, len, out, far } = self;
        match len {
            2 => return packed::<S, 2>(s, x, out, far),
            4 => return packed::<S, 4>(s, x, out, far),
            8 if S::LANES >= 8 => return packed::<S, 8>(s, x, out, far),
            16 if S::LANES >= 16 => return packed::<S, 16>(s, x, out, far),
            _ => {}
        }
        let mut near = [0.0; ROW];
        if len <= S::LANES {
            let group = S::LANES * len;
            for (i, out) in out.chunks_mut(group).enumerate() {
                narrow(s, &x[i * group..], len, out, far);
            }
        } else {
            for (x, out) in x.chunks_exact(len).zip(out.chunks_exact_mut(len)) {
                if len <= ROW { short(s, x, out, far, &mut near[..len]) } else { long(s, x, out, far) }
            }
        }
        s.fence();
    }
}

/// Rows of `LEN` values, a power of two that is at most LANES: whole rows lie in each vector, and lanes of a row change places
/// until each has met all others.
#[inline(always)]
fn packed<S: Simd, const LEN: usize>(s: S, x: &[f32], out: &mut [f32], far: bool) {
    const DISTANCES: [usize; 4] = [1, 2, 4, 8];
    // Memory begins at multiples of a vector, so what `write` does before the first whole one is rows too.
    debug_assert!(out.as_ptr().addr().is_multiple_of(LEN * size_of::<f32>()));
    write(s, x, out, far, |x| {
        let mut largest = x;
        for distance in DISTANCES {
            if distance < LEN {
                largest = s.max(largest, s.swap(largest, distance));
            }
        }
        let e = exp(s, s.sub(x, largest));
        let mut total = e;
        for distance in DISTANCES {
            if distance < LEN {
                total = s.add(total, s.swap(total, distance));
            }
        }
        s.div(e, total)
    });
    s.fence();
}

/// As many rows as a vector has lanes, of no more values than that: turned about, so that a row is in one lane. What lies
/// behind them in `x` may be read: loads of parts of vectors wait twice as long for memory.
#[inline(always)]
fn narrow<S: Simd>(s: S, x: &[f32], len: usize, out: &mut [f32], far: bool) {
    let rows = out.len() / len;
    let cols = if x.len() >= (rows - 1) * len + S::LANES { S::LANES } else { len };
    let mut columns = [0.0; MAX_LANES * MAX_LANES];
    // SAFETY: `cols` values can be read from each of `rows` rows on, both are at most LANES, and there is room for that many vectors.
    unsafe { s.transpose(x.as_ptr(), len, rows, cols, columns.as_mut_ptr(), S::LANES) };
    let columns = &mut columns[..len * S::LANES];
    let mut largest = s.splat(f32::NEG_INFINITY);
    for x in columns.chunks_exact(S::LANES) {
        largest = s.max(largest, s.get(x));
    }
    let mut total = s.splat(0.0);
    for x in columns.chunks_exact_mut(S::LANES) {
        let e = exp(s, s.sub(s.get(x), largest));
        total = s.add(total, e);
        s.put(x, e);
    }
    let share = s.div(s.splat(1.0), total);
    for x in columns.chunks_exact_mut(S::LANES) {
        s.put(x, s.mul(s.get(x), share));
    }
    let mut turned = [0.0; MAX_LANES * (MAX_LANES + 1)];
    // SAFETY: as above; rows are `len` apart, and the last may spill a vector.
    unsafe { s.transpose(columns.as_ptr(), S::LANES, len, rows, turned.as_mut_ptr(), len) };
    write(s, &turned[..rows * len], out, far, |x| x);
}

#[inline(always)]
fn short<S: Simd>(s: S, x: &[f32], out: &mut [f32], far: bool, exponentials: &mut [f32]) {
    let total = weigh(s, x, largest(s, x), Some(&mut *exponentials));
    let share = s.splat(1.0 / total);
    write(s, exponentials, out, far, |e| s.mul(e, share));
}

/// The total in one pass, in blocks whose sums are scaled to the largest value so far; then everything once more.
#[inline(always)]
fn long<S: Simd>(s: S, x: &[f32], out: &mut [f32], far: bool) {
    // Not minus infinity, whose distance from itself is no number: a block may hold nothing else.
    let (mut most, mut total) = (f32::MIN, 0.0);
    for block in x.chunks(ROW) {
        let new = most.max(largest(s, block));
        let sum = f64::from(weigh(s, block, new, None));
        total = total * f64::from(most - new).exp() + sum;
        most = new;
    }
    let (most, share) = (s.splat(most), s.splat((1.0 / total) as f32));
    write(s, x, out, far, |x| s.mul(exp(s, s.sub(x, most)), share));
}

#[inline(always)]
fn largest<S: Simd>(s: S, x: &[f32]) -> f32 {
    let mut most = [s.splat(f32::NEG_INFINITY); 4];
    let whole = x.len() / S::LANES * S::LANES;
    for four in x[..whole].chunks(4 * S::LANES) {
        for (most, x) in most.iter_mut().zip(four.chunks_exact(S::LANES)) {
            *most = s.max(*most, s.get(x));
        }
    }
    let most = s.largest(s.max(s.max(most[0], most[1]), s.max(most[2], most[3])));
    x[whole..].iter().fold(most, |m, &x| m.max(x))
}

/// The sum of `e^(x - most)`, and the exponentials themselves where they are wanted.
#[inline(always)]
fn weigh<S: Simd>(s: S, x: &[f32], most: f32, mut to: Option<&mut [f32]>) -> f32 {
    let center = s.splat(most);
    let mut totals = [s.splat(0.0); 2];
    for (i, x) in x.chunks(S::LANES).enumerate() {
        let mut e = exp(s, s.sub(s.get(x), center));
        if let Some(to) = &mut to {
            s.put(&mut to[i * S::LANES..][..x.len()], e);
        }
        if x.len() < S::LANES {
            // Lanes behind the end hold exponentials of nothing.
            let mut tail = [0.0; MAX_LANES];
            s.put(&mut tail[..S::LANES], e);
            e = s.get(&tail[..x.len()]);
        }
        totals[i % 2] = s.add(totals[i % 2], e);
    }
    s.sum(s.add(totals[0], totals[1]))
}

/// A strip of columns, `inner` apart from row to row.
struct Columns<'a> {
    x: &'a [f32],
    inner: usize,
    width: usize,
    out: *mut f32,
}

impl Kernel for Columns<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { x, inner, width, out } = self;
        let rows = (x.len() - width) / inner + 1;
        let vectors = width.div_ceil(S::LANES);
        let (mut most, mut total) = ([s.splat(f32::NEG_INFINITY); STRIP / 4], [s.splat(0.0); STRIP / 4]);
        let (most, total) = (&mut most[..vectors], &mut total[..vectors]);
        for r in 0..rows {
            for (most, x) in most.iter_mut().zip(x[r * inner..][..width].chunks(S::LANES)) {
                *most = s.max(*most, s.get(x));
            }
        }
        for r in 0..rows {
            // SAFETY: the strip's places in `out` are this task's, as many as in `x`.
            let out = unsafe { std::slice::from_raw_parts_mut(out.add(r * inner), width) };
            let row = x[r * inner..][..width].chunks(S::LANES).zip(out.chunks_mut(S::LANES));
            for (((x, out), most), total) in row.zip(&*most).zip(&mut *total) {
                let e = exp(s, s.sub(s.get(x), *most));
                *total = s.add(*total, e);
                s.put(out, e);
            }
        }
        for r in 0..rows {
            // SAFETY: as above.
            let out = unsafe { std::slice::from_raw_parts_mut(out.add(r * inner), width) };
            for (out, total) in out.chunks_mut(S::LANES).zip(&*total) {
                s.put(out, s.div(s.get(out), *total));
            }
        }
    }
}
