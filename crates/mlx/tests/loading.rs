//! What is wrong with an MLX is said before it can do harm, with what to do about it. Nothing is ever loaded here.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests are tests

mod common;

use std::fs;
use std::path::Path;

use mlxt_mlx::{Installation, LoadError, MlxDevice, MlxOptions};

fn refused(options: MlxOptions) -> LoadError {
    match MlxDevice::new(options) {
        Ok(_) => panic!("it was loaded"),
        Err(error) => error,
    }
}

/// A folder laid out as a wheel, with these headers and this library.
fn wheel(version: [u32; 3], library: &[u8]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let (lib, include) = (folder.path().join("lib"), folder.path().join("include/mlx"));
    fs::create_dir_all(&lib).unwrap();
    fs::create_dir_all(&include).unwrap();
    let names = ["MAJOR", "MINOR", "PATCH"].iter().zip(version);
    let lines: Vec<String> = names.map(|(name, n)| format!("#define MLX_VERSION_{name} {n}\n")).collect();
    fs::write(include.join("version.h"), lines.concat()).unwrap();
    let suffix = if cfg!(target_os = "macos") { "dylib" } else { "so" };
    fs::write(lib.join(format!("libmlx.{suffix}")), library).unwrap();
    folder
}

fn load(folder: &Path, cache: &Path) -> LoadError {
    let installation = Installation::at(folder, "a test").unwrap();
    refused(MlxOptions { installation: Some(installation), bridges: Some(cache.to_owned()), ..MlxOptions::default() })
}

#[test]
fn a_folder_without_mlx_is_an_error_that_says_what_to_do() {
    let empty = tempfile::tempdir().unwrap();
    let error = Installation::at(empty.path(), "MLX_DIR").unwrap_err();
    assert!(matches!(&error, LoadError::Incomplete { why, .. } if why == "MLX_DIR"), "{error}");
    assert!(error.to_string().contains("MLX_DIR names") && error.advice().contains("mlxt setup mlx"), "{error}");
}

#[test]
fn an_mlx_older_than_the_bridge_is_not_loaded() {
    let (old, cache) = (wheel([0, 31, 9], b"not a library"), tempfile::tempdir().unwrap());
    let error = load(old.path(), cache.path());
    assert!(matches!(&error, LoadError::TooOld { found, .. } if found == "0.31.9"), "{error}");
}

#[test]
fn a_cuda_build_is_not_opened_where_there_is_no_gpu() {
    if Path::new("/dev/nvidiactl").exists() {
        println!("not checked: this machine has an NVIDIA GPU");
        return;
    }
    let (cuda, cache) = (wheel([0, 32, 4], b"\x7fELF .. libcublasLt.so.13 .."), tempfile::tempdir().unwrap());
    let error = load(cuda.path(), cache.path());
    assert!(matches!(error, LoadError::NoGpu { .. }), "{error}");
}

#[test]
fn headers_of_another_version_are_not_trusted() {
    let Some(installed) = common::installation() else { return };
    // The real library beside headers that say something else: a bridge made from them would be of the wrong version.
    let folder = tempfile::tempdir().unwrap();
    let include = folder.path().join("include/mlx");
    fs::create_dir_all(&include).unwrap();
    #[cfg(unix)]
    std::os::unix::fs::symlink(installed.folder.join("lib"), folder.path().join("lib")).unwrap();
    let text = "#define MLX_VERSION_MAJOR 0\n#define MLX_VERSION_MINOR 99\n#define MLX_VERSION_PATCH 1\n";
    fs::write(include.join("version.h"), text).unwrap();
    let cache = tempfile::tempdir().unwrap();
    let error = load(folder.path(), cache.path());
    let said = matches!(error, LoadError::Compile { .. } | LoadError::NoCompiler { .. } | LoadError::Version { .. });
    assert!(said, "{error}");
    assert!(!error.advice().is_empty());
}
