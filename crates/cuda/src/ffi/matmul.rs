//! cuBLASLt's products of matrices that lie as they came, one or many: `a b + bias`, in f32, the fastest of its algorithms
//! found by trying.

use std::sync::Arc;

use cudarc::cublaslt::sys::{
    cublasComputeType_t, cublasLtEpilogue_t, cublasLtMatmulAlgo_t, cublasLtMatmulDescAttributes_t, cudaDataType_t,
};
use mlxt_backend::Result;

use super::blas::Blas;
use super::context::{Event, Queue};
use super::multiplication::{Layout, Multiplication};

/// Algorithms that are tried.
const TRIED: usize = 24;
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
    multiplication: Multiplication,
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
            Layout::new(cudaDataType_t::CUDA_R_32F, (rows, cols), pitch)?.repeated(sizes.batch, next)
        };
        // To the library all three are turned, and so is the order of the factors.
        let layouts = [
            layout(sizes.cols, sizes.inner, sizes.cols, sizes.b_next)?,
            layout(sizes.inner, sizes.rows, sizes.a_row, sizes.a_next)?,
            layout(sizes.cols, sizes.rows, sizes.cols, sizes.rows * sizes.cols)?,
        ];
        let multiplication = Multiplication::new(blas, cublasComputeType_t::CUBLAS_COMPUTE_32F, layouts)?;
        if sizes.bias {
            let epilogue = cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS;
            multiplication.set(cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue)?;
        }
        let mut product = Self { multiplication, bias: sizes.bias, algorithm: None };
        product.set_bias(places)?;
        let (start, end) = (Event::new(&blas.context)?, Event::new(&blas.context)?);
        let mut fastest = f32::INFINITY;
        // What the library refuses to look at it has no algorithm for.
        for candidate in product.multiplication.algorithms(TRIED).unwrap_or_default() {
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
        self.set_bias(places)?;
        match &self.algorithm {
            // SAFETY: the caller's promise.
            Some(algorithm) => unsafe { self.start(algorithm, places) },
            None => Err(super::failure("cuBLASLt has no algorithm for this product".to_owned())),
        }
    }

    fn set_bias(&self, places: Places) -> Result<()> {
        if !self.bias {
            return Ok(());
        }
        self.multiplication.set(cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_BIAS_POINTER, &places.bias)
    }

    /// # Safety
    /// As for [`MatMul::run`].
    unsafe fn start(&self, algorithm: &cublasLtMatmulAlgo_t, places: Places) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe { self.multiplication.start(Queue::Work, algorithm, [places.b, places.a, places.out]) }
    }
}
