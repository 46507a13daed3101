//! NEON: 4 lanes, 32 registers, on every 64-bit Arm.
#![allow(clippy::wildcard_imports)] // some forty intrinsics

use std::arch::aarch64::*;

use super::{Kernel, Simd, block_row};

/// Proof that the CPU has NEON.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Neon(());

impl Neon {
    /// The token, if the CPU has the instruction set.
    pub(crate) fn detect() -> Option<Self> {
        std::arch::is_aarch64_feature_detected!("neon").then_some(Self(()))
    }
}

// SAFETY (for every block below that calls an intrinsic): the token exists only where the CPU has NEON; pointers are
// the caller's, who promised what the trait asks.
#[allow(clippy::undocumented_unsafe_blocks, unused_unsafe)]
impl Simd for Neon {
    const LANES: usize = 4;
    /// 12 x 2 sums, 2 vectors of weights and some broadcasts in 32 registers.
    const TILE_ROWS: usize = 12;

    type V = float32x4_t;
    type Mask = uint32x4_t;

    #[inline(always)]
    fn vectorize<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "neon")]
        fn inner<K: Kernel>(s: Neon, kernel: K) -> K::Output {
            kernel.run(s)
        }
        unsafe { inner(self, kernel) }
    }

    #[inline(always)]
    fn splat(self, x: f32) -> float32x4_t {
        unsafe { vdupq_n_f32(x) }
    }

    #[inline(always)]
    fn add(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        unsafe { vaddq_f32(a, b) }
    }

    #[inline(always)]
    fn sub(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        unsafe { vsubq_f32(a, b) }
    }

    #[inline(always)]
    fn mul(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        unsafe { vmulq_f32(a, b) }
    }

    #[inline(always)]
    fn div(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        unsafe { vdivq_f32(a, b) }
    }

    #[inline(always)]
    fn mul_add(self, a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
        unsafe { vfmaq_f32(c, a, b) }
    }

    #[inline(always)]
    fn max(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        unsafe { vmaxq_f32(a, b) }
    }

    #[inline(always)]
    fn min(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        unsafe { vminq_f32(a, b) }
    }

    #[inline(always)]
    fn abs(self, a: float32x4_t) -> float32x4_t {
        unsafe { vabsq_f32(a) }
    }

    #[inline(always)]
    fn sqrt(self, a: float32x4_t) -> float32x4_t {
        unsafe { vsqrtq_f32(a) }
    }

    #[inline(always)]
    fn less(self, a: float32x4_t, b: float32x4_t) -> uint32x4_t {
        unsafe { vcltq_f32(a, b) }
    }

    #[inline(always)]
    fn select(self, mask: uint32x4_t, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        unsafe { vbslq_f32(mask, a, b) }
    }

    /// In two steps, because one factor 2ⁿ would leave the range of f32 before the product does.
    #[inline(always)]
    fn scale_by_power(self, a: float32x4_t, n: float32x4_t) -> float32x4_t {
        unsafe {
            let power = |n| vreinterpretq_f32_s32(vshlq_n_s32::<23>(vaddq_s32(n, vdupq_n_s32(127))));
            let n = vcvtnq_s32_f32(n);
            let half = vshrq_n_s32::<1>(n);
            vmulq_f32(vmulq_f32(a, power(half)), power(vsubq_s32(n, half)))
        }
    }

    #[inline(always)]
    fn swap(self, a: float32x4_t, distance: usize) -> float32x4_t {
        unsafe { if distance == 1 { vrev64q_f32(a) } else { vextq_f32::<2>(a, a) } }
    }

    #[inline(always)]
    fn sum(self, a: float32x4_t) -> f32 {
        unsafe { vaddvq_f32(a) }
    }

    #[inline(always)]
    fn largest(self, a: float32x4_t) -> f32 {
        unsafe { vmaxvq_f32(a) }
    }

    #[inline(always)]
    fn split(self, a: float32x4_t) -> [float32x4_t; 2] {
        unsafe {
            let bits = vreinterpretq_u32_f32(a);
            let exponent = vsubq_s32(vreinterpretq_s32_u32(vshrq_n_u32::<23>(bits)), vdupq_n_s32(127));
            let fraction = vandq_u32(bits, vdupq_n_u32(0x007f_ffff));
            let mantissa = vorrq_u32(fraction, vdupq_n_u32(0x3f80_0000));
            [vreinterpretq_f32_u32(mantissa), vcvtq_f32_s32(exponent)]
        }
    }

    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> float32x4_t {
        unsafe { vld1q_f32(p) }
    }

    #[inline(always)]
    unsafe fn load_first(self, p: *const f32, n: usize) -> float32x4_t {
        let mut values = [0.0_f32; 4];
        unsafe {
            p.cast::<u8>().copy_to_nonoverlapping(values.as_mut_ptr().cast(), 4 * n);
            vld1q_f32(values.as_ptr())
        }
    }

    #[inline(always)]
    unsafe fn load_f16(self, p: *const u8) -> float32x4_t {
        // The instruction is part of every NEON; its intrinsic waits for a type of its own.
        unsafe {
            let halves = vld1_u8(p);
            let wide: float32x4_t;
            std::arch::asm!(
                "fcvtl {wide:v}.4s, {halves:v}.4h",
                wide = lateout(vreg) wide,
                halves = in(vreg) halves,
                options(pure, nomem, nostack, preserves_flags)
            );
            wide
        }
    }

    #[inline(always)]
    unsafe fn load_bf16(self, p: *const u8) -> float32x4_t {
        unsafe { vreinterpretq_f32_u32(vshlq_n_u32::<16>(vmovl_u16(vreinterpret_u16_u8(vld1_u8(p))))) }
    }

    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: float32x4_t) {
        unsafe { vst1q_f32(p, v) }
    }

    /// Arm's stores past the caches are a hint on pairs, and have no stable intrinsic.
    #[inline(always)]
    unsafe fn stream(self, p: *mut f32, v: float32x4_t) {
        unsafe { self.store(p, v) }
    }

    #[inline(always)]
    fn fence(self) {}

    #[inline(always)]
    unsafe fn store_first(self, p: *mut f32, v: float32x4_t, n: usize) {
        let mut values = [0.0_f32; 4];
        unsafe {
            vst1q_f32(values.as_mut_ptr(), v);
            values.as_ptr().copy_to_nonoverlapping(p, n);
        }
    }

    /// Arm's own prefetchers follow the streams of these kernels; the instruction has no stable intrinsic.
    #[inline(always)]
    fn prefetch(self, _: *const f32) {}

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
            let x: [float32x4_t; 4] = std::array::from_fn(|r| block_row(self, src, src_stride, r, rows, cols));
            let even = |a, b| vreinterpretq_f64_f32(vtrn1q_f32(a, b));
            let odd = |a, b| vreinterpretq_f64_f32(vtrn2q_f32(a, b));
            let (even01, odd01) = (even(x[0], x[1]), odd(x[0], x[1]));
            let (even23, odd23) = (even(x[2], x[3]), odd(x[2], x[3]));
            let out = [
                vreinterpretq_f32_f64(vtrn1q_f64(even01, even23)),
                vreinterpretq_f32_f64(vtrn1q_f64(odd01, odd23)),
                vreinterpretq_f32_f64(vtrn2q_f64(even01, even23)),
                vreinterpretq_f32_f64(vtrn2q_f64(odd01, odd23)),
            ];
            for (c, v) in out.into_iter().enumerate() {
                if c < cols {
                    self.store(dst.add(c * dst_stride), v);
                }
            }
        }
    }
}
