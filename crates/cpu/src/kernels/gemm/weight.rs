//! What a packed weight is kept as: an f32, or half of one, which becomes an f32 on its way into a register.
//!
//! Half the bytes are half the time wherever memory is the limit: at few rows. Sums and activations are always f32.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use crate::simd::Simd;

/// A number that weights are kept as.
pub(crate) trait Weight: Copy {
    /// A vector of them from `p` on, of any alignment.
    ///
    /// # Safety
    /// `LANES` of them can be read.
    unsafe fn load<S: Simd>(s: S, p: *const Self) -> S::V;

    /// `values`, each rounded to the nearest (of two equally near ones the even one). Whether all of them stayed finite
    /// that this type may make infinite.
    fn round(values: &[f32], out: &mut [Self]) -> bool;
}

impl Weight for f32 {
    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, p: *const Self) -> S::V {
        // SAFETY: the caller's promise.
        unsafe { s.load(p) }
    }

    fn round(values: &[f32], out: &mut [Self]) -> bool {
        out.copy_from_slice(values);
        true
    }
}

impl Weight for bf16 {
    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, p: *const Self) -> S::V {
        // SAFETY: the caller's promise.
        unsafe { s.load_bf16(p.cast()) }
    }

    fn round(values: &[f32], out: &mut [Self]) -> bool {
        out.convert_from_f32_slice(values);
        !out.iter().any(|v| v.is_infinite())
    }
}

impl Weight for f16 {
    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, p: *const Self) -> S::V {
        // SAFETY: the caller's promise.
        unsafe { s.load_f16(p.cast()) }
    }

    fn round(values: &[f32], out: &mut [Self]) -> bool {
        out.convert_from_f32_slice(values);
        !out.iter().any(|v| v.is_infinite())
    }
}

/// How a matrix keeps its weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kept {
    F32,
    Bf16,
    F16,
}

impl Kept {
    /// Bytes of a weight.
    pub(crate) fn size(self) -> usize {
        match self {
            Self::F32 => size_of::<f32>(),
            Self::Bf16 | Self::F16 => size_of::<u16>(),
        }
    }
}
