//! Products of 8-bit integers, four to a lane, summed in 32 bits: one trait, and a token for each instruction set.
//!
//! As in `simd/mod.rs`, kernels are written once and run through a token. Each token has the f32 vectors of as many lanes
//! ([`Dot::F`]). All are exact, so that one matrix gives one result on every CPU but for the order of f32 sums.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;
#[cfg(target_arch = "x86_64")]
mod vnni;

use super::{Simd, Token};

/// An instruction set for integers that this CPU has.
#[derive(Debug, Clone, Copy)]
pub(crate) enum DotToken {
    #[cfg(target_arch = "x86_64")]
    Vnni(vnni::Vnni),
    #[cfg(target_arch = "x86_64")]
    Avx2(avx2::Avx2Dot),
    #[cfg(target_arch = "aarch64")]
    Neon(neon::NeonDot),
    Scalar(scalar::ScalarDot),
}

impl DotToken {
    /// The best one that goes with an instruction set for floats.
    pub(crate) fn of(token: Token) -> Self {
        match token {
            #[cfg(target_arch = "x86_64")]
            Token::Avx512(s) => match (vnni::Vnni::detect(s), super::avx2::Avx2::detect()) {
                (Some(vnni), _) => Self::Vnni(vnni),
                (None, Some(avx2)) => Self::Avx2(avx2::Avx2Dot(avx2)),
                (None, None) => Self::Scalar(scalar::ScalarDot),
            },
            #[cfg(target_arch = "x86_64")]
            Token::Avx2(s) => Self::Avx2(avx2::Avx2Dot(s)),
            #[cfg(target_arch = "aarch64")]
            Token::Neon(s) => Self::Neon(neon::NeonDot(s)),
            Token::Scalar(_) => Self::Scalar(scalar::ScalarDot),
        }
    }

    /// Runs a kernel compiled for this instruction set.
    pub(crate) fn run<K: DotKernel>(self, kernel: K) -> K::Output {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Vnni(d) => d.vectorize(kernel),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(d) => d.vectorize(kernel),
            #[cfg(target_arch = "aarch64")]
            Self::Neon(d) => d.vectorize(kernel),
            Self::Scalar(d) => d.vectorize(kernel),
        }
    }
}

/// Work that can be compiled for any of them. Implementations are `#[inline(always)]`.
pub(crate) trait DotKernel {
    /// What it gives back.
    type Output;

    /// The work.
    fn run<D: Dot>(self, d: D) -> Self::Output;
}

/// Operations on vectors of small integers. A value of this type is the proof that the CPU has them.
///
/// A vector of weights holds four inputs' weights for each of as many outputs as `F` has lanes, output by output. Weights
/// of 8 bits are -127..=127, kept with [`Dot::OFFSET_8`] added; those of 4 bits -8..=7, kept as 0..=15.
pub(crate) trait Dot: Copy + Send + Sync {
    /// The f32 vectors with a lane for each output.
    type F: Simd;
    /// A 32-bit sum for each output.
    type Sums: Copy;
    /// Weights of four inputs for each output.
    type Weights: Copy;
    /// Four inputs of a row, the same for each output.
    type Row: Copy;

    /// Rows of a tile of two vectors whose sums stay in registers.
    const TILE_ROWS: usize;
    /// What is added to weights of 8 bits when they are packed: instructions may want them unsigned.
    const OFFSET_8: i32;
    /// What [`Dot::load_4`] leaves added to weights, of the 8 they are kept with.
    const OFFSET_4: i32;

    /// The vectors of f32.
    fn floats(self) -> Self::F;

    /// Compiles and runs `kernel` with this instruction set.
    fn vectorize<K: DotKernel>(self, kernel: K) -> K::Output;

    /// `x` for every output.
    fn splat(self, x: i32) -> Self::Sums;

    /// A vector of 8-bit weights.
    ///
    /// # Safety
    /// `4 * LANES` bytes can be read from `p` on.
    unsafe fn load_8(self, p: *const u8) -> Self::Weights;

    /// Two vectors of 4-bit weights: the lower halves of the bytes, then the upper ones.
    ///
    /// # Safety
    /// `4 * LANES` bytes can be read from `p` on.
    unsafe fn load_4(self, p: *const u8) -> [Self::Weights; 2];

    /// Four inputs, -127..=127 each.
    ///
    /// # Safety
    /// 4 bytes can be read from `p` on.
    unsafe fn row(self, p: *const i8) -> Self::Row;

    /// `sums` and for each output the four products.
    fn dot(self, sums: Self::Sums, weights: Self::Weights, row: Self::Row) -> Self::Sums;

    /// In place of values half a vector apart, in each half a quarter, and so on to 4 apart: their sums, then their differences.
    #[inline(always)]
    fn spread(self, v: <Self::F as Simd>::V) -> <Self::F as Simd>::V {
        const { assert!(Self::F::LANES == 4) }
        v
    }

    /// The sums as f32, rounded.
    fn to_f32(self, sums: Self::Sums) -> <Self::F as Simd>::V;

    /// Writes a vector of f32 in -127..=127 as bytes, each rounded to the nearest whole number, of two equally near ones
    /// the even one. What is not a number becomes any byte.
    ///
    /// # Safety
    /// `LANES` bytes can be written from `p` on.
    unsafe fn narrow(self, v: <Self::F as Simd>::V, p: *mut i8);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;

    /// The most bytes a vector of weights has.
    const MAX_WEIGHTS: usize = 64;

    /// Four inputs of `row` times weights drawn from `seed`, by the instruction set and by hand.
    struct Check<'a> {
        row: [i8; 4],
        bytes: &'a [u8; MAX_WEIGHTS],
    }

    impl DotKernel for Check<'_> {
        type Output = ();

        #[inline(always)]
        fn run<D: Dot>(self, d: D) {
            let lanes = D::F::LANES;
            let s = d.floats();
            let total: i32 = self.row.iter().map(|&x| i32::from(x)).sum();
            let by_hand = |weight: &dyn Fn(usize) -> i32| -> Vec<f32> {
                (0..lanes)
                    .map(|o| (0..4).map(|k| weight(4 * o + k) * i32::from(self.row[k])).sum::<i32>() as f32)
                    .collect()
            };
            let read = |sums: D::Sums| {
                let mut out = vec![0.0; lanes];
                s.put(&mut out, d.to_f32(sums));
                out
            };
            // SAFETY: there are `MAX_WEIGHTS` bytes, which is the most any of them reads, and four of the row.
            unsafe {
                let row = d.row(self.row.as_ptr());
                // -128 is no weight.
                let bytes = self.bytes.map(|b| if b == 128 { 0 } else { b });
                let kept = bytes.map(|b| b.wrapping_add(D::OFFSET_8 as u8));
                let found = d.dot(d.splat(-D::OFFSET_8 * total), d.load_8(kept.as_ptr()), row);
                assert_eq!(read(found), by_hand(&|i| i32::from(bytes[i].cast_signed())));
                let [low, high] = d.load_4(self.bytes.as_ptr());
                let start = d.splat(-D::OFFSET_4 * total);
                assert_eq!(read(d.dot(start, low, row)), by_hand(&|i| i32::from(self.bytes[i] & 15) - 8));
                assert_eq!(read(d.dot(start, high, row)), by_hand(&|i| i32::from(self.bytes[i] >> 4) - 8));
            }
        }
    }

    #[test]
    fn products_are_exact_at_the_ends_and_between() {
        for isa in Isa::available() {
            let token = DotToken::of(isa.token().unwrap());
            let ends = [[127, 127, 127, 127], [-127, -127, -127, -127], [127, -127, 127, -127], [0, 1, -1, 0]];
            let bytes = [[127; MAX_WEIGHTS], [129; MAX_WEIGHTS], [0; MAX_WEIGHTS], [255; MAX_WEIGHTS]];
            for (row, bytes) in ends.iter().flat_map(|row| bytes.iter().map(move |bytes| (*row, bytes))) {
                token.run(Check { row, bytes });
            }
            let mut state = 1_u32;
            let mut next = || {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            };
            for _ in 0..1000 {
                let row = std::array::from_fn(|_| next().cast_signed().max(-127));
                token.run(Check { row, bytes: &std::array::from_fn(|_| next()) });
            }
        }
    }

    struct Narrow<'a>(&'a [f32]);

    impl DotKernel for Narrow<'_> {
        type Output = Vec<i8>;

        #[inline(always)]
        fn run<D: Dot>(self, d: D) -> Vec<i8> {
            let lanes = D::F::LANES;
            let mut out = vec![0; self.0.len()];
            for (values, out) in self.0.chunks_exact(lanes).zip(out.chunks_exact_mut(lanes)) {
                // SAFETY: `out` has room for a vector's bytes.
                unsafe { d.narrow(d.floats().get(values), out.as_mut_ptr()) };
            }
            out
        }
    }

    #[test]
    fn rounding_is_to_the_nearest_even() {
        let values: Vec<f32> = (-512_i16..512).map(|i| f32::from(i) / 4.0).map(|v| v.clamp(-127.0, 127.0)).collect();
        let want: Vec<i8> = values.iter().map(|v| v.round_ties_even() as i8).collect();
        for isa in Isa::available() {
            assert_eq!(DotToken::of(isa.token().unwrap()).run(Narrow(&values)), want, "{isa}");
        }
    }
}
