//! AVX-512 F: 16 lanes, 32 registers, masks for tails; and the same with products of bfloat16.
#![allow(clippy::wildcard_imports)] // some forty intrinsics

use std::arch::x86_64::*;
use std::mem::transmute;

use super::{Kernel, Simd, block_row, pairs};

/// Proof that the CPU has AVX-512 F, and with `BF16` its instructions for bfloat16 too.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx512<const BF16: bool = false>(());

impl Avx512 {
    /// The token, if the CPU and the operating system support the instruction set.
    pub(crate) fn detect() -> Option<Self> {
        is_x86_feature_detected!("avx512f").then_some(Self(()))
    }
}

impl Avx512<true> {
    /// The token, if the CPU has products of bfloat16 and they are faster than those of f32: twice as fast on AMD's
    /// (docs/performance/cpu.md), half as fast on Intel's.
    pub(crate) fn detect_fast() -> Option<Self> {
        let vendor = __cpuid(0);
        let amd = [vendor.ebx, vendor.edx, vendor.ecx].map(u32::to_le_bytes).as_flattened() == b"AuthenticAMD";
        (amd && is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bf16")).then_some(Self(()))
    }
}

#[inline(always)]
fn first(n: usize) -> __mmask16 {
    (1_u32 << n).wrapping_sub(1) as __mmask16
}

// SAFETY (for every block below that calls an intrinsic): the token exists only where the CPU has AVX-512 F; pointers
// are the caller's, who promised what the trait asks.
#[allow(clippy::undocumented_unsafe_blocks)]
impl<const BF16: bool> Simd for Avx512<BF16> {
    const LANES: usize = 16;
    /// 14 x 2 sums, 2 vectors of weights and 1 broadcast: 31 of 32 registers.
    const TILE_ROWS: usize = 14;

    type V = __m512;
    type Mask = __mmask16;

    #[inline(always)]
    fn vectorize<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "avx512f")]
        fn inner<K: Kernel>(kernel: K) -> K::Output {
            kernel.run(Avx512::<false>(()))
        }
        #[target_feature(enable = "avx512f,avx512bf16")]
        fn inner_bf16<K: Kernel>(kernel: K) -> K::Output {
            kernel.run(Avx512::<true>(()))
        }
        if BF16 { unsafe { inner_bf16(kernel) } } else { unsafe { inner(kernel) } }
    }

    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        unsafe { _mm512_set1_ps(x) }
    }

    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_add_ps(a, b) }
    }

    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_sub_ps(a, b) }
    }

    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_mul_ps(a, b) }
    }

    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_div_ps(a, b) }
    }

    #[inline(always)]
    fn mul_add(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn add_pairs(self, a: __m512, b: __m512, sums: __m512) -> __m512 {
        if BF16 {
            // Any bits are a vector of bfloat16.
            let [a, b] = [a, b].map(|v| unsafe { transmute::<__m512, __m512bh>(v) });
            unsafe { _mm512_dpbf16_ps(sums, a, b) }
        } else {
            pairs::add(self, a, b, sums)
        }
    }

    #[inline(always)]
    fn pair(self, first: __m512, second: __m512) -> __m512 {
        if BF16 {
            unsafe {
                let halves = [first, second].map(|v| {
                    let rounded = transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(v));
                    _mm512_cvtepu16_epi32(rounded)
                });
                _mm512_castsi512_ps(_mm512_or_si512(halves[0], _mm512_slli_epi32::<16>(halves[1])))
            }
        } else {
            pairs::pair(self, first, second)
        }
    }

    #[inline(always)]
    unsafe fn store_bf16(self, p: *mut u8, v: __m512) {
        if BF16 {
            unsafe { p.cast::<__m256bh>().write_unaligned(_mm512_cvtneps_pbh(v)) }
        } else {
            unsafe { pairs::store(self, p, v) }
        }
    }

    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_max_ps(a, b) }
    }

    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_min_ps(a, b) }
    }

    #[inline(always)]
    fn abs(self, a: __m512) -> __m512 {
        unsafe { _mm512_abs_ps(a) }
    }

    #[inline(always)]
    fn sqrt(self, a: __m512) -> __m512 {
        unsafe { _mm512_sqrt_ps(a) }
    }

    #[inline(always)]
    fn less(self, a: __m512, b: __m512) -> __mmask16 {
        unsafe { _mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b) }
    }

    #[inline(always)]
    fn select(self, mask: __mmask16, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_mask_blend_ps(mask, b, a) }
    }

    #[inline(always)]
    fn scale_by_power(self, a: __m512, n: __m512) -> __m512 {
        unsafe { _mm512_scalef_ps(a, n) }
    }

    #[inline(always)]
    fn swap(self, a: __m512, distance: usize) -> __m512 {
        unsafe {
            match distance {
                1 => _mm512_permute_ps::<0b10_11_00_01>(a),
                2 => _mm512_permute_ps::<0b01_00_11_10>(a),
                4 => _mm512_shuffle_f32x4::<0b10_11_00_01>(a, a),
                _ => _mm512_shuffle_f32x4::<0b01_00_11_10>(a, a),
            }
        }
    }

    #[inline(always)]
    fn sum(self, a: __m512) -> f32 {
        unsafe { _mm512_reduce_add_ps(a) }
    }

    #[inline(always)]
    fn largest(self, a: __m512) -> f32 {
        unsafe { _mm512_reduce_max_ps(a) }
    }

    #[inline(always)]
    fn split(self, a: __m512) -> [__m512; 2] {
        unsafe { [_mm512_getmant_ps::<_MM_MANT_NORM_1_2, _MM_MANT_SIGN_SRC>(a), _mm512_getexp_ps(a)] }
    }

    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> __m512 {
        unsafe { _mm512_loadu_ps(p) }
    }

    #[inline(always)]
    unsafe fn load_first(self, p: *const f32, n: usize) -> __m512 {
        unsafe { _mm512_maskz_loadu_ps(first(n), p) }
    }

    #[inline(always)]
    unsafe fn load_f16(self, p: *const u8) -> __m512 {
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(p.cast())) }
    }

    #[inline(always)]
    unsafe fn load_bf16(self, p: *const u8) -> __m512 {
        unsafe {
            let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(p.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
        }
    }

    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: __m512) {
        unsafe { _mm512_storeu_ps(p, v) }
    }

    #[inline(always)]
    unsafe fn stream(self, p: *mut f32, v: __m512) {
        unsafe { _mm512_stream_ps(p, v) }
    }

    #[inline(always)]
    fn fence(self) {
        unsafe { _mm_sfence() }
    }

    #[inline(always)]
    unsafe fn store_first(self, p: *mut f32, v: __m512, n: usize) {
        unsafe { _mm512_mask_storeu_ps(p, first(n), v) }
    }

    #[inline(always)]
    fn prefetch(self, p: *const f32) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
    }

    /// Pairs, then fours of rows inside each 128-bit quarter, then the quarters: 64 shuffles for 256 values.
    #[inline(always)]
    unsafe fn transpose(
        self,
        src: *const f32,
        src_stride: usize,
        rows: usize,
        cols: usize,
        dst: *mut f32,
        dst_stride: usize,
    ) {
        unsafe {
            let mut x = [self.splat(0.0); 16];
            for (r, v) in x.iter_mut().enumerate() {
                *v = block_row(self, src, src_stride, r, rows, cols);
            }
            let mut pairs = x;
            for i in 0..8 {
                pairs[2 * i] = _mm512_unpacklo_ps(x[2 * i], x[2 * i + 1]);
                pairs[2 * i + 1] = _mm512_unpackhi_ps(x[2 * i], x[2 * i + 1]);
            }
            // fours[4 g + j], quarter q: column 4 q + j of rows 4 g .. 4 g + 4
            let mut fours = x;
            for g in 0..4 {
                for half in 0..2 {
                    let a = _mm512_castps_pd(pairs[4 * g + half]);
                    let b = _mm512_castps_pd(pairs[4 * g + half + 2]);
                    fours[4 * g + 2 * half] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
                    fours[4 * g + 2 * half + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
                }
            }
            let mut out = x;
            for j in 0..4 {
                let (a, b, c, d) = (fours[j], fours[4 + j], fours[8 + j], fours[12 + j]);
                let (even_ab, odd_ab) = (_mm512_shuffle_f32x4::<0x88>(a, b), _mm512_shuffle_f32x4::<0xdd>(a, b));
                let (even_cd, odd_cd) = (_mm512_shuffle_f32x4::<0x88>(c, d), _mm512_shuffle_f32x4::<0xdd>(c, d));
                out[j] = _mm512_shuffle_f32x4::<0x88>(even_ab, even_cd);
                out[4 + j] = _mm512_shuffle_f32x4::<0x88>(odd_ab, odd_cd);
                out[8 + j] = _mm512_shuffle_f32x4::<0xdd>(even_ab, even_cd);
                out[12 + j] = _mm512_shuffle_f32x4::<0xdd>(odd_ab, odd_cd);
            }
            for (c, v) in out.into_iter().enumerate() {
                if c < cols {
                    self.store(dst.add(c * dst_stride), v);
                }
            }
        }
    }
}
