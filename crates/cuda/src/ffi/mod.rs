//! Everything that calls CUDA: the only unsafe code of this crate. Values here own what they stand for and give it back.
//!
//! `libraries.rs` finds what is loaded, `context.rs` is a device and its stream, `memory.rs` memory on both sides,
//! `landing.rs` where results arrive on the host, `module.rs` compiled kernels and their launch, `tensor_map.rs` what they
//! copy by boxes, `graph.rs` recorded work, `nvrtc.rs` the compiler, `multiplication.rs` what cuBLASLt is told of a
//! product, `blas.rs` its linear layers, `matmul.rs` its products of single operations.

pub(crate) mod blas;
pub(crate) mod context;
pub(crate) mod graph;
pub(crate) mod landing;
pub(crate) mod libraries;
pub(crate) mod matmul;
pub(crate) mod memory;
pub(crate) mod module;
mod multiplication;
pub(crate) mod nvrtc;
pub(crate) mod tensor_map;

use cudarc::driver::sys::CUresult;
use mlxt_backend::{Error, Result};

/// The name errors have for this backend.
pub(crate) const BACKEND: &str = "cuda";

/// An error of the device or of what belongs to it.
pub(crate) fn failure(message: String) -> Error {
    Error::Device { backend: BACKEND, message }
}

/// What the driver said, as a result.
pub(crate) fn check(what: &str, code: CUresult) -> Result<()> {
    match code.result() {
        Ok(()) => Ok(()),
        Err(error) => {
            let name = error.error_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            let text = error.error_string().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            Err(failure(format!("{what}: {name} ({text})")))
        }
    }
}

/// As [`check`], for what asked for `bytes` of memory.
pub(crate) fn check_memory(what: &str, bytes: usize, code: CUresult) -> Result<()> {
    if code == CUresult::CUDA_ERROR_OUT_OF_MEMORY {
        return Err(Error::OutOfMemory { backend: BACKEND, bytes });
    }
    check(what, code)
}
