//! cuBLASLt: products with a bias, by algorithms that the caller chooses from.

use std::ffi::c_void;
use std::ptr::{from_ref, null};
use std::sync::Arc;

use cudarc::cublaslt::result::{self, CublasError};
use cudarc::cublaslt::sys::{
    self, cublasComputeType_t, cublasLtEpilogue_t, cublasLtMatmulDescAttributes_t, cublasLtMatmulHeuristicResult_t,
    cublasLtMatmulPreferenceAttributes_t, cudaDataType_t,
};
use mlxt_backend::{Arithmetic, Result};

use super::context::{Context, Queue};
use super::memory::Memory;
use super::{failure, libraries};

/// What cuBLASLt may use beside its operands.
const WORKSPACE: usize = 32 << 20;

/// `CUBLAS_OP_T`, which belongs to another library of the family.
const TRANSPOSED: i32 = 1;

/// A handle of the library with its workspace.
#[derive(Debug)]
pub(crate) struct Blas {
    pub(super) context: Arc<Context>,
    pub(super) handle: sys::cublasLtHandle_t,
    pub(super) workspace: Memory,
}

// SAFETY: the library's handle may be used from several threads at once.
unsafe impl Send for Blas {}
// SAFETY: as above.
unsafe impl Sync for Blas {}

/// `x wᵀ + bias` of fixed sizes: `x [rows, inputs]`, `w [outputs, inputs]`.
#[derive(Debug)]
pub(crate) struct Product {
    blas: Arc<Blas>,
    description: sys::cublasLtMatmulDesc_t,
    x: sys::cublasLtMatrixLayout_t,
    w: sys::cublasLtMatrixLayout_t,
    out: sys::cublasLtMatrixLayout_t,
    algorithms: Vec<cublasLtMatmulHeuristicResult_t>,
}

// SAFETY: the descriptions are only changed by `run`, whose callers hold the stream.
unsafe impl Send for Product {}
// SAFETY: as above.
unsafe impl Sync for Product {}

/// Where a product's operands are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Places {
    pub(crate) x: u64,
    pub(crate) w: u64,
    pub(crate) bias: u64,
    pub(crate) out: u64,
}

pub(super) fn said(error: CublasError) -> mlxt_backend::Error {
    failure(format!("cuBLASLt: {:?}", error.0))
}

impl Blas {
    /// Opens the library.
    ///
    /// # Errors
    /// It is not there; out of memory.
    pub(crate) fn new(context: &Arc<Context>) -> Result<Arc<Self>> {
        libraries::cublaslt()?;
        let workspace = Memory::new(context, WORKSPACE)?;
        let handle = result::create_handle().map_err(said)?;
        Ok(Arc::new(Self { context: Arc::clone(context), handle, workspace }))
    }

    /// The library's version, once it is open.
    pub(crate) fn version() -> usize {
        // SAFETY: the library is loaded where there is a device; it takes nothing.
        unsafe { sys::cublasLtGetVersion() }
    }

    /// A product and up to `wanted` algorithms for it, the likely fastest first; there may be none.
    ///
    /// # Errors
    /// The library's own.
    pub(crate) fn product(
        self: &Arc<Self>,
        arithmetic: Arithmetic,
        (rows, outputs, inputs): (usize, usize, usize),
        wanted: usize,
    ) -> Result<Product> {
        let (element, compute) = match arithmetic {
            Arithmetic::F32 => (cudaDataType_t::CUDA_R_32F, cublasComputeType_t::CUBLAS_COMPUTE_32F),
            Arithmetic::Tf32 => (cudaDataType_t::CUDA_R_32F, cublasComputeType_t::CUBLAS_COMPUTE_32F_FAST_TF32),
            Arithmetic::F16 => (cudaDataType_t::CUDA_R_16F, cublasComputeType_t::CUBLAS_COMPUTE_32F),
            Arithmetic::Bf16 => (cudaDataType_t::CUDA_R_16BF, cublasComputeType_t::CUBLAS_COMPUTE_32F),
        };
        let layout = |rows: usize, cols: usize| {
            result::create_matrix_layout(element, rows as u64, cols as u64, rows as i64).map_err(said)
        };
        // The library's matrices are stored by columns: to it, x is [inputs, rows], w is [inputs, outputs] and has to
        // be turned, the result is [outputs, rows].
        let description = result::create_matmul_desc(compute, cudaDataType_t::CUDA_R_32F).map_err(said)?;
        let mut product = Product {
            blas: Arc::clone(self),
            description,
            x: layout(inputs, rows)?,
            w: layout(inputs, outputs)?,
            out: layout(outputs, rows)?,
            algorithms: Vec::new(),
        };
        product.set(cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_TRANSA, &TRANSPOSED)?;
        let epilogue = cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS;
        product.set(cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue)?;
        product.set(cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, &element)?;
        product.algorithms = product.find(wanted)?;
        Ok(product)
    }
}

impl Drop for Blas {
    fn drop(&mut self) {
        if self.context.bind().is_ok() {
            // SAFETY: created in `new`, destroyed once.
            let _ = unsafe { result::destroy_handle(self.handle) };
        }
    }
}

impl Product {
    fn set<V>(&self, attribute: cublasLtMatmulDescAttributes_t, value: &V) -> Result<()> {
        let value: *const c_void = from_ref(value).cast();
        // SAFETY: the description is alive and copies the value, whose size is given.
        unsafe { result::set_matmul_desc_attribute(self.description, attribute, value, size_of::<V>()) }.map_err(said)
    }

    fn find(&self, wanted: usize) -> Result<Vec<cublasLtMatmulHeuristicResult_t>> {
        let preference = result::create_matmul_pref().map_err(said)?;
        let workspace = cublasLtMatmulPreferenceAttributes_t::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES;
        let bytes = self.blas.workspace.bytes();
        let mut found = 0;
        // SAFETY: a heuristic's result is plain numbers, for which zeros are as good as any.
        let empty: cublasLtMatmulHeuristicResult_t = unsafe { std::mem::zeroed() };
        let mut results = vec![empty; wanted];
        // SAFETY: all descriptions are alive; there is room for `wanted` results.
        unsafe {
            let told = result::set_matmul_pref_attribute(preference, workspace, (&raw const bytes).cast(), 8);
            let asked = sys::cublasLtMatmulAlgoGetHeuristic(
                self.blas.handle,
                self.description,
                self.w,
                self.x,
                self.out,
                self.out,
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
        results.truncate(found as usize);
        results.retain(|r| r.state == sys::cublasStatus_t::CUBLAS_STATUS_SUCCESS && r.workspaceSize <= bytes);
        Ok(results)
    }

    /// How many algorithms there are.
    pub(crate) fn algorithms(&self) -> usize {
        self.algorithms.len()
    }

    /// Starts the product by one of its algorithms.
    ///
    /// # Errors
    /// The library's own.
    ///
    /// # Safety
    /// Every place has the memory its part of the product takes.
    pub(crate) unsafe fn run(&self, queue: Queue, algorithm: usize, places: Places) -> Result<()> {
        let Some(chosen) = self.algorithms.get(algorithm) else {
            return Err(failure(format!("cuBLASLt has no algorithm {algorithm} for this product")));
        };
        self.set(cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_BIAS_POINTER, &places.bias)?;
        let (one, zero) = (1.0_f32, 0.0_f32);
        // SAFETY: descriptions and workspace are alive; the rest is the caller's promise.
        unsafe {
            result::matmul(
                self.blas.handle,
                self.description,
                (&raw const one).cast(),
                (&raw const zero).cast(),
                places.w as *const c_void,
                self.w,
                places.x as *const c_void,
                self.x,
                if places.out == 0 { null() } else { places.out as *const c_void },
                self.out,
                places.out as *mut c_void,
                self.out,
                &raw const chosen.algo,
                self.blas.workspace.address() as *mut c_void,
                self.blas.workspace.bytes(),
                self.blas.context.stream(queue).cast(),
            )
        }
        .map_err(said)
    }
}

impl Drop for Product {
    fn drop(&mut self) {
        // SAFETY: created in `Blas::product`, destroyed once.
        unsafe {
            for layout in [self.x, self.w, self.out] {
                let _ = result::destroy_matrix_layout(layout);
            }
            let _ = result::destroy_matmul_desc(self.description);
        }
    }
}
