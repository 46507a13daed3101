//! Vectors of f32: one trait, and a token for each instruction set that exists only where the CPU has it.
//!
//! Kernels are written once, generic over [`Simd`], as values that implement [`Kernel`]. [`Token::run`] picks the token
//! and [`Simd::vectorize`] compiles the kernel with that instruction set switched on, so that everything marked
//! `#[inline(always)]` below it becomes straight vector code.
//!
//! There are no shuffles here beyond what the kernels need; vectors of integers are in `dot/`. Each instruction set has
//! its own file; `scalar.rs` is the plain one, and shows what every operation means.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub(crate) mod dot;
#[cfg(target_arch = "aarch64")]
mod neon;
mod pairs;
mod scalar;

use std::fmt;

pub(crate) use pairs::PairToken;

/// Most lanes any instruction set here has.
pub(crate) const MAX_LANES: usize = 16;

/// An instruction set the kernels are compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Isa {
    /// x86-64 with 512-bit vectors (AVX-512 F).
    Avx512,
    /// x86-64 with 256-bit vectors, fused multiply-add and half conversion.
    Avx2,
    /// 64-bit Arm.
    Neon,
    /// Plain Rust, on any CPU.
    Scalar,
}

impl Isa {
    /// Every instruction set, the fastest first.
    pub const ALL: [Self; 4] = [Self::Avx512, Self::Avx2, Self::Neon, Self::Scalar];

    /// The instruction sets this CPU has, the fastest first. Never empty.
    pub fn available() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|isa| isa.token().is_some())
    }

    /// The fastest one this CPU has.
    #[must_use]
    pub fn best() -> Self {
        Self::available().next().unwrap_or(Self::Scalar)
    }

    /// Its name, as its makers write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Avx512 => "AVX-512",
            Self::Avx2 => "AVX2",
            Self::Neon => "NEON",
            Self::Scalar => "scalar",
        }
    }

    /// Proof that this CPU has it.
    pub(crate) fn token(self) -> Option<Token> {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => avx512::Avx512::detect().map(Token::Avx512),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => avx2::Avx2::detect().map(Token::Avx2),
            #[cfg(target_arch = "aarch64")]
            Self::Neon => neon::Neon::detect().map(Token::Neon),
            Self::Scalar => Some(Token::Scalar(scalar::Scalar)),
            #[allow(unreachable_patterns)] // the other architectures' sets
            _ => None,
        }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An instruction set that this CPU has.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Token {
    #[cfg(target_arch = "x86_64")]
    Avx512(avx512::Avx512),
    #[cfg(target_arch = "x86_64")]
    Avx2(avx2::Avx2),
    #[cfg(target_arch = "aarch64")]
    Neon(neon::Neon),
    Scalar(scalar::Scalar),
}

impl Token {
    /// Runs a kernel compiled for this instruction set.
    pub(crate) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(s) => s.vectorize(kernel),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(s) => s.vectorize(kernel),
            #[cfg(target_arch = "aarch64")]
            Self::Neon(s) => s.vectorize(kernel),
            Self::Scalar(s) => s.vectorize(kernel),
        }
    }
}

/// Work that can be compiled for any instruction set.
pub(crate) trait Kernel {
    /// What it gives back.
    type Output;

    /// The work. Implementations are `#[inline(always)]`, else they are compiled without the instruction set.
    fn run<S: Simd>(self, s: S) -> Self::Output;
}

/// Vector operations. A value of this type is the proof that the CPU has them.
///
/// Every operation is lane by lane, and rounds once; on one instruction set all are deterministic.
pub(crate) trait Simd: Copy + Send + Sync {
    /// f32 values in a vector.
    const LANES: usize;
    /// Rows of the largest product tile of two vectors whose sums stay in registers (`kernels/gemm/tile.rs`).
    const TILE_ROWS: usize;

    /// A vector.
    type V: Copy;
    /// A truth value per lane.
    type Mask: Copy;

    /// Compiles and runs `kernel` with this instruction set.
    fn vectorize<K: Kernel>(self, kernel: K) -> K::Output;

    /// `x` in every lane.
    fn splat(self, x: f32) -> Self::V;
    /// `a + b`
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a - b`
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a b`
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a / b`
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a b + c`, rounded once where the instruction set can.
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// `sums`, and for each lane the products of the two bfloat16 numbers that `a` and `b` hold there. How often that is
    /// rounded is the instruction set's affair.
    #[inline(always)]
    fn add_pairs(self, a: Self::V, b: Self::V, sums: Self::V) -> Self::V {
        pairs::add(self, a, b, sums)
    }
    /// In each lane the bfloat16 numbers nearest to `first`'s (in the lower half) and `second`'s, of two equally near ones the even
    /// one.
    #[inline(always)]
    fn pair(self, first: Self::V, second: Self::V) -> Self::V {
        pairs::pair(self, first, second)
    }
    /// The larger; NaN if `b` is NaN.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// The smaller; NaN if `b` is NaN.
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    /// `|a|`
    fn abs(self, a: Self::V) -> Self::V;
    /// `√a`
    fn sqrt(self, a: Self::V) -> Self::V;
    /// `a < b`, false for NaN.
    fn less(self, a: Self::V, b: Self::V) -> Self::Mask;
    /// `a` where `mask` is true, `b` elsewhere.
    fn select(self, mask: Self::Mask, a: Self::V, b: Self::V) -> Self::V;
    /// `a 2ⁿ` for whole numbers `n` in −252..=252; under- and overflow as for one rounded product.
    fn scale_by_power(self, a: Self::V, n: Self::V) -> Self::V;
    /// Lanes `i` and `i ^ distance` change places; `distance` is a power of two below `LANES`.
    fn swap(self, a: Self::V, distance: usize) -> Self::V;
    /// The sum of the lanes, in an order of its own.
    fn sum(self, a: Self::V) -> f32;
    /// The largest of the lanes.
    fn largest(self, a: Self::V) -> f32;
    /// `[m, e]` with `a = m 2ᵉ`, `1 <= m < 2`, for positive normal numbers; for 0, `e` is no more than −127 and `m` is
    /// a number.
    fn split(self, a: Self::V) -> [Self::V; 2];

    /// `LANES` values from `p` on, of any alignment.
    ///
    /// # Safety
    /// They can be read.
    unsafe fn load(self, p: *const f32) -> Self::V;
    /// `n` values from `p` on, `n < LANES`; zero in the other lanes.
    ///
    /// # Safety
    /// `n` values can be read.
    unsafe fn load_first(self, p: *const f32, n: usize) -> Self::V;
    /// `LANES` 16-bit IEEE floats from `p` on, of any alignment.
    ///
    /// # Safety
    /// `2 * LANES` bytes can be read.
    unsafe fn load_f16(self, p: *const u8) -> Self::V;
    /// `LANES` bfloat16 values from `p` on, of any alignment.
    ///
    /// # Safety
    /// `2 * LANES` bytes can be read.
    unsafe fn load_bf16(self, p: *const u8) -> Self::V;
    /// Writes `LANES` values from `p` on.
    ///
    /// # Safety
    /// They can be written.
    unsafe fn store(self, p: *mut f32, v: Self::V);
    /// Writes `LANES` values from `p` on, each rounded to the nearest bfloat16, of two equally near ones the even one.
    ///
    /// # Safety
    /// `2 * LANES` bytes can be written.
    #[inline(always)]
    unsafe fn store_bf16(self, p: *mut u8, v: Self::V) {
        // SAFETY: the caller's promise.
        unsafe { pairs::store(self, p, v) }
    }
    /// Writes `LANES` values from `p` on past the caches, where the instruction set can: for results so large that they
    /// would be gone from the caches before anyone reads them. [`Simd::fence`] has to follow.
    ///
    /// # Safety
    /// They can be written, and `p` is a multiple of their size in bytes.
    unsafe fn stream(self, p: *mut f32, v: Self::V);
    /// What was streamed is written before anything that follows.
    fn fence(self);
    /// Writes the first `n` values, `n < LANES`, and nothing behind them.
    ///
    /// # Safety
    /// `n` values can be written.
    unsafe fn store_first(self, p: *mut f32, v: Self::V, n: usize);
    /// Brings the line that holds `p` nearer. Any address is fine.
    fn prefetch(self, p: *const f32);

    /// Transposes a block of at most `LANES` by `LANES`: `dst[c * dst_stride + r] = src[r * src_stride + c]` for
    /// `r < rows`, `c < cols`. Whole vectors are written: what lies at `rows..LANES` of each row of `dst` is lost.
    /// The rows of `dst` are written in order, so with `dst_stride >= rows` each row's spill is put right by the next.
    ///
    /// # Safety
    /// `1 <= rows, cols <= LANES`; the values named can be read, and `cols` rows of `LANES` values written.
    unsafe fn transpose(
        self,
        src: *const f32,
        src_stride: usize,
        rows: usize,
        cols: usize,
        dst: *mut f32,
        dst_stride: usize,
    );

    /// The values of a slice of at most `LANES`, zero in the lanes behind them.
    #[inline(always)]
    fn get(self, values: &[f32]) -> Self::V {
        if values.len() >= Self::LANES {
            // SAFETY: the slice holds at least `LANES` values.
            unsafe { self.load(values.as_ptr()) }
        } else {
            // SAFETY: the slice holds as many values as are read.
            unsafe { self.load_first(values.as_ptr(), values.len()) }
        }
    }

    /// Fills a slice of at most `LANES` values.
    #[inline(always)]
    fn put(self, values: &mut [f32], v: Self::V) {
        if values.len() >= Self::LANES {
            // SAFETY: the slice holds at least `LANES` values.
            unsafe { self.store(values.as_mut_ptr(), v) }
        } else {
            // SAFETY: the slice holds as many values as are written.
            unsafe { self.store_first(values.as_mut_ptr(), v, values.len()) }
        }
    }
}

/// How a transposition reads row `r` of its block: whole, cut short, or a copy of the last row.
///
/// # Safety
/// As [`Simd::transpose`].
#[inline(always)]
unsafe fn block_row<S: Simd>(s: S, src: *const f32, stride: usize, r: usize, rows: usize, cols: usize) -> S::V {
    // SAFETY: rows behind the last read the last again, so that only the block itself is touched.
    unsafe {
        let p = src.add(r.min(rows - 1) * stride);
        if cols >= S::LANES { s.load(p) } else { s.load_first(p, cols) }
    }
}
