//! cuBLASLt: products with a bias, by algorithms that the caller chooses from.

use std::sync::Arc;

use cudarc::cublaslt::result::{self, CublasError};
use cudarc::cublaslt::sys::{
    self, cublasComputeType_t, cublasLtEpilogue_t, cublasLtMatmulAlgo_t, cublasLtMatmulDescAttributes_t, cudaDataType_t,
};
use mlxt_backend::{Arithmetic, Result};

use super::context::{Context, Queue};
use super::memory::Memory;
use super::multiplication::{Layout, Multiplication};
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
    multiplication: Multiplication,
    algorithms: Vec<cublasLtMatmulAlgo_t>,
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
        let layout = |rows: usize, cols: usize| Layout::new(element, (rows, cols), rows);
        // To the library w is [inputs, outputs] and has to be turned, x is [inputs, rows], the result [outputs, rows].
        let layouts = [layout(inputs, outputs)?, layout(inputs, rows)?, layout(outputs, rows)?];
        let multiplication = Multiplication::new(self, compute, layouts)?;
        multiplication.set(cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_TRANSA, &TRANSPOSED)?;
        let epilogue = cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS;
        multiplication.set(cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue)?;
        multiplication.set(cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, &element)?;
        let algorithms = multiplication.algorithms(wanted)?;
        Ok(Product { multiplication, algorithms })
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
        let Some(algorithm) = self.algorithms.get(algorithm) else {
            return Err(failure(format!("cuBLASLt has no algorithm {algorithm} for this product")));
        };
        self.multiplication.set(cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_BIAS_POINTER, &places.bias)?;
        // SAFETY: the caller's promise.
        unsafe { self.multiplication.start(queue, algorithm, [places.w, places.x, places.out]) }
    }
}
