//! The CUDA backend: whole forwards on an NVIDIA GPU, each one CUDA graph, with kernels compiled for the card that is there.
//!
//! [`Cuda`] implements [`mlxt_backend::Backend`] through [`mlxt_lazy::Lazy`], which collects operations; this crate makes
//! programs of them. The program that links it needs no CUDA to be built or started: driver, NVRTC and cuBLASLt are
//! looked for when a [`CudaDevice`] is opened, and what is missing is an error that says what to do. Nothing falls back
//! to the CPU.
//!
//! Activations, tables and weights are kept in the type of the [`Arithmetic`]; with weights of 8 bits, products multiply rows
//! rounded to 8 bits too (`operand.rs`).
//!
//! Where next: `device.rs` for what is offered, `jobs.rs` for how a plan's steps become kernels, `program.rs` and
//! `record.rs` for how those become a graph, `results.rs` for what becomes of its results, `gemm/` for which kernel
//! multiplies, `kernels/` for the kernels, `ffi/` for all that is unsafe;
//! docs/performance/cuda.md says how fast it is and how that was found.

mod ahead;
mod attention;
mod cache;
mod device;
mod ffi;
mod gemm;
mod inputs;
mod jobs;
pub mod kernels;
mod layout;
mod norm;
mod operand;
mod operands;
mod operations;
mod program;
mod record;
mod results;
mod room;
mod sources;
mod together;
mod weights;

use std::path::PathBuf;

pub use device::CudaDevice;
use mlxt_backend::Arithmetic;
pub use operations::Array;
pub use program::Program;
pub use results::Buffer;
pub use weights::{Matrix, Norm, Relative, Table};

/// A GPU, as a backend.
pub type Cuda = mlxt_lazy::Lazy<CudaDevice>;

/// How to use a GPU.
#[derive(Debug, Clone, Default)]
pub struct CudaOptions {
    /// Which GPU, as the driver counts them.
    pub ordinal: usize,
    /// In which numbers it computes.
    pub arithmetic: Arithmetic,
    /// The kernel that multiplies wherever it can, by the beginning of its name, and any other where it cannot, instead of the
    /// fastest: for checks, which would miss those that happen to be slower on their sizes. [`CudaDevice::PRODUCTS`],
    /// [`CudaDevice::PRODUCTS_F32`] and [`CudaDevice::PRODUCTS_TF32`] have the names.
    pub product: Option<String>,
    /// Try anew which kernels are the fastest for a size, though a run before has left that in the cache.
    pub choose_again: bool,
    /// Where compiled kernels are kept, and which of them are the fastest; in the user's folder for caches by default.
    pub cache: Option<PathBuf>,
}
