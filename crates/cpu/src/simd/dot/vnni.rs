//! AVX-512 with VNNI: one instruction for 64 products. Its weights are unsigned.
#![allow(clippy::wildcard_imports)] // as in the files for floats

use std::arch::x86_64::*;

use super::super::avx512::Avx512;
use super::{Dot, DotKernel};

/// Proof that the CPU has AVX-512 F, BW and VNNI.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Vnni(Avx512);

impl Vnni {
    /// The token, if the CPU has VNNI too.
    pub(crate) fn detect(s: Avx512) -> Option<Self> {
        (is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512vnni")).then_some(Self(s))
    }
}

// SAFETY (for every block below): the token exists only where the CPU has the instruction set; pointers are the
// caller's, who promised what the trait asks.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Dot for Vnni {
    type F = Avx512;
    type Sums = __m512i;
    type Weights = __m512i;
    type Row = __m512i;

    /// 7 x 2 sums and as many results, 2 vectors of weights and 1 of a row: 31 of 32 registers.
    const TILE_ROWS: usize = 7;
    const OFFSET_8: i32 = 128;
    const OFFSET_4: i32 = 8;

    #[inline(always)]
    fn floats(self) -> Avx512 {
        self.0
    }

    #[inline(always)]
    fn vectorize<K: DotKernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
        fn inner<K: DotKernel>(d: Vnni, kernel: K) -> K::Output {
            kernel.run(d)
        }
        unsafe { inner(self, kernel) }
    }

    #[inline(always)]
    fn splat(self, x: i32) -> __m512i {
        unsafe { _mm512_set1_epi32(x) }
    }

    #[inline(always)]
    unsafe fn load_8(self, p: *const u8) -> __m512i {
        unsafe { _mm512_loadu_si512(p.cast()) }
    }

    #[inline(always)]
    unsafe fn load_4(self, p: *const u8) -> [__m512i; 2] {
        unsafe {
            let (both, low) = (_mm512_loadu_si512(p.cast()), _mm512_set1_epi8(15));
            [_mm512_and_si512(both, low), _mm512_and_si512(_mm512_srli_epi16::<4>(both), low)]
        }
    }

    #[inline(always)]
    unsafe fn row(self, p: *const i8) -> __m512i {
        unsafe { _mm512_set1_epi32(p.cast::<i32>().read_unaligned()) }
    }

    #[inline(always)]
    fn dot(self, sums: __m512i, weights: __m512i, row: __m512i) -> __m512i {
        unsafe { _mm512_dpbusd_epi32(sums, weights, row) }
    }

    #[inline(always)]
    fn spread(self, v: __m512) -> __m512 {
        unsafe {
            let halves = _mm512_mask_blend_ps(0xff00, _mm512_set1_ps(1.0), _mm512_set1_ps(-1.0));
            let quarters = _mm512_mask_blend_ps(0xf0f0, _mm512_set1_ps(1.0), _mm512_set1_ps(-1.0));
            let v = _mm512_fmadd_ps(v, halves, _mm512_shuffle_f32x4::<0b01_00_11_10>(v, v));
            _mm512_fmadd_ps(v, quarters, _mm512_shuffle_f32x4::<0b10_11_00_01>(v, v))
        }
    }

    #[inline(always)]
    fn to_f32(self, sums: __m512i) -> __m512 {
        unsafe { _mm512_cvtepi32_ps(sums) }
    }

    #[inline(always)]
    unsafe fn narrow(self, v: __m512, p: *mut i8) {
        unsafe { _mm_storeu_si128(p.cast(), _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(v))) }
    }
}
