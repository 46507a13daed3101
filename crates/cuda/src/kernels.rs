//! The kernels' source, compiled for a device when it is opened.

use std::path::Path;
use std::sync::Arc;

use mlxt_backend::{Arithmetic, Result};

use crate::cache::{Cache, key};
use crate::ffi;
use crate::ffi::context::Context;
use crate::ffi::module::Module;
use crate::ffi::{libraries, nvrtc};
use crate::operations::Family;

/// All of it, in the order it is compiled in, as one source.
const SOURCES: [&str; 12] = [
    include_str!("../kernels/common.cuh"),
    include_str!("../kernels/matrix.cuh"),
    include_str!("../kernels/hopper.cuh"),
    include_str!("../kernels/norm.cu"),
    include_str!("../kernels/rows.cu"),
    include_str!("../kernels/attention.cu"),
    include_str!("../kernels/flash.cu"),
    include_str!("../kernels/attention_f32.cu"),
    include_str!("../kernels/gemm_any.cu"),
    include_str!("../kernels/gemm.cu"),
    include_str!("../kernels/gemm_hopper.cu"),
    include_str!("../kernels/gemm_few.cu"),
];

/// What the compiler is told.
fn options(arithmetic: Arithmetic, capability: u32) -> Vec<String> {
    let element = match arithmetic {
        Arithmetic::F32 | Arithmetic::Tf32 => 32,
        Arithmetic::F16 => 16,
        Arithmetic::Bf16 => 17,
    };
    // Instructions of Hopper and Blackwell that no later chip has need the name with an `a`.
    let own = if capability >= 90 { "a" } else { "" };
    vec![
        format!("--gpu-architecture=sm_{capability}{own}"),
        format!("-DELEMENT={element}"),
        "--std=c++17".to_owned(),
        // Lambdas are functions of the device.
        "--device-as-default-execution-space".to_owned(),
    ]
}

/// Machine code of the kernels for a compute capability (8.9 is 89), by the NVRTC in `folder` or wherever there is one.
///
/// # Errors
/// NVRTC is missing or refuses them.
pub fn compile(arithmetic: Arithmetic, capability: u32, folder: Option<&Path>) -> Result<Vec<u8>> {
    libraries::nvrtc(folder)?;
    nvrtc::compile(&SOURCES.join("\n"), &options(arithmetic, capability))
}

/// Machine code of the study's operations, family by family.
///
/// # Errors
/// NVRTC is missing or refuses them.
pub fn compile_operations(capability: u32) -> Result<Vec<Vec<u8>>> {
    let options = options(Arithmetic::F32, capability);
    Family::ALL.iter().map(|family| nvrtc::compile(&family.sources().join("\n"), &options)).collect()
}

/// The kernels on a device, from the cache where they are in it.
///
/// # Errors
/// NVRTC is missing, or newer than the driver.
pub(crate) fn load(context: &Arc<Context>, arithmetic: Arithmetic, cache: &Cache) -> Result<Module> {
    Ok(load_source(context, &SOURCES, arithmetic, cache)?.in_a_row())
}

/// As [`load`], of any source.
pub(crate) fn load_source(
    context: &Arc<Context>,
    sources: &[&str],
    arithmetic: Arithmetic,
    cache: &Cache,
) -> Result<Module> {
    let (major, minor) = nvrtc::version()?;
    let driver = context.driver;
    if major > driver / 1000 {
        return Err(ffi::failure(format!(
            "NVRTC {major}.{minor} is newer than the driver, which knows CUDA {}.{}: update the driver, or install NVRTC {}",
            driver / 1000,
            driver % 1000 / 10,
            driver / 1000
        )));
    }
    let options = options(arithmetic, context.capability);
    let mut parts = vec![format!("NVRTC {major}.{minor}")];
    parts.extend(options.iter().cloned());
    parts.extend(sources.iter().map(|&source| source.to_owned()));
    let key = key(&parts.iter().map(String::as_str).collect::<Vec<_>>());
    let make = || nvrtc::compile(&sources.join("\n"), &options);
    let loaded = Module::new(context, &cache.get(&key, make)?);
    loaded.or_else(|_| {
        cache.forget(&key);
        Module::new(context, &cache.get(&key, make)?)
    })
}
