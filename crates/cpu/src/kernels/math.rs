//! Functions of one number on whole vectors: exponential, tanh, logarithms, and the tail of the normal distribution.
//!
//! Each step of a function waits for the one before, so those that many values go through take several vectors side by side.
//!
//! All polynomials were fitted to the smallest largest error over the interval stated, in f64, and rounded to f32.
//! The bounds stated are those the tests hold them to, against f64, on every instruction set.

use crate::simd::Simd;

/// `c[0] + c[1] x + c[2] x² + ..`
#[inline(always)]
fn polynomial<S: Simd, const N: usize>(s: S, x: S::V, c: [f32; N]) -> S::V {
    let [sum] = polynomials(s, &[x], c);
    sum
}

/// [`polynomial`] of several vectors.
#[inline(always)]
fn polynomials<S: Simd, const N: usize, const M: usize>(s: S, x: &[S::V; M], c: [f32; N]) -> [S::V; M] {
    let mut sums = [s.splat(c[N - 1]); M];
    for i in (0..N - 1).rev() {
        for (sum, &x) in sums.iter_mut().zip(x) {
            *sum = s.mul_add(*sum, x, s.splat(c[i]));
        }
    }
    sums
}

/// `eˣ`: 1.5 ulp; 0 and infinity where it leaves the range.
#[inline(always)]
pub(crate) fn exp<S: Simd>(s: S, x: S::V) -> S::V {
    let [e] = exps(s, [x]);
    e
}

/// [`exp`] of several vectors.
///
/// `eˣ = 2ⁿ eʳ` with `n = round(x / ln 2)`, `|r| <= ln 2 / 2`.
#[inline(always)]
fn exps<S: Simd, const M: usize>(s: S, x: [S::V; M]) -> [S::V; M] {
    /// ln 2 in two parts; the first has so few bits that its product with `n` is exact.
    const LN2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
    /// 1.5 · 2²³: adding it leaves no bits for a fraction.
    const ROUND: f32 = 12_582_912.0;
    let (mut n, mut r) = (x, x);
    for (n, r) in n.iter_mut().zip(&mut r) {
        // Beyond these the result is infinity or 0 anyway, and 2ⁿ stays within what `scale_by_power` takes.
        let x = s.max(s.splat(-105.0), s.min(s.splat(90.0), *r));
        *n = s.sub(s.mul_add(x, s.splat(std::f32::consts::LOG2_E), s.splat(ROUND)), s.splat(ROUND));
        *r = s.mul_add(*n, s.splat(-LN2[1]), s.mul_add(*n, s.splat(-LN2[0]), x));
    }
    // eʳ = 1 + r + r² p(r)
    let mut e = polynomials(s, &r, [0.499_999_94, 0.166_665_2, 0.041_668_404, 0.008_368_899, 0.001_381_422_2]);
    for (e, (&r, &n)) in e.iter_mut().zip(r.iter().zip(&n)) {
        *e = s.scale_by_power(s.add(s.mul_add(s.mul(r, r), *e, r), s.splat(1.0)), n);
    }
    e
}

/// `1 / (1 + e⁻ˣ)`: 3 ulp.
#[inline(always)]
pub(crate) fn sigmoid<S: Simd>(s: S, x: S::V) -> S::V {
    let one = s.splat(1.0);
    s.div(one, s.add(one, exp(s, s.sub(s.splat(0.0), x))))
}

/// `tanh(x)`: 3 ulp.
///
/// `x + x³ p(x²)` near zero, where `1 - 2 / (e²ˣ + 1)` would cancel.
#[inline(always)]
pub(crate) fn tanh<S: Simd>(s: S, x: S::V) -> S::V {
    let (one, two) = (s.splat(1.0), s.splat(2.0));
    let a = s.abs(x);
    let z = s.mul(x, x);
    let p = polynomial(s, z, [-0.333_332_78, 0.133_313_31, -0.053_730_007, 0.020_606_177, -0.005_666_977_3]);
    let near = s.mul_add(s.mul(z, x), p, x);
    let far = s.sub(one, s.div(two, s.add(exp(s, s.add(a, a)), one)));
    let far = s.select(s.less(x, s.splat(0.0)), s.sub(s.splat(0.0), far), far);
    // NaN is not less than anything, and `far` keeps it.
    s.select(s.less(a, s.splat(0.63)), near, far)
}

/// `ln(1 + y)` for `0 <= y <= 1`: 3 ulp.
///
/// `2 atanh(q) = 2 q + q³ p(q²)` with `q = y / (2 + y)`.
#[inline(always)]
pub(crate) fn ln_1p<S: Simd>(s: S, y: S::V) -> S::V {
    twice_atanh(s, s.div(y, s.add(s.splat(2.0), y)))
}

/// `ln(x)` for `0 < x`: 3 ulp; below -88 for 0 and less.
///
/// `x = 2ᵉ m` with `m` around 1, and `ln m = 2 atanh((m - 1) / (m + 1))`.
#[inline(always)]
pub(crate) fn ln<S: Simd>(s: S, x: S::V) -> S::V {
    /// ln 2 in two parts; the first has so few bits that its product with an exponent is exact.
    const LN2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
    let one = s.splat(1.0);
    let tiny = s.less(x, s.splat(f32::MIN_POSITIVE));
    // 2³²
    let [m, e] = s.split(s.select(tiny, s.mul(x, s.splat(4_294_967_296.0)), x));
    let e = s.select(tiny, s.sub(e, s.splat(32.0)), e);
    let high = s.less(s.splat(std::f32::consts::SQRT_2), m);
    let m = s.select(high, s.mul(m, s.splat(0.5)), m);
    // The exponent of 0 may be minus infinity, which the two products below would turn into nothing at all.
    let e = s.max(s.splat(-200.0), s.select(high, s.add(e, one), e));
    let near = twice_atanh(s, s.div(s.sub(m, one), s.add(m, one)));
    s.mul_add(e, s.splat(LN2[0]), s.mul_add(e, s.splat(LN2[1]), near))
}

/// `2 atanh(q)` for `|q| <= 1 / 3`.
#[inline(always)]
fn twice_atanh<S: Simd>(s: S, q: S::V) -> S::V {
    let z = s.mul(q, q);
    let p = polynomial(s, z, [0.666_666_75, 0.399_988_9, 0.286_165_95, 0.214_307_41, 0.242_895_54]);
    s.mul_add(s.mul(z, q), p, s.add(q, q))
}

/// Beyond this [`upper_tail`] is below 1e-42.
pub(crate) const TAIL_END: f32 = 14.0;

/// The chance of a standard normal number above `a`, `(1 - erf(a / √2)) / 2`, for `0 <= a <= TAIL_END`: absolute error
/// 8e-8.
#[inline(always)]
pub(crate) fn upper_tail<S: Simd>(s: S, a: S::V) -> S::V {
    let [tail] = upper_tails(s, [a]);
    tail
}

/// [`upper_tail`] of several vectors. Its logarithm is smooth enough for one polynomial, so there is neither a case distinction
/// nor a division.
#[inline(always)]
pub(crate) fn upper_tails<S: Simd, const M: usize>(s: S, a: [S::V; M]) -> [S::V; M] {
    let logarithms = polynomials(
        s,
        &a,
        [
            -std::f32::consts::LN_2,
            -0.797_887_5,
            -0.318_280_1,
            -0.036_447_18,
            0.004_985_262,
            -0.000_163_932_52,
            -0.000_101_789_67,
            2.270_667e-5,
            -1.974_97e-6,
            6.110_938e-8,
        ],
    );
    exps(s, logarithms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;
    use crate::kernels::activate::tests::{Function, mapped, sweep};

    /// The distance in units of the last place of the exact value.
    fn ulps(got: f32, want: f64) -> f64 {
        let rounded = want as f32;
        if got == rounded || (got.is_nan() && rounded.is_nan()) {
            return 0.0;
        }
        let unit = f64::from(rounded.abs().max(f32::MIN_POSITIVE)) * f64::from(f32::EPSILON) / 1.999;
        (f64::from(got) - want).abs() / unit.max(f64::from(f32::from_bits(1)))
    }

    #[derive(Debug, Clone, Copy)]
    enum Math {
        Exp,
        Sigmoid,
        Tanh,
        Ln,
        Ln1p,
        UpperTail,
    }

    impl Function for Math {
        #[inline(always)]
        fn apply<S: Simd>(self, s: S, x: S::V) -> S::V {
            match self {
                Self::Exp => exp(s, x),
                Self::Sigmoid => sigmoid(s, x),
                Self::Tanh => tanh(s, x),
                Self::Ln => ln(s, x),
                Self::Ln1p => ln_1p(s, x),
                Self::UpperTail => upper_tail(s, x),
            }
        }
    }

    fn check(f: Math, bound: f64, xs: &[f32], want: impl Fn(f64) -> f64) {
        for isa in Isa::available() {
            for (&x, got) in xs.iter().zip(mapped(isa, f, xs)) {
                let off = ulps(got, want(f64::from(x)));
                assert!(off <= bound, "{f:?}({x}) = {got}, not {}, on {isa}: {off} ulp", want(f64::from(x)));
            }
        }
    }

    #[test]
    fn exp_is_within_1_5_ulp() {
        check(Math::Exp, 1.5, &sweep(-87.0, 88.7), f64::exp);
    }

    #[test]
    fn exp_leaves_the_range_softly() {
        let xs = [f32::NEG_INFINITY, -1e30, -104.0, -95.0, -88.0, 0.0, 88.8, 1e30, f32::INFINITY, f32::NAN];
        check(Math::Exp, 1.5, &xs, f64::exp);
    }

    #[test]
    fn sigmoid_is_within_3_ulp() {
        check(Math::Sigmoid, 3.0, &sweep(-80.0, 80.0), |x| 1.0 / (1.0 + (-x).exp()));
    }

    #[test]
    fn tanh_is_within_3_ulp() {
        let mut xs = sweep(-10.0, 10.0);
        xs.extend([f32::NEG_INFINITY, -100.0, -1e-20, 0.0, 1e-20, 100.0, f32::INFINITY, f32::NAN]);
        check(Math::Tanh, 3.0, &xs, f64::tanh);
    }

    #[test]
    fn ln_1p_is_within_3_ulp() {
        let mut xs = sweep(0.0, 1.0);
        xs.extend([1e-30, 1e-10, f32::NAN]);
        check(Math::Ln1p, 3.0, &xs, f64::ln_1p);
    }

    #[test]
    fn ln_is_within_3_ulp() {
        let mut xs = sweep(1e-6, 4.0);
        xs.extend(sweep(-87.0, 88.0).iter().map(|x| x.exp()));
        xs.extend([1e-45, 1e-40, f32::MIN_POSITIVE, 1.0, 1.0 - 6e-8, f32::MAX]);
        check(Math::Ln, 3.0, &xs, f64::ln);
        for isa in Isa::available() {
            assert!(mapped(isa, Math::Ln, &[0.0])[0] < -88.0, "{isa}");
        }
    }

    #[test]
    fn upper_tail_is_within_8e_8() {
        let xs = sweep(0.0, TAIL_END);
        for isa in Isa::available() {
            for (&x, got) in xs.iter().zip(mapped(isa, Math::UpperTail, &xs)) {
                let want = 0.5 * libm::erfc(f64::from(x) * std::f64::consts::FRAC_1_SQRT_2);
                let off = (f64::from(got) - want).abs();
                assert!(off <= 8e-8, "the tail above {x} is {got}, not {want}, on {isa}");
            }
        }
    }
}
