//! Plain Rust: what every operation means.

use super::super::scalar::Scalar;
use super::{Dot, DotKernel};

/// Every CPU has this.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ScalarDot;

impl Dot for ScalarDot {
    type F = Scalar;
    type Sums = [i32; 4];
    type Weights = [i8; 16];
    type Row = [i8; 4];

    const TILE_ROWS: usize = 4;
    const OFFSET_8: i32 = 0;
    const OFFSET_4: i32 = 0;

    #[inline(always)]
    fn floats(self) -> Scalar {
        Scalar
    }

    #[inline(always)]
    fn vectorize<K: DotKernel>(self, kernel: K) -> K::Output {
        kernel.run(self)
    }

    #[inline(always)]
    fn splat(self, x: i32) -> [i32; 4] {
        [x; 4]
    }

    #[inline(always)]
    unsafe fn load_8(self, p: *const u8) -> [i8; 16] {
        // SAFETY: the caller's promise.
        unsafe { p.cast::<[i8; 16]>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn load_4(self, p: *const u8) -> [[i8; 16]; 2] {
        // SAFETY: the caller's promise.
        let both = unsafe { p.cast::<[u8; 16]>().read_unaligned() };
        [both.map(|b| (b & 15).cast_signed() - 8), both.map(|b| (b >> 4).cast_signed() - 8)]
    }

    #[inline(always)]
    unsafe fn row(self, p: *const i8) -> [i8; 4] {
        // SAFETY: the caller's promise.
        unsafe { p.cast::<[i8; 4]>().read_unaligned() }
    }

    #[inline(always)]
    fn dot(self, sums: [i32; 4], weights: [i8; 16], row: [i8; 4]) -> [i32; 4] {
        std::array::from_fn(|o| {
            sums[o] + (0..4).map(|k| i32::from(weights[4 * o + k]) * i32::from(row[k])).sum::<i32>()
        })
    }

    #[inline(always)]
    fn to_f32(self, sums: [i32; 4]) -> [f32; 4] {
        sums.map(|sum| sum as f32)
    }

    #[inline(always)]
    unsafe fn narrow(self, v: [f32; 4], p: *mut i8) {
        // SAFETY: the caller's promise.
        unsafe { p.cast::<[i8; 4]>().write_unaligned(v.map(|v| v.round_ties_even() as i8)) }
    }
}
