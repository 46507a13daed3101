//! AVX2: products of a sign and two magnitudes, pair by pair in 16 bits, which magnitudes of at most 127 cannot overflow.
#![allow(clippy::wildcard_imports)] // as in the files for floats

use std::arch::x86_64::*;

use super::super::avx2::Avx2;
use super::{Dot, DotKernel};

/// Proof that the CPU has AVX2.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx2Dot(pub(super) Avx2);

// SAFETY (for every block below): the token exists only where the CPU has the instruction set; pointers are the
// caller's, who promised what the trait asks.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Dot for Avx2Dot {
    type F = Avx2;
    type Sums = __m256i;
    type Weights = __m256i;
    /// The inputs and their magnitudes.
    type Row = [__m256i; 2];

    /// 4 x 2 sums, 2 vectors of weights, 2 of a row, and the steps of a product: 15 of 16 registers.
    const TILE_ROWS: usize = 4;
    const OFFSET_8: i32 = 0;
    const OFFSET_4: i32 = 0;

    #[inline(always)]
    fn floats(self) -> Avx2 {
        self.0
    }

    #[inline(always)]
    fn vectorize<K: DotKernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "avx2,fma,f16c")]
        fn inner<K: DotKernel>(d: Avx2Dot, kernel: K) -> K::Output {
            kernel.run(d)
        }
        unsafe { inner(self, kernel) }
    }

    #[inline(always)]
    fn splat(self, x: i32) -> __m256i {
        unsafe { _mm256_set1_epi32(x) }
    }

    #[inline(always)]
    unsafe fn load_8(self, p: *const u8) -> __m256i {
        unsafe { _mm256_loadu_si256(p.cast()) }
    }

    #[inline(always)]
    unsafe fn load_4(self, p: *const u8) -> [__m256i; 2] {
        unsafe {
            let (both, low) = (_mm256_loadu_si256(p.cast()), _mm256_set1_epi8(15));
            let eight = _mm256_set1_epi8(8);
            [both, _mm256_srli_epi16::<4>(both)].map(|half| _mm256_sub_epi8(_mm256_and_si256(half, low), eight))
        }
    }

    #[inline(always)]
    unsafe fn row(self, p: *const i8) -> [__m256i; 2] {
        unsafe {
            let row = _mm256_set1_epi32(p.cast::<i32>().read_unaligned());
            [row, _mm256_abs_epi8(row)]
        }
    }

    #[inline(always)]
    fn dot(self, sums: __m256i, weights: __m256i, [row, magnitude]: [__m256i; 2]) -> __m256i {
        unsafe {
            let pairs = _mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(weights, row));
            _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
        }
    }

    #[inline(always)]
    fn spread(self, v: __m256) -> __m256 {
        unsafe {
            let halves = _mm256_set_m128(_mm_set1_ps(-1.0), _mm_set1_ps(1.0));
            _mm256_fmadd_ps(v, halves, _mm256_permute2f128_ps::<1>(v, v))
        }
    }

    #[inline(always)]
    fn to_f32(self, sums: __m256i) -> __m256 {
        unsafe { _mm256_cvtepi32_ps(sums) }
    }

    #[inline(always)]
    unsafe fn narrow(self, v: __m256, p: *mut i8) {
        unsafe {
            let whole = _mm256_cvtps_epi32(v);
            let words = _mm_packs_epi32(_mm256_castsi256_si128(whole), _mm256_extracti128_si256::<1>(whole));
            _mm_storel_epi64(p.cast(), _mm_packs_epi16(words, words));
        }
    }
}
