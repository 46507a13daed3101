//! The kernels' source, by the compiler that compiles it on every machine with a GPU; and what is said where there is none.
//!
//! NVRTC needs no GPU: `pip install nvidia-cuda-nvrtc` into the python3 in use, or name its folder in `MLXT_TEST_NVRTC`.

use std::env;
use std::path::PathBuf;

use mlxt_backend::{Arithmetic, Error};
use mlxt_cuda::{CudaDevice, CudaOptions, kernels};

/// Says aloud that a test has not what it needs. Where `MLXT_FORBID_SKIPS` is set, that is a failure.
fn skip(why: &str) {
    println!("skipped: {why}");
    assert!(env::var_os("MLXT_FORBID_SKIPS").is_none(), "a test was skipped: {why}");
}

fn compiles(arithmetic: Arithmetic, capability: u32) {
    let folder = env::var_os("MLXT_TEST_NVRTC").map(PathBuf::from);
    match kernels::compile(arithmetic, capability, folder.as_deref()) {
        Ok(code) => assert!(code.starts_with(b"\x7fELF"), "no machine code for {capability}"),
        Err(Error::Device { message, .. }) if message.contains("was not found") => skip(&message),
        // The compiler's whole log, for whoever changed a kernel.
        Err(error) => assert_eq!(error.to_string(), "", "{arithmetic} for {capability}"),
    }
}

#[test]
fn ampere() {
    compiles(Arithmetic::F16, 80);
    compiles(Arithmetic::F32, 80);
}

#[test]
fn ada() {
    compiles(Arithmetic::Bf16, 89);
}

#[test]
fn hopper() {
    compiles(Arithmetic::F16, 90);
}

#[test]
fn blackwell() {
    compiles(Arithmetic::F16, 100);
}

#[test]
fn operations_of_the_study() {
    // The compiler is looked for once, by whoever is first.
    compiles(Arithmetic::F32, 90);
    match kernels::compile_operations(90) {
        Err(Error::Device { message, .. }) if message.contains("was not found") => skip(&message),
        compiled => assert!(compiled.is_ok(), "{:?}", compiled.err()),
    }
}

#[test]
fn a_machine_without_a_gpu_is_told_so() {
    let opened = CudaDevice::new(&CudaOptions { ordinal: 4000, ..CudaOptions::default() });
    let message = opened.err().map(|error| error.to_string()).unwrap_or_default();
    let known = ["no NVIDIA driver was found", "shows no usable GPU", "there is no cuda:4000", "update it to version"];
    assert!(known.iter().any(|words| message.contains(words)), "{message:?}");
}
