//! NEON: products in 16 bits, added pair by pair. Every 64-bit Arm has this; its dot products (`sdot`) need a later one.
#![allow(clippy::wildcard_imports)] // as in the files for floats

use std::arch::aarch64::*;

use super::super::neon::Neon;
use super::{Dot, DotKernel};

/// Proof that the CPU has NEON.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NeonDot(pub(super) Neon);

// SAFETY (for every block below): the token exists only where the CPU has the instruction set; pointers are the
// caller's, who promised what the trait asks.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Dot for NeonDot {
    type F = Neon;
    type Sums = int32x4_t;
    type Weights = int8x16_t;
    type Row = int8x16_t;

    /// 8 x 2 sums, 2 vectors of weights, 1 of a row, and the steps of a product: 23 of 32 registers.
    const TILE_ROWS: usize = 8;
    const OFFSET_8: i32 = 0;
    const OFFSET_4: i32 = 0;

    #[inline(always)]
    fn floats(self) -> Neon {
        self.0
    }

    #[inline(always)]
    fn vectorize<K: DotKernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "neon")]
        fn inner<K: DotKernel>(d: NeonDot, kernel: K) -> K::Output {
            kernel.run(d)
        }
        unsafe { inner(self, kernel) }
    }

    #[inline(always)]
    fn splat(self, x: i32) -> int32x4_t {
        unsafe { vdupq_n_s32(x) }
    }

    #[inline(always)]
    unsafe fn load_8(self, p: *const u8) -> int8x16_t {
        unsafe { vld1q_s8(p.cast()) }
    }

    #[inline(always)]
    unsafe fn load_4(self, p: *const u8) -> [int8x16_t; 2] {
        unsafe {
            let both = vld1q_u8(p);
            let halves = [vandq_u8(both, vdupq_n_u8(15)), vshrq_n_u8::<4>(both)];
            halves.map(|half| vsubq_s8(vreinterpretq_s8_u8(half), vdupq_n_s8(8)))
        }
    }

    #[inline(always)]
    unsafe fn row(self, p: *const i8) -> int8x16_t {
        unsafe { vreinterpretq_s8_s32(vdupq_n_s32(p.cast::<i32>().read_unaligned())) }
    }

    #[inline(always)]
    fn dot(self, sums: int32x4_t, weights: int8x16_t, row: int8x16_t) -> int32x4_t {
        unsafe {
            let low = vpaddlq_s16(vmull_s8(vget_low_s8(weights), vget_low_s8(row)));
            let high = vpaddlq_s16(vmull_high_s8(weights, row));
            vaddq_s32(sums, vpaddq_s32(low, high))
        }
    }

    #[inline(always)]
    fn to_f32(self, sums: int32x4_t) -> float32x4_t {
        unsafe { vcvtq_f32_s32(sums) }
    }

    #[inline(always)]
    unsafe fn narrow(self, v: float32x4_t, p: *mut i8) {
        unsafe {
            let words = vqmovn_s32(vcvtnq_s32_f32(v));
            let bytes = vqmovn_s16(vcombine_s16(words, words));
            p.cast::<i32>().write_unaligned(vget_lane_s32::<0>(vreinterpret_s32_s8(bytes)));
        }
    }
}
