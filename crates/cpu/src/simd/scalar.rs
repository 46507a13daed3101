//! Plain Rust: 4 lanes as an array, which compilers turn into whatever vectors the target always has.
//!
//! Products are not fused: without the instruction a fused one costs a library call.

use half::{bf16, f16};

use super::{Kernel, Simd, block_row};

/// Every CPU has this.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scalar;

#[inline(always)]
fn map2(a: [f32; 4], b: [f32; 4], f: impl Fn(f32, f32) -> f32) -> [f32; 4] {
    std::array::from_fn(|i| f(a[i], b[i]))
}

impl Simd for Scalar {
    const LANES: usize = 4;
    /// 4 x 2 sums of four lanes fill half of the 16 registers of SSE2, and the products the rest.
    const TILE_ROWS: usize = 4;

    type V = [f32; 4];
    type Mask = [bool; 4];

    #[inline(always)]
    fn vectorize<K: Kernel>(self, kernel: K) -> K::Output {
        kernel.run(self)
    }

    #[inline(always)]
    fn splat(self, x: f32) -> [f32; 4] {
        [x; 4]
    }

    #[inline(always)]
    fn add(self, a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        map2(a, b, |a, b| a + b)
    }

    #[inline(always)]
    fn sub(self, a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        map2(a, b, |a, b| a - b)
    }

    #[inline(always)]
    fn mul(self, a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        map2(a, b, |a, b| a * b)
    }

    #[inline(always)]
    fn div(self, a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        map2(a, b, |a, b| a / b)
    }

    #[inline(always)]
    fn mul_add(self, a: [f32; 4], b: [f32; 4], c: [f32; 4]) -> [f32; 4] {
        self.add(self.mul(a, b), c)
    }

    #[inline(always)]
    fn max(self, a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        map2(a, b, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    fn min(self, a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        map2(a, b, |a, b| if a < b { a } else { b })
    }

    #[inline(always)]
    fn abs(self, a: [f32; 4]) -> [f32; 4] {
        a.map(f32::abs)
    }

    #[inline(always)]
    fn sqrt(self, a: [f32; 4]) -> [f32; 4] {
        a.map(f32::sqrt)
    }

    #[inline(always)]
    fn less(self, a: [f32; 4], b: [f32; 4]) -> [bool; 4] {
        std::array::from_fn(|i| a[i] < b[i])
    }

    #[inline(always)]
    fn select(self, mask: [bool; 4], a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        std::array::from_fn(|i| if mask[i] { a[i] } else { b[i] })
    }

    #[inline(always)]
    fn scale_by_power(self, a: [f32; 4], n: [f32; 4]) -> [f32; 4] {
        let power = |n: i32| f32::from_bits(((n + 127) as u32) << 23);
        map2(a, n, |a, n| {
            let n = n as i32;
            a * power(n >> 1) * power(n - (n >> 1))
        })
    }

    #[inline(always)]
    fn swap(self, a: [f32; 4], distance: usize) -> [f32; 4] {
        std::array::from_fn(|i| a[i ^ distance])
    }

    #[inline(always)]
    fn sum(self, a: [f32; 4]) -> f32 {
        (a[0] + a[2]) + (a[1] + a[3])
    }

    #[inline(always)]
    fn largest(self, a: [f32; 4]) -> f32 {
        (a[0].max(a[2])).max(a[1].max(a[3]))
    }

    #[inline(always)]
    fn split(self, a: [f32; 4]) -> [[f32; 4]; 2] {
        let mantissa = |a: f32| f32::from_bits(a.to_bits() & 0x007f_ffff | 0x3f80_0000);
        let exponent = |a: f32| (a.to_bits() >> 23) as f32 - 127.0;
        [a.map(mantissa), a.map(exponent)]
    }

    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> [f32; 4] {
        // SAFETY: the caller's promise.
        unsafe { p.cast::<[f32; 4]>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn load_first(self, p: *const f32, n: usize) -> [f32; 4] {
        // SAFETY: only the first `n` are read, which the caller promised.
        std::array::from_fn(|i| if i < n { unsafe { p.add(i).read_unaligned() } } else { 0.0 })
    }

    #[inline(always)]
    unsafe fn load_f16(self, p: *const u8) -> [f32; 4] {
        // SAFETY: the caller's promise.
        let values = unsafe { p.cast::<[[u8; 2]; 4]>().read_unaligned() };
        values.map(|v| f16::from_le_bytes(v).to_f32())
    }

    #[inline(always)]
    unsafe fn load_bf16(self, p: *const u8) -> [f32; 4] {
        // SAFETY: the caller's promise.
        let values = unsafe { p.cast::<[[u8; 2]; 4]>().read_unaligned() };
        values.map(|v| bf16::from_le_bytes(v).to_f32())
    }

    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: [f32; 4]) {
        // SAFETY: the caller's promise.
        unsafe { p.cast::<[f32; 4]>().write_unaligned(v) }
    }

    #[inline(always)]
    unsafe fn stream(self, p: *mut f32, v: [f32; 4]) {
        // SAFETY: the caller's promise.
        unsafe { self.store(p, v) }
    }

    #[inline(always)]
    fn fence(self) {}

    #[inline(always)]
    unsafe fn store_first(self, p: *mut f32, v: [f32; 4], n: usize) {
        for (i, v) in v.into_iter().enumerate().take(n) {
            // SAFETY: only the first `n` are written, which the caller promised.
            unsafe { p.add(i).write_unaligned(v) }
        }
    }

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
        // SAFETY: the caller's promise, as `block_row` and `store` need it.
        unsafe {
            let x: [[f32; 4]; 4] = std::array::from_fn(|r| block_row(self, src, src_stride, r, rows, cols));
            for c in 0..cols {
                self.store(dst.add(c * dst_stride), x.map(|row| row[c]));
            }
        }
    }
}
