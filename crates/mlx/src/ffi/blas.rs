//! `cblas_sgemm` of the CPU backend's kernels: MLX's wheels for Linux carry the reference BLAS, 60 times slower.

use std::ffi::c_int;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use mlxt_backend::{Backend, DeviceInfo};
use mlxt_cpu::product::{Operand, Product};
use mlxt_cpu::{Cpu, CpuOptions};

/// `cblas_sgemm`
pub(super) type Sgemm = unsafe extern "C" fn(
    c_int,
    c_int,
    c_int,
    c_int,
    c_int,
    c_int,
    f32,
    *const f32,
    c_int,
    *const f32,
    c_int,
    f32,
    *mut f32,
    c_int,
);

/// `CblasRowMajor` and `CblasNoTrans`, of the reference implementation's cblas.h.
const ROW_MAJOR: c_int = 101;
const NOT_TRANSPOSED: c_int = 111;

static CALLS: AtomicU64 = AtomicU64::new(0);

/// How many products were computed here.
pub(crate) fn products() -> u64 {
    CALLS.load(Ordering::Relaxed)
}

/// The kernels; none where the system gives no threads.
fn cpu() -> Option<&'static Cpu> {
    static CPU: OnceLock<Option<Cpu>> = OnceLock::new();
    CPU.get_or_init(|| Cpu::new(CpuOptions::default()).ok()).as_ref()
}

/// `c = alpha a b + beta c`
///
/// # Safety
/// As `cblas_sgemm`: the arrays have the sizes that the numbers say.
pub(super) unsafe extern "C" fn sgemm(
    order: c_int,
    transpose_a: c_int,
    transpose_b: c_int,
    m: c_int,
    n: c_int,
    k: c_int,
    alpha: f32,
    a: *const f32,
    stride_a: c_int,
    b: *const f32,
    stride_b: c_int,
    beta: f32,
    c: *mut f32,
    stride_c: c_int,
) {
    if order != ROW_MAJOR {
        // Column by column everything is its own transpose: cᵀ = bᵀ aᵀ.
        let (ta, tb) = (transpose_a, transpose_b);
        // SAFETY: as the caller says.
        return unsafe { sgemm(ROW_MAJOR, tb, ta, n, m, k, alpha, b, stride_b, a, stride_a, beta, c, stride_c) };
    }
    CALLS.fetch_add(1, Ordering::Relaxed);
    let size = |n: c_int| usize::try_from(n).unwrap_or(0);
    let (rows, cols, inner) = (size(m), size(n), size(k));
    if rows == 0 || cols == 0 {
        return;
    }
    let operand = |data: *const f32, stride: c_int, transpose: c_int, (rows, cols): (usize, usize)| {
        let transposed = transpose != NOT_TRANSPOSED;
        let (lines, length) = if transposed { (cols, rows) } else { (rows, cols) };
        let count = if inner == 0 { 0 } else { (lines - 1) * size(stride) + length };
        // SAFETY: as the caller says; of an operand without values nothing is read.
        let values = if count == 0 { &[] } else { unsafe { std::slice::from_raw_parts(data, count) } };
        Operand { values, stride: size(stride), transposed }
    };
    let left = operand(a, stride_a, transpose_a, (rows, inner));
    let right = operand(b, stride_b, transpose_b, (inner, cols));
    // SAFETY: as the caller says.
    let c = unsafe { std::slice::from_raw_parts_mut(c, (rows - 1) * size(stride_c) + cols) };
    let product = Product { rows, cols, inner, alpha, left, right, beta };
    let done = cpu().map(|cpu| cpu.product(&product, c, size(stride_c)));
    if !matches!(done, Some(Ok(()))) {
        // There is nobody to tell: what is no number cannot be taken for a result.
        c.fill(f32::NAN);
    }
}

/// The CPU's name and how its kernels use it.
pub(crate) fn cpu_info() -> Option<DeviceInfo> {
    cpu().map(Backend::info)
}
