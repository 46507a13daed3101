//! Finds the libraries of CUDA and keeps them loaded, so that what loads them by name later finds them.
//!
//! They may be where the system looks, in a CUDA toolkit, or in pip's nvidia packages. `cudarc` panics when a library is
//! missing or lacks a function, so both are looked at here first.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use libloading::Library;
use mlxt_backend::{Error, Result};

use crate::ffi::failure;

/// The functions this crate calls of the driver that older drivers have not.
const DRIVER_FUNCTIONS: [&str; 5] = [
    "cuLaunchKernelEx",
    "cuGraphInstantiateWithFlags",
    "cuMemAllocAsync",
    "cuTensorMapEncodeTiled",
    "cuEventElapsedTime_v2",
];
/// Versions of a library that have the functions called here, newest first.
const MAJORS: [u32; 2] = [13, 12];

/// Loads the driver.
///
/// # Errors
/// [`Error::Device`] with what to do.
pub(crate) fn driver() -> Result<()> {
    static FOUND: OnceLock<Result<()>> = OnceLock::new();
    let find = || {
        let library = load(Path::new("libcuda.so.1")).or_else(|| load(Path::new("nvcuda.dll")));
        let library = library.ok_or_else(|| {
            failure("no NVIDIA driver was found (libcuda.so.1); install one, or use another device".to_owned())
        })?;
        for function in DRIVER_FUNCTIONS {
            // SAFETY: the symbol is looked up, not called.
            if unsafe { library.get::<*const ()>(function.as_bytes()) }.is_err() {
                return Err(failure(format!("the NVIDIA driver has no {function}: update it to version 570 or newer")));
            }
        }
        Ok(())
    };
    FOUND.get_or_init(find).clone()
}

/// Loads NVRTC, which compiles kernels; the first time from `folder` if it is there.
///
/// # Errors
/// [`Error::Device`] with what to do.
pub(crate) fn nvrtc(folder: Option<&Path>) -> Result<()> {
    static FOUND: OnceLock<Result<()>> = OnceLock::new();
    FOUND.get_or_init(|| find(folder, "nvrtc", "NVRTC", "nvidia-cuda-nvrtc")).clone()
}

/// Loads cuBLASLt, which multiplies matrices.
///
/// # Errors
/// [`Error::Device`] with what to do.
pub(crate) fn cublaslt() -> Result<()> {
    static FOUND: OnceLock<Result<()>> = OnceLock::new();
    FOUND.get_or_init(|| find(None, "cublasLt", "cuBLASLt", "nvidia-cublas")).clone()
}

fn find(first: Option<&Path>, name: &str, title: &str, package: &str) -> Result<()> {
    let files: Vec<String> = MAJORS.iter().map(|major| format!("lib{name}.so.{major}")).collect();
    let folders: Vec<PathBuf> = first.map(Path::to_owned).into_iter().chain(folders()).collect();
    let found = |folder: Option<&Path>| {
        files.iter().any(|file| {
            let path = folder.map_or_else(|| PathBuf::from(file), |folder| folder.join(file));
            if folder.is_some() && !path.is_file() {
                return false;
            }
            // What it opens by name itself has to be there before it asks.
            if let Some(folder) = folder {
                for path in companions(folder, name) {
                    load(&path);
                }
            }
            load(&path).is_some()
        })
    };
    if folders.iter().any(|folder| found(Some(folder))) || found(None) {
        return Ok(());
    }
    let versions = MAJORS.map(|major| major.to_string()).join(" or ");
    Err(failure(format!(
        "{title} {versions} was not found (lib{name}.so): install the CUDA toolkit, or `pip install {package}` for the \
         python3 or VIRTUAL_ENV in use"
    )))
}

/// Libraries beside one that it opens when it is first used.
fn companions(folder: &Path, name: &str) -> Vec<PathBuf> {
    if name != "nvrtc" {
        return Vec::new();
    }
    let files = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    files.filter(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("libnvrtc-builtins.so"))).collect()
}

/// Where else the libraries may be. The system's own places are asked last, by name alone.
fn folders() -> Vec<PathBuf> {
    let mut folders = Vec::new();
    for variable in ["CUDA_HOME", "CUDA_PATH"] {
        if let Some(toolkit) = env::var_os(variable) {
            folders.extend(["lib64", "lib"].map(|lib| Path::new(&toolkit).join(lib)));
        }
    }
    folders.push(PathBuf::from("/usr/local/cuda/lib64"));
    for site in site_packages() {
        // nvidia/cu13/lib, nvidia/cuda_nvrtc/lib, ..
        let packages = fs::read_dir(site.join("nvidia")).into_iter().flatten().flatten();
        folders.extend(packages.map(|package| package.path().join("lib")));
    }
    folders
}

/// The folders from which the Python in use imports packages.
fn site_packages() -> Vec<PathBuf> {
    if let Some(environment) = env::var_os("VIRTUAL_ENV") {
        let versions = fs::read_dir(Path::new(&environment).join("lib")).into_iter().flatten().flatten();
        return versions.map(|version| version.path().join("site-packages")).collect();
    }
    let script = "import site; print('\\n'.join(site.getsitepackages() + [site.getusersitepackages()]))";
    let said = Command::new("python3").args(["-c", script]).output();
    let said = said.map(|out| String::from_utf8_lossy(&out.stdout).into_owned()).unwrap_or_default();
    said.lines().map(PathBuf::from).collect()
}

/// Loads a library for as long as the program runs.
fn load(path: &Path) -> Option<&'static Library> {
    // SAFETY: NVIDIA's libraries do nothing when they are loaded but set themselves up.
    unsafe { Library::new(path) }.ok().map(|library| &*Box::leak(Box::new(library)))
}

/// The error where there is no device by that number.
pub(crate) fn no_device(ordinal: usize, count: usize) -> Error {
    let plural = if count == 1 { "" } else { "s" };
    failure(format!("there is no cuda:{ordinal}; the driver shows {count} device{plural} (see CUDA_VISIBLE_DEVICES)"))
}
