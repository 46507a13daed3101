//! cuBLASLt's products of matrices that lie as they came, one or many: `a b + bias`, in f32, the fastest of its algorithms
//! found by trying.

use std::ffi::c_void;
use std::ptr::from_ref;
use std::sync::Arc;

use cudarc::cublaslt::result;
use cudarc::cublaslt::sys::{
    self, cublasComputeType_t, cublasLtEpilogue_t, cublasLtMatmulAlgo_t, cublasLtMatmulDescAttributes_t,
    cublasLtMatmulHeuristicResult_t, cublasLtMatmulPreferenceAttributes_t, cublasLtMatrixLayoutAttribute_t,
    cudaDataType_t,
};
use mlxt_backend::Result;

use super::blas::{Blas, said};
use super::context::{Event, Queue};

/// Algorithms that are tried.
const TRIED: usize = 8;
/// Runs by which they are compared, after one that is not counted.
const RUNS: usize = 3;

/// The sizes of `batch` products `[rows, inner] [inner, cols]`, in values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Sizes {
    pub(crate) batch: usize,
    pub(crate) rows: usize,
    pub(crate) inner: usize,
    pub(crate) cols: usize,
    /// From one row of `a` to the next.
    pub(crate) a_row: usize,
    /// From one `a` to the next.
    pub(crate) a_next: usize,
    /// From one `b` to the next.
    pub(crate) b_next: usize,
    /// Whether there is a bias.
    pub(crate) bias: bool,
}

/// Where a product's operands are. The bias is not looked at where there is none.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Places {
    pub(crate) a: u64,
    pub(crate) b: u64,
    pub(crate) bias: u64,
    pub(crate) out: u64,
}

/// A product of fixed sizes, by the algorithm that was fastest.
#[derive(Debug)]
pub(crate) struct MatMul {
    blas: Arc<Blas>,
    description: sys::cublasLtMatmulDesc_t,
    a: sys::cublasLtMatrixLayout_t,
    b: sys::cublasLtMatrixLayout_t,
    out: sys::cublasLtMatrixLayout_t,
    bias: bool,
    algorithm: Option<cublasLtMatmulAlgo_t>,
}

// SAFETY: handles of the library may be used from any thread; changes need `&mut`.
unsafe impl Send for MatMul {}

impl MatMul {
    /// A product, and which algorithm computes it fastest at these places. There may be none: [`MatMul::is_possible`].
    ///
    /// # Errors
    /// The library's own.
    ///
    /// # Safety
    /// As for [`MatMul::run`].
    pub(crate) unsafe fn new(blas: &Arc<Blas>, sizes: Sizes, places: Places) -> Result<Self> {
        let layout = |rows: usize, cols: usize, pitch: usize, next: usize| {
            let element = cudaDataType_t::CUDA_R_32F;
            let layout = result::create_matrix_layout(element, rows as u64, cols as u64, pitch as i64).map_err(said)?;
            let (count, next) = (sizes.batch as i32, next as i64);
            let set = |attribute, value: *const c_void, bytes| {
                // SAFETY: the layout is alive and copies the value, whose size is given.
                unsafe { result::set_matrix_layout_attribute(layout, attribute, value, bytes) }.map_err(said)
            };
            let attribute = cublasLtMatrixLayoutAttribute_t::CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT;
            set(attribute, from_ref(&count).cast(), size_of_val(&count))?;
            let attribute = cublasLtMatrixLayoutAttribute_t::CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET;
            set(attribute, from_ref(&next).cast(), size_of_val(&next))?;
            Ok(layout)
        };
        let compute = cublasComputeType_t::CUBLAS_COMPUTE_32F;
        let description = result::create_matmul_desc(compute, cudaDataType_t::CUDA_R_32F).map_err(said)?;
        // The library's matrices are stored by columns: to it all three are turned, and so is the order of the factors.
        let mut product = Self {
            blas: Arc::clone(blas),
            description,
            a: layout(sizes.inner, sizes.rows, sizes.a_row, sizes.a_next)?,
            b: layout(sizes.cols, sizes.inner, sizes.cols, sizes.b_next)?,
            out: layout(sizes.cols, sizes.rows, sizes.cols, sizes.rows * sizes.cols)?,
            bias: sizes.bias,
            algorithm: None,
        };
        if sizes.bias {
            let epilogue = cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS;
            product.set(cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue)?;
            product.set(cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_BIAS_POINTER, &places.bias)?;
        }
        let (start, end) = (Event::new(&blas.context)?, Event::new(&blas.context)?);
        let mut fastest = f32::INFINITY;
        for candidate in product.candidates()? {
            let attempt = || -> Result<f32> {
                // SAFETY: the caller's promise.
                unsafe { product.start(&candidate, places) }?;
                start.record()?;
                for _ in 0..RUNS {
                    // SAFETY: the caller's promise.
                    unsafe { product.start(&candidate, places) }?;
                }
                end.record()?;
                end.since(&start)
            };
            // One that cannot run is one fewer to choose from.
            if let Ok(time) = attempt()
                && time < fastest
            {
                fastest = time;
                product.algorithm = Some(candidate);
            }
        }
        Ok(product)
    }

    /// Whether the library has an algorithm for it.
    pub(crate) fn is_possible(&self) -> bool {
        self.algorithm.is_some()
    }

    /// Starts the product.
    ///
    /// # Errors
    /// The library's own.
    ///
    /// # Safety
    /// Every place has the memory its part of the product takes.
    pub(crate) unsafe fn run(&mut self, places: Places) -> Result<()> {
        if self.bias {
            self.set(cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_BIAS_POINTER, &places.bias)?;
        }
        match &self.algorithm {
            // SAFETY: the caller's promise.
            Some(algorithm) => unsafe { self.start(algorithm, places) },
            None => Err(super::failure("cuBLASLt has no algorithm for this product".to_owned())),
        }
    }

    fn set<V>(&self, attribute: cublasLtMatmulDescAttributes_t, value: &V) -> Result<()> {
        // SAFETY: the description is alive and copies the value, whose size is given.
        unsafe {
            result::set_matmul_desc_attribute(self.description, attribute, from_ref(value).cast(), size_of::<V>())
        }
        .map_err(said)
    }

    fn candidates(&self) -> Result<Vec<cublasLtMatmulAlgo_t>> {
        let preference = result::create_matmul_pref().map_err(said)?;
        let workspace = cublasLtMatmulPreferenceAttributes_t::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES;
        let bytes = self.blas.workspace.bytes();
        let mut found = 0;
        // SAFETY: a heuristic's result is plain numbers, for which zeros are as good as any.
        let empty: cublasLtMatmulHeuristicResult_t = unsafe { std::mem::zeroed() };
        let mut results = [empty; TRIED];
        // SAFETY: all descriptions are alive; there is room for as many results as are asked for.
        let asked = unsafe {
            let told = result::set_matmul_pref_attribute(preference, workspace, from_ref(&bytes).cast(), 8);
            let asked = sys::cublasLtMatmulAlgoGetHeuristic(
                self.blas.handle,
                self.description,
                self.b,
                self.a,
                self.out,
                self.out,
                preference,
                TRIED as i32,
                results.as_mut_ptr(),
                &raw mut found,
            );
            let _ = result::destroy_matmul_pref(preference);
            told.map_err(said)?;
            asked
        };
        // It says so where it has none.
        if asked != sys::cublasStatus_t::CUBLAS_STATUS_SUCCESS {
            found = 0;
        }
        let usable = results
            .iter()
            .take(found as usize)
            .filter(|r| r.state == sys::cublasStatus_t::CUBLAS_STATUS_SUCCESS && r.workspaceSize <= bytes);
        Ok(usable.map(|r| r.algo).collect())
    }

    /// # Safety
    /// As for [`MatMul::run`].
    unsafe fn start(&self, algorithm: &cublasLtMatmulAlgo_t, places: Places) -> Result<()> {
        let (one, zero) = (1.0_f32, 0.0_f32);
        // SAFETY: descriptions and workspace are alive; the rest is the caller's promise.
        unsafe {
            result::matmul(
                self.blas.handle,
                self.description,
                from_ref(&one).cast(),
                from_ref(&zero).cast(),
                places.b as *const c_void,
                self.b,
                places.a as *const c_void,
                self.a,
                places.out as *const c_void,
                self.out,
                places.out as *mut c_void,
                self.out,
                algorithm,
                self.blas.workspace.address() as *mut c_void,
                self.blas.workspace.bytes(),
                self.blas.context.stream(Queue::Work).cast(),
            )
        }
        .map_err(said)
    }
}

impl Drop for MatMul {
    fn drop(&mut self) {
        // SAFETY: created in `new`, destroyed once.
        unsafe {
            for layout in [self.a, self.b, self.out] {
                let _ = result::destroy_matrix_layout(layout);
            }
            let _ = result::destroy_matmul_desc(self.description);
        }
    }
}
