//! Every [`Activation`], on whole vectors.
//!
//! Definitions are those of [`mlxt_backend::reference::activate`]; the error against it is at most 1e-7 of
//! `max(1, |x|)` for the GELUs and a few units of the last place for the others. NaN stays NaN.

use mlxt_backend::Activation;

use super::math::{TAIL_END, exp, ln_1p, sigmoid, tanh, upper_tail, upper_tails};
use crate::simd::Simd;

/// Replaces each value of the rows by its activation.
///
/// The choice is made once for all values: 16 small loops instead of 16 cases per vector.
#[inline(always)]
pub(crate) fn activate<'a, S: Simd>(s: S, activation: Activation, rows: impl Iterator<Item = &'a mut [f32]>) {
    match activation {
        Activation::Identity => {}
        Activation::Gelu => each_four(s, rows, |x| gelus(s, x)),
        Activation::GeluTanh => each(s, rows, |x| gelu_tanh(s, x)),
        Activation::GeluClipped10 => each(s, rows, |x| clamp(s, -10.0, 10.0, gelu(s, x))),
        Activation::QuickGelu => each(s, rows, |x| s.mul(x, sigmoid(s, s.mul(x, s.splat(1.702))))),
        Activation::Relu => each(s, rows, |x| relu(s, x)),
        Activation::Relu6 => each(s, rows, |x| clamp(s, 0.0, 6.0, x)),
        Activation::ReluSquared => each(s, rows, |x| s.mul(relu(s, x), relu(s, x))),
        Activation::LeakyRelu => each(s, rows, |x| s.select(s.less(x, s.splat(0.0)), s.mul(x, s.splat(0.01)), x)),
        Activation::Silu => each(s, rows, |x| s.mul(x, sigmoid(s, x))),
        Activation::Sigmoid => each(s, rows, |x| sigmoid(s, x)),
        Activation::Tanh => each(s, rows, |x| tanh(s, x)),
        Activation::Mish => each(s, rows, |x| mish(s, x)),
        Activation::Laplace => each(s, rows, |x| laplace(s, x)),
        Activation::HardSwish => each(s, rows, |x| hard_swish(s, x)),
        Activation::SqrtSoftplus => each(s, rows, |x| s.sqrt(softplus(s, x))),
    }
}

#[inline(always)]
fn each<'a, S: Simd>(s: S, rows: impl Iterator<Item = &'a mut [f32]>, f: impl Fn(S::V) -> S::V) {
    for row in rows {
        for chunk in row.chunks_mut(S::LANES) {
            let y = f(s.get(chunk));
            s.put(chunk, y);
        }
    }
}

/// The same, four vectors at a time, which may be of several rows.
#[inline(always)]
fn each_four<'a, S: Simd>(s: S, rows: impl Iterator<Item = &'a mut [f32]>, f: impl Fn([S::V; 4]) -> [S::V; 4]) {
    let mut chunks = rows.flat_map(|row| row.chunks_mut(S::LANES));
    while let Some(first) = chunks.next() {
        let mut four = [Some(first), chunks.next(), chunks.next(), chunks.next()];
        let mut x = [s.splat(0.0); 4];
        for (x, chunk) in x.iter_mut().zip(&four) {
            if let Some(chunk) = chunk {
                *x = s.get(chunk);
            }
        }
        for (y, chunk) in f(x).into_iter().zip(&mut four) {
            if let Some(chunk) = chunk {
                s.put(chunk, y);
            }
        }
    }
}

#[inline(always)]
fn clamp<S: Simd>(s: S, low: f32, high: f32, x: S::V) -> S::V {
    s.max(s.splat(low), s.min(s.splat(high), x))
}

#[inline(always)]
pub(crate) fn relu<S: Simd>(s: S, x: S::V) -> S::V {
    s.max(s.splat(0.0), x)
}

/// `x Φ(x)`
#[inline(always)]
pub(crate) fn gelu<S: Simd>(s: S, x: S::V) -> S::V {
    let [y] = gelus(s, [x]);
    y
}

/// [`gelu`] of several vectors, as `max(x, 0) - |x| Φ(-|x|)`, which loses nothing where `Φ` is near 1.
#[inline(always)]
fn gelus<S: Simd, const M: usize>(s: S, x: [S::V; M]) -> [S::V; M] {
    let mut a = x;
    for a in &mut a {
        // Cut, so that the product vanishes far out and infinity times zero never happens.
        *a = s.min(s.splat(TAIL_END), s.abs(*a));
    }
    let mut y = upper_tails(s, a);
    for (y, (&a, &x)) in y.iter_mut().zip(a.iter().zip(&x)) {
        *y = s.mul_add(s.sub(s.splat(0.0), a), *y, relu(s, x));
    }
    y
}

/// `x (1 + tanh(u)) / 2 = x sigmoid(2 u)`
#[inline(always)]
pub(crate) fn gelu_tanh<S: Simd>(s: S, x: S::V) -> S::V {
    /// `2 √(2 / π)`
    const SCALE: f32 = 1.595_769_2;
    let cubic = s.mul_add(s.mul(s.mul(x, x), s.splat(0.044_715)), x, x);
    s.mul(x, sigmoid(s, s.mul(cubic, s.splat(SCALE))))
}

/// `max(x, 0) + ln(1 + e^-|x|)`
#[inline(always)]
pub(crate) fn softplus<S: Simd>(s: S, x: S::V) -> S::V {
    s.add(relu(s, x), ln_1p(s, exp(s, s.sub(s.splat(0.0), s.abs(x)))))
}

/// `tanh(ln(1 + e)) = n / (n + 2)` with `n = e (e + 2)`, `e = eˣ`.
#[inline(always)]
fn mish<S: Simd>(s: S, x: S::V) -> S::V {
    // From 20 on the quotient is 1 in f32, and from 44 on `n` would overflow.
    let e = exp(s, s.min(s.splat(20.0), x));
    let n = s.mul(e, s.add(e, s.splat(2.0)));
    s.mul(x, s.div(n, s.add(n, s.splat(2.0))))
}

/// Rounded in the source of the formula, so it is not √½.
#[allow(clippy::approx_constant)]
const LAPLACE_MEAN: f32 = 0.707_107;

/// `(1 + erf((x - mean) / (deviation √2))) / 2 = Φ((x - mean) / deviation)`
#[inline(always)]
fn laplace<S: Simd>(s: S, x: S::V) -> S::V {
    let z = s.div(s.sub(x, s.splat(LAPLACE_MEAN)), s.splat(0.282_095));
    let tail = upper_tail(s, s.min(s.splat(TAIL_END), s.abs(z)));
    s.select(s.less(z, s.splat(0.0)), tail, s.sub(s.splat(1.0), tail))
}

/// `x min(max(x + 3, 0), 6) / 6`
#[inline(always)]
fn hard_swish<S: Simd>(s: S, x: S::V) -> S::V {
    let gate = clamp(s, 0.0, 6.0, s.add(x, s.splat(3.0)));
    s.div(s.mul(x, gate), s.splat(6.0))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::Isa;
    use crate::simd::Kernel;
    use mlxt_backend::reference;

    /// A function of one number, on whole vectors.
    pub(crate) trait Function: Copy {
        fn apply<S: Simd>(self, s: S, x: S::V) -> S::V;
    }

    struct Mapped<F>(F, Vec<f32>);

    impl<F: Function> Kernel for Mapped<F> {
        type Output = Vec<f32>;

        #[inline(always)]
        fn run<S: Simd>(mut self, s: S) -> Vec<f32> {
            each(s, std::iter::once(&mut self.1[..]), |x| self.0.apply(s, x));
            self.1
        }
    }

    /// `f` of each value, on one instruction set.
    pub(crate) fn mapped<F: Function>(isa: Isa, f: F, xs: &[f32]) -> Vec<f32> {
        isa.token().unwrap().run(Mapped(f, xs.to_vec()))
    }

    /// Many numbers from `low` to `high`, evenly.
    pub(crate) fn sweep(low: f32, high: f32) -> Vec<f32> {
        (0..=200_003).map(|i| low + (high - low) * (i as f32 / 200_003.0)).collect()
    }

    struct Activated(Activation, Vec<f32>);

    impl Kernel for Activated {
        type Output = Vec<f32>;

        #[inline(always)]
        fn run<S: Simd>(mut self, s: S) -> Vec<f32> {
            activate(s, self.0, std::iter::once(&mut self.1[..]));
            self.1
        }
    }

    fn activated(isa: Isa, activation: Activation, xs: &[f32]) -> Vec<f32> {
        isa.token().unwrap().run(Activated(activation, xs.to_vec()))
    }

    #[test]
    fn all_are_the_references() {
        let mut xs = sweep(-30.0, 30.0);
        xs.extend([-3e38, -1e6, -100.0, -1e-30, -0.0, 0.0, 1e-30, 100.0, 1e6]);
        for isa in Isa::available() {
            for activation in Activation::ALL {
                for (&x, got) in xs.iter().zip(activated(isa, activation, &xs)) {
                    let want = reference::activate(activation, f64::from(x));
                    let unit = f64::from(x.abs()).max(1.0);
                    let bound = match activation {
                        Activation::ReluSquared => 1e-7 * want.abs().max(1e-30),
                        Activation::Gelu | Activation::GeluClipped10 => 1e-7 * unit,
                        _ => 2e-7 * unit,
                    };
                    let off = (f64::from(got) - want).abs();
                    assert!(off <= bound, "{activation:?}({x}) = {got}, not {want}, on {isa}");
                }
            }
        }
    }

    #[test]
    fn extremes_go_where_the_limits_are() {
        let xs = [f32::INFINITY, f32::NEG_INFINITY, f32::NAN];
        for isa in Isa::available() {
            for activation in Activation::ALL {
                let got = activated(isa, activation, &xs);
                let above = reference::activate(activation, f64::INFINITY) as f32;
                assert_eq!(got[0], above, "{activation:?}(infinity) on {isa}");
                // x sigmoid(x) and its like are infinity times zero there: NaN in PyTorch; the limit, 0, is as good.
                let below = reference::activate(activation, f64::NEG_INFINITY) as f32;
                let limit = if below.is_nan() { 0.0 } else { below };
                let right = got[1] == limit || (got[1] - limit).abs() < 1e-40 || (below.is_nan() && got[1].is_nan());
                assert!(right, "{activation:?}(-infinity) = {} on {isa}", got[1]);
                assert!(got[2].is_nan(), "{activation:?}(NaN) on {isa}");
            }
        }
    }

    #[test]
    fn tails_are_activated_and_nothing_behind_them() {
        for isa in Isa::available() {
            for len in 0..35 {
                let xs: Vec<f32> = (0..len).map(|i| i as f32 * 0.3 - 4.0).collect();
                let whole = activated(isa, Activation::Gelu, &[xs.clone(), vec![1.0; 40]].concat());
                assert_eq!(activated(isa, Activation::Gelu, &xs), whole[..len], "{len} on {isa}");
            }
        }
    }
}
