//! The kernels' source, by the compiler that compiles it on every machine with a GPU; and what is said where there is none.
//!
//! NVRTC needs no GPU: `pip install nvidia-cuda-nvrtc` into the python3 in use, or name its folder in `MLXT_TEST_NVRTC`.

use std::collections::HashSet;
use std::env;
use std::path::PathBuf;

use mlxt_backend::{Arithmetic, Error, Result};
use mlxt_cuda::{CudaDevice, CudaOptions, kernels};

/// Says aloud that a test has not what it needs. Where `MLXT_FORBID_SKIPS` is set, that is a failure.
fn skip(why: &str) {
    println!("skipped: {why}");
    assert!(env::var_os("MLXT_FORBID_SKIPS").is_none(), "a test was skipped: {why}");
}

fn folder() -> Option<PathBuf> {
    env::var_os("MLXT_TEST_NVRTC").map(PathBuf::from)
}

/// The kernels in machine code, each in one piece of it alone; none where there is no compiler.
fn kernels_in(compiled: Result<Vec<Vec<u8>>>) -> Option<HashSet<String>> {
    match compiled {
        Ok(codes) => {
            assert!(codes.iter().all(|code| code.starts_with(b"\x7fELF")), "no machine code");
            let names: Vec<String> = codes.iter().flat_map(|code| kernels::names(code)).collect();
            let known: HashSet<String> = names.iter().cloned().collect();
            assert_eq!(names.len(), known.len(), "a kernel is compiled twice: {names:?}");
            Some(known)
        }
        Err(Error::Device { message, .. }) if message.contains("was not found") => {
            skip(&message);
            None
        }
        // The compiler's whole log, for whoever changed a kernel.
        Err(error) => {
            assert_eq!(error.to_string(), "");
            None
        }
    }
}

/// That the kernels compile, and are those of `some` among others and none of `others`.
fn compiles(arithmetic: Arithmetic, capability: u32, some: &[&str], others: &[&str]) {
    let Some(known) = kernels_in(kernels::compile(arithmetic, capability, folder().as_deref())) else { return };
    for name in some {
        assert!(known.contains(*name), "{arithmetic} for {capability} has no {name}: {known:?}");
    }
    for name in others {
        assert!(!known.contains(*name), "{arithmetic} for {capability} has {name}");
    }
}

/// Of every file that has kernels for all.
const ALL: [&str; 6] = ["norm_value_1", "norm_lookups_8", "norm_parts_2", "attention_64", "take_rows", "gemm_any"];
/// Of those for activations of 16 bits.
const OF_16_BITS: [&str; 5] = ["stream_16_1_12", "tile_16_64", "tile_128_64", "flash_64", "flash_few_128"];
const OF_F32: [&str; 4] = ["tiled_64", "flash_tf32_64", "stream_f32_8", "stream_f32_32"];
const OF_HOPPER: [&str; 5] = ["hopper_128", "hopper_192", "few_64_32", "few_64_96", "few_128_64"];

#[test]
fn ampere() {
    compiles(Arithmetic::F16, 80, &[&ALL[..], &OF_16_BITS].concat(), &[&OF_F32[..], &OF_HOPPER].concat());
    compiles(Arithmetic::F32, 80, &[&ALL[..], &OF_F32].concat(), &[&OF_16_BITS[..], &OF_HOPPER].concat());
}

#[test]
fn ada() {
    compiles(Arithmetic::Bf16, 89, &[&ALL[..], &OF_16_BITS].concat(), &[&OF_F32[..], &OF_HOPPER].concat());
}

#[test]
fn hopper() {
    // Of those that multiply, the first is not ours.
    let products = &CudaDevice::PRODUCTS[1..];
    compiles(Arithmetic::F16, 90, &[&ALL[..], &OF_16_BITS, &OF_HOPPER, products].concat(), &OF_F32);
    let products = [&CudaDevice::PRODUCTS_F32[1..], &CudaDevice::PRODUCTS_TF32].concat();
    compiles(Arithmetic::F32, 90, &[&ALL[..], &OF_F32, &OF_HOPPER, &products].concat(), &OF_16_BITS);
}

#[test]
fn blackwell() {
    compiles(Arithmetic::F16, 100, &[&ALL[..], &OF_16_BITS].concat(), &[&OF_F32[..], &OF_HOPPER].concat());
}

#[test]
fn products_of_8_bits() {
    let all = ["round_1", "round_8", "norm_value_1", "norm_parts_8", "stream_16_1_12", "tile_128_64"];
    for (integers, capability) in [(true, 80), (true, 90), (false, 89), (false, 90), (true, 100), (false, 100)] {
        let compiled = kernels::compile_8_bits(integers, capability, folder().as_deref());
        let Some(known) = kernels_in(compiled) else { return };
        let of_hopper = OF_HOPPER.iter().filter(|_| capability == 90);
        for name in all.iter().chain(of_hopper) {
            assert!(known.contains(*name), "there is no {name} for {capability}: {known:?}");
        }
    }
}

#[test]
fn operations_of_the_study() {
    let Some(known) = kernels_in(kernels::compile_operations(90, folder().as_deref())) else { return };
    let some = [
        "map_gelu",
        "argmax_rows_1",
        "softmax_columns",
        "scatter_count",
        "sort_merge",
        "sort_columns_1",
        "attend_tile",
    ];
    for name in some {
        assert!(known.contains(name), "there is no {name}: {known:?}");
    }
}

#[test]
fn a_machine_without_a_gpu_is_told_so() {
    let opened = CudaDevice::new(&CudaOptions { ordinal: 4000, ..CudaOptions::default() });
    let message = opened.err().map(|error| error.to_string()).unwrap_or_default();
    let known = ["no NVIDIA driver was found", "shows no usable GPU", "there is no cuda:4000", "update it to version"];
    assert!(known.iter().any(|words| message.contains(words)), "{message:?}");
}
