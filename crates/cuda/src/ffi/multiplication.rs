//! A multiplication as cuBLASLt is told of it: what its three matrices are, and what happens to the sums. Its own algorithms for
//! it, and how one is started.
//!
//! The library's matrices are stored by columns: a matrix of ours is turned to it.

use std::ffi::c_void;
use std::ptr::from_ref;
use std::sync::Arc;

use cudarc::cublaslt::result;
use cudarc::cublaslt::sys::{
    self, cublasComputeType_t, cublasLtMatmulAlgo_t, cublasLtMatmulDescAttributes_t, cublasLtMatmulHeuristicResult_t,
    cublasLtMatmulPreferenceAttributes_t, cublasLtMatrixLayoutAttribute_t, cudaDataType_t,
};
use mlxt_backend::Result;

use super::blas::{Blas, said};
use super::context::Queue;

/// Where matrices lie: of each many in a row, or one.
#[derive(Debug)]
pub(super) struct Layout(sys::cublasLtMatrixLayout_t);

impl Layout {
    /// A matrix of so many rows and columns as the library sees it; `pitch` values from one column to the next.
    pub(super) fn new(element: cudaDataType_t, (rows, cols): (usize, usize), pitch: usize) -> Result<Self> {
        result::create_matrix_layout(element, rows as u64, cols as u64, pitch as i64).map(Self).map_err(said)
    }

    /// So many of them, `next` values apart.
    pub(super) fn repeated(self, count: usize, next: usize) -> Result<Self> {
        self.set(cublasLtMatrixLayoutAttribute_t::CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &(count as i32))?;
        self.set(cublasLtMatrixLayoutAttribute_t::CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &(next as i64))?;
        Ok(self)
    }

    fn set<V>(&self, attribute: cublasLtMatrixLayoutAttribute_t, value: &V) -> Result<()> {
        let value: *const c_void = from_ref(value).cast();
        // SAFETY: the layout is alive and copies the value, whose size is given.
        unsafe { result::set_matrix_layout_attribute(self.0, attribute, value, size_of::<V>()) }.map_err(said)
    }
}

impl Drop for Layout {
    fn drop(&mut self) {
        // SAFETY: created in `new`, destroyed once.
        let _ = unsafe { result::destroy_matrix_layout(self.0) };
    }
}

/// What is to be done with numbers of a type, in f32 sums.
#[derive(Debug)]
struct Description(sys::cublasLtMatmulDesc_t);

impl Drop for Description {
    fn drop(&mut self) {
        // SAFETY: created in `Multiplication::new`, destroyed once.
        let _ = unsafe { result::destroy_matmul_desc(self.0) };
    }
}

/// `out = left right`, as the library sees them.
#[derive(Debug)]
pub(super) struct Multiplication {
    blas: Arc<Blas>,
    description: Description,
    /// Left, right, out.
    layouts: [Layout; 3],
}

impl Multiplication {
    pub(super) fn new(blas: &Arc<Blas>, compute: cublasComputeType_t, layouts: [Layout; 3]) -> Result<Self> {
        let description = result::create_matmul_desc(compute, cudaDataType_t::CUDA_R_32F).map_err(said)?;
        Ok(Self { blas: Arc::clone(blas), description: Description(description), layouts })
    }

    /// Tells more of what is to be done.
    pub(super) fn set<V>(&self, attribute: cublasLtMatmulDescAttributes_t, value: &V) -> Result<()> {
        let value: *const c_void = from_ref(value).cast();
        // SAFETY: the description is alive and copies the value, whose size is given.
        unsafe { result::set_matmul_desc_attribute(self.description.0, attribute, value, size_of::<V>()) }.map_err(said)
    }

    /// Up to `wanted` algorithms, the likely fastest first; there may be none.
    pub(super) fn algorithms(&self, wanted: usize) -> Result<Vec<cublasLtMatmulAlgo_t>> {
        let preference = result::create_matmul_pref().map_err(said)?;
        let workspace = cublasLtMatmulPreferenceAttributes_t::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES;
        let bytes = self.blas.workspace.bytes();
        let [left, right, out] = self.layouts.each_ref().map(|layout| layout.0);
        let mut found = 0;
        // SAFETY: a heuristic's result is plain numbers, for which zeros are as good as any.
        let empty: cublasLtMatmulHeuristicResult_t = unsafe { std::mem::zeroed() };
        let mut results = vec![empty; wanted];
        // SAFETY: all descriptions are alive; there is room for `wanted` results.
        unsafe {
            let told =
                result::set_matmul_pref_attribute(preference, workspace, from_ref(&bytes).cast(), size_of_val(&bytes));
            let asked = sys::cublasLtMatmulAlgoGetHeuristic(
                self.blas.handle,
                self.description.0,
                left,
                right,
                out,
                out,
                preference,
                wanted as i32,
                results.as_mut_ptr(),
                &raw mut found,
            );
            let _ = result::destroy_matmul_pref(preference);
            told.map_err(said)?;
            // It says so where it has none.
            if asked == sys::cublasStatus_t::CUBLAS_STATUS_NOT_SUPPORTED {
                found = 0;
            } else {
                asked.result().map_err(said)?;
            }
        }
        let usable = |r: &&cublasLtMatmulHeuristicResult_t| {
            r.state == sys::cublasStatus_t::CUBLAS_STATUS_SUCCESS && r.workspaceSize <= bytes
        };
        Ok(results.iter().take(found as usize).filter(usable).map(|r| r.algo).collect())
    }

    /// Starts it by an algorithm, on matrices at these addresses: left, right, out.
    ///
    /// # Safety
    /// At each there is the memory its layout says.
    pub(super) unsafe fn start(&self, queue: Queue, algorithm: &cublasLtMatmulAlgo_t, at: [u64; 3]) -> Result<()> {
        let (one, zero) = (1.0_f32, 0.0_f32);
        let [left, right, out] = self.layouts.each_ref().map(|layout| layout.0);
        let Blas { context, handle, workspace } = &*self.blas;
        // SAFETY: descriptions and workspace are alive; the rest is the caller's promise.
        unsafe {
            result::matmul(
                *handle,
                self.description.0,
                from_ref(&one).cast(),
                from_ref(&zero).cast(),
                at[0] as *const c_void,
                left,
                at[1] as *const c_void,
                right,
                at[2] as *const c_void,
                out,
                at[2] as *mut c_void,
                out,
                algorithm,
                workspace.address() as *mut c_void,
                workspace.bytes(),
                context.stream(queue).cast(),
            )
        }
        .map_err(said)
    }
}
